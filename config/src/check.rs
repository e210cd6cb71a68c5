//! The check: from what was written to what runs, with every mistake on the way.

use std::sync::Arc;
use std::time::Duration;

use rtlive_core::plan::{Condition, Plan, StreamKind};
use rtlive_core::selector::Selector;

use crate::agent::{self, AgentConfig};
use crate::binding::looked_at;
use crate::catalogue::Catalogue;
use crate::derived;
use crate::document::Document;
use crate::fingerprint::Fingerprint;
use crate::input::{self, InputConfig};
use crate::ladder;
use crate::mistake::{Mistake, Mistakes};
use crate::name::named_tables;
use crate::quality;
use crate::rule;
use crate::store::{self, StoreConfig};
use crate::stream::{self, selection};
use crate::table::Table;
use crate::uplink::{self, UplinkConfig};

/// The tables of the outermost level.
const TABLES: [&str; 11] =
    ["agent", "inputs", "maps", "quality", "derived", "streams", "windows", "rules", "ladders", "store", "uplink"];

/// A configuration without mistakes. `I` is what runs of an input.
#[derive(Clone, Debug)]
pub struct Config<I> {
    /// The agent itself.
    pub agent: AgentConfig,
    /// The inputs, by [`InputId`](rtlive_core::reading::InputId), which is the order of their names.
    pub inputs: Vec<InputConfig<I>>,
    /// Changes when something is written otherwise in `[inputs]` or `[maps]`, and at no other change: whether inputs must begin anew.
    pub inputs_fingerprint: Fingerprint,
    /// What the engine computes.
    pub plan: Arc<Plan>,
    /// The store.
    pub store: StoreConfig,
    /// The broker at the centre; without it the agent stores, and sends nothing.
    pub uplink: Option<UplinkConfig>,
    /// What is probably not what was meant.
    pub warnings: Vec<Mistake>,
}

/// Checks a document against the drivers of a catalogue. `machine_id` is what `/etc/machine-id` says, where it says something.
///
/// # Errors
/// All mistakes, in the order of files and lines.
pub fn check<I>(
    document: &Document,
    catalogue: &dyn Catalogue<I>,
    machine_id: Option<&str>,
) -> Result<Config<I>, Mistakes> {
    let root = document.root();
    let config = check_root(&root, catalogue, machine_id);
    root.close();
    let mistakes = document.mistakes();
    match config {
        Some(config) if mistakes.0.is_empty() => Ok(Config { warnings: document.warnings().0, ..config }),
        _ => Err(mistakes),
    }
}

fn check_root<I>(root: &Table<'_>, catalogue: &dyn Catalogue<I>, machine_id: Option<&str>) -> Option<Config<I>> {
    root.knows(&TABLES);
    // Every part is checked before the first that is wrong counts, so that the mistakes of all are noted.
    let agent = root.table_or_empty("agent").and_then(|table| agent::check(&table, machine_id));
    let labels = agent.as_ref().map(|agent| &agent.labels);
    let (inputs, mut input_plans): (Vec<_>, Vec<_>) = input::check(root, catalogue).into_iter().unzip();
    check_maps(root);
    let quality = quality::check(root);
    let streams = stream::check(root, labels);
    let ladders = ladder::check(root, &streams);
    let (derived, kinds) = derived::check(root, &streams, &mut input_plans);
    derived::check_sources(root, &derived, &inputs);
    let rules = rule::check(root, labels, &kinds);
    let store = root.table_or_empty("store").and_then(|table| store::check(&table));
    if let Some(store) = &store {
        stream::check_ages(root, &streams, store.max_age);
    }
    let id = agent.as_ref().map(|agent| &*agent.id);
    let commit_every = store.as_ref().map_or(Duration::ZERO, |store| store.commit_every);
    let uplink = match root.has("uplink") {
        true => root.table("uplink").and_then(|table| uplink::check(&table, id, labels, commit_every)).map(Some),
        false => Some(None),
    };
    let agent = agent?;
    let labels = agent.labels.clone();
    let plan =
        Plan { agent: Arc::clone(&agent.id), labels, inputs: input_plans, streams, rules, quality, derived, ladders };
    advise(root, &plan, &inputs, uplink.as_ref().is_some_and(Option::is_none));
    let inputs_fingerprint = root.fingerprint(&["inputs", "maps"]);
    Some(Config {
        agent,
        inputs,
        inputs_fingerprint,
        plan: Arc::new(plan),
        store: store?,
        uplink: uplink?,
        warnings: Vec::new(),
    })
}

/// Maps are checked by the drivers that use them; one that none uses is checked by nobody.
fn check_maps(root: &Table<'_>) {
    let Some(maps) = root.table("maps") else { return };
    for (name, was_read) in maps.keys().map(|key| (key, maps.was_read(key))).collect::<Vec<_>>() {
        if !was_read {
            maps.warn(&crate::document::quoted(name), "no device uses this map, so nothing in it was checked");
        }
    }
    named_tables(&maps, "a map");
}

/// Notes what is allowed and probably not meant.
fn advise<I>(root: &Table<'_>, plan: &Plan, inputs: &[InputConfig<I>], is_alone: bool) {
    if is_alone {
        root.warn("", "no [uplink]: what is read is stored on this machine and goes nowhere");
    }
    if plan.streams.iter().all(|stream| matches!(stream.kind, StreamKind::Reserved)) {
        root.warn("", "no stream and no window selects readings: only alerts and gaps are stored and sent");
    }
    if plan.inputs.len() == plan.derived.len() {
        // What remains is a configuration for `rtlive replay`, whose inputs are in the file that it reads.
        if !root.has("inputs") {
            root.warn("", "no [inputs]: nothing is read");
        }
        return;
    }
    let known = inputs.iter().flat_map(|input| &input.series).filter_map(|series| series.parse().ok());
    let others = inputs.iter().filter(|input| input.has_others);
    let others = others.filter_map(|input| format!("{}/+/#", input.prefix).parse().ok());
    let readable: Vec<Selector> = known.chain(others).chain(derived::made(&plan.derived)).collect();
    let nobody_makes = |filter: &Selector| !readable.iter().any(|made| filter.overlaps(made));
    for stream in &plan.streams {
        let parent = match stream.kind {
            StreamKind::Window(_) => "windows",
            _ => "streams",
        };
        let filters = selection(stream).map(|(filters, _)| filters).unwrap_or_default();
        for (i, filter) in filters.iter().enumerate().filter(|(_, filter)| nobody_makes(filter)) {
            let key = format!("{parent}.{}.select[{i}]", stream.name);
            root.warn(&key, format_args!("no input makes a series that \"{filter}\" selects"));
        }
    }
    quality::advise(root, plan, |filter| !nobody_makes(filter));
    for derived in &plan.derived {
        for binding in &derived.bindings {
            if let Some(filter) = looked_at(&derived.bindings, binding).filter(|filter| nobody_makes(filter)) {
                let key =
                    format!("derived.{}.let.{}", crate::document::quoted(&derived.name.to_string()), binding.name);
                root.warn(&key, format_args!("no input makes the series \"{filter}\""));
            }
        }
    }
    for rule in &plan.rules {
        for binding in &rule.bindings {
            if let Some(filter) = looked_at(&rule.bindings, binding).filter(|filter| nobody_makes(filter)) {
                let key = format!("rules.{}.let.{}", rule.name, binding.name);
                root.warn(&key, format_args!("no input makes the series \"{filter}\""));
            }
        }
        if let Condition::Absent { select, .. } = &rule.condition {
            for (i, filter) in select.iter().enumerate().filter(|(_, filter)| nobody_makes(filter)) {
                let key = format!("rules.{}.select[{i}]", rule.name);
                root.warn(&key, format_args!("no input makes a series that \"{filter}\" selects"));
            }
        }
    }
}
