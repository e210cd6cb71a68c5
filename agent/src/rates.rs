//! How many readings a second the inputs take, for `rtlive status`.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rtlive_core::engine::Ledger;
use rtlive_core::sorted;

/// Over how long the rate is told: long enough for inputs that are polled every few seconds, short enough to show what happens now.
const OVER: Duration = Duration::from_secs(10);

/// How often the counts are looked at; with [`OVER`] it bounds how many looks are kept.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// What the inputs had taken at the newest looks.
#[derive(Clone, Debug, Default)]
pub struct Rates {
    looks: VecDeque<(Instant, BTreeMap<Arc<str>, u64>)>,
}

impl Rates {
    /// Looks at the counts when it is time to. To be called at least every second.
    pub fn look(&mut self, now: Instant, ledger: &Ledger) {
        if self.looks.back().is_some_and(|(at, _)| now.saturating_duration_since(*at) < LOOK_EVERY) {
            return;
        }
        // The oldest look is the newest of those that are old enough.
        while self.looks.get(1).is_some_and(|(at, _)| now.saturating_duration_since(*at) >= OVER) {
            self.looks.pop_front();
        }
        let taken = ledger.inputs.iter().map(|account| (account.input.clone(), account.taken));
        self.looks.push_back((now, sorted::map(taken)));
    }

    /// What each input of the ledger took a second, in its order; `None` where too little time has passed to tell.
    pub fn per_second(&self, now: Instant, ledger: &Ledger) -> Vec<Option<f64>> {
        let of = |input: &Arc<str>, taken: u64| {
            let (at, before) = self.looks.front()?;
            let seconds = now.saturating_duration_since(*at).as_secs_f64();
            let since = taken.checked_sub(*before.get(input)?)?;
            (seconds >= LOOK_EVERY.as_secs_f64()).then(|| since as f64 / seconds)
        };
        ledger.inputs.iter().map(|account| of(&account.input, account.taken)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rtlive_core::engine::InputAccount;

    fn ledger(taken: u64) -> Ledger {
        let account = InputAccount { input: "a".into(), taken, ..InputAccount::default() };
        Ledger { inputs: vec![account], ..Ledger::default() }
    }

    #[test]
    fn a_rate_follows_what_happens_within_its_span() {
        let (mut rates, start) = (Rates::default(), Instant::now());
        assert_eq!(rates.per_second(start, &ledger(0)), [None]);
        let mut taken = 500;
        for second in 0..100_u32 {
            let now = start + Duration::from_secs(second.into());
            rates.look(now, &ledger(taken));
            // A second look at the same instant counts nothing twice.
            rates.look(now, &ledger(taken));
            taken += if second < 50 { 20 } else { 0 };
            let rate = rates.per_second(now + Duration::from_secs(1), &ledger(taken))[0].unwrap();
            match second {
                0..50 => assert_eq!(rate, 20.0, "{second}"),
                61.. => assert_eq!(rate, 0.0, "{second}"),
                _ => assert!(rate < 20.0),
            }
            assert!(rates.looks.len() <= 12);
        }
    }
}
