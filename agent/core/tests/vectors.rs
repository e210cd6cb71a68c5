//! Golden vectors in tests/vectors/ of the workspace: what was written once is read for ever, and written the same way again.
//!
//! `RTLIVE_WRITE_VECTORS=1 cargo test -p rtlive-core --test vectors` writes those that are not there yet; one that is there is never
//! changed within a version of the format. The example decoder in Python is run over them where its packages are installed.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod samples;

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use rtlive_core::frame::{Density, open, seal};
use rtlive_core::json::{Origin, write_record};
use rtlive_core::message::{Item, MessageReader, Reassembler, split};
use samples::{Sample, samples};

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/vectors")
}

/// The file's text, written first if it is missing and that was asked for.
fn golden(name: &str, make: impl FnOnce() -> String) -> String {
    let path = folder().join(name);
    if !path.exists() && std::env::var_os("RTLIVE_WRITE_VECTORS").is_some() {
        std::fs::write(&path, make()).unwrap();
    }
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Hexadecimal digits, 32 bytes a line.
fn to_hex(bytes: &[u8]) -> String {
    bytes.chunks(32).fold(String::new(), |mut text, line| {
        line.iter().for_each(|byte| write!(text, "{byte:02x}").unwrap());
        text.push('\n');
        text
    })
}

fn from_hex(text: &str) -> Vec<u8> {
    let digits: Vec<u32> = text.chars().filter_map(|digit| digit.to_digit(16)).collect();
    digits.chunks(2).map(|pair| (pair[0] * 16 + pair[1]) as u8).collect()
}

fn sealed(sample: &Sample) -> Vec<u8> {
    seal(&sample.origin, sample.first, &sample.records, &sample.series, &sample.compute, Density::Normal).unwrap()
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

#[test]
fn golden_invalid_frames_are_refused() {
    let made = || {
        invalid()
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
    let text = golden("invalid.txt", made);
    assert_eq!(errors(&text), golden("invalid.errors.txt", || errors(&text)));
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
    for name in samples().iter().map(|sample| sample.name).chain(["stream"]) {
        let bytes = from_hex(&golden(&format!("{name}.hex"), String::new));
        let (found, content) = decoded_by_example(&python, name, &bytes);
        let expected: Vec<serde_json::Value> = values(&golden(&format!("{name}.jsonl"), String::new));
        assert!(content, "{name}");
        assert_eq!(found, expected, "{name}");
    }
    for line in golden("invalid.txt", String::new).lines() {
        let (name, hex) = line.split_once(' ').unwrap();
        let (found, content) = decoded_by_example(&python, name, &from_hex(hex));
        // An empty file is no frame, and nothing wrong with a stream.
        assert!(name == "empty" || !content, "{name} gave {found:?}");
    }
}
