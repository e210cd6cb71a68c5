//! Quality: the checks that readings pass as they come, before any stream, rule or window.
//!
//! The checks of a series run in the order of [`Check`], on readings in the order of their arrival. One that objects marks the reading
//! as its series' [`Checks`] say. A mark worse than `suspect` ends the checks of this reading: those behind neither judge nor remember it,
//! so that what is wrong anyway is no measure for what follows. What the source itself called bad is not looked at.
//!
//! A reading has one check to its name: that with the worst mark, and of several the first. Every objection is counted.
//!
//! What a check remembers lies in a [`Memory`], which only series have that a quality table of the plan selects. It survives restarts,
//! and reloads as far as the new plan has the same checks, whatever their bounds.

use std::collections::{BTreeMap, VecDeque};

use serde::{Deserialize, Serialize};

use crate::plan::{Checks, Mark, Plan, ValueType};
use crate::reading::{Check, Quality, Reading, SeriesId, SeriesInfo, Value};
use crate::sorted;
use crate::time::Timestamp;

/// How many numbers before it a reading is compared with for [`Check::Spike`]. An odd count makes the median one of them; eleven are
/// enough for it to stand while five of them are spikes, and few enough to follow what drifts.
pub const SPIKE_READINGS: usize = 11;

/// What makes the median absolute deviation of normally distributed numbers their standard deviation: 1 / Φ⁻¹(3/4), as in Hampel, "The
/// Influence Curve and Its Role in Robust Estimation", Journal of the American Statistical Association 69 (1974).
const DEVIATIONS_PER_MAD: f64 = 1.482_602_218_505_602;

/// How many times of a series are remembered for [`Check::Duplicate`]: more than a broker sends again at once to a client with the default
/// receive window, 20.
pub const DUPLICATE_TIMES: usize = 32;

/// How many pairs of series and check are counted by themselves. A gateway whose every series fails a check has a few thousand; beyond
/// that the checks' totals go on counting.
pub const COUNTED_PAIRS_MAX: usize = 10_000;

/// The most kinds of checks that series of a plan may have, each a combination of tables; more tables than fit together are a mistake in
/// the making, and series beyond it go unchecked but for what is not finite.
const KINDS_MAX: usize = u16::MAX as usize;

/// How often checks objected.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct QualityCounts {
    /// Over all series.
    pub checks: BTreeMap<Check, u64>,
    /// For each series, of at most [`COUNTED_PAIRS_MAX`] pairs.
    pub series: BTreeMap<(SeriesId, Check), u64>,
}

/// The checks of all series, and what they remember.
#[derive(Debug, Default)]
pub(super) struct QualityChecks {
    kinds: Vec<Checks>,
    /// The places of kinds, by the tables of the plan that make them.
    kind_of: BTreeMap<Vec<usize>, u16>,
    memories: Vec<Memory>,
    counts: QualityCounts,
}

/// What the checks of one series remember.
#[derive(Debug)]
struct Memory {
    series: SeriesId,
    kind: u16,
    contradicts_unit: bool,
    kept: Kept,
}

/// Of a [`Memory`], what must survive.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct Kept {
    /// Of [`Check::Type`]: what the first reading had.
    first_type: Option<ValueType>,
    /// Of [`Check::Duplicate`]: the times that came last.
    times: VecDeque<Timestamp>,
    /// Of [`Check::Backwards`].
    newest: Option<Timestamp>,
    /// Of [`Check::MaxRate`]: the number before.
    before: Option<(Timestamp, f64)>,
    /// Of [`Check::Spike`]: the numbers that came last.
    numbers: VecDeque<f64>,
    /// Of [`Check::StuckAfter`]: the value, and since when it is so.
    since: Option<(Value, Timestamp)>,
}

/// Everything that must survive.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct SavedQuality {
    pub(super) counts: QualityCounts,
    pub(super) memories: Vec<(SeriesId, Kept)>,
}

impl QualityChecks {
    /// Gives a series its checks; the place of its memory, or `None` where no table of the plan selects it.
    pub(super) fn declare(&mut self, plan: &Plan, series: SeriesId, info: &SeriesInfo) -> Option<u32> {
        let tables: Vec<usize> =
            (0..).zip(&plan.quality).filter(|(_, table)| table.select.matches(&info.name)).map(|(i, _)| i).collect();
        if tables.is_empty() {
            return None;
        }
        let kind = match self.kind_of.get(&tables) {
            Some(&kind) => kind,
            None if self.kinds.len() >= KINDS_MAX => return None,
            None => {
                let kind = self.kinds.len() as u16;
                self.kinds.push(Checks::of(tables.iter().filter_map(|&table| plan.quality.get(table))));
                self.kind_of.insert(tables, kind);
                kind
            }
        };
        let place = self.memories.len() as u32;
        self.memories.push(Memory { series, kind, contradicts_unit: false, kept: Kept::default() });
        self.rename_unit(Some(place), info);
        Some(place)
    }

    /// Takes note of the unit that the source of a series speaks of now.
    pub(super) fn rename_unit(&mut self, place: Option<u32>, info: &SeriesInfo) {
        let memory = place.and_then(|place| self.memories.get_mut(place as usize));
        if let Some(memory) = memory {
            memory.contradicts_unit =
                self.kinds.get(usize::from(memory.kind)).is_some_and(|checks| checks.contradicts_unit(info));
        }
    }

    /// What a reading is to be marked as, and the check that says so; `None` for one that goes on as it is.
    #[inline]
    pub(super) fn judge(&mut self, place: Option<u32>, reading: &Reading) -> Option<(Mark, Check)> {
        if place.is_none() && reading.check.is_none() && is_finite(&reading.value) {
            return None;
        }
        self.look_at(place, reading)
    }

    fn look_at(&mut self, place: Option<u32>, reading: &Reading) -> Option<(Mark, Check)> {
        let Self { kinds, memories, counts, .. } = self;
        if let Some(check) = reading.check {
            counts.add(reading.series, check);
        }
        if reading.quality == Quality::Bad {
            return None;
        }
        let memory = place.and_then(|place| memories.get_mut(place as usize));
        let Some((memory, checks)) = memory.and_then(|memory| {
            let checks = kinds.get(usize::from(memory.kind))?;
            Some((memory, checks))
        }) else {
            let objects = !is_finite(&reading.value);
            return objects.then(|| {
                counts.add(reading.series, Check::NotFinite);
                (Mark::Bad, Check::NotFinite)
            });
        };
        let mut worst: Option<(Mark, Check)> = None;
        for &check in &checks.on {
            if !memory.objects(check, checks, reading) {
                continue;
            }
            counts.add(reading.series, check);
            let mark = checks.mark(check);
            if worst.is_none_or(|(worst, _)| mark > worst) {
                worst = Some((mark, check));
            }
            if mark > Mark::Suspect {
                break;
            }
        }
        // The source was the first to suspect it.
        worst.filter(|(mark, _)| *mark > Mark::Suspect || reading.quality == Quality::Good)
    }

    /// How often checks objected.
    pub(super) const fn counts(&self) -> &QualityCounts {
        &self.counts
    }

    pub(super) fn saved(&self) -> SavedQuality {
        let mut memories: Vec<_> = self.memories.iter().map(|memory| (memory.series, memory.kept.clone())).collect();
        sorted::by_key(&mut memories, |(series, _)| *series);
        SavedQuality { counts: self.counts.clone(), memories }
    }

    /// Puts back the counts.
    pub(super) fn restore_counts(&mut self, counts: QualityCounts) {
        self.counts = counts;
    }

    /// Puts back what the checks of a series remember, as far as it has them; `None` where it has none at all.
    pub(super) fn restore(&mut self, place: Option<u32>, mut kept: Kept) -> Option<()> {
        let memory = self.memories.get_mut(place? as usize)?;
        let checks = self.kinds.get(usize::from(memory.kind))?;
        kept.keep_what(|check| checks.has(check));
        memory.kept = kept;
        Some(())
    }
}

impl QualityCounts {
    fn add(&mut self, series: SeriesId, check: Check) {
        *self.checks.entry(check).or_default() += 1;
        if let Some(count) = self.series.get_mut(&(series, check)) {
            *count += 1;
        } else if self.series.len() < COUNTED_PAIRS_MAX {
            self.series.insert((series, check), 1);
        }
    }
}

impl Memory {
    /// Whether a check objects to a reading; the check remembers it.
    fn objects(&mut self, check: Check, checks: &Checks, reading: &Reading) -> bool {
        let (time, kept) = (reading.time, &mut self.kept);
        match check {
            Check::NotFinite => !is_finite(&reading.value),
            Check::Source => false,
            Check::Type => {
                let found = ValueType::of(&reading.value);
                match checks.value_type {
                    ValueType::Same => found != *kept.first_type.get_or_insert(found),
                    expected => found != expected,
                }
            }
            Check::Unit => self.contradicts_unit,
            Check::Duplicate => kept.came_before(time),
            Check::Backwards => {
                let is_backwards = kept.newest.is_some_and(|newest| time < newest);
                kept.newest = kept.newest.max(Some(time));
                is_backwards
            }
            Check::Range => {
                number(reading).is_some_and(|number| !(checks.range[0]..=checks.range[1]).contains(&number))
            }
            Check::MaxRate => number(reading).is_some_and(|number| kept.changed_faster(time, number, checks.max_rate)),
            Check::Spike => {
                number(reading).is_some_and(|number| kept.sticks_out(number, checks.spike, checks.spike_min))
            }
            Check::StuckAfter => kept.stays(&reading.value, time) >= checks.stuck_after,
        }
    }
}

impl Kept {
    /// Whether a reading of this time is among those that came last.
    fn came_before(&mut self, time: Timestamp) -> bool {
        if self.times.contains(&time) {
            return true;
        }
        push_bounded(&mut self.times, time, DUPLICATE_TIMES);
        false
    }

    /// Whether the number changed by more than `max_rate` a second since the reading that came before; of two with one time nothing is
    /// said. It is the distance in time that counts: what changes at most so fast does so in both directions of time.
    fn changed_faster(&mut self, time: Timestamp, number: f64, max_rate: f64) -> bool {
        let Some((before, was)) = self.before.replace((time, number)) else { return false };
        let seconds = time.as_nanos().abs_diff(before.as_nanos()) as f64 / 1e9;
        seconds > 0.0 && (number - was).abs() > max_rate * seconds
    }

    /// Whether a number is further from the median of the last [`SPIKE_READINGS`] than `deviations` times their scaled median absolute
    /// deviation, and than `min`: Hampel's identifier on the readings before, so that nothing waits. Where more than half of them are
    /// equal the deviation is 0, and only `min` says what is far; without one nothing is.
    fn sticks_out(&mut self, number: f64, deviations: f64, min: f64) -> bool {
        let numbers: Option<[f64; SPIKE_READINGS]> = self.numbers.make_contiguous().try_into().ok();
        push_bounded(&mut self.numbers, number, SPIKE_READINGS);
        let Some(numbers) = numbers else { return false };
        let median = median(numbers);
        let bound =
            (deviations * DEVIATIONS_PER_MAD * self::median(numbers.map(|number| (number - median).abs()))).max(min);
        bound > 0.0 && (number - median).abs() > bound
    }

    /// For how many nanoseconds the value has been what it is.
    fn stays(&mut self, value: &Value, time: Timestamp) -> i64 {
        match &mut self.since {
            Some((was, since)) if was.is_same(value) => {
                *since = time.min(*since);
                time.as_nanos().saturating_sub(since.as_nanos())
            }
            since => {
                *since = Some((value.clone(), time));
                0
            }
        }
    }

    /// Forgets what belongs to checks that are not on, and more than they keep.
    fn keep_what(&mut self, is_on: impl Fn(Check) -> bool) {
        self.times.truncate(if is_on(Check::Duplicate) { DUPLICATE_TIMES } else { 0 });
        self.numbers.truncate(if is_on(Check::Spike) { SPIKE_READINGS } else { 0 });
        self.first_type = self.first_type.filter(|_| is_on(Check::Type));
        self.newest = self.newest.filter(|_| is_on(Check::Backwards));
        self.before = self.before.filter(|_| is_on(Check::MaxRate));
        self.since = self.since.take().filter(|_| is_on(Check::StuckAfter));
    }
}

fn is_finite(value: &Value) -> bool {
    !matches!(value, Value::Float(value) if !value.is_finite())
}

/// What checks of numbers look at.
fn number(reading: &Reading) -> Option<f64> {
    reading.value.as_number().filter(|number| number.is_finite())
}

fn push_bounded<T>(queue: &mut VecDeque<T>, item: T, max: usize) {
    if queue.len() >= max {
        queue.pop_front();
    }
    queue.push_back(item);
}

fn median(mut numbers: [f64; SPIKE_READINGS]) -> f64 {
    numbers.sort_unstable_by(f64::total_cmp);
    numbers[SPIKE_READINGS / 2]
}
