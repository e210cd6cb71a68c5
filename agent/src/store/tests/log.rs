//! A log that is deleted, cut or damaged within a boot: SQLite does not mind, and the mark tells.

use std::fs;

use rtlive_core::record::Epoch;

use super::*;
use crate::store::FILE_NAME;

const LOG_NAME: &str = "store.db-wal";

const MARK_NAME: &str = "store.mark";

const OLD: Epoch = Epoch(7);
const NEW: Epoch = Epoch(8);

/// How many commits a process makes before it is killed.
const COMMITS: i64 = 6;

/// The state folder of a process that was killed, whose log was emptied before a commit, if ever.
fn killed(emptied_before: Option<i64>) -> TempDir {
    let (folder, left) = (folder(), folder());
    let (mut store, _) = open(folder.path(), 1, 0, OLD.0);
    for second in 0..COMMITS {
        if emptied_before == Some(second) {
            store.file.empty_log().unwrap();
        }
        store.commit(commit(second, &[(1, second)], second == 0)).unwrap();
    }
    copy(folder.path(), left.path());
    left
}

fn copy(from: &Path, to: &Path) {
    for name in [FILE_NAME, LOG_NAME, MARK_NAME] {
        fs::copy(from.join(name), to.join(name)).unwrap();
    }
}

/// The epoch before one that began, and why it did.
type Start = (Option<Epoch>, String);

/// Starts on a folder, and says what of the stream `live` there is, and which epochs began and why.
fn started(folder: &Path) -> (Vec<(Epoch, u64, i64)>, Vec<Start>) {
    let (mut store, recovered) = open(folder, 1, 100, NEW.0);
    store.hint(CONNECTED);
    store.commit(commit(100, &[(1, 100)], recovered.snapshot.is_none())).unwrap();
    store.commit(commit(101, &[], true)).unwrap();
    assert_eq!(store.status().unwrap().check(), Vec::<String>::new());
    let (mut live, mut starts) = (Vec::new(), Vec::new());
    for frame in frames(&mut store) {
        let (first, records, _) = contents(&frame);
        for (number, record) in (first..).zip(records) {
            match record {
                Record::Reading(Reading { value: Value::Int(value), .. }) => live.push((frame.epoch, number, value)),
                Record::EpochStart(start) if frame.epoch == NEW => {
                    starts.push((start.predecessor, start.reason.to_string()))
                }
                _ => {}
            }
        }
    }
    (live, starts)
}

/// What there is of a process that was killed and of the start that follows, whose only value has this number.
fn kept(of_killed: i64, next: (Epoch, u64)) -> Vec<(Epoch, u64, i64)> {
    (0..of_killed).map(|second| (OLD, second.unsigned_abs() + 1, second)).chain([(next.0, next.1, 100)]).collect()
}

fn damaged() -> Vec<Start> {
    vec![(Some(OLD), "damaged_store".to_owned())]
}

#[test]
fn a_log_that_is_there_costs_nothing() {
    let folder = killed(Some(2));
    assert_eq!(started(folder.path()), (kept(COMMITS, (OLD, COMMITS.unsigned_abs() + 1)), Vec::new()));
}

#[test]
fn without_its_log_a_store_begins_an_epoch() {
    for emptied_before in 0..COMMITS {
        let folder = killed(Some(emptied_before));
        fs::remove_file(folder.path().join(LOG_NAME)).unwrap();
        assert_eq!(started(folder.path()), (kept(emptied_before, (NEW, 1)), damaged()));
    }
}

#[test]
fn where_the_log_held_the_whole_store_or_all_of_it_is_gone_its_epoch_is_known() {
    for gone in [vec![LOG_NAME], vec![LOG_NAME, FILE_NAME]] {
        let folder = killed(None);
        gone.iter().for_each(|name| fs::remove_file(folder.path().join(name)).unwrap());
        assert_eq!(started(folder.path()), (kept(0, (NEW, 1)), damaged()));
    }
}

#[test]
fn a_log_may_be_cut_or_altered_anywhere() {
    let whole = killed(Some(1));
    let length = fs::metadata(whole.path().join(LOG_NAME)).unwrap().len() as usize;
    for at in (0..length).step_by(211) {
        for is_cut in [true, false] {
            let folder = super::folder();
            copy(whole.path(), folder.path());
            let path = folder.path().join(LOG_NAME);
            let mut log = fs::read(&path).unwrap();
            if is_cut {
                log.truncate(at)
            } else {
                log[at] ^= 0x20
            }
            fs::write(&path, log).unwrap();
            let (live, starts) = started(folder.path());
            // What lay behind the damage is lost, and its numbers are not given again.
            let left = live.len() as i64 - 1;
            assert!(left < COMMITS, "{at} {is_cut}");
            assert_eq!((live, starts), (kept(left, (NEW, 1)), damaged()), "{at} {is_cut}");
        }
    }
}

#[test]
fn a_mark_of_another_boot_or_none_says_nothing() {
    for mark in [None, Some("no mark"), Some("00000000000000000099 0000000000000007 boot 2\n"), Some("")] {
        let folder = killed(Some(2));
        fs::remove_file(folder.path().join(LOG_NAME)).unwrap();
        let path = folder.path().join(MARK_NAME);
        match mark {
            Some(mark) => fs::write(path, mark).unwrap(),
            None => fs::remove_file(path).unwrap(),
        }
        let (_, starts) = started(folder.path());
        assert_eq!(starts, Vec::new());
    }
}

#[test]
fn what_has_the_name_of_the_mark_and_is_no_file_keeps_no_store_from_working() {
    let folder = killed(Some(2));
    let path = folder.path().join(MARK_NAME);
    fs::remove_file(&path).unwrap();
    fs::create_dir(&path).unwrap();
    assert_eq!(started(folder.path()), (kept(COMMITS, (OLD, COMMITS.unsigned_abs() + 1)), Vec::new()));
}
