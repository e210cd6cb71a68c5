//! The aggregate of one series over one window, as it grows.
//!
//! Independent of the order of its readings: count, min, max, first and last exactly, sums to the last bits of a compensated
//! sum. Where two readings of a series have the same time, `first` is the least and `last` the greatest of them
//! ([`Scalar::total_cmp`]), so that not even their order counts.
//!
//! Integers stay integers in min, max, range, first, last and increase; what is made of a sum is a float always, so that a stream's
//! columns keep their type.
//!
//! What the plain functions need is always kept: it is as fast as asking which are wanted, and a reload that changes the list loses
//! nothing. What the others need is kept where the window computes them, from its opening on ([`Keeps`]).

use std::cmp::Ordering;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::course::{Course, Observed, Span};
use super::ledger::COUNT_MAX;
use super::sketch::{Scale, Sketch};
use super::sum::{Sum, variance};
use crate::plan::{Buckets, Function};
use crate::reading::{Scalar, Value};
use crate::time::Timestamp;

/// What is kept of a window beside what the plain functions need.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Keeps {
    squares: bool,
    sketch: Option<Scale>,
    order: Option<Order>,
}

/// What is kept of the order of readings.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Order {
    overtaken: i64,
    states: bool,
}

/// Count, sum and the four picked values, and what else is to be kept.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Accumulator {
    /// All readings.
    count: u64,
    /// The bools and texts among them; more than 32 bits can hold are no gateway's.
    others: u32,
    sum: Sum,
    min: Packed,
    max: Packed,
    first: Packed,
    last: Packed,
    kinds: [Kind; 4],
    first_time: Timestamp,
    last_time: Timestamp,
    /// `first` and `last` where they are texts.
    texts: Option<Box<[Option<Arc<str>>; 2]>>,
    extra: Option<Box<Extra>>,
}

/// What is kept beside that.
///
/// Two lines of the cache, side by side: they are all that a percentile touches beside the pane.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[repr(align(64))]
struct Extra {
    squares: Option<Sum>,
    sketch: Option<Sketch>,
    course: Option<Box<Course>>,
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

impl Keeps {
    /// What functions need. A reading may come `overtaken` nanoseconds behind the newest of its series.
    pub(super) fn of(compute: &[Function], buckets: Buckets, overtaken: i64) -> Self {
        let any = |needs: fn(Function) -> bool| compute.iter().any(|&function| needs(function));
        let states = compute.contains(&Function::TimeInState);
        Self {
            squares: any(Function::needs_squares),
            sketch: any(Function::needs_sketch).then(|| Scale::new(buckets)),
            order: any(Function::needs_order).then_some(Order { overtaken, states }),
        }
    }

    /// Whether what was kept is all that is to be kept now.
    pub(super) fn covers(&self, now: &Self) -> bool {
        let has_states = |now: Order| self.order.is_some_and(|order| order.states || !now.states);
        (self.squares || !now.squares)
            && (now.sketch.is_none() || now.sketch == self.sketch)
            && now.order.is_none_or(has_states)
    }

    /// Whether the newest reading before a window counts.
    pub(super) const fn needs_carry(&self) -> bool {
        self.order.is_some()
    }
}

impl Accumulator {
    /// Makes an empty one keep what is to be kept, in the room that another left behind where that fits.
    pub(super) fn begin(&mut self, keeps: &Keeps, left: Self) {
        if self.count > 0 || self.extra.is_some() || *keeps == Keeps::default() {
            return;
        }
        let course = |order: Order| Box::new(Course::new(order.overtaken, order.states));
        let fits = |extra: &Extra| {
            extra.squares.is_some() == keeps.squares
                && extra.sketch.as_ref().map(Sketch::scale) == keeps.sketch
                && extra.course.is_some() == keeps.order.is_some()
        };
        self.extra = left.extra.filter(|extra| fits(extra)).or_else(|| {
            Some(Box::new(Extra {
                squares: keeps.squares.then_some(Sum::ZERO),
                sketch: keeps.sketch.map(Sketch::new),
                course: keeps.order.map(course),
            }))
        });
    }

    /// Empties it, and leaves the room of a sketch to the next window: that is asked for as often as windows open.
    pub(super) fn end(&mut self) {
        let mut extra = self.extra.take().filter(|extra| extra.course.is_none());
        if let Some(extra) = &mut extra {
            extra.squares = extra.squares.map(|_| Sum::ZERO);
            extra.sketch.as_mut().map(Sketch::clear);
        }
        // A text in it would live on.
        *self = Self { extra, ..Self::default() };
    }

    /// Lets go of what is not to be kept any more, after a reload. What should have been kept and was not is missing until the
    /// next window: a function has no value rather than that of a part of the readings.
    pub(super) fn fit(&mut self, keeps: &Keeps) {
        let Some(extra) = &mut self.extra else { return };
        extra.squares.take_if(|_| !keeps.squares);
        extra.sketch.take_if(|sketch| keeps.sketch != Some(sketch.scale()));
        extra.course.take_if(|_| keeps.order.is_none());
        if let (Some(course), Some(order)) = (&mut extra.course, keeps.order) {
            course.fit(order.overtaken, order.states);
        }
        if extra.squares.is_none() && extra.sketch.is_none() && extra.course.is_none() {
            self.extra = None;
        }
    }

    /// The bytes that it takes beside itself, texts not counted.
    pub(super) fn bytes(&self) -> usize {
        self.extra.as_ref().map_or(0, |extra| {
            size_of::<Extra>()
                + extra.sketch.as_ref().map_or(0, Sketch::bytes)
                + extra.course.as_ref().map_or(0, |course| course.bytes())
        })
    }

    /// The newest reading, where what needs order is kept: later windows count from it.
    pub(super) fn carried(&self) -> Option<Observed> {
        self.extra.as_ref()?.course.as_ref()?;
        let value = self.last.value(self.kinds[LAST], self.text(1))?;
        Some(Observed { time: self.last_time, value })
    }

    /// The times of the first reading and the last; the epoch where there is none.
    pub(super) const fn span(&self) -> (Timestamp, Timestamp) {
        (self.first_time, self.last_time)
    }

    /// How many readings went in.
    pub(super) const fn count(&self) -> u64 {
        self.count
    }

    /// How many of them are numbers.
    const fn numbers(&self) -> u64 {
        self.count.saturating_sub(self.others as u64)
    }

    /// Takes a reading. Its value is finite: what is not has been marked bad before. `false` when the functions that need order could
    /// not take it, since it is too old.
    #[inline]
    pub(super) fn add(&mut self, time: Timestamp, value: &Value) -> bool {
        let scalar = value.as_scalar();
        let (bits, kind) = Packed::of(scalar);
        match scalar {
            Scalar::Float(number) => self.add_number(number, scalar, bits, kind),
            Scalar::Int(number) => self.add_number(number as f64, scalar, bits, kind),
            Scalar::Bool(_) | Scalar::Text(_) => self.others = self.others.saturating_add(1),
        }
        if self.count == 0 || time < self.first_time || (time == self.first_time && self.beats(FIRST, scalar)) {
            self.first_time = time;
            self.first = bits;
            self.kinds[FIRST] = kind;
            self.keep_text(0, value.as_text());
        }
        if self.count == 0 || time > self.last_time || (time == self.last_time && self.beats(LAST, scalar)) {
            self.last_time = time;
            self.last = bits;
            self.kinds[LAST] = kind;
            self.keep_text(1, value.as_text());
        }
        self.count += 1;
        self.extra.as_mut().is_none_or(|extra| extra.add(time, value))
    }

    /// Takes what another one took that keeps the same. Of what needs order, see [`Course::merge`].
    pub(super) fn merge(&mut self, other: &Self) {
        if other.count == 0 {
            return;
        }
        if self.count == 0 {
            self.clone_from(other);
            return;
        }
        let at = |place: usize| other.scalar(place);
        if at(MIN).is_some_and(|min| self.scalar(MIN).is_none_or(|known| min.total_cmp(known) == Ordering::Less)) {
            (self.min, self.kinds[MIN]) = (other.min, other.kinds[MIN]);
        }
        if at(MAX).is_some_and(|max| self.scalar(MAX).is_none_or(|known| max.total_cmp(known) == Ordering::Greater)) {
            (self.max, self.kinds[MAX]) = (other.max, other.kinds[MAX]);
        }
        if other.first_time < self.first_time
            || (other.first_time == self.first_time && at(FIRST).is_some_and(|first| self.beats(FIRST, first)))
        {
            (self.first_time, self.first, self.kinds[FIRST]) = (other.first_time, other.first, other.kinds[FIRST]);
            self.keep_text(0, other.text(0));
        }
        if other.last_time > self.last_time
            || (other.last_time == self.last_time && at(LAST).is_some_and(|last| self.beats(LAST, last)))
        {
            (self.last_time, self.last, self.kinds[LAST]) = (other.last_time, other.last, other.kinds[LAST]);
            self.keep_text(1, other.text(1));
        }
        self.count += other.count;
        self.others = self.others.saturating_add(other.others);
        self.sum.merge(&other.sum);
        if let (Some(extra), Some(other)) = (&mut self.extra, &other.extra) {
            extra.merge(other);
        }
    }

    /// The value at a place of `kinds`.
    fn scalar(&self, place: usize) -> Option<Scalar<'_>> {
        match place {
            MIN => self.min.scalar(self.kinds[MIN], None),
            MAX => self.max.scalar(self.kinds[MAX], None),
            FIRST => self.first.scalar(self.kinds[FIRST], self.text(0)),
            _ => self.last.scalar(self.kinds[LAST], self.text(1)),
        }
    }

    #[inline]
    fn add_number(&mut self, number: f64, scalar: Scalar<'_>, bits: Packed, kind: Kind) {
        self.sum.add(number);
        if self.scalar(MIN).is_none_or(|min| scalar.total_cmp(min) == Ordering::Less) {
            self.min = bits;
            self.kinds[MIN] = kind;
        }
        if self.scalar(MAX).is_none_or(|max| scalar.total_cmp(max) == Ordering::Greater) {
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
    fn keep_text(&mut self, place: usize, text: Option<&Arc<str>>) {
        if let Some(text) = text
            && let Some(kept) = self.texts.get_or_insert_default().get_mut(place)
        {
            *kept = Some(Arc::clone(text));
        }
    }

    /// The value of a function over a window; `None` where it has no meaning for what went in, or not all that it needs was kept.
    pub(super) fn value(&self, function: Function, span: &Span<'_>) -> Option<Value> {
        let numbers = self.numbers();
        let float = |value: f64| (numbers > 0).then_some(Value::Float(value));
        let extra = self.extra.as_deref();
        match function {
            Function::Count => Some(Value::Int(i64::try_from(self.count).unwrap_or(i64::MAX))),
            Function::Sum => float(self.sum.total()),
            Function::Mean => float(self.sum.total() / numbers as f64),
            Function::Min => self.min.value(self.kinds[MIN], None),
            Function::Max => self.max.value(self.kinds[MAX], None),
            Function::First => self.first.value(self.kinds[FIRST], self.text(0)),
            Function::Last => self.last.value(self.kinds[LAST], self.text(1)),
            Function::Range => self.range(),
            Function::Std | Function::Rms => float(self.spread(function, extra?.squares.as_ref()?)?),
            Function::Percentile(percentile) => {
                let (min, max) = self.extremes()?;
                float(extra?.sketch.as_ref()?.percentile(percentile)?.max(min).min(max))
            }
            _ => extra?.course.as_ref()?.value(function, span),
        }
    }

    /// The least and the greatest number.
    fn extremes(&self) -> Option<(f64, f64)> {
        Some((self.scalar(MIN)?.as_number()?, self.scalar(MAX)?.as_number()?))
    }

    fn range(&self) -> Option<Value> {
        let exact = match (self.min.value(self.kinds[MIN], None)?, self.max.value(self.kinds[MAX], None)?) {
            (Value::Int(min), Value::Int(max)) => max.checked_sub(min),
            _ => None,
        };
        let (min, max) = self.extremes()?;
        Some(exact.map_or(Value::Float(max - min), Value::Int))
    }

    /// The standard deviation or the root of the mean square.
    fn spread(&self, function: Function, squares: &Sum) -> Option<f64> {
        let count = self.numbers() as f64;
        let (min, max) = self.extremes()?;
        // What never changed has no spread, to the last bit.
        Some(match function {
            Function::Std if min == max => 0.0,
            Function::Std => variance(&self.sum, squares, count).sqrt(),
            _ if min == max => min.abs(),
            _ => (squares.total() / count).sqrt(),
        })
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
            && u64::from(self.others) <= self.count
            && (self.numbers() == 0 || number(MIN) && number(MAX))
            && any(FIRST, 0)
            && any(LAST, 1)
            && self.first_time <= self.last_time
            && self.extra.as_ref().is_none_or(|extra| extra.is_sound(self.numbers()))
    }
}

impl Extra {
    fn add(&mut self, time: Timestamp, value: &Value) -> bool {
        if let Some(number) = value.as_number() {
            if let Some(squares) = &mut self.squares {
                squares.add_square(number);
            }
            if let Some(sketch) = &mut self.sketch {
                sketch.add(number);
            }
        }
        self.course.as_mut().is_none_or(|course| course.add(time, value))
    }

    fn merge(&mut self, other: &Self) {
        if let (Some(squares), Some(other)) = (&mut self.squares, &other.squares) {
            squares.merge(other);
        }
        if let (Some(sketch), Some(other)) = (&mut self.sketch, &other.sketch) {
            sketch.merge(other);
        }
        if let (Some(course), Some(other)) = (&mut self.course, &other.course) {
            course.merge(other);
        }
    }

    fn is_sound(&self, numbers: u64) -> bool {
        self.sketch.as_ref().is_none_or(|sketch| sketch.is_sound(numbers))
            && self.course.as_ref().is_none_or(|course| course.is_sound())
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

    const SPAN: Span<'_> = Span { start: Timestamp::EPOCH, until: Timestamp::from_nanos(10), carry: None };

    fn values(accumulator: &Accumulator) -> [Option<Value>; 7] {
        Function::PLAIN.map(|function| accumulator.value(function, &SPAN))
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

    fn spread(numbers: &[f64], keeps: &Keeps) -> Accumulator {
        let mut accumulator = Accumulator::default();
        accumulator.begin(keeps, Accumulator::default());
        for (time, number) in numbers.iter().enumerate() {
            accumulator.add(Timestamp::from_nanos(time as i64), &Value::Float(*number));
        }
        accumulator
    }

    #[test]
    fn a_constant_has_no_spread() {
        let functions = [Function::Std, Function::Rms, Function::Range, "p99.9".parse().unwrap()];
        let accumulator = spread(&[0.1; 1000], &Keeps::of(&functions, Buckets::default(), 0));
        let values = functions.map(|function| accumulator.value(function, &SPAN));
        assert_eq!(values, [0.0, 0.1, 0.0, 0.1].map(|value| Some(Value::Float(value))));
    }

    #[test]
    fn the_range_of_integers_is_one_where_it_fits() {
        let range = |numbers: [i64; 2]| {
            accumulate(&numbers.map(|number| (1, Value::Int(number)))).value(Function::Range, &SPAN)
        };
        assert_eq!(range([1019, 960]), Some(Value::Int(59)));
        assert_eq!(range([i64::MIN, i64::MAX]), Some(Value::Float(18_446_744_073_709_551_615.0)));
    }

    #[test]
    fn what_was_not_kept_has_no_value() {
        let keeps = |functions: &[Function]| Keeps::of(functions, Buckets::default(), 0);
        let functions = [Function::Std, "p50".parse().unwrap(), Function::TimeMean];
        let mut accumulator = spread(&[1.0, 2.0, 4.0], &keeps(&functions));
        let values = |accumulator: &Accumulator| functions.map(|function| accumulator.value(function, &SPAN).is_some());
        assert_eq!(values(&accumulator), [true, true, true]);
        accumulator.fit(&keeps(&[Function::Rms, Function::Rate]));
        assert_eq!(values(&accumulator), [true, false, true]);
        accumulator.fit(&keeps(&functions));
        assert_eq!(values(&accumulator), [true, false, true]);
        accumulator.fit(&keeps(&[]));
        assert_eq!(accumulator.bytes(), 0);
        // Another scale.
        let mut accumulator = spread(&[1.0], &keeps(&functions));
        accumulator.fit(&Keeps::of(&functions, Buckets::Steps(0.1), 0));
        assert_eq!(values(&accumulator), [true, false, true]);
    }

    #[test]
    fn is_small() {
        assert!(size_of::<Accumulator>() <= 96, "{}", size_of::<Accumulator>());
    }
}
