//! The example `repl`, in processes of its own: what one saves, the next goes on from.

use std::path::Path;

use crate::language::Failure;
use crate::script;

#[path = "../../examples/repl/main.rs"]
mod example;

/// The environment variable with which this program is the example.
const VARIABLE: &str = "KILN_TEST_REPL";

/// Becomes the example, if this process was started for that.
pub(crate) fn in_child() -> Option<std::process::ExitCode> {
    std::env::var_os(VARIABLE).map(|_| example::main())
}

/// Runs a script with these images.
fn check(folder: &Path, images: &[&str], script: &str) -> Result<(), Failure> {
    let args: Vec<&str> = images.iter().flat_map(|&image| ["--image", image]).collect();
    script::check(VARIABLE, folder, &args, script)
}

/// Defines, calls, defines again, removes and saves; then two more processes go on.
pub(crate) fn goes_on_in_another_process() -> Result<(), Failure> {
    let folder = tempfile::tempdir()?;
    let folder = folder.path();
    check(
        folder,
        &[],
        "fn square(x) = x * x
        fn norm(x, y) = square(x) + square(y)
        norm(3, 4)
        = 25
        fn square(x) = x * x * x
        norm(3, 4)
        = 91
        fn even(n) = 0
        fn odd(n) = n == 0 ? 0 : even(n - 1)
        fn even(n) = n == 0 ? 1 : odd(n - 1)
        even(10) + odd(7)
        = 2
        :remove square
        = error: `norm` uses it
        fn square(x, y) = x
        = error: `square` takes 1 arguments: remove it first
        fn helper(x) = -x
        :remove helper
        = 1 removed
        helper(1)
        = error: no function `helper`
        :remove! odd
        = 2 removed
        :list
        = norm/2 #
        = square/1 #
        :save first.so",
    )?;
    check(
        folder,
        &["first.so"],
        ":list
        = norm/2 of an image
        = square/1 of an image
        norm(3, 4)
        = 91
        fn hypot(x, y) = norm(x, y) + 1
        hypot(3, 4)
        = 92
        :remove norm
        = error: `norm` is in an image
        fn norm(x) = x
        = error: `norm` takes 2 arguments: remove it first
        fn square(x) = x < 0 ? -x : x
        norm(3, 4) + hypot(-3, 4)
        = 15
        fn square(x) = x < 2 ? x : x + square(x - 1)
        norm(3, 4)
        = 16
        :remove square
        = 1 removed
        norm(3, 4)
        = 91
        fn one() = 1
        fn square(x) = x + one()
        hypot(3, 4)
        = 10
        :remove! one
        = 2 removed
        hypot(3, 4)
        = 92
        fn square(x) = x
        hypot(3, 4)
        = 8
        :save second.so",
    )?;
    check(
        folder,
        &["second.so"],
        "hypot(3, 4) + square(100)
        = 108
        fn square(x) = 0
        hypot(3, 4)
        = 1
        :list
        = hypot/2 of an image
        = norm/2 of an image
        = square/1 #
        :remove square
        = 1 removed
        hypot(3, 4)
        = 8",
    )
}

/// Lines that are wrong print an error, and the session goes on.
pub(crate) fn prints_errors() -> Result<(), Failure> {
    let folder = tempfile::tempdir()?;
    let large = format!("0{}", "+1".repeat(500));
    let deep = "(".repeat(100_000);
    check(
        folder.path(),
        &[],
        &format!(
            "1 +
            = error: a name or number is missing before ``
            fn f(x, x) = 1
            = error: two parameters are called `x`
            x
            = error: no parameter `x`
            exit(1)
            = error: no function `exit`
            99999999999999999999
            = error: `99999999999999999999`: number too large to fit in target type
            {large}
            = error: more than 500 operands
            {deep}
            = error: more than 500 operands
            fn down(n) = down(n + 1) + down(n - 1)
            down(1)
            = error: more than 10000 calls inside each other
            fn sum(n) = n ? n + sum(n - 1) : 0
            sum(9000)
            = 40504500
            :save /
            = error: cannot write /: it exists and is not a file
            :what
            = error: commands are `:list`, `:remove NAME`, `:remove! NAME` and `:save FILE`
            1 2
            = error: `2` is left over
            sum()
            = error: `sum` takes 1 arguments, not 0
            2 * (3 - 1) == 4
            = 1"
        ),
    )
}
