//! Rules: conditions over series, which raise and clear alerts.

use std::collections::BTreeMap;
use std::sync::Arc;

use rtlive_core::expr::{Expression, Kind};
use rtlive_core::plan::{Binding, BindingSource, RulePlan, Severity};
use rtlive_core::selector::Selector;
use rtlive_core::template::{Piece, Template};

use crate::name::named_tables;
use crate::table::{Table, Value};
use crate::value::{Named, Setting};
use crate::{choices, options};

/// The most rules of an agent; each holds its state for each of its instances.
pub const RULES_MAX: usize = 10_000;

/// The most names that a rule binds.
pub const BINDINGS_MAX: usize = 64;

/// Words of expressions, which cannot be names in them.
const WORDS: [&str; 12] = ["and", "or", "not", "true", "false", "if", "min", "max", "abs", "clamp", "prev", "rate"];

/// Places of a message beside the rule's own names.
const MESSAGE_PLACES: [&str; 4] = ["agent", "rule", "instance", "series"];

choices! {
    for Severity {
        /// Good to know.
        Info = "info",
        /// Look at it.
        Warning = "warning",
        /// Act now.
        Critical = "critical",
    }
}

options! {
    /// A condition over the newest values of series. An alert is raised when it becomes true.
    pub struct RuleOptions {
        /// The names in the expressions, each with a series (`"boiler/temperature"`), or one with a filter with `+`: then there is an
        /// instance of the rule for each series that it selects, and the other names may use its levels (`"meters/{1}/current"`).
        pub bindings: Named<Source> as "let",
        /// Raises the alert when it becomes true. A value that is missing makes no condition true or false.
        pub when: String,
        /// Clears the alert when it becomes true. Absent: when `when` becomes false.
        pub clear: Option<String>,
        /// How much it matters.
        pub severity: Severity = "warning",
        /// The text of the alert; places are the names of `let`, `{0}`, `{1}`, … (levels of the instance's series), `{agent}`, `{rule}`,
        /// `{instance}` and `{label.NAME}`. Absent: the rule's name and condition.
        pub message: Option<Template>,
        later: ["for", "absent", "select", "repeat", "class"],
    }
}

/// Where a name's value comes from.
#[derive(Clone, Debug, PartialEq)]
pub struct Source(pub BindingSource);

impl Setting for Source {
    fn expected() -> String {
        "a series such as \"boiler/temperature\", or a filter with `+`".into()
    }

    fn read(value: &Value<'_>) -> Option<Self> {
        let wrong = || {
            value.wrong(Self::expected());
            None
        };
        let Some(text) = value.as_text().filter(|text| !text.is_empty()) else { return wrong() };
        if text.contains('+') {
            let selector = text.parse::<Selector>().ok().filter(|_| !text.contains(['#', '{', '}']));
            return selector.map(|selector| Self(BindingSource::Each(selector))).or_else(wrong);
        }
        let template = text.parse::<Template>().ok().filter(|_| !text.contains('#'));
        let only_levels =
            |template: &Template| template.pieces().iter().all(|piece| !matches!(piece, Piece::Name { .. }));
        template.filter(only_levels).map(|template| Self(BindingSource::Series(template))).or_else(wrong)
    }
}

/// Checks `[rules.*]`; the rules by name.
pub(crate) fn check(root: &Table<'_>, labels: Option<&BTreeMap<String, String>>) -> Vec<RulePlan> {
    let Some(rules) = root.table("rules") else { return Vec::new() };
    let tables = named_tables(&rules, "a rule");
    if tables.len() > RULES_MAX {
        rules.mistake("", format!("at most {RULES_MAX} rules"), tables.len());
        return Vec::new();
    }
    tables.iter().filter_map(|(name, table)| rule(name, table, labels)).collect()
}

fn rule(name: &str, table: &Table<'_>, labels: Option<&BTreeMap<String, String>>) -> Option<RulePlan> {
    // `absent` makes a rule without a condition: not yet, and then `when` is not missing either.
    if table.has("absent") && !table.has("when") {
        table.refuse_later(&["for", "absent", "select", "repeat", "class"]);
        table.knows(&["let", "clear", "severity", "message"]);
        for key in ["let", "clear", "severity", "message"] {
            table.dealt_with(key);
        }
        table.close();
        return None;
    }
    // The expressions are compiled whatever else is wrong, so that their mistakes are told with the others.
    let names: Vec<&str> = table.table("let").iter().flat_map(Table::keys).collect();
    let compiled =
        |key: &str| table.text(key).filter(|text| !text.is_empty()).map(|text| condition(table, key, text, &names));
    let (when, clear) = (compiled("when"), compiled("clear"));
    let options = RuleOptions::read(table);
    let RuleOptions { bindings, when: _, clear: _, severity, message } = options?;
    let bindings = bindings.0;
    let bindings_are_right = check_bindings(table, &bindings);
    let levels = instance_levels(&bindings);
    let message_is_right = message.as_ref().is_none_or(|message| check_message(table, message, &names, levels, labels));
    if !bindings_are_right || !message_is_right {
        return None;
    }
    let bindings = bindings.into_iter().map(|(name, source)| Binding { name: name.into(), source: source.0 }).collect();
    let clear = match clear {
        Some(clear) => Some(clear?),
        None => None,
    };
    Some(RulePlan { name: Arc::from(name), bindings, when: when??, clear, severity, message })
}

/// How many levels the series of an instance have; `None` for a rule that has only one instance.
fn instance_levels(bindings: &[(String, Source)]) -> Option<usize> {
    bindings.iter().find_map(|(_, source)| match &source.0 {
        BindingSource::Each(selector) => Some(selector.to_string().split('/').count()),
        BindingSource::Series(_) => None,
    })
}

fn check_bindings(table: &Table<'_>, bindings: &[(String, Source)]) -> bool {
    let mut right = true;
    let mut wrong = |name: &str, expected: String, found: String| {
        table.mistake(&format!("let.{name}"), expected, found);
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
                    let expected = "one filter in a rule, and the others by its levels such as {1}";
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
fn wrong_level(template: &Template, levels: Option<usize>) -> Option<(String, String)> {
    template.pieces().iter().find_map(|piece| match (piece, levels) {
        (Piece::Level(n), None) => {
            Some(("a filter with `+` in another name, whose level this is".into(), format!("{{{n}}} without one")))
        }
        (Piece::Level(n), Some(levels)) if *n >= levels => Some((
            format!("a level of the rule's filter, {{0}} to {{{}}}", levels.saturating_sub(1)),
            format!("{{{n}}}"),
        )),
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

fn condition(table: &Table<'_>, key: &str, text: &str, names: &[&str]) -> Option<Expression> {
    match Expression::parse(text, names) {
        Ok(expression) if matches!(expression.kind(), Kind::Bool | Kind::Any) => Some(expression),
        Ok(expression) => {
            table.mistake(
                key,
                "a condition, true or false",
                format!("{}, which is {}", quoted(text), expression.kind()),
            );
            None
        }
        Err(error) => {
            table.mistake_in_text(key, error.at, error.expected, error.found);
            None
        }
    }
}

fn quoted(text: &str) -> String {
    format!("{text:?}")
}

fn check_message(
    table: &Table<'_>,
    message: &Template,
    names: &[&str],
    levels: Option<usize>,
    labels: Option<&BTreeMap<String, String>>,
) -> bool {
    if let Some((expected, found)) = wrong_level(message, levels) {
        table.mistake("message", expected, found);
        return false;
    }
    let unknown = message.pieces().iter().find_map(|piece| match piece {
        Piece::Name { name, argument: Some(argument) } => Some(format!("{name}:{argument}")),
        Piece::Name { name, argument: None } => {
            let is_known = names.contains(&name.as_str())
                || MESSAGE_PLACES.contains(&name.as_str())
                || name
                    .strip_prefix("label.")
                    .is_some_and(|label| labels.is_none_or(|labels| labels.contains_key(label)));
            (!is_known).then(|| name.clone())
        }
        Piece::Text(_) | Piece::Level(_) => None,
    });
    if let Some(unknown) = unknown {
        let expected = format!("places that are known here ({})", names.join(", "));
        table.mistake("message", expected, format!("{{{unknown}}}"));
        return false;
    }
    true
}

/// The series that a rule's name looks at, as a filter: what stands at a level that the instance brings is open.
pub(crate) fn looked_at(rule: &RulePlan, binding: &Binding) -> Option<Selector> {
    let instance = rule.bindings.iter().find_map(|binding| match &binding.source {
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
