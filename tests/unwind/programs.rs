//! The programs whose every instruction is looked at: hand-written functions of every kind, in each
//! calling convention, and random programs.

use std::fmt::Write as _;
use std::sync::Arc;

use cranelift_codegen::data_value::DataValue;
use cranelift_codegen::isa::CallConv;
use kiln::Compiler;
use kiln::globals::GlobalTable;
use kiln::image::{ImageOptions, write_image};
use kiln::ir::{Linkage, Module, ModuleSettings, OptLevel, Source, Target, entry_thunk, parse};
use kiln_oracle::generate::{ProgramOptions, program_for};

/// The largest number of cells that a call needs.
pub(crate) const CELLS: usize = 32;

/// A compiled program, and the calls to make.
pub(crate) struct Program {
    pub(crate) name: String,
    pub(crate) modules: Vec<Module>,
    pub(crate) image: Vec<u8>,
    /// For each slot, in order, the bytes of the run-time object that it refers to.
    pub(crate) globals: Vec<Vec<u8>>,
    pub(crate) calls: Vec<Call>,
    /// The functions of convention `tail`, by name: on s390x, they preserve fewer registers.
    pub(crate) tails: Vec<String>,
}

/// A call of a function through its entry thunk.
pub(crate) struct Call {
    pub(crate) thunk: String,
    pub(crate) function: String,
    /// The cells with the arguments.
    pub(crate) cells: Vec<[u8; 16]>,
}

/// The program of hand-written functions for `target`, with lines of settings in front.
pub(crate) fn by_hand(name: &str, target: &Target, settings: &str) -> Result<Program, String> {
    let text = format!("{settings}\n{}", text(target, settings));
    let source = Arc::new(Source::new("by_hand.clif", text));
    let module = parse(source, target)
        .map_err(|faults| faults.iter().map(|fault| format!("{fault}\n")).collect::<String>())?;
    let calls = module.functions.iter().filter_map(|function| {
        let symbol = module.symbol(function.symbol);
        symbol.name.starts_with("enter").then(|| (symbol.name.to_string(), symbol.signature.clone(), vec![]))
    });
    let calls = calls.collect::<Vec<_>>();
    finish(name.into(), target, vec![module], Vec::new(), calls)
}

/// A random program for `target`.
pub(crate) fn random(seed: u64, target: &Target) -> Result<Program, String> {
    let riscv = target.triple().to_string().starts_with("riscv");
    let options = ProgramOptions {
        steps: 400,
        vectors: !riscv,
        overflow: !riscv,
        atomics: false,
        // The C library does not fill addresses of globals in data.
        globals: 0,
        // Functions are found by name.
        anonymous: false,
        ..ProgramOptions::default()
    };
    let target = match seed % 2 {
        0 => target.clone().opt_level(OptLevel::Speed),
        _ => target.clone().opt_level(OptLevel::None),
    };
    let random = program_for(seed, &options, &target);
    let calls = random
        .entries
        .iter()
        .map(|entry| (entry.name.to_string(), Some(entry.signature.clone()), entry.arguments.clone()));
    let calls = calls.collect();
    let globals = random.globals.iter().map(|(key, bytes)| (key.to_string(), bytes.clone())).collect();
    finish(format!("random program {seed}"), &target, random.modules, globals, calls)
}

type CallOf = (String, Option<cranelift_codegen::ir::Signature>, Vec<DataValue>);

/// Adds entry thunks, compiles and links.
fn finish(
    name: String,
    target: &Target,
    mut modules: Vec<Module>,
    objects: Vec<(String, Vec<u8>)>,
    calls: Vec<CallOf>,
) -> Result<Program, String> {
    let settings = ModuleSettings::default();
    let isa = target.isa(&settings).map_err(|error| error.to_string())?;
    let big_endian = isa.endianness() == cranelift_codegen::ir::Endianness::Big;
    let mut signatures = indexmap::IndexSet::new();
    let calls = calls.into_iter().map(|(function, signature, arguments)| {
        let signature = signature.expect("a function has a type");
        let thunk = format!("entry_thunk_{}", signatures.insert_full(signature.clone()).0);
        let mut cells = vec![[0; 16]; CELLS];
        for (cell, value) in cells.iter_mut().zip(&arguments) {
            if big_endian { value.write_to_slice_be(cell) } else { value.write_to_slice_le(cell) }
        }
        Call { thunk, function, cells }
    });
    let calls = calls.collect();
    for (number, signature) in signatures.iter().enumerate() {
        modules.push(entry_thunk(&format!("entry_thunk_{number}"), signature, &settings, &*isa));
    }
    let mut globals = GlobalTable::new();
    for key in modules.iter().flat_map(Module::globals) {
        globals.intern(key);
    }
    let objects = globals.keys().map(|key| {
        let object = objects.iter().find(|(name, _)| name == key);
        object.map_or_else(|| vec![0; 4096], |(_, bytes)| bytes.clone())
    });
    let objects = objects.collect();
    let tails = modules.iter().flat_map(|module| {
        module.symbols.iter().filter(|symbol| {
            let signature = symbol.signature.as_ref();
            signature.is_some_and(|signature| signature.call_conv == CallConv::Tail)
                && symbol.linkage != Linkage::Import
        })
    });
    let tails = tails.map(|symbol| symbol.name.to_string()).collect();
    let compiled = Compiler::new(target.clone()).compile(&modules).map_err(|error| format!("{error:#?}"))?;
    let image = write_image(&compiled.artifacts, &globals, &ImageOptions::default())
        .map_err(|errors| errors.iter().map(|error| format!("{error}\n")).collect::<String>())?;
    Ok(Program { name, modules, image, globals: objects, calls, tails })
}

/// The functions with several returns.
const RETURNS: [&str; 3] = ["live", "floats", "deep"];

/// The number of values that are live across a call in `live`.
const LIVE: usize = 14;

/// The text of the hand-written functions. `target` decides what is left out because there is no
/// code for it.
fn text(target: &Target, settings: &str) -> String {
    let triple = target.triple().to_string();
    let mut text = String::from(
        "data %trace writable { zeros 64 }\nlocal data %addresses { addr %leaf_system_v, addr %last_tail }\n",
    );
    let mut conventions = vec!["system_v", "fast", "tail"];
    // A function that preserves all registers needs frame pointers and results in memory.
    if !settings.contains("sign_return_address") {
        conventions.push("preserve_all");
    }
    for convention in conventions {
        kinds(&mut text, convention);
    }
    tail_calls(&mut text);
    if triple.starts_with("x86_64") {
        text += "function %enter_block_argument() -> i64 system_v {\n    ss0 = explicit_slot 64\n    fn0 = %block_argument(i64 sarg(64)) -> i64 system_v\nblock0:\n    v0 = stack_addr.i64 ss0\n    v1 = iconst.i64 5\n    store v1, v0\n    v2 = call fn0(v0)\n    return v2\n}\nlocal function %block_argument(i64 sarg(64)) -> i64 system_v {\nblock0(v0: i64):\n    v1 = load.i64 v0\n    return v1\n}\n";
    }
    text
}

/// Functions of each kind with one calling convention, and a function that calls them.
fn kinds(text: &mut String, convention: &str) {
    let c = convention;
    let result = if c == "preserve_all" { "" } else { "-> i64" };
    let params = |count: usize| vec!["i64"; count].join(", ");
    let list = |from: usize, count: usize, ty: &str| {
        (from..from + count).map(|value| format!("v{value}{ty}")).collect::<Vec<_>>().join(", ")
    };
    // What a function does with its result: returns it, or stores it.
    let end = |value: &str| match c {
        "preserve_all" => format!("v900 = symbol_value.i64 gv9\n store {value}, v900\n return"),
        _ => format!("return {value}"),
    };
    let head = "gv9 = symbol %trace\n";
    let mut add = |name: &str, params: &str, head2: &str, body: &str| {
        writeln!(text, "function %{name}_{c}({params}) {result} {c} {{\n{head}{head2}{body}\n}}").unwrap();
    };
    add("leaf", "i64, i64", "", &format!("block0(v0: i64, v1: i64):\n v2 = iadd v0, v1\n {}", end("v2")));
    for size in [40, 3000, 5000, 70_000] {
        let body = format!(
            "block0(v0: i64):\n v1 = stack_addr.i64 ss0\n store v0, v1\n v2 = load.i64 v1\n {}",
            end("v2")
        );
        add(&format!("slot{size}"), "i64", &format!("ss0 = explicit_slot {size}\n"), &body);
    }
    // Values that are live across a call, so that a function saves registers; and a branch to one
    // of several returns.
    let callee = "fn0 = %leaf_system_v(i64, i64) -> i64 system_v\n";
    for (name, floats, slot) in
        [("live", false, ""), ("floats", true, ""), ("deep", true, "ss0 = explicit_slot 9000\n")]
    {
        let mut body = String::from("block0(v0: i64):\n");
        for value in 1..=LIVE {
            writeln!(body, " v{0} = iconst.i64 {value}\n v{value} = iadd v{1}, v{0}", value + 30, value - 1)
                .unwrap();
            if floats {
                writeln!(body, " v{} = fcvt_from_sint.f64 v{value}", value + 100).unwrap();
            }
        }
        if !slot.is_empty() {
            body += " v80 = stack_addr.i64 ss0\n store v0, v80\n";
        }
        body += " v50 = call fn0(v0, v1)\n v52 = iconst.i64 3\n v53 = band v50, v52\n v51 = ireduce.i32 v53\n br_table v51, block4, [block1, block2, block3]\n";
        for block in 1..=4 {
            writeln!(body, "block{block}:").unwrap();
            let (from, mut sum) = (block * 200, "v50".to_owned());
            for value in 1..=LIVE {
                let next = format!("v{}", from + 3 * value);
                writeln!(body, " {next} = iadd {sum}, v{value}").unwrap();
                sum = next;
                if floats {
                    let (float, next) =
                        (format!("v{}", from + 3 * value + 1), format!("v{}", from + 3 * value + 2));
                    writeln!(
                        body,
                        " {float} = fcvt_to_sint_sat.i64 v{}\n {next} = iadd {sum}, {float}",
                        value + 100
                    )
                    .unwrap();
                    sum = next;
                }
            }
            let end = end(&sum).replace("v900", &format!("v90{block}"));
            writeln!(body, " {end}").unwrap();
        }
        add(name, "i64", &format!("{slot}{callee}"), &body);
    }
    // Arguments on the stack, which the callee pops if the convention is `tail`.
    for count in [12, 20] {
        let mut body = format!("block0({}):\n", list(0, count, ": i64"));
        for value in 1..count {
            writeln!(body, " v{} = iadd v{}, v{value}", 100 + value, if value == 1 { 0 } else { 99 + value })
                .unwrap();
        }
        writeln!(body, " {}", end(&format!("v{}", 99 + count))).unwrap();
        add(&format!("args{count}"), &params(count), "", &body);
    }
    // A call that can be left by an exception.
    let body = format!(
        "block0(v0: i64):\n try_call fn0(v0, v0), sig7, block1(ret0), [ default: block2(exn0) ]\nblock1(v1: i64):\n {}\nblock2(v2: i64):\n {}",
        end("v1"),
        end("v2").replace("v900", "v901")
    );
    add("try", "i64", &format!("sig7 = (i64, i64) -> i64 system_v\n{callee}"), &body);

    // The caller.
    let names: Vec<(&str, usize)> = vec![
        ("leaf", 2),
        ("slot40", 1),
        ("slot3000", 1),
        ("slot5000", 1),
        ("slot70000", 1),
        ("live", 1),
        ("floats", 1),
        ("deep", 1),
        ("args12", 12),
        ("args20", 20),
        ("try", 1),
    ];
    for caller in ["system_v", c] {
        let (enter, result2) = match (caller, c) {
            ("system_v", _) => (format!("enter_{c}"), "-> i64"),
            (_, "preserve_all") => continue,
            _ => (format!("enter_inner_{c}"), "-> i64"),
        };
        if caller == c && caller == "system_v" && text.contains("%enter_system_v(") {
            continue;
        }
        writeln!(text, "function %{enter}() {result2} {caller} {{").unwrap();
        for (number, (name, count)) in names.iter().enumerate() {
            writeln!(text, "fn{number} = %{name}_{c}({}) {result} {c}", params(*count)).unwrap();
        }
        writeln!(text, "block0:\n v0 = iconst.i64 1").unwrap();
        let mut sum = "v0".to_owned();
        for (number, (name, count)) in names.iter().enumerate() {
            // All four returns of the functions that have some.
            for turn in 0..if RETURNS.contains(name) { 4 } else { 1 } {
                let base = 1000 + number * 100 + turn * 20;
                writeln!(text, " v{base} = iconst.i64 {}", number + turn).unwrap();
                let arguments = vec![format!("v{base}"); *count].join(", ");
                if result.is_empty() {
                    writeln!(text, " call fn{number}({arguments})").unwrap();
                } else {
                    writeln!(
                        text,
                        " v{} = call fn{number}({arguments})\n v{} = iadd {sum}, v{}",
                        base + 1,
                        base + 2,
                        base + 1
                    )
                    .unwrap();
                    sum = format!("v{}", base + 2);
                }
            }
        }
        writeln!(text, " return {sum}\n}}").unwrap();
    }
}

/// Chains of tail calls whose stack arguments grow and shrink, direct and indirect, with and
/// without saved registers and stack slots.
fn tail_calls(text: &mut String) {
    // Name, parameters, the next function and its number of parameters, whether values are live
    // across a call, size of a slot.
    let chain = [
        ("first", 1, Some(("second", 20)), false, 0),
        ("second", 20, Some(("third", 30)), true, 0),
        ("third", 30, Some(("fourth", 2)), false, 6000),
        ("fourth", 2, Some(("fifth", 16)), true, 3000),
        ("fifth", 16, Some(("sixth", 16)), true, 0),
        ("sixth", 16, Some(("seventh", 300)), false, 0),
        ("seventh", 300, Some(("eighth", 1)), false, 0),
        ("eighth", 1, Some(("last", 1)), false, 0),
        ("last", 1, None, false, 0),
    ];
    for (name, count, next, live, slot) in chain {
        let params = |count: usize| vec!["i64"; count].join(", ");
        writeln!(text, "function %{name}_tail({}) -> i64 tail {{", params(count)).unwrap();
        if slot > 0 {
            writeln!(text, "ss0 = explicit_slot {slot}").unwrap();
        }
        if let Some((next, next_count)) = next {
            writeln!(text, "fn0 = %{next}_tail({}) -> i64 tail", params(next_count)).unwrap();
            writeln!(text, "sig7 = ({}) -> i64 tail", params(next_count)).unwrap();
        }
        writeln!(
            text,
            "fn1 = %leaf_system_v(i64, i64) -> i64 system_v\nfn2 = %args20_tail({}) -> i64 tail",
            params(20)
        )
        .unwrap();
        let values = (0..count).map(|value| format!("v{value}: i64")).collect::<Vec<_>>().join(", ");
        writeln!(text, "block0({values}):").unwrap();
        let mut argument = "v0".to_owned();
        if slot > 0 {
            writeln!(text, " v1000 = stack_addr.i64 ss0\n store v0, v1000\n v1001 = load.i64 v1000").unwrap();
            argument = "v1001".into();
        }
        if live {
            for value in 0..8 {
                writeln!(
                    text,
                    " v{0} = iconst.i64 {value}\n v{1} = iadd v0, v{0}",
                    1150 + value,
                    1100 + value
                )
                .unwrap();
            }
            writeln!(text, " v1200 = call fn1(v0, v0)").unwrap();
            let many = vec!["v1200"; 20].join(", ");
            writeln!(text, " v1201 = call fn2({many})").unwrap();
            let mut sum = "v1201".to_owned();
            for value in 0..8 {
                writeln!(text, " v{} = iadd {sum}, v{}", 1300 + value, 1100 + value).unwrap();
                sum = format!("v{}", 1300 + value);
            }
            argument = sum;
        }
        let Some((_, next)) = next else {
            writeln!(text, " return {argument}\n}}").unwrap();
            continue;
        };
        // Either a return, or a direct or an indirect tail call.
        let arguments = vec![argument.as_str(); next].join(", ");
        writeln!(
            text,
            " v2000 = iconst.i64 7\n v2004 = iconst.i64 3\n v2001 = icmp eq {argument}, v2004\n brif v2001, block1, block2"
        )
        .unwrap();
        writeln!(
            text,
            "block1:\n return {argument}\nblock2:\n v2005 = iconst.i64 1\n v2002 = band v0, v2005\n brif v2002, block3, block4"
        )
        .unwrap();
        writeln!(text, "block3:\n return_call fn0({arguments})").unwrap();
        writeln!(
            text,
            "block4:\n v2003 = func_addr.i64 fn0\n return_call_indirect sig7, v2003({arguments})\n}}"
        )
        .unwrap();
    }
    writeln!(text, "function %enter_tail_calls() -> i64 system_v {{").unwrap();
    let mut body = String::from("block0:\n");
    for (number, (name, count, ..)) in chain.iter().enumerate() {
        writeln!(text, "fn{number} = %{name}_tail({}) -> i64 tail", vec!["i64"; *count].join(", ")).unwrap();
        // The first one meets all of them.
        for value in if number == 0 { 0..4 } else { number % 2..number % 2 + 1 } {
            let argument = format!("v{}", 1000 + number * 10 + value * 2);
            let arguments = vec![argument.as_str(); *count].join(", ");
            writeln!(
                body,
                " {argument} = iconst.i64 {value}\n v{} = call fn{number}({arguments})",
                1001 + number * 10 + value * 2
            )
            .unwrap();
        }
    }
    writeln!(text, "{body} return v1001\n}}").unwrap();
}
