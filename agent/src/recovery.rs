//! Restores the engine from its last snapshot and the journal since.

use std::sync::Arc;

use rtlive_core::engine::Engine;
use rtlive_core::plan::Plan;
use rtlive_core::time::Timestamp;

use crate::stage::{Kept, Stage};
use crate::store::{Recovered, Store};

/// The stage as it was at the last commit, under the plan that is configured now, and what its drivers had kept.
///
/// The engine is deterministic: the events of the journal, under the plan that they were taken under, lead to the very state at the
/// last commit, and emit what they emitted then. The store takes that back: what is in no frame yet is a stream's tail again. A plan
/// that was changed meanwhile is a reload now.
pub fn restore(store: &mut Store, recovered: Recovered, plan: &Arc<Plan>, now: Timestamp) -> (Stage, Kept) {
    let Recovered { snapshot, commits, kept, last_commit_at } = recovered;
    let (mut engine, is_whole) = match snapshot {
        None => (Engine::new(plan.clone()), true),
        Some(snapshot) => match Engine::restore(snapshot.plan.clone(), &snapshot.engine) {
            Ok(engine) => (engine, true),
            Err(error) => {
                tracing::error!(%error, "the engine's snapshot cannot be read: open windows are lost, stored records are not");
                (Engine::new(snapshot.plan), false)
            }
        },
    };
    let mut emitted = Vec::new();
    for events in commits.iter().filter(|_| is_whole) {
        let mut records = Vec::new();
        for (at, event) in events {
            engine.handle(*at, event, &mut records);
        }
        emitted.push(records);
    }
    store.resume(engine.series().to_vec(), emitted);
    let changed = **engine.plan() != **plan;
    let mut stage = Stage::new(engine, kept.clone(), last_commit_at);
    if changed {
        stage.reload(now, plan.clone(), false);
    }
    (stage, kept)
}
