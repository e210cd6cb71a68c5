//! Frames as the rest of the program sees them: round trips, and every way in which bytes can be wrong.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod samples;

use proptest::prelude::*;
use rtlive_core::frame::{self, Codec, Density, FrameError, Origin, SealError, open, read_header, seal};
use rtlive_core::message::{Item, Message, MessageReader, Reassembler, split};
use rtlive_core::plan::Function;
use rtlive_core::reading::{ClockState, Quality, Reading, SeriesId, SeriesInfo, Value};
use rtlive_core::record::{Aggregate, Epoch, Record};
use rtlive_core::time::Timestamp;
use samples::{Sample, samples};

fn sealed(sample: &Sample, density: Density) -> Vec<u8> {
    seal(&sample.origin, sample.first, &sample.records, &sample.series, &sample.compute, density).unwrap()
}

/// The names that records' series stand for, in place of their numbers.
fn named(records: &[Record], series: &[SeriesInfo]) -> Vec<(Option<SeriesInfo>, String)> {
    let one = |record: &Record| match record {
        Record::Reading(reading) => {
            let bits = match &reading.value {
                Value::Float(value) => format!("{:016x}", value.to_bits()),
                other => format!("{other:?}"),
            };
            let plain = Reading { series: SeriesId(0), value: Value::Bool(false), ..reading.clone() };
            (Some(series[reading.series.index()].clone()), format!("{plain:?} {bits}"))
        }
        Record::Aggregate(aggregate) => {
            let plain = Aggregate { series: SeriesId(0), ..aggregate.clone() };
            (Some(series[aggregate.series.index()].clone()), format!("{plain:?}"))
        }
        other => (None, format!("{other:?}")),
    };
    records.iter().map(one).collect()
}

#[test]
fn records_come_back_at_every_density() {
    for sample in samples() {
        for density in [Density::Fast, Density::Normal, Density::Dense] {
            let bytes = sealed(&sample, density);
            assert_eq!(bytes, sealed(&sample, density), "the same records give the same bytes");
            let (header, contents) = open(&bytes).unwrap();
            assert_eq!(header.origin, sample.origin);
            assert_eq!((header.first, header.count as usize), (sample.first, sample.records.len()));
            assert_eq!(read_header(&bytes), Ok((header, bytes.len())));
            assert_eq!(
                named(&contents.records, &contents.series),
                named(&sample.records, &sample.series),
                "{}",
                sample.name
            );
        }
    }
}

#[test]
fn the_header_says_the_span_of_event_time() {
    for sample in samples() {
        let (header, contents) = open(&sealed(&sample, sample.density)).unwrap();
        let spans: Vec<_> = contents.records.iter().filter_map(Record::span).collect();
        let span = spans.iter().map(|span| span.0).min().zip(spans.iter().map(|span| span.1).max());
        assert_eq!(header.span, span, "{}", sample.name);
    }
}

#[test]
fn every_truncation_is_refused() {
    for sample in samples() {
        let bytes = sealed(&sample, sample.density);
        for length in 0..bytes.len() {
            assert_eq!(open(&bytes[..length]), Err(FrameError::Truncated(length)), "{} at {length}", sample.name);
        }
        let longer = [&bytes[..], &[0]].concat();
        let trailing = FrameError::Trailing { expected: bytes.len(), found: bytes.len() + 1 };
        assert_eq!(open(&longer), Err(trailing));
        assert_eq!(read_header(&longer).unwrap().1, bytes.len());
    }
}

#[test]
fn every_flipped_bit_is_refused() {
    for sample in samples() {
        let mut bytes = sealed(&sample, sample.density);
        for bit in 0..bytes.len() * 8 {
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert!(open(&bytes).is_err() && read_header(&bytes).is_err(), "{} with bit {bit} flipped", sample.name);
            bytes[bit / 8] ^= 1 << (bit % 8);
        }
    }
}

/// As someone who computes the checksum anew: what the checksum would have caught must be refused or make sense, and never panic.
#[test]
fn every_flipped_bit_under_a_right_checksum_ends_in_a_frame_or_an_error() {
    for sample in samples() {
        let bytes = sealed(&sample, sample.density);
        for bit in 0..(bytes.len() - 4) * 8 {
            let mut altered = bytes.clone();
            altered[bit / 8] ^= 1 << (bit % 8);
            let _ = open(&again(altered));
        }
    }
}

/// The same for the contents, below the compression.
#[test]
fn every_flipped_bit_of_stored_contents_ends_in_a_frame_or_an_error() {
    for sample in samples() {
        let (header, packed) = parts(&sealed(&sample, sample.density));
        let contents = unpacked(&header, &packed);
        for bit in 0..contents.len() * 8 {
            let mut altered = contents.clone();
            altered[bit / 8] ^= 1 << (bit % 8);
            let frame = stored(&header, &altered);
            if let Ok((header, contents)) = open(&frame) {
                assert_eq!(contents.records.len(), header.count as usize);
            }
        }
        assert!(open(&stored(&header, &contents)).is_ok(), "{}", sample.name);
        for length in 0..contents.len() {
            assert!(open(&stored(&header, &contents[..length])).is_err(), "{} at {length}", sample.name);
        }
    }
}

/// The frame with its last four bytes made right.
fn again(mut frame: Vec<u8>) -> Vec<u8> {
    let end = frame.len() - 4;
    let checksum = crc32fast::hash(&frame[..end]);
    frame[end..].copy_from_slice(&checksum.to_be_bytes());
    frame
}

/// The header's map without its codec and length, as pairs of encoded key and value, and the packed contents.
fn parts(frame: &[u8]) -> (Vec<(ciborium::Value, ciborium::Value)>, Vec<u8>) {
    let value: ciborium::Value = ciborium::from_reader(frame).unwrap();
    let mut items = value.into_array().unwrap().into_iter();
    let header = items.next().unwrap().into_map().unwrap();
    (header, items.next().unwrap().into_bytes().unwrap())
}

fn integer(value: &ciborium::Value) -> i128 {
    value.as_integer().unwrap().into()
}

fn unpacked(header: &[(ciborium::Value, ciborium::Value)], packed: &[u8]) -> Vec<u8> {
    match header.iter().find(|(key, _)| integer(key) == 10) {
        Some((_, bytes)) => zstd::bulk::decompress(packed, integer(bytes) as usize).unwrap(),
        None => packed.to_vec(),
    }
}

/// A frame of these contents without compression, with other keys in its header or after the contents.
fn built(header: &[(ciborium::Value, ciborium::Value)], contents: &[u8], after: &[(i64, ciborium::Value)]) -> Vec<u8> {
    let map = |pairs: Vec<(ciborium::Value, ciborium::Value)>| ciborium::Value::Map(pairs);
    let after = after.iter().map(|(key, value)| (ciborium::Value::from(*key), value.clone())).collect();
    let items = vec![
        map(header.to_vec()),
        ciborium::Value::Bytes(contents.to_vec()),
        map(after),
        ciborium::Value::Bytes(vec![0; 4]),
    ];
    let mut frame = Vec::new();
    ciborium::into_writer(&ciborium::Value::Array(items), &mut frame).unwrap();
    again(frame)
}

fn stored(header: &[(ciborium::Value, ciborium::Value)], contents: &[u8]) -> Vec<u8> {
    let header: Vec<_> = header.iter().filter(|(key, _)| !matches!(integer(key), 9 | 10)).cloned().collect();
    built(&header, contents, &[])
}

#[test]
fn unknown_keys_are_passed_over_or_respected() {
    let sample = samples().remove(0);
    let frame = sealed(&sample, sample.density);
    let (header, packed) = parts(&frame);
    assert_eq!(built(&header, &packed, &[]), frame, "the envelope is what another encoder makes of it");

    let odd = ciborium::Value::Array(vec![ciborium::Value::Text("x".into()), ciborium::Value::Float(0.1)]);
    let with = |key: i64| [&header[..], &[(key.into(), odd.clone())]].concat();
    let records = open(&frame).unwrap().1;
    assert_eq!(open(&built(&with(99), &packed, &[])).unwrap().1, records, "not critical");
    assert_eq!(open(&built(&header, &packed, &[(5, odd.clone())])).unwrap().1, records, "a signature, say");

    for critical in [built(&with(-1), &packed, &[]), built(&header, &packed, &[(-1, odd.clone())])] {
        assert_eq!(open(&critical), Err(FrameError::Critical(vec![-1])));
        let (known, length) = read_header(&critical).unwrap();
        assert_eq!((known.first, known.critical, length), (sample.first, vec![-1], critical.len()));
    }
}

#[test]
fn other_versions_and_codecs_are_named() {
    let sample = samples().remove(1);
    let (header, packed) = parts(&sealed(&sample, sample.density));
    let with = |key: i128, value: u64| {
        let replaced = |(k, v): &(ciborium::Value, ciborium::Value)| {
            (k.clone(), if integer(k) == key { value.into() } else { v.clone() })
        };
        built(&header.iter().map(replaced).collect::<Vec<_>>(), &packed, &[])
    };
    assert_eq!(open(&with(0, 2)), Err(FrameError::Version(2)));
    assert_eq!(open(&with(9, 7)), Err(FrameError::Codec(7)));
    assert_eq!(read_header(&with(9, 7)).unwrap().0.codec, Codec::Unknown(7));
    assert!(matches!(open(&with(10, 1)), Err(FrameError::Unpack { expected: 1, .. })));
    assert!(matches!(open(&with(10, 1 << 40)), Err(FrameError::TooLarge { what: "bytes of contents", .. })));
    assert!(matches!(open(&with(6, 1 << 20)), Err(FrameError::TooLarge { what: "records", .. })));
    assert!(matches!(
        open(&with(6, 1)),
        Err(FrameError::Inconsistent { .. } | FrameError::Columns { .. } | FrameError::Contents { .. })
    ));
}

#[test]
fn what_cannot_be_sealed_is_refused() {
    let origin = samples().remove(0).origin;
    let reading = |series: u32, text: usize| {
        Record::Reading(Reading {
            series: SeriesId(series),
            time: Timestamp::EPOCH,
            value: Value::Text("x".repeat(text).into()),
            quality: Quality::Good,
            check: None,
            clock: ClockState::Synced,
        })
    };
    let series = [SeriesInfo { name: "a/b".into(), unit: None }];
    let seal = |first: u64, records: &[Record], series: &[SeriesInfo]| {
        seal(&origin, first, records, series, &[Function::Count], Density::Fast)
    };
    assert_eq!(seal(1, &[], &series), Err(SealError::Empty));
    assert_eq!(seal(1, &[reading(1, 1)], &series), Err(SealError::Series(1)));
    assert!(seal(u64::MAX, &[reading(0, 1)], &series).is_ok());
    assert_eq!(seal(u64::MAX, &[reading(0, 1), reading(0, 1)], &series), Err(SealError::Numbers(u64::MAX)));
    assert!(seal(1, &[reading(0, frame::TEXT_BYTES_MAX)], &series).is_ok());
    assert!(matches!(seal(1, &[reading(0, frame::TEXT_BYTES_MAX + 1)], &series), Err(SealError::TooLarge { .. })));
    let many = vec![reading(0, 0); frame::RECORDS_MAX + 1];
    assert!(matches!(seal(1, &many, &series), Err(SealError::TooLarge { what: "records", .. })));
    assert!(seal(1, &many[1..], &series).is_ok());
    let long = [SeriesInfo { name: "x".repeat(256).into(), unit: None }];
    assert!(matches!(seal(1, &[reading(0, 1)], &long), Err(SealError::TooLarge { .. })));
}

#[test]
fn a_small_frame_cannot_make_large_contents() {
    // 16 MiB of zeros in a few hundred bytes: the header's bound holds, and the length must be right.
    let sample = samples().remove(1);
    let (header, _) = parts(&sealed(&sample, sample.density));
    let bomb = zstd::bulk::compress(&vec![0; 64 << 20], 3).unwrap();
    assert!(matches!(open(&built(&header, &bomb, &[])), Err(FrameError::Unpack { .. })));
}

#[test]
fn frames_follow_each_other_without_anything_between() {
    let frames: Vec<Vec<u8>> = samples().iter().map(|sample| sealed(sample, Density::Normal)).collect();
    let sequence = frames.concat();
    let mut rest = &sequence[..];
    for frame in &frames {
        let (_, length) = read_header(rest).unwrap();
        assert_eq!(&rest[..length], frame);
        rest = &rest[length..];
    }
    assert!(rest.is_empty());
}

/// What the reader makes of a stream that comes in pieces of `piece` bytes.
fn read_stream(stream: &[u8], piece: usize) -> Vec<Result<Item, (u64, u64)>> {
    let mut reader = MessageReader::default();
    let mut items = Vec::new();
    for piece in stream.chunks(piece) {
        reader.feed(piece);
        while let Some(item) = reader.next_item() {
            items.push(item.map_err(|error| (error.from, error.to)));
        }
    }
    while let Some(item) = reader.finish() {
        items.push(item.map_err(|error| (error.from, error.to)));
    }
    items
}

#[test]
fn a_stream_of_messages_and_json_is_taken_apart_at_any_piece_size() {
    let frames: Vec<Vec<u8>> = samples().iter().map(|sample| sealed(sample, Density::Normal)).collect();
    let mut stream = Vec::new();
    let mut expected = Vec::new();
    for (place, frame) in frames.iter().enumerate() {
        for message in split(frame, place % 2 == 0, 1024) {
            stream.extend_from_slice(&message);
            expected.push(Ok(Item::Message(message)));
        }
        let json = [&br#"{"agent":"gw","x":["\"}",{}]}"#[..], b"[{\"value\":1.5},{\"\xc3\xa4\":null}]"][place % 2];
        stream.extend_from_slice(json);
        stream.extend_from_slice(if place % 3 == 0 { b"\n" } else { b"" });
        expected.push(Ok(Item::Json(json.to_vec())));
    }
    for piece in [1, 2, 3, 7, 64, 1000, stream.len()] {
        assert_eq!(read_stream(&stream, piece), expected, "in pieces of {piece}");
    }
}

#[test]
fn after_noise_the_reader_goes_on_and_says_where() {
    let frame = sealed(&samples()[0], Density::Normal);
    let message = split(&frame, false, usize::MAX).next().unwrap();
    let json = b"{\"agent\":\"gw\"}".to_vec();
    let cut = &message[..message.len() / 2];
    for noise in [&b"noise"[..], &[0xff; 40], &[0xd9, 0xd9], &[0xd9, 0xd9, 0xf7, 0x86, 0x02], b"}{", b"{\"cut", cut] {
        let stream = [&message[..], noise, &message, &json].concat();
        let (from, to) = (message.len() as u64, (message.len() + noise.len()) as u64);
        let expected = vec![
            Ok(Item::Message(message.clone())),
            Err((from, to)),
            Ok(Item::Message(message.clone())),
            Ok(Item::Json(json.clone())),
        ];
        for piece in [1, 5, stream.len()] {
            assert_eq!(read_stream(&stream, piece), expected, "{noise:?} in pieces of {piece}");
        }
    }
    for cut in 1..message.len() {
        assert_eq!(read_stream(&message[..cut], 100), vec![Err((0, cut as u64))]);
    }
}

#[test]
fn parts_become_the_frame_again() {
    let sample = samples().into_iter().max_by_key(|sample| sample.records.len()).unwrap();
    let frame = sealed(&sample, sample.density);
    let mut reassembler = Reassembler::default();
    let messages: Vec<Vec<u8>> = split(&frame, true, 1024).collect();
    let whole: Vec<_> = messages.iter().rev().filter_map(|message| reassembler.take(message).unwrap()).collect();
    assert_eq!(whole.len(), 1);
    assert_eq!((&whole[0].frame, whole[0].historical), (&frame, true));
}

fn any_record() -> impl Strategy<Value = Record> {
    let value = prop_oneof![
        any::<u64>().prop_map(|bits| Value::Float(f64::from_bits(bits))),
        (-900_i32..900).prop_map(|value| Value::Float(f64::from(value) / 10.0)),
        any::<i64>().prop_map(Value::Int),
        any::<bool>().prop_map(Value::Bool),
        "\\PC{0,5}".prop_map(|text| Value::Text(text.into())),
    ];
    (0_u32..5, any::<i64>(), value, prop::bool::ANY).prop_map(|(series, nanos, value, unsynced)| {
        let clock = if unsynced { ClockState::Unsynced } else { ClockState::Synced };
        let (quality, check) = (Quality::Good, None);
        Record::Reading(Reading {
            series: SeriesId(series),
            time: Timestamp::from_nanos(nanos),
            value,
            quality,
            check,
            clock,
        })
    })
}

proptest! {
    #[test]
    fn any_readings_come_back(records in prop::collection::vec(any_record(), 1..80), first in 0..u64::MAX / 2, epoch: u64) {
        let series: Vec<SeriesInfo> =
            (0..5).map(|i| SeriesInfo { name: format!("a/{i}").into(), unit: (i % 2 == 0).then(|| "V".into()) }).collect();
        let origin = Origin { agent: "gw".into(), epoch: Epoch(epoch), stream: "raw".into(), class: "personal".into() };
        let frame = seal(&origin, first, &records, &series, &[], Density::Fast).unwrap();
        let (header, contents) = open(&frame).unwrap();
        prop_assert_eq!(header.origin, origin);
        prop_assert_eq!(named(&contents.records, &contents.series), named(&records, &series));
    }

    #[test]
    fn random_bytes_are_refused(bytes: Vec<u8>) {
        prop_assert!(open(&bytes).is_err());
        prop_assert!(read_header(&bytes).is_err());
        let _ = Message::parse(&bytes);
        for item in read_stream(&bytes, 16) {
            prop_assert!(!matches!(item, Ok(Item::Message(_))));
        }
    }
}
