//! `mqtt`: subscribes to topics of a broker near the sensors.
//!
//! The broker keeps a session for the client id `rtlive-<agent>-<input>`, and every message is acknowledged only when its readings
//! are on disk; so the broker sends again what a crash or a power cut swallowed, and what was committed before the broker heard so is
//! recognised and not counted twice (`unacknowledged.rs`). Lost are messages of QoS 0, and what the broker itself drops: it holds back
//! and then drops messages beyond its own limits (mosquitto: `max_inflight_messages` 20, `max_queued_messages` 1000), and a broker without
//! `persistence true` forgets sessions when it restarts, which is noted as an outage `session_lost`.
//!
//! MQTT 3.1.1. A message that is not what its entry says is counted by reason, acknowledged, and hides no other.

mod connection;
#[cfg(test)]
mod live;
mod topics;
mod unacknowledged;

use std::path::PathBuf;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use rtlive_config::endpoint::Broker;
use rtlive_config::options;
use rtlive_config::quantity::ByteCount;
use rtlive_config::secret::Secret;
use rtlive_config::table::Table;
use rtlive_config::value::{Bounded, Named, NonEmpty};
use rtlive_core::reading::series_level;
use rtlive_core::selector::Selector;
use rtlive_core::template::{Piece, Template};
use rtlive_core::time::Timestamp;
use tokio::sync::watch;
use tokio::time::timeout;

use crate::input::{CheckedInput, Driver, Input, InputError, Running};
use crate::outlet::Session;
use crate::payload::{Format, Kind, Pointer, TimeUnit};
use crate::tls::{Identity, TlsFiles};
use connection::{Arrived, Connection, Message, Peer};
use topics::{Place, Topic, Topics};
use unacknowledged::{Arrival, Unacknowledged};

/// How many messages become one delivery at most: enough that a commit's worth of a fast source is a few deliveries, few enough that
/// the first of them does not wait.
const MESSAGES_PER_DELIVERY_MAX: usize = 1000;
/// How long a stop waits for the commit of what was handed over, so that the broker need not send it again.
const LAST_COMMIT_WAIT: Duration = Duration::from_secs(5);
/// Where the name of the session is kept: its broker and client id, so that a session lost is told from one that never was.
const SESSION_KEY: &str = "session";
/// Where the filters that the session is subscribed to are kept, one a line, so that those no longer configured can be dropped.
const FILTERS_KEY: &str = "filters";

/// The driver.
pub const DRIVER: Driver = Driver {
    name: "mqtt",
    summary: "messages of an MQTT broker (3.1.1), acknowledged only when they are on disk",
    example: r#"[inputs.floor]
driver = "mqtt"
broker = "mqtt://127.0.0.1:1883"

[[inputs.floor.topics]]
filter = "sensors/+/climate"
series = "{1}"
format = "json"
values = { temperature = "/t", humidity = "/h" }
time = "/ts"
time_unit = "ms"
"#,
    options: MqttOptions::reference,
    check,
};

options! {
    /// Messages of an MQTT broker.
    pub struct MqttOptions {
        /// The broker: `mqtt://HOST:PORT`, or `mqtts://` with TLS.
        pub broker: Broker,
        /// The name to log in with.
        pub username: Option<String>,
        /// The password to log in with, as a reference to where it is found.
        pub password: Option<Secret>,
        /// Whom to trust and what to show, with `mqtts://`.
        pub tls: Option<TlsOptions>,
        /// How many messages the broker sends before it waits for acknowledgements (mosquitto: `max_inflight_messages`). A commit starts
        /// early when half as many wait for it.
        pub inflight: Bounded<usize, 1, 65535> = 20,
        /// How many series the input may have. Messages that would make more are counted and dropped.
        pub max_series: Bounded<usize, 1, 1000000> = 10000,
        /// The longest message that is taken. A longer one ends the connection, and the broker sends it again until this is raised.
        pub max_packet: ByteCount = "1 MiB",
        /// What is subscribed to, and what is made of it. All entries that match a topic apply.
        pub topics: NonEmpty<TopicOptions>,
    }
}

options! {
    /// Whom to trust and what to show.
    pub struct TlsOptions {
        /// The certificates that sign the server's (PEM). Absent: the system's.
        pub ca: Option<PathBuf>,
        /// Our own certificate with its chain (PEM), where the server asks for one.
        pub cert: Option<PathBuf>,
        /// The private key of `cert` (PEM).
        pub key: Option<PathBuf>,
    }
}

options! {
    /// Topics, and what is made of their messages.
    pub struct TopicOptions {
        /// An MQTT filter.
        pub filter: Selector,
        /// The series, below the input's name: `{0}`, `{1}`, … are the levels of the topic. Absent: the whole topic.
        pub series: Option<Template>,
        /// How the messages are written.
        pub format: Format = "json",
        /// Several values of a message: the last level of each one's series, and where it stands (a JSON pointer, for CBOR too).
        pub values: Named<Pointer>,
        /// Where the only value stands. For `text` it is the whole message, and the key is not needed.
        pub value: Option<Pointer>,
        /// What the values are.
        pub kind: Kind as "type" = "auto",
        /// The unit of the values, as UCUM (`Cel`, `kWh`) or in your own words.
        pub unit: Option<String>,
        /// Where the time of the observation stands. Absent: the time of arrival.
        pub time: Option<Pointer>,
        /// What a time that is written as a number counts. RFC 3339 text is recognised by itself.
        pub time_unit: TimeUnit = "ms",
    }
}

fn check(table: &Table<'_>) -> Option<CheckedInput> {
    let options = MqttOptions::read(table)?;
    let mut right = true;
    let mut mistake = |key: &str, expected: &str, found: &str| {
        table.mistake(key, expected, found);
        right = false;
    };
    if options.password.is_some() && options.username.is_none() {
        mistake("password", "`username` beside it", "none");
    }
    if options.broker.tls && options.broker.address.host.contains(':') {
        mistake("broker", "a host name or an IPv4 address for TLS", "an IPv6 address");
    }
    let files = match (&options.tls, options.broker.tls) {
        (None, _) => TlsFiles::default(),
        (Some(_), false) => {
            mistake("tls", "a broker with mqtts:// for it", "mqtt://");
            TlsFiles::default()
        }
        (Some(TlsOptions { ca, cert, key }), true) => {
            let identity = match (cert, key) {
                (Some(cert), Some(key)) => Some(Identity { cert: cert.clone(), key: key.clone() }),
                (None, None) => None,
                _ => {
                    mistake("tls", "`cert` and `key` together", "one of them");
                    None
                }
            };
            TlsFiles { ca: ca.clone(), identity }
        }
    };
    let packet_bytes_max = usize::try_from(options.max_packet.0).unwrap_or(usize::MAX);
    if !(1..=PACKET_BYTES_LIMIT).contains(&packet_bytes_max) {
        mistake("max_packet", "at most 256 MiB, the longest that MQTT has", "more, or nothing");
    }
    let mut topics = Vec::new();
    for (index, written) in options.topics.iter().enumerate() {
        topics.push(check_topic(written, &format!("topics[{index}]"), &mut mistake));
    }
    let series = topics.iter().flat_map(Topic::known_series).collect();
    let input = MqttInput {
        peer: Peer {
            broker: options.broker,
            tls: files,
            username: options.username,
            password: options.password,
            packet_bytes_max,
        },
        topics,
        inflight: options.inflight.get(),
        series_max: options.max_series.get(),
        heard: AtomicI64::new(0),
    };
    right.then(|| CheckedInput {
        input: Box::new(input),
        polled: false,
        every: None,
        can_be_asked_again: true,
        series,
        has_others: true,
        readings_per_second: None,
    })
}

fn check_topic(written: &TopicOptions, place: &str, mistake: &mut impl FnMut(&str, &str, &str)) -> Topic {
    let TopicOptions { filter, series, format, values, value, kind, unit, time, time_unit } = written.clone();
    let at = |key: &str| format!("{place}.{key}");
    let whole = || Place { name: None, pointer: Pointer::whole(), kind, unit: unit.clone() };
    let places = match (format, value, values.0) {
        (Format::Text, None, values) if values.is_empty() => vec![whole()],
        (Format::Text, ..) => {
            mistake(&at("format"), "json or cbor, in which pointers can be followed", "text with pointers");
            Vec::new()
        }
        (_, Some(pointer), values) if values.is_empty() => vec![Place { pointer, ..whole() }],
        (_, None, values) if !values.is_empty() => {
            let named = values.into_iter().map(|(name, pointer)| {
                if name.split('/').any(|level| level.is_empty() || series_level(level) != level) {
                    mistake(
                        &at(&format!("values.{name}")),
                        "a name without + # { } and empty levels",
                        &format!("{name:?}"),
                    );
                }
                Place { name: Some(name), pointer, ..whole() }
            });
            named.collect()
        }
        (_, value, _) => {
            mistake(place, "either `value` or `values`", if value.is_some() { "both" } else { "neither" });
            Vec::new()
        }
    };
    if format == Format::Text && time.is_some() {
        mistake(&at("time"), "json or cbor, in which pointers can be followed", "text");
    }
    for piece in series.iter().flat_map(Template::pieces) {
        match piece {
            Piece::Text(_) => {}
            Piece::Level(level) => {
                let filter = filter.to_string();
                let levels = filter.split('/').count();
                if *level >= levels && !filter.ends_with('#') {
                    let expected = format!("a level from {{0}} to {{{}}} of {filter}", levels - 1);
                    mistake(&at("series"), &expected, &format!("{{{level}}}"));
                }
            }
            Piece::Name { name, .. } => {
                mistake(&at("series"), "levels of the topic such as {1}", &format!("{{{name}}}"));
            }
        }
    }
    Topic { filter, series, format, values: places, time, time_unit }
}

/// The longest packet that MQTT has (3.1.1, 2.2.3), in bytes.
const PACKET_BYTES_LIMIT: usize = 256 << 20;

/// An input, checked.
struct MqttInput {
    peer: Peer,
    topics: Vec<Topic>,
    inflight: usize,
    series_max: usize,
    /// When the last message came, in nanoseconds since the epoch; for the beginning of an outage. 0 before the first.
    heard: AtomicI64,
}

impl Input for MqttInput {
    fn run<'a>(&'a self, session: &'a mut Session) -> Running<'a> {
        Box::pin(self.run(session))
    }
}

/// One connection, from its opening to its end.
struct Run<'r> {
    input: &'r MqttInput,
    session: &'r mut Session,
    connection: Connection,
    topics: Topics<'r>,
    unacknowledged: Unacknowledged,
    /// How many messages no commit was asked for.
    unasked: usize,
}

impl MqttInput {
    fn heard(&self, now: Timestamp) {
        self.heard.store(now.as_nanos(), Ordering::Relaxed);
    }

    fn last_heard(&self) -> Option<Timestamp> {
        Some(self.heard.load(Ordering::Relaxed)).filter(|nanos| *nanos != 0).map(Timestamp::from_nanos)
    }

    async fn run(&self, session: &mut Session) -> Result<(), InputError> {
        // What an earlier run was putting together goes first, so that all that is kept is on disk once the last delivery is.
        if session.deliver(session.now(), false).await.is_err() {
            return Ok(());
        }
        let client_id = format!("rtlive-{}-{}", session.agent(), session.name());
        let session_name = format!("{} {client_id}", self.peer.broker);
        let expected = session.kept().get(SESSION_KEY).is_some_and(|kept| kept == session_name.as_bytes());
        let filters: Vec<String> = self.topics.iter().map(|topic| topic.filter.to_string()).collect();
        let obsolete = match session.kept().get(FILTERS_KEY) {
            Some(kept) if expected => {
                let kept = String::from_utf8_lossy(kept);
                kept.lines().filter(|kept| !filters.iter().any(|filter| filter == kept)).map(str::to_owned).collect()
            }
            _ => Vec::new(),
        };
        let opening = Connection::open(&self.peer, session.clock(), &client_id, &filters, obsolete);
        let connection = tokio::select! {
            opened = opening => opened?,
            () = session.stopping() => return Ok(()),
        };
        let mut unacknowledged = Unacknowledged::restore(session.kept().iter(), session.last_number());
        if !connection.session_present {
            unacknowledged.session_lost();
        }
        if expected && !connection.session_present {
            session.outage(self.last_heard(), session.now(), None, "session_lost");
        }
        keep_if_changed(session, SESSION_KEY, session_name);
        keep_if_changed(session, FILTERS_KEY, filters.join("\n"));
        // At once, not with the first message, which may be long in coming: until then a restart would not know of the session.
        if session.deliver(session.now(), false).await.is_err() {
            return Ok(());
        }
        {
            let mut health = session.health();
            health.state = "running";
            health.error = None;
        }
        let topics = Topics::new(&self.topics, self.series_max);
        Run { input: self, session, connection, topics, unacknowledged, unasked: 0 }.serve().await
    }
}

/// What a run waits for.
enum Next {
    Arrived(Arrived),
    Committed,
    Stop,
}

async fn stopped(stop: &mut watch::Receiver<bool>) {
    // An error means that the sender is gone, which is a stop as well.
    let _ = stop.wait_for(|stop| *stop).await;
}

/// Whether to go on.
enum Flow {
    On,
    Stop,
}

impl Run<'_> {
    /// Takes and acknowledges until the connection breaks or the program stops.
    async fn serve(mut self) -> Result<(), InputError> {
        let mut committed = self.session.committed();
        let mut stop = self.session.stop_signal();
        loop {
            let next = tokio::select! {
                biased;
                () = stopped(&mut stop) => Next::Stop,
                changed = committed.changed() => if changed.is_ok() { Next::Committed } else { Next::Stop },
                arrived = self.connection.next() => Next::Arrived(arrived?),
            };
            let flow = match next {
                Next::Arrived(first) => self.take(first).await?,
                Next::Committed => Flow::On,
                Next::Stop => Flow::Stop,
            };
            let number = *committed.borrow_and_update();
            self.acknowledge(number).await?;
            if matches!(flow, Flow::Stop) {
                break;
            }
        }
        // Nothing new is taken. What was handed over is acknowledged once it is on disk, so that it need not come again.
        let last = self.session.last_number();
        let _ = timeout(LAST_COMMIT_WAIT, committed.wait_for(|number| *number >= last)).await;
        let number = *committed.borrow();
        self.acknowledge(number).await?;
        self.connection.close().await;
        Ok(())
    }

    /// Takes what has arrived, up to a full delivery, and hands it over, also when the connection breaks meanwhile: what was taken must
    /// go with its records.
    async fn take(&mut self, first: Arrived) -> Result<Flow, InputError> {
        let mut next = Some(first);
        let mut messages = 0;
        let mut broken = None;
        while let Some(arrived) = next {
            match arrived {
                Arrived::Message(message) => {
                    messages += 1;
                    self.message(&message);
                }
                Arrived::PingAnswered => self.unacknowledged.answered(),
                Arrived::PingSent => self.unacknowledged.pinged(),
            }
            next = if messages < MESSAGES_PER_DELIVERY_MAX {
                self.connection.next_ready().await.unwrap_or_else(|error| {
                    broken = Some(error);
                    None
                })
            } else {
                None
            };
        }
        if messages == 0 {
            return broken.map_or(Ok(Flow::On), Err);
        }
        let changes = self.unacknowledged.changes();
        if let Some((key, record)) = changes.keep {
            self.session.keep(&key, Some(record));
        }
        for key in changes.forget {
            self.session.keep(&key, None);
        }
        // The broker holds back when its window is full; half of it is left for what comes until the commit is done.
        let urgent = self.unasked * 2 >= self.input.inflight;
        if urgent {
            self.unasked = 0;
        }
        match self.session.deliver(self.session.now(), urgent).await {
            Ok(number) => {
                self.unacknowledged.handed_over(number);
                broken.map_or(Ok(Flow::On), Err)
            }
            Err(_) => Ok(Flow::Stop),
        }
    }

    fn message(&mut self, message: &Message) {
        let now = self.session.now();
        self.input.heard(now);
        self.session.trace(false, message.payload());
        match message.id() {
            Some(id) if message.retained() => self.unacknowledged.ignored(id),
            Some(id) => {
                let hash = unacknowledged::hash_of(message.topic(), message.payload());
                if self.unacknowledged.arrived(id, message.dup(), hash) == Arrival::Again {
                    return self.session.count("redelivered", 1);
                }
                self.unasked += 1;
            }
            None => {}
        }
        if message.retained() {
            // Its time is unknown: it may be years old, and it comes again with every subscription.
            return self.session.count("retained_ignored", 1);
        }
        self.topics.read(message.topic(), message.payload(), now, self.session);
    }

    /// Acknowledges what may be.
    async fn acknowledge(&mut self, committed: u64) -> Result<(), InputError> {
        let ids = self.unacknowledged.release(committed);
        let ping = self.unacknowledged.wants_ping();
        if ids.is_empty() && !ping {
            return Ok(());
        }
        self.connection.acknowledge(&ids, ping).await?;
        if ping {
            self.unacknowledged.pinged();
        }
        Ok(())
    }
}

/// Keeps a value where it is not kept already: what is kept is written with the next commit.
fn keep_if_changed(session: &mut Session, key: &str, value: String) {
    if session.kept().get(key).is_none_or(|kept| kept != value.as_bytes()) {
        session.keep(key, Some(value.into_bytes()));
    }
}
