//! Tools that tests run.

use std::path::Path;
use std::process::Command;

use libtest_mimic::Failed;

/// Whether a tool is on the path.
pub(crate) fn is_installed(tool: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|folder| folder.join(tool).is_file())
}

/// Runs a tool in `folder` and returns what it prints. If it fails, so does the test.
pub(crate) fn run(tool: &str, arguments: &[&str], folder: &Path) -> Result<String, Failed> {
    let output = Command::new(tool)
        .args(arguments)
        .current_dir(folder)
        // No messages in other languages, and no search for debug files on the network.
        .env("LC_ALL", "C")
        .env("HOME", folder)
        .env_remove("DEBUGINFOD_URLS")
        .output()?;
    let text = [output.stdout, output.stderr].concat();
    let text = String::from_utf8_lossy(&text).into_owned();
    match output.status.success() {
        true => Ok(text),
        false => Err(format!("{tool} {arguments:?}: {}\n{text}", output.status).into()),
    }
}
