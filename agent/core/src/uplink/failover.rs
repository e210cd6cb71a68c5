//! Which link, and over it which broker of a list, is used: the first that lets us in, and after a time one that is preferred to it.
//!
//! - A *way* is a link and a broker: in their order all brokers over the first link, then all over the second. A link is *closed* while its budget has
//!   nothing left: its ways are passed over. What is said of brokers here holds of ways.
//! - A *round* asks the brokers in their order, one at once after the other, and ends with the first that lets us in. Between rounds there is a wait
//!   with jitter ([`Backoff`]), so that a fleet that loses its broker does not fall upon the next one in one instant.
//! - A connection that proved stable and then broke begins a round with the first broker. One that did not prove stable, a broker that refuses, and one that
//!   asks for patience or to use another server, is followed by the next of the list.
//! - Beside a connection to a later broker those before it are tried, in their order, from time to time. It is given up only when another one stands, so
//!   that a preferred broker that is away costs no more than the trials. These become rarer while they fail, and while what they lead to does not last.

use std::time::Duration;

use super::Loss;
use super::sender::{REFUSED_WAIT_MIN, STABLE_AFTER, TAKEN_OVER_WAIT_MIN};
use crate::backoff::Backoff;

/// How many brokers a list may have: each may take half a minute until it is passed over.
pub const BROKERS_MAX: usize = 8;
/// The longest wait before a preferred broker is tried again, unless the first wait is longer: an outage of a day costs some 30 trials.
const RETURN_WAIT_MAX: Duration = Duration::from_secs(3600);

/// What follows a connection that ended, or was not made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// The next broker.
    AtOnce,
    /// A wait with jitter, so long at least.
    AfterWait(Duration),
}

/// The list, and where in it we are.
#[derive(Clone, Debug)]
pub struct Failover {
    brokers: usize,
    /// Of each link whether it is closed.
    closed: Vec<bool>,
    return_after: Duration,
    /// The way.
    place: usize,
    /// Whether the connection that is to be made stands already, or is under way, from a trial.
    is_paid: bool,
    /// What the brokers of this round that did not let us in ask for.
    least: Duration,
    return_wait: Duration,
    /// When brokers that are preferred are tried next.
    returns_at: Option<Duration>,
    /// With which that goes on.
    next_trial: usize,
    trial: Option<usize>,
    /// Where a connection stands beside the one in use.
    reached: Option<usize>,
    /// Whether the connection came from a trial.
    has_returned: bool,
}

impl Failover {
    /// So many brokers; from a later one those before it are tried after `return_after`.
    pub fn among(brokers: usize, return_after: Duration) -> Self {
        Self {
            brokers: brokers.max(1),
            closed: vec![false],
            return_after,
            place: 0,
            is_paid: false,
            least: Duration::ZERO,
            return_wait: return_after,
            returns_at: None,
            next_trial: 0,
            trial: None,
            reached: None,
            has_returned: false,
        }
    }

    /// So many links lead to each of them.
    pub(super) fn go_over(&mut self, links: usize) {
        self.closed = vec![false; links.max(1)];
    }

    /// Which links are closed now.
    pub(super) fn close(&mut self, closed: impl Iterator<Item = bool>) {
        self.closed.iter_mut().zip(closed).for_each(|(link, is_closed)| *link = is_closed);
    }

    /// Where the next connection would go over a closed link it goes another way, if there is one.
    pub(super) fn pass_closed(&mut self) {
        if self.is_closed() && !self.is_paid {
            self.place = self.first();
        }
    }

    /// Whether the link in use is closed.
    pub(super) fn is_closed(&self) -> bool {
        self.closed.get(self.link()) == Some(&true)
    }

    /// The way to connect.
    pub(super) fn place(&self) -> usize {
        self.place
    }

    /// The link of that way.
    pub(super) fn link(&self) -> usize {
        self.place / self.brokers
    }

    /// The first way from here on that is not over a closed link.
    fn open_from(&self, place: usize) -> Option<usize> {
        let ways = self.brokers * self.closed.len();
        (place..ways).find(|way| self.closed.get(way / self.brokers) == Some(&false))
    }

    fn first(&self) -> usize {
        self.open_from(0).unwrap_or(0)
    }

    /// The connection stands.
    pub(super) fn connected(&mut self, now: Duration, backoff: &mut Backoff) {
        self.least = Duration::ZERO;
        (self.trial, self.reached, self.next_trial, self.is_paid) = (None, None, 0, false);
        self.plan_return(now, backoff);
    }

    /// The connection ended after `lasted`, or was not made.
    pub(super) fn disconnected(&mut self, lasted: Option<Duration>, loss: Loss) -> Next {
        self.returns_at = None;
        // At the same broker, and where brokers share their sessions, our own trial takes the place of the connection.
        let takes = |trial: &usize| loss == Loss::TakenOver || trial % self.brokers == self.place % self.brokers;
        let taken_by_trial = self.trial.take().filter(takes);
        if self.reached.is_none() {
            self.reached = taken_by_trial;
        }
        if self.is_reached() {
            self.go();
            return Next::AtOnce;
        }
        self.is_paid = false;
        if loss == Loss::VersionRefused {
            return Next::AtOnce;
        }
        if std::mem::take(&mut self.has_returned) && lasted.is_none_or(|lasted| lasted < self.return_after) {
            self.return_wait = self.longer_wait();
        } else if lasted.is_some() {
            self.return_wait = self.return_after;
        }
        let was_stable = lasted.is_some_and(|lasted| lasted >= STABLE_AFTER);
        match loss {
            Loss::TakenOver => {
                self.place = self.first();
                return Next::AfterWait(TAKEN_OVER_WAIT_MIN);
            }
            Loss::Broken | Loss::Unreached | Loss::Unsent if was_stable => {
                self.place = self.first();
                return Next::AfterWait(Duration::ZERO);
            }
            Loss::Broken | Loss::Unreached | Loss::Unsent | Loss::VersionRefused => {}
            Loss::Refused | Loss::Busy => self.least = REFUSED_WAIT_MIN,
        }
        if let Some(next) = self.open_from(self.place + 1) {
            self.place = next;
            return if lasted.is_some() { Next::AfterWait(Duration::ZERO) } else { Next::AtOnce };
        }
        self.place = self.first();
        Next::AfterWait(std::mem::take(&mut self.least))
    }

    /// When a broker is to be tried beside the connection; `None` while that is not wanted, or under way.
    pub(super) fn tries_at(&self) -> Option<Duration> {
        self.returns_at.filter(|_| self.trial.is_none() && self.reached.is_none())
    }

    /// Not before then.
    pub(super) fn put_off(&mut self, until: Duration) {
        self.returns_at = Some(until);
    }

    /// The link of the way that is tried next; `None` while all that are preferred are closed.
    pub(super) fn next_link(&self) -> Option<usize> {
        self.next_trial().map(|way| way / self.brokers)
    }

    fn next_trial(&self) -> Option<usize> {
        self.open_from(self.next_trial).filter(|way| *way < self.place)
    }

    /// The way to try now.
    pub(super) fn try_next(&mut self) -> usize {
        let way = self.next_trial().unwrap_or(self.next_trial);
        self.trial = Some(way);
        way
    }

    /// Whether what came of the trial of this way, or comes of it, is still wanted.
    pub(super) fn wants(&self, way: usize) -> bool {
        self.trial == Some(way) || self.reached == Some(way) || (self.is_paid && self.place == way)
    }

    /// The link of the way that is being tried.
    pub(super) fn tried_link(&self) -> Option<usize> {
        self.trial.map(|way| way / self.brokers)
    }

    /// What came of the trial.
    pub(super) fn tried(&mut self, result: Result<(), Loss>, now: Duration, backoff: &mut Backoff) {
        let Some(place) = self.trial.take() else { return };
        match result {
            Ok(()) => {
                self.reached = Some(place);
                return;
            }
            // The same way is next.
            Err(Loss::VersionRefused) => return,
            Err(_) => self.next_trial = place + 1,
        }
        if self.next_trial().is_none() {
            self.next_trial = 0;
            self.return_wait = self.longer_wait();
            self.plan_return(now, backoff);
        }
    }

    /// Whether another connection stands, to which to go, or takes the place of one that ended.
    pub(super) fn is_reached(&self) -> bool {
        self.reached.is_some()
    }

    /// Whether that leads to the broker in use, over another link.
    pub(super) fn reaches_same_broker(&self) -> bool {
        self.reached.is_some_and(|way| way % self.brokers == self.place % self.brokers)
    }

    /// Whether the next connection is paid: it stands, or is being made.
    pub(super) fn is_paid(&self) -> bool {
        self.is_paid
    }

    /// Goes there.
    pub(super) fn go(&mut self) {
        if let Some(place) = self.reached.take() {
            (self.place, self.has_returned, self.is_paid) = (place, true, true);
        }
    }

    /// The connection is given up for a time: what follows begins with the first.
    pub(super) fn rest(&mut self) {
        (self.place, self.trial, self.reached, self.returns_at) = (self.first(), None, None, None);
        (self.is_paid, self.has_returned) = (false, false);
    }

    /// Plans when those that are preferred are tried next.
    pub(super) fn plan_return(&mut self, now: Duration, backoff: &mut Backoff) {
        self.returns_at = (self.place > 0).then(|| now.saturating_add(backoff.spread(self.return_wait)));
    }

    fn longer_wait(&self) -> Duration {
        self.return_wait.saturating_mul(2).min(RETURN_WAIT_MAX.max(self.return_after))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RETURN_AFTER: Duration = Duration::from_secs(600);
    const AT_ONCE: Option<Duration> = None;

    fn backoff() -> Backoff {
        Backoff::new(Duration::from_millis(500), Duration::from_secs(120), 1)
    }

    /// Where the next attempt goes, and after which wait at least.
    fn after(failover: &mut Failover, lasted: Option<u64>, loss: Loss) -> (usize, Option<Duration>) {
        let next = failover.disconnected(lasted.map(Duration::from_secs), loss);
        let wait = match next {
            Next::AtOnce => None,
            Next::AfterWait(least) => Some(least),
        };
        (failover.place(), wait)
    }

    #[test]
    fn a_round_asks_all_in_order_and_waits_only_after_the_last() {
        let mut failover = Failover::among(3, RETURN_AFTER);
        assert_eq!(after(&mut failover, None, Loss::Broken), (1, AT_ONCE));
        assert_eq!(after(&mut failover, None, Loss::Busy), (2, AT_ONCE));
        // One of them asked for patience.
        assert_eq!(after(&mut failover, None, Loss::Broken), (0, Some(REFUSED_WAIT_MIN)));
        assert_eq!(after(&mut failover, None, Loss::Broken), (1, AT_ONCE));
        assert_eq!(after(&mut failover, None, Loss::Broken), (2, AT_ONCE));
        assert_eq!(after(&mut failover, None, Loss::Broken), (0, Some(Duration::ZERO)));
        // In another version of MQTT the same one is asked.
        assert_eq!(after(&mut failover, None, Loss::VersionRefused), (0, AT_ONCE));
        assert_eq!(after(&mut failover, None, Loss::Broken), (1, AT_ONCE));
        // One alone is asked again with a wait each time.
        let mut alone = Failover::among(1, RETURN_AFTER);
        assert_eq!(after(&mut alone, None, Loss::Refused), (0, Some(REFUSED_WAIT_MIN)));
        assert_eq!(after(&mut alone, Some(1), Loss::Broken), (0, Some(Duration::ZERO)));
        assert_eq!(after(&mut alone, Some(1), Loss::TakenOver), (0, Some(TAKEN_OVER_WAIT_MIN)));
    }

    #[test]
    fn what_was_stable_is_asked_again_and_what_was_not_is_passed_over() {
        let connected = || {
            let mut failover = Failover::among(3, RETURN_AFTER);
            assert_eq!(after(&mut failover, None, Loss::Broken), (1, AT_ONCE));
            failover.connected(Duration::ZERO, &mut backoff());
            failover
        };
        assert_eq!(after(&mut connected(), Some(100), Loss::Broken), (0, Some(Duration::ZERO)));
        assert_eq!(after(&mut connected(), Some(1), Loss::Broken), (2, Some(Duration::ZERO)));
        // It asks to use another server.
        assert_eq!(after(&mut connected(), Some(100), Loss::Busy), (2, Some(Duration::ZERO)));
        assert_eq!(after(&mut connected(), Some(100), Loss::TakenOver), (0, Some(TAKEN_OVER_WAIT_MIN)));
    }

    #[test]
    fn those_before_it_are_tried_in_order_and_more_seldom_while_they_fail() {
        let (mut failover, mut backoff) = (Failover::among(3, RETURN_AFTER), backoff());
        failover.connected(Duration::ZERO, &mut backoff);
        assert_eq!(failover.tries_at(), None, "there is none before the first");
        after(&mut failover, None, Loss::Broken);
        after(&mut failover, None, Loss::Broken);
        let mut now = Duration::ZERO;
        failover.connected(now, &mut backoff);
        for wait in [600, 1200, 2400, 3600, 3600] {
            let (wait, at) = (Duration::from_secs(wait), failover.tries_at().unwrap());
            assert!((now + wait..=now + wait + wait / 2).contains(&at), "{wait:?}");
            now = at;
            assert_eq!(failover.try_next(), 0);
            assert_eq!(failover.tries_at(), None);
            failover.tried(Err(Loss::VersionRefused), now, &mut backoff);
            assert_eq!((failover.tries_at(), failover.try_next()), (Some(now), 0));
            failover.tried(Err(Loss::Broken), now, &mut backoff);
            assert_eq!((failover.tries_at(), failover.try_next()), (Some(now), 1));
            failover.tried(Err(Loss::Broken), now, &mut backoff);
        }
        now = failover.tries_at().unwrap();
        assert_eq!(failover.try_next(), 0);
        failover.tried(Ok(()), now, &mut backoff);
        assert!(failover.is_reached() && failover.tries_at().is_none());
        failover.go();
        assert_eq!(failover.place(), 0);
        failover.connected(now, &mut backoff);
        // It does not last: the next return takes longer. It lasts: all is as in the beginning.
        for (lasted, wait) in [(100, 3600), (100, 3600), (700, 600)] {
            after(&mut failover, Some(lasted), Loss::Refused);
            failover.connected(now, &mut backoff);
            let at = failover.tries_at().unwrap();
            assert!(at >= now + Duration::from_secs(wait) && at <= now + Duration::from_secs(wait * 3 / 2), "{at:?}");
            failover.try_next();
            failover.tried(Ok(()), now, &mut backoff);
            failover.go();
            failover.connected(now, &mut backoff);
        }
    }

    #[test]
    fn a_connection_that_ends_while_another_stands_is_followed_by_that_one() {
        for (is_reached, loss, place) in [
            (true, Loss::Broken, 0),
            (true, Loss::TakenOver, 0),
            (false, Loss::TakenOver, 0),
            (false, Loss::Refused, 2),
        ] {
            let (mut failover, mut backoff) = (Failover::among(3, RETURN_AFTER), backoff());
            after(&mut failover, None, Loss::Broken);
            failover.connected(Duration::ZERO, &mut backoff);
            failover.try_next();
            if is_reached {
                failover.tried(Ok(()), Duration::ZERO, &mut backoff);
            }
            let wait = if place == 0 { AT_ONCE } else { Some(Duration::ZERO) };
            assert_eq!(after(&mut failover, Some(100), loss), (place, wait), "{is_reached} {loss:?}");
        }
    }

    #[test]
    fn ways_over_a_closed_link_are_passed_over() {
        let (mut failover, mut backoff) = (Failover::among(2, RETURN_AFTER), backoff());
        failover.go_over(3);
        failover.close([false, true, false].into_iter());
        assert_eq!(after(&mut failover, None, Loss::Broken), (1, AT_ONCE));
        assert_eq!(after(&mut failover, None, Loss::Broken), (4, AT_ONCE));
        assert_eq!((failover.link(), after(&mut failover, None, Loss::Broken)), (2, (5, AT_ONCE)));
        failover.connected(Duration::ZERO, &mut backoff);
        for way in [0, 1] {
            assert_eq!((failover.next_link(), failover.try_next()), (Some(0), way));
            failover.tried(Err(Loss::Broken), Duration::ZERO, &mut backoff);
        }
        failover.close([true, false, false].into_iter());
        assert_eq!((failover.next_link(), failover.try_next()), (Some(1), 2));
        failover.tried(Err(Loss::Broken), Duration::ZERO, &mut backoff);
        failover.close([true, true, false].into_iter());
        assert_eq!((failover.next_link(), failover.try_next()), (Some(2), 4));
        assert_eq!(after(&mut failover, Some(100), Loss::Broken), (4, Some(Duration::ZERO)));
        failover.close([true, true, true].into_iter());
        assert!(failover.is_closed());
        assert_eq!(after(&mut failover, None, Loss::Broken), (0, Some(Duration::ZERO)));
        failover.close([true, false, true].into_iter());
        failover.pass_closed();
        assert_eq!(failover.place(), 2);
    }
}
