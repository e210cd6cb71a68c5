//! History at some resolution outlives detail.

use std::collections::BTreeMap;
use std::time::Duration;

use rtlive_core::plan::{Buckets, Function, LadderPlan, WindowKind, WindowPlan};
use rtlive_core::record::{Aggregate, Gap};

use super::*;
use crate::message::Bounds;

const RAW: StreamId = StreamId(5);
const QUARTER: StreamId = StreamId(6);
const QUARTER_SECONDS: i64 = 900;
const DAY_QUARTERS: i64 = 96;

fn ladder_plan() -> Arc<Plan> {
    let mut plan = (*plan()).clone();
    let select = vec!["#".parse().unwrap()];
    let window = WindowPlan {
        select: select.clone(),
        kind: WindowKind::tumbling(Duration::from_secs(900)),
        lateness: Duration::ZERO,
        emit_every: None,
        compute: vec![Function::Count, Function::Min, Function::Max, Function::Mean],
        buckets: Buckets::default(),
    };
    plan.streams.truncate(7);
    for (stream, name, kind) in
        [(RAW, "raw", StreamKind::Raw { select, report: None }), (QUARTER, "quarter", StreamKind::Window(window))]
    {
        let stream = &mut plan.streams[stream.index()];
        (stream.name, stream.kind, stream.priority) = (name.into(), kind, Priority::Live);
    }
    plan.ladders = vec![LadderPlan { name: "floor".into(), levels: vec![RAW, QUARTER] }];
    Arc::new(plan)
}

/// A site with some series, of which each is read a few times in a quarter of an hour.
struct Site {
    folder: tempfile::TempDir,
    store: Option<Store>,
    series: usize,
    readings: i64,
    bounds: Bounds,
    quarter: i64,
    wants_snapshot: bool,
    opened: u64,
    most: u64,
}

/// What a sensor with a resolution of 0.1 shows: a day's course, and noise.
fn shown(series: usize, second: i64) -> f64 {
    let seed = (second as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(series as u64);
    let noise = (seed ^ (seed >> 29)).wrapping_mul(0xbf58_476d_1ce4_e5b9) >> 40;
    let course = (second as f64 / 86_400.0 * std::f64::consts::TAU + series as f64).sin();
    ((200.0 + 5.0 * series as f64 + 40.0 * course) + (noise % 16) as f64).round() / 10.0
}

impl Site {
    fn new(series: usize, readings: i64, bytes: u64) -> Self {
        let bounds = Bounds { bytes, age: Duration::from_secs(400 * 86_400) };
        let mut site = Self {
            folder: tempfile::tempdir().unwrap(),
            store: None,
            series,
            readings,
            bounds,
            quarter: 0,
            wants_snapshot: true,
            opened: 0,
            most: 0,
        };
        site.open();
        site
    }

    fn infos(&self) -> Vec<SeriesInfo> {
        let info = |n| SeriesInfo { name: format!("site/m{n}/temperature").into(), unit: Some("Cel".into()) };
        (0..self.series).map(info).collect()
    }

    /// The events of a quarter of an hour: its readings, and the end of its window.
    fn events(&self) -> Vec<(Timestamp, Event)> {
        let start = self.quarter * QUARTER_SECONDS;
        let step = QUARTER_SECONDS / self.readings;
        let reading = |series: usize, second: i64| Reading {
            series: SeriesId(series as u32),
            time: at(second),
            value: Value::Float(shown(series, second)),
            quality: Quality::Good,
            check: None,
            clock: ClockState::Synced,
        };
        let readings = (0..self.readings).flat_map(|n| (0..self.series).map(move |series| (series, start + n * step)));
        let readings = readings.map(|(series, second)| reading(series, second)).collect();
        let end = at(start + QUARTER_SECONDS);
        let batch = Batch { input: InputId(0), arrival: end, readings, rejected: Vec::new() };
        vec![(end, Event::Batch(batch)), (end, Event::Tick)]
    }

    /// What an engine with these streams emits.
    fn emitted(&self, events: &[(Timestamp, Event)]) -> Vec<Emitted> {
        let mut out = Vec::new();
        let mut open: BTreeMap<SeriesId, Vec<f64>> = BTreeMap::new();
        for (at, event) in events {
            match event {
                Event::Batch(batch) => out.extend(batch.readings.iter().map(|reading| {
                    let Value::Float(value) = reading.value else { unreachable!("a float") };
                    open.entry(reading.series).or_default().push(value);
                    Emitted { stream: RAW, record: Record::Reading(reading.clone()) }
                })),
                Event::Tick => out.extend(std::mem::take(&mut open).into_iter().map(|(series, values)| {
                    let count = values.len();
                    let fold = |pick: fn(f64, f64) -> f64| Value::Float(values.iter().copied().reduce(pick).unwrap());
                    let mean = Value::Float(values.iter().sum::<f64>() / count as f64);
                    let values = [Value::Int(count as i64), fold(f64::min), fold(f64::max), mean].map(Some);
                    let aggregate = Aggregate {
                        series,
                        start: Timestamp::from_nanos(at.as_nanos() - QUARTER_SECONDS * 1_000_000_000),
                        end: *at,
                        revision: 0,
                        is_final: true,
                        deleted: false,
                        values: Box::new(values),
                    };
                    Emitted { stream: QUARTER, record: Record::Aggregate(aggregate) }
                })),
                _ => {}
            }
        }
        out
    }

    fn open(&mut self) {
        self.store = None;
        self.opened += 1;
        let now = at(self.quarter * QUARTER_SECONDS);
        let boot = Boot { id: "boot 1".into(), now, random: self.opened };
        let (mut store, recovered) = Store::open(&Options::new(self.folder.path().to_owned()), boot).unwrap();
        if recovered.snapshot.is_some() {
            let emitted = recovered.commits.iter().map(|events| self.emitted(events)).collect();
            store.resume(self.infos(), emitted).unwrap();
        }
        store.bound(self.bounds).unwrap();
        self.store = Some(store);
    }

    fn store(&mut self) -> &mut Store {
        self.store.as_mut().unwrap()
    }

    fn pass_quarter(&mut self) {
        let mut events = self.events();
        let records = self.emitted(&events);
        let series = if self.quarter == 0 { self.infos() } else { Vec::new() };
        if self.quarter == 0 {
            let declared = |info| Event::Series(Declared { input: InputId(0), source: "".into(), info });
            events.splice(0..0, self.infos().into_iter().map(|info| (at(0), declared(info))));
        }
        let snapshot = self.wants_snapshot.then(|| Snapshot { plan: ladder_plan(), engine: Vec::new() });
        self.quarter += 1;
        let commit = Commit { series, records, events, snapshot, ..Commit::empty(at(self.quarter * QUARTER_SECONDS)) };
        self.wants_snapshot = self.store().commit(commit).unwrap().wants_snapshot;
        let on_disk =
            std::fs::read_dir(self.folder.path()).unwrap().map(|entry| entry.unwrap().metadata().unwrap().len());
        self.most = self.most.max(on_disk.sum());
    }

    /// The quarters of an hour of each stream that are stored, the oldest first, and all gaps.
    fn told(&mut self) -> (BTreeMap<String, Vec<i64>>, Vec<Gap>) {
        self.store().hint(CONNECTED);
        let now = at(self.quarter * QUARTER_SECONDS);
        self.store().flush(now).unwrap();
        let mut quarters: BTreeMap<String, Vec<i64>> = BTreeMap::new();
        let mut gaps = Vec::new();
        for frame in frames(self.store()) {
            for record in contents(&frame).1 {
                let span = record.span();
                match record {
                    Record::Gap(gap) => gaps.push(*gap),
                    Record::Reading(_) | Record::Aggregate(_) => {
                        let quarter =
                            (span.unwrap().0.as_nanos() - at(0).as_nanos()) / (QUARTER_SECONDS * 1_000_000_000);
                        quarters.entry(frame.stream.to_string()).or_default().push(quarter);
                    }
                    _ => {}
                }
            }
        }
        quarters.values_mut().for_each(|quarters| {
            quarters.sort_unstable();
            quarters.dedup();
        });
        (quarters, gaps)
    }

    /// Lets days pass without a link, and checks that all windows are there, and that of the readings the oldest went, and are covered.
    fn keeps_windows(mut self, days: i64) -> u64 {
        for _ in 0..days * DAY_QUARTERS {
            self.pass_quarter();
        }
        assert!(self.most <= self.bounds.bytes, "{}", self.most);
        let status = self.store().status().unwrap();
        assert_eq!(status.check(), Vec::<String>::new());
        let account = |stream: &str| *status.streams.iter().find(|(key, _)| &*key.stream == stream).unwrap().1;
        let (quarter, raw) = (account("quarter"), account("raw"));
        assert_eq!(quarter.stored, self.series as u64 * (days * DAY_QUARTERS) as u64);
        assert!(raw.in_gaps > 0);
        let (quarters, gaps) = self.told();
        assert_eq!(quarters["quarter"], (0..days * DAY_QUARTERS).collect::<Vec<_>>());
        // The first window is not believed; all else that went is covered, unless nothing more was.
        let covered: u64 =
            gaps.iter().filter(|gap| gap.covered_by.as_deref() == Some("quarter")).map(Gap::records).sum();
        assert!(covered > raw.in_gaps * 9 / 10, "{covered} of {}", raw.in_gaps);
        quarter.stored_bytes * 1000 / quarter.stored
    }
}

#[test]
fn windows_of_a_quarter_of_an_hour_outlive_the_readings() {
    // An eighth of a store of 32 MiB for 100 series, for an eighth of half a year; the log and the journal take the same part of it.
    let millibytes = Site::new(100, 20, 4 << 20).keeps_windows(23);
    println!("{millibytes} bytes / 1000 a record");
    assert!(millibytes < 12_500, "{millibytes} bytes / 1000 a record");
}

/// `cargo test -p rtlive --lib half_a_year -- --ignored`: ten minutes.
#[test]
#[ignore = "takes minutes"]
fn a_store_of_32_mib_keeps_half_a_year_of_a_hundred_series() {
    let millibytes = Site::new(100, 20, 32 << 20).keeps_windows(183);
    println!("{millibytes} bytes / 1000 a record");
}

#[test]
fn only_what_is_told_is_covered() {
    let mut site = Site::new(3, 900, 1 << 20);
    for _ in 0..8 {
        site.pass_quarter();
    }
    let plan = ladder_plan();
    let cover = |site: &mut Site, from: i64, to: i64, lost: Option<i64>| {
        let (events, places) = (site.events(), site.store().series_places.clone());
        let infos = site.infos();
        let mut told = site.store().told.clone();
        if let Some(lost) = lost {
            told.lose(&("quarter".into(), at(lost)));
        }
        let records: Vec<_> = site
            .emitted(&events[..1])
            .into_iter()
            .filter_map(|emitted| match emitted.record {
                Record::Reading(reading) => Some(reading),
                _ => None,
            })
            .flat_map(|reading| {
                [from, to].map(|second| Record::Reading(Reading { time: at(second), ..reading.clone() }))
            })
            .collect();
        let origin = frame::Origin {
            agent: "gw".into(),
            epoch: rtlive_core::record::Epoch(1),
            stream: "raw".into(),
            class: "process".into(),
        };
        let bytes = frame::seal(&origin, 1, &records, &infos, &[], Default::default()).unwrap();
        told.cover(&plan, &places, "raw", || Some(bytes)).is_some()
    };
    let quarter = QUARTER_SECONDS;
    assert!(cover(&mut site, quarter, 8 * quarter - 1, None));
    // The window that is open, and the first, whose beginning may be missing.
    assert!(!cover(&mut site, quarter, 8 * quarter, None));
    assert!(!cover(&mut site, quarter - 1, 2 * quarter, None));
    // What the level lost it does not tell.
    assert!(cover(&mut site, 3 * quarter, 4 * quarter, Some(3 * quarter)));
    assert!(!cover(&mut site, 3 * quarter - 1, 4 * quarter, Some(3 * quarter)));
    assert!(!cover(&mut site, 3 * quarter, 4 * quarter, Some(i64::from(u32::MAX))));
    // All of it is known again after a crash.
    let told = site.store().told.clone();
    site.open();
    assert_eq!(site.store().told, told);
    assert!(cover(&mut site, quarter, 8 * quarter - 1, None));
}

#[test]
fn a_crash_at_any_commit_changes_nothing() {
    const BYTES: u64 = 512 << 10;
    let run = |crash_every: Option<i64>| {
        let mut site = Site::new(12, 60, BYTES);
        for quarter in 0..4 * DAY_QUARTERS {
            site.pass_quarter();
            if crash_every.is_some_and(|every| quarter % every == 0) {
                site.open();
            }
        }
        let told = site.store().told.clone();
        let status = site.store().status().unwrap();
        assert_eq!(status.check(), Vec::<String>::new());
        let streams: Vec<_> =
            status.streams.into_iter().map(|(key, account)| (key, account.numbered, account.stored)).collect();
        let (quarters, gaps) = site.told();
        (told, streams, quarters["quarter"].clone(), gaps)
    };
    let (told, streams, quarters, gaps) = run(None);
    assert!(!gaps.is_empty());
    let other = run(Some(5));
    assert_eq!((&other.0, &other.2), (&told, &quarters));
    // The file may be larger or smaller by a page, and so may what goes; nothing is lost without a name.
    let numbered = |streams: &[(_, u64, u64)]| streams.iter().map(|(_, numbered, _)| *numbered).max();
    assert_eq!(numbered(&other.1), numbered(&streams));
    assert!(other.3.iter().all(|gap| &*gap.stream == "raw"));
}

#[test]
fn the_coarsest_level_is_sent_first() {
    let mut site = Site::new(2, 3, 1 << 20);
    for _ in 0..20 {
        site.pass_quarter();
    }
    site.told();
    let end = site.quarter * QUARTER_SECONDS;
    let store = site.store();
    // Two minutes later all of it is backlog.
    for minute in 1..=2 {
        store.wants_flush(at(end + 60 * minute));
    }
    let streams: Vec<_> =
        std::iter::from_fn(|| store.take(&["gaps".into()]).unwrap()).map(|frame| frame.stream.to_string()).collect();
    let first_raw = streams.iter().position(|stream| stream == "raw").unwrap();
    assert!(first_raw > 0 && streams[..first_raw].iter().all(|stream| stream == "quarter"));
    assert!(streams[first_raw..].iter().all(|stream| stream == "raw"));
}
