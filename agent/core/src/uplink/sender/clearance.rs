//! Whether the next message may go, and what it counts for: the link, the rate, the budget.

use std::time::Duration;

use super::super::budget::{Allowance, Budget};
use super::super::turns::Turns;
use super::super::wire::Cost;
use super::{MESSAGES_MAX, Sender};
use crate::plan::Priority;
use crate::uplink::{Action, Lane, Now};

/// How long the budget may withhold before it is asked again: the wall clock may have been set. And the shortest, as instants of two clocks are compared.
const BUDGET_LOOK_MAX: Duration = Duration::from_secs(600);
const BUDGET_LOOK_MIN: Duration = Duration::from_millis(100);

/// Whether a message may be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Clearance {
    Given,
    /// The link has as much as it holds.
    LinkIsFull,
    /// There is none, or something else than the link holds it back.
    Withheld,
    /// The bound of the rate holds it back until then.
    NotBefore(Duration),
    /// Bytes must be reserved of the budget before: so many.
    Unreserved(u64),
}

impl Sender {
    /// Until when the backlog is held back after an outage.
    pub(super) fn held_until(&self, now: Now) -> Option<Duration> {
        self.slow_start.map(|start| start.ready_at()).filter(|at| *at > now.steady)
    }

    /// Whose turn it is, of what is new and the backlog.
    pub(super) fn turns(&self, now: Now) -> Turns {
        if self.held_until(now).is_some() { Turns::default() } else { self.credit.turns() }
    }

    /// Whether the next message may go.
    pub(super) fn may_send(&self, now: Now) -> Clearance {
        let Some(next) = self.flight.next(self.turns(now)) else { return Clearance::Withheld };
        let messages = self.flight.messages();
        if messages >= usize::from(self.limits.messages_max.clamp(1, MESSAGES_MAX)) {
            return Clearance::Withheld;
        }
        let estimate = &self.flight.estimate;
        let is_alert = next.priority == Priority::Alert;
        if !is_alert && estimate.wants_quiet(now.steady) {
            return Clearance::Withheld;
        }
        let window = if is_alert { estimate.alert_window_bytes() } else { estimate.window_bytes() };
        // One message may always go, or a long one could never be sent.
        let fits = messages == 0 || estimate.in_flight() + next.cost.up <= window;
        if !fits {
            return Clearance::LinkIsFull;
        }
        let held_until = self.held_until(now).filter(|_| next.lane == Lane::Backlog && !is_alert);
        match self.bucket.map(|bucket| bucket.ready_at(next.cost.up)).max(held_until) {
            Some(at) if at > now.steady => Clearance::NotBefore(at),
            _ => {
                let allowance = |budget: &Budget| budget.allows(next.cost.both(), next.priority, now.wall);
                cleared(self.budget.as_ref().map(allowance), next.cost, now)
            }
        }
    }

    /// Reserves bytes of the budget: they are spent once that is on the disk.
    pub(super) fn reserve(&mut self, bytes: u64) -> Option<Action> {
        self.budget.as_mut().and_then(|budget| budget.reserve(bytes)).map(Action::SaveBudget)
    }

    /// Counts what is sent.
    pub(super) fn charge(&mut self, cost: Cost, now: Now) {
        self.meter.send(cost, now.steady);
        if let Some(bucket) = &mut self.bucket {
            bucket.take(cost.up, now.steady);
        }
        if let Some(budget) = &mut self.budget {
            budget.spend(cost.both());
        }
    }

    /// Counts the keep-alives since the last time.
    pub(super) fn charge_keep_alives(&mut self, now: Now) {
        let every = self.terms.keep_alive;
        while !every.is_zero() && now.steady.saturating_sub(self.kept_alive_to) >= every {
            self.kept_alive_to += every;
            self.charge(self.terms.wire.ping(), now);
        }
    }
}

/// What the budget says, by the steady clock.
pub(super) fn cleared(allowance: Option<Allowance>, cost: Cost, now: Now) -> Clearance {
    match allowance {
        None | Some(Allowance::Given) => Clearance::Given,
        Some(Allowance::Unreserved) => Clearance::Unreserved(cost.both()),
        Some(Allowance::NotBefore(at)) => {
            // The wall clock may be set before.
            let rest = at.since(now.wall).clamp(BUDGET_LOOK_MIN, BUDGET_LOOK_MAX);
            Clearance::NotBefore(now.steady.saturating_add(rest))
        }
    }
}
