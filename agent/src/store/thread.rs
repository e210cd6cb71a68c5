//! The store's thread: serves requests one by one, because SQLite blocks.

use std::io;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use rtlive_drivers::input::told;
use rtlive_drivers::outlet::Clock;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;

use super::{Keeper, Look};
use crate::message::{Offer, STORE_REQUESTS_MAX, StoreError, StoreHandle, StoreRequest, StoredFrame, Wanted};

/// How often the thread looks for what waits for a commit that does not come.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// How often free pages are given back, at most, while nothing else is asked: two and a half MiB a second, in a tenth of it.
const VACUUM_EVERY: Duration = Duration::from_millis(200);

/// Moves the store to a thread of its own. The thread ends with [`StoreRequest::Stop`], or when every handle is gone, or after an error that
/// no other disk would help, which it answers to whoever asked.
///
/// # Errors
/// The system has no room for a thread.
pub fn spawn(store: Keeper, clock: Arc<dyn Clock>) -> io::Result<(StoreHandle, JoinHandle<()>)> {
    let (sender, requests) = mpsc::channel(STORE_REQUESTS_MAX);
    let (changed, frames) = watch::channel(0);
    let (hold, held) = watch::channel(store.is_in_memory());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build()?;
    let thread = thread::Builder::new().name("store".into()).spawn(move || {
        if let Err(error) = runtime.block_on(serve(store, requests, &changed, &hold, &*clock)) {
            tracing::error!("the store stops: {}", told(&error));
        }
    })?;
    Ok((StoreHandle { requests: sender, frames, held }, thread))
}

async fn serve(
    mut store: Keeper,
    mut requests: mpsc::Receiver<StoreRequest>,
    changed: &watch::Sender<u64>,
    hold: &watch::Sender<bool>,
    clock: &dyn Clock,
) -> Result<(), StoreError> {
    let mut vacuum_at = Instant::now() + VACUUM_EVERY;
    // A new store can write nothing before its first commit. The uplink has one at a time.
    let mut keeps = Vec::new();
    let mut promised: Option<Promised> = None;
    loop {
        if requests.is_empty() && Instant::now() >= vacuum_at {
            store.vacuum()?;
            tell_held(&store, hold);
            vacuum_at = Instant::now() + VACUUM_EVERY;
        }
        let Ok(request) = tokio::time::timeout(LOOK_EVERY, requests.recv()).await else {
            flush(&mut store, changed, clock)?;
            tell_held(&store, hold);
            continue;
        };
        match request {
            None => return store.close(),
            Some(StoreRequest::Commit(commit, reply)) => {
                let result = store.commit(*commit);
                // Before the engine tells the drivers.
                tell_held(&store, hold);
                let failed = result.as_ref().err().map(|error| StoreError::Failed(error.to_string()));
                // Before the engine hears of it, so that an alert is sent while drivers are told.
                let kept = if failed.is_none() { keep_promise(&mut store, &mut promised) } else { Ok(()) };
                if failed.is_none() {
                    changed.send_modify(|count| *count += 1);
                }
                // Whoever asked may have given up.
                let _ = reply.send(result);
                failed.map_or(kept, Err)?;
            }
            Some(StoreRequest::Take(wanted, reply)) => {
                let look = store.look_for(&wanted)?;
                let is_unfinished = matches!(look, Look::Unfinished);
                let offer = if let Look::Frame(frame) = look {
                    promised = None;
                    Offer::Frame(frame)
                } else {
                    let (keep, later) = oneshot::channel();
                    promised = Some((wanted, keep));
                    Offer::Later(later)
                };
                let _ = reply.send(offer);
                if is_unfinished {
                    // Whoever looks for frames asks again, behind the requests that wait.
                    changed.send_modify(|count| *count += 1);
                }
            }
            Some(StoreRequest::Return(ids)) => {
                store.give_back(&ids);
                changed.send_modify(|count| *count += 1);
            }
            Some(StoreRequest::Acknowledge(ids)) => store.acknowledge(&ids),
            Some(StoreRequest::Requeue) => {
                store.requeue();
                changed.send_modify(|count| *count += 1);
            }
            Some(StoreRequest::Hint(hint)) => store.hint(hint),
            Some(StoreRequest::Bound(bounds)) => store.bound(bounds)?,
            Some(StoreRequest::Keep(change, reply)) => keeps.push((change, reply)),
            Some(StoreRequest::Kept(reply)) => {
                let _ = reply.send(store.kept().clone());
            }
            Some(StoreRequest::Status(reply)) => {
                let _ = reply.send(store.status()?);
            }
            Some(StoreRequest::Stop(reply)) => {
                if store.has_acknowledged() {
                    store.flush(clock.now())?;
                }
                let closed = store.close();
                let _ = reply.send(());
                return closed;
            }
        }
        if store.has_plan() {
            for (change, reply) in keeps.drain(..) {
                store.keep(change, clock.now())?;
                let _ = reply.send(());
            }
        }
        flush(&mut store, changed, clock)?;
        tell_held(&store, hold);
    }
}

/// The frames that were asked for when there was none, and where the first of them goes.
type Promised = (Wanted, oneshot::Sender<StoredFrame>);

fn keep_promise(store: &mut Keeper, promised: &mut Option<Promised>) -> Result<(), StoreError> {
    let Some((wanted, later)) = promised.take_if(|(_, later)| !later.is_closed()) else { return Ok(()) };
    match store.look_for(&wanted)? {
        Look::Frame(frame) => {
            // Whoever asked may have turned away meanwhile.
            if let Err(frame) = later.send(frame) {
                store.give_back(&[frame.id]);
            }
        }
        Look::Nothing | Look::Unfinished => *promised = Some((wanted, later)),
    }
    Ok(())
}

fn tell_held(store: &Keeper, hold: &watch::Sender<bool>) {
    hold.send_if_modified(|held| std::mem::replace(held, store.is_in_memory()) != store.is_in_memory());
}

fn flush(store: &mut Keeper, changed: &watch::Sender<u64>, clock: &dyn Clock) -> Result<(), StoreError> {
    let now = clock.now();
    if store.wants_flush(now) {
        store.flush(now)?;
        changed.send_modify(|count| *count += 1);
    }
    Ok(())
}
