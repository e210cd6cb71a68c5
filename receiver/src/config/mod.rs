//! The configuration: what is read from where, and what becomes of it.

pub mod source;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use rtlive_config::document::Document;
use rtlive_config::load::{self, Home};
use rtlive_config::markdown::section;
use rtlive_config::mistake::{Mistake, Mistakes};
use rtlive_config::name::{NAME_CHARS_MAX, is_agent_id, named_tables};
use rtlive_config::quantity::Period;
use rtlive_config::table::{Table, Value};
use rtlive_config::value::{Bounded, Setting, parse};
use rtlive_config::{choices, options};

pub(crate) use source::is_filter;
use source::{DirectoryOptions, MqttOptions, NatsOptions, StdinOptions};
pub use source::{MqttConfig, NatsConfig, SourceConfig};

/// Where the configuration is without `-c`.
pub const HOME: Home = Home { folder: "/etc/rtlive-receiver", file: "receiver.toml" };

/// The tables of the outermost level.
const TABLES: [&str; 3] = ["receiver", "sources", "outputs"];

options! {
    /// The receiver itself.
    pub struct ReceiverOptions {
        /// The name of this receiver among those that share brokers and folders: letters, digits, `_`, `-` and `.`, at most 64.
        pub id: ReceiverId = "receiver",
        /// The folder of what must survive a restart: which records are here, and what is not in its output yet.
        pub state_dir: PathBuf = "/var/lib/rtlive-receiver",
        /// The address at which counters and lags are served over HTTP, such as `"127.0.0.1:9464"`, at the path `/metrics`. Absent: nowhere. Whoever reaches
        /// the address may read them.
        pub metrics: Option<MetricsAddress>,
    }
}

choices! {
    /// What becomes of records.
    pub enum OutputKind {
        /// JSON lines on standard output, as `rtlive decode` prints them.
        Json = "json",
        /// Parquet files, partitioned by date and stream.
        Parquet = "parquet",
    }
}

options! {
    /// JSON lines on standard output. After a crash the lines of the last moment come again: a pipe cannot take them back.
    pub struct JsonOptions {
    }
}

options! {
    /// Parquet files, `date=YYYY-MM-DD/stream=NAME/*.parquet` below a folder that receivers may share.
    pub struct ParquetOptions {
        /// The folder.
        pub path: PathBuf,
        /// How often files are closed and put in their places: how long a record may wait to be seen.
        pub every: Period = "5m",
        /// After how many rows files are closed, whatever the time.
        pub rows: Bounded<u64, 1, 1_000_000_000> = 1_000_000,
    }
}

/// The name of a receiver: part of client ids and of file names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReceiverId(pub String);

impl Setting for ReceiverId {
    fn expected() -> String {
        format!("an id: letters, digits, _, - and ., at most {NAME_CHARS_MAX} characters")
    }

    fn read(value: &Value<'_>) -> Option<Self> {
        parse(value, |text| is_agent_id(text).then(|| Self(text.to_owned())))
    }
}

/// An address of this machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MetricsAddress(pub SocketAddr);

impl Setting for MetricsAddress {
    fn expected() -> String {
        "an address with a port such as \"127.0.0.1:9464\" or \"[::1]:9464\"".into()
    }

    fn read(value: &Value<'_>) -> Option<Self> {
        parse(value, |text| text.parse().ok().map(Self))
    }
}

/// A configuration without mistakes.
#[derive(Clone, Debug)]
pub struct Config {
    /// The name of this receiver.
    pub id: String,
    /// The folder of what must survive a restart.
    pub state_dir: PathBuf,
    /// Where counters and lags are served.
    pub metrics: Option<SocketAddr>,
    /// The sources, by name.
    pub sources: BTreeMap<Arc<str>, SourceConfig>,
    /// The outputs.
    pub outputs: OutputConfig,
    /// What is probably not what was meant.
    pub warnings: Vec<Mistake>,
}

/// The outputs, checked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OutputConfig {
    /// Whether JSON lines go to standard output.
    pub json: bool,
    /// Where Parquet files go.
    pub parquet: Option<ParquetConfig>,
}

/// An output of Parquet files, checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParquetConfig {
    /// The folder.
    pub folder: PathBuf,
    /// How often files are closed.
    pub every: Duration,
    /// After how many rows files are closed.
    pub rows_max: u64,
}

/// Loads and checks a configuration: the files and folders of `paths`, or those of [`HOME`] if there are none.
///
/// # Errors
/// All mistakes, in the order of files and lines.
pub fn load(paths: &[PathBuf]) -> Result<Config, Mistakes> {
    check(&load::read(paths, HOME)?)
}

/// Checks a document.
///
/// # Errors
/// All mistakes, in the order of files and lines.
pub fn check(document: &Document) -> Result<Config, Mistakes> {
    let root = document.root();
    let config = check_root(&root);
    root.close();
    let mistakes = document.mistakes();
    match config {
        Some(config) if mistakes.0.is_empty() => Ok(Config { warnings: document.warnings().0, ..config }),
        _ => Err(mistakes),
    }
}

fn check_root(root: &Table<'_>) -> Option<Config> {
    root.knows(&TABLES);
    let receiver = root.table_or_empty("receiver").and_then(|table| ReceiverOptions::read(&table));
    let id = receiver.as_ref().map(|receiver| receiver.id.0.as_str());
    let sources = source::sources(root, id);
    let outputs = outputs(root);
    let ReceiverOptions { id, state_dir, metrics } = receiver?;
    let (id, metrics) = (id.0, metrics.map(|metrics| metrics.0));
    Some(Config { id, state_dir, metrics, sources: sources?, outputs: outputs?, warnings: Vec::new() })
}

fn outputs(root: &Table<'_>) -> Option<OutputConfig> {
    let table = root.table_or_empty("outputs")?;
    let tables = named_tables(&table, "an output");
    let mut outputs = OutputConfig::default();
    let mut is_right = true;
    for (_, table) in &tables {
        is_right &= output(table, &mut outputs).is_some();
    }
    if tables.is_empty() {
        root.warn("", "no [outputs]: records are counted, and go nowhere");
    }
    is_right.then_some(outputs)
}

/// Adds an output; `None` after a mistake.
fn output(table: &Table<'_>, outputs: &mut OutputConfig) -> Option<()> {
    let kind: OutputKind = table.read("kind", None)?;
    let is_again = match kind {
        OutputKind::Json => {
            let JsonOptions {} = JsonOptions::read(table)?;
            std::mem::replace(&mut outputs.json, true)
        }
        OutputKind::Parquet => {
            let ParquetOptions { path, every, rows } = ParquetOptions::read(table)?;
            let config = ParquetConfig { folder: path, every: every.0, rows_max: rows.get() };
            outputs.parquet.replace(config).is_some()
        }
    };
    if is_again {
        table.mistake("kind", "one output of a kind", format!("another of {:?}", kind.word()));
        return None;
    }
    Some(())
}

/// The reference of every table, in Markdown, for docs/receiver.md.
pub fn reference_markdown() -> String {
    let mut text = String::new();
    for (heading, reference) in [
        ("`[receiver]`", ReceiverOptions::reference()),
        ("`[sources.NAME]` with `kind = \"mqtt\"`", MqttOptions::reference()),
        ("`[sources.NAME]` with `kind = \"nats\"`", NatsOptions::reference()),
        ("`[sources.NAME]` with `kind = \"directory\"`", DirectoryOptions::reference()),
        ("`[sources.NAME]` with `kind = \"stdin\"`", StdinOptions::reference()),
        ("`[outputs.NAME]` with `kind = \"json\"`", JsonOptions::reference()),
        ("`[outputs.NAME]` with `kind = \"parquet\"`", ParquetOptions::reference()),
    ] {
        section(&mut text, &format!("### {heading}"), &reference);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checked(text: &str) -> Result<Config, String> {
        check(&Document::of_text("receiver.toml", text)).map_err(|mistakes| mistakes.to_string())
    }

    #[test]
    fn what_is_not_written_has_its_default() {
        let text = "[sources.centre]\nkind = \"mqtt\"\nbroker = \"mqtt://127.0.0.1\"\ntopics = \"rtlive/#\"\n[outputs.lines]\nkind = \"json\"";
        let config = checked(text).unwrap();
        assert_eq!((&*config.id, &config.outputs), ("receiver", &OutputConfig { json: true, parquet: None }));
        let SourceConfig::Mqtt(mqtt) = &config.sources["centre"] else { panic!("{config:?}") };
        assert_eq!((&*mqtt.client_id, mqtt.inflight), ("rtlive-receiver-receiver-centre", 256));
        assert_eq!(mqtt.topics, ["rtlive/#"]);
    }

    #[test]
    fn every_mistake_is_told_with_its_place() {
        let text = "[receiver]\nid = \"a b\"\nmetrics = \"localhost\"\n[sources.a]\nkind = \"mqtt\"\nbroker = \"mqtt://x\"\ntopics = [\"a/#/b\"]\n[sources.b]\nkind = \"strudel\"\n[sources.c]\nkind = \"mqtt\"\nbroker = \"mqtt://x\"\ntopics = \"$share/g/rtlive/#\"\n[outputs.x]\nkind = \"json\"\nfolder = \"/x\"\n";
        let told = checked(text).unwrap_err();
        let lines: Vec<&str> = told.lines().map(|line| line.split(": ").next().unwrap()).collect();
        assert_eq!(
            lines,
            [
                "receiver.toml:2:6",
                "receiver.toml:3:11",
                "receiver.toml:7:11",
                "receiver.toml:9:8",
                "receiver.toml:13:10",
                "receiver.toml:16:1"
            ],
            "{told}"
        );
    }

    /// The keys in docs/receiver.md. `RTLIVE_BLESS=1` writes them anew.
    #[test]
    fn the_documentation_has_every_key() {
        const HEADING: &str = "## Keys\n";
        let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/receiver.md");
        let page = std::fs::read_to_string(&path).unwrap();
        let (written, keys) = page.split_once(HEADING).unwrap();
        let expected = reference_markdown();
        if std::env::var_os("RTLIVE_BLESS").is_some() {
            std::fs::write(&path, format!("{written}{HEADING}{expected}")).unwrap();
            return;
        }
        assert!(
            keys == expected,
            "docs/receiver.md differs from the options: RTLIVE_BLESS=1 cargo test -p rtlive-receiver"
        );
    }
}
