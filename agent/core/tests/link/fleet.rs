//! A thousand agents that lose their broker in the same instant.
//!
//! The broker and its network take whatever comes: what comes at once is what is looked at. The test prints what docs/link.md shows.

use std::time::Duration;

use rtlive_core::plan::Priority;
use rtlive_core::uplink::sender::{RECONNECT_WAIT_MAX, RECONNECT_WAIT_MIN};
use rtlive_core::uplink::{Lane, Parcel};

use super::seconds;
use super::world::{Path, World};

const AGENTS: u64 = 1_000;
const LOST_AT: Duration = seconds(60);
/// Each agent makes 200 bytes a second: a hundred series, once a second each, or so.
const FRAME_EVERY: Duration = seconds(20);
const FRAME_BYTES: usize = 4_000;
/// What has waited for a minute is backlog.
const BACKLOG_AFTER: Duration = seconds(60);
/// How long it is looked at after the broker has come back.
const LOOKED_AT: usize = 300;
/// What the first wait after a connection is drawn from is a second wide (three times the shortest, less the shortest).
const FIRST_WAITS: Duration = seconds(1);

/// What a fleet did in each second after its broker came back.
struct Seen {
    attempts_before: Vec<u64>,
    connections: Vec<u64>,
    bytes: Vec<u64>,
}

#[test]
fn a_fleet_that_lost_its_broker_comes_back_little_by_little() {
    println!(
        "| outage | connections: most in a second | half are back after | all | bytes: most in a second | in the first ten seconds, each | delivered after |"
    );
    println!("|---|---|---|---|---|---|---|");
    for outage in [seconds(5), seconds(60), seconds(600), seconds(7_200)] {
        let seen = fleet(outage);
        println!("{}", seen.line(outage));
        let peak = |counts: &[u64]| counts.iter().copied().max().unwrap();
        assert_eq!(seen.connections.iter().sum::<u64>(), AGENTS);
        // Nobody waits longer than the longest wait, and a round trip.
        assert_eq!(seen.connections[RECONNECT_WAIT_MAX.as_secs() as usize + 1..].iter().sum::<u64>(), 0);
        // The first attempts are drawn from a second: at most all in one.
        assert!(peak(&seen.attempts_before) <= AGENTS / FIRST_WAITS.as_secs());
        // A wait is drawn up to three times the one before, so that the waits of the fleet are as wide as two thirds of the time that has passed.
        let wide = (outage * 2 / 3).min(RECONNECT_WAIT_MAX - RECONNECT_WAIT_MIN);
        let even = AGENTS as f64 / wide.as_secs_f64();
        // Waits are not drawn evenly, as short ones follow short ones; and counts vary by their root.
        let most = even * 3.0 + 5.0 * (even * 3.0).sqrt();
        assert!(
            peak(&seen.connections) as f64 <= most,
            "{} connections in a second, {most:.0} at most",
            peak(&seen.connections)
        );
    }
}

fn fleet(outage: Duration) -> Seen {
    let back_at = LOST_AT + outage;
    let end = back_at + seconds(LOOKED_AT as u64);
    let mut seen = Seen {
        attempts_before: vec![0; outage.as_secs() as usize + 1],
        connections: vec![0; LOOKED_AT],
        bytes: vec![0; LOOKED_AT],
    };
    for agent in 0..AGENTS {
        let mut world = World::new(Path::of(1_000.0, 100), FRAME_BYTES, agent).without_broker(LOST_AT, back_at);
        world.has_backlog = false;
        // They do not seal in the same instant.
        let mut next = FRAME_EVERY.mul_f64(agent as f64 / AGENTS as f64);
        while next < end {
            world.run_to(next);
            let waits = (LOST_AT..back_at).contains(&next) && next + BACKLOG_AFTER < back_at;
            let lane = if waits { Lane::Backlog } else { Lane::Live };
            let parcel = Parcel { lane, ..world.parcel(Priority::Live, FRAME_BYTES) };
            world.put(parcel);
            next += FRAME_EVERY;
        }
        world.run_to(end + FRAME_EVERY);
        assert_eq!(world.delivered_frames, world.places.len(), "agent {agent}");
        count(&mut seen.attempts_before, &world.attempts, LOST_AT);
        count(&mut seen.connections, &world.connections, back_at);
        for &(at, bytes) in &world.sent {
            let second = at.checked_sub(back_at).map(|since| since.as_secs() as usize);
            if let Some(sum) = second.and_then(|second| seen.bytes.get_mut(second)) {
                *sum += bytes;
            }
        }
    }
    seen
}

/// Counts instants by the seconds since one.
fn count(counts: &mut [u64], instants: &[Duration], since: Duration) {
    for second in instants.iter().filter_map(|at| at.checked_sub(since)).map(|since| since.as_secs() as usize) {
        if let Some(count) = counts.get_mut(second) {
            *count += 1;
        }
    }
}

impl Seen {
    fn line(&self, outage: Duration) -> String {
        let after = |part: u64| {
            let mut back = 0;
            let second = self.connections.iter().position(|count| {
                back += count;
                back >= AGENTS * part / 100
            });
            second.unwrap_or(LOOKED_AT) + 1
        };
        let most = |counts: &[u64]| counts.iter().copied().max().unwrap_or_default();
        // What is made anew goes on.
        let steady = AGENTS * FRAME_BYTES as u64 / FRAME_EVERY.as_secs() * 3 / 2;
        let drained = self.bytes.iter().rposition(|bytes| *bytes > steady).map_or(0, |second| second + 1);
        format!(
            "| {} s | {} | {} s | {} s | {} kB | {} kB | {drained} s |",
            outage.as_secs(),
            most(&self.connections),
            after(50),
            after(100),
            most(&self.bytes) / 1_000,
            self.bytes[..10].iter().sum::<u64>() / 1_000 / AGENTS,
        )
    }
}
