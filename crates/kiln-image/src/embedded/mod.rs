//! The artifacts of an image, in the image: so it can be linked again, with its layers, without
//! compiling.
//!
//! They are in the section `.kiln.artifacts`, which is not loaded, and not covered by the content
//! hash: an image with them and one without are the same to their layers. `strip` keeps the section,
//! and `objcopy --remove-section .kiln.artifacts` takes it out.
//!
//! Layout of the section, little-endian: [`MAGIC`], the method (0: as it is; 1: zstd), the length of
//! the content as 8 bytes, then the content. That is the number of globals and their keys, in order
//! of slots; then the number of modules, and of each the number, the name and the bytes of the
//! artifact. Numbers have 4 bytes, and each text and artifact has its length in front.

mod read;
#[cfg(feature = "write")]
mod write;

pub use read::{EmbeddedArtifacts, EmbeddedError, EmbeddedModule};
#[cfg(feature = "write")]
pub(crate) use write::section;

/// The name of the section.
pub(crate) const SECTION: &str = ".kiln.artifacts";
/// The first bytes of the section, with its version.
const MAGIC: [u8; 8] = *b"KilnArt\x01";
/// The length of all in front of the content, in bytes.
const HEADER: usize = 8 + 1 + 8;
const STORED: u8 = 0;
const ZSTD: u8 = 1;
/// The most bytes of content for each byte that is compressed: what is smaller still is stored as it
/// is, so that reading a section takes memory in proportion to the file.
const MAX_RATIO: u64 = 256;
