//! Items gathered by the place that each belongs to: rows by series.

/// The indices of items, those of a place side by side and in order. Two lists, however many places there are.
#[derive(Debug)]
pub(super) struct Groups {
    items: Vec<usize>,
    /// Where those of each place end.
    ends: Vec<usize>,
}

impl Groups {
    /// Gathers items by their places, of which there are `count`.
    pub(super) fn of(places: &[u32], count: usize) -> Self {
        if count == 1 {
            return Self { items: (0..places.len()).collect(), ends: vec![places.len()] };
        }
        let mut ends = vec![0; count];
        for &place in places {
            ends[place as usize] += 1;
        }
        let mut begin = 0;
        for end in &mut ends {
            (*end, begin) = (begin, begin + *end);
        }
        // Each moves from the beginning of its place to the end.
        let mut items = vec![0; places.len()];
        for (item, &place) in places.iter().enumerate() {
            let next = &mut ends[place as usize];
            items[*next] = item;
            *next += 1;
        }
        Self { items, ends }
    }

    /// How many places there are.
    pub(super) fn len(&self) -> usize {
        self.ends.len()
    }

    /// All items, place by place.
    pub(super) fn all(&self) -> &[usize] {
        &self.items
    }

    /// The items of a place.
    pub(super) fn get(&self, place: usize) -> &[usize] {
        let begin = place.checked_sub(1).map_or(0, |before| self.ends[before]);
        &self.items[begin..self.ends[place]]
    }

    /// The items of each place.
    pub(super) fn iter(&self) -> impl Iterator<Item = &[usize]> {
        (0..self.len()).map(|place| self.get(place))
    }
}
