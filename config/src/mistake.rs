//! Mistakes: what is wrong in a configuration, where, and what was expected.

use std::fmt;

use serde::Serialize;

/// A place in a file, as editors count.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Place {
    /// The file as it was named.
    pub file: String,
    /// The line, from 1; 0 for the file as a whole.
    pub line: usize,
    /// The column in characters, from 1; 0 for the file as a whole.
    pub column: usize,
}

/// One thing that is wrong, or that the user should know.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Mistake {
    /// Where it stands.
    #[serde(flatten)]
    pub place: Place,
    /// The path of the key, `inputs.meters.devices[1].unit_id`; empty for a file as a whole.
    pub key: String,
    /// What is wrong with it.
    #[serde(flatten)]
    pub problem: Problem,
}

/// What is wrong. In JSON the word of `kind` is stable.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Problem {
    /// The file could not be read as text.
    File {
        /// What was tried and what the system said.
        message: String,
    },
    /// The file is not TOML.
    Syntax {
        /// What the parser said.
        message: String,
    },
    /// A key that nothing reads.
    UnknownKey {
        /// The known key that it resembles most.
        nearest: Option<String>,
        /// All keys that are known there.
        known: Vec<String>,
    },
    /// A key that must be there is not.
    Missing {
        /// What it would hold.
        expected: String,
    },
    /// A value that is not what the key takes, or that does not fit the others.
    Wrong {
        /// What the key takes.
        expected: String,
        /// What stands there.
        found: String,
    },
    /// A key that is set in two places.
    Twice {
        /// The other place.
        first: Option<Place>,
    },
    /// A key or a word of the documented configuration that this version does not do.
    NotYet {
        /// The word, where it is the value and not the key.
        word: Option<String>,
    },
    /// Nothing wrong, but probably not what was meant.
    Advice {
        /// What the user should know.
        message: String,
    },
}

/// All mistakes of a configuration, in the order of the files and the lines.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct Mistakes(pub Vec<Mistake>);

impl std::error::Error for Mistakes {}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            0 => f.write_str(&self.file),
            line => write!(f, "{}:{line}:{}", self.file, self.column),
        }
    }
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.place)?;
        if !self.key.is_empty() {
            write!(f, "{}: ", self.key)?;
        }
        self.problem.fmt(f)
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File { message } | Self::Syntax { message } | Self::Advice { message } => f.write_str(message),
            Self::UnknownKey { nearest: Some(nearest), .. } => {
                write!(f, "unknown key; the nearest known one is `{nearest}`")
            }
            Self::UnknownKey { nearest: None, known } if known.is_empty() => f.write_str("unknown key"),
            Self::UnknownKey { nearest: None, known } => write!(f, "unknown key; expected one of {}", known.join(", ")),
            Self::Missing { expected } => write!(f, "missing; expected {expected}"),
            Self::Wrong { expected, found } => write!(f, "expected {expected}, found {found}"),
            Self::Twice { first: Some(first) } => write!(f, "set twice; first at {first}"),
            Self::Twice { first: None } => f.write_str("set twice"),
            Self::NotYet { word: None } => f.write_str("not yet in this version"),
            Self::NotYet { word: Some(word) } => write!(f, "{word} is not yet in this version"),
        }
    }
}

impl fmt::Display for Mistakes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, mistake) in self.0.iter().enumerate() {
            if i > 0 {
                f.write_str("\n")?;
            }
            mistake.fmt(f)?;
        }
        Ok(())
    }
}

/// The candidate that `word` was probably meant to be; `None` when none resembles it.
///
/// Distance is that of Damerau and Levenshtein; a third of the word may differ, at least one letter, at most three.
pub fn nearest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let allowed = (word.chars().count() / 3).clamp(1, 3);
    candidates
        .into_iter()
        .map(|candidate| (strsim::damerau_levenshtein(word, candidate), candidate))
        .filter(|(distance, _)| *distance <= allowed)
        .min()
        .map(|(_, candidate)| candidate)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_is_near() {
        let known = ["baud", "parity", "port", "timeout", "unit_id"];
        assert_eq!(nearest("buad", known), Some("baud"));
        assert_eq!(nearest("time_out", known), Some("timeout"));
        assert_eq!(nearest("unitid", known), Some("unit_id"));
        assert_eq!(nearest("colour", known), None);
        assert_eq!(nearest("x", []), None);
    }
}
