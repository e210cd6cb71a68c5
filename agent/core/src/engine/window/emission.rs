//! What windows emit: which panes are due, in which order, and which have closed and go.

use super::super::course::Span;
use super::super::ledger::WindowAccount;
use super::super::watermark::Source;
use super::{Group, Pane, Windows};
use crate::plan::StreamId;
use crate::plan::WindowKind;
use crate::reading::SeriesId;
use crate::record::{Aggregate, Emitted, Record};
use crate::sorted;
use crate::time::Timestamp;

/// A pane that is to be emitted. The order is that of emission: by end, stream, series, start.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Due {
    end: Timestamp,
    stream: StreamId,
    series: SeriesId,
    start: Timestamp,
    slot: u32,
    pane: u32,
    is_final: bool,
}

impl Windows {
    fn due(&self, slot: u32, place: u32, is_final: bool) -> Option<Due> {
        let entry = self.slots.get(slot as usize)?;
        let stream = self.windows.get(usize::from(entry.window))?.stream;
        let pane = self.panes.get(place)?;
        Some(Due { end: pane.end, stream, series: entry.series, start: pane.start, slot, pane: place, is_final })
    }

    /// Lists the panes that the source's watermark has passed, and those that it is time to emit early.
    pub(in super::super) fn collect_due(&self, source: &Source, due: &mut Vec<Due>) {
        for group in source.groups.iter().filter_map(|&group| self.groups.get(group as usize)) {
            if source.watermark < group.due {
                continue;
            }
            // The last multiple that was passed in this event; a window that begins there has nothing to tell yet.
            let multiple = self.windows.get(usize::from(group.window)).and_then(|window| {
                let multiple = source.watermark.floor(window.emit_every?);
                (source.settled > Timestamp::MIN && multiple > source.settled).then_some(multiple)
            });
            self.collect(group, source.watermark, due, |pane| {
                let is_time = multiple.is_some_and(|multiple| pane.is_changed && pane.start < multiple);
                !pane.is_finished && (source.watermark >= pane.end || is_time)
            });
        }
    }

    /// Lists the panes that are not finished and hold what was not emitted yet.
    pub(in super::super) fn collect_early(&self, source: &Source, due: &mut Vec<Due>) {
        for group in source.groups.iter().filter_map(|&group| self.groups.get(group as usize)) {
            self.collect(group, source.watermark, due, |pane| !pane.is_finished && pane.is_changed);
        }
    }

    fn collect(&self, group: &Group, watermark: Timestamp, due: &mut Vec<Due>, wanted: impl Fn(&Pane) -> bool) {
        for &slot in &group.slots {
            for place in self.chain(slot as usize) {
                if let Some(pane) = self.panes.get(place).filter(|&pane| wanted(pane)) {
                    due.extend(self.due(slot, place, watermark >= pane.end));
                }
            }
        }
    }

    /// Adds the panes that were emitted before and took readings in this event.
    pub(in super::super) fn collect_touched(&mut self, sources: &[Source], due: &mut Vec<Due>) {
        let mut touched = std::mem::take(&mut self.touched);
        touched.sort_unstable();
        touched.dedup();
        for slot in touched.drain(..) {
            let group = self.slots.get(slot as usize).and_then(|slot| self.groups.get(slot.group as usize));
            let Some(source) = group.and_then(|group| sources.get(group.source as usize)) else { continue };
            for place in self.chain(slot as usize) {
                let is_due = |pane: &&Pane| pane.is_changed && (pane.is_finished || pane.is_reopened);
                if let Some(pane) = self.panes.get(place).filter(is_due) {
                    due.extend(self.due(slot, place, source.watermark >= pane.end));
                }
            }
        }
        self.touched = touched;
    }

    /// Emits panes in their order, and empties the list.
    pub(in super::super) fn emit(
        &mut self,
        due: &mut Vec<Due>,
        accounts: &mut [WindowAccount],
        out: &mut Vec<Emitted>,
    ) {
        due.sort_unstable();
        due.dedup();
        let begin = out.len();
        out.reserve(due.len() + self.forced.len());
        for Due { slot, pane, is_final, .. } in due.drain(..) {
            let account = self.window(slot as usize).and_then(|window| accounts.get_mut(window.account));
            out.extend(account.and_then(|account| self.emit_pane(slot as usize, pane, is_final, account)));
        }
        if self.forced.is_empty() {
            return;
        }
        out.append(&mut self.forced);
        if let Some(emitted) = out.get_mut(begin..) {
            // What is taken back goes before what takes its place.
            sorted::by_key(emitted, |Emitted { stream, record }| match record {
                Record::Aggregate(one) => Some((one.end, *stream, one.series, !one.deleted, one.start, one.revision)),
                _ => None,
            });
        }
    }

    /// Makes the next revision of a pane.
    fn emit_pane(&mut self, slot: usize, place: u32, is_final: bool, account: &mut WindowAccount) -> Option<Emitted> {
        self.merge_before(slot, place);
        let entry = self.slots.get(slot)?;
        let window = self.windows.get(usize::from(entry.window))?;
        let pane = self.panes.get(place)?;
        let (start, end, revision) = (pane.start, pane.end, pane.revisions);
        let merged;
        let held = match window.kind {
            WindowKind::Sliding { .. } => {
                merged = self.merged(slot, start, end);
                &merged
            }
            _ => &pane.values,
        };
        let carry = self.carry(slot, pane);
        let span = Span { start, until: if is_final { end } else { start }, carry: carry.as_ref() };
        let values = window.compute.iter().map(|&function| held.value(function, &span)).collect();
        let count = held.count();
        let aggregate = Aggregate { series: entry.series, start, end, revision, is_final, deleted: false, values };
        let emitted = Emitted { stream: window.stream, record: Record::Aggregate(aggregate) };
        let pane = self.panes.get_mut(place)?;
        pane.revisions = pane.revisions.saturating_add(1);
        (pane.is_changed, pane.is_reopened) = (false, false);
        if is_final && !pane.is_finished {
            pane.is_finished = true;
            account.open -= count;
            account.finished += count;
        }
        Some(emitted)
    }

    /// Emits a pane as it is at this point of the event, in the order of the event's end.
    pub(super) fn force(&mut self, slot: usize, place: u32, is_final: bool, account: &mut WindowAccount) {
        let emitted = self.emit_pane(slot, place, is_final, account);
        self.forced.extend(emitted);
    }

    /// Ends the oldest pane of a slot before its time: emits what was not emitted, and lets nothing into it any more.
    pub(super) fn end_early(&mut self, slot: usize, place: u32, account: &mut WindowAccount) -> Option<()> {
        let window = self.window(slot)?;
        let pane = self.panes.get(place)?;
        let floor = window.start_behind(pane);
        let (start, end, is_finished) = (pane.start, pane.end, pane.is_finished);
        if pane.is_changed || !pane.is_finished && pane.revisions == 0 {
            self.force(slot, place, false, account);
        }
        if !is_finished {
            let count = self.held_by(slot, place, start, end);
            account.open -= count;
            account.finished += count;
        }
        account.crowded += 1;
        let entry = self.slots.get_mut(slot)?;
        entry.floor = entry.floor.max(floor);
        entry.remove(place, &mut self.panes);
        Some(())
    }

    /// How many readings the window of a pane holds.
    pub(super) fn held_by(&self, slot: usize, place: u32, start: Timestamp, end: Timestamp) -> u64 {
        match self.window(slot).map(|window| &window.kind) {
            Some(WindowKind::Sliding { .. }) => {
                let steps =
                    self.panes_of(slot).filter(|pane| start <= pane.start && (pane.start < end || pane.start == start));
                steps.map(|pane| pane.values.count()).fold(0, u64::saturating_add)
            }
            _ => self.panes.get(place).map_or(0, |pane| pane.values.count()),
        }
    }

    /// Lets go of the panes that the source's watermark has closed, and works out what is due next.
    pub(in super::super) fn sweep(&mut self, source: &mut Source) {
        source.due = Timestamp::MAX;
        source.settled = source.watermark;
        for i in 0..source.groups.len() {
            let Some(place) = source.groups.get(i).copied() else { continue };
            if self.groups.get(place as usize).is_some_and(|group| source.watermark >= group.due) {
                self.sweep_group(place as usize, source.watermark);
            }
            if let Some(group) = self.groups.get(place as usize) {
                source.due = source.due.min(group.due);
            }
        }
    }

    fn sweep_group(&mut self, group: usize, watermark: Timestamp) {
        let Self { windows, slots, groups, panes, .. } = self;
        let Some(group) = groups.get_mut(group) else { return };
        let Some(window) = windows.get(usize::from(group.window)) else { return };
        group.due = window.emit_every.map_or(Timestamp::MAX, |every| watermark.next_multiple(every));
        for &slot in &group.slots {
            let Some(slot) = slots.get_mut(slot as usize) else { continue };
            // The latest first: once one has closed, so have all behind it.
            let mut last_kept = None;
            let mut place = slot.head;
            while let Some(pane) = panes.get(place) {
                if watermark >= window.closes(pane.end) {
                    break;
                }
                group.due = group.due.min(pane.due(window));
                last_kept = Some(place);
                place = pane.next;
            }
            slot.cut(last_kept, place, panes);
        }
    }

    /// Ends the panes of slots that a new plan has no place for: emits what was not emitted, as it is, and counts it as finished.
    pub(in super::super) fn abandon(
        &mut self,
        slots: &[usize],
        accounts: &mut [WindowAccount],
        out: &mut Vec<Emitted>,
    ) {
        let mut due = Vec::new();
        for &slot in slots {
            for place in self.chain(slot) {
                if self.panes.get(place).is_some_and(|pane| pane.is_changed) {
                    due.extend(self.due(slot as u32, place, false));
                }
            }
        }
        self.emit(&mut due, accounts, out);
        for &slot in slots {
            let held: u64 = self.held_unfinished(slot);
            let account = self.window(slot).and_then(|window| accounts.get_mut(window.account));
            if let Some(account) = account {
                account.open -= held;
                account.finished += held;
            }
            self.clear(slot);
        }
    }
}
