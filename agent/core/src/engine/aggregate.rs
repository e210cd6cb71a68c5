//! The aggregate of one series over one window, as it grows.
//!
//! Independent of the order of its readings: count, min, max, first and last exactly, the sum to the last bits of a compensated
//! sum. Where two readings of a series have the same time, `first` is the least and `last` the greatest of them
//! ([`Scalar::total_cmp`]), so that not even their order counts.
//!
//! Integers stay integers in min, max, first and last; sum and mean are floats always, so that a stream's columns keep their type.

use std::cmp::Ordering;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::ledger::COUNT_MAX;
use crate::plan::Function;
use crate::reading::{Scalar, Value};
use crate::time::Timestamp;

/// Count, sum and the four picked values. All functions are kept whatever the window computes: it is as fast as asking which are
/// wanted, and a reload that changes the list loses nothing.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Accumulator {
    /// All readings.
    count: u64,
    /// The bools and texts among them.
    others: u64,
    sum: f64,
    /// What `sum` lost to rounding (Neumaier 1974, "Rundungsfehleranalyse einiger Verfahren zur Summation endlicher Summen").
    lost: f64,
    min: Packed,
    max: Packed,
    first: Packed,
    last: Packed,
    kinds: [Kind; 4],
    first_time: Timestamp,
    last_time: Timestamp,
    /// `first` and `last` where they are texts.
    texts: Option<Box<[Option<Arc<str>>; 2]>>,
}

/// The bits of a value; its [`Kind`] stands beside, which saves half of what an enum would take.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
struct Packed(u64);

/// What the bits of a [`Packed`] are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
enum Kind {
    #[default]
    Absent,
    Float,
    Int,
    Bool,
    Text,
}

// Places in `kinds`.
const MIN: usize = 0;
const MAX: usize = 1;
const FIRST: usize = 2;
const LAST: usize = 3;

impl Packed {
    fn of(value: Scalar<'_>) -> (Self, Kind) {
        match value {
            Scalar::Float(value) => (Self(value.to_bits()), Kind::Float),
            Scalar::Int(value) => (Self(value.cast_unsigned()), Kind::Int),
            Scalar::Bool(value) => (Self(value.into()), Kind::Bool),
            Scalar::Text(_) => (Self(0), Kind::Text),
        }
    }

    fn scalar(self, kind: Kind, text: Option<&Arc<str>>) -> Option<Scalar<'_>> {
        Some(match kind {
            Kind::Absent => return None,
            Kind::Float => Scalar::Float(f64::from_bits(self.0)),
            Kind::Int => Scalar::Int(self.0.cast_signed()),
            Kind::Bool => Scalar::Bool(self.0 != 0),
            Kind::Text => Scalar::Text(text?),
        })
    }

    fn value(self, kind: Kind, text: Option<&Arc<str>>) -> Option<Value> {
        Some(match kind {
            Kind::Absent => return None,
            Kind::Float => Value::Float(f64::from_bits(self.0)),
            Kind::Int => Value::Int(self.0.cast_signed()),
            Kind::Bool => Value::Bool(self.0 != 0),
            Kind::Text => Value::Text(Arc::clone(text?)),
        })
    }
}

impl Accumulator {
    /// How many readings went in.
    pub(super) const fn count(&self) -> u64 {
        self.count
    }

    /// Takes a reading. Its value is finite: what is not has been marked bad before.
    #[inline]
    pub(super) fn add(&mut self, time: Timestamp, value: &Value) {
        let scalar = value.as_scalar();
        let (bits, kind) = Packed::of(scalar);
        match scalar {
            Scalar::Float(number) => self.add_number(number, scalar, bits, kind),
            Scalar::Int(number) => self.add_number(number as f64, scalar, bits, kind),
            Scalar::Bool(_) | Scalar::Text(_) => self.others += 1,
        }
        if self.count == 0 || time < self.first_time || (time == self.first_time && self.beats(FIRST, scalar)) {
            self.first_time = time;
            self.first = bits;
            self.kinds[FIRST] = kind;
            self.keep_text(0, value);
        }
        if self.count == 0 || time > self.last_time || (time == self.last_time && self.beats(LAST, scalar)) {
            self.last_time = time;
            self.last = bits;
            self.kinds[LAST] = kind;
            self.keep_text(1, value);
        }
        self.count += 1;
    }

    /// Takes all that another holds, of other readings.
    pub(super) fn merge(&mut self, other: &Self) {
        if other.count == 0 {
            return;
        }
        if self.count == 0 {
            self.clone_from(other);
            return;
        }
        if other.others < other.count {
            self.merge_numbers(other);
        }
        self.others += other.others;
        let at = |place: usize| other.scalar(place);
        if other.first_time < self.first_time
            || (other.first_time == self.first_time && at(FIRST).is_some_and(|first| self.beats(FIRST, first)))
        {
            (self.first_time, self.first, self.kinds[FIRST]) = (other.first_time, other.first, other.kinds[FIRST]);
            self.copy_text(0, other);
        }
        if other.last_time > self.last_time
            || (other.last_time == self.last_time && at(LAST).is_some_and(|last| self.beats(LAST, last)))
        {
            (self.last_time, self.last, self.kinds[LAST]) = (other.last_time, other.last, other.kinds[LAST]);
            self.copy_text(1, other);
        }
        self.count += other.count;
    }

    fn merge_numbers(&mut self, other: &Self) {
        self.add_to_sum(other.sum);
        self.lost += other.lost;
        if let Some(min) = other.scalar(MIN)
            && self.scalar(MIN).is_none_or(|least| min.total_cmp(least) == Ordering::Less)
        {
            (self.min, self.kinds[MIN]) = (other.min, other.kinds[MIN]);
        }
        if let Some(max) = other.scalar(MAX)
            && self.scalar(MAX).is_none_or(|greatest| max.total_cmp(greatest) == Ordering::Greater)
        {
            (self.max, self.kinds[MAX]) = (other.max, other.kinds[MAX]);
        }
    }

    /// The times of the first reading and the last; the epoch where there is none.
    pub(super) const fn span(&self) -> (Timestamp, Timestamp) {
        (self.first_time, self.last_time)
    }

    fn scalar(&self, place: usize) -> Option<Scalar<'_>> {
        match place {
            MIN => self.min.scalar(self.kinds[MIN], None),
            MAX => self.max.scalar(self.kinds[MAX], None),
            FIRST => self.first.scalar(self.kinds[FIRST], self.text(0)),
            _ => self.last.scalar(self.kinds[LAST], self.text(1)),
        }
    }

    fn copy_text(&mut self, place: usize, other: &Self) {
        if let Some(text) = other.text(place)
            && let Some(kept) = self.texts.get_or_insert_default().get_mut(place)
        {
            *kept = Some(Arc::clone(text));
        }
    }

    #[inline]
    fn add_to_sum(&mut self, number: f64) {
        let sum = self.sum + number;
        self.lost += if self.sum.abs() >= number.abs() { (self.sum - sum) + number } else { (number - sum) + self.sum };
        self.sum = sum;
    }

    #[inline]
    fn add_number(&mut self, number: f64, scalar: Scalar<'_>, bits: Packed, kind: Kind) {
        self.add_to_sum(number);
        if self.min.scalar(self.kinds[MIN], None).is_none_or(|min| scalar.total_cmp(min) == Ordering::Less) {
            self.min = bits;
            self.kinds[MIN] = kind;
        }
        if self.max.scalar(self.kinds[MAX], None).is_none_or(|max| scalar.total_cmp(max) == Ordering::Greater) {
            self.max = bits;
            self.kinds[MAX] = kind;
        }
    }

    /// Whether a value goes before the first, or behind the last, of the same time.
    #[cold]
    fn beats(&self, place: usize, value: Scalar<'_>) -> bool {
        let wanted = if place == FIRST { Ordering::Less } else { Ordering::Greater };
        self.scalar(place).is_none_or(|present| value.total_cmp(present) == wanted)
    }

    fn text(&self, place: usize) -> Option<&Arc<str>> {
        self.texts.as_ref()?.get(place)?.as_ref()
    }

    #[inline]
    fn keep_text(&mut self, place: usize, value: &Value) {
        if let Value::Text(text) = value
            && let Some(kept) = self.texts.get_or_insert_default().get_mut(place)
        {
            *kept = Some(Arc::clone(text));
        }
    }

    /// The value of a function; `None` where it has no meaning for what went in.
    pub(super) fn value(&self, function: Function) -> Option<Value> {
        let numbers = self.count - self.others;
        match function {
            Function::Count => Some(Value::Int(i64::try_from(self.count).unwrap_or(i64::MAX))),
            Function::Sum => (numbers > 0).then(|| Value::Float(self.total())),
            Function::Mean => (numbers > 0).then(|| Value::Float(self.total() / numbers as f64)),
            Function::Min => self.min.value(self.kinds[MIN], None),
            Function::Max => self.max.value(self.kinds[MAX], None),
            Function::First => self.first.value(self.kinds[FIRST], self.text(0)),
            Function::Last => self.last.value(self.kinds[LAST], self.text(1)),
        }
    }

    /// The compensated sum; infinite where the sum of finite readings is beyond 64 bits.
    fn total(&self) -> f64 {
        if self.sum.is_finite() { self.sum + self.lost } else { self.sum }
    }

    /// Whether it can have come from [`Accumulator::add`]; for state that comes from outside.
    pub(super) fn is_sound(&self) -> bool {
        let number = |place: usize| matches!(self.kinds[place], Kind::Float | Kind::Int);
        let any = |place: usize, text: usize| match self.kinds[place] {
            Kind::Absent => false,
            Kind::Text => self.text(text).is_some(),
            _ => true,
        };
        (1..=COUNT_MAX).contains(&self.count)
            && self.others <= self.count
            && (self.others == self.count || number(MIN) && number(MAX))
            && any(FIRST, 0)
            && any(LAST, 1)
            && self.first_time <= self.last_time
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn accumulate(readings: &[(i64, Value)]) -> Accumulator {
        let mut accumulator = Accumulator::default();
        for (time, value) in readings {
            accumulator.add(Timestamp::from_nanos(*time), value);
        }
        accumulator
    }

    fn values(accumulator: &Accumulator) -> [Option<Value>; 7] {
        Function::ALL.map(|function| accumulator.value(function))
    }

    #[test]
    fn integers_stay_integers() {
        let numbers = [(1, Value::Int(1000)), (2, Value::Int(960)), (3, Value::Int(1019))];
        let expected = [
            Some(Value::Int(3)),
            Some(Value::Float(2979.0)),
            Some(Value::Float(993.0)),
            Some(Value::Int(960)),
            Some(Value::Int(1019)),
            Some(Value::Int(1000)),
            Some(Value::Int(1019)),
        ];
        assert_eq!(values(&accumulate(&numbers)), expected);
    }

    #[test]
    fn texts_and_bools_have_count_first_and_last() {
        let states = [(2, Value::Text("b".into())), (1, Value::Bool(true)), (3, Value::Text("c".into()))];
        let [count, sum, mean, min, max, first, last] = values(&accumulate(&states));
        assert_eq!((sum, mean, min, max), (None, None, None, None));
        assert_eq!((count, first, last), (Some(Value::Int(3)), Some(Value::Bool(true)), Some(Value::Text("c".into()))));
    }

    #[test]
    fn readings_of_one_time_have_no_order() {
        let values_of = [Value::Int(2), Value::Float(2.0), Value::Float(-0.0), Value::Int(0), Value::Text("x".into())];
        let mut orders: Vec<Vec<usize>> = vec![vec![]];
        for _ in 0..values_of.len() {
            orders = orders
                .iter()
                .flat_map(|order| (0..5).filter(|i| !order.contains(i)).map(|i| [order.as_slice(), &[i]].concat()))
                .collect();
        }
        let one = |order: &Vec<usize>| {
            values(&accumulate(&order.iter().map(|&i| (5, values_of[i].clone())).collect::<Vec<_>>()))
        };
        let expected = one(&orders[0]);
        assert_eq!(expected[5], Some(Value::Float(-0.0)));
        assert_eq!(expected[6], Some(Value::Text("x".into())));
        assert!(orders.iter().all(|order| one(order) == expected));
    }

    #[test]
    fn the_sum_is_compensated() {
        let numbers =
            [(1, Value::Float(1.0)), (2, Value::Float(1e100)), (3, Value::Float(1.0)), (4, Value::Float(-1e100))];
        assert_eq!(accumulate(&numbers).value(Function::Sum), Some(Value::Float(2.0)));
    }

    #[test]
    fn is_small() {
        assert!(size_of::<Accumulator>() <= 96, "{}", size_of::<Accumulator>());
    }
}
