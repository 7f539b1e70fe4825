//! Patch sites and the addresses that are written there, for all architectures.

use kiln_artifact::RelocKind;

use super::super::error::LinkError;

/// The way in which a relocation uses its symbol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) enum Use {
    /// The code needs the symbol's address, which must be in reach.
    Direct,
    /// The code needs the symbol's address if it is in reach, else its slot.
    AddressOrSlot,
    /// The code calls the symbol's address if it is in reach, else a stub.
    Call,
    /// The code needs the symbol's slot, or its address if that is in reach and the instruction can
    /// be relaxed.
    Slot { relaxable: bool },
    /// The symbol names another relocation of the code, which this relocation completes. riscv64
    /// has such pairs.
    Pair,
}

/// The reason why a site cannot be patched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) enum PatchError {
    /// The relocation belongs to another architecture.
    Foreign,
    /// Code would hold an absolute address.
    Absolute,
    /// The relocation cannot patch this instruction.
    Instruction,
    /// The distance is too large for the instruction.
    OutOfRange { distance: i64, limit: u64 },
    /// The address does not have the alignment that the instruction needs.
    Misaligned,
    /// The symbol has no address, and no slot or stub that could be used instead.
    Unreachable,
}

impl PatchError {
    /// Returns the error for a relocation against `symbol` at `offset` in the code of `module`. The
    /// patch site is in `function`.
    pub(in super::super) fn into_error(
        self,
        module: usize,
        function: Box<str>,
        symbol: Box<str>,
        offset: u64,
        kind: RelocKind,
    ) -> LinkError {
        match self {
            Self::Foreign => LinkError::ForeignRelocation { module, function, offset, kind },
            Self::Absolute => LinkError::TextRelocation { module, function, offset, symbol },
            Self::Instruction => LinkError::Instruction { module, function, offset, kind, symbol },
            Self::OutOfRange { distance, limit } => {
                LinkError::OutOfRange { module, function, offset, symbol, distance, limit }
            }
            Self::Misaligned => LinkError::Misaligned { module, function, offset, symbol },
            Self::Unreachable => LinkError::DirectReference { module, function, offset, symbol },
        }
    }
}

/// Bytes of code that a relocation patches.
pub(in super::super) struct PatchSite<'t> {
    /// The code that contains the bytes.
    pub(in super::super) text: &'t mut [u8],
    /// The offset of the bytes in `text`.
    pub(in super::super) offset: usize,
    /// The virtual address of the bytes.
    pub(in super::super) address: u64,
    pub(in super::super) addend: i64,
}

/// The virtual addresses by which code can reach a symbol: the addresses of the symbol, of its slot
/// and of its stub.
#[derive(Clone, Copy, Debug, Default)]
pub(in super::super) struct PatchAddresses {
    pub(in super::super) symbol: Option<u64>,
    pub(in super::super) slot: Option<u64>,
    pub(in super::super) stub: Option<u64>,
}

/// Returns `target - address` if it is in `-limit..limit`.
pub(in super::super) fn distance(target: u64, address: u64, limit: u64) -> Result<i64, PatchError> {
    let distance = target.wrapping_sub(address) as i64;
    let bound = limit as i64;
    if (-bound..bound).contains(&distance) {
        Ok(distance)
    } else {
        Err(PatchError::OutOfRange { distance, limit })
    }
}

/// Reads a little-endian instruction word.
pub(in super::super) fn read32(text: &[u8], offset: usize) -> Option<u32> {
    text.get(offset..)?.first_chunk().map(|bytes| u32::from_le_bytes(*bytes))
}

/// Writes a little-endian instruction word.
pub(in super::super) fn write32(text: &mut [u8], offset: usize, word: u32) -> Result<(), PatchError> {
    let bytes =
        text.get_mut(offset..).and_then(|rest| rest.first_chunk_mut()).ok_or(PatchError::Instruction)?;
    *bytes = word.to_le_bytes();
    Ok(())
}
