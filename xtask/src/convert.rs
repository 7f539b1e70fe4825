//! `convert`: converts modules between text and binary form.
//!
//! One module is in memory at a time. A file appears when it is complete, or not at all.

use std::collections::HashSet;
use std::fs::File;
use std::io::{BufWriter, IsTerminal as _, Seek as _, Write};
use std::path::{Path, PathBuf};

use kiln::image::temporary_for;
use kiln::ir::{Module, Target, print};
use tempfile::TempPath;

use crate::input::{self, FileModule, ReadError};
use crate::output::{Failure, Outcome, Shown, print_bytes};

/// The permissions of new module files, before the umask is applied.
const MODE: u32 = 0o666;

/// Convert modules between text (`.clif`) and binary form (`.kir`).
///
/// The form of A follows from its content, the form of B from its extension; without an extension,
/// B is a folder. Binary form is read twice as fast as text, but only by the version of Kiln that
/// wrote it, so keep the text. A module that is converted to text is printed in the standard
/// layout, with its comments: to format a `.clif` file, convert it to itself.
///
/// Several files as A become one `.kir` file of many modules, each of which keeps the name of its
/// text. In a folder, each module becomes a text with that name: its last part, in letters, digits,
/// `.`, `-` and `_`. If an earlier module has the same name, `#` and the module's number, counted
/// from 0, are added. The folder is created if it does not exist, and no file in it is overwritten.
#[derive(clap::Args)]
#[command(after_help = "Examples:
  cargo xtask convert program.clif program.kir
  cargo xtask convert program.kir program.clif
  cargo xtask convert a.clif b.clif all.kir
  cargo xtask convert all.kir folder
  compiler | cargo xtask convert - -")]
pub(crate) struct ConvertArgs {
    /// Files to read, and last the file or folder to write. `-` is standard input, and as B
    /// standard output, for the text of one module
    #[arg(required = true, num_args = 2.., value_name = "A.. B")]
    paths: Vec<PathBuf>,
    /// Architecture or triple that the modules are for: x86_64, aarch64, riscv64, s390x [default:
    /// this machine]
    #[arg(long, value_name = "T")]
    target: Option<String>,
}

pub(crate) fn main(args: &ConvertArgs) -> Outcome {
    let target = input::target(args.target.as_deref())?;
    let (output, inputs) = args.paths.split_last().expect("two at least");
    let files = input::in_order(inputs)?;
    let modules = files.iter().map(|file| ReadError::split(input::modules_of(file)));
    let modules = input::all(modules.collect::<Result<Vec<_>, _>>()?)?;
    let modules: Vec<_> = modules.into_iter().flatten().collect();
    let extension = output.extension().and_then(|extension| extension.to_str());
    match extension {
        _ if output == Path::new("-") => standard_output(&modules, &target),
        _ if output.is_dir() => folder(output, &modules, &target),
        None => new_folder(output, &modules, &target),
        Some(input::BINARY) => file(output, &modules, &target, |_, module| Ok(module.to_bytes())),
        Some(input::TEXT) if modules.len() == 1 => file(output, &modules, &target, text),
        Some(input::TEXT) => Err(not_one(modules.len())),
        Some(_) => {
            let name = output.display();
            Err(Failure::new(format!(
                "cannot tell the form of {name}: name it .clif or .kir, or without extension for a folder"
            )))
        }
    }
}

fn not_one(found: usize) -> Failure {
    Failure::new(format!(
        "a .clif file is one module, and these are {found}: name a folder to write a file for each"
    ))
}

/// Prints a module as text. On a terminal, characters that cannot be seen are shown as escapes; any
/// other output gets the text as it is.
fn standard_output(modules: &[FileModule], target: &Target) -> Outcome {
    if modules.len() != 1 {
        return Err(not_one(modules.len()));
    }
    each(modules, target, |file_module, module| {
        let text = text(file_module, module)?;
        if std::io::stdout().is_terminal() {
            println!("{}", String::from_utf8_lossy(&text).trim_end());
        } else {
            print_bytes(&text);
        }
        Ok(())
    })
}

/// Calls `write` with one module after the other. After the first error, no more modules are
/// written, but the errors of all modules are printed.
fn each(
    modules: &[FileModule],
    target: &Target,
    mut write: impl FnMut(&FileModule, &Module) -> Outcome,
) -> Outcome {
    let mut errors = Shown::default();
    for file_module in modules {
        match ReadError::split(file_module.stored(target))? {
            Ok(module) if errors.count() == 0 => write(file_module, &module)?,
            Ok(_) => {}
            Err(faults) => errors.print(&faults),
        }
    }
    match errors.count() {
        0 => Ok(()),
        _ => Err(errors.failure("error", "in the input")),
    }
}

fn text(file_module: &FileModule, module: &Module) -> Result<Vec<u8>, Failure> {
    let name = || file_module.shown(&module.name);
    let text = print(module).map_err(|error| Failure::while_doing(name(), error))?;
    Ok(text.into_bytes())
}

/// Writes all modules to one file.
fn file(
    output: &Path,
    modules: &[FileModule],
    target: &Target,
    form: impl Fn(&FileModule, &Module) -> Result<Vec<u8>, Failure>,
) -> Outcome {
    let cannot = |error| unwritable(output, &error);
    let write = |file: &mut dyn Write| {
        let mut file = BufWriter::new(file);
        each(modules, target, |file_module, module| {
            file.write_all(&form(file_module, module)?).map_err(cannot)
        })?;
        file.flush().map_err(cannot)
    };
    match temporary_for(output, MODE) {
        Ok(mut file) => {
            write(&mut file)?;
            file.persist(output).map(drop).map_err(|error| cannot(error.error))
        }
        // If no file may be created in the folder, an existing file may still be writable.
        Err(error) => {
            let mut complete = tempfile::tempfile().map_err(cannot)?;
            write(&mut complete)?;
            let mut file = File::options().write(true).open(output).map_err(|_| cannot(error))?;
            let mut overwrite = || {
                complete.rewind()?;
                let length = std::io::copy(&mut complete, &mut file)?;
                file.set_len(length)
            };
            overwrite().map_err(cannot)
        }
    }
}

/// Creates a folder and writes each module to a file in it. If that fails, removes the folder
/// again.
fn new_folder(output: &Path, modules: &[FileModule], target: &Target) -> Outcome {
    std::fs::create_dir(output).map_err(|error| unwritable(output, &error))?;
    let written = folder(output, modules, target);
    if written.is_err() {
        // This removes the folder only if it is empty.
        let _ = std::fs::remove_dir(output);
    }
    written
}

/// Writes each module to a file in a folder.
fn folder(output: &Path, modules: &[FileModule], target: &Target) -> Outcome {
    let cannot = |error| unwritable(output, &error);
    let mut names = HashSet::new();
    let mut files: Vec<(TempPath, PathBuf)> = Vec::new();
    each(modules, target, |file_module, module| {
        let name = file_name(&module.name);
        let unique = if names.insert(name.clone()) { name } else { format!("{name}#{}", files.len()) };
        let path = output.join(format!("{unique}.{}", input::TEXT));
        if path.symlink_metadata().is_ok() {
            return Err(Failure::new(format!("cannot write {}: it exists already", path.display())));
        }
        let mut file = temporary_for(&path, MODE).map_err(cannot)?;
        file.write_all(&text(file_module, module)?).map_err(cannot)?;
        // Only the path is kept: there may be more modules than files that a process may have open.
        files.push((file.into_temp_path(), path));
        Ok(())
    })?;
    for (file, path) in files {
        file.persist_noclobber(&path).map_err(|error| unwritable(&path, &error.error))?;
    }
    Ok(())
}

/// Turns a module's name into a file name, without folder and extension, that has only letters,
/// digits, `.`, `-` and `_`.
fn file_name(module: &str) -> String {
    /// The longest name in bytes. It leaves room for a number and an extension within the limit of
    /// file systems.
    const LONGEST: usize = 200;
    let last = module.rsplit(['/', '\\']).next().unwrap_or_default();
    let stem = [input::TEXT, input::BINARY]
        .iter()
        .find_map(|extension| last.strip_suffix(extension)?.strip_suffix('.'))
        .unwrap_or(last);
    let safe = |c: char| if c.is_alphanumeric() || matches!(c, '.' | '-' | '_') { c } else { '_' };
    let name: String = stem[..stem.floor_char_boundary(LONGEST)].chars().map(safe).collect();
    // The file must not be hidden, and its name must not look like an option.
    match name.trim_start_matches(['.', '-']) {
        "" => "module".into(),
        name => name.into(),
    }
}

fn unwritable(path: &Path, error: &std::io::Error) -> Failure {
    Failure::while_doing(format!("cannot write {}", path.display()), error)
}
