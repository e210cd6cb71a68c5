//! The driver beside a real broker: mosquitto, as a child process of the test.

use std::collections::BTreeSet;
use std::io::Write;
use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rtlive_core::reading::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::watch;

use super::DRIVER;
use crate::rig::{Rig, checked};

/// A broker that ends with the test.
struct Mosquitto {
    child: Child,
    port: u16,
    folder: tempfile::TempDir,
}

impl Drop for Mosquitto {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

fn installed() -> bool {
    let found = Command::new("mosquitto").arg("-h").stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok()
        && Command::new("mosquitto_pub").arg("--help").stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok();
    if !found {
        println!("SKIPPED: mosquitto and mosquitto-clients are not installed");
    }
    found
}

impl Mosquitto {
    async fn start(lines: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        Self::start_in(folder, free_port(), lines).await
    }

    async fn start_in(folder: tempfile::TempDir, port: u16, lines: &str) -> Self {
        let file = folder.path().join("mosquitto.conf");
        let lines = lines.replace("FOLDER", folder.path().to_str().unwrap());
        std::fs::write(&file, format!("listener {port} 127.0.0.1\nmax_queued_messages 0\nuser root\n{lines}\n"))
            .unwrap();
        let child =
            Command::new("mosquitto").arg("-c").arg(&file).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let broker = Self { child, port, folder };
        while tokio::net::TcpStream::connect(("127.0.0.1", port)).await.is_err() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        broker
    }

    /// Publishes each line as a message at QoS 1; returns when the broker has them.
    fn publish(&self, topic: &str, lines: impl IntoIterator<Item = String>) {
        self.publish_with(topic, &[], lines);
    }

    fn publish_with(&self, topic: &str, arguments: &[&str], lines: impl IntoIterator<Item = String>) {
        let mut child = Command::new("mosquitto_pub")
            .args(["-h", "127.0.0.1", "-p", &self.port.to_string(), "-q", "1", "-t", topic, "-l"])
            .args(arguments)
            .stdin(Stdio::piped())
            .spawn()
            .unwrap();
        let mut input = child.stdin.take().unwrap();
        for line in lines {
            writeln!(input, "{line}").unwrap();
        }
        drop(input);
        assert!(child.wait().unwrap().success());
    }
}

/// Passes bytes between a client and the broker until it is told to cut all connections.
struct Relay {
    port: u16,
    cut: watch::Sender<u64>,
}

impl Relay {
    async fn start(to: u16) -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (cut, cuts) = watch::channel(0);
        tokio::spawn(async move {
            while let Ok((mut client, _)) = listener.accept().await {
                let mut cuts = cuts.clone();
                cuts.mark_unchanged();
                tokio::spawn(async move {
                    let Ok(mut broker) = tokio::net::TcpStream::connect(("127.0.0.1", to)).await else { return };
                    tokio::select! {
                        _ = tokio::io::copy_bidirectional(&mut client, &mut broker) => {}
                        _ = cuts.changed() => {}
                    }
                });
            }
        });
        Self { port, cut }
    }

    fn cut(&self) {
        self.cut.send_modify(|cuts| *cuts += 1);
    }
}

fn options(port: u16) -> String {
    format!(
        r#"
        broker = "mqtt://127.0.0.1:{port}"
        [[topics]]
        filter = "numbers/+"
        series = "{{1}}"
        value = "/n"
        "#
    )
}

fn numbers(range: std::ops::Range<i64>) -> impl Iterator<Item = String> {
    range.map(|n| format!(r#"{{"n":{n}}}"#))
}

fn taken(rig: &Rig) -> Vec<i64> {
    let number = |value: &Value| if let Value::Int(number) = value { *number } else { panic!("{value:?}") };
    rig.readings.iter().map(|reading| number(&reading.value)).collect()
}

#[tokio::test]
async fn acknowledges_only_what_is_committed() {
    if !installed() {
        return;
    }
    let broker = Mosquitto::start("allow_anonymous true").await;
    let mut rig = Rig::new(&DRIVER, &options(broker.port));
    rig.start();
    rig.health_until(|health| health.state == "running").await;
    broker.publish("numbers/a", numbers(0..20));
    // The window of the broker is 20: half of it asks for a commit.
    while rig.uncommitted() < 20 {
        rig.take().await;
    }
    assert!(rig.urgent > 0);
    rig.crash().await;
    rig.start();
    rig.commit_until(|rig| rig.readings.len() == 20).await;
    assert_eq!(taken(&rig), (0..20).collect::<Vec<_>>());
    broker.publish("numbers/a", numbers(20..21));
    rig.commit_until(|rig| rig.readings.len() == 21).await;
    assert_eq!(taken(&rig), (0..21).collect::<Vec<_>>());
    assert!(rig.rejected.is_empty() && rig.outages.is_empty());
}

#[tokio::test]
async fn what_was_committed_but_not_acknowledged_is_known_again() {
    if !installed() {
        return;
    }
    let broker = Mosquitto::start("allow_anonymous true").await;
    let relay = Relay::start(broker.port).await;
    let mut rig = Rig::new(&DRIVER, &options(relay.port));
    rig.start();
    rig.health_until(|health| health.state == "running").await;
    broker.publish("numbers/a", numbers(0..5));
    while rig.uncommitted() < 5 {
        rig.take().await;
    }
    // The commit is made, but the process dies before it can tell.
    rig.crash_after_commit().await;
    assert_eq!(rig.readings.len(), 5);
    rig.start();
    rig.health_until(|health| health.counters.get("redelivered") == Some(&5)).await;
    broker.publish("numbers/a", numbers(5..6));
    rig.commit_until(|rig| rig.readings.len() == 6).await;
    assert_eq!(taken(&rig), (0..6).collect::<Vec<_>>());
    rig.stop().await;
    // All was acknowledged at last: nothing comes a third time.
    rig.start();
    broker.publish("numbers/a", numbers(6..7));
    rig.commit_until(|rig| rig.readings.len() == 7).await;
    assert_eq!(taken(&rig), (0..7).collect::<Vec<_>>());
    assert_eq!(rig.counter("redelivered"), 0);
}

#[tokio::test]
async fn each_of_a_thousand_messages_is_taken_once() {
    if !installed() {
        return;
    }
    let broker = Mosquitto::start("allow_anonymous true").await;
    let relay = Relay::start(broker.port).await;
    let mut rig = Rig::new(&DRIVER, &options(relay.port));
    rig.start();
    rig.health_until(|health| health.state == "running").await;
    let mut steps = 0;
    for start in (0..1000).step_by(100) {
        broker.publish("numbers/a", numbers(start..start + 100));
        let until = usize::try_from(start + 100).unwrap();
        while rig.readings.len() < until {
            // Commits come late, but they come: the broker holds back once its window is full.
            if !rig.take_within(Duration::from_millis(20)).await || steps % 3 == 0 {
                rig.commit();
            }
            steps += 1;
            if steps % 31 == 0 {
                relay.cut();
            }
            if steps % 43 == 0 {
                rig.crash().await;
                rig.start();
            }
        }
    }
    let numbers = taken(&rig);
    assert_eq!(numbers.iter().collect::<BTreeSet<_>>().len(), 1000);
    assert_eq!(numbers.len(), 1000);
    rig.stop().await;
}

#[tokio::test]
async fn what_is_no_reading_is_counted_and_hides_nothing() {
    if !installed() {
        return;
    }
    let broker = Mosquitto::start("allow_anonymous true").await;
    broker.publish_with("numbers/kept", &["-r"], ["{\"n\":1}".to_owned()]);
    let text = format!(
        r#"
        {}
        [[topics]]
        filter = "+/both"
        series = "other/{{0}}"
        values = {{ x = "/n", y = "/m" }}
        time = "/t"
        time_unit = "s"
        "#,
        options(broker.port)
    );
    let mut rig = Rig::new(&DRIVER, &format!("max_series = 4\n{text}"));
    rig.start();
    rig.health_until(|health| health.counters.get("retained_ignored") == Some(&1)).await;
    let lines = [r#"{"n":1}"#, "no json", r#"{"m":1}"#, r#"{"n":[1]}"#, r#"{"n":null}"#, r#"{"n":2}"#];
    broker.publish("numbers/a", lines.map(str::to_owned));
    broker.publish("numbers/both", [r#"{"n":3,"m":4,"t":1.5}"#.to_owned(), r#"{"n":3,"m":4,"t":"x"}"#.to_owned()]);
    broker.publish("numbers/more", [r#"{"n":5}"#.to_owned()]);
    broker.publish("numbers/a", [r#"{"n":6}"#.to_owned()]);
    rig.commit_until(|rig| rig.readings.last().is_some_and(|reading| reading.value == Value::Int(6))).await;
    let rejected: Vec<_> = rig.rejected.iter().map(|(reason, count)| (reason.as_str(), *count)).collect();
    assert_eq!(rejected, [("bad_time", 1), ("max_series", 1), ("no_pointer", 1), ("not_json", 1), ("wrong_type", 2)]);
    let names: BTreeSet<_> = rig.readings.iter().map(|reading| reading.series.as_str()).collect();
    assert_eq!(names.into_iter().collect::<Vec<_>>(), ["in/a", "in/both", "in/other/numbers/x", "in/other/numbers/y"]);
    let timed = rig.readings.iter().find(|reading| reading.series == "in/other/numbers/y").unwrap();
    assert_eq!((timed.time.as_nanos(), &timed.value), (1_500_000_000, &Value::Int(4)));
    rig.stop().await;
}

#[tokio::test]
async fn a_broker_that_forgot_the_session_is_an_outage() {
    if !installed() {
        return;
    }
    let mut broker = Mosquitto::start("allow_anonymous true").await;
    let mut rig = Rig::new(&DRIVER, &options(broker.port));
    rig.start();
    rig.health_until(|health| health.state == "running").await;
    broker.publish("numbers/a", numbers(0..1));
    rig.commit_until(|rig| rig.readings.len() == 1).await;
    let _ = broker.child.kill();
    let _ = broker.child.wait();
    rig.health_until(|health| health.state == "waiting").await;
    let folder = std::mem::replace(&mut broker.folder, tempfile::tempdir().unwrap());
    let broker = Mosquitto::start_in(folder, broker.port, "allow_anonymous true").await;
    rig.health_until(|health| health.state == "running").await;
    broker.publish("numbers/a", numbers(1..2));
    rig.commit_until(|rig| rig.readings.len() == 2).await;
    assert_eq!(rig.outages, ["session_lost"]);
    rig.stop().await;
}

#[tokio::test]
async fn a_message_that_is_too_long_waits_until_the_limit_is_raised() {
    if !installed() {
        return;
    }
    let broker = Mosquitto::start("allow_anonymous true").await;
    let limited = format!("max_packet = \"1 KiB\"\n{}", options(broker.port));
    let mut rig = Rig::new(&DRIVER, &limited);
    rig.start();
    rig.health_until(|health| health.state == "running").await;
    broker.publish("numbers/a", [format!(r#"{{"n":1,"text":"{}"}}"#, "x".repeat(20_000)), r#"{"n":2}"#.to_owned()]);
    let health = rig.health_until(|health| health.error.is_some()).await;
    assert!(health.error.as_ref().is_some_and(|error| error.contains("max_packet")), "{health:?}");
    rig.stop().await;
    let mut raised = Rig::new(&DRIVER, &options(broker.port));
    raised.start();
    raised.commit_until(|rig| rig.readings.len() == 2).await;
    assert_eq!(taken(&raised), [1, 2]);
    raised.stop().await;
}

/// The error that the input shows when it cannot be connected.
async fn refusal(options: &str) -> String {
    let mut rig = Rig::new(&DRIVER, options);
    rig.start();
    let health = rig.health_until(|health| health.state == "waiting").await;
    rig.stop().await;
    health.error.unwrap()
}

#[tokio::test]
async fn refusals_say_what_to_do() {
    if !installed() {
        return;
    }
    let port = free_port();
    let nobody = refusal(&options(port)).await;
    assert!(
        nobody.starts_with(&format!("connect to mqtt://127.0.0.1:{port}: "))
            && nobody.contains("is the broker running"),
        "{nobody}"
    );

    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("users"), "").unwrap();
    std::fs::set_permissions(folder.path().join("users"), std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    let users = folder.path().join("users");
    assert!(
        Command::new("mosquitto_passwd").arg("-b").arg(&users).args(["gateway", "secret"]).status().unwrap().success()
    );
    std::fs::write(folder.path().join("right"), "secret\n").unwrap();
    std::fs::write(folder.path().join("wrong"), "guess\n").unwrap();
    let path = folder.path().display().to_string();
    let lines = "allow_anonymous false\npassword_file FOLDER/users";
    let broker = Mosquitto::start_in(folder, free_port(), lines).await;
    let login = |file: &str| {
        format!("username = \"gateway\"\npassword = {{ file = \"{path}/{file}\" }}\n{}", options(broker.port))
    };
    let wrong = refusal(&login("wrong")).await;
    assert!(wrong.contains("the broker refused the login"), "{wrong}");
    let mut rig = Rig::new(&DRIVER, &login("right"));
    rig.start();
    rig.health_until(|health| health.state == "running").await;
    rig.stop().await;
    let absent = refusal(&login("absent")).await;
    assert!(absent.contains("absent"), "{absent}");
}

/// Mosquitto grants every subscription and then sends nothing; so these answers are written by hand (MQTT 3.1.1, 3.2 and 3.9).
#[tokio::test]
async fn a_refused_subscription_is_an_error() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((mut client, _)) = listener.accept().await {
            let mut received = [0; 1024];
            for answer in [&[0x20, 2, 0, 0][..], &[0x90, 3, 0, 1, 0x80]] {
                let _ = client.read(&mut received).await;
                let _ = client.write_all(answer).await;
            }
            let _ = client.read(&mut received).await;
        }
    });
    let denied = refusal(&options(port)).await;
    assert!(denied.starts_with("subscribe to numbers/+ at ") && denied.contains("access list"), "{denied}");
}

/// A broker dies right after it wrote more than the client takes at once, and sends all of it again; mosquitto cannot be told to do so,
/// so its packets are written by hand (MQTT 3.1.1, 3.3).
#[tokio::test]
async fn what_came_just_before_the_connection_broke_is_known_again() {
    let publish = |first: u8, id: u8| {
        let text = format!("\0\u{9}numbers/a\0{}{{\"n\":{id}}}", char::from(id));
        let mut packet = vec![first, u8::try_from(text.len()).unwrap()];
        packet.extend_from_slice(text.as_bytes());
        packet
    };
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        let once = (1..=30).flat_map(|id| publish(0x32, id)).collect();
        let again = (1..=30).flat_map(|id| publish(0x3a, id)).chain(publish(0x32, 31)).collect();
        let mut open = None;
        for (session_present, messages) in [(0, once), (1, again)] {
            let (mut client, _) = listener.accept().await.unwrap();
            let mut received = [0; 1024];
            for answer in [vec![0x20, 2, session_present, 0], [vec![0x90, 3, 0, 1, 1], messages].concat()] {
                let _ = client.read(&mut received).await;
                client.write_all(&answer).await.unwrap();
            }
            // The first is closed with what it has still to give; the second stays.
            open = (session_present == 1).then_some(client);
        }
        std::future::pending::<()>().await;
        drop(open);
    });
    let mut rig = Rig::new(&DRIVER, &options(port));
    rig.start();
    rig.commit_until(|rig| taken(rig).last() == Some(&31)).await;
    assert_eq!(taken(&rig), (1..=31).collect::<Vec<_>>());
    assert!(rig.counter("redelivered") > 0);
    rig.stop().await;
}

/// Makes a CA, and a certificate for `localhost` signed by it.
fn certificates(folder: &std::path::Path) -> bool {
    let script = r#"
        set -e
        openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout ca.key -out ca.pem -days 30 -subj /CN=ca
        openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout server.key -out server.csr -subj /CN=localhost
        printf 'subjectAltName=DNS:localhost' > ext
        openssl x509 -req -in server.csr -CA ca.pem -CAkey ca.key -CAcreateserial -out server.pem -days 30 -extfile ext
        openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout gw.key -out gw.csr -subj /CN=gw
        printf 'extendedKeyUsage=clientAuth' > ext
        openssl x509 -req -in gw.csr -CA ca.pem -CAkey ca.key -CAcreateserial -out gw.pem -days 30 -extfile ext
        chmod 644 *.key
    "#;
    let status = Command::new("sh")
        .arg("-c")
        .arg(script)
        .current_dir(folder)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    status.is_ok_and(|status| status.success())
}

#[tokio::test]
async fn tls_proves_both_sides() {
    if !installed() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    if !certificates(folder.path()) {
        println!("SKIPPED: openssl is not installed");
        return;
    }
    let path = folder.path().display().to_string();
    let lines = "allow_anonymous true\ncafile FOLDER/ca.pem\ncertfile FOLDER/server.pem\nkeyfile FOLDER/server.key\nrequire_certificate true";
    let broker = Mosquitto::start_in(folder, free_port(), lines).await;
    let with = |host: &str, tls: &str| {
        let broker = format!("mqtts://{host}:{}", broker.port);
        options(0).replace("mqtt://127.0.0.1:0", &broker).replace("[[topics]]", &format!("[tls]\n{tls}\n[[topics]]"))
    };
    let ca = format!("ca = \"{path}/ca.pem\"");
    let identity = format!("{ca}\ncert = \"{path}/gw.pem\"\nkey = \"{path}/gw.key\"");
    let mut rig = Rig::new(&DRIVER, &with("localhost", &identity));
    rig.start();
    rig.health_until(|health| health.state == "running").await;
    rig.stop().await;
    let name = refusal(&with("127.0.0.1", &identity)).await;
    assert!(name.contains("is for another name"), "{name}");
    let unknown = refusal(&with("localhost", "")).await;
    assert!(unknown.contains("name its CA with `ca`") || unknown.contains("no CA certificates"), "{unknown}");
    let nameless = refusal(&with("localhost", &ca)).await;
    assert!(nameless.contains("client certificate"), "{nameless}");
    let none = refusal(&with("localhost", "ca = \"/none.pem\"")).await;
    assert!(none.contains("/none.pem"), "{none}");
}

#[test]
fn mistakes_in_the_options_are_named() {
    for (options, mistake) in [
        ("broker = 'mqtt://a'", "topics"),
        ("broker = 'mqtt://a'\npassword = { env = 'X' }\n[[topics]]\nfilter = 'a'\nvalue = '/v'", "username"),
        ("broker = 'mqtt://a'\n[tls]\nca = '/x'\n[[topics]]\nfilter = 'a'\nvalue = '/v'", "mqtts://"),
        ("broker = 'mqtt://a'\n[[topics]]\nfilter = 'a'", "neither"),
        ("broker = 'mqtt://a'\n[[topics]]\nfilter = 'a'\nformat = 'text'\nvalue = '/v'", "json or cbor"),
        (
            "broker = 'mqtt://a'\n[[topics]]\nfilter = 'a/+'\nvalue = '/v'\nseries = '{2}'",
            "a level from {0} to {1} of a/+",
        ),
        ("broker = 'mqtt://a'\n[[topics]]\nfilter = 'a'\nvalue = 'v'", "JSON pointer"),
        ("broker = 'mqtt://a'\n[[topics]]\nfilter = 'a'\nvalues = { 'a+b' = '/v' }", "a+b"),
    ] {
        let mistakes = checked(&DRIVER, options).err().unwrap();
        assert!(mistakes.contains(mistake), "{options}: {mistakes}");
    }
}
