//! The accounts of all streams, while the store is open.

use std::collections::BTreeMap;
use std::sync::Arc;

use rtlive_core::journal::{Account, StreamKey};
use rtlive_core::plan::StreamPlan;
use rtlive_core::sorted;
use rtlive_core::time::Timestamp;

use super::Touched;
use crate::message::StreamAccount;

/// The accounts of all streams.
#[derive(Clone, Debug, Default)]
pub(super) struct Accounts(BTreeMap<StreamKey, Account>);

/// Records of a frame are stored no longer. Where fewer were counted than are there, because a card had lied about its syncs and the file is of
/// different ages, the others had been numbered too.
pub(super) fn unstore(account: &mut Account, records: u64, bytes: u64) {
    account.numbered += records.saturating_sub(account.stored);
    account.stored = account.stored.saturating_sub(records);
    account.stored_bytes = account.stored_bytes.saturating_sub(bytes);
}

/// What a stream is numbered under.
pub(super) fn key(stream: &StreamPlan) -> StreamKey {
    StreamKey { stream: stream.name.clone(), class: stream.class.clone() }
}

impl Accounts {
    pub(super) fn of(accounts: Vec<(StreamKey, Account)>) -> Self {
        Self(sorted::map(accounts))
    }

    /// Takes the accounts of a chunk, which are newer.
    pub(super) fn apply(&mut self, accounts: &[(StreamKey, Account)]) {
        self.0.extend(accounts.iter().cloned());
    }

    pub(super) fn of_key(&mut self, key: &StreamKey) -> &mut Account {
        self.0.entry(key.clone()).or_default()
    }

    pub(super) fn of_stream(&mut self, stream: &StreamPlan) -> &mut Account {
        self.0.entry(key(stream)).or_default()
    }

    /// The bytes of all stored frames.
    pub(super) fn stored_bytes(&self) -> u64 {
        self.0.values().map(|account| account.stored_bytes).sum()
    }

    /// The bytes of the stored frames of a stream.
    pub(super) fn stored_bytes_of(&self, stream: &str) -> u64 {
        self.0.iter().filter(|(key, _)| &*key.stream == stream).map(|(_, account)| account.stored_bytes).sum()
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = (&StreamKey, &mut Account)> {
        self.0.iter_mut()
    }

    pub(super) fn all(&self) -> Vec<(StreamKey, Account)> {
        self.0.iter().map(|(key, account)| (key.clone(), *account)).collect()
    }

    pub(super) fn named(&self, keys: &Touched) -> Vec<(StreamKey, Account)> {
        keys.iter().filter_map(|key| Some((key.clone(), *self.0.get(key)?))).collect()
    }

    /// The last number of every stream that has one in this epoch.
    pub(super) fn last_numbers(&self) -> Vec<(Arc<str>, Arc<str>, u64)> {
        let numbered = self.0.iter().filter(|(_, account)| account.next > 1);
        numbered.map(|(key, account)| (key.stream.clone(), key.class.clone(), account.next - 1)).collect()
    }

    /// Numbers start anew; sums over all epochs go on.
    pub(super) fn begin_epoch(&mut self) -> Vec<StreamKey> {
        for account in self.0.values_mut() {
            account.next = 1;
            account.sealed_to = 0;
        }
        self.0.keys().cloned().collect()
    }

    /// Adds what another store counted, in an epoch of its own.
    pub(super) fn add(&mut self, accounts: Vec<(StreamKey, Account)>) -> Vec<StreamKey> {
        let add = |(key, other): (StreamKey, Account)| {
            let account = self.0.entry(key.clone()).or_default();
            account.numbered += other.numbered;
            account.acknowledged += other.acknowledged;
            account.stored += other.stored;
            account.in_gaps += other.in_gaps;
            account.stored_bytes += other.stored_bytes;
            key
        };
        accounts.into_iter().map(add).collect()
    }

    pub(super) fn status(&self, oldest: &BTreeMap<StreamKey, Timestamp>) -> BTreeMap<StreamKey, StreamAccount> {
        let status = |(key, account): (&StreamKey, &Account)| {
            let Account { numbered, acknowledged, stored, in_gaps, stored_bytes, .. } = *account;
            let oldest = oldest.get(key).copied();
            (key.clone(), StreamAccount { numbered, acknowledged, stored, in_gaps, stored_bytes, oldest })
        };
        sorted::map(self.0.iter().map(status))
    }
}
