//! Clients that run in the compiler's own pool: a thread that waits for another one may be what
//! that one waits for.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use cranelift_codegen::ir::{AbiParam, Signature, types};
use cranelift_codegen::isa::CallConv;
use kiln::ir::{Module, Target};
use kiln::jit::JitOptions;
use kiln::{Compiler, Session};

use crate::{module, rounds, turn};

/// A module with enough functions that threads share the work.
fn many(first: usize) -> Module {
    let functions = (first..first + 40).map(|number| {
        let body: String = (1..20).map(|step| format!("v{step} = iadd v{}, v0\n", step - 1)).collect();
        format!("function %f{number}() -> i64 system_v {{ block0:\nv0 = iconst.i64 {number}\n{body}return v19 }}\n")
    });
    module(&functions.collect::<String>())
}

#[test]
fn tasks_of_the_pool_wait_for_each_other() {
    let _turn = turn();
    let pool = Arc::new(rayon::ThreadPoolBuilder::new().num_threads(2).build().unwrap());
    let modules: Vec<Module> = (0..4).map(|number| many(number * 40)).collect();
    for _ in 0..rounds(5).min(1000) {
        // Other threads take a part of the work, and take long for it. So this one looks for more.
        let progress = || {
            if rayon::current_thread_index() == Some(1) {
                std::thread::sleep(Duration::from_millis(1));
            }
        };
        let compiler = Compiler::new(Target::host()).pool(pool.clone()).progress(progress);
        let session = Session::with_compiler(compiler, JitOptions::default()).unwrap();
        let calls = AtomicUsize::new(0);
        let task = |task: usize| {
            session.add_once(&modules).unwrap();
            let text = format!(
                "function %g{task}() -> i64 system_v {{
                    fn0 = %f{task}() -> i64 system_v
                block0:
                    v0 = call fn0()
                    return v0
                }}"
            );
            session.add(&[module(&text)]).unwrap();
            let function = session.function(&format!("g{task}")).unwrap();
            // SAFETY: the function has this type, and nothing is removed.
            assert_eq!(unsafe { function.typed::<extern "C" fn() -> i64>() }.unwrap()(), 20 * task as i64);
            calls.fetch_add(1, Ordering::Relaxed);
        };
        pool.in_place_scope(|scope| {
            let task = &task;
            (0..32).for_each(|number| scope.spawn(move |_| task(number)));
        });
        assert_eq!(calls.load(Ordering::Relaxed), 32);
        assert_eq!(session.jit().units().len(), 33);
    }
}

#[test]
fn tasks_of_the_pool_call_a_function_that_is_compiled_on_demand() {
    let _turn = turn();
    let pool = Arc::new(rayon::ThreadPoolBuilder::new().num_threads(2).build().unwrap());
    for _ in 0..rounds(5).min(1000) {
        let progress = || {
            if rayon::current_thread_index() == Some(1) {
                std::thread::sleep(Duration::from_millis(1));
            }
        };
        let compiler = Compiler::new(Target::host()).pool(pool.clone()).progress(progress);
        let session = Session::with_compiler(compiler, JitOptions::default()).unwrap();
        let built = Arc::new(AtomicUsize::new(0));
        let builds = built.clone();
        let build = move || {
            builds.fetch_add(1, Ordering::Relaxed);
            Ok(many(0))
        };
        let mut signature = Signature::new(CallConv::SystemV);
        signature.returns.push(AbiParam::new(types::I64));
        session.add_on_demand(&[("f7", signature)], build).unwrap();
        pool.in_place_scope(|scope| {
            let session = &session;
            for _ in 0..32 {
                scope.spawn(move |_| {
                    let function = session.function("f7").unwrap();
                    // SAFETY: the function has this type, and nothing is removed.
                    assert_eq!(unsafe { function.typed::<extern "C" fn() -> i64>() }.unwrap()(), 140);
                });
            }
        });
        assert_eq!(built.load(Ordering::Relaxed), 1);
    }
}
