//! New data and the backlog on one link.

use std::collections::BTreeMap;
use std::time::Duration;

use proptest::prelude::*;
use rtlive_core::plan::Priority;
use rtlive_core::uplink::{FrameId, Lane, Parcel, Terms};

use super::world::{Path, TERMS, World};
use super::{FRAME_BYTES, PART, longest_wait, seconds};

const PRIORITIES: [Priority; 3] = [Priority::Alert, Priority::Live, Priority::Bulk];

fn with_share(percent: u8, path: Path, seed: u64) -> World {
    World::under(Terms { backlog_percent: percent, ..TERMS }, path, FRAME_BYTES, seed)
}

#[test]
fn the_backlog_has_its_share_while_new_frames_wait() {
    for percent in [0, 20, 50, 80, 100] {
        for (kbit, new_bytes) in [(16.0, 300), (16.0, 20_000), (64.0, 300)] {
            let mut world = with_share(percent, Path::of(kbit, 300), 1);
            world.new_bytes = Some(new_bytes);
            world.run_to(seconds(600));
            let (new, backlog) = (world.bytes_of(Lane::Live) as f64, world.bytes_of(Lane::Backlog) as f64);
            let share = backlog / (new + backlog);
            let what = format!("{percent} %, {kbit} kbit/s, frames of {new_bytes}: {share:.3}");
            assert!((share - f64::from(percent) / 100.0).abs() < 0.05, "{what}");
        }
    }
}

#[test]
fn what_is_new_passes_the_backlog_of_its_priority() {
    for (kbit, round_trip_ms) in [(16.0, 300), (64.0, 20), (256.0, 2000)] {
        let path = Path::of(kbit, round_trip_ms);
        let mut world = with_share(20, path, 1);
        while world.now < seconds(600) {
            let next = world.now + Duration::from_millis(6_789);
            world.run_to(next);
            let new = world.parcel(Priority::Bulk, 300);
            world.put_watched(new);
        }
        world.run_to(seconds(620));
        assert!(world.alerts.len() >= 88);
        let longest = longest_wait(&world);
        // One message of the backlog's share, what is unacknowledged, and an acknowledgement that makes room.
        assert!(longest.took <= path.round_trip * 2 + PART * 3, "{kbit} kbit/s: a new frame waited for {longest:?}");
        assert!(world.busy(path.round_trip * 12, seconds(600)) >= 0.95, "{kbit} kbit/s");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Nothing waits while the link could carry it, nothing waits for ever, and each lane keeps its order.
    #[test]
    fn lanes_share_the_link_and_keep_their_order(
        kbit in prop::sample::select(&[16.0, 64.0, 256.0][..]),
        round_trip_ms in 1_u64..1_000,
        percent in 0_u8..=100,
        frames in prop::collection::vec((0_usize..3, any::<bool>(), 1_usize..3_000, 0_u64..2_000), 1..200),
        seed: u64,
    ) {
        let path = Path::of(kbit, round_trip_ms);
        let mut world = with_share(percent, path, seed);
        for &(priority, is_new, bytes, pause_ms) in &frames {
            let lane = if is_new { Lane::Live } else { Lane::Backlog };
            let parcel = Parcel { lane, ..world.parcel(PRIORITIES[priority], bytes) };
            world.put(parcel);
            world.run_to(world.now + Duration::from_millis(pause_ms));
        }
        world.run_to(world.now + seconds(120));
        let busy = world.busy(path.round_trip * 12, world.now);
        prop_assert!(busy >= 0.9, "the link is busy {busy:.3} of the time");
        world.has_backlog = false;
        world.run_to(world.now + seconds(600));
        let put = world.places.len();
        prop_assert_eq!(world.delivered_frames, put);
        let mut newest: BTreeMap<(Priority, Lane), FrameId> = BTreeMap::new();
        for (frame, _) in &world.frames {
            let last = newest.entry(world.places[frame]).or_insert(*frame);
            prop_assert!(*last <= *frame, "{frame:?} after {last:?}");
            *last = *frame;
        }
    }
}
