//! The sender: takes frames from the store as the link allows, keeps account of them, and decides when to connect.

mod clearance;
mod connection;
mod sleep;
mod supply;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use self::clearance::Clearance;
use self::sleep::Shift;
use self::supply::Supply;
use super::account::{LinkAccount, LinkState};
use super::budget::Budget;
use super::estimate::{LinkEstimate, PART_TIME};
use super::failover::Failover;
use super::flight::{Flight, Next, Settled};
use super::refusal::{Refusals, Refused};
use super::slow_start::SlowStart;
use super::turns::Credit;
use super::wire::Cost;
use super::{Action, Event, Farewell, FrameId, Lane, Limits, Loss, Now, Parcel, Terms, Token, Verdict, Wanted};
use crate::backoff::Backoff;
use crate::message::{HEADER_BYTES_MAX, PART_BYTES_MIN, split};
use crate::plan::Priority;

/// How many frames may be on their way: at 100 ms of round trip, 320 frames a second, more than a gateway seals.
pub const FRAMES_MAX: usize = 32;
/// How many messages may be unacknowledged, where the broker allows as many. mosquitto allows 20.
pub const MESSAGES_MAX: u16 = 64;
/// How many bytes may be taken from the store and not acknowledged, however fast the link is; 2.5 MB/s at 100 ms of round trip. One frame may go
/// beyond it, or a long one could never be sent.
pub const BYTES_MAX: usize = 256 * 1024;
/// How long a part of a frame may be, however fast the link is.
pub const PART_BYTES_MAX: usize = 64 * 1024;
/// How old a frame's first record may be before the frame is backlog and marked `historical`.
pub const HISTORICAL_AFTER: Duration = Duration::from_secs(60);
/// How long the broker may owe acknowledgements without giving one before the connection counts as dead. The longest part needs 55 s at
/// 9.6 kbit/s, the slowest link in use; a broker that hangs for half a minute is waited for.
pub const ACKNOWLEDGEMENT_WAIT_MAX: Duration = Duration::from_secs(90);
/// How long a connection must last before the next failure is a first one.
pub const STABLE_AFTER: Duration = Duration::from_secs(30);
/// The shortest wait before a connection is tried again.
pub const RECONNECT_WAIT_MIN: Duration = Duration::from_millis(500);
/// The longest wait: what a broker's outage adds at most.
pub const RECONNECT_WAIT_MAX: Duration = Duration::from_secs(120);
/// The shortest wait after a refusal, which a person has to mend, and where the broker asks for patience.
pub const REFUSED_WAIT_MIN: Duration = Duration::from_secs(10);
/// The shortest wait after another client took our place: two agents with one id would otherwise throw each other out for ever.
pub const TAKEN_OVER_WAIT_MIN: Duration = Duration::from_secs(300);
/// How long frames may wait for the link before it counts as congested.
pub const CONGESTED_AFTER: Duration = Duration::from_secs(1);
/// How long sending may go on after [`Event::Stop`].
pub const STOP_WITHIN: Duration = Duration::from_secs(3);

/// What a PUBLISH packet has around topic and payload, at most: the fixed header, the topic's length, the packet id, no properties
/// (MQTT 5.0, section 3.3).
const PUBLISH_OVERHEAD_BYTES: usize = 5 + 2 + 2 + 1;

/// Where the connection stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// It is tried again at this time of the steady clock.
    Waiting {
        /// When.
        until: Duration,
    },
    /// The schedule has it made again at this time of the steady clock.
    Sleeping {
        /// When.
        until: Duration,
    },
    /// It is being made.
    Connecting,
    /// It stands.
    Connected {
        /// Since when, by the steady clock.
        since: Duration,
    },
    /// The sender has stopped; nothing follows.
    Stopped,
}

/// Decides what the uplink does; see the module above for the contract.
#[derive(Debug)]
pub struct Sender {
    terms: Terms,
    /// The links, in the order in which they are preferred.
    links: Vec<LinkAccount>,
    /// Holds the backlog back for a while where a connection was lost before this one.
    slow_start: Option<SlowStart>,
    was_lost: bool,
    /// Up to when the keep-alives of this connection are counted.
    kept_alive_to: Duration,
    state: State,
    limits: Limits,
    flight: Flight,
    refusals: Refusals,
    backoff: Backoff,
    brokers: Failover,
    /// What the schedule wants of this connection, where there is one.
    shift: Option<Shift>,
    supply: Supply,
    /// Whether it has frames that go before those that were taken and are not sent.
    urgent: Supply,
    /// What the store was last asked for.
    asked: Wanted,
    /// What goes before which priority and lane it was last asked for.
    urgent_before: (Priority, Lane),
    /// Whose turn it is, of what is new and the backlog.
    credit: Credit,
    actions: VecDeque<Action>,
    /// Whether frames are out that only a requeue brings back.
    owes_requeue: bool,
    /// How many frames of this connection the broker can never take.
    set_aside: u64,
    /// Since when frames have waited for room.
    full_since: Option<Duration>,
    hinted: (bool, bool),
    stop_at: Option<Duration>,
}

impl Sender {
    /// A sender that connects at once. `seed` is different on every device and at every start; see [`Backoff`].
    pub fn new(seed: u64, terms: Terms) -> Self {
        Self {
            terms,
            links: vec![LinkAccount::default()],
            slow_start: None,
            was_lost: false,
            kept_alive_to: Duration::ZERO,
            state: State::Waiting { until: Duration::ZERO },
            limits: Limits::NONE,
            flight: Flight::over(terms.wire),
            refusals: Refusals::default(),
            backoff: Backoff::new(RECONNECT_WAIT_MIN, RECONNECT_WAIT_MAX, seed),
            brokers: Failover::among(1, Duration::MAX),
            shift: None,
            supply: Supply::Possible,
            urgent: Supply::Possible,
            asked: Wanted::default(),
            urgent_before: (Priority::Alert, Lane::Live),
            credit: Credit::of(terms.backlog_percent),
            actions: VecDeque::new(),
            // A sender before this one may have left frames behind.
            owes_requeue: true,
            set_aside: 0,
            full_since: None,
            hinted: (false, false),
            stop_at: None,
        }
    }

    /// Goes over these links from now on, one at a time, in the order in which they are preferred. Called before the first connection.
    pub fn use_links(&mut self, links: Vec<LinkAccount>) {
        self.brokers.go_over(links.len());
        self.links = links;
    }

    /// Fails over among several brokers from now on; called before the first connection.
    pub fn fail_over(&mut self, mut brokers: Failover) {
        brokers.go_over(self.links.len());
        self.brokers = brokers;
    }

    /// Takes in what happened.
    pub fn handle(&mut self, now: Now, event: Event) {
        match event {
            Event::Connected(limits) => self.connected(now, limits),
            Event::Acknowledged { token, verdict } => self.acknowledged(now, token, &verdict),
            Event::Disconnected(loss) => self.disconnected(now, loss),
            Event::Tried(result) => self.tried(now, result),
            Event::FramesAvailable => self.ask_again(),
            Event::Offered(parcel) => {
                self.supply.answer(true);
                self.urgent.answer(true);
                self.settle_turns(Some((parcel.priority, parcel.lane)));
                self.offered(now, parcel);
            }
            Event::NothingOffered => {
                self.supply.answer(false);
                self.urgent.answer(false);
                self.settle_turns(None);
            }
            // Only one of them has been told to be saved.
            Event::BudgetSaved => self.budgets_mut().for_each(Budget::saved),
            Event::Stop => {
                // The last commit may have sealed frames that the sender has not heard of yet.
                self.ask_again();
                self.stop_at.get_or_insert(now.steady.saturating_add(STOP_WITHIN));
            }
        }
    }

    /// What is to be done next; `None` until something happens or [`Sender::wake_at`].
    pub fn poll(&mut self, now: Now) -> Option<Action> {
        if let Some(action) = self.actions.pop_front() {
            return Some(action);
        }
        if self.stop_at.is_some()
            && let Some(action) = self.poll_stop(now)
        {
            return Some(action);
        }
        if std::mem::take(&mut self.owes_requeue) {
            self.retry_supply();
            return Some(Action::Requeue);
        }
        self.turn_budgets(now);
        if let Some(action) = self.poll_sleeping(now) {
            return Some(action);
        }
        match self.state {
            State::Waiting { .. } => match self.may_connect(now) {
                Clearance::Given => {
                    self.state = State::Connecting;
                    if !self.brokers.is_paid() {
                        self.charge_attempt(self.brokers.link(), now);
                    }
                    Some(Action::Connect(self.brokers.place()))
                }
                Clearance::Unreserved(bytes) => self.reserve(self.brokers.link(), bytes),
                _ => None,
            },
            State::Connected { .. } => self.poll_connected(now),
            _ => None,
        }
        .or_else(|| self.hint(now))
    }

    /// When to poll again if nothing happens before, by the steady clock.
    pub fn wake_at(&self, now: Now) -> Option<Duration> {
        if !self.actions.is_empty() {
            return Some(now.steady);
        }
        match self.state {
            State::Waiting { .. } => match self.may_connect(now) {
                Clearance::NotBefore(at) => Some(at),
                _ => Some(now.steady),
            },
            State::Sleeping { until } => Some(until),
            State::Connecting | State::Stopped => None,
            State::Connected { .. } => {
                let stalled = self.flight.silent_since().map(|since| since.saturating_add(ACKNOWLEDGEMENT_WAIT_MAX));
                let congested = self.full_since.filter(|_| !self.hinted.1);
                let congested = congested.map(|since| since.saturating_add(CONGESTED_AFTER));
                let trial = self.refusals.next_trial(now.steady);
                let cleared = match self.may_send(now) {
                    Clearance::NotBefore(at) => Some(at),
                    _ => None,
                };
                // Keep-alives may use up what is left of the budget.
                let keep_alive = self.terms.keep_alive;
                let counts = self.budget_in_use().is_some() && !keep_alive.is_zero();
                let kept_alive = counts.then(|| self.kept_alive_to.saturating_add(keep_alive));
                let returns = self.brokers.tries_at().filter(|_| self.stop_at.is_none());
                let ends = self.shift_ends_at(now);
                [stalled, congested, trial, cleared, kept_alive, returns, ends, self.stop_at]
                    .into_iter()
                    .flatten()
                    .min()
            }
        }
    }

    /// Where the connection stands.
    pub fn state(&self) -> State {
        self.state
    }

    /// How many messages are unacknowledged.
    pub fn messages_in_flight(&self) -> usize {
        self.flight.messages()
    }

    /// How many bytes are taken from the store and not acknowledged.
    pub fn bytes_in_flight(&self) -> usize {
        self.flight.bytes()
    }

    /// What is known of the link; `None` without a connection, and before the first acknowledgement.
    pub fn link(&self) -> Option<LinkEstimate> {
        self.flight.estimate.shown()
    }

    /// How each link stands.
    pub fn links(&self, now: Now) -> impl Iterator<Item = LinkState> + '_ {
        self.links.iter().map(move |link| link.state(now.wall))
    }

    /// What all links have carried, keep-alives of a connection up to the last [`Sender::poll`].
    pub fn carried(&self) -> Cost {
        self.links.iter().fold(Cost::default(), |sum, link| sum + link.carried())
    }

    /// How many frames of this connection are too long for the broker, even in parts. They are offered again at the next one.
    pub fn set_aside(&self) -> u64 {
        self.set_aside
    }

    /// The streams that the broker refuses at present.
    pub fn refused(&self) -> impl Iterator<Item = Refused> + '_ {
        self.refusals.list()
    }

    fn acknowledged(&mut self, now: Now, token: Token, verdict: &Verdict) {
        self.link_in_use_mut().for_each(|link| link.hear(now.steady));
        match (self.flight.settle(token, *verdict == Verdict::Taken, now.steady), verdict) {
            (Settled::Arrived(id, stream), _) => {
                self.refusals.accept(&stream, now.steady);
                self.retry_supply();
                self.actions.push_back(Action::Delivered(id));
            }
            (Settled::Refused(id, stream), Verdict::Refused(refusal)) => {
                self.refusals.refuse(&stream, *refusal, now.steady);
                self.give_back(id);
                for id in self.flight.withdraw_unsent(&stream) {
                    self.give_back(id);
                }
            }
            _ => {}
        }
    }

    fn give_back(&mut self, id: FrameId) {
        self.actions.push_back(Action::Return(id));
        self.retry_supply();
    }

    fn offered(&mut self, now: Now, parcel: Parcel) {
        if !matches!(self.state, State::Connected { .. }) {
            self.owes_requeue = true;
            self.wake(now);
            return;
        }
        let room = (self.limits.packet_bytes_max as usize).saturating_sub(PUBLISH_OVERHEAD_BYTES + parcel.topic.len());
        let messages = if parcel.json {
            if parcel.bytes.len() > room { Vec::new() } else { vec![parcel.bytes.to_vec()] }
        } else {
            let part_max = self.link_in_use().map_or(u64::MAX, |link| link.bytes_in(PART_TIME));
            let part = room.saturating_sub(HEADER_BYTES_MAX).min(self.flight.part_bytes(&parcel.topic, part_max));
            let historical = now.wall.since(parcel.committed_at) > HISTORICAL_AFTER;
            if part < PART_BYTES_MIN { Vec::new() } else { split(&parcel.bytes, historical, part).collect() }
        };
        if messages.is_empty() {
            // The store does not give it out again before the requeue after this connection; the others go on.
            self.set_aside += 1;
            self.shift.iter_mut().for_each(|shift| shift.cannot_send(&parcel.stream));
            return;
        }
        self.refusals.send(&parcel.stream);
        self.flight.hold(parcel, messages);
    }

    fn poll_connected(&mut self, now: Now) -> Option<Action> {
        let overdue = |since: Duration| now.steady.saturating_sub(since) >= ACKNOWLEDGEMENT_WAIT_MAX;
        if self.flight.silent_since().is_some_and(overdue) {
            self.disconnected(now, Loss::Broken);
            return Some(Action::Disconnect(Farewell::Stalled));
        }
        self.charge_keep_alives(now);
        if self.budget_in_use().is_some_and(Budget::is_exhausted) {
            return Some(self.leave_link(now));
        }
        if self.stop_at.is_none() {
            if let Some(action) = self.poll_leave(now).or_else(|| self.poll_return(now)) {
                return Some(action);
            }
            // What is on its way may still arrive here.
            if self.brokers.is_reached() {
                return None;
            }
        }
        let clearance = self.may_send(now);
        if let Clearance::Unreserved(bytes) = clearance
            && let Some(action) = self.reserve(self.brokers.link(), bytes)
        {
            return Some(action);
        }
        let turns = self.turns(now);
        let next = self.flight.next(turns);
        // What was taken and is not sent may be overtaken. At most one frame of each priority and lane more is out then.
        if let Some(Next { priority, lane, .. }) = next {
            let before = (priority, if turns.has(priority) { Lane::Live } else { lane });
            if before > self.urgent_before {
                self.urgent.retry();
            }
            if self.urgent == Supply::Possible && before > (Priority::Alert, Lane::Live) {
                self.urgent = Supply::Asked { more: false };
                self.urgent_before = before;
                return Some(self.take(now, Some(before)));
            }
        }
        if clearance == Clearance::Given
            && let Some(Next { priority, lane, cost }) = next
            && let Some(publication) = self.flight.send(turns, now.steady)
        {
            self.credit.charge(priority, lane, cost.up);
            if let Some(start) = self.slow_start.as_mut().filter(|_| lane == Lane::Backlog) {
                start.send(cost.up);
            }
            self.charge(cost, now);
            return Some(Action::Publish(publication));
        }
        if self.asked.except.iter().any(|stream| !self.refusals.holds(stream, now.steady)) {
            self.asked.except = Arc::default();
            self.retry_supply();
        }
        if self.has_room() && self.supply == Supply::Possible {
            self.supply = Supply::Asked { more: false };
            return Some(self.take(now, None));
        }
        if clearance != Clearance::LinkIsFull {
            self.flight.estimate.note_limit();
        }
        self.poll_shift(now)
    }

    /// The hint, where it changed.
    fn hint(&mut self, now: Now) -> Option<Action> {
        let connected = matches!(self.state, State::Connected { .. });
        let full = connected && self.supply != Supply::Empty && !self.has_room();
        self.full_since = if full { self.full_since.or(Some(now.steady)) } else { None };
        let congested = self.full_since.is_some_and(|since| now.steady.saturating_sub(since) >= CONGESTED_AFTER);
        if self.hinted == (connected, congested) {
            return None;
        }
        self.hinted = (connected, congested);
        Some(Action::Hint { connected, congested })
    }

    fn poll_stop(&mut self, now: Now) -> Option<Action> {
        let overdue = self.stop_at.is_some_and(|at| at <= now.steady);
        let drained = self.flight.frames() == 0 && self.flight.messages() == 0 && self.supply == Supply::Empty;
        match self.state {
            State::Connected { .. } if !overdue && !drained => return None,
            State::Stopped => return None,
            _ => {}
        }
        let before = std::mem::replace(&mut self.state, State::Stopped);
        // What is owed after this is paid with the next polls, so that whoever sends next finds every frame.
        self.land();
        match before {
            State::Connected { .. } => Some(self.hang_up(Farewell::Stopping, now)),
            State::Connecting => Some(Action::Disconnect(Farewell::Stopping)),
            State::Waiting { .. } | State::Sleeping { .. } | State::Stopped => None,
        }
    }
}

#[cfg(test)]
#[path = "sender_tests.rs"]
mod tests;
