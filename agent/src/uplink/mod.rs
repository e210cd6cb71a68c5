//! The uplink: carries sealed frames from the store to the broker.
//!
//! ```text
//! store thread ◀──take / acknowledge── uplink task ◀──answers── poller task ◀──▶ broker
//!                                       (Sender)     publish ──▶ (event loop)
//! ```
//!
//! What is decided is decided by [`rtlive_core::uplink::Sender`]; `task` carries it out, `mqtt` is the only file that knows the
//! MQTT client. The store is the only truth: the broker keeps no session for us, and whatever a lost connection leaves open is
//! sent again.

mod carrier;
mod health;
mod mqtt;
mod schemas;
mod status;
mod task;
mod throughput;
mod topic;

pub use health::{BrokerLine, BudgetLine, LadderLine, LinkLine, SharedHealth, StreamRefusal, UplinkHealth};
pub use task::run;
