//! One instant of a join: what every name is then, and what the expression makes of it.

use std::sync::Arc;
use std::time::Duration;

use super::derived::{Joined, Point};
use crate::expr::{Sample, Scope};
use crate::plan::{DerivedPlan, Join};
use crate::reading::{ClockState, Quality, Reading, Scalar, SeriesId, Value};
use crate::time::Timestamp;

/// The samples of an instance at a time, or with `None` the newest ones.
pub(super) struct Moment<'a> {
    pub(super) joined: &'a [Joined],
    pub(super) sides: &'a [Option<u32>],
    pub(super) within: Duration,
    pub(super) at: Timestamp,
    pub(super) is_newest: bool,
}

impl Moment<'_> {
    fn side(&self, binding: usize) -> Option<&Joined> {
        self.joined.get((*self.sides.get(binding)?)? as usize)
    }

    /// The place of the newest sample at or before the time, if it is not too old.
    fn place(&self, binding: usize) -> Option<(&Joined, usize)> {
        let side = self.side(binding)?;
        let place = side.samples.partition_point(|point| point.sample.time <= self.at).checked_sub(1)?;
        self.is_near(side.samples.get(place)?.sample.time).then_some((side, place))
    }

    fn is_near(&self, time: Timestamp) -> bool {
        self.at.since(time) <= self.within
    }

    fn point(&self, binding: usize) -> Option<&Point> {
        let (side, place) = self.place(binding)?;
        side.samples.get(place)
    }
}

impl Scope for Moment<'_> {
    fn newest(&self, binding: usize) -> Option<&Sample> {
        match self.is_newest {
            true => self.side(binding)?.newest.newest().filter(|sample| self.is_near(sample.time)),
            false => self.point(binding).map(|point| &point.sample),
        }
    }

    fn previous(&self, binding: usize) -> Option<&Sample> {
        if self.is_newest {
            self.newest(binding)?;
            return self.side(binding)?.newest.previous();
        }
        let (side, place) = self.place(binding)?;
        side.samples.get(place.checked_sub(1)?).map(|point| &point.sample)
    }
}

/// The value of a definition at a moment; `None` when it is missing.
pub(super) fn value(definition: &DerivedPlan, moment: &Moment<'_>) -> Option<Value> {
    let is_whole = |name: usize| moment.newest(name).is_some_and(|sample| sample.value.is_some());
    if definition.join == Join::Inner && !(0..definition.bindings.len()).all(is_whole) {
        return None;
    }
    Some(match definition.expr.eval(moment)? {
        Scalar::Float(value) => Value::Float(value),
        Scalar::Int(value) => Value::Int(value),
        Scalar::Bool(value) => Value::Bool(value),
        Scalar::Text(value) => Value::Text(Arc::clone(value)),
    })
}

/// The reading of a moment, as suspect as what it was made of.
pub(super) fn reading(series: SeriesId, moment: &Moment<'_>, value: Value) -> Reading {
    let is_suspect = (0..moment.sides.len()).filter_map(|name| moment.point(name)).any(|point| point.is_suspect);
    let quality = if is_suspect { Quality::Suspect } else { Quality::Good };
    Reading { series, time: moment.at, value, quality, check: None, clock: ClockState::Synced }
}
