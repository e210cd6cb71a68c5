//! What is given out to be sent: each frame once, the highest priority first, then the oldest, past streams that are not wanted.
//!
//! Of each priority, every frame up to a *front* was looked at: it is given out, or acknowledged, or of a stream whose place behind the front is
//! known. So a stream that is not wanted for a long time, with a long backlog, is passed over once, and not at every trial.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use rtlive_core::plan::Priority;

use super::file;
use super::frames::Found;
use super::seal::Sealed;
use super::{Store, StoreError};
use crate::message::{FrameId, StoredFrame};

/// How many frames are looked at in one go: a few milliseconds, in which a commit has to wait.
const LOOKED_AT_MAX: usize = 256;

/// What a look for a frame to send came to.
pub enum Look {
    /// The next frame.
    Frame(StoredFrame),
    /// There is none that is wanted.
    Nothing,
    /// None was found so far; another look goes on behind.
    Unfinished,
}

impl Store {
    /// The next frame to send, of a stream that is not in `except`: the highest priority first, then the oldest. Each is given out once until
    /// [`Store::give_back`] or [`Store::requeue`]. A frame whose checksum does not hold is given up, with a gap in the next commit.
    ///
    /// # Errors
    /// What SQLite said.
    pub fn take(&mut self, except: &[Arc<str>]) -> Result<Option<StoredFrame>, StoreError> {
        loop {
            match self.look_for(except)? {
                Look::Frame(frame) => return Ok(Some(frame)),
                Look::Nothing => return Ok(None),
                Look::Unfinished => {}
            }
        }
    }

    /// As [`Store::take`], within a bound of time.
    ///
    /// # Errors
    /// As [`Store::take`].
    pub fn look_for(&mut self, except: &[Arc<str>]) -> Result<Look, StoreError> {
        let mut left = LOOKED_AT_MAX;
        for priority in [Priority::Alert, Priority::Live, Priority::Bulk] {
            while let Some(found) = self.next_wanted(priority, except, &mut left)? {
                match found {
                    Found::Whole(frame, sealed) => {
                        self.given.insert(frame.id, sealed);
                        return Ok(Look::Frame(frame));
                    }
                    Found::Damaged(id, sealed) => self.give_up(id, sealed),
                }
            }
            if left == 0 {
                return Ok(Look::Unfinished);
            }
        }
        Ok(Look::Nothing)
    }

    /// `None` when there is none, or `left` was used up.
    fn next_wanted(
        &mut self,
        priority: Priority,
        except: &[Arc<str>],
        left: &mut usize,
    ) -> Result<Option<Found>, StoreError> {
        let Self { file, given, acknowledged, fronts, passed_over, .. } = self;
        let is_waiting = |id| !given.contains_key(&id) && !acknowledged.contains(&id);
        let condemn = |error: &StoreError| file.condemn_for(error);
        // What lies behind the front is older.
        while *left > 0 {
            let streams =
                passed_over.iter_mut().filter(|((of, stream), _)| *of == priority && !except.contains(stream));
            let Some((key, from)) = streams.min_by_key(|(_, from)| **from) else { break };
            let to = fronts.get(&priority).copied();
            let is_wanted = |id, stream: &str| *stream == *key.1 && is_waiting(id);
            let (found, looked_to) =
                file.next_frame(priority, Some(FrameId(from.0 - 1)), to, left, is_wanted).inspect_err(condemn)?;
            match looked_to {
                Some(id) => *from = FrameId(id.0 + 1),
                None => {
                    let key = key.clone();
                    passed_over.remove(&key);
                }
            }
            if found.is_some() {
                return Ok(found);
            }
        }
        let mut is_wanted = |id, stream: &str| {
            if let Some(stream) = except.iter().find(|except| ***except == *stream) {
                passed_over.entry((priority, stream.clone())).or_insert(id);
                return false;
            }
            is_waiting(id)
        };
        let front = fronts.get(&priority).copied();
        let (found, looked_to) = file.next_frame(priority, front, None, left, &mut is_wanted).inspect_err(condemn)?;
        fronts.extend(looked_to.map(|id| (priority, id)));
        Ok(found)
    }

    /// These frames were given out and did not arrive: they are given out again, in order.
    pub fn give_back(&mut self, ids: &[FrameId]) {
        for &id in ids {
            if !self.acknowledged.contains(&id)
                && let Some(sealed) = self.given.remove(&id)
            {
                self.tried.insert(id);
                let first = self.passed_over.entry((file::priority_of(id), sealed.key.stream)).or_insert(id);
                *first = id.min(*first);
            }
        }
    }

    /// These frames were given out by the store that this one takes the place of, and some of them arrived.
    pub(super) fn take_given(
        &mut self,
        given: BTreeMap<FrameId, Sealed>,
        acknowledged: BTreeSet<FrameId>,
    ) -> Result<(), StoreError> {
        for (id, sealed) in given {
            if self.file.has_frame(id)? {
                self.given.insert(id, sealed);
            }
        }
        self.acknowledged.extend(acknowledged.into_iter().filter(|id| self.given.contains_key(id)));
        Ok(())
    }

    /// Every frame that was given out and not acknowledged is to be given out again, in order.
    pub fn requeue(&mut self) {
        let ids: Vec<FrameId> = self.given.keys().copied().collect();
        self.give_back(&ids);
    }

    /// These frames arrived. They are deleted with the next commit. Frames that were not given out are passed over.
    pub fn acknowledge(&mut self, ids: &[FrameId]) {
        self.acknowledged.extend(ids.iter().filter(|id| self.given.contains_key(id)));
    }

    /// Whether acknowledged frames wait to be deleted.
    pub fn has_acknowledged(&self) -> bool {
        !self.acknowledged.is_empty()
    }

    /// A frame whose bytes changed on the disk: it goes in the transaction that writes its gap.
    fn give_up(&mut self, id: FrameId, mut sealed: Sealed) {
        tracing::error!(stream = &*sealed.key.stream, from = sealed.from, to = sealed.to, "a stored frame is damaged");
        sealed.is_damaged = true;
        self.given.insert(id, sealed);
        self.acknowledged.insert(id);
    }
}
