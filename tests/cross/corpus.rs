//! The run lines of `tests/clif`, executed by `corpus.c` in images or objects of another machine.
//!
//! C cannot call a function whose type it does not know, so every signature gets an entry thunk in
//! the image. Arguments and expected results are written out in the byte order of the machine.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use cranelift_codegen::data_value::DataValue;
use cranelift_reader::{Comparison, RunCommand, parse_run_command};
use kiln::globals::GlobalAccess;
use kiln::ir::{DiagnosticKind, Linkage, Module, SymbolKind, Target, entry_thunk};
use libtest_mimic::Failed;

use crate::machine::Machine;
use crate::{Form, Program};

/// Functions that give other results with `dlopen`, or on a big-endian machine if they are marked
/// so, and why.
const EXCEPT: [(&str, bool, &str); 4] = [
    ("narrow", true, "looks at the bytes of a number"),
    ("copy_greeting", true, "looks at bytes as at a number"),
    ("through_roots", false, "addresses of globals in data are filled by Kiln's loader only"),
    ("floor", false, "`dlopen` finds the image's own definition where the compiler wants the C library's"),
];

/// The one that is right in objects, whose globals are symbols.
const BUT_IN_OBJECTS: &str = "through_roots";

/// Executes every file that is for `machine`, in this form.
pub(crate) fn run(
    machine: &Machine,
    access: GlobalAccess,
    form: Form<'_>,
    is_object: bool,
) -> Result<(), Failed> {
    let target = machine.newer_target().globals(access);
    let mut modules = Vec::new();
    for path in files(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clif"))? {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let source = kiln::ir::Source::new(name, std::fs::read_to_string(&path)?);
        match kiln::ir::parse(source.into(), &machine.target()) {
            Ok(module) => modules.push(module),
            Err(faults) if faults.iter().all(|fault| fault.kind == DiagnosticKind::OtherTarget) => {}
            Err(faults) => {
                return Err(faults.iter().map(|fault| format!("{fault}\n")).collect::<String>().into());
            }
        }
    }
    let folder = tempfile::tempdir()?;
    let (mut calls, mut failures) = (0, String::new());
    for root in 0..modules.len() {
        let tests = || modules[root].settings.tests();
        if tests().next().is_some() && !tests().any(|test| test == "run") {
            continue;
        }
        // The routine that probes frames is no function of C; Kiln's loader is given ours.
        if modules[root].settings.shared.iter().any(|setting| &*setting.name == "enable_probestack") {
            continue;
        }
        let program: Vec<Module> =
            closure(&modules, root).into_iter().map(|index| modules[index].clone()).collect();
        let (program, script, count) = compile(machine, &target, &modules[root], program, is_object)?;
        let script_path = folder.path().join("script");
        std::fs::write(&script_path, script)?;
        let Some((host, image)) = form(machine, &program, "corpus.c", folder.path())? else { continue };
        let output = machine.command(&host, true).arg(image).arg(&script_path).output()?;
        if !output.status.success() {
            let text = String::from_utf8_lossy(&output.stdout);
            let errors = String::from_utf8_lossy(&output.stderr);
            let _ = write!(failures, "{}: {}\n{text}{errors}", modules[root].name, output.status);
        }
        calls += count;
    }
    if !failures.is_empty() {
        return Err(failures.into());
    }
    if calls < 60 {
        return Err(format!("only {calls} run lines were executed").into());
    }
    Ok(())
}

/// Compiles `program` with the thunks that the run lines of `root` need, and returns it with the
/// script for `corpus.c`.
fn compile(
    machine: &Machine,
    target: &Target,
    root: &Module,
    mut program: Vec<Module>,
    is_object: bool,
) -> Result<(Program, String, usize), Failed> {
    let isa = target.isa(&root.settings)?;
    let mut signatures = indexmap::IndexSet::new();
    let (mut script, mut count) = (String::new(), 0);
    for function in &root.functions {
        let symbol = root.symbol(function.symbol);
        let visible = !matches!(symbol.linkage, Linkage::Local | Linkage::Hidden);
        let except = EXCEPT
            .iter()
            .any(|(name, big_only, _)| **name == *symbol.name && (machine.big_endian || !big_only));
        if !visible || (except && !(is_object && *symbol.name == *BUT_IN_OBJECTS)) {
            continue;
        }
        let signature = symbol.signature.as_ref().ok_or("a function without a type")?;
        for line in function.run_lines() {
            let command = parse_run_command(line.text, signature).map_err(|error| error.message)?;
            let Some(RunCommand::Run(invocation, comparison, expected)) = command else { continue };
            let thunk = signatures.insert_full(signature.clone()).0;
            let relation = if matches!(comparison, Comparison::Equals) { "eq" } else { "ne" };
            let values = |values: &[DataValue]| {
                let hex = values.iter().map(|value| hex(value, machine.big_endian));
                format!("{}{}", values.len(), hex.collect::<String>())
            };
            let (arguments, results) = (values(&invocation.args), values(&expected));
            let line = line.line;
            writeln!(script, "{line} entry_thunk_{thunk} {} {relation} {arguments} {results}", symbol.name)?;
            count += 1;
        }
    }
    for (number, signature) in signatures.iter().enumerate() {
        program.push(entry_thunk(&format!("entry_thunk_{number}"), signature, &root.settings, &*isa));
    }
    let program = crate::compile(&program, target.clone())?;
    let script = format!("{}\n{script}", program.globals.len());
    Ok((program, script, count))
}

/// A space and the bytes of `value` in the byte order of the machine.
fn hex(value: &DataValue, big_endian: bool) -> String {
    let mut bytes = [0; 16];
    if big_endian {
        value.write_to_slice_be(&mut bytes)
    } else {
        value.write_to_slice_le(&mut bytes)
    }
    let bytes = &bytes[..value.ty().bytes() as usize];
    bytes.iter().fold(" ".into(), |text: String, byte| text + &format!("{byte:02x}"))
}

/// `root` and the modules that define its imports, their imports, and so on.
fn closure(modules: &[Module], root: usize) -> BTreeSet<usize> {
    let mut program = BTreeSet::from([root]);
    let mut queue = vec![root];
    while let Some(index) = queue.pop() {
        let imports = modules[index]
            .symbols
            .iter()
            .filter(|symbol| symbol.linkage == Linkage::Import && symbol.kind != SymbolKind::Global);
        for import in imports {
            let defines = |module: &Module| {
                module.symbols.iter().any(|symbol| {
                    symbol.name == import.name && !matches!(symbol.linkage, Linkage::Import | Linkage::Local)
                })
            };
            if let Some(other) = modules.iter().position(defines)
                && program.insert(other)
            {
                queue.push(other);
            }
        }
    }
    program
}

fn files(folder: &Path) -> std::io::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            files.extend(self::files(&path)?);
        } else if path.extension().is_some_and(|extension| extension == "clif") {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}
