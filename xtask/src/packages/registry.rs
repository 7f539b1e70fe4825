//! A registry in a folder: our packages, and every crate that they need, as links to what cargo has
//! downloaded. So a project that uses it sees the packages as users will, and reaches no network.
//!
//! The format is cargo's `local-registry`: `NAME-VERSION.crate` beside each other, and below
//! `index/` a line of JSON for each version. Cargo wrote the lines of our packages; those of the
//! other crates are made from what `cargo metadata` says.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::pack;
use super::published::{PUBLISHED, folder};
use crate::develop::{metadata, root};
use crate::output::Failure;

/// Makes the registry, and returns its folder.
pub(super) fn make() -> Result<PathBuf, Failure> {
    let folder = folder().join("registry");
    // Crates that other systems need were not downloaded.
    let platform = format!("--filter-platform={}-unknown-linux-gnu", std::env::consts::ARCH);
    let metadata = metadata(&["--offline", "--all-features", &platform])?;
    let lock = fs::read_to_string(root().join("Cargo.lock")).map_err(Failure::of)?;
    write(&folder, &metadata, &lock)
        .map_err(|error| Failure::while_doing(format!("cannot make {}", folder.display()), error))?;
    Ok(folder)
}

fn write(folder: &Path, metadata: &Value, lock: &str) -> io::Result<()> {
    if folder.exists() {
        fs::remove_dir_all(folder)?;
    }
    fs::create_dir_all(folder)?;
    let ours = root().join("target/package/tmp-registry/index");
    for name in PUBLISHED {
        let line = fs::read_to_string(ours.join(place(name)))?;
        add(folder, name, &line, &pack::file(name))?;
    }
    let sums = checksums(lock);
    let packages = || metadata["packages"].as_array().into_iter().flatten();
    let names: BTreeSet<&str> = packages().filter_map(|package| package["name"].as_str()).collect();
    for package in packages() {
        let text = |field: &str| package[field].as_str().unwrap_or_default();
        // Our own crates and those of a path have no source.
        let Some(sum) = sums.get(&(text("name"), text("version"))) else { continue };
        let file = downloaded(Path::new(text("manifest_path")));
        let file = file.ok_or_else(|| io::Error::other(format!("{} is not downloaded", text("name"))))?;
        add(folder, text("name"), &format!("{}\n", entry(package, sum, &names)), &file)?;
    }
    Ok(())
}

/// Adds a version of a crate.
fn add(folder: &Path, name: &str, line: &str, file: &Path) -> io::Result<()> {
    let index = folder.join("index").join(place(name));
    fs::create_dir_all(index.parent().unwrap_or(folder))?;
    fs::OpenOptions::new().create(true).append(true).open(index)?.write_all(line.as_bytes())?;
    std::os::unix::fs::symlink(file, folder.join(file.file_name().unwrap_or_default()))
}

/// The file of an index that has the versions of the crate `name`.
fn place(name: &str) -> String {
    let name = name.to_lowercase();
    match name.len() {
        1 | 2 => format!("{}/{name}", name.len()),
        3 => format!("3/{}/{name}", &name[..1]),
        _ => format!("{}/{}/{name}", &name[..2], &name[2..4]),
    }
}

/// The package from which cargo unpacked a crate: `registry/cache/X/A-1.0.0.crate` for
/// `registry/src/X/A-1.0.0/Cargo.toml`.
fn downloaded(manifest: &Path) -> Option<PathBuf> {
    let unpacked = manifest.parent()?;
    let source = unpacked.parent()?;
    let registry = source.parent()?.parent()?;
    let file = format!("{}.crate", unpacked.file_name()?.to_str()?);
    Some(registry.join("cache").join(source.file_name()?).join(file))
}

/// The checksums in a lock file, by name and version.
fn checksums(lock: &str) -> BTreeMap<(&str, &str), &str> {
    let field = |package: &'_ str, name: &str| -> Option<(usize, usize)> {
        let start = package.find(&format!("\n{name} = \""))? + name.len() + 5;
        Some((start, start + package[start..].find('"')?))
    };
    let packages = lock.split("[[package]]").filter_map(|package| {
        let text = |name: &str| field(package, name).map(|(start, end)| &package[start..end]);
        Some(((text("name")?, text("version")?), text("checksum")?))
    });
    packages.collect()
}

/// The line of an index for a package that `cargo metadata` describes, without the crates that it
/// uses on other systems: those not in `names`.
fn entry(package: &Value, sum: &str, names: &BTreeSet<&str>) -> Value {
    let dependency = |dependency: &Value| {
        let renamed = &dependency["rename"];
        json!({
            "name": if renamed.is_null() { &dependency["name"] } else { renamed },
            "package": if renamed.is_null() { &Value::Null } else { &dependency["name"] },
            "req": dependency["req"],
            "features": dependency["features"],
            "optional": dependency["optional"],
            "default_features": dependency["uses_default_features"],
            "target": dependency["target"],
            "kind": if dependency["kind"].is_null() { json!("normal") } else { dependency["kind"].clone() },
        })
    };
    let used = || package["dependencies"].as_array().into_iter().flatten();
    // Nothing asks for a crate with which another one is tested.
    let elsewhere = |used: &Value| {
        let is_here = used["name"].as_str().is_some_and(|name| names.contains(name));
        !used["target"].is_null() && used["kind"] != "dev" && !is_here
    };
    let absent: Vec<&str> = used()
        .filter(|used| elsewhere(used))
        .filter_map(|used| used["rename"].as_str().or(used["name"].as_str()))
        .collect();
    // What turns them on, too: `dep:NAME`, `NAME/FEATURE`, `NAME?/FEATURE`.
    let mut features = package["features"].clone();
    for list in features.as_object_mut().into_iter().flat_map(|map| map.values_mut()) {
        let is_absent = |feature: &Value| {
            let text = feature.as_str().unwrap_or_default();
            let name = text.strip_prefix("dep:").or(text.split_once('/').map(|(name, _)| name));
            name.is_some_and(|name| absent.contains(&name.trim_end_matches('?')))
        };
        list.as_array_mut().into_iter().for_each(|list| list.retain(|feature| !is_absent(feature)));
    }
    let used = used().filter(|used| !elsewhere(used));
    json!({
        "name": package["name"],
        "vers": package["version"],
        "deps": used.map(dependency).collect::<Vec<_>>(),
        "features": features,
        "links": package["links"],
        "rust_version": package["rust_version"],
        "cksum": sum,
        "yanked": false,
        "v": 2,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_index_has_folders_of_letters() {
        let places = ["a", "ab", "Abc", "abcd", "kiln-ir"].map(place);
        assert_eq!(places, ["1/a", "2/ab", "3/a/abc", "ab/cd/abcd", "ki/ln/kiln-ir"]);
    }

    #[test]
    fn locked_crates_have_checksums() {
        let lock = "version = 4\n\n[[package]]\nname = \"a\"\nversion = \"1.0.0\"\nsource = \"b\"\n\
                    checksum = \"c\"\n\n[[package]]\nname = \"d\"\nversion = \"0.1.0\"\n";
        assert_eq!(checksums(lock), BTreeMap::from([(("a", "1.0.0"), "c")]));
    }

    #[test]
    fn a_package_is_beside_what_was_unpacked() {
        assert_eq!(
            downloaded(Path::new("/h/registry/src/x/a-1.0.0/Cargo.toml")),
            Some("/h/registry/cache/x/a-1.0.0.crate".into())
        );
    }

    #[test]
    fn an_entry_has_renamed_dependencies_under_both_names() {
        let package = json!({ "name": "a", "version": "1.0.0", "features": { "f": ["c/g", "e/h", "e?/h", "dep:e"] },
            "dependencies": [
            { "name": "b", "rename": "c", "req": "^1", "kind": null, "uses_default_features": false },
            { "name": "d", "rename": null, "req": "^1", "kind": "dev" },
            { "name": "e", "rename": null, "req": "^1", "kind": null, "target": "cfg(windows)" },
        ]});
        let entry = entry(&package, "5", &BTreeSet::from(["b", "d"]));
        assert_eq!(entry["deps"].as_array().map(Vec::len), Some(2));
        assert_eq!(entry["deps"][0]["name"], "c");
        assert_eq!(entry["deps"][0]["package"], "b");
        assert_eq!(entry["deps"][0]["kind"], "normal");
        assert_eq!(entry["deps"][0]["default_features"], false);
        assert_eq!(entry["features"], json!({ "f": ["c/g"] }));
        assert_eq!(entry["cksum"], "5");
    }
}
