//! Frames that were delivered are deleted, with a commit and its accounts.

use rtlive_core::plan::StreamId;
use rtlive_core::time::Timestamp;

use super::{Store, StoreError, Touched, accounts};
use crate::message::Commit;

/// An alert does not wait until so many delivered frames, or fewer, are deleted: a later commit does that.
const DELETED_LATER_MAX: usize = 64;

impl Store {
    /// Whether a commit leaves what was delivered to a later one, because somebody waits for what it brings.
    pub(super) fn hurries(&self, commit: &Commit) -> bool {
        self.acknowledged.len() <= DELETED_LATER_MAX
            && commit.records.iter().any(|emitted| emitted.stream == StreamId::ALERTS)
    }

    pub(super) fn delete_acknowledged(&mut self, touched: &mut Touched) -> Result<(), StoreError> {
        if !self.acknowledged.is_empty() {
            self.file.delete_frames(&self.acknowledged)?;
            self.bytes_used = None;
        }
        for sealed in self.acknowledged.iter().filter_map(|id| self.given.get(id)) {
            let account = self.accounts.of_key(&sealed.key);
            let count = sealed.to + 1 - sealed.from;
            accounts::unstore(account, count, sealed.bytes);
            if sealed.is_damaged {
                account.in_gaps += count;
                self.gaps.add(sealed.gap("damaged", None));
                let loss = (sealed.key.stream.clone(), Timestamp::MAX);
                self.told.lose(&loss);
                self.lost_levels.push(loss);
            } else {
                account.acknowledged += count;
            }
            touched.insert(sealed.key.clone());
        }
        Ok(())
    }

    /// Once the transaction that deleted frames is made, nothing more is known of them.
    pub(super) fn settle(&mut self) {
        let gone = std::mem::take(&mut self.acknowledged);
        self.given.retain(|id, _| !gone.contains(id));
        self.tried.retain(|id| !gone.contains(id));
    }
}
