//! Records: the first of the two names of an entry leads to the second.
//!
//! A server keeps two kinds of things. A *record* has the name of a key, or of the lineage of a
//! source, and says which entry that is: its key, and the SHA-256 hash and length of its bytes. The
//! *content* has this hash as its name. So whoever serves the content, it is what the record says
//! or it is refused; and a record that is signed is that of someone who is trusted, or it is
//! refused.
//!
//! Neither ever changes: a key has one entry, and a source one key. So an old record is as good as
//! a new one, and no time is in it.
//!
//! The byte form, with numbers in little-endian order: magic (8 bytes), the kind of the name
//! (1 byte: 1 for a key, 2 for a lineage), the name (32 bytes, a lineage is followed by zeros), the
//! entry's key (32 bytes), the hash (32 bytes), the length (`u64`), and the first 8 bytes of the
//! SHA-256 hash of all these, which finds damage. If it is signed, the public key (32 bytes) and an
//! Ed25519 signature (64 bytes) of all that precedes the public key follow.

use kiln_cache::{Key, Lineage};
use kiln_keys::{PublicKey, Signer};

use crate::bits::hex;

const MAGIC: [u8; 8] = *b"KilnRec1";
const LEN: usize = 8 + 1 + 32 + 32 + 32 + 8 + SUM;
/// Bytes of the checksum.
const SUM: usize = 8;
const SIGNED_LEN: usize = LEN + 32 + 64;

/// The longest content that a record may name, in bytes: as long as an entry of a folder may be.
pub(crate) const MAX_CONTENT: u64 = 1 << 30;

/// The name of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Name {
    /// The key of an entry.
    Key(Key),
    /// The lineage of a source.
    Source(Lineage),
}

impl Name {
    /// Returns the kind and the bits.
    fn bits(&self) -> (u8, [u8; 32]) {
        match self {
            Self::Key(key) => (1, *key.as_bytes()),
            Self::Source(lineage) => {
                let mut bits = [0; 32];
                bits[..16].copy_from_slice(lineage.as_bytes());
                (2, bits)
            }
        }
    }

    /// Returns the bytes of the name: the kind and the bits.
    pub(crate) fn to_bytes(self) -> [u8; 33] {
        let (kind, bits) = self.bits();
        let mut bytes = [kind; 33];
        bytes[1..].copy_from_slice(&bits);
        bytes
    }
}

impl std::fmt::Display for Name {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Key(key) => write!(f, "key/{key}"),
            Self::Source(lineage) => write!(f, "source/{lineage}"),
        }
    }
}

/// The name of a content: its SHA-256 hash and its length.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Digest {
    pub(crate) hash: [u8; 32],
    pub(crate) len: u64,
}

impl Digest {
    pub(crate) fn of(bytes: &[u8]) -> Self {
        let hash = ring::digest::digest(&ring::digest::SHA256, bytes);
        let hash = hash.as_ref().try_into().expect("SHA-256 has 32 bytes");
        Self { hash, len: bytes.len() as u64 }
    }

    /// Reads the digest that a server names, with its hash in small hexadecimal digits.
    #[cfg(feature = "farm")]
    pub(crate) fn parse(hash: &str, len: i64) -> Option<Self> {
        let len = u64::try_from(len).ok()?;
        let digits = hash.as_bytes().first_chunk::<64>().filter(|_| hash.len() == 64)?;
        let mut bytes = [0; 32];
        for (byte, pair) in bytes.iter_mut().zip(digits.as_chunks::<2>().0) {
            let digit = |digit: u8| match digit {
                b'0'..=b'9' => Some(digit - b'0'),
                b'a'..=b'f' => Some(digit - b'a' + 10),
                _ => None,
            };
            *byte = digit(pair[0])? << 4 | digit(pair[1])?;
        }
        Some(Self { hash: bytes, len })
    }

    /// Returns the hash as hexadecimal digits.
    pub(crate) fn hex(&self) -> String {
        hex(&self.hash)
    }
}

/// Returns the checksum of the fields of a record.
fn checksum(fields: &[u8]) -> [u8; SUM] {
    *Digest::of(fields).hash.first_chunk().expect("SHA-256 has 32 bytes")
}

/// A record that was checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Record {
    /// The key of the entry.
    pub(crate) key: Key,
    /// The name of its content.
    pub(crate) digest: Digest,
}

impl Record {
    /// Returns the byte form of the record of `name`, signed if there is a signer.
    pub(crate) fn to_bytes(self, name: &Name, signer: Option<&Signer>) -> Vec<u8> {
        let Self { key, digest } = self;
        let mut bytes = Vec::with_capacity(SIGNED_LEN);
        bytes.extend_from_slice(&MAGIC);
        bytes.extend_from_slice(&name.to_bytes());
        bytes.extend_from_slice(key.as_bytes());
        bytes.extend_from_slice(&digest.hash);
        bytes.extend_from_slice(&digest.len.to_le_bytes());
        bytes.extend_from_slice(&checksum(&bytes));
        if let Some(signer) = signer {
            let signature = signer.sign(&bytes);
            bytes.extend_from_slice(signer.public().as_bytes());
            bytes.extend_from_slice(&signature);
        }
        bytes
    }

    /// Reads the record of `name` from untrusted bytes. If there is a list of accepted keys, the
    /// record must be signed by one of them.
    ///
    /// The error says what is wrong.
    pub(crate) fn from_bytes(
        name: &Name,
        bytes: &[u8],
        accepted: Option<&[PublicKey]>,
    ) -> Result<Self, &'static str> {
        if bytes.len() != LEN && bytes.len() != SIGNED_LEN {
            return Err("record of a wrong length");
        }
        let (message, signature) = bytes.split_at(LEN);
        let (fields, sum) = message.split_at(LEN - SUM);
        let (head, rest) = fields.split_at(8 + 33);
        if head[..8] != MAGIC {
            return Err("not a record");
        }
        if *sum != checksum(fields) {
            return Err("damaged record");
        }
        if head[8..] != name.to_bytes() {
            return Err("record of another name");
        }
        let [key, hash] = [&rest[..32], &rest[32..64]].map(|bits| bits.try_into().expect("32 bytes"));
        let len = u64::from_le_bytes(rest[64..].try_into().expect("the rest is a length"));
        if let Some(accepted) = accepted {
            let Some((by, signature)) = signature.split_first_chunk::<32>() else {
                return Err("not signed");
            };
            let Some(by) = accepted.iter().find(|key| key.as_bytes() == by) else {
                return Err("signed by a key that is not accepted");
            };
            if !by.verifies(message, signature) {
                return Err("wrong signature");
            }
        }
        if len > MAX_CONTENT {
            return Err("record of a content that is too long");
        }
        let key = Key::from_bytes(key);
        if matches!(name, Name::Key(own) if *own != key) {
            return Err("record of another key");
        }
        Ok(Self { key, digest: Digest { hash, len } })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_read_only_as_it_was_written() {
        let key = Key::from_bytes([3; 32]);
        let source = Name::Source(Lineage::of_source("p", "m", "1", b"text", &key));
        let record = Record { key, digest: Digest::of(b"content") };
        let signer = Signer::from_seed(&[7; 32]);
        let (own, other) = ([signer.public()], [Signer::from_seed(&[8; 32]).public()]);
        for name in [Name::Key(key), source] {
            let unsigned = record.to_bytes(&name, None);
            let signed = record.to_bytes(&name, Some(&signer));
            let read = |bytes: &[u8], accepted| Record::from_bytes(&name, bytes, accepted);
            assert_eq!(read(&unsigned, None), Ok(record));
            assert_eq!(read(&signed, None), Ok(record));
            assert_eq!(read(&signed, Some(&own)), Ok(record));
            assert_eq!(read(&unsigned, Some(&own)), Err("not signed"));
            assert_eq!(read(&signed, Some(&other)), Err("signed by a key that is not accepted"));
            for len in 0..signed.len() {
                assert!(len == unsigned.len() || read(&signed[..len], None).is_err());
                assert!(read(&signed[..len], Some(&own)).is_err());
            }
            for place in 0..signed.len() {
                let mut altered = signed.clone();
                altered[place] ^= 0x10;
                assert!(read(&altered, Some(&own)).is_err(), "byte {place}");
                assert!(place >= LEN || read(&altered[..LEN], None).is_err(), "byte {place}");
            }
        }
        // The record of one name is none of another.
        let bytes = record.to_bytes(&source, Some(&signer));
        assert!(Record::from_bytes(&Name::Key(key), &bytes, Some(&own)).is_err());
        let long = Record { key, digest: Digest { hash: [0; 32], len: MAX_CONTENT + 1 } };
        let bytes = long.to_bytes(&source, None);
        assert_eq!(Record::from_bytes(&source, &bytes, None), Err("record of a content that is too long"));
    }
}
