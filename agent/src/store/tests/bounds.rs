//! A store that is full.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::*;
use crate::message::{Bounds, StreamAccount, Wanted};
use crate::store::Look;

/// Values that no coding makes small.
fn noise(count: i64, seed: i64, stream: usize) -> Vec<(usize, i64)> {
    (0..count).map(|n| (stream, (seed * 1_000 + n).wrapping_mul(0x5851_f42d_4c95_7f2d))).collect()
}

/// The numbers of a stream that are in frames, and those that gaps name, with the reason.
fn told(store: &mut Store, stream: &str) -> (BTreeSet<u64>, BTreeMap<u64, String>) {
    let (mut stored, mut gone) = (BTreeSet::new(), BTreeMap::new());
    let mut gaps = store.gaps.waiting().to_vec();
    for frame in frames(store) {
        let (first, records, _) = contents(&frame);
        if &*frame.stream == stream {
            stored.extend(first..first + records.len() as u64);
        }
        gaps.extend(records.into_iter().filter_map(|record| match record {
            Record::Gap(gap) => Some(*gap),
            _ => None,
        }));
    }
    for gap in gaps.iter().filter(|gap| &*gap.stream == stream) {
        assert!(gap.start.is_some() && gap.start <= gap.end);
        for number in gap.from..=gap.to {
            assert_eq!(gone.insert(number, gap.reason.to_string()), None, "{number} is named twice");
        }
    }
    (stored, gone)
}

#[test]
fn the_oldest_of_the_lowest_priority_goes_and_is_named() {
    const BYTES_MAX: u64 = 20_000;
    let folder = tempfile::tempdir().unwrap();
    let (mut store, _) = open(folder.path(), 1, 0, 7);
    store.set_bytes_max(BYTES_MAX);
    store.commit(commit(0, &[], true)).unwrap();
    store.hint(CONNECTED);
    // Live ones first, so that they are older than all bulk.
    store.commit(commit(1, &noise(300, 1, 1), false)).unwrap();
    for second in 2..40 {
        store.commit(commit(second, &noise(60, second, 2), false)).unwrap();
        let status = store.status().unwrap();
        assert_eq!(status.check(), Vec::<String>::new());
        let bytes: u64 = status.streams.values().map(|account| account.stored_bytes).sum();
        // What the commit itself sealed goes with the next one.
        assert!(bytes <= BYTES_MAX + 2_000, "{bytes}");
    }
    let (live, live_gone) = told(&mut store, "live");
    assert_eq!((live.len(), live_gone.len()), (300, 0));
    let (bulk, bulk_gone) = told(&mut store, "bulk");
    let oldest_kept = *bulk.first().unwrap();
    assert!(oldest_kept > 1_000);
    assert_eq!(bulk_gone.keys().copied().collect::<Vec<_>>(), (1..oldest_kept).collect::<Vec<_>>());
    assert_eq!(bulk.len() + bulk_gone.len(), 38 * 60);
    // All of it outlives a restart.
    drop(store);
    let (mut store, _) = open(folder.path(), 1, 50, 8);
    assert_eq!(told(&mut store, "bulk"), (bulk, bulk_gone));
}

#[test]
fn what_is_on_its_way_stays_and_what_was_tried_is_unconfirmed() {
    let folder = tempfile::tempdir().unwrap();
    let (mut store, _) = open(folder.path(), 1, 0, 7);
    store.commit(commit(0, &[], true)).unwrap();
    store.hint(CONNECTED);
    for second in 1..4 {
        store.commit(commit(second, &noise(100, second, 1), false)).unwrap();
    }
    let live = |store: &mut Store| loop {
        let frame = store.take(&[]).unwrap().unwrap();
        if &*frame.stream == "live" {
            return frame;
        }
    };
    let (tried, on_its_way) = (live(&mut store), live(&mut store));
    store.give_back(&[tried.id]);
    store.set_bytes_max(0);
    store.commit(commit(5, &[], false)).unwrap();
    // It arrives after all.
    store.acknowledge(&[on_its_way.id]);
    store.commit(commit(6, &[], false)).unwrap();
    let (stored, gone) = told(&mut store, "live");
    assert!(stored.is_empty());
    let reasons: BTreeMap<u64, &str> = gone.iter().map(|(number, reason)| (*number, &**reason)).collect();
    let expected = (1..=100).map(|n| (n, "unconfirmed")).chain((201..=300).map(|n| (n, "evicted")));
    assert_eq!(reasons, expected.collect());
    let status = store.status().unwrap();
    let account = status.streams.iter().find(|(key, _)| &*key.stream == "live").unwrap().1;
    assert_eq!((account.numbered, account.acknowledged, account.in_gaps), (300, 100, 200));
}

#[test]
fn a_long_backlog_of_a_stream_that_is_refused_is_passed_over_once() {
    const FRAMES: i64 = 1_000;
    let folder = tempfile::tempdir().unwrap();
    let (mut store, _) = open(folder.path(), 1, 0, 7);
    store.commit(commit(0, &[], true)).unwrap();
    store.hint(CONNECTED);
    for second in 1..=FRAMES {
        store.commit(commit(second, &[(1, second)], false)).unwrap();
    }
    let refused: [Arc<str>; 1] = ["live".into()];
    // How many looks, each of which is bounded, find that there is nothing.
    let looks = |store: &mut Store| {
        let mut count = 1;
        let wanted = Wanted { except: refused.clone().into(), ..Wanted::default() };
        while !matches!(store.look_for(&wanted).unwrap(), Look::Nothing) {
            count += 1;
        }
        count
    };
    assert!(looks(&mut store) > 3);
    for _ in 0..3 {
        // It is tried with one frame, and refused again.
        let frame = store.take(&[]).unwrap().unwrap();
        assert_eq!((&*frame.stream, contents(&frame).2), ("live", vec![1]));
        assert_eq!(looks(&mut store), 1);
        store.give_back(&[frame.id]);
        assert_eq!(looks(&mut store), 1);
    }
    let values: Vec<_> = frames(&mut store).iter().flat_map(|frame| contents(frame).2).collect();
    assert_eq!(values, (1..=FRAMES).collect::<Vec<_>>());
}

#[test]
fn room_that_nobody_needs_goes_back_to_the_file_system() {
    let folder = tempfile::tempdir().unwrap();
    let (mut store, _) = open(folder.path(), 1, 0, 7);
    store.commit(commit(0, &[], true)).unwrap();
    store.hint(CONNECTED);
    for second in 1..=30 {
        // A square, because differences of multiples are all alike.
        let values: Vec<_> = noise(20_000, second, 1).into_iter().map(|(at, n)| (at, n.wrapping_mul(n >> 7))).collect();
        store.commit(commit(second, &values, false)).unwrap();
    }
    assert!(!store.vacuum().unwrap(), "nothing is free yet");
    let mut kept = frames(&mut store);
    let gone: Vec<_> = kept.drain(1..kept.len() - 1).map(|frame| frame.id).collect();
    while store.take(&[]).unwrap().is_some() {}
    store.acknowledge(&gone);
    store.commit(commit(50, &[], true)).unwrap();
    store.commit(commit(51, &[], true)).unwrap();
    store.close().unwrap();
    let length = || std::fs::metadata(folder.path().join(super::super::FILE_NAME)).unwrap().len();
    let before = length();
    let (mut store, _) = open(folder.path(), 1, 60, 8);
    let steps = (0..).take_while(|_| store.vacuum().unwrap()).count() as u64;
    store.close().unwrap();
    assert!(steps * (256 << 10) < before - length(), "{steps} steps for {} bytes", before - length());
    assert!(length() < before * 2 / 3, "{} of {before}", length());
    let (mut store, _) = open(folder.path(), 1, 70, 9);
    let left = frames(&mut store);
    assert!(kept.iter().all(|frame| left.iter().any(|other| other.bytes == frame.bytes)));
}

#[test]
fn a_frame_that_comes_back_while_its_stream_is_refused_is_given_out_again() {
    let folder = tempfile::tempdir().unwrap();
    let (mut store, _) = open(folder.path(), 1, 0, 7);
    store.commit(commit(0, &[], true)).unwrap();
    store.hint(CONNECTED);
    for second in 1..4 {
        store.commit(commit(second, &[(1, second)], false)).unwrap();
    }
    let refused: Arc<[Arc<str>]> = Arc::new(["live".into(), "gaps".into()]);
    let mut given = Vec::new();
    while given.len() < 2 {
        let frame = store.take(&[]).unwrap().unwrap();
        given.extend((&*frame.stream == "live").then_some(frame.id));
    }
    // The third is passed over, then the second and the first come back one by one.
    assert!(store.take(&refused).unwrap().is_none());
    for id in given.iter().rev() {
        store.give_back(&[*id]);
        assert!(store.take(&refused).unwrap().is_none());
    }
    let again: Vec<_> =
        std::iter::from_fn(|| store.take(&[]).unwrap()).filter(|frame| &*frame.stream == "live").collect();
    assert_eq!(again.len(), 3);
}

/// A commit of readings of the stream `live`, of which those at `places` are of a series that nobody declared.
fn unsealable(second: i64, count: i64, places: &[usize]) -> Commit {
    let mut commit = commit(second, &noise(count, second, 1), false);
    for &place in places {
        let Record::Reading(reading) = &mut commit.records[place].record else { unreachable!("a reading") };
        reading.series = SeriesId(99);
    }
    commit
}

#[test]
fn the_gap_of_what_cannot_be_sealed_is_durable_with_its_commit() {
    let folder = tempfile::tempdir().unwrap();
    let (mut store, _) = open(folder.path(), 1, 0, 7);
    store.commit(commit(0, &[], true)).unwrap();
    store.hint(CONNECTED);
    store.commit(unsealable(1, 1, &[0])).unwrap();
    assert_eq!(store.status().unwrap().check(), Vec::<String>::new());
    drop(store);
    let (mut store, _) = open(folder.path(), 1, 2, 8);
    let (stored, gone) = told(&mut store, "live");
    assert_eq!((stored.len(), gone.into_keys().collect::<Vec<_>>()), (0, vec![1]));
}

#[test]
fn what_cannot_be_sealed_takes_nothing_else_with_it() {
    let folder = tempfile::tempdir().unwrap();
    let (mut store, _) = open(folder.path(), 1, 0, 7);
    store.commit(commit(0, &[], true)).unwrap();
    store.hint(CONNECTED);
    store.commit(unsealable(1, 9, &[3, 4, 5])).unwrap();
    assert_eq!(store.status().unwrap().check(), Vec::<String>::new());
    let (stored, gone) = told(&mut store, "live");
    assert_eq!(stored, BTreeSet::from([1, 2, 3, 7, 8, 9]));
    assert_eq!(gone, (4..=6).map(|number| (number, "unsealable".to_owned())).collect());
    assert_eq!(store.gaps.waiting().len(), 1);
    // The link takes it before anything else.
    assert!(store.wants_flush(at(1)));
    store.flush(at(1)).unwrap();
    store.requeue();
    let gap = std::iter::from_fn(|| store.take(&[]).unwrap())
        .find(|frame| &*frame.stream == "gaps" && contents(frame).0 == 2);
    assert!(matches!(contents(&gap.unwrap()).1[..], [Record::Gap(_)]) && store.gaps.waiting().is_empty());
}

#[test]
fn a_series_that_is_declared_again_after_a_restart_keeps_its_number() {
    let folder = tempfile::tempdir().unwrap();
    let (mut store, _) = open(folder.path(), 1, 0, 7);
    store.commit(commit(0, &[], true)).unwrap();
    drop(store);
    let (mut store, _) = open(folder.path(), 1, 1, 8);
    store.hint(CONNECTED);
    let mut again = commit(2, &[(1, 5)], false);
    let info = SeriesInfo { unit: Some("Cel".into()), ..series().remove(1) };
    let declared = Declared { input: InputId(0), source: "".into(), info: info.clone() };
    again.events.insert(0, (at(2), Event::Series(declared)));
    store.commit(again).unwrap();
    let live = frames(&mut store).into_iter().find(|frame| &*frame.stream == "live").unwrap();
    assert_eq!(frame::open(&live.bytes).unwrap().1.series, [info]);
    assert_eq!(store.series.len(), STREAMS.len());
}

/// The bytes on disk of everything in a folder.
fn on_disk(folder: &Path) -> u64 {
    std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().metadata().unwrap().len()).sum()
}

#[test]
fn a_full_store_stays_within_its_bound_on_disk() {
    for bytes in [1 << 20, 3 << 20] {
        let folder = tempfile::tempdir().unwrap();
        let (mut store, _) = open(folder.path(), 1, 0, 7);
        store.bound(Bounds { bytes, age: Duration::MAX }).unwrap();
        let mut wants_snapshot = true;
        let mut most = 0;
        for second in 0..250 {
            let values: Vec<_> =
                (1..3).flat_map(|stream| noise(500, second * 3 + i64::from(stream == 1), stream)).collect();
            wants_snapshot = store.commit(commit(second, &values, wants_snapshot)).unwrap().wants_snapshot;
            most = most.max(on_disk(folder.path()));
        }
        assert!(most <= bytes, "{most} of {bytes}");
        // It is not wasted either.
        assert!(most >= bytes / 2, "{most} of {bytes}");
        assert_eq!(store.status().unwrap().check(), Vec::<String>::new());
        let (live, live_gone) = told(&mut store, "live");
        let (bulk, bulk_gone) = told(&mut store, "bulk");
        // What is in no frame yet is neither.
        assert!(live.len() + live_gone.len() + bulk.len() + bulk_gone.len() > 240_000);
        // Bulk goes first, and all of it before anything live.
        assert!(
            bulk_gone.len() > 80_000 && (live_gone.is_empty() || bulk.len() < 2_000),
            "{} {}",
            live.len(),
            bulk.len()
        );
    }
}

fn status_of(store: &Store, stream: &str) -> StreamAccount {
    let streams = store.status().unwrap().streams;
    streams.into_iter().find(|(key, _)| &*key.stream == stream).unwrap().1
}

/// Each boot leaves the beginning of its epoch, and gaps that merge with those of no other.
#[test]
fn hundreds_of_boots_without_a_link_fill_the_store_with_records_and_not_with_epochs() {
    // Half of the least that can be configured, so that half as many boots fill it.
    const BYTES: u64 = 512 << 10;
    const BOOTS: u64 = 400;
    let folder = folder();
    let bounds = Bounds { bytes: BYTES, age: Duration::MAX };
    let mut most = 0;
    let mut last = None;
    for boot in 1..=BOOTS {
        drop(last.take());
        let second = boot.cast_signed() * 100;
        let (mut store, _) = open(folder.path(), boot, second, boot);
        store.bound(bounds).unwrap();
        for step in 0..2 {
            let values = (1..3).flat_map(|stream| noise(150, second + step + 50 * i64::from(stream == 1), stream));
            // A square, because differences of multiples are all alike.
            let values: Vec<_> = values.map(|(stream, n)| (stream, n.wrapping_mul(n >> 7))).collect();
            store.commit(commit(second + step, &values, step == 0)).unwrap();
            most = most.max(on_disk(folder.path()));
        }
        assert_eq!(store.status().unwrap().check(), Vec::<String>::new());
        last = Some(store);
    }
    let mut store = last.unwrap();
    assert!(most <= BYTES, "{most}");
    let (gaps, live) = (status_of(&store, "gaps"), status_of(&store, "live"));
    assert!(gaps.in_gaps > BOOTS / 8 && gaps.stored_bytes <= BYTES / 8 + 20_000, "{gaps:?}");
    assert!(live.stored_bytes > BYTES / 4, "{live:?}");
    // The last boots are told of, and so is that those before them are not.
    store.hint(CONNECTED);
    let (mut starts, mut named) = (BTreeSet::new(), 0);
    while status_of(&store, "gaps").stored + store.gaps.waiting().len() as u64 > 0 {
        while let Some(frame) = store.take(&[]).unwrap() {
            for record in contents(&frame).1 {
                match record {
                    Record::EpochStart(_) => drop(starts.insert(frame.epoch.0)),
                    Record::Gap(gap) if &*gap.stream == "gaps" => named += gap.records(),
                    _ => {}
                }
            }
            store.acknowledge(&[frame.id]);
        }
        store.flush(at(BOOTS.cast_signed() * 100 + 10)).unwrap();
    }
    assert!(starts.iter().copied().eq(BOOTS + 1 - starts.len() as u64..=BOOTS) && starts.len() > 100, "{starts:?}");
    assert_eq!(named, status_of(&store, "gaps").in_gaps);
}

#[test]
fn months_without_a_link_fill_the_store_with_records_and_not_with_gaps() {
    const BYTES: u64 = 1 << 20;
    const STEP: i64 = 3_600;
    let folder = tempfile::tempdir().unwrap();
    let (mut store, _) = open(folder.path(), 1, 0, 7);
    let bounds = Bounds { bytes: BYTES, age: Duration::from_secs(365 * 86_400) };
    store.bound(bounds).unwrap();
    let (mut wants_snapshot, mut most) = (true, 0);
    for hour in 0..90 * 24 {
        // A process ends now and then, and so do boots; some commits are cut off.
        if hour % 97 == 96 {
            drop(store);
            store =
                open(folder.path(), 1 + u64::try_from(hour / 400).unwrap(), hour * STEP, u64::try_from(hour).unwrap())
                    .0;
            store.bound(bounds).unwrap();
            wants_snapshot = true;
        }
        let values: Vec<_> = (1..3).flat_map(|stream| noise(60, hour * 3 + i64::from(stream == 1), stream)).collect();
        wants_snapshot = store.commit(commit(hour * STEP, &values, wants_snapshot)).unwrap().wants_snapshot;
        most = most.max(on_disk(folder.path()));
    }
    assert!(most <= BYTES, "{most}");
    let status = store.status().unwrap();
    assert_eq!(status.check(), Vec::<String>::new());
    let in_gaps: u64 = status.streams.values().map(|account| account.in_gaps).sum();
    let named: u64 = store.gaps.waiting().iter().map(rtlive_core::record::Gap::records).sum();
    assert!(in_gaps == named && named > 100_000, "{in_gaps} {named}");
    // Two streams, an epoch after each boot.
    assert!(store.gaps.waiting().len() <= 2 * 12, "{}", store.gaps.waiting().len());
    let gap_bytes: u64 =
        status.streams.iter().filter(|(key, _)| &*key.stream == "gaps").map(|(_, account)| account.stored_bytes).sum();
    assert!(gap_bytes < 12 * 400, "{gap_bytes}");
    // When the link comes, all of it is told at once.
    store.hint(CONNECTED);
    assert!(store.wants_flush(at(90 * 24 * STEP)));
    store.flush(at(90 * 24 * STEP)).unwrap();
    assert!(store.gaps.waiting().is_empty());
    drop(store);
    let (mut store, _) = open(folder.path(), 20, 90 * 24 * STEP, 9);
    assert!(store.gaps.waiting().is_empty());
    let told = frames(&mut store).iter().flat_map(|frame| contents(frame).1).fold(0, |sum, record| match record {
        Record::Gap(gap) => sum + gap.records(),
        _ => sum,
    });
    // What the next boot had to seal pushed some more out.
    let in_gaps: u64 = store.status().unwrap().streams.values().map(|account| account.in_gaps).sum();
    assert_eq!(told, in_gaps);
}

#[test]
fn a_stream_stays_within_its_own_bound() {
    let folder = tempfile::tempdir().unwrap();
    let (mut store, _) = open(folder.path(), 1, 0, 7);
    let mut first = commit(0, &[], true);
    let mut bounded = (*plan()).clone();
    for stream in bounded.streams.iter_mut().filter(|stream| &*stream.name == "live") {
        stream.bytes_max = Some(10_000);
    }
    first.snapshot = first.snapshot.map(|snapshot| Snapshot { plan: Arc::new(bounded), ..snapshot });
    store.commit(first).unwrap();
    store.hint(CONNECTED);
    for second in 1..40 {
        let values = [noise(60, second, 1), noise(60, second, 2)].concat();
        store.commit(commit(second, &values, false)).unwrap();
        let status = store.status().unwrap();
        let live = status.streams.iter().find(|(key, _)| &*key.stream == "live").unwrap().1;
        assert!(live.stored_bytes <= 10_000 + 1_000, "{}", live.stored_bytes);
    }
    let (live, live_gone) = told(&mut store, "live");
    assert_eq!(live.len() + live_gone.len(), 39 * 60);
    assert!(live.len() >= 600 && live_gone.values().all(|reason| reason == "evicted"));
    let (bulk, bulk_gone) = told(&mut store, "bulk");
    assert_eq!((bulk.len(), bulk_gone.len()), (39 * 60, 0));
}

#[test]
fn what_has_waited_too_long_goes_unless_the_clock_jumped() {
    const HOUR: i64 = 3_600;
    let folder = tempfile::tempdir().unwrap();
    let (mut store, _) = open(folder.path(), 1, 0, 7);
    store.bound(Bounds { bytes: u64::MAX, age: Duration::from_secs(10 * HOUR.unsigned_abs()) }).unwrap();
    store.hint(CONNECTED);
    for hour in 0..20 {
        store.commit(commit(hour * HOUR, &[(1, hour)], hour == 0)).unwrap();
    }
    let (stored, gone) = told(&mut store, "live");
    assert_eq!((stored, gone.len()), ((11..=20).collect(), 10));
    assert!(gone.values().all(|reason| reason == "expired"));
    // A year on within a second: nothing goes before that clock has run on for an hour.
    let year = 365 * 24 * HOUR + 19 * HOUR;
    store.commit(commit(year, &[(1, 0)], false)).unwrap();
    store.commit(commit(year + HOUR / 2, &[(1, 0)], false)).unwrap();
    assert_eq!(told(&mut store, "live").0.len(), 12);
    store.commit(commit(year + 2 * HOUR, &[(1, 0)], false)).unwrap();
    assert_eq!(told(&mut store, "live").0.len(), 3);
    assert_eq!(store.status().unwrap().check(), Vec::<String>::new());
}

#[test]
fn the_journal_holds_no_more_readings_than_a_start_has_memory_for() {
    let folder = tempfile::tempdir().unwrap();
    let (mut store, _) = open(folder.path(), 1, 0, 7);
    assert!(!store.commit(commit(0, &[], true)).unwrap().wants_snapshot);
    // They are all the same, and take next to no bytes.
    let values = [(1, 7); 10_000];
    let wants: Vec<bool> =
        (1..=40).map(|second| store.commit(commit(second, &values, false)).unwrap().wants_snapshot).collect();
    assert_eq!(wants.iter().position(|&wants| wants), Some(39));
    drop(store);
    let (mut store, _) = open(folder.path(), 1, 41, 8);
    assert!(store.commit(commit(42, &[], false)).unwrap().wants_snapshot);
    assert!(!store.commit(commit(43, &[], true)).unwrap().wants_snapshot);
}

#[test]
fn the_snapshots_and_the_journal_of_a_small_store_leave_room_for_frames() {
    for (bytes, snapshots) in [(u64::MAX, 2), (1 << 20, 1)] {
        let folder = tempfile::tempdir().unwrap();
        let (mut store, _) = open(folder.path(), 1, 0, 7);
        store.bound(Bounds { bytes, ..Bounds::NONE }).unwrap();
        for second in 0..3 {
            let engine = noise(25_000, second, 0).iter().flat_map(|(_, value)| value.to_le_bytes()).collect();
            let snapshot = Some(Snapshot { plan: plan(), engine });
            store.commit(Commit { snapshot, ..commit(second, &[], second == 0) }).unwrap();
        }
        let rows = "SELECT count(*) FROM snapshots";
        assert_eq!(store.file.connection.query_row(rows, [], |row| row.get::<_, i64>(0)).unwrap(), snapshots);
        if bytes == u64::MAX {
            continue;
        }
        for second in 3.. {
            if store.commit(commit(second, &noise(1_000, second, 1), false)).unwrap().wants_snapshot {
                break;
            }
            assert!(store.journal_bytes < bytes / 8);
        }
    }
}
