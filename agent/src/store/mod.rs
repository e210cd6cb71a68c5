//! The store: one SQLite file in which everything that was committed survives a power cut.
//!
//! What is always true of the file, between any two transactions:
//! - Every event that was committed since the last snapshot but one is in the journal; with the snapshot it leads to the state at the
//!   last commit.
//! - Every number that was ever given is in a frame, or is emitted again by the replay of the journal, or is acknowledged, or lies in a gap. No number
//!   is given twice: what is counted and what is stored change in the same transaction.
//! - A frame's bytes never change. It is deleted after its acknowledgement, or in the transaction that writes its gap.
//!
//! A commit is one transaction with one sync, and everything rides in it: the journal's row, frames that are sealed, frames that
//! were acknowledged and go, a snapshot and the journal that it makes superfluous. Records that are not yet in a frame (a stream's tail) are not
//! written at all: the replay of the journal emits them again, bit for bit, and the journal knows their numbers.
//!
//! Synchronous and without a clock; [`thread`] runs it on a thread of its own.

mod accounts;
pub mod book;
mod cover;
mod delivered;
mod error;
mod evict;
mod fault;
mod file;
mod frames;
mod gaps;
mod keeper;
mod lock;
pub mod look;
mod mark;
mod missing;
mod outgoing;
mod recent;
mod recover;
pub mod repair;
mod replace;
mod reserve;
mod salvage;
mod seal;
mod snapshot;
mod tails;
pub mod thread;
mod unreadable;
mod wear;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use rtlive_core::event::Event;
use rtlive_core::journal::{Account, Chunk, Range, StreamKey};
use rtlive_core::plan::{Plan, Priority, StreamId};
use rtlive_core::reading::SeriesInfo;
use rtlive_core::record::{Emitted, Epoch, EpochStart, Gap, OutageRecord, Record};
use rtlive_core::sorted;
use rtlive_core::time::Timestamp;

use crate::message::{Bounds, Commit, Committed, FrameId, KeptChange, Lane, LinkHint, Snapshot, StoreStatus, Wear};
use crate::stage::Kept;
use accounts::Accounts;
use cover::{Lost, Told};
use file::File;
use frames::FrameRow;
use gaps::Gaps;
use lock::Lock;
use mark::{Mark, Marked};
use missing::Missing;
use recent::Recent;
use seal::Sealed;
use tails::Tails;

pub use error::StoreError;
pub use fault::{Fault, Faults};
pub use keeper::{Keeper, MEMORY_BYTES_MAX, RETRY_EVERY};
pub use outgoing::Look;
pub use snapshot::SavedSnapshot;

/// The name of the file in the state folder.
pub const FILE_NAME: &str = "store.db";

/// The journal since the last snapshot may grow to this many times the snapshot's size: a snapshot then costs a quarter of what the
/// journal does.
const JOURNAL_PER_SNAPSHOT: u64 = 4;

/// Below this many bytes of journal no snapshot is written, however small the last one was: replaying it takes milliseconds.
const JOURNAL_BYTES_MIN: u64 = 256 << 10;

/// Nor below this part of what the store may take.
const JOURNAL_PART: u64 = 16;

/// And at the latest above this part, however large the snapshot is.
const JOURNAL_PART_MAX: u64 = 8;

/// Two snapshots are kept where they take no more than this part of the bound, so that one that is damaged does not take the open windows with it.
const SNAPSHOTS_PART: u64 = 4;

/// A snapshot is due after this many readings, however few bytes they take: a replay holds them all in memory, or what they emit, at some 100 bytes each.
const JOURNAL_READINGS_MAX: u64 = 400_000;

/// What a start, which knows of no commit before it, takes the largest one to need.
const GROWTH_MIN: u64 = 8 << 10;

/// What a reading or a record takes in the journal and in frames, when a commit has more of them than any before.
const READING_BYTES: u64 = 8;

/// How long an acknowledged frame may wait for a commit to be deleted with, before a transaction is made for it alone.
const FLUSH_AFTER: Duration = Duration::from_secs(1);

/// While gaps of this many bytes, or of this part of the bound, wait in frames, more of them wait outside and merge: a link that does not take them
/// must not fill the store with them.
const GAP_FRAMES_BYTES_MAX: u64 = 64 << 10;
const GAP_FRAMES_PART: u64 = 64;

/// How much of the free pages one step of the vacuum gives back, in some milliseconds. A commit may have to wait for one.
const VACUUM_PAGES: i64 = (512 << 10) / file::PAGE_BYTES;

/// How much of the free pages stays in the file, which the frames of the next hours take again. Giving them back costs writes.
const FREE_PAGES_KEPT: i64 = (2 << 20) / file::PAGE_BYTES;

/// Why records or readings are missing that were committed: the journal, or the snapshot that it follows, could not be replayed.
const REPLAY_FAILED: &str = "replay_failed";

/// How the store is set up.
#[derive(Clone, Debug)]
pub struct Options {
    /// The folder of the file; it is made where it is missing.
    pub state_dir: PathBuf,
    /// How much room it may take, and for how long.
    pub bounds: Bounds,
    /// What fails, in tests.
    pub faults: Faults,
}

impl Options {
    /// The store in a folder, without bounds.
    pub fn new(state_dir: PathBuf) -> Self {
        Self { state_dir, bounds: Bounds::NONE, faults: Faults::default() }
    }
}

/// What the store must be told of the world, so that it needs no clock and no randomness of its own.
#[derive(Clone, Debug)]
pub struct Boot {
    /// The id of this boot of the machine; a restart within it goes on with the epoch.
    pub id: String,
    /// Now, by the wall clock.
    pub now: Timestamp,
    /// The id of the epoch that begins, if one does.
    pub random: u64,
}

/// What an earlier process left behind.
#[derive(Clone, Debug, Default)]
pub struct Recovered {
    /// The last snapshot; `None` in a new store.
    pub snapshot: Option<Snapshot>,
    /// The events of each commit since the snapshot, in order. What their replay emits goes back to [`Store::resume`].
    pub commits: Vec<Vec<(Timestamp, Event)>>,
    /// What drivers kept.
    pub kept: Kept,
    /// When the engine's last commit was made: from then on readings may be missing.
    pub last_commit_at: Option<Timestamp>,
}

/// The store. See the module's documentation.
pub struct Store {
    file: File,
    _lock: Arc<Lock>,
    /// Where the number of each commit is left; `None` in memory.
    mark: Option<Mark>,
    epoch: Epoch,
    plan: Option<Arc<Plan>>,
    series: Vec<SeriesInfo>,
    /// Where each is in `series`, by name.
    series_places: BTreeMap<Arc<str>, usize>,
    accounts: Accounts,
    tails: Tails,
    kept: Kept,
    /// The boot that this process runs in, and the id of the epoch that begins, if one does.
    boot: Boot,
    /// What to seal and say with the first commit of a new epoch.
    beginning: Option<Beginning>,
    /// An epoch of which the file knows nothing, because its commits are lost.
    forgotten: Option<Epoch>,
    /// What the first commit of a new epoch takes over from memory.
    takes_over: Option<Handover>,
    /// The epoch before the one that this process began, and the last numbers in it, until [`missing`] has looked.
    before: Option<(Epoch, LastNumbers)>,
    missing: Vec<Missing>,
    /// Whether no snapshot is in the file that leads here.
    needs_snapshot: bool,
    /// From when to when what was committed is lost beside what gaps name, because the journal could not be replayed.
    lost: Option<(Option<Timestamp>, Timestamp)>,
    /// Whether what is in the file was taken from a damaged one.
    is_salvaged: bool,
    /// Chunks whose records [`Store::resume`] has not seen yet.
    unresumed: Vec<Chunk>,
    last_number: u64,
    journal_bytes: u64,
    journal_readings: u64,
    snapshot_bytes: u64,
    commits: u64,
    /// What is counted here of [`Store::wear`], and how often the log had begun again when the file was opened.
    wear: Wear,
    log_begun: u32,
    /// What is not coming, and is not told yet.
    gaps: Gaps,
    /// What coarser levels of ladders have told, and what they lost since the last commit.
    told: Told,
    lost_levels: Vec<Lost>,
    hint: LinkHint,
    recent: Recent,
    /// For each priority and lane, the last frame that was looked at; see [`outgoing`].
    fronts: BTreeMap<(Priority, Lane), FrameId>,
    /// For each of them and each stream that may have frames that wait behind the front: from where on.
    passed_over: BTreeMap<((Priority, Lane), Arc<str>), FrameId>,
    /// Where the streams whose newest frames go first may have frames that wait, by priority; and whose turn it is.
    backwards: BTreeMap<Arc<str>, BTreeMap<Priority, outgoing::Unlooked>>,
    turn: usize,
    /// The plan whose orders these are.
    ordered_by: Option<Arc<Plan>>,
    /// Frames that were given out: what their acknowledgement means to the accounts.
    given: BTreeMap<FrameId, Sealed>,
    acknowledged: BTreeSet<FrameId>,
    /// Frames that were given out and came back: whether they arrived is not known.
    tried: BTreeSet<FrameId>,
    /// See [`Store::bound`].
    bounds: Bounds,
    /// See [`Store::set_bytes_max`].
    frame_bytes_max: u64,
    /// By how much the largest commit so far made the file grow, in bytes.
    growth_max: u64,
    /// See [`Store::bytes_used`]; `None` where it must be asked again.
    bytes_used: Option<u64>,
    /// When frames were last looked through for what has waited too long, and since when the clock runs steadily.
    looked_for_expired_at: Option<Timestamp>,
    steady_since: Timestamp,
    unflushed_since: Option<Timestamp>,
}

/// An epoch that begins with the first commit; until then numbers belong to the one before.
struct Beginning {
    predecessor: Option<Epoch>,
    reason: &'static str,
}

/// What a store in memory hands over to the disk.
struct Handover {
    /// Its epoch and the last numbers in it, if anything was numbered.
    epoch: Option<(Epoch, LastNumbers)>,
    accounts: Vec<(StreamKey, Account)>,
    plan: Option<Arc<Plan>>,
    series: Vec<SeriesInfo>,
    frames: Vec<FrameRow>,
    gaps: Vec<Gap>,
}

impl Store {
    /// Makes an instant durable. When this returns, everything in it survives a power cut.
    ///
    /// # Errors
    /// What SQLite said. The store must not be used afterwards: open it again, and see what stands. A file whose damage shows here is
    /// moved aside then.
    pub fn commit(&mut self, mut commit: Commit) -> Result<Committed, StoreError> {
        self.write(&mut commit, false).inspect_err(|error| self.file.condemn_for(error))
    }

    /// After an error the commit is as it was, so that another store can write it.
    fn write(&mut self, commit: &mut Commit, is_flush: bool) -> Result<Committed, StoreError> {
        let at = commit.at;
        self.tails.follow(at);
        self.recent.note(at, self.file.last_ids);
        if self.plan.is_none() {
            self.plan = commit.snapshot.as_ref().map(|snapshot| snapshot.plan.clone());
        }
        let Some(plan) = self.plan.clone() else { return Err(StoreError::NoPlan) };

        let transaction = self.file.begin()?;
        let mut touched = BTreeSet::new();
        let hurries = self.hurries(commit);
        if !hurries {
            self.delete_acknowledged(&mut touched)?;
        }
        self.give_up_missing(&mut touched);
        let coming = readings(&commit.events) + commit.records.len() as u64;
        self.growth_max = self.growth_max.max(READING_BYTES * coming);
        let evicted = self.evict(&plan, at, &mut touched)?;
        let used = self.bytes_used()?;
        let begun = self.begin_epoch(&plan, at, &mut touched)?;
        // What is taken over may bring another one.
        let plan = self.plan.clone().unwrap_or(plan);
        commit.series.iter().for_each(|info| self.know_series(info));
        for (_, event) in &commit.events {
            if let Event::Series(declared) = event {
                self.know_series(&declared.info);
            }
        }
        let gaps = if self.gaps_are_due() { self.gaps.take() } else { Vec::new() };
        let own = begun.into_iter().chain(gaps.into_iter().map(Record::from));
        self.number(&plan, at, own.map(|record| Emitted { stream: StreamId::GAPS, record }), &mut touched);
        // The store's own records are in a frame before the engine's are numbered, so that the journal's numbers are the engine's alone.
        self.seal_stream(&plan, StreamId::GAPS, &mut touched)?;
        let ranges = self.number(&plan, at, commit.records.iter().cloned(), &mut touched);
        let after = commit.snapshot.as_ref().map(|snapshot| &*snapshot.plan);
        self.seal_due(&plan, at, after, &mut touched)?;
        keep(&mut self.kept, &commit.state);

        let number = self.last_number + 1;
        let accounts = self.accounts.named(&touched);
        let (events, state) = (std::mem::take(&mut commit.events), std::mem::take(&mut commit.state));
        let (gaps, lost) = (self.gaps.changed(), std::mem::take(&mut self.lost_levels));
        let chunk =
            Chunk { number, at, is_flush, epoch: Some(self.epoch), events, ranges, state, accounts, gaps, lost };
        let inserted = self.file.insert_chunk(&chunk, &commit.parts);
        (commit.events, commit.state) = (chunk.events, chunk.state);
        let inserted = inserted?;
        self.journal_bytes += inserted;
        self.journal_readings += readings(&commit.events);
        self.wear.content_bytes += inserted;
        if let Some(snapshot) = &commit.snapshot {
            self.save(snapshot, number, at)?;
        }
        self.bytes_used = None;
        self.growth_max = self.growth_max.max(self.bytes_used()?.saturating_sub(used));
        self.file.end(transaction)?;
        if let Some(mark) = &self.mark {
            self.file.faults.reach("leave a mark");
            mark.set(Marked { epoch: self.epoch, number });
        }
        self.last_number = number;
        self.commits += 1;
        self.wear.syncs += 1;
        if !hurries {
            self.unflushed_since = None;
            self.settle();
        }
        self.tried.retain(|id| !evicted.contains(id));
        Ok(Committed { wants_snapshot: self.wants_snapshot(), ..Committed::of(number) })
    }

    /// Whether something waits for a commit that does not come: acknowledged frames, or a tail that is due.
    pub fn wants_flush(&mut self, now: Timestamp) -> bool {
        let Some(plan) = self.plan.clone() else { return false };
        self.tails.follow(now);
        self.recent.note(now, self.file.last_ids);
        // What is missing is told before what is not.
        if self.gaps_are_due() {
            return true;
        }
        if self.acknowledged.is_empty() && !self.tails.is_any_due(&plan, now, self.hint) {
            self.unflushed_since = None;
            return false;
        }
        let since = self.unflushed_since.unwrap_or(now).min(now);
        self.unflushed_since = Some(since);
        now.since(since) >= FLUSH_AFTER
    }

    /// Whether gaps are to go into frames: when the link takes those that are there, or when there are too many.
    fn gaps_are_due(&self) -> bool {
        let stored_max = GAP_FRAMES_BYTES_MAX.min(self.bounds.bytes / GAP_FRAMES_PART);
        let takes = || self.hint.connected && self.accounts.stored_bytes_of(evict::GAPS) <= stored_max;
        !self.gaps.waiting().is_empty() && (self.gaps.is_full() || takes())
    }

    /// A commit of nothing but what [`Store::wants_flush`] found.
    ///
    /// # Errors
    /// As [`Store::commit`].
    pub fn flush(&mut self, now: Timestamp) -> Result<(), StoreError> {
        self.write(&mut Commit::empty(now), true).map(drop).inspect_err(|error| self.file.condemn_for(error))
    }

    /// Gives some of the room that deleted frames leave back to the file system; to be called in idle time. Says whether there was enough of it to
    /// be worth it.
    ///
    /// # Errors
    /// What SQLite said.
    pub fn vacuum(&mut self) -> Result<bool, StoreError> {
        let vacuumed = self.file.vacuum(VACUUM_PAGES, FREE_PAGES_KEPT);
        self.wear.syncs += u64::from(*vacuumed.as_ref().unwrap_or(&false));
        vacuumed.inspect_err(|error| self.file.condemn_for(error))
    }

    /// What the link looks like.
    pub fn hint(&mut self, hint: LinkHint) {
        self.hint = hint;
    }

    /// The accounts, and the size of the file.
    ///
    /// # Errors
    /// What SQLite said.
    pub fn status(&self) -> Result<StoreStatus, StoreError> {
        // What cannot be read is no reason to tell nothing.
        let mut oldest = self.file.oldest_frames().unwrap_or_default();
        if let Some(plan) = &self.plan {
            for (stream, since) in self.tails.oldest() {
                if let Some(stream) = plan.streams.get(stream.index()) {
                    let entry = oldest.entry(accounts::key(stream)).or_insert(since);
                    *entry = (*entry).min(since);
                }
            }
        }
        let streams = self.accounts.status(&oldest);
        Ok(StoreStatus {
            epoch: Some(self.epoch),
            bytes: self.file.bytes(),
            bytes_max: self.bounds.bytes,
            commits: self.commits,
            wear: self.wear(),
            memory: None,
            streams,
        })
    }

    /// Checkpoints the log and closes the file.
    ///
    /// # Errors
    /// What SQLite said; nothing that was committed is lost.
    pub fn close(self) -> Result<(), StoreError> {
        self.file.close()
    }

    fn wants_snapshot(&self) -> bool {
        let (least, most) =
            (JOURNAL_BYTES_MIN.min(self.bounds.bytes / JOURNAL_PART), self.bounds.bytes / JOURNAL_PART_MAX);
        self.needs_snapshot
            || self.journal_bytes >= (JOURNAL_PER_SNAPSHOT * self.snapshot_bytes).min(most).max(least)
            || self.journal_readings >= JOURNAL_READINGS_MAX
    }

    /// With the first commit of an epoch: what is left of the one before goes into its frames, numbers start anew, and its first records say
    /// what was before.
    fn begin_epoch(&mut self, plan: &Plan, at: Timestamp, touched: &mut Touched) -> Result<Vec<Record>, StoreError> {
        let Some(Beginning { predecessor, reason }) = self.beginning.take() else { return Ok(Vec::new()) };
        for stream in self.tails.streams() {
            self.seal_stream(plan, stream, touched)?;
        }
        let last = self.accounts.last_numbers();
        self.before = predecessor.map(|epoch| (epoch, last.clone()));
        touched.extend(self.accounts.begin_epoch());
        self.epoch = Epoch(self.boot.random);
        self.file.set_meta(self.epoch, &self.boot.id)?;
        let reason: Arc<str> = reason.into();
        let start =
            |predecessor, last| Record::from(EpochStart { time: at, predecessor, last, reason: reason.clone() });
        let mut records = Vec::new();
        if let Some(Handover { epoch, accounts, plan, series, frames, gaps }) = self.takes_over.take() {
            gaps.into_iter().for_each(|gap| self.gaps.add(gap));
            self.file.insert_rows(&frames)?;
            touched.extend(self.accounts.add(accounts));
            self.plan = plan.or(self.plan.take());
            self.know_all(series);
            // Both epochs end here: that of the disk, and that of memory.
            records.extend(epoch.map(|(epoch, last)| start(Some(epoch), last)));
        }
        records.extend(self.forgotten.take().map(|epoch| start(Some(epoch), Vec::new())));
        if records.is_empty() || predecessor.is_some() {
            records.push(start(predecessor, last));
        }
        if let Some((start, end)) = self.lost.take() {
            records.extend(plan.inputs.iter().map(|input| {
                let (input, reason) = (input.name.clone(), reason.clone());
                OutageRecord { input, start, end, count: None, reason }.into()
            }));
        }
        Ok(records)
    }

    /// Takes from a commit that is not made here what the next ones build on.
    fn learn(&mut self, commit: &Commit) {
        for (_, event) in &commit.events {
            if let Event::Series(declared) = event {
                self.know_series(&declared.info);
            }
        }
        keep(&mut self.kept, &commit.state);
        if let Some(snapshot) = &commit.snapshot {
            self.plan = Some(snapshot.plan.clone());
        }
    }

    fn change_plan(&mut self, plan: Arc<Plan>) {
        if let Some(before) = self.plan.replace(plan.clone()).filter(|before| !Arc::ptr_eq(before, &plan)) {
            self.told.change(&before, &plan);
        }
    }

    fn know_series(&mut self, info: &SeriesInfo) {
        // As the engine does: a name that is known keeps its number and takes the new unit.
        match self.series_places.get(&info.name).and_then(|&place| self.series.get_mut(place)) {
            Some(known) => known.unit.clone_from(&info.unit),
            None => {
                self.series_places.insert(info.name.clone(), self.series.len());
                self.series.push(info.clone());
            }
        }
    }

    /// The series are these, in the engine's order.
    fn know_all(&mut self, series: Vec<SeriesInfo>) {
        self.series_places = sorted::map(series.iter().enumerate().map(|(place, info)| (info.name.clone(), place)));
        self.series = series;
    }

    /// Gives numbers to records and appends them to their streams' tails.
    fn number(
        &mut self,
        plan: &Plan,
        at: Timestamp,
        records: impl IntoIterator<Item = Emitted>,
        touched: &mut Touched,
    ) -> Vec<Range> {
        let mut ranges: BTreeMap<StreamId, Range> = BTreeMap::new();
        for emitted in records {
            self.told.emit(plan, &emitted);
            let Emitted { stream: id, record } = emitted;
            let Some(stream) = plan.streams.get(id.index()) else { continue };
            let account = self.accounts.of_stream(stream);
            let number = account.next;
            account.next += 1;
            account.numbered += 1;
            account.stored += 1;
            ranges.entry(id).or_insert(Range { stream: id, first: number, count: 0 }).count += 1;
            self.tails.append(id, number, [record], at);
        }
        touched.extend(ranges.keys().filter_map(|id| plan.streams.get(id.index())).map(accounts::key));
        ranges.into_values().collect()
    }

    fn save(&mut self, snapshot: &Snapshot, number: u64, at: Timestamp) -> Result<(), StoreError> {
        let saved = SavedSnapshot {
            number,
            at,
            accounts: self.accounts.all(),
            gaps: self.gaps.waiting().to_vec(),
            epoch: self.epoch,
            tails: self.tails.saved(),
            told: self.told.clone(),
            kept: self.kept.clone(),
            plan: snapshot.plan.clone(),
            engine: snapshot.engine.clone(),
            bytes: 0,
        };
        self.snapshot_bytes = self.file.insert_snapshot(&saved, self.bounds.bytes / SNAPSHOTS_PART)?;
        self.wear.content_bytes += self.snapshot_bytes;
        (self.journal_bytes, self.journal_readings) = (0, 0);
        self.needs_snapshot = false;
        self.change_plan(snapshot.plan.clone());
        Ok(())
    }
}

/// The last number of each stream and class.
type LastNumbers = Vec<(Arc<str>, Arc<str>, u64)>;

/// The streams whose accounts a commit changed.
type Touched = BTreeSet<rtlive_core::journal::StreamKey>;

/// How many readings there are in events.
fn readings(events: &[(Timestamp, Event)]) -> u64 {
    let of_event = |(_, event): &(Timestamp, Event)| match event {
        Event::Batch(batch) => batch.readings.len() as u64,
        _ => 0,
    };
    events.iter().map(of_event).sum()
}

/// Applies what drivers keep and forget.
fn keep(kept: &mut Kept, changes: &[KeptChange]) {
    for (input, key, value) in changes {
        let of_input = kept.entry(input.clone()).or_default();
        match value {
            Some(value) => of_input.insert(key.clone(), value.clone()),
            None => of_input.remove(key),
        };
    }
}

#[cfg(test)]
mod tests;
