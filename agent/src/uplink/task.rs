//! The uplink's task: carries out what the sender decides.

mod brokers;
mod frames;

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use rtlive_config::link::{LinkConfig, NamedLink};
use rtlive_config::uplink::{SchemaPlace, UplinkConfig};
use rtlive_core::plan::Plan;
use rtlive_core::time::Timestamp;
use rtlive_core::uplink::receipt::Awaited;
use rtlive_core::uplink::sender::STABLE_AFTER;
use rtlive_core::uplink::wire::Wire;
use rtlive_core::uplink::{
    Action, Budget, Event, Failover, Farewell, FrameId, Lane, LinkAccount, LinkState, Loss, Now, Parcel, Publication,
    Refused, Sender, State, Terms, Token, Verdict, Wanted,
};
use rtlive_drivers::outlet::Clock;
use rtlive_drivers::tls::{Identity, TlsFiles};
use tokio::sync::{oneshot, watch};
use tokio::time::Instant;

use self::brokers::{Known, Opening, Trial};
use super::carrier::Carrier;
use super::health::{BudgetLine, LinkLine, RoundTrips, SharedHealth, StreamRefusal};
use super::mqtt::{Connection, FromBroker, LinkError, Peer};
use super::schemas::Schemas;
use super::status::{self, Presence};
use super::throughput::Carried;
use super::topic::Topics;
use crate::clock::random;
use crate::message::{LinkHint, StoreError, StoreHandle, StoreRequest, StoredFrame};

/// What is kept of the budget: under a name that no input can have.
const KEPT: &str = "[uplink]";
const KEPT_BUDGET: &str = "budget";
/// How long the goodbye may take: the status, its acknowledgement, DISCONNECT. The last will says the same when it does not get through, but of an agent
/// that sleeps, for which a slow link is waited for.
const GOODBYE_WITHIN: Duration = Duration::from_millis(1500);
const GOOD_NIGHT_WITHIN: Duration = Duration::from_secs(15);
/// After how many short connections in a row that the broker closed the log suspects a second agent. A broker that restarts does so once
/// or twice.
const SHORT_CONNECTIONS_SUSPECT: u32 = 3;

/// Carries frames from the store to the broker until `stopping` is true, then sends what is left within a bound and says goodbye.
/// Ends earlier only when the store is gone. Nothing that the broker or the network does ends it.
pub async fn run(
    config: UplinkConfig,
    plan: Arc<Plan>,
    store: StoreHandle,
    clock: Arc<dyn Clock>,
    health: SharedHealth,
    stopping: watch::Receiver<bool>,
) {
    let mut task = Task::new(config, plan, store, clock, health);
    if task.run(stopping).await.is_err() {
        tracing::debug!("the uplink ends: the store has stopped");
    }
    task.set_state("offline");
}

struct Task {
    /// The broker in use or asked last, and who we are to it.
    peer: Peer,
    ways: Vec<Known>,
    /// The way in use or asked last.
    place: usize,
    links: Vec<LinkConfig>,
    /// Looks at the interface of the connection, where it is bound to one.
    carrier: Option<Carrier>,
    wire: Wire,
    plan: Arc<Plan>,
    topics: Topics,
    store: StoreHandle,
    clock: Arc<dyn Clock>,
    health: SharedHealth,
    sender: Sender,
    started: Instant,
    link: Link,
    trial: Trial,
    short_connections: u32,
    /// When each message that waits for its acknowledgement was published, and what it took of the link.
    published: BTreeMap<Token, (Instant, u64)>,
    round_trips: RoundTrips,
    /// How long records took from their commit until they were delivered.
    record_trips: RoundTrips,
    /// Which schemas the broker has, where frames name theirs.
    schemas: Option<Schemas>,
    /// The frames that wait for receipts, where they are waited for.
    awaited: Option<Awaited>,
    /// Each frame that was given out and is neither delivered nor given back.
    frames: BTreeMap<FrameId, Given>,
    /// Delivered, and not yet told to the store.
    delivered: Vec<FrameId>,
    refused: Vec<Refused>,
    /// What was asked for when the store had nothing, and where the first such frame comes.
    promised: Option<(Wanted, oneshot::Receiver<StoredFrame>)>,
}

/// A frame that was given out.
struct Given {
    bytes: usize,
    lane: Lane,
    committed_at: Timestamp,
}

enum Link {
    Closed,
    Opening(Opening),
    Open(Connection),
}

enum Heard {
    Opened(Box<Result<Connection, LinkError>>),
    Broker(FromBroker),
}

impl Link {
    /// What happens next on the link; pending while it is closed. May be dropped while it waits.
    async fn next(&mut self) -> Heard {
        match self {
            Self::Closed => std::future::pending().await,
            Self::Opening(opening) => Heard::Opened(Box::new(opening.await)),
            Self::Open(connection) => Heard::Broker(connection.next().await),
        }
    }
}

impl Task {
    fn new(
        config: UplinkConfig,
        plan: Arc<Plan>,
        store: StoreHandle,
        clock: Arc<dyn Clock>,
        health: SharedHealth,
    ) -> Self {
        let (wire, ways) = (config.wire(&plan), Known::all(&config));
        let UplinkConfig {
            broker,
            fallbacks: _,
            return_after,
            login,
            topic,
            protocol,
            keep_alive,
            client_id,
            receipt_timeout,
            schema,
            links,
            backlog_share,
            schedule,
            tls,
        } = config;
        let identity = tls.identity.map(|identity| Identity { cert: identity.cert, key: identity.key });
        let tls = TlsFiles { ca: tls.ca, identity };
        let status_topic = status::topic(&plan);
        let receipt_topic = receipt_timeout.map(|_| status::receipt_topic(&plan));
        let clock_of_peer = clock.clone();
        let peer = Peer {
            broker,
            interface: None,
            client_id,
            login,
            protocol,
            keep_alive,
            tls,
            clock: clock_of_peer,
            status_topic,
            receipt_topic,
        };
        let terms = Terms { wire, keep_alive, backlog_percent: backlog_share };
        let mut sender = Sender::new(random(), terms);
        sender.fail_over(Failover::among(ways.len() / links.len().max(1), return_after));
        if let Some(schedule) = schedule {
            sender.follow(schedule);
        }
        Self {
            peer,
            ways,
            place: 0,
            links,
            carrier: None,
            wire,
            topics: Topics::new(plan.clone(), topic),
            plan,
            store,
            clock,
            health,
            sender,
            started: Instant::now(),
            link: Link::Closed,
            trial: Trial::None,
            short_connections: 0,
            published: BTreeMap::new(),
            round_trips: RoundTrips::default(),
            record_trips: RoundTrips::default(),
            schemas: (schema == SchemaPlace::Retained).then(Schemas::default),
            awaited: receipt_timeout.map(Awaited::new),
            frames: BTreeMap::new(),
            delivered: Vec::new(),
            refused: Vec::new(),
            promised: None,
        }
    }

    fn now(&self) -> Now {
        Now { steady: self.started.elapsed(), wall: self.clock.now() }
    }

    fn handle(&mut self, event: Event) {
        self.sender.handle(self.now(), event);
    }

    async fn run(&mut self, mut stopping: watch::Receiver<bool>) -> Result<(), StoreError> {
        self.point_to(0);
        let kept = self.store.kept().await?;
        let account = |link: &LinkConfig| {
            let saved = kept.get(KEPT).and_then(|kept| kept.get(&kept_budget(link))).map(Vec::as_slice);
            let budget = link.budget.clone().map(|terms| Budget::new(terms, saved, self.clock.now()));
            LinkAccount::new(link.rate_bytes_per_s(), budget)
        };
        self.sender.use_links(self.links.iter().map(account).collect());
        let mut told_to_stop = false;
        loop {
            self.sender.hold(self.awaited.as_ref().is_some_and(|awaited| !awaited.is_empty()));
            while let Some(action) = self.sender.poll(self.now()) {
                self.carry_out(action).await?;
            }
            self.send_overdue_again().await?;
            self.tell_delivered().await?;
            self.show();
            if self.sender.state() == State::Stopped {
                return Ok(());
            }
            let overdue_at = self.awaited.as_ref().and_then(Awaited::wake_at);
            let wake_at = [self.sender.wake_at(self.now()), overdue_at].into_iter().flatten().min();
            let wake_at = wake_at.map(|at| self.started + at);
            tokio::select! {
                heard = self.link.next() => self.heard(heard),
                opened = self.trial.next() => self.tried(opened),
                what = lost_carrier(&mut self.carrier) => self.lost_carrier(what),
                changed = self.store.frames.changed() => {
                    changed.map_err(|_| StoreError::Stopped)?;
                    self.handle(Event::FramesAvailable);
                }
                // An error means that the pipeline is gone, which is a stop as well.
                _ = stopping.wait_for(|stop| *stop), if !told_to_stop => {
                    told_to_stop = true;
                    self.handle(Event::Stop);
                }
                () = sleep_until(wake_at) => {}
            }
        }
    }

    fn heard(&mut self, heard: Heard) {
        match heard {
            Heard::Opened(opened) => match *opened {
                Ok(connection) => self.opened(connection),
                Err(error) => self.lost(&error),
            },
            Heard::Broker(answer) => {
                self.answered(answer);
                // All answers that have come together are one turn, so that the store is told once.
                while let Link::Open(connection) = &mut self.link {
                    let Some(answer) = connection.next_ready() else { break };
                    self.answered(answer);
                }
            }
        }
    }

    fn opened(&mut self, connection: Connection) {
        let (version, limits) = (connection.version, connection.limits);
        let since = self.clock.now();
        tracing::info!("connected to {} with MQTT {version}", self.peer.way());
        self.note_welcome(version);
        self.health_mut(|health, _| {
            health.protocol = Some(version.to_string());
            health.error = None;
        });
        // Before all else, so that a subscriber knows who speaks.
        let announced = connection.publish_status(status::payload(&self.plan, Presence::Online, since));
        self.link = Link::Open(connection);
        self.carrier = self.peer.interface.as_deref().map(Carrier::of);
        self.handle(Event::Connected(limits));
        if let Err(error) = announced {
            self.not_handed_over(error);
        }
    }

    fn answered(&mut self, answer: FromBroker) {
        match answer {
            FromBroker::Answered(token, verdict) => {
                let mut acknowledged = 0;
                if let Some((at, bytes)) = self.published.remove(&token) {
                    self.round_trips.note(at.elapsed());
                    acknowledged = bytes;
                }
                let wall = self.clock.now();
                self.health_mut(|health, _| {
                    health.last_ack_at = Some(wall.to_string());
                    health.throughput.count(std::time::Instant::now(), Carried { sent: 0, acknowledged });
                });
                if let (Verdict::Refused(_), Some(schemas)) = (&verdict, &mut self.schemas) {
                    schemas.forget();
                }
                self.handle(Event::Acknowledged { token, verdict });
            }
            FromBroker::StatusAnswered(Verdict::Refused(refusal)) => {
                tracing::debug!("the status at {} was not taken: {refusal}", self.peer.status_topic);
            }
            FromBroker::StatusAnswered(Verdict::Taken) => {}
            FromBroker::Receipt(message) => self.take_receipt(&message),
            FromBroker::Lost(error) => self.lost(&error),
        }
    }

    /// The client takes nothing more. It says less of it than what came from the broker before.
    fn not_handed_over(&mut self, error: LinkError) {
        let reason = match &mut self.link {
            Link::Open(connection) => connection.reason(),
            Link::Closed | Link::Opening(_) => None,
        };
        self.lost(&reason.unwrap_or(error));
    }

    /// The interface has gone, and nobody else says so.
    fn lost_carrier(&mut self, cause: String) {
        let doing = format!("hear from {}", self.peer.way());
        // It says nothing about a second agent.
        self.short_connections = 0;
        self.lost(&LinkError { loss: Loss::Broken, ..LinkError::refused(doing, cause) });
    }

    /// The connection ended, or was not made.
    fn lost(&mut self, error: &LinkError) {
        let short = match self.sender.state() {
            State::Connected { since } => Some(self.now().steady.saturating_sub(since) < STABLE_AFTER),
            _ => None,
        };
        match short {
            Some(true) => self.short_connections += 1,
            Some(false) => self.short_connections = 0,
            // An attempt that fails says nothing about a second agent.
            None => {}
        }
        self.close_link();
        self.note_version(self.place, error.loss);
        self.handle(Event::Disconnected(error.loss));
        self.drop_trial();
        if !matches!(self.trial, Trial::None) {
            // At the same broker it ended this one, as the client id is the same.
            return tracing::info!("a preferred broker or link takes the place of {}", self.peer.way());
        }
        let mut text = error.to_string();
        if error.loss == Loss::Broken && self.short_connections >= SHORT_CONNECTIONS_SUSPECT {
            let suspicion = "; the broker keeps closing new connections: does a second agent use the client id";
            text = format!("{text}{suspicion} {}?", self.peer.client_id);
        }
        let wait = match self.sender.state() {
            State::Waiting { until } | State::Sleeping { until } => until.saturating_sub(self.now().steady),
            _ => Duration::ZERO,
        };
        let seconds = wait.as_secs_f64();
        match error.loss {
            Loss::TakenOver => tracing::error!("{text}; next attempt in {seconds:.0} s"),
            Loss::VersionRefused => tracing::info!("{text}; MQTT 3.1.1 is spoken now"),
            _ => tracing::warn!("{text}; next attempt in {seconds:.1} s"),
        }
        self.health_mut(|health, _| {
            health.reconnects += u64::from(short.is_some());
            health.error = Some(text.clone());
        });
        self.note_error(self.place, Some(text));
    }

    fn close_link(&mut self) {
        self.link = Link::Closed;
        self.carrier = None;
        self.drop_trial();
        self.published.clear();
        self.schemas.iter_mut().for_each(Schemas::forget);
        self.health_mut(|health, _| health.protocol = None);
    }

    async fn carry_out(&mut self, action: Action) -> Result<(), StoreError> {
        match action {
            Action::Connect(place) => self.open_link(place),
            Action::Try(place) => self.try_broker(place),
            Action::Take(wanted) => {
                // In this order, so that the store never gives out what was delivered.
                self.tell_delivered().await?;
                let is_full = self.awaited.as_ref().is_some_and(Awaited::is_full);
                let taken = if is_full { None } else { self.take(wanted).await? };
                let event = match taken {
                    Some(frame) => {
                        self.note_taken(&frame);
                        let (bytes, schema) = self.referring(&frame);
                        Event::Offered(Parcel {
                            id: frame.id,
                            topic: self.topics.of(&frame.stream, &frame.bytes),
                            stream: frame.stream,
                            priority: frame.priority,
                            lane: frame.lane,
                            committed_at: frame.committed_at,
                            json: frame.json,
                            bytes,
                            schema,
                        })
                    }
                    None => Event::NothingOffered,
                };
                self.handle(event);
            }
            Action::SaveBudget { link, saved } => {
                let name = self.links.get(link).map(kept_budget).unwrap_or_default();
                self.store.keep((KEPT.into(), name, Some(saved))).await?;
                self.handle(Event::BudgetSaved);
            }
            Action::Publish(publication) => {
                let Link::Open(connection) = &self.link else { return Ok(()) };
                let sent = self.wire.publish(publication.topic.len(), publication.payload.len()).up;
                self.schemas.iter_mut().for_each(|schemas| schemas.note(&publication));
                let Publication { token, topic, payload, retain, .. } = publication;
                let published = connection.publish(token, &topic, payload, retain);
                match published {
                    Ok(()) => {
                        self.published.insert(token, (Instant::now(), sent));
                        let carried = Carried { sent, acknowledged: 0 };
                        self.health_mut(|health, _| health.throughput.count(std::time::Instant::now(), carried));
                    }
                    Err(error) => self.not_handed_over(error),
                }
            }
            Action::Delivered(id) => {
                let now = self.now().steady;
                if self.awaited.as_mut().is_none_or(|awaited| awaited.acknowledge(id, now)) {
                    self.deliver(id);
                }
            }
            Action::Return(id) => self.give_back(vec![id]).await?,
            Action::Requeue => self.requeue().await?,
            Action::Hint { connected, congested } => {
                self.store.tell(StoreRequest::Hint(LinkHint { connected, congested })).await?;
            }
            Action::Disconnect(Farewell::Stalled) => {
                let way = self.peer.way();
                let text = format!("send to {way}: the broker has acknowledged nothing for too long");
                tracing::warn!("{text}");
                self.close_link();
                self.health_mut(|health, _| {
                    health.reconnects += 1;
                    health.error = Some(text.clone());
                });
                self.note_error(self.place, Some(text));
            }
            Action::Disconnect(farewell) => {
                let (mut presence, mut within) = (Presence::Offline, GOODBYE_WITHIN);
                match farewell {
                    Farewell::Sleeping { until } => {
                        (presence, within) = (Presence::Sleeping { until }, GOOD_NIGHT_WITHIN);
                    }
                    Farewell::Spent => self.note_spent(),
                    Farewell::Moving => tracing::info!("a preferred broker or link is back"),
                    Farewell::Stopping | Farewell::Stalled => {}
                }
                if farewell != Farewell::Moving {
                    self.trial = Trial::None;
                }
                if let Link::Open(connection) = std::mem::replace(&mut self.link, Link::Closed) {
                    let goodbye = connection.close(status::payload(&self.plan, presence, self.clock.now()), within);
                    let way = self.peer.way();
                    tokio::select! {
                        () = goodbye => tracing::info!("disconnected from {way}"),
                        what = lost_carrier(&mut self.carrier) => tracing::warn!("say goodbye to {way}: {what}"),
                    }
                }
                self.close_link();
            }
        }
        Ok(())
    }

    /// Brings the health up to date, and logs what is new about refusals.
    fn show(&mut self) {
        self.set_state(match self.sender.state() {
            State::Waiting { .. } => "waiting",
            State::Sleeping { .. } => "sleeping",
            State::Connecting => "connecting",
            State::Connected { .. } => "online",
            State::Stopped => "offline",
        });
        let refused: Vec<Refused> = self.sender.refused().collect();
        for Refused { stream, refusal, .. } in &refused {
            let known = |old: &Refused| (&old.stream, old.refusal) == (stream, *refusal);
            if !self.refused.iter().any(known) {
                tracing::warn!("the stream {stream} is not taken: {refusal}; it is kept, and tried again");
            }
        }
        for Refused { stream, .. } in &self.refused {
            if matches!(self.link, Link::Open(_)) && !refused.iter().any(|new| new.stream == *stream) {
                tracing::info!("the stream {stream} is taken again");
            }
        }
        if self.refused != refused {
            let shown = refused.iter();
            let shown = shown.map(|Refused { stream, refusal, .. }| StreamRefusal {
                stream: stream.to_string(),
                reason: refusal.to_string(),
            });
            let shown = shown.collect();
            self.health_mut(|health, _| health.refused = shown);
            self.refused = refused;
        }
        let now = self.now();
        let next_attempt_at = self.sender.next_attempt(now);
        self.health_mut(|health, task| {
            health.next_attempt_at = next_attempt_at.map(|at| at.to_string());
            health.in_flight = task.sender.messages_in_flight();
            health.in_flight_bytes = task.sender.bytes_in_flight();
            health.too_long = task.sender.set_aside();
            health.ack_ms_p50 = task.round_trips.percentile_ms(0.5);
            health.ack_ms_p99 = task.round_trips.percentile_ms(0.99);
            health.record_ms_p50 = task.record_trips.percentile_ms(0.5);
            health.record_ms_p99 = task.record_trips.percentile_ms(0.99);
            let carried = task.sender.carried();
            (health.carried_up_bytes, health.carried_down_bytes) = (carried.up, carried.down);
            let budget = task.sender.links(now).nth(task.link_place()).and_then(|link| link.budget);
            health.budget = budget.map(|state| BudgetLine::of(&state, now.wall));
            health.rate_bytes_per_s = task.link_in_use().and_then(LinkConfig::rate_bytes_per_s);
            health.links = task.link_lines(now);
            let link = task.sender.link();
            health.link_bytes_per_s = link.map(|link| link.rate);
            health.link_round_trip_ms = link.map(|link| link.round_trip_min.as_secs_f64() * 1000.0);
        });
    }

    fn link_in_use(&self) -> Option<&LinkConfig> {
        self.links.get(self.link_place())
    }

    /// The links that have names.
    fn link_lines(&self, now: Now) -> Vec<LinkLine> {
        let line = |(link, state): (&LinkConfig, LinkState)| {
            let NamedLink { name, interface } = link.named.clone()?;
            Some(LinkLine {
                link: name,
                interface,
                rate_bytes_per_s: link.rate_bytes_per_s(),
                carried_up_bytes: state.carried.up,
                carried_down_bytes: state.carried.down,
                budget: state.budget.map(|budget| BudgetLine::of(&budget, now.wall)),
            })
        };
        self.links.iter().zip(self.sender.links(now)).filter_map(line).collect()
    }

    fn set_state(&self, state: &str) {
        let since: Timestamp = self.clock.now();
        self.health_mut(|health, _| {
            if health.state != state {
                health.state = state.to_owned();
                health.since = Some(since.to_string());
            }
        });
    }

    fn health_mut(&self, change: impl FnOnce(&mut super::UplinkHealth, &Self)) {
        change(&mut self.health.lock().unwrap_or_else(PoisonError::into_inner), self);
    }
}

/// Under which name the budget of a link is kept.
fn kept_budget(link: &LinkConfig) -> String {
    match &link.named {
        Some(link) => format!("{KEPT_BUDGET}.{}", link.name),
        None => KEPT_BUDGET.into(),
    }
}

/// Waits until the interface has gone, or for ever.
async fn lost_carrier(carrier: &mut Option<Carrier>) -> String {
    match carrier {
        Some(carrier) => carrier.lost().await,
        None => std::future::pending().await,
    }
}

/// Sleeps until then, or for ever.
async fn sleep_until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}
