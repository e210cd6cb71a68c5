//! Names: how inputs, streams, windows, rules, maps and the agent itself may be called.

use rtlive_core::sorted;

use crate::table::Table;

/// The longest name, in characters. Names are levels of topics and series, and headings in status.
pub const NAME_CHARS_MAX: usize = 64;

/// Names that the program itself uses in topics or for streams.
pub const RESERVED: [&str; 9] =
    ["alerts", "gaps", "late", "quarantine", "unsynced", "audit", "status", "schema", "cmd"];

/// Names of a program's own, each with its table; one that is no name is a mistake, and left out.
pub fn named_tables<'a>(parent: &Table<'a>, what: &str) -> Vec<(&'a str, Table<'a>)> {
    let mut tables = parent.tables();
    tables.retain(|(name, table)| {
        if !is_name(name) {
            table.mistake(
                "",
                format!("a name of {what}: a-z, 0-9, _ and -, at most {NAME_CHARS_MAX} characters"),
                format!("{name:?}"),
            );
        }
        is_name(name)
    });
    // By name, so that the order of files and tables changes nothing.
    sorted::by_key(&mut tables, |(name, _)| *name);
    tables
}

/// Whether a text is a name of the configuration.
pub fn is_name(text: &str) -> bool {
    let allowed = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'_' | b'-');
    (1..=NAME_CHARS_MAX).contains(&text.len()) && text.bytes().all(allowed)
}

/// Whether a text may be the agent's id: one level of a topic, and part of a client id.
pub fn is_agent_id(text: &str) -> bool {
    let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.');
    (1..=NAME_CHARS_MAX).contains(&text.len()) && text.bytes().all(allowed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        for name in ["a", "ten_seconds", "gw-042", "0", &"x".repeat(64)] {
            assert!(is_name(name), "{name}");
        }
        for name in ["", "A", "a b", "ä", "a/b", "a.b", &"x".repeat(65)] {
            assert!(!is_name(name), "{name}");
        }
        assert!(is_agent_id("GW-042.north"));
        assert!(!is_agent_id("gw/1"));
    }
}
