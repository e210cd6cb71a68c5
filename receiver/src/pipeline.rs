//! The pipeline: every channel and every task, from the sources to the end.
//!
//! ```text
//! source task × N ──Delivery──▶ intake thread ──▶ outputs
//!        ◀──────── tokens of what is durable
//! ```
//!
//! Closing the queue is how it ends: when all sources have ended, the intake takes what waits, commits, and ends.

use std::io::{self, Write};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinSet;

use crate::config::{Config, SourceConfig};
use crate::delivery::{self, DELIVERIES_MAX, Queue, Queued, Settlement, SourceId};
use crate::intake::{Intake, IntakeError, Setup};
use crate::metrics::{self, Figures};
use crate::source::{SourceError, files, mqtt, nats};

/// How many batches of tokens may wait for a source.
const SETTLED_MAX: usize = 8;

/// Why the pipeline did not come to its end.
#[derive(Debug, thiserror::Error)]
pub enum PipelineError {
    /// The intake cannot go on.
    #[error(transparent)]
    Intake(#[from] IntakeError),
    /// A source cannot be read.
    #[error("source {name}")]
    Source {
        /// Its name.
        name: Arc<str>,
        /// Why.
        source: SourceError,
    },
    /// Nobody can ask for metrics.
    #[error("listen at {address} for requests of metrics")]
    Metrics {
        /// The address.
        address: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
    /// The system has no room for a thread.
    #[error("start a thread")]
    Thread(#[source] io::Error),
    /// The intake's thread ended without a word; always a defect of the program.
    #[error("the intake ended without a word")]
    Lost,
}

/// What is read: by name, in the order of their ids.
#[derive(Debug)]
pub enum Reads {
    /// A configured source.
    Source(SourceConfig),
    /// A file, or standard input for `-`.
    File(PathBuf),
}

/// The running pipeline.
pub struct Pipeline {
    names: Vec<Arc<str>>,
    sources: JoinSet<(SourceId, Result<(), SourceError>)>,
    stop: watch::Sender<bool>,
    intake: JoinHandle<()>,
    ended: oneshot::Receiver<Result<(), IntakeError>>,
    figures: Figures,
}

impl Pipeline {
    /// Opens the state and starts everything. To be called within a runtime.
    ///
    /// # Errors
    /// The state cannot be opened, or the system has no room for a thread.
    pub fn start(config: &Config, reads: Vec<(Arc<str>, Reads)>) -> Result<Self, PipelineError> {
        let names: Vec<Arc<str>> = reads.iter().map(|(name, _)| Arc::clone(name)).collect();
        let lines: Option<Box<dyn Write + Send>> =
            if config.outputs.json { Some(Box::new(io::stdout())) } else { None };
        let (parquet, id) = (config.outputs.parquet.clone(), config.id.clone());
        let (state_dir, figures) = (config.state_dir.clone(), Figures::default());
        let setup = Setup { state_dir, sources: names.clone(), lines, parquet, id, figures: figures.clone() };
        let mut intake = Intake::open(setup)?;
        if let Some(address) = config.metrics {
            let listener = metrics::listen(address).map_err(|source| PipelineError::Metrics { address, source })?;
            // Ends with the runtime.
            tokio::spawn(metrics::serve(listener, figures.clone()));
        }
        let (queue, deliveries) = delivery::channel();
        let (stop, stopping) = watch::channel(false);
        let mut sources = JoinSet::new();
        let mut settle = Vec::new();
        for (place, (_, reads)) in reads.into_iter().enumerate() {
            let id = SourceId(place);
            settle.push(start_source(&mut sources, &mut intake, id, reads, &queue, &stopping)?);
        }
        let (end, ended) = oneshot::channel();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build();
        let runtime = runtime.map_err(PipelineError::Thread)?;
        let thread = thread::Builder::new().name("intake".into());
        let intake = thread.spawn(move || {
            // Whoever waits for the end may have gone.
            let _ = end.send(runtime.block_on(serve(intake, deliveries, &settle)));
        });
        Ok(Self { names, sources, stop, intake: intake.map_err(PipelineError::Thread)?, ended, figures })
    }

    /// Waits until every source has come to its end, or something fails. May be dropped while it waits.
    ///
    /// # Errors
    /// A source cannot be read.
    pub async fn sources_ended(&mut self) -> Result<(), PipelineError> {
        while let Some(ended) = self.sources.join_next().await {
            match ended {
                // That the intake has stopped is told by itself.
                Ok((_, Ok(()) | Err(SourceError::Stopped(_)))) | Err(_) => {}
                Ok((id, Err(source))) => {
                    let name = self.names.get(id.0).cloned().unwrap_or_default();
                    return Err(PipelineError::Source { name, source });
                }
            }
        }
        Ok(())
    }

    /// Tells the sources to end, and waits until all that waits is taken and committed. Says what was counted.
    ///
    /// # Errors
    /// What the intake says.
    pub async fn stop(mut self) -> Result<Figures, PipelineError> {
        // Nobody listens where all sources have ended.
        let _ = self.stop.send(true);
        let ended = self.sources_ended().await;
        drop(self.sources);
        self.ended.await.map_err(|_| PipelineError::Lost)??;
        // It has sent its last word.
        let _ = self.intake.join();
        ended.map(|()| self.figures)
    }
}

/// Where a source hears of what is durable.
struct Settle {
    sender: mpsc::Sender<Settlement>,
    /// Whether it sends receipts.
    receipts: bool,
}

/// Starts a source; says where it hears of what is durable, if it does.
fn start_source(
    sources: &mut JoinSet<(SourceId, Result<(), SourceError>)>,
    intake: &mut Intake,
    id: SourceId,
    reads: Reads,
    queue: &Queue,
    stopping: &watch::Receiver<bool>,
) -> Result<Option<Settle>, PipelineError> {
    let (queue, stopping) = (queue.clone(), stopping.clone());
    let (sender, settled) = mpsc::channel(SETTLED_MAX);
    match reads {
        Reads::Source(SourceConfig::Mqtt(config)) => {
            let obsolete = intake.subscribe(id, &config.topics)?;
            let receipts = config.receipts;
            sources.spawn(async move {
                let ended = mqtt::receive(id, *config, obsolete, queue, settled, stopping).await;
                (id, ended.map_err(SourceError::Stopped))
            });
            return Ok(Some(Settle { sender, receipts }));
        }
        Reads::Source(SourceConfig::Nats(config)) => {
            let filters: Vec<String> = config.filters.iter().map(|filter| filter.topics.clone()).collect();
            let obsolete = intake.subscribe(id, &filters)?;
            let receipts = config.receipts;
            sources.spawn(async move {
                let ended = nats::receive(id, *config, obsolete, queue, settled, stopping).await;
                (id, ended.map_err(SourceError::Stopped))
            });
            return Ok(Some(Settle { sender, receipts }));
        }
        Reads::Source(SourceConfig::Directory { path, follow }) => {
            let cursors = intake.cursors(id)?;
            sources.spawn(async move { (id, files::read_folder(id, path, follow, cursors, queue, stopping).await) });
        }
        Reads::Source(SourceConfig::Stdin) => {
            sources.spawn(async move { (id, files::read_file(id, "-".into(), queue, stopping).await) });
        }
        Reads::File(path) => {
            sources.spawn(async move { (id, files::read_file(id, path, queue, stopping).await) });
        }
    }
    Ok(None)
}

/// The intake's thread: takes what waits as one batch, until every source has ended.
async fn serve(
    mut intake: Intake,
    mut deliveries: mpsc::Receiver<Queued>,
    settle: &[Option<Settle>],
) -> Result<(), IntakeError> {
    let mut queued = Vec::with_capacity(DELIVERIES_MAX);
    loop {
        let due_in = intake.files_due_in();
        if due_in.is_some_and(|due_in| due_in.is_zero()) {
            intake.close_files()?;
            continue;
        }
        let next = deliveries.recv_many(&mut queued, DELIVERIES_MAX);
        // A thousand years are for ever.
        let due_in = due_in.unwrap_or(Duration::from_secs(1_000 * 365 * 86_400));
        match tokio::time::timeout(due_in, next).await {
            Ok(0) => break,
            Ok(_) => {}
            Err(_) => continue,
        }
        intake.take(queued.iter().map(|queued| &queued.delivery))?;
        for (place, settle) in settle.iter().enumerate() {
            let Some(Settle { sender, receipts }) = settle else { continue };
            let of_source = queued.iter().filter(|queued| queued.delivery.source == SourceId(place));
            let tokens: Vec<u64> = of_source.map(|queued| queued.delivery.token).collect();
            if !tokens.is_empty() {
                // A source that has ended acknowledges nothing more; its peer sends again.
                let receipts = if *receipts { intake.receipts(SourceId(place))? } else { Vec::new() };
                let _ = sender.send(Settlement { tokens, receipts }).await;
            }
        }
        queued.clear();
    }
    intake.close_files()
}
