//! How far long work has come, on standard error where that is a terminal.

use std::io::{self, IsTerminal, Write};
use std::time::{Duration, Instant};

/// How often it is drawn.
const DRAW_EVERY: Duration = Duration::from_millis(100);

/// The bar's width in characters.
const WIDTH: usize = 30;

/// Long work that is under way.
pub(super) struct Progress {
    total: u64,
    done: u64,
    drawn: Option<Instant>,
    is_shown: bool,
    unit: &'static str,
}

impl Progress {
    /// Nothing of `total` steps is done.
    pub(super) fn new(total: u64, unit: &'static str) -> Self {
        Self { total, done: 0, drawn: None, is_shown: io::stderr().is_terminal(), unit }
    }

    /// A step is done.
    pub(super) fn step(&mut self) {
        self.done += 1;
        if self.is_shown && self.drawn.is_none_or(|drawn| drawn.elapsed() >= DRAW_EVERY) {
            self.drawn = Some(Instant::now());
            let (done, total) = (self.done, self.total.max(self.done).max(1));
            let full = usize::try_from(done * WIDTH as u64 / total).unwrap_or(WIDTH);
            // A terminal that is gone shows nothing; the work goes on.
            let _ = write!(io::stderr(), "\r[{:<WIDTH$}] {done} of {total} {}", "#".repeat(full), self.unit);
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if self.drawn.is_some() {
            let _ = write!(io::stderr(), "\r\x1b[K");
        }
    }
}
