//! The artifacts of an image, in the image: so it can be linked again, with its layers, without
//! compiling.
//!
//! They are in the section `.kiln.artifacts`, which is not loaded, and not covered by the content
//! hash: an image with them and one without are the same to their layers. `strip` keeps the
//! section, and `objcopy --remove-section .kiln.artifacts` takes it out.

mod format;
mod read;
#[cfg(feature = "write")]
mod write;

pub use read::{EmbeddedArtifacts, EmbeddedError, EmbeddedModule};
#[cfg(feature = "write")]
pub(crate) use write::section;
