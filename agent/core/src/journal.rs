//! The journal: chunks of everything that the engine took, one for each commit.
//!
//! A chunk holds the events of its commit in order, the numbers that their records got, and what else changed: drivers' keys and the
//! accounts of streams. It does not hold the records: the engine is deterministic, so that a replay of the events emits them again,
//! and the numbers say which is which.
//!
//! Layout: one byte of version, the body, and the CRC-32 (IEEE 802.3) of both. The body is a postcard encoding with all readings of
//! the chunk in columns, compressed by Zstandard where that makes it smaller. Chunks never leave the device, so that the layout may
//! change with the version byte.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::columns::{ColumnError, decode_readings, encode_readings};
use crate::event::{Batch, ClockChange, Declared, Event, Outage, Rejected};
use crate::pack::pack;
use crate::plan::{Plan, StreamId};
use crate::reading::{InputId, Reading};
use crate::record::{Epoch, Gap};
use crate::time::Timestamp;

/// The version of the layout.
pub const VERSION: u8 = 2;

/// How many readings a chunk may hold. The stage commits early at a hundredth of this; it bounds what a damaged length can ask for.
pub const READINGS_MAX: usize = 1 << 20;

/// How long the body of a chunk may be when unpacked, in bytes; bounds what a damaged length can ask for. A longer body is written as it
/// is, so that everything that is written can be read.
pub const BODY_BYTES_MAX: usize = 64 << 20;

/// The level of Zstandard: the journal is written once a second for ever and read only after a crash.
const COMPRESSION_LEVEL: i32 = 1;

const CHECKSUM_BYTES: usize = 4;

/// Everything that changed with one commit.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Chunk {
    /// The number of the commit.
    pub number: u64,
    /// When it was made, by the wall clock.
    pub at: Timestamp,
    /// Whether the store made it by itself: it covers nothing that the engine took.
    pub is_flush: bool,
    /// The epoch that its numbers count in.
    pub epoch: Option<Epoch>,
    /// What the engine took, and when.
    pub events: Vec<(Timestamp, Event)>,
    /// The numbers of the records that these events emitted.
    pub ranges: Vec<Range>,
    /// What drivers keep: input, key, new value or `None` to forget it.
    pub state: Vec<(Arc<str>, String, Option<Vec<u8>>)>,
    /// The accounts of the streams that changed, after this commit.
    pub accounts: Vec<(StreamKey, Account)>,
    /// The gaps that wait to be numbered after this commit, where that changed them.
    pub gaps: Option<Vec<Gap>>,
    /// Coarser levels of ladders that lost records with this commit, and up to which event time.
    pub lost: Vec<(Arc<str>, Timestamp)>,
}

/// Consecutive numbers of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Range {
    /// The stream, by the plan of the chunk.
    pub stream: StreamId,
    /// The first number.
    pub first: u64,
    /// How many.
    pub count: u64,
}

/// What is numbered alone: a stream's records of one class.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct StreamKey {
    /// The stream's name.
    pub stream: Arc<str>,
    /// The class.
    pub class: Arc<str>,
}

/// The account of a stream. `numbered = acknowledged + stored + in_gaps` at every commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Account {
    /// The next number of the current epoch.
    pub next: u64,
    /// The last number of the current epoch that is in a frame; 0 for none.
    pub sealed_to: u64,
    /// Records that were given a number, in all epochs of the store, as all below.
    pub numbered: u64,
    /// Records whose frame was acknowledged.
    pub acknowledged: u64,
    /// Records that wait, in frames and in the tail.
    pub stored: u64,
    /// Records that a gap speaks of.
    pub in_gaps: u64,
    /// The bytes of stored frames.
    pub stored_bytes: u64,
}

impl Default for Account {
    fn default() -> Self {
        Self { next: 1, sealed_to: 0, numbered: 0, acknowledged: 0, stored: 0, in_gaps: 0, stored_bytes: 0 }
    }
}

impl Account {
    /// Whether the account closes.
    pub fn closes(&self) -> bool {
        self.acknowledged.checked_add(self.stored).and_then(|sum| sum.checked_add(self.in_gaps)) == Some(self.numbered)
    }
}

/// Why bytes are not a chunk.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// Shorter than its own frame.
    #[error("expected at least 6 bytes, found {0}")]
    TooShort(usize),
    /// The checksum says otherwise.
    #[error("expected a chunk with checksum {expected:08x}, found {found:08x}")]
    Checksum {
        /// What the chunk says.
        expected: u32,
        /// What its bytes give.
        found: u32,
    },
    /// Written by another program.
    #[error("expected version {VERSION}, found {0}")]
    Version(u8),
    /// The body is not what this version writes, although its checksum holds.
    #[error("expected the body of a chunk: {0}")]
    Body(&'static str),
    /// The body is not what this version writes, although its checksum holds.
    #[error("expected the body of a chunk")]
    Encoding(#[source] postcard::Error),
    /// The readings are not what this version writes.
    #[error("expected the readings of a chunk")]
    Readings(#[source] ColumnError),
}

/// A chunk without its readings, times as distances from the commit or from the event.
#[derive(Serialize, Deserialize)]
struct Body {
    number: u64,
    at: Timestamp,
    is_flush: bool,
    epoch: Option<Epoch>,
    events: Vec<(i64, Outline)>,
    ranges: Vec<Range>,
    state: Vec<(Arc<str>, String, Option<Vec<u8>>)>,
    accounts: Vec<(StreamKey, Account)>,
    gaps: Option<Vec<Gap>>,
    lost: Vec<(Arc<str>, Timestamp)>,
    readings: Vec<u8>,
}

/// An event without its readings.
#[derive(Serialize, Deserialize)]
enum Outline {
    Series(Declared),
    Batch { input: InputId, arrival: i64, readings: u32, rejected: Vec<Rejected> },
    Tick,
    Outage(Outage),
    Reload(Arc<Plan>),
    Clock(ClockChange),
    Start,
}

impl Chunk {
    /// The bytes of the chunk.
    ///
    /// # Errors
    /// [`JournalError::Encoding`] when memory is short, [`JournalError::Body`] when it holds more than [`READINGS_MAX`] readings.
    pub fn encode(&self) -> Result<Vec<u8>, JournalError> {
        let mut readings: Vec<&Reading> = Vec::new();
        let mut events = Vec::with_capacity(self.events.len());
        for (at, event) in &self.events {
            let outline = match event {
                Event::Series(declared) => Outline::Series(declared.clone()),
                Event::Tick => Outline::Tick,
                Event::Outage(outage) => Outline::Outage(outage.clone()),
                Event::Reload(plan) => Outline::Reload(plan.clone()),
                Event::Clock(change) => Outline::Clock(change.clone()),
                Event::Start => Outline::Start,
                Event::Batch(batch) => {
                    readings.extend(&batch.readings);
                    Outline::Batch {
                        input: batch.input,
                        arrival: batch.arrival.as_nanos().wrapping_sub(at.as_nanos()),
                        readings: batch.readings.len() as u32,
                        rejected: batch.rejected.clone(),
                    }
                }
            };
            events.push((at.as_nanos().wrapping_sub(self.at.as_nanos()), outline));
        }
        if readings.len() > READINGS_MAX {
            return Err(JournalError::Body("too many readings"));
        }
        let mut columns = Vec::new();
        encode_readings(&readings, &mut columns);
        let body = Body {
            number: self.number,
            at: self.at,
            is_flush: self.is_flush,
            epoch: self.epoch,
            events,
            ranges: self.ranges.clone(),
            state: self.state.clone(),
            accounts: self.accounts.clone(),
            gaps: self.gaps.clone(),
            lost: self.lost.clone(),
            readings: columns,
        };
        let body = postcard::to_allocvec(&body).map_err(JournalError::Encoding)?;
        let packed = (body.len() <= BODY_BYTES_MAX).then(|| pack(&body, COMPRESSION_LEVEL).ok()).flatten();
        let packed = packed.filter(|packed| packed.len() < body.len());
        let mut bytes = vec![VERSION, u8::from(packed.is_some())];
        bytes.extend_from_slice(packed.as_ref().unwrap_or(&body));
        let checksum = crc32fast::hash(&bytes);
        bytes.extend_from_slice(&checksum.to_be_bytes());
        Ok(bytes)
    }

    /// Reads the bytes of a chunk.
    ///
    /// # Errors
    /// See [`JournalError`]; no input makes it panic, or take more than its own length, [`BODY_BYTES_MAX`] and the memory of [`READINGS_MAX`] readings.
    pub fn decode(bytes: &[u8]) -> Result<Self, JournalError> {
        let too_short = JournalError::TooShort(bytes.len());
        let Some((sealed, checksum)) = bytes.split_last_chunk::<CHECKSUM_BYTES>() else { return Err(too_short) };
        let [version, packed, body @ ..] = sealed else { return Err(too_short) };
        let (expected, found) = (u32::from_be_bytes(*checksum), crc32fast::hash(sealed));
        if expected != found {
            return Err(JournalError::Checksum { expected, found });
        }
        if *version != VERSION {
            return Err(JournalError::Version(*version));
        }
        let unpacked = match packed {
            0 => None,
            1 => Some(unpack(body)?),
            _ => return Err(JournalError::Body("neither packed nor plain")),
        };
        let body: Body = postcard::from_bytes(unpacked.as_deref().unwrap_or(body)).map_err(JournalError::Encoding)?;
        let readings = decode_readings(&body.readings, READINGS_MAX).map_err(JournalError::Readings)?;
        let mut readings = readings.into_iter();
        let mut events = Vec::with_capacity(body.events.len());
        for (at, outline) in body.events {
            let at = Timestamp::from_nanos(body.at.as_nanos().wrapping_add(at));
            let event = match outline {
                Outline::Series(declared) => Event::Series(declared),
                Outline::Tick => Event::Tick,
                Outline::Outage(outage) => Event::Outage(outage),
                Outline::Reload(plan) => Event::Reload(plan),
                Outline::Clock(change) => Event::Clock(change),
                Outline::Start => Event::Start,
                Outline::Batch { input, arrival, readings: count, rejected } => {
                    let arrival = Timestamp::from_nanos(at.as_nanos().wrapping_add(arrival));
                    let readings: Vec<_> = readings.by_ref().take(count as usize).collect();
                    if readings.len() != count as usize {
                        return Err(JournalError::Body("fewer readings than its events"));
                    }
                    Event::Batch(Batch { input, arrival, readings, rejected })
                }
            };
            events.push((at, event));
        }
        if readings.next().is_some() {
            return Err(JournalError::Body("more readings than its events"));
        }
        let Body { number, at, is_flush, epoch, ranges, state, accounts, gaps, lost, .. } = body;
        Ok(Self { number, at, is_flush, epoch, events, ranges, state, accounts, gaps, lost })
    }
}

fn unpack(body: &[u8]) -> Result<Vec<u8>, JournalError> {
    let long = || JournalError::Body("longer than it may be");
    let length =
        zstd::bulk::Decompressor::upper_bound(body).filter(|&length| length <= BODY_BYTES_MAX).ok_or_else(long)?;
    zstd::bulk::decompress(body, length).map_err(|_| JournalError::Body("not what Zstandard packs"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reading::{ClockState, Quality, SeriesId, SeriesInfo, Value};

    fn chunk() -> Chunk {
        let reading = |n: u32| Reading {
            series: SeriesId(n % 3),
            time: Timestamp::from_nanos(i64::from(n) * 1_000_000),
            value: Value::Float(f64::from(n) * 0.1),
            quality: Quality::Good,
            check: None,
            clock: ClockState::Synced,
        };
        let at = |n: i64| Timestamp::from_nanos(1_767_225_600_000_000_000 + n);
        let rejected = vec![Rejected { reason: "checksum".into(), count: 2 }];
        let batch = |n: u32, rejected| Batch {
            input: InputId(1),
            arrival: at(n.into()),
            readings: (0..n).map(reading).collect(),
            rejected,
        };
        let plan = Plan {
            agent: "gw".into(),
            labels: [].into(),
            inputs: vec![crate::plan::InputPlan::pushed("a".into())],
            streams: Vec::new(),
            rules: Vec::new(),
            quality: Vec::new(),
            derived: Vec::new(),
            ladders: Vec::new(),
        };
        let info = SeriesInfo { name: "a/b".into(), unit: Some("Cel".into()) };
        let outage = Outage { input: InputId(0), start: None, end: at(1), count: Some(3), reason: "restart".into() };
        let key = StreamKey { stream: "raw".into(), class: "process".into() };
        Chunk {
            number: 7,
            at: at(1_000),
            is_flush: true,
            epoch: Some(Epoch(5)),
            events: vec![
                (at(-5), Event::Series(Declared { input: InputId(1), source: "d".into(), info })),
                (at(0), Event::Batch(batch(10, rejected))),
                (at(1), Event::Batch(batch(0, Vec::new()))),
                (at(2), Event::Tick),
                (at(2), Event::Start),
                (at(3), Event::Outage(outage)),
                (at(4), Event::Batch(batch(200, Vec::new()))),
                (at(5), Event::Reload(Arc::new(plan))),
                (at(6), Event::Clock(ClockChange { boot: "b".into(), ahead: -7, is_trusted: true })),
            ],
            ranges: vec![Range { stream: StreamId(4), first: 1, count: 210 }],
            state: vec![("a".into(), "k".into(), Some(vec![1, 2])), ("a".into(), "l".into(), None)],
            accounts: vec![(key, Account { next: 211, numbered: 210, stored: 210, ..Account::default() })],
            gaps: Some(vec![Gap {
                stream: "raw".into(),
                epoch: Some(Epoch(4)),
                class: None,
                from: 1,
                to: 9,
                count: Some(5),
                start: Some(at(0)),
                end: Some(at(9)),
                reason: "evicted".into(),
                covered_by: None,
            }]),
            lost: vec![("minute".into(), at(60))],
        }
    }

    #[test]
    fn comes_back_as_it_was() {
        let chunk = chunk();
        assert_eq!(Chunk::decode(&chunk.encode().unwrap()).unwrap(), chunk);
        assert_eq!(Chunk::decode(&Chunk::default().encode().unwrap()).unwrap(), Chunk::default());
    }

    #[test]
    fn a_body_that_may_not_be_unpacked_is_not_packed() {
        let state = vec![("a".into(), "k".into(), Some(vec![0; BODY_BYTES_MAX]))];
        let chunk = Chunk { state, ..Chunk::default() };
        assert!(Chunk::decode(&chunk.encode().unwrap()).unwrap() == chunk);
    }

    #[test]
    fn every_cut_and_every_flipped_bit_is_noticed() {
        let bytes = chunk().encode().unwrap();
        for length in 0..bytes.len() {
            assert!(Chunk::decode(&bytes[..length]).is_err(), "cut at {length}");
        }
        for bit in 0..bytes.len() * 8 {
            let mut bytes = bytes.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert!(Chunk::decode(&bytes).is_err(), "bit {bit}");
        }
    }
}
