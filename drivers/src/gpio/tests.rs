//! Decoding with recorded edges; options; errors that need no hardware.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use rtlive_core::time::nanos;

use super::*;
use crate::rig::{Rig, checked};

fn edge(number: u32, nanos: i64) -> Edge {
    Edge { time: Timestamp::from_nanos(nanos), line: 3, rising: number % 2 == 1, number }
}

#[test]
fn a_hole_in_the_numbers_is_an_overrun() {
    let mut edges = Edges::default();
    assert_eq!(edges.decode(edge(1, 10)), (Value::Bool(true), None));
    assert_eq!(edges.decode(edge(2, 20)), (Value::Bool(false), None));
    let time = Timestamp::from_nanos;
    let overrun = Overrun { start: Some(time(20)), end: time(60), count: 3 };
    assert_eq!(edges.decode(edge(6, 60)), (Value::Bool(false), Some(overrun)));
    let first = Overrun { start: None, end: time(5), count: 4 };
    assert_eq!(Edges::default().decode(edge(5, 5)).1, Some(first));
    let mut wrapping = Edges { last: Some((u32::MAX, time(1))) };
    assert_eq!(wrapping.decode(edge(0, 2)).1, None);
}

#[test]
fn levels_are_read_at_multiples_of_the_wall_clock() {
    let second = Duration::from_secs(1);
    let at = |nanos| next_multiple(Timestamp::from_nanos(nanos), second).as_nanos();
    assert_eq!(
        (at(0), at(1), at(999_999_999), at(1_000_000_000)),
        (1_000_000_000, 1_000_000_000, 1_000_000_000, 2_000_000_000)
    );
}

/// Recorded edges of real devices give as many readings in each window as were counted.
#[test]
fn recorded_edges_are_counted_right() {
    let folder = std::env::var_os("RTLIVE_DATA")
        .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../shared/data"), PathBuf::from);
    let folder = folder.join("gpio");
    if !folder.is_dir() {
        println!("SKIPPED: no shared data at {}", folder.display());
        return;
    }
    for (name, seconds) in [("dcf77_480s_interrupted", 60), ("grbl_cnc_3", 1), ("lidarlite_pwm", 1)] {
        let counted = counts(&folder.join(format!("{name}.edges.csv")), seconds);
        let expected = std::fs::read_to_string(folder.join(format!("{name}.count_{seconds}s.csv"))).unwrap();
        let expected: BTreeMap<String, u64> = expected
            .lines()
            .skip(1)
            .map(|row| row.rsplit_once(',').map(|(what, count)| (what.to_owned(), count.parse().unwrap())).unwrap())
            .filter(|(_, count)| *count > 0)
            .collect();
        assert!(!expected.is_empty());
        assert_eq!(counted, expected, "{name}");
    }
}

/// The number of readings by window, line and direction, in the words of the expected file.
fn counts(path: &Path, seconds: u64) -> BTreeMap<String, u64> {
    let mut edges = Edges::default();
    let mut counts = BTreeMap::new();
    for (index, row) in std::fs::read_to_string(path).unwrap().lines().skip(1).enumerate() {
        let [time, line, direction] = row.split(',').collect::<Vec<_>>().try_into().unwrap();
        let time = Timestamp::from_nanos(time.parse().unwrap());
        let number = u32::try_from(index + 1).unwrap();
        let (value, overrun) = edges.decode(Edge { time, line: 0, rising: direction == "rising", number });
        assert_eq!(overrun, None);
        let window = time.floor(Duration::from_secs(seconds)).as_nanos() / nanos(Duration::from_secs(seconds));
        let direction = if value == Value::Bool(true) { "rising" } else { "falling" };
        *counts.entry(format!("{window},{line},{direction}")).or_default() += 1;
    }
    counts
}

#[test]
fn mistakes_in_the_options_are_named() {
    for (line, mistake) in [
        ("line = 1, series = 'a', mode = 'level'", "every"),
        ("line = 1, series = 'a', every = '1s'", "mode"),
        ("line = 1, series = 'a', mode = 'level', every = '1s', debounce = '1ms'", "debounce"),
        ("line = -1, series = 'a'", "the number of a line"),
        ("line = 1, series = '+'", "+"),
        ("line = 1, series = 'a', bias = 'up'", "pull-up"),
        ("line = 1, series = 'a' }, { line = 1, series = 'b'", "a line of its own"),
        ("line = 1, series = 'a' }, { line = 2, series = 'a'", "a series of its own"),
    ] {
        let mistakes = checked(&DRIVER, &format!("chip = 'x'\nlines = [{{ {line} }}]")).err().unwrap();
        assert!(mistakes.contains(mistake), "{line}: {mistakes}");
    }
}

#[tokio::test]
async fn a_chip_that_is_missing_is_an_error_with_a_hint() {
    for chip in ["/dev/gpiochip-none", "no-such-label"] {
        let mut rig = Rig::new(&DRIVER, &format!("chip = '{chip}'\nlines = [{{ line = 1, series = 'a' }}]"));
        rig.start();
        let health = rig.health_until(|health| health.state == "waiting").await;
        let error = health.error.unwrap();
        assert!(error.contains(chip) && error.contains('('), "{error}");
        rig.stop().await;
    }
}
