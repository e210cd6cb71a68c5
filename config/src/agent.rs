//! The agent itself: who it is and where it keeps things.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use sha2::{Digest, Sha256};

use crate::document::quoted;
use crate::name::{NAME_CHARS_MAX, is_agent_id};
use crate::table::{Table, Value};
use crate::value::{Setting, parse};
use crate::{choices, options};

/// Where systemd keeps the id of the machine (machine-id(5)).
pub const MACHINE_ID_FILE: &str = "/etc/machine-id";

/// The default of `state_dir`: systemd's `StateDirectory=rtlive`.
pub const STATE_DIR: &str = "/var/lib/rtlive";

/// Digits of the derived id: 48 bits make a chance of one in 14 million that two of 200 gateways collide.
const DERIVED_HEX_DIGITS: usize = 12;

/// Sets our digests of machine ids apart from those of other programs.
const DERIVATION_KEY: &str = "rtlive agent id";

choices! {
    /// When the machine's clock is trusted.
    pub enum ClockTrust {
        /// Once something keeps it right: an NTP client, or a receiver of satellite navigation with a fix. At once on a machine that has
        /// neither, unless it shows a time before the program was built.
        Auto = "auto",
        /// Always, unless it shows a time before the program was built, and for a minute after each step: where nothing tells the
        /// system that its clock is right, and it is.
        Trusted = "trusted",
    }
}

options! {
    /// The agent itself.
    pub struct AgentOptions {
        /// The id under which everything arrives at the centre: letters, digits, `_`, `-` and `.`, at most 64. Absent: derived from the
        /// machine id (`/etc/machine-id`), which itself is not disclosed.
        pub id: Option<AgentId>,
        /// The folder of the store and of what must survive a restart.
        pub state_dir: PathBuf = "/var/lib/rtlive",
        /// When the machine's clock is trusted. Until then readings without a time of their own wait (docs/clock.md).
        pub clock: ClockTrust = "auto",
        /// Free labels, for `{label.NAME}` in topics and messages, and in the status.
        pub labels: Labels,
    }
}

/// The agent's id: one level of a topic, and a part of client ids.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AgentId(pub String);

/// Free labels by name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Labels(pub BTreeMap<String, String>);

impl Setting for AgentId {
    fn expected() -> String {
        format!("letters, digits, `_`, `-` and `.`, at most {NAME_CHARS_MAX}")
    }

    fn read(value: &Value<'_>) -> Option<Self> {
        parse(value, |text| is_agent_id(text).then(|| Self(text.to_owned())))
    }
}

impl Setting for Labels {
    fn expected() -> String {
        <BTreeMap<String, String>>::expected()
    }

    fn read(value: &Value<'_>) -> Option<Self> {
        let labels = <BTreeMap<String, String>>::read(value);
        let table = value.as_table()?;
        let wrong: Vec<&str> = table.keys().filter(|name| !is_agent_id(name)).collect();
        for name in &wrong {
            table.mistake(&quoted(name), "a label's name of letters, digits, `_`, `-` and `.`", format!("{name:?}"));
        }
        labels.filter(|_| wrong.is_empty()).map(Self)
    }

    fn absent() -> Option<Self> {
        Some(Self::default())
    }
}

/// The agent, checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AgentConfig {
    /// Its id.
    pub id: Arc<str>,
    /// The folder of the store and of what must survive a restart.
    pub state_dir: PathBuf,
    /// When the machine's clock is trusted.
    pub clock: ClockTrust,
    /// Free labels.
    pub labels: BTreeMap<String, String>,
}

/// Checks `[agent]`. `machine_id` is what [`MACHINE_ID_FILE`] says, where it says something.
pub(crate) fn check(table: &Table<'_>, machine_id: Option<&str>) -> Option<AgentConfig> {
    let AgentOptions { id, state_dir, clock, labels } = AgentOptions::read(table)?;
    let id = match (id, machine_id.map(str::trim).filter(|id| !id.is_empty())) {
        (Some(AgentId(id)), _) => id,
        (None, Some(machine_id)) => derived_id(machine_id),
        (None, None) => {
            let found = format!("neither the key nor a machine id in {MACHINE_ID_FILE}");
            table.mistake("id", "an id for the agent", found);
            return None;
        }
    };
    Some(AgentConfig { id: id.into(), state_dir, clock, labels: labels.0 })
}

/// The default id. The machine id is confidential (machine-id(5) asks for a keyed cryptographic hash), and topics are not.
pub fn derived_id(machine_id: &str) -> String {
    let digest = Sha256::new().chain_update(DERIVATION_KEY).chain_update(machine_id.trim()).finalize();
    let hex: String = digest.iter().map(|byte| format!("{byte:02x}")).take(DERIVED_HEX_DIGITS / 2).collect();
    format!("gw-{hex}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_derived_id_is_stable_and_tells_nothing() {
        let id = derived_id("0123456789abcdef0123456789abcdef\n");
        // printf 'rtlive agent id0123456789abcdef0123456789abcdef' | sha256sum
        assert_eq!(id, "gw-a93360dd6d3d");
        assert!(is_agent_id(&id));
    }
}
