//! Links artifacts into memory, one batch after another.
//!
//! A batch is planned with the symbols of earlier batches as known addresses, placed in fresh
//! memory, relocated, and only then published. So an error leaves the published symbols unchanged.

use std::sync::Arc;

use kiln_artifact::Artifact;
use kiln_artifact::record::SymbolKind;
use kiln_globals::{GlobalTable, Resolve, SlotKey};
use kiln_image::FunctionRef;
use kiln_image::link::{self, Area, FixupOutput, Fixups, Layout, PointerSource};

use crate::blocks::Blocks;
use crate::error::JitError;
use crate::memory::{Block, Memory};
use crate::options::JitOptions;
use crate::published::{Published, PublishedSymbol};
use crate::unwind::Registration;

/// The machine code of one function, for profilers and debuggers.
#[derive(Clone, Debug)]
pub struct CodeRange {
    /// The function's name; empty for an anonymous function.
    pub name: Box<str>,
    /// Address of the first byte.
    pub start: usize,
    /// Number of bytes.
    pub len: usize,
}

/// Executable memory, and the program that is linked into it.
pub struct Jit {
    // Declared first, so that registrations are removed before the memory is freed.
    registrations: Vec<Registration>,
    memory: Arc<Memory>,
    /// The memory that is freed with this.
    blocks: Vec<Block>,
    options: JitOptions,
    published: Published,
    code: Vec<CodeRange>,
}

// SAFETY: raw pointers in it are addresses of its memory, which is not tied to a thread.
unsafe impl Send for Jit {}
// SAFETY: shared references only read tables.
unsafe impl Sync for Jit {}

impl std::fmt::Debug for Jit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Jit")
            .field("symbols", &self.published.symbols.len())
            .field("slots", &self.published.slots.len())
            .finish_non_exhaustive()
    }
}

impl Jit {
    /// Makes a JIT without code.
    ///
    /// # Errors
    ///
    /// [`JitError::Memory`] if it uses the shared memory, which must be reserved first, and the
    /// system refuses.
    pub fn new(options: JitOptions) -> Result<Self, JitError> {
        Ok(Self {
            registrations: Vec::new(),
            memory: options.memory.clone().map_or_else(Memory::shared, Ok)?,
            blocks: Vec::new(),
            options,
            published: Published::default(),
            code: Vec::new(),
        })
    }

    /// Links `artifacts` with each other and with what was linked before, and publishes them. Each
    /// global and each symbol without a definition gets a slot, whose value `resolver` returns;
    /// it is told the type with which the code calls a function. A slot is filled once and shared by later batches.
    ///
    /// # Errors
    ///
    /// [`JitError`]; then nothing is published, and the memory that was taken is free again.
    pub fn link(&mut self, artifacts: &[Artifact], resolver: &dyn Resolve) -> Result<(), JitError> {
        self.published.check(artifacts)?;
        // The table is empty, so only globals that this batch uses get slots, in order of first
        // use: a session's table may hold many other globals.
        let known = |key: &SlotKey| self.published.lookup(key);
        let plan = link::plan(artifacts, &GlobalTable::new(), &known).map_err(JitError::Link)?;
        let values = plan.slot_addresses(resolver)?;

        let layout = plan.layout();
        let blocks = Blocks::allocate(&self.memory, &plan)?;
        // SAFETY: the blocks are fresh, disjoint and not published; the references end before
        // `publish`.
        let emitted = unsafe { plan.emit(&blocks.addresses, blocks.output(layout)) }
            .map_err(|error| JitError::Link(vec![error]));
        let published = emitted.and_then(|fixups| {
            // SAFETY: as above, and the references of `emit` have ended. Addresses of known slots
            // come from `published`: 8 bytes of an earlier batch, not freed before `self`.
            unsafe { fill_slots_and_pointers(&blocks, layout, &fixups, &values) };
            self.memory.publish(&blocks.all())
        });
        if let Err(error) = published {
            // SAFETY: nobody knows these blocks.
            blocks.all().into_iter().for_each(|block| unsafe { self.memory.free(block) });
            return Err(error);
        }
        self.blocks.extend(blocks.all());

        self.published.add(artifacts, &plan, &blocks.addresses);
        let text = blocks.addresses[Area::Text] as usize;
        self.code.extend(plan.functions().map(|function| CodeRange {
            name: function.name.into(),
            start: text + function.offset as usize,
            len: function.size as usize,
        }));
        // A section of 4 bytes has no entries, only the zero length that ends it.
        if self.options.unwind && layout[Area::EhFrame].size > 4 {
            // SAFETY: the section was just written for these addresses, ends with a zero length,
            // and lives as long as `memory`.
            let registration = unsafe { Registration::new(blocks.addresses[Area::EhFrame] as *const u8) };
            self.registrations.push(registration);
        }
        Ok(())
    }

    /// Returns the function that is exported as `name`. `None` for data, for a hidden function (as
    /// in an image), and for a function whose artifact does not record its type.
    /// [`address`](Self::address) finds data and such functions.
    pub fn function(&self, name: &str) -> Option<FunctionRef<'_>> {
        let exported = |symbol: &PublishedSymbol| symbol.kind == SymbolKind::Function && !symbol.hidden;
        let (name, symbol) =
            self.published.symbols.get_key_value(name).filter(|(_, symbol)| exported(symbol))?;
        let signature = symbol.signature.as_deref()?;
        // SAFETY: the address is that of published code, which stays mapped while `self` lives, and
        // its artifact records this type.
        Some(unsafe { FunctionRef::new(name, symbol.address as *const u8, signature) })
    }

    /// Returns the address of the function or data object that is exported as `name`.
    pub fn address(&self, name: &str) -> Option<*const u8> {
        let symbol = self.published.symbols.get(name).filter(|symbol| !symbol.hidden)?;
        Some(symbol.address as *const u8)
    }

    /// Returns every function that was linked, local functions included, in order of linking.
    pub fn code(&self) -> &[CodeRange] {
        &self.code
    }

    /// Returns the machine code of a function; `None` if [`code`](Self::code) has no such range.
    pub fn code_bytes(&self, range: &CodeRange) -> Option<&[u8]> {
        let known = self.code.iter().any(|own| own.start == range.start && own.len == range.len);
        // SAFETY: the range is one of ours, so it is published, readable code that is not written
        // while `self` lives.
        known.then(|| unsafe { std::slice::from_raw_parts(range.start as *const u8, range.len) })
    }
}

impl Drop for Jit {
    fn drop(&mut self) {
        self.registrations.clear();
        for block in self.blocks.drain(..) {
            // SAFETY: addresses of this memory were given out to be used only while the `Jit` lives.
            unsafe { self.memory.free(block) };
        }
    }
}

/// Fills the external slots with `values`, and applies the fixups.
///
/// # Safety
///
/// As for [`Blocks::fixup_output`]; and every [`PointerSource::KnownSlot`] of `fixups` must be the
/// address of 8 readable bytes.
unsafe fn fill_slots_and_pointers(blocks: &Blocks, layout: &Layout, fixups: &Fixups, values: &[usize]) {
    // SAFETY: the caller promises what `fixup_output` requires.
    let FixupOutput { relro, data, slots } = unsafe { blocks.fixup_output(layout) };
    for (slot, value) in slots.chunks_exact_mut(8).zip(values) {
        slot.copy_from_slice(&(*value as u64).to_ne_bytes());
    }
    fixups.apply(FixupOutput { relro, data, slots }, &mut |source| match source {
        PointerSource::Slot(number) => values[number as usize] as u64,
        // SAFETY: the caller promises that these 8 bytes can be read.
        PointerSource::KnownSlot(address) => unsafe { (address as *const u64).read() },
    });
}
