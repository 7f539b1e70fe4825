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
