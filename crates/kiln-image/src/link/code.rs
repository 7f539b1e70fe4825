//! Phase `code`: lays out and writes the code tables, `.kiln.code`, from the tables of artifacts.
//!
//! The head comes first, then one piece for each module that has functions, in order of modules.
//! The format, and the content of a piece, are in [`crate::code`].

use kiln_artifact::{Artifact, Table};

use super::layout::Extent;
use super::lists::PerModule;
use super::threads;
use crate::code::{ModuleTables, head_len, write_head};

/// The places of all code tables.
pub(super) struct CodeLayout<'a> {
    /// The tables of each module, and the offset of its piece, in bytes.
    pub(super) modules: PerModule<(ModuleTables, u64)>,
    /// The length of the head.
    pub(super) head: u64,
    size: u64,
    /// The names of the first modules.
    pub(super) names: &'a [&'a str],
    /// The numbers of the first modules, if they are parts of others.
    pub(super) numbers: &'a [u32],
}

impl<'a> CodeLayout<'a> {
    /// Returns a layout without tables, for a program of so many modules.
    #[cfg(feature = "write")]
    pub(super) fn none(modules: usize) -> Self {
        let modules = (0..modules).map(|_| (ModuleTables::default(), 0)).collect();
        Self { modules, head: 0, size: 0, names: &[], numbers: &[] }
    }

    /// Returns the size and alignment of the tables.
    pub(super) fn extent(&self) -> Extent {
        if self.size == 0 { Extent::default() } else { Extent { size: self.size, align: 4 } }
    }

    /// Returns the name of a module; empty if it has none.
    pub(super) fn name(&self, module: usize) -> &'a str {
        self.names.get(module).copied().unwrap_or_default()
    }

    /// Writes all tables, on this thread. `text` are the offsets of the code of all modules.
    pub(super) fn write(&self, artifacts: &[Artifact], text: impl Iterator<Item = u64>) -> Vec<u8> {
        let mut bytes = vec![0; self.size as usize];
        let (head, mut rest) = bytes.split_at_mut(self.head as usize);
        self.write_head(text, head);
        for (number, (artifact, (tables, _))) in artifacts.iter().zip(&self.modules).enumerate() {
            let (piece, tail) = rest.split_at_mut(tables.len as usize);
            tables.write(artifact, self.name(number), piece);
            rest = tail;
        }
        bytes
    }

    /// Writes the head. `text` are the offsets of the code of all modules.
    pub(super) fn write_head(&self, text: impl Iterator<Item = u64>, out: &mut [u8]) {
        let modules = self.modules.iter().zip(text).enumerate();
        let modules = modules.filter(|(_, ((tables, _), _))| tables.len > 0);
        // The casts keep the values: the program is smaller than 2 GiB.
        let number = |number: usize| self.numbers.get(number).copied().unwrap_or(number as u32);
        let records =
            modules.map(|(module, ((_, piece), text))| [text as u32, number(module), *piece as u32]);
        write_head(self.size as u32, records, out);
    }
}

/// Lays out the tables of all modules, in order.
pub(super) fn lay_out<'a>(artifacts: &[Artifact], names: &'a [&'a str], parallel: bool) -> CodeLayout<'a> {
    let name = |module: usize| names.get(module).copied().unwrap_or_default();
    let measure = |module| ModuleTables::measure(&artifacts[module], name(module));
    with_tables(threads::map(parallel, artifacts.len(), measure), names)
}

/// Lays out tables with room for what [`ModuleTables::bound`] says.
pub(super) fn lay_out_bounded<'a>(artifacts: &[Artifact], names: &'a [&'a str]) -> CodeLayout<'a> {
    let name = |module: usize| names.get(module).copied().unwrap_or_default();
    let bounds = artifacts.iter().enumerate();
    with_tables(bounds.map(|(module, artifact)| ModuleTables::bound(artifact, name(module))).collect(), names)
}

fn with_tables<'a>(tables: PerModule<ModuleTables>, names: &'a [&'a str]) -> CodeLayout<'a> {
    let head = match tables.iter().filter(|tables| tables.len > 0).count() {
        0 => 0,
        count => head_len(count),
    };
    let mut size = head;
    let place = |tables: ModuleTables| {
        let start = size;
        size += tables.len;
        (tables, start)
    };
    let modules = tables.into_iter().map(place).collect();
    CodeLayout { modules, head, size, names, numbers: &[] }
}

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
    2 * streams + files + len(Table::Handlers) + len(Table::Strings) + functions
}
