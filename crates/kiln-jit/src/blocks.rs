//! Memory for the areas of one unit.

use kiln_image::link::{Addresses, Area, Extent, FixupOutput, Layout, Output, Plan};

use crate::error::JitError;
use crate::memory::{Block, BlockHeader, HEADER, JumpShape, Memory, Region};

/// Three blocks of memory, one for each region.
#[derive(Debug)]
pub(crate) struct OwnedBlocks {
    text: Block,
    constants: Block,
    data: Block,
}

impl OwnedBlocks {
    /// Makes the code impossible to find, which is the first step of its removal.
    pub(crate) fn hide(&self, memory: &Memory) {
        memory.hide(self.text);
    }

    /// Returns the block of code, and the others.
    pub(crate) fn code_and_others(&self) -> (Block, [Block; 2]) {
        (self.text, [self.constants, self.data])
    }

    /// Returns the blocks, to free them.
    pub(crate) fn all(&self) -> [Block; 3] {
        [self.text, self.constants, self.data]
    }
}

/// Blocks of memory, and the addresses of the areas inside them, which nobody needs once the unit
/// is linked.
#[derive(Debug)]
pub(crate) struct Blocks {
    pub(crate) owned: OwnedBlocks,
    pub(crate) addresses: Addresses,
}

/// Areas of read-only memory, in order.
const CONSTANTS: [Area; 5] = [Area::EhFrame, Area::EhFrameHdr, Area::CodeTables, Area::Rodata, Area::Relro];
/// Areas of writable memory, in order.
const DATA: [Area; 3] = [Area::Slots, Area::Data, Area::Bss];

impl Blocks {
    /// Takes fresh memory for all areas of `plan`.
    pub(crate) fn allocate(memory: &Memory, plan: &Plan<'_>) -> Result<Self, JitError> {
        let layout = plan.layout();
        let mut addresses = Addresses::default();
        let Extent { size, align } = layout[Area::Text];
        let head = if size == 0 { 0 } else { align.max(HEADER) };
        let is_start = |offset| plan.functions().any(|function| head + function.offset == offset);
        let text = memory.allocate_code(head + size, align.max(16), is_start)?;
        addresses[Area::Text] = text.address() + head;
        let mut block = |areas: &[Area], region| {
            let (mut size, mut align) = (0u64, 8);
            for &area in areas {
                let extent = layout[area];
                addresses[area] = size.next_multiple_of(extent.align);
                size = addresses[area] + extent.size;
                align = align.max(extent.align);
            }
            let block = memory.allocate(region, size, align)?;
            areas.iter().for_each(|&area| addresses[area] += block.address());
            Ok::<_, JitError>(block)
        };
        // SAFETY: nobody knows the blocks.
        let free = |blocks: &[Block]| blocks.iter().for_each(|&block| unsafe { memory.free(block) });
        let constants = block(&CONSTANTS, Region::ReadOnly).inspect_err(|_| free(&[text]))?;
        let data = block(&DATA, Region::Data).inspect_err(|_| free(&[text, constants]))?;
        // An area without memory still has an address near the others, for symbols of size 0 at its
        // start.
        let near = addresses[Area::Text];
        for area in CONSTANTS.into_iter().chain(DATA).filter(|&area| layout[area].size == 0) {
            addresses[area] = near;
        }
        Ok(Self { owned: OwnedBlocks { text, constants, data }, addresses })
    }

    /// Writes the header of the code, for lookups.
    ///
    /// # Safety
    ///
    /// As for [`Block::bytes`], for the block of code.
    pub(crate) unsafe fn write_header(&self, layout: &Layout, owner: u64, first_module: usize) {
        if self.owned.text.is_empty() {
            return;
        }
        // The casts keep the values: a memory is smaller than 2 GiB.
        let header = BlockHeader {
            tables: self.addresses[Area::CodeTables],
            owner,
            tables_len: layout[Area::CodeTables].size as u32,
            text: (self.addresses[Area::Text] - self.owned.text.address()) as u32,
            first_module: u32::try_from(first_module).unwrap_or(u32::MAX),
            jumps: JumpShape::default(),
        };
        // SAFETY: the caller promises what `Block::bytes` requires.
        header.write(unsafe { self.owned.text.bytes() });
    }

    /// Makes the code findable by addresses in it, if it has functions.
    ///
    /// # Safety
    ///
    /// The blocks are published, and the header was written.
    pub(crate) unsafe fn show(&self, memory: &Memory, layout: &Layout) {
        if layout[Area::CodeTables].size > 0 {
            // SAFETY: the caller promises it, and there is code.
            unsafe { memory.show(self.owned.text) };
        }
    }

    /// Makes the blocks usable once they are written.
    pub(crate) fn publish(&self, memory: &Memory) -> Result<(), JitError> {
        memory.publish(&[self.owned.text, self.owned.constants, self.owned.data])
    }

    /// Returns the bytes of `areas`, which are in `block` in this order.
    ///
    /// # Safety
    ///
    /// As for [`Block::bytes`].
    unsafe fn areas<'a, const N: usize>(
        &self,
        block: Block,
        areas: [Area; N],
        layout: &Layout,
    ) -> [&'a mut [u8]; N] {
        // SAFETY: the caller promises what `Block::bytes` requires.
        let mut rest = unsafe { block.bytes() };
        let mut address = block.address();
        areas.map(|area| {
            let gap = if layout[area].size == 0 { 0 } else { self.addresses[area] - address };
            let (_, tail) = std::mem::take(&mut rest).split_at_mut(gap as usize);
            let (bytes, tail) = tail.split_at_mut(layout[area].size as usize);
            address += gap + layout[area].size;
            rest = tail;
            bytes
        })
    }

    /// Returns the memory that a plan is emitted into.
    ///
    /// # Safety
    ///
    /// As for [`Block::bytes`], for all blocks.
    pub(crate) unsafe fn output<'a>(&self, layout: &Layout) -> Output<'a> {
        // SAFETY: the blocks are disjoint, and the caller promises what `Block::bytes` requires.
        let ([text], [eh_frame, eh_frame_hdr, code_tables, rodata, relro], [_, data, _]) = unsafe {
            (
                self.areas(self.owned.text, [Area::Text], layout),
                self.areas(self.owned.constants, CONSTANTS, layout),
                self.areas(self.owned.data, DATA, layout),
            )
        };
        Output { text, eh_frame, eh_frame_hdr, code_tables, rodata, relro, data }
    }

    /// Returns the memory that fixups are applied to.
    ///
    /// # Safety
    ///
    /// As for [`Block::bytes`], for all blocks.
    pub(crate) unsafe fn fixup_output<'a>(&self, layout: &Layout) -> FixupOutput<'a> {
        // SAFETY: the blocks are disjoint, and the caller promises what `Block::bytes` requires.
        let ([text], [_, _, _, _, relro], [slots, data, _]) = unsafe {
            (
                self.areas(self.owned.text, [Area::Text], layout),
                self.areas(self.owned.constants, CONSTANTS, layout),
                self.areas(self.owned.data, DATA, layout),
            )
        };
        FixupOutput { text, relro, data, slots }
    }
}
