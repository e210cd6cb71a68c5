//! What a sentence says of the eight series, and which of it is new: receivers say the same in several sentences of one epoch.

use std::time::Duration;

use rtlive_core::reading::Value;
use rtlive_core::time::Timestamp;

use super::sentence::{BadField, Sentence, Speed};

/// The series below the input's name, and their units.
pub(super) const SERIES: [(&str, Option<&str>); 8] = [
    ("latitude", Some("deg")),
    ("longitude", Some("deg")),
    ("altitude", Some("m")),
    ("speed", Some("m/s")),
    ("course", Some("deg")),
    ("satellites", None),
    ("hdop", None),
    ("fix", None),
];

/// How many sentences of different addresses an epoch may have; receivers of all constellations send a dozen of the kinds that are
/// read.
const ADDRESSES_MAX: usize = 64;

/// What one sentence says, in the order of [`SERIES`].
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Observation {
    /// The time of day of the epoch, in nanoseconds.
    time_of_day: Option<u64>,
    /// Whether there is a fix; `None` for sentences that do not say so.
    is_valid: Option<bool>,
    /// Whether the sentence comes once in an epoch, so that the next of its address opens another.
    comes_once: bool,
    /// Whether `fix` is the quality itself, and not made of a status.
    has_quality: bool,
    position: Option<(f64, f64)>,
    altitude: Option<f64>,
    speed: Option<f64>,
    course: Option<f64>,
    satellites: Option<i64>,
    hdop: Option<f64>,
    fix: Option<i64>,
}

/// What a sentence says; `None` for one that says nothing of the series.
pub(super) fn observe(sentence: &Sentence<'_>) -> Option<Result<Observation, BadField>> {
    match sentence.formatter() {
        "GGA" => Some(gga(sentence)),
        "GNS" => Some(gns(sentence)),
        "RMC" => Some(rmc(sentence)),
        "GLL" => Some(gll(sentence)),
        "VTG" => Some(vtg(sentence)),
        "GSA" => Some(gsa(sentence)),
        "ZDA" => Some(zda(sentence)),
        _ => None,
    }
}

/// Fix data of one system, whose quality is a number.
fn gga(sentence: &Sentence<'_>) -> Result<Observation, BadField> {
    let fix = sentence.count(6)?;
    fix_data(sentence, fix)
}

/// Fix data of several systems, with a mode for each.
fn gns(sentence: &Sentence<'_>) -> Result<Observation, BadField> {
    let fix = sentence.field(6).chars().filter_map(quality_of_mode).max_by_key(|quality| preference(*quality));
    fix_data(sentence, fix)
}

/// Time, position, satellites, HDOP, altitude above mean sea level: the fields that GGA and GNS share.
fn fix_data(sentence: &Sentence<'_>, fix: Option<i64>) -> Result<Observation, BadField> {
    Ok(Observation {
        time_of_day: sentence.time_of_day(1)?,
        is_valid: Some(fix.is_some_and(|quality| quality > 0)),
        comes_once: true,
        has_quality: true,
        position: sentence.position(2)?,
        satellites: sentence.count(7)?,
        hdop: sentence.number(8)?,
        altitude: sentence.number(9)?,
        fix,
        ..Observation::default()
    })
}

/// The recommended minimum: time, status, position, speed, course.
fn rmc(sentence: &Sentence<'_>) -> Result<Observation, BadField> {
    let is_valid = sentence.field(2) == "A";
    Ok(Observation {
        time_of_day: sentence.time_of_day(1)?,
        is_valid: Some(is_valid),
        comes_once: true,
        position: sentence.position(3)?,
        speed: sentence.speed(7, Speed::Knots)?,
        course: sentence.number(8)?,
        fix: Some(quality_of_status(is_valid, sentence.field(12))),
        ..Observation::default()
    })
}

/// The position.
fn gll(sentence: &Sentence<'_>) -> Result<Observation, BadField> {
    let is_valid = sentence.field(6) == "A";
    Ok(Observation {
        time_of_day: sentence.time_of_day(5)?,
        is_valid: Some(is_valid),
        comes_once: true,
        position: sentence.position(1)?,
        fix: Some(quality_of_status(is_valid, sentence.field(7))),
        ..Observation::default()
    })
}

/// Course and speed over ground. Before version 2.3 it does not say whether they are valid.
fn vtg(sentence: &Sentence<'_>) -> Result<Observation, BadField> {
    let speed = match sentence.speed(5, Speed::Knots)? {
        Some(speed) => Some(speed),
        None => sentence.speed(7, Speed::KilometresAnHour)?,
    };
    let is_valid = (sentence.field(9) == "N").then_some(false);
    Ok(Observation { is_valid, comes_once: true, speed, course: sentence.number(1)?, ..Observation::default() })
}

/// Dilution of precision; one for each system in an epoch, which say the same.
fn gsa(sentence: &Sentence<'_>) -> Result<Observation, BadField> {
    let has_fix = matches!(sentence.field(2), "2" | "3");
    Ok(Observation { hdop: sentence.number(16)?.filter(|_| has_fix), ..Observation::default() })
}

/// The time: read for the epoch that it opens.
fn zda(sentence: &Sentence<'_>) -> Result<Observation, BadField> {
    Ok(Observation { time_of_day: sentence.time_of_day(1)?, comes_once: true, ..Observation::default() })
}

/// Date and time of an RMC whose position was measured by satellites, in this century.
pub(super) fn date_and_time(sentence: &Sentence<'_>) -> Option<Timestamp> {
    let has_fix = sentence.field(2) == "A" && (1..=5).contains(&quality_of_status(true, sentence.field(12)));
    if sentence.formatter() != "RMC" || !has_fix {
        return None;
    }
    let time_of_day = sentence.time_of_day(1).ok()??;
    let date = sentence.field(9);
    let (day, month, year) = (date.get(0..2)?, date.get(2..4)?, date.get(4..)?);
    let midnight: Timestamp = format!("20{year}-{month}-{day}T00:00:00Z").parse().ok()?;
    Some(midnight.saturating_add(Duration::from_nanos(time_of_day)))
}

/// The quality of GGA for a mode indicator.
fn quality_of_mode(mode: char) -> Option<i64> {
    match mode {
        'N' => Some(0),
        'A' => Some(1),
        'D' => Some(2),
        'P' => Some(3),
        'R' => Some(4),
        'F' => Some(5),
        'E' => Some(6),
        'M' => Some(7),
        'S' => Some(8),
        _ => None,
    }
}

/// Of several systems' qualities the best one tells what the position is worth: fixed, float, differential, and then the others.
fn preference(quality: i64) -> i64 {
    match quality {
        4 => 8,
        5 => 7,
        3 => 6,
        2 => 5,
        1 => 4,
        0 => 0,
        // Estimated, manual, simulated.
        _ => 1,
    }
}

/// The quality of GGA for a status and, since version 2.3, a mode indicator: `V` leaves only what is no measurement.
fn quality_of_status(is_valid: bool, mode: &str) -> i64 {
    let quality = mode.chars().next().and_then(quality_of_mode);
    match is_valid {
        true => quality.unwrap_or(1),
        false => quality.filter(|quality| *quality >= 6).unwrap_or(0),
    }
}

/// Pure: lets each series through once in an epoch, and positions, speeds and the like only while there is a fix.
///
/// An epoch ends with a sentence of another time, or with one whose address was there already. Sentences without a time belong to
/// the epoch that is open.
#[derive(Debug, Default)]
pub(super) struct Epochs {
    time_of_day: Option<u64>,
    /// The addresses that were there, and whether the sentence told a time.
    addresses: Vec<(String, bool)>,
    is_said: [bool; SERIES.len()],
    /// What the last sentence that speaks of it said; `None` before the first.
    is_valid: Option<bool>,
    /// Whether the receiver sends a quality; then the status of other sentences, which is coarser, is no fix.
    has_quality: bool,
}

impl Epochs {
    /// Ends the open epoch if this observation, of a sentence with this address, is of another.
    pub(super) fn enter(&mut self, address: &str, observation: &Observation) {
        let is_another = matches!((self.time_of_day, observation.time_of_day), (Some(a), Some(b)) if a != b);
        let is_timed = observation.time_of_day.is_some();
        // A receiver that learns the time within an epoch ends none by it.
        let is_again = |(seen, was_timed): &(String, bool)| seen == address && (*was_timed || !is_timed);
        let is_again = observation.comes_once && self.addresses.iter().any(is_again);
        if is_another || is_again || self.addresses.len() == ADDRESSES_MAX {
            self.time_of_day = None;
            self.addresses.clear();
            self.is_said = Default::default();
        }
        self.time_of_day = self.time_of_day.or(observation.time_of_day);
        if observation.comes_once {
            self.addresses.push((address.to_owned(), is_timed));
        }
    }

    /// Gives what is new in an observation to `each`, as places in [`SERIES`] with their values. It must have been entered.
    pub(super) fn take(&mut self, observation: &Observation, mut each: impl FnMut(usize, Value)) {
        self.has_quality |= observation.has_quality;
        self.is_valid = observation.is_valid.or(self.is_valid);
        let is_valid = observation.is_valid.or(self.is_valid).unwrap_or(true);
        let Observation { position, altitude, speed, course, satellites, hdop, fix, .. } = *observation;
        let measured = |value: Option<f64>| value.filter(|_| is_valid).map(Value::Float);
        let fix = fix.filter(|_| observation.has_quality || !self.has_quality);
        let values = [
            measured(position.map(|(latitude, _)| latitude)),
            measured(position.map(|(_, longitude)| longitude)),
            measured(altitude),
            measured(speed),
            measured(course),
            satellites.map(Value::Int),
            measured(hdop),
            fix.map(Value::Int),
        ];
        for (place, (value, is_said)) in values.into_iter().zip(&mut self.is_said).enumerate() {
            if let Some(value) = value.filter(|_| !*is_said) {
                *is_said = true;
                each(place, value);
            }
        }
    }

    /// The time of day of the open epoch, in nanoseconds, where a sentence of it told one.
    pub(super) fn time_of_day(&self) -> Option<u64> {
        self.time_of_day
    }
}

#[cfg(test)]
mod tests {
    use super::super::sentence::{Found, find};
    use super::*;

    #[test]
    fn only_a_fix_by_satellites_tells_date_and_time() {
        let told = |text: &str| {
            let (Ok(Found::Sentence(sentence)), _) = find(text.as_bytes(), false) else { panic!("{text}") };
            date_and_time(&sentence).map(|time| time.to_string())
        };
        let rmc =
            |status: &str, date: &str, mode: &str| told(&format!("$GNRMC,235959.50,{status},,,,,,,{date},,,{mode}"));
        assert_eq!(rmc("A", "050226", "A").as_deref(), Some("2026-02-05T23:59:59.5Z"));
        assert_eq!(rmc("A", "290224", "").as_deref(), Some("2024-02-29T23:59:59.5Z"));
        for (status, date, mode) in
            [("V", "050226", "A"), ("A", "050226", "E"), ("A", "290223", "A"), ("A", "", "A"), ("A", "05é226", "A")]
        {
            assert_eq!(rmc(status, date, mode), None, "{status} {date} {mode}");
        }
        assert_eq!(told("$GPZDA,1036,06,03,2021,00,00"), None);
    }

    /// What is let through of sentences (without checksums), as `series value` in words.
    fn through(sentences: &[&str]) -> Vec<String> {
        let mut epochs = Epochs::default();
        let mut found = Vec::new();
        for text in sentences {
            let (Ok(Found::Sentence(sentence)), _) = find(text.as_bytes(), false) else { panic!("{text}") };
            let observation = observe(&sentence).unwrap().unwrap_or_else(|_| panic!("{text}"));
            epochs.enter(sentence.address, &observation);
            epochs.take(&observation, |place, value| {
                found.push(format!("{} {value}", SERIES[place].0));
            });
        }
        found
    }

    const POSITION: &str = "4404.1351,N,12118.8556,W";

    #[test]
    fn an_epoch_says_everything_once() {
        let gga = |time: &str, talker: &str| format!("${talker}GGA,{time},{POSITION},1,08,0.9,1123.9,M,-19.6,M,,");
        let rmc = |time: &str| format!("$GNRMC,{time},A,{POSITION},1.0,359.11,050219,,,A");
        let vtg = "$GNVTG,359.11,T,,M,1.0,N,,K,A".to_owned();
        let gsa = "$GNGSA,A,3,15,17,30,28,01,19,24,11,,,,,1.8,0.9,1.5".to_owned();
        let epoch = |time: &str| [gga(time, "GP"), gga(time, "GL"), gsa.clone(), gsa.clone(), vtg.clone(), rmc(time)];
        let (one, two) = (epoch("020935.000"), epoch("020936.000"));
        let sentences: Vec<&str> = one.iter().chain(&two).map(String::as_str).collect();
        let all = [
            "latitude 44.0689183",
            "longitude -121.3142600",
            "altitude 1123.9",
            "satellites 8",
            "hdop 0.9",
            "fix 1",
            "speed 0.5144",
            "course 359.11",
        ]
        .map(|text| text.replace("2600", "26"));
        let twice: Vec<String> = all.iter().chain(&all).cloned().collect();
        assert_eq!(through(&sentences), twice);
        // A time that stands still (a recording that is played in a circle) hides nothing: each round is an epoch.
        let circle: Vec<&str> = one.iter().chain(&one).map(String::as_str).collect();
        assert_eq!(through(&circle), twice);
    }

    #[test]
    fn without_a_fix_only_that_is_said() {
        assert_eq!(
            through(&[
                "$GPGGA,095257.809,2712.6404,S,15303.1201,E,0,00,00.0,4.0,M,42.2,M,,",
                "$GPRMC,095257.809,V,2712.6404,S,15303.1201,E,0.00,0.00,080407,,,A",
                "$GPVTG,0.00,T,,,0.00,N,0.00,K,A",
                "$GPGSA,A,1,,,,,,,,,,,,,99.9,99.9,99.9",
            ]),
            ["satellites 0", "fix 0"]
        );
        let silent = "$GPGGA,,,,,,0,,,,,,,,";
        assert_eq!(through(&[silent, "$GPRMC,,V,,,,,,,,,,N", silent]), ["fix 0", "fix 0"]);
        assert_eq!(through(&["$GPVTG,,T,,M,,N,,K,N", "$GPVTG,5,T,,M,,N,3.6,K,N"]), Vec::<String>::new());
        // The time is there before the epoch ends, and is gone when the next begins.
        let gll = |time: &str| format!("$GPGLL,{POSITION},{time},A,D");
        assert_eq!(
            through(&["$GPGLL,,,,,,V,N", "$GPRMC,200004,A,5504.4343,N,01025.5386,E,,,260810,,,D", &gll("200004")]),
            ["fix 0", "latitude 55.073905", "longitude 10.4256433"]
        );
        assert_eq!(through(&[&gll("200004"), "$GPGLL,,,,,,V,N"]).last().unwrap(), "fix 0");
        // One that sends nothing else is believed, as often as it speaks.
        assert_eq!(through(&["$VWVTG,,T,,M,,N,3.6,K"; 2]), ["speed 1", "speed 1"]);
    }

    #[test]
    fn the_fix_is_a_quality_of_gga_whatever_says_so() {
        for (sentence, fix) in [
            ("$GNGNS,191434.96,4404.1,N,12118.8,W,NRD,08,1.0,5.0,,,", "fix 4"),
            ("$GNGNS,191434.96,,,,,NNN,,,,,,", "fix 0"),
            ("$GPGGA,125106,,,,,8,,,,M,,M,,", "fix 8"),
            ("$GPRMC,125106,V,,,,,,,241011,10.5,W,S", "fix 8"),
            ("$INRMC,125106,A,,,,,,,241011,10.5,W", "fix 1"),
            ("$ECGLL,,,,,164326,A,D", "fix 2"),
            ("$GNRMC,125106,A,,,,,,,241011,,,F,V", "fix 5"),
        ] {
            assert_eq!(through(&[sentence]).last().unwrap(), fix, "{sentence}");
        }
        // The quality is finer than a status without a mode, and the only source once it is there.
        let gga = "$GPGGA,125106,,,,,2,,,,M,,M,,";
        assert_eq!(through(&[gga, "$GPRMC,125107,A,,,,,,,241011,,", gga]), ["fix 2", "fix 2"]);
    }

    #[test]
    fn what_no_field_may_hold_is_a_bad_field() {
        for text in [
            "$GNRMC,103607.00,A,5327.03942,N,00214.42462,W,XXXXX,,060321,,,A,V",
            "$GPGGA,103607.00,5327.03942,N,00214.42462,W,one,,,,,,,,",
            "$GPGLL,5327.03942,X,00214.42462,W,103607.00,A,A",
            "$GPZDA,1036,06,03,2021,00,00",
        ] {
            let (Ok(Found::Sentence(sentence)), _) = find(text.as_bytes(), false) else { panic!("{text}") };
            assert_eq!(observe(&sentence), Some(Err(BadField)), "{text}");
        }
        let (Ok(Found::Sentence(sentence)), _) = find(b"$GPGSV,3,2,10,16", false) else { panic!() };
        assert_eq!(observe(&sentence), None);
    }
}
