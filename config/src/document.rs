//! The document: all files merged into one tree in which everything knows its place.
//!
//! Tables of several files merge; a key that two of them set is a mistake that names both places. The tree remembers which keys
//! were read, and collects the mistakes that are noted while it is.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::ops::Range;

use rtlive_core::sorted;
use toml::de::{DeTable, DeValue};

use crate::mistake::{Mistake, Mistakes, Place, Problem};
use crate::table::Table;

/// How many mistakes are kept. More than anybody reads at once, and a bound for a file of another kind that happens to parse.
pub const MISTAKES_MAX: usize = 1_000;

/// How many syntax errors of one file are kept: after a few, the parser mostly reports its own confusion.
const SYNTAX_ERRORS_PER_FILE_MAX: usize = 10;

/// Where something stands: a file and the first byte.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Spot {
    pub(crate) file: usize,
    pub(crate) offset: usize,
}

/// A value and its place.
#[derive(Debug)]
pub(crate) struct Node {
    pub(crate) spot: Spot,
    /// One past the last byte, in the same file.
    pub(crate) end: usize,
    pub(crate) kind: Kind,
}

/// What a value is.
#[derive(Debug)]
pub(crate) enum Kind {
    Text(String),
    /// An integer; `None` when it needs more than 64 bits.
    Integer(Option<i64>),
    Float(f64),
    Bool(bool),
    Date(String),
    List(Vec<Node>),
    Table(Vec<Entry>),
}

/// A key of a table, its value, and whether anybody read it.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) key: String,
    pub(crate) spot: Spot,
    pub(crate) node: Node,
    pub(crate) read: Cell<bool>,
}

#[derive(Debug)]
struct SourceFile {
    name: String,
    text: String,
}

#[derive(Debug, Default)]
struct Notes {
    mistakes: BTreeMap<(Spot, String), Mistake>,
    warnings: BTreeMap<(Spot, String), Mistake>,
}

/// All files of a configuration, merged.
#[derive(Debug)]
pub struct Document {
    files: Vec<SourceFile>,
    root: Node,
    notes: RefCell<Notes>,
}

impl Default for Document {
    fn default() -> Self {
        let root = Node { spot: Spot::default(), end: 0, kind: Kind::Table(Vec::new()) };
        Self { files: Vec::new(), root, notes: RefCell::default() }
    }
}

impl Document {
    /// A document of one text, for tests and examples; `name` stands for the file in mistakes.
    pub fn of_text(name: &str, text: &str) -> Self {
        let mut document = Self::default();
        document.add(name, text);
        document
    }

    /// Merges a file. Returns whether it is TOML; if not, its mistakes are noted and it adds nothing.
    pub fn add(&mut self, name: &str, text: &str) -> bool {
        let file = self.files.len();
        self.files.push(SourceFile { name: name.into(), text: text.into() });
        let (table, errors) = DeTable::parse_recoverable(text);
        if !errors.is_empty() {
            let mut last_line = 0;
            for error in errors.iter().take(SYNTAX_ERRORS_PER_FILE_MAX) {
                let offset = error.span().map_or(0, |span| span.start);
                let spot = Spot { file, offset };
                let line = self.place(spot).line;
                // The first error of a line is the mistake, the others follow from it.
                if line != last_line {
                    self.note(spot, String::new(), self.syntax_problem(file, error.message(), error.span()));
                    last_line = line;
                }
            }
            return false;
        }
        let entries = entries(table.into_inner(), file);
        let mut twice = Vec::new();
        if let Kind::Table(root) = &mut self.root.kind {
            merge(root, entries, "", &mut twice);
        }
        for (spot, first, key) in twice {
            let first = Some(self.place(first));
            self.note(spot, key, Problem::Twice { first });
        }
        true
    }

    /// Notes a file that could not be read at all.
    pub fn add_unreadable(&mut self, name: &str, message: String) {
        let file = self.files.len();
        self.files.push(SourceFile { name: name.into(), text: String::new() });
        self.note(Spot { file, offset: usize::MAX }, String::new(), Problem::File { message });
    }

    /// Notes something about a file as a whole that is worth knowing.
    pub(crate) fn warn_of_file(&mut self, name: &str, message: String) {
        let file = self.files.len();
        self.files.push(SourceFile { name: name.into(), text: String::new() });
        self.warn(Spot { file, offset: usize::MAX }, String::new(), message);
    }

    /// The outermost table.
    pub fn root(&self) -> Table<'_> {
        Table::new(self, &self.root, self.root.spot, String::new())
    }

    /// The mistakes so far, in the order of files and lines.
    pub fn mistakes(&self) -> Mistakes {
        Mistakes(self.notes.borrow().mistakes.values().cloned().collect())
    }

    /// The warnings so far, in the same order.
    pub fn warnings(&self) -> Mistakes {
        Mistakes(self.notes.borrow().warnings.values().cloned().collect())
    }

    /// Notes a mistake; one that is noted already (a map that several devices use) is noted once.
    pub(crate) fn note(&self, spot: Spot, key: String, problem: Problem) {
        let mistakes = &mut self.notes.borrow_mut().mistakes;
        // Looking a place up reads the file: not for what will not be kept.
        if mistakes.len() < MISTAKES_MAX {
            let mistake = Mistake { place: self.place(spot), key, problem };
            mistakes.insert((spot, mistake.to_string()), mistake);
        }
    }

    /// Notes something that is no mistake but worth knowing.
    pub(crate) fn warn(&self, spot: Spot, key: String, message: String) {
        let warnings = &mut self.notes.borrow_mut().warnings;
        if warnings.len() < MISTAKES_MAX {
            let mistake = Mistake { place: self.place(spot), key, problem: Problem::Advice { message } };
            warnings.insert((spot, mistake.to_string()), mistake);
        }
    }

    /// The text of a node as it was written.
    pub(crate) fn written(&self, node: &Node) -> &str {
        let file = self.files.get(node.spot.file);
        file.and_then(|file| file.text.get(node.spot.offset..node.end)).unwrap_or_default()
    }

    /// The name of a file, with line and column.
    pub(crate) fn place(&self, spot: Spot) -> Place {
        let Some(file) = self.files.get(spot.file) else {
            return Place { file: "the configuration".into(), line: 0, column: 0 };
        };
        if spot.offset == usize::MAX {
            return Place { file: file.name.clone(), line: 0, column: 0 };
        }
        let before = file.text.get(..spot.offset).unwrap_or(&file.text);
        let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
        let line = 1 + before.matches('\n').count();
        let column = 1 + before.get(line_start..).map_or(0, |text| text.chars().count());
        Place { file: file.name.clone(), line, column }
    }

    fn syntax_problem(&self, file: usize, message: &str, span: Option<Range<usize>>) -> Problem {
        if message == "duplicate key" {
            let text = self.files.get(file).map_or("", |file| file.text.as_str());
            let first = span.and_then(|span| first_definition(text, span));
            return Problem::Twice { first: first.map(|offset| self.place(Spot { file, offset })) };
        }
        Problem::Syntax { message: format!("not TOML: {message}") }
    }
}

/// Turns a parsed table into entries in the order in which they were written.
fn entries(table: DeTable<'_>, file: usize) -> Vec<Entry> {
    let mut entries: Vec<Entry> = table
        .into_iter()
        .map(|(key, value)| Entry {
            spot: Spot { file, offset: key.span().start },
            key: key.into_inner().into_owned(),
            node: node(value.span(), value.into_inner(), file),
            read: Cell::new(false),
        })
        .collect();
    sorted::by_key(&mut entries, |entry| entry.spot);
    entries
}

fn node(span: Range<usize>, value: DeValue<'_>, file: usize) -> Node {
    let kind = match value {
        DeValue::String(text) => Kind::Text(text.into_owned()),
        DeValue::Integer(integer) => Kind::Integer(i64::from_str_radix(integer.as_str(), integer.radix()).ok()),
        DeValue::Float(float) => Kind::Float(float.as_str().parse().unwrap_or(f64::NAN)),
        DeValue::Boolean(value) => Kind::Bool(value),
        DeValue::Datetime(date) => Kind::Date(date.to_string()),
        DeValue::Array(list) => {
            Kind::List(list.into_iter().map(|item| node(item.span(), item.into_inner(), file)).collect())
        }
        DeValue::Table(table) => Kind::Table(entries(table, file)),
    };
    Node { spot: Spot { file, offset: span.start }, end: span.end, kind }
}

/// A value that stands in the program and not in a file (a default), at the place of the table that lacks it.
pub(crate) fn built_in(text: &str, spot: Spot) -> Option<Node> {
    let value = DeValue::parse(text).ok()?;
    let mut node = node(0..0, value.into_inner(), spot.file);
    node.spot = spot;
    node.end = spot.offset;
    Some(node)
}

/// Adds `more` to `table`; what both set is left as it was and noted: the second place, the first, the key.
fn merge(table: &mut Vec<Entry>, more: Vec<Entry>, path: &str, twice: &mut Vec<(Spot, Spot, String)>) {
    // A file has each key once, so that only those of earlier files can be there already.
    let known = sorted::map(table.iter().enumerate().map(|(i, known)| (known.key.clone(), i)));
    for entry in more {
        let path = join(path, &entry.key);
        match known.get(&entry.key).and_then(|&i| table.get_mut(i)) {
            None => table.push(entry),
            Some(known) => match (&mut known.node.kind, entry.node.kind) {
                (Kind::Table(table), Kind::Table(more)) => merge(table, more, &path, twice),
                _ => twice.push((entry.spot, known.spot, path)),
            },
        }
    }
}

/// The path of a key in a table.
pub(crate) fn join(path: &str, key: &str) -> String {
    let key = quoted(key);
    if path.is_empty() { key } else { format!("{path}.{key}") }
}

/// A key as it would be written: quoted unless it is a bare word of TOML.
pub(crate) fn quoted(key: &str) -> String {
    let bare = !key.is_empty() && key.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-'));
    if bare { key.to_owned() } else { format!("{key:?}") }
}

/// Where the key at `span`, which is defined twice, was defined first.
///
/// The parser names the second place only. What stands before that line can be parsed by itself, and holds the first.
fn first_definition(text: &str, span: Range<usize>) -> Option<usize> {
    let line_start = text.get(..span.start)?.rfind('\n').map_or(0, |newline| newline + 1);
    let line = text.get(line_start..)?.lines().next()?;
    // It may hold other mistakes, which are told by themselves.
    let (before, _) = DeTable::parse_recoverable(text.get(..line_start)?);
    if line.trim_start().starts_with('[') {
        // A header: follow its path.
        let header = DeTable::parse(line).ok()?;
        return follow(&before.into_inner(), header.get_ref());
    }
    if !text.get(line_start..span.start)?.trim().is_empty() {
        return None;
    }
    let key = text.get(span)?.trim_matches(['"', '\'']);
    let before = before.into_inner();
    let table = last_headed(&before, text).map_or(&before, |(_, table)| table);
    table.iter().find(|(known, _)| known.get_ref() == key).map(|(known, _)| known.span().start)
}

/// Where the innermost table of `header` is defined in `table`.
fn follow(table: &DeTable<'_>, header: &DeTable<'_>) -> Option<usize> {
    let (key, value) = header.iter().next()?;
    let (known, inner) = table.iter().find(|(known, _)| known.get_ref() == key.get_ref())?;
    match (inner.get_ref(), value.get_ref()) {
        (DeValue::Table(inner), DeValue::Table(header)) if !header.is_empty() => follow(inner, header),
        _ => Some(known.span().start),
    }
}

/// The table under the last header, with the place of that header.
fn last_headed<'t, 'i>(table: &'t DeTable<'i>, text: &str) -> Option<(usize, &'t DeTable<'i>)> {
    let mut last = None;
    for (_, value) in table {
        let items: &[_] = match value.get_ref() {
            DeValue::Array(list) => list,
            DeValue::Table(_) => std::slice::from_ref(value),
            _ => continue,
        };
        for item in items {
            if let DeValue::Table(inner) = item.get_ref() {
                let headed = text.get(item.span()).is_some_and(|written| written.starts_with('['));
                let own = headed.then(|| (item.span().start, inner));
                for found in own.into_iter().chain(last_headed(inner, text)) {
                    if last.is_none_or(|(place, _)| found.0 > place) {
                        last = Some(found);
                    }
                }
            }
        }
    }
    last
}

#[cfg(test)]
mod tests {
    use super::*;

    fn first_message(text: &str) -> String {
        Document::of_text("t.toml", text).mistakes().to_string()
    }

    #[test]
    fn a_key_set_twice_in_one_file_names_both_places() {
        assert_eq!(first_message("[a]\nx = 1\n[b]\nx = 2\nx = 3\n"), "t.toml:5:1: set twice; first at t.toml:4:1");
        assert_eq!(first_message("[a.b]\nx = 1\n[b]\na = 2\n[a.b]\n"), "t.toml:5:4: set twice; first at t.toml:1:4");
        assert_eq!(first_message("x = 1\nx = 3\n"), "t.toml:2:1: set twice; first at t.toml:1:1");
        assert_eq!(first_message("[[l]]\nx = 1\n[[l]]\nx = 1\nx = 2"), "t.toml:5:1: set twice; first at t.toml:4:1");
    }

    #[test]
    fn tables_of_two_files_merge_and_keys_do_not() {
        let mut document = Document::of_text("1.toml", "[a]\nx = 1\nl = [1]\n");
        document.add("2.toml", "a.y = 2\n[a.z]\nq = 1\n");
        assert_eq!(document.mistakes().0, []);
        document.add("3.toml", "[a]\n  l = [2]\nz = 5\n");
        assert_eq!(
            document.mistakes().to_string(),
            "3.toml:2:3: a.l: set twice; first at 1.toml:3:1\n3.toml:3:1: a.z: set twice; first at 2.toml:2:4"
        );
    }

    #[test]
    fn every_file_that_is_not_toml_is_named_with_its_places() {
        let mut document = Document::of_text("1.toml", "a = \nb = 1\nc = 'x\n");
        document.add("2.toml", "[x");
        let files: Vec<_> = document.mistakes().0.iter().map(|m| (m.place.file.clone(), m.place.line)).collect();
        assert_eq!(files, [("1.toml".into(), 1), ("1.toml".into(), 3), ("2.toml".into(), 1)]);
    }
}
