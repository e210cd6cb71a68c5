//! What the user is shown to begin with passes the check of the real program.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::fs;
use std::path::{Path, PathBuf};

use rtlive_tests::program::run;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

#[track_caller]
fn passes(file: &Path) {
    let output = run(&["-c", file.to_str().unwrap(), "check"]).unwrap();
    assert!(output.status.success(), "{}: {}", file.display(), String::from_utf8_lossy(&output.stderr));
}

#[test]
fn the_configuration_of_the_readme_is_right() {
    let readme = fs::read_to_string(root().join("README.md")).unwrap();
    let (_, rest) = readme.split_once("```toml\n").expect("a configuration in README.md");
    let (configuration, _) = rest.split_once("```").unwrap();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("readme.toml");
    fs::write(&file, configuration).unwrap();
    passes(&file);
}

#[test]
fn the_examples_are_right() {
    let mut files: Vec<PathBuf> = Vec::new();
    for entry in fs::read_dir(root().join("config/examples")).unwrap() {
        files.push(entry.unwrap().path());
    }
    assert!(files.len() >= 4, "the examples were not found");
    for file in files {
        passes(&file);
    }
}
