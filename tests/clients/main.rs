//! Clients of `cranelift_module::Module` that know nothing of Kiln, run on Kiln and on Cranelift's
//! own modules.
//!
//! `language` is a compiler that is generic over the module. Every file in `programs` is compiled
//! and run five times: by `cranelift_jit::JITModule`, through an object file of
//! `cranelift_object::ObjectModule` that `cc` links, through one of Kiln's, in a `kiln::Session`,
//! and from the image of that session. The expected outcome is at the top of each file. `errors`
//! compares the errors of the trait, `bytes` defines functions by machine code, `recorder` records
//! which methods a client calls. `repl` and `lists` run the examples of those names, in processes
//! of their own.
//!
//! The others do what compilers in the wild do: `learner` declares functions before it knows their
//! types, `prompt` finalizes and goes on, `one_by_one` makes a module for each function, `pointers`
//! writes addresses of the host into code and declares its functions with wrong types.
//!
//! Without `cc` the tests of object files are reported as ignored. If the environment variable `CI`
//! is set, they fail.

mod bytes;
mod engines;
mod errors;
mod host;
mod language;
mod learner;
mod library;
mod lists;
mod one_by_one;
mod pointers;
mod program;
mod prompt;
mod recorder;
mod repl;
mod script;

use libtest_mimic::{Arguments, Failed, Trial};

use engines::Client;
use host::Outcome;
use language::Failure;

/// The five ways to run a client.
type Way<C> = fn(&C) -> Result<Outcome, Failure>;

fn ways<C: Client>() -> [(&'static str, Way<C>); 5] {
    [
        ("jit", engines::jit),
        ("object", engines::object),
        ("kiln_object", engines::kiln_object),
        ("session", engines::in_memory),
        ("image", engines::image),
    ]
}

/// The reason why a test runs only with `--ignored`.
enum Obstacle {
    /// A tool is not installed here. In CI it has to be.
    Tool(&'static str),
}

fn missing_tool(way: &str) -> Option<Obstacle> {
    if way.ends_with("object") { library::missing().map(Obstacle::Tool) } else { None }
}

fn main() -> std::process::ExitCode {
    if let Some(code) = repl::in_child().or_else(lists::in_child) {
        return code;
    }
    let in_ci = std::env::var_os("CI").is_some();
    let mut trials = Vec::new();
    let mut add = |name: &str,
                   obstacle: Option<Obstacle>,
                   test: Box<dyn FnOnce() -> Result<(), Failure> + Send>| {
        let trial = Trial::test(name, move || test().map_err(|error| Failed::from(error.to_string())));
        trials.push(match obstacle {
            None => trial,
            Some(Obstacle::Tool(tool)) => trial.with_kind(format!("needs {tool}")).with_ignored_flag(!in_ci),
        });
    };
    for path in program::files() {
        let name = path.file_stem().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        for (way, run) in ways() {
            let path = path.clone();
            add(&format!("{name}::{way}"), missing_tool(way), Box::new(move || program::check(&path, run)));
        }
    }
    for (way, run) in ways() {
        let obstacle = missing_tool(way);
        add(&format!("bytes::{way}"), obstacle, Box::new(move || bytes::check(run)));
    }
    for (way, run) in ways() {
        let obstacle = missing_tool(way);
        add(&format!("learner::{way}"), obstacle, Box::new(move || learner::check(run)));
    }
    add("prompt::goes_on_with_the_same_ids", None, Box::new(prompt::goes_on_with_the_same_ids));
    add("one_by_one::results_are_equal", None, Box::new(one_by_one::results_are_equal));
    add("pointers::are_found_in_constants", None, Box::new(pointers::are_found_in_constants));
    add("pointers::have_types", None, Box::new(pointers::have_types));
    add("bytes::errors", None, Box::new(bytes::errors_are_equal));
    add("errors::are_equal", None, Box::new(errors::are_equal));
    add("language::rejects_what_is_wrong", None, Box::new(program::rejects_what_is_wrong));
    add("language::knows_no_implementation", None, Box::new(program::knows_no_implementation));
    add("language::uses_the_whole_trait", None, Box::new(recorder::uses_the_whole_trait));
    add("repl::goes_on_in_another_process", None, Box::new(repl::goes_on_in_another_process));
    add("lists::goes_on_with_its_objects", None, Box::new(lists::goes_on_with_its_objects));
    add("lists::saves_layers_of_its_heap", None, Box::new(lists::saves_layers_of_its_heap));
    let refuses = lists::refuses_to_save_what_a_layer_cannot_say;
    add("lists::refuses_to_save_what_a_layer_cannot_say", None, Box::new(refuses));
    add("repl::prints_errors", None, Box::new(repl::prints_errors));
    libtest_mimic::run(&Arguments::from_args(), trials).exit_code()
}
