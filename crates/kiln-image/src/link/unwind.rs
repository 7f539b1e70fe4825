//! `.eh_frame` and `.eh_frame_hdr`, from the unwind rows of artifacts.
//!
//! Format: Linux Standard Base Core, "Exception Frames". Every entry has one common information entry (CIE), shared
//! when identical, with augmentation `zR` and 4-byte pc-relative pointers, so nothing needs relocation at load.
//! Functions lie in order of address, so the index is sorted as it is written.

use std::collections::HashMap;

use kiln_artifact::Artifact;

use super::plan::ModulePlan;
use super::{Area, Extent, Layout, LinkError};
use crate::arch::Arch;

/// Length, CIE pointer, first address, number of bytes, length of the augmentation.
const FDE_FIXED: u64 = 4 + 4 + 4 + 4 + 1;
const HDR_FIXED: u64 = 12;

/// One module's part of `.eh_frame`.
#[derive(Default)]
pub(crate) struct EhPlan {
    /// Offset of its entries, in bytes; its CIE comes first if no module before it has the same.
    pub(crate) start: u64,
    pub(crate) size: u64,
    /// Offset of its CIE.
    pub(crate) cie: u64,
    pub(crate) writes_cie: bool,
    /// Number of entries in all modules before it.
    pub(crate) first: u64,
    pub(crate) count: u64,
}

/// The whole of it.
#[derive(Default)]
pub(crate) struct Frame {
    pub(crate) count: u64,
}

fn fde_size(rows: u32) -> u64 {
    (FDE_FIXED + u64::from(rows)).next_multiple_of(8)
}

/// No less than the size of a module's entries.
pub(crate) fn bound(artifact: &Artifact) -> u64 {
    artifact.functions().len() as u64 * (FDE_FIXED + 16)
        + (artifact.unwind().len() + artifact.cie().len()) as u64
}

/// The length that the CIE gives itself is right, and it is a CIE.
fn is_cie(arch: Arch, cie: &[u8]) -> bool {
    let Some((head, _)) = cie.split_first_chunk::<8>() else { return false };
    let [a, b, c, d, id @ ..] = *head;
    id == [0; 4] && arch.u32_bytes((cie.len() - 4) as u32) == [a, b, c, d]
}

pub(crate) fn plan(
    arch: Arch,
    artifacts: &[Artifact],
    modules: &mut [ModulePlan],
    layout: &mut Layout,
    errors: &mut Vec<LinkError>,
) -> Frame {
    let mut known: HashMap<&[u8], u64> = HashMap::new();
    let (mut size, mut count) = (0, 0);
    for (number, (artifact, module)) in artifacts.iter().zip(modules).enumerate() {
        let rows =
            || artifact.functions().iter().map(|function| function.unwind_len.get()).filter(|&len| len > 0);
        let eh = &mut module.eh;
        (eh.start, eh.first) = (size, count);
        eh.count = rows().count() as u64;
        if eh.count == 0 {
            continue;
        }
        if !is_cie(arch, artifact.cie()) {
            errors.push(LinkError::Unwind { module: number });
            eh.count = 0;
            continue;
        }
        eh.cie = *known.entry(artifact.cie()).or_insert(size);
        eh.writes_cie = eh.cie == size;
        if eh.writes_cie {
            size += (artifact.cie().len() as u64).next_multiple_of(8);
        }
        size += rows().map(fde_size).sum::<u64>();
        eh.size = size - eh.start;
        count += eh.count;
    }
    if count > 0 {
        layout[Area::EhFrame] = Extent { size: size + 4, align: 8 };
        layout[Area::EhFrameHdr] = Extent { size: HDR_FIXED + 8 * count, align: 4 };
    }
    Frame { count }
}

/// Addresses that a module's entries refer to.
#[derive(Clone, Copy)]
pub(crate) struct Base {
    pub(crate) arch: Arch,
    /// Virtual address of the module's code.
    pub(crate) text: u64,
    pub(crate) eh_frame: u64,
    pub(crate) eh_frame_hdr: u64,
}

fn relative(target: u64, place: u64) -> Option<u32> {
    i32::try_from(target.wrapping_sub(place) as i64).ok().map(|distance| distance as u32)
}

/// Writes one module's entries, and their lines of the index. `None` if an address is out of reach.
pub(crate) fn emit(
    artifact: &Artifact,
    eh: &EhPlan,
    base: Base,
    out: &mut [u8],
    index: &mut [u8],
) -> Option<()> {
    let word = |value: u32| base.arch.u32_bytes(value);
    let mut at = 0;
    if eh.count == 0 {
        return Some(());
    }
    if eh.writes_cie {
        let cie = artifact.cie();
        let padded = cie.len().next_multiple_of(8);
        out[..cie.len()].copy_from_slice(cie);
        out[cie.len()..padded].fill(0); // DW_CFA_nop
        out[..4].copy_from_slice(&word((padded - 4) as u32));
        at = padded;
    }
    let mut lines = index.chunks_exact_mut(8);
    for function in artifact.functions() {
        let len = function.unwind_len.get();
        if len == 0 {
            continue;
        }
        let size = fde_size(len) as usize;
        let rows = &artifact.unwind()[function.unwind_start.get() as usize..][..len as usize];
        let address = base.text + u64::from(function.start.get());
        let offset = eh.start + at as u64;
        let fde = &mut out[at..at + size];
        fde[..4].copy_from_slice(&word(size as u32 - 4));
        fde[4..8].copy_from_slice(&word((offset + 4 - eh.cie) as u32));
        fde[8..12].copy_from_slice(&word(relative(address, base.eh_frame + offset + 8)?));
        fde[12..16].copy_from_slice(&word(function.len.get()));
        fde[16] = 0;
        fde[17..17 + rows.len()].copy_from_slice(rows);
        fde[17 + rows.len()..].fill(0); // DW_CFA_nop
        let line = lines.next()?;
        line[..4].copy_from_slice(&word(relative(address, base.eh_frame_hdr)?));
        line[4..].copy_from_slice(&word(relative(base.eh_frame + offset, base.eh_frame_hdr)?));
        at += size;
    }
    Some(())
}

/// Writes what belongs to no module: the head of the index and the end of `.eh_frame`.
pub(crate) fn emit_frame(
    arch: Arch,
    frame: &Frame,
    eh_frame: u64,
    hdr: u64,
    out: &mut [u8],
    index: &mut [u8],
) -> Option<()> {
    out.fill(0);
    if frame.count > 0 {
        // Version 1; pointer to .eh_frame pcrel sdata4, count udata4, table datarel sdata4.
        index[..4].copy_from_slice(&[1, 0x1b, 0x03, 0x3b]);
        index[4..8].copy_from_slice(&arch.u32_bytes(relative(eh_frame, hdr.wrapping_add(4))?));
        index[8..12].copy_from_slice(&arch.u32_bytes(u32::try_from(frame.count).ok()?));
    }
    Some(())
}
