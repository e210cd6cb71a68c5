//! What crosses the channels between the sources and the intake.
//!
//! ```text
//! source task × N ──Delivery──▶ intake thread ──tokens, once durable──▶ source task
//! ```

use std::sync::Arc;

use rtlive_core::uplink::receipt::Receipt;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

/// How many messages may wait for the intake: what it takes in one commit. A source that finds no room waits, and with it its peer.
pub const DELIVERIES_MAX: usize = 256;

/// How many bytes of messages may wait for the intake, in KiB; one message may go beyond it.
const WAITING_KIB_MAX: u32 = 32 << 10;

/// A source: its place among the sources of this process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct SourceId(pub usize);

/// A message, on its way from a source to the intake.
#[derive(Clone, Debug)]
pub struct Delivery {
    /// Where it came from.
    pub source: SourceId,
    /// The topic; empty where a source has none.
    pub topic: Arc<str>,
    /// A message of a frame or of a part of one, or JSON.
    pub payload: Vec<u8>,
    /// What the source hears once the message is durable here; it may be any number.
    pub token: u64,
    /// How far the source has come with this message, where it can begin again from there.
    pub cursor: Option<Cursor>,
}

/// What a source hears of its messages that are durable now.
#[derive(Debug)]
pub struct Settlement {
    /// Their tokens.
    pub tokens: Vec<u64>,
    /// For each agent the receipt for its frames, where receipts are sent.
    pub receipts: Vec<(Arc<str>, Receipt)>,
}

/// Where a source hears of it.
pub type Settled = mpsc::Receiver<Settlement>;

/// How far a file is read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cursor {
    /// The file's name within its source.
    pub name: Arc<str>,
    /// Up to which byte.
    pub offset: u64,
}

/// The way from sources to the intake: a queue with a bound in messages and in bytes.
pub fn channel() -> (Queue, mpsc::Receiver<Queued>) {
    let (sender, receiver) = mpsc::channel(DELIVERIES_MAX);
    (Queue { sender, room: Arc::new(Semaphore::new(WAITING_KIB_MAX as usize)) }, receiver)
}

/// The end of the queue that sources have.
#[derive(Clone, Debug)]
pub struct Queue {
    sender: mpsc::Sender<Queued>,
    room: Arc<Semaphore>,
}

/// A message in the queue; its room is given back when it is dropped.
#[derive(Debug)]
pub struct Queued {
    /// The message.
    pub delivery: Delivery,
    _room: OwnedSemaphorePermit,
}

/// The intake takes nothing more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the intake has stopped")]
pub struct Stopped;

impl Queue {
    /// Hands a message on; waits for room.
    ///
    /// # Errors
    /// The intake has stopped.
    pub async fn put(&self, delivery: Delivery) -> Result<(), Stopped> {
        let kib =
            u32::try_from(delivery.payload.len() >> 10).unwrap_or(u32::MAX).saturating_add(1).min(WAITING_KIB_MAX);
        let room = Arc::clone(&self.room).acquire_many_owned(kib).await.map_err(|_| Stopped)?;
        self.sender.send(Queued { delivery, _room: room }).await.map_err(|_| Stopped)
    }
}
