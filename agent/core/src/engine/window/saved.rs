//! Open windows as they are stored, and as they move to another slot.

use super::super::course::Observed;
use super::super::ledger::WindowAccount;
use super::super::watermark::Source;
use super::{Accumulator, NONE, Pane, Window, Windows};
use crate::plan::WindowKind;
use crate::reading::SeriesId;
use crate::time::Timestamp;

/// A slot as it is stored.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
pub(crate) struct SavedSlot {
    pub(crate) series: SeriesId,
    pub(crate) floor: Timestamp,
    pub(crate) carry: Option<Observed>,
    pub(crate) begins: Timestamp,
    /// Whether the latest pane holds what followers do not hold yet.
    pub(crate) is_sharing: bool,
    /// The latest first.
    pub(crate) panes: Vec<SavedPane>,
}

/// An open window of a series as it is stored.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
pub(crate) struct SavedPane {
    values: Accumulator,
    pub(crate) start: Timestamp,
    revisions: u32,
    is_finished: bool,
    is_changed: bool,
}

impl Windows {
    /// A slot as it is stored.
    pub(in super::super) fn saved(&self, slot: usize) -> Option<SavedSlot> {
        let entry = self.slots.get(slot)?;
        let pane = |pane: &Pane| SavedPane {
            values: pane.values.clone(),
            start: pane.start,
            revisions: pane.revisions,
            is_finished: pane.is_finished,
            is_changed: pane.is_changed,
        };
        let panes = self.panes_of(slot).map(pane).collect();
        let carry = entry.carry.as_deref().cloned();
        Some(SavedSlot {
            series: entry.series,
            floor: entry.floor,
            begins: entry.begins,
            carry,
            is_sharing: entry.is_sharing,
            panes,
        })
    }

    /// Opens the panes of a slot as they were saved. `None` when they are none that its window could have.
    pub(in super::super) fn reopen(&mut self, slot: usize, panes: Vec<SavedPane>, source: &mut Source) -> Option<()> {
        for saved in panes.into_iter().rev() {
            let SavedPane { mut values, start, revisions, is_finished, is_changed } = saved;
            let (window, floor) = (self.window(slot)?, self.slots.get(slot)?.floor);
            let (aligned, end) = window.kind.around(start);
            let (is_right, end) = match window.kind {
                WindowKind::Session { gap, .. } => {
                    let (first, last) = values.span();
                    (values.is_sound() && first == start, last.saturating_add(gap))
                }
                WindowKind::Sliding { .. } => (aligned == start && (values.is_sound() || values.count() == 0), end),
                // What its leader shares may be all that it has.
                _ => (start == aligned.max(floor) && (values.is_sound() || values.count() == 0), end),
            };
            if !is_right || self.panes_of(slot).any(|pane| pane.start >= start) {
                return None;
            }
            values.fit(&self.window(slot)?.keeps);
            let pane = Pane { revisions, is_finished, is_changed, values, ..Pane::new(start, end) };
            self.insert(slot, None, pane, source)?;
        }
        Some(())
    }

    /// Frees the panes of a slot.
    pub(in super::super) fn clear(&mut self, slot: usize) {
        let Self { slots, panes, .. } = self;
        if let Some(slot) = slots.get_mut(slot) {
            slot.cut(None, slot.head, panes);
            debug_assert_eq!((slot.head, slot.count), (NONE, 0));
        }
    }

    /// Where windows of a slot may begin that was never open before, under whatever definition.
    pub(in super::super) fn fresh_start(&self, slot: usize, watermark: Timestamp) -> Option<Timestamp> {
        let (entry, window) = (self.slots.get(slot)?, self.window(slot)?);
        let behind = self.panes_of(slot).map(|pane| window.start_behind(pane)).max();
        let closed = if watermark > Timestamp::MIN { window.least_start(watermark) } else { Timestamp::MIN };
        Some(entry.floor.max(closed).max(behind.unwrap_or(Timestamp::MIN)))
    }

    /// How many readings the windows of a slot hold that are not finished.
    pub(super) fn held_unfinished(&self, slot: usize) -> u64 {
        let unfinished = self.chain(slot).filter_map(|place| Some((place, self.panes.get(place)?)));
        let unfinished = unfinished.filter(|(_, pane)| !pane.is_finished);
        unfinished.map(|(place, pane)| self.held_by(slot, place, pane.start, pane.end)).fold(0, u64::saturating_add)
    }

    /// Whether a window says that it is open, and neither it nor the one that shares with it has a reading. For state from outside.
    pub(in super::super) fn has_empty(&self) -> bool {
        (0..self.slots.len()).filter(|&slot| self.window(slot).is_some_and(Window::is_tumbling)).any(|slot| {
            let leader = self.slots.get(slot).and_then(|slot| self.slots.get(slot.leader as usize));
            let shared = leader.filter(|leader| leader.is_sharing).and_then(|leader| self.panes.get(leader.head));
            let is_shared = |pane: &Pane| {
                let shared = shared.filter(|shared| shared.values.count() > 0);
                shared.is_some_and(|shared| pane.start <= shared.start && shared.start < pane.end)
            };
            self.panes_of(slot).any(|pane| pane.values.count() == 0 && !is_shared(pane))
        })
    }

    /// Whether the accounts' open readings are those in open windows that are not finished. For state from outside.
    pub(in super::super) fn agree_with(&self, accounts: &[WindowAccount]) -> bool {
        let mut open = vec![0u64; accounts.len()];
        for slot in 0..self.slots.len() {
            if let Some(open) = self.window(slot).and_then(|window| open.get_mut(window.account)) {
                *open = open.saturating_add(self.held_unfinished(slot));
            }
            if let Some((count, followers)) = self.held_for_others(slot) {
                for account in followers {
                    if let Some(open) = open.get_mut(*account) {
                        *open = open.saturating_add(count);
                    }
                }
            }
        }
        accounts.iter().zip(open).all(|(account, open)| account.open == open)
    }
}
