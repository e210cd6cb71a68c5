//! Tumbling windows of event time: which are open, what they hold, when they end.
//!
//! ```text
//! window (of the plan) × source ──▶ group: what ends together ──▶ slots: one per series ──▶ panes: open windows, newest first
//! ```
//!
//! Invariants between two events:
//! - a pane whose end the watermark has passed is finished: emitted as final with all that it holds;
//! - a pane whose end and lateness the watermark has passed is gone;
//! - the panes of a slot have different starts, the latest first;
//! - a group's `due` is the least watermark at which one of its panes finishes or goes.
//!
//! Open panes per slot are bounded by the configuration: `(out_of_order + lateness) / every + 2`, because nothing is further ahead
//! of the watermark than the newest reading that made it.

use super::aggregate::Accumulator;
use super::ledger::WindowAccount;
use super::watermark::Source;
use crate::plan::{Function, StreamId};
use crate::reading::{SeriesId, Value};
use crate::record::{Aggregate, Emitted, Record};
use crate::time::Timestamp;

/// No pane.
const NONE: u32 = u32::MAX;

/// How much the table of panes grows at once, as a part of its length: a table that doubles would waste up to half.
const PANES_GROWTH: usize = 8;

/// A window of the plan.
#[derive(Debug)]
pub(super) struct Window {
    pub(super) stream: StreamId,
    /// Nanoseconds, at least 1.
    pub(super) every: i64,
    /// Nanoseconds.
    pub(super) lateness: i64,
    pub(super) compute: Vec<Function>,
}

/// A series in a window: the chain of its open panes.
#[derive(Debug)]
pub(super) struct Slot {
    pub(super) window: u16,
    pub(super) series: SeriesId,
    group: u32,
    head: u32,
}

/// The slots of a window that share a watermark.
#[derive(Debug)]
struct Group {
    window: u16,
    due: Timestamp,
    slots: Vec<u32>,
}

/// One open window of one series.
#[derive(Debug)]
pub(super) struct Pane {
    pub(super) values: Accumulator,
    pub(super) start: Timestamp,
    pub(super) end: Timestamp,
    /// How often it was emitted.
    pub(super) revisions: u32,
    /// Whether it was emitted as final.
    pub(super) is_finished: bool,
    /// Whether it holds readings that were not emitted yet.
    pub(super) is_changed: bool,
    next: u32,
}

/// A pane that is to be emitted. The order is that of emission: by end, stream, series.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Due {
    end: Timestamp,
    stream: StreamId,
    series: SeriesId,
    window: u16,
    pane: u32,
}

/// Where a reading went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Placed {
    Open,
    Late,
}

/// All windows of all series.
#[derive(Debug, Default)]
pub(super) struct Windows {
    pub(super) windows: Vec<Window>,
    pub(super) slots: Vec<Slot>,
    groups: Vec<Group>,
    panes: Vec<Pane>,
    /// The first of the free panes; they are chained as those of a slot.
    free: u32,
    open: usize,
    /// Finished panes that took a reading in this event.
    revised: Vec<Due>,
}

impl Window {
    /// The window that a time lies in, cut off at the ends of time.
    fn around(&self, time: Timestamp) -> (Timestamp, Timestamp) {
        let place = time.as_nanos().div_euclid(self.every);
        let start = place.saturating_mul(self.every);
        let end = place.saturating_add(1).saturating_mul(self.every);
        (Timestamp::from_nanos(start), Timestamp::from_nanos(end))
    }

    #[inline]
    fn closes(&self, end: Timestamp) -> Timestamp {
        Timestamp::from_nanos(end.as_nanos().saturating_add(self.lateness))
    }
}

impl Slot {
    /// Ends the chain behind `last_kept`, and frees the panes from `cut` on, which were behind it.
    fn cut(&mut self, last_kept: Option<u32>, cut: u32, panes: &mut [Pane], free: &mut u32, open: &mut usize) {
        match last_kept.and_then(|kept| panes.get_mut(kept as usize)) {
            Some(kept) => kept.next = NONE,
            None => self.head = NONE,
        }
        let mut place = cut;
        while let Some(pane) = panes.get_mut(place as usize) {
            // A text in it would live on.
            pane.values = Accumulator::default();
            let next = std::mem::replace(&mut pane.next, *free);
            *free = std::mem::replace(&mut place, next);
            *open -= 1;
        }
    }
}

impl Pane {
    fn due(&self, window: &Window) -> Timestamp {
        if self.is_finished { window.closes(self.end) } else { self.end }
    }
}

impl Windows {
    pub(super) fn new(windows: Vec<Window>) -> Self {
        Self { windows, free: NONE, ..Self::default() }
    }

    /// How many panes are open.
    pub(super) const fn open_count(&self) -> usize {
        self.open
    }

    /// The bytes that the tables take, spare room included.
    pub(super) fn bytes(&self) -> usize {
        let groups: usize = self.groups.iter().map(|group| group.slots.capacity() * size_of::<u32>()).sum();
        self.panes.capacity() * size_of::<Pane>()
            + self.slots.capacity() * size_of::<Slot>()
            + self.groups.capacity() * size_of::<Group>()
            + groups
    }

    /// Adds a series to a window; its slot is the next one in the table.
    pub(super) fn subscribe(&mut self, window: u16, series: SeriesId, source: &mut Source) {
        let known =
            source.groups.iter().copied().find(|&g| self.groups.get(g as usize).is_some_and(|g| g.window == window));
        let group = known.unwrap_or_else(|| {
            let group = self.groups.len() as u32;
            self.groups.push(Group { window, due: Timestamp::MAX, slots: Vec::new() });
            source.groups.push(group);
            group
        });
        if let Some(group) = self.groups.get_mut(group as usize) {
            group.slots.push(self.slots.len() as u32);
        }
        self.slots.push(Slot { window, series, group, head: NONE });
    }

    /// Puts a reading into its window, opening it where it must, unless the window has closed.
    #[inline]
    pub(super) fn add(
        &mut self,
        slot: usize,
        time: Timestamp,
        value: &Value,
        source: &mut Source,
        accounts: &mut [WindowAccount],
    ) -> Placed {
        let Some((slot_entry, window, account)) = self.slots.get(slot).and_then(|entry| {
            let place = usize::from(entry.window);
            Some((entry, self.windows.get(place)?, accounts.get_mut(place)?))
        }) else {
            return Placed::Open;
        };
        account.selected += 1;
        let head = slot_entry.head;
        let place = match self.panes.get(head as usize) {
            Some(pane) if pane.start <= time && time < pane.end => {
                if source.watermark >= window.closes(pane.end) {
                    account.late += 1;
                    return Placed::Late;
                }
                head
            }
            _ => match self.find_or_open(slot, time, source) {
                Some(place) => place,
                None => {
                    account.late += 1;
                    return Placed::Late;
                }
            },
        };
        if let Some(pane) = self.panes.get_mut(place as usize) {
            pane.values.add(time, value);
            account.revising += u64::from(source.watermark >= pane.end);
            if pane.is_finished {
                account.finished += 1;
                if !pane.is_changed {
                    self.revised.extend(self.due(slot, place));
                }
            } else {
                account.open += 1;
            }
        }
        if let Some(pane) = self.panes.get_mut(place as usize) {
            pane.is_changed = true;
        }
        Placed::Open
    }

    fn due(&self, slot: usize, pane: u32) -> Option<Due> {
        let slot = self.slots.get(slot)?;
        let stream = self.windows.get(usize::from(slot.window))?.stream;
        let end = self.panes.get(pane as usize)?.end;
        Some(Due { end, stream, series: slot.series, window: slot.window, pane })
    }

    /// The pane for a time; `None` when it is too late for it.
    #[cold]
    fn find_or_open(&mut self, slot: usize, time: Timestamp, source: &mut Source) -> Option<u32> {
        let window = self.windows.get(usize::from(self.slots.get(slot)?.window))?;
        let (start, end) = window.around(time);
        if source.watermark >= window.closes(end) {
            return None;
        }
        self.reuse_closed(slot, source.watermark);
        if let Some(place) =
            self.chain(slot).find(|&place| self.panes.get(place as usize).is_some_and(|p| p.start == start))
        {
            return Some(place);
        }
        let pane = Pane {
            values: Accumulator::default(),
            start,
            end,
            revisions: 0,
            is_finished: false,
            is_changed: false,
            next: NONE,
        };
        self.link(slot, pane, source)
    }

    /// The places of a slot's panes.
    fn chain(&self, slot: usize) -> impl Iterator<Item = u32> + '_ {
        let head = self.slots.get(slot).map_or(NONE, |slot| slot.head);
        let at = |place: u32| (place != NONE).then_some(place);
        std::iter::successors(at(head), move |&place| at(self.panes.get(place as usize)?.next))
    }

    /// Opens a pane in a slot; `None` when there is one with this start.
    fn link(&mut self, slot: usize, mut pane: Pane, source: &mut Source) -> Option<u32> {
        let (start, entry) = (pane.start, self.slots.get(slot)?);
        let due = pane.due(self.windows.get(usize::from(entry.window))?);
        let (group, head) = (entry.group, entry.head);
        let before =
            self.chain(slot).take_while(|&p| self.panes.get(p as usize).is_some_and(|p| p.start > start)).last();
        let after = match before {
            Some(before) => self.panes.get(before as usize)?.next,
            None => head,
        };
        if self.panes.get(after as usize).is_some_and(|after| after.start == start) {
            return None;
        }
        pane.next = after;
        let place = self.occupy(pane);
        match before {
            Some(before) => self.panes.get_mut(before as usize)?.next = place,
            None => self.slots.get_mut(slot)?.head = place,
        }
        let group = self.groups.get_mut(group as usize)?;
        group.due = group.due.min(due);
        source.due = source.due.min(due);
        Some(place)
    }

    fn occupy(&mut self, pane: Pane) -> u32 {
        self.open += 1;
        if let Some(free) = self.panes.get_mut(self.free as usize) {
            let place = std::mem::replace(&mut self.free, free.next);
            *free = pane;
            return place;
        }
        if self.panes.len() == self.panes.capacity() {
            self.panes.reserve_exact(self.panes.len() / PANES_GROWTH + PANES_GROWTH);
        }
        self.panes.push(pane);
        (self.panes.len() - 1) as u32
    }

    /// Opens a pane as it was saved. `None` when the plan has no such window over the series, or there is such a pane already.
    pub(super) fn reopen(&mut self, slot: usize, pane: SavedPane, source: &mut Source) -> Option<()> {
        let window = self.windows.get(usize::from(self.slots.get(slot)?.window))?;
        let SavedPane { values, start, revisions, is_finished, is_changed } = pane;
        let (aligned, end) = window.around(start);
        if aligned != start || !values.is_sound() {
            return None;
        }
        let pane = Pane { values, start, end, revisions, is_finished, is_changed, next: NONE };
        self.link(slot, pane, source).map(|_| ())
    }

    /// Lets go of the panes of a slot that have closed, when all of them were emitted, so that a window that opens takes the room of
    /// one that closes in the same event. What this leaves is swept at the event's end.
    fn reuse_closed(&mut self, slot: usize, watermark: Timestamp) {
        let Self { windows, slots, panes, free, open, .. } = self;
        let Some(slot) = slots.get_mut(slot) else { return };
        let Some(window) = windows.get(usize::from(slot.window)) else { return };
        let (mut last_kept, mut closed) = (None, slot.head);
        while let Some(pane) = panes.get(closed as usize).filter(|pane| watermark < window.closes(pane.end)) {
            last_kept = Some(closed);
            closed = pane.next;
        }
        let mut place = closed;
        while let Some(pane) = panes.get(place as usize) {
            if !pane.is_finished || pane.is_changed {
                return;
            }
            place = pane.next;
        }
        slot.cut(last_kept, closed, panes, free, open);
    }

    /// Takes the panes out of a slot.
    pub(super) fn evict(&mut self, slot: usize) -> Vec<SavedPane> {
        let saved = self.panes(slot).map(Pane::saved).collect();
        let Self { slots, panes, free, open, .. } = self;
        if let Some(slot) = slots.get_mut(slot) {
            slot.cut(None, slot.head, panes, free, open);
        }
        saved
    }

    /// The panes of a slot, the latest first.
    pub(super) fn panes(&self, slot: usize) -> impl Iterator<Item = &Pane> {
        self.chain(slot).filter_map(|place| self.panes.get(place as usize))
    }

    /// Whether the accounts' open readings are those in open windows that are not finished. For state from outside.
    pub(super) fn agree_with(&self, accounts: &[WindowAccount]) -> bool {
        let mut open = vec![0u64; accounts.len()];
        for (place, slot) in self.slots.iter().enumerate() {
            let unfinished = self.panes(place).filter(|pane| !pane.is_finished);
            if let Some(open) = open.get_mut(usize::from(slot.window)) {
                *open = unfinished.fold(*open, |open, pane| open.saturating_add(pane.values.count()));
            }
        }
        accounts.iter().zip(open).all(|(account, open)| account.open == open)
    }

    /// The length of a slot's window, in nanoseconds.
    pub(super) fn every(&self, slot: usize) -> Option<i64> {
        Some(self.windows.get(usize::from(self.slots.get(slot)?.window))?.every)
    }

    /// Lists the panes that finish at the source's watermark.
    pub(super) fn collect_finished(&self, source: &Source, due: &mut Vec<Due>) {
        for group in source.groups.iter().filter_map(|&group| self.groups.get(group as usize)) {
            if source.watermark < group.due {
                continue;
            }
            self.collect(group, due, |pane| !pane.is_finished && source.watermark >= pane.end);
        }
    }

    /// Lists the panes that are not finished and hold what was not emitted yet.
    pub(super) fn collect_early(&self, source: &Source, due: &mut Vec<Due>) {
        for group in source.groups.iter().filter_map(|&group| self.groups.get(group as usize)) {
            self.collect(group, due, |pane| !pane.is_finished && pane.is_changed);
        }
    }

    fn collect(&self, group: &Group, due: &mut Vec<Due>, wanted: impl Fn(&Pane) -> bool) {
        for &slot in &group.slots {
            let slot = slot as usize;
            for place in self.chain(slot) {
                if self.panes.get(place as usize).is_some_and(&wanted) {
                    due.extend(self.due(slot, place));
                }
            }
        }
    }

    /// Adds the finished panes that took readings in this event.
    pub(super) fn collect_revised(&mut self, due: &mut Vec<Due>) {
        due.append(&mut self.revised);
    }

    /// Emits panes in their order, and empties the list.
    pub(super) fn emit(
        &mut self,
        due: &mut Vec<Due>,
        is_final: bool,
        accounts: &mut [WindowAccount],
        out: &mut Vec<Emitted>,
    ) {
        due.sort_unstable();
        out.reserve(due.len());
        for Due { stream, series, window, pane, .. } in due.drain(..) {
            let place = usize::from(window);
            let (Some(window), Some(pane), Some(account)) =
                (self.windows.get(place), self.panes.get_mut(pane as usize), accounts.get_mut(place))
            else {
                continue;
            };
            let values = window.compute.iter().map(|&function| pane.values.value(function)).collect();
            let (start, end, revision) = (pane.start, pane.end, pane.revisions);
            let aggregate = Aggregate { series, start, end, revision, is_final, deleted: false, values };
            out.push(Emitted { stream, record: Record::Aggregate(aggregate) });
            pane.revisions = pane.revisions.saturating_add(1);
            pane.is_changed = false;
            if is_final && !pane.is_finished {
                pane.is_finished = true;
                account.open -= pane.values.count();
                account.finished += pane.values.count();
            }
        }
    }

    /// Lets go of the panes that the source's watermark has closed, and works out what is due next.
    pub(super) fn sweep(&mut self, source: &mut Source) {
        source.due = Timestamp::MAX;
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
        let Self { windows, slots, groups, panes, free, open, .. } = self;
        let Some(group) = groups.get_mut(group) else { return };
        let Some(window) = windows.get(usize::from(group.window)) else { return };
        group.due = Timestamp::MAX;
        for &slot in &group.slots {
            let Some(slot) = slots.get_mut(slot as usize) else { continue };
            // The latest first: once one has closed, so have all behind it.
            let mut last_kept = None;
            let mut place = slot.head;
            while let Some(pane) = panes.get(place as usize) {
                if watermark >= window.closes(pane.end) {
                    break;
                }
                group.due = group.due.min(pane.due(window));
                last_kept = Some(place);
                place = pane.next;
            }
            slot.cut(last_kept, place, panes, free, open);
        }
    }

    /// Ends the panes of slots that a new plan has no place for: emits what was not emitted, as it is, and counts it as finished.
    pub(super) fn abandon(&mut self, slots: &[usize], accounts: &mut [WindowAccount], out: &mut Vec<Emitted>) {
        let mut due = Vec::new();
        for &slot in slots {
            for place in self.chain(slot) {
                if self.panes.get(place as usize).is_some_and(|pane| pane.is_changed) {
                    due.extend(self.due(slot, place));
                }
            }
        }
        self.emit(&mut due, false, accounts, out);
        for &slot in slots {
            let unfinished: u64 =
                self.panes(slot).filter(|pane| !pane.is_finished).map(|pane| pane.values.count()).sum();
            let window = self.slots.get(slot).map_or(0, |slot| usize::from(slot.window));
            if let Some(account) = accounts.get_mut(window) {
                account.open -= unfinished;
                account.finished += unfinished;
            }
            self.evict(slot);
        }
    }
}

/// An open window of a series as it is stored.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
pub(super) struct SavedPane {
    values: Accumulator,
    pub(super) start: Timestamp,
    revisions: u32,
    is_finished: bool,
    is_changed: bool,
}

impl SavedPane {
    /// How many readings it holds.
    pub(super) const fn count(&self) -> u64 {
        self.values.count()
    }
}

impl Pane {
    /// As it is stored.
    pub(super) fn saved(&self) -> SavedPane {
        SavedPane {
            values: self.values.clone(),
            start: self.start,
            revisions: self.revisions,
            is_finished: self.is_finished,
            is_changed: self.is_changed,
        }
    }
}
