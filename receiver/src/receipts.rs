//! Receipts to agents: what of the frames that came is durable here.

use std::collections::BTreeMap;
use std::sync::Arc;

use rtlive_core::frame::Origin;
use rtlive_core::uplink::receipt::{LaneReceipt, Receipt};

use crate::delivery::SourceId;
use crate::state::{State, StateError};

/// The frames of a batch, new ones and those that came again: whoever sends a frame again has no receipt for it.
#[derive(Debug, Default)]
pub struct Receipts(Vec<(SourceId, Origin, u64)>);

impl Receipts {
    /// A batch begins.
    pub fn clear(&mut self) {
        self.0.clear();
    }

    /// A frame came, with this first number.
    pub fn note(&mut self, source: SourceId, origin: &Origin, first: u64) {
        self.0.push((source, origin.clone(), first));
    }

    /// The receipts for agents whose frames came from a source, once the batch is committed. They name the whole intervals in which the frames lie.
    ///
    /// # Errors
    /// What the state says.
    pub fn of(&self, source: SourceId, state: &mut State) -> Result<Vec<(Arc<str>, Receipt)>, StateError> {
        let mut receipts: BTreeMap<Arc<str>, Receipt> = BTreeMap::new();
        for (_, origin, first) in self.0.iter().filter(|(of, ..)| *of == source) {
            let Some(durable) = state.interval(origin, *first)? else { continue };
            let lanes = &mut receipts.entry(Arc::clone(&origin.agent)).or_default().lanes;
            let Origin { epoch, stream, class, .. } = origin;
            match lanes.iter_mut().find(|lane| (lane.epoch, &lane.stream, &lane.class) == (*epoch, stream, class)) {
                Some(lane) if lane.durable.contains(&durable) => {}
                Some(lane) => lane.durable.push(durable),
                None => {
                    let (stream, class) = (Arc::clone(stream), Arc::clone(class));
                    lanes.push(LaneReceipt { epoch: *epoch, stream, class, durable: vec![durable] });
                }
            }
        }
        Ok(receipts.into_iter().collect())
    }
}
