//! One connection to the broker, from CONNECT to its first error; the only file of the drivers that names `rumqttc`.
//!
//! The library's event loop would reconnect by itself and mix events of two connections; so one connection is one event loop, and
//! both are dropped at any error. Its request channel takes one system call for each acknowledgement; here packets are written
//! to its network buffer directly, and flushed once for a batch. Nothing else writes, so no channel can fill up against the reader.

use std::collections::VecDeque;
use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use rtlive_config::endpoint::Broker;
use rtlive_config::secret::{Secret, SecretText};
use rumqttc::{
    ConnectReturnCode, ConnectionError, Event, EventLoop, Incoming, MqttOptions, NetworkOptions, Outgoing, Packet,
    PubAck, Publish, QoS, StateError, Subscribe, SubscribeFilter, SubscribeReasonCode, TlsConfiguration, Transport,
    Unsubscribe,
};
use tokio::time::timeout;

use crate::input::{InputError, told};
use crate::outlet::Clock;
use crate::tls;

/// How long the broker may take for TCP, TLS and CONNACK, and for its SUBACK. Links to a local broker are quick; a minute would hide a wrong address.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a batch of acknowledgements may take into the socket before the connection counts as broken.
const WRITE_TIMEOUT: Duration = Duration::from_secs(10);
/// How often the broker hears from us when nothing else is sent; a dead one is noticed after twice this time.
const KEEP_ALIVE: Duration = Duration::from_secs(30);
/// The longest packet that is sent: the subscription, with every filter.
const SENT_BYTES_MAX: usize = 1 << 20;
/// The packet ids of our two requests; a client numbers its own packets apart from the broker's.
const SUBSCRIBE_ID: u16 = 1;
const UNSUBSCRIBE_ID: u16 = 2;

/// Where the broker is, and how it is spoken to.
#[derive(Clone, Debug)]
pub(super) struct Peer {
    pub(super) broker: Broker,
    pub(super) tls: tls::TlsFiles,
    pub(super) username: Option<String>,
    pub(super) password: Option<Secret>,
    /// The longest packet that is taken, in bytes.
    pub(super) packet_bytes_max: usize,
}

/// A message, as the broker sent it.
pub(super) struct Message(Publish);

impl Message {
    pub(super) fn topic(&self) -> &str {
        &self.0.topic
    }

    pub(super) fn payload(&self) -> &[u8] {
        &self.0.payload
    }

    /// Whether the broker sent it before, as far as it knows.
    pub(super) fn dup(&self) -> bool {
        self.0.dup
    }

    /// Whether it is what the broker keeps for new subscribers.
    pub(super) fn retained(&self) -> bool {
        self.0.retain
    }

    /// The packet id by which it is acknowledged; `None` at QoS 0.
    pub(super) fn id(&self) -> Option<u16> {
        (self.0.qos != QoS::AtMostOnce).then_some(self.0.pkid)
    }
}

/// What arrives.
pub(super) enum Arrived {
    /// A message.
    Message(Message),
    /// The broker has read everything that was written before a ping; see [`Connection::acknowledge`].
    PingAnswered,
    /// The library sent a ping of its own.
    PingSent,
}

/// A connection that is subscribed.
pub(super) struct Connection {
    events: EventLoop,
    broker: String,
    /// Whether the broker still knew the client: unacknowledged messages come again.
    pub(super) session_present: bool,
    /// What arrived before the answer to the subscription.
    early: VecDeque<Arrived>,
}

impl Connection {
    /// Connects, drops `obsolete` subscriptions of the session, subscribes to `filters` at QoS 1.
    ///
    /// # Errors
    /// Says what the broker or the system answered, and what can be done.
    pub(super) async fn open(
        peer: &Peer,
        clock: Arc<dyn Clock>,
        client_id: &str,
        filters: &[String],
        obsolete: Vec<String>,
    ) -> Result<Self, InputError> {
        let Peer { broker, .. } = peer;
        // The library joins host and port with a colon, and for TLS takes the host as it stands for the certificate's name; so an
        // IPv6 address needs its brackets in the first case, and `check` refuses it in the second.
        let host = &broker.address.host;
        let host = if host.contains(':') { format!("[{host}]") } else { host.clone() };
        let mut options = MqttOptions::new(client_id, host, broker.address.port);
        options.set_clean_session(false).set_manual_acks(true).set_keep_alive(KEEP_ALIVE);
        options.set_max_packet_size(peer.packet_bytes_max, SENT_BYTES_MAX);
        if let Some(username) = &peer.username {
            let password = peer.password.as_ref().map(fetch).transpose()?;
            options.set_credentials(username, password.as_ref().map_or("", SecretText::expose));
        }
        if broker.tls {
            let config = tls::client_config(&peer.tls, clock).map_err(|error| InputError {
                doing: format!("set up TLS for {broker}"),
                cause: error.to_string(),
                hint: None,
            })?;
            options.set_transport(Transport::tls_with_config(TlsConfiguration::Rustls(config)));
        }
        let mut events = EventLoop::new(options, 1);
        let mut network = NetworkOptions::new();
        network.set_connection_timeout(CONNECT_TIMEOUT.as_secs());
        network.set_tcp_nodelay(true);
        events.set_network_options(network);
        let mut connection =
            Self { events, broker: broker.to_string(), session_present: false, early: VecDeque::new() };
        match connection.events.poll().await {
            Ok(Event::Incoming(Incoming::ConnAck(answer))) => connection.session_present = answer.session_present,
            Ok(other) => return Err(connection.unexpected(&format!("{other:?}"))),
            Err(error) => return Err(connection.failed("connect to", &error)),
        }
        match timeout(CONNECT_TIMEOUT, connection.subscribe(filters, obsolete)).await {
            Ok(subscribed) => subscribed?,
            Err(_) => return Err(connection.unexpected("no answer to the subscription")),
        }
        Ok(connection)
    }

    async fn subscribe(&mut self, filters: &[String], obsolete: Vec<String>) -> Result<(), InputError> {
        if !obsolete.is_empty() {
            self.write(&[], Some(Packet::Unsubscribe(Unsubscribe { pkid: UNSUBSCRIBE_ID, topics: obsolete }))).await?;
        }
        let wanted = |path: &String| SubscribeFilter { path: path.clone(), qos: QoS::AtLeastOnce };
        let subscribe = Subscribe { pkid: SUBSCRIBE_ID, filters: filters.iter().map(wanted).collect() };
        self.write(&[], Some(Packet::Subscribe(subscribe))).await?;
        loop {
            let event = self.events.poll().await.map_err(|error| self.failed("subscribe at", &error))?;
            if let Event::Incoming(Incoming::SubAck(answer)) = &event {
                let refused = |(filter, code): (&String, &SubscribeReasonCode)| {
                    let granted = matches!(code, SubscribeReasonCode::Success(_));
                    (!granted).then(|| filter.clone())
                };
                let refused: Vec<String> = filters.iter().zip(&answer.return_codes).filter_map(refused).collect();
                if refused.is_empty() {
                    return Ok(());
                }
                return Err(InputError {
                    doing: format!("subscribe to {} at {}", refused.join(", "), self.broker),
                    cause: "the broker refused".into(),
                    hint: Some("the broker's access list must let this user read these topics".into()),
                });
            }
            // Messages of a session that was kept come before the answer.
            self.early.extend(arrived(event));
        }
    }

    /// What arrives next; waits for it. May be dropped while it waits, without losing anything.
    ///
    /// # Errors
    /// The connection is broken.
    pub(super) async fn next(&mut self) -> Result<Arrived, InputError> {
        loop {
            if let Some(found) = self.ready() {
                return Ok(found);
            }
            let event = self.events.poll().await.map_err(|error| self.failed("hear", &error))?;
            if let Some(found) = arrived(event) {
                return Ok(found);
            }
        }
    }

    /// What has arrived already; `None` when the next must be waited for.
    ///
    /// # Errors
    /// The connection is broken.
    pub(super) async fn next_ready(&mut self) -> Result<Option<Arrived>, InputError> {
        tokio::select! {
            biased;
            found = self.next() => found.map(Some),
            () = std::future::ready(()) => Ok(None),
        }
    }

    /// What the library has read and not handed out.
    fn ready(&mut self) -> Option<Arrived> {
        if let Some(found) = self.early.pop_front() {
            return Some(found);
        }
        while let Some(event) = self.events.state.events.pop_front() {
            if let Some(found) = arrived(event) {
                return Some(found);
            }
        }
        None
    }

    /// Acknowledges messages, and asks with a ping to hear when the broker has read that.
    ///
    /// # Errors
    /// The connection is broken.
    pub(super) async fn acknowledge(&mut self, ids: &[u16], ping: bool) -> Result<(), InputError> {
        self.write(ids, ping.then_some(Packet::PingReq)).await
    }

    /// Says goodbye; the broker keeps the session.
    pub(super) async fn close(mut self) {
        // The program stops; a broker that does not read the goodbye finds out by itself.
        let _ = self.write(&[], Some(Packet::Disconnect)).await;
    }

    /// Writes acknowledgements and then another packet, and flushes once.
    async fn write(&mut self, acknowledged: &[u16], last: Option<Packet>) -> Result<(), InputError> {
        let Some(network) = self.events.network.as_mut() else {
            return Err(self.unexpected("the connection is gone"));
        };
        let written = timeout(WRITE_TIMEOUT, async {
            for id in acknowledged {
                network.write(Packet::PubAck(PubAck::new(*id))).await?;
            }
            if let Some(packet) = last {
                network.write(packet).await?;
            }
            network.flush().await
        });
        match written.await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(self.failed("write to", &ConnectionError::MqttState(error))),
            Err(_) => Err(self.unexpected("nothing more can be written")),
        }
    }

    fn failed(&self, doing: &str, error: &ConnectionError) -> InputError {
        let (cause, hint) = explain(error);
        InputError { doing: format!("{doing} {}", self.broker), cause, hint }
    }

    fn unexpected(&self, cause: &str) -> InputError {
        InputError { doing: format!("speak with {}", self.broker), cause: cause.to_owned(), hint: None }
    }
}

fn arrived(event: Event) -> Option<Arrived> {
    match event {
        Event::Incoming(Packet::Publish(message)) => Some(Arrived::Message(Message(message))),
        Event::Incoming(Packet::PingResp) => Some(Arrived::PingAnswered),
        Event::Outgoing(Outgoing::PingReq) => Some(Arrived::PingSent),
        _ => None,
    }
}

/// What went wrong in the words of the peer or the system, and what the user can do.
fn explain(error: &ConnectionError) -> (String, Option<String>) {
    let hint = match error {
        ConnectionError::ConnectionRefused(code) => match code {
            ConnectReturnCode::BadUserNamePassword | ConnectReturnCode::NotAuthorized => {
                return (
                    "the broker refused the login".into(),
                    Some("check `username` and `password`, and the broker's own list of users".into()),
                );
            }
            ConnectReturnCode::BadClientId => Some("the broker does not take the client id".to_owned()),
            _ => None,
        },
        ConnectionError::Io(io) if io.kind() == std::io::ErrorKind::ConnectionRefused => {
            Some("nothing listens there: is the broker running, and the port right?".to_owned())
        }
        ConnectionError::NetworkTimeout => Some("no answer: is the address right, and nothing in between?".to_owned()),
        ConnectionError::MqttState(StateError::Deserialization(
            rumqttc::mqttbytes::Error::PayloadSizeLimitExceeded(bytes),
        )) => {
            return (
                format!("a message of {bytes} bytes is longer than `max_packet`"),
                Some("raise `max_packet`: the broker keeps sending it until it is taken".into()),
            );
        }
        ConnectionError::MqttState(StateError::ConnectionAborted) => {
            return ("the broker closed the connection".into(), None);
        }
        _ => tls::hint(error).map(str::to_owned),
    };
    // Where the system or the peer has the word, the library's own words add nothing.
    let root: &(dyn Error + 'static) = match error {
        ConnectionError::Io(io)
        | ConnectionError::Tls(rumqttc::TlsError::Io(io))
        | ConnectionError::MqttState(
            StateError::Io(io) | StateError::Deserialization(rumqttc::mqttbytes::Error::Io(io)),
        ) => io,
        error => error,
    };
    (told(root), hint)
}

/// The password, fetched for each connection so that a changed one is taken.
fn fetch(secret: &Secret) -> Result<SecretText, InputError> {
    secret.fetch().map_err(|error| InputError {
        doing: "log in".into(),
        cause: error.to_string(),
        hint: error.source().map(ToString::to_string),
    })
}
