//! TLS against a real mosquitto: what is right connects; what is wrong is named, keeps everything, and connects once it is mended.

use std::cell::RefCell;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rtlive::clock::SystemClock;
use rtlive_core::time::Timestamp;
use rtlive_drivers::outlet::Clock;
use rtlive_drivers::tls::{TlsFiles, client_config, hint};
use rtlive_tests::authority::Authority;
use rtlive_tests::broker::Mosquitto;
use rtlive_tests::peer::{Peer, free_port, installed, until};
use rtlive_tests::program::{Agent, decode, run};
use serde_json::Value;

/// A broker with a plain listener for the test, and one with TLS for the agent.
struct Site {
    folder: tempfile::TempDir,
    authority: Authority,
    broker: Mosquitto,
    tls_port: u16,
    messages: PathBuf,
    _subscriber: Peer,
}

impl Site {
    /// `None` where a peer is not installed. The broker's certificate is the authority's `server`, which `issue` makes.
    fn build(issue: impl FnOnce(&Authority), lines: &str) -> Option<Self> {
        let folder = tempfile::tempdir().unwrap();
        let authority = Authority::found(&folder.path().join("authority")).unwrap()?;
        issue(&authority);
        authority.issue("client", "DNS:gateway").unwrap();
        let tls_port = free_port().unwrap();
        let tls = format!(
            "listener {tls_port} 127.0.0.1\ncafile {}\ncertfile {}\nkeyfile {}\n{lines}",
            authority.certificate().display(),
            authority.file("server.pem").display(),
            authority.file("server.key").display(),
        );
        let broker = Mosquitto::start(&folder.path().join("broker"), &tls).unwrap()?;
        let messages = folder.path().join("messages");
        let subscriber = broker.subscribe("rtlive/#", "judge", &messages).unwrap()?;
        Some(Self { folder, authority, broker, tls_port, messages, _subscriber: subscriber })
    }

    /// An agent that counts, with this table of the uplink's TLS.
    fn agent(&self, tls: &str) -> Agent {
        let mut agent = Agent::new(&self.folder.path().join("agent"), &self.configuration(tls)).unwrap();
        agent.start().unwrap();
        agent
    }

    fn configuration(&self, tls: &str) -> String {
        let port = self.tls_port;
        format!(
            r#"
            [inputs.n]
            driver = "simulated"
            waveform = "counter"
            every = "100ms"
            [uplink]
            broker = "mqtts://localhost:{port}"
            [uplink.tls]
            {tls}
            "#
        )
    }

    fn trusts(&self) -> String {
        format!("ca = {:?}\n", self.authority.certificate())
    }

    fn shows(&self) -> String {
        format!("cert = {:?}\nkey = {:?}\n", self.authority.file("client.pem"), self.authority.file("client.key"))
    }

    /// Waits until what was read before the connection is at the centre, and checks that no count is missing and none came in vain.
    fn arrives_without_a_hole(&self, mut agent: Agent) {
        let stored = agent.status().unwrap()["inputs"][0]["accepted"].as_u64().unwrap();
        until("what was stored has arrived", || numbers(&self.messages).len() as u64 > stored);
        assert_eq!(agent.status().unwrap()["ledger"]["closes"], true);
        assert_eq!(agent.stop().unwrap(), Some(0), "{}", agent.log().unwrap());
        let numbers = numbers(&self.messages);
        let holes: Vec<_> = numbers.windows(2).filter(|pair| pair[1] != pair[0] + 1).collect();
        assert!(holes.is_empty(), "{holes:?}");
    }
}

/// The counts that are at the centre, in order, each once.
fn numbers(messages: &Path) -> Vec<u64> {
    let records = decode(messages).unwrap_or_default();
    let mut numbers: Vec<u64> = records
        .iter()
        .filter(|record| record["stream"] == "raw")
        .filter_map(|record| record["value"].as_u64())
        .collect();
    numbers.sort_unstable();
    numbers.dedup();
    numbers
}

fn link(agent: &Agent) -> Value {
    agent.status().unwrap_or_default()["uplink"].clone()
}

/// Waits for an error that has all of these words, in the status and in the log.
fn says(agent: &Agent, words: &[&str]) {
    let has_all = |text: &str| words.iter().all(|word| text.contains(word));
    until(&format!("the link says {words:?}"), || {
        let link = link(agent);
        link["state"] == "waiting" && has_all(tell_news(&link["error"]))
    });
    let log = agent.log().unwrap();
    assert!(log.lines().any(|line| has_all(line) && line.contains("next attempt in")), "{words:?}: {log}");
}

/// The text of an error, for the one who looks for what went wrong as well.
fn tell_news(error: &Value) -> &str {
    thread_local!(static LAST: RefCell<String> = RefCell::default());
    let text = error.as_str().unwrap_or_default();
    if LAST.replace(text.to_owned()) != text {
        eprintln!("{text}");
    }
    text
}

fn online(agent: &Agent) {
    until("the link stands", || link(agent)["state"] == "online");
}

#[test]
fn frames_arrive_over_tls_with_a_client_certificate() {
    let lines = "require_certificate true\n";
    let Some(site) = Site::build(|ca| ca.issue("server", "DNS:localhost").unwrap(), lines) else { return };
    let agent = site.agent(&(site.trusts() + &site.shows()));
    online(&agent);
    assert_eq!(link(&agent)["protocol"], "5");
    site.arrives_without_a_hole(agent);
}

#[test]
fn a_broker_that_wants_a_client_certificate_gets_one_after_a_reload() {
    let lines = "require_certificate true\n";
    let Some(site) = Site::build(|ca| ca.issue("server", "DNS:localhost").unwrap(), lines) else { return };
    let agent = site.agent(&site.trusts());
    says(&agent, &["localhost", "certificate", "set `cert` and `key`"]);
    rewrite(&site, &agent, &(site.trusts() + &site.shows()));
    online(&agent);
    site.arrives_without_a_hole(agent);
}

#[test]
fn an_authority_that_is_not_trusted_is_named_and_can_be() {
    let Some(site) = Site::build(|ca| ca.issue("server", "DNS:localhost").unwrap(), "") else { return };
    let other = Authority::found(&site.folder.path().join("other")).unwrap().unwrap();
    let agent = site.agent(&format!("ca = {:?}", other.certificate()));
    says(&agent, &["localhost", "UnknownIssuer", "name its CA with `ca`"]);
    rewrite(&site, &agent, &site.trusts());
    online(&agent);
    site.arrives_without_a_hole(agent);
}

#[test]
fn a_certificate_for_another_name_is_refused_until_the_broker_has_the_right_one() {
    let Some(mut site) = Site::build(|ca| ca.issue("server", "DNS:elsewhere.example").unwrap(), "") else { return };
    let agent = site.agent(&site.trusts());
    says(&agent, &["localhost", "elsewhere.example", "for another name"]);
    site.authority.issue("server", "DNS:localhost").unwrap();
    site.broker.restart().unwrap();
    online(&agent);
    site.arrives_without_a_hole(agent);
}

#[test]
fn a_certificate_that_has_expired_is_refused_until_it_is_renewed() {
    let Some(mut site) = Site::build(|ca| ca.issue_expired("server", "DNS:localhost").unwrap(), "") else { return };
    let agent = site.agent(&site.trusts());
    says(&agent, &["localhost", "expired"]);
    site.authority.issue("server", "DNS:localhost").unwrap();
    site.broker.restart().unwrap();
    online(&agent);
    site.arrives_without_a_hole(agent);
}

/// A clock that shows what it is told, and may not be trusted.
struct Device {
    now: Timestamp,
    is_trusted: bool,
}

impl Clock for Device {
    fn now(&self) -> Timestamp {
        self.now
    }

    fn at_least(&self) -> Option<Timestamp> {
        (!self.is_trusted).then_some(self.now)
    }
}

/// Connects to a broker over TLS as the uplink does, on a device with this clock: what came of it, in words.
fn connects(authority: &Authority, port: u16, now: Timestamp, is_trusted: bool) -> Result<(), String> {
    let files = TlsFiles { ca: Some(authority.certificate()), identity: None };
    let config = client_config(&files, Arc::new(Device { now, is_trusted })).unwrap();
    let mut options = rumqttc::MqttOptions::new("device", "localhost", port);
    options.set_transport(rumqttc::Transport::tls_with_config(rumqttc::TlsConfiguration::Rustls(config)));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let (_client, mut events) = rumqttc::AsyncClient::new(options, 1);
    match runtime.block_on(events.poll()) {
        Ok(rumqttc::Event::Incoming(rumqttc::Packet::ConnAck(_))) => Ok(()),
        Ok(other) => Err(format!("{other:?}")),
        Err(error) => Err(hint(&error).map_or_else(|| error.to_string(), str::to_owned)),
    }
}

#[test]
fn a_device_that_lay_in_a_store_room_connects_to_a_broker_whose_certificate_was_renewed() {
    let today = SystemClock.now();
    let day = |days: u64| today.saturating_add(Duration::from_secs(days * 86_400));
    // As openssl takes it.
    let digits =
        |time: Timestamp| time.to_string().chars().filter(char::is_ascii_digit).take(14).collect::<String>() + "Z";
    // It was last used today; four months later the broker has a certificate for three.
    let renewed = [digits(day(120)), digits(day(210))];
    let issue = |ca: &Authority| ca.issue_for("server", "DNS:localhost", [&renewed[0], &renewed[1]]).unwrap();
    let Some(site) = Site::build(issue, "") else { return };
    let device = |now: Timestamp, is_trusted: bool| connects(&site.authority, site.tls_port, now, is_trusted);
    assert_eq!(device(today, false), Ok(()));
    assert!(device(today, true).unwrap_err().contains("not valid yet"));
    // Once the clock is known it counts, whatever the certificate says of itself.
    assert_eq!(device(day(130), true), Ok(()));
    assert!(device(day(211), true).unwrap_err().contains("expired"));
    // It cannot be earlier than the device was last used, or built: what had ended by then has ended.
    assert!(device(day(211), false).unwrap_err().contains("expired"));
    // Names and signatures are verified as ever.
    let other = Authority::found(&site.folder.path().join("other")).unwrap().unwrap();
    assert!(connects(&other, site.tls_port, today, false).unwrap_err().contains("signed by nobody"));
}

#[test]
fn an_input_reads_over_tls_and_names_what_it_does_not_trust() {
    let Some(publisher) = installed("mosquitto_pub") else { return };
    let lines = "require_certificate true\n";
    let Some(site) = Site::build(|ca| ca.issue("server", "DNS:localhost").unwrap(), lines) else { return };
    let other = Authority::found(&site.folder.path().join("other")).unwrap().unwrap();
    let input = |name: &str, tls: &str| {
        format!(
            "[inputs.{name}]\ndriver = \"mqtt\"\nbroker = \"mqtts://localhost:{}\"\n[[inputs.{name}.topics]]\nfilter = \"x/+\"\nformat = \"json\"\nvalue = \"/v\"\n[inputs.{name}.tls]\n{tls}\n",
            site.tls_port
        )
    };
    let strange = format!("ca = {:?}\n", other.certificate()) + &site.shows();
    let configuration = input("right", &(site.trusts() + &site.shows()))
        + &input("strange", &strange)
        + &input("nameless", &site.trusts());
    let mut agent = Agent::new(&site.folder.path().join("agent"), &configuration).unwrap();
    agent.start().unwrap();
    let named = |name: &str| -> Value {
        let status = agent.status().unwrap_or_default();
        status["inputs"]
            .as_array()
            .into_iter()
            .flatten()
            .find(|input| input["name"] == name)
            .cloned()
            .unwrap_or_default()
    };
    until("the right one runs", || named("right")["state"] == "running");
    let says = |name: &str, words: &[&str]| {
        until(&format!("{name} says {words:?}"), || {
            let input = named(name);
            let error = tell_news(&input["error"]);
            words.iter().all(|word| error.contains(word))
        });
    };
    says("strange", &["localhost", "UnknownIssuer", "name its CA with `ca`"]);
    says("nameless", &["localhost", "certificate", "set `cert` and `key`"]);
    let port = site.broker.port.to_string();
    let sent = std::process::Command::new(publisher)
        .args(["-h", "127.0.0.1", "-p", &port, "-q", "1", "-t", "x/a", "-m", "{\"v\":7}"])
        .status();
    assert!(sent.unwrap().success());
    until("the reading is taken", || named("right")["accepted"] == 1);
    assert_eq!(agent.stop().unwrap(), Some(0), "{}", agent.log().unwrap());
}

/// Writes another table of the uplink's TLS, and reloads.
fn rewrite(site: &Site, agent: &Agent, tls: &str) {
    let file = agent.configuration();
    let text = fs::read_to_string(&file).unwrap();
    let head = text.split("[uplink]").next().unwrap();
    let uplink = site.configuration(tls);
    let uplink = uplink.split("[uplink]").nth(1).unwrap();
    fs::write(&file, format!("{head}[uplink]{uplink}")).unwrap();
    let output = run(&["-c", file.to_str().unwrap(), "reload"]).unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}
