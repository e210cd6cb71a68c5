//! The bound of the rate: a token bucket (RFC 2697, section 3, with one bucket), filled at the rate up to a burst.
//!
//! Over any time t, at most rate × t and one burst are sent. The bucket counts billionths of bytes, so that this holds to the byte.

use std::time::Duration;

use super::estimate::QUEUE_TIME;

/// The least burst: what it takes to connect must fit.
const BURST_BYTES_MIN: u64 = 4 << 10;
/// How much of the burst messages leave for keep-alives, which come when they come.
const RESERVE_BYTES: u64 = 256;
const NANOS: i128 = 1_000_000_000;

/// The bucket.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bucket {
    bytes_per_second: u64,
    /// What is in it, in billionths of bytes, at `at`.
    level: i128,
    at: Duration,
}

impl Bucket {
    /// A full one.
    pub(super) fn new(bytes_per_second: u64) -> Self {
        let bytes_per_second = bytes_per_second.max(1);
        Self { bytes_per_second, level: Self::burst(bytes_per_second), at: Duration::ZERO }
    }

    /// What the rate carries in so much time, in bytes.
    pub(super) fn bytes_in(&self, time: Duration) -> u64 {
        u64::try_from(self.grown(time) / NANOS).unwrap_or(u64::MAX)
    }

    /// Bytes are sent.
    pub(super) fn take(&mut self, bytes: u64, now: Duration) {
        self.level = self.level_at(now) - i128::from(bytes) * NANOS;
        self.at = self.at.max(now);
    }

    /// When a message may be sent; one that is longer than the burst when the bucket is full.
    pub(super) fn ready_at(&self, bytes: u64) -> Duration {
        let wanted = (i128::from(bytes + RESERVE_BYTES) * NANOS).min(Self::burst(self.bytes_per_second));
        let missing = (wanted - self.level).max(0);
        let nanos = missing.div_euclid(i128::from(self.bytes_per_second)) + 1;
        if missing == 0 {
            return self.at;
        }
        self.at.saturating_add(Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX)))
    }

    fn level_at(&self, now: Duration) -> i128 {
        let grown = self.grown(now.saturating_sub(self.at));
        (self.level + grown).min(Self::burst(self.bytes_per_second))
    }

    fn grown(&self, time: Duration) -> i128 {
        i128::try_from(time.as_nanos()).unwrap_or(i128::MAX / 2).saturating_mul(i128::from(self.bytes_per_second))
    }

    fn burst(bytes_per_second: u64) -> i128 {
        let bytes = i128::from(bytes_per_second) * QUEUE_TIME.as_millis() as i128 / 1000;
        bytes.max(i128::from(BURST_BYTES_MIN)) * NANOS
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn over_any_time_no_more_than_the_rate_and_a_burst(
            bytes_per_second in 125_u64..1_000_000,
            messages in prop::collection::vec((1_u64..40_000, 0_u64..2_000), 1..200),
        ) {
            let mut bucket = Bucket::new(bytes_per_second);
            let burst = (bytes_per_second / 2).max(BURST_BYTES_MIN);
            let (mut now, mut sent) = (Duration::ZERO, Vec::new());
            for (bytes, pause) in messages {
                let bytes = bytes.min(burst - RESERVE_BYTES);
                now = bucket.ready_at(bytes).max(now + Duration::from_millis(pause));
                bucket.take(bytes, now);
                sent.push((now, bytes));
            }
            for (place, &(from, _)) in sent.iter().enumerate() {
                let mut sum = 0;
                for &(to, bytes) in &sent[place..] {
                    sum += bytes;
                    let allowed = (to - from).as_nanos() * u128::from(bytes_per_second) / 1_000_000_000;
                    prop_assert!(u128::from(sum) <= allowed + u128::from(burst));
                }
            }
        }

        #[test]
        fn what_is_ready_may_be_sent_and_not_before(bytes_per_second in 125_u64..1_000_000, bytes in 1_u64..100_000) {
            let mut bucket = Bucket::new(bytes_per_second);
            bucket.take(bytes, Duration::ZERO);
            let ready = bucket.ready_at(bytes);
            let wanted = i128::from(bytes + RESERVE_BYTES) * NANOS;
            let wanted = wanted.min(Bucket::burst(bytes_per_second));
            prop_assert!(bucket.level_at(ready) >= wanted);
            if let Some(before) = ready.checked_sub(Duration::from_nanos(2)) {
                prop_assert!(bucket.level_at(before) < wanted);
            }
        }
    }

    #[test]
    fn a_message_longer_than_the_burst_waits_for_a_full_bucket_and_for_its_debt() {
        let mut bucket = Bucket::new(8_000);
        assert_eq!(bucket.ready_at(100_000), Duration::ZERO);
        bucket.take(12_096, Duration::ZERO);
        assert_eq!(bucket.ready_at(100_000).as_millis(), 1_512);
    }
}
