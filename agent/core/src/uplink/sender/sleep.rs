//! The sender under a schedule: when it connects, when it has sent what waited, and what wakes it.

use std::sync::Arc;
use std::time::Duration;

use super::super::budget::Allowance;
use super::supply::Supply;
use super::{Sender, State};
use crate::plan::Priority;
use crate::uplink::{Action, Farewell, Lane, Now, Schedule, Wanted};

/// How many rounds of attempts in a row may fail before the next time of the schedule is waited for.
const ROUNDS_MAX: u32 = 5;
/// What the budget withholds for longer than this waits for the next time of the schedule.
const WITHHELD_MAX: Duration = Duration::from_secs(10);
/// The stream of gaps, which are sent with the next connection and are no reason for one.
const GAPS: &str = "gaps";

/// The schedule, and how this connection stands to it.
#[derive(Debug)]
pub(super) struct Shift {
    schedule: Schedule,
    /// How many rounds of attempts have failed in a row, and connections that did not last.
    failed: u32,
    /// Whether an alert waits for the connection.
    for_alert: bool,
    /// The streams that are no reason to connect.
    except: Vec<Arc<str>>,
    /// Whether all that waited was taken: nothing more is.
    is_over: bool,
    /// Whether the connection is kept for what comes from the other end.
    is_held: bool,
}

impl Shift {
    fn of(schedule: Schedule) -> Self {
        Self { schedule, failed: 0, for_alert: false, except: vec![GAPS.into()], is_over: false, is_held: false }
    }

    /// A connection stands.
    pub(super) fn begin(&mut self) {
        self.is_over = false;
    }

    /// A connection ended, or a round of attempts failed; whether the next time of the schedule is waited for.
    pub(super) fn gives_up(&mut self, was_stable: bool) -> bool {
        self.failed = if was_stable { 0 } else { self.failed + 1 };
        self.failed >= ROUNDS_MAX && !self.for_alert
    }

    /// A frame of this stream is too long for the broker: it would be a reason to connect again and again.
    pub(super) fn cannot_send(&mut self, stream: &Arc<str>) {
        if !self.except.contains(stream) {
            self.except.push(stream.clone());
        }
    }
}

impl Sender {
    /// Connects only at these times from now on, and at the start.
    pub fn follow(&mut self, schedule: Schedule) {
        self.shift = Some(Shift::of(schedule));
    }

    /// Whether the connection is kept although all that waited has arrived: receipts for it are still to come. Told before each poll.
    pub fn hold(&mut self, is_held: bool) {
        self.shift.iter_mut().for_each(|shift| shift.is_held = is_held);
    }

    /// Sleeps until the next time of the schedule. The connection, if there is one, is closed by whoever calls this.
    pub(super) fn sleep(&mut self, now: Now) -> Option<Farewell> {
        let shift = self.shift.as_mut()?;
        let wait = shift.schedule.wait(now.wall);
        let except = std::mem::take(&mut shift.except);
        *shift = Shift { except, ..Shift::of(shift.schedule) };
        // As is what the broker refused just now.
        self.refusals.list().for_each(|refused| shift.cannot_send(&refused.stream));
        self.land();
        self.brokers.rest();
        self.was_lost = false;
        // An alert may have come meanwhile.
        self.urgent = Supply::Possible;
        self.state = State::Sleeping { until: now.steady.saturating_add(wait) };
        Some(Farewell::Sleeping { until: now.wall.saturating_add(wait) })
    }

    /// The time of the schedule may have come, or an alert.
    pub(super) fn poll_sleeping(&mut self, now: Now) -> Option<Action> {
        let (State::Sleeping { until }, Some(shift)) = (self.state, &mut self.shift) else { return None };
        if now.steady >= until {
            shift.except = vec![GAPS.into()];
            self.rise(now);
            return None;
        }
        if !shift.schedule.alerts_now || self.urgent != Supply::Possible {
            return None;
        }
        let (except, before) = (shift.except.clone().into(), Some((Priority::Live, Lane::Live)));
        self.urgent = Supply::Asked { more: false };
        self.asked = Wanted { except, before, ..Wanted::default() };
        Some(Action::Take(self.asked.clone()))
    }

    /// An alert waits: the time of the schedule is not waited for. It goes back to the store until the connection stands.
    pub(super) fn wake(&mut self, now: Now) {
        if let (State::Sleeping { .. }, Some(shift)) = (self.state, &mut self.shift) {
            shift.for_alert = true;
            self.rise(now);
        }
    }

    /// Connects by the way that is preferred by now: periods of budgets may have ended meanwhile.
    fn rise(&mut self, now: Now) {
        self.brokers.rest();
        self.state = State::Waiting { until: now.steady };
    }

    /// Closes the connection once all that waited has arrived; called when there is nothing else to do.
    pub(super) fn poll_shift(&mut self, now: Now) -> Option<Action> {
        let ends_at = self.shift_ends_at(now);
        let is_withheld = self.is_withheld(now);
        let shift = self.shift.as_mut().filter(|_| self.stop_at.is_none())?;
        shift.is_over |= ends_at.is_none() && (self.supply == Supply::Empty || is_withheld);
        let is_done = shift.is_over
            && !shift.is_held
            && self.flight.messages() == 0
            && (self.flight.frames() == 0 || is_withheld);
        if !is_done {
            return None;
        }
        // Before the list begins anew, with another link perhaps.
        self.charge(self.terms.wire.close(), now);
        self.sleep(now).map(Action::Disconnect)
    }

    /// Whether the budget lets nothing go for a while.
    fn is_withheld(&self, now: Now) -> bool {
        let (Some(budget), Some(next)) = (self.budget_in_use(), self.flight.next(self.turns(now))) else {
            return false;
        };
        let allowance = budget.allows(next.cost.both(), next.priority, now.wall);
        matches!(allowance, Allowance::NotBefore(at) if at.since(now.wall) > WITHHELD_MAX)
    }

    /// Whether nothing more is taken of the store before the next time.
    pub(super) fn is_shift_over(&self) -> bool {
        self.stop_at.is_none() && self.shift.as_ref().is_some_and(|shift| shift.is_over)
    }

    /// Before when the connection does not end.
    pub(super) fn shift_ends_at(&self, now: Now) -> Option<Duration> {
        let (State::Connected { since }, Some(shift)) = (self.state, &self.shift) else { return None };
        let at = since.saturating_add(shift.schedule.linger);
        (at > now.steady).then_some(at)
    }
}
