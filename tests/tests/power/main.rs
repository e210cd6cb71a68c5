//! The real agent on a disk that loses what was not synced, between two brokers that know what it acknowledged and what it sent.
//!
//! What a cut does is in `disk`; `course` runs an agent through a hundred of them and looks at everything. `RTLIVE_CUTS=n` makes n cuts instead of
//! [`CUTS`], `RTLIVE_SEED=n` runs the one course of that seed. A seed decides when the power goes and what is left then; the agent, its threads and
//! the kernel go their own ways between.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "../simulation/centre.rs"]
#[allow(dead_code)]
mod centre;
mod course;
mod disk;
mod hour;
mod mount;
mod mqtt;
#[path = "../simulation/random.rs"]
mod random;

use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Instant;

use course::Course;
use disk::Failure;

/// How many cuts there are: what two cores do in three minutes.
const CUTS: u64 = 200;

/// How many cuts one course has.
const CUTS_PER_COURSE: u64 = 100;

/// The seed of the first course.
const FIRST_SEED: u64 = 1;

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

/// Runs the courses of some seeds, one after another in each of some threads, until one fails.
fn run_all(seeds: Range<u64>, lies: bool, cuts: u64) {
    let (begun, next, failures) = (Instant::now(), AtomicU64::new(seeds.start), Mutex::new(Vec::new()));
    let work = || {
        while failures.lock().unwrap().is_empty() {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if !seeds.contains(&seed) {
                break;
            }
            match run(seed, lies, &[], |course| course.run(cuts)) {
                Ok(told) => eprintln!("RTLIVE_SEED={seed}: {told}; {:.0} s so far", begun.elapsed().as_secs_f64()),
                Err(what) => failures.lock().unwrap().push(format!("RTLIVE_SEED={seed}: {what}")),
            }
        }
    };
    thread::scope(|scope| {
        let workers = thread::available_parallelism().map_or(1, usize::from);
        (0..workers).for_each(|_| {
            scope.spawn(work);
        });
    });
    let failures = failures.into_inner().unwrap();
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

fn run(
    seed: u64,
    lies: bool,
    changes: &[(&str, &str)],
    run: impl FnOnce(&mut Course) -> Result<String, String>,
) -> Result<String, String> {
    let Some(mut course) = Course::new(seed, lies, changes).map_err(|error| error.to_string())? else {
        return Ok("nothing was done".to_owned());
    };
    match catch_unwind(AssertUnwindSafe(|| run(&mut course))) {
        Ok(ran) => ran,
        Err(panic) => Err(format!("{:?}\n{}", panic.downcast_ref::<String>(), course.log())),
    }
}

fn seeds(cuts: u64) -> Range<u64> {
    match number("RTLIVE_SEED") {
        Some(seed) => seed..seed + 1,
        None => FIRST_SEED..FIRST_SEED + cuts.div_ceil(CUTS_PER_COURSE),
    }
}

#[test]
fn every_cut_keeps_what_was_acknowledged() {
    let cuts = number("RTLIVE_CUTS").unwrap_or(CUTS);
    run_all(seeds(cuts), false, cuts.min(CUTS_PER_COURSE));
}

/// What such a card had said to be safe may be gone, and the file be damaged. No number means two things all the same, and the agent always runs.
#[test]
fn a_card_that_lies_costs_readings_and_makes_no_number_ambiguous() {
    let cuts = number("RTLIVE_CUTS").unwrap_or(CUTS) / 4;
    run_all(seeds(cuts), true, cuts.min(CUTS_PER_COURSE));
}

#[test]
fn a_disk_that_fails_for_a_while_loses_nothing() {
    let failures = [Failure::Full, Failure::Syncs, Failure::ReadOnly, Failure::Some(7), Failure::Some(30)];
    thread::scope(|scope| {
        // Most of their time is the pause until the disk is tried again.
        let courses =
            failures.map(|failure| scope.spawn(move || run(FIRST_SEED, false, &[], |course| course.fail(failure))));
        for (failure, course) in failures.into_iter().zip(courses) {
            let told = course.join().unwrap().unwrap_or_else(|what| panic!("{failure:?}: {what}"));
            eprintln!("{failure:?}: {told}");
        }
    });
}

#[test]
fn a_block_that_cannot_be_read_costs_the_frames_that_lie_on_it() {
    eprintln!("{}", run(FIRST_SEED, false, &course::MUCH, Course::lose_a_block).unwrap());
}

#[test]
fn what_is_told_of_the_wear_of_flash_is_what_the_disk_counted() {
    eprintln!("{}", run(FIRST_SEED, false, &[], Course::wear).unwrap());
}

#[test]
fn a_store_that_overflows_keeps_its_bound_at_every_instant() {
    let changes = [("4 MiB", "1 MiB")].into_iter().chain(course::MUCH).collect::<Vec<_>>();
    eprintln!("{}", run(FIRST_SEED, false, &changes, Course::overflow).unwrap());
}
