//! The reading before a window, which counters and states count from.
//!
//! Of an open window it is the newest reading of those open before it; where there is none, the newest of those of the slot that have
//! closed, which the slot keeps. A session stands for itself: what was before its silence is none of it.

use super::super::course::Observed;
use super::panes::{Pane, Panes};
use super::{Slot, Windows};
use crate::plan::WindowKind;
use crate::time::Timestamp;

impl Slot {
    /// Keeps the newest reading of a pane that goes, where its window counts from there.
    pub(super) fn carry_on(&mut self, place: u32, panes: &Panes) {
        let Some(newest) = panes.get(place).and_then(|pane| pane.values.carried()) else { return };
        if self.carry.as_ref().is_none_or(|carry| carry.time <= newest.time) {
            self.carry = Some(Box::new(newest));
        }
    }
}

impl Windows {
    /// The newest reading before a pane.
    pub(super) fn carry(&self, slot: usize, pane: &Pane) -> Option<Observed> {
        let window = self.window(slot)?;
        if !window.keeps.needs_carry() || matches!(window.kind, WindowKind::Session { .. }) {
            return None;
        }
        let open = self.panes.chain(pane.next).find_map(|place| self.panes.get(place)?.values.carried());
        open.or_else(|| self.carry_of_closed(slot))
    }

    /// The newest reading of the windows of a slot that have closed, or of its definition before the last reload.
    fn carry_of_closed(&self, slot: usize) -> Option<Observed> {
        if let Some(carry) = &self.slots.get(slot)?.carry {
            return Some(Observed::clone(carry));
        }
        let before = *self.before.get(&(slot as u32))? as usize;
        let open = self.panes_of(before).find_map(|pane| pane.values.carried());
        open.or_else(|| self.slots.get(before)?.carry.as_deref().cloned())
    }

    /// A reading came into a pane: those behind it that count from that reading are emitted again.
    pub(super) fn carry_forward(&mut self, slot: usize, place: u32, time: Timestamp) {
        if !self.window(slot).is_some_and(|window| window.keeps.needs_carry()) {
            return;
        }
        let is_newest = self.panes.get(place).is_some_and(|pane| pane.values.span().1 == time);
        let behind: Vec<u32> = self.chain(slot).take_while(|&later| is_newest && later != place).collect();
        for later in behind.into_iter().rev() {
            let Some(pane) = self.panes.get_mut(later) else { break };
            if pane.is_finished && !pane.is_changed {
                self.touched.push(slot as u32);
            }
            pane.is_changed = true;
            if pane.values.count() > 0 {
                break;
            }
        }
    }
}
