//! Decides what time it is and whether that is trusted. Pure: a look at the clocks goes in, a verdict comes out when it is another.
//!
//! - The wall clock is trusted once it is synchronised, steady for [`STEADY`] since its last step, and not before the program was built.
//! - Where nothing on the machine would ever synchronise it, it is trusted as it is, under the other two conditions.
//! - It stays trusted when synchronisation ends (a link that is gone for a week): it runs on within some seconds a day at most. A step of more
//!   than [`STEP_MIN`], or a suspension as long, ends the trust until all of the first holds again; meanwhile the time goes on as it was.
//! - Receivers of satellite navigation are trusted where the wall clock is not: [`TOLD_MIN`] times that agree.
//! - A time that is not trusted is never before the build or the last time that was trusted.
//!
//! Smaller steps are followed: a leap second is one. Slewing changes nothing here, as it moves both clocks alike.

use std::collections::VecDeque;
use std::time::Duration;

use rtlive_core::engine::ClockView;
use rtlive_core::time::Timestamp;

/// A step by more than this is one. A leap second is not, nor what lies between two readings of the clocks.
pub const STEP_MIN: Duration = Duration::from_millis(1_100);

/// How long a clock must be steady after a step: daemons that set a clock often do so again within their first polls.
pub const STEADY: Duration = Duration::from_secs(60);

/// Differences below this are left alone: that between two readings of the clocks is microseconds.
const DIFFERENCE_MIN: Duration = Duration::from_millis(1);

/// How many of the last times of a receiver must agree, and how many are looked at.
const TOLD_MIN: usize = 5;
const TOLD_MAX: usize = 20;

/// A receiver's times come late by what its sentences take; they agree when they lie as close as this.
const TOLD_AGREE: Duration = Duration::from_secs(1);

/// How far the receiver's time must have drifted to be followed: by less its sentences jitter.
const TOLD_DRIFT_MIN: Duration = Duration::from_millis(20);

/// After so long without a word the receiver is gone.
const TOLD_WITHIN: Duration = Duration::from_secs(10);

/// What the clocks show; nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Look {
    /// The time since the start of the machine.
    pub uptime: i64,
    /// By how much the wall clock is ahead of it.
    pub ahead: i64,
    /// How long the machine was suspended since its start.
    pub slept: i64,
    /// Whether somebody keeps the wall clock right.
    pub is_synchronised: bool,
    /// Whether something on the machine is there to do so, so that it is worth to wait for it.
    pub has_keeper: bool,
}

/// What time it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// By how many nanoseconds the time is ahead of that since the start of the machine.
    pub ahead: i64,
    /// Whether that is the true time.
    pub is_trusted: bool,
    /// The earliest time that it can be.
    pub at_least: Timestamp,
    /// Why, in words.
    pub source: &'static str,
}

/// Judges the clocks of one boot.
#[derive(Debug)]
pub struct Judge {
    /// The earliest time that it can be: the build, or the last that was trusted.
    at_least: Timestamp,
    last: Option<Look>,
    /// The time since the start when the wall clock last made a step.
    stepped_at: Option<i64>,
    /// What is trusted, or was before the last step.
    trusted: Option<i64>,
    is_trusted: bool,
    /// Whether it was the wall clock that was trusted, and small steps of it are followed.
    is_of_wall: bool,
    /// What receivers told, and when the last was.
    told: VecDeque<i64>,
    told_at: i64,
    verdict: Option<Verdict>,
}

fn nanos(span: Duration) -> i64 {
    rtlive_core::time::nanos(span)
}

impl Judge {
    /// A judge who knows that it cannot be earlier than `at_least`. `trusted_before` is by how much the time was ahead when this boot was last
    /// trusted, by an earlier process.
    pub fn new(at_least: Timestamp, trusted_before: Option<i64>) -> Self {
        Self {
            at_least,
            last: None,
            stepped_at: None,
            trusted: trusted_before,
            is_trusted: trusted_before.is_some(),
            is_of_wall: true,
            told: VecDeque::new(),
            told_at: 0,
            verdict: None,
        }
    }

    /// A judge who knows what the engine knew of the clock when it was last committed; `boot` is this boot.
    pub fn of(known: &ClockView, boot: &str) -> Self {
        let at_least = known.trusted_to.unwrap_or_default().max(super::built_at());
        let before = known.boot.as_deref() == Some(boot) && known.is_trusted;
        Self::new(at_least, before.then_some(known.ahead))
    }

    /// The first look of a judge.
    pub fn first(&mut self, look: Look) -> Verdict {
        let verdict = self.look(look, &[]);
        verdict.unwrap_or(Verdict { ahead: look.ahead, is_trusted: false, at_least: self.at_least, source: "" })
    }

    /// Looks at the clocks, and at what receivers told since the last look; the verdict, where it is another than before.
    pub fn look(&mut self, look: Look, told: &[i64]) -> Option<Verdict> {
        let before = self.last.map_or(self.trusted, |last| Some(last.ahead));
        let slept = self.last.map_or(0, |last| look.slept.saturating_sub(last.slept));
        self.last = Some(look);
        let step = before.map_or(0, |before| look.ahead.abs_diff(before));
        if step > STEP_MIN.as_nanos() as u64 || slept > nanos(STEP_MIN) {
            self.stepped_at = Some(look.uptime);
            self.lose_trust(look.uptime);
        }
        let (ahead, is_trusted, source) = self.decide(look, told);
        if is_trusted {
            (self.trusted, self.is_trusted) = (Some(ahead), true);
        }
        let next = Verdict { ahead, is_trusted, at_least: self.at_least, source };
        let is_same = self.verdict.is_some_and(|verdict| {
            let differ = verdict.ahead.abs_diff(ahead) >= DIFFERENCE_MIN.as_nanos() as u64;
            !differ && Verdict { ahead, ..verdict } == next
        });
        if is_same {
            return None;
        }
        self.verdict = Some(next);
        Some(next)
    }

    /// What was trusted is held on to, and is no more than a guess; it cannot be earlier than it shows.
    fn lose_trust(&mut self, uptime: i64) {
        if let Some(trusted) = self.trusted.filter(|_| std::mem::take(&mut self.is_trusted)) {
            self.at_least = self.at_least.max(Timestamp::from_nanos(uptime.saturating_add(trusted)));
        }
    }

    fn decide(&mut self, look: Look, told: &[i64]) -> (i64, bool, &'static str) {
        let Look { uptime, ahead, is_synchronised, has_keeper, .. } = look;
        let told = self.told(uptime, told);
        let shows = |ahead: i64| Timestamp::from_nanos(uptime.saturating_add(ahead));
        let is_steady = self.stepped_at.is_none_or(|at| uptime.saturating_sub(at) >= nanos(STEADY));
        let is_possible = shows(ahead) >= super::built_at();
        if is_possible && is_steady && is_synchronised {
            self.is_of_wall = true;
            return (ahead, true, "the system's clock is synchronised");
        }
        if let Some(told) = told {
            self.is_of_wall = false;
            return (told, true, "a receiver of satellite navigation tells the time");
        }
        // Who waits for what will never come loses everything that it read.
        if is_possible && is_steady && !has_keeper {
            self.is_of_wall = true;
            return (ahead, true, "nothing on this machine sets its clock, which is taken as it is");
        }
        if let (Some(trusted), true) = (self.trusted, self.is_trusted) {
            let follows = self.is_of_wall && trusted.abs_diff(ahead) <= STEP_MIN.as_nanos() as u64;
            return (if follows { ahead } else { trusted }, true, "the clock was synchronised, and runs on since");
        }
        let guess = match (self.trusted, self.verdict) {
            (Some(trusted), _) => trusted,
            (None, Some(verdict)) if shows(ahead) < self.at_least => verdict.ahead,
            (None, _) => ahead.max(self.at_least.as_nanos().saturating_sub(uptime)),
        };
        let reason = match (is_synchronised || !has_keeper, is_possible) {
            (true, true) => "the clock was set, and must be steady for a minute",
            (_, false) => "the system's clock shows a time before this program was built",
            (false, true) => "the system's clock is not synchronised yet",
        };
        (guess, false, reason)
    }

    /// What receivers say, if they agree and it is possible.
    fn told(&mut self, uptime: i64, told: &[i64]) -> Option<i64> {
        let possible = |ahead: &&i64| Timestamp::from_nanos(uptime.saturating_add(**ahead)) >= super::built_at();
        for &ahead in told.iter().filter(possible) {
            self.told.push_back(ahead);
            self.told_at = uptime;
        }
        while self.told.len() > TOLD_MAX {
            self.told.pop_front();
        }
        if uptime.saturating_sub(self.told_at) > nanos(TOLD_WITHIN) {
            self.told.clear();
        }
        // The sentence that came with the least delay is nearest to the truth.
        let newest = *self.told.iter().max()?;
        let oldest = *self.told.iter().min()?;
        if self.told.len() < TOLD_MIN || newest.saturating_sub(oldest) > nanos(TOLD_AGREE) {
            return None;
        }
        let is_near = |trusted: &i64| trusted.abs_diff(newest) < TOLD_DRIFT_MIN.as_nanos() as u64;
        Some(self.trusted.filter(is_near).unwrap_or(newest))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: i64 = 1_000_000_000;
    const HOUR: i64 = 3_600 * SECOND;
    const YEAR: i64 = 8_766 * HOUR;

    /// The machine was started so long after the program was built.
    fn started() -> i64 {
        super::super::built_at().as_nanos() + 100 * YEAR / 10
    }

    struct Machine {
        judge: Judge,
        look: Look,
        /// The newest verdict.
        verdict: Option<Verdict>,
    }

    impl Machine {
        fn new(ahead: i64, is_synchronised: bool) -> Self {
            let judge = Judge::new(super::super::built_at(), None);
            let look = Look { uptime: 5 * SECOND, ahead, slept: 0, is_synchronised, has_keeper: true };
            let mut machine = Self { judge, look, verdict: None };
            machine.look(&[]);
            machine
        }

        fn look(&mut self, told: &[i64]) -> (i64, bool) {
            self.verdict = self.judge.look(self.look, told).or(self.verdict);
            let verdict = self.verdict.unwrap();
            (verdict.ahead, verdict.is_trusted)
        }

        /// Looks each second, and tells after how many the verdict is another.
        fn wait(&mut self, seconds: i64) -> Option<i64> {
            (1..=seconds).find(|_| {
                self.look.uptime += SECOND;
                let verdict = self.judge.look(self.look, &[]);
                self.verdict = verdict.or(self.verdict);
                verdict.is_some()
            })
        }
    }

    #[test]
    fn a_clock_that_is_set_after_the_start_is_trusted_when_it_was_steady() {
        let mut machine = Machine::new(0, false);
        let (guess, is_trusted) = machine.look(&[]);
        assert!(!is_trusted && guess + machine.look.uptime == super::super::built_at().as_nanos());
        assert_eq!(machine.wait(500), None);
        (machine.look.ahead, machine.look.is_synchronised) = (started(), true);
        assert_eq!(machine.wait(1), Some(1), "the reason is another");
        assert!(!machine.look(&[]).1);
        assert_eq!((machine.wait(100), machine.look(&[])), (Some(60), (started(), true)));
        // A clock that was right from the start need not prove it.
        assert_eq!(Machine::new(started(), true).look(&[]), (started(), true));
    }

    #[test]
    fn a_step_ends_the_trust_and_the_time_goes_on() {
        for step in [HOUR, -HOUR, YEAR, -YEAR, 2 * SECOND] {
            let mut machine = Machine::new(started(), true);
            machine.wait(10);
            machine.look.ahead += step;
            assert_eq!((machine.wait(1), machine.look(&[])), (Some(1), (started(), false)), "{step}");
            // It is set back; the minute begins anew.
            machine.wait(30);
            machine.look.ahead -= step;
            assert_eq!((machine.wait(100), machine.look(&[])), (Some(61), (started(), true)), "{step}");
        }
        // It stays as it was set, and is synchronised: it is believed after a minute.
        let mut machine = Machine::new(started(), true);
        machine.look.ahead += HOUR;
        machine.wait(1);
        assert_eq!((machine.wait(100), machine.look(&[])), (Some(60), (started() + HOUR, true)));
        // An operator's setting ends the synchronisation.
        machine.look.ahead += HOUR;
        machine.look.is_synchronised = false;
        machine.wait(1);
        machine.wait(500);
        assert_eq!(machine.look(&[]), (started() + HOUR, false));
    }

    #[test]
    fn where_nothing_will_set_the_clock_it_is_taken_as_it_is() {
        let mut machine = Machine::new(started(), false);
        machine.look.has_keeper = false;
        machine.judge = Judge::new(super::super::built_at(), None);
        assert_eq!(machine.look(&[]), (started(), true));
        // Somebody sets it: it is believed after a minute.
        machine.look.ahead += HOUR;
        machine.wait(1);
        assert!(!machine.look(&[]).1);
        assert_eq!((machine.wait(100), machine.look(&[])), (Some(60), (started() + HOUR, true)));
        // A time before the build is nobody's.
        let mut machine = Machine::new(0, false);
        machine.look.has_keeper = false;
        machine.wait(500);
        assert!(!machine.look(&[]).1);
    }

    #[test]
    fn a_leap_second_is_followed_at_once() {
        let mut machine = Machine::new(started(), true);
        machine.look.ahead -= SECOND;
        assert_eq!((machine.wait(1), machine.look(&[])), (Some(1), (started() - SECOND, true)));
    }

    #[test]
    fn a_suspension_ends_the_trust_and_short_ones_do_not() {
        let mut machine = Machine::new(started(), true);
        machine.look.slept += SECOND;
        assert_eq!(machine.wait(10), None);
        machine.look.slept += HOUR;
        assert_eq!((machine.wait(1), machine.look(&[])), (Some(1), (started(), false)));
        assert_eq!((machine.wait(100), machine.look(&[])), (Some(60), (started(), true)));
    }

    #[test]
    fn synchronisation_that_ends_makes_nothing_unsure() {
        let mut machine = Machine::new(started(), true);
        machine.look.is_synchronised = false;
        assert_eq!(machine.wait(1), Some(1), "the reason is another");
        machine.wait(100_000);
        assert_eq!(machine.look(&[]), (started(), true));
        // Nor does a restart of the agent.
        let mut judge = Judge::new(super::super::built_at(), Some(started()));
        assert!(judge.look(machine.look, &[]).unwrap().is_trusted);
        machine.look.ahead += HOUR;
        let mut judge = Judge::new(super::super::built_at(), Some(started()));
        let verdict = judge.look(machine.look, &[]).unwrap();
        assert_eq!((verdict.ahead, verdict.is_trusted), (started(), false));
    }

    #[test]
    fn a_time_before_the_build_is_never_trusted() {
        // Weeks of satellite navigation are counted modulo 1024.
        let rollover = started() - 1024 * 7 * 24 * HOUR;
        let mut machine = Machine::new(rollover, true);
        machine.wait(500);
        assert!(!machine.look(&[]).1);
        assert!(!machine.look(&[rollover; TOLD_MIN]).1);
    }

    #[test]
    fn a_receiver_is_believed_where_the_clock_is_not() {
        let late = |ms: i64| started() - ms * 1_000_000;
        let mut machine = Machine::new(0, false);
        assert!(!machine.look(&[late(70), late(50), late(90), late(60)]).1);
        assert_eq!(machine.look(&[late(80)]), (late(50), true));
        assert_eq!(machine.look(&[late(45)]), (late(50), true), "jitter is not followed");
        // The clock is synchronised at last: it is right to the millisecond.
        (machine.look.ahead, machine.look.is_synchronised) = (started(), true);
        while machine.wait(100).is_some() {}
        assert_eq!(machine.look(&[]), (started(), true));
        // Times that do not agree are none.
        let mut machine = Machine::new(0, false);
        assert!(!machine.look(&[late(0), late(0), late(1_500), late(0), late(0)]).1);
        // A receiver that falls silent is held on to.
        let mut machine = Machine::new(0, false);
        machine.look(&[late(10); TOLD_MIN]);
        machine.wait(100);
        assert_eq!(machine.look(&[]), (late(10), true));
    }

    #[test]
    fn a_guess_is_not_before_the_last_time_that_was_trusted() {
        let mut judge = Judge::new(Timestamp::from_nanos(started()), None);
        let look = Look { uptime: 5 * SECOND, ahead: 0, slept: 0, is_synchronised: false, has_keeper: true };
        let verdict = judge.look(look, &[]).unwrap();
        assert_eq!((verdict.ahead, verdict.at_least.as_nanos()), (started() - 5 * SECOND, started()));
        // A clock that keeps running without power is the better guess.
        let verdict = judge.look(Look { ahead: started() + HOUR, ..look }, &[]).unwrap();
        assert_eq!((verdict.ahead, verdict.is_trusted), (started() + HOUR, false));
    }
}
