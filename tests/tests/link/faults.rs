//! What goes wrong on the way and at the broker: nothing is lost, the reason is told, and the agent does not spin.
//!
//! Each test tells the share of a CPU that the agent took meanwhile; what asks for its status is in that.

use std::fs;
use std::thread;
use std::time::{Duration, Instant};

use rtlive::clock::SystemClock;
use rtlive_drivers::outlet::Clock;
use rtlive_tests::peer::{until, until_within};
use rtlive_tests::program::Agent;
use rtlive_tests::usage::cpu_seconds;
use rustix::process::Signal;

use crate::centre::Subscriber;
use crate::relay::Path;
use crate::site::Site;
use crate::{link, long, stream};

/// How long the way is dead, and the broker hangs; in the long form a minute.
const DEAD: Duration = Duration::from_secs(14);
const RESET_EVERY: Duration = Duration::from_secs(5);
/// After a minute of faults the next attempt may be two minutes away.
const PATIENCE: Duration = Duration::from_secs(300);
/// So that a dead way is noticed within the test.
const KEEP_ALIVE: &str = "keep_alive = \"5s\"\n";

/// Frames of several messages on this link.
const INPUTS: &str = r##"
[inputs.n]
driver = "simulated"
waveform = "walk"
series = 50
every = "100ms"
[streams.raw]
select = "#"
batch = "5s"
"##;

/// An agent, and a broker with a subscriber.
struct Station {
    site: Site,
    agent: Agent,
    subscriber: Subscriber,
}

impl Station {
    /// `None` where there can be no site.
    fn open(lines: &str, more: &str) -> Option<Self> {
        let mut site = Site::build(64, Path::of(100))?;
        site.start_broker(lines);
        let broker = site.url();
        Some(Self::with(site, &broker, more))
    }

    fn with(site: Site, broker: &str, more: &str) -> Self {
        let subscriber = site.subscribe();
        let mut agent = site.agent(INPUTS, broker, more);
        agent.start().unwrap();
        let station = Self { site, agent, subscriber };
        station.arrives(1);
        station
    }

    /// Until a message is on its way.
    fn in_the_middle(&self) {
        until("a message is on its way", || link(&self.agent)["in_flight"].as_u64() > Some(0));
    }

    /// Does something, and tells what the agent took of a CPU meanwhile.
    fn measured(&self, what: &str, happens: impl FnOnce()) {
        let id = self.agent.id().unwrap();
        let (begun, before) = (Instant::now(), cpu_seconds(id).unwrap());
        happens();
        let (took, used) = (begun.elapsed(), cpu_seconds(id).unwrap() - before);
        println!("{what}: {:.1} % of a CPU over {:.0} s", used / took.as_secs_f64() * 100.0, took.as_secs_f64());
    }

    /// Waits until the status tells of an error in these words.
    fn says(&self, words: &str) {
        self.says_one(&[words]);
    }

    /// The same, in some of these.
    fn says_one(&self, words: &[&str]) {
        until_within(PATIENCE, &format!("the status says {words:?}"), || {
            link(&self.agent)["error"].as_str().is_some_and(|error| words.iter().any(|words| error.contains(words)))
        });
        println!("{}", link(&self.agent)["error"]);
    }

    /// A time in which nothing is answered. It begins with a ping without an answer, or, where the broker misses one first and can say so, with its
    /// hanging up; what is told then is of attempts to connect.
    fn unanswered(&self, what: &str) {
        let begun = Instant::now();
        self.measured(what, || {
            self.says_one(&["did not answer a ping", "the broker closed the connection"]);
            thread::sleep(dead().saturating_sub(begun.elapsed()));
        });
    }

    fn arrives(&self, count: u64) {
        until_within(PATIENCE, "records arrive", || {
            self.subscriber.look(|arrivals| arrivals.count("raw")) as u64 >= count
        });
    }

    /// Waits until all that was numbered by now has arrived. What is newer goes before a backlog, so that a hole may follow behind that.
    fn loses_nothing(mut self) {
        let numbered = stream(&self.agent, "raw")["numbered"].as_u64().unwrap();
        until_within(PATIENCE, "all records arrive", || {
            self.subscriber.look(|arrivals| {
                let is_after = |hole: u64| hole > numbered;
                arrivals.count("raw") as u64 >= numbered && arrivals.hole("raw").is_none_or(is_after)
            })
        });
        assert_eq!(self.agent.status().unwrap()["ledger"]["closes"], true);
        assert_eq!(self.agent.stop().unwrap(), Some(0), "{}", self.agent.log().unwrap());
        self.subscriber.look(|arrivals| assert!(arrivals.faults.is_empty(), "{:?}", arrivals.faults));
    }

    fn reconnects(&self) -> u64 {
        link(&self.agent)["reconnects"].as_u64().unwrap()
    }
}

fn dead() -> Duration {
    long().map_or(DEAD, |_| Duration::from_secs(60))
}

#[test]
fn a_black_hole_in_the_middle_of_a_frame_loses_nothing() {
    let Some(station) = Station::open("", KEEP_ALIVE) else { return };
    station.in_the_middle();
    station.site.relay.set(Path { is_open: [false; 2], ..Path::of(100) });
    station.unanswered("black hole");
    station.site.relay.set(Path::of(100));
    station.loses_nothing();
}

#[test]
fn a_connection_that_is_half_open_loses_nothing() {
    for is_open in [[true, false], [false, true]] {
        let Some(station) = Station::open("", KEEP_ALIVE) else { return };
        station.in_the_middle();
        station.site.relay.set(Path { is_open, ..Path::of(100) });
        station.unanswered("half open");
        station.site.relay.set(Path::of(100));
        station.loses_nothing();
    }
}

#[test]
fn a_broker_that_hangs_loses_nothing() {
    let Some(station) = Station::open("", KEEP_ALIVE) else { return };
    station.in_the_middle();
    station.site.signal_broker(Signal::STOP);
    station.unanswered("broker stopped");
    station.site.signal_broker(Signal::CONT);
    station.loses_nothing();
}

#[test]
fn connections_that_are_reset_again_and_again_lose_nothing() {
    let Some(station) = Station::open("", "") else { return };
    station.measured("reset every 5 s", || {
        for _ in 0..dead().as_secs() / RESET_EVERY.as_secs() {
            station.site.relay.reset();
            thread::sleep(RESET_EVERY);
        }
    });
    let before = station.reconnects();
    assert!(before > 0);
    until_within(PATIENCE, "the link stands", || link(&station.agent)["state"] == "online");
    station.in_the_middle();
    station.site.relay.reset();
    station.says("the broker closed the connection");
    station.loses_nothing();
}

#[test]
fn a_broker_that_takes_little_is_given_little() {
    for (what, lines) in
        [("packets of 2 KiB", "max_packet_size 2048\n"), ("one message at a time", "max_inflight_messages 1\n")]
    {
        let Some(station) = Station::open(lines, "") else { return };
        station.measured(what, || station.arrives(8_000));
        assert_eq!(station.reconnects(), 0, "{what}: {}", link(&station.agent));
        station.loses_nothing();
    }
}

#[test]
fn what_an_access_list_denies_is_kept_until_it_allows_it() {
    let folder = tempfile::tempdir().unwrap();
    let list = folder.path().join("list");
    let everything = "topic readwrite #\n";
    fs::write(&list, everything).unwrap();
    let Some(station) = Station::open(&format!("acl_file {}\n", list.display()), "") else { return };
    fs::write(&list, format!("topic deny rtlive/test/raw\n{everything}")).unwrap();
    station.site.signal_broker(Signal::HUP);
    until("the refusal is told", || {
        link(&station.agent)["refused"].as_array().into_iter().flatten().any(|refused| {
            refused["stream"] == "raw" && refused["reason"].as_str().unwrap().contains("access list denies")
        })
    });
    station.measured("denied", || thread::sleep(dead()));
    assert_eq!(station.reconnects(), 0);
    fs::write(&list, everything).unwrap();
    station.site.signal_broker(Signal::HUP);
    station.loses_nothing();
}

#[test]
fn a_certificate_that_expires_meanwhile_ends_nothing_before_the_next_connection() {
    let Some(mut site) = Site::build(64, Path::of(100)) else { return };
    let Some(authority) = site.authority() else { return };
    // As openssl takes it.
    let digits = |text: String| text.chars().filter(char::is_ascii_digit).take(14).collect::<String>() + "Z";
    let names = format!("IP:{}", Site::BROKER);
    let ends = SystemClock.now().saturating_add(dead());
    authority.issue_for("server", &names, ["20200101000000Z", &digits(ends.to_string())]).unwrap();
    site.start_broker(&site.tls_lines(&authority));
    let (broker, trusts) = (site.tls_url(), format!("[uplink.tls]\nca = {:?}\n", authority.certificate()));
    let station = Station::with(site, &broker, &trusts);
    while SystemClock.now() <= ends {
        thread::sleep(Duration::from_millis(200));
    }
    station.arrives(stream(&station.agent, "raw")["numbered"].as_u64().unwrap());
    assert_eq!(station.reconnects(), 0);
    station.site.relay.reset();
    station.says("expired");
    station.measured("expired", || thread::sleep(dead()));
    authority.issue("server", &names).unwrap();
    station.site.signal_broker(Signal::HUP);
    station.loses_nothing();
}
