//! Compares functions whose blocks are read here with those of Cranelift's reader.

use std::path::Path;
use std::sync::Arc;

use cranelift_codegen::isa::CallConv;

use crate::body::Encoded;
use crate::source::Source;
use crate::text::cursor::Cursor;
use crate::text::draft::draft;
use crate::text::function::{ReadFunction, read_short, read_usual};
use crate::text::item::{FunctionItem, Item};
use crate::text::locate::Locator;
use crate::text::scan::{TargetDefaults, scan};
use crate::text::shorten::{ShortText, shorten};
use crate::text::symbols::SymbolTable;

/// Every format of instruction that is read here, and everything that may be between instructions.
const ALL: &str = r#"function %all(i64 vmctx, i32, f64) -> i32 system_v { ; a
    region0 = 8 "a }"
    ss0 = explicit_slot 16 ; b
    gv0 = vmctx
    gv1 = load.i64 notrap aligned readonly region0 gv0+8
    gv2 = symbol colocated %datum
    sig0 = (i32) -> i32, i64 system_v
    sig1 = () system_v
    fn0 = %callee sig0
    fn1 = colocated u3:7 sig1
    ; c

                block0(v0: i64, v1: i32, v2: f64): ; d
                ; e
@0012               v3 = iconst.i8 -128
@0012               v4 = iconst.i16 0xff_ff  ; f
@00ab               v5 = iconst.i32 -0x7fff_ffff
                    v6 = iconst.i64 0x8000_0000_0000_0000
                    v7 = f32const -0x1.8p3
                    v8 = f64const 0.0
                    v9 -> v1
	v10 = iadd v1, v9
                    v11, v12 = sadd_overflow v1, v10
                    v13 = load.i32 notrap aligned little region0 v0+8
                    v14 = uload8.i32 v0-4
                    v15 = load.i32 notrap aligned little region0 v0
                    store user7 v13, v0+0x10
                    v16 = icmp slt v13, v14
                    v17 = fcmp lt v2, v8
                    v18 = select v16, v1, v13
                    v19 = stack_addr.i64 ss0+8
                    v20 = stack_addr.i64 ss0
                    v21 = func_addr.i64 fn1
                    v22 = symbol_value.i64 gv2
                    v23, v24 = call fn0(v18)
                    call fn1()
                    call_indirect sig1, v21()
                    v25, v26 = call_indirect sig0, v21(v23)
                    trapz v16, heap_oob
                    v27 = uadd_overflow_trap v1, v13, user1
                    v28 = atomic_load.i32 v0
                    atomic_store big v28, v0
                    v29 = atomic_rmw.i32 add v0, v28
                    v30 = splat.i32x4 v1
                    v31 = extractlane v30, 3
                    v32 = insertlane v30, v1, 0x2
                    v33 = bitcast.i64 little v2
                    v34 = ireduce.i32 v33
                    nop
                    br_table v34, block2(v1), [block1, block2(v34), block1]
block1 cold: brif v1, block3, block2(v1) ; g
block2(v40: i32):
    try_call fn0(v40), sig0, block4(ret0, ret1), [ tag1: block5(exn0), default: block6, context v40 ]
block3:
    v41 = get_exception_handler_address.i64 block5, 0
    br_table v40, block2(v1), []
block4(v50: i32, v51: i64): return v50
block5(v60: i64):
    trap user65
block6:
    try_call_indirect v41(v40), sig0, block4(ret0, ret1), []
    ; h
}"#;

/// Calls `with` for every function of a text.
fn each(text: &str, mut with: impl FnMut(Locator<'_>)) {
    let source = Arc::new(Source::new("test", text));
    let defaults = TargetDefaults { big_endian: false, call_conv: CallConv::SystemV };
    let file = scan(&mut Cursor::new(&source), defaults, &mut Vec::new());
    for item in file.items.iter().filter_map(Item::function) {
        with(Locator { source: &source, item });
    }
}

fn usual(locator: Locator<'_>) -> Option<ReadFunction> {
    read_usual(&mut ShortText::default(), locator, CallConv::SystemV, None)
}

/// Returns the function as Cranelift's reader alone reads it.
fn whole(locator: Locator<'_>) -> Option<ReadFunction> {
    let FunctionItem { text, start, comments, .. } = locator.item;
    let mut short = ShortText::default();
    shorten(text, *start, comments, &mut short);
    match read_short(&short, locator, CallConv::SystemV, None, false) {
        Ok(read) => Some(read),
        Err(faults) => {
            println!("{:?}", faults[0]);
            None
        }
    }
}

/// Checks that both readers read the same, and tells whether this one knew every instruction.
fn same(locator: Locator<'_>) -> bool {
    let Some(usual) = usual(locator) else { return false };
    let text = locator.item.text;
    let Some(whole) = whole(locator) else { panic!("accepted, and Cranelift's reader does not:\n{text}") };
    assert_eq!(usual.ir.display().to_string(), whole.ir.display().to_string(), "{text}");
    assert_eq!(usual.comments, whole.comments, "{text}");
    let symbols = SymbolTable::new(locator.source);
    let [usual, whole] = [usual, whole].map(|read| draft(read, &symbols, false).encoded);
    let parts = |encoded: Encoded| (encoded.bytes, encoded.references, encoded.base);
    assert_eq!(usual.map(parts), whole.map(parts), "{text}");
    true
}

#[test]
fn every_format_and_everything_between() {
    let mut functions = 0;
    each(ALL, |locator| {
        assert!(whole(locator).is_some());
        assert!(same(locator));
        functions += 1;
    });
    assert_eq!(functions, 1);
}

#[test]
fn altered_texts_are_the_same_or_left_to_the_reader() {
    let (mut accepted, mut left) = (0, 0);
    let mut check = |text: &str| {
        each(text, |locator| match same(locator) {
            true => accepted += 1,
            false => left += 1,
        });
    };
    let others = ["v", "0", "1", ",", ";", ".", " ", "\n", "-", "+", "(", "x", "_", "@", "%", "é"];
    for at in ALL.find("block0").unwrap()..ALL.len() {
        check(&[&ALL[..at], &ALL[at + 1..]].concat());
        // All of them for every position would take half a minute.
        check(&[&ALL[..at], others[at % 16], &ALL[at + 1..]].concat());
        check(&[&ALL[..at], others[(at + 8) % 16], &ALL[at..]].concat());
    }
    assert!(accepted > 500 && left > 500, "{accepted} accepted, {left} left");
}

#[test]
fn files_of_the_repository() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let (mut usual, mut all) = (0, 0);
    for folder in ["tests/clif", "examples/clif", "tests/throw"] {
        // A package of this crate has no such folder.
        let Ok(entries) = std::fs::read_dir(root.join(folder)) else { return };
        for entry in entries {
            let path = entry.unwrap().path();
            if path.extension().is_none_or(|extension| extension != "clif") {
                continue;
            }
            each(&std::fs::read_to_string(&path).unwrap(), |locator| {
                usual += usize::from(same(locator));
                all += 1;
            });
        }
    }
    assert!(usual * 10 > all * 8, "only {usual} of {all} functions are read here");
}
