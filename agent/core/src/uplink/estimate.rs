//! The estimate of the link: how many bytes a second it carries, and how long a round trip takes at least.
//!
//! In the manner of BBR (Cardwell and others, "BBR: Congestion-Based Congestion Control", ACM Queue 2016; draft-ietf-ccwg-bbr), with the delivery
//! rates of draft-cheng-iccrg-delivery-rate-estimation, at the level of messages: what is sent is a message, what is acknowledged is the PUBACK.
//! What lies below (buffers of the socket, of a modem) is a part of the link, and stays empty because no more is sent than the link holds.
//!
//! - A *sample* of the rate is what was acknowledged between the sending of a message and its acknowledgement, divided by that time; where messages
//!   were sent over a longer time than acknowledged, by the longer one, so that acknowledgements in a bunch do not look like a fast link.
//! - The rate is the highest of the newest samples. One that was taken while something else than the link held messages back (nothing to send, the
//!   broker's receive maximum, a budget) may raise it, never lower it.
//! - The round trip is the shortest of the newest ones. Where none was short for a while, sending pauses until nothing is unacknowledged: the next
//!   message finds no queue before it, and its round trip is the link's own.
//! - What may be unacknowledged is rate × round trip, what the link itself holds, and [`QUEUE_TIME`], so that it does not run dry. At first that is no more
//!   than what was acknowledged and found no queue, as BBR's window grows with what is acknowledged (section 4.6.4.6, `BBRSetCwnd`): a modem that lets the
//!   first messages pass at once does not look like a fast link.
//! - Where each message of a round trip took longer than a look explains, either the link was busy all that time, and what it carried then is its rate,
//!   whatever older samples say; or the way has become longer. The next message finds an empty link, and tells.
//!
//! A round trip takes longer by what the message itself, and those before it, occupy the link. They are counted as a part of [`QUEUE_TIME`], for half
//! of it at most: what may be unacknowledged is then always enough to reach more than the rate that is believed, so that a wrong estimate grows.

use std::time::Duration;

use crate::message::PART_BYTES_MIN;

use super::sender::{BYTES_MAX, PART_BYTES_MAX};

/// How long the link may be occupied by what is unacknowledged beyond what it holds by itself: the longest that an alert waits behind other
/// messages, beside a round trip. One part of the longest kind.
pub const QUEUE_TIME: Duration = Duration::from_millis(500);
/// How long a message may occupy the link. Acknowledgements come message by message: with two in [`QUEUE_TIME`] one is being carried while the
/// other is acknowledged and replaced.
pub const PART_TIME: Duration = Duration::from_millis(250);
/// The first messages of a connection, before anything was acknowledged: a quarter of a second at 16 kbit/s, the slowest link that is foreseen.
const FIRST_PART_BYTES: usize = 500;
/// How much of them may be unacknowledged.
const FIRST_BYTES: u64 = 2 * FIRST_PART_BYTES as u64;
/// While the rate grows, so much of what the link is believed to hold may be unacknowledged, so that it grows with each round trip, as in the start-up
/// of BBR (section 4.3.1, `BBR.StartupCwndGain`: 2). An alert waits for what is too much of it, which at a round trip of 2 s is 1.5 s.
const LOOK_GAIN: f64 = 1.75;
/// The rate has grown if it did by this much in a round trip, and the link is known when it did not in so many (section 4.3.1.2, `full_bw`).
const GROWTH: f64 = 1.25;
const FLAT_ROUNDS: u32 = 3;
/// One of so many round trips looks for a faster link in the same way, by [`LOOK_GAIN`]. BBR does so by a quarter (section 4.3.3, `ProbeBW_UP`), above a
/// window of twice what the link holds; the window here is half as long, so that round trips that are longer than the shortest by their jitter must be
/// made up for: several such looks lie within the time that a rate counts, so that it sinks slowly at most while round trips take up to twice as long.
const LOOK_EVERY_ROUNDS: u32 = 4;
/// How many round trips a sample of the rate counts, roughly, each with the queue that is allowed; BBR has ten. The newest half of them and the half
/// before are kept.
const RATE_ROUNDS: u32 = 10;
/// How old the shortest round trip may be before a new one is looked for, as in BBR (section 2.5, `MinRTTFilterLen`, 10 s), and at least so many round
/// trips: the pause lasts one, so that it costs 2 % of the link's time at most.
const ROUND_TRIP_AGE: Duration = Duration::from_secs(10);
const ROUND_TRIP_AGE_ROUNDS: u32 = 50;

/// What is known of the link.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LinkEstimate {
    /// What it carries, in bytes a second, headers included ([`super::wire`]).
    pub rate: f64,
    /// The shortest round trip of the newest ones, that of the message itself included.
    pub round_trip_min: Duration,
    /// How many bytes may be unacknowledged.
    pub window_bytes: u64,
    /// How many are.
    pub unacknowledged_bytes: u64,
}

/// The estimate of one connection. Another connection may take another path, and begins anew.
#[derive(Debug)]
pub(super) struct Estimate {
    /// Bytes that were acknowledged, and when the last of them were.
    delivered: u64,
    delivered_at: Duration,
    in_flight: u64,
    /// What may be unacknowledged at most: what was acknowledged without having found a queue, and the first messages. Of no account after some seconds.
    grown: u64,
    /// When the message was sent that was acknowledged last.
    first_sent_at: Duration,
    /// What is sent is not held back by the link until so much is delivered.
    limited_to: u64,
    /// The highest rate of the newest samples, and of those before, in bytes per second.
    rates: [f64; 2],
    rates_turn_at: Duration,
    round_trip_min: Option<Duration>,
    /// When it was seen, and how long the message was with those before it.
    round_trip_at: Duration,
    round_trip_bytes: u64,
    round_trip_last: Duration,
    /// Whether a message is on its way that found no queue, while the shortest round trip is old.
    is_probing: bool,
    /// The round trip ends when what was sent now is acknowledged.
    round_ends_at: u64,
    /// Of the messages of this round trip: the highest rate, and whether each has found a queue.
    round_rate: f64,
    all_queued: bool,
    seeking: bool,
    flat_rounds: u32,
    rounds: u32,
    /// The rate that growth is compared with.
    reached: f64,
}

/// What is noted of a message when it is sent.
#[derive(Clone, Copy, Debug)]
pub(super) struct Departure {
    bytes: u64,
    /// What was unacknowledged then, this message included.
    in_flight: u64,
    at: Duration,
    delivered: u64,
    delivered_at: Duration,
    first_sent_at: Duration,
    is_limited: bool,
    is_alone: bool,
}

impl Default for Estimate {
    fn default() -> Self {
        Self {
            delivered: 0,
            delivered_at: Duration::ZERO,
            in_flight: 0,
            grown: FIRST_BYTES,
            first_sent_at: Duration::ZERO,
            limited_to: 0,
            rates: [0.0; 2],
            rates_turn_at: Duration::ZERO,
            round_trip_min: None,
            round_trip_at: Duration::ZERO,
            round_trip_bytes: 0,
            round_trip_last: Duration::ZERO,
            is_probing: false,
            round_ends_at: 0,
            round_rate: 0.0,
            all_queued: true,
            seeking: true,
            flat_rounds: 0,
            rounds: 0,
            reached: 0.0,
        }
    }
}

impl Estimate {
    /// A message is sent.
    pub(super) fn depart(&mut self, bytes: u64, now: Duration) -> Departure {
        let is_alone = self.in_flight == 0;
        if is_alone {
            (self.first_sent_at, self.delivered_at) = (now, now);
            self.is_probing = self.is_round_trip_old(now);
            // A look into an empty link would make a queue of all that goes at once.
            self.rounds = self.rounds.wrapping_add(u32::from(self.rounds.is_multiple_of(LOOK_EVERY_ROUNDS)));
        }
        self.in_flight += bytes;
        Departure {
            bytes,
            in_flight: self.in_flight,
            at: now,
            delivered: self.delivered,
            delivered_at: self.delivered_at,
            first_sent_at: self.first_sent_at,
            is_limited: self.limited_to > self.delivered,
            is_alone,
        }
    }

    /// A message was acknowledged, in whatever way: it was carried.
    pub(super) fn arrive(&mut self, sent: &Departure, now: Duration) {
        self.in_flight = self.in_flight.saturating_sub(sent.bytes);
        self.delivered += sent.bytes;
        self.delivered_at = now;
        self.first_sent_at = self.first_sent_at.max(sent.at);
        self.note_round_trip(sent, now);
        let sending = sent.at.saturating_sub(sent.first_sent_at);
        let acknowledging = now.saturating_sub(sent.delivered_at);
        let seconds = sending.max(acknowledging).as_secs_f64();
        if seconds > 0.0 {
            self.note_rate((self.delivered - sent.delivered) as f64 / seconds, sent.is_limited, now);
        }
        if sent.delivered >= self.round_ends_at {
            self.round_ends_at = self.delivered + self.in_flight;
            if !sent.is_limited {
                self.end_round();
            }
            (self.round_rate, self.all_queued) = (0.0, true);
        }
    }

    /// Something else than the link holds messages back now.
    pub(super) fn note_limit(&mut self) {
        self.limited_to = (self.delivered + self.in_flight).max(self.delivered + 1);
    }

    /// What may be unacknowledged, in bytes.
    pub(super) fn window_bytes(&self) -> u64 {
        let (rate, Some(round_trip)) = (self.rate(), self.round_trip_min) else { return FIRST_BYTES };
        if rate == 0.0 {
            return FIRST_BYTES;
        }
        let queue = self.queue_bytes();
        let counted = self.round_trip_bytes.min(queue / 2) as f64;
        let held = (rate * round_trip.as_secs_f64() - counted).max(0.0);
        let looks =
            self.seeking || !self.found_queue(self.round_trip_last) && self.rounds.is_multiple_of(LOOK_EVERY_ROUNDS);
        let gain = if looks { LOOK_GAIN } else { 1.0 };
        ((gain * held) as u64 + queue).min(self.grown).min(BYTES_MAX as u64)
    }

    /// Whether a message that took so long found more before it than a look leaves in the link.
    fn found_queue(&self, took: Duration) -> bool {
        self.round_trip_min.is_some_and(|shortest| took > shortest * 2 + QUEUE_TIME)
    }

    /// What may be unacknowledged once an alert is: it need not wait for an acknowledgement, which may be a round trip away.
    pub(super) fn alert_window_bytes(&self) -> u64 {
        (self.window_bytes() + self.queue_bytes()).min(BYTES_MAX as u64)
    }

    /// What the link carries in [`QUEUE_TIME`].
    fn queue_bytes(&self) -> u64 {
        let bytes = (self.rate() * QUEUE_TIME.as_secs_f64()) as u64;
        bytes.clamp(2 * PART_BYTES_MIN as u64, 2 * PART_BYTES_MAX as u64)
    }

    /// How long a part of a frame may be, in bytes.
    pub(super) fn part_bytes(&self) -> usize {
        match self.rate() {
            0.0 => FIRST_PART_BYTES,
            rate => {
                let bytes = ((rate * PART_TIME.as_secs_f64()) as u64).min(self.grown / 2);
                (bytes as usize).clamp(PART_BYTES_MIN, PART_BYTES_MAX)
            }
        }
    }

    /// Whether to send nothing that can wait until all is acknowledged, to see how long a round trip takes without a queue.
    pub(super) fn wants_quiet(&self, now: Duration) -> bool {
        self.in_flight > 0 && !self.is_probing && self.is_round_trip_old(now)
    }

    /// What is unacknowledged, in bytes.
    pub(super) fn in_flight(&self) -> u64 {
        self.in_flight
    }

    /// What is known.
    pub(super) fn shown(&self) -> Option<LinkEstimate> {
        let (rate, round_trip_min) = (self.rate(), self.round_trip_min?);
        let (window_bytes, unacknowledged_bytes) = (self.window_bytes(), self.in_flight);
        (rate > 0.0).then_some(LinkEstimate { rate, round_trip_min, window_bytes, unacknowledged_bytes })
    }

    /// Bytes a second; 0 where nothing is known yet.
    fn rate(&self) -> f64 {
        self.rates[0].max(self.rates[1])
    }

    fn is_round_trip_old(&self, now: Duration) -> bool {
        self.round_trip_min.is_some_and(|round_trip| {
            now.saturating_sub(self.round_trip_at) > ROUND_TRIP_AGE.max(round_trip * ROUND_TRIP_AGE_ROUNDS)
        })
    }

    fn note_round_trip(&mut self, sent: &Departure, now: Duration) {
        let took = now.saturating_sub(sent.at);
        self.round_trip_last = took;
        let found_queue = self.found_queue(took);
        self.all_queued &= found_queue;
        self.grown += if found_queue { 0 } else { sent.bytes };
        let is_news = sent.is_alone && self.is_round_trip_old(now);
        if is_news || self.round_trip_min.is_none_or(|shortest| took <= shortest) {
            (self.round_trip_min, self.round_trip_at, self.round_trip_bytes) = (Some(took), now, sent.in_flight);
            self.is_probing = false;
        }
    }

    fn note_rate(&mut self, rate: f64, is_limited: bool, now: Duration) {
        self.round_rate = self.round_rate.max(rate);
        if is_limited && rate < self.rate() {
            return;
        }
        if now >= self.rates_turn_at {
            let round = self.round_trip_min.unwrap_or_default() + QUEUE_TIME;
            self.rates_turn_at = now + round * (RATE_ROUNDS / 2);
            self.rates = [0.0, self.rates[0]];
        }
        self.rates[0] = self.rates[0].max(rate);
    }

    fn end_round(&mut self) {
        self.rounds = self.rounds.wrapping_add(1);
        if self.all_queued && self.round_rate > 0.0 {
            self.rates = [self.round_rate; 2];
            // Or the way has become longer: a message that finds no queue tells.
            self.round_trip_at = Duration::ZERO;
        }
        let rate = self.rate();
        if rate >= self.reached * GROWTH {
            (self.seeking, self.flat_rounds) = (true, 0);
            self.reached = rate;
            return;
        }
        self.flat_rounds += 1;
        if self.flat_rounds >= FLAT_ROUNDS {
            self.seeking = false;
            self.reached = rate;
        }
    }
}
