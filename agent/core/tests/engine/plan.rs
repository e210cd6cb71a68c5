//! Plans and events, written short.

use std::sync::Arc;
use std::time::Duration;

use rtlive_core::engine::Engine;
use rtlive_core::event::{Batch, Declared, Event};
use rtlive_core::expr::Expression;
use rtlive_core::plan::{
    BatchLimit, Binding, BindingSource, Buckets, Condition, Deadband, DerivedPlan, Durability, Format, Function,
    InputPlan, Join, Plan, Priority, QualityPlan, ReportPlan, RulePlan, Severity, StreamKind, StreamPlan, WindowJoin,
    WindowKind, WindowPlan,
};
use rtlive_core::reading::{ClockState, InputId, Quality, Reading, SeriesId, SeriesInfo, Value};
use rtlive_core::record::{Aggregate, Emitted, Record};
use rtlive_core::time::Timestamp;

pub(crate) const SECOND: i64 = 1_000_000_000;

/// A plan that grows by its methods.
pub(crate) struct Planned(pub(crate) Plan);

impl Planned {
    /// One pushed input `a` with the given out-of-orderness in seconds.
    pub(crate) fn new(out_of_order: u64) -> Self {
        let streams =
            ["gaps", "alerts", "late", "quarantine", "unsynced"].map(|name| stream(name, StreamKind::Reserved)).into();
        let (agent, labels) = ("gw".into(), [("site".to_owned(), "plant-7".to_owned())].into());
        Self(Plan {
            agent,
            labels,
            inputs: Vec::new(),
            streams,
            rules: Vec::new(),
            quality: Vec::new(),
            derived: Vec::new(),
            ladders: Vec::new(),
        })
        .input("a", out_of_order)
    }

    pub(crate) fn input(mut self, name: &str, out_of_order: u64) -> Self {
        self.0.inputs.push(InputPlan {
            name: name.into(),
            prefix: name.into(),
            out_of_order: Duration::from_secs(out_of_order),
            idle: Duration::from_secs(10),
            max_ahead: Duration::from_secs(300),
            can_be_asked_again: false,
            durability: Durability::Commit,
        });
        self
    }

    pub(crate) fn raw(mut self, name: &str, select: &str) -> Self {
        self.0.streams.push(stream(name, StreamKind::Raw { select: vec![select.parse().unwrap()], report: None }));
        self
    }

    /// A stream of readings that leaves out what tells nothing new; the heartbeat in seconds, 0 for none.
    pub(crate) fn news(mut self, name: &str, select: &str, deadband: Deadband, heartbeat: u64) -> Self {
        let heartbeat = (heartbeat > 0).then(|| Duration::from_secs(heartbeat));
        let report = Some(ReportPlan { deadband, heartbeat });
        self.0.streams.push(stream(name, StreamKind::Raw { select: vec![select.parse().unwrap()], report }));
        self
    }

    /// Checks of the series that a filter selects.
    pub(crate) fn quality(mut self, filter: &str, set: impl FnOnce(&mut QualityPlan)) -> Self {
        let mut table = QualityPlan::new(filter.parse().unwrap());
        set(&mut table);
        self.0.quality.push(table);
        self
    }

    /// A window of all functions; seconds.
    pub(crate) fn window(self, name: &str, select: &str, every: u64, lateness: u64) -> Self {
        self.kind(name, select, WindowKind::tumbling(Duration::from_secs(every)), lateness, None)
    }

    /// A window of any kind, of all functions; seconds.
    pub(crate) fn kind(
        mut self,
        name: &str,
        select: &str,
        kind: WindowKind,
        lateness: u64,
        emit_every: Option<u64>,
    ) -> Self {
        let window = WindowPlan {
            select: vec![select.parse().unwrap()],
            kind,
            lateness: Duration::from_secs(lateness),
            emit_every: emit_every.map(Duration::from_secs),
            compute: Function::PLAIN.to_vec(),
            buckets: Buckets::default(),
        };
        self.0.streams.push(stream(name, StreamKind::Window(window)));
        self
    }

    /// The last window computes these functions.
    pub(crate) fn computing(mut self, functions: Vec<Function>) -> Self {
        if let Some(StreamKind::Window(window)) = self.0.streams.last_mut().map(|stream| &mut stream.kind) {
            window.compute = functions;
        }
        self
    }

    /// A rule; a binding with a wildcard makes its instances.
    pub(crate) fn rule(
        mut self,
        name: &str,
        bindings: &[(&str, &str)],
        when: &str,
        clear: Option<&str>,
        message: &str,
    ) -> Self {
        let names: Vec<&str> = bindings.iter().map(|(name, _)| *name).collect();
        let binding = |(name, source): &(&str, &str)| Binding {
            name: (*name).into(),
            source: match source.contains(['+', '#']) {
                true => BindingSource::Each(source.parse().unwrap()),
                false => BindingSource::Series(source.parse().unwrap()),
            },
        };
        self.0.rules.push(RulePlan {
            name: name.into(),
            bindings: bindings.iter().map(binding).collect(),
            condition: Condition::Holds {
                when: Expression::parse(when, &names).unwrap(),
                clear: clear.map(|text| Expression::parse(text, &names).unwrap()),
                hold: Duration::ZERO,
            },
            repeat: None,
            severity: Severity::Critical,
            message: (!message.is_empty()).then(|| message.parse().unwrap()),
        });
        self
    }

    /// Gives the last rule a `for` and a `repeat`, in seconds; 0 is none.
    pub(crate) fn with(mut self, hold: u64, repeat: u64) -> Self {
        let rule = self.0.rules.last_mut().unwrap();
        if let Condition::Holds { hold: span, .. } = &mut rule.condition {
            *span = Duration::from_secs(hold);
        }
        rule.repeat = (repeat > 0).then(|| Duration::from_secs(repeat));
        self
    }

    /// A rule over absence, in seconds.
    pub(crate) fn absent(mut self, name: &str, select: &[&str], after: u64) -> Self {
        let select = select.iter().map(|filter| filter.parse().unwrap()).collect();
        self.0.rules.push(RulePlan {
            name: name.into(),
            bindings: Vec::new(),
            condition: Condition::Absent { after: Duration::from_secs(after), select },
            severity: Severity::Warning,
            message: Some("{series} is silent".parse().unwrap()),
            repeat: None,
        });
        self
    }

    /// A derived series, its `within` in seconds; those that it looks at were added before.
    pub(crate) fn derived(
        mut self,
        name: &str,
        bindings: &[(&str, &str)],
        within: u64,
        join: Join,
        expr: &str,
    ) -> Self {
        let names: Vec<&str> = bindings.iter().map(|(name, _)| *name).collect();
        let name: rtlive_core::template::Template = name.parse().unwrap();
        let input = InputId(self.0.inputs.len() as u16);
        self.0.inputs.push(InputPlan::derived(&name));
        let bindings = bindings.iter().map(|(name, source)| Binding {
            name: (*name).into(),
            source: match source.contains('+') {
                true => BindingSource::Each(source.parse().unwrap()),
                false => BindingSource::Series(source.parse().unwrap()),
            },
        });
        self.0.derived.push(DerivedPlan {
            name,
            input,
            bindings: bindings.collect(),
            within: Duration::from_secs(within),
            join,
            expr: Expression::parse(expr, &names).unwrap(),
            unit: Some("W".into()),
            over: None,
        });
        self
    }

    /// The last derived series is one over a window, whose functions its names end with: `u.mean`.
    pub(crate) fn over(mut self, window: &str, names: &[(&str, &str)], expr: &str) -> Self {
        let window = self.0.stream_named(window).unwrap();
        let derived = self.0.derived.last_mut().unwrap();
        let source =
            |name: &str| derived.bindings.iter().find(|binding| &*binding.name == name).unwrap().source.clone();
        derived.bindings = names
            .iter()
            .map(|(name, function)| Binding { name: format!("{name}.{function}").into(), source: source(name) })
            .collect();
        let names_with: Vec<_> = derived.bindings.iter().map(|binding| binding.name.clone()).collect();
        derived.expr = Expression::parse(expr, &names_with).unwrap();
        let functions = names.iter().map(|(_, function)| function.parse().unwrap()).collect();
        derived.over = Some(WindowJoin { window, functions });
        self
    }

    pub(crate) fn done(self) -> Arc<Plan> {
        Arc::new(self.0)
    }

    /// An engine with series declared: names whose first level is their input, and the second their source where there are three.
    pub(crate) fn engine(self, series: &[&str]) -> Engine {
        let mut engine = Engine::new(self.done());
        for name in series {
            let event = declared(&engine, name);
            engine.handle(Timestamp::EPOCH, &event, &mut Vec::new());
        }
        engine
    }
}

fn stream(name: &str, kind: StreamKind) -> StreamPlan {
    StreamPlan {
        name: name.into(),
        kind,
        priority: Priority::Live,
        format: Format::Frame,
        batch: BatchLimit::Auto,
        topic: None,
        bytes_max: None,
        age_max: None,
        order: Default::default(),
        evict: Default::default(),
        class: "process".into(),
    }
}

pub(crate) fn declared(engine: &Engine, name: &str) -> Event {
    let levels: Vec<&str> = name.split('/').collect();
    let input = engine.plan().input_named(levels[0]).unwrap();
    let source = if levels.len() > 2 { levels[1] } else { "" };
    Event::Series(Declared {
        input,
        source: source.into(),
        info: SeriesInfo { name: name.into(), unit: Some("Cel".into()) },
    })
}

pub(crate) fn seconds(time: i64) -> Timestamp {
    Timestamp::from_nanos(time * SECOND)
}

pub(crate) fn reading(series: u32, time: Timestamp, value: Value) -> Reading {
    Reading { series: SeriesId(series), time, value, quality: Quality::Good, check: None, clock: ClockState::Synced }
}

pub(crate) fn batch(arrival: Timestamp, readings: Vec<Reading>) -> Event {
    Event::Batch(Batch { input: InputId(0), arrival, readings, rejected: Vec::new() })
}

/// Hands over a batch of input `a`: series, seconds, value; it arrives at its newest time. The ledger must close.
pub(crate) fn take(engine: &mut Engine, readings: &[(u32, i64, f64)]) -> Vec<Emitted> {
    let arrival = seconds(readings.iter().map(|(_, time, _)| *time).max().unwrap());
    let readings = readings.iter().map(|&(series, time, value)| reading(series, seconds(time), Value::Float(value)));
    handle(engine, &batch(arrival, readings.collect()))
}

/// Lets time pass second by second: a tick whenever the engine wants one, as whoever drives it does.
pub(crate) fn wait(engine: &mut Engine, to: i64) -> Vec<Emitted> {
    let mut out = Vec::new();
    while let Some(at) = engine.wake_at().filter(|&at| at <= seconds(to)) {
        engine.handle(at, &Event::Tick, &mut out);
    }
    assert_eq!(engine.ledger().check(), None);
    out
}

/// Hands an event over, at its arrival.
pub(crate) fn handle(engine: &mut Engine, event: &Event) -> Vec<Emitted> {
    let mut out = Vec::new();
    let now = if let Event::Batch(batch) = event { batch.arrival } else { Timestamp::EPOCH };
    engine.handle(now, event, &mut out);
    assert_eq!(engine.ledger().check(), None);
    out
}

/// What went to a stream, in short.
pub(crate) fn shown(engine: &Engine, out: &[Emitted]) -> Vec<String> {
    out.iter()
        .map(|Emitted { stream, record }| {
            let stream = &engine.plan().streams[stream.index()].name;
            let name = |series: SeriesId| engine.series()[series.index()].name.clone();
            match record {
                Record::Reading(reading) => {
                    format!("{stream} {} {}={}", name(reading.series), second(reading.time), reading.value)
                }
                Record::Aggregate(aggregate) => {
                    let early = match (aggregate.deleted, aggregate.is_final) {
                        (true, _) => " deleted",
                        (false, true) => "",
                        (false, false) => " early",
                    };
                    let Aggregate { start, end, revision, .. } = *aggregate;
                    let values: Vec<String> = aggregate
                        .values
                        .iter()
                        .map(|value| value.as_ref().map_or_else(|| "-".into(), ToString::to_string))
                        .collect();
                    let (start, end, values) = (second(start), second(end), values.join(" "));
                    format!("{stream} {} {start}..{end} r{revision}{early}: {values}", name(aggregate.series))
                }
                Record::Alert(alert) => {
                    let values: Vec<String> = alert
                        .values
                        .iter()
                        .map(|(name, value)| {
                            format!("{name}={}", value.as_ref().map_or_else(|| "-".into(), ToString::to_string))
                        })
                        .collect();
                    format!(
                        "{} {} {:?} at {}: {} ({})",
                        alert.rule,
                        alert.instance,
                        alert.state,
                        second(alert.time),
                        alert.message,
                        values.join(" ")
                    )
                }
                other => format!("{stream} {other:?}"),
            }
        })
        .collect()
}

fn second(time: Timestamp) -> i64 {
    time.as_nanos() / SECOND
}
