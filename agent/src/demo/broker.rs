//! The embedded broker of the demo: rumqttd on a free port of the loopback.

use std::collections::HashMap;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use rumqttd::local::{LinkRx, LinkTx};
use rumqttd::{Broker, Config, ConnectionSettings, Notification, RouterConfig, ServerSettings};

/// How long the broker may take to listen.
const LISTENS_WITHIN: Duration = Duration::from_secs(5);

/// How much the broker keeps of each topic for subscribers that are behind: more than a demo ever sends.
const SEGMENT_BYTES_MAX: usize = 8 << 20;

/// What the broker delivers to its one subscriber within this process.
pub struct Subscription {
    messages: LinkRx,
    /// Held, because the subscription ends with it.
    _link: LinkTx,
}

impl Subscription {
    /// The payload of the next message; `None` when the broker is gone. May be dropped while it waits.
    pub async fn next(&mut self) -> Option<Vec<u8>> {
        loop {
            match self.messages.next().await.ok()? {
                Some(Notification::Forward(message)) => return Some(message.publish.payload.to_vec()),
                // The broker holds back from a subscriber that is behind until it asks for more.
                Some(Notification::Unschedule) => self.messages.wake().await.ok()?,
                _ => {}
            }
        }
    }
}

/// Starts the broker, which speaks MQTT 3.1.1, and returns where it listens together with a subscription to `filter`. It ends with the
/// process.
///
/// # Errors
/// What the system or the broker said.
pub fn start(filter: &str) -> io::Result<(SocketAddr, Subscription)> {
    let address = free_address()?;
    let connections = ConnectionSettings {
        connection_timeout_ms: 5_000,
        max_payload_size: 1 << 20,
        max_inflight_count: 100,
        auth: None,
        external_auth: None,
        dynamic_filters: true,
    };
    let server =
        ServerSettings { name: "demo".into(), listen: address, tls: None, next_connection_delay_ms: 1, connections };
    let router = RouterConfig {
        max_connections: 16,
        max_outgoing_packet_count: 200,
        max_segment_size: SEGMENT_BYTES_MAX,
        max_segment_count: 4,
        ..RouterConfig::default()
    };
    let config = Config { router, v4: Some(HashMap::from([("demo".into(), server)])), ..Config::default() };
    let mut broker = Broker::new(config);
    let (mut link, messages) = broker.link("demo-subscriber").map_err(io::Error::other)?;
    link.subscribe(filter).map_err(io::Error::other)?;
    thread::Builder::new().name("demo-broker".into()).spawn(move || {
        if let Err(error) = broker.start() {
            tracing::error!(%error, "the demo's broker ended");
        }
    })?;
    wait_until_it_listens(address)?;
    Ok((address, Subscription { messages, _link: link }))
}

/// An address of the loopback that nobody uses now.
fn free_address() -> io::Result<SocketAddr> {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()
}

fn wait_until_it_listens(address: SocketAddr) -> io::Result<()> {
    let start = Instant::now();
    loop {
        match TcpStream::connect_timeout(&address, LISTENS_WITHIN) {
            Ok(_) => return Ok(()),
            Err(error) if start.elapsed() > LISTENS_WITHIN => return Err(error),
            Err(_) => thread::sleep(Duration::from_millis(10)),
        }
    }
}
