//! Snapshots: the whole state at a commit, as bytes.

use std::sync::Arc;

use rtlive_core::journal::{Account, StreamKey};
use rtlive_core::plan::{Plan, StreamId};
use rtlive_core::record::{Epoch, Gap, Record};
use rtlive_core::time::Timestamp;
use serde::{Deserialize, Serialize};

use super::cover::Told;
use crate::stage::Kept;

/// The version of the layout; another one is not read.
const VERSION: u8 = 1;

const CHECKSUM_BYTES: usize = 4;

/// The whole state at a commit.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct SavedSnapshot {
    /// The number of the commit.
    pub number: u64,
    /// When it was made.
    pub at: Timestamp,
    /// The accounts of all streams.
    pub accounts: Vec<(StreamKey, Account)>,
    /// The gaps that wait to be numbered.
    pub gaps: Vec<Gap>,
    /// The epoch that numbers count in.
    pub epoch: Epoch,
    /// Records that are in no frame yet, and that the journal behind this does not lead to.
    pub tails: Vec<SavedTail>,
    /// What coarser levels of ladders have told.
    pub told: Told,
    /// What drivers keep.
    pub kept: Kept,
    /// What the engine computes from here on.
    pub plan: Arc<Plan>,
    /// The engine's state.
    pub engine: Vec<u8>,
    /// The length of the bytes that this was read from.
    #[serde(skip)]
    pub bytes: u64,
}

/// The tail of a stream.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct SavedTail {
    /// The stream, by the plan of the snapshot.
    pub stream: StreamId,
    /// The number of the first record.
    pub first: u64,
    /// When it was committed.
    pub since: Timestamp,
    /// The records.
    pub records: Vec<Record>,
}

impl SavedSnapshot {
    /// The bytes: version, postcard, CRC-32 of both.
    pub(super) fn encode(&self) -> Result<Vec<u8>, postcard::Error> {
        let mut bytes = postcard::to_extend(self, vec![VERSION])?;
        let checksum = crc32fast::hash(&bytes);
        bytes.extend_from_slice(&checksum.to_be_bytes());
        Ok(bytes)
    }

    /// `None` for bytes that are damaged or of another version.
    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        let (sealed, checksum) = bytes.split_last_chunk::<CHECKSUM_BYTES>()?;
        if crc32fast::hash(sealed) != u32::from_be_bytes(*checksum) {
            return None;
        }
        let (version, body) = sealed.split_first()?;
        if *version != VERSION {
            return None;
        }
        let mut snapshot: Self = postcard::from_bytes(body).ok()?;
        snapshot.bytes = bytes.len() as u64;
        Some(snapshot)
    }
}
