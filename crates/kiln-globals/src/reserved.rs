//! Names of sections that no data can be placed in.
//!
//! The list is here because the front end refuses such data where it is defined, the linker refuses
//! it in artifacts of any origin, and both depend on this crate.

/// The name of the section of thread-local data: each thread has a copy of it. Only data that is
/// declared thread-local is in it.
pub const THREAD_LOCAL_SECTION: &str = ".tdata";

/// Names of sections that images have, or that have a meaning to loaders, debuggers and linkers.
const RESERVED: [&str; 32] = [
    ".bss",
    ".ctors",
    ".data",
    ".data.rel.ro",
    ".dtors",
    ".dynamic",
    ".dynstr",
    ".dynsym",
    ".eh_frame",
    ".eh_frame_hdr",
    ".fini",
    ".fini_array",
    ".gcc_except_table",
    ".got",
    ".got.plt",
    ".hash",
    ".init",
    ".init_array",
    ".interp",
    ".kiln.slots",
    ".plt",
    ".plt.got",
    ".plt.sec",
    ".preinit_array",
    ".relr.dyn",
    ".rodata",
    ".shstrtab",
    ".strtab",
    ".symtab",
    ".tbss",
    ".tdata",
    ".text",
];
/// Prefixes of names that are reserved in the same way.
const RESERVED_PREFIXES: [&str; 12] = [
    ".ctors.",
    ".debug_",
    ".dtors.",
    ".fini_array.",
    ".gnu.",
    ".gnu_",
    ".init_array.",
    ".kiln.",
    ".note",
    ".rel.",
    ".rela",
    ".symtab_",
];

/// Whether data cannot be placed in a section of this name: images have such a section, or the name
/// has a meaning to loaders, debuggers or linkers.
pub fn is_reserved_section(name: &str) -> bool {
    RESERVED.contains(&name) || RESERVED_PREFIXES.iter().any(|prefix| name.starts_with(prefix))
}
