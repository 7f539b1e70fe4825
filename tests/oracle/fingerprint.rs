//! A fingerprint covers what `kiln_ir::Fingerprint` promises, and leaves out what it promises to:
//! tried with random modules.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};

use kiln::ir::{Code, Fingerprint, Linkage, Module, Source, SymbolId, Target, parse, print};
use kiln_oracle::forms::read;
use kiln_oracle::random::Random;

use crate::cases::run;
use crate::edits::{Edit, edit};
use crate::modules::{self, compile, same_artifact};
use crate::rewrite::rewrite;

#[test]
fn unchanged_fingerprints() {
    run("unchanged_fingerprints", 100, unchanged);
}

#[test]
fn changed_fingerprints() {
    let kinds = Mutex::default();
    let cases = run("changed_fingerprints", 400, |seed| changed(seed, &kinds));
    let kinds: BTreeSet<String> = kinds.into_inner().expect("no case panicked");
    println!("{} kinds of changes", kinds.len());
    assert!(cases < 400 || kinds.len() >= 150, "{} kinds of changes: {kinds:?}", kinds.len());
}

fn of_functions(module: &Module) -> Vec<Fingerprint> {
    module.functions.iter().map(|function| module.function_fingerprint(function)).collect()
}

/// Fingerprints of the functions after every symbol got a higher number.
fn shifted(module: &Module) -> Vec<Fingerprint> {
    let next = |id: SymbolId| SymbolId::from_u32(id.as_u32() + 1);
    let mut module = module.clone();
    module.symbols.insert(0, module.symbols[0].clone());
    for function in &mut module.functions {
        function.symbol = next(function.symbol);
        if let Code::Ir(body) = &function.code {
            function.code = Code::Ir(body.with_references(next));
        }
    }
    of_functions(&module)
}

/// Another text of each module has the same fingerprints, and becomes the same artifact.
fn unchanged(seed: u64) -> Result<(), String> {
    let mut random = Random::new(seed ^ 0x5eed);
    for mut module in modules::of(seed) {
        module.comments.clear();
        module.functions.iter_mut().for_each(|function| function.comments = Default::default());
        let text = print(&module).map_err(|error| error.to_string())?;
        // Compared as text, since only line numbers differ, and fingerprints leave them out.
        let module = read(&text, &Target::host())?;
        let other = shifted(&module);
        for (one, other) in module.functions.iter().zip(&other) {
            let local = |id: &SymbolId| module.symbol(*id).linkage == Linkage::Local;
            if one.body().is_some_and(|body| !body.references().iter().any(local))
                && module.function_fingerprint(one) != *other
            {
                return Err(format!("numbers of symbols that others see count in {:?}", one.symbol));
            }
        }
        for locals in [false, true] {
            let other = rewrite(&text, &module, locals, &mut random);
            let source = Arc::new(Source::new("another name.clif", other.as_str()));
            let read = parse(source, &Target::host()).map_err(|faults| {
                let faults = faults.iter().map(ToString::to_string).collect::<Vec<_>>();
                format!("the other text is no module: {}\n{other}", faults.join("\n"))
            })?;
            let fail = |what: String| Err(format!("{what}:\n{text}\n--- rewritten\n{other}"));
            if module.fingerprint() != read.fingerprint() {
                return fail("another fingerprint".into());
            }
            if of_functions(&module) != of_functions(&read) {
                return fail("other fingerprints of functions".into());
            }
            if !locals {
                if module.local_names_fingerprint() != read.local_names_fingerprint() {
                    return fail("another fingerprint of local names".into());
                }
                if let Err(difference) = same_artifact(&module, &read) {
                    return fail(difference);
                }
            } else if compile(&module)?.text() != compile(&read)?.text() {
                return fail("other code for other local names".into());
            }
        }
    }
    Ok(())
}

/// A change of something that fingerprints cover changes those of the module and of the functions
/// that it affects.
fn changed(seed: u64, kinds: &Mutex<BTreeSet<String>>) -> Result<(), String> {
    let mut random = Random::new(seed ^ 0xed17);
    for module in modules::of(seed) {
        let (whole, parts) = (module.fingerprint(), of_functions(&module));
        let mut renamed = module.clone();
        if let Some(local) = renamed.symbols.iter_mut().find(|symbol| symbol.linkage == Linkage::Local) {
            local.name = format!("{} ", local.name).into();
            let same = (renamed.fingerprint(), of_functions(&renamed)) == (whole, parts.clone());
            if !same || renamed.local_names_fingerprint() == module.local_names_fingerprint() {
                return Err("a local name counts in the wrong fingerprint".into());
            }
        }
        for _ in 0..64 {
            let Some(Edit { what, module: edited, concerned }) = edit(&module, &mut random) else { continue };
            // The kind of the change, without its place.
            let kind = what.split(" in `").next().unwrap_or_default().to_owned();
            kinds.lock().expect("no case panicked").insert(kind);
            if edited.fingerprint() == whole {
                return Err(format!("{what}: the same fingerprint"));
            }
            for (number, (before, after)) in parts.iter().zip(of_functions(&edited)).enumerate() {
                if (*before != after) != concerned[number] {
                    let shown = edited.functions[number].ir().map(|ir| ir.to_string());
                    let says = if concerned[number] { "the same" } else { "another" };
                    let shown = shown.unwrap_or_default();
                    return Err(format!("{what}: {says} fingerprint of function {number}\n{shown}"));
                }
            }
        }
    }
    Ok(())
}
