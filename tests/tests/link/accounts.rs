//! What the agent counts as carried, beside what the kernel counts at the interface, over connections that break.

use std::thread;
use std::time::{Duration, Instant};

use rtlive_tests::peer::until;
use rtlive_tests::program::Agent;

use crate::namespace::Counters;
use crate::relay::Path;
use crate::site::Site;
use crate::{link, long};

/// How often the connection is broken.
const BREAK_EVERY: Duration = Duration::from_secs(60);
/// The same in the short form.
const BREAK_OFTEN: Duration = Duration::from_secs(8);
/// Within which a break is seen, or was none.
const BREAK_TAKES: Duration = Duration::from_secs(10);
/// How long the short form takes.
const SHORT: Duration = Duration::from_secs(40);
/// How far apart both counts may be, and in the short form, where much of it is handshakes whose acknowledgements depend on how busy the machine is.
const APART_MAX: f64 = 0.02;
const APART_SHORT_MAX: f64 = 0.06;

/// New records of twenty series each second, and an alert now and then.
const INPUTS: &str = r##"
[inputs.plant]
driver = "simulated"
series = 20
every = "1s"
waveform = "walk"
[inputs.pulse]
driver = "simulated"
every = "100ms"
waveform = "square"
period = "17s"
[streams.live]
select = "plant/#"
[rules.pulse]
let = { p = "pulse/s1" }
when = "p"
severity = "info"
message = "pulse"
"##;

#[test]
fn what_is_counted_as_carried_is_what_the_kernel_counts() {
    let Some(mut site) = Site::build(256, Path::of(100)) else { return };
    let Some(tls) = site.start_tls_broker() else { return };
    let apart_max = if long().is_some() { APART_MAX } else { APART_SHORT_MAX };
    let mut misses = Vec::new();
    println!("| | connections | counted up | of the kernel | counted down | of the kernel | together |");
    println!("|---|---|---|---|---|---|---|");
    // With RTLIVE_WIRE=TLS, say, only that: an hour of each is long.
    let only = std::env::var("RTLIVE_WIRE").ok();
    let is_wanted = |wire: &(&str, String, &str)| only.as_deref().is_none_or(|only| only == wire.0);
    let wires = [("TCP", site.url(), ""), ("TLS", site.tls_url(), &*tls)];
    for (name, broker, more) in wires.into_iter().filter(is_wanted) {
        let mut agent = site.agent(INPUTS, &broker, more);
        let before = site.counters();
        agent.start().unwrap();
        let _subscriber = site.subscribe();
        let broken = break_it(&site, &agent);
        let counted = counted(&agent);
        let after = site.counters();
        agent.kill();
        let kernel = Counters { received: after.received - before.received, sent: after.sent - before.sent };
        let share = |counted: u64, kernel: u64| counted as f64 / kernel as f64 - 1.0;
        let apart = share(counted.both(), kernel.both());
        println!(
            "| {name} | {} | {} | {:+.1} % | {} | {:+.1} % | {:+.1} % |",
            broken + 1,
            counted.sent,
            share(counted.sent, kernel.sent) * 100.0,
            counted.received,
            share(counted.received, kernel.received) * 100.0,
            apart * 100.0,
        );
        misses.extend(
            (apart.abs() > apart_max).then(|| format!("{name}: {counted:?} counted, {kernel:?} at the interface")),
        );
    }
    assert!(misses.is_empty(), "{misses:?}");
}

/// Breaks the connection again and again; says how often the agent connected again.
fn break_it(site: &Site, agent: &Agent) -> u64 {
    let reconnects = || link(agent)["reconnects"].as_u64();
    let (span, every) = long().map_or((SHORT, BREAK_OFTEN), |span| (span, BREAK_EVERY.min(span / 4)));
    let begun = Instant::now();
    until("the link stands", || link(agent)["state"] == "online");
    while begun.elapsed() + every < span {
        thread::sleep(every);
        let before = reconnects();
        let mut asked: Option<Instant> = None;
        until("the break is seen", || {
            // A reset that comes between two segments on their way bears a number that neither end expects, and is ignored by both.
            if asked.is_none_or(|asked| asked.elapsed() > BREAK_TAKES) {
                site.relay.reset();
                asked = Some(Instant::now());
            }
            reconnects() > before
        });
        until("the link stands again", || link(agent)["state"] == "online");
    }
    thread::sleep(every);
    reconnects().unwrap()
}

fn counted(agent: &Agent) -> Counters {
    let link = link(agent);
    let [sent, received] = ["carried_up_bytes", "carried_down_bytes"].map(|figure| link[figure].as_u64().unwrap());
    Counters { received, sent }
}
