//! `rtlive demo`, as its users run it.

use std::fs::{self, File};
use std::io::Write;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

use rtlive_tests::peer::{installed, until};
use rtlive_tests::program::rtlive;
use rustix::process::{Pid, Signal, kill_process};

/// The command, with its temporary files in `folder`.
fn demo(folder: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(rtlive());
    command.arg("demo").args(arguments).env("TMPDIR", folder).stdin(Stdio::null());
    command
}

/// Checks how it ended, and returns what it printed.
fn checked(output: &Output, folder: &Path) -> String {
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{text}\n{errors}");
    assert!(text.trim_end().ends_with("the ledger closes"), "{text}");
    assert_eq!(fs::read_dir(folder).unwrap().count(), 0, "files are left in {}", folder.display());
    text
}

/// The numbers in the line of the final account that begins with `name`.
fn account(text: &str, name: &str) -> Vec<u64> {
    let line = text.lines().rev().find(|line| line.starts_with(name)).unwrap_or_else(|| panic!("no {name} in {text}"));
    line.split(|character: char| !character.is_ascii_digit()).filter_map(|number| number.parse().ok()).collect()
}

#[test]
fn it_ends_by_itself_and_every_reading_is_accounted_for() {
    let folder = tempfile::tempdir().unwrap();
    let text = checked(&demo(folder.path(), &["--for", "5s"]).output().unwrap(), folder.path());
    assert!(!text.contains('\x1b'), "colours without a terminal: {text}");
    for word in ["readings", "window", "alert    overload raised"] {
        assert!(text.contains(word), "{word}: {text}");
    }
    let [taken, accepted, dropped] = account(&text, "input meter")[..] else { panic!("{text}") };
    assert!(taken > 20 && taken == accepted && dropped == 0, "{text}");
    let [numbered, acknowledged, stored, in_gaps, at_subscriber] = account(&text, "raw")[..] else { panic!("{text}") };
    assert_eq!([acknowledged, stored, in_gaps, at_subscriber], [numbered, 0, 0, numbered], "{text}");
    assert_eq!(numbered, taken, "{text}");
}

#[test]
fn an_outage_is_caught_up_with() {
    let folder = tempfile::tempdir().unwrap();
    let text = checked(&demo(folder.path(), &["--for", "8s", "--outage", "2s"]).output().unwrap(), folder.path());
    for word in ["the broker is gone for 2 s", "records wait in the store", "the broker is there again"] {
        assert!(text.contains(word), "{word}: {text}");
    }
    let [numbered, _, stored, _, at_subscriber] = account(&text, "raw")[..] else { panic!("{text}") };
    assert!(stored == 0 && at_subscriber == numbered, "{text}");
}

#[test]
fn a_signal_ends_it_in_order() {
    let folder = tempfile::tempdir().unwrap();
    let output = folder.path().join("output");
    let state = folder.path().join("state");
    fs::create_dir(&state).unwrap();
    let child = demo(&state, &[]).stdout(File::create(&output).unwrap()).stderr(Stdio::null()).spawn().unwrap();
    let mut demo = Ended(child);
    let text = || fs::read_to_string(&output).unwrap();
    until("readings are shown", || text().contains("readings"));
    kill_process(Pid::from_child(&demo.0), Signal::INT).unwrap();
    assert_eq!(demo.0.wait().unwrap().code(), Some(0), "{}", text());
    assert!(text().trim_end().ends_with("the ledger closes"), "{}", text());
    assert_eq!(fs::read_dir(&state).unwrap().count(), 0);
}

#[test]
fn keys_of_a_terminal_pull_the_cable_and_end_it() {
    let Some(script) = installed("script") else { return };
    let folder = tempfile::tempdir().unwrap();
    let output = folder.path().join("output");
    let state = folder.path().join("state");
    fs::create_dir(&state).unwrap();
    // script(1) gives it a terminal, and passes its own input on as keys.
    let mut command = Command::new(script);
    command.args(["-qefc", &format!("{} demo", rtlive().display()), "/dev/null"]).env("TMPDIR", &state);
    let mut child = command.stdin(Stdio::piped()).stdout(File::create(&output).unwrap()).spawn().unwrap();
    let mut keys = child.stdin.take().unwrap();
    let mut demo = Ended(child);
    let text = || String::from_utf8_lossy(&fs::read(&output).unwrap()).into_owned();
    until("readings are shown", || text().contains("readings"));
    keys.write_all(b"o").unwrap();
    until("the outage is shown", || text().contains("records wait in the store"));
    keys.write_all(b"q").unwrap();
    assert_eq!(demo.0.wait().unwrap().code(), Some(0), "{}", text());
    assert!(text().contains('\x1b'), "no colours on a terminal: {}", text());
    assert!(text().trim_end().ends_with("the ledger closes"), "{}", text());
}

#[test]
fn an_outage_without_an_end_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let output = demo(folder.path(), &["--for", "3s", "--outage", "5s"]).output().unwrap();
    assert_eq!(output.status.code(), Some(64));
    assert!(String::from_utf8_lossy(&output.stderr).contains("--outage: expected less than --for"));
}

/// A child that ends with the test.
struct Ended(Child);

impl Drop for Ended {
    fn drop(&mut self) {
        // It has ended where the test passed.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
