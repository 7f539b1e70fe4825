//! An entry, which a store keeps under a key, and its byte form.
//!
//! The header, with numbers in little-endian order: magic (8 bytes), entry version (`u32`), length
//! of the recipe (`u32`), key (32 bytes), number of function keys (`u32`), zero (`u32`), length of
//! the artifact (`u64`), BLAKE3 hash of everything after the header (32 bytes), first 8 bytes of
//! the BLAKE3 hash of these fields. Then follow the recipe, the function keys (16 bytes each),
//! zeros up to a multiple of 16, and the artifact. A checksum covers every byte of the file. The
//! key is the hash of the recipe, so it is checked as well.
//!
//! Invariants: nothing is used before its checksum was found to be correct; [`parse`] takes the
//! file's bytes and leaves the artifact in them.

use std::io;
use std::sync::Arc;

use kiln_artifact::{Artifact, FORMAT_VERSION};

use crate::{EntryError, FunctionKey, Key, Recipe};

/// The first bytes of every entry.
pub(crate) const MAGIC: [u8; 8] = *b"KilnEnt\0";
const VERSION: u32 = 2;
pub(crate) const HEADER_LEN: usize = 8 + 4 + 4 + 32 + 4 + 4 + 8 + 32 + 8;
/// The largest length of an entry in a file, in bytes. Whole programs are linked up to 2 GiB, so a
/// module that needs more is hardly worth storing. A longer file is sparse or was made to take up
/// memory.
pub(crate) const MAX_FILE_LEN: u64 = 1 << 30;
/// The artifact starts at a multiple of this.
const ALIGN: usize = 16;

/// A compiled module as a store keeps it. It is cheap to clone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The recipe of the entry's key.
    pub recipe: Recipe,
    /// A key for each function of the artifact, in order; or no keys, if functions of this module
    /// are not to be reused.
    pub functions: Arc<[FunctionKey]>,
    /// The artifact of the module.
    pub artifact: Artifact,
}

impl Entry {
    /// Returns the length of the byte form.
    pub fn file_len(&self) -> u64 {
        (head_len(self.recipe.to_bytes().len(), self.functions.len()) + self.artifact.as_bytes().len()) as u64
    }

    /// Returns the byte form, which [`Entry::from_bytes`] reads. Use it in a store of your own.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = head(&self.recipe.key(), self);
        bytes.extend_from_slice(self.artifact.as_bytes());
        bytes
    }

    /// Reads the entry of `key` from untrusted bytes. The artifact is not copied.
    ///
    /// # Errors
    ///
    /// [`EntryError`] if they are not exactly the byte form of an entry of `key`.
    pub fn from_bytes(key: &Key, bytes: Vec<u8>) -> Result<Self, EntryError> {
        parse(key, bytes)
    }

    /// Reads an entry from untrusted bytes, whatever its key is: for tools. A store must use
    /// [`from_bytes`](Self::from_bytes), or it may return the code of another module.
    ///
    /// # Errors
    ///
    /// [`EntryError`] if they are not exactly the byte form of an entry.
    pub fn from_file(bytes: Vec<u8>) -> Result<Self, EntryError> {
        let key = Key::from_bytes(read_header(&bytes)?.key);
        parse(&key, bytes)
    }

    /// Refuses an entry that could not be read back, because it belongs to another key or has a
    /// wrong number of function keys.
    ///
    /// # Errors
    ///
    /// An error of kind `InvalidInput`.
    pub fn check(&self, key: &Key) -> io::Result<()> {
        let wrong = if self.recipe.key() != *key {
            Some(EntryError::OtherKey)
        } else {
            check_function_keys(self.functions.len(), &self.artifact).err()
        };
        wrong.map_or(Ok(()), |wrong| Err(io::Error::new(io::ErrorKind::InvalidInput, wrong)))
    }
}

/// Refuses a wrong number of function keys. Having no keys is allowed for any artifact: see
/// [`Entry::functions`].
fn check_function_keys(keys: usize, artifact: &Artifact) -> Result<(), EntryError> {
    let functions = artifact.functions().len();
    if keys == 0 || keys == functions { Ok(()) } else { Err(EntryError::FunctionKeys { keys, functions }) }
}

/// Returns the number of bytes before the artifact.
fn head_len(recipe: usize, functions: usize) -> usize {
    (HEADER_LEN + recipe + functions * FunctionKey::LEN).next_multiple_of(ALIGN)
}

/// Returns the bytes of an entry that precede the artifact.
pub(crate) fn head(key: &Key, entry: &Entry) -> Vec<u8> {
    let recipe = entry.recipe.to_bytes();
    let artifact = entry.artifact.as_bytes();
    let len = head_len(recipe.len(), entry.functions.len());
    let mut out = Vec::with_capacity(len);
    out.resize(HEADER_LEN, 0);
    out.extend_from_slice(&recipe);
    entry.functions.iter().for_each(|function| out.extend_from_slice(function.as_bytes()));
    out.resize(len, 0);
    let sum = *blake3::Hasher::new().update(&out[HEADER_LEN..]).update(artifact).finalize().as_bytes();

    let mut header = Writer(&mut out[..HEADER_LEN]);
    header.put(&MAGIC);
    header.put(&VERSION.to_le_bytes());
    header.put(&u32::try_from(recipe.len()).expect("a recipe is shorter than 4 GiB").to_le_bytes());
    header.put(key.as_bytes());
    header
        .put(&u32::try_from(entry.functions.len()).expect("functions are numbered in 32 bits").to_le_bytes());
    header.put(&[0; 4]);
    header.put(&(artifact.len() as u64).to_le_bytes());
    header.put(&sum);
    let sum = *blake3::hash(&out[..HEADER_LEN - 8]).as_bytes();
    out[HEADER_LEN - 8..HEADER_LEN].copy_from_slice(&sum[..8]);
    out
}

struct Writer<'a>(&'a mut [u8]);

impl Writer<'_> {
    fn put(&mut self, bytes: &[u8]) {
        let (place, rest) = std::mem::take(&mut self.0).split_at_mut(bytes.len());
        place.copy_from_slice(bytes);
        self.0 = rest;
    }
}

/// The fixed fields of a header whose checksum is right.
struct Header {
    key: [u8; 32],
    recipe: usize,
    functions: usize,
    artifact: u64,
    sum: [u8; 32],
}

impl Header {
    /// Returns the start of the artifact, and the length of the whole entry.
    fn layout(&self) -> (u64, u64) {
        // 64 bits do not overflow: both factors are below 2^32, and the length is added with
        // saturation.
        let keys_len = self.functions as u64 * FunctionKey::LEN as u64;
        let start = (HEADER_LEN as u64 + self.recipe as u64 + keys_len).next_multiple_of(ALIGN as u64);
        (start, start.saturating_add(self.artifact))
    }
}

/// Checks, from the first bytes `head` and the length `len` of an entry's file, whether the file is
/// worth reading. Refuses it if its header is wrong or says another length, or if it is longer than
/// [`MAX_FILE_LEN`].
pub(crate) fn admit(head: &[u8], len: u64) -> Result<(), EntryError> {
    let (_, expected) = read_header(head)?.layout();
    if expected != len {
        return Err(EntryError::Length { actual: len, expected });
    }
    if len > MAX_FILE_LEN { Err(EntryError::TooLong(len)) } else { Ok(()) }
}

fn read_header(bytes: &[u8]) -> Result<Header, EntryError> {
    fn take<const N: usize>(bytes: &mut &[u8]) -> [u8; N] {
        let (chunk, rest) = bytes.split_first_chunk().expect("the header is as long as its fields");
        *bytes = rest;
        *chunk
    }
    let Some((header, _)) = bytes.split_first_chunk::<HEADER_LEN>() else {
        return Err(EntryError::Length { actual: bytes.len() as u64, expected: HEADER_LEN as u64 });
    };
    let rest = &mut &header[..];
    if take(rest) != MAGIC {
        return Err(EntryError::Foreign);
    }
    if take(rest) != VERSION.to_le_bytes() {
        return Err(EntryError::OtherVersion);
    }
    if header[HEADER_LEN - 8..] != blake3::hash(&header[..HEADER_LEN - 8]).as_bytes()[..8] {
        return Err(EntryError::Checksum("header"));
    }
    let recipe = u32::from_le_bytes(take(rest)) as usize;
    let key = take(rest);
    let functions = u32::from_le_bytes(take(rest)) as usize;
    if take(rest) != [0; 4] {
        return Err(EntryError::Padding);
    }
    Ok(Header { key, recipe, functions, artifact: u64::from_le_bytes(take(rest)), sum: take(rest) })
}

/// Reads the entry that was stored under `key` from the bytes of its file.
pub(crate) fn parse(key: &Key, bytes: Vec<u8>) -> Result<Entry, EntryError> {
    let header = read_header(&bytes)?;
    if header.key != *key.as_bytes() {
        return Err(EntryError::OtherKey);
    }
    let (start, expected) = header.layout();
    if expected != bytes.len() as u64 {
        return Err(EntryError::Length { actual: bytes.len() as u64, expected });
    }
    let body = &bytes[HEADER_LEN..];
    if header.sum != *blake3::hash(body).as_bytes() {
        return Err(EntryError::Checksum("body"));
    }
    // Lengths fit, because their sum is the length of the file.
    let (recipe, keys) = body.split_at(header.recipe);
    let recipe = Recipe::from_bytes(recipe)?;
    if recipe.key() != *key {
        return Err(EntryError::Recipe);
    }
    if recipe.format_version() != FORMAT_VERSION {
        return Err(EntryError::OtherVersion);
    }
    let keys_end = HEADER_LEN + header.recipe + header.functions * FunctionKey::LEN;
    let padding = keys_end..start as usize;
    if bytes[padding].iter().any(|byte| *byte != 0) {
        return Err(EntryError::Padding);
    }
    let (keys, _) = keys.as_chunks::<{ FunctionKey::LEN }>();
    let functions = keys[..header.functions].iter().map(|&bits| FunctionKey::new(bits)).collect();
    let artifact = Artifact::from_buffer(bytes, start as usize)?;
    check_function_keys(header.functions, &artifact)?;
    Ok(Entry { recipe, functions, artifact })
}
