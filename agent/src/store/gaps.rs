//! Gaps that wait: what is not coming, before the centre is told.
//!
//! They have no numbers yet, and merge with what follows on them, so that a store that is full for months names what went in a few lines. They are
//! part of the row of each commit that changes them, and of every snapshot. When the link takes them they are numbered, and go into frames.
//!
//! **At the bound** of [`WAITING_MAX`] gaps, the two of a stream, class and epoch with the fewest records between them become one, which counts the
//! records that went and has the numbers and times of both; of two with different reasons, the reason of the larger. A record that arrives
//! overrides a gap, so that nothing is said to be lost that is not. Where no two are of a stream, class and epoch, all go into a frame.

use rtlive_core::record::Gap;
use rtlive_core::time::Timestamp;

/// How many may wait: some 20 kB of a commit that changes them, before compression.
pub(super) const WAITING_MAX: usize = 256;

/// Gaps that wait.
#[derive(Debug, Default)]
pub(super) struct Gaps {
    waiting: Vec<Gap>,
    is_changed: bool,
}

impl Gaps {
    /// Those that an earlier process left.
    pub(super) fn restore(&mut self, waiting: Vec<Gap>) {
        self.waiting = waiting;
    }

    /// Adds one, or makes those longer that it touches.
    pub(super) fn add(&mut self, mut gap: Gap) {
        self.is_changed = true;
        let mut place = self.waiting.len();
        while let Some(touched) = self.waiting.iter().position(|known| touch(known, &gap)) {
            place = touched;
            gap = joined(self.waiting.remove(touched), gap);
        }
        self.waiting.insert(place, gap);
        while self.is_full() && self.widen() {}
    }

    /// Takes them out, to be numbered.
    pub(super) fn take(&mut self) -> Vec<Gap> {
        self.is_changed |= !self.waiting.is_empty();
        std::mem::take(&mut self.waiting)
    }

    /// All that wait, where this changed since the last call.
    pub(super) fn changed(&mut self) -> Option<Vec<Gap>> {
        std::mem::take(&mut self.is_changed).then(|| self.waiting.clone())
    }

    /// All that wait.
    pub(super) fn waiting(&self) -> &[Gap] {
        &self.waiting
    }

    /// Whether there are more than may wait.
    pub(super) fn is_full(&self) -> bool {
        self.waiting.len() > WAITING_MAX
    }

    /// Joins the two that are nearest to each other; says whether there are two.
    fn widen(&mut self) -> bool {
        let mut nearest: Option<((bool, u64), usize, usize)> = None;
        for (place, gap) in self.waiting.iter().enumerate() {
            for (other, before) in self.waiting.iter().enumerate().take(place) {
                if lane(gap) == lane(before) {
                    let between = gap.from.max(before.from).saturating_sub(gap.to.min(before.to));
                    let cost = (!is_alike(gap, before), between);
                    if nearest.is_none_or(|(known, ..)| cost < known) {
                        nearest = Some((cost, other, place));
                    }
                }
            }
        }
        let Some((_, first, second)) = nearest else { return false };
        let gap = self.waiting.remove(second);
        let before = self.waiting.remove(first);
        self.waiting.insert(first, joined(before, gap));
        true
    }
}

/// Whether one goes on where the other ends.
fn touch(a: &Gap, b: &Gap) -> bool {
    lane(a) == lane(b) && is_alike(a, b) && a.from <= b.to.saturating_add(1) && b.from <= a.to.saturating_add(1)
}

/// What is numbered alone.
fn lane(gap: &Gap) -> impl PartialEq {
    (gap.stream.clone(), gap.epoch, gap.class.clone())
}

fn is_alike(a: &Gap, b: &Gap) -> bool {
    (&a.reason, &a.covered_by) == (&b.reason, &b.covered_by)
}

/// One gap for two of a lane.
fn joined(a: Gap, b: Gap) -> Gap {
    let both = |pick: fn(Timestamp, Timestamp) -> Timestamp, a: Option<Timestamp>, b: Option<Timestamp>| {
        a.zip(b).map(|(a, b)| pick(a, b))
    };
    let (from, to) = (a.from.min(b.from), a.to.max(b.to));
    let (records, all) = (a.records().saturating_add(b.records()), (to - from).saturating_add(1));
    let (start, end) = (both(Ord::min, a.start, b.start), both(Ord::max, a.end, b.end));
    let covered_by = a.covered_by.clone().filter(|stream| Some(stream) == b.covered_by.as_ref());
    let larger = if a.records() >= b.records() { a } else { b };
    Gap { from, to, count: (records < all).then_some(records), start, end, covered_by, ..larger }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rtlive_core::record::Epoch;

    fn gap(epoch: u64, from: u64, to: u64, reason: &str) -> Gap {
        let at = |number: u64| Some(Timestamp::from_nanos(number.cast_signed() * 10));
        Gap {
            stream: "raw".into(),
            epoch: Some(Epoch(epoch)),
            class: Some("process".into()),
            from,
            to,
            count: None,
            start: at(from),
            end: at(to),
            reason: reason.into(),
            covered_by: None,
        }
    }

    fn of(added: impl IntoIterator<Item = Gap>) -> Gaps {
        let mut gaps = Gaps::default();
        added.into_iter().for_each(|gap| gaps.add(gap));
        gaps
    }

    #[test]
    fn those_that_touch_are_one_in_whatever_order_they_come() {
        let gaps = of([(5, 6), (1, 2), (9, 9), (7, 8), (3, 4)].map(|(from, to)| gap(1, from, to, "evicted")));
        assert_eq!(gaps.waiting(), [gap(1, 1, 9, "evicted")]);
        let gaps = of([gap(1, 1, 2, "evicted"), gap(1, 3, 4, "expired"), gap(2, 3, 4, "evicted")]);
        assert_eq!(gaps.waiting().len(), 3);
    }

    #[test]
    fn at_the_bound_the_nearest_become_one_that_counts() {
        let waiting = WAITING_MAX as u64;
        let gaps = of((0..waiting).map(|n| gap(1, 10 * n + 1, 10 * n + 3, "evicted")).chain([gap(1, 5, 5, "evicted")]));
        assert_eq!(gaps.waiting().len(), WAITING_MAX);
        assert_eq!(gaps.waiting()[0], Gap { count: Some(4), ..gap(1, 1, 5, "evicted") });
        let records: u64 = gaps.waiting().iter().map(Gap::records).sum();
        assert_eq!(records, 3 * waiting + 1);
    }

    #[test]
    fn those_of_different_epochs_never_become_one() {
        let gaps = of((0..=WAITING_MAX as u64).map(|epoch| gap(epoch, 1, 3, "evicted")));
        assert!(gaps.is_full() && gaps.waiting().len() == WAITING_MAX + 1);
    }
}
