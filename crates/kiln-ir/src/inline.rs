//! Inlines small functions of a program's modules into each other.
//!
//! It makes new modules from modules, before anything is compiled or looked up in a cache. So
//! everything after it needs to know nothing about it. The fingerprint of the new module covers
//! what was inlined, and so does the key of each function. If a callee is edited, the modules and
//! functions into which it is inlined are others, and no other ones are, also when it grows so much
//! that it is not inlined any more.
//!
//! The alternative is to inline when a function is compiled, with a key of its IR and that of all
//! callees that were considered. It would spare the inlining of a module that the cache has. But
//! the list of references of a function would no longer be that of its IR, on which reuse of
//! functions, the farm and the linker's tables rest, and the key would say less: a callee that was
//! considered and not inlined would compile its callers again.
//!
//! | file | content |
//! |---|---|
//! | `options` | how much is inlined |
//! | `program` | which function a call reaches, and names between modules |
//! | `callee` | functions that may be inlined |
//! | `caller` | inlines into one function |
//! | `rebuild` | the new module |
//!
//! Invariants: the new modules depend on the given modules and the options, and on nothing else;
//! not on their order, or on threads, since each function is made from the given code of others. A
//! function that is inlined is refused in case of doubt, and then it is called.

mod callee;
mod caller;
mod options;
mod program;
mod rebuild;

use std::sync::OnceLock;

use cranelift_codegen::isa::TargetIsa;
use rayon::prelude::*;

use self::callee::Callee;
use self::caller::Inlined;
pub use self::options::Inlining;
use self::program::{Place, Program};
use crate::module::Module;

/// A module into which calls were inlined.
#[derive(Debug)]
pub struct InlinedModule {
    /// The module. It has no comments and no ids of a builder, so it is for compiling only.
    pub module: Module,
    /// The number of calls that were inlined.
    pub calls: usize,
}

/// Inlines calls between functions of `modules`, which are all linked into one program, in parallel
/// on rayon's current pool if there are `many` functions. Returns a new module for each one that
/// changes, and `None` for the others. `isas` has the code generator of each module.
///
/// A call is inlined if it reaches the same function as long as the program runs: one that is
/// exported, hidden or local, and not preemptible or replaceable. The function must be in the
/// program, have at most [`Inlining::size`] instructions or the hint
/// [`InlineHint::Inline`](crate::InlineHint::Inline), and refer to nothing that the module of the
/// caller cannot name, such as private data of another module. Calls in it are inlined too, up to a
/// limit; recursive calls are not. Both modules must have the same settings. Functions that need a
/// frame of their own are not inlined, nor are tail calls and calls with handlers of exceptions.
///
/// A function stays in its module, since others may take its address. A debugger or a backtrace
/// does not see the frame of an inlined call: its instructions are at the source location of the
/// call, in the function that has it.
///
/// # Panics
///
/// If there is not one code generator for each module.
pub fn inline(
    modules: &[Module],
    isas: &[&dyn TargetIsa],
    options: Inlining,
    many: bool,
) -> Vec<Option<InlinedModule>> {
    assert_eq!(modules.len(), isas.len(), "a code generator for each module");
    let program = Program::new(modules);
    // Made when the first call to it is considered; whoever makes it, it is the same.
    let callees: Vec<Vec<OnceLock<Option<Callee>>>> =
        modules.iter().map(|module| module.functions.iter().map(|_| OnceLock::new()).collect()).collect();
    let callee = |Place { module, function }| {
        let made = callees[module][function].get_or_init(|| {
            callee::prepare(module, &modules[module].functions[function], isas[module], options)
        });
        made.as_ref()
    };
    let one = |user: Place| caller::inline(&program, user, isas[user.module], &callee);
    let places = modules
        .iter()
        .enumerate()
        .flat_map(|(module, of)| (0..of.functions.len()).map(move |function| Place { module, function }));
    let places: Vec<Place> = places.collect();
    let inlined: Vec<Option<Inlined>> = match many {
        true => places.into_par_iter().map(one).collect(),
        false => places.into_iter().map(one).collect(),
    };
    let mut inlined = inlined.into_iter();
    let of_module = |module: &Module| {
        let own = inlined.by_ref().take(module.functions.len()).enumerate();
        own.filter_map(|(function, inlined)| Some((function, inlined?))).collect()
    };
    let changed: Vec<Vec<(usize, Inlined)>> = modules.iter().map(of_module).collect();
    let rebuild = |(number, functions): (usize, Vec<(usize, Inlined)>)| {
        if functions.is_empty() {
            return None;
        }
        let (module, calls) = rebuild::rebuild(&program, number, functions);
        (calls > 0).then_some(InlinedModule { module, calls })
    };
    match many {
        true => changed.into_par_iter().enumerate().map(rebuild).collect(),
        false => changed.into_iter().enumerate().map(rebuild).collect(),
    }
}
