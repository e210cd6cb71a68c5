//! `rtlive --version`: the version and the features of this build.

/// Prints the version, and the features that this build has.
pub fn print() {
    println!("rtlive {}", env!("CARGO_PKG_VERSION"));
    let features: &[&str] = if cfg!(feature = "demo") { &["demo"] } else { &[] };
    let drivers: Vec<_> = rtlive_drivers::registry::DRIVERS.iter().map(|driver| driver.name).collect();
    println!("features: {}", if features.is_empty() { "none".into() } else { features.join(" ") });
    println!("drivers: {}", drivers.join(" "));
}
