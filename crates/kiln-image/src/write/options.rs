//! The options for writing an image.

use crate::link::LevelTable;

/// The largest alignment of code, in bytes: the size of the largest page that code is mapped with.
pub const MAX_TEXT_ALIGN: u64 = 1 << 30;

/// The address that an image is made for.
///
/// A loader moves an image that it maps elsewhere: it writes all pages with pointers at the image
/// itself. Without pointers in its data, an image does not care.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ImageBase {
    /// [`Preferred`](Self::Preferred) if the program has a saved heap, and else
    /// [`Anywhere`](Self::Anywhere).
    #[default]
    Auto,
    /// None: a loader chooses the address, and writes all pointers, wherever that is.
    Anywhere,
    /// One that depends on the contents, so that two images rarely want the same, and equal ones
    /// always do. Pointers at the image itself are in the file as they must be in memory, and
    /// this crate's loader writes none of them if it has the address.
    ///
    /// Whoever knows the file then knows where its code and data are in the process. Address space
    /// layout randomization hides that, and [`Image::open_anywhere`](crate::Image::open_anywhere)
    /// asks for it.
    Preferred,
    /// This one: a multiple of 4 GiB below 2^47, and not 0.
    At(u64),
}

/// Options for writing an image.
#[derive(Clone, Debug, Default)]
pub struct ImageOptions {
    /// The name by which other shared objects refer to the image, `DT_SONAME`.
    pub soname: Option<Box<str>>,
    /// The libraries that `dlopen` loads with the image, `DT_NEEDED`, in this order. Routines of
    /// the C library that the code calls need none: the image then names libm and libc by itself.
    pub needed: Vec<Box<str>>,
    /// The names that the image exports, each of which must be one that the modules export;
    /// everything that they export if `None`. What is not exported is not found by name, neither
    /// by `dlsym` nor by [`Loaded`](crate::Loaded), and a replaceable function cannot be replaced.
    /// `kiln_slots`, the array of slots, is exported in any case.
    pub exports: Option<Vec<Box<str>>>,
    /// The alignment of the code's segment, a power of two up to [`MAX_TEXT_ALIGN`], in bytes; the
    /// page size if it is less. 2 MiB let the kernel use huge pages for code. The file becomes
    /// longer by up to this number.
    pub text_align: u64,
    /// Packs the relocations of pointers at the program itself (`DT_RELR`): a few bits for each
    /// instead of 24 bytes. `dlopen` of glibc 2.36 and later reads them. An older one refuses the
    /// image, because it then needs `GLIBC_ABI_DT_RELR`. The loader of this crate does not care.
    pub pack_relocations: bool,
    /// Room for this number of digital signatures in the note, for `sign_image`: 104 bytes each.
    /// Signatures in a file beside the image need none.
    pub signers: u8,
    /// The address that the image is made for. With one, relocations are packed, too, as
    /// `pack_relocations` says.
    pub base: ImageBase,
    /// The levels of the processor that the artifacts are for, if
    /// [`link::join_levels`](crate::link::join_levels) made them.
    pub levels: Option<LevelTable>,
    /// The target triple of an image without modules; the host's if `None`. Modules name their own.
    pub triple: Option<Box<str>>,
    /// Leaves out the full symbol table, so that debuggers and profilers know only exported
    /// functions by name.
    pub strip: bool,
    /// Puts the artifacts into the image, compressed, so that it can be linked again, alone or with
    /// its layers, without compiling: see [`EmbeddedArtifacts`](crate::EmbeddedArtifacts). They are
    /// not loaded.
    #[cfg(feature = "artifacts")]
    pub embed_artifacts: bool,
    /// Debug information: lines, functions and variables of the modules that have lines.
    #[cfg(feature = "dwarf")]
    pub debug: DebugInfo,
    /// Names of the first modules, as many as are given, which [`Location`](crate::code::Location)
    /// returns. They become a part of the image, so names that are paths make it depend on a
    /// folder.
    pub module_names: Vec<Box<str>>,
    /// Numbers of the first modules, as many as are given, which
    /// [`Location`](crate::code::Location) returns: for parts of modules, as
    /// [`link::lean`](crate::link::lean) makes them. The others have their positions.
    pub module_numbers: Vec<u32>,
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
