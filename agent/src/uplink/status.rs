//! The retained status of the agent at the broker (contract: `rtlive/{agent}/status`).

use std::collections::BTreeMap;

use rtlive_core::plan::Plan;
use rtlive_core::time::Timestamp;
use rtlive_core::uplink::receipt::TOPICS;
use serde::Serialize;

/// What the status says of the agent.
#[derive(Clone, Copy)]
pub(super) enum Presence {
    Online,
    Offline,
    /// It connects next at this time.
    Sleeping {
        until: Timestamp,
    },
}

#[derive(Serialize)]
struct Status<'a> {
    agent: &'a str,
    state: &'a str,
    since: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    until: Option<String>,
    version: &'a str,
    labels: &'a BTreeMap<String, String>,
}

/// Where it is published.
pub(super) fn topic(plan: &Plan) -> String {
    format!("rtlive/{}/status", plan.agent)
}

/// Where receipts for this agent come from; not below the topics of frames, so that whoever reads those gets no receipts.
pub(super) fn receipt_topic(plan: &Plan) -> String {
    format!("{TOPICS}/{}", plan.agent)
}

/// What is published. The last will is written when the connection is made, so that its `since` is that time: the agent cannot know
/// when it will be lost.
pub(super) fn payload(plan: &Plan, presence: Presence, since: Timestamp) -> Vec<u8> {
    let (state, until) = match presence {
        Presence::Online => ("online", None),
        Presence::Offline => ("offline", None),
        Presence::Sleeping { until } => ("sleeping", Some(until.to_string())),
    };
    let version = env!("CARGO_PKG_VERSION");
    let status = Status { agent: &plan.agent, state, since: since.to_string(), until, version, labels: &plan.labels };
    // Texts and a map with text keys always make JSON.
    serde_json::to_vec(&status).unwrap_or_default()
}
