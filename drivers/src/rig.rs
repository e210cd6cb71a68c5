//! A test's stand-in for the engine and the store: takes deliveries, commits when told, forgets at a crash what was not committed.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use rtlive_config::document::Document;
use rtlive_core::reading::{InputId, Value};
use rtlive_core::time::Timestamp;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;

use crate::input::{CheckedInput, Driver};
use crate::outlet::{Clock, Delivery, InputHealth, Session, SessionParts, SharedHealth};
use crate::supervisor;

/// How long a test waits for what must come; far above what it takes on a loaded machine.
const PATIENCE: Duration = Duration::from_secs(60);

struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
        Timestamp::from_nanos(i64::try_from(since.as_nanos()).unwrap())
    }
}

/// A file or folder of the shared data: below `RTLIVE_DATA`, or `../shared/data` beside the project. `None`, said loudly, where it is
/// missing.
pub(crate) fn shared(name: &str) -> Option<PathBuf> {
    let folder = std::env::var_os("RTLIVE_DATA")
        .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../shared/data"), PathBuf::from);
    let path = folder.join(name);
    if path.exists() {
        return Some(path);
    }
    eprintln!("SKIPPED: {} is missing (RTLIVE_DATA names the folder of the shared data)", path.display());
    None
}

/// A reading with the name of its series.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Named {
    pub(crate) series: String,
    pub(crate) time: Timestamp,
    pub(crate) value: Value,
}

/// One input, through restarts of its process.
pub(crate) struct Rig {
    driver: &'static Driver,
    options: String,
    /// What survives a crash.
    pub(crate) readings: Vec<Named>,
    pub(crate) rejected: BTreeMap<String, u64>,
    pub(crate) outages: Vec<String>,
    pub(crate) state: BTreeMap<String, Vec<u8>>,
    pub(crate) urgent: u64,
    process: Option<Process>,
}

struct Process {
    task: JoinHandle<()>,
    deliveries: mpsc::Receiver<Delivery>,
    committed: watch::Sender<u64>,
    stop: watch::Sender<bool>,
    health: SharedHealth,
    series: Vec<String>,
    taken: Vec<Delivery>,
}

/// A session, and the other ends of its channels.
pub(crate) fn session(
    state: BTreeMap<String, Vec<u8>>,
) -> (Session, mpsc::Receiver<Delivery>, watch::Sender<u64>, watch::Sender<bool>, SharedHealth) {
    let (deliveries, receiver) = mpsc::channel(4);
    let (committed, on_disk) = watch::channel(0);
    let (stop, stopping) = watch::channel(false);
    let health = SharedHealth::default();
    let session = Session::new(SessionParts {
        input: InputId(0),
        name: "in".into(),
        agent: "test".into(),
        prefix: "in".into(),
        round: None,
        clock: Arc::new(SystemClock),
        deliveries,
        committed: on_disk,
        stop: stopping,
        held: None,
        health: Arc::clone(&health),
        state,
        trace: None,
    });
    (session, receiver, committed, stop, health)
}

/// The input of an options table, or the mistakes in it.
pub(crate) fn checked(driver: &Driver, options: &str) -> Result<CheckedInput, String> {
    let document = Document::of_text("test.toml", options);
    let checked = (driver.check)(&document.root());
    let mistakes = document.mistakes().to_string();
    checked.filter(|_| mistakes.is_empty()).ok_or(mistakes)
}

impl Rig {
    pub(crate) fn new(driver: &'static Driver, options: &str) -> Self {
        Self {
            driver,
            options: options.to_owned(),
            readings: Vec::new(),
            rejected: BTreeMap::new(),
            outages: Vec::new(),
            state: BTreeMap::new(),
            urgent: 0,
            process: None,
        }
    }

    pub(crate) fn start(&mut self) {
        let input = checked(self.driver, &self.options).unwrap().input;
        let (session, deliveries, committed, stop, health) = session(self.state.clone());
        let task = supervisor::spawn("in".into(), input, session);
        let process = Process { task, deliveries, committed, stop, health, series: Vec::new(), taken: Vec::new() };
        self.process = Some(process);
    }

    fn process(&mut self) -> &mut Process {
        self.process.as_mut().unwrap()
    }

    /// Takes the next delivery, without committing it.
    pub(crate) async fn take(&mut self) {
        let delivery = tokio::time::timeout(PATIENCE, self.process().deliveries.recv()).await.unwrap().unwrap();
        self.urgent += u64::from(delivery.urgent);
        self.process().taken.push(delivery);
    }

    /// Takes the next delivery, if it comes within `wait`.
    pub(crate) async fn take_within(&mut self, wait: Duration) -> bool {
        match tokio::time::timeout(wait, self.process().deliveries.recv()).await {
            Ok(delivery) => self.process().taken.push(delivery.unwrap()),
            Err(_) => return false,
        }
        true
    }

    /// How many readings were taken and not committed.
    pub(crate) fn uncommitted(&mut self) -> usize {
        self.process().taken.iter().map(|delivery| delivery.batch.readings.len()).sum()
    }

    /// Commits what was taken.
    pub(crate) fn commit(&mut self) {
        let process = self.process.as_mut().unwrap();
        let mut last = None;
        for delivery in process.taken.drain(..) {
            last = Some(delivery.number);
            process.series.extend(delivery.declared.iter().map(|declared| declared.info.name.to_string()));
            for reading in delivery.batch.readings {
                let series = process.series[reading.series.index()].clone();
                self.readings.push(Named { series, time: reading.time, value: reading.value });
            }
            for rejected in delivery.batch.rejected {
                *self.rejected.entry(rejected.reason.to_string()).or_default() += rejected.count;
            }
            self.outages.extend(delivery.outage.map(|outage| outage.reason.to_string()));
            for (key, value) in delivery.state {
                match value {
                    Some(value) => self.state.insert(key, value),
                    None => self.state.remove(&key),
                };
            }
        }
        if let Some(last) = last {
            process.committed.send_replace(last);
        }
    }

    /// Takes and commits until `done`.
    pub(crate) async fn commit_until(&mut self, done: impl Fn(&Self) -> bool) {
        while !done(self) {
            self.take().await;
            self.commit();
        }
    }

    /// Waits until `done` says so of the health.
    pub(crate) async fn health_until(&mut self, done: impl Fn(&InputHealth) -> bool) -> InputHealth {
        let until = tokio::time::Instant::now() + PATIENCE;
        loop {
            let health = self.process().health.lock().unwrap().clone();
            if done(&health) {
                return health;
            }
            assert!(tokio::time::Instant::now() < until, "{health:?}");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// The process dies: what was not committed is gone.
    pub(crate) async fn crash(&mut self) {
        let process = self.process.take().unwrap();
        process.task.abort();
        let _ = process.task.await;
    }

    /// The process dies right after a commit of what was taken, before its driver heard of it.
    pub(crate) async fn crash_after_commit(&mut self) {
        let process = self.process();
        process.task.abort();
        let _ = (&mut process.task).await;
        self.commit();
        self.process = None;
    }

    /// The program stops in order; what was handed over is committed.
    pub(crate) async fn stop(&mut self) {
        self.process().stop.send_replace(true);
        loop {
            let process = self.process();
            tokio::select! {
                delivery = process.deliveries.recv() => match delivery {
                    Some(delivery) => process.taken.push(delivery),
                    None => break,
                },
                () = tokio::time::sleep(Duration::from_millis(5)) => {}
            }
            self.commit();
        }
        self.process.take().unwrap().task.await.unwrap();
    }

    pub(crate) fn counter(&mut self, name: &str) -> u64 {
        self.process().health.lock().unwrap().counters.get(name).copied().unwrap_or(0)
    }
}
