//! What the user of rtlive wrote, checked.
//!
//! Two kinds of types: what was written (the tables of [`table`], each key with its place in a file), and what was checked
//! ([`rtlive_core::plan::Plan`] and the types here), which can only be built right. Between them stands a check that notes every
//! mistake, not only the first.
//!
//! ```text
//! files ──▶ document::Document ──▶ table::Table ──options!──▶ structs of values ──▶ checked configuration
//!                    └───────────── mistakes and warnings, each with its place ──────────────┘
//! ```

#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

pub mod agent;
pub mod binding;
pub mod catalogue;
pub mod check;
pub mod deadband;
pub mod derived;
pub mod document;
pub mod endpoint;
pub mod fingerprint;
pub mod forecast;
pub mod input;
pub mod ladder;
pub mod link;
pub mod load;
pub mod markdown;
pub mod mistake;
pub mod name;
pub mod options;
pub mod quality;
pub mod quantity;
mod reach;
pub mod reference;
pub mod report;
pub mod rule;
pub mod secret;
pub mod store;
pub mod stream;
pub mod table;
mod topic;
pub mod uplink;
pub mod value;
mod window;
mod zone;

pub use agent::{AgentConfig, STATE_DIR};
pub use check::Config;
pub use input::InputConfig;
pub use load::load;
pub use store::{CELLS_PER_BYTE, Flash, StoreConfig};
pub use uplink::UplinkConfig;
