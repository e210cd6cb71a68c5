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

pub mod catalogue;
pub mod document;
pub mod endpoint;
pub mod mistake;
pub mod options;
pub mod quantity;
pub mod reference;
pub mod secret;
pub mod table;
pub mod value;
