//! The names of functions and data in errors. They are looked up only when there is an error, so a
//! link without errors does no work for them.

use std::cell::OnceCell;

use kiln_artifact::Artifact;
use kiln_artifact::record::{NONE, SectionKind};

/// The largest number of bytes of a name that an error contains. Longer names are shortened,
/// because many errors may name the same function.
const MAX_NAME: usize = 200;

fn shortened(name: &str) -> Box<str> {
    let end = name.floor_char_boundary(MAX_NAME);
    if end == name.len() { name.into() } else { format!("{}...", &name[..end]).into() }
}

fn function_name(artifact: &Artifact, function: usize) -> Box<str> {
    let symbol = artifact.functions().get(function).map(|function| function.symbol.get() as usize);
    let symbol = symbol.and_then(|symbol| artifact.symbols().get(symbol));
    symbol.map_or("".into(), |symbol| shortened(artifact.name(symbol)))
}

/// Returns the number of the function that contains the byte at `offset` in the code.
fn number_at(artifact: &Artifact, offset: u64) -> Option<usize> {
    // Functions are in order of address.
    let functions = artifact.functions();
    let number =
        functions.partition_point(|function| u64::from(function.start.get()) <= offset).checked_sub(1)?;
    let function = &functions[number];
    (offset - u64::from(function.start.get()) < function.len.get().into()).then_some(number)
}

/// Returns the name of the function that contains the byte at `offset` in the code; empty if there
/// is no such function or it has no name.
pub(super) fn function_at(artifact: &Artifact, offset: u64) -> Box<str> {
    number_at(artifact, offset).map_or("".into(), |number| function_name(artifact, number))
}

/// The functions of a module that use its symbols.
pub(super) struct Users<'a> {
    artifact: &'a Artifact,
    /// The number of the first function that uses each symbol, or [`NONE`]. Computed at the first
    /// error.
    first: OnceCell<Vec<u32>>,
}

impl<'a> Users<'a> {
    pub(super) fn new(artifact: &'a Artifact) -> Self {
        Self { artifact, first: OnceCell::new() }
    }

    /// Returns the name of the first function that uses the symbol with this number; empty if no
    /// function uses it or the function has no name.
    pub(super) fn of(&self, symbol: usize) -> Box<str> {
        match self.first.get_or_init(|| self.find())[symbol] {
            NONE => "".into(),
            function => function_name(self.artifact, function as usize),
        }
    }

    fn find(&self) -> Vec<u32> {
        let artifact = self.artifact;
        let mut first = vec![NONE; artifact.symbols().len()];
        let mut note = |symbol: u32, function: usize| {
            if let Some(first) = first.get_mut(symbol as usize).filter(|first| **first == NONE) {
                *first = function as u32;
            }
        };
        for (number, function) in artifact.functions().iter().enumerate() {
            let (start, len) = (function.references_start.get(), function.references_len.get());
            let own = artifact.references().iter().skip(start as usize).take(len as usize);
            own.for_each(|symbol| note(symbol.get(), number));
        }
        // Machine code that a client supplied has no list of references.
        for reloc in artifact.text_relocs() {
            if let Some(number) = number_at(artifact, reloc.offset.get()) {
                note(reloc.symbol.get(), number);
            }
        }
        first
    }
}

/// Returns the name and size of the largest symbol that a module defines in `section`.
pub(super) fn largest(artifact: &Artifact, section: SectionKind) -> Option<(Box<str>, u64)> {
    let own = artifact.symbols().iter().filter(|symbol| symbol.section() == section);
    let largest = own.max_by_key(|symbol| symbol.size.get())?;
    Some((shortened(artifact.name(largest)), largest.size.get()))
}
