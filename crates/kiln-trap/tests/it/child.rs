//! Runs a part of a test in a child process, which may end by a signal.

use std::os::unix::process::ExitStatusExt as _;
use std::process::Command;

const VARIABLE: &str = "KILN_TRAP_CHILD";

/// How a child ended.
pub(crate) struct Ended {
    pub(crate) code: Option<i32>,
    pub(crate) signal: Option<i32>,
    pub(crate) stderr: String,
}

/// Runs `body` in a child process: this program again, with this test only. `body` must be the same
/// in parent and child, and `test` the full name of the test that calls. A child that comes to the
/// end of `body` ends with code 0.
pub(crate) fn run(test: &str, part: &str, body: impl FnOnce()) -> Ended {
    match std::env::var(VARIABLE) {
        Ok(wanted) if wanted == part => {
            body();
            std::process::exit(0);
        }
        Ok(_) => Ended { code: Some(0), signal: None, stderr: String::new() },
        Err(_) => {
            let mut command = Command::new(std::env::current_exe().unwrap());
            command.args([test, "--exact", "--nocapture", "--test-threads=1"]).env(VARIABLE, part);
            let output = command.env("RUST_BACKTRACE", "0").output().unwrap();
            Ended {
                code: output.status.code(),
                signal: output.status.signal(),
                stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
            }
        }
    }
}

/// Whether this process is a child, in which results of other parts are not known.
pub(crate) fn is_child() -> bool {
    std::env::var_os(VARIABLE).is_some()
}
