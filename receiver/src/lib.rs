//! The other end of rtlive: takes the frames of agents, verifies them, and hands every record on once.
//!
//! ```text
//! source ──Delivery──▶ intake ──NewRecords──▶ output
//!   ▲                    │
//!   └──── tokens ◀── state (one commit)
//! ```
//!
//! [`pipeline`] makes every channel and task; [`state`] says what is always true of the file that everything depends on.

#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

pub mod cli;
pub mod command;
mod complaint;
pub mod completeness;
pub mod config;
pub mod counts;
pub mod delivery;
pub mod intake;
pub mod intervals;
pub mod metrics;
pub mod new_records;
pub mod output;
pub mod pipeline;
pub mod receipts;
#[cfg(test)]
mod sample;
pub mod source;
pub mod state;
pub mod subject;
mod tls;
mod told;
