//! Units of a session: handles, removal, replacement, guards, and images of what is left.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use kiln::globals::{Bindings, SlotKey};
use kiln::image::Image;
use kiln::ir::{Module, Target};
use kiln::jit::{JitOptions, Memory, MemoryOptions, RebindError, Unit};
use kiln::{Compiler, Lazy, Session, SessionError};

use crate::common::module;

type Get = extern "C" fn() -> i64;

/// A function `name` that returns `value`.
fn constant(linkage: &str, name: &str, value: i64) -> Module {
    let text = format!(
        "{linkage} function %{name}() -> i64 system_v {{ block0: v0 = iconst.i64 {value} return v0 }}"
    );
    module(name, &text)
}

/// A function `name` that returns one more than `callee`.
fn caller(name: &str, callee: &str) -> Module {
    let text = format!(
        "function %{name}() -> i64 system_v {{
            fn0 = %{callee}() -> i64 system_v
        block0:
            v0 = call fn0()
            v1 = iconst.i64 1
            v2 = iadd v0, v1
            return v2
        }}"
    );
    module(name, &text)
}

fn session() -> Session {
    Session::new(Target::host()).unwrap()
}

/// A session with memory of its own.
fn own_memory() -> Session {
    let memory = Memory::reserve(MemoryOptions::with_size(1 << 20)).unwrap();
    let options = JitOptions { memory: Some(memory), ..JitOptions::default() };
    Session::with_compiler(Compiler::new(Target::host()), options).unwrap()
}

fn call(session: &Session, name: &str) -> i64 {
    let function = session.function(name).unwrap_or_else(|| panic!("no `{name}`"));
    // SAFETY: the IR above is sound, and nothing is removed meanwhile.
    unsafe { function.typed::<Get>() }.unwrap()()
}

/// Calls a function of the session's image.
fn call_image(session: &Session, name: &str) -> i64 {
    let image = Image::from_bytes(&session.image().unwrap()).unwrap();
    let loaded = image.bind(&Bindings::new()).unwrap();
    // SAFETY: as above.
    unsafe { loaded.function(name).unwrap().typed::<Get>() }.unwrap()()
}

/// The number of bytes that are used or retired.
fn in_use(session: &Session) -> (usize, usize) {
    let usage = session.jit().memory().usage();
    let regions = [usage.code, usage.read_only, usage.data];
    (regions.iter().map(|region| region.used).sum(), regions.iter().map(|region| region.retired).sum())
}

#[test]
fn a_unit_is_removed_and_its_name_and_memory_are_free() {
    let session = own_memory();
    let empty = in_use(&session);
    for value in 0..100 {
        let unit = session.add(&[constant("", "f", value)]).unwrap();
        assert_eq!(call(&session, "f"), value);
        assert_eq!(call_image(&session, "f"), value);
        session.remove(std::slice::from_ref(&unit)).unwrap();
        assert!(session.function("f").is_none());
        // A unit that is gone is ignored.
        session.remove(&[unit]).unwrap();
        assert_eq!(in_use(&session), empty);
    }
    assert!(session.artifacts().is_empty());
}

#[test]
fn what_is_in_use_is_not_removed_and_the_error_says_who_uses_it() {
    let session = session();
    let one = session.add(&[constant("", "one", 1)]).unwrap();
    let two = session.add(&[caller("two", "one")]).unwrap();
    let three = session.add(&[caller("three", "two"), caller("third", "one")]).unwrap();
    let error = session.remove(std::slice::from_ref(&one)).unwrap_err().to_string();
    assert_eq!(error, "still in use: `two` of module `two` uses `one`\n`third` of module `third` uses `one`");
    assert_eq!(call(&session, "three"), 3);
    // Together they can go; or with their users.
    assert_eq!(session.remove(&[one.clone(), two.clone()]).unwrap_err().uses.len(), 2);
    session.remove(&[three]).unwrap();
    assert_eq!(session.remove_with_users(&[one]), 2);
    assert!(session.exports().is_empty());
    assert_eq!(session.remove_with_users(&[two]), 0);
}

#[test]
fn a_guard_keeps_what_is_removed() {
    let session = own_memory();
    let empty = in_use(&session);
    let unit = session.add(&[constant("", "f", 5)]).unwrap();
    let (used, _) = in_use(&session);
    let guard = session.guard();
    // SAFETY: the guard keeps the code.
    let f = unsafe { session.function("f").unwrap().typed::<Get>() }.unwrap();
    session.remove(&[unit]).unwrap();
    let (still_used, retired) = in_use(&session);
    assert_eq!((still_used, retired), (empty.0, used - empty.0));
    assert_eq!(f(), 5);
    assert!(!session.jit().collect());
    drop(guard);
    assert!(session.jit().collect());
    assert_eq!(in_use(&session), empty);
}

#[test]
fn a_replaceable_function_is_replaced_for_all_callers() {
    let session = session();
    let first = session.add(&[constant("replaceable", "f", 1)]).unwrap();
    session.add(&[caller("g", "f")]).unwrap();
    // SAFETY: the IR is sound; the function's address stays when it is replaced.
    let f = unsafe { session.function("f").unwrap().typed::<Get>() }.unwrap();
    assert_eq!((f(), call(&session, "g")), (1, 2));

    let error = session.add(&[constant("replaceable", "f", 10)]).unwrap_err().to_string();
    assert!(error.contains("it is replaceable, so replace it instead"), "{error}");
    for value in 2..20 {
        session.replace(&[constant("replaceable", "f", value)]).unwrap();
        assert_eq!((f(), call(&session, "f"), call(&session, "g")), (value, value, value + 1));
        assert_eq!(call_image(&session, "g"), value + 1);
        // The unit of the function before went by itself.
        assert_eq!(session.jit().units().len(), 2);
    }
    assert!(!session.jit().units().contains(&first));
    let last = session.jit().unit_of("f").unwrap();
    let error = session.remove(&[last]).unwrap_err().to_string();
    assert_eq!(error, "still in use: `g` of module `g` uses `f`");
}

#[test]
fn a_set_of_functions_is_replaced_and_what_it_does_not_replace_stays() {
    let session = session();
    let both = [constant("replaceable", "f", 1), constant("replaceable", "g", 2), constant("", "h", 3)];
    let old = session.add(&both).unwrap();
    let new = session.replace(&[constant("replaceable", "f", 10), caller("i", "g")]).unwrap();
    assert_eq!(["f", "g", "h", "i"].map(|name| call(&session, name)), [10, 2, 3, 3]);
    assert_eq!(["f", "g", "h", "i"].map(|name| call_image(&session, name)), [10, 2, 3, 3]);
    assert!(session.jit().units().contains(&old));
    // Without the new unit, the old definition is in force again, as in an image without it.
    session.remove(&[new]).unwrap();
    assert_eq!(["f", "g", "h"].map(|name| call(&session, name)), [1, 2, 3]);
    assert_eq!(["f", "g", "h"].map(|name| call_image(&session, name)), [1, 2, 3]);
}

#[test]
fn functions_that_are_ready_change_when_they_are_published() {
    let session = own_memory();
    session.add(&[constant("replaceable", "f", 1), constant("replaceable", "g", 2)]).unwrap();
    let new = [constant("replaceable", "f", 10), constant("replaceable", "g", 20), constant("", "h", 30)];
    let artifacts = session.compiler().compile(&new).unwrap().artifacts;
    let used = || {
        let usage = session.jit().memory().usage();
        [usage.code, usage.read_only, usage.data].map(|region| region.used + region.retired)
    };
    let before = used();
    let ready = session.ready_to_replace(&artifacts).unwrap();
    assert_ne!(used(), before);
    // Nothing waits for a replacement: other code is linked and calls what is in force.
    let user = session.add(&[caller("user", "f")]).unwrap();
    assert_eq!(["f", "g", "user"].map(|name| call(&session, name)), [1, 2, 2]);
    assert!(session.function("h").is_none());
    drop(ready);
    session.remove(&[user]).unwrap();
    assert_eq!(["f", "g"].map(|name| call(&session, name)), [1, 2]);
    assert_eq!((used(), session.jit().units().len()), (before, 1));

    let [f, g] = ["f", "g"].map(|name| {
        let function = session.function(name).unwrap();
        // SAFETY: the IR is sound; the functions' addresses stay when they are replaced.
        unsafe { function.typed::<Get>() }.unwrap()
    });
    let ready = session.ready_to_replace(&artifacts).unwrap();
    let (unit, user) = std::thread::scope(|scope| {
        // What has no definition yet is waited for.
        let user = scope.spawn(|| session.add(&[caller("user", "h")]).unwrap());
        std::thread::sleep(std::time::Duration::from_millis(20));
        assert!(!user.is_finished());
        assert_eq!([f(), g()], [1, 2]);
        (ready.publish(), user.join().unwrap())
    });
    assert_eq!([f(), g(), call(&session, "user")], [10, 20, 31]);
    assert_eq!(session.jit().units(), [unit, user]);
    assert_eq!(["f", "g", "user"].map(|name| call_image(&session, name)), [10, 20, 31]);
}

#[test]
fn a_replacement_that_is_published_late_does_not_win() {
    let session = own_memory();
    session.add(&[constant("replaceable", "f", 1)]).unwrap();
    let artifacts = session.compiler().compile(&[constant("replaceable", "f", 2)]).unwrap().artifacts;
    let ready = session.ready_to_replace(&artifacts).unwrap();
    session.replace(&[constant("replaceable", "f", 3)]).unwrap();
    assert_eq!(call(&session, "f"), 3);
    let late = ready.publish();
    assert_eq!((call(&session, "f"), call_image(&session, "f")), (3, 3));
    assert!(late.is_freed() && session.jit().units().len() == 1);
}

#[test]
fn a_replacement_has_the_type_of_what_it_replaces() {
    let session = session();
    session.add(&[constant("replaceable", "f", 1)]).unwrap();
    let other =
        module("other", "replaceable function %f() -> i32 system_v { block0: v0 = iconst.i32 1 return v0 }");
    let error = session.replace(&[other]).unwrap_err().to_string();
    assert!(error.contains("i32") && error.contains("i64"), "{error}");
    for linkage in ["", "hidden", "preemptible"] {
        assert!(session.replace(&[constant(linkage, "f", 2)]).is_err(), "{linkage}");
    }
    assert_eq!(call(&session, "f"), 1);
}

#[test]
fn a_failed_link_gives_everything_back() {
    let session = own_memory();
    session.add(&[constant("", "one", 1)]).unwrap();
    let (before, exports) = (in_use(&session), session.exports());
    for modules in [
        vec![constant("", "two", 2), caller("three", "nowhere_at_all")],
        vec![constant("", "two", 2), constant("", "one", 2)],
        vec![constant("", "two", 2), module("large", "data %large writable { zeros 100_000_000 }")],
    ] {
        session.add(&modules).unwrap_err();
        assert_eq!((in_use(&session), session.exports()), (before, exports.clone()));
    }
    session.add(&[constant("", "two", 2)]).unwrap();
}

#[test]
fn private_and_anonymous_symbols_are_found_through_the_handle() {
    let session = session();
    let text = "local function %private() -> i64 system_v { block0: v0 = iconst.i64 7 return v0 }
        function %public() -> i64 system_v { fn0 = %private() -> i64 system_v block0: v0 = call fn0() return v0 }
        local data %object { i64 9 }
        data %pointer { addr %object }";
    let unit = session.add(&[module("m", text)]).unwrap();
    let find = |name: &str| unit.symbols().find(|symbol| symbol.name == name).unwrap();
    let private = find("private");
    assert!(private.size > 0);
    // SAFETY: the function has this type, and its unit is in memory.
    let function = unsafe { std::mem::transmute::<*const u8, Get>(private.address) };
    assert_eq!(function(), 7);
    // SAFETY: the object is 8 bytes of data.
    assert_eq!(unsafe { find("object").address.cast::<i64>().read() }, 9);
    assert_eq!(session.address("public"), Some(find("public").address));
    assert_eq!(session.address("private"), None);
}

#[test]
fn a_binding_changes_for_code_that_runs() {
    static OBJECTS: [i64; 2] = [3, 4];
    let session = session();
    session.bind_global("object", &raw const OBJECTS[0] as usize).unwrap();
    let text = r#"global %object = "object"
        function %get() -> i64 system_v {
            gv0 = symbol %object
        block0:
            v0 = symbol_value.i64 gv0
            v1 = load.i64 v0
            return v1
        }"#;
    session.add(&[module("get", text)]).unwrap();
    assert_eq!(call(&session, "get"), 3);
    session.bind_global("object", &raw const OBJECTS[1] as usize).unwrap();
    assert_eq!(call(&session, "get"), 4);
    // Data with a copy of the address prevents that.
    let copy =
        session.add(&[module("copy", "global %object = \"object\"\ndata %copy { addr %object }")]).unwrap();
    let error = session.bind_global("object", &raw const OBJECTS[0] as usize).unwrap_err();
    assert!(matches!(&error, RebindError::Copied { key, .. } if *key == SlotKey::Global("object".into())));
    assert_eq!(call(&session, "get"), 4);
    session.remove(&[copy]).unwrap();
    session.bind_global("object", &raw const OBJECTS[0] as usize).unwrap();
    assert_eq!(call(&session, "get"), 3);
}

/// Sets the flag when it is dropped.
struct Stop<'a>(&'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
fn threads_add_look_up_call_replace_and_remove_at_once() {
    const THREADS: usize = 4;
    let rounds = 30;
    let session = own_memory();
    session.add(&[constant("replaceable", "shared", 0)]).unwrap();
    let calls = AtomicUsize::new(0);
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        // Also if a worker panics.
        let _stop = Stop(&done);
        let workers: Vec<_> = (0..THREADS)
            .map(|thread| {
                let session = &session;
                scope.spawn(move || {
                    for round in 0..rounds {
                        let name = format!("f{thread}_{round}");
                        let unit = session.add(&[caller(&name, "shared")]).unwrap();
                        assert!(call(session, &name) > 0);
                        let value = (thread * 1000 + round) as i64;
                        session.replace(&[constant("replaceable", "shared", value)]).unwrap();
                        session.remove(&[unit]).unwrap();
                    }
                })
            })
            .collect();
        let (session, calls, done) = (&session, &calls, &done);
        scope.spawn(move || {
            while !done.load(Ordering::Relaxed) {
                let _guard = session.guard();
                // SAFETY: the guard keeps the code that is in force now.
                let shared = unsafe { session.function("shared").unwrap().typed::<Get>() }.unwrap();
                assert!((0..(THREADS * 1000) as i64).contains(&shared()));
                calls.fetch_add(1, Ordering::Relaxed);
            }
        });
        workers.into_iter().for_each(|worker| worker.join().unwrap());
    });
    assert!(calls.load(Ordering::Relaxed) > 0);
    assert!(session.jit().collect());
    assert_eq!(session.exports().len(), 1);
    assert_eq!(session.jit().units().len(), 1);
}

#[test]
fn one_definition_from_many_threads_is_compiled_once() {
    let session = session();
    let start = std::sync::Barrier::new(8);
    let units: Vec<Unit> = std::thread::scope(|scope| {
        let add = || {
            start.wait();
            session.add_once(&[constant("", "f", 1), caller("g", "f")]).unwrap()
        };
        let threads: Vec<_> = (0..8).map(|_| scope.spawn(add)).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    assert!(units.iter().all(|unit| *unit == units[0]));
    assert_eq!(session.stats().compiled_functions, 2);
    assert_eq!(call(&session, "g"), 2);
    // Only a part of it is an error.
    let error = session.add_once(&[constant("", "f", 1), constant("", "h", 2)]).unwrap_err();
    assert!(matches!(error, SessionError::Jit(_)), "{error}");
}

#[test]
fn a_resolver_may_use_the_session() {
    let session = Arc::new(session());
    session.add(&[constant("", "one", 1)]).unwrap();
    let weak = Arc::downgrade(&session);
    session.set_resolver(Arc::new(move |key: &SlotKey| {
        let session = weak.upgrade()?;
        let one = session.address("one")?;
        (key.text() == "from_resolver").then_some(one as usize)
    }));
    session.add(&[caller("two", "from_resolver")]).unwrap();
    assert_eq!(call(&session, "two"), 2);
    // A resolver that panics leaves the session usable.
    session.set_resolver(Arc::new(|_: &SlotKey| -> Option<usize> { panic!("the resolver's own fault") }));
    let add = || session.add(&[constant("", "three", 3), caller("four", "unknown_to_all")]);
    assert!(std::panic::catch_unwind(std::panic::AssertUnwindSafe(add)).is_err());
    session.add(&[constant("", "three", 3)]).unwrap();
    assert_eq!(call(&session, "three"), 3);
}

#[test]
fn a_lazy_module_whose_client_panics_leaves_the_session_usable() {
    let session = own_memory();
    session.add(&[constant("", "one", 1)]).unwrap();
    let (before, exports) = (in_use(&session), session.exports());
    for place in 0..3 {
        let lazy = (0..3).map(|number| {
            Lazy::without_key(format!("m{number}"), move || {
                assert!(number != place, "the client's own fault");
                Ok::<_, std::convert::Infallible>(caller(&format!("f{number}"), "one"))
            })
        });
        let add = || session.add_lazy(lazy.collect());
        assert!(std::panic::catch_unwind(std::panic::AssertUnwindSafe(add)).is_err());
        assert_eq!((in_use(&session), session.exports()), (before, exports.clone()));
    }
    session.add(&[caller("f0", "one")]).unwrap();
    assert_eq!(call(&session, "f0"), 2);
}
