//! `cache` and `build --cache`: entries that are kept, checked, removed and explained.

use serde_json::Value;

use crate::support::{TestFolder, adder};

fn dir() -> TestFolder {
    let dir = TestFolder::new(&[("a.clif", &*adder("plus", 2)), ("b.clif", &*adder("more", 40))]);
    dir.xtask(&["build", "a.clif", "b.clif", "-o", "p.so", "--cache", "kept"]).ok();
    dir
}

/// The files of entries, in order.
fn entries(dir: &TestFolder) -> Vec<std::path::PathBuf> {
    fn walk(folder: &std::path::Path, found: &mut Vec<std::path::PathBuf>) {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            match path.is_dir() {
                true => walk(&path, found),
                false => found.push(path),
            }
        }
    }
    let mut found = Vec::new();
    walk(&dir.path("kept"), &mut found);
    // Pointers to entries are shorter than any entry.
    found.retain(|path| std::fs::metadata(path).unwrap().len() > 500);
    found.sort();
    found
}

#[test]
fn stat_verify_and_gc() {
    let dir = dir();
    let stat: Value =
        serde_json::from_str(&dir.xtask(&["cache", "stat", "kept", "--format", "json"]).ok()).unwrap();
    assert_eq!((&stat["entries"], &stat["quarantined"], &stat["foreign"]), (&2.into(), &0.into(), &0.into()));
    assert!(dir.xtask(&["cache", "stat", "kept"]).ok().starts_with("entries      2 ("));
    assert!(dir.xtask(&["cache", "verify", "kept"]).ok().starts_with("2 entries checked ("));
    let files = entries(&dir);
    assert_eq!(files.len(), 2);
    let mut bytes = std::fs::read(&files[0]).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&files[0], bytes).unwrap();
    let found = dir.xtask(&["cache", "verify", "kept"]).code(1);
    assert!(found.stdout.contains("checksum") && found.stdout.ends_with(", 1 broken\n"), "{}", found.stdout);
    assert!(dir.xtask(&["cache", "verify", "kept"]).ok().starts_with("1 entry checked ("));
    assert!(dir.xtask(&["cache", "gc", "kept", "--limit", "0"]).ok().contains(" removed ("));
    assert!(dir.xtask(&["cache", "stat", "kept"]).ok().starts_with("entries      0 ("));
    dir.xtask(&["cache", "stat", "nowhere"]).code(1).says(&["there is no folder nowhere"]);
    // The next build stores the entries again.
    let again = dir.xtask(&["build", "a.clif", "b.clif", "-o", "q.so", "--cache", "kept"]).ok();
    assert!(again.contains("(2 compiled, 0 reused)"), "{again}");
    assert!(dir.read("p.so") == dir.read("q.so"));
}

#[test]
fn a_build_says_why() {
    let dir = dir();
    let build = |more: &[&str]| {
        let args = ["build", "a.clif", "b.clif", "-o", "q.so", "--cache", "kept", "--verbose"];
        dir.xtask(&[&args[..], more].concat())
    };
    build(&[]).code(0).says(&[": hit: from disk, "]);
    build(&["--opt-level", "none"]).code(0).says(&["miss: ", "setting opt_level: was speed, is none"]);
    dir.write("a.clif", adder("plus", 3));
    build(&[]).code(0).says(&["miss: ", "IR of the module"]);
    build(&["--cache-verify"]).code(0).says(&["compiled again, with the same result"]);
    let more = ["--stats", "s.json"];
    build(&more).code(0);
    let stats: Value = serde_json::from_slice(&dir.read("s.json")).unwrap();
    assert_eq!((&stats["cache"]["hits"], &stats["cache"]["misses"]), (&2.into(), &0.into()));
    assert_eq!(stats["lazy_modules"], 2);
    dir.xtask(&["build", "a.clif", "-o", "q.so", "--cache-verify"]).code(2);
}

#[test]
fn explain_names_fields_and_functions() {
    let two = |number: u32| format!("{}{}", adder("same", 1), adder("edited", number));
    let dir = TestFolder::new(&[("old.clif", &*two(5)), ("new.clif", &*two(6))]);
    let told = dir.xtask(&["cache", "explain", "old.clif", "new.clif"]).ok();
    assert!(told.starts_with("miss:\n  IR of the module: was "), "{told}");
    assert!(told.ends_with("1 function reused, 1 compiled:\n  edited: changed\n"), "{told}");
    let told = dir.xtask(&["cache", "explain", "old.clif", "old.clif"]).ok();
    assert_eq!(told, "hit: both are the same module for a cache\n");
    let other = ["cache", "explain", "old.clif", "old.clif", "--old-opt-level", "none", "--format", "json"];
    let told: Value = serde_json::from_str(&dir.xtask(&other).ok()).unwrap();
    assert_eq!(told["differences"][0]["field"], "setting opt_level");
    assert_eq!(
        (&told["reused_functions"], told["compiled_functions"].as_array().unwrap().len()),
        (&0.into(), 2)
    );
}

/// Compiles in a session of this process, with a folder that other processes use too.
fn session(dir: &TestFolder, number: u32) -> kiln::Stats {
    let store = kiln::cache::DiskStore::new(dir.path("kept"));
    let compiler = kiln::Compiler::new(kiln::ir::Target::host()).store(std::sync::Arc::new(store));
    let session = kiln::Session::with_compiler(compiler, kiln::jit::JitOptions::default()).unwrap();
    let source = kiln::ir::Source::new("a.clif", adder("plus", number));
    let module = kiln::ir::parse(source.into(), session.target()).unwrap();
    session.add(&[module]).unwrap();
    // SAFETY: the signature is checked, and the function adds two numbers.
    #[expect(unsafe_code, reason = "calls the code that came from the folder")]
    let plus = unsafe { session.function("plus").unwrap().typed::<extern "C" fn(i64) -> i64>() }.unwrap();
    assert_eq!(plus(1), 1 + i64::from(number));
    session.stats()
}

#[test]
fn processes_share_what_they_compiled() {
    let dir = TestFolder::new(&[("a.clif", &*adder("plus", 7))]);
    // A build in another process reuses the session's code ..
    assert_eq!(session(&dir, 7).compiled_functions, 1);
    let build = |output| dir.xtask(&["build", "a.clif", "-o", output, "--cache", "kept"]).ok();
    assert!(build("p.so").contains("(0 compiled, 1 reused)"));
    dir.xtask(&["build", "a.clif", "-o", "cold.so"]).ok();
    assert!(dir.read("p.so") == dir.read("cold.so"));
    // .. and a session reuses the code of a build.
    dir.write("a.clif", adder("plus", 8));
    assert!(build("q.so").contains("(1 compiled, 0 reused)"));
    let stats = session(&dir, 8);
    assert_eq!((stats.compiled_functions, stats.reused_modules), (0, 1));
}

/// A folder of files that another program named by hashes, as version control does.
#[test]
fn a_folder_that_is_no_cache_is_an_error_and_is_left_alone() {
    let dir = TestFolder::new(&[("a.clif", &*adder("plus", 2))]);
    let foreign: Vec<_> =
        (0..16_u8).map(|n| dir.path(&format!("objects/{n:02x}/{}", "ab".repeat(31)))).collect();
    for path in &foreign {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, b"x\x01some object").unwrap();
    }
    let commands = [&["stat", "objects"][..], &["verify", "objects"], &["gc", "objects", "--limit", "0"]];
    for command in commands {
        let ended = dir.xtask(&[&["cache"], command].concat()).code(1);
        ended.says(&["objects is not a cache: it has 16 files, none of them of a cache"]);
    }
    // With entries among them, each command counts the others.
    dir.xtask(&["build", "a.clif", "-o", "p.so", "--cache", "objects"]).ok();
    assert!(dir.xtask(&["cache", "stat", "objects"]).ok().contains("\nother files  16\n"));
    let said = "16 files not of the cache, left alone\n";
    assert!(dir.xtask(&["cache", "verify", "objects"]).ok().ends_with(said));
    assert!(dir.xtask(&["cache", "gc", "objects", "--limit", "0"]).ok().ends_with(said));
    assert!(foreign.iter().all(|path| std::fs::read(path).unwrap() == b"x\x01some object"));
    // Looking makes nothing.
    for command in [&["stat", "none"][..], &["verify", "none"], &["gc", "none", "--limit", "0"]] {
        dir.xtask(&[&["cache"], command].concat()).code(1).says(&["there is no folder none"]);
    }
    assert!(!dir.path("none").exists());
}

#[test]
fn entries_go_to_another_machine_in_a_file() {
    let dir = dir();
    let build = |module: &str, more: &[&str]| {
        let args = ["build", module, "-o", "q.so", "--cache", "kept", "--cache-list", "used.txt"];
        dir.xtask(&[&args[..], more].concat()).ok()
    };
    build("a.clif", &[]);
    let told = dir.xtask(&["cache", "export", "kept", "all.kiln"]).ok();
    assert!(told.starts_with("2 entries ("), "{told}");
    let told = dir.xtask(&["cache", "export", "kept", "a.kiln", "--list", "used.txt"]).ok();
    assert!(told.starts_with("1 entry ("), "{told}");
    let told = dir.xtask(&["cache", "import", "new", "a.kiln"]).ok();
    assert!(told.starts_with("1 entry (") && told.ends_with(" 0 there already\n"), "{told}");
    let args = ["build", "a.clif", "b.clif", "-o", "r.so", "--cache", "new"];
    assert!(dir.xtask(&args).ok().contains("(1 compiled, 1 reused)"));
    assert!(dir.read("p.so") == dir.read("r.so"));
    dir.write("list.txt", "kiln-cache-list 1\nentry 12\n");
    let wrong = dir.xtask(&["cache", "export", "kept", "b.kiln", "--list", "list.txt"]).code(1);
    wrong.says(&["list.txt", "line 2: expected a key"]);
    dir.write("a.kiln", "no archive");
    dir.xtask(&["cache", "import", "new", "a.kiln"]).code(1).says(&["a.kiln", "not an archive"]);
    dir.xtask(&["cache", "import", "new", "none.kiln"]).code(1).says(&["none.kiln"]);
}

#[cfg(not(feature = "remote"))]
#[test]
fn without_clients_of_servers_the_program_says_so() {
    let dir = dir();
    let build = ["build", "a.clif", "-o", "q.so", "--remote", "grpc://host"];
    let commands: [&[&str]; 3] =
        [&build, &["cache", "stat", "grpc://host"], &["cache", "push", "kept", "grpc://host"]];
    for command in commands {
        dir.xtask(command).code(1).says(&["cargo xtask-remote"]);
    }
}
