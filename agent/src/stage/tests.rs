//! The stage alone.

use std::time::Duration;

use rtlive_core::event::{Batch, Rejected};
use rtlive_core::expr::Expression;
use rtlive_core::plan::{Binding, BindingSource, Condition, InputPlan, RulePlan, Severity};
use rtlive_core::reading::{Quality, Reading, SeriesInfo};

use super::*;

fn plan() -> Arc<Plan> {
    plan_of(&["door"])
}

fn plan_of(inputs: &[&str]) -> Arc<Plan> {
    let inputs = inputs.iter().map(|&name| InputPlan::pushed(name.into())).collect();
    Arc::new(Plan {
        agent: "gw".into(),
        labels: [].into(),
        inputs,
        streams: Vec::new(),
        rules: Vec::new(),
        quality: Vec::new(),
        derived: Vec::new(),
        ladders: Vec::new(),
    })
}

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_nanos(seconds * 1_000_000_000)
}

fn delivery(seconds: i64) -> Delivery {
    let input = InputId(0);
    let info = SeriesInfo { name: "door/open".into(), unit: None };
    let reading = Reading {
        series: SeriesId(0),
        time: at(seconds),
        value: Value::Bool(true),
        quality: Quality::Good,
        check: None,
        clock: ClockState::Synced,
    };
    Delivery {
        input,
        number: 1,
        declared: vec![Declared { input, source: "".into(), info }],
        batch: Batch { input, arrival: at(seconds), readings: vec![reading], rejected: Vec::new() },
        state: Vec::new(),
        outage: None,
        urgent: false,
        ahead: 0,
    }
}

#[test]
fn what_nobody_listened_to_counts_from_the_clock_as_it_is_now() {
    let mut stage = Stage::new(Engine::new(plan()), Kept::new(), None);
    assert!(stage.cut(at(0), false).is_some());
    stage.committed();
    let change = ClockChange { boot: "boot".into(), ahead: 0, is_trusted: true };
    stage.change_clock(at(100), change.clone());
    stage.wake(at(100));
    stage.tick(at(100));
    stage.wake(at(200));
    let events: Vec<_> = stage.uncommitted().0.iter().map(|(_, event)| event.clone()).collect();
    assert_eq!(events, [Event::Clock(change), Event::Start, Event::Tick, Event::Start]);
}

#[test]
fn only_what_is_more_than_relaxed_readings_presses() {
    let mut plan = (*plan_of(&["door", "strict"])).clone();
    plan.inputs[0].durability = Durability::Relaxed;
    let mut stage = Stage::new(Engine::new(Arc::new(plan)), Kept::new(), None);
    // The plan itself, and what a first event brings.
    assert!(!stage.may_wait());
    stage.deliver(at(1), delivery(1));
    assert!(stage.cut(at(1), false).is_some());
    stage.committed();
    assert!(stage.may_wait());
    stage.deliver(at(2), delivery(2));
    stage.deliver(at(3), delivery(3));
    assert!(stage.may_wait() && !stage.is_urgent());
    // Whatever else comes takes them along, in order.
    stage.deliver(at(4), Delivery { input: InputId(1), ..delivery(4) });
    assert!(!stage.may_wait());
    let readings = |commit: &Commit| -> usize {
        commit
            .events
            .iter()
            .map(|(_, event)| if let Event::Batch(batch) = event { batch.readings.len() } else { 0 })
            .sum()
    };
    assert_eq!(readings(&stage.cut(at(4), false).unwrap()), 3);
    assert!(stage.may_wait());
    stage.committed();
    // There is a bound to what waits, and a source that holds back until it is told does not wait for it.
    while stage.has_room() {
        assert!(!stage.is_urgent());
        stage.deliver(at(5), delivery(5));
    }
    assert!(stage.is_urgent());
    assert!(stage.cut(at(5), false).is_some());
    stage.committed();
    stage.deliver(at(6), Delivery { urgent: true, ..delivery(6) });
    assert!(stage.is_urgent());
}

#[test]
fn much_is_encoded_before_the_commit_of_an_alert() {
    let rule = || RulePlan {
        name: "high".into(),
        bindings: vec![Binding { name: "v".into(), source: BindingSource::Series("door/open".parse().unwrap()) }],
        condition: Condition::Holds {
            when: Expression::parse("v > 1", &["v"]).unwrap(),
            clear: None,
            hold: Duration::ZERO,
        },
        severity: Severity::Warning,
        message: None,
        repeat: None,
    };
    for (has_rule, last, parts) in [(true, 2.0, 2), (true, 1.0, 0), (false, 2.0, 0)] {
        let mut plan = (*plan()).clone();
        plan.rules.extend(has_rule.then(rule));
        let mut stage = Stage::new(Engine::new(Arc::new(plan)), Kept::new(), None);
        stage.cut(at(0), false);
        for commit in 0..3 {
            stage.committed();
            for second in 1..=5 {
                let mut delivery = delivery(second);
                let value = Value::Float(if second == 5 { last } else { 1.0 });
                let reading = Reading { time: at(commit * 10 + second), value, ..delivery.batch.readings[0].clone() };
                delivery.batch.readings = vec![reading; PART_READINGS / 2];
                stage.deliver(at(commit * 10 + second), delivery);
            }
            assert_eq!(stage.cut(at(commit * 10 + 5), false).unwrap().parts.len(), parts);
        }
    }
}

/// The first and last instant of the outage that a commit speaks of.
fn outage(commit: &Commit) -> Option<(Option<Timestamp>, Timestamp)> {
    commit.events.iter().find_map(|(_, event)| match event {
        Event::Outage(outage) => Some((outage.start, outage.end)),
        _ => None,
    })
}

#[test]
fn an_outage_lasts_through_processes_that_heard_nothing() {
    // The last reading was committed at 10 s. A process that starts at 20 s commits, hears nothing, and ends.
    let mut silent = Stage::new(Engine::new(plan()), Kept::new(), Some(at(10)));
    assert!(silent.cut(at(20), false).is_some());
    silent.committed();
    let kept = silent.kept().clone();
    let mut next = Stage::new(Engine::new(plan()), kept, Some(at(20)));
    assert!(next.cut(at(30), false).is_some());
    next.committed();
    next.deliver(at(31), delivery(31));
    assert_eq!(outage(&next.cut(at(31), false).unwrap()), Some((Some(at(10)), at(31))));
    next.committed();
    next.deliver(at(32), delivery(32));
    assert_eq!(outage(&next.cut(at(32), false).unwrap()), None);
    // What a third one may have lost begins at its own last commit.
    let mut third = Stage::new(Engine::new(plan()), next.kept().clone(), Some(at(32)));
    assert!(third.cut(at(40), false).is_some());
    third.committed();
    third.deliver(at(41), delivery(41));
    assert_eq!(outage(&third.cut(at(41), false).unwrap()), Some((Some(at(32)), at(41))));
}

#[test]
fn a_series_moves_to_the_input_and_source_that_declares_it_after_a_reload() {
    let mut stage = Stage::new(Engine::new(plan()), Kept::new(), None);
    stage.cut(at(0), false);
    stage.committed();
    stage.deliver(at(1), delivery(1));
    // Another input takes the prefix of the one that goes, and then another source of that input does.
    for (seconds, input, source) in [(2, "gate", ""), (3, "gate", "left")] {
        stage.reload(at(seconds), plan_of(&["other", input]), true);
        assert!(stage.cut(at(seconds), false).is_some());
        stage.committed();
        let mut moved = delivery(seconds);
        (moved.input, moved.batch.input) = (InputId(1), InputId(1));
        for declared in &mut moved.declared {
            (declared.input, declared.source) = (InputId(1), source.into());
        }
        stage.deliver(at(seconds), moved);
        assert_eq!(stage.engine().origin_of(SeriesId(0)), Some((InputId(1), source)));
    }
    assert_eq!(stage.engine().series().len(), 1);
    let ledger = stage.engine().ledger();
    assert_eq!(
        ledger.inputs.iter().map(|input| (&*input.input, input.accepted)).collect::<Vec<_>>(),
        [("other", 0), ("gate", 2)]
    );
}

#[test]
fn the_silence_of_a_removed_input_is_not_reported_when_it_is_added_again() {
    let mut stage = Stage::new(Engine::new(plan()), Kept::new(), Some(at(10)));
    let mut kept = delivery(11);
    kept.batch.readings.clear();
    kept.state.push(("offset".into(), Some(vec![1])));
    stage.deliver(at(11), kept);
    let mut changes = Vec::new();
    for (seconds, plan) in [(20, plan_of(&["other"])), (30, plan())] {
        stage.reload(at(seconds), plan, true);
        changes.extend(stage.cut(at(seconds), false).unwrap().state);
        stage.committed();
    }
    let last = changes.iter().rev().find(|(input, key, _)| &**input == OWN_KEPT && key == "door");
    assert_eq!(last.map(|(.., value)| value), Some(&None));
    assert_eq!(stage.kept().get("door").and_then(|door| door.get("offset")), Some(&vec![1]));
    let mut next = Stage::new(Engine::new(plan()), stage.kept().clone(), Some(at(40)));
    assert!(next.cut(at(50), false).is_some());
    next.committed();
    next.deliver(at(51), delivery(51));
    assert_eq!(outage(&next.cut(at(51), false).unwrap()), Some((Some(at(40)), at(51))));
}

#[test]
fn long_texts_take_room() {
    let mut stage = Stage::new(Engine::new(plan()), Kept::new(), None);
    stage.cut(at(0), false);
    let mut long = delivery(1);
    long.batch.readings[0].value = Value::Text("x".repeat(UNCOMMITTED_BYTES_MAX / 2 + 1).into());
    let mut taken = 0;
    while stage.has_room() {
        let mut next = delivery(1);
        next.batch.readings.clone_from(&long.batch.readings);
        stage.deliver(at(1), next);
        taken += 1;
    }
    assert_eq!(taken, 2);
    assert!(stage.is_urgent());
}

#[test]
fn deliveries_without_readings_take_room_too() {
    let rejected = Rejected { reason: "checksum".into(), count: 1 };
    for (is_state, is_rejected) in [(true, false), (false, true)] {
        let mut stage = Stage::new(Engine::new(plan()), Kept::new(), None);
        stage.cut(at(0), false);
        stage.tick(at(0));
        stage.committed();
        stage.cut(at(0), false);
        let mut taken = 0;
        while stage.has_room() && taken <= UNCOMMITTED_CHANGES_MAX {
            let mut delivery = delivery(1);
            delivery.declared.clear();
            delivery.batch.readings.clear();
            delivery.batch.rejected.extend(is_rejected.then(|| rejected.clone()));
            delivery.state.extend(is_state.then(|| ("offset".into(), Some(vec![1]))));
            stage.deliver(at(1), delivery);
            taken += 1;
        }
        assert_eq!(taken, UNCOMMITTED_CHANGES_MAX);
        assert!(stage.is_urgent());
        stage.committed();
        assert!(stage.cut(at(2), false).is_some() && stage.has_room());
    }
}
