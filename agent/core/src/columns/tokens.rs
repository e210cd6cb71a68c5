//! What coders of entropy tell apart: residuals as tokens, and the bits that nothing foretells.
//!
//! A residual is folded ([`zigzag`](super::cursor::zigzag)). A small number is its own token; a larger one's token says its bit
//! length and the two bits after the first, and the other bits are raw.

/// Tokens stand for bit lengths in groups of four: by the two bits after the first.
const GROUP_BITS: u32 = 2;

/// Which numbers are their own tokens: those of so many bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Alphabet(u8);

impl Alphabet {
    /// The fewest tokens: larger numbers need the two bits after the first.
    pub(super) const LEAST: Self = Self(3);
    /// Some more, for residuals that have values which come often.
    pub(super) const MIDDLE: Self = Self(5);
    /// The most.
    pub(super) const MOST: Self = Self(8);
    /// How many tokens there are at most.
    pub(super) const TOKENS_MAX: usize = 256 + 56 * 4;

    /// The alphabet with so many direct bits, if there is one.
    pub(super) const fn of(direct_bits: u8) -> Option<Self> {
        if direct_bits < Self::LEAST.0 || direct_bits > Self::MOST.0 { None } else { Some(Self(direct_bits)) }
    }

    pub(super) const fn direct_bits(self) -> u8 {
        self.0
    }

    /// The token of a folded residual, and how many of its bits are raw. Larger numbers have larger tokens.
    // Built for size, it would be called for each residual, and take as long to call as to do; so it is with what is below.
    #[inline(always)]
    pub(super) const fn token(self, folded: u64) -> (u32, u32) {
        if folded >> self.0 == 0 {
            return (folded as u32, 0);
        }
        let length = 64 - folded.leading_zeros();
        let raw = length - 1 - GROUP_BITS;
        let group = (length - self.0 as u32 - 1) << GROUP_BITS;
        ((1 << self.0) + group + ((folded >> raw) as u32 & 3), raw)
    }

    /// The bits of a folded residual above its raw ones, and how many these are, from its token.
    #[inline(always)]
    pub(super) const fn folded(self, token: u32) -> (u64, u32) {
        if token >> self.0 == 0 {
            return (token as u64, 0);
        }
        let beyond = token - (1 << self.0);
        let raw = (beyond >> GROUP_BITS) + self.0 as u32 - GROUP_BITS;
        ((4 | (beyond & 3)) as u64, raw)
    }
}

/// The most raw bits of a token.
pub(super) const RAW_BITS_MAX: u32 = 63 - GROUP_BITS;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_number_has_a_token_and_comes_back() {
        for alphabet in (0..=u8::MAX).filter_map(Alphabet::of) {
            for folded in (0..64)
                .flat_map(|bits| [(1_u64 << bits) - 1, 1 << bits, (1 << bits) | (1 << bits >> 2)])
                .chain([u64::MAX])
            {
                let (token, raw) = alphabet.token(folded);
                assert_eq!(alphabet.folded(token), (folded >> raw, raw), "{alphabet:?} {folded}");
                assert!((token as usize) < Alphabet::TOKENS_MAX && raw <= RAW_BITS_MAX);
            }
        }
    }
}
