//! Tests with altered forms: the decoder refuses wrong ones, both when it checks and when it
//! builds.

use std::sync::Arc;

use cranelift_codegen::ir::{Opcode, types};

use super::wire::DecodeResult;
use super::*;
use crate::source::Source;
use crate::target::Target;
use crate::text::parse_unverified;

/// `%f(i32) -> i32 { block0(v0: i32): v1 = iadd v0, v0; return v1 }`, as `encode` explains it.
const EXAMPLE: [u8; 32] = [
    2, 1, 0x76, 0, 1, 0x76, 0, // signature
    0, 0, 0, 0, 0, 0, 0, 0, 0, // tables
    2, 1, // values, blocks
    2, 0x76, // block
    0x4a, 0x76, 2, 2, // iadd
    8, 1, 2, // return
    0, // end of the block
    0, 0, 0, 0, // side tables
];

/// A function with operands of many kinds.
const TEXT: &str = "function %f(i64, f32, i8x16) -> i64 fast {
    ss0 = explicit_slot 16, align = 8
    region0 = 5 \"heap\"
    gv0 = symbol %data
    sig0 = (i64) -> i64, i64 fast
    sig1 = (i64) -> i64 tail
    fn0 = %g(i64) -> i64, i64 fast
    fn1 = colocated %h(i64) -> i64 tail

block0(v0: i64, v1: f32, v2: i8x16):
@12 v4, v5 = call fn0(v0), stack_map=[i64 @ ss0+8]
    v6 = func_addr.i64 fn0
    v7, v8 = call_indirect sig0, v6(v4)
    v9 = symbol_value.i64 gv0
    store.i64 little region0 v7, v9+4
@10 v10 = atomic_rmw.i64 add v9, v8
    v11 = shuffle v2, v2, 0x1f1e1d1c1b1a19181716151413121110
    v12 = fcmp uno v1, v1
    brif v12, block2(v5, v10), block1

block1 cold:
    trap user3

block2(v20: i64, v21: i64):
    v23 = stack_addr.i64 ss0+8
    v24 = iadd v20, v23
    v25 = icmp slt v24, v21
    br_table v25, block1, [block2(v20, v21), block3]

block3:
    try_call fn1(v24), sig1, block4(ret0), [ tag1: block5(exn0), default: block1 ]

block4(v30: i64):
    return v30

block5(v31: i64):
    return v31
}
";

/// Checks and builds a function from `bytes`, which refer to this many symbols.
fn check_and_build(bytes: &[u8], references: usize) -> [DecodeResult<()>; 2] {
    let references = vec![SymbolId::from_u32(7); references];
    let input = || DecodeInput {
        reader: ByteReader::new(bytes),
        references: &references,
        base: SourceLoc::new(0x100),
    };
    let mut function = ir::Function::new();
    let checked = check(ByteReader::new(bytes), references.len(), &mut CheckScratch::default());
    [checked, decode(input(), SymbolId::from_u32(0), &mut function)]
}

/// Checks that the example is refused if `alter` has altered it.
#[track_caller]
fn refused(what: &str, alter: impl FnOnce(&mut Vec<u8>)) {
    let mut bytes = EXAMPLE.to_vec();
    alter(&mut bytes);
    for result in check_and_build(&bytes, 0) {
        assert_eq!(result.unwrap_err().what, what);
    }
}

#[test]
fn each_number_is_checked() {
    assert_eq!(check_and_build(&EXAMPLE, 0), [Ok(()); 2]);
    // Operands: before the first value, at the value that is being defined, after the last.
    refused("no such value", |bytes| bytes[22] = 4);
    refused("no such value", |bytes| bytes[23] = 1);
    refused("no such value", |bytes| bytes[26] = 3);
    refused("more values than announced", |bytes| bytes[16] = 1);
    refused("not as many values as announced", |bytes| bytes[16] = 3);
    refused("not a type for this instruction", |bytes| bytes[21] = types::F32.index() as u8);
    refused("not a type", |bytes| bytes[21] = 0xff);
    refused("not an instruction", |bytes| bytes[20] = 0xff);
    refused("no such function", |bytes| bytes[24] = Opcode::Call as u8);
    refused("no such block", |bytes| bytes[24] = Opcode::Jump as u8);
    refused("no such instruction", |bytes| bytes[28] = 4);
    refused("a stack map of an instruction that is no call", |bytes| {
        bytes.splice(30..31, [1, 0, 0]);
    });
    refused("more bytes than were announced", |bytes| bytes.push(0));
    for length in 0..EXAMPLE.len() {
        let [checked, built] = check_and_build(&EXAMPLE[..length], 0);
        assert!(checked.is_err() && checked == built, "{length}: {checked:?}, {built:?}");
    }
}

#[test]
fn checking_and_building_agree() {
    let source = Arc::new(Source::new("f.clif", TEXT));
    let module = parse_unverified(source, &Target::parse("x86_64").unwrap());
    let module = module.unwrap_or_else(|faults| panic!("{}", faults[0]));
    let body = module.module().functions[0].body().unwrap();
    let references = body.references().len();
    assert_eq!(check_and_build(body.as_bytes(), references), [Ok(()); 2]);
    let (mut accepted, mut refused) = (0, 0);
    for position in 0..body.as_bytes().len() {
        for value in 0..=255 {
            let mut bytes = body.as_bytes().to_vec();
            bytes[position] = value;
            let [checked, built] = check_and_build(&bytes, references);
            assert_eq!(checked, built, "byte {position} is {value}");
            *if checked.is_ok() { &mut accepted } else { &mut refused } += 1;
        }
    }
    assert!(accepted > 1000 && refused > 10_000, "{accepted} accepted, {refused} refused");
}
