//! Payloads: documents (JSON, CBOR, plain text) that carry values and their times; used by the drivers that read documents.
//!
//! Pure. Whatever the bytes are, the answer is a value or a word of the ledger that says why there is none.

use std::fmt;
use std::str::FromStr;

use rtlive_config::choices;
use rtlive_config::value::Setting;
use rtlive_core::reading::Value;
use rtlive_core::time::Timestamp;

/// The longest text that becomes a value, in bytes. A reading is a measurement or the name of a state; longer texts are documents
/// in the wrong place, and would fill the buffer.
pub const TEXT_BYTES_MAX: usize = 1024;

/// Why there is no value, as a word of the ledger.
pub type Reason = &'static str;

choices! {
    /// How a payload is written.
    pub enum Format {
        /// JSON (RFC 8259).
        Json = "json",
        /// CBOR (RFC 8949).
        Cbor = "cbor",
        /// The whole payload is one value, in UTF-8.
        Text = "text",
    }
}

choices! {
    /// What kind of value is wanted.
    pub enum Kind {
        /// As it is written: a number without fraction and exponent is an integer.
        Auto = "auto",
        /// A number, kept as a float of 64 bits.
        Float = "f64",
        /// A whole number.
        Int = "i64",
        /// A state of two: true and false, 1 and 0; in text also on and off, in any case.
        Bool = "bool",
        /// A text; numbers and states are kept as they are written.
        Text = "text",
    }
}

choices! {
    /// What a time that is written as a number counts.
    pub enum TimeUnit {
        /// Seconds since the epoch.
        Seconds = "s",
        /// Milliseconds since the epoch.
        Millis = "ms",
        /// Microseconds since the epoch.
        Micros = "us",
        /// Nanoseconds since the epoch.
        Nanos = "ns",
    }
}

impl TimeUnit {
    /// The power of ten that turns it into nanoseconds.
    const fn exponent(self) -> u32 {
        match self {
            Self::Seconds => 9,
            Self::Millis => 6,
            Self::Micros => 3,
            Self::Nanos => 0,
        }
    }
}

/// A place in a document: a JSON Pointer (RFC 6901), used on CBOR in the same way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pointer {
    tokens: Vec<String>,
}

/// A text is no [`Pointer`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected a JSON pointer such as /temperature or /values/0, found {0:?}")]
pub struct PointerError(String);

impl Pointer {
    /// The whole document.
    pub const fn whole() -> Self {
        Self { tokens: Vec::new() }
    }
}

impl FromStr for Pointer {
    type Err = PointerError;

    fn from_str(text: &str) -> Result<Self, PointerError> {
        if text.is_empty() {
            return Ok(Self { tokens: Vec::new() });
        }
        let error = || PointerError(text.to_owned());
        let rest = text.strip_prefix('/').ok_or_else(error)?;
        let mut tokens = Vec::new();
        for raw in rest.split('/') {
            // RFC 6901, section 3: a tilde is followed by 0 or 1.
            if raw.replace("~0", "").replace("~1", "").contains('~') {
                return Err(error());
            }
            tokens.push(raw.replace("~1", "/").replace("~0", "~"));
        }
        Ok(Self { tokens })
    }
}

impl fmt::Display for Pointer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.tokens.iter().try_for_each(|token| write!(f, "/{}", token.replace('~', "~0").replace('/', "~1")))
    }
}

impl Setting for Pointer {
    fn expected() -> String {
        "a JSON pointer such as \"/temperature\" or \"/values/0\"".into()
    }

    fn read(value: &rtlive_config::table::Value<'_>) -> Option<Self> {
        let pointer = value.as_text().and_then(|text| text.parse().ok());
        if pointer.is_none() {
            value.wrong(Self::expected());
        }
        pointer
    }
}

/// A payload, parsed.
#[derive(Clone, Debug, PartialEq)]
pub enum Document<'a> {
    /// JSON.
    Json(serde_json::Value),
    /// CBOR.
    Cbor(ciborium::Value),
    /// Text without surrounding white space.
    Text(&'a str),
}

/// A scalar somewhere in a document.
enum Scalar<'a> {
    Int(i64),
    Float(f64),
    Bool(bool),
    Text(&'a str),
}

impl<'a> Document<'a> {
    /// Parses a payload.
    ///
    /// # Errors
    /// `not_json`, `not_cbor`, `not_text`.
    pub fn parse(format: Format, bytes: &'a [u8]) -> Result<Self, Reason> {
        match format {
            Format::Json => serde_json::from_slice(bytes).map(Self::Json).map_err(|_| "not_json"),
            Format::Cbor => {
                let mut rest = bytes;
                match ciborium::from_reader(&mut rest) {
                    Ok(value) if rest.is_empty() => Ok(Self::Cbor(value)),
                    _ => Err("not_cbor"),
                }
            }
            Format::Text => std::str::from_utf8(bytes).map(|text| Self::Text(text.trim())).map_err(|_| "not_text"),
        }
    }

    /// The value at a place. Text has one place, the empty pointer.
    ///
    /// # Errors
    /// `no_pointer`: nothing there. `wrong_type`: a null, an object, an array, or not what `kind` wants. `too_long`: a text over [`TEXT_BYTES_MAX`].
    pub fn value(&self, pointer: &Pointer, kind: Kind) -> Result<Value, Reason> {
        if let Self::Text(text) = self {
            return if pointer.tokens.is_empty() { value_of_text(text, kind) } else { Err("no_pointer") };
        }
        self.scalar(pointer)?.value(kind)
    }

    /// The time at a place: a number in `unit`, or RFC 3339 text.
    ///
    /// # Errors
    /// `no_time`: nothing there. `bad_time`: neither a number nor RFC 3339, or out of the range of 1677 to 2262.
    pub fn time(&self, pointer: &Pointer, unit: TimeUnit) -> Result<Timestamp, Reason> {
        match self.scalar(pointer) {
            Err("no_pointer") => Err("no_time"),
            Ok(Scalar::Int(number)) => time_of_integer(number, unit),
            // The shortest text of the float is what was written; scaling the float itself would add noise below the microsecond.
            Ok(Scalar::Float(number)) if number.is_finite() => time_of_decimal(&number.to_string(), unit),
            Ok(Scalar::Text(text)) => time_of_text(text, unit),
            _ => Err("bad_time"),
        }
    }

    fn scalar(&self, pointer: &Pointer) -> Result<Scalar<'_>, Reason> {
        match self {
            Self::Json(value) => scalar_of_json(at_json(value, pointer).ok_or("no_pointer")?),
            Self::Cbor(value) => scalar_of_cbor(at_cbor(value, pointer).ok_or("no_pointer")?),
            Self::Text(text) if pointer.tokens.is_empty() => Ok(Scalar::Text(text)),
            Self::Text(_) => Err("no_pointer"),
        }
    }
}

impl Scalar<'_> {
    fn value(self, kind: Kind) -> Result<Value, Reason> {
        match (kind, self) {
            (Kind::Auto | Kind::Int, Self::Int(number)) => Ok(Value::Int(number)),
            (Kind::Auto | Kind::Float, Self::Float(number)) => Ok(Value::Float(number)),
            (Kind::Auto | Kind::Bool, Self::Bool(state)) => Ok(Value::Bool(state)),
            (Kind::Auto | Kind::Text, Self::Text(text)) => text_value(text),
            (Kind::Float, Self::Int(number)) => Ok(Value::Float(number as f64)),
            (Kind::Int, Self::Float(number)) => whole(number).map(Value::Int).ok_or("wrong_type"),
            (Kind::Bool, Self::Int(0)) => Ok(Value::Bool(false)),
            (Kind::Bool, Self::Int(1)) => Ok(Value::Bool(true)),
            (Kind::Text, Self::Int(number)) => text_value(&number.to_string()),
            (Kind::Text, Self::Float(number)) => text_value(&number.to_string()),
            (Kind::Text, Self::Bool(state)) => text_value(if state { "true" } else { "false" }),
            // Devices that quote their numbers are common enough to be read when a type was asked for.
            (kind, Self::Text(text)) => value_of_text(text.trim(), kind),
            _ => Err("wrong_type"),
        }
    }
}

/// The value that a text stands for.
///
/// # Errors
/// `wrong_type`: not what `kind` wants, or nothing at all. `too_long`: a text over [`TEXT_BYTES_MAX`].
pub fn value_of_text(text: &str, kind: Kind) -> Result<Value, Reason> {
    match kind {
        _ if text.is_empty() => Err("wrong_type"),
        Kind::Auto => {
            if let Ok(number) = text.parse() {
                Ok(Value::Int(number))
            } else if let Ok(number) = text.parse() {
                Ok(Value::Float(number))
            } else if let Some(state) = state_of(text) {
                Ok(Value::Bool(state))
            } else {
                text_value(text)
            }
        }
        Kind::Float => text.parse().map(Value::Float).map_err(|_| "wrong_type"),
        Kind::Int => {
            let number = text.parse().ok().or_else(|| text.parse().ok().and_then(whole));
            number.map(Value::Int).ok_or("wrong_type")
        }
        Kind::Bool => match text {
            "0" => Ok(Value::Bool(false)),
            "1" => Ok(Value::Bool(true)),
            text if text.eq_ignore_ascii_case("on") => Ok(Value::Bool(true)),
            text if text.eq_ignore_ascii_case("off") => Ok(Value::Bool(false)),
            text => state_of(text).map(Value::Bool).ok_or("wrong_type"),
        },
        Kind::Text => text_value(text),
    }
}

fn text_value(text: &str) -> Result<Value, Reason> {
    if text.len() > TEXT_BYTES_MAX { Err("too_long") } else { Ok(Value::Text(text.into())) }
}

fn state_of(text: &str) -> Option<bool> {
    if text.eq_ignore_ascii_case("true") {
        Some(true)
    } else if text.eq_ignore_ascii_case("false") {
        Some(false)
    } else {
        None
    }
}

/// The float as an integer, where nothing is lost.
fn whole(number: f64) -> Option<i64> {
    // 2^63 is the first float above the range, and is exact.
    let fits = number.fract() == 0.0 && number >= -(2_f64.powi(63)) && number < 2_f64.powi(63);
    fits.then_some(number as i64)
}

/// The time that a text stands for: RFC 3339, or a number in `unit`.
///
/// # Errors
/// `bad_time`.
pub fn time_of_text(text: &str, unit: TimeUnit) -> Result<Timestamp, Reason> {
    let text = text.trim();
    text.parse().or_else(|_| time_of_decimal(text, unit))
}

fn time_of_integer(number: i64, unit: TimeUnit) -> Result<Timestamp, Reason> {
    number.checked_mul(10_i64.pow(unit.exponent())).map(Timestamp::from_nanos).ok_or("bad_time")
}

/// Digits below a nanosecond are dropped, towards the past.
fn time_of_decimal(text: &str, unit: TimeUnit) -> Result<Timestamp, Reason> {
    let (negative, digits) = match text.strip_prefix('-') {
        Some(digits) => (true, digits),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    let all_digits = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
    if whole.is_empty() || !all_digits(whole) || !all_digits(fraction) {
        return Err("bad_time");
    }
    let exponent = unit.exponent() as usize;
    let kept: String = fraction.chars().chain(std::iter::repeat('0')).take(exponent).collect();
    let dropped = fraction.get(exponent..).is_some_and(|rest| rest.bytes().any(|byte| byte != b'0'));
    let magnitude: i128 = format!("{whole}{kept}").parse().map_err(|_| "bad_time")?;
    let nanos = if negative { -magnitude - i128::from(dropped) } else { magnitude };
    i64::try_from(nanos).map(Timestamp::from_nanos).map_err(|_| "bad_time")
}

fn at_json<'v>(value: &'v serde_json::Value, pointer: &Pointer) -> Option<&'v serde_json::Value> {
    pointer.tokens.iter().try_fold(value, |value, token| match value {
        serde_json::Value::Object(map) => map.get(token),
        serde_json::Value::Array(items) => items.get(index(token)?),
        _ => None,
    })
}

fn at_cbor<'v>(value: &'v ciborium::Value, pointer: &Pointer) -> Option<&'v ciborium::Value> {
    pointer.tokens.iter().try_fold(untagged(value), |value, token| match value {
        ciborium::Value::Map(pairs) => {
            let found = pairs.iter().find(|(key, _)| match key {
                ciborium::Value::Text(key) => key == token,
                // Compact encodings number their keys (RFC 8428, section 6); the token is then the number.
                ciborium::Value::Integer(key) => token.parse() == Ok(i128::from(*key)),
                _ => false,
            });
            found.map(|(_, value)| untagged(value))
        }
        ciborium::Value::Array(items) => items.get(index(token)?).map(untagged),
        _ => None,
    })
}

/// What a tag speaks of; tags say how to show a value (an epoch time, an RFC 3339 text), not where it is.
fn untagged(mut value: &ciborium::Value) -> &ciborium::Value {
    while let ciborium::Value::Tag(_, inner) = value {
        value = inner;
    }
    value
}

/// RFC 6901, section 4: digits without leading zeros.
fn index(token: &str) -> Option<usize> {
    let canonical = token == "0" || !token.starts_with(['0', '+']);
    if canonical { token.parse().ok() } else { None }
}

fn scalar_of_json(value: &serde_json::Value) -> Result<Scalar<'_>, Reason> {
    match value {
        serde_json::Value::Number(number) => match number.as_i64() {
            Some(number) => Ok(Scalar::Int(number)),
            None => number.as_f64().map(Scalar::Float).ok_or("wrong_type"),
        },
        serde_json::Value::Bool(state) => Ok(Scalar::Bool(*state)),
        serde_json::Value::String(text) => Ok(Scalar::Text(text)),
        _ => Err("wrong_type"),
    }
}

fn scalar_of_cbor(value: &ciborium::Value) -> Result<Scalar<'_>, Reason> {
    match value {
        ciborium::Value::Integer(number) => {
            let number = i128::from(*number);
            Ok(i64::try_from(number).map_or(Scalar::Float(number as f64), Scalar::Int))
        }
        ciborium::Value::Float(number) => Ok(Scalar::Float(*number)),
        ciborium::Value::Bool(state) => Ok(Scalar::Bool(*state)),
        ciborium::Value::Text(text) => Ok(Scalar::Text(text)),
        _ => Err("wrong_type"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn pointer(text: &str) -> Pointer {
        text.parse().unwrap()
    }

    fn json(text: &str) -> Document<'_> {
        Document::parse(Format::Json, text.as_bytes()).unwrap()
    }

    #[test]
    fn pointers_follow_rfc_6901() {
        // The document of RFC 6901, section 5.
        let document =
            json(r#"{"foo":["bar","baz"],"":0,"a/b":1,"c%d":2,"e^f":3,"g|h":4,"i\\j":5,"k\"l":6," ":7,"m~n":8}"#);
        for (text, value) in [
            ("/", 0),
            ("/a~1b", 1),
            ("/c%d", 2),
            ("/e^f", 3),
            ("/g|h", 4),
            ("/i\\j", 5),
            ("/k\"l", 6),
            ("/ ", 7),
            ("/m~0n", 8),
        ] {
            assert_eq!(document.value(&pointer(text), Kind::Auto), Ok(Value::Int(value)), "{text}");
            assert_eq!(pointer(text).to_string(), text);
        }
        assert_eq!(document.value(&pointer("/foo/0"), Kind::Auto), Ok(Value::Text("bar".into())));
        for absent in ["/foo/2", "/foo/00", "/foo/-", "/x", "/foo/0/0"] {
            assert_eq!(document.value(&pointer(absent), Kind::Auto), Err("no_pointer"), "{absent}");
        }
        for wrong in ["foo", "/~", "/~2", "/a~"] {
            assert!(wrong.parse::<Pointer>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn values_keep_what_was_written() {
        let document =
            json(r#"{"i":20,"f":20.0,"b":true,"t":"open","q":"21.5","n":null,"o":{},"big":18446744073709551615}"#);
        let value = |place: &str, kind| document.value(&pointer(place), kind);
        assert_eq!(value("/i", Kind::Auto), Ok(Value::Int(20)));
        assert_eq!(value("/f", Kind::Auto), Ok(Value::Float(20.0)));
        assert_eq!(value("/i", Kind::Float), Ok(Value::Float(20.0)));
        assert_eq!(value("/f", Kind::Int), Ok(Value::Int(20)));
        assert_eq!(value("/b", Kind::Auto), Ok(Value::Bool(true)));
        assert_eq!(value("/q", Kind::Auto), Ok(Value::Text("21.5".into())));
        assert_eq!(value("/q", Kind::Float), Ok(Value::Float(21.5)));
        assert_eq!(value("/q", Kind::Int), Err("wrong_type"));
        assert_eq!(value("/big", Kind::Auto), Ok(Value::Float(18_446_744_073_709_551_615.0)));
        assert_eq!(value("/t", Kind::Float), Err("wrong_type"));
        assert_eq!(value("/n", Kind::Auto), Err("wrong_type"));
        assert_eq!(value("/o", Kind::Auto), Err("wrong_type"));
    }

    #[test]
    fn text_is_read_as_what_it_looks_like() {
        let value =
            |text: &str, kind| Document::parse(Format::Text, text.as_bytes()).unwrap().value(&pointer(""), kind);
        assert_eq!(value(" 21.5\n", Kind::Auto), Ok(Value::Float(21.5)));
        assert_eq!(value("-7", Kind::Auto), Ok(Value::Int(-7)));
        assert_eq!(value("TRUE", Kind::Auto), Ok(Value::Bool(true)));
        assert_eq!(value("on", Kind::Auto), Ok(Value::Text("on".into())));
        assert_eq!(value("ON", Kind::Bool), Ok(Value::Bool(true)));
        assert!(matches!(value("nan", Kind::Auto), Ok(Value::Float(number)) if number.is_nan()));
        assert_eq!(value("", Kind::Auto), Err("wrong_type"));
        assert_eq!(value(&"x".repeat(TEXT_BYTES_MAX + 1), Kind::Auto), Err("too_long"));
        assert_eq!(Document::parse(Format::Text, b"\xff"), Err("not_text"));
    }

    #[test]
    fn cbor_is_read_like_json() {
        // {"t": 21.5, 1: [10, 1(1363896240)]}, by hand after RFC 8949.
        let bytes = [0xa2, 0x61, b't', 0xf9, 0x4d, 0x60, 0x01, 0x82, 0x0a, 0xc1, 0x1a, 0x51, 0x4b, 0x67, 0xb0];
        let document = Document::parse(Format::Cbor, &bytes).unwrap();
        assert_eq!(document.value(&pointer("/t"), Kind::Auto), Ok(Value::Float(21.5)));
        assert_eq!(document.value(&pointer("/1/0"), Kind::Auto), Ok(Value::Int(10)));
        assert_eq!(document.time(&pointer("/1/1"), TimeUnit::Seconds), Ok("2013-03-21T20:04:00Z".parse().unwrap()));
        assert_eq!(Document::parse(Format::Cbor, &bytes[..14]), Err("not_cbor"));
        assert_eq!(Document::parse(Format::Cbor, &[0x01, 0x01]), Err("not_cbor"));
    }

    #[test]
    fn times_are_exact_to_the_digit() {
        let document = json(
            r#"{"s":1767225600.123,"ms":1767225600250,"us":1767225600250000.5,"t":"2026-01-01T01:00:00.25+01:00","q":"1767225600","x":"soon","n":-0.0000000015}"#,
        );
        let time = |place: &str, unit| document.time(&pointer(place), unit).map(|time| time.to_string());
        assert_eq!(time("/s", TimeUnit::Seconds).as_deref(), Ok("2026-01-01T00:00:00.123Z"));
        assert_eq!(time("/ms", TimeUnit::Millis).as_deref(), Ok("2026-01-01T00:00:00.25Z"));
        assert_eq!(time("/us", TimeUnit::Micros).as_deref(), Ok("2026-01-01T00:00:00.2500005Z"));
        assert_eq!(time("/t", TimeUnit::Millis).as_deref(), Ok("2026-01-01T00:00:00.25Z"));
        assert_eq!(time("/q", TimeUnit::Seconds).as_deref(), Ok("2026-01-01T00:00:00Z"));
        assert_eq!(document.time(&pointer("/n"), TimeUnit::Seconds), Ok(Timestamp::from_nanos(-2)));
        assert_eq!(time("/x", TimeUnit::Millis), Err("bad_time"));
        assert_eq!(time("/none", TimeUnit::Millis), Err("no_time"));
        assert_eq!(time("/ms", TimeUnit::Seconds), Err("bad_time"));
    }

    proptest! {
        #[test]
        fn any_bytes_give_an_answer(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            for format in [Format::Json, Format::Cbor, Format::Text] {
                if let Ok(document) = Document::parse(format, &bytes) {
                    for place in ["", "/a", "/0"] {
                        let _ = document.value(&pointer(place), Kind::Auto);
                        let _ = document.time(&pointer(place), TimeUnit::Nanos);
                    }
                }
            }
        }

        #[test]
        fn integers_and_their_decimals_are_the_same_time(millis in -9_000_000_000_000_i64..9_000_000_000_000) {
            let integer = time_of_integer(millis, TimeUnit::Millis);
            prop_assert_eq!(integer, time_of_text(&millis.to_string(), TimeUnit::Millis));
            let sign = if millis < 0 { "-" } else { "" };
            let seconds = format!("{sign}{}.{:03}", millis.abs() / 1000, millis.abs() % 1000);
            prop_assert_eq!(integer, time_of_text(&seconds, TimeUnit::Seconds));
        }
    }
}
