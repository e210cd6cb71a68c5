//! What foretells an integer of a column from those before it, and which of these leaves the least. It is chosen by the sum of the bit lengths of its
//! residuals, which is about what a coder of entropy pays for, or by trying.

use super::Effort;
use super::cursor::{put_signed, put_unsigned, zigzag};
use super::integers::Shape;

/// The residuals are `k[i]`.
pub(super) const PLAIN: u8 = 1;
/// The residuals are `k[i] − k[i−1]`.
pub(super) const DELTA: u8 = 2;
/// The residuals are the differences of these.
pub(super) const DELTA_OF_DELTA: u8 = 3;
/// The residuals are distances from an ideal grid, of which places may be skipped.
pub(super) const GRID: u8 = 4;
/// The residuals are distances from where a line through the last three values leads, or from between them.
pub(super) const LINE: u8 = 5;

/// The binary places of the weights of a line.
const WEIGHT_BITS: u32 = 4;
/// The weight of a whole step.
pub(super) const ONE: i8 = 1 << WEIGHT_BITS;
/// Of how many values one is looked at to choose a prediction in a hurry, and how many at least.
const LOOKED_AT_SHARE: usize = 8;
const LOOKED_AT_MIN: usize = 128;
/// Of about how many values the median stands for that of all.
const MEDIAN_OF: usize = 128;

/// The binary places of a grid's step: at 2^16 places a step that is no integer drifts by less than half a unit.
const STEP_BITS: u32 = 16;
/// The highest place on a grid. Far beyond any frame, and low enough that place × step never overflows 128 bits.
pub(super) const GRID_PLACE_MAX: u64 = 1 << 40;

/// What foretells a value from those before it.
#[derive(Clone, Debug)]
pub(super) enum Prediction {
    /// The first.
    Plain,
    /// The last, and so many sixteenths of the last two differences.
    Line(i8, i8),
    /// A place on a grid.
    Grid(Grid),
}

impl Prediction {
    /// All of them and about how many bits they leave, those that leave the fewest first.
    pub(super) fn likely(scaled: &[i64], shape: Shape, effort: Effort) -> Vec<(u64, Self)> {
        // The first values speak for all where time is short; but a grid is judged by all.
        let looked_at =
            if effort == Effort::Quick { (scaled.len() / LOOKED_AT_SHARE).max(LOOKED_AT_MIN) } else { scaled.len() };
        let some = scaled.get(..looked_at).unwrap_or(scaled);
        let mut all = vec![Self::Line(0, 0), Self::Plain, Self::Line(ONE, 0)];
        all.extend(Self::fit(some));
        let cost = |one: &Self| one.bits(some) * scaled.len() as u64 / some.len() as u64;
        let mut costs: Vec<(u64, Self)> = all.into_iter().map(|one| (cost(&one), one)).collect();
        if shape == Shape::Rising {
            costs.extend(Grid::fit(scaled).map(|(cost, grid)| (cost, Self::Grid(grid))));
        }
        costs.sort_by_key(|(cost, _)| *cost);
        costs
    }

    /// The line with the least squares of distances.
    fn fit(scaled: &[i64]) -> Option<Self> {
        // The products of a difference with itself and with those before it: d·d₁, d·d₂, d₁·d₁, d₁·d₂, d₂·d₂.
        let [mut y1, mut y2, mut a, mut b, mut c] = [0.0; 5];
        let mut before: Option<[f64; 2]> = None;
        for three in scaled.windows(3) {
            let [d1, d] = [1, 2].map(|place| three[place].wrapping_sub(three[place - 1]) as f64);
            if let Some([d2, _]) = before {
                y1 += d * d1;
                y2 += d * d2;
                a += d1 * d1;
                b += d1 * d2;
                c += d2 * d2;
            }
            before = Some([d1, d]);
        }
        let scale = f64::from(ONE) / (a * c - b * b);
        let weights = [(y1 * c - y2 * b) * scale, (y2 * a - y1 * b) * scale];
        // Not so where the sums say nothing.
        weights.iter().all(|weight| weight.abs() <= f64::from(i8::MAX)).then(|| {
            let [first, second] = weights.map(|weight| weight.round() as i8);
            Self::Line(first, second)
        })
    }

    /// The bits of the residuals of all values but the first.
    fn bits(&self, scaled: &[i64]) -> u64 {
        let rest = scaled.get(1..).unwrap_or_default();
        match self {
            Self::Plain => bits_of(rest.iter().copied()),
            Self::Line(0, 0) => bits_of(rest.iter().zip(scaled).map(|(value, before)| value.wrapping_sub(*before))),
            Self::Line(first, second) => {
                let mut line = Line::new(*first, *second);
                bits_of(rest.iter().map(|value| line.residual(*value)))
            }
            Self::Grid(grid) => bits_of(grid.residuals(scaled).into_iter()),
        }
    }

    pub(super) fn coding(&self) -> u8 {
        match self {
            Self::Plain => PLAIN,
            Self::Line(0, 0) => DELTA,
            Self::Line(ONE, 0) => DELTA_OF_DELTA,
            Self::Line(..) => LINE,
            Self::Grid(_) => GRID,
        }
    }

    /// Appends what the coding does not say.
    pub(super) fn write(&self, out: &mut Vec<u8>) {
        match self {
            Self::Line(first, second) if self.coding() == LINE => out.extend([*first, *second].map(i8::cast_unsigned)),
            Self::Grid(grid) => grid.write(out),
            _ => {}
        }
    }

    /// The residuals of all values but the first.
    pub(super) fn residuals(&self, scaled: &[i64]) -> Vec<i64> {
        let rest = scaled.get(1..).unwrap_or_default();
        match self {
            Self::Plain => rest.to_vec(),
            Self::Line(0, 0) => rest.iter().zip(scaled).map(|(value, before)| value.wrapping_sub(*before)).collect(),
            Self::Line(first, second) => {
                let mut line = Line::new(*first, *second);
                rest.iter().map(|value| line.residual(*value)).collect()
            }
            Self::Grid(grid) => grid.residuals(scaled),
        }
    }
}

/// A line through the last values: where it is, its last two steps, and their weights in sixteenths.
#[derive(Clone, Copy, Debug)]
pub(super) struct Line {
    value: i64,
    steps: [i64; 2],
    weights: [i64; 2],
}

impl Line {
    pub(super) fn new(first: i8, second: i8) -> Self {
        Self { value: 0, steps: [0; 2], weights: [first.into(), second.into()] }
    }

    pub(super) const fn ahead(&self) -> i64 {
        let [first, second] =
            [self.weights[0].wrapping_mul(self.steps[0]), self.weights[1].wrapping_mul(self.steps[1])];
        self.value.wrapping_add(first.wrapping_add(second) >> WEIGHT_BITS)
    }

    /// How far a value lies from where the line led, on which it then is.
    #[inline(always)]
    const fn residual(&mut self, value: i64) -> i64 {
        let ahead = self.ahead();
        self.went_to(value);
        value.wrapping_sub(ahead)
    }

    pub(super) const fn went_to(&mut self, value: i64) {
        self.steps = [value.wrapping_sub(self.value), self.steps[0]];
        self.value = value;
    }
}

/// The bits of residuals.
#[inline(always)]
fn bits_of(residuals: impl Iterator<Item = i64>) -> u64 {
    let mut bits = 0;
    for residual in residuals {
        bits += bit_length(residual);
    }
    bits
}

/// The bits of a residual.
#[inline(always)]
fn bit_length(residual: i64) -> u64 {
    u64::from(64 - zigzag(residual).leading_zeros())
}

/// An ideal grid: place `p` lies at `phase + floor(p × step / 2^16)`. Each value takes the place after its predecessor's, or one
/// further on where places are skipped.
#[derive(Clone, Debug)]
pub(super) struct Grid {
    step: u64,
    phase: i64,
    /// Index of a value, and how many places lie unused before it.
    skips: Vec<(usize, u64)>,
}

impl Grid {
    /// A grid for values that rise by about the same, and about how many bits it takes.
    fn fit(scaled: &[i64]) -> Option<(u64, Self)> {
        let middle = median(scaled.windows(2).map(|pair| pair[1].wrapping_sub(pair[0])))?.cast_unsigned();
        if middle == 0 || middle >= 1 << (63 - STEP_BITS) {
            return None;
        }
        let mut skips = Vec::new();
        let mut place = 0_u64;
        for (index, pair) in scaled.windows(2).enumerate() {
            let mut steps = 1;
            let distance = u64::try_from(pair[1].wrapping_sub(pair[0])).unwrap_or(0).saturating_add(middle / 2);
            if distance >= 2 * middle {
                steps = distance / middle;
                skips.push((index + 1, steps - 1));
            }
            place = place.checked_add(steps).filter(|place| *place <= GRID_PLACE_MAX)?;
        }
        let span = u128::try_from(*scaled.last()?).ok()?;
        let fitted = ((span << STEP_BITS) + u128::from(place / 2)) / u128::from(place);
        let whole = Self { step: middle << STEP_BITS, phase: 0, skips };
        let fitted =
            u64::try_from(fitted).ok().filter(|step| *step != whole.step).map(|step| Self { step, ..whole.clone() });
        [Some(whole), fitted].into_iter().flatten().map(|grid| grid.settled(scaled)).min_by_key(|(cost, _)| *cost)
    }

    /// With the phase that lies in the middle of the values, and the cost.
    fn settled(mut self, scaled: &[i64]) -> (u64, Self) {
        let residuals = self.residuals(scaled);
        self.phase = median(residuals.iter().copied()).unwrap_or(0);
        let mut bits = 0;
        for residual in residuals {
            bits += bit_length(residual.wrapping_sub(self.phase));
        }
        // A skip is two integers of a byte or more.
        (bits + 20 * self.skips.len() as u64 + 16, self)
    }

    /// The residuals of all values but the first.
    fn residuals(&self, scaled: &[i64]) -> Vec<i64> {
        let mut residuals = Vec::with_capacity(scaled.len());
        let (mut place, mut start) = (0, 1);
        for &(index, places) in self.skips.iter().chain([&(scaled.len(), 0)]) {
            let residual = |value: &i64| {
                place += 1;
                value.wrapping_sub(self.phase.wrapping_add(position(place, self.step)))
            };
            residuals.extend(scaled.get(start..index).unwrap_or_default().iter().map(residual));
            (place, start) = (place + places, index);
        }
        residuals
    }

    fn write(&self, out: &mut Vec<u8>) {
        put_unsigned(out, self.step);
        put_signed(out, self.phase);
        put_unsigned(out, self.skips.len() as u64);
        let mut before = 0;
        for &(index, places) in &self.skips {
            put_unsigned(out, (index - before) as u64);
            put_unsigned(out, places);
            before = index;
        }
    }
}

/// About the middle one of these: that of some of them, evenly spread.
fn median(values: impl ExactSizeIterator<Item = i64>) -> Option<i64> {
    let stride = (values.len() / MEDIAN_OF).max(1);
    let mut some: Vec<i64> = values.step_by(stride).collect();
    let middle = some.len() / 2;
    (middle < some.len()).then(|| *some.select_nth_unstable(middle).1)
}

/// Where a place of a grid lies, modulo 2^64.
pub(super) fn position(place: u64, step: u64) -> i64 {
    // At most 40 + 64 bits.
    ((u128::from(place) * u128::from(step)) >> STEP_BITS) as u64 as i64
}
