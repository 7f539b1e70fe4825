//! The messages of a session name modules, what they are about, and who uses it.

use std::sync::{Arc, Mutex, Weak};

use kiln::globals::{Resolve, SlotKey, Unresolved};
use kiln::ir::{Module, Target};
use kiln::jit::JitError;
use kiln::{Compiler, Session, SessionError};

use crate::common::module;

const USER: &str = "function %user() -> i64 system_v {
        gv0 = symbol %lost_data
        fn0 = %lost(i64) -> i64 system_v
    block0:
        v0 = symbol_value.i64 gv0
        v1 = call fn0(v0)
        return v1
    }
    data %table { addr %lost_pointer }";

fn session() -> Session {
    Session::new(Target::host()).unwrap()
}

fn refused(session: &Session, modules: &[Module]) -> String {
    session.add(modules).unwrap_err().to_string()
}

#[test]
fn what_has_no_address_is_named_with_its_user() {
    assert_eq!(
        refused(&session(), &[module("first", "function %f() { block0: return }"), module("second", USER)]),
        "3 slot(s) without an address: symbol `lost_data` (used by `user` of module `second`), \
         symbol `lost` (used by `user` of module `second`), \
         symbol `lost_pointer` (used by `table` of module `second`)"
    );
    // A routine and a global have users too.
    let text = "global %lost = \"object:lost\"
        function %f(f64) -> f64 system_v { gv0 = symbol %lost
        block0(v0: f64): v1 = symbol_value.i64 gv0  v2 = load.f64 v1  v3 = fadd v0, v2  return v3 }";
    assert_eq!(
        refused(&session(), &[module("m", text)]),
        "1 slot(s) without an address: global \"object:lost\" (used by `f` of module `m`)"
    );
}

#[test]
fn a_binding_that_data_holds_is_named_with_the_data() {
    let session = session();
    session.bind_symbol("lost_pointer", 0x1000).unwrap();
    session
        .add(&[module(
            "tables",
            "data %other { addr %here } data %here { i64 1 } data %table { addr %lost_pointer }",
        )])
        .unwrap();
    let error = session.bind_symbol("lost_pointer", 0x2000).unwrap_err();
    assert_eq!(
        error.to_string(),
        "symbol `lost_pointer` cannot be bound again: `table` of module `tables` holds its address"
    );
}

/// A resolver that adds what is being added already, and keeps the message.
struct Adding {
    session: Weak<Session>,
    said: Mutex<String>,
}

impl Resolve for Adding {
    fn resolve(&self, _: &SlotKey, _: Option<&str>) -> Result<usize, Unresolved> {
        let again = module("again", "function %user() { block0: return }");
        *self.said.lock().unwrap() = refused(&self.session.upgrade().unwrap(), &[again]);
        Ok(0x1000)
    }
}

#[test]
fn a_definition_that_is_being_added_is_named_with_the_module_that_comes_late() {
    let session = Arc::new(session());
    let resolver = Arc::new(Adding { session: Arc::downgrade(&session), said: Mutex::default() });
    session.set_resolver(resolver.clone());
    session.add(&[module("first", USER)]).unwrap();
    assert_eq!(*resolver.said.lock().unwrap(), "`user` of module `again` is being added by another thread");
}

#[test]
fn a_link_names_the_modules_of_its_errors() {
    let function =
        |name: &str| module(name, "function %f() -> i64 system_v { block0: v0 = iconst.i64 1 return v0 }");
    // Artifacts that were compiled apart meet in the linker.
    let modules = [function("one"), function("two")];
    let partial = session().add_partly(&modules);
    let messages: Vec<String> = partial.failures.iter().map(ToString::to_string).collect();
    assert_eq!(
        messages,
        ["module `two`: `f` is defined by module 0 and by module 1; module 0 is one, module 1 is two"]
    );
    // Without names there are numbers.
    let artifacts: Vec<_> = modules
        .iter()
        .flat_map(|module| {
            Compiler::new(Target::host()).compile(std::slice::from_ref(module)).unwrap().artifacts
        })
        .collect();
    let error = session().add_artifacts(&artifacts).unwrap_err();
    assert_eq!(error.to_string(), "`f` is defined by module 0 and by module 1");
    assert!(matches!(&error, SessionError::Jit(JitError::Link { names, .. }) if names.is_empty()), "{error}");
    let earlier = session();
    earlier.add_artifacts(&artifacts[..1]).unwrap();
    let error = earlier.add_artifacts(&artifacts[1..]).unwrap_err();
    assert_eq!(error.to_string(), "`f` is defined by module 0 of this link and by module 0 linked before");
}

#[test]
fn a_unit_knows_the_names_of_its_modules() {
    let session = session();
    let function = |name: &str| module(name, &format!("function %f_{name}() {{ block0: return }}"));
    let unit = session.add(&[function("one"), function(""), function("three")]).unwrap();
    assert_eq!([0, 1, 2, 3].map(|module| unit.module_name(module)), ["one", "", "three", ""]);
}
