//! Bad input of every kind to the running program: a clear error, counted by reason, and nothing else lost.

use std::fs;
use std::path::Path;
use std::process::Command;

use rtlive_tests::broker::Mosquitto;
use rtlive_tests::peer::{free_port, installed, until};
use rtlive_tests::program::{Agent, decode, run};
use serde_json::Value;

fn publish(broker: &Mosquitto, publisher: &Path, topic: &str, message: &str) {
    let port = broker.port.to_string();
    let status =
        Command::new(publisher).args(["-h", "127.0.0.1", "-p", &port, "-q", "1", "-t", topic, "-m", message]).status();
    assert!(status.unwrap().success());
}

#[test]
fn bad_messages_are_counted_and_the_good_ones_arrive() {
    let Some(publisher) = installed("mosquitto_pub") else { return };
    let folder = tempfile::tempdir().unwrap();
    let Some(broker) = Mosquitto::start(&folder.path().join("broker"), "").unwrap() else { return };
    let messages = folder.path().join("messages");
    let Some(_subscriber) = broker.subscribe("rtlive/#", "judge", &messages).unwrap() else { return };
    let configuration = format!(
        r#"
        [inputs.floor]
        driver = "mqtt"
        broker = "{url}"
        [[inputs.floor.topics]]
        filter = "floor/+/json"
        series = "{{1}}"
        format = "json"
        value = "/v"
        time = "/ts"
        time_unit = "ms"
        [[inputs.floor.topics]]
        filter = "floor/+/text"
        series = "{{1}}"
        format = "text"

        [uplink]
        broker = "{url}"
        "#,
        url = broker.url()
    );
    let mut agent = Agent::new(&folder.path().join("agent"), &configuration).unwrap();
    agent.start().unwrap();
    let input = |agent: &Agent| agent.status().map(|status| status["inputs"][0].clone());
    until("the agent listens", || input(&agent).is_some_and(|input| input["state"] == "running"));

    publish(&broker, &publisher, "floor/a/json", "{\"v\":");
    publish(&broker, &publisher, "floor/a/json", "{\"w\":1,\"ts\":1767225600000}");
    publish(&broker, &publisher, "floor/a/json", "{\"v\":[],\"ts\":1767225600000}");
    publish(&broker, &publisher, "floor/a/json", "{\"v\":2,\"ts\":9000000000000}");
    publish(&broker, &publisher, "floor/a/json", "{\"v\":3,\"ts\":\"yesterday\"}");
    publish(&broker, &publisher, "floor/b/text", "NaN");
    publish(&broker, &publisher, "floor/a/json", "{\"v\":1.5,\"ts\":1767225600000}");

    until("all messages are taken", || input(&agent).is_some_and(|input| input["taken"].as_u64() >= Some(7)));
    let input = input(&agent).unwrap();
    for reason in ["not_json", "no_pointer", "wrong_type", "bad_time"] {
        assert_eq!(input["dropped"][reason], 1, "{reason}: {input}");
    }
    assert_eq!(input["quarantined"], 1, "{input}");
    assert_eq!(input["bad"], 1, "{input}");
    assert_eq!(input["accepted"], 3, "{input}");

    let records = || decode(&messages).unwrap_or_default();
    let has = |stream: &str, series: &str, value: &Value| {
        records().iter().any(|r| r["stream"] == stream && r["series"] == series && r["value"] == *value)
    };
    until("the good reading is at the centre", || has("raw", "floor/a", &1.5.into()));
    until("the one from the future is there too", || has("quarantine", "floor/a", &2.into()));
    let nan = records().into_iter().find(|record| record["series"] == "floor/b").unwrap();
    assert_eq!((&nan["value"], &nan["quality"]), (&Value::Null, &"bad".into()));
    assert_eq!(agent.stop().unwrap(), Some(0));
}

#[test]
fn a_failing_input_does_not_disturb_another() {
    let folder = tempfile::tempdir().unwrap();
    let port = free_port().unwrap();
    let configuration = format!(
        r#"
        [inputs.gone]
        driver = "nmea"
        port = "{missing}"
        [inputs.refused]
        driver = "modbus"
        tcp = "127.0.0.1:{port}"
        every = "1s"
        [[inputs.refused.devices]]
        name = "d"
        unit_id = 1
        registers = [{{ series = "x", table = "input", address = 0, type = "u16" }}]
        [inputs.works]
        driver = "simulated"
        "#,
        missing = folder.path().join("ttyUSB0").display(),
    );
    let mut agent = Agent::new(&folder.path().join("agent"), &configuration).unwrap();
    agent.start().unwrap();
    let status = |agent: &Agent| agent.status().unwrap_or_default();
    let named = |status: &Value, name: &str| -> Value {
        let inputs = status["inputs"].as_array().cloned().unwrap_or_default();
        inputs.into_iter().find(|input| input["name"] == name).unwrap_or_default()
    };
    until("the missing port is reported", || {
        let gone = named(&status(&agent), "gone");
        gone["state"] == "waiting" && gone["error"].as_str().is_some_and(|error| error.contains("ttyUSB0"))
    });
    until("the refused connection is reported", || {
        named(&status(&agent), "refused")["error"].as_str().is_some_and(|error| error.contains(&port.to_string()))
    });
    until("the other input reads", || named(&status(&agent), "works")["accepted"].as_u64() > Some(0));
    assert_eq!(status(&agent)["ledger"]["closes"], true);
    assert_eq!(agent.stop().unwrap(), Some(0));
}

#[test]
fn a_broker_that_refuses_the_login_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let password_file = folder.path().join("passwords");
    fs::write(&password_file, "").unwrap();
    let lines = format!("password_file {}\n", password_file.display());
    let lines = format!("{lines}allow_anonymous false\n");
    let Some(broker) = Mosquitto::start(&folder.path().join("broker"), &lines).unwrap() else { return };
    let secret = folder.path().join("secret");
    fs::write(&secret, "wrong").unwrap();
    let configuration = format!(
        "[inputs.s]\ndriver = \"simulated\"\n[uplink]\nbroker = \"{}\"\nusername = \"gw\"\npassword = {{ file = {:?} }}\n",
        broker.url(),
        secret
    );
    let mut agent = Agent::new(&folder.path().join("agent"), &configuration).unwrap();
    agent.start().unwrap();
    until("the refusal is reported", || {
        let status = agent.status().unwrap_or_default();
        status["uplink"]["error"].as_str().is_some_and(|error| {
            let error = error.to_lowercase();
            error.contains("login") || error.contains("authori") || error.contains("password")
        })
    });
    assert_eq!(agent.stop().unwrap(), Some(0), "{}", agent.log().unwrap());
}

#[test]
fn messages_of_a_topic_that_is_configured_no_more_are_counted() {
    let Some(publisher) = installed("mosquitto_pub") else { return };
    let folder = tempfile::tempdir().unwrap();
    let Some(broker) = Mosquitto::start(&folder.path().join("broker"), "").unwrap() else { return };
    let configuration = |filter: &str| {
        let url = broker.url();
        format!(
            "[inputs.floor]\ndriver = \"mqtt\"\nbroker = \"{url}\"\n[[inputs.floor.topics]]\nfilter = \"{filter}\"\nvalue = \"/v\"\n"
        )
    };
    let agent_folder = folder.path().join("agent");
    let started = |filter: &str| {
        let mut agent = Agent::new(&agent_folder, &configuration(filter)).unwrap();
        agent.start().unwrap();
        until("the agent listens", || agent.status().is_some_and(|status| status["inputs"][0]["state"] == "running"));
        agent
    };
    assert_eq!(started("before/+").stop().unwrap(), Some(0));
    // The broker keeps it for the session, which outlives the change.
    publish(&broker, &publisher, "before/a", "{\"v\":1}");
    let mut agent = started("after/+");
    publish(&broker, &publisher, "after/a", "{\"v\":2}");
    until("both are taken", || agent.status().is_some_and(|status| status["inputs"][0]["taken"] == 2));
    let status = agent.status().unwrap();
    assert_eq!(status["inputs"][0]["dropped"]["no_topic"], 1, "{status}");
    assert_eq!(status["inputs"][0]["accepted"], 1, "{status}");
    // One that matches nothing is not even heard.
    publish(&broker, &publisher, "elsewhere/a", "{\"v\":3}");
    publish(&broker, &publisher, "after/a", "{\"v\":4}");
    until("the next is taken", || agent.status().is_some_and(|status| status["inputs"][0]["accepted"] == 2));
    assert_eq!(agent.status().unwrap()["inputs"][0]["taken"], 3);
    assert_eq!(agent.stop().unwrap(), Some(0), "{}", agent.log().unwrap());
}

#[test]
fn mistakes_of_the_user_exit_with_64_and_name_the_place() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("rtlive.toml");
    for (text, expected) in [
        ("[inputs.a]\ndriver = \"modbuss\"\n", "modbus"),
        ("[inputs.a]\ndriver = \"simulated\"\n[windows.w]\nselect = [\"#\"]\nevery = 10\n", "every"),
        ("[inputs.a\n", "rtlive.toml:1:10: not TOML"),
    ] {
        fs::write(&file, text).unwrap();
        for command in ["check", "run"] {
            let output = run(&["-c", file.to_str().unwrap(), command]).unwrap();
            let error = String::from_utf8_lossy(&output.stderr);
            assert_eq!(output.status.code(), Some(64), "{command} {text}: {error}");
            assert!(error.contains("rtlive.toml") && error.contains(expected), "{command} {text}: {error}");
        }
    }
    assert_eq!(run(&["frobnicate"]).unwrap().status.code(), Some(64));
    assert_eq!(run(&["-c", "/nonexistent.toml", "check"]).unwrap().status.code(), Some(64));
}

#[test]
fn damaged_messages_are_named_and_the_others_decoded() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("messages");
    fs::write(&file, b"\x01garbage that is no frame{\"agent\":\"a\"}\n").unwrap();
    let output = run(&["decode", file.to_str().unwrap()]).unwrap();
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(error.contains("byte") || error.contains("offset"), "{error}");
    assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), "{\"agent\":\"a\"}");
}
