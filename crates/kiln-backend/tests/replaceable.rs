//! References to replaceable functions: none is resolved in the module, and relocations tell calls
//! from addresses.

use std::sync::Arc;

use kiln_artifact::record::{Linkage, Reloc};
use kiln_artifact::{Artifact, RelocKind};
use kiln_backend::{Job, compile};
use kiln_ir::{Source, Target, parse};

const MODULE: &str = "
replaceable function %f(i64) -> i64 system_v {
    fn0 = colocated %f(i64) -> i64 system_v
    fn1 = %plain(i64) -> i64 system_v
block0(v0: i64):
    v1 = call fn0(v0)
    v2 = call fn1(v1)
    return v2
}
function %plain(i64) -> i64 system_v {
    fn0 = colocated %f(i64) -> i64 system_v
    fn1 = %g(i64) -> i64 system_v
block0(v0: i64):
    v1 = call fn0(v0)
    v2 = call fn1(v1)
    return v2
}
function %address() -> i64 system_v {
    fn0 = colocated %f(i64) -> i64 system_v
    fn1 = %g(i64) -> i64 system_v
    fn2 = %elsewhere(i64) -> i64 system_v
block0:
    v0 = func_addr.i64 fn0
    v1 = call fn1(v0)
    v2 = func_addr.i64 fn2
    v3 = iadd v1, v2
    return v3
}
replaceable function %g(i64) -> i64 system_v {
block0(v0: i64):
    return v0
}
";

fn artifact(target: &Target, text: &str) -> Artifact {
    let module = parse(Arc::new(Source::new("test", text)), target).unwrap();
    let isa = target.isa(&module.settings).unwrap();
    compile(&Job::new(&module, &*isa)).unwrap().artifact
}

/// The relocations of a function that are calls, or accesses to slots, with their symbols' names.
fn relocs(artifact: &Artifact, function: usize) -> Vec<(&str, RelocKind, u8)> {
    let record = &artifact.functions()[function];
    let (start, len) = (u64::from(record.start.get()), u64::from(record.len.get()));
    let own =
        artifact.text_relocs().iter().filter(|reloc| (start..start + len).contains(&reloc.offset.get()));
    own.filter(|reloc| reloc.kind() != RelocKind::RvPcrelLo12I)
        .map(|reloc| {
            let symbol = &artifact.symbols()[reloc.symbol.get() as usize];
            (artifact.name(symbol), reloc.kind(), reloc.flags)
        })
        .collect()
}

#[test]
fn no_reference_to_a_replaceable_function_is_resolved_in_its_module() {
    for triple in ["x86_64", "aarch64", "riscv64", "s390x"] {
        let target = Target::parse(triple).unwrap();
        if target.isa(&Default::default()).is_err() {
            continue; // Built for this machine only.
        }
        let artifact = artifact(&target, MODULE);
        let name = |symbol: u32| artifact.name(&artifact.symbols()[symbol as usize]);
        let linkage = |name: &str| {
            let symbol = artifact.symbols().iter().find(|symbol| artifact.name(symbol) == name);
            symbol.unwrap().linkage()
        };
        assert_eq!([linkage("f"), linkage("plain")], [Linkage::Replaceable, Linkage::Export]);
        for call in artifact.resolved_calls() {
            assert_eq!(name(call.symbol.get()), "plain", "{triple}");
        }
        assert_eq!(artifact.resolved_calls().len(), 1, "{triple}");
        for (function, callees) in [(0, &["f"][..]), (1, &["f", "g"])] {
            let mut found: Vec<_> = relocs(&artifact, function);
            assert!(found.iter().all(|(_, _, flags)| *flags == 0), "{triple}: calls take no address");
            // s390x calls through stubs, all others through slots.
            assert!(found.iter().all(|(_, kind, _)| kind.uses_slot() != (triple == "s390x")), "{triple}");
            found.dedup_by_key(|(name, ..)| *name);
            assert_eq!(found.iter().map(|(name, ..)| *name).collect::<Vec<_>>(), callees, "{triple}");
        }
        for (name, kind, flags) in relocs(&artifact, 2) {
            let taken = kind.uses_slot() && name != "g";
            assert_eq!(flags, if taken { Reloc::TAKES_ADDRESS } else { 0 }, "{triple}: {name}");
        }
    }
}

#[test]
fn the_linkage_changes_the_code_of_callers_only() {
    let target = Target::host();
    let replaceable = artifact(&target, MODULE);
    let export = artifact(&target, &MODULE.replace("replaceable", "export"));
    let code = |artifact: &Artifact, function: usize| {
        let record = &artifact.functions()[function];
        artifact.text()[record.start.get() as usize..][..record.len.get() as usize].to_vec()
    };
    for (function, same) in [(1, false), (3, true)] {
        assert_eq!(code(&replaceable, function) == code(&export, function), same, "function {function}");
    }
}

/// Machine code is laid out as it is given, and a jump is resolved if the definition is final.
#[test]
#[cfg(target_arch = "x86_64")]
fn a_jump_of_machine_code_to_a_replaceable_function_is_not_resolved() {
    let code = |linkage: &str| {
        format!(
            "{linkage} code %f() system_v {{ align 1, bytes #c3 }}
            code %jump() system_v {{ align 1, bytes #e900000000, reloc x86_call_pcrel4 at 1 %f - 4 }}"
        )
    };
    for (linkage, resolved) in [("export", 1), ("preemptible", 0), ("replaceable", 0)] {
        let artifact = artifact(&Target::host(), &code(linkage));
        assert_eq!(artifact.resolved_calls().len(), resolved, "{linkage}");
        assert_eq!(artifact.text_relocs().len(), 1 - resolved, "{linkage}");
    }
}
