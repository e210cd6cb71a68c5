//! Rows for property tests: a mixture of what sensors send and of what nobody should.

use proptest::prelude::*;

use crate::reading::{Check, ClockState, Quality, Reading, SeriesId, Value};
use crate::record::Aggregate;
use crate::time::Timestamp;

/// 600 integers whose entropy is four bits each.
pub(crate) fn four_bits_of_noise() -> Vec<i64> {
    let mut state = 1_u64;
    let mut next = |_| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (state >> 60) as i64 - 8
    };
    (0..600).map(&mut next).collect()
}

pub(crate) fn any_value() -> impl Strategy<Value = Value> {
    prop_oneof![
        4 => (-5000_i32..5000).prop_map(|value| Value::Float(f64::from(value) / 100.0)),
        1 => any::<f32>().prop_map(|value| Value::Float(f64::from(value))),
        1 => any::<u64>().prop_map(|bits| Value::Float(f64::from_bits(bits))),
        1 => Just(Value::Float(-0.0)),
        2 => (0_i64..10).prop_map(Value::Int),
        1 => any::<i64>().prop_map(Value::Int),
        2 => any::<bool>().prop_map(Value::Bool),
        2 => "[a-zß]{0,4}".prop_map(|text| Value::Text(text.into())),
    ]
}

pub(crate) fn any_time() -> impl Strategy<Value = Timestamp> {
    prop_oneof![
        4 => (0_i64..100).prop_map(|second| Timestamp::from_nanos(1_767_225_600_000_000_000 + second * 1_000_000_000)),
        1 => any::<i64>().prop_map(Timestamp::from_nanos),
    ]
}

pub(crate) fn any_series() -> impl Strategy<Value = SeriesId> {
    prop_oneof![8 => 0_u32..4, 1 => any::<u32>()].prop_map(SeriesId)
}

pub(crate) fn any_reading() -> impl Strategy<Value = Reading> {
    let quality = prop::sample::select(vec![Quality::Good, Quality::Suspect, Quality::Bad]);
    let check = prop::option::of(prop::sample::select(Check::ALL.to_vec()));
    let clock = prop::sample::select(vec![ClockState::Synced, ClockState::Unsynced]);
    (any_series(), any_time(), any_value(), quality, check, clock)
        .prop_map(|(series, time, value, quality, check, clock)| Reading { series, time, value, quality, check, clock })
}

/// With values that are equal to themselves.
pub(crate) fn any_aggregate(functions: usize) -> impl Strategy<Value = Aggregate> {
    let value = prop::option::weighted(
        0.9,
        any_value()
            .prop_filter("NaN differs from itself", |value| !matches!(value, Value::Float(value) if value.is_nan())),
    );
    let values = prop::collection::vec(value, functions);
    let flags = (0_u32..3, prop::bool::weighted(0.9), prop::bool::weighted(0.1));
    (any_series(), any_time(), any_time(), flags, values).prop_map(
        |(series, start, end, (revision, is_final, deleted), values)| {
            let values = values.into_boxed_slice();
            Aggregate { series, start, end, revision, is_final, deleted, values }
        },
    )
}

/// Whether two values are the same bits.
pub(crate) fn same_value(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Float(a), Value::Float(b)) => a.to_bits() == b.to_bits(),
        _ => a == b,
    }
}

/// Whether two lists of readings are the same, bit for bit.
pub(crate) fn same(a: &[Reading], b: &[Reading]) -> bool {
    let unvalued = |reading: &Reading| Reading { value: Value::Bool(false), ..reading.clone() };
    let one = |(a, b): (&Reading, &Reading)| unvalued(a) == unvalued(b) && same_value(&a.value, &b.value);
    a.len() == b.len() && a.iter().zip(b).all(one)
}
