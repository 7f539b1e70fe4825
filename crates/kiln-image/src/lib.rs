//! stub
#![deny(unsafe_code)]
mod arch;
mod error;
mod features;
pub mod link;
mod note;
mod read;
#[cfg(feature = "load")]
#[expect(unsafe_code, reason = "maps files and hands out functions; each block says why it is sound")]
mod load;

pub use arch::Arch;
pub use error::LoadError;
pub use features::host_has_feature;
#[cfg(feature = "load")]
pub use load::{Function, Image, Loaded, Value};
pub use note::FORMAT_VERSION;
pub use read::{ExportInfo, ImageInfo, SectionInfo, SlotInfo, SymbolType, verify_bytes};
#[cfg(feature = "write")]
mod write;
#[cfg(feature = "write")]
pub use write::{ImageOptions, save, write_image};
