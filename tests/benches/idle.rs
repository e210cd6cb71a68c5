//! What the agent uses while little happens: 100 series at 1 Hz, a window of 10 s, an uplink.
//!
//! `cargo bench -p rtlive-tests --bench idle` prints resident memory and CPU over a minute, and the size of the binary.

use std::path::Path;
use std::time::{Duration, Instant};

use rtlive_tests::broker::Mosquitto;
use rtlive_tests::peer::until;
use rtlive_tests::program::{Agent, rtlive};
use rtlive_tests::usage::{cpu_seconds, memory_mib};

const SPAN: Duration = Duration::from_secs(60);

fn main() {
    let folder = tempfile::tempdir().unwrap();
    let Some(centre) = Mosquitto::start(&folder.path().join("centre"), "").unwrap() else { return };
    let Some(_subscriber) = centre.subscribe("rtlive/#", "judge", Path::new("/dev/null")).unwrap() else { return };
    let configuration = format!(
        "[inputs.plant]\ndriver = \"simulated\"\nseries = 100\nevery = \"1s\"\n\
         [streams.raw]\nselect = [\"#\"]\n[windows.ten]\nselect = [\"#\"]\nevery = \"10s\"\n[uplink]\nbroker = \"{}\"\n",
        centre.url()
    );
    let mut agent = Agent::new(&folder.path().join("agent"), &configuration).unwrap();
    agent.start().unwrap();
    let acknowledged = |agent: &Agent| {
        let status = agent.status()?;
        status["streams"].as_array()?.iter().find(|stream| stream["name"] == "ten")?["acknowledged"].as_u64()
    };
    until("the first window is at the centre", || acknowledged(&agent) > Some(0));
    let id = agent.id().unwrap();
    let (start, before) = (Instant::now(), cpu_seconds(id).unwrap());
    std::thread::sleep(SPAN);
    let cpu = (cpu_seconds(id).unwrap() - before) / start.elapsed().as_secs_f64();
    let (rss, peak) = (memory_mib(id, "VmRSS").unwrap(), memory_mib(id, "VmHWM").unwrap());
    assert_eq!(agent.stop().unwrap(), Some(0), "{}", agent.log().unwrap());
    let binary = std::fs::metadata(rtlive()).unwrap().len() as f64 / 1e6;
    println!(
        "100 series at 1 Hz: {:.2} % of a core (at most 1), {rss:.1} MiB resident (at most 10 MB), {peak:.1} MiB at its peak; \
         binary {binary:.2} MB (at most 6)",
        cpu * 100.0
    );
}
