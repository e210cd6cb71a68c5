//! The epochs of an agent: their order, and how each ended.

use std::collections::{BTreeMap, BTreeSet};

use rtlive_core::record::Epoch;
use rtlive_core::time::Timestamp;

use super::{AnnouncedEpoch, Facts};

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

/// The beginnings that name an epoch as the one before.
type Followers<'a> = BTreeMap<Epoch, Vec<&'a AnnouncedEpoch>>;

/// The epochs of an agent.
pub(super) struct Epochs<'a> {
    followers: Followers<'a>,
    /// Each behind those that it followed.
    pub(super) in_order: Vec<Epoch>,
    ended: BTreeSet<Epoch>,
}

impl<'a> Epochs<'a> {
    pub(super) fn of(facts: &'a Facts) -> Self {
        let began: BTreeSet<Epoch> = facts.epochs.iter().map(|epoch| epoch.epoch).collect();
        let mut followers = Followers::new();
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
                followers.entry(predecessor).or_default().push(epoch);
            }
        }
        // Where the beginning of an epoch is not here, its records say when it was.
        for lane in &facts.lanes {
            if let Some(time) = times.get_mut(&lane.epoch).filter(|_| !began.contains(&lane.epoch)) {
                *time = lane.received.iter().filter_map(|interval| interval.latest).max().max(*time);
            }
        }
        let mut ended: BTreeSet<Epoch> = followers.keys().copied().collect();
        // Of those that nobody followed so far only the newest can go on.
        let newest = times.iter().filter(|(epoch, _)| !ended.contains(epoch)).max_by_key(|(_, time)| **time);
        let newest = newest.map(|(epoch, _)| *epoch);
        ended.extend(times.keys().copied().filter(|epoch| Some(*epoch) != newest));
        Self { in_order: in_order(times, &followers), followers, ended }
    }

    /// With which number a lane of an epoch ended.
    pub(super) fn end(&self, epoch: Epoch, stream: &str, class: &str) -> End {
        if !self.ended.contains(&epoch) {
            return End::Open;
        }
        let followers = self.followers.get(&epoch).into_iter().flatten();
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
fn in_order(mut times: BTreeMap<Epoch, Option<Timestamp>>, followers: &Followers<'_>) -> Vec<Epoch> {
    let behind = |epoch: Epoch| {
        let all = followers.get(&epoch).into_iter().flatten();
        all.map(|follower| follower.epoch).filter(move |follower| *follower != epoch)
    };
    let mut before: BTreeMap<Epoch, usize> = BTreeMap::new();
    for follower in times.keys().copied().flat_map(behind) {
        *before.entry(follower).or_default() += 1;
    }
    let free = times.iter().filter(|(epoch, _)| !before.contains_key(epoch));
    let mut next: BTreeSet<(Option<Timestamp>, Epoch)> = free.map(|(epoch, time)| (*time, *epoch)).collect();
    let mut order = Vec::with_capacity(times.len());
    // Epochs that follow each other in a circle are nobody's; they end up somewhere.
    while let Some(epoch) = next.pop_first().map(|(_, epoch)| epoch).or_else(|| times.keys().next().copied()) {
        times.remove(&epoch);
        order.push(epoch);
        for follower in behind(epoch) {
            let Some(count) = before.get_mut(&follower) else { continue };
            *count -= 1;
            if let Some(time) = times.get(&follower).filter(|_| *count == 0) {
                next.insert((*time, follower));
            }
        }
    }
    order
}
