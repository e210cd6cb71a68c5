//! Residuals by fixed shares: a little more than their entropy, and fast.
//!
//! Of each token ([`super::tokens`]) the column says first how often it comes, in three significant digits of the binary system. A
//! token then costs what its share of all says: it is taken up by one integer, the state, which grows by the inverse of the share,
//! and of which 16 bits are written whenever it would not fit (asymmetric numeral systems in the range variant, Duda 2013). Raw
//! bits are taken up by the same state. Decoding a token is a look-up and a multiplication. Such a coder gives back last what it
//! took first, so that the encoder begins at the end.

use super::cursor::{Cursor, put_unsigned, unzigzag, zigzag};
use super::tokens::Alphabet;
use super::{ColumnError, ColumnFault};

/// All shares of a column add up to 2 to the power of one of these.
const SHARE_BITS_MIN: u32 = 8;
const SHARE_BITS_MAX: u32 = 11;
/// From so many residuals on the most share bits pay for the table that decoding them takes.
const MANY: usize = 512;
/// The state is at least this, which it also begins with, and at most 32 bits long.
const STATE_MIN: u32 = 1 << WORD_BITS;
const WORD_BITS: u32 = 16;
/// The bit length of the first weight is told by its distance from this.
const FIRST_LENGTH: u32 = 6;
/// How many bits of a weight are told after its highest.
const WEIGHT_BITS: u32 = 2;
/// The longest weight: a frame has fewer residuals.
const WEIGHT_LENGTH_MAX: u32 = 24;

/// How often the tokens of a column come: what their shares are made of.
#[derive(Clone, Debug)]
pub(super) struct Shares {
    alphabet: Alphabet,
    bits: u32,
    /// Up to the highest token.
    counts: Vec<u32>,
}

impl Shares {
    /// Those of residuals.
    pub(super) fn of(residuals: &[i64], alphabet: Alphabet) -> Self {
        let mut counts = vec![0; Alphabet::TOKENS_MAX];
        let mut highest = 0;
        for residual in residuals {
            let token = alphabet.token(zigzag(*residual)).0;
            highest = highest.max(token);
            if let Some(count) = counts.get_mut(token as usize) {
                *count += 1;
            }
        }
        counts.truncate(highest as usize + 1);
        let bits = if residuals.len() < MANY { SHARE_BITS_MAX - 1 } else { SHARE_BITS_MAX };
        Self { alphabet, bits, counts }
    }

    /// How many words residuals take at most.
    fn words_max(&self) -> usize {
        let words = |(token, count): (u32, &u32)| (1 + self.alphabet.folded(token).1.div_ceil(WORD_BITS)) * count;
        (0..).zip(&self.counts).map(words).sum::<u32>() as usize
    }

    /// Appends residuals, of which these are the shares.
    pub(super) fn encode(&self, residuals: &[i64], out: &mut Vec<u8>) {
        out.push(self.alphabet.direct_bits() | ((self.bits - SHARE_BITS_MIN) << 4) as u8);
        put_unsigned(out, self.counts.len() as u64);
        let weights: Vec<u32> = self.counts.iter().copied().map(rounded).collect();
        put_weights(&weights, out);
        let Some(shares) = shares(&weights, self.bits) else { return };
        let inverse_bits = 32 + self.bits;
        let steps: Vec<Step> = shares.iter().map(|share| Step::of(*share, self.bits, inverse_bits)).collect();

        let mut state = STATE_MIN;
        let mut words = vec![0_u16; self.words_max() + 1];
        let mut used = 0;
        // Which words are needed is what nothing foretells; so one is always written, and the next over it where it was not.
        let mut make_room = |state: u32, end: u64| {
            let needed = u64::from(state) >= end;
            if let Some(word) = words.get_mut(used) {
                *word = state as u16;
            }
            used += usize::from(needed);
            state >> (WORD_BITS * u32::from(needed))
        };
        for residual in residuals.iter().rev() {
            let folded = zigzag(*residual);
            let (token, mut raw) = self.alphabet.token(folded);
            let mut rest = folded;
            loop {
                let few = raw - raw.saturating_sub(1) / WORD_BITS * WORD_BITS;
                state = make_room(state, 1 << (32 - few)) << few | rest as u32 & ((1 << few) - 1);
                (rest, raw) = (rest >> few, raw - few);
                if raw == 0 {
                    break;
                }
            }
            let Some(step) = steps.get(token as usize) else { return };
            state = make_room(state, step.end);
            let quotient = ((u64::from(state) * step.inverse) >> inverse_bits) as u32;
            state += quotient * step.others + step.start;
        }
        words.truncate(used);
        out.extend(state.to_le_bytes());
        let at = out.len();
        out.resize(at + 2 * words.len(), 0);
        let places = out.get_mut(at..).unwrap_or_default().as_chunks_mut::<2>().0;
        for (place, word) in places.iter_mut().zip(words.iter().rev()) {
            *place = word.to_le_bytes();
        }
    }
}

/// To three significant binary digits.
fn rounded(count: u32) -> u32 {
    let spare = (32 - count.leading_zeros()).saturating_sub(1 + WEIGHT_BITS);
    (count + (1 << spare >> 1)) >> spare << spare
}

/// Where the share of a token starts, and how large it is.
#[derive(Clone, Copy, Debug)]
struct Share {
    start: u32,
    share: u32,
}

/// How the state takes up a token.
#[derive(Clone, Copy, Debug)]
struct Step {
    /// The state is divided by the share as it is multiplied by the inverse of that, with as many places as make it exact.
    inverse: u64,
    /// From here on the state must give up a word before.
    end: u64,
    start: u32,
    /// The shares of all others.
    others: u32,
}

impl Step {
    fn of(Share { start, share }: Share, bits: u32, inverse_bits: u32) -> Self {
        let inverse = (1_u64 << inverse_bits).div_ceil(u64::from(share.max(1)));
        Self { inverse, end: u64::from(share) << (32 - bits), start, others: (1 << bits) - share }
    }
}

/// The shares of tokens by their weights. Each one with a weight has one, so that it can be coded; nothing if that is too much.
fn shares(weights: &[u32], bits: u32) -> Option<Vec<Share>> {
    let (mut total, mut many, mut largest) = (0_u64, 0_u32, (0, 0));
    for (token, &weight) in weights.iter().enumerate() {
        total += u64::from(weight);
        many += u32::from(weight > 0);
        if weight > largest.1 {
            largest = (token, weight);
        }
    }
    let left = (1_u32 << bits).checked_sub(many).filter(|_| many > 0)?;
    let scale = |weight: u32| (u64::from(weight) * u64::from(left) / total) as u32 + u32::from(weight > 0);
    let spare = (1 << bits) - weights.iter().map(|weight| scale(*weight)).sum::<u32>();
    let mut start = 0;
    let share = |(token, weight): (usize, &u32)| {
        let share = scale(*weight) + if token == largest.0 { spare } else { 0 };
        start += share;
        Share { start: start - share, share }
    };
    Some(weights.iter().enumerate().map(share).collect())
}

/// Appends the bit length of each weight, as distance from that of the weight before, and up to two bits after the highest.
fn put_weights(weights: &[u32], out: &mut Vec<u8>) {
    let (mut held, mut count, mut before) = (0_u64, 0, FIRST_LENGTH);
    let mut put = |bits: u64, many: u32| {
        held |= bits << count;
        count += many;
        while count >= 8 {
            out.push(held as u8);
            (held, count) = (held >> 8, count - 8);
        }
    };
    for &weight in weights {
        let length = 32 - weight.leading_zeros();
        let folded = zigzag(i64::from(length) - i64::from(before)) as u32;
        put(1 << folded, folded + 1);
        let few = length.saturating_sub(1).min(WEIGHT_BITS);
        put(u64::from(weight >> length.saturating_sub(1 + few)) & ((1 << few) - 1), few);
        before = length;
    }
    put(0, 7);
}

/// Reads what [`put_weights`] wrote.
fn read_weights(cursor: &mut Cursor<'_>, many: usize) -> Result<Vec<u32>, ColumnError> {
    let (mut held, mut count, mut before) = (0, 0, FIRST_LENGTH);
    let mut bit = |cursor: &mut Cursor<'_>| {
        if count == 0 {
            (held, count) = (u32::from(cursor.byte()?), 8);
        }
        let bit = held & 1;
        (held, count) = (held >> 1, count - 1);
        Ok(bit)
    };
    let mut weights = Vec::with_capacity(many);
    for _ in 0..many {
        let mut folded = 0;
        while bit(cursor)? == 0 {
            folded += 1;
        }
        let length = i64::from(before) + unzigzag(folded);
        let length = u32::try_from(length).ok().filter(|length| *length <= WEIGHT_LENGTH_MAX);
        before = length.ok_or_else(|| cursor.error(ColumnFault::Integer))?;
        let few = before.saturating_sub(1).min(WEIGHT_BITS);
        let mut weight = u32::from(before > 0) << few;
        for place in 0..few {
            weight |= bit(cursor)? << place;
        }
        weights.push(weight << before.saturating_sub(1 + few));
    }
    Ok(weights)
}

/// What decodes tokens: for each number below the sum of all shares the token whose share it is in (9 bits), this share (12 bits),
/// and how far it is from the share's start (11 bits).
fn table(shares: &[Share], places: &mut [u32]) {
    let mut rest = places;
    for (token, share) in (0..).zip(shares) {
        let Some((own, others)) = std::mem::take(&mut rest).split_at_mut_checked(share.share as usize) else { return };
        let first = (token << (2 * SHARE_BITS_MAX + 1)) | (share.share << SHARE_BITS_MAX);
        for (entry, place) in (first..).zip(own) {
            *place = entry;
        }
        rest = others;
    }
}

/// Appends `count` residuals to others. The caller has bounded `count`.
pub(super) fn decode(cursor: &mut Cursor<'_>, count: usize, residuals: &mut Vec<i64>) -> Result<(), ColumnError> {
    let byte = cursor.byte()?;
    let unknown = ColumnFault::Coding { column: "shares", found: byte };
    let bits = SHARE_BITS_MIN + u32::from(byte >> 4);
    let alphabet = Alphabet::of(byte & 15).filter(|_| bits <= SHARE_BITS_MAX);
    let alphabet = alphabet.ok_or_else(|| cursor.error(unknown))?;
    let many = cursor.at_most("tokens", Alphabet::TOKENS_MAX)?;
    let weights = read_weights(cursor, many)?;
    let shares = shares(&weights, bits).ok_or_else(|| cursor.error(ColumnFault::Order))?;
    let mut places = [0; 1 << SHARE_BITS_MAX];
    table(&shares, &mut places);

    let mut state = cursor.take(4)?.iter().rev().fold(0, |state, byte| state << 8 | u32::from(*byte));
    if state < STATE_MIN {
        return Err(cursor.error(ColumnFault::Order));
    }
    let words = cursor.rest();
    let mut at = 0;
    let mut refill = |state: u32| {
        // Beyond the end come zeros, which are found below. Nothing foretells whether a word is needed, so that nothing branches on it.
        let word = words.get(at..).and_then(|rest| rest.first_chunk::<2>()).map_or(0, |word| u16::from_le_bytes(*word));
        let needed = u32::from(state < STATE_MIN);
        at += 2 * needed as usize;
        state << (WORD_BITS * needed) | u32::from(word) & needed.wrapping_neg()
    };
    for _ in 0..count {
        let entry = places[(state & ((1 << bits) - 1)) as usize];
        let share = entry >> SHARE_BITS_MAX & ((2 << SHARE_BITS_MAX) - 1);
        state = refill(share * (state >> bits) + (entry & ((1 << SHARE_BITS_MAX) - 1)));
        let (mut folded, mut raw) = alphabet.folded(entry >> (2 * SHARE_BITS_MAX + 1));
        loop {
            let few = raw.min(WORD_BITS);
            folded = folded << few | u64::from(state & ((1 << few) - 1));
            state = refill(state >> few);
            raw -= few;
            if raw == 0 {
                break;
            }
        }
        residuals.push(unzigzag(folded));
    }
    cursor.take(at)?;
    if state != STATE_MIN {
        return Err(cursor.error(ColumnFault::Order));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::columns::cases::four_bits_of_noise;

    fn round_trip(residuals: &[i64], alphabet: Alphabet) -> usize {
        let mut bytes = Vec::new();
        Shares::of(residuals, alphabet).encode(residuals, &mut bytes);
        let mut cursor = Cursor::new(&bytes);
        let mut back = Vec::new();
        decode(&mut cursor, residuals.len(), &mut back).unwrap();
        assert_eq!(back, residuals, "{alphabet:?}");
        assert_eq!(cursor.left(), 0, "{alphabet:?}");
        bytes.len()
    }

    fn alphabets() -> impl Iterator<Item = Alphabet> {
        (0..=u8::MAX).filter_map(Alphabet::of)
    }

    proptest! {
        #[test]
        fn any_residuals_come_back(residuals in prop::collection::vec(any::<i64>(), 1..700), bits in 0_u32..64) {
            let residuals: Vec<i64> = residuals.into_iter().map(|residual| residual >> bits).collect();
            alphabets().for_each(|alphabet| { round_trip(&residuals, alphabet); });
        }

        #[test]
        fn random_bytes_end_in_residuals_or_an_error(bytes: Vec<u8>, byte in 0_u8..64, tokens in 0_u8..128, count in 0_usize..500) {
            let bytes = [&[byte, tokens][..], &bytes].concat();
            let _ = decode(&mut Cursor::new(&bytes), count, &mut Vec::new());
        }
    }

    #[test]
    fn what_is_nearly_certain_comes_back() {
        // Shares close to all there are, and close to none.
        for period in [1, 2, 3, 50, 199, 5000] {
            let residuals: Vec<i64> = (0..5000).map(|i| i64::from(i % period == 0) * 40).collect();
            alphabets().for_each(|alphabet| {
                round_trip(&residuals, alphabet);
            });
        }
    }

    #[test]
    fn residuals_cost_their_entropy() {
        // Four bits of noise: 600 values of them are 300 bytes.
        let noise = four_bits_of_noise();
        let bytes = round_trip(&noise, Alphabet::LEAST);
        assert!(bytes < 320, "{bytes}");
        assert!(round_trip(&[0; 1000], Alphabet::LEAST) < 12);
    }
}
