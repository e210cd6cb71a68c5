//! `rtlive-receiver run` and `read`.

use std::path::PathBuf;
use std::sync::Arc;

use tokio::signal::unix::{Signal, SignalKind, signal};

use super::{Failure, start_log};
use crate::config::{self, Config};
use crate::metrics;
use crate::pipeline::{Pipeline, Reads};

/// Receives from the configured sources until they end, or a signal comes.
///
/// # Errors
/// [`Failure::Mistakes`] of the configuration, or what cannot go on.
pub fn run(paths: &[PathBuf]) -> Result<(), Failure> {
    let mut config = load(paths)?;
    let sources = std::mem::take(&mut config.sources);
    if sources.is_empty() {
        return Err(Failure::Usage("expected at least one [sources.NAME] in the configuration".into()));
    }
    let reads = sources.into_iter().map(|(name, source)| (name, Reads::Source(source))).collect();
    receive(&config, reads)
}

/// Receives files of messages in a row to their ends; the configured sources are left alone.
///
/// # Errors
/// [`Failure::Mistakes`] of the configuration, or what cannot go on.
pub fn read(paths: &[PathBuf], files: Vec<PathBuf>) -> Result<(), Failure> {
    let config = load(paths)?;
    let files = if files.is_empty() { vec!["-".into()] } else { files };
    let named = |path: PathBuf| (Arc::from(path.to_string_lossy()), Reads::File(path));
    receive(&config, files.into_iter().map(named).collect())
}

fn load(paths: &[PathBuf]) -> Result<Config, Failure> {
    let config = config::load(paths).map_err(Failure::Mistakes)?;
    start_log();
    for warning in &config.warnings {
        tracing::warn!("{warning}");
    }
    Ok(config)
}

fn receive(config: &Config, reads: Vec<(Arc<str>, Reads)>) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.map_err(Failure::at("start the runtime"))?.block_on(async {
        let mut signals = Signals::listen().map_err(Failure::at("listen to signals"))?;
        let mut pipeline = Pipeline::start(config, reads).map_err(Failure::at("start"))?;
        let ended = tokio::select! {
            ended = pipeline.sources_ended() => ended,
            () = signals.stop() => Ok(()),
        };
        let stopped = tokio::select! {
            stopped = pipeline.stop() => stopped,
            () = signals.stop() => {
                let cause = "a second signal";
                return Err(Failure::at("stopped at once")(cause));
            }
        };
        let figures = stopped.map_err(Failure::at("receive"))?;
        ended.map_err(Failure::at("receive"))?;
        tracing::info!("{}", figures.summary(metrics::now()));
        Ok(())
    })
}

/// The signals that mean a stop.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn listen() -> std::io::Result<Self> {
        Ok(Self { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    async fn stop(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}
