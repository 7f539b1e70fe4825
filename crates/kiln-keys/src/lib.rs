//! Ed25519 keys that sign what Kiln makes, and their files.
//!
#![doc = include_str!("../README.md")]
//!
//! # The files
//!
//! A file of a secret key is one line, `kiln-secret-key` and 64 hexadecimal digits: the seed of an
//! Ed25519 key (RFC 8032). A file of accepted keys has a line `kiln-public-key`, 64 digits and a
//! comment for each; empty lines and lines that begin with `#` are skipped.
//!
//! # Architecture invariants
//!
//! No message has a secret. What is signed begins with words that say what it is, so that a
//! signature of an entry is none of an image; that is up to the crates that sign.

#![forbid(unsafe_code)]

use std::fmt;

use ring::rand::SecureRandom;
use ring::signature::{ED25519, Ed25519KeyPair, KeyPair, UnparsedPublicKey};

const SECRET: &str = "kiln-secret-key";
const PUBLIC: &str = "kiln-public-key";

/// The key that makes signatures.
pub struct Signer {
    pair: Ed25519KeyPair,
    public: PublicKey,
}

impl fmt::Debug for Signer {
    /// Writes the public key only.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Signer").field(&self.public).finish()
    }
}

/// A text is not a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: expected `{expected}` and 64 hexadecimal digits in lower case")]
pub struct ParseKeyFileError {
    /// The number of the line, from 1.
    pub line: usize,
    /// The first word of the line.
    pub expected: &'static str,
}

impl Signer {
    /// Makes a new key, and returns the text of the file of the secret key too.
    ///
    /// # Errors
    ///
    /// If the system has no random numbers.
    pub fn generate() -> std::io::Result<(Self, String)> {
        let mut seed = [0; 32];
        let filled = ring::rand::SystemRandom::new().fill(&mut seed);
        filled.map_err(|_| std::io::Error::other("the system has no random numbers"))?;
        Ok((Self::from_seed(&seed), format!("{SECRET} {}\n", Hex(&seed))))
    }

    /// Reads the file of a secret key.
    ///
    /// # Errors
    ///
    /// [`ParseKeyFileError`], which does not repeat the text.
    pub fn parse(text: &str) -> Result<Self, ParseKeyFileError> {
        let digits = text.trim_end().strip_prefix(SECRET).map(str::trim_start);
        let seed = digits.and_then(bytes);
        let seed = seed.ok_or(ParseKeyFileError { line: 1, expected: SECRET })?;
        Ok(Self::from_seed(&seed))
    }

    /// Makes the key of a seed, which nobody else may know.
    ///
    /// # Panics
    ///
    /// Never: every seed is one of a key.
    pub fn from_seed(seed: &[u8; 32]) -> Self {
        let pair = Ed25519KeyPair::from_seed_unchecked(seed).expect("a seed has 32 bytes");
        let public = PublicKey(pair.public_key().as_ref().try_into().expect("a key has 32 bytes"));
        Self { pair, public }
    }

    /// Returns the key that verifies the signatures.
    pub fn public(&self) -> PublicKey {
        self.public
    }

    /// Returns the signature of a message.
    ///
    /// # Panics
    ///
    /// Never: every signature has 64 bytes.
    pub fn sign(&self, message: &[u8]) -> [u8; 64] {
        self.pair.sign(message).as_ref().try_into().expect("a signature has 64 bytes")
    }
}

/// The key that verifies signatures.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PublicKey([u8; 32]);

impl fmt::Display for PublicKey {
    /// Writes the key as a line of a file of accepted keys.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{PUBLIC} {}", Hex(&self.0))
    }
}

impl PublicKey {
    /// Reads a file of accepted keys.
    ///
    /// # Errors
    ///
    /// [`ParseKeyFileError`].
    pub fn parse_list(text: &str) -> Result<Vec<Self>, ParseKeyFileError> {
        let lines = text.lines().zip(1..).map(|(line, number)| (line.trim(), number));
        let keys = lines.filter(|(line, _)| !line.is_empty() && !line.starts_with('#'));
        keys.map(|(text, line)| {
            let mut words = text.split_whitespace();
            let word = words.next().filter(|word| *word == PUBLIC);
            let key = word.and_then(|_| bytes(words.next()?));
            key.map(Self).ok_or(ParseKeyFileError { line, expected: PUBLIC })
        })
        .collect()
    }

    /// Makes a key of its 32 bytes, which may be no key: then it verifies nothing.
    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// Returns the 32 bytes of the key.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// Whether the key made this signature of a message.
    pub fn verifies(&self, message: &[u8], signature: &[u8]) -> bool {
        UnparsedPublicKey::new(&ED25519, self.0).verify(message, signature).is_ok()
    }
}

/// Bytes that are shown as hexadecimal digits in lower case.
#[derive(Clone, Copy, Debug)]
pub struct Hex<'a>(pub &'a [u8]);

impl fmt::Display for Hex<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// Returns the bytes that exactly `2 * N` hexadecimal digits in lower case stand for.
pub fn bytes<const N: usize>(digits: &str) -> Option<[u8; N]> {
    let mut bytes = [0; N];
    let (pairs, rest) = digits.as_bytes().as_chunks::<2>();
    if pairs.len() != N || !rest.is_empty() {
        return None;
    }
    let value = |digit: u8| match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        _ => None,
    };
    for (byte, [high, low]) in bytes.iter_mut().zip(pairs) {
        *byte = value(*high)? << 4 | value(*low)?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digits_stand_for_bytes() {
        assert_eq!(bytes("00ff7a"), Some([0, 255, 0x7a]));
        assert_eq!(Hex(&[0, 255, 0x7a]).to_string(), "00ff7a");
        for wrong in ["", "00ff7", "00ff7a0", "00ff7A", "00ff7g", "00ff7a00", "00f\u{fc}7"] {
            assert_eq!(bytes::<3>(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn files_of_keys() {
        let (signer, secret) = Signer::generate().unwrap();
        let again = Signer::parse(&secret).unwrap();
        assert_eq!(again.public(), signer.public());
        assert!(!format!("{again:?}").contains(secret.split_whitespace().last().unwrap()));
        let list = format!("# of CI\n\n{} builder\n{}\n", signer.public(), signer.public());
        assert_eq!(PublicKey::parse_list(&list), Ok(vec![signer.public(); 2]));
        assert_eq!(PublicKey::parse_list("\nkiln-public-key 12").unwrap_err().line, 2);
        assert!(PublicKey::parse_list(&secret).is_err());
        assert!(Signer::parse("kiln-secret-key 12").is_err());
        assert!(Signer::parse(&signer.public().to_string()).is_err());
        assert!(signer.public().verifies(b"text", &signer.sign(b"text")));
        assert!(!signer.public().verifies(b"texT", &signer.sign(b"text")));
    }

    /// RFC 8032, section 7.1, test 2.
    #[test]
    fn signatures_are_those_of_the_standard() {
        let seed = "4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb";
        let signer = Signer::parse(&format!("kiln-secret-key {seed}\n")).unwrap();
        let public = "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c";
        assert_eq!(Hex(signer.public().as_bytes()).to_string(), public);
        assert!(
            Hex(&signer.sign(&[0x72]))
                .to_string()
                .starts_with("92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8f")
        );
    }
}
