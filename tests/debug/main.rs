//! Debug information, as debuggers see it.
//!
//! `oracle` reads the sections with `gimli` and compares every byte of code and every variable with
//! the tables of the artifacts. `files` checks the ways to write an image: with debug information,
//! beside a file that has it, without symbols. `registered` reads what debuggers are told about
//! loaded images. `reuse` edits a text and counts what is compiled again. `gdb` runs scripted
//! sessions: `program.clif` in a C program that loads its image with `dlopen`, in memory, and as an
//! image that our own loader maps. `lldb` does the same with lldb.
//!
//! A test that needs a tool that is not installed is reported as ignored, with the name of the
//! tool. If the environment variable `CI` is set, it fails, unless the tool is lldb.

mod files;
mod gdb;
mod image;
mod lldb;
mod memory;
mod oracle;
mod program;
mod registered;
mod reuse;
mod tools;

use libtest_mimic::{Arguments, Failed, Trial};

/// A test, its name, and the tools that it needs.
type Test = (&'static str, &'static [&'static str], fn() -> Result<(), Failed>);

const TESTS: [Test; 20] = [
    ("oracle::test_files", &[], oracle::test_files),
    ("oracle::several_files_and_modules", &[], oracle::several_files_and_modules),
    ("files::separate", &[], files::separate),
    ("files::stripped", &[], files::stripped),
    ("files::located_after_strip", &["strip"], files::located_after_strip),
    ("files::verified", &["llvm-dwarfdump", "readelf"], files::verified),
    ("registered::loaded_image", &[], registered::loaded_image),
    ("reuse::comments", &[], reuse::comments),
    ("gdb::dlopened", &["gdb", "cc"], gdb::dlopened),
    ("gdb::separate", &["gdb", "cc"], gdb::separate),
    ("gdb::memory", &["gdb"], gdb::memory),
    ("gdb::memory_that_is_mapped_twice", &["gdb"], gdb::memory_that_is_mapped_twice),
    ("gdb::lines_of_a_client", &["gdb", "cc"], gdb::lines_of_a_client),
    ("gdb::loaded_image", &["gdb"], gdb::loaded_image),
    ("gdb::loaded_image_without_lines", &["gdb"], gdb::loaded_image_without_lines),
    ("gdb::separate_file_of_a_loaded_image", &["gdb"], gdb::separate_file_of_a_loaded_image),
    ("lldb::memory", &["lldb"], lldb::memory),
    ("lldb::dlopened", &["lldb", "cc"], lldb::dlopened),
    ("lldb::loaded_image", &["lldb"], lldb::loaded_image),
    ("gdb::one_that_attaches_to_a_loaded_image", &["gdb"], gdb::one_that_attaches_to_a_loaded_image),
];

fn main() {
    let mut arguments = std::env::args_os().skip(1);
    if let (Some(first), Some(folder)) = (arguments.next(), arguments.next()) {
        let number = |names: &[&str]| names.iter().position(|name| first == *name);
        let run = number(&memory::SESSIONS)
            .map(|number| memory::run(folder.as_ref(), number == 0))
            .or_else(|| number(&image::IMAGES).map(|number| image::run(folder.as_ref(), number)));
        if let Some(result) = run {
            return result.unwrap_or_else(|error| panic!("{error:?}"));
        }
    }
    let in_ci = std::env::var_os("CI").is_some();
    let trial = |(name, needed, test): Test| {
        let Some(missing) = needed.iter().find(|tool| !tools::is_installed(tool)) else {
            return Trial::test(name, test);
        };
        let needs = format!("needs {missing}");
        let kind = needs.clone();
        // lldb is large, and not installed for CI.
        let is_ignored = !in_ci || *missing == "lldb";
        Trial::test(name, move || Err(needs.into())).with_kind(kind).with_ignored_flag(is_ignored)
    };
    libtest_mimic::run(&Arguments::from_args(), TESTS.map(trial).into()).exit();
}
