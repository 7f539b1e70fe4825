//! Reads the modules of a file in binary form, one after the other.

use std::io::{Read, Seek, SeekFrom};
use std::ops::Range;

use kiln_globals::is_reserved_section;

use super::error::BinaryError;
use super::header::{HEADER, Lengths, VERSION, checksum, may_be_header, other_version};
use super::read;
use crate::body::wire::{ByteReader, DecodeError};
use crate::module::Module;
use crate::unverified::Unverified;

/// Iterates over the modules of a file. Only one of them is held in memory at a time.
///
/// After an error the iterator ends, because it is not known where the next module starts.
#[derive(Debug)]
pub struct Modules<R> {
    input: R,
    /// The offset of the next module.
    offset: u64,
    buffer: Vec<u8>,
    done: bool,
}

impl<R: Read> Modules<R> {
    /// Creates an iterator over the modules in `input`. It reads in large pieces, so `input` needs
    /// no buffer.
    pub fn new(input: R) -> Self {
        Self { input, offset: 0, buffer: Vec::new(), done: false }
    }

    /// Appends `length` bytes of the input to the buffer. Returns whether the input had that many.
    fn take(&mut self, length: u64) -> std::io::Result<bool> {
        let before = self.buffer.len();
        // The buffer grows only as bytes arrive, so a wrong length cannot make it large.
        (&mut self.input).take(length).read_to_end(&mut self.buffer)?;
        Ok((self.buffer.len() - before) as u64 == length)
    }

    fn read(&mut self) -> Result<Option<Unverified>, BinaryError> {
        let offset = self.offset;
        self.buffer.clear();
        let whole = self.take(HEADER as u64)?;
        if self.buffer.is_empty() {
            return Ok(None);
        }
        if !may_be_header(&self.buffer) {
            return Err(BinaryError::Foreign { offset });
        }
        let truncated = || BinaryError::Truncated { offset };
        let header = self.buffer.first_chunk().filter(|_| whole).ok_or_else(truncated)?;
        let lengths = Lengths::read(header, offset)?;
        if !self.take(lengths.sum().ok_or_else(truncated)?)? {
            return Err(truncated());
        }
        if self.buffer[32..HEADER] != checksum(&self.buffer) {
            return Err(BinaryError::Checksum { offset });
        }
        // Both lengths are at most the number of bytes that were read, so they fit.
        let (producer, content) = (lengths.producer as usize, lengths.content as usize);
        let body = &self.buffer[HEADER..];
        if &body[..producer] != cranelift_codegen::VERSION.as_bytes() {
            let found = String::from_utf8_lossy(&body[..producer]);
            let found = format!("version {VERSION} with Cranelift {}", found.escape_debug());
            return Err(other_version(offset, found));
        }
        let start = HEADER + producer;
        let (content, notes) = self.buffer[start..].split_at(content);
        let module = read::module(
            ByteReader::with_base(content, start),
            ByteReader::with_base(notes, start + content.len()),
        );
        let module = module.map_err(|DecodeError { offset: within, what }| BinaryError::Malformed {
            offset: offset + within as u64,
            what,
        })?;
        check_sections(&module, offset)?;
        self.offset += self.buffer.len() as u64;
        Ok(Some(Unverified(module)))
    }
}

impl<R: Read> Iterator for Modules<R> {
    type Item = Result<Unverified, BinaryError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.done {
            return None;
        }
        let read = self.read().transpose();
        self.done = !matches!(read, Some(Ok(_)));
        read
    }
}

/// Refuses data in sections whose names have a meaning to loaders or linkers.
fn check_sections(module: &Module, offset: u64) -> Result<(), BinaryError> {
    for object in &module.data {
        let is_thread_local = object.is_thread_local() && object.writable;
        let section = object.section.as_ref().filter(|_| !is_thread_local);
        if let Some(section) = section.filter(|section| is_reserved_section(section)) {
            let name = module.symbol(object.symbol).name.clone();
            let (module, section) = (module.name.clone(), section.clone());
            return Err(BinaryError::Section { offset, module, name, section });
        }
    }
    Ok(())
}

/// Returns the range of bytes of each module of a file in binary form. Only headers are read.
///
/// # Errors
///
/// [`BinaryError::Io`], [`BinaryError::Foreign`], [`BinaryError::Version`] and
/// [`BinaryError::Truncated`].
pub fn spans(mut input: impl Read + Seek) -> Result<Vec<Range<u64>>, BinaryError> {
    let end = input.seek(SeekFrom::End(0))?;
    let mut spans = Vec::new();
    let mut header = Vec::with_capacity(HEADER);
    let mut offset = 0;
    while offset < end {
        input.seek(SeekFrom::Start(offset))?;
        header.clear();
        input.by_ref().take(HEADER as u64).read_to_end(&mut header)?;
        if !may_be_header(&header) {
            return Err(BinaryError::Foreign { offset });
        }
        let header = header.first_chunk().ok_or(BinaryError::Truncated { offset })?;
        let length = Lengths::read(header, offset)?.sum();
        let length = length.and_then(|length| length.checked_add(HEADER as u64));
        let length = length.filter(|length| *length <= end - offset);
        let next = offset + length.ok_or(BinaryError::Truncated { offset })?;
        spans.push(offset..next);
        offset = next;
    }
    Ok(spans)
}
