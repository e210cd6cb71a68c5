//! An MQTT broker: a persistent session, in which a message is acknowledged once the intake has committed it.
//!
//! - One connection is one client and one event loop, both dropped at any error; the broker sends again what was not acknowledged. The packet ids of a
//!   connection mean nothing in the next one, so that tokens carry the number of theirs.
//! - The event loop is polled by a task of its own, which waits when the intake's queue is full: the broker then waits, too.
//! - Acknowledgements are requests to the library. Its queue has room for every packet id that there is, so that none ever waits for the poller.

mod v311;
mod v5;

use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rtlive_config::endpoint::Broker;
use rtlive_config::uplink::{Login, Protocol};
use rtlive_core::message::MESSAGE_BYTES_MAX;
use rtlive_core::uplink::receipt::TOPICS;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::retry::Retry;
use crate::config::MqttConfig;
use crate::delivery::{Delivery, Queue, Settled, Settlement, SourceId, Stopped};
use crate::told::told;

/// How long name, TCP, TLS and CONNACK may take together.
const CONNECT_WITHIN: Duration = Duration::from_secs(30);
/// How often the broker hears from us when nothing else is sent.
const KEEP_ALIVE: Duration = Duration::from_secs(30);
/// The longest packet that is taken: the longest message and its topic.
const PACKET_BYTES_MAX: usize = MESSAGE_BYTES_MAX + (64 << 10) + 16;
/// The longest packet that is sent: the subscription.
const SENT_BYTES_MAX: usize = 1 << 20;
/// How many requests the library may hold: an acknowledgement for each packet id, as many receipts, and the subscription.
const REQUESTS_MAX: usize = (2 << 16) + 8;

/// Receives until it is told to stop. `obsolete` are filters of earlier configurations, which the broker may still have in the session.
///
/// # Errors
/// The intake has stopped.
pub async fn receive(
    source: SourceId,
    config: MqttConfig,
    obsolete: Vec<String>,
    queue: Queue,
    mut settled: Settled,
    mut stopping: watch::Receiver<bool>,
) -> Result<(), Stopped> {
    let mut retry = Retry::new(config.broker.to_string());
    let mut number = 0;
    loop {
        number += 1;
        let opened = tokio::select! {
            opened = Connection::open(&config, &obsolete, Post { source, number, queue: queue.clone() }) => opened,
            _ = stopping.wait_for(|stop| *stop) => return Ok(()),
        };
        let since = Instant::now();
        let failure = match opened {
            Ok(connection) => {
                tracing::info!("connected to {} with MQTT {}", config.broker, connection.version);
                tokio::select! {
                    ended = connection.serve(number, &mut settled) => ended?,
                    _ = stopping.wait_for(|stop| *stop) => return Ok(()),
                }
            }
            Err(failure) => failure,
        };
        tokio::select! {
            () = retry.wait(&failure, since.elapsed()) => {}
            _ = stopping.wait_for(|stop| *stop) => return Ok(()),
        }
    }
}

/// A version of MQTT.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Version {
    V5,
    V311,
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::V5 => "5",
            Self::V311 => "3.1.1",
        })
    }
}

/// Why a connection ended or was not made, in words.
#[derive(Debug)]
struct Failure {
    text: String,
    /// Whether the broker may not know the version of MQTT.
    version_refused: bool,
}

impl Failure {
    fn of(text: impl Into<String>) -> Self {
        Self { text: text.into(), version_refused: false }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// A message as the broker sent it.
struct Arrived {
    /// `None` at QoS 0.
    packet: Option<u16>,
    topic: String,
    payload: Vec<u8>,
}

/// What an event loop tells.
enum Heard {
    Connected,
    /// The answer to the subscription: whether each filter was granted, in order.
    Subscribed(Vec<bool>),
    Message(Arrived),
    Nothing,
}

/// An event loop of either version.
trait Wire: Send + 'static {
    /// What happens next. Not to be cancelled once connected.
    fn next(&mut self) -> impl Future<Output = Result<Heard, Failure>> + Send;
}

enum Client {
    V5(rumqttc::v5::AsyncClient),
    V311(rumqttc::AsyncClient),
}

impl Client {
    /// Takes away the subscriptions that are obsolete, and subscribes at QoS 1.
    fn subscribe(&self, config: &MqttConfig, obsolete: &[String]) -> Result<(), Failure> {
        match self {
            Self::V5(client) => v5::subscribe(client, &config.topics, obsolete),
            Self::V311(client) => v311::subscribe(client, &config.topics, obsolete),
        }
    }

    fn acknowledge(&self, packet: u16) -> Result<(), Failure> {
        match self {
            Self::V5(client) => v5::acknowledge(client, packet),
            Self::V311(client) => v311::acknowledge(client, packet),
        }
    }

    /// Publishes at QoS 0: a receipt that is lost is followed by another, when the frame comes again.
    fn publish(&self, topic: String, message: Vec<u8>) -> Result<(), Failure> {
        match self {
            Self::V5(client) => v5::publish(client, topic, message),
            Self::V311(client) => v311::publish(client, topic, message),
        }
    }
}

/// Where the messages of a connection go.
struct Post {
    source: SourceId,
    /// The number of the connection.
    number: u64,
    queue: Queue,
}

impl Post {
    async fn put(&self, arrived: Arrived) -> Result<(), Stopped> {
        let Arrived { packet, topic, payload } = arrived;
        let token = self.number << 16 | u64::from(packet.unwrap_or_default());
        let topic = Arc::from(topic);
        self.queue.put(Delivery { source: self.source, topic, payload, token, cursor: None }).await
    }
}

/// A connection that stands.
struct Connection {
    version: Version,
    client: Client,
    poller: JoinHandle<Result<Failure, Stopped>>,
}

impl Connection {
    /// Connects, in the version that the configuration names, and subscribes. May be dropped while it waits.
    async fn open(config: &MqttConfig, obsolete: &[String], post: Post) -> Result<Self, Failure> {
        match config.protocol {
            Protocol::V5 => Self::open_v5(config, obsolete, post).await,
            Protocol::V311 => Self::open_v311(config, obsolete, post).await,
            Protocol::Auto => {
                let other = Post { source: post.source, number: post.number, queue: post.queue.clone() };
                match Self::open_v5(config, obsolete, post).await {
                    Err(failure) if failure.version_refused => Self::open_v311(config, obsolete, other).await,
                    opened => opened,
                }
            }
        }
    }

    async fn open_v5(config: &MqttConfig, obsolete: &[String], post: Post) -> Result<Self, Failure> {
        let (client, wire) = v5::client(config)?;
        Self::establish(config, obsolete, Version::V5, Client::V5(client), wire, post).await
    }

    async fn open_v311(config: &MqttConfig, obsolete: &[String], post: Post) -> Result<Self, Failure> {
        let (client, wire) = v311::client(config)?;
        Self::establish(config, obsolete, Version::V311, Client::V311(client), wire, post).await
    }

    async fn establish(
        config: &MqttConfig,
        obsolete: &[String],
        version: Version,
        client: Client,
        mut wire: impl Wire,
        post: Post,
    ) -> Result<Self, Failure> {
        match tokio::time::timeout(CONNECT_WITHIN, wire.next()).await {
            Ok(Ok(Heard::Connected)) => {}
            Ok(Ok(_)) => return Err(Failure::of("expected CONNACK, found another packet")),
            Ok(Err(failure)) => return Err(failure),
            Err(_) => return Err(Failure::of(format!("no answer within {} s", CONNECT_WITHIN.as_secs()))),
        }
        client.subscribe(config, obsolete)?;
        Ok(Self { version, client, poller: tokio::spawn(poll(wire, config.topics.clone(), post)) })
    }

    /// Acknowledges what was committed, with receipts for the agents, until the connection ends: with its failure, or because the intake has stopped.
    async fn serve(mut self, number: u64, settled: &mut Settled) -> Result<Failure, Stopped> {
        loop {
            tokio::select! {
                ended = &mut self.poller => {
                    return ended.unwrap_or_else(|error| Ok(Failure::of(told(&error))));
                }
                settlement = settled.recv() => {
                    let Settlement { tokens, receipts } = settlement.ok_or(Stopped)?;
                    for token in tokens.into_iter().filter(|token| token >> 16 == number) {
                        // Packet id 0 stands for QoS 0, which is not acknowledged.
                        let packet = (token & 0xffff) as u16;
                        if packet != 0 && let Err(failure) = self.client.acknowledge(packet) {
                            return Ok(failure);
                        }
                    }
                    for (agent, receipt) in receipts {
                        if let Err(failure) = self.client.publish(format!("{TOPICS}/{agent}"), receipt.to_message()) {
                            return Ok(failure);
                        }
                    }
                }
            }
        }
    }
}

impl Drop for Connection {
    /// Drops the event loop, and with it the socket.
    fn drop(&mut self) {
        self.poller.abort();
    }
}

/// Polls an event loop until its first error, or until a filter is refused. Messages of a session that was kept come before the answer to the
/// subscription, and may be many.
async fn poll(mut wire: impl Wire, filters: Vec<String>, post: Post) -> Result<Failure, Stopped> {
    loop {
        match wire.next().await {
            Ok(Heard::Message(message)) => post.put(message).await?,
            Ok(Heard::Subscribed(granted)) => {
                let answers = filters.iter().zip(granted);
                let refused: Vec<&str> =
                    answers.filter(|(_, granted)| !granted).map(|(filter, _)| filter.as_str()).collect();
                if !refused.is_empty() {
                    let hint = "its access list must let this user read these topics";
                    return Ok(Failure::of(format!("the broker refused {} ({hint})", refused.join(", "))));
                }
                tracing::info!("subscribed to {}", filters.join(", "));
            }
            Ok(Heard::Connected | Heard::Nothing) => {}
            Err(failure) => return Ok(failure),
        }
    }
}

/// The host as the library takes it: joined with the port by a colon, so that an IPv6 address needs brackets.
fn host(broker: &Broker) -> String {
    let host = &broker.address.host;
    if host.contains(':') { format!("[{host}]") } else { host.clone() }
}

/// Name and password, fetched for each connection so that a changed one is taken.
fn credentials(config: &MqttConfig) -> Result<Option<(String, String)>, Failure> {
    let Some(Login { username, password }) = &config.login else { return Ok(None) };
    let password = match password {
        None => String::new(),
        Some(secret) => secret.fetch().map_err(|error| Failure::of(told(&error)))?.expose().to_owned(),
    };
    Ok(Some((username.clone(), password)))
}

/// The transport: TCP, or TLS with our own configuration. Its files are read for each connection, so that a renewed certificate is taken.
fn transport(config: &MqttConfig) -> Result<rumqttc::Transport, Failure> {
    if !config.broker.tls {
        return Ok(rumqttc::Transport::tcp());
    }
    let tls = crate::tls::client_config(&config.tls).map_err(|error| Failure::of(told(&error)))?;
    Ok(rumqttc::Transport::tls_with_config(rumqttc::TlsConfiguration::Rustls(tls)))
}

fn network_options() -> rumqttc::NetworkOptions {
    let mut network = rumqttc::NetworkOptions::new();
    network.set_tcp_nodelay(true);
    network.set_connection_timeout(CONNECT_WITHIN.as_secs());
    network
}
