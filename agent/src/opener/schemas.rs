//! Schemas that have come, and frames that wait for theirs.

use std::collections::VecDeque;
use std::sync::Arc;

use rtlive_core::frame::{FrameError, Schema, SchemaId, is_schema, read_header, restore};
use rtlive_core::message::Whole;

/// How many schemas are kept, the newest ones: those of a hundred agents.
const SCHEMAS_MAX: usize = 1_024;

/// How many frames wait, and how many bytes they may have together; the oldest goes first.
const WAITING_MAX: usize = 1_024;
const WAITING_BYTES_MAX: usize = 16 << 20;

/// Makes frames whole whose schema stands outside.
#[derive(Default)]
pub(super) struct Schemas {
    known: VecDeque<(Arc<str>, SchemaId, Vec<u8>)>,
    waiting: VecDeque<(Arc<str>, SchemaId, Whole)>,
    waiting_bytes: usize,
    given_up: usize,
    whole: VecDeque<Whole>,
}

impl Schemas {
    /// Takes a schema or a frame.
    pub(super) fn take(&mut self, item: Whole) -> Result<(), FrameError> {
        if is_schema(&item.frame) {
            return self.take_schema(item.frame);
        }
        let (header, _) = read_header(&item.frame)?;
        let (Some(id), agent) = (header.schema, header.origin.agent) else {
            self.whole.push_back(item);
            return Ok(());
        };
        match self.known.iter().find(|known| (&known.0, known.1) == (&agent, id)) {
            Some((_, _, schema)) => {
                let frame = restore(&item.frame, &Schema::parse(schema)?)?;
                self.whole.push_back(Whole { frame, ..item });
            }
            None => {
                self.waiting_bytes += item.frame.len();
                self.waiting.push_back((agent, id, item));
                while self.waiting.len() > WAITING_MAX || self.waiting_bytes > WAITING_BYTES_MAX {
                    let Some((_, _, oldest)) = self.waiting.pop_front() else { break };
                    self.waiting_bytes -= oldest.frame.len();
                    self.given_up += 1;
                }
            }
        }
        Ok(())
    }

    /// The next frame that has its schema, in the order in which they got it.
    pub(super) fn next_whole(&mut self) -> Option<Whole> {
        self.whole.pop_front()
    }

    /// How many frames have no schema, given up ones too.
    pub(super) fn waiting(&self) -> usize {
        self.waiting.len() + self.given_up
    }

    fn take_schema(&mut self, bytes: Vec<u8>) -> Result<(), FrameError> {
        let Schema { agent, id, .. } = Schema::parse(&bytes)?;
        let agent: Arc<str> = agent.into();
        if self.known.iter().any(|known| (&known.0, known.1) == (&agent, id)) {
            return Ok(());
        }
        self.known.push_back((agent, id, bytes));
        if self.known.len() > SCHEMAS_MAX {
            self.known.pop_front();
        }
        // Those that wait for others wait on, in their order.
        self.waiting_bytes = 0;
        let mut taken = Ok(());
        for (_, _, item) in std::mem::take(&mut self.waiting) {
            // One that is damaged keeps none of the others.
            taken = taken.and(self.take(item));
        }
        taken
    }
}
