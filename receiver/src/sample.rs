//! Frames for tests.

use rtlive_core::frame::{Density, Origin, seal};
use rtlive_core::reading::{ClockState, Quality, Reading, SeriesId, SeriesInfo, Value};
use rtlive_core::record::{Epoch, Record};
use rtlive_core::time::Timestamp;

/// A frame of an agent whose readings have their numbers as values.
pub(crate) fn frame(agent: &str, from: u64, count: u64) -> Vec<u8> {
    let origin = Origin { agent: agent.into(), epoch: Epoch(0x9f1c), stream: "raw".into(), class: "process".into() };
    let series = [SeriesInfo { name: "n/s1".into(), unit: None }];
    let reading = |number: u64| {
        let (quality, check, clock) = (Quality::Good, None, ClockState::Synced);
        // Times that no column foretells, so that a frame is long enough to be split.
        let noise = number.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
        let time = Timestamp::from_nanos((number << 32 | noise).cast_signed());
        let value = Value::Int(number.cast_signed());
        Record::Reading(Reading { series: SeriesId(0), time, value, quality, check, clock })
    };
    let records: Vec<Record> = (from..from + count).map(reading).collect();
    seal(&origin, from, &records, &series, &[], Density::Fast).unwrap()
}
