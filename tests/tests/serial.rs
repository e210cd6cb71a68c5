//! A real scale through `rtlive try` at a live port, byte by byte as it once sent them.

use std::fs;
use std::io::Write;
use std::thread;
use std::time::{Duration, Instant};

use rtlive_tests::data::shared;
use rtlive_tests::live::LiveTry;
use serde_json::Value;

const CONFIGURATION: &str = r#"
    [agent]
    id = "test"
    [inputs.scale]
    driver = "serial"
    port = "{port}"
    baud = 1200
    stop_bits = 2
    format = "regex"
    pattern = '^(?P<weight>[-+][0-9.]+) G (?P<state>[SUE])$'
    fields = [
      { series = "weight", group = "weight", type = "f64", unit = "g" },
      { series = "state", group = "state", type = "text" },
    ]
"#;

#[test]
fn a_scale_is_read_at_its_own_pace() {
    let Some(timing) = shared("serial-wire/kern_scale_various_1200_8n2.timing.csv") else { return };
    let timing = fs::read_to_string(timing).unwrap();
    let bytes: Vec<(f64, u8)> = timing
        .lines()
        .skip(1)
        .map(|row| row.split_once(',').unwrap())
        .map(|(micros, byte)| (micros.parse().unwrap(), u8::from_str_radix(byte, 16).unwrap()))
        .collect();
    let text: String = bytes.iter().map(|(_, byte)| char::from(*byte)).collect();
    let expected: Vec<(f64, &str)> = text
        .lines()
        .filter_map(|line| line.split_once(" G "))
        .map(|(weight, state)| (weight.parse().unwrap(), state))
        .collect();
    assert_eq!(expected.len(), bytes.len() / 14);

    let folder = tempfile::tempdir().unwrap();
    let Some(live) = LiveTry::start(folder.path(), CONFIGURATION, "scale", 2 * expected.len()).unwrap() else { return };
    let mut device = live.device().unwrap();
    let start = Instant::now();
    for (micros, byte) in &bytes {
        let at = Duration::from_secs_f64((micros - bytes[0].0) / 1e6);
        thread::sleep(at.saturating_sub(start.elapsed()));
        device.write_all(&[*byte]).unwrap();
    }
    let (stdout, stderr) = live.finish().unwrap();
    let stdout = String::from_utf8(stdout).unwrap();
    let readings: Vec<Value> = stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let found: Vec<(f64, &str)> = readings
        .chunks(2)
        .map(|pair| (pair[0]["value"].as_f64().unwrap(), pair[1]["value"].as_str().unwrap()))
        .collect();
    assert_eq!(found, expected);
    assert!(readings.chunks(2).all(|pair| pair[0]["unit"] == "g" && pair[1]["series"] == "scale/state"));
    // Of what came there is nothing else but the lines that showed that the port was open.
    let not_taken = String::from_utf8(stderr).unwrap();
    let reasons: Vec<&str> =
        not_taken.lines().filter_map(|line| line.strip_prefix("not taken: ")?.split(" × ").nth(1)).collect();
    assert_eq!(reasons, ["no_match"]);
}
