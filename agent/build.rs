//! Notes when the program is built: no clock that shows an earlier time is right.

use std::time::{SystemTime, UNIX_EPOCH};

fn main() {
    // A build that is to be the same again says when it is (reproducible-builds.org, SOURCE_DATE_EPOCH).
    println!("cargo:rerun-if-env-changed=SOURCE_DATE_EPOCH");
    println!("cargo:rerun-if-changed=src");
    println!("cargo:rerun-if-changed=Cargo.toml");
    let given = std::env::var("SOURCE_DATE_EPOCH").ok().and_then(|seconds| seconds.parse::<u64>().ok());
    let now = || SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    println!("cargo:rustc-env=RTLIVE_BUILT_AT={}", given.unwrap_or_else(now));
}
