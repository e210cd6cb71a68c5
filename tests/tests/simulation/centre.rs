//! A model centre: decodes what arrives, removes duplicates by (epoch, stream, class, seq), and keeps the rest.

use std::collections::BTreeMap;

use rtlive_core::frame;
use rtlive_core::message::Reassembler;
use rtlive_core::record::{Epoch, Record};

/// What is numbered alone.
pub(crate) type Lane = (Epoch, String, String);

/// What a frame or a JSON message brought.
pub(crate) struct Block {
    pub(crate) last: u64,
    bytes: Vec<u8>,
    /// Records with the names of their series; empty for JSON.
    pub(crate) records: Vec<(Option<String>, Record)>,
    /// The values of readings that came as JSON.
    pub(crate) json_values: Vec<i64>,
}

/// The centre.
#[derive(Default)]
pub(crate) struct Centre {
    reassembler: Reassembler,
    /// By lane and first number.
    pub(crate) lanes: BTreeMap<Lane, BTreeMap<u64, Block>>,
    pub(crate) messages: u64,
    pub(crate) repeated: u64,
}

impl Centre {
    /// Takes a message of a stream as it is published.
    pub(crate) fn take(&mut self, payload: &[u8]) -> Result<(), String> {
        self.messages += 1;
        if payload.first().is_some_and(|first| matches!(first, b'[' | b'{')) {
            return self.take_json(payload);
        }
        let whole = self.reassembler.take(payload).map_err(|error| format!("a message is no message: {error}"))?;
        let Some(whole) = whole else { return Ok(()) };
        let (header, contents) =
            frame::open(&whole.frame).map_err(|error| format!("a frame cannot be opened: {error}"))?;
        let series = |record: &Record| match record {
            Record::Reading(reading) => contents.series.get(reading.series.index()).map(|info| info.name.to_string()),
            Record::Aggregate(aggregate) => {
                contents.series.get(aggregate.series.index()).map(|info| info.name.to_string())
            }
            _ => None,
        };
        let records = contents.records.iter().map(|record| (series(record), record.clone())).collect();
        let lane = (header.origin.epoch, header.origin.stream.to_string(), header.origin.class.to_string());
        let block = Block { last: header.last(), bytes: whole.frame, records, json_values: Vec::new() };
        self.keep(lane, header.first, block)
    }

    fn take_json(&mut self, payload: &[u8]) -> Result<(), String> {
        let value: serde_json::Value = serde_json::from_slice(payload).map_err(|error| format!("no JSON: {error}"))?;
        let objects = value.as_array().cloned().unwrap_or_else(|| vec![value]);
        let text = |object: &serde_json::Value, key: &str| object[key].as_str().unwrap_or_default().to_owned();
        let first = &objects[0];
        let epoch: Epoch = text(first, "epoch").parse().map_err(|error| format!("no epoch: {error}"))?;
        let class = first["class"].as_str().unwrap_or("process").to_owned();
        let lane = (epoch, text(first, "stream"), class);
        let seqs: Vec<u64> = objects.iter().filter_map(|object| object["seq"].as_u64()).collect();
        if seqs.len() != objects.len() || seqs.windows(2).any(|pair| pair[1] != pair[0] + 1) {
            return Err(format!("a JSON message has the numbers {seqs:?}"));
        }
        let json_values = objects.iter().filter_map(|object| object["value"].as_i64()).collect();
        let last = seqs[0] + seqs.len() as u64 - 1;
        self.keep(lane, seqs[0], Block { last, bytes: payload.to_vec(), records: Vec::new(), json_values })
    }

    /// Keeps what is new. What was there before must be the same, to the byte.
    fn keep(&mut self, lane: Lane, first: u64, block: Block) -> Result<(), String> {
        let blocks = self.lanes.entry(lane.clone()).or_default();
        if let Some(known) = blocks.get(&first) {
            self.repeated += 1;
            return match known.bytes == block.bytes {
                true => Ok(()),
                false => Err(format!("{lane:?}: number {first} came twice with other content")),
            };
        }
        let before = blocks.range(..first).next_back().map(|(_, before)| before.last);
        let after = blocks.range(first..).next().map(|(&first, _)| first);
        if before.is_some_and(|last| last >= first) || after.is_some_and(|next| next <= block.last) {
            return Err(format!("{lane:?}: {first}..={} lies over {before:?} or {after:?}", block.last));
        }
        blocks.insert(first, block);
        Ok(())
    }

    /// All records of the streams of a name, in the order of lanes and numbers.
    pub(crate) fn records<'a>(
        &'a self,
        stream: &'a str,
    ) -> impl Iterator<Item = (&'a Lane, u64, &'a Option<String>, &'a Record)> {
        let lanes = self.lanes.iter().filter(move |((_, name, _), _)| name == stream);
        lanes.flat_map(|(lane, blocks)| {
            blocks.iter().flat_map(move |(&first, block)| {
                (first..).zip(&block.records).map(move |(number, (series, record))| (lane, number, series, record))
            })
        })
    }
}
