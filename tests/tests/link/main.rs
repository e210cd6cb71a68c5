//! The real agent and a real mosquitto over a link that is slow, far away and unreliable, in network namespaces of the tests' own:
//!
//! ```text
//! agent ─ near ══ veth, tbf at both ends ══ far ─ out ══ TUN, the relay, TUN ══ in ─ mosquitto, a subscriber
//!     gateway                                  field                                  centre
//! ```
//!
//! What each test of `tests/link/run` measures is in docs/link.md. Without `RTLIVE_SECONDS`, which that sets, one short case of each is made.

mod accounts;
mod backlog;
mod centre;
mod faults;
mod links;
mod namespace;
mod relay;
mod segment;
mod site;
mod upkeep;
mod way;

use std::time::Duration;

use rtlive_tests::program::Agent;
use serde_json::Value;

/// How long a measurement is to last, where a long one is asked for.
fn long() -> Option<Duration> {
    let seconds = std::env::var("RTLIVE_SECONDS").ok()?;
    Some(Duration::from_secs(seconds.parse().expect("RTLIVE_SECONDS: expected a number of seconds")))
}

/// What an agent's status says of the link.
fn link(agent: &Agent) -> Value {
    agent.status().unwrap_or_default()["uplink"].take()
}

/// What it says of a stream.
fn stream(agent: &Agent, name: &str) -> Value {
    let mut status = agent.status().unwrap_or_default();
    let streams = status["streams"].as_array_mut();
    streams.into_iter().flatten().find(|stream| stream["name"] == name).map(Value::take).unwrap_or_default()
}
