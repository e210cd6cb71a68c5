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
    /// Schemas that were not here before.
    pub schemas: u64,
    /// Frames that came before their schema, and wait or waited for it.
    pub frames_unopened: u64,
    /// Frames of which parts, or the schema, were missing for too long.
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

impl Counts {
    /// Every counter: its name, what it counts, and how far it has come.
    pub const fn all(&self) -> [(&'static str, &'static str, u64); 12] {
        [
            ("messages", "Messages that were taken.", self.messages),
            ("message_bytes", "Their bytes.", self.message_bytes),
            ("messages_refused", "Messages that hold no frame.", self.messages_refused),
            ("parts_again", "Parts of frames that had come before.", self.parts_again),
            ("frames", "Frames that were opened.", self.frames),
            ("schemas", "Schemas that were not here before.", self.schemas),
            ("frames_unopened", "Frames that came before their schema.", self.frames_unopened),
            (
                "frames_given_up",
                "Frames of which parts, or the schema, were missing for too long.",
                self.frames_given_up,
            ),
            ("records", "Records that were not here before.", self.records),
            ("records_again", "Records that were here before.", self.records_again),
            ("files", "Files that were closed.", self.files),
            ("commits", "Commits of the state.", self.commits),
        ]
    }
}
