//! The hash of keys in bindings.
//!
//! A loader looks up every slot of an image, and the hash of the standard library would take most
//! of the time. This one multiplies 16 bytes at a time with a secret of each map, so nobody can
//! choose keys that collide. It is no crate of its own, because loaders must be quick to build.

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};

/// Makes hashers with a secret.
#[derive(Clone, Debug)]
pub(crate) struct KeyHash {
    seed: u64,
}

impl Default for KeyHash {
    fn default() -> Self {
        // The standard library's secrets are random.
        Self { seed: RandomState::new().hash_one(0_u8) }
    }
}

impl BuildHasher for KeyHash {
    type Hasher = KeyHasher;

    fn build_hasher(&self) -> KeyHasher {
        KeyHasher { state: self.seed, seed: self.seed }
    }
}

/// A hash that is being computed.
pub(crate) struct KeyHasher {
    state: u64,
    seed: u64,
}

impl KeyHasher {
    /// Multiplies two words to 128 bits, and lets the upper half act on the lower one.
    fn mix(&mut self, [first, second]: [u64; 2]) {
        const FACTOR: u64 = 0x9e37_79b9_7f4a_7c15;
        let product = u128::from(self.state ^ first) * u128::from(second ^ self.seed ^ FACTOR);
        self.state = product as u64 ^ (product >> 64) as u64;
    }
}

impl Hasher for KeyHasher {
    fn write(&mut self, bytes: &[u8]) {
        let word = |at: usize| u64::from_le_bytes(*bytes[at..].first_chunk().unwrap_or(&[0; 8]));
        let half = |at: usize| u32::from_le_bytes(*bytes[at..].first_chunk().unwrap_or(&[0; 4])).into();
        let len = bytes.len();
        // With the length, so that zeros at the end count.
        self.state = self.state.wrapping_add(len as u64);
        // The last words overlap others if they must, so that nothing is copied.
        match len {
            0 => {}
            1..4 => {
                let [first, middle, last] = [bytes[0], bytes[len / 2], bytes[len - 1]].map(u64::from);
                self.mix([first | middle << 8 | last << 16, 0]);
            }
            4..8 => self.mix([half(0), half(len - 4)]),
            8..=16 => self.mix([word(0), word(len - 8)]),
            _ => {
                let mut at = 0;
                while len - at > 16 {
                    self.mix([word(at), word(at + 8)]);
                    at += 16;
                }
                self.mix([word(len - 16), word(len - 8)]);
            }
        }
    }

    /// The byte after a text does nothing: the length of the text counts.
    fn write_u8(&mut self, _: u8) {}

    fn finish(&self) -> u64 {
        // The table takes the upper bits, too.
        self.state.rotate_left(26) ^ self.state
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn keys_that_are_alike_have_different_hashes() {
        let hash = KeyHash::default();
        let keys = (0..20_000).map(|number| format!("object:number:{number}"));
        let zeros = (0..100).map(|len| "\0".repeat(len));
        // Each byte of texts of every length counts.
        let text = |len: usize, at: usize| (0..len).map(|n| if n == at { '!' } else { 'a' }).collect();
        let changed = (1..60).flat_map(|len| (0..len).map(move |at| text(len, at)));
        let all: Vec<String> = keys.chain(zeros).chain(changed).collect();
        let hashes: Vec<u64> = all.iter().map(|key| hash.hash_one(&**key)).collect();
        assert_eq!(hashes.iter().collect::<HashSet<_>>().len(), all.len());
        // The bits that tables use are spread.
        for shift in [0, 57] {
            let buckets: HashSet<u64> = hashes.iter().map(|hash| hash >> shift & 127).collect();
            assert_eq!(buckets.len(), 128, "{shift}");
        }
        assert_ne!(hash.hash_one("a"), KeyHash::default().hash_one("a"), "each map has a secret");
    }
}
