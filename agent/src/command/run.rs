//! `rtlive run`: the agent in the foreground.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use rtlive_core::time::Timestamp;
use sd_notify::NotifyState;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;

use super::{Config, Failure, load_to_run};
use crate::pipeline::Pipeline;
use crate::progress::{self, notify};
use crate::socket::{self, SocketRequest, Verdict};

/// How many requests of the local socket may wait.
const SOCKET_REQUESTS_MAX: usize = 4;

/// Runs until SIGTERM or SIGINT; then drains and stops, exit 0. A second signal stops at once, exit 1: what was committed is safe.
///
/// # Errors
/// [`Failure::Mistakes`] of the configuration; [`Failure::Failed`] when a stage fails, which systemd answers with a restart.
pub fn run(paths: &[PathBuf]) -> Result<ExitCode, Failure> {
    let config = load_to_run(paths)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(Failure::at("start the runtime"))?;
    runtime.block_on(agent(paths, config))
}

async fn agent(paths: &[PathBuf], config: Config) -> Result<ExitCode, Failure> {
    let mut signals = Signals::listen().map_err(Failure::at("listen for signals"))?;
    let state_dir = config.agent.state_dir.clone();
    let mut pipeline = Pipeline::start(config).map_err(Failure::at("start"))?;
    let since = pipeline.now();

    let path = socket::path(&state_dir);
    let (to_agent, mut from_socket) = mpsc::channel(SOCKET_REQUESTS_MAX);
    match socket::listen(&path) {
        Ok(listener) => drop(tokio::spawn(socket::serve(listener, to_agent, pipeline.tail.clone()))),
        // As in a folder that cannot be written: no reason to read nothing.
        Err(error) => {
            tracing::error!(%error, "listen on {}; status, tail and reload do not reach this agent", path.display())
        }
    }
    tokio::spawn(progress::feed_watchdog(pipeline.beat.clone(), pipeline.store.clone()));
    tracing::info!(version = env!("CARGO_PKG_VERSION"), socket = %path.display(), "ready");
    notify(&[NotifyState::Ready]);

    let failure = loop {
        tokio::select! {
            biased;
            signal = signals.next() => match signal {
                Received::Stop => break None,
                Received::Reload => {
                    let verdict = reload(paths, &state_dir, &mut pipeline).await;
                    tracing::info!(taken = verdict.taken, "reload: {}", verdict.text);
                }
            },
            failure = pipeline.failed() => break Some(failure),
            Some(request) = from_socket.recv() => answer(request, paths, &state_dir, &mut pipeline, since).await,
        }
    };
    tracing::info!("stops: what was read is committed, and sent within a bound");
    notify(&[NotifyState::Stopping]);
    let stopped = tokio::select! {
        stopped = pipeline.stop() => stopped,
        () = signals.stop() => {
            tracing::warn!("stopped at once by a second signal");
            return Ok(ExitCode::FAILURE);
        }
    };
    // A socket that leads nowhere would only confuse; that it cannot be removed hurts nobody.
    let _ = std::fs::remove_file(&path);
    match failure {
        Some(failure) => Err(Failure::at("run")(failure)),
        None => stopped.map(|()| ExitCode::SUCCESS).map_err(Failure::at("stop")),
    }
}

async fn answer(
    request: SocketRequest,
    paths: &[PathBuf],
    state_dir: &Path,
    pipeline: &mut Pipeline,
    since: Timestamp,
) {
    // Whoever asked may have gone meanwhile.
    match request {
        SocketRequest::Status(reply) => {
            if let Ok(status) = pipeline.status(since).await
                && let Ok(line) = serde_json::to_string(&status)
            {
                let _ = reply.send(line);
            }
        }
        SocketRequest::Reload(reply) => {
            let _ = reply.send(reload(paths, state_dir, pipeline).await);
        }
    }
}

/// Reads the configuration again. With mistakes the agent goes on as it is.
async fn reload(paths: &[PathBuf], state_dir: &Path, pipeline: &mut Pipeline) -> Verdict {
    let config = match load_to_run(paths) {
        Ok(config) => config,
        Err(failure) => return Verdict { taken: false, text: failure.to_string() },
    };
    if config.agent.state_dir != state_dir {
        let text = format!("agent.state_dir: expected {}, which changes only with a restart", state_dir.display());
        return Verdict { taken: false, text };
    }
    match pipeline.reload(config).await {
        Ok(what) => Verdict { taken: true, text: what },
        Err(error) => Verdict { taken: false, text: format!("{error}") },
    }
}

/// The signals that mean something.
pub(super) struct Signals {
    terminate: Signal,
    interrupt: Signal,
    reload: Signal,
}

impl Signals {
    pub(super) fn listen() -> std::io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            reload: signal(SignalKind::hangup())?,
        })
    }

    async fn next(&mut self) -> Received {
        tokio::select! {
            _ = self.terminate.recv() => Received::Stop,
            _ = self.interrupt.recv() => Received::Stop,
            _ = self.reload.recv() => Received::Reload,
        }
    }

    /// Resolves at a signal to stop; others are passed over, because the program stops already.
    pub(super) async fn stop(&mut self) {
        while self.next().await != Received::Stop {}
    }
}

/// What a signal asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Received {
    Stop,
    Reload,
}
