//! An image that is mapped and checked, but not yet bound.
//!
//! Everything is still read-only and as in the file, so it can be verified.

use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::OnceLock;

use kiln_globals::{Resolve, SlotKey};

use super::Loaded;
use super::map::{Access, Reservation};
use crate::arch::Arch;
use crate::error::LoadError;
use crate::features::host_has_feature;
use crate::note::{Note, PREFIX_LEN, checksum, truncate};
use crate::read::{Segment, Tables, View, extent};

/// Enough for the ELF header and every program header that is accepted.
const HEAD: usize = 1024;

/// The mapping, and what was learnt when it was checked. Shared by the unbound and the bound state.
#[derive(Debug)]
pub(super) struct Mapped {
    pub(super) memory: Reservation,
    pub(super) arch: Arch,
    pub(super) segments: Vec<Segment>,
    note: Range<usize>,
    /// Length of the first segment, which is never written.
    readable: usize,
    slots: OnceLock<Box<[SlotKey]>>,
}

/// Where the part of the file lies that is not mapped.
#[derive(Debug)]
enum Rest {
    File(File),
    Memory(Box<[u8]>),
}

/// An image in memory: checked, its slots not yet filled. Nothing of it can be called before it is bound.
#[derive(Debug)]
pub struct Image {
    mapped: Mapped,
    /// Number of bytes of the file that are mapped.
    mapped_len: usize,
    rest: Rest,
}

impl Mapped {
    /// The never-written tables.
    pub(super) fn tables(&self) -> Tables<'_> {
        // SAFETY: the first segment stays mapped readable as long as `memory` lives; only writable segments are written,
        // and segments do not overlap.
        let bytes = unsafe { self.memory.bytes(self.readable) };
        let body = &bytes[self.note.start + PREFIX_LEN..self.note.end];
        let note = Note::again(body).expect("the note was checked when the image was mapped");
        Tables { bytes, endian: self.arch.endian(), note }
    }

    /// Keys of the external slots. A bad record has none; `Image::bind` refuses such an image.
    pub(super) fn slots(&self) -> &[SlotKey] {
        self.slots.get_or_init(|| {
            let tables = self.tables();
            tables.note.slots().iter().filter_map(|slot| tables.slot_key(slot)).collect()
        })
    }
}

impl Image {
    /// Maps the image in the file at `path` and checks it: headers, length, note, target, CPU features. The contents of
    /// sections are not read; [`Image::verify`] does that.
    ///
    /// # Errors
    ///
    /// [`LoadError::At`], with the path and the reason.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, LoadError> {
        let path = path.as_ref();
        Self::open_file(path).map_err(|error| error.at(path))
    }

    fn open_file(path: &Path) -> Result<Self, LoadError> {
        let file = File::open(path).map_err(LoadError::io("open"))?;
        let metadata = file.metadata().map_err(LoadError::io("examine"))?;
        if !metadata.is_file() {
            return Err(LoadError::malformed("not a regular file", 0));
        }
        let mut head = [0; HEAD];
        let mut len = 0;
        while len < HEAD {
            match file.read_at(&mut head[len..], len as u64) {
                Ok(0) => break,
                Ok(read) => len += read,
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(error) => return Err(LoadError::io("read")(error)),
            }
        }
        let (span, mapped_len) = extent(&head[..len], metadata.len())?;
        let page = rustix::param::page_size();
        let memory = if span.next_multiple_of(page as u64) == mapped_len.next_multiple_of(page) as u64 {
            Reservation::of_file(&file, mapped_len, page).map_err(LoadError::io("map"))?
        } else {
            let mut memory = reserve(span)?;
            memory.map_file(&file, mapped_len).map_err(LoadError::io("map"))?;
            memory
        };
        Self::check(memory, mapped_len, metadata.len(), Rest::File(file))
    }

    /// Takes an image that is in memory already; it is copied.
    ///
    /// # Errors
    ///
    /// As for [`Image::open`], without the path.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, LoadError> {
        let (span, mapped_len) = extent(&bytes[..bytes.len().min(HEAD)], bytes.len() as u64)?;
        let mut memory = reserve(span)?;
        memory.protect(0..mapped_len, Access::ReadWrite).map_err(LoadError::io("map"))?;
        // SAFETY: the pages were made writable in the line above.
        unsafe { memory.write(0, &bytes[..mapped_len]) };
        memory.protect(0..mapped_len, Access::Read).map_err(LoadError::io("map"))?;
        Self::check(memory, mapped_len, bytes.len() as u64, Rest::Memory(bytes[mapped_len..].into()))
    }

    fn check(memory: Reservation, mapped_len: usize, file_len: u64, rest: Rest) -> Result<Self, LoadError> {
        // SAFETY: both callers have made this many bytes readable, and nothing is writable yet.
        let bytes = unsafe { memory.bytes(mapped_len) };
        let view = View::parse(bytes, file_len)?;
        check_host(&view)?;
        let readable = view.segments.first().map_or(0, |segment| segment.file_len as usize);
        let (arch, note, segments) = (view.arch, view.note_range, view.segments);
        let mapped = Mapped { arch, segments, note, readable, slots: OnceLock::new(), memory };
        Ok(Self { mapped, mapped_len, rest })
    }

    /// Keys of the external slots, in order of the slot array.
    pub fn slots(&self) -> &[SlotKey] {
        self.mapped.slots()
    }

    /// Target triple.
    pub fn triple(&self) -> &str {
        let note = self.mapped.tables().note;
        note.text(note.head.triple).unwrap_or_default()
    }

    /// Version of Kiln that linked the image.
    pub fn kiln_version(&self) -> &str {
        let note = self.mapped.tables().note;
        note.text(note.head.kiln_version).unwrap_or_default()
    }

    /// Compilers of the modules, with versions, each once.
    pub fn producers(&self) -> impl Iterator<Item = &str> {
        let note = self.mapped.tables().note;
        note.producers().iter().filter_map(move |&text| note.text(text))
    }

    /// CPU features that the code may use, by Cranelift's setting names, sorted.
    pub fn features(&self) -> impl Iterator<Item = &str> {
        let note = self.mapped.tables().note;
        note.features().iter().filter_map(move |&text| note.text(text))
    }

    /// Type of the exported function `name`, as `kiln_artifact::Signature` prints it.
    pub fn signature(&self, name: &str) -> Option<&str> {
        let tables = self.mapped.tables();
        tables.note.export_signature(tables.lookup(name)?.index)
    }

    /// Compares every byte of the image with the checksums that were taken when it was written.
    ///
    /// # Errors
    ///
    /// [`LoadError::Altered`] names the part that was altered.
    pub fn verify(&self) -> Result<(), LoadError> {
        // SAFETY: this many bytes were made readable when the image was mapped, and nothing is writable yet.
        let bytes = unsafe { self.mapped.memory.bytes(self.mapped_len) };
        let view = View::parse(bytes, self.file_len())?;
        view.verify(&mut |range| match bytes.get(range.start as usize..range.end as usize) {
            Some(bytes) => Ok(checksum(bytes)),
            None => {
                let mut hasher = blake3::Hasher::new();
                let mut at = range.start;
                if let Some(bytes) = bytes.get(at as usize..) {
                    hasher.update(bytes);
                    at += bytes.len() as u64;
                }
                self.hash_rest(&mut hasher, at..range.end)?;
                Ok(truncate(hasher.finalize()))
            }
        })
    }

    fn file_len(&self) -> u64 {
        self.mapped.tables().note.head.file_len.get()
    }

    /// Hashes bytes of the file that are not mapped.
    fn hash_rest(&self, hasher: &mut blake3::Hasher, range: Range<u64>) -> Result<(), LoadError> {
        let truncated = || LoadError::malformed("truncated", range.start);
        match &self.rest {
            Rest::Memory(rest) => {
                let start = (range.start as usize).checked_sub(self.mapped_len).ok_or_else(truncated)?;
                let end = (range.end as usize).checked_sub(self.mapped_len).ok_or_else(truncated)?;
                hasher.update(rest.get(start..end).ok_or_else(truncated)?);
            }
            Rest::File(file) => {
                let mut buffer = vec![0; 1 << 16];
                let mut at = range.start;
                while at < range.end {
                    let len = buffer.len().min((range.end - at) as usize);
                    file.read_exact_at(&mut buffer[..len], at).map_err(LoadError::io("read"))?;
                    hasher.update(&buffer[..len]);
                    at += len as u64;
                }
            }
        }
        Ok(())
    }

    /// Fills the slots with the addresses that `resolver` gives, and makes the image callable.
    ///
    /// # Errors
    ///
    /// [`LoadError::Unbound`] names every slot without an address; [`LoadError::Malformed`] if a relocation would write
    /// outside writable data.
    pub fn bind(self, resolver: &dyn Resolve) -> Result<Loaded, LoadError> {
        let keys = self.slots();
        // A slot whose description is bad has no key.
        if keys.len() != self.mapped.tables().note.slots().len() {
            return Err(LoadError::malformed("bad slot in the note", self.mapped.note.start as u64));
        }
        let addresses = kiln_globals::addresses(keys, resolver)?;
        Loaded::bind(self.mapped, &addresses)
    }

    /// Fills the slots with `addresses`, one for each slot in order, and makes the image callable.
    ///
    /// # Errors
    ///
    /// [`LoadError::SlotCount`] if there are too many or too few; [`LoadError::Malformed`] as for [`Image::bind`].
    pub fn bind_array(self, addresses: &[usize]) -> Result<Loaded, LoadError> {
        let expected = self.mapped.tables().note.slots().len();
        if addresses.len() != expected {
            return Err(LoadError::SlotCount { found: addresses.len(), expected });
        }
        Loaded::bind(self.mapped, addresses)
    }
}

fn reserve(span: u64) -> Result<Reservation, LoadError> {
    let len = usize::try_from(span).map_err(|_| LoadError::malformed("a segment that is too large", 0))?;
    Reservation::new(len, rustix::param::page_size()).map_err(LoadError::io("reserve memory for"))
}

fn check_host(view: &View<'_>) -> Result<(), LoadError> {
    let note = view.note;
    let triple = note.text(note.head.triple).unwrap_or_default();
    let linux = triple.split('-').any(|part| part == "linux");
    if Arch::host() != Some(view.arch) || Arch::from_triple(triple) != Some(view.arch) || !linux {
        return Err(LoadError::Target { triple: triple.into(), host: std::env::consts::ARCH });
    }
    let mut missing: Vec<Box<str>> = Vec::new();
    for &feature in note.features() {
        let feature = note.text(feature).unwrap_or("unknown");
        if host_has_feature(feature) != Some(true) {
            missing.push(feature.into());
        }
    }
    if missing.is_empty() { Ok(()) } else { Err(LoadError::Features { features: missing }) }
}
