//! Frames that must be refused.

use ciborium::Value;
use rtlive_core::frame::open;

use super::golden::{from_hex, golden, to_hex};
use super::samples::samples;
use super::sealed;

fn again(mut frame: Vec<u8>) -> Vec<u8> {
    let end = frame.len() - 4;
    let checksum = crc32fast::hash(&frame[..end]);
    frame[end..].copy_from_slice(&checksum.to_be_bytes());
    frame
}

/// Frames that must be refused, with a word for each.
fn invalid() -> Vec<(&'static str, Vec<u8>)> {
    // The smallest frame is stored without compression, so that its contents can be altered by hand.
    let frame = sealed(&samples()[0]);
    let replaced = |from: &[u8], to: &[u8]| {
        let at = frame.windows(from.len()).position(|window| window == from).unwrap();
        again([&frame[..at], to, &frame[at + from.len()..]].concat())
    };
    let mut checksum = frame.clone();
    *checksum.last_mut().unwrap() ^= 1;
    vec![
        ("empty", vec![]),
        ("truncated", frame[..frame.len() - 1].to_vec()),
        ("trailing", [&frame[..], &[0]].concat()),
        ("checksum", checksum),
        ("version_2", replaced(&[0x84, 0xa8, 0x00, 0x01], &[0x84, 0xa8, 0x00, 0x02])),
        ("long_integer", replaced(&[0x05, 0x11], &[0x05, 0x18, 0x11])),
        ("keys_out_of_order", replaced(&[0x05, 0x11, 0x06, 0x01], &[0x06, 0x01, 0x05, 0x11])),
        ("two_records_said_one_there", replaced(&[0x06, 0x01], &[0x06, 0x02])),
        ("no_records_said", replaced(&[0x06, 0x01], &[0x06, 0x00])),
        ("critical_key", insert_critical(&replaced(&[0xa8, 0x00, 0x01], &[0xa9, 0x00, 0x01]))),
        ("series_not_in_table", replaced(&[0x01, 0x01, 0x00, 0x01, 0x80], &[0x01, 0x01, 0x02, 0x01, 0x80])),
        ("unknown_coding", replaced(&[0x00, 0x01, 0x00, 0xae, 0x03], &[0x07, 0x01, 0x00, 0xae, 0x03])),
    ]
}

/// Puts a critical key after the last key of the smallest frame's header.
fn insert_critical(frame: &[u8]) -> Vec<u8> {
    let contents = frame.windows(2).position(|window| window == [0x80, 0x58]).unwrap() + 1;
    again([&frame[..contents], &[0x20, 0x00], &frame[contents..]].concat())
}

/// The items of a frame, which `change` makes wrong; the checksum is right.
fn changed(change: impl FnOnce(&mut Parts)) -> Vec<u8> {
    let mut parts = Parts::right();
    change(&mut parts);
    parts.frame()
}

/// A frame that is written by hand: two readings of one series, a decimal place each.
struct Parts {
    header: Vec<(i64, Value)>,
    /// Contents that are not those below.
    contents: Option<Vec<u8>>,
    series: Value,
    compute: Vec<Value>,
    kind: u64,
    rows: u64,
    block: Value,
    extension: Vec<(i64, Value)>,
}

/// The columns of the two readings, each by its name below.
const BLOCK: [(&str, &[u8]); 6] = [
    ("rows", &[2]),
    ("series", &[1, 0]),
    // Two runs; the first time, the unit, one clock; ticks 0 and 1.
    ("times", &[2, 0, 1, 0, 0, 0, 2]),
    // A column for each series; floats; decimals with one place and no exceptions; 5 and 6 tenths.
    ("values", &[0, 0, 0, 1, 0, 0, 10, 2]),
    ("states", &[0]),
    ("end", &[]),
];

impl Parts {
    fn right() -> Self {
        let text = |text: &str| Value::Text(text.into());
        let header = vec![
            (0, 1.into()),
            (1, text("gw-042")),
            (2, 7.into()),
            (3, text("raw")),
            (5, 17.into()),
            (6, 2.into()),
            (7, 0.into()),
            (8, 1.into()),
        ];
        let mut parts = Self {
            header,
            contents: None,
            series: Value::Array(vec![Value::Array(vec![text("boiler/temperature")])]),
            compute: Vec::new(),
            kind: 0,
            rows: 2,
            block: Value::Null,
            extension: Vec::new(),
        };
        parts.column("end", &[]);
        parts
    }

    /// Another column in place of one of the block's.
    fn column(&mut self, name: &str, bytes: &[u8]) {
        let columns = BLOCK.map(|(column, right)| if column == name { bytes } else { right });
        self.block = Value::Bytes(columns.concat());
    }

    /// Another value of a key of the header, or none.
    fn key(&mut self, key: i64, value: Option<Value>) {
        self.header.retain(|(known, _)| *known != key);
        if let Some(value) = value {
            let place = self.header.iter().position(|(known, _)| *known > key).unwrap_or(self.header.len());
            self.header.insert(place, (key, value));
        }
    }

    fn contents(&self) -> Vec<u8> {
        let section = Value::Array(vec![self.kind.into(), self.rows.into(), self.block.clone()]);
        let mut map = vec![(0.into(), self.series.clone())];
        if !self.compute.is_empty() {
            map.push((1.into(), Value::Array(self.compute.clone())));
        }
        map.push((2.into(), Value::Array(vec![section])));
        encoded(&Value::Map(map))
    }

    fn frame(self) -> Vec<u8> {
        let map =
            |pairs: Vec<(i64, Value)>| Value::Map(pairs.into_iter().map(|(key, value)| (key.into(), value)).collect());
        let contents = self.contents.clone().unwrap_or_else(|| self.contents());
        let items = vec![map(self.header), Value::Bytes(contents), map(self.extension), Value::Bytes(vec![0; 4])];
        again(encoded(&Value::Array(items)))
    }
}

fn encoded(value: &Value) -> Vec<u8> {
    let mut bytes = Vec::new();
    ciborium::into_writer(value, &mut bytes).unwrap();
    bytes
}

#[test]
fn the_frame_that_is_made_wrong_is_right() {
    assert_eq!(open(&changed(|_| {})).unwrap().1.records.len(), 2);
}

/// Frames whose checksum is right and whose contents are not, one for each part of the format.
fn malformed() -> Vec<(&'static str, Vec<u8>)> {
    let column = |name: &'static str, bytes: &[u8]| changed(|parts| parts.column(name, bytes));
    let values = |bytes: &[u8]| column("values", bytes);
    let key = |key: i64, value: Option<Value>| changed(|parts| parts.key(key, value));
    let packed = zstd::bulk::compress(&Parts::right().contents(), 3).unwrap();
    let zstd = |length: u64, packed: Vec<u8>| {
        changed(|parts| {
            parts.key(9, Some(1.into()));
            parts.key(10, Some(length.into()));
            parts.contents = Some(packed);
        })
    };
    let length = Parts::right().contents().len() as u64;
    assert!(open(&zstd(length, packed.clone())).is_ok());
    let mut cut_in_half = packed.clone();
    cut_in_half.truncate(packed.len() / 2);
    let text = |text: &str| Value::Text(text.into());
    vec![
        // The header.
        ("no_agent", key(1, None)),
        ("no_epoch", key(2, None)),
        ("agent_is_no_text", key(1, Some(5.into()))),
        ("first_number_below_zero", key(5, Some((-1).into()))),
        ("more_records_than_a_frame_holds", key(6, Some(65_537.into()))),
        (
            "unknown_codec",
            changed(|parts| {
                parts.key(9, Some(2.into()));
                parts.key(10, Some(length.into()));
            }),
        ),
        ("critical_key_after_the_contents", changed(|parts| parts.extension.push((-1, 0.into())))),
        // The compression.
        ("zstd_is_cut_off", zstd(length, cut_in_half)),
        ("zstd_holds_less_than_said", zstd(length + 1, packed.clone())),
        ("zstd_holds_more_than_said", zstd(length - 1, packed.clone())),
        ("bytes_after_zstd", zstd(length, [&packed[..], &[0]].concat())),
        ("contents_of_more_than_16_mib", zstd((16 << 20) + 1, packed)),
        // The contents.
        ("contents_are_no_map", changed(|parts| parts.contents = Some(vec![0x80]))),
        ("contents_without_sections", changed(|parts| parts.contents = Some(vec![0xa0]))),
        ("unknown_kind_of_section", changed(|parts| parts.kind = 3)),
        ("section_with_fewer_rows", changed(|parts| parts.rows = 1)),
        ("block_is_no_byte_string", changed(|parts| parts.block = text("x"))),
        ("series_without_a_name", changed(|parts| parts.series = Value::Array(vec![Value::Array(vec![])]))),
        ("table_without_series", changed(|parts| parts.series = Value::Array(vec![]))),
        // The rows.
        ("rows_in_a_longer_form", column("rows", &[0x82, 0])),
        ("rows_of_more_than_64_bits", column("rows", &[0xff; 11])),
        ("fewer_rows_than_said", column("rows", &[1])),
        ("no_series", column("series", &[0])),
        ("more_series_than_rows", column("series", &[3, 0, 0, 2])),
        ("runs_that_are_too_long", column("times", &[1, 6, 0, 1, 0, 0])),
        ("runs_that_are_too_short", column("times", &[1, 2, 0, 1, 0, 0])),
        ("unknown_layout_of_times", column("times", &[2, 0, 1, 2, 0, 0, 2])),
        // Integers.
        ("unknown_coding_of_integers", column("times", &[2, 0, 1, 0, 6, 0, 2])),
        ("places_of_a_dictionary_that_are_not_there", column("times", &[2, 0, 1, 0, 7, 0, 1, 0, 0, 0, 2])),
        ("more_different_values_than_values", column("times", &[2, 0, 1, 0, 7, 0, 3, 0, 0, 2, 0, 0, 2])),
        ("dictionary_of_dictionaries", column("times", &[2, 0, 1, 0, 7, 0, 2, 7, 0, 1, 0, 0, 0, 0])),
        ("skip_that_does_not_move", column("times", &[2, 0, 1, 0, 4, 0, 1, 0, 1, 0, 1, 0])),
        ("more_skips_than_values", column("times", &[2, 0, 1, 0, 4, 0, 1, 0, 2, 1, 1, 0, 1, 0])),
        ("unknown_model_of_residuals", column("times", &[2, 0, 1, 0, 18, 0, 2, 0, 0])),
        ("code_longer_than_the_block", column("times", &[2, 0, 1, 0, 18, 0, 3, 1, 127])),
        ("tree_that_is_too_deep", column("times", &[2, 0, 1, 0, 18, 0, 3, 10, 0])),
        // Values.
        ("unknown_layout_of_values", values(&[3, 0, 0, 1, 0, 0, 10, 2])),
        ("related_to_a_function_that_is_not_there", values(&[2, 1, 0, 1, 0, 0, 10, 2])),
        ("unknown_type_of_values", values(&[0, 6])),
        ("readings_without_a_value", values(&[0, 4])),
        ("mixed_runs_of_too_few_values", values(&[0, 5, 1, 0, 1, 0, 1, 0, 10])),
        ("unknown_coding_of_floats", values(&[0, 0, 3])),
        ("exponent_above_22", values(&[0, 0, 0, 23, 0, 0, 10, 2])),
        ("more_exceptions_than_values", values(&[0, 0, 0, 1, 3, 0, 0, 2, 0, 0, 2, 0, 10, 2])),
        ("exception_behind_the_values", values(&[0, 0, 0, 1, 1, 4, 2, 0, 10, 2])),
        ("bool_that_is_neither", values(&[0, 2, 0, 0, 4])),
        ("text_that_is_not_utf_8", values(&[0, 3, 1, 1, 0xff, 0, 0, 0])),
        ("text_of_more_than_64_kib", values(&[0, 3, 1, 0x81, 0x80, 0x04])),
        ("text_that_is_not_in_the_list", values(&[0, 3, 1, 1, b'a', 0, 2, 0])),
        ("values_that_end_early", values(&[0, 0, 0, 1, 0, 0])),
        // States.
        ("states_of_too_few_rows", column("states", &[1, 0, 1])),
        ("states_of_too_many_rows", column("states", &[1, 0, 3])),
        ("unknown_quality", column("states", &[1, 3, 2])),
        ("unknown_check", column("states", &[1, 88, 2])),
        ("bytes_after_the_block", column("end", &[0])),
    ]
}

#[test]
fn golden_invalid_frames_are_refused() {
    refused("invalid", &invalid());
    refused("malformed", &malformed());
}

/// Frames by name in one golden file, and what is said of them in another.
fn refused(name: &str, frames: &[(&str, Vec<u8>)]) {
    let made = || {
        frames
            .iter()
            .fold(String::new(), |text, (name, frame)| format!("{text}{name} {}\n", to_hex(frame).replace('\n', "")))
    };
    let errors = |text: &str| {
        text.lines().fold(String::new(), |all, line| {
            let (name, hex) = line.split_once(' ').unwrap();
            let error = open(&from_hex(hex)).expect_err(name);
            let cause = std::error::Error::source(&error).map_or(String::new(), |cause| format!(": {cause}"));
            format!("{all}{name}: {error}{cause}\n")
        })
    };
    let text = golden(&format!("{name}.txt"), made);
    assert_eq!(errors(&text), golden(&format!("{name}.errors.txt"), || errors(&text)));
}
