//! What is missing without a trace: frames that the accounts count and the file does not have.
//!
//! A card that says that it synced, and did not, may leave a file after a cut that is sound to SQLite, and whose pages are of different ages: nothing
//! in it says which of them are right. To compare every frame with the accounts would hold up each start behind a long backlog. It costs nothing at
//! the moment at which all that there is has been given out. What is missing then is in a gap that says how many records of the epoch before are
//! meant, and not which; and one that arrived overrides it.

use std::collections::BTreeMap;

use rtlive_core::journal::StreamKey;
use rtlive_core::record::Gap;

use super::{Store, Touched, accounts};

/// Records that are counted and not there.
#[derive(Debug)]
pub(super) struct Missing {
    key: StreamKey,
    records: u64,
    bytes: u64,
    gap: Option<Gap>,
}

impl Store {
    /// Everything that there is was given out: compares it with the accounts, once after an epoch began.
    pub(super) fn look_for_missing(&mut self) {
        let Some((epoch, last)) = self.before.take() else { return };
        let mut there: BTreeMap<StreamKey, (u64, u64)> = BTreeMap::new();
        for sealed in self.given.values() {
            let (records, bytes) = there.entry(sealed.key.clone()).or_default();
            *records += sealed.to + 1 - sealed.from;
            *bytes += sealed.bytes;
        }
        for id in self.tails.streams() {
            if let Some(stream) = self.plan.as_ref().and_then(|plan| plan.streams.get(id.index())) {
                there.entry(accounts::key(stream)).or_default().0 += self.tails.count(id);
            }
        }
        for (key, account) in self.accounts.iter_mut() {
            let (records, bytes) = there.get(key).copied().unwrap_or_default();
            let records = account.stored.saturating_sub(records);
            if records == 0 {
                continue;
            }
            tracing::error!(
                stream = &*key.stream,
                records,
                "records were committed and are not there: the disk lost them"
            );
            let known = last.iter().find(|(stream, class, _)| (stream, class) == (&key.stream, &key.class));
            let gap = known.map(|(stream, class, last)| Gap {
                stream: stream.clone(),
                epoch: Some(epoch),
                class: Some(class.clone()),
                from: 1,
                to: *last,
                count: (records < *last).then_some(records),
                start: None,
                end: None,
                reason: "damaged".into(),
                covered_by: None,
            });
            let bytes = account.stored_bytes.saturating_sub(bytes);
            self.missing.push(Missing { key: key.clone(), records, bytes, gap });
        }
    }

    /// What is missing is stored no longer, and its gaps wait.
    pub(super) fn give_up_missing(&mut self, touched: &mut Touched) {
        for Missing { key, records, bytes, gap } in std::mem::take(&mut self.missing) {
            let account = self.accounts.of_key(&key);
            accounts::unstore(account, records, bytes);
            account.in_gaps += records;
            gap.into_iter().for_each(|gap| self.gaps.add(gap));
            self.told.lose(&(key.stream.clone(), rtlive_core::time::Timestamp::MAX));
            touched.insert(key);
        }
    }
}
