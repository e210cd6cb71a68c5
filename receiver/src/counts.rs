//! What was counted since the start.

/// Counters; they only grow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Messages that were taken, whatever became of them.
    pub messages: u64,
    /// Their bytes.
    pub message_bytes: u64,
    /// Messages that hold no frame, or belong to one that is damaged.
    pub messages_refused: u64,
    /// Parts of frames that had come before.
    pub parts_again: u64,
    /// Frames that were opened.
    pub frames: u64,
    /// Frames of which parts were missing for too long.
    pub frames_given_up: u64,
    /// Records that were not here before.
    pub records: u64,
    /// Records that were here before.
    pub records_again: u64,
    /// Files that were closed.
    pub files: u64,
    /// Commits of the state.
    pub commits: u64,
}
