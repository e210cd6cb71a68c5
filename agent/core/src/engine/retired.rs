//! What is remembered of series that a window no longer takes: up to where its windows were emitted.
//!
//! A reload can bring a window, a selection or an input back. Its windows then begin behind those that were emitted, so that no
//! revision is told twice; what lies before is late.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::reading::SeriesId;
use crate::sorted;
use crate::time::Timestamp;

/// The most series of windows that are remembered, 20 bytes each in a snapshot: a gateway's series are all of them taken out of several windows
/// before that. Beyond it those are forgotten that ended longest ago.
pub const RETIRED_MAX: usize = 50_000;

/// The least start of a window that was never emitted, by the window's name and series.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Retired(BTreeMap<Arc<str>, BTreeMap<SeriesId, Timestamp>>);

impl Retired {
    /// Remembers a series that a window no longer takes.
    pub(super) fn remember(&mut self, window: &Arc<str>, series: SeriesId, floor: Timestamp) {
        if floor > Timestamp::MIN {
            self.0.entry(Arc::clone(window)).or_default().insert(series, floor);
        }
    }

    /// Where windows of a series begin that the window takes again, or for the first time.
    pub(super) fn take(&mut self, window: &str, series: SeriesId) -> Timestamp {
        self.0.get_mut(window).and_then(|floors| floors.remove(&series)).unwrap_or(Timestamp::MIN)
    }

    /// Forgets what is beyond the bound.
    pub(super) fn bound(&mut self) {
        self.0.retain(|_, floors| !floors.is_empty());
        let mut floors: Vec<Timestamp> = self.0.values().flat_map(BTreeMap::values).copied().collect();
        if let Some(over) = floors.len().checked_sub(RETIRED_MAX).filter(|&over| over > 0) {
            sorted::by(&mut floors, Ord::cmp);
            let least = floors.get(over).copied().unwrap_or(Timestamp::MAX);
            self.0.values_mut().for_each(|floors| floors.retain(|_, floor| *floor >= least));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forgets_the_oldest_first() {
        let mut retired = Retired::default();
        for series in 0..RETIRED_MAX as u32 + 3 {
            retired.remember(&"w".into(), SeriesId(series), Timestamp::from_nanos(1 + i64::from(series)));
        }
        retired.bound();
        assert_eq!(retired.take("w", SeriesId(2)), Timestamp::MIN);
        assert_eq!(retired.take("w", SeriesId(3)), Timestamp::from_nanos(4));
        assert_eq!(retired.take("w", SeriesId(3)), Timestamp::MIN);
    }
}
