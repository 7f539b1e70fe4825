//! Linking into memory, batch after batch.
//!
//! A batch is planned with what earlier batches defined as known addresses, laid out in fresh memory, relocated, and only
//! then published: an error leaves the symbols as they were.

use std::collections::HashMap;

use cranelift_jit::JITMemoryKind;
use indexmap::IndexMap;
use kiln_artifact::record::{self, Linkage, SymbolKind};
use kiln_artifact::{Artifact, signatures_agree};
use kiln_globals::{GlobalTable, Resolve, SlotKey};
use kiln_image::FunctionRef;
use kiln_image::link::{
    self, Addresses, Area, ExternalDefinition, FixupOutput, Layout, Output, PointerSource,
};

use crate::JitError;
use crate::memory::{Block, Memory};
use crate::sections::Sections;
use crate::unwind::Registration;

/// How a [`Jit`] is set up.
#[derive(Clone, Debug)]
pub struct Options {
    /// Address space to reserve for code and data, in bytes, at most 2 GiB; memory is used only as code comes. Default 1 GiB.
    pub reserve: usize,
    /// Whether panics and exceptions may unwind through compiled code, and backtraces show it. Default yes.
    pub unwind: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self { reserve: 1 << 30, unwind: true }
    }
}

/// A visible definition.
struct PublishedSymbol {
    address: u64,
    kind: SymbolKind,
    /// Seen by the modules that are linked later, and by nobody else.
    hidden: bool,
    signature: Option<Box<str>>,
}

/// The machine code of one function, for profilers and debuggers.
#[derive(Clone, Debug)]
pub struct CodeRange {
    /// Its name; empty for an anonymous one.
    pub name: Box<str>,
    /// First byte.
    pub start: usize,
    /// Number of bytes.
    pub len: usize,
}

/// Executable memory, and what is linked into it.
pub struct Jit {
    // Declared first: registrations are taken back before the memory goes.
    registrations: Vec<Registration>,
    memory: Memory,
    options: Options,
    symbols: IndexMap<Box<str>, PublishedSymbol>,
    /// Addresses of the slots that exist, by what they hold.
    slots: HashMap<SlotKey, u64>,
    sections: Sections,
    code: Vec<CodeRange>,
}

// SAFETY: the memory belongs to the `Jit` alone; raw pointers in it are addresses of that memory, not of a thread's.
unsafe impl Send for Jit {}
// SAFETY: shared references only read tables.
unsafe impl Sync for Jit {}

impl std::fmt::Debug for Jit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Jit")
            .field("symbols", &self.symbols.len())
            .field("slots", &self.slots.len())
            .finish_non_exhaustive()
    }
}

impl Jit {
    /// Reserves address space.
    ///
    /// # Errors
    ///
    /// [`JitError::Memory`] if the system refuses.
    pub fn new(options: Options) -> Result<Self, JitError> {
        Ok(Self {
            registrations: Vec::new(),
            memory: Memory::reserve(options.reserve)?,
            options,
            symbols: IndexMap::new(),
            slots: HashMap::new(),
            sections: Sections::default(),
            code: Vec::new(),
        })
    }

    /// Links `artifacts` with each other and with what was linked before, and publishes them. Globals and symbols that
    /// nobody defines get a slot, which `resolver` fills; a slot is filled once and shared by later batches.
    ///
    /// # Errors
    ///
    /// [`JitError`]; nothing is published then. Address space that was taken before the error was found is given back only when the
    /// [`Jit`] is dropped.
    pub fn link(&mut self, artifacts: &[Artifact], resolver: &dyn Resolve) -> Result<(), JitError> {
        self.check(artifacts)?;
        let known = |key: &SlotKey| {
            if let SlotKey::Symbol(name) = key
                && let Some(symbol) = self.symbols.get(name)
            {
                return Some(ExternalDefinition::Address(symbol.address));
            }
            if let SlotKey::Symbol(name) = key
                && let Some(address) = self.sections.bound(name)
            {
                return Some(ExternalDefinition::Address(address));
            }
            self.slots.get(key).copied().map(ExternalDefinition::Slot)
        };
        // Slots are laid out by first use: a session's table may hold many globals that this batch does not use.
        let plan = link::plan(artifacts, &GlobalTable::new(), &known).map_err(JitError::Link)?;
        let values = plan.slots().addresses(resolver)?;

        let layout = plan.layout();
        let blocks = Blocks::allocate(&mut self.memory, layout)?;
        // SAFETY: the blocks are fresh, disjoint and not published; the references end before `publish`.
        let fixups = unsafe { plan.emit(&blocks.addresses, blocks.output(layout)) }
            .map_err(|error| JitError::Link(vec![error]))?;
        {
            // SAFETY: as above; the references of `emit` have ended.
            let out = unsafe { blocks.fixup_output(layout) };
            for (cell, value) in out.slots.chunks_exact_mut(8).zip(&values) {
                cell.copy_from_slice(&(*value as u64).to_ne_bytes());
            }
            fixups.apply(
                FixupOutput { relro: &mut *out.relro, data: &mut *out.data, slots: &mut *out.slots },
                &mut |source| {
                    match source {
                        PointerSource::Slot(number) => values[number as usize] as u64,
                        // SAFETY: the address came from `self.slots`: a cell of an earlier batch, 8 bytes, never freed before `self`.
                        PointerSource::KnownSlot(address) => unsafe { (address as *const u64).read() },
                    }
                },
            );
        }
        self.memory.publish()?;

        for (number, key) in plan.slots().keys().iter().enumerate() {
            self.slots.insert(key.clone(), blocks.addresses[Area::Slots] + 8 * number as u64);
        }
        for definition in plan.definitions() {
            let symbol = PublishedSymbol {
                address: blocks.addresses[definition.area] + definition.offset,
                kind: definition.kind,
                hidden: definition.linkage == Linkage::Hidden,
                signature: definition.signature.map(Into::into),
            };
            // A definition that gave way, now or before, does not replace the one that won.
            self.symbols.entry(definition.name.into()).or_insert(symbol);
        }
        let symbols = &self.symbols;
        self.sections.note_uses(artifacts, &|name| symbols.contains_key(name));
        self.sections.add(plan.sections(), &blocks.addresses);
        let text = blocks.addresses[Area::Text] as usize;
        self.code.extend(plan.functions().map(|function| CodeRange {
            name: function.name.into(),
            start: text + function.offset as usize,
            len: function.size as usize,
        }));
        if self.options.unwind && layout[Area::EhFrame].size > 4 {
            // SAFETY: the section was just written for these addresses, ends with a zero length, and lives as long as `memory`.
            let registration = unsafe { Registration::new(blocks.addresses[Area::EhFrame] as *const u8) };
            self.registrations.push(registration);
        }
        Ok(())
    }

    /// What can be refused before any work: other machines, redefinitions, imports of another type than what was linked before.
    fn check(&self, artifacts: &[Artifact]) -> Result<(), JitError> {
        for (module, artifact) in artifacts.iter().enumerate() {
            let triple = artifact.triple();
            if !triple.starts_with(std::env::consts::ARCH) {
                return Err(JitError::OtherTarget { module, triple: triple.into() });
            }
            for feature in artifact.features() {
                if kiln_image::host_has_feature(feature) == Some(false) {
                    return Err(JitError::MissingFeature { module, feature: feature.into() });
                }
            }
            for symbol in artifact.symbols() {
                let name = artifact.name(symbol);
                if symbol.kind() == SymbolKind::Global
                    || symbol.linkage() == Linkage::Local
                    || symbol.libcall != 0
                {
                    continue;
                }
                if symbol.is_defined() && self.slots.contains_key(&SlotKey::Symbol(name.into())) {
                    return Err(JitError::DefinedLate { name: name.into(), module });
                }
                let Some(before) = self.symbols.get(name) else { continue };
                match symbol.linkage() {
                    Linkage::Export | Linkage::Hidden => {
                        return Err(JitError::Redefinition { name: name.into(), module });
                    }
                    // Gives way to what was defined before.
                    Linkage::Preemptible | Linkage::Local => {}
                    Linkage::Import => Self::check_import(artifact, module, symbol, before)?,
                }
            }
        }
        let is_defined = |name: &str| self.symbols.contains_key(name);
        self.sections.check(artifacts, &is_defined, &|key| self.slots.contains_key(key))
    }

    /// An import of what was linked before fits it.
    fn check_import(
        artifact: &Artifact,
        module: usize,
        symbol: &record::SymbolRecord,
        before: &PublishedSymbol,
    ) -> Result<(), JitError> {
        let name = artifact.name(symbol);
        if symbol.kind() == SymbolKind::Function && before.kind != SymbolKind::Function {
            return Err(JitError::KindConflict { name: name.into(), module });
        }
        let imported = symbol.signature().and_then(|index| artifact.signature(index));
        if let (Some(imported), Some(defined)) = (imported, before.signature.as_deref())
            && !signatures_agree(imported, defined)
        {
            let (imported, defined) = (imported.into(), defined.into());
            return Err(JitError::SignatureConflict { name: name.into(), module, imported, defined });
        }
        Ok(())
    }

    /// The function that is exported as `name`; `None` for data, for what is hidden, as in an image, and for a function
    /// whose artifact does not record its type. [`address`](Self::address) finds data and such functions.
    pub fn function(&self, name: &str) -> Option<FunctionRef<'_>> {
        let exported = |symbol: &PublishedSymbol| symbol.kind == SymbolKind::Function && !symbol.hidden;
        let (name, symbol) = self.symbols.get_key_value(name).filter(|(_, symbol)| exported(symbol))?;
        let signature = symbol.signature.as_deref()?;
        // SAFETY: the address is that of published code, which stays mapped while `self` lives, and its artifact records
        // this type. Whether the record is true is for the caller of the function to vouch for.
        Some(unsafe { FunctionRef::new(name, symbol.address as *const u8, signature) })
    }

    /// The address of the function or datum that is exported as `name`.
    pub fn address(&self, name: &str) -> Option<*const u8> {
        self.symbols.get(name).filter(|symbol| !symbol.hidden).map(|symbol| symbol.address as *const u8)
    }

    /// Every function that was linked, in order of linking, local ones too.
    pub fn code(&self) -> &[CodeRange] {
        &self.code
    }

    /// The machine code of a function.
    pub fn code_bytes(&self, range: &CodeRange) -> Option<&[u8]> {
        let known = self.code.iter().any(|own| own.start == range.start && own.len == range.len);
        // SAFETY: the range is one of ours, so it is published, readable code that nobody writes while `self` lives.
        known.then(|| unsafe { std::slice::from_raw_parts(range.start as *const u8, range.len) })
    }
}

impl Drop for Jit {
    fn drop(&mut self) {
        self.registrations.clear();
        // SAFETY: whoever was handed an address vouched not to use it now.
        unsafe { self.memory.free() };
    }
}

/// Three blocks of memory, by permission, and the areas inside them.
struct Blocks {
    text: Block,
    constants: Block,
    data: Block,
    addresses: Addresses,
}

/// Areas of read-only memory, in order.
const CONSTANTS: [Area; 4] = [Area::EhFrame, Area::EhFrameHdr, Area::Rodata, Area::Relro];
/// Areas of writable memory, in order.
const DATA: [Area; 3] = [Area::Slots, Area::Data, Area::Bss];

impl Blocks {
    fn allocate(memory: &mut Memory, layout: &Layout) -> Result<Self, JitError> {
        let mut addresses = Addresses::default();
        let text =
            memory.allocate(layout[Area::Text].size, layout[Area::Text].align, JITMemoryKind::Executable)?;
        addresses[Area::Text] = text.address();
        let mut block = |areas: &[Area], kind| {
            let (mut size, mut align) = (0u64, 8);
            for &area in areas {
                let extent = layout[area];
                addresses[area] = size.next_multiple_of(extent.align);
                size = addresses[area] + extent.size;
                align = align.max(extent.align);
            }
            let block = memory.allocate(size, align, kind)?;
            areas.iter().for_each(|&area| addresses[area] += block.address());
            Ok::<_, JitError>(block)
        };
        let constants = block(&CONSTANTS, JITMemoryKind::ReadOnly)?;
        let data = block(&DATA, JITMemoryKind::Writable)?;
        // An area without memory still has an address near the others, for what lies at its start and has no size.
        let near = addresses[Area::Text];
        for area in CONSTANTS.into_iter().chain(DATA).filter(|&area| layout[area].size == 0) {
            addresses[area] = near;
        }
        Ok(Self { text, constants, data, addresses })
    }

    /// The bytes of `areas`, which lie in `block` in this order.
    ///
    /// # Safety
    ///
    /// As for [`Block::bytes`].
    unsafe fn parts<'a, const N: usize>(
        &self,
        block: Block,
        areas: [Area; N],
        layout: &Layout,
    ) -> [&'a mut [u8]; N] {
        // SAFETY: as the caller says.
        let mut rest = unsafe { block.bytes() };
        let mut at = block.address();
        areas.map(|area| {
            let gap = if layout[area].size == 0 { 0 } else { self.addresses[area] - at };
            let (_, tail) = std::mem::take(&mut rest).split_at_mut(gap as usize);
            let (part, tail) = tail.split_at_mut(layout[area].size as usize);
            at += gap + layout[area].size;
            rest = tail;
            part
        })
    }

    /// # Safety
    ///
    /// As for [`Block::bytes`], for all blocks.
    unsafe fn output<'a>(&self, layout: &Layout) -> Output<'a> {
        // SAFETY: the blocks are disjoint, and the caller sees to the rest.
        let ([text], [eh_frame, eh_frame_hdr, rodata, relro], [_, data, _]) = unsafe {
            (
                self.parts(self.text, [Area::Text], layout),
                self.parts(self.constants, CONSTANTS, layout),
                self.parts(self.data, DATA, layout),
            )
        };
        Output { text, eh_frame, eh_frame_hdr, rodata, relro, data }
    }

    /// # Safety
    ///
    /// As for [`Block::bytes`], for the blocks of data.
    unsafe fn fixup_output<'a>(&self, layout: &Layout) -> FixupOutput<'a> {
        // SAFETY: the blocks are disjoint, and the caller sees to the rest.
        let ([_, _, _, relro], [slots, data, _]) =
            unsafe { (self.parts(self.constants, CONSTANTS, layout), self.parts(self.data, DATA, layout)) };
        FixupOutput { relro, data, slots }
    }
}
