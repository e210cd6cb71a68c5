//! Golden vectors in tests/vectors/ of the workspace: what was written once is read for ever, and written the same way again.
//!
//! `RTLIVE_WRITE_VECTORS=1 cargo test -p rtlive-core --test vectors` writes those that are not there yet; one that is there is never
//! changed within a version of the format. The example decoder in Python is run over them where its packages are installed.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod golden;
mod invalid;
#[path = "../samples/mod.rs"]
mod samples;

use std::fmt::Write as _;
use std::path::Path;
use std::process::Command;

use rtlive_core::frame::{Schema, open, refer, restore, seal};
use rtlive_core::json::{Origin, write_record};
use rtlive_core::message::{Item, MessageReader, Reassembler, split};

use golden::{from_hex, golden, to_hex};
use samples::{Sample, samples};

fn sealed(sample: &Sample) -> Vec<u8> {
    seal(&sample.origin, sample.first, &sample.records, &sample.series, &sample.compute, sample.density).unwrap()
}

/// What `rtlive decode` prints of a frame.
fn lines(frame: &[u8], historical: bool) -> String {
    let (header, contents) = open(frame).unwrap();
    let epoch = header.origin.epoch.to_string();
    let origin = Origin::of_frame(&header.origin, &epoch, historical);
    let mut out = Vec::new();
    for (seq, record) in (header.first..=header.last()).zip(&contents.records) {
        write_record(&mut out, &origin, seq, record, &contents.series, &contents.compute);
        out.push(b'\n');
    }
    String::from_utf8(out).unwrap()
}

#[test]
fn golden_frames_are_read_and_written_as_ever() {
    for sample in samples() {
        let made = sealed(&sample);
        let frame = from_hex(&golden(&format!("{}.hex", sample.name), || to_hex(&made)));
        let expected = golden(&format!("{}.jsonl", sample.name), || lines(&frame, false));
        assert_eq!(lines(&frame, false), expected, "{}", sample.name);
        // Another release of Zstandard may compress the same contents to other bytes; everything else is ours.
        let (old, new) = (contents(&frame), contents(&made));
        assert!(old == new, "{}: the contents are written differently than before", sample.name);
    }
}

/// The contents of a frame before compression.
fn contents(frame: &[u8]) -> Vec<u8> {
    let (header, _) = open(frame).unwrap();
    let value: ciborium::Value = ciborium::from_reader(frame).unwrap();
    let packed = value.as_array().unwrap()[1].as_bytes().unwrap().clone();
    match header.codec {
        rtlive_core::frame::Codec::Zstd => zstd::bulk::decompress(&packed, header.contents_bytes as usize).unwrap(),
        _ => packed,
    }
}

/// Messages of two frames, one in parts and out of order, with JSON between them.
fn stream() -> Vec<u8> {
    let samples = samples();
    let mut messages: Vec<Vec<u8>> = split(&sealed(&samples[1]), true, 256).collect();
    messages.reverse();
    let one: Vec<Vec<u8>> = split(&sealed(&samples[0]), false, 1024).collect();
    messages.insert(1, one[0].clone());
    messages.insert(0, b"{\"agent\":\"gw-042\",\"state\":\"online\"}".to_vec());
    messages.push(b"[{\"agent\":\"gw-042\",\"seq\":1},{\"agent\":\"gw-042\",\"seq\":2}]".to_vec());
    messages.concat()
}

#[test]
fn the_golden_stream_is_read_as_ever() {
    let stream = from_hex(&golden("stream.hex", || to_hex(&stream())));
    let mut reader = MessageReader::default();
    let mut reassembler = Reassembler::default();
    let mut text = String::new();
    reader.feed(&stream);
    while let Some(item) = reader.next_item() {
        match item.unwrap() {
            Item::Json(json) => match serde_json::from_slice(&json).unwrap() {
                serde_json::Value::Array(records) => {
                    records.iter().for_each(|record| writeln!(text, "{record}").unwrap())
                }
                record => writeln!(text, "{record}").unwrap(),
            },
            Item::Message(message) => {
                if let Some(whole) = reassembler.take(&message).unwrap() {
                    text += &lines(&whole.frame, whole.historical);
                }
            }
        }
    }
    assert_eq!(text, golden("stream.jsonl", || text.clone()));
}

/// The messages of a schema and of a frame that names it.
fn referring() -> Vec<u8> {
    let referring = refer(&sealed(&samples()[0])).unwrap().unwrap();
    let message = |item: &[u8]| split(item, false, usize::MAX).next().unwrap();
    [message(&referring.schema), message(&referring.frame)].concat()
}

#[test]
fn the_golden_frame_by_reference_is_read_and_written_as_ever() {
    let made = referring();
    let messages = from_hex(&golden("referring.hex", || to_hex(&made)));
    assert!(messages == made, "it is written differently than before");
    let mut reader = MessageReader::default();
    let mut reassembler = Reassembler::default();
    reader.feed(&messages);
    let mut next = || match reader.next_item().unwrap().unwrap() {
        Item::Message(message) => reassembler.take(&message).unwrap().unwrap().frame,
        Item::Json(_) => panic!("expected a message"),
    };
    let (schema, frame) = (next(), next());
    let text = lines(&restore(&frame, &Schema::parse(&schema).unwrap()).unwrap(), false);
    assert_eq!(text, golden("referring.jsonl", || text.clone()));
}

/// Python with the packages of the example decoder, if there is one.
fn python() -> Option<String> {
    let python = std::env::var("RTLIVE_PYTHON").unwrap_or_else(|_| "python3".into());
    let works =
        Command::new(&python).args(["-c", "import cbor2, zstandard"]).output().is_ok_and(|run| run.status.success());
    if !works {
        println!("SKIPPED: the example decoder: {python} (RTLIVE_PYTHON) has no cbor2 and zstandard");
    }
    works.then_some(python)
}

/// Runs the example decoder over bytes in a file; what it printed, and whether it was content.
fn decoded_by_example(python: &str, name: &str, bytes: &[u8]) -> (Vec<serde_json::Value>, bool) {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/examples/decode.py");
    let file = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}.bin"));
    std::fs::write(&file, bytes).unwrap();
    let run = Command::new(python).arg(script).arg(&file).output().unwrap();
    let text = String::from_utf8(run.stdout).unwrap();
    if !run.status.success() {
        println!("{name}: {}", String::from_utf8_lossy(&run.stderr));
    }
    (text.lines().map(|line| serde_json::from_str(line).unwrap()).collect(), run.status.success())
}

#[test]
fn the_example_decoder_agrees() {
    let Some(python) = python() else { return };
    let values = |text: &str| text.lines().map(|line| serde_json::from_str(line).unwrap()).collect::<Vec<_>>();
    for name in samples().iter().map(|sample| sample.name).chain(["stream", "referring"]) {
        let bytes = from_hex(&golden(&format!("{name}.hex"), String::new));
        let (found, content) = decoded_by_example(&python, name, &bytes);
        let expected: Vec<serde_json::Value> = values(&golden(&format!("{name}.jsonl"), String::new));
        assert!(content, "{name}");
        assert_eq!(found, expected, "{name}");
    }
    let refused = ["invalid", "malformed"].map(|name| golden(&format!("{name}.txt"), String::new)).concat();
    for line in refused.lines() {
        let (name, hex) = line.split_once(' ').unwrap();
        let (found, content) = decoded_by_example(&python, name, &from_hex(hex));
        // An empty file is no frame, and nothing wrong with a stream.
        assert!(name == "empty" || !content, "{name} gave {found:?}");
    }
}
