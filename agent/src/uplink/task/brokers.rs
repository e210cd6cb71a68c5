//! The ways, over each link to each broker of the list: connections, and what is known of each.

use std::future::{pending, ready};
use std::pin::Pin;
use std::time::Duration;

use rtlive_config::endpoint::Broker;
use rtlive_config::link::{LinkConfig, NamedLink};
use rtlive_config::uplink::UplinkConfig;
use rtlive_core::uplink::{Event, Loss};
use tokio::time::Instant;

use super::{Link, Task};
use crate::uplink::health::BrokerLine;
use crate::uplink::mqtt::{Connection, LinkError, Peer, Version};
use crate::uplink::status::{self, Presence};

/// How long a broker that fell back to MQTT 3.1.1 is spoken to in it before 5 is tried again: it may have been replaced, or have been too busy to answer.
const VERSION_REMEMBERED: Duration = Duration::from_secs(3600);

/// A connection that is being made.
pub(super) type Opening = Pin<Box<dyn Future<Output = Result<Connection, LinkError>> + Send>>;

/// A way.
pub(super) struct Known {
    broker: Broker,
    link: Option<NamedLink>,
    /// Until when 3.1.1 is spoken to it, and whether it is in the next attempt.
    v311_until: Option<Instant>,
    v311_next: bool,
    /// Why the last connection to it ended or did not come about; until the next one has been made.
    error: Option<String>,
}

/// A connection by a preferred way beside the one in use.
pub(super) enum Trial {
    None,
    Running(usize, Opening),
    Stands(usize, Box<Connection>),
}

impl Known {
    /// All ways of a configuration, in the order in which they are preferred.
    pub(super) fn all(config: &UplinkConfig) -> Vec<Self> {
        let brokers = || [&config.broker].into_iter().chain(&config.fallbacks).cloned();
        let over = |link: &LinkConfig| {
            let link = link.named.clone();
            brokers().map(move |broker| Self {
                broker,
                link: link.clone(),
                v311_until: None,
                v311_next: false,
                error: None,
            })
        };
        config.links.iter().flat_map(over).collect()
    }

    /// The name of the link.
    pub(super) fn link(&self) -> Option<&str> {
        self.link.as_ref().map(|link| &*link.name)
    }
}

impl Trial {
    /// What comes of it; pending while none runs. May be dropped while it waits.
    pub(super) async fn next(&mut self) -> Result<Connection, LinkError> {
        match self {
            Self::Running(_, opening) => opening.await,
            Self::None | Self::Stands(..) => pending().await,
        }
    }
}

impl Task {
    /// Connects this way, or goes on with the connection that stands there, or is being made.
    pub(super) fn open_link(&mut self, place: usize) {
        let opening = match std::mem::replace(&mut self.trial, Trial::None) {
            Trial::Stands(at, connection) if at == place => Box::pin(ready(Ok(*connection))),
            Trial::Running(at, opening) if at == place => opening,
            _ => self.opening(place),
        };
        self.link = Link::Opening(opening);
        self.place = place;
        self.point_to(place);
    }

    /// The way at this place is in use, or asked.
    pub(super) fn point_to(&mut self, place: usize) {
        let Some(known) = self.ways.get(place) else { return };
        self.peer.broker = known.broker.clone();
        self.peer.interface = known.link.as_ref().map(|link| link.interface.clone());
        let link = known.link().map(str::to_owned);
        self.health_mut(|health, task| {
            health.broker = task.peer.broker.to_string();
            health.link = link;
        });
    }

    /// Drops a trial that is not wanted any more.
    pub(super) fn drop_trial(&mut self) {
        if let Trial::Running(place, _) | Trial::Stands(place, _) = self.trial
            && !self.sender.keeps_trial(place)
        {
            self.trial = Trial::None;
        }
    }

    /// Connects this way beside the connection in use.
    pub(super) fn try_broker(&mut self, place: usize) {
        self.trial = Trial::Running(place, self.opening(place));
    }

    /// What came of that.
    pub(super) fn tried(&mut self, opened: Result<Connection, LinkError>) {
        let Trial::Running(place, _) = std::mem::replace(&mut self.trial, Trial::None) else { return };
        let result = match opened {
            Ok(connection) => {
                self.trial = Trial::Stands(place, Box::new(connection));
                Ok(())
            }
            Err(error) => {
                tracing::debug!("a preferred way is still closed: {error}");
                self.note_version(place, error.loss);
                self.note_error(place, Some(error.to_string()));
                Err(error.loss)
            }
        };
        self.handle(Event::Tried(result));
    }

    /// The broker in use lets us in.
    pub(super) fn note_welcome(&mut self, version: Version) {
        // The same broker over another link speaks it too.
        let (broker, now) = (&self.peer.broker, Instant::now());
        for known in self.ways.iter_mut().filter(|known| known.broker == *broker) {
            known.v311_until = match version {
                Version::V311 => known.v311_until.filter(|until| now < *until).or(Some(now + VERSION_REMEMBERED)),
                Version::V5 => None,
            };
        }
        self.note_error(self.place, None);
    }

    /// What a loss says of the version that the next attempt speaks.
    pub(super) fn note_version(&mut self, place: usize, loss: Loss) {
        if let Some(known) = self.ways.get_mut(place) {
            known.v311_next = loss == Loss::VersionRefused;
        }
    }

    /// Why the way at this place is not used; `None` once it is.
    pub(super) fn note_error(&mut self, place: usize, error: Option<String>) {
        if let Some(known) = self.ways.get_mut(place) {
            known.error = error;
        }
        if self.ways.len() > 1 {
            let line = |known: &Known| BrokerLine {
                broker: known.broker.to_string(),
                link: known.link().map(str::to_owned),
                error: known.error.clone(),
            };
            let lines = self.ways.iter().map(line).collect();
            self.health_mut(|health, _| health.brokers = lines);
        }
    }

    /// The link of the way in use, by its place in the configuration.
    pub(super) fn link_place(&self) -> usize {
        self.place / (self.ways.len() / self.links.len().max(1)).max(1)
    }

    /// The budget of the link in use is spent: none of its ways is used.
    pub(super) fn note_spent(&mut self) {
        let text = format!("the budget of the link to {} is spent", self.peer.way());
        tracing::warn!("{text}: nothing goes over it before the next period");
        let link = self.ways.get(self.place).and_then(|known| known.link().map(str::to_owned));
        let of_link = (0..self.ways.len()).filter(|way| self.ways.get(*way).and_then(Known::link) == link.as_deref());
        let of_link: Vec<usize> = of_link.collect();
        of_link.into_iter().for_each(|way| self.note_error(way, Some(text.clone())));
    }

    fn opening(&mut self, place: usize) -> Opening {
        let now = Instant::now();
        let mut peer: Peer = self.peer.clone();
        let mut speaks_v311 = false;
        if let Some(known) = self.ways.get_mut(place) {
            known.v311_until = known.v311_until.filter(|until| now < *until);
            speaks_v311 = std::mem::take(&mut known.v311_next) || known.v311_until.is_some();
            peer.broker = known.broker.clone();
            peer.interface = known.link.as_ref().map(|link| link.interface.clone());
        }
        let offline = status::payload(&self.plan, Presence::Offline, self.clock.now());
        Box::pin(async move { Connection::open(&peer, speaks_v311, offline).await })
    }
}
