//! The sections of an object, as one list in file order.

use object::elf;

use super::debug::Debug;
use crate::elf64::{PROPERTY_ALIGN, TABLE_ALIGN};
use crate::link::{Area, Extent, ObjectPlan};
use crate::write::{property_note, type_and_flags};

/// The areas that have bytes in the file, in file order.
pub(super) const IN_FILE: [Area; 6] =
    [Area::Text, Area::Rodata, Area::Relro, Area::Data, Area::Slots, Area::EhFrame];

/// A section that has content: not a table of symbols, names or relocations.
pub(super) struct Section<'p> {
    pub(super) name: &'p str,
    /// The area that it is a part of, and its offset there; `None` for what is not loaded.
    pub(super) area: Option<(Area, u64)>,
    pub(super) extent: Extent,
    pub(super) sh_type: u32,
    pub(super) sh_flags: u32,
    /// The number of the section of debug information that it is.
    pub(super) debug: Option<usize>,
}

/// The sections of an object.
pub(super) struct Sections<'p> {
    pub(super) list: Vec<Section<'p>>,
    /// The position of the first section of debug information.
    pub(super) first_debug: usize,
    /// The content of the note about properties; empty if there is none.
    pub(super) property: Vec<u8>,
}

impl<'p> Sections<'p> {
    pub(super) fn of(plan: &ObjectPlan<'p>, debug: &Debug) -> Self {
        let mut list = Vec::new();
        for area in IN_FILE.into_iter().chain([Area::Bss]) {
            add_area(plan, area, &mut list);
        }
        let property = property_note(plan.plan().arch(), plan.plan().artifacts());
        if !property.is_empty() {
            let extent = Extent { size: property.len() as u64, align: PROPERTY_ALIGN as u64 };
            let (name, sh_type, sh_flags) = (".note.gnu.property", elf::SHT_NOTE, elf::SHF_ALLOC);
            list.push(Section { name, area: None, extent, sh_type, sh_flags, debug: None });
        }
        let first_debug = list.len();
        let mut add = |name, size: usize, debug| {
            let extent = Extent { size: size as u64, align: 1 };
            list.push(Section { name, area: None, extent, sh_type: elf::SHT_PROGBITS, sh_flags: 0, debug });
        };
        for (number, section) in debug.sections.iter().enumerate() {
            add(section.name, section.bytes.len(), Some(number));
        }
        add(".note.GNU-stack", 0, None);
        Self { list, first_debug, property }
    }

    /// Returns the position of the section that holds the byte at `offset` of an area, and the
    /// offset in the section.
    pub(super) fn find(&self, area: Area, offset: u64) -> (usize, u64) {
        let place = |section: &Section<'_>| section.area.filter(|(own, _)| *own == area);
        let before = |section: &Section<'_>| place(section).is_some_and(|(_, start)| start <= offset);
        // Areas with data have a section, and named sections are few.
        let found = self.list.iter().rposition(before).unwrap_or(0);
        (found, offset - place(&self.list[found]).map_or(0, |(_, start)| start))
    }
}

/// Adds the sections of an area: first that of everything that is in no named section, then the
/// named sections.
fn add_area<'p>(object: &ObjectPlan<'p>, area: Area, list: &mut Vec<Section<'p>>) {
    let plan = object.plan();
    let (sh_type, sh_flags) = type_and_flags(area);
    let mut add = |name, offset, extent| {
        list.push(Section { name, area: Some((area, offset)), extent, sh_type, sh_flags, debug: None });
    };
    let unnamed = match area {
        Area::EhFrame => Extent { size: object.unwind_size(), align: TABLE_ALIGN as u64 },
        _ => plan.unnamed(area),
    };
    // Empty data is somewhere, too.
    let is_always = matches!(area, Area::Text | Area::Rodata | Area::Data | Area::Bss);
    if unnamed.size > 0 || is_always {
        add(area.name(), 0, unnamed);
    }
    for section in plan.sections().filter(|section| section.area == area) {
        add(section.name, section.offset, Extent { size: section.size, align: section.align });
    }
}
