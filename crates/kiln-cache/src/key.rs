//! The keys of modules and functions: hashes of everything that code depends on.

use std::str::FromStr;

/// 256 bits: a hash of everything that a module's code depends on.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key([u8; 32]);

impl Key {
    /// Returns the key with these bits, which [`Key::as_bytes`] gave.
    pub const fn from_bytes(bits: [u8; 32]) -> Self {
        Self(bits)
    }

    /// Returns the bits.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// Returns whether this key belongs to a fixed fraction of `1 / one_in` of all keys, which is
    /// the same on every machine. For `0` no key is chosen, for `1` every key.
    ///
    /// Use it for checks that are too expensive for every hit.
    pub fn sampled(&self, one_in: u32) -> bool {
        // The last bytes, because the first ones choose the folder.
        let (_, last) = self.0.split_last_chunk::<8>().expect("a key has 32 bytes");
        one_in != 0 && u64::from_le_bytes(*last).is_multiple_of(u64::from(one_in))
    }
}

/// Returns the first 128 bits of a hash. They make accidental collisions improbable, as
/// [`FunctionKey`] says.
pub(crate) fn first_half(hasher: &blake3::Hasher) -> [u8; 16] {
    *hasher.finalize().as_bytes().first_chunk().expect("a hash has 32 bytes")
}

/// Writes bytes as hexadecimal digits.
pub(crate) fn hex(bytes: &[u8], f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
    bytes.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
}

/// Reads what [`hex`] writes for `N` bytes, and nothing else.
pub(crate) fn from_hex<const N: usize>(text: &str) -> Option<[u8; N]> {
    let digit = |byte: u8| match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        _ => None,
    };
    if text.len() != 2 * N {
        return None;
    }
    let mut bits = [0; N];
    for (byte, pair) in bits.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
        *byte = digit(pair[0])? << 4 | digit(pair[1])?;
    }
    Some(bits)
}

impl std::fmt::Display for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        hex(&self.0, f)
    }
}

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Key({self})")
    }
}

/// A text is not 64 lower-case hexadecimal digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a key: expected 64 hexadecimal digits in lower case")]
pub struct ParseKeyError;

impl FromStr for Key {
    type Err = ParseKeyError;

    /// Reads what `Display` writes, and nothing else: a key has one spelling.
    fn from_str(text: &str) -> Result<Self, ParseKeyError> {
        from_hex(text).map(Self).ok_or(ParseKeyError)
    }
}

/// 128 bits: a hash of everything that a function's code depends on.
///
/// This is half the length of a module's key, since there are many functions and every entry holds
/// the keys of its functions. Accidental collisions are still improbable: among 2^40 functions, two
/// share a key with a probability of 2^-49.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FunctionKey([u8; 16]);

impl FunctionKey {
    /// Bytes of a function key.
    pub(crate) const LEN: usize = 16;

    pub(crate) const fn new(bits: [u8; Self::LEN]) -> Self {
        Self(bits)
    }

    /// Returns the bits.
    pub fn as_bytes(&self) -> &[u8; Self::LEN] {
        &self.0
    }
}

impl std::fmt::Display for FunctionKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        hex(&self.0, f)
    }
}

impl std::fmt::Debug for FunctionKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "FunctionKey({self})")
    }
}
