//! Captures of real receivers through `rtlive try`: by `--from`, and from a live port at the pace of a serial line.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;

use rtlive_tests::data::shared;
use rtlive_tests::live::LiveTry;
use rtlive_tests::peer::installed;
use rtlive_tests::program::rtlive;
use serde_json::Value;

/// How near positions must be to those that another program found, in degrees.
const DEGREES: f64 = 1e-7;

/// Bytes a second on the live port: a line of 115,200 baud; with `RTLIVE_LONG=1` one of 9600, which is the receivers' own pace.
fn bytes_per_second() -> u32 {
    if std::env::var_os("RTLIVE_LONG").is_some() { 960 } else { 11_520 }
}

/// What `rtlive try` printed.
struct Tried {
    /// Series without the input's name, and value, in order.
    readings: Vec<(String, Value)>,
    not_taken: BTreeMap<String, u64>,
}

impl Tried {
    fn of(stdout: &[u8], stderr: &[u8]) -> Self {
        let lines = stdout.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
        let readings = lines.map(|line| {
            let reading: Value = serde_json::from_slice(line).unwrap();
            assert_eq!((&reading["stream"], &reading["quality"]), (&"raw".into(), &"good".into()), "{reading}");
            (reading["series"].as_str().unwrap().strip_prefix("gps/").unwrap().to_owned(), reading["value"].clone())
        });
        let stderr = String::from_utf8_lossy(stderr);
        let counts = stderr.lines().filter_map(|line| line.strip_prefix("not taken: ")?.split_once(" × "));
        let not_taken = counts.map(|(count, reason)| (reason.to_owned(), count.parse().unwrap())).collect();
        Self { readings: readings.collect(), not_taken }
    }

    fn of_series(&self, series: &str) -> Vec<f64> {
        self.readings.iter().filter(|(name, _)| name == series).map(|(_, value)| value.as_f64().unwrap()).collect()
    }

    fn not_taken(&self, reason: &str) -> u64 {
        self.not_taken.get(reason).copied().unwrap_or(0)
    }
}

/// The captures with what was counted in them; `None`, said loudly, where they are not.
fn captures(folder: &str) -> Option<Vec<(PathBuf, Value)>> {
    let folder = shared(folder)?;
    let stats: Value = serde_json::from_slice(&fs::read(folder.join("line_stats.json")).unwrap()).unwrap();
    Some(stats.as_object().unwrap().iter().map(|(name, stats)| (folder.join(name), stats.clone())).collect())
}

const CONFIGURATION: &str = r#"
    [agent]
    id = "test"
    [inputs.gps]
    driver = "nmea"
    port = "{port}"
    baud = 115200
"#;

fn try_from(capture: &Path) -> Tried {
    let folder = tempfile::tempdir().unwrap();
    let configuration = folder.path().join("rtlive.toml");
    fs::write(&configuration, CONFIGURATION).unwrap();
    let mut command = Command::new(rtlive());
    command.arg("-c").arg(configuration).args(["try", "gps", "--from"]).arg(capture);
    let output = command.output().unwrap();
    let tried = Tried::of(&output.stdout, &output.stderr);
    assert_eq!(output.status.code(), Some(i32::from(tried.readings.is_empty())), "{}", capture.display());
    tried
}

#[test]
fn every_capture_gives_its_counts_and_positions() {
    for (capture, stats) in ["nmea", "nmea-bad"].into_iter().filter_map(captures).flatten() {
        let tried = try_from(&capture);
        let name = capture.display();
        let count = |key: &str| stats[key].as_u64().unwrap();
        assert_eq!(tried.not_taken("bad_checksum"), count("sentences_checksum_bad"), "{name}");
        assert_eq!(tried.not_taken("not_nmea"), count("comment_lines") + count("other_lines"), "{name}");
        // One that the end of the file cuts off was counted, but nobody knows yet whether it is one.
        let is_cut = !fs::read(&capture).unwrap().ends_with(b"\n");
        assert_eq!(tried.not_taken("no_checksum") + u64::from(is_cut), count("sentences_without_checksum"), "{name}");

        let (latitudes, longitudes) = (tried.of_series("latitude"), tried.of_series("longitude"));
        assert_eq!(latitudes.len(), longitudes.len(), "{name}");
        assert_eq!(latitudes.len(), epochs_with_position(&capture), "{name}");
        let found: Vec<(f64, f64)> = latitudes.into_iter().zip(longitudes).collect();
        let mut rest = found.iter();
        for expected in expected_positions(&capture) {
            let is_there =
                rest.any(|found| (found.0 - expected.0).abs() <= DEGREES && (found.1 - expected.1).abs() <= DEGREES);
            assert!(is_there, "{name}: {expected:?} does not follow in {found:?}");
        }
    }
}

/// The positions of the expected file, each as often as it changes.
fn expected_positions(capture: &Path) -> Vec<(f64, f64)> {
    let path = PathBuf::from(format!("{}.chk", capture.display()));
    let text = fs::read(path).unwrap_or_default();
    let reports = text.split(|byte| *byte == b'\n').filter_map(|line| serde_json::from_slice::<Value>(line).ok());
    let reports = reports.filter(|report| report["class"] == "TPV");
    let mut positions: Vec<_> =
        reports.filter_map(|report| report["lat"].as_f64().zip(report["lon"].as_f64())).collect();
    positions.dedup();
    positions
}

/// How many epochs of the capture have a position: the times of the sentences with a valid one, each counted once in a row.
fn epochs_with_position(capture: &Path) -> usize {
    let bytes = fs::read(capture).unwrap();
    let whole = bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
    let text = String::from_utf8_lossy(&bytes[..whole]).into_owned();
    let mut times = Vec::new();
    for line in text.lines().filter_map(|line| line.rsplit_once('$')).map(|(_, sentence)| sentence) {
        let Some((body, checksum)) = line.trim_end().split_once('*') else { continue };
        if u8::from_str_radix(checksum, 16).ok() != Some(body.bytes().fold(0, |sum, byte| sum ^ byte)) {
            continue;
        }
        let fields: Vec<&str> = body.split(',').collect();
        let (time, latitude, is_valid) = match fields[0].get(2..) {
            Some("GGA") => (fields[1], fields[2], !["", "0"].contains(&fields[6])),
            Some("GNS") => (fields[1], fields[2], fields[6].chars().any(|mode| mode != 'N')),
            Some("RMC") => (fields[1], fields[3], fields[2] == "A"),
            Some("GLL") => (fields[5], fields[1], fields[6] == "A"),
            _ => continue,
        };
        if is_valid && !latitude.is_empty() {
            times.push(time.parse::<f64>().unwrap());
        }
    }
    times.dedup();
    times.len()
}

#[test]
fn every_capture_comes_through_a_live_port_as_it_comes_from_its_file() {
    let Some(captures) = captures("nmea") else { return };
    let Some(pacer) = installed("pv") else { return };
    // Built before the others wait for it.
    rtlive();
    thread::scope(|scope| {
        for (capture, _) in &captures {
            scope.spawn(|| live(capture, &pacer));
        }
    });
}

fn live(capture: &Path, pacer: &Path) {
    let expected = try_from(capture);
    let folder = tempfile::tempdir().unwrap();
    let Some(live) = LiveTry::start(folder.path(), CONFIGURATION, "gps", expected.readings.len()).unwrap() else {
        return;
    };
    let mut paced = Command::new(pacer);
    paced.args(["-q", "-L", &bytes_per_second().to_string()]).arg(capture).stdin(Stdio::null());
    assert!(paced.stdout(live.device().unwrap()).status().unwrap().success());
    let (stdout, stderr) = live.finish().unwrap();
    assert_eq!(Tried::of(&stdout, &stderr).readings, expected.readings, "{}", capture.display());
}
