//! Symbols as ELF stores them, and the full symbol table, `.symtab`, for debuggers and profilers.

use kiln_artifact::record::{Linkage, SymbolKind};
use object::elf::{self, SHN_UNDEF, Sym64};
use object::{Endianness, U16, U32, U64, pod};

use super::dynamic_symbols::{ExportList, is_exported, is_thread_local};
use super::strings::Strings;
use crate::elf64::symbol_info;
use crate::link::{Area, LinkError, Plan, stub_size};

/// A symbol of a 64-bit file.
pub(crate) struct ElfSymbol {
    /// Offset of its name in the string table.
    pub(crate) name: u32,
    /// Binding and type.
    pub(crate) info: u8,
    /// Visibility.
    pub(crate) other: u8,
    /// Number of its section, or an `SHN_*` constant.
    pub(crate) section: u16,
    pub(crate) value: u64,
    pub(crate) size: u64,
}

impl ElfSymbol {
    /// The null symbol, which is the first symbol of every table.
    pub(crate) const NULL: Self =
        Self { name: 0, info: 0, other: elf::STV_DEFAULT, section: SHN_UNDEF, value: 0, size: 0 };

    /// Appends the symbol to a table.
    pub(crate) fn write(self, endian: Endianness, table: &mut Vec<u8>) {
        let Self { name, info, other, section, value, size } = self;
        let symbol = Sym64 {
            st_name: U32::new(endian, name),
            st_info: info,
            st_other: other,
            st_shndx: U16::new(endian, section),
            st_value: U64::new(endian, value),
            st_size: U64::new(endian, size),
        };
        table.extend_from_slice(pod::bytes_of(&symbol));
    }
}

/// A symbol of the full table. Its section and value follow from area and offset once the file is
/// laid out.
pub(super) struct FullSymbol {
    /// Offset of its name in the string table.
    pub(super) name: u32,
    pub(super) info: u8,
    pub(super) area: Area,
    pub(super) offset: u64,
    pub(super) size: u64,
}

/// The full symbol table: all named definitions, local ones included.
pub(super) struct FullSymbols {
    /// The symbols, without the null symbol; local ones first, as ELF requires.
    pub(super) list: Vec<FullSymbol>,
    /// Number of local symbols.
    pub(super) local_count: usize,
    /// `.strtab`.
    pub(super) names: Vec<u8>,
}

impl FullSymbols {
    /// Returns the full symbol table of a program that exports what `list` accepts.
    ///
    /// # Errors
    ///
    /// [`LinkError::TooLarge`] if the names take more than 4 GiB.
    pub(super) fn of(plan: &Plan<'_>, list: &ExportList<'_>) -> Result<Self, LinkError> {
        let (mut locals, mut globals) = (Vec::new(), Vec::new());
        for (number, artifact) in plan.artifacts().iter().enumerate() {
            for (index, symbol) in artifact.symbols().iter().enumerate() {
                let name = artifact.name(symbol);
                let location = plan.locate(number, symbol.section(), symbol.offset.get());
                let Some((area, offset)) = location.filter(|_| !name.is_empty() && !name.contains('\0'))
                else {
                    continue;
                };
                // The code of a replaceable function is not what its name means everywhere, but
                // debuggers and profilers must know it by that name.
                let replaceable = symbol.linkage() == Linkage::Replaceable;
                let global = !replaceable
                    && plan.is_definition(number, index)
                    && is_exported(symbol.linkage())
                    && list.accepts(name);
                let kind = match symbol.kind() {
                    SymbolKind::Function => elf::STT_FUNC,
                    _ if is_thread_local(plan, area, offset) => elf::STT_TLS,
                    _ => elf::STT_OBJECT,
                };
                let binding = if global { elf::STB_GLOBAL } else { elf::STB_LOCAL };
                let list = if global { &mut globals } else { &mut locals };
                let (info, size) = (symbol_info(binding, kind), symbol.size.get());
                list.push((name, FullSymbol { name: 0, info, area, offset, size }));
            }
        }
        for definition in plan.definitions() {
            let Some(offset) = definition.indirection.and_then(|indirection| indirection.stub) else {
                continue;
            };
            if definition.name.starts_with('\0') {
                continue;
            }
            let global = list.accepts(definition.name);
            let info = symbol_info(if global { elf::STB_GLOBAL } else { elf::STB_LOCAL }, elf::STT_FUNC);
            let (area, size) = (Area::Text, stub_size(plan.arch()));
            let list = if global { &mut globals } else { &mut locals };
            list.push((definition.name, FullSymbol { name: 0, info, area, offset, size }));
        }
        // The others have the names that debuggers give to the entries of a PLT.
        let stubs = plan.stubs().filter(|stub| !stub.is_function && !stub.name.is_empty());
        let stubs: Vec<_> = stubs.map(|stub| (format!("{}@plt", stub.name), stub)).collect();
        locals.extend(stubs.iter().map(|(name, stub)| {
            let (info, area) = (symbol_info(elf::STB_LOCAL, elf::STT_FUNC), Area::Text);
            (name.as_str(), FullSymbol { name: 0, info, area, offset: stub.offset, size: stub.size })
        }));
        let local_count = locals.len();
        let mut names = Strings::new();
        let named = locals.into_iter().chain(globals);
        let list = named.map(|(name, symbol)| FullSymbol { name: names.add(name), ..symbol }).collect();
        Ok(Self { list, local_count, names: names.finish()? })
    }
}
