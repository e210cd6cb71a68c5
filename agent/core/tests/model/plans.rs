//! The plans that the random test runs under.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use rtlive_core::plan::{
    BatchLimit, CalendarLength, Format, Function, InputPlan, Plan, Priority, StreamKind, StreamPlan, WindowKind,
    WindowPlan,
};
use rtlive_core::reading::InputId;
use rtlive_core::zone::Zone;

use crate::definitions::{Derivation, Rule, span};
use crate::random::Random;

pub(crate) const SECOND: i64 = 1_000_000_000;

/// The inputs, and series of them.
pub(crate) const INPUTS: [&str; 2] = ["a", "b"];
pub(crate) const SERIES: [&str; 6] = ["a/x", "a/y", "a/z/v", "a/w/v", "b/y", "b/z/v"];

/// The windows, and the rules.
const NAMES: [&str; 5] = ["early", "first", "second", "third", "zone"];
const RULES: [&str; 3] = ["high", "low", "silent"];

pub(crate) const COMPUTE: [Function; 7] =
    [Function::Count, Function::Sum, Function::Mean, Function::Min, Function::Max, Function::First, Function::Last];

/// What is computed, as the model sees it.
#[derive(Clone, Default)]
pub(crate) struct Wanted {
    pub(crate) inputs: BTreeMap<&'static str, Timing>,
    pub(crate) windows: BTreeMap<&'static str, WindowPlan>,
    /// What the stream `raw` selects.
    pub(crate) raw: &'static str,
    /// By place, so that those which others need come first.
    derivations: BTreeMap<usize, Derivation>,
    pub(crate) rules: BTreeMap<&'static str, Rule>,
}

impl fmt::Debug for Wanted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{:?}, raw of {}", self.inputs, self.raw)?;
        for (name, WindowPlan { select, kind, lateness, emit_every, .. }) in &self.windows {
            let kind = match kind {
                WindowKind::Calendar { length, offset, .. } => format!("{length:?} from {offset:?} in Berlin"),
                kind => format!("{kind:?}"),
            };
            let select: Vec<String> = select.iter().map(ToString::to_string).collect();
            writeln!(f, "{name}: {kind} of {select:?}, lateness {lateness:?}, early {emit_every:?}")?;
        }
        self.derivations().iter().try_for_each(|one| writeln!(f, "{one:?}"))?;
        self.rules.iter().try_for_each(|(name, rule)| writeln!(f, "{name}: {rule:?}"))
    }
}

/// The keys of an input, in nanoseconds.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Timing {
    pub(crate) out_of_order: i64,
    pub(crate) idle: i64,
}

/// Central Europe by its rule, for ever.
pub(crate) fn berlin() -> jiff::tz::TimeZone {
    jiff::tz::TimeZone::posix("CET-1CEST,M3.5.0,M10.5.0/3").unwrap()
}

fn zone() -> Arc<Zone> {
    let berlin = berlin();
    let changes = berlin.following(jiff::Timestamp::UNIX_EPOCH).take(200);
    let transitions = changes.map(|change| (change.timestamp().as_second(), change.offset().seconds())).collect();
    Arc::new(Zone::new("Europe/Berlin".into(), 3_600, transitions).unwrap())
}

/// Whether a window selects a series.
pub(crate) fn selected(window: &WindowPlan, series: &str) -> bool {
    window.select.iter().any(|filter| filter.matches(series))
}

fn kind(random: &mut Random) -> WindowKind {
    let seconds = |seconds: u64| Duration::from_secs(seconds);
    match random.below(7).saturating_sub(1) {
        0 if random.below(2) == 0 => WindowKind::tumbling(seconds(1 + random.below(20))),
        // Multiples of each other, which share.
        0 => WindowKind::tumbling(seconds([2, 4, 10, 20, 40][random.below(5) as usize])),
        1 => {
            let every = 2 + random.below(20);
            WindowKind::Tumbling { every: seconds(every), offset: seconds(random.below(every)) }
        }
        2 | 3 => {
            let every = 1 + random.below(8);
            let over = every * (2 + random.below(5));
            WindowKind::Sliding { every: seconds(every), over: seconds(over), offset: seconds(random.below(every)) }
        }
        _ => {
            let gap = 1 + random.below(8);
            WindowKind::Session { gap: seconds(gap), longest: seconds(gap + random.below(40)) }
        }
    }
}

fn calendar(random: &mut Random) -> WindowKind {
    let length = match random.below(4) {
        0 => CalendarLength::Days(2),
        1 => CalendarLength::Days(7),
        2 => CalendarLength::Months(1),
        _ => CalendarLength::Days(1),
    };
    WindowKind::Calendar { length, offset: Duration::from_secs(random.below(12) * 3_600), zone: zone() }
}

impl Wanted {
    /// A plan at random.
    pub(crate) fn new(random: &mut Random) -> Self {
        let mut wanted = Self { raw: raw(random), ..Self::default() };
        for name in INPUTS {
            wanted.inputs.insert(name, Timing::new(random));
        }
        for name in NAMES {
            if random.below(4) > 0 {
                wanted.windows.insert(name, window(name, random));
            }
        }
        for place in 0..3 {
            if random.below(3) > 0 {
                wanted.derivations.insert(place, Derivation::new(place, random));
            }
        }
        for name in RULES {
            if random.below(3) > 0 {
                wanted.rules.insert(name, Rule::new(name, random));
            }
        }
        wanted
    }

    /// The same with a change, or none.
    pub(crate) fn altered(&self, random: &mut Random) -> Self {
        let mut wanted = self.clone();
        match random.below(10) {
            0 => wanted.raw = raw(random),
            1 => toggled(&mut wanted.inputs, "b", Timing::new(random), random),
            2 => drop(wanted.inputs.insert("a", Timing::new(random))),
            3 | 4 => {
                let place = random.below(3) as usize;
                toggled(&mut wanted.derivations, place, Derivation::new(place, random), random);
            }
            5 | 6 => {
                let name = RULES[random.below(RULES.len() as u64) as usize];
                toggled(&mut wanted.rules, name, Rule::new(name, random), random);
            }
            _ => wanted.alter_window(random),
        }
        wanted
    }

    fn alter_window(&mut self, random: &mut Random) {
        let name = NAMES[random.below(NAMES.len() as u64) as usize];
        match (random.below(5), self.windows.get_mut(name)) {
            (0, _) => {}
            (1, Some(window)) => window.lateness = Duration::from_secs(random.below(30)),
            (2, Some(window)) => window.select = select(random),
            (3, Some(_)) => {
                self.windows.remove(name);
            }
            _ => {
                self.windows.insert(name, window(name, random));
            }
        }
    }

    /// The derived series, but for those over windows that there are not, or that begin at any time.
    pub(crate) fn derivations(&self) -> Vec<Derivation> {
        let can_be = |one: &&Derivation| {
            one.over.is_none_or(|(window, _)| {
                self.windows.get(window).is_some_and(|window| !matches!(window.kind, WindowKind::Session { .. }))
            })
        };
        self.derivations.values().filter(can_be).cloned().collect()
    }

    /// Whether there is an input, of what is read or of a derived series.
    pub(crate) fn has_input(&self, name: &str) -> bool {
        self.inputs.contains_key(name) || self.derivations().iter().any(|one| one.input() == name)
    }

    /// The place of a stream in the plan.
    pub(crate) fn stream(&self, name: &str) -> usize {
        5 + self.windows.keys().position(|known| *known == name).unwrap_or(self.windows.len())
    }

    /// As the engine takes it.
    pub(crate) fn plan(&self) -> Arc<Plan> {
        let stream = |name: &str, kind| StreamPlan {
            name: name.into(),
            kind,
            priority: Priority::Live,
            format: Format::Frame,
            batch: BatchLimit::Auto,
            topic: None,
            class: "process".into(),
            age_max: None,
            order: Default::default(),
            evict: Default::default(),
            bytes_max: None,
        };
        let reserved =
            ["gaps", "alerts", "late", "quarantine", "unsynced"].map(|name| stream(name, StreamKind::Reserved));
        let windows = self.windows.iter().map(|(name, window)| stream(name, StreamKind::Window(window.clone())));
        let raw = stream("raw", StreamKind::Raw { select: vec![self.raw.parse().unwrap()], report: None });
        let span = |nanos: i64| Duration::from_nanos(nanos as u64);
        let input = |(name, timing): (&&str, &Timing)| InputPlan {
            out_of_order: span(timing.out_of_order),
            idle: span(timing.idle),
            ..InputPlan::pushed((*name).into())
        };
        let mut plan = Plan {
            agent: "gw".into(),
            labels: BTreeMap::new(),
            inputs: self.inputs.iter().map(input).collect(),
            streams: reserved.into_iter().chain(windows).chain([raw]).collect(),
            rules: self.rules.iter().map(|(name, rule)| rule.plan(name)).collect(),
            quality: Vec::new(),
            derived: Vec::new(),
            ladders: Vec::new(),
        };
        for derivation in self.derivations() {
            let derived = derivation.plan(&plan, InputId(plan.inputs.len() as u16));
            plan.inputs.push(InputPlan::derived(&derived.name));
            plan.derived.push(derived);
        }
        Arc::new(plan)
    }
}

impl Timing {
    fn new(random: &mut Random) -> Self {
        Self { out_of_order: span(random.below(6) as i64), idle: span(5 + random.below(20) as i64) }
    }
}

/// Another value under a key, or none.
fn toggled<K: Ord, V>(map: &mut BTreeMap<K, V>, key: K, value: V, random: &mut Random) {
    if map.remove(&key).is_none() || random.below(2) == 0 {
        map.insert(key, value);
    }
}

fn raw(random: &mut Random) -> &'static str {
    ["d/#", "d/#", "#", "b/y", "none"][random.below(5) as usize]
}

fn select(random: &mut Random) -> Vec<rtlive_core::selector::Selector> {
    let filter = ["#", "#", "+/+/v", "a/x", "d/#"][random.below(5) as usize];
    vec![filter.parse().unwrap()]
}

fn window(name: &str, random: &mut Random) -> WindowPlan {
    let kind = if name == "zone" { calendar(random) } else { kind(random) };
    let is_early = !matches!(kind, WindowKind::Sliding { .. }) && (name == "early" || random.below(3) == 0);
    WindowPlan {
        select: select(random),
        kind,
        lateness: Duration::from_secs(random.below(20)),
        emit_every: is_early.then(|| Duration::from_secs(1 + random.below(10))),
        compute: COMPUTE.to_vec(),
        buckets: Default::default(),
    }
}
