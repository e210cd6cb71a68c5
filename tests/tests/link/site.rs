//! The link with its two ends: an agent's namespace, and one with a broker and a subscriber.
//!
//! Bytes are counted, and the rate is bounded, by the qdisc of an ordinary interface, before the relay sees them.

use std::fs;
use std::io;
use std::process::Stdio;

use rtlive_tests::authority::Authority;
use rtlive_tests::peer::{Peer, installed};
use rtlive_tests::program::Agent;
use rustix::process::Signal;
use serde_json::Value;

use crate::centre::Subscriber;
use crate::namespace::{Counters, Namespace};
use crate::relay::{Path, Relay};

/// How much the qdisc holds before it drops: half a minute of the slowest link, as a modem with far too long a queue.
pub(crate) const QUEUE_BYTES: u32 = 64 << 10;
/// What it lets through at once: one packet (tc-tbf(8)).
const BURST_BYTES: u32 = 1_600;
/// A day.
const NEIGHBOUR_KNOWN_MS: u32 = 86_400_000;
const PORT: u16 = 1883;
const TLS_PORT: u16 = 8883;

pub(crate) struct Site {
    pub(crate) relay: Relay,
    pub(crate) folder: tempfile::TempDir,
    gateway: Namespace,
    _field: Namespace,
    centre: Namespace,
    broker: Option<Peer>,
}

/// What a qdisc counts, in bytes with the headers of Ethernet, and in packets.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Qdisc {
    pub(crate) sent: u64,
    pub(crate) queued: u64,
    pub(crate) dropped: u64,
}

impl Site {
    /// The broker, as the agent sees it.
    pub(crate) const BROKER: &str = "10.77.1.2";

    /// Lays a link of so many kbit/s in each direction, as its qdisc counts them; `None`, said loudly, where that cannot be done.
    pub(crate) fn build(kbit: u32, path: Path) -> Option<Self> {
        for program in ["unshare", "nsenter", "ip", "tc", "mosquitto"] {
            installed(program)?;
        }
        let Some(spaces) = Namespace::several().unwrap() else {
            eprintln!("SKIPPED: this user may not make network namespaces");
            return None;
        };
        if let Err(error) = fs::OpenOptions::new().read(true).write(true).open("/dev/net/tun") {
            eprintln!("SKIPPED: /dev/net/tun: {error}");
            return None;
        }
        Some(Self::lay(spaces, kbit, path).unwrap())
    }

    fn lay([gateway, field, centre]: [Namespace; 3], kbit: u32, path: Path) -> io::Result<Self> {
        gateway.run(&format!("ip link add name near type veth peer name far netns {}", field.id()))?;
        for (space, interface, address) in [(&gateway, "near", "10.77.0.1/24"), (&field, "far", "10.77.0.2/24")] {
            // Packets as they are on a wire, not several in one.
            space.run(&format!("ip link set dev {interface} gso_max_segs 1 up"))?;
            // Whoever answered once is asked no more: a line without Ethernet asks never, and a keep-alive is hardly longer than such a question.
            let neighbours = format!("/proc/sys/net/ipv4/neigh/{interface}/base_reachable_time_ms");
            space.run(&format!("sh -c echo {NEIGHBOUR_KNOWN_MS} > {neighbours}"))?;
            space.run(&format!("ip address add {address} dev {interface}"))?;
            space.run(&format!(
                "tc qdisc add dev {interface} root tbf rate {kbit}kbit burst {BURST_BYTES} limit {QUEUE_BYTES}"
            ))?;
        }
        let relay = Relay::join([(&field, "out"), (&centre, "in")], path)?;
        field.run("ip address add 10.77.1.1/24 dev out")?;
        field.run("sh -c echo 1 > /proc/sys/net/ipv4/ip_forward")?;
        centre.run(&format!("ip address add {}/24 dev in", Self::BROKER))?;
        centre.run("ip route add default dev in")?;
        gateway.run("ip route add default via 10.77.0.2")?;
        let folder = tempfile::tempdir()?;
        Ok(Self { relay, folder, gateway, _field: field, centre, broker: None })
    }

    /// Starts the broker with these lines of configuration besides its listener, in place of one that runs.
    pub(crate) fn start_broker(&mut self, lines: &str) {
        self.broker = None;
        let configuration = self.folder.path().join("mosquitto.conf");
        let base = format!("user root\nlistener {PORT}\nallow_anonymous true\nset_tcp_nodelay true\n");
        fs::write(&configuration, base + lines).unwrap();
        let mut command = self.centre.command(&installed("mosquitto").unwrap());
        command.arg("-c").arg(configuration).stdout(Stdio::null()).stderr(Stdio::null());
        self.broker = Some(Peer::start(&mut command).unwrap());
    }

    /// Starts the broker with TLS as well, and certificates as long as those that the agent counts with, which are of RSA. Returns what the agent is
    /// told of it; `None`, said loudly, where openssl is not installed.
    pub(crate) fn start_tls_broker(&mut self) -> Option<String> {
        let authority = self.authority()?;
        let others: String = (0..50).map(|number| format!(",DNS:gateway-{number:02}.plant.example.net")).collect();
        authority.issue("server", &format!("IP:{}{others}", Self::BROKER)).unwrap();
        let file = authority.file("server.pem");
        let chain = [&file, &authority.certificate()].map(|file| fs::read_to_string(file).unwrap());
        fs::write(&file, chain.concat()).unwrap();
        self.start_broker(&self.tls_lines(&authority));
        Some(format!("[uplink.tls]\nca = {:?}\n", authority.certificate()))
    }

    /// Sends the broker a signal.
    pub(crate) fn signal_broker(&self, signal: Signal) {
        self.broker.as_ref().unwrap().signal(signal);
    }

    /// Subscribes at the broker to all that the agent publishes.
    pub(crate) fn subscribe(&self) -> Subscriber {
        Subscriber::start(&self.centre, PORT).unwrap()
    }

    /// An agent at the other end, not started yet, with this configuration, the uplink's broker, and what else is said of the uplink.
    pub(crate) fn agent(&self, configuration: &str, broker: &str, more: &str) -> Agent {
        let configuration = format!("{configuration}\n[uplink]\nbroker = {broker:?}\n{more}");
        let mut agent = Agent::new(&self.folder.path().join("agent"), &configuration).unwrap();
        agent.start_by(self.gateway.starter());
        agent
    }

    /// The broker's URL.
    pub(crate) fn url(&self) -> String {
        format!("mqtt://{}:{PORT}", Self::BROKER)
    }

    /// The URL of its listener with TLS, which [`Site::tls_lines`] makes.
    pub(crate) fn tls_url(&self) -> String {
        format!("mqtts://{}:{TLS_PORT}", Self::BROKER)
    }

    /// An authority; `None`, said loudly, where openssl is not installed.
    pub(crate) fn authority(&self) -> Option<Authority> {
        Authority::found(&self.folder.path().join("authority")).unwrap()
    }

    /// The broker's lines for TLS with the authority's certificate `server`.
    pub(crate) fn tls_lines(&self, authority: &Authority) -> String {
        let [ca, cert, key] = [authority.certificate(), authority.file("server.pem"), authority.file("server.key")]
            .map(|file| file.display().to_string());
        format!("listener {TLS_PORT}\ncafile {ca}\ncertfile {cert}\nkeyfile {key}\n")
    }

    /// What the qdisc of the way up has counted.
    pub(crate) fn qdisc(&self) -> Qdisc {
        let text = self.gateway.run("tc -s -j qdisc show dev near").unwrap();
        let qdiscs: Value = serde_json::from_str(&text).unwrap();
        let [sent, queued, dropped] = ["bytes", "backlog", "drops"].map(|figure| qdiscs[0][figure].as_u64().unwrap());
        Qdisc { sent, queued, dropped }
    }

    /// Opens something at the agent's end.
    pub(crate) fn at_gateway<T: Send>(&self, open: impl FnOnce() -> T + Send) -> T {
        self.gateway.within(open).unwrap()
    }

    /// Opens something at the broker's end.
    pub(crate) fn at_centre<T: Send>(&self, open: impl FnOnce() -> T + Send) -> T {
        self.centre.within(open).unwrap()
    }

    /// What the gateway's end of the link has carried.
    pub(crate) fn counters(&self) -> Counters {
        self.gateway.counters("near").unwrap()
    }
}
