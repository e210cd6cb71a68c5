//! A store and a link on a clock that moves from event to event, with the real sender between them.
//!
//! The link is a queue that is served at its rate, then a delay with jitter; what is lost is sent again by the transport, so that it arrives late and
//! in order, as over TCP. The broker acknowledges at once.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, VecDeque};
use std::time::Duration;

use rtlive_core::plan::Priority;
use rtlive_core::time::Timestamp;
use rtlive_core::uplink::estimate::LinkEstimate;
use rtlive_core::uplink::wire::{Cost, Wire};
use rtlive_core::uplink::{
    Action, Budget, Event, FrameId, Lane, Limits, LinkAccount, Loss, Now, Parcel, Publication, Sender, State, Terms,
    Token, Verdict, Wanted,
};

pub(crate) const TERMS: Terms = Terms {
    wire: Wire { tls: true, identity: false, greeting_bytes: 50, status_bytes: 175 },
    keep_alive: Duration::from_secs(60),
    backlog_percent: 20,
};
/// How long the transport takes to notice a loss, beside a round trip (RFC 6298, section 2, and what Linux makes of it).
const LOSS_NOTICED_AFTER: Duration = Duration::from_millis(200);

/// How the link is at present.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Path {
    /// In bytes a second.
    pub(crate) rate: f64,
    /// Both ways together.
    pub(crate) round_trip: Duration,
    /// How much longer a way may take, as a part of itself.
    pub(crate) jitter: f64,
    /// Which part of the messages is lost and sent again.
    pub(crate) loss: f64,
    /// So many bytes pass at once after a rest, as through the token bucket of a shaper.
    pub(crate) burst: f64,
}

impl Path {
    pub(crate) fn of(kbit: f64, round_trip_ms: u64) -> Self {
        let round_trip = Duration::from_millis(round_trip_ms);
        Self { rate: kbit * 1000.0 / 8.0, round_trip, jitter: 0.0, loss: 0.0, burst: 0.0 }
    }
}

/// What happens at an instant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Happening {
    Connected,
    /// Nobody answers the attempt to connect.
    Refused,
    /// The broker is gone, and its connections.
    Lost,
    /// The link has carried the message at the head of its queue.
    Carried,
    Acknowledged(Token),
    /// The client shows that it lives.
    KeptAlive,
}

/// A frame whose first message waits to be put on the wire.
#[derive(Clone, Copy, Debug)]
#[expect(dead_code, reason = "told where an assertion fails")]
pub(crate) struct Waited {
    pub(crate) from: Duration,
    /// Until the link began to carry it.
    pub(crate) took: Duration,
    /// What was known of the link then.
    pub(crate) link: Option<LinkEstimate>,
}

pub(crate) struct World {
    pub(crate) sender: Sender,
    terms: Terms,
    is_bounded: bool,
    pub(crate) now: Duration,
    pub(crate) path: Path,
    store: BTreeMap<(Priority, Lane), VecDeque<Parcel>>,
    /// What was given out and is not delivered.
    given_out: BTreeMap<FrameId, Parcel>,
    /// From when to when there is no broker.
    outage: Option<(Duration, Duration)>,
    /// When it was tried to connect, and when that succeeded.
    pub(crate) attempts: Vec<Duration>,
    pub(crate) connections: Vec<Duration>,
    /// How many messages had been sent when each connection was made.
    pub(crate) connection_starts: Vec<usize>,
    /// The messages that are not acknowledged, and the bytes of each frame that are.
    unacknowledged: BTreeMap<Token, (FrameId, usize)>,
    acknowledged: BTreeMap<FrameId, usize>,
    /// Whether there is always another frame of bulk that has waited.
    pub(crate) has_backlog: bool,
    /// Whether there is always another frame of bulk that is new, of so many bytes.
    pub(crate) new_bytes: Option<usize>,
    frame_bytes: usize,
    last_frame: i64,
    happenings: BinaryHeap<Reverse<(Duration, u64, Happening)>>,
    last_happening: u64,
    queue: VecDeque<Publication>,
    is_carrying: bool,
    /// What may pass at once, as of an instant.
    burst: (f64, Duration),
    arrived_at: Duration,
    acknowledged_at: Duration,
    random: u64,
    arose: BTreeMap<FrameId, Duration>,
    /// Alerts and what else is watched, in the order in which they were sent.
    pub(crate) alerts: Vec<Waited>,
    /// From when to when the link carried something.
    busy: Vec<(Duration, Duration)>,
    /// What all of it cost, in both directions.
    pub(crate) cost: u64,
    /// What was put on the link, and when.
    pub(crate) sent: Vec<(Duration, u64)>,
    /// The frame of each message, and its bytes on the link.
    pub(crate) frames: Vec<(FrameId, u64)>,
    /// Where each frame that was given out stands in the order of sending.
    pub(crate) places: BTreeMap<FrameId, (Priority, Lane)>,
    pub(crate) delivered_frames: usize,
}

impl World {
    pub(crate) fn new(path: Path, frame_bytes: usize, seed: u64) -> Self {
        Self::under(TERMS, path, frame_bytes, seed)
    }

    pub(crate) fn under(terms: Terms, path: Path, frame_bytes: usize, seed: u64) -> Self {
        Self {
            sender: Sender::new(seed, terms),
            terms,
            is_bounded: false,
            now: Duration::ZERO,
            path,
            store: BTreeMap::new(),
            given_out: BTreeMap::new(),
            outage: None,
            attempts: Vec::new(),
            connections: Vec::new(),
            connection_starts: Vec::new(),
            unacknowledged: BTreeMap::new(),
            acknowledged: BTreeMap::new(),
            has_backlog: true,
            new_bytes: None,
            frame_bytes,
            last_frame: 0,
            happenings: BinaryHeap::new(),
            last_happening: 0,
            queue: VecDeque::new(),
            is_carrying: false,
            burst: (path.burst, Duration::ZERO),
            arrived_at: Duration::ZERO,
            acknowledged_at: Duration::ZERO,
            random: seed,
            arose: BTreeMap::new(),
            alerts: Vec::new(),
            busy: Vec::new(),
            cost: 0,
            sent: Vec::new(),
            frames: Vec::new(),
            places: BTreeMap::new(),
            delivered_frames: 0,
        }
    }

    /// The same world within a budget.
    pub(crate) fn within(mut self, budget: Budget) -> Self {
        self.bound(LinkAccount::new(None, Some(budget)));
        self
    }

    /// The same world with a link that takes no more than so many bytes a second, where that is agreed.
    pub(crate) fn at_most(mut self, rate_max: Option<u64>) -> Self {
        if rate_max.is_some() {
            self.bound(LinkAccount::new(rate_max, None));
        }
        self
    }

    fn bound(&mut self, account: LinkAccount) {
        self.sender.use_links(vec![account]);
        self.is_bounded = true;
    }

    /// The same world, in which there is no broker for a while.
    pub(crate) fn without_broker(mut self, from: Duration, to: Duration) -> Self {
        self.outage = Some((from, to));
        self.plan(from, Happening::Lost);
        self
    }

    /// Lets the time pass.
    pub(crate) fn run_to(&mut self, end: Duration) {
        self.settle();
        loop {
            let next = self.happenings.peek().map(|Reverse((at, ..))| *at);
            let wake = self.sender.wake_at(self.now()).map(|at| at.max(self.now));
            let at = next.into_iter().chain(wake).min().unwrap_or(end);
            if at > end {
                break;
            }
            self.now = at;
            if next == Some(at) {
                self.happen();
            } else if at == end {
                break;
            }
            self.settle();
        }
        self.now = end;
    }

    /// An alert arises.
    pub(crate) fn alert(&mut self) {
        let parcel = self.parcel(Priority::Alert, 200);
        self.put_watched(parcel);
    }

    /// A frame is sealed, and how long it waits is noted.
    pub(crate) fn put_watched(&mut self, parcel: Parcel) {
        self.arose.insert(parcel.id, self.now);
        self.put(parcel);
    }

    /// The bytes of the messages of a lane.
    pub(crate) fn bytes_of(&self, lane: Lane) -> u64 {
        self.frames.iter().filter(|(frame, _)| self.places[frame].1 == lane).map(|(_, bytes)| bytes).sum()
    }

    /// A frame is sealed.
    pub(crate) fn put(&mut self, parcel: Parcel) {
        self.store.entry((parcel.priority, parcel.lane)).or_default().push_back(parcel);
        self.sender.handle(self.now(), Event::FramesAvailable);
        self.settle();
    }

    pub(crate) fn parcel(&mut self, priority: Priority, bytes: usize) -> Parcel {
        self.last_frame += 1;
        let stream = format!("{priority:?}").to_lowercase();
        Parcel {
            id: FrameId(self.last_frame),
            topic: format!("rtlive/gw-042/{stream}").into(),
            stream: stream.into(),
            priority,
            lane: Lane::Live,
            committed_at: Timestamp::EPOCH,
            json: false,
            bytes: vec![0; bytes].into(),
            schema: None,
        }
    }

    /// Which part of a time the link was carrying.
    pub(crate) fn busy(&self, from: Duration, to: Duration) -> f64 {
        let within = |&(start, end): &(Duration, Duration)| end.min(to).saturating_sub(start.max(from));
        self.busy.iter().map(within).sum::<Duration>().as_secs_f64() / (to - from).as_secs_f64()
    }

    fn now(&self) -> Now {
        Now { steady: self.now, wall: Timestamp::EPOCH.saturating_add(self.now) }
    }

    fn settle(&mut self) {
        for _ in 0..100_000 {
            let Some(action) = self.sender.poll(self.now()) else { return self.look_at_rest() };
            match action {
                Action::Connect(_) => {
                    self.attempts.push(self.now);
                    if self.outage.is_some_and(|(from, to)| (from..to).contains(&self.now)) {
                        self.plan(self.now + self.path.round_trip, Happening::Refused);
                        continue;
                    }
                    self.sent.push((self.now, self.terms.wire.connect().up));
                    self.cost += self.terms.wire.connect().both();
                    self.plan(self.now + self.path.round_trip, Happening::Connected);
                    self.plan(self.now + self.path.round_trip + self.terms.keep_alive, Happening::KeptAlive);
                }
                Action::Take(wanted) => {
                    let taken = self.take(&wanted);
                    self.given_out.extend(taken.iter().map(|parcel| (parcel.id, parcel.clone())));
                    self.places.extend(taken.iter().map(|parcel| (parcel.id, (parcel.priority, parcel.lane))));
                    let event = taken.map_or(Event::NothingOffered, Event::Offered);
                    self.sender.handle(self.now(), event);
                }
                Action::Publish(publication) => {
                    let link = self.sender.link();
                    let is_alert = publication.topic.ends_with("alert");
                    let fits = |link: LinkEstimate| {
                        let beyond = if is_alert { (link.rate / 2.0).max(512.0) as u64 } else { 0 };
                        link.unacknowledged_bytes <= link.window_bytes + beyond
                    };
                    assert!(self.sender.messages_in_flight() == 1 || link.is_none_or(fits), "{link:?}");
                    let goes_before = |(waits, parcels): (&(Priority, Lane), &VecDeque<Parcel>)| {
                        waits.0 < self.places[&publication.frame].0 && !parcels.is_empty()
                    };
                    assert!(
                        !self.store.iter().any(goes_before),
                        "{:?} goes before what is more urgent",
                        publication.frame
                    );
                    self.unacknowledged.insert(publication.token, (publication.frame, publication.payload.len()));
                    self.sent.push((self.now, link_bytes(&publication)));
                    self.frames.push((publication.frame, link_bytes(&publication)));
                    self.cost += cost(&publication).both();
                    self.queue.push_back(publication);
                    self.carry();
                }
                Action::Delivered(frame) => {
                    let parcel = self.given_out.remove(&frame).unwrap();
                    let acknowledged = self.acknowledged.remove(&frame).unwrap();
                    assert!(acknowledged >= parcel.bytes.len(), "{acknowledged} bytes of {frame:?} are acknowledged");
                    assert!(!self.unacknowledged.values().any(|(of, _)| *of == frame), "{frame:?} is on its way");
                    self.delivered_frames += 1;
                }
                Action::Requeue => {
                    for (_, parcel) in std::mem::take(&mut self.given_out).into_iter().rev() {
                        self.store.entry((parcel.priority, parcel.lane)).or_default().push_front(parcel);
                    }
                }
                Action::SaveBudget { .. } => self.sender.handle(self.now(), Event::BudgetSaved),
                Action::Disconnect(_) | Action::Return(_) | Action::Try(_) => panic!("{action:?} at {:?}", self.now),
                Action::Hint { .. } => {}
            }
        }
        panic!("the sender never rests");
    }

    /// Where nothing but the link may hold messages back, it carries something as long as anything waits.
    fn look_at_rest(&self) {
        let is_connected = matches!(self.sender.state(), State::Connected { .. });
        let is_free = !self.is_bounded && self.outage.is_none();
        let waits = self.store.values().any(|parcels| !parcels.is_empty());
        if is_connected && is_free && waits {
            assert!(
                self.sender.messages_in_flight() > 0,
                "nothing is sent although something waits, at {:?}",
                self.now
            );
        }
    }

    fn take(&mut self, wanted: &Wanted) -> Option<Parcel> {
        for priority in [Priority::Alert, Priority::Live, Priority::Bulk] {
            for lane in wanted.lanes(priority).into_iter().filter(|&lane| wanted.takes(priority, lane)) {
                let stored = self.store.get_mut(&(priority, lane)).and_then(VecDeque::pop_front);
                if stored.is_some() {
                    return stored;
                }
                if let Some(bytes) = self.new_bytes.filter(|_| (priority, lane) == (Priority::Bulk, Lane::Live)) {
                    return Some(self.parcel(priority, bytes));
                }
                if self.has_backlog && (priority, lane) == (Priority::Bulk, Lane::Backlog) {
                    return Some(Parcel { lane, ..self.parcel(priority, self.frame_bytes) });
                }
            }
        }
        None
    }

    fn carry(&mut self) {
        let Some(publication) = self.queue.front().filter(|_| !self.is_carrying) else { return };
        if let Some(from) = self.arose.remove(&publication.frame) {
            self.alerts.push(Waited { from, took: self.now - from, link: self.sender.link() });
        }
        self.is_carrying = true;
        let (left, since) = self.burst;
        let rested = (self.now - since).as_secs_f64() * self.path.rate;
        let left = (left + rested).min(self.path.burst) - link_bytes(publication) as f64;
        let takes = Duration::from_secs_f64((-left).max(0.0) / self.path.rate);
        self.burst = (left.max(0.0), self.now + takes);
        match self.busy.last_mut() {
            Some((_, end)) if *end == self.now => *end += takes,
            _ => self.busy.push((self.now, self.now + takes)),
        }
        self.plan(self.now + takes, Happening::Carried);
    }

    fn happen(&mut self) {
        let Some(Reverse((_, _, happening))) = self.happenings.pop() else { return };
        match happening {
            Happening::Connected => {
                self.connections.push(self.now);
                self.connection_starts.push(self.frames.len());
                self.sender.handle(self.now(), Event::Connected(Limits::NONE));
            }
            Happening::Refused => self.sender.handle(self.now(), Event::Disconnected(Loss::Broken)),
            Happening::Lost => {
                // All else that was to happen was of this connection.
                self.happenings.clear();
                self.queue.clear();
                self.unacknowledged.clear();
                self.acknowledged.clear();
                self.is_carrying = false;
                self.sender.handle(self.now(), Event::Disconnected(Loss::Broken));
            }
            Happening::Carried => {
                self.is_carrying = false;
                let publication = self.queue.pop_front().unwrap();
                let resent = if self.random() < self.path.loss {
                    self.path.round_trip + LOSS_NOTICED_AFTER
                } else {
                    Duration::ZERO
                };
                self.arrived_at = self.arrived_at.max(self.now + self.way() + resent);
                self.acknowledged_at = self.acknowledged_at.max(self.arrived_at + self.way());
                self.plan(self.acknowledged_at, Happening::Acknowledged(publication.token));
                self.carry();
            }
            Happening::KeptAlive => {
                self.sent.push((self.now, self.terms.wire.ping().up));
                self.cost += self.terms.wire.ping().both();
                self.plan(self.now + self.terms.keep_alive, Happening::KeptAlive);
            }
            Happening::Acknowledged(token) => {
                let (frame, bytes) = self.unacknowledged.remove(&token).unwrap();
                *self.acknowledged.entry(frame).or_default() += bytes;
                self.sender.handle(self.now(), Event::Acknowledged { token, verdict: Verdict::Taken });
            }
        }
    }

    fn way(&mut self) -> Duration {
        let longer = 1.0 + self.path.jitter * self.random();
        (self.path.round_trip / 2).mul_f64(longer)
    }

    fn plan(&mut self, at: Duration, happening: Happening) {
        self.last_happening += 1;
        self.happenings.push(Reverse((at, self.last_happening, happening)));
    }

    /// A number of [0, 1) (Steele, Lea, Flood: SplitMix64).
    fn random(&mut self) -> f64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.random;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) >> 11) as f64 / (1_u64 << 53) as f64
    }
}

pub(crate) fn link_bytes(publication: &Publication) -> u64 {
    cost(publication).up
}

fn cost(publication: &Publication) -> Cost {
    TERMS.wire.publish(publication.topic.len(), publication.payload.len())
}
