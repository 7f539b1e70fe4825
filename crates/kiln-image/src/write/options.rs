//! The options for writing an image.

/// Options for writing an image.
#[derive(Clone, Debug, Default)]
pub struct ImageOptions {
    /// The name by which other shared objects refer to the image, `DT_SONAME`.
    pub soname: Option<Box<str>>,
    /// The target triple of an image without modules; the host's if `None`. Modules name their own.
    pub triple: Option<Box<str>>,
    /// Leaves out the full symbol table, so that debuggers and profilers know only exported
    /// functions by name.
    pub strip: bool,
    /// Debug information: lines, functions and variables of the modules that have lines.
    #[cfg(feature = "dwarf")]
    pub debug: DebugInfo,
    /// Names of the first modules, as many as are given, which [`Location`](crate::code::Location)
    /// returns. They become a part of the image, so names that are paths make it depend on a
    /// folder.
    pub module_names: Vec<Box<str>>,
}

/// The place of an image's debug information.
#[cfg(feature = "dwarf")]
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum DebugInfo {
    /// There is none.
    #[default]
    None,
    /// In sections of the image that are not loaded.
    InImage,
    /// In a file of this name, without folder, that `write_image_files` makes. Debuggers find it
    /// next to the image, or by the build id that both have.
    Separate(Box<str>),
}
