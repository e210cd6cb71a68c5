//! What is given out to be sent: each frame once, the highest priority first, then what is new or the backlog as is wanted, then the oldest, past
//! streams that are not wanted.
//!
//! Streams with `order = "newest"` are looked through from their end, one by one; the others of a lane (priority, and new or backlog) together from the
//! beginning. Of these, in each lane, every frame up to a *front* was looked at: it is given out, or acknowledged, or of a stream whose place behind the
//! front is known. New frames become backlog by and by, in the order of their ids, so that the backlog's front comes to them.
//!
//! So a stream that is not wanted for a long time, with a long backlog, is passed over once, and not at every trial.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use rtlive_core::plan::{Order, Priority};
use rtlive_core::uplink::Turns;

use super::cover::by_fineness;
use super::file;
use super::frames::Found;
use super::seal::Sealed;
use super::{Store, StoreError};
use crate::message::{FrameId, Lane, StoredFrame, Wanted};

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

/// How many ranges of ids are remembered that were not looked at; beyond that the lowest two become one, and what lies between is looked at again.
const RANGES_MAX: usize = 8;

/// Where frames of a stream may wait whose newest go first: every frame up to some id but those in these ranges was looked at.
#[derive(Debug)]
pub(super) struct Unlooked {
    /// First and last, in ascending order.
    ranges: Vec<(i64, i64)>,
    reached: i64,
}

impl Unlooked {
    /// Nothing up to an id is there.
    fn from(reached: i64) -> Self {
        Self { ranges: Vec::new(), reached }
    }

    /// There may be frames up to an id.
    fn reach(&mut self, last: i64) {
        if last > self.reached {
            self.add(self.reached + 1, last);
            self.reached = last;
        }
    }

    /// A frame is to be looked at again.
    fn again(&mut self, id: i64) {
        self.add(id, id);
    }

    /// No range lies on both sides of an id.
    fn cut(&mut self, behind: i64) {
        let Some(place) = self.ranges.iter().position(|&(first, last)| first <= behind && behind < last) else {
            return;
        };
        let (first, last) = self.ranges.remove(place);
        self.ranges.splice(place..place, [(first, behind), (behind + 1, last)]);
    }

    fn add(&mut self, mut from: i64, mut to: i64) {
        self.ranges.retain(|&(first, last)| {
            let touches = first <= to + 1 && from <= last + 1;
            if touches {
                (from, to) = (from.min(first), to.max(last));
            }
            !touches
        });
        let place = self.ranges.partition_point(|&(first, _)| first < from);
        self.ranges.insert(place, (from, to));
        if self.ranges.len() > RANGES_MAX {
            let (first, _) = self.ranges.remove(0);
            self.ranges[0].0 = first;
        }
    }
}

impl Store {
    /// The next frame to send, of a stream that is not in `except`: the highest priority first, then the backlog, then the oldest. Each is given out
    /// once until [`Store::give_back`] or [`Store::requeue`]. A frame whose checksum does not hold is given up, with a gap in the next commit.
    ///
    /// # Errors
    /// What SQLite said.
    pub fn take(&mut self, except: &[Arc<str>]) -> Result<Option<StoredFrame>, StoreError> {
        let wanted = Wanted { except: except.into(), before: None, backlog_first: Turns::ALL };
        loop {
            match self.look_for(&wanted)? {
                Look::Frame(frame) => return Ok(Some(frame)),
                Look::Nothing => return Ok(None),
                Look::Unfinished => {}
            }
        }
    }

    /// As [`Store::take`], of the frames that are wanted, within a bound of time.
    ///
    /// # Errors
    /// As [`Store::take`].
    pub fn look_for(&mut self, wanted: &Wanted) -> Result<Look, StoreError> {
        let mut left = LOOKED_AT_MAX;
        let of_priority = |priority| wanted.lanes(priority).map(|lane| (priority, lane));
        let lanes = file::PRIORITIES.into_iter().flat_map(of_priority);
        for lane in lanes.filter(|&(priority, lane)| wanted.takes(priority, lane)) {
            while let Some(found) = self.coarsest_wanted(lane, &wanted.except, &mut left)? {
                match found {
                    Found::Whole(frame, sealed) => {
                        self.given.insert(frame.id, sealed);
                        return Ok(Look::Frame(StoredFrame { lane: lane.1, ..frame }));
                    }
                    Found::Damaged(id, sealed) => self.give_up(id, sealed),
                }
            }
            if left == 0 {
                return Ok(Look::Unfinished);
            }
        }
        if wanted.is_all() {
            self.look_for_missing();
        }
        Ok(Look::Nothing)
    }

    /// The next frame of a lane, of the coarsest level of ladders that has one.
    fn coarsest_wanted(
        &mut self,
        lane: (Priority, Lane),
        except: &[Arc<str>],
        left: &mut usize,
    ) -> Result<Option<Found>, StoreError> {
        let finer = self.plan.as_ref().map(|plan| by_fineness(plan)).unwrap_or_default();
        for rank in (0..finer.len()).rev() {
            let skipped = finer.iter().take(rank + 1).flatten();
            let except: Vec<Arc<str>> = except.iter().chain(skipped).cloned().collect();
            let found = self.next_wanted(lane, &except, left)?;
            if found.is_some() || *left == 0 {
                return Ok(found);
            }
        }
        self.next_wanted(lane, except, left)
    }

    /// The next frame of a lane: the streams whose newest frames go first, and all others together, take turns. `None` when there is none, or `left`
    /// was used up.
    fn next_wanted(
        &mut self,
        lane: (Priority, Lane),
        except: &[Arc<str>],
        left: &mut usize,
    ) -> Result<Option<Found>, StoreError> {
        self.follow_orders();
        let sides: Vec<Arc<str>> = self.backwards.keys().cloned().collect();
        for step in 0..=sides.len() {
            let side = (self.turn + step) % (sides.len() + 1);
            let found = match sides.get(side) {
                None => self.next_forwards(lane, except, left)?,
                Some(stream) if except.contains(stream) => None,
                Some(stream) => self.next_backwards(lane, stream, left)?,
            };
            if found.is_some() {
                self.turn = side + 1;
                return Ok(found);
            }
        }
        Ok(None)
    }

    /// The streams may have another order since the plan changed.
    fn follow_orders(&mut self) {
        let Some(plan) = &self.plan else { return };
        if self.ordered_by.as_ref().is_some_and(|known| Arc::ptr_eq(known, plan)) {
            return;
        }
        self.ordered_by = Some(plan.clone());
        let is_backwards =
            |name: &str| plan.streams.iter().any(|stream| *stream.name == *name && stream.order == Order::Newest);
        let Self { backwards, passed_over, recent, .. } = self;
        backwards.retain(|stream, _| {
            let stays = is_backwards(stream);
            if !stays {
                for priority in file::PRIORITIES {
                    let (first, new) = (file::id_range(priority).0 + 1, recent.old(priority) + 1);
                    passed_over.insert(((priority, Lane::Backlog), stream.clone()), FrameId(first));
                    passed_over.insert(((priority, Lane::Live), stream.clone()), FrameId(new));
                }
            }
            stays
        });
        for stream in plan.streams.iter().filter(|stream| stream.order == Order::Newest) {
            backwards.entry(stream.name.clone()).or_default();
        }
        passed_over.retain(|(_, stream), _| !backwards.contains_key(stream));
    }

    fn next_backwards(
        &mut self,
        (priority, lane): (Priority, Lane),
        stream: &Arc<str>,
        left: &mut usize,
    ) -> Result<Option<Found>, StoreError> {
        let Self { file, given, acknowledged, backwards, recent, .. } = self;
        let Some(unlooked) = backwards.get_mut(stream) else { return Ok(None) };
        let unlooked = unlooked.entry(priority).or_insert_with(|| Unlooked::from(file::id_range(priority).0));
        unlooked.reach(file.last_id(priority));
        unlooked.cut(recent.old(priority));
        while *left > 0 {
            let ranges = unlooked.ranges.iter_mut().enumerate().rev();
            let Some((place, (from, to))) = ranges.into_iter().find(|(_, (_, to))| recent.lane(FrameId(*to)) == lane)
            else {
                break;
            };
            let is_wanted =
                |id: FrameId, of: &str| *of == **stream && !given.contains_key(&id) && !acknowledged.contains(&id);
            let next = file.next_frame(priority, [*from - 1, *to + 1], Order::Newest, left, is_wanted);
            let (found, looked_to) = next.inspect_err(|error| file.condemn_for(error))?;
            *to = looked_to.map_or(*from, |id| id.0) - 1;
            if *to < *from {
                unlooked.ranges.remove(place);
            }
            if found.is_some() {
                return Ok(found);
            }
        }
        Ok(None)
    }

    fn next_forwards(
        &mut self,
        lane: (Priority, Lane),
        except: &[Arc<str>],
        left: &mut usize,
    ) -> Result<Option<Found>, StoreError> {
        let Self { file, given, acknowledged, fronts, passed_over, backwards, recent, .. } = self;
        let priority = lane.0;
        let is_waiting = |id| !given.contains_key(&id) && !acknowledged.contains(&id);
        let condemn = |error: &StoreError| file.condemn_for(error);
        let (all, old) = (file::id_range(priority), recent.old(priority));
        let (before_first, behind_last) = if lane.1 == Lane::Live { (old, all.1) } else { (all.0, old + 1) };
        let front = fronts.get(&lane).map_or(before_first, |front| front.0.max(before_first));
        // What lies behind the front is older.
        while *left > 0 {
            let streams = passed_over.iter_mut().filter(|((of, stream), _)| *of == lane && !except.contains(stream));
            let Some((key, from)) = streams.min_by_key(|(_, from)| **from) else { break };
            let within = [(from.0 - 1).max(before_first), front + 1];
            let is_wanted = |id, stream: &str| *stream == *key.1 && is_waiting(id);
            let (found, looked_to) =
                file.next_frame(priority, within, Order::Oldest, left, is_wanted).inspect_err(condemn)?;
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
            if backwards.contains_key(stream) {
                return false;
            }
            if let Some(stream) = except.iter().find(|except| ***except == *stream) {
                passed_over.entry((lane, stream.clone())).or_insert(id);
                return false;
            }
            is_waiting(id)
        };
        let (found, looked_to) = file
            .next_frame(priority, [front, behind_last], Order::Oldest, left, &mut is_wanted)
            .inspect_err(condemn)?;
        fronts.extend(looked_to.map(|id| (lane, id)));
        Ok(found)
    }

    /// These frames were given out and did not arrive: they are given out again, in order.
    pub fn give_back(&mut self, ids: &[FrameId]) {
        for &id in ids {
            if !self.acknowledged.contains(&id)
                && let Some(sealed) = self.given.remove(&id)
            {
                self.tried.insert(id);
                let priority = file::priority_of(id);
                if let Some(unlooked) = self.backwards.get_mut(&sealed.key.stream) {
                    unlooked.entry(priority).or_insert_with(|| Unlooked::from(file::id_range(priority).0)).again(id.0);
                    continue;
                }
                let lane = (priority, self.recent.lane(id));
                let first = self.passed_over.entry((lane, sealed.key.stream)).or_insert(id);
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
