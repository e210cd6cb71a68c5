//! One connection to the broker, from CONNECT to its first error; the only module of the uplink that names `rumqttc`.
//!
//! - One connection is one client and one event loop, both dropped at any error: the library would otherwise send again by itself
//!   what it believes unacknowledged, and hand out events of an earlier connection.
//! - The event loop is polled by a task of its own, which is never cancelled while the connection lives (a cancelled poll may lose a
//!   packet that the library believes sent). It never waits for a publish; publishing is a bounded channel that cannot fill up, as
//!   the sender's bounds are below its capacity.
//! - The library gives a publish no number, but reports packet ids in the order of the requests; so the tokens wait in a queue.

mod v311;
mod v5;

use std::collections::{BTreeMap, VecDeque};
use std::error::Error;
use std::fmt;
use std::future::Future;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rtlive_config::endpoint::Broker;
use rtlive_config::uplink::{Login, Protocol};
use rtlive_core::uplink::{Limits, Loss, Token, Verdict, sender};
use rtlive_drivers::input::told;
use rtlive_drivers::outlet::Clock;
use rtlive_drivers::tls::{self, TlsFiles};
use tokio::net::{TcpSocket, lookup_host};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

/// How long name, TCP, TLS and CONNACK may take together; a satellite link needs several seconds, a minute would hide a wrong address.
const CONNECT_WITHIN: Duration = Duration::from_secs(30);
/// How long a broker that did not answer may take to accept a mere TCP connection, which says that it may not know the version.
const IS_THERE_WITHIN: Duration = Duration::from_secs(5);
/// How many requests the library holds back at once; the three more than the sender's are the status, the subscription to receipts and the goodbye.
const REQUESTS_MAX: usize = sender::MESSAGES_MAX as usize + 3;
/// How many answers may wait for the uplink's task; beyond that the broker waits.
const ANSWERS_MAX: usize = 64;
/// What the system says where there is no such interface, and where a program may not bind to one; the same on all of its processors.
const ENODEV: i32 = 19;
const EPERM: i32 = 1;
/// The longest packet that the broker may send. It has nothing to send but acknowledgements and receipts.
const RECEIVED_BYTES_MAX: u32 = 64 * 1024;

/// The broker, and who we are to it.
#[derive(Clone)]
pub(super) struct Peer {
    pub(super) broker: Broker,
    /// The interface over which it is reached; `None` where the system finds the way.
    pub(super) interface: Option<String>,
    pub(super) client_id: String,
    pub(super) login: Option<Login>,
    pub(super) protocol: Protocol,
    pub(super) keep_alive: Duration,
    pub(super) tls: TlsFiles,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) status_topic: String,
    /// Where receipts come from, where they are waited for.
    pub(super) receipt_topic: Option<String>,
}

impl Peer {
    /// The broker, and how it is reached, for a person.
    pub(super) fn way(&self) -> String {
        match &self.interface {
            Some(interface) => format!("{} over {interface}", self.broker),
            None => self.broker.to_string(),
        }
    }
}

/// A version of MQTT.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Version {
    V5,
    V311,
}

/// What comes from the broker.
#[derive(Debug)]
pub(super) enum FromBroker {
    /// A message was answered.
    Answered(Token, Verdict),
    /// The status was answered.
    StatusAnswered(Verdict),
    /// A message came where receipts do.
    Receipt(Vec<u8>),
    /// The connection is gone.
    Lost(LinkError),
}

/// Why there is no connection, for a person.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{doing}: {cause}{}", hint.as_ref().map(|hint| format!(" ({hint})")).unwrap_or_default())]
pub(super) struct LinkError {
    /// The operation and the object: `connect to mqtts://broker:8883`.
    pub(super) doing: String,
    /// What the system or the broker said.
    pub(super) cause: String,
    /// What the user can do.
    pub(super) hint: Option<String>,
    /// What it means for the next attempt.
    pub(super) loss: Loss,
    /// Whether the broker may not know the version of MQTT.
    pub(super) version_refused: bool,
}

/// A connection that stands.
pub(super) struct Connection {
    pub(super) version: Version,
    pub(super) limits: Limits,
    client: Client,
    tokens: Tokens,
    answers: mpsc::Receiver<FromBroker>,
    poller: JoinHandle<()>,
    status_topic: String,
}

/// The publishes that the library has not yet given an id: tokens, or `None` for the status.
type Tokens = Arc<Mutex<VecDeque<Option<Token>>>>;

enum Client {
    V5(rumqttc::v5::AsyncClient),
    V311(rumqttc::AsyncClient),
}

/// What an event loop tells.
enum Heard {
    Connected(Limits),
    /// The next publish got this packet id.
    Sent(u16),
    Answered(u16, Verdict),
    /// A message came.
    Received(Vec<u8>),
    /// The subscription was not granted.
    SubscriptionRefused,
    /// Our DISCONNECT is written.
    Goodbye,
    Nothing,
}

/// An event loop of either version.
trait Wire: Send + 'static {
    /// What happens next. Not to be cancelled once connected.
    fn next(&mut self) -> impl Future<Output = Result<Heard, Failure>> + Send;

    /// What was read before an error and not told yet.
    fn rest(&mut self) -> Vec<Heard>;
}

/// An error of an event loop, in words of the network.
struct Failure {
    cause: String,
    hint: Option<String>,
    loss: Loss,
    version_refused: bool,
}

impl Connection {
    /// Connects, in the version that the configuration names; where it leaves that open in 5, or in 3.1.1 if `speak_v311` says so. The broker keeps no
    /// session. `offline` is the last will.
    ///
    /// May be dropped while it waits.
    ///
    /// # Errors
    /// Says what the broker or the system answered, and what can be done; [`Loss::VersionRefused`] where the broker may not know version 5, which may be why
    /// it is silent, and 3.1.1 may be spoken.
    pub(super) async fn open(peer: &Peer, speak_v311: bool, offline: Vec<u8>) -> Result<Self, LinkError> {
        match peer.protocol {
            Protocol::V5 => Self::open_v5(peer, offline).await,
            Protocol::Auto if !speak_v311 => Self::open_v5(peer, offline).await.map_err(|error| match error {
                LinkError { version_refused: true, .. } => LinkError { loss: Loss::VersionRefused, ..error },
                _ => error,
            }),
            Protocol::Auto | Protocol::V311 => Self::open_v311(peer, offline).await,
        }
    }

    async fn open_v5(peer: &Peer, offline: Vec<u8>) -> Result<Self, LinkError> {
        let (client, wire) = v5::client(peer, offline)?;
        Self::establish(peer, Version::V5, Client::V5(client), wire).await
    }

    async fn open_v311(peer: &Peer, offline: Vec<u8>) -> Result<Self, LinkError> {
        let (client, wire) = v311::client(peer, offline)?;
        Self::establish(peer, Version::V311, Client::V311(client), wire).await
    }

    async fn establish(peer: &Peer, version: Version, client: Client, mut wire: impl Wire) -> Result<Self, LinkError> {
        let doing = || format!("connect to {} as {}", peer.way(), peer.client_id);
        let limits = match tokio::time::timeout(CONNECT_WITHIN, wire.next()).await {
            Ok(Ok(Heard::Connected(limits))) => limits,
            Ok(Ok(_)) => return Err(LinkError::refused(doing(), "expected CONNACK, found another packet")),
            Ok(Err(failure)) => return Err(failure.while_doing(doing())),
            Err(_) => {
                let cause = format!("no answer within {} s", CONNECT_WITHIN.as_secs());
                let hint = Some("is the address right, and nothing in between?".into());
                let version_refused = version == Version::V5 && is_there(peer).await;
                let failure = Failure { cause, hint, loss: Loss::Broken, version_refused };
                return Err(failure.while_doing(doing()));
            }
        };
        if let Some(topic) = &peer.receipt_topic {
            client.subscribe(topic)?;
        }
        let tokens = Tokens::default();
        let (tell, answers) = mpsc::channel(ANSWERS_MAX);
        let doing = format!("hear from {}", peer.way());
        let poller = tokio::spawn(poll(wire, tokens.clone(), tell, doing));
        let status_topic = peer.status_topic.clone();
        Ok(Self { version, limits, client, tokens, answers, poller, status_topic })
    }

    /// Hands a message to the client, at QoS 1; one that the broker retains where it is to.
    ///
    /// # Errors
    /// The client takes nothing more: the connection is gone, or a bound was overstepped.
    pub(super) fn publish(&self, token: Token, topic: &str, payload: Vec<u8>, retain: bool) -> Result<(), LinkError> {
        self.hand_over(Some(token), topic, payload, retain)
    }

    /// Hands the retained status to the client.
    ///
    /// # Errors
    /// See [`Connection::publish`].
    pub(super) fn publish_status(&self, payload: Vec<u8>) -> Result<(), LinkError> {
        self.hand_over(None, &self.status_topic, payload, true)
    }

    fn hand_over(&self, token: Option<Token>, topic: &str, payload: Vec<u8>, retain: bool) -> Result<(), LinkError> {
        let mut tokens = self.tokens.lock().unwrap_or_else(PoisonError::into_inner);
        // Before the request, or the poller might see the packet id first.
        tokens.push_back(token);
        let handed_over = match &self.client {
            Client::V5(client) => {
                let qos = rumqttc::v5::mqttbytes::QoS::AtLeastOnce;
                client.try_publish(topic, qos, retain, payload).map_err(|error| error.to_string())
            }
            Client::V311(client) => {
                let qos = rumqttc::QoS::AtLeastOnce;
                client.try_publish(topic, qos, retain, payload).map_err(|error| error.to_string())
            }
        };
        handed_over.map_err(|error| {
            tokens.pop_back();
            LinkError::refused(format!("publish to {topic}"), error)
        })
    }

    /// What comes next; pending for ever once [`FromBroker::Lost`] was told. May be dropped while it waits.
    pub(super) async fn next(&mut self) -> FromBroker {
        match self.answers.recv().await {
            Some(answer) => answer,
            None => std::future::pending().await,
        }
    }

    /// What has come already.
    pub(super) fn next_ready(&mut self) -> Option<FromBroker> {
        self.answers.try_recv().ok()
    }

    /// Why nothing can be handed over any more, where the broker or the network said so.
    pub(super) fn reason(&mut self) -> Option<LinkError> {
        std::iter::from_fn(|| self.next_ready()).find_map(|answer| match answer {
            FromBroker::Lost(error) => Some(error),
            _ => None,
        })
    }

    /// Says goodbye within a bound: the status, then DISCONNECT, so that the broker does not publish the last will.
    pub(super) async fn close(mut self, status: Vec<u8>, within: Duration) {
        let goodbye = async {
            self.publish_status(status).ok()?;
            while !matches!(self.answers.recv().await?, FromBroker::StatusAnswered(_)) {}
            match &self.client {
                Client::V5(client) => client.try_disconnect().ok()?,
                Client::V311(client) => client.try_disconnect().ok()?,
            }
            // The poller ends when DISCONNECT is written.
            while self.answers.recv().await.is_some() {}
            Some(())
        };
        // Whatever fails here, the last will tells that the agent is gone.
        let _ = tokio::time::timeout(within, goodbye).await;
    }
}

impl Drop for Connection {
    /// Drops the event loop, and with it the socket.
    fn drop(&mut self) {
        self.poller.abort();
    }
}

/// Polls an event loop until its first error or our goodbye.
async fn poll(mut wire: impl Wire, tokens: Tokens, tell: mpsc::Sender<FromBroker>, doing: String) {
    let mut ids: BTreeMap<u16, Option<Token>> = BTreeMap::new();
    loop {
        let (heard, failure) = match wire.next().await {
            Ok(heard) => (vec![heard], None),
            Err(failure) => (wire.rest(), Some(failure)),
        };
        for heard in heard {
            match heard {
                Heard::Sent(id) => {
                    if let Some(token) = tokens.lock().unwrap_or_else(PoisonError::into_inner).pop_front() {
                        ids.insert(id, token);
                    }
                }
                Heard::Answered(id, verdict) => {
                    let answer = match ids.remove(&id) {
                        Some(Some(token)) => FromBroker::Answered(token, verdict),
                        Some(None) => FromBroker::StatusAnswered(verdict),
                        None => continue,
                    };
                    if tell.send(answer).await.is_err() {
                        return;
                    }
                }
                Heard::Received(message) => {
                    if tell.send(FromBroker::Receipt(message)).await.is_err() {
                        return;
                    }
                }
                Heard::SubscriptionRefused => {
                    // Without receipts nothing would ever leave the store.
                    let cause = "the broker refused the subscription to receipts";
                    let hint = Some("its access list must let this agent read them".to_owned());
                    let refused = LinkError { hint, ..LinkError::refused(doing, cause) };
                    let _ = tell.send(FromBroker::Lost(refused)).await;
                    return;
                }
                Heard::Goodbye => return,
                Heard::Connected(_) | Heard::Nothing => {}
            }
        }
        if let Some(failure) = failure {
            // Nobody listens when the connection is being dropped.
            let _ = tell.send(FromBroker::Lost(failure.while_doing(doing))).await;
            return;
        }
    }
}

impl Client {
    /// Subscribes at QoS 0: a receipt that is lost is followed by another.
    fn subscribe(&self, topic: &str) -> Result<(), LinkError> {
        let subscribed = match self {
            Self::V5(client) => {
                client.try_subscribe(topic, rumqttc::v5::mqttbytes::QoS::AtMostOnce).map_err(|error| error.to_string())
            }
            Self::V311(client) => {
                client.try_subscribe(topic, rumqttc::QoS::AtMostOnce).map_err(|error| error.to_string())
            }
        };
        subscribed.map_err(|error| LinkError::refused(format!("subscribe to {topic}"), error))
    }
}

impl LinkError {
    /// Something that does not mend itself.
    pub(super) fn refused(doing: String, cause: impl Into<String>) -> Self {
        Self { doing, cause: cause.into(), hint: None, loss: Loss::Refused, version_refused: false }
    }
}

impl Failure {
    fn while_doing(self, doing: String) -> LinkError {
        let Self { cause, hint, loss, version_refused } = self;
        LinkError { doing, cause, hint, loss, version_refused }
    }

    /// Where a library's error says all there is to say.
    fn of(error: &(dyn Error + 'static)) -> Self {
        let cause = told(error);
        if let Some(hint) = tls::hint(error) {
            return Self { cause, hint: Some(hint.into()), loss: Loss::Refused, version_refused: false };
        }
        let error = error.downcast_ref::<io::Error>();
        let (kind, code) = (error.map(io::Error::kind), error.and_then(io::Error::raw_os_error));
        let (loss, hint) = match kind {
            Some(io::ErrorKind::ConnectionRefused) => {
                (Loss::Unreached, Some("nothing listens there: is the broker running, and the port right?"))
            }
            Some(io::ErrorKind::HostUnreachable) => {
                (Loss::Unreached, Some("there is no way to it: is the network up?"))
            }
            Some(io::ErrorKind::NetworkUnreachable) => {
                (Loss::Unsent, Some("there is no way to it: is the network up?"))
            }
            Some(_) if code == Some(ENODEV) => {
                (Loss::Unsent, Some("there is no such interface: is its name right, and the modem on?"))
            }
            Some(_) if code == Some(EPERM) => (
                Loss::Unsent,
                Some(
                    "to bind to an interface takes CAP_NET_RAW before Linux 5.7; else a firewall or the service's own rules forbid it",
                ),
            ),
            // What getaddrinfo(3) reports has no kind of its own.
            Some(_) if cause.contains("failed to lookup address") => {
                (Loss::Unreached, Some("the name is unknown: is it right, and does this machine reach a name server?"))
            }
            _ => (Loss::Broken, None),
        };
        Self { cause, hint: hint.map(str::to_owned), loss, version_refused: false }
    }

    /// Where the broker closed the connection without a word.
    fn closed(connected: bool) -> Self {
        let cause = if connected {
            "the broker closed the connection"
        } else {
            "the broker closed the connection before it answered"
        };
        // A broker of 3.1.1 answers a version that it does not know in a form that version 5 does not know, and closes the connection
        // (MQTT 3.1.1, section 3.1.2.2).
        Self { cause: cause.into(), hint: None, loss: Loss::Broken, version_refused: !connected }
    }

    fn login_refused() -> Self {
        Self {
            cause: "the broker refused the login".into(),
            hint: Some("check `username`, `password` and `client_id`, and the broker's own list of users".into()),
            loss: Loss::Refused,
            version_refused: false,
        }
    }
}

/// Whether something listens at the broker's address.
async fn is_there(peer: &Peer) -> bool {
    let Peer { broker: Broker { address, .. }, interface, .. } = peer;
    let connecting = async {
        let mut addresses = lookup_host((&*address.host, address.port)).await?;
        let address = addresses.next().ok_or(io::ErrorKind::NotFound)?;
        let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
        if let Some(interface) = interface {
            socket.bind_device(Some(interface.as_bytes()))?;
        }
        socket.connect(address).await
    };
    matches!(tokio::time::timeout(IS_THERE_WITHIN, connecting).await, Ok(Ok(_)))
}

/// Whether an error of the system says that the peer closed the connection.
fn is_closed(error: &io::Error) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, UnexpectedEof};
    matches!(error.kind(), ConnectionAborted | ConnectionReset | BrokenPipe | UnexpectedEof)
}

/// The host as the library takes it: joined with the port by a colon, so that an IPv6 address needs brackets.
fn host(broker: &Broker) -> String {
    let host = &broker.address.host;
    if host.contains(':') { format!("[{host}]") } else { host.clone() }
}

/// Name and password, fetched for each connection so that a changed one is taken.
fn credentials(peer: &Peer) -> Result<Option<(String, String)>, LinkError> {
    let Some(Login { username, password }) = &peer.login else { return Ok(None) };
    let password = match password {
        None => String::new(),
        Some(secret) => {
            let fetched = secret
                .fetch()
                .map_err(|error| LinkError::refused(format!("log in at {}", peer.broker), told(&error)))?;
            fetched.expose().to_owned()
        }
    };
    Ok(Some((username.clone(), password)))
}

/// The transport: TCP, or TLS with our own configuration. Its files are read for each connection, so that a renewed certificate is taken.
fn transport(peer: &Peer) -> Result<rumqttc::Transport, LinkError> {
    if !peer.broker.tls {
        return Ok(rumqttc::Transport::tcp());
    }
    let config = tls::client_config(&peer.tls, peer.clock.clone())
        .map_err(|error| LinkError::refused(format!("set up TLS for {}", peer.broker), error.to_string()))?;
    Ok(rumqttc::Transport::tls_with_config(rumqttc::TlsConfiguration::Rustls(config)))
}

/// Small packets go at once. The library's own time-outs must not be shorter than ours: a slow link takes long to flush one message.
fn network_options(peer: &Peer) -> rumqttc::NetworkOptions {
    let mut network = rumqttc::NetworkOptions::new();
    network.set_tcp_nodelay(true);
    network.set_connection_timeout(sender::ACKNOWLEDGEMENT_WAIT_MAX.as_secs());
    if let Some(interface) = &peer.interface {
        network.set_bind_device(interface);
    }
    network
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::V5 => "5",
            Self::V311 => "3.1.1",
        })
    }
}
