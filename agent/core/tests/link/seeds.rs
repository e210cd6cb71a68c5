//! What must hold of the sender over links, frames and outages that a seed makes up.
//!
//! `tests/link/seeds` tries 100,000 of them; `RTLIVE_SEED` tries one again. The world looks at each step: nothing rests while the link could carry it,
//! nothing goes before what is more urgent (gaps have the priority of alerts), and a frame is deleted only once every part of it is acknowledged.

use std::collections::BTreeMap;
use std::env;
use std::time::Duration;

use rtlive_core::plan::Priority;
use rtlive_core::uplink::{FrameId, Lane, Parcel, Terms};

use super::world::{Path, TERMS, World};
use super::{FRAME_BYTES, seconds};

/// How many seeds are tried where nothing is said.
const SEEDS: u64 = 1_000;
const FRAMES_MAX: u64 = 40;
/// Long enough for all frames on the slowest link, after the longest wait to connect again.
const DRAINED_WITHIN: Duration = seconds(7_200);

struct Dice(u64);

impl Dice {
    /// A number below a bound, the same for a seed (Knuth's MMIX generator).
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % bound
    }

    fn pick<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.below(of.len() as u64) as usize]
    }
}

fn number(name: &str) -> Option<u64> {
    env::var(name).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("{name}: expected a number, found {text:?}")))
}

#[test]
fn the_sender_keeps_its_promises_for_each_seed() {
    let seeds = match number("RTLIVE_SEED") {
        Some(seed) => seed..=seed,
        None => 1..=number("RTLIVE_SEEDS").unwrap_or(SEEDS),
    };
    for seed in seeds {
        if std::panic::catch_unwind(|| try_seed(seed)).is_err() {
            panic!("RTLIVE_SEED={seed} tries it again");
        }
    }
}

fn try_seed(seed: u64) {
    let mut dice = Dice(seed);
    let path = |dice: &mut Dice| Path {
        jitter: dice.below(100) as f64 / 100.0,
        loss: dice.pick(&[0.0, 0.0, 0.02, 0.2]),
        ..Path::of(dice.pick(&[9.6, 16.0, 64.0, 256.0, 10_000.0]), 1 + dice.below(2_500))
    };
    let rate_max = dice.pick(&[None, None, Some(1_000), Some(20_000)]);
    let terms = Terms { backlog_percent: dice.below(101) as u8, ..TERMS };
    let mut world = World::under(terms, path(&mut dice), FRAME_BYTES, seed).at_most(rate_max);
    world.has_backlog = false;
    if dice.below(2) == 0 {
        let from = Duration::from_millis(1 + dice.below(60_000));
        world = world.without_broker(from, from + Duration::from_millis(1 + dice.below(200_000)));
    }
    for _ in 0..1 + dice.below(FRAMES_MAX) {
        if dice.below(8) == 0 {
            world.path = path(&mut dice);
        }
        let priority = dice.pick(&[Priority::Alert, Priority::Live, Priority::Bulk]);
        let lane = dice.pick(&[Lane::Live, Lane::Backlog]);
        let bytes = 1 + dice.below(dice_bound(priority));
        let parcel = Parcel { lane, ..world.parcel(priority, bytes as usize) };
        world.put(parcel);
        let pause = Duration::from_millis(dice.pick(&[0, 0, 10, 1_000, 20_000]));
        world.run_to(world.now + pause);
    }
    world.run_to(world.now + DRAINED_WITHIN);
    assert_eq!(world.delivered_frames, world.places.len(), "nothing starves");
    // Within a connection each lane keeps its order.
    for (place, &from) in world.connection_starts.iter().enumerate() {
        let to = world.connection_starts.get(place + 1).copied().unwrap_or(world.frames.len());
        let mut newest: BTreeMap<(Priority, Lane), FrameId> = BTreeMap::new();
        for (frame, _) in &world.frames[from..to] {
            let last = newest.entry(world.places[frame]).or_insert(*frame);
            assert!(*last <= *frame, "{frame:?} after {last:?}");
            *last = *frame;
        }
    }
}

/// Alerts and gaps are short.
fn dice_bound(priority: Priority) -> u64 {
    if priority == Priority::Alert { 400 } else { 8_000 }
}
