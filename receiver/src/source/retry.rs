//! When a connection is tried again.

use std::fmt::Display;
use std::time::Duration;

use rtlive_core::backoff::Backoff;

/// How long a connection must last before the next failure is a first one.
const STABLE_AFTER: Duration = Duration::from_secs(30);
/// The shortest and the longest wait before a connection is tried again.
const WAIT_MIN: Duration = Duration::from_millis(500);
const WAIT_MAX: Duration = Duration::from_secs(30);

/// The attempts at one peer.
pub(super) struct Retry {
    peer: String,
    backoff: Backoff,
}

impl Retry {
    pub(super) fn new(peer: String) -> Self {
        Self { peer, backoff: Backoff::new(WAIT_MIN, WAIT_MAX, seed()) }
    }

    /// Tells why a connection, which lasted for so long, ended or was not made, and waits until the next attempt. May be dropped.
    pub(super) async fn wait(&mut self, failure: &impl Display, lasted: Duration) {
        if lasted >= STABLE_AFTER {
            self.backoff.reset();
        }
        let wait = self.backoff.next_wait(Duration::ZERO);
        tracing::warn!("{}: {failure}; next attempt in {:.1} s", self.peer, wait.as_secs_f64());
        tokio::time::sleep(wait).await;
    }
}

/// A number that differs from one receiver to the next, so that they do not all connect at once when their broker is back.
fn seed() -> u64 {
    let mut bytes = [0; 8];
    // getrandom(2) of 8 bytes cannot be cut short; without it the process id has to do.
    match rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty()) {
        Ok(_) => u64::from_ne_bytes(bytes),
        Err(_) => std::process::id().into(),
    }
}
