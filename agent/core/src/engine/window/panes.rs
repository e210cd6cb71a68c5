//! The table of panes: open windows of all slots, each slot's chained from its latest to its oldest, and the free ones.

use super::super::ledger::WindowAccount;
use super::{Accumulator, Keeps, NONE, Slot, Window};
use crate::time::Timestamp;

/// How much the table of panes grows at once, as a part of its length: a table that doubles would waste up to half.
const PANES_GROWTH: usize = 8;

/// One open window of one series: two lines of the cache.
#[derive(Debug)]
#[repr(align(64))]
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
    /// Whether it is a session that was emitted and has grown since: it is emitted again in this event, ended or not.
    pub(super) is_reopened: bool,
    pub(super) next: u32,
}

/// The table.
#[derive(Debug)]
pub(super) struct Panes {
    list: Vec<Pane>,
    /// The first of the free panes; they are chained as those of a slot.
    free: u32,
    pub(super) open: usize,
}

impl Pane {
    pub(super) fn new(start: Timestamp, end: Timestamp) -> Self {
        Self {
            values: Accumulator::default(),
            start,
            end,
            revisions: 0,
            is_finished: false,
            is_changed: false,
            is_reopened: false,
            next: NONE,
        }
    }

    pub(super) fn due(&self, window: &Window) -> Timestamp {
        if self.is_finished { window.closes(self.end) } else { self.end }
    }

    /// Takes note of a reading that its window now has.
    #[inline]
    pub(super) fn note(
        &mut self,
        watermark: Timestamp,
        slot: usize,
        account: &mut WindowAccount,
        touched: &mut Vec<u32>,
    ) {
        account.revising += u64::from(watermark >= self.end);
        if self.is_finished {
            account.finished += 1;
            if !self.is_changed {
                touched.push(slot as u32);
            }
        } else {
            account.open += 1;
        }
        self.is_changed = true;
    }
}

impl Default for Panes {
    fn default() -> Self {
        Self { list: Vec::new(), free: NONE, open: 0 }
    }
}

impl Panes {
    pub(super) fn bytes(&self) -> usize {
        let values: usize = self.list.iter().map(|pane| pane.values.bytes()).sum();
        self.list.capacity() * size_of::<Pane>() + values
    }

    #[inline]
    pub(super) fn get(&self, place: u32) -> Option<&Pane> {
        self.list.get(place as usize)
    }

    #[inline]
    pub(super) fn get_mut(&mut self, place: u32) -> Option<&mut Pane> {
        self.list.get_mut(place as usize)
    }

    /// The places of a chain from one on.
    pub(super) fn chain(&self, first: u32) -> impl Iterator<Item = u32> + '_ {
        let at = |place: u32| (place != NONE).then_some(place);
        std::iter::successors(at(first), move |&place| at(self.get(place)?.next))
    }

    pub(super) fn occupy(&mut self, mut pane: Pane, keeps: &Keeps) -> u32 {
        self.open += 1;
        if let Some(free) = self.list.get_mut(self.free as usize) {
            let place = std::mem::replace(&mut self.free, free.next);
            pane.values.begin(keeps, std::mem::take(&mut free.values));
            *free = pane;
            return place;
        }
        if self.list.len() == self.list.capacity() {
            self.list.reserve_exact(self.list.len() / PANES_GROWTH + PANES_GROWTH);
        }
        pane.values.begin(keeps, Accumulator::default());
        self.list.push(pane);
        (self.list.len() - 1) as u32
    }

    /// Frees a pane that no chain has; the one that came behind it.
    pub(super) fn release(&mut self, place: u32) -> Option<u32> {
        let pane = self.list.get_mut(place as usize)?;
        pane.values.end();
        let next = std::mem::replace(&mut pane.next, self.free);
        self.free = place;
        self.open -= 1;
        Some(next)
    }
}

impl Slot {
    /// Ends the chain behind `last_kept`, and frees the panes from `cut` on, which were behind it.
    pub(super) fn cut(&mut self, last_kept: Option<u32>, cut: u32, panes: &mut Panes) {
        match last_kept.and_then(|kept| panes.get_mut(kept)) {
            Some(kept) => kept.next = NONE,
            None => self.head = NONE,
        }
        let mut place = cut;
        loop {
            self.carry_on(place, panes);
            let Some(next) = panes.release(place) else { break };
            self.count -= 1;
            place = next;
        }
    }

    /// Takes one pane out of the chain and frees it.
    pub(super) fn remove(&mut self, place: u32, panes: &mut Panes) {
        let before = panes.chain(self.head).find(|&before| panes.get(before).is_some_and(|pane| pane.next == place));
        self.carry_on(place, panes);
        let Some(next) = panes.release(place) else { return };
        self.count -= 1;
        match before.and_then(|before| panes.get_mut(before)) {
            Some(before) => before.next = next,
            None => self.head = next,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_small() {
        assert!(size_of::<Pane>() <= 128, "{}", size_of::<Pane>());
    }
}
