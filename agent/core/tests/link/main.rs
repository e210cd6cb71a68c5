//! The sender over model links: slow, far away, unsteady.

#![allow(clippy::unwrap_used, clippy::panic)]

mod fleet;
mod lanes;
mod month;
mod seeds;
mod world;

use std::time::Duration;

use proptest::prelude::*;
use rtlive_core::plan::Priority;
use rtlive_core::uplink::Terms;

use world::{Path, TERMS, Waited, World};

/// The longest part.
const PART: Duration = Duration::from_millis(500);
const FRAME_BYTES: usize = 40_000;
/// The least burst of a bound of the rate.
const BURST_BYTES: u64 = 4 << 10;

const fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// Drains a backlog, with an alert every few seconds.
fn drain(path: Path, span: Duration, seed: u64) -> World {
    let mut world = World::new(path, FRAME_BYTES, seed);
    while world.now < span {
        let next = world.now + Duration::from_millis(6_789);
        world.run_to(next);
        world.alert();
    }
    world.run_to(span + path.round_trip * 4 + seconds(2));
    world
}

/// The longest that an alert waited for the link.
fn longest_wait(world: &World) -> Waited {
    *world.alerts.iter().max_by_key(|alert| alert.took).unwrap()
}

#[test]
fn an_alert_passes_a_backlog_that_keeps_the_link_busy() {
    for kbit in [16.0, 64.0, 256.0] {
        for round_trip_ms in [20, 100, 300, 600, 1000, 2000] {
            let path = Path::of(kbit, round_trip_ms);
            let world = drain(path, seconds(600), 1);
            let what = format!("{kbit} kbit/s, {round_trip_ms} ms");
            let busy = world.busy(path.round_trip * 12, seconds(600));
            assert!(busy >= 0.95, "{what}: the link is busy {busy:.3} of the time");
            assert!(world.alerts.len() >= 88, "{what}: {} alerts", world.alerts.len());
            // Messages are not cut where the bound lies.
            let longest = longest_wait(&world);
            assert!(longest.took <= path.round_trip + PART + PART / 2, "{what}: an alert waited for {longest:?}");
            let rate = world.sender.link().unwrap().rate / path.rate;
            assert!((0.95..=1.01).contains(&rate), "{what}: the estimate is {rate:.3} of the rate");
        }
    }
}

#[test]
fn a_link_that_lets_the_first_messages_pass_at_once_is_not_believed_to_be_fast() {
    for round_trip_ms in [20, 300, 2000] {
        for after_ms in (100..30_000).step_by(333) {
            let path = Path { burst: 1_600.0, ..Path::of(16.0, round_trip_ms) };
            let mut world = World::new(path, FRAME_BYTES, 1);
            world.run_to(Duration::from_millis(after_ms));
            world.alert();
            world.run_to(world.now + seconds(30));
            let alert = longest_wait(&world);
            // What is left of a round trip and 2 s by the time that the alert itself takes.
            let within = path.round_trip / 2 + Duration::from_millis(1_800);
            assert!(alert.took <= within, "{round_trip_ms} ms: an alert waited for {alert:?}");
        }
    }
}

#[test]
fn an_unsteady_link_is_used_as_well() {
    for kbit in [16.0, 256.0] {
        for round_trip_ms in [20, 300, 1000, 2000, 3000] {
            // In their order the messages of a far link arrive with the latest of many.
            let busy_min = if round_trip_ms > 1000 { 0.6 } else { 0.85 };
            for (jitter, loss) in [(0.3, 0.0), (1.0, 0.0), (0.0, 0.02), (0.3, 0.02)] {
                let path = Path { jitter, loss, ..Path::of(kbit, round_trip_ms) };
                let world = drain(path, seconds(600), 1);
                let what = format!("{kbit} kbit/s, {round_trip_ms} ms, jitter {jitter}, loss {loss}");
                let busy = world.busy(path.round_trip * 12, seconds(600));
                assert!(busy >= busy_min, "{what}: the link is busy {busy:.3} of the time");
                let longest = longest_wait(&world);
                assert!(longest.took <= path.round_trip * 2 + PART * 2, "{what}: an alert waited for {longest:?}");
            }
        }
    }
}

#[test]
fn a_way_that_becomes_longer_is_filled_again() {
    for (kbit, before_ms, after_ms) in [(64.0, 300, 1500), (256.0, 20, 2000), (256.0, 600, 2600)] {
        let mut world = World::new(Path::of(kbit, before_ms), FRAME_BYTES, 1);
        world.run_to(seconds(60));
        world.path.round_trip = Duration::from_millis(after_ms);
        world.run_to(seconds(160));
        let busy = world.busy(seconds(110), seconds(160));
        assert!(busy >= 0.9, "{kbit} kbit/s, {before_ms} to {after_ms} ms: the link is busy {busy:.3} of the time");
    }
}

#[test]
fn the_estimate_follows_the_link() {
    for (round_trip_ms, within) in [(20, 30), (300, 40), (2000, 60)] {
        let mut world = World::new(Path::of(256.0, round_trip_ms), FRAME_BYTES, 1);
        for (kbit, lasts) in [(256.0, 60), (64.0, 120), (16.0, 120), (64.0, 120), (256.0, 120)] {
            world.path.rate = Path::of(kbit, 0).rate;
            world.run_to(world.now + seconds(within));
            let rate = world.sender.link().unwrap().rate / world.path.rate;
            assert!((0.8..=1.25).contains(&rate), "{round_trip_ms} ms, {kbit} kbit/s: {rate:.3} of the rate");
            world.run_to(world.now + seconds(lasts - within));
        }
    }
}

#[test]
fn a_link_that_has_nothing_to_do_is_not_believed_to_be_slow() {
    let mut world = World::new(Path::of(256.0, 300), FRAME_BYTES, 1);
    world.run_to(seconds(60));
    world.has_backlog = false;
    let before = world.sender.link().unwrap().rate;
    for _ in 0..600 {
        world.run_to(world.now + seconds(1));
        let frame = world.parcel(Priority::Live, 300);
        world.put(frame);
    }
    let after = world.sender.link().unwrap();
    assert!(after.rate >= before, "{before} before, {after:?}");
    assert!(after.round_trip_min < Duration::from_millis(330), "{after:?}");
    // What comes then at once is sent at once.
    let frame = world.parcel(Priority::Live, 8_000);
    let sent = world.sent.len();
    world.put(frame);
    assert_eq!(world.sent.len(), sent + 2);
}

#[test]
fn small_messages_alone_raise_the_estimate() {
    let mut world = World::new(Path::of(256.0, 20), FRAME_BYTES, 1);
    world.has_backlog = false;
    for size in 1..=40 {
        let frame = world.parcel(Priority::Live, size * 100);
        world.put(frame);
        world.run_to(world.now + seconds(1));
    }
    let rate = world.sender.link().unwrap().rate;
    assert!(rate > 20_000.0, "{rate}");
}

#[test]
fn an_alert_passes_a_backlog_within_the_rate_that_is_allowed() {
    let mut world = World::new(Path::of(256.0, 300), FRAME_BYTES, 1).at_most(Some(2_000));
    while world.now < seconds(600) {
        world.run_to(world.now + Duration::from_millis(6_789));
        world.alert();
    }
    world.run_to(seconds(610));
    let sent: u64 = world.sent.iter().map(|(_, bytes)| bytes).sum();
    assert!((590 * 2_000..=610 * 2_000 + BURST_BYTES).contains(&sent), "{sent} bytes");
    let longest = longest_wait(&world);
    assert!(world.alerts.len() >= 88 && longest.took <= PART + PART, "an alert waited for {longest:?}");
}

/// How the link is for a while.
fn path() -> impl Strategy<Value = (Path, Duration)> {
    let rate = prop::sample::select(&[9.6, 16.0, 64.0, 1000.0, 100_000.0][..]);
    (rate, 1_u64..3000, 0.0..1.0, 0.0..0.2, 1_u64..60).prop_map(|(kbit, round_trip_ms, jitter, loss, lasts)| {
        (Path { jitter, loss, ..Path::of(kbit, round_trip_ms) }, seconds(lasts))
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// The world checks the bound of what is unacknowledged with each message.
    #[test]
    fn everything_arrives_over_any_link(
        phases in prop::collection::vec(path(), 1..6),
        frames in prop::collection::vec((1_usize..60_000, any::<bool>()), 1..20),
        seed: u64,
    ) {
        let mut world = World::new(phases[0].0, FRAME_BYTES, seed);
        world.has_backlog = false;
        let count = frames.len();
        for (place, (bytes, is_alert)) in frames.into_iter().enumerate() {
            let (path, lasts) = phases[place % phases.len()];
            world.path = path;
            if is_alert {
                world.alert();
            } else {
                let frame = world.parcel(Priority::Live, bytes);
                world.put(frame);
            }
            world.run_to(world.now + lasts);
        }
        world.path = Path::of(1000.0, 20);
        world.run_to(world.now + seconds(600));
        prop_assert_eq!(world.delivered_frames, count);
    }

    /// Connections and keep-alives count as well.
    #[test]
    fn over_any_time_no_more_is_sent_than_the_rate_and_a_burst(
        bytes_per_second in 500_u64..50_000,
        phases in prop::collection::vec(path(), 1..4),
        frames in prop::collection::vec((1_usize..60_000, any::<bool>(), 0_u64..60), 1..20),
        seed: u64,
    ) {
        let terms = Terms { keep_alive: seconds(10), ..TERMS };
        let mut world = World::under(terms, phases[0].0, FRAME_BYTES, seed).at_most(Some(bytes_per_second));
        world.has_backlog = false;
        for (place, (bytes, is_alert, pause)) in frames.into_iter().enumerate() {
            world.path = phases[place % phases.len()].0;
            if is_alert {
                world.alert();
            } else {
                let frame = world.parcel(Priority::Live, bytes);
                world.put(frame);
            }
            world.run_to(world.now + seconds(pause));
        }
        let burst = (bytes_per_second / 2).max(BURST_BYTES);
        for (place, &(from, _)) in world.sent.iter().enumerate() {
            let mut sum = 0;
            for &(to, bytes) in &world.sent[place..] {
                sum += bytes;
                let allowed = (to - from).as_nanos() * u128::from(bytes_per_second) / 1_000_000_000;
                prop_assert!(u128::from(sum) <= allowed + u128::from(burst), "{sum} from {from:?} to {to:?}");
            }
        }
    }
}
