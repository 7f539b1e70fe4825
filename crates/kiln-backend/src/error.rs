//! Why a function could not be compiled.

use std::panic::{AssertUnwindSafe, catch_unwind};

use cranelift_codegen::CodegenError;
use kiln_ir::MAX_ALIGN;

/// A function that could not be compiled, and its place.
#[derive(Debug, thiserror::Error)]
#[error("function `{function}` of module {module_name}: {kind}")]
pub struct CompileError {
    /// Position of the module in the work queue.
    pub module: usize,
    /// The module's name.
    pub module_name: Box<str>,
    /// Position of the function in its module.
    pub function_index: usize,
    /// The function's name.
    pub function: Box<str>,
    /// Line of the function, or 0.
    pub line: u32,
    /// What went wrong.
    #[source]
    pub kind: CompileErrorKind,
}

/// What went wrong.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CompileErrorKind {
    /// Cranelift refused the function.
    #[error("{0}")]
    Codegen(CodegenError),
    /// Cranelift has no code for an instruction of the function on this target, and stopped in the middle.
    #[error("the code generator cannot compile it: {0}")]
    Panicked(Box<str>),
    /// A relocation that Kiln does not link, such as thread-local storage.
    #[error("{0} is not supported")]
    Relocation(Box<str>),
    /// Code or data of one module outgrew what a program may have.
    #[error("the module's {0} exceeds 2 GiB")]
    TooLarge(&'static str),
    /// A setting asks for functions to be aligned to more than a page.
    #[error("functions aligned to {0} bytes, at most {MAX_ALIGN} are possible")]
    Alignment(u32),
}

/// What `work` returns, or what Cranelift said when it panicked; whatever `work` was changing is of no further use then.
pub(crate) fn guard<T>(work: impl FnOnce() -> T) -> Result<T, CompileErrorKind> {
    catch_unwind(AssertUnwindSafe(work)).map_err(|payload| {
        let text = payload.downcast_ref::<&str>().copied();
        let text = text.or_else(|| payload.downcast_ref::<String>().map(String::as_str));
        CompileErrorKind::Panicked(text.unwrap_or("internal error").into())
    })
}
