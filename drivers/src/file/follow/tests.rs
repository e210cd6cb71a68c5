//! Rotation in every order, beside real files.

use std::io::Write;

use proptest::prelude::*;

use super::*;

/// A follower of `*.log` in a folder, through restarts of its process.
struct Rig {
    folder: tempfile::TempDir,
    follower: Follower,
    kept: BTreeMap<String, Vec<u8>>,
    lines: Vec<String>,
    truncated: u64,
}

impl Rig {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let pattern = folder.path().join("*.log").display().to_string();
        let kept = BTreeMap::new();
        let follower = Follower::new(&pattern, 100, Duration::from_secs(3600), false, &kept);
        Self { folder, follower, kept, lines: Vec::new(), truncated: 0 }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn append(&self, name: &str, text: &str) {
        let mut file = File::options().append(true).create(true).open(self.path(name)).unwrap();
        file.write_all(text.as_bytes()).unwrap();
    }

    fn rename(&self, from: &str, to: &str) {
        std::fs::rename(self.path(from), self.path(to)).unwrap();
    }

    fn copy_and_empty(&self, from: &str, to: &str) {
        std::fs::copy(self.path(from), self.path(to)).unwrap();
        File::options().write(true).open(self.path(from)).unwrap().set_len(0).unwrap();
    }

    fn keep(&mut self, state: Vec<(String, Option<Vec<u8>>)>) {
        for (key, value) in state {
            match value {
                Some(value) => self.kept.insert(key, value),
                None => self.kept.remove(&key),
            };
        }
    }

    fn round(&mut self) -> Vec<String> {
        let scan = self.follower.scan();
        assert_eq!(scan.error, None);
        self.truncated += scan.truncated;
        self.keep(scan.state);
        let mut lines = Vec::new();
        while let Some(chunk) = self.follower.next().unwrap() {
            lines.extend(chunk.lines.into_iter().map(|line| String::from_utf8(line).unwrap()));
            self.keep(chunk.state);
        }
        self.lines.extend(lines.iter().cloned());
        lines
    }

    fn restart(&mut self) {
        let from_end = self.follower.from_end;
        self.follower = Follower::new(&self.follower.pattern, 100, Duration::from_secs(3600), from_end, &self.kept);
    }

    /// Two hours pass, for what was kept.
    fn age(&mut self) {
        for (key, value) in &mut self.kept {
            if identity_of(key).is_some() {
                let mut mark = Mark::read(value).unwrap();
                mark.seen = mark.seen.saturating_sub(7200);
                *value = mark.write();
            }
        }
    }
}

#[test]
fn a_partial_line_waits() {
    let mut rig = Rig::new();
    rig.append("a.log", "one\ntw");
    assert_eq!(rig.round(), ["one"]);
    assert_eq!(rig.round(), [""; 0]);
    rig.restart();
    rig.append("a.log", "o\r\n");
    assert_eq!(rig.round(), ["two"]);
}

#[test]
fn a_renamed_file_is_read_to_its_end() {
    let mut rig = Rig::new();
    rig.append("a.log", "one\n");
    rig.round();
    rig.append("a.log", "two\n");
    rig.rename("a.log", "a.log.1");
    rig.append("a.log", "three\n");
    assert_eq!(rig.round(), ["two", "three"]);
    rig.append("a.log.1", "late\n");
    rig.rename("a.log", "a.log.2");
    rig.restart();
    rig.append("a.log.2", "four\n");
    rig.append("a.log", "five\n");
    let mut lines = rig.round();
    lines.sort();
    assert_eq!(lines, ["five", "four", "late"]);
}

#[test]
fn an_emptied_file_starts_again_and_its_copy_does_not() {
    let mut rig = Rig::new();
    rig.append("a.log", "one\ntwo\n");
    rig.round();
    rig.append("a.log", "three\n");
    rig.copy_and_empty("a.log", "a.1.log");
    rig.append("a.log", "four and longer than all that was there before\n");
    let mut lines = rig.round();
    lines.sort();
    assert_eq!(lines, ["four and longer than all that was there before", "three"]);
    assert_eq!(rig.truncated, 1);
}

#[test]
fn a_file_that_only_begins_alike_is_read_whole() {
    let mut rig = Rig::new();
    rig.append("a.log", "tick\n");
    rig.round();
    rig.append("b.log", "tick\ntick\n");
    let lines: Vec<String> = (0..=SUSPECT_SCANS).flat_map(|_| rig.round()).collect();
    assert_eq!(lines, ["tick", "tick"]);
    rig.rename("a.log", "a.gz");
    rig.append("a.log", "tick\ntick\ntick\n");
    let lines: Vec<String> = (0..=SUSPECT_SCANS).flat_map(|_| rig.round()).collect();
    assert_eq!(lines, ["tick"; 3]);
}

#[test]
fn long_lines_are_skipped_also_over_a_restart() {
    let mut rig = Rig::new();
    rig.append("a.log", &format!("one\n{}", "x".repeat(150)));
    assert_eq!(rig.round(), ["one"]);
    rig.restart();
    rig.append("a.log", "xx\ntwo\n");
    assert_eq!(rig.round(), ["two"]);
}

#[test]
fn from_the_end_means_only_what_is_there_first() {
    let mut rig = Rig::new();
    rig.follower.from_end = true;
    rig.append("a.log", "old\n");
    assert_eq!(rig.round(), [""; 0]);
    rig.append("a.log", "new\n");
    rig.append("b.log", "first\n");
    assert_eq!(rig.round(), ["new", "first"]);
}

#[test]
fn what_appears_after_a_restart_is_read_from_its_beginning_also_if_nothing_was_there_before() {
    let mut rig = Rig::new();
    rig.follower.from_end = true;
    assert_eq!(rig.round(), [""; 0]);
    rig.restart();
    rig.append("a.log", "first\n");
    assert_eq!(rig.round(), ["first"]);
}

#[test]
fn a_file_that_is_away_at_the_first_look_is_known_again_however_long_it_was_idle() {
    let (mut rig, elsewhere) = (Rig::new(), tempfile::tempdir().unwrap());
    let away = elsewhere.path().join("a.log");
    rig.append("a.log", "one\n");
    assert_eq!(rig.round(), ["one"]);
    rig.age();
    rig.restart();
    std::fs::rename(rig.path("a.log"), &away).unwrap();
    assert_eq!(rig.round(), [""; 0]);
    std::fs::rename(&away, rig.path("a.log")).unwrap();
    rig.append("a.log", "two\n");
    assert_eq!(rig.round(), ["two"]);
    // One that stays away is forgotten in the end.
    rig.restart();
    std::fs::rename(rig.path("a.log"), &away).unwrap();
    rig.round();
    rig.age();
    rig.restart();
    rig.round();
    assert!(!rig.kept.keys().any(|key| identity_of(key).is_some()));
}

#[derive(Clone, Debug)]
enum Step {
    Write(u8),
    Partial,
    Rotate,
    Copy,
    Round,
    Restart,
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    /// Every whole line is read once, in whatever way the file is rotated; emptying waits for a look at it, as it must.
    #[test]
    fn each_line_is_read_once(steps in prop::collection::vec(prop_oneof![
        6 => (1_u8..40).prop_map(Step::Write),
        1 => Just(Step::Partial),
        1 => Just(Step::Rotate),
        1 => Just(Step::Copy),
        4 => Just(Step::Round),
        1 => Just(Step::Restart),
    ], 1..60)) {
        let mut rig = Rig::new();
        let mut written: Vec<String> = Vec::new();
        let mut partial = String::new();
        let mut rotated = 0;
        for step in steps {
            match step {
                Step::Write(count) => for _ in 0..count {
                    let rest = format!("line {}", written.len());
                    rig.append("a.log", &format!("{rest}\n"));
                    written.push(format!("{}{rest}", std::mem::take(&mut partial)));
                },
                Step::Partial => {
                    rig.append("a.log", "p");
                    partial.push('p');
                }
                Step::Rotate if partial.is_empty() && rig.path("a.log").exists() => {
                    rotated += 1;
                    rig.rename("a.log", &format!("a.{rotated}.log"));
                }
                Step::Copy if partial.is_empty() && rig.path("a.log").exists() => {
                    rig.round();
                    rotated += 1;
                    rig.copy_and_empty("a.log", &format!("a.{rotated}.log"));
                    rig.round();
                }
                Step::Round => { rig.round(); }
                Step::Restart => rig.restart(),
                Step::Rotate | Step::Copy => {}
            }
        }
        (0..=SUSPECT_SCANS).for_each(|_| { rig.round(); });
        let mut lines = rig.lines.clone();
        lines.sort();
        written.sort();
        prop_assert_eq!(lines, written);
    }
}
