//! `let`: the names of expressions, each with the series that its value comes from.

use rtlive_core::plan::{Binding, BindingSource};
use rtlive_core::selector::Selector;
use rtlive_core::template::{Piece, Template};

use crate::table::{Table, Value};
use crate::value::{Setting, or_wrong};

/// The most names that a `let` binds.
pub const BINDINGS_MAX: usize = 64;

/// Words of expressions, which cannot be names in them.
const WORDS: [&str; 12] = ["and", "or", "not", "true", "false", "if", "min", "max", "abs", "clamp", "prev", "rate"];

/// Where a name's value comes from.
#[derive(Clone, Debug, PartialEq)]
pub struct Source(pub BindingSource);

impl Setting for Source {
    fn expected() -> String {
        "a series such as \"boiler/temperature\", or a filter with `+`".into()
    }

    fn read(value: &Value<'_>) -> Option<Self> {
        or_wrong(value, value.as_text().and_then(Self::of))
    }
}

impl Source {
    /// What a text names.
    pub(crate) fn of(text: &str) -> Option<Self> {
        if text.is_empty() {
            return None;
        }
        if text.contains('+') {
            let selector = text.parse::<Selector>().ok().filter(|_| !text.contains(['#', '{', '}']));
            return selector.map(|selector| Self(BindingSource::Each(selector)));
        }
        let template = text.parse::<Template>().ok().filter(|_| !text.contains('#'));
        let only_levels =
            |template: &Template| template.pieces().iter().all(|piece| !matches!(piece, Piece::Name { .. }));
        template.filter(only_levels).map(|template| Self(BindingSource::Series(template)))
    }
}

/// How many levels the series of an instance have; `None` where there is only one instance.
pub(crate) fn instance_levels(bindings: &[(String, Source)]) -> Option<usize> {
    bindings.iter().find_map(|(_, source)| match &source.0 {
        BindingSource::Each(selector) => Some(selector.to_string().split('/').count()),
        BindingSource::Series(_) => None,
    })
}

/// Checks the names of a `let` and what they look at; what is wrong is noted.
pub(crate) fn check_bindings(table: &Table<'_>, bindings: &[(String, Source)]) -> bool {
    let mut right = true;
    let mut wrong = |name: &str, expected: String, found: String| {
        let key = if name.is_empty() { "let".to_owned() } else { format!("let.{name}") };
        table.mistake(&key, expected, found);
        right = false;
    };
    if bindings.is_empty() {
        wrong("", "at least one name with its series".into(), "none".into());
    }
    if bindings.len() > BINDINGS_MAX {
        wrong("", format!("at most {BINDINGS_MAX} names"), bindings.len().to_string());
    }
    let levels = instance_levels(bindings);
    let mut filters = 0;
    for (name, source) in bindings {
        if !is_identifier(name) {
            let expected = "a name of letters, digits and `_` that is no word of expressions";
            wrong(name, expected.into(), format!("{name:?}"));
        }
        match &source.0 {
            BindingSource::Each(filter) => {
                filters += 1;
                if filters > 1 {
                    let expected = "one filter in a `let`, and the others by its levels such as {1}";
                    wrong(name, expected.into(), format!("\"{filter}\", a second one"));
                }
            }
            BindingSource::Series(template) => {
                if let Some((expected, found)) = wrong_level(template, levels) {
                    wrong(name, expected, found);
                }
            }
        }
    }
    right
}

/// What is wrong with the levels that a template uses, as expected and found.
pub(crate) fn wrong_level(template: &Template, levels: Option<usize>) -> Option<(String, String)> {
    template.pieces().iter().find_map(|piece| match (piece, levels) {
        (Piece::Level(n), None) => {
            Some(("a filter with `+` in another name, whose level this is".into(), format!("{{{n}}} without one")))
        }
        (Piece::Level(n), Some(levels)) if *n >= levels => {
            Some((format!("a level of the filter, {{0}} to {{{}}}", levels.saturating_sub(1)), format!("{{{n}}}")))
        }
        _ => None,
    })
}

/// Whether a text is a name in expressions.
fn is_identifier(text: &str) -> bool {
    let mut chars = text.chars();
    chars.next().is_some_and(|c| c.is_ascii_alphabetic() || c == '_')
        && chars.all(|c| c.is_ascii_alphanumeric() || c == '_')
        && !WORDS.contains(&text)
}

/// The series that a name looks at, as a filter: what stands at a level that the instance brings is open.
pub(crate) fn looked_at(bindings: &[Binding], binding: &Binding) -> Option<Selector> {
    let instance = bindings.iter().find_map(|binding| match &binding.source {
        BindingSource::Each(filter) => Some(filter.to_string()),
        BindingSource::Series(_) => None,
    });
    match &binding.source {
        BindingSource::Each(filter) => Some(filter.clone()),
        BindingSource::Series(template) => {
            // A place beside other characters of its level (`m{1}`) leaves that level open too.
            let written = template.to_string();
            let levels =
                written.split('/').map(|level| match level.strip_prefix('{').and_then(|l| l.strip_suffix('}')) {
                    Some(n) => {
                        let level = n.parse().ok().and_then(|n: usize| instance.as_deref()?.split('/').nth(n));
                        level.unwrap_or("+").to_owned()
                    }
                    None if level.contains(['{', '}']) => "+".to_owned(),
                    None => level.to_owned(),
                });
            levels.collect::<Vec<_>>().join("/").parse().ok()
        }
    }
}
