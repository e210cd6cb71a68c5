//! Every kind of mistake has a message, byte for byte: golden/NAME.toml beside golden/NAME.expected.
//!
//! A folder golden/NAME is a configuration of several files. `RTLIVE_BLESS=1 cargo test -p rtlive-config` writes the expected files anew;
//! read the difference before it is committed.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod catalogue;

use std::path::{Path, PathBuf};

use catalogue::TestDrivers;
use rtlive_config::check::check;
use rtlive_config::mistake::Mistakes;
use rtlive_config::report::Report;

const MACHINE_ID: &str = "0123456789abcdef0123456789abcdef";

fn report(path: &Path) -> String {
    let folder = path.parent().unwrap().display().to_string();
    let document = rtlive_config::load::read(&[path.to_owned()], rtlive_config::load::AGENT);
    let loaded: Result<_, Mistakes> =
        document.and_then(|document| check(&document, &TestDrivers { documented: false }, Some(MACHINE_ID)));
    format!("{}\n", Report::of(&loaded)).replace(&format!("{folder}/"), "")
}

#[test]
fn messages_are_as_written() {
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    let bless = std::env::var_os("RTLIVE_BLESS").is_some();
    let mut cases: Vec<PathBuf> = std::fs::read_dir(&golden).unwrap().map(|entry| entry.unwrap().path()).collect();
    cases.retain(|path| path.is_dir() || path.extension().is_some_and(|extension| extension == "toml"));
    cases.sort();
    assert!(cases.len() >= 10, "the golden files are gone");
    let mut different = Vec::new();
    for case in cases {
        let found = report(&case);
        let expected = case.with_extension("expected");
        if bless {
            std::fs::write(&expected, &found).unwrap();
        } else if std::fs::read_to_string(&expected).unwrap_or_default() != found {
            different.push(format!("── {}\n{found}", case.display()));
        }
    }
    assert!(different.is_empty(), "messages differ from the expected files; found:\n{}", different.join("\n"));
}
