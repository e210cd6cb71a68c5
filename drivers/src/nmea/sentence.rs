//! Sentences of NMEA 0183 (version 4.11, chapter 5): the frame, its checksum, and fields.

use crate::payload::Reason;

/// How many decimals of a minute of arc count: 10⁻¹⁰ of one is a fifth of a micrometre on the ground.
const MINUTE_DECIMALS_MAX: usize = 10;
/// As how many decimals of a minute fewer ones are taken, so that degrees have at least seven.
const MINUTE_DECIMALS_MIN: u32 = 4;
/// How many decimals degrees have more than minutes: enough that no two positions become one, and no more, because frames and
/// readers pay for every digit.
const DEGREE_DECIMALS_MORE: u32 = 3;
/// How many digits a number may have: what an `i64` holds in any case.
const DIGITS_MAX: usize = 18;
/// Nanoseconds of a second.
const SECOND: u64 = 1_000_000_000;

/// What a line holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Found<'l> {
    /// A sentence.
    Sentence(Sentence<'l>),
    /// An encapsulated sentence, which begins with `!`: AIS (ITU-R M.1371).
    Encapsulated,
}

/// A sentence, taken apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Sentence<'l> {
    /// Talker and formatter: `GPGGA`.
    pub(super) address: &'l str,
    fields: Vec<&'l str>,
}

/// A field holds what it must not hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct BadField;

/// The sentence that a line ends with, or why there is none (`not_nmea`, `no_checksum`, `bad_checksum`); and whether something else
/// stands before a sentence: noise, or one that was cut short. A sentence begins at the last `$` or `!`, which may be doubled, and may
/// follow a tag block (`\…\`).
pub(super) fn find(line: &[u8], checksum_required: bool) -> (Result<Found<'_>, Reason>, bool) {
    let Some(start) = line.iter().rposition(|byte| matches!(byte, b'$' | b'!')) else {
        return (Err("not_nmea"), false);
    };
    let (before, sentence) = line.split_at(start);
    let is_tag_block = before.len() > 1 && before.starts_with(b"\\") && before.ends_with(b"\\");
    let is_doubled = before.iter().all(|byte| *byte == b'$');
    match parse(sentence, checksum_required) {
        found if is_tag_block || is_doubled => (found, false),
        Ok(found) => (Ok(found), true),
        Err(_) => (Err("not_nmea"), false),
    }
}

fn parse(sentence: &[u8], checksum_required: bool) -> Result<Found<'_>, Reason> {
    let text = std::str::from_utf8(sentence).map_err(|_| "not_nmea")?.trim_ascii_end();
    let (body, checksum) = match text.rsplit_once('*') {
        Some((body, checksum)) => (body, Some(checksum).filter(|checksum| !checksum.is_empty())),
        None => (text, None),
    };
    let is_encapsulated = body.starts_with('!');
    let body = body.get(1..).unwrap_or_default();
    match checksum {
        Some(checksum) => {
            let sum = body.bytes().fold(0, |sum, byte| sum ^ byte);
            let is_right = checksum.len() == 2 && u8::from_str_radix(checksum, 16) == Ok(sum);
            is_right.then_some(()).ok_or("bad_checksum")?;
        }
        None if checksum_required => return Err("no_checksum"),
        None => {}
    }
    let mut fields = body.split(',');
    let address = fields.next().unwrap_or_default();
    if address.is_empty() || !address.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
        return Err("not_nmea");
    }
    match is_encapsulated {
        true => Ok(Found::Encapsulated),
        false => Ok(Found::Sentence(Sentence { address, fields: fields.collect() })),
    }
}

impl<'l> Sentence<'l> {
    /// The kind of sentence, whoever talks: `GGA`. Empty for sentences of a manufacturer, which begin with `P`.
    pub(super) fn formatter(&self) -> &'l str {
        if self.address.starts_with('P') { "" } else { self.address.get(2..).unwrap_or_default() }
    }

    /// A field, from 1 as the standard counts; empty where there is none.
    pub(super) fn field(&self, number: usize) -> &'l str {
        number
            .checked_sub(1)
            .and_then(|index| self.fields.get(index))
            .map(|field| field.trim_ascii())
            .unwrap_or_default()
    }

    /// A number; `None` for an empty field.
    pub(super) fn number(&self, number: usize) -> Result<Option<f64>, BadField> {
        let text = self.field(number);
        not_empty(text, |text| Decimal::parse(text).and_then(|_| text.parse().ok()))
    }

    /// A number without decimals that is not negative.
    pub(super) fn count(&self, number: usize) -> Result<Option<i64>, BadField> {
        let whole = |text: &str| Decimal::parse(text).filter(|number| number.decimals == 0 && number.digits >= 0);
        not_empty(self.field(number), |text| whole(text).map(|number| number.digits))
    }

    /// A position in degrees, north and east positive, from latitude, `N` or `S`, longitude, `E` or `W` in the fields from this on.
    pub(super) fn position(&self, from: usize) -> Result<Option<(f64, f64)>, BadField> {
        let angle = |at: usize, positive, negative, limit| {
            not_empty(self.field(at), |text| match self.field(at + 1) {
                hemisphere if hemisphere == positive => degrees(text, false, limit),
                hemisphere if hemisphere == negative => degrees(text, true, limit),
                _ => None,
            })
        };
        let latitude = angle(from, "N", "S", 90)?;
        let longitude = angle(from + 2, "E", "W", 180)?;
        Ok(latitude.zip(longitude))
    }

    /// A time of day, `hhmmss.ss`, in nanoseconds; a leap second belongs to the next day.
    pub(super) fn time_of_day(&self, number: usize) -> Result<Option<u64>, BadField> {
        not_empty(self.field(number), |text| {
            let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
            if whole.len() != 6
                || fraction.len() > 9
                || !whole.bytes().chain(fraction.bytes()).all(|b| b.is_ascii_digit())
            {
                return None;
            }
            let two = |from: usize| whole.get(from..from + 2).and_then(|digits| digits.parse::<u64>().ok());
            let (hours, minutes, seconds) = (two(0)?, two(2)?, two(4)?);
            let nanos = format!("{fraction:0<9}").parse::<u64>().ok()?;
            (hours < 24 && minutes < 60 && seconds <= 60)
                .then_some((hours * 3600 + minutes * 60 + seconds) * SECOND + nanos)
        })
    }

    /// A speed in metres a second, with three decimals more than the number in its own unit has, as positions.
    pub(super) fn speed(&self, number: usize, unit: Speed) -> Result<Option<f64>, BadField> {
        not_empty(self.field(number), |text| {
            let Decimal { digits, decimals } = Decimal::parse(text).filter(|number| number.digits >= 0)?;
            let decimals = decimals + DEGREE_DECIMALS_MORE;
            let (numerator, denominator) = unit.ratio();
            let scaled = i128::from(digits) * 1000 * numerator * 2 / denominator;
            quotient(i64::try_from((scaled + 1) / 2).ok()?, decimals)
        })
    }
}

/// A unit of speed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Speed {
    /// Nautical miles an hour: 1852 m in 3600 s.
    Knots,
    /// Kilometres an hour.
    KilometresAnHour,
}

impl Speed {
    fn ratio(self) -> (i128, i128) {
        match self {
            Self::Knots => (1852, 3600),
            Self::KilometresAnHour => (1000, 3600),
        }
    }
}

fn not_empty<T>(text: &str, parse: impl FnOnce(&str) -> Option<T>) -> Result<Option<T>, BadField> {
    if text.is_empty() { Ok(None) } else { parse(text).map(Some).ok_or(BadField) }
}

/// A decimal number, exactly: `digits` × 10^−`decimals`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Decimal {
    digits: i64,
    decimals: u32,
}

impl Decimal {
    /// Digits with at most one point and one sign; no exponent, no `inf`.
    fn parse(text: &str) -> Option<Self> {
        let (is_negative, text) = match text.strip_prefix('-') {
            Some(rest) => (true, rest),
            None => (false, text.strip_prefix('+').unwrap_or(text)),
        };
        let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
        let length = whole.len() + fraction.len();
        if !(1..=DIGITS_MAX).contains(&length) {
            return None;
        }
        let mut digits = 0;
        for byte in whole.bytes().chain(fraction.bytes()) {
            digits = digits * 10 + i64::from(byte.is_ascii_digit().then(|| byte - b'0')?);
        }
        let decimals = u32::try_from(fraction.len()).ok()?;
        Some(Self { digits: if is_negative { -digits } else { digits }, decimals })
    }
}

/// The degrees of `dddmm.mmmm`, rounded to [`DEGREE_DECIMALS_MORE`] decimals more than the minutes have; `None` for minutes of 60 or
/// more, and beyond `limit` degrees.
fn degrees(text: &str, is_negative: bool, limit: i64) -> Option<f64> {
    let cut = text.find('.').map_or(text.len(), |point| text.len().min(point + 1 + MINUTE_DECIMALS_MAX));
    let Decimal { mut digits, mut decimals } = Decimal::parse(text.get(..cut)?)?;
    while decimals < MINUTE_DECIMALS_MIN {
        (digits, decimals) = (digits.checked_mul(10)?, decimals + 1);
    }
    let minute = 10_i64.pow(decimals);
    let (whole, minutes) = (digits / (100 * minute), digits % (100 * minute));
    if digits < 0 || minutes >= 60 * minute || whole > limit || (whole == limit && minutes > 0) {
        return None;
    }
    // A sixtieth of a thousand is 50/3, and thirds are never halves: there is no tie to break.
    let thousandths = ((whole * 60 * minute + minutes) * 50 + 1) / 3;
    quotient(if is_negative { -thousandths } else { thousandths }, decimals + DEGREE_DECIMALS_MORE)
}

/// `digits` × 10^−`decimals` as the nearest float: both sides of the division are exact up to 2^53 and 10^22. `None` beyond.
fn quotient(digits: i64, decimals: u32) -> Option<f64> {
    let power = 10_i64.checked_pow(decimals)?;
    (digits.unsigned_abs() <= 1 << 53).then_some(digits as f64 / power as f64)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn with_checksum(body: &str) -> String {
        format!("${body}*{:02X}", body.bytes().fold(0, |sum, byte| sum ^ byte))
    }

    fn sentence(line: &str) -> Result<Sentence<'_>, Reason> {
        match find(line.as_bytes(), true).0? {
            Found::Sentence(sentence) => Ok(sentence),
            Found::Encapsulated => panic!("{line}"),
        }
    }

    #[test]
    fn sentences_are_found_in_what_stands_around_them() {
        let line = with_checksum("GPGLL,4808.9985,N,01135.0867,E,164516.99,A,A");
        let lower = line.to_ascii_lowercase().replace("gpgll", "GPGLL").replace(",n,", ",N,");
        let lower = lower.replace(",e,", ",E,").replace("a,a", "A,A");
        assert_eq!(sentence(&line).unwrap().formatter(), "GLL");
        for (before, is_noise) in
            [("", false), ("$", false), ("\\s:x,c:1*11\\", false), ("$GPRM", true), ("\u{fffd}", true)]
        {
            let line = format!("{before}{line}");
            let (found, noise) = find(line.as_bytes(), true);
            assert!(matches!(found, Ok(Found::Sentence(_))) && noise == is_noise, "{line}");
        }
        assert!(sentence(&lower).is_ok(), "hexadecimal in lower case: {lower}");
        assert!(sentence(&format!("{line} \r")).is_ok());
        for (line, reason) in [
            ("# GPS", "not_nmea"),
            ("", "not_nmea"),
            ("$", "no_checksum"),
            ("$GPBOD,,T,,M,,*", "no_checksum"),
            ("$GPBOD,,T,,M,,*4", "bad_checksum"),
            ("$GPBOD,,T,,M,,*48", "bad_checksum"),
            ("$GPBOD,,T,,M,,*47x", "bad_checksum"),
            ("$*00", "not_nmea"),
            ("# Notes: $GPGSV for GPS", "not_nmea"),
        ] {
            assert_eq!(find(line.as_bytes(), true).0, Err(reason), "{line}");
        }
        assert!(matches!(find(b"$GPBOD,,T", false).0, Ok(Found::Sentence(_))));
        assert_eq!(find(b"$GPBOD*00", false).0, Err("bad_checksum"));
        assert_eq!(find(b"!AIVDM,1,1,,A,14eG;o@034o8sd<L9i:a;WF>062D,0*7D", true).0, Ok(Found::Encapsulated));
        assert_eq!(sentence(&with_checksum("PGRMZ,246,f,3")).unwrap().formatter(), "");
    }

    #[test]
    fn positions_are_rounded_where_their_digits_end() {
        let position = |fields: &str| sentence(&with_checksum(&format!("GPXXX,{fields}"))).unwrap().position(1);
        for (fields, latitude, longitude) in [
            ("4808.9985,N,01135.0867,E", 48.149975, 11.5847783),
            ("2712.6404,S,15303.1201,E", -27.2106733, 153.0520017),
            ("5119.881,N,00125.169,W", 51.33135, -1.4194833),
            ("4134.49795459,N,09345.03431408,W", 41.57496590983, -93.75057190133),
            ("00,N,000,W", 0.0, 0.0),
            ("9000.0,S,18000,W", -90.0, -180.0),
            ("0000.00001,N,00000.12345678901234,E", 0.00000017, 0.00205761315),
        ] {
            let found = position(fields).unwrap().unwrap();
            assert_eq!(found, (latitude, longitude), "{fields}");
            assert!(found.0.is_sign_positive() || found.0 < 0.0, "no negative zero");
        }
        assert_eq!(position(",N,01135.0867,E"), Ok(None));
        assert_eq!(position(",,,"), Ok(None));
        for fields in [
            "9000.0001,N,000,E",
            "4860.0,N,000,E",
            "4808.9,,000,E",
            "4808.9,E,000,E",
            "48x8.9,N,000,E",
            "1e3,N,000,E",
            "-4808.9,N,000,E",
            "4808.9,N,18000.1,E",
            "99999999999999999999,N,000,E",
        ] {
            assert_eq!(position(fields), Err(BadField), "{fields}");
        }
    }

    #[test]
    fn numbers_times_and_speeds_are_read() {
        let line = with_checksum("GPXXX,-33.9,07,164516.99,235960,0.69,2.6, 8 ,nan,1.5,250000,12345,,00.");
        let sentence = sentence(&line).unwrap();
        assert_eq!((sentence.number(1), sentence.count(2)), (Ok(Some(-33.9)), Ok(Some(7))));
        assert_eq!(sentence.time_of_day(3), Ok(Some(60_316_990_000_000)));
        assert_eq!(sentence.time_of_day(4), Ok(Some(86_400 * SECOND)));
        assert_eq!(sentence.speed(5, Speed::Knots), Ok(Some(0.35497)));
        assert_eq!(sentence.speed(6, Speed::KilometresAnHour), Ok(Some(0.7222)));
        assert_eq!((sentence.count(7), sentence.count(9)), (Ok(Some(8)), Err(BadField)));
        assert_eq!((sentence.number(8), sentence.speed(1, Speed::Knots)), (Err(BadField), Err(BadField)));
        assert_eq!((sentence.time_of_day(10), sentence.time_of_day(11)), (Err(BadField), Err(BadField)));
        assert_eq!(
            (sentence.number(12), sentence.number(13), sentence.number(99)),
            (Ok(None), Ok(Some(0.0)), Ok(None))
        );
    }

    proptest! {
        #[test]
        fn degrees_are_within_half_a_step_of_the_exact_value(
            whole in 0_i64..90, minutes in 0_i64..60, fraction in "[0-9]{0,8}",
        ) {
            let text = format!("{whole:02}{minutes:02}.{fraction}");
            let exact = whole as f64 + format!("{minutes}.{fraction}").parse::<f64>().unwrap() / 60.0;
            let decimals = i32::try_from(fraction.len().max(4) + 3).unwrap();
            let found = degrees(&text, false, 90).unwrap();
            prop_assert!((found - exact).abs() <= 0.5000001 * 10_f64.powi(-decimals) + 1e-13, "{} {}", found, exact);
            // What is printed has no digits beyond those that count.
            let printed = found.to_string();
            let printed = printed.split_once('.').map_or(0, |(_, digits)| digits.len());
            prop_assert!(printed <= decimals.unsigned_abs() as usize);
        }

        #[test]
        fn any_bytes_give_an_answer(line in prop::collection::vec(any::<u8>(), 0..100), required in any::<bool>()) {
            if let (Ok(Found::Sentence(sentence)), _) = find(&line, required) {
                let _ = (sentence.position(1), sentence.time_of_day(1), sentence.number(1), sentence.count(1));
                let _ = sentence.speed(1, Speed::Knots);
            }
        }
    }
}
