//! Recognizes, by their first bytes, files that were given to the wrong command.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::Path;

/// The number of bytes at the start of a file that are enough to recognize its kind.
pub(super) const KIND_LENGTH: usize = 512;

/// Reads the bytes at the start of a file that are enough to recognize its kind.
pub(crate) fn start_of(path: &Path) -> io::Result<Vec<u8>> {
    let mut start = Vec::new();
    File::open(path)?.take(KIND_LENGTH as u64).read_to_end(&mut start)?;
    Ok(start)
}

/// A kind of file.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Kind {
    /// The kind's name, with an article.
    pub(crate) name: &'static str,
    /// The command that takes such files, or other advice.
    advice: &'static str,
}

impl Kind {
    /// Returns a sentence like `it is an object file (ELF); a linker takes it`.
    pub(crate) fn sentence(&self) -> String {
        format!("it is {}; {}", self.name, self.advice)
    }

    /// Whether the file is an artifact.
    pub(crate) fn is_artifact(&self) -> bool {
        self.name.contains("artifact")
    }

    /// Whether the file is an entry of a cache.
    pub(crate) fn is_entry(&self) -> bool {
        self.name.contains("entry")
    }

    /// Whether the file may be an image, perhaps a damaged one.
    pub(crate) fn may_be_image(&self) -> bool {
        self.name.contains("ELF") && !self.name.contains("object file")
    }

    /// Returns text like `not a module but an object file (ELF); a linker takes it`.
    pub(super) fn instead_of_module(&self) -> String {
        format!("not a module but {}; {}", self.name, self.advice)
    }
}

/// The kinds: their first bytes, names and advice.
const KINDS: &[(&[u8], &str, &str)] = &[
    (b"KilnEnt\0", "an entry of a cache", "`cache` takes the folder that it is in, `diff` compares two"),
    (b"KilnSub\0", "a last build in a cache", "`cache` takes the folder that it is in"),
    (b"KilnArt\0", "an artifact, a compiled module", "`build` links modules to an image"),
    (b"!<arch>\n", "an archive", "`ar x` unpacks it"),
    (b"!<thin>\n", "an archive", "`ar t` lists its files"),
    (b"\x1f\x8b", "compressed with gzip", "`gunzip` unpacks it"),
    (b"\x28\xb5\x2f\xfd", "compressed with zstd", "`unzstd` unpacks it"),
    (b"\xfd7zXZ\0", "compressed with xz", "`unxz` unpacks it"),
    (b"BZh", "compressed with bzip2", "`bunzip2` unpacks it"),
    (b"PK\x03\x04", "a zip archive", "`unzip` unpacks it"),
    (b"BC\xc0\xde", "LLVM bitcode", "Kiln reads Cranelift IR"),
    (b"\0asm", "WebAssembly", "Kiln reads Cranelift IR"),
    (b"\xcf\xfa\xed\xfe", "a Mach-O file", "Kiln makes and loads ELF images"),
    (b"MZ\x90\0", "a Windows program", "Kiln makes and loads ELF images"),
];

/// Returns the kind of a file that is not a module, if its first bytes are known.
pub(crate) fn binary_kind(start: &[u8]) -> Option<Kind> {
    if let Some(kind) = elf(start) {
        return Some(kind);
    }
    let found = KINDS.iter().find(|(first, ..)| start.starts_with(first));
    let found = found.map(|&(_, name, advice)| Kind { name, advice });
    let is_tar = start.get(257..262) == Some(b"ustar");
    found.or(is_tar.then_some(Kind { name: "a tar archive", advice: "`tar x` unpacks it" }))
}

/// Returns the kind of a file that is not an image, if it is known.
pub(crate) fn kind_of_no_image(start: &[u8]) -> Option<Kind> {
    if !start.is_empty() && kiln::ir::is_binary(start) {
        let advice = "`build` makes an image of it, `run` executes it";
        return Some(Kind { name: "a module in binary form", advice });
    }
    // The last character may be cut off.
    let text = || match std::str::from_utf8(start) {
        Ok(text) => !text.contains('\0') && !text.is_empty(),
        Err(error) => error.error_len().is_none(),
    };
    let name = "text";
    let advice = "`build` makes an image of a module, `run` executes it";
    binary_kind(start).or_else(|| text().then_some(Kind { name, advice }))
}

fn elf(start: &[u8]) -> Option<Kind> {
    if !start.starts_with(b"\x7fELF") {
        return None;
    }
    // The field for the type of an ELF file has the byte order of the file.
    let kind = match (start.get(5), start.get(16..18)) {
        (Some(1), Some(&[kind, 0])) | (Some(2), Some(&[0, kind])) => kind,
        _ => 0,
    };
    let (name, advice) = match kind {
        1 => ("an object file (ELF)", "a linker takes it"),
        2 => ("a program (ELF)", "it can be executed"),
        3 => ("an image or another shared object (ELF)", "`inspect` and `call` take images"),
        4 => ("a core dump (ELF)", "a debugger takes it"),
        _ => ("an ELF file", "`inspect` and `call` take images"),
    };
    Some(Kind { name, advice })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_by_their_first_bytes() {
        let name = |start: &[u8]| kind_of_no_image(start).map(|kind| kind.name);
        let elf = |kind: u8| [&b"\x7fELF\x02\x01\x01"[..], &[0; 9], &[kind, 0]].concat();
        assert_eq!(name(&elf(1)), Some("an object file (ELF)"));
        assert_eq!(name(&elf(3)), Some("an image or another shared object (ELF)"));
        assert_eq!(name(b"\x7fELF"), Some("an ELF file"));
        assert_eq!(name(b"\x1f\x8b\x08"), Some("compressed with gzip"));
        assert_eq!(name(b"KilnIR\0\0\x02"), Some("a module in binary form"));
        assert_eq!(name("function %größe".as_bytes()), Some("text"));
        assert_eq!(name(&"ö".as_bytes()[..1]), Some("text"));
        assert_eq!(name(&[&[0; 257][..], b"ustar"].concat()), Some("a tar archive"));
        assert_eq!([name(b""), name(&[0; 512]), name(b"\xff\xff")], [None; 3]);
    }
}
