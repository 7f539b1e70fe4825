//! The meaning of a relocation of code: what its flags say about the symbol.

use kiln_artifact::Artifact;
use kiln_artifact::record::{Reloc, SymbolKind};

/// Whether the relocation is an access to a slot of a function that the code only calls.
pub(super) fn is_called(artifact: &Artifact, reloc: &Reloc) -> bool {
    reloc.kind().uses_slot()
        && !reloc.has(Reloc::TAKES_ADDRESS)
        && artifact.symbols()[reloc.symbol.get() as usize].kind() == SymbolKind::Function
}

/// Whether the relocation is a direct reference to the module's own definition of its symbol.
pub(super) fn is_own(artifact: &Artifact, reloc: &Reloc) -> bool {
    reloc.has(Reloc::OWN)
        && !reloc.kind().uses_slot()
        && artifact.symbols()[reloc.symbol.get() as usize].is_defined()
}
