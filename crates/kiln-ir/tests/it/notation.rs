//! The meaning of each form of the notation: data, globals and linkage.

use expect_test::expect;
use kiln_ir::Init;

use crate::{describe, module};

#[test]
fn layout_is_as_written() {
    let module = module(
        "data %d { i8 1, i16 0x0203, i32 -1, i64 1_000, f32 1.5, f64 -0x1.8p3, zeros 3, bytes \"a\\n\\x7f\\\"\\\\\\0\", bytes #dead_BEEF }",
    );
    let expected = expect![[r#"
        0: Export Data "d"  line 1
        data 0 align 8 line 1: 010302ffffffffe8030000000000000000c03f00000000000028c0000000610a7f225c00deadbeef
    "#]];
    expected.assert_eq(&describe(&module));
}

#[test]
fn zeros_stay_a_number() {
    let module =
        module("data %a { }\ndata %b { zeros 0x100_0000_0000 }\ndata %c { i32 0, zeros 4, bytes #00 }");
    let lengths: Vec<_> = module.data.iter().map(|data| data.init.clone()).collect();
    assert_eq!(lengths, [Init::Zeros(0), Init::Zeros(1 << 40), Init::Zeros(9)]);
}

#[test]
fn scalars_at_the_ends_of_their_ranges() {
    let module = module(
        "data %d { i8 -128, i8 255, i16 -32768, i16 65535, i64 -0x8000000000000000, i64 0xffffffffffffffff,
          f32 -Inf, f32 +NaN, f64 1e-3, f64 5 }",
    );
    let expected = expect![[r#"
        0: Export Data "d"  line 1
        data 0 align 8 line 1: 80ff0080ffff0000000000000080ffffffffffffffff000080ff0000c07ffca9f1d24d62503f0000000000001440
    "#]];
    expected.assert_eq(&describe(&module));
}

#[test]
fn everything_between_functions() {
    let module = module(
        "; a module
set opt_level=speed
target x86_64

global %host = \"runtime::table\"   ; not used by the first function
global %same = \"runtime::table\"
global %unused = \"never\"

data %table writable align=16 { ; comments anywhere
    addr %f, addr %host + 8, addr %outside - 0x10, i32 7, zeros 4,
    addr u0:1
}

local function %f() -> i64 {
    gv0 = symbol %same
    gv1 = symbol colocated %table+8
    fn0 = %extern(i64) -> i64
    fn1 = colocated u0:1()
block0:
    v0 = symbol_value.i64 gv0
    v1 = call fn0(v0)
    v2 = symbol_value.i64 gv1
    call fn1()
    return v1
}
; run: %f() == 1

hidden function u0:1() {
block0:
    return
}
preemptible data %weak { i8 1 }
hidden data u3:4 { i8 1 }
replaceable function %swapped() {
block0:
    return
}
",
    );
    let expected = expect![[r#"
        0: Local Function "f" () -> i64 system_v line 14
        1: Import Global "runtime::table"  line 6
        2: Export Data "table"  line 9
        3: Import Function "extern" (i64) -> i64 system_v line 17
        4: Hidden Function "u0:1" () system_v line 28
        5: Replaceable Function "swapped" () system_v line 34
        6: Import Data "outside"  line 10
        7: Preemptible Data "weak"  line 32
        8: Hidden Data "u3:4"  line 33
        data 2 writable align 16 line 9: 00000000000000000000000000000000000000000000000007000000000000000000000000000000, 0 at 0 + 0, 1 at 8 + 8, 6 at 16 + -16, 4 at 32 + 0
        data 7 align 8 line 32: 01
        data 8 align 8 line 33: 01
        function 0 line 14
          line 26: run: %f() == 1
        function u0:0() -> i64 system_v {
            gv0 = symbol userextname0
            gv1 = symbol colocated userextname1+8
            sig0 = (i64) -> i64 system_v
            sig1 = () system_v
            fn0 = u0:3 sig0
            fn1 = colocated u0:4 sig1

        block0:
            v0 = symbol_value.i64 gv0
            v1 = call fn0(v0)
            v2 = symbol_value.i64 gv1
            call fn1()
            return v1
        }

        function 4 line 28
        function u0:4() system_v {
        block0:
            return
        }

        function 5 line 34
        function u0:5() system_v {
        block0:
            return
        }

    "#]];
    expected.assert_eq(&describe(&module));
    assert_eq!(module.globals().collect::<Vec<_>>(), ["runtime::table"]);
}

#[test]
fn header() {
    let module = module(
        "test run\ntest interpret\nset opt_level=speed unwind_info=false ; both\nset preserve_frame_pointers\ntarget aarch64\ntarget x86_64 has_sse41 has_avx=true\nfeature \"x\"\n",
    );
    let shown = |list: &[kiln_ir::Setting]| {
        list.iter().map(|setting| format!("{setting} line {}", setting.line)).collect::<Vec<_>>()
    };
    assert_eq!(
        shown(&module.settings.shared),
        ["opt_level=speed line 3", "unwind_info=false line 3", "preserve_frame_pointers line 4"]
    );
    assert_eq!(module.settings.targets.len(), 2);
    assert_eq!(shown(&module.settings.targets[1].settings), ["has_sse41 line 6", "has_avx=true line 6"]);
}
