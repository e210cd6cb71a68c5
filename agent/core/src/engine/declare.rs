//! How a series appears: where it comes from, and where its readings will go.
//!
//! All that a name decides is worked out here, once: the source whose watermark it follows, the raw streams, windows, rules and checks
//! that select it, and the derived series that it makes or that wait for it.

use std::ops::Range;
use std::sync::Arc;

use super::Engine;
use super::series::SERIES_MAX;
use super::watermark::Source;
use crate::event::Declared;
use crate::plan::{DerivedPlan, StreamId, StreamKind, WindowPlan};
use crate::reading::{InputId, SeriesId, SeriesInfo, is_series_name};

impl Engine {
    /// A series appears. One that was declared before keeps its number and takes the new unit.
    pub(super) fn declare(&mut self, declared: &Declared) {
        let Declared { input, source, info } = declared;
        if let Some(id) = self.series.id(&info.name) {
            let origin = self.series.routes.get(id.index()).and_then(|route| route.input);
            if self.plan.derived.iter().any(|derived| Some(derived.input) == origin) {
                // It has a source already, which stays the only one: what the input reads of it is dropped as unknown.
                return;
            }
            if let Some(known) = self.series.infos.get_mut(id.index()) {
                known.unit.clone_from(&info.unit);
            }
            self.quality.rename_unit(self.series.routes.get(id.index()).and_then(|route| route.quality), info);
            self.adopt(id, *input, source);
            return;
        }
        let first = self.series.infos.len();
        self.add_series(info.clone(), Some((*input, source)));
        self.derive_from(first);
    }

    /// Makes the instances of derived series that series from a place on bring, theirs included, and gives them to those who wait for them.
    pub(super) fn derive_from(&mut self, first: usize) {
        let plan = Arc::clone(&self.plan);
        let mut place = first;
        while let Some(name) = self.series.infos.get(place).map(|info| Arc::clone(&info.name)) {
            let id = SeriesId(place as u32);
            for (instance, side) in self.derived.take_wanted(&name) {
                self.derived.bind(&plan, instance, side, id, &mut self.series);
            }
            for (number, derived) in plan.derived.iter().enumerate() {
                if derived.is_made_by(&name) {
                    self.add_derived(number as u16, derived, &name);
                }
            }
            place += 1;
        }
    }

    /// Makes an instance of a derived series, unless its name is that of a series from elsewhere.
    fn add_derived(&mut self, number: u16, derived: &DerivedPlan, maker: &Arc<str>) {
        let Some(name) = derived.name.render_levels(maker).ok().filter(|name| is_series_name(name)) else { return };
        let info = SeriesInfo { name: name.into(), unit: derived.unit.clone() };
        let id = match self.series.id(&info.name) {
            None => self.add_series(info, Some((derived.input, maker))),
            Some(id) => {
                self.adopt_derived(id, derived, maker);
                if let Some(known) = self.series.infos.get_mut(id.index()) {
                    known.unit = info.unit;
                }
                Some(id).filter(|&id| self.origin_of(id) == Some((derived.input, &**maker)))
            }
        };
        let Some((id, route)) = id.and_then(|id| Some((id, self.series.routes.get(id.index())?))) else { return };
        let plan = Arc::clone(&self.plan);
        let instance = self.derived.add(number, derived, id, route.source);
        for (side, binding) in derived.bindings.iter().enumerate() {
            let Some(name) = binding.series_of(maker) else { continue };
            match self.series.id(&name) {
                Some(series) => self.derived.bind(&plan, instance, side, series, &mut self.series),
                None => self.derived.want(name, instance, side),
            }
        }
        if self.series.routes.get(id.index()).is_some_and(|route| route.recent.is_some()) {
            self.derived.watch(id);
        }
    }

    /// Gives a derived series that is known to the series that makes it, where none does: its input was gone, or another one made it before
    /// the plan changed. It is computed on from where it was.
    fn adopt_derived(&mut self, id: SeriesId, derived: &DerivedPlan, maker: &Arc<str>) {
        let before = match self.origin_of(id) {
            Some((input, before)) if input == derived.input && before != &**maker => Arc::<str>::from(before),
            Some(_) => return,
            None => return self.adopt(id, derived.input, maker),
        };
        let name = self.series.infos.get(id.index()).map(|info| &*info.name);
        if derived.is_made_by(&before) && derived.name.render_levels(&before).ok().as_deref() == name {
            return;
        }
        let [from, to] = [&before, maker].map(|name| self.source(derived.input, name) as usize);
        let known = self.sources.get(from).map(|source| (source.newest, source.watermark));
        if let Some((source, (newest, watermark))) = self.sources.get_mut(to).zip(known) {
            source.newest = source.newest.max(newest);
            source.watermark = source.watermark.max(watermark);
            source.settled = source.watermark;
        }
        self.adopt(id, derived.input, maker);
    }

    /// Adds a series that is not known yet; `None` beyond [`SERIES_MAX`].
    pub(super) fn add_series(&mut self, info: SeriesInfo, origin: Option<(InputId, &Arc<str>)>) -> Option<SeriesId> {
        if self.series.infos.len() >= SERIES_MAX {
            return None;
        }
        let id = SeriesId(self.series.infos.len() as u32);
        let name = Arc::clone(&info.name);
        let origin = origin.filter(|(input, _)| usize::from(input.0) < self.inputs.len());
        let place = origin.map(|(input, source)| self.source(input, source));
        let slots = self.subscribe(id, &name, place);
        let plan = Arc::clone(&self.plan);
        let raw = plan.streams.iter().enumerate().filter_map(|(i, stream)| match &stream.kind {
            StreamKind::Raw { select, .. } if select.iter().any(|filter| filter.matches(&name)) => {
                Some(self.reports.lane(StreamId(i as u16), id))
            }
            _ => None,
        });
        let quality = self.quality.declare(&plan, id, &info);
        self.series.push(info, origin.map(|(input, _)| input), place.unwrap_or(u32::MAX), raw, slots, quality);
        let table = &self.series;
        self.rules.declare(&plan, &name, id, origin.is_some(), |name| table.id(name));
        for (place, series) in self.rules.newly_watched() {
            if let Some(route) = self.series.routes.get_mut(series.index()) {
                route.recent = Some(place);
            }
            self.derived.watch(series);
        }
        Some(id)
    }

    /// Makes the slots of a series in the windows that select it; none where it has no source.
    pub(super) fn subscribe(&mut self, id: SeriesId, name: &str, source: Option<u32>) -> Range<usize> {
        let start = self.windows.slots.len();
        let windows = self.plan.streams.iter().filter_map(|stream| match &stream.kind {
            StreamKind::Window(window) => Some((&stream.name, window)),
            _ => None,
        });
        if let Some((place, source)) = source.and_then(|place| Some((place, self.sources.get_mut(place as usize)?))) {
            let selects =
                |(_, (_, window)): &(u16, (_, &WindowPlan))| window.select.iter().any(|filter| filter.matches(name));
            let selecting: Vec<(u16, (&Arc<str>, &WindowPlan))> = (0..).zip(windows).filter(selects).collect();
            let mut numbers: Vec<u16> = selecting.iter().map(|(number, _)| *number).collect();
            let followers = self.windows.order(&mut numbers);
            for number in numbers {
                let Some((_, (stream, window))) = selecting.iter().find(|(known, _)| *known == number) else {
                    continue;
                };
                let floor = window.kind.start_from(self.retired.take(stream, id));
                self.windows.subscribe(number, id, floor, place, source);
            }
            if followers > 0 {
                self.windows.share(start, followers);
            }
        }
        start..self.windows.slots.len()
    }

    /// The place of a source, made where it is new.
    pub(super) fn source(&mut self, input: InputId, name: &Arc<str>) -> u32 {
        if let Some(&place) = self.source_names.get(&(input, Arc::clone(name))) {
            return place;
        }
        let place = self.sources.len() as u32;
        self.sources.push(Source::new(Arc::clone(name)));
        self.source_names.insert((input, Arc::clone(name)), place);
        if let Some(input) = self.inputs.get_mut(usize::from(input.0)) {
            input.sources.push(place);
        }
        place
    }
}
