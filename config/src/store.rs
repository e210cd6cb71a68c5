//! The store: when readings are on disk.

use std::time::Duration;

use crate::options;
use crate::quantity::{ByteCount, Period, Span, write_span};
use crate::table::{Table, Value};
use crate::value::{Bounded, Setting, or_wrong};

/// The shortest commit interval: each commit costs a sync, and flash does a few hundred a second.
const COMMIT_EVERY_MIN: Duration = Duration::from_millis(10);

/// The longest: what a power cut can lose, and what waits in memory.
const COMMIT_EVERY_MAX: Duration = Duration::from_secs(3_600);

options! {
    /// The buffer on disk.
    pub struct StoreOptions {
        /// How often what was read is made durable: the most that a power cut can lose. An alert is committed at once.
        pub commit_every: CommitEvery = "1s",
        /// The most that the buffer takes on disk, from 1 MiB: the file, its log, and files that were set aside. It takes at most half of the
        /// file system. When it is full, the oldest records of the lowest priority go, and a gap names them.
        pub max_bytes: StoreBytes = "512 MiB",
        /// How long records wait for the link. What is older goes, and a gap names it.
        pub max_age: Period = "30d",
        /// What the buffer lies on: `{ size = "8 GB", cycles = 3000 }`. `rtlive check` and `rtlive status` then say how long it lasts.
        pub flash: Option<FlashOptions>,
    }
}

options! {
    /// The flash that the buffer lies on.
    pub struct FlashOptions {
        /// How much it holds, over which it spreads what is written.
        pub size: ByteCount,
        /// How often each of its cells can be written, by its data sheet: some 1,000 to 3,000 for the flash of today's cards.
        pub cycles: Bounded<u32, 1, 10_000_000>,
    }
}

/// How many bytes of its cells a card writes for each that it is asked for, where that is a few blocks with a sync behind them: it erases and
/// copies in far larger pieces. An assumption: makers do not tell.
pub const CELLS_PER_BYTE: f64 = 4.0;

/// The flash that the buffer lies on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flash {
    /// How many bytes it holds.
    pub bytes: u64,
    /// How often each cell can be written.
    pub cycles: u32,
}

impl Flash {
    /// How many years it lasts under so many bytes a day, of each of which it makes [`CELLS_PER_BYTE`].
    pub fn years(self, bytes_per_day: f64) -> f64 {
        const DAYS_PER_YEAR: f64 = 365.25;
        self.bytes as f64 * f64::from(self.cycles) / (bytes_per_day * CELLS_PER_BYTE) / DAYS_PER_YEAR
    }
}

/// The least buffer: a log, two snapshots, and a minute or two of readings.
const BYTES_MIN: u64 = 1 << 20;

/// The most that a buffer takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StoreBytes(pub u64);

impl Setting for StoreBytes {
    fn expected() -> String {
        "a number of bytes from \"1 MiB\"".into()
    }

    fn read(value: &Value<'_>) -> Option<Self> {
        let ByteCount(bytes) = ByteCount::read(value)?;
        or_wrong(value, (bytes >= BYTES_MIN).then_some(Self(bytes)))
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
    /// The most that the buffer takes on disk, in bytes.
    pub max_bytes: u64,
    /// How long records wait for the link.
    pub max_age: Duration,
    /// What it lies on, where that is told.
    pub flash: Option<Flash>,
}

/// Checks `[store]`.
pub(crate) fn check(table: &Table<'_>) -> Option<StoreConfig> {
    let StoreOptions { commit_every, max_bytes, max_age, flash } = StoreOptions::read(table)?;
    let flash = flash.map(|FlashOptions { size, cycles }| Flash { bytes: size.0, cycles: cycles.get() });
    Some(StoreConfig { commit_every: commit_every.0, max_bytes: max_bytes.0, max_age: max_age.0, flash })
}
