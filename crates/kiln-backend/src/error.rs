//! Why a function could not be compiled.

use cranelift_codegen::CodegenError;

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
    /// Code or data of one module outgrew the 32-bit offsets of the artifact.
    #[error("the module's {0} exceeds 4 GiB")]
    TooLarge(&'static str),
}
