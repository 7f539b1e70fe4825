//! The size of code tables before anything is placed, for `reach`.

use kiln_artifact::{Artifact, Table};

use crate::code::{PIECE_BOUND, row_bound};

/// Returns an upper bound of the size of a module's code tables, in bytes.
pub(super) fn size_bound(artifact: &Artifact) -> u64 {
    let len = |table| artifact.table_bytes(table).len() as u64;
    let streams = len(Table::Traps)
        + len(Table::CallSites)
        + len(Table::SourceRanges)
        + len(Table::StackMaps)
        + len(Table::StackMapEntries)
        + len(Table::Lines);
    // A file has a record, and two texts, which other files may have, too.
    let file = |file| {
        let (name, directory) = artifact.source_file_name(file);
        32 + (name.len() + directory.len()) as u64
    };
    let files: u64 = artifact.source_files().iter().map(file).sum();
    // A number of 4 bytes may take 5, and checkpoints take less than a fifth of a stream. Names may
    // be shared with other tables, but not by functions. A function has a record, and seven numbers
    // of 5 bytes at most.
    let functions = 64 * (artifact.functions().len() as u64 + 1);
    // Each symbol may have a stub, and each address in code may be that of a veneer.
    let stub = |symbol| row_bound(artifact.name_bytes(symbol).len());
    let stubs: u64 = artifact.symbols().iter().map(stub).sum();
    2 * streams + files + len(Table::Handlers) + len(Table::Strings) + functions + stubs + PIECE_BOUND
}
