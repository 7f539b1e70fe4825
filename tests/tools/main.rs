//! Checks what gdb, perf and valgrind make of the code of a session.
//!
//! Each test runs this program again as one of its programs (`programs.rs`), alone or in a tool. A
//! test that needs a tool that is not installed is reported as ignored, with the name of the tool.
//! If the environment variable `CI` is set, it fails.

mod gdb;
mod observed;
mod programs;
#[path = "../../crates/kiln-debug/tests/tools/tool.rs"]
mod tool;

use tool::Test;

const TESTS: [Test; 14] = [
    ("gdb::names_lines_and_removal", Some("gdb"), gdb::names_lines_and_removal),
    ("gdb::one_that_attaches_is_told", Some("gdb"), gdb::one_that_attaches_is_told),
    ("gdb::stubs_have_names", Some("gdb"), gdb::stubs_have_names),
    ("gdb::linked_stubs_have_names", Some("gdb"), gdb::linked_stubs_have_names),
    ("gdb::linked_stubs_are_told_later", Some("gdb"), gdb::linked_stubs_are_told_later),
    ("perf::linked_stubs_have_names", None, observed::linked_stubs_have_names),
    ("perf::stubs_have_names", None, observed::stubs_have_names),
    ("perf::report_has_names", Some("perf"), observed::report_has_names),
    ("perf::report_has_names_of_an_image", Some("perf"), observed::report_has_names_of_an_image),
    ("perf::a_map_uses_no_address_twice", None, observed::a_map_uses_no_address_twice),
    ("perf::a_dump_uses_addresses_again", None, observed::a_dump_uses_addresses_again),
    ("perf::a_dump_tells_code_at_one_address_apart", Some("perf"), observed::code_at_one_address),
    ("a_profiler_samples_meanwhile", None, observed::a_profiler_samples_meanwhile),
    ("valgrind_has_no_complaints", Some("valgrind"), observed::valgrind_has_no_complaints),
];

fn main() {
    match tool::wanted_program() {
        Some(name) => programs::run(&name),
        None => tool::run(&TESTS),
    }
}
