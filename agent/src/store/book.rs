//! What a store says of itself at one instant, and what that means: accounts, and the records that wait in the journal.

use std::collections::BTreeMap;
use std::sync::Arc;

use rtlive_core::engine::Engine;
use rtlive_core::event::Event;
use rtlive_core::journal::{Account, Chunk, StreamKey};
use rtlive_core::plan::{Plan, StreamId, StreamPlan};
use rtlive_core::reading::SeriesInfo;
use rtlive_core::record::{Emitted, Epoch, Gap, Record};
use rtlive_core::sorted;
use rtlive_core::time::Timestamp;

use super::accounts::{self, Accounts};
use super::look::Lane;
use super::snapshot::SavedSnapshot;

/// What was read in one transaction, undecoded.
#[derive(Debug)]
pub struct Book {
    /// The epoch that numbers count in, and the boot that it belongs to; `None` in a store that was never committed to.
    pub meta: Option<(Epoch, String)>,
    /// The snapshots by the numbers of their commits, the newest first.
    pub snapshots: Vec<(u64, Vec<u8>)>,
    /// The journal by the numbers of its commits.
    pub chunks: Vec<(u64, Vec<u8>)>,
    /// The frames, summed up.
    pub lanes: Vec<Lane>,
}

/// What a book means.
#[derive(Debug, Default)]
pub struct Reckoning {
    /// The last commit that can be read: its number, and when it was made.
    pub last_commit: Option<(u64, Timestamp)>,
    /// What the agent computed then.
    pub plan: Option<Arc<Plan>>,
    /// The series that it knew.
    pub series: Vec<SeriesInfo>,
    /// The accounts of the streams.
    pub accounts: BTreeMap<StreamKey, Account>,
    /// The records that are in no frame yet.
    pub waiting: Vec<Waiting>,
    /// The gaps that have no number yet.
    pub gaps: Vec<Gap>,
    /// What does not hold, for people; empty in a sound store.
    pub faults: Vec<String>,
}

/// Records of a stream that are in no frame yet.
#[derive(Clone, Debug)]
pub struct Waiting {
    /// Their stream.
    pub stream: StreamPlan,
    /// The number of the first.
    pub first: u64,
    /// The records, in the order of their numbers.
    pub records: Vec<Record>,
}

impl Book {
    /// Reads snapshot and journal, and replays what came after the snapshot, as a start would.
    pub fn reckon(&self) -> Reckoning {
        let mut reckoning = Reckoning::default();
        let faults = &mut reckoning.faults;
        let mut newest = None;
        for (number, bytes) in &self.snapshots {
            match SavedSnapshot::decode(bytes).filter(|snapshot| snapshot.number == *number) {
                Some(snapshot) => newest = newest.or(Some(snapshot)),
                None => faults.push(format!("the snapshot of commit {number} is damaged")),
            }
        }
        let mut chunks = Vec::new();
        for (number, bytes) in &self.chunks {
            match Chunk::decode(bytes) {
                Ok(chunk) if chunk.number == *number => chunks.push(chunk),
                Ok(chunk) => {
                    faults.push(format!("commit {number}: expected its chunk, found that of {}", chunk.number))
                }
                Err(error) => faults.push(format!("commit {number}: {error}")),
            }
        }
        let Some(snapshot) = newest else {
            if self.meta.is_some() {
                faults.push("no snapshot can be read: what is in no frame is lost".into());
            }
            return reckoning;
        };
        reckoning.follow(snapshot, &chunks, self.meta.as_ref().map(|(epoch, _)| *epoch));
        reckoning.compare(&self.lanes);
        reckoning
    }
}

impl Reckoning {
    fn follow(&mut self, snapshot: SavedSnapshot, chunks: &[Chunk], epoch: Option<Epoch>) {
        let mut accounts = Accounts::of(snapshot.accounts);
        let mut last = (snapshot.number, snapshot.at);
        let mut waiting: BTreeMap<StreamId, (u64, Vec<Record>)> = BTreeMap::new();
        let mut engine = Engine::restore(snapshot.plan.clone(), &snapshot.engine)
            .inspect_err(|error| self.faults.push(format!("the engine of commit {}: {error}", snapshot.number)))
            .ok();
        let mut plan = snapshot.plan;
        self.gaps = snapshot.gaps;
        for tail in snapshot.tails.into_iter().filter(|_| Some(snapshot.epoch) == epoch) {
            waiting.insert(tail.stream, (tail.first, tail.records));
        }
        for chunk in chunks.iter().filter(|chunk| chunk.number > snapshot.number) {
            if chunk.number != last.0 + 1 {
                self.faults.push(format!("expected commit {}, found {}", last.0 + 1, chunk.number));
                engine = None;
            }
            last = (chunk.number, chunk.at);
            accounts.apply(&chunk.accounts);
            if let Some(gaps) = &chunk.gaps {
                self.gaps.clone_from(gaps);
            }
            let mut emitted: BTreeMap<StreamId, Vec<Record>> = BTreeMap::new();
            if let Some(engine) = &mut engine {
                let mut out = Vec::new();
                chunk.events.iter().for_each(|(at, event)| engine.handle(*at, event, &mut out));
                for Emitted { stream, record } in out {
                    emitted.entry(stream).or_default().push(record);
                }
                for range in chunk.ranges.iter().filter(|_| chunk.epoch == epoch) {
                    let records = emitted.remove(&range.stream).unwrap_or_default();
                    if records.len() as u64 != range.count {
                        self.faults.push(format!(
                            "commit {}: expected {} records of stream {}, found {} in its replay",
                            chunk.number,
                            range.count,
                            plan.streams.get(range.stream.index()).map_or("?", |stream| &stream.name),
                            records.len()
                        ));
                        continue;
                    }
                    waiting.entry(range.stream).or_insert((range.first, Vec::new())).1.extend(records);
                }
            }
            if let Some(next) = chunk.events.iter().rev().find_map(|(_, event)| match event {
                Event::Reload(next) => Some(next),
                _ => None,
            }) {
                plan = next.clone();
            }
        }
        for (stream, (first, mut records)) in waiting {
            let Some(stream) = plan.streams.get(stream.index()) else { continue };
            let sealed_to = accounts.of_stream(stream).sealed_to;
            let sealed = usize::try_from((sealed_to + 1).saturating_sub(first)).unwrap_or(usize::MAX);
            records.drain(..sealed.min(records.len()));
            if !records.is_empty() {
                self.waiting.push(Waiting { stream: stream.clone(), first: first.max(sealed_to + 1), records });
            }
        }
        self.series = engine.map(|engine| engine.series().to_vec()).unwrap_or_default();
        self.accounts = sorted::map(accounts.all());
        self.last_commit = Some(last);
        self.plan = Some(plan);
    }

    /// Whether the accounts close, and say of every stream what its frames and the journal hold.
    fn compare(&mut self, lanes: &[Lane]) {
        for (key, account) in &self.accounts {
            let name = &key.stream;
            if !account.closes() {
                let Account { numbered, acknowledged, stored, in_gaps, .. } = account;
                self.faults.push(format!(
                    "stream {name}: expected numbered = acknowledged + stored + in gaps, found {numbered} = {acknowledged} + {stored} + {in_gaps}"
                ));
            }
            let lanes = lanes.iter().filter(|lane| lane.key == *key);
            let (records, bytes) =
                lanes.fold((0, 0), |(records, bytes), lane| (records + lane.records, bytes + lane.bytes));
            let unsealed = (account.next - 1).saturating_sub(account.sealed_to);
            if account.stored != records + unsealed || account.stored_bytes != bytes {
                self.faults.push(format!(
                    "stream {name}: expected {} records stored and {} bytes in frames, found {records} in frames and {unsealed} in the journal, and {bytes} bytes",
                    account.stored, account.stored_bytes
                ));
            }
            let waiting = self.waiting.iter().filter(|waiting| accounts::key(&waiting.stream) == *key);
            let replayed: u64 = waiting.map(|waiting| waiting.records.len() as u64).sum();
            if replayed != unsealed {
                self.faults.push(format!(
                    "stream {name}: expected {unsealed} records to wait in the journal, found {replayed}"
                ));
            }
        }
        for lane in lanes.iter().filter(|lane| !self.accounts.contains_key(&lane.key)) {
            self.faults.push(format!("stream {}: expected an account of its frames, found none", lane.key.stream));
        }
    }
}
