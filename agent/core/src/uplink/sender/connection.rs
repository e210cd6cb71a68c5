//! The sender's connection: when it is made, what its end means, and when another broker takes its place.

use std::time::Duration;

use super::super::failover::Next;
use super::super::slow_start::SlowStart;
use super::clearance::{Clearance, cleared};
use super::sleep::Shift;
use super::supply::Supply;
use super::{STABLE_AFTER, Sender, State};
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
            // The connection stands already, and is paid.
            State::Waiting { .. } if self.brokers.is_reached() => Clearance::Given,
            State::Waiting { until } => self.may_pay_connection(until, now),
            _ => Clearance::Withheld,
        }
    }

    fn may_pay_connection(&self, until: Duration, now: Now) -> Clearance {
        let cost = self.terms.wire.connect();
        let at = self.bucket.map_or(until, |bucket| bucket.ready_at(cost.up).max(until));
        if at > now.steady {
            return Clearance::NotBefore(at);
        }
        let allowance = self.budget.as_ref().map(|budget| budget.allows_connection(cost.both()));
        cleared(allowance, cost, now)
    }

    pub(super) fn disconnected(&mut self, now: Now, loss: Loss) {
        let lasted = match self.state {
            State::Connected { since } => Some(now.steady.saturating_sub(since)),
            State::Connecting => None,
            State::Waiting { .. } | State::Sleeping { .. } | State::Stopped => return,
        };
        self.was_lost |= lasted.is_some();
        let was_stable = lasted.is_some_and(|lasted| lasted >= STABLE_AFTER);
        if was_stable {
            self.backoff.reset();
        }
        let next = self.brokers.disconnected(lasted, loss);
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

    /// Tries the brokers that are preferred to the one in use, and goes to one that was reached once nothing is on its way.
    pub(super) fn poll_return(&mut self, now: Now) -> Option<Action> {
        if self.brokers.is_reached() {
            if self.flight.messages() > 0 {
                return None;
            }
            self.land();
            self.brokers.go();
            self.state = State::Waiting { until: now.steady };
            return Some(self.hang_up(Farewell::Moving, now));
        }
        let at = self.brokers.tries_at().filter(|at| *at <= now.steady)?;
        match self.may_pay_connection(at, now) {
            Clearance::Given => {
                self.charge(self.terms.wire.connect(), now);
                Some(Action::Try(self.brokers.try_next()))
            }
            Clearance::Unreserved(bytes) => self.reserve(bytes),
            Clearance::NotBefore(at) => {
                self.brokers.put_off(at);
                None
            }
            Clearance::LinkIsFull | Clearance::Withheld => None,
        }
    }
}
