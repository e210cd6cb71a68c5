//! Sliding windows: a reading lies in `over / every` of them, and is held once.
//!
//! The pane of a window holds the readings of its first step; what the window says is merged from its own pane and those that begin
//! before its end, in the order of time. A pane lives until its own window closes, which is the last to need it; a window with
//! readings in later steps alone has an empty pane.

use super::super::ledger::WindowAccount;
use super::super::watermark::Source;
use super::{Accumulator, Pane, Placed, Windows};
use crate::plan::WindowKind;
use crate::reading::Value;
use crate::time::Timestamp;

impl Windows {
    /// Adds a reading to its step, and opens all windows that the step lies in.
    pub(super) fn slide(
        &mut self,
        slot: usize,
        time: Timestamp,
        value: &Value,
        source: &mut Source,
        account: &mut WindowAccount,
        kind: &WindowKind,
    ) -> Placed {
        let step = kind.around(time).0;
        let steps = kind.overlapping();
        if self.chain(slot).next().and_then(|head| self.panes.get(head)).is_none_or(|head| head.start != step) {
            self.reuse_closed(slot, source.watermark);
            if self.make_room(slot, step, steps as usize, account).is_none() {
                account.selected += 1;
                account.late += 1;
                return Placed::Late;
            }
        }
        let Some(floor) = self.slots.get(slot).map(|entry| entry.floor) else { return Placed::Late };
        let (mut before, mut at) = self.position(slot, step);
        let (mut target, mut is_late) = (None, false);
        let mut start = step;
        for i in 0..steps {
            while let Some(pane) = self.panes.get(at).filter(|pane| pane.start > start) {
                before = Some(at);
                at = pane.next;
            }
            let end = start.saturating_add(kind.length());
            let is_there = self.panes.get(at).is_some_and(|pane| pane.start == start);
            account.selected += 1;
            if self.window(slot).is_none_or(|window| source.watermark >= window.closes(end)) {
                account.late += 1;
                is_late = true;
                // It ended in this event, before this reading came, and must not hold it.
                if is_there && self.panes.get(at).is_some_and(|pane| pane.is_changed || !pane.is_finished) {
                    self.force(slot, at, true, account);
                }
            } else {
                if !is_there {
                    let Some(opened) = self.insert(slot, before, Pane::new(start, end), source) else { break };
                    at = opened;
                }
                if let Some(pane) = self.panes.get_mut(at) {
                    pane.note(source.watermark, slot, account, &mut self.touched);
                }
                target = target.or((i == 0).then_some(at));
            }
            let earlier = start.saturating_sub(kind.step());
            if earlier < floor || earlier == start {
                break;
            }
            start = earlier;
        }
        let placed = match (target, is_late) {
            (Some(_), true) => Placed::Partly,
            (Some(_), false) => Placed::Open,
            (None, _) => Placed::Late,
        };
        if let Some(target) = target {
            if let Some(pane) = self.panes.get_mut(target) {
                account.unordered += u64::from(!pane.values.add(time, value));
            }
            self.carry_forward(slot, target, time);
        }
        placed
    }

    /// What a sliding window holds.
    pub(super) fn merged(&self, slot: usize, start: Timestamp, end: Timestamp) -> Accumulator {
        let mut steps: Vec<&Pane> = self
            .panes_of(slot)
            .skip_while(|pane| pane.start >= end && pane.start != start)
            .take_while(|pane| pane.start >= start)
            .filter(|pane| pane.values.count() > 0)
            .collect();
        let mut merged = Accumulator::default();
        for step in steps.drain(..).rev() {
            merged.merge(&step.values);
        }
        merged
    }
}
