//! The rules that `lint` checks, with their thresholds and their exceptions. An exception needs a
//! reason.

/// The crates of this workspace that a crate may depend on, and whether it may depend on Cranelift.
///
/// This is the layering of ARCHITECTURE.md. A dependency that is added here needs a reason there.
pub(super) const LAYERS: [(&str, &[&str], Cranelift); 17] = [
    ("kiln-globals", &[], Cranelift::Never),
    ("kiln-artifact", &["kiln-globals"], Cranelift::Never),
    ("kiln-ir", &["kiln-globals"], Cranelift::Yes),
    ("kiln-backend", &["kiln-ir", "kiln-artifact"], Cranelift::Yes),
    (
        "kiln-oracle",
        &["kiln-artifact", "kiln-cache", "kiln-globals", "kiln-image", "kiln-ir"],
        Cranelift::Yes,
    ),
    ("kiln-cache", &["kiln-artifact"], Cranelift::Never),
    // Results are entries of a cache, and checked as such.
    ("kiln-farm", &["kiln-cache"], Cranelift::Never),
    ("kiln-worker", &["kiln-backend", "kiln-cache", "kiln-farm", "kiln-globals", "kiln-ir"], Cranelift::Yes),
    // Its snapshots are artifacts, so a program that links them by itself needs nothing else.
    ("kiln-heap", &["kiln-artifact"], Cranelift::Never),
    (
        "kiln-image",
        &["kiln-artifact", "kiln-debug", "kiln-globals", "kiln-keys", "kiln-trap"],
        Cranelift::Never,
    ),
    ("kiln-debug", &[], Cranelift::Never),
    ("kiln-keys", &[], Cranelift::Never),
    ("kiln-trap", &[], Cranelift::Never),
    ("kiln-jit", &["kiln-artifact", "kiln-debug", "kiln-globals", "kiln-image", "kiln-trap"], Cranelift::Yes),
    (
        "kiln",
        &[
            "kiln-globals",
            "kiln-artifact",
            "kiln-ir",
            "kiln-backend",
            "kiln-cache",
            "kiln-farm",
            "kiln-heap",
            "kiln-image",
            "kiln-jit",
            "kiln-trap",
        ],
        Cranelift::Yes,
    ),
    // Its stores are given to a `Compiler`, so a program that does not ask for it has none of its
    // many dependencies.
    ("kiln-remote", &["kiln-cache", "kiln-farm", "kiln-keys"], Cranelift::Never),
    ("xtask", &["kiln", "kiln-oracle", "kiln-remote"], Cranelift::Yes),
];

/// Whether Cranelift may be among a crate's dependencies.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Cranelift {
    Yes,
    /// Not even through other crates: a program that depends on this crate must not build a code
    /// generator.
    Never,
}

/// Crates in which `unsafe` may occur; all other crates forbid it.
pub(super) const UNSAFE: [&str; 6] =
    ["kiln-debug", "kiln-heap", "kiln-jit", "kiln-image", "kiln-trap", "xtask"];

/// Crate roots that deny `unsafe`, so that it occurs only where an `expect` gives the reason.
pub(super) const DENIES_UNSAFE: [&str; 3] =
    ["crates/kiln-heap/src/lib.rs", "crates/kiln-image/src/lib.rs", "xtask/src/main.rs"];

/// The most lines that a Rust file may have.
pub(super) const MAX_FILE_LINES: usize = 1000;

/// The limit on the median length of the crates' files, in lines: the median must be below it.
pub(super) const MEDIAN_FILE_LINES: usize = 200;

/// The most lines that ARCHITECTURE.md may have.
pub(super) const MAX_ARCHITECTURE_LINES: usize = 150;

/// The most lines that a function may have, from `fn` to the closing brace.
pub(super) const MAX_FUNCTION_LINES: usize = 120;

/// Functions that may be longer than [`MAX_FUNCTION_LINES`]: file, name, and the reason.
pub(super) const LONG_FUNCTIONS: [(&str, &str, &str); 3] = [
    (
        "crates/kiln-ir/src/text/blocks/operands.rs",
        "operands",
        "an instruction table: an arm for each format of instruction",
    ),
    (
        "crates/kiln-ir/src/body/decode/operands.rs",
        "operands",
        "an instruction table: an arm for each format of instruction",
    ),
    (
        "crates/kiln-ir/src/body/encode/instructions.rs",
        "inst",
        "an instruction table: an arm for each format of instruction",
    ),
];

/// The longest sequence of tokens that may occur twice.
pub(super) const MAX_REPEATED_TOKENS: u32 = 70;

/// The most columns that a line of Markdown or a line with a comment may have.
pub(super) const MAX_COLUMNS: usize = 100;

/// Words that the summary of a documentation comment must not begin with: such a summary is a
/// clause without a verb. A summary begins with a verb, or names the thing.
pub(super) const HEADLESS: [&str; 2] = ["What", "Where"];
