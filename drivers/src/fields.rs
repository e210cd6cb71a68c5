//! Fields: lines of text (JSON, separated values, or what a regular expression finds in them) that become readings; the same in every
//! driver that reads lines.
//!
//! [`LineOptions`] is the part of the options, [`Fields`] its checked form, [`Reader`] turns lines into readings of a session,
//! [`Lines`] cuts a byte stream into lines, and [`LineDecoder`] does all of it.

use std::time::Duration;

use regex_lite::Regex;
use rtlive_config::table::Table;
use rtlive_config::value::NonEmpty;
use rtlive_config::{choices, options};
use rtlive_core::reading::{SeriesId, Value, is_series_name};
use rtlive_core::time::Timestamp;

use crate::input::Decoder;
use crate::outlet::Session;
use crate::payload::{Document, Format, Kind, Pointer, Reason, TimeUnit, time_of_text, value_of_text};

/// The most columns of a line that are looked at; lines of instruments have tens.
const COLUMNS_MAX: usize = 1024;

choices! {
    /// How a line is written.
    pub enum LineFormat {
        /// A JSON document (RFC 8259); fields and time are JSON pointers.
        Json = "json",
        /// Values with a separator between them, quoted where they contain it (RFC 4180); fields and time are columns, counted from 0.
        Csv = "csv",
        /// Anything in which `pattern` finds its groups; fields and time are names of groups.
        Regex = "regex",
    }
}

options! {
    /// How lines become readings.
    pub struct LineOptions {
        /// How a line is written.
        pub format: LineFormat,
        /// The regular expression, with named groups `(?P<name>…)`; for `regex`.
        pub pattern: Option<String>,
        /// The character between values; for `csv`.
        pub separator: String = ",",
        /// What a line says.
        pub fields: NonEmpty<FieldOptions>,
        /// Where the time of a line stands: a JSON pointer, the number of a column, or the name of a group. Absent: the time of arrival.
        pub time: Option<String>,
        /// What a time that is written as a number counts. RFC 3339 text is recognised by itself.
        pub time_unit: TimeUnit = "ms",
    }
}

options! {
    /// A value in a line.
    pub struct FieldOptions {
        /// The series, below the input's name.
        pub series: String,
        /// Where it stands: a JSON pointer, for `json`.
        pub pointer: Option<Pointer>,
        /// Where it stands: a column, counted from 0, for `csv`.
        pub column: Option<u16>,
        /// Where it stands: the name of a group, for `regex`.
        pub group: Option<String>,
        /// What it is.
        pub kind: Kind as "type" = "auto",
        /// Its unit, as UCUM (`Cel`, `kWh`) or in your own words.
        pub unit: Option<String>,
    }
}

/// Where something stands in a line.
#[derive(Clone, Debug)]
enum Place {
    Pointer(Pointer),
    Column(usize),
    Group(String),
}

#[derive(Clone, Debug)]
enum Layout {
    Json,
    Csv(u8),
    Regex(Box<Regex>),
}

#[derive(Clone, Debug)]
struct Field {
    series: String,
    unit: Option<String>,
    kind: Kind,
    place: Place,
}

/// How lines become readings, checked.
#[derive(Clone, Debug)]
pub struct Fields {
    layout: Layout,
    fields: Vec<Field>,
    time: Option<Place>,
    time_unit: TimeUnit,
}

impl Fields {
    /// Checks what the options say together; mistakes are noted in the table that they were read from.
    pub fn check(options: &LineOptions, table: &Table<'_>) -> Option<Self> {
        let layout = check_layout(options, table)?;
        let mut right = true;
        let mut mistake = |key: &str, expected: &str, found: &str| {
            table.mistake(key, expected, found);
            right = false;
        };
        let has_group = |name: &str| match &layout {
            Layout::Regex(regex) => regex.capture_names().flatten().any(|group| group == name),
            _ => true,
        };
        let mut fields: Vec<Field> = Vec::new();
        for (index, written) in options.fields.iter().enumerate() {
            let at = format!("fields[{index}]");
            let place = match (&layout, &written.pointer, written.column, &written.group) {
                (Layout::Json, Some(pointer), None, None) => Place::Pointer(pointer.clone()),
                (Layout::Csv(_), None, Some(column), None) => Place::Column(usize::from(column)),
                (Layout::Regex(_), None, None, Some(group)) => {
                    if !has_group(group) {
                        mistake(&format!("{at}.group"), "a group of `pattern`", &format!("{group:?}"));
                    }
                    Place::Group(group.clone())
                }
                (Layout::Json, ..) => {
                    mistake(&at, "`pointer` and nothing else for its place", "something else");
                    continue;
                }
                (Layout::Csv(_), ..) => {
                    mistake(&at, "`column` and nothing else for its place", "something else");
                    continue;
                }
                (Layout::Regex(_), ..) => {
                    mistake(&at, "`group` and nothing else for its place", "something else");
                    continue;
                }
            };
            let series = &written.series;
            if !is_series_name(series) {
                let expected = "levels without + # { } and none of them empty, 255 bytes at most";
                mistake(&format!("{at}.series"), expected, &format!("{series:?}"));
            }
            if fields.iter().any(|field| field.series == *series) {
                mistake(&format!("{at}.series"), "a series of its own", "one that another field has");
            }
            fields.push(Field { series: series.clone(), unit: written.unit.clone(), kind: written.kind, place });
        }
        let time = match (&options.time, &layout) {
            (None, _) => None,
            (Some(text), Layout::Json) => {
                let pointer = text.parse().map(Place::Pointer);
                pointer.map_err(|_| mistake("time", "a JSON pointer such as \"/time\"", &format!("{text:?}"))).ok()
            }
            (Some(text), Layout::Csv(_)) => {
                let column = text.parse().map(Place::Column);
                column.map_err(|_| mistake("time", "the number of a column such as \"0\"", &format!("{text:?}"))).ok()
            }
            (Some(text), Layout::Regex(_)) => {
                if !has_group(text) {
                    mistake("time", "a group of `pattern`", &format!("{text:?}"));
                }
                Some(Place::Group(text.clone()))
            }
        };
        right.then_some(Self { layout, fields, time, time_unit: options.time_unit })
    }

    /// The series that the lines feed, below the input's prefix.
    pub fn series(&self) -> Vec<String> {
        self.fields.iter().map(|field| field.series.clone()).collect()
    }
}

fn check_layout(options: &LineOptions, table: &Table<'_>) -> Option<Layout> {
    match (options.format, &options.pattern) {
        (LineFormat::Json, None) => Some(Layout::Json),
        (LineFormat::Csv, None) => match options.separator.as_bytes() {
            [separator] if separator.is_ascii() && *separator != b'"' => Some(Layout::Csv(*separator)),
            _ => {
                table.mistake("separator", "one ASCII character, not a quote", format!("{:?}", options.separator));
                None
            }
        },
        (LineFormat::Regex, Some(pattern)) => match Regex::new(pattern) {
            Ok(regex) => Some(Layout::Regex(Box::new(regex))),
            Err(error) => {
                table.mistake("pattern", "a regular expression", format!("{pattern:?}: {error}"));
                None
            }
        },
        (LineFormat::Regex, None) => {
            table.mistake("format", "`pattern` beside \"regex\"", "none");
            None
        }
        (_, Some(_)) => {
            table.mistake("pattern", "no `pattern`, which is for \"regex\"", "one");
            None
        }
    }
}

/// Turns lines into readings, for one run of an input.
pub struct Reader<'f> {
    fields: &'f Fields,
    series: Vec<Option<SeriesId>>,
    source: String,
}

/// A line, taken apart.
enum Parts<'l> {
    Json(Document<'l>),
    Csv(Vec<String>),
    Regex(regex_lite::Captures<'l>),
}

impl<'f> Reader<'f> {
    /// A reader of lines of `source`, the device or file whose watermark they share; empty for the input's own.
    pub fn new(fields: &'f Fields, source: &str) -> Self {
        Self { fields, series: vec![None; fields.fields.len()], source: source.to_owned() }
    }

    /// Adds the readings of a line to the next delivery; what is no reading is counted: `not_json`, `not_text`, `open_quote`, `no_match`, or for
    /// each field `no_pointer`, `no_column`, `no_group`, `wrong_type`. A line of white space says nothing and is not counted.
    pub fn read(&mut self, line: &[u8], arrival: Timestamp, session: &mut Session) {
        if line.trim_ascii().is_empty() {
            return;
        }
        let fields = self.fields;
        let read = fields.parts(line).and_then(|parts| Ok((parts.time(fields, arrival)?, parts)));
        let (time, parts) = match read {
            Ok(read) => read,
            Err(reason) => return session.reject(reason, 1),
        };
        for (field, slot) in fields.fields.iter().zip(&mut self.series) {
            match parts.value(field) {
                Ok(value) => {
                    let declare = || session.series(&field.series, field.unit.as_deref(), &self.source);
                    let series = *slot.get_or_insert_with(declare);
                    match fields.time {
                        Some(_) => session.read(series, time, value),
                        None => session.read_on_arrival(series, time, value),
                    }
                }
                Err(reason) => session.reject(reason, 1),
            }
        }
    }
}

impl Fields {
    fn parts<'l>(&self, line: &'l [u8]) -> Result<Parts<'l>, Reason> {
        match &self.layout {
            Layout::Json => Document::parse(Format::Json, line).map(Parts::Json),
            Layout::Csv(separator) => columns(line, *separator).map(Parts::Csv),
            Layout::Regex(regex) => {
                let text = std::str::from_utf8(line).map_err(|_| "not_text")?;
                regex.captures(text).map(Parts::Regex).ok_or("no_match")
            }
        }
    }
}

impl Parts<'_> {
    fn text(&self, place: &Place) -> Result<&str, Reason> {
        match (self, place) {
            (Self::Csv(columns), Place::Column(column)) => {
                columns.get(*column).map(|text| text.trim()).ok_or("no_column")
            }
            (Self::Regex(captures), Place::Group(group)) => {
                captures.name(group).map(|found| found.as_str().trim()).ok_or("no_group")
            }
            // The check gives each layout places of its own kind.
            _ => Err("no_pointer"),
        }
    }

    fn value(&self, field: &Field) -> Result<Value, Reason> {
        match (self, &field.place) {
            (Self::Json(document), Place::Pointer(pointer)) => document.value(pointer, field.kind),
            (_, place) => value_of_text(self.text(place)?, field.kind),
        }
    }

    fn time(&self, fields: &Fields, arrival: Timestamp) -> Result<Timestamp, Reason> {
        match (self, &fields.time) {
            (_, None) => Ok(arrival),
            (Self::Json(document), Some(Place::Pointer(pointer))) => document.time(pointer, fields.time_unit),
            (_, Some(place)) => time_of_text(self.text(place).map_err(|_| "no_time")?, fields.time_unit),
        }
    }
}

/// The values of one line (RFC 4180, but with any separator). A quote that is not closed would hide what follows it.
fn columns(line: &[u8], separator: u8) -> Result<Vec<String>, Reason> {
    let text = std::str::from_utf8(line).map_err(|_| "not_text")?;
    let mut reader = csv_core::ReaderBuilder::new().delimiter(separator).build();
    let mut columns = Vec::new();
    // With its line end the line is a whole record, unless a quote is open.
    let record = [text.as_bytes(), b"\n"].concat();
    let mut input = record.as_slice();
    // Unquoting never makes a value longer.
    let mut output = vec![0; record.len()];
    while columns.len() < COLUMNS_MAX {
        let (result, read, written) = reader.read_field(input, &mut output);
        input = input.get(read..).unwrap_or_default();
        match result {
            csv_core::ReadFieldResult::Field { record_end } => {
                let column = output.get(..written).unwrap_or_default();
                columns.push(String::from_utf8_lossy(column).into_owned());
                if record_end {
                    break;
                }
            }
            csv_core::ReadFieldResult::InputEmpty => return Err("open_quote"),
            csv_core::ReadFieldResult::OutputFull => return Err("not_text"),
            csv_core::ReadFieldResult::End => break,
        }
    }
    Ok(columns)
}

/// Cuts a byte stream into lines, at line feeds; a carriage return before one does not belong to the line.
///
/// Holds at most `line_bytes_max` bytes: what is longer is skipped up to its end, and counted.
#[derive(Clone, Debug)]
pub struct Lines {
    line_bytes_max: usize,
    partial: Vec<u8>,
    skipping: bool,
    /// How many lines were longer than allowed, since this was last set to 0.
    pub too_long: u64,
}

impl Lines {
    /// For lines of at most so many bytes.
    pub fn new(line_bytes_max: usize) -> Self {
        Self { line_bytes_max, partial: Vec::new(), skipping: false, too_long: 0 }
    }

    /// As [`Lines::new`], within a line that is being skipped.
    pub fn skipping(line_bytes_max: usize) -> Self {
        Self { skipping: true, ..Self::new(line_bytes_max) }
    }

    /// Takes the next bytes, and calls `each` with every line that they end.
    pub fn take(&mut self, mut bytes: &[u8], mut each: impl FnMut(&[u8])) {
        while let Some(end) = bytes.iter().position(|byte| *byte == b'\n') {
            let (line, rest) = bytes.split_at(end);
            bytes = rest.get(1..).unwrap_or_default();
            if std::mem::take(&mut self.skipping) {
                continue;
            }
            if self.partial.len() + line.len() > self.line_bytes_max {
                self.too_long += 1;
                self.partial.clear();
            } else if self.partial.is_empty() {
                each(without_return(line));
            } else {
                self.partial.extend_from_slice(line);
                each(without_return(&self.partial));
                self.partial.clear();
            }
        }
        if self.skipping {
            return;
        }
        if self.partial.len() + bytes.len() > self.line_bytes_max {
            self.too_long += 1;
            self.partial.clear();
            self.skipping = true;
        } else {
            self.partial.extend_from_slice(bytes);
        }
    }

    /// How many bytes of a line that has no end yet are held.
    pub fn pending(&self) -> usize {
        self.partial.len()
    }

    /// Whether the bytes up to the next line end belong to a line that is too long.
    pub fn is_skipping(&self) -> bool {
        self.skipping
    }
}

fn without_return(line: &[u8]) -> &[u8] {
    line.strip_suffix(b"\r").unwrap_or(line)
}

/// Decodes a byte stream of lines.
#[derive(Clone, Debug)]
pub struct LineDecoder {
    fields: Fields,
    lines: Lines,
    resolution: Duration,
}

impl LineDecoder {
    /// For lines of at most so many bytes. Lines without a time of their own get that of their arrival, to this resolution; zero leaves
    /// it as it is.
    pub fn new(fields: &Fields, line_bytes_max: usize, resolution: Duration) -> Self {
        Self { fields: fields.clone(), lines: Lines::new(line_bytes_max), resolution }
    }
}

impl Decoder for LineDecoder {
    fn take(&mut self, bytes: &[u8], session: &mut Session) {
        let arrival = session.now().floor(self.resolution);
        let mut reader = Reader::new(&self.fields, "");
        self.lines.take(bytes, |line| reader.read(line, arrival, session));
        let too_long = std::mem::take(&mut self.lines.too_long);
        if too_long > 0 {
            session.reject("line_too_long", too_long);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;
    use rtlive_config::document::Document;

    use super::*;
    use crate::rig::session;

    fn fields(text: &str) -> Result<Fields, String> {
        let document = Document::of_text("test.toml", text);
        let table = document.root();
        let checked = LineOptions::read(&table).and_then(|options| Fields::check(&options, &table));
        checked.ok_or_else(|| document.mistakes().to_string())
    }

    /// Series, time and value.
    type Found = (u32, i64, Value);

    /// The readings of the lines, and what was rejected.
    fn read(options: &str, lines: &str) -> (Vec<Found>, BTreeMap<String, u64>) {
        let fields = fields(options).unwrap();
        let mut reader = Reader::new(&fields, "");
        let (mut session, ..) = session(BTreeMap::new());
        let arrival = Timestamp::from_nanos(1);
        lines.lines().for_each(|line| reader.read(line.as_bytes(), arrival, &mut session));
        let batch = session.take(arrival, false).unwrap().batch;
        let readings =
            batch.readings.into_iter().map(|reading| (reading.series.0, reading.time.as_nanos(), reading.value));
        (
            readings.collect(),
            batch.rejected.into_iter().map(|rejected| (rejected.reason.to_string(), rejected.count)).collect(),
        )
    }

    #[test]
    fn a_scale_is_read_by_its_pattern() {
        let options = r#"
            format = "regex"
            pattern = '^(?P<stable>ST|US),(?P<weight>[-+0-9.]+)kg'
            fields = [{ series = "weight", group = "weight", type = "f64", unit = "kg" }, { series = "stable", group = "stable" }]
        "#;
        let (readings, rejected) = read(options, "ST,+12.5kg\ngarbage\nUS,--kg\n");
        assert_eq!(
            readings,
            [(0, 1, Value::Float(12.5)), (1, 1, Value::Text("ST".into())), (1, 1, Value::Text("US".into()))]
        );
        assert_eq!(rejected, BTreeMap::from([("no_match".into(), 1), ("wrong_type".into(), 1)]));
    }

    #[test]
    fn columns_are_counted_from_zero_and_may_be_quoted() {
        let options = r#"
            format = "csv"
            separator = ";"
            time = "0"
            time_unit = "s"
            fields = [{ series = "a", column = 1 }, { series = "b", column = 2 }]
        "#;
        let (readings, rejected) = read(options, "1;20;\"x;\"\"y\"\n2;21.5\nlate;1;2\n");
        let second = 1_000_000_000;
        assert_eq!(
            readings,
            [
                (0, second, Value::Int(20)),
                (1, second, Value::Text("x;\"y".into())),
                (0, 2 * second, Value::Float(21.5))
            ]
        );
        assert_eq!(rejected, BTreeMap::from([("no_column".into(), 1), ("bad_time".into(), 1)]));
    }

    #[test]
    fn a_quote_that_is_not_closed_is_no_value() {
        let options = "format = 'csv'\nfields = [{ series = 'a', column = 0 }]";
        let (readings, rejected) = read(options, "\"1\",2\n\"3,4\n5,\"6\n\"7\"\"\n\"\"\"8\"\n9,\n");
        let texts = [Value::Int(1), Value::Text("\"8".into()), Value::Int(9)].map(|value| (0, 1, value));
        assert_eq!((readings.as_slice(), rejected), (&texts[..], BTreeMap::from([("open_quote".into(), 3)])));
    }

    #[test]
    fn mistakes_are_named() {
        for (options, mistake) in [
            ("format = 'regex'\nfields = [{ series = 'a', group = 'g' }]", "pattern"),
            ("format = 'regex'\npattern = '('\nfields = [{ series = 'a', group = 'g' }]", "a regular expression"),
            ("format = 'regex'\npattern = 'a'\nfields = [{ series = 'a', group = 'g' }]", "a group of `pattern`"),
            ("format = 'json'\nfields = [{ series = 'a', group = 'g' }]", "`pointer`"),
            ("format = 'csv'\nseparator = ', '\nfields = [{ series = 'a', column = 0 }]", "one ASCII character"),
            ("format = 'csv'\nfields = [{ series = 'a#', column = 0 }]", "a#"),
            (
                "format = 'csv'\nfields = [{ series = 'a', column = 0 }, { series = 'a', column = 1 }]",
                "a series of its own",
            ),
            ("format = 'json'\nfields = []", "at least one"),
        ] {
            let mistakes = fields(options).err().unwrap();
            assert!(mistakes.contains(mistake), "{options}: {mistakes}");
        }
    }

    proptest! {
        #[test]
        fn lines_do_not_depend_on_where_the_stream_is_cut(
            text in "[ab\r\n]{0,200}",
            cuts in prop::collection::vec(1_usize..20, 1..40),
        ) {
            let max = 12;
            let mut lines = Lines::new(max);
            let mut found = Vec::new();
            let mut rest = text.as_bytes();
            for cut in cuts.iter().cycle() {
                if rest.is_empty() {
                    break;
                }
                let (part, after) = rest.split_at(rest.len().min(*cut));
                rest = after;
                lines.take(part, |line| found.push(line.to_vec()));
                prop_assert!(lines.pending() <= max);
            }
            let ended: Vec<&str> = text.split_inclusive('\n').filter(|line| line.ends_with('\n')).collect();
            let short = ended.iter().map(|line| &line[..line.len() - 1]).filter(|line| line.len() <= max);
            let expected: Vec<Vec<u8>> = short.map(|line| line.strip_suffix('\r').unwrap_or(line).into()).collect();
            prop_assert_eq!(found, expected);
        }

        #[test]
        fn any_line_gives_an_answer(line in prop::collection::vec(any::<u8>(), 0..100)) {
            for separator in [b',', b';', b'\t'] {
                let _ = columns(&line, separator);
            }
        }
    }
}
