//! The journal: chunks of everything that the engine took, one for each commit.
//!
//! A chunk holds the events of its commit in order, the numbers that their records got, and what else changed: drivers' keys and the
//! accounts of streams. It does not hold the records: the engine is deterministic, so that a replay of the events emits them again,
//! and the numbers say which is which.
//!
//! Layout: one byte of version; the parts, where there are any, each behind its length of 4 bytes, and a length of 0; the body; and the CRC-32 (IEEE
//! 802.3) of all this. Parts and body are postcard encodings with all their readings in columns, compressed by Zstandard where that makes them smaller.
//! Chunks never leave the device, so that the layout may change with the version byte.

mod part;

use std::sync::Arc;

use serde::{Deserialize, Serialize};

pub use self::part::Part;
use self::part::Taken;
use crate::columns::ColumnError;
use crate::event::Event;
use crate::plan::StreamId;
use crate::record::{Epoch, Gap};
use crate::time::Timestamp;

/// The version of the layout.
pub const VERSION: u8 = 3;

/// That of a chunk which has no parts, and no length of one.
const WITHOUT_PARTS: u8 = 2;

/// How many readings a chunk may hold. The stage commits early at a hundredth of this; it bounds what a damaged length can ask for.
pub const READINGS_MAX: usize = 1 << 20;

/// How long the body of a chunk may be when unpacked, in bytes; bounds what a damaged length can ask for. A longer body is written as it
/// is, so that everything that is written can be read.
pub const BODY_BYTES_MAX: usize = 64 << 20;

const CHECKSUM_BYTES: usize = 4;

/// How long the length of a part is.
const LENGTH_BYTES: usize = 4;

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

/// A chunk but for its parts.
#[derive(Serialize, Deserialize)]
struct Body {
    number: u64,
    at: Timestamp,
    is_flush: bool,
    epoch: Option<Epoch>,
    events: part::Outlines,
    ranges: Vec<Range>,
    state: Vec<(Arc<str>, String, Option<Vec<u8>>)>,
    accounts: Vec<(StreamKey, Account)>,
    gaps: Option<Vec<Gap>>,
    lost: Vec<(Arc<str>, Timestamp)>,
    readings: Vec<u8>,
}

impl Chunk {
    /// The bytes of the chunk, whose first events were encoded before, in these parts.
    ///
    /// # Errors
    /// [`JournalError::Encoding`] when memory is short, [`JournalError::Body`] when it holds more than [`READINGS_MAX`] readings, or the parts more
    /// events than it does.
    pub fn encode(&self, parts: &[Part]) -> Result<Vec<u8>, JournalError> {
        let (events, readings) = parts.iter().fold((0, 0), |sum, part| (sum.0 + part.events, sum.1 + part.readings));
        let rest = self.events.get(events..).ok_or(JournalError::Body("fewer events than its parts"))?;
        if readings + part::count(rest) > READINGS_MAX {
            return Err(JournalError::Body("too many readings"));
        }
        let mut bytes = vec![if parts.is_empty() { WITHOUT_PARTS } else { VERSION }];
        for part in parts {
            let length = u32::try_from(part.bytes.len()).map_err(|_| JournalError::Body("a part is too long"))?;
            bytes.extend_from_slice(&length.to_be_bytes());
            bytes.extend_from_slice(&part.bytes);
        }
        if !parts.is_empty() {
            bytes.extend_from_slice(&[0; LENGTH_BYTES]);
        }
        let Taken { events, readings, .. } = Taken::of(self.at, rest)?;
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
            readings,
        };
        part::put_packed(&body, &mut bytes)?;
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
        let [version, rest @ ..] = sealed else { return Err(too_short) };
        let (expected, found) = (u32::from_be_bytes(*checksum), crc32fast::hash(sealed));
        if expected != found {
            return Err(JournalError::Checksum { expected, found });
        }
        let (parts, body) = match *version {
            VERSION => split_parts(rest)?,
            WITHOUT_PARTS => (Vec::new(), rest),
            other => return Err(JournalError::Version(other)),
        };
        let (mut room, mut readings_max) = (BODY_BYTES_MAX, READINGS_MAX);
        let mut events = Vec::new();
        let mut take = |taken: Taken, events: &mut Vec<_>| {
            let before = events.len();
            taken.append_to(events, readings_max)?;
            readings_max -= part::count(events.get(before..).unwrap_or_default());
            Ok::<_, JournalError>(())
        };
        for part in parts {
            take(part::read_packed(part, &mut room)?, &mut events)?;
        }
        let body: Body = part::read_packed(body, &mut room)?;
        let Body { number, at, is_flush, epoch, events: rest, ranges, state, accounts, gaps, lost, readings } = body;
        take(Taken { from: at, events: rest, readings }, &mut events)?;
        Ok(Self { number, at, is_flush, epoch, events, ranges, state, accounts, gaps, lost })
    }
}

/// The parts at the beginning of bytes, and what is behind them.
fn split_parts(mut bytes: &[u8]) -> Result<(Vec<&[u8]>, &[u8]), JournalError> {
    let mut parts = Vec::new();
    while let Some((length, rest)) = bytes.split_first_chunk::<LENGTH_BYTES>() {
        let length = u32::from_be_bytes(*length) as usize;
        if length == 0 {
            return Ok((parts, rest));
        }
        let Some((part, rest)) = rest.split_at_checked(length) else { break };
        parts.push(part);
        bytes = rest;
    }
    Err(JournalError::Body("shorter than its parts"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::{Batch, ClockChange, Declared, Outage, Rejected};
    use crate::plan::Plan;
    use crate::reading::{ClockState, InputId, Quality, Reading, SeriesId, SeriesInfo, Value};

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

    /// The parts of a chunk whose events are cut at these places.
    fn parts(chunk: &Chunk, cuts: &[usize]) -> Vec<Part> {
        let pairs = [0].iter().chain(cuts).zip(cuts);
        pairs.map(|(&from, &to)| Part::of(&chunk.events[from..to]).unwrap()).collect()
    }

    #[test]
    fn comes_back_as_it_was_in_whatever_parts() {
        let chunk = chunk();
        for cuts in [&[][..], &[1], &[3], &[9], &[2, 2, 7]] {
            let bytes = chunk.encode(&parts(&chunk, cuts)).unwrap();
            assert_eq!(Chunk::decode(&bytes).unwrap(), chunk, "{cuts:?}");
        }
        assert_eq!(Chunk::decode(&Chunk::default().encode(&[]).unwrap()).unwrap(), Chunk::default());
        let longer = parts(&chunk, &[9]);
        assert!(Chunk::default().encode(&longer).is_err());
    }

    #[test]
    fn parts_do_not_hold_more_readings_than_a_chunk_may() {
        let mut chunk = chunk();
        let Event::Batch(batch) = &mut chunk.events[6].1 else { panic!("a batch") };
        let reading = batch.readings[0].clone();
        batch.readings.resize(READINGS_MAX / 2, reading);
        let event = chunk.events[6].clone();
        chunk.events = vec![event.clone(), event];
        let halves = parts(&chunk, &[1, 2]);
        let bytes = chunk.encode(&halves).unwrap();
        assert!(Chunk::decode(&bytes).unwrap() == chunk);
        chunk.events.push(super::tests::chunk().events[1].clone());
        assert!(matches!(chunk.encode(&halves), Err(JournalError::Body("too many readings"))));
    }

    #[test]
    fn a_body_that_may_not_be_unpacked_is_not_packed() {
        let state = vec![("a".into(), "k".into(), Some(vec![0; BODY_BYTES_MAX]))];
        let chunk = Chunk { state, ..Chunk::default() };
        assert!(Chunk::decode(&chunk.encode(&[]).unwrap()).unwrap() == chunk);
    }

    #[test]
    fn every_cut_and_every_flipped_bit_is_noticed() {
        let chunk = chunk();
        let bytes = chunk.encode(&parts(&chunk, &[3])).unwrap();
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
