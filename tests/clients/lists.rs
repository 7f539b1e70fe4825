//! The example `lists`, in processes of its own: one makes objects and saves them, the next has
//! them.

use std::path::Path;

use crate::language::Failure;
use crate::script;

#[path = "../../examples/lists/main.rs"]
mod example;

/// The environment variable with which this program is the example.
const VARIABLE: &str = "KILN_TEST_LISTS";

/// Becomes the example, if this process was started for that.
pub(crate) fn in_child() -> Option<std::process::ExitCode> {
    std::env::var_os(VARIABLE).map(|_| example::main())
}

fn check(folder: &Path, args: &[&str], script: &str) -> Result<(), Failure> {
    script::check(VARIABLE, folder, args, script)
}

/// The prelude of the example, with less to do.
fn prelude() -> String {
    let text = include_str!("../../examples/lists/prelude.txt");
    assert!(text.contains("(primes-to 3500000 nil)"));
    text.replace("3500000", "1000")
}

pub(crate) fn goes_on_with_its_objects() -> Result<(), Failure> {
    let folder = tempfile::tempdir()?;
    let folder = folder.path();
    let first = format!(
        "{}
        (count primes)
        = 168
        (define shared (cons primes primes))
        (define grown (cons 1 primes))
        (define (grow n) (cons n grown))
        (head (tail (tail (grow 5))))
        = 2
        (head nothing)
        = error: no variable `nothing`
        (define total 40)",
        prelude()
    );
    check(folder, &["--save", "first.so"], &first)?;
    check(
        folder,
        &["--image", "first.so"],
        "(count primes)
        = 168
        (count grown)
        = 169
        (= (head shared) (tail shared))
        = 1
        (= (head shared) (tail grown))
        = 1
        (define total (+ total 2))
        total
        = 42
        (define grown (cons 0 grown))
        (count (grow 7))
        = 171
        (define (sum list n) (if list (sum (tail list) (+ n (head list))) n))
        (sum primes 0)
        = 76127
        (define more (cons total (cons nil (cons 3 4))))
        more
        = (42 nil 3 . 4)
        (head 5)
        = nil
        (define (count list) 0)
        = error: module 0 defines `count`, which is a function of the base image `first.so`; module 0 is count",
    )?;
    // What one process changes, no other sees.
    check(folder, &["--image", "first.so"], "total\n= 40\n(count grown)\n= 169")
}

pub(crate) fn saves_layers_of_its_heap() -> Result<(), Failure> {
    let folder = tempfile::tempdir()?;
    let folder = folder.path();
    check(folder, &["--save", "first.so"], &format!("{}\n(define best primes)", prelude()))?;
    check(
        folder,
        &["--image", "first.so", "--save", "second.so"],
        "(define more (cons 1 (tail (tail primes))))
        (define (both n) (cons (cons n more) primes))
        (define pair (both 7))",
    )?;
    // Three layers deep, and in each process the lists are those of the image below.
    check(
        folder,
        &["--image", "second.so", "--save", "third.so"],
        "(count more)
        = 167
        (= (tail more) (tail (tail primes)))
        = 1
        (= (tail (head pair)) more)
        = 1
        (count (both 3))
        = 169
        (define most (cons more (tail (tail (tail primes)))))
        (define (ends) (= (tail most) (tail (tail more))))",
    )?;
    check(
        folder,
        &["--image", "third.so"],
        "(ends)
        = 1
        (= (head most) more)
        = 1
        (= (tail (tail (tail best))) (tail most))
        = 1
        (define total (count most))
        total
        = 166",
    )
}

pub(crate) fn refuses_to_save_what_a_layer_cannot_say() -> Result<(), Failure> {
    let folder = tempfile::tempdir()?;
    let folder = folder.path();
    check(folder, &["--save", "first.so"], &prelude())?;
    let changed = check(folder, &["--image", "first.so", "--save", "second.so"], "(define primes nil)");
    let text = changed.expect_err("a variable of the image has changed").to_string();
    assert!(text.contains("`primes` is a variable of the image, and has changed"), "{text}");
    assert!(!folder.join("second.so").exists());
    Ok(())
}
