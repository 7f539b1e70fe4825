//! How much is inlined.

/// How much is inlined by [`inline`](crate::inline()).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct Inlining {
    /// The largest number of instructions of a function that is inlined without the hint
    /// [`InlineHint::Inline`](crate::InlineHint::Inline). With 0, only functions with the hint are.
    pub size: u32,
}

impl Default for Inlining {
    fn default() -> Self {
        Self { size: 20 }
    }
}

impl Inlining {
    /// A number that increases whenever a change of this crate makes it inline other calls, or in
    /// another way. Keys of modules from which others are inlined must contain it, unless they are
    /// made from the result.
    pub const REVISION: u32 = 1;

    /// Inlines functions of up to `size` instructions, and those with the hint.
    pub fn of_size(size: u32) -> Self {
        Self { size }
    }
}

/// The largest number of instructions of a function with the hint that is inlined.
pub(super) const HINTED: u32 = 500;

/// The number of calls that may be inlined into each other. So inlining ends whatever the modules
/// call.
pub(super) const DEPTH: u32 = 8;

/// The most instructions that are inlined into one function, all calls together.
pub(super) const GROWTH: u32 = 2000;

/// The most bytes of stack slots of a function that is inlined: the frame of its caller, which may
/// be recursive, grows by them for each call.
pub(super) const STACK: u64 = 256;

/// The most bytes of stack slots that are inlined into one function, all calls together.
pub(super) const FRAME: u64 = 4096;

/// The bytes of canonical form, for each instruction, of a function that is inlined. It spares
/// decoding large functions only to count their instructions.
pub(super) const FORM: u64 = 64;
