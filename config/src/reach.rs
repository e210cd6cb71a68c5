//! How far back the store reaches when the link is gone.
//!
//! What goes first when it is full (docs/operations.md): what a coarser level of a ladder tells, the finest first, then the oldest of the lowest
//! priority. So streams that are no finer level get room first, by priority, and what they leave goes to the finer levels, from the coarsest on.

use std::time::Duration;

use rtlive_core::plan::{Format, Plan, Priority, StreamPlan};
use rtlive_core::sorted;

use crate::forecast::{JSON_BYTES_PER_RECORD, JSON_BYTES_PER_VALUE, StreamForecast};
use crate::store::StoreConfig;

/// Bytes of a value in the store, in the frames of thousands of records that there are without a link, with the pages' waste. Measured: a record of
/// count, min, max and mean of 15 minutes of a sensor with a resolution of 0.1 takes 11 to 12 bytes.
const STORED_BYTES_PER_VALUE: f64 = 3.0;

/// The log takes a quarter of the bound, and a sixteenth is free after frames went.
const FRAMES_PART: f64 = 1.0 - 1.0 / 4.0 - 1.0 / 16.0;

/// The journal and the snapshots of an engine with small windows take twice the least length of the journal.
const JOURNAL_BYTES: f64 = 2.0 * 262_144.0;
const JOURNAL_PART: f64 = 2.0 / 16.0;

/// A stream that takes room.
struct Taker {
    place: usize,
    bytes_per_second: f64,
    /// How far back it may reach at most.
    cap: f64,
}

/// How far back each stream reaches, in seconds; `None` where its rate is not known.
pub(crate) fn reaches(plan: &Plan, forecasts: &[StreamForecast], store: &StoreConfig) -> Vec<Option<u64>> {
    let bytes = store.max_bytes as f64;
    let mut room = bytes * FRAMES_PART - JOURNAL_BYTES.min(bytes * JOURNAL_PART);
    // Finer levels by how fine they are; all others are of the rank 0.
    let rank = |place: usize| {
        let ranks = plan.ladders.iter().filter_map(|ladder| {
            let at = ladder.levels.iter().position(|level| level.index() == place)?;
            Some(ladder.levels.len() - 1 - at)
        });
        ranks.max().unwrap_or_default()
    };
    let mut groups: Vec<((usize, Priority), Vec<Taker>)> = Vec::new();
    for (place, (stream, forecast)) in plan.streams.iter().zip(forecasts).enumerate() {
        let Some(bytes_per_second) = stored_bytes_per_second(stream, forecast) else { continue };
        let age = stream.age_max.unwrap_or(Duration::MAX).min(store.max_age).as_secs_f64();
        let cap = stream.bytes_max.map_or(age, |bytes| age.min(bytes as f64 / bytes_per_second));
        // Within a rank of finer levels priorities do not matter.
        let key = (rank(place), if rank(place) == 0 { stream.priority } else { Priority::Alert });
        let taker = Taker { place, bytes_per_second, cap };
        match groups.iter_mut().find(|(known, _)| *known == key) {
            Some((_, takers)) => takers.push(taker),
            None => groups.push((key, vec![taker])),
        }
    }
    sorted::by_key(&mut groups, |(key, _)| *key);
    let mut reaches = vec![None; plan.streams.len()];
    for (_, mut takers) in groups {
        // All reach equally far, but for those that may not.
        sorted::by(&mut takers, |a, b| a.cap.total_cmp(&b.cap));
        let mut rate: f64 = takers.iter().map(|taker| taker.bytes_per_second).sum();
        for taker in takers {
            let reach = taker.cap.min(room.max(0.0) / rate);
            room -= reach * taker.bytes_per_second;
            rate -= taker.bytes_per_second;
            if let Some(known) = reaches.get_mut(taker.place) {
                *known = Some(reach as u64);
            }
        }
    }
    reaches
}

fn stored_bytes_per_second(stream: &StreamPlan, forecast: &StreamForecast) -> Option<f64> {
    let records = forecast.records_per_second.filter(|rate| *rate > 0.0)?;
    let values = records * forecast.values_per_record;
    Some(match stream.format {
        Format::Frame => values * STORED_BYTES_PER_VALUE,
        Format::Json => records * JSON_BYTES_PER_RECORD + values * JSON_BYTES_PER_VALUE,
    })
}

/// A span in words, with two digits that matter.
pub(crate) fn write_reach(seconds: u64) -> String {
    let units = [(86_400, "d"), (3_600, "h"), (60, "min")];
    match units.into_iter().find(|(unit, _)| seconds >= 2 * unit) {
        Some((unit, name)) => format!("{} {name}", seconds / unit),
        None => format!("{seconds} s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_are_told_in_words() {
        assert_eq!([0, 100, 7_200, 200_000].map(write_reach), ["0 s", "100 s", "2 h", "2 d"]);
    }
}
