//! The sources of a configuration.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use rtlive_config::endpoint::{Broker, NatsServer};
use rtlive_config::name::named_tables;
use rtlive_config::quantity::Period;
use rtlive_config::secret::Secret;
use rtlive_config::table::{Table, Value};
use rtlive_config::uplink::{ClientId, Login, Protocol, TlsConfig, TlsOptions, login, tls_config};
use rtlive_config::value::{Bounded, OneOrMany, Setting, parse};
use rtlive_config::{choices, options};

use crate::subject::NatsFilter;

/// The most sources: each has a task and a queue.
const SOURCES_MAX: usize = 64;

choices! {
    /// Where messages come from.
    pub enum SourceKind {
        /// An MQTT broker.
        Mqtt = "mqtt",
        /// What a NATS server keeps of MQTT.
        Nats = "nats",
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
    /// A NATS server that speaks MQTT to the agents. Its stream of messages of QoS 1 is read by a durable consumer for each filter, and a message is acknowledged
    /// once it is on this machine's disk.
    pub struct NatsOptions {
        /// The server, `nats://` or, over TLS, `tls://`.
        pub server: NatsServer,
        /// The name of the login.
        pub username: Option<String>,
        /// The password of the login.
        pub password: Option<Secret>,
        /// The topics, as MQTT writes them, one filter or a list. Receivers that share the agents of a server each have filters of their own.
        pub topics: OneOrMany<NatsFilter>,
        /// What the names of the consumers begin with, under which the server keeps how far they are. Absent: `rtlive-receiver-`, the receiver's id, `-`, the name of
        /// the source.
        pub consumer: Option<ClientId>,
        /// How many messages the server may have sent that are not yet acknowledged, for each filter.
        pub inflight: Bounded<u16, 1, 65_535> = 256,
        /// For how long the server keeps the consumers of a receiver that is away, and with them the messages.
        pub session: Period = "7d",
        /// Whether the agents get receipts, at the topics `rtlive-receipts/AGENT`.
        pub receipts: bool = false,
        /// The keys of TLS, with `tls://`.
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
pub(crate) fn is_filter(text: &str) -> bool {
    let mut levels = text.split('/').rev();
    let is_level = |level: &str| level == "+" || !level.contains(['+', '#', '\0']);
    let is_last = |level: &str| level == "#" || is_level(level);
    !text.is_empty()
        && text.len() <= usize::from(u16::MAX)
        && levels.next().is_some_and(is_last)
        && levels.all(is_level)
}

/// A source, checked.
#[derive(Clone, Debug)]
pub enum SourceConfig {
    /// An MQTT broker.
    Mqtt(Box<MqttConfig>),
    /// A NATS server.
    Nats(Box<NatsConfig>),
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

/// A NATS server, checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NatsConfig {
    /// The server.
    pub server: NatsServer,
    /// The login.
    pub login: Option<Login>,
    /// The topics.
    pub filters: Vec<NatsFilter>,
    /// What the names of the consumers begin with.
    pub consumer: String,
    /// How many messages of a consumer may be unacknowledged.
    pub inflight: u16,
    /// For how long the server keeps a consumer of a receiver that is away.
    pub session: Duration,
    /// Whether the agents get receipts.
    pub receipts: bool,
    /// The keys of TLS; all `None` where the server is reached without.
    pub tls: TlsConfig,
}

/// The sources, by name; `id` is that of the receiver. `None` after a mistake.
pub(super) fn sources(root: &Table<'_>, id: Option<&str>) -> Option<BTreeMap<Arc<str>, SourceConfig>> {
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
        SourceKind::Nats => nats(name, table, id).map(|nats| SourceConfig::Nats(Box::new(nats))),
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

fn nats(name: &str, table: &Table<'_>, id: Option<&str>) -> Option<NatsConfig> {
    let NatsOptions { server, username, password, topics, consumer, inflight, session, receipts, tls } =
        NatsOptions::read(table)?;
    let login = login(table, username, password, &server);
    let tls = tls_config(table, tls, &server);
    let consumer = consumer.map(|name| name.0).or_else(|| id.map(|id| format!("rtlive-receiver-{id}-{name}")))?;
    let (inflight, session) = (inflight.get(), session.0);
    let filters = topics.into_iter().collect();
    Some(NatsConfig { server, login: login?, filters, consumer, inflight, session, receipts, tls: tls? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters_are_those_of_mqtt() {
        for filter in ["#", "+", "a/+/b", "a/#", "/", "a//b", "+/+/#"] {
            assert!(is_filter(filter), "{filter}");
        }
        for filter in ["", "a/#/b", "a+", "#a", "a/b#"] {
            assert!(!is_filter(filter), "{filter}");
        }
    }
}
