//! Frames by reference: whole again with their schema, and refused with any other bytes.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod samples;

use rtlive_core::frame::{FrameError, Referring, Schema, is_schema, open, read_header, refer, restore, seal};
use samples::samples;

/// The frames of all samples that have a schema, with what is sent for them.
fn referring() -> Vec<(Vec<u8>, Referring)> {
    let sealed = samples().into_iter().map(|sample| {
        seal(&sample.origin, sample.first, &sample.records, &sample.series, &sample.compute, sample.density).unwrap()
    });
    sealed.filter_map(|frame| refer(&frame).unwrap().map(|referring| (frame, referring))).collect()
}

#[test]
fn frames_are_whole_again_with_their_schema() {
    let all = referring();
    assert!(all.len() > 5);
    for (frame, Referring { id, schema, frame: sent }) in &all {
        assert!(is_schema(schema) && !is_schema(frame) && !is_schema(sent));
        assert_eq!(refer(frame).unwrap().unwrap().frame, *sent, "the same frame gives the same bytes");
        assert_eq!(refer(sent).unwrap(), None, "it names its schema already");
        assert_eq!(open(sent), Err(FrameError::Schema(*id)));
        let (expected, records) = open(frame).unwrap();
        let header = read_header(sent).unwrap().0;
        assert_eq!((header.origin, header.first, header.count), (expected.origin, expected.first, expected.count));
        assert_eq!((header.span, header.schema), (expected.span, Some(*id)));

        let parsed = Schema::parse(schema).unwrap();
        assert_eq!((parsed.id, parsed.agent), (*id, &*open(frame).unwrap().0.origin.agent));
        let whole = restore(sent, &parsed).unwrap();
        // NaN is not equal to itself.
        assert_eq!(format!("{:?}", open(&whole).unwrap().1), format!("{records:?}"));
        assert_eq!(restore(&whole, &parsed).unwrap(), whole, "it names no schema any more");
    }
}

#[test]
fn another_schema_is_refused() {
    let all = referring();
    for (_, one) in &all {
        for (_, other) in all.iter().filter(|(_, other)| other.id != one.id) {
            let other = Schema::parse(&other.schema).unwrap();
            assert_eq!(restore(&one.frame, &other), Err(FrameError::Schema(one.id)));
        }
    }
}

#[test]
fn every_truncation_and_every_flipped_bit_of_a_schema_is_refused() {
    for (_, Referring { schema, .. }) in referring() {
        for length in 0..schema.len() {
            assert!(Schema::parse(&schema[..length]).is_err(), "cut at {length}");
        }
        for bit in 0..schema.len() * 8 {
            let mut altered = schema.clone();
            altered[bit / 8] ^= 1 << (bit % 8);
            assert!(Schema::parse(&altered).is_err(), "bit {bit}");
        }
        let longer = [&schema[..], &[0]].concat();
        assert_eq!(
            Schema::parse(&longer),
            Err(FrameError::Trailing { expected: schema.len(), found: schema.len() + 1 })
        );
    }
}
