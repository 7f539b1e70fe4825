//! The contents of an image of any architecture, as plain data for tools.

use std::sync::Arc;

use kiln_globals::{GlobalAccess, SlotKey};
use object::elf::{self, FileHeader64};
use object::read::elf::{FileHeader, SectionHeader};
use object::{Endianness, SectionIndex};

use super::view::View;
use crate::arch::Arch;
use crate::base::ImageId;
use crate::code::{CodeTables, Location};
use crate::error::LoadError;

/// The contents of an image that are known without running it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ImageInfo {
    /// The architecture.
    pub arch: Arch,
    /// The target triple.
    pub triple: Box<str>,
    /// The version of the image format.
    pub format_version: u32,
    /// The version of Kiln that linked the image.
    pub kiln_version: Box<str>,
    /// The compilers of the modules, with versions, each once.
    pub producers: Vec<Box<str>>,
    /// The CPU features that the code may use, by Cranelift's setting names, sorted.
    pub features: Vec<Box<str>>,
    /// The levels of the processor that functions have bodies for, the lowest first; none if all
    /// code is the same for all.
    pub levels: Vec<LevelInfo>,
    /// The bodies of functions for other levels than the lowest, in order of levels and slots.
    pub versions: Vec<VersionInfo>,
    /// Length of the file in bytes.
    pub file_len: u64,
    /// The address that the image is made for; 0 if a loader chooses it.
    pub base: u64,
    /// Sections in order of the file.
    pub sections: Vec<SectionInfo>,
    /// Exported functions and data, in order of the dynamic symbol table.
    pub exports: Vec<ExportInfo>,
    /// External slots, in order of the slot array.
    pub slots: Vec<SlotInfo>,
    /// Number of internal slots, which follow the external ones.
    pub internal_slots: u64,
    /// Number of pointers that are the load address plus a constant: data and internal slots.
    pub relative_pointers: u64,
    /// Number of pointers in data that are the value of a slot plus a constant.
    pub symbolic_pointers: u64,
    /// How the code reaches globals and functions of the host: directly if that of any module does.
    pub globals: GlobalAccess,
    /// The id, by which layers name the image.
    pub id: ImageId,
    /// The images that this one is a layer on, in the order in which they are loaded.
    pub bases: Vec<BaseInfo>,
    /// The functions of bases that have new code, in order of their first use.
    pub replacements: Vec<ReplacementInfo>,
    /// Number of addresses in code that the loader writes.
    pub text_patches: u64,
    /// The distance of the code from the load address, in bytes.
    text: u64,
    code_tables: Box<[u8]>,
}

/// A level of the processor.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct LevelInfo {
    /// Its name, such as `x86-64-v3`.
    pub name: Box<str>,
    /// The CPU features that its code may use, by Cranelift's setting names, sorted.
    pub features: Vec<Box<str>>,
}

/// The body of a function for a level of the processor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct VersionInfo {
    /// The number of the level in [`ImageInfo::levels`].
    pub level: usize,
    /// The distance of the function's slot from the load address, in bytes.
    pub slot: u64,
    /// The distance of the code from the load address, in bytes.
    pub code: u64,
}

/// A section.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct SectionInfo {
    /// Its name.
    pub name: Box<str>,
    /// Distance from the load address, in bytes; 0 if it is not loaded.
    pub address: u64,
    /// Offset in the file, in bytes.
    pub offset: u64,
    /// Size in bytes.
    pub size: u64,
    /// Whether it is in memory when the image is loaded.
    pub loaded: bool,
    /// Whether the program or the loader writes it.
    pub writable: bool,
    /// Whether it is code.
    pub executable: bool,
}

/// The kind of an export.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SymbolType {
    /// Code.
    Function,
    /// Data.
    Data,
}

/// An exported symbol.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ExportInfo {
    /// Its name.
    pub name: Box<str>,
    /// Function or data.
    pub kind: SymbolType,
    /// A function's type, as `kiln_artifact::Signature` prints it. Functions of the same type
    /// share the string.
    pub signature: Option<Arc<str>>,
    /// Distance from the load address, in bytes.
    pub address: u64,
    /// Size in bytes.
    pub size: u64,
    /// The distance of its slot from the load address, in bytes, if it is a replaceable function.
    /// `address` and `size` are then those of the stub that jumps through the slot.
    pub replaceable: Option<u64>,
}

/// An external slot.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct SlotInfo {
    /// The global or symbol whose address it must hold.
    pub key: SlotKey,
    /// The type of the function, if it is a function and all modules agree on its type. Slots of
    /// the same type share the string.
    pub signature: Option<Arc<str>>,
    /// The position of the base that fills the slot, if one does.
    pub base: Option<u32>,
}

/// An image that another one is a layer on.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct BaseInfo {
    /// The name of its file.
    pub name: Box<str>,
    /// Its id.
    pub id: ImageId,
}

/// A function of a base that has new code.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ReplacementInfo {
    /// Its name.
    pub name: Box<str>,
    /// The position of the base.
    pub base: u32,
    /// The distance of the new code from the load address, in bytes.
    pub code: u64,
}

impl ImageInfo {
    /// Reads the whole file of an image. Contents are not compared with their checksums;
    /// `verify_bytes` does that. Time and memory are at most proportional
    /// to the length of `bytes`, even if they are malformed.
    ///
    /// # Errors
    ///
    /// [`LoadError`] if the bytes are not an image of this format version, or only a part of one.
    pub fn parse(bytes: &[u8]) -> Result<Self, LoadError> {
        let view = View::of_file(bytes)?;
        let (note, head, tables) = (view.note, view.note.head, view.tables());
        let note_offset = view.note_offset;
        let text = |text| {
            note.text(text)
                .map(Box::<str>::from)
                .ok_or(LoadError::malformed("bad text in the note", note_offset))
        };
        let texts =
            |list: &[crate::note::Text]| list.iter().map(|&item| text(item)).collect::<Result<Vec<_>, _>>();
        let signatures: Vec<Arc<str>> = texts(note.signatures())?.into_iter().map(Arc::<str>::from).collect();
        let signature = |index: usize| signatures.get(index).cloned();
        let keys = tables.slot_keys().map_err(|what| LoadError::malformed(what, note_offset))?;
        let slots = keys.into_iter().zip(note.slots()).map(|(key, slot)| SlotInfo {
            key,
            signature: signature(slot.signature.get() as usize),
            base: None,
        });
        let mut slots: Vec<SlotInfo> = slots.collect();
        for import in note.imports() {
            if let Some(slot) = slots.get_mut(import.slot.get() as usize) {
                slot.base = Some(import.base.get());
            }
        }
        let bases =
            note.bases().iter().map(|base| Ok(BaseInfo { name: text(base.name)?, id: ImageId(base.id) }));
        let replacements = note.replacements().iter().map(|new| {
            Ok(ReplacementInfo { name: text(new.name)?, base: new.base.get(), code: new.code.get() })
        });
        let mut patches = 0;
        for patch in tables.patches() {
            patch.map_err(|what| LoadError::malformed(what, view.places.patches.start.get()))?;
            patches += 1;
        }
        let mut exports = Vec::new();
        for export in tables.exports() {
            let bad = || LoadError::malformed("bad dynamic symbol", view.places.dynsym.start.get());
            let (index, symbol, name) = export.ok_or_else(bad)?;
            exports.push(ExportInfo {
                name: std::str::from_utf8(name).map_err(|_| bad())?.into(),
                kind: if symbol.is_function() { SymbolType::Function } else { SymbolType::Data },
                signature: note
                    .export(index, name)
                    .and_then(|export| signature(export.signature.get() as usize)),
                address: symbol.value,
                size: symbol.size,
                replaceable: note.replaceable_slot(index),
            });
        }
        Ok(Self {
            arch: view.arch,
            triple: text(head.triple)?,
            format_version: head.version.get(),
            kiln_version: text(head.kiln_version)?,
            producers: texts(note.producers())?,
            features: texts(note.features())?,
            levels: note
                .levels()
                .iter()
                .map(|level| {
                    let features = note.features_of(level).map(Box::from).collect();
                    Ok(LevelInfo { name: text(level.name)?, features })
                })
                .collect::<Result<_, LoadError>>()?,
            versions: (note.versions().iter())
                .map(|version| VersionInfo {
                    level: version.level.get() as usize,
                    slot: version.slot.get(),
                    code: version.code.get(),
                })
                .collect(),
            file_len: bytes.len() as u64,
            base: view.places.base,
            sections: sections(bytes, view.places.base)?,
            exports,
            slots,
            id: ImageId(head.id),
            bases: bases.collect::<Result<_, LoadError>>()?,
            replacements: replacements.collect::<Result<_, LoadError>>()?,
            internal_slots: head.internal_slots.get(),
            relative_pointers: head.relative_count.get() + tables.packed().count() as u64,
            symbolic_pointers: note.symbolic().len() as u64,
            globals: GlobalAccess::from_code(head.globals.get() as u8).unwrap_or_default(),
            text_patches: patches,
            text: head.text.start.get(),
            code_tables: tables.code.into(),
        })
    }

    /// Returns the distance of the code from the load address, in bytes: offsets in the code tables
    /// are from there.
    pub fn text(&self) -> u64 {
        self.text
    }

    /// Returns the code tables. `None` if the image has no functions, or tables of another version.
    pub fn code_tables(&self) -> Option<CodeTables<'_>> {
        CodeTables::read(&self.code_tables)
    }

    /// Finds the instruction at a distance from the load address, in bytes. `None` if it is in no
    /// function. The addresses of the result are distances from the load address, too.
    pub fn locate(&self, offset: u64) -> Option<Location<'_>> {
        Location::find(self.code_tables()?, self.text, offset)
    }

    /// Finds the call that returns to a distance from the load address, in bytes, as
    /// [`locate`](Self::locate) finds an instruction.
    pub fn locate_call(&self, offset: u64) -> Option<Location<'_>> {
        Location::find_call(self.code_tables()?, self.text, offset)
    }
}

/// Returns the sections, from the section headers.
fn sections(bytes: &[u8], base: u64) -> Result<Vec<SectionInfo>, LoadError> {
    let bad = |_| LoadError::malformed("bad section headers", 40);
    let header = FileHeader64::<Endianness>::parse(bytes).map_err(bad)?;
    let endian = header.endian().map_err(bad)?;
    let table = header.sections(endian, bytes).map_err(bad)?;
    let mut sections = Vec::with_capacity(table.len());
    // Sections may share bytes of their names, as in the output of linkers. But names that are
    // together longer than the file come from somebody who means harm.
    let mut room = bytes.len();
    for (index, section) in table.enumerate() {
        if index == SectionIndex(0) {
            continue;
        }
        let name = table.section_name(endian, section).map_err(bad)?;
        room = room
            .checked_sub(name.len())
            .ok_or(LoadError::malformed("names of sections that are longer than the file", 40))?;
        let flags = section.sh_flags(endian);
        let has = |flag: u32| flags & u64::from(flag) != 0;
        sections.push(SectionInfo {
            name: String::from_utf8_lossy(name).into(),
            address: if has(elf::SHF_ALLOC) { section.sh_addr(endian).wrapping_sub(base) } else { 0 },
            offset: section.sh_offset(endian),
            size: section.sh_size(endian),
            loaded: has(elf::SHF_ALLOC),
            writable: has(elf::SHF_WRITE),
            executable: has(elf::SHF_EXECINSTR),
        });
    }
    Ok(sections)
}
