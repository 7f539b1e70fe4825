//! Checks what gdb, perf, valgrind and the unwinder make of what they are told.
//!
//! Each test runs this program again as one of its programs (`programs.rs`), alone or in a tool. A
//! test that needs a tool that is not installed is reported as ignored, with the name of the tool.
//! If the environment variable `CI` is set, it fails.

mod gdb;
#[path = "../../examples/measure.rs"]
mod measure;
mod perf;
#[path = "../../examples/plain_cranelift.rs"]
mod plain_cranelift;
mod programs;
mod tool;
mod unwinder;
mod unwinders;

use tool::Test;

const TESTS: [Test; 16] = [
    ("gdb::names_and_removal", Some("gdb"), gdb::names_and_removal),
    ("gdb::a_part_is_forgotten", Some("gdb"), gdb::a_part_is_forgotten),
    ("gdb::twenty_thousand_functions", Some("gdb"), gdb::twenty_thousand_functions),
    ("gdb::nothing_is_kept_if_nobody_looks", None, gdb::nothing_is_kept_if_nobody_looks),
    ("gdb::other_jits_share_the_list", None, gdb::other_jits_share_the_list),
    ("perf::a_map_has_a_line_for_each_function", None, perf::a_map_has_a_line_for_each_function),
    ("perf::a_dump_has_a_record_for_each_function", None, perf::a_dump_has_a_record_for_each_function),
    ("perf::failures_are_counted", None, perf::failures_are_counted),
    ("perf::a_child_has_its_own_map", None, perf::a_child_has_its_own_map),
    ("perf::an_old_map_is_replaced", None, perf::an_old_map_is_replaced),
    ("perf::report_has_names", Some("perf"), perf::report_has_names),
    ("perf::report_of_a_dump_has_names", Some("perf"), perf::report_of_a_dump_has_names),
    ("unwinder::of_this_machine", None, unwinders::of_this_machine),
    ("unwinder::others", Some("$KILN_UNWINDERS"), unwinders::others),
    ("unwinder::a_profiler_samples_meanwhile", None, unwinder::a_profiler_samples_meanwhile),
    ("unwinder::valgrind_has_no_complaints", Some("valgrind"), unwinder::valgrind_has_no_complaints),
];

fn main() {
    match tool::wanted_program() {
        Some(name) => programs::run(&name),
        None => tool::run(&TESTS),
    }
}
