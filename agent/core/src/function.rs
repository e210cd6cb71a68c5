//! Aggregate functions: their names, and what each needs to be kept while a window is open. docs/aggregates.md says what they mean.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// An aggregate function.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Function {
    /// How many readings; an integer.
    Count,
    /// The compensated sum (Neumaier 1974).
    Sum,
    /// The sum divided by the count of the numbers.
    Mean,
    /// The least value.
    Min,
    /// The greatest value.
    Max,
    /// The value of the earliest reading.
    First,
    /// The value of the latest reading.
    Last,
    /// The standard deviation of the population.
    Std,
    /// The root of the mean square.
    Rms,
    /// The greatest value minus the least.
    Range,
    /// What a counter rose by.
    Increase,
    /// What a counter rose by per second.
    Rate,
    /// How often a counter went back.
    Resets,
    /// The mean weighted by how long each value held.
    TimeMean,
    /// The seconds that each state held.
    TimeInState,
    /// A percentile, from a sketch.
    Percentile(Percentile),
}

/// Thousandths of a percent: 99,900 is the 99.9th percentile. Above 0 and below 100 %, which are [`Function::Min`] and [`Function::Max`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "u32", into = "u32")]
pub struct Percentile(u32);

/// A text that names no function; a number that is no percentile.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected the name of an aggregate function")]
pub struct NotAFunction;

/// How a sketch divides the numbers into buckets: what a percentile's error is.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub enum Buckets {
    /// A percentile is at most this part of the exact one away from it; from [`Buckets::RELATIVE_MIN`] to [`Buckets::RELATIVE_MAX`].
    Relative(f64),
    /// Multiples of a sensor's resolution, above 0: a percentile is at most half of it away.
    Steps(f64),
}

impl Buckets {
    /// The least relative error: buckets for more cost memory that a gateway does not have.
    pub const RELATIVE_MIN: f64 = 0.001;
    /// The greatest relative error.
    pub const RELATIVE_MAX: f64 = 0.1;
}

impl Default for Buckets {
    /// 1 %.
    fn default() -> Self {
        Self::Relative(0.01)
    }
}

impl Function {
    /// The functions that any window can compute whenever it likes: what they need is always kept.
    pub const PLAIN: [Self; 7] = [Self::Count, Self::Sum, Self::Mean, Self::Min, Self::Max, Self::First, Self::Last];

    /// Every function but the percentiles, of which there are many.
    pub const NAMED: [Self; 15] = [
        Self::Count,
        Self::Sum,
        Self::Mean,
        Self::Min,
        Self::Max,
        Self::First,
        Self::Last,
        Self::Std,
        Self::Rms,
        Self::Range,
        Self::Increase,
        Self::Rate,
        Self::Resets,
        Self::TimeMean,
        Self::TimeInState,
    ];

    /// The name in the configuration, in JSON and in frames.
    pub fn name(self) -> Cow<'static, str> {
        Cow::Borrowed(match self {
            Self::Count => "count",
            Self::Sum => "sum",
            Self::Mean => "mean",
            Self::Min => "min",
            Self::Max => "max",
            Self::First => "first",
            Self::Last => "last",
            Self::Std => "std",
            Self::Rms => "rms",
            Self::Range => "range",
            Self::Increase => "increase",
            Self::Rate => "rate",
            Self::Resets => "resets",
            Self::TimeMean => "time_mean",
            Self::TimeInState => "time_in_state",
            Self::Percentile(percentile) => return Cow::Owned(percentile.to_string()),
        })
    }

    /// Whether it has a meaning for bools and text; the others are absent from their aggregates.
    pub const fn takes_any_value(self) -> bool {
        matches!(self, Self::Count | Self::First | Self::Last | Self::TimeInState)
    }

    /// Whether it needs the squares of the numbers.
    pub const fn needs_squares(self) -> bool {
        matches!(self, Self::Std | Self::Rms)
    }

    /// Whether it needs a sketch of how the numbers are spread.
    pub const fn needs_sketch(self) -> bool {
        matches!(self, Self::Percentile(_))
    }

    /// Whether it needs the readings in the order of their times, and the one before the window.
    pub const fn needs_order(self) -> bool {
        matches!(self, Self::Increase | Self::Rate | Self::Resets | Self::TimeMean | Self::TimeInState)
    }
}

impl FromStr for Function {
    type Err = NotAFunction;

    fn from_str(text: &str) -> Result<Self, NotAFunction> {
        let named = Self::NAMED.into_iter().find(|function| function.name() == text);
        named.map_or_else(|| text.parse().map(Self::Percentile), Ok)
    }
}

impl Percentile {
    /// One whole, in thousandths of a percent.
    pub(crate) const WHOLE: u32 = 100_000;

    /// In thousandths of a percent.
    pub const fn thousandths(self) -> u32 {
        self.0
    }
}

impl TryFrom<u32> for Percentile {
    type Error = NotAFunction;

    fn try_from(thousandths: u32) -> Result<Self, NotAFunction> {
        if (1..Self::WHOLE).contains(&thousandths) { Ok(Self(thousandths)) } else { Err(NotAFunction) }
    }
}

impl From<Percentile> for u32 {
    fn from(percentile: Percentile) -> Self {
        percentile.0
    }
}

impl fmt::Display for Percentile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = format!("p{}.{:03}", self.0 / 1000, self.0 % 1000);
        f.write_str(text.trim_end_matches('0').trim_end_matches('.'))
    }
}

impl FromStr for Percentile {
    type Err = NotAFunction;

    /// Only the shortest form is taken: `p99.9`, not `p99.90` or `p099.9`.
    fn from_str(text: &str) -> Result<Self, NotAFunction> {
        let number = text.strip_prefix('p').ok_or(NotAFunction)?;
        let (percent, thousandths) = number.split_once('.').unwrap_or((number, ""));
        let digits = format!("{percent}{thousandths:0<3}");
        let number: u32 = digits.parse().map_err(|_| NotAFunction)?;
        let percentile = Self::try_from(number)?;
        if percentile.to_string() == text { Ok(percentile) } else { Err(NotAFunction) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_is_read_as_what_it_names() {
        for function in Function::NAMED {
            assert_eq!(function.name().parse(), Ok(function));
        }
        for thousandths in 1..Percentile::WHOLE {
            let function = Function::Percentile(Percentile(thousandths));
            assert_eq!(function.name().parse(), Ok(function));
        }
        for (text, thousandths) in [("p95", 95_000), ("p99.9", 99_900), ("p0.001", 1), ("p5", 5_000), ("p50", 50_000)] {
            assert_eq!(text.parse(), Ok(Percentile(thousandths)));
        }
    }

    #[test]
    fn what_is_no_percentile_is_refused() {
        for text in [
            "", "p", "p0", "p100", "p050", "p99.90", "p99.", "p.5", "p1.2345", "p-5", "p+5", "q50", "P50", "é50",
            "p95%",
        ] {
            assert_eq!(text.parse::<Function>(), Err(NotAFunction), "{text}");
        }
        assert!(postcard::from_bytes::<Percentile>(&postcard::to_stdvec(&100_000_u32).unwrap()).is_err());
    }
}
