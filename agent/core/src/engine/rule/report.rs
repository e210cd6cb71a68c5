//! What an alert says.

use std::borrow::Cow;
use std::sync::Arc;

use super::InstanceScope;
use crate::expr::Scope;
use crate::plan::{Condition, Plan, RulePlan};
use crate::reading::ClockState;
use crate::record::{Alert, AlertState};
use crate::template::{Piece, Template};
use crate::time::Timestamp;

/// The alert of an instance, with the values that its bindings have now.
pub(super) fn report(
    plan: &Plan,
    rule: &RulePlan,
    instance: &Arc<str>,
    state: AlertState,
    scope: &InstanceScope<'_>,
    time: Timestamp,
) -> Alert {
    let values: Vec<_> = rule
        .bindings
        .iter()
        .enumerate()
        .map(|(i, binding)| (Arc::clone(&binding.name), scope.newest(i).and_then(|sample| sample.value.clone())))
        .collect();
    let message = match &rule.message {
        Some(template) => message(template, plan, rule, instance, &values),
        None => match &rule.condition {
            Condition::Holds { when, .. } => format!("{}: {when}", rule.name),
            Condition::Absent { after, .. } => format!("{}: nothing of {instance} for {after:?}", rule.name),
        },
    };
    Alert {
        rule: Arc::clone(&rule.name),
        instance: Arc::clone(instance),
        severity: rule.severity,
        time,
        state,
        message: message.into(),
        values,
        clock: ClockState::Synced,
    }
}

/// Fills in a message: bindings by their names, levels of the instance's series, then `{rule}`, `{instance}` and `{series}` (the same),
/// `{agent}` and `{label.NAME}`. A value that is missing reads `missing`; a place that nothing is known for stays as it is.
fn message(
    template: &Template,
    plan: &Plan,
    rule: &RulePlan,
    instance: &str,
    values: &[(Arc<str>, Option<crate::reading::Value>)],
) -> String {
    let fill = |piece: &Piece| -> Option<Cow<'static, str>> {
        Some(Cow::Owned(match piece {
            Piece::Text(text) => text.clone(),
            Piece::Level(n) => instance.split('/').nth(*n).map_or_else(|| format!("{{{n}}}"), str::to_owned),
            Piece::Name { name, argument } => {
                if let Some((_, value)) = values.iter().find(|(binding, _)| **binding == **name) {
                    value.as_ref().map_or_else(|| "missing".to_owned(), ToString::to_string)
                } else {
                    match (name.as_str(), argument) {
                        ("rule", None) => rule.name.to_string(),
                        ("instance" | "series", None) => instance.to_owned(),
                        ("agent", None) => plan.agent.to_string(),
                        (name, argument) => match name.strip_prefix("label.").and_then(|name| plan.labels.get(name)) {
                            Some(label) => label.clone(),
                            None => match argument {
                                Some(argument) => format!("{{{name}:{argument}}}"),
                                None => format!("{{{name}}}"),
                            },
                        },
                    }
                }
            }
        }))
    };
    // Every place is filled in above, so there is nothing that could be unknown.
    template.render(fill).unwrap_or_default()
}
