//! Traps, exceptions and roots in code of a session, and of an image that was made from the same
//! modules.

#[path = "../../crates/kiln-image/examples/collector_image/heap.rs"]
mod heap;
mod inlined;

use kiln::globals::{Bindings, GlobalTable};
use kiln::image::{FunctionPointer, Image, ImageOptions, Loaded, bind_function, write_image};
use kiln::ir::{Module, Source, Target, parse};
use kiln::jit::JitOptions;
use kiln::trap::{Backtrace, Caught, Exception, Trap, TrapCode, call, call_and_catch, throw};
use kiln::{Compiler, Session};

use self::heap::Heap;

const TEXT: &str = "
function %divide(i64, i64) -> i64 {
block0(v0: i64, v1: i64):
@0011    v2 = udiv v0, v1
    return v2
}
local function %private(i64) -> i64 {
    fn0 = %divide(i64, i64) -> i64
block0(v0: i64):
@0022    v1 = call fn0(v0, v0)
    return v1
}
function %outer(i64) -> i64 {
    fn0 = %private(i64) -> i64
block0(v0: i64):
@0033    v1 = call fn0(v0)
    return v1
}
function %load(i64) -> i64 {
block0(v0: i64):
    v1 = load.i64 v0
    return v1
}
function %unrecorded(i64) -> i64 {
block0(v0: i64):
    v1 = load.i64 notrap v0
    return v1
}
function %endless(i64) -> i64 {
    fn0 = %endless(i64) -> i64
block0(v0: i64):
    v1 = call fn0(v0)
    v2 = iadd v1, v0
    return v2
}
function %handles(i64) -> i64 {
    sig0 = (i64) -> i64 tail
    fn0 = %passes(i64) -> i64 tail
block0(v0: i64):
    try_call fn0(v0), sig0, block1(ret0), [ tag1: block2(exn0, exn1) ]
block1(v1: i64):
    return v1
block2(v2: i64, v3: i64):
    v4 = iadd v2, v3
    return v4
}
function %passes(i64) -> i64 tail {
    fn0 = %host(i64) -> i64
block0(v0: i64):
    v1 = call fn0(v0)
    return v1
}
";

type Unary = extern "C-unwind" fn(i64) -> i64;

/// Called by the code. Throws, calls back and panics, as the number says.
extern "C-unwind" fn host(value: i64) -> i64 {
    match value {
        1 | 2 => {
            // SAFETY: the handlers take any payload.
            let error = unsafe { throw(Exception { tag: value as u32, payload: [30, 12] }) };
            assert_eq!(error.to_string(), "no frame has a handler for the exception");
            -1
        }
        3 => std::panic::resume_unwind(Box::new("a panic")),
        4 => {
            let text = Backtrace::capture().to_string();
            i64::from(text.contains(": passes+0x") && text.contains(": handles+0x"))
        }
        6 => {
            let text = Backtrace::capture().to_string();
            6 * i64::from(text.contains(" at lines.clif:11:5"))
        }
        value => value,
    }
}

/// The code in memory or in an image.
enum Code {
    Memory(Session),
    Image(Box<Loaded>),
}

impl Code {
    fn function<F: FunctionPointer>(&self, name: &str) -> F {
        let found = match self {
            Self::Memory(session) => session.function(name),
            Self::Image(loaded) => loaded.function(name),
        };
        // SAFETY: the IR is sound, and the code outlives the calls.
        unsafe { found.unwrap().typed::<F>() }.unwrap()
    }
}

/// Runs `check` with the code in memory, and from an image.
fn both(text: &str, check: impl Fn(&Code)) {
    both_of(Source::new("text", text.to_owned()), check);
}

fn both_of(source: Source, check: impl Fn(&Code)) {
    let target = Target::host();
    let module = parse(source.into(), &target).unwrap();
    both_with(&Compiler::new(target), &[module], check);
}

/// Runs `check` with the code that `compiler` makes of `modules`.
fn both_with(compiler: &Compiler, modules: &[Module], check: impl Fn(&Code)) {
    let session = Session::with_compiler(compiler.clone(), JitOptions::default()).unwrap();
    session.bind_function("host", host as Unary).unwrap();
    session.bind_function("allocate", heap::allocate as extern "C" fn() -> i64).unwrap();
    session.add(modules).unwrap();
    session.catch_traps().unwrap();
    // Twice is once.
    session.catch_traps().unwrap();
    check(&Code::Memory(session));

    let artifacts = compiler.compile(modules).unwrap().artifacts;
    let bytes = write_image(&artifacts, &GlobalTable::new(), &ImageOptions::default()).unwrap();
    let mut bindings = Bindings::new();
    bind_function(&mut bindings, "host", host as Unary);
    bind_function(&mut bindings, "allocate", heap::allocate as extern "C" fn() -> i64);
    let loaded = Image::from_bytes(&bytes).unwrap().bind(&bindings).unwrap();
    loaded.catch_traps().unwrap();
    loaded.catch_traps().unwrap();
    check(&Code::Image(loaded.into()));
}

fn trap<T: std::fmt::Debug>(result: Result<T, Caught>) -> Trap {
    match result {
        Err(Caught::Trap(trap)) => *trap,
        other => panic!("no trap, but {other:?}"),
    }
}

#[test]
fn traps_are_errors_with_function_source_and_backtrace() {
    both(TEXT, |code| {
        let outer: Unary = code.function("outer");
        let load: Unary = code.function("load");
        let endless: Unary = code.function("endless");
        // SAFETY: the functions have these signatures.
        unsafe {
            assert_eq!(call(outer, (3,)).unwrap(), 1);
            let one = trap(call(outer, (0,)));
            assert_eq!(one.code(), TrapCode::INTEGER_DIVISION_BY_ZERO);
            let backtrace = one.backtrace();
            let frames: Vec<_> = backtrace.frames().iter().map(|frame| frame.code().unwrap()).collect();
            let names: Vec<_> = frames.iter().map(|frame| &*frame.function).collect();
            assert_eq!(names, ["divide", "private", "outer"]);
            let sources: Vec<_> =
                frames.iter().map(|frame| frame.source.as_ref().unwrap().location).collect();
            assert_eq!(sources, [0x11, 0x22, 0x33]);
            assert_eq!(trap(call(load, (8,))).code(), TrapCode::HEAP_OUT_OF_BOUNDS);
            let one = trap(call(endless, (1,)));
            assert_eq!(one.code(), TrapCode::STACK_OVERFLOW);
            assert!(one.backtrace().missing() > 1000);
        }
    });
}

/// Code with lines: the columns are those of the instructions.
const LINES: &str = "function %divide(i64, i64) -> i64 {
block0(v0: i64, v1: i64):
    v2 = udiv v0, v1
    return v2
}

function %outer(i64) -> i64 {
    fn0 = %divide(i64, i64) -> i64
    fn1 = %host(i64) -> i64
block0(v0: i64):
    v1 = call fn1(v0)
      v2 = call fn0(v1, v0)
    return v2
}
";

#[test]
fn traps_and_backtraces_have_lines() {
    both_of(Source::new("lines.clif", LINES).debugged("/src"), |code| {
        let outer: Unary = code.function("outer");
        // SAFETY: the function has this signature.
        let one = unsafe {
            // The host looks at its backtrace, and finds the line of the call.
            assert_eq!(call(outer, (6,)).unwrap(), 1);
            trap(call(outer, (0,)))
        };
        let text = one.to_string();
        assert!(text.starts_with("trap int_divz in divide+0x"), "{text}");
        assert!(text.ends_with(" at lines.clif:3:5"), "{text}");
        let text = one.backtrace().to_string();
        assert!(text.contains(" at lines.clif:3:5") && text.contains(" at lines.clif:12:7"), "{text}");
        let frames = one.backtrace();
        let source = frames.frames()[1].code().unwrap().source.as_ref().unwrap();
        assert_eq!((&*source.file, source.line, source.column), ("lines.clif", 12, 7));
    });
}

#[test]
fn exceptions_and_panics_go_through_code_and_host() {
    both(TEXT, |code| {
        let handles: Unary = code.function("handles");
        // SAFETY: the functions have these signatures.
        unsafe {
            assert_eq!(call(handles, (5,)).unwrap(), 5);
            assert_eq!(call(handles, (1,)).unwrap(), 42);
            assert_eq!(call(handles, (2,)).unwrap(), -1);
            match call_and_catch(handles, (2,)) {
                Err(Caught::Exception(Exception { tag: 2, payload: [30, 12] })) => {}
                other => panic!("{other:?}"),
            }
            assert_eq!(call(handles, (4,)).unwrap(), 1);
            let panic = std::panic::catch_unwind(|| call(handles, (3,)).unwrap()).unwrap_err();
            assert_eq!(panic.downcast_ref(), Some(&"a panic"));
        }
    });
}

/// The sum of the list, and the nodes of the tree, in each round.
const ROUND: i64 = 500 * 501 / 2 + 255;

/// Sizes of heaps. Each collects at other places of the program.
fn capacities() -> impl Iterator<Item = usize> {
    (900..1300).step_by(37)
}

#[test]
fn a_collector_moves_objects_under_load() {
    let text = include_str!("../../examples/collector/program.clif");
    both(text, |code| {
        let program: Unary = code.function("program");
        // SAFETY: the function has this signature.
        unsafe {
            for capacity in capacities() {
                Heap::install(capacity);
                assert_eq!(call(program, (100,)).unwrap(), 100 * ROUND);
                let Heap { collections, moved, .. } = Heap::install(0);
                assert!(collections > 25 && moved > 15_000, "{collections} collections moved {moved}");
            }
            Heap::install(600);
            // This heap is too small for the list and one tree.
            let one = trap(call(program, (1,)));
            assert_eq!((one.code().to_string(), &*one.frame().unwrap().function), ("user1".into(), "tree"));
        }
        // Other threads have heaps of their own.
        std::thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(|| {
                    Heap::install(1000);
                    // SAFETY: as above.
                    assert_eq!(unsafe { call(program, (100,)) }.unwrap(), 100 * ROUND);
                });
            }
        });
    });
}

#[test]
fn a_reference_that_the_stack_map_lacks_is_noticed() {
    let text = include_str!("../../examples/collector/program.clif");
    let whole = "v7 = call fn1(), stack_map=[i64 @ ss0+0, i64 @ ss1+0]";
    assert!(text.contains(whole));
    both(&text.replace(whole, "v7 = call fn1(), stack_map=[i64 @ ss0+0]"), |code| {
        let program: Unary = code.function("program");
        let noticed = capacities().filter(|&capacity| {
            Heap::install(capacity);
            // SAFETY: the function has this signature. The number that it finds in the old half is
            // wrong, and it traps.
            match unsafe { call(program, (3,)) } {
                Ok(result) => result != 3 * ROUND,
                Err(Caught::Trap(one)) => one.code().to_string() == "user2",
                Err(error) => panic!("{error}"),
            }
        });
        assert!(noticed.count() >= 2);
    });
}

#[test]
fn an_image_that_is_dropped_is_not_asked_any_more() {
    let module = parse(Source::new("text", TEXT.to_owned()).into(), &Target::host()).unwrap();
    let artifacts = Compiler::new(Target::host()).compile(&[module]).unwrap().artifacts;
    let bytes = write_image(&artifacts, &GlobalTable::new(), &ImageOptions::default()).unwrap();
    let mut bindings = Bindings::new();
    bind_function(&mut bindings, "host", host as Unary);
    for _ in 0..20 {
        let loaded = Image::from_bytes(&bytes).unwrap().bind(&bindings).unwrap();
        loaded.catch_traps().unwrap();
        let text = loaded.text();
        let inside = text.start.addr() + 1;
        assert!(kiln::trap::CodeFrame::at(inside).is_some());
        drop(loaded);
        assert_eq!(kiln::trap::CodeFrame::at(inside), None);
    }
}
