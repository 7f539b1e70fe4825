//! Errors of the compiler, and the limits of a module's size.

use std::panic::{AssertUnwindSafe, catch_unwind};

use cranelift_codegen::CodegenError;
use kiln_ir::{IrFault, MAX_ALIGN};

/// A function or a data object that could not be compiled.
///
/// Such errors come in lists, so the message includes the reason, and `source()` returns `None`.
#[derive(Debug, thiserror::Error)]
#[error("{}module {module_name}: {kind}", of_function(.function_index, .function))]
pub struct CompileError {
    /// Index of the module in the work queue.
    pub module: usize,
    /// The module's name.
    pub module_name: Box<str>,
    /// Index of the function in its module; `None` if the error is in data, which the reason names,
    /// or in the module as a whole.
    pub function_index: Option<usize>,
    /// The function's name; empty if there is none.
    pub function: Box<str>,
    /// Line of the function or data object in the source, or 0.
    pub line: u32,
    /// The reason.
    pub kind: CompileErrorKind,
}

/// The reason why a function could not be compiled.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CompileErrorKind {
    /// Cranelift refused the function.
    #[error(transparent)]
    Codegen(CodegenError),
    /// The function is not valid IR. The front end has left it to the compiler to verify it.
    #[error("it is not valid: {}", list_faults(.0))]
    Invalid(Vec<IrFault>),
    /// Cranelift panicked: it cannot compile an instruction of the function for this target.
    #[error("the code generator cannot compile it: {0}")]
    Panicked(Box<str>),
    /// A relocation that Kiln does not link, such as thread-local storage.
    #[error("{0} is not supported")]
    Relocation(Box<str>),
    /// The function exceeds a limit of Cranelift. The text names the limit and says how large the
    /// function is.
    #[error("{0}")]
    Limit(Box<str>),
    /// The code of one module, or one kind of its data, is too large: the limit is about 2 GiB.
    #[error("{what} has {size} bytes, limit {limit}")]
    TooLarge {
        /// The part of the module that is too large, and the data object that makes it so.
        what: Box<str>,
        /// Its size with that data object or function, in bytes.
        size: u64,
        /// The largest size in bytes.
        limit: u64,
    },
    /// A function is so large that its calls may not reach the veneers after it.
    #[error("a call in it would have to reach {distance} bytes, limit {limit}")]
    CallReach {
        /// The distance, in bytes.
        distance: u64,
        /// The largest distance, in bytes.
        limit: u64,
    },
    /// A setting requires functions to be aligned to more than a page.
    #[error("functions aligned to {0} bytes, at most {MAX_ALIGN} are possible")]
    Alignment(u32),
}

/// The reason why a module has no artifact.
pub(crate) enum AssembleError {
    /// The number of the function that the error is in, and the error.
    Function(usize, CompileErrorKind),
    /// An error in data. The line is that of the data object, or 0.
    Data { line: u32, kind: CompileErrorKind },
}

/// `function `f` of `, or nothing.
fn of_function(index: &Option<usize>, name: &str) -> String {
    index.map_or_else(String::new, |_| format!("function `{name}` of "))
}

/// Returns the first faults, and the number of the others.
fn list_faults(faults: &[IrFault]) -> String {
    const SHOWN: usize = 4;
    let mut text = faults.iter().take(SHOWN).map(ToString::to_string).collect::<Vec<_>>().join("; ");
    if faults.len() > SHOWN {
        text.push_str(&format!("; and {} more", faults.len() - SHOWN));
    }
    text
}

/// The largest size of each kind of a module's data, in bytes: the reach of a 32-bit reference.
pub(crate) const MAX_SIZE: u32 = 1 << 31;

/// The largest size of a module's code, in bytes. It is 64 KiB less than [`MAX_SIZE`], because on
/// riscv64 a call reaches 2 KiB less than 2 GiB.
pub(crate) const MAX_CODE: u32 = MAX_SIZE - 0x1_0000;

/// The largest length of an artifact, in bytes: its format has 32-bit lengths.
pub(crate) const MAX_ARTIFACT: u32 = u32::MAX;

/// Returns the error for code of `size` bytes.
pub(crate) fn too_much_code(size: u64) -> CompileErrorKind {
    let what = "the module's code with that of this function".into();
    CompileErrorKind::TooLarge { what, size, limit: MAX_CODE.into() }
}

/// Prints no message for panics of the code generator, from now on and in the whole process.
///
/// It panics on instructions for which a target has no code. The compiler catches such a panic and
/// reports it with the function's name and line, so for a program whose errors people read, the
/// panic's own message and backtrace would be noise. Other panics are told as before.
pub fn silence_code_generator() {
    let default = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        if !info.location().is_some_and(|location| location.file().contains("cranelift-codegen")) {
            default(info);
        }
    }));
}

/// Returns the result of `work`, or the panic's message if it panicked. After a panic, the data
/// that `work` was changing must not be used again.
pub(crate) fn guard<T>(work: impl FnOnce() -> T) -> Result<T, CompileErrorKind> {
    catch_unwind(AssertUnwindSafe(work)).map_err(|payload| {
        let text = payload.downcast_ref::<&str>().copied();
        let text = text.or_else(|| payload.downcast_ref::<String>().map(String::as_str));
        CompileErrorKind::Panicked(text.unwrap_or("internal error").into())
    })
}
