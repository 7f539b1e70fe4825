//! Output that cannot be written, lists that are too long, and files that may be written where no
//! file may be made.

use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};

use crate::support::{TestFolder, adder};

#[test]
fn standard_output_that_cannot_be_written_is_an_error() {
    let dir = TestFolder::new(&[("a.clif", &adder("plus", 2))]);
    dir.xtask(&["build", "a.clif", "-o", "p.so"]).ok();
    let full = "error: cannot write to standard output: No space left on device (os error 28)\n";
    for line in [
        "build a.clif -o q.so",
        "build a.clif -o q.so --format json",
        "check a.clif",
        "check a.clif --format json",
        "run a.clif",
        "run a.clif --format json",
        "convert a.clif -",
        "inspect p.so",
        "call p.so plus 1",
        "--help",
        "run --help",
        "--version",
    ] {
        let ended = dir.shell(&format!("$xtask {line} > /dev/full")).code(1);
        assert_eq!(ended.stderr, full, "{line}");
        // A reader that is gone is no error to speak of.
        let ended = dir.shell(&format!("$xtask {line} | true; echo ${{PIPESTATUS[0]}}"));
        assert!(
            ended.stderr.is_empty() && ["0\n", "1\n"].contains(&&*ended.stdout),
            "{line}: {}",
            ended.stderr
        );
    }
    for line in
        ["build a.clif -o /dev/full", "convert a.clif /dev/full", "build a.clif -o q.so --stats /dev/full"]
    {
        dir.shell(&format!("$xtask {line}")).code(1).says(&["error: ", "/dev/full"]);
    }
}

/// The first hundred are shown, and the others counted.
#[test]
fn long_lists_of_errors_are_cut() {
    let imports: String = (0..250).map(|number| format!("    fn{number} = %missing{number}()\n")).collect();
    let calls: String = (0..250).map(|number| format!("    call fn{number}()\n")).collect();
    let user = format!("function %f() {{\n{imports}block0:\n{calls}    return\n}}\n; run: %f()\n");
    let wrong = "function %f( {\n";
    let dir = TestFolder::new(&[("user.clif", &*user)]);
    let ended = dir.xtask(&["check", "user.clif"]).code(1);
    assert_eq!(ended.stderr.matches("is not defined").count(), 100);
    assert!(ended.stderr.ends_with("error: 250 errors found, of which the first 100 are shown\n"));
    let ended = dir.xtask(&["run", "user.clif"]).code(1);
    assert_eq!(ended.stdout.matches("is not defined").count(), 100);
    assert!(ended.stdout.contains("error: 150 more errors not shown\n"), "{}", ended.stdout);
    // For a program the list is whole.
    let json = dir.xtask(&["check", "user.clif", "--format", "json"]).code(1).stdout;
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json["faults"].as_array().unwrap().len(), 250);

    let files: Vec<String> = (0..130).map(|number| format!("{number:03}.clif")).collect();
    files.iter().for_each(|file| dir.write(file, wrong));
    let args = |command: &'static str| [vec![command], files.iter().map(|file| &**file).collect()].concat();
    for more in [&["build", "-o", "p.so"][..], &["convert"]] {
        let mut args = args(more[0]);
        args.extend(&more[1..]);
        if more[0] == "convert" {
            args.push("all.kir");
        }
        let ended = dir.xtask(&args).code(1);
        assert_eq!(ended.stderr.matches(" --> ").count(), 100);
        let last = "error: 130 errors in the input, of which the first 100 are shown\n";
        assert!(ended.stderr.ends_with(last), "{}", ended.stderr);
    }
}

#[test]
fn nothing_names_a_temporary_file() {
    let dir = TestFolder::new(&[("a.clif", &adder("plus", 2))]);
    for line in [
        "build a.clif -o /proc/self/p.so",
        "convert a.clif /proc/self/p.kir",
        "convert a.clif nowhere/p.kir",
        "build a.clif -o nowhere/p.so",
    ] {
        let ended = dir.shell(&format!("$xtask {line}")).code(1);
        assert!(!ended.stderr.contains("tmp") && !ended.stderr.contains(".kiln-"), "{}", ended.stderr);
        assert!(ended.stderr.starts_with("error: cannot write "), "{}", ended.stderr);
    }
}

/// A program that does not fit into the memory of a session is executed from its image, and not
/// linked in memory first.
#[test]
fn an_image_may_be_larger_than_a_session() {
    let text = "data %big writable { zeros 0x6000_0000 }
function %f() -> i64 {\nblock0:\n    v0 = iconst.i64 1\n    return v0\n}\n; run: %f() == 1\n";
    let dir = TestFolder::new(&[("a.clif", text)]);
    let ended = dir.xtask(&["run", "a.clif"]).code(1);
    assert!(ended.stdout.contains("no room for 1610612736 bytes"), "{}", ended.stdout);
    for way in [&["--via", "image"][..], &["--image-codegen"]] {
        let output = dir.xtask(&[&["run", "a.clif"], way].concat()).ok();
        assert_eq!(output, "a.clif: ok, 1 invocation\n1 passed, 0 failed, 0 skipped\n");
    }
}

/// As linkers do it: a file that may be written is written, although its folder may not change.
#[test]
fn a_file_in_a_folder_that_may_not_change_is_overwritten() {
    let dir = TestFolder::new(&[("a.clif", &adder("plus", 2)), ("out.so", "old"), ("out.kir", "old")]);
    dir.xtask(&["build", "a.clif", "-o", "p.so"]).ok();
    dir.xtask(&["convert", "a.clif", "p.kir"]).ok();
    let set = |name: &str, mode| {
        std::fs::set_permissions(dir.path(name), std::fs::Permissions::from_mode(mode)).unwrap();
    };
    set("out.so", 0o666);
    set("out.kir", 0o666);
    set("a.clif", 0o444);
    set("", 0o555);
    // Root may write everywhere, so another user does it; the program must be one it can reach.
    let is_root = std::fs::metadata(dir.path("a.clif")).unwrap().uid() == 0;
    let user = if is_root { "setpriv --reuid 65534 --regid 65534 --clear-groups" } else { "" };
    if dir.shell(&format!("{user} $xtask --version")).code != Some(0) {
        let _ = std::io::Write::write_all(
            &mut std::io::stderr(),
            b"skipped: no other user can run the program\n",
        );
        return;
    }
    let ended = dir.shell(&format!("TMPDIR=/tmp {user} $xtask build a.clif -o new.so")).code(1);
    ended.says(&["error: cannot write new.so: Permission denied (os error 13)\n"]);
    dir.shell(&format!("TMPDIR=/tmp {user} $xtask build a.clif -o out.so")).ok();
    dir.shell(&format!("TMPDIR=/tmp {user} $xtask convert a.clif out.kir")).ok();
    let ended = dir.shell(&format!("TMPDIR=/tmp {user} $xtask convert a.clif new.kir")).code(1);
    ended.says(&["error: cannot write new.kir: Permission denied (os error 13)\n"]);
    set("", 0o755);
    assert!(dir.read("out.so") == dir.read("p.so"));
    assert!(dir.read("out.kir") == dir.read("p.kir"));
}
