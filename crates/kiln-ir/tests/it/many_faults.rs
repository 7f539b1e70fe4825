//! Modules with very many faults: all are reported, in a time in proportion to their number, and
//! only the first are shown.

use std::sync::Arc;
use std::time::Duration;

use kiln_globals::list_errors;
use kiln_ir::{Diagnostic, DiagnosticKind, Modules, Source, check_program, parse, undefined};

use crate::target;

fn repeat(count: usize, piece: impl Fn(usize) -> String) -> String {
    (0..count).map(piece).collect()
}

/// A function with `count` pieces of declarations and of code.
fn function(
    count: usize,
    declaration: impl Fn(usize) -> String,
    code: impl Fn(usize) -> String,
) -> Vec<String> {
    let (declarations, code) = (repeat(count, declaration), repeat(count, code));
    vec![format!("function %f() {{\n{declarations}\nblock0:\n v0 = iconst.i32 0\n{code}\n return\n}}")]
}

/// Texts of modules, with a given number of faults.
type Shape = fn(usize) -> Vec<String>;

const SHAPES: [(&str, DiagnosticKind, Shape); 20] = [
    ("undefined symbols of a function", DiagnosticKind::Undefined, |n| {
        let symbol = |i| format!("gv{i} = symbol %no_such_{i}\n");
        function(n, symbol, |i| format!("v{} = symbol_value.i64 gv{i}\n", i + 1))
    }),
    ("undefined symbols on one line", DiagnosticKind::Undefined, |n| {
        let symbol = |i| format!("gv{i} = symbol %no_such_{i} ");
        function(n, symbol, |i| format!("v{} = symbol_value.i64 gv{i} ", i + 1))
    }),
    ("undefined functions, and as many that have similar names", DiagnosticKind::Undefined, |n| {
        let function =
            |i| format!("function %called_{i}() {{\nfn0 = %caled_{i}()\nblock0:\n call fn0()\n return\n}}\n");
        vec![repeat(n, function)]
    }),
    ("undefined names of data", DiagnosticKind::Undefined, |n| {
        vec![format!("data %d {{ {} zeros 1 }}", repeat(n, |i| format!("addr %s{i},\n")))]
    }),
    ("functions defined twice", DiagnosticKind::Duplicate, |n| {
        vec![repeat(2 * n, |i| format!("function %f{}() {{\nblock0:\n return\n}}\n", i / 2))]
    }),
    ("data defined twice, on one line", DiagnosticKind::Duplicate, |n| {
        vec![repeat(2 * n, |i| format!("data %d{} {{ zeros 1 }} ", i / 2))]
    }),
    ("globals defined twice", DiagnosticKind::Duplicate, |n| {
        vec![repeat(2 * n, |i| format!("global %g{} = \"g\"\n", i / 2))]
    }),
    ("uses of one function by another type", DiagnosticKind::Signature, |n| {
        let parameters = vec!["i32"; n].join(", ");
        let user = |i| {
            format!(
                "function %u{i}() {{\nfn0 = %t(i64)\nblock0:\n v0 = iconst.i64 0\n call fn0(v0)\n return\n}}\n"
            )
        };
        vec![format!(
            "function %t({parameters}) {{\nblock0({}):\n return\n}}\n{}",
            values(n),
            repeat(n, user)
        )]
    }),
    ("uses of many functions by another type", DiagnosticKind::Signature, |n| {
        let callee = |i| format!("function %t{i}() {{ block0: return }}\n");
        let declaration = |i| format!("fn{i} = %t{i}(i32)\n");
        let mut text = function(n, declaration, |i| format!("call fn{i}(v0)\n"));
        text[0].push_str(&repeat(n, callee));
        text
    }),
    ("calls of data", DiagnosticKind::Kind, |n| {
        let mut text = function(n, |i| format!("fn{i} = %d()\n"), |i| format!("call fn{i}()\n"));
        text[0].push_str("data %d { zeros 1 }");
        text
    }),
    ("instructions that the verifier refuses", DiagnosticKind::Verifier, |n| {
        function(n, |_| String::new(), |i| format!("v{} = ineg.i64 v0\n", i + 1))
    }),
    ("instructions that the verifier refuses, on one line", DiagnosticKind::Verifier, |n| {
        function(n, |_| String::new(), |i| format!("v{} = ineg.i64 v0 ", i + 1))
    }),
    ("declarations without their bases", DiagnosticKind::Verifier, |n| {
        let load = |i| format!("gv{i} = load.i64 notrap aligned gv{}\n", 2 * n + i);
        function(n, load, |_| String::new())
    }),
    ("functions that are not read", DiagnosticKind::Syntax, |n| {
        vec![repeat(n, |i| format!("function %f{i}() {{\nblock0:\n retrun\n}}\n"))]
    }),
    ("functions that are not read, on one line", DiagnosticKind::Syntax, |n| {
        vec![repeat(n, |i| format!("function %f{i}() {{ block0: retrun }} "))]
    }),
    ("lines that are no items", DiagnosticKind::Syntax, |n| vec![repeat(n, |_| "data ?\n".into())]),
    ("debug items of no function", DiagnosticKind::Undefined, |n| {
        vec![repeat(n, |i| format!("debug %f{i} {{ base @1 }}\n"))]
    }),
    ("modules that define one name", DiagnosticKind::Duplicate, |n| {
        vec!["function %f() {\nblock0:\n return\n}".into(); n + 1]
    }),
    ("two modules that define the same names", DiagnosticKind::Duplicate, |n| {
        vec![repeat(n, |i| format!("data %d{i} {{ zeros 1 }}\n")); 2]
    }),
    ("modules that use one function by another type", DiagnosticKind::Signature, |n| {
        let parameters = vec!["i32"; n].join(", ");
        let definer = format!("function %t({parameters}) {{\nblock0({}):\n return\n}}\n", values(n));
        let user = "function %u() {\nfn0 = %t(i64)\nblock0:\n v0 = iconst.i64 0\n call fn0(v0)\n return\n}\n";
        let user = |i| user.replace("%u", &format!("%u{i}"));
        std::iter::once(definer).chain((0..n).map(user)).collect()
    }),
];

/// The `count` parameters of a block.
fn values(count: usize) -> String {
    (0..count).map(|i| format!("v{i}: i32")).collect::<Vec<_>>().join(", ")
}

/// Returns the faults of the modules, as a user of the library gets them. With `binary`, modules
/// that are correct alone go through binary form, which has no text.
fn faults(texts: &[String], binary: bool) -> Vec<Diagnostic> {
    let mut modules = Vec::new();
    let mut faults = Vec::new();
    for (number, text) in texts.iter().enumerate() {
        let source = Arc::new(Source::new(format!("{number}.clif"), &**text));
        match parse(source, &target()) {
            Ok(module) if binary => {
                let bytes = module.to_bytes();
                let read = Modules::new(&*bytes).next().unwrap().unwrap();
                modules.push(read.verify(&target()).unwrap());
            }
            Ok(module) => modules.push(module),
            Err(found) => faults.extend(found),
        }
    }
    let modules: Vec<_> = modules.iter().collect();
    faults.extend(check_program(&modules));
    faults.extend(undefined(&modules, &|_| false));
    faults
}

/// Finds and shows the faults. Returns the processor's time, because other tests run too.
fn time(texts: &[String], binary: bool) -> Duration {
    let one = rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap();
    one.install(|| {
        let start = used();
        assert!(!list_errors(faults(texts, binary)).is_empty());
        used() - start
    })
}

/// Returns the time for which this thread was running.
fn used() -> Duration {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    Duration::from_nanos(text.split(' ').next().unwrap().parse().unwrap())
}

#[test]
fn all_are_reported_and_the_first_are_shown() {
    for (name, kind, shape) in SHAPES {
        let found = faults(&shape(500), false);
        let count = found.iter().filter(|fault| fault.kind == kind).count();
        assert_eq!(count, 500, "{name}: {}", list_errors(&found));
        let shown = list_errors(&found);
        assert!(shown.ends_with(" more"), "{name}");
        assert!(shown.len() < 100 * 3000, "{name}: {} bytes", shown.len());
    }
}

#[test]
fn time_grows_with_their_number() {
    let size = if cfg!(debug_assertions) { 1000 } else { 4000 };
    for (name, kind, shape) in SHAPES {
        let (few, many) = (shape(size), shape(4 * size));
        // Of the others the text is wrong.
        let is_between = few.len() > 1 || kind == DiagnosticKind::Undefined;
        for binary in [false, true].into_iter().take(1 + usize::from(is_between)) {
            let slow = |_| {
                let (few, many) = (time(&few, binary), time(&many, binary));
                (many > few * 8 + Duration::from_millis(20)).then_some((few, many))
            };
            // A slow shape is tried again, because caches are shared.
            let slow: Vec<_> = (0..3).map_while(slow).collect();
            assert!(slow.len() < 3, "{name}: {slow:?}");
        }
    }
}
