//! The linkers that are installed, and the contents of the files they write.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use object::{Object as _, ObjectSection as _, ObjectSymbol as _};

use crate::setup::Failure;

/// A linker, and its option for the number of threads.
pub(crate) struct Linker {
    pub(crate) name: &'static str,
    threads: Option<&'static str>,
    path: Option<PathBuf>,
}

const KNOWN: [(&str, Option<&str>); 4] = [
    ("ld", None),
    ("ld.lld", Some("--threads")),
    ("mold", Some("--thread-count")),
    ("wild", Some("--threads")),
];

/// Returns the linkers that Kiln is compared with, in order, installed or not.
pub(crate) fn known() -> Vec<Linker> {
    let folders: Vec<PathBuf> = std::env::var_os("PATH").iter().flat_map(std::env::split_paths).collect();
    let find = |name: &str| folders.iter().map(|folder| folder.join(name)).find(|path| path.is_file());
    KNOWN.iter().map(|&(name, threads)| Linker { name, threads, path: find(name) }).collect()
}

impl Linker {
    pub(crate) fn is_installed(&self) -> bool {
        self.path.is_some()
    }

    /// Returns the first line of the linker's output for `--version`.
    pub(crate) fn version(&self) -> String {
        let Some(path) = &self.path else { return "not installed".into() };
        let said = Command::new(path).arg("--version").output();
        let text =
            said.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default();
        text.lines().next().unwrap_or("unknown version").into()
    }

    /// Links a shared object whose references bind to its own definitions, as in an image.
    pub(crate) fn link(&self, objects: &[PathBuf], output: &Path, threads: usize) -> Result<(), Failure> {
        let path = self.path.as_ref().ok_or("not installed")?;
        let mut command = Command::new(path);
        command.args(["-shared", "-Bsymbolic", "-o"]).arg(output).args(objects).stdin(Stdio::null());
        command.args(self.threads.map(|flag| format!("{flag}={threads}")));
        let result = command.output()?;
        if !result.status.success() {
            let said = String::from_utf8_lossy(&result.stderr).lines().take(3).collect::<Vec<_>>().join("; ");
            return Err(format!("{} failed: {said}", self.name).into());
        }
        Ok(())
    }
}

/// The contents of a shared object, in numbers.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct FileContents {
    /// Number of exported names, without those that linkers add.
    pub(crate) exports: usize,
    /// Bytes of `.text`.
    pub(crate) text: u64,
    /// Bytes of the file.
    pub(crate) file: usize,
}

/// Reads a file that a linker or Kiln wrote.
pub(crate) fn read(path: &Path) -> Result<FileContents, Failure> {
    let bytes = std::fs::read(path)?;
    let file = object::File::parse(&*bytes)?;
    let text = file.section_by_name(".text").ok_or("no .text section")?.size();
    const OWN: [&[u8]; 7] = [
        b"kiln_slots",
        b"__bss_start",
        b"_edata",
        b"_end",
        b"_DYNAMIC",
        b"_GLOBAL_OFFSET_TABLE_",
        b"_PROCEDURE_LINKAGE_TABLE_",
    ];
    let exported = file.dynamic_symbols().filter(|symbol| symbol.is_definition());
    let exports =
        exported.filter(|symbol| symbol.name_bytes().is_ok_and(|name| !OWN.contains(&name))).count();
    Ok(FileContents { exports, text, file: bytes.len() })
}
