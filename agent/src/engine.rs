//! The engine task: takes deliveries, lets time pass, commits.
//!
//! One commit is under way at a time; meanwhile the engine goes on taking, up to a bound. Whatever was delivered is reported back to
//! its driver only when the commit that covers it is on disk.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use rtlive_core::plan::{Durability, Plan};
use rtlive_core::reading::InputId;
use rtlive_drivers::outlet::Clock as _;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;

use crate::clock::watch::change;
use crate::clock::{AgentClock, Verdict};
use crate::message::{Committed, Delivery, StoreError, StoreHandle};
use crate::progress::Beat;
use crate::rates::Rates;
use crate::stage::Stage;
use crate::status::EngineStatus;
use crate::tail::Tail;

/// How many deliveries are taken between two looks at the clock: enough that the look is not felt, few enough that a commit is on time.
const DELIVERIES_PER_TURN_MAX: usize = 64;

/// How often the task turns at least, so that the watchdog hears it.
const TURN_AT_LEAST_EVERY: Duration = Duration::from_secs(1);

/// What is asked of the engine task from beside the way of the data.
pub enum EngineRequest {
    /// What it computes and how it stands.
    Status(oneshot::Sender<EngineStatus>),
    /// Compute another plan from now on; answered when the commit that carries the plan is made.
    Reload(Reload, oneshot::Sender<()>),
}

/// Another plan.
pub struct Reload {
    /// The plan.
    pub plan: Arc<Plan>,
    /// The longest time between a reading and the commit that covers it.
    pub commit_every: Duration,
    /// To each input, when all drivers were ended and begin anew; `None` when they go on.
    pub committed: Option<BTreeMap<InputId, watch::Sender<u64>>>,
}

/// A commit that the store has not answered yet.
struct UnderWay {
    result: Pin<Box<dyn Future<Output = Result<Committed, StoreError>> + Send>>,
    is_last: bool,
}

/// Resolves when the commit under way is answered; never without one.
async fn finished(commit: &mut Option<UnderWay>) -> Result<Committed, StoreError> {
    match commit {
        Some(commit) => (&mut commit.result).await,
        None => std::future::pending().await,
    }
}

/// What the engine task works with.
pub struct EngineTask {
    /// The engine, restored.
    pub stage: Stage,
    /// From all drivers.
    pub deliveries: mpsc::Receiver<Delivery>,
    /// From the local socket and the signals.
    pub requests: mpsc::Receiver<EngineRequest>,
    /// To the store.
    pub store: StoreHandle,
    /// To each input: the number of its last delivery that is on disk.
    pub committed: BTreeMap<InputId, watch::Sender<u64>>,
    /// What was committed to memory only, and is not told yet.
    pub unreported: BTreeMap<InputId, u64>,
    /// To those who look on.
    pub tail: Tail,
    /// The clock, which goes by what is decided of it when the engine is told.
    pub clock: Arc<AgentClock>,
    /// What is decided of the clock.
    pub verdicts: watch::Receiver<Option<Verdict>>,
    /// Which boot this is.
    pub boot: Arc<str>,
    /// The longest time between a reading and the commit that covers it.
    pub commit_every: Duration,
    /// Fed at each turn.
    pub beat: Beat,
}

impl EngineTask {
    /// Runs until every driver has dropped its end of the channel, commits what is left with a snapshot, and returns.
    ///
    /// # Errors
    /// What the store said; what was not committed was not acknowledged to any input either.
    pub async fn run(mut self) -> Result<(), StoreError> {
        let mut last_commit = Instant::now();
        let mut commit: Option<UnderWay> = None;
        let mut wants_snapshot = false;
        let mut reloads: Vec<oneshot::Sender<()>> = Vec::new();
        let mut reloads_under_way: Vec<oneshot::Sender<()>> = Vec::new();
        let mut inputs_gone = false;
        let mut rates = Rates::default();

        loop {
            self.beat.now();
            rates.look(std::time::Instant::now(), self.stage.engine().ledger());
            if self.stage.may_be_told() && self.clock.has_slept() {
                self.stage.wake(self.clock.now());
            }
            self.stage.tick(self.clock.now());
            self.show(&self.stage.engine().plan().clone());
            let due = inputs_gone
                || self.stage.is_urgent()
                || !reloads.is_empty()
                || Instant::now() >= self.commit_at(last_commit);
            if commit.is_none() && due {
                last_commit = Instant::now();
                if let Some(cut) = self.stage.cut(self.clock.now(), wants_snapshot || inputs_gone) {
                    self.tail.is_committed();
                    reloads_under_way.append(&mut reloads);
                    let store = self.store.clone();
                    let result = Box::pin(async move { store.commit(cut).await });
                    commit = Some(UnderWay { result, is_last: inputs_gone });
                }
            }

            let wake_at = self.wake_at(self.commit_at(last_commit), commit.is_some());
            tokio::select! {
                biased;
                result = finished(&mut commit) => {
                    let is_last = commit.take().is_some_and(|commit| commit.is_last);
                    let committed = result?;
                    wants_snapshot = committed.wants_snapshot;
                    self.report_committed(committed.is_durable);
                    for reply in reloads_under_way.drain(..) {
                        let _ = reply.send(());
                    }
                    if is_last {
                        return Ok(());
                    }
                }
                Some(request) = self.requests.recv() => match request {
                    EngineRequest::Status(reply) => { let _ = reply.send(EngineStatus::of(self.stage.engine(), &rates, self.clock.source())); }
                    EngineRequest::Reload(Reload { plan, commit_every, committed }, reply) => {
                        self.commit_every = commit_every;
                        // Inputs are numbered anew by the plan: what the ended drivers left behind is taken under the old one.
                        if committed.is_some() {
                            self.unreported.clear();
                            while let Ok(delivery) = self.deliveries.try_recv() {
                                self.stage.deliver(self.clock.now(), delivery);
                            }
                        }
                        let before = self.stage.engine().plan().clone();
                        self.show(&before);
                        self.stage.reload(self.clock.now(), plan, committed.is_some());
                        self.show(&before);
                        self.committed = committed.unwrap_or(std::mem::take(&mut self.committed));
                        reloads.push(reply);
                    }
                },
                Ok(()) = self.verdicts.changed(), if self.stage.may_be_told() => {
                    let verdict = *self.verdicts.borrow_and_update();
                    if let Some(verdict) = verdict {
                        self.clock.follow(&verdict);
                        self.stage.change_clock(self.clock.now(), change(&self.boot, &verdict));
                    }
                }
                delivery = self.deliveries.recv(), if !inputs_gone && self.stage.has_room() => match delivery {
                    Some(delivery) => self.take(delivery),
                    None => inputs_gone = true,
                },
                () = tokio::time::sleep_until(wake_at) => {}
            }
        }
    }

    /// Shows what is new since the last call to those who look on. `plan` is that under which it was emitted.
    fn show(&mut self, plan: &Plan) {
        self.tail.show(plan, self.stage.engine(), self.stage.uncommitted());
    }

    /// Takes a delivery and those that wait behind it, up to a bound.
    fn take(&mut self, delivery: Delivery) {
        let now = self.clock.now();
        self.stage.deliver(now, delivery);
        for _ in 1..DELIVERIES_PER_TURN_MAX {
            if !self.stage.has_room() {
                break;
            }
            match self.deliveries.try_recv() {
                Ok(delivery) => self.stage.deliver(now, delivery),
                Err(_) => break,
            }
        }
    }

    /// When the next commit is due, unless something presses more.
    fn commit_at(&self, last_commit: Instant) -> Instant {
        last_commit + self.commit_every * if self.stage.may_wait() { Durability::RELAXED_COMMITS } else { 1 }
    }

    fn wake_at(&self, next_commit: Instant, committing: bool) -> Instant {
        let now = Instant::now();
        let mut wake_at = now + TURN_AT_LEAST_EVERY;
        if !committing {
            wake_at = wake_at.min(next_commit);
        }
        if let Some(at) = self.stage.wake_at() {
            wake_at = wake_at.min(now + at.since(self.clock.now()));
        }
        wake_at
    }

    /// Tells drivers what was committed; what is only in memory is not told to those whose sources would forget it for that.
    fn report_committed(&mut self, is_durable: bool) {
        self.unreported.extend(self.stage.committed());
        let plan = self.stage.engine().plan();
        let is_held = |input: &InputId| {
            let input = plan.inputs.get(usize::from(input.0));
            !is_durable && input.is_some_and(|input| input.can_be_asked_again)
        };
        self.unreported.retain(|input, number| {
            let is_held = is_held(input);
            if let Some(sender) = self.committed.get(input).filter(|_| !is_held) {
                sender.send_replace(*number);
            }
            is_held
        });
    }
}
