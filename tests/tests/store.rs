//! A store looked at from outside, while its agent runs and after it died.

use std::fs;
use std::path::Path;
use std::process::Output;

use rtlive_core::message::Message;
use rtlive_core::time::Timestamp;
use rtlive_tests::peer::until;
use rtlive_tests::program::{Agent, decode, run};
use serde_json::Value;

const CONFIGURATION: &str = r##"
    [inputs.sim]
    driver = "simulated"
    series = 2
    every = "100ms"
    [streams.raw]
    select = ["#"]
    batch = 20
    [windows.second]
    select = ["#"]
    every = "1s"
"##;

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn store(arguments: &[&str], folder: &Path) -> Output {
    run(&[&["store"], arguments, &[folder.to_str().unwrap()]].concat()).unwrap()
}

fn lines(output: &Output) -> Vec<Value> {
    text(&output.stdout).lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// The numbers of a stream's records, which are without holes and begin with 1.
fn numbers(records: &[Value], stream: &str) -> u64 {
    let numbers: Vec<u64> = records
        .iter()
        .filter(|record| record["stream"] == *stream)
        .map(|record| record["seq"].as_u64().unwrap())
        .collect();
    assert_eq!(numbers, (1..=numbers.len() as u64).collect::<Vec<_>>());
    numbers.len() as u64
}

#[test]
fn everything_that_waits_is_found_beside_a_running_agent_and_after_it_died() {
    let folder = tempfile::tempdir().unwrap();
    let mut agent = Agent::new(folder.path(), CONFIGURATION).unwrap();
    agent.start().unwrap();
    let state = folder.path().join("state");
    let sealed = || {
        let inspection = lines(&store(&["inspect", "--json"], &state)).pop()?;
        let streams = inspection["streams"].as_array()?.clone();
        let of = |place: &str, frames: bool| {
            streams.iter().any(|stream| stream["stream"] == place && stream["frames"].is_null() != frames)
        };
        Some(of("raw", true) && of("second", false))
    };
    until("there are frames, and records that wait for theirs", || sealed() == Some(true));
    let verified = store(&["verify"], &state);
    assert_eq!(verified.status.code(), Some(0), "{}", text(&verified.stdout));
    agent.kill();

    let verified = store(&["verify"], &state);
    assert!(verified.status.success(), "{}", text(&verified.stdout));
    let all = lines(&store(&["export"], &state));
    assert_eq!(all.iter().filter(|record| record.get("epoch_start").is_some()).count(), 1);
    assert!(numbers(&all, "raw") >= 20 && numbers(&all, "second") > 0);
    // As messages they are the same records.
    let messages = folder.path().join("messages");
    let exported = store(&["export", "--format", "frames", "--output", messages.to_str().unwrap()], &state);
    assert!(exported.status.success(), "{}", text(&exported.stderr));
    let sorted = |records: Vec<Value>| {
        let line = |mut record: Value| {
            record.as_object_mut().unwrap().remove("historical");
            record.to_string()
        };
        let mut lines: Vec<String> = records.into_iter().map(line).collect();
        lines.sort();
        lines
    };
    assert_eq!(sorted(decode(&messages).unwrap()), sorted(all.clone()));
    // By stream and by time.
    let second = all.iter().filter(|record| record["stream"] == "raw").nth(10).unwrap()["time"].as_str().unwrap();
    let some = lines(&store(&["export", "--stream", "raw", "--from", second], &state));
    let time = |text: &str| text.parse::<Timestamp>().unwrap();
    let is_wanted =
        |record: &&Value| record["stream"] == "raw" && time(record["time"].as_str().unwrap()) >= time(second);
    let wanted = all.iter().filter(is_wanted);
    assert_eq!(some.iter().collect::<Vec<_>>(), wanted.collect::<Vec<_>>());
}

#[test]
fn damage_is_named_and_hides_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    let mut agent = Agent::new(folder.path(), CONFIGURATION).unwrap();
    agent.start().unwrap();
    let state = folder.path().join("state");
    let raw = || numbers(&lines(&store(&["export", "--stream", "raw"], &state)), "raw");
    until("there are three frames", || state.join("store.db").exists() && raw() >= 60);
    assert_eq!(agent.stop().unwrap(), Some(0));
    // The log was emptied at the stop, and the bytes of a frame lie in the file as they are.
    assert!(fs::metadata(state.join("store.db-wal")).map_or(0, |log| log.len()) == 0);
    let before = raw();
    let messages = store(&["export", "--stream", "raw", "--format", "frames"], &state).stdout;
    let (message, _) = Message::parse_first(&messages).unwrap();
    let path = state.join("store.db");
    let mut bytes = fs::read(&path).unwrap();
    // A row that was moved within the file may have left a copy of itself behind.
    let places: Vec<_> = (0..bytes.len()).filter(|&at| bytes[at..].starts_with(message.part)).collect();
    assert!(!places.is_empty());
    places.iter().for_each(|place| bytes[place + message.part.len() / 2] ^= 1);
    fs::write(&path, bytes).unwrap();
    let verified = store(&["verify"], &state);
    assert_eq!(verified.status.code(), Some(1));
    assert!(text(&verified.stdout).contains("stream raw"), "{}", text(&verified.stdout));
    let exported = store(&["export", "--stream", "raw"], &state);
    assert_eq!(exported.status.code(), Some(1));
    assert_eq!(lines(&exported).len() as u64, before - 20);
    assert!(text(&exported.stderr).contains("is damaged"), "{}", text(&exported.stderr));
    // What is whole goes to a new file, and the next start reports the rest.
    let repaired = folder.path().join("repaired.db");
    let report = lines(&store(&["repair", "--json", "--output", repaired.to_str().unwrap()], &state)).remove(0);
    assert_eq!(report["lost"].as_array().unwrap().len(), 1, "{report}");
    assert_eq!(
        (&report["lost"][0]["stream"], &report["lost"][0]["why"]),
        (&"raw".into(), &"their frame is damaged".into())
    );
    assert!(report["saved"]["frames"].as_u64().unwrap() >= 3, "{report}");
    fs::rename(&repaired, &path).unwrap();
    agent.start().unwrap();
    let restarted = || {
        let all = lines(&store(&["export", "--stream", "gaps"], &state));
        all.iter().any(|record| record["epoch_start"]["reason"] == "damaged_store")
    };
    until("a new epoch begins", restarted);
    let refused = store(&["repair"], &state);
    assert_eq!(refused.status.code(), Some(1));
    assert!(text(&refused.stderr).contains("in use"), "{}", text(&refused.stderr));
    assert_eq!(agent.stop().unwrap(), Some(0));
}

#[test]
fn what_is_no_store_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let missing = store(&["inspect"], folder.path());
    assert_eq!(missing.status.code(), Some(1));
    assert!(text(&missing.stderr).contains("store.db"), "{}", text(&missing.stderr));
    fs::write(folder.path().join("store.db"), vec![7; 8192]).unwrap();
    let other = store(&["verify"], folder.path());
    assert_eq!(other.status.code(), Some(1));
    assert!(text(&other.stderr).contains("not a database"), "{}", text(&other.stderr));
}
