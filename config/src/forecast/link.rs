//! What the link costs beside what is sent, and which level of a ladder it carries.

use std::cmp::Reverse;
use std::fmt;
use std::time::Duration;

use rtlive_core::plan::{LadderPlan, Plan, Priority, StreamPlan};
use serde::Serialize;

use super::{SECONDS_PER_DAY, StreamForecast, three_digits, write_bytes};
use crate::link::{LinkConfig, NamedLink};
use crate::quantity::write_span;
use crate::uplink::UplinkConfig;

const DAYS_PER_MONTH: u64 = 30;

/// What it costs to be connected, in bytes of both directions with all that is around MQTT.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Upkeep {
    /// A connection that is made and ended.
    pub connection_bytes: u64,
    /// A keep-alive with its answer.
    pub keep_alive_bytes: u64,
    /// How many connections the schedule makes in a day; `None` without one.
    pub connections_per_day: Option<f64>,
    /// What staying connected costs in a day.
    pub keep_alives_per_day_bytes: u64,
    /// What is paid in a day: the connections of the schedule, or else keep-alives.
    pub bytes_per_day: u64,
    #[serde(skip)]
    keep_alive: Duration,
}

/// What one link of several carries.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct LinkForecast {
    /// Its name.
    pub name: String,
    /// Its interface.
    pub interface: String,
    /// What its `rate` and `budget` let pass in a day beside what is left to alerts, in bytes; `None` where nothing bounds it.
    pub bytes_per_day_max: Option<u64>,
    /// Of each ladder the finest level that fits into that.
    pub ladders: Vec<CarriedLevel>,
}

/// A ladder, and which of its levels a link carries.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct CarriedLevel {
    /// The ladder's name.
    pub ladder: String,
    /// The finest level that fits; `None` where none does.
    pub carried: Option<String>,
}

/// Which level of a ladder the link carries.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct LadderForecast {
    /// The ladder's name.
    pub name: String,
    /// Its levels, from fine to coarse.
    pub levels: Vec<LevelForecast>,
    /// The finest level that fits into `rate` and `budget`, of the link that is preferred; `None` where none does.
    pub carried: Option<String>,
}

/// A level of a ladder.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct LevelForecast {
    /// The stream.
    pub stream: String,
    /// How many bytes the link must carry in a day until this level goes as well, with all that goes before it.
    pub needs_bytes_per_day: u64,
    #[serde(skip)]
    priority: Priority,
}

impl Upkeep {
    pub(super) fn of(uplink: &UplinkConfig, plan: &Plan) -> Self {
        let wire = uplink.wire(plan);
        let (connection, keep_alive) = ((wire.connect() + wire.close()).both(), wire.ping().both());
        let per_day = |every: Duration| SECONDS_PER_DAY / every.as_secs_f64();
        let connections_per_day = uplink.schedule.map(|schedule| per_day(schedule.every));
        let keep_alives_per_day_bytes = (per_day(uplink.keep_alive) * keep_alive as f64) as u64;
        Self {
            connection_bytes: connection,
            keep_alive_bytes: keep_alive,
            connections_per_day,
            keep_alives_per_day_bytes,
            bytes_per_day: connections_per_day
                .map_or(keep_alives_per_day_bytes, |connections| (connections * connection as f64) as u64),
            keep_alive: uplink.keep_alive,
        }
    }
}

impl fmt::Display for Upkeep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let span = |bytes: u64| {
            let month = write_bytes(bytes.saturating_mul(DAYS_PER_MONTH));
            format!("{} a day, {month} in {DAYS_PER_MONTH} days", write_bytes(bytes))
        };
        let (paid, connected) = (span(self.bytes_per_day), span(self.keep_alives_per_day_bytes));
        let connection = write_bytes(self.connection_bytes);
        match self.connections_per_day {
            Some(connections) => {
                let connections = three_digits(connections);
                write!(
                    f,
                    "{connections} connections a day of {connection}: {paid}; to stay connected would cost {connected}"
                )
            }
            None => {
                let every = write_span(self.keep_alive);
                write!(
                    f,
                    "to stay connected, with a keep-alive every {every}: {paid}; each connection costs {connection}"
                )
            }
        }
    }
}

impl LinkForecast {
    /// The links that have names, in the order in which they are preferred.
    pub(super) fn all(uplink: &UplinkConfig, ladders: &[LadderForecast]) -> Vec<Self> {
        let carried = |link: &LinkConfig| {
            let level = |ladder: &LadderForecast| CarriedLevel {
                ladder: ladder.name.clone(),
                carried: ladder.carried_by(link).map(str::to_owned),
            };
            ladders.iter().map(level).collect()
        };
        let forecast = |link: &LinkConfig| {
            let NamedLink { name, interface } = link.named.clone()?;
            let bytes_per_day_max = link.bytes_per_day_max(Priority::Live);
            Some(Self { name, interface, bytes_per_day_max, ladders: carried(link) })
        };
        uplink.links.iter().filter_map(forecast).collect()
    }
}

impl fmt::Display for LinkForecast {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "link {} ({}): ", self.name, self.interface)?;
        match self.bytes_per_day_max {
            None => write!(f, "as much as it carries")?,
            Some(most) => write!(f, "at most {} a day", write_bytes(most))?,
        }
        self.ladders.iter().try_for_each(|CarriedLevel { ladder, carried }| {
            write!(f, "; ladder {ladder}: {}", carried.as_deref().unwrap_or("NO LEVEL FITS"))
        })
    }
}

impl LadderForecast {
    /// The ladders of a plan, where so many bytes a day go before all streams.
    pub(super) fn all(plan: &Plan, streams: &[StreamForecast], upkeep: u64, uplink: &UplinkConfig) -> Vec<Self> {
        let needs = |level: &StreamPlan| {
            let goes_first =
                plan.streams.iter().zip(streams).filter(|(stream, _)| order(plan, stream) <= order(plan, level));
            upkeep + goes_first.filter_map(|(_, forecast)| forecast.link_bytes_per_day).sum::<u64>()
        };
        let forecast = |ladder: &LadderPlan| {
            let levels = ladder.levels.iter().filter_map(|level| plan.streams.get(level.index()));
            let levels = levels.map(|level| LevelForecast {
                stream: level.name.to_string(),
                needs_bytes_per_day: needs(level),
                priority: level.priority,
            });
            let mut forecast = Self { name: ladder.name.to_string(), levels: levels.collect(), carried: None };
            forecast.carried = uplink.links.first().and_then(|link| forecast.carried_by(link)).map(str::to_owned);
            forecast
        };
        plan.ladders.iter().map(forecast).collect()
    }

    /// The finest level that fits into what may go over a link.
    fn carried_by(&self, link: &LinkConfig) -> Option<&str> {
        self.finest(|priority| link.bytes_per_day_max(priority))
    }

    /// The finest level that fits where so many bytes of a priority and of all that goes before it pass in a day; `None` is no bound.
    pub fn finest(&self, bytes_per_day_max: impl Fn(Priority) -> Option<u64>) -> Option<&str> {
        let fits = |level: &&LevelForecast| {
            bytes_per_day_max(level.priority).is_none_or(|most| level.needs_bytes_per_day <= most)
        };
        self.levels.iter().find(fits).map(|level| &*level.stream)
    }
}

impl fmt::Display for LadderForecast {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.carried {
            Some(level) => write!(f, "ladder {}: the link carries {level}", self.name)?,
            None => write!(f, "ladder {}: THE LINK CARRIES NO LEVEL", self.name)?,
        }
        let needs = |level: &LevelForecast| format!("{} {}", level.stream, write_bytes(level.needs_bytes_per_day));
        let needs: Vec<String> = self.levels.iter().map(needs).collect();
        write!(f, "; with all that goes before it a day takes: {}", needs.join(", "))
    }
}

/// What goes first of what is as new: by priority, then the coarsest levels with all that is in no ladder, then finer ones.
fn order(plan: &Plan, stream: &StreamPlan) -> (Priority, Reverse<usize>) {
    let finer = plan.ladders.iter().flat_map(|ladder| ladder.levels.iter().rev().skip(1).rev().enumerate());
    let is_stream = |level: usize| plan.streams.get(level).is_some_and(|level| level.name == stream.name);
    let fineness = finer.into_iter().find(|(_, level)| is_stream(level.index())).map_or(usize::MAX, |(place, _)| place);
    (stream.priority, Reverse(fineness))
}
