//! Derived series: expressions over others, which are series themselves.

use std::collections::BTreeMap;
use std::time::Duration;

use rtlive_core::expr::{Expression, Kind};
use rtlive_core::plan::{
    Binding, BindingSource, DerivedPlan, Function, InputPlan, Join, StreamId, StreamKind, StreamPlan, WindowJoin,
    WindowKind, WindowPlan,
};
use rtlive_core::reading::{InputId, is_series_name};
use rtlive_core::selector::Selector;
use rtlive_core::sorted;
use rtlive_core::template::{Piece, Template};

use crate::binding::{Source, check_bindings, instance_levels, looked_at, wrong_level};
use crate::input::InputConfig;
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
        /// The value, by the names of `let`; with `over`, by their aggregates: `"u.mean * i.max"`.
        pub expr: String,
        /// How old the values of the other names may be, from the time of the first. Must be there with more than one name, unless there
        /// is `over`.
        pub within: Option<Span>,
        /// The name of a window (not of sessions) whose aggregates are joined instead of readings: there is a reading at the start of each
        /// window of the first name, once the windows of all have closed.
        pub over: Option<String>,
        /// What happens where a value of another name is missing.
        pub join: Join = "inner",
        /// The unit, as it stands beside the values.
        pub unit: Option<String>,
        later: ["class"],
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
    over: Option<(StreamId, &'a WindowPlan)>,
}

/// Checks `[derived.*]`; the derived series, those that others depend on first, whose inputs follow the `inputs` that there are.
pub(crate) fn check(
    root: &Table<'_>,
    streams: &[StreamPlan],
    inputs: &mut Vec<InputPlan>,
) -> (Vec<DerivedPlan>, Kinds) {
    let mut kinds = Kinds::default();
    let Some(derived) = root.table("derived") else { return (Vec::new(), kinds) };
    let mut tables = derived.tables();
    if tables.len() > DERIVED_MAX {
        derived.mistake("", format!("at most {DERIVED_MAX} derived series"), tables.len());
        return (Vec::new(), kinds);
    }
    sorted::by_key(&mut tables, |(name, _)| *name);
    let drafts: Vec<Draft<'_>> = tables.into_iter().filter_map(|(name, table)| draft(name, table, streams)).collect();
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

/// Refuses derived series that an input makes too, as far as it is known what that makes.
pub(crate) fn check_sources<I>(root: &Table<'_>, derived: &[DerivedPlan], inputs: &[InputConfig<I>]) {
    let series = inputs.iter().flat_map(|input| input.series.iter().map(|series| (&**series, &*input.name)));
    let known: BTreeMap<&str, &str> = series.collect();
    for one in derived {
        let own = one.name.to_string();
        let made = known.keys().filter(|maker| !one.name.is_literal() && one.is_made_by(maker));
        let made = made.filter_map(|maker| one.name.render_levels(maker).ok());
        let twice = |name: String| known.get_key_value(&*name).map(|(name, input)| (*name, *input));
        if let Some((name, input)) = std::iter::once(own.clone()).chain(made).find_map(twice) {
            let place = root.place_of(&format!("inputs.{input}"));
            let found = format!("\"{name}\", beside that of the input {input} at {place}");
            let key = format!("derived.{}", crate::document::quoted(&own));
            root.mistake(&key, "a name of its own, so that no series has two sources", found);
        }
    }
}

fn draft<'a>(name: &str, table: Table<'a>, streams: &'a [StreamPlan]) -> Option<Draft<'a>> {
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
    let over = options.over.as_ref().map(|name| window(&table, name, streams));
    right &= over != Some(None);
    let over = over.flatten();
    if options.over.is_some() {
        if options.within.is_some() {
            table.mistake("within", "no `within` beside `over`: aggregates of the same window are joined", "one");
            right = false;
        }
    } else if options.bindings.0.len() > 1 && options.within.is_none() {
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
    let looks_at: Vec<Selector> = bindings.iter().filter_map(|binding| looked_at(&bindings, binding)).collect();
    if let Some((_, window)) = over {
        let is_taken = |filter: &Selector| window.select.iter().any(|select| select.overlaps(filter));
        if let Some(filter) = looks_at.iter().find(|filter| !is_taken(filter)) {
            let over = options.over.as_deref().unwrap_or_default();
            table.mistake(
                "over",
                "a window that selects all series of `let`",
                format!("{over:?}, which takes none of \"{filter}\""),
            );
            return None;
        }
    }
    Some(Draft { table, name: template, makes, looks_at, bindings, options, over })
}

/// The window of a name, whose aggregates are joined.
fn window<'a>(table: &Table<'_>, name: &str, streams: &'a [StreamPlan]) -> Option<(StreamId, &'a WindowPlan)> {
    let windows = (0..).zip(streams).filter_map(|(place, stream)| match &stream.kind {
        StreamKind::Window(window) => Some((StreamId(place), &stream.name, window)),
        _ => None,
    });
    let Some((stream, _, window)) = windows.clone().find(|(_, known, _)| &***known == name) else {
        let names: Vec<&str> = windows.map(|(_, name, _)| &**name).collect();
        let names = if names.is_empty() { "none".into() } else { names.join(", ") };
        table.mistake("over", format!("the name of a window (there is {names})"), format!("{name:?}"));
        return None;
    };
    if matches!(window.kind, WindowKind::Session { .. }) {
        table.mistake(
            "over",
            "a window that begins at the same time for all series",
            format!("{name:?}, which has sessions"),
        );
        return None;
    }
    Some((stream, window))
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
        let Self { table, name, makes, bindings, options, over, .. } = self;
        let kind = |binding: &Binding| kinds.of(&bindings, &binding.name);
        let names: Vec<(Binding, Kind, Option<Function>)> = match over {
            None => bindings.iter().map(|binding| (binding.clone(), kind(binding), None)).collect(),
            Some((_, window)) => {
                let aggregates = |binding| window.compute.iter().map(move |&function| aggregate(binding, function));
                bindings.iter().flat_map(aggregates).collect()
            }
        };
        let known: Vec<(&str, Kind)> = names.iter().map(|(binding, kind, _)| (&*binding.name, *kind)).collect();
        let mut expr = match Expression::parse_typed(&options.expr, &known) {
            Ok(expr) => expr,
            Err(error) => {
                table.mistake_in_text("expr", error.at, error.expected, error.found);
                return None;
            }
        };
        let (mut bindings, mut window_join) = (bindings, None);
        if let Some((window, _)) = over {
            // Those that the expression does without are not joined, so that nothing waits for them.
            let is_used = |name: &str| {
                let others: Vec<_> = known.iter().copied().filter(|(other, _)| *other != name).collect();
                Expression::parse_typed(&options.expr, &others).is_err()
            };
            let used: Vec<_> = names.iter().filter(|(binding, ..)| is_used(&binding.name)).collect();
            let is_of = |name: &str, (aggregate, ..): &&&(Binding, Kind, Option<Function>)| {
                aggregate.name.strip_prefix(name).is_some_and(|rest| rest.starts_with('.'))
            };
            if let Some(unused) = bindings.iter().find(|binding| !used.iter().any(|one| is_of(&binding.name, &one))) {
                let expected = "names that `expr` uses, each with an aggregate such as `u.mean`";
                table.mistake("let", expected, format!("`{}`, which it does not", unused.name));
                return None;
            }
            let known: Vec<(&str, Kind)> = used.iter().map(|(binding, kind, _)| (&*binding.name, *kind)).collect();
            expr = Expression::parse_typed(&options.expr, &known).ok()?;
            let functions = used.iter().filter_map(|(.., function)| *function).collect();
            window_join = Some(WindowJoin { window, functions });
            bindings = used.iter().map(|(binding, ..)| binding.clone()).collect();
        }
        kinds.0.push((makes, expr.kind()));
        let input = InputId(u16::try_from(inputs.len()).ok()?);
        inputs.push(InputPlan::derived(&name));
        let within = options.within.map_or(Duration::ZERO, |within| within.0);
        let unit = options.unit.map(Into::into);
        Some(DerivedPlan { name, input, bindings, within, join: options.join, expr, unit, over: window_join })
    }
}

/// An aggregate of what a name stands for, and what is known of its values.
fn aggregate(binding: &Binding, function: Function) -> (Binding, Kind, Option<Function>) {
    let kind = match function {
        Function::First | Function::Last => Kind::Any,
        Function::TimeInState => Kind::Text,
        _ => Kind::Number,
    };
    let name = format!("{}.{}", binding.name, function.name()).into();
    (Binding { name, source: binding.source.clone() }, kind, Some(function))
}

/// The series that derived series make, as filters, for those who ask whether anybody makes one.
pub(crate) fn made(derived: &[DerivedPlan]) -> impl Iterator<Item = Selector> {
    derived.iter().filter_map(|derived| {
        let own = Binding { name: "".into(), source: BindingSource::Series(derived.name.clone()) };
        looked_at(&derived.bindings, &own)
    })
}
