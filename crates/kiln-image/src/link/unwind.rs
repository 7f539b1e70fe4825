//! Phase `unwind`: lays out and writes `.eh_frame` and `.eh_frame_hdr`, from the unwind rows of
//! artifacts.
//!
//! Format: Linux Standard Base Core, "Exception Frames". Each function with unwind rows has a frame
//! description entry (FDE), which refers to a common information entry (CIE). CIEs are shared when
//! identical, and have augmentation `zR` with 4-byte pc-relative pointers, so the loader need not
//! relocate them. Functions are in order of address, so writing the index in `.eh_frame_hdr` in
//! that order sorts it.
//!
//! The linker's stubs and the veneers inside of large modules have entries too: one for each run of
//! them, without rows. They change neither the stack pointer nor the return address, so the initial
//! rules of the CIE hold throughout, as at a function's first instruction. A function without rows,
//! which a client gave as machine code, has no entry: nothing is known about it, and an unwinder
//! stops there.

use std::collections::HashMap;

use foldhash::fast::RandomState as FastHash;
use kiln_artifact::Artifact;

use super::assign::Assignment;
use super::error::LinkError;
use super::layout::{Area, Extent, Layout, MAX_SIZE};
use super::lists::PerModule;
use super::place::Placement;
use super::stubs::VENEER;
use super::unwind_size::{FDE_FIXED, HDR_LINE, fde_size, has_veneers, row_lengths};
use crate::arch::Arch;

/// The size of the head of the index, in bytes.
pub(super) const HDR_FIXED: u64 = 12;
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
    /// The module's veneers and its own stubs, in order of address.
    plain: Vec<Plain>,
}

/// Code without functions, which has an entry without rows.
struct Plain {
    /// The index of the function that follows it in the module.
    next: usize,
    /// Offset from the start of the module's code, in bytes.
    start: u64,
    len: u64,
}

/// The entry of the stubs that all modules share.
struct SharedStubs {
    /// The offset of its CIE.
    cie: u64,
    /// The offset of the entry in `.eh_frame`.
    entry: u64,
    /// The range of the stubs in the code area.
    start: u64,
    len: u64,
}

/// The places of all unwind information.
pub(super) struct UnwindLayout {
    /// The entries of each module; `None` for a module without unwind rows.
    pub(super) modules: PerModule<Option<ModuleEntries>>,
    shared_stubs: Option<SharedStubs>,
    /// The number of FDEs.
    count: u64,
    /// Whether there is an index, `.eh_frame_hdr`.
    pub(super) has_index: bool,
}

impl UnwindLayout {
    /// Returns the number of FDEs.
    #[cfg(feature = "write")]
    pub(super) fn count(&self) -> u64 {
        self.count
    }

    /// Returns the size of `.eh_frame` without its end mark, in bytes.
    #[cfg(feature = "write")]
    pub(super) fn entries_size(&self) -> u64 {
        self.eh_frame().size.saturating_sub(TERMINATOR)
    }

    /// Returns the size and alignment of `.eh_frame`.
    pub(super) fn eh_frame(&self) -> Extent {
        let stubs = self.shared_stubs.as_ref().map(|stubs| stubs.entry + fde_size(0));
        let end = self.modules.iter().flatten().next_back().map(|last| last.start + last.size);
        stubs.or(end).map_or_else(Extent::default, |end| Extent { size: end + TERMINATOR, align: 8 })
    }

    /// Returns the size and alignment of `.eh_frame_hdr`.
    pub(super) fn eh_frame_hdr(&self) -> Extent {
        match self.count {
            0 => Extent::default(),
            _ if !self.has_index => Extent::default(),
            count => Extent { size: HDR_FIXED + HDR_LINE * count, align: 4 },
        }
    }
}

/// Returns the code of a module that is in no function: veneers, and its own stubs, which end at
/// `end`. All are relative to the start of the module's code.
fn plain(arch: Arch, artifact: &Artifact, stubs: Option<u64>, end: u64) -> Vec<Plain> {
    let mut plain = Vec::new();
    if arch == Arch::Aarch64 && has_veneers(artifact) {
        let functions = artifact.functions();
        let starts = functions.iter().map(|function| u64::from(function.start.get()));
        let starts = starts.skip(1).chain([artifact.text().len() as u64]);
        for (index, (function, next)) in functions.iter().zip(starts).enumerate() {
            let end = u64::from(function.start.get()) + u64::from(function.len.get());
            // Veneers are aligned as instructions are. What follows them is a gap at most.
            let start = end.next_multiple_of(4);
            if start + VENEER <= next {
                plain.push(Plain { next: index + 1, start, len: next - start });
            }
        }
    }
    let stubs = stubs.map(|start| Plain { next: artifact.functions().len(), start, len: end - start });
    plain.extend(stubs);
    plain
}

/// Whether these bytes are a CIE with a correct length field.
fn is_cie(arch: Arch, cie: &[u8]) -> bool {
    let Some((head, _)) = cie.split_first_chunk::<8>() else { return false };
    let [a, b, c, d, id @ ..] = *head;
    id == [0; 4] && arch.u32_bytes((cie.len() - 4) as u32) == [a, b, c, d]
}

/// Lays out the entries of all modules, in order.
pub(super) fn lay_out(
    arch: Arch,
    artifacts: &[Artifact],
    placement: &Placement<'_>,
    assignment: &Assignment,
    errors: &mut Vec<LinkError>,
) -> UnwindLayout {
    // Almost always, all modules have the CIE of the first.
    let mut common: Option<(&[u8], u64)> = None;
    let mut cies: HashMap<&[u8], u64, FastHash> = HashMap::default();
    let (mut end, mut total) = (0, 0);
    let mut modules = PerModule::with_capacity(artifacts.len());
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
        let place = &placement.modules[module].text;
        let stubs = assignment.stubs_of_module(module).next().map(|stub| placement.stubs[stub] - place.start);
        let plain = plain(arch, artifact, stubs, place.end - place.start);
        let count = count + plain.len() as u64;
        end += row_lengths(artifact).map(fde_size).sum::<u64>() + fde_size(0) * plain.len() as u64;
        total += count;
        modules.push(Some(ModuleEntries { start, size: end - start, cie, first, count, plain }));
    }
    let shared_stubs = assignment.shared_stubs().next().zip(common).map(|(stub, (_, cie))| {
        let start = placement.stubs[stub];
        total += 1;
        SharedStubs { cie, entry: end, start, len: placement.unnamed[Area::Text].size - start }
    });
    UnwindLayout { modules, shared_stubs, count: total, has_index: true }
}

/// The addresses that a module's entries refer to.
#[derive(Clone, Copy)]
pub(super) struct UnwindAddresses {
    pub(super) arch: Arch,
    /// The address of the module's code, or of all code.
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

/// Writes one module's entries of `.eh_frame`, and of the index if there is one. Returns `None` if
/// an address is out of reach.
pub(super) fn write_module(
    artifact: &Artifact,
    entries: &ModuleEntries,
    addresses: UnwindAddresses,
    out: &mut [u8],
    index: &mut [u8],
) -> Option<()> {
    if index.is_empty() {
        return entries.write(addresses.arch, artifact, out, |entry, fde| entry.write(addresses, fde));
    }
    let mut lines = index.chunks_exact_mut(HDR_LINE as usize);
    entries.write(addresses.arch, artifact, out, |entry, fde| {
        entry.write(addresses, fde)?;
        entry.write_line(addresses, lines.next()?)
    })
}

impl ModuleEntries {
    /// Writes the module's CIE, if it is at the start of its entries, and calls `write` with each
    /// entry and its bytes. Returns `None` if a call does.
    fn write(
        &self,
        arch: Arch,
        artifact: &Artifact,
        out: &mut [u8],
        mut write: impl FnMut(Entry<'_>, &mut [u8]) -> Option<()>,
    ) -> Option<()> {
        let mut position = 0;
        if self.cie == self.start {
            let cie = artifact.cie();
            let padded = cie.len().next_multiple_of(8);
            out[..cie.len()].copy_from_slice(cie);
            out[cie.len()..padded].fill(0); // DW_CFA_nop
            out[..4].copy_from_slice(&arch.u32_bytes((padded - 4) as u32));
            position = padded;
        }
        let mut add = |start: u64, len: u32, rows: &[u8]| {
            let size = fde_size(rows.len() as u32) as usize;
            let entry = Entry { cie: self.cie, offset: self.start + position as u64, start, len, rows };
            write(entry, &mut out[position..position + size])?;
            position += size;
            Some(())
        };
        let mut plain = self.plain.iter().peekable();
        for (number, function) in artifact.functions().iter().enumerate() {
            while let Some(plain) = plain.next_if(|plain| plain.next <= number) {
                add(plain.start, u32::try_from(plain.len).ok()?, &[])?;
            }
            let len = function.unwind_len.get();
            if len > 0 {
                let rows = &artifact.unwind()[function.unwind_start.get() as usize..][..len as usize];
                add(function.start.get().into(), function.len.get(), rows)?;
            }
        }
        plain.try_for_each(|plain| add(plain.start, u32::try_from(plain.len).ok()?, &[]))
    }
}

/// The offset in an FDE of the pc-relative pointer to its code, in bytes.
const FDE_POINTER: u64 = 8;

/// Writes one module's entries of `.eh_frame` for a relocatable object. Calls `pointer` with the
/// offset in `.eh_frame` of each pointer to code, which is left 0, and the offset of that code in
/// the module's.
#[cfg(feature = "write")]
pub(super) fn write_relocatable(
    arch: Arch,
    artifact: &Artifact,
    entries: &ModuleEntries,
    out: &mut [u8],
    mut pointer: impl FnMut(u64, u64),
) {
    entries.write(arch, artifact, out, |entry, fde| {
        entry.write_fde(arch, 0, fde);
        pointer(entry.offset + FDE_POINTER, entry.start);
        Some(())
    });
}

/// Writes the entry of the shared stubs of a relocatable object, as [`write_relocatable`] does.
/// `end` is the end of `.eh_frame`, after the entries of all modules.
#[cfg(feature = "write")]
pub(super) fn write_relocatable_stubs(
    layout: &UnwindLayout,
    arch: Arch,
    end: &mut [u8],
    mut pointer: impl FnMut(u64, u64),
) {
    end.fill(0);
    if let Some(stubs) = &layout.shared_stubs {
        let (cie, offset, start) = (stubs.cie, stubs.entry, stubs.start);
        // The cast keeps the value: the program is smaller than 2 GiB.
        let entry = Entry { cie, offset, start, len: stubs.len as u32, rows: &[] };
        entry.write_fde(arch, 0, &mut end[..fde_size(0) as usize]);
        pointer(offset + FDE_POINTER, start);
    }
}

/// An FDE that is to be written.
struct Entry<'a> {
    /// The offset of its CIE.
    cie: u64,
    /// Its offset in `.eh_frame`.
    offset: u64,
    /// The offset of its code from [`UnwindAddresses::text`].
    start: u64,
    len: u32,
    rows: &'a [u8],
}

impl Entry<'_> {
    /// Writes the entry. Returns `None` if an address is out of reach.
    fn write(&self, addresses: UnwindAddresses, fde: &mut [u8]) -> Option<()> {
        let UnwindAddresses { arch, text, eh_frame, .. } = addresses;
        self.write_fde(arch, relative(text + self.start, eh_frame + self.offset + FDE_POINTER)?, fde);
        Some(())
    }

    /// Writes the entry's line of the index. Returns `None` if an address is out of reach.
    fn write_line(&self, addresses: UnwindAddresses, line: &mut [u8]) -> Option<()> {
        let UnwindAddresses { arch, text, eh_frame, eh_frame_hdr } = addresses;
        let code = text + self.start;
        let fields = [relative(code, eh_frame_hdr)?, relative(eh_frame + self.offset, eh_frame_hdr)?];
        let words = line.as_chunks_mut::<4>().0.iter_mut();
        words.zip(fields).for_each(|(out, field)| *out = arch.u32_bytes(field));
        Some(())
    }

    /// Writes the entry with this pointer to its code.
    fn write_fde(&self, arch: Arch, pointer: u32, fde: &mut [u8]) {
        let len = fde.len() as u32;
        if let Some(end) = fde.last_chunk_mut::<8>() {
            // Less than 8 bytes follow the rows.
            *end = [0; 8]; // DW_CFA_nop
        }
        let (head, out) = fde.split_at_mut(FDE_FIXED as usize);
        let fields = [len - 4, (self.offset + 4 - self.cie) as u32, pointer, self.len];
        let (words, augmentation) = head.as_chunks_mut::<4>();
        words.iter_mut().zip(fields).for_each(|(out, field)| *out = arch.u32_bytes(field));
        augmentation.fill(0);
        out[..self.rows.len()].copy_from_slice(self.rows);
    }
}

/// Writes the parts that belong to no module: the head of the index, the entry of the shared stubs,
/// and the end of `.eh_frame`. Here, [`UnwindAddresses::text`] is the address of the code area.
/// Returns `None` if an address is out of reach.
pub(super) fn write_ends(
    layout: &UnwindLayout,
    addresses: UnwindAddresses,
    end: &mut [u8],
    head: &mut [u8],
    line: &mut [u8],
) -> Option<()> {
    let UnwindAddresses { arch, eh_frame, eh_frame_hdr, .. } = addresses;
    end.fill(0);
    if let Some(stubs) = &layout.shared_stubs {
        let (cie, offset, start) = (stubs.cie, stubs.entry, stubs.start);
        let entry = Entry { cie, offset, start, len: u32::try_from(stubs.len).ok()?, rows: &[] };
        entry.write(addresses, &mut end[..fde_size(0) as usize])?;
        if layout.has_index {
            entry.write_line(addresses, line)?;
        }
    }
    if layout.count > 0 && layout.has_index {
        // Version 1; pointer to .eh_frame pcrel sdata4, count udata4, table datarel sdata4.
        head[..4].copy_from_slice(&[1, 0x1b, 0x03, 0x3b]);
        head[4..8].copy_from_slice(&arch.u32_bytes(relative(eh_frame, eh_frame_hdr.wrapping_add(4))?));
        head[8..12].copy_from_slice(&arch.u32_bytes(u32::try_from(layout.count).ok()?));
    }
    Some(())
}
