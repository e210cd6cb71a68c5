//! A NATS server in the place of the broker: agents speak MQTT 3.1.1 to it, and the receiver reads the stream in which it keeps their messages.

use std::collections::BTreeSet;
use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::Duration;

use rtlive_tests::nats::Nats;
use rtlive_tests::peer::{python, until};
use rtlive_tests::program::{Agent, Receiver, json_lines};
use serde_json::Value;

/// How often something is killed: the server, the receiver and an agent in turn.
const KILLS: u64 = 9;

/// How many readings an agent gets before each kill.
const READINGS: u64 = 200;

const AGENTS: [&str; 2] = ["gw-1", "gw-2"];

fn agent(folder: &Path, id: &str, server: &Nats) -> Agent {
    let folder = folder.join(id);
    fs::create_dir_all(&folder).unwrap();
    let source = folder.join("source.jsonl");
    fs::write(&source, "").unwrap();
    let configuration = format!(
        "[inputs.app]\ndriver = \"file\"\npath = {source:?}\nformat = \"json\"\ntime = \"/t\"\n\
         fields = [{{ series = \"n\", pointer = \"/n\", type = \"i64\" }}]\n[streams.raw]\nselect = \"#\"\n\
         [uplink]\nbroker = {:?}\nprotocol = \"3.1.1\"\ndelivery = \"receiver\"\nreceipt_timeout = \"5s\"\n",
        server.mqtt_url()
    );
    let mut agent = Agent::named(id, &folder, &configuration).unwrap();
    agent.start().unwrap();
    agent
}

fn append(folder: &Path, id: &str, numbers: std::ops::Range<u64>) {
    let line = |n: u64| format!("{{\"t\":{},\"n\":{n}}}\n", 1_767_225_600_000 + n * 100);
    let text: String = numbers.map(line).collect();
    let source = folder.join(id).join("source.jsonl");
    OpenOptions::new().append(true).open(source).unwrap().write_all(text.as_bytes()).unwrap();
}

/// What the receiver says of the stream `raw` of an agent.
fn report(receiver: &Receiver, id: &str) -> Option<Value> {
    let output = receiver.run(&["completeness", "--json", id]).unwrap();
    let reports = output.status.success().then(|| json_lines(&output.stdout).unwrap())?;
    reports.into_iter().find(|report| report["stream"] == "raw")
}

#[test]
fn nothing_is_lost_and_nothing_is_there_twice() {
    let folder = tempfile::tempdir().unwrap();
    let (folder, lake) = (folder.path(), folder.path().join("lake"));
    let Some(python) = python(&["pyarrow.parquet"]) else { return };
    let Some(mut server) = Nats::start(&folder.join("server")).unwrap() else { return };
    let configuration = format!(
        "[sources.centre]\nkind = \"nats\"\nserver = {:?}\ntopics = [\"rtlive/gw-1/#\", \"rtlive/+/raw\", \"rtlive/+/gaps\"]\n\
         receipts = true\n[outputs.lake]\nkind = \"parquet\"\npath = {lake:?}\nevery = \"1s\"\n",
        server.url()
    );
    let mut receiver = Receiver::new(&folder.join("receiver"), &configuration).unwrap();
    receiver.start().unwrap();
    let logged = |receiver: &Receiver, what: &str| receiver.log().is_ok_and(|log| log.contains(what));
    until("it says that the stream is not there yet", || logged(&receiver, "there is no stream $MQTT_msgs yet"));
    // The first connection by MQTT makes the stream; there is nothing to send yet.
    let mut agents: Vec<Agent> = AGENTS.iter().map(|id| agent(folder, id, &server)).collect();
    until("the receiver goes on by itself", || logged(&receiver, "reads $MQTT_msgs"));

    for kill in 0..KILLS {
        for id in AGENTS {
            append(folder, id, kill * READINGS..(kill + 1) * READINGS);
        }
        // While frames are on their way, and not always at the same moment.
        thread::sleep(Duration::from_millis(300 + 170 * kill % 700));
        match kill % 3 {
            0 => {
                server.kill();
                thread::sleep(Duration::from_millis(300));
                server.restart().unwrap();
            }
            1 => {
                receiver.kill();
                thread::sleep(Duration::from_millis(300));
                receiver.start().unwrap();
            }
            _ => {
                let agent = &mut agents[(kill / 3) as usize % AGENTS.len()];
                agent.kill();
                agent.start().unwrap();
            }
        }
    }
    let expected = KILLS * READINGS;
    until("all of it is reported as complete", || {
        AGENTS.iter().all(|id| {
            let report = report(&receiver, id).unwrap_or_default();
            assert!(report["records"].as_u64() <= Some(expected), "{report}");
            report["state"] == "complete" && report["records"].as_u64() == Some(expected)
        })
    });
    until("receipts cover all of it", || {
        agents.iter().all(|agent| {
            let status = agent.status().unwrap_or_default();
            let streams = status["streams"].as_array().cloned().unwrap_or_default();
            streams.iter().any(|stream| stream["name"] == "raw" && stream["acknowledged"].as_u64() == Some(expected))
        })
    });
    assert_eq!(receiver.stop().unwrap(), Some(0), "{}", receiver.log().unwrap());

    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("receiver/rows.py");
    let output = Command::new(&python).arg(script).arg(&lake).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let found: Value = serde_json::from_slice(&output.stdout).unwrap();
    for id in AGENTS {
        let numbers: Vec<u64> = serde_json::from_value(found[id]["n"].clone()).unwrap();
        let distinct: BTreeSet<u64> = numbers.iter().copied().collect();
        assert_eq!(distinct.len(), numbers.len(), "{id}: readings stand there twice");
        assert!(distinct.into_iter().eq(0..expected), "{id}: readings are missing");
    }
}
