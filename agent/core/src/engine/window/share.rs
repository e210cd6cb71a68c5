//! Windows that share: what one takes, longer ones take from it.
//!
//! Of the tumbling windows of a series that keep the same, the shortest leads, and those follow whose every boundary is one of its own. While
//! the leader's latest window is open and in time, readings go into it alone; when it ends, or when what a follower holds is asked for,
//! it is merged into theirs, and from then on readings go into each by itself. So a reading that is late for the leader, or comes after
//! a later one opened the next, goes straight to those that still take it.
//!
//! What is kept of order (`time_mean`, `rate`, …) is not shared. Counts, least, greatest, first and last, and percentiles are the same either
//! way, and sums to the last bits of a compensated sum; when a leader is merged follows from the events alone.
//!
//! The account of a follower counts a reading when it comes. Its pane is open as long as the leader shares, and `is_changed`.

use super::super::ledger::WindowAccount;
use super::super::watermark::Source;
use super::{NONE, Placed, Window, Windows};
use crate::plan::WindowKind;
use crate::reading::Value;
use crate::sorted;
use crate::time::{Timestamp, nanos};

impl Window {
    /// Whether every boundary of another is one of its own, and it keeps what the other needs.
    fn leads(&self, other: &Self) -> bool {
        let (WindowKind::Tumbling { every, offset }, WindowKind::Tumbling { every: longer, offset: other_offset }) =
            (&self.kind, &other.kind)
        else {
            return false;
        };
        let between = nanos(*offset).abs_diff(nanos(*other_offset));
        let every = nanos(*every).unsigned_abs().max(1);
        self.keeps == other.keeps
            && !self.keeps.needs_carry()
            && nanos(*longer).unsigned_abs().is_multiple_of(every)
            && between.is_multiple_of(every)
    }
}

impl Windows {
    /// Puts the windows of a series, by number, into the order of their slots: the leader, those that follow it, the others. How many follow.
    pub(in super::super) fn order(&self, numbers: &mut [u16]) -> usize {
        let window = |number: u16| self.windows.get(usize::from(number));
        let leads = |a: u16, b: u16| a != b && window(a).zip(window(b)).is_some_and(|(a, b)| a.leads(b));
        let followers = |leader: u16| numbers.iter().filter(|&&other| leads(leader, other)).count();
        let Some((count, leader)) =
            numbers.iter().rev().map(|&number| (followers(number), number)).max_by_key(|(count, _)| *count)
        else {
            return 0;
        };
        if count > 0 {
            sorted::by_key(numbers, |&number| (number != leader, !leads(leader, number)));
        }
        count.min(SHARED_MAX)
    }

    /// Lets the slots behind one follow it.
    pub(in super::super) fn share(&mut self, leader: usize, followers: usize) {
        let slots = self.slots.get(leader + 1..=leader + followers).unwrap_or_default();
        let accounts = slots.iter().filter_map(|slot| Some(self.windows.get(usize::from(slot.window))?.account));
        let accounts: Vec<usize> = accounts.collect();
        let place = self.shared.iter().position(|known| *known == accounts).unwrap_or_else(|| {
            self.shared.push(accounts);
            self.shared.len() - 1
        });
        for (behind, slot) in self.slots.iter_mut().skip(leader).take(followers + 1).enumerate() {
            (slot.leader, slot.shared) = (leader as u32, if behind == 0 { place as u32 } else { NONE });
        }
    }

    /// Puts a reading into all windows of its series, as [`Windows::add`] does into one; whether it was late for one, and open for one.
    #[inline]
    pub(in super::super) fn add_to_all(
        &mut self,
        slots: std::ops::Range<usize>,
        time: Timestamp,
        value: &Value,
        source: &mut Source,
        accounts: &mut [WindowAccount],
    ) -> (bool, bool) {
        let (mut is_late, mut is_open) = (false, false);
        let mut rest = slots.clone();
        if !slots.is_empty() && self.slots.get(slots.start).is_some_and(|leader| leader.shared != NONE) {
            if let Some(followers) = self.add_shared(slots.start, time, value, source, accounts) {
                is_open = true;
                rest.start += 1 + followers;
            } else if self.begin_sharing(slots.start, time, source, accounts)
                && let Some(followers) = self.add_shared(slots.start, time, value, source, accounts)
            {
                is_open = true;
                rest.start += 1 + followers;
            }
        }
        for slot in rest {
            let placed = self.add(slot, time, value, source, accounts);
            is_late |= placed != Placed::Open;
            is_open |= placed != Placed::Late;
        }
        (is_late, is_open)
    }

    /// Adds to the pane that a leader shares; how many follow. `None` where the reading does not lie in it, or it has ended.
    #[inline]
    fn add_shared(
        &mut self,
        slot: usize,
        time: Timestamp,
        value: &Value,
        source: &Source,
        accounts: &mut [WindowAccount],
    ) -> Option<usize> {
        let leader = self.slots.get(slot).filter(|leader| leader.is_sharing)?;
        let pane = self.panes.get_mut(leader.head)?;
        if time < pane.start || time >= pane.end || source.watermark >= pane.end {
            return None;
        }
        let followers = self.shared.get(leader.shared as usize)?;
        pane.values.add(time, value);
        pane.is_changed = true;
        let own = self.windows.get(usize::from(leader.window))?.account;
        for account in followers.iter().chain([&own]) {
            if let Some(account) = accounts.get_mut(*account) {
                account.selected += 1;
                account.open += 1;
            }
        }
        Some(followers.len())
    }

    /// Opens the leader's next window to be shared, and those of the followers that it lies in; whether it did.
    #[inline(never)]
    fn begin_sharing(
        &mut self,
        slot: usize,
        time: Timestamp,
        source: &mut Source,
        accounts: &mut [WindowAccount],
    ) -> bool {
        let Some((window, leader)) = self.window(slot).zip(self.slots.get(slot)) else { return false };
        let (start, end) = window.kind.around(time);
        let followers = self.shared.get(leader.shared as usize).map_or(0, Vec::len);
        let head = self.panes.get(leader.head).map(|head| head.start);
        if head.is_some_and(|head| head >= start) {
            if head == Some(start) {
                // It has ended, and takes the reading by itself: as its followers do.
                self.merge_shared(slot);
            }
            return false;
        }
        let slots = slot..=slot + followers;
        let takes_all = |slot: usize| self.slots.get(slot).is_some_and(|slot| slot.floor.max(slot.begins) <= start);
        if source.watermark >= end || !slots.clone().all(takes_all) {
            return false;
        }
        let mut opened = [NONE; SHARED_MAX + 1];
        for (slot, place) in slots.clone().zip(&mut opened) {
            let account = self.window(slot).and_then(|window| accounts.get_mut(window.account));
            let pane = account.and_then(|account| self.find_or_open(slot, time, source, account));
            *place = pane.unwrap_or(NONE);
        }
        // Room for one may have ended another.
        let is_open = |(slot, place): (usize, &u32)| self.chain(slot).any(|open| open == *place);
        if !slots.zip(&opened).all(is_open) {
            return false;
        }
        opened.iter().for_each(|&place| {
            if let Some(pane) = self.panes.get_mut(place) {
                pane.is_changed = true;
            }
        });
        if let Some(leader) = self.slots.get_mut(slot) {
            leader.is_sharing = true;
        }
        true
    }

    /// Merges what a leader shares into the panes of its followers, and ends the sharing.
    pub(super) fn merge_shared(&mut self, slot: usize) {
        let Some(leader) = self.slots.get_mut(slot).filter(|leader| leader.is_sharing) else { return };
        leader.is_sharing = false;
        let (head, followers) = (leader.head, self.shared.get(leader.shared as usize).map_or(0, Vec::len));
        let Some(pane) = self.panes.get_mut(head) else { return };
        let (start, values) = (pane.start, std::mem::take(&mut pane.values));
        for follower in slot + 1..=slot + followers {
            let (_, place) = self.position(follower, start);
            if let Some(pane) = self.panes.get_mut(place).filter(|pane| start < pane.end) {
                pane.values.merge(&values);
            }
        }
        if let Some(pane) = self.panes.get_mut(head) {
            pane.values = values;
        }
    }

    /// Before a pane is told: it has to hold what it shares, or what its leader holds of it.
    pub(super) fn merge_before(&mut self, slot: usize, place: u32) {
        let Some(leader) = self.slots.get(slot).map(|slot| slot.leader as usize) else { return };
        let Some(sharing) = self.slots.get(leader).filter(|leader| leader.is_sharing) else { return };
        let Some((pane, shared)) = self.panes.get(place).zip(self.panes.get(sharing.head)) else { return };
        if pane.start <= shared.start && shared.start < pane.end {
            self.merge_shared(leader);
        }
    }

    /// Ends all sharing, before a change of the plan or of the sources.
    pub(in super::super) fn merge_all(&mut self, slots: std::ops::Range<usize>) {
        slots.for_each(|slot| self.merge_shared(slot));
    }

    /// How many readings a leader holds for each of its followers, and their accounts.
    pub(super) fn held_for_others(&self, slot: usize) -> Option<(u64, &[usize])> {
        let leader = self.slots.get(slot).filter(|leader| leader.is_sharing)?;
        Some((self.panes.get(leader.head)?.values.count(), self.shared.get(leader.shared as usize)?))
    }
}

/// The most windows that follow one; further ones take each reading by themselves.
pub(super) const SHARED_MAX: usize = 15;
