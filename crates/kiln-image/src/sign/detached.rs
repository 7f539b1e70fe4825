//! Signatures in a file beside the image.
//!
//! The file has a line for each: `kiln-image-signature`, the algorithm, the key and the signature,
//! and maybe a comment. Empty lines and lines that begin with `#` are skipped.

use std::ffi::OsString;
use std::fmt;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use kiln_keys::{Hex, PublicKey, bytes};

use super::trust::{Algorithm, ImageSignature};
use crate::error::LoadError;

/// The first word of a line.
const WORD: &str = "kiln-image-signature";

/// The most bytes of a file of signatures.
const MAX_LEN: u64 = 1 << 16;

/// A text is not a list of signatures.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ParseSignatureError {
    /// The number of the line, from 1.
    pub line: usize,
}

impl fmt::Display for ParseSignatureError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let line = self.line;
        write!(f, "line {line}: expected `{WORD} ed25519`, 64 and 128 hexadecimal digits in lower case")
    }
}

impl std::error::Error for ParseSignatureError {}

impl ImageSignature {
    /// Reads a file of signatures. Those of an algorithm that this version does not know are read
    /// if the key is there.
    ///
    /// # Errors
    ///
    /// [`ParseSignatureError`], for example if a signature is cut off.
    pub fn parse_list(text: &str) -> Result<Vec<Self>, ParseSignatureError> {
        let lines = text.lines().zip(1..).map(|(line, number)| (line.trim(), number));
        let lines = lines.filter(|(line, _)| !line.is_empty() && !line.starts_with('#'));
        lines.map(|(text, line)| Self::parse(text).ok_or(ParseSignatureError { line })).collect()
    }

    fn parse(line: &str) -> Option<Self> {
        let mut words = line.split_whitespace();
        words.next().filter(|word| *word == WORD)?;
        let algorithm = match words.next()? {
            "ed25519" => Algorithm::Ed25519,
            other => Algorithm::Unknown(other.into()),
        };
        let key = PublicKey::from_bytes(bytes(words.next()?)?);
        let bytes = match algorithm {
            Algorithm::Ed25519 => bytes(words.next()?)?,
            Algorithm::Unknown(_) => [0; 64],
        };
        Some(Self { algorithm, key, bytes })
    }
}

impl fmt::Display for ImageSignature {
    /// Writes a line of a file of signatures, as [`ImageSignature::parse_list`] reads it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { algorithm, key, bytes } = self;
        write!(f, "{} {algorithm} {} {}", WORD, Hex(key.as_bytes()), Hex(bytes))
    }
}

/// Reads the signatures in the file that has the name of the image and `.sig`, if there is one.
///
/// # Errors
///
/// [`LoadError::Io`] with the line that is no signature, or the reason of the operating system.
pub fn signatures_beside(image: &Path) -> Result<Vec<ImageSignature>, LoadError> {
    let mut name = OsString::from(image);
    name.push(".sig");
    let path = PathBuf::from(name);
    let failed = |source: std::io::Error| LoadError::Io { action: "read the signatures beside", source };
    // A device or a pipe is not opened.
    if !path.is_file() {
        return Ok(Vec::new());
    }
    let mut text = Vec::new();
    File::open(&path).and_then(|file| file.take(MAX_LEN + 1).read_to_end(&mut text)).map_err(failed)?;
    let wrong = |reason: String| failed(std::io::Error::other(format!("{}: {reason}", path.display())));
    if text.len() as u64 > MAX_LEN {
        return Err(wrong(format!("longer than {MAX_LEN} bytes")));
    }
    let text = std::str::from_utf8(&text).map_err(|error| wrong(error.to_string()))?;
    ImageSignature::parse_list(text).map_err(|error| wrong(error.to_string()))
}
