//! The options for writing an image.

/// Options for writing an image.
#[derive(Clone, Debug, Default)]
pub struct ImageOptions {
    /// The name by which other shared objects refer to the image, `DT_SONAME`.
    pub soname: Option<Box<str>>,
    /// The target triple of an image without modules; the host's if `None`. Modules name their own.
    pub triple: Option<Box<str>>,
    /// Names of the first modules, as many as are given, which [`Location`](crate::code::Location)
    /// returns. They become a part of the image, so names that are paths make it depend on a
    /// folder.
    pub module_names: Vec<Box<str>>,
}
