//! Which broker of a list is used: the first that lets us in, and after a time one that is preferred to it.
//!
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
    return_after: Duration,
    place: usize,
    /// What the brokers of this round that did not let us in ask for.
    least: Duration,
    return_wait: Duration,
    /// When brokers that are preferred are tried next, and with which that goes on.
    returns_at: Option<Duration>,
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
            brokers,
            return_after,
            place: 0,
            least: Duration::ZERO,
            return_wait: return_after,
            returns_at: None,
            next_trial: 0,
            trial: None,
            reached: None,
            has_returned: false,
        }
    }

    /// The broker to connect to, by its place in the list.
    pub(super) fn place(&self) -> usize {
        self.place
    }

    /// The connection stands.
    pub(super) fn connected(&mut self, now: Duration, backoff: &mut Backoff) {
        self.least = Duration::ZERO;
        (self.trial, self.reached, self.next_trial) = (None, None, 0);
        self.plan_return(now, backoff);
    }

    /// The connection ended after `lasted`, or was not made.
    pub(super) fn disconnected(&mut self, lasted: Option<Duration>, loss: Loss) -> Next {
        self.returns_at = None;
        // Where brokers share their sessions, our own trial takes the place of the connection.
        let taken_by_trial = self.trial.take().filter(|_| loss == Loss::TakenOver);
        if let Some(place) = self.reached.or(taken_by_trial) {
            self.place = place;
            return Next::AtOnce;
        }
        if let Some(lasted) = lasted {
            let did_not_last = std::mem::take(&mut self.has_returned) && lasted < self.return_after;
            self.return_wait = if did_not_last { self.longer_wait() } else { self.return_after };
        }
        let was_stable = lasted.is_some_and(|lasted| lasted >= STABLE_AFTER);
        match loss {
            Loss::TakenOver => {
                self.place = 0;
                return Next::AfterWait(TAKEN_OVER_WAIT_MIN);
            }
            Loss::Broken if was_stable => {
                self.place = 0;
                return Next::AfterWait(Duration::ZERO);
            }
            Loss::Broken => {}
            Loss::Refused | Loss::Busy => self.least = REFUSED_WAIT_MIN,
        }
        self.place += 1;
        if self.place < self.brokers {
            return if lasted.is_some() { Next::AfterWait(Duration::ZERO) } else { Next::AtOnce };
        }
        self.place = 0;
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

    /// The broker to try now.
    pub(super) fn try_next(&mut self) -> usize {
        self.trial = Some(self.next_trial);
        self.next_trial
    }

    /// What came of the trial.
    pub(super) fn tried(&mut self, has_reached: bool, now: Duration, backoff: &mut Backoff) {
        let Some(place) = self.trial.take() else { return };
        if has_reached {
            self.reached = Some(place);
            return;
        }
        self.next_trial = place + 1;
        if self.next_trial >= self.place {
            self.next_trial = 0;
            self.return_wait = self.longer_wait();
            self.plan_return(now, backoff);
        }
    }

    /// Whether another connection stands, to which to go.
    pub(super) fn is_reached(&self) -> bool {
        self.reached.is_some()
    }

    /// Goes there.
    pub(super) fn go(&mut self) {
        if let Some(place) = self.reached {
            (self.place, self.has_returned) = (place, true);
        }
    }

    /// The connection is given up for a time: what follows begins with the first.
    pub(super) fn rest(&mut self) {
        (self.place, self.trial, self.reached, self.returns_at) = (0, None, None, None);
    }

    fn plan_return(&mut self, now: Duration, backoff: &mut Backoff) {
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
            failover.tried(false, now, &mut backoff);
            assert_eq!((failover.tries_at(), failover.try_next()), (Some(now), 1));
            failover.tried(false, now, &mut backoff);
        }
        now = failover.tries_at().unwrap();
        assert_eq!(failover.try_next(), 0);
        failover.tried(true, now, &mut backoff);
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
            failover.tried(true, now, &mut backoff);
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
                failover.tried(true, Duration::ZERO, &mut backoff);
            }
            let wait = if place == 0 { AT_ONCE } else { Some(Duration::ZERO) };
            assert_eq!(after(&mut failover, Some(100), loss), (place, wait), "{is_reached} {loss:?}");
        }
    }
}
