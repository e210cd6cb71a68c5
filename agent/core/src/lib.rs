//! The pure core of rtlive.
//!
//! Everything that decides lives here: what a window holds, when it closes, whether an alert is raised, how records
//! become frames, which frame is sent next. Nothing here does I/O, and nothing reads a clock: time is an argument, and
//! decisions are returned. The same events give the same records, bit for bit, on every machine.
//!
//! The way of a reading through the core:
//!
//! ```text
//! event::Event ──▶ engine::Engine ──▶ record::Record ──▶ journal::Chunk ──▶ frame ──▶ message ──▶ uplink::Sender
//!                    (plan::Plan says what to compute)
//! ```
//!
//! **Architecture invariant:** no module of this crate uses `std::time::SystemTime`, `std::time::Instant`, the file system, the
//! network, threads, or a hash map whose order can be seen. A test in `rtlive-tests` reads the sources and says so.

#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

pub mod backoff;
pub mod columns;
pub mod engine;
pub mod event;
pub mod expr;
pub mod frame;
pub mod function;
pub mod journal;
pub mod json;
pub mod message;
mod pack;
pub mod plan;
pub mod reading;
pub mod record;
pub mod selector;
pub mod sorted;
pub mod template;
pub mod time;
pub mod uplink;
pub mod zone;
