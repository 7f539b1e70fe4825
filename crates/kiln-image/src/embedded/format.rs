//! The bytes of the section `.kiln.artifacts`, little-endian: [`MAGIC`], the method (0: as it is;
//! 1: zstd), the length of the content as 8 bytes, then the content. That is the number of globals
//! and their keys, in order of slots; then the number of modules, and of each the number, the name
//! and the bytes of the artifact. Numbers have 4 bytes, and each text and artifact has its length
//! in front.

/// The name of the section.
pub(super) const SECTION: &str = ".kiln.artifacts";
/// The first bytes of the section, with its version.
pub(super) const MAGIC: [u8; 8] = *b"KilnArt\x01";
/// The length of all in front of the content, in bytes.
pub(super) const HEADER: usize = 8 + 1 + 8;
pub(super) const STORED: u8 = 0;
pub(super) const ZSTD: u8 = 1;
/// The most bytes of content for each byte that is compressed: what is smaller still is stored as
/// it is, so that reading a section takes memory in proportion to the file.
pub(super) const MAX_RATIO: u64 = 256;
