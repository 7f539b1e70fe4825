//! Links compiled modules, saves them as one ELF file, and maps that file: three steps that can be
//! used separately.
//!
#![doc = include_str!("../README.md")]
//!
//! # What is in it?
//!
//! - `link` (feature `link`) lays out artifacts, resolves symbols between them and relocates them
//!   into memory that the caller provides. The JIT uses it too, so that the relocation code exists
//!   once.
//! - `write_image` and `save` (feature `write`) make an ELF64 shared object from linked artifacts
//!   and write it to a file. It works with `dlopen`, `readelf`, `objdump`, `gdb` and `perf`.
//!   `write_object` makes a relocatable object of them, for a linker. `link::lean` leaves out what
//!   nothing reaches before either, folds equal functions, and puts functions in an order.
//! - `Image` and `Loaded` (feature `load`) check such a file, map it, fill all its slots in one
//!   step, and find its functions. A [`FunctionRef`] is a function that was found by name in an
//!   image or in a JIT.
//! - `Image::open_verified` (feature `sign`) maps code only if accepted keys signed what is loaded;
//!   `sign_image` signs, and `content_hash` names it.
//! - [`ImageInfo`] and [`verify_bytes`] read an image of any architecture without mapping it.
//!
//! # Why ELF?
//!
//! So that common tools work on images: `readelf`, `objdump`, `gdb`, `perf`, `dlopen`. The loader
//! of this crate maps the same file faster and checks it first. Opening an image compares only the
//! checksum of the note. The checksums of sections are compared on demand, because hashing all code
//! would take longer than everything else that opening does.
//!
//! Packagers change shared objects: `strip`, `objcopy` and `patchelf` move tables, add segments and
//! remove what is not loaded. So what is loaded is checked and has checksums, and nothing else; the
//! loader finds it as `dlopen` does, through the program headers and the dynamic section.
//!
//! # Architecture invariants
//!
//! - Loading writes pointers in data and in slots. It writes code only if modules reach globals
//!   directly ([`ImageInfo::globals`]), before the pages become executable; the linker refuses any
//!   other artifact that would need a text relocation.
//! - A function with bodies for several levels of the processor has a slot of that kind, too, and
//!   nobody may replace it. Loading chooses by writing slots; code of a level that the machine does
//!   not have is never in one.
//! - A replaceable function is called through its slot by all code, and its address is that of a
//!   stub. So [`Loaded::replace`](crate::Loaded::replace) writes one pointer, atomically, and every
//!   address that was taken of the function stays valid. So its symbol in `.dynsym` and in
//!   `.symtab` is the stub, with the stub's size: the bytes of an ELF symbol are its own.
//!   `.symtab` has the code too, with its size, as a local symbol of the same name, so debuggers
//!   and profilers know both.
//! - The external slots of an image are listed in order, and a slot is identified by its position
//!   alone. C programs find the array under the name `kiln_slots`.
//! - A named section holds the data that modules define in it, in the order of the modules and of
//!   the definitions in each, and nothing else. `__start_NAME` and `__stop_NAME` are its bounds;
//!   see `link::NamedSection`.
//! - The file offset of a loaded section is its virtual address when it is written; equal inputs
//!   give equal bytes.
//! - An image is untrusted until it is checked. [`Image::open`](crate::Image::open) checks
//!   everything that the loader relies on, in a time that does not depend on the size of the code;
//!   what is loaded has checksums that are compared on demand. No check finds malicious code, so
//!   calling code is `unsafe`. Time and memory are at most proportional to the length of
//!   the file, even if it is malformed.
//! - A change of a mapped file changes the image. [`Image::open`](crate::Image::open) describes
//!   the consequences; [`Image::open_private`](crate::Image::open_private) avoids them.

#![deny(unsafe_code)]

mod arch;
mod base;
pub mod code;
#[cfg(feature = "dwarf")]
pub mod dwarf;
mod elf64;
#[cfg(feature = "artifacts")]
mod embedded;
mod error;
mod features;
#[cfg(feature = "link")]
pub mod link;
#[cfg(feature = "load")]
#[expect(unsafe_code, reason = "maps files and returns pointers into them; each block says why it is sound")]
mod load;
mod note;
#[cfg(feature = "write")]
mod object;
mod patch_list;
mod read;
#[cfg(feature = "sign")]
mod sign;
#[cfg(feature = "write")]
mod write;

#[cfg(feature = "write")]
pub use self::object::{GlobalSymbols, ObjectOptions, write_object};
pub use arch::Arch;
pub use base::{Base, BaseSymbol, BaseSymbolKind, ImageId};
#[cfg(feature = "artifacts")]
pub use embedded::{EmbeddedArtifacts, EmbeddedError, EmbeddedModule};
pub use error::{BaseFault, LoadError};
pub use features::{host_has_feature, missing_features};
#[cfg(feature = "load")]
pub use kiln_debug::{gdb::Debugger, perf::Kind as Profiler}; // who is told about a loaded image
#[cfg(feature = "load")]
pub use load::{
    AbiValue, FunctionPointer, FunctionRef, FunctionText, Image, Loaded, OpenOptions, Override, ReplaceError,
    ThreadLocalData, ThreadLocals, TypeMismatchError, WithThreadLocals, bind_function, libcalls, with_bases,
};
pub use note::{FORMAT_VERSION, MAX_BASES};
#[cfg(feature = "load")]
pub use read::read_image;
pub use read::{
    BaseInfo, ExportInfo, ImageInfo, LevelInfo, ReplacementInfo, SectionInfo, SlotInfo, SymbolType,
    VersionInfo,
};
#[cfg(feature = "verify")]
pub use read::{ContentHash, content_hash, verify_bytes};
#[cfg(feature = "sign")]
pub use sign::{
    Algorithm, ImageSignature, ParseSignatureError, SignError, SignatureFault, Trust, UntrustedError,
    image_signatures, sign_image, sign_image_detached, signatures_beside, verify_signed_bytes,
};
#[cfg(all(feature = "write", feature = "dwarf"))]
pub use write::DebugInfo;
#[cfg(feature = "write")]
pub use write::{
    ImageBase, ImageFiles, ImageOptions, MAX_TEXT_ALIGN, save, temporary_for, write_image, write_image_files,
    write_layer,
};

// Bindings, tables of globals and resolvers are in the interface of this crate.
pub use kiln_globals as globals;
// And keys that sign.
#[cfg(feature = "sign")]
pub use kiln_keys as keys;
