//! The binary form of a module, in which tools of one build pass modules to each other.
//!
//! This form is much faster to read than text, and the fingerprint of a module is a hash of a part
//! of it. Only the versions of Kiln and Cranelift that wrote it can read it; all others refuse it.
//! To keep a module for longer, keep its text.
//!
//! A file is a sequence of independent modules, so the concatenation of two files is a valid file.
//! Each module starts with a header, whose integers are little-endian:
//!
//! | bytes | content |
//! |---|---|
//! | 0..8 | `KilnIR` and two zeros |
//! | 8..12 | version of this form |
//! | 12..16 | length of the version of Cranelift, which follows the header |
//! | 16..24 | length of the content |
//! | 24..32 | length of the notes |
//! | 32..64 | BLAKE3 of all other bytes |
//!
//! After the header come the version of Cranelift as text, the content and the notes. The content
//! is everything that an artifact depends on. The notes are the rest: the module's name, names that
//! no other module sees, line numbers, comments and header lines (see `write`).
//!
//! Invariants:
//! - Equal modules have equal bytes, whatever the machine, the process and the seeds of its hash
//!   maps.
//! - Reading any bytes gives a module or an error with an offset, in time and memory proportional
//!   to their length. A correct checksum is no reason to trust the bytes: it detects damage early,
//!   but anyone can compute it for bytes of their own.

mod content;
mod error;
mod header;
mod modules;
mod notes;
mod read;
#[cfg(test)]
mod tests;
pub(crate) mod write;

pub use self::error::BinaryError;
use self::header::{HEADER, MAGIC, VERSION, checksum};
pub use self::modules::{Modules, spans};
use crate::body::wire::ByteWriter;
use crate::module::Module;

impl Module {
    /// Returns the module in binary form.
    ///
    /// ```
    /// use kiln_ir::{Modules, Source, Target, parse};
    ///
    /// let text = "function %f() -> i32 {\nblock0:\n  v9 = iconst.i32 1\n  return v9\n}";
    /// let module = parse(Source::new("f.clif", text).into(), &Target::host()).unwrap();
    /// let bytes = module.to_bytes();
    /// let read = Modules::new(&bytes[..]).next().unwrap()?;
    /// assert_eq!(read.fingerprint(), module.fingerprint());
    /// assert_eq!(read.verify(&Target::host())?.to_bytes(), bytes);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn to_bytes(&self) -> Vec<u8> {
        let producer = cranelift_codegen::VERSION.as_bytes();
        let mut out = ByteWriter::default();
        out.raw(&[0; HEADER]);
        out.raw(producer);
        let start = out.0.len();
        write::content(self, &mut out, &mut |_| {});
        let content = out.0.len() - start;
        write::notes(self, &mut out);
        let notes = out.0.len() - start - content;
        let mut bytes = out.0;
        bytes[..8].copy_from_slice(MAGIC);
        bytes[8..12].copy_from_slice(&VERSION.to_le_bytes());
        bytes[12..16].copy_from_slice(&(producer.len() as u32).to_le_bytes());
        bytes[16..24].copy_from_slice(&(content as u64).to_le_bytes());
        bytes[24..32].copy_from_slice(&(notes as u64).to_le_bytes());
        let sum = checksum(&bytes);
        bytes[32..HEADER].copy_from_slice(&sum);
        bytes
    }
}

/// Tells whether `bytes` start like a file in binary form.
pub fn is_binary(bytes: &[u8]) -> bool {
    bytes.starts_with(MAGIC)
}
