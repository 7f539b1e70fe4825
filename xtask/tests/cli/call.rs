//! `call`: numbers as people write them, in and out.

use serde_json::Value;

use crate::support::TestFolder;

/// An image with functions that return their argument, of each type: `i8`, `f64` and so on.
fn image() -> TestFolder {
    let same = |ty: &str| {
        let name = ty.to_owned();
        format!("function %{name}({ty}) -> {ty} system_v {{\nblock0(v0: {ty}):\n    return v0\n}}\n")
    };
    let types = ["i8", "i16", "i32", "i64", "i128", "f32", "f64", "i32x4", "f64x2", "i8x16"];
    // The default settings cannot pass an `i128`.
    let mut text = format!("set enable_llvm_abi_extensions\n{}", types.map(same).concat());
    text.push_str("function %square_area(f64) -> f64 system_v {\nblock0(v0: f64):\n    v1 = fmul v0, v0\n    return v1\n}\n");
    text.push_str(
        "function %two(i64, f32) -> i64, f32 fast {\nblock0(v0: i64, v1: f32):\n    return v0, v1\n}\n",
    );
    let dir = TestFolder::new(&[("a.clif", &*text)]);
    dir.xtask(&["build", "a.clif", "-o", "p.so"]).ok();
    dir
}

#[test]
fn numbers_are_read_and_printed_as_people_write_them() {
    let dir = image();
    assert_eq!(dir.xtask(&["call", "p.so", "square_area", "2.5"]).ok(), "6.25\n");
    for (function, argument, result) in [
        ("i8", "255", "-1"),
        ("i8", "-128", "-128"),
        ("i16", "0xffff", "-1"),
        ("i32", "-0x10", "-16"),
        ("i64", "18446744073709551615", "-1"),
        ("i64", "1_000", "1000"),
        ("i128", "-170141183460469231731687303715884105728", "-170141183460469231731687303715884105728"),
        ("f64", "3", "3.0"),
        ("f64", "-0.0", "-0.0"),
        ("f64", "1e3", "1000.0"),
        ("f64", "-1e-3", "-0.001"),
        ("f64", "inf", "inf"),
        ("f64", "-inf", "-inf"),
        ("f64", "nan", "nan"),
        ("f64", "-nan", "-nan"),
        ("f64", "0x1.8p1", "3.0"),
        ("f64", "-0x1.8p1", "-3.0"),
        ("f64", "-.5", "-0.5"),
        ("f32", "0.1", "0.1"),
        ("f32", "sNaN:0x1", "+sNaN:0x1"),
        ("i32x4", "[1 -2 0x3 4]", "[1 -2 3 4]"),
        ("f64x2", "[1.5, -0.0]", "[1.5 -0.0]"),
        ("i32x4", "0x00000004_00000003_00000002_00000001", "[1 2 3 4]"),
    ] {
        let printed = dir.xtask(&["call", "p.so", function, argument]).ok();
        assert_eq!(printed.trim_end(), result, "{function} {argument}");
        // A result is an argument too.
        assert_eq!(dir.xtask(&["call", "p.so", function, printed.trim_end()]).ok(), printed);
    }
    assert_eq!(dir.xtask(&["call", "p.so", "two", "-7", "-2.5"]).ok(), "-7, -2.5\n");
    let json = dir.xtask(&["call", "p.so", "two", "-7", "inf", "--format", "json"]).ok();
    let json: Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json["results"], serde_json::json!(["-7", "inf"]));
}

#[test]
fn numbers_that_do_not_fit_are_refused_with_the_range() {
    let dir = image();
    for (function, argument, message) in [
        ("i8", "256", "out of range for an i8: -128 to 255"),
        ("i16", "-32769", "out of range for an i16: -32768 to 65535"),
        ("i64", "2.5", "expected an i64"),
        ("f64", "2,5", "expected an f64"),
        ("f32", "1e39", "out of range for an f32"),
        ("i32x4", "[1 2 3]", "an i32x4 has 4 lanes, 3 given"),
    ] {
        let ended = dir.xtask(&["call", "p.so", function, argument]).code(1);
        assert!(ended.stderr.ends_with(&format!("`{argument}`: {message}\n")), "{}", ended.stderr);
    }
}

#[test]
fn a_misspelt_function_gets_the_nearest_names() {
    let dir = image();
    let said = |name: &str, message: &str| {
        let ended = dir.xtask(&["call", "p.so", name, "1"]).code(1);
        assert_eq!(ended.stderr, format!("error: p.so exports no function `{name}`{message}\n"));
    };
    said("sqare_area", "; did you mean `square_area`?");
    said("i23", "; did you mean `i32`?");
    said("circumference", "");
}

#[test]
fn time_is_measured_over_many_calls() {
    let dir = image();
    let args = ["call", "p.so", "square_area", "2.5", "--time", "20000"];
    let text = dir.xtask(&args).ok();
    let (result, time) = text.split_once('\n').unwrap();
    assert_eq!(result, "6.25");
    assert!(time.starts_with("20000 calls, median "), "{time}");
    let json = dir.xtask(&[&args[..], &["--format", "json"]].concat()).ok();
    let time = &serde_json::from_str::<Value>(&json).unwrap()["time"];
    let number = |key: &str| time[key].as_f64().unwrap();
    assert_eq!(number("calls"), 20000.0);
    assert!(0.0 < number("least_ns") && number("least_ns") <= number("median_ns"), "{time}");
    assert!(number("median_ns") < 1e6, "{time}");
}

#[test]
fn a_trap_says_where_it_is_and_who_called() {
    let text = "function %divide(i64, i64) -> i64 system_v {
block0(v0: i64, v1: i64):
    v2 = udiv v0, v1
    return v2
}
function %half(i64) -> i64 system_v {
    fn0 = %divide(i64, i64) -> i64 system_v
block0(v0: i64):
    v1 = call fn0(v0, v0)
    return v1
}
";
    let dir = TestFolder::new(&[("a.clif", text)]);
    dir.xtask(&["build", "a.clif", "-o", "p.so"]).ok();
    dir.xtask(&["call", "p.so", "half", "7"]).ok();
    let said = dir.xtask(&["call", "p.so", "half", "0"]).code(1).stderr;
    assert_eq!(said, "error: trapped: int_divz in `divide`\n    called in `half`\n");
    dir.xtask(&["build", "-g", "a.clif", "-o", "p.so"]).ok();
    let said = dir.xtask(&["call", "p.so", "half", "0"]).code(1).stderr;
    assert_eq!(
        said,
        "error: trapped: int_divz in `divide` at a.clif:3:5\n    called in `half` at a.clif:9:5\n"
    );
}
