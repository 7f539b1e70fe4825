//! Makes the packages, and checks what is in them.

use std::path::PathBuf;
use std::process::Command;

use serde_json::Value;

use super::published::{PUBLISHED, run_cargo};
use crate::develop::{metadata, root};
use crate::output::{Failure, Outcome};

/// Packs all crates. Cargo resolves the packages against each other, as a registry would.
pub(super) fn pack() -> Outcome {
    let mut args = vec!["package", "--quiet", "--no-verify", "--allow-dirty", "--offline"];
    PUBLISHED.iter().for_each(|name| args.extend(["--package", name]));
    run_cargo(&args)
}

/// The file of a package.
pub(super) fn file(name: &str) -> PathBuf {
    root().join(format!("target/package/{name}-{}.crate", env!("CARGO_PKG_VERSION")))
}

/// Checks that each package has what its user needs, and nothing else.
pub(super) fn check() -> Outcome {
    let mut faults = compare(&published()?);
    for name in PUBLISHED {
        faults.extend(content_faults(name, &list(name)?));
    }
    if faults.is_empty() { Ok(()) } else { Err(Failure::Message(faults.join("\n"))) }
}

/// The packages of the workspace, as cargo describes them.
pub(super) fn published() -> Result<Vec<Value>, Failure> {
    let metadata = metadata(&["--no-deps"])?;
    Ok(metadata["packages"].as_array().cloned().unwrap_or_default())
}

/// Compares what the manifests say with what a registry shows to users.
fn compare(packages: &[Value]) -> Vec<String> {
    let mut faults = Vec::new();
    for package in packages {
        let name = package["name"].as_str().unwrap_or_default();
        let is_published = package["publish"].is_null();
        if is_published != PUBLISHED.contains(&name) {
            faults.push(format!("error: {name}: `publish` and the list of published crates differ"));
        }
        if !is_published {
            continue;
        }
        for field in ["description", "license", "documentation", "readme", "rust_version"] {
            if package[field].as_str().is_none_or(str::is_empty) {
                faults.push(format!("error: {name}: Cargo.toml has no {field}"));
            }
        }
        for field in ["keywords", "categories"] {
            if package[field].as_array().is_none_or(Vec::is_empty) {
                faults.push(format!("error: {name}: Cargo.toml has no {field}"));
            }
        }
        let documentation = package["documentation"].as_str().unwrap_or_default();
        if !documentation.ends_with(&format!("/{name}")) {
            faults.push(format!("error: {name}: its documentation is at {documentation}"));
        }
    }
    faults
}

/// The files in a package, without the folder that they are in.
fn list(name: &str) -> Result<Vec<String>, Failure> {
    let file = file(name);
    let output = Command::new("tar").arg("-tzf").arg(&file).output().map_err(Failure::of)?;
    if !output.status.success() {
        return Err(Failure::new(String::from_utf8_lossy(&output.stderr)));
    }
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    Ok(text.lines().filter_map(|line| Some(line.split_once('/')?.1.to_owned())).collect())
}

fn content_faults(name: &str, files: &[String]) -> Vec<String> {
    let mut faults = Vec::new();
    let needed = ["Cargo.toml", "LICENSE-APACHE", "LICENSE-MIT", "README.md", "src/lib.rs"];
    for file in needed {
        if !files.iter().any(|other| other == file) {
            faults.push(format!("error: the package {name} has no {file}"));
        }
    }
    // Cargo adds the last three.
    let more = ["Cargo.lock", "Cargo.toml.orig", ".cargo_vcs_info.json"];
    for file in files {
        let folder = file.split_once('/').map(|(folder, _)| folder);
        let belongs = match folder {
            Some(folder) => ["src", "examples", "docs"].contains(&folder),
            None => needed.contains(&&**file) || more.contains(&&**file),
        };
        if !belongs {
            faults.push(format!("error: the package {name} has {file}, which its users do not need"));
        }
    }
    faults
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packages_have_what_users_need_and_nothing_else() {
        let files = |more: &[&str]| -> Vec<String> {
            let all = ["Cargo.toml", "LICENSE-APACHE", "LICENSE-MIT", "README.md", "src/lib.rs"];
            all.iter().chain(more).map(ToString::to_string).collect()
        };
        assert_eq!(content_faults("a", &files(&["src/b/c.rs", "Cargo.lock", "docs/d.md"])), [""; 0]);
        assert_eq!(
            content_faults("a", &files(&["tests/b.rs", ".gitignore"])),
            [
                "error: the package a has tests/b.rs, which its users do not need",
                "error: the package a has .gitignore, which its users do not need",
            ]
        );
        assert_eq!(content_faults("a", &files(&[])[1..]), ["error: the package a has no Cargo.toml"]);
    }

    #[test]
    fn manifests_say_what_a_registry_shows() {
        let whole = serde_json::json!({
            "name": "kiln", "publish": null, "description": "a", "license": "b", "readme": "c",
            "documentation": "d/kiln", "rust_version": "1", "keywords": ["e"], "categories": ["f"],
        });
        assert_eq!(compare(std::slice::from_ref(&whole)), [""; 0]);
        let mut other = whole.clone();
        other["readme"] = Value::Null;
        other["keywords"] = Value::Array(Vec::new());
        other["documentation"] = "d/kiln-ir".into();
        assert_eq!(
            compare(&[other]),
            [
                "error: kiln: Cargo.toml has no readme",
                "error: kiln: Cargo.toml has no keywords",
                "error: kiln: its documentation is at d/kiln-ir",
            ]
        );
        let mut unknown = whole;
        unknown["name"] = "kiln-new".into();
        unknown["documentation"] = "d/kiln-new".into();
        assert_eq!(
            compare(&[unknown]),
            ["error: kiln-new: `publish` and the list of published crates differ"]
        );
    }
}
