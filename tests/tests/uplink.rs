//! The uplink and a real broker: what counts as delivered, who is there, and in which words.

use std::collections::BTreeSet;
use std::fs;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::path::Path;
use std::process::Command;
use std::thread;

use rtlive_tests::broker::Mosquitto;
use rtlive_tests::peer::{Peer, free_port, installed, until};
use rtlive_tests::program::{Agent, decode};
use serde_json::Value;

const COUNTER: &str = "[inputs.n]\ndriver = \"simulated\"\nwaveform = \"counter\"\nevery = \"100ms\"\n";

fn agent(folder: &Path, configuration: &str) -> Agent {
    let mut agent = Agent::new(&folder.join("agent"), configuration).unwrap();
    agent.start().unwrap();
    agent
}

fn link(agent: &Agent) -> Value {
    agent.status().unwrap_or_default()["uplink"].clone()
}

fn stream(agent: &Agent, name: &str) -> Value {
    let status = agent.status().unwrap_or_default();
    status["streams"]
        .as_array()
        .into_iter()
        .flatten()
        .find(|stream| stream["name"] == name)
        .cloned()
        .unwrap_or_default()
}

/// A mosquitto_sub that writes a JSON object for each message: topic, payload, retain.
fn judge(broker: &Mosquitto, filter: &str, output: &Path) -> Option<Peer> {
    let mut command = Command::new(installed("mosquitto_sub")?);
    command.args(["-h", "127.0.0.1", "-p", &broker.port.to_string(), "-q", "1", "-t", filter, "-F", "%J"]);
    command.stdout(fs::File::create(output).unwrap());
    Some(Peer::start(&mut command).unwrap())
}

fn messages(output: &Path) -> Vec<Value> {
    fs::read_to_string(output).unwrap().lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
}

#[test]
fn the_status_is_retained_and_the_last_will_tells_of_a_crash() {
    let folder = tempfile::tempdir().unwrap();
    let Some(broker) = Mosquitto::start(&folder.path().join("broker"), "").unwrap() else { return };
    let configuration = format!("labels = {{ site = \"plant-7\" }}\n{COUNTER}[uplink]\nbroker = {:?}\n", broker.url());
    let mut agent = agent(folder.path(), &configuration);
    until("the link stands", || link(&agent)["state"] == "online");

    let output = folder.path().join("status.jsonl");
    let Some(_judge) = judge(&broker, "rtlive/test/status", &output) else { return };
    let states = || -> Vec<String> {
        let state = |message: &Value| message["payload"]["state"].as_str().map(str::to_owned);
        messages(&output).iter().filter_map(state).collect()
    };
    until("the retained status is there", || !states().is_empty());
    let retained = messages(&output).remove(0);
    assert_eq!(retained["retain"], 1, "{retained}");
    let status = &retained["payload"];
    assert_eq!((&status["agent"], &status["state"]), (&"test".into(), &"online".into()), "{status}");
    assert_eq!(status["labels"]["site"], "plant-7", "{status}");
    assert!(status["since"].is_string() && status["version"].is_string(), "{status}");

    agent.kill();
    until("the last will is there", || states() == ["online", "offline"]);
    agent.start().unwrap();
    until("it is back", || states() == ["online", "offline", "online"]);
    assert_eq!(agent.stop().unwrap(), Some(0), "{}", agent.log().unwrap());
    until("it says goodbye", || states() == ["online", "offline", "online", "offline"]);
}

#[test]
fn what_nobody_subscribed_to_is_kept_until_somebody_does() {
    let folder = tempfile::tempdir().unwrap();
    let Some(broker) = Mosquitto::start(&folder.path().join("broker"), "").unwrap() else { return };
    let mut agent = agent(folder.path(), &format!("{COUNTER}[uplink]\nbroker = {:?}\n", broker.url()));
    until("the refusal is told", || {
        let refused = link(&agent)["refused"].clone();
        let mut refused = refused.as_array().into_iter().flatten();
        refused.any(|refused| refused["stream"] == "raw" && refused["reason"].as_str().unwrap().contains("subscribes"))
    });
    assert_eq!(stream(&agent, "raw")["acknowledged"], 0);
    let kept = stream(&agent, "raw")["stored"].as_u64().unwrap();
    let output = folder.path().join("messages");
    let Some(_subscriber) = broker.subscribe("rtlive/#", "judge", &output).unwrap() else { return };
    until("what was kept has arrived", || stream(&agent, "raw")["acknowledged"].as_u64() > Some(kept));
    assert_eq!(agent.stop().unwrap(), Some(0), "{}", agent.log().unwrap());
    let numbers: BTreeSet<u64> = decode(&output)
        .unwrap()
        .iter()
        .filter(|record| record["stream"] == "raw")
        .filter_map(|record| record["seq"].as_u64())
        .collect();
    assert!(numbers.len() as u64 > kept);
    assert_eq!((numbers.first(), numbers.last()), (Some(&1), Some(&(numbers.len() as u64))), "{numbers:?}");
}

#[test]
fn a_stream_goes_as_json_beside_one_of_frames() {
    let folder = tempfile::tempdir().unwrap();
    let Some(broker) = Mosquitto::start(&folder.path().join("broker"), "").unwrap() else { return };
    let output = folder.path().join("messages.jsonl");
    let Some(_judge) = judge(&broker, "plain/#", &output) else { return };
    let framed = folder.path().join("framed");
    let Some(_subscriber) = broker.subscribe("rtlive/#", "judge", &framed).unwrap() else { return };
    let configuration = format!(
        r##"{COUNTER}
        [streams.raw]
        select = "#"
        [streams.one_by_one]
        select = "#"
        format = "json"
        batch = 1
        topic = "plain/one"
        [streams.gathered]
        select = "#"
        format = "json"
        batch = "500ms"
        topic = "plain/many"
        [uplink]
        broker = {:?}
        "##,
        broker.url()
    );
    let mut agent = agent(folder.path(), &configuration);
    let of = |topic: &str| -> Vec<Value> {
        messages(&output)
            .into_iter()
            .filter(|message| message["topic"] == topic)
            .map(|message| message["payload"].clone())
            .collect()
    };
    until("both have come", || of("plain/one").len() > 10 && of("plain/many").len() > 2);
    assert_eq!(agent.stop().unwrap(), Some(0), "{}", agent.log().unwrap());

    let one = of("plain/one");
    for (place, record) in one.iter().enumerate() {
        assert_eq!(record["seq"], place + 1, "{record}");
        assert!(record["stream"] == "one_by_one" && record["series"] == "n/s1" && record["value"].is_u64(), "{record}");
    }
    let many: Vec<Value> = of("plain/many").iter().flat_map(|message| message.as_array().unwrap().clone()).collect();
    assert!(many.len() > of("plain/many").len(), "some message has several records");
    assert!(many.iter().zip(1_u64..).all(|(record, seq)| record["seq"] == seq), "{many:?}");
    // The same readings, whatever the form.
    let values = |records: &[Value]| records.iter().map(|record| record["value"].clone()).collect::<Vec<_>>();
    let frames: Vec<Value> = decode(&framed).unwrap().into_iter().filter(|record| record["stream"] == "raw").collect();
    let count = frames.len().min(one.len()).min(many.len());
    assert_eq!(values(&one[..count]), values(&many[..count]));
    assert_eq!(values(&one[..count]), values(&frames[..count]));
}

/// How a broker that speaks 3.1.1 alone answers a CONNECT of version 5.
#[derive(Clone, Copy)]
enum Answer {
    /// With "unacceptable protocol version" (MQTT 3.1.1, section 3.2.2.3), as mosquitto before 1.6.
    Refuses,
    /// With the end of the connection.
    Closes,
    /// Not at all, as amqtt.
    IsSilent,
}

/// Stands before a broker, and lets nothing but MQTT 3.1.1 through.
fn speaks_311_only(broker: u16, answer: Answer) -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    thread::spawn(move || {
        for mut client in listener.incoming().map_while(Result::ok) {
            thread::spawn(move || {
                // The version stands behind the name of the protocol.
                let mut head = Vec::new();
                while !head.ends_with(b"\0\x04MQTT") {
                    let mut byte = [0];
                    client.read_exact(&mut byte).ok()?;
                    head.push(byte[0]);
                }
                let mut version = [0];
                client.read_exact(&mut version).ok()?;
                head.push(version[0]);
                if version != [4] {
                    match answer {
                        Answer::Refuses => client.write_all(&[0x20, 2, 0, 1]).ok()?,
                        Answer::Closes => {}
                        // The agent gives up.
                        Answer::IsSilent => drop(std::io::copy(&mut client, &mut std::io::sink())),
                    }
                    return client.shutdown(Shutdown::Both).ok();
                }
                let mut server = TcpStream::connect((Ipv4Addr::LOCALHOST, broker)).ok()?;
                server.write_all(&head).ok()?;
                let (mut from_client, mut to_server) = (client.try_clone().ok()?, server.try_clone().ok()?);
                thread::spawn(move || std::io::copy(&mut from_client, &mut to_server));
                std::io::copy(&mut server, &mut client).ok()?;
                client.shutdown(Shutdown::Both).ok()
            });
        }
    });
    port
}

#[test]
fn a_broker_that_speaks_311_alone_is_spoken_to_in_it() {
    are_spoken_to_in_311([Answer::Refuses, Answer::Closes]);
}

#[test]
fn a_broker_that_does_not_answer_version_5_is_spoken_to_in_311_after_a_while() {
    are_spoken_to_in_311([Answer::IsSilent]);
}

fn are_spoken_to_in_311(answers: impl IntoIterator<Item = Answer>) {
    for answer in answers {
        let folder = tempfile::tempdir().unwrap();
        let Some(broker) = Mosquitto::start(&folder.path().join("broker"), "").unwrap() else { return };
        let output = folder.path().join("messages");
        let Some(_subscriber) = broker.subscribe("rtlive/#", "judge", &output).unwrap() else { return };
        let port = speaks_311_only(broker.port, answer);
        let configuration = format!("{COUNTER}[uplink]\nbroker = \"mqtt://127.0.0.1:{port}\"\n");
        let mut agent = agent(folder.path(), &configuration);
        until("it is spoken to", || link(&agent)["protocol"] == "3.1.1");
        until("frames arrive", || stream(&agent, "raw")["acknowledged"].as_u64() > Some(5));
        assert_eq!(agent.stop().unwrap(), Some(0), "{}", agent.log().unwrap());
        assert!(decode(&output).unwrap().iter().any(|record| record["stream"] == "raw"));
    }
}

#[test]
fn the_link_is_told_of_and_what_is_spent_of_a_budget_survives_a_crash() {
    let folder = tempfile::tempdir().unwrap();
    let Some(broker) = Mosquitto::start(&folder.path().join("broker"), "").unwrap() else { return };
    let configuration = format!("{COUNTER}[uplink]\nbroker = {:?}\nbudget = \"10 MB/day\"\n", broker.url());
    let Some(_judge) = judge(&broker, "rtlive/#", &folder.path().join("messages.jsonl")) else { return };
    let mut agent = agent(folder.path(), &configuration);
    until("the link is known", || {
        let link = link(&agent);
        ["link_bytes_per_s", "link_round_trip_ms", "sent_bytes_per_s", "record_ms_p50", "record_ms_p99", "drain_s"]
            .iter()
            .all(|figure| link[figure].as_f64().is_some())
    });
    let spent = |agent: &Agent| link(agent)["budget"]["spent"].as_u64().unwrap_or_default();
    until("something is spent", || spent(&agent) > 3_000);
    let before = spent(&agent);
    agent.kill();
    agent.start().unwrap();
    until("the link stands again", || link(&agent)["state"] == "online");
    // All that was reserved counts.
    let after = spent(&agent);
    assert!(after > before, "{before} before, {after} after");
    assert_eq!(link(&agent)["budget"]["bytes"], 10_000_000);
}

#[test]
fn an_attempt_that_reaches_nobody_costs_what_it_carried() {
    // The SYNs of four addresses, and their refusals (`wire::UNREACHED`).
    const UNREACHED_BYTES: u64 = 4 * (60 + 52);
    let folder = tempfile::tempdir().unwrap();
    let links = "[uplink.links.absent]\ninterface = \"rtlive-none\"\npreference = 2\n[uplink.links.there]\ninterface = \"lo\"\n";
    let configuration = format!("{COUNTER}[uplink]\nbroker = \"mqtt://127.0.0.1:{}\"\n{links}", free_port().unwrap());
    let mut agent = agent(folder.path(), &configuration);
    let carried = |status: &Value, name: &str| {
        let line = status["links"].as_array().into_iter().flatten().find(|line| line["link"] == name);
        let bytes = |line: &Value| Some(line["carried_up_bytes"].as_u64()? + line["carried_down_bytes"].as_u64()?);
        line.and_then(bytes)
    };
    // One attempt may be under way, and is counted as if it were made.
    until("three attempts failed", || {
        let status = link(&agent);
        let is_so = |bytes: u64| bytes >= 3 * UNREACHED_BYTES && bytes.is_multiple_of(UNREACHED_BYTES);
        carried(&status, "there").is_some_and(is_so) && carried(&status, "absent") == Some(0)
    });
    let errors = link(&agent)["brokers"].to_string();
    assert!(errors.contains("there is no such interface") && errors.contains("nothing listens there"), "{errors}");
    assert_eq!(agent.stop().unwrap(), Some(0), "{}", agent.log().unwrap());
}
