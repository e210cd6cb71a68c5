//! The uplink's decisions: what is sent when, what counts as delivered, when to connect again.
//!
//! [`Sender`] takes [`Event`]s of the store and the link, and returns [`Action`]s. The tokio task that carries them out, and the
//! MQTT client, live in the agent; in simulations a model store and a model link take their place.
//!
//! The contract between the sender and its driver:
//!
//! - After every call of [`Sender::handle`], and at [`Sender::wake_at`], the driver calls [`Sender::poll`] until it returns `None`.
//!   Spurious calls do nothing.
//! - [`Action::Connect`] is answered by [`Event::Connected`] or [`Event::Disconnected`], in a time that the driver bounds.
//! - [`Action::Try`] is answered by [`Event::Tried`], in such a time too, unless the connection ends before. A connection that it made, or is about to make when
//!   the other ends, is kept while [`Sender::keeps_trial`] says so, and is what the next [`Action::Connect`] connects to, which names the same way.
//! - [`Action::Take`] is answered by [`Event::Offered`] or [`Event::NothingOffered`] before the next poll.
//! - [`Action::SaveBudget`] is answered by [`Event::BudgetSaved`] before the next poll, once it would survive a power cut.
//! - [`Action::Publish`] is answered by [`Event::Acknowledged`] with its token, or never; tokens are not used twice.
//! - [`Action::Disconnect`] ends the connection without an answer: what still comes from it is ignored.
//!
//! What holds:
//!
//! - A frame is delivered only when every message of it, and its schema where that goes with it, was acknowledged within one connection
//!   ([`Action::Delivered`]).
//! - A frame that was offered and not delivered is given back, one by one ([`Action::Return`]) or all at once ([`Action::Requeue`]);
//!   after any loss of the connection nothing is in flight. Only frames that the broker can never take ([`Sender::set_aside`]) are
//!   kept out until the connection ends.
//! - Messages go in the order of their frames' priority. Of one priority new frames go before the backlog, which has a share of what is sent
//!   ([`Terms::backlog_percent`]); within a lane they go in the order in which the frames were offered.
//! - What is unacknowledged stays below what the link holds and one part, by the estimate of [`estimate`], and below the bounds of [`sender`] and of
//!   the broker. So an alert never waits for long behind what was sent before it.
//! - Where there is a budget, no period costs more ([`Budget`]): not over crashes either.
//! - Where there is a schedule ([`Schedule`]), it connects only at its times, and for alerts if it says so, sends what waits, and hangs up.
//! - Where there is a bound of the rate, over any time no more is sent than it and one burst ([`LinkAccount::new`]), by the costs of [`wire`].

mod account;
mod bucket;
mod budget;
pub mod estimate;
pub mod failover;
mod flight;
mod meter;
pub mod receipt;
mod refusal;
mod schedule;
pub mod sender;
mod slow_start;
mod turns;
pub mod wire;

use std::sync::Arc;
use std::time::Duration;

use crate::plan::Priority;
use crate::time::Timestamp;

use wire::Wire;

pub use account::{LINKS_MAX, LinkAccount, LinkState};
pub use budget::{Budget, BudgetState, BudgetTerms};
pub use failover::Failover;
pub use refusal::{Refusal, Refused};
pub use schedule::Schedule;
pub use sender::{Sender, State};
pub use turns::Turns;

/// The number of a stored frame: its row in the store. Not used twice within a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FrameId(pub i64);

/// The number of a message on its way; counts from 1 within a [`Sender`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Token(pub u64);

/// An instant, by two clocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Now {
    /// Time since some fixed instant, by a clock that is never set: every wait is counted by it.
    pub steady: Duration,
    /// The wall clock: how old a frame is.
    pub wall: Timestamp,
}

/// What of a stream is new, and what waited: new data goes first, and a share is left to the backlog.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Lane {
    /// Sealed a moment ago.
    #[default]
    Live,
    /// What has waited for the link.
    Backlog,
}

/// A stored frame, as the sender needs to know it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parcel {
    /// The frame.
    pub id: FrameId,
    /// Its stream's name; a refusal speaks of streams.
    pub stream: Arc<str>,
    /// Where it is published.
    pub topic: Arc<str>,
    /// What goes before it.
    pub priority: Priority,
    /// Whether it is new.
    pub lane: Lane,
    /// When its first record was committed.
    pub committed_at: Timestamp,
    /// Whether `bytes` is a message as it stands, never sent in parts.
    pub json: bool,
    /// The sealed bytes.
    pub bytes: Arc<[u8]>,
    /// What the broker must have before, where it may not have it.
    pub schema: Option<Retained>,
}

/// A message that the broker retains.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Retained {
    /// Where it is published.
    pub topic: Arc<str>,
    /// The message.
    pub message: Vec<u8>,
}

/// What was agreed about the link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Terms {
    /// What carries the messages, and with that what they cost.
    pub wire: Wire,
    /// How often the connection shows that it lives.
    pub keep_alive: Duration,
    /// The share of the backlog in what is sent of a priority while new frames wait as well, in hundredths.
    pub backlog_percent: u8,
}

/// What the broker takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// How many messages may be unacknowledged (MQTT 5.0, section 3.2.2.3.3, Receive Maximum); 0 counts as 1.
    pub messages_max: u16,
    /// The longest packet (section 3.2.2.3.6, Maximum Packet Size), in bytes.
    pub packet_bytes_max: u32,
}

impl Limits {
    /// What a broker takes that names no limits (sections 3.2.2.3.3 and 2.1.4).
    pub const NONE: Self = Self { messages_max: u16::MAX, packet_bytes_max: 268_435_460 };
}

/// What a broker's acknowledgement means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The message is the broker's now.
    Taken,
    /// It was not taken.
    Refused(Refusal),
}

/// Why a connection ended, or did not come about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Loss {
    /// It broke, or was not made although the broker was reached, or may have been.
    Broken,
    /// Nobody was reached, and that came to be known at once: a connection of TCP was refused, or a name is unknown.
    Unreached,
    /// Nothing was carried: the link, or a way over it, is not there.
    Unsent,
    /// The broker may not know the version of MQTT: the next attempt goes the same way at once, in an older one.
    VersionRefused,
    /// The broker or we ourselves refused: login, certificate, protocol. A person has to mend it.
    Refused,
    /// The broker asks for patience, or to use another: busy, quota, shutting down, moved.
    Busy,
    /// Another client connected under our client id.
    TakenOver,
}

/// What the sender hears.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// The connection is made.
    Connected(Limits),
    /// The broker answered a message.
    Acknowledged {
        /// Which.
        token: Token,
        /// How.
        verdict: Verdict,
    },
    /// The connection is gone, or was not made.
    Disconnected(Loss),
    /// What came of [`Action::Try`]: whether the broker let us in, or why it did not.
    Tried(Result<(), Loss>),
    /// There may be a frame in the store that was not there before.
    FramesAvailable,
    /// The store gave out a frame.
    Offered(Parcel),
    /// The store has no frame to give out that is wanted.
    NothingOffered,
    /// The budget was saved.
    BudgetSaved,
    /// The program stops: send what is left, say goodbye, within a bound.
    Stop,
}

/// Which frames are wanted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    /// None of these streams, which the broker refused a moment ago.
    pub except: Arc<[Arc<str>]>,
    /// Only what goes before frames of this priority and lane: of those there are enough.
    pub before: Option<(Priority, Lane)>,
    /// Of these priorities it is the backlog's turn: it goes before what is new.
    pub backlog_first: Turns,
}

impl Wanted {
    /// Whether every frame is wanted.
    pub fn is_all(&self) -> bool {
        self.except.is_empty() && self.before.is_none()
    }

    /// Whether frames of a priority and lane are wanted.
    pub fn takes(&self, priority: Priority, lane: Lane) -> bool {
        self.before.is_none_or(|before| (priority, lane) < before)
    }

    /// The lanes of a priority, in the order in which they are looked through.
    pub fn lanes(&self, priority: Priority) -> [Lane; 2] {
        if self.backlog_first.has(priority) { [Lane::Backlog, Lane::Live] } else { [Lane::Live, Lane::Backlog] }
    }
}

/// What the sender wants done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Connect this way: over each link in turn to each broker of the list, counted from 0.
    Connect(usize),
    /// Connect this way beside the connection, which goes on.
    Try(usize),
    /// Ask the store for the next frame.
    Take(Wanted),
    /// Keep this for [`Budget::new`], instead of what was kept before.
    SaveBudget {
        /// Of which link.
        link: usize,
        /// What to keep.
        saved: Vec<u8>,
    },
    /// Send a message at QoS 1.
    Publish(Publication),
    /// The store may delete this frame.
    Delivered(FrameId),
    /// The store may give out this frame again.
    Return(FrameId),
    /// The store may give out every frame again that was given out and not delivered.
    Requeue,
    /// Tell the store what the link looks like.
    Hint {
        /// Whether there is a connection.
        connected: bool,
        /// Whether frames are waiting for the link rather than the other way round.
        congested: bool,
    },
    /// Close the connection, or give up making it.
    Disconnect(Farewell),
}

/// How a connection is closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Farewell {
    /// In good order: the status goes offline, DISCONNECT is sent.
    Stopping,
    /// The budget of the period is spent: the status goes offline, DISCONNECT is sent.
    Spent,
    /// All that waited has arrived: the status says until when it sleeps, DISCONNECT is sent.
    Sleeping {
        /// When it connects next, by the wall clock.
        until: Timestamp,
    },
    /// A preferred broker was reached: the status goes offline, DISCONNECT is sent.
    Moving,
    /// The peer has not answered for [`sender::ACKNOWLEDGEMENT_WAIT_MAX`]: nothing more is sent.
    Stalled,
}

/// A message to be sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Publication {
    /// Comes back with the acknowledgement.
    pub token: Token,
    /// The frame that it is, or is a part of, or goes before.
    pub frame: FrameId,
    /// Where it is published.
    pub topic: Arc<str>,
    /// The payload.
    pub payload: Vec<u8>,
    /// Whether the broker retains it.
    pub retain: bool,
}
