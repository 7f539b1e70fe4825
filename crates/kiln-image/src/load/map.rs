//! Address space: one reservation per image, released as a whole.
//!
//! Invariant: a [`Reservation`] owns `base..base + len` until it is dropped, and every method
//! checks that its range is inside. If its length allows, no multiple of 4 GiB is inside it, other
//! than its base, because libgcc's unwinder ignores registered unwind information of a function
//! that begins at such an address.

use std::ffi::c_void;
use std::fs::File;
use std::io::{self, Write as _};
use std::ops::Range;
use std::ptr;
use std::sync::atomic::{AtomicUsize, Ordering};

use rustix::fs::{MemfdFlags, memfd_create};
use rustix::mm::{
    MapFlags, MprotectFlags, MremapFlags, ProtFlags, mmap, mmap_anonymous, mprotect, mremap_fixed, munmap,
};

/// The permissions of pages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Access {
    Read,
    ReadWrite,
    ReadExecute,
}

/// A part of the memory of an image, which begins and ends at a page.
#[derive(Clone, Debug)]
pub(super) struct Piece {
    /// Distances from the load address.
    pub(super) range: Range<usize>,
    /// The offset of its first byte in the file, also at a page; `None` for zeroed pages.
    pub(super) offset: Option<u64>,
    pub(super) access: Access,
}

impl Piece {
    /// Whether it continues `other` in memory and in the file, with the same permissions.
    pub(super) fn follows(&self, other: &Self) -> bool {
        let end = other.offset.map(|offset| offset + other.range.len() as u64);
        self.access == other.access && self.range.start == other.range.end && self.offset == end
    }
}

/// Maps a piece of `file`.
///
/// # Safety
///
/// With `flags`, the mapping must replace nothing that is used.
unsafe fn map_at(
    address: *mut c_void,
    file: &File,
    piece: &Piece,
    flags: MapFlags,
) -> io::Result<*mut c_void> {
    let prot = match piece.access {
        Access::Read => ProtFlags::READ,
        Access::ReadWrite => ProtFlags::READ | ProtFlags::WRITE,
        Access::ReadExecute => ProtFlags::READ | ProtFlags::EXEC,
    };
    let len = piece.range.len();
    // SAFETY: the caller promises that nothing is replaced that is used.
    let mapped = unsafe {
        match piece.offset {
            Some(offset) => mmap(address, len, prot, flags, file, offset),
            None => mmap_anonymous(address, len, prot, flags),
        }
    };
    Ok(mapped?)
}

/// No multiple of this is inside a reservation, if its size allows.
const BOUNDARY: usize = 1 << 32;

/// An owned range of address space.
#[derive(Debug)]
pub(super) struct Reservation {
    base: *mut u8,
    len: usize,
}

// SAFETY: the memory of a reservation belongs to no thread; methods that write take `&mut self`.
unsafe impl Send for Reservation {}
// SAFETY: as above, and methods that take `&self` only read, or write one cell atomically.
unsafe impl Sync for Reservation {}

impl Reservation {
    /// Reserves `len` bytes, rounded up to `page`, without access, at a multiple of `align`, which
    /// is a power of two.
    pub(super) fn new(len: usize, page: usize, align: usize) -> io::Result<Self> {
        let len = len.max(1).checked_next_multiple_of(page).ok_or(io::ErrorKind::OutOfMemory)?;
        let flags = MapFlags::PRIVATE | MapFlags::NORESERVE;
        // SAFETY: a new mapping at an address that the kernel chooses touches nothing that exists.
        let map = |len| unsafe { mmap_anonymous(ptr::null_mut(), len, ProtFlags::empty(), flags) };
        let new = Self { base: map(len)?.cast(), len };
        if !new.crosses_boundary() && (new.base as usize).is_multiple_of(align) {
            return Ok(new);
        }
        // A part of more than twice the length crosses no boundary; the rest is unmapped again.
        drop(new);
        let more = len.checked_mul(2).and_then(|twice| twice.checked_add(2 * align));
        let more = more.ok_or(io::ErrorKind::OutOfMemory)?;
        let start = map(more)? as usize;
        let boundary = start.next_multiple_of(BOUNDARY.max(align));
        let aligned = start.next_multiple_of(align);
        let base =
            if aligned + len <= boundary || boundary + len > start + more { aligned } else { boundary };
        for unused in [start..base, base + len..start + more] {
            if !unused.is_empty() {
                // SAFETY: a part of the new mapping, which nothing uses.
                let _ = unsafe { munmap(unused.start as *mut c_void, unused.len()) };
            }
        }
        Ok(Self { base: base as *mut u8, len })
    }

    /// Returns whether a multiple of [`BOUNDARY`] is inside, other than the base.
    fn crosses_boundary(&self) -> bool {
        self.base as usize / BOUNDARY != (self.base as usize + self.len - 1) / BOUNDARY
    }

    /// Maps pieces of `file` at their distances from `base`. `None` if something else is there.
    pub(super) fn of_pieces_at(base: usize, file: &File, pieces: &[Piece]) -> io::Result<Option<Self>> {
        let len = pieces.last().map_or(0, |piece| piece.range.end);
        let flags = MapFlags::PRIVATE | MapFlags::NORESERVE | MapFlags::FIXED_NOREPLACE;
        let wanted = ptr::with_exposed_provenance_mut::<c_void>(base);
        // SAFETY: the kernel replaces nothing that exists.
        let found = match unsafe { mmap_anonymous(wanted, len, ProtFlags::empty(), flags) } {
            Ok(found) => found,
            // Another mapping is there, or the address is above what the system has.
            Err(_) => return Ok(None),
        };
        // It owns the mapping, in case of an error; kernels before 4.17 choose another address.
        let mut new = Self { base: found.cast(), len };
        if found != wanted || new.crosses_boundary() {
            return Ok(None);
        }
        for piece in pieces {
            new.map_piece(file, piece)?;
        }
        Ok(Some(new))
    }

    /// Maps pieces of `file` at the distances from a base that they name, which the kernel chooses,
    /// at a multiple of `align`. `pieces` are in order and do not overlap.
    pub(super) fn of_pieces(file: &File, pieces: &[Piece], page: usize, align: usize) -> io::Result<Self> {
        let is_whole = pieces.first().is_some_and(|piece| piece.range.start == 0)
            && pieces.windows(2).all(|pair| pair[0].range.end == pair[1].range.start);
        if is_whole
            && align <= page
            && let Some(new) = Self::side_by_side(file, pieces)?
        {
            return Ok(new);
        }
        let mut new = Self::new(pieces.last().map_or(0, |piece| piece.range.end), page, align)?;
        for piece in pieces {
            new.map_piece(file, piece)?;
        }
        Ok(new)
    }

    /// Maps pieces that leave no gap: the longest one with all addresses after it, and what is in
    /// front of it below, since the kernel gives out addresses from above. This takes less time
    /// than a reservation, which is cut into pieces again. The longest is first because a short one
    /// would be put where the others do not fit. `None` if something else is in the way.
    fn side_by_side(file: &File, pieces: &[Piece]) -> io::Result<Option<Self>> {
        let longest = pieces.iter().enumerate().max_by_key(|(_, piece)| piece.range.len());
        let (Some((longest, first)), Some(last)) = (longest, pieces.last()) else { return Ok(None) };
        let (start, end) = (first.range.start, last.range.end);
        let whole = Piece { range: start..end, ..first.clone() };
        // SAFETY: a new mapping at an address that the kernel chooses touches nothing that exists.
        let base = unsafe { map_at(ptr::null_mut(), file, &whole, MapFlags::PRIVATE) }?;
        // It owns what is mapped so far, in case of an error.
        let mut new = Self { base: base.cast(), len: end - start };
        for piece in &pieces[longest + 1..] {
            let range = piece.range.start - start..piece.range.end - start;
            new.map_piece(file, &Piece { range, ..piece.clone() })?;
        }
        for piece in pieces[..longest].iter().rev() {
            let len = piece.range.len();
            let address = new.base.wrapping_sub(len);
            let flags = MapFlags::PRIVATE | MapFlags::FIXED_NOREPLACE;
            // SAFETY: the kernel replaces nothing that exists.
            match unsafe { map_at(address.cast(), file, piece, flags) } {
                Ok(found) if found == address.cast() => {
                    (new.base, new.len) = (address, new.len + len);
                }
                Ok(elsewhere) => {
                    // Kernels before 4.17 do not know the flag.
                    // SAFETY: this is the new mapping, which nothing uses.
                    let _ = unsafe { munmap(elsewhere, len) };
                    return Ok(None);
                }
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return Ok(None),
                Err(error) => return Err(error),
            }
        }
        Ok(Some(new).filter(|new| !new.crosses_boundary()))
    }

    /// Maps one piece, in place of what is there.
    pub(super) fn map_piece(&mut self, file: &File, piece: &Piece) -> io::Result<()> {
        let address = self.inside(&piece.range)?;
        // SAFETY: the range is in the reservation, which nothing else uses, and no reference into
        // it exists: `self` is borrowed mutably.
        unsafe { map_at(address, file, piece, MapFlags::PRIVATE | MapFlags::FIXED) }?;
        Ok(())
    }

    /// Returns the address of the first byte.
    pub(super) fn base(&self) -> *const u8 {
        self.base
    }

    /// Returns all addresses.
    pub(super) fn addresses(&self) -> Range<usize> {
        self.base as usize..self.base as usize + self.len
    }

    /// Returns the address at which `range` starts, or an error if `range` is not inside.
    fn inside(&self, range: &Range<usize>) -> io::Result<*mut c_void> {
        if range.start > range.end || range.end > self.len {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        Ok(self.base.wrapping_add(range.start).cast())
    }

    /// Replaces code that is mapped from a file, at `range`, which starts at a page, by a copy in
    /// memory of no file. Returns whether the system allows that; if not, nothing has changed.
    ///
    /// Nobody may run the code meanwhile.
    pub(super) fn copy_code(&mut self, range: Range<usize>) -> io::Result<bool> {
        let (address, len) = (self.inside(&range)?, range.len());
        let (write, execute) =
            (ProtFlags::READ | ProtFlags::WRITE, MprotectFlags::READ | MprotectFlags::EXEC);
        // SAFETY: a new mapping at an address that the kernel chooses, as long as the code, which
        // is readable. It belongs to nobody else until it is in the place of the code, which is in
        // the reservation; no reference into that exists: `self` is borrowed mutably.
        unsafe {
            let copy = mmap_anonymous(ptr::null_mut(), len, write, MapFlags::PRIVATE)?;
            ptr::copy_nonoverlapping(address.cast::<u8>(), copy.cast::<u8>(), len);
            // `PR_SET_MDWE` forbids the first of these, before anything has changed. A profiler is
            // told of code by a change of permissions, not by a move, so the last one is needed.
            let moved = mprotect(copy, len, execute)
                .and_then(|()| mprotect(copy, len, MprotectFlags::READ))
                .and_then(|()| mremap_fixed(copy, len, len, MremapFlags::MAYMOVE, address));
            if moved.is_err() {
                munmap(copy, len)?;
                return Ok(false);
            }
            mprotect(address, len, execute)?;
        }
        Ok(true)
    }

    /// Replaces code that is in writable memory, at `range`, which starts at a page, by an
    /// executable mapping of a file in memory with the same bytes. The error has the call that was
    /// refused; then nothing has changed.
    ///
    /// Nobody may run the code meanwhile.
    pub(super) fn execute_copy(&mut self, range: Range<usize>) -> Result<(), (&'static str, io::Error)> {
        let address = self.inside(&range).map_err(|error| ("mmap", error))?;
        let copy = memfd_create(c"kiln code", MemfdFlags::CLOEXEC);
        let copy = File::from(copy.map_err(|error| ("memfd_create", error.into()))?);
        // SAFETY: inside the reservation, readable, and not written while `self` is borrowed.
        let bytes = unsafe { std::slice::from_raw_parts(address.cast::<u8>(), range.len()) };
        (&copy).write_all(bytes).map_err(|error| ("write to a memfd", error))?;
        let piece = Piece { range, offset: Some(0), access: Access::ReadExecute };
        self.map_piece(&copy, &piece).map_err(|error| ("mmap(PROT_READ | PROT_EXEC) of a memfd", error))
    }

    /// Sets the permissions of the pages of `range`, which starts at a page.
    pub(super) fn protect(&mut self, range: Range<usize>, access: Access) -> io::Result<()> {
        let address = self.inside(&range)?;
        let flags = match access {
            Access::Read => MprotectFlags::READ,
            Access::ReadWrite => MprotectFlags::READ | MprotectFlags::WRITE,
            Access::ReadExecute => MprotectFlags::READ | MprotectFlags::EXEC,
        };
        // SAFETY: the range is in the reservation, and no reference into it exists: `self` is
        // borrowed mutably.
        unsafe { mprotect(address, range.len(), flags) }?;
        Ok(())
    }

    /// Returns `len` bytes from `offset` on.
    ///
    /// # Safety
    ///
    /// The bytes must be readable, and must not be written while the slice lives.
    pub(super) unsafe fn bytes(&self, offset: usize, len: usize) -> &[u8] {
        assert!(offset.checked_add(len).is_some_and(|end| end <= self.len), "inside the reservation");
        // SAFETY: inside the reservation, readable and not written, as the caller promises.
        unsafe { std::slice::from_raw_parts(self.base.add(offset), len) }
    }

    /// Copies `bytes` to `offset`.
    ///
    /// # Safety
    ///
    /// The pages must be writable.
    pub(super) unsafe fn write(&mut self, offset: usize, bytes: &[u8]) {
        let fits = offset.checked_add(bytes.len()).is_some_and(|end| end <= self.len);
        assert!(fits, "inside the reservation");
        // SAFETY: inside the reservation, writable as the caller promises; `bytes` is not part of
        // it, since `self` is borrowed mutably.
        unsafe { ptr::copy_nonoverlapping(bytes.as_ptr(), self.base.add(offset), bytes.len()) }
    }

    /// Adds `number` to the 8 bytes at `offset`.
    ///
    /// # Safety
    ///
    /// The pages must be writable.
    pub(super) unsafe fn add(&mut self, offset: usize, number: u64) {
        let fits = offset.checked_add(8).is_some_and(|end| end <= self.len);
        assert!(fits, "inside the reservation");
        // SAFETY: inside the reservation, readable and writable as the caller promises.
        unsafe {
            let place = self.base.add(offset).cast::<u64>();
            place.write_unaligned(place.read_unaligned().wrapping_add(number));
        }
    }

    /// Writes `value` into the 8 bytes at `offset` and returns what was there, as one operation:
    /// other threads see the old value or the new one.
    ///
    /// # Safety
    ///
    /// The pages must be writable, and nobody may have a reference to these bytes or write them in
    /// another way.
    pub(super) unsafe fn swap(&self, offset: usize, value: usize) -> usize {
        let fits = offset.is_multiple_of(8) && offset.checked_add(8).is_some_and(|end| end <= self.len);
        assert!(fits, "aligned, and inside the reservation");
        // SAFETY: inside the reservation, whose base is that of a page, so the cell is aligned;
        // writable and not accessed in another way, as the caller promises. Code of the image reads
        // it with plain loads of 8 aligned bytes, which are atomic.
        unsafe { AtomicUsize::from_ptr(self.base.add(offset).cast()) }.swap(value, Ordering::AcqRel)
    }

    /// Fills `range` with zeros.
    ///
    /// # Safety
    ///
    /// The pages must be writable.
    pub(super) unsafe fn clear(&mut self, range: Range<usize>) {
        assert!(range.start <= range.end && range.end <= self.len, "inside the reservation");
        // SAFETY: inside the reservation, writable as the caller promises.
        unsafe { ptr::write_bytes(self.base.add(range.start), 0, range.len()) }
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        // SAFETY: the range was mapped by `new` or `side_by_side` and is released once; whoever was
        // given an address in it may use the address only while it lives. After an error, which
        // cannot be handled here, the range stays reserved.
        let _ = unsafe { munmap(self.base.cast(), self.len) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_multiple_of_four_gigabytes_is_inside() {
        // All exist at once, so that they are side by side and together span many multiples.
        let all: Vec<_> =
            (0..16).map(|_| Reservation::new((1 << 31) - 4096, 4096, 1 << 12).unwrap()).collect();
        for one in all {
            assert_eq!(one.base as usize >> 32, (one.base as usize + one.len - 1) >> 32);
        }
        for shift in [12, 16, 21, 30] {
            let one = Reservation::new(3 << 20, 4096, 1 << shift).unwrap();
            assert_eq!(one.base as usize % (1 << shift), 0);
            assert_eq!(one.base as usize >> 32, (one.base as usize + one.len - 1) >> 32);
        }
    }
}
