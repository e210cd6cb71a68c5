//! Windows of event time: which are open, what they hold, when they end.
//!
//! ```text
//! window (of the plan) × source ──▶ group: what ends together ──▶ slots: one per series ──▶ panes: open windows, newest first
//! ```
//!
//! Invariants between two events:
//! - a pane whose end the watermark has passed is finished: emitted as final with all that it holds;
//! - a pane whose end and lateness the watermark has passed is gone;
//! - the panes of a slot have different starts, the latest first, and their ends are in the same order;
//! - a group's `due` is at most the least watermark at which one of its panes is emitted or goes.
//!
//! A reading of a tumbling window lies in one pane; a session grows with its readings, and joins others (`session`); a pane of a
//! sliding window holds the readings of its first step alone, and what is emitted is merged from the panes that follow (`sliding`).
//!
//! Open panes per slot are bounded by the configuration: `(out_of_order + lateness + length) / every + 2`, because nothing is further
//! ahead of the watermark than the newest reading that made it; and where that is more than [`SLOT_PANES_MAX`], by ending the oldest.

mod carry;
mod emission;
mod panes;
mod saved;
mod session;
mod share;
mod sliding;

use std::collections::BTreeMap;
use std::time::Duration;

use super::aggregate::{Accumulator, Keeps};
use super::course::Observed;
use super::ledger::WindowAccount;
use super::watermark::Source;
use crate::plan::{Function, StreamId, WindowKind, WindowPlan};
use crate::reading::{SeriesId, Value};
use crate::record::Emitted;
use crate::time::{Timestamp, nanos};

pub(super) use emission::Due;
use panes::{Pane, Panes};
pub(super) use saved::SavedSlot;

/// No pane.
const NONE: u32 = u32::MAX;

/// The most windows of one series that a window stream holds open: more than an hour of one a second, at most 800 kB. At the bound the
/// oldest is emitted as it is and ends, counted as `crowded`; a reading that is older still is late.
pub const SLOT_PANES_MAX: usize = 4_096;

/// The most open windows over all series, about 75 MB: 10,000 series with ten window streams, of which five windows are open each.
/// Beyond it a series that opens a window ends its oldest as at the other bound; each may always have one.
pub const PANES_MAX: usize = 500_000;

/// A window of the plan, or the definition that one had before a reload.
#[derive(Debug)]
pub(super) struct Window {
    pub(super) stream: StreamId,
    /// The place in the ledger.
    pub(super) account: usize,
    pub(super) kind: WindowKind,
    /// Nanoseconds.
    pub(super) lateness: i64,
    pub(super) emit_every: Option<Duration>,
    pub(super) compute: Vec<Function>,
    pub(super) keeps: Keeps,
}

/// A series in a window: the chain of its open panes.
#[derive(Debug)]
pub(super) struct Slot {
    pub(super) window: u16,
    /// How many panes the chain has.
    count: u16,
    pub(super) series: SeriesId,
    group: u32,
    head: u32,
    /// The slot that it follows, or its own where others follow it ([`share`]).
    leader: u32,
    /// Who follows, as a place in the list; [`NONE`] for nobody.
    shared: u32,
    /// Whether the latest pane holds what followers do not hold yet.
    pub(super) is_sharing: bool,
    /// No window begins before this any more: what began before has closed, or belongs to the definition before.
    pub(super) floor: Timestamp,
    /// Where this definition begins, where there was another before it.
    pub(super) begins: Timestamp,
    /// The newest reading of windows that have closed, where it is needed.
    pub(super) carry: Option<Box<Observed>>,
}

/// The slots of a window that share a watermark.
#[derive(Debug)]
struct Group {
    window: u16,
    source: u32,
    due: Timestamp,
    slots: Vec<u32>,
}

/// Where a reading went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Placed {
    Open,
    Late,
    /// Too late for one of the windows that it lies in, and into another.
    Partly,
}

/// All windows of all series.
#[derive(Debug)]
pub(super) struct Windows {
    /// Those of the plan, and behind them those that end after a reload.
    pub(super) windows: Vec<Window>,
    pub(super) slots: Vec<Slot>,
    /// The slots that take what lies before the beginning of another: under the definition before the last reload.
    pub(super) before: BTreeMap<u32, u32>,
    groups: Vec<Group>,
    panes: Panes,
    /// The accounts of those who follow a leader: as many lists as there are sorts of series.
    shared: Vec<Vec<usize>>,
    /// Slots with panes that must be emitted at the end of this event although no watermark passed them.
    touched: Vec<u32>,
    /// What this event emits beside the panes that are due at its end.
    forced: Vec<Emitted>,
}

impl Window {
    /// `out_of_order`, in nanoseconds, is the longest of all inputs.
    pub(super) fn new(stream: StreamId, account: usize, plan: &WindowPlan, out_of_order: i64) -> Self {
        let WindowPlan { kind, lateness, emit_every, compute, buckets, .. } = plan.clone();
        let lateness = nanos(lateness);
        // A reading is at most so far behind the watermark, and that behind the newest.
        let keeps = Keeps::of(&compute, buckets, lateness.saturating_add(out_of_order));
        Self { stream, account, kind, lateness, emit_every, compute, keeps }
    }

    #[inline]
    const fn is_tumbling(&self) -> bool {
        matches!(self.kind, WindowKind::Tumbling { .. } | WindowKind::Calendar { .. })
    }

    #[inline]
    fn closes(&self, end: Timestamp) -> Timestamp {
        Timestamp::from_nanos(end.as_nanos().saturating_add(self.lateness))
    }

    /// The least start that a window may have which has not closed at a watermark.
    pub(super) fn least_start(&self, watermark: Timestamp) -> Timestamp {
        self.kind.least_start(self.lateness, watermark)
    }

    /// The least start of a window that follows a pane.
    fn start_behind(&self, pane: &Pane) -> Timestamp {
        match self.kind {
            WindowKind::Sliding { every, .. } => pane.start.saturating_add(every),
            _ => pane.end,
        }
    }
}

impl Windows {
    pub(super) fn new(windows: Vec<Window>) -> Self {
        Self {
            windows,
            slots: Vec::new(),
            before: BTreeMap::new(),
            groups: Vec::new(),
            panes: Panes::default(),
            shared: Vec::new(),
            touched: Vec::new(),
            forced: Vec::new(),
        }
    }

    /// How many panes are open.
    pub(super) const fn open_count(&self) -> usize {
        self.panes.open
    }

    /// The bytes that the tables take, spare room included.
    pub(super) fn bytes(&self) -> usize {
        let groups: usize = self.groups.iter().map(|group| group.slots.capacity() * size_of::<u32>()).sum();
        self.panes.bytes()
            + self.slots.capacity() * size_of::<Slot>()
            + self.groups.capacity() * size_of::<Group>()
            + groups
    }

    /// Adds a series to a window; its slot is the next one in the table.
    pub(super) fn subscribe(
        &mut self,
        window: u16,
        series: SeriesId,
        floor: Timestamp,
        place: u32,
        source: &mut Source,
    ) -> usize {
        let known =
            source.groups.iter().copied().find(|&g| self.groups.get(g as usize).is_some_and(|g| g.window == window));
        let group = known.unwrap_or_else(|| {
            let group = self.groups.len() as u32;
            let emit_every = self.windows.get(usize::from(window)).and_then(|window| window.emit_every);
            // No multiple lies between the two watermarks for the groups that there are.
            source.settled = source.watermark;
            let due = emit_every.map_or(Timestamp::MAX, |every| source.watermark.next_multiple(every));
            source.due = source.due.min(due);
            self.groups.push(Group { window, source: place, due, slots: Vec::new() });
            source.groups.push(group);
            group
        });
        let slot = self.slots.len();
        if let Some(group) = self.groups.get_mut(group as usize) {
            group.slots.push(slot as u32);
        }
        self.slots.push(Slot {
            window,
            count: 0,
            series,
            group,
            head: NONE,
            leader: NONE,
            shared: NONE,
            is_sharing: false,
            floor,
            begins: Timestamp::MIN,
            carry: None,
        });
        slot
    }

    /// The definition of a slot.
    pub(super) fn window(&self, slot: usize) -> Option<&Window> {
        self.windows.get(usize::from(self.slots.get(slot)?.window))
    }

    /// Puts a reading into its windows, opening them where it must, unless they have closed.
    #[inline]
    fn add(
        &mut self,
        slot: usize,
        time: Timestamp,
        value: &Value,
        source: &mut Source,
        accounts: &mut [WindowAccount],
    ) -> Placed {
        let Some((entry, window)) =
            self.slots.get(slot).and_then(|entry| Some((entry, self.windows.get(usize::from(entry.window))?)))
        else {
            return Placed::Open;
        };
        let head = entry.head;
        match (self.panes.get(head), accounts.get_mut(window.account)) {
            (Some(pane), Some(account)) if pane.start <= time && time < pane.end && window.is_tumbling() => {
                account.selected += 1;
                if source.watermark >= window.closes(pane.end) {
                    account.late += 1;
                    return Placed::Late;
                }
                self.put(slot, head, time, value, source.watermark, account);
                Placed::Open
            }
            _ => self.add_elsewhere(slot, time, value, source, accounts),
        }
    }

    /// Adds to an open pane.
    #[inline]
    fn put(
        &mut self,
        slot: usize,
        place: u32,
        time: Timestamp,
        value: &Value,
        watermark: Timestamp,
        account: &mut WindowAccount,
    ) {
        let Some(pane) = self.panes.get_mut(place) else { return };
        account.unordered += u64::from(!pane.values.add(time, value));
        pane.note(watermark, slot, account, &mut self.touched);
    }

    /// Adds a reading that does not lie in the latest pane of a tumbling window.
    #[inline(never)]
    fn add_elsewhere(
        &mut self,
        slot: usize,
        time: Timestamp,
        value: &Value,
        source: &mut Source,
        accounts: &mut [WindowAccount],
    ) -> Placed {
        let Some((floor, begins)) = self.slots.get(slot).map(|entry| (entry.floor, entry.begins)) else {
            return Placed::Open;
        };
        if time < begins
            && let Some(&before) = self.before.get(&(slot as u32))
        {
            return self.add(before as usize, time, value, source, accounts);
        }
        let Some((kind, account)) =
            self.window(slot).and_then(|window| Some((window.kind.clone(), accounts.get_mut(window.account)?)))
        else {
            return Placed::Open;
        };
        if time >= floor {
            match kind {
                WindowKind::Sliding { .. } => return self.slide(slot, time, value, source, account, &kind),
                WindowKind::Session { gap, longest } => {
                    return self.join(slot, time, value, source, account, (nanos(gap), nanos(longest)));
                }
                WindowKind::Tumbling { .. } | WindowKind::Calendar { .. } => {
                    if let Some(place) = self.find_or_open(slot, time, source, account) {
                        account.selected += 1;
                        self.put(slot, place, time, value, source.watermark, account);
                        self.carry_forward(slot, place, time);
                        return Placed::Open;
                    }
                }
            }
        }
        account.selected += 1;
        account.late += 1;
        Placed::Late
    }

    /// The pane of a tumbling window for a time; `None` when it is too late for it.
    fn find_or_open(
        &mut self,
        slot: usize,
        time: Timestamp,
        source: &mut Source,
        account: &mut WindowAccount,
    ) -> Option<u32> {
        let window = self.window(slot)?;
        let (start, end) = window.kind.around(time);
        let start = start.max(self.slots.get(slot)?.floor);
        if source.watermark >= window.closes(end) {
            return None;
        }
        self.reuse_closed(slot, source.watermark);
        let (before, at) = self.position(slot, start);
        if self.panes.get(at).is_some_and(|pane| pane.start == start) {
            return Some(at);
        }
        let before = match self.make_room(slot, start, 1, account)? {
            true => self.position(slot, start).0,
            false => before,
        };
        self.insert(slot, before, Pane::new(start, end), source)
    }

    /// Puts a pane into a slot's chain, behind the one that is named, or in front.
    fn insert(&mut self, slot: usize, before: Option<u32>, mut pane: Pane, source: &mut Source) -> Option<u32> {
        if before.is_none() {
            // What a leader shares is its latest pane.
            self.merge_shared(slot);
        }
        let entry = self.slots.get(slot)?;
        let window = self.windows.get(usize::from(entry.window))?;
        let due = pane.due(window);
        let group = entry.group;
        pane.next = match before {
            Some(before) => self.panes.get(before)?.next,
            None => entry.head,
        };
        let place = self.panes.occupy(pane, &window.keeps);
        match before {
            Some(before) => self.panes.get_mut(before)?.next = place,
            None => self.slots.get_mut(slot)?.head = place,
        }
        self.slots.get_mut(slot)?.count += 1;
        let group = self.groups.get_mut(group as usize)?;
        group.due = group.due.min(due);
        source.due = source.due.min(due);
        Some(place)
    }

    /// The pane behind which one of a start belongs, and the one that is there.
    fn position(&self, slot: usize, start: Timestamp) -> (Option<u32>, u32) {
        let mut at = self.slots.get(slot).map_or(NONE, |slot| slot.head);
        let mut before = None;
        while let Some(pane) = self.panes.get(at).filter(|pane| pane.start > start) {
            before = Some(at);
            at = pane.next;
        }
        (before, at)
    }

    /// The places of a slot's panes, the latest first.
    fn chain(&self, slot: usize) -> impl Iterator<Item = u32> + '_ {
        self.panes.chain(self.slots.get(slot).map_or(NONE, |slot| slot.head))
    }

    /// The panes of a slot, the latest first.
    fn panes_of(&self, slot: usize) -> impl Iterator<Item = &Pane> {
        self.chain(slot).filter_map(|place| self.panes.get(place))
    }

    /// Makes room for so many panes, ending the oldest of the slot where the bounds say so; whether it did. `None` when that would be
    /// one with this start or an earlier.
    fn make_room(&mut self, slot: usize, start: Timestamp, wanted: usize, account: &mut WindowAccount) -> Option<bool> {
        let mut has_ended = false;
        loop {
            let count = usize::from(self.slots.get(slot)?.count);
            if count == 0 || (count + wanted <= SLOT_PANES_MAX && self.panes.open + wanted <= PANES_MAX) {
                return Some(has_ended);
            }
            let oldest = self.chain(slot).last()?;
            if self.panes.get(oldest)?.start >= start {
                return None;
            }
            self.end_early(slot, oldest, account)?;
            has_ended = true;
        }
    }

    /// Lets go of the panes of a slot that have closed, when all of them were emitted, so that a window that opens takes the room of
    /// one that closes in the same event. What this leaves is swept at the event's end.
    fn reuse_closed(&mut self, slot: usize, watermark: Timestamp) {
        let Self { windows, slots, panes, .. } = self;
        let Some(slot) = slots.get_mut(slot) else { return };
        let Some(window) = windows.get(usize::from(slot.window)) else { return };
        let (mut last_kept, mut closed) = (None, slot.head);
        while let Some(pane) = panes.get(closed).filter(|pane| watermark < window.closes(pane.end)) {
            last_kept = Some(closed);
            closed = pane.next;
        }
        if panes.chain(closed).filter_map(|place| panes.get(place)).all(|pane| pane.is_finished && !pane.is_changed) {
            slot.cut(last_kept, closed, panes);
        }
    }
}
