//! The drivers of rtlive: one file for each kind of source, and the registry.
//!
//! A driver is one file: wiring notes, `pub const DRIVER`, its options (their doc comments are the reference), a pure `decode`,
//! the I/O loop, tests; and one line in [`registry::DRIVERS`]. It hands [`outlet::Delivery`] values to the engine and hears back
//! only two things: "slow down", as a full channel, and "this is committed".

#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

pub mod catalogue;
pub mod fields;
pub mod file;
mod fnv;
pub mod gpio;
pub mod input;
mod listen;
pub mod modbus;
pub mod mqtt;
pub mod nmea;
pub mod outlet;
pub mod payload;
pub mod port;
pub mod registry;
#[cfg(test)]
mod rig;
pub mod serial;
pub mod simulated;
pub mod supervisor;
pub mod tls;
