//! Joins the sections of units: puts them behind each other, and completes the offsets in them.

use std::collections::HashMap;

use gimli::write::{EndianVec, RelocateWriter, Relocation, RelocationTarget, Writer as _};
use gimli::{RunTimeEndian, SectionId};

use super::section::{NAMES, Reference, Section, TooLarge};

/// The sections that units have, in the order of [`NAMES`].
const SECTIONS: [SectionId; NAMES.len()] =
    [SectionId::DebugAbbrev, SectionId::DebugInfo, SectionId::DebugLine, SectionId::DebugLocLists];

/// A section of one unit. Offsets into sections are in `offsets`, and still 0 in the bytes.
#[derive(Clone, Debug)]
pub(super) struct Part {
    bytes: EndianVec<RunTimeEndian>,
    offsets: Vec<Relocation>,
}

impl Part {
    pub(super) fn new(endian: RunTimeEndian) -> Self {
        Self { bytes: EndianVec::new(endian), offsets: Vec::new() }
    }
}

impl RelocateWriter for Part {
    type Writer = EndianVec<RunTimeEndian>;

    fn writer(&self) -> &Self::Writer {
        &self.bytes
    }

    fn writer_mut(&mut self) -> &mut Self::Writer {
        &mut self.bytes
    }

    fn relocate(&mut self, offset: Relocation) {
        self.offsets.push(offset);
    }
}

/// The sections of one unit.
pub(super) type UnitSections = gimli::write::Sections<Part>;

/// Joins the sections of `units`, in their order. Most units have the same abbreviations, which are
/// kept once. Calls `refer` with every place that refers to a section or to the code.
pub(super) fn join(
    units: &[UnitSections],
    mut refer: impl FnMut(Reference),
) -> Result<Vec<Section>, TooLarge> {
    let mut joined = NAMES.map(|name| Section { name, bytes: Vec::new() });
    let mut known: HashMap<&[u8], usize> = HashMap::new();
    for unit in units {
        // The offset of each of the unit's sections.
        let mut starts = [0; NAMES.len()];
        let mut sections = Vec::with_capacity(NAMES.len());
        for (number, id) in SECTIONS.into_iter().enumerate() {
            let Some(part) = unit.get(id) else { continue };
            let bytes = part.bytes.slice();
            starts[number] = joined[number].bytes.len();
            if id == SectionId::DebugAbbrev {
                starts[number] = *known.entry(bytes).or_insert(starts[number]);
                if starts[number] < joined[number].bytes.len() {
                    continue;
                }
            }
            sections.push((number, part));
        }
        for (number, part) in sections {
            let target = &mut joined[number].bytes;
            let start = target.len();
            target.extend_from_slice(part.bytes.slice());
            for Relocation { offset, size, target: to, addend, .. } in &part.offsets {
                let RelocationTarget::Section(id) = to else {
                    let (offset, size) = (start + offset, *size);
                    refer(Reference { section: number, offset, size, target: None, addend: *addend });
                    continue;
                };
                let Some(section) = SECTIONS.iter().position(|known| known == id) else { continue };
                let value = starts[section] as u64 + *addend as u64;
                let value = u32::try_from(value).map_err(|_| TooLarge)?;
                let (offset, size) = (start + offset, *size);
                let addend = value.into();
                refer(Reference { section: number, offset, size, target: Some(section), addend });
                let site = &mut target[offset..][..usize::from(size)];
                match part.bytes.endian() {
                    RunTimeEndian::Little => site.copy_from_slice(&value.to_le_bytes()),
                    RunTimeEndian::Big => site.copy_from_slice(&value.to_be_bytes()),
                }
            }
        }
    }
    match joined.iter().any(|section| u32::try_from(section.bytes.len()).is_err()) {
        true => Err(TooLarge),
        false => Ok(joined.into()),
    }
}
