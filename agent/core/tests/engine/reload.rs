//! A reload keeps what it did not change.

use rtlive_core::engine::Engine;
use rtlive_core::event::{Batch, Event};
use rtlive_core::plan::Function;
use rtlive_core::reading::{InputId, Value};

use crate::plan::{Planned, batch, declared, handle, reading, seconds, shown, take, wait};

fn base() -> Planned {
    Planned::new(0).window("ten", "#", 10, 10)
}

fn reload(engine: &mut Engine, planned: Planned) -> Vec<String> {
    let before = Engine::restore(engine.plan().clone(), &engine.snapshot()).unwrap();
    let mut out = Vec::new();
    engine.reload(seconds(100), planned.done(), &mut out);
    assert_eq!(engine.ledger().check(), None);
    shown(&before, &out)
}

#[test]
fn an_unchanged_plan_changes_nothing() {
    let planned = || base().rule("hot", &[("x", "a/x")], "x > 1", None, "").input("b", 0);
    let mut engine = planned().engine(&["a/x", "b/x"]);
    take(&mut engine, &[(0, 1, 1.0), (0, 12, 2.0), (0, 3, 5.0)]);
    let before = engine.snapshot();
    assert!(reload(&mut engine, planned()).is_empty());
    assert_eq!(engine.snapshot(), before);
}

#[test]
fn inputs_and_streams_are_matched_by_name() {
    let mut engine = base().input("b", 0).engine(&["a/x", "b/x"]);
    take(&mut engine, &[(0, 1, 1.0)]);
    // An input and a stream come before those that stay.
    let mut planned = Planned::new(0).raw("aa", "none").window("ten", "#", 10, 10).input("b", 0);
    planned.0.inputs.reverse();
    assert!(reload(&mut engine, planned).is_empty());
    let a = engine.plan().input_named("a").unwrap();
    let Some(mut event) = batch_of(batch(seconds(12), vec![reading(0, seconds(12), Value::Float(3.0))])) else {
        unreachable!()
    };
    event.input = a;
    let out = handle(&mut engine, &Event::Batch(event));
    assert_eq!(shown(&engine, &out), ["ten a/x 0..10 r0: 1 1 1 1 1 1 1"]);
}

fn batch_of(event: Event) -> Option<Batch> {
    match event {
        Event::Batch(batch) => Some(batch),
        _ => None,
    }
}

#[test]
fn lateness_and_functions_may_change_under_open_windows() {
    let mut engine = base().engine(&["a/x"]);
    take(&mut engine, &[(0, 1, 1.0), (0, 12, 2.0)]);
    let mut planned = Planned::new(0).window("ten", "#", 10, 100);
    if let rtlive_core::plan::StreamKind::Window(window) = &mut planned.0.streams[5].kind {
        window.compute = vec![Function::Max];
    }
    assert!(reload(&mut engine, planned).is_empty());
    let out = take(&mut engine, &[(0, 90, 3.0), (0, 2, 7.0)]);
    assert_eq!(shown(&engine, &out), ["ten a/x 0..10 r1: 7", "ten a/x 10..20 r0: 2"]);
}

#[test]
fn what_has_no_place_any_more_is_emitted_as_far_as_it_is() {
    let planned = base().window("five", "#", 5, 10).rule("hot", &[("x", "a/x")], "x > 1", None, "");
    let mut engine = planned.engine(&["a/x", "a/y"]);
    take(&mut engine, &[(0, 1, 1.0), (1, 2, 5.0), (0, 6, 9.0)]);
    // `five` goes, `ten` selects less, and the rule goes too.
    let out = reload(&mut engine, Planned::new(0).window("ten", "a/y", 10, 10));
    let expected = [
        "ten a/x 0..10 r0 early: 2 10 5 1 9 1 9",
        "five a/x 5..10 r0 early: 1 9 9 9 9 9 9",
        "hot  Cleared at 100: hot: x > 1 (x=9)",
    ];
    assert_eq!(out, expected);
    assert_eq!(engine.windows_open(), 1);
    let account = &engine.ledger().windows[0];
    assert_eq!((account.selected, account.open, account.finished), (3, 1, 2));
}

#[test]
fn an_input_that_goes_and_comes_back_finds_its_series() {
    let mut engine = base().input("b", 0).engine(&["a/x", "b/x"]);
    let mut without = base().input("b", 0);
    without.0.inputs.remove(0);
    reload(&mut engine, without);
    assert_eq!(engine.series_named("a/x").map(|id| id.0), Some(0));
    reload(&mut engine, base().input("b", 0));
    assert_eq!(take(&mut engine, &[(0, 1, 1.0)]).len(), 0);
    assert_eq!(engine.ledger().inputs[0].dropped.len(), 1, "not declared again yet");
    let event = declared(&engine, "a/x");
    handle(&mut engine, &event);
    take(&mut engine, &[(0, 1, 1.0)]);
    assert_eq!((engine.ledger().inputs[0].accepted, engine.windows_open()), (1, 1));
}

#[test]
fn a_raised_alert_stays_raised_over_a_reload() {
    let rule = |limit: &str| base().rule("hot", &[("x", "a/x")], limit, None, "");
    let mut engine = rule("x > 1").engine(&["a/x"]);
    take(&mut engine, &[(0, 1, 5.0)]);
    assert!(reload(&mut engine, rule("x > 3")).is_empty());
    assert_eq!(engine.alerts_raised().len(), 1);
    let out = take(&mut engine, &[(0, 2, 2.0)]);
    assert_eq!(shown(&engine, &out), ["hot  Cleared at 2: hot: x > 3 (x=2)"]);
}

#[test]
fn a_rule_that_did_not_change_goes_on_counting_and_one_that_did_begins_anew() {
    let rule = |limit: &str| {
        Planned::new(0).rule("hot", &[("x", "a/x")], limit, None, "").with(5, 0).absent("silent", &["a/x"], 200)
    };
    let mut engine = rule("x > 1").engine(&["a/x"]);
    take(&mut engine, &[(0, 98, 5.0)]);
    assert!(reload(&mut engine, rule("x > 1")).is_empty());
    let out = wait(&mut engine, 103);
    assert_eq!(shown(&engine, &out), ["hot  Raised at 103: hot: x > 1 (x=5)"]);
    // Raised, it stays so under another condition, and is not raised again by it.
    assert!(reload(&mut engine, rule("x > 2")).is_empty());
    let out = take(&mut engine, &[(0, 104, 5.0)]);
    assert_eq!(shown(&engine, &out), [""; 0]);
    let out = take(&mut engine, &[(0, 105, 2.0)]);
    assert_eq!(shown(&engine, &out), ["hot  Cleared at 105: hot: x > 2 (x=2)"]);
    // Not raised, what it had counted does not count for another condition.
    take(&mut engine, &[(0, 110, 5.0)]);
    reload(&mut engine, rule("x > 3"));
    let out = wait(&mut engine, 500);
    assert_eq!(shown(&engine, &out).len(), 1, "the absence alone: counted from the last reading, over both reloads");
}

#[test]
fn nobody_misses_the_series_of_an_input_that_is_gone() {
    let planned = |inputs: u64| {
        let planned = Planned::new(0).absent("silent", &["+/x", "+/y"], 30);
        if inputs > 1 { planned.input("b", 0) } else { planned }
    };
    let mut engine = planned(2).engine(&["a/x", "b/x", "b/y"]);
    assert_eq!(wait(&mut engine, 90).len(), 3);
    // One of them is missed when its input goes, the other was just heard.
    let spoken = vec![reading(2, seconds(95), Value::Float(1.0))];
    let (input, arrival, rejected) = (InputId(1), seconds(95), Vec::new());
    let out = handle(&mut engine, &Event::Batch(Batch { input, arrival, readings: spoken, rejected }));
    assert_eq!(shown(&engine, &out), ["silent b/y Cleared at 95: b/y is silent ()"]);
    let out = reload(&mut engine, planned(1));
    assert_eq!(out, ["silent b/x Cleared at 100: b/x is silent ()"]);
    assert!(wait(&mut engine, 500).is_empty());
    let mut engine = Engine::restore(engine.plan().clone(), &engine.snapshot()).unwrap();
    let mut out = Vec::new();
    engine.handle(seconds(600), &Event::Start, &mut out);
    assert!(out.is_empty());
    assert!(wait(&mut engine, 999).is_empty(), "the other is raised already");
    // Put back, it is missed again from when it is declared.
    let mut out = Vec::new();
    engine.reload(seconds(1_000), planned(2).done(), &mut out);
    for (at, name) in [(1_010, "b/x"), (1_020, "b/y")] {
        let event = declared(&engine, name);
        engine.handle(seconds(at), &event, &mut out);
    }
    out.extend(wait(&mut engine, 2_000));
    let expected = ["silent b/x Raised at 1040: b/x is silent ()", "silent b/y Raised at 1050: b/y is silent ()"];
    assert_eq!(shown(&engine, &out), expected);
}

#[test]
fn what_has_closed_stays_closed_under_a_longer_lateness() {
    let mut engine = base().engine(&["a/x"]);
    let mut out = take(&mut engine, &[(0, 1, 1.0), (0, 12, 2.0)]);
    out.extend(take(&mut engine, &[(0, 20, 3.0)]));
    assert_eq!(out.len(), 2, "0..10 and 10..20 were told; the first has closed at 20");
    reload(&mut engine, Planned::new(0).window("ten", "#", 10, 100));
    let out = take(&mut engine, &[(0, 2, 7.0), (0, 13, 7.0)]);
    assert_eq!(shown(&engine, &out), ["late a/x 2=7", "ten a/x 10..20 r1: 2 9 4.5 2 7 2 7"]);
}

#[test]
fn a_window_that_comes_back_begins_behind_what_was_told() {
    let mut engine = base().engine(&["a/x"]);
    take(&mut engine, &[(0, 1, 1.0), (0, 12, 2.0)]);
    let out = reload(&mut engine, Planned::new(0));
    assert_eq!(out, ["ten a/x 10..20 r0 early: 1 2 2 2 2 2 2"]);
    engine = Engine::restore(engine.plan().clone(), &engine.snapshot()).unwrap();
    reload(&mut engine, base());
    let out = take(&mut engine, &[(0, 13, 7.0), (0, 21, 7.0), (0, 30, 7.0)]);
    assert_eq!(shown(&engine, &out), ["late a/x 13=7", "ten a/x 20..30 r0: 1 7 7 7 7 7 7"]);
}

#[test]
fn a_changed_window_begins_at_the_next_boundary_of_the_old_one() {
    let mut engine = base().engine(&["a/x"]);
    take(&mut engine, &[(0, 1, 1.0), (0, 12, 2.0)]);
    assert!(reload(&mut engine, Planned::new(0).window("ten", "#", 60, 10)).is_empty());
    // Up to 20 the old one; from there the new one, whose first window begins there.
    let mut out = take(&mut engine, &[(0, 14, 3.0), (0, 21, 4.0), (0, 3, 8.0)]);
    engine = Engine::restore(engine.plan().clone(), &engine.snapshot()).unwrap();
    out.extend(take(&mut engine, &[(0, 30, 5.0), (0, 60, 6.0), (0, 2, 9.0), (0, 120, 0.0)]));
    let expected = [
        "late a/x 3=8",
        "ten a/x 10..20 r0: 2 5 2.5 2 3 2 3",
        "late a/x 2=9",
        "ten a/x 20..60 r0: 2 9 4.5 4 5 4 5",
        "ten a/x 60..120 r0: 1 6 6 6 6 6 6",
    ];
    assert_eq!(shown(&engine, &out), expected);
    let account = &engine.ledger().windows[0];
    assert_eq!((account.selected, account.finished, account.open, account.late), (9, 6, 1, 2));
}
