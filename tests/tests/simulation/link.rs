//! A model link: bandwidth, latency, outages that are noticed and outages that are not.

use std::time::Duration;

use rtlive_core::uplink::Limits;

use crate::random::Random;

/// How a link behaves from now on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Weather {
    /// What is sent arrives.
    Good,
    /// Connections break, and none is made.
    Cut,
    /// What is sent vanishes, and nobody says so.
    Silent,
}

/// The link between the gateway and the broker.
pub(crate) struct Link {
    pub(crate) weather: Weather,
    /// Bytes a second.
    bandwidth: i64,
    latency: i64,
    /// When what was sent before has left.
    free_at: i64,
    /// The connection that stands, by number; or the last one.
    pub(crate) connection: u64,
    pub(crate) is_up: bool,
}

impl Link {
    pub(crate) fn new(random: &mut Random) -> Self {
        Self {
            weather: Weather::Good,
            bandwidth: *random.pick(&[1_000, 8_000, 1_000_000]),
            latency: Duration::from_millis(random.between(1, 800).unsigned_abs()).as_nanos() as i64,
            free_at: 0,
            connection: 0,
            is_up: false,
        }
    }

    /// A link without a fault.
    pub(crate) fn mend(&mut self) {
        self.weather = Weather::Good;
        self.bandwidth = 1_000_000;
    }

    pub(crate) const fn latency(&self) -> i64 {
        self.latency
    }

    /// When a message arrives that is sent now.
    pub(crate) fn arrival(&mut self, now: i64, bytes: usize) -> i64 {
        let nanos = bytes as i64 * 1_000_000_000 / self.bandwidth;
        self.free_at = self.free_at.max(now) + nanos;
        self.free_at + self.latency
    }

    /// What the broker takes in the next connection.
    pub(crate) fn limits(random: &mut Random) -> Limits {
        Limits {
            messages_max: *random.pick(&[1, 1, 20, u16::MAX]),
            packet_bytes_max: *random.pick(&[330, 330, 4_096, Limits::NONE.packet_bytes_max]),
        }
    }

    /// A connection is made; returns its number.
    pub(crate) fn open(&mut self, now: i64) -> u64 {
        self.connection += 1;
        self.is_up = true;
        self.free_at = now;
        self.connection
    }
}
