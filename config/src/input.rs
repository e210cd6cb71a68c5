//! Inputs: what all of them have, whatever their driver.

use std::sync::Arc;
use std::time::Duration;

use rtlive_core::plan::{Durability, InputPlan};
use rtlive_core::reading::{InputId, series_level};

use crate::catalogue::{Catalogue, CheckedInput};
use crate::mistake::nearest;
use crate::name::named_tables;
use crate::options::words;
use crate::quantity::{Period, Span};
use crate::table::{Table, Value};
use crate::value::{Setting, parse};
use crate::{choices, options};

/// The most inputs of an agent: more than a gateway has ports for, and far below what an [`InputId`] can number.
pub const INPUTS_MAX: usize = 1_000;

/// `out_of_order` of a source that speaks by itself.
const OUT_OF_ORDER_PUSHED: Duration = Duration::from_secs(2);

/// The least `idle` by default: a source that is asked every 100 ms is not gone after one lost answer.
const IDLE_MIN: Duration = Duration::from_secs(10);

/// `idle` in polls by default.
const IDLE_POLLS: u32 = 3;

/// The longest prefix, so that a series name of 255 bytes has room for the rest.
const PREFIX_BYTES_MAX: usize = 128;

choices! {
    for Durability {
        /// With the next commit.
        Commit = "commit",
        /// With a commit that is made anyway, or after ten commit intervals: fewer writes to flash, and more that a power cut can lose.
        Relaxed = "relaxed",
    }
}

options! {
    /// The keys that every input has, whatever its driver.
    pub struct InputOptions {
        /// The driver that reads it.
        pub driver: String,
        /// What its series begin with, instead of the input's name: moving a meter to another bus need not rename its history.
        pub prefix: Option<Prefix>,
        /// How far behind the newest event time the watermark stays, so that readings may overtake each other. Absent: 0 for an input
        /// that is polled, 2 s for one that speaks by itself.
        pub out_of_order: Option<Span>,
        /// After how long a silence it no longer holds back joins, and its open windows are emitted as they are, not final. Absent:
        /// 3 × `every`, at least 10 s.
        pub idle: Option<Span>,
        /// How far ahead of its arrival a reading may be; one further ahead goes to the stream `quarantine`.
        pub max_ahead: Span = "5m",
        /// Times are rounded to the nearest multiple of this, such as `"10ms"` or `"100ms"`: jitter of a millisecond takes as many bytes as the values
        /// themselves. Absent: as they are.
        pub round: Option<Period>,
        /// When its readings must be on disk.
        pub durability: Durability = "commit",
        later: ["class"],
    }
}

/// The first levels of an input's series: `"plant/meters"`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Prefix(pub String);

impl Setting for Prefix {
    fn expected() -> String {
        format!("levels such as \"plant/meters\", none empty or with + # {{ }}, at most {PREFIX_BYTES_MAX} bytes")
    }

    fn read(value: &Value<'_>) -> Option<Self> {
        let is_level = |level: &str| series_level(level) == level;
        parse(value, |text| {
            (text.len() <= PREFIX_BYTES_MAX && text.split('/').all(is_level)).then(|| Self(text.to_owned()))
        })
    }
}

/// An input, checked.
#[derive(Clone, Debug)]
pub struct InputConfig<I> {
    /// Its number in the plan.
    pub id: InputId,
    /// Its name.
    pub name: Arc<str>,
    /// What its series begin with.
    pub prefix: Arc<str>,
    /// The driver's name.
    pub driver: String,
    /// What runs.
    pub input: I,
    /// Whether the agent asks, or the source speaks by itself.
    pub polled: bool,
    /// Whether the source speaks for several devices or topics, each with a watermark of its own.
    pub multiplexes: bool,
    /// The shortest interval at which the source is polled.
    pub every: Option<Duration>,
    /// What times are rounded to multiples of.
    pub round: Option<Duration>,
    /// Whether the source keeps what was not acknowledged.
    pub can_be_asked_again: bool,
    /// The series that it will have, prefix and all, as far as they are known beforehand.
    pub series: Vec<String>,
    /// Whether it may have others too.
    pub has_others: bool,
    /// Readings per second, where that is known beforehand.
    pub readings_per_second: Option<f64>,
}

impl<I> InputConfig<I> {
    /// How many series it will have, where that is known beforehand.
    pub fn series_count(&self) -> Option<usize> {
        (!self.has_others).then_some(self.series.len())
    }
}

/// Checks `[inputs.*]`, and gives the inputs with their part of the plan, by name.
pub(crate) fn check<I>(root: &Table<'_>, catalogue: &dyn Catalogue<I>) -> Vec<(InputConfig<I>, InputPlan)> {
    let Some(inputs) = root.table("inputs") else { return Vec::new() };
    let tables = named_tables(&inputs, "an input");
    if tables.len() > INPUTS_MAX {
        inputs.mistake("", format!("at most {INPUTS_MAX} inputs"), tables.len());
        return Vec::new();
    }
    let mut prefixes: Vec<(String, &str)> = Vec::new();
    let mut checked = Vec::new();
    for (name, table) in &tables {
        let options = InputOptions::read_part(table);
        // The driver's own mistakes are wanted whatever else is wrong; without a driver nobody knows the keys.
        let input = match table.text("driver").filter(|driver| !driver.is_empty()) {
            Some(driver) if catalogue.summary(driver).is_some() => {
                let input = catalogue.check(driver, table);
                table.close();
                input
            }
            Some(driver) => {
                unknown_driver(table, driver, &catalogue.names());
                None
            }
            None => None,
        };
        let prefix = options.as_ref().and_then(|options| prefix(table, name, options, &mut prefixes, &inputs));
        if let (Some(options), Some(input), Some(prefix)) = (options, input, prefix) {
            let multiplexes = catalogue.multiplexes(&options.driver);
            let (config, plan) = assemble(checked.len(), name, prefix, options, input);
            checked.push((InputConfig { multiplexes, ..config }, plan));
        }
    }
    checked
}

fn assemble<I>(
    place: usize,
    name: &str,
    prefix: String,
    options: InputOptions,
    checked: CheckedInput<I>,
) -> (InputConfig<I>, InputPlan) {
    let InputOptions { driver, prefix: _, out_of_order, idle, max_ahead, round, durability } = options;
    let name: Arc<str> = name.into();
    let prefix: Arc<str> = prefix.into();
    let pushed = if checked.polled { Duration::ZERO } else { OUT_OF_ORDER_PUSHED };
    let silent = checked.every.map_or(IDLE_MIN, |every| every.saturating_mul(IDLE_POLLS).max(IDLE_MIN));
    let plan = InputPlan {
        name: Arc::clone(&name),
        prefix: Arc::clone(&prefix),
        out_of_order: out_of_order.map_or(pushed, |span| span.0),
        idle: idle.map_or(silent, |span| span.0),
        max_ahead: max_ahead.0,
        can_be_asked_again: checked.can_be_asked_again,
        durability,
    };
    let id = InputId(u16::try_from(place).unwrap_or(u16::MAX));
    let CheckedInput { input, polled, every, can_be_asked_again, series, has_others, readings_per_second } = checked;
    let series = series.into_iter().map(|rest| format!("{prefix}/{rest}")).collect();
    let config = InputConfig {
        id,
        name,
        prefix,
        driver,
        input,
        polled,
        multiplexes: false,
        every,
        round: round.map(|period| period.0),
        can_be_asked_again,
        series,
        has_others,
        readings_per_second,
    };
    (config, plan)
}

/// The prefix of an input, checked against those of the inputs before it.
///
/// Equal prefixes, or one below the other, would let two sources write one series.
fn prefix<'a>(
    table: &Table<'_>,
    name: &'a str,
    options: &InputOptions,
    known: &mut Vec<(String, &'a str)>,
    inputs: &Table<'_>,
) -> Option<String> {
    let prefix = options.prefix.as_ref().map_or_else(|| name.to_owned(), |prefix| prefix.0.clone());
    let key = if options.prefix.is_some() { "prefix" } else { "" };
    let below = |a: &str, b: &str| a.strip_prefix(b).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
    if let Some((other, owner)) = known.iter().find(|(other, _)| below(other, &prefix) || below(&prefix, other)) {
        let place = inputs.place_of(owner);
        let found = format!("{prefix:?}, beside {other:?} of the input {owner} at {place}");
        table.mistake(key, "a prefix of its own, so that no series has two sources", found);
        return None;
    }
    known.push((prefix.clone(), name));
    Some(prefix)
}

fn unknown_driver(table: &Table<'_>, driver: &str, names: &[&str]) {
    let found = match nearest(driver, names.iter().copied()) {
        Some(nearest) => format!("{driver:?} (did you mean {nearest:?}?)"),
        None => format!("{driver:?}"),
    };
    table.mistake("driver", format!("a driver: {}", words(names)), found);
}
