//! A list of brokers: the first that lets the agent in is used, one that comes back is returned to, and nothing is lost on the way.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener};
use std::path::Path;
use std::thread;

use rtlive_tests::broker::Mosquitto;
use rtlive_tests::peer::until;
use rtlive_tests::program::{Agent, decode};
use serde_json::Value;

/// Brokers that hold back nothing, so that what one acknowledged is at its subscriber.
const UNLIMITED: &str = "max_inflight_messages 0\nmax_queued_messages 0\n";

fn agent(folder: &Path, brokers: &[String], keys: &str) -> Agent {
    let configuration = format!(
        "[inputs.n]\ndriver = \"simulated\"\nwaveform = \"counter\"\nevery = \"50ms\"\n[uplink]\nbroker = {brokers:?}\n{keys}"
    );
    let mut agent = Agent::new(&folder.join("agent"), &configuration).unwrap();
    agent.start().unwrap();
    agent
}

fn link(agent: &Agent) -> Value {
    agent.status().unwrap_or_default()["uplink"].clone()
}

/// Waits until this broker is the one in use, and some more has been delivered.
fn uses(agent: &Agent, broker: &Mosquitto) {
    until(&format!("{} is used", broker.url()), || {
        let link = link(agent);
        link["state"] == "online" && link["broker"] == broker.url().as_str()
    });
    let delivered = link(agent)["acknowledged_frames"].as_u64().unwrap();
    until("frames are delivered", || link(agent)["acknowledged_frames"].as_u64() > Some(delivered + 5));
}

#[test]
fn the_second_broker_is_used_while_the_first_is_away_and_every_number_comes_once() {
    let folder = tempfile::tempdir().unwrap();
    let Some(mut first) = Mosquitto::start(&folder.path().join("first"), UNLIMITED).unwrap() else { return };
    let Some(second) = Mosquitto::start(&folder.path().join("second"), UNLIMITED).unwrap() else { return };
    let messages = ["first", "second"].map(|name| folder.path().join(name).join("messages"));
    let Some(_at_first) = first.subscribe("rtlive/#", "judge", &messages[0]).unwrap() else { return };
    let Some(_at_second) = second.subscribe("rtlive/#", "judge", &messages[1]).unwrap() else { return };
    let mut agent = agent(folder.path(), &[first.url(), second.url()], "return_after = \"2s\"\n");
    uses(&agent, &first);
    for _ in 0..2 {
        first.kill();
        uses(&agent, &second);
        let lines = link(&agent)["brokers"].clone();
        assert!(lines[0]["error"].as_str().unwrap().contains(&first.url()), "{lines}");
        assert!(lines[1]["error"].is_null(), "{lines}");
        first.restart().unwrap();
        uses(&agent, &first);
        assert!(link(&agent)["brokers"][0]["error"].is_null());
    }
    assert_eq!(link(&agent)["reconnects"], 2, "a return loses no connection");
    assert_eq!(agent.stop().unwrap(), Some(0), "{}", agent.log().unwrap());

    let mut numbers: BTreeMap<u64, usize> = BTreeMap::new();
    let mut seen = BTreeSet::new();
    for record in messages.iter().flat_map(|messages| decode(messages).unwrap()) {
        let key = ["epoch", "stream", "class", "seq"].map(|field| record[field].to_string());
        if record["stream"] == "raw" && seen.insert(key) {
            *numbers.entry(record["seq"].as_u64().unwrap()).or_default() += 1;
        }
    }
    assert!(numbers.values().all(|&count| count == 1), "{numbers:?}");
    let last = *numbers.keys().last().unwrap();
    let missing: Vec<u64> = (1..=last).filter(|number| !numbers.contains_key(number)).collect();
    assert!(missing.is_empty(), "of {last} are missing: {missing:?}");
}

/// Answers every CONNECT of MQTT 5 with these packets, and then closes the connection.
fn answers(packets: &'static [u8]) -> String {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    thread::spawn(move || {
        for mut client in listener.incoming().map_while(Result::ok) {
            let mut connect = [0; 1024];
            let heard = client.read(&mut connect).and_then(|_| client.write_all(packets));
            // Until it hangs up, so that what was written is read before the end.
            while heard.is_ok() && client.read(&mut connect).is_ok_and(|count| count > 0) {}
        }
    });
    format!("mqtt://127.0.0.1:{port}")
}

#[test]
fn a_broker_that_sends_to_another_server_is_followed_by_the_next() {
    let folder = tempfile::tempdir().unwrap();
    let Some(third) = Mosquitto::start(&folder.path().join("third"), UNLIMITED).unwrap() else { return };
    let Some(_at_third) = third.subscribe("rtlive/#", "judge", &folder.path().join("messages")).unwrap() else {
        return;
    };
    // CONNACK with "use another server", and CONNACK with success and then DISCONNECT with "server moved" (MQTT 5.0, sections 3.2.2.2 and 3.14.2.1).
    let first = answers(&[0x20, 3, 0, 0x9c, 0]);
    let second = answers(&[0x20, 3, 0, 0, 0, 0xe0, 2, 0x9d, 0]);
    let mut agent = agent(folder.path(), &[first, second, third.url()], "");
    uses(&agent, &third);
    let lines = link(&agent)["brokers"].clone();
    assert!(lines[0]["error"].as_str().unwrap().contains("UseAnotherServer"), "{lines}");
    assert!(lines[1]["error"].as_str().unwrap().contains("ServerMoved"), "{lines}");
    assert_eq!(agent.stop().unwrap(), Some(0), "{}", agent.log().unwrap());
}
