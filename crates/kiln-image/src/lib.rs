//! Links compiled modules, saves them as one ELF file, and maps that file: three steps that can be
//! used separately.
//!
//! - [`link`] lays out artifacts, resolves symbols between them and relocates them into any memory.
//!   The JIT uses it too, so there is one copy of relocation code.
//! - `write_image` and `save` (feature `write`) make an ELF64 shared object of linked artifacts,
//!   which works with `dlopen`, `readelf`, `objdump`, `gdb` and `perf`.
//! - `Image` and `Loaded` (feature `load`) check such a file, map it, fill its slots with one copy,
//!   and find its functions. A [`FunctionRef`] is a function found by name, here and in a JIT.
//! - [`ImageInfo`] and [`verify_bytes`] read an image of any architecture without mapping it.
//!
//! # Should I use this crate?
//!
//! In a compiler that saves programs: yes, or through `kiln::Session`. In a small runtime that only
//! loads them: yes, with `default-features = false, features = ["load"]`; it never depends on
//! Cranelift. To link ordinary object files, use a linker: this crate links only
//! [`Artifact`](kiln_artifact::Artifact)s.
//!
//! # Why ELF?
//!
//! So that common tools work on images: `readelf`, `objdump`, `gdb`, `perf`, `dlopen`. The loader
//! of this crate maps the same file faster and checks it first. When it opens an image, it compares
//! the checksum of the note and the headers. It compares those of sections on demand, because
//! hashing all code would take longer than the rest of opening.
//!
//! # Architecture invariants
//!
//! - Loading writes pointers in data and slots, never code: an artifact that would need a text
//!   relocation is refused.
//! - The external slots of an image are described in order, and are identified by their position
//!   alone. C programs find the array under the name `kiln_slots`.
//! - A named section has the data that modules define in it, in order of modules and definitions,
//!   and nothing else. `__start_NAME` and `__stop_NAME` are its bounds; see
//!   `link::NamedSection`.
//! - A file's section offsets are its virtual addresses; equal inputs give equal bytes.
//! - An image is hostile until checked. [`Image::open`](crate::Image::open) checks all that it
//!   relies on, in time that does not depend on the size of code; the contents of sections have
//!   checksums that are compared on demand. These checks cannot find code that is malicious:
//!   calling it is `unsafe`. Whatever the bytes, time and memory are in proportion to their length.
//! - A mapped file that is changed changes the image. [`Image::open`](crate::Image::open) says what
//!   that does, and [`Image::open_private`](crate::Image::open_private) is immune to it.
//!
//! # Example
//!
//! ```
//! # #[cfg(all(feature = "write", feature = "load"))] {
//! use kiln_globals::{Bindings, GlobalTable};
//! use kiln_image::{Image, ImageInfo, ImageOptions, write_image};
//!
//! // Two globals are laid out before any module exists; here there is none.
//! let mut table = GlobalTable::new();
//! table.intern("stream:stdout");
//! table.intern("stream:stderr");
//! let bytes = write_image(&[], &table, &ImageOptions::default()).expect("nothing to link");
//!
//! let info = ImageInfo::parse(&bytes)?;
//! assert_eq!(info.slots.len(), 2);
//!
//! let image = Image::from_bytes(&bytes)?; // checked and mapped
//! let mut bindings = Bindings::new();
//! bindings.bind("stream:stdout", 0x1000).bind("stream:stderr", 0x2000);
//! let loaded = image.bind(&bindings)?; // ready to be called
//! assert!(loaded.address("kiln_slots").is_some());
//! assert!(loaded.address("main").is_none());
//! # }
//! # Ok::<(), kiln_image::LoadError>(())
//! ```

#![deny(unsafe_code)]

mod arch;
mod elf64;
mod error;
mod features;
pub mod link;
#[cfg(feature = "load")]
#[expect(unsafe_code, reason = "maps files and returns pointers into them; each block says why it is sound")]
mod load;
mod note;
mod read;
#[cfg(feature = "write")]
mod write;

pub use arch::Arch;
pub use error::LoadError;
pub use features::{host_has_feature, missing_features};
#[cfg(feature = "load")]
pub use load::{AbiValue, FunctionPointer, FunctionRef, Image, Loaded, TypeMismatchError};
pub use note::FORMAT_VERSION;
#[cfg(feature = "load")]
pub use read::read_image;
pub use read::{ExportInfo, ImageInfo, SectionInfo, SlotInfo, SymbolType, verify_bytes};
#[cfg(feature = "write")]
pub use write::{ImageOptions, save, temporary_for, write_image};
