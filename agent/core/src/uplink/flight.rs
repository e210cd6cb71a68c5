//! What is on its way: frames with the messages that they became, and messages that wait for their acknowledgement.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use super::estimate::{Departure, Estimate};
use super::wire::{Cost, Wire};
use super::{FrameId, Lane, Parcel, Publication, Retained, Token, Turns};
use crate::message::{HEADER_BYTES_MAX, PART_BYTES_MIN};
use crate::plan::Priority;

/// The place of a frame in the order of sending: its priority and lane, then the order in which frames were offered.
type Place = (Priority, Lane, u64);

/// A frame that the store gave out.
#[derive(Debug)]
struct Held {
    id: FrameId,
    stream: Arc<str>,
    topic: Arc<str>,
    /// What goes before the messages and is not sent.
    schema: Option<Retained>,
    unsent: VecDeque<Vec<u8>>,
    /// Messages that are sent and not acknowledged.
    awaited: usize,
    /// Whether any message of it was sent.
    begun: bool,
}

/// A message that is sent and not acknowledged.
#[derive(Debug)]
struct Sent {
    place: Place,
    bytes: usize,
    departure: Departure,
}

/// The message that goes next.
#[derive(Clone, Copy, Debug)]
pub(super) struct Next {
    pub(super) priority: Priority,
    pub(super) lane: Lane,
    /// What it takes of the link.
    pub(super) cost: Cost,
}

/// What an acknowledgement came to.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Settled {
    /// Nothing: the token is not known, or more messages of the frame are on their way.
    Open,
    /// The frame of this stream has arrived.
    Arrived(FrameId, Arc<str>),
    /// A message of this frame was refused; the frame is out of the account.
    Refused(FrameId, Arc<str>),
}

/// The account of what is on its way, and what it tells of the link.
#[derive(Debug, Default)]
pub(super) struct Flight {
    wire: Wire,
    pub(super) estimate: Estimate,
    frames: BTreeMap<Place, Held>,
    sent: BTreeMap<Token, Sent>,
    unsent_bytes: usize,
    sent_bytes: usize,
    last_order: u64,
    last_token: u64,
    /// When the link last showed progress: an acknowledgement, or a message after silence.
    progress_at: Duration,
}

impl Flight {
    /// Nothing is on its way.
    pub(super) fn over(wire: Wire) -> Self {
        Self { wire, ..Self::default() }
    }

    /// Takes a frame in, as the messages that it becomes.
    pub(super) fn hold(&mut self, parcel: Parcel, messages: Vec<Vec<u8>>) {
        self.last_order += 1;
        let Parcel { id, stream, topic, priority, lane, schema, .. } = parcel;
        let held = Held { id, stream, topic, schema, unsent: messages.into(), awaited: 0, begun: false };
        self.unsent_bytes += held.unsent_bytes();
        self.frames.insert((priority, lane, self.last_order), held);
    }

    /// The message that goes next, where it is the backlog's turn in these priorities.
    pub(super) fn next(&self, turns: Turns) -> Option<Next> {
        let (priority, lane, order) = self.next_place(turns)?;
        let held = self.frames.get(&(priority, lane, order))?;
        let (topic, message) = match &held.schema {
            Some(schema) => (&schema.topic, &schema.message),
            None => (&held.topic, held.unsent.front()?),
        };
        let cost = self.wire.publish(topic.len(), message.len());
        Some(Next { priority, lane, cost })
    }

    fn next_place(&self, turns: Turns) -> Option<Place> {
        let mut unsent = self.frames.iter().filter(|(_, held)| !held.unsent.is_empty()).map(|(&place, _)| place);
        let first = unsent.next()?;
        if first.1 == Lane::Backlog || !turns.has(first.0) {
            return Some(first);
        }
        Some(unsent.find(|&(priority, lane, _)| priority == first.0 && lane == Lane::Backlog).unwrap_or(first))
    }

    /// Whether a message of this priority and lane waits to be sent.
    pub(super) fn has_unsent(&self, priority: Priority, lane: Lane) -> bool {
        let of_lane = self.frames.range((priority, lane, 0)..=(priority, lane, u64::MAX));
        of_lane.into_iter().any(|(_, held)| !held.unsent.is_empty())
    }

    /// Sends the next message.
    pub(super) fn send(&mut self, turns: Turns, now: Duration) -> Option<Publication> {
        let place = self.next_place(turns)?;
        let held = self.frames.get_mut(&place)?;
        let (topic, payload, retain) = match held.schema.take() {
            Some(schema) => (schema.topic, schema.message, true),
            None => (held.topic.clone(), held.unsent.pop_front()?, false),
        };
        held.awaited += 1;
        held.begun = true;
        self.last_token += 1;
        let token = Token(self.last_token);
        if self.sent.is_empty() {
            self.progress_at = now;
        }
        self.unsent_bytes -= payload.len();
        self.sent_bytes += payload.len();
        let link_bytes = self.wire.publish(topic.len(), payload.len()).up;
        let departure = self.estimate.depart(link_bytes, now);
        self.sent.insert(token, Sent { place, bytes: payload.len(), departure });
        Some(Publication { token, frame: held.id, topic, payload, retain })
    }

    /// Takes an acknowledgement in.
    pub(super) fn settle(&mut self, token: Token, taken: bool, now: Duration) -> Settled {
        let Some(Sent { place, bytes, departure }) = self.sent.remove(&token) else { return Settled::Open };
        self.sent_bytes -= bytes;
        self.estimate.arrive(&departure, now);
        self.progress_at = now;
        // The frame may be gone: another message of it was refused.
        let Some(held) = self.frames.get_mut(&place) else { return Settled::Open };
        held.awaited -= 1;
        let over = !taken || held.awaited == 0 && held.unsent.is_empty();
        if !over {
            return Settled::Open;
        }
        match self.remove(place) {
            Some(held) if taken => Settled::Arrived(held.id, held.stream),
            Some(held) => Settled::Refused(held.id, held.stream),
            None => Settled::Open,
        }
    }

    /// Gives up the frames of a stream of which nothing was sent, in order.
    pub(super) fn withdraw_unsent(&mut self, stream: &str) -> Vec<FrameId> {
        let untouched = self.frames.iter().filter(|(_, held)| !held.begun && &*held.stream == stream);
        let places: Vec<Place> = untouched.map(|(&place, _)| place).collect();
        places.into_iter().filter_map(|place| self.remove(place)).map(|held| held.id).collect()
    }

    /// Forgets all that belongs to a connection; whether there was a frame.
    pub(super) fn clear(&mut self) -> bool {
        let any = !self.frames.is_empty();
        self.frames.clear();
        self.sent.clear();
        self.unsent_bytes = 0;
        self.sent_bytes = 0;
        self.estimate = Estimate::default();
        any
    }

    /// How many frames there are.
    pub(super) fn frames(&self) -> usize {
        self.frames.len()
    }

    /// How many messages are sent and not acknowledged.
    pub(super) fn messages(&self) -> usize {
        self.sent.len()
    }

    /// Whether everything that was taken is sent.
    pub(super) fn is_all_sent(&self) -> bool {
        self.unsent_bytes == 0
    }

    /// How long the parts of a frame of this topic may be, so that a message does not occupy the link for too long, nor takes more of it than this.
    pub(super) fn part_bytes(&self, topic: &str, link_bytes_max: u64) -> usize {
        let around = self.wire.publish(topic.len(), HEADER_BYTES_MAX).up;
        let whole = (self.estimate.part_bytes() as u64).min(link_bytes_max);
        (whole.saturating_sub(around) as usize).max(PART_BYTES_MIN)
    }

    /// The bytes of all messages that are not acknowledged, sent or not.
    pub(super) fn bytes(&self) -> usize {
        self.sent_bytes + self.unsent_bytes
    }

    /// Since when the link has owed an acknowledgement without any progress.
    pub(super) fn silent_since(&self) -> Option<Duration> {
        (!self.sent.is_empty()).then_some(self.progress_at)
    }

    fn remove(&mut self, place: Place) -> Option<Held> {
        let held = self.frames.remove(&place)?;
        self.unsent_bytes -= held.unsent_bytes();
        Some(held)
    }
}

impl Held {
    fn unsent_bytes(&self) -> usize {
        let schema = self.schema.as_ref().map_or(0, |schema| schema.message.len());
        schema + self.unsent.iter().map(Vec::len).sum::<usize>()
    }
}
