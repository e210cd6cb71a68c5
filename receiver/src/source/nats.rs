//! A NATS server that speaks MQTT to the agents: the stream in which it keeps their messages of QoS 1, read by durable consumers. A message is acknowledged
//! once the intake has committed it.
//!
//! - One connection is one client, dropped at any error; the server sends again what was not acknowledged. Tokens of one connection mean nothing in the next one.
//! - There is a consumer for each filter: servers before 2.10 know one filter a consumer. What two filters bring is taken once.
//! - The server drops a message of that stream which no consumer waits for. So consumers that a configuration does not name any more go only once the others
//!   are there.
//! - Each consumer is pulled by a task of its own, which waits when the intake's queue is full.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use async_nats::jetstream::consumer::{AckPolicy, DeliverPolicy, pull};
use async_nats::jetstream::context::GetStreamErrorKind;
use async_nats::jetstream::stream::{ConsumerErrorKind, Stream};
use async_nats::jetstream::{self, ErrorCode, message::Acker};
use async_nats::{Client, ConnectErrorKind, ConnectOptions, Event};
use futures_util::StreamExt;
use rtlive_config::uplink::Login;
use rtlive_core::uplink::receipt::TOPICS;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

use super::retry::Retry;
use crate::config::NatsConfig;
use crate::delivery::{Delivery, Queue, Settled, Settlement, SourceId, Stopped};
use crate::subject::{self, NatsFilter};
use crate::told::told;

/// The stream in which the server keeps messages of QoS 1.
const STREAM: &str = "$MQTT_msgs";
/// How long name, TCP, TLS and the server's first words may take together.
const CONNECT_WITHIN: Duration = Duration::from_secs(30);
/// How long a request for messages stands, and how often the server says meanwhile that it is there.
const PULL_FOR: Duration = Duration::from_secs(30);
const HEARTBEAT: Duration = Duration::from_secs(10);
/// After how long the server sends again what was not acknowledged: far longer than a commit takes.
const ACKNOWLEDGE_WITHIN: Duration = Duration::from_secs(30);
/// How many tokens a connection may give out before they could be those of the next one.
const TOKENS_BITS: u32 = 40;

/// Receives until it is told to stop. `obsolete` are filters of earlier configurations, for which the server may still have consumers.
///
/// # Errors
/// The intake has stopped.
pub async fn receive(
    source: SourceId,
    config: NatsConfig,
    obsolete: Vec<String>,
    queue: Queue,
    mut settled: Settled,
    mut stopping: watch::Receiver<bool>,
) -> Result<(), Stopped> {
    let mut retry = Retry::new(config.server.to_string());
    let mut number = 0;
    loop {
        number += 1;
        let post = Post { source, queue: queue.clone(), pending: Pending::of_connection(number) };
        let opened = tokio::select! {
            opened = Connection::open(&config, &obsolete, post) => opened,
            _ = stopping.wait_for(|stop| *stop) => return Ok(()),
        };
        let since = Instant::now();
        let failure = match opened {
            Ok(connection) => {
                tracing::info!("connected to {}, reads {STREAM}", config.server);
                tokio::select! {
                    ended = connection.serve(&mut settled) => ended?,
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

/// Why a connection ended or was not made, in words.
#[derive(Debug)]
struct Failure(String);

impl Failure {
    /// What was attempted, and what was said to it.
    fn at(doing: &str, error: &dyn std::error::Error) -> Self {
        Self(format!("{doing}: {}", told(error)))
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What the intake has of one connection and did not commit yet: at most what its queue holds and one batch.
#[derive(Clone)]
struct Pending(Arc<Mutex<Unacknowledged>>);

struct Unacknowledged {
    next: u64,
    by_token: BTreeMap<u64, Acker>,
}

impl Pending {
    fn of_connection(number: u64) -> Self {
        Self(Arc::new(Mutex::new(Unacknowledged { next: number << TOKENS_BITS, by_token: BTreeMap::new() })))
    }

    fn add(&self, acker: Acker) -> u64 {
        let mut inner = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let token = inner.next;
        inner.next += 1;
        inner.by_token.insert(token, acker);
        token
    }

    /// `None` where the token is that of an earlier connection.
    fn remove(&self, token: u64) -> Option<Acker> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).by_token.remove(&token)
    }
}

/// Where the messages of a connection go.
#[derive(Clone)]
struct Post {
    source: SourceId,
    queue: Queue,
    pending: Pending,
}

impl Post {
    async fn put(&self, message: jetstream::Message) -> Result<(), Stopped> {
        let (message, acker) = message.split();
        let topic = Arc::from(subject::topic(&message.subject));
        let token = self.pending.add(acker);
        self.queue
            .put(Delivery { source: self.source, topic, payload: message.payload.into(), token, cursor: None })
            .await
    }
}

/// A connection that stands.
struct Connection {
    client: Client,
    pending: Pending,
    /// Hears when the server is gone.
    lost: mpsc::Receiver<()>,
    pullers: JoinSet<Result<Failure, Stopped>>,
}

impl Connection {
    /// Connects, and sees to the consumers. May be dropped while it waits.
    async fn open(config: &NatsConfig, obsolete: &[String], post: Post) -> Result<Self, Failure> {
        let (client, lost) = connect(config).await?;
        let stream = stream(&client).await?;
        let mut connection = Self { client, pending: post.pending.clone(), lost, pullers: JoinSet::new() };
        for filter in &config.filters {
            let messages = messages(&stream, config, filter).await?;
            connection.pullers.spawn(pull(messages, post.clone()));
        }
        for filter in obsolete {
            forget_consumer(&stream, &consumer_name(&config.consumer, filter)).await?;
        }
        Ok(connection)
    }

    /// Acknowledges what was committed, with receipts for the agents, until the connection ends: with its failure, or because the intake has stopped.
    async fn serve(mut self, settled: &mut Settled) -> Result<Failure, Stopped> {
        loop {
            tokio::select! {
                _ = self.lost.recv() => return Ok(Failure("the connection is lost".into())),
                Some(ended) = self.pullers.join_next() => {
                    return ended.unwrap_or_else(|error| Ok(Failure::at("pull messages", &error)));
                }
                settlement = settled.recv() => {
                    if let Err(failure) = self.settle(settlement.ok_or(Stopped)?).await {
                        return Ok(failure);
                    }
                }
            }
        }
    }

    async fn settle(&self, Settlement { tokens, receipts }: Settlement) -> Result<(), Failure> {
        for acker in tokens.into_iter().filter_map(|token| self.pending.remove(token)) {
            acker.ack().await.map_err(|error| Failure(format!("acknowledge a message: {error}")))?;
        }
        for (agent, receipt) in receipts {
            // An agent whose id is no level of a topic here cannot have sent anything by this server.
            let Some(subject) = subject::subject(&format!("{TOPICS}/{agent}")) else { continue };
            let sent = self.client.publish(subject, receipt.to_message().into()).await;
            sent.map_err(|error| Failure::at("send a receipt", &error))?;
        }
        Ok(())
    }
}

/// Connects; what comes with the client hears when the connection is lost. The library would connect again by itself, with the login and the certificates of
/// the first time.
async fn connect(config: &NatsConfig) -> Result<(Client, mpsc::Receiver<()>), Failure> {
    let (loses, lost) = mpsc::channel(1);
    let mut options = ConnectOptions::new()
        .name(&config.consumer)
        .connection_timeout(CONNECT_WITHIN)
        .ignore_discovered_servers()
        .max_reconnects(1)
        .event_callback(move |event| {
            let loses = loses.clone();
            async move {
                if matches!(event, Event::Disconnected | Event::Closed) {
                    // Once is enough.
                    let _ = loses.try_send(());
                }
            }
        });
    if let Some(Login { username, password }) = &config.login {
        let password = password.as_ref().map(|secret| secret.fetch()).transpose();
        let password = password.map_err(|error| Failure(told(&error)))?;
        let password = password.map(|password| password.expose().to_owned()).unwrap_or_default();
        options = options.user_and_password(username.clone(), password);
    }
    if config.server.tls {
        let tls = crate::tls::client_config(&config.tls).map_err(|error| Failure(told(&error)))?;
        options = options.require_tls(true).tls_client_config(Arc::unwrap_or_clone(tls));
    }
    let client = options.connect(config.server.to_string()).await.map_err(|error| match error.kind() {
        ConnectErrorKind::AuthorizationViolation | ConnectErrorKind::Authentication => {
            Failure("the server refused the login (check `username` and `password`)".into())
        }
        _ => Failure(told(&error)),
    })?;
    Ok((client, lost))
}

/// The stream of messages, where it is.
async fn stream(client: &Client) -> Result<Stream, Failure> {
    let found = jetstream::new(client.clone()).get_stream(STREAM).await;
    found.map_err(|error| match error.kind() {
        GetStreamErrorKind::JetStream(fault) if fault.error_code() == ErrorCode::STREAM_NOT_FOUND => Failure(format!(
            "there is no stream {STREAM} yet: the server makes it at the first connection by MQTT, so let an agent or any other client of MQTT connect once"
        )),
        GetStreamErrorKind::Request => Failure(format!(
            "ask for the stream {STREAM}: {} (the server needs `jetstream` and `mqtt` in its configuration, and this login the right to $JS.API.>)",
            told(&error)
        )),
        _ => Failure::at(&format!("ask for the stream {STREAM}"), &error),
    })
}

/// The messages of the consumer of a filter, which is made or brought up to the configuration.
async fn messages(stream: &Stream, config: &NatsConfig, filter: &NatsFilter) -> Result<pull::Stream, Failure> {
    let doing = format!("make the consumer of {}", filter.topics);
    let consumer = pull::Config {
        durable_name: Some(consumer_name(&config.consumer, &filter.topics)),
        description: Some(format!("rtlive-receiver: {}", filter.topics)),
        filter_subject: filter.subject.clone(),
        deliver_policy: DeliverPolicy::All,
        ack_policy: AckPolicy::Explicit,
        ack_wait: ACKNOWLEDGE_WITHIN,
        max_ack_pending: config.inflight.into(),
        inactive_threshold: config.session,
        ..pull::Config::default()
    };
    let consumer = stream.create_consumer(consumer).await.map_err(|error| Failure::at(&doing, &error))?;
    let messages = consumer
        .stream()
        .max_messages_per_batch(config.inflight.into())
        .expires(PULL_FOR)
        .heartbeat(HEARTBEAT)
        .messages()
        .await;
    messages.map_err(|error| Failure::at(&doing, &error))
}

async fn forget_consumer(stream: &Stream, name: &str) -> Result<(), Failure> {
    match stream.delete_consumer(name).await {
        Ok(_) => Ok(()),
        Err(error) => match error.kind() {
            ConsumerErrorKind::JetStream(fault) if fault.error_code() == ErrorCode::CONSUMER_NOT_FOUND => Ok(()),
            _ => Err(Failure::at(&format!("delete the consumer {name}"), &error)),
        },
    }
}

/// The name of the consumer of a filter. Names have no dots, no spaces and no wildcards; what is left of them differs by the checksum.
fn consumer_name(prefix: &str, filter: &str) -> String {
    let allowed = |c: char| if c.is_ascii_alphanumeric() || matches!(c, '-' | '_') { c } else { '_' };
    let checksum = crc32fast::hash(format!("{prefix}\0{filter}").as_bytes());
    format!("{}-{checksum:08x}", prefix.chars().map(allowed).collect::<String>())
}

/// Hands messages on until the first error.
async fn pull(mut messages: pull::Stream, post: Post) -> Result<Failure, Stopped> {
    loop {
        match messages.next().await {
            Some(Ok(message)) => post.put(message).await?,
            Some(Err(error)) => return Ok(Failure::at("pull messages", &error)),
            None => return Ok(Failure("the server ended the messages".into())),
        }
    }
}
