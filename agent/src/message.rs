//! Every type that crosses a channel between the stages of the agent.
//!
//! ```text
//! driver task ──Delivery──▶ engine task ──Commit──▶ store thread ◀──take / acknowledge── uplink task ◀── link events ── broker
//! ```

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use rtlive_core::event::Event;
use rtlive_core::journal::{Part, StreamKey};
use rtlive_core::plan::{Plan, Priority};
use rtlive_core::reading::SeriesInfo;
use rtlive_core::record::{Emitted, Epoch};
use rtlive_core::time::Timestamp;
use tokio::sync::{mpsc, oneshot, watch};

use crate::stage::Kept;
pub use crate::store::StoreError;
pub use rtlive_core::uplink::{FrameId, Lane, Wanted};
pub use rtlive_drivers::outlet::Delivery;

/// How many requests may wait for the store: a commit, a take, a few acknowledgements, a status. More would only hide that it is slow.
pub const STORE_REQUESTS_MAX: usize = 8;

/// What a driver must find again after a restart: its input's name, the key, the new value or `None` to forget it.
pub type KeptChange = (Arc<str>, String, Option<Vec<u8>>);

/// One instant of the engine, to be made durable in one transaction.
#[derive(Clone, Debug)]
pub struct Commit {
    /// When, by the wall clock.
    pub at: Timestamp,
    /// Every event that the engine took since the last commit, in order, with the instant at which it took it.
    pub events: Vec<(Timestamp, Event)>,
    /// The first of these events, encoded already, where the commit hurries.
    pub parts: Vec<Part>,
    /// The series that the engine knows since the last commit, in the order of their numbers: those that events declare, and those that
    /// are derived from them.
    pub series: Vec<SeriesInfo>,
    /// Every record that these events emitted, in order. The store numbers them.
    pub records: Vec<Emitted>,
    /// What drivers must find again after a restart.
    pub state: Vec<KeptChange>,
    /// The engine's state after the last of the events, when the store asked for it, at a reload and at stop.
    pub snapshot: Option<Snapshot>,
}

impl Commit {
    /// One of nothing.
    pub fn empty(at: Timestamp) -> Self {
        Self {
            at,
            events: Vec::new(),
            parts: Vec::new(),
            series: Vec::new(),
            records: Vec::new(),
            state: Vec::new(),
            snapshot: None,
        }
    }
}

/// The engine's whole state at a commit.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// The plan that it computes; a new one takes effect with this commit.
    pub plan: Arc<Plan>,
    /// The state, as `rtlive_core::engine::Engine::snapshot` wrote it.
    pub engine: Vec<u8>,
}

/// What a commit came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Committed {
    /// The number of the commit; counts from 1 within a store.
    pub number: u64,
    /// Whether the next commit should bring a snapshot: the journal has grown to 4 times the size of the last one, or the store begins anew.
    pub wants_snapshot: bool,
    /// Whether it is on the disk, and not only in memory because the disk cannot be written: then nothing is acknowledged to inputs that can be
    /// asked again.
    pub is_durable: bool,
}

impl Committed {
    /// A commit that is on the disk, and may be the last that is.
    pub fn of(number: u64) -> Self {
        Self { number, wants_snapshot: true, is_durable: true }
    }
}

/// A frame, committed and ready to be sent.
#[derive(Clone, Debug)]
pub struct StoredFrame {
    /// Its number.
    pub id: FrameId,
    /// The stream's name.
    pub stream: Arc<str>,
    /// The class of its records.
    pub class: Arc<str>,
    /// The epoch that its numbers count in.
    pub epoch: Epoch,
    /// What goes before it.
    pub priority: Priority,
    /// Whether it is new, when it is given out.
    pub lane: Lane,
    /// Whether `bytes` is a JSON message (`format = "json"`), sent as it is, or a frame, sent in messages with a header.
    pub json: bool,
    /// When its first record was committed; backlog is what is older than 60 s when it is sent.
    pub committed_at: Timestamp,
    /// The number of the first record.
    pub first: u64,
    /// How many records.
    pub records: u32,
    /// The sealed bytes; they never change.
    pub bytes: Arc<[u8]>,
}

/// What the store has for whoever asks for a frame.
#[derive(Debug)]
pub enum Offer {
    /// The next frame.
    Frame(StoredFrame),
    /// Nothing. The first frame that is wanted comes with the commit that brings it, unless another one is asked for before: an alert does not wait
    /// for the way there and back. It is given out even if it is not received.
    Later(oneshot::Receiver<StoredFrame>),
}

/// How much room the store may take, and for how long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// The most that it takes on disk, in bytes.
    pub bytes: u64,
    /// How long records wait for the link.
    pub age: Duration,
}

impl Bounds {
    /// No bounds.
    pub const NONE: Self = Self { bytes: u64::MAX, age: Duration::MAX };
}

/// What the link looks like to the store: how prompt and how dense frames should be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LinkHint {
    /// Whether there is a connection.
    pub connected: bool,
    /// Whether frames are waiting for the link rather than the other way round.
    pub congested: bool,
}

/// What status tells of the store.
#[derive(Clone, Debug, Default)]
pub struct StoreStatus {
    /// The current epoch.
    pub epoch: Option<Epoch>,
    /// The file's size with its log, in bytes.
    pub bytes: u64,
    /// The most that it may take, in bytes.
    pub bytes_max: u64,
    /// Commits since the start.
    pub commits: u64,
    /// What the disk was asked for since then.
    pub wear: Wear,
    /// Present while the store is in memory, because the disk cannot be written; the accounts are then those of memory.
    pub memory: Option<MemoryStatus>,
    /// The accounts of each (stream, class).
    pub streams: BTreeMap<StreamKey, StreamAccount>,
}

/// What the store asked of its disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Wear {
    /// Syncs: one for each transaction, and what checkpoints cost.
    pub syncs: u64,
    /// Bytes that were handed to the kernel for the file and its log; 0 where the kernel does not count.
    pub bytes: u64,
    /// Those of the journal, of frames and of snapshots among them, each counted once.
    pub content_bytes: u64,
}

/// The store is in memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemoryStatus {
    /// Since when.
    pub since: Timestamp,
    /// What the disk answered last.
    pub why: String,
    /// From when on it is tried again.
    pub retry_at: Timestamp,
}

impl StoreStatus {
    /// The accounts that do not close, in words; always a defect of the program.
    pub fn check(&self) -> Vec<String> {
        let open = self
            .streams
            .iter()
            .filter(|(_, account)| account.acknowledged + account.stored + account.in_gaps != account.numbered);
        open.map(|(StreamKey { stream, class }, account)| {
            format!("the account of stream {stream} ({class}) does not close: {account:?}")
        })
        .collect()
    }
}

/// The account of a stream, over all epochs of the store: `numbered = acknowledged + stored + in_gaps`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StreamAccount {
    /// Records that were given a number.
    pub numbered: u64,
    /// Records whose frame was acknowledged.
    pub acknowledged: u64,
    /// Records in frames that are stored, and in the tail that is not yet a frame.
    pub stored: u64,
    /// Records that a gap speaks of.
    pub in_gaps: u64,
    /// The bytes of stored frames.
    pub stored_bytes: u64,
    /// When the oldest stored record was committed.
    pub oldest: Option<Timestamp>,
}

/// What is asked of the store thread.
#[derive(Debug)]
pub enum StoreRequest {
    /// Make an instant durable. From the engine only, one at a time.
    Commit(Box<Commit>, oneshot::Sender<Result<Committed, StoreError>>),
    /// The next frame to send of those that are wanted, the highest priority first. Each frame is given out once until [`StoreRequest::Return`] or
    /// [`StoreRequest::Requeue`].
    Take(Wanted, oneshot::Sender<Offer>),
    /// These frames were given out and not delivered, and are to be given out again, in order.
    Return(Vec<FrameId>),
    /// These frames were delivered; they are deleted with the next commit, which comes within a second.
    Acknowledge(Vec<FrameId>),
    /// The connection is gone: every frame that was given out and not acknowledged is to be given out again, in order.
    Requeue,
    /// What the link looks like.
    Hint(LinkHint),
    /// Other bounds, from now on.
    Bound(Bounds),
    /// Keep this, in a transaction of its own; answered once it is on the disk, or as durable as can be.
    Keep(KeptChange, oneshot::Sender<()>),
    /// What drivers keep, as of the last commit.
    Kept(oneshot::Sender<Kept>),
    /// The accounts.
    Status(oneshot::Sender<StoreStatus>),
    /// Delete the frames that were acknowledged, checkpoint, close. What the engine took is in its last commit.
    Stop(oneshot::Sender<()>),
}

/// The way to the store thread, for the engine and the uplink.
#[derive(Clone, Debug)]
pub struct StoreHandle {
    /// Requests, in order.
    pub requests: mpsc::Sender<StoreRequest>,
    /// Changes whenever there may be a frame to take that was not there before.
    pub frames: watch::Receiver<u64>,
    /// `true` while the store is in memory, and inputs that can be asked again are held.
    pub held: watch::Receiver<bool>,
}

impl StoreHandle {
    /// See [`StoreRequest::Commit`].
    ///
    /// # Errors
    /// What the store said, or that it has stopped.
    pub async fn commit(&self, commit: Commit) -> Result<Committed, StoreError> {
        self.ask(|reply| StoreRequest::Commit(Box::new(commit), reply)).await?
    }

    /// See [`StoreRequest::Take`].
    ///
    /// # Errors
    /// The store has stopped.
    pub async fn take(&self, wanted: Wanted) -> Result<Offer, StoreError> {
        self.ask(|reply| StoreRequest::Take(wanted, reply)).await
    }

    /// See [`StoreRequest::Keep`].
    ///
    /// # Errors
    /// The store has stopped.
    pub async fn keep(&self, change: KeptChange) -> Result<(), StoreError> {
        self.ask(|reply| StoreRequest::Keep(change, reply)).await
    }

    /// See [`StoreRequest::Kept`].
    ///
    /// # Errors
    /// The store has stopped.
    pub async fn kept(&self) -> Result<Kept, StoreError> {
        self.ask(StoreRequest::Kept).await
    }

    /// See [`StoreRequest::Status`].
    ///
    /// # Errors
    /// The store has stopped.
    pub async fn status(&self) -> Result<StoreStatus, StoreError> {
        self.ask(StoreRequest::Status).await
    }

    /// See [`StoreRequest::Stop`].
    ///
    /// # Errors
    /// The store has stopped already.
    pub async fn stop(&self) -> Result<(), StoreError> {
        self.ask(StoreRequest::Stop).await
    }

    /// Sends a request that has no answer.
    ///
    /// # Errors
    /// The store has stopped.
    pub async fn tell(&self, request: StoreRequest) -> Result<(), StoreError> {
        self.requests.send(request).await.map_err(|_| StoreError::Stopped)
    }

    async fn ask<T>(&self, request: impl FnOnce(oneshot::Sender<T>) -> StoreRequest) -> Result<T, StoreError> {
        let (reply, answer) = oneshot::channel();
        self.tell(request(reply)).await?;
        answer.await.map_err(|_| StoreError::Stopped)
    }
}
