//! A device whose clock is wrong, simulated: the real judge of the clock, engine, stage and store, on a machine that boots in 1970, is
//! synchronised after a while, loses its power before and after that, is suspended, and whose clock is set by hours, years and a leap second.
//!
//! What must be true: each reading's time is right within 50 ms of the truth where it can be known, marked where it cannot, and every one is
//! accounted for; windows hold what their true times say. `RTLIVE_SEED=n` runs one seed, `RTLIVE_SEEDS=n` runs n.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "simulation/random.rs"]
mod random;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use random::Random;
use rtlive::clock::{Judge, Look, Verdict, built_at};
use rtlive::message::Delivery;
use rtlive::recovery;
use rtlive::stage::Stage;
use rtlive::store::{Boot, Keeper, Options};
use rtlive_core::event::{Batch, ClockChange, Declared, Event};
use rtlive_core::plan::Plan;
use rtlive_core::reading::{ClockState, InputId, Quality, Reading, SeriesId, SeriesInfo, Value};
use rtlive_core::record::Record;
use rtlive_core::time::Timestamp;
use rtlive_drivers::catalogue::Drivers;

const SEEDS: u64 = 300;
const MS: i64 = 1_000_000;
const SECOND: i64 = 1_000 * MS;
const HOUR: i64 = 3_600 * SECOND;
const YEAR: i64 = 8_766 * HOUR;

/// How wrong a time may be that is not marked.
const WRONG_MAX: i64 = 50 * MS;

/// How wrong a clock is that is synchronised, in milliseconds.
const SYNCHRONISED_WITHIN_MS: i64 = 20;

const CONFIGURATION: &str = r##"
[agent]
id = "gw"
[inputs.poll]
driver = "simulated"
[streams.raw]
select = "#"
[windows.ten]
select = "#"
every = "10s"
"##;

/// A reading as the world knows it.
#[derive(Clone, Copy, Debug)]
struct Taken {
    /// When it was.
    time: i64,
    boot: u64,
    /// The commit that covers it.
    commit: Option<u64>,
}

/// The running agent.
struct Process {
    store: Keeper,
    stage: Stage,
    judge: Judge,
    verdict: Verdict,
    delivered: u64,
    /// What was stamped and not delivered yet.
    waiting: Vec<(i64, Delivery)>,
    /// What the next commit will cover.
    open: Vec<i64>,
    wants_snapshot: bool,
}

/// The machine, and everything outside of it.
struct World {
    random: Random,
    plan: Arc<Plan>,
    folder: PathBuf,
    /// The truth: UTC, which a leap second holds back.
    utc: i64,
    boot: u64,
    look: Look,
    process: Option<Process>,
    commits: u64,
    taken: BTreeMap<i64, Taken>,
    /// What came of each reading: its time, or `None` where it is marked.
    told: BTreeMap<i64, Option<i64>>,
    /// The newest revision of each window: how many readings, and whether that is final.
    windows: BTreeMap<i64, (u32, i64, bool)>,
    /// The last commit of a boot in which its clock came to be trusted.
    trusted: BTreeMap<u64, u64>,
}

impl World {
    fn new(seed: u64, folder: &Path) -> Self {
        let file = folder.join("rtlive.toml");
        std::fs::write(&file, CONFIGURATION).unwrap();
        let plan = rtlive_config::load(&[file], &Drivers).unwrap_or_else(|mistakes| panic!("{mistakes}")).plan;
        Self {
            random: Random::new(seed),
            plan,
            folder: folder.to_owned(),
            utc: built_at().as_nanos() + YEAR,
            boot: 0,
            look: Look { uptime: 0, ahead: 0, slept: 0, is_synchronised: false, has_keeper: true },
            process: None,
            commits: 0,
            taken: BTreeMap::new(),
            told: BTreeMap::new(),
            windows: BTreeMap::new(),
            trusted: BTreeMap::new(),
        }
    }

    fn run(&mut self) {
        self.power_up();
        for _ in 0..self.random.between(100, 400) {
            let span = *self.random.pick(&[50, 300, 1_000, 5_000, 20_000]);
            let span = self.random_ms(span);
            self.pass(span);
            match self.random.between(0, 100) {
                0..=1 => self.cut_power(),
                2..=3 => self.process = None,
                4..=8 => self.synchronise(),
                9..=11 => self.set_clock(),
                12 => self.suspend(),
                13 => self.insert_leap_second(),
                14..=40 => self.commit(),
                _ => self.read(),
            }
            if self.process.is_none() {
                self.start();
            }
        }
        self.synchronise();
        self.pass(70 * SECOND);
        self.deliver();
        self.commit();
        self.check();
    }

    fn random_ms(&mut self, most: i64) -> i64 {
        self.random.between(1, most * MS)
    }

    fn power_up(&mut self) {
        self.tell("it is switched on");
        self.boot += 1;
        let uptime = self.random.between(2, 60) * SECOND;
        // Mostly it is 1970; some boards have a battery, whose clock is some seconds off.
        let off = self.random.between(-5_000, 5_000) * MS;
        let ahead = if self.random.percent(20) { self.utc - uptime + off } else { 0 };
        self.look = Look { uptime, ahead, slept: 0, is_synchronised: false, has_keeper: true };
        self.start();
    }

    fn cut_power(&mut self) {
        self.process = None;
        self.utc += *self.random.pick(&[3 * SECOND, 60 * SECOND, HOUR, YEAR / 3]);
        self.power_up();
    }

    fn start(&mut self) {
        self.tell("the agent starts");
        let boot: Arc<str> = format!("boot {}", self.boot).into();
        let now = Timestamp::from_nanos(self.look.uptime + built_at().as_nanos());
        let open = Boot { id: boot.to_string(), now, random: self.random.next() };
        let (mut store, recovered) = Keeper::open(&Options::new(self.folder.clone()), open).unwrap();
        let mut judged = None;
        let (stage, _) = recovery::restore(&mut store, recovered, &self.plan, |known| {
            let mut judge = Judge::of(known, &boot);
            let verdict = judge.first(self.look);
            judged = Some((judge, verdict));
            let now = Timestamp::from_nanos(self.look.uptime + verdict.ahead);
            (now, Some(ClockChange { boot: boot.clone(), ahead: verdict.ahead, is_trusted: verdict.is_trusted }))
        })
        .unwrap();
        let (judge, verdict) = judged.unwrap();
        let (waiting, open) = (Vec::new(), Vec::new());
        self.process =
            Some(Process { store, stage, judge, verdict, delivered: 0, waiting, open, wants_snapshot: false });
        self.commit();
    }

    /// Time passes; the agent looks at the clock each second.
    fn pass(&mut self, span: i64) {
        let mut left = span;
        while left > 0 {
            let step = left.min(SECOND);
            self.look.uptime += step;
            self.utc += step;
            left -= step;
            self.look_at_clock();
        }
    }

    /// Tells what happens, where one seed is looked at.
    fn tell(&self, what: &str) {
        if std::env::var_os("RTLIVE_SEED").is_some() {
            let Self { utc, boot, look, .. } = self;
            let off = (look.uptime + look.ahead - utc) as f64 / SECOND as f64;
            eprintln!("{utc} boot {boot}, {} s up: {what}; the clock is {off} s ahead", look.uptime / SECOND);
        }
    }

    fn look_at_clock(&mut self) {
        let Some(process) = &mut self.process else { return };
        if let Some(verdict) = process.judge.look(self.look, &[]) {
            let off = (self.look.uptime + verdict.ahead - self.utc) as f64 / SECOND as f64;
            let told = format!("the agent is {off} s ahead, trusted: {}, {}", verdict.is_trusted, verdict.source);
            process.verdict = verdict;
            let (boot, ahead) = (format!("boot {}", self.boot).into(), verdict.ahead);
            let now = Timestamp::from_nanos(self.look.uptime + ahead);
            process.stage.change_clock(now, ClockChange { boot, ahead, is_trusted: verdict.is_trusted });
            self.tell(&told);
        }
        let Some(process) = &mut self.process else { return };
        let now = Timestamp::from_nanos(self.look.uptime + process.verdict.ahead);
        process.stage.tick(now);
    }

    /// The network is there: the clock is set right, and the kernel is told so.
    fn synchronise(&mut self) {
        self.tell("it is synchronised");
        let off = self.random.between(-SYNCHRONISED_WITHIN_MS, SYNCHRONISED_WITHIN_MS + 1) * MS;
        self.look.ahead = self.utc + off - self.look.uptime;
        self.look.is_synchronised = true;
        self.look_at_clock();
    }

    /// Somebody sets the clock, by which it is not synchronised any more.
    fn set_clock(&mut self) {
        self.tell("somebody sets the clock");
        self.look.ahead += *self.random.pick(&[HOUR, -HOUR, YEAR, -YEAR, 5 * SECOND, -5 * SECOND]);
        self.look.is_synchronised = false;
        self.look_at_clock();
    }

    fn suspend(&mut self) {
        self.tell("it is suspended");
        let span = self.random.between(1, 7_200) * SECOND;
        self.look.slept += span;
        self.look.uptime += span;
        self.utc += span;
        if let Some(process) = &mut self.process {
            process.stage.wake(Timestamp::from_nanos(self.look.uptime + process.verdict.ahead));
        }
        self.look_at_clock();
    }

    /// The kernel holds the clock back by a second. Where the clock is not trusted, nobody could know when that was.
    fn insert_leap_second(&mut self) {
        if self.process.as_ref().is_some_and(|process| process.verdict.is_trusted) {
            self.tell("a leap second");
            // What waits on the disk when it comes is a second off: docs/clock.md, "Limits".
            self.deliver();
            self.commit();
            self.utc -= SECOND;
            self.look.ahead -= SECOND;
            self.look_at_clock();
        }
    }

    /// A reading is stamped by the agent's clock; it may be delivered later.
    fn read(&mut self) {
        let id = self.taken.len() as i64;
        let Some(process) = &mut self.process else { return };
        self.taken.insert(id, Taken { time: self.utc, boot: self.boot, commit: None });
        let (input, ahead) = (InputId(0), process.verdict.ahead);
        let time = Timestamp::from_nanos(self.look.uptime + ahead);
        let reading = Reading {
            series: SeriesId(0),
            time,
            value: Value::Int(id),
            quality: Quality::Good,
            check: None,
            clock: ClockState::Unsynced,
        };
        process.delivered += 1;
        let info = SeriesInfo { name: "poll/s1".into(), unit: None };
        let is_first = process.delivered == 1;
        let declared = is_first.then_some(Declared { input, source: "".into(), info }).into_iter().collect();
        let batch = Batch { input, arrival: time, readings: vec![reading], rejected: Vec::new() };
        let (number, state, outage, urgent) = (process.delivered, Vec::new(), None, false);
        process.waiting.push((id, Delivery { input, number, declared, batch, state, outage, urgent, ahead }));
        if self.random.percent(80) {
            self.deliver();
        }
    }

    fn deliver(&mut self) {
        let Some(process) = &mut self.process else { return };
        let now = Timestamp::from_nanos(self.look.uptime + process.verdict.ahead);
        for (id, delivery) in process.waiting.drain(..) {
            process.stage.deliver(now, delivery);
            process.open.push(id);
        }
    }

    fn commit(&mut self) {
        let Some(process) = &mut self.process else { return };
        let now = Timestamp::from_nanos(self.look.uptime + process.verdict.ahead);
        let Some(commit) = process.stage.cut(now, process.wants_snapshot) else { return };
        let (events, records) = (commit.events.clone(), commit.records.clone());
        process.wants_snapshot = process.store.commit(commit).unwrap().wants_snapshot;
        process.stage.committed();
        self.commits += 1;
        for id in process.open.drain(..) {
            self.taken.get_mut(&id).unwrap().commit = Some(self.commits);
        }
        let is_trust = |event: &Event| matches!(event, Event::Clock(change) if change.is_trusted);
        if events.iter().any(|(_, event)| is_trust(event)) {
            self.trusted.insert(self.boot, self.commits);
        }
        for emitted in records {
            let stream = self.plan.streams[emitted.stream.index()].name.clone();
            match emitted.record {
                Record::Reading(Reading { value: Value::Int(id), time, clock, .. }) => {
                    let is_marked = clock == ClockState::Unsynced;
                    assert_eq!((is_marked, &*stream), (is_marked, if is_marked { "unsynced" } else { "raw" }));
                    let told = self.told.insert(id, (!is_marked).then_some(time.as_nanos()));
                    assert_eq!(told, None, "the reading {id} is told twice");
                }
                Record::Aggregate(aggregate) => {
                    let Some(Some(Value::Int(count))) = aggregate.values.first() else { panic!("{aggregate:?}") };
                    let known = self.windows.get(&aggregate.start.as_nanos());
                    assert!(known.is_none_or(|known| known.0 <= aggregate.revision), "{aggregate:?}");
                    let newest = (aggregate.revision, *count, aggregate.is_final);
                    self.windows.insert(aggregate.start.as_nanos(), newest);
                }
                Record::Outage(_) | Record::EpochStart(_) => {}
                other => panic!("{stream}: {other:?}"),
            }
        }
        assert_eq!(process.stage.engine().ledger().check(), None);
        assert_eq!(process.store.status().unwrap().check(), Vec::<String>::new());
    }

    fn check(&self) {
        let mut counts: BTreeMap<i64, i64> = BTreeMap::new();
        let mut accepted = 0;
        for (id, taken) in &self.taken {
            let told = self.told.get(id);
            assert_eq!(told.is_some(), taken.commit.is_some(), "{id}: {taken:?} became {told:?}");
            let Some(told) = told else { continue };
            accepted += 1;
            match told {
                Some(time) => {
                    assert!((time - taken.time).abs() <= WRONG_MAX, "{id}: {taken:?} is told as of {time}");
                    let start = Timestamp::from_nanos(*time).floor(Duration::from_secs(10));
                    *counts.entry(start.as_nanos()).or_default() += 1;
                }
                None => {
                    let trusted = self.trusted.get(&taken.boot).copied();
                    // Both may be of one commit, the trust before it was lost.
                    assert!(
                        trusted <= taken.commit,
                        "{id}: {taken:?} is marked, and was known from commit {trusted:?}"
                    );
                }
            }
        }
        for (start, (_, count, is_final)) in &self.windows {
            let expected = counts.get(start).copied().unwrap_or_default();
            assert!(*count == expected || !is_final, "{start}: {count} instead of {expected}");
        }
        let last = counts.keys().next_back().copied();
        for start in counts.keys().filter(|start| Some(**start) != last) {
            assert!(self.windows.get(start).is_some_and(|(.., is_final)| *is_final), "no window of {start}");
        }
        let account = &self.process.as_ref().unwrap().stage.engine().ledger().inputs[0];
        assert_eq!((account.taken, account.accepted, account.provisional), (accepted, accepted, 0));
        let marked = self.told.values().filter(|told| told.is_none()).count() as u64;
        assert_eq!((account.unsynced, account.late, account.quarantined), (marked, 0, 0));
    }
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

#[test]
fn every_reading_has_its_true_time_or_says_that_it_has_none() {
    let seeds = match number("RTLIVE_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("RTLIVE_SEEDS").unwrap_or(SEEDS),
    };
    let (mut readings, mut marked) = (0, 0);
    for seed in seeds {
        let folder = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap();
        let mut world = World::new(seed, folder.path());
        let ran = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| world.run()));
        assert!(ran.is_ok(), "RTLIVE_SEED={seed}");
        readings += world.told.len();
        marked += world.told.values().filter(|told| told.is_none()).count();
    }
    eprintln!("{readings} readings, {marked} of them marked");
}
