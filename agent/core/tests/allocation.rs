//! Readings that move no window ask for no memory, whatever rules and derived series look at them.

#![allow(clippy::unwrap_used, clippy::panic)]
#![allow(unsafe_code, reason = "a global allocator that counts is what this test is about")]

#[path = "engine/plan.rs"]
#[allow(dead_code)]
mod plan;

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicU64, Ordering};

use rtlive_core::event::{Batch, Event};
use rtlive_core::plan::Join;
use rtlive_core::reading::{InputId, Value};

use plan::{Planned, batch, declared, reading, seconds};

/// The system's allocator, and how often it was asked for memory.
struct Counting;

static ASKED: AtomicU64 = AtomicU64::new(0);

// SAFETY: every call goes to the system's allocator as it is.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ASKED.fetch_add(1, Ordering::Relaxed);
        // SAFETY: the caller's promise is the system's.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the pointer came from there.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

#[test]
fn a_reading_asks_for_no_memory() {
    let both = [("u", "a/+/voltage"), ("i", "a/{1}/current")];
    let state = [("s", "b/state"), ("u", "a/m1/voltage")];
    let mut engine = Planned::new(0)
        .input("b", 0)
        .derived("a/{1}/power", &both, 2, Join::Inner, "u * i")
        .derived("a/{1}/twice", &[("p", "a/+/power")], 0, Join::Inner, "2 * p")
        .rule("high", &[("p", "a/+/power")], "p > 1e9 or rate(p) > 1e9", None, "{p}")
        .rule("higher", &[("t", "a/+/twice"), ("u", "a/{1}/voltage")], "t > 1e9 and u > 0", None, "{t}")
        // Texts: one that is read, and one that the expression has.
        .derived("state", &state, 2, Join::Inner, "if(u % 2 == 0, s, 'odd')")
        .rule("stopped", &[("s", "state")], "s == 'stopped'", None, "{s}")
        .window("day", "#", 86_400, 0)
        .engine(&[]);
    for series in 0..10 {
        for name in ["voltage", "current"] {
            let event = declared(&engine, &format!("a/m{series}/{name}"));
            engine.handle(seconds(0), &event, &mut Vec::new());
        }
    }
    let event = declared(&engine, "b/state");
    engine.handle(seconds(0), &event, &mut Vec::new());
    let sides: Vec<u32> = (0..10)
        .flat_map(|series| ["voltage", "current"].map(|name| format!("a/m{series}/{name}")))
        .map(|name| engine.series_named(&name).unwrap().0)
        .collect();
    let state = engine.series_named("b/state").unwrap().0;
    let event = |time: i64| {
        let readings = sides.iter().map(|&side| reading(side, seconds(time), Value::Float(time as f64)));
        let text = Value::Text(if time % 3 == 0 { "running" } else { "starting" }.into());
        let readings_of_b = vec![reading(state, seconds(time), text)];
        let (input, arrival, rejected) = (InputId(1), seconds(time), Vec::new());
        [
            batch(seconds(time), readings.collect()),
            Event::Batch(Batch { input, arrival, readings: readings_of_b, rejected }),
        ]
    };
    let (warm, measured): (Vec<Event>, Vec<Event>) =
        ((1..200).flat_map(event).collect(), (200..1_200).flat_map(event).collect());
    let mut out = Vec::new();
    warm.iter().for_each(|event| engine.handle(seconds(0), event, &mut out));
    let before = ASKED.load(Ordering::Relaxed);
    measured.iter().for_each(|event| engine.handle(seconds(0), event, &mut out));
    let asked = ASKED.load(Ordering::Relaxed) - before;
    assert!(out.is_empty(), "nothing is emitted: {out:?}");
    assert_eq!(asked, 0, "for {} readings", 1_000 * (sides.len() + 1));
    let derived: u64 = engine.ledger().inputs.iter().skip(2).map(|account| account.accepted).sum();
    assert_eq!(derived, 21 * 1_198, "what was derived of it");
}
