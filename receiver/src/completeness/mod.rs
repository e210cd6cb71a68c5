//! Completeness: what an agent's numbers say of what is here and what is not.
//!
//! The numbers of a lane (epoch, stream, class) count from 1. Which there are is known from the records that came, from gaps that name numbers which are not
//! coming, and from the beginning of the next epoch, which names the last ones. So every number is here, or in a gap with its reason, or missing; and
//! where an epoch ended without a word, what follows the last known number was never announced.
//!
//! Nothing here reads the state; it says what follows from [`Facts`] of one moment.

mod epochs;
mod told;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use rtlive_core::record::Epoch;
use rtlive_core::time::Timestamp;
use serde::{Serialize, Serializer};

use crate::intervals::{Intervals, Numbers};
use epochs::{End, Epochs};

/// What is known of an agent's numbers.
#[derive(Clone, Debug, Default)]
pub struct Facts {
    /// What is here.
    pub lanes: Vec<LaneFacts>,
    /// What is not coming.
    pub gaps: Vec<AnnouncedGap>,
    /// Which epochs began after which.
    pub epochs: Vec<AnnouncedEpoch>,
}

/// The records of a lane that are here.
#[derive(Clone, Debug)]
pub struct LaneFacts {
    /// The epoch.
    pub epoch: Epoch,
    /// The stream.
    pub stream: Arc<str>,
    /// The class.
    pub class: Arc<str>,
    /// The numbers.
    pub received: Intervals,
}

/// Records that are not coming.
#[derive(Clone, Debug)]
pub struct AnnouncedGap {
    /// The epoch of the numbers.
    pub epoch: Epoch,
    /// The stream.
    pub stream: Arc<str>,
    /// The class.
    pub class: Arc<str>,
    /// Within which numbers.
    pub numbers: Numbers,
    /// How many of them are meant.
    pub count: u64,
    /// The latest event time of the records.
    pub latest: Option<Timestamp>,
    /// Why.
    pub reason: Arc<str>,
    /// A coarser stream that tells the same story.
    pub covered_by: Option<Arc<str>>,
}

/// The beginning of an epoch.
#[derive(Clone, Debug)]
pub struct AnnouncedEpoch {
    /// The epoch.
    pub epoch: Epoch,
    /// The one that ended.
    pub predecessor: Option<Epoch>,
    /// When, by the agent's clock.
    pub began: Timestamp,
    /// The last numbers of the predecessor: stream, class, number.
    pub last: Vec<(Arc<str>, Arc<str>, u64)>,
}

/// What can be said of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Completeness {
    /// Every number that is known is here.
    Complete,
    /// What is not here is in gaps, with their reasons.
    Gaps,
    /// Numbers are neither here nor in gaps: on their way, or lost behind the broker.
    Missing,
    /// An epoch ended, and nobody said with which numbers.
    Unannounced,
}

/// Numbers that are not here.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Hole {
    /// The epoch of the numbers.
    #[serde(serialize_with = "displayed")]
    pub epoch: Epoch,
    /// The first.
    pub from: u64,
    /// The last.
    pub to: u64,
    /// How many, where these are the numbers within which an unknown part is meant.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub count: Option<u64>,
    /// Why, of a gap.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<Arc<str>>,
    /// A coarser stream that tells the same story.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub covered_by: Option<Arc<str>>,
}

/// What follows a number of an epoch was never announced.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Unannounced {
    /// The epoch.
    #[serde(serialize_with = "displayed")]
    pub epoch: Epoch,
    /// The last number that is known.
    pub after: u64,
}

/// The report of a stream and class.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Report {
    /// The agent.
    pub agent: Arc<str>,
    /// The stream.
    pub stream: Arc<str>,
    /// The class.
    pub class: Arc<str>,
    /// What can be said.
    pub state: Completeness,
    /// The latest event time before which, in the order of the numbers, every record is here or in a gap; absent where there is none.
    #[serde(serialize_with = "displayed_if", skip_serializing_if = "Option::is_none")]
    pub until: Option<Timestamp>,
    /// How many records are here.
    pub records: u64,
    /// Numbers in gaps.
    pub gaps: Vec<Hole>,
    /// Numbers that are neither here nor in gaps.
    pub missing: Vec<Hole>,
    /// Epochs whose end nobody told.
    pub unannounced: Vec<Unannounced>,
}

/// The reports of an agent, one for each stream and class, in their order.
pub fn reports(agent: &Arc<str>, facts: &Facts) -> Vec<Report> {
    let epochs = Epochs::of(facts);
    let lanes = facts.lanes.iter().map(|lane| (&lane.stream, &lane.class));
    let gaps = facts.gaps.iter().map(|gap| (&gap.stream, &gap.class));
    let ends = facts.epochs.iter().flat_map(|epoch| epoch.last.iter().map(|(stream, class, _)| (stream, class)));
    let keys: BTreeSet<(&Arc<str>, &Arc<str>)> = lanes.chain(gaps).chain(ends).collect();
    keys.into_iter().map(|(stream, class)| report(agent, stream, class, facts, &epochs)).collect()
}

fn report(agent: &Arc<str>, stream: &Arc<str>, class: &Arc<str>, facts: &Facts, epochs: &Epochs) -> Report {
    let mut report = Report {
        agent: Arc::clone(agent),
        stream: Arc::clone(stream),
        class: Arc::clone(class),
        state: Completeness::Complete,
        until: None,
        records: 0,
        gaps: Vec::new(),
        missing: Vec::new(),
        unannounced: Vec::new(),
    };
    let is_this = |other: &str, its: &str| *other == **stream && *its == **class;
    let lanes = facts.lanes.iter().filter(|lane| is_this(&lane.stream, &lane.class));
    let lanes: BTreeMap<Epoch, &Intervals> = lanes.map(|lane| (lane.epoch, &lane.received)).collect();
    let mut gaps: BTreeMap<Epoch, Vec<&AnnouncedGap>> = BTreeMap::new();
    for gap in facts.gaps.iter().filter(|gap| is_this(&gap.stream, &gap.class)) {
        gaps.entry(gap.epoch).or_default().push(gap);
    }
    for &epoch in &epochs.in_order {
        let gaps = gaps.get(&epoch).map(Vec::as_slice).unwrap_or_default();
        report.add(epoch, lanes.get(&epoch).copied(), gaps, epochs.end(epoch, stream, class));
    }
    report.state = if !report.missing.is_empty() {
        Completeness::Missing
    } else if !report.unannounced.is_empty() {
        Completeness::Unannounced
    } else if !report.gaps.is_empty() {
        Completeness::Gaps
    } else {
        Completeness::Complete
    };
    report
}

impl Report {
    /// Adds an epoch, behind those before it.
    fn add(&mut self, epoch: Epoch, received: Option<&Intervals>, gaps: &[&AnnouncedGap], end: End) {
        let of_nothing = Intervals::default();
        let received = received.unwrap_or(&of_nothing);
        let is_known_so_far = self.missing.is_empty() && self.unannounced.is_empty();
        let mut known = received.clone();
        // Exact gaps first: what they explain is not looked for in those that say only how many.
        let (exact, vague): (Vec<&AnnouncedGap>, Vec<&AnnouncedGap>) =
            gaps.iter().copied().partition(|gap| gap.count >= gap.numbers.count());
        for gap in exact {
            for Numbers { from, to } in known.insert(gap.numbers, gap.latest) {
                self.gaps.push(hole(epoch, from, to, None, gap));
            }
        }
        for gap in vague {
            let open = known.missing(gap.numbers);
            let count: u64 = open.iter().map(|numbers| numbers.count()).sum();
            if count > gap.count {
                // Which of them are meant is not known, but how many are not.
                let Numbers { from, to } = gap.numbers;
                self.missing.push(Hole {
                    epoch,
                    from,
                    to,
                    count: Some(count - gap.count),
                    reason: None,
                    covered_by: None,
                });
                self.gaps.push(hole(epoch, from, to, Some(gap.count), gap));
            }
            for Numbers { from, to } in known.insert(gap.numbers, gap.latest) {
                if count <= gap.count {
                    self.gaps.push(hole(epoch, from, to, None, gap));
                }
            }
        }
        let last = known.last().unwrap_or(0);
        let (last, is_announced) = match end {
            End::Open => (last, true),
            End::At(end) => (last.max(end), last <= end),
            End::Unknown => (last, false),
        };
        self.records = self.records.saturating_add(received.count());
        if last > 0 {
            for Numbers { from, to } in known.missing(Numbers { from: 1, to: last }) {
                self.missing.push(Hole { epoch, from, to, count: None, reason: None, covered_by: None });
            }
        }
        if !is_announced {
            self.unannounced.push(Unannounced { epoch, after: last });
        }
        if is_known_so_far {
            let first_missing = self.missing.iter().map(|hole| hole.from).min().unwrap_or(u64::MAX);
            // An interval that goes on behind a number of which one may be missing says nothing of the time before it.
            let before = known.iter().filter(|interval| interval.to < first_missing);
            self.until = before.filter_map(|interval| interval.latest).chain(self.until).max();
        }
    }
}

fn hole(epoch: Epoch, from: u64, to: u64, count: Option<u64>, gap: &AnnouncedGap) -> Hole {
    let (reason, covered_by) = (Some(Arc::clone(&gap.reason)), gap.covered_by.clone());
    Hole { epoch, from, to, count, reason, covered_by }
}

fn displayed<T: std::fmt::Display, S: Serializer>(value: &T, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(value)
}

fn displayed_if<T: std::fmt::Display, S: Serializer>(value: &Option<T>, serializer: S) -> Result<S::Ok, S::Error> {
    match value {
        Some(value) => serializer.collect_str(value),
        None => serializer.serialize_none(),
    }
}

#[cfg(test)]
mod tests;
