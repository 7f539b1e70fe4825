//! Phase `unwind`: lays out and writes `.eh_frame` and `.eh_frame_hdr`, from the unwind rows of
//! artifacts.
//!
//! Format: Linux Standard Base Core, "Exception Frames". Each function with unwind rows has a frame
//! description entry (FDE), which refers to a common information entry (CIE). CIEs are shared when
//! identical, and have augmentation `zR` with 4-byte pc-relative pointers, so the loader need not
//! relocate them. Functions are in order of address, so writing the index in `.eh_frame_hdr` in
//! that order sorts it.

use std::collections::HashMap;

use foldhash::fast::RandomState as FastHash;
use kiln_artifact::Artifact;

use super::error::LinkError;
use super::layout::{Extent, Layout, MAX_SIZE};
use crate::arch::Arch;

/// The fixed part of an FDE, in bytes: length, CIE pointer, first address, number of bytes, length
/// of the augmentation.
const FDE_FIXED: u64 = 4 + 4 + 4 + 4 + 1;
/// The size of the head of the index, in bytes.
pub(super) const HDR_FIXED: u64 = 12;
/// The size of an entry of the index, in bytes.
pub(super) const HDR_LINE: u64 = 8;
/// The zero length that ends `.eh_frame`, in bytes.
const TERMINATOR: u64 = 4;

/// The entries of one module.
pub(super) struct ModuleEntries {
    /// The offset of its entries in `.eh_frame`, in bytes; its CIE comes first if no earlier module
    /// has an identical CIE.
    pub(super) start: u64,
    pub(super) size: u64,
    /// The offset of its CIE.
    cie: u64,
    /// The number of FDEs in all earlier modules.
    pub(super) first: u64,
    /// The number of FDEs.
    pub(super) count: u64,
}

/// The places of all unwind information.
pub(super) struct UnwindLayout {
    /// The entries of each module; `None` for a module without unwind rows.
    pub(super) modules: Vec<Option<ModuleEntries>>,
    /// The number of FDEs.
    count: u64,
}

impl UnwindLayout {
    /// Returns the size and alignment of `.eh_frame`.
    pub(super) fn eh_frame(&self) -> Extent {
        let end = self.modules.iter().flatten().next_back().map(|last| last.start + last.size);
        end.map_or_else(Extent::default, |end| Extent { size: end + TERMINATOR, align: 8 })
    }

    /// Returns the size and alignment of `.eh_frame_hdr`.
    pub(super) fn eh_frame_hdr(&self) -> Extent {
        match self.count {
            0 => Extent::default(),
            count => Extent { size: HDR_FIXED + HDR_LINE * count, align: 4 },
        }
    }
}

fn fde_size(rows: u32) -> u64 {
    (FDE_FIXED + u64::from(rows)).next_multiple_of(8)
}

/// Returns the length of the unwind rows, in bytes, of each function that has some.
fn row_lengths(artifact: &Artifact) -> impl Iterator<Item = u32> {
    artifact.functions().iter().map(|function| function.unwind_len.get()).filter(|&len| len > 0)
}

/// Returns an upper bound of the size, in bytes, of a module's entries in `.eh_frame` and in the
/// index.
pub(super) fn size_bound(artifact: &Artifact) -> u64 {
    let entries: u64 = row_lengths(artifact).map(|len| fde_size(len) + HDR_LINE).sum();
    entries + artifact.cie().len() as u64 + 8
}

/// Whether these bytes are a CIE with a correct length field.
fn is_cie(arch: Arch, cie: &[u8]) -> bool {
    let Some((head, _)) = cie.split_first_chunk::<8>() else { return false };
    let [a, b, c, d, id @ ..] = *head;
    id == [0; 4] && arch.u32_bytes((cie.len() - 4) as u32) == [a, b, c, d]
}

/// Lays out the entries of all modules, in order.
pub(super) fn lay_out(arch: Arch, artifacts: &[Artifact], errors: &mut Vec<LinkError>) -> UnwindLayout {
    // Almost always, all modules have the CIE of the first.
    let mut common: Option<(&[u8], u64)> = None;
    let mut cies: HashMap<&[u8], u64, FastHash> = HashMap::default();
    let (mut end, mut total) = (0, 0);
    let mut modules = Vec::with_capacity(artifacts.len());
    for (module, artifact) in artifacts.iter().enumerate() {
        let count = row_lengths(artifact).count() as u64;
        if count == 0 {
            modules.push(None);
            continue;
        }
        if !is_cie(arch, artifact.cie()) {
            errors.push(LinkError::Unwind { module });
            modules.push(None);
            continue;
        }
        let (start, first) = (end, total);
        let cie = match *common.get_or_insert((artifact.cie(), start)) {
            (cie, place) if cie == artifact.cie() => place,
            _ => *cies.entry(artifact.cie()).or_insert(start),
        };
        if cie == start {
            end += (artifact.cie().len() as u64).next_multiple_of(8);
        }
        end += row_lengths(artifact).map(fde_size).sum::<u64>();
        total += count;
        modules.push(Some(ModuleEntries { start, size: end - start, cie, first, count }));
    }
    UnwindLayout { modules, count: total }
}

/// The addresses that a module's entries refer to.
#[derive(Clone, Copy)]
pub(super) struct UnwindAddresses {
    pub(super) arch: Arch,
    /// The address of the module's code.
    pub(super) text: u64,
    pub(super) eh_frame: u64,
    pub(super) eh_frame_hdr: u64,
}

/// Returns the 4-byte pointer to `target` relative to `origin`; `None` if the distance does not
/// fit.
fn relative(target: u64, origin: u64) -> Option<u32> {
    i32::try_from(target.wrapping_sub(origin) as i64).ok().map(|distance| distance as u32)
}

/// Returns the error for code that is too far from its unwind information.
pub(super) fn out_of_reach(layout: &Layout) -> LinkError {
    let what = "the distance between code and unwind rows".into();
    LinkError::TooLarge { module: None, what, size: layout.total(), limit: MAX_SIZE }
}

/// Writes one module's entries of `.eh_frame` and of the index. Returns `None` if an address is out
/// of reach.
pub(super) fn write_module(
    artifact: &Artifact,
    entries: &ModuleEntries,
    addresses: UnwindAddresses,
    out: &mut [u8],
    index: &mut [u8],
) -> Option<()> {
    let UnwindAddresses { arch, text, eh_frame, eh_frame_hdr } = addresses;
    let word = |value: u32| arch.u32_bytes(value);
    let mut position = 0;
    if entries.cie == entries.start {
        let cie = artifact.cie();
        let padded = cie.len().next_multiple_of(8);
        out[..cie.len()].copy_from_slice(cie);
        out[cie.len()..padded].fill(0); // DW_CFA_nop
        out[..4].copy_from_slice(&word((padded - 4) as u32));
        position = padded;
    }
    let mut lines = index.chunks_exact_mut(HDR_LINE as usize);
    for function in artifact.functions() {
        let len = function.unwind_len.get();
        if len == 0 {
            continue;
        }
        let size = fde_size(len) as usize;
        let rows = &artifact.unwind()[function.unwind_start.get() as usize..][..len as usize];
        let code = text + u64::from(function.start.get());
        let offset = entries.start + position as u64;
        let fde = &mut out[position..position + size];
        fde[..4].copy_from_slice(&word(size as u32 - 4));
        fde[4..8].copy_from_slice(&word((offset + 4 - entries.cie) as u32));
        fde[8..12].copy_from_slice(&word(relative(code, eh_frame + offset + 8)?));
        fde[12..16].copy_from_slice(&word(function.len.get()));
        fde[16] = 0;
        fde[17..17 + rows.len()].copy_from_slice(rows);
        fde[17 + rows.len()..].fill(0); // DW_CFA_nop
        let line = lines.next()?;
        line[..4].copy_from_slice(&word(relative(code, eh_frame_hdr)?));
        line[4..].copy_from_slice(&word(relative(eh_frame + offset, eh_frame_hdr)?));
        position += size;
    }
    Some(())
}

/// Writes the parts that belong to no module: the head of the index and the end of `.eh_frame`.
/// Returns `None` if an address is out of reach.
pub(super) fn write_ends(
    arch: Arch,
    layout: &UnwindLayout,
    eh_frame: u64,
    eh_frame_hdr: u64,
    terminator: &mut [u8],
    head: &mut [u8],
) -> Option<()> {
    terminator.fill(0);
    if layout.count > 0 {
        // Version 1; pointer to .eh_frame pcrel sdata4, count udata4, table datarel sdata4.
        head[..4].copy_from_slice(&[1, 0x1b, 0x03, 0x3b]);
        head[4..8].copy_from_slice(&arch.u32_bytes(relative(eh_frame, eh_frame_hdr.wrapping_add(4))?));
        head[8..12].copy_from_slice(&arch.u32_bytes(u32::try_from(layout.count).ok()?));
    }
    Some(())
}
