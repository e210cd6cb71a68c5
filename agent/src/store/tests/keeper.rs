//! A disk that fails: at every operation, in every way, for a while. Nothing that was committed is lost, nothing is told twice, no number is given
//! twice.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;

use rtlive_core::record::Epoch;
use rtlive_drivers::outlet::Delivery;

use super::*;
use crate::message::{FrameId, Wanted};
use crate::recovery;
use crate::stage::Stage;
use crate::store::{Fault, Faults, Keeper, RETRY_EVERY};

/// What fails from now on: nothing, or the `skip`th operation that has the name, and for how many operations after it.
#[derive(Default)]
struct Plot {
    fault: Option<Fault>,
    /// The only operation that fails, where there is one.
    only: Option<&'static str>,
    skip: usize,
    lasts: usize,
    /// Every operation that was asked for.
    seen: Vec<&'static str>,
}

#[derive(Clone, Default)]
struct Disk(Arc<Mutex<Plot>>);

impl Disk {
    fn options(&self, folder: &Path) -> Options {
        let plot = self.0.clone();
        let faults = Faults::new(move |doing| {
            let mut plot = plot.lock().unwrap();
            plot.seen.push(doing);
            if plot.only.is_some_and(|only| only != doing) {
                return None;
            }
            if plot.skip > 0 {
                plot.skip -= 1;
                return None;
            }
            if plot.lasts == 0 {
                return None;
            }
            plot.lasts -= 1;
            plot.fault
        });
        Options { faults, ..Options::new(folder.to_owned()) }
    }

    fn fails(&self, fault: Fault, skip: usize, lasts: usize) {
        let mut plot = self.0.lock().unwrap();
        (plot.fault, plot.only, plot.skip, plot.lasts) = (Some(fault), None, skip, lasts);
        plot.seen.clear();
    }

    /// This operation fails from now on.
    fn fails_at(&self, only: &'static str, fault: Fault) {
        self.fails(fault, 0, usize::MAX);
        self.0.lock().unwrap().only = Some(only);
    }

    fn is_mended(&self) {
        self.0.lock().unwrap().lasts = 0;
    }

    fn operations(&self) -> usize {
        self.0.lock().unwrap().seen.len()
    }
}

/// The plan of these tests, in which a real engine passes each series on to its stream.
fn raw_plan() -> Arc<Plan> {
    let mut plan = (*plan()).clone();
    for stream in plan.streams.iter_mut().skip(4) {
        stream.kind = StreamKind::Raw { select: vec![format!("a/{}", stream.name).parse().unwrap()], report: None };
    }
    Arc::new(plan)
}

/// An agent's store through the failures of its disk, and the centre that hears everything.
struct Rig {
    folder: tempfile::TempDir,
    disk: Disk,
    keeper: Keeper,
    stage: Stage,
    delivered: u64,
    second: i64,
    with_snapshot: bool,
    committed: BTreeSet<i64>,
    centre: BTreeMap<(Epoch, Arc<str>, u64), Record>,
    flying: Vec<FrameId>,
}

impl Rig {
    fn new() -> Self {
        Self::with(Disk::default())
    }

    fn with(disk: Disk) -> Self {
        let folder = folder();
        let (keeper, stage) = Self::opened(folder.path(), &disk, 0);
        Self {
            folder,
            disk,
            keeper,
            stage,
            delivered: 0,
            second: 0,
            with_snapshot: true,
            committed: BTreeSet::new(),
            centre: BTreeMap::new(),
            flying: Vec::new(),
        }
    }

    fn opened(folder: &Path, disk: &Disk, second: i64) -> (Keeper, Stage) {
        let boot = Boot { id: "boot".into(), now: at(second), random: 7 + second.unsigned_abs() };
        let (mut keeper, recovered) = Keeper::open(&disk.options(folder), boot).unwrap();
        let (stage, _) = recovery::restore(&mut keeper, recovered, &raw_plan(), |_| (at(second), None)).unwrap();
        keeper.hint(CONNECTED);
        (keeper, stage)
    }

    /// Another process takes the place of this one, in a folder.
    fn open(&mut self, folder: &Path, disk: &Disk) {
        (self.keeper, self.stage) = Self::opened(folder, disk, self.second);
        self.delivered = 0;
        self.with_snapshot = true;
        self.flying.clear();
    }

    /// A restart within the boot.
    fn restart(&mut self) {
        let elsewhere = tempfile::tempdir().unwrap();
        // The lock and the connection go first.
        self.open(elsewhere.path(), &Disk::default());
        let (folder, disk) = (self.folder.path().to_owned(), self.disk.clone());
        self.open(&folder, &disk);
    }

    /// Commits a value of each stream; says whether it is on the disk.
    fn commit(&mut self) -> bool {
        self.second += 1;
        let values: Vec<_> = (0..STREAMS.len()).map(|stream| (stream, self.second * 10 + stream as i64)).collect();
        let declared = |info| Declared { input: InputId(0), source: "".into(), info };
        let declared = if self.delivered == 0 { series().into_iter().map(declared).collect() } else { Vec::new() };
        let Some((_, Event::Batch(batch))) = events(self.second, &values).pop() else { panic!() };
        self.delivered += 1;
        let (input, number, state, outage) = (InputId(0), self.delivered, Vec::new(), None);
        self.stage.deliver(
            at(self.second),
            Delivery { input, number, declared, batch, state, outage, urgent: false, ahead: 0 },
        );
        let commit = self.stage.cut(at(self.second), self.with_snapshot).unwrap();
        let committed = self.keeper.commit(commit).unwrap();
        self.stage.committed();
        self.with_snapshot = committed.wants_snapshot;
        self.committed.extend(values.into_iter().map(|(_, value)| value));
        assert_eq!(self.keeper.status().unwrap().check(), Vec::<String>::new());
        assert_eq!(committed.is_durable, !self.keeper.is_in_memory());
        committed.is_durable
    }

    /// The centre hears what there is; what it heard last is acknowledged only then.
    fn send(&mut self) {
        self.keeper.acknowledge(&std::mem::take(&mut self.flying));
        while let Some(frame) = self.keeper.take(&Wanted::default()).unwrap() {
            assert!(!self.flying.contains(&frame.id), "a frame is given out twice");
            self.flying.push(frame.id);
            let (first, records, _) = contents(&frame);
            for (number, record) in (first..).zip(records) {
                let key = (frame.epoch, frame.stream.clone(), number);
                let known = self.centre.entry(key.clone()).or_insert_with(|| record.clone());
                assert_eq!(*known, record, "{key:?} is given twice");
            }
        }
    }

    /// Time passes, the disk is as it should be, and everything comes home.
    fn come_home(&mut self) {
        self.disk.is_mended();
        self.second += i64::try_from(RETRY_EVERY.as_secs()).unwrap();
        self.with_snapshot |= self.keeper.is_in_memory();
        assert!(self.commit(), "{:?}", self.keeper.status().unwrap().memory);
        self.with_snapshot = true;
        assert!(self.commit());
        self.send();
        self.send();
        self.with_snapshot = true;
        assert!(self.commit());
        self.send();
        self.send();
        // Every number of every lane is there, or a gap names it.
        let gone = self.gone();
        let mut next: BTreeMap<(Epoch, Arc<str>), u64> = BTreeMap::new();
        for (epoch, stream, number) in self.centre.keys().chain(&gone).collect::<BTreeSet<_>>() {
            let next = next.entry((*epoch, stream.clone())).or_insert(1);
            assert_eq!(number, next, "{epoch} {stream}");
            *next += 1;
        }
        assert_eq!(self.keeper.status().unwrap().check(), Vec::<String>::new());
    }

    /// What gaps name.
    fn gone(&self) -> BTreeSet<(Epoch, Arc<str>, u64)> {
        let gap = |record: &Record| match record {
            Record::Gap(gap) => Some((gap.epoch.unwrap(), gap.stream.clone(), gap.from..=gap.to)),
            _ => None,
        };
        let gaps = self.centre.values().filter_map(gap);
        gaps.flat_map(|(epoch, stream, numbers)| numbers.map(move |number| (epoch, stream.clone(), number))).collect()
    }

    /// Why epochs began that the centre heard of, in their order.
    fn starts(&self) -> Vec<String> {
        let start = |record: &Record| match record {
            Record::EpochStart(start) => Some((start.time, start.reason.to_string())),
            _ => None,
        };
        let mut starts: Vec<_> = self.centre.values().filter_map(start).collect();
        starts.sort();
        starts.into_iter().map(|(_, reason)| reason).collect()
    }

    fn values(&self) -> Vec<i64> {
        let value = |record: &Record| match record {
            Record::Reading(Reading { value: Value::Int(value), .. }) => Some(*value),
            _ => None,
        };
        self.centre.values().filter_map(value).collect()
    }

    /// Every value that was committed has arrived, once, but for those that a full disk had no room for, which are named.
    fn all_arrived(&self, fault: Fault) {
        let values = self.values();
        let arrived: BTreeSet<_> = values.iter().copied().collect();
        assert_eq!(values.len(), arrived.len(), "a value arrived twice");
        let named = self.gone().into_iter().filter(|number| !self.centre.contains_key(number)).count();
        let missing: Vec<_> = self.committed.difference(&arrived).collect();
        assert_eq!(missing.len(), named, "{missing:?}: {:?}", self.disk.0.lock().unwrap().seen);
        assert!(arrived.is_subset(&self.committed) && (named == 0 || fault == Fault::Full));
    }
}

const FAULTS: [Fault; 5] = [Fault::Full, Fault::ReadOnly, Fault::Io, Fault::IoAfterwards, Fault::Unreadable];

/// How long a failure may last, in operations of the disk: once, over the second try, and far into operation in memory.
const LASTS: [usize; 3] = [1, 30, usize::MAX];

#[test]
fn every_operation_of_a_commit_may_fail() {
    // How many operations this takes when nothing fails.
    let run = |rig: &mut Rig| {
        rig.commit();
        rig.send();
        rig.commit();
        rig.send();
        rig.with_snapshot = true;
        rig.commit();
    };
    let mut rig = Rig::new();
    rig.commit();
    rig.send();
    rig.disk.fails(Fault::Io, 0, 0);
    run(&mut rig);
    let operations = rig.disk.operations();
    assert!(operations > 20, "{operations}");
    for fault in FAULTS {
        for lasts in LASTS {
            for skip in 0..operations {
                let mut rig = Rig::new();
                rig.commit();
                rig.send();
                eprintln!("{fault:?} for {lasts} operations from {skip} on");
                rig.disk.fails(fault, skip, lasts);
                run(&mut rig);
                // On a loaded machine as on any: what was meant to fail did.
                assert!(rig.disk.operations() > skip);
                rig.commit();
                rig.come_home();
                rig.all_arrived(fault);
                // A restart finds all of it.
                rig.restart();
                assert!(!rig.keeper.is_in_memory());
                rig.come_home();
                rig.all_arrived(fault);
            }
        }
    }
}

#[test]
fn every_operation_of_a_start_may_fail() {
    let made = || {
        let mut rig = Rig::new();
        rig.commit();
        rig.commit();
        rig
    };
    let mut rig = made();
    rig.disk.fails(Fault::Io, 0, 0);
    rig.restart();
    let operations = rig.disk.operations();
    assert!(operations > 0);
    for fault in FAULTS {
        for lasts in LASTS {
            for skip in 0..operations {
                let mut rig = made();
                eprintln!("{fault:?} for {lasts} operations from {skip} on");
                rig.disk.fails(fault, skip, lasts);
                rig.restart();
                rig.commit();
                rig.send();
                rig.commit();
                rig.come_home();
                rig.all_arrived(fault);
            }
        }
    }
}

#[test]
fn a_store_in_memory_has_an_epoch_of_its_own_and_says_so() {
    let mut rig = Rig::new();
    rig.commit();
    rig.send();
    rig.disk.fails(Fault::ReadOnly, 0, usize::MAX);
    assert!(!rig.commit());
    let memory = rig.keeper.status().unwrap().memory.unwrap();
    assert!(memory.since == at(2) && memory.why.contains("readonly"), "{memory:?}");
    rig.come_home();
    assert_eq!(rig.keeper.status().unwrap().memory, None);
    let mut starts: Vec<_> = rig
        .centre
        .iter()
        .filter_map(|((epoch, _, number), record)| match record {
            Record::EpochStart(start) => {
                Some((start.time, *number, *epoch, start.predecessor, start.reason.to_string()))
            }
            _ => None,
        })
        .collect();
    starts.sort();
    let [
        (_, _, first, None, _),
        (_, _, memory, of_memory, why),
        (_, 1, third, one, again),
        (_, 2, also_third, other, _),
    ] = &starts[..]
    else {
        panic!("{starts:?}")
    };
    assert_eq!((of_memory, &**why, &**again), (&Some(*first), "memory", "after_memory"));
    assert_eq!((third, one, other), (also_third, &Some(*memory), &Some(*first)));
    assert!(first != memory && memory != third && first != third);
}

#[test]
fn memory_is_bounded_and_what_goes_is_named() {
    let mut rig = Rig::new();
    rig.commit();
    rig.keeper.hint(LinkHint::default());
    rig.disk.fails(Fault::Full, 0, usize::MAX);
    assert!(!rig.commit());
    rig.keeper.set_bytes_max(2_000);
    for _ in 0..300 {
        rig.second += 60;
        rig.with_snapshot = true;
        assert!(!rig.commit());
        let streams = rig.keeper.status().unwrap().streams;
        // Gaps stay.
        let bytes = streams.iter().filter(|(key, _)| &*key.stream != "gaps").map(|(_, account)| account.stored_bytes);
        assert!(bytes.sum::<u64>() < 3_000);
    }
    rig.keeper.hint(CONNECTED);
    rig.come_home();
    assert!(rig.values().len() < rig.committed.len());
}

#[test]
fn a_full_disk_gives_up_its_reserve_first() {
    let mut rig = Rig::new();
    rig.commit();
    let reserve = rig.folder.path().join("store.reserve");
    assert!(reserve.is_file());
    rig.disk.fails(Fault::Full, 0, 1);
    assert!(rig.commit());
    assert!(!reserve.exists() && !rig.keeper.is_in_memory());
    rig.come_home();
    assert!(reserve.is_file());
}

#[test]
fn what_is_no_file_keeps_no_agent_from_starting() {
    let folder_in_place = |path: &Path| std::fs::create_dir_all(path.join("inside")).unwrap();
    let dangling = |path: &Path| std::os::unix::fs::symlink("/nowhere/at/all", path).unwrap();
    for name in ["store.db", "store.db-wal", "store.db-shm", "rtlive.lock"] {
        for make in [&folder_in_place as &dyn Fn(&Path), &dangling] {
            let mut rig = Rig::new();
            rig.commit();
            let path = rig.folder.path().join(name);
            let folder = tempfile::tempdir().unwrap();
            rig.open(folder.path(), &Disk::default());
            let _ = std::fs::remove_file(&path);
            make(&path);
            rig.restart();
            assert!(!rig.keeper.is_in_memory(), "{name}");
            assert!(rig.commit(), "{name}");
        }
    }
}

#[test]
fn a_folder_that_cannot_be_made_is_no_reason_not_to_start() {
    let mut rig = Rig::new();
    let path = rig.folder.path().join("file");
    std::fs::write(&path, "").unwrap();
    let below = path.join("state");
    let disk = rig.disk.clone();
    rig.open(&below, &disk);
    assert!(!rig.commit());
    std::fs::remove_file(&path).unwrap();
    rig.come_home();
    assert!(below.join("store.db").is_file());
    // And its lock is held from now on.
    let boot = Boot { id: "boot".into(), now: at(50), random: 99 };
    assert!(matches!(Keeper::open(&Options::new(below), boot), Err(crate::store::StoreError::InUse { .. })));
}

#[test]
fn what_can_never_be_read_ends_in_a_salvage_and_not_in_turns_of_disk_and_memory() {
    const SECONDS: i64 = 1_800;
    let mut rig = Rig::new();
    rig.commit();
    rig.disk.fails_at("read a frame", Fault::Unreadable);
    let mut longest = 0;
    let until = rig.second + SECONDS;
    while rig.second < until {
        rig.commit();
        rig.send();
        if let Some(memory) = rig.keeper.status().unwrap().memory {
            longest = longest.max(memory.retry_at.since(at(rig.second)).as_secs());
        }
    }
    let count = |name: &str| rig.disk.0.lock().unwrap().seen.iter().filter(|seen| **seen == name).count();
    assert_eq!(count("end a salvage"), 1);
    // It is tried at once, and then after pauses of 10 s, 20 s, 40 s and so on up to 600 s.
    assert!(count("open the store") < 40 && longest > 500, "{} {longest}", count("open the store"));
    rig.disk.is_mended();
    rig.second += 600;
    rig.come_home();
    rig.all_arrived(Fault::Unreadable);
}

#[test]
fn a_log_that_is_deleted_in_use_costs_nothing() {
    let mut rig = Rig::new();
    rig.commit();
    rig.commit();
    let log = rig.folder.path().join("store.db-wal");
    std::fs::remove_file(&log).unwrap();
    rig.commit();
    rig.keeper.vacuum().unwrap();
    // From now on a process that is killed leaves all that it committed.
    assert!(log.is_file());
    assert!(rig.commit());
    rig.restart();
    rig.come_home();
    rig.all_arrived(Fault::Io);
    assert_eq!(rig.starts(), ["new_store"]);
}

#[test]
fn a_file_that_is_deleted_in_use_is_made_again() {
    let mut rig = Rig::new();
    rig.commit();
    rig.commit();
    std::fs::remove_file(rig.folder.path().join("store.db")).unwrap();
    rig.keeper.vacuum().unwrap();
    assert!(rig.folder.path().join("store.db").is_file() && !rig.keeper.is_in_memory());
    rig.with_snapshot = true;
    assert!(rig.commit());
    rig.send();
    assert_eq!(rig.starts(), ["damaged_store"]);
}

#[test]
fn a_clock_that_goes_back_holds_nothing_up() {
    let mut rig = Rig::new();
    rig.second = 86_400;
    rig.commit();
    rig.disk.fails(Fault::ReadOnly, 0, usize::MAX);
    assert!(!rig.commit());
    rig.disk.is_mended();
    rig.second = 100;
    rig.with_snapshot = true;
    assert!(!rig.commit(), "it is tried in ten seconds");
    rig.second += i64::try_from(RETRY_EVERY.as_secs()).unwrap();
    rig.with_snapshot = true;
    assert!(rig.commit());
}
