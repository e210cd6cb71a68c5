//! Events as bytes: those of a chunk, or of its beginning, before the rest of it is there.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{BODY_BYTES_MAX, JournalError, READINGS_MAX};
use crate::columns::{decode_readings, encode_readings};
use crate::event::{Batch, ClockChange, Declared, Event, Outage, Rejected};
use crate::pack::pack;
use crate::plan::Plan;
use crate::reading::{InputId, Reading};
use crate::time::Timestamp;

/// The level of Zstandard: the journal is written once a second for ever and read only after a crash.
const COMPRESSION_LEVEL: i32 = 1;

/// The first events of a chunk, or those that follow on a part, encoded: a commit that hurries then has only the rest to encode. It takes more bytes
/// than all events at once.
#[derive(Clone, Debug)]
pub struct Part {
    /// How many events.
    pub(super) events: usize,
    /// How many readings are in them.
    pub(super) readings: usize,
    pub(super) bytes: Vec<u8>,
}

impl Part {
    /// Encodes events.
    ///
    /// # Errors
    /// As [`Chunk::encode`](super::Chunk::encode).
    pub fn of(events: &[(Timestamp, Event)]) -> Result<Self, JournalError> {
        let from = events.first().map_or(Timestamp::MIN, |(at, _)| *at);
        let taken = Taken::of(from, events)?;
        let mut bytes = Vec::new();
        put_packed(&taken, &mut bytes)?;
        Ok(Self { events: events.len(), readings: count(events), bytes })
    }
}

/// How many readings there are in events.
pub(super) fn count(events: &[(Timestamp, Event)]) -> usize {
    let of_event =
        |(_, event): &(Timestamp, Event)| if let Event::Batch(batch) = event { batch.readings.len() } else { 0 };
    events.iter().map(of_event).sum()
}

/// Events, all their readings in columns, times as distances from an instant or from the event.
#[derive(Serialize, Deserialize)]
pub(super) struct Taken {
    pub(super) from: Timestamp,
    pub(super) events: Outlines,
    pub(super) readings: Vec<u8>,
}

/// When each event was taken, and what it is.
pub(super) type Outlines = Vec<(i64, Outline)>;

/// An event without its readings.
#[derive(Serialize, Deserialize)]
pub(super) enum Outline {
    Series(Declared),
    Batch { input: InputId, arrival: i64, readings: u32, rejected: Vec<Rejected> },
    Tick,
    Outage(Outage),
    Reload(Arc<Plan>),
    Clock(ClockChange),
    Start,
}

impl Taken {
    pub(super) fn of(from: Timestamp, taken: &[(Timestamp, Event)]) -> Result<Self, JournalError> {
        let mut readings: Vec<&Reading> = Vec::new();
        let mut events = Vec::with_capacity(taken.len());
        for (at, event) in taken {
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
            events.push((at.as_nanos().wrapping_sub(from.as_nanos()), outline));
        }
        if readings.len() > READINGS_MAX {
            return Err(JournalError::Body("too many readings"));
        }
        let mut columns = Vec::new();
        encode_readings(&readings, &mut columns);
        Ok(Self { from, events, readings: columns })
    }

    /// Appends the events; at most so many readings.
    pub(super) fn append_to(
        self,
        events: &mut Vec<(Timestamp, Event)>,
        readings_max: usize,
    ) -> Result<(), JournalError> {
        let readings = decode_readings(&self.readings, readings_max).map_err(JournalError::Readings)?;
        let mut readings = readings.into_iter();
        for (at, outline) in self.events {
            let at = Timestamp::from_nanos(self.from.as_nanos().wrapping_add(at));
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
        Ok(())
    }
}

/// Appends a body: whether it is packed, and its bytes, packed where that makes them fewer.
pub(super) fn put_packed(body: &impl Serialize, out: &mut Vec<u8>) -> Result<(), JournalError> {
    let body = postcard::to_allocvec(body).map_err(JournalError::Encoding)?;
    let packed = (body.len() <= BODY_BYTES_MAX).then(|| pack(&body, COMPRESSION_LEVEL).ok()).flatten();
    let packed = packed.filter(|packed| packed.len() < body.len());
    out.push(u8::from(packed.is_some()));
    out.extend_from_slice(packed.as_ref().unwrap_or(&body));
    Ok(())
}

/// Reads what [`put_packed`] wrote; `room` is how many bytes may still be unpacked, and is left with what remains of it.
pub(super) fn read_packed<T: for<'a> Deserialize<'a>>(bytes: &[u8], room: &mut usize) -> Result<T, JournalError> {
    let body = match bytes {
        [0, body @ ..] => return postcard::from_bytes(body).map_err(JournalError::Encoding),
        [1, packed @ ..] => packed,
        _ => return Err(JournalError::Body("neither packed nor plain")),
    };
    let length =
        zstd::bulk::Decompressor::upper_bound(body).and_then(|length| Some((length, room.checked_sub(length)?)));
    let (length, left) = length.ok_or(JournalError::Body("longer than it may be"))?;
    *room = left;
    let body = zstd::bulk::decompress(body, length).map_err(|_| JournalError::Body("not what Zstandard packs"))?;
    postcard::from_bytes(&body).map_err(JournalError::Encoding)
}
