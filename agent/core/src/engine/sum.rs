//! Sums of floats that hardly depend on their order, and the spread that is worked out from two of them.

use serde::{Deserialize, Serialize};

/// A sum, and what it lost to rounding (Neumaier 1974, "Rundungsfehleranalyse einiger Verfahren zur Summation endlicher Summen").
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Sum {
    sum: f64,
    lost: f64,
}

impl Sum {
    pub(super) const ZERO: Self = Self { sum: 0.0, lost: 0.0 };

    #[inline]
    pub(super) fn add(&mut self, number: f64) {
        let (sum, lost) = exact_sum(self.sum, number);
        self.lost += lost;
        self.sum = sum;
    }

    /// Adds the square of a number, with the half of its digits that one float does not hold.
    pub(super) fn add_square(&mut self, number: f64) {
        let square = number * number;
        self.add(square);
        self.lost += number.mul_add(number, -square);
    }

    pub(super) fn merge(&mut self, other: &Self) {
        self.add(other.sum);
        self.lost += other.lost;
    }

    /// The sum; infinite or NaN where that of finite numbers is beyond 64 bits.
    pub(super) fn total(&self) -> f64 {
        if self.sum.is_finite() { self.sum + self.lost } else { self.sum }
    }

    /// As two floats, the second below the last digit of the first.
    fn parts(&self) -> (f64, f64) {
        exact_sum(self.sum, self.lost)
    }
}

/// The nearest float to a sum, and the rest.
#[inline]
fn exact_sum(a: f64, b: f64) -> (f64, f64) {
    let sum = a + b;
    (sum, if a.abs() >= b.abs() { (a - sum) + b } else { (b - sum) + a })
}

/// The variance of the population from the sums of `count` numbers and of their squares: `(Σx² − (Σx)² / n) / n`.
///
/// In floats that formula loses all digits when the mean is large beside the spread; it is computed in pairs of floats, 106 bits,
/// of which the difference leaves enough as long as the spread is above 1e-8 of the mean. Never below 0.
pub(super) fn variance(sum: &Sum, squares: &Sum, count: f64) -> f64 {
    let ((s, s_rest), (q, q_rest)) = (sum.parts(), squares.parts());
    let mean = s / count;
    let mean_rest = ((-mean).mul_add(count, s) + s_rest) / count;
    // (Σx)² / n as sum × mean.
    let product = s * mean;
    let product_rest = s.mul_add(mean, -product) + s * mean_rest + s_rest * mean;
    let (difference, rest) = exact_sum(q, -product);
    ((difference + (rest + (q_rest - product_rest))) / count).max(0.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sum_is_compensated() {
        let mut sum = Sum::default();
        [1.0, 1e100, 1.0, -1e100].into_iter().for_each(|number| sum.add(number));
        assert_eq!(sum.total(), 2.0);
    }

    #[test]
    fn a_small_spread_about_a_large_mean_keeps_its_digits() {
        // 1e9 ± 1, half each: a variance of 1, where the squares have 18 digits.
        let (mut sum, mut squares) = (Sum::default(), Sum::default());
        for i in 0..10_000 {
            let number = if i % 2 == 0 { 1e9 + 1.0 } else { 1e9 - 1.0 };
            sum.add(number);
            squares.add_square(number);
        }
        let found = variance(&sum, &squares, 10_000.0);
        assert!((found - 1.0).abs() < 1e-12, "{found}");
    }
}
