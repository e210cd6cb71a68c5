//! What the user of rtlive wrote, checked.
//!
//! Two kinds of types: what was written (the tables of [`table`], each key with its place in a file), and what was checked
//! ([`rtlive_core::plan::Plan`] and the types here), which can only be built right. Between them stands a check that notes every
//! mistake, not only the first.

pub mod reference;
pub mod table;
