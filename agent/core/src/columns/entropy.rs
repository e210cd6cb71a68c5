//! Residuals as an adaptive binary range coder writes them: what is left of a column, at the cost of its entropy.
//!
//! A residual is a token and raw bits ([`super::tokens`]). A token is coded as a path through a binary tree. Each node of the tree has a probability that follows what it has seen, fast at first and then
//! slowly, so that no table is sent, and a column of sixty values is coded as well as one of thousands. Where that pays, there is
//! a tree for each size of the residual before.
//!
//! The range coder keeps 64 bits of range, of which it gives up 32 when fewer than 32 are left, so that its loops hardly branch.

use std::hint::select_unpredictable;

use super::counts::{Counts, tree_cost};
use super::cursor::{Cursor, put_unsigned, unzigzag, zigzag};
use super::integers::COUNTED_VALUES_MIN;
use super::tokens::{Alphabet, RAW_BITS_MAX};
use super::{ColumnError, ColumnFault};

/// The deepest tree: no alphabet has more than 2^9 tokens.
const DEPTH_MAX: u8 = 9;
/// How many trees there are where the residual before chooses one.
const CONTEXTS: usize = 8;
/// Set in the parameters where the residual before chooses the tree.
const HAS_CONTEXT: u8 = 16;
/// Set in the parameters where probabilities forget soon: after about 30 tokens, not 255.
const FORGETS: u8 = 32;
const LIMIT_SLOW: u32 = 255;
const LIMIT_FAST: u32 = 30;

/// How far a probability moves to what it has just seen, as a share of 65,536, by how often it has been used.
const RATES: [u16; LIMIT_SLOW as usize + 1] = {
    let mut rates = [0; LIMIT_SLOW as usize + 1];
    let mut uses = 0;
    while uses < rates.len() {
        rates[uses] = (131_072 / (2 * uses + 3)) as u16;
        uses += 1;
    }
    rates
};

/// What a column's model is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Model {
    alphabet: Alphabet,
    has_context: bool,
    forgets: bool,
}

impl Model {
    /// For columns that nothing is known of: a tree that is not deep.
    pub(super) const PLAIN: Self = Self { alphabet: Alphabet::LEAST, has_context: false, forgets: false };

    const fn byte(self) -> u8 {
        self.alphabet.direct_bits()
            | if self.has_context { HAS_CONTEXT } else { 0 }
            | if self.forgets { FORGETS } else { 0 }
    }

    fn from_byte(byte: u8) -> Option<Self> {
        let alphabet = Alphabet::of(byte & 15).filter(|_| byte < 64)?;
        Some(Self { alphabet, has_context: byte & HAS_CONTEXT != 0, forgets: byte & FORGETS != 0 })
    }

    const fn limit(self) -> u32 {
        if self.forgets { LIMIT_FAST } else { LIMIT_SLOW }
    }

    /// Which tree follows a folded residual.
    #[inline]
    const fn context(self, before: u64) -> usize {
        if !self.has_context {
            return 0;
        }
        if before < 3 {
            return before as usize;
        }
        let length = 65 - before.leading_zeros() as usize;
        if length < CONTEXTS { length } else { CONTEXTS - 1 }
    }

    /// How deep a tree must be for the tokens of residuals.
    fn depth(self, residuals: &[i64]) -> u8 {
        // Larger numbers have larger tokens.
        let highest = residuals.iter().map(|residual| zigzag(*residual)).max().unwrap_or(0);
        (32 - self.alphabet.token(highest).0.leading_zeros()) as u8
    }

    /// The trees, one after the other, and room for another one after them.
    fn trees(self, depth: u8) -> Vec<Node> {
        vec![Node::NEW; (if self.has_context { CONTEXTS + 1 } else { 2 }) << depth]
    }
}

/// A place in a tree: in the upper half that the next bit is 1, as a share of 65,536, never 0; in the lower half how often it has been
/// used, up to the limit.
#[derive(Clone, Copy, Debug)]
struct Node(u32);

impl Node {
    const NEW: Self = Self(1 << 31);

    #[inline(always)]
    const fn share(self) -> u32 {
        self.0 >> 16
    }

    /// After one more bit.
    // Built for size, it would be called for each bit, and take as long to call as to do. Nothing foretells bits, so that a branch
    // on one is wrong half of the time: instead `zero` is all ones for a 0 and nothing otherwise.
    #[inline(always)]
    const fn learned(self, bit: bool, limit: u32) -> Self {
        let rate = RATES[(self.0 & LIMIT_SLOW) as usize] as u32;
        let zero = (bit as u32).wrapping_sub(1);
        // Less than the gap, so that a share is never 0 and never all.
        let gap = if bit { 65_536 - self.share() } else { self.share() };
        let step = (gap * rate) >> 16;
        let moved = self.0.wrapping_add(((step ^ zero).wrapping_sub(zero)) << 16);
        Self(moved + (self.0 & LIMIT_SLOW < limit) as u32)
    }
}

/// What has been coded, and what may still follow: the numbers from `low` up to less than `low + range`.
struct Coder {
    coded: Vec<u8>,
    low: u64,
    range: u64,
}

impl Coder {
    /// Codes a token of so many bits. By itself, so that the loop's few numbers stay in registers.
    #[inline(never)]
    fn put(&mut self, token: u32, depth: u8, tree: &mut [Node], limit: u32) {
        let (mut low, mut range) = (self.low, self.range);
        let mut place = 1_usize;
        for level in (0..depth).rev() {
            let bit = token >> level & 1 == 1;
            let Some(node) = tree.get_mut(place) else { break };
            let bound = (range >> 16) * u64::from(node.share());
            let (moved, carried) = low.overflowing_add(select_unpredictable(bit, 0, bound));
            low = moved;
            range = select_unpredictable(bit, bound, range - bound);
            *node = node.learned(bit, limit);
            place = place << 1 | usize::from(bit);
            if carried {
                carry(&mut self.coded);
            }
            if range >> 32 == 0 {
                self.coded.extend_from_slice(&((low >> 32) as u32).to_be_bytes());
                low <<= 32;
                range <<= 32;
            }
        }
        (self.low, self.range) = (low, range);
    }

    /// The whole code: of the numbers that may follow the one with the most zero bytes, which are not written.
    fn finish(mut self) -> Vec<u8> {
        let spare = (1_u64 << ((63 - self.range.leading_zeros()) & !7)) - 1;
        let (end, carried) = self.low.overflowing_add(spare);
        if carried {
            carry(&mut self.coded);
        }
        self.coded.extend_from_slice(&(end & !spare).to_be_bytes());
        while self.coded.last() == Some(&0) {
            self.coded.pop();
        }
        self.coded
    }
}

/// Appends residuals.
pub(super) fn encode(residuals: &[i64], model: Model, out: &mut Vec<u8>) {
    let depth = model.depth(residuals);
    let mut trees = model.trees(depth);
    let limit = model.limit();
    let mut coder = Coder { coded: Vec::with_capacity(residuals.len() + 8), low: 0, range: u64::MAX };
    let mut raw = RawWriter { bytes: Vec::with_capacity(residuals.len() + 8), held: 0, count: 0 };
    let mut tree = 0;
    for &residual in residuals {
        let folded = zigzag(residual);
        let (token, raw_bits) = model.alphabet.token(folded);
        coder.put(token, depth, trees.get_mut(tree..).unwrap_or_default(), limit);
        if raw_bits > 0 {
            raw.put(folded, raw_bits);
        }
        tree = model.context(folded) << depth;
    }
    let coded = coder.finish();
    out.extend_from_slice(&[model.byte(), depth]);
    put_unsigned(out, coded.len() as u64);
    out.extend_from_slice(&coded);
    raw.finish(out);
}

/// The bits of a tree's decision by the upper byte of its share, in 256ths.
const COSTS: [u16; 256] = {
    let mut costs = [0; 256];
    let mut share = 0;
    while share < costs.len() {
        // The logarithm of the middle of the byte, digit by digit, by squaring what is left: all with 31 binary places.
        let middle = 2 * share as u64 + 1;
        let mut log = middle.ilog2();
        let mut left = middle << (31 - log);
        let mut digit = 0;
        while digit < 8 {
            left = (left * left) >> 31;
            let carry = (left >> 32) as u32;
            left >>= carry;
            log = log << 1 | carry;
            digit += 1;
        }
        costs[share] = (9 * 256 - log) as u16;
        share += 1;
    }
    costs
};

/// About how many 256ths of a bit [`encode`] takes for residuals. Nothing here waits for what is before it, as coding does.
pub(super) fn cost(residuals: &[i64], model: Model) -> u64 {
    let depth = model.depth(residuals);
    let mut trees = model.trees(depth);
    let limit = model.limit();
    let (mut cost, mut raw, mut tree) = (0_u64, 0_u64, 0);
    for &residual in residuals {
        let folded = zigzag(residual);
        let (token, raw_bits) = model.alphabet.token(folded);
        let mut place = 1_usize;
        for level in (0..depth).rev() {
            let bit = token >> level & 1 == 1;
            let Some(node) = trees.get_mut(tree + place) else { break };
            let share = node.share() ^ if bit { 0 } else { 0xffff };
            cost += u64::from(COSTS[(share >> 8) as usize]);
            *node = node.learned(bit, limit);
            place = place << 1 | usize::from(bit);
        }
        raw += u64::from(raw_bits);
        tree = model.context(folded) << depth;
    }
    cost + raw * 256
}

/// The model that takes the fewest bits for residuals whose tokens come so often, and for which the plain one takes `cost` 256ths of
/// a bit. One change after another, each beside the best so far, where the counts do not say that it is not worth a trial.
pub(super) fn choose(residuals: &[i64], counts: &Counts, cost: u64) -> Model {
    let mut best = (cost, Model::PLAIN);
    let mut reckoned = counts.cost(Alphabet::LEAST);
    let mut consider = |changed: Model, about: u64| {
        if residuals.len() >= COUNTED_VALUES_MIN && about > reckoned / 32 * 33 {
            return best.1;
        }
        let cost = self::cost(residuals, changed);
        if cost < best.0 {
            best = (cost, changed);
            reckoned = about;
        }
        best.1
    };
    let model = consider(Model { alphabet: Alphabet::MIDDLE, ..Model::PLAIN }, counts.cost(Alphabet::MIDDLE));
    let model = consider(Model { alphabet: Alphabet::MOST, ..model }, counts.cost(Alphabet::MOST));
    let context = Model { has_context: true, ..model };
    let model = consider(context, context_cost(residuals, context));
    // What forgetting saves depends on the order alone.
    consider(Model { forgets: true, ..model }, 0)
}

/// About how many 256ths of a bit [`encode`] takes for residuals with a tree for each context.
fn context_cost(residuals: &[i64], model: Model) -> u64 {
    let depth = model.depth(residuals);
    let mut counts = vec![0_u32; CONTEXTS << depth];
    let (mut raw, mut tree) = (0, 0);
    for &residual in residuals {
        let folded = zigzag(residual);
        let (token, raw_bits) = model.alphabet.token(folded);
        if let Some(count) = counts.get_mut(tree + token as usize) {
            *count += 1;
        }
        raw += u64::from(raw_bits);
        tree = model.context(folded) << depth;
    }
    256 * raw + counts.chunks(1 << depth).map(|tree| tree_cost(tree.to_vec())).sum::<u64>()
}

/// Adds one to the number that the bytes are.
fn carry(bytes: &mut [u8]) {
    for byte in bytes.iter_mut().rev() {
        *byte = byte.wrapping_add(1);
        if *byte != 0 {
            return;
        }
    }
}

/// Bits that are not coded, the first in the lowest bit of the first byte.
struct RawWriter {
    bytes: Vec<u8>,
    held: u64,
    count: u32,
}

impl RawWriter {
    /// The lowest `count` bits of `bits`, of which there are at most 61.
    #[inline]
    fn put(&mut self, mut bits: u64, mut count: u32) {
        if count > 32 {
            self.put(bits & u64::from(u32::MAX), 32);
            (bits, count) = (bits >> 32, count - 32);
        }
        self.held |= (bits & ((1 << count) - 1)) << self.count;
        self.count += count;
        if self.count >= 32 {
            self.bytes.extend_from_slice(&(self.held as u32).to_le_bytes());
            self.held >>= 32;
            self.count -= 32;
        }
    }

    fn finish(self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.bytes);
        out.extend(self.held.to_le_bytes().iter().take(self.count.div_ceil(8) as usize));
    }
}

/// A code that is being read.
struct Decoder<'a> {
    code: u64,
    range: u64,
    rest: &'a [u8],
}

impl<'a> Decoder<'a> {
    fn new(coded: &'a [u8]) -> Self {
        let mut rest = coded;
        let code = u64::from(next_word(&mut rest)) << 32 | u64::from(next_word(&mut rest));
        Self { code, range: u64::MAX, rest }
    }

    /// The next token of so many bits. `tree` reaches as far again as the tree does. By itself, so that the loop's few numbers stay
    /// in registers.
    #[inline(never)]
    fn token(&mut self, depth: u8, tree: &mut [Node], limit: u32) -> u32 {
        let (mut code, mut range) = (self.code, self.range);
        let mut place = 1_usize;
        let mut node = tree.get(place).copied().unwrap_or(Node::NEW);
        for _ in 0..depth {
            // Both ways are looked up while it is found out which one it goes.
            let [left, right] = match tree.get(2 * place..2 * place + 2) {
                Some(&[left, right]) => [left, right],
                _ => break,
            };
            let bound = (range >> 16) * u64::from(node.share());
            let bit = code < bound;
            code = select_unpredictable(bit, code, code.wrapping_sub(bound));
            range = select_unpredictable(bit, bound, range - bound);
            if let Some(seen) = tree.get_mut(place) {
                *seen = node.learned(bit, limit);
            }
            node = select_unpredictable(bit, right, left);
            place = place << 1 | usize::from(bit);
            if range >> 32 == 0 {
                code = code << 32 | u64::from(next_word(&mut self.rest));
                range <<= 32;
            }
        }
        (self.code, self.range) = (code, range);
        (place - (1 << depth)) as u32
    }
}

/// Raw bits that are being read, from the bytes at a cursor.
#[derive(Default)]
struct RawReader {
    held: u64,
    count: u32,
}

impl RawReader {
    /// The next `count` bits, at most [`RAW_BITS_MAX`].
    fn take(&mut self, cursor: &mut Cursor<'_>, count: u32) -> Result<u64, ColumnError> {
        let (mut bits, mut have) = (0, 0);
        while have < count {
            let wanted = (count - have).min(32);
            while self.count < wanted {
                self.held |= u64::from(cursor.byte()?) << self.count;
                self.count += 8;
            }
            bits |= (self.held & ((1 << wanted) - 1)) << have;
            self.held >>= wanted;
            self.count -= wanted;
            have += wanted;
        }
        Ok(bits)
    }
}

/// Appends `count` residuals to others. The caller has bounded `count`.
pub(super) fn decode(cursor: &mut Cursor<'_>, count: usize, residuals: &mut Vec<i64>) -> Result<(), ColumnError> {
    let byte = cursor.byte()?;
    let unknown = ColumnFault::Coding { column: "residuals", found: byte };
    let model = Model::from_byte(byte).ok_or_else(|| cursor.error(unknown))?;
    let depth = cursor.byte()?;
    if depth > DEPTH_MAX {
        return Err(cursor.error(ColumnFault::Coding { column: "the depth of a tree", found: depth }));
    }
    let length = cursor.at_most("bytes of coded residuals", cursor.left())?;
    let mut decoder = Decoder::new(cursor.take(length)?);
    let mut trees = model.trees(depth);
    let limit = model.limit();
    let (mut tree, mut raw) = (0, RawReader::default());
    for _ in 0..count {
        let token = decoder.token(depth, trees.get_mut(tree..).unwrap_or_default(), limit);
        let (mut folded, raw_bits) = model.alphabet.folded(token);
        if raw_bits > 0 {
            if raw_bits > RAW_BITS_MAX {
                return Err(cursor.error(ColumnFault::Integer));
            }
            folded = folded << raw_bits | raw.take(cursor, raw_bits)?;
        }
        residuals.push(unzigzag(folded));
        tree = model.context(folded) << depth;
    }
    Ok(())
}

/// The next 32 bits of a code, with zeros after its end.
fn next_word(coded: &mut &[u8]) -> u32 {
    let (word, rest) = match coded.split_first_chunk::<4>() {
        Some((word, rest)) => (*word, rest),
        None => {
            let mut word = [0; 4];
            word.iter_mut().zip(coded.iter()).for_each(|(to, from)| *to = *from);
            (word, &[][..])
        }
    };
    *coded = rest;
    u32::from_be_bytes(word)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::columns::cases::four_bits_of_noise;

    fn models() -> impl Iterator<Item = Model> {
        (0..64).filter_map(Model::from_byte)
    }

    fn round_trip(residuals: &[i64], model: Model) -> usize {
        let mut bytes = Vec::new();
        encode(residuals, model, &mut bytes);
        let mut cursor = Cursor::new(&bytes);
        let mut back = Vec::new();
        decode(&mut cursor, residuals.len(), &mut back).unwrap();
        assert_eq!(back, residuals, "{model:?}");
        assert_eq!(cursor.left(), 0, "{model:?}");
        bytes.len()
    }

    proptest! {
        #[test]
        fn any_residuals_come_back(residuals: Vec<i64>, bits in 0_u32..64) {
            let residuals: Vec<i64> = residuals.into_iter().map(|residual| residual >> bits).collect();
            models().for_each(|model| { round_trip(&residuals, model); });
        }

        #[test]
        fn random_bytes_end_in_residuals_or_an_error(bytes: Vec<u8>, byte in 0_u8..64, depth in 0..=DEPTH_MAX, count in 0_usize..500) {
            let bytes = [&[byte, depth][..], &bytes].concat();
            let _ = decode(&mut Cursor::new(&bytes), count, &mut Vec::new());
        }
    }

    #[test]
    fn carries_run_through_what_is_written() {
        // Long runs of what is nearly certain, with rare surprises, drive the low end of the range close to overflowing.
        for period in [2, 3, 50, 97, 150, 199] {
            let residuals: Vec<i64> = (0..2000).map(|i| i64::from(i % period == 0) * 40).collect();
            models().for_each(|model| {
                round_trip(&residuals, model);
            });
        }
    }

    #[test]
    fn residuals_cost_their_entropy() {
        // Four bits of noise: 600 values of them are 300 bytes.
        let noise = four_bits_of_noise();
        let bytes = round_trip(&noise, Model::PLAIN);
        assert!(bytes < 320, "{bytes}");
        // And what it is expected to cost.
        let expected = cost(&noise, Model::PLAIN) / 8 / 256;
        assert!(bytes.abs_diff(expected as usize) < 10, "{bytes} {expected}");
        assert!(round_trip(&[0; 1000], Model::PLAIN) < 8);
    }
}
