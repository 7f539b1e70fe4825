//! Finding Kiln's note among the notes of a file.
//!
//! A `PT_NOTE` may hold several notes, because linkers and tools put notes together.

use object::elf;

use super::headers::{Headers, ProgramHeader};
use super::number::Numbers;
use crate::arch::Arch;
use crate::elf64::NOTE_HEADER;
use crate::note::{PREFIX_LEN, is_prefix};

/// The most notes that are looked at. Each of the program headers may lead to the same bytes.
const MAX_NOTES: usize = 256;

/// The place of Kiln's note in the segment of a program header, in bytes.
#[derive(Clone, Copy)]
pub(crate) struct NotePlace {
    pub(crate) header: ProgramHeader,
    pub(crate) start: u64,
    pub(crate) len: u64,
}

/// Finds Kiln's note. `read` returns the first bytes of a note at an offset in the segment of a
/// program header, or `None` if there are no bytes.
pub(crate) fn find_note(
    headers: &Headers,
    mut read: impl FnMut(&ProgramHeader, u64) -> Option<[u8; PREFIX_LEN]>,
) -> Option<NotePlace> {
    let mut count = 0;
    for header in headers.of_kind(elf::PT_NOTE) {
        let mut start = 0;
        while count < MAX_NOTES && header.file_len.saturating_sub(start) >= PREFIX_LEN as u64 {
            count += 1;
            let Some(prefix) = read(header, start) else { break };
            let [name, body] = lens(&prefix, headers.arch);
            let name_end = NOTE_HEADER as u64 + name;
            if is_prefix(&prefix, headers.arch) {
                return Some(NotePlace { header: *header, start, len: name_end });
            }
            let align = if header.align == 8 { 8 } else { 4 };
            start += name_end.next_multiple_of(align) + body.next_multiple_of(align);
        }
    }
    None
}

/// Returns the lengths of a note's name and descriptor, in bytes.
fn lens(prefix: &[u8; PREFIX_LEN], arch: Arch) -> [u64; 2] {
    let numbers = Numbers { bytes: prefix, endian: arch.endian() };
    [0, 4].map(|at| numbers.u32(at).unwrap_or_default().into())
}
