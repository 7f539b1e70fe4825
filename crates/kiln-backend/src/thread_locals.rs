//! Thread-local data: the words by which code finds it.
//!
//! Code that takes the address of a thread-local symbol passes the address of two words to a
//! function of the C library: the general dynamic model of ELF (on aarch64, the words are a TLS
//! descriptor that has the function). Linkers usually make these words, in the GOT. Here the module
//! has them, one pair for each thread-local symbol that it refers to, in read-only data, with a
//! relocation of the kind [`RelocKind::ThreadLocal`]. So for a linker, code refers to data of its
//! own module, and only the pairs need its attention.
//!
//! The data itself is in a section `.tdata`, as the initial content of each thread's copy.
//!
//! Sources: Drepper, "ELF Handling For Thread-Local Storage", section 4; ELF for the Arm 64-bit
//! Architecture, section 5.7.11.

use indexmap::IndexSet;
use kiln_artifact::record::{self, NONE, Reloc, SectionKind, SymbolRecord};
use kiln_artifact::{Artifact, Contents, RelocKind};

/// Length of the words of a symbol, in bytes.
pub(crate) const LEN: u64 = 16;
/// Their alignment, in bytes.
pub(crate) const ALIGN: u32 = 16;

/// Appends the words of these symbols, in this order, to the read-only data. Returns their offset.
pub(crate) fn append(symbols: &IndexSet<u32>, contents: &mut Contents) -> Option<u64> {
    if symbols.is_empty() {
        return None;
    }
    let start = contents.read_only.len().next_multiple_of(ALIGN as usize);
    contents.read_only.resize(start + LEN as usize * symbols.len(), 0);
    let reloc = |(number, symbol): (usize, &u32)| Reloc {
        offset: (start as u64 + LEN * number as u64).into(),
        addend: 0.into(),
        symbol: (*symbol).into(),
        kind: RelocKind::ThreadLocal as u8,
        flags: 0,
        reserved: [0; 2],
    };
    contents.read_only_relocs.extend(symbols.iter().enumerate().map(reloc));
    Some(start as u64)
}

/// Returns the thread-local symbol whose words a relocation of code is about, and the addend that
/// it had before the words had their place; `None` if it is about something else, or on s390x.
pub(crate) fn referred(artifact: &Artifact, reloc: &Reloc) -> Option<(u32, i64)> {
    // The words have the last symbol.
    let number = reloc.symbol.get() as usize;
    let symbol = artifact.symbols().get(number).filter(|_| number + 1 == artifact.symbols().len())?;
    let is_words = symbol.section() == SectionKind::ReadOnly && reloc.kind() != RelocKind::S390xPc32Dbl;
    // An addend is 0, or -4 on x86-64, before the distance is added.
    let position = u64::try_from(reloc.addend.get().checked_add(8)?).ok().filter(|_| is_words)? / LEN;
    let at = symbol.offset.get().checked_add(position * LEN)?;
    let relocs = artifact.read_only_relocs();
    let found = relocs.get(relocs.partition_point(|reloc| reloc.offset.get() < at))?;
    let fits = found.kind() == RelocKind::ThreadLocal && found.offset.get() == at;
    fits.then(|| (found.symbol.get(), reloc.addend.get() - (position * LEN) as i64))
}

/// Adds the symbol of the words, which begin at `start` of the read-only data, and completes the
/// references of the code: relocations that have no symbol yet, and `offsets` in the code at which
/// there is a distance from the first word.
pub(crate) fn finish(start: u64, offsets: &[(u64, u64)], contents: &mut Contents) {
    let number = contents.symbols.len() as u32;
    let size = contents.read_only_relocs.iter().filter(|reloc| reloc.kind() == RelocKind::ThreadLocal);
    let size = LEN * size.count() as u64;
    for reloc in contents.text_relocs.iter_mut().filter(|reloc| reloc.symbol.get() == NONE) {
        reloc.symbol = number.into();
    }
    for &(offset, distance) in offsets {
        // Only s390x has them, which is big-endian.
        contents.text[offset as usize..][..8].copy_from_slice(&distance.to_be_bytes());
    }
    let name = contents.string("");
    contents.symbols.push(SymbolRecord {
        name,
        offset: start.into(),
        size: size.into(),
        signature: NONE.into(),
        kind: record::SymbolKind::Data as u8,
        linkage: record::Linkage::Local as u8,
        section: SectionKind::ReadOnly as u8,
        libcall: 0,
    });
}
