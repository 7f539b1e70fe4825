//! Modules that are compiled when one of their functions is first called.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use cranelift_codegen::ir::{AbiParam, Signature, types};
use cranelift_codegen::isa::CallConv;
use kiln::globals::Bindings;
use kiln::image::Image;
use kiln::ir::{Module, Target};
use kiln::{OnDemand, Session, SessionError};

use crate::common::module;

type Double = extern "C" fn(i64) -> i64;
type Build = fn() -> Result<Module, Box<dyn std::error::Error + Send + Sync>>;

const TEXT: &str = "function %double(i64) -> i64 system_v { block0(v0: i64): v1 = iadd v0, v0 return v1 }
    function %fifth(i64, i64, f64, f64, i64) -> i64, f64 system_v {
    block0(v0: i64, v1: i64, v2: f64, v3: f64, v4: i64):
        return v4, v3
    }";

const USER: &str = "function %user(i64) -> i64 system_v {
        fn0 = %double(i64) -> i64 system_v
    block0(v0: i64):
        v1 = call fn0(v0)
        v2 = call fn0(v1)
        return v2
    }
    data %pointer { addr %double }";

fn signature(params: &[types::Type], returns: &[types::Type]) -> Signature {
    let mut signature = Signature::new(CallConv::SystemV);
    signature.params.extend(params.iter().copied().map(AbiParam::new));
    signature.returns.extend(returns.iter().copied().map(AbiParam::new));
    signature
}

fn functions() -> [(&'static str, Signature); 2] {
    use types::{F64, I64};
    [("double", signature(&[I64], &[I64])), ("fifth", signature(&[I64, I64, F64, F64, I64], &[I64, F64]))]
}

/// Registers the module in a new session, and counts how often it is built.
fn session() -> (Session, OnDemand, Arc<AtomicUsize>) {
    let session = Session::new(Target::host()).unwrap();
    let builds = Arc::new(AtomicUsize::new(0));
    let count = builds.clone();
    let build = move || {
        count.fetch_add(1, Ordering::Relaxed);
        Ok(module("lazy", TEXT))
    };
    let on_demand = session.add_on_demand(&functions(), build).unwrap();
    (session, on_demand, builds)
}

fn double(session: &Session, name: &str) -> Double {
    // SAFETY: the IR is sound, and nothing is removed while it is called.
    unsafe { session.function(name).unwrap().typed::<Double>() }.unwrap()
}

#[test]
fn the_first_call_compiles_and_later_calls_do_not() {
    let (session, on_demand, builds) = session();
    session.add(&[module("user", USER)]).unwrap();
    let (user, direct) = (double(&session, "user"), double(&session, "double"));
    assert_eq!((builds.load(Ordering::Relaxed), on_demand.unit()), (0, None));
    assert_eq!(user(5), 20);
    assert_eq!(builds.load(Ordering::Relaxed), 1);
    // A pointer from before is the function's address still.
    assert_eq!((direct(4), direct), (8, double(&session, "double")));
    assert_eq!((user(1), builds.load(Ordering::Relaxed)), (4, 1));
    assert!(on_demand.unit().is_some());
}

#[test]
fn a_stand_in_passes_every_argument_and_result() {
    let (session, _, _) = session();
    let text = "function %caller() -> i64, f64 system_v {
            fn0 = %fifth(i64, i64, f64, f64, i64) -> i64, f64 system_v
        block0:
            v0 = iconst.i64 7
            v1 = f64const 0x1.8p1
            v2, v3 = call fn0(v0, v0, v1, v1, v0)
            v4 = fcvt_to_sint.i64 v3
            v5 = imul v2, v4
            return v5, v3
        }
        function %product() -> i64 system_v {
            fn0 = %caller() -> i64, f64 system_v
        block0:
            v0, v1 = call fn0()
            return v0
        }";
    session.add(&[module("caller", text)]).unwrap();
    // SAFETY: as above.
    let product = unsafe { session.function("product").unwrap().typed::<extern "C" fn() -> i64>() }.unwrap();
    assert_eq!([product(), product()], [21, 21]);
}

#[test]
fn many_threads_call_first_and_one_compiles() {
    for _ in 0..20 {
        let (session, _, builds) = session();
        session.add(&[module("user", USER)]).unwrap();
        let start = std::sync::Barrier::new(4);
        let user = double(&session, "user");
        std::thread::scope(|scope| {
            for number in 0..4 {
                let start = &start;
                scope.spawn(move || {
                    start.wait();
                    assert_eq!(user(number), 4 * number);
                });
            }
        });
        assert_eq!(builds.load(Ordering::Relaxed), 1);
    }
}

#[test]
fn threads_of_a_pool_call_first() {
    let pool = rayon::ThreadPoolBuilder::new().num_threads(2).build().unwrap();
    let (session, _, builds) = session();
    let double = double(&session, "double");
    pool.scope(|scope| {
        for number in 0..8 {
            scope.spawn(move |_| assert_eq!(double(number), 2 * number));
        }
    });
    assert_eq!(builds.load(Ordering::Relaxed), 1);
}

#[test]
fn an_image_has_what_was_not_compiled_yet() {
    let (session, _, _) = session();
    session.add(&[module("user", USER)]).unwrap();
    let image = session.image().unwrap();
    let loaded = Image::from_bytes(&image).unwrap().bind(&Bindings::new()).unwrap();
    // SAFETY: as above.
    assert_eq!(unsafe { loaded.function("user").unwrap().typed::<Double>() }.unwrap()(3), 12);
}

#[test]
fn what_was_removed_is_built_again() {
    let (session, on_demand, builds) = session();
    session.add(&[module("user", USER)]).unwrap();
    let user = double(&session, "user");
    for round in 1..4 {
        assert_eq!(user(2), 8);
        assert_eq!(builds.load(Ordering::Relaxed), round);
        session.remove(&[on_demand.unit().unwrap()]).unwrap();
        assert!(on_demand.unit().is_none());
    }
    // With its stand-ins, it goes only with its users.
    assert_eq!(on_demand.remove().unwrap_err().uses.len(), 1);
    let user = session.jit().unit_of("user").unwrap();
    session.remove(&[user]).unwrap();
    on_demand.remove().unwrap();
    assert!(session.exports().is_empty());
    let empty = Image::from_bytes(&session.image().unwrap()).unwrap();
    assert!(empty.bind(&Bindings::new()).unwrap().function("double").is_none());
}

#[test]
fn errors_at_the_first_call_are_the_clients() {
    extern "C" fn rescued(x: i64) -> i64 {
        -x
    }
    let cases: [(&str, Build); 4] = [
        ("cannot build the module of `double`: no source", || Err("no source".into())),
        ("module `other` does not define the function `double`", || Ok(module("other", "data %d { i64 1 }"))),
        ("(i32) -> i32", || {
            Ok(module("type", "function %double(i32) -> i32 system_v { block0(v0: i32): return v0 }"))
        }),
        ("nowhere_at_all", || {
            Ok(module(
                "unbound",
                "function %double(i64) -> i64 system_v {
                    fn0 = %nowhere_at_all(i64) -> i64 system_v
                block0(v0: i64): v1 = call fn0(v0) return v1 }",
            ))
        }),
    ];
    for (expected, build) in cases {
        let session = Session::new(Target::host()).unwrap();
        let on_demand = session.add_on_demand(&functions()[..1], build).unwrap();
        let errors = Arc::new(std::sync::Mutex::new(Vec::new()));
        let seen = errors.clone();
        session.set_rescue(move |name: &str, error: &SessionError| {
            seen.lock().unwrap().push(format!("{name}: {error}"));
            rescued as *const () as usize
        });
        let double = double(&session, "double");
        assert_eq!([double(4), double(5)], [-4, -5]);
        let errors = errors.lock().unwrap();
        assert!(errors.len() == 2 && errors.iter().all(|error| error.contains(expected)), "{errors:?}");
        assert!(on_demand.compile().unwrap_err().to_string().contains(expected));
        assert!(session.image().is_err());
    }
}

#[test]
fn a_failed_first_call_without_a_rescue_panics_through_the_code() {
    let session = Session::new(Target::host()).unwrap();
    session.add_on_demand(&functions()[..1], || Err("no source".into())).unwrap();
    session.add(&[module("user", USER)]).unwrap();
    // SAFETY: as above; panics unwind through compiled code.
    let user = unsafe { session.function("user").unwrap().typed::<extern "C-unwind" fn(i64) -> i64>() };
    let user = user.unwrap();
    let panic = std::panic::catch_unwind(|| user(1)).unwrap_err();
    let message = panic.downcast_ref::<String>().unwrap();
    assert_eq!(
        message,
        "`double` could not be compiled when it was called: cannot build the module of `double`: no source"
    );
}

#[test]
fn names_of_stand_ins_are_defined_once() {
    let (session, _, _) = session();
    assert!(session.add(&[module("again", TEXT)]).is_err());
    assert!(session.add_on_demand(&functions(), || Ok(module("lazy", TEXT))).is_err());
    // A stand-in can be replaced by hand.
    let text = "replaceable function %double(i64) -> i64 system_v { block0(v0: i64): return v0 }";
    session.replace(&[module("by hand", text)]).unwrap();
    assert_eq!(double(&session, "double")(9), 9);
}

/// A value that a closure holds, of which is known whether it was dropped.
fn held() -> (Arc<()>, std::sync::Weak<()>) {
    let value = Arc::new(());
    let weak = Arc::downgrade(&value);
    (value, weak)
}

#[test]
fn what_is_removed_keeps_nothing_of_the_clients() {
    let session = Session::new(Target::host()).unwrap();
    let register = |value: Arc<()>| {
        let build = move || {
            let _ = &value;
            Ok(module("lazy", TEXT))
        };
        session.add_on_demand(&functions(), build).unwrap()
    };
    // Called or not, its closure is dropped with the last handle.
    for is_called in [false, true] {
        let (value, weak) = held();
        let on_demand = register(value);
        if is_called {
            assert_eq!(double(&session, "double")(4), 8);
        }
        on_demand.remove().unwrap();
        assert!(weak.upgrade().is_some());
        drop(on_demand);
        assert!(weak.upgrade().is_none(), "{is_called}");
    }
    // While a guard is held, a thread may be in a stand-in; what it has called is gone.
    let (value, weak) = held();
    let on_demand = register(value);
    let guard = session.guard();
    let stand_in = double(&session, "double");
    on_demand.remove().unwrap();
    session.set_rescue(|name: &str, error: &SessionError| {
        assert_eq!(format!("{name}: {error}"), "double: the module of `double` was removed");
        extern "C" fn instead(x: i64) -> i64 {
            -x
        }
        instead as *const () as usize
    });
    assert_eq!(stand_in(5), -5);
    drop(on_demand);
    assert!(weak.upgrade().is_some());
    drop(guard);
    assert!(session.jit().collect());
    // What is left is dropped by later registrations.
    let (value, _) = held();
    for _ in 0..4 {
        register(value.clone()).remove().unwrap();
    }
    assert!(weak.upgrade().is_none());
}

#[test]
fn an_image_does_not_compile_what_was_removed() {
    let (session, on_demand, builds) = session();
    // The client may know the unit of the stand-ins from the list of all units.
    session.remove(&session.jit().units()).unwrap();
    session.image().unwrap();
    assert_eq!((builds.load(Ordering::Relaxed), session.jit().units().len()), (0, 0));
    assert!(matches!(on_demand.compile(), Err(SessionError::Removed { .. })));
    drop(session);
}
