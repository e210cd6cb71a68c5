//! What a real agent leaves on a real broker opens with docs/examples/decode.py, which is written from the page of the wire format and knows nothing of the
//! program, and says what `rtlive decode` says.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;

use rtlive_core::message::{Item, Message, MessageReader};
use rtlive_tests::broker::Mosquitto;
use rtlive_tests::peer::{installed, python, until};
use rtlive_tests::program::{Agent, decode, json_lines};
use serde_json::Value;

/// How many lines the agent finds while the broker does not answer: hours of them, in frames that are sent in parts, and more than `burst` may keep.
const LINES: u64 = 60_000;

/// Every kind of stream: readings as they are, rounded, and as JSON; windows over numbers, states and texts; alerts; gaps.
fn configuration(broker: &Mosquitto, source: &Path) -> String {
    format!(
        r##"
        [inputs.app]
        driver = "file"
        path = {source:?}
        format = "json"
        time = "/t"
        fields = [
            {{ series = "v", pointer = "/v", type = "i64" }},
            {{ series = "state", pointer = "/state", type = "text" }},
        ]
        [inputs.s]
        driver = "simulated"
        series = 7
        every = "20ms"
        [inputs.n]
        driver = "simulated"
        waveform = "counter"
        every = "100ms"
        round = "100ms"
        [streams.burst]
        select = "app/v"
        max_bytes = "32 KiB"
        [streams.raw]
        select = ["s/#", "n/#"]
        [streams.plain]
        select = "n/#"
        format = "json"
        [windows.second]
        select = ["s/#", "n/#"]
        every = "1s"
        compute = ["count", "min", "max", "mean", "last", "p95", "std", "increase"]
        [windows.hour]
        select = "app/#"
        every = "1h"
        compute = ["count", "first", "last", "max", "time_in_state"]
        [rules.high]
        let = {{ n = "n/s1" }}
        when = "n > 10"
        [uplink]
        broker = {:?}
        rate = "64 kbit/s"
        "##,
        broker.url()
    )
}

fn lines() -> String {
    let mut noise = 1_u64;
    let mut line = |n: u64| {
        noise = noise.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let state = ["run", "idle", "fault"][(noise >> 60) as usize % 3];
        format!("{{\"t\":{},\"v\":{},\"state\":{state:?}}}\n", 1_767_225_600_000 + n * 1_000, noise >> 33)
    };
    (0..LINES).map(&mut line).collect()
}

fn account(agent: &Agent, stream: &str, what: &str) -> u64 {
    let status = agent.status().unwrap_or_default();
    let streams = status["streams"].as_array().cloned().unwrap_or_default();
    streams.iter().find(|one| one["name"] == stream).and_then(|one| one[what].as_u64()).unwrap_or_default()
}

/// How many messages there are, and how many of them are parts of longer frames.
fn messages(bytes: &[u8]) -> (usize, usize) {
    let mut reader = MessageReader::default();
    reader.feed(bytes);
    let (mut all, mut parts) = (0, 0);
    while let Some(item) = reader.next_item() {
        all += 1;
        if let Item::Message(message) = item.unwrap() {
            parts += usize::from(Message::parse(&message).unwrap().count > 1);
        }
    }
    (all, parts)
}

#[test]
fn the_example_decoder_reads_what_is_on_the_broker() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let Some(python) = python(&["cbor2", "zstandard"]) else { return };
    let Some(broker) = Mosquitto::start(&folder.join("broker"), "").unwrap() else { return };
    // A retained message, so that the subscriber tells when it is there.
    let Some(publisher) = installed("mosquitto_pub") else { return };
    let port = broker.port.to_string();
    let said = ["-p", &port, "-q", "1", "-r", "-t", "rtlive/test/greeting", "-m", "{}"];
    assert!(Command::new(publisher).args(said).status().unwrap().success());
    let output = folder.join("messages");
    let Some(_subscriber) = broker.subscribe("rtlive/+/+", "judge", &output).unwrap() else { return };
    until("the subscriber is there", || fs::metadata(&output).is_ok_and(|data| data.len() > 0));
    let source = folder.join("source.jsonl");
    fs::write(&source, "").unwrap();
    let mut agent = Agent::new(&folder.join("agent"), &configuration(&broker, &source)).unwrap();
    agent.start().unwrap();
    until("some has come", || account(&agent, "raw", "acknowledged") > 0);
    broker.hang();
    fs::write(&source, lines()).unwrap();
    until("more waits than may be kept", || account(&agent, "burst", "in_gaps") > 0);
    broker.wake();
    until("all streams have come", || {
        let arrived = |stream: &str| account(&agent, stream, "acknowledged");
        ["raw", "second", "hour", "plain", "alerts", "gaps", "burst"].into_iter().all(|stream| arrived(stream) > 0)
            && account(&agent, "burst", "stored") == 0
    });
    assert_eq!(agent.stop().unwrap(), Some(0), "{}", agent.log().unwrap());

    let expected = decode(&output).unwrap();
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/examples/decode.py");
    let run = Command::new(python).arg(script).arg(&output).output().unwrap();
    assert!(run.status.success(), "{}", String::from_utf8_lossy(&run.stderr));
    let found = json_lines(&run.stdout).unwrap();
    assert_eq!(found.len(), expected.len());
    for (found, expected) in found.iter().zip(&expected) {
        assert_eq!(found, expected);
    }

    let streams: BTreeSet<&str> = expected.iter().filter_map(|record| record["stream"].as_str()).collect();
    assert_eq!(streams, BTreeSet::from(["alerts", "burst", "gaps", "hour", "plain", "raw", "second"]));
    let is_evicted = |record: &&Value| record["gap"]["reason"] == "evicted" && record["gap"]["stream"] == "burst";
    assert!(expected.iter().any(|record| is_evicted(&record)), "no gap of what was evicted");
    let (all, parts) = messages(&fs::read(&output).unwrap());
    assert!(parts > 1 && all > parts, "{parts} of {all} messages are parts");
    for record in expected.iter().filter(|record| record["stream"] == "plain") {
        // Tenths of a second at most: "…:07Z" or "…:07.3Z".
        assert!(matches!(record["time"].as_str().unwrap().len(), 20 | 22), "{record}");
    }
}
