//! A build with the oldest versions of all that we depend on, and with the oldest patch release of
//! Cranelift's minor. The newest one is what everything else here is built with.
//!
//! The versions are in a lock file that is committed, so that a release of somebody else cannot
//! change what is checked.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::published::{Done, folder};
use crate::develop::{cargo, execute, root};
use crate::output::{Failure, Outcome};

/// The lock file with the oldest versions.
const LOCK: &str = "xtask/oldest.lock";

pub(super) fn run(bless: bool) -> Result<Done, Failure> {
    let copy = copy()?;
    if bless {
        choose(&copy)?;
    }
    let own = root().join(LOCK);
    let lock = fs::read_to_string(&own)
        .map_err(|error| Failure::while_doing(format!("cannot read {}", own.display()), error))?;
    let releases = releases(&lock);
    if releases.len() != 1 {
        return Err(Failure::new(format!("{LOCK} mixes releases of Cranelift: {}", releases.join(", "))));
    }
    fs::write(copy.join("Cargo.lock"), &lock).map_err(Failure::of)?;
    let fetched = in_copy(&copy, &["fetch", "--quiet", "--locked"]).output().map_err(Failure::of)?;
    if !fetched.status.success() {
        let text = String::from_utf8_lossy(&fetched.stderr);
        if text.contains("--locked") {
            let advice = format!("{LOCK} does not fit Cargo.toml: use --only oldest --bless");
            return Err(Failure::new(advice));
        }
        return Ok(Done::Skipped(format!("the oldest versions cannot be had: {}", text.trim())));
    }
    println!("oldest: Cranelift {}", releases[0]);
    // Without the clients of servers: they are most of all crates, and theirs are pinned by what
    // they need of each other.
    let features = "kiln/trap,kiln/tracing,kiln/all-arch,kiln-remote/archive";
    let check = ["check", "--quiet", "--locked", "--offline", "-p", "kiln", "-p", "kiln-remote"];
    execute(in_copy(&copy, &check).args(["--features", features]))?;
    Ok(Done::Passed)
}

/// Copies what git knows of, so that the copy has a lock file of its own.
fn copy() -> Result<PathBuf, Failure> {
    let copy = folder().join("oldest");
    let listed = Command::new("git")
        .current_dir(root())
        .args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"])
        .output()
        .map_err(Failure::of)?;
    let files = String::from_utf8_lossy(&listed.stdout).into_owned();
    let failed = |error| Failure::while_doing(format!("cannot copy to {}", copy.display()), error);
    for file in files.split_terminator('\0') {
        let (from, to) = (root().join(file), copy.join(file));
        if !from.is_file() {
            continue;
        }
        fs::create_dir_all(to.parent().unwrap_or(&copy)).map_err(failed)?;
        // A file that did not change keeps its time, so that cargo does not compile it again.
        if fs::read(&from).map_err(failed)? != fs::read(&to).unwrap_or_default() {
            fs::copy(&from, &to).map_err(failed)?;
        }
    }
    Ok(copy)
}

/// A cargo command in the copy.
fn in_copy(copy: &Path, args: &[&str]) -> Command {
    let mut command = cargo(args);
    command.current_dir(copy).env("CARGO_TARGET_DIR", folder().join("oldest-target"));
    command
}

/// Chooses the oldest versions: of what our crates name by an option of cargo that is not stable,
/// and of Cranelift's other crates one by one.
fn choose(copy: &Path) -> Outcome {
    let _ = fs::remove_file(copy.join("Cargo.lock"));
    let mut oldest = in_copy(copy, &["-Zdirect-minimal-versions", "generate-lockfile"]);
    execute(oldest.env("RUSTC_BOOTSTRAP", "1"))?;
    // One crate may keep another back, so this takes a few rounds.
    for _ in 0..8 {
        let lock = fs::read_to_string(copy.join("Cargo.lock")).map_err(Failure::of)?;
        let releases = releases(&lock);
        let [oldest, .., _] = &releases[..] else {
            fs::write(root().join(LOCK), lock).map_err(Failure::of)?;
            return Ok(());
        };
        for (name, version) in cranelift(&lock).filter(|(_, version)| version != oldest) {
            let spec = format!("{name}@{version}");
            let _ = in_copy(copy, &["update", "--quiet", &spec, "--precise", oldest]).output();
        }
    }
    Err(Failure::new("Cranelift's crates cannot all be of the oldest release"))
}

/// The crates of Cranelift in a lock file, with their versions.
fn cranelift(lock: &str) -> impl Iterator<Item = (String, String)> {
    lock.split("[[package]]").filter_map(|package| {
        let field = |name: &str| package.split(&format!("\n{name} = \"")).nth(1)?.split('"').next();
        let name = field("name").filter(|name| name.starts_with("cranelift"))?;
        Some((name.to_owned(), field("version")?.to_owned()))
    })
}

/// The releases of Cranelift in a lock file, the oldest first.
fn releases(lock: &str) -> Vec<String> {
    let mut releases: Vec<String> = cranelift(lock).map(|(_, version)| version).collect();
    releases
        .sort_by_key(|version| version.split('.').map(|part| part.parse::<u64>().ok()).collect::<Vec<_>>());
    releases.dedup();
    releases
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn releases_of_cranelift_are_in_order() {
        let package =
            |name: &str, version: &str| format!("[[package]]\nname = \"{name}\"\nversion = \"{version}\"\n");
        let lock = [
            package("cranelift-jit", "0.135.10"),
            package("cranelift-codegen", "0.135.9"),
            package("cranelift", "0.135.10"),
            package("regalloc2", "0.15.2"),
        ]
        .join("\n");
        assert_eq!(releases(&lock), ["0.135.9", "0.135.10"]);
    }
}
