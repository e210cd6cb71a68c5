//! Files of other versions, and repair.

use std::fs;
use std::path::PathBuf;

use rtlive_core::journal::Part;
use rtlive_core::record::{Epoch, Gap};
use rusqlite::Connection;

use super::*;
use crate::store::repair::repair;
use crate::store::{FILE_NAME, StoreError};

/// A store of every kind of row: frames, commits, snapshots.
fn made(folder: &Path) {
    let (mut store, _) = open(folder, 1, 0, 7);
    store.commit(commit(0, &[], true)).unwrap();
    store.hint(CONNECTED);
    store.commit(commit(1, &[(0, 1), (1, 2), (1, 3), (2, 4), (2, 5), (2, 6)], true)).unwrap();
    store.hint(LinkHint::default());
    for second in 2..5 {
        let mut commit = commit(second, &[(1, second + 2)], false);
        commit.parts.extend((second == 3).then(|| Part::of(&commit.events).unwrap()));
        store.commit(commit).unwrap();
    }
    store.close().unwrap();
}

fn live(store: &mut Store) -> Vec<i64> {
    let frames = frames(store).into_iter().filter(|frame| &*frame.stream == "live");
    frames.flat_map(|frame| contents(&frame).2).collect()
}

fn start(store: &mut Store) -> rtlive_core::record::EpochStart {
    let records = frames(store).iter().flat_map(|frame| contents(frame).1).collect::<Vec<_>>();
    let starts = records.into_iter().filter_map(|record| match record {
        Record::EpochStart(start) => Some(*start),
        _ => None,
    });
    starts.last().unwrap()
}

#[test]
fn a_newer_file_is_kept_untouched_beside_a_new_epoch() {
    for number in 1..=3 {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(FILE_NAME);
        let mut kept = Vec::new();
        for place in 1..=number {
            made(folder.path());
            Connection::open(&path).unwrap().execute_batch("PRAGMA user_version = 99;").unwrap();
            let bytes = fs::read(&path).unwrap();
            kept.push((folder.path().join(format!("store.version-99-{place}")), bytes));
            let (mut store, recovered) = open(folder.path(), 1, 100, 8);
            assert!(recovered.snapshot.is_none());
            store.commit(commit(101, &[(1, 101)], true)).unwrap();
            store.commit(commit(102, &[], true)).unwrap();
            assert_eq!(live(&mut store), [101]);
            let start = start(&mut store);
            // The mark beside the file names the epoch that cannot be gone on with.
            assert_eq!((start.predecessor, &*start.reason), (Some(Epoch(7)), "damaged_store"));
            assert_eq!(store.status().unwrap().check(), Vec::<String>::new());
            drop(store);
            assert!(kept.iter().all(|(path, bytes)| fs::read(path).unwrap() == *bytes));
            fs::remove_file(&path).unwrap();
            for suffix in ["-wal", "-shm"] {
                let _ = fs::remove_file(folder.path().join(format!("{FILE_NAME}{suffix}")));
            }
        }
    }
}

/// `RTLIVE_WRITE_VECTORS=1 cargo nextest run -p rtlive versions` writes the store of a version that has none; one that is there is never changed.
#[test]
fn a_store_of_every_version_opens() {
    let vectors = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../tests/vectors");
    for version in 1..=super::super::file::VERSION {
        let golden = vectors.join(format!("store-{version}.db"));
        if !golden.exists() && std::env::var_os("RTLIVE_WRITE_VECTORS").is_some() {
            let folder = tempfile::tempdir().unwrap();
            made(folder.path());
            fs::copy(folder.path().join(FILE_NAME), &golden).unwrap();
        }
        let folder = tempfile::tempdir().unwrap();
        fs::copy(&golden, folder.path().join(FILE_NAME)).unwrap();
        let (mut store, recovered) = open(folder.path(), 1, 100, 8);
        assert!(recovered.snapshot.is_some() && recovered.commits.len() == 3, "version {version}");
        store.commit(commit(101, &[(1, 101)], true)).unwrap();
        assert_eq!(live(&mut store), [2, 3, 4, 5, 6, 101], "version {version}");
        assert_eq!(store.status().unwrap().check(), Vec::<String>::new());
    }
}

#[test]
fn a_repaired_store_is_taken_as_what_it_is() {
    let folder = tempfile::tempdir().unwrap();
    made(folder.path());
    let path = folder.path().join(FILE_NAME);
    // The frame of 2 and 3 is damaged, and so is the root of every table.
    Connection::open(&path)
        .unwrap()
        .execute("UPDATE frames SET bytes = zeroblob(30) WHERE stream = 'live'", [])
        .unwrap();
    let mut bytes = fs::read(&path).unwrap();
    bytes[100..usize::try_from(super::super::file::PAGE_BYTES).unwrap()].fill(0);
    fs::write(&path, &bytes).unwrap();
    let other = tempfile::tempdir().unwrap();
    let to = other.path().join(FILE_NAME);
    let mut pages = 0;
    let salvaged = repair(&path, &to, |_, _| pages += 1).unwrap();
    assert!(pages > 3 && salvaged.frames >= 4 && salvaged.commits >= 3 && salvaged.snapshots >= 1, "{salvaged:?}");
    // The damaged file is as it was, and nothing is written over.
    assert_eq!(fs::read(&path).unwrap(), bytes);
    assert!(matches!(repair(&path, &to, |_, _| {}), Err(StoreError::Folder { .. })));
    let (mut store, _) = open(other.path(), 1, 100, 8);
    store.commit(commit(101, &[(1, 101)], true)).unwrap();
    let _ = live(&mut store);
    store.commit(commit(102, &[], true)).unwrap();
    assert_eq!(live(&mut store), [4, 5, 6, 101]);
    let start = start(&mut store);
    assert_eq!((start.predecessor, &*start.reason), (Some(Epoch(7)), "damaged_store"));
    let gaps: Vec<(&str, u64, u64)> =
        store.gaps.waiting().iter().map(|gap: &Gap| (&*gap.stream, gap.from, gap.to)).collect();
    assert_eq!(gaps, [("live", 1, 2)]);
    assert_eq!(store.status().unwrap().check(), Vec::<String>::new());
    // It is an ordinary store from now on.
    drop(store);
    let (store, _) = open(other.path(), 1, 200, 9);
    assert!(store.beginning.is_none());
    // A store that an agent holds is left alone.
    let to = folder.path().join("other.db");
    assert!(matches!(repair(&other.path().join(FILE_NAME), &to, |_, _| {}), Err(StoreError::InUse { .. })));
    assert!(!to.exists());
}
