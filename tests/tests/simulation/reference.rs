//! What must come of it: the same as the program computes, written as plainly as can be, over what was committed.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use rtlive_core::reading::Value;
use rtlive_core::time::Timestamp;

use crate::plans::{CLEARED_BELOW, EVERY, INPUTS, LATENESS, RAISED_ABOVE};

/// What a driver handed over at once.
#[derive(Clone, Debug)]
pub(crate) struct Taken {
    pub(crate) input: &'static str,
    pub(crate) arrival: Timestamp,
    pub(crate) readings: Vec<TakenReading>,
    pub(crate) rejected: u64,
    /// The outage that ends with this delivery.
    pub(crate) outage: Option<(Timestamp, Timestamp)>,
}

/// A reading. Its value is its own number and tells it from all others.
#[derive(Clone, Debug)]
pub(crate) struct TakenReading {
    pub(crate) series: String,
    pub(crate) source: String,
    pub(crate) time: Timestamp,
    pub(crate) value: i64,
    pub(crate) is_bad: bool,
}

/// What an input took.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Account {
    pub(crate) taken: u64,
    pub(crate) accepted: u64,
    pub(crate) bad: u64,
    pub(crate) quarantined: u64,
    pub(crate) late: u64,
}

/// A window of one series.
#[derive(Clone, Debug, Default)]
pub(crate) struct Window {
    pub(crate) readings: Vec<(Timestamp, i64)>,
}

/// All that was committed, and what follows from it.
#[derive(Default)]
pub(crate) struct Reference {
    pub(crate) accounts: BTreeMap<&'static str, Account>,
    /// Where each reading must be: in the raw stream, or in quarantine.
    pub(crate) raw: BTreeSet<i64>,
    pub(crate) quarantined: BTreeSet<i64>,
    pub(crate) late: BTreeSet<i64>,
    pub(crate) windows: BTreeMap<(String, Timestamp), Window>,
    watermarks: BTreeMap<(&'static str, String), Timestamp>,
    sources: BTreeMap<String, (&'static str, String)>,
    hottest: Option<Timestamp>,
    is_hot: bool,
    /// The alerts of the rule `hot`: raised or cleared, at which time.
    pub(crate) alerts: Vec<(bool, Timestamp)>,
    pub(crate) outages: Vec<(&'static str, Timestamp, Timestamp)>,
}

impl Reference {
    /// Takes what a commit covered.
    pub(crate) fn commit(&mut self, taken: &[Taken]) {
        for taken in taken {
            self.take(taken);
        }
    }

    fn take(&mut self, taken: &Taken) {
        let (_, behind, _) = INPUTS.into_iter().find(|(name, ..)| *name == taken.input).unwrap();
        let account = self.accounts.entry(taken.input).or_default();
        account.taken += taken.readings.len() as u64 + taken.rejected;
        account.accepted += taken.readings.len() as u64;
        self.outages.extend(taken.outage.map(|(start, end)| (taken.input, start, end)));
        for reading in &taken.readings {
            let TakenReading { series, source, time, value, is_bad } = reading;
            if *time > taken.arrival.saturating_add(rtlive_core::plan::InputPlan::MAX_AHEAD) {
                account.quarantined += 1;
                self.quarantined.insert(*value);
                continue;
            }
            assert!(self.raw.insert(*value), "the reading {value} was committed twice");
            let key = (taken.input, source.clone());
            let watermark = self.watermarks.entry(key.clone()).or_insert(Timestamp::MIN);
            *watermark = (*watermark).max(time.saturating_sub(Duration::from_secs(behind)));
            self.sources.insert(series.clone(), key);
            if *is_bad {
                account.bad += 1;
                continue;
            }
            let start = time.floor(Duration::from_secs(EVERY));
            if *watermark >= start.saturating_add(Duration::from_secs(EVERY + LATENESS)) {
                account.late += 1;
                self.late.insert(*value);
            } else {
                self.windows.entry((series.clone(), start)).or_default().readings.push((*time, *value));
            }
            if series == "poll/a" && self.hottest.is_none_or(|hottest| *time >= hottest) {
                self.hottest = Some(*time);
                let level = value % 100;
                let changes = if self.is_hot { level < CLEARED_BELOW } else { level > RAISED_ABOVE };
                if changes {
                    self.is_hot = !self.is_hot;
                    self.alerts.push((self.is_hot, *time));
                }
            }
        }
    }

    /// Whether a window must have been emitted as final.
    pub(crate) fn is_final(&self, series: &str, start: Timestamp) -> bool {
        let watermark = self.sources.get(series).and_then(|source| self.watermarks.get(source));
        watermark.is_some_and(|&watermark| watermark >= start.saturating_add(Duration::from_secs(EVERY)))
    }
}

impl Window {
    /// The values of [`crate::plans::COMPUTE`].
    pub(crate) fn values(&self) -> Vec<Option<Value>> {
        let values = || self.readings.iter().map(|(_, value)| *value);
        let by_time = |reading: &&(Timestamp, i64)| (reading.0, reading.1);
        let first = self.readings.iter().min_by_key(by_time).map(|reading| reading.1);
        let last = self.readings.iter().max_by_key(by_time).map(|reading| reading.1);
        vec![
            Some(Value::Int(self.readings.len().try_into().unwrap())),
            values().min().map(Value::Int),
            values().max().map(Value::Int),
            Some(Value::Float(values().map(|value| value as f64).sum())),
            first.map(Value::Int),
            last.map(Value::Int),
        ]
    }
}
