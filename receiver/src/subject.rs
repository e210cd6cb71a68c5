//! Topics of MQTT as subjects of NATS, as its server maps them: levels become tokens, `+` and `#` become `*` and `>`, a level that is empty becomes a slash, and a
//! dot becomes two.

use rtlive_config::table::Value;
use rtlive_config::value::{Setting, parse};

use crate::config::is_filter;

/// What stands before the subjects of messages of QoS 1.
const STORED: &str = "$MQTT.msgs.";

/// A filter of topics that NATS can tell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NatsFilter {
    /// As MQTT writes it.
    pub topics: String,
    /// The same of the stream in which the server keeps messages.
    pub subject: String,
}

impl Setting for NatsFilter {
    fn expected() -> String {
        "a filter of topics such as \"rtlive/#\", without spaces, * and >".into()
    }

    fn read(value: &Value<'_>) -> Option<Self> {
        parse(value, |text| {
            let tokens = is_filter(text).then(|| subject(text))??;
            Some(Self { topics: text.to_owned(), subject: format!("{STORED}{tokens}") })
        })
    }
}

/// The subject of a topic or of a filter; `None` where NATS knows none.
pub fn subject(topic: &str) -> Option<String> {
    let is_odd = |c: char| c.is_whitespace() || c.is_control() || matches!(c, '*' | '>');
    if topic.is_empty() || topic.contains(is_odd) {
        return None;
    }
    let token = |level: &str| match level {
        "" => "/".to_owned(),
        "+" => "*".to_owned(),
        "#" => ">".to_owned(),
        level => level.replace('.', "//"),
    };
    Some(topic.split('/').map(token).collect::<Vec<_>>().join("."))
}

/// The topic of a message in the stream; the subject itself where it is none of those.
pub fn topic(subject: &str) -> String {
    let Some(tokens) = subject.strip_prefix(STORED) else { return subject.to_owned() };
    let level = |token: &str| if token == "/" { String::new() } else { token.replace("//", ".") };
    tokens.split('.').map(level).collect::<Vec<_>>().join("/")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn topics_become_subjects_and_topics_again() {
        for (written, expected) in [
            ("rtlive/gw-042/raw", "rtlive.gw-042.raw"),
            ("/a", "/.a"),
            ("a//b/", "a./.b./"),
            ("rtlive/gw.1/raw", "rtlive.gw//1.raw"),
        ] {
            assert_eq!(subject(written).as_deref(), Some(expected));
            assert_eq!(topic(&format!("{STORED}{expected}")), written);
        }
        for (filter, expected) in [("#", ">"), ("+", "*"), ("plant/+/#", "plant.*.>")] {
            assert_eq!(subject(filter).as_deref(), Some(expected));
        }
        for topic in ["", "a b", "a/*", "a>", "a/\n"] {
            assert_eq!(subject(topic), None, "{topic:?}");
        }
    }
}
