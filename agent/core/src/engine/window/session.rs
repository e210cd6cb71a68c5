//! Sessions: windows that last until there was no reading for a while.
//!
//! A session is [first reading, last reading + gap). A reading joins those that it is less than `gap` away from, and they become one;
//! a session that was emitted under a start that it no longer has is taken back, under that start and the next revision. One that was
//! emitted and grows is emitted again in the same event, as early if it has not ended again, so that what was taken back is
//! always told anew with it.
//!
//! A reading is late when it would begin a session, alone or ahead of one, and `[reading, reading + gap)` has closed: a session that
//! began there may have been told and be gone, and would be told again under the same start.

use super::super::ledger::WindowAccount;
use super::super::watermark::Source;
use super::{Pane, Placed, Windows};
use crate::reading::Value;
use crate::record::{Aggregate, Emitted, Record};
use crate::time::Timestamp;

impl Windows {
    /// Adds a reading to the sessions that it joins, or begins one.
    pub(super) fn join(
        &mut self,
        slot: usize,
        time: Timestamp,
        value: &Value,
        source: &mut Source,
        account: &mut WindowAccount,
        (gap, longest): (i64, i64),
    ) -> Placed {
        account.selected += 1;
        let end_alone = Timestamp::from_nanos(time.as_nanos().saturating_add(gap));
        let near = self.near(slot, time, gap, source.watermark);
        let joined = self.joined(&near, time, gap, longest);
        let is_closed = self.window(slot).is_none_or(|window| source.watermark >= window.closes(end_alone));
        if is_closed && joined.first().is_none_or(|&first| self.starts_after(first, time)) {
            account.late += 1;
            return Placed::Late;
        }
        let Some((&first, others)) = joined.split_first() else {
            self.reuse_closed(slot, source.watermark);
            if self.make_room(slot, time, 1, account).is_none() {
                account.late += 1;
                return Placed::Late;
            }
            account.cut += u64::from(!near.is_empty());
            let before = self.position(slot, time).0;
            if let Some(place) = self.insert(slot, before, Pane::new(time, end_alone), source) {
                self.put(slot, place, time, value, source.watermark, account);
            }
            return Placed::Open;
        };
        let mut was_emitted = false;
        for &place in &joined {
            was_emitted |= self.reopen_session(slot, place, place != first || self.starts_after(place, time), account);
        }
        for &other in others {
            self.swallow(slot, first, other);
        }
        let Some(pane) = self.panes.get_mut(first) else { return Placed::Late };
        account.revising += u64::from(source.watermark >= end_alone);
        account.open += 1;
        account.unordered += u64::from(!pane.values.add(time, value));
        pane.start = pane.start.min(time);
        pane.end = pane.end.max(end_alone);
        pane.is_changed = true;
        if was_emitted {
            pane.is_reopened = true;
            self.touched.push(slot as u32);
            let end = pane.end;
            let group = self.slots.get(slot).and_then(|slot| self.groups.get_mut(slot.group as usize));
            if let Some(group) = group {
                group.due = group.due.min(end);
                source.due = source.due.min(end);
            }
        }
        Placed::Open
    }

    fn starts_after(&self, place: u32, time: Timestamp) -> bool {
        self.panes.get(place).is_some_and(|pane| pane.start > time)
    }

    /// The open sessions that a reading is less than the gap away from, the earliest first.
    fn near(&self, slot: usize, time: Timestamp, gap: i64, watermark: Timestamp) -> Vec<u32> {
        let Some(window) = self.window(slot) else { return Vec::new() };
        let distance = |later: Timestamp, earlier: Timestamp| later.as_nanos().saturating_sub(earlier.as_nanos());
        let mut near = Vec::new();
        for place in self.chain(slot) {
            let Some(pane) = self.panes.get(place) else { break };
            let (first, last) = pane.values.span();
            if watermark >= window.closes(pane.end) || distance(time, last) >= gap {
                break;
            }
            if distance(first, time) < gap {
                near.push(place);
            }
        }
        near.reverse();
        near
    }

    /// Of sessions that are near, those that become one with the reading without being too long; from the earliest on.
    fn joined(&self, near: &[u32], time: Timestamp, gap: i64, longest: i64) -> Vec<u32> {
        let (mut first, mut last) = (time, time);
        let fits = |&place: &u32| {
            let Some(pane) = self.panes.get(place) else { return false };
            let (begins, ends) = pane.values.span();
            let (from, to) = (first.min(begins), last.max(ends));
            let does = to.as_nanos().saturating_sub(from.as_nanos()).saturating_add(gap) <= longest;
            if does {
                (first, last) = (from, to);
            }
            does
        };
        near.iter().copied().filter(fits).collect()
    }

    /// Counts a session as open again, and takes it back where its start will be another; whether it was emitted in a way that is
    /// no longer right.
    fn reopen_session(&mut self, slot: usize, place: u32, loses_start: bool, account: &mut WindowAccount) -> bool {
        let Some((entry, pane)) = self.slots.get(slot).zip(self.panes.get_mut(place)) else { return false };
        let was_finished = std::mem::take(&mut pane.is_finished);
        if was_finished {
            let count = pane.values.count();
            account.finished -= count;
            account.open += count;
        }
        let is_taken_back = loses_start && pane.revisions > 0;
        if is_taken_back {
            let (start, end) = (pane.start, pane.end);
            let revision = std::mem::take(&mut pane.revisions);
            let Some(window) = self.windows.get(usize::from(entry.window)) else { return false };
            let values = window.compute.iter().map(|_| None).collect();
            let series = entry.series;
            let aggregate = Aggregate { series, start, end, revision, is_final: true, deleted: true, values };
            self.forced.push(Emitted { stream: window.stream, record: Record::Aggregate(aggregate) });
        }
        was_finished || is_taken_back || pane.is_reopened
    }

    /// Makes one session of two, and frees the later.
    fn swallow(&mut self, slot: usize, first: u32, other: u32) {
        let Some((values, end)) = self.panes.get_mut(other).map(|pane| (std::mem::take(&mut pane.values), pane.end))
        else {
            return;
        };
        if let Some(pane) = self.panes.get_mut(first) {
            pane.values.merge(&values);
            pane.end = pane.end.max(end);
        }
        if let Some(slot) = self.slots.get_mut(slot) {
            slot.remove(other, &mut self.panes);
        }
    }
}
