//! Receipts: what a receiver says is durable there, and the frames that wait for it.
//!
//! A receipt names intervals of numbers, each as long as it is at the receiver, so that a later one says all that an earlier one said of the same numbers:
//! any of them may be lost, repeated or overtaken. It is deterministic CBOR, `[1, [[epoch, stream, class, [from, to, from, to, …]], …]]`
//! (docs/receiver.md).

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::FrameId;
use crate::frame::cbor::{CborFault, Reader, Writer};
use crate::record::Epoch;

/// Receipts for an agent come from the topic of its id below this one.
pub const TOPICS: &str = "rtlive-receipts";
/// The version of a receipt.
const VERSION: u64 = 1;
/// How many lanes a receipt names: those of the frames of one commit of the receiver.
const LANES_MAX: usize = 256;
/// How many intervals a receipt names of a lane, likewise.
const INTERVALS_MAX: usize = 256;
/// How long names of streams and classes are, in bytes.
const NAME_BYTES_MAX: usize = 64;
/// How many frames may wait for receipts: a frame a second for an hour, in half a megabyte. Beyond that nothing more is sent before one comes.
pub const AWAITED_MAX: usize = 4_096;

/// What is durable at the receiver.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Receipt {
    /// The lanes that it speaks of.
    pub lanes: Vec<LaneReceipt>,
}

/// What is durable of a lane.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LaneReceipt {
    /// The epoch.
    pub epoch: Epoch,
    /// The stream.
    pub stream: Arc<str>,
    /// The class.
    pub class: Arc<str>,
    /// The first and the last number of each interval.
    pub durable: Vec<(u64, u64)>,
}

impl Receipt {
    /// The message that it is.
    pub fn to_message(&self) -> Vec<u8> {
        let mut out = Writer::default();
        out.array(2);
        out.unsigned(VERSION);
        out.array(self.lanes.len());
        for lane in &self.lanes {
            out.array(4);
            out.unsigned(lane.epoch.0);
            out.text(&lane.stream);
            out.text(&lane.class);
            out.array(lane.durable.len() * 2);
            for (from, to) in &lane.durable {
                out.unsigned(*from);
                out.unsigned(*to);
            }
        }
        out.bytes
    }

    /// Reads a message.
    ///
    /// # Errors
    /// It is no receipt of this version.
    pub fn parse(message: &[u8]) -> Result<Self, CborFault> {
        let mut reader = Reader::new(message);
        if reader.array(2)? != 2 || reader.unsigned()? != VERSION {
            return Err(CborFault::Expected("a receipt of version 1"));
        }
        let mut lanes = Vec::new();
        for _ in 0..reader.array(LANES_MAX)? {
            if reader.array(4)? != 4 {
                return Err(CborFault::Expected("epoch, stream, class and numbers"));
            }
            let epoch = Epoch(reader.unsigned()?);
            let stream = reader.text(NAME_BYTES_MAX)?.into();
            let class = reader.text(NAME_BYTES_MAX)?.into();
            let mut durable = Vec::new();
            let numbers = reader.array(2 * INTERVALS_MAX)?;
            if numbers % 2 != 0 {
                return Err(CborFault::Expected("pairs of numbers"));
            }
            for _ in 0..numbers / 2 {
                durable.push((reader.unsigned()?, reader.unsigned()?));
            }
            lanes.push(LaneReceipt { epoch, stream, class, durable });
        }
        if reader.left() > 0 {
            return Err(CborFault::Expected("the end of the receipt"));
        }
        Ok(Self { lanes })
    }

    fn covers(&self, frame: &Awaiting) -> bool {
        let is_lane =
            |lane: &&LaneReceipt| lane.epoch == frame.epoch && lane.stream == frame.stream && lane.class == frame.class;
        let mut intervals = self.lanes.iter().filter(is_lane).flat_map(|lane| &lane.durable);
        intervals.any(|(from, to)| *from <= frame.from && frame.to <= *to)
    }
}

/// A frame that was given out.
#[derive(Clone, Debug)]
pub struct Awaiting {
    /// The epoch.
    pub epoch: Epoch,
    /// The stream.
    pub stream: Arc<str>,
    /// The class.
    pub class: Arc<str>,
    /// The first number.
    pub from: u64,
    /// The last number.
    pub to: u64,
}

/// How far a frame has come.
#[derive(Debug)]
enum Stage {
    /// The broker has not acknowledged it.
    Sent,
    /// A receipt covers it, and the broker has not acknowledged it.
    Covered,
    /// The broker acknowledged it, then.
    Acknowledged(Duration),
}

/// The frames that were given out and that no receipt covers. Times are of a clock that is never set.
#[derive(Debug)]
pub struct Awaited {
    timeout: Duration,
    frames: BTreeMap<FrameId, (Awaiting, Stage)>,
}

impl Awaited {
    /// A frame that the broker acknowledged waits for so long, and is then sent again.
    pub fn new(timeout: Duration) -> Self {
        Self { timeout, frames: BTreeMap::new() }
    }

    /// A frame was given out.
    pub fn send(&mut self, id: FrameId, frame: Awaiting) {
        self.frames.insert(id, (frame, Stage::Sent));
    }

    /// The broker acknowledged a frame; whether the store may delete it already.
    pub fn acknowledge(&mut self, id: FrameId, now: Duration) -> bool {
        match self.frames.get_mut(&id) {
            Some((_, stage @ Stage::Sent)) => {
                *stage = Stage::Acknowledged(now);
                false
            }
            Some((_, Stage::Acknowledged(_))) => false,
            Some((_, Stage::Covered)) | None => {
                self.frames.remove(&id);
                true
            }
        }
    }

    /// A receipt came: the frames that the store may delete.
    pub fn cover(&mut self, receipt: &Receipt) -> Vec<FrameId> {
        let covered = self.frames.iter_mut().filter(|(_, (frame, _))| receipt.covers(frame));
        let mut delivered = Vec::new();
        for (id, (_, stage)) in covered {
            match stage {
                Stage::Acknowledged(_) => delivered.push(*id),
                Stage::Sent | Stage::Covered => *stage = Stage::Covered,
            }
        }
        self.forget(&delivered);
        delivered
    }

    /// A frame was given back.
    pub fn give_back(&mut self, id: FrameId) {
        self.frames.remove(&id);
    }

    /// The connection is gone, and with it what the broker has not acknowledged; whether frames go on waiting.
    pub fn lose_connection(&mut self) -> bool {
        self.frames.retain(|_, (_, stage)| matches!(stage, Stage::Acknowledged(_)));
        !self.frames.is_empty()
    }

    /// Whether no frame waits.
    pub fn is_empty(&self) -> bool {
        self.frames.is_empty()
    }

    /// Whether a frame is known.
    pub fn holds(&self, id: FrameId) -> bool {
        self.frames.contains_key(&id)
    }

    /// The frames whose time is over, which are given back.
    pub fn overdue(&mut self, now: Duration) -> Vec<FrameId> {
        let is_overdue =
            |stage: &Stage| matches!(stage, Stage::Acknowledged(at) if at.saturating_add(self.timeout) <= now);
        let overdue = self.frames.iter().filter(|(_, (_, stage))| is_overdue(stage));
        let overdue: Vec<FrameId> = overdue.map(|(id, _)| *id).collect();
        self.forget(&overdue);
        overdue
    }

    /// When the time of the next one is over.
    pub fn wake_at(&self) -> Option<Duration> {
        let since = |(_, stage): &(Awaiting, Stage)| match stage {
            Stage::Acknowledged(at) => Some(at.saturating_add(self.timeout)),
            Stage::Sent | Stage::Covered => None,
        };
        self.frames.values().filter_map(since).min()
    }

    /// Whether no more may be sent before a receipt comes, or a time is over.
    pub fn is_full(&self) -> bool {
        self.frames.len() >= AWAITED_MAX
    }

    fn forget(&mut self, ids: &[FrameId]) {
        for id in ids {
            self.frames.remove(id);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIMEOUT: Duration = Duration::from_secs(60);

    fn receipt(durable: &[(u64, u64)]) -> Receipt {
        let durable = durable.to_vec();
        Receipt { lanes: vec![LaneReceipt { epoch: Epoch(7), stream: "raw".into(), class: "process".into(), durable }] }
    }

    fn frame(from: u64, to: u64) -> Awaiting {
        Awaiting { epoch: Epoch(7), stream: "raw".into(), class: "process".into(), from, to }
    }

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn a_receipt_comes_back_as_it_was() {
        for receipt in [Receipt::default(), receipt(&[]), receipt(&[(1, 9), (20, u64::MAX)])] {
            let message = receipt.to_message();
            assert_eq!(Receipt::parse(&message), Ok(receipt));
            for end in 0..message.len() {
                assert!(Receipt::parse(&message[..end]).is_err(), "cut to {end} bytes");
            }
            let mut longer = message.clone();
            longer.push(0);
            assert!(Receipt::parse(&longer).is_err());
        }
    }

    #[test]
    fn a_frame_goes_once_both_the_broker_and_a_receipt_have_it() {
        let mut awaited = Awaited::new(TIMEOUT);
        awaited.send(FrameId(1), frame(1, 10));
        awaited.send(FrameId(2), frame(11, 20));
        assert!(!awaited.acknowledge(FrameId(1), seconds(5)));
        assert_eq!(awaited.cover(&receipt(&[(1, 9)])), [], "a part of a frame is not the frame");
        assert_eq!(awaited.cover(&receipt(&[(1, 20)])), [FrameId(1)]);
        // The receipt came before the broker's word.
        assert!(awaited.acknowledge(FrameId(2), seconds(6)));
        assert_eq!(awaited.wake_at(), None);
    }

    #[test]
    fn a_frame_without_a_receipt_is_sent_again_in_its_time() {
        let mut awaited = Awaited::new(TIMEOUT);
        awaited.send(FrameId(1), frame(1, 10));
        assert_eq!((awaited.wake_at(), awaited.overdue(seconds(1_000))), (None, vec![]));
        awaited.acknowledge(FrameId(1), seconds(5));
        awaited.send(FrameId(2), frame(11, 20));
        assert_eq!(awaited.wake_at(), Some(seconds(65)));
        assert_eq!(awaited.overdue(seconds(64)), []);
        // What the broker has outlives the connection, the rest is given back.
        assert!(awaited.lose_connection());
        assert_eq!((awaited.holds(FrameId(1)), awaited.holds(FrameId(2))), (true, false));
        assert_eq!(awaited.overdue(seconds(65)), [FrameId(1)]);
        assert_eq!(awaited.cover(&receipt(&[(1, 20)])), []);
    }
}
