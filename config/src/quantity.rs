//! Quantities: numbers with the unit that they are written with.

use std::time::Duration;

use crate::table::Value;
use crate::value::{Setting, or_wrong, parse};

/// The longest span: 100 years, so that a sum with any time of this century stays in range.
const SPAN_MAX: Duration = Duration::from_secs(100 * 365 * 86_400);

/// A span of time, zero included: `"10s"`, `"300ms"`, `"1h30m"`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Span(pub Duration);

/// A span of time longer than zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Period(pub Duration);

/// How often windows begin: a span longer than zero, or months of the calendar.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// `"10s"`, `"1d"`.
    Span(Duration),
    /// `"1mo"`, `"3mo"`.
    Months(u16),
}

/// A number of bytes: `"64 KiB"`, `"1 MB"`, `"512 B"`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ByteCount(pub u64);

/// A part of a whole in whole hundredths: `"20 %"`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Percent(pub u8);

/// Bits per second: `"64 kbit/s"`, `"8 kB/s"`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Rate {
    /// Bits per second.
    pub bits_per_second: u64,
}

/// Bytes in a calendar interval: `"500 MB/month"`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Budget {
    /// How many bytes.
    pub bytes: u64,
    /// In which interval.
    pub interval: BudgetInterval,
}

/// The interval of a [`Budget`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum BudgetInterval {
    /// A day of UTC.
    Day,
    /// A calendar month of UTC.
    Month,
}

/// A text that is no [`Span`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected a span such as \"10s\", \"300ms\" or \"15m\", found {0:?}")]
pub struct NotASpan(String);

impl std::str::FromStr for Span {
    type Err = NotASpan;

    fn from_str(text: &str) -> Result<Self, NotASpan> {
        parse_span(text).map(Self).ok_or_else(|| NotASpan(text.to_owned()))
    }
}

impl Setting for Span {
    fn expected() -> String {
        "a span such as \"10s\", \"300ms\" or \"15m\"".into()
    }

    fn read(value: &Value<'_>) -> Option<Self> {
        if let Some(number) = value.as_number() {
            value.mistake(Self::expected(), format!("{number} without a unit"));
            return None;
        }
        parse(value, |text| parse_span(text).map(Self))
    }
}

impl Setting for Period {
    fn expected() -> String {
        "a span longer than zero, such as \"10s\"".into()
    }

    fn read(value: &Value<'_>) -> Option<Self> {
        let span = Span::read(value)?;
        or_wrong(value, (!span.0.is_zero()).then_some(Self(span.0)))
    }
}

impl Setting for Step {
    fn expected() -> String {
        "a span longer than zero such as \"10s\" or \"1d\", or months such as \"1mo\"".into()
    }

    fn read(value: &Value<'_>) -> Option<Self> {
        let months = value.as_text().and_then(|text| text.trim().strip_suffix("mo")).map(str::trim_end);
        match months {
            Some(months) => or_wrong(value, parse_months(months).map(Self::Months)),
            None => {
                let span = Span::read(value)?;
                or_wrong(value, (!span.0.is_zero()).then_some(Self::Span(span.0)))
            }
        }
    }
}

impl Setting for ByteCount {
    fn expected() -> String {
        "a number of bytes such as \"64 KiB\" or \"1 MB\"".into()
    }

    fn read(value: &Value<'_>) -> Option<Self> {
        parse(value, |text| parse_bytes(text).map(Self))
    }
}

impl Setting for Rate {
    fn expected() -> String {
        "a rate such as \"64 kbit/s\" or \"8 kB/s\"".into()
    }

    fn read(value: &Value<'_>) -> Option<Self> {
        parse(value, |text| parse_rate(text).map(|bits_per_second| Self { bits_per_second }))
    }
}

impl Setting for Percent {
    fn expected() -> String {
        "whole hundredths from \"0 %\" to \"100 %\"".into()
    }

    fn read(value: &Value<'_>) -> Option<Self> {
        parse(value, |text| parse_percent(text).map(Self))
    }
}

impl Setting for Budget {
    fn expected() -> String {
        "a budget such as \"500 MB/month\" or \"20 MB/day\"".into()
    }

    fn read(value: &Value<'_>) -> Option<Self> {
        parse(value, parse_budget)
    }
}

/// A span of one or several parts, `"1h30m"`; units ns, us, ms, s, m, h, d, w.
pub fn parse_span(text: &str) -> Option<Duration> {
    let mut nanos: i128 = 0;
    let mut rest = text.trim();
    if rest.is_empty() {
        return None;
    }
    while !rest.is_empty() {
        let (number, after) = split_number(rest);
        let unit_end = after.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(after.len());
        let (unit, next) = after.split_at(unit_end);
        let unit_nanos = match unit.trim() {
            "ns" => 1,
            "us" | "µs" | "μs" => 1_000,
            "ms" => 1_000_000,
            "s" => 1_000_000_000,
            "m" | "min" => 60 * 1_000_000_000,
            "h" => 3_600 * 1_000_000_000,
            "d" => 86_400 * 1_000_000_000,
            "w" => 7 * 86_400 * 1_000_000_000,
            _ => return None,
        };
        nanos = nanos.checked_add(scaled(number, unit_nanos)?)?;
        rest = next;
    }
    let span = Duration::from_nanos(u64::try_from(nanos).ok()?);
    (span <= SPAN_MAX).then_some(span)
}

/// A whole number of months, at most a century of them.
fn parse_months(number: &str) -> Option<u16> {
    const MONTHS_MAX: u16 = 1_200;
    number.parse().ok().filter(|months| (1..=MONTHS_MAX).contains(months))
}

/// A span as it would be written: the largest unit that divides it.
pub fn write_span(span: Duration) -> String {
    let nanos = span.as_nanos();
    let units: [(u128, &str); 7] = [
        (86_400_000_000_000, "d"),
        (3_600_000_000_000, "h"),
        (60_000_000_000, "m"),
        (1_000_000_000, "s"),
        (1_000_000, "ms"),
        (1_000, "us"),
        (1, "ns"),
    ];
    match units.into_iter().find(|(unit, _)| nanos > 0 && nanos.is_multiple_of(*unit)) {
        Some((unit, name)) => format!("{}{name}", nanos / unit),
        None => "0s".into(),
    }
}

/// Decimal units (kB, MB, GB, TB) are powers of 1,000, binary ones (KiB, MiB, GiB, TiB) of 1,024 (IEC 80000-13).
fn parse_bytes(text: &str) -> Option<u64> {
    let (number, unit) = split_number(text.trim());
    let bytes = scaled(number, byte_unit(unit.trim())?)?;
    u64::try_from(bytes).ok()
}

fn byte_unit(unit: &str) -> Option<i128> {
    Some(match unit {
        "B" => 1,
        "kB" | "KB" => 1_000,
        "MB" => 1_000_000,
        "GB" => 1_000_000_000,
        "TB" => 1_000_000_000_000,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        "TiB" => 1 << 40,
        _ => return None,
    })
}

fn parse_rate(text: &str) -> Option<u64> {
    let (number, unit) = split_number(text.trim());
    let unit = unit.trim().strip_suffix("/s")?;
    let bits = match unit.trim_end() {
        "bit" => 1,
        "kbit" => 1_000,
        "Mbit" => 1_000_000,
        "Gbit" => 1_000_000_000,
        bytes => 8 * byte_unit(bytes)?,
    };
    u64::try_from(scaled(number, bits)?).ok().filter(|&rate| rate > 0)
}

/// A change in a time, `"50/s"`, as one in a second; units of time are s, min and h.
pub(crate) fn parse_per_second(text: &str) -> Option<f64> {
    let (number, unit) = text.split_once('/')?;
    let seconds = match unit.trim() {
        "s" => 1.0,
        "min" => 60.0,
        "h" => 3_600.0,
        _ => return None,
    };
    let number = number.trim();
    // Only digits and a point: f64 would read "inf" too.
    let is_decimal = number.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
    let rate = number.parse::<f64>().ok().filter(|_| is_decimal)? / seconds;
    (rate.is_finite() && rate > 0.0).then_some(rate)
}

fn parse_percent(text: &str) -> Option<u8> {
    let number = text.strip_suffix('%')?.trim_end();
    // Only digits: u8 would read "+1" too.
    let is_number = number.bytes().all(|byte| byte.is_ascii_digit());
    number.parse().ok().filter(|percent| is_number && *percent <= 100)
}

fn parse_budget(text: &str) -> Option<Budget> {
    let (bytes, interval) = text.split_once('/')?;
    let interval = match interval.trim() {
        "day" => BudgetInterval::Day,
        "month" => BudgetInterval::Month,
        _ => return None,
    };
    let bytes = parse_bytes(bytes)?;
    (bytes > 0).then_some(Budget { bytes, interval })
}

/// The digits with which a text begins, and what follows.
fn split_number(text: &str) -> (&str, &str) {
    text.split_at(text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len()))
}

/// A decimal number times a unit, exact; `None` where that is no integer.
fn scaled(number: &str, unit: i128) -> Option<i128> {
    /// More digits than that are no quantity that anybody means, and would overflow.
    const DIGITS_MAX: usize = 18;
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if whole.is_empty() || number.len() > DIGITS_MAX || (number.contains('.') && fraction.is_empty()) {
        return None;
    }
    let digits: i128 = format!("{whole}{fraction}").parse().ok()?;
    let power = 10_i128.checked_pow(u32::try_from(fraction.len()).ok()?)?;
    let product = digits.checked_mul(unit)?;
    (product % power == 0).then_some(product / power)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_are_exact() {
        for (text, nanos) in [
            ("10s", 10_000_000_000),
            ("300ms", 300_000_000),
            ("0.5s", 500_000_000),
            ("1h30m", 5_400_000_000_000),
            ("0s", 0),
            ("15m", 900_000_000_000),
            ("30d", 2_592_000_000_000_000),
            ("1 s", 1_000_000_000),
        ] {
            assert_eq!(parse_span(text), Some(Duration::from_nanos(nanos)), "{text}");
        }
        for text in
            ["", "10", "s", "-1s", "1x", "1.5ns", "1.s", ".5s", "1..5s", "101w1000000d", "99999999999999999999s"]
        {
            assert_eq!(parse_span(text), None, "{text}");
        }
    }

    #[test]
    fn a_span_is_written_as_it_would_be_read() {
        for text in ["10s", "300ms", "90m", "1h", "2d", "0s", "7us", "1ns"] {
            assert_eq!(write_span(parse_span(text).unwrap()), text);
        }
    }

    #[test]
    fn bytes_rates_and_budgets() {
        assert_eq!(parse_bytes("64 KiB"), Some(65_536));
        assert_eq!(parse_bytes("1.5 MB"), Some(1_500_000));
        assert_eq!(parse_bytes("512B"), Some(512));
        assert_eq!(parse_bytes("0.5 B"), None);
        assert_eq!(parse_bytes("64"), None);
        assert_eq!(parse_bytes("64 kb"), None);
        assert_eq!(parse_rate("64 kbit/s"), Some(64_000));
        assert_eq!(parse_rate("8 kB/s"), Some(64_000));
        assert_eq!(parse_rate("0 bit/s"), None);
        assert_eq!(parse_rate("64 kbit"), None);
        assert_eq!(parse_budget("500 MB/month"), Some(Budget { bytes: 500_000_000, interval: BudgetInterval::Month }));
        assert_eq!(parse_budget("500 MB/year"), None);
        assert_eq!(["0 %", "20%", "100 %"].map(parse_percent), [Some(0), Some(20), Some(100)]);
        assert_eq!(["101 %", "20", "-1 %", "+1 %", "0.5 %", "%"].map(parse_percent), [None; 6]);
    }

    #[test]
    fn changes_in_a_time_are_told_in_a_second() {
        let texts = ["50/s", "0.5 / min", "9/h", "3/d", "-1/s", "inf/s", "/s", "0/s", "5"];
        let rates = [Some(50.0), Some(0.5 / 60.0), Some(0.0025), None, None, None, None, None, None];
        assert_eq!(texts.map(parse_per_second), rates);
    }
}
