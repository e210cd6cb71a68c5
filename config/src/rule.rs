//! Rules: conditions over series, which raise and clear alerts.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use rtlive_core::expr::{Expression, Kind};
use rtlive_core::plan::{Binding, Condition, RulePlan, Severity};
use rtlive_core::selector::Selector;
use rtlive_core::template::{Piece, Template};

use crate::binding::{Source, check_bindings, instance_levels, wrong_level};
use crate::derived::Kinds;
use crate::name::named_tables;
use crate::quantity::{Period, write_span};
use crate::table::Table;
use crate::value::{Named, OneOrMany};
use crate::{choices, options};

/// The most rules of an agent; each holds its state for each of its instances.
pub const RULES_MAX: usize = 10_000;

/// The least `absent` and `repeat`: an alert is a commit and a message of its own, and no source or person keeps up with more.
const SPAN_MIN: Duration = Duration::from_secs(1);

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
    /// A condition over the newest values of series, or their absence. An alert is raised when it becomes true. Either `when` or
    /// `absent` is there. What each key does is in [rules.md](rules.md).
    pub struct RuleOptions {
        /// The names in the expressions, each with a series (`"boiler/temperature"`), or one with a filter with `+`: then there is an
        /// instance of the rule for each series that it selects, and the other names may use its levels (`"meters/{1}/current"`).
        pub bindings: Named<Source> as "let",
        /// Raises the alert when it becomes true. A value that is missing makes no condition true or false.
        pub when: Option<String>,
        /// For how long `when` must be true before the alert is raised, by the times of the readings, or by the wall clock since the first
        /// of them arrived. Absent: at once.
        pub hold: Option<Period> as "for",
        /// Clears the alert when it becomes true. Absent: when `when` becomes false.
        pub clear: Option<String>,
        /// Raises the alert of a series of which no reading, good or bad, has arrived for so long; the next one clears it. It is counted anew
        /// from the start of the agent.
        pub absent: Option<Period>,
        /// The series for `absent`, by filters; each makes an instance once it was heard. One that is named without wildcards is missed
        /// also when it was never heard.
        pub select: Option<OneOrMany<Selector>>,
        /// How often an alert that stays raised is said again. Absent: never.
        pub repeat: Option<Period>,
        /// How much it matters.
        pub severity: Severity = "warning",
        /// The text of the alert; places are the names of `let`, `{0}`, `{1}`, … (levels of the instance's series), `{agent}`, `{rule}`,
        /// `{instance}` and `{label.NAME}`. Absent: the rule's name and condition.
        pub message: Option<Template>,
        later: ["class"],
    }
}

/// Checks `[rules.*]`; the rules by name.
pub(crate) fn check(root: &Table<'_>, labels: Option<&BTreeMap<String, String>>, kinds: &Kinds) -> Vec<RulePlan> {
    let Some(rules) = root.table("rules") else { return Vec::new() };
    let tables = named_tables(&rules, "a rule");
    if tables.len() > RULES_MAX {
        rules.mistake("", format!("at most {RULES_MAX} rules"), tables.len());
        return Vec::new();
    }
    tables.iter().filter_map(|(name, table)| rule(name, table, labels, kinds)).collect()
}

fn rule(name: &str, table: &Table<'_>, labels: Option<&BTreeMap<String, String>>, kinds: &Kinds) -> Option<RulePlan> {
    // The expressions are compiled whatever else is wrong, so that their mistakes are told with the others.
    let written = table.table("let");
    let names: Vec<&str> = written.iter().flat_map(Table::keys).collect();
    let sources = names.iter().filter_map(|name| {
        let source = Source::of(written.as_ref()?.text(name)?)?;
        Some(Binding { name: (*name).into(), source: source.0 })
    });
    let sources: Vec<Binding> = sources.collect();
    let typed: Vec<_> = names.iter().map(|name| (*name, kinds.of(&sources, name))).collect();
    let compiled =
        |key: &str| table.text(key).filter(|text| !text.is_empty()).map(|text| condition(table, key, text, &typed));
    let (when, clear) = (compiled("when"), compiled("clear"));
    let mut is_sorted = check_sort(table);
    let RuleOptions { bindings, hold, absent, select, repeat, severity, message, .. } = RuleOptions::read(table)?;
    let bindings = bindings.0;
    for (key, span) in [("absent", absent), ("repeat", repeat)] {
        if let Some(span) = span.filter(|span| span.0 < SPAN_MIN) {
            let expected = format!("at least {}", write_span(SPAN_MIN));
            table.mistake(key, expected, write_span(span.0));
            is_sorted = false;
        }
    }
    let bindings_are_right = !table.has("when") || check_bindings(table, &bindings);
    let levels = match &select {
        // A filter with `#` has series of any number of levels.
        Some(_) => Some(usize::MAX),
        None => instance_levels(&bindings),
    };
    let message_is_right = message.as_ref().is_none_or(|message| check_message(table, message, &names, levels, labels));
    if !is_sorted || !bindings_are_right || !message_is_right {
        return None;
    }
    let bindings = bindings.into_iter().map(|(name, source)| Binding { name: name.into(), source: source.0 }).collect();
    let condition = match (absent, select) {
        (Some(after), Some(select)) => Condition::Absent { after: after.0, select: select.into_vec() },
        _ => Condition::Holds {
            when: when??,
            clear: match clear {
                Some(clear) => Some(clear?),
                None => None,
            },
            hold: hold.map_or(Duration::ZERO, |hold| hold.0),
        },
    };
    let repeat = repeat.map(|repeat| repeat.0);
    Some(RulePlan { name: Arc::from(name), bindings, condition, severity, message, repeat })
}

/// Checks that the keys are those of one sort of rule: of one over values, or of one over absence.
fn check_sort(table: &Table<'_>) -> bool {
    let mut right = true;
    let mut wrong = |key: &str, expected: &str, found: &str| {
        table.mistake(key, expected, found);
        right = false;
    };
    let (of_values, of_absence) = (["when", "clear", "for", "let"], ["select"]);
    match (table.has("when"), table.has("absent")) {
        (false, false) => wrong("", "`when`, or `absent` with `select`", "neither"),
        (_, true) => {
            for key in of_values.into_iter().filter(|key| table.has(key)) {
                wrong(key, "nothing that is about values, in a rule with `absent`", &format!("`{key}`"));
            }
            if !table.has("select") {
                wrong("absent", "`select` with the series that are missed", "`absent` alone");
            }
        }
        (true, false) => {
            for key in of_absence.into_iter().filter(|key| table.has(key)) {
                wrong(key, "nothing that is about absence, in a rule with `when`", &format!("`{key}`"));
            }
        }
    }
    right
}

fn condition(table: &Table<'_>, key: &str, text: &str, names: &[(&str, Kind)]) -> Option<Expression> {
    match Expression::parse_typed(text, names) {
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
