//! The receiver beside real brokers and real agents.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::thread;
use std::time::Duration;

use rtlive_tests::broker::Mosquitto;
use rtlive_tests::peer::{free_port, until};
use rtlive_tests::program::{Agent, Receiver, decode, json_lines};
use serde_json::Value;

const COUNTER: &str = "[inputs.n]\ndriver = \"simulated\"\nwaveform = \"counter\"\nevery = \"20ms\"\n";

/// A receiver that prints what it hears from a broker.
fn printer(folder: &Path, broker: &Mosquitto, more: &str) -> Receiver {
    let source =
        format!("[sources.centre]\nkind = \"mqtt\"\nbroker = {:?}\ntopics = \"rtlive/#\"\n{more}", broker.url());
    Receiver::new(&folder.join("receiver"), &format!("{source}\n[outputs.lines]\nkind = \"json\"\n")).unwrap()
}

/// An agent that sends to a broker.
fn sender(folder: &Path, broker: &Mosquitto) -> Agent {
    Agent::new(&folder.join("agent"), &format!("{COUNTER}[uplink]\nbroker = {:?}\n", broker.url())).unwrap()
}

fn raw(records: &[Value]) -> impl Iterator<Item = &Value> {
    records.iter().filter(|record| record["stream"] == "raw")
}

/// How many records of the stream `raw` the broker has acknowledged to the agent.
fn acknowledged(agent: &Agent) -> Option<u64> {
    let status = agent.status()?;
    status["streams"].as_array()?.iter().find(|stream| stream["name"] == "raw")?["acknowledged"].as_u64()
}

#[test]
fn records_are_printed_once_while_the_receiver_is_killed() {
    for protocol in ["5", "3.1.1"] {
        let folder = tempfile::tempdir().unwrap();
        let unlimited = "max_queued_messages 0\n";
        let Some(broker) = Mosquitto::start(&folder.path().join("broker"), unlimited).unwrap() else { return };
        let mut receiver = printer(folder.path(), &broker, &format!("protocol = {protocol:?}"));
        receiver.start().unwrap();
        let mut agent = sender(folder.path(), &broker);
        agent.start().unwrap();
        let last_printed = |receiver: &Receiver| {
            let lines = receiver.lines().unwrap_or_default();
            raw(&lines).filter_map(|record| record["seq"].as_u64()).max()
        };
        for round in 0..3 {
            until("more is printed", || last_printed(&receiver) > Some(40 * (round + 1)));
            receiver.kill();
            thread::sleep(Duration::from_millis(300));
            receiver.start().unwrap();
        }
        let mut sent = None;
        until("more has gone", || {
            sent = acknowledged(&agent);
            sent > Some(200)
        });
        until("all of it is printed", || last_printed(&receiver) >= sent);
        assert_eq!(receiver.stop().unwrap(), Some(0), "{}", receiver.log().unwrap());

        // Lines of the batch that was under way when it was killed may come twice, and nothing else may.
        let records = receiver.lines().unwrap();
        let mut numbers: BTreeMap<u64, u32> = BTreeMap::new();
        for record in raw(&records) {
            *numbers.entry(record["seq"].as_u64().unwrap()).or_default() += 1;
        }
        let all: BTreeSet<u64> = numbers.keys().copied().collect();
        assert_eq!(all, (1..=all.len() as u64).collect(), "numbers are missing");
        assert!(numbers.values().all(|count| *count <= 4), "{numbers:?}");
        agent.kill();
    }
}

#[test]
fn files_are_read_once_however_often_they_are_read() {
    let folder = tempfile::tempdir().unwrap();
    let Some(broker) = Mosquitto::start(&folder.path().join("broker"), "").unwrap() else { return };
    let messages = folder.path().join("in/messages");
    fs::create_dir(folder.path().join("in")).unwrap();
    let Some(subscriber) = broker.subscribe("rtlive/#", "judge", &messages).unwrap() else { return };
    let mut agent = sender(folder.path(), &broker);
    agent.start().unwrap();
    until("some records have gone", || acknowledged(&agent) > Some(50));
    assert_eq!(agent.stop().unwrap(), Some(0), "{}", agent.log().unwrap());
    drop(subscriber);
    // The status is in the messages, too, and no record.
    let expected: Vec<Value> =
        decode(&messages).unwrap().into_iter().filter(|record| record["stream"].is_string()).collect();

    let configuration = format!(
        "[sources.folder]\nkind = \"directory\"\npath = {:?}\nfollow = false\n[outputs.lines]\nkind = \"json\"\n",
        folder.path().join("in")
    );
    let receiver = Receiver::new(&folder.path().join("receiver"), &configuration).unwrap();
    let received = |receiver: &Receiver, arguments: &[&str]| {
        let output = receiver.run(arguments).unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        json_lines(&output.stdout).unwrap()
    };
    let messages_name = messages.to_str().unwrap();
    // The broker passes on what the agent sent, so that nothing is there twice.
    assert!(received(&receiver, &["run"]) == expected, "other records than `rtlive decode` finds");
    assert_eq!(received(&receiver, &["run"]).len(), 0);
    assert_eq!(received(&receiver, &["read", messages_name]).len(), 0);
    // Under another name it is another file, of records that are known.
    fs::copy(&messages, folder.path().join("in/again")).unwrap();
    assert_eq!(received(&receiver, &["run"]).len(), 0);

    let fresh = Receiver::new(&folder.path().join("fresh"), "[outputs.lines]\nkind = \"json\"\n").unwrap();
    assert!(received(&fresh, &["read", messages_name]) == expected, "other records than `rtlive decode` finds");
}

/// What a receiver says of the stream `raw`.
fn report(receiver: &Receiver) -> Option<Value> {
    let output = receiver.run(&["completeness", "--json"]).unwrap();
    let reports = output.status.success().then(|| json_lines(&output.stdout).unwrap())?;
    reports.into_iter().find(|report| report["stream"] == "raw")
}

/// An agent that sends the numbers in a file to a broker.
fn reader(folder: &Path, source: &Path, broker: &Mosquitto, more: &str) -> Agent {
    let input = format!("[inputs.app]\ndriver = \"file\"\npath = {source:?}\nformat = \"json\"\ntime = \"/t\"\n");
    let fields = "fields = [{ series = \"n\", pointer = \"/n\", type = \"i64\" }]\n[streams.raw]\nselect = \"#\"\n";
    let uplink = format!("[uplink]\nbroker = {:?}\n{more}", broker.url());
    Agent::new(&folder.join("agent"), &(input + fields + &uplink)).unwrap()
}

/// Appends numbers to a file, one a second of event time.
fn append(source: &Path, numbers: std::ops::Range<u64>) {
    let mut text = fs::read_to_string(source).unwrap_or_default();
    for number in numbers {
        text.push_str(&format!("{{\"t\":{},\"n\":{number}}}\n", 1_767_225_600_000 + number * 1_000));
    }
    fs::write(source, text).unwrap();
}

#[test]
fn what_is_here_and_what_is_not_is_told_at_any_moment() {
    let folder = tempfile::tempdir().unwrap();
    let (folder, source) = (folder.path(), folder.path().join("source.jsonl"));
    let Some(broker) = Mosquitto::start(&folder.join("broker"), "").unwrap() else { return };
    let mut early = printer(&folder.join("early"), &broker, "");
    early.start().unwrap();
    append(&source, 0..100);
    let mut agent = reader(folder, &source, &broker, "");
    agent.start().unwrap();
    let told = |receiver: &Receiver, records: u64| {
        let Some(report) = report(receiver) else { return false };
        let printed = raw(&receiver.lines().unwrap()).count() as u64;
        let told = report["records"].as_u64().unwrap();
        assert!(told <= printed, "{told} records are told of, and {printed} printed");
        told == records
    };
    until("a half is told of", || told(&early, 100));
    // Its session begins now, and what was sent before never comes.
    let mut late = printer(&folder.join("late"), &broker, "client_id = \"late\"");
    late.start().unwrap();
    until("the second is there", || late.log().is_ok_and(|log| log.contains("connected to")));
    for part in 1..6 {
        append(&source, part * 100..(part + 1) * 100);
        until("one more part is told of", || told(&early, (part + 1) * 100));
    }
    let lines = || raw(&late.lines().unwrap()).cloned().collect::<Vec<Value>>();
    until("the second has the last", || lines().iter().any(|line| line["seq"] == 600));

    let (whole, partial) = (report(&early).unwrap(), report(&late).unwrap());
    assert_eq!((&whole["state"], &whole["missing"]), (&"complete".into(), &serde_json::json!([])));
    assert_eq!(whole["until"], "2026-01-01T00:09:59Z");
    let lines = lines();
    let first = lines.iter().filter_map(|line| line["seq"].as_u64()).min().unwrap();
    let missing = serde_json::json!([{"epoch": whole_epoch(&lines), "from": 1, "to": first - 1}]);
    assert_eq!((&partial["state"], &partial["missing"]), (&"missing".into(), &missing));
    assert_eq!(partial["until"], Value::Null, "nothing before the first hole is here");
    agent.kill();
}

/// The epoch that all records are of.
fn whole_epoch(records: &[Value]) -> Value {
    let epoch = records[0]["epoch"].clone();
    assert!(records.iter().all(|record| record["epoch"] == epoch));
    epoch
}

#[test]
fn a_frame_is_kept_until_a_receipt_covers_it() {
    for protocol in ["5", "3.1.1"] {
        let folder = tempfile::tempdir().unwrap();
        let (folder, source) = (folder.path(), folder.path().join("source.jsonl"));
        let Some(broker) = Mosquitto::start(&folder.join("broker"), "").unwrap() else { return };
        // Whoever listens makes the broker take messages; it sends no receipts.
        let messages = folder.join("messages");
        let Some(_subscriber) = broker.subscribe("rtlive/#", "judge", &messages).unwrap() else { return };
        append(&source, 0..100);
        let more = format!("protocol = {protocol:?}\ndelivery = \"receiver\"\nreceipt_timeout = \"1s\"\n");
        let mut agent = reader(folder, &source, &broker, &more);
        agent.start().unwrap();
        let times_sent = || {
            let records = decode(&messages).unwrap_or_default();
            raw(&records).filter(|record| record["seq"] == 1).count()
        };
        until("the first record is sent again and again", || times_sent() > 2);
        assert_eq!(acknowledged(&agent), Some(0), "deleted without a receipt");
        agent.kill();
        agent.start().unwrap();

        let mut receiver = printer(folder, &broker, &format!("protocol = {protocol:?}\nreceipts = true"));
        receiver.start().unwrap();
        until("all is covered", || acknowledged(&agent) == Some(100));
        for part in 1..4 {
            append(&source, part * 100..(part + 1) * 100);
            until("more is printed", || raw(&receiver.lines().unwrap()).any(|line| line["seq"] == (part + 1) * 100));
            receiver.kill();
            receiver.start().unwrap();
        }
        until("all is covered again", || acknowledged(&agent) == Some(400));
        let report = report(&receiver).unwrap();
        assert_eq!((&report["state"], report["records"].as_u64()), (&"complete".into(), Some(400)));
        let status = agent.status().unwrap();
        assert_eq!(status["ledger"]["closes"], true, "{status}");
        agent.kill();
    }
}

/// What is served at a port.
fn metrics(port: u16) -> Option<String> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).ok()?;
    stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n").ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    answer.starts_with("HTTP/1.1 200 ").then_some(answer)
}

/// The value of a metric.
fn figure(metrics: &str, name: &str) -> Option<f64> {
    metrics.lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok())
}

#[test]
fn what_is_counted_is_what_was_printed() {
    let folder = tempfile::tempdir().unwrap();
    let (folder, source) = (folder.path(), folder.path().join("source.jsonl"));
    let Some(broker) = Mosquitto::start(&folder.join("broker"), "").unwrap() else { return };
    let port = free_port().unwrap();
    let configuration = format!(
        "metrics = \"127.0.0.1:{port}\"\n[sources.centre]\nkind = \"mqtt\"\nbroker = {:?}\ntopics = \"rtlive/#\"\n\
         [outputs.lines]\nkind = \"json\"\n",
        broker.url()
    );
    let mut receiver = Receiver::new(&folder.join("receiver"), &configuration).unwrap();
    receiver.start().unwrap();
    append(&source, 0..100);
    let mut agent = reader(folder, &source, &broker, "");
    agent.start().unwrap();
    until("all is printed", || receiver.lines().is_ok_and(|lines| raw(&lines).count() == 100));
    assert_eq!(agent.stop().unwrap(), Some(0), "{}", agent.log().unwrap());
    let mut told = String::new();
    until("all that is printed is counted", || {
        let printed = receiver.lines().unwrap_or_default().len() as f64;
        told = metrics(port).unwrap_or_default();
        figure(&told, "rtlive_receiver_records_total") == Some(printed)
    });
    assert_eq!(figure(&told, "rtlive_receiver_records_again_total"), Some(0.0), "{told}");
    assert!(figure(&told, "rtlive_receiver_lag_seconds{agent=\"test\"}").is_some(), "{told}");
    assert_eq!(receiver.stop().unwrap(), Some(0), "{}", receiver.log().unwrap());
}
