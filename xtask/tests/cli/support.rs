//! A folder for each test, and a way to run the command in it.

use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

/// The exit code and the output of a run of the command.
pub(crate) struct Ended {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Ended {
    /// Asserts exit code 0, and returns the standard output.
    #[track_caller]
    pub(crate) fn ok(self) -> String {
        assert_eq!(self.code, Some(0), "stdout:\n{}\nstderr:\n{}", self.stdout, self.stderr);
        self.stdout
    }

    /// Asserts this exit code.
    #[track_caller]
    pub(crate) fn code(self, code: i32) -> Self {
        assert_eq!(self.code, Some(code), "stdout:\n{}\nstderr:\n{}", self.stdout, self.stderr);
        self
    }

    /// Asserts that all `parts` are in the message.
    #[track_caller]
    pub(crate) fn says(self, parts: &[&str]) -> Self {
        for part in parts {
            assert!(self.stderr.contains(part), "no `{part}` in:\n{}", self.stderr);
        }
        self
    }
}

/// Runs the command in `folder`, with `temporary` for its temporary files.
///
/// Asserts that it does not panic.
#[track_caller]
pub(crate) fn xtask(folder: &Path, temporary: &Path, args: &[&str]) -> Ended {
    ended(Command::new(env!("CARGO_BIN_EXE_kiln")).current_dir(folder).args(args), temporary)
}

/// Runs a command, with `temporary` for its temporary files.
#[track_caller]
fn ended(command: &mut Command, temporary: &Path) -> Ended {
    let output = command.env("TMPDIR", temporary).env_remove("RUST_BACKTRACE").output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let ended =
        Ended { code: output.status.code(), stdout: text(&output.stdout), stderr: text(&output.stderr) };
    assert!(!ended.stderr.contains("panicked"), "{command:?}: {}", ended.stderr);
    ended
}

/// A folder with files, and another for temporary files, which must be empty after each run.
pub(crate) struct TestFolder {
    folder: TempDir,
    temporary: TempDir,
}

impl TestFolder {
    pub(crate) fn new(files: &[(&str, &str)]) -> Self {
        let dir = Self { folder: TempDir::new().unwrap(), temporary: TempDir::new().unwrap() };
        files.iter().for_each(|(name, text)| dir.write(name, text));
        dir
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn write(&self, name: &str, contents: impl AsRef<[u8]>) {
        std::fs::write(self.path(name), contents).unwrap();
    }

    #[track_caller]
    pub(crate) fn read(&self, name: &str) -> Vec<u8> {
        std::fs::read(self.path(name)).unwrap()
    }

    /// The names of all files and folders in the folder.
    pub(crate) fn names(&self) -> Vec<String> {
        names(self.folder.path())
    }

    /// Runs a line of `bash`, in which `$xtask` is the command.
    #[track_caller]
    pub(crate) fn shell(&self, line: &str) -> Ended {
        let mut shell = Command::new("bash");
        shell.current_dir(self.folder.path()).env("xtask", env!("CARGO_BIN_EXE_kiln"));
        let ended = ended(shell.args(["-c", line]), self.temporary.path());
        assert_eq!(names(self.temporary.path()), Vec::<String>::new(), "temporary files of {line}");
        ended
    }

    /// Starts the command without waiting for its end. What it prints is lost.
    pub(crate) fn start(&self, args: &[&str]) -> std::process::Child {
        let mut command = Command::new(env!("CARGO_BIN_EXE_kiln"));
        command.current_dir(self.folder.path()).args(args).env("TMPDIR", self.temporary.path());
        command.stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null()).spawn().unwrap()
    }

    #[track_caller]
    pub(crate) fn xtask(&self, args: &[&str]) -> Ended {
        self.xtask_with(&[], args)
    }

    /// Runs the command with variables.
    #[track_caller]
    pub(crate) fn xtask_with(&self, variables: &[(&str, &str)], args: &[&str]) -> Ended {
        let mut command = Command::new(env!("CARGO_BIN_EXE_kiln"));
        // A server of whoever runs the tests is none of theirs.
        command.current_dir(self.folder.path()).args(args).env_remove("KILN_REMOTE");
        let ended = ended(command.envs(variables.iter().copied()), self.temporary.path());
        assert_eq!(names(self.temporary.path()), Vec::<String>::new(), "temporary files of {args:?}");
        ended
    }
}

fn names(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).unwrap();
    let mut names: Vec<_> =
        entries.map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

/// The workspace's folder.
pub(crate) fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap()
}

/// A function that returns its argument plus `number`, with a type that a C program can call.
pub(crate) fn adder(name: &str, number: u32) -> String {
    format!(
        "function %{name}(i64) -> i64 system_v {{
block0(v0: i64):
    v1 = iconst.i64 {number}
    v2 = iadd v0, v1
    return v2
}}
"
    )
}
