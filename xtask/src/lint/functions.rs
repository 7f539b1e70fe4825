//! Checks that functions are short enough to be read at once.

use syn::visit::{self, Visit};
use syn::{Block, ImplItemFn, ItemFn, ItemMod, Signature, TraitItemFn};

use super::modules::is_test_only;
use super::rules::{LONG_FUNCTIONS, MAX_FUNCTION_LINES};
use super::sources::Source;

/// Finds functions outside tests that have too many lines, and exceptions that are not needed.
pub(super) fn faults(sources: &[Source]) -> Vec<String> {
    faults_except(sources, &LONG_FUNCTIONS)
}

fn faults_except(sources: &[Source], exceptions: &[(&str, &str, &str)]) -> Vec<String> {
    let mut faults = Vec::new();
    let mut used = Vec::new();
    for source in sources.iter().filter(|source| source.is_rust() && !source.is_test()) {
        // The compiler reports a file that does not parse.
        let Ok(file) = syn::parse_file(&source.text) else { continue };
        let mut found = LongFunctions::default();
        found.visit_file(&file);
        for LongFunction { name, line, lines } in found.0 {
            match exceptions.iter().position(|(path, long, _)| (*path, *long) == (&source.path, &name)) {
                Some(exception) => used.push(exception),
                None => faults.push(format!(
                    "{}:{line}: function `{name}` has {lines} lines, at most {MAX_FUNCTION_LINES}",
                    source.path
                )),
            }
        }
    }
    let unused = exceptions.iter().enumerate().filter(|(number, _)| !used.contains(number));
    faults.extend(unused.map(|(_, (path, name, _))| {
        format!("{path}:1: has no long function `{name}`: remove it from the exceptions")
    }));
    faults
}

struct LongFunction {
    name: String,
    line: usize,
    lines: usize,
}

/// Collects the functions that have too many lines.
#[derive(Default)]
struct LongFunctions(Vec<LongFunction>);

impl LongFunctions {
    fn measure(&mut self, signature: &Signature, block: &Block) {
        let line = signature.fn_token.span.start().line;
        let lines = block.brace_token.span.close().end().line + 1 - line;
        if lines > MAX_FUNCTION_LINES {
            self.0.push(LongFunction { name: signature.ident.to_string(), line, lines });
        }
    }
}

impl<'a> Visit<'a> for LongFunctions {
    fn visit_item_mod(&mut self, module: &'a ItemMod) {
        if !is_test_only(&module.attrs) {
            visit::visit_item_mod(self, module);
        }
    }

    fn visit_item_fn(&mut self, function: &'a ItemFn) {
        if !is_test_only(&function.attrs) {
            self.measure(&function.sig, &function.block);
            visit::visit_item_fn(self, function);
        }
    }

    fn visit_impl_item_fn(&mut self, function: &'a ImplItemFn) {
        if !is_test_only(&function.attrs) {
            self.measure(&function.sig, &function.block);
            visit::visit_impl_item_fn(self, function);
        }
    }

    fn visit_trait_item_fn(&mut self, function: &'a TraitItemFn) {
        if let Some(block) = &function.default {
            self.measure(&function.sig, block);
        }
        visit::visit_trait_item_fn(self, function);
    }
}

#[cfg(test)]
mod tests {
    use super::super::sources::source;
    use super::*;

    /// The text of a function that has `lines` lines.
    fn function(name: &str, lines: usize) -> String {
        format!("fn {name}() {{\n{}}}\n", "\n".repeat(lines - 2))
    }

    #[test]
    fn long_functions_are_found_wherever_they_are() {
        let faults = |text: &str| faults_except(&[source("a.rs", text)], &[]);
        assert_eq!(faults(&function("fits", 120)), [""; 0]);
        assert_eq!(
            faults(&format!("/// A doc.\n\n{}", function("long", 121))),
            ["a.rs:3: function `long` has 121 lines, at most 120"]
        );
        let long = function("long", 130);
        let expected = ["a.rs:2: function `long` has 130 lines, at most 120"];
        for outer in ["impl A", "trait A", "mod a", "impl A for B", "fn outer()"] {
            let found = faults(&format!("{outer} {{\n{long}}}"));
            assert!(found.contains(&expected[0].to_owned()), "{outer}: {found:?}");
        }
    }

    #[test]
    fn tests_may_have_long_functions() {
        let long = function("long", 121);
        let faults = |path: &str, text: &str| faults_except(&[source(path, text)], &[]);
        assert_eq!(faults("a.rs", &format!("#[test]\n{long}")), [""; 0]);
        assert_eq!(faults("a.rs", &format!("#[cfg(test)]\nmod tests {{\n{long}}}")), [""; 0]);
        assert_eq!(faults("tests/a.rs", &long), [""; 0]);
        assert_eq!(faults("src/tests.rs", &long), [""; 0]);
    }

    #[test]
    fn exceptions_are_needed() {
        let exceptions = [("a.rs", "long", "a table"), ("a.rs", "gone", "a table")];
        assert_eq!(
            faults_except(&[source("a.rs", &function("long", 121))], &exceptions),
            ["a.rs:1: has no long function `gone`: remove it from the exceptions"]
        );
    }
}
