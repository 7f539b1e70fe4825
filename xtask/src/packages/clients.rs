//! A new project for each crate, which depends on that crate alone, and whose program is the
//! example of the crate's page. It is built and run with nothing but a registry of the packages.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::process::Command;

use super::published::{PUBLISHED, folder};
use crate::develop::{cargo, execute, root};
use crate::output::{Failure, Outcome};

/// Other crates that the example of a crate's page names.
const MORE: [(&str, &[&str]); 7] = [
    ("kiln-artifact", &[]),
    ("kiln-backend", &["kiln-ir"]),
    ("kiln-cache", &["kiln-artifact", "tempfile"]),
    ("kiln-farm", &["kiln-cache"]),
    ("kiln-jit", &["kiln-backend", "kiln-ir"]),
    ("kiln-remote", &["kiln-cache"]),
    ("kiln-trap", &["libc"]),
];

/// Features without which a crate does not have what its example needs.
const FEATURES: [(&str, &str); 1] = [("kiln-remote", "bazel")];

/// A block of Rust in a page.
#[derive(PartialEq, Eq, Debug)]
struct Example {
    text: String,
    runs: bool,
}

/// Builds and runs a project for each crate, with the registry in `registry`.
pub(super) fn run(registry: &Path) -> Outcome {
    let clients = folder().join("clients");
    let mut projects = Vec::new();
    for name in PUBLISHED {
        let page = readme(name)?;
        let example = first_example(&page)
            .ok_or_else(|| Failure::new(format!("README.md of {name} has no example")))?;
        projects.push((name, example));
    }
    write(&clients, registry, &projects)
        .map_err(|error| Failure::while_doing(format!("cannot write {}", clients.display()), error))?;

    // A version of a crate never changes in a registry, so cargo would not look at ours again.
    let mut args = vec!["clean", "--quiet", "--offline"];
    PUBLISHED.iter().for_each(|name| args.extend(["--package", name]));
    execute(&mut client_cargo(&clients, &args))?;
    for (name, example) in &projects {
        println!("clients: a project with {name}");
        let action = if example.runs { "run" } else { "check" };
        // One at a time, so that each has only the features that it asks for.
        let package = format!("client-of-{name}");
        execute(&mut client_cargo(&clients, &[action, "--quiet", "--offline", "--package", &package]))?;
    }
    Ok(())
}

/// A cargo command in the folder of the projects. Its home has no settings of the user, and nothing
/// that was unpacked of an earlier package.
fn client_cargo(folder: &Path, args: &[&str]) -> Command {
    let mut command = cargo(args);
    command.current_dir(folder).env("CARGO_HOME", folder.join("home"));
    command.env("CARGO_TARGET_DIR", folder.with_file_name("target"));
    command
}

/// The page of a crate, as it is in its package.
fn readme(name: &str) -> Result<String, Failure> {
    let file = super::pack::file(name);
    let member = format!("{name}-{}/README.md", env!("CARGO_PKG_VERSION"));
    let output = Command::new("tar").arg("-xzOf").arg(&file).arg(member).output().map_err(Failure::of)?;
    if !output.status.success() {
        return Err(Failure::new(String::from_utf8_lossy(&output.stderr)));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// The first block of Rust in a page, as a program.
fn first_example(page: &str) -> Option<Example> {
    let (head, rest) = page.split_once("\n```rust")?;
    let (attributes, rest) = rest.split_once('\n')?;
    if attributes.contains("ignore") {
        let skipped = head.len() + "\n```rust".len();
        return first_example(&page[skipped..]);
    }
    let (block, _) = rest.split_once("\n```")?;
    let mut body = String::new();
    // The project has the feature under whose condition a hidden line puts the example.
    let is_condition = |line: &str| line.starts_with("# #[cfg(feature") || line == "# }";
    for line in block.lines().filter(|line| !is_condition(line)) {
        let shown = if line == "#" { "" } else { line.strip_prefix("# ").unwrap_or(line) };
        let _ = writeln!(body, "{shown}");
    }
    let text = if body.contains("fn main()") {
        body
    } else if body.trim_end().ends_with("(())") {
        // As rustdoc does it.
        format!(
            "fn main() {{\nfn run() -> Result<(), impl core::fmt::Debug> {{\n{body}}}\nrun().unwrap()\n}}\n"
        )
    } else {
        format!("fn main() {{\n{body}}}\n")
    };
    Some(Example { text, runs: !attributes.contains("no_run") })
}

fn write(folder: &Path, registry: &Path, projects: &[(&str, Example)]) -> std::io::Result<()> {
    if folder.exists() {
        fs::remove_dir_all(folder)?;
    }
    fs::create_dir_all(folder.join(".cargo"))?;
    fs::write(
        folder.join(".cargo/config.toml"),
        format!(
            "[source.crates-io]\nreplace-with = \"packed\"\n\n[source.packed]\nlocal-registry = \
             {registry:?}\n"
        ),
    )?;
    fs::write(
        folder.join("Cargo.toml"),
        "[workspace]\nmembers = [\"kiln*\"]\nresolver = \"3\"\n\n[profile.dev]\ndebug = false\n",
    )?;
    // What Kiln is built with is the newest that its packages may be built with.
    let _ = fs::copy(root().join("rust-toolchain.toml"), folder.join("rust-toolchain.toml"));
    for (name, example) in projects {
        let project = folder.join(name);
        fs::create_dir_all(project.join("src"))?;
        let mut manifest = format!(
            "[package]\nname = \"client-of-{name}\"\nversion = \"0.1.0\"\nedition = \"2024\"\n\n\
             [dependencies]\n{name} = {{ version = \"{}\", features = [{}] }}\n",
            env!("CARGO_PKG_VERSION"),
            FEATURES
                .iter()
                .find(|(of, _)| of == name)
                .map_or(String::new(), |(_, feature)| format!("{feature:?}"))
        );
        let more = MORE.iter().find(|(of, _)| of == name).map_or(&[][..], |(_, more)| more);
        for other in more {
            let version = if PUBLISHED.contains(other) { env!("CARGO_PKG_VERSION") } else { "*" };
            let _ = writeln!(manifest, "{other} = \"{version}\"");
        }
        fs::write(project.join("Cargo.toml"), manifest)?;
        fs::write(project.join("src/main.rs"), &example.text)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn examples_of_pages_are_programs() {
        let page = "# A\n\n```rust,ignore\nno\n```\n\n```rust\nuse a::b;\n# let c = 1;\n#\nb(c);\n```\n";
        let text = "fn main() {\nuse a::b;\nlet c = 1;\n\nb(c);\n}\n".to_owned();
        assert_eq!(first_example(page), Some(Example { text, runs: true }));
        let page = "\n```rust,no_run\na()?;\n# Ok::<(), E>(())\n```\n";
        let example = first_example(page).unwrap();
        assert!(!example.runs);
        assert!(example.text.contains("-> Result<(), impl core::fmt::Debug> {\na()?;\nOk::<(), E>(())\n}"));
        let page = "\n```rust\n# #[cfg(feature = \"f\")] {\na();\n# }\n```\n";
        assert_eq!(first_example(page).unwrap().text, "fn main() {\na();\n}\n");
        let whole = first_example("\n```rust\nfn main() {}\n```\n").unwrap();
        assert_eq!(whole.text, "fn main() {}\n");
        assert_eq!(first_example("# A\n\n```sh\nls\n```\n"), None);
    }
}
