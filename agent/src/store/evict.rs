//! Eviction: what waits never takes more room than it may, and does not wait for longer than it may.
//!
//! What has waited too long goes first, then what a stream has beyond its own bound, then what a coarser level of a ladder tells (the finest and oldest
//! first), then the oldest frames of the lowest priority. A frame that is on its way stays, and so do gaps, which speak of what is not there, up to
//! [`GAPS_PART`] of the bound. What goes is deleted in the transaction that writes its gap.
//!
//! The bound is that of the disk: the file with its free pages, the log, and files that were set aside. Frames are what can go; journal and
//! snapshots are bounded by the engine's state.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rtlive_core::plan::{Order, Plan, Priority, StreamId};
use rtlive_core::record::Gap;
use rtlive_core::sorted;
use rtlive_core::time::Timestamp;

use super::cover::{by_fineness, is_coarser};
use super::frames::Evictable;
use super::{Store, StoreError, Touched, accounts};
use crate::message::{Bounds, FrameId};

/// What part of the file system the store takes at most.
const FILE_SYSTEM_PART: u64 = 2;

/// Eviction makes room for this part of a bound at once, so that a full store does not write a gap with every commit.
const ROOM: u64 = 16;

/// How many bytes of frames one commit removes for each reason, or twice what it may add: a commit must not wait for a lowered bound or for a backlog that
/// is too old. What is left goes with the next ones.
const REMOVED_AT_ONCE_MAX: u64 = 4 << 20;

/// The log may take this part of the bound.
const LOG_PART: u64 = 4;

/// What tells of losses and of epochs may take this part of the bound in frames; beyond, the oldest of it goes, and a gap says so. A boot without a
/// link leaves some 200 bytes, and as many for each stream of which something had to go: a store of 1 MiB tells of the last few hundred boots.
const GAPS_PART: u64 = 8;

/// How often the store looks for what has waited too long.
const EXPIRE_EVERY: Duration = Duration::from_secs(60);

/// A clock that jumps must not empty the store: when it went back, or on by more than this, ages count only after it ran on for
/// [`STEADY_FOR`].
const STEP_MAX: Duration = Duration::from_secs(86_400);
const STEADY_FOR: Duration = Duration::from_secs(3_600);

/// 2024-01-01: no program of this kind ran before.
const EARLIEST: Timestamp = Timestamp::from_nanos(1_704_067_200_000_000_000);

/// The stream that tells of gaps.
pub(super) const GAPS: &str = "gaps";

/// Which frames are looked through for those that are to go, and why they go.
struct Removing<'a> {
    plan: &'a Plan,
    priority: Priority,
    /// The streams of which the newest go.
    newest: &'a BTreeSet<Arc<str>>,
    reason: &'a str,
    /// Whether only those go that a coarser level of a ladder covers.
    only_covered: bool,
    /// Whether frames of gaps may go.
    also_gaps: bool,
}

/// The bound, or what the file system of a folder allows.
pub(super) fn bytes_max(folder: &Path, bytes: u64) -> u64 {
    // A file system that does not tell its size bounds nothing.
    let size = rustix::fs::statvfs(folder).map_or(u64::MAX, |system| system.f_blocks.saturating_mul(system.f_frsize));
    bytes.min(size / FILE_SYSTEM_PART)
}

impl Store {
    /// Bounds the store in the folder where it lies.
    ///
    /// # Errors
    /// What SQLite said.
    pub fn bound(&mut self, bounds: Bounds) -> Result<(), StoreError> {
        let bytes = bytes_max(self.file.folder(), bounds.bytes);
        self.bounds = Bounds { bytes, ..bounds };
        self.file.bound_log(bytes / LOG_PART)
    }

    /// Bounds the bytes of the frames that wait, beside the bound of the whole.
    pub fn set_bytes_max(&mut self, bytes: u64) {
        self.frame_bytes_max = bytes;
    }

    /// Removes frames that have waited too long, and frames that take more room than they may; says which.
    pub(super) fn evict(
        &mut self,
        plan: &Plan,
        at: Timestamp,
        touched: &mut Touched,
    ) -> Result<BTreeSet<FrameId>, StoreError> {
        let mut removed = BTreeSet::new();
        let at_once = self.removed_at_once_max();
        self.expire(plan, at, &mut removed, touched)?;
        let newest = plan.streams.iter().filter(|stream| stream.evict == Order::Newest);
        let newest = sorted::set(newest.map(|stream| stream.name.clone()));
        let (reason, only_covered, also_gaps) = ("evicted", false, false);
        let of = |priority| Removing { plan, priority, newest: &newest, reason, only_covered, also_gaps };
        let excess = beyond(self.accounts.stored_bytes_of(GAPS), self.bounds.bytes / GAPS_PART).min(at_once);
        if excess > 0 {
            let priority = plan.streams.get(StreamId::GAPS.index()).map_or(Priority::Alert, |stream| stream.priority);
            let of = Removing { also_gaps: true, ..of(priority) };
            self.remove(&of, &mut removed, touched, |found, removed| {
                (removed < excess).then_some(*found.sealed.key.stream == *GAPS)
            })?;
        }
        for stream in &plan.streams {
            let Some(max) = stream.bytes_max else { continue };
            let stored = self.accounts.of_stream(stream).stored_bytes;
            let excess = beyond(stored, max).min(at_once);
            if excess > 0 {
                self.remove(&of(stream.priority), &mut removed, touched, |found, removed| {
                    (removed < excess).then_some(*found.sealed.key.stream == *stream.name)
                })?;
            }
        }
        let mut excess = self.excess()?.min(at_once);
        for streams in by_fineness(plan) {
            for priority in [Priority::Bulk, Priority::Live, Priority::Alert] {
                if excess == 0 {
                    break;
                }
                let of = Removing { newest: &BTreeSet::new(), only_covered: true, ..of(priority) };
                let gone = self.remove(&of, &mut removed, touched, |found, removed| {
                    (removed < excess).then(|| streams.contains(&found.sealed.key.stream))
                })?;
                excess = excess.saturating_sub(gone);
            }
        }
        for priority in [Priority::Bulk, Priority::Live, Priority::Alert] {
            if excess == 0 {
                break;
            }
            let removed =
                self.remove(&of(priority), &mut removed, touched, |_, removed| (removed < excess).then_some(true))?;
            excess = excess.saturating_sub(removed);
        }
        if !removed.is_empty() {
            self.file.delete_frames(&removed)?;
            self.bytes_used = None;
        }
        Ok(removed)
    }

    fn removed_at_once_max(&self) -> u64 {
        REMOVED_AT_ONCE_MAX.max(2 * self.growth_max)
    }

    /// The part of the file that is in use, in bytes. SQLite is asked only after it changed: that takes as long as to write a small row.
    pub(super) fn bytes_used(&mut self) -> Result<u64, StoreError> {
        match self.bytes_used {
            Some(bytes) => Ok(bytes),
            None => Ok(*self.bytes_used.insert(self.file.bytes_used()?)),
        }
    }

    /// How many bytes of frames must go.
    fn excess(&mut self) -> Result<u64, StoreError> {
        let frames = beyond(self.accounts.stored_bytes(), self.frame_bytes_max);
        let used = self.bytes_used()?;
        let room =
            self.bounds.bytes.saturating_sub(self.bounds.bytes / LOG_PART).saturating_sub(self.file.bytes_beside());
        // The largest commit so far may come again, and that before this one's room is free.
        let grows = (2 * self.growth_max).min(room / 8);
        let pages = beyond(used, room - grows);
        Ok(frames.max(pages.min(self.accounts.stored_bytes())))
    }

    fn expire(
        &mut self,
        plan: &Plan,
        at: Timestamp,
        gone: &mut BTreeSet<FrameId>,
        touched: &mut Touched,
    ) -> Result<(), StoreError> {
        let since_look = self.looked_for_expired_at.map(|before| (before, at.since(before)));
        match since_look {
            Some((before, step)) if at >= before && step < EXPIRE_EVERY => return Ok(()),
            Some((before, step)) if at >= before && step <= STEP_MAX => {}
            _ => self.steady_since = at,
        }
        self.looked_for_expired_at = Some(at);
        // Someone may have taken away what was set aside.
        self.file.look_beside();
        if at.since(self.steady_since) < STEADY_FOR {
            return Ok(());
        }
        let age_of = |stream: &str| {
            let own = plan.streams.iter().find(|known| *known.name == *stream).and_then(|stream| stream.age_max);
            own.map_or(self.bounds.age, |own| own.min(self.bounds.age))
        };
        let ages = sorted::map(plan.streams.iter().map(|stream| (stream.name.clone(), age_of(&stream.name))));
        let at_once = self.removed_at_once_max();
        let (all, least) = (self.bounds.age, ages.values().min().copied().unwrap_or(self.bounds.age));
        for priority in [Priority::Bulk, Priority::Live, Priority::Alert] {
            let (newest, reason) = (&BTreeSet::new(), "expired");
            let of = Removing { plan, priority, newest, reason, only_covered: false, also_gaps: false };
            let removed = self.remove(&of, gone, touched, |found, removed| {
                if removed >= at_once {
                    return None;
                }
                // What a clock that was never set has stamped has no age.
                let is_known = found.committed_at >= EARLIEST;
                let age = if is_known { at.since(found.committed_at) } else { Duration::ZERO };
                (!is_known || age >= least).then(|| age >= ages.get(&found.sealed.key.stream).copied().unwrap_or(all))
            })?;
            if removed >= at_once {
                // The next commit goes on.
                self.looked_for_expired_at = Some(at.saturating_sub(EXPIRE_EVERY));
                break;
            }
        }
        Ok(())
    }

    /// Removes frames of a priority that `choose` wants until it has seen enough: the oldest first, and then, the newest first, those of the streams of
    /// which the `newest` go. It is told how many bytes went so far.
    fn remove(
        &mut self,
        Removing { plan, priority, newest, reason, only_covered, also_gaps }: &Removing<'_>,
        gone: &mut BTreeSet<FrameId>,
        touched: &mut Touched,
        mut choose: impl FnMut(&Evictable<'_, '_>, u64) -> Option<bool>,
    ) -> Result<u64, StoreError> {
        let (mut removed, mut frames) = (0, 0_u64);
        let Self { file, given, acknowledged, accounts, tried, gaps, told, lost_levels, series_places, .. } =
            &mut *self;
        let mut look = |found: Evictable<'_, '_>, order| {
            if newest.contains(&found.sealed.key.stream) != (order == Order::Newest) {
                return Ok(true);
            }
            let Some(is_chosen) = choose(&found, removed) else { return Ok(false) };
            let id = found.id;
            let is_on_its_way = given.contains_key(&id) || acknowledged.contains(&id);
            let stays = is_on_its_way || (!also_gaps && &*found.sealed.key.stream == GAPS);
            if !is_chosen || stays || gone.contains(&id) {
                return Ok(true);
            }
            let covered_by = told.cover(plan, series_places, &found.sealed.key.stream, || found.bytes().ok());
            if *only_covered && covered_by.is_none() {
                return Ok(true);
            }
            gone.insert(id);
            let span = found.span()?;
            let sealed = found.sealed;
            removed += sealed.bytes;
            frames += 1;
            let count = sealed.to + 1 - sealed.from;
            let account = accounts.of_key(&sealed.key);
            accounts::unstore(account, count, sealed.bytes);
            account.in_gaps += count;
            let reason = if tried.contains(&id) { "unconfirmed" } else { reason };
            gaps.add(Gap { covered_by, ..sealed.gap(reason, span) });
            let loss = (sealed.key.stream.clone(), span.map_or(Timestamp::MAX, |(_, end)| end));
            told.lose(&loss);
            match lost_levels.iter_mut().find(|(stream, _)| *stream == loss.0) {
                Some((_, to)) => *to = loss.1.max(*to),
                None if is_coarser(plan, &loss.0) => lost_levels.push(loss),
                None => {}
            }
            touched.insert(sealed.key);
            Ok(true)
        };
        file.each_frame(*priority, Order::Oldest, |found| look(found, Order::Oldest))?;
        if !newest.is_empty() {
            file.each_frame(*priority, Order::Newest, |found| look(found, Order::Newest))?;
        }
        if frames > 0 {
            tracing::warn!(frames, bytes = removed, reason, "frames go that were not delivered");
        }
        Ok(removed)
    }
}

/// How much must go of what is beyond its bound, so that there is room again.
fn beyond(taken: u64, max: u64) -> u64 {
    if taken <= max { 0 } else { taken - (max - max / ROOM) }
}
