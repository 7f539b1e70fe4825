//! The input and the output of making debug information.

use kiln_artifact::Artifact;

/// The code of a module, and where it is.
#[derive(Clone, Copy, Debug)]
pub struct Code<'a> {
    /// The module.
    pub artifact: &'a Artifact,
    /// The address of the first byte of the module's code.
    pub address: u64,
}

/// The start of a module's code.
#[derive(Clone, Copy, Debug)]
pub(super) enum Start {
    /// The address.
    Address(u64),
    /// The offset in a section that has no address yet, in bytes.
    #[cfg_attr(not(feature = "write"), expect(dead_code, reason = "for objects only"))]
    Offset(u64),
}

/// A place in a section that refers to another section or to code.
#[derive(Clone, Copy, Debug)]
#[cfg_attr(not(feature = "write"), expect(dead_code, reason = "for objects only"))]
pub(crate) struct Reference {
    /// The number of the section in [`NAMES`], and the place in it, in bytes.
    pub(crate) section: usize,
    pub(crate) offset: usize,
    /// The number of bytes: 4 or 8.
    pub(crate) size: u8,
    /// The number of the section in [`NAMES`] that the place refers to; `None` for the code.
    pub(crate) target: Option<usize>,
    /// The offset in that section, in bytes.
    pub(crate) addend: i64,
}

/// A section: its name and its bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Section {
    /// The name, as `.debug_line`.
    pub name: &'static str,
    /// The bytes, in the byte order of the modules.
    pub bytes: Vec<u8>,
}

/// The names of all sections that [`sections`](super::sections) may return, in the same order.
pub const NAMES: [&str; 4] = [".debug_abbrev", ".debug_info", ".debug_line", ".debug_loclists"];

/// The error that debug information has more bytes than the 32-bit format of DWARF can refer to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("debug information has more than 4 GiB")]
pub struct TooLarge;
