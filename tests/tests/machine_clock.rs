//! The agent by this machine's own clock, in whatever state that is, held against what docs/clock.md promises for it.

use std::fs;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rtlive_tests::peer::until;
use rtlive_tests::program::{Agent, run};
use serde_json::Value;

/// Signs that a program is there to keep the clock right, as docs/clock.md names them.
const KEEPERS: [&str; 8] = [
    "/run/systemd/timesync",
    "/run/chrony",
    "/run/ntpd.pid",
    "/run/ntp.pid",
    "/run/ntpsec",
    "/run/openntpd",
    "/etc/systemd/system/multi-user.target.wants/chrony.service",
    "/etc/systemd/system/multi-user.target.wants/ntpsec.service",
];

#[test]
fn readings_go_their_way_where_the_clock_is_trusted_and_wait_where_it_is_not() {
    let folder = tempfile::tempdir().unwrap();
    let configuration = r##"
        [inputs.n]
        driver = "simulated"
        waveform = "counter"
        every = "100ms"

        [streams.raw]
        select = "#"

        [rules.any]
        let = { n = "n/s1" }
        when = "n > 0"
    "##;
    let mut agent = Agent::new(folder.path(), configuration).unwrap();
    let written = fs::read_to_string(agent.configuration()).unwrap();
    assert!(written.contains("clock = \"trusted\""));
    fs::write(agent.configuration(), written.replace("clock = \"trusted\"", "clock = \"auto\"")).unwrap();
    agent.start().unwrap();
    let mut status = Value::Null;
    until("twenty readings", || {
        status = agent.status().unwrap_or_default();
        status["inputs"][0]["taken"].as_u64() >= Some(20)
    });
    let clock = status["clock"].clone();
    let is_trusted = clock["trusted"].as_bool().unwrap_or_else(|| panic!("{status}"));
    assert_eq!(agent.stop().unwrap(), Some(0), "{}", agent.log().unwrap());
    if !KEEPERS.iter().any(|path| Path::new(path).exists()) {
        assert!(is_trusted, "nothing on this machine would ever set its clock, so it is taken as it is: {clock}");
    }

    let exported = run(&["-c", agent.configuration().to_str().unwrap(), "store", "export"]).unwrap();
    let records: Vec<Value> =
        String::from_utf8(exported.stdout).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let of = |stream: &str| records.iter().filter(|record| record["stream"] == stream).collect::<Vec<_>>();
    let (raw, alerts) = (of("raw"), of("alerts"));
    assert_eq!(alerts.len(), 1, "an alert waits for no clock: {records:?}");
    let is_marked = |record: &Value| record.get("clock") == Some(&"unsynced".into());
    assert_eq!(is_marked(alerts[0]), !is_trusted, "{alerts:?}");
    if !is_trusted {
        assert!(raw.is_empty() && clock["provisional"].as_u64() >= Some(20), "{clock}: {raw:?}");
        assert!(agent.log().unwrap().contains("the clock is not trusted"), "{}", agent.log().unwrap());
        return;
    }
    assert!(raw.len() >= 20 && clock["provisional"] == 0, "{clock}: {}", raw.len());
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    for record in raw {
        assert!(!is_marked(record), "{record}");
        // The counter counts the tenths of a second since 1970, by the clock that stamps it.
        let at = Duration::from_millis(record["value"].as_u64().unwrap() * 100);
        assert!(at < now + Duration::from_secs(1) && now < at + Duration::from_secs(3600), "{record}");
    }
}
