//! The ledger: what became of everything that was taken. It closes after every event (docs/architecture.md, "What must stay true").

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// No count of a gateway's life comes near: 1,000 centuries at a million readings a second.
pub(super) const COUNT_MAX: u64 = 1 << 62;

/// The accounts of all inputs, windows and streams that leave something out, in the order of the plan.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ledger {
    /// One for each input.
    pub inputs: Vec<InputAccount>,
    /// One for each window stream.
    pub windows: Vec<WindowAccount>,
    /// One for each stream of readings that leaves something out.
    pub reports: Vec<ReportAccount>,
}

/// What became of what an input took: `taken = accepted + dropped + provisional`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct InputAccount {
    /// The input's name.
    pub input: Arc<str>,
    /// Everything: readings, and what could not be made one.
    pub taken: u64,
    /// Readings that went on, those below included.
    pub accepted: u64,
    /// What went no further, by reason.
    pub dropped: BTreeMap<Arc<str>, u64>,
    /// Accepted, bad: in raw streams, not in aggregates.
    pub bad: u64,
    /// Accepted, too far ahead of their arrival: in the stream `quarantine` alone.
    pub quarantined: u64,
    /// Accepted, too late for at least one window: in the stream `late` too.
    pub late: u64,
    /// Accepted, at a time that nobody will know: in the stream `unsynced` alone.
    pub unsynced: u64,
    /// Readings that wait for the clock, and are not accepted yet.
    pub provisional: u64,
}

/// What became of the readings that a window selects, each counted once for this window: `selected = open + finished + late`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct WindowAccount {
    /// The name of the window and its stream.
    pub window: Arc<str>,
    /// Readings that were accepted, are selected, and neither bad, quarantined nor of an unknown time; each as often as there are
    /// sliding windows that it lies in.
    pub selected: u64,
    /// In windows whose end the watermark has not passed; early results of them do not count.
    pub open: u64,
    /// In the newest revisions of windows whose end the watermark has passed, or that a reload or a bound ended.
    pub finished: u64,
    /// Too late.
    pub late: u64,
    /// Of `finished` and `open`: those that came after the watermark had passed the window's end, within the lateness.
    pub revising: u64,
    /// How many windows were ended early because too many were open.
    pub crowded: u64,
    /// How many sessions began because the one before would have been longer than `longest`.
    pub cut: u64,
    /// Of `finished` and `open`: those that came too late for the functions that need order, which leave them out.
    pub unordered: u64,
}

/// What became of the readings that a stream with a deadband or `on_change` selects: `selected = reported + suppressed`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReportAccount {
    /// The name of the stream.
    pub stream: Arc<str>,
    /// Readings that were accepted, are selected, and not quarantined.
    pub selected: u64,
    /// Those that told something new: records of the stream.
    pub reported: u64,
    /// The others.
    pub suppressed: u64,
}

/// An account that does not close: a defect of the program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Imbalance {
    /// `input`, `window` or `stream`.
    pub account: &'static str,
    /// Its name.
    pub name: Arc<str>,
    /// What went in.
    pub left: u64,
    /// What it became.
    pub right: u64,
}

impl fmt::Display for Imbalance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { account, name, left, right } = self;
        write!(f, "the account of {account} {name} does not close: {left} went in, {right} are accounted for")
    }
}

impl Ledger {
    /// The first account that does not close.
    pub fn check(&self) -> Option<Imbalance> {
        let inputs = self.inputs.iter().map(|account| {
            let dropped = account.dropped.values().copied().fold(0, u64::saturating_add);
            (
                "input",
                &account.input,
                account.taken,
                account.accepted.saturating_add(dropped).saturating_add(account.provisional),
            )
        });
        let windows = self.windows.iter().map(|account| {
            let right = account.open.saturating_add(account.finished).saturating_add(account.late);
            ("window", &account.window, account.selected, right)
        });
        let reports = self.reports.iter().map(|account| {
            ("stream", &account.stream, account.selected, account.reported.saturating_add(account.suppressed))
        });
        inputs
            .chain(windows)
            .chain(reports)
            .find(|(_, _, left, right)| left != right)
            .map(|(account, name, left, right)| Imbalance { account, name: name.clone(), left, right })
    }
}

impl Ledger {
    /// Whether it can have been counted: it closes, and no count is near the end of its range. For a ledger from outside.
    pub(super) fn is_sound(&self) -> bool {
        let inputs = self.inputs.iter().flat_map(|account| {
            [account.taken, account.accepted, account.bad, account.quarantined, account.late, account.unsynced]
        });
        let windows = self.windows.iter().flat_map(|of| [of.selected, of.revising, of.crowded, of.cut, of.unordered]);
        let reports = self.reports.iter().map(|account| account.selected);
        self.check().is_none() && inputs.chain(windows).chain(reports).all(|count| count <= COUNT_MAX)
    }
}

impl InputAccount {
    /// Counts what went no further.
    pub(super) fn drop(&mut self, reason: &str, count: u64) {
        if let Some(dropped) = self.dropped.get_mut(reason) {
            *dropped += count;
        } else {
            self.dropped.insert(reason.into(), count);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_the_account_that_does_not_close() {
        let mut account = InputAccount { input: "a".into(), taken: 3, accepted: 2, ..InputAccount::default() };
        account.drop("checksum", 1);
        let window = WindowAccount { window: "w".into(), selected: 2, open: 1, ..WindowAccount::default() };
        let mut ledger = Ledger { inputs: vec![account], windows: vec![window], ..Ledger::default() };
        let imbalance = ledger.check().unwrap();
        assert_eq!(imbalance.to_string(), "the account of window w does not close: 2 went in, 1 are accounted for");
        ledger.windows[0].late = 1;
        assert_eq!(ledger.check(), None);
        ledger.inputs[0].taken = 4;
        assert!(ledger.check().is_some());
    }
}
