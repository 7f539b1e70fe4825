//! Checksums of an image: BLAKE3, cut to 128 bits.

/// Length of a checksum in bytes.
pub(crate) const SUM_LEN: usize = 16;

/// A checksum.
pub(crate) type Sum = [u8; SUM_LEN];

/// Returns the checksum of `bytes`.
pub(crate) fn checksum(bytes: &[u8]) -> Sum {
    truncate(blake3::hash(bytes))
}

/// Returns the checksum of `bytes`, computed by all threads of rayon's pool if `bytes` is long.
#[cfg(feature = "write")]
pub(crate) fn checksum_parallel(bytes: &[u8]) -> Sum {
    // Hashing fewer bytes than this takes less time than waking a thread.
    const SMALL: usize = 128 << 10;
    if bytes.len() < SMALL {
        return checksum(bytes);
    }
    truncate(blake3::Hasher::new().update_rayon(bytes).finalize())
}

/// Cuts a whole hash to a checksum.
pub(crate) fn truncate(hash: blake3::Hash) -> Sum {
    let mut sum = [0; SUM_LEN];
    sum.copy_from_slice(&hash.as_bytes()[..SUM_LEN]);
    sum
}
