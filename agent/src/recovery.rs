//! Restores the engine from its last snapshot and the journal since.

use std::sync::Arc;

use rtlive_core::engine::Engine;
use rtlive_core::plan::Plan;
use rtlive_core::time::Timestamp;

use crate::stage::{Kept, Stage};
use crate::store::Recovered;

/// The stage as it was at the last commit, under the plan that is configured now, and what its drivers had kept.
///
/// The engine is deterministic: the events of the journal, taken under the plan that they were taken under, lead to the very state at
/// the last commit. What they emit was committed then, and is discarded here. A plan that was changed meanwhile is a reload now.
pub fn restore(recovered: Recovered, plan: &Arc<Plan>, now: Timestamp) -> (Stage, Kept) {
    let Recovered { snapshot, events, state, last_commit_at, .. } = recovered;
    let engine = match snapshot {
        None => Engine::new(plan.clone()),
        Some(snapshot) => match Engine::restore(snapshot.plan.clone(), &snapshot.engine) {
            Ok(mut engine) => {
                let mut emitted = Vec::new();
                for (at, event) in &events {
                    engine.handle(*at, event, &mut emitted);
                    emitted.clear();
                }
                engine
            }
            Err(error) => {
                tracing::error!(%error, "the engine's snapshot cannot be read; windows begin anew, stored records are not touched");
                Engine::new(snapshot.plan)
            }
        },
    };
    let changed = **engine.plan() != **plan;
    let mut stage = Stage::new(engine, state.clone(), last_commit_at);
    if changed {
        stage.reload(now, plan.clone(), false);
    }
    (stage, state)
}
