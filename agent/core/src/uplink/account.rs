//! The account of a link: what may go over it, and what has gone.

use std::time::Duration;

use super::bucket::Bucket;
use super::budget::{Allowance, Budget, BudgetState};
use super::meter::Meter;
use super::wire::{Cost, Wire};
use crate::plan::Priority;
use crate::time::Timestamp;

/// How many links there may be: with as many brokers as a list may have, a round of attempts takes half an hour or so at most.
pub const LINKS_MAX: usize = 4;

/// The account of a link.
#[derive(Debug, Default)]
pub struct LinkAccount {
    bucket: Option<Bucket>,
    pub(super) budget: Option<Budget>,
    /// Whether it was left because its budget does not even let alerts go before the period ends.
    is_left: bool,
    meter: Meter,
}

/// How a link stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LinkState {
    /// What it has carried, keep-alives of a connection up to the last [`Sender::poll`](super::Sender::poll).
    pub carried: Cost,
    /// How its budget stands; `None` without one.
    pub budget: Option<BudgetState>,
}

impl LinkAccount {
    /// The account of a link that takes so many bytes a second, and so many in a period; `None` where it takes what it carries.
    pub fn new(rate_max: Option<u64>, budget: Option<Budget>) -> Self {
        Self { bucket: rate_max.map(Bucket::new), budget, is_left: false, meter: Meter::default() }
    }

    pub(super) fn state(&self, now: Timestamp) -> LinkState {
        let budget = self.budget.as_ref().map(|budget| {
            let state = budget.state(now);
            BudgetState { held: if self.is_left { Some(Priority::Alert) } else { state.held }, ..state }
        });
        LinkState { carried: self.carried(), budget }
    }

    pub(super) fn carried(&self) -> Cost {
        self.meter.carried()
    }

    /// The period of its budget may have ended.
    pub(super) fn turn(&mut self, now: Timestamp) {
        if self.budget.as_mut().is_some_and(|budget| budget.turn(now)) {
            self.is_left = false;
        }
    }

    /// Whether its budget has nothing left for a connection, or not enough for the alert that waited.
    pub(super) fn is_closed(&self, wire: Wire) -> bool {
        matches!(self.allows_connection(wire), Some(Allowance::NotBefore(_)))
    }

    /// What its budget says to a connection; `None` without one.
    pub(super) fn allows_connection(&self, wire: Wire) -> Option<Allowance> {
        let budget = self.budget.as_ref()?;
        Some(match self.is_left {
            true => Allowance::NotBefore(budget.until()),
            false => budget.allows_connection(wire.connect().both()),
        })
    }

    /// It is closed until the period ends.
    pub(super) fn leave(&mut self) {
        self.is_left = true;
    }

    /// When its rate lets so many bytes go.
    pub(super) fn ready_at(&self, bytes: u64) -> Option<Duration> {
        self.bucket.map(|bucket| bucket.ready_at(bytes))
    }

    /// What its rate carries in so much time, in bytes.
    pub(super) fn bytes_in(&self, time: Duration) -> u64 {
        self.bucket.map_or(u64::MAX, |bucket| bucket.bytes_in(time))
    }

    /// What its budget says to a message; `None` without one.
    pub(super) fn allows(&self, cost: Cost, priority: Priority, now: Timestamp) -> Option<Allowance> {
        self.budget.as_ref().map(|budget| budget.allows(cost.both(), priority, now))
    }

    /// Counts what is sent.
    pub(super) fn charge(&mut self, cost: Cost, now: Duration) {
        self.meter.send(cost, now);
        self.bucket.iter_mut().for_each(|bucket| bucket.take(cost.up, now));
        self.budget.iter_mut().for_each(|budget| budget.spend(cost.both()));
    }

    /// Counts a connection that is tried, as if it were made.
    pub(super) fn attempt(&mut self, cost: Cost, now: Duration) {
        self.charge(cost, now);
        self.budget.iter_mut().for_each(|budget| budget.note_attempt(cost.both()));
    }

    /// It was not made, and so much of that was not carried. What the rate allows stays as it is.
    pub(super) fn refund(&mut self, cost: Cost) {
        self.meter.refund(cost);
        self.budget.iter_mut().for_each(|budget| budget.refund(cost.both()));
    }

    /// The broker answers a message.
    pub(super) fn hear(&mut self, now: Duration) {
        self.meter.hear(now);
    }
}
