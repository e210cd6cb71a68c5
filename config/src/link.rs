//! The links of the uplink: the interfaces that it may use, and what may go over each.

use std::time::Duration;

use rtlive_core::plan::{CalendarLength, Priority, WindowKind};
use rtlive_core::sorted;
use rtlive_core::uplink::{BudgetTerms, LINKS_MAX};

use crate::name::named_tables;
use crate::quantity::{Budget, BudgetInterval, Percent, Rate};
use crate::table::{Table, Value};
use crate::value::{Setting, or_wrong, parse};
use crate::{options, zone};

/// The least rate: it takes a minute to connect over TLS.
const RATE_MIN: Rate = Rate { bits_per_second: 1_000 };

/// The last day that every month has.
const RESET_DAY_MAX: u16 = 28;

/// The least budget: what some connections over TLS cost.
const BUDGET_BYTES_MIN: u64 = 50_000;

/// The longest name of an interface, in bytes (Linux, `IFNAMSIZ` without the end of the text).
const INTERFACE_BYTES_MAX: usize = 15;

const SECONDS_PER_DAY: f64 = 86_400.0;

options! {
    /// What may go over a link.
    pub struct BoundOptions {
        /// The most that is sent, such as `"64 kbit/s"`: over any time no more than that and half a second of it (4 KiB at least). Counts an estimate of what
        /// the link carries: MQTT, TLS, the headers of TCP and IP, keep-alives, connections. Absent: as much as the link carries.
        pub rate: Option<RateMax>,
        /// The most that the link carries in a day or a month, in both directions, such as `"500 MB/month"`: an estimate of what the link really
        /// carries, as for `rate`, keep-alives and connections included; what the network loses is not in it. No period costs more, whatever fails ([link](link.md)).
        pub budget: Option<Budget>,
        /// The day of the month on which a budget a month begins anew, at midnight.
        pub budget_reset_day: ResetDay = 1,
        /// The time zone of that midnight, such as `"Europe/Berlin"`. Needs the system's time zone data (tzdata). Absent: UTC.
        pub budget_zone: Option<String>,
        /// The part of the budget that is left to alerts.
        pub budget_for_alerts: Percent = "10 %",
    }
}

options! {
    /// A link of several (4 at most): the interface over which brokers are reached, with bounds of its own. One is in use at a time
    /// ([link](link.md#several-links)). Without such tables the system finds the way, and the bounds stand in `[uplink]`.
    pub struct LinkOptions {
        /// The network interface, such as `"eth0"` or `"wwan0"`. Connections are bound to it, whatever the routes of the system prefer.
        pub interface: Interface,
        /// Which link is used before others: the one with the lowest number, and of equal ones the first by name.
        pub preference: u16 = 1,
    }
}

/// The keys of [`BoundOptions`].
const BOUNDS: [&str; 5] = ["rate", "budget", "budget_reset_day", "budget_zone", "budget_for_alerts"];

/// The name of a network interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interface(pub String);

impl Setting for Interface {
    fn expected() -> String {
        format!("the name of a network interface such as \"eth0\", of at most {INTERFACE_BYTES_MAX} bytes")
    }

    fn read(value: &Value<'_>) -> Option<Self> {
        // As the kernel takes them (`dev_valid_name`).
        let fits = |text: &str| {
            (1..=INTERFACE_BYTES_MAX).contains(&text.len())
                && ![".", ".."].contains(&text)
                && !text.chars().any(|c| c == '/' || c == ':' || c.is_whitespace() || c.is_control())
        };
        parse(value, |text| fits(text).then(|| Self(text.to_owned())))
    }
}

/// A bound of the rate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RateMax(pub Rate);

impl Setting for RateMax {
    fn expected() -> String {
        format!("a rate such as \"64 kbit/s\", at least {} bit/s", RATE_MIN.bits_per_second)
    }

    fn read(value: &Value<'_>) -> Option<Self> {
        let rate = Rate::read(value)?;
        or_wrong(value, (rate >= RATE_MIN).then_some(Self(rate)))
    }
}

/// A day that every month has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ResetDay(pub u16);

impl Setting for ResetDay {
    fn expected() -> String {
        format!("a day from 1 to {RESET_DAY_MAX}, which every month has")
    }

    fn read(value: &Value<'_>) -> Option<Self> {
        let day = value.as_integer().and_then(|day| u16::try_from(day).ok());
        or_wrong(value, day.filter(|day| (1..=RESET_DAY_MAX).contains(day)).map(Self))
    }
}

/// A link, checked.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct LinkConfig {
    /// Its name and its interface; `None` where the system finds the way.
    pub named: Option<NamedLink>,
    /// The most that is sent.
    pub rate: Option<Rate>,
    /// The most that it carries in a period.
    pub budget: Option<BudgetTerms>,
}

/// What a link is called.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamedLink {
    /// Its name in the configuration.
    pub name: String,
    /// The interface to which connections are bound.
    pub interface: String,
}

impl NamedLink {
    fn new(name: &str, Interface(interface): &Interface) -> Self {
        Self { name: name.to_owned(), interface: interface.clone() }
    }
}

impl LinkConfig {
    /// The interface to which connections are bound.
    pub fn interface(&self) -> Option<&str> {
        self.named.as_ref().map(|named| &*named.interface)
    }

    /// The most that is sent, in bytes a second.
    pub fn rate_bytes_per_s(&self) -> Option<u64> {
        self.rate.map(|rate| rate.bits_per_second / 8)
    }

    /// What `rate` and `budget` let pass in a day of a priority and those before it, in bytes, the lesser of them; `None` where nothing bounds it.
    pub fn bytes_per_day_max(&self, priority: Priority) -> Option<u64> {
        let rate = self.rate_bytes_per_s().map(|rate| rate.saturating_mul(SECONDS_PER_DAY as u64));
        // The shortest month is as long as the others.
        let budget = self.budget.as_ref().map(|budget| {
            let days = (budget.period.length().as_secs_f64() / SECONDS_PER_DAY).max(1.0);
            (budget.pool(priority) as f64 / days) as u64
        });
        rate.into_iter().chain(budget).min()
    }
}

/// Checks `[uplink.links.*]`, or the bounds in `[uplink]` where there are none; in the order of preference. `None` after a mistake.
pub(crate) fn check(uplink: &Table<'_>) -> Option<Vec<LinkConfig>> {
    let alone = bounded(uplink, None);
    if !uplink.has("links") {
        uplink.knows(&["links"]);
        return alone.map(|link| vec![link]);
    }
    let parent = uplink.table("links")?;
    let (many, tables) = (parent.keys().count(), named_tables(&parent, "a link"));
    if !(1..=LINKS_MAX).contains(&many) {
        uplink.mistake("links", format_args!("from 1 to {LINKS_MAX} links"), many);
        return None;
    }
    let mut is_right = tables.len() == many;
    for key in BOUNDS {
        if uplink.has(key) {
            uplink.mistake(key, "it in the table of each link, where there are `links`", "one for all of them");
            is_right = false;
        }
    }
    let mut links: Vec<(u16, LinkConfig)> = Vec::new();
    for (name, table) in &tables {
        let options = LinkOptions::read_part(table);
        let named = options.as_ref().map(|options| NamedLink::new(name, &options.interface));
        let link = bounded(table, named.clone());
        table.close();
        let is_taken =
            |(_, other): &(u16, LinkConfig)| other.interface() == named.as_ref().map(|named| &*named.interface);
        if named.is_some() && links.iter().any(is_taken) {
            table.mistake("interface", "each interface once", "one that another link has");
            is_right = false;
        }
        match options.zip(link) {
            Some((options, link)) => links.push((options.preference, link)),
            None => is_right = false,
        }
    }
    // They are sorted by name already.
    sorted::by_key(&mut links, |(preference, _)| *preference);
    is_right.then(|| links.into_iter().map(|(_, link)| link).collect())
}

/// A link with the bounds in this table.
fn bounded(table: &Table<'_>, named: Option<NamedLink>) -> Option<LinkConfig> {
    let bounds = BoundOptions::read_part(table)?;
    let rate = bounds.rate.map(|RateMax(rate)| rate);
    let budget = match bounds.budget {
        Some(budget) => Some(budget_terms(table, budget, &bounds)?),
        None => {
            for key in BOUNDS.into_iter().skip(2) {
                if table.has(key) {
                    table.warn(key, "says nothing without `budget`");
                }
            }
            None
        }
    };
    Some(LinkConfig { named, rate, budget })
}

/// The budget; `None` after a mistake.
fn budget_terms(table: &Table<'_>, budget: Budget, bounds: &BoundOptions) -> Option<BudgetTerms> {
    const DAY: Duration = Duration::from_secs(86_400);
    let name = bounds.budget_zone.as_deref().unwrap_or("UTC");
    let zone =
        zone::find(name).map_err(|error| table.mistake("budget_zone", error.expected(), format!("{name:?}"))).ok()?;
    if budget.bytes < BUDGET_BYTES_MIN {
        table.mistake(
            "budget",
            format_args!("at least {} kB, or little but connecting is left", BUDGET_BYTES_MIN / 1000),
            budget.bytes,
        );
        return None;
    }
    let (length, days) = match budget.interval {
        BudgetInterval::Day => (CalendarLength::Days(1), 0),
        BudgetInterval::Month => (CalendarLength::Months(1), u32::from(bounds.budget_reset_day.0) - 1),
    };
    let period = WindowKind::Calendar { length, offset: DAY * days, zone };
    Some(BudgetTerms { bytes: budget.bytes, period, alert_percent: bounds.budget_for_alerts.0 })
}
