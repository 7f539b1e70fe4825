//! Checks over all modules of a build, before any code is generated.
//!
//! A linker would find these errors late, or not at all. Only symbols that other modules can see
//! are checked. Globals are not: they are identified by key and need no definition. The result does
//! not depend on the order of a hash map, because maps are only used for look-ups, and symbols are
//! visited module by module.

use std::cell::OnceCell;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use crate::diagnostic::{self, Diagnostic, DiagnosticKind, Related, duplicate};
use crate::location::Location;
use crate::module::Module;
use crate::names::written;
use crate::signature::{Shown, same_type};
use crate::similar::{Candidate, nearest};
use crate::source::Source;
use crate::symbol::{Linkage, Symbol, SymbolKind};

/// The modules of a build, and the sources that errors in them refer to.
struct Program<'m> {
    modules: &'m [&'m Module],
    /// A source without text for each module that has no source: the binary form keeps line
    /// numbers, but not the text. It is made for the module's first error and then shared, so that
    /// the name is not copied for each error.
    unseen: Vec<OnceCell<Arc<Source>>>,
}

/// A symbol and the number of its module.
#[derive(Clone, Copy)]
struct ModuleSymbol<'m> {
    module: usize,
    symbol: &'m Symbol,
}

impl<'m> Program<'m> {
    fn new(modules: &'m [&'m Module]) -> Self {
        Self { modules, unseen: modules.iter().map(|_| OnceCell::new()).collect() }
    }

    fn location(&self, place: ModuleSymbol<'_>) -> Location {
        let (module, line) = (self.modules[place.module], place.symbol.line);
        match &module.source {
            Some(source) if line != 0 => Location::word(source, line, &written(&place.symbol.name)),
            Some(source) => Location::whole(source.clone()),
            None => {
                let source =
                    self.unseen[place.module].get_or_init(|| Arc::new(Source::new(module.name.clone(), "")));
                Location::unseen(source.clone(), line)
            }
        }
    }

    /// Returns all symbols with a name for linking, in order of module and number.
    fn symbols(&self) -> impl Iterator<Item = ModuleSymbol<'m>> + use<'m> {
        self.modules.iter().enumerate().flat_map(|(module, definer)| {
            let symbols = definer.symbols.iter().filter(|symbol| symbol.kind != SymbolKind::Global);
            symbols.map(move |symbol| ModuleSymbol { module, symbol })
        })
    }

    /// Returns the symbols that other modules can see, in order of module and number.
    fn visible(&self) -> impl Iterator<Item = ModuleSymbol<'m>> + use<'m> {
        self.symbols().filter(|candidate| candidate.symbol.linkage != Linkage::Local)
    }
}

/// Returns the definition of each name, and adds an error for each name that is defined twice. A
/// definition replaces a preemptible one; of several preemptible ones the first is chosen, of
/// several replaceable ones the last. These do not mix with others.
fn definitions<'m>(
    program: &Program<'m>,
    faults: &mut Vec<Diagnostic>,
) -> HashMap<&'m str, ModuleSymbol<'m>> {
    let mut chosen: HashMap<&str, ModuleSymbol<'_>> = HashMap::new();
    for candidate in program.visible().filter(|candidate| candidate.symbol.linkage != Linkage::Import) {
        match chosen.get(&*candidate.symbol.name) {
            None => {
                chosen.insert(&candidate.symbol.name, candidate);
            }
            Some(first) if is_replaceable(first) != is_replaceable(&candidate) => {
                let name = written(&candidate.symbol.name);
                let (now, before) = match is_replaceable(first) {
                    true => ("not replaceable", "defined as replaceable here"),
                    false => ("replaceable", "defined as not replaceable here"),
                };
                let message = format!("`{name}` is {now} here, but has another definition");
                let (second, first) = (program.location(candidate), program.location(*first));
                let fault = Diagnostic::new(DiagnosticKind::Duplicate, message, second);
                faults.push(fault.related(first, before));
            }
            Some(first) if is_replaceable(first) && first.module != candidate.module => {
                chosen.insert(&candidate.symbol.name, candidate);
            }
            Some(_) if candidate.symbol.linkage == Linkage::Preemptible => {}
            Some(first) if first.symbol.linkage == Linkage::Preemptible => {
                chosen.insert(&candidate.symbol.name, candidate);
            }
            Some(first) => {
                let (second, first) = (program.location(candidate), program.location(*first));
                faults.push(duplicate(&candidate.symbol.name, second, first));
            }
        }
    }
    chosen
}

fn is_replaceable(place: &ModuleSymbol<'_>) -> bool {
    place.symbol.linkage == Linkage::Replaceable
}

/// Returns the errors in modules that are each correct, but cannot be linked together:
///
/// - a name that two of them define, unless all but one are [`Linkage::Preemptible`], or all are
///   [`Linkage::Replaceable`];
/// - a function that is imported with a type other than that of its definition, or with two types
///   (parameter and return types and the calling convention are compared; extension and purpose of
///   parameters are not);
/// - data imported as a function.
///
/// Diagnostics are ordered by location. Each also has the other location that is involved.
pub fn check_program(modules: &[&Module]) -> Vec<Diagnostic> {
    let program = Program::new(modules);
    let mut faults = Vec::new();
    // A symbol alone cannot contradict another: the module of one function in a session.
    if program.visible().nth(1).is_none() {
        return faults;
    }
    let chosen = definitions(&program, &mut faults);
    let mut imported: HashMap<&str, ModuleSymbol<'_>> = HashMap::new();
    for candidate in program.visible() {
        let Symbol { name, signature: Some(signature), .. } = candidate.symbol else { continue };
        let (other, whose) = match (chosen.get(&**name), candidate.symbol.linkage) {
            (Some(definition), _) => (*definition, "defined"),
            (None, _) => (*imported.entry(name).or_insert(candidate), "first declared"),
        };
        let fault = match &other.symbol.signature {
            Some(own) if same_type(own, signature) => continue,
            Some(own) => {
                let (shown, signature, own) = (written(name), Shown(signature), Shown(own));
                let message = format!("`{shown}` is declared as {signature}, but {whose} as {own}");
                Diagnostic::new(DiagnosticKind::Signature, message, program.location(candidate))
            }
            // A data object may replace a preemptible function, but an import of a function must
            // not mean data.
            None => {
                let shown = written(name);
                let message = format!("`{shown}` is declared as a function, but defined as data");
                Diagnostic::new(DiagnosticKind::Kind, message, program.location(candidate))
            }
        };
        faults.push(fault.related(program.location(other), format!("{whose} here")));
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

/// The number of undefined names for which a similar name is searched. Each search compares all
/// names.
const CORRECTED: usize = 100;

/// Returns the imports that no module defines and the host does not provide: one diagnostic for
/// each name, at its first use, ordered by location. Bounds of a section count as defined if a data
/// object is in that section. The first hundred diagnostics name the definition that has the most
/// similar name, if there is one.
pub fn undefined(modules: &[&Module], provided: &dyn Fn(&str) -> bool) -> Vec<Diagnostic> {
    let program = Program::new(modules);
    let chosen = definitions(&program, &mut Vec::new());
    let data = modules.iter().flat_map(|module| &module.data);
    let sections: HashSet<&str> = data.filter_map(|object| object.section.as_deref()).collect();
    let mut seen = HashSet::new();
    let mut faults = Vec::new();
    for candidate in program.visible().filter(|candidate| candidate.symbol.linkage == Linkage::Import) {
        let name = &*candidate.symbol.name;
        if bounded_section(name).is_some_and(|section| sections.contains(section)) {
            continue;
        }
        if !chosen.contains_key(name) && seen.insert(name) && !provided(name) {
            let message = format!("`{}` is not defined", written(name));
            let location = program.location(candidate);
            faults.push((Diagnostic::new(DiagnosticKind::Undefined, message, location), candidate));
        }
    }
    faults.sort_by(|(a, _), (b, _)| diagnostic::order(a, b));
    if !faults.is_empty() {
        correct(&program, &mut faults);
    }
    faults.into_iter().map(|(fault, _)| fault).collect()
}

/// Adds similar names to the first of `faults`, which are about undefined names.
fn correct(program: &Program<'_>, faults: &mut [(Diagnostic, ModuleSymbol<'_>)]) {
    let defined = program.symbols().filter(|place| place.symbol.linkage != Linkage::Import);
    let candidates: Vec<_> = defined.map(|place| Candidate::new(&place.symbol.name, place)).collect();
    for (fault, place) in faults.iter_mut().take(CORRECTED) {
        // Numbers are not misspelt.
        if place.symbol.name.contains(':') {
            continue;
        }
        let usable = |other: &ModuleSymbol<'_>| {
            !other.symbol.name.contains(':')
                && (other.symbol.linkage != Linkage::Local || other.module == place.module)
        };
        if let Some(similar) = nearest(&place.symbol.name, &candidates, usable) {
            fault.message = format!("{}; did you mean `{}`?", fault.message, written(similar.name)).into();
            let location = program.location(similar.what);
            fault.related.push(Related { location, label: "defined here".into() });
        }
    }
}
