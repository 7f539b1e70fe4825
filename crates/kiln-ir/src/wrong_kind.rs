//! Recognizes files that are not text, such as object files, so that messages can say what they
//! are.

use std::sync::Arc;

use crate::binary::is_binary;
use crate::diagnostic::{Diagnostic, DiagnosticKind};
use crate::location::Location;
use crate::source::Source;

impl Source {
    /// Creates a source from its name and the bytes of a file.
    ///
    /// # Errors
    ///
    /// A diagnostic that says what the file is, or has the line and column of the first byte that
    /// is not UTF-8.
    pub fn from_bytes(name: impl Into<Box<str>>, bytes: Vec<u8>) -> Result<Self, Diagnostic> {
        let bytes = match String::from_utf8(bytes) {
            Ok(text) => return Ok(Self::new(name, text)),
            Err(error) => error,
        };
        let offset = bytes.utf8_error().valid_up_to();
        let bytes = bytes.into_bytes();
        let what = kind(&bytes);
        // Invalid bytes become replacement characters. None precedes the first error, so its line
        // and column are those in the file.
        let source = Arc::new(Self::new(name, String::from_utf8_lossy(&bytes)));
        Err(match what {
            Some(what) => fault(what, source),
            None => {
                let message = format!("byte {:#04x} is not UTF-8", bytes[offset]);
                Diagnostic::new(DiagnosticKind::Syntax, message, Location::at(&source, offset, 1))
            }
        })
    }
}

/// Returns a diagnostic if a source is some other kind of file. It is called only for sources with
/// errors.
pub(crate) fn instead_of_text(source: &Arc<Source>) -> Option<Diagnostic> {
    kind(source.text.as_bytes()).map(|what| fault(what, source.clone()))
}

fn fault(what: &str, source: Arc<Source>) -> Diagnostic {
    let message = format!("this is not text in UTF-8, but {what}");
    Diagnostic::new(DiagnosticKind::Syntax, message, Location::whole(source))
}

/// Returns the kind of a file that is not text.
fn kind(bytes: &[u8]) -> Option<&'static str> {
    let start = &bytes[..bytes.len().min(512)];
    let zeros = |first: usize| start.iter().skip(first).step_by(2).filter(|byte| **byte == 0).count();
    let most = start.len() / 4;
    match start {
        [b'\x7f', b'E', b'L', b'F', ..] => Some("an ELF file: an image, an object file or a program"),
        [0x1f, 0x8b, ..] => Some("compressed with gzip"),
        [0x28, 0xb5, 0x2f, 0xfd, ..] => Some("compressed with zstd"),
        [0xff, 0xfe, ..] | [0xfe, 0xff, ..] => Some("text in UTF-16"),
        [] => None,
        _ if is_binary(start) => Some("a module in binary form, which `Modules` reads"),
        _ if start.len() >= 4 && (zeros(0) > most) != (zeros(1) > most) => Some("text in UTF-16"),
        _ if start.contains(&0) => Some("a file with zero bytes"),
        _ => None,
    }
}
