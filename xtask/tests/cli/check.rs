//! `check`: what is wrong between modules, all of it at once, without compiling.

use crate::support::{Place, adder};

const USER: &str = "function %user(i32) -> i32 {
    fn0 = %adder(i64) -> i32
    fn1 = %nowhere(i32) -> i32
block0(v0: i32):
    v1 = call fn1(v0)
    v2 = sextend.i64 v1
    v3 = call fn0(v2)
    return v3
}
";

#[test]
fn everything_is_found_together_with_both_places() {
    let twice = [("a.clif", &*adder("adder", 1)), ("b.clif", &*adder("adder", 2)), ("user.clif", USER)];
    let place = Place::new(&twice);
    place.xtask(&["check", "."]).code(1).says(&[
        "error: `%adder` is defined twice\n --> ./b.clif:1:10\n",
        "::: ./a.clif:1:10\n",
        "error: `%adder` is declared as (i64) -> i32 system_v",
        " --> ./user.clif:2:11\n",
        "error: `%nowhere` is not defined\n --> ./user.clif:3:11\n",
        "error: 3 faults found\n",
    ]);
    assert_eq!(place.names(), ["a.clif", "b.clif", "user.clif"]);
}

#[test]
fn what_the_host_provides_is_not_missing() {
    let user = USER.replace("%adder(i64)", "%host(i64)");
    let place = Place::new(&[("user.clif", &*user)]);
    place.xtask(&["check", "user.clif"]).code(1).says(&["`%host` is not defined", "error: 2 faults found\n"]);
    let out = place.xtask(&["check", "user.clif", "--provide", "host", "--provide", "nowhere"]).ok();
    assert_eq!(out, "1 module with 1 function fit together\n");
}

#[test]
fn json_has_every_place() {
    let place = Place::new(&[("user.clif", USER)]);
    let ended = place.xtask(&["check", "user.clif", "--format", "json"]).code(1);
    let document: serde_json::Value = serde_json::from_str(&ended.stdout).unwrap();
    let faults = document["faults"].as_array().unwrap();
    let lines: Vec<_> = faults.iter().map(|fault| fault["place"]["line"].as_u64().unwrap()).collect();
    assert_eq!(lines, [2, 3]);
    assert_eq!(faults[0]["kind"], "Undefined");
    assert_eq!(faults[0]["place"]["file"], "user.clif");
}
