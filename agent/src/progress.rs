//! Progress of the stages, for the watchdog of systemd.
//!
//! systemd restarts the service when it hears nothing for `WatchdogSec`. It hears something only while the engine task turns and
//! the store thread answers; a process that is merely alive is not enough.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::Instant;

use crate::message::StoreHandle;

/// The heartbeat of a stage.
#[derive(Clone, Debug)]
pub struct Beat {
    start: Instant,
    last_ms: Arc<AtomicU64>,
}

impl Default for Beat {
    fn default() -> Self {
        Self { start: Instant::now(), last_ms: Arc::default() }
    }
}

impl Beat {
    /// The stage turned.
    pub fn now(&self) {
        let elapsed = u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.last_ms.store(elapsed, Ordering::Relaxed);
    }

    /// How long ago it last turned.
    pub fn age(&self) -> Duration {
        self.start.elapsed().saturating_sub(Duration::from_millis(self.last_ms.load(Ordering::Relaxed)))
    }
}

/// Tells systemd that the service makes progress, as long as it does. Never returns; without a watchdog it does nothing.
pub async fn feed_watchdog(engine: Beat, store: StoreHandle) {
    let Some(limit) = sd_notify::watchdog_enabled() else { return std::future::pending().await };
    // An answer that comes late, but in time, is then told in time too: half the limit after the one before it, which is what
    // sd_watchdog_enabled(3) recommends.
    let answer_within = limit / 4;
    let mut interval = tokio::time::interval(answer_within);
    loop {
        interval.tick().await;
        let engine_turns = engine.age() < limit / 2;
        let store_answers = matches!(tokio::time::timeout(answer_within, store.status()).await, Ok(Ok(_)));
        if engine_turns && store_answers {
            notify(&[sd_notify::NotifyState::Watchdog]);
        } else {
            tracing::error!(engine_turns, store_answers, "no progress; the watchdog is not fed");
        }
    }
}

/// Tells systemd something; without systemd nothing happens.
pub fn notify(state: &[sd_notify::NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(state) {
        tracing::debug!(%error, "systemd was not told");
    }
}
