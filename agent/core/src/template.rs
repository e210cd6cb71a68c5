//! Templates: texts with places, for topics, series names and messages (contract §1, "Templates").

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A text with places: `{0}` is a level of what was matched, `{name}` a value by name, `{{` and `}}` braces.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct Template {
    pieces: Vec<Piece>,
}

/// A piece of a [`Template`].
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Piece {
    /// Text as it stands.
    Text(String),
    /// `{n}`: level n of what was matched, from 0.
    Level(usize),
    /// `{name}` or `{name:argument}`.
    Name {
        /// What stands before the colon.
        name: String,
        /// What stands behind it.
        argument: Option<String>,
    },
}

/// The most partitions: far more than receivers that share a broker.
pub const PARTITIONS_MAX: u32 = 65_536;

/// The number of partitions that `{partition:N}` asks for.
pub fn partitions(argument: &str) -> Option<u32> {
    argument.parse().ok().filter(|partitions| (1..=PARTITIONS_MAX).contains(partitions))
}

/// The partition that an agent belongs to, from 0: the CRC-32 (IEEE 802.3) of its id, modulo their number. All that an agent sends is of one
/// partition, since only who gets all numbers of a stream can tell whether some are missing.
pub fn partition(agent: &str, partitions: u32) -> u32 {
    crc32fast::hash(agent.as_bytes()) % partitions.max(1)
}

/// Why a text is not a [`Template`], or cannot be filled in.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TemplateError {
    /// A brace without its other half.
    #[error(
        "expected `{{{{` or `}}}}` for a brace, or a place such as {{1}} or {{agent}}, found a lone brace in {0:?}"
    )]
    LoneBrace(String),
    /// `{}`.
    #[error("expected a level or a name between braces, found nothing in {0:?}")]
    EmptyPlace(String),
    /// What is filled in has no such level or name.
    #[error("nothing is known for {{{0}}} here")]
    UnknownPlace(String),
}

impl Template {
    /// The pieces in order.
    pub fn pieces(&self) -> &[Piece] {
        &self.pieces
    }

    /// Whether there is no place in it.
    pub fn is_literal(&self) -> bool {
        self.pieces.iter().all(|piece| matches!(piece, Piece::Text(_)))
    }

    /// Whether it uses levels of what was matched.
    pub fn has_levels(&self) -> bool {
        self.pieces.iter().any(|piece| matches!(piece, Piece::Level(_)))
    }

    /// Fills the places in; `fill` answers `None` for a place that it does not know.
    ///
    /// # Errors
    /// [`TemplateError::UnknownPlace`] names the first place that `fill` does not know.
    pub fn render<'a, F>(&self, mut fill: F) -> Result<String, TemplateError>
    where
        F: FnMut(&Piece) -> Option<std::borrow::Cow<'a, str>>,
    {
        let mut text = String::new();
        for piece in &self.pieces {
            match piece {
                Piece::Text(literal) => text.push_str(literal),
                place => match fill(place) {
                    Some(value) => text.push_str(&value),
                    None => return Err(TemplateError::UnknownPlace(place.inner())),
                },
            }
        }
        Ok(text)
    }

    /// Fills in the levels of a path; any other place is unknown.
    ///
    /// # Errors
    /// [`TemplateError::UnknownPlace`] for a level that the path does not have, or a name.
    pub fn render_levels(&self, path: &str) -> Result<String, TemplateError> {
        self.render(|piece| match piece {
            Piece::Level(n) => path.split('/').nth(*n).map(Into::into),
            _ => None,
        })
    }
}

impl Piece {
    /// What stands between the braces.
    fn inner(&self) -> String {
        match self {
            Self::Text(text) => text.clone(),
            Self::Level(n) => n.to_string(),
            Self::Name { name, argument: None } => name.clone(),
            Self::Name { name, argument: Some(argument) } => format!("{name}:{argument}"),
        }
    }
}

impl FromStr for Template {
    type Err = TemplateError;

    fn from_str(text: &str) -> Result<Self, TemplateError> {
        let lone = || TemplateError::LoneBrace(text.into());
        let mut pieces = Vec::new();
        let mut literal = String::new();
        let mut chars = text.chars().peekable();
        while let Some(c) = chars.next() {
            match c {
                '{' | '}' if chars.next_if_eq(&c).is_some() => literal.push(c),
                '}' => return Err(lone()),
                '{' => {
                    if !literal.is_empty() {
                        pieces.push(Piece::Text(std::mem::take(&mut literal)));
                    }
                    let mut inner = String::new();
                    loop {
                        match chars.next() {
                            Some('}') => break,
                            Some('{') | None => return Err(lone()),
                            Some(c) => inner.push(c),
                        }
                    }
                    pieces.push(place(&inner).ok_or_else(|| TemplateError::EmptyPlace(text.into()))?);
                }
                c => literal.push(c),
            }
        }
        if !literal.is_empty() {
            pieces.push(Piece::Text(literal));
        }
        Ok(Self { pieces })
    }
}

fn place(inner: &str) -> Option<Piece> {
    if let Ok(level) = inner.parse() {
        return Some(Piece::Level(level));
    }
    let (name, argument) = match inner.split_once(':') {
        Some((name, argument)) => (name, Some(argument.to_owned())),
        None => (inner, None),
    };
    (!name.is_empty()).then(|| Piece::Name { name: name.to_owned(), argument })
}

impl fmt::Display for Template {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for piece in &self.pieces {
            match piece {
                Piece::Text(text) => f.write_str(&text.replace('{', "{{").replace('}', "}}"))?,
                place => write!(f, "{{{}}}", place.inner())?,
            }
        }
        Ok(())
    }
}

impl From<Template> for String {
    fn from(template: Template) -> Self {
        template.to_string()
    }
}

impl TryFrom<String> for Template {
    type Error = TemplateError;

    fn try_from(text: String) -> Result<Self, TemplateError> {
        text.parse()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fills_levels_and_names() {
        let template: Template = "rtlive/{agent}/{1}/{{x}}/{partition:16}".parse().unwrap();
        let text = template.render(|piece| match piece {
            Piece::Level(1) => Some("one".into()),
            Piece::Name { name, argument: None } if name == "agent" => Some("gw".into()),
            Piece::Name { name, argument: Some(n) } if name == "partition" => Some(format!("p{n}").into()),
            _ => None,
        });
        assert_eq!(text.as_deref(), Ok("rtlive/gw/one/{x}/p16"));
        assert_eq!(template.to_string().parse(), Ok(template));
    }

    /// Receivers subscribe by these numbers, so that they never change.
    #[test]
    fn partitions_are_as_ever() {
        let of = |agent: &str| partition(agent, 16);
        assert_eq!(["gw-042", "gw-043", "gw-044"].map(of), [10, 12, 15]);
        assert_eq!(partition("gw-042", 1), 0);
        assert_eq!(["16", "1", "65536"].map(partitions), [Some(16), Some(1), Some(65_536)]);
        assert_eq!(["0", "65537", "-1", "", "x"].map(partitions), [None; 5]);
    }

    #[test]
    fn refuses_lone_braces_and_empty_places() {
        for text in ["{", "}", "a{b", "a}b", "{a{b}"] {
            assert!(matches!(text.parse::<Template>(), Err(TemplateError::LoneBrace(_))), "{text}");
        }
        assert!(matches!("{}".parse::<Template>(), Err(TemplateError::EmptyPlace(_))));
        let template: Template = "{7}".parse().unwrap();
        assert_eq!(template.render_levels("a/b"), Err(TemplateError::UnknownPlace("7".into())));
    }
}
