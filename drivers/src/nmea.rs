//! `nmea`: receivers of satellite navigation, and whatever else speaks NMEA 0183 on a serial line or over TCP.
//!
//! Wiring: RS-232 or RS-422 receivers need a converter, modules with 3.3 V outputs (NEO-6M and its like) go directly to the UART's
//! receive pin; USB receivers are `/dev/ttyACM0` or `/dev/ttyUSB0`. The standard's line is 4800 8N1, high-speed talkers and AIS use
//! 38400, most modules leave the factory with 9600.
//!
//! Read are GGA, GNS, RMC, GLL, VTG, GSA and ZDA of any talker. Of what several of them say of one epoch, the first counts, so
//! that every series has one reading an epoch. Positions, altitude, speed, course and HDOP are read only with a fix. Altitude is above
//! mean sea level, course is over ground from true north, `fix` is the quality of GGA: 0 none, 1 satellites, 2 differential, 3 PPS,
//! 4 RTK fixed, 5 RTK float, 6 estimated, 7 manual, 8 simulated. Satellites are those in use, of the first talker where several say so.
//!
//! A reading takes only the time of day from the receiver; its date is wrong by 1024 weeks in receivers that a week rollover caught. With a
//! fix, date and time of RMC are also what the agent's clock is set by where nothing else sets it, unless they lie before the program
//! was built.

mod observation;
mod sentence;

use std::time::Duration;

use rtlive_config::table::Table;
use rtlive_config::{choices, options};
use rtlive_core::time::Timestamp;

use crate::fields::Lines;
use crate::input::{CheckedInput, Decoder, Driver, Input, Running};
use crate::listen::listen;
use crate::outlet::Session;
use crate::port::{Port, PortOptions};
use observation::{Epochs, SERIES, date_and_time, observe};
use sentence::{Found, find};

/// The longest line: a sentence has 82 characters, those of manufacturers some hundred, and a tag block may stand before it.
const LINE_BYTES_MAX: usize = 1024;
const DAY: Duration = Duration::from_secs(86_400);
const HALF_A_DAY: Duration = Duration::from_secs(43_200);

/// The driver.
pub const DRIVER: Driver = Driver {
    name: "nmea",
    summary: "receivers of satellite navigation (NMEA 0183): position, altitude, speed, course, fix",
    example: r#"[inputs.gps]
driver = "nmea"
port = "/dev/ttyACM0"
baud = 9600
"#,
    options: || PortOptions::reference_with(NmeaOptions::reference()),
    check,
};

choices! {
    /// When a reading was.
    pub enum TimeOf {
        /// When its sentence arrived, by the gateway's clock.
        Arrival = "arrival",
        /// The time of day that the receiver tells, on the day that is nearest to the arrival; where it tells none, or the clock is not
        /// synchronised, the arrival.
        Receiver = "receiver",
    }
}

options! {
    /// A receiver of satellite navigation. Its series are `latitude`, `longitude`, `altitude` (m, above mean sea level), `speed` (m/s),
    /// `course`, `satellites`, `hdop` and `fix` (the quality of GGA, 0 for none).
    pub struct NmeaOptions {
        /// When a reading was.
        pub time: TimeOf = "arrival",
        /// Whether sentences without a checksum are taken. Wrong ones never are.
        pub checksum_optional: bool = false,
    }
}

fn check(table: &Table<'_>) -> Option<CheckedInput> {
    let port = PortOptions::read_part(table);
    let options = NmeaOptions::read_part(table);
    table.close();
    let (port, options) = (port?.check(table)?, options?);
    Some(CheckedInput {
        input: Box::new(NmeaInput { port, options }),
        polled: false,
        every: None,
        can_be_asked_again: false,
        series: SERIES.iter().map(|(name, _)| (*name).to_owned()).collect(),
        has_others: false,
        readings_per_second: None,
    })
}

/// An input, checked.
struct NmeaInput {
    port: Port,
    options: NmeaOptions,
}

impl Input for NmeaInput {
    fn run<'a>(&'a self, session: &'a mut Session) -> Running<'a> {
        Box::pin(async {
            let mut decoder = SentenceDecoder::new(&self.options);
            listen(&self.port, None, &mut decoder, session).await
        })
    }

    fn decoder(&self) -> Option<Box<dyn Decoder>> {
        Some(Box::new(SentenceDecoder::new(&self.options)))
    }
}

/// Decodes what a receiver says.
struct SentenceDecoder {
    lines: Lines,
    checksum_required: bool,
    time_of: TimeOf,
    epochs: Epochs,
}

impl SentenceDecoder {
    fn new(options: &NmeaOptions) -> Self {
        Self {
            lines: Lines::new(LINE_BYTES_MAX),
            checksum_required: !options.checksum_optional,
            time_of: options.time,
            epochs: Epochs::default(),
        }
    }
}

impl Decoder for SentenceDecoder {
    /// Counts sentences that are right as `sentences`, or `ais_sentences`, which are not read; what is no sentence is rejected:
    /// `not_nmea`, `no_checksum`, `bad_checksum`, `bad_field`, `line_too_long`.
    fn take(&mut self, bytes: &[u8], session: &mut Session) {
        let Self { lines, checksum_required, time_of, epochs } = self;
        let arrival = session.now();
        lines.take(bytes, |line| {
            if line.trim_ascii().is_empty() {
                return;
            }
            let (found, is_behind_noise) = find(line, *checksum_required);
            if is_behind_noise {
                session.reject("not_nmea", 1);
            }
            let sentence = match found {
                Ok(Found::Sentence(sentence)) => sentence,
                Ok(Found::Encapsulated) => return session.count("ais_sentences", 1),
                Err(reason) => return session.reject(reason, 1),
            };
            session.count("sentences", 1);
            match observe(&sentence) {
                Some(Ok(observation)) => {
                    epochs.enter(sentence.address, &observation);
                    if let Some(time) = date_and_time(&sentence) {
                        session.hear_time(time);
                    }
                    // The day is that of the gateway's clock, as long as that is known.
                    let told = match (*time_of, epochs.time_of_day()) {
                        (TimeOf::Receiver, Some(time_of_day)) if !session.is_clock_unsure() => {
                            Some(nearest(time_of_day, arrival))
                        }
                        _ => None,
                    };
                    epochs.take(&observation, |place, value| {
                        if let Some((name, unit)) = SERIES.get(place) {
                            let series = session.series(name, *unit, "");
                            match told {
                                Some(time) => session.read(series, time, value),
                                None => session.read_on_arrival(series, arrival, value),
                            }
                        }
                    });
                }
                Some(Err(_)) => session.reject("bad_field", 1),
                None => {}
            }
        });
        let too_long = std::mem::take(&mut lines.too_long);
        if too_long > 0 {
            session.reject("line_too_long", too_long);
        }
    }
}

/// A time of day, in nanoseconds, on the day that brings it nearest to the arrival.
fn nearest(time_of_day: u64, arrival: Timestamp) -> Timestamp {
    let today = arrival.floor(DAY).saturating_add(Duration::from_nanos(time_of_day));
    if today.since(arrival) > HALF_A_DAY {
        today.saturating_sub(DAY)
    } else if arrival.since(today) > HALF_A_DAY {
        today.saturating_add(DAY)
    } else {
        today
    }
}

#[cfg(test)]
mod tests;
