//! The budget: so many bytes in a day or a month, by the costs of [`super::wire`] in both directions.
//!
//! - What may be spent is *reserved* on the disk before it is: a crash forgets how much of the reserve was spent, and counts all of it. No byte is
//!   spent twice, and a start costs [`RESERVE_PART`] of the budget at most.
//! - It is spread over the period: a part of it ([`AHEAD_PART`]) may be spent at once, and at each instant as much of the rest as the part of the period
//!   that has passed. What is not spent stays for later, so that a quiet week pays for a busy one.
//! - Of that `bulk` may take four fifths ([`BULK_PERCENT`]), so that there is always something left for what is `live`. A part of the budget is for
//!   alerts alone.
//! - When nothing is left but [`CLOSING_BYTES`], the connection is closed until the period ends: it costs keep-alives.

use crate::plan::{Priority, WindowKind};
use crate::time::Timestamp;

/// How much is reserved at a time, as a part of the budget: 100 kB of 50 MB, some hundred writes a month.
const RESERVE_PART: u64 = 500;
/// The least that is reserved at a time.
const RESERVE_BYTES_MIN: u64 = 4 << 10;
/// How much of the reserve is left to keep-alives, which come when they come.
const KEEP_ALIVE_BYTES: u64 = 1 << 10;
/// Which part of the period's bytes may be spent at its beginning: a day's of a month. The rest comes with the time, to the last instant.
const AHEAD_PART: i128 = 30;
/// How much of what may have been spent `bulk` may take.
const BULK_PERCENT: u64 = 80;
/// What nothing is sent of but what it takes to close the connection, and twice that before it is closed.
const CLOSING_BYTES: u64 = 2 << 10;

/// What was agreed.
#[derive(Clone, Debug, PartialEq)]
pub struct BudgetTerms {
    /// How many bytes in a period.
    pub bytes: u64,
    /// The periods.
    pub period: WindowKind,
    /// Which part is for alerts alone, in hundredths.
    pub alert_percent: u8,
}

impl BudgetTerms {
    /// What a priority and those before it may take in a whole period.
    pub fn pool(&self, priority: Priority) -> u64 {
        let all = self.bytes.saturating_sub(2 * CLOSING_BYTES);
        let shared = all - part(all, self.alert_percent.min(100).into());
        match priority {
            Priority::Alert => all,
            Priority::Live => shared,
            Priority::Bulk => part(shared, BULK_PERCENT),
        }
    }
}

/// How the budget stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BudgetState {
    /// What is spent of the period, or reserved by a process that ended.
    pub spent: u64,
    /// How many bytes there are in the period.
    pub bytes: u64,
    /// The highest priority that has to wait at present, whatever the length of what it sends; `None` while nothing has to.
    pub held: Option<Priority>,
    /// What is left of it beside what is for alerts alone.
    pub left: u64,
    /// When the period ends.
    pub until: Timestamp,
}

/// Whether bytes may be spent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Allowance {
    Given,
    /// They must be reserved before.
    Unreserved,
    NotBefore(Timestamp),
}

/// The account of a period.
#[derive(Clone, Debug)]
pub struct Budget {
    terms: BudgetTerms,
    from: Timestamp,
    to: Timestamp,
    spent: u64,
    /// What is on the disk.
    reserved: u64,
    /// What is being written.
    asked: Option<u64>,
    /// What a connection that is tried in this period takes at most.
    attempted: u64,
}

impl Budget {
    /// Goes on with what [`Action::SaveBudget`](super::Action::SaveBudget) saved last, if anything.
    pub fn new(terms: BudgetTerms, saved: Option<&[u8]>, now: Timestamp) -> Self {
        let (from, to) = terms.period.around(now);
        let mut budget = Self { terms, from, to, spent: 0, reserved: 0, asked: None, attempted: 0 };
        // A clock that was set back earns nothing.
        if let Some((from, reserved)) = saved.and_then(decode).filter(|(from, _)| *from >= budget.from) {
            (budget.from, budget.to) = budget.terms.period.around(from);
            (budget.spent, budget.reserved) = (reserved, reserved);
        }
        budget
    }

    /// How it stands.
    pub(super) fn state(&self, now: Timestamp) -> BudgetState {
        let is_held = |priority: &Priority| self.spent >= self.limit(*priority, now);
        let held = [Priority::Alert, Priority::Live, Priority::Bulk].into_iter().find(is_held);
        let left = self.terms.pool(Priority::Live).saturating_sub(self.spent);
        BudgetState { spent: self.spent, bytes: self.terms.bytes, held, left, until: self.to }
    }

    /// The period may have ended; whether it has.
    pub(super) fn turn(&mut self, now: Timestamp) -> bool {
        let has_ended = now >= self.to;
        if has_ended {
            (self.from, self.to) = self.terms.period.around(now);
            (self.spent, self.reserved, self.asked, self.attempted) = (0, 0, None, 0);
        }
        has_ended
    }

    /// Whether a message may be sent.
    pub(super) fn allows(&self, bytes: u64, priority: Priority, now: Timestamp) -> Allowance {
        let wanted = self.spent.saturating_add(bytes);
        if wanted > self.limit(priority, now) { self.not_before(wanted, priority) } else { self.reserved_for(wanted) }
    }

    /// Whether a connection may be made, and closed again.
    pub(super) fn allows_connection(&self, bytes: u64) -> Allowance {
        let wanted = self.spent.saturating_add(bytes);
        if wanted.saturating_add(2 * CLOSING_BYTES) > self.terms.bytes {
            return Allowance::NotBefore(self.to);
        }
        self.reserved_for(wanted)
    }

    /// Whether the connection costs what is not there any more.
    pub(super) fn is_exhausted(&self) -> bool {
        self.spent.saturating_add(CLOSING_BYTES) > self.terms.bytes
    }

    /// When the period ends.
    pub(super) fn until(&self) -> Timestamp {
        self.to
    }

    /// Bytes are sent.
    pub(super) fn spend(&mut self, bytes: u64) {
        self.spent = self.spent.saturating_add(bytes);
    }

    /// So much of what was spent is for a connection that is tried.
    pub(super) fn note_attempt(&mut self, bytes: u64) {
        self.attempted = bytes;
    }

    /// It was not made, and so much of what it would have taken was not sent.
    pub(super) fn refund(&mut self, bytes: u64) {
        // What an earlier period paid is not this one's.
        let bytes = bytes.min(std::mem::take(&mut self.attempted));
        self.spent = self.spent.saturating_sub(bytes);
    }

    /// What to save so that these bytes may be spent; `None` while something is being saved.
    pub(super) fn reserve(&mut self, bytes: u64) -> Option<Vec<u8>> {
        if self.asked.is_some() {
            return None;
        }
        let step = (self.terms.bytes / RESERVE_PART).max(RESERVE_BYTES_MIN);
        let reserved = self.spent.saturating_add(bytes).saturating_add(step).min(self.terms.bytes);
        self.asked = Some(reserved);
        Some([self.from.as_nanos().to_be_bytes(), reserved.to_be_bytes()].concat())
    }

    /// It is saved.
    pub(super) fn saved(&mut self) {
        if let Some(reserved) = self.asked.take() {
            self.reserved = reserved;
        }
    }

    fn reserved_for(&self, spent: u64) -> Allowance {
        let wanted = spent.saturating_add(KEEP_ALIVE_BYTES).min(self.terms.bytes);
        if wanted > self.reserved { Allowance::Unreserved } else { Allowance::Given }
    }

    /// How much may have been spent when a message of this priority is sent.
    fn limit(&self, priority: Priority, now: Timestamp) -> u64 {
        let all = self.terms.bytes.saturating_sub(2 * CLOSING_BYTES);
        let (pool, length) = (self.terms.pool(priority), self.length());
        let passed = (i128::from(now.as_nanos()) - i128::from(self.from.as_nanos())).clamp(0, length);
        let due = length / AHEAD_PART + passed * (AHEAD_PART - 1) / AHEAD_PART;
        match priority {
            Priority::Alert => all,
            Priority::Live | Priority::Bulk => u64::try_from(i128::from(pool) * due / length).unwrap_or(pool),
        }
    }

    fn not_before(&self, wanted: u64, priority: Priority) -> Allowance {
        let (pool, length) = (self.terms.pool(priority), self.length());
        if priority == Priority::Alert || wanted > pool {
            return Allowance::NotBefore(self.to);
        }
        let due = (i128::from(wanted) * length).div_euclid(i128::from(pool.max(1))) + 1 - length / AHEAD_PART;
        let passed = (due * AHEAD_PART).div_euclid(AHEAD_PART - 1) + 1;
        let at = i128::from(self.from.as_nanos()) + passed;
        Allowance::NotBefore(i64::try_from(at).map_or(self.to, Timestamp::from_nanos).min(self.to))
    }

    fn length(&self) -> i128 {
        (i128::from(self.to.as_nanos()) - i128::from(self.from.as_nanos())).max(1)
    }
}

/// So many hundredths of it.
fn part(of: u64, percent: u64) -> u64 {
    u64::try_from(u128::from(of) * u128::from(percent) / 100).unwrap_or(of)
}

fn decode(saved: &[u8]) -> Option<(Timestamp, u64)> {
    let (from, reserved) = saved.split_first_chunk::<8>()?;
    Some((Timestamp::from_nanos(i64::from_be_bytes(*from)), u64::from_be_bytes(reserved.try_into().ok()?)))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::Arc;
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;
    use crate::plan::CalendarLength;
    use crate::zone::Zone;

    const DAY: Duration = Duration::from_secs(86_400);

    fn terms(bytes: u64, length: CalendarLength, alert_percent: u8) -> BudgetTerms {
        let zone = Arc::new(Zone::utc());
        BudgetTerms { bytes, period: WindowKind::Calendar { length, offset: Duration::ZERO, zone }, alert_percent }
    }

    /// What happens: a message of a priority and so many bytes, after a pause of so many minutes; and perhaps a crash then.
    fn steps() -> impl Strategy<Value = Vec<(u8, u64, u64, bool)>> {
        prop::collection::vec((0_u8..3, 1_u64..60_000, 0_u64..600, prop::bool::weighted(0.1)), 1..300)
    }

    proptest! {
        /// Whatever is sent, and however often the process dies before or after something is saved.
        #[test]
        fn no_period_costs_more_than_its_budget(
            bytes in 10_000_u64..2_000_000,
            is_day: bool,
            alert_percent in 0_u8..=100,
            steps in steps(),
        ) {
            let length = if is_day { CalendarLength::Days(1) } else { CalendarLength::Months(1) };
            let terms = terms(bytes, length, alert_percent);
            let (mut now, mut saved) = (Timestamp::EPOCH, None);
            let mut budget = Budget::new(terms.clone(), None, now);
            let mut spent: BTreeMap<Timestamp, u64> = BTreeMap::new();
            for (priority, bytes, minutes, crashes) in steps {
                now = now.saturating_add(Duration::from_secs(minutes * 60));
                budget.turn(now);
                let priority = [Priority::Alert, Priority::Live, Priority::Bulk][usize::from(priority)];
                if budget.allows(bytes, priority, now) == Allowance::Unreserved {
                    let reserve = budget.reserve(bytes);
                    // It may be on the disk although nobody heard of it.
                    saved = reserve.or(saved);
                    if !crashes {
                        budget.saved();
                    }
                }
                if budget.allows(bytes, priority, now) == Allowance::Given {
                    budget.spend(bytes);
                    *spent.entry(budget.from).or_default() += bytes;
                }
                if crashes {
                    budget = Budget::new(terms.clone(), saved.as_deref(), now);
                }
            }
            for (from, spent) in spent {
                prop_assert!(spent <= terms.bytes, "{spent} from {from}");
            }
        }

        /// A message that has to wait may be sent when it is said that it may, and not much before.
        #[test]
        fn what_has_to_wait_is_told_until_when(bytes in 1_000_000_u64..100_000_000, spent in 0_u64..100, hours in 0_u64..700, is_bulk: bool) {
            let mut budget = Budget::new(terms(bytes, CalendarLength::Months(1), 10), None, Timestamp::EPOCH);
            budget.spend(part(bytes, spent));
            let priority = if is_bulk { Priority::Bulk } else { Priority::Live };
            let now = Timestamp::EPOCH.saturating_add(Duration::from_secs(hours * 3_600));
            if let Allowance::NotBefore(at) = budget.allows(1_000, priority, now) {
                prop_assert!(at > now && at <= budget.to);
                if at < budget.to {
                    prop_assert_eq!(budget.allows(1_000, priority, at), Allowance::Unreserved);
                    let before = Timestamp::from_nanos(at.as_nanos() - 10_000_000_000);
                    prop_assert!(matches!(budget.allows(1_000, priority, before), Allowance::NotBefore(_)));
                }
            }
        }
    }

    #[test]
    fn the_period_is_shared_by_time_and_priority() {
        let mut budget = Budget::new(terms(1_000_000, CalendarLength::Days(10), 10), None, Timestamp::EPOCH);
        let held = |budget: &Budget, day: u32| budget.state(Timestamp::EPOCH.saturating_add(DAY * day)).held;
        assert_eq!(held(&budget, 0), None);
        // The first day's and a third of a day ahead: 90,000 × 4/3 of what is not for alerts.
        budget.spend(100_000);
        assert_eq!([0, 1, 2].map(|day| held(&budget, day)), [Some(Priority::Live), Some(Priority::Bulk), None]);
        budget.spend(620_000);
        assert_eq!([5, 9].map(|day| held(&budget, day)), [Some(Priority::Live), Some(Priority::Bulk)]);
        budget.spend(180_000);
        assert_eq!(held(&budget, 9), Some(Priority::Live));
        assert!(!budget.is_exhausted());
        budget.spend(98_000);
        assert_eq!(held(&budget, 9), Some(Priority::Alert));
        budget.spend(1_000);
        assert!(budget.is_exhausted());
        budget.turn(Timestamp::EPOCH.saturating_add(DAY * 10));
        assert!(!budget.is_exhausted() && held(&budget, 10).is_none());
    }

    #[test]
    fn what_an_earlier_period_paid_is_not_given_back_in_this_one() {
        let mut budget = Budget::new(terms(1_000_000, CalendarLength::Days(1), 10), None, Timestamp::EPOCH);
        let attempt = |budget: &mut Budget| {
            budget.spend(5_000);
            budget.note_attempt(5_000);
        };
        attempt(&mut budget);
        budget.refund(4_000);
        budget.refund(1_000);
        assert_eq!(budget.spent, 1_000, "once");
        attempt(&mut budget);
        budget.turn(Timestamp::EPOCH.saturating_add(DAY));
        budget.spend(7_000);
        budget.refund(4_000);
        assert_eq!(budget.spent, 7_000);
    }

    #[test]
    fn a_clock_that_is_set_back_earns_nothing() {
        let terms = terms(1_000_000, CalendarLength::Days(1), 10);
        let now = Timestamp::EPOCH.saturating_add(DAY * 5);
        let mut budget = Budget::new(terms.clone(), None, now);
        let saved = budget.reserve(10_000).unwrap();
        let after = Budget::new(terms.clone(), Some(&saved), Timestamp::EPOCH);
        assert_eq!((after.spent, after.from), (14_096, now));
        let next_day = Budget::new(terms, Some(&saved), now.saturating_add(DAY));
        assert_eq!(next_day.spent, 0);
    }
}
