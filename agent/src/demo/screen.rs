//! What the demo prints: a line for each thing that happens, and one a second for the readings.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::io::{self, IsTerminal, Write};
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rtlive_core::frame::{Contents, Header};
use rtlive_core::plan::Function;
use rtlive_core::reading::{SeriesId, Value};
use rtlive_core::record::{Aggregate, Alert, AlertState, Record};
use rtlive_core::time::Timestamp;

use super::subscriber::Arrived;
use crate::status::Status;

/// Colours of a terminal (ECMA-48, section 8.3.117).
const RED: &str = "\x1b[31m";
const YELLOW: &str = "\x1b[33m";
const GREEN: &str = "\x1b[32m";
const PLAIN: &str = "\x1b[0m";

/// Prints lines to standard output, with colours where it is a terminal.
pub struct Screen {
    start: Instant,
    colours: bool,
    /// The newest reading of each series: its value, and its unit.
    newest: BTreeMap<Arc<str>, (Value, Option<Arc<str>>)>,
    readings: u64,
    /// When the broker came back, while records of the outage may still arrive.
    back_since: Option<Timestamp>,
    caught_up: u64,
    caught_up_before: u64,
}

impl Default for Screen {
    fn default() -> Self {
        let colours = io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none();
        Self {
            start: Instant::now(),
            colours,
            newest: BTreeMap::new(),
            readings: 0,
            back_since: None,
            caught_up: 0,
            caught_up_before: 0,
        }
    }
}

impl Screen {
    /// A line as it is.
    ///
    /// # Errors
    /// Nobody reads any more.
    pub fn plain(&self, text: impl Display) -> io::Result<()> {
        writeln!(io::stdout(), "{text}")
    }

    /// What plays.
    ///
    /// # Errors
    /// Nobody reads any more.
    pub fn introduction(&self, port: &Path, broker: SocketAddr, folder: &Path, has_keys: bool) -> io::Result<()> {
        self.plain(format_args!("device    an energy meter, Modbus RTU on {}", port.display()))?;
        self.plain(format_args!("agent     reads it four times a second; its state is in {}", folder.display()))?;
        self.plain(format_args!("broker    MQTT on {broker}, with a subscriber that decodes what arrives"))?;
        if has_keys {
            self.plain("keys      o takes the broker away for 5 s, q ends")?;
        }
        self.plain("")
    }

    /// The demo is over.
    ///
    /// # Errors
    /// Nobody reads any more.
    pub fn end(&self) -> io::Result<()> {
        self.line("", "end", "the agent sends what it has, and stops")
    }

    /// The broker goes for this long.
    ///
    /// # Errors
    /// Nobody reads any more.
    pub fn outage(&mut self, length: Duration) -> io::Result<()> {
        self.back_since = None;
        self.line(YELLOW, "outage", format_args!("the broker is gone for {} s", length.as_secs_f64()))
    }

    /// The broker is back at `now`.
    ///
    /// # Errors
    /// Nobody reads any more.
    pub fn back(&mut self, now: Timestamp) -> io::Result<()> {
        (self.back_since, self.caught_up) = (Some(now), 0);
        self.line(GREEN, "back", "the broker is there again; the agent connects when its wait is over")
    }

    /// What arrived at the subscriber.
    ///
    /// # Errors
    /// Nobody reads any more.
    pub fn arrived(&mut self, arrived: &Arrived) -> io::Result<()> {
        let (header, contents) = match arrived {
            Arrived::Frame { header, contents } => (header, contents),
            Arrived::Status(text) => return self.agent_state(text),
        };
        self.count_late(header);
        for record in &contents.records {
            match record {
                Record::Reading(reading) => {
                    self.readings += 1;
                    if let Some(info) = contents.series.get(reading.series.index()) {
                        self.newest.insert(info.name.clone(), (reading.value.clone(), info.unit.clone()));
                    }
                }
                Record::Aggregate(aggregate) => self.window(aggregate, contents)?,
                Record::Alert(alert) => self.alert(alert)?,
                Record::Gap(_) | Record::Outage(_) | Record::EpochStart(_) => {}
            }
        }
        Ok(())
    }

    /// A second has passed.
    ///
    /// # Errors
    /// Nobody reads any more.
    pub fn second(&mut self, plugged: bool, status: &Status) -> io::Result<()> {
        if !plugged {
            let waiting: u64 = status.streams.iter().map(|stream| stream.stored).sum();
            let link = status.uplink.as_ref().map_or("", |uplink| &uplink.state);
            return self.line(
                YELLOW,
                "outage",
                format_args!("{waiting} records wait in the store; the link is {link}"),
            );
        }
        // Told when a second has brought nothing more of it.
        if self.caught_up > 0 && self.caught_up == self.caught_up_before {
            self.line(GREEN, "catch-up", format_args!("all {} records of the outage have arrived", self.caught_up))?;
            (self.back_since, self.caught_up) = (None, 0);
        }
        self.caught_up_before = self.caught_up;
        if self.readings == 0 {
            return Ok(());
        }
        let values: Vec<String> =
            self.newest.iter().map(|(name, (value, unit))| named(name, value, unit.as_deref())).collect();
        let count = std::mem::take(&mut self.readings);
        self.line("", "readings", format_args!("{count:>4}   {}", values.join("   ")))
    }

    /// A frame from before the broker came back is a part of the catch-up.
    fn count_late(&mut self, header: &Header) {
        let is_late = header.span.zip(self.back_since).is_some_and(|((start, _), back)| start < back);
        if is_late {
            self.caught_up += u64::from(header.count);
        }
    }

    fn agent_state(&self, text: &str) -> io::Result<()> {
        let status: serde_json::Value = serde_json::from_str(text).unwrap_or_default();
        let state = status.get("state").and_then(serde_json::Value::as_str).unwrap_or("unknown");
        self.line("", "status", format_args!("the agent is {state}"))
    }

    fn window(&self, aggregate: &Aggregate, contents: &Contents) -> io::Result<()> {
        let Aggregate { series, start, end, values, .. } = aggregate;
        let of = |function| {
            let place = contents.compute.iter().position(|computed| *computed == function)?;
            number(values.get(place)?.as_ref()?)
        };
        let of = |function| of(function).unwrap_or_default();
        let (count, mean) = (of(Function::Count), of(Function::Mean));
        let (min, max) = (of(Function::Min), of(Function::Max));
        let text = format!(
            "{:<8} {} – {}  count {count}, mean {mean}, min {min}, max {max}{}",
            last_level(contents, *series),
            clock(*start),
            clock(*end),
            unit(contents, *series),
        );
        self.line("", "window", text)
    }

    fn alert(&self, alert: &Alert) -> io::Result<()> {
        let (colour, state) = match alert.state {
            AlertState::Raised => (RED, "raised"),
            AlertState::Repeated => (RED, "still raised"),
            AlertState::Cleared => (GREEN, "cleared"),
        };
        self.line(colour, "alert", format_args!("{} {state}: {}", alert.rule, alert.message))
    }

    fn line(&self, colour: &str, what: &str, text: impl Display) -> io::Result<()> {
        let seconds = self.start.elapsed().as_secs_f64();
        let (on, off) = if self.colours && !colour.is_empty() { (colour, PLAIN) } else { ("", "") };
        writeln!(io::stdout(), "{seconds:>6.1} s  {on}{what:<9}{text}{off}")
    }
}

fn named(series: &str, value: &Value, unit: Option<&str>) -> String {
    let name = series.rsplit('/').next().unwrap_or(series);
    format!("{name} {} {}", number(value).unwrap_or_default(), unit.unwrap_or_default()).trim_end().to_owned()
}

/// A value as the display of a meter would show it.
fn number(value: &Value) -> Option<String> {
    match value {
        Value::Int(value) => Some(value.to_string()),
        value => value.as_number().map(|value| format!("{}", (value * 1000.0).round() / 1000.0)),
    }
}

fn last_level(contents: &Contents, series: SeriesId) -> &str {
    contents.series.get(series.index()).and_then(|info| info.name.rsplit('/').next()).unwrap_or_default()
}

fn unit(contents: &Contents, series: SeriesId) -> String {
    let unit = contents.series.get(series.index()).and_then(|info| info.unit.as_ref());
    unit.map(|unit| format!(" {unit}")).unwrap_or_default()
}

/// The time of day, in UTC.
fn clock(time: Timestamp) -> String {
    let text = time.to_string();
    text.split_once('T').map_or(text.as_str(), |(_, clock)| clock.trim_end_matches('Z')).to_owned()
}
