//! The rules of the house that no compiler checks.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// Package, and what it may use of the workspace. Whatever is not listed may not be used.
const USES: [(&str, &[&str]); 6] = [
    ("agent/core", &[]),
    ("config", &["rtlive-core"]),
    ("drivers", &["rtlive-config", "rtlive-core"]),
    ("agent", &["rtlive-config", "rtlive-core", "rtlive-drivers"]),
    ("receiver", &["rtlive-config", "rtlive-core"]),
    ("tests", &["rtlive", "rtlive-config", "rtlive-core", "rtlive-drivers", "rtlive-receiver"]),
];

/// What the core must not name: clocks, I/O, threads, and maps whose order differs from run to run.
const NOT_IN_THE_CORE: [&str; 12] = [
    "SystemTime",
    "Instant",
    "std::fs",
    "std::net",
    "std::thread",
    "std::process",
    "std::env",
    "HashMap",
    "HashSet",
    "tokio",
    "println!",
    "Timestamp::now",
];

/// Each of these may be named in one module of a program only, so that it can be exchanged there.
const ONE_MODULE: [(&str, &[&str]); 3] = [
    ("rusqlite::", &["agent/src/store", "receiver/src/state"]),
    ("rumqttd::", &["agent/src/demo/broker.rs"]),
    ("rustls::", &["drivers/src/tls", "receiver/src/tls.rs"]),
];

/// Ways of rumqttc to make a TLS configuration of its own, which links a faulty verifier: `.deny.toml` ignores its advisories because none is taken.
const NOT_OF_RUMQTTC: [&str; 4] =
    ["TlsConfiguration::Simple", "TlsConfiguration::default", "tls_with_default_config", "Transport::tls("];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

fn sources(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(sources(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
    found
}

/// The text of a source without comments and without its test module, which may do as it likes.
fn code(path: &Path) -> String {
    let text = fs::read_to_string(path).unwrap();
    let text = text.split("#[cfg(test)]\nmod ").next().unwrap();
    text.lines().filter(|line| !line.trim_start().starts_with("//")).map(|line| format!("{line}\n")).collect()
}

#[test]
fn packages_use_only_what_stands_left_of_them() {
    for (package, allowed) in USES {
        let manifest = fs::read_to_string(root().join(package).join("Cargo.toml")).unwrap();
        let used = manifest
            .lines()
            .filter_map(|line| line.split(['.', ' ', '=']).next())
            .filter(|name| name.starts_with("rtlive"));
        for name in used {
            assert!(allowed.contains(&name), "{package} must not use {name}");
        }
    }
}

#[test]
fn the_core_performs_no_io_and_reads_no_clock() {
    let sources = sources(&root().join("agent/core/src"));
    assert!(sources.len() > 5, "the core was not found");
    for path in sources {
        let code = code(&path);
        for word in NOT_IN_THE_CORE {
            assert!(!code.contains(word), "{} names {word}", path.display());
        }
    }
}

#[test]
fn what_may_be_exchanged_is_named_in_one_module() {
    for (word, modules) in ONE_MODULE {
        for folder in ["agent/core/src", "agent/src", "config/src", "drivers/src", "receiver/src"] {
            for path in sources(&root().join(folder)) {
                let inside = modules.iter().any(|module| path.starts_with(root().join(module)));
                assert!(inside || !code(&path).contains(word), "{} names {word}", path.display());
            }
        }
    }
}

#[test]
fn certificates_are_verified_under_our_own_configuration() {
    for folder in ["agent/src", "drivers/src", "receiver/src"] {
        for path in sources(&root().join(folder)) {
            let code = code(&path);
            let taken = NOT_OF_RUMQTTC.into_iter().find(|way| code.contains(way));
            assert_eq!(taken, None, "{}", path.display());
        }
    }
}

#[test]
fn every_dependency_says_what_it_is_for() {
    let manifest = fs::read_to_string(root().join("Cargo.toml")).unwrap();
    let (_, rest) = manifest.split_once("[workspace.dependencies]").unwrap();
    let (dependencies, _) = rest.split_once("\n[").unwrap();
    let dependencies = dependencies.lines().filter_map(|line| line.split_once(" = ")).map(|(name, _)| name);
    let expected: BTreeSet<&str> =
        dependencies.filter(|name| !name.starts_with('#') && !name.starts_with("rtlive")).collect();
    let page = fs::read_to_string(root().join("docs/dependencies.md")).unwrap();
    let rows = page.lines().filter_map(|line| line.strip_prefix("| ")?.split(" |").next());
    let described: BTreeSet<&str> = rows.filter(|&name| name != "crate").collect();
    assert_eq!(
        described, expected,
        "docs/dependencies.md has a row for each of [workspace.dependencies], and no other"
    );
}

/// What lies in the project, without what is built or hidden.
fn pages(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap();
        if path.is_dir() && !name.starts_with('.') && name != "target" {
            found.extend(pages(&path));
        } else if name.ends_with(".md") {
            found.push(path);
        }
    }
    found
}

#[test]
fn links_in_the_documentation_lead_somewhere() {
    let pages = pages(&root());
    assert!(pages.iter().any(|page| page.ends_with("README.md")), "the documentation was not found");
    for page in pages {
        let text = fs::read_to_string(&page).unwrap();
        let targets = text.split("](").skip(1).filter_map(|rest| rest.split(')').next());
        for target in targets.filter(|target| !target.contains("://")) {
            let path = target.split('#').next().unwrap();
            assert!(page.parent().unwrap().join(path).exists(), "{} links to {target}", page.display());
        }
    }
}
