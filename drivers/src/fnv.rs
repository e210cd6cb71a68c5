//! FNV-1a of 64 bits (Fowler, Noll, Vo): a hash that stays the same over restarts and versions of the program. It recognises what was seen
//! before, and protects from nobody.

/// The hash of bytes.
pub(crate) fn hash(bytes: impl IntoIterator<Item = u8>) -> u64 {
    let step = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
    bytes.into_iter().fold(0xcbf2_9ce4_8422_2325, step)
}

#[cfg(test)]
mod tests {
    #[test]
    fn known_hashes() {
        // The test vectors that its authors publish.
        for (text, hash) in
            [("", 0xcbf2_9ce4_8422_2325), ("a", 0xaf63_dc4c_8601_ec8c), ("foobar", 0x8594_4171_f739_67e8)]
        {
            assert_eq!(super::hash(text.bytes()), hash, "{text}");
        }
    }
}
