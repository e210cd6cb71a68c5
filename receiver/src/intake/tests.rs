//! The intake over frames of our own making: in any order, repeated, in parts, damaged, and with an end at any message.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex};

use proptest::prelude::*;
use rtlive_core::frame::refer;
use rtlive_core::message::split;

use super::*;
use crate::sample::frame;

/// Lines that a test can read.
#[derive(Clone, Default)]
struct Shared(Arc<Mutex<Vec<u8>>>);

impl Write for Shared {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Shared {
    fn records(&self) -> Vec<serde_json::Value> {
        let bytes = self.0.lock().unwrap().clone();
        bytes
            .split(|byte| *byte == b'\n')
            .filter(|line| !line.is_empty())
            .map(|line| serde_json::from_slice(line).unwrap())
            .collect()
    }

    /// How often each number of an agent was handed on.
    fn numbers(&self, agent: &str) -> BTreeMap<u64, u32> {
        let mut numbers = BTreeMap::new();
        for record in self.records().iter().filter(|record| record["agent"] == agent) {
            assert_eq!(record["value"].as_i64(), record["seq"].as_i64(), "{record}");
            *numbers.entry(record["seq"].as_u64().unwrap()).or_default() += 1;
        }
        numbers
    }
}

fn intake(folder: &Path, lines: &Shared) -> Intake {
    let lines: Box<dyn Write + Send> = Box::new(lines.clone());
    let (sources, id) = (vec!["s".into()], "test".into());
    let (state_dir, figures) = (folder.to_owned(), Figures::default());
    let setup = Setup { state_dir, sources, lines: Some(lines), parquet: None, id, figures };
    Intake::open(setup).unwrap()
}

fn delivery(topic: &str, payload: Vec<u8>) -> Delivery {
    Delivery { source: SourceId(0), topic: topic.into(), payload, token: 0, cursor: None }
}

/// The messages of a frame, each at most so long.
fn messages(agent: &str, frame: &[u8], part_bytes: usize) -> Vec<Delivery> {
    split(frame, false, part_bytes).map(|message| delivery(&format!("rtlive/{agent}/raw"), message)).collect()
}

fn once(from: u64, to: u64) -> BTreeMap<u64, u32> {
    (from..=to).map(|number| (number, 1)).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// Frames of two agents, some in parts, in any order and repeated; the receiver ends without a word between any two batches.
    #[test]
    fn each_number_is_handed_on_once(
        order in prop::collection::vec(any::<prop::sample::Index>(), 0..60), batch in 1_usize..7, seed: u64,
    ) {
        let folder = tempfile::tempdir().unwrap();
        let lines = Shared::default();
        let mut all: Vec<Delivery> = Vec::new();
        for agent in ["a", "b"] {
            for (from, count) in [(1, 5), (6, 400), (406, 1), (407, 93)] {
                let part_bytes = if count > 100 { 256 } else { 100_000 };
                all.extend(messages(agent, &frame(agent, from, count), part_bytes));
            }
        }
        let repeated: Vec<Delivery> = order.iter().map(|index| all[index.index(all.len())].clone()).collect();
        // Whatever comes first, everything comes at last, in an order of the seed's.
        let turn = usize::try_from(seed % all.len() as u64).unwrap();
        all.rotate_left(turn);
        let sent: Vec<Delivery> = repeated.into_iter().chain(all).collect();
        for batch in sent.chunks(batch) {
            intake(folder.path(), &lines).take(batch).unwrap();
        }
        for agent in ["a", "b"] {
            prop_assert_eq!(lines.numbers(agent), once(1, 499));
        }
        let mut last = intake(folder.path(), &lines);
        last.take(&sent).unwrap();
        prop_assert_eq!(last.counts().records, 0);
        prop_assert_eq!(lines.numbers("a"), once(1, 499));
    }
}

#[test]
fn frames_that_overlap_are_handed_on_once() {
    let folder = tempfile::tempdir().unwrap();
    let lines = Shared::default();
    let mut intake = intake(folder.path(), &lines);
    for (from, count) in [(10, 10), (5, 10), (1, 30), (25, 10)] {
        intake.take(&messages("a", &frame("a", from, count), 100_000)).unwrap();
    }
    assert_eq!(lines.numbers("a"), once(1, 34));
    assert_eq!(intake.counts().records_again, 60 - 34);
}

#[test]
fn what_is_no_frame_is_counted_and_passed_over() {
    let folder = tempfile::tempdir().unwrap();
    let lines = Shared::default();
    let mut intake = intake(folder.path(), &lines);
    let good = messages("a", &frame("a", 1, 3), 100_000).remove(0);
    let mut damaged = good.clone();
    *damaged.payload.last_mut().unwrap() ^= 1;
    let cut = delivery("x", good.payload[..good.payload.len() - 1].to_vec());
    let noise = delivery("x", b"\x01\x02".to_vec());
    let nothing = delivery("x", Vec::new());
    intake.take(&[damaged, cut, noise, nothing, good]).unwrap();
    assert_eq!(lines.numbers("a"), once(1, 3));
    assert_eq!((intake.counts().messages, intake.counts().messages_refused), (5, 4));
}

#[test]
fn parts_of_two_agents_with_one_checksum_are_not_mixed() {
    let folder = tempfile::tempdir().unwrap();
    let lines = Shared::default();
    let mut intake = intake(folder.path(), &lines);
    let whole = frame("a", 1, 600);
    let parts = messages("a", &whole, 256);
    assert!(parts.len() > 2, "the frame is too short to be split");
    let elsewhere = delivery("rtlive/b/raw", parts[0].payload.clone());
    intake.take(&[elsewhere]).unwrap();
    intake.take(&parts[1..]).unwrap();
    assert!(lines.numbers("a").is_empty());
    intake.take(&parts[..1]).unwrap();
    assert_eq!(lines.numbers("a"), once(1, 600));
}

#[test]
fn a_second_receiver_on_the_same_state_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let lines = Shared::default();
    let _first = intake(folder.path(), &lines);
    let (state_dir, id) = (folder.path().to_owned(), "test".into());
    let setup = Setup { state_dir, sources: Vec::new(), lines: None, parquet: None, id, figures: Figures::default() };
    let refused = Intake::open(setup).err().unwrap().to_string();
    assert!(refused.contains(&std::process::id().to_string()), "{refused}");
}

#[test]
fn a_frame_waits_for_its_schema() {
    let folder = tempfile::tempdir().unwrap();
    let lines = Shared::default();
    let [early, late, whole] = [1, 4, 7].map(|from| frame("a", from, 3));
    let [early, late] = [early, late].map(|frame| refer(&frame).unwrap().unwrap());
    assert_eq!(early.schema, late.schema);
    let one = |bytes: &[u8]| messages("a", bytes, 100_000).remove(0);
    intake(folder.path(), &lines).take(&[one(&early.frame), one(&early.frame), one(&whole)]).unwrap();
    assert_eq!(lines.numbers("a"), once(7, 9));
    // The schema of another agent with the same series is not that of this one.
    let other = refer(&frame("b", 1, 1)).unwrap().unwrap();
    assert_eq!(other.id, early.id);
    let mut intake = intake(folder.path(), &lines);
    intake.take(&[one(&other.schema)]).unwrap();
    assert_eq!(lines.numbers("a"), once(7, 9));
    intake.take(&[one(&early.schema)]).unwrap();
    assert_eq!(lines.numbers("a"), [once(1, 3), once(7, 9)].into_iter().flatten().collect());
    intake.take(&[one(&late.frame), one(&late.schema)]).unwrap();
    assert_eq!(lines.numbers("a"), once(1, 9));
    assert_eq!((intake.counts().schemas, intake.counts().messages_refused), (2, 0));
}
