//! The epochs of an agent: their order, and how each ended.

use std::collections::{BTreeMap, BTreeSet};

use rtlive_core::record::Epoch;
use rtlive_core::time::Timestamp;

use super::Facts;

/// With which number a lane ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// It goes on.
    Open,
    /// With this one; 0 is none.
    At(u64),
    /// It ended, and nobody said with which.
    Unknown,
}

/// The epochs of an agent.
pub(super) struct Epochs<'a> {
    facts: &'a Facts,
    /// Each behind those that it followed.
    pub(super) in_order: Vec<Epoch>,
    ended: BTreeSet<Epoch>,
}

impl<'a> Epochs<'a> {
    pub(super) fn of(facts: &'a Facts) -> Self {
        let mut times: BTreeMap<Epoch, Option<Timestamp>> = BTreeMap::new();
        let mut speak = |epoch, time: Option<Timestamp>| {
            let known = times.entry(epoch).or_default();
            *known = time.max(*known);
        };
        for lane in &facts.lanes {
            speak(lane.epoch, None);
        }
        for gap in &facts.gaps {
            speak(gap.epoch, None);
        }
        for epoch in &facts.epochs {
            speak(epoch.epoch, Some(epoch.began));
            if let Some(predecessor) = epoch.predecessor {
                speak(predecessor, None);
            }
        }
        // Where the beginning of an epoch is not here, its records say when it was.
        for lane in &facts.lanes {
            let began = facts.epochs.iter().any(|epoch| epoch.epoch == lane.epoch);
            if let Some(time) = times.get_mut(&lane.epoch).filter(|_| !began) {
                *time = lane.received.iter().filter_map(|interval| interval.latest).max().max(*time);
            }
        }
        let named = |epoch: &Epoch| facts.epochs.iter().any(|other| other.predecessor == Some(*epoch));
        let mut ended: BTreeSet<Epoch> = times.keys().copied().filter(named).collect();
        // Of those that nobody followed so far only the newest can go on.
        let newest = times.iter().filter(|(epoch, _)| !ended.contains(epoch)).max_by_key(|(_, time)| **time);
        let newest = newest.map(|(epoch, _)| *epoch);
        ended.extend(times.keys().copied().filter(|epoch| Some(*epoch) != newest));
        Self { facts, in_order: in_order(facts, times), ended }
    }

    /// With which number a lane of an epoch ended.
    pub(super) fn end(&self, epoch: Epoch, stream: &str, class: &str) -> End {
        if !self.ended.contains(&epoch) {
            return End::Open;
        }
        let followers = self.facts.epochs.iter().filter(|other| other.predecessor == Some(epoch));
        // The beginning of an epoch is a record: whoever names no numbers at all does not know them.
        let told = followers.filter(|follower| !follower.last.is_empty());
        let number = |last: &[(_, _, u64)]| {
            let of_lane =
                |(its, of, _): &&(std::sync::Arc<str>, std::sync::Arc<str>, u64)| **its == *stream && **of == *class;
            last.iter().find(of_lane).map_or(0, |(_, _, number)| *number)
        };
        told.map(|follower| number(&follower.last)).max().map_or(End::Unknown, End::At)
    }
}

/// Each epoch behind its predecessors, otherwise in the order of their times.
fn in_order(facts: &Facts, mut times: BTreeMap<Epoch, Option<Timestamp>>) -> Vec<Epoch> {
    let mut order = Vec::with_capacity(times.len());
    while !times.is_empty() {
        let follows = |epoch: &Epoch| {
            let mut starts = facts.epochs.iter().filter(|start| start.epoch == *epoch);
            starts.any(|start| start.predecessor.is_some_and(|before| before != *epoch && times.contains_key(&before)))
        };
        let first = times.iter().filter(|(epoch, _)| !follows(epoch)).min_by_key(|(_, time)| **time);
        // Epochs that follow each other in a circle are nobody's; they end up somewhere.
        let Some((&epoch, _)) = first.or_else(|| times.first_key_value()) else { break };
        times.remove(&epoch);
        order.push(epoch);
    }
    order
}
