//! The plans that the random test runs under.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use rtlive_core::plan::{
    BatchLimit, CalendarLength, Durability, Format, Function, InputPlan, Plan, Priority, StreamKind, StreamPlan,
    WindowKind, WindowPlan,
};
use rtlive_core::zone::Zone;

use crate::random::Random;

pub(crate) const SECOND: i64 = 1_000_000_000;

/// The series; whether a window selects one is by its name.
pub(crate) const SERIES: [&str; 4] = ["a/x", "a/y", "a/z/v", "a/w/v"];

const NAMES: [&str; 5] = ["early", "first", "second", "third", "zone"];

pub(crate) const COMPUTE: [Function; 7] =
    [Function::Count, Function::Sum, Function::Mean, Function::Min, Function::Max, Function::First, Function::Last];

/// What is computed, as the model sees it.
#[derive(Clone, Debug)]
pub(crate) struct Wanted {
    /// Nanoseconds.
    pub(crate) out_of_order: i64,
    pub(crate) idle: i64,
    pub(crate) windows: BTreeMap<&'static str, WindowPlan>,
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

pub(crate) fn selects(window: &WindowPlan, series: u32) -> bool {
    window.select.iter().any(|filter| filter.matches(SERIES[series as usize]))
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
        let mut wanted = Self {
            out_of_order: random.below(6) as i64 * SECOND,
            idle: (5 + random.below(20)) as i64 * SECOND,
            windows: BTreeMap::new(),
        };
        for name in NAMES {
            if random.below(4) > 0 {
                wanted.windows.insert(name, window(name, random));
            }
        }
        wanted
    }

    /// The same with a change, or none.
    pub(crate) fn altered(&self, random: &mut Random) -> Self {
        let mut wanted = self.clone();
        let name = NAMES[random.below(NAMES.len() as u64) as usize];
        match (random.below(5), wanted.windows.get_mut(name)) {
            (0, _) => {}
            (1, Some(window)) => window.lateness = Duration::from_secs(random.below(30)),
            (2, Some(window)) => window.select = select(random),
            (3, Some(_)) => {
                wanted.windows.remove(name);
            }
            _ => {
                wanted.windows.insert(name, window(name, random));
            }
        }
        wanted
    }

    /// The place of a window's stream in the plan.
    pub(crate) fn stream(&self, name: &str) -> usize {
        5 + self.windows.keys().position(|known| *known == name).unwrap()
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
        let input = InputPlan {
            out_of_order: Duration::from_nanos(self.out_of_order as u64),
            idle: Duration::from_nanos(self.idle as u64),
            durability: Durability::Commit,
            ..InputPlan::pushed("a".into())
        };
        let mut plan = crate::blank_plan();
        (plan.inputs, plan.streams) = (vec![input], reserved.into_iter().chain(windows).collect());
        Arc::new(plan)
    }
}

fn select(random: &mut Random) -> Vec<rtlive_core::selector::Selector> {
    let filter = ["#", "#", "a/+/v", "a/x"][random.below(4) as usize];
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
