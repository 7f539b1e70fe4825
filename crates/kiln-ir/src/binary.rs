//! The binary form of a module: what tools of one build pass to each other.
//!
//! Reading it costs a fraction of reading text, and fingerprints are hashes of a part of it. It belongs to one version of
//! Kiln and of Cranelift, and is refused by any other: text is the form to keep.
//!
//! A file is a row of modules, each by itself: two files joined are a file. A module is, integers of the header little-endian:
//!
//! | bytes | what |
//! |---|---|
//! | 0..8 | `KilnIR` and two zeros |
//! | 8..12 | version of this form |
//! | 12..16 | length of the version of Cranelift, which follows the header |
//! | 16..24 | length of the content |
//! | 24..32 | length of the notes |
//! | 32..64 | BLAKE3 of everything but these bytes |
//!
//! Behind the header come the version of Cranelift as text, the content and the notes. The content is what an artifact
//! depends on; notes are names that no other module sees, lines and comments (see `write`).
//!
//! Invariants:
//! - Equal modules have equal bytes, whatever the machine, the process and the seeds of its hash maps.
//! - Any bytes end in a module or in an error with its place, in time and memory proportional to their length. Nothing is
//!   trusted for its checksum: that tells damage early, and is made by whoever made the bytes.

mod read;
#[cfg(test)]
mod tests;
pub(crate) mod write;

use std::io::{Read, Seek, SeekFrom};
use std::ops::Range;

use cranelift_codegen::verify_function;

use crate::body::Body;
use crate::body::wire::{ByteReader, ByteWriter, DecodeError};
use crate::fingerprint::Fingerprint;
use crate::guard::guard;
use crate::module::Module;
use crate::references;
use crate::settings::{Target, TargetError};

const MAGIC: &[u8; 8] = b"KilnIR\0\0";
const VERSION: u32 = 2;
const HEADER: usize = 64;

/// Why bytes are no module.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BinaryError {
    /// The bytes could not be read.
    #[error("cannot be read: {0}")]
    Io(#[from] std::io::Error),
    /// They do not start as a module in binary form does.
    #[error("byte {offset}: not a module in binary form")]
    Foreign {
        /// Where, from the start of the file.
        offset: u64,
    },
    /// They were written by another version.
    #[error("byte {offset}: written by {found}, and this is {own}")]
    Version {
        /// Where the module starts.
        offset: u64,
        /// Who wrote it.
        found: Box<str>,
        /// Who reads it.
        own: Box<str>,
    },
    /// They end early.
    #[error("byte {offset}: the file ends inside of a module")]
    Truncated {
        /// Where the module starts.
        offset: u64,
    },
    /// They were altered.
    #[error("byte {offset}: the checksum of the module differs")]
    Checksum {
        /// Where the module starts.
        offset: u64,
    },
    /// The checksum holds, but they are not what a module consists of.
    #[error("byte {offset}: {what}")]
    Malformed {
        /// Where, from the start of the file.
        offset: u64,
        /// What is wrong.
        what: &'static str,
    },
}

/// Why a module in binary form is not one to be compiled.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum VerifyError {
    /// There is no code generator for it.
    #[error(transparent)]
    Target(#[from] TargetError),
    /// Functions that are not valid IR, in order.
    #[error("{}", .0.iter().map(FunctionError::to_string).collect::<Vec<_>>().join("\n"))]
    Functions(Vec<FunctionError>),
}

/// What is wrong with a function.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{module}: function `{function}` (line {line}): {entity}: {message}")]
pub struct FunctionError {
    /// The module's name.
    pub module: Box<str>,
    /// The function's name.
    pub function: Box<str>,
    /// Line of the function in the text that the module came from, or 0.
    pub line: u32,
    /// What is at fault in it, numbered as the canonical form has it.
    pub entity: Box<str>,
    /// What is wrong.
    pub message: Box<str>,
}

/// A module that is what it has to be, but for its functions: the verifier has not seen them.
///
/// Whoever finds code for it in a cache need not ask for more: see [`Unverified::fingerprint`].
#[derive(Clone, Debug)]
pub struct Unverified(pub(crate) Module);

impl Unverified {
    /// The fingerprint that the module will have.
    pub fn fingerprint(&self) -> Fingerprint {
        self.0.fingerprint()
    }

    /// The module, to look at. Code generation relies on the verifier, so this must not be compiled.
    pub fn module(&self) -> &Module {
        &self.0
    }

    /// Verifies every function.
    ///
    /// # Errors
    ///
    /// [`VerifyError`] with everything that is wrong.
    pub fn verify(self, target: &Target) -> Result<Module, VerifyError> {
        let Self(module) = self;
        let isa = target.isa(&module.settings)?;
        let mut faults = Vec::new();
        let mut ir = cranelift_codegen::ir::Function::new();
        for function in &module.functions {
            let Some(body) = function.body() else { continue };
            body.decode_into(function.symbol, &mut ir);
            let mut fault = |entity: String, message: String| {
                faults.push(FunctionError {
                    module: module.name.clone(),
                    function: module.symbol(function.symbol).name.clone(),
                    line: function.line,
                    entity: entity.into(),
                    message: message.into(),
                });
            };
            let unusable = references::check(&ir);
            for reason in &unusable {
                fault(reason.entity().to_string(), reason.to_string());
            }
            if unusable.is_empty() {
                match guard(|| verify_function(&ir, &*isa)) {
                    // What decodes may still be another form than a writer gives the function.
                    Ok(Ok(())) if Body::new(&ir).as_ref() == Ok(body) => {}
                    Ok(Ok(())) => fault("function".into(), "its form is not the canonical one".into()),
                    Ok(Err(errors)) => {
                        errors
                            .0
                            .into_iter()
                            .for_each(|error| fault(error.location.to_string(), error.message));
                    }
                    Err(panic) => {
                        fault("function".into(), format!("Cranelift's verifier fails on it: {panic}"))
                    }
                }
            }
        }
        if faults.is_empty() { Ok(module) } else { Err(VerifyError::Functions(faults)) }
    }
}

impl Module {
    /// The module in binary form.
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

/// Of a whole module, the checksum itself left out.
fn checksum(bytes: &[u8]) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&bytes[..32]);
    hasher.update(&bytes[HEADER..]);
    *hasher.finalize().as_bytes()
}

/// Reads the modules of a file one at a time: no more than one of them is held in memory.
///
/// After an error there is nothing more, for where the next module starts is not known.
#[derive(Debug)]
pub struct Modules<R> {
    input: R,
    /// Where the next module starts.
    offset: u64,
    buffer: Vec<u8>,
    done: bool,
}

impl<R: Read> Modules<R> {
    /// The modules in `input`, which is read in large pieces and needs no buffer.
    pub fn new(input: R) -> Self {
        Self { input, offset: 0, buffer: Vec::new(), done: false }
    }

    /// Takes `length` bytes more into the buffer; whether they were there.
    fn take(&mut self, length: u64) -> std::io::Result<bool> {
        let before = self.buffer.len();
        // Grows as bytes arrive, whatever a length claims.
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
        if !self.buffer.starts_with(&MAGIC[..self.buffer.len().min(MAGIC.len())]) {
            return Err(BinaryError::Foreign { offset });
        }
        let truncated = || BinaryError::Truncated { offset };
        if !whole {
            return Err(truncated());
        }
        let number = |at: usize| u64::from_le_bytes(self.buffer[at..at + 8].try_into().expect("eight bytes"));
        let (version, content, notes) = (number(8), number(16), number(24));
        let (version, producer) = (version as u32, version >> 32);
        if version != VERSION {
            return Err(other_version(offset, format!("version {version}")));
        }
        let rest = producer.checked_add(content).and_then(|sum| sum.checked_add(notes));
        if !self.take(rest.ok_or_else(truncated)?)? {
            return Err(truncated());
        }
        if self.buffer[32..HEADER] != checksum(&self.buffer) {
            return Err(BinaryError::Checksum { offset });
        }
        // Their sum is the length of what was read.
        let (producer, content) = (producer as usize, content as usize);
        let body = &self.buffer[HEADER..];
        if &body[..producer] != cranelift_codegen::VERSION.as_bytes() {
            let found = String::from_utf8_lossy(&body[..producer]);
            let found = format!("version {VERSION} with Cranelift {}", found.escape_debug());
            return Err(other_version(offset, found));
        }
        let at = HEADER + producer;
        let (content, notes) = self.buffer[at..].split_at(content);
        let module = read::module(ByteReader::at(content, at), ByteReader::at(notes, at + content.len()));
        let malformed =
            |DecodeError { offset: at, what }| BinaryError::Malformed { offset: offset + at as u64, what };
        let module = module.map_err(malformed)?;
        self.offset += self.buffer.len() as u64;
        Ok(Some(Unverified(module)))
    }
}

fn other_version(offset: u64, found: String) -> BinaryError {
    let own = format!("version {VERSION} with Cranelift {}", cranelift_codegen::VERSION);
    BinaryError::Version { offset, found: found.into(), own: own.into() }
}

/// Where each module of a file in binary form lies. Only headers are read.
///
/// # Errors
///
/// [`BinaryError::Io`], [`BinaryError::Foreign`], [`BinaryError::Version`] and [`BinaryError::Truncated`].
pub fn spans(mut input: impl Read + Seek) -> Result<Vec<Range<u64>>, BinaryError> {
    let end = input.seek(SeekFrom::End(0))?;
    let mut spans = Vec::new();
    let mut header = Vec::with_capacity(HEADER);
    let mut offset = 0;
    while offset < end {
        input.seek(SeekFrom::Start(offset))?;
        header.clear();
        input.by_ref().take(HEADER as u64).read_to_end(&mut header)?;
        if !header.starts_with(&MAGIC[..header.len().min(MAGIC.len())]) {
            return Err(BinaryError::Foreign { offset });
        }
        let header: &[u8; HEADER] = header.first_chunk().ok_or(BinaryError::Truncated { offset })?;
        let long = |at: usize| u64::from_le_bytes(header[at..at + 8].try_into().expect("eight bytes"));
        // What lengths another version has, and where, is not known.
        let (version, producer) = (long(8) as u32, long(8) >> 32);
        if version != VERSION {
            return Err(other_version(offset, format!("version {version}")));
        }
        let length = producer.checked_add(long(16)).and_then(|sum| sum.checked_add(long(24)));
        let length = length.and_then(|length| length.checked_add(HEADER as u64));
        let length = length.filter(|length| *length <= end - offset);
        let next = offset + length.ok_or(BinaryError::Truncated { offset })?;
        spans.push(offset..next);
        offset = next;
    }
    Ok(spans)
}

/// Whether `bytes` start as a file in binary form does.
pub fn is_binary(bytes: &[u8]) -> bool {
    bytes.starts_with(MAGIC)
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
