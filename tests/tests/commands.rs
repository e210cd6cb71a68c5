//! The commands that a user gives beside a running agent.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

use rtlive_core::frame::{Density, Origin, seal};
use rtlive_core::message::split;
use rtlive_core::reading::{ClockState, Quality, Reading, SeriesId, SeriesInfo, Value as ReadingValue};
use rtlive_core::record::{Epoch, Record};
use rtlive_core::time::Timestamp;
use rtlive_tests::broker::Mosquitto;
use rtlive_tests::peer::{Cable, until};
use rtlive_tests::program::{Agent, rtlive, run};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

const TWO_SERIES: &str = "[inputs.sim]\ndriver = \"simulated\"\nseries = 2\nevery = \"100ms\"\n";

fn running(folder: &Path, configuration: &str) -> Agent {
    let mut agent = Agent::new(folder, configuration).unwrap();
    agent.start().unwrap();
    until("the agent reads", || taken(&agent) > Some(0));
    agent
}

fn taken(agent: &Agent) -> Option<u64> {
    agent.status()?["inputs"][0]["taken"].as_u64()
}

fn ask(agent: &Agent, arguments: &[&str]) -> Output {
    let configuration = agent.configuration();
    run(&[&["-c", configuration.to_str().unwrap()], arguments].concat()).unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Adds to an agent's configuration.
fn append(agent: &Agent, more: &str) {
    fs::OpenOptions::new().append(true).open(agent.configuration()).unwrap().write_all(more.as_bytes()).unwrap();
}

/// A command that runs beside the test and ends with it.
struct Beside(Child);

impl Beside {
    fn start(arguments: &[&str], stdin: Stdio) -> Self {
        Self(Command::new(rtlive()).args(arguments).stdin(stdin).stdout(Stdio::piped()).spawn().unwrap())
    }

    fn lines(&mut self) -> impl Iterator<Item = String> + use<> {
        BufReader::new(self.0.stdout.take().unwrap()).lines().map_while(Result::ok)
    }
}

impl Drop for Beside {
    fn drop(&mut self) {
        // It has ended where the test passed.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn without_an_agent_they_say_so() {
    let folder = tempfile::tempdir().unwrap();
    let agent = Agent::new(folder.path(), TWO_SERIES).unwrap();
    for command in ["status", "reload", "tail"] {
        let output = ask(&agent, &[command]);
        assert_eq!(output.status.code(), Some(1), "{command}");
        let error = text(&output.stderr);
        assert!(error.contains("no agent runs on this configuration") && error.contains("rtlive.sock"), "{error}");
    }
}

#[test]
fn a_reader_that_went_away_is_no_failure() {
    let folder = tempfile::tempdir().unwrap();
    let agent = Agent::new(folder.path(), TWO_SERIES).unwrap();
    let configuration = agent.configuration();
    let configuration = configuration.to_str().unwrap();
    for arguments in [
        &["--version"][..],
        &["drivers"],
        &["drivers", "modbus"],
        &["drivers", "modbus", "--example"],
        &["check", "-c", configuration],
        &["check", "--json", "-c", configuration],
    ] {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let output = Command::new(rtlive()).args(arguments).stdout(writer).stderr(Stdio::piped()).output().unwrap();
        assert_eq!(output.status.code(), Some(0), "{arguments:?}: {}", text(&output.stderr));
    }
    // The first line of many: `rtlive replay … | head -1`.
    let lines: String = (0..20_000).map(|n| format!("{{\"series\":\"a/x\",\"time\":{n},\"value\":{n}}}\n")).collect();
    let readings = folder.path().join("readings.jsonl");
    fs::write(&readings, lines).unwrap();
    let arguments = ["-c", configuration, "replay", readings.to_str().unwrap()];
    let mut child =
        Command::new(rtlive()).args(arguments).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let first = BufReader::new(child.stdout.take().unwrap()).lines().next().unwrap().unwrap();
    assert!(first.contains("\"seq\":1,"), "{first}");
    let output = child.wait_with_output().unwrap();
    assert_eq!((output.status.code(), text(&output.stderr)), (Some(0), String::new()));
}

#[test]
fn nobody_who_reads_the_errors_is_no_failure_either() {
    let folder = tempfile::tempdir().unwrap();
    let agent = Agent::new(folder.path(), TWO_SERIES).unwrap();
    let configuration = agent.configuration();
    let configuration = configuration.to_str().unwrap();
    let readings = folder.path().join("readings.jsonl");
    fs::write(&readings, "no reading\n{\"series\":\"a/x\",\"time\":1,\"value\":1}\n").unwrap();
    let readings = readings.to_str().unwrap();
    let missing = folder.path().join("missing.toml");
    for (arguments, code) in [
        (&["-c", configuration, "replay", readings][..], 0),
        (&["-c", configuration, "replay", "--strict", readings], 1),
        (&["-c", configuration, "status"], 1),
        (&["-c", missing.to_str().unwrap(), "check"], 64),
        (&["no-command"], 64),
    ] {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let output = Command::new(rtlive()).args(arguments).stderr(writer).output().unwrap();
        assert_eq!(output.status.code(), Some(code), "{arguments:?}");
    }
    let output = run(&["-c", configuration, "replay", "--strict", readings]).unwrap();
    assert!(text(&output.stdout).contains("\"value\":1"), "what is a reading is read: {}", text(&output.stdout));
    assert!(text(&output.stderr).contains("1 lines were no readings"), "{}", text(&output.stderr));
}

#[test]
fn a_file_that_is_given_twice_is_read_once_and_named() {
    let folder = tempfile::tempdir().unwrap();
    let agent = Agent::new(folder.path(), TWO_SERIES).unwrap();
    let configuration = agent.configuration();
    let configuration = configuration.to_str().unwrap();
    let output = run(&["-c", configuration, "-c", folder.path().to_str().unwrap(), "check"]).unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    let expected = format!("warning: {configuration}: given twice, and read once\n");
    assert!(text(&output.stdout).contains(&expected), "{}", text(&output.stdout));
}

#[test]
fn a_tail_that_is_stopped_takes_no_line_from_another() {
    let folder = tempfile::tempdir().unwrap();
    let configuration = "[inputs.sim]\ndriver = \"simulated\"\nseries = 500\nevery = \"100ms\"\n";
    let mut agent = running(folder.path(), configuration);
    let file = agent.configuration();
    let file = file.to_str().unwrap();
    let mut stopped = Beside::start(&["-c", file, "tail"], Stdio::null());
    let mut stopped_lines = stopped.lines();
    assert!(stopped_lines.next().unwrap().contains("sim/"));
    let process = Pid::from_child(&stopped.0);
    kill_process(process, Signal::STOP).unwrap();

    // So much passes that whatever holds the other's lines is full.
    let mut other = Beside::start(&["-c", file, "tail"], Stdio::null());
    let mut numbers =
        other.lines().take(30_000).map(|line| serde_json::from_str::<Value>(&line).unwrap()["seq"].as_u64());
    let first = numbers.next().unwrap().unwrap();
    for (number, expected) in numbers.zip(first + 1..) {
        assert_eq!(number, Some(expected));
    }
    drop(other);
    kill_process(process, Signal::CONT).unwrap();
    let skipped = stopped_lines.find(|line| line.contains("skipped")).unwrap();
    let skipped = serde_json::from_str::<Value>(&skipped).unwrap()["skipped"].as_u64().unwrap();
    // What it has not missed follows on what it has.
    assert!(skipped > 0);
    assert!(serde_json::from_str::<Value>(&stopped_lines.next().unwrap()).unwrap()["seq"].as_u64().unwrap() > skipped);
    drop(stopped);
    assert_eq!(agent.stop().unwrap(), Some(0));
}

#[test]
fn tail_shows_what_is_selected_until_its_reader_or_the_agent_goes() {
    let folder = tempfile::tempdir().unwrap();
    let configuration = format!("{TWO_SERIES}[windows.w]\nselect = \"#\"\nevery = \"1s\"\n");
    let mut agent = running(folder.path(), &configuration);
    let file = agent.configuration();
    let file = file.to_str().unwrap();

    let mut one = Beside::start(&["-c", file, "tail", "sim/s1"], Stdio::null());
    let mut lines = one.lines();
    let records: Vec<Value> = lines.by_ref().take(40).map(|line| serde_json::from_str(&line).unwrap()).collect();
    assert!(records.iter().all(|record| record["series"] == "sim/s1" && record["epoch"] == "tail"), "{records:?}");
    for stream in ["raw", "w"] {
        assert!(records.iter().any(|record| record["stream"] == stream), "{stream}: {records:?}");
    }

    // As with `rtlive tail | head`.
    let mut all = Beside::start(&["-c", file, "tail"], Stdio::null());
    assert!(all.lines().take(4).any(|line| line.contains("sim/s2")));
    assert_eq!(all.0.wait().unwrap().code(), Some(0));

    assert_eq!(ask(&agent, &["tail", "sim/#/x"]).status.code(), Some(64));
    assert_eq!(agent.stop().unwrap(), Some(0), "{}", agent.log().unwrap());
    assert!(lines.all(|line| line.contains("sim/s1")));
    assert_eq!(one.0.wait().unwrap().code(), Some(0), "it ends with the agent");
}

#[test]
fn status_tells_a_person_and_a_program_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let configuration = format!(
        "{TWO_SERIES}[inputs.far]\ndriver = \"nmea\"\ntcp = \"127.0.0.1:1\"\n[windows.w]\nselect = \"#\"\nevery = \"1s\"\n\
         [streams.raw]\nselect = \"#\"\n[rules.high]\nlet = {{ s = \"sim/s1\" }}\nwhen = \"s > -1\"\n\
         [uplink]\nbroker = \"mqtt://127.0.0.1:1\"\n"
    );
    let mut agent = Agent::new(folder.path(), &configuration).unwrap();
    agent.start().unwrap();
    let input = |status: &Value, name: &str| -> Value {
        let mut inputs = status["inputs"].as_array().into_iter().flatten();
        inputs.find(|input| input["name"] == name).cloned().unwrap_or_default()
    };
    until("a rate is known", || {
        let status = agent.status().unwrap_or_default();
        let waits = status["uplink"]["next_attempt_at"].is_string();
        waits
            && input(&status, "sim")["per_s"].as_f64() > Some(0.0)
            && status["windows"][0]["finished"].as_u64() > Some(0)
    });
    let status = agent.status().unwrap();
    let sim = input(&status, "sim");
    assert!(sim["state"] == "running" && sim["lag_s"].is_f64() && sim["watermark"].is_string(), "{sim}");
    let far = input(&status, "far");
    assert!(far["state"] != "running" && far["error"].as_str().unwrap().contains("127.0.0.1:1"), "{far}");
    assert_eq!(status["alerts"][0], "high");
    assert!(status["uplink"]["error"].as_str().unwrap().contains("nothing listens there"), "{status}");
    assert!(status["streams"].as_array().unwrap().iter().all(|stream| stream["acknowledged"] == 0), "{status}");
    assert_eq!(status["ledger"]["closes"], true);
    assert!(status["store"]["commits"].as_u64() > Some(0) && status["time"].is_string(), "{status}");

    let output = ask(&agent, &["status"]);
    let text = text(&output.stdout);
    let line =
        |start: &str| text.lines().find(|line| line.starts_with(start)).unwrap_or_else(|| panic!("{start}: {text}"));
    assert!(line("test, rtlive").contains("runs since 20"));
    assert!(line("sim ").contains("running"));
    assert!(text.contains("    connect to 127.0.0.1:1:"), "{text}");
    for (start, part) in [("w ", " 0"), ("raw ", "oldest"), ("store ", "on disk"), ("link ", "mqtt://127.0.0.1:1")] {
        assert!(line(start).contains(part), "{text}");
    }
    for line in ["alerts   raised: high", "ledger   closes"] {
        assert!(text.lines().any(|other| other == line), "{line}: {text}");
    }
    assert!(!text.contains('\x1b'));
    assert_eq!(agent.stop().unwrap(), Some(0), "{}", agent.log().unwrap());
}

#[test]
fn a_reload_with_mistakes_changes_nothing_and_one_without_loses_nothing() {
    let folder = tempfile::tempdir().unwrap();
    // The only window is open for as long as the test lasts, unless the reload ends it.
    let configuration = format!("{TWO_SERIES}[windows.day]\nselect = \"#\"\nevery = \"365d\"\n");
    let mut agent = running(folder.path(), &configuration);
    let id = agent.id();
    let right = fs::read_to_string(agent.configuration()).unwrap();

    append(&agent, "[windows.other]\nselect = \"#\"\nevery = 10\n[rules.r]\nwhen = \"x >\"\n");
    let output = ask(&agent, &["reload"]);
    assert_eq!(output.status.code(), Some(64));
    let error = text(&output.stderr);
    for part in ["rtlive.toml:", "windows.other.every", "rules.r"] {
        assert!(error.contains(part), "{part}: {error}");
    }
    let pid = Pid::from_raw(id.unwrap().cast_signed()).unwrap();
    kill_process(pid, Signal::HUP).unwrap();
    until("the log has the verdict", || agent.log().unwrap().contains("windows.other.every"));
    let before = agent.status().unwrap();
    assert_eq!(before["windows"].as_array().unwrap().len(), 1, "{before}");

    fs::write(agent.configuration(), &right).unwrap();
    append(
        &agent,
        "[windows.other]\nselect = \"#\"\nevery = \"1s\"\n[rules.r]\nlet = { s = \"sim/s1\" }\nwhen = \"s > 1000\"\n",
    );
    let output = ask(&agent, &["reload"]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    assert!(text(&output.stdout).contains("as configured now"), "{}", text(&output.stdout));
    let after = agent.status().unwrap();
    let day = |status: &Value| -> Value {
        status["windows"].as_array().unwrap().iter().find(|window| window["name"] == "day").cloned().unwrap()
    };
    assert_eq!(after["windows"].as_array().unwrap().len(), 2, "{after}");
    assert_eq!(day(&after)["open"], day(&after)["selected"], "{after}");
    assert!(day(&after)["open"].as_u64() >= day(&before)["open"].as_u64(), "{before} {after}");
    until("the new window closes", || {
        let status = agent.status().unwrap();
        status["windows"]
            .as_array()
            .unwrap()
            .iter()
            .any(|window| window["name"] == "other" && window["finished"].as_u64() > Some(0))
    });
    assert_eq!(agent.id(), id);

    // SIGHUP takes a configuration as well, and says so.
    append(&agent, "[windows.third]\nselect = \"#\"\nevery = \"1s\"\n");
    kill_process(pid, Signal::HUP).unwrap();
    until("the third window is there", || agent.status().unwrap()["windows"].as_array().unwrap().len() == 3);
    assert!(agent.log().unwrap().contains("reload: streams, windows and rules are as configured now"));
    assert_eq!(agent.status().unwrap()["ledger"]["closes"], true);
    assert_eq!(agent.stop().unwrap(), Some(0), "{}", agent.log().unwrap());
}

#[test]
fn a_reload_changes_where_a_stream_is_published() {
    let folder = tempfile::tempdir().unwrap();
    let Some(broker) = Mosquitto::start(&folder.path().join("broker"), "").unwrap() else { return };
    let [before, after] = ["before", "after"].map(|name| folder.path().join(name));
    let Some(_before) = broker.subscribe("before/raw", "before", &before).unwrap() else { return };
    let Some(_after) = broker.subscribe("after/raw", "after", &after).unwrap() else { return };
    let configuration = |topic: &str| {
        format!(
            "{TWO_SERIES}[uplink]\nbroker = {:?}\n[streams.raw]\nselect = \"#\"\ntopic = \"{topic}/raw\"\n",
            broker.url()
        )
    };
    let mut agent = running(&folder.path().join("agent"), &configuration("before"));
    let has_some = |file: &Path| fs::metadata(file).unwrap().len() > 0;
    until("it publishes", || has_some(&before));
    assert!(!has_some(&after));
    let text = fs::read_to_string(agent.configuration()).unwrap();
    fs::write(agent.configuration(), text.replace("before/raw", "after/raw")).unwrap();
    assert!(ask(&agent, &["reload"]).status.success());
    until("it publishes elsewhere", || has_some(&after));
    assert_eq!(agent.stop().unwrap(), Some(0), "{}", agent.log().unwrap());
}

#[test]
fn a_reload_does_not_wait_for_a_broker_that_hangs() {
    /// The answer could come late on a loaded machine; that it always does is the defect.
    const TRIES: usize = 10;
    let folder = tempfile::tempdir().unwrap();
    let Some(broker) = Mosquitto::start(&folder.path().join("broker"), "").unwrap() else { return };
    let messages = folder.path().join("messages");
    let Some(_subscriber) = broker.subscribe("rtlive/#", "judge", &messages).unwrap() else { return };
    let uplink = format!("{TWO_SERIES}[uplink]\nbroker = {:?}\n", broker.url());
    let mut agent = running(&folder.path().join("agent"), &uplink);
    let text = fs::read_to_string(agent.configuration()).unwrap();
    let farewells = || agent.log().unwrap().matches("disconnected from").count();
    let goes_on = (0..TRIES).any(|number| {
        let link = || agent.status().unwrap_or_default()["uplink"].clone();
        until("the link stands", || link()["state"] == "online");
        broker.hang();
        until("messages wait for the broker", || link()["in_flight"].as_u64() > Some(0));
        let before = farewells();
        fs::write(agent.configuration(), format!("{text}keep_alive = \"{}s\"\n", 30 + number)).unwrap();
        let output = ask(&agent, &["reload"]);
        assert!(output.status.success(), "{output:?}");
        let goes_on = farewells() == before;
        until("the uplink before has ended", || farewells() > before);
        broker.wake();
        goes_on
    });
    assert!(goes_on, "every reload waited for the uplink to end");
    assert_eq!(agent.stop().unwrap(), Some(0), "{}", agent.log().unwrap());
}

#[test]
fn a_port_in_use_is_named_with_its_holder_by_try() {
    let folder = tempfile::tempdir().unwrap();
    let (port, far) = (folder.path().join("port"), folder.path().join("far"));
    let Some(_cable) = Cable::lay(&port, &far).unwrap() else { return };
    let configuration = format!("[inputs.gps]\ndriver = \"nmea\"\nport = {port:?}\n");
    let mut agent = Agent::new(&folder.path().join("agent"), &configuration).unwrap();
    agent.start().unwrap();
    until("the agent has the port", || agent.status().is_some_and(|status| status["inputs"][0]["state"] == "running"));
    let output = ask(&agent, &["try", "gps", "--for", "5s"]);
    let error = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{error}");
    let holder = format!("process {}", agent.id().unwrap());
    for part in [port.to_str().unwrap(), &holder, "rtlive tail"] {
        assert!(error.contains(part), "{part}: {error}");
    }
    assert_eq!(agent.stop().unwrap(), Some(0), "{}", agent.log().unwrap());
}

#[test]
fn a_second_agent_on_the_same_state_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let mut agent = running(folder.path(), TWO_SERIES);
    let output = ask(&agent, &["run"]);
    let error = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{error}");
    assert!(error.contains(&format!("process id {}", agent.id().unwrap())) && error.contains("state_dir"), "{error}");
    let before = taken(&agent);
    until("the first goes on", || taken(&agent) > before);
    assert_eq!(agent.stop().unwrap(), Some(0), "{}", agent.log().unwrap());
}

#[test]
fn decode_prints_each_message_as_it_comes() {
    let mut decode = Beside::start(&["decode", "-"], Stdio::piped());
    let mut input = decode.0.stdin.take().unwrap();
    let mut lines = decode.lines();
    for number in 1..4 {
        // Whole messages, and one in two parts: nothing is waited for but the rest of a frame.
        let frame = frame(number);
        for message in split(&frame, false, frame.len()) {
            input.write_all(&message).unwrap();
        }
        let record: Value = serde_json::from_str(&lines.next().unwrap()).unwrap();
        assert_eq!((&record["seq"], &record["value"]), (&number.into(), &(number * 10).into()), "{record}");
        input.write_all(format!("{{\"note\":{number}}}").as_bytes()).unwrap();
        assert_eq!(lines.next().unwrap(), format!("{{\"note\":{number}}}"));
    }
    drop(input);
    assert!(lines.next().is_none());
    assert_eq!(decode.0.wait().unwrap().code(), Some(0));
}

#[test]
fn a_message_that_is_cut_or_altered_at_any_byte_is_named_and_hides_no_other() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("messages");
    let [before, middle, after] = [1, 2, 3].map(|number| split(&frame(number), false, usize::MAX).next().unwrap());
    let check = |damaged: &[u8], what: &str| {
        File::create(&file).unwrap().write_all(&[&before, damaged, &after].concat()).unwrap();
        let output = run(&["decode", file.to_str().unwrap()]).unwrap();
        let lines = text(&output.stdout);
        let numbers: Vec<u64> =
            lines.lines().filter_map(|line| serde_json::from_str::<Value>(line).unwrap()["seq"].as_u64()).collect();
        assert_eq!(numbers, [1, 3], "{what}: {lines}{}", text(&output.stderr));
        assert_eq!(output.status.code(), Some(1), "{what}");
        assert!(text(&output.stderr).contains("expected"), "{what}: {}", text(&output.stderr));
    };
    for at in 0..middle.len() {
        let mut altered = middle.clone();
        altered[at] ^= 0x20;
        check(&altered, &format!("byte {at} altered"));
        if at > 0 {
            check(&middle[..at], &format!("cut at byte {at}"));
        }
    }
}

/// A frame of one reading.
fn frame(number: u64) -> Vec<u8> {
    let origin = Origin { agent: "a".into(), epoch: Epoch(1), stream: "raw".into(), class: "process".into() };
    let series = [SeriesInfo { name: "x/y".into(), unit: None }];
    let reading = Reading {
        series: SeriesId(0),
        time: Timestamp::EPOCH,
        value: ReadingValue::Int(number as i64 * 10),
        quality: Quality::Good,
        check: None,
        clock: ClockState::Synced,
    };
    seal(&origin, number, &[Record::Reading(reading)], &series, &[], Density::default()).unwrap()
}
