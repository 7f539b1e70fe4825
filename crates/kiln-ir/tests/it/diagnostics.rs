//! Errors: what is reported, at which location, and how it is shown. Each kind of error is planted
//! once.

use expect_test::{Expect, expect};
use kiln_ir::{DiagnosticKind, Target, parse};

use crate::{read, show};

#[track_caller]
fn check(text: &str, expected: Expect) {
    match read(text) {
        Ok(_) => panic!("no error was found"),
        Err(faults) => expected.assert_eq(&show(&faults)),
    }
}

#[test]
fn every_function_is_read() {
    check(
        "function %a() {
block0:
    retrun
}

function %b() {
block0:
    return
}

function %c(i32) -> i32 {
block0(v0: i32):
    v1 = iadd v0, v7 ; no v7
    return v1
}
",
        expect![[r#"
            Syntax: error: unknown opcode: 'retrun'
             --> test.clif:3:5
              |
            3 |     retrun
              |     ^^^^^^

            Syntax: error: undefined operand value v7
              --> test.clif:13:19
               |
            13 |     v1 = iadd v0, v7 ; no v7
               |                   ^^

        "#]],
    );
}

#[test]
fn syntax() {
    check(
        "function %f(i32) wrong {\nblock0(v0: i32):\n    return\n}
function %g() {\nblock0:\n    v1 = iconst.i32 $5\n    return\n}
function %h() {\nblock0:\n    v1 = iconst.i32\n    return\n}
function %i() {\nblock0:\n    return\nblock0:\n    return\n}
function %j() {\n    gv0 = vmctx\n    gv1 = nonsense\nblock0:\n    return\n}
function %k() {\nblock0:\n    return\n",
        expect![[r#"
            Syntax: error: unknown calling convention: wrong
             --> test.clif:1:18
              |
            1 | function %f(i32) wrong {
              |                  ^^^^^

            Syntax: error: invalid character `$`
             --> test.clif:7:21
              |
            7 |     v1 = iconst.i32 $5
              |                     ^

            Syntax: error: expected immediate 32-bit integer operand
              --> test.clif:13:5
               |
            13 |     return
               |     ^^^^^^

            Syntax: error: duplicate entity: block0
              --> test.clif:18:1
               |
            18 | block0:
               | ^^^^^^

            Syntax: error: unknown global value kind 'nonsense'
              --> test.clif:23:11
               |
            23 |     gv1 = nonsense
               |           ^^^^^^^^

            Syntax: error: expected block header
              --> test.clif:29:5
               |
            29 |     return
               |     ^^^^^^

        "#]],
    );
}

#[test]
fn verifier() {
    check(
        "function %f(i32, i64) -> i32 {
    fn0 = %g(i32)
block0(v0: i32, v1: i64):
@0001 v2 = iadd v0, v1
<3> @0002 v3 = load.i32 v0 ; an address has 64 bits
      call fn0(v0, v0)
      jump block2
block1(v5: i32):
      return v5
block2:
      jump block1
}

function %h() -> i32 {
    gv0 = vmctx

    ss0 = explicit_slot 8
block0:
    v0 = iconst.i32 1
    return v0, v0
}

function %i() -> i32 {
block0:
    v0 = iconst.i32 1
block1:
    return v0
}
function %j() {}
",
        expect![[r#"
            Verifier: error: arg 1 (v1) has type i64, expected i32
             --> test.clif:4:7
              |
            4 | @0001 v2 = iadd v0, v1
              |       ^^^^^^^^^^^^^^^^

            Verifier: error: debug tags present on non-call, non-sequence point instruction
             --> test.clif:5:11
              |
            5 | <3> @0002 v3 = load.i32 v0 ; an address has 64 bits
              |           ^^^^^^^^^^^^^^^^

            Verifier: error: invalid pointer width (got 32, expected 64) encountered v0
             --> test.clif:5:11
              |
            5 | <3> @0002 v3 = load.i32 v0 ; an address has 64 bits
              |           ^^^^^^^^^^^^^^^^

            Verifier: error: undeclared vmctx reference gv0
              --> test.clif:15:5
               |
            15 |     gv0 = vmctx
               |     ^^^

            Verifier: error: block does not end in a terminator instruction
              --> test.clif:24:1
               |
            24 | block0:
               | ^^^^^^

            Verifier: error: a function needs a block
              --> test.clif:29:1
               |
            29 | function %j() {}
               | ^^^^^^^^^^^

        "#]],
    );
}

#[test]
fn references_that_the_verifier_takes_for_granted() {
    check(
        "function %f(i64 vmctx) {
    gv0 = load.i64 notrap aligned gv5
block0(v0: i64):
    return
}
function %g(i64 vmctx) {
    stack_limit = gv3
block0(v0: i64):
    return
}
function %h() {
    fn0 = userextname7()
block0:
    call fn0()
    return
}
function %i() -> i64 {
    gv0 = symbol tls %x+8
block0:
    v0 = tls_value.i64 gv0
    return v0
}
function %j() -> i64 {
    gv0 = symbol %ElfGlobalOffsetTable
block0:
    v0 = symbol_value.i64 gv0
    return v0
}
",
        expect![[r#"
            Verifier: error: undefined global value gv5
             --> test.clif:2:5
              |
            2 |     gv0 = load.i64 notrap aligned gv5
              |     ^^^

            Verifier: error: undefined global value gv3
             --> test.clif:7:5
              |
            7 |     stack_limit = gv3
              |     ^^^^^^^^^^^

            Verifier: error: undefined external name
              --> test.clif:12:5
               |
            12 |     fn0 = userextname7()
               |     ^^^

            Unsupported: error: a thread-local symbol has no offset
              --> test.clif:18:5
               |
            18 |     gv0 = symbol tls %x+8
               |     ^^^

            Unsupported: error: symbols of an object format are not supported
              --> test.clif:24:5
               |
            24 |     gv0 = symbol %ElfGlobalOffsetTable
               |     ^^^

        "#]],
    );
}

#[test]
fn numbers_that_would_take_all_memory() {
    check(
        "function %a() {\nblock4000000000:\n    return\n}
function %b() {\n    fn2000000 = %x()\nblock0:\n    return\n}
function %c() {\n    ; v99999999 and 0x99999999\n    region0 = 1 \"v99999999\"\nblock0:\n    v99999999 = iconst.i32 1\n    return\n}
",
        expect![[r#"
            Unsupported: error: entity numbers go up to 66452 in a function of this size
             --> test.clif:2:1
              |
            2 | block4000000000:
              | ^^^^^^^^^^^^^^^

            Unsupported: error: entity numbers go up to 66452 in a function of this size
             --> test.clif:6:5
              |
            6 |     fn2000000 = %x()
              |     ^^^^^^^^^

            Unsupported: error: entity numbers go up to 66452 in a function of this size
              --> test.clif:14:5
               |
            14 |     v99999999 = iconst.i32 1
               |     ^^^^^^^^^

        "#]],
    );
}

#[test]
fn a_panic_of_the_reader_is_a_diagnostic() {
    check(
        "function %f() {\n    gv0 = dyn_scale_target_const.i32\nblock0:\n    return\n}
function %after() {\nblock0:\n    return 1\n}\n",
        expect![[r#"
            Syntax: error: Cranelift's reader fails on this function: expected vector type
             --> test.clif:1:1
              |
            1 | function %f() {
              | ^^^^^^^^^^^

            Syntax: error: expected block header
             --> test.clif:8:5
              |
            8 |     return 1
              |     ^^^^^^^^

        "#]],
    );
}

#[test]
fn names_must_not_be_empty() {
    check(
        "function %() {\n    fn0 = %f()\n    fn1 = %()\n    fn9 = %()\nblock0:\n    call fn1()\n    return\n}
data % { }\ndata %d { addr % }\n",
        expect![[r#"
            Syntax: error: a function needs a name
             --> test.clif:1:1
              |
            1 | function %() {
              | ^^^^^^^^^^

            Syntax: error: a symbol needs a name
             --> test.clif:3:5
              |
            3 |     fn1 = %()
              |     ^^^

            Syntax: error: expected a word after `%`
             --> test.clif:9:6
              |
            9 | data % { }
              |      ^

            Syntax: error: expected a word after `%`
              --> test.clif:10:16
               |
            10 | data %d { addr % }
               |                ^

        "#]],
    );
}

#[test]
fn every_one_of_thousands() {
    let functions = "function %f() {}\n".repeat(3000);
    assert_eq!(read(&functions).unwrap_err().len(), 3000);
    assert_eq!(read(&"function %f()\n".repeat(3000)).unwrap_err().len(), 1);
    assert_eq!(read(&"global %x = \"x\"\n".repeat(3000)).unwrap_err().len(), 2999);
    assert_eq!(read(&"data ?\n".repeat(3000)).unwrap_err().len(), 3000);
}

#[test]
fn a_byte_order_mark() {
    check(
        "\u{feff}function %f() {\nblock0:\n    retrun\n}\n",
        expect![[r#"
        Syntax: error: unknown opcode: 'retrun'
         --> test.clif:3:5
          |
        3 |     retrun
          |     ^^^^^^

    "#]],
    );
}

#[test]
fn duplicates() {
    check(
        "function %f() {\nblock0:\n    return\n}
data %d { i8 1 }
function u0:7() {\nblock0:\n    return\n}
global %d = \"d\"
  function %f() {\nblock0:\n    return\n}
function u0:007() {\nblock0:\n    return\n}
",
        expect![[r#"
            Duplicate: error: `%d` is defined twice
              --> test.clif:10:8
               |
            10 | global %d = "d"
               |        ^^
               |
              ::: test.clif:5:6
               |
             5 | data %d { i8 1 }
               |      -- first defined here

            Duplicate: error: `%f` is defined twice
              --> test.clif:11:3
               |
            11 |   function %f() {
               |   ^^^^^^^^^^^
               |
              ::: test.clif:1:1
               |
             1 | function %f() {
               | ----------- first defined here

            Duplicate: error: `u0:7` is defined twice
              --> test.clif:15:1
               |
            15 | function u0:007() {
               | ^^^^^^^^^^^^^^^
               |
              ::: test.clif:6:1
               |
             6 | function u0:7() {
               | ------------- first defined here

        "#]],
    );
}

#[test]
fn import_and_definition_disagree() {
    check(
        "function %f() {
    fn0 = %g(i32) ; wrong here
    fn1 = %d()
    fn2 = %x()
block0:
    v0 = iconst.i32 1
    call fn0(v0)
    call fn1()
    call fn2()
    return
}
function %g(i64) {
block0(v0: i64):
    return
}
data %d { i8 1 }
global %x = \"x\"
",
        expect![[r#"
            Signature: error: `%g` is declared as (i32) system_v, but defined as (i64) system_v
              --> test.clif:2:11
               |
             2 |     fn0 = %g(i32) ; wrong here
               |           ^^
               |
              ::: test.clif:12:1
               |
            12 | function %g(i64) {
               | ----------- defined here

            Kind: error: `%d` is declared as a function, but defined as data
              --> test.clif:3:11
               |
             3 |     fn1 = %d()
               |           ^^
               |
              ::: test.clif:16:6
               |
            16 | data %d { i8 1 }
               |      -- defined here

            Kind: error: `%x` is declared as a function, but defined as a global
              --> test.clif:4:11
               |
             4 |     fn2 = %x()
               |           ^^
               |
              ::: test.clif:17:8
               |
            17 | global %x = "x"
               |        -- defined here

        "#]],
    );
}

#[test]
fn settings() {
    check(
        "test compile\nset opt_level=speed no_such=3\ntarget x86_64 has_avx2\n\nfunction %f() {\nblock0:\n    retrun\n}\n",
        expect![[r#"
            Setting: error: setting `no_such=3`: no such setting
             --> test.clif:2:21
              |
            2 | set opt_level=speed no_such=3
              |                     ^^^^^^^^^

            Syntax: error: unknown opcode: 'retrun'
             --> test.clif:7:5
              |
            7 |     retrun
              |     ^^^^^^

        "#]],
    );
    check(
        "target x86_64 has_nothing\n",
        expect![[r#"
        Setting: error: setting `has_nothing`: no such setting
         --> test.clif:1:15
          |
        1 | target x86_64 has_nothing
          |               ^^^^^^^^^^^

    "#]],
    );
    check(
        "set opt_level=fast ; comment\n",
        expect![[r#"
        Setting: error: setting `opt_level=fast`: not a value it can have: any among none, speed, speed_and_size
         --> test.clif:1:5
          |
        1 | set opt_level=fast ; comment
          |     ^^^^^^^^^^^^^^

    "#]],
    );
    check(
        "target\n",
        expect![[r#"
        Syntax: error: expected a target
         --> test.clif:1:1
          |
        1 | target
          | ^^^^^^

    "#]],
    );
    check(
        "target x86_46\n",
        expect![[r#"
        Setting: error: `x86_46` is not a target
         --> test.clif:1:8
          |
        1 | target x86_46
          |        ^^^^^^

    "#]],
    );
    check(
        "target aarch64\nthis is not read",
        expect![[r#"
        OtherTarget: error: the module is for aarch64, not for x86_64-unknown-linux-gnu
         --> test.clif:1:1
          |
        1 | target aarch64
          | ^^^^^^^^^^^^^^

    "#]],
    );
    check(
        "function %f() {\nblock0:\n    return\n}\nset opt_level=speed\n",
        expect![[r#"
        Syntax: error: a `set` line must stand before functions, data and globals
         --> test.clif:5:1
          |
        5 | set opt_level=speed
          | ^^^

    "#]],
    );
}

#[test]
fn a_setting_of_the_build_is_not_the_file_s_fault() {
    let source = std::sync::Arc::new(kiln_ir::Source::new("test.clif", ""));
    let target = Target::host().setting("no_such", "1");
    let faults = parse(source, &target).unwrap_err();
    assert_eq!(faults[0].kind, DiagnosticKind::Target);
    expect![[r#"
        Target: error: setting `no_such=1`: no such setting
        --> test.clif

    "#]]
    .assert_eq(&show(&faults));
}

#[test]
fn notation() {
    check(
        "data %d { i8 256, i8 0 }\nfunction %f() {\nblock0:\n    return\n}\nwhat is this\ndata { }\n",
        expect![[r#"
            Syntax: error: 256 is out of range: an i8 takes -2^7 to 2^8-1
             --> test.clif:1:14
              |
            1 | data %d { i8 256, i8 0 }
              |              ^^^

            Syntax: error: expected `function`, `data`, `global` or another item, found `what`
             --> test.clif:6:1
              |
            6 | what is this
              | ^^^^

            Syntax: error: expected a name (`%name` or `u1:23`), found `{`
             --> test.clif:7:6
              |
            7 | data { }
              |      ^

        "#]],
    );
    check(
        "data %d align=3 { }\ndata %e align=0x1_0000_0000 { }",
        expect![[r#"
        Syntax: error: 3 is not an alignment: a power of two up to 4096
         --> test.clif:1:15
          |
        1 | data %d align=3 { }
          |               ^

        Syntax: error: 4294967296 is not an alignment: a power of two up to 4096
         --> test.clif:2:15
          |
        2 | data %e align=0x1_0000_0000 { }
          |               ^^^^^^^^^^^^^

    "#]],
    );
    check(
        "data %d { bytes #abc }\ndata %e { bytes #xy }\ndata %f { bytes \"a\\q\" }\ndata %g { bytes \"a\\xg0\" }",
        expect![[r#"
        Syntax: error: an odd number of hexadecimal digits
         --> test.clif:1:18
          |
        1 | data %d { bytes #abc }
          |                  ^^^

        Syntax: error: `xy` is not hexadecimal
         --> test.clif:2:18
          |
        2 | data %e { bytes #xy }
          |                  ^^

        Syntax: error: unknown escape in a string
         --> test.clif:3:19
          |
        3 | data %f { bytes "a\q" }
          |                   ^^

        Syntax: error: `\x` takes two hexadecimal digits
         --> test.clif:4:19
          |
        4 | data %g { bytes "a\xg0" }
          |                   ^^

    "#]],
    );
    check(
        "data %d { bytes \"open }\ndata %e { i64 0x1_0000_0000_0000_0000 }",
        expect![[r#"
        Syntax: error: this string does not end on its line
         --> test.clif:1:17
          |
        1 | data %d { bytes "open }
          |                 ^

        Syntax: error: `0x1_0000_0000_0000_0000` is not an integer of at most 64 bits
         --> test.clif:2:15
          |
        2 | data %e { i64 0x1_0000_0000_0000_0000 }
          |               ^^^^^^^^^^^^^^^^^^^^^^^

    "#]],
    );
    check(
        "data %d { f32 1.2.3, f64 x }\ndata %e { f64 zzz }",
        expect![[r#"
        Syntax: error: `1.2.3` is not a number that f32 can hold
         --> test.clif:1:15
          |
        1 | data %d { f32 1.2.3, f64 x }
          |               ^^^^^

        Syntax: error: `zzz` is not a number that f64 can hold
         --> test.clif:2:15
          |
        2 | data %e { f64 zzz }
          |               ^^^

    "#]],
    );
    check(
        "data %d { addr 5 }\ndata %e { i8 1 i8 2 }\ndata %f { i8 1, }\nlocal global %x = \"x\"",
        expect![[r#"
            Syntax: error: expected a name (`%name` or `u1:23`), found `5`
             --> test.clif:1:16
              |
            1 | data %d { addr 5 }
              |                ^

            Syntax: error: expected `,` or `}`, found `i8`
             --> test.clif:2:16
              |
            2 | data %e { i8 1 i8 2 }
              |                ^^

            Syntax: error: expected `bytes`, `zeros`, `addr` or a type from i8 to f64, found `}`
             --> test.clif:3:17
              |
            3 | data %f { i8 1, }
              |                 ^

            Syntax: error: expected `function`, `data` or `code`, found `global`
             --> test.clif:4:7
              |
            4 | local global %x = "x"
              |       ^^^^^^

        "#]],
    );
    check(
        "data %d { zeros -1 }\ndata %e { i8 1, zeros 0x80000000 }\ndata %f { zeros 0x80000000, i8 1 }",
        expect![[r#"
            Syntax: error: -1 is out of range: zeros takes 0 to 2^40
             --> test.clif:1:17
              |
            1 | data %d { zeros -1 }
              |                 ^^

            Syntax: error: this data object has more than the 16782976 bytes that a file of this length may still have
             --> test.clif:2:17
              |
            2 | data %e { i8 1, zeros 0x80000000 }
              |                 ^^^^^^^^^^^^^^^^

            Syntax: error: the data that are not all zeros have too many bytes for a file of this length
             --> test.clif:3:29
              |
            3 | data %f { zeros 0x80000000, i8 1 }
              |                             ^^^^

        "#]],
    );
    check(
        "global %x = \"\"\nglobal %y = \"\\xff\"\nglobal %z \"z\"\ndata %d {",
        expect![[r#"
        Syntax: error: a global's key must not be empty
         --> test.clif:1:13
          |
        1 | global %x = ""
          |             ^^

        Syntax: error: a global's key must be UTF-8
         --> test.clif:2:13
          |
        2 | global %y = "\xff"
          |             ^^^^^^

        Syntax: error: expected `=` and the global's key, found `\"z`
         --> test.clif:3:11
          |
        3 | global %z "z"
          |           ^^

        Syntax: error: expected `bytes`, `zeros`, `addr` or a type from i8 to f64, found the end of the file
         --> test.clif:4:10
          |
        4 | data %d {
          |          ^

    "#]],
    );
    check(
        "data %ü { i8 'a' }\n\u{feff}function %f() {\nblock0:\n    return\n}\n",
        expect![[r#"
            Syntax: error: expected a word after `%`
             --> test.clif:1:6
              |
            1 | data %ü { i8 'a' }
              |      ^

        "#]],
    );
}

#[test]
fn what_no_form_could_hold() {
    let faults = |text: &str| show(&read(text).unwrap_err());
    assert!(
        faults("target x86_64\ntarget aarch64 =x").contains("a setting needs a name\n --> test.clif:2:16")
    );
    assert!(faults("symbol %a = \"b\\0c\"").contains("a symbol's name holds no zero byte"));
}
