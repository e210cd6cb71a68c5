//! Compression by Zstandard, of frames and of the journal.
//!
//! A compressor takes longer to be made than it takes to compress an alert, which waits for both; so it is kept, and a decompressor
//! likewise.

use std::cell::RefCell;
use std::io;

use zstd::bulk::{Compressor, Decompressor};

thread_local! {
    /// The compressor of whoever seals and commits here; made when it is first needed. What it compressed before changes nothing in what follows.
    static COMPRESSOR: RefCell<Option<Compressor<'static>>> = const { RefCell::new(None) };
    /// The decompressor of whoever opens frames here.
    static DECOMPRESSOR: RefCell<Option<Decompressor<'static>>> = const { RefCell::new(None) };
}

/// Compresses at a level of Zstandard.
///
/// # Errors
/// Memory is short.
pub(crate) fn pack(bytes: &[u8], level: i32) -> io::Result<Vec<u8>> {
    COMPRESSOR.with_borrow_mut(|kept| {
        let compressor = match kept {
            Some(compressor) => compressor,
            None => kept.insert(Compressor::new(level)?),
        };
        compressor.set_compression_level(level)?;
        compressor.compress(bytes)
    })
}

/// Takes [`pack`] back.
///
/// # Errors
/// The bytes are not what Zstandard packs, or more than `bytes_max` were packed.
pub(crate) fn unpack(packed: &[u8], bytes_max: usize) -> io::Result<Vec<u8>> {
    DECOMPRESSOR.with_borrow_mut(|kept| {
        let decompressor = match kept {
            Some(decompressor) => decompressor,
            None => kept.insert(Decompressor::new()?),
        };
        decompressor.decompress(packed, bytes_max)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_compressed_before_changes_nothing() {
        let text = |seed: u32| -> Vec<u8> {
            (0..300 * (seed + 1)).map(|at| (at.wrapping_mul(seed + 7) >> 3) as u8 & 0x1f).collect()
        };
        for seed in 0..40 {
            let level = if seed % 3 == 0 { 1 } else { 3 };
            let (plain, packed) = (text(seed % 7), pack(&text(seed % 7), level).unwrap());
            assert_eq!(packed, zstd::bulk::compress(&plain, level).unwrap());
            assert!(
                unpack(&packed[..packed.len() - 1], plain.len()).is_err() && unpack(&packed, plain.len() - 1).is_err()
            );
            assert_eq!(unpack(&packed, plain.len()).unwrap(), plain);
        }
    }
}
