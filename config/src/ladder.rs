//! Ladders: streams of the same data from fine to coarse.

use std::collections::BTreeMap;
use std::time::Duration;

use rtlive_core::plan::{Format, LadderPlan, StreamId, StreamKind, StreamPlan, WindowKind};

use crate::name::named_tables;
use crate::options;
use crate::quantity::write_span;
use crate::stream::selection;
use crate::table::Table;

/// The most ladders.
pub const LADDERS_MAX: usize = 100;

/// The most levels of one.
pub const LEVELS_MAX: usize = 16;

options! {
    /// Streams of the same data from fine to coarse. When the store is full, what a coarser level tells goes first, the finest level first; what goes is
    /// named in a gap with the level that tells the same story. A link that cannot carry everything gets the coarser levels first.
    pub struct LadderOptions {
        /// The streams and windows, from fine to coarse. All but the first are windows of a fixed length, each a multiple of the one before, and
        /// select all that the one before selects. A stream is in one ladder.
        pub levels: Vec<String>,
    }
}

/// Checks `[ladders.*]`.
pub(crate) fn check(root: &Table<'_>, streams: &[StreamPlan]) -> Vec<LadderPlan> {
    let Some(ladders) = root.table("ladders") else { return Vec::new() };
    let tables = named_tables(&ladders, "a ladder");
    if tables.len() > LADDERS_MAX {
        ladders.mistake("", format!("at most {LADDERS_MAX} ladders"), tables.len());
        return Vec::new();
    }
    let mut taken = BTreeMap::new();
    let mut plans = Vec::new();
    for (name, table) in &tables {
        if let Some(levels) = LadderOptions::read(table).and_then(|options| levels(table, &options.levels, streams)) {
            for level in &levels {
                if let Some(other) = taken.insert(*level, *name) {
                    let stream = streams.get(level.index()).map_or("", |stream| &stream.name);
                    table.mistake(
                        "levels",
                        "streams that are in no other ladder",
                        format!("{stream:?}, also in {other:?}"),
                    );
                }
            }
            plans.push(LadderPlan { name: (*name).into(), levels });
        }
    }
    plans
}

fn levels(table: &Table<'_>, names: &[String], streams: &[StreamPlan]) -> Option<Vec<StreamId>> {
    if !(2..=LEVELS_MAX).contains(&names.len()) {
        table.mistake("levels", format!("from 2 to {LEVELS_MAX} levels"), names.len());
        return None;
    }
    let mut levels: Vec<(StreamId, &StreamPlan)> = Vec::new();
    for name in names {
        let place = streams.iter().position(|stream| *stream.name == **name);
        let found = place.and_then(|place| Some((StreamId(u16::try_from(place).ok()?), streams.get(place)?)));
        match found.filter(|(_, stream)| !matches!(stream.kind, StreamKind::Reserved)) {
            Some((id, _)) if levels.iter().any(|(known, _)| *known == id) => {
                table.mistake("levels", "each level once", format!("{name:?} again"));
                return None;
            }
            Some(level) => levels.push(level),
            None => {
                table.mistake("levels", "names of streams and windows, from fine to coarse", format!("{name:?}"));
                return None;
            }
        }
    }
    let mut is_right = true;
    for ((_, finer), (_, coarser)) in levels.iter().zip(levels.iter().skip(1)) {
        if let Some((expected, found)) = wrong_step(finer, coarser) {
            table.mistake("levels", expected, found);
            is_right = false;
        }
    }
    is_right.then(|| levels.into_iter().map(|(id, _)| id).collect())
}

/// What is wrong with two levels that follow each other, if anything: what was expected, and what is there.
fn wrong_step(finer: &StreamPlan, coarser: &StreamPlan) -> Option<(String, String)> {
    let (fine, coarse) = (&finer.name, &coarser.name);
    let Some((length, offset)) = tumbling(coarser) else {
        return Some((
            "levels of which all but the first are windows of a fixed length, without `over`, `gap` or `zone`".into(),
            format!("{coarse:?}"),
        ));
    };
    if finer.format == Format::Json {
        return Some((
            "levels with `format = \"frame\"`, but for the coarsest: what is in a JSON message is not looked at".into(),
            format!("{fine:?}"),
        ));
    }
    if let StreamKind::Window(_) = finer.kind {
        let Some((fine_length, fine_offset)) = tumbling(finer) else {
            return Some(("windows of a fixed length below other windows".into(), format!("{fine:?}")));
        };
        let (fine_nanos, nanos) = (fine_length.as_nanos().max(1), length.as_nanos());
        let is_multiple = nanos > fine_nanos && nanos.is_multiple_of(fine_nanos);
        if !is_multiple || offset.as_nanos() % fine_nanos != fine_offset.as_nanos() % fine_nanos {
            return Some((
                format!(
                    "windows that each consist of whole ones of the level before, {fine:?} of {}",
                    write_span(fine_length)
                ),
                format!("{coarse:?} of {}", write_span(length)),
            ));
        }
    }
    let filters = |stream| selection(stream).map(|(filters, _)| filters).unwrap_or_default();
    let missed = filters(finer).iter().find(|filter| !filters(coarser).iter().any(|wider| wider.covers(filter)));
    missed.map(|filter| {
        (
            format!("levels that each select all that the level before selects, {fine:?} here \"{filter}\""),
            format!("{coarse:?}, no filter of which does"),
        )
    })
}

fn tumbling(stream: &StreamPlan) -> Option<(Duration, Duration)> {
    match &stream.kind {
        StreamKind::Window(window) => match window.kind {
            WindowKind::Tumbling { every, offset } => Some((every, offset)),
            _ => None,
        },
        _ => None,
    }
}
