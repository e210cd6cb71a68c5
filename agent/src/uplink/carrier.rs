//! Whether the interface of a link still has a carrier: a cable that was pulled is known in seconds, where TCP takes minutes to give up.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use tokio::time::{Instant, sleep_until};

/// How often the interface in use is looked at.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// What the kernel says of an interface that carries nothing (Documentation/networking/operstates.rst). `unknown` is that of tunnels and modems.
const GONE: [&str; 3] = ["down", "lowerlayerdown", MISSING];
const MISSING: &str = "notpresent";

/// Looks at the interface in use.
pub(super) struct Carrier {
    interface: String,
    /// Where the kernel says how it is; in a network namespace it may say nothing.
    file: PathBuf,
    has_been: bool,
    next_look: Instant,
}

impl Carrier {
    /// Begins with an interface over which there is a connection.
    pub(super) fn of(interface: &str) -> Self {
        let file = PathBuf::from(format!("/sys/class/net/{interface}/operstate"));
        Self { interface: interface.to_owned(), file, has_been: false, next_look: Instant::now() }
    }

    /// Waits until the interface has gone; says what it is then. May be dropped while it waits.
    pub(super) async fn lost(&mut self) -> String {
        loop {
            sleep_until(self.next_look).await;
            self.next_look = Instant::now() + LOOK_EVERY;
            // A file of the kernel, which never waits for a device.
            let state = fs::read_to_string(&self.file).unwrap_or_else(|_| MISSING.into());
            let is_gone = GONE.contains(&state.trim_end());
            if is_gone && self.has_been {
                let what = if state.trim_end() == MISSING { "gone" } else { "down" };
                return format!("the interface {} is {what}", self.interface);
            }
            self.has_been |= !is_gone;
        }
    }
}
