//! Runs the commands of the pages: every line of every block of `sh`, in order, in a folder that
//! has what a checkout has.

use crate::support::TestFolder;

/// Lines that are not run: how they begin, and the reason.
const SKIPPED: [(&str, &str); 12] = [
    ("cargo xtask servers", "needs servers: tests/servers"),
    ("cargo xtask worker", "compiles Cranelift again, which takes minutes: kiln-worker's tests"),
    ("cargo xtask wasmtime", "compiles Wasmtime, which takes minutes, and is a test of its own"),
    ("cargo xtask-remote", "needs a server: tests/remote"),
    ("KILN_REMOTE_", "needs a server: tests/remote"),
    ("export KILN_REMOTE", "names a server that does not exist"),
    ("cargo xtask bench", "takes minutes, and CI runs a part of it"),
    ("cargo xtask test", "runs this test"),
    ("cargo run", "builds everything again, and CI runs it"),
    ("cargo new", "`cargo xtask packages` makes the project"),
    ("cargo add", "`cargo xtask packages` makes the project"),
    ("perf", "needs a processor's counters: tests/tools"),
];

const PAGES: [(&str, &str); 7] = [
    ("README.md", include_str!("../../../README.md")),
    ("docs/batch.md", include_str!("../../../docs/batch.md")),
    ("docs/caching-in-ci.md", include_str!("../../../docs/caching-in-ci.md")),
    ("docs/debugging.md", include_str!("../../../docs/debugging.md")),
    ("docs/farm.md", include_str!("../../../docs/farm.md")),
    ("docs/images.md", include_str!("../../../docs/images.md")),
    ("docs/jit.md", include_str!("../../../docs/jit.md")),
];

/// The commands in the blocks of `sh`. A line that ends with a backslash goes on in the next one.
fn commands(page: &str) -> Vec<String> {
    let blocks = page.split("\n```sh\n").skip(1).filter_map(|rest| rest.split("\n```").next());
    let text = blocks.collect::<Vec<_>>().join("\n").replace("\\\n", " ");
    let is_command = |line: &&str| !line.trim().is_empty() && !line.starts_with('#');
    text.lines().filter(is_command).map(str::to_owned).collect()
}

/// The reason for which a command is not run.
fn skipped(command: &str) -> Option<&'static str> {
    if command.starts_with("gdb") && std::env::var_os("CI").is_none() && !has_gdb() {
        return Some("gdb is not installed");
    }
    SKIPPED.iter().find(|(start, _)| command.starts_with(start)).map(|&(_, reason)| reason)
}

fn has_gdb() -> bool {
    std::process::Command::new("gdb").arg("--version").output().is_ok()
}

/// A debugger's command without its user: what it is told to do first, then the program is run up
/// to the breakpoint, and it ends.
fn without_user(command: &str) -> String {
    if !command.starts_with("gdb ") || command.contains(" -batch ") {
        return command.to_owned();
    }
    let run = if command.contains(" -ex run ") { "" } else { " -ex run" };
    command.replacen("gdb ", "gdb -batch ", 1).replacen(
        " --args ",
        &format!("{run} -ex backtrace --args "),
        1,
    )
}

#[test]
fn every_command_of_the_pages_works() {
    let root = concat!(env!("CARGO_MANIFEST_DIR"), "/..");
    let mut run = 0;
    for (name, page) in PAGES {
        let dir = TestFolder::new(&[]);
        dir.shell(&format!(
            "cp -r {root}/examples examples && cp -r examples/clif src && mkdir -p target/release && ln -s \
             \"$xtask\" target/release/kiln"
        ))
        .ok();
        for command in commands(page) {
            if let Some(reason) = skipped(&command) {
                println!("{name}: not run, {reason}: {command}");
                continue;
            }
            let ended = dir.shell(&format!(
                "cargo() {{ [ \"$1\" = xtask ] && shift && \"$xtask\" \"$@\"; }}\n{}",
                without_user(&command)
            ));
            assert_eq!(ended.code, Some(0), "{name}: {command}\n{}\n{}", ended.stdout, ended.stderr);
            // A debugger ends well, too, if the program never came to the breakpoint.
            let stops = ended.stdout.contains("Breakpoint 1, ") && ended.stdout.contains("#0 ");
            assert!(stops || !command.starts_with("gdb"), "{name}: {command}\n{}", ended.stdout);
            run += 1;
        }
    }
    assert!(run > 40, "only {run} commands were found");
}

/// Runs all commands of a page in one shell, as somebody does who copies them one after the other.
/// The addresses of servers are those of `cargo xtask servers`.
#[cfg(feature = "remote")]
fn follow(dir: &TestFolder, page: &str) -> crate::support::Ended {
    // The worker was compiled by `servers`, and its machines know it.
    let script = format!(
        "set -eu\ncargo() {{\n  case \"$1 $2\" in\n  'xtask worker') cp \"$KILN_TEST_WORKER\" \"$4\";;\n  \
         'xtask servers') ;;\n  *) shift; \"$xtask\" \"$@\";;\n  esac\n}}\n{}",
        commands(page).join("\n")
    );
    dir.shell(&script)
}

/// Returns a folder that has what a checkout has, if the variables of servers are set.
#[cfg(feature = "remote")]
fn checkout(variables: &[&str]) -> Option<TestFolder> {
    if let Some(missing) = variables.iter().find(|name| std::env::var_os(name).is_none()) {
        eprintln!("SKIPPED: no {missing}: run `cargo xtask servers -- cargo test ..`");
        return None;
    }
    let dir = TestFolder::new(&[]);
    dir.shell(concat!("cp -r ", env!("CARGO_MANIFEST_DIR"), "/../examples examples")).ok();
    Some(dir)
}

/// Needs a server: `cargo xtask servers -- cargo test -p xtask --features remote pages`.
#[cfg(feature = "remote")]
#[test]
fn the_page_on_caches_is_followed_by_copying() {
    let Some(dir) = checkout(&["KILN_TEST_BAZEL"]) else { return };
    let page = include_str!("../../../docs/caching-in-ci.md");
    // The build that signs says that nobody has signed the two entries that it finds.
    let told =
        "warning: cache of the server: entries that could not be used: 2, that could not be written: 0\n";
    let first = follow(&dir, page);
    assert_eq!((first.code, &*first.stderr), (Some(0), told), "{}", first.stdout);
    // Two builds of four find everything: with the server, and with signatures.
    assert_eq!(first.stdout.matches("(0 compiled, ").count(), 2, "{}", first.stdout);
    // A new machine: the file of the CI system is restored, and servers have everything.
    dir.shell("rm -r kept secret.key accepted.txt program.so").ok();
    let second = follow(&dir, page);
    assert_eq!((second.code, &*second.stderr), (Some(0), told), "{}", second.stdout);
    // The key that signs is another one, so one build of four compiles.
    assert_eq!(second.stdout.matches("(0 compiled, ").count(), 3, "{}", second.stdout);
}

/// Needs a farm: `cargo xtask servers -- cargo test -p xtask --features remote pages`.
#[cfg(feature = "remote")]
#[test]
fn the_page_on_farms_is_followed_by_copying() {
    let Some(dir) = checkout(&["KILN_TEST_FARM", "KILN_TEST_WORKER"]) else { return };
    let ended = follow(&dir, include_str!("../../../docs/farm.md"));
    assert_eq!((ended.code, &*ended.stderr), (Some(0), ""), "{}", ended.stdout);
    assert!(dir.names().contains(&"program.so".into()));
}

#[test]
fn commands_are_found() {
    let page = "\n```sh\n# A.\na b \\\n  c\n\nd # e\n```\n```rust\nf\n```\n\n```sh\ng\n```\n";
    assert_eq!(commands(page), ["a b    c", "d # e", "g"]);
}
