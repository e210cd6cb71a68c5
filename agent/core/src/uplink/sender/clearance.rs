//! Whether the next message may go, and what it counts for: the link, the rate, the budget.

use std::time::Duration;

use super::super::account::LinkAccount;
use super::super::budget::{Allowance, Budget};
use super::super::turns::Turns;
use super::super::wire::Cost;
use super::{MESSAGES_MAX, Sender, State};
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
        let link = self.link_in_use();
        match link.and_then(|link| link.ready_at(next.cost.up)).max(held_until) {
            Some(at) if at > now.steady => Clearance::NotBefore(at),
            _ => cleared(link.and_then(|link| link.allows(next.cost, next.priority, now.wall)), next.cost, now),
        }
    }

    pub(super) fn link_in_use(&self) -> Option<&LinkAccount> {
        self.links.get(self.brokers.link())
    }

    pub(super) fn link_in_use_mut(&mut self) -> impl Iterator<Item = &mut LinkAccount> {
        self.links.get_mut(self.brokers.link()).into_iter()
    }

    pub(super) fn budget_in_use(&self) -> Option<&Budget> {
        self.link_in_use()?.budget.as_ref()
    }

    pub(super) fn budgets_mut(&mut self) -> impl Iterator<Item = &mut Budget> {
        self.links.iter_mut().filter_map(|link| link.budget.as_mut())
    }

    /// Periods may have ended, and links be open again for that.
    pub(super) fn turn_budgets(&mut self, now: Now) {
        self.links.iter_mut().for_each(|link| link.turn(now.wall));
        self.brokers.close(self.links.iter().map(|link| link.is_closed(self.terms.wire)));
        if let State::Waiting { .. } = self.state {
            self.brokers.pass_closed();
        }
    }

    /// Reserves bytes of the budget of a link: they are spent once that is on the disk.
    pub(super) fn reserve(&mut self, link: usize, bytes: u64) -> Option<Action> {
        let budget = self.links.get_mut(link)?.budget.as_mut()?;
        budget.reserve(bytes).map(|saved| Action::SaveBudget { link, saved })
    }

    /// Counts what is sent.
    pub(super) fn charge(&mut self, cost: Cost, now: Now) {
        self.link_in_use_mut().for_each(|link| link.charge(cost, now.steady));
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
