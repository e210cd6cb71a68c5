//! The sender's connection: when it is made, what its end means, and when another broker or link takes its place.

use std::time::Duration;

use super::super::account::LinkAccount;
use super::super::budget::Allowance;
use super::super::failover::Next;
use super::super::slow_start::SlowStart;
use super::super::wire::{Cost, UNREACHED};
use super::clearance::{Clearance, cleared};
use super::sleep::Shift;
use super::supply::Supply;
use super::{STABLE_AFTER, Sender, State};
use crate::plan::Priority;
use crate::time::Timestamp;
use crate::uplink::{Action, Farewell, Limits, Loss, Now};

impl Sender {
    pub(super) fn connected(&mut self, now: Now, limits: Limits) {
        if self.state != State::Connecting {
            return;
        }
        self.state = State::Connected { since: now.steady };
        self.kept_alive_to = now.steady;
        self.slow_start = self.was_lost.then(|| SlowStart::new(now.steady));
        self.limits = limits;
        self.brokers.connected(now.steady, &mut self.backoff);
        self.shift.iter_mut().for_each(Shift::begin);
        self.supply = Supply::Possible;
        self.urgent = Supply::Possible;
    }

    /// Whether to connect; the rate and the budget may put it off.
    pub(super) fn may_connect(&self, now: Now) -> Clearance {
        match self.state {
            // The connection stands already, or is being made.
            State::Waiting { .. } if self.brokers.is_paid() => Clearance::Given,
            State::Waiting { until } => self.may_pay_connection(self.brokers.link(), until, now),
            _ => Clearance::Withheld,
        }
    }

    fn may_pay_connection(&self, link: usize, until: Duration, now: Now) -> Clearance {
        let (link, cost) = (self.links.get(link), self.terms.wire.connect());
        let at = link.and_then(|link| link.ready_at(cost.up)).map_or(until, |at| at.max(until));
        if at > now.steady {
            return Clearance::NotBefore(at);
        }
        cleared(link.and_then(|link| link.allows_connection(self.terms.wire)), cost, now)
    }

    pub(super) fn disconnected(&mut self, now: Now, loss: Loss) {
        let lasted = match self.state {
            State::Connected { since } => Some(now.steady.saturating_sub(since)),
            State::Connecting => None,
            State::Waiting { .. } | State::Sleeping { .. } | State::Stopped => return,
        };
        if lasted.is_none() {
            self.settle_attempt(self.brokers.link(), loss);
        }
        let was_stable = lasted.is_some_and(|lasted| lasted >= STABLE_AFTER);
        if was_stable {
            self.backoff.reset();
        }
        let next = self.brokers.disconnected(lasted, loss);
        // Where another connection takes its place there was no outage.
        self.was_lost |= lasted.is_some() && next != Next::AtOnce;
        let gives_up = |shift: &mut Shift| next != Next::AtOnce && shift.gives_up(was_stable);
        if self.shift.as_mut().is_some_and(gives_up) {
            self.sleep(now);
            return;
        }
        let wait = match next {
            Next::AtOnce => Duration::ZERO,
            Next::AfterWait(least) => self.backoff.next_wait(least),
        };
        self.land();
        self.state = State::Waiting { until: now.steady.saturating_add(wait) };
    }

    pub(super) fn tried(&mut self, now: Now, result: Result<(), Loss>) {
        if let (Err(loss), Some(link)) = (result, self.brokers.tried_link()) {
            self.settle_attempt(link, loss);
        }
        self.brokers.tried(result, now.steady, &mut self.backoff);
    }

    /// Counts a connection that is tried.
    pub(super) fn charge_attempt(&mut self, link: usize, now: Now) {
        let cost = self.terms.wire.connect();
        self.links.get_mut(link).into_iter().for_each(|link| link.attempt(cost, now.steady));
    }

    /// It was not made: what was not carried is given back.
    fn settle_attempt(&mut self, link: usize, loss: Loss) {
        let carried = match loss {
            Loss::Unsent => Cost::default(),
            Loss::Unreached => UNREACHED,
            Loss::Broken | Loss::VersionRefused | Loss::Refused | Loss::Busy | Loss::TakenOver => return,
        };
        let rest = self.terms.wire.connect().less(carried);
        self.links.get_mut(link).into_iter().for_each(|link| link.refund(rest));
    }

    /// Leaves a link whose budget does not even let the next alert go: to stay connected would cost keep-alives.
    pub(super) fn poll_leave(&mut self, now: Now) -> Option<Action> {
        let alert = self.flight.next(self.turns(now)).filter(|next| next.priority == Priority::Alert)?;
        let allowance = self.link_in_use()?.allows(alert.cost, alert.priority, now.wall);
        let is_withheld = matches!(allowance, Some(Allowance::NotBefore(_)));
        if !is_withheld || self.flight.messages() > 0 {
            return None;
        }
        self.link_in_use_mut().for_each(LinkAccount::leave);
        Some(self.leave_link(now))
    }

    /// Closes the connection over a link whose budget is spent. Another link follows, or the first period that ends.
    pub(super) fn leave_link(&mut self, now: Now) -> Action {
        let farewell = self.hang_up(Farewell::Spent, now);
        self.land();
        self.turn_budgets(now);
        self.brokers.rest();
        // The budgets say until when; they are asked from time to time, as the wall clock may be set.
        self.state = State::Waiting { until: now.steady };
        farewell
    }

    /// When it connects next, by the wall clock; `None` while it does not wait for that.
    pub fn next_attempt(&self, now: Now) -> Option<Timestamp> {
        let (State::Waiting { until } | State::Sleeping { until }) = self.state else { return None };
        let at = now.wall.saturating_add(until.saturating_sub(now.steady));
        if !self.brokers.is_closed() {
            return Some(at);
        }
        let ends = self.links.iter().filter_map(|link| Some(link.budget.as_ref()?.until()));
        Some(ends.min().map_or(at, |end| end.max(at)))
    }

    /// Ends a connection in good order.
    pub(super) fn hang_up(&mut self, farewell: Farewell, now: Now) -> Action {
        self.charge(self.terms.wire.close(), now);
        Action::Disconnect(farewell)
    }

    /// Forgets what belongs to a connection.
    pub(super) fn land(&mut self) {
        self.owes_requeue |= self.flight.clear() | (self.set_aside > 0);
        self.set_aside = 0;
        self.refusals.clear();
        self.full_since = None;
    }

    /// Whether what came of [`Action::Try`] for this way, or comes of it, is still wanted: the next [`Action::Connect`] takes it.
    pub fn keeps_trial(&self, way: usize) -> bool {
        self.brokers.wants(way)
    }

    /// Tries what is preferred to the broker and the link in use, and goes to one that was reached once nothing is on its way.
    pub(super) fn poll_return(&mut self, now: Now) -> Option<Action> {
        if self.brokers.is_reached() {
            // At the same broker the new connection has ended this one: nothing more is answered here.
            if self.flight.messages() > 0 && !self.brokers.reaches_same_broker() {
                return None;
            }
            self.land();
            let farewell = self.hang_up(Farewell::Moving, now);
            self.brokers.go();
            self.state = State::Waiting { until: now.steady };
            return Some(farewell);
        }
        let at = self.brokers.tries_at().filter(|at| *at <= now.steady)?;
        let Some(link) = self.brokers.next_link() else {
            self.brokers.plan_return(now.steady, &mut self.backoff);
            return None;
        };
        match self.may_pay_connection(link, at, now) {
            Clearance::Given => {
                self.charge_attempt(link, now);
                Some(Action::Try(self.brokers.try_next()))
            }
            Clearance::Unreserved(bytes) => self.reserve(link, bytes),
            Clearance::NotBefore(at) => {
                self.brokers.put_off(at);
                None
            }
            Clearance::LinkIsFull | Clearance::Withheld => None,
        }
    }
}
