//! The program as it is when it is installed: its help, completions and pages for `man`.

use std::process::Command;

use crate::support::TestFolder;

/// Runs the program as a shell does, without what cargo says to the programs that it runs.
fn kiln(args: &[&str]) -> String {
    let mut command = Command::new(env!("CARGO_BIN_EXE_kiln"));
    let output = command.env_remove("CARGO_MANIFEST_DIR").args(args).output().unwrap();
    assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn help_names_the_program_as_it_was_started() {
    let dir = TestFolder::new(&[]);
    let root = kiln(&["--help"]);
    assert!(root.contains("Usage: kiln <COMMAND>"), "{root}");
    let commands = root.lines().skip_while(|line| *line != "Commands:").skip(1);
    let names = commands.map_while(|line| line.strip_prefix("  ")).filter(|line| !line.starts_with(' '));
    let names: Vec<&str> = names.filter_map(|line| line.split_whitespace().next()).collect();
    assert!(names.contains(&"build") && names.contains(&"completions"), "{names:?}");
    for name in names {
        let installed = kiln(&[name, "--help"]);
        assert!(installed.contains("  kiln "), "{installed}");
        assert!(!installed.contains("xtask"), "{installed}");
        // Started by cargo: these tests are.
        let of_cargo = dir.xtask(&[name, "--help"]).ok();
        assert!(of_cargo.contains(&format!("Usage: cargo xtask {name}")), "{of_cargo}");
    }
    let error = dir.xtask(&["buidl"]).code(2);
    error.says(&["Usage: cargo xtask <COMMAND>"]);
}

#[test]
fn bash_completes_commands_options_and_values() {
    let dir = TestFolder::new(&[]);
    std::fs::write(dir.path("kiln.bash"), kiln(&["completions", "bash"])).unwrap();
    let complete = |words: &str| {
        let count = words.split(' ').count();
        let script = format!(
            "source kiln.bash; COMP_WORDS=({words}); COMP_CWORD={}; _kiln kiln \"${{COMP_WORDS[-1]}}\" \
             \"${{COMP_WORDS[-2]}}\"; echo ${{COMPREPLY[@]}}",
            count - 1
        );
        dir.shell(&script).ok().trim().to_owned()
    };
    assert_eq!(complete("kiln bui"), "build");
    assert_eq!(complete("kiln build --timi"), "--timings");
    assert_eq!(complete("kiln build --opt-level spe"), "speed speed_and_size");
}

#[test]
fn other_shells_and_man_have_every_command() {
    for shell in ["zsh", "fish", "elvish", "powershell"] {
        let script = kiln(&["completions", shell]);
        assert!(script.contains("inspect") && script.contains("timings"), "{shell}");
    }
    let dir = TestFolder::new(&[]);
    let folder = dir.path("man/man1");
    kiln(&["man", folder.to_str().unwrap()]);
    let page = std::fs::read_to_string(folder.join("kiln-build.1")).unwrap();
    assert!(page.contains(".TH kiln-build 1") && page.contains("kiln build examples/clif"), "{page}");
    assert!(!page.contains("xtask"), "{page}");
    assert!(folder.join("kiln.1").exists() && folder.join("kiln-cache-stat.1").exists());

    std::fs::write(dir.path("file"), "").unwrap();
    dir.xtask(&["man", "file/man"]).code(1).says(&["cannot write to file/man"]);
}
