//! Makes every channel and every task of the agent.
//!
//! ```text
//! driver task × N ──▶ engine task ──▶ store thread ◀── uplink task ──▶ broker
//!  (supervised)                         (SQLite)
//! ```
//!
//! Closing a channel is stopping: the drivers end first, which closes the way to the engine; the engine commits what it has with a
//! snapshot and ends; the uplink sends what is sealed, within a bound; the store closes last.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use rtlive_config::Flash;
use rtlive_config::agent::ClockTrust;
use rtlive_config::fingerprint::Fingerprint;
use rtlive_config::forecast::{Forecast, LadderForecast};
use rtlive_config::uplink::UplinkConfig;
use rtlive_core::plan::Plan;
use rtlive_core::reading::InputId;
use rtlive_core::sorted;
use rtlive_core::time::Timestamp;
use rtlive_drivers::outlet::{Clock, Session, SessionParts, SharedHealth};
use rtlive_drivers::supervisor;
use tokio::sync::{broadcast, mpsc, oneshot, watch};
use tokio::task::{JoinHandle, JoinSet};

use crate::clock::watch::{begin, change, first_look, watch as watch_clock};
use crate::clock::{AgentClock, boot_id, random};
use crate::command::Config;
use crate::engine::{EngineRequest, EngineTask, Reload};
use crate::message::{Bounds, Delivery, StoreError, StoreHandle, StoreRequest};
use crate::progress::Beat;
use crate::recovery;
use crate::stage::Kept;
use crate::status::Status;
use crate::store::{self, Boot, Keeper};
use crate::tail::{self, Tail, TailItem};
use crate::uplink::{self, UplinkHealth};

/// How many deliveries may wait for the engine, of all inputs together. The engine takes them in turns of as many; what is behind
/// waits in its driver, which is what slows a source down.
const DELIVERIES_MAX: usize = 64;

/// How many requests may wait for the engine: a status and a reload.
const ENGINE_REQUESTS_MAX: usize = 4;

/// How long the uplink may take to send what is sealed. What it does not send stays in the store.
const UPLINK_STOP_WITHIN: Duration = Duration::from_secs(5);

/// Why the agent stopped by itself.
#[derive(Debug, thiserror::Error)]
pub enum PipelineError {
    /// The store could not be opened or written.
    #[error("the store failed")]
    Store(#[from] StoreError),
    /// The system has no room for the store's thread.
    #[error("start the store's thread")]
    Thread(#[source] std::io::Error),
    /// A stage ended that should not have; systemd starts the agent again.
    #[error("the {0} ended unexpectedly")]
    StageEnded(&'static str),
}

/// The running agent.
pub struct Pipeline {
    /// To look at and to ask.
    pub store: StoreHandle,
    /// What the engine takes and emits, for those who look on.
    pub tail: broadcast::Sender<TailItem>,
    /// The engine's heartbeat.
    pub beat: Beat,
    agent: Arc<str>,
    flash: Option<Flash>,
    clock: Arc<AgentClock>,
    engine: mpsc::Sender<EngineRequest>,
    engine_task: JoinHandle<Result<(), StoreError>>,
    deliveries: mpsc::Sender<Delivery>,
    inputs: Inputs,
    uplink: Option<Uplink>,
    /// What the levels of ladders need of the link.
    ladders: Vec<LadderForecast>,
    store_thread: std::thread::JoinHandle<()>,
}

/// The drivers' tasks.
struct Inputs {
    health: BTreeMap<Arc<str>, SharedHealth>,
    stop: watch::Sender<bool>,
    tasks: JoinSet<()>,
    fingerprint: Fingerprint,
}

/// The uplink's task.
struct Uplink {
    options: UplinkConfig,
    plan: Arc<Plan>,
    health: uplink::SharedHealth,
    stop: watch::Sender<bool>,
    task: JoinHandle<()>,
}

/// To each input: the number of its last delivery that is on disk.
type CommittedSenders = BTreeMap<InputId, watch::Sender<u64>>;

impl Pipeline {
    /// Opens the store, restores the engine, and starts every stage. Drivers begin to read when this returns.
    ///
    /// Must be called within a tokio runtime.
    ///
    /// # Errors
    /// The store cannot be opened: another agent holds it, or its folder cannot be written.
    pub fn start(mut config: Config) -> Result<Self, PipelineError> {
        let agent_clock = Arc::new(first_look(config.agent.clock == ClockTrust::Trusted));
        let clock: Arc<dyn Clock> = agent_clock.clone();
        let boot_id = boot_id();
        let boot = Boot { id: boot_id.clone(), now: clock.now(), random: random() };
        let options = store::Options { bounds: bounds(&config), ..store::Options::new(config.agent.state_dir.clone()) };
        let (mut store, recovered) = Keeper::open(&options, boot)?;
        let boot: Arc<str> = boot_id.into();
        let (verdict_sender, verdicts) = watch::channel(None);
        let (stage, kept) = recovery::restore(&mut store, recovered, &config.plan, |known| {
            let (judge, verdict) = begin(&agent_clock, &boot, known);
            tokio::spawn(watch_clock(judge, agent_clock.clone(), verdict_sender));
            (agent_clock.now(), Some(change(&boot, &verdict)))
        })?;
        let (store, store_thread) = store::thread::spawn(store, clock.clone()).map_err(PipelineError::Thread)?;

        let (deliveries, from_drivers) = mpsc::channel(DELIVERIES_MAX);
        let (engine, requests) = mpsc::channel(ENGINE_REQUESTS_MAX);
        let (tail, _) = broadcast::channel(tail::ITEMS_MAX);
        let beat = Beat::default();
        let (agent, flash, commit_every) = (config.plan.agent.clone(), config.store.flash, config.store.commit_every);
        let ladders = Forecast::of(&config).ladders;
        let uplink = config.uplink.take();
        let uplink = uplink.map(|options| Uplink::start(options, &config.plan, &store, &clock, std::future::ready(())));
        if uplink.is_none() {
            tracing::warn!("no [uplink] is configured: records are stored, and go nowhere");
        }
        let (committed, receivers) = committed_channels(config.inputs.len());
        let inputs = Inputs::start(&mut config, kept, receivers, &deliveries, &clock, &store);
        let task = EngineTask {
            stage,
            deliveries: from_drivers,
            requests,
            store: store.clone(),
            committed,
            unreported: BTreeMap::new(),
            tail: Tail::new(tail.clone()),
            clock: agent_clock.clone(),
            verdicts,
            boot,
            commit_every,
            beat: beat.clone(),
        };
        let engine_task = tokio::spawn(task.run());
        let clock = agent_clock;
        Ok(Self {
            store,
            tail,
            beat,
            agent,
            flash,
            clock,
            engine,
            engine_task,
            deliveries,
            inputs,
            uplink,
            ladders,
            store_thread,
        })
    }

    fn clock(&self) -> Arc<dyn Clock> {
        self.clock.clone()
    }

    /// Now, by the agent's clock.
    pub fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// Resolves when a stage ends that should not.
    pub async fn failed(&mut self) -> PipelineError {
        let uplink = async {
            match &mut self.uplink {
                Some(uplink) => drop((&mut uplink.task).await),
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            ended = &mut self.engine_task => match ended {
                Ok(Err(error)) => PipelineError::Store(error),
                Ok(Ok(())) | Err(_) => PipelineError::StageEnded("engine"),
            },
            () = uplink => PipelineError::StageEnded("uplink"),
            () = self.store.requests.closed() => PipelineError::StageEnded("store"),
        }
    }

    /// How everything stands.
    ///
    /// # Errors
    /// A stage has stopped.
    pub async fn status(&self, since: Timestamp) -> Result<Status, PipelineError> {
        let (reply, answer) = oneshot::channel();
        let stopped = || PipelineError::StageEnded("engine");
        self.engine.send(EngineRequest::Status(reply)).await.map_err(|_| stopped())?;
        let engine = answer.await.map_err(|_| stopped())?;
        let store = self.store.status().await?;
        let uplink = self.uplink.as_ref().map(|uplink| uplink.look(&self.ladders));
        Ok(Status::of(&self.agent, since, self.clock.now(), &engine, &self.inputs.health, (&store, self.flash), uplink))
    }

    /// Goes on under another configuration, and says what changed. Windows and rules that did not change keep their state. Drivers go
    /// on reading unless something changed in `[inputs]`; then all of them begin anew.
    ///
    /// # Errors
    /// A stage has stopped.
    pub async fn reload(&mut self, mut config: Config) -> Result<String, PipelineError> {
        let stopped = || PipelineError::StageEnded("engine");
        let mut changed = vec!["streams, windows and rules are as configured now"];
        let (mut senders, mut receivers) = (None, None);
        // Sessions at brokers carry the agent's id.
        if config.inputs_fingerprint != self.inputs.fingerprint || config.plan.agent != self.agent {
            self.inputs.stop().await;
            let channels = committed_channels(config.inputs.len());
            (senders, receivers) = (Some(channels.0), Some(channels.1));
        }
        self.store.tell(StoreRequest::Bound(bounds(&config))).await?;
        self.ladders = Forecast::of(&config).ladders;
        let (reply, answer) = oneshot::channel();
        let commit_every = config.store.commit_every;
        let reload = Reload { plan: config.plan.clone(), commit_every, committed: senders };
        self.engine.send(EngineRequest::Reload(reload, reply)).await.map_err(|_| stopped())?;
        answer.await.map_err(|_| stopped())?;
        if let Some(receivers) = receivers {
            let kept = self.store.kept().await?;
            self.inputs = Inputs::start(&mut config, kept, receivers, &self.deliveries, &self.clock(), &self.store);
            changed.push("all inputs were started again");
        }
        let is_same = |uplink: &Uplink| {
            config.uplink.as_ref() == Some(&uplink.options) && speaks_alike(&uplink.plan, &config.plan)
        };
        if !self.uplink.as_ref().map_or(config.uplink.is_none(), is_same) {
            let before = self.uplink.take();
            let before = async {
                if let Some(uplink) = before {
                    uplink.stop().await;
                }
            };
            match config.uplink {
                Some(options) => {
                    let uplink = Uplink::start(options, &config.plan, &self.store, &self.clock(), before);
                    self.uplink = Some(uplink);
                }
                None => drop(tokio::spawn(before)),
            }
            changed.push("the uplink connects again");
        }
        self.clock.configure(config.agent.clock == ClockTrust::Trusted);
        (self.agent, self.flash) = (config.plan.agent.clone(), config.store.flash);
        Ok(changed.join("; "))
    }

    /// Drains and stops, from the drivers to the store.
    ///
    /// # Errors
    /// What the store said to the last commit.
    pub async fn stop(mut self) -> Result<(), PipelineError> {
        self.inputs.stop().await;
        drop(self.deliveries);
        // An engine that failed before has been asked for its error already; there is nothing left to wait for.
        let committed = if self.engine_task.is_finished() { Ok(()) } else { joined(self.engine_task.await) };
        if let Some(uplink) = self.uplink {
            uplink.stop().await;
        }
        self.store.stop().await?;
        drop(self.store);
        let thread = self.store_thread;
        let _ = tokio::task::spawn_blocking(move || thread.join()).await;
        committed
    }
}

fn joined(result: Result<Result<(), StoreError>, tokio::task::JoinError>) -> Result<(), PipelineError> {
    match result {
        Ok(result) => Ok(result?),
        Err(_) => Err(PipelineError::StageEnded("engine")),
    }
}

/// What the configuration allows the store.
fn bounds(config: &Config) -> Bounds {
    Bounds { bytes: config.store.max_bytes, age: config.store.max_age }
}

/// A channel for each input that tells it what is on disk.
fn committed_channels(inputs: usize) -> (CommittedSenders, Vec<watch::Receiver<u64>>) {
    let (senders, receivers): (Vec<_>, _) = (0..inputs).map(|_| watch::channel(0)).unzip();
    (sorted::map((0..).map(InputId).zip(senders)), receivers)
}

/// Whether an uplink publishes the same under both plans: topics and the status do not change.
fn speaks_alike(before: &Plan, after: &Plan) -> bool {
    let topics = |plan: &Plan| -> Vec<_> {
        plan.streams.iter().map(|stream| (stream.name.clone(), stream.topic.clone())).collect()
    };
    before.agent == after.agent && before.labels == after.labels && topics(before) == topics(after)
}

impl Inputs {
    fn start(
        config: &mut Config,
        mut kept: Kept,
        committed: Vec<watch::Receiver<u64>>,
        deliveries: &mpsc::Sender<Delivery>,
        clock: &Arc<dyn Clock>,
        store: &StoreHandle,
    ) -> Self {
        let (stop, stopping) = watch::channel(false);
        let mut health = BTreeMap::new();
        let mut tasks = JoinSet::new();
        for ((id, input), committed) in (0..).map(InputId).zip(config.inputs.drain(..)).zip(committed) {
            let shared = SharedHealth::default();
            health.insert(input.name.clone(), shared.clone());
            let can_be_held = config.plan.inputs.get(usize::from(id.0)).is_some_and(|plan| plan.can_be_asked_again);
            let mut parts = SessionParts {
                input: id,
                name: input.name.clone(),
                agent: config.plan.agent.clone(),
                prefix: input.prefix,
                round: input.round,
                clock: clock.clone(),
                deliveries: deliveries.clone(),
                committed,
                stop: stopping.clone(),
                held: can_be_held.then(|| store.held.clone()),
                health: shared,
                state: kept.remove(&input.name).unwrap_or_default(),
                trace: None,
            };
            let (store, name) = (store.clone(), input.name.clone());
            tasks.spawn(async move {
                if can_be_held && *store.held.borrow() {
                    // What it kept may lie on a disk that cannot be read yet.
                    let waits = Session::new(parts.clone());
                    waits.health().state = "waiting";
                    waits.health().error =
                        Some("held: the store is in memory, and the source keeps its readings".into());
                    if waits.wait_while_held().await.is_err() {
                        return;
                    }
                    waits.health().error = None;
                    let Ok(mut kept) = store.kept().await else { return };
                    parts.state = kept.remove(&name).unwrap_or_default();
                }
                supervisor::supervise(name, input.input, Session::new(parts)).await;
            });
        }
        Self { health, stop, tasks, fingerprint: config.inputs_fingerprint }
    }

    /// Ends the drivers: each may have its last readings committed and acknowledged first. The supervisor bounds how long that takes.
    async fn stop(&mut self) {
        self.stop.send_replace(true);
        while self.tasks.join_next().await.is_some() {}
    }
}

impl Uplink {
    /// Connects once `before`, the end of the uplink before this one, has come: both may use the same client id, and the same frames. Nothing else
    /// waits for that.
    fn start(
        options: UplinkConfig,
        plan: &Arc<Plan>,
        store: &StoreHandle,
        clock: &Arc<dyn Clock>,
        before: impl Future<Output = ()> + Send + 'static,
    ) -> Self {
        let (stop, stopping) = watch::channel(false);
        let waits = UplinkHealth { state: "waiting".into(), broker: options.broker.to_string(), ..Default::default() };
        let health = uplink::SharedHealth::new(waits.into());
        let task = uplink::run(options.clone(), plan.clone(), store.clone(), clock.clone(), health.clone(), stopping);
        let task = async {
            before.await;
            task.await;
        };
        Self { options, plan: plan.clone(), health, stop, task: tokio::spawn(task) }
    }

    fn look(&self, ladders: &[LadderForecast]) -> UplinkHealth {
        self.health.lock().unwrap_or_else(PoisonError::into_inner).clone().at(Instant::now(), ladders)
    }

    async fn stop(mut self) {
        self.stop.send_replace(true);
        if self.task.is_finished() {
            return;
        }
        if tokio::time::timeout(UPLINK_STOP_WITHIN, &mut self.task).await.is_err() {
            tracing::warn!("the uplink did not end in time; what it did not send stays in the store");
            self.task.abort();
        }
    }
}
