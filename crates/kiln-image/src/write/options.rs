//! The options for writing an image.

/// Options for writing an image.
#[derive(Clone, Debug, Default)]
pub struct ImageOptions {
    /// The name by which other shared objects refer to the image, `DT_SONAME`.
    pub soname: Option<Box<str>>,
    /// The target triple of an image without modules; the host's if `None`. Modules name their own.
    pub triple: Option<Box<str>>,
}
