//! The supervisor: runs inputs, each as a task of its own, and starts them again when they fail.
//!
//! Invariants: a failing input never stops another, neither by an error nor by a panic; the pause before a restart grows with
//! jitter ([`Backoff`]) up to [`PAUSE_MAX`], and only a run of at least [`STEADY_AFTER`] makes it short again, so that a source which accepts and then drops a connection is not hammered;
//! a stop ends an input within [`STOP_GRACE`] even if its driver does not listen.

use std::any::Any;
use std::future::poll_fn;
use std::hash::{BuildHasher, RandomState};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use rtlive_core::backoff::Backoff;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};
use tracing::{debug, error, warn};

use crate::input::{Input, InputError, Running};
use crate::outlet::Session;

/// The pause after the first failure: short, because most first failures are a device that was just unplugged or rebooted.
pub const PAUSE_MIN: Duration = Duration::from_millis(500);
/// The longest pause: a source that comes back is heard within half a minute, and one that is gone for ever costs two tries a minute.
pub const PAUSE_MAX: Duration = Duration::from_secs(30);
/// A run that lasted this long was steady; the failure after it counts as the first.
pub const STEADY_AFTER: Duration = Duration::from_secs(60);
/// How long a driver may take to end after a stop (wait for its last commit, acknowledge, disconnect) before its task is dropped.
/// Below the time that systemd waits before it kills.
pub const STOP_GRACE: Duration = Duration::from_secs(10);

/// Starts an input. The task ends when the source is at its end, or after the stop that [`Session::stopping`] speaks of.
///
/// Must be called within a tokio runtime. `name` is the input's name in the configuration, for the log.
pub fn spawn(name: Arc<str>, input: Box<dyn Input>, session: Session) -> JoinHandle<()> {
    tokio::spawn(supervise(name, input, session))
}

/// Runs an input until its source ends or the program stops; what [`spawn`] spawns.
pub async fn supervise(name: Arc<str>, input: Box<dyn Input>, mut session: Session) {
    let mut pauses = Backoff::new(PAUSE_MIN, PAUSE_MAX, RandomState::new().hash_one(&*name));
    let mut told = None;
    loop {
        session.health().state = "starting";
        let started = Instant::now();
        let end = run_once(input.as_ref(), &mut session).await;
        let failure = match end {
            End::Source | End::Stopped => {
                debug!(input = &*name, "ended");
                break;
            }
            End::Overdue => {
                warn!(input = &*name, "did not end within {} s of the stop", STOP_GRACE.as_secs());
                break;
            }
            End::Failed(error) => {
                // A port that is not there for a week is told once; status shows it all the while.
                let failure = error.to_string();
                if told.as_ref() != Some(&failure) || started.elapsed() >= STEADY_AFTER {
                    warn!(input = &*name, "{failure}; tried again until it works");
                    told = Some(failure.clone());
                }
                failure
            }
            End::Panicked(what) => {
                session.count("panics", 1);
                error!(input = &*name, "the driver panicked: {what}");
                format!("the driver panicked: {what}")
            }
        };
        if started.elapsed() >= STEADY_AFTER {
            pauses.reset();
        }
        let pause = pauses.next_wait(Duration::ZERO);
        {
            let mut health = session.health();
            health.state = "waiting";
            health.error = Some(failure);
            health.restarts += 1;
        }
        debug!(input = &*name, "starts again in {:.1} s", pause.as_secs_f64());
        tokio::select! {
            () = sleep(pause) => {}
            () = session.stopping() => break,
        }
    }
    session.health().state = "stopped";
}

/// How a run of a driver ended.
enum End {
    /// The source has no more.
    Source,
    /// The program stops.
    Stopped,
    /// The program stops, and the driver did not end in time.
    Overdue,
    /// The driver said why.
    Failed(InputError),
    /// The driver panicked, with this message.
    Panicked(String),
}

async fn run_once(input: &dyn Input, session: &mut Session) -> End {
    let stop = session.stop_signal();
    let stopping = async {
        let mut stop = stop.clone();
        // An error means that the sender is gone, which is a stop as well.
        let _ = stop.wait_for(|stop| *stop).await;
    };
    let mut running = std::pin::pin!(contained(input, session));
    let ended = tokio::select! {
        ended = &mut running => ended,
        () = stopping => match timeout(STOP_GRACE, running).await {
            Ok(ended) => ended,
            Err(_) => return End::Overdue,
        },
    };
    match ended {
        Ok(Ok(())) if *stop.borrow() => End::Stopped,
        Ok(Ok(())) => End::Source,
        Ok(Err(error)) => End::Failed(error),
        Err(panic) => End::Panicked(message_of(panic.as_ref())),
    }
}

/// The driver's run, with a panic as a value. The session stays usable: what was added to it goes with the next delivery.
async fn contained(input: &dyn Input, session: &mut Session) -> Result<Result<(), InputError>, Box<dyn Any + Send>> {
    // The call itself is within the future too, so that a panic in it is caught.
    let mut running: Running<'_> = Box::pin(async move { input.run(session).await });
    poll_fn(|context| match catch_unwind(AssertUnwindSafe(|| running.as_mut().poll(context))) {
        Ok(Poll::Pending) => Poll::Pending,
        Ok(Poll::Ready(ended)) => Poll::Ready(Ok(ended)),
        Err(panic) => Poll::Ready(Err(panic)),
    })
    .await
}

fn message_of(panic: &(dyn Any + Send)) -> String {
    match (panic.downcast_ref::<&str>(), panic.downcast_ref::<String>()) {
        (Some(text), _) => (*text).to_owned(),
        (None, Some(text)) => text.clone(),
        (None, None) => "without a message".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::atomic::{AtomicU64, Ordering};

    use rtlive_core::reading::Value;

    use super::*;
    use crate::rig::session;

    /// What each run does, by its number; the last is repeated.
    struct Script {
        runs: Arc<AtomicU64>,
        steps: Vec<Step>,
    }

    #[derive(Clone, Copy)]
    enum Step {
        Fail,
        FailAfter(Duration),
        Panic,
        End,
        UntilStop,
        Deaf,
    }

    impl Input for Script {
        fn run<'a>(&'a self, session: &'a mut Session) -> Running<'a> {
            let run = usize::try_from(self.runs.fetch_add(1, Ordering::Relaxed)).unwrap();
            let step = self.steps[run.min(self.steps.len() - 1)];
            let failed = || InputError { doing: "read".into(), cause: "nothing".into(), hint: None };
            Box::pin(async move {
                let series = session.series("a", None, "");
                session.read(series, session.now(), Value::Int(1));
                match step {
                    Step::Fail => Err(failed()),
                    Step::FailAfter(span) => {
                        sleep(span).await;
                        Err(failed())
                    }
                    Step::Panic => panic!("a bug"),
                    Step::End => {
                        session.deliver(session.now(), false).await.unwrap();
                        Ok(())
                    }
                    Step::UntilStop => {
                        session.stopping().await;
                        Ok(())
                    }
                    Step::Deaf => std::future::pending().await,
                }
            })
        }
    }

    fn script(steps: &[Step]) -> (Box<Script>, Arc<AtomicU64>) {
        let runs = Arc::new(AtomicU64::new(0));
        (Box::new(Script { runs: Arc::clone(&runs), steps: steps.to_vec() }), runs)
    }

    #[tokio::test(start_paused = true)]
    async fn errors_and_panics_are_counted_and_lose_nothing() {
        let (input, runs) = script(&[Step::Fail, Step::Panic, Step::End]);
        let (session, mut deliveries, _committed, _stop, health) = session(BTreeMap::new());
        spawn("in".into(), input, session).await.unwrap();
        assert_eq!(runs.load(Ordering::Relaxed), 3);
        let health = health.lock().unwrap().clone();
        assert_eq!((health.state, health.restarts, health.counters.get("panics")), ("stopped", 2, Some(&1)));
        assert_eq!(health.error.as_deref(), Some("the driver panicked: a bug"));
        // What the failed runs had read goes with the delivery of the last.
        assert_eq!(deliveries.recv().await.unwrap().batch.readings.len(), 3);
    }

    #[tokio::test(start_paused = true)]
    async fn a_stop_ends_what_listens_what_waits_and_what_is_deaf() {
        for step in [Step::UntilStop, Step::Fail, Step::Deaf] {
            let (input, _) = script(&[step]);
            let (session, _deliveries, _committed, stop, health) = session(BTreeMap::new());
            let task = spawn("in".into(), input, session);
            sleep(PAUSE_MIN / 2).await;
            stop.send_replace(true);
            let stopped = Instant::now();
            task.await.unwrap();
            assert!(stopped.elapsed() <= STOP_GRACE + Duration::from_millis(1));
            assert_eq!(health.lock().unwrap().state, "stopped");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn only_a_steady_run_makes_the_pause_short_again() {
        let (input, runs) = script(&[Step::FailAfter(Duration::from_millis(1))]);
        let (session, _deliveries, _committed, _stop, _health) = session(BTreeMap::new());
        let task = spawn("in".into(), input, session);
        sleep(Duration::from_secs(3600)).await;
        task.abort();
        // Pauses below their bound of 30 s, but far above the shortest.
        let runs = runs.load(Ordering::Relaxed);
        assert!((120..720).contains(&runs), "{runs}");
    }
}
