//! Compiles one module on the calling thread, or many modules in parallel.
//!
//! Results are collected in the order of modules and functions before they are used, so neither the
//! artifacts nor the errors depend on which thread was faster.
//!
//! The unit of parallelism is the function. One queue holds the functions of all modules, so a
//! large module does not keep one thread busy while the others wait.

use cranelift_codegen::isa::TargetIsa;
use kiln_artifact::Artifact;
use kiln_ir::{Code, Module};
use rayon::prelude::*;

use crate::assemble::{TargetNames, assemble};
use crate::compiled::CompiledFunction;
use crate::error::{AssembleError, CompileError, CompileErrorKind, guard};
use crate::function::{self, Scratch, with_scratch};
use crate::reuse::{Reuse, extract};

/// A compiled module.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Built {
    /// The artifact: the same bytes, whether or not functions were reused.
    pub artifact: Artifact,
    /// The number of functions that were taken from earlier artifacts. A function that
    /// [`Job::reuse`] offers but that does not fit is compiled, and not counted here.
    pub reused: usize,
    /// The number of functions that were compiled although [`Job::reuse`] offers code for them,
    /// because the earlier artifact is damaged. If it is not known which offers are damaged, every
    /// function that [`Job::reuse`] offers code for is counted.
    pub unfit: usize,
}

/// A module to compile, and the code generator to compile it with.
#[derive(Clone, Copy)]
pub struct Job<'a> {
    /// The module. Functions that the front end has not verified are verified here.
    pub module: &'a Module,
    /// The code generator, from `Target::isa` with the module's settings.
    pub isa: &'a dyn TargetIsa,
    /// Compiled code that may be used instead of compiling a function: an entry for each function
    /// in order, or no entries at all. It must come from the same canonical form, with references
    /// of the same [class](crate::reference_classes), and from the same code generator.
    pub reuse: &'a [Option<Reuse<'a>>],
    /// The names of the target of `isa`; `None` if the caller has not gathered them.
    pub names: Option<&'a TargetNames>,
}

impl<'a> Job<'a> {
    /// Makes a job that compiles every function of `module`.
    pub fn new(module: &'a Module, isa: &'a dyn TargetIsa) -> Self {
        Self { module, isa, reuse: &[], names: None }
    }

    /// Compiles the function with this index, or takes it from an earlier artifact.
    fn function(&self, index: usize, scratch: &mut Scratch) -> Result<CompiledFunction, CompileErrorKind> {
        let function = &self.module.functions[index];
        #[cfg(feature = "tracing")]
        let _span = tracing::debug_span!(
            "function",
            name = &*self.module.symbol(function.symbol).name,
            module = &*self.module.name,
            outcome = tracing::field::Empty
        )
        .entered();
        // A function whose body is already machine code has nothing to reuse: its code is copied.
        let offer = self.reuse.get(index).copied().flatten();
        let (Some(reuse), Code::Ir(body)) = (offer, &function.code) else {
            return function::compile(self.module, function, self.isa, scratch);
        };
        match extract(reuse, function, body) {
            Some(reused) => {
                #[cfg(feature = "tracing")]
                tracing::Span::current().record("outcome", "reused");
                Ok(reused)
            }
            None => {
                let mut compiled = function::compile(self.module, function, self.isa, scratch)?;
                compiled.unfit = true;
                Ok(compiled)
            }
        }
    }
}

/// Compiles one module on the calling thread.
///
/// # Errors
///
/// One error for every function that cannot be compiled, in order. If all can be compiled, but the
/// artifact cannot be assembled, the one error that prevents it.
pub fn compile(job: &Job<'_>) -> Result<Built, Vec<CompileError>> {
    compile_here(0, job, &|| {})
}

/// Compiles the module with number `number` on the calling thread.
fn compile_here(number: usize, job: &Job<'_>, progress: &dyn Fn()) -> Result<Built, Vec<CompileError>> {
    let functions = 0..job.module.functions.len();
    let compiled = functions.map(|index| {
        // Taken for one function at a time, because `progress` may compile something itself.
        let result = with_scratch(|scratch| job.function(index, scratch));
        progress();
        result
    });
    finish(number, job, compiled.collect())
}

/// A compiled function of a module that is compiled piece by piece, or why there is none.
pub struct Piece(Result<CompiledFunction, CompileErrorKind>);

impl std::fmt::Debug for Piece {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Piece").field(&self.0.as_ref().map(|_| ())).finish()
    }
}

/// Compiles the function with this index of a module, for callers that choose the order themselves
/// and may stop in the middle of a module.
///
/// # Panics
///
/// If there is no such function.
pub fn compile_piece(job: &Job<'_>, index: usize) -> Piece {
    Piece(with_scratch(|scratch| job.function(index, scratch)))
}

/// Joins the pieces of all functions of a module, in their order, to its artifact. The bytes are
/// those that [`compile`] makes.
///
/// # Errors
///
/// As for [`compile`].
///
/// # Panics
///
/// If there is not one piece for each function.
pub fn join_pieces(job: &Job<'_>, pieces: Vec<Piece>) -> Result<Built, Vec<CompileError>> {
    assert_eq!(pieces.len(), job.module.functions.len(), "a piece for each function");
    finish(0, job, pieces.into_iter().map(|piece| piece.0).collect())
}

/// The size of all functions, in bytes of their canonical form, from which on they are compiled in
/// parallel. To hand work to threads that sleep takes 10 to 50 us, and Cranelift compiles about
/// 10 bytes in a microsecond at `opt_level=none`, so below this size there is little to gain.
const LARGE: usize = 2000;

/// Whether [`compile_all`] compiles these modules on the calling thread, without a thread pool,
/// because there is only one function, or few small ones.
pub fn is_small<'m>(modules: impl IntoIterator<Item = &'m Module>) -> bool {
    let (mut functions, mut size) = (0, 0);
    for function in modules.into_iter().flat_map(|module| &module.functions) {
        functions += 1;
        size += match &function.code {
            Code::Ir(body) => body.as_bytes().len(),
            // It is only copied.
            Code::Machine(_) => 0,
        };
        if functions > 1 && size >= LARGE {
            return false;
        }
    }
    true
}

/// Compiles many modules on rayon's current pool: call it inside `ThreadPool::install` to choose
/// another pool. If [`is_small`] says so, it compiles on the calling thread and starts no pool.
///
/// `progress` is called after each function, whether or not it was compiled, on the thread that had
/// the function.
///
/// # Errors
///
/// One error for every function that cannot be compiled, in order of modules and functions. A
/// module whose functions can all be compiled may have one error of its assembly instead.
pub fn compile_all(jobs: &[Job<'_>], progress: &(dyn Fn() + Sync)) -> Result<Vec<Built>, Vec<CompileError>> {
    if is_small(jobs.iter().map(|job| job.module)) {
        return compile_all_here(jobs, progress);
    }
    let queue: Vec<(&Job<'_>, usize)> =
        jobs.iter().flat_map(|job| (0..job.module.functions.len()).map(move |index| (job, index))).collect();
    let mut results: Vec<Result<CompiledFunction, CompileErrorKind>> = queue
        .into_par_iter()
        .map_init(Scratch::new, |scratch, (job, index)| {
            let result = job.function(index, scratch);
            progress();
            result
        })
        .collect();

    // Split the results by module, starting from the last, then assemble the modules in parallel.
    let mut modules = Vec::with_capacity(jobs.len());
    for job in jobs.iter().rev() {
        modules.push(results.split_off(results.len() - job.module.functions.len()));
    }
    modules.reverse();
    let built: Vec<_> = jobs
        .par_iter()
        .zip(modules)
        .enumerate()
        .map(|(index, (job, compiled))| finish(index, job, compiled))
        .collect();

    all(built)
}

/// Compiles modules as [`compile_all`] does, on the calling thread: it starts no other task of its
/// pool meanwhile.
///
/// # Errors
///
/// As for [`compile_all`].
pub fn compile_all_here(
    jobs: &[Job<'_>],
    progress: &(dyn Fn() + Sync),
) -> Result<Vec<Built>, Vec<CompileError>> {
    all(jobs.iter().enumerate().map(|(index, job)| compile_here(index, job, progress)))
}

/// Returns all modules, or all errors.
fn all(
    built: impl IntoIterator<Item = Result<Built, Vec<CompileError>>>,
) -> Result<Vec<Built>, Vec<CompileError>> {
    let built = built.into_iter();
    let mut done = Vec::with_capacity(built.size_hint().0);
    let mut errors = Vec::new();
    for result in built {
        match result {
            Ok(built) => done.push(built),
            Err(found) => errors.extend(found),
        }
    }
    if errors.is_empty() { Ok(done) } else { Err(errors) }
}

/// Assembles a module from the results of its functions, if all were compiled.
fn finish(
    module: usize,
    job: &Job<'_>,
    results: Vec<Result<CompiledFunction, CompileErrorKind>>,
) -> Result<Built, Vec<CompileError>> {
    #[cfg(feature = "tracing")]
    let _span = tracing::debug_span!("assemble", module = &*job.module.name).entered();
    let error = |function_index: Option<usize>, kind| {
        let function = function_index.and_then(|index| job.module.functions.get(index));
        let name = function.map_or("", |function| &*job.module.symbol(function.symbol).name);
        CompileError {
            module,
            module_name: job.module.name.clone(),
            function_index,
            function: name.into(),
            line: function.map_or(0, |function| function.line),
            kind,
        }
    };
    let mut compiled = Vec::with_capacity(results.len());
    let mut errors = Vec::new();
    for (index, result) in results.into_iter().enumerate() {
        match result {
            Ok(function) => compiled.push(function),
            Err(kind) => errors.push(error(Some(index), kind)),
        }
    }
    if !errors.is_empty() {
        return Err(errors);
    }
    let count = |is: fn(&CompiledFunction) -> bool| compiled.iter().filter(|function| is(function)).count();
    let (reused, unfit) = (count(|function| function.reused), count(|function| function.unfit));
    // Cranelift's text section builder panics when a call cannot reach its target.
    let gathered;
    let names = match job.names {
        Some(names) => names,
        None => {
            gathered = TargetNames::new(job.isa);
            &gathered
        }
    };
    match guard(|| assemble(job.module, job.isa, names, &compiled)) {
        Ok(Ok(artifact)) => Ok(Built { artifact, reused, unfit }),
        // Reused code may be the reason, so compile everything. If that fails too, reuse was not
        // the reason.
        _ if reused > 0 => {
            drop(compiled);
            let built = compile(&Job { reuse: &[], ..*job }).map_err(|mut errors| {
                errors.iter_mut().for_each(|error| error.module = module);
                errors
            })?;
            Ok(Built { unfit: reused + unfit, ..built })
        }
        Ok(Err(AssembleError::Function(index, kind))) => Err(vec![error(Some(index), kind)]),
        Ok(Err(AssembleError::Data { line, kind })) => Err(vec![CompileError { line, ..error(None, kind) }]),
        Err(kind) => Err(vec![error(None, kind)]),
    }
}
