//! What residuals would cost the range coder ([`super::entropy`]), reckoned from how often their tokens come.
//!
//! A place in a tree that has seen `n` tokens, of which `a` went one way and `b` the other, was paid for by the shares that it had
//! each time. While it counts all that it sees their product depends on the order no more: it is Γ(a + ¼) Γ(b + ¼) / Γ(n + ½), but
//! for a factor, which is the estimator of Krichevsky and Trofimov (1981) with quarters for halves. So one look at the residuals says
//! what each alphabet makes of them, where a trial would walk through the tree with every one.

use super::cursor::zigzag;
use super::tokens::Alphabet;

/// How often the tokens of residuals come, in the alphabet that has the most: it says how often those of the others come.
#[derive(Clone, Debug)]
pub(super) struct Counts(Vec<u32>);

impl Counts {
    pub(super) fn of(residuals: &[i64]) -> Self {
        let mut counts = vec![0; Alphabet::TOKENS_MAX];
        let mut highest = 0;
        for residual in residuals {
            let token = Alphabet::MOST.token(zigzag(*residual)).0 as usize;
            highest = highest.max(token);
            if let Some(count) = counts.get_mut(token) {
                *count += 1;
            }
        }
        counts.truncate(highest + 1);
        Self(counts)
    }

    /// About how many 256ths of a bit the tokens and raw bits of an alphabet take.
    pub(super) fn cost(&self, alphabet: Alphabet) -> u64 {
        let mut counts = vec![0; self.0.len()];
        let (mut raw, mut highest) = (0, 0);
        for (token, &count) in (0..).zip(&self.0) {
            if count > 0 {
                let (high, below) = Alphabet::MOST.folded(token);
                let (token, raw_bits) = alphabet.token(high << below);
                raw += u64::from(raw_bits) * u64::from(count);
                highest = token as usize;
                if let Some(sum) = counts.get_mut(highest) {
                    *sum += count;
                }
            }
        }
        counts.truncate(highest + 1);
        tree_cost(counts) + 256 * raw
    }
}

/// About how many 256ths of a bit a tree takes for tokens that come so often.
pub(super) fn tree_cost(mut counts: Vec<u32>) -> u64 {
    let mut cost = 0;
    while counts.len() > 1 {
        let places = counts.len().div_ceil(2);
        for place in 0..places {
            let (a, b) = (counts[2 * place], counts.get(2 * place + 1).copied().unwrap_or(0));
            counts[place] = a + b;
            cost += place_cost(a.into(), b.into());
        }
        counts.truncate(places);
    }
    (cost >> (LOG_BITS + 2 - 8)).cast_unsigned()
}

/// What a place takes that was left so often each way, in quarters of what [`log`] counts in.
fn place_cost(a: i64, b: i64) -> i64 {
    if a + b == 0 {
        return 0;
    }
    // Stirling's formula for Γ. What is left of it does not depend on how often, but on whether both ways were taken.
    let left = if a == 0 || b == 0 { ONE_WAY } else { BOTH_WAYS };
    4 * (a + b) * log(4 * (a + b) + 2) - (4 * a - 1) * log(4 * a + 1) - (4 * b - 1) * log(4 * b + 1) + left
}

/// 0.66 and 2.26 quarters of bits.
const ONE_WAY: i64 = (66 << LOG_BITS) / 100;
const BOTH_WAYS: i64 = (226 << LOG_BITS) / 100;
/// The binary places of a logarithm.
const LOG_BITS: u32 = 16;
/// The binary places by which [`LOGS`] are looked up; between them a line is near enough, by a ten-thousandth of a bit.
const LOOKED_UP_BITS: u32 = 6;

/// The logarithms of 1 to 2.
const LOGS: [u32; (1 << LOOKED_UP_BITS) + 1] = {
    let mut logs = [0; (1 << LOOKED_UP_BITS) + 1];
    let mut at = 0;
    while at < logs.len() {
        // Digit by digit, by squaring what is left, with 31 binary places.
        let mut left = ((1 << LOOKED_UP_BITS) + at as u64) << (31 - LOOKED_UP_BITS);
        let mut log = (left >> 32) as u32;
        left >>= log;
        let mut digit = 0;
        while digit < LOG_BITS {
            left = (left * left) >> 31;
            let carry = (left >> 32) as u32;
            left >>= carry;
            log = log << 1 | carry;
            digit += 1;
        }
        logs[at] = log;
        at += 1;
    }
    logs
};

/// The binary logarithm of a number from 1 to 2^31.
fn log(number: i64) -> i64 {
    let length = number.ilog2();
    let mantissa = (number << (31 - length)) as u32;
    let below = 31 - LOOKED_UP_BITS;
    let place = (mantissa >> below) as usize & ((1 << LOOKED_UP_BITS) - 1);
    let [from, to] = [LOGS[place], LOGS[place + 1]].map(i64::from);
    (i64::from(length) << LOG_BITS) + from + (((to - from) * i64::from(mantissa & ((1 << below) - 1))) >> below)
}
