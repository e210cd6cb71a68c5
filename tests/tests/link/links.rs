//! Two links to one broker, of interfaces of their own: which is used when a cable is pulled, put back, or an interface is gone.

use std::ffi::OsString;
use std::fs;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use rtlive_tests::peer::{Peer, installed, until, until_within};
use rtlive_tests::program::Agent;
use serde_json::Value;

use crate::centre::Subscriber;
use crate::namespace::Namespace;
use crate::{link, stream};

const BROKER: &str = "10.79.0.1";
const PORT: u16 = 1883;
/// Sysfs shows the interfaces of the namespace in which it was mounted.
const WITH_SYSFS: &str = "mount -t sysfs sysfs /sys && exec \"$0\" \"$@\"";
/// A cable that was pulled is seen in two seconds, and TCP would take minutes.
const SEEN_WITHIN: Duration = Duration::from_secs(20);

const CONFIGURATION: &str = r#"
[inputs.n]
driver = "simulated"
waveform = "counter"
every = "50ms"
[uplink]
broker = "mqtt://10.79.0.1:1883"
return_after = "2s"
[uplink.links.cellular]
interface = "cell"
preference = 2
rate = "64 kbit/s"
budget = "50 MB/day"
[uplink.links.wired]
interface = "wire"
"#;

/// A gateway with two interfaces, and a centre with a broker behind both.
struct Yard {
    gateway: Namespace,
    centre: Namespace,
    _broker: Peer,
}

impl Yard {
    /// `None`, said loudly, where that cannot be done.
    fn build(folder: &Path) -> Option<Self> {
        for program in ["unshare", "nsenter", "ip", "mosquitto"] {
            installed(program)?;
        }
        let Some([gateway, centre]) = Namespace::several().unwrap() else {
            eprintln!("SKIPPED: this user may not make network namespaces");
            return None;
        };
        for (place, interface) in ["wire", "cell"].into_iter().enumerate() {
            gateway
                .run(&format!("ip link add name {interface} type veth peer name {interface} netns {}", centre.id()))
                .unwrap();
            for (space, host) in [(&gateway, 1), (&centre, 2)] {
                space.run(&format!("ip address add 10.78.{place}.{host}/24 dev {interface}")).unwrap();
                space.run(&format!("ip link set dev {interface} up")).unwrap();
            }
        }
        centre.run(&format!("ip address add {BROKER}/32 dev lo")).unwrap();
        let configuration = folder.join("mosquitto.conf");
        fs::write(&configuration, format!("user root\nlistener {PORT}\nallow_anonymous true\nset_tcp_nodelay true\n"))
            .unwrap();
        let mut command = centre.command(&installed("mosquitto").unwrap());
        command.arg("-c").arg(configuration).stdout(Stdio::null()).stderr(Stdio::null());
        let yard = Self { _broker: Peer::start(&mut command).unwrap(), gateway, centre };
        yard.route();
        Some(yard)
    }

    /// The routes, which go with an interface that is down. The system itself prefers the wire.
    fn route(&self) {
        for place in 0..2 {
            let route = format!("ip route replace {BROKER} via 10.78.{place}.2 metric {place}");
            // One that is down has none.
            let _ = self.gateway.run(&route);
        }
    }

    fn agent(&self, folder: &Path) -> Agent {
        let mut agent = Agent::new(&folder.join("agent"), CONFIGURATION).unwrap();
        let words = ["unshare", "--mount", "sh", "-c", WITH_SYSFS].map(OsString::from);
        agent.start_by(self.gateway.starter().into_iter().chain(words));
        agent
    }

    fn sent(&self, interface: &str) -> u64 {
        self.gateway.counters(interface).unwrap().sent
    }
}

/// Waits until this link is in use and frames have gone over it; tells how long it took.
fn uses(agent: &Agent, name: &str) -> Duration {
    let begun = Instant::now();
    until_within(SEEN_WITHIN, &format!("{name} is used"), || {
        let link = link(agent);
        link["state"] == "online" && link["link"] == name
    });
    let took = begun.elapsed();
    let delivered = link(agent)["acknowledged_frames"].as_u64().unwrap();
    until("frames are delivered", || link(agent)["acknowledged_frames"].as_u64() > Some(delivered + 3));
    took
}

fn error_over(agent: &Agent, name: &str) -> Value {
    let link = link(agent);
    let lines = link["brokers"].as_array().cloned().unwrap_or_default();
    lines.into_iter().find(|line| line["link"] == name).unwrap_or_default()["error"].take()
}

#[test]
fn the_next_link_is_used_while_a_preferred_one_is_away_and_nothing_is_lost() {
    let folder = tempfile::tempdir().unwrap();
    let Some(yard) = Yard::build(folder.path()) else { return };
    let subscriber = Subscriber::start(&yard.centre, PORT).unwrap();
    let mut agent = yard.agent(folder.path());
    agent.start().unwrap();
    uses(&agent, "wired");
    assert!(yard.sent("cell") < 500, "the route over the other link carries nothing: {}", yard.sent("cell"));

    for _ in 0..2 {
        let before = yard.sent("cell");
        // The cable is pulled at the other end.
        yard.centre.run("ip link set dev wire down").unwrap();
        println!("cellular after {:.1} s", uses(&agent, "cellular").as_secs_f64());
        let error = error_over(&agent, "wired");
        assert!(error.as_str().is_some_and(|error| error.contains("over wire")), "{error}");
        assert!(yard.sent("cell") > before + 1_000);
        yard.centre.run("ip link set dev wire up").unwrap();
        yard.route();
        println!("wired after {:.1} s", uses(&agent, "wired").as_secs_f64());
        assert!(error_over(&agent, "wired").is_null());
    }

    let shown = link(&agent);
    let [wired, cellular] = [0, 1].map(|place| &shown["links"][place]);
    assert_eq!(
        (&wired["link"], &wired["interface"], &wired["budget"]),
        (&"wired".into(), &"wire".into(), &Value::Null)
    );
    assert_eq!((&cellular["link"], &cellular["rate_bytes_per_s"]), (&"cellular".into(), &8_000.into()));
    let figure = |line: &Value, name: &str| line[name].as_u64().unwrap();
    let both = figure(cellular, "carried_up_bytes") + figure(cellular, "carried_down_bytes");
    assert_eq!(cellular["budget"]["bytes"], 50_000_000);
    assert!(figure(&cellular["budget"], "spent") >= both && both > 1_000, "{cellular}");

    // An interface that does not exist is told by its name, and the other is used.
    yard.gateway.run("ip link delete dev wire").unwrap();
    uses(&agent, "cellular");
    until("the missing interface is told", || {
        error_over(&agent, "wired").as_str().is_some_and(|error| error.contains("there is no such interface"))
    });
    let numbered = stream(&agent, "raw")["numbered"].as_u64().unwrap();
    until("all arrives", || subscriber.look(|arrivals| arrivals.count("raw")) as u64 >= numbered);
    assert_eq!(agent.stop().unwrap(), Some(0), "{}", agent.log().unwrap());
    subscriber.look(|arrivals| assert_eq!(arrivals.hole("raw"), None));
}
