//! The items of a file as they are read, before their names are resolved.

use std::borrow::Cow;

use cranelift_codegen::binemit::Reloc;
use cranelift_codegen::ir::{LibCall, RelSourceLoc, Signature, SourceLoc, ValueLabelStart};

use crate::data::Init;
use crate::function::InlineHint;
use crate::lines::SourceFile;
use crate::symbol::{Linkage, SymbolKind};
use crate::variables::Variable;

/// A top-level item.
pub(super) enum Item<'t> {
    Function(FunctionItem<'t>),
    Data(DataItem<'t>),
    Global(GlobalItem<'t>),
    Code(CodeItem<'t>),
    Alias(AliasItem<'t>),
    Import(ImportItem<'t>),
    Debug(DebugItem<'t>),
    Lines(LinesItem),
}

impl<'t> Item<'t> {
    /// Returns the function, if the item is a function.
    pub(super) fn function(&self) -> Option<&FunctionItem<'t>> {
        match self {
            Self::Function(item) => Some(item),
            _ => None,
        }
    }
}

/// The range of an item in the text.
#[derive(Clone, Copy)]
pub(super) struct ItemRange {
    pub(super) start: usize,
    pub(super) end: usize,
    /// The number of comments in the file that start before the item's end, not counting comments
    /// in functions.
    pub(super) comments: usize,
}

/// The text of a function.
pub(super) struct FunctionItem<'t> {
    pub(super) linkage: Linkage,
    pub(super) inline: InlineHint,
    /// The position of the `function` keyword.
    pub(super) start: usize,
    /// The line of the `function` keyword.
    pub(super) line: u32,
    /// The text from the `function` keyword to the closing brace.
    pub(super) text: &'t str,
    /// Start and end of each comment in it, as positions in the file.
    pub(super) comments: Vec<(usize, usize)>,
}

/// `global %name = "key"`.
pub(super) struct GlobalItem<'t> {
    pub(super) name: Cow<'t, str>,
    pub(super) at: usize,
    pub(super) line: u32,
    pub(super) key: Box<str>,
}

/// `data %name { .. }`.
pub(super) struct DataItem<'t> {
    pub(super) linkage: Linkage,
    pub(super) name: Cow<'t, str>,
    pub(super) at: usize,
    pub(super) line: u32,
    pub(super) writable: bool,
    pub(super) align: u32,
    pub(super) section: Option<String>,
    pub(super) init: Init,
    pub(super) addresses: Vec<AddressItem<'t>>,
}

/// `addr %name + 8`.
pub(super) struct AddressItem<'t> {
    pub(super) offset: u64,
    pub(super) name: Cow<'t, str>,
    pub(super) line: u32,
    pub(super) addend: i64,
}

/// `symbol %name = "any name"`, or `anonymous %name`.
pub(super) struct AliasItem<'t> {
    pub(super) name: Cow<'t, str>,
    pub(super) at: usize,
    pub(super) line: u32,
    /// The name for linking; `None` if there is none.
    pub(super) of: Option<Box<str>>,
}

/// `import function %name(i64)`, `import data %name`.
pub(super) struct ImportItem<'t> {
    pub(super) name: Cow<'t, str>,
    pub(super) at: usize,
    pub(super) line: u32,
    pub(super) kind: SymbolKind,
    pub(super) signature: Option<Signature>,
}

/// `code %name(i64) { .. }`.
pub(super) struct CodeItem<'t> {
    pub(super) linkage: Linkage,
    pub(super) name: Cow<'t, str>,
    pub(super) at: usize,
    pub(super) line: u32,
    pub(super) signature: Signature,
    pub(super) align: u32,
    pub(super) bytes: Vec<u8>,
    /// In the order of the text.
    pub(super) relocs: Vec<RelocItem<'t>>,
}

/// `reloc x86_pcrel4 at 3 %name - 4`.
pub(super) struct RelocItem<'t> {
    pub(super) at: usize,
    pub(super) offset: u32,
    pub(super) kind: Reloc,
    pub(super) target: RelocTarget<'t>,
    pub(super) addend: i64,
}

/// The target of a relocation.
pub(super) enum RelocTarget<'t> {
    /// A name, and its line.
    Name(Cow<'t, str>, u32),
    Routine(LibCall),
    Here(u32),
}

/// `lines "name" { .. }`.
pub(super) struct LinesItem {
    pub(super) at: usize,
    pub(super) file: SourceFile,
    /// Position in the text, location, line, column.
    pub(super) entries: Vec<(usize, SourceLoc, u32, u32)>,
}

/// `debug %name { .. }`.
pub(super) struct DebugItem<'t> {
    pub(super) name: Cow<'t, str>,
    pub(super) at: usize,
    pub(super) base: Option<SourceLoc>,
    pub(super) labels: Option<Vec<(u32, usize, DebugLabel)>>,
    /// In the order of the text, each with its position.
    pub(super) variables: Vec<(usize, Variable)>,
}

/// The label that a `debug` item gives to a value.
pub(super) enum DebugLabel {
    Nothing,
    Start(ValueLabelStart),
    Alias(RelSourceLoc, u32),
}
