//! Compares the bounds of sizes with real sizes.

use kiln_artifact::record::{
    FunctionRecord, Linkage, NONE, NamedData, SectionKind, SymbolKind, SymbolRecord,
};
use kiln_artifact::{Artifact, Contents, RelocKind};
use kiln_globals::GlobalTable;

use super::super::layout::Area;
use super::super::plan::plan;
use super::super::reach::{Near, Reach, SizeBounds};
use super::{code, far_plan, module};
use crate::arch::Arch;

/// Returns programs that are each large in one respect only, by more than the slack in the bounds
/// of sizes.
fn large_programs() -> Vec<(&'static str, Vec<Artifact>)> {
    const LARGE: usize = 1 << 20;
    let triple = "x86_64-unknown-linux-gnu";
    let build = |change: &dyn Fn(&mut Contents)| {
        let mut contents = Contents::default();
        contents.summary.triple = contents.string(triple);
        change(&mut contents);
        contents.finish()
    };
    let many = |change: &dyn Fn(&mut Contents)| (0..LARGE / 4096).map(|_| build(change)).collect();
    let function = |contents: &mut Contents, unwind_len: usize| {
        // `zR`, code alignment 1, data alignment -8, return address 16; CFA = rsp + 8, return
        // address at CFA - 8.
        contents.cie = vec![20, 0, 0, 0, 0, 0, 0, 0, 1, b'z', b'R', 0, 1, 0x78, 16, 1, 0x1b];
        contents.cie.extend([0x0c, 7, 8, 0x90, 1, 0, 0]);
        contents.functions.push(FunctionRecord {
            symbol: (contents.symbols.len() as u32 - 1).into(),
            unwind_start: (contents.unwind.len() as u32).into(),
            unwind_len: (unwind_len as u32).into(),
            align: 1.into(),
            ..Default::default()
        });
        contents.unwind.resize(contents.unwind.len() + unwind_len, 0); // DW_CFA_nop
    };
    let symbol = |contents: &mut Contents| {
        let name = contents.string("f");
        let (kind, linkage, section) =
            (SymbolKind::Function as u8, Linkage::Local as u8, SectionKind::Text as u8);
        let (zero, signature) = (0.into(), NONE.into());
        let record =
            SymbolRecord { name, offset: zero, size: zero, signature, kind, linkage, section, libcall: 0 };
        contents.symbols.push(record);
    };
    let run = |contents: &mut Contents| {
        contents.writable = vec![1];
        let name = contents.string("aligned");
        contents.named_data.push(NamedData {
            name,
            start: 0.into(),
            len: 1.into(),
            align: 4096.into(),
            section: SectionKind::Writable as u8,
            reserved: [0; 3],
        });
    };
    vec![
        ("code", vec![build(&|contents| contents.text.resize(LARGE, 0))]),
        ("read-only data", vec![build(&|contents| contents.read_only.resize(LARGE, 0))]),
        ("writable data", vec![build(&|contents| contents.writable.resize(LARGE, 0))]),
        ("zeroed data", vec![build(&|contents| contents.summary.zeroed_size = (LARGE as u64).into())]),
        (
            "gaps between code",
            many(&|contents| {
                contents.text = vec![0; 1];
                contents.summary.text_align = 4096.into();
            }),
        ),
        ("gaps between named data", many(&run)),
        (
            "unwind rows",
            vec![build(&|contents| {
                symbol(contents);
                function(contents, LARGE);
            })],
        ),
        (
            "unwind entries",
            vec![build(&|contents| {
                for _ in 0..LARGE / 8 {
                    symbol(contents);
                    function(contents, 1);
                }
            })],
        ),
    ]
}

#[test]
fn sizes_are_within_their_bounds_whatever_is_large() {
    for (what, artifacts) in large_programs() {
        let plan = plan(&artifacts, &GlobalTable::new(), &|_| None).unwrap();
        let reach = Reach { data: plan.layout().total(), call: plan.layout()[Area::Text].size };
        assert!(reach.data > 1_000_000, "{what}: {reach:?}");
        let near = Near::decide(SizeBounds::new(plan.arch(), &artifacts, &[], &plan.symbols, 0), reach);
        assert!(!near.data && !near.calls, "{what}: bounds smaller than {reach:?}");
    }
}

#[test]
fn stubs_of_modules_are_within_their_bounds() {
    let names: Vec<String> = (0..2500).map(|number| format!("host{number}")).collect();
    let hosts = names.iter().map(|name| (&**name, Linkage::Import, SectionKind::Undefined, 0));
    let symbols: Vec<_> = [("f", Linkage::Local, SectionKind::Text, 0)].into_iter().chain(hosts).collect();
    // bl host
    let text = code(&[0x9400_0000; 2500]);
    let relocs: Vec<_> = (0..2500).map(|call| (4 * call, RelocKind::A64Call26, call as u32 + 1, 0)).collect();
    let artifact = module("aarch64-unknown-linux-gnu", &symbols, &text, &relocs);
    let artifacts = vec![artifact; 30];
    let plan = far_plan(&artifacts);
    assert_eq!(plan.placement.stubs.len(), 30 * 2500);
    let bounds = SizeBounds::new(Arch::Aarch64, &artifacts, &[], &plan.symbols, 0);
    assert!(bounds.program() >= plan.layout().total());
}
