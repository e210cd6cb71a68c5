//! Whose turn it is, of what is new and the backlog: with each byte of one the other comes nearer to its turn, by the share that is the backlog's.
//!
//! Where one of them has nothing to send the other has the whole link, and nothing is owed for it later: the link never waits for whose turn it is, and
//! neither lane starves.

use super::Lane;
use crate::plan::Priority;

const PRIORITIES: usize = 3;

/// The priorities in which it is the backlog's turn.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Turns([bool; PRIORITIES]);

impl Turns {
    /// All of them.
    pub const ALL: Self = Self([true; PRIORITIES]);

    /// Whether it is the backlog's turn in a priority.
    pub fn has(self, priority: Priority) -> bool {
        self.0[place(priority)]
    }
}

/// What the backlog of each priority is owed, in hundredths of bytes; below zero what was sent of it ahead of its share.
#[derive(Clone, Debug)]
pub(super) struct Credit {
    percent: i64,
    owed: [i64; PRIORITIES],
}

impl Credit {
    /// Nothing is owed.
    pub(super) fn of(percent: u8) -> Self {
        Self { percent: percent.min(100).into(), owed: [0; PRIORITIES] }
    }

    /// Whose turn it is.
    pub(super) fn turns(&self) -> Turns {
        Turns(self.owed.map(|owed| owed > 0))
    }

    /// A message is sent.
    pub(super) fn charge(&mut self, priority: Priority, lane: Lane, bytes: u64) {
        let bytes = i64::try_from(bytes).unwrap_or(i64::MAX / 100);
        let owed = &mut self.owed[place(priority)];
        match lane {
            Lane::Live => *owed += self.percent * bytes,
            Lane::Backlog if *owed > 0 => *owed -= (100 - self.percent) * bytes,
            // It went because nothing new waited.
            Lane::Backlog => {}
        }
    }

    /// The backlog of a priority has nothing to send: nothing is owed to it.
    pub(super) fn settle(&mut self, priority: Priority) {
        let owed = &mut self.owed[place(priority)];
        *owed = 0.min(*owed);
    }
}

fn place(priority: Priority) -> usize {
    match priority {
        Priority::Alert => 0,
        Priority::Live => 1,
        Priority::Bulk => 2,
    }
}
