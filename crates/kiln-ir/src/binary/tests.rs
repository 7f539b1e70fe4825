//! Tests of the binary form with damaged and malicious bytes. Their checksums are corrected,
//! because otherwise the reader would stop at the checksum.

use std::sync::Arc;

use super::header::*;
use super::*;
use crate::body::Body;
use crate::{Source, Target, Unverified, parse};

/// A module with a sample of everything.
const TEXT: &str = r#"; a comment
test run
set opt_level=none
global %object = "an object"
local data %table writable align=16 section = ".table" { i64 1, addr %f + 8, addr %object }
data %zeros { zeros 1000 }
function %f(i64 vmctx, f32, i8x16) -> i64, i32 fast {
    ss0 = explicit_slot 16, align = 8
    region0 = 5 "heap"
    gv0 = vmctx
    gv1 = load.i64 notrap aligned readonly region0 gv0+8
    gv2 = symbol colocated %table
    gv3 = symbol %object
    sig0 = (i64) -> i64 fast
    fn0 = %g(i64) -> i64 fast
    fn1 = colocated %local(i64) -> i64 fast
    const0 = 0x0102030405060708090a0b0c0d0e0f10
    stack_limit = gv1

block0(v0: i64, v1: f32, v2: i8x16): ; here
    v3 = iconst.i64 -5
@12 v4 = call fn0(v3)
@10 v5 = func_addr.i64 fn1
    v6 = call_indirect sig0, v5(v4)
    v7 = symbol_value.i64 gv2
    store.i64 little v6, v7+4
    v8 = symbol_value.i64 gv3
    v9 = atomic_rmw.i32 add v8, v90
    v10 = shuffle v2, v2, 0x1f1e1d1c1b1a19181716151413121110
    v11 = vconst.i8x16 const0
    v12 = f32const 0x1.8p3
    v13 = fcmp uno v1, v12
    brif v13, block2(v3, v6), block1

block1 cold:
    trap user3

block2(v20: i64, v21: i64):
    v22 -> v20
    br_table v9, block1, [block2(v20, v21), block3]

block3:
    v23 = stack_addr.i64 ss0+8
    v24 = iadd v22, v23
    return v24, v90
}
; run: %f() == 1
local function %local(i64) -> i64 fast {
block0(v0: i64):
    v1 = band_imm v0, 7
    return v1
}
debug %local { labels, v1 label 0 @0, v0 label 5 @0, variable 0 "masked" unsigned 8, variable 5 "x" address 8 }
lines "a.lang" directory="/src" language=2 { @10 7, @12 1000:70000 }
lines "b.lang" { @11 3:1, @80001234 4294967295:4294967295 }
lines "empty.lang" {}
"#;

fn module() -> Module {
    let text = TEXT.replace("v90", "v91").replace("v9 = atomic", "v91 = iconst.i32 1\n    v9 = atomic");
    let text = text.replace("band_imm v0, 7", "bnot v0");
    parse(Arc::new(Source::new("all.clif", text)), &Target::host()).unwrap_or_else(|faults| {
        panic!("{}", faults.iter().map(ToString::to_string).collect::<String>());
    })
}

fn one(bytes: &[u8]) -> Result<Unverified, BinaryError> {
    Modules::new(bytes).next().expect("there are bytes")
}

/// Returns the error of `bytes`, which are not a module.
fn fault(bytes: &[u8]) -> String {
    one(bytes).expect_err("it is no module").to_string()
}

#[test]
fn comes_back() {
    let module = module();
    let bytes = module.to_bytes();
    let read = one(&bytes).unwrap();
    assert_eq!(read.fingerprint(), module.fingerprint());
    let read = read.verify(&Target::host()).unwrap();
    assert_eq!(format!("{read:#?}"), format!("{:#?}", Module { source: None, ..module.clone() }));
    assert_eq!(read.to_bytes(), bytes);
}

#[test]
fn what_it_decodes_to_has_the_same_form() {
    for function in &module().functions {
        let ir = function.ir().unwrap();
        assert_eq!(Body::new(&ir).unwrap(), *function.body().unwrap());
    }
}

#[test]
fn joined_files_are_a_file() {
    let bytes = module().to_bytes();
    let three = [&bytes[..], &bytes, &bytes].concat();
    let length = bytes.len();
    let at = |number: usize| (number * length) as u64;
    let spans = |bytes: &[u8]| spans(std::io::Cursor::new(bytes));
    assert_eq!(spans(&three).unwrap(), [at(0)..at(1), at(1)..at(2), at(2)..at(3)]);
    assert!(spans(&three[..length + 70]).is_err() && spans(b"x").is_err() && spans(b"").unwrap().is_empty());
    let read: Vec<_> = Modules::new(&three[..]).map(|module| module.unwrap().module().to_bytes()).collect();
    assert_eq!(read, [&bytes[..], &bytes, &bytes]);
    let mut broken = three.clone();
    broken[bytes.len() + 100] ^= 1;
    let mut modules = Modules::new(&broken[..]);
    assert!(modules.next().unwrap().is_ok());
    let message = modules.next().unwrap().unwrap_err().to_string();
    assert_eq!(message, format!("byte {}: the checksum of the module differs", bytes.len()));
    assert!(modules.next().is_none());
    assert!(Modules::new(&[][..]).next().is_none());
}

#[test]
fn what_is_no_module_is_said_to_be_none() {
    let bytes = module().to_bytes();
    assert_eq!(fault(b"function %f() {}"), "byte 0: not a module in binary form");
    assert_eq!(fault(b"Kiln"), "byte 0: the file ends inside of a module");
    let mut other = bytes.clone();
    other[8] = 9;
    let own = format!("version 4 with Cranelift {}", cranelift_codegen::VERSION);
    assert_eq!(fault(&other), format!("byte 0: written by version 9, and this is {own}"));
    let mut other = bytes.clone();
    other[HEADER] = b'9';
    refresh(&mut other);
    assert!(fault(&other).starts_with("byte 0: written by version 4 with Cranelift 9"), "{}", fault(&other));
    let mut huge = bytes;
    huge[16..24].copy_from_slice(&u64::MAX.to_le_bytes());
    assert_eq!(fault(&huge), "byte 0: the file ends inside of a module");
}

#[test]
fn every_truncation_is_noticed() {
    let bytes = module().to_bytes();
    for end in 1..bytes.len() {
        assert!(matches!(one(&bytes[..end]), Err(BinaryError::Truncated { offset: 0 })), "{end}");
    }
}

#[test]
fn every_altered_byte_is_noticed() {
    let bytes = module().to_bytes();
    for at in 0..bytes.len() {
        let mut altered = bytes.clone();
        altered[at] ^= 0x10;
        assert!(one(&altered).is_err(), "{at}");
    }
}

/// Corrects the checksum.
fn refresh(bytes: &mut [u8]) {
    let sum = checksum(bytes);
    bytes[32..HEADER].copy_from_slice(&sum);
}

/// With a correct checksum, any bytes are read or refused, and nothing panics. A module that is
/// read is written as the same bytes again.
#[test]
fn altered_bytes_with_a_correct_checksum() {
    let bytes = module().to_bytes();
    let (mut refused, mut read) = (0, 0);
    for at in HEADER..bytes.len() {
        for change in [1, 2, 0x40, 0x80, 0xff] {
            let mut altered = bytes.clone();
            altered[at] ^= change;
            refresh(&mut altered);
            match one(&altered) {
                Err(_) => refused += 1,
                Ok(module) => {
                    read += 1;
                    assert_eq!(module.module().to_bytes(), altered, "byte {at} changed by {change:#x}");
                    let _ = module.verify(&Target::host());
                }
            }
        }
    }
    // Both happen often: most bytes of a module are numbers, many of which are still valid when
    // they are changed.
    assert!(refused > 500 && read > 500, "{refused} refused, {read} read");
}

#[test]
fn faults_of_functions_are_named() {
    let text = "function %f() -> i32 {\nblock0:\n    v0 = iconst.i32 1\n    return v0\n}";
    let module = parse(Arc::new(Source::new("f.clif", text)), &Target::host()).unwrap();
    let mut ir = module.functions[0].ir().unwrap();
    ir.signature.returns.clear();
    let mut module = module;
    module.functions[0].code = crate::Code::Ir(Body::new(&ir).unwrap());
    module.symbols[0].signature = Some(ir.signature.clone());
    let error = one(&module.to_bytes()).unwrap().verify(&Target::host()).unwrap_err().to_string();
    assert_eq!(
        error,
        "f.clif: function `f` (line 1): inst1: arguments of return must match function signature"
    );
}

#[test]
fn data_in_a_section_of_loaders_is_refused() {
    let text = "data %first { i64 1 } local data %second section = \".table\" { i64 2 }";
    let mut module = parse(Arc::new(Source::new("d.clif", text)), &Target::host()).unwrap();
    one(&module.to_bytes()).unwrap();
    module.data[1].section = Some(".tbss".into());
    assert_eq!(
        fault(&module.to_bytes()),
        "byte 0: module `d.clif`: no data can be placed in section `.tbss`, as `second` is: it means something to loaders"
    );
    // Thread-local data is written by the program.
    module.data[1].section = Some(".tdata".into());
    assert!(fault(&module.to_bytes()).contains("section `.tdata`, as `second` is"));
    module.data[1].writable = true;
    one(&module.to_bytes()).unwrap();
}

#[test]
fn empty_lines_between_comments_are_kept() {
    let text = "; above\n\n; and below\n\nfunction %f() {\nblock0:\n    return\n}\n";
    let module = parse(Arc::new(Source::new("f.clif", text)), &Target::host()).unwrap();
    assert!(module.comments.iter().any(|comment| comment.text.is_empty()));
    let read = one(&module.to_bytes()).unwrap();
    assert_eq!(read.module().comments, module.comments);
}
