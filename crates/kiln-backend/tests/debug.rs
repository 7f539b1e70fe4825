//! The tables for debuggers, compared with what Cranelift says about each function, and with the
//! text.

use std::collections::HashMap;

use cranelift_codegen::ir::ValueLabelAssignments;
use cranelift_codegen::{Context, LabelValueLoc};
use kiln_artifact::Artifact;
use kiln_artifact::debug::{LabelRange, Place};
use kiln_backend::{Job, Reuse, compile};
use kiln_ir::{Module, Source, Target, parse};

const TEXT: &str = "function %padding() -> i32 {
block0:
    v0 = iconst.i32 1
    return v0
}

function %sum(i64, f64) -> i64 {
    fn0 = %outside(i64) -> i64
block0(v0: i64, v1: f64):
    v2 = call fn0(v0)
    v3 = iadd v2, v0
    v4 = fcvt_to_sint_sat.i64 v1
    v5 = call fn0(v3)
    v6 = iadd v5, v4
    jump block1(v6)

block1(v7: i64):
    v8 = iadd v7, v0
    return v8
}

function %unused(i64) {
block0(v0: i64):
    return
}
";

fn module(text: &str) -> Module {
    let source = Source::new("debug.clif", text).debugged("/src");
    parse(source.into(), &Target::host())
        .unwrap_or_else(|faults| panic!("{}", faults.iter().map(ToString::to_string).collect::<String>()))
}

fn compiled(module: &Module, reuse: &[Option<Reuse<'_>>]) -> Artifact {
    let isa = Target::host().isa(&module.settings).unwrap();
    let built = compile(&Job { reuse, ..Job::new(module, &*isa) }).unwrap();
    assert_eq!(built.reused, reuse.len());
    built.artifact
}

/// Returns the line of each offset of a function that has a location.
fn lines(artifact: &Artifact, function: usize) -> Vec<u32> {
    let lines: HashMap<u32, u32> = artifact.lines().map(|line| (line.location, line.line)).collect();
    artifact.source_ranges_of(function).map(|range| lines[&range.location]).collect()
}

#[test]
fn labels_are_where_cranelift_puts_the_values() {
    let module = module(TEXT);
    let artifact = compiled(&module, &[]);
    let isa = Target::host().isa(&module.settings).unwrap();
    let mut all = 0;
    for (number, function) in module.functions.iter().enumerate() {
        let mut context = Context::for_function(function.ir().unwrap());
        let code = context.compile(&*isa, &mut Default::default()).unwrap();
        let start = artifact.functions()[number].start.get();
        let mut expected = Vec::new();
        for (label, ranges) in &code.value_labels_ranges {
            for range in ranges.iter().filter(|range| range.start < range.end) {
                let place = match range.loc {
                    LabelValueLoc::Reg(register) => {
                        Place::Register(isa.map_regalloc_reg_to_dwarf(register).unwrap())
                    }
                    LabelValueLoc::CFAOffset(offset) => Place::Frame(offset.try_into().unwrap()),
                };
                let mut end = range.end;
                for call in code.buffer.call_sites().map(|site| site.ret_addr) {
                    // Of the registers that hold values here, only these survive a call.
                    let kept = !cfg!(target_arch = "x86_64")
                        || matches!(place, Place::Frame(_) | Place::Register(3 | 6 | 12..=15));
                    if !kept && range.start < call && call <= end {
                        end = call - 1;
                    }
                }
                let (from, to) = (start + range.start, start + end);
                expected.push(LabelRange { label: label.as_u32(), start: from, end: to, place });
            }
        }
        expected.sort_by_key(|range| (range.label, range.start));
        assert_eq!(artifact.labels_of(number).collect::<Vec<_>>(), expected);
        all += expected.len();
        let ir = function.ir().unwrap();
        let labels = ir.dfg.values_labels.as_ref().unwrap();
        let first = |value| match &labels[value] {
            ValueLabelAssignments::Starts(starts) => starts[0].label.as_u32(),
            other => panic!("{other:?}"),
        };
        let entry = ir.layout.entry_block().unwrap();
        let parameters: Vec<u32> = ir.dfg.block_params(entry).iter().map(first).collect();
        assert_eq!(parameters.len(), [0, 2, 1][number]);
        assert_eq!(artifact.parameters_of(number), parameters);
        let own = function.variables.iter().map(|variable| (variable.label, &*variable.name));
        assert!(artifact.variables_of(number).map(|variable| (variable.label, variable.name)).eq(own));
    }
    assert!(all > 8, "only {all} ranges");
    let spilled = artifact.labels_of(1).filter(|range| matches!(range.place, Place::Frame(_))).count();
    let kept = artifact.labels_of(1).filter(|range| matches!(range.place, Place::Register(_))).count();
    assert!(spilled > 0 && kept > 0, "{spilled} in the frame, {kept} in registers");
}

#[test]
fn lines_are_those_of_the_text() {
    let artifact = compiled(&module(TEXT), &[]);
    let files: Vec<_> = artifact.source_files().iter().map(|file| artifact.source_file_name(file)).collect();
    assert_eq!(files, [("debug.clif", "/src")]);
    let found = [lines(&artifact, 1), lines(&artifact, 2)].concat();
    for (line, text) in (1..).zip(TEXT.lines()).skip(6) {
        let is_instruction =
            ["call", "return", "fcvt"].iter().any(|word| text.contains(word)) && !text.contains("fn0 =");
        assert!(!is_instruction || found.contains(&line), "{line}: {text}");
    }
    let bases: Vec<_> = artifact.functions().iter().map(|function| function.base_location.get()).collect();
    let head = |base: u32| artifact.lines().find(|line| line.location == base).unwrap().line;
    assert_eq!([head(bases[0]), head(bases[1])], [1, 7]);
}

#[test]
fn code_that_is_used_again_gets_the_new_lines_and_names() {
    let old = module(TEXT);
    let old = compiled(&old, &[]);
    let text = TEXT
        .replace("function %sum", "; moved\n\nfunction %sum")
        .replace("    v6 = iadd", "    ; and stretched\n    v6 = iadd")
        .replace("v8", "v80")
        .replace("function %padding() -> i32 {\nblock0:\n    v0 = iconst.i32 1\n    return v0\n}\n", "");
    let new = module(&text);
    let reuse = [Some(Reuse { artifact: &old, function: 1 })];
    let again = compiled(&new, &reuse);
    let isa = Target::host().isa(&new.settings).unwrap();
    let alone = compile(&Job::new(&new, &*isa)).unwrap().artifact;
    assert!(again == alone);
    assert!(again.variables_of(0).any(|variable| variable.name == "v80"));
    assert!(!old.variables_of(1).any(|variable| variable.name == "v80"));
    assert_ne!(lines(&old, 1), lines(&again, 0));
}
