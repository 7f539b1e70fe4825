//! The references between the files of a crate: paths in one file to items of another.
//!
//! Paths are found in `use`, in types, expressions and patterns, and among the tokens of macros. A
//! path through a re-export is a reference to the file that defines the item. The re-export itself
//! is a reference from its own file to that file. Test code is ignored.
//!
//! For example, with `pub use decode::Decoder;` in `body.rs`, `use crate::body::Decoder;` in
//! `check.rs` makes two references: `check.rs` to `decode.rs`, and `body.rs` to `decode.rs`.

use std::collections::BTreeMap;

use proc_macro2::{TokenStream, TokenTree};
use syn::visit::{self, Visit};
use syn::{Attribute, ImplItemFn, Item, ItemUse, Macro, Meta, Path};

use super::modules::{Crate, Found, attributes, imports, is_test_only};
use super::sources::Source;

/// The references from each file to others. Only the first reference from one file to another is
/// kept.
pub(super) type Graph<'a> = BTreeMap<&'a str, BTreeMap<&'a str, Reference>>;

/// An item that a file names, and the line on which it does.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Reference {
    pub(super) item: String,
    pub(super) line: usize,
}

/// The references between the files of the crate whose root is `root`.
pub(super) fn between_files<'a>(sources: &'a [Source], root: &'a Source) -> Graph<'a> {
    let mut whole = Crate::read(sources, root);
    import_in_functions(&mut whole);
    let mut graph = Graph::new();
    for module in 0..whole.modules.len() {
        let mut finder = Finder { whole: &whole, module, graph: &mut graph };
        whole.modules[module].items.iter().for_each(|item| finder.visit_item(item));
    }
    graph
}

/// Adds the imports inside functions to the function's module, so that paths in it are resolved.
fn import_in_functions(whole: &mut Crate<'_>) {
    struct Uses(Vec<ItemUse>);
    impl<'a> Visit<'a> for Uses {
        fn visit_block(&mut self, block: &'a syn::Block) {
            for statement in &block.stmts {
                if let syn::Stmt::Item(Item::Use(item)) = statement {
                    self.0.push(item.clone());
                }
            }
            visit::visit_block(self, block);
        }
    }
    for module in &mut whole.modules {
        let mut uses = Uses(Vec::new());
        module.items.iter().for_each(|item| uses.visit_item(item));
        uses.0.iter().for_each(|item| module.import(item));
    }
}

/// Adds the references of one module to the graph.
struct Finder<'c, 'a> {
    whole: &'c Crate<'a>,
    module: usize,
    graph: &'c mut Graph<'a>,
}

impl<'a> Finder<'_, 'a> {
    /// Adds the reference that a path makes, if it ends in another file.
    fn refer(&mut self, path: &[String], line: usize) {
        if let Found::Item(file, item) = self.whole.resolve(self.module, path) {
            self.add(file, item, line);
        }
    }

    fn add(&mut self, to: &'a str, item: String, line: usize) {
        let from = self.whole.modules[self.module].file;
        if to != from {
            self.graph.entry(from).or_default().entry(to).or_insert(Reference { item, line });
        }
    }

    /// Adds the paths among a macro's tokens that have at least two names. A single name may be a
    /// variable; if it is imported, its `use` already counts as a reference.
    fn scan(&mut self, tokens: TokenStream) {
        let mut path: Vec<String> = Vec::new();
        let mut line = 0;
        let mut colons = 0;
        for token in tokens {
            match token {
                TokenTree::Ident(ident) => {
                    if colons != 2 {
                        self.refer_if_long(&mut path, line);
                        line = ident.span().start().line;
                    }
                    path.push(ident.to_string());
                    colons = 0;
                }
                TokenTree::Punct(punct) if punct.as_char() == ':' && !path.is_empty() => colons += 1,
                other => {
                    self.refer_if_long(&mut path, line);
                    colons = 0;
                    if let TokenTree::Group(group) = other {
                        self.scan(group.stream());
                    }
                }
            }
        }
        self.refer_if_long(&mut path, line);
    }

    fn refer_if_long(&mut self, path: &mut Vec<String>, line: usize) {
        let path = std::mem::take(path);
        if path.len() > 1 {
            self.refer(&path, line);
        }
    }
}

impl<'a> Visit<'a> for Finder<'_, '_> {
    fn visit_item(&mut self, item: &'a Item) {
        if !attributes(item).is_some_and(is_test_only) {
            visit::visit_item(self, item);
        }
    }

    fn visit_impl_item_fn(&mut self, function: &'a ImplItemFn) {
        if !is_test_only(&function.attrs) {
            visit::visit_impl_item_fn(self, function);
        }
    }

    fn visit_item_use(&mut self, item: &'a ItemUse) {
        if item.leading_colon.is_some() {
            return;
        }
        let line = item.use_token.span.start().line;
        let mut found = Vec::new();
        imports(&item.tree, &[], &mut found);
        for (name, mut path) in found {
            // No item is called `*`, so a glob is a reference to the file of its module.
            if name == "*" {
                path.push(name);
            }
            self.refer(&path, line);
        }
    }

    fn visit_path(&mut self, path: &'a Path) {
        if path.leading_colon.is_none() {
            let names: Vec<String> = path.segments.iter().map(|segment| segment.ident.to_string()).collect();
            self.refer(&names, path.segments[0].ident.span().start().line);
        }
        visit::visit_path(self, path);
    }

    fn visit_attribute(&mut self, attribute: &'a Attribute) {
        if let Meta::List(list) = &attribute.meta {
            self.scan(list.tokens.clone());
        }
    }

    fn visit_macro(&mut self, invocation: &'a Macro) {
        // A macro can be used without an import in the module that defines it and in the modules
        // inside.
        if let Some(name) = invocation.path.get_ident() {
            let mut around = self.whole.ancestors(self.module);
            let definer = around.find(|&module| self.whole.modules[module].has_item(&name.to_string()));
            if let Some(definer) = definer {
                self.add(self.whole.modules[definer].file, name.to_string(), name.span().start().line);
            }
        } else {
            self.visit_path(&invocation.path);
        }
        self.scan(invocation.tokens.clone());
    }
}

#[cfg(test)]
mod tests {
    use super::super::sources::source;
    use super::*;

    /// Asserts the references between the files of a crate with the root `src/lib.rs`, each as
    /// `FROM:LINE TO ITEM` without folder and extension.
    #[track_caller]
    fn check(files: &[(&str, &str)], expected: &[&str]) {
        let sources: Vec<_> =
            files.iter().map(|(name, text)| source(&format!("src/{name}.rs"), text)).collect();
        let graph = between_files(&sources, &sources[0]);
        let name = |path: &str| path["src/".len()..path.len() - ".rs".len()].to_owned();
        let found: Vec<String> = graph
            .iter()
            .flat_map(|(from, edges)| edges.iter().map(move |(to, edge)| (from, to, edge)))
            .map(|(from, to, edge)| format!("{}:{} {} {}", name(from), edge.line, name(to), edge.item))
            .collect();
        assert_eq!(found, expected);
    }

    const A: (&str, &str) = ("a", "pub struct A;\npub fn run() {}\n");

    #[test]
    fn every_kind_of_path_is_a_reference() {
        for text in [
            "use crate::a::A;",
            "use super::a::A;",
            "use crate::a;\nfn f(_: a::A) {}",
            "fn f() { crate::a::A::new() }",
            "fn f(a: u8) { match a { super::a::A => {} } }",
            "fn f() { use crate::a; a::A::new() }",
            "fn f() { println!(\"{}\", crate::a::A) }",
            "#[derive(Debug)] #[arg(default = crate::a::A)] struct B;",
            "macro_rules! m { () => { $crate::a::A } }",
            "use crate::{a::{self as c}};\nfn f(_: c::A) {}",
            "mod inner { fn f(_: super::super::a::A) {} }",
            "impl From<crate::a::A> for u8 {}",
            "pub(in crate::a) struct B(Box<crate::a::A>);",
        ] {
            let line = 1 + text.matches('\n').count();
            check(&[("lib", "mod a;\nmod b;"), A, ("b", text)], &[&format!("b:{line} a A")]);
        }
    }

    #[test]
    fn what_is_not_of_another_file_is_no_reference() {
        for text in [
            "use std::fmt::Display;",
            "use ::a::A;",
            "use crate::a;",
            "mod c { pub struct A; }\nuse self::c::A;",
            "struct A;\nfn f(_: A) { A::new() }",
            "fn f() { println!(\"crate::a::A\") } // crate::a::A",
            "/// [`crate::a::A`]\nfn f() {}",
            "#[cfg(test)]\nuse crate::a::A;",
            "#[cfg(test)]\nmod tests { use crate::a::A; }",
            "struct B;\nimpl B {\n#[cfg(test)]\nfn f(_: crate::a::A) {}\n}",
        ] {
            check(&[("lib", "mod a;\nmod b;"), A, ("b", text)], &[]);
        }
    }

    #[test]
    fn a_re_export_is_followed_and_is_a_reference_itself() {
        let root = "mod a;\nmod b;\npub use a::A;\n";
        check(&[("lib", root), A, ("b", "use crate::A;")], &["b:1 a A", "lib:3 a A"]);
        let root = "mod a;\nmod b;\nuse a::A as C;\n";
        check(&[("lib", root), A, ("b", "use super::C;")], &["b:1 a A", "lib:3 a A"]);
        let root = "mod a;\nmod b;\npub use a::*;\n";
        check(&[("lib", root), A, ("b", "use crate::run;")], &["b:1 a run", "lib:3 a *"]);
        check(
            &[
                ("lib", "mod a;\nmod b;\nmod c;\n"),
                A,
                ("b", "pub use crate::c::A;"),
                ("c", "pub use crate::a::A;"),
            ],
            &["b:1 a A", "c:1 a A"],
        );
    }

    #[test]
    fn a_parent_is_a_file_like_others() {
        check(
            &[
                ("lib", "mod p;\n"),
                ("p", "mod c;\nstruct P;\nfn f() { c::run() }"),
                ("p/c", "use super::P;\npub fn run() {}"),
            ],
            &["p:3 p/c run", "p/c:1 p P"],
        );
        check(&[("lib", "mod c;\nstruct P;\n"), ("c", "use crate::P;")], &["c:1 lib P"]);
        check(&[("lib", "mod c;\nstruct P;\n"), ("c", "use super::*;\nfn f(_: P) {}")], &["c:1 lib *"]);
    }

    #[test]
    fn names_that_macros_make_are_of_the_module() {
        check(&[("lib", "mod a;\nmod b;"), ("a", "records! { B }"), ("b", "use crate::a::B;")], &["b:1 a B"]);
    }

    #[test]
    fn macros_are_known_in_the_modules_inside() {
        let root = "macro_rules! m { () => {} }\nmod a;\n";
        check(&[("lib", root), ("a", "fn f() { m!() }")], &["a:1 lib m"]);
        let root = "mod a;\nmod b;\n";
        let file = ("a", "macro_rules! m { () => {} }\npub(crate) use m;");
        check(&[("lib", root), file, ("b", "use crate::a::m;\nfn f() { m!() }")], &["b:1 a m"]);
    }

    #[test]
    fn an_item_and_a_module_may_have_one_name() {
        let root = "mod a;\nmod b;\npub fn b() {}\n";
        check(&[("lib", root), ("a", "fn f() { crate::b::B; }"), ("b", "pub struct B;")], &["a:1 b B"]);
        check(&[("lib", root), ("a", "fn f() { crate::b(); }"), ("b", "pub struct B;")], &["a:1 lib b"]);
    }
}
