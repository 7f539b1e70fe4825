//! An image that is mapped and checked, but not yet bound.
//!
//! Everything is still read-only and as in the file, so it can be verified.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::OnceLock;

use kiln_globals::{Resolve, SlotKey};

use super::bind::Loaded;
use super::map::{Access, Reservation};
use super::mapped::Mapped;
use super::unmapped::Unmapped;
use crate::arch::Arch;
use crate::error::LoadError;
use crate::features::host_has_feature;
use crate::note::{checksum, truncate};
use crate::read::{View, extent};

/// Number of bytes that hold the ELF header and as many program headers as are accepted.
const HEAD: usize = 1024;

/// An image in memory, checked, with slots that are not yet filled. Its functions can be called
/// once it is bound.
#[derive(Debug)]
pub struct Image {
    mapped: Mapped,
    /// Number of bytes of the file that are mapped.
    mapped_len: usize,
    unmapped: Unmapped,
}

impl Image {
    /// Maps the image in the file at `path` and checks it: headers, length, note, target, CPU
    /// features. The contents of sections are not read; [`Image::verify`] does that.
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
        Self::check(memory, mapped_len, metadata.len(), Unmapped::File(file))
    }

    /// Copies an image that is in memory, and checks it as [`Image::open`] does.
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
        Self::check(memory, mapped_len, bytes.len() as u64, Unmapped::Memory(bytes[mapped_len..].into()))
    }

    /// Checks a mapping of the first `mapped_len` bytes of a file.
    fn check(
        memory: Reservation,
        mapped_len: usize,
        file_len: u64,
        unmapped: Unmapped,
    ) -> Result<Self, LoadError> {
        // SAFETY: both callers have made this many bytes readable, and nothing is writable yet.
        let bytes = unsafe { memory.bytes(mapped_len) };
        let view = View::parse(bytes, file_len)?;
        check_host(&view)?;
        let readable = view.segments.first().map_or(0, |segment| segment.file_len as usize);
        let (arch, note, segments) = (view.arch, view.note_range, view.segments);
        let mapped = Mapped { arch, segments, note, readable, slots: OnceLock::new(), memory };
        Ok(Self { mapped, mapped_len, unmapped })
    }

    /// The keys of the external slots, in order of the slot array.
    pub fn slots(&self) -> &[SlotKey] {
        self.mapped.slots()
    }

    /// The target triple.
    pub fn triple(&self) -> &str {
        let note = self.mapped.tables().note;
        note.text(note.head.triple).unwrap_or_default()
    }

    /// The version of Kiln that linked the image.
    pub fn kiln_version(&self) -> &str {
        let note = self.mapped.tables().note;
        note.text(note.head.kiln_version).unwrap_or_default()
    }

    /// The compilers of the modules, with versions, each once.
    pub fn producers(&self) -> impl Iterator<Item = &str> {
        let note = self.mapped.tables().note;
        note.producers().iter().filter_map(move |&text| note.text(text))
    }

    /// The CPU features that the code may use, by Cranelift's setting names, sorted.
    pub fn features(&self) -> impl Iterator<Item = &str> {
        let note = self.mapped.tables().note;
        note.features().iter().filter_map(move |&text| note.text(text))
    }

    /// The type of the exported function `name`, as `kiln_artifact::Signature` prints it.
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
        // SAFETY: this many bytes were made readable when the image was mapped, and nothing is
        // writable yet.
        let bytes = unsafe { self.mapped.memory.bytes(self.mapped_len) };
        let view = View::parse(bytes, self.file_len())?;
        view.verify(&mut |range| match bytes.get(range.start as usize..range.end as usize) {
            Some(bytes) => Ok(checksum(bytes)),
            None => {
                let mut hasher = blake3::Hasher::new();
                let mut offset = range.start;
                if let Some(bytes) = bytes.get(offset as usize..) {
                    hasher.update(bytes);
                    offset += bytes.len() as u64;
                }
                self.unmapped.hash(&mut hasher, offset..range.end, self.mapped_len)?;
                Ok(truncate(hasher.finalize()))
            }
        })
    }

    /// Length of the file in bytes, as the note has it.
    fn file_len(&self) -> u64 {
        self.mapped.tables().note.head.file_len.get()
    }

    /// Fills the slots with the addresses that `resolver` gives, and makes the image callable.
    ///
    /// # Errors
    ///
    /// [`LoadError::Unbound`] names every slot without an address; [`LoadError::Malformed`] if a
    /// relocation would write outside writable data.
    pub fn bind(self, resolver: &dyn Resolve) -> Result<Loaded, LoadError> {
        let keys = self.slots();
        // A slot with a bad record has no key.
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
    /// [`LoadError::SlotCount`] if there are too many or too few; [`LoadError::Malformed`] as for
    /// [`Image::bind`].
    pub fn bind_array(self, addresses: &[usize]) -> Result<Loaded, LoadError> {
        let expected = self.mapped.tables().note.slots().len();
        if addresses.len() != expected {
            return Err(LoadError::SlotCount { found: addresses.len(), expected });
        }
        Loaded::bind(self.mapped, addresses)
    }
}

/// Reserves address space for an image that takes `span` bytes.
fn reserve(span: u64) -> Result<Reservation, LoadError> {
    let len = usize::try_from(span).map_err(|_| LoadError::malformed("a segment that is too large", 0))?;
    Reservation::new(len, rustix::param::page_size()).map_err(LoadError::io("reserve memory for"))
}

/// Refuses an image that this machine cannot run.
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
