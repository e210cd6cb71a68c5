//! Restores the engine from its last snapshot and the journal since.

use std::sync::Arc;

use rtlive_core::engine::{ClockView, Engine};
use rtlive_core::event::{ClockChange, Event};
use rtlive_core::plan::Plan;
use rtlive_core::record::Emitted;
use rtlive_core::time::Timestamp;

use crate::message::Snapshot;
use crate::stage::{Kept, Stage};
use crate::store::{Keeper, Recovered, Store, StoreError};

/// The stage as it was at the last commit, under the plan that is configured now, and what its drivers had kept.
///
/// The engine is deterministic: the events of the journal, under the plan that they were taken under, lead to the very state at the
/// last commit, and emit what they emitted then. The store takes that back: what is in no frame yet is a stream's tail again. A plan
/// that was changed meanwhile is a reload now.
///
/// `clock` is asked how the clock stands, once it is known how it stood at the last commit; what it says is the first event, at the
/// instant that comes with it.
///
/// # Errors
/// What no other disk would help.
pub fn restore(
    store: &mut Keeper,
    recovered: Recovered,
    plan: &Arc<Plan>,
    clock: impl FnOnce(&ClockView) -> (Timestamp, Option<ClockChange>),
) -> Result<(Stage, Kept), StoreError> {
    let Recovered { snapshot, commits, kept, last_commit_at } = recovered;
    let engine = match snapshot.map(|snapshot| replay(snapshot, commits)) {
        Some(Some((engine, emitted))) => {
            store.resume(engine.series().to_vec(), emitted)?;
            engine
        }
        Some(None) => {
            store.set_replay_aside()?;
            Engine::new(plan.clone())
        }
        None => Engine::new(plan.clone()),
    };
    let changed = **engine.plan() != **plan;
    let (now, change) = clock(&engine.clock());
    let mut stage = Stage::new(engine, kept.clone(), last_commit_at);
    // Under the plan that what waits for the clock was taken under.
    if let Some(change) = change {
        stage.change_clock(now, change);
    }
    if changed {
        stage.reload(now, plan.clone(), false);
    }
    Ok((stage, kept))
}

/// Brings a store's tails back, for an engine that goes on beside it.
///
/// # Errors
/// What SQLite said.
pub fn resume(store: &mut Store, recovered: Recovered) -> Result<(), StoreError> {
    match recovered.snapshot.map(|snapshot| replay(snapshot, recovered.commits)) {
        Some(Some((engine, emitted))) => store.resume(engine.series().to_vec(), emitted),
        Some(None) => store.set_replay_aside(),
        None => Ok(()),
    }
}

/// The engine that the events lead to, and what they emit, commit by commit; `None` where the snapshot cannot be read.
fn replay(snapshot: Snapshot, commits: Vec<Vec<(Timestamp, Event)>>) -> Option<(Engine, Vec<Vec<Emitted>>)> {
    let restored = Engine::restore(snapshot.plan, &snapshot.engine).inspect_err(|error| {
        tracing::error!(%error, "the engine's snapshot cannot be read: open windows are lost, stored frames are not");
    });
    let mut engine = restored.ok()?;
    let emitted = commits.into_iter().map(|events| {
        let mut emitted = Vec::new();
        for (at, event) in &events {
            engine.handle(*at, event, &mut emitted);
        }
        emitted
    });
    let emitted = emitted.collect();
    Some((engine, emitted))
}
