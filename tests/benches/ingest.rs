//! What it costs to take 100,000 readings over MQTT QoS 1, commit them, and deliver them; beside a subscriber that only takes them.
//!
//! `cargo bench -p rtlive-tests --bench ingest` lets the agent and a bare rumqttc subscriber with acknowledgements by hand take the same
//! messages from the same local mosquitto in turn, and prints CPU seconds, their ratio, and the agent's peak of resident memory. The
//! readings are those of 100 sensors, 30 bytes each, as fast as they are taken; the agent forwards them to a second mosquitto with a
//! subscriber. The local broker runs with `max_inflight_messages 0`, the input with `inflight = 1000`.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rtlive_tests::broker::Mosquitto;
use rtlive_tests::peer::until;
use rtlive_tests::program::Agent;
use rtlive_tests::usage::{cpu_seconds, median, memory_mib, wait_with_cpu};
use rumqttc::{Client, Event, Incoming, MqttOptions, QoS};

const READINGS: u64 = 100_000;
const SENSORS: u64 = 100;
const RUNS: usize = 5;

/// The argument by which this program is the bare subscriber.
const BARE: &str = "--bare-subscriber";

/// What is aimed at.
const CPU_RATIO_MAX: f64 = 1.6;
const PEAK_MIB_MAX: f64 = 20.0;

fn main() {
    let mut arguments = std::env::args().skip_while(|argument| argument != BARE);
    if let (Some(_), Some(port)) = (arguments.next(), arguments.next()) {
        return subscribe(port.parse().unwrap());
    }
    let folder = tempfile::tempdir().unwrap();
    let (mut agents, mut bares, mut ratios, mut peaks) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for run in 0..RUNS {
        let folder = folder.path().join(run.to_string());
        let Some((agent, peak)) = agent(&folder) else { return };
        let Some(bare) = bare(&folder) else { return };
        println!("run {run}: agent {agent:.2} CPU s, bare subscriber {bare:.2} CPU s, peak {peak:.1} MiB");
        agents.push(agent);
        bares.push(bare);
        ratios.push(agent / bare);
        peaks.push(peak);
    }
    println!(
        "{READINGS} readings: agent {:.2} CPU s, bare subscriber {:.2} CPU s, ratio {:.2} (at most {CPU_RATIO_MAX}); \
         peak of resident memory {:.1} MiB (at most {PEAK_MIB_MAX})",
        median(agents),
        median(bares),
        median(ratios),
        median(peaks)
    );
}

const LOCAL: &str = "max_inflight_messages 0\nmax_queued_messages 0\n";

/// The agent's seconds of CPU from the first message to the last acknowledgement of the centre, and its peak of memory in MiB.
fn agent(folder: &Path) -> Option<(f64, f64)> {
    let local = Mosquitto::start(&folder.join("local"), LOCAL).unwrap()?;
    let centre = Mosquitto::start(&folder.join("centre"), "").unwrap()?;
    let _subscriber = centre.subscribe("rtlive/#", "judge", Path::new("/dev/null")).unwrap()?;
    let configuration = format!(
        r#"
        [inputs.line]
        driver = "mqtt"
        broker = "{}"
        inflight = 1000
        [[inputs.line.topics]]
        filter = "sensors/+"
        series = "{{1}}"
        format = "json"
        value = "/v"
        time = "/ts"

        [uplink]
        broker = "{}"
        "#,
        local.url(),
        centre.url(),
    );
    let mut agent = Agent::new(&folder.join("agent"), &configuration).unwrap();
    agent.start().unwrap();
    until("the agent listens", || agent.status().is_some_and(|status| status["inputs"][0]["state"] == "running"));
    let id = agent.id().unwrap();
    let before = cpu_seconds(id).unwrap();
    publish(local.port);
    until("everything is delivered", || {
        let Some(status) = agent.status() else { return false };
        let raw =
            status["streams"].as_array().and_then(|all| all.iter().find(|stream| stream["name"] == "raw").cloned());
        raw.is_some_and(|raw| raw["acknowledged"] == READINGS)
    });
    let seconds = cpu_seconds(id).unwrap() - before;
    let peak = memory_mib(id, "VmHWM").unwrap();
    assert_eq!(agent.stop().unwrap(), Some(0), "{}", agent.log().unwrap());
    Some((seconds, peak))
}

/// The bare subscriber's seconds of CPU, its start included.
fn bare(folder: &Path) -> Option<f64> {
    let local = Mosquitto::start(&folder.join("bare"), LOCAL).unwrap()?;
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args([BARE, &local.port.to_string()]).stdout(Stdio::piped());
    let mut child = command.spawn().unwrap();
    // It says a word when it is subscribed.
    let mut word = [0];
    std::io::Read::read_exact(child.stdout.as_mut().unwrap(), &mut word).unwrap();
    publish(local.port);
    let (status, seconds) = wait_with_cpu(&mut child).unwrap();
    assert!(status.success());
    Some(seconds)
}

/// Takes and acknowledges the readings, and ends.
fn subscribe(port: u16) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let mut options = MqttOptions::new("bare", "127.0.0.1", port);
        options.set_clean_session(false).set_manual_acks(true).set_keep_alive(Duration::from_secs(30));
        let (client, mut events) = rumqttc::AsyncClient::new(options, READINGS as usize);
        client.subscribe("sensors/+", QoS::AtLeastOnce).await.unwrap();
        let mut taken = 0;
        while taken < READINGS {
            match events.poll().await.unwrap() {
                Event::Incoming(Incoming::SubAck(_)) => {
                    println!();
                }
                Event::Incoming(Incoming::Publish(publish)) => {
                    client.try_ack(&publish).unwrap();
                    taken += 1;
                }
                _ => {}
            }
        }
    });
}

/// Publishes the readings as fast as the broker takes them.
fn publish(port: u16) {
    let mut options = MqttOptions::new("sensors", "127.0.0.1", port);
    options.set_inflight(1_000);
    let (client, mut connection) = Client::new(options, 1_000);
    let sender = std::thread::spawn(move || {
        for number in 0..READINGS {
            let millis = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis();
            let message = format!("{{\"ts\":{millis},\"v\":2{}.{:02}}}", number % 7, number % 100);
            client.publish(format!("sensors/s{}", number % SENSORS), QoS::AtLeastOnce, false, message).unwrap();
        }
        client
    });
    let acknowledged = connection.iter().filter(|event| matches!(event, Ok(Event::Incoming(Incoming::PubAck(_)))));
    assert_eq!(acknowledged.take(READINGS as usize).count() as u64, READINGS);
    drop(sender.join().unwrap());
}
