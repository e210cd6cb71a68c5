//! Decimals: scales as they are written, so that 234 × 0.1 is 23.4 and not 23.400000000000002. Pure.

/// A number as decimal digits: `digits × 10^exponent`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Decimal {
    digits: i128,
    exponent: i32,
}

impl From<i128> for Decimal {
    fn from(digits: i128) -> Self {
        Self { digits, exponent: 0 }
    }
}

impl Decimal {
    const ZERO: Self = Self { digits: 0, exponent: 0 };

    /// The shortest decimal that reads back as this number, which is how it was written; `None` for NaN and infinities.
    pub(super) fn of(number: f64) -> Option<Self> {
        let text = format!("{number:e}");
        let (mantissa, exponent) = text.split_once('e')?;
        let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
        let digits = format!("{whole}{fraction}").parse().ok()?;
        let exponent: i32 = exponent.parse().ok()?;
        Some(Self { digits, exponent: exponent - i32::try_from(fraction.len()).ok()? })
    }

    fn times(self, other: Self) -> Option<Self> {
        let digits = self.digits.checked_mul(other.digits)?;
        Some(Self { digits, exponent: self.exponent + other.exponent })
    }

    fn plus(self, other: Self) -> Option<Self> {
        if other.digits == 0 {
            return Some(self);
        }
        let exponent = self.exponent.min(other.exponent);
        let digits = |number: Self| {
            let shift = 10_i128.checked_pow(number.exponent.abs_diff(exponent))?;
            number.digits.checked_mul(shift)
        };
        Some(Self { digits: digits(self)?.checked_add(digits(other)?)?, exponent })
    }

    /// The nearest f64.
    fn to_f64(self) -> Option<f64> {
        format!("{}e{}", self.digits, self.exponent).parse().ok()
    }
}

/// What a raw value is multiplied by, and what is added then.
#[derive(Clone, Copy, Debug)]
pub(super) struct Scale {
    factor: Decimal,
    offset: Decimal,
    factor_f64: f64,
    offset_f64: f64,
}

impl Scale {
    /// A scale of finite numbers.
    pub(super) fn new(factor: f64, offset: f64) -> Self {
        let decimal = |number| Decimal::of(number).unwrap_or(Decimal::ZERO);
        Self { factor: decimal(factor), offset: decimal(offset), factor_f64: factor, offset_f64: offset }
    }

    /// The f64 nearest to `raw × factor + offset`, exact in decimal. Numbers so long that they do not fit into 38 digits are
    /// computed in floating point from `nearest`, which is the f64 of `raw`.
    pub(super) fn apply(&self, raw: Decimal, nearest: f64) -> f64 {
        let exact = raw.times(self.factor).and_then(|product| product.plus(self.offset)).and_then(Decimal::to_f64);
        exact.unwrap_or_else(|| nearest.mul_add(self.factor_f64, self.offset_f64))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn products_are_those_on_paper() {
        for (raw, factor, offset, expected) in [
            (234, 0.1, 0.0, 23.4),
            (3, 0.1, 0.0, 0.3),
            (-3, 0.1, 0.0, -0.3),
            (57, 0.01, 0.0, 0.57),
            (1_001, 0.1, -40.0, 60.1),
            (7, 1e-7, 0.0, 7e-7),
            (12, 1000.0, 0.5, 12_000.5),
            (i128::from(u64::MAX), 0.001, 0.0, 18_446_744_073_709_551.615),
            (1, 1e300, 1e-300, 1e300),
            (0, 0.1, 0.0, 0.0),
        ] {
            let found = Scale::new(factor, offset).apply(raw.into(), raw as f64);
            assert_eq!(found.to_bits(), f64::to_bits(expected), "{raw} × {factor} + {offset} is {found}");
        }
    }

    proptest! {
        #[test]
        fn a_number_reads_back(number in any::<f64>().prop_filter("finite", |number| number.is_finite())) {
            // A zero has no sign here.
            let decimal = Decimal::of(number).unwrap();
            prop_assert_eq!(decimal.to_f64(), Some(number));
        }

        #[test]
        fn a_scale_of_a_power_of_ten_moves_the_point(raw in any::<i64>(), places in 0_u32..18) {
            let factor: f64 = format!("1e-{places}").parse().unwrap();
            let found = Scale::new(factor, 0.0).apply(i128::from(raw).into(), raw as f64);
            prop_assert_eq!(found, format!("{raw}e-{places}").parse::<f64>().unwrap());
        }
    }
}
