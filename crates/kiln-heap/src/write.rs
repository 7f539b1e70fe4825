//! Makes the artifact: runs of objects as named data, a relocation for each pointer, and a global
//! for each root.

use kiln_artifact::record::{
    Linkage, NONE, NamedData, Reloc, SectionKind, Summary, SymbolKind, SymbolRecord,
};
use kiln_artifact::{Artifact, Contents, RelocKind};

use crate::collect::{Aim, Heap};
use crate::input::Input;
use crate::place::{Places, RUN_ALIGN, Run};

/// Writes the module of a heap. Equal heaps give equal bytes.
pub(crate) fn write(input: &Input<'_>, heap: &Heap, places: &Places) -> Artifact {
    let mut contents = Contents::default();
    let triple = contents.string(input.triple);
    let producer = contents.string(concat!("kiln-heap ", env!("CARGO_PKG_VERSION")));
    let align = (RUN_ALIGN as u32).into();
    contents.summary =
        Summary { triple, producer, read_only_align: align, writable_align: align, ..Summary::default() };

    // Symbol i is run i; symbols with names and roots follow.
    for run in &places.runs {
        let name = contents.string(run.name);
        contents.named_data.push(NamedData {
            name,
            start: (run.start as u64).into(),
            len: (run.len as u64).into(),
            align,
            section: run.section as u8,
            reserved: [0; 3],
        });
        push(&mut contents, "", SymbolKind::Data, Linkage::Local, Some((run, 0, run.len)));
    }
    let first_name = places.runs.len() as u32;
    for (kind, name) in &heap.symbols {
        push(&mut contents, name, *kind, Linkage::Import, None);
    }
    for (root, &(object, distance)) in input.roots.iter().zip(&heap.roots) {
        let (run, offset) = places.objects[object as usize];
        let size = heap.objects[object as usize].object.size - distance as usize;
        let place = (&places.runs[run as usize], (offset + distance) as usize, size);
        push(&mut contents, root.key, SymbolKind::Global, Linkage::Export, Some(place));
    }

    let len = |section| {
        let ends = places.runs.iter().filter(|run| run.section == section).map(|run| run.start + run.len);
        ends.max().unwrap_or_default()
    };
    contents.read_only = vec![0; len(SectionKind::ReadOnly)];
    contents.writable = vec![0; len(SectionKind::Writable)];
    for (number, &(run, offset)) in places.objects.iter().enumerate() {
        let run = &places.runs[run as usize];
        let start = run.start + offset as usize;
        let Contents { read_only, writable, read_only_relocs, writable_relocs, .. } = &mut contents;
        let (bytes, relocs) = match run.section {
            SectionKind::Writable => (writable, writable_relocs),
            _ => (read_only, read_only_relocs),
        };
        let object = heap.bytes(number);
        let place = &mut bytes[start..start + object.len()];
        place.copy_from_slice(object);
        for pointer in heap.pointers(number) {
            let at = pointer.offset as usize;
            // An address of this process would make the bytes differ each time.
            place[at..at + 8].fill(0);
            let (symbol, addend) = match pointer.aim {
                Aim::Object { number, distance } => {
                    let (run, offset) = places.objects[number as usize];
                    (run, i64::from(offset) + i64::from(distance))
                }
                Aim::Symbol { number, distance } => (first_name + number, distance),
            };
            relocs.push(Reloc {
                offset: ((start + at) as u64).into(),
                addend: addend.into(),
                symbol: symbol.into(),
                kind: RelocKind::Abs64 as u8,
                flags: 0,
                reserved: [0; 2],
            });
        }
    }
    contents.finish()
}

/// Adds a symbol: `place` is its run, its offset there and its size, if the module defines it.
fn push(
    contents: &mut Contents,
    name: &str,
    kind: SymbolKind,
    linkage: Linkage,
    place: Option<(&Run, usize, usize)>,
) {
    let name = contents.string(name);
    let (section, offset, size) = place.map_or((SectionKind::Undefined, 0, 0), |(run, offset, size)| {
        (run.section, run.start + offset, size)
    });
    contents.symbols.push(SymbolRecord {
        name,
        offset: (offset as u64).into(),
        size: (size as u64).into(),
        signature: NONE.into(),
        kind: kind as u8,
        linkage: linkage as u8,
        section: section as u8,
        libcall: 0,
    });
}
