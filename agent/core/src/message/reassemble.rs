//! Parts of frames become frames again, in bounded memory.

use std::collections::VecDeque;

use super::{Message, MessageError, PARTS_MAX, intact};
use crate::frame::FRAME_BYTES_MAX;

/// How many frames may lie in parts at once. An agent sends one frame in parts at a time, beside its alerts: enough for the agents that a
/// receiver listens to at once on slow links.
pub const REASSEMBLIES_MAX: usize = 64;
/// How many bytes of parts may lie at once: four of the longest frames.
pub const REASSEMBLY_BYTES_MAX: usize = 4 * FRAME_BYTES_MAX;

/// A frame whose parts have all come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Whole {
    /// The frame's bytes.
    pub frame: Vec<u8>,
    /// Whether any of its messages was backlog.
    pub historical: bool,
}

/// What became of parts that did not become a frame.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ReassemblerCounts {
    /// Frames given up, the oldest first, to make room for others.
    pub dropped_frames: u64,
    /// Their parts.
    pub dropped_parts: u64,
    /// Parts that had come before.
    pub repeated_parts: u64,
}

/// Puts frames together from messages, in any order, with repetitions, and of several frames at once.
///
/// Memory is at most [`REASSEMBLY_BYTES_MAX`], and 16 bytes for each of [`PARTS_MAX`] parts of [`REASSEMBLIES_MAX`] frames. When a part
/// would exceed a bound, the frame whose last part came longest ago is given up and counted.
#[derive(Clone, Debug, Default)]
pub struct Reassembler {
    /// Oldest first, by when their last part came.
    frames: VecDeque<Parts>,
    bytes: usize,
    counts: ReassemblerCounts,
}

#[derive(Clone, Debug)]
struct Parts {
    checksum: u32,
    parts: Vec<Option<Box<[u8]>>>,
    missing: usize,
    bytes: usize,
    historical: bool,
}

impl Reassembler {
    /// Takes a message; gives the frame that it completes, if it completes one. The frame's checksum is right.
    ///
    /// # Errors
    /// The bytes are not a message, or complete something that is no intact frame (its parts are forgotten).
    pub fn take(&mut self, message: &[u8]) -> Result<Option<Whole>, MessageError> {
        let message = Message::parse(message)?;
        if message.count == 1 {
            let whole = Whole { frame: message.part.to_vec(), historical: message.historical };
            return whole.checked(message.checksum).map(Some);
        }
        let place = self.frames.iter().position(|parts| parts.is_of(&message));
        let mut parts = match place.and_then(|place| self.frames.remove(place)) {
            Some(parts) => parts,
            None => Parts::new(&message),
        };
        self.bytes -= parts.bytes;
        if parts.put(&message) {
            if parts.bytes > FRAME_BYTES_MAX {
                return Err(MessageError::Checksum(message.checksum));
            }
            if parts.missing == 0 {
                return parts.join().checked(message.checksum).map(Some);
            }
        } else {
            self.counts.repeated_parts += 1;
        }
        self.bytes += parts.bytes;
        self.frames.push_back(parts);
        while self.frames.len() > REASSEMBLIES_MAX || self.bytes > REASSEMBLY_BYTES_MAX {
            let Some(oldest) = self.frames.pop_front() else { break };
            self.bytes -= oldest.bytes;
            self.counts.dropped_frames += 1;
            self.counts.dropped_parts += (oldest.parts.len() - oldest.missing) as u64;
        }
        Ok(None)
    }

    /// What became of parts that did not become a frame.
    pub const fn counts(&self) -> ReassemblerCounts {
        self.counts
    }

    /// How many frames wait for parts.
    pub fn waiting(&self) -> usize {
        self.frames.len()
    }
}

impl Whole {
    fn checked(self, checksum: u32) -> Result<Self, MessageError> {
        if super::checksum_of(&self.frame) == checksum && intact(&self.frame) {
            Ok(self)
        } else {
            Err(MessageError::Checksum(checksum))
        }
    }
}

impl Parts {
    fn new(message: &Message<'_>) -> Self {
        // The count is at most `PARTS_MAX`.
        let count = message.count.min(PARTS_MAX) as usize;
        Self { checksum: message.checksum, parts: vec![None; count], missing: count, bytes: 0, historical: false }
    }

    fn is_of(&self, message: &Message<'_>) -> bool {
        self.checksum == message.checksum && self.parts.len() == message.count as usize
    }

    /// Takes a part; `false` if it was there.
    fn put(&mut self, message: &Message<'_>) -> bool {
        let Some(place @ None) = self.parts.get_mut(message.index as usize) else { return false };
        *place = Some(message.part.into());
        self.missing -= 1;
        self.bytes += message.part.len();
        self.historical |= message.historical;
        true
    }

    fn join(self) -> Whole {
        let frame = self.parts.into_iter().flatten().fold(Vec::with_capacity(self.bytes), |mut frame, part| {
            frame.extend_from_slice(&part);
            frame
        });
        Whole { frame, historical: self.historical }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::message::split;

    /// Not a frame, but with the checksum that one has.
    fn framed(seed: u8, bytes: usize) -> Vec<u8> {
        let mut frame: Vec<u8> = (0..bytes).map(|i| (i as u8).wrapping_mul(31).wrapping_add(seed)).collect();
        let checksum = crc32fast::hash(&frame);
        frame.extend(checksum.to_be_bytes());
        frame
    }

    proptest! {
        #[test]
        fn any_order_with_repetitions_gives_each_frame(
            sizes in prop::collection::vec(1_usize..9000, 1..6), order: Vec<prop::sample::Index>,
        ) {
            let frames: Vec<Vec<u8>> = sizes.iter().enumerate().map(|(i, size)| framed(i as u8, *size)).collect();
            let mut messages: Vec<Vec<u8>> = frames.iter().flat_map(|frame| split(frame, false, 256)).collect();
            let repeated: Vec<Vec<u8>> = order.iter().map(|index| messages[index.index(messages.len())].clone()).collect();
            messages.splice(0..0, repeated);
            let mut reassembler = Reassembler::default();
            let mut whole: Vec<Vec<u8>> = Vec::new();
            for message in &messages {
                whole.extend(reassembler.take(message).unwrap().map(|whole| whole.frame));
            }
            for frame in &frames {
                prop_assert!(whole.contains(frame));
            }
            prop_assert_eq!(reassembler.counts().dropped_frames, 0);
        }
    }

    #[test]
    fn the_oldest_is_given_up_and_counted() {
        let mut reassembler = Reassembler::default();
        for seed in 0..=REASSEMBLIES_MAX {
            let first = split(&framed(seed as u8, 3000), false, 1024).next().unwrap();
            assert_eq!(reassembler.take(&first), Ok(None));
        }
        let counts = ReassemblerCounts { dropped_frames: 1, dropped_parts: 1, repeated_parts: 0 };
        assert_eq!((reassembler.counts(), reassembler.waiting()), (counts, REASSEMBLIES_MAX));
    }

    #[test]
    fn parts_that_do_not_make_the_frame_are_refused() {
        let mut messages: Vec<Vec<u8>> = split(&framed(1, 3000), false, 2048).collect();
        *messages[1].last_mut().unwrap() ^= 1;
        let mut reassembler = Reassembler::default();
        assert_eq!(reassembler.take(&messages[0]), Ok(None));
        assert!(matches!(reassembler.take(&messages[1]), Err(MessageError::Checksum(_))));
        assert_eq!(reassembler.waiting(), 0);
    }
}
