//! Notes when the program is built: no clock that shows an earlier time is right. And lets the linker fold functions that are the same.

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
    let is_pc = is("CARGO_CFG_TARGET_ARCH", "x86_64") && is("CARGO_CFG_TARGET_OS", "linux");
    // 40 kB. Rust's own linker does it, which is the usual one for no other target.
    if is_pc && is("PROFILE", "release") {
        println!("cargo:rustc-link-arg-bins=-Wl,--icf=all");
    }
}
