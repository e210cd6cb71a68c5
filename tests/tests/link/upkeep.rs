//! What `rtlive check` forecasts for a station that is seldom connected, and for one that stays connected, beside what the kernel counts.

use std::thread;
use std::time::{Duration, Instant};

use rtlive_tests::peer::{PATIENCE, until};
use rtlive_tests::program::{Agent, run};
use serde_json::Value;

use crate::relay::Path;
use crate::site::Site;
use crate::{link, long};

/// How far from what is forecast it may be.
const APART_MAX: f64 = 0.1;
const SECONDS_PER_DAY: f64 = 86_400.0;
/// A day of a station that connects each hour, an hour of it in a minute.
const CONNECTIONS: u64 = 24;
const EVERY: Duration = Duration::from_secs(60);
/// The same in the short form.
const CONNECTIONS_SHORT: u64 = 2;
const EVERY_SHORT: Duration = Duration::from_secs(10);
/// How long keep-alives are counted, and how often one goes, in the short form.
const KEPT_ALIVE_SHORT: Duration = Duration::from_secs(8);
const KEEP_ALIVE_SHORT: Duration = Duration::from_secs(2);
const KEEP_ALIVE: Duration = Duration::from_secs(60);
/// What is on its way when the status changes has arrived by then.
const PAUSE: Duration = Duration::from_secs(1);

/// A water level, of which an hour has as many readings as a minute here, with an alert that is not raised.
const STATION: &str = r#"
[inputs.station]
driver = "simulated"
every = "1s"
waveform = "walk"
[streams.level]
select = "station/#"
[rules.flood]
let = { level = "station/s1" }
when = "level > 1000000"
"#;
const SILENT: &str = "[inputs.station]\ndriver = \"simulated\"\nevery = \"1d\"\n";

#[test]
fn connections_of_a_schedule_cost_what_check_forecasts() {
    let Some(mut site) = Site::build(256, Path::of(100)) else { return };
    let Some(tls) = site.start_tls_broker() else { return };
    let (connections, every) = match long() {
        Some(span) => ((span.as_secs() / EVERY.as_secs()).clamp(1, CONNECTIONS), EVERY),
        None => (CONNECTIONS_SHORT, EVERY_SHORT),
    };
    let schedule = format!("{{ every = \"{}s\", alerts = \"now\" }}", every.as_secs());
    let more = format!("budget = \"20 MB/month\"\nschedule = {schedule}\n{tls}");
    let mut agent = site.agent(STATION, &site.tls_url(), &more);
    let plan = plan(&agent);
    agent.start().unwrap();
    let subscriber = site.subscribe();
    let is_asleep = || link(&agent)["state"] == "sleeping";
    until("it sleeps after the start", is_asleep);
    thread::sleep(PAUSE);
    let (before, arrived) = (site.counters().both(), subscriber.look(|arrivals| arrivals.count("level")));
    for _ in 0..connections {
        wait("the next connection", every, || !is_asleep());
        until("it sleeps again", is_asleep);
    }
    thread::sleep(PAUSE);
    let arrived = subscriber.look(|arrivals| arrivals.count("level")) - arrived;
    let forecast =
        plan["link_bytes_per_day"].as_f64().unwrap() / plan["upkeep"]["connections_per_day"].as_f64().unwrap();
    println!("{connections} connections over TLS with {arrived} readings:");
    compare(forecast * connections as f64, site.counters().both() - before);
    let expected = (connections * every.as_secs()) as usize;
    assert!(arrived >= expected - every.as_secs() as usize, "{arrived} of {expected} readings");
}

#[test]
fn keep_alives_cost_what_check_forecasts() {
    let Some(mut site) = Site::build(256, Path::of(100)) else { return };
    let Some(tls) = site.start_tls_broker() else { return };
    let (span, every) = long().map_or((KEPT_ALIVE_SHORT, KEEP_ALIVE_SHORT), |span| (span, KEEP_ALIVE));
    // The library sends one each 5 s at most in MQTT 5.
    let keep_alive = format!("keep_alive = \"{}s\"\nprotocol = \"3.1.1\"\n{tls}", every.as_secs());
    let mut agent = site.agent(SILENT, &site.tls_url(), &keep_alive);
    let plan = plan(&agent);
    agent.start().unwrap();
    until("the link stands", || link(&agent)["state"] == "online");
    // What a start sends has gone by then.
    thread::sleep(PAUSE * 2);
    // From one keep-alive to another.
    let (begun, before) = after_a_keep_alive(&site);
    thread::sleep(span.saturating_sub(every));
    let (ended, after) = after_a_keep_alive(&site);
    let (took, kernel) = (ended - begun, after - before);
    let forecast = plan["upkeep"]["keep_alives_per_day_bytes"].as_f64().unwrap();
    println!("keep-alives over TLS for {took:.0?}:");
    compare(forecast * took.as_secs_f64() / SECONDS_PER_DAY, kernel);
}

/// What `rtlive check` says of the agent's configuration.
fn plan(agent: &Agent) -> Value {
    let configuration = agent.configuration();
    let output = run(&["-c", configuration.to_str().unwrap(), "check", "--json"]).unwrap();
    let mut report: Value = serde_json::from_slice(&output.stdout).unwrap();
    report["plan"].take()
}

/// When a keep-alive has gone, and what the interface has carried by then.
fn after_a_keep_alive(site: &Site) -> (Instant, u64) {
    thread::sleep(PAUSE);
    let before = site.counters();
    wait("a keep-alive", KEEP_ALIVE, || site.counters() != before);
    let at = Instant::now();
    thread::sleep(PAUSE);
    (at, site.counters().both())
}

fn compare(forecast: f64, kernel: u64) {
    let apart = forecast / kernel as f64 - 1.0;
    println!("{forecast:.0} bytes forecast, {kernel} at the interface: {:+.1} %", apart * 100.0);
    assert!(apart.abs() <= APART_MAX, "{forecast:.0} bytes forecast, {kernel} at the interface");
}

/// Waits for what comes within a period.
fn wait(what: &str, period: Duration, is_there: impl Fn() -> bool) {
    let begun = Instant::now();
    while !is_there() {
        assert!(begun.elapsed() < period + PATIENCE, "{what} does not come");
        thread::sleep(Duration::from_millis(100));
    }
}
