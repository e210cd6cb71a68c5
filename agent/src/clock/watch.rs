//! Watches the machine's clock: each second, and at once when somebody sets it.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use rtlive_core::engine::ClockView;
use rtlive_core::event::ClockChange;
use rtlive_core::time::Timestamp;
use rtlive_drivers::outlet::Clock as _;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::sync::watch;
use tokio::time::Instant;

use super::{AgentClock, Judge, Verdict, built_at, kernel};

/// How often the clocks are looked at: as often as the program turns anyway. A step is told at once by the kernel.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// How often the log says that the clock is not trusted, while it is not.
const TELL_EVERY: Duration = Duration::from_secs(3600);

/// A first look at the clocks, for what needs a time before the store was read.
pub fn first_look(is_configured: bool) -> AgentClock {
    AgentClock::new(is_configured, &Judge::new(built_at(), None).first(kernel::look(is_configured)))
}

/// Judges anew, now that it is known what an earlier process knew of the clock, and goes by that.
pub fn begin(clock: &AgentClock, boot: &str, known: &ClockView) -> (Judge, Verdict) {
    let mut judge = Judge::of(known, boot);
    let verdict = judge.first(kernel::look(clock.is_configured()));
    tell(&verdict);
    clock.follow(&verdict);
    (judge, verdict)
}

/// A verdict as the engine takes it.
pub fn change(boot: &Arc<str>, verdict: &Verdict) -> ClockChange {
    ClockChange { boot: Arc::clone(boot), ahead: verdict.ahead, is_trusted: verdict.is_trusted }
}

/// Watches until nobody listens.
pub async fn watch(mut judge: Judge, clock: Arc<AgentClock>, verdicts: watch::Sender<Option<Verdict>>) {
    let alarm = kernel::set_alarm().map_err(std::io::Error::from).and_then(watched);
    let told = |error: &std::io::Error| tracing::warn!("steps of the clock are seen only each second: {error}");
    let mut alarm = alarm.inspect_err(told).ok();
    let mut tell_again = Instant::now() + TELL_EVERY;
    let mut is_trusted = clock.at_least().is_none();
    loop {
        tokio::select! {
            () = verdicts.closed() => return,
            () = tokio::time::sleep(LOOK_EVERY) => {}
            () = was_set(&mut alarm) => {}
        }
        if let Some(verdict) = judge.look(kernel::look(clock.is_configured()), &clock.take_told()) {
            if verdict.is_trusted != is_trusted {
                tell(&verdict);
                tell_again = Instant::now() + TELL_EVERY;
                is_trusted = verdict.is_trusted;
            }
            verdicts.send_replace(Some(verdict));
        }
        if !is_trusted && Instant::now() >= tell_again {
            tell_again = Instant::now() + TELL_EVERY;
            tracing::warn!("{WAITING}: {}; {REMEDY}", clock.source());
        }
    }
}

const WAITING: &str = "the clock is not trusted, and readings without a time of their own wait for it";
const REMEDY: &str = "see that its NTP client gets answers, or say agent.clock = \"trusted\" where the clock is right without one; `rtlive status` tells how many wait";

fn tell(verdict: &Verdict) {
    let Verdict { is_trusted, source, .. } = *verdict;
    let time = Timestamp::from_nanos(kernel::uptime().saturating_add(verdict.ahead));
    match is_trusted {
        true => tracing::info!(%time, "the clock is trusted: {source}"),
        false => tracing::warn!("{WAITING}: {source}; {REMEDY}"),
    }
}

/// Makes the runtime wake us when the alarm has something to say.
#[expect(
    deprecated,
    reason = "its successor is unsafe code; the file is ours alone and never replaced, as that asks for"
)]
fn watched(alarm: OwnedFd) -> std::io::Result<AsyncFd<OwnedFd>> {
    AsyncFd::with_interest(alarm, Interest::READABLE)
}

/// Resolves when the clock was set; never without an alarm.
async fn was_set(alarm: &mut Option<AsyncFd<OwnedFd>>) {
    let Some(alarm) = alarm else { return std::future::pending().await };
    loop {
        match alarm.readable().await {
            Ok(mut ready) => {
                let was_set = kernel::was_set(alarm.get_ref());
                ready.clear_ready();
                if was_set {
                    return;
                }
            }
            // The runtime ends.
            Err(_) => return std::future::pending().await,
        }
    }
}
