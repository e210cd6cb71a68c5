//! The configurations that a run goes through: what is common to all of them is what the reference computes.

use std::sync::Arc;
use std::time::Duration;

use rtlive_core::expr::Expression;
use rtlive_core::plan::{
    BatchLimit, Binding, BindingSource, Buckets, Condition, Deadband, Durability, Format, Function, InputPlan, Plan,
    Priority, QualityPlan, ReportPlan, RulePlan, Severity, StreamKind, StreamPlan, Switch, WindowKind, WindowPlan,
};

/// How many plans there are.
pub(crate) const PLANS: u64 = 32;

/// The length of the window that every plan has, over all series, and for how long it is revised; seconds.
pub(crate) const EVERY: u64 = 5;
pub(crate) const LATENESS: u64 = 4;

/// How long a window of a silent input waits, in seconds.
const IDLE: u64 = 3;

/// The functions of the window.
pub(crate) const COMPUTE: [Function; 6] =
    [Function::Count, Function::Min, Function::Max, Function::Sum, Function::First, Function::Last];

/// The rule that every plan has looks at the last two digits of `poll/a`.
pub(crate) const RAISED_ABOVE: i64 = 80;
pub(crate) const CLEARED_BELOW: i64 = 40;

/// The inputs, with how far their watermarks stay behind, in seconds, and whether they can be asked again.
pub(crate) const INPUTS: [(&str, u64, bool); 4] =
    [("poll", 0, false), ("push", 2, false), ("bus", 1, true), ("log", 0, true)];

/// One of the plans: each bit of its number changes something.
pub(crate) fn plan(number: u64) -> Arc<Plan> {
    let has = |bit: u64| number >> bit & 1 == 1;
    let mut inputs: Vec<InputPlan> = INPUTS.iter().map(|&(name, behind, again)| input(name, behind, again)).collect();
    if has(0) {
        inputs.reverse();
    }
    let mut streams: Vec<StreamPlan> = [
        ("gaps", Priority::Alert),
        ("alerts", Priority::Alert),
        ("late", Priority::Bulk),
        ("quarantine", Priority::Bulk),
        ("unsynced", Priority::Bulk),
    ]
    .map(|(name, priority)| stream(name, StreamKind::Reserved, priority))
    .into();
    if has(1) {
        let mut extra = stream("bus_as_json", raw("bus/#"), Priority::Live);
        extra.format = Format::Json;
        extra.batch = if has(2) { BatchLimit::Count(1) } else { BatchLimit::Auto };
        streams.push(extra);
    }
    if has(2) {
        streams.push(stream("half_minute", window("push/#", 30), Priority::Live));
    }
    let mut all = stream("raw", raw("#"), Priority::Bulk);
    all.batch = match number >> 3 & 3 {
        0 => BatchLimit::Auto,
        1 => BatchLimit::Count(7),
        2 => BatchLimit::Time(Duration::from_secs(3)),
        _ => BatchLimit::Auto,
    };
    if has(3) && has(4) {
        all.class = "personal".into();
    }
    streams.push(all);
    streams.push(stream("windows", window("#", EVERY), Priority::Live));
    // What each reports depends on all that was reported before, in every process.
    let report = ReportPlan { deadband: Deadband::Absolute(10.0), heartbeat: Some(Duration::from_secs(4)) };
    let select = vec!["#".parse().unwrap()];
    streams.push(stream("news", StreamKind::Raw { select, report: Some(report) }, Priority::Bulk));
    let condition = (format!("a % 100 > {RAISED_ABOVE}"), format!("a % 100 < {CLEARED_BELOW}"));
    let mut rules = vec![rule("hot", "poll/a", &condition.0, Some(&condition.1))];
    let mut long = rule("long", "push/+/v", "a % 100 > 30", None);
    if let Condition::Holds { hold, .. } = &mut long.condition {
        *hold = Duration::from_secs(2);
    }
    rules.push(long);
    let after = Duration::from_secs(IDLE);
    let select = vec!["bus/#".parse().unwrap(), "log/never".parse().unwrap()];
    let silent = rule("silent", "poll/a", "true", None);
    rules.push(RulePlan { condition: Condition::Absent { after, select }, bindings: Vec::new(), ..silent });
    if has(4) {
        rules.insert(0, rule("extra", "push/+/v", "a % 100 > 50", None));
    }
    Arc::new(Plan {
        agent: "gw".into(),
        labels: [].into(),
        inputs,
        streams,
        rules,
        quality: quality(has(2)),
        derived: Vec::new(),
        ladders: Vec::new(),
    })
}

/// Checks that remember much and mark at most as suspect, so that what becomes of readings is the same without them.
fn quality(is_more: bool) -> Vec<QualityPlan> {
    let mut all = QualityPlan::new("#".parse().unwrap());
    (all.duplicate, all.backwards) = (Some(true), Some(true));
    all.max_rate = Some(Switch::On(20.0));
    all.spike = Some(Switch::On(2.0));
    all.stuck_after = Some(Switch::On(Duration::from_secs(2)));
    let mut some = QualityPlan::new("push/#".parse().unwrap());
    some.backwards = Some(false);
    if is_more { vec![all, some] } else { vec![all] }
}

fn input(name: &str, behind: u64, can_be_asked_again: bool) -> InputPlan {
    InputPlan {
        name: name.into(),
        prefix: name.into(),
        out_of_order: Duration::from_secs(behind),
        idle: Duration::from_secs(IDLE),
        max_ahead: InputPlan::MAX_AHEAD,
        can_be_asked_again,
        durability: Durability::Commit,
    }
}

fn stream(name: &str, kind: StreamKind, priority: Priority) -> StreamPlan {
    let (format, batch) = (Format::Frame, BatchLimit::Auto);
    StreamPlan {
        name: name.into(),
        kind,
        priority,
        format,
        batch,
        topic: None,
        class: "process".into(),
        bytes_max: None,
        age_max: None,
        order: Default::default(),
        evict: Default::default(),
    }
}

fn raw(filter: &str) -> StreamKind {
    StreamKind::Raw { select: vec![filter.parse().unwrap()], report: None }
}

fn window(filter: &str, every: u64) -> StreamKind {
    StreamKind::Window(WindowPlan {
        select: vec![filter.parse().unwrap()],
        kind: WindowKind::tumbling(Duration::from_secs(every)),
        emit_every: None,
        lateness: Duration::from_secs(LATENESS),
        compute: COMPUTE.to_vec(),
        buckets: Buckets::default(),
    })
}

fn rule(name: &str, source: &str, when: &str, clear: Option<&str>) -> RulePlan {
    let names = ["a"];
    let source = match source.contains('+') {
        true => BindingSource::Each(source.parse().unwrap()),
        false => BindingSource::Series(source.parse().unwrap()),
    };
    RulePlan {
        name: name.into(),
        bindings: vec![Binding { name: "a".into(), source }],
        condition: Condition::Holds {
            when: Expression::parse(when, &names).unwrap(),
            clear: clear.map(|clear| Expression::parse(clear, &names).unwrap()),
            hold: Duration::ZERO,
        },
        repeat: None,
        severity: Severity::Critical,
        message: None,
    }
}
