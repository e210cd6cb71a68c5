//! What becomes of a disk of which something cannot be read, though the file is sound: a bad block, or a card that loosens in its slot.
//!
//! It may be over at once, so the file is opened again first. It may take a while: then the store is in memory, and the disk is tried again after
//! pauses of which each is twice as long as the one before. At the [`GIVEN_UP_AT`]th failure within [`FORGOTTEN_AFTER`] what cannot be read is taken
//! for lost: the file is salvaged once, as one that is damaged, so that a bad block costs the frames that lie on it and not the use of the disk. Where
//! that does not help either, the pauses go on growing.

use std::time::Duration;

use rtlive_core::time::Timestamp;

use super::keeper::RETRY_EVERY;

/// The failure at which a file is salvaged: the third one, half a minute after the first.
const GIVEN_UP_AT: u32 = 4;

/// How long a pause may get.
const PAUSE_MAX: Duration = Duration::from_secs(600);

/// After how long without a failure the next one counts as the first.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(3_600);

/// What to do after a failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// Open the file again.
    OpenAgain,
    /// Go on in memory for so long.
    Pause(Duration),
    /// Salvage the file.
    GiveUp,
}

/// The failures of a while.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Unreadable {
    count: u32,
    last_at: Option<Timestamp>,
}

impl Unreadable {
    /// Something could not be read.
    pub(super) fn meet(&mut self, now: Timestamp) -> Answer {
        if self.last_at.is_none_or(|last| now.since(last) >= FORGOTTEN_AFTER) {
            self.count = 0;
        }
        self.last_at = Some(now);
        self.count = self.count.saturating_add(1);
        match self.count {
            1 => Answer::OpenAgain,
            GIVEN_UP_AT => Answer::GiveUp,
            count => {
                let doublings = count - 2 - u32::from(count > GIVEN_UP_AT);
                let factor = 1_u32.checked_shl(doublings).unwrap_or(u32::MAX);
                Answer::Pause(RETRY_EVERY.saturating_mul(factor).min(PAUSE_MAX))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_and_are_forgotten() {
        let mut unreadable = Unreadable::default();
        let at = |seconds: i64| Timestamp::from_nanos(seconds * 1_000_000_000);
        let pause = |seconds| Answer::Pause(Duration::from_secs(seconds));
        let mut answers: Vec<Answer> = (0..11).map(|second| unreadable.meet(at(second))).collect();
        let ends = answers.split_off(3);
        assert_eq!(answers, [Answer::OpenAgain, pause(10), pause(20)]);
        assert_eq!(ends[..2], [Answer::GiveUp, pause(40)]);
        assert_eq!(ends[2..], [80, 160, 320, 600, 600, 600].map(pause));
        assert_eq!(unreadable.meet(at(3_000)), pause(600));
        // A clock that goes back ends nothing.
        assert_eq!(unreadable.meet(at(10)), pause(600));
        assert_eq!(unreadable.meet(at(3_610)), Answer::OpenAgain);
    }
}
