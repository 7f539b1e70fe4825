//! Altered images give an error or fail verification, and never a panic.

use std::ops::Range;

use kiln_image::{FunctionRef, Image, ImageInfo, ImageOptions, LoadError, verify_bytes, write_image};

use crate::direct;
use crate::note_sum::note_sum;
use crate::replaceable;
use crate::support::{I64_TO_I64, image, program, table};

/// Loads an image and uses it, if it is accepted, without calling its code.
fn load(bytes: &[u8]) -> Result<(), LoadError> {
    let image = Image::from_bytes(bytes)?;
    let verified = image.verify();
    let count = image.slots().len();
    if let Ok(loaded) = image.bind_array(&vec![0x1000; count]) {
        for name in ["add3", "f", "names", "kiln_slots", "nothing"] {
            let _ = loaded.address(name);
            let Some(function) = loaded.function(name) else { continue };
            // SAFETY: nothing is called.
            let _ = unsafe { loaded.replace(name, FunctionRef::new("", std::ptr::null(), I64_TO_I64)) };
            // SAFETY: nothing is called, and whoever got an address above has checked the rows.
            let _ = unsafe { function.typed::<extern "C" fn(i64) -> i64>() };
        }
    }
    verified
}

#[test]
fn every_truncation_is_an_error() {
    let bytes = image();
    let loaded = loaded_ranges(&bytes).into_iter().map(|range| range.end).max().unwrap();
    for len in 0..bytes.len() {
        // Loading does not need what follows the segments.
        assert!(ImageInfo::parse(&bytes[..len]).is_err(), "{len}");
        assert_eq!(Image::from_bytes(&bytes[..len]).is_err(), len < loaded, "{len}");
        assert_eq!(verify_bytes(&bytes[..len]).is_err(), len < loaded, "{len}");
    }
    let mut longer = bytes;
    longer.push(0);
    load(&longer).unwrap();
}

/// The ranges of the file that segments are loaded from.
fn loaded_ranges(bytes: &[u8]) -> Vec<Range<usize>> {
    let headers = (0..usize::from(bytes[56])).map(|index| 64 + 56 * index);
    let number = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap()) as usize;
    let loads = headers.filter(|&at| bytes[at..at + 4] == [1, 0, 0, 0]);
    loads.map(|at| number(at + 8)..number(at + 8) + number(at + 32)).collect()
}

/// The ranges of the file that checksums cover: the content of what is loaded, with the exception
/// of what tools change, which is the headers, the dynamic section, and where names and sections of
/// dynamic symbols are.
fn covered_ranges(bytes: &[u8]) -> Vec<Range<usize>> {
    let info = ImageInfo::parse(bytes).unwrap();
    let loaded = info.sections.iter().filter(|section| section.loaded && section.name.as_ref() != ".bss");
    let mut ranges = Vec::new();
    for section in loaded {
        let (start, end) = (section.offset as usize, (section.offset + section.size) as usize);
        match section.name.as_ref() {
            ".dynamic" | ".note.gnu.build-id" => {}
            // The first name is empty, and that of the null symbol.
            ".dynstr" => ranges.push(start + 1..end),
            ".dynsym" => {
                ranges.extend((start + 24..end).step_by(24).flat_map(|at| [at + 4..at + 6, at + 8..at + 24]))
            }
            _ => ranges.push(start..end),
        }
    }
    ranges
}

#[test]
fn every_flipped_byte_is_found() {
    let bytes = image();
    let mut altered = bytes.clone();
    let covered = covered_ranges(&bytes);
    for at in 0..bytes.len() {
        // Every bit of what the loader reads, one bit of each byte elsewhere.
        let bits = if at < 4096 { 8 } else { 1 };
        let is_covered = covered.iter().any(|range| range.contains(&at));
        for bit in 0..bits {
            altered[at] ^= 1 << bit;
            let _ = ImageInfo::parse(&altered);
            assert!(!is_covered || verify_bytes(&altered).is_err(), "byte {at:#x} bit {bit}");
            if at % 7 == 0 || at < 0x400 {
                let loaded = load(&altered);
                assert!(!is_covered || loaded.is_err(), "byte {at:#x} bit {bit}");
            }
            altered[at] = bytes[at];
        }
    }
}

#[test]
fn the_altered_section_is_named() {
    let bytes = image();
    let info = ImageInfo::parse(&bytes).unwrap();
    let covered = covered_ranges(&bytes);
    for section in info.sections.iter().filter(|section| section.loaded) {
        let range = section.offset as usize..(section.offset + section.size) as usize;
        let Some(first) = covered.iter().find(|covered| range.contains(&covered.start)) else { continue };
        let mut altered = bytes.clone();
        altered[first.start] ^= 1;
        let name = match section.name.as_ref() {
            ".note.kiln" => continue,
            ".dynsym" | ".dynstr" => "dynamic symbols",
            ".rela.dyn" | ".relr.dyn" => "relocations",
            name => name,
        };
        let error = verify_bytes(&altered).unwrap_err();
        assert_eq!(error.to_string(), format!("{name} was altered: its checksum differs"));
    }
}

/// The end of the part of a note's body that its checksum is about: the exports come after it.
pub(crate) fn summed(body: &[u8]) -> Option<usize> {
    const EXPORTS: usize = 136 + 8 * 16;
    let start = body.get(EXPORTS..EXPORTS + 8)?.first_chunk().copied().map(u64::from_le_bytes)?;
    usize::try_from(start).ok().filter(|end| (8..=body.len()).contains(end))
}

/// The position of the slot array's address in the body of the note.
const SLOT_ARRAY: usize = 136 + 9 * 16;

/// The position of the note in an image.
pub(crate) struct Note {
    /// Length of everything before it.
    head: usize,
    /// Its body, after the ELF note's header.
    pub(crate) body: Range<usize>,
}

impl Note {
    pub(crate) fn of(bytes: &[u8]) -> Self {
        let section = ImageInfo::parse(bytes).unwrap().sections[0].clone();
        let (head, len) = (section.offset as usize, section.size as usize);
        Self { head, body: head + 20..head + len }
    }

    /// Corrects the note's own checksum.
    pub(crate) fn reseal(&self, altered: &mut [u8]) {
        let Some(end) = summed(&altered[self.body.clone()]) else { return };
        let sum = note_sum(&altered[self.body.start + 8..self.body.start + end]);
        altered[self.body.start..self.body.start + 8].copy_from_slice(&sum.to_le_bytes());
    }
}

/// Hostile bytes with correct checksums: the note is resealed after every change, so the checks
/// that follow are reached.
#[test]
fn a_resealed_note_still_cannot_do_harm() {
    for bytes in [image(), replaceable::image(), direct::image()] {
        alter_note(&bytes);
    }
}

fn alter_note(bytes: &[u8]) {
    let note = Note::of(bytes);
    let (head, body) = (note.head, note.body.clone());
    let mut same = bytes.to_vec();
    note.reseal(&mut same);
    assert_eq!(same, bytes, "resealing changes nothing by itself");
    for at in (0..head).chain(body.start + 8..body.end) {
        for value in [0x00, 0x01, 0x7f, 0x80, 0xff] {
            let mut altered = bytes.to_vec();
            altered[at] = value;
            note.reseal(&mut altered);
            let _ = (ImageInfo::parse(&altered), load(&altered));
        }
    }
}

/// The checksums of the tables are not compared at open, so wrong tables must be safe to use.
#[test]
fn altered_tables_cannot_do_harm() {
    let packed = ImageOptions { pack_relocations: true, ..ImageOptions::default() };
    let packed = write_image(&program(), &table(), &packed).unwrap();
    let tables: [(_, &[_]); 3] = [
        (image(), &[".gnu.hash", ".dynsym", ".dynstr", ".rela.dyn"]),
        (packed, &[".relr.dyn", ".dynamic"]),
        (direct::image(), &[".kiln.patches", ".dynamic", ".rela.dyn"]),
    ];
    for (bytes, names) in tables {
        let info = ImageInfo::parse(&bytes).unwrap();
        for name in names {
            let section = info.sections.iter().find(|section| section.name.as_ref() == *name).unwrap();
            for at in section.offset..section.offset + section.size {
                for value in [0x00, 0x01, 0x7f, 0x80, 0xff] {
                    let mut altered = bytes.clone();
                    altered[at as usize] = value;
                    let _ = (ImageInfo::parse(&altered), load(&altered));
                }
            }
        }
    }
}

/// Several bytes at once, with correct checksums where the loader compares them. The numbers are
/// the same in every run.
#[test]
fn random_damage_cannot_do_harm() {
    let bytes = image();
    let note = Note::of(&bytes);
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = |limit: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state % limit as u64) as usize
    };
    let other = replaceable::image();
    let other = (Note::of(&other), other);
    for round in 0..20_000 {
        let (note, bytes) = if round % 4 == 0 { (&other.0, &other.1) } else { (&note, &bytes) };
        let mut altered = bytes.clone();
        for _ in 0..=next(6) {
            let at = next(note.body.end + 1024);
            altered[at] = match next(4) {
                0 => 0,
                1 => 0xff,
                2 => altered[at].wrapping_add(1),
                _ => next(256) as u8,
            };
        }
        note.reseal(&mut altered);
        let _ = (ImageInfo::parse(&altered), load(&altered));
    }
}

/// The loader reads the first segment while it writes others, so it must hold the note and be
/// read-only.
#[test]
fn a_first_segment_that_is_short_or_writable_does_no_harm() {
    let bytes = image();
    let note = Note::of(&bytes);
    let mut short = bytes.clone();
    for field in [64 + 32, 64 + 40] {
        short[field..field + 8].copy_from_slice(&0x200u64.to_le_bytes()); // p_filesz, p_memsz
    }
    let error = load(&short).unwrap_err().to_string();
    assert!(error.contains("no note of kiln"), "{error}");
    // Whatever the header says, the loader does not make such a segment writable.
    let mut writable = bytes;
    writable[64 + 4] = 6; // p_flags
    let loaded = Image::from_bytes(&writable).unwrap().bind_array(&[1, 2, 3]).unwrap();
    let start = format!("{:x}-", loaded.base() as usize);
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
    let line = maps.lines().find(|line| line.starts_with(&start)).unwrap();
    assert!(line.contains(" r--p "), "{line}");
    // Slots in a segment that has tables would never be filled.
    let slots = note.body.start + SLOT_ARRAY;
    let mut altered = writable;
    altered[slots..slots + 8].copy_from_slice(&0u64.to_le_bytes());
    note.reseal(&mut altered);
    let error = load(&altered).unwrap_err().to_string();
    assert!(error.contains("a misplaced slot array"), "{error}");
}

/// Unwind rows are given to the unwinder of the process, so they must be whole, and about the code
/// of the image. Every byte is altered, and what is still accepted is registered and taken back.
#[test]
fn altered_unwind_rows_are_refused_before_they_are_registered() {
    let bytes = image();
    let info = ImageInfo::parse(&bytes).unwrap();
    let section = info.sections.iter().find(|section| &*section.name == ".eh_frame").unwrap();
    let range = section.offset as usize..(section.offset + section.size) as usize;
    let bind = |bytes: &[u8]| {
        let loaded = Image::from_bytes(bytes).unwrap().bind_array(&[1, 2, 3])?;
        // A function can be had in any case; nobody can unwind through it then.
        assert!(!loaded.function("add3").unwrap().address().is_null());
        loaded.register_unwind_rows()
    };
    bind(&bytes).unwrap();
    let mut refused = 0;
    for at in range.clone() {
        for value in [0x00, 0x01, 0x7f, 0x80, 0xff] {
            let mut altered = bytes.clone();
            altered[at] = value;
            let result = bind(&altered);
            let expected = "unwind rows that unwinders cannot follow";
            let text = result.map_or_else(|error| error.to_string(), |()| String::new());
            assert!(text.is_empty() || text.contains(expected), "{text}");
            refused += usize::from(!text.is_empty());
        }
    }
    // Lengths, identifiers, pointers and ranges are half of the bytes.
    assert!(refused * 4 > range.len() * 5, "{refused} of {}", 5 * range.len());
    // An entry that is about code outside of the image, or about more code than there is, would be
    // believed by whoever unwinds that code. The first entry is after the CIE.
    let entry = range.start + 24;
    for (field, value) in [(8, 0_i32), (8, i32::MIN), (12, 0x10_0000), (12, -1)] {
        let mut altered = bytes.clone();
        altered[entry + field..entry + field + 4].copy_from_slice(&value.to_le_bytes());
        assert!(bind(&altered).is_err(), "{field} {value}");
    }
    let without =
        |bytes: &[u8]| Image::from_bytes(bytes).unwrap().unwind(false).bind_array(&[1, 2, 3]).map(drop);
    let mut altered = bytes;
    altered[range.start..range.end].fill(0xff);
    assert!(bind(&altered).is_err() && without(&altered).is_ok(), "who does not register, does not check");
}
