use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;
use crate::message::Message;
use crate::plan::Priority;
use crate::time::Timestamp;
use crate::uplink::wire::Wire;
use crate::uplink::{Publication, Refusal};

#[path = "sender/links_tests.rs"]
mod links;
#[path = "sender/sleep_tests.rs"]
mod sleep;

const TERMS: Terms = Terms {
    wire: Wire { tls: true, identity: false, greeting_bytes: 50, status_bytes: 175 },
    keep_alive: Duration::from_secs(60),
    backlog_percent: 20,
};
const STREAMS: [&str; 3] = ["alerts", "raw", "minute"];

fn parcel(id: i64, stream: usize, bytes: usize) -> Parcel {
    let name = STREAMS[stream % STREAMS.len()];
    let priority = if stream == 0 { Priority::Alert } else { Priority::Live };
    Parcel {
        id: FrameId(id),
        stream: name.into(),
        topic: format!("t/{name}").into(),
        priority,
        lane: if id % 5 > 2 { Lane::Backlog } else { Lane::Live },
        committed_at: Timestamp::EPOCH,
        json: false,
        bytes: vec![0; bytes].into(),
        schema: None,
    }
}

/// A store and a link, both as the contract describes them, that check what the sender does.
struct Model {
    sender: Sender,
    now: Duration,
    stored: BTreeMap<(Priority, FrameId), Parcel>,
    given_out: BTreeSet<FrameId>,
    delivered: Vec<FrameId>,
    limits: Limits,
    connected: bool,
    connecting: bool,
    trying: bool,
    /// The way that was connected last, and the one that was tried beside it; over each link there are so many.
    way: usize,
    tried: Option<usize>,
    brokers: usize,
    /// What each link cost on each day.
    cost: BTreeMap<(usize, u64), u64>,
    /// Where the connection is counted that was tried last.
    attempt: (usize, u64),
    /// Unacknowledged messages of this connection, in order.
    unacknowledged: VecDeque<Publication>,
    /// The first token that belongs to a frame's present attempt; earlier ones are of an attempt that was given up.
    attempt_since: BTreeMap<FrameId, Token>,
    /// Acknowledged bytes of each frame's present attempt.
    taken_bytes: BTreeMap<FrameId, usize>,
    /// The last frame of each stream and lane that was published in this connection.
    newest: BTreeMap<(Arc<str>, Lane), FrameId>,
    /// Whether a frame was given back in this connection: it goes again behind later ones.
    retried: bool,
    takes: usize,
    requeue_due: bool,
}

impl Model {
    fn new(parcels: Vec<Parcel>, limits: Limits, seed: u64) -> Self {
        let stored = parcels.into_iter().map(|parcel| ((parcel.priority, parcel.id), parcel)).collect();
        Self {
            sender: Sender::new(seed, TERMS),
            now: Duration::ZERO,
            stored,
            given_out: BTreeSet::new(),
            delivered: Vec::new(),
            limits,
            connected: false,
            connecting: false,
            trying: false,
            way: 0,
            tried: None,
            brokers: 1,
            cost: BTreeMap::new(),
            attempt: (0, 0),
            unacknowledged: VecDeque::new(),
            attempt_since: BTreeMap::new(),
            taken_bytes: BTreeMap::new(),
            newest: BTreeMap::new(),
            retried: false,
            takes: 0,
            requeue_due: false,
        }
    }

    fn now(&self) -> Now {
        Now { steady: self.now, wall: Timestamp::EPOCH.saturating_add(self.now) }
    }

    fn handle(&mut self, event: Event) {
        self.sender.handle(self.now(), event);
        self.settle();
    }

    /// Carries out what the sender wants until it wants nothing.
    fn settle(&mut self) {
        for _ in 0..10_000 {
            let Some(action) = self.sender.poll(self.now()) else { return };
            self.carry_out(action);
        }
        panic!("the sender never rests");
    }

    fn carry_out(&mut self, action: Action) {
        match action {
            Action::Connect(way) => {
                assert!(!self.connected && !self.connecting);
                (self.connecting, self.way) = (true, way);
                // A connection that stands, or is being made, is paid already.
                if self.tried.take() != Some(way) {
                    self.attempt = self.pay(way, TERMS.wire.connect());
                }
            }
            Action::Try(way) => {
                assert!(self.connected && !self.trying && way < self.way);
                (self.trying, self.tried) = (true, Some(way));
                self.attempt = self.pay(way, TERMS.wire.connect());
            }
            Action::Take(wanted) => {
                let is_look = wanted.before == Some((Priority::Live, Lane::Live));
                assert!(self.connected || is_look, "frames are taken for a link");
                assert!(!self.requeue_due, "a loss is followed by a requeue before the next take");
                self.takes += 1;
                let is_wanted = |parcel: &&Parcel| {
                    !self.given_out.contains(&parcel.id)
                        && !wanted.except.contains(&parcel.stream)
                        && wanted.takes(parcel.priority, parcel.lane)
                };
                let goes_first = |parcel: &&Parcel| {
                    let lanes = wanted.lanes(parcel.priority);
                    (parcel.priority, lanes.iter().position(|lane| *lane == parcel.lane), parcel.id)
                };
                let next = self.stored.values().filter(is_wanted).min_by_key(goes_first);
                let event = match next {
                    Some(parcel) => Event::Offered(parcel.clone()),
                    None => Event::NothingOffered,
                };
                if let Event::Offered(parcel) = &event {
                    self.given_out.insert(parcel.id);
                }
                self.sender.handle(self.now(), event);
            }
            Action::Publish(publication) => {
                assert!(self.connected);
                let parcel = self.stored.values().find(|parcel| parcel.id == publication.frame).unwrap();
                assert!(self.given_out.contains(&publication.frame));
                let packet = publication.payload.len() + publication.topic.len() + PUBLISH_OVERHEAD_BYTES;
                assert!(packet <= self.limits.packet_bytes_max as usize);
                let newest = self.newest.entry((parcel.stream.clone(), parcel.lane)).or_insert(publication.frame);
                assert!(self.retried || *newest <= publication.frame, "a lane of a stream goes in order");
                *newest = publication.frame;
                self.attempt_since.entry(publication.frame).or_insert(publication.token);
                self.pay(self.way, TERMS.wire.publish(publication.topic.len(), publication.payload.len()));
                self.unacknowledged.push_back(publication);
                let bytes: usize = self.unacknowledged.iter().map(|sent| sent.payload.len()).sum();
                assert!(self.unacknowledged.len() <= usize::from(self.limits.messages_max.max(1)));
                assert!(bytes <= BYTES_MAX || self.unacknowledged.len() == 1);
            }
            Action::Delivered(id) => {
                let (&place, parcel) = self.stored.iter().find(|(_, parcel)| parcel.id == id).unwrap();
                assert_eq!(self.taken_bytes.get(&id), Some(&parcel.bytes.len()), "all of it arrived");
                assert!(self.given_out.remove(&id));
                self.stored.remove(&place);
                self.delivered.push(id);
            }
            Action::Return(id) => {
                self.retried = true;
                assert!(self.given_out.remove(&id));
                self.attempt_since.remove(&id);
                self.taken_bytes.remove(&id);
            }
            Action::Requeue => {
                self.given_out.clear();
                self.requeue_due = false;
            }
            Action::Disconnect(farewell) => {
                if farewell != Farewell::Stalled {
                    self.pay(self.way, TERMS.wire.close());
                }
                self.lose();
            }
            Action::SaveBudget { .. } => self.sender.handle(self.now(), Event::BudgetSaved),
            Action::Hint { connected, .. } => assert_eq!(connected, self.connected),
        }
    }

    fn pay(&mut self, way: usize, cost: Cost) -> (usize, u64) {
        let account = (way / self.brokers, self.now.as_secs() / 86_400);
        *self.cost.entry(account).or_default() += cost.both();
        account
    }

    /// The connection that was tried last was not made, and did not carry all of it.
    fn pay_back(&mut self, loss: Loss) {
        let carried = match loss {
            Loss::Unsent => 0,
            Loss::Unreached => crate::uplink::wire::UNREACHED.both(),
            _ => return,
        };
        *self.cost.entry(self.attempt).or_default() -= TERMS.wire.connect().both() - carried;
    }

    fn lose(&mut self) {
        self.connected = false;
        self.connecting = false;
        self.trying = false;
        self.unacknowledged.clear();
        self.attempt_since.clear();
        self.taken_bytes.clear();
        self.newest.clear();
        self.retried = false;
        self.requeue_due = !self.given_out.is_empty();
    }

    fn connect(&mut self) {
        if std::mem::take(&mut self.connecting) {
            self.connected = true;
            self.handle(Event::Connected(self.limits));
        }
    }

    fn end_trial(&mut self, result: Result<(), Loss>) {
        if std::mem::take(&mut self.trying) {
            self.tried = self.tried.filter(|_| result.is_ok());
            result.err().into_iter().for_each(|loss| self.pay_back(loss));
            self.handle(Event::Tried(result));
        }
    }

    fn acknowledge(&mut self, place: usize, verdict: Verdict) {
        let Some(sent) = self.unacknowledged.remove(place) else { return };
        let current = self.attempt_since.get(&sent.frame).is_some_and(|&since| since <= sent.token);
        if current && verdict == Verdict::Taken {
            *self.taken_bytes.entry(sent.frame).or_default() += part_bytes(&sent.payload);
        }
        self.handle(Event::Acknowledged { token: sent.token, verdict: verdict.clone() });
        // A late double of it changes nothing.
        self.handle(Event::Acknowledged { token: sent.token, verdict });
    }

    fn disconnect(&mut self, loss: Loss) {
        if self.connected || self.connecting {
            if self.connecting {
                self.pay_back(loss);
            }
            self.lose();
            self.sender.handle(self.now(), Event::Disconnected(loss));
            self.tried = self.tried.filter(|way| self.sender.keeps_trial(*way));
            self.settle();
            assert_eq!((self.sender.messages_in_flight(), self.sender.bytes_in_flight()), (0, 0));
            assert!(self.given_out.is_empty(), "after a loss nothing is out");
        }
    }

    /// Moves the clock to the sender's next wish.
    fn sleep(&mut self) {
        if let Some(at) = self.sender.wake_at(self.now()) {
            self.now = self.now.max(at);
        }
        self.settle();
    }

    fn take(&mut self, step: Step) {
        match step {
            Step::Acknowledge(place) => self.acknowledge(place, Verdict::Taken),
            Step::Refuse(place, refusal) => self.acknowledge(place, Verdict::Refused(refusal)),
            Step::Lose(loss) => self.disconnect(loss),
            Step::Connect => self.connect(),
            Step::Try(result) => self.end_trial(result),
            Step::Sleep => self.sleep(),
            Step::Pass(ms) => {
                self.now += Duration::from_millis(ms);
                self.settle();
            }
            Step::Announce => self.handle(Event::FramesAvailable),
        }
    }

    /// A good link until everything is delivered.
    fn finish(&mut self) {
        for _ in 0..5000 {
            if self.stored.is_empty() {
                return;
            }
            if self.connecting {
                self.connect();
            } else if self.unacknowledged.is_empty() {
                self.sleep();
            } else {
                self.now += Duration::from_millis(10);
                self.acknowledge(0, Verdict::Taken);
            }
        }
        panic!("{} frames are left over a good link in {:?}", self.stored.len(), self.sender);
    }
}

/// How much of its frame a message carries.
fn part_bytes(payload: &[u8]) -> usize {
    Message::parse(payload).map_or(payload.len(), |message| message.part.len())
}

/// What the world does next.
#[derive(Clone, Copy, Debug)]
enum Step {
    Acknowledge(usize),
    Refuse(usize, Refusal),
    Lose(Loss),
    Connect,
    /// Whatever is tried beside the connection ends so.
    Try(Result<(), Loss>),
    Sleep,
    Pass(u64),
    Announce,
}

fn loss() -> impl Strategy<Value = Loss> {
    use Loss::{Broken, Busy, Refused, TakenOver, Unreached, Unsent, VersionRefused};
    prop::sample::select(vec![Broken, Unreached, Unsent, VersionRefused, Refused, Busy, TakenOver])
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => (0_usize..3).prop_map(Step::Acknowledge),
        2 => (0_usize..3, prop::sample::select(&[Refusal::NobodySubscribed, Refusal::NotAuthorized][..]))
            .prop_map(|(place, refusal)| Step::Refuse(place, refusal)),
        1 => loss().prop_map(Step::Lose),
        4 => Just(Step::Connect),
        2 => prop_oneof![Just(Ok(())), loss().prop_map(Err)].prop_map(Step::Try),
        3 => Just(Step::Sleep),
        2 => (0_u64..1_000_000).prop_map(Step::Pass),
        1 => Just(Step::Announce),
    ]
}

proptest! {
    #[test]
    fn every_frame_arrives_whole_over_any_link(
        frames in prop::collection::vec((0_usize..3, 1_usize..200_000), 1..60),
        steps in prop::collection::vec(step(), 0..150),
        messages_max in prop::sample::select(&[0_u16, 1, 2, 20, u16::MAX][..]),
        packet_bytes_max in prop::sample::select(&[2048_u32, 65_536, Limits::NONE.packet_bytes_max][..]),
        seed: u64,
        brokers in 1_usize..4,
    ) {
        let parcels: Vec<Parcel> =
            frames.iter().zip(1..).map(|(&(stream, bytes), id)| parcel(id, stream, bytes)).collect();
        let count = parcels.len();
        let mut model = Model::new(parcels, Limits { messages_max, packet_bytes_max }, seed);
        model.sender.fail_over(Failover::among(brokers, Duration::from_secs(300)));
        model.settle();
        model.brokers = brokers;
        steps.into_iter().for_each(|step| model.take(step));
        model.finish();
        prop_assert_eq!(model.delivered.len(), count);
    }
}

fn connected(parcels: Vec<Parcel>, limits: Limits) -> Model {
    let mut model = Model::new(parcels, limits, 1);
    model.settle();
    model.connect();
    model
}

#[test]
fn an_alert_goes_before_the_rest_of_a_long_frame() {
    let mut model = connected(vec![parcel(1, 1, 20 * 1000)], Limits { messages_max: 1, packet_bytes_max: 2048 });
    assert_eq!(model.unacknowledged[0].frame, FrameId(1));
    let alert = parcel(2, 0, 100);
    model.stored.insert((alert.priority, alert.id), alert);
    model.handle(Event::FramesAvailable);
    model.acknowledge(0, Verdict::Taken);
    assert_eq!(model.unacknowledged[0].frame, FrameId(2));
    model.finish();
    assert_eq!(model.delivered, [FrameId(2), FrameId(1)]);
}

#[test]
fn a_denied_stream_does_not_hold_up_the_others() {
    let mut parcels: Vec<Parcel> = (1..200).map(|id| parcel(id, 1, 300)).collect();
    parcels.extend((200..300).map(|id| parcel(id, 2, 300)));
    let mut model = connected(parcels, Limits::NONE);
    for _ in 0..2000 {
        match model.unacknowledged.front() {
            Some(sent) if &*sent.topic == "t/raw" => {
                model.acknowledge(0, Verdict::Refused(Refusal::NotAuthorized));
            }
            Some(_) => model.acknowledge(0, Verdict::Taken),
            None if model.delivered.len() == 100 => break,
            None => model.sleep(),
        }
    }
    model.delivered.sort_unstable();
    assert_eq!(model.delivered, (200..300).map(FrameId).collect::<Vec<_>>());
    assert_eq!(model.sender.refused().next().map(|refused| refused.refusal), Some(Refusal::NotAuthorized));
    // One frame at a time finds out whether it is still denied.
    let takes = model.takes;
    for _ in 0..5 {
        model.sleep();
        assert_eq!(model.unacknowledged.len(), 1);
        model.acknowledge(0, Verdict::Refused(Refusal::NotAuthorized));
    }
    assert!(model.takes - takes <= 20, "{} takes", model.takes - takes);
    model.finish();
    assert_eq!(model.delivered.len(), 299);
}

#[test]
fn a_frame_that_the_broker_can_never_take_lets_the_others_pass() {
    let limits = Limits { messages_max: 20, packet_bytes_max: 4096 };
    let mut long = parcel(1, 1, 5000);
    long.json = true;
    let mut model = connected(vec![long, parcel(2, 1, 5000)], limits);
    while !model.unacknowledged.is_empty() {
        model.acknowledge(0, Verdict::Taken);
    }
    assert_eq!((model.delivered.as_slice(), model.sender.set_aside()), (&[FrameId(2)][..], 1));
    model.disconnect(Loss::Broken);
    model.limits = Limits::NONE;
    model.finish();
    assert_eq!(model.delivered, [FrameId(2), FrameId(1)]);
}

#[test]
fn a_silent_broker_is_left() {
    let mut model = connected(vec![parcel(1, 1, 100)], Limits::NONE);
    model.now += ACKNOWLEDGEMENT_WAIT_MAX / 2;
    model.settle();
    assert!(model.connected);
    model.sleep();
    assert!(!model.connected && matches!(model.sender.state(), State::Waiting { .. }));
    model.finish();
}

#[test]
fn an_idle_link_is_left_alone() {
    let mut model = connected(Vec::new(), Limits::NONE);
    assert_eq!(model.sender.wake_at(model.now()), None);
    let takes = model.takes;
    for _ in 0..100 {
        model.settle();
    }
    assert_eq!(model.takes, takes, "spurious polls do nothing");
    model.handle(Event::FramesAvailable);
    assert_eq!(model.takes, takes + 1);
}

#[test]
fn only_a_stable_connection_resets_the_backoff() {
    let wait = |lasting: Duration| {
        let mut model = Model::new(Vec::new(), Limits::NONE, 3);
        model.settle();
        let mut longest = Duration::ZERO;
        for _ in 0..50 {
            model.connect();
            model.now += lasting;
            model.disconnect(Loss::Broken);
            if let State::Waiting { until } = model.sender.state() {
                longest = longest.max(until - model.now);
            }
            model.sleep();
        }
        longest
    };
    assert!(wait(STABLE_AFTER) <= RECONNECT_WAIT_MIN * 3);
    assert!(wait(STABLE_AFTER - Duration::from_millis(1)) > RECONNECT_WAIT_MAX / 4);
}

#[test]
fn a_fight_over_the_client_id_is_not_taken_up() {
    let mut model = connected(Vec::new(), Limits::NONE);
    let before = model.now;
    model.disconnect(Loss::TakenOver);
    model.sleep();
    assert!(model.connecting && model.now - before >= TAKEN_OVER_WAIT_MIN);
}

#[test]
fn a_preferred_broker_that_is_back_gets_what_was_not_sent_and_loses_nothing_that_was() {
    let parcels = (1..100).map(|id| parcel(id, 1, 1000)).collect();
    let mut model = Model::new(parcels, Limits { messages_max: 2, ..Limits::NONE }, 1);
    model.sender.fail_over(Failover::among(2, Duration::from_secs(300)));
    model.settle();
    model.disconnect(Loss::Broken);
    assert!(model.connecting, "the second is asked at once");
    model.connect();
    while !model.trying {
        model.now += Duration::from_secs(10);
        model.acknowledge(0, Verdict::Taken);
    }
    let delivered = model.delivered.len();
    assert!((1..99).contains(&delivered), "{delivered} frames");
    model.acknowledge(0, Verdict::Taken);
    model.end_trial(Ok(()));
    let on_their_way = model.unacknowledged.len();
    assert!(model.connected && on_their_way > 0);
    model.acknowledge(0, Verdict::Taken);
    assert_eq!(model.unacknowledged.len(), on_their_way - 1, "nothing new goes to the one that is left");
    while model.connected {
        model.acknowledge(0, Verdict::Taken);
    }
    assert!(model.connecting && model.given_out.is_empty());
    model.finish();
    model.delivered.sort_unstable();
    assert_eq!(model.delivered, (1..100).map(FrameId).collect::<Vec<_>>());
}

#[test]
fn a_stop_sends_what_there_is_within_its_bound() {
    let mut model = connected((1..100).map(|id| parcel(id, 1, 1000)).collect(), Limits::NONE);
    model.handle(Event::Stop);
    while let Some(sent) = model.unacknowledged.front() {
        assert!(model.connected, "{sent:?}");
        model.acknowledge(0, Verdict::Taken);
    }
    assert_eq!((model.sender.state(), model.delivered.len()), (State::Stopped, 99));

    let mut model = connected(vec![parcel(1, 1, 300)], Limits::NONE);
    model.handle(Event::Stop);
    assert!(model.connected);
    model.sleep();
    assert_eq!((model.now, model.sender.state()), (STOP_WITHIN, State::Stopped));
    assert!(!model.connected && model.given_out.is_empty());

    let mut model = Model::new(Vec::new(), Limits::NONE, 1);
    model.settle();
    model.handle(Event::Stop);
    assert_eq!(model.sender.state(), State::Stopped);

    // Frames of the last commit, of which the sender was not told before it was told to stop.
    let mut model = connected(Vec::new(), Limits::NONE);
    model.stored.insert((Priority::Live, FrameId(1)), parcel(1, 1, 300));
    model.handle(Event::Stop);
    model.acknowledge(0, Verdict::Taken);
    assert_eq!((model.sender.state(), model.delivered.len()), (State::Stopped, 1));
}

#[test]
fn frames_that_wait_for_the_link_are_told_to_the_store() {
    let mut sender = Sender::new(1, TERMS);
    let at = |ms| Now { steady: Duration::from_millis(ms), wall: Timestamp::EPOCH };
    let (mut hints, mut sent) = (Vec::new(), Vec::new());
    let mut run = |sender: &mut Sender, now: Now, offers: bool| {
        while let Some(action) = sender.poll(now) {
            match action {
                Action::Take(wanted) if offers && wanted.takes(Priority::Live, Lane::Live) => {
                    sender.handle(now, Event::Offered(parcel(1, 1, BYTES_MAX)))
                }
                Action::Take(_) => sender.handle(now, Event::NothingOffered),
                Action::Hint { connected, congested } => hints.push((connected, congested)),
                Action::Publish(publication) => sent.push(publication.token),
                _ => {}
            }
        }
        std::mem::take(&mut sent)
    };
    run(&mut sender, at(0), true);
    sender.handle(at(0), Event::Connected(Limits::NONE));
    let mut unacknowledged = run(&mut sender, at(0), true);
    assert_eq!(sender.wake_at(at(0)), Some(CONGESTED_AFTER));
    unacknowledged.append(&mut run(&mut sender, at(1000), true));
    while let Some(token) = unacknowledged.pop() {
        sender.handle(at(1001), Event::Acknowledged { token, verdict: Verdict::Taken });
        unacknowledged.append(&mut run(&mut sender, at(1001), false));
    }
    sender.handle(at(1002), Event::Disconnected(Loss::Broken));
    run(&mut sender, at(1002), false);
    assert_eq!(hints, [(true, false), (true, true), (true, false), (false, false)]);
}
