//! Artifacts assembled from functions of other artifacts have the bytes that compiling gives.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use kiln_artifact::{Artifact, Table};
use kiln_backend::{Built, Job, Reuse, compile, compile_all};
use kiln_ir::{Code, DataObject, Diagnostic, DiagnosticKind, Module, Source, Target, parse};

fn read(name: &str, text: &str, target: &Target) -> Result<Module, Vec<Diagnostic>> {
    parse(Arc::new(Source::new(name, text)), target)
}

fn module(text: &str) -> Module {
    read("test", text, &Target::host())
        .unwrap_or_else(|faults| panic!("{}", faults.iter().map(ToString::to_string).collect::<String>()))
}

/// Builds the module with `reuse`: for each function in order, compiled code that may be used.
fn assembled(module: &Module, target: &Target, reuse: &[Option<Reuse<'_>>]) -> Built {
    let isa = target.isa(&module.settings).unwrap();
    compile(&Job { reuse, ..Job::new(module, &*isa) }).unwrap()
}

fn compiled(module: &Module, target: &Target) -> Artifact {
    let built = assembled(module, target, &[]);
    assert_eq!((built.reused, built.unfit), (0, 0));
    built.artifact
}

fn all(artifact: &Artifact) -> Vec<Option<Reuse<'_>>> {
    (0..artifact.functions().len()).map(|function| Some(Reuse { artifact, function })).collect()
}

/// Collects the test files in `folder` and its folders.
fn files(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "clif") {
            found.push(path);
        }
    }
}

#[test]
fn every_function_of_the_test_files_on_every_target() {
    let mut paths = Vec::new();
    for folder in ["tests/clif", "examples"] {
        files(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(folder), &mut paths);
    }
    paths.sort();
    let mut targets = 0;
    for triple in ["x86_64", "aarch64", "riscv64", "s390x"] {
        let target = Target::parse(triple).unwrap();
        if target.isa(&Default::default()).is_err() {
            // Built for this machine only; the feature `all-arch` adds the others.
            println!("no code generator for {triple}");
            continue;
        }
        targets += 1;
        let (mut functions, mut lines) = (0, 0);
        for path in &paths {
            let text = std::fs::read_to_string(path).unwrap();
            // Labels of values and lines come back, too.
            let source = Source::new(path.display().to_string(), text).debugged("/src");
            let module = match parse(Arc::new(source), &target) {
                Ok(module) => module,
                Err(faults) if faults[0].kind == DiagnosticKind::OtherTarget => continue,
                Err(faults) => panic!("{}", faults[0]),
            };
            let isa = target.isa(&module.settings).unwrap();
            // Some files need instructions that a target lacks.
            let Ok(Built { artifact, .. }) = compile(&Job::new(&module, &*isa)) else { continue };
            functions += module.functions.len();
            lines += artifact.lines().count();
            let again = assembled(&module, &target, &all(&artifact));
            assert!(again.artifact == artifact, "{triple}: {}", path.display());
            let from_ir = module.functions.iter().filter(|function| matches!(function.code, Code::Ir(_)));
            // There, distances of thread-local data are in the code.
            if triple == "s390x" && module.data.iter().any(DataObject::is_thread_local) {
                continue;
            }
            assert_eq!(again.reused, from_ir.count(), "{triple}: {}", path.display());
        }
        assert!(functions > 50 && lines > 200, "{triple}: only {functions} functions, {lines} lines");
    }
    assert!(targets > 0);
}

const OLD: &str = "
data %table { i64 7 }
global %object = \"key\"
function %a(i64) -> i64 fast {
    fn0 = colocated %b(i64) -> i64 fast
    fn1 = %outside(i64) -> i64 fast
    gv0 = symbol colocated %table
    gv1 = symbol %object
block0(v0: i64):
@105 v1 = call fn0(v0)
    v2 = call fn1(v1)
@107 v3 = symbol_value.i64 gv0
    v4 = load.i64 v3
    v5 = symbol_value.i64 gv1
    v6 = iadd v4, v5
@108 v7 = udiv v6, v2
    return v7
}
function %b(i64) -> i64 fast {
    fn0 = colocated %a(i64) -> i64 fast
block0(v0: i64):
    v1 = call fn0(v0)
    v2 = func_addr.i64 fn0
    v3 = iadd v1, v2
    return v3
}
function %c(f64) -> f64 fast {
block0(v0: f64):
    v1 = fma v0, v0, v0
    return v1
}
";

/// The same functions under other names and numbers, one of them changed, others around them.
#[test]
fn functions_find_their_place_in_another_module() {
    let target = Target::host();
    let old = module(OLD);
    let old_artifact = compiled(&old, &target);
    let text = OLD
        .replace("%table", "%renamed")
        .replace("\"key\"", "\"another key\"")
        .replace("%outside", "%elsewhere")
        .replace(
            "function %c(f64) -> f64 fast {",
            "function %c(f64) -> f64 fast {\n    ss0 = explicit_slot 8",
        )
        .replace("@10", "@20");
    let new = module(&format!(
        "function %first() -> i64 fast {{\nfn0 = %last() -> i64 fast\nblock0:\n v0 = call fn0()\n return v0\n}}\n{text}\nlocal function %last() -> i64 fast {{\nblock0:\n v0 = iconst.i64 1\n return v0\n}}"
    ));
    let expected = compiled(&new, &target);
    let from = |function| Some(Reuse { artifact: &old_artifact, function });
    let reuse = [None, from(0), from(1), None, None];
    let built = Built { artifact: expected.clone(), reused: 2, unfit: 0 };
    assert!(assembled(&new, &target, &reuse) == built);
    // The queue gives the same.
    let isa = target.isa(&new.settings).unwrap();
    let jobs = [Job { reuse: &reuse, ..Job::new(&new, &*isa) }, Job::new(&old, &*isa)];
    let compiled = Built { artifact: old_artifact.clone(), reused: 0, unfit: 0 };
    assert!(compile_all(&jobs, &|| {}).unwrap() == [built, compiled]);
    // A function that does not fit is compiled, and not reported as reused.
    let reuse = [from(7), None, None, from(1), from(1)];
    assert!(assembled(&new, &target, &reuse) == Built { artifact: expected, reused: 0, unfit: 3 });
}

/// Alters bytes of `artifact` from `offset` of `table` on.
fn altered(artifact: &Artifact, table: Table, offset: usize, value: &[u8]) -> Artifact {
    let mut bytes = artifact.as_bytes().to_vec();
    let start = artifact.table_bytes(table).as_ptr() as usize - artifact.as_bytes().as_ptr() as usize;
    bytes[start + offset..][..value.len()].copy_from_slice(value);
    Artifact::from_bytes(bytes).unwrap_or_else(|error| panic!("{error}"))
}

#[test]
fn damaged_artifacts_cost_no_more_than_reuse() {
    for triple in ["x86_64", "aarch64", "riscv64", "s390x"] {
        let target = Target::parse(triple).unwrap();
        if target.isa(&Default::default()).is_err() {
            println!("no code generator for {triple}");
            continue;
        }
        let module = read("test", OLD, &target).unwrap();
        let sound = compiled(&module, &target);
        // A patch site that reaches into the next function; a resolved call at an odd offset, by
        // which Cranelift's text section builder may panic.
        for (table, offset, value) in [
            (Table::TextRelocs, 0, sound.functions()[0].len.get() - 1),
            (Table::ResolvedCalls, 16, 1),
            (Table::ResolvedCalls, 16, 3),
            (Table::ResolvedCalls, 16, sound.functions()[0].len.get() - 1),
        ] {
            let offset = match table {
                // The last relocation of the first function.
                Table::TextRelocs => {
                    let end = u64::from(sound.functions()[0].len.get());
                    let last = sound.text_relocs().iter().rposition(|reloc| reloc.offset.get() < end);
                    last.unwrap() * 24
                }
                _ => offset,
            };
            let damaged = altered(&sound, table, offset, &value.to_le_bytes());
            let built = assembled(&module, &target, &all(&damaged));
            let what = format!("{triple}: {value} at {offset} of {}", table.name());
            assert!(built.artifact == sound || built.unfit == 0, "{what}");
            if table == Table::TextRelocs {
                assert_eq!((built.reused, built.unfit), (2, 1), "{what}");
            }
        }
    }
}
