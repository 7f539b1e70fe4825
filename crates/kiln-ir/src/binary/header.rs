//! The header of a module in binary form.

use super::error::BinaryError;

pub(super) const MAGIC: &[u8; 8] = b"KilnIR\0\0";
pub(super) const VERSION: u32 = 4;
pub(super) const HEADER: usize = 64;

/// Returns the checksum of a whole module, computed without the bytes of the checksum itself.
pub(super) fn checksum(bytes: &[u8]) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&bytes[..32]);
    hasher.update(&bytes[HEADER..]);
    *hasher.finalize().as_bytes()
}

/// Returns the error of a module that another version wrote.
pub(super) fn other_version(offset: u64, found: String) -> BinaryError {
    let own = format!("version {VERSION} with Cranelift {}", cranelift_codegen::VERSION);
    BinaryError::Version { offset, found: found.into(), own: own.into() }
}

/// The lengths that a header gives.
pub(super) struct Lengths {
    /// The length of the version of Cranelift, in bytes.
    pub(super) producer: u64,
    pub(super) content: u64,
    pub(super) notes: u64,
}

impl Lengths {
    /// Reads the header of a module that starts at `offset` of a file.
    ///
    /// # Errors
    ///
    /// [`BinaryError::Version`] for a header of another version, whose lengths may have another
    /// format.
    pub(super) fn read(header: &[u8; HEADER], offset: u64) -> Result<Self, BinaryError> {
        let long = |at: usize| u64::from_le_bytes(header[at..at + 8].try_into().expect("eight bytes"));
        let (version, producer) = (long(8) as u32, long(8) >> 32);
        if version != VERSION {
            return Err(other_version(offset, format!("version {version}")));
        }
        Ok(Self { producer, content: long(16), notes: long(24) })
    }

    /// Returns the number of bytes that follow the header, or `None` if it does not fit into 64
    /// bits.
    pub(super) fn sum(&self) -> Option<u64> {
        self.producer.checked_add(self.content)?.checked_add(self.notes)
    }
}

/// Tells whether `bytes`, which may be shorter than a header, could be the start of a header.
pub(super) fn may_be_header(bytes: &[u8]) -> bool {
    bytes.starts_with(&MAGIC[..bytes.len().min(MAGIC.len())])
}
