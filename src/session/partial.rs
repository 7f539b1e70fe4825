//! Modules of which some fail: the others are added.

use std::collections::HashMap;
use std::fmt;

use kiln_artifact::Artifact;
use kiln_ir::{Linkage, Module, SymbolKind};
use kiln_jit::{JitError, Unit};
use rayon::prelude::*;

use super::engine::{Engine, Linking};
use super::error::SessionError;
use crate::compiler::Compiled;

/// The result of [`Session::add_partly`](super::Session::add_partly).
#[derive(Debug)]
pub struct Partial {
    /// The modules that were added, in order, as one unit. `None` if all failed.
    pub unit: Option<Unit>,
    /// The positions of the modules of the unit among those that were given.
    pub added: Vec<usize>,
    /// The modules that were not added, in order.
    pub failures: Vec<Failure>,
}

/// A module that was not added, and the reason.
#[derive(Debug)]
pub struct Failure {
    /// The position of the module among those that were given.
    pub module: usize,
    /// The module's name.
    pub name: Box<str>,
    /// The reason.
    pub reason: FailureReason,
}

/// The reason why a module was not added.
#[derive(Debug)]
#[non_exhaustive]
pub enum FailureReason {
    /// Its own fault. In the error, the module is the only one, or has its position among those
    /// that did not fail before.
    Error(SessionError),
    /// It uses a definition of a module that failed.
    Needs {
        /// The function or data object.
        symbol: Box<str>,
        /// The first function that uses it; empty if that is data, or a function without a name.
        user: Box<str>,
        /// The position of the module that failed.
        failed: usize,
        /// The name of the module that failed.
        failed_name: Box<str>,
    },
    /// It uses something that nobody has.
    Unbound {
        /// The name of the symbol, or the key of the global.
        symbol: Box<str>,
        /// The first function that uses it; empty if that is data, or a function without a name.
        user: Box<str>,
    },
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { module: _, name, reason } = self;
        let by = |user: &str| if user.is_empty() { String::new() } else { format!("`{user}` of ") };
        match reason {
            FailureReason::Error(error) => write!(f, "module `{name}`: {error}"),
            FailureReason::Needs { symbol, user, failed: _, failed_name } => write!(
                f,
                "{}module `{name}` needs `{symbol}`, which module `{failed_name}` defines, and that failed",
                by(user)
            ),
            FailureReason::Unbound { symbol, user } => {
                write!(f, "{}module `{name}` needs `{symbol}`, which nobody defines", by(user))
            }
        }
    }
}

/// The modules that have not failed so far, and those that have.
struct Sieve<'m> {
    modules: &'m [Module],
    /// The artifacts of the modules that have not failed.
    artifacts: Vec<Option<Artifact>>,
    failures: Vec<Failure>,
}

impl Sieve<'_> {
    fn fail(&mut self, module: usize, reason: FailureReason) {
        if self.artifacts[module].take().is_some() {
            self.failures.push(Failure { module, name: self.modules[module].name.clone(), reason });
        }
    }

    /// Fails the modules that use definitions of modules that failed, and those that use these.
    fn fail_users(&mut self, is_defined: &dyn Fn(&str) -> bool) {
        loop {
            // Where each name is defined: in a module that has not failed, if there is one.
            let mut definers: HashMap<&str, (usize, bool)> = HashMap::new();
            for (number, module) in self.modules.iter().enumerate() {
                let is_left = self.artifacts[number].is_some();
                for symbol in module.symbols.iter().filter(|symbol| is_visible(symbol.linkage)) {
                    let known = definers.entry(&symbol.name).or_insert((number, is_left));
                    if is_left && !known.1 {
                        *known = (number, true);
                    }
                }
            }
            let mut found = Vec::new();
            for (number, module) in self.modules.iter().enumerate() {
                if self.artifacts[number].is_none() {
                    continue;
                }
                let imports = module
                    .symbols
                    .iter()
                    .filter(|symbol| symbol.linkage == Linkage::Import && symbol.kind != SymbolKind::Global);
                for symbol in imports {
                    if let Some(&(failed, false)) = definers.get(&*symbol.name)
                        && !is_defined(&symbol.name)
                    {
                        let (symbol, user) = (symbol.name.clone(), user(module, &symbol.name));
                        let failed_name = self.modules[failed].name.clone();
                        found.push((number, FailureReason::Needs { symbol, user, failed, failed_name }));
                        break;
                    }
                }
            }
            if found.is_empty() {
                return;
            }
            for (module, reason) in found {
                self.fail(module, reason);
            }
        }
    }

    /// Fails the modules that an error of the linker is about: at least one.
    fn fail_for(&mut self, left: &[usize], error: JitError) {
        if let JitError::Unbound { error: unbound, .. } = &error {
            let modules = self.modules;
            let before = self.failures.len();
            for &number in left {
                let names = unbound.keys().map(|key| key.text());
                let used =
                    names.filter(|name| modules[number].symbols.iter().any(|symbol| &*symbol.name == *name));
                if let Some(symbol) = used.map(Box::<str>::from).next() {
                    let user = user(&modules[number], &symbol);
                    self.fail(number, FailureReason::Unbound { symbol, user });
                }
            }
            if self.failures.len() > before {
                return;
            }
        }
        let blamed: Vec<usize> =
            error.modules().into_iter().filter_map(|module| left.get(module).copied()).collect();
        // An error that is about no module is about all.
        let blamed = if blamed.is_empty() { left.to_vec() } else { blamed };
        let (text, mut error) = (error.to_string(), Some(error));
        for module in blamed {
            let error = match error.take() {
                Some(error) => SessionError::Jit(error),
                None => SessionError::Same { text: text.as_str().into() },
            };
            self.fail(module, FailureReason::Error(error));
        }
    }
}

fn is_visible(linkage: Linkage) -> bool {
    !matches!(linkage, Linkage::Import | Linkage::Local)
}

/// Returns the name of the first function that uses a symbol.
fn user(module: &Module, name: &str) -> Box<str> {
    let used = |symbol: &kiln_ir::SymbolId| &*module.symbol(*symbol).name == name;
    let function = module
        .functions
        .iter()
        .find(|function| function.body().is_some_and(|body| body.references().iter().any(used)));
    function.map_or("".into(), |function| module.symbol(function.symbol).name.clone())
}

impl Engine {
    /// Adds the modules that do not fail, and need none that fails.
    pub(super) fn build_partly(&self, modules: &[Module]) -> Partial {
        let compiled: Vec<Result<Compiled, SessionError>> = self.compiler.install(|| {
            let each = modules.par_iter().with_max_len(1);
            each.map(|module| Ok(self.compiler.compile(std::slice::from_ref(module))?)).collect()
        });
        let mut sieve = Sieve { modules, artifacts: Vec::new(), failures: Vec::new() };
        let mut errors = Vec::new();
        for (number, result) in compiled.into_iter().enumerate() {
            match result {
                Ok(compiled) => {
                    self.add_stats(compiled.stats);
                    self.compiler.verify_in_background(compiled.samples);
                    sieve.artifacts.push(compiled.artifacts.into_iter().next());
                }
                Err(error) => {
                    sieve.artifacts.push(None);
                    errors.push((number, error));
                }
            }
        }
        for (module, error) in errors {
            let (name, reason) = (modules[module].name.clone(), FailureReason::Error(error));
            sieve.failures.push(Failure { module, name, reason });
        }
        let is_defined = |name: &str| self.jit.defines(name);
        let (unit, added) = loop {
            sieve.fail_users(&is_defined);
            let left: Vec<usize> =
                (0..modules.len()).filter(|&number| sieve.artifacts[number].is_some()).collect();
            if left.is_empty() {
                break (None, left);
            }
            let artifacts: Vec<Artifact> = sieve.artifacts.iter().flatten().cloned().collect();
            let names: Vec<&str> = left.iter().map(|&number| &*modules[number].name).collect();
            match self.link(&artifacts, &names, Linking::Add) {
                Ok(unit) => break (Some(unit), left),
                Err(SessionError::Jit(error)) => sieve.fail_for(&left, error),
                Err(_) => unreachable!("a link has errors of the linker only"),
            }
        };
        let mut failures = sieve.failures;
        failures.sort_by_key(|failure| failure.module);
        Partial { unit, added, failures }
    }
}
