//! Topics: templates whose places are all known, and which make topics that a broker takes.

use std::collections::BTreeMap;

use rtlive_core::template::{PARTITIONS_MAX, Piece, Template, partitions};

use crate::table::Table;

/// The longest topic, in bytes: the length is 16 bits on the wire (MQTT 5.0, section 1.5.4).
const TOPIC_BYTES_MAX: usize = 65_535;

/// What a topic is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Messages {
    /// Messages that may hold records of several series.
    OfAny,
    /// Messages of one record each, which may be told apart by its series.
    OfOneSeries,
}

/// Whether a topic's places are known and its text is a topic; notes what is wrong.
pub(crate) fn check(
    table: &Table<'_>,
    key: &str,
    topic: &Template,
    messages: Messages,
    labels: Option<&BTreeMap<String, String>>,
) -> bool {
    let mut literal = String::new();
    for piece in topic.pieces() {
        match piece {
            Piece::Text(text) => literal.push_str(text),
            Piece::Name { name, argument: None } if matches!(name.as_str(), "agent" | "stream") => literal.push('x'),
            Piece::Name { name, argument: None } if name == "series" => {
                if messages == Messages::OfAny {
                    let expected = "{series} only in the topic of a stream with `format = \"json\"` and `batch = 1`, whose messages have one series each";
                    table.mistake(key, expected, format!("\"{topic}\""));
                    return false;
                }
                literal.push('x');
            }
            Piece::Name { name, argument } if name == "partition" => {
                if argument.as_deref().and_then(partitions).is_none() {
                    let expected =
                        format!("a number of partitions from 1 to {PARTITIONS_MAX}, such as {{partition:16}}");
                    table.mistake(key, expected, format!("\"{topic}\""));
                    return false;
                }
                literal.push('0');
            }
            Piece::Name { name, argument: None } if name.starts_with("label.") => {
                // Without labels there was a mistake in [agent], and nobody knows which there will be.
                let Some(labels) = labels else { continue };
                let Some(label) = name.strip_prefix("label.").and_then(|label| labels.get(label)) else {
                    table.mistake(key, "a label of [agent] labels", format!("{{{name}}}"));
                    return false;
                };
                literal.push_str(label);
            }
            Piece::Level(_) | Piece::Name { .. } => {
                let places = "only the places {agent}, {stream}, {series}, {partition:N} and {label.NAME}";
                table.mistake(key, places, format!("\"{topic}\""));
                return false;
            }
        }
    }
    let forbidden = literal.contains(['+', '#', '\0']) || literal.starts_with('$');
    if literal.is_empty() || forbidden || literal.len() > TOPIC_BYTES_MAX {
        table.mistake(key, "a topic: not empty, no + or # in it, no $ at its start", format!("\"{topic}\""));
        return false;
    }
    true
}
