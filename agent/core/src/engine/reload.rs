//! What outlives a change of the plan, a restart, and a move of a series to another source.
//!
//! A reload takes the state out of the engine and puts it into a new one of the new plan, as a restart does with the same plan. All is
//! matched by name.
//! - A window of which only the lateness, the functions or `emit_every` change goes on. What had closed stays closed under a longer lateness.
//! - A window that is another (`every`, `over`, `gap`, `offset`, `zone`, or a function that needs what was not kept) begins at the next
//!   boundary of the old one, behind the newest reading of the source; what is before that goes to the old definition, which ends by
//!   and by. A window that changes again while an older definition still has some open ends that one at once.
//! - What has no place in the new plan ends before: its windows are emitted as far as they are (`is_final` false), its raised alerts are
//!   cleared. Should it come back, its windows begin behind those that were emitted ([`super::retired`]).
//! - What quality checks remember goes on for the checks that a series still has, and what was reported last for the streams that still
//!   leave something out.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::aggregate::Keeps;
use super::clock::Clock;
use super::report::SavedReport;
use super::series::SeriesTable;
use super::snapshot::{
    SavedDefinition, SavedInput, SavedRule, SavedSeries, SavedSource, SavedWindow, SnapshotError, State,
};
use super::window::{SavedSlot, Window};
use super::{Engine, rule};
use crate::plan::{BindingSource, Condition, Plan, RulePlan, WindowPlan};
use crate::reading::{InputId, SeriesId, SeriesInfo};
use crate::record::Emitted;
use crate::sorted;
use crate::time::{Timestamp, nanos};

/// What a reload does with a series in a window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Stays,
    Changes,
    Ends,
}

impl Engine {
    /// Goes on under another plan; series keep their numbers.
    ///
    /// What it emits speaks of the streams of the **old** plan: hand it to the store before the new one takes effect. Batches that
    /// drivers of the old plan still have under way must not be handed over afterwards, as inputs may have other numbers.
    pub fn reload(&mut self, now: Timestamp, plan: Arc<Plan>, out: &mut Vec<Emitted>) {
        self.windows.merge_all(0..self.windows.slots.len());
        self.give_up_removed(&plan, out);
        self.end_homeless(&plan, out);
        let old = Arc::clone(&self.plan);
        self.rules.clear_removed(&old, now, |rule, instance| still_has(&self.series, &old, &plan, rule, instance), out);
        let mut state = self.state_under(&plan);
        for rule in &mut state.rules {
            let mut rules = old.rules.iter().chain(&plan.rules).filter(|known| known.name == rule.name);
            let both = rules.next().zip(rules.next());
            rule.is_changed =
                both.is_some_and(|(old, new)| (&old.bindings, &old.condition) != (&new.bindings, &new.condition));
        }
        let mut next = Self::new(plan);
        // What has no place was ended above; the rest is put where it belongs, and there is nothing that could be refused.
        next.put(state, &mut |_| ());
        *self = next;
        // A shorter lateness closes windows at once.
        let Self { sources, windows, .. } = self;
        sources.iter_mut().filter(|source| source.has_due()).for_each(|source| windows.sweep(source));
    }

    /// The whole state, as bytes for [`Engine::restore`]. The same state gives the same bytes.
    pub fn snapshot(&self) -> Vec<u8> {
        self.state().encode()
    }

    /// An engine that goes on where the snapshot was taken, under the plan that it was taken under.
    ///
    /// # Errors
    /// The bytes are no snapshot of this version, damaged, or speak of what the plan does not have.
    pub fn restore(plan: Arc<Plan>, bytes: &[u8]) -> Result<Self, SnapshotError> {
        let state = State::decode(bytes)?;
        let mut engine = Self::new(plan);
        let mut stranger = None;
        engine.put(state, &mut |what| {
            stranger.get_or_insert(what);
        });
        match stranger {
            Some(what) => Err(SnapshotError::OtherPlan(what)),
            None if !engine.ledger.is_sound()
                || !engine.holds_what_its_ledger_says()
                || !engine.windows.agree_with(&engine.ledger.windows) =>
            {
                Err(SnapshotError::Damaged("its ledger does not close"))
            }
            None if engine.windows.has_empty() => Err(SnapshotError::Damaged("a window in it holds nothing")),
            None => Ok(engine),
        }
    }

    /// What becomes of a series in a window under a plan.
    fn fate(&self, slot: usize, plan: &Plan) -> Fate {
        let window = || {
            let entry = self.windows.slots.get(slot)?;
            let name = &self.series.infos.get(entry.series.index())?.name;
            let input = self.series.routes.get(entry.series.index())?.input?;
            plan.input_named(&self.plan.inputs.get(usize::from(input.0))?.name)?;
            let old = self.windows.window(slot)?;
            let new = window_named(plan, &self.plan.streams.get(old.stream.index())?.name)?;
            new.select.iter().any(|filter| filter.matches(name)).then_some((old, new))
        };
        match window() {
            Some((old, new)) if is_same(old, new) => Fate::Stays,
            Some(_) => Fate::Changes,
            None => Fate::Ends,
        }
    }

    /// Ends the windows that a plan has no place for, and older definitions of those that it changes.
    fn end_homeless(&mut self, plan: &Plan, out: &mut Vec<Emitted>) {
        let mut ended = Vec::new();
        for (i, route) in self.series.routes.iter().enumerate() {
            let watermark = self.sources.get(route.source as usize).map_or(Timestamp::MIN, |source| source.watermark);
            for slot in route.slots() {
                let fate = self.fate(slot, plan);
                if fate != Fate::Stays {
                    ended.extend(self.windows.before.remove(&(slot as u32)).map(|before| before as usize));
                }
                if fate == Fate::Ends {
                    ended.push(slot);
                    let name = self.windows.window(slot).and_then(|window| self.ledger.windows.get(window.account));
                    if let Some((account, floor)) = name.zip(self.windows.fresh_start(slot, watermark)) {
                        self.retired.remember(&account.window, SeriesId(i as u32), floor);
                    }
                }
            }
        }
        self.retired.bound();
        self.windows.abandon(&ended, &mut self.ledger.windows, out);
    }

    /// The state as an engine of another plan takes it: with a definition before where the plan changes a window, and with what has
    /// closed kept closed where it makes the lateness longer.
    fn state_under(&self, plan: &Plan) -> State {
        let mut state = self.state();
        for (window, saved) in self.windows.windows.iter().zip(&mut state.windows) {
            let Some(new) = window_named(plan, &saved.account.window) else { continue };
            let is_same = is_same(window, new);
            if is_same && nanos(new.lateness) <= window.lateness {
                continue;
            }
            let mut slots = Vec::new();
            let mut old_slots = Vec::new();
            for route in &self.series.routes {
                let Some(source) = self.sources.get(route.source as usize) else { continue };
                let of_window =
                    |&slot: &usize| self.windows.window(slot).is_some_and(|of| of.account == window.account);
                let Some(slot) = route.slots().find(of_window) else { continue };
                let Some(old) = self.windows.saved(slot) else { continue };
                let floor = match is_same {
                    true if source.newest.is_none() => old.floor,
                    true => old.floor.max(window.least_start(source.watermark)),
                    false => {
                        let behind = self.windows.fresh_start(slot, source.watermark).unwrap_or(Timestamp::MIN);
                        let boundary = source.newest.map_or(behind, |newest| window.kind.boundary_after(newest));
                        new.kind.start_from(boundary.max(behind))
                    }
                };
                let (begins, panes) = if is_same { (old.begins, old.panes.clone()) } else { (floor, Vec::new()) };
                let carry = old.carry.clone().filter(|_| is_same);
                slots.push(SavedSlot { series: old.series, floor, begins, carry, is_sharing: false, panes });
                if floor > Timestamp::MIN {
                    old_slots.push(old);
                }
            }
            saved.definition.slots = slots;
            if !is_same {
                let old = SavedDefinition { kind: new.kind.clone(), lateness: nanos(new.lateness), slots: Vec::new() };
                let slots = std::mem::take(&mut saved.definition.slots);
                let old = std::mem::replace(&mut saved.definition, old);
                saved.definition.slots = slots;
                saved.before = Some(SavedDefinition { slots: old_slots, ..old });
            }
        }
        state
    }

    /// Moves a series that was declared again to the source that it came from this time, with its open windows.
    pub(super) fn adopt(&mut self, id: SeriesId, input: InputId, source: &Arc<str>) {
        let Some(route) = self.series.routes.get(id.index()).copied() else { return };
        if route.input.is_none() {
            self.rules.expect_again(id);
        }
        if self.origin_of(id) == Some((input, &**source)) || usize::from(input.0) >= self.inputs.len() {
            return;
        }
        self.windows.merge_all(route.slots());
        let watermark = self.sources.get(route.source as usize).map_or(Timestamp::MIN, |source| source.watermark);
        let mut moved = Vec::new();
        for slot in route.slots() {
            let before = self.windows.before.remove(&(slot as u32)).map(|before| before as usize);
            for (slot, is_before) in [(Some(slot), false), (before, true)] {
                let Some(slot) = slot else { continue };
                let Some((number, mut saved)) =
                    self.windows.slots.get(slot).map(|slot| slot.window).zip(self.windows.saved(slot))
                else {
                    continue;
                };
                if let Some(window) = self.windows.window(slot).filter(|_| watermark > Timestamp::MIN) {
                    saved.floor = saved.floor.max(window.least_start(watermark));
                }
                self.windows.clear(slot);
                moved.push((number, is_before, saved));
            }
        }
        let place = self.source(input, source);
        let Some(name) = self.series.infos.get(id.index()).map(|info| Arc::clone(&info.name)) else { return };
        let slots = self.subscribe(id, &name, Some(place));
        let mut current = None;
        for (number, is_before, SavedSlot { floor, begins, carry, panes, .. }) in moved {
            let Some(source) = self.sources.get_mut(place as usize) else { continue };
            let slot = match is_before {
                true => {
                    let Some(current) = current else { continue };
                    let slot = self.windows.subscribe(number, id, floor, place, source);
                    self.windows.before.insert(current, slot as u32);
                    slot
                }
                false => {
                    let of_window = |&slot: &usize| self.windows.slots.get(slot).is_some_and(|of| of.window == number);
                    let Some(slot) = slots.clone().find(of_window) else { continue };
                    current = Some(slot as u32);
                    slot
                }
            };
            if let Some(entry) = self.windows.slots.get_mut(slot) {
                (entry.floor, entry.begins, entry.carry) = (floor, begins, carry.map(Box::new));
            }
            self.windows.reopen(slot, panes, source);
        }
        if let Some(route) = self.series.routes.get_mut(id.index()) {
            route.reroute(input, place, slots);
        }
        // The watermark here may be past what is open.
        if let Some(source) =
            self.sources.get_mut(place as usize).filter(|source| source.has_due() && !source.is_queued)
        {
            source.is_queued = true;
            self.queued.push(place);
        }
        self.derived.moved(id, place, &self.series);
    }

    /// Everything that is known, in an order that does not depend on how it came to be known.
    fn state(&self) -> State {
        let mut numbers = vec![None; self.sources.len()];
        let mut inputs = Vec::with_capacity(self.inputs.len());
        for ((i, input), account) in self.inputs.iter().enumerate().zip(&self.ledger.inputs) {
            let mut sources: Vec<_> =
                input.sources.iter().filter_map(|&place| Some((place, self.sources.get(place as usize)?))).collect();
            sorted::by(&mut sources, |(_, a), (_, b)| a.name.cmp(&b.name));
            for (number, (place, _)) in sources.iter().enumerate() {
                if let Some(entry) = numbers.get_mut(*place as usize) {
                    *entry = Some((i as u16, number as u32));
                }
            }
            let sources = sources.into_iter().map(|(_, source)| SavedSource {
                name: Arc::clone(&source.name),
                newest: source.newest,
                watermark: source.watermark,
                heard: source.heard,
                is_idle: source.is_idle,
            });
            inputs.push(SavedInput {
                account: account.clone(),
                heard: input.heard,
                is_unsettled: input.is_unsettled,
                sources: sources.collect(),
            });
        }
        let series = self.series.infos.iter().zip(&self.series.routes).map(|(info, route)| SavedSeries {
            info: info.clone(),
            source: route.input.and_then(|_| *numbers.get(route.source as usize)?),
        });
        let definition = |window: &Window| SavedDefinition {
            kind: window.kind.clone(),
            lateness: window.lateness,
            slots: Vec::new(),
        };
        let windows = self.windows.windows.iter().zip(&self.ledger.windows).map(|(window, account)| SavedWindow {
            account: account.clone(),
            definition: definition(window),
            before: None,
        });
        let (series, mut windows): (_, Vec<_>) = (series.collect(), windows.collect());
        for slot in self.series.routes.iter().flat_map(|route| route.slots()) {
            let Some(window) = self.windows.window(slot).and_then(|window| windows.get_mut(window.account)) else {
                continue;
            };
            let is_said =
                |slot: &SavedSlot| slot.floor > Timestamp::MIN || slot.carry.is_some() || !slot.panes.is_empty();
            window.definition.slots.extend(self.windows.saved(slot).filter(is_said));
            if let Some(&before) = self.windows.before.get(&(slot as u32))
                && let Some(old) = self.windows.window(before as usize)
            {
                let slots = &mut window.before.get_or_insert_with(|| definition(old)).slots;
                slots.extend(self.windows.saved(before as usize));
            }
        }
        let rules = self.plan.rules.iter().enumerate().map(|(i, rule)| SavedRule {
            name: Arc::clone(&rule.name),
            standings: self.rules.standings(i),
            is_changed: false,
        });
        let mut recents: Vec<_> = self.rules.recents().map(|(series, recent)| (series, recent.clone())).collect();
        sorted::by_key(&mut recents, |(series, _)| *series);
        let (rules, quality, reports) =
            (rules.collect(), self.quality.saved(), self.reports.saved(&self.ledger.reports));
        let (retired, joined) = (self.retired.clone(), self.derived.saved(&self.plan, &self.sources));
        let clock = self.clock.saved();
        State { inputs, series, windows, retired, rules, recents, joined, quality, reports, clock }
    }

    /// Puts a state into an engine that has seen nothing; names to `stranger` what its plan has no place for.
    fn put(&mut self, state: State, stranger: &mut dyn FnMut(String)) {
        let State { inputs, series, windows, retired, rules, recents, joined, quality, reports, clock } = state;
        self.retired = retired;
        let names: Vec<_> = inputs.iter().map(|saved| Arc::clone(&saved.account.input)).collect();
        let input = |place: u16| self.plan.input_named(names.get(usize::from(place))?);
        match Clock::restored(clock, input) {
            Some(clock) => self.clock = clock,
            None => stranger("readings of an unknown input that wait for the clock".to_owned()),
        }
        let mut origins: BTreeMap<(u16, u32), (InputId, Arc<str>)> = BTreeMap::new();
        for (i, saved) in inputs.into_iter().enumerate() {
            let Some(id) = self.plan.input_named(&saved.account.input) else {
                stranger(format!("the input {}", saved.account.input));
                continue;
            };
            for (number, source) in saved.sources.into_iter().enumerate() {
                let place = self.source(id, &source.name);
                if let Some(entry) = self.sources.get_mut(place as usize) {
                    (entry.newest, entry.watermark) = (source.newest, source.watermark);
                    (entry.heard, entry.is_idle) = (source.heard, source.is_idle);
                    entry.settled = source.watermark;
                }
                origins.insert((i as u16, number as u32), (id, source.name));
            }
            let place = usize::from(id.0);
            if let (Some(input), Some(account)) = (self.inputs.get_mut(place), self.ledger.inputs.get_mut(place)) {
                (input.heard, input.is_unsettled) = (saved.heard, saved.is_unsettled);
                *account = saved.account;
            }
        }
        for SavedSeries { info, source } in series {
            let origin = source.and_then(|source| origins.get(&source));
            if source.is_some() && origin.is_none() {
                stranger(format!("the series {} of an unknown source", info.name));
            }
            self.put_series(info, origin, stranger);
        }
        self.derive_from(0);
        for window in windows {
            self.put_window(window, stranger);
        }
        let plan = Arc::clone(&self.plan);
        for SavedRule { name, standings, is_changed } in rules {
            let place = plan.rules.iter().position(|rule| rule.name == name).map(|place| place as u16);
            let mut strange = |instance: &str| stranger(format!("the rule {name} of {instance:?}"));
            self.rules.restore(place, standings, is_changed, &mut strange);
        }
        for (series, recent) in recents {
            if self.rules.restore_recent(series, recent).is_none() {
                stranger(format!("a rule over series {}", series.0));
            }
        }
        for saved in joined {
            if self.derived.restore(&plan, saved).is_none() {
                stranger("readings that no join waits for".to_owned());
            }
        }
        self.quality.restore_counts(quality.counts);
        for (series, kept) in quality.memories {
            let place = self.series.routes.get(series.index()).and_then(|route| route.quality);
            if self.quality.restore(place, kept).is_none() {
                stranger(format!("checks of series {}", series.0));
            }
        }
        for report in reports {
            self.put_report(report, stranger);
        }
        self.rules.set_timers(&plan);
        self.derived.look_at_nothing();
    }

    fn put_series(&mut self, info: SeriesInfo, origin: Option<&(InputId, Arc<str>)>, stranger: &mut dyn FnMut(String)) {
        let name = Arc::clone(&info.name);
        let known = self.series.id(&name).is_some();
        if known || self.add_series(info, origin.map(|(input, source)| (*input, source))).is_none() {
            stranger(format!("the series {name} more than once, or too many series"));
        }
    }

    fn put_window(&mut self, saved: SavedWindow, stranger: &mut dyn FnMut(String)) {
        let SavedWindow { account, definition, before } = saved;
        let name = Arc::clone(&account.window);
        let Some(place) = self.ledger.windows.iter().position(|known| known.window == name) else {
            stranger(format!("the window {name}"));
            return;
        };
        if self.windows.windows.get(place).is_none_or(|window| window.kind != definition.kind) {
            stranger(format!("other windows of {name}"));
            return;
        }
        for slot in definition.slots {
            let series = slot.series;
            if self.put_slot(place, None, slot).is_none() {
                stranger(format!("open windows of {name} with readings of series {}", series.0));
            }
        }
        if let Some(SavedDefinition { kind, lateness, slots }) = before {
            let number = self.windows.windows.len() as u16;
            if let Some(window) = self.windows.windows.get(place) {
                let Window { stream, account, emit_every, ref compute, keeps, .. } = *window;
                let compute = compute.clone();
                self.windows.windows.push(Window { stream, account, kind, lateness, emit_every, compute, keeps });
            }
            for slot in slots {
                let series = slot.series;
                if self.put_slot(place, Some(number), slot).is_none() {
                    stranger(format!("open windows of {name} before a reload with readings of series {}", series.0));
                }
            }
        }
        if let Some(known) = self.ledger.windows.get_mut(place) {
            *known = account;
        }
    }

    /// Puts open windows into the slot of a series, or with `before` into a new one of the definition before.
    fn put_slot(&mut self, window: usize, before: Option<u16>, saved: SavedSlot) -> Option<()> {
        let SavedSlot { series, floor, begins, carry, is_sharing, panes } = saved;
        let route = *self.series.routes.get(series.index())?;
        let of_window =
            |&slot: &usize| self.windows.slots.get(slot).is_some_and(|slot| usize::from(slot.window) == window);
        let current = route.slots().find(of_window)?;
        let source = self.sources.get_mut(route.source as usize)?;
        let slot = match before {
            None => current,
            Some(number) if self.windows.before.contains_key(&(current as u32)) || usize::from(number) <= window => {
                None?
            }
            Some(number) => {
                let slot = self.windows.subscribe(number, series, floor, route.source, source);
                self.windows.before.insert(current as u32, slot as u32);
                slot
            }
        };
        let entry = self.windows.slots.get_mut(slot)?;
        (entry.floor, entry.begins, entry.carry) = (floor, begins, carry.map(Box::new));
        self.windows.reopen(slot, panes, source)?;
        self.windows.slots.get_mut(slot)?.is_sharing = is_sharing;
        Some(())
    }

    fn put_report(&mut self, saved: SavedReport, stranger: &mut dyn FnMut(String)) {
        let SavedReport { account, lasts } = saved;
        let Some(place) = self.ledger.reports.iter().position(|known| known.stream == account.stream) else {
            stranger(format!("the deadband of {}", account.stream));
            return;
        };
        for (series, last) in lasts {
            let route = self.series.routes.get(series.index());
            let lanes = route.map(|route| self.series.raw(route)).unwrap_or_default();
            let stream = self.plan.stream_named(&account.stream);
            let lane = lanes.iter().copied().find(|lane| Some(lane.stream) == stream);
            if lane.and_then(|lane| self.reports.restore(place, lane, last)).is_none() {
                stranger(format!("a reported value of series {} in {}", series.0, account.stream));
            }
        }
        if let Some(known) = self.ledger.reports.get_mut(place) {
            *known = account;
        }
    }
}

/// The window of a plan with a name.
fn window_named<'a>(plan: &'a Plan, name: &str) -> Option<&'a WindowPlan> {
    plan.window(plan.stream_named(name)?)
}

/// Whether open windows of one are open windows of the other, with all that its functions need.
fn is_same(old: &Window, new: &WindowPlan) -> bool {
    old.kind == new.kind && old.keeps.covers(&Keeps::of(&new.compute, new.buckets, 0))
}

/// Whether a plan still has a rule of the same sort, and its instance.
fn still_has(series: &SeriesTable, inputs: &Plan, plan: &Plan, rule: &RulePlan, instance: &str) -> bool {
    let Some(next) = plan.rules.iter().find(|next| next.name == rule.name) else { return false };
    match (&next.condition, rule::maker(next).and_then(|maker| next.bindings.get(maker)).map(|binding| &binding.source))
    {
        _ if next.is_over_absence() != rule.is_over_absence() => false,
        (Condition::Absent { select, .. }, _) => select.iter().any(|filter| {
            let input = series.id(instance).and_then(|id| series.routes.get(id.index())?.input);
            let input = input.and_then(|input| inputs.inputs.get(usize::from(input.0)));
            let is_expected = input.is_some_and(|input| plan.input_named(&input.name).is_some());
            filter.matches(instance) && (filter.is_literal() || is_expected)
        }),
        (_, Some(BindingSource::Each(filter))) => !instance.is_empty() && filter.matches(instance),
        _ => instance.is_empty(),
    }
}
