//! Generated programs contain everything that is promised, and are the same each time.

use std::collections::{BTreeMap, BTreeSet};

use kiln_ir::{Init, Module};
use kiln_oracle::generate::{ProgramOptions, program};

/// Instructions that some program of a few hundred must contain.
const OPCODES: &str = "
    iconst f32const f64const vconst iadd isub imul ineg iabs band bor bxor bnot ishl ushr sshr rotl rotr smin umin smax umax
    clz ctz cls popcnt bitrev bswap udiv sdiv urem srem umulhi smulhi uadd_overflow sadd_overflow usub_overflow ssub_overflow
    umul_overflow smul_overflow icmp fcmp select select_spectre_guard bitselect bmask uextend sextend ireduce isplit iconcat
    fadd fsub fmul fdiv fmin fmax fma sqrt ceil floor trunc nearest fneg fabs fcopysign fpromote fdemote
    fcvt_from_sint fcvt_from_uint fcvt_to_sint_sat fcvt_to_uint_sat bitcast
    splat insertlane extractlane swizzle shuffle snarrow unarrow swiden_low swiden_high uwiden_low uwiden_high vany_true
    vall_true vhigh_bits uadd_sat sadd_sat usub_sat ssub_sat iadd_pairwise sqmul_round_sat fvpromote_low fvdemote
    load store uload8 sload8 uload16 sload16 uload32 sload32 istore8 istore16 istore32 uload8x8 sload8x8 uload16x4
    sload16x4 uload32x2 sload32x2 stack_addr symbol_value func_addr atomic_load atomic_store atomic_rmw atomic_cas fence
    call call_indirect return_call return_call_indirect jump brif br_table return trapz trapnz nop";

/// Returns the code of a function.
fn code_of(function: &kiln_ir::Function) -> cranelift_codegen::ir::Function {
    function.ir().expect("generated as IR")
}

/// Counts what `module` contains.
fn count(module: &Module, counts: &mut BTreeMap<String, u64>) {
    let mut add = |what: &str| *counts.entry(what.to_owned()).or_default() += 1;
    for symbol in &module.symbols {
        add(&format!("{:?} {:?}", symbol.linkage, symbol.kind));
        if symbol.name.is_empty() {
            add("anonymous");
        }
    }
    for data in &module.data {
        add(if data.writable { "writable" } else { "read-only" });
        add(match data.init {
            Init::Zeros(_) => "zeros",
            Init::Bytes(_) => "bytes",
        });
        for address in &data.addresses {
            add(&format!("pointer to {:?}", module.symbol(address.symbol).kind));
            if address.offset % 8 != 0 {
                add("pointer at an odd place");
            }
        }
    }
    for function in &module.functions {
        let code = code_of(function);
        let blocks: Vec<_> = code.layout.blocks().collect();
        if blocks.iter().any(|block| code.layout.is_cold(*block)) {
            add("cold block");
        }
        if code.srclocs.values().any(|line| !line.is_default()) {
            add("source location");
        }
        if !code.sized_stack_slots.is_empty() {
            add("stack slot");
        }
        for inst in blocks.iter().flat_map(|block| code.layout.block_insts(*block)) {
            add(&code.dfg.insts[inst].opcode().to_string());
        }
    }
}

#[test]
fn programs_contain_what_is_promised() {
    let mut counts = BTreeMap::new();
    for seed in 0..300 {
        program(seed, &ProgramOptions::default())
            .modules
            .iter()
            .for_each(|module| count(module, &mut counts));
    }
    if std::env::var_os("KILN_SHOW").is_some() {
        println!("{counts:#?}");
    }
    let others = [
        "Import Function",
        "Local Function",
        "Hidden Function",
        "Export Function",
        "Preemptible Function",
        "Replaceable Function",
        "Import Data",
        "Local Data",
        "Hidden Data",
        "Export Data",
        "Preemptible Data",
        "anonymous",
        "writable",
        "read-only",
        "zeros",
        "bytes",
        "pointer to Function",
        "pointer to Data",
        "pointer to Global",
        "pointer at an odd place",
        "cold block",
        "source location",
        "stack slot",
    ];
    let missing: Vec<&str> =
        OPCODES.split_whitespace().chain(others).filter(|what| !counts.contains_key(*what)).collect();
    assert_eq!(missing, [""; 0]);
}

#[test]
fn options_leave_out_what_they_say() {
    let options = ProgramOptions {
        floats: false,
        vectors: false,
        tail_calls: false,
        atomics: false,
        anonymous: false,
        ..ProgramOptions::default()
    };
    let mut counts = BTreeMap::new();
    for seed in 0..100 {
        let program = program(seed, &options);
        program.modules.iter().for_each(|module| count(module, &mut counts));
        for function in program.modules.iter().flat_map(|module| &module.functions) {
            let code = code_of(function);
            assert!(code.dfg.values().all(|value| code.dfg.value_type(value).is_int()), "seed {seed}");
        }
    }
    let absent = BTreeSet::from(["anonymous", "return_call", "atomic_rmw", "fence", "fadd", "splat"]);
    assert_eq!(counts.keys().filter(|what| absent.contains(&***what)).collect::<Vec<_>>(), [""; 0]);
}

#[test]
fn a_seed_is_one_program() {
    for seed in [0, 1, 42, u64::MAX] {
        let text = || format!("{:?}", program(seed, &ProgramOptions::default()));
        assert_eq!(text(), text(), "seed {seed}");
    }
    assert_ne!(
        format!("{:?}", program(1, &ProgramOptions::default())),
        format!("{:?}", program(2, &ProgramOptions::default()))
    );
}
