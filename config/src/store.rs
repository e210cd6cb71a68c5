//! The store: when readings are on disk.

use std::time::Duration;

use crate::options;
use crate::quantity::{Span, write_span};
use crate::table::{Table, Value};
use crate::value::{Setting, or_wrong};

/// The shortest commit interval: each commit costs a sync, and flash does a few hundred a second.
const COMMIT_EVERY_MIN: Duration = Duration::from_millis(10);

/// The longest: what a power cut can lose, and what waits in memory.
const COMMIT_EVERY_MAX: Duration = Duration::from_secs(3_600);

options! {
    /// The buffer on disk.
    pub struct StoreOptions {
        /// How often what was read is made durable: the most that a power cut can lose. An alert is committed at once.
        pub commit_every: CommitEvery = "1s",
        later: ["max_bytes", "max_age", "flash"],
    }
}

/// A commit interval.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CommitEvery(pub Duration);

impl Setting for CommitEvery {
    fn expected() -> String {
        format!("a span from {} to {}", write_span(COMMIT_EVERY_MIN), write_span(COMMIT_EVERY_MAX))
    }

    fn read(value: &Value<'_>) -> Option<Self> {
        let Span(span) = Span::read(value)?;
        or_wrong(value, (COMMIT_EVERY_MIN..=COMMIT_EVERY_MAX).contains(&span).then_some(Self(span)))
    }
}

/// The store, checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StoreConfig {
    /// How often what was read is made durable.
    pub commit_every: Duration,
}

/// Checks `[store]`.
pub(crate) fn check(table: &Table<'_>) -> Option<StoreConfig> {
    let StoreOptions { commit_every } = StoreOptions::read(table)?;
    Some(StoreConfig { commit_every: commit_every.0 })
}
