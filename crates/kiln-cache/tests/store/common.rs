//! Helpers of the tests of stores: entries whose content follows from their number, and the size of
//! long tests.
//!
//! Long tests are small unless the environment variable `KILN_CASES` holds a factor;
//! `KILN_CASES=100` is the full size.

use kiln_artifact::record::{FunctionRecord, Linkage, NONE, SectionKind, SymbolKind, SymbolRecord};
use kiln_artifact::{Artifact, Contents};
use kiln_cache::{Entry, FunctionParts, Key, KeyParts, Recipe};

/// `small` times the factor in `KILN_CASES`, but at most `full`.
pub(crate) fn cases(small: usize, full: usize) -> usize {
    let factor = std::env::var("KILN_CASES").ok().and_then(|text| text.parse().ok()).unwrap_or(1);
    small.saturating_mul(factor).min(full)
}

/// A folder, in memory if the system has one, for tests that make very many files.
pub(crate) fn quick_folder() -> tempfile::TempDir {
    tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap()
}

/// The recipe with this number.
pub(crate) fn recipe(n: u32) -> Recipe {
    let mut fingerprint = [0; 32];
    fingerprint[..4].copy_from_slice(&n.to_le_bytes());
    KeyParts {
        fingerprint: &fingerprint,
        names: b"names",
        target: "x86_64-unknown-linux-gnu",
        settings: "opt_level=speed is_pic=1",
        producer: "test 1.0",
        revision: 1,
        abi: b"abi",
    }
    .recipe()
}

/// The key with this number.
pub(crate) fn key(n: u32) -> Key {
    recipe(n).key()
}

/// `len` bytes that follow from `n` and `version`.
pub(crate) fn noise(n: u32, version: u32, len: usize) -> Vec<u8> {
    let mut state = u64::from(n) << 32 | u64::from(version);
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 56) as u8
    };
    (0..len).map(|_| next()).collect()
}

/// An artifact of one function whose code is `text`.
pub(crate) fn artifact(text: &[u8]) -> Artifact {
    let mut contents = Contents::default();
    let name = contents.string("f");
    contents.symbols = vec![SymbolRecord {
        name,
        offset: 0.into(),
        size: (text.len() as u64).into(),
        signature: NONE.into(),
        kind: SymbolKind::Function as u8,
        linkage: Linkage::Export as u8,
        section: SectionKind::Text as u8,
        libcall: 0,
    }];
    contents.functions = vec![FunctionRecord {
        symbol: 0.into(),
        start: 0.into(),
        len: u32::try_from(text.len()).unwrap().into(),
        unwind_start: 0.into(),
        unwind_len: 0.into(),
        align: 1.into(),
        ..Default::default()
    }];
    contents.text = text.to_vec();
    contents.finish()
}

/// The entry with this number, in one of several versions that have the same key, with `len` bytes
/// of code.
pub(crate) fn entry(n: u32, version: u32, len: usize) -> Entry {
    let function = FunctionParts {
        body: &n.to_le_bytes(),
        references: b"",
        target: "t",
        settings: "s",
        producer: "p",
        revision: 1,
        abi: b"",
    };
    Entry {
        recipe: recipe(n),
        functions: [function.key()].into(),
        artifact: artifact(&noise(n, version, len)),
    }
}

/// Whether an entry is the one with this number, in any version and length.
pub(crate) fn is_right(n: u32, found: &Entry) -> bool {
    let text = found.artifact.text();
    found.recipe == recipe(n)
        && *found.functions == *entry(n, 0, 0).functions
        && (0..4).any(|version| noise(n, version, text.len()) == text)
}
