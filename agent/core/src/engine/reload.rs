//! What outlives a change of the plan, a restart, and a move of a series to another source.
//!
//! A reload takes the state out of the engine and puts it into a new one of the new plan, as a restart does with the same plan. All is
//! matched by name. A window goes on when its name and length are the same and it still selects the series: its lateness and its
//! functions may change. What has no place in the new plan ends before: its windows are emitted as far as they are
//! (`is_final` false), its raised alerts are cleared.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::snapshot::{SavedInput, SavedRule, SavedSeries, SavedSource, SavedWindow, SnapshotError, State};
use super::window::SavedPane;
use super::{Engine, rule};
use crate::plan::{BindingSource, Plan, RulePlan, StreamKind};
use crate::reading::{InputId, SeriesId, SeriesInfo};
use crate::record::Emitted;
use crate::time::{Timestamp, nanos};

impl Engine {
    /// Goes on under another plan; series keep their numbers.
    ///
    /// What it emits speaks of the streams of the **old** plan: hand it to the store before the new one takes effect. Batches that
    /// drivers of the old plan still have under way must not be handed over afterwards, as inputs may have other numbers.
    pub fn reload(&mut self, now: Timestamp, plan: Arc<Plan>, out: &mut Vec<Emitted>) {
        let homeless: Vec<usize> = (0..self.windows.slots.len()).filter(|&slot| !self.has_place(slot, &plan)).collect();
        self.windows.abandon(&homeless, &mut self.ledger.windows, out);
        let old = Arc::clone(&self.plan);
        self.rules.clear_removed(&old, now, |rule, instance| still_has(&plan, rule, instance), out);
        let mut next = Self::new(plan);
        // What has no place was ended above; the rest is put where it belongs, and there is nothing that could be refused.
        next.put(self.state(), &mut |_| ());
        *self = next;
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
            None if !engine.ledger.is_sound() || !engine.windows.agree_with(&engine.ledger.windows) => {
                Err(SnapshotError::Damaged("its ledger does not close"))
            }
            None => Ok(engine),
        }
    }

    /// Whether a slot's open windows go on under a plan.
    fn has_place(&self, slot: usize, plan: &Plan) -> bool {
        let place = || {
            let entry = self.windows.slots.get(slot)?;
            let name = &self.series.infos.get(entry.series.index())?.name;
            let input = self.series.routes.get(entry.series.index())?.input?;
            plan.input_named(&self.plan.inputs.get(usize::from(input.0))?.name)?;
            let stream = self.windows.windows.get(usize::from(entry.window))?.stream;
            let stream = plan.stream_named(&self.plan.streams.get(stream.index())?.name)?;
            match &plan.streams.get(stream.index())?.kind {
                StreamKind::Window(window) => Some(
                    nanos(window.every).max(1) == self.windows.every(slot)?
                        && window.select.iter().any(|filter| filter.matches(name)),
                ),
                _ => None,
            }
        };
        place().unwrap_or(false)
    }

    /// Moves a series that was declared again to the source that it came from this time, with its open windows.
    pub(super) fn adopt(&mut self, id: SeriesId, input: InputId, source: &Arc<str>) {
        let Some(route) = self.series.routes.get(id.index()).copied() else { return };
        if self.origin_of(id) == Some((input, &**source)) || usize::from(input.0) >= self.inputs.len() {
            return;
        }
        let place = self.source(input, source);
        let moved: Vec<(u16, Vec<SavedPane>)> = route
            .slots()
            .filter_map(|slot| Some((self.windows.slots.get(slot)?.window, self.windows.evict(slot))))
            .collect();
        let Some(name) = self.series.infos.get(id.index()).map(|info| Arc::clone(&info.name)) else { return };
        let slots = self.subscribe(id, &name, Some(place));
        for slot in slots.clone() {
            let Some(window) = self.windows.slots.get(slot).map(|slot| slot.window) else { continue };
            let panes = moved.iter().filter(|(of, _)| *of == window).flat_map(|(_, panes)| panes);
            if let Some(source) = self.sources.get_mut(place as usize) {
                panes.for_each(|pane| {
                    self.windows.reopen(slot, pane.clone(), source);
                });
            }
        }
        if let Some(route) = self.series.routes.get_mut(id.index()) {
            route.reroute(input, place, slots);
        }
    }

    /// Everything that is known, in an order that does not depend on how it came to be known.
    fn state(&self) -> State {
        let mut numbers = vec![None; self.sources.len()];
        let mut inputs = Vec::with_capacity(self.inputs.len());
        for ((i, input), account) in self.inputs.iter().enumerate().zip(&self.ledger.inputs) {
            let mut sources: Vec<_> =
                input.sources.iter().filter_map(|&place| Some((place, self.sources.get(place as usize)?))).collect();
            sources.sort_by(|(_, a), (_, b)| a.name.cmp(&b.name));
            for (number, (place, _)) in sources.iter().enumerate() {
                if let Some(entry) = numbers.get_mut(*place as usize) {
                    *entry = Some((i as u16, number as u32));
                }
            }
            let sources = sources.into_iter().map(|(_, source)| SavedSource {
                name: Arc::clone(&source.name),
                newest: source.newest,
                watermark: source.watermark,
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
        let windows = self.windows.windows.iter().zip(&self.ledger.windows).map(|(window, account)| SavedWindow {
            account: account.clone(),
            every: window.every,
            panes: Vec::new(),
        });
        let (series, mut windows): (_, Vec<_>) = (series.collect(), windows.collect());
        for (i, route) in self.series.routes.iter().enumerate() {
            for slot in route.slots() {
                let window = self.windows.slots.get(slot).and_then(|slot| windows.get_mut(usize::from(slot.window)));
                if let Some(window) = window {
                    window.panes.extend(self.windows.panes(slot).map(|pane| (SeriesId(i as u32), pane.saved())));
                }
            }
        }
        let rules = self.plan.rules.iter().enumerate().map(|(i, rule)| {
            let raised = self.rules.raised().filter(|instance| usize::from(instance.rule) == i);
            let mut raised: Vec<_> = raised.map(|instance| Arc::clone(&instance.name)).collect();
            raised.sort();
            SavedRule { name: Arc::clone(&rule.name), raised }
        });
        let mut recents: Vec<_> = self.rules.recents().map(|(series, recent)| (series, recent.clone())).collect();
        recents.sort_by_key(|(series, _)| *series);
        State { inputs, series, windows, rules: rules.collect(), recents }
    }

    /// Puts a state into an engine that has seen nothing; names to `stranger` what its plan has no place for.
    fn put(&mut self, state: State, stranger: &mut dyn FnMut(String)) {
        let State { inputs, series, windows, rules, recents } = state;
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
        for window in windows {
            self.put_window(window, stranger);
        }
        for SavedRule { name, raised } in rules {
            let place = self.plan.rules.iter().position(|rule| rule.name == name);
            for instance in raised {
                if place.and_then(|place| self.rules.restore_raised(place as u16, &instance)).is_none() {
                    stranger(format!("the rule {name} of {instance:?}"));
                }
            }
        }
        for (series, recent) in recents {
            if self.rules.restore_recent(series, recent).is_none() {
                stranger(format!("a rule over series {}", series.0));
            }
        }
    }

    fn put_series(&mut self, info: SeriesInfo, origin: Option<&(InputId, Arc<str>)>, stranger: &mut dyn FnMut(String)) {
        let name = Arc::clone(&info.name);
        let known = self.series.id(&name).is_some();
        if known || self.add_series(info, origin.map(|(input, source)| (*input, source))).is_none() {
            stranger(format!("the series {name} more than once, or too many series"));
        }
    }

    fn put_window(&mut self, saved: SavedWindow, stranger: &mut dyn FnMut(String)) {
        let SavedWindow { account, every, panes } = saved;
        let Some(window) = self.ledger.windows.iter().position(|known| known.window == account.window) else {
            stranger(format!("the window {}", account.window));
            return;
        };
        let name = Arc::clone(&account.window);
        for (series, pane) in panes {
            let count = pane.count();
            let put = self.series.routes.get(series.index()).copied().and_then(|route| {
                let slot = route.slots().find(|&slot| {
                    self.windows.slots.get(slot).is_some_and(|slot| usize::from(slot.window) == window)
                })?;
                if self.windows.every(slot)? != every {
                    return None;
                }
                let source = self.sources.get_mut(route.source as usize)?;
                self.windows.reopen(slot, pane, source)
            });
            if put.is_none() {
                stranger(format!("an open window of {name} with {count} readings of series {}", series.0));
            }
        }
        if let Some(known) = self.ledger.windows.get_mut(window) {
            *known = account;
        }
    }
}

/// Whether a plan still has a rule, and its instance.
fn still_has(plan: &Plan, rule: &RulePlan, instance: &str) -> bool {
    let Some(next) = plan.rules.iter().find(|next| next.name == rule.name) else { return false };
    match rule::maker(next).and_then(|maker| next.bindings.get(maker)).map(|binding| &binding.source) {
        Some(BindingSource::Each(filter)) => !instance.is_empty() && filter.matches(instance),
        _ => instance.is_empty(),
    }
}
