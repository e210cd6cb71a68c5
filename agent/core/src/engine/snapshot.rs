//! The engine's state as bytes, and as what outlives a change of the plan.
//!
//! ```text
//! b"RTES"  version u16 LE  CRC-32 of the body u32 LE  body: postcard of State
//! ```
//!
//! Everything is matched by name: inputs, sources, windows, rules, series (which keep their numbers). The same state gives the same
//! bytes, and a restored engine the same snapshot.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::clock::SavedClock;
use super::derived::SavedJoined;
use super::ledger::{InputAccount, WindowAccount};
use super::quality::SavedQuality;
use super::report::SavedReport;
use super::retired::Retired;
use super::rule::{Recent, Standing};
use super::window::SavedSlot;
use crate::plan::WindowKind;
use crate::reading::{SeriesId, SeriesInfo};
use crate::time::Timestamp;

const MAGIC: [u8; 4] = *b"RTES";

/// The version of the snapshot's body; changes whenever what is saved does.
pub const SNAPSHOT_VERSION: u16 = 3;

const HEADER_BYTES: usize = 10;

/// Why bytes are not the state of an engine.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SnapshotError {
    /// They do not begin as a snapshot does.
    #[error("expected a snapshot of the engine, found {0} bytes that do not begin as one")]
    NotASnapshot(usize),
    /// Another version of the program wrote them.
    #[error("expected a snapshot of version {SNAPSHOT_VERSION}, found version {0}")]
    Version(u16),
    /// The checksum does not hold, or the body is no state.
    #[error("expected an undamaged snapshot, found a damaged one: {0}")]
    Damaged(&'static str),
    /// It speaks of something that the plan does not have: it was taken under another.
    #[error("expected a snapshot taken under this plan, found one with {0}")]
    OtherPlan(String),
}

/// Everything that an engine knows beside its plan.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct State {
    pub(super) inputs: Vec<SavedInput>,
    pub(super) series: Vec<SavedSeries>,
    pub(super) windows: Vec<SavedWindow>,
    pub(super) retired: Retired,
    pub(super) rules: Vec<SavedRule>,
    pub(super) recents: Vec<(SeriesId, Recent)>,
    pub(super) joined: Vec<SavedJoined>,
    pub(super) quality: SavedQuality,
    pub(super) reports: Vec<SavedReport>,
    pub(super) clock: SavedClock,
}

#[derive(Debug, Serialize, Deserialize)]
pub(super) struct SavedInput {
    pub(super) account: InputAccount,
    pub(super) heard: Option<Timestamp>,
    pub(super) is_unsettled: bool,
    pub(super) sources: Vec<SavedSource>,
}

#[derive(Debug, Serialize, Deserialize)]
pub(super) struct SavedSource {
    pub(super) name: Arc<str>,
    pub(super) newest: Option<Timestamp>,
    pub(super) watermark: Timestamp,
    pub(super) heard: Option<Timestamp>,
    pub(super) is_idle: bool,
}

#[derive(Debug, Serialize, Deserialize)]
pub(super) struct SavedSeries {
    pub(super) info: SeriesInfo,
    /// The places of its input and of its source therein; `None` once the input is gone.
    pub(super) source: Option<(u16, u32)>,
}

#[derive(Debug, Serialize, Deserialize)]
pub(super) struct SavedWindow {
    pub(super) account: WindowAccount,
    pub(super) definition: SavedDefinition,
    /// The one before the last reload, where that changed it.
    pub(super) before: Option<SavedDefinition>,
}

/// Which windows there are, and the series that have some.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct SavedDefinition {
    pub(super) kind: WindowKind,
    pub(super) lateness: i64,
    pub(super) slots: Vec<SavedSlot>,
}

#[derive(Debug, Serialize, Deserialize)]
pub(super) struct SavedRule {
    pub(super) name: Arc<str>,
    /// How its instances stand.
    pub(super) standings: Vec<(Arc<str>, Standing)>,
    /// Whether a reload changes what raises and clears.
    #[serde(skip)]
    pub(super) is_changed: bool,
}

impl State {
    pub(super) fn encode(&self) -> Vec<u8> {
        // Serialising into memory fails only for types that postcard does not know, which State has none of; were it to fail, the
        // empty body would be refused on reading.
        let body = postcard::to_stdvec(self).unwrap_or_default();
        let mut bytes = Vec::with_capacity(HEADER_BYTES + body.len());
        bytes.extend(MAGIC);
        bytes.extend(SNAPSHOT_VERSION.to_le_bytes());
        bytes.extend(crc32fast::hash(&body).to_le_bytes());
        bytes.extend(body);
        bytes
    }

    pub(super) fn decode(bytes: &[u8]) -> Result<Self, SnapshotError> {
        let not_a_snapshot = || SnapshotError::NotASnapshot(bytes.len());
        let rest = bytes.strip_prefix(&MAGIC).ok_or_else(not_a_snapshot)?;
        let (version, rest) = rest.split_first_chunk().ok_or_else(not_a_snapshot)?;
        let version = u16::from_le_bytes(*version);
        if version != SNAPSHOT_VERSION {
            return Err(SnapshotError::Version(version));
        }
        let (checksum, body) = rest.split_first_chunk().ok_or_else(not_a_snapshot)?;
        if crc32fast::hash(body) != u32::from_le_bytes(*checksum) {
            return Err(SnapshotError::Damaged("its checksum does not hold"));
        }
        match postcard::take_from_bytes(body) {
            Ok((state, [])) => Ok(state),
            Ok(_) => Err(SnapshotError::Damaged("something follows its end")),
            Err(_) => Err(SnapshotError::Damaged("its body cannot be read")),
        }
    }
}
