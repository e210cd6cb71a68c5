//! How long to wait before the next attempt.
//!
//! Decorrelated jitter (Brooker, "Exponential Backoff and Jitter", AWS Architecture Blog, 2015): each wait is drawn uniformly
//! between the shortest wait and three times the last one. A thousand agents that lose their broker in the same instant drift
//! apart at once, which doubling with a little noise does not do.

use std::time::Duration;

/// What follows each wait at most, as a multiple of it. 3 is the factor of the source: waits grow by half on average.
const GROWTH: u32 = 3;

/// The waits between attempts.
#[derive(Clone, Debug)]
pub struct Backoff {
    shortest: Duration,
    longest: Duration,
    last: Duration,
    random: SplitMix64,
}

impl Backoff {
    /// Waits between `shortest` and `longest`; `seed` is different on every device, or they would wait alike.
    pub fn new(shortest: Duration, longest: Duration, seed: u64) -> Self {
        Self { shortest, longest: longest.max(shortest), last: shortest, random: SplitMix64(seed) }
    }

    /// The next wait, at least `least`, which may be longer than the longest of its own.
    pub fn next_wait(&mut self, least: Duration) -> Duration {
        let upper = self.last.saturating_mul(GROWTH).min(self.longest);
        self.last = self.random.between(self.shortest, upper);
        if least > self.last {
            // A peer that asks for patience is asked again with jitter as well.
            return self.random.between(least, least.saturating_mul(2));
        }
        self.last
    }

    /// `span`, or up to half of it more, so that a thousand agents do not do in one instant what each does after it.
    pub fn spread(&mut self, span: Duration) -> Duration {
        self.random.between(span, span.saturating_add(span / 2))
    }

    /// Forgets the past; called when a connection has proved stable, and only then: a peer that accepts and drops at once would
    /// otherwise be asked at full speed for ever.
    pub fn reset(&mut self) {
        self.last = self.shortest;
    }
}

/// A small generator of random numbers (Steele, Lea, Flood: "Fast Splittable Pseudorandom Number Generators", OOPSLA 2014).
#[derive(Clone, Debug)]
struct SplitMix64(u64);

impl SplitMix64 {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Uniform in `[low, high]` to the nanosecond; `low` where `high` is less.
    fn between(&mut self, low: Duration, high: Duration) -> Duration {
        let span = u64::try_from(high.saturating_sub(low).as_nanos()).unwrap_or(u64::MAX);
        // The high half of a 128-bit product is uniform in [0, span] up to 2⁻⁶⁴ (Lemire 2019, without the rejection step).
        let offset = (u128::from(self.next()) * (u128::from(span) + 1)) >> 64;
        low.saturating_add(Duration::from_nanos(u64::try_from(offset).unwrap_or(span)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SHORTEST: Duration = Duration::from_millis(500);
    const LONGEST: Duration = Duration::from_secs(120);

    proptest! {
        #[test]
        fn waits_stay_within_bounds_and_grow_by_the_factor_at_most(seed: u64) {
            let mut backoff = Backoff::new(SHORTEST, LONGEST, seed);
            let mut last = SHORTEST;
            for _ in 0..200 {
                let wait = backoff.next_wait(Duration::ZERO);
                prop_assert!((SHORTEST..=LONGEST).contains(&wait));
                prop_assert!(wait <= last * GROWTH);
                last = wait;
            }
            backoff.reset();
            prop_assert!(backoff.next_wait(Duration::ZERO) <= SHORTEST * GROWTH);
        }

        #[test]
        fn a_demanded_wait_is_kept(seed: u64, seconds in 0_u64..10_000) {
            let least = Duration::from_secs(seconds);
            let wait = Backoff::new(SHORTEST, LONGEST, seed).next_wait(least);
            prop_assert!(wait >= least && wait <= (least * 2).max(SHORTEST * GROWTH));
        }
    }

    #[test]
    fn devices_drift_apart() {
        let waits = |seed| {
            let mut backoff = Backoff::new(SHORTEST, LONGEST, seed);
            [(); 6].map(|()| backoff.next_wait(Duration::ZERO))
        };
        let after: Vec<Duration> = (0..1000).map(|seed| waits(seed).iter().sum()).collect();
        let second = Duration::from_secs(1);
        let busiest =
            (0..1000).map(|n| after.iter().filter(|at| (second * n..second * (n + 1)).contains(at)).count()).max();
        assert!(busiest.unwrap() < 150, "{busiest:?} of 1000 connect within one second");
        assert_eq!(waits(7), waits(7));
    }
}
