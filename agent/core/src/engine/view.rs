//! What a status shows of the engine.

use std::sync::Arc;

use serde::Serialize;

use super::{Engine, rule};
use crate::sorted;
use crate::time::Timestamp;

/// What a status shows of an input's time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct InputTime {
    /// The input's name.
    pub input: Arc<str>,
    /// When readings of it last arrived.
    pub heard: Option<Timestamp>,
    /// The newest event time.
    pub newest: Option<Timestamp>,
    /// The least watermark of its sources; `None` while one of them has none.
    pub watermark: Option<Timestamp>,
}

/// An alert that is raised now.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct RaisedAlert {
    /// The rule's name.
    pub rule: Arc<str>,
    /// The series that made the instance; empty for a rule without instances.
    pub instance: Arc<str>,
}

impl Engine {
    /// Where the inputs are in time, in the order of the plan.
    pub fn input_times(&self) -> Vec<InputTime> {
        let times = self.plan.inputs.iter().zip(&self.inputs).map(|(plan, input)| {
            let sources = || input.sources.iter().filter_map(|&source| self.sources.get(source as usize));
            let watermark = sources().map(|source| source.watermark).min();
            InputTime {
                input: Arc::clone(&plan.name),
                heard: input.heard,
                newest: sources().filter_map(|source| source.newest).max(),
                watermark: watermark.filter(|&watermark| watermark > Timestamp::MIN),
            }
        });
        times.collect()
    }

    /// The alerts that are raised now, by rule.
    pub fn alerts_raised(&self) -> Vec<RaisedAlert> {
        let mut raised: Vec<_> = self.rules.raised().collect();
        sorted::by_key(&mut raised, |instance| instance.rule);
        let alert = |instance: &rule::Instance| {
            let rule = self.plan.rules.get(usize::from(instance.rule))?;
            Some(RaisedAlert { rule: Arc::clone(&rule.name), instance: Arc::clone(&instance.name) })
        };
        raised.into_iter().filter_map(alert).collect()
    }
}
