//! Topics: templates whose places are all known, and which make topics that a broker takes.

use std::collections::BTreeMap;

use rtlive_core::template::{Piece, Template};

use crate::table::Table;

/// The longest topic, in bytes: the length is 16 bits on the wire (MQTT 5.0, section 1.5.4).
const TOPIC_BYTES_MAX: usize = 65_535;

/// Whether a topic's places are known and its text is a topic; notes what is wrong.
pub(crate) fn check(table: &Table<'_>, key: &str, topic: &Template, labels: Option<&BTreeMap<String, String>>) -> bool {
    let mut literal = String::new();
    for piece in topic.pieces() {
        match piece {
            Piece::Text(text) => literal.push_str(text),
            Piece::Name { name, argument: None } if matches!(name.as_str(), "agent" | "stream") => literal.push('x'),
            Piece::Name { name, argument } if matches!(name.as_str(), "series" | "partition") => {
                let place = argument.as_ref().map_or_else(|| name.clone(), |argument| format!("{name}:{argument}"));
                table.not_yet(key, format_args!("{{{place}}} in a topic"));
                return false;
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
                table.mistake(key, "only the places {agent}, {stream} and {label.NAME}", format!("\"{topic}\""));
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
