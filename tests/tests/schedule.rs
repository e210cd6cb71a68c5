//! An uplink with a schedule and a real broker: when it connects, what it says when it hangs up, and that nothing is lost between.

use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use rtlive_core::time::Timestamp;
use rtlive_tests::broker::Mosquitto;
use rtlive_tests::peer::{Peer, installed, until};
use rtlive_tests::program::{Agent, Receiver, decode};
use serde_json::Value;

/// A broker, a subscriber for what is sent and one for the status, and an agent that counts and has a rule.
struct Site {
    folder: tempfile::TempDir,
    agent: Agent,
    _subscribers: [Peer; 2],
    broker: Mosquitto,
}

impl Site {
    /// With these lines of the uplink; the agent is not started yet. `None` where a peer is not installed.
    fn with(uplink: &str) -> Option<Self> {
        let folder = tempfile::tempdir().unwrap();
        let broker = Mosquitto::start(&folder.path().join("broker"), "").unwrap()?;
        let messages = broker.subscribe("rtlive/#", "judge", &folder.path().join("messages")).unwrap()?;
        let mut statuses = Command::new(installed("mosquitto_sub")?);
        statuses.args(["-h", "127.0.0.1", "-p", &broker.port.to_string(), "-q", "1", "-t", "rtlive/test/status"]);
        statuses.stdout(File::create(folder.path().join("statuses")).unwrap());
        let statuses = Peer::start(&mut statuses).unwrap();
        let log = folder.path().join("app.log");
        File::create(&log).unwrap();
        let configuration = format!(
            r#"
            [inputs.n]
            driver = "simulated"
            waveform = "counter"
            every = "100ms"
            [inputs.app]
            driver = "file"
            path = {log:?}
            format = "json"
            fields = [{{ series = "v", pointer = "/v", type = "f64" }}]
            [rules.high]
            let = {{ v = "app/v" }}
            when = "v > 1"
            [streams.raw]
            select = "n/#"
            [uplink]
            broker = {:?}
            {uplink}
            "#,
            broker.url()
        );
        let agent = Agent::new(&folder.path().join("agent"), &configuration).unwrap();
        Some(Self { folder, agent, _subscribers: [messages, statuses], broker })
    }

    fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// What the retained status said, one after the other.
    fn statuses(&self) -> Vec<Value> {
        let lines = fs::read_to_string(self.file("statuses")).unwrap();
        lines.lines().map_while(|line| serde_json::from_str(line).ok()).collect()
    }

    fn states(&self) -> Vec<String> {
        let state = |status: &Value| status["state"].as_str().map(str::to_owned);
        self.statuses().iter().filter_map(state).collect()
    }

    fn records(&self, stream: &str) -> Vec<Value> {
        let records = decode(&self.file("messages")).unwrap();
        records.into_iter().filter(|record| record["stream"] == stream).collect()
    }

    /// What the status says of the stream `raw`, such as `stored`.
    fn raw(&self, figure: &str) -> u64 {
        let status = self.agent.status().unwrap_or_default();
        let raw = status["streams"].as_array().into_iter().flatten().find(|stream| stream["name"] == "raw");
        raw.and_then(|raw| raw[figure].as_u64()).unwrap_or_default()
    }

    fn appends(&self, line: &str) {
        append(&self.file("app.log"), line);
    }

    /// Stops it asleep, and checks that every number up to the last that came is there.
    fn ends(mut self) {
        assert_eq!(self.agent.stop().unwrap(), Some(0), "{}", self.agent.log().unwrap());
        let numbers: BTreeSet<u64> = self.records("raw").iter().filter_map(|record| record["seq"].as_u64()).collect();
        assert_eq!((numbers.first(), numbers.last()), (Some(&1), Some(&(numbers.len() as u64))), "{numbers:?}");
    }
}

fn append(file: &Path, line: &str) {
    writeln!(OpenOptions::new().append(true).open(file).unwrap(), "{line}").unwrap();
}

#[test]
fn an_agent_sleeps_until_an_alert_comes_and_says_so() {
    let Some(mut site) = Site::with(r#"schedule = { every = "7d" }"#) else { return };
    site.agent.start().unwrap();
    until("it says that it sleeps", || site.states() == ["online", "sleeping"]);
    until("the link sleeps", || site.agent.status().unwrap_or_default()["uplink"]["state"] == "sleeping");
    let status = &site.statuses()[1];
    let time = |key: &str| -> Timestamp { status[key].as_str().unwrap().parse().unwrap() };
    assert!(time("until") > time("since"), "{status}");
    until("something waits", || site.raw("stored") > 30);
    assert_eq!(site.states(), ["online", "sleeping"]);
    site.appends(r#"{"v":2}"#);
    until("the alert is at the centre", || site.records("alerts").iter().any(|alert| alert["state"] == "raised"));
    until("it sleeps again", || site.states() == ["online", "sleeping", "online", "sleeping"]);
    assert!(site.records("raw").len() > 30, "what waited went as well");
    assert_eq!(site.statuses()[3]["until"], site.statuses()[1]["until"]);
    site.ends();
}

#[test]
fn an_agent_connects_at_its_times() {
    let Some(mut site) = Site::with(r#"schedule = { every = "10s", alerts = "wait" }"#) else { return };
    site.agent.start().unwrap();
    until("it has slept three times", || site.states().iter().filter(|state| *state == "sleeping").count() >= 3);
    let slept: Vec<Value> = site.statuses().into_iter().filter(|status| status["state"] == "sleeping").collect();
    let untils: Vec<i64> =
        slept.iter().map(|status| status["until"].as_str().unwrap().parse::<Timestamp>().unwrap().as_nanos()).collect();
    // A busy machine may miss one.
    assert!(untils.windows(2).all(|pair| pair[1] > pair[0] && (pair[1] - pair[0]) % 10_000_000_000 == 0), "{untils:?}");
    assert!(site.states().iter().all(|state| state != "offline"), "{:?}", site.states());
    site.ends();
}

#[test]
fn receipts_are_waited_for_before_it_sleeps() {
    let Some(mut site) = Site::with("schedule = { every = \"7d\" }\ndelivery = \"receiver\"") else { return };
    let source = format!("kind = \"mqtt\"\nbroker = {:?}\ntopics = \"rtlive/#\"\nreceipts = true", site.broker.url());
    let lines = format!("[sources.centre]\n{source}\n[outputs.lines]\nkind = \"json\"\n");
    let mut receiver = Receiver::new(&site.file("receiver"), &lines).unwrap();
    receiver.start().unwrap();
    until("the receiver is there", || receiver.log().is_ok_and(|log| log.contains("connected to")));
    site.agent.start().unwrap();
    until("it says that it sleeps", || site.states() == ["online", "sleeping"]);
    until("receipts have come", || site.raw("acknowledged") > 0);
    site.ends();
}
