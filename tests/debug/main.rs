//! Debug information, as debuggers see it.
//!
//! `oracle` reads the sections with `gimli` and compares every byte of code and every variable with
//! the tables of the artifacts. `files` checks the ways to write an image: with debug information,
//! beside a file that has it, without symbols. `reuse` edits a text and counts what is compiled
//! again. `gdb` runs scripted sessions: `program.clif` in a C program that loads its image, and in
//! memory.
//!
//! A test that needs a tool that is not installed is reported as ignored, with the name of the
//! tool. If the environment variable `CI` is set, it fails.

mod files;
mod gdb;
mod memory;
mod oracle;
mod program;
mod reuse;
mod tools;

use libtest_mimic::{Arguments, Failed, Trial};

/// A test, its name, and the tools that it needs.
type Test = (&'static str, &'static [&'static str], fn() -> Result<(), Failed>);

const TESTS: [Test; 11] = [
    ("oracle::test_files", &[], oracle::test_files),
    ("oracle::several_files_and_modules", &[], oracle::several_files_and_modules),
    ("files::separate", &[], files::separate),
    ("files::stripped", &[], files::stripped),
    ("files::verified", &["llvm-dwarfdump", "readelf"], files::verified),
    ("reuse::comments", &[], reuse::comments),
    ("gdb::image", &["gdb", "cc"], gdb::image),
    ("gdb::separate", &["gdb", "cc"], gdb::separate),
    ("gdb::memory", &["gdb"], gdb::memory),
    ("gdb::memory_that_is_mapped_twice", &["gdb"], gdb::memory_that_is_mapped_twice),
    ("gdb::lines_of_a_client", &["gdb", "cc"], gdb::lines_of_a_client),
];

fn main() {
    let mut arguments = std::env::args_os().skip(1);
    if let (Some(first), Some(folder)) = (arguments.next(), arguments.next())
        && let Some(number) = memory::SESSIONS.iter().position(|session| first == *session)
    {
        memory::run(folder.as_ref(), number == 0).unwrap_or_else(|error| panic!("{error:?}"));
        return;
    }
    let in_ci = std::env::var_os("CI").is_some();
    let trial = |(name, needed, test): Test| {
        let Some(missing) = needed.iter().find(|tool| !tools::is_installed(tool)) else {
            return Trial::test(name, test);
        };
        let needs = format!("needs {missing}");
        let kind = needs.clone();
        Trial::test(name, move || Err(needs.into())).with_kind(kind).with_ignored_flag(!in_ci)
    };
    libtest_mimic::run(&Arguments::from_args(), TESTS.map(trial).into()).exit();
}
