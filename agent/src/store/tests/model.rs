//! Random operations, crashes and reopenings, against a model that knows every number that was ever given.

use std::collections::BTreeMap;
use std::fs;
use std::sync::Mutex;

use proptest::prelude::*;
use rtlive_core::record::Epoch;

use tempfile::TempDir;

use super::*;
use crate::message::FrameId;
use crate::store::{Fault, Faults};

#[derive(Clone, Debug)]
enum Operation {
    Commit {
        values: Vec<usize>,
        with_snapshot: bool,
    },
    /// A commit of which an operation of the disk fails, and the file is opened again.
    Fail {
        values: Vec<usize>,
        with_snapshot: bool,
        skip: usize,
        fault: Fault,
    },
    /// Another plan from now on.
    Reload(usize),
    /// So many bytes of frames may wait from now on, until the store is opened again.
    Bound(u64),
    Vacuum,
    Take {
        except: Option<usize>,
    },
    Acknowledge(usize),
    GiveBack(usize),
    Requeue,
    Hint(LinkHint),
    Pass(u8),
    Reopen {
        other_boot: bool,
        closes: bool,
    },
}

fn operation() -> impl Strategy<Value = Operation> {
    let hint = (any::<bool>(), any::<bool>()).prop_map(|(connected, congested)| LinkHint { connected, congested });
    let work = || (prop::collection::vec(0..STREAMS.len(), 0..6), prop::bool::weighted(0.1));
    let fault = prop::sample::select(vec![Fault::Full, Fault::Io, Fault::IoAfterwards]);
    prop_oneof![
        6 => work().prop_map(|(values, with_snapshot)| Operation::Commit { values, with_snapshot }),
        1 => (work(), 0_usize..12, fault)
            .prop_map(|((values, with_snapshot), skip, fault)| Operation::Fail { values, with_snapshot, skip, fault }),
        1 => (0..PLANS).prop_map(Operation::Reload),
        1 => prop::sample::select(vec![0, 300, 1_000, u64::MAX]).prop_map(Operation::Bound),
        1 => Just(Operation::Vacuum),
        6 => prop::option::weighted(0.2, 0..STREAMS.len()).prop_map(|except| Operation::Take { except }),
        4 => (0_usize..4).prop_map(Operation::Acknowledge),
        1 => (0_usize..4).prop_map(Operation::GiveBack),
        1 => Just(Operation::Requeue),
        2 => hint.prop_map(Operation::Hint),
        2 => any::<u8>().prop_map(Operation::Pass),
        2 => (any::<bool>(), any::<bool>()).prop_map(|(other_boot, closes)| Operation::Reopen { other_boot, closes }),
    ]
}

/// How many plans there are: in each, the stream `bulk` has another batch.
const PLANS: usize = 3;

fn plan_of(number: usize) -> Arc<Plan> {
    let mut plan = (*plan()).clone();
    let bulk = plan.streams.last_mut().unwrap();
    bulk.batch = [bulk.batch, BatchLimit::Auto, BatchLimit::Count(1)][number];
    Arc::new(plan)
}

struct Model {
    folder: TempDir,
    store: Option<Store>,
    /// Which operation of the disk fails next, and how.
    failing: Arc<Mutex<Option<(usize, Fault)>>>,
    plan: usize,
    boot: u64,
    opened: u64,
    now: i64,
    /// By epoch and stream: the value under each number, from 1.
    numbered: BTreeMap<(Epoch, usize), Vec<i64>>,
    /// By epoch, stream and first number: the bytes of every frame that was seen.
    seen: BTreeMap<(Epoch, usize, u64), Vec<u8>>,
    /// What was given out and not answered: frame, epoch, stream, first number, and how many.
    given: Vec<(FrameId, Epoch, usize, u64, u64)>,
    /// Acknowledged, and not yet committed; and how many records that is for good.
    acknowledged: Vec<(Epoch, usize, u64, u64)>,
    arrived: BTreeMap<(Epoch, usize, u64), u64>,
    /// What gaps say is not coming, likewise.
    gone: BTreeMap<(Epoch, usize, u64), u64>,
    next_value: i64,
    first_commit: bool,
}

impl Model {
    fn new() -> Self {
        let mut model = Self {
            folder: folder(),
            store: None,
            failing: Arc::default(),
            plan: 0,
            boot: 0,
            opened: 0,
            now: 0,
            numbered: BTreeMap::new(),
            seen: BTreeMap::new(),
            given: Vec::new(),
            acknowledged: Vec::new(),
            arrived: BTreeMap::new(),
            gone: BTreeMap::new(),
            next_value: 0,
            first_commit: true,
        };
        model.open();
        model
    }

    fn open(&mut self) {
        self.opened += 1;
        let failing = self.failing.clone();
        let faults = Faults::new(move |_| match &mut *failing.lock().unwrap() {
            Some((skip @ 1.., _)) => {
                *skip -= 1;
                None
            }
            failing => failing.take().map(|(_, fault)| fault),
        });
        let options = Options { faults, ..Options::new(self.folder.path().to_owned()) };
        let (store, recovered) = open_as(&options, self.boot, self.now, self.opened);
        assert_eq!(recovered.snapshot.is_none(), self.opened == 1);
        self.store = Some(store);
        self.first_commit = true;
        self.given.clear();
        self.acknowledged.clear();
    }

    fn store(&mut self) -> &mut Store {
        self.store.as_mut().unwrap()
    }

    fn carry_out(&mut self, operation: Operation) {
        match operation {
            Operation::Commit { values, with_snapshot } => {
                let (commit, values) = self.commit(values, with_snapshot);
                self.store().commit(commit).unwrap();
                self.committed(values);
            }
            Operation::Fail { values, with_snapshot, skip, fault } => {
                let (commit, values) = self.commit(values, with_snapshot);
                let before = self.store().last_number;
                *self.failing.lock().unwrap() = Some((skip, fault));
                let result = self.store().commit(commit);
                *self.failing.lock().unwrap() = None;
                if result.is_err() {
                    // Whether it was made all the same is seen in the file.
                    self.store = None;
                    let acknowledged = std::mem::take(&mut self.acknowledged);
                    self.open();
                    if self.store().last_number == before {
                        return self.check();
                    }
                    self.acknowledged = acknowledged;
                }
                self.committed(values);
            }
            Operation::Reload(plan) => {
                let (mut commit, values) = self.commit(Vec::new(), true);
                self.plan = plan;
                commit.events.push((commit.at, Event::Reload(plan_of(plan))));
                commit.snapshot = Some(Snapshot { plan: plan_of(plan), engine: Vec::new() });
                self.store().commit(commit).unwrap();
                self.committed(values);
            }
            Operation::Bound(bytes) => self.store().set_bytes_max(bytes),
            Operation::Vacuum => drop(self.store().file.vacuum(0, 0).unwrap()),
            Operation::Take { except } => {
                let except: Vec<Arc<str>> = except.iter().map(|&stream| STREAMS[stream].0.into()).collect();
                if let Some(frame) = self.store().take(&except).unwrap() {
                    assert!(!except.contains(&frame.stream));
                    self.look_at(&frame);
                }
            }
            Operation::Acknowledge(place) if place < self.given.len() => {
                let (id, epoch, stream, first, count) = self.given.remove(place);
                self.store().acknowledge(&[id, id]);
                self.acknowledged.push((epoch, stream, first, count));
            }
            Operation::GiveBack(place) if place < self.given.len() => {
                let (id, ..) = self.given.remove(place);
                self.store().give_back(&[id]);
            }
            Operation::Acknowledge(_) | Operation::GiveBack(_) => {}
            Operation::Requeue => {
                self.given.clear();
                self.store().requeue();
            }
            Operation::Hint(hint) => self.store().hint(hint),
            Operation::Pass(seconds) => {
                self.now += i64::from(seconds);
                let now = at(self.now);
                if self.store().wants_flush(now) {
                    self.store().flush(now).unwrap();
                    self.settled();
                }
            }
            Operation::Reopen { other_boot, closes } => {
                if closes {
                    self.store.take().into_iter().for_each(|store| store.close().unwrap());
                } else {
                    // What a process leaves that is killed.
                    let left = folder();
                    for entry in fs::read_dir(self.folder.path()).unwrap().map(Result::unwrap) {
                        fs::copy(entry.path(), left.path().join(entry.file_name())).unwrap();
                    }
                    self.store = None;
                    self.folder = left;
                }
                self.boot += u64::from(other_boot);
                self.open();
            }
        }
        self.check();
    }

    /// A commit of new values of these streams.
    fn commit(&mut self, streams: Vec<usize>, with_snapshot: bool) -> (Commit, Vec<(usize, i64)>) {
        let values: Vec<_> = streams.into_iter().map(|stream| (stream, self.value())).collect();
        let with_snapshot = with_snapshot || std::mem::take(&mut self.first_commit);
        let mut commit = commit(self.now, &values, with_snapshot);
        commit.snapshot = with_snapshot.then(|| Snapshot { plan: plan_of(self.plan), engine: Vec::new() });
        (commit, values)
    }

    fn committed(&mut self, values: Vec<(usize, i64)>) {
        // A commit that failed is not the first one any more where it was made.
        let epoch = self.epoch();
        for (stream, value) in values {
            self.numbered.entry((epoch, stream)).or_default().push(value);
        }
        self.settled();
    }

    fn value(&mut self) -> i64 {
        self.next_value += 1;
        self.next_value
    }

    fn epoch(&mut self) -> Epoch {
        self.store().status().unwrap().epoch.unwrap()
    }

    /// A commit has deleted what was acknowledged before it.
    fn settled(&mut self) {
        for (epoch, stream, first, count) in self.acknowledged.drain(..) {
            assert_eq!(self.arrived.insert((epoch, stream, first), count), None, "a frame was deleted, and came again");
        }
    }

    fn look_at(&mut self, frame: &StoredFrame) {
        let (first, records, values) = contents(frame);
        for record in &records {
            if let Record::Gap(gap) = record {
                let stream = STREAMS.iter().position(|(name, ..)| *name == &*gap.stream).unwrap();
                let known = self.gone.insert((gap.epoch.unwrap(), stream, gap.from), gap.records());
                assert!(known.is_none_or(|known| known == gap.records()), "{gap:?}");
            }
        }
        let Some(stream) = STREAMS.iter().position(|(name, ..)| *name == &*frame.stream) else { return };
        let range = first as usize - 1..first as usize - 1 + records.len();
        assert_eq!(self.numbered[&(frame.epoch, stream)][range], values);
        let bytes = self.seen.entry((frame.epoch, stream, first)).or_insert_with(|| frame.bytes.to_vec());
        assert_eq!(**bytes, *frame.bytes, "a frame's bytes never change");
        let known = |given: &(FrameId, Epoch, usize, u64, u64)| given.0 == frame.id;
        assert!(!self.given.iter().any(known), "a frame is given out once");
        self.given.push((frame.id, frame.epoch, stream, first, values.len() as u64));
    }

    fn check(&mut self) {
        let status = self.store().status().unwrap();
        assert_eq!(status.check(), Vec::<String>::new());
        for (stream, (name, ..)) in STREAMS.iter().enumerate() {
            let of_stream = |lane: usize| lane == stream;
            let numbered: usize =
                self.numbered.iter().filter(|((_, lane), _)| of_stream(*lane)).map(|(_, values)| values.len()).sum();
            let arrived: u64 =
                self.arrived.iter().filter(|((_, lane, _), _)| of_stream(*lane)).map(|(_, count)| count).sum();
            let account = status.streams.iter().find(|(key, _)| &*key.stream == *name).map(|(_, account)| *account);
            let account = account.unwrap_or_default();
            assert_eq!((account.numbered, account.acknowledged), (numbered as u64, arrived), "{name}");
        }
    }

    /// Everything is sealed, taken and acknowledged; nothing must be missing that no gap names.
    fn finish(mut self) {
        self.carry_out(Operation::Requeue);
        self.carry_out(Operation::Bound(u64::MAX));
        self.carry_out(Operation::Hint(CONNECTED));
        self.carry_out(Operation::Commit { values: Vec::new(), with_snapshot: true });
        while let Some(frame) = self.store().take(&[]).unwrap() {
            self.look_at(&frame);
            self.store().acknowledge(&[frame.id]);
        }
        let given = std::mem::take(&mut self.given);
        self.acknowledged
            .extend(given.into_iter().map(|(_, epoch, stream, first, count)| (epoch, stream, first, count)));
        self.carry_out(Operation::Commit { values: Vec::new(), with_snapshot: false });
        for (&(epoch, stream), values) in &self.numbered {
            let lane = (epoch, stream, 0)..=(epoch, stream, u64::MAX);
            let mut told: Vec<_> = self.arrived.range(lane.clone()).chain(self.gone.range(lane)).collect();
            told.sort();
            let mut next = 1;
            for (&(.., first), count) in told {
                assert_eq!(first, next);
                next += count;
            }
            assert_eq!(next - 1, values.len() as u64, "{} of {epoch}", STREAMS[stream].0);
        }
        let status = self.store().status().unwrap();
        let in_gaps: u64 = status.streams.values().map(|account| account.in_gaps).sum();
        assert_eq!(in_gaps, self.gone.values().sum::<u64>());
        let left: Vec<_> =
            status.streams.iter().filter(|(_, account)| account.stored + account.stored_bytes > 0).collect();
        assert!(left.is_empty(), "{left:?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 100, ..ProptestConfig::default() })]
    #[test]
    fn every_number_is_given_once_and_leaves_after_its_acknowledgement(
        operations in prop::collection::vec(operation(), 1..60),
    ) {
        let mut model = Model::new();
        model.carry_out(Operation::Commit { values: vec![0, 1, 2], with_snapshot: true });
        for operation in operations {
            model.carry_out(operation);
        }
        model.finish();
    }
}
