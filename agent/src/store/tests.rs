//! The store against a model of it, and against damage.

mod ages;
mod bounds;
mod damage;
mod delivered;
mod keeper;
mod ladder;
mod log;
mod model;
mod order;
mod steps;
mod versions;

use std::path::Path;
use std::sync::Arc;

use rtlive_core::event::{Batch, Declared, Event};
use rtlive_core::frame;
use rtlive_core::plan::{BatchLimit, Format, InputPlan, Plan, Priority, StreamId, StreamKind, StreamPlan};
use rtlive_core::reading::{ClockState, InputId, Quality, Reading, SeriesId, SeriesInfo, Value};
use rtlive_core::record::{Emitted, Record};
use rtlive_core::time::Timestamp;
use tempfile::TempDir;

use super::{Boot, Options, Recovered, Store};
use crate::message::{Commit, LinkHint, Snapshot, StoredFrame};

/// Where a record of series `n` goes: behind the reserved streams.
const STREAMS: [(&str, Priority, BatchLimit); 3] = [
    ("urgent", Priority::Alert, BatchLimit::Auto),
    ("live", Priority::Live, BatchLimit::Auto),
    ("bulk", Priority::Bulk, BatchLimit::Count(3)),
];

fn plan() -> Arc<Plan> {
    let stream = |name: &str, priority, batch| StreamPlan {
        name: name.into(),
        kind: StreamKind::Reserved,
        priority,
        format: Format::Frame,
        batch,
        topic: None,
        bytes_max: None,
        age_max: None,
        order: Default::default(),
        evict: Default::default(),
        class: "process".into(),
    };
    let reserved = ["gaps", "alerts", "late", "quarantine", "unsynced"]
        .map(|name| stream(name, Priority::Alert, BatchLimit::Auto));
    let own = STREAMS.map(|(name, priority, batch)| stream(name, priority, batch));
    let streams = reserved.into_iter().chain(own).collect();
    let inputs = vec![InputPlan::pushed("a".into())];
    Arc::new(Plan {
        agent: "gw".into(),
        labels: [].into(),
        inputs,
        streams,
        rules: Vec::new(),
        quality: Vec::new(),
        derived: Vec::new(),
        ladders: Vec::new(),
    })
}

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_nanos(1_767_225_600_000_000_000 + seconds * 1_000_000_000)
}

fn series() -> Vec<SeriesInfo> {
    STREAMS.iter().map(|(name, ..)| SeriesInfo { name: format!("a/{name}").into(), unit: None }).collect()
}

/// A folder in memory, where there is room for one: what is tried in it takes thousands of syncs.
fn folder() -> TempDir {
    tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap()
}

/// Opens a store as its process does: what the engine of these tests emits is each reading as it is.
fn open(folder: &Path, boot: u64, seconds: i64, random: u64) -> (Store, Recovered) {
    open_as(&Options::new(folder.to_owned()), boot, seconds, random)
}

/// The same with other options.
fn open_as(options: &Options, boot: u64, seconds: i64, random: u64) -> (Store, Recovered) {
    let boot = Boot { id: format!("boot {boot}"), now: at(seconds), random };
    let (mut store, recovered) = Store::open(options, boot).unwrap();
    if recovered.snapshot.is_some() {
        let emitted = recovered.commits.iter().map(|events| emitted(events)).collect();
        store.resume(series(), emitted).unwrap();
    }
    (store, recovered)
}

fn events(seconds: i64, values: &[(usize, i64)]) -> Vec<(Timestamp, Event)> {
    let reading = |&(stream, value): &(usize, i64)| Reading {
        series: SeriesId(u32::try_from(stream).unwrap()),
        time: at(seconds),
        value: Value::Int(value),
        quality: Quality::Good,
        check: None,
        clock: ClockState::Synced,
    };
    let readings: Vec<_> = values.iter().map(reading).collect();
    if readings.is_empty() {
        return Vec::new();
    }
    vec![(at(seconds), Event::Batch(Batch { input: InputId(0), arrival: at(seconds), readings, rejected: Vec::new() }))]
}

fn emitted(events: &[(Timestamp, Event)]) -> Vec<Emitted> {
    let readings = events.iter().filter_map(|(_, event)| match event {
        Event::Batch(batch) => Some(&batch.readings),
        _ => None,
    });
    let stream = |reading: &Reading| StreamId(u16::try_from(reading.series.index() + 5).unwrap());
    readings
        .flatten()
        .map(|reading| Emitted { stream: stream(reading), record: Record::Reading(reading.clone()) })
        .collect()
}

/// A commit of these readings: stream and value.
fn commit(seconds: i64, values: &[(usize, i64)], with_snapshot: bool) -> Commit {
    let mut events = events(seconds, values);
    if with_snapshot {
        let declared = |info| Event::Series(Declared { input: InputId(0), source: "".into(), info });
        events.splice(0..0, series().into_iter().map(|info| (at(seconds), declared(info))));
    }
    let snapshot = with_snapshot.then(|| Snapshot { plan: plan(), engine: Vec::new() });
    Commit { records: emitted(&events), events, snapshot, ..Commit::empty(at(seconds)) }
}

/// The first number of a frame, its records, and the values of those that are readings.
fn contents(frame: &StoredFrame) -> (u64, Vec<Record>, Vec<i64>) {
    let (header, contents) = frame::open(&frame.bytes).unwrap();
    assert_eq!((&header.origin.stream, header.origin.epoch), (&frame.stream, frame.epoch));
    let values = contents.records.iter().filter_map(|record| match record {
        Record::Reading(Reading { value: Value::Int(value), .. }) => Some(*value),
        _ => None,
    });
    (header.first, contents.records.clone(), values.collect())
}

/// Every frame that is stored, in the order in which they are given out.
fn frames(store: &mut Store) -> Vec<StoredFrame> {
    store.requeue();
    let frames: Vec<_> = std::iter::from_fn(|| store.take(&[]).unwrap()).collect();
    store.requeue();
    frames
}

const CONNECTED: LinkHint = LinkHint { connected: true, congested: false };

#[test]
fn what_waits_for_its_batch_is_not_held_up_by_a_clock_that_goes_back() {
    let folder = tempfile::tempdir().unwrap();
    let (mut store, _) = open(folder.path(), 1, 0, 1);
    store.commit(commit(0, &[], true)).unwrap();
    // Less than a batch, and then the clock turns out to have been an hour ahead.
    store.commit(commit(3_600, &[(2, 7)], false)).unwrap();
    assert!(!store.wants_flush(at(10)) && !store.wants_flush(at(69)));
    assert!(!store.wants_flush(at(70)) && store.wants_flush(at(71)), "a minute for the batch, a second for a commit");
    store.flush(at(71)).unwrap();
    assert_eq!(frames(&mut store).iter().map(|frame| contents(frame).2).collect::<Vec<_>>().last(), Some(&vec![7]));
    // Nor is a commit that waits.
    let id = store.take(&[]).unwrap().unwrap().id;
    store.acknowledge(&[id]);
    assert!(!store.wants_flush(at(80)) && !store.wants_flush(at(20)) && store.wants_flush(at(21)));
}
