//! Modbus devices through the whole way: a meter on a serial line or behind TCP → the agent → a broker → decoded.

use std::collections::BTreeMap;
use std::path::Path;

use rtlive_core::time::Timestamp;
use rtlive_tests::broker::Mosquitto;
use rtlive_tests::line::{Fate, Line};
use rtlive_tests::meter::Meter;
use rtlive_tests::peer::{Peer, until};
use rtlive_tests::program::{Agent, decode};
use serde_json::Value;

/// A centre: a broker, and what arrived there.
struct Centre {
    broker: Mosquitto,
    messages: std::path::PathBuf,
    _subscriber: Peer,
}

impl Centre {
    fn open(folder: &Path) -> Option<Self> {
        let broker = Mosquitto::start(&folder.join("centre"), "").unwrap()?;
        let messages = folder.join("messages");
        let subscriber = broker.subscribe("rtlive/+/raw", "judge", &messages).unwrap()?;
        Some(Self { broker, messages, _subscriber: subscriber })
    }

    /// The readings that arrived, by series, in the order of their numbers.
    fn readings(&self) -> BTreeMap<String, Vec<(Timestamp, f64)>> {
        let mut records = BTreeMap::new();
        // A message that is still being written is decoded the next time.
        for record in decode(&self.messages).unwrap_or_default() {
            records.insert((record["epoch"].to_string(), record["seq"].as_u64()), record);
        }
        let mut readings: BTreeMap<String, Vec<_>> = BTreeMap::new();
        for record in records.into_values() {
            let time = record["time"].as_str().unwrap().parse().unwrap();
            let value = record["value"].as_f64().unwrap();
            readings.entry(record["series"].as_str().unwrap().to_owned()).or_default().push((time, value));
        }
        readings
    }
}

/// The status of the only input.
fn input(agent: &Agent) -> Value {
    agent.status().map(|status| status["inputs"][0].clone()).unwrap_or_default()
}

fn counter(input: &Value, name: &str) -> u64 {
    input["counters"][name].as_u64().unwrap_or(0)
}

/// Asserts that all readings of a device are what its meter says, and that it said each value.
fn assert_values(meter: &Meter, device: &str, readings: &BTreeMap<String, Vec<(Timestamp, f64)>>) {
    for (name, expected) in &meter.values {
        let found = readings.get(&format!("{device}/{name}")).unwrap_or_else(|| panic!("no {name} of {device}"));
        assert!(found.iter().all(|(_, value)| value.to_bits() == expected.to_bits()), "{name}: {expected}: {found:?}");
    }
}

#[test]
fn a_meter_on_a_line_is_read_every_second_beside_one_that_never_answers() {
    let folder = tempfile::tempdir().unwrap();
    let Some(meter) = Meter::on_a_line(folder.path()).unwrap() else { return };
    let Some(centre) = Centre::open(folder.path()) else { return };
    // The meter answers to every unit id: what is for unit 9 is lost on the way.
    let line = Line::lay(&meter.port, |unit| if unit == 9 { Fate::Lost } else { Fate::Passes }).unwrap();
    let configuration = format!(
        r#"
        [maps.sdm630]
        registers = {registers}
        [inputs.meters]
        driver = "modbus"
        port = {port:?}
        [[inputs.meters.devices]]
        name = "m{{unit_id}}"
        unit_id = [9, 1]
        map = "sdm630"
        [uplink]
        broker = "{broker}"
        "#,
        registers = meter.registers,
        port = line.path,
        broker = centre.broker.url(),
    );
    let mut agent = Agent::new(&folder.path().join("agent"), &configuration).unwrap();
    agent.start().unwrap();
    let series = "meters/m1/VoltageL1";
    until("the meter was read ten times", || centre.readings().get(series).is_some_and(|found| found.len() >= 10));
    until("the silent one is set aside", || counter(&input(&agent), "polls_set_aside") > 0);
    let status = input(&agent);
    let lost = line.lost();
    assert_eq!(agent.stop().unwrap(), Some(0), "{}", agent.log().unwrap());

    let readings = centre.readings();
    assert_values(&meter, "meters/m1", &readings);
    assert!(readings.keys().all(|series| series.starts_with("meters/m1/")), "{:?}", readings.keys());
    // What was read by one request has one time.
    let times = |name: &str| readings[name].iter().map(|(time, _)| *time).collect::<Vec<_>>();
    assert_eq!(times(series), times("meters/m1/PowerL3"));

    // Every second has its reading, but for those that the agent itself counted as missed or as not answered.
    let (timeouts, missed) = (counter(&status, "timeouts"), counter(&status, "polls_missed"));
    let seconds: Vec<i64> = times(series).iter().map(|time| time.as_nanos().div_euclid(1_000_000_000)).collect();
    let holes: i64 = seconds.windows(2).map(|pair| (pair[1] - pair[0] - 1).max(0)).sum();
    let explained = missed + timeouts.saturating_sub(lost);
    assert!(holes <= i64::try_from(explained).unwrap(), "{seconds:?}: {status}");
    assert!(lost >= 3 && (timeouts..=timeouts + 1).contains(&lost), "{lost} requests lost: {status}");
    let error = status["error"].as_str().unwrap();
    assert!(error.contains("m9 (unit 9)") && error.contains("no answer within 300 ms"), "{error}");
    assert_eq!(agent.log().unwrap().matches("set aside").count(), 1, "{}", agent.log().unwrap());
}

#[test]
fn a_meter_over_tcp_says_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let Some(meter) = Meter::over_tcp(folder.path()).unwrap() else { return };
    let Some(centre) = Centre::open(folder.path()) else { return };
    let configuration = format!(
        r#"
        [inputs.meters]
        driver = "modbus"
        tcp = "127.0.0.1:{port}"
        [[inputs.meters.devices]]
        name = "main"
        unit_id = 1
        registers = {registers}
        [uplink]
        broker = "{broker}"
        "#,
        registers = meter.registers,
        port = meter.tcp,
        broker = centre.broker.url(),
    );
    let mut agent = Agent::new(&folder.path().join("agent"), &configuration).unwrap();
    agent.start().unwrap();
    until("every value was read", || centre.readings().len() == meter.values.len());
    assert_eq!(agent.stop().unwrap(), Some(0), "{}", agent.log().unwrap());
    assert_values(&meter, "meters/main", &centre.readings());
}

#[test]
fn damage_noise_and_exceptions_are_counted_and_named_and_a_sound_device_is_read() {
    let folder = tempfile::tempdir().unwrap();
    let Some(meter) = Meter::on_a_line(folder.path()).unwrap() else { return };
    let fate = |unit| match unit {
        2 => Fate::Damaged,
        3 => Fate::Noise,
        _ => Fate::Passes,
    };
    let line = Line::lay(&meter.port, fate).unwrap();
    let configuration = format!(
        r#"
        [inputs.meters]
        driver = "modbus"
        port = {port:?}
        every = "2s"
        [[inputs.meters.devices]]
        name = "m{{unit_id}}"
        unit_id = [1, 2, 3]
        registers = [{{ series = "voltage", table = "input", address = 0, type = "f32" }}]
        [[inputs.meters.devices]]
        name = "other"
        unit_id = 4
        registers = [{{ series = "x", table = "input", address = 100, type = "f32" }}]
        "#,
        port = line.path,
    );
    let mut agent = Agent::new(&folder.path().join("agent"), &configuration).unwrap();
    agent.start().unwrap();
    let reasons = ["crc_errors", "garbage", "exceptions", "retries"];
    until("each kind was counted", || {
        let input = input(&agent);
        reasons.iter().all(|reason| counter(&input, reason) >= 2) && input["accepted"].as_u64() >= Some(2)
    });
    let status = input(&agent);
    assert_eq!(agent.stop().unwrap(), Some(0), "{}", agent.log().unwrap());
    // Only the sound device has readings.
    assert_eq!((&status["taken"], &status["restarts"]), (&status["accepted"], &0.into()), "{status}");
    let log = agent.log().unwrap();
    for message in [
        "m2 (unit 2), input 0 to 1: the checksum is wrong",
        "m3 (unit 3), input 0 to 1: bytes came that are no answer",
        "other (unit 4), input 100 to 101: exception 2, illegal data address",
    ] {
        assert_eq!(log.matches(message).count(), 1, "{message}: {log}");
    }
}

#[test]
fn a_port_that_another_program_has_is_named_with_it() {
    let folder = tempfile::tempdir().unwrap();
    let Some(meter) = Meter::on_a_line(folder.path()).unwrap() else { return };
    let agent = |name: &str| {
        let configuration = format!(
            "[inputs.meters]\ndriver = \"modbus\"\nport = {:?}\n[[inputs.meters.devices]]\nname = \"m\"\nunit_id = 1\nregisters = {}\n",
            meter.port, meter.registers
        );
        let mut agent = Agent::new(&folder.path().join(name), &configuration).unwrap();
        agent.start().unwrap();
        agent
    };
    let mut first = agent("first");
    until("the first reads", || input(&first)["accepted"].as_u64() > Some(0));
    let mut second = agent("second");
    until("the second says who has the port", || {
        let error = input(&second)["error"].as_str().unwrap_or_default().to_owned();
        let holder = format!("rtlive (process {})", first.id().unwrap());
        error.contains(meter.port.to_str().unwrap()) && error.contains(&holder) && error.contains("rtlive tail")
    });
    let accepted = input(&first)["accepted"].as_u64();
    until("the first reads on", || input(&first)["accepted"].as_u64() > accepted);
    assert_eq!((first.stop().unwrap(), second.stop().unwrap()), (Some(0), Some(0)));
}
