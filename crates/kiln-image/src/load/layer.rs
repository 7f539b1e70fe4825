//! Finding what a layer uses in the images that it builds on, when it is bound.
//!
//! A base is found by its id, or by its name if the layer accepts others. What is used of
//! it is found by name in either case, and compared with what the layer says of it, so a base that
//! was built again is refused with all that differs.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use kiln_artifact::signatures_agree;
use kiln_globals::SlotKey;

use super::bind::Loaded;
use super::function::Owner as _;
use super::overrides::Override;
use crate::base::{Base, BaseSymbol, BaseSymbolKind, ImageId, SLOTS_SYMBOL};
use crate::error::{BaseFault, LoadError};
use crate::note::{
    BaseRecord, IMPORT_OF_DATA, IMPORT_OF_FUNCTION, IMPORT_OF_GLOBAL, ImportRecord, Note, ReplacementRecord,
};

/// The bases of a layer, and what it uses of them.
#[derive(Debug, Default)]
pub(super) struct Layer {
    /// Those that the layer names, and their own, each after its own.
    bases: Vec<Arc<Loaded>>,
    /// The slots that are filled from bases, in order, and the addresses.
    imports: Vec<(u32, usize)>,
    /// The new code for functions of bases, and the places of the code, from the load address on.
    replacements: Vec<(Override, u64)>,
}

impl Layer {
    /// Finds the bases of an image, and what it uses of them. `others` says whether bases are found
    /// by name, too.
    pub(super) fn find(note: Note<'_>, given: &[Arc<Loaded>], others: bool) -> Result<Self, LoadError> {
        if note.bases().is_empty() {
            return match note.imports().is_empty() && note.replacements().is_empty() {
                true => Ok(Self::default()),
                false => Err(bad("uses of bases without bases")),
            };
        }
        let bases = with_bases(given);
        let named = note.bases().iter().map(|record| find_base(note, record, &bases, others));
        let named: Vec<&Arc<Loaded>> = named.collect::<Result<_, _>>()?;
        let mut faults: Vec<Vec<BaseFault>> = vec![Vec::new(); named.len()];
        let mut layer = Self::default();
        let mut last = None;
        for record in note.imports() {
            let slot = record.slot.get();
            if last.is_some_and(|last| slot <= last) {
                return Err(bad("imports that are not in order"));
            }
            last = Some(slot);
            let number = record.base.get() as usize;
            let base = named.get(number).ok_or_else(|| bad("an import of an unknown base"))?;
            match import(note, record, base)? {
                Ok(Some(address)) => layer.imports.push((slot, address)),
                Ok(None) => {}
                Err(fault) => faults[number].push(fault),
            }
        }
        for record in note.replacements() {
            let number = record.base.get() as usize;
            let base = named.get(number).ok_or_else(|| bad("a replacement in an unknown base"))?;
            match replacement(note, record, base)? {
                Ok(found) => layer.replacements.push((found, record.code.get())),
                Err(fault) => faults[number].push(fault),
            }
        }
        if let Some(number) = faults.iter().position(|faults| !faults.is_empty()) {
            let base = note.text(note.bases()[number].name).unwrap_or_default().into();
            return Err(LoadError::BaseSymbols { base, faults: faults.swap_remove(number) });
        }
        layer.bases = with_bases(&named.into_iter().cloned().collect::<Vec<_>>());
        Ok(layer)
    }

    /// Returns the slots that are filled from bases, in order, and the addresses.
    pub(super) fn imports(&self) -> &[(u32, usize)] {
        &self.imports
    }
}

fn bad(what: &'static str) -> LoadError {
    LoadError::malformed(what, 0)
}

/// Returns images and all their bases, each once, and after its own bases: all that a program on
/// these images is linked on.
pub fn with_bases(images: &[Arc<Loaded>]) -> Vec<Arc<Loaded>> {
    let mut all: Vec<Arc<Loaded>> = Vec::new();
    for image in images.iter().flat_map(|image| image.bases.iter().chain([image])) {
        if !all.iter().any(|known| Arc::ptr_eq(known, image)) {
            all.push(image.clone());
        }
    }
    all
}

/// Finds a base among images.
fn find_base<'i>(
    note: Note<'_>,
    record: &BaseRecord,
    images: &'i [Arc<Loaded>],
    others: bool,
) -> Result<&'i Arc<Loaded>, LoadError> {
    let expected = ImageId(record.id);
    if let Some(same) = images.iter().find(|image| image.id() == expected) {
        return Ok(same);
    }
    let name = note.text(record.name).ok_or_else(|| bad("the bad name of a base"))?;
    match images.iter().find(|image| *image.name == *name) {
        Some(other) if others => Ok(other),
        Some(other) => {
            let found = other.id();
            Err(LoadError::OtherBase { base: name.into(), expected, found })
        }
        None => Err(LoadError::MissingBase { base: name.into(), id: expected }),
    }
}

/// Finds what fills a slot: `None` if the base has no such global, and the resolver is asked.
fn import(
    note: Note<'_>,
    record: &ImportRecord,
    base: &Loaded,
) -> Result<Result<Option<usize>, BaseFault>, LoadError> {
    let slot = note.slots().get(record.slot.get() as usize);
    let name = slot.and_then(|slot| note.text(slot.key)).ok_or_else(|| bad("an import of a bad slot"))?;
    let signature = note.signature(record.signature.get() as usize);
    let size = record.size.get();
    Ok(match record.kind.get() {
        IMPORT_OF_GLOBAL => Ok(base.value_of_global(name, size)),
        IMPORT_OF_FUNCTION | IMPORT_OF_DATA => {
            let is_function = record.kind.get() == IMPORT_OF_FUNCTION;
            let found = base.find(name).zip(base.address(name).map(<*const u8>::addr));
            let fits = |found: &BaseSymbol<'_>| match (is_function, found.kind) {
                (true, kind) => kind.is_function() && agree(signature, found.signature),
                (false, kind) => kind == BaseSymbolKind::Data && found.size == size,
            };
            match found {
                Some((found, address)) if fits(&found) => Ok(Some(address)),
                found => {
                    let kind = if is_function { BaseSymbolKind::Function } else { BaseSymbolKind::Data };
                    let expected = BaseSymbol { kind, signature, size };
                    Err(fault(name, expected, found.map(|(found, _)| found)))
                }
            }
        }
        _ => return Err(bad("an import of an unknown kind")),
    })
}

/// Finds a function that is replaced.
fn replacement(
    note: Note<'_>,
    record: &ReplacementRecord,
    base: &Arc<Loaded>,
) -> Result<Result<Override, BaseFault>, LoadError> {
    let name = note.text(record.name).ok_or_else(|| bad("the bad name of a replaced function"))?;
    let signature = note.signature(record.signature.get() as usize);
    let found = signature.map(|signature| base.override_function(name, signature));
    Ok(found.and_then(Result::ok).ok_or_else(|| {
        let expected = BaseSymbol { kind: BaseSymbolKind::Replaceable, signature, size: 0 };
        fault(name, expected, base.find(name))
    }))
}

/// Whether a function of a base has the type that it had.
fn agree(expected: Option<&str>, found: Option<&str>) -> bool {
    match (expected, found) {
        (Some(expected), Some(found)) => {
            // Attributes, which are not compared, make a type at most a few times as long.
            expected == found || (expected.len() / 16 <= found.len() && signatures_agree(expected, found))
        }
        _ => true,
    }
}

fn fault(name: &str, expected: BaseSymbol<'_>, found: Option<BaseSymbol<'_>>) -> BaseFault {
    /// The most bytes of a type that an error has.
    const MOST: usize = 500;
    let describe = |symbol: BaseSymbol<'_>| match (symbol.kind.is_function(), symbol.signature) {
        (true, Some(signature)) => {
            format!("{} {}", symbol.kind, &signature[..signature.floor_char_boundary(MOST)])
        }
        (true, None) => symbol.kind.to_string(),
        (false, _) => format!("{} of {} bytes", symbol.kind, symbol.size),
    };
    let name = &name[..name.floor_char_boundary(MOST)];
    BaseFault {
        name: name.into(),
        expected: describe(expected).into(),
        found: found.map(|found| describe(found).into()),
    }
}

impl Loaded {
    /// Returns the images that this one is a layer on, and their bases, each after its own.
    pub fn bases(&self) -> &[Arc<Self>] {
        &self.bases
    }

    /// Returns the id, by which layers name the image.
    pub fn id(&self) -> ImageId {
        self.mapped.id()
    }

    /// Returns the name and the distance by which data of a layer points at an address in this
    /// image that has no name of its own, such as the middle of a saved heap. `None` if the address
    /// is not in the image. The layer can then be loaded on this image alone, not on another of the
    /// same exports.
    pub fn name_of_place(&self, address: *const u8) -> Option<(String, u64)> {
        let addresses = self.mapped.memory.addresses();
        addresses
            .contains(&address.addr())
            .then(|| (self.mapped.start_symbol(), (address.addr() - addresses.start) as u64))
    }

    /// Returns the address of the object of the global `key`: that which its slot holds, or that of
    /// the object in its heap. `None` if it has neither.
    pub fn global(&self, key: &str) -> Option<usize> {
        if let Some(slot) = self.mapped.slot_of_global(key) {
            return self.value_of_slot(slot);
        }
        self.mapped.base_symbol(key).filter(|found| found.kind == BaseSymbolKind::Global)?;
        self.address(key).map(<*const u8>::addr)
    }

    /// Returns the same, if its slot is likely the one with the number `near`.
    fn value_of_global(&self, key: &str, near: u64) -> Option<usize> {
        let slot = usize::try_from(near).ok().and_then(|near| self.slots().get(near));
        match slot {
            Some(SlotKey::Global(known)) if **known == *key => self.value_of_slot(near as u32),
            _ => self.global(key),
        }
    }

    fn value_of_slot(&self, slot: u32) -> Option<usize> {
        match self.unstored.get(slot as usize) {
            Some(value) => Some(*value),
            None => Some(self.stored_slots().get(slot as usize)?.load(Ordering::Acquire) as usize),
        }
    }

    /// Returns the address of the initial content of the thread-local data `name`; `None` if that
    /// is something else. Nobody may write to it.
    pub fn thread_local_content(&self, name: &str) -> Option<*const u8> {
        let symbol = self.mapped.lookup(name).filter(|symbol| symbol.is_thread_local())?;
        self.content_at(symbol.value)
    }

    /// Returns the address of thread-local data in the initial content. What is zero at first has
    /// one too, although there may be nothing.
    fn content_at(&self, offset: u64) -> Option<*const u8> {
        let place = self.mapped.thread_local.filter(|place| offset <= place.size)?;
        Some(self.range(place.content).start.wrapping_add(offset as usize))
    }

    /// Returns all exports in order of the dynamic symbol table: the name, what it is, and the
    /// address; of thread-local data, that of the initial content.
    pub fn exports(&self) -> impl Iterator<Item = (&str, BaseSymbol<'_>, *const u8)> {
        self.give_out();
        let exports = self.mapped.tables().exports().flatten();
        exports.filter_map(|(_, symbol, name)| {
            let name = std::str::from_utf8(name).ok().filter(|name| *name != SLOTS_SYMBOL)?;
            let found = self.mapped.base_symbol(name)?;
            let address = match found.kind {
                BaseSymbolKind::ThreadLocal => self.content_at(symbol.value)?,
                _ => self.mapped.memory.base().wrapping_add(usize::try_from(symbol.value).ok()?),
            };
            Some((name, found, address))
        })
    }

    /// Makes the image a layer: its bases stay, and get its code for their functions.
    pub(super) fn put_on(&mut self, layer: Layer) -> Result<(), LoadError> {
        let Layer { bases, replacements, .. } = layer;
        self.bases = bases;
        let code = |place: u64| self.executable(place).ok_or_else(|| bad("new code that is no code"));
        let codes = replacements.iter().map(|(_, place)| code(*place)).collect::<Result<Vec<_>, _>>()?;
        for ((replaced, _), code) in replacements.into_iter().zip(codes) {
            // SAFETY: the code is in executable memory of this image, whose linker compared the
            // types; the code is taken back before the image is unmapped. Whoever calls it trusts
            // the image that it bound on this base.
            unsafe { replaced.set(code) };
            self.overrides.push(Box::new(replaced));
        }
        Ok(())
    }
}

impl Base for Loaded {
    fn name(&self) -> &str {
        &self.name
    }

    fn id(&self) -> ImageId {
        self.id()
    }

    fn triple(&self) -> &str {
        self.mapped.triple()
    }

    fn find(&self, name: &str) -> Option<BaseSymbol<'_>> {
        self.mapped.base_symbol(name)
    }

    fn slot_of_global(&self, key: &str) -> Option<u32> {
        self.mapped.slot_of_global(key)
    }
}
