//! `cache explain`: the differences between two states of a module that a cache sees.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use kiln::Compiler;
use kiln::cache::{FunctionKey, Recipe};
use kiln::ir::{Module, Target};
use serde_json::json;

use crate::input::{self, InputFile};
use crate::output::{Failure, Format, Outcome, count, name as shown, print_json};

/// A state of a module, as a cache sees it.
struct State {
    recipe: Recipe,
    /// The keys of functions by their names. A function without a name is listed by its position.
    functions: BTreeMap<String, FunctionKey>,
}

fn state(file: &InputFile, target: Target) -> Result<State, Failure> {
    let module = input::one(file, &target)?;
    let compiler = Compiler::new(target);
    let (recipe, keys) = compiler.keys(&module).map_err(Failure::of)?;
    let functions = module.functions.iter().zip(keys).enumerate();
    let functions =
        functions.map(|(at, (function, key))| (name(&module, at, function.symbol), key)).collect();
    Ok(State { recipe, functions })
}

fn name(module: &Module, at: usize, symbol: kiln::ir::SymbolId) -> String {
    match &*module.symbol(symbol).name {
        "" => format!("number {at}"),
        name => name.to_owned(),
    }
}

pub(super) fn explain(old: (&Path, Target), new: (&Path, Target), format: Format) -> Outcome {
    let files = input::in_order(&[old.0.to_owned(), new.0.to_owned()])?;
    let (old, new) = (state(&files[0], old.1)?, state(&files[1], new.1)?);
    let differences = old.recipe.differences(&new.recipe);
    let known: BTreeSet<&FunctionKey> = old.functions.values().collect();
    let compiled: Vec<(&String, &str)> = new
        .functions
        .iter()
        .filter(|(_, key)| !known.contains(key))
        .map(|(name, _)| (name, if old.functions.contains_key(name) { "changed" } else { "new" }))
        .collect();
    let reused = new.functions.len() - compiled.len();
    match format {
        Format::Json => print_json(&json!({
            "hit": differences.is_empty(),
            "differences": differences.iter().map(|difference| {
                json!({ "field": difference.field.to_string(), "old": difference.old, "new": difference.new })
            }).collect::<Vec<_>>(),
            "reused_functions": reused,
            "compiled_functions": compiled.iter().map(|(name, why)| json!({ "name": name, "why": why })).collect::<Vec<_>>(),
        })),
        Format::Text if differences.is_empty() => println!("hit: both are the same module for a cache"),
        Format::Text => {
            println!("miss:");
            differences.iter().for_each(|difference| println!("  {difference}"));
            println!("{} reused, {} compiled:", count(reused, "function"), compiled.len());
            compiled.iter().for_each(|(name, why)| println!("  {}: {why}", shown(name)));
        }
    }
    Ok(())
}
