//! The columns that every block has: which series each row belongs to, and when.
//!
//! Series come in cycles where an input is polled, so the order is written as surprises: each series is expected to be followed
//! by the one that followed it last. Times come in runs, since what one poll reads has one time; a run has one entry in the
//! column of times. Where several devices are polled in turn, each has its own rhythm: then the runs are gathered by the series
//! that leads them, and each such group is a column.

use std::borrow::Cow;

use super::cursor::{Cursor, put_signed, put_unsigned};
use super::groups::Groups;
use super::integers::{self, Shape, common_unit, in_units};
use super::{ColumnError, ColumnFault, Effort};

/// Runs of right guesses, each followed by the one that was wrong.
const SURPRISES: u8 = 0;
/// A column of places in the table.
const EXPLICIT: u8 = 1;

/// One column of times, in the order of the rows.
const ONE_CLOCK: u8 = 0;
/// A column of times for each series that leads a run, in the order of their first runs.
const CLOCK_PER_LEADER: u8 = 1;

/// The rows of a block: the series that occur, and for each row its place among them and its time.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Rows {
    /// The ids of the series, in the order of their first rows.
    pub(super) ids: Vec<u32>,
    /// For each row, the place of its series in `ids`.
    pub(super) places: Vec<u32>,
    /// For each row, its time in nanoseconds since the Unix epoch.
    pub(super) times: Vec<i64>,
}

impl Rows {
    /// The indices of the rows of each series, in order.
    pub(super) fn by_series(&self) -> Groups {
        Groups::of(&self.places, self.ids.len())
    }

    /// Appends the columns. The number of rows is not written, the reader knows it.
    pub(super) fn encode(&self, effort: Effort, out: &mut Vec<u8>) {
        if self.times.is_empty() {
            return;
        }
        put_unsigned(out, self.ids.len() as u64);
        let ids: Vec<i64> = self.ids.iter().map(|id| i64::from(*id)).collect();
        integers::encode(&ids, Shape::Any, effort, out);
        self.encode_order(effort, out);
        self.encode_times(effort, out);
    }

    fn encode_order(&self, effort: Effort, out: &mut Vec<u8>) {
        if self.ids.len() < 2 {
            return;
        }
        let mut surprises = vec![SURPRISES];
        let mut guess = Guess::new(self.ids.len());
        let mut right = 0;
        for &place in &self.places {
            if guess.next() == place {
                right += 1;
            } else {
                put_unsigned(&mut surprises, right);
                put_unsigned(&mut surprises, u64::from(place));
                right = 0;
            }
            guess.learn(place);
        }
        put_unsigned(&mut surprises, right);
        let mut explicit = vec![EXPLICIT];
        if surprises.len() > self.places.len() {
            let places: Vec<i64> = self.places.iter().map(|place| i64::from(*place)).collect();
            integers::encode(&places, Shape::Any, effort, &mut explicit);
        }
        let shorter = if explicit.len() > 1 && explicit.len() < surprises.len() { explicit } else { surprises };
        out.extend(shorter);
    }

    fn encode_times(&self, effort: Effort, out: &mut Vec<u8>) {
        let Some(&base) = self.times.first() else { return };
        let mut runs = 1;
        for pair in self.times.windows(2) {
            runs += usize::from(pair[0] != pair[1]);
        }
        put_unsigned(out, runs as u64);
        let (mut starts, mut times) = (Vec::new(), Cow::Borrowed(&self.times));
        if runs < self.times.len() {
            starts = self.starts(runs);
            times = Cow::Owned(starts.iter().map(|start| self.times[*start]).collect());
            let ends = starts.iter().skip(1).copied().chain([self.times.len()]);
            let lengths: Vec<i64> = starts.iter().zip(ends).map(|(start, end)| (end - start) as i64).collect();
            integers::encode(&lengths, Shape::Any, effort, out);
        }
        let unit = common_unit(&times);
        let leaders = leaders(&self.places, &starts);
        if self.ids.len() < 2 || leaders.iter().all(|leader| Some(leader) == leaders.first()) {
            return encode_clock(&times, unit, effort, out);
        }
        put_signed(out, base);
        put_unsigned(out, unit);
        let ticks = in_units(&times, unit);
        let mut one = vec![ONE_CLOCK];
        integers::encode_reduced(0, 1, &ticks, Shape::Rising, effort, &mut one);
        let groups = Groups::of(&leaders, self.ids.len());
        if one.len() > groups.iter().filter(|runs| !runs.is_empty()).count() {
            let mut each = vec![CLOCK_PER_LEADER];
            for (run, &leader) in leaders.iter().enumerate() {
                let runs = groups.get(leader as usize);
                if runs.first() == Some(&run) {
                    let ticks: Vec<i64> = runs.iter().map(|run| ticks[*run]).collect();
                    integers::encode(&ticks, Shape::Rising, effort, &mut each);
                }
            }
            if each.len() < one.len() {
                one = each;
            }
        }
        out.extend(one);
    }

    /// Where `runs` runs of rows with one time start.
    fn starts(&self, runs: usize) -> Vec<usize> {
        let mut starts = Vec::with_capacity(runs);
        let mut before = None;
        for (row, time) in self.times.iter().enumerate() {
            if before != Some(time) {
                starts.push(row);
            }
            before = Some(time);
        }
        starts
    }

    /// Reads the columns of `count` rows. The caller has bounded `count`.
    pub(super) fn decode(cursor: &mut Cursor<'_>, count: usize) -> Result<Self, ColumnError> {
        if count == 0 {
            return Ok(Self::default());
        }
        let series = cursor.at_most("series", count)?;
        let mut ids = Vec::with_capacity(series);
        for id in integers::decode(cursor, series)? {
            let fault = ColumnFault::TooMany { what: "series", found: id.cast_unsigned(), max: u64::from(u32::MAX) };
            ids.push(u32::try_from(id).map_err(|_| cursor.error(fault))?);
        }
        let places = decode_order(cursor, series, count)?;
        let times = decode_times(cursor, &places, series)?;
        Ok(Self { ids, places, times })
    }
}

/// Appends the times of one clock. They are ticks since the first one, or, where that is shorter, since 1970 in what the first one and the unit have in
/// common, such as seconds.
fn encode_clock(times: &[i64], unit: u64, effort: Effort, out: &mut Vec<u8>) {
    let base = times.first().copied().unwrap_or(0);
    let common = integers::gcd(base.unsigned_abs(), unit).max(1);
    let (first, step) = (base / common.cast_signed(), unit / common);
    // What each takes until the ticks: where they begin, the unit, the first of them and how far they lie apart.
    let length = |since: i64, unit: u64, first: i64, step: u64| {
        let mut head = Vec::new();
        put_signed(&mut head, since);
        put_unsigned(&mut head, unit);
        put_signed(&mut head, first);
        put_unsigned(&mut head, step);
        head.len()
    };
    let is_shorter = length(0, common, first, step) < length(base, unit, 0, 1);
    let (since, in_units_of, first, step) = if is_shorter { (0, common, first, step) } else { (base, unit, 0, 1) };
    put_signed(out, since);
    put_unsigned(out, in_units_of);
    out.push(ONE_CLOCK);
    integers::encode_reduced(first, step, &in_units(times, unit), Shape::Rising, effort, out);
}

/// Rows that are being gathered: series are numbered in the order in which they appear.
#[derive(Debug)]
pub(super) struct Gatherer {
    rows: Rows,
    known: Known,
    /// The id and the place of the last row.
    last: (u32, u32),
}

impl Gatherer {
    pub(super) fn of(count: usize) -> Self {
        let rows = Rows { ids: Vec::new(), places: Vec::with_capacity(count), times: Vec::with_capacity(count) };
        Self { rows, known: Known::default(), last: (0, 0) }
    }

    #[inline(always)]
    pub(super) fn push(&mut self, id: u32, time: i64) {
        let Rows { ids, places, times } = &mut self.rows;
        if places.is_empty() || self.last.0 != id {
            self.last = (id, self.known.place(id, ids));
        }
        places.push(self.last.1);
        times.push(time);
    }

    pub(super) fn rows(&self) -> &Rows {
        &self.rows
    }
}

/// Which place an id has: an array for the dense ids of an engine or a frame, without a bound that an odd id could break.
#[derive(Debug, Default)]
struct Known {
    dense: Vec<u32>,
    sparse: std::collections::BTreeMap<u32, u32>,
}

impl Known {
    /// Ids below this are looked up in an array.
    const DENSE_MAX: u32 = 65_536;

    fn place(&mut self, id: u32, ids: &mut Vec<u32>) -> u32 {
        let mut next = || {
            ids.push(id);
            ids.len() as u32 - 1
        };
        if id >= Self::DENSE_MAX {
            return *self.sparse.entry(id).or_insert_with(next);
        }
        let index = id as usize;
        if index >= self.dense.len() {
            self.dense.resize(index + 1, u32::MAX);
        }
        if self.dense[index] == u32::MAX {
            self.dense[index] = next();
        }
        self.dense[index]
    }
}

/// What comes next: the series that followed the last one before, or else the first one that has not come yet.
#[derive(Debug)]
struct Guess {
    successors: Vec<u32>,
    last: Option<u32>,
    new: u32,
}

impl Guess {
    fn new(series: usize) -> Self {
        Self { successors: vec![u32::MAX; series], last: None, new: 0 }
    }

    fn next(&self) -> u32 {
        match self.last.and_then(|last| self.successors.get(last as usize)) {
            Some(&successor) if successor != u32::MAX => successor,
            _ => self.new,
        }
    }

    fn learn(&mut self, place: u32) {
        if let Some(successor) = self.last.and_then(|last| self.successors.get_mut(last as usize)) {
            *successor = place;
        }
        self.last = Some(place);
        self.new = self.new.max(place.saturating_add(1));
    }
}

fn decode_order(cursor: &mut Cursor<'_>, series: usize, count: usize) -> Result<Vec<u32>, ColumnError> {
    if series < 2 {
        return if series == 1 { Ok(vec![0; count]) } else { Err(cursor.error(ColumnFault::Order)) };
    }
    let beyond = |found: u64| ColumnFault::TooMany { what: "places of series", found, max: series as u64 - 1 };
    let mut places = Vec::with_capacity(count);
    match cursor.byte()? {
        SURPRISES => {
            let mut guess = Guess::new(series);
            loop {
                for _ in 0..cursor.at_most("right guesses", count - places.len())? {
                    let place = guess.next();
                    if place as usize >= series {
                        return Err(cursor.error(beyond(u64::from(place))));
                    }
                    guess.learn(place);
                    places.push(place);
                }
                if places.len() == count {
                    return Ok(places);
                }
                let place = cursor.at_most("places of series", series - 1)? as u32;
                guess.learn(place);
                places.push(place);
            }
        }
        EXPLICIT => {
            for place in integers::decode(cursor, count)? {
                match u32::try_from(place) {
                    Ok(place) if (place as usize) < series => places.push(place),
                    _ => return Err(cursor.error(beyond(place.cast_unsigned()))),
                }
            }
            Ok(places)
        }
        found => Err(cursor.error(ColumnFault::Coding { column: "the order of series", found })),
    }
}

fn decode_times(cursor: &mut Cursor<'_>, places: &[u32], series: usize) -> Result<Vec<i64>, ColumnError> {
    let count = places.len();
    let runs = cursor.at_most("runs of times", count)?;
    let lengths = if runs == count { Vec::new() } else { integers::decode(cursor, runs)? };
    let starts = if runs == count { Vec::new() } else { read_starts(cursor, &lengths, count)? };
    let base = cursor.signed()?;
    let unit = cursor.unsigned()?.cast_signed();
    let mut times = match cursor.byte()? {
        ONE_CLOCK => integers::decode(cursor, runs)?,
        CLOCK_PER_LEADER => {
            let leaders = leaders(places, &starts);
            let groups = Groups::of(&leaders, series);
            let mut ticks = vec![0; runs];
            for (run, &leader) in leaders.iter().enumerate() {
                let runs = groups.get(leader as usize);
                if runs.first() == Some(&run) {
                    for (tick, &run) in integers::decode(cursor, runs.len())?.into_iter().zip(runs) {
                        ticks[run] = tick;
                    }
                }
            }
            ticks
        }
        found => return Err(cursor.error(ColumnFault::Coding { column: "times", found })),
    };
    times.iter_mut().for_each(|tick| *tick = base.wrapping_add(tick.wrapping_mul(unit)));
    if runs == count {
        return Ok(times);
    }
    let mut repeated = Vec::with_capacity(count);
    for (time, length) in times.into_iter().zip(lengths) {
        // The lengths add up to `count`.
        repeated.resize(repeated.len() + length as usize, time);
    }
    Ok(repeated)
}

/// The places of the rows that runs start with; without `starts` each row is a run.
fn leaders<'a>(places: &'a [u32], starts: &[usize]) -> Cow<'a, [u32]> {
    if starts.is_empty() {
        return Cow::Borrowed(places);
    }
    Cow::Owned(starts.iter().map(|start| places[*start]).collect())
}

/// Where runs of these lengths start, all of which have rows, `count` together.
fn read_starts(cursor: &Cursor<'_>, lengths: &[i64], count: usize) -> Result<Vec<usize>, ColumnError> {
    let mut starts = Vec::with_capacity(lengths.len());
    let mut next = 0_usize;
    for &length in lengths {
        starts.push(next);
        let end = usize::try_from(length).ok().filter(|length| *length > 0).and_then(|length| next.checked_add(length));
        next = end.filter(|end| *end <= count).ok_or_else(|| cursor.error(ColumnFault::Order))?;
    }
    if next != count {
        return Err(cursor.error(ColumnFault::Order));
    }
    Ok(starts)
}
