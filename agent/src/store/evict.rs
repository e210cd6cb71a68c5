//! Eviction: frames that wait never take more room than they may.
//!
//! The oldest frames of the lowest priority go first. A frame that is on its way stays, and so do gaps, which speak of what is not there. What goes
//! is deleted in the transaction that writes its gap.

use std::collections::BTreeSet;
use std::path::Path;

use rtlive_core::frame;
use rtlive_core::plan::Priority;
use rtlive_core::record::{Gap, Record};
use rtlive_core::time::Timestamp;

use super::file::Evictable;
use super::{Store, StoreError, Touched};

/// How many bytes the frames that wait may take, and what part of the file system: `store.max_bytes` where nothing is configured.
const STORED_BYTES_MAX: u64 = 512 << 20;
const FILE_SYSTEM_PART: u64 = 2;

/// Eviction makes room for this part of the bound at once, so that a full store does not write a gap with every commit.
const ROOM: u64 = 16;

/// The stream that is never evicted.
const GAPS: &str = "gaps";

/// How many bytes the frames that wait may take in a folder.
pub(super) fn bytes_max(folder: &Path) -> u64 {
    // A file system that does not tell its size bounds nothing.
    let size = rustix::fs::statvfs(folder).map_or(u64::MAX, |system| system.f_blocks.saturating_mul(system.f_frsize));
    STORED_BYTES_MAX.min(size / FILE_SYSTEM_PART)
}

impl Store {
    /// Bounds the bytes of the frames that wait.
    pub fn set_bytes_max(&mut self, bytes: u64) {
        self.bytes_max = bytes;
    }

    /// Evicts frames when they take more room than they may.
    pub(super) fn evict(&mut self, touched: &mut Touched) -> Result<(), StoreError> {
        let mut bytes = self.accounts.stored_bytes();
        if bytes <= self.bytes_max {
            return Ok(());
        }
        let bytes_kept = self.bytes_max - self.bytes_max / ROOM;
        let mut gone = BTreeSet::new();
        let mut gaps: Vec<Gap> = Vec::new();
        for priority in [Priority::Bulk, Priority::Live, Priority::Alert] {
            let Self { file, given, acknowledged, accounts, tried, .. } = &mut *self;
            file.each_frame(priority, |found: Evictable<'_>| {
                let Evictable { id, sealed, bytes: frame } = found;
                if bytes <= bytes_kept {
                    return false;
                }
                if given.contains_key(&id) || acknowledged.contains(&id) || &*sealed.key.stream == GAPS {
                    return true;
                }
                bytes = bytes.saturating_sub(sealed.bytes);
                let count = sealed.to + 1 - sealed.from;
                let account = accounts.of_key(&sealed.key);
                account.stored = account.stored.saturating_sub(count);
                account.stored_bytes = account.stored_bytes.saturating_sub(sealed.bytes);
                account.in_gaps += count;
                let reason = if tried.remove(&id) { "unconfirmed" } else { "evicted" };
                let span = frame::read_header(frame).ok().and_then(|(header, _)| header.span);
                merge(&mut gaps, sealed.gap_of(reason, span));
                touched.insert(sealed.key);
                gone.insert(id);
                true
            })?;
        }
        if gone.is_empty() {
            return Ok(());
        }
        self.file.delete_frames(&gone)?;
        tracing::warn!(frames = gone.len(), "the store is full: the oldest frames of the lowest priority go");
        self.gaps.extend(gaps.into_iter().map(Record::Gap));
        Ok(())
    }
}

/// Adds a gap, or makes the one before longer that it continues.
fn merge(gaps: &mut Vec<Gap>, gap: Gap) {
    let continued = gaps.iter_mut().rev().find(|known| {
        let same = (&known.stream, known.epoch, &known.class, &known.reason)
            == (&gap.stream, gap.epoch, &gap.class, &gap.reason);
        same && known.to.checked_add(1) == Some(gap.from)
    });
    match continued {
        Some(known) => {
            known.to = gap.to;
            let both = |pick: fn(Timestamp, Timestamp) -> Timestamp, a: Option<Timestamp>, b| Some(pick(a?, b?));
            known.start = both(Ord::min, known.start, gap.start);
            known.end = both(Ord::max, known.end, gap.end);
        }
        None => gaps.push(gap),
    }
}
