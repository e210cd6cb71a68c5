//! What the broker is owed: acknowledgements of the messages that were taken, each after its commit and in order of arrival.
//!
//! Pure bookkeeping of packet ids. Invariants:
//! - an acknowledgement is released only when the delivery with the message is committed, and in the order in which the messages
//!   arrived (MQTT 3.1.1, 4.6.0-2);
//! - a message that was handed over stays recorded (packet id and hash of topic and payload), in the state that is committed with its own
//!   delivery, until the broker has certainly read the acknowledgement: until it answered a ping that was sent after it;
//! - so a message that comes again after a broken connection or a crash (DUP set, same id, same hash) is known, and is owed an
//!   acknowledgement but not taken twice.
//!
//! The records of one delivery are one value, because they are committed as one: a key for each message would double the cost of a commit.

use std::collections::{BTreeMap, HashMap, VecDeque};

use rtlive_core::sorted;

use crate::fnv;

/// What the keys of the kept state begin with; a number in hexadecimal follows.
const KEY_PREFIX: &str = "u";

/// The key of what is not kept: a message that nothing must be known of later.
const NO_KEY: u64 = 0;

/// The bytes of a record: the packet id and the hash, both little-endian.
const RECORD_BYTES: usize = 10;

/// What an arriving message is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Arrival {
    /// Not seen before.
    New,
    /// Handed over before; only its acknowledgement is owed.
    Again,
}

/// What changes in the kept state with the next delivery.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Changes {
    /// The record of the delivery's own messages.
    pub(super) keep: Option<(String, Vec<u8>)>,
    /// Records that have done their duty.
    pub(super) forget: Vec<String>,
}

/// An acknowledgement that is owed.
struct Owed {
    /// The delivery that must be committed first; `u64::MAX` while it is put together.
    after: u64,
    /// The record that it stands in.
    key: u64,
    id: u16,
}

/// A message of an earlier connection that the broker may send again.
struct Handed {
    hash: u64,
    /// The delivery that it went with, or a later one.
    number: u64,
    key: u64,
}

/// See the module.
#[derive(Default)]
pub(super) struct Unacknowledged {
    /// In order of arrival; the last `fresh.len()` new ones wait for their delivery.
    owed: VecDeque<Owed>,
    /// Of the delivery that is put together.
    fresh: Vec<(u16, u64)>,
    /// By packet id, so at most 65,535.
    handed_before: HashMap<u16, Handed>,
    /// The keys of acknowledgements that were written and may not have arrived.
    written: VecDeque<u64>,
    /// How many acknowledgements were written, and how many of these the broker has read.
    written_count: u64,
    read_count: u64,
    /// For each unanswered ping, how many acknowledgements were written before it.
    pings: VecDeque<u64>,
    /// How many messages of each record are open.
    open: BTreeMap<u64, usize>,
    /// Records without open messages.
    done: Vec<u64>,
    /// The key of the next record.
    next_key: u64,
}

impl Unacknowledged {
    /// From the kept state, all of which is on disk once delivery `number` is.
    pub(super) fn restore<'a>(kept: impl Iterator<Item = (&'a String, &'a Vec<u8>)>, number: u64) -> Self {
        let mut restored = Self { next_key: NO_KEY + 1, ..Self::default() };
        let mut kept: Vec<(u64, &Vec<u8>)> = kept.filter_map(|(name, value)| Some((key_of(name)?, value))).collect();
        // Where an id stands in two records, the later one is what the broker may send again.
        sorted::by_key(&mut kept, |(key, _)| *key);
        for (key, value) in kept {
            restored.next_key = restored.next_key.max(key.saturating_add(1));
            // One more than its messages while it is read, so that it is not done before its end.
            restored.open.insert(key, 1);
            for (id, hash) in records(value) {
                restored.close_handed(id);
                restored.handed_before.insert(id, Handed { hash, number, key });
                *restored.open.entry(key).or_default() += 1;
            }
            restored.close(key);
        }
        restored
    }

    /// The broker knows nothing of earlier connections: no message of them comes again.
    pub(super) fn session_lost(&mut self) {
        let ids: Vec<u16> = self.handed_before.keys().copied().collect();
        ids.into_iter().for_each(|id| self.close_handed(id));
    }

    /// A message of QoS 1 arrived that is not retained.
    pub(super) fn arrived(&mut self, id: u16, dup: bool, hash: u64) -> Arrival {
        if dup {
            match self.handed_before.remove(&id) {
                Some(handed) if handed.hash == hash => {
                    self.owed.push_back(Owed { after: handed.number, key: handed.key, id });
                    return Arrival::Again;
                }
                // The id was given to another message since; so it had been acknowledged.
                Some(handed) => self.close(handed.key),
                None => {}
            }
        } else if !self.handed_before.is_empty() {
            // What is sent again comes before what is new (MQTT 3.1.1, 4.6.0-1). Records kept longer than that could only be mistaken
            // for later messages of the same id and content.
            self.session_lost();
        }
        self.owed.push_back(Owed { after: u64::MAX, key: self.next_key, id });
        self.fresh.push((id, hash));
        Arrival::New
    }

    /// A message arrived that is not taken, and that nothing must be known of later.
    pub(super) fn ignored(&mut self, id: u16) {
        self.owed.push_back(Owed { after: 0, key: NO_KEY, id });
    }

    /// What must be committed with the delivery that has all messages that arrived since the last one. [`Unacknowledged::handed_over`] follows.
    pub(super) fn changes(&mut self) -> Changes {
        let forget = self.done.drain(..).map(name_of).collect();
        if self.fresh.is_empty() {
            return Changes { keep: None, forget };
        }
        let mut value = Vec::with_capacity(self.fresh.len() * RECORD_BYTES);
        for (id, hash) in &self.fresh {
            value.extend_from_slice(&id.to_le_bytes());
            value.extend_from_slice(&hash.to_le_bytes());
        }
        Changes { keep: Some((name_of(self.next_key), value)), forget }
    }

    /// The delivery has this number.
    pub(super) fn handed_over(&mut self, number: u64) {
        if self.fresh.is_empty() {
            return;
        }
        let mut left = self.fresh.len();
        for owed in self.owed.iter_mut().rev() {
            if left == 0 {
                break;
            }
            if owed.after == u64::MAX {
                owed.after = number;
                left -= 1;
            }
        }
        self.open.insert(self.next_key, self.fresh.len());
        self.next_key += 1;
        self.fresh.clear();
    }

    /// The packet ids to acknowledge now that delivery `committed` is on disk, in order; they are taken as written.
    pub(super) fn release(&mut self, committed: u64) -> Vec<u16> {
        let ready = self.owed.iter().take_while(|owed| owed.after <= committed).count();
        let mut ids = Vec::with_capacity(ready);
        for owed in self.owed.drain(..ready) {
            ids.push(owed.id);
            self.written.push_back(owed.key);
        }
        self.written_count += ids.len() as u64;
        ids
    }

    /// Whether acknowledgements were written that no unanswered ping asks about.
    pub(super) fn wants_ping(&self) -> bool {
        self.pings.is_empty() && self.written_count > self.read_count
    }

    /// A ping was written.
    pub(super) fn pinged(&mut self) {
        self.pings.push_back(self.written_count);
    }

    /// The broker answered a ping, so it has read everything that was written before it.
    pub(super) fn answered(&mut self) {
        let Some(read) = self.pings.pop_front() else { return };
        let count = usize::try_from(read.saturating_sub(self.read_count)).unwrap_or(usize::MAX);
        self.read_count = self.read_count.max(read);
        let keys: Vec<u64> = self.written.drain(..count.min(self.written.len())).collect();
        keys.into_iter().for_each(|key| self.close(key));
    }

    fn close_handed(&mut self, id: u16) {
        if let Some(handed) = self.handed_before.remove(&id) {
            self.close(handed.key);
        }
    }

    /// One message of a record needs no record any more.
    fn close(&mut self, key: u64) {
        if let Some(count) = self.open.get_mut(&key) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                self.open.remove(&key);
                self.done.push(key);
            }
        }
    }
}

fn name_of(key: u64) -> String {
    format!("{KEY_PREFIX}{key:x}")
}

fn key_of(name: &str) -> Option<u64> {
    u64::from_str_radix(name.strip_prefix(KEY_PREFIX)?, 16).ok().filter(|key| *key != NO_KEY)
}

fn records(value: &[u8]) -> impl Iterator<Item = (u16, u64)> {
    value.chunks_exact(RECORD_BYTES).filter_map(|record| {
        let (id, hash) = record.split_first_chunk()?;
        Some((u16::from_le_bytes(*id), u64::from_le_bytes(hash.try_into().ok()?)))
    })
}

/// The hash of a message.
pub(super) fn hash_of(topic: &str, payload: &[u8]) -> u64 {
    fnv::hash(topic.bytes().chain(std::iter::once(0)).chain(payload.iter().copied()))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    type Kept = BTreeMap<String, Vec<u8>>;

    /// A ledger with the state that its deliveries committed, as the session keeps it.
    #[derive(Default)]
    struct Rig {
        ledger: Unacknowledged,
        kept: Kept,
        number: u64,
    }

    impl Rig {
        fn new() -> Self {
            Self { ledger: Unacknowledged::restore([].iter().copied(), 0), ..Self::default() }
        }

        fn deliver(&mut self) -> u64 {
            let Changes { keep, forget } = self.ledger.changes();
            for name in forget {
                assert!(self.kept.remove(&name).is_some(), "{name} was not kept");
            }
            self.kept.extend(keep);
            self.number += 1;
            self.ledger.handed_over(self.number);
            self.number
        }

        fn reconnect(&mut self) {
            self.ledger = Unacknowledged::restore(self.kept.iter(), self.number);
        }
    }

    #[test]
    fn acknowledges_after_the_commit_and_in_order() {
        let mut rig = Rig::new();
        assert_eq!(rig.ledger.arrived(1, false, 11), Arrival::New);
        assert_eq!(rig.ledger.arrived(2, false, 22), Arrival::New);
        rig.ledger.ignored(3);
        assert_eq!(rig.ledger.release(7), [0_u16; 0]);
        let first = rig.deliver();
        rig.ledger.arrived(4, false, 44);
        let second = rig.deliver();
        assert_eq!(rig.ledger.release(first - 1), [0_u16; 0]);
        assert_eq!(rig.ledger.release(first), [1, 2, 3]);
        assert_eq!(rig.ledger.release(second), [4]);
    }

    #[test]
    fn forgets_only_what_the_broker_has_read() {
        let mut rig = Rig::new();
        rig.ledger.arrived(1, false, 11);
        let number = rig.deliver();
        rig.ledger.release(number);
        assert!(rig.ledger.wants_ping());
        rig.deliver();
        assert_eq!(rig.kept.len(), 1);
        rig.ledger.pinged();
        assert!(!rig.ledger.wants_ping());
        rig.ledger.answered();
        rig.deliver();
        assert_eq!(rig.kept.len(), 0);
    }

    #[test]
    fn knows_what_comes_again() {
        let mut rig = Rig::new();
        for id in 1..=3 {
            rig.ledger.arrived(id, false, u64::from(id) * 11);
        }
        let number = rig.deliver();
        rig.reconnect();
        assert_eq!(rig.ledger.arrived(1, true, 11), Arrival::Again);
        assert_eq!(rig.ledger.arrived(2, true, 99), Arrival::New, "the id, but another message");
        assert_eq!(rig.ledger.arrived(9, true, 99), Arrival::New, "sent before, but never handed over");
        assert_eq!(rig.ledger.release(number - 1), [0_u16; 0]);
        assert_eq!(rig.ledger.release(number), [1]);
        assert_eq!(rig.ledger.arrived(3, false, 33), Arrival::New, "not sent again: a new message");
        let number = rig.deliver();
        assert_eq!(rig.ledger.release(number), [2, 9, 3]);
        rig.ledger.pinged();
        rig.ledger.answered();
        rig.deliver();
        assert_eq!(rig.kept.len(), 0);
    }

    #[test]
    fn a_lost_session_is_forgotten() {
        let mut rig = Rig::new();
        rig.ledger.arrived(1, false, 11);
        rig.deliver();
        rig.reconnect();
        rig.ledger.session_lost();
        assert_eq!(rig.ledger.arrived(1, true, 11), Arrival::New);
        rig.deliver();
        assert_eq!(rig.kept.len(), 1);
    }

    /// What a broker may do, in the words of a model: it gives ids, resends what it has no acknowledgement for, and loses what is on the way.
    #[derive(Clone, Debug)]
    enum Step {
        Publish,
        Deliver,
        Commit,
        /// Acknowledgements that are ready are written; so many of them arrive.
        Acknowledge,
        Ping,
        /// The connection breaks; so many of the written acknowledgements had arrived.
        Break(usize),
        /// The process dies: what is not committed is gone.
        Crash,
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let step = prop_oneof![
            6 => Just(Step::Publish),
            3 => Just(Step::Deliver),
            3 => Just(Step::Commit),
            3 => Just(Step::Acknowledge),
            2 => Just(Step::Ping),
            1 => (0_usize..6).prop_map(Step::Break),
            1 => Just(Step::Crash),
        ];
        prop::collection::vec(step, 1..120)
    }

    proptest! {
        /// Through any breaks and crashes each message is committed exactly once, however alike the messages are.
        #[test]
        fn each_message_is_committed_once(steps in steps()) {
            let mut rig = Rig::new();
            let mut committed_kept = BTreeMap::new();
            let mut published = 0_u64;
            // The broker: unacknowledged (id, message) in order; ids in turn. Messages carry their number modulo 2 only.
            let mut inflight: VecDeque<(u16, u64)> = VecDeque::new();
            let mut on_the_way: Vec<u16> = Vec::new();
            // Ours: messages by delivery.
            let mut building: Vec<u64> = Vec::new();
            let mut handed: Vec<(u64, Vec<u64>, Kept)> = Vec::new();
            let mut taken: BTreeMap<u64, u32> = BTreeMap::new();
            let mut committed = 0;
            let resend = |rig: &mut Rig, inflight: &VecDeque<(u16, u64)>, building: &mut Vec<u64>| {
                for (id, message) in inflight {
                    if rig.ledger.arrived(*id, true, message % 2) == Arrival::New {
                        building.push(*message);
                    }
                }
            };
            let all = steps.into_iter().chain([Step::Deliver, Step::Commit]);
            for step in all {
                match step {
                    Step::Publish => {
                        published += 1;
                        let id = u16::try_from(published % 1000 + 1).unwrap();
                        inflight.push_back((id, published));
                        if rig.ledger.arrived(id, false, published % 2) == Arrival::New {
                            building.push(published);
                        }
                    }
                    Step::Deliver => {
                        let number = rig.deliver();
                        handed.push((number, std::mem::take(&mut building), rig.kept.clone()));
                    }
                    Step::Commit => {
                        for (number, messages, kept) in handed.drain(..) {
                            committed = number;
                            committed_kept = kept;
                            messages.into_iter().for_each(|message| *taken.entry(message).or_default() += 1);
                        }
                    }
                    Step::Acknowledge => on_the_way.extend(rig.ledger.release(committed)),
                    Step::Ping => {
                        rig.ledger.pinged();
                        inflight.retain(|(id, _)| !on_the_way.contains(id));
                        on_the_way.clear();
                        rig.ledger.answered();
                    }
                    Step::Break(arrived) => {
                        let arrived = arrived.min(on_the_way.len());
                        inflight.retain(|(id, _)| !on_the_way[..arrived].contains(id));
                        on_the_way.clear();
                        // What was being put together goes with the first delivery of the next run.
                        let number = rig.deliver();
                        handed.push((number, std::mem::take(&mut building), rig.kept.clone()));
                        rig.reconnect();
                        resend(&mut rig, &inflight, &mut building);
                    }
                    Step::Crash => {
                        on_the_way.clear();
                        building.clear();
                        handed.clear();
                        committed = 0;
                        rig.kept = committed_kept.clone();
                        rig.number = 0;
                        rig.ledger = Unacknowledged::restore(rig.kept.iter(), 0);
                        resend(&mut rig, &inflight, &mut building);
                    }
                }
            }
            for message in 1..=published {
                prop_assert_eq!(taken.get(&message), Some(&1), "message {}", message);
            }
        }
    }
}
