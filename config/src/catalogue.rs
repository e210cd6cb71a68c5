//! The catalogue: what the configuration must know of the drivers, which it does not depend on.

use std::time::Duration;

use crate::reference::Reference;
use crate::table::Table;

/// The drivers, as the configuration sees them. `I` is what runs.
pub trait Catalogue<I> {
    /// The names of all drivers.
    fn names(&self) -> Vec<&'static str>;

    /// What a driver reads, in one line; `None` for a driver that does not exist.
    fn summary(&self, driver: &str) -> Option<&'static str>;

    /// The options of a driver; `None` for a driver that does not exist.
    fn reference(&self, driver: &str) -> Option<Reference>;

    /// Whether a driver's source speaks for several devices or topics, each with a watermark of its own.
    fn multiplexes(&self, _driver: &str) -> bool {
        false
    }

    /// Checks an input's table with its driver. Keys that all inputs have are read already. Every mistake is noted in the table;
    /// `None` if there was one, or if there is no such driver.
    fn check(&self, driver: &str, table: &Table<'_>) -> Option<CheckedInput<I>>;
}

/// An input that was checked, and what the rest of the program must know of it.
#[derive(Clone, Debug)]
pub struct CheckedInput<I> {
    /// What runs.
    pub input: I,
    /// Whether the agent asks (`out_of_order` is 0 by default), or the source speaks by itself (2 s).
    pub polled: bool,
    /// The shortest interval at which the source is polled, for `idle` and for the plan.
    pub every: Option<Duration>,
    /// Whether the source keeps what was not acknowledged.
    pub can_be_asked_again: bool,
    /// The series that it will have, below its prefix, as far as they are known beforehand.
    pub series: Vec<String>,
    /// Whether it may have others too.
    pub has_others: bool,
    /// Readings per second, where that is known beforehand.
    pub readings_per_second: Option<f64>,
}
