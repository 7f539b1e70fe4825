//! `convert`: between text and binary form.

use std::io::Write as _;
use std::path::{Path, PathBuf};

use kiln::ir::print;

use crate::input;
use crate::output::{Failure, Outcome};

/// Convert modules between text (`.clif`) and binary form (`.kir`).
///
/// What B is follows from its extension. Binary form is read many times faster; it belongs to one version of Kiln, so text is the
/// form to keep. Converted to text, a file is printed in the usual form, with its comments: convert a `.clif` file to itself to
/// format it. A `.kir` file can hold many modules: give several files as A.
#[derive(clap::Args)]
#[command(after_help = "Examples:
  cargo xtask convert program.clif program.kir
  cargo xtask convert program.kir program.clif
  cargo xtask convert a.clif b.clif all.kir")]
pub(crate) struct Args {
    /// Files to read, and last the file to write
    #[arg(required = true, num_args = 2.., value_name = "A.. B")]
    paths: Vec<PathBuf>,
    /// Architecture or triple that the modules are for: x86_64, aarch64, riscv64, s390x [default: this machine]
    #[arg(long, value_name = "T")]
    target: Option<String>,
}

pub(crate) fn main(args: &Args) -> Outcome {
    let target = input::target(args.target.as_deref())?;
    let (output, inputs) = args.paths.split_last().expect("two at least");
    let extension = output.extension().and_then(|extension| extension.to_str());
    let binary = match extension {
        Some(input::BINARY) => true,
        Some(input::TEXT) => false,
        _ => {
            let name = output.display();
            return Err(Failure::new(format!("cannot tell the form of {name}: name it .clif or .kir")));
        }
    };
    let mut modules = Vec::new();
    for path in inputs {
        let cannot = |error| Failure::new(format!("cannot read {}: {error}", path.display()));
        let bytes = std::fs::read(path).map_err(cannot)?;
        for range in input::pieces(&bytes) {
            modules.push(input::module(&path.display().to_string(), bytes[range].to_vec(), &target));
        }
    }
    let modules = input::all(modules)?;
    let mut bytes = Vec::new();
    match (binary, modules.as_slice()) {
        (true, modules) => modules.iter().for_each(|module| bytes.extend(module.to_bytes())),
        (false, [module]) => {
            let text = print(module);
            bytes = text.map_err(|error| Failure::new(format!("{}: {error}", module.name)))?.into_bytes();
        }
        (false, modules) => {
            return Err(Failure::new(format!("a .clif file is one module, and these are {}", modules.len())));
        }
    }
    write(output, &bytes).map_err(|error| Failure::new(format!("cannot write {}: {error}", output.display())))
}

/// The file appears whole or not at all.
fn write(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut file = tempfile::NamedTempFile::new_in(folder)?;
    file.write_all(bytes)?;
    // As a file that is simply written, not as a temporary one.
    use std::os::unix::fs::PermissionsExt as _;
    file.as_file().set_permissions(std::fs::Permissions::from_mode(0o644))?;
    file.persist(path).map_err(|error| error.error)?;
    Ok(())
}
