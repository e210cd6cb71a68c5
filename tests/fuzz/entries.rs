//! Where bytes from outside come into the core: each entry takes any bytes, and panics where a promise is broken.

use rtlive_core::columns::{decode_readings, encode_readings};
use rtlive_core::expr::Expression;
use rtlive_core::frame::{CHECKSUM_BYTES, Density, open, read_header, seal};
use rtlive_core::json::parse_reading;
use rtlive_core::message::{Item, MessageReader, Reassembler, split};
use rtlive_core::plan::Function;
use rtlive_core::selector::Selector;
use rtlive_core::template::Template;

/// The most rows of a block of columns.
const ROWS_MAX: usize = 4096;

/// An entry by its name.
pub(crate) type Entry = (&'static str, fn(&[u8]));

/// For those who run them all.
pub(crate) const ALL: [Entry; 5] = [
    ("frame", frame),
    ("contents", contents),
    ("messages", messages),
    ("reading_line", reading_line),
    ("texts", texts),
];

/// A frame: what can be opened can be sealed again, with as many records under the same numbers.
pub(crate) fn frame(bytes: &[u8]) {
    let header = read_header(bytes);
    let Ok((known, contents)) = open(bytes) else { return };
    assert_eq!(header, Ok((known.clone(), bytes.len())));
    for density in [Density::Fast, Density::Normal] {
        let again = seal(&known.origin, known.first, &contents.records, &contents.series, &contents.compute, density);
        let again = again.expect("what was opened can be sealed");
        let (header, records) = open(&again).expect("what was sealed can be opened");
        assert_eq!((header.first, header.count), (known.first, known.count));
        assert_eq!(records.records.len(), contents.records.len());
    }
}

/// The bytes as a frame without its checksum, and as a block of columns: altered bytes reach what the checksum guards.
pub(crate) fn contents(bytes: &[u8]) {
    let cut = &bytes[..bytes.len().saturating_sub(CHECKSUM_BYTES)];
    frame(&[cut, &crc32fast::hash(cut).to_be_bytes()].concat());
    if let Ok(readings) = decode_readings(bytes, ROWS_MAX) {
        assert!(readings.len() <= ROWS_MAX);
        let mut again = Vec::new();
        encode_readings(&readings.iter().collect::<Vec<_>>(), &mut again);
        assert_eq!(decode_readings(&again, ROWS_MAX).map(|readings| readings.len()), Ok(readings.len()));
    }
}

/// A stream of messages: the same items whatever the pieces, and parts that come together are a frame.
pub(crate) fn messages(bytes: &[u8]) {
    let items = |piece: usize| {
        let mut reader = MessageReader::default();
        let mut items = Vec::new();
        for piece in bytes.chunks(piece) {
            reader.feed(piece);
            items.extend(std::iter::from_fn(|| reader.next_item()));
        }
        items.extend(std::iter::from_fn(|| reader.finish()));
        items.into_iter().map(|item| item.map_err(|error| (error.from, error.to))).collect::<Vec<_>>()
    };
    let whole = items(bytes.len().max(1));
    assert_eq!(whole, items(7));
    let mut reassembler = Reassembler::default();
    for item in whole {
        if let Ok(Item::Message(message)) = item
            && let Ok(Some(whole)) = reassembler.take(&message)
        {
            let mut again = Reassembler::default();
            let parts = split(&whole.frame, whole.historical, 64).filter_map(|part| again.take(&part).ok().flatten());
            assert!(parts.map(|part| part.frame).eq([whole.frame.clone()]));
        }
    }
}

/// A line of JSON.
pub(crate) fn reading_line(bytes: &[u8]) {
    let _ = parse_reading(bytes);
}

/// Texts of a configuration: what is taken is written as it was read.
pub(crate) fn texts(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let _ = Expression::parse(text, &["t", "pump"]);
    let _ = text.parse::<Function>();
    if let Ok(template) = text.parse::<Template>() {
        assert_eq!(template.to_string().parse(), Ok(template));
    }
    if let Ok(selector) = text.parse::<Selector>() {
        assert!(selector.covers(&selector) && selector.overlaps(&selector), "{text:?}");
    }
}
