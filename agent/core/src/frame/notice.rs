//! Alerts, gaps, outages and beginnings of epochs: rare and diverse, so each is a CBOR map with readable keys.

use std::sync::Arc;

use super::cbor::{CborFault, Reader, Writer};
use super::{NAME_BYTES_MAX, TEXT_BYTES_MAX};
use crate::plan::Severity;
use crate::reading::{ClockState, SERIES_NAME_BYTES_MAX};
use crate::record::{Alert, AlertState, Epoch, EpochStart, Gap, OutageRecord, Record};
use crate::time::Timestamp;

/// More keys than any notice has, and room for later ones.
const KEYS_MAX: usize = 32;

/// The word for a time that is not known, in frames and in JSON.
pub(crate) const UNSYNCED: &str = "unsynced";

/// A map that is being gathered; its keys are sorted when it is written.
#[derive(Debug, Default)]
struct Map {
    pairs: Vec<(&'static str, Writer)>,
}

impl Map {
    fn put(&mut self, key: &'static str, write: impl FnOnce(&mut Writer)) {
        let mut value = Writer::default();
        write(&mut value);
        // Encoded keys sort by their length first, since that is in their first byte.
        let place = self.pairs.partition_point(|(before, _)| (before.len(), *before) < (key.len(), key));
        self.pairs.insert(place, (key, value));
    }

    fn text(&mut self, key: &'static str, text: &str) {
        self.put(key, |value| value.text(text));
    }

    fn time(&mut self, key: &'static str, time: Option<Timestamp>) {
        if let Some(time) = time {
            self.put(key, |value| value.int(time.as_nanos()));
        }
    }

    fn write(self, out: &mut Writer) {
        out.map(self.pairs.len());
        for (key, value) in self.pairs {
            out.text(key);
            out.bytes.extend_from_slice(&value.bytes);
        }
    }
}

/// Appends a record that is neither a reading nor an aggregate; those are left to their blocks.
pub(super) fn write(record: &Record, out: &mut Writer) {
    let mut map = Map::default();
    match record {
        Record::Reading(_) | Record::Aggregate(_) => return,
        Record::Alert(alert) => {
            map.text("is", "alert");
            map.text("rule", &alert.rule);
            map.text("instance", &alert.instance);
            map.text("severity", alert.severity.name());
            map.time("time", Some(alert.time));
            map.text("state", alert.state.name());
            map.text("message", &alert.message);
            if alert.clock == ClockState::Unsynced {
                map.text("clock", UNSYNCED);
            }
            map.put("values", |out| {
                out.array(alert.values.len());
                for (name, value) in &alert.values {
                    out.array(2);
                    out.text(name);
                    out.value(value.as_ref());
                }
            });
        }
        Record::Gap(gap) => {
            map.text("is", "gap");
            map.text("stream", &gap.stream);
            if let Some(epoch) = gap.epoch {
                map.put("epoch", |out| out.unsigned(epoch.0));
            }
            if let Some(class) = &gap.class {
                map.text("class", class);
            }
            map.put("from", |out| out.unsigned(gap.from));
            map.put("to", |out| out.unsigned(gap.to));
            if let Some(count) = gap.count {
                map.put("count", |out| out.unsigned(count));
            }
            map.time("start", gap.start);
            map.time("end", gap.end);
            map.text("reason", &gap.reason);
            if let Some(stream) = &gap.covered_by {
                map.text("covered_by", stream);
            }
        }
        Record::Outage(outage) => {
            map.text("is", "outage");
            map.text("input", &outage.input);
            map.time("start", outage.start);
            map.time("end", Some(outage.end));
            if let Some(count) = outage.count {
                map.put("count", |out| out.unsigned(count));
            }
            map.text("reason", &outage.reason);
        }
        Record::EpochStart(start) => {
            map.text("is", "epoch");
            map.time("time", Some(start.time));
            if let Some(epoch) = start.predecessor {
                map.put("predecessor", |out| out.unsigned(epoch.0));
            }
            map.put("last", |out| {
                out.array(start.last.len());
                for (stream, class, number) in &start.last {
                    out.array(3);
                    out.text(stream);
                    out.text(class);
                    out.unsigned(*number);
                }
            });
            map.text("reason", &start.reason);
        }
    }
    map.write(out);
}

/// The stream, the class and the last number known.
type LastNumber = (Arc<str>, Arc<str>, u64);

/// Every key of every notice, as far as it was there.
#[derive(Debug, Default)]
struct Found {
    is: Option<Arc<str>>,
    names: [Option<Arc<str>>; Name::Instance as usize + 1],
    message: Option<Arc<str>>,
    severity: Option<Severity>,
    state: Option<AlertState>,
    time: Option<Timestamp>,
    start: Option<Timestamp>,
    end: Option<Timestamp>,
    from: Option<u64>,
    to: Option<u64>,
    count: Option<u64>,
    epoch: Option<Epoch>,
    values: Option<Vec<(Arc<str>, Option<crate::reading::Value>)>>,
    last: Option<Vec<LastNumber>>,
    clock: ClockState,
}

/// Keys whose values are names.
#[derive(Clone, Copy, Debug)]
enum Name {
    Rule,
    Stream,
    Class,
    Reason,
    CoveredBy,
    Input,
    Instance,
}

/// Why a map is not a notice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NoticeFault {
    /// It is not well-formed.
    Cbor(CborFault),
    /// It lacks something, or has something else there.
    Expected(&'static str),
}

impl From<CborFault> for NoticeFault {
    fn from(fault: CborFault) -> Self {
        Self::Cbor(fault)
    }
}

/// Reads a record that [`write()`] wrote. `listed_left` is what is left of [`super::LISTED_MAX`]. Unknown keys are passed over.
pub(super) fn read(reader: &mut Reader<'_>, listed_left: &mut usize) -> Result<Record, NoticeFault> {
    let mut found = Found::default();
    let mut before: Option<&str> = None;
    for _ in 0..reader.map(KEYS_MAX)? {
        let key = reader.text(NAME_BYTES_MAX)?;
        if before.is_some_and(|before| (before.len(), before) >= (key.len(), key)) {
            return Err(CborFault::NotDeterministic.into());
        }
        before = Some(key);
        found.take(key, reader, listed_left)?;
    }
    found.record().map_err(NoticeFault::Expected)
}

fn name(reader: &mut Reader<'_>) -> Result<Arc<str>, CborFault> {
    reader.text(SERIES_NAME_BYTES_MAX).map(Arc::from)
}

impl Found {
    fn take(&mut self, key: &str, reader: &mut Reader<'_>, listed_left: &mut usize) -> Result<(), NoticeFault> {
        let time = |reader: &mut Reader<'_>| reader.int().map(|nanos| Some(Timestamp::from_nanos(nanos)));
        let mut slot = |place: Name, reader: &mut Reader<'_>| -> Result<(), NoticeFault> {
            self.names[place as usize] = Some(name(reader)?);
            Ok(())
        };
        match key {
            "is" => self.is = Some(name(reader)?),
            "rule" => slot(Name::Rule, reader)?,
            "stream" => slot(Name::Stream, reader)?,
            "class" => slot(Name::Class, reader)?,
            "reason" => slot(Name::Reason, reader)?,
            "covered_by" => slot(Name::CoveredBy, reader)?,
            "input" => slot(Name::Input, reader)?,
            "instance" => slot(Name::Instance, reader)?,
            "message" => self.message = Some(reader.text(TEXT_BYTES_MAX)?.into()),
            "severity" => {
                let word = reader.text(NAME_BYTES_MAX)?;
                let all = [Severity::Info, Severity::Warning, Severity::Critical];
                let severity = all.into_iter().find(|severity| severity.name() == word);
                self.severity = Some(severity.ok_or(NoticeFault::Expected("a known severity"))?);
            }
            "state" => {
                let word = reader.text(NAME_BYTES_MAX)?;
                let all = [AlertState::Raised, AlertState::Repeated, AlertState::Cleared];
                let state = all.into_iter().find(|state| state.name() == word);
                self.state = Some(state.ok_or(NoticeFault::Expected("`raised`, `repeated` or `cleared`"))?);
            }
            "clock" => match reader.text(NAME_BYTES_MAX)? {
                UNSYNCED => self.clock = ClockState::Unsynced,
                _ => return Err(NoticeFault::Expected("`unsynced`")),
            },
            "time" => self.time = time(reader)?,
            "start" => self.start = time(reader)?,
            "end" => self.end = time(reader)?,
            "from" => self.from = Some(reader.unsigned()?),
            "to" => self.to = Some(reader.unsigned()?),
            "count" => self.count = Some(reader.unsigned()?),
            "epoch" | "predecessor" => self.epoch = Some(Epoch(reader.unsigned()?)),
            "values" => {
                let mut values = Vec::new();
                for _ in 0..listed(reader, listed_left)? {
                    pair(reader, 2)?;
                    values.push((name(reader)?, reader.value(TEXT_BYTES_MAX)?));
                }
                self.values = Some(values);
            }
            "last" => {
                let mut last = Vec::new();
                for _ in 0..listed(reader, listed_left)? {
                    pair(reader, 3)?;
                    last.push((name(reader)?, name(reader)?, reader.unsigned()?));
                }
                self.last = Some(last);
            }
            _ => reader.skip()?,
        }
        Ok(())
    }

    fn record(mut self) -> Result<Record, &'static str> {
        const INCOMPLETE: &str = "a notice with all its keys";
        let mut name = |place: Name| self.names[place as usize].take();
        Ok(match self.is.as_deref() {
            Some("alert") => Alert {
                rule: name(Name::Rule).ok_or(INCOMPLETE)?,
                instance: name(Name::Instance).ok_or(INCOMPLETE)?,
                severity: self.severity.ok_or(INCOMPLETE)?,
                time: self.time.ok_or(INCOMPLETE)?,
                state: self.state.ok_or(INCOMPLETE)?,
                message: self.message.ok_or(INCOMPLETE)?,
                values: self.values.ok_or(INCOMPLETE)?,
                clock: self.clock,
            }
            .into(),
            Some("gap") => Gap {
                stream: name(Name::Stream).ok_or(INCOMPLETE)?,
                epoch: self.epoch,
                class: name(Name::Class),
                from: self.from.ok_or(INCOMPLETE)?,
                to: self
                    .to
                    .filter(|to| self.from <= Some(*to))
                    .ok_or("a gap that ends at or after its first number")?,
                count: self.count,
                start: self.start,
                end: self.end,
                reason: name(Name::Reason).ok_or(INCOMPLETE)?,
                covered_by: name(Name::CoveredBy),
            }
            .into(),
            Some("outage") => OutageRecord {
                input: name(Name::Input).ok_or(INCOMPLETE)?,
                start: self.start,
                end: self.end.ok_or(INCOMPLETE)?,
                count: self.count,
                reason: name(Name::Reason).ok_or(INCOMPLETE)?,
            }
            .into(),
            Some("epoch") => EpochStart {
                time: self.time.ok_or(INCOMPLETE)?,
                predecessor: self.epoch,
                last: self.last.ok_or(INCOMPLETE)?,
                reason: name(Name::Reason).ok_or(INCOMPLETE)?,
            }
            .into(),
            _ => return Err("a notice that is an alert, a gap, an outage or an epoch"),
        })
    }
}

fn listed(reader: &mut Reader<'_>, left: &mut usize) -> Result<usize, CborFault> {
    let length = reader.array(*left)?;
    *left -= length;
    Ok(length)
}

fn pair(reader: &mut Reader<'_>, length: usize) -> Result<(), NoticeFault> {
    if reader.array(length)? == length { Ok(()) } else { Err(NoticeFault::Expected("a pair or a triple")) }
}
