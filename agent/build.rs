//! Notes when the program is built: no clock that shows an earlier time is right. And lets the linker make the program smaller.

use std::process::Command;
use std::time::{SystemTime, UNIX_EPOCH};

fn main() {
    // A build that is to be the same again says when it is (reproducible-builds.org, SOURCE_DATE_EPOCH).
    println!("cargo:rerun-if-env-changed=SOURCE_DATE_EPOCH");
    println!("cargo:rerun-if-changed=src");
    println!("cargo:rerun-if-changed=Cargo.toml");
    let given = std::env::var("SOURCE_DATE_EPOCH").ok().and_then(|seconds| seconds.parse::<u64>().ok());
    let now = || SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    println!("cargo:rustc-env=RTLIVE_BUILT_AT={}", given.unwrap_or_else(now));

    let is = |name: &str, value: &str| std::env::var(name).is_ok_and(|found| found == value);
    // What Rust's own linker can do, which is the usual one for no other target.
    if !(is("TARGET", "x86_64-unknown-linux-gnu") && is("PROFILE", "release")) {
        return;
    }
    // Functions that are the same become one: 40 kB.
    println!("cargo:rustc-link-arg-bins=-Wl,--icf=all");
    // Relocations as a bit map: 155 kB. A program that has them says that it needs such a glibc; one that is built on an older one does without.
    println!("cargo:rerun-if-env-changed=RTLIVE_GLIBC");
    let glibc = std::env::var("RTLIVE_GLIBC")
        .ok()
        .or_else(|| if is("HOST", "x86_64-unknown-linux-gnu") { glibc_here() } else { None });
    if glibc.and_then(|version| minor(&version)).is_some_and(|minor| minor >= 36) {
        println!("cargo:rustc-link-arg-bins=-Wl,-z,pack-relative-relocs");
    }
}

/// The version of this machine's glibc: `2.36`.
fn glibc_here() -> Option<String> {
    let output = Command::new("getconf").arg("GNU_LIBC_VERSION").output().ok()?;
    Some(String::from_utf8(output.stdout).ok()?.trim().strip_prefix("glibc ")?.to_owned())
}

/// What stands behind the point.
fn minor(version: &str) -> Option<u32> {
    version.strip_prefix("2.")?.split('.').next()?.parse().ok()
}
