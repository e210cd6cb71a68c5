//! Tables and values as the user wrote them: reads keys, notes mistakes with their places.
//!
//! A reader asks a [`Table`] for each key that it knows, and then calls [`Table::close`], after which every key that nobody asked
//! for is an unknown one. The [`options!`](crate::options!) macro does both.

use std::cell::RefCell;
use std::fmt::Display;

use rtlive_core::sorted;

use crate::document::{Document, Entry, Kind, Node, Spot, built_in, join};
use crate::mistake::{Problem, nearest};
use crate::value::Setting;

/// The longest text that a message quotes, in characters.
const QUOTED_CHARS_MAX: usize = 60;

/// A table as the user wrote it.
pub struct Table<'a> {
    document: &'a Document,
    entries: &'a [Entry],
    spot: Spot,
    path: String,
    /// The keys that somebody knows, for the nearest one to a mistaken key.
    known: RefCell<Vec<&'static str>>,
}

/// A value as the user wrote it.
#[derive(Clone, Copy)]
pub struct Value<'a> {
    document: &'a Document,
    node: &'a Node,
    path: &'a str,
}

impl<'a> Table<'a> {
    pub(crate) fn new(document: &'a Document, node: &'a Node, spot: Spot, path: String) -> Self {
        let entries: &[Entry] = match &node.kind {
            Kind::Table(entries) => entries,
            _ => &[],
        };
        Self { document, entries, spot, path, known: RefCell::default() }
    }

    /// The path of the table: `inputs.meters`; empty for the outermost.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// The name of the table: the last part of its path.
    pub fn name(&self) -> &str {
        self.path.rsplit('.').next().unwrap_or_default()
    }

    /// The keys that were written, in their order.
    pub fn keys(&self) -> impl Iterator<Item = &'a str> {
        self.entries.iter().map(|entry| entry.key.as_str())
    }

    /// Whether the key was written.
    pub fn has(&self, key: &str) -> bool {
        self.entry(key).is_some()
    }

    /// Reads a key; `default` is the text that would be written for it. A key that must be there and is not, or whose value is wrong, is
    /// noted as a mistake and gives `None`.
    pub fn read<T: Setting>(&self, key: &'static str, default: Option<&str>) -> Option<T> {
        self.known.borrow_mut().push(key);
        let path = join(&self.path, key);
        if let Some(entry) = self.entry(key) {
            entry.read.set(true);
            return T::read(&Value { document: self.document, node: &entry.node, path: &path });
        }
        if let Some(default) = default {
            let node = built_in(default, self.spot)?;
            return T::read(&Value { document: self.document, node: &node, path: &path });
        }
        let absent = T::absent();
        if absent.is_none() {
            self.document.note(self.spot, path, Problem::Missing { expected: T::expected() });
        }
        absent
    }

    /// The value of a key, if it was written and is right; no mistake is noted if not, since somebody else reads it too.
    pub(crate) fn text(&self, key: &str) -> Option<&'a str> {
        match &self.entry(key)?.node.kind {
            Kind::Text(text) => Some(text),
            _ => None,
        }
    }

    /// What stands below these keys, whatever its place and layout.
    pub fn fingerprint(&self, keys: &[&str]) -> crate::fingerprint::Fingerprint {
        let entries = self.entries.iter().filter(|entry| keys.contains(&entry.key.as_str()));
        crate::fingerprint::Fingerprint::of(entries)
    }

    /// Marks a key as read that was dealt with by other means than [`Table::read`].
    pub fn dealt_with(&self, key: &str) {
        if let Some(entry) = self.entry(key) {
            entry.read.set(true);
        }
    }

    /// Tells the keys that are read by other ways than [`Table::read`], for the nearest one to a mistaken key.
    pub fn knows(&self, keys: &[&'static str]) {
        self.known.borrow_mut().extend(keys);
    }

    /// Refuses keys of the documented configuration that this version does not do.
    pub fn refuse_later(&self, keys: &[&'static str]) {
        for &key in keys {
            if let Some(entry) = self.entry(key)
                && !entry.read.replace(true)
            {
                self.document.note(entry.spot, join(&self.path, key), Problem::NotYet { word: None });
            }
        }
    }

    /// Notes every key that nobody asked for as unknown. Calling it again does nothing.
    pub fn close(&self) {
        let mut known = self.known.borrow().clone();
        sorted::by(&mut known, Ord::cmp);
        known.dedup();
        for entry in self.entries.iter().filter(|entry| !entry.read.replace(true)) {
            let nearest = nearest(&entry.key, known.iter().copied()).map(Into::into);
            let known = known.iter().copied().map(Into::into).collect();
            self.document.note(entry.spot, join(&self.path, &entry.key), Problem::UnknownKey { nearest, known });
        }
    }

    /// The table at this key. Absent: `None`; something else there: a mistake and `None`.
    pub fn table(&self, key: &str) -> Option<Table<'a>> {
        self.table_of(self.entry(key)?)
    }

    fn table_of(&self, entry: &'a Entry) -> Option<Table<'a>> {
        entry.read.set(true);
        let path = join(&self.path, &entry.key);
        if let Kind::Table(_) = entry.node.kind {
            return Some(Table::new(self.document, &entry.node, entry.spot, path));
        }
        Value { document: self.document, node: &entry.node, path: &path }.wrong("a table");
        None
    }

    /// The table at this key, or one without keys where it is absent; its mistakes then stand at this table.
    pub fn table_or_empty(&self, key: &str) -> Option<Table<'a>> {
        if self.has(key) {
            return self.table(key);
        }
        let path = join(&self.path, key);
        Some(Table { document: self.document, entries: &[], spot: self.spot, path, known: RefCell::default() })
    }

    /// Every table in this one, by name, in the order of the files; anything else in it is a mistake.
    pub fn tables(&self) -> Vec<(&'a str, Table<'a>)> {
        self.entries.iter().filter_map(|entry| Some((entry.key.as_str(), self.table_of(entry)?))).collect()
    }

    /// A table of the outermost level, such as `maps`, to look something up in it. Does not mark what is in it as read.
    pub fn root_table(&self, key: &str) -> Option<Table<'a>> {
        self.document.root().table(key)
    }

    /// Whether somebody asked for this key.
    pub fn was_read(&self, key: &str) -> bool {
        self.entry(key).is_some_and(|entry| entry.read.get())
    }

    /// Notes a mistake that no single value shows: `expected {expected}, found {found}`. `key` is a key of this table, or a path
    /// below it (`registers[3].series`); the place is that of the longest part of it that was written, or the table's own for `""`.
    pub fn mistake(&self, key: &str, expected: impl Display, found: impl Display) {
        let (spot, path) = self.locate(key);
        self.document.note(spot, path, Problem::Wrong { expected: expected.to_string(), found: found.to_string() });
    }

    /// As [`Table::mistake`], at byte `offset` of the text at `key`, where the file has that text without escapes.
    pub fn mistake_in_text(&self, key: &str, offset: usize, expected: impl Display, found: impl Display) {
        match self.entry(key) {
            Some(entry) => {
                let path = join(&self.path, key);
                let value = Value { document: self.document, node: &entry.node, path: &path };
                value.mistake_in_text(offset, expected, found);
            }
            None => self.mistake(key, expected, found),
        }
    }

    /// Refuses a word of the documented configuration that this version does not do: `"gap"` of `mode = "gap"`.
    pub fn not_yet(&self, key: &str, word: impl Display) {
        let (spot, path) = self.locate(key);
        self.document.note(spot, path, Problem::NotYet { word: Some(word.to_string()) });
    }

    /// Notes something that is no mistake but probably not what was meant. `key` as in [`Table::mistake`].
    pub fn warn(&self, key: &str, message: impl Display) {
        let (spot, path) = self.locate(key);
        self.document.warn(spot, path, message.to_string());
    }

    /// Where a key stands, for messages that speak of another place: `meters.toml:12:3`. `key` as in [`Table::mistake`].
    pub fn place_of(&self, key: &str) -> crate::mistake::Place {
        self.document.place(self.locate(key).0)
    }

    fn entry(&self, key: &str) -> Option<&'a Entry> {
        self.entries.iter().find(|entry| entry.key == key)
    }

    /// The place of a path below this table, or of the longest part of it that exists, and its full path.
    fn locate(&self, key: &str) -> (Spot, String) {
        if key.is_empty() {
            return (self.spot, self.path.clone());
        }
        let path = if self.path.is_empty() { key.to_owned() } else { format!("{}.{key}", self.path) };
        let mut spot = self.spot;
        let mut entries = self.entries;
        for (name, indices) in parts(key) {
            let Some(entry) = entries.iter().find(|entry| entry.key == name) else { break };
            spot = entry.spot;
            let mut node = &entry.node;
            for index in indices.split(['[', ']']).filter_map(|index| index.parse::<usize>().ok()) {
                if let Kind::List(items) = &node.kind
                    && let Some(item) = items.get(index)
                {
                    node = item;
                    spot = item.spot;
                }
            }
            entries = match &node.kind {
                Kind::Table(entries) => entries,
                _ => &[],
            };
        }
        (spot, path)
    }
}

impl<'a> Value<'a> {
    /// The path of the value: `inputs.meters.baud`.
    pub fn path(&self) -> &str {
        self.path
    }

    /// The text, if it is one.
    pub fn as_text(&self) -> Option<&'a str> {
        match &self.node.kind {
            Kind::Text(text) => Some(text),
            _ => None,
        }
    }

    /// The integer, if it is one of 64 bits.
    pub fn as_integer(&self) -> Option<i64> {
        match self.node.kind {
            Kind::Integer(integer) => integer,
            _ => None,
        }
    }

    /// The number, if it is an integer or a float.
    pub fn as_number(&self) -> Option<f64> {
        match self.node.kind {
            Kind::Integer(integer) => integer.map(|integer| integer as f64),
            Kind::Float(float) => Some(float),
            _ => None,
        }
    }

    /// The bool, if it is one.
    pub fn as_bool(&self) -> Option<bool> {
        match self.node.kind {
            Kind::Bool(value) => Some(value),
            _ => None,
        }
    }

    /// The number of items, if it is a list.
    pub fn list_len(&self) -> Option<usize> {
        match &self.node.kind {
            Kind::List(items) => Some(items.len()),
            _ => None,
        }
    }

    /// Calls `read` with each item, if it is a list, and gathers what it gives; `None` if it is none or one of them gave `None`.
    pub fn each<T>(&self, mut read: impl FnMut(&Value<'_>) -> Option<T>) -> Option<Vec<T>> {
        let Kind::List(items) = &self.node.kind else { return None };
        let read_item = |(i, node): (usize, &Node)| {
            let path = format!("{}[{i}]", self.path);
            read(&Value { document: self.document, node, path: &path })
        };
        // All items are read before the first `None` counts, so that the mistakes of all are noted.
        let items: Vec<Option<T>> = items.iter().enumerate().map(read_item).collect();
        items.into_iter().collect()
    }

    /// The table, if it is one.
    pub fn as_table(&self) -> Option<Table<'a>> {
        matches!(self.node.kind, Kind::Table(_))
            .then(|| Table::new(self.document, self.node, self.node.spot, self.path.to_owned()))
    }

    /// Reads every entry of a table, in the order in which they were written; `None` if it is none or one of them is wrong.
    pub fn each_entry<T>(&self, mut read: impl FnMut(&Value<'_>) -> Option<T>) -> Option<Vec<(String, T)>> {
        let Kind::Table(entries) = &self.node.kind else { return None };
        let read_entry = |entry: &Entry| {
            entry.read.set(true);
            let path = join(self.path, &entry.key);
            let value = read(&Value { document: self.document, node: &entry.node, path: &path })?;
            Some((entry.key.clone(), value))
        };
        let entries: Vec<_> = entries.iter().map(read_entry).collect();
        entries.into_iter().collect()
    }

    /// Notes that the value is not what was expected, and describes what stands there.
    pub fn wrong(&self, expected: impl Display) {
        self.mistake(expected, self.found());
    }

    /// Notes that the value is not what was expected, in the caller's words for what was found: for what must not be repeated,
    /// and for what needs explaining.
    pub fn mistake(&self, expected: impl Display, found: impl Display) {
        let problem = Problem::Wrong { expected: expected.to_string(), found: found.to_string() };
        self.document.note(self.node.spot, self.path.to_owned(), problem);
    }

    /// As [`Value::mistake`], at byte `offset` of the text: the place in the file is that of the byte wherever the text was written
    /// without escapes, and else that of the value.
    pub fn mistake_in_text(&self, offset: usize, expected: impl Display, found: impl Display) {
        let problem = Problem::Wrong { expected: expected.to_string(), found: found.to_string() };
        let mut spot = self.node.spot;
        if let Kind::Text(text) = &self.node.kind
            && !text.is_empty()
            && let Some(start) = self.document.written(self.node).find(text.as_str())
        {
            spot.offset += start + offset.min(text.len());
        }
        self.document.note(spot, self.path.to_owned(), problem);
    }

    /// Refuses a word of the documented configuration that this version does not do.
    pub fn not_yet(&self, word: impl Display) {
        let problem = Problem::NotYet { word: Some(word.to_string()) };
        self.document.note(self.node.spot, self.path.to_owned(), problem);
    }

    /// What stands there, in words.
    pub fn found(&self) -> String {
        match &self.node.kind {
            Kind::Text(text) if text.chars().count() > QUOTED_CHARS_MAX => {
                let start: String = text.chars().take(QUOTED_CHARS_MAX).collect();
                format!("{start:?}…")
            }
            Kind::Text(text) => format!("{text:?}"),
            Kind::Integer(Some(integer)) => format!("the integer {integer}"),
            Kind::Integer(None) => "an integer of more than 64 bits".into(),
            Kind::Float(float) => format!("the number {float}"),
            Kind::Bool(value) => format!("{value}"),
            Kind::Date(date) => format!("the date {date}"),
            Kind::List(items) if items.is_empty() => "an empty list".into(),
            Kind::List(_) => "a list".into(),
            Kind::Table(_) => "a table".into(),
        }
    }
}

/// The parts of a path, `devices[1]."a b".x`: names without their quotes, each with the indices that follow it.
fn parts(path: &str) -> Vec<(&str, &str)> {
    let mut parts = Vec::new();
    let mut rest = path;
    while !rest.is_empty() {
        let (name, after) = match rest.strip_prefix('"').and_then(|rest| rest.split_once('"')) {
            Some(quoted) => quoted,
            None => rest.split_at(rest.find(['.', '[']).unwrap_or(rest.len())),
        };
        let (indices, next) = after.split_once('.').unwrap_or((after, ""));
        parts.push((name, indices));
        rest = next;
    }
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_have_parts() {
        assert_eq!(parts("devices[1].registers[2].series"), [("devices", "[1]"), ("registers", "[2]"), ("series", "")]);
        assert_eq!(parts("\"a.b\".c"), [("a.b", ""), ("c", "")]);
        assert_eq!(parts("x"), [("x", "")]);
    }
}
