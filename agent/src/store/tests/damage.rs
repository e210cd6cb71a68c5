//! A store whose file was damaged: it opens, loses what had to be lost and no more, says so, and gives no number twice.

use std::collections::BTreeSet;
use std::fs;

use rtlive_core::record::{Epoch, EpochStart, Gap, OutageRecord};
use rusqlite::Connection;

use super::*;
use crate::store::FILE_NAME;
use crate::store::file::PAGE_BYTES;

const PAGE: usize = PAGE_BYTES as usize;

/// A store that has given 1..=3 in a frame, and 4..=6 in tails, in three commits behind its last snapshot.
fn made(folder: &Path) -> Vec<StoredFrame> {
    let (mut store, _) = open(folder, 1, 0, 7);
    store.commit(commit(0, &[], true)).unwrap();
    store.hint(CONNECTED);
    store.commit(commit(1, &[(1, 1), (1, 2), (1, 3)], true)).unwrap();
    store.hint(LinkHint::default());
    for second in 2..5 {
        store.commit(commit(second, &[(1, second + 2)], false)).unwrap();
    }
    frames(&mut store)
}

fn sql(folder: &Path, statement: &str) {
    let connection = Connection::open(folder.join(FILE_NAME)).unwrap();
    assert!(connection.execute(statement, []).unwrap() > 0, "{statement}");
}

/// What the records of the stream of gaps say that were written since.
#[derive(Default)]
struct Told {
    starts: Vec<EpochStart>,
    gaps: Vec<Gap>,
    outages: Vec<OutageRecord>,
    /// The values of the stream `live`, with their epochs and numbers.
    live: Vec<(Epoch, u64, i64)>,
}

fn told(store: &mut Store) -> Told {
    let mut told = Told { gaps: store.gaps.waiting().to_vec(), ..Told::default() };
    for frame in frames(store) {
        let (first, records, _) = contents(&frame);
        for (number, record) in (first..).zip(records) {
            match record {
                Record::EpochStart(start) => told.starts.push(*start),
                Record::Gap(gap) => told.gaps.push(*gap),
                Record::Outage(outage) => told.outages.push(*outage),
                Record::Reading(Reading { value: Value::Int(value), .. }) => {
                    told.live.push((frame.epoch, number, value))
                }
                _ => {}
            }
        }
    }
    let numbers: BTreeSet<_> = told.live.iter().map(|(epoch, number, _)| (epoch, number)).collect();
    assert_eq!(numbers.len(), told.live.len(), "a number was given twice");
    assert_eq!(store.status().unwrap().check(), Vec::<String>::new());
    told
}

/// Opens again after damage, commits once more, and says what the stream of gaps tells and what is left.
fn reopened(folder: &Path) -> Told {
    let (mut store, _) = open(folder, 1, 100, 8);
    store.commit(commit(101, &[(1, 101)], true)).unwrap();
    store.commit(commit(102, &[(1, 102)], true)).unwrap();
    let told = told(&mut store);
    drop(store);
    // And it opens once more, in order.
    let (mut store, recovered) = open(folder, 1, 200, 9);
    assert!(recovered.snapshot.is_some() && store.beginning.is_none());
    store.commit(commit(201, &[], true)).unwrap();
    told
}

fn spans(gaps: &[Gap]) -> Vec<(&str, Option<Epoch>, u64, u64, &str)> {
    gaps.iter().map(|gap| (&*gap.stream, gap.epoch, gap.from, gap.to, &*gap.reason)).collect()
}

const OLD: Epoch = Epoch(7);
const NEW: Epoch = Epoch(8);

#[test]
fn a_damaged_snapshot_costs_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let before = made(folder.path());
    sql(folder.path(), "UPDATE snapshots SET body = zeroblob(10) WHERE number = 2");
    let told = reopened(folder.path());
    let live: Vec<_> = (1..=6).map(|n| (OLD, n, n as i64)).chain([(OLD, 7, 101), (OLD, 8, 102)]).collect();
    assert_eq!(told.live, live);
    assert_eq!((told.starts.len(), told.gaps.len(), told.outages.len()), (1, 0, 0));
    assert!(before.iter().all(|frame| frame.epoch == OLD));
}

#[test]
fn an_id_that_no_frame_has_makes_no_other_twice() {
    for id in ["(2 << 60) - 1", "(1 << 60) - 1"] {
        let folder = tempfile::tempdir().unwrap();
        made(folder.path());
        sql(folder.path(), &format!("UPDATE frames SET id = {id} WHERE stream = 'live'"));
        let told = reopened(folder.path());
        let ids: BTreeSet<_> = told.live.iter().map(|(epoch, number, _)| (*epoch, *number)).collect();
        assert!(ids.contains(&(NEW, 1)) && ids.contains(&(NEW, 2)), "{id}: {ids:?}");
        let lost = told.gaps.iter().find(|gap| &*gap.stream == "live" && gap.from == 1);
        assert_eq!(lost.map(|gap| gap.to), Some(3), "{id}: {:?}", told.gaps);
    }
}

#[test]
fn behind_a_damaged_chunk_all_is_given_up_and_named() {
    for damage in ["UPDATE journal SET chunk = zeroblob(20) WHERE number = 4", "DELETE FROM journal WHERE number = 4"] {
        let folder = tempfile::tempdir().unwrap();
        made(folder.path());
        sql(folder.path(), damage);
        let told = reopened(folder.path());
        // Commit 3 could be replayed; 4 and 5 not.
        let live: Vec<_> = (1..=4).map(|n| (OLD, n, n as i64)).chain([(NEW, 1, 101), (NEW, 2, 102)]).collect();
        assert_eq!(told.live, live);
        assert_eq!(spans(&told.gaps), [("live", Some(OLD), 5, 6, "replay_failed")]);
        let start = told.starts.last().unwrap();
        assert_eq!((start.predecessor, &*start.reason), (Some(OLD), "damaged_store"));
        assert_eq!((told.outages[0].start, told.outages[0].end), (Some(at(2)), at(4)));
    }
}

#[test]
fn the_last_chunk_may_have_sealed_what_its_loss_hides() {
    let folder = tempfile::tempdir().unwrap();
    made(folder.path());
    let (mut store, _) = open(folder.path(), 1, 10, 1);
    store.hint(CONNECTED);
    // Commit 6 seals 4..=7 in one frame, and is lost afterwards.
    store.commit(commit(11, &[(1, 7)], false)).unwrap();
    drop(store);
    sql(folder.path(), "UPDATE journal SET chunk = zeroblob(20) WHERE number = 6");
    let told = reopened(folder.path());
    let live: Vec<_> = (1..=7).map(|n| (OLD, n, n as i64)).chain([(NEW, 1, 101), (NEW, 2, 102)]).collect();
    assert_eq!((told.live, told.gaps.len()), (live, 0));
}

#[test]
fn without_any_snapshot_frames_are_left() {
    let folder = tempfile::tempdir().unwrap();
    made(folder.path());
    sql(folder.path(), "UPDATE snapshots SET body = zeroblob(10)");
    let told = reopened(folder.path());
    let live: Vec<_> = (1..=3).map(|n| (OLD, n, n as i64)).chain([(NEW, 1, 101), (NEW, 2, 102)]).collect();
    assert_eq!(told.live, live);
    assert_eq!(spans(&told.gaps), [("live", Some(OLD), 4, 6, "replay_failed")]);
    assert_eq!(told.starts.last().unwrap().predecessor, Some(OLD));
    assert_eq!(told.outages[0].start, None);
}

#[test]
fn a_replay_that_ends_the_process_is_set_aside_after_the_eighth_time() {
    let folder = tempfile::tempdir().unwrap();
    made(folder.path());
    let state_dir = folder.path().to_owned();
    for attempt in 0..9 {
        let boot = Boot { id: "boot 1".into(), now: at(50), random: 99 };
        let (store, recovered) = Store::open(&Options::new(state_dir.clone()), boot).unwrap();
        assert_eq!(recovered.snapshot.is_some(), attempt < 8);
        // The process dies in its replay.
        drop(store);
    }
    // What was set aside in the ninth one was not committed: it is set aside again.
    let told = reopened(folder.path());
    assert_eq!(spans(&told.gaps), [("live", Some(OLD), 4, 6, "replay_failed")]);
    assert_eq!(&*told.starts.last().unwrap().reason, "replay_failed");
}

#[test]
fn a_damaged_frame_is_given_up_with_its_gap() {
    let folder = tempfile::tempdir().unwrap();
    made(folder.path());
    sql(folder.path(), "UPDATE frames SET bytes = zeroblob(30) WHERE stream = 'live'");
    let (mut store, _) = open(folder.path(), 1, 100, 8);
    assert!(frames(&mut store).iter().all(|frame| &*frame.stream != "live"));
    store.commit(commit(101, &[], true)).unwrap();
    let told = told(&mut store);
    assert_eq!(spans(&told.gaps), [("live", Some(OLD), 1, 3, "damaged")]);
    assert_eq!(told.live.iter().map(|(_, number, _)| *number).collect::<Vec<_>>(), [4, 5, 6]);
}

#[test]
fn what_is_no_store_is_moved_aside() {
    let foreign = |folder: &Path| {
        let connection = Connection::open(folder.join(FILE_NAME)).unwrap();
        connection.execute_batch("CREATE TABLE other (a); PRAGMA user_version = 77;").unwrap();
    };
    let unmarked = |folder: &Path| {
        let connection = Connection::open(folder.join(FILE_NAME)).unwrap();
        connection.execute_batch("CREATE TABLE other (a);").unwrap();
    };
    let garbage = |folder: &Path| fs::write(folder.join(FILE_NAME), "no store at all ".repeat(1000)).unwrap();
    let truncated = |folder: &Path| {
        made(folder);
        // What was there is known from the mark alone.
        fs::remove_file(folder.join("store.mark")).unwrap();
        let file = fs::OpenOptions::new().write(true).open(folder.join(FILE_NAME)).unwrap();
        file.set_len(PAGE as u64 * 5 / 4).unwrap();
    };
    for damage in [&foreign as &dyn Fn(&Path), &unmarked, &garbage, &truncated] {
        let folder = tempfile::tempdir().unwrap();
        damage(folder.path());
        let told = reopened(folder.path());
        assert_eq!(told.live, [(NEW, 1, 101), (NEW, 2, 102)]);
        assert_eq!((told.starts[0].predecessor, &*told.starts[0].reason), (None, "damaged_store"));
        assert_eq!((told.outages[0].start, told.outages[0].end), (None, at(100)));
        assert!(folder.path().join("store.damaged-1").exists());
    }
}

#[test]
fn a_file_that_another_program_holds_is_left_where_it_is() {
    let folder = tempfile::tempdir().unwrap();
    made(folder.path());
    let holder = Connection::open(folder.path().join(FILE_NAME)).unwrap();
    holder.execute_batch("PRAGMA locking_mode = EXCLUSIVE; BEGIN EXCLUSIVE; UPDATE meta SET replays = 0;").unwrap();
    let boot = Boot { id: "boot 1".into(), now: at(50), random: 99 };
    let options = Options::new(folder.path().to_owned());
    let opened = Store::open(&options, boot.clone());
    // Reading may still be possible beside a writer; moving the file aside is not.
    assert!(!folder.path().join("store.damaged-1").exists());
    drop(opened);
    drop(holder);
    assert!(Store::open(&options, boot).unwrap().1.snapshot.is_some());
}

/// A store of many frames, small and large, over several pages of every kind, as it lies on the disk; and the values of its frames.
fn full(folder: &Path) -> (Vec<u8>, Vec<StoredFrame>) {
    let (mut store, _) = open(folder, 1, 0, 7);
    store.commit(commit(0, &[], true)).unwrap();
    store.hint(CONNECTED);
    for second in 1..60 {
        let count = if second % 6 == 0 { 500 } else { 3 };
        let value = |n: i64| (second * 5_000 + n).wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_mul((second + n) >> 1);
        let values: Vec<_> = (0..count).map(|n| (if count > 3 { 1 } else { 2 }, value(n))).collect();
        store.commit(commit(second, &values, second % 25 == 0)).unwrap();
    }
    let all = frames(&mut store);
    store.close().unwrap();
    (fs::read(folder.join(FILE_NAME)).unwrap(), all)
}

/// Opens a damaged copy, and checks that it is used, that no frame is lost that is not hit, and that all that are lost are named; where `hit` is absent
/// any may be, and nothing may be left that names them.
fn survives(bytes: &[u8], all: &[StoredFrame], hit: Option<&[bool]>, what: &str) {
    let folder = folder();
    fs::write(folder.path().join(FILE_NAME), bytes).unwrap();
    let attempt = || {
        let (mut store, _) = open(folder.path(), 1, 1_000, 8);
        store.commit(commit(1_001, &[(1, 101)], true))?;
        let mut left = Vec::new();
        while let Some(frame) = store.take(&[])? {
            left.push(frame);
        }
        store.requeue();
        // What was found to be damaged is named now.
        store.commit(commit(1_002, &[], true))?;
        while let Some(frame) = store.take(&[])? {
            left.push(frame);
        }
        Ok::<_, crate::store::StoreError>((store, left))
    };
    // Damage that shows only in use is remembered for the next start.
    let (store, left) = attempt().or_else(|_| attempt()).unwrap();
    let mut told = BTreeSet::new();
    for gap in store.gaps.waiting() {
        told.extend((gap.from..=gap.to).map(|number| (gap.epoch.unwrap(), gap.stream.clone(), number)));
    }
    for frame in &left {
        let (first, records, _) = contents(frame);
        told.extend((first..first + records.len() as u64).map(|number| (frame.epoch, frame.stream.clone(), number)));
        for record in records {
            if let Record::Gap(gap) = record {
                told.extend((gap.from..=gap.to).map(|number| (gap.epoch.unwrap(), gap.stream.clone(), number)));
            }
        }
    }
    let same: BTreeSet<_> = left.iter().map(|frame| (frame.epoch, &frame.stream, &frame.bytes)).collect();
    let is_lost = |frame: &StoredFrame| !same.contains(&(frame.epoch, &frame.stream, &frame.bytes));
    for (frame, is_hit) in hit.into_iter().flat_map(|hit| all.iter().zip(hit)).filter(|(frame, _)| is_lost(frame)) {
        let (first, records, _) = contents(frame);
        assert!(is_hit, "{what}: {} {first} is lost", frame.stream);
        let mut numbers = first..first + records.len() as u64;
        let is_told = numbers.all(|number| told.contains(&(frame.epoch, frame.stream.clone(), number)));
        assert!(is_told, "{what}: {} {first} is not named", frame.stream);
    }
    assert_eq!(store.status().unwrap().check(), Vec::<String>::new(), "{what}");
}

#[test]
fn only_frames_with_bytes_on_a_lost_page_are_lost() {
    let folder = tempfile::tempdir().unwrap();
    let (whole, all) = full(folder.path());
    assert!(all.len() > 50 && whole.len() > 30 * PAGE, "{} {}", all.len(), whole.len());
    let contains = |whole: &[u8], part: &[u8]| whole.windows(part.len()).any(|window| window == part);
    survives(&whole, &all, Some(&vec![false; all.len()]), "whole");
    for (number, page) in whole.chunks(PAGE).enumerate() {
        // The frame begins on the page, or goes on there behind the number of the next page.
        let on_page = |frame: &StoredFrame| contains(page, &frame.bytes[..40]) || contains(&frame.bytes, &page[4..44]);
        let hit: Vec<bool> = all.iter().map(on_page).collect();
        let range = number * PAGE..(number + 1) * PAGE;
        let mut bytes = whole.clone();
        bytes[range.clone()].fill(0);
        survives(&bytes, &all, Some(&hit), &format!("page {number} is zero"));
        let mut bytes = whole.clone();
        bytes[range].iter_mut().step_by(97).for_each(|byte| *byte ^= 0x10);
        survives(&bytes, &all, Some(&hit), &format!("page {number} is altered"));
    }
}

#[test]
fn a_store_may_be_cut_at_each_page() {
    let folder = tempfile::tempdir().unwrap();
    let (whole, all) = full(folder.path());
    for page in 1..whole.len() / PAGE {
        survives(&whole[..page * PAGE], &all, None, &format!("cut at page {page}"));
    }
}

#[test]
fn every_page_may_be_lost() {
    let folder = tempfile::tempdir().unwrap();
    made(folder.path());
    let whole = fs::read(folder.path().join(FILE_NAME)).unwrap();
    for page in 0..whole.len().div_ceil(PAGE) {
        let folder = tempfile::tempdir().unwrap();
        let mut bytes = whole.clone();
        bytes[page * PAGE..((page + 1) * PAGE).min(whole.len())].fill(0);
        fs::write(folder.path().join(FILE_NAME), bytes).unwrap();
        let (mut store, _) = open(folder.path(), 1, 100, 8);
        match store.commit(commit(101, &[(1, 101)], true)) {
            Ok(_) => {}
            Err(error) => {
                // Damage that shows only now is remembered for the next start.
                assert!(error.is_damage(), "{error}");
                drop(store);
                reopened(folder.path());
            }
        }
    }
}
