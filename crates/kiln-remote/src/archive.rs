//! Archives: entries and last builds in one compressed file, for caches of CI and for containers.
//!
//! An archive is a zstd frame of the following, with numbers in little-endian order: magic
//! (8 bytes), version (`u32`); for each entry, in the order of their keys, the byte 1, the key
//! (32 bytes), a length (`u64`) and the entry's byte form; for each last build, in the order of
//! lineages, the byte 2, the lineage (16 bytes) and the key (32 bytes); then the byte 0 and the
//! BLAKE3 hash of all that precedes it.
//!
//! Equal lists of equal entries give equal archives, as long as the version of zstd is the same.
//! An archive may come from anyone: each entry is checked as if a folder had it, and no name of a
//! file is in the archive. A checksum does not say who made it, so import only archives of builds
//! whose code you would run.

use std::io::{self, BufReader, Read, Write};

use kiln_cache::{DiskStore, Entry, EntryError, Key, Lineage, Lookup, Store};

use crate::List;

const MAGIC: [u8; 8] = *b"KilnArc\0";
const VERSION: u32 = 1;
/// The level of compression: higher ones take much longer and save little.
const LEVEL: i32 = 3;
/// The longest entry that is read, in bytes: as long as an entry of a folder may be.
const MAX_ENTRY: u64 = 1 << 30;
/// Memory for an entry grows in steps of this many bytes, as its bytes arrive.
const STEP: usize = 1 << 20;

/// The numbers of what was written or read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ArchiveReport {
    /// Entries in the archive.
    pub entries: u64,
    /// Sum of their lengths.
    pub bytes: u64,
    /// Last builds in the archive.
    pub last_builds: u64,
    /// Entries of the list that the folder does not have, or that are damaged there; or, after an
    /// import, entries that the store had already.
    pub skipped: u64,
}

/// An archive could not be written or read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ArchiveError {
    /// The file could not be read or written. A damaged compression is such an error too.
    #[error("byte {at} of the content")]
    Io {
        /// The position in the decompressed content.
        at: u64,
        /// The error of the file, or of zstd.
        #[source]
        source: io::Error,
    },
    /// The file is not an archive.
    #[error("not an archive of a cache")]
    Foreign,
    /// The archive has another version.
    #[error("archive of version {0}, expected {VERSION}")]
    OtherVersion(u32),
    /// The archive is not in the form described above.
    #[error("byte {at} of the content: {what}")]
    Malformed {
        /// The position in the decompressed content.
        at: u64,
        /// Says what is wrong there.
        what: &'static str,
    },
    /// An entry of the archive cannot be used.
    #[error("entry {key}, at byte {at} of the content")]
    Entry {
        /// The entry's key.
        key: Key,
        /// The position in the decompressed content.
        at: u64,
        /// The reason.
        #[source]
        source: EntryError,
    },
    /// The store did not take an entry.
    #[error("cannot store entry {key}")]
    Store {
        /// The entry's key.
        key: Key,
        /// The error of the store.
        #[source]
        source: io::Error,
    },
}

/// Counts and hashes what passes through.
struct Passing<T> {
    inner: T,
    at: u64,
    hasher: blake3::Hasher,
}

impl<T> Passing<T> {
    fn new(inner: T) -> Self {
        Self { inner, at: 0, hasher: blake3::Hasher::new() }
    }

    fn passed(&mut self, bytes: &[u8]) {
        self.at += bytes.len() as u64;
        self.hasher.update(bytes);
    }
}

impl<W: Write> Passing<W> {
    fn put(&mut self, parts: &[&[u8]]) -> Result<(), ArchiveError> {
        parts.iter().try_for_each(|part| {
            let written = self.inner.write_all(part);
            written.map_err(|source| ArchiveError::Io { at: self.at, source })?;
            self.passed(part);
            Ok(())
        })
    }
}

/// Writes the entries and last builds of `list` that `store` has to `out`; without a list, all of
/// them. Entries that other processes remove or damage meanwhile are left out.
///
/// # Errors
///
/// [`ArchiveError::Io`] if `out` cannot be written.
pub fn export(
    store: &DiskStore,
    list: Option<&List>,
    out: impl Write,
) -> Result<ArchiveReport, ArchiveError> {
    let io = |source| ArchiveError::Io { at: 0, source };
    let mut out = Passing::new(zstd::Encoder::new(out, LEVEL).map_err(io)?);
    let mut report = ArchiveReport::default();
    out.put(&[&MAGIC, &VERSION.to_le_bytes()])?;
    let mut write = |key: Key, out: &mut Passing<_>| {
        let Lookup::Hit(entry, _) = store.get(&key) else {
            report.skipped += 1;
            return Ok(());
        };
        let bytes = entry.to_bytes();
        report.entries += 1;
        report.bytes += bytes.len() as u64;
        out.put(&[&[1], key.as_bytes(), &(bytes.len() as u64).to_le_bytes(), &bytes])
    };
    match list {
        Some(list) => list.keys.iter().try_for_each(|key| write(*key, &mut out))?,
        None => store.entries().try_for_each(|info| write(info.key, &mut out))?,
    }
    let mut write = |lineage: Lineage, key: Key, out: &mut Passing<_>| {
        report.last_builds += 1;
        out.put(&[&[2], lineage.as_bytes(), key.as_bytes()])
    };
    match list {
        Some(list) => {
            let known = list.lineages.iter().filter_map(|lineage| Some((*lineage, store.latest(lineage)?)));
            known.into_iter().try_for_each(|(lineage, key)| write(lineage, key, &mut out))?;
        }
        None => {
            // A folder lists them by the names of its files, which is the order of lineages.
            store.last_builds().try_for_each(|(lineage, key)| write(lineage, key, &mut out))?;
        }
    }
    out.put(&[&[0]])?;
    let sum = *out.hasher.finalize().as_bytes();
    out.put(&[&sum])?;
    out.inner.finish().map_err(|source| ArchiveError::Io { at: out.at, source })?;
    Ok(report)
}

impl<R: Read> Passing<R> {
    fn read(&mut self, bytes: &mut [u8]) -> Result<(), ArchiveError> {
        let read = self.inner.read_exact(bytes);
        read.map_err(|source| ArchiveError::Io { at: self.at, source })?;
        self.passed(bytes);
        Ok(())
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], ArchiveError> {
        let mut bytes = [0; N];
        self.read(&mut bytes)?;
        Ok(bytes)
    }

    /// Reads as many bytes as a length that nobody has checked says.
    fn bytes(&mut self, len: u64) -> Result<Vec<u8>, ArchiveError> {
        let at = self.at;
        let len = usize::try_from(len).ok().filter(|_| len <= MAX_ENTRY);
        let len = len.ok_or(ArchiveError::Malformed { at, what: "an entry that is too long" })?;
        let mut bytes = Vec::new();
        while bytes.len() < len {
            let start = bytes.len();
            bytes.resize(len.min(start + STEP), 0);
            self.read(&mut bytes[start..])?;
        }
        Ok(bytes)
    }
}

/// Reads an archive, and stores what `store` does not have. Last builds that the store knows stay
/// as they are: they are those of builds on this machine. Other processes may use the store.
///
/// # Errors
///
/// [`ArchiveError`]. What precedes the error in the archive was stored: each entry is right by
/// itself.
pub fn import<S: Store + ?Sized>(store: &S, file: impl Read) -> Result<ArchiveReport, ArchiveError> {
    let io = |source| ArchiveError::Io { at: 0, source };
    let decoder = zstd::Decoder::with_buffer(BufReader::new(file)).map_err(io)?.single_frame();
    let mut file = Passing::new(decoder);
    // A file that zstd cannot read is no archive either.
    let magic: [u8; 8] = file.array().map_err(|_| ArchiveError::Foreign)?;
    if magic != MAGIC {
        return Err(ArchiveError::Foreign);
    }
    let version = u32::from_le_bytes(file.array()?);
    if version != VERSION {
        return Err(ArchiveError::OtherVersion(version));
    }
    let mut report = ArchiveReport::default();
    let (mut last_key, mut last_lineage): (Option<Key>, Option<Lineage>) = (None, None);
    loop {
        let at = file.at;
        let unordered = Err(ArchiveError::Malformed { at, what: "items that are not in order" });
        match file.array()? {
            [0] => break,
            [1] => {
                let key = Key::from_bytes(file.array()?);
                if last_key.is_some_and(|last| last >= key) || last_lineage.is_some() {
                    return unordered;
                }
                last_key = Some(key);
                let len = u64::from_le_bytes(file.array()?);
                let bytes = file.bytes(len)?;
                let entry = Entry::from_bytes(&key, bytes);
                let entry = entry.map_err(|source| ArchiveError::Entry { key, at, source })?;
                report.entries += 1;
                report.bytes += len;
                if matches!(store.get(&key), Lookup::Hit(..)) {
                    report.skipped += 1;
                } else {
                    store.put(&key, &entry).map_err(|source| ArchiveError::Store { key, source })?;
                }
            }
            [2] => {
                let lineage = Lineage::from_bytes(file.array()?);
                let key = Key::from_bytes(file.array()?);
                if last_lineage.is_some_and(|last| last >= lineage) {
                    return unordered;
                }
                last_lineage = Some(lineage);
                report.last_builds += 1;
                if store.latest(&lineage).is_none() {
                    let set = store.set_latest(&lineage, &key);
                    set.map_err(|source| ArchiveError::Store { key, source })?;
                }
            }
            _ => return Err(ArchiveError::Malformed { at, what: "an item of an unknown kind" }),
        }
    }
    let (sum, at) = (*file.hasher.finalize().as_bytes(), file.at);
    if file.array::<32>()? != sum {
        return Err(ArchiveError::Malformed { at, what: "a checksum that differs" });
    }
    // The frame ends here, and the file as well.
    let io = |source| ArchiveError::Io { at, source };
    let mut more = file.inner.read(&mut [0]).map_err(io)?;
    more += file.inner.finish().read(&mut [0]).map_err(io)?;
    if more != 0 { Err(ArchiveError::Malformed { at, what: "bytes after the end" }) } else { Ok(report) }
}
