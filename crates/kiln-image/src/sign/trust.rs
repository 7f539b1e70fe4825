//! Whose signatures of an image are wanted, and whether they are there.

use std::fmt;

use kiln_keys::{PublicKey, Signer};

use super::error::{SignatureFault, UntrustedError};
use crate::note::SignerRecord;
use crate::read::ContentHash;

/// The most signatures of an image that are looked at: more are refused, because checking one takes
/// as long as hashing 100 kB.
const MAX_SIGNATURES: usize = 64;

/// The way in which a signature was made.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Algorithm {
    /// Ed25519 over a BLAKE3 hash.
    Ed25519,
    /// One that this version does not know, by name or number.
    Unknown(Box<str>),
}

impl fmt::Display for Algorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ed25519 => "ed25519",
            Self::Unknown(name) => name,
        })
    }
}

/// A signature of an image, which says by itself whose it is. It has been read, not verified.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImageSignature {
    /// The way in which it was made.
    pub algorithm: Algorithm,
    /// The key that is said to have made it.
    pub key: PublicKey,
    /// The signature itself.
    pub bytes: [u8; 64],
}

impl ImageSignature {
    /// The number of [`Algorithm::Ed25519`] in a note.
    const ED25519: u32 = 1;

    /// Signs a content.
    pub(super) fn new(signer: &Signer, content: &ContentHash) -> Self {
        let bytes = signer.sign(&message(content));
        Self { algorithm: Algorithm::Ed25519, key: signer.public(), bytes }
    }

    /// Reads a record of a note; `None` if it is room.
    pub(crate) fn of_record(record: &SignerRecord) -> Option<Self> {
        let algorithm = match record.algorithm.get() {
            0 => return None,
            Self::ED25519 => Algorithm::Ed25519,
            other => Algorithm::Unknown(other.to_string().into()),
        };
        let mut bytes = [0; 64];
        bytes.copy_from_slice(record.signature.as_flattened());
        Some(Self { algorithm, key: PublicKey::from_bytes(record.key), bytes })
    }

    /// Returns the record for a note.
    pub(super) fn record(&self) -> SignerRecord {
        let mut signature = [[0; 8]; 8];
        signature.as_flattened_mut().copy_from_slice(&self.bytes);
        let algorithm = Self::ED25519.into();
        SignerRecord { algorithm, key: *self.key.as_bytes(), signature, ..SignerRecord::default() }
    }
}

/// The text that is signed.
fn message(content: &ContentHash) -> Vec<u8> {
    [&b"kiln image signature, ed25519, version 1\0"[..], content.as_bytes()].concat()
}

/// Whose signatures an image must have.
///
/// ```
/// use kiln_image::keys::{PublicKey, Signer};
/// use kiln_image::Trust;
///
/// # let (ci, _) = Signer::generate()?;
/// # let (release, _) = Signer::generate()?;
/// // From a file of keys, as `kiln keygen` prints them.
/// let list = format!("{} ci\n{} release\n", ci.public(), release.public());
/// let keys = PublicKey::parse_list(&list).unwrap();
/// let both = Trust::new(keys).at_least(2);
/// # let _ = both;
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Trust {
    accepted: Vec<PublicKey>,
    revoked: Vec<PublicKey>,
    needed: usize,
    pub(super) detached: Vec<ImageSignature>,
}

impl Trust {
    /// Trusts what one of these keys signed.
    pub fn new(accepted: impl IntoIterator<Item = PublicKey>) -> Self {
        let accepted = accepted.into_iter().collect();
        Self { accepted, revoked: Vec::new(), needed: 1, detached: Vec::new() }
    }

    /// Ignores these keys, even if they are accepted. An image that other keys signed too is
    /// trusted for theirs.
    #[must_use]
    pub fn revoked(mut self, keys: impl IntoIterator<Item = PublicKey>) -> Self {
        self.revoked.extend(keys);
        self
    }

    /// Asks for the signatures of this many different keys; 0 is taken as 1.
    #[must_use]
    pub fn at_least(mut self, keys: usize) -> Self {
        self.needed = keys.max(1);
        self
    }

    /// Adds signatures that are not in the image, nor in the file beside it.
    #[must_use]
    pub fn with(mut self, signatures: impl IntoIterator<Item = ImageSignature>) -> Self {
        self.detached.extend(signatures);
        self
    }

    /// Returns the accepted keys whose signatures are right, each once. `content` is called only if
    /// there are enough signatures that may be.
    pub(crate) fn check(
        &self,
        records: &[SignerRecord],
        beside: Vec<ImageSignature>,
        content: impl FnOnce() -> ContentHash,
    ) -> Result<Vec<PublicKey>, UntrustedError> {
        let in_note = records.iter().take(MAX_SIGNATURES + 1).filter_map(ImageSignature::of_record);
        let all = in_note.chain(beside).chain(self.detached.iter().cloned());
        let all: Vec<ImageSignature> = all.take(MAX_SIGNATURES + 1).collect();
        let mut error = UntrustedError { needed: self.needed, found: 0, faults: Vec::new() };
        if records.len() > MAX_SIGNATURES || all.len() > MAX_SIGNATURES {
            error.faults.push(SignatureFault::TooMany { limit: MAX_SIGNATURES });
            return Err(error);
        }
        let mut may_be = Vec::new();
        for signature in all {
            let key = signature.key;
            match &signature.algorithm {
                Algorithm::Unknown(name) => {
                    error.faults.push(SignatureFault::Algorithm { name: name.clone() });
                }
                Algorithm::Ed25519 if self.revoked.contains(&key) => {
                    error.faults.push(SignatureFault::Revoked { key });
                }
                Algorithm::Ed25519 if !self.accepted.contains(&key) => {
                    error.faults.push(SignatureFault::NotAccepted { key });
                }
                Algorithm::Ed25519 => may_be.push(signature),
            }
        }
        let mut signers: Vec<PublicKey> = Vec::new();
        if may_be.len() >= self.needed {
            let message = message(&content());
            for ImageSignature { key, bytes, .. } in may_be {
                match key.verifies(&message, &bytes) {
                    true if !signers.contains(&key) => signers.push(key),
                    true => {}
                    false => error.faults.push(SignatureFault::Wrong { key }),
                }
            }
        }
        error.found = signers.len();
        if signers.len() >= self.needed { Ok(signers) } else { Err(error) }
    }
}
