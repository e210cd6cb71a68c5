//! From a message to readings: which entries its topic matches, which series they name, what the payload says.

use std::collections::HashMap;

use rtlive_core::reading::{SERIES_NAME_BYTES_MAX, SeriesId, series_level};
use rtlive_core::selector::Selector;
use rtlive_core::template::{Piece, Template};
use rtlive_core::time::Timestamp;

use crate::outlet::Session;
use crate::payload::{Document, Format, Kind, Pointer, Reason, TimeUnit};

/// One `[[topics]]` entry, checked.
#[derive(Clone, Debug)]
pub(super) struct Topic {
    pub(super) filter: Selector,
    /// The levels below the input's prefix; `None` for the topic itself.
    pub(super) series: Option<Template>,
    pub(super) format: Format,
    pub(super) values: Vec<Place>,
    pub(super) time: Option<Pointer>,
    pub(super) time_unit: TimeUnit,
}

/// A value within a payload.
#[derive(Clone, Debug)]
pub(super) struct Place {
    /// The levels below the entry's series; `None` for the series itself.
    pub(super) name: Option<String>,
    pub(super) pointer: Pointer,
    pub(super) kind: Kind,
    pub(super) unit: Option<String>,
}

/// The entries of an input, and what was found out about the topics so far.
pub(super) struct Topics<'t> {
    entries: &'t [Topic],
    series_max: usize,
    /// For each topic that matches, what it becomes; at most `series_max` topics.
    known: HashMap<String, Vec<Match>>,
    /// Which (topic, entry) feeds a series: there may be only one.
    owners: HashMap<SeriesId, (String, usize)>,
}

/// An entry that matches a topic.
struct Match {
    entry: usize,
    /// The series below the prefix, or why there is none.
    base: Result<String, Reason>,
    /// The series of each value, once it had one.
    series: Vec<Option<Result<SeriesId, Reason>>>,
}

impl<'t> Topics<'t> {
    pub(super) fn new(entries: &'t [Topic], series_max: usize) -> Self {
        Self { entries, series_max, known: HashMap::new(), owners: HashMap::new() }
    }

    /// Adds the readings of a message to the next delivery; what is no reading is counted by its reason.
    pub(super) fn read(&mut self, topic: &str, payload: &[u8], arrival: Timestamp, session: &mut Session) {
        if !self.known.contains_key(topic) {
            let matches = self.matches(topic);
            if matches.is_empty() {
                return session.reject("no_topic", 1);
            }
            if self.known.len() >= self.series_max {
                return session.reject("max_series", 1);
            }
            self.known.insert(topic.to_owned(), matches);
        }
        let Some(matches) = self.known.get_mut(topic) else { return };
        let mut parsed: Option<(Format, Result<Document<'_>, Reason>)> = None;
        for found in matches {
            let Some(entry) = self.entries.get(found.entry) else { continue };
            // Entries that match the same topic mostly have the same format.
            if parsed.as_ref().is_none_or(|(format, _)| *format != entry.format) {
                parsed = Some((entry.format, Document::parse(entry.format, payload)));
            }
            let document = match &parsed {
                Some((_, Ok(document))) => document,
                Some((_, Err(reason))) => {
                    session.reject(reason, 1);
                    continue;
                }
                None => continue,
            };
            let time = match entry.time.as_ref().map(|place| document.time(place, entry.time_unit)) {
                None => arrival,
                Some(Ok(time)) => time,
                Some(Err(reason)) => {
                    session.reject(reason, 1);
                    continue;
                }
            };
            let base = match &found.base {
                Ok(base) => base,
                Err(reason) => {
                    session.reject(reason, 1);
                    continue;
                }
            };
            for (place, slot) in entry.values.iter().zip(&mut found.series) {
                let value = match document.value(&place.pointer, place.kind) {
                    Ok(value) => value,
                    Err(reason) => {
                        session.reject(reason, 1);
                        continue;
                    }
                };
                let series = slot.get_or_insert_with(|| {
                    declare(base, place, topic, found.entry, self.series_max, &mut self.owners, session)
                });
                match series {
                    Ok(series) if entry.time.is_some() => session.read(*series, time, value),
                    Ok(series) => session.read_on_arrival(*series, time, value),
                    Err(reason) => session.reject(reason, 1),
                }
            }
        }
    }

    fn matches(&self, topic: &str) -> Vec<Match> {
        // MQTT 3.1.1, 4.7.2-1: a filter that begins with a wildcard does not match topics of the broker itself.
        let of_broker = topic.starts_with('$');
        let selected =
            self.entries.iter().enumerate().filter(|(_, entry)| {
                entry.filter.matches(topic) && (!of_broker || entry.filter.first_literal().is_some())
            });
        let found = selected.map(|(index, entry)| Match {
            entry: index,
            base: base_of(entry, topic),
            series: vec![None; entry.values.len()],
        });
        found.collect()
    }
}

impl Topic {
    /// The series that it feeds whatever the topics are, below the input's prefix.
    pub(super) fn known_series(&self) -> Vec<String> {
        let is_same_for_all =
            |template: &Template| !template.pieces().iter().any(|piece| matches!(piece, Piece::Level(_)));
        if !self.filter.is_literal() && !self.series.as_ref().is_some_and(is_same_for_all) {
            return Vec::new();
        }
        let base = base_of(self, &self.filter.to_string()).ok();
        let names = base.iter().flat_map(|base| self.values.iter().map(|place| rest_of(base, place)));
        names.collect()
    }
}

/// The series that a topic names, without prefix and value.
fn base_of(entry: &Topic, topic: &str) -> Result<String, Reason> {
    match &entry.series {
        None => Ok(topic.split('/').map(series_level).collect::<Vec<_>>().join("/")),
        Some(template) => {
            let rendered = template.render(|piece| match piece {
                Piece::Level(n) => topic.split('/').nth(*n).map(|level| series_level(level).into()),
                _ => None,
            });
            rendered.map_err(|_| "no_level")
        }
    }
}

/// The series of a value of a topic, without prefix.
fn rest_of(base: &str, place: &Place) -> String {
    match &place.name {
        Some(name) => format!("{base}/{name}"),
        None => base.to_owned(),
    }
}

/// The number of a series at its first value.
fn declare(
    base: &str,
    place: &Place,
    topic: &str,
    entry: usize,
    series_max: usize,
    owners: &mut HashMap<SeriesId, (String, usize)>,
    session: &mut Session,
) -> Result<SeriesId, Reason> {
    let rest = rest_of(base, place);
    if session.prefix().len() + 1 + rest.len() > SERIES_NAME_BYTES_MAX {
        return Err("name_too_long");
    }
    if session.series_count() >= series_max && !session.has_series(&rest) {
        return Err("max_series");
    }
    let series = session.series(&rest, place.unit.as_deref(), topic);
    let owner = owners.entry(series).or_insert_with(|| (topic.to_owned(), entry));
    if owner.0 == topic && owner.1 == entry { Ok(series) } else { Err("two_sources") }
}
