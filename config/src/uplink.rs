//! The uplink: where everything goes.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use rtlive_core::plan::Plan;
use rtlive_core::template::Template;
use rtlive_core::uplink::Schedule;
use rtlive_core::uplink::failover::BROKERS_MAX;
use rtlive_core::uplink::wire::Wire;

use crate::endpoint::{Broker, Peer};
use crate::link::{self, LinkConfig};
use crate::quantity::{Percent, Period, Span};
use crate::secret::Secret;
use crate::table::{Table, Value};
use crate::topic::{self, Messages};
use crate::value::{OneOrMany, Setting, or_wrong, parse};
use crate::{choices, options};

/// The bounds of `keep_alive`: whole seconds in 16 bits on the wire, and 0 would switch it off (MQTT 5.0, section 3.1.2.10).
const KEEP_ALIVE_MIN: Duration = Duration::from_secs(1);
const KEEP_ALIVE_MAX: Duration = Duration::from_secs(65_535);

/// The bounds of a schedule: more often it is cheaper to stay connected, and a hole of more than a week looks like a device that is gone.
const SCHEDULE_MIN: Duration = Duration::from_secs(10);
const SCHEDULE_MAX: Duration = Duration::from_secs(7 * 86_400);

/// What the retained status and its topic have beside the agent's id, which stands in both, and labels; and what is around a label.
const STATUS_BYTES: usize = 120;
const LABEL_BYTES: usize = 6;
/// What a password counts for; it is fetched for each connection.
const PASSWORD_BYTES: usize = 20;

/// The longest client id, in bytes; brokers must take 23 and all known ones take this.
const CLIENT_ID_BYTES_MAX: usize = 128;

choices! {
    /// The version of MQTT that is spoken.
    pub enum Protocol {
        /// 5, falling back to 3.1.1 where the broker refuses it.
        Auto = "auto",
        /// MQTT 5.
        V5 = "5",
        /// MQTT 3.1.1, where a publish that was denied may look acknowledged.
        V311 = "3.1.1",
    }
}

choices! {
    /// What must be known of a frame before it is deleted.
    pub enum Delivery {
        /// The broker acknowledged it.
        Broker = "broker",
        /// The broker acknowledged it, and a receipt of the receiver covers it. JSON has no receipts.
        Receiver = "receiver",
    }
}

choices! {
    /// Where the names and units of series stand.
    pub enum SchemaPlace {
        /// In each frame.
        Frame = "frame",
        /// In a retained message of its own, below the topics of the agent, where two frames have the same.
        Retained = "retained",
    }
}

choices! {
    /// What an alert does while the agent sleeps.
    pub enum ScheduledAlerts {
        /// It connects at once.
        Now = "now",
        /// It waits like everything else.
        Wait = "wait",
    }
}

options! {
    /// When the agent connects that does not stay connected.
    pub struct ScheduleOptions {
        /// How often, from 10 s to 7 d: at multiples of it since 1970-01-01T00:00Z, each agent later by a part of it that follows from its id.
        pub every: Every,
        /// Whether an alert connects at once (`"now"`), or waits (`"wait"`).
        pub alerts: ScheduledAlerts = "now",
    }
}

options! {
    /// The broker at the centre. Without this table the agent stores, and sends nothing.
    pub struct UplinkOptions {
        /// The broker, `mqtt://` or, over TLS, `mqtts://`. Of a list (8 at most) the first that lets the agent in is used; login and TLS are the same for all
        /// ([link](link.md#several-brokers)).
        pub broker: OneOrMany<Broker>,
        /// How long a broker behind the first of a list, or a link behind the first of several, is used before those in front of it are tried again, beside the
        /// connection. Doubled, up to an hour, while they are away or do not last.
        pub return_after: Period = "10m",
        /// The name of the login.
        pub username: Option<String>,
        /// The password of the login.
        pub password: Option<Secret>,
        /// The topic of a stream; places are `{agent}`, `{stream}`, `{label.NAME}` and `{partition:16}`, one of so many parts by the agent's id.
        pub topic: Template = "rtlive/{agent}/{stream}",
        /// The version of MQTT.
        pub protocol: Protocol = "auto",
        /// How often the connection shows that it lives when there is nothing to send.
        pub keep_alive: KeepAlive = "60s",
        /// The client id. Absent: `rtlive-` and the agent's id.
        pub client_id: Option<ClientId>,
        /// What must be known of a frame before it is deleted.
        pub delivery: Delivery = "broker",
        /// With `delivery = "receiver"`: how long a frame that the broker acknowledged waits for its receipt before it is sent again. Longer than the
        /// receiver may be away without every frame going twice.
        pub receipt_timeout: Period = "10m",
        /// Where frames have the names and units of their series: inside, or, shorter, in retained messages at the topic of a stream `schema`, followed by `/` and a
        /// hash. Whoever reads frames then needs these messages too.
        pub schema: SchemaPlace = "frame",
        /// Of what is sent of one priority, the part that is left to the backlog while new records wait as well: `"0 %"` sends it only when nothing new
        /// waits, `"100 %"` before all that is new. Where one of them has nothing to send the other has the whole link.
        pub backlog_share: Percent = "20 %",
        /// Connect only at times, such as `{ every = "1h", alerts = "now" }`, send what waits, and hang up ([link](link.md#a-schedule)). Absent: stay connected.
        pub schedule: Option<ScheduleOptions>,
        /// The keys of TLS, with `mqtts://`.
        pub tls: Option<TlsOptions>,
    }
}

options! {
    /// How the broker is recognised, and how the agent proves who it is. The broker's certificate is always verified.
    pub struct TlsOptions {
        /// The certificates of the authorities that are trusted, PEM. Absent: the system's.
        pub ca: Option<PathBuf>,
        /// The agent's own certificate with its chain, PEM.
        pub cert: Option<PathBuf>,
        /// The key of the agent's certificate, PEM.
        pub key: Option<PathBuf>,
    }
}

/// An interval of whole seconds, as MQTT counts it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeepAlive(pub Duration);

impl Setting for KeepAlive {
    fn expected() -> String {
        "a span of whole seconds from 1s to 65535s".into()
    }

    fn read(value: &Value<'_>) -> Option<Self> {
        let Span(span) = Span::read(value)?;
        let is_right = (KEEP_ALIVE_MIN..=KEEP_ALIVE_MAX).contains(&span) && span.subsec_nanos() == 0;
        or_wrong(value, is_right.then_some(Self(span)))
    }
}

/// How often a schedule connects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Every(pub Duration);

impl Setting for Every {
    fn expected() -> String {
        "a span from 10s to 7d, such as \"1h\"".into()
    }

    fn read(value: &Value<'_>) -> Option<Self> {
        let Span(span) = Span::read(value)?;
        or_wrong(value, (SCHEDULE_MIN..=SCHEDULE_MAX).contains(&span).then_some(Self(span)))
    }
}

/// The name under which a broker knows a client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientId(pub String);

impl Setting for ClientId {
    fn expected() -> String {
        format!("a text of at most {CLIENT_ID_BYTES_MAX} bytes without control characters")
    }

    fn read(value: &Value<'_>) -> Option<Self> {
        let fits = |text: &str| (1..=CLIENT_ID_BYTES_MAX).contains(&text.len()) && !text.chars().any(char::is_control);
        parse(value, |text| fits(text).then(|| Self(text.to_owned())))
    }
}

/// The uplink, checked.
#[derive(Clone, Debug, PartialEq)]
pub struct UplinkConfig {
    /// The broker that is preferred.
    pub broker: Broker,
    /// Those that are used where it is away, in their order.
    pub fallbacks: Vec<Broker>,
    /// How long one of these is used before those in front of it are tried again.
    pub return_after: Duration,
    /// The login.
    pub login: Option<Login>,
    /// The topic of a stream that has none of its own.
    pub topic: Template,
    /// The version of MQTT.
    pub protocol: Protocol,
    /// How often the connection shows that it lives; whole seconds.
    pub keep_alive: Duration,
    /// The client id.
    pub client_id: String,
    /// How long a frame waits for its receipt; `None` where the broker's acknowledgement is enough.
    pub receipt_timeout: Option<Duration>,
    /// Where the names and units of series stand.
    pub schema: SchemaPlace,
    /// The links, in the order in which they are preferred; there is one at least.
    pub links: Vec<LinkConfig>,
    /// The share of the backlog, in hundredths.
    pub backlog_share: u8,
    /// When it connects; `None` where it stays connected.
    pub schedule: Option<Schedule>,
    /// The keys of TLS; all `None` where the broker is reached without.
    pub tls: TlsConfig,
}

impl UplinkConfig {
    /// What carries this agent's messages.
    pub fn wire(&self, plan: &Plan) -> Wire {
        let labels = plan.labels.iter().map(|(name, value)| name.len() + value.len() + LABEL_BYTES);
        let status = STATUS_BYTES + 2 * plan.agent.len() + labels.sum::<usize>();
        let login = self.login.as_ref().map_or(0, |login| login.username.len() + PASSWORD_BYTES);
        let bytes = |count: usize| u16::try_from(count).unwrap_or(u16::MAX);
        Wire {
            tls: [&self.broker].into_iter().chain(&self.fallbacks).any(|broker| broker.tls),
            identity: self.tls.identity.is_some(),
            greeting_bytes: bytes(self.client_id.len() + login),
            status_bytes: bytes(status),
        }
    }
}

/// A login at a broker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Login {
    /// The name.
    pub username: String,
    /// The password, where there is one.
    pub password: Option<Secret>,
}

/// The keys of TLS.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TlsConfig {
    /// The authorities that are trusted; `None` for the system's.
    pub ca: Option<PathBuf>,
    /// The agent's own certificate and its key.
    pub identity: Option<TlsIdentity>,
}

/// The agent's own certificate and its key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsIdentity {
    /// The certificate with its chain, PEM.
    pub cert: PathBuf,
    /// Its key, PEM.
    pub key: PathBuf,
}

/// Checks `[uplink]`.
pub(crate) fn check(
    table: &Table<'_>,
    agent: Option<&str>,
    labels: Option<&BTreeMap<String, String>>,
    commit_every: Duration,
) -> Option<UplinkConfig> {
    let links = link::check(table);
    let options = UplinkOptions::read(table)?;
    let UplinkOptions {
        broker: brokers,
        return_after,
        username,
        password,
        topic,
        protocol,
        keep_alive,
        client_id,
        delivery,
        receipt_timeout,
        schema,
        backlog_share: Percent(backlog_share),
        schedule,
        tls,
    } = options;
    let schedule = schedule.map(|ScheduleOptions { every: Every(every), alerts }| Schedule {
        every,
        offset: Schedule::offset_of(agent.unwrap_or_default(), every),
        alerts_now: alerts == ScheduledAlerts::Now,
        // What is loose is sealed with the next commit, which may have begun before there was a link.
        linger: commit_every * 2 + Duration::from_secs(1),
    });
    let receipt_timeout = (delivery == Delivery::Receiver).then_some(receipt_timeout.0);
    let brokers = brokers.into_vec();
    let is_list_right = check_brokers(table, &brokers);
    let topic_is_right = topic::check(table, "topic", &topic, Messages::OfAny, labels);
    let client_id = client_id.map(|id| id.0).or_else(|| agent.map(|agent| format!("rtlive-{agent}")));
    // What holds of one of them holds of all.
    let open = brokers.iter().find(|broker| !broker.tls && !broker.address.is_this_machine());
    let login = login(table, username, password, open.or(brokers.first())?);
    let with_tls = brokers.iter().find(|broker| broker.tls);
    let tls = tls_config(table, tls, with_tls.or(brokers.first())?);
    let keep_alive = keep_alive.0;
    if !topic_is_right || !is_list_right {
        return None;
    }
    let mut brokers = brokers.into_iter();
    Some(UplinkConfig {
        broker: brokers.next()?,
        fallbacks: brokers.collect(),
        return_after: return_after.0,
        login: login?,
        topic,
        protocol,
        keep_alive,
        client_id: client_id?,
        receipt_timeout,
        schema,
        links: links?,
        backlog_share,
        schedule,
        tls: tls?,
    })
}

/// Whether the list of brokers is one.
fn check_brokers(table: &Table<'_>, brokers: &[Broker]) -> bool {
    if brokers.len() > BROKERS_MAX {
        table.mistake("broker", format_args!("at most {BROKERS_MAX} brokers"), brokers.len());
        return false;
    }
    let double =
        (1..brokers.len()).find(|&place| brokers.iter().take(place).any(|broker| brokers.get(place) == Some(broker)));
    if let Some(place) = double {
        table.mistake(&format!("broker[{place}]"), "each broker once", "one that stands before it");
    }
    double.is_none()
}

/// The login at a peer from the keys `username` and `password`; `None` after a mistake.
pub fn login<P: Peer>(
    table: &Table<'_>,
    username: Option<String>,
    password: Option<Secret>,
    peer: &P,
) -> Option<Option<Login>> {
    if password.is_some() && !peer.is_secure() && !peer.address().is_this_machine() {
        table.warn("password", format_args!("goes over the network unencrypted; {}:// would protect it", P::SECURE));
    }
    match (username, password) {
        (Some(username), password) => Some(Some(Login { username, password })),
        (None, None) => Some(None),
        (None, Some(_)) => {
            table.mistake("password", "a `username` beside it", "none");
            None
        }
    }
}

/// The keys of TLS, which only a peer takes whose scheme says so; `None` after a mistake.
pub fn tls_config<P: Peer>(table: &Table<'_>, tls: Option<TlsOptions>, peer: &P) -> Option<TlsConfig> {
    let Some(TlsOptions { ca, cert, key }) = tls else { return Some(TlsConfig::default()) };
    if !peer.is_secure() {
        table.mistake("tls", format_args!("an address with {}:// beside it", P::SECURE), format!("{peer}"));
        return None;
    }
    let identity = match (cert, key) {
        (Some(cert), Some(key)) => Some(TlsIdentity { cert, key }),
        (None, None) => None,
        (Some(_), None) => {
            table.mistake("tls.cert", "the `key` of the certificate beside it", "none");
            return None;
        }
        (None, Some(_)) => {
            table.mistake("tls.key", "the `cert` that the key belongs to beside it", "none");
            return None;
        }
    };
    Some(TlsConfig { ca, identity })
}
