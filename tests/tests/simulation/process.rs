//! The agent's process: the real stage, store and sender, and what the tasks around them do, step by step, each of which may be the last.

use std::collections::BTreeMap;
use std::sync::Arc;

use rtlive::message::{Commit, FrameId, LinkHint};
use rtlive::recovery;
use rtlive::stage::{Kept, Stage};
use rtlive::store::{Boot, FILE_NAME, Keeper, Options};
use rtlive_core::engine::Engine;
use rtlive_core::plan::Plan;
use rtlive_core::time::Timestamp;
use rtlive_core::uplink::sender::STOP_WITHIN;
use rtlive_core::uplink::wire::Wire;
use rtlive_core::uplink::{Action, Event as Heard, Limits, Loss, Now, Parcel, Sender, Terms};

use crate::inputs::Driver;
use crate::link::{Link, Weather};
use crate::plans::{INPUTS, PLANS, plan};
use crate::reference::Taken;
use crate::world::{End, Event, MS, Step, World};

/// What the sender is told of the link.
const TERMS: Terms = Terms {
    wire: Wire { tls: true, identity: false, greeting_bytes: 50, status_bytes: 175 },
    keep_alive: std::time::Duration::from_secs(60),
    backlog_percent: 20,
};

/// How often the store's thread looks for what waits, in milliseconds.
const LOOK_EVERY: i64 = 500;

/// The agent's process.
pub(crate) struct Process {
    pub(crate) store: Keeper,
    pub(crate) stage: Stage,
    sender: Sender,
    /// In the order of [`INPUTS`].
    pub(crate) drivers: Vec<Driver>,
    started: i64,
    commit_every: i64,
    next_commit: i64,
    wants_snapshot: bool,
    /// What the engine took and no cut covers.
    open: Vec<Taken>,
    /// The commit that is under way.
    commit: Option<UnderWay>,
    /// The store made it, and the engine has not heard.
    is_made: bool,
    /// Whether the drivers were ended by a reload, and begin anew when its commit is made.
    pub(crate) drivers_ended: bool,
    /// Since when each input may have lost readings; until its first reading.
    silent_since: Vec<Option<Timestamp>>,
    /// When the next turn and the next poll of the sender are planned.
    turn_at: Option<i64>,
    wake_at: Option<i64>,
    /// Delivered, and not told to the store.
    delivered: Vec<FrameId>,
}

/// A commit on its way.
struct UnderWay {
    commit: Option<Commit>,
    taken: Vec<Taken>,
    leaves: Committed,
    begins_drivers: bool,
}

/// What a commit leaves: what a restart must find.
#[derive(Clone)]
pub(crate) struct Committed {
    pub(crate) at: Timestamp,
    plan: Arc<Plan>,
    engine: Vec<u8>,
    silent_since: Vec<Option<Timestamp>>,
}

impl World {
    /// The process starts: a restart within the boot, or after another boot of the machine.
    pub(crate) fn start(&mut self) -> Step {
        self.processes += 1;
        if self.random.percent(40) {
            self.boot += 1;
        }
        if self.is_rough && self.random.percent(20) {
            self.configured = self.random.next() % PLANS;
        }
        let boot = Boot { id: format!("boot {}", self.boot), now: self.wall(), random: self.random.next() };
        self.tell(|| format!("process {} starts in {} under plan {}", self.processes, boot.id, self.configured));
        if self.is_rough && self.random.percent(10) {
            self.damage_snapshot()?;
        }
        let options = Options::new(self.folder.clone());
        let (mut store, recovered) = Keeper::open(&options, boot).map_err(|error| format!("open: {error}"))?;
        if let Some(bytes) = self.bytes_max {
            store.set_bytes_max(bytes);
        }
        let plan = plan(self.configured);
        let restored = recovery::restore(&mut store, recovered, &plan, |_| (self.wall(), None));
        let (stage, kept) = restored.map_err(|error| format!("restore: {error}"))?;
        self.check_recovery(&stage, &plan)?;
        self.may_die()?;
        let last = self.committed.as_ref().map(|committed| committed.at);
        let silent = |place: usize, again: bool| {
            let before = self.committed.as_ref().and_then(|committed| committed.silent_since[place]);
            before.or(last).filter(|_| !again)
        };
        let silent_since = INPUTS.iter().enumerate().map(|(place, (_, _, again))| silent(place, *again)).collect();
        let commit_every = *self.random.pick(&[200, 1_000, 3_000]) * MS;
        let sender = Sender::new(self.random.next(), TERMS);
        self.process = Some(Process {
            store,
            stage,
            sender,
            drivers: drivers(&plan, &kept),
            started: self.now,
            commit_every,
            next_commit: self.now,
            wants_snapshot: false,
            open: Vec::new(),
            commit: None,
            is_made: false,
            drivers_ended: false,
            silent_since,
            turn_at: None,
            wake_at: None,
            delivered: Vec::new(),
        });
        self.turn_at(self.now);
        self.wake_at(self.now);
        self.after(LOOK_EVERY, Event::Look(self.processes));
        Ok(())
    }

    /// The newest snapshot is damaged. As long as the one before it can be read, that costs nothing.
    fn damage_snapshot(&self) -> Step {
        let path = self.folder.join(FILE_NAME);
        if !path.exists() {
            return Ok(());
        }
        self.tell(|| "the newest snapshot is damaged".to_owned());
        let damage = "UPDATE snapshots SET body = zeroblob(9)
                      WHERE number = (SELECT max(number) FROM snapshots) AND (SELECT count(*) FROM snapshots) = 2
                      AND (SELECT min(length(body)) FROM snapshots) > 9";
        let damaged = rusqlite::Connection::open(path).and_then(|connection| connection.execute(damage, []));
        damaged.map(|_| ()).map_err(|error| End::Broken(format!("damage: {error}")))
    }

    /// The engine must be what it was at the last commit.
    fn check_recovery(&self, stage: &Stage, plan: &Arc<Plan>) -> Step {
        let Some(committed) = &self.committed else { return Ok(()) };
        let engine = Engine::restore(committed.plan.clone(), &committed.engine);
        let mut engine = engine.map_err(|error| format!("a snapshot cannot be restored: {error}"))?;
        if *committed.plan != **plan {
            // The process that comes to it says so before all else.
            for event in [rtlive_core::event::Event::Start, rtlive_core::event::Event::Reload(plan.clone())] {
                engine.handle(self.wall(), &event, &mut Vec::new());
            }
        }
        if engine.snapshot() != stage.engine().snapshot() {
            return Err(End::Broken("the engine that was rebuilt is not the one of the last commit".to_owned()));
        }
        Ok(())
    }

    /// The process is gone from one instant to the next.
    pub(crate) fn crash(&mut self) {
        let Some(process) = self.process.take() else {
            // It died while it started.
            self.after(500, Event::Start);
            return;
        };
        self.tell(|| "the process dies".to_owned());
        self.crashes += 1;
        let Process { store, open, commit, drivers, .. } = process;
        let under_way = commit.filter(|commit| commit.commit.is_some()).map(|commit| commit.taken).unwrap_or_default();
        let waiting = drivers.into_iter().flat_map(|driver| driver.waiting).map(|(_, taken)| taken);
        for taken in under_way.into_iter().chain(open).chain(waiting) {
            if matches!(taken.input, "poll" | "push") && !taken.readings.is_empty() {
                self.lost.push((taken.input, taken.arrival));
            }
        }
        drop(store);
        self.gone();
    }

    fn gone(&mut self) {
        self.sources.iter_mut().for_each(crate::inputs::Source::disconnect);
        self.link.is_up = false;
        let pause = self.random.between(50, 3_000);
        self.after(pause, Event::Start);
    }

    /// One turn of the engine's task.
    pub(crate) fn turn(&mut self) -> Step {
        let (now, wall) = (self.now, self.wall());
        for place in 0..INPUTS.len() {
            self.may_die()?;
            let Some(process) = &mut self.process else { return Ok(()) };
            while process.stage.has_room() && !process.drivers_ended && process.deliver(place, wall) {}
        }
        let Some(process) = &mut self.process else { return Ok(()) };
        process.stage.tick(wall);
        let wake_at = process.stage.wake_at().map(|at| now + nanos(at.since(wall)));
        self.cut()?;
        let next_commit = self.process.as_ref().map(|process| process.next_commit);
        [wake_at, next_commit].into_iter().flatten().for_each(|at| self.turn_at(at));
        Ok(())
    }

    /// Cuts a commit when it is time.
    fn cut(&mut self) -> Step {
        let (now, wall) = (self.now, self.wall());
        let Some(process) = &mut self.process else { return Ok(()) };
        let due = process.stage.is_urgent() || now >= process.next_commit;
        if process.commit.is_some() || !due {
            return Ok(());
        }
        process.next_commit = now + process.commit_every;
        let with_snapshot = std::mem::take(&mut process.wants_snapshot);
        if let Some(commit) = process.stage.cut(wall, with_snapshot) {
            process.begin(commit);
            let takes = self.random.between(0, 40);
            self.after(takes, Event::StoreCommits(self.processes));
        }
        self.may_die()
    }

    /// The store makes the commit that is under way.
    pub(crate) fn store_commits(&mut self) -> Step {
        self.may_die()?;
        let Some(process) = &mut self.process else { return Ok(()) };
        let Some(UnderWay { commit, taken, leaves, .. }) = &mut process.commit else { return Ok(()) };
        let Some(commit) = commit.take() else { return Ok(()) };
        let (events, records, has_snapshot) = (commit.events.len(), commit.records.len(), commit.snapshot.is_some());
        let committed = process.store.commit(commit).map_err(|error| format!("commit: {error}"))?;
        process.wants_snapshot |= committed.wants_snapshot;
        process.is_made = true;
        self.boots_committed.insert(self.boot);
        let leaves = leaves.clone();
        self.reference.commit(taken);
        self.committed = Some(leaves);
        self.tell(|| {
            let snapshot = if has_snapshot { " and a snapshot" } else { "" };
            format!("commit {}: {events} events, {records} records{snapshot}", committed.number)
        });
        self.check_store()?;
        self.may_die()?;
        let takes = self.random.between(0, 20);
        self.after(takes, Event::EngineHears(self.processes));
        self.hear(Heard::FramesAvailable)
    }

    /// The engine hears that its commit is on disk, and tells the drivers, which acknowledge.
    pub(crate) fn engine_hears(&mut self) -> Step {
        let Some(process) = &mut self.process else { return Ok(()) };
        if !std::mem::take(&mut process.is_made) {
            return Ok(());
        }
        let begins_drivers = process.commit.take().is_some_and(|commit| commit.begins_drivers);
        let committed = process.stage.committed();
        for (input, number) in committed {
            let Some(process) = &mut self.process else { return Ok(()) };
            let name = process.stage.engine().plan().inputs[usize::from(input.0)].name.clone();
            let place = INPUTS.iter().position(|(known, ..)| *known == &*name).unwrap();
            while self
                .process
                .as_mut()
                .is_some_and(|process| process.drivers[place].acknowledge_one(&mut self.sources[place], number))
            {
                self.may_die()?;
            }
        }
        if begins_drivers {
            self.begin_drivers_anew();
        }
        self.turn_at(self.now);
        Ok(())
    }

    fn begin_drivers_anew(&mut self) {
        let Some(process) = &mut self.process else { return };
        process.drivers = drivers(process.stage.engine().plan(), process.stage.kept());
        process.drivers_ended = false;
        self.sources.iter_mut().for_each(crate::inputs::Source::disconnect);
    }

    /// Another configuration: drivers go on, or all begin anew.
    pub(crate) fn reload(&mut self) -> Step {
        let number = self.random.next() % PLANS;
        let wall = self.wall();
        let Some(process) = &mut self.process else { return Ok(()) };
        if !process.stage.has_room() || process.drivers_ended {
            // One reload at a time.
            return Ok(());
        }
        let next = plan(number);
        let anew = next.inputs != process.stage.engine().plan().inputs || self.random.percent(20);
        self.configured = number;
        if anew {
            // The drivers are ended; what they handed over before is taken under the old plan.
            for (place, (_, _, can_be_asked_again)) in INPUTS.into_iter().enumerate() {
                while process.deliver(place, wall) {}
                let silent_since = &mut process.silent_since[place];
                *silent_since = silent_since.or(Some(wall)).filter(|_| !can_be_asked_again);
            }
        }
        process.stage.reload(wall, next, anew);
        process.drivers_ended = anew;
        self.tell(|| format!("reload to plan {number}{}", if anew { ", drivers anew" } else { "" }));
        self.turn_at(self.now);
        self.may_die()
    }

    /// SIGTERM: everything is committed with a snapshot, and the store is closed.
    pub(crate) fn stop(&mut self) -> Step {
        if self.process.is_none() {
            return Ok(());
        }
        self.tell(|| "the process is told to stop".to_owned());
        self.store_commits()?;
        self.engine_hears()?;
        self.turn()?;
        self.store_commits()?;
        self.engine_hears()?;
        let wall = self.wall();
        if let Some(process) = &mut self.process
            && let Some(commit) = process.stage.cut(wall, true)
        {
            process.begin(commit);
        }
        self.store_commits()?;
        self.engine_hears()?;
        self.hear(Heard::Stop)?;
        let Some(process) = &mut self.process else { return Ok(()) };
        let late = Now { steady: process.steady(self.now).saturating_add(STOP_WITHIN), wall };
        while let Some(action) = self.process.as_mut().and_then(|process| process.sender.poll(late)) {
            self.carry_out(action)?;
        }
        self.tell_delivered()?;
        let Some(mut process) = self.process.take() else { return Ok(()) };
        if process.store.has_acknowledged() {
            process.store.flush(wall).map_err(|error| format!("flush: {error}"))?;
        }
        process.store.close().map_err(|error| format!("close: {error}"))?;
        self.gone();
        Ok(())
    }

    /// A turn is planned, if none is planned before.
    pub(crate) fn turn_at(&mut self, at: i64) {
        let (at, number) = (at.max(self.now), self.processes);
        let Some(process) = &mut self.process else { return };
        if process.turn_at.is_none_or(|planned| at < planned) {
            process.turn_at = Some(at);
            self.at(at, Event::Turn(number));
        }
    }

    fn wake_at(&mut self, at: i64) {
        let (at, number) = (at.max(self.now), self.processes);
        let Some(process) = &mut self.process else { return };
        if process.wake_at.is_none_or(|planned| at < planned) {
            process.wake_at = Some(at);
            self.at(at, Event::Wake(number));
        }
    }

    /// A planned turn has come; one that was planned anew since is passed over.
    pub(crate) fn turn_comes(&mut self) -> Step {
        let planned = self.process.as_mut().map(|process| process.turn_at.take_if(|at| *at <= self.now));
        if planned.flatten().is_some() { self.turn() } else { Ok(()) }
    }

    /// Likewise for the sender.
    pub(crate) fn wake_comes(&mut self) -> Step {
        let planned = self.process.as_mut().map(|process| process.wake_at.take_if(|at| *at <= self.now));
        if planned.flatten().is_some() { self.poll_sender() } else { Ok(()) }
    }

    /// The store's thread looks for what waits for a commit that does not come.
    pub(crate) fn look(&mut self) -> Step {
        self.after(LOOK_EVERY, Event::Look(self.processes));
        if !self.is_rough {
            self.fetch_all();
            if let Some(process) = &mut self.process {
                // What no batch limit seals, a snapshot does.
                process.wants_snapshot |= self.has_said_last && self.now / (LOOK_EVERY * MS) % 10 == 0;
            }
        }
        let wall = self.wall();
        let Some(process) = &mut self.process else { return Ok(()) };
        if !process.store.wants_flush(wall) {
            return Ok(());
        }
        process.store.flush(wall).map_err(|error| format!("flush: {error}"))?;
        self.boots_committed.insert(self.boot);
        self.tell(|| "the store flushes".to_owned());
        self.check_store()?;
        self.hear(Heard::FramesAvailable)
    }

    /// What the accounts must say at every instant.
    fn check_store(&self) -> Step {
        let Some(process) = &self.process else { return Ok(()) };
        let status = process.store.status().map_err(|error| format!("status: {error}"))?;
        if let Some(open) = status.check().first() {
            return Err(End::Broken(open.clone()));
        }
        match process.stage.engine().ledger().check() {
            Some(imbalance) => Err(End::Broken(imbalance.to_string())),
            None => Ok(()),
        }
    }

    /// The sender hears something.
    pub(crate) fn hear(&mut self, heard: Heard) -> Step {
        let (now, wall) = (self.now, self.wall());
        let Some(process) = &mut self.process else { return Ok(()) };
        let now = Now { steady: process.steady(now), wall };
        process.sender.handle(now, heard);
        self.poll_sender()
    }

    /// Carries out what the sender wants until it wants nothing.
    pub(crate) fn poll_sender(&mut self) -> Step {
        let wall = self.wall();
        loop {
            let Some(process) = &mut self.process else { return Ok(()) };
            let now = Now { steady: process.steady(self.now), wall };
            let Some(action) = process.sender.poll(now) else {
                let wake_at = process.sender.wake_at(now).map(|at| process.started + nanos(at));
                self.tell_delivered()?;
                wake_at.into_iter().for_each(|at| self.wake_at(at));
                return Ok(());
            };
            self.carry_out(action)?;
        }
    }

    fn carry_out(&mut self, action: Action) -> Step {
        self.may_die()?;
        let (process_number, wall) = (self.processes, self.wall());
        let Some(process) = &mut self.process else { return Ok(()) };
        match action {
            Action::Connect(_) => {
                let succeeds = self.link.weather == Weather::Good;
                let takes = if self.link.weather == Weather::Silent { 10_000 * MS } else { 2 * self.link.latency() };
                self.at(self.now + takes, Event::Opened { process: process_number, succeeds });
            }
            Action::Take(wanted) => {
                self.tell_delivered()?;
                let Some(process) = &mut self.process else { return Ok(()) };
                let taken = process.store.take(&wanted).map_err(|error| format!("take: {error}"))?;
                let heard = match taken {
                    Some(frame) => Heard::Offered(Parcel {
                        id: frame.id,
                        topic: format!("rtlive/gw/{}", frame.stream).into(),
                        stream: frame.stream,
                        priority: frame.priority,
                        lane: frame.lane,
                        committed_at: frame.committed_at,
                        json: frame.json,
                        bytes: frame.bytes,
                        schema: None,
                    }),
                    None => Heard::NothingOffered,
                };
                let now = Now { steady: process.steady(self.now), wall };
                process.sender.handle(now, heard);
            }
            // There is no budget here, and one broker.
            Action::SaveBudget { .. } | Action::Try(_) => {}
            Action::Publish(publication) => {
                let connection = self.link.connection;
                let at = self.link.arrival(self.now, publication.payload.len() + publication.topic.len());
                let (token, payload) = (publication.token, publication.payload);
                self.at(at, Event::Arrives { connection, process: process_number, token, payload });
                self.may_die()?;
            }
            Action::Delivered(id) => process.delivered.push(id),
            Action::Return(id) => {
                self.tell_delivered()?;
                if let Some(process) = &mut self.process {
                    process.store.give_back(&[id]);
                }
            }
            Action::Requeue => {
                self.tell_delivered()?;
                if let Some(process) = &mut self.process {
                    process.store.requeue();
                }
            }
            Action::Hint { connected, congested } => process.store.hint(LinkHint { connected, congested }),
            Action::Disconnect(farewell) => {
                self.link.is_up = false;
                self.tell(|| format!("the sender hangs up: {farewell:?}"));
            }
        }
        Ok(())
    }

    fn tell_delivered(&mut self) -> Step {
        if self.process.as_ref().is_some_and(|process| !process.delivered.is_empty()) {
            self.may_die()?;
        }
        if let Some(process) = &mut self.process {
            process.store.acknowledge(&std::mem::take(&mut process.delivered));
        }
        Ok(())
    }

    /// The attempt to connect is over.
    pub(crate) fn opened(&mut self, succeeds: bool) -> Step {
        if succeeds && self.link.weather == Weather::Good {
            let connection = self.link.open(self.now);
            self.tell(|| format!("connection {connection}"));
            let limits = if self.is_rough { Link::limits(&mut self.random) } else { Limits::NONE };
            return self.hear(Heard::Connected(limits));
        }
        self.hear(Heard::Disconnected(Loss::Broken))
    }

    /// What is still on its way, if anything.
    pub(crate) fn unsettled(&self) -> Option<String> {
        if !self.has_said_last {
            return Some("the sources have more to say".to_owned());
        }
        let Some(process) = &self.process else { return Some("no process runs".to_owned()) };
        for (driver, source) in process.drivers.iter().zip(&self.sources) {
            if !driver.waiting.is_empty() || source.has_more(driver) {
                return Some(format!("{} has more: {driver:?} of {source:?}", source.name));
            }
        }
        if process.commit.is_some() || !process.open.is_empty() {
            return Some("the engine has more".to_owned());
        }
        let status = match process.store.status() {
            Ok(status) => status,
            Err(error) => return Some(error.to_string()),
        };
        let (stream, _) = status.streams.iter().find(|(_, account)| account.stored > 0)?;
        Some(format!("stored: {stream:?} {:?} by {:?}", status.streams.get(stream), process.sender))
    }
}

impl Process {
    fn begin(&mut self, commit: Commit) {
        let leaves = Committed {
            at: commit.at,
            plan: self.stage.engine().plan().clone(),
            engine: self.stage.engine().snapshot(),
            silent_since: self.silent_since.clone(),
        };
        let (taken, begins_drivers) = (std::mem::take(&mut self.open), self.drivers_ended);
        self.commit = Some(UnderWay { commit: Some(commit), taken, leaves, begins_drivers });
    }

    /// The stage takes what waits longest of an input, if anything waits.
    fn deliver(&mut self, place: usize, now: Timestamp) -> bool {
        let Some((delivery, mut taken)) = self.drivers[place].waiting.pop_front() else { return false };
        if !taken.readings.is_empty() {
            taken.outage = self.silent_since[place].take().map(|start| (start, taken.arrival));
        }
        self.stage.deliver(now, delivery);
        self.open.push(taken);
        true
    }

    fn steady(&self, now: i64) -> std::time::Duration {
        std::time::Duration::from_nanos((now - self.started).unsigned_abs())
    }
}

fn nanos(span: std::time::Duration) -> i64 {
    i64::try_from(span.as_nanos()).unwrap()
}

fn drivers(plan: &Plan, kept: &Kept) -> Vec<Driver> {
    let empty = BTreeMap::new();
    let driver = |(name, ..): &(&'static str, u64, bool)| {
        Driver::new(plan.input_named(name).unwrap(), kept.get(*name).unwrap_or(&empty))
    };
    INPUTS.iter().map(driver).collect()
}
