//! Limits of a function's form that the encoder and the decoder share.

/// Numbers of values stay below this: Cranelift packs them into 32 bits together with other bits.
pub(super) const MAX_VALUES: u64 = 1 << 30;

/// Returns the largest number of values of a function whose form has `bytes` bytes.
///
/// One call can have 65,535 results. Without this limit a few bytes of input would make a decoder
/// allocate much memory.
pub(super) fn max_values(bytes: usize) -> u64 {
    (bytes as u64).saturating_mul(64).min(MAX_VALUES - 1)
}
