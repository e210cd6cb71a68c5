//! Derived series: expressions over others, which are series themselves.

use std::time::Duration;

use rtlive_core::expr::{Expression, Kind};
use rtlive_core::plan::{Binding, BindingSource, DerivedPlan, InputPlan, Join};
use rtlive_core::reading::{InputId, is_series_name};
use rtlive_core::selector::Selector;
use rtlive_core::template::{Piece, Template};

use crate::binding::{Source, check_bindings, instance_levels, looked_at, wrong_level};
use crate::quantity::Span;
use crate::table::Table;
use crate::value::Named;
use crate::{choices, options};

/// The most derived series that are written; each holds its state for each of its instances.
pub const DERIVED_MAX: usize = 10_000;

choices! {
    for Join {
        /// There is no reading.
        Inner = "inner",
        /// The expression decides; there is a bad reading where its value is missing.
        Left = "left",
    }
}

options! {
    /// A series that is computed from others. The table's name is that of the series; `{0}`, `{1}`, … in it are levels of the series that
    /// the filter in `let` selects. What each key does is in [rules.md](rules.md).
    pub struct DerivedOptions {
        /// The names in the expression, each with a series (`"boiler/temperature"`), or one with a filter with `+`: then there is a derived
        /// series for each that it selects, and the other names may use its levels (`"meters/{1}/current"`). The first name gives the
        /// times at which there is a reading.
        pub bindings: Named<Source> as "let",
        /// The value, by the names of `let`.
        pub expr: String,
        /// How old the values of the other names may be, from the time of the first. Must be there with more than one name.
        pub within: Option<Span>,
        /// What happens where a value of another name is missing.
        pub join: Join = "inner",
        /// The unit, as it stands beside the values.
        pub unit: Option<String>,
        later: ["class", "over"],
    }
}

/// What is known of the series that expressions look at.
#[derive(Debug, Default)]
pub(crate) struct Kinds(Vec<(Selector, Kind)>);

impl Kinds {
    /// The kind of the values of a name.
    pub(crate) fn of(&self, bindings: &[Binding], name: &str) -> Kind {
        let binding = bindings.iter().find(|binding| &*binding.name == name);
        let Some(filter) = binding.and_then(|binding| looked_at(bindings, binding)) else { return Kind::Any };
        self.0.iter().find(|(made, _)| made.covers(&filter)).map_or(Kind::Any, |(_, kind)| *kind)
    }
}

/// A table that is right but for its expression, which needs to know what the series are that it looks at.
struct Draft<'a> {
    table: Table<'a>,
    name: Template,
    /// The series that it makes, and those that it looks at.
    makes: Selector,
    looks_at: Vec<Selector>,
    bindings: Vec<Binding>,
    options: DerivedOptions,
}

/// Checks `[derived.*]`; the derived series, those that others depend on first, whose inputs follow the `inputs` that there are.
pub(crate) fn check(root: &Table<'_>, inputs: &mut Vec<InputPlan>) -> (Vec<DerivedPlan>, Kinds) {
    let mut kinds = Kinds::default();
    let Some(derived) = root.table("derived") else { return (Vec::new(), kinds) };
    let mut tables = derived.tables();
    if tables.len() > DERIVED_MAX {
        derived.mistake("", format!("at most {DERIVED_MAX} derived series"), tables.len());
        return (Vec::new(), kinds);
    }
    tables.sort_by_key(|(name, _)| *name);
    let drafts: Vec<Draft<'_>> = tables.into_iter().filter_map(|(name, table)| draft(name, table)).collect();
    for (i, one) in drafts.iter().enumerate() {
        if let Some(other) = drafts.iter().take(i).find(|other| other.makes.overlaps(&one.makes)) {
            let found = format!("\"{}\", beside \"{}\" at {}", one.name, other.name, other.table.place_of("expr"));
            one.table.mistake("", "a name of its own, so that no series has two sources", found);
        }
    }
    let mut plans = Vec::new();
    for draft in in_order(drafts) {
        plans.extend(draft.finish(&mut kinds, inputs));
    }
    (plans, kinds)
}

fn draft<'a>(name: &str, table: Table<'a>) -> Option<Draft<'a>> {
    let options = DerivedOptions::read(&table);
    let expected =
        "a series such as \"plant/power\", with levels of the filter in `let` as places: \"meters/{1}/power\"";
    let template: Option<Template> = name.parse().ok();
    let Some(template) = template.filter(is_name) else {
        table.mistake("", expected, format!("{name:?}"));
        return None;
    };
    let options = options?;
    let mut right = check_bindings(&table, &options.bindings.0);
    if let Some((expected, found)) = wrong_level(&template, instance_levels(&options.bindings.0)) {
        table.mistake("", expected, found);
        right = false;
    }
    if options.bindings.0.len() > 1 && options.within.is_none() {
        table.mistake("let", "`within` beside more than one name: how old the values of the others may be", "none");
        right = false;
    }
    let bindings: Vec<Binding> = options
        .bindings
        .0
        .iter()
        .map(|(name, source)| Binding { name: name.as_str().into(), source: source.0.clone() })
        .collect();
    if let Some(level) = bindings.iter().find_map(|binding| unused_level(&binding.source, &template)) {
        table.mistake(
            "",
            format!("a name with each level that `+` stands for, here {{{level}}}, so that each has its own"),
            format!("{name:?}"),
        );
        right = false;
    }
    if !right {
        return None;
    }
    let own = Binding { name: "".into(), source: BindingSource::Series(template.clone()) };
    let makes = looked_at(&bindings, &own)?;
    let looks_at = bindings.iter().filter_map(|binding| looked_at(&bindings, binding)).collect();
    Some(Draft { table, name: template, makes, looks_at, bindings, options })
}

/// Whether a template is the name of a series once its places are filled in.
fn is_name(template: &Template) -> bool {
    let only_levels = template.pieces().iter().all(|piece| !matches!(piece, Piece::Name { .. }));
    only_levels && template.render(|_| Some("x".into())).is_ok_and(|name| is_series_name(&name))
}

/// A level that a filter leaves open and a name does not use.
fn unused_level(source: &BindingSource, name: &Template) -> Option<usize> {
    let BindingSource::Each(filter) = source else { return None };
    let filter = filter.to_string();
    let open = filter.split('/').enumerate().filter(|(_, level)| *level == "+").map(|(level, _)| level);
    open.into_iter().find(|level| !name.pieces().iter().any(|piece| matches!(piece, Piece::Level(n) if n == level)))
}

/// Those that others depend on first; what is left depends on itself, which is a mistake.
fn in_order(mut drafts: Vec<Draft<'_>>) -> Vec<Draft<'_>> {
    let mut ordered = Vec::with_capacity(drafts.len());
    while !drafts.is_empty() {
        let waits = |draft: &Draft<'_>| {
            drafts.iter().find(|other| draft.looks_at.iter().any(|filter| filter.overlaps(&other.makes)))
        };
        let ready: Vec<bool> = drafts.iter().map(|draft| waits(draft).is_none()).collect();
        if !ready.contains(&true) {
            for draft in &drafts {
                let found =
                    waits(draft).map(|other| format!("a name that looks at \"{}\", which depends on it", other.name));
                draft.table.mistake("let", "series that do not depend on this one", found.unwrap_or_default());
            }
            return ordered;
        }
        let mut ready = ready.into_iter();
        let (next, rest) = drafts.into_iter().partition(|_| ready.next() == Some(true));
        ordered.extend::<Vec<_>>(next);
        drafts = rest;
    }
    ordered
}

impl Draft<'_> {
    fn finish(self, kinds: &mut Kinds, inputs: &mut Vec<InputPlan>) -> Option<DerivedPlan> {
        let Self { table, name, makes, bindings, options, .. } = self;
        let names: Vec<(&str, Kind)> =
            bindings.iter().map(|binding| (&*binding.name, kinds.of(&bindings, &binding.name))).collect();
        let expr = match Expression::parse_typed(&options.expr, &names) {
            Ok(expr) => expr,
            Err(error) => {
                table.mistake_in_text("expr", error.at, error.expected, error.found);
                return None;
            }
        };
        kinds.0.push((makes, expr.kind()));
        let input = InputId(u16::try_from(inputs.len()).ok()?);
        inputs.push(InputPlan::derived(&name));
        let within = options.within.map_or(Duration::ZERO, |within| within.0);
        let unit = options.unit.map(Into::into);
        Some(DerivedPlan { name, input, bindings, within, join: options.join, expr, unit })
    }
}

/// The series that derived series make, as filters, for those who ask whether anybody makes one.
pub(crate) fn made(derived: &[DerivedPlan]) -> impl Iterator<Item = Selector> {
    derived.iter().filter_map(|derived| {
        let own = Binding { name: "".into(), source: BindingSource::Series(derived.name.clone()) };
        looked_at(&derived.bindings, &own)
    })
}
