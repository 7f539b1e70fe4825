//! Memory for the areas of one unit.

use kiln_image::link::{Addresses, Area, FixupOutput, Layout, Output, Plan};

use crate::error::JitError;
use crate::memory::{Block, Memory, Region};

/// Three blocks of memory, one for each region, and the addresses of the areas inside them.
#[derive(Debug)]
pub(crate) struct Blocks {
    text: Block,
    constants: Block,
    data: Block,
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
        let is_start = |offset| plan.functions().any(|function| function.offset == offset);
        let text = memory.allocate_code(layout[Area::Text].size, layout[Area::Text].align, is_start)?;
        addresses[Area::Text] = text.address();
        let mut taken = vec![text];
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
            taken.push(block);
            Ok::<_, JitError>(block)
        };
        let result = block(&CONSTANTS, Region::ReadOnly).and_then(|constants| {
            let data = block(&DATA, Region::Data)?;
            Ok((constants, data))
        });
        let (constants, data) = result.inspect_err(|_| {
            for &block in &taken {
                // SAFETY: nobody knows the block.
                unsafe { memory.free(block) };
            }
        })?;
        // An area without memory still has an address near the others, for symbols of size 0 at its
        // start.
        let near = addresses[Area::Text];
        for area in CONSTANTS.into_iter().chain(DATA).filter(|&area| layout[area].size == 0) {
            addresses[area] = near;
        }
        Ok(Self { text, constants, data, addresses })
    }

    /// Makes the blocks usable once they are written.
    pub(crate) fn publish(&self, memory: &Memory) -> Result<(), JitError> {
        memory.publish(&[self.text, self.constants, self.data])
    }

    /// Returns the blocks, to free them.
    pub(crate) fn all(&self) -> [Block; 3] {
        [self.text, self.constants, self.data]
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
                self.areas(self.text, [Area::Text], layout),
                self.areas(self.constants, CONSTANTS, layout),
                self.areas(self.data, DATA, layout),
            )
        };
        Output { text, eh_frame, eh_frame_hdr, code_tables, rodata, relro, data }
    }

    /// Returns the memory that fixups are applied to.
    ///
    /// # Safety
    ///
    /// As for [`Block::bytes`], for the blocks of read-only and of writable data.
    pub(crate) unsafe fn fixup_output<'a>(&self, layout: &Layout) -> FixupOutput<'a> {
        // SAFETY: the blocks are disjoint, and the caller promises what `Block::bytes` requires.
        let ([_, _, _, _, relro], [slots, data, _]) =
            unsafe { (self.areas(self.constants, CONSTANTS, layout), self.areas(self.data, DATA, layout)) };
        FixupOutput { relro, data, slots }
    }
}
