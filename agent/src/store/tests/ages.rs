//! A card that lies about its syncs: after a cut the file is sound to SQLite, perhaps, and its pages are of different ages.

use std::collections::BTreeMap;
use std::fs;

use rtlive_core::record::Epoch;

use super::*;
use crate::message::FrameId;
use crate::store::file::PAGE_BYTES;
use crate::store::{FILE_NAME, StoreError};

const PAGE: usize = PAGE_BYTES as usize;

/// How many mixtures are tried.
const MIXTURES: u64 = 400;

/// SplitMix64 (Steele, Lea and Flood 2014).
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((mixed ^ (mixed >> 31)) % bound as u64) as usize
    }
}

/// What each number was given to.
type Given = BTreeMap<(Epoch, String, u64), Record>;

/// Takes every frame, and checks that no number means two things.
fn take_all(store: &mut Store, given: &mut Given) -> Result<Vec<FrameId>, StoreError> {
    let mut ids = Vec::new();
    while let Some(frame) = store.take(&[])? {
        let (first, records, _) = contents(&frame);
        for (number, record) in (first..).zip(records) {
            let key = (frame.epoch, frame.stream.to_string(), number);
            let known = given.entry(key.clone()).or_insert_with(|| record.clone());
            assert_eq!(*known, record, "{key:?} means two things");
        }
        ids.push(frame.id);
    }
    Ok(ids)
}

/// Opens a store in a boot of its own; damage that shows is remembered for the next start, as the keeper does.
fn opened(folder: &Path, random: u64) -> Result<Store, StoreError> {
    let boot = Boot { id: "boot 100".into(), now: at(1_000), random };
    let (mut store, recovered) = Store::open(&Options::new(folder.to_owned()), boot)?;
    if recovered.snapshot.is_some() {
        let emitted = recovered.commits.iter().map(|events| emitted(events)).collect();
        let resumed = store.resume(series(), emitted);
        resumed.inspect_err(|error| store.file.condemn_for(error))?;
    }
    Ok(store)
}

fn closes(store: &Store) {
    assert_eq!(store.status().unwrap().check(), Vec::<String>::new());
}

/// The file at several times of its life, in which frames come and go; and what its numbers were given to.
fn images() -> (Vec<Vec<u8>>, Given) {
    let folder = folder();
    let (mut images, mut given) = (Vec::new(), Given::new());
    for life in 0..6_i64 {
        let (mut store, _) = open(folder.path(), life.unsigned_abs() / 2, life * 100, life.unsigned_abs() + 1);
        store.hint(LinkHint { connected: life % 3 != 2, congested: false });
        for second in life * 100..life * 100 + 30 {
            let values: Vec<_> = (0..40).map(|n| ((n % 3) as usize, second * 100 + n)).collect();
            store.commit(commit(second, &values, second % 10 == 0)).unwrap();
            if second % 3 == 0 {
                let ids = take_all(&mut store, &mut given).unwrap();
                // Some of them arrive.
                store.acknowledge(&ids[..ids.len() * 2 / 3]);
                store.requeue();
            }
        }
        take_all(&mut store, &mut given).unwrap();
        closes(&store);
        store.close().unwrap();
        images.push(fs::read(folder.path().join(FILE_NAME)).unwrap());
    }
    (images, given)
}

/// Whether all of SQLite's checks hold.
fn is_sound(path: &Path) -> bool {
    let connection = rusqlite::Connection::open(path).unwrap();
    let said = connection.query_row("PRAGMA integrity_check", [], |row| row.get::<_, String>(0));
    said.is_ok_and(|said| said == "ok")
}

/// A file whose pages are of two of these ages.
fn mixture(images: &[Vec<u8>], random: &mut Random) -> Vec<u8> {
    let newer = 1 + random.below(images.len() - 1);
    let older = newer - 1;
    let share = [5, 30, 50, 70, 95][random.below(5)];
    let length = images[if random.below(4) == 0 { older } else { newer }].len();
    let mut bytes = vec![0; length];
    for (number, page) in bytes.chunks_mut(PAGE).enumerate() {
        let of = &images[if random.below(100) < share { newer } else { older }];
        if let Some(known) = of.get(number * PAGE..(number + 1) * PAGE) {
            page.copy_from_slice(known);
        }
    }
    bytes
}

#[test]
fn pages_of_different_ages_keep_no_agent_from_starting_and_no_ledger_from_closing() {
    let (images, given) = images();
    let (mut unharmed, mut hidden) = (0, 0);
    for seed in 0..MIXTURES {
        eprintln!("mixture {seed}");
        let folder = folder();
        fs::write(folder.path().join(FILE_NAME), mixture(&images, &mut Random(seed))).unwrap();
        // Of a tree whose keys are out of order SQLite may not find all.
        let is_sound = is_sound(&folder.path().join(FILE_NAME));
        let mut given = given.clone();
        let mut attempt = |random| {
            let mut store = opened(folder.path(), random)?;
            store.hint(CONNECTED);
            store.commit(commit(1_001, &[(0, 1), (1, 2), (2, 3)], true))?;
            for second in 1_002..1_010 {
                closes(&store);
                let ids = take_all(&mut store, &mut given)?;
                store.acknowledge(&ids);
                store.commit(commit(second, &[(0, second), (1, second), (2, second)], second % 4 == 0))?;
            }
            closes(&store);
            // Nothing is said to be stored in the end that is not there.
            for second in 1_010..1_014 {
                store.commit(commit(second, &[], true))?;
                let ids = take_all(&mut store, &mut given)?;
                store.acknowledge(&ids);
            }
            store.commit(commit(1_014, &[], false))?;
            let streams = store.status().unwrap().streams;
            let left: Vec<_> = streams.iter().filter(|(_, of)| of.stored + of.stored_bytes > 0).collect();
            assert!(left.is_empty() || !is_sound, "{left:?}");
            hidden += u64::from(!left.is_empty());
            Ok::<_, StoreError>(())
        };
        if attempt(100).inspect_err(|error| assert!(error.is_damage(), "{error}")).is_err() {
            attempt(200).unwrap();
        } else {
            unharmed += 1;
        }
    }
    eprintln!("{unharmed} of {MIXTURES} showed no damage, {hidden} hid something");
    assert!(unharmed > MIXTURES / 20, "{unharmed}");
}
