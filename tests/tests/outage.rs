//! Numbered readings over MQTT QoS 1 while everything around them dies: at the centre every number once, and the ledger closed.
//!
//! The local broker runs with `max_inflight_messages 0` and `max_queued_messages 0`, so that it holds what the agent has not
//! acknowledged instead of dropping it. The central broker runs with `max_inflight_messages 0` and without persistence: it writes a
//! message to its subscriber before it acknowledges it to the agent, and answers "nobody subscribed" while the subscriber is away.
//!
//! `RTLIVE_LONG=1` runs the full length: 20,000 readings, the central broker killed five times and hung for 30 s, the agent killed
//! ten times. Without it the same at a tenth.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use rtlive_tests::broker::Mosquitto;
use rtlive_tests::peer::until;
use rtlive_tests::program::{Agent, decode};
use rumqttc::{Client, MqttOptions, QoS};

/// How long and how cruel.
struct Course {
    readings: u64,
    broker_kills: u64,
    hang: Duration,
    agent_kills: u64,
}

const SHORT: Course = Course { readings: 4_000, broker_kills: 2, hang: Duration::from_secs(4), agent_kills: 3 };
const LONG: Course = Course { readings: 20_000, broker_kills: 5, hang: Duration::from_secs(30), agent_kills: 10 };

/// Readings a second.
const RATE: u64 = 1_000;

#[test]
fn every_number_arrives_once_whatever_dies() {
    let course = if std::env::var_os("RTLIVE_LONG").is_some() { LONG } else { SHORT };
    let folder = tempfile::tempdir().unwrap();
    let unlimited = "max_inflight_messages 0\nmax_queued_messages 0\n";
    let Some(local) = Mosquitto::start(&folder.path().join("local"), unlimited).unwrap() else { return };
    let Some(mut centre) = Mosquitto::start(&folder.path().join("centre"), unlimited).unwrap() else { return };
    let messages = folder.path().join("messages");
    let Some(_subscriber) = centre.subscribe("rtlive/#", "judge", &messages).unwrap() else { return };
    let mut agent = Agent::new(&folder.path().join("agent"), &configuration(&local, &centre)).unwrap();
    agent.start().unwrap();
    until("the agent listens to the local broker", || is_running(&agent));

    let port = local.port;
    let publisher = thread::spawn(move || publish(port, course.readings));
    let span = Duration::from_secs(course.readings / RATE);
    let events = course.broker_kills + course.agent_kills + 1;
    let pause = span / u32::try_from(events).unwrap();
    for event in 0..events {
        thread::sleep(pause);
        if event == events / 2 {
            centre.hang();
            thread::sleep(course.hang);
            centre.wake();
        } else if event % (events / course.broker_kills) == 1 {
            centre.kill();
            thread::sleep(pause / 2);
            centre.restart().unwrap();
        } else {
            agent.kill();
            agent.start().unwrap();
        }
    }
    publisher.join().unwrap();

    until("every number is at the centre", || Centre::of(&messages).numbers.len() as u64 >= course.readings);
    until("the ledger closes with nothing waiting", || {
        let Some(status) = agent.status() else { return false };
        let raw = status["streams"].as_array().unwrap().iter().find(|stream| stream["name"] == "raw").cloned().unwrap();
        status["ledger"]["closes"] == true && raw["stored"] == 0 && raw["numbered"] == raw["acknowledged"]
    });
    let input = agent.status().unwrap()["inputs"][0].clone();
    assert_eq!((&input["taken"], &input["accepted"]), (&course.readings.into(), &course.readings.into()), "{input}");
    assert_eq!(agent.stop().unwrap(), Some(0), "{}", agent.log().unwrap());

    let Centre { numbers, seqs, again } = Centre::of(&messages);
    let expected: BTreeMap<u64, usize> = (0..course.readings).map(|number| (number, 1)).collect();
    let wrong: Vec<_> = numbers.iter().filter(|(number, count)| expected.get(number) != Some(count)).take(10).collect();
    assert!(wrong.is_empty(), "numbers and how often they came: {wrong:?}");
    assert_eq!(numbers.len(), expected.len());
    assert!(seqs.iter().copied().eq(1..=course.readings), "the numbers of the records have holes");
    eprintln!(
        "{} readings once each; {again} records came again; {} kills of the broker, {} of the agent, hung for {:?}",
        course.readings, course.broker_kills, course.agent_kills, course.hang
    );
}

fn configuration(local: &Mosquitto, centre: &Mosquitto) -> String {
    format!(
        r#"
        [inputs.line]
        driver = "mqtt"
        broker = "{}"
        [[inputs.line.topics]]
        filter = "numbers"
        series = "n"
        format = "json"
        value = "/n"

        [uplink]
        broker = "{}"
        "#,
        local.url(),
        centre.url(),
    )
}

fn is_running(agent: &Agent) -> bool {
    agent.status().is_some_and(|status| status["inputs"][0]["state"] == "running")
}

/// Publishes the numbers at [`RATE`], each acknowledged by the local broker.
fn publish(port: u16, readings: u64) {
    let mut options = MqttOptions::new("numbers", "127.0.0.1", port);
    options.set_inflight(100);
    let (client, mut connection) = Client::new(options, 100);
    let sender = thread::spawn(move || {
        let start = Instant::now();
        for number in 0..readings {
            let due = start + Duration::from_micros(number * 1_000_000 / RATE);
            thread::sleep(due.saturating_duration_since(Instant::now()));
            client.publish("numbers", QoS::AtLeastOnce, false, format!("{{\"n\":{number}}}")).unwrap();
        }
        client
    });
    let mut acknowledged = 0;
    for event in connection.iter() {
        if let Ok(rumqttc::Event::Incoming(rumqttc::Packet::PubAck(_))) = event {
            acknowledged += 1;
            if acknowledged == readings {
                break;
            }
        }
    }
    drop(sender.join().unwrap());
}

/// What is at the centre of the stream `raw`.
#[derive(Default)]
struct Centre {
    /// Each number, and how often it is there after removing duplicates by (agent, epoch, stream, class, seq).
    numbers: BTreeMap<u64, usize>,
    /// The records' own numbers.
    seqs: BTreeSet<u64>,
    /// How many records were duplicates.
    again: usize,
}

impl Centre {
    fn of(messages: &Path) -> Self {
        let (mut seen, mut centre) = (BTreeSet::new(), Self::default());
        for record in decode(messages).unwrap_or_default() {
            if record["stream"] != "raw" {
                continue;
            }
            let key = ["agent", "epoch", "stream", "class", "seq"].map(|field| record[field].to_string());
            if seen.insert(key) {
                *centre.numbers.entry(record["value"].as_u64().unwrap()).or_default() += 1;
                centre.seqs.insert(record["seq"].as_u64().unwrap());
            } else {
                centre.again += 1;
            }
        }
        centre
    }
}
