//! The agent: a thin tokio shell around [`rtlive_core`].
//!
//! `message` has every type that crosses a channel, `pipeline` makes every channel and task, `command` has one file for each
//! command of the program. docs/architecture.md walks a reading through all of it.

#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

pub mod cli;
pub mod clock;
pub mod command;
#[cfg(feature = "demo")]
pub mod demo;
pub mod engine;
pub mod log;
pub mod message;
pub mod opener;
pub mod pipeline;
pub mod progress;
pub mod rates;
pub mod recovery;
pub mod socket;
pub mod stage;
pub mod status;
pub mod store;
pub mod tail;
pub mod uplink;
