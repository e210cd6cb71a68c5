//! `rtlive-receiver completeness`.

use std::fmt::Write;
use std::path::PathBuf;
use std::sync::Arc;

use super::{Failure, print};
use crate::completeness::{Facts, reports};
use crate::config;
use crate::state::Look;

/// Prints for each stream of each agent up to when it is complete, and what is not here. A receiver may be running.
///
/// # Errors
/// [`Failure::Mistakes`] of the configuration, an agent that is not known, or a state that cannot be read.
pub fn completeness(paths: &[PathBuf], agents: &[String], json: bool) -> Result<(), Failure> {
    let config = config::load(paths).map_err(Failure::Mistakes)?;
    let look = Look::open(&config.state_dir).map_err(Failure::at("look at the state"))?;
    let known = look.agents().map_err(Failure::at("look at the state"))?;
    if let Some(agent) = agents.iter().find(|agent| !known.iter().any(|known| **known == ***agent)) {
        return Err(Failure::Usage(format!("expected an agent of which something came, found {agent:?}")));
    }
    let is_asked = |agent: &&Arc<str>| agents.is_empty() || agents.iter().any(|asked| **asked == ***agent);
    for agent in known.iter().filter(is_asked) {
        let facts = look.facts(agent).map_err(Failure::at("look at the state"))?;
        print(text(agent, &facts, json)?)?;
    }
    Ok(())
}

fn text(agent: &Arc<str>, facts: &Facts, json: bool) -> Result<String, Failure> {
    let mut text = String::new();
    for report in reports(agent, facts) {
        // A string always has room.
        let _ = if json {
            let line = serde_json::to_string(&report).map_err(Failure::at("write a report"))?;
            writeln!(text, "{line}")
        } else {
            writeln!(text, "{report}")
        };
    }
    Ok(text)
}
