//! Complaints about what agents send, so that a fault which repeats does not fill the log.

use std::fmt::Display;
use std::time::{Duration, Instant};

/// How long after a complaint others are only counted.
const QUIET: Duration = Duration::from_secs(10);

/// Tells complaints, and counts those that come too fast.
#[derive(Debug, Default)]
pub(crate) struct Complaints {
    told_at: Option<Instant>,
    untold: u64,
}

impl Complaints {
    /// Logs a complaint, unless another was logged a moment ago.
    pub(crate) fn tell(&mut self, what: impl Display) {
        let now = Instant::now();
        if self.told_at.is_some_and(|at| now.duration_since(at) < QUIET) {
            self.untold += 1;
            return;
        }
        self.told_at = Some(now);
        match std::mem::take(&mut self.untold) {
            0 => tracing::warn!("{what}"),
            untold => tracing::warn!("{what} ({untold} others were not logged)"),
        }
    }
}
