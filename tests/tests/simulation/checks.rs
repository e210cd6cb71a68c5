//! What must be true when everything has come home.

use std::collections::{BTreeMap, BTreeSet};

use rtlive_core::reading::Value;
use rtlive_core::record::{AlertState, Epoch, EpochStart, Record};
use rtlive_core::time::Timestamp;

use crate::centre::Lane;
use crate::plans::LATENESS;
use crate::world::World;

/// Checks everything.
pub(crate) fn check(world: &World) -> Result<(), String> {
    let gaps = gaps(world)?;
    let epochs = epochs(world, &gaps)?;
    complete(world, &epochs, &gaps)?;
    readings(world, &gaps)?;
    let is_whole = |stream: &str| !gaps.keys().any(|(_, name, _)| name == stream);
    if is_whole("windows") {
        windows(world)?;
    }
    if is_whole("alerts") {
        alerts(world, &epochs)?;
    }
    outages(world, &epochs)?;
    ledger(world)
}

fn broken<T>(what: String) -> Result<T, String> {
    Err(what)
}

/// What gaps name, by lane; nothing where nothing had to go.
type Gaps = BTreeMap<Lane, Vec<(u64, u64)>>;

fn gaps(world: &World) -> Result<Gaps, String> {
    let mut gaps = Gaps::new();
    for ((epoch, _, class), _, _, record) in world.centre.records("gaps") {
        if let Record::Gap(gap) = record {
            let class = gap.class.as_deref().unwrap_or(class).to_owned();
            let lane = (gap.epoch.unwrap_or(*epoch), gap.stream.to_string(), class);
            gaps.entry(lane).or_default().push((gap.from, gap.to));
            let has_reason = matches!(&*gap.reason, "evicted" | "unconfirmed");
            if !has_reason || &*gap.stream == "gaps" || world.bytes_max.is_none() {
                return broken(format!("nothing had to go, and yet there is {gap:?}"));
            }
        }
    }
    Ok(gaps)
}

/// The last number of a lane that the centre has, or knows the loss of.
fn last_of(world: &World, gaps: &Gaps, lane: &Lane) -> u64 {
    let block = world.centre.lanes.get(lane).and_then(|blocks| blocks.values().next_back());
    let gap = gaps.get(lane).into_iter().flatten().map(|(_, to)| *to).max();
    block.map(|block| block.last).max(gap).unwrap_or_default()
}

/// The epochs in their order: each but the first names the one before.
fn epochs(world: &World, gaps: &Gaps) -> Result<Vec<Epoch>, String> {
    let mut starts: BTreeMap<Option<Epoch>, (Epoch, &EpochStart)> = BTreeMap::new();
    for ((epoch, ..), number, _, record) in world.centre.records("gaps") {
        if let Record::EpochStart(start) = record {
            if number != 1 {
                return broken(format!("epoch {epoch} begins with record {number}"));
            }
            if starts.insert(start.predecessor, (*epoch, start)).is_some() {
                return broken(format!("two epochs follow {:?}", start.predecessor));
            }
        }
    }
    let (mut order, mut before) = (Vec::new(), None);
    while let Some((epoch, start)) = starts.remove(&before) {
        for (stream, class, last) in &start.last {
            let lane = (before.unwrap(), stream.to_string(), class.to_string());
            let found = last_of(world, gaps, &lane);
            if found != *last {
                return broken(format!("{lane:?} ends with {last}, not {found}"));
            }
        }
        order.push(epoch);
        before = Some(epoch);
    }
    let known: BTreeSet<Epoch> = world.centre.lanes.keys().map(|(epoch, ..)| *epoch).collect();
    if !starts.is_empty() || known.iter().any(|epoch| !order.contains(epoch)) {
        return broken(format!("the epochs {known:?} are no chain: {order:?}"));
    }
    if order.len() != world.boots_committed.len() {
        return broken(format!("the boots {:?} have the epochs {order:?}", world.boots_committed));
    }
    Ok(order)
}

/// Every number of every lane is a record or lies in a gap, and the store knows of no others.
fn complete(world: &World, epochs: &[Epoch], gaps: &Gaps) -> Result<(), String> {
    let mut numbered: BTreeMap<(String, String), u64> = BTreeMap::new();
    let lanes: BTreeSet<&Lane> = world.centre.lanes.keys().chain(gaps.keys()).collect();
    for lane in lanes {
        let blocks = world.centre.lanes.get(lane).into_iter().flatten().map(|(&first, block)| (first, block.last));
        let mut spans: Vec<(u64, u64)> = blocks.chain(gaps.get(lane).into_iter().flatten().copied()).collect();
        spans.sort_unstable();
        let mut next = 1;
        for (first, last) in spans {
            // What is unconfirmed may have come; that blocks do not lie over each other is seen when they come.
            if first > next {
                return broken(format!("{lane:?}: {next}..{first} is missing"));
            }
            next = next.max(last + 1);
        }
        *numbered.entry((lane.1.clone(), lane.2.clone())).or_default() += next - 1;
    }
    let Some(process) = &world.process else { return broken("no process runs".to_owned()) };
    let status = process.store.status().map_err(|error| error.to_string())?;
    for (key, account) in &status.streams {
        let found = numbered.remove(&(key.stream.to_string(), key.class.to_string())).unwrap_or_default();
        let lost: u64 = gaps
            .iter()
            .filter(|((_, stream, class), _)| *stream == *key.stream && *class == *key.class)
            .flat_map(|(_, gaps)| gaps.iter().map(|(from, to)| to + 1 - from))
            .sum();
        if (account.numbered, account.acknowledged, account.in_gaps) != (found, found - lost, lost) {
            return broken(format!("{key:?}: {found} records have come or are lost, and the store says {account:?}"));
        }
    }
    if !numbered.is_empty() || status.epoch != epochs.last().copied() {
        return broken(format!("the store knows nothing of {numbered:?}, or of {epochs:?}"));
    }
    Ok(())
}

/// Every reading that was committed is there once, and no other.
fn readings(world: &World, gaps: &Gaps) -> Result<(), String> {
    let reference = &world.reference;
    for (stream, expected) in
        [("raw", &reference.raw), ("quarantine", &reference.quarantined), ("late", &reference.late)]
    {
        let mut found = BTreeSet::new();
        for (lane, number, _, record) in world.centre.records(stream) {
            let Record::Reading(reading) = record else { return broken(format!("{lane:?} {number}: {record:?}")) };
            let Value::Int(value) = reading.value else { return broken(format!("{lane:?} {number}: {record:?}")) };
            // A reading may be late for several windows of one plan; it is there once all the same.
            if !found.insert(value) {
                return broken(format!("{stream} has the reading {value} twice"));
            }
        }
        let of_stream = gaps.iter().filter(|((_, name, _), _)| name == stream);
        let lost: u64 = of_stream.flat_map(|(_, gaps)| gaps.iter().map(|(from, to)| to + 1 - from)).sum();
        let missing = expected.difference(&found).count() as u64;
        // The late ones of the window that only some plans have cannot be told here.
        if missing > lost || stream != "late" && !found.is_subset(expected) {
            let missing: Vec<_> = expected.difference(&found).collect();
            let strange: Vec<_> = found.difference(expected).collect();
            return broken(format!("{stream}: {missing:?} are missing, {strange:?} were never committed"));
        }
    }
    let mut seen = BTreeSet::new();
    let blocks = world.centre.lanes.values().flat_map(BTreeMap::values);
    for value in blocks.flat_map(|block| &block.json_values) {
        if !seen.insert(value) || !reference.raw.contains(value) {
            return broken(format!("the JSON stream has the reading {value} twice, or it was never committed"));
        }
    }
    for source in world.sources.iter().filter(|source| matches!(source.name, "bus" | "log")) {
        let accepted = reference.accounts.get(source.name).map_or(0, |account| account.accepted);
        if accepted != source.count() {
            return broken(format!("{}: {} were there, {accepted} were taken", source.name, source.count()));
        }
    }
    Ok(())
}

/// The highest revision of every window is what the reference computes.
fn windows(world: &World) -> Result<(), String> {
    let mut newest = BTreeMap::new();
    for (lane, number, series, record) in world.centre.records("windows") {
        let (Record::Aggregate(aggregate), Some(series)) = (record, series) else {
            return broken(format!("{lane:?} {number}: {record:?}"));
        };
        let key = (series.clone(), aggregate.start);
        let known = newest.entry(key.clone()).or_insert(aggregate);
        if known.revision == aggregate.revision && *known != aggregate {
            return broken(format!("{key:?} has revision {} twice: {known:?}, {aggregate:?}", known.revision));
        }
        if known.revision < aggregate.revision {
            *known = aggregate;
        }
    }
    for ((series, start), window) in &world.reference.windows {
        let is_final = world.reference.is_final(series, *start);
        match newest.remove(&(series.clone(), *start)) {
            Some(found) if !is_final || found.is_final && *found.values == *window.values() => {}
            None if !is_final => {}
            found => {
                let expected = window.values();
                return broken(format!("{series} from {start}, +{LATENESS} s: {found:?} instead of {expected:?}"));
            }
        }
    }
    match newest.first_key_value() {
        Some((key, found)) => broken(format!("{key:?} is a window of nothing: {found:?}")),
        None => Ok(()),
    }
}

fn order_of(epochs: &[Epoch], lane: &Lane) -> usize {
    epochs.iter().position(|epoch| *epoch == lane.0).unwrap_or(usize::MAX)
}

/// Alerts are neither lost nor raised twice.
fn alerts(world: &World, epochs: &[Epoch]) -> Result<(), String> {
    let mut found: BTreeMap<_, (bool, Timestamp)> = BTreeMap::new();
    let mut last: BTreeMap<_, BTreeMap<_, AlertState>> = BTreeMap::new();
    for (lane, number, _, record) in world.centre.records("alerts") {
        let Record::Alert(alert) = record else { return broken(format!("{lane:?} {number}: {record:?}")) };
        let place = (order_of(epochs, lane), number);
        if &*alert.rule == "hot" {
            found.insert(place, (alert.state == AlertState::Raised, alert.time));
        }
        last.entry((alert.rule.clone(), alert.instance.clone())).or_default().insert(place, alert.state);
    }
    for ((rule, instance), states) in last {
        let states: Vec<_> = states.into_values().collect();
        let alternates = states.windows(2).all(|pair| pair[0] != pair[1]);
        if !alternates || states.first() == Some(&AlertState::Cleared) {
            return broken(format!("{rule} of {instance:?}: {states:?}"));
        }
    }
    let found: Vec<_> = found.into_values().collect();
    if found != world.reference.alerts {
        return broken(format!("the alerts {found:?} instead of {:?}", world.reference.alerts));
    }
    Ok(())
}

/// Every start of an input that cannot be asked again is named, and what it lost lies in what was named.
fn outages(world: &World, epochs: &[Epoch]) -> Result<(), String> {
    let mut found = BTreeMap::new();
    for (lane, number, _, record) in world.centre.records("gaps") {
        if let Record::Outage(outage) = record {
            let start = outage.start.unwrap_or(Timestamp::MIN);
            found.insert((order_of(epochs, lane), number), (outage.input.to_string(), start, outage.end));
        }
    }
    let found: Vec<_> = found.into_values().collect();
    let expected: Vec<_> =
        world.reference.outages.iter().map(|(input, start, end)| ((*input).to_owned(), *start, *end)).collect();
    if found != expected {
        let strange: Vec<_> = found.iter().filter(|outage| !expected.contains(outage)).collect();
        let missing: Vec<_> = expected.iter().filter(|outage| !found.contains(outage)).collect();
        return broken(format!("the outages {strange:?} are there instead of {missing:?}"));
    }
    for (input, arrival) in &world.lost {
        if !expected.iter().any(|(of, start, end)| of == input && start <= arrival && arrival <= end) {
            return broken(format!("{input} lost what arrived at {arrival}, and no outage says so"));
        }
    }
    Ok(())
}

/// The engine's accounts are those of the reference.
fn ledger(world: &World) -> Result<(), String> {
    let Some(process) = &world.process else { return broken("no process runs".to_owned()) };
    for account in &process.stage.engine().ledger().inputs {
        let expected = world.reference.accounts.get(&*account.input).cloned().unwrap_or_default();
        let found = (account.taken, account.accepted, account.bad, account.quarantined);
        if found != (expected.taken, expected.accepted, expected.bad, expected.quarantined) {
            return broken(format!("the account {account:?} instead of {expected:?}"));
        }
        if account.late < expected.late {
            return broken(format!("{} late, at least {} expected", account.late, expected.late));
        }
    }
    // What the engine counts as reported is what the store has numbered: over every crash and reload, nothing more and nothing less.
    let status = process.store.status().map_err(|error| error.to_string())?;
    for account in &process.stage.engine().ledger().reports {
        let of_stream = status.streams.iter().filter(|(key, _)| key.stream == account.stream);
        let numbered: u64 = of_stream.map(|(_, account)| account.numbered).sum();
        if (account.selected, account.reported) != (world.reference.raw.len() as u64, numbered) {
            return broken(format!("{account:?}, and {numbered} records of {}", world.reference.raw.len()));
        }
    }
    match process.stage.engine().ledger().check() {
        Some(imbalance) => broken(imbalance.to_string()),
        None => Ok(()),
    }
}
