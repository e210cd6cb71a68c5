//! The start: what an earlier process left behind, and what of it can be used.
//!
//! What holds, whatever the state of the file:
//! - A start does not fail because of what is in the file. A file that cannot be read at all is moved aside.
//! - The newest snapshot whose checksum holds is replayed with every chunk since. Where one of these is damaged or missing, replay stops
//!   before it. What was numbered and is neither in a frame nor replayed is given up with a gap, an outage of every input says from when to when
//!   committed readings are lost beside that, and a new epoch begins, so that no number is used twice.
//! - A replay that did not come to its end [`REPLAYS_MAX`] times is not tried again: all of it is given up in the same way.

use std::collections::BTreeMap;
use std::sync::Arc;

use rtlive_core::event::Event;
use rtlive_core::journal::{Chunk, StreamKey};
use rtlive_core::plan::StreamId;
use rtlive_core::reading::SeriesInfo;
use rtlive_core::record::{Emitted, Epoch, Gap, Record};
use rtlive_core::sorted;
use rtlive_core::time::Timestamp;
use rtlive_drivers::input::told;

use super::accounts::{self, Accounts};
use super::cover::Told;
use super::file::{File, JournalRow};
use super::gaps::Gaps;
use super::keeper::AFTER_MEMORY;
use super::lock::Lock;
use super::mark::Mark;
use super::recent::Recent;
use super::replace::{SALVAGED, UNKNOWN};
use super::seal::Sealed;
use super::{
    Beginning, Boot, FILE_NAME, Handover, Options, REPLAY_FAILED, Recovered, Store, StoreError, Tails, keep, readings,
};
use crate::message::{Bounds, LinkHint, Snapshot, Wear};
use crate::stage::Kept;

/// Why an epoch began: what was committed in the one before is not all there.
const DAMAGED: &str = "damaged_store";

/// How often a replay may end with the process, as after a defect that panics, before it is set aside. A replay takes milliseconds, so that
/// power hardly fails as often within one, even where it comes and goes for a while; a process that ends eight times is back within a minute.
const REPLAYS_MAX: u32 = 8;

impl Store {
    /// Opens the store, or makes a new one. A file that cannot be read as a store of this version is moved aside, and a new epoch
    /// says so. [`Store::resume`] or [`Store::set_replay_aside`] must follow before the first commit.
    ///
    /// # Errors
    /// Another agent holds the folder, another program holds the file, or nothing can be written there.
    pub fn open(options: &Options, boot: Boot) -> Result<(Self, Recovered), StoreError> {
        let lock = Arc::new(Lock::take(&options.state_dir)?);
        Self::open_locked(options, boot, lock)
    }

    /// The same, by who holds the lock.
    pub(super) fn open_locked(options: &Options, boot: Boot, lock: Arc<Lock>) -> Result<(Self, Recovered), StoreError> {
        let path = options.state_dir.join(FILE_NAME);
        let file = File::open_or_replace(&path, &options.faults)?;
        let (mut store, recovered) = match Self::recover(file, &lock, boot.clone()) {
            Err(error) if error.is_damage() => {
                Self::recover(File::replace(&path, &options.faults, &error)?, &lock, boot)
            }
            recovered => recovered,
        }?;
        store.bound(options.bounds)?;
        Ok((store, recovered))
    }

    /// A new one in memory.
    pub(super) fn in_memory(boot: Boot, lock: Arc<Lock>) -> Result<Self, StoreError> {
        Ok(Self::new(File::in_memory()?, lock, boot))
    }

    /// This store's next commit begins an epoch, and takes over all that a store in memory holds and knows, whose epoch ends with it. That one's
    /// tails must be sealed. Where it knows nothing of what drivers had kept before it, what this one knows of that stands.
    pub(super) fn take_over(&mut self, memory: &Self, knows_kept: bool) -> Result<(), StoreError> {
        let predecessor = self.file.meta()?.map(|_| self.epoch);
        self.begin(predecessor, AFTER_MEMORY);
        self.told.clear();
        // Room is made before all of it comes at once.
        self.growth_max = self.growth_max.max(memory.accounts.stored_bytes());
        if knows_kept {
            self.kept.clear();
        }
        for (input, kept) in &memory.kept {
            self.kept.entry(input.clone()).or_default().extend(kept.clone());
        }
        self.takes_over = Some(Handover {
            epoch: memory.beginning.is_none().then(|| (memory.epoch, memory.accounts.last_numbers())),
            accounts: memory.accounts.all(),
            plan: memory.plan.clone(),
            series: memory.series.clone(),
            frames: memory.file.rows()?,
            gaps: memory.gaps.waiting().to_vec(),
        });
        Ok(())
    }

    fn new(file: File, lock: Arc<Lock>, boot: Boot) -> Self {
        Self {
            log_begun: file.log_begun(),
            recent: Recent::behind(file.last_ids),
            file,
            _lock: lock,
            mark: None,
            epoch: Epoch(boot.random),
            boot,
            plan: None,
            series: Vec::new(),
            series_places: BTreeMap::new(),
            accounts: Accounts::default(),
            tails: Tails::default(),
            kept: Kept::new(),
            beginning: None,
            forgotten: None,
            before: None,
            missing: Vec::new(),
            takes_over: None,
            needs_snapshot: true,
            is_salvaged: false,
            lost: None,
            unresumed: Vec::new(),
            last_number: 0,
            journal_bytes: 0,
            journal_readings: 0,
            snapshot_bytes: 0,
            commits: 0,
            wear: Wear::default(),
            gaps: Gaps::default(),
            told: Told::default(),
            lost_levels: Vec::new(),
            hint: LinkHint::default(),
            fronts: BTreeMap::new(),
            passed_over: BTreeMap::new(),
            backwards: BTreeMap::new(),
            turn: 0,
            ordered_by: None,
            given: BTreeMap::new(),
            acknowledged: Default::default(),
            tried: Default::default(),
            bounds: Bounds::NONE,
            frame_bytes_max: u64::MAX,
            growth_max: super::GROWTH_MIN,
            bytes_used: None,
            looked_for_expired_at: None,
            steady_since: Timestamp::MIN,
            unflushed_since: None,
        }
    }

    fn recover(file: File, lock: &Arc<Lock>, boot: Boot) -> Result<(Self, Recovered), StoreError> {
        let mut store = Self::new(file, lock.clone(), boot);
        let mut recovered = Recovered::default();
        let (mark, marked) = Mark::open(store.file.folder(), &store.boot.id);
        store.mark = Some(mark);
        let meta = store.file.meta()?;
        let was_damaged = meta.as_ref().is_some_and(|meta| meta.boot_id == SALVAGED);
        let Some(meta) = meta.filter(|meta| meta.epoch != UNKNOWN) else {
            store.forgotten = marked.map(|marked| marked.epoch);
            let is_lost = was_damaged || marked.is_some();
            if is_lost {
                store.lost = Some((None, store.boot.now));
                recovered.last_commit_at = Some(store.boot.now);
            }
            store.begin(None, if is_lost { DAMAGED } else { "new_store" });
            return Ok((store, recovered));
        };
        store.epoch = meta.epoch;
        let saved = store.file.last_snapshot()?;
        // What was salvaged may not be all that there was.
        store.is_salvaged = was_damaged;
        let mut is_whole = saved.is_some();
        if let Some(saved) = saved {
            store.last_number = saved.number;
            store.needs_snapshot = false;
            store.snapshot_bytes = saved.bytes;
            store.accounts = Accounts::of(saved.accounts);
            store.gaps.restore(saved.gaps);
            store.told = saved.told;
            // Every tail of an earlier epoch was sealed when the next one began.
            for tail in saved.tails.into_iter().filter(|_| saved.epoch == store.epoch) {
                store.tails.append(tail.stream, tail.first, tail.records, tail.since);
            }
            store.kept = saved.kept;
            store.plan = Some(saved.plan.clone());
            recovered.last_commit_at = Some(saved.at);
            recovered.snapshot = Some(Snapshot { plan: saved.plan, engine: saved.engine });
        }
        let mut lost_to = None;
        for JournalRow { number, chunk } in store.file.chunks_after(store.last_number)? {
            is_whole &= chunk.is_some() && number == store.last_number + 1;
            store.last_number = number;
            let Some((mut chunk, bytes)) = chunk else { continue };
            store.journal_bytes += bytes;
            store.journal_readings += readings(&chunk.events);
            store.accounts.apply(&chunk.accounts);
            keep(&mut store.kept, &chunk.state);
            if let Some(gaps) = &chunk.gaps {
                store.gaps.restore(gaps.clone());
            }
            if !is_whole {
                lost_to = Some(chunk.at);
                continue;
            }
            // A flush makes nothing durable that the engine took meanwhile.
            if !chunk.is_flush {
                recovered.last_commit_at = Some(chunk.at);
            }
            // Of the events the store itself only has to know which plan came when.
            let reloads = chunk.events.iter().filter(|(_, event)| matches!(event, Event::Reload(_))).cloned().collect();
            recovered.commits.push(std::mem::replace(&mut chunk.events, reloads));
            store.unresumed.push(chunk);
        }
        store.last_number = store.last_number.max(store.file.last_number()?);
        recovered.kept.clone_from(&store.kept);
        let beyond = marked.filter(|marked| marked.number > store.last_number);
        if let Some(marked) = beyond {
            let (from, to) = (store.last_number + 1, marked.number);
            tracing::error!(
                from,
                to,
                "commits are lost, as after the log was deleted or damaged, and reported as such"
            );
            store.forgotten = Some(marked.epoch).filter(|epoch| *epoch != meta.epoch);
        }
        if !is_whole || was_damaged {
            tracing::error!(
                "the journal is damaged: what was committed behind the damage is lost, and reported as such"
            );
        }
        if !is_whole || was_damaged || beyond.is_some() {
            let end = lost_to.unwrap_or(store.boot.now);
            store.lost = Some((recovered.last_commit_at.replace(end), end));
            store.begin(Some(meta.epoch), DAMAGED);
        }
        if meta.replays >= REPLAYS_MAX {
            tracing::error!("the replay of the journal failed {} times and is set aside", meta.replays);
            store.set_replay_aside()?;
            recovered.snapshot = None;
            recovered.commits.clear();
        } else if recovered.snapshot.is_some() {
            match store.file.set_replays(meta.replays + 1) {
                // What was read can be used, also where nothing can be written.
                Err(error) if error.is_of_the_disk() => tracing::error!("{}", told(&error)),
                counted => counted?,
            }
        } else {
            store.set_replay_aside()?;
        }
        if meta.boot_id != store.boot.id {
            store.begin(Some(meta.epoch), "boot");
        }
        Ok((store, recovered))
    }

    /// A new epoch begins with the next commit, if it does not already.
    pub(super) fn begin(&mut self, predecessor: Option<Epoch>, reason: &'static str) {
        self.beginning.get_or_insert(Beginning { predecessor, reason });
    }

    /// Takes what the replay of [`Recovered::commits`] emitted, commit by commit, and the series that the engine knows now. Records
    /// that are in no frame become their streams' tails again. Where a replay emits another number of records than the commit did, the
    /// records of the stream are given up from there on, and a gap says so.
    ///
    /// # Errors
    /// What SQLite said.
    pub fn resume(&mut self, series: Vec<SeriesInfo>, emitted: Vec<Vec<Emitted>>) -> Result<(), StoreError> {
        self.know_all(series);
        if self.is_damaged() {
            self.count_frames()?;
        }
        self.drop_sealed();
        let mut emitted = emitted.into_iter();
        let mut given_up: Vec<StreamKey> = Vec::new();
        for chunk in std::mem::take(&mut self.unresumed) {
            let Some(plan) = self.plan.clone() else { break };
            let Chunk { ranges, events, epoch, at, lost, .. } = chunk;
            lost.iter().for_each(|lost| self.told.lose(lost));
            let mut records: BTreeMap<StreamId, Vec<Record>> = BTreeMap::new();
            for emitted in emitted.next().unwrap_or_default() {
                self.told.emit(&plan, &emitted);
                let Emitted { stream, record } = emitted;
                records.entry(stream).or_default().push(record);
            }
            // Every tail of an earlier epoch was sealed when the next one began.
            for range in ranges.into_iter().filter(|_| epoch == Some(self.epoch)) {
                let records = records.remove(&range.stream).unwrap_or_default();
                let Some(stream) = plan.streams.get(range.stream.index()) else { continue };
                let key = accounts::key(stream);
                let sealed_to = self.accounts.of_key(&key).sealed_to;
                let last = range.first.saturating_add(range.count).saturating_sub(1);
                if last <= sealed_to || given_up.contains(&key) {
                    continue;
                }
                if records.len() as u64 != range.count {
                    given_up.push(key);
                    continue;
                }
                let skip = usize::try_from((sealed_to + 1).saturating_sub(range.first)).unwrap_or(usize::MAX);
                let first = range.first.max(sealed_to + 1);
                self.tails.append(range.stream, first, records.into_iter().skip(skip), at);
            }
            for (_, event) in events {
                if let Event::Reload(plan) = event {
                    self.change_plan(plan);
                }
            }
        }
        if !given_up.is_empty() || self.is_damaged() {
            self.told.clear();
            self.give_up_unsealed()?;
        }
        self.file.set_replays(0)
    }

    /// The journal cannot be replayed: what is in no frame is given up, and the engine begins anew.
    ///
    /// # Errors
    /// What SQLite said.
    pub fn set_replay_aside(&mut self) -> Result<(), StoreError> {
        // How far back the windows reached that were open is not known.
        let end = self.unresumed.last().map_or(self.boot.now, |chunk| chunk.at);
        self.lost = Some((None, self.lost.map_or(end, |(_, to)| to)));
        self.unresumed.clear();
        self.tails.clear();
        self.told.clear();
        self.plan = None;
        self.count_frames()?;
        self.give_up_unsealed()
    }

    /// Records of the snapshot's tails that are in frames by now are in no tail.
    fn drop_sealed(&mut self) {
        let Some(plan) = self.plan.clone() else { return };
        for id in self.tails.streams() {
            let (Some(tail), Some(stream)) = (self.tails.take(id), plan.streams.get(id.index())) else { continue };
            let sealed_to = self.accounts.of_stream(stream).sealed_to;
            let sealed = usize::try_from((sealed_to + 1).saturating_sub(tail.first)).unwrap_or(usize::MAX);
            if sealed < tail.records.len() {
                let first = tail.first.max(sealed_to + 1);
                self.tails.append(id, first, tail.records.into_iter().skip(sealed), tail.since);
            }
        }
    }

    fn is_damaged(&self) -> bool {
        self.lost.is_some()
    }

    /// Brings the accounts up to what frames tell, because a chunk may be missing that knew of them. After a salvage frames may be missing as well:
    /// gaps name what lies between others, and then what lies before the first that is left.
    fn count_frames(&mut self) -> Result<(), StoreError> {
        let mut found: BTreeMap<StreamKey, Left> = BTreeMap::new();
        for frame in self.file.lanes()? {
            found.entry(frame.key.clone()).or_default().add(&frame);
            let account = self.accounts.of_key(&frame.key);
            if frame.epoch == self.epoch {
                account.sealed_to = account.sealed_to.max(frame.to);
                account.next = account.next.max(frame.to + 1);
            }
        }
        for (key, account) in self.accounts.iter_mut() {
            let mut left = found.remove(key).unwrap_or_default();
            let stored = left.records + (account.next - 1).saturating_sub(account.sealed_to);
            let missing = account.stored.saturating_sub(stored);
            if self.is_salvaged && missing > 0 {
                let mut named = 0;
                for (epoch, from, to) in left.missing(missing, self.epoch, account.sealed_to) {
                    named += to + 1 - from;
                    let sealed = Sealed { key: key.clone(), epoch, from, to, bytes: 0, is_damaged: true };
                    tracing::error!(stream = &*key.stream, from, to, "records were lost with a damaged store");
                    self.gaps.add(sealed.gap("damaged", None));
                }
                account.in_gaps += named;
                // What lay between frames may have been delivered before.
                account.acknowledged = account.acknowledged.saturating_sub(named.saturating_sub(missing));
            }
            account.stored = stored;
            account.stored_bytes = left.bytes;
            account.numbered = account.acknowledged + account.stored + account.in_gaps;
        }
        Ok(())
    }

    /// Every number that is neither in a frame nor in a tail lies in a gap from now on, and no more are given in this epoch.
    fn give_up_unsealed(&mut self) -> Result<(), StoreError> {
        let plan = self.plan.clone();
        let named = |(id, last): (StreamId, u64)| Some((accounts::key(plan.as_ref()?.streams.get(id.index())?), last));
        let ends = sorted::map(self.tails.ends().filter_map(named));
        for (key, account) in self.accounts.iter_mut() {
            let kept_to = ends.get(key).copied().unwrap_or_default().max(account.sealed_to);
            let last = account.next - 1;
            if last <= kept_to {
                continue;
            }
            account.stored = account.stored.saturating_sub(last - kept_to);
            account.in_gaps += last - kept_to;
            account.numbered = account.acknowledged + account.stored + account.in_gaps;
            tracing::error!(stream = &*key.stream, from = kept_to + 1, to = last, "records cannot be replayed");
            self.gaps.add(Gap {
                stream: key.stream.clone(),
                epoch: Some(self.epoch),
                class: Some(key.class.clone()),
                from: kept_to + 1,
                to: last,
                count: None,
                start: None,
                end: None,
                reason: REPLAY_FAILED.into(),
                covered_by: None,
            });
        }
        self.begin(Some(self.epoch), REPLAY_FAILED);
        Ok(())
    }
}

/// The frames of a stream and class that are left.
#[derive(Default)]
struct Left {
    records: u64,
    bytes: u64,
    /// The first and the last number of each epoch, in their order.
    epochs: Vec<(Epoch, u64, u64)>,
    holes: Vec<(Epoch, u64, u64)>,
}

impl Left {
    fn add(&mut self, frame: &Sealed) {
        self.records += frame.to + 1 - frame.from;
        self.bytes += frame.bytes;
        match self.epochs.iter_mut().find(|(epoch, ..)| *epoch == frame.epoch) {
            Some((epoch, _, last)) => {
                if frame.from > *last + 1 {
                    self.holes.push((*epoch, *last + 1, frame.from - 1));
                }
                *last = frame.to.max(*last);
            }
            None => self.epochs.push((frame.epoch, frame.from, frame.to)),
        }
    }

    /// Where `count` records are missing, of which the last may be `sealed_to` in `epoch`.
    fn missing(&mut self, count: u64, epoch: Epoch, sealed_to: u64) -> Vec<(Epoch, u64, u64)> {
        let last = self.epochs.iter().find(|(known, ..)| *known == epoch).map(|(.., last)| *last);
        if let Some(last) = last.filter(|last| *last < sealed_to) {
            self.holes.push((epoch, last + 1, sealed_to));
        }
        let mut missing = std::mem::take(&mut self.holes);
        let between: u64 = missing.iter().map(|(_, from, to)| to + 1 - from).sum();
        let before = count.saturating_sub(between);
        let (epoch, first) = self.epochs.first().map_or((epoch, sealed_to + 1), |(epoch, first, _)| (*epoch, *first));
        if before > 0 && first > 1 {
            missing.push((epoch, first.saturating_sub(before).max(1), first - 1));
        }
        missing
    }
}
