//! The result of reading does not depend on the number of threads.

use std::fmt::Write as _;
use std::sync::Arc;

use kiln_ir::{Source, Target, parse, parse_unverified};

/// Reads `text` on `threads` threads. Returns the module's bytes, or its errors.
fn read(text: &str, threads: usize) -> Result<Vec<u8>, Vec<String>> {
    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
    let source = Arc::new(Source::new("threads.clif", text));
    let module = pool.install(|| parse(source, &Target::host()));
    let faults = |faults: Vec<kiln_ir::Diagnostic>| faults.iter().map(ToString::to_string).collect();
    module.map(|module| module.to_bytes()).map_err(faults)
}

/// Returns functions; `wrong` returns the faulty line of each, if it has one.
fn functions(count: usize, wrong: impl Fn(usize) -> &'static str) -> String {
    let mut text = String::new();
    for number in 0..count {
        let other = (number * 7 + 3) % count;
        let wrong = wrong(number);
        write!(
            text,
            "function %f{number}(i64) -> i64 {{ ; head\n    fn0 = %f{other}(i64) -> i64\n    fn1 = %g{other}(i64) -> i64\n\
             block0(v0: i64):  ; block\n    v1 = call fn0(v0)  ; {number}\n    v2 = call fn1(v1)\n    {wrong}\n    return v2\n}}\n\n"
        )
        .unwrap();
    }
    text
}

#[test]
fn modules_are_the_same() {
    let text = functions(1000, |_| "");
    let one = read(&text, 1).unwrap();
    for threads in [2, 3, 8] {
        assert_eq!(read(&text, threads).as_ref(), Ok(&one), "{threads} threads");
    }
    let unverified =
        parse_unverified(Arc::new(Source::new("threads.clif", &*text)), &Target::host()).unwrap();
    assert_eq!(unverified.module().to_bytes(), one);
}

#[test]
fn faults_are_the_same() {
    let text = functions(1000, |number| match number % 100 {
        13 => "v3 = what v0",
        50 => "v3 = iadd.i32 v0, v0",
        77 => "v900000000 = iconst.i64 1",
        _ => "",
    });
    let one = read(&text, 1).unwrap_err();
    assert!(one.len() >= 30, "{one:?}");
    assert_eq!(read(&text, 4), Err(one));
}

#[test]
fn many_faults_are_the_same() {
    let text = functions(3000, |number| if number % 2 == 0 { "v3 = what v0" } else { "" });
    let one = read(&text, 1).unwrap_err();
    assert_eq!(one.len(), 1500);
    for threads in [2, 5] {
        assert_eq!(read(&text, threads).as_ref(), Err(&one), "{threads} threads");
    }
}
