//! Checks over all modules of a build, before any code is generated.
//!
//! A linker would find these errors late, or not at all. Only symbols that other modules can see
//! are checked; globals are named by key and need no definition. The result does not depend on the
//! order of a hash map: maps are only looked up in, and symbols are visited module by module.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use crate::diagnostic::{self, Diagnostic, DiagnosticKind, duplicate};
use crate::location::Location;
use crate::module::Module;
use crate::names::written;
use crate::signature::same_type;
use crate::source::Source;
use crate::symbol::{Linkage, Symbol, SymbolKind};

/// A symbol and its module.
#[derive(Clone, Copy)]
struct ModuleSymbol<'m> {
    module: &'m Module,
    symbol: &'m Symbol,
}

impl ModuleSymbol<'_> {
    fn location(&self) -> Location {
        let line = self.symbol.line;
        match &self.module.source {
            Some(source) if line != 0 => Location::word(source, line, &written(&self.symbol.name)),
            Some(source) => Location::whole(source.clone()),
            // In binary form a module keeps its lines, not its text.
            None => Location::unseen(Arc::new(Source::new(self.module.name.clone(), "")), line),
        }
    }
}

/// Returns the symbols that other modules can see, in order of module and number.
fn visible<'m>(modules: &[&'m Module]) -> impl Iterator<Item = ModuleSymbol<'m>> {
    modules.iter().flat_map(|&module| {
        let symbols =
            module.symbols.iter().filter(|s| s.linkage != Linkage::Local && s.kind != SymbolKind::Global);
        symbols.map(move |symbol| ModuleSymbol { module, symbol })
    })
}

/// Returns the definition of each name, and adds an error for each name that is defined twice. A
/// definition replaces a preemptible one; of several preemptible ones the first is chosen.
fn definitions<'m>(
    modules: &[&'m Module],
    faults: &mut Vec<Diagnostic>,
) -> HashMap<&'m str, ModuleSymbol<'m>> {
    let mut chosen: HashMap<&str, ModuleSymbol<'_>> = HashMap::new();
    for candidate in visible(modules).filter(|candidate| candidate.symbol.linkage != Linkage::Import) {
        match chosen.get(&*candidate.symbol.name) {
            None => {
                chosen.insert(&candidate.symbol.name, candidate);
            }
            Some(_) if candidate.symbol.linkage == Linkage::Preemptible => {}
            Some(first) if first.symbol.linkage == Linkage::Preemptible => {
                chosen.insert(&candidate.symbol.name, candidate);
            }
            Some(first) => {
                faults.push(duplicate(&candidate.symbol.name, candidate.location(), first.location()))
            }
        }
    }
    chosen
}

/// Returns the errors in modules that are each correct, but cannot be linked together:
///
/// - a name that two of them define, unless all but one are [`Linkage::Preemptible`];
/// - a function that is imported with a type that differs from its definition's, or with two types
///   (parameter and return types and the calling convention are compared; extension and purpose of
///   parameters are not);
/// - data imported as a function.
///
/// Diagnostics are ordered by location. Each names the other location too.
pub fn check_program(modules: &[&Module]) -> Vec<Diagnostic> {
    let mut faults = Vec::new();
    let chosen = definitions(modules, &mut faults);
    let mut imported: HashMap<&str, ModuleSymbol<'_>> = HashMap::new();
    for candidate in visible(modules) {
        let Symbol { name, signature: Some(signature), .. } = candidate.symbol else { continue };
        let shown = written(name);
        let (other, whose) = match (chosen.get(&**name), candidate.symbol.linkage) {
            (Some(definition), _) => (*definition, "defined"),
            (None, _) => (*imported.entry(name).or_insert(candidate), "first declared"),
        };
        let fault = match &other.symbol.signature {
            Some(own) if same_type(own, signature) => continue,
            Some(own) => {
                let message = format!("`{shown}` is declared as {signature}, but {whose} as {own}");
                Diagnostic::new(DiagnosticKind::Signature, message, candidate.location())
            }
            // A data object may replace a preemptible function, but an import of a function must
            // not mean data.
            None => {
                let message = format!("`{shown}` is declared as a function, but defined as data");
                Diagnostic::new(DiagnosticKind::Kind, message, candidate.location())
            }
        };
        faults.push(fault.related(other.location(), format!("{whose} here")));
    }
    diagnostic::sort(&mut faults);
    faults
}

/// Returns the section of which a symbol called `symbol` is the first or last address, if nothing
/// else has the name: `__start_NAME` and `__stop_NAME`, where `NAME` is an identifier of C. Linkers
/// provide these symbols.
fn bounded_section(symbol: &str) -> Option<&str> {
    let name = symbol.strip_prefix("__start_").or_else(|| symbol.strip_prefix("__stop_"))?;
    let letters = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    let first = name.bytes().next().is_some_and(|byte| !byte.is_ascii_digit());
    (letters && first).then_some(name)
}

/// Returns the imports that no module defines and the host does not provide: one diagnostic for
/// each name, at its first use, ordered by location. The bounds of a section that a data object
/// names are defined.
pub fn undefined(modules: &[&Module], provided: &dyn Fn(&str) -> bool) -> Vec<Diagnostic> {
    let chosen = definitions(modules, &mut Vec::new());
    let data = modules.iter().flat_map(|module| &module.data);
    let sections: HashSet<&str> = data.filter_map(|object| object.section.as_deref()).collect();
    let mut seen = HashSet::new();
    let mut faults = Vec::new();
    for candidate in visible(modules).filter(|candidate| candidate.symbol.linkage == Linkage::Import) {
        let name = &*candidate.symbol.name;
        if bounded_section(name).is_some_and(|section| sections.contains(section)) {
            continue;
        }
        if !chosen.contains_key(name) && seen.insert(name) && !provided(name) {
            let message = format!("`{}` is not defined", written(name));
            faults.push(Diagnostic::new(DiagnosticKind::Undefined, message, candidate.location()));
        }
    }
    diagnostic::sort(&mut faults);
    faults
}
