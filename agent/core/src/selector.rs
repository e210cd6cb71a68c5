//! Selectors: MQTT filters over series and topics (MQTT 5.0, section 4.7).

use std::cmp::Ordering;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A filter over the levels of a path: a literal, `+` for one level, a trailing `#` for all that follow.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct Selector {
    levels: Vec<Level>,
}

/// One level of a [`Selector`]; the order is that of specificity, the most specific first.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Level {
    Literal(String),
    One,
    Rest,
}

/// Why a text is not a [`Selector`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SelectorError {
    /// Nothing there.
    #[error("expected a filter such as boiler/# or +/temperature, found an empty text")]
    Empty,
    /// `#` before the end, or a wildcard beside other characters.
    #[error("expected `+` or `#` alone in a level, and `#` only as the last, found {0:?}")]
    Wildcard(String),
}

impl Selector {
    /// Whether the path is selected.
    pub fn matches(&self, path: &str) -> bool {
        let mut names = path.split('/');
        for level in &self.levels {
            match (level, names.next()) {
                (Level::Rest, _) => return true,
                (Level::One, Some(_)) => {}
                (Level::Literal(literal), Some(name)) if literal == name => {}
                // MQTT 5.0, 4.7.1.2: `sport/#` also selects `sport`; that is the Rest arm, reached with no name left.
                _ => return false,
            }
        }
        names.next().is_none()
    }

    /// Whether every path that `other` selects is selected by this too.
    pub fn covers(&self, other: &Self) -> bool {
        let mut theirs = other.levels.iter();
        for level in &self.levels {
            match (level, theirs.next()) {
                (Level::Rest, _) => return true,
                (Level::One, Some(Level::Literal(_) | Level::One)) => {}
                (Level::Literal(a), Some(Level::Literal(b))) if a == b => {}
                _ => return false,
            }
        }
        theirs.next().is_none()
    }

    /// Whether some path is selected by both.
    pub fn overlaps(&self, other: &Self) -> bool {
        let mut theirs = other.levels.iter();
        for level in &self.levels {
            match (level, theirs.next()) {
                (Level::Rest, _) | (_, Some(Level::Rest)) => return true,
                (Level::Literal(a), Some(Level::Literal(b))) if a != b => return false,
                (_, Some(_)) => {}
                (_, None) => return false,
            }
        }
        matches!(theirs.next(), None | Some(Level::Rest))
    }

    /// The first level, when it is a literal: the input of the series that are selected.
    pub fn first_literal(&self) -> Option<&str> {
        match self.levels.first() {
            Some(Level::Literal(literal)) => Some(literal),
            _ => None,
        }
    }

    /// Whether the filter names exactly one path.
    pub fn is_literal(&self) -> bool {
        self.levels.iter().all(|level| matches!(level, Level::Literal(_)))
    }

    /// `Less` when this is more specific: at the first level that differs a literal beats `+`, `+` beats `#`.
    pub fn cmp_specificity(&self, other: &Self) -> Ordering {
        let rank = |level: &Level| match level {
            Level::Literal(_) => 0,
            Level::One => 1,
            Level::Rest => 2,
        };
        let ours = self.levels.iter().map(rank);
        ours.cmp(other.levels.iter().map(rank))
    }
}

impl FromStr for Selector {
    type Err = SelectorError;

    fn from_str(text: &str) -> Result<Self, SelectorError> {
        if text.is_empty() {
            return Err(SelectorError::Empty);
        }
        let mut levels = Vec::new();
        for name in text.split('/') {
            if levels.last() == Some(&Level::Rest) {
                return Err(SelectorError::Wildcard(text.into()));
            }
            levels.push(match name {
                "+" => Level::One,
                "#" => Level::Rest,
                name if name.contains(['+', '#']) => return Err(SelectorError::Wildcard(text.into())),
                name => Level::Literal(name.into()),
            });
        }
        Ok(Self { levels })
    }
}

impl fmt::Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, level) in self.levels.iter().enumerate() {
            if i > 0 {
                f.write_str("/")?;
            }
            f.write_str(match level {
                Level::Literal(literal) => literal,
                Level::One => "+",
                Level::Rest => "#",
            })?;
        }
        Ok(())
    }
}

impl From<Selector> for String {
    fn from(selector: Selector) -> Self {
        selector.to_string()
    }
}

impl TryFrom<String> for Selector {
    type Error = SelectorError;

    fn try_from(text: String) -> Result<Self, SelectorError> {
        text.parse()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn selector(text: &str) -> Selector {
        text.parse().unwrap()
    }

    #[test]
    fn matches_as_mqtt_says() {
        for (filter, path, selected) in [
            ("#", "a/b", true),
            ("a/#", "a", true),
            ("a/#", "a/b/c", true),
            ("a/+", "a", false),
            ("a/+", "a/b", true),
            ("a/+", "a/b/c", false),
            ("+/t", "boiler/t", true),
            ("+/t", "boiler/u", false),
            ("a/b", "a/b", true),
            ("a/b", "a/b/c", false),
        ] {
            assert_eq!(selector(filter).matches(path), selected, "{filter} {path}");
        }
    }

    #[test]
    fn refuses_misplaced_wildcards() {
        for text in ["a/#/b", "a+/b", "a#", "##"] {
            assert!(matches!(text.parse::<Selector>(), Err(SelectorError::Wildcard(_))), "{text}");
        }
        assert_eq!("".parse::<Selector>(), Err(SelectorError::Empty));
    }

    #[test]
    fn covers_and_overlaps_agree_with_matching() {
        let filters = ["#", "a/#", "a/+", "+/b", "a/b", "+/+", "a", "+/#", "a/b/c", "a/+/c"];
        let paths = ["a", "b", "a/b", "a/c", "b/b", "a/b/c", "a/b/d", "x/y/z"];
        for a in filters.map(selector) {
            for b in filters.map(selector) {
                let both = paths.iter().any(|path| a.matches(path) && b.matches(path));
                assert!(!both || a.overlaps(&b), "{a} overlaps {b}");
                assert_eq!(a.overlaps(&b), b.overlaps(&a), "{a} {b}");
                if a.covers(&b) {
                    assert!(paths.iter().all(|path| !b.matches(path) || a.matches(path)), "{a} covers {b}");
                }
            }
        }
    }

    #[test]
    fn the_more_specific_comes_first() {
        let mut filters = ["#", "a/+", "a/b", "+/b", "a/#"].map(selector);
        filters.sort_by(Selector::cmp_specificity);
        assert_eq!(filters.map(|f| f.to_string()), ["a/b", "a/+", "a/#", "+/b", "#"]);
    }
}
