//! The configuration: what is read from where, and what becomes of it.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use rtlive_config::document::Document;
use rtlive_config::endpoint::Broker;
use rtlive_config::load::{self, Home};
use rtlive_config::markdown::section;
use rtlive_config::mistake::{Mistake, Mistakes};
use rtlive_config::name::{NAME_CHARS_MAX, is_agent_id, named_tables};
use rtlive_config::quantity::Period;
use rtlive_config::secret::Secret;
use rtlive_config::table::{Table, Value};
use rtlive_config::uplink::{ClientId, Login, Protocol, TlsConfig, TlsOptions, login, tls_config};
use rtlive_config::value::{Bounded, OneOrMany, Setting, parse};
use rtlive_config::{choices, options};

/// Where the configuration is without `-c`.
pub const HOME: Home = Home { folder: "/etc/rtlive-receiver", file: "receiver.toml" };

/// The most sources: each has a task and a queue.
const SOURCES_MAX: usize = 64;

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
    /// Where messages come from.
    pub enum SourceKind {
        /// An MQTT broker.
        Mqtt = "mqtt",
        /// The files of a folder, each messages in a row.
        Directory = "directory",
        /// Standard input: messages in a row.
        Stdin = "stdin",
    }
}

options! {
    /// A broker. The session outlives the connection, and a message is acknowledged once it is on this machine's disk.
    pub struct MqttOptions {
        /// The broker, `mqtt://` or, over TLS, `mqtts://`.
        pub broker: Broker,
        /// The name of the login.
        pub username: Option<String>,
        /// The password of the login.
        pub password: Option<Secret>,
        /// The topics that are subscribed to, one filter or a list. Receivers that share the agents of a broker each have filters of their own.
        pub topics: OneOrMany<TopicFilter>,
        /// The version of MQTT.
        pub protocol: Protocol = "auto",
        /// The client id, under which the broker keeps the session. Absent: `rtlive-receiver-`, the receiver's id, `-`, the name of the source.
        pub client_id: Option<ClientId>,
        /// How many messages the broker may have sent that are not yet acknowledged. MQTT 3.1.1 has no word for it: there it is the broker's own bound.
        pub inflight: Bounded<u16, 1, 65_535> = 256,
        /// For how long the broker keeps the session of a receiver that is away. MQTT 3.1.1 has no word for it.
        pub session: Period = "7d",
        /// Whether the agents get receipts, at the topics `rtlive-receipts/AGENT` of this broker.
        pub receipts: bool = false,
        /// The keys of TLS, with `mqtts://`.
        pub tls: Option<TlsOptions>,
    }
}

options! {
    /// A folder. Files are read in the order of their names, and from where they were read to before; names that begin with a dot are passed over.
    pub struct DirectoryOptions {
        /// The folder.
        pub path: PathBuf,
        /// Whether to wait for more. Otherwise the source ends when it has read what is there.
        pub follow: bool = true,
    }
}

options! {
    /// Standard input, to its end.
    pub struct StdinOptions {
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

/// A filter of topics (MQTT 5.0, section 4.7), not of a shared subscription.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicFilter(pub String);

impl Setting for TopicFilter {
    fn expected() -> String {
        "a filter of topics such as \"rtlive/#\"".into()
    }

    fn read(value: &Value<'_>) -> Option<Self> {
        if value.as_text().is_some_and(|text| text.starts_with("$share/")) {
            let expected =
                "topics of its own: receivers that share a subscription would each know a part of an agent's numbers";
            value.mistake(expected, value.found());
            return None;
        }
        parse(value, |text| is_filter(text).then(|| Self(text.to_owned())))
    }
}

/// Whether `+` and `#` stand alone in their levels, and `#` in the last one.
fn is_filter(text: &str) -> bool {
    let mut levels = text.split('/').rev();
    let is_level = |level: &str| level == "+" || !level.contains(['+', '#', '\0']);
    let is_last = |level: &str| level == "#" || is_level(level);
    !text.is_empty()
        && text.len() <= usize::from(u16::MAX)
        && levels.next().is_some_and(is_last)
        && levels.all(is_level)
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

/// A source, checked.
#[derive(Clone, Debug)]
pub enum SourceConfig {
    /// An MQTT broker.
    Mqtt(Box<MqttConfig>),
    /// The files of a folder.
    Directory {
        /// The folder.
        path: PathBuf,
        /// Whether to wait for more.
        follow: bool,
    },
    /// Standard input.
    Stdin,
}

/// An MQTT broker, checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MqttConfig {
    /// The broker.
    pub broker: Broker,
    /// The login.
    pub login: Option<Login>,
    /// The topics that are subscribed to.
    pub topics: Vec<String>,
    /// The version of MQTT.
    pub protocol: Protocol,
    /// The client id.
    pub client_id: String,
    /// How many messages may be unacknowledged.
    pub inflight: u16,
    /// For how long the broker keeps the session.
    pub session: Duration,
    /// Whether the agents get receipts.
    pub receipts: bool,
    /// The keys of TLS; all `None` where the broker is reached without.
    pub tls: TlsConfig,
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
    let sources = sources(root, id);
    let outputs = outputs(root);
    let ReceiverOptions { id, state_dir, metrics } = receiver?;
    let (id, metrics) = (id.0, metrics.map(|metrics| metrics.0));
    Some(Config { id, state_dir, metrics, sources: sources?, outputs: outputs?, warnings: Vec::new() })
}

fn sources(root: &Table<'_>, id: Option<&str>) -> Option<BTreeMap<Arc<str>, SourceConfig>> {
    let table = root.table_or_empty("sources")?;
    let tables = named_tables(&table, "a source");
    if tables.len() > SOURCES_MAX {
        table.mistake("", format!("at most {SOURCES_MAX} sources"), tables.len());
        return None;
    }
    // All are checked before the first that is wrong counts, so that the mistakes of all are noted.
    let checked: Vec<_> =
        tables.iter().map(|(name, table)| Some((Arc::from(*name), source(name, table, id)?))).collect();
    let sources: BTreeMap<Arc<str>, SourceConfig> = checked.into_iter().collect::<Option<_>>()?;
    let readers = sources.values().filter(|source| matches!(source, SourceConfig::Stdin)).count();
    if readers > 1 {
        table.mistake("", "at most one source that reads standard input", readers);
    }
    Some(sources)
}

fn source(name: &str, table: &Table<'_>, id: Option<&str>) -> Option<SourceConfig> {
    let kind: SourceKind = table.read("kind", None)?;
    match kind {
        SourceKind::Mqtt => mqtt(name, table, id).map(|mqtt| SourceConfig::Mqtt(Box::new(mqtt))),
        SourceKind::Directory => {
            let DirectoryOptions { path, follow } = DirectoryOptions::read(table)?;
            Some(SourceConfig::Directory { path, follow })
        }
        SourceKind::Stdin => StdinOptions::read(table).map(|StdinOptions {}| SourceConfig::Stdin),
    }
}

fn mqtt(name: &str, table: &Table<'_>, id: Option<&str>) -> Option<MqttConfig> {
    let MqttOptions { broker, username, password, topics, protocol, client_id, inflight, session, receipts, tls } =
        MqttOptions::read(table)?;
    let login = login(table, username, password, &broker);
    let tls = tls_config(table, tls, &broker);
    let client_id = client_id.map(|id| id.0).or_else(|| id.map(|id| format!("rtlive-receiver-{id}-{name}")))?;
    let topics = topics.into_iter().map(|filter| filter.0).collect();
    let (inflight, session) = (inflight.get(), session.0);
    Some(MqttConfig { broker, login: login?, topics, protocol, client_id, inflight, session, receipts, tls: tls? })
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

    #[test]
    fn filters_are_those_of_mqtt() {
        for filter in ["#", "+", "a/+/b", "a/#", "/", "a//b", "+/+/#"] {
            assert!(is_filter(filter), "{filter}");
        }
        for filter in ["", "a/#/b", "a+", "#a", "a/b#"] {
            assert!(!is_filter(filter), "{filter}");
        }
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
