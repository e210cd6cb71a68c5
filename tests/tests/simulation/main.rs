//! The whole, simulated: the real core and the real store, driven by a clock that only the test moves, with everything around them
//! that fails in the field: inputs that are late or redeliver, a link that breaks or falls silent, acknowledgements that come late or
//! twice, a process that dies between any two steps, other boots, other configurations.
//!
//! What a seed decides is the whole run; the same seed gives the same run to the bit. `RTLIVE_SEED=n` runs one seed and tells what
//! happens; `RTLIVE_SEEDS=n` runs n instead of [`SEEDS`].
//!
//! What must be true is in `checks`, `centre` (no number means two things) and `process` (accounts close after every commit, and a
//! restart finds the engine of the last commit).

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod centre;
mod checks;
mod inputs;
mod link;
mod plans;
mod process;
mod random;
mod reference;
mod world;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use world::World;

/// How many runs there are: what two cores do in two minutes.
const SEEDS: u64 = 1_000;

/// How many of them are done twice, to see that they are the same.
const SEEDS_TWICE: u64 = 10;

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

/// A folder in memory where there is one: syncs of a real disk would only cost time here.
fn folder() -> tempfile::TempDir {
    let memory = Path::new("/dev/shm");
    if memory.is_dir() { tempfile::tempdir_in(memory).unwrap() } else { tempfile::tempdir().unwrap() }
}

/// Runs a seed; what it came to as one number, or what broke.
fn run(seed: u64, is_verbose: bool) -> Result<u64, String> {
    let folder = folder();
    let mut world = World::new(seed, folder.path().to_owned(), is_verbose);
    match catch_unwind(AssertUnwindSafe(|| world.run())) {
        Ok(Ok(())) => {
            world.tell(|| {
                format!(
                    "{} crashes, {} messages, {} again",
                    world.crashes, world.centre.messages, world.centre.repeated
                )
            });
            Ok(world.digest)
        }
        Ok(Err(what)) => Err(format!("{what}, at {:.3} s", world.now as f64 / world::SECOND as f64)),
        Err(panic) => {
            let text = panic.downcast_ref::<String>().map(String::as_str).or(panic.downcast_ref::<&str>().copied());
            Err(format!("panicked: {}", text.unwrap_or("without a message")))
        }
    }
}

#[test]
fn every_seed_keeps_the_promises() {
    if let Some(seed) = number("RTLIVE_SEED") {
        run(seed, true).unwrap();
        return;
    }
    let seeds = number("RTLIVE_SEEDS").unwrap_or(SEEDS);
    let (next, failures) = (AtomicU64::new(0), Mutex::new(Vec::new()));
    let work = || {
        while failures.lock().unwrap().len() < 5 {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= seeds {
                break;
            }
            if let Err(what) = run(seed, false) {
                failures.lock().unwrap().push(format!("RTLIVE_SEED={seed}: {what}"));
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

#[test]
fn the_same_seed_gives_the_same_run() {
    for seed in 0..SEEDS_TWICE {
        assert_eq!(run(seed, false), run(seed, false), "seed {seed}");
    }
}
