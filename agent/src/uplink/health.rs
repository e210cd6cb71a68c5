//! What `rtlive status` tells of the link.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rtlive_config::forecast::LadderForecast;
use rtlive_core::plan::Priority;
use rtlive_core::time::Timestamp;
use rtlive_core::uplink::BudgetState;
use serde::{Deserialize, Serialize};

use super::throughput::Throughput;

/// How many round trips the percentiles look back at, roughly: when as many are counted, all counts are halved.
const ROUND_TRIPS_MAX: u32 = 1024;
/// Four classes for each doubling: a percentile is known within 19 %.
const CLASSES_PER_DOUBLING: f64 = 4.0;
/// From 0.1 ms to 0.1 ms × 2^25, almost an hour.
const CLASSES: usize = 100;
const SHORTEST_MS: f64 = 0.1;
const SECONDS_PER_DAY: f64 = 86_400.0;

/// What `rtlive status` tells of the link.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct UplinkHealth {
    /// `connecting`, `online`, `waiting` (for the next attempt), `sleeping` (until the schedule's next time, or an alert), `offline` (stopped).
    pub state: String,
    /// The broker in use, or asked last.
    pub broker: String,
    /// The link in use, or asked last, where links have names.
    #[serde(default)]
    pub link: Option<String>,
    /// The version of MQTT that is spoken, where there is a connection: `5` or `3.1.1`.
    pub protocol: Option<String>,
    /// Since when the state is so, by the wall clock (RFC 3339).
    pub since: Option<String>,
    /// When the next attempt is made, by the wall clock (RFC 3339), while one is waited for.
    pub next_attempt_at: Option<String>,
    /// Why the last connection ended or did not come about; kept until the next one has been made.
    pub error: Option<String>,
    /// The ways in their order, over each link to each broker, where there are several.
    #[serde(default)]
    pub brokers: Vec<BrokerLine>,
    /// How often the connection was lost.
    pub reconnects: u64,
    /// Frames that were delivered since the start.
    pub acknowledged_frames: u64,
    /// Their bytes.
    pub acknowledged_bytes: u64,
    /// Messages that are sent and not acknowledged.
    pub in_flight: usize,
    /// Bytes that are taken from the store and not acknowledged.
    pub in_flight_bytes: usize,
    /// When the broker last acknowledged a message, by the wall clock (RFC 3339).
    pub last_ack_at: Option<String>,
    /// From publishing a message to its acknowledgement: the median, in milliseconds.
    pub ack_ms_p50: Option<f64>,
    /// The same, 99th percentile.
    pub ack_ms_p99: Option<f64>,
    /// From the commit of a new frame's first record to the acknowledgement of the frame: the median, in milliseconds. The frames of a backlog are not
    /// among them.
    #[serde(default)]
    pub record_ms_p50: Option<f64>,
    /// The same, 99th percentile.
    #[serde(default)]
    pub record_ms_p99: Option<f64>,
    /// What the link is believed to carry, in bytes a second with the headers around messages; `null` before the first acknowledgement.
    #[serde(default)]
    pub link_bytes_per_s: Option<f64>,
    /// The shortest of the newest round trips, in milliseconds.
    #[serde(default)]
    pub link_round_trip_ms: Option<f64>,
    /// The bound of the rate of the link in use, in bytes a second.
    #[serde(default)]
    pub rate_bytes_per_s: Option<u64>,
    /// What was sent a second in the last ten, in bytes with the headers; `null` just after the start.
    #[serde(default)]
    pub sent_bytes_per_s: Option<f64>,
    /// What of it was acknowledged.
    #[serde(default)]
    pub acknowledged_bytes_per_s: Option<f64>,
    /// Which part that is of what the link carries, or of the bound of the rate where that is less.
    #[serde(default)]
    pub link_use: Option<f64>,
    /// What went to the broker since the start, in bytes with the headers and all that is around messages.
    #[serde(default)]
    pub carried_up_bytes: u64,
    /// What came from it.
    #[serde(default)]
    pub carried_down_bytes: u64,
    /// Records that wait, in frames or not.
    #[serde(default)]
    pub waiting_records: u64,
    /// The bytes of the frames that wait.
    #[serde(default)]
    pub waiting_bytes: u64,
    /// How long the link would take for these bytes, in seconds, if nothing new came; `null` without an estimate of the link.
    #[serde(default)]
    pub drain_s: Option<f64>,
    /// How the budget of the link in use stands; `null` without one.
    #[serde(default)]
    pub budget: Option<BudgetLine>,
    /// The links in the order in which they are preferred, where they have names.
    #[serde(default)]
    pub links: Vec<LinkLine>,
    /// The ladders: which level of each would fit into what the link carries at present, and into what is left of the budget; empty while neither is known.
    #[serde(default)]
    pub ladders: Vec<LadderLine>,
    #[serde(skip)]
    pub(crate) throughput: Throughput,
    /// Streams that the broker refuses at present. Their frames are kept, and tried again from time to time.
    pub refused: Vec<StreamRefusal>,
    /// Frames that are longer than the broker takes; tried again with the next connection.
    pub too_long: u64,
}

/// A broker of a list, and the link over which it is reached.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BrokerLine {
    /// The broker.
    pub broker: String,
    /// The link, where links have names.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub link: Option<String>,
    /// Why the last connection to it ended or did not come about; kept until the next one has been made.
    pub error: Option<String>,
}

/// A link of several.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LinkLine {
    /// Its name.
    pub link: String,
    /// The interface to which connections are bound.
    pub interface: String,
    /// The bound of its rate, in bytes a second.
    pub rate_bytes_per_s: Option<u64>,
    /// What it has carried to brokers since the start, in bytes with the headers and all that is around messages.
    pub carried_up_bytes: u64,
    /// What it has carried from them.
    pub carried_down_bytes: u64,
    /// How its budget stands; `null` without one.
    pub budget: Option<BudgetLine>,
}

/// A ladder.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LadderLine {
    /// Its name.
    pub ladder: String,
    /// The finest level that fits; `null` where none does.
    pub carries: Option<String>,
}

/// The budget.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BudgetLine {
    /// What is spent of the period, or was reserved when an agent ended, in bytes.
    pub spent: u64,
    /// How many bytes there are in the period.
    pub bytes: u64,
    /// How many may be spent in a day until it ends, beside those that are for alerts alone.
    #[serde(default)]
    pub left_bytes_per_day: u64,
    /// When the next period begins, RFC 3339.
    pub until: String,
    /// What has to wait at present: `bulk`, `live` (and bulk), `all`; `null` while nothing has to.
    pub held: Option<String>,
}

impl BudgetLine {
    pub(super) fn of(state: &BudgetState, now: Timestamp) -> Self {
        let held = state.held.map(|held| match held {
            Priority::Alert => "all",
            Priority::Live => "live",
            Priority::Bulk => "bulk",
        });
        let BudgetState { spent, bytes, left, until, .. } = *state;
        // What is left on the last day is left for that.
        let days = (until.since(now).as_secs_f64() / SECONDS_PER_DAY).max(1.0);
        let left_bytes_per_day = (left as f64 / days) as u64;
        Self { spent, bytes, left_bytes_per_day, until: until.to_string(), held: held.map(str::to_owned) }
    }
}

impl UplinkHealth {
    /// With what changes although nothing happens, as of now; of the ladders it is known what their levels need.
    pub fn at(mut self, now: Instant, ladders: &[LadderForecast]) -> Self {
        let per_second = self.throughput.per_second(now);
        self.sent_bytes_per_s = per_second.map(|[sent, _]| sent);
        self.acknowledged_bytes_per_s = per_second.map(|[_, acknowledged]| acknowledged);
        self.link_use = self.sent_bytes_per_s.zip(self.capacity()).map(|(sent, capacity)| sent / capacity);
        let link = self.capacity().map(|capacity| (capacity * SECONDS_PER_DAY) as u64);
        let budget = self.budget.as_ref().map(|budget| budget.left_bytes_per_day);
        if let Some(most) = link.into_iter().chain(budget).min() {
            let line = |ladder: &LadderForecast| LadderLine {
                ladder: ladder.name.clone(),
                carries: ladder.finest(|_| Some(most)).map(str::to_owned),
            };
            self.ladders = ladders.iter().map(line).collect();
        }
        self
    }

    /// What may go over the link, in bytes a second, where that is known.
    pub(crate) fn capacity(&self) -> Option<f64> {
        let link = self.link_bytes_per_s?;
        Some(self.rate_bytes_per_s.map_or(link, |rate| link.min(rate as f64)))
    }
}

/// A stream that the broker refuses.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StreamRefusal {
    /// The stream.
    pub stream: String,
    /// Why.
    pub reason: String,
}

/// A shared [`UplinkHealth`].
pub type SharedHealth = Arc<Mutex<UplinkHealth>>;

/// How long the newest round trips took, counted in classes of equal ratio.
#[derive(Clone, Debug)]
pub(super) struct RoundTrips {
    counts: [u32; CLASSES],
    total: u32,
}

impl Default for RoundTrips {
    fn default() -> Self {
        Self { counts: [0; CLASSES], total: 0 }
    }
}

impl RoundTrips {
    pub(super) fn note(&mut self, took: Duration) {
        let doublings = (took.as_secs_f64() * 1000.0 / SHORTEST_MS).max(1.0).log2();
        let class = ((doublings * CLASSES_PER_DOUBLING) as usize).min(CLASSES - 1);
        if let Some(count) = self.counts.get_mut(class) {
            *count += 1;
            self.total += 1;
        }
        if self.total >= ROUND_TRIPS_MAX {
            for count in &mut self.counts {
                *count /= 2;
            }
            self.total = self.counts.iter().sum();
        }
    }

    /// The upper end of the class in which this part of the round trips ends, in milliseconds.
    pub(super) fn percentile_ms(&self, part: f64) -> Option<f64> {
        let rank = (f64::from(self.total) * part).ceil();
        let mut seen = 0;
        let class = self.counts.iter().position(|count| {
            seen += count;
            seen > 0 && f64::from(seen) >= rank
        })?;
        Some(SHORTEST_MS * ((class + 1) as f64 / CLASSES_PER_DOUBLING).exp2())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_known_within_a_class_and_forget_the_past() {
        let mut trips = RoundTrips::default();
        assert_eq!(trips.percentile_ms(0.5), None);
        for ms in 1..=1000 {
            trips.note(Duration::from_millis(ms));
        }
        for (part, ms) in [(0.5, 500.0), (0.99, 990.0)] {
            let found = trips.percentile_ms(part).unwrap();
            assert!(found >= ms && found <= ms * 1.19, "{found} for {ms}");
        }
        for _ in 0..20_000 {
            trips.note(Duration::from_millis(10));
        }
        assert!(trips.percentile_ms(0.99).unwrap() < 12.0);
        trips.note(Duration::MAX);
        trips.note(Duration::ZERO);
    }
}
