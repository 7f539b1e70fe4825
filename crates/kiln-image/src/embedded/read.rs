//! Reading the section. Nothing in it is trusted.

use std::collections::HashSet;
use std::fmt;
use std::io::Read as _;

use kiln_artifact::{Artifact, ArtifactError};
use object::Endianness;
use object::elf::FileHeader64;
use object::read::elf::{FileHeader, SectionHeader};

use super::format::{HEADER, MAGIC, MAX_RATIO, SECTION, STORED, ZSTD};

/// The artifacts that an image was linked from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct EmbeddedArtifacts {
    /// The keys of the globals whose slots are first, in order.
    pub globals: Vec<Box<str>>,
    /// The modules, in order.
    pub modules: Vec<EmbeddedModule>,
}

/// A module that an image was linked from.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct EmbeddedModule {
    /// Its number in the image: parts of one module have the same.
    pub number: u32,
    /// Its name; empty if it has none.
    pub name: Box<str>,
    /// The module.
    pub artifact: Artifact,
}

/// The reason why the artifacts of an image cannot be read.
#[derive(Debug)]
#[non_exhaustive]
pub enum EmbeddedError {
    /// The image was built without them.
    Missing,
    /// The section with the artifacts is damaged, or of another version.
    Malformed {
        /// The reason.
        what: &'static str,
    },
    /// An artifact in it cannot be used.
    Artifact {
        /// The position of the module.
        module: usize,
        /// The reason.
        source: ArtifactError,
    },
}

impl fmt::Display for EmbeddedError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing => f.write_str("the image has no artifacts in it: build it with them"),
            Self::Malformed { what } => write!(f, "bad artifacts in the image: {what}"),
            Self::Artifact { module, .. } => write!(f, "bad artifact number {module} in the image"),
        }
    }
}

impl std::error::Error for EmbeddedError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Artifact { source, .. } => Some(source),
            Self::Missing | Self::Malformed { .. } => None,
        }
    }
}

fn bad<T>(what: &'static str) -> Result<T, EmbeddedError> {
    Err(EmbeddedError::Malformed { what })
}

impl EmbeddedArtifacts {
    /// Reads the artifacts in the file of an image, for any architecture. Time and memory are in
    /// proportion to the length of the file.
    ///
    /// # Errors
    ///
    /// [`EmbeddedError`].
    pub fn of_image(image: &[u8]) -> Result<Self, EmbeddedError> {
        Self::of_section(find(image).ok_or(EmbeddedError::Missing)?)
    }

    /// Joins the artifacts of images, bases before their layers, to those of one image that does
    /// what all do: so the last of several definitions of a replaceable function is in force.
    pub fn join(images: impl IntoIterator<Item = Self>) -> Self {
        let mut joined = Self::default();
        let mut known = HashSet::new();
        for image in images {
            let first = joined.modules.last().map_or(0, |module| module.number.saturating_add(1));
            for key in image.globals {
                if known.insert(key.clone()) {
                    joined.globals.push(key);
                }
            }
            let modules = image.modules.into_iter();
            joined.modules.extend(modules.map(|module| {
                let number = module.number.saturating_add(first);
                EmbeddedModule { number, ..module }
            }));
        }
        joined
    }

    /// Reads the contents of the section.
    fn of_section(section: &[u8]) -> Result<Self, EmbeddedError> {
        let Some((header, stored)) = section.split_at_checked(HEADER) else { return bad("a short header") };
        if header[..8] != MAGIC {
            return bad("another version");
        }
        let len = u64::from_le_bytes(*header.last_chunk().unwrap_or(&[0; 8]));
        let mut unpacked = Vec::new();
        let content = match header[8] {
            STORED => stored,
            ZSTD if len / MAX_RATIO > stored.len() as u64 => return bad("a length that no content has"),
            ZSTD => {
                let decoder = zstd::stream::read::Decoder::new(stored);
                let read = decoder
                    .and_then(|decoder| decoder.take(len.saturating_add(1)).read_to_end(&mut unpacked));
                if read.is_err() {
                    return bad("compressed bytes that cannot be unpacked");
                }
                &unpacked
            }
            _ => return bad("an unknown way of compression"),
        };
        if content.len() as u64 != len {
            return bad("another length than the header says");
        }
        let mut rest = Rest(content);
        let mut embedded = Self::default();
        for _ in 0..rest.number()? {
            embedded.globals.push(rest.text()?.into());
        }
        for module in 0..rest.number()? {
            let (number, name) = (rest.number()?, rest.text()?.into());
            let artifact = Artifact::from_bytes(rest.bytes()?.to_vec());
            let module = module as usize;
            let artifact = artifact.map_err(|source| EmbeddedError::Artifact { module, source })?;
            embedded.modules.push(EmbeddedModule { number, name, artifact });
        }
        if rest.0.is_empty() { Ok(embedded) } else { bad("bytes after the last module") }
    }
}

/// Bytes that are not read yet.
struct Rest<'a>(&'a [u8]);

impl<'a> Rest<'a> {
    fn number(&mut self) -> Result<u32, EmbeddedError> {
        let Some((number, rest)) = self.0.split_first_chunk() else { return bad("a number that is cut off") };
        self.0 = rest;
        Ok(u32::from_le_bytes(*number))
    }

    fn bytes(&mut self) -> Result<&'a [u8], EmbeddedError> {
        let len = self.number()? as usize;
        let Some((bytes, rest)) = self.0.split_at_checked(len) else { return bad("bytes that are cut off") };
        self.0 = rest;
        Ok(bytes)
    }

    fn text(&mut self) -> Result<&'a str, EmbeddedError> {
        std::str::from_utf8(self.bytes()?).or(bad("a name that is not UTF-8"))
    }
}

/// Finds the section in the file of an image.
fn find(image: &[u8]) -> Option<&[u8]> {
    let header = FileHeader64::<Endianness>::parse(image).ok()?;
    let endian = header.endian().ok()?;
    let table = header.sections(endian, image).ok()?;
    let (_, section) = table.section_by_name(endian, SECTION.as_bytes())?;
    section.data(endian, image).ok()
}
