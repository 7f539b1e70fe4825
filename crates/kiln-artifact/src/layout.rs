//! The byte format: a header, then tables.
//!
//! | bytes | content, all numbers little-endian |
//! |---|---|
//! | 8 | magic, `KilnArt\0` |
//! | 4 | format version, `u32` |
//! | 4 | number of tables, `u32` |
//! | 8 | total length, `u64` |
//! | 4 for each table | its length in bytes, `u32` |
//! | | the tables, in the order of [`Table::ALL`], without gaps |
//!
//! All together have less than 4 GiB: a program of that size could not be linked.

use zerocopy::FromBytes;
use zerocopy::little_endian::{U32, U64};

use crate::ArtifactError;

/// The version of the byte format. Artifacts of any other version are rejected.
pub const FORMAT_VERSION: u32 = 8;
const MAGIC: [u8; 8] = *b"KilnArt\0";
/// The number of tables of an artifact.
pub(crate) const TABLES: usize = Table::ALL.len();
/// The number of bytes before the first table.
pub(crate) const HEADER_LEN: usize = 8 + 4 + 4 + 8 + 4 * TABLES;

macro_rules! tables {
    ($($name:ident, $text:literal;)*) => {
        /// A table of the byte format. Variants are in the order of the tables in the bytes.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[expect(missing_docs, reason = "each is documented at its accessor in `Artifact`")]
        pub enum Table { $($name),* }

        impl Table {
            /// Every table, in order.
            pub const ALL: &[Self] = &[$(Self::$name),*];

            /// Returns the table's name, for messages and tools.
            pub fn name(self) -> &'static str {
                match self { $(Self::$name => $text),* }
            }
        }
    };
}

tables! {
    Summary, "summary";
    Strings, "strings";
    Features, "features";
    Signatures, "signatures";
    Symbols, "symbols";
    Functions, "functions";
    Text, "text";
    ReadOnly, "read-only data";
    Writable, "writable data";
    TextRelocs, "text relocations";
    ReadOnlyRelocs, "read-only relocations";
    WritableRelocs, "writable relocations";
    Cie, "common unwind information";
    Unwind, "unwind rows";
    Traps, "traps";
    SourceRanges, "source locations";
    CallSites, "call sites";
    Handlers, "exception handlers";
    StackMaps, "stack maps";
    StackMapEntries, "stack map entries";
    PatchableCalls, "patchable calls";
    Nops, "no-ops";
    References, "references";
    ResolvedCalls, "resolved calls";
    NamedData, "named data";
    SourceFiles, "source files";
    Lines, "lines";
    LabelledFunctions, "functions with labels";
    Labels, "labels";
    Variables, "variables";
}

impl Table {
    /// Returns an error for the record with this index.
    pub(crate) fn error(self, record: usize, what: &'static str) -> ArtifactError {
        ArtifactError::new(self.name(), record, what)
    }
}

/// Returns an error for the header.
pub(crate) fn header_error(what: &'static str) -> ArtifactError {
    ArtifactError::new("header", 0, what)
}

/// Appends the header of an artifact whose tables have these lengths.
pub(crate) fn write_header(out: &mut Vec<u8>, lens: &[(Table, usize); TABLES]) {
    let total = HEADER_LEN + lens.iter().map(|(_, len)| len).sum::<usize>();
    out.extend_from_slice(&MAGIC);
    out.extend_from_slice(&FORMAT_VERSION.to_le_bytes());
    out.extend_from_slice(&(TABLES as u32).to_le_bytes());
    out.extend_from_slice(&(total as u64).to_le_bytes());
    for (expected, (table, len)) in Table::ALL.iter().zip(lens) {
        assert_eq!(expected, table, "tables are written in order");
        let len = u32::try_from(*len).expect("an artifact below 4 GiB");
        out.extend_from_slice(&len.to_le_bytes());
    }
}

/// Checks the header, and returns the end of each table in `bytes`. The first starts after the
/// header, and each other one where the table before it ends. There must be no bytes after the last
/// table.
pub(crate) fn read_header(bytes: &[u8]) -> Result<[u32; TABLES], ArtifactError> {
    let fail = |what| Err(header_error(what));
    if bytes.len() < 8 || bytes[..8] != MAGIC {
        return fail("not a Kiln artifact");
    }
    let Ok((version, rest)) = U32::read_from_prefix(&bytes[8..]) else {
        return fail("truncated");
    };
    if version.get() != FORMAT_VERSION {
        return fail("another format version");
    }
    let Ok((count, rest)) = U32::read_from_prefix(rest) else {
        return fail("truncated");
    };
    if count.get() as usize != TABLES {
        return fail("wrong number of tables");
    }
    let Ok((total, rest)) = U64::read_from_prefix(rest) else {
        return fail("truncated");
    };
    if total.get() != bytes.len() as u64 {
        return fail("length differs from the header");
    }
    let Ok((lens, _)) = <[U32; TABLES]>::read_from_prefix(rest) else {
        return fail("truncated");
    };
    let mut ends = [0; TABLES];
    let mut start = HEADER_LEN as u32;
    for (table_end, len) in ends.iter_mut().zip(lens) {
        let end = start.checked_add(len.get());
        let Some(end) = end.filter(|&end| end as usize <= bytes.len()) else {
            return fail("table outside the artifact");
        };
        *table_end = end;
        start = end;
    }
    if start as usize != bytes.len() {
        return fail("bytes after the last table");
    }
    Ok(ends)
}
