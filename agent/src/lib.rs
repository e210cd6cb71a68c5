//! The agent: a thin tokio shell around [`rtlive_core`].
//!
//! `message` has every type that crosses a channel, `pipeline` makes every channel and task, `command` has one file for each
//! command of the program.

pub mod message;
