//! Phase `code`: lays out and writes the code tables, `.kiln.code`, from the tables of artifacts.
//!
//! The head comes first, then one piece for each module that has functions, in order of modules,
//! then the piece of the stubs that all modules share, which is made when it is laid out.
//! The format, and the content of a piece, are in [`crate::code`].

use kiln_artifact::Artifact;

use super::layout::Extent;
use super::lists::PerModule;
use super::stubs::StubRows;
use super::threads;
use crate::code::{ModuleTables, NO_MODULE, head_len, stub_piece, write_head};

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
    pub(super) stubs: StubRows<'a>,
    /// The piece of shared stubs, and its offset, in bytes.
    pub(super) stub_piece: (Vec<u8>, u64),
}

impl<'a> CodeLayout<'a> {
    /// Returns a layout without tables, for a program of so many modules.
    #[cfg(feature = "write")]
    pub(super) fn none(modules: usize) -> Self {
        let modules = (0..modules).map(|_| (ModuleTables::default(), 0)).collect();
        let stubs = StubRows::default();
        Self { modules, head: 0, size: 0, names: &[], numbers: &[], stubs, stub_piece: (Vec::new(), 0) }
    }

    /// Returns the size and alignment of the tables.
    pub(super) fn extent(&self) -> Extent {
        if self.size == 0 { Extent::default() } else { Extent { size: self.size, align: 4 } }
    }

    /// Returns the name of a module; empty if it has none.
    pub(super) fn name(&self, module: usize) -> &'a str {
        name(self.names, module)
    }

    /// Writes all tables, on this thread. `text` are the offsets of the code of all modules.
    pub(super) fn write(&self, artifacts: &[Artifact], text: impl Iterator<Item = u64>) -> Vec<u8> {
        let mut bytes = vec![0; self.size as usize];
        let (head, mut rest) = bytes.split_at_mut(self.head as usize);
        self.write_head(text, head);
        for (number, (artifact, (tables, _))) in artifacts.iter().zip(&self.modules).enumerate() {
            let (piece, tail) = rest.split_at_mut(tables.len as usize);
            tables.write(artifact, self.name(number), self.stubs.of_module(number), piece);
            rest = tail;
        }
        rest.copy_from_slice(&self.stub_piece.0);
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
        let (bytes, piece) = &self.stub_piece;
        let stubs = [self.stubs.shared_start as u32, NO_MODULE, *piece as u32];
        write_head(self.size as u32, records.chain((!bytes.is_empty()).then_some(stubs)), out);
    }
}

/// Lays out the tables of all modules, in order, and of stubs.
pub(super) fn lay_out<'a>(
    artifacts: &[Artifact],
    names: &'a [&'a str],
    stubs: StubRows<'a>,
    parallel: bool,
) -> CodeLayout<'a> {
    let measure =
        |module| ModuleTables::measure(&artifacts[module], name(names, module), stubs.of_module(module));
    with_tables(threads::map(parallel, artifacts.len(), measure), names, stubs)
}

/// Lays out tables with room for what [`ModuleTables::bound`] says.
pub(super) fn lay_out_bounded<'a>(
    artifacts: &[Artifact],
    names: &'a [&'a str],
    stubs: StubRows<'a>,
) -> CodeLayout<'a> {
    let bound =
        |(module, artifact)| ModuleTables::bound(artifact, name(names, module), stubs.of_module(module));
    with_tables(artifacts.iter().enumerate().map(bound).collect(), names, stubs)
}

fn name<'a>(names: &[&'a str], module: usize) -> &'a str {
    names.get(module).copied().unwrap_or_default()
}

fn with_tables<'a>(
    tables: PerModule<ModuleTables>,
    names: &'a [&'a str],
    stubs: StubRows<'a>,
) -> CodeLayout<'a> {
    let bytes = stub_piece(&stubs.shared);
    let pieces = tables.iter().filter(|tables| tables.len > 0).count() + usize::from(!bytes.is_empty());
    let head = if pieces == 0 { 0 } else { head_len(pieces) };
    let mut size = head;
    let place = |tables: ModuleTables| {
        let start = size;
        size += tables.len;
        (tables, start)
    };
    let modules = tables.into_iter().map(place).collect();
    let stub_piece = (bytes, size);
    size += stub_piece.0.len() as u64;
    CodeLayout { modules, head, size, names, numbers: &[], stubs, stub_piece }
}
