//! Frames by reference: which schemas the broker has, where the configuration wants them retained.

use std::sync::Arc;

use rtlive_core::frame::{Referring, SchemaId, refer};
use rtlive_core::message::split;
use rtlive_core::uplink::{Publication, Retained};

/// How many schemas are told apart; frames of more have theirs inside.
const SCHEMAS_MAX: usize = 256;

/// What is known of schemas. The first frame of each goes whole, so that one which does not come again leaves nothing behind at the broker.
#[derive(Default)]
pub(super) struct Schemas {
    seen: Vec<SchemaId>,
    /// The topics of those that were published on this connection.
    published: Vec<Arc<str>>,
}

impl Schemas {
    /// What is sent for a whole frame: a shorter one that names its schema, with that schema where the broker may not have it, or `None` for the frame itself.
    pub(super) fn refer(&mut self, frame: &[u8], topic: &str, bytes_max: usize) -> Option<(Vec<u8>, Option<Retained>)> {
        // A frame that cannot be read is sent as it is.
        let Referring { id, schema, frame } = refer(frame).ok()??;
        let message = split(&schema, false, usize::MAX).next()?;
        if message.len() > bytes_max {
            return None;
        }
        if !self.seen.contains(&id) {
            if self.seen.len() < SCHEMAS_MAX {
                self.seen.push(id);
            }
            return None;
        }
        let topic: Arc<str> = format!("{topic}/{id}").into();
        let is_there = self.published.contains(&topic);
        Some((frame, (!is_there).then_some(Retained { topic, message })))
    }

    /// A message was handed to the connection.
    pub(super) fn note(&mut self, publication: &Publication) {
        if publication.retain && !self.published.contains(&publication.topic) {
            self.published.push(publication.topic.clone());
        }
    }

    /// The broker may have lost what it had, or have refused it.
    pub(super) fn forget(&mut self) {
        self.published.clear();
    }
}
