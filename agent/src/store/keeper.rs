//! Keeps the store going: on the disk while that can be written, in memory while it cannot.
//!
//! - After an error the file is opened again. What stands in it is what counts: a commit that stands is not made twice, one that does not is made
//!   again. So it is where file or log were moved or deleted in use.
//! - A disk that is full first gives up its [reserve], and the store keeps within what it has.
//! - When even that fails, what is committed goes to a store in memory, with an epoch of its own that is never continued. Its frames are sent like
//!   others; beyond [`MEMORY_BYTES_MAX`] the oldest go, with gaps. Inputs that can be asked again are held meanwhile.
//! - Every [`RETRY_EVERY`] the disk is tried with the next commit that brings a snapshot. When it takes that commit, it takes with it all that memory
//!   still holds, in the same transaction and under the same numbers.
//! - A disk of which something cannot be read has a way of its own: [unreadable](super::unreadable).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use rtlive_core::reading::SeriesInfo;
use rtlive_core::record::Emitted;
use rtlive_core::time::Timestamp;
use rtlive_drivers::input::told;

use super::lock::Lock;
use super::seal::Sealed;
use super::unreadable::{Answer, Unreadable};
use super::{Boot, FILE_NAME, Look, Options, Recovered, Store, StoreError, evict, replace, reserve};
use crate::message::{
    Bounds, Commit, Committed, FrameId, KeptChange, LinkHint, MemoryStatus, Snapshot, StoreStatus, Wanted,
};
use crate::recovery;
use crate::stage::Kept;

/// How many bytes of frames may wait in memory: an hour of a hundred readings a second, on a gateway that has memory for little else.
pub const MEMORY_BYTES_MAX: u64 = 8 << 20;

/// Frames in memory are this part of the disk's bound at most, as the disk takes all of them in one transaction.
const MEMORY_PART: u64 = 8;

/// How often a disk that failed is tried again.
pub const RETRY_EVERY: Duration = Duration::from_secs(10);

/// Why an epoch began: in memory, and on the disk again.
const MEMORY: &str = "memory";
pub(super) const AFTER_MEMORY: &str = "after_memory";

/// Frames in memory leave these ids to the tails that wait on the disk, and are sealed when it can be written again.
const IDS_FOR_TAILS: i64 = 1 << 32;

/// A tight store keeps within what it has but for this part, so that each error makes some room.
const TIGHTER: u64 = 16;

/// The store, on the disk or in memory. See the module's documentation.
pub struct Keeper {
    options: Options,
    boot: Boot,
    lock: Arc<Lock>,
    store: Store,
    /// Present while the store is in memory.
    memory: Option<Memory>,
    /// When the disk's reserve is made again, where it was given up.
    reserve_at: Option<Timestamp>,
    unreadable: Unreadable,
    /// Now, as of the last call that told it.
    now: Timestamp,
}

/// What is known of the disk while the store is in memory.
struct Memory {
    status: MemoryStatus,
    /// Whether nothing of the disk's store is known, because it could not be opened at the start.
    is_from_start: bool,
    /// The last ids of frames on the disk, which must not be used again for others: the frames may be on their way.
    last_ids: [i64; 3],
    /// The frames of the disk that were given out before, and those of them that arrived since.
    given: BTreeMap<FrameId, Sealed>,
    acknowledged: BTreeSet<FrameId>,
    /// A commit that may stand on the disk, and the number that it would have there. It goes to the disk, if it does not stand, and not to memory, from
    /// where it might arrive twice.
    doubtful: Option<(u64, Commit)>,
}

impl Keeper {
    /// Opens the store on the disk, or begins in memory. [`Keeper::resume`] or [`Keeper::set_replay_aside`] must follow where a snapshot was
    /// recovered.
    ///
    /// # Errors
    /// Another agent holds the folder.
    pub fn open(options: &Options, boot: Boot) -> Result<(Self, Recovered), StoreError> {
        let lock = Arc::new(Lock::take(&options.state_dir)?);
        let mut opened = Store::open_locked(options, boot.clone(), lock.clone());
        if opened.as_ref().is_err_and(StoreError::is_full) && reserve::give_up(&options.state_dir) {
            opened = Store::open_locked(options, boot.clone(), lock.clone());
        }
        let now = boot.now;
        let (error, (store, recovered)) = match opened {
            Ok(opened) => (None, opened),
            Err(error) => {
                let recovered = Recovered { last_commit_at: Some(now), ..Recovered::default() };
                (Some(error), (Store::in_memory(boot.clone(), lock.clone())?, recovered))
            }
        };
        let options = options.clone();
        let unreadable = Unreadable::default();
        let mut keeper = Self { options, boot, lock, store, memory: None, reserve_at: None, unreadable, now };
        match error {
            Some(error) => {
                let pause = keeper.pause_after(&error);
                keeper.enter_memory(&error, pause, true)?;
            }
            None => keeper.make_reserve(),
        }
        Ok((keeper, recovered))
    }

    /// See [`Store::resume`].
    ///
    /// # Errors
    /// None that the disk is the cause of: then the store goes on in memory.
    pub fn resume(&mut self, series: Vec<SeriesInfo>, emitted: Vec<Vec<Emitted>>) -> Result<(), StoreError> {
        let resumed = self.store.resume(series, emitted);
        self.or_in_memory(resumed)
    }

    /// See [`Store::set_replay_aside`].
    ///
    /// # Errors
    /// As [`Keeper::resume`].
    pub fn set_replay_aside(&mut self) -> Result<(), StoreError> {
        let set_aside = self.store.set_replay_aside();
        self.or_in_memory(set_aside)
    }

    fn or_in_memory(&mut self, result: Result<(), StoreError>) -> Result<(), StoreError> {
        match result {
            Err(error) if error.is_of_the_disk() => {
                let pause = self.pause_after(&error);
                self.enter_memory(&error, pause, false)
            }
            // What the start has read so far may be whole while what it reads now is not.
            Err(error) if error.is_damage() => self.fail_over(error, None).map(drop),
            result => result,
        }
    }

    /// Whether what is committed now goes to memory, and inputs that can be asked again are to be held.
    pub fn is_in_memory(&self) -> bool {
        self.memory.is_some()
    }

    /// Makes an instant durable, or as durable as can be: [`Committed::is_durable`] says which.
    ///
    /// # Errors
    /// What cannot be helped by another disk.
    pub fn commit(&mut self, mut commit: Commit) -> Result<Committed, StoreError> {
        self.follow(commit.at);
        let is_due = |memory: &Memory| commit.snapshot.is_some() && memory.status.retry_at <= commit.at;
        if self.memory.as_ref().is_some_and(is_due) {
            match self.leave_memory(&mut commit) {
                Ok(committed) => return Ok(committed),
                Err(error) => self.stay_in_memory(&error),
            }
        }
        self.renew_reserve();
        match self.store.write(&mut commit, false) {
            Ok(committed) => Ok(self.told(committed)),
            Err(error) => {
                let committed = self.fail_over(error, Some(&mut commit))?;
                committed.ok_or(StoreError::Stopped)
            }
        }
    }

    /// See [`Store::wants_flush`].
    pub fn wants_flush(&mut self, now: Timestamp) -> bool {
        self.follow(now);
        self.store.wants_flush(now)
    }

    /// See [`Store::flush`].
    ///
    /// # Errors
    /// As [`Keeper::commit`].
    pub fn flush(&mut self, now: Timestamp) -> Result<(), StoreError> {
        self.follow(now);
        let flushed = self.store.write(&mut Commit::empty(now), true).map(drop);
        self.or_fail_over(flushed)
    }

    /// Whether anything can be written: the first commit brings the plan.
    pub fn has_plan(&self) -> bool {
        self.store.plan.is_some()
    }

    /// Keeps what is no driver's, in a transaction of its own.
    ///
    /// # Errors
    /// As [`Keeper::commit`].
    pub fn keep(&mut self, change: KeptChange, now: Timestamp) -> Result<(), StoreError> {
        self.now = now;
        let mut commit = Commit { state: vec![change], ..Commit::empty(now) };
        match self.store.write(&mut commit, true) {
            Ok(_) => Ok(()),
            Err(error) => self.fail_over(error, Some(&mut commit)).map(drop),
        }
    }

    /// See [`Store::look_for`].
    ///
    /// # Errors
    /// As [`Keeper::commit`].
    pub fn look_for(&mut self, wanted: &Wanted) -> Result<Look, StoreError> {
        match self.store.look_for(wanted) {
            Err(error) => self.or_fail_over(Err(error)).map(|()| Look::Unfinished),
            look => look,
        }
    }

    /// See [`Store::take`].
    ///
    /// # Errors
    /// As [`Keeper::commit`].
    pub fn take(&mut self, wanted: &Wanted) -> Result<Option<crate::message::StoredFrame>, StoreError> {
        loop {
            match self.look_for(wanted)? {
                Look::Frame(frame) => return Ok(Some(frame)),
                Look::Nothing => return Ok(None),
                Look::Unfinished => {}
            }
        }
    }

    /// See [`Store::vacuum`]. Looks whether the file and its log are still there.
    ///
    /// # Errors
    /// As [`Keeper::commit`].
    pub fn vacuum(&mut self) -> Result<(), StoreError> {
        if !self.store.file.is_in_place() {
            tracing::error!("the store's file or its log was moved or deleted in use: it is opened again");
            // What is in a log that has no name any more goes to the file.
            let reopened = self.store.file.empty_log().and_then(|()| self.reopen(false)).map(drop);
            return self.or_fail_over(reopened);
        }
        let vacuumed = self.store.vacuum().map(drop);
        self.or_fail_over(vacuumed)
    }

    /// See [`Store::acknowledge`].
    pub fn acknowledge(&mut self, ids: &[FrameId]) {
        self.store.acknowledge(ids);
        if let Some(memory) = &mut self.memory {
            memory.acknowledged.extend(ids.iter().filter(|id| memory.given.contains_key(id)));
        }
    }

    /// See [`Store::has_acknowledged`].
    pub fn has_acknowledged(&self) -> bool {
        self.store.has_acknowledged()
    }

    /// See [`Store::give_back`].
    pub fn give_back(&mut self, ids: &[FrameId]) {
        self.store.give_back(ids);
        if let Some(Memory { given, acknowledged, .. }) = &mut self.memory {
            given.retain(|id, _| acknowledged.contains(id) || !ids.contains(id));
        }
    }

    /// See [`Store::requeue`].
    pub fn requeue(&mut self) {
        self.store.requeue();
        if let Some(Memory { given, acknowledged, .. }) = &mut self.memory {
            given.retain(|id, _| acknowledged.contains(id));
        }
    }

    /// See [`Store::hint`].
    pub fn hint(&mut self, hint: LinkHint) {
        self.store.hint(hint);
    }

    /// See [`Store::bound`].
    ///
    /// # Errors
    /// As [`Keeper::commit`].
    pub fn bound(&mut self, bounds: Bounds) -> Result<(), StoreError> {
        self.options.bounds = bounds;
        if self.memory.is_some() {
            self.store.bounds.age = bounds.age;
            return Ok(());
        }
        let bounded = self.store.bound(bounds);
        self.or_fail_over(bounded)?;
        self.make_reserve();
        Ok(())
    }

    /// See [`Store::set_bytes_max`].
    pub fn set_bytes_max(&mut self, bytes: u64) {
        self.store.set_bytes_max(bytes);
    }

    /// See [`Store::status`].
    ///
    /// # Errors
    /// As [`Store::status`].
    pub fn status(&self) -> Result<StoreStatus, StoreError> {
        let memory = self.memory.as_ref().map(|memory| memory.status.clone());
        Ok(StoreStatus { memory, ..self.store.status()? })
    }

    /// What drivers keep, as of the last commit.
    pub fn kept(&self) -> &Kept {
        &self.store.kept
    }

    /// See [`Store::close`]. What is in memory is lost.
    ///
    /// # Errors
    /// As [`Store::close`].
    pub fn close(self) -> Result<(), StoreError> {
        if self.memory.is_some() {
            let lost: u64 = self.store.status()?.streams.values().map(|account| account.stored).sum();
            tracing::error!(records = lost, "the store is in memory, and ends: what was not sent is lost");
        }
        self.store.close()
    }

    fn told(&self, committed: Committed) -> Committed {
        let is_in_memory = self.memory.is_some();
        Committed {
            is_durable: !is_in_memory,
            // Each commit may be the one with which the disk can be used again.
            wants_snapshot: committed.wants_snapshot || is_in_memory,
            ..committed
        }
    }

    fn or_fail_over(&mut self, result: Result<(), StoreError>) -> Result<(), StoreError> {
        match result {
            Ok(()) => Ok(()),
            Err(error) => self.fail_over(error, None).map(drop),
        }
    }

    /// After an error: goes on with the file, if it can be used again, and else in memory. Answers the commit, where one was under way.
    fn fail_over(&mut self, error: StoreError, commit: Option<&mut Commit>) -> Result<Option<Committed>, StoreError> {
        if self.memory.is_some() || !(error.is_of_the_disk() || error.is_damage()) {
            return Err(error);
        }
        tracing::error!("the store failed: {}", told(&error));
        self.store.file.condemn_for(&error);
        let (attempted, is_doubtful) = (self.store.last_number + 1, error.is_doubtful());
        let tight = error.is_full() && reserve::give_up(&self.options.state_dir);
        if tight {
            tracing::error!("the disk is full: the store gives up its reserve, and keeps within what it has");
            self.reserve_at = Some(self.now.saturating_add(RETRY_EVERY));
        }
        let reopened = match self.meet(&error) {
            Answer::Pause(pause) => Err((pause, error)),
            Answer::OpenAgain | Answer::GiveUp => self.reopen(tight).map_err(|again| (self.pause_after(&again), again)),
        };
        let Some(commit) = commit else {
            return match reopened {
                Ok(_) => Ok(None),
                Err((pause, error)) => self.enter_memory(&error, pause, false).map(|()| None),
            };
        };
        let made = match reopened {
            Ok(stands) if stands >= attempted => Ok(Committed::of(stands)),
            Ok(_) => {
                let written = self.store.write(commit, false);
                written.map_err(|again| (again.is_doubtful(), self.pause_after(&again), again))
            }
            Err((pause, error)) => Err((is_doubtful, pause, error)),
        };
        let made = match made {
            Ok(made) => made,
            Err((is_doubtful, pause, error)) => {
                self.enter_memory(&error, pause, false)?;
                if is_doubtful { self.hold_back(attempted, commit) } else { self.store.write(commit, false)? }
            }
        };
        Ok(Some(self.told(made)))
    }

    /// What to do after an error; what is to be given up is marked.
    fn meet(&mut self, error: &StoreError) -> Answer {
        if !error.is_unreadable() {
            return Answer::OpenAgain;
        }
        let answer = self.unreadable.meet(self.now);
        if answer == Answer::GiveUp {
            tracing::error!("what cannot be read of the store is given up: all else goes to a new file");
            replace::condemn(&self.options.state_dir.join(FILE_NAME));
        }
        answer
    }

    /// For how long to go on in memory after an error.
    fn pause_after(&mut self, error: &StoreError) -> Duration {
        match self.meet(error) {
            Answer::Pause(pause) => pause,
            Answer::OpenAgain | Answer::GiveUp => RETRY_EVERY,
        }
    }

    /// Now is then. Where the time went back, what was to come comes as soon as it would have.
    fn follow(&mut self, now: Timestamp) {
        let back = self.now.since(now);
        let memory_at = self.memory.as_mut().map(|memory| &mut memory.status.retry_at);
        for at in memory_at.into_iter().chain(&mut self.reserve_at) {
            *at = at.saturating_sub(back);
        }
        self.now = now;
    }

    /// Opens the file again. Returns the number of the last commit in it; 0 in a file that took the place of a damaged one.
    fn reopen(&mut self, tight: bool) -> Result<u64, StoreError> {
        let before_ids = self.store.file.last_ids();
        // Its transaction must end before another can begin.
        self.store.file.let_go()?;
        let mut store = self.open_disk()?;
        store.file.raise_ids(before_ids);
        let before = &mut self.store;
        store.hint = before.hint;
        (store.commits, store.wear) = (before.commits, before.wear);
        let is_new = store.plan.is_none();
        if is_new {
            store.plan.clone_from(&before.plan);
            store.series.clone_from(&before.series);
            store.series_places.clone_from(&before.series_places);
            store.kept.clone_from(&before.kept);
        } else {
            store.take_given(std::mem::take(&mut before.given), std::mem::take(&mut before.acknowledged))?;
            store.tried = std::mem::take(&mut before.tried);
        }
        if tight {
            let bytes = store.accounts.stored_bytes();
            store.set_bytes_max(bytes - bytes / TIGHTER);
        }
        let stands = if is_new { 0 } else { store.last_number };
        self.store = store;
        Ok(stands)
    }

    /// The file as it is, with the tails that its journal leads to.
    fn open_disk(&mut self) -> Result<Store, StoreError> {
        self.boot.random = following(self.boot.random);
        let boot = Boot { now: self.now, ..self.boot.clone() };
        let (mut store, recovered) = Store::open_locked(&self.options, boot, self.lock.clone())?;
        recovery::resume(&mut store, recovered)?;
        Ok(store)
    }

    /// Goes on in memory.
    fn enter_memory(&mut self, error: &StoreError, pause: Duration, is_from_start: bool) -> Result<(), StoreError> {
        let why = told(error);
        tracing::error!(
            "THE STORE CANNOT BE USED AND IS KEPT IN MEMORY: {why}; what is not sent is lost when the agent ends; the disk is tried again in {} s",
            pause.as_secs()
        );
        self.boot.random = following(self.boot.random);
        let before = &mut self.store;
        let mut store = Store::in_memory(Boot { now: self.now, ..self.boot.clone() }, self.lock.clone())?;
        store.begin((!is_from_start).then_some(before.epoch), MEMORY);
        let disk_bytes = evict::bytes_max(&self.options.state_dir, self.options.bounds.bytes);
        store.bounds = Bounds { bytes: MEMORY_BYTES_MAX.min(disk_bytes / MEMORY_PART), ..self.options.bounds };
        store.plan.clone_from(&before.plan);
        store.series.clone_from(&before.series);
        store.series_places.clone_from(&before.series_places);
        store.kept.clone_from(&before.kept);
        store.hint = before.hint;
        (store.commits, store.wear) = (before.commits, before.wear);
        let last_ids = if is_from_start { [0; 3] } else { before.file.last_ids() };
        if is_from_start {
            store.lost = Some((None, self.now));
            store.file.raise_ids([first_id_in_memory(self.now); 3]);
        } else {
            store.file.raise_ids(last_ids.map(|id| id + IDS_FOR_TAILS));
        }
        self.memory = Some(Memory {
            status: MemoryStatus { since: self.now, why, retry_at: self.now.saturating_add(pause) },
            is_from_start,
            last_ids,
            given: std::mem::take(&mut before.given),
            acknowledged: std::mem::take(&mut before.acknowledged),
            doubtful: None,
        });
        self.store = store;
        Ok(())
    }

    /// Keeps a commit until it can be seen whether it stands on the disk.
    fn hold_back(&mut self, number: u64, commit: &mut Commit) -> Committed {
        self.store.learn(commit);
        if let Some(memory) = &mut self.memory {
            memory.doubtful = Some((number, std::mem::replace(commit, Commit::empty(commit.at))));
        }
        Committed::of(number)
    }

    fn stay_in_memory(&mut self, error: &StoreError) {
        let (why, pause) = (told(error), self.pause_after(error));
        tracing::error!("the store stays in memory for another {} s: {why}", pause.as_secs());
        if let Some(memory) = &mut self.memory {
            (memory.status.retry_at, memory.status.why) = (self.now.saturating_add(pause), why);
        }
    }

    /// Goes on on the disk, which takes this commit and all that memory holds.
    fn leave_memory(&mut self, commit: &mut Commit) -> Result<Committed, StoreError> {
        if !self.lock.is_usual() {
            self.lock = Arc::new(Lock::take(&self.options.state_dir)?);
        }
        let mut disk = self.open_disk()?;
        if let Some(plan) = self.store.plan.clone() {
            // With a snapshot everything is sealed, also what waits for the rest of its batch.
            let snapshot = Some(Snapshot { plan, engine: Vec::new() });
            self.store.write(&mut Commit { snapshot, ..Commit::empty(commit.at) }, true)?;
        }
        disk.hint = self.store.hint;
        (disk.commits, disk.wear) = (self.store.commits, self.store.wear);
        let Some(memory) = &self.memory else { return Err(StoreError::Stopped) };
        disk.file.raise_ids(memory.last_ids);
        disk.take_over(&self.store, !memory.is_from_start)?;
        let doubtful = memory.doubtful.as_ref().filter(|(number, _)| disk.last_number < *number);
        let before = doubtful.map(|(_, commit)| commit.records.clone()).unwrap_or_default();
        let count = before.len();
        commit.records.splice(0..0, before);
        let attempted = disk.last_number + 1;
        let committed = match disk.write(commit, false) {
            Ok(committed) => committed,
            Err(error) => {
                commit.records.drain(..count);
                disk.file.let_go()?;
                disk = self.open_disk()?;
                if disk.last_number < attempted {
                    return Err(error);
                }
                disk.hint = self.store.hint;
                Committed::of(attempted)
            }
        };
        let memory = std::mem::replace(&mut self.store, disk);
        self.store.tried = memory.tried;
        self.store.take_given(memory.given, memory.acknowledged)?;
        if let Some(memory) = self.memory.take() {
            self.store.take_given(memory.given, memory.acknowledged)?;
        }
        tracing::warn!("the store is on the disk again, with all that memory held");
        self.make_reserve();
        Ok(committed)
    }

    /// A disk that has room again gets its reserve back, and the store its bound.
    fn renew_reserve(&mut self) {
        if self.memory.is_none() && self.reserve_at.is_some_and(|at| at <= self.now) {
            self.make_reserve();
            if self.reserve_at.is_none() {
                tracing::warn!("the disk has room again");
                self.store.set_bytes_max(u64::MAX);
            }
        }
    }

    fn make_reserve(&mut self) {
        let is_there = reserve::make(&self.options.state_dir, self.options.bounds.bytes);
        self.reserve_at = (!is_there).then(|| self.now.saturating_add(RETRY_EVERY));
        self.store.file.look_beside();
    }
}

/// Ids of frames in memory, where those of the disk are not known: behind all of them, and others after each start. A disk counts up from 0, or from
/// where an earlier memory left off.
fn first_id_in_memory(now: Timestamp) -> i64 {
    const IDS_PER_SECOND_BITS: u32 = 24;
    (now.as_nanos().max(0) / 1_000_000_000) << IDS_PER_SECOND_BITS
}

/// The next of the ids that follow from the random one that this boot began with (SplitMix64, Steele, Lea and Flood 2014).
fn following(random: u64) -> u64 {
    let mut mixed = random.wrapping_add(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}
