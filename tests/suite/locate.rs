//! Finding a place in code by its address, in memory and in an image.

use std::sync::Arc;

use cranelift_codegen::ir::TrapCode;
use kiln::globals::{Bindings, GlobalTable};
use kiln::image::code::{self, Location};
use kiln::image::{Image, ImageInfo, ImageOptions, write_image};
use kiln::ir::{Module, Target};
use kiln::jit::{JitOptions, Memory, MemoryOptions};
use kiln::{Compiler, Session};

use crate::common::module;

fn own_memory() -> Session {
    let memory = Memory::reserve(MemoryOptions::with_size(4 << 20)).unwrap();
    sharing(&memory)
}

fn sharing(memory: &Arc<Memory>) -> Session {
    let options = JitOptions { memory: Some(memory.clone()), ..JitOptions::default() };
    Session::with_compiler(Compiler::new(Target::host()), options).unwrap()
}

/// A function that divides, with a source location for the division, and one that traps as the
/// client says; one is private, one replaceable.
fn program() -> Module {
    let text = "
        local function %helper(i32) -> i32 fast {
        block0(v0: i32):
            v1 = iconst.i32 3
        @00aa
            v2 = icmp eq v0, v1
        @00bb
            trapnz v2, user7
            return v0
        }
        function %divide(i32, i32) -> i32 system_v {
            fn0 = %helper(i32) -> i32 fast
        block0(v0: i32, v1: i32):
        @0100
            v2 = udiv v0, v1
        @0123
            v3 = call fn0(v2)
            return v3
        }
        replaceable function %often() -> i32 system_v {
        block0:
            v0 = iconst.i32 5
            return v0
        }
    ";
    module("program.clif", text)
}

/// A function and an offset in it, the source location, and the trap.
type Known = (String, Option<u32>, Option<String>);

/// All that is known about each byte of a function.
fn known(find: &dyn Fn(u64) -> Option<Known>, start: u64) -> Vec<String> {
    let places = (0..).map_while(|offset| find(start + offset));
    places.map(|(name, source, trap)| format!("{name} {source:x?} {trap:?}")).collect()
}

fn describe(place: Location<'_>) -> Known {
    let name = format!("{} {:?}+{}", place.module().unwrap(), place.name(), place.offset());
    (name, place.source(), place.trap().map(|trap| trap.to_string()))
}

#[test]
fn a_session_says_what_is_known_about_each_byte_and_its_image_says_the_same() {
    let session = own_memory();
    let unit = session.add(&[program()]).unwrap();
    let image = session.image().unwrap();
    let info = ImageInfo::parse(&image).unwrap();
    let loaded = Image::from_bytes(&image).unwrap().bind(&Bindings::new()).unwrap();
    let mut compared = 0;
    for function in unit.functions() {
        let place = session.locate(function.address).unwrap();
        assert_eq!((place.location().name(), place.module()), (function.name, Some(0)));
        assert_eq!(place.location().module_name(), Some("program.clif"));
        assert_eq!(place.location().start(), function.address as u64);
        let in_memory = |address: u64| {
            let place = session.locate(address as *const u8)?;
            Some(describe(place.location()))
        };
        let lines = known(&in_memory, function.address as u64);
        let lines = &lines[..function.size];
        let tables = info.code_tables().unwrap();
        let found = tables.functions().find(|found| found.name() == function.name).unwrap();
        let base = loaded.text().start as u64;
        let in_image = |address: u64| loaded.locate(address as *const u8).map(describe);
        assert_eq!(&known(&in_image, base + u64::from(found.start()))[..function.size], lines);
        let text = base - loaded.base() as u64;
        let in_file = |offset: u64| info.locate(offset).map(describe);
        assert_eq!(&known(&in_file, text + u64::from(found.start()))[..function.size], lines);
        compared += lines.len();
        let all = lines.join("\n");
        match function.name {
            "divide" => assert!(all.contains("Some(100) Some(\"int_divz\")") && all.contains("Some(123)")),
            "helper" => {
                assert!(all.contains("Some(bb) Some(\"user7\")"), "{all}")
            }
            _ => assert!(!all.contains("Some("), "{all}"),
        }
    }
    assert!(compared > 40, "{compared}");
}

#[test]
fn return_addresses_are_those_of_their_calls() {
    let session = own_memory();
    let unit = session.add(&[program()]).unwrap();
    let divide = unit.functions().find(|function| function.name == "divide").unwrap();
    let calls: Vec<u64> = (0..=divide.size as u64)
        .map(|offset| divide.address as u64 + offset)
        .filter(|&at| {
            session.locate_call(at as *const u8).is_some_and(|place| place.location().call().is_some())
        })
        .collect();
    let [call] = calls[..] else { panic!("one call, not {calls:x?}") };
    let place = session.locate_call(call as *const u8).unwrap();
    assert_eq!((place.location().name(), place.location().source()), ("divide", Some(0x123)));
    assert_eq!(place.location().trap(), None);
}

#[test]
fn stubs_lead_to_their_functions_and_addresses_outside_are_in_none() {
    let session = own_memory();
    let unit = session.add(&[program()]).unwrap();
    let stub = session.address("often").unwrap();
    let code = unit.functions().find(|function| function.name == "often").unwrap();
    assert_ne!(stub, code.address, "a replaceable function has a stub");
    assert!(session.locate(code.address).is_some_and(|place| !place.location().is_stub()));
    for byte in 0..8 {
        let place = session.locate(stub.wrapping_add(byte)).unwrap();
        let at = place.location();
        assert!(at.is_stub());
        assert_eq!((at.name(), at.start(), at.offset()), ("often", code.address as u64, 0));
        assert_eq!((at.source(), at.trap(), at.call().is_none()), (None, None, true));
    }
    assert!(session.locate_call(stub.wrapping_add(4)).is_none(), "no call returns to a stub");
    // The stubs that no function has yet.
    assert!(session.locate(stub.wrapping_add(8)).is_none() && session.locate(stub.wrapping_sub(1)).is_none());
    let first = unit.functions().map(|function| function.address).min().unwrap();
    let last = unit.functions().map(|function| function.address.wrapping_add(function.size)).max().unwrap();
    let memory = session.jit().memory().code_addresses();
    for outside in [std::ptr::null(), first.wrapping_sub(1), last, memory.start, memory.end] {
        assert!(session.locate(outside).is_none(), "{outside:p}");
    }
    assert!(session.locate_call(last).is_some(), "a call at the end returns to the end");
}

/// The stubs that the linker makes are known by the names of what they lead to, in memory and in an
/// image; what a replaceable function's leads to is the function.
#[test]
fn stubs_of_the_linker_are_known_by_name() {
    extern "C" fn host(value: i64) -> i64 {
        value
    }
    let text = "
        replaceable function %changes() -> i64 system_v { block0: v0 = iconst.i64 1 return v0 }
        function %calls(i64) -> i64 system_v {
            fn0 = colocated %host(i64) -> i64 system_v
            fn1 = %changes() -> i64 system_v
        block0(v0: i64):
            v1 = call fn0(v0)
            v2 = call fn1()
            v3 = iadd v1, v2
            return v3
        }";
    let session = own_memory();
    session.bind_function("host", host as extern "C" fn(i64) -> i64).unwrap();
    let unit = session.add(&[module("stubs.clif", text)]).unwrap();
    let calls = unit.functions().find(|function| function.name == "calls").unwrap();
    // The stub is after all functions of the unit.
    let end = unit.functions().map(|function| function.address.wrapping_add(function.size)).max().unwrap();
    let in_memory: Vec<_> = (0..32)
        .filter_map(|at| {
            let place = session.locate(end.wrapping_add(at))?;
            let at = place.location();
            assert!(at.is_stub() && place.module().is_none() && at.source().is_none());
            Some((at.name().to_owned(), at.offset()))
        })
        .collect();
    let expected: Vec<_> = (0..8).map(|at| ("host".to_owned(), at)).collect();
    assert_eq!(in_memory, expected, "{calls:?}");

    let compiled = Compiler::new(Target::host()).compile(&[module("stubs.clif", text)]).unwrap();
    let bytes = write_image(&compiled.artifacts, &GlobalTable::new(), &ImageOptions::default()).unwrap();
    let mut bindings = Bindings::new();
    bindings.bind_symbol("host", host as *const () as usize);
    let loaded = Image::from_bytes(&bytes).unwrap().bind(&bindings).unwrap();
    let text = loaded.text();
    let mut named = std::collections::BTreeMap::new();
    for at in text.start as usize..text.end as usize {
        if let Some(place) = loaded.locate(at as *const u8).filter(Location::is_stub) {
            assert_eq!((place.source(), place.trap(), place.call().is_none()), (None, None, true));
            named.entry(place.name()).or_insert_with(Vec::new).push(place.offset());
        }
    }
    let changes = loaded.address("changes").unwrap();
    let code = loaded.locate(changes).unwrap();
    assert!(code.is_stub() && code.start() != changes as u64 && code.module() == Some(0));
    assert_eq!(named["host"], (0..8).collect::<Vec<_>>());
    assert_eq!(named["changes"], [0; 8], "a place in its stub is the function in force");
}

#[test]
fn a_session_knows_its_own_code_only_and_forgets_it() {
    let memory = Memory::reserve(MemoryOptions::with_size(4 << 20)).unwrap();
    let (a, b) = (sharing(&memory), sharing(&memory));
    let (ours, theirs) = (a.add(&[program()]).unwrap(), b.add(&[program()]).unwrap());
    for (unit, session, other) in [(&ours, &a, &b), (&theirs, &b, &a)] {
        for function in unit.functions() {
            assert!(session.locate(function.address).is_some() && other.locate(function.address).is_none());
            assert!(memory.locate(function.address).is_some(), "the memory knows the code of all");
        }
    }
    // A place that was found stays readable, whoever removes the code.
    let address = theirs.functions().next().unwrap().address;
    let place = memory.locate(address).unwrap();
    let used = memory.usage().code.used;
    b.remove(&[theirs]).unwrap();
    assert!(memory.locate(address).is_none() && b.locate(address).is_none(), "it is forgotten at once");
    b.jit().collect();
    drop(b);
    assert_eq!(place.location().module_name(), Some("program.clif"));
    let usage = memory.usage();
    assert!(usage.code.used < used && usage.code.retired > 0 && usage.read_only.retired > 0, "{usage:?}");
    drop(place);
    let usage = memory.usage();
    assert_eq!((usage.code.retired, usage.read_only.retired), (0, 0));
    assert!(a.locate(ours.functions().next().unwrap().address).is_some());
}

#[test]
fn traps_have_the_names_that_cranelift_has_for_them() {
    for raw in 1..=u8::MAX {
        let expected = TrapCode::from_raw(raw.try_into().unwrap()).to_string();
        assert_eq!(code::TrapCode::from_raw(raw).to_string(), expected);
        assert_eq!(code::TrapCode::from_raw(raw).user().is_some(), TrapCode::user(raw).is_some());
    }
    assert_eq!(code::TrapCode::INTEGER_DIVISION_BY_ZERO.to_string(), "int_divz");
    assert_eq!(code::TrapCode::STACK_OVERFLOW.as_raw(), TrapCode::STACK_OVERFLOW.as_raw().get());
}

/// A function that calls another one of the host, which may unwind.
const CALLER: &str = "
    function %caller() system_v {
        fn0 = %host() system_v
    block0:
        call fn0()
        call fn0()
        return
    }
";

#[test]
fn images_register_their_unwind_rows_and_take_them_back() {
    extern "C-unwind" fn panics() {
        std::panic::resume_unwind(Box::new(7_i32));
    }
    /// Whether a walk over the stack goes through compiled code, to the start of the thread.
    static SEEN: std::sync::Mutex<Vec<bool>> = std::sync::Mutex::new(Vec::new());
    #[inline(never)]
    extern "C-unwind" fn walks() {
        let trace = std::backtrace::Backtrace::force_capture().to_string();
        SEEN.lock().unwrap().push(trace.contains("__rust_begin_short_backtrace"));
    }
    let target = Target::host();
    let compiled = Compiler::new(target).compile(&[module("caller", CALLER)]).unwrap();
    let bytes = write_image(&compiled.artifacts, &GlobalTable::new(), &ImageOptions::default()).unwrap();
    let bind = |host: extern "C-unwind" fn(), unwind: bool| {
        let mut bindings = Bindings::new();
        bindings.bind_symbol("host", host as usize);
        Image::from_bytes(&bytes).unwrap().unwind(unwind).bind(&bindings).unwrap()
    };
    // More than one at a time, and some are taken back while others stay.
    let first = bind(walks, true);
    for _ in 0..3 {
        let loaded = bind(panics, true);
        let caller = loaded.address("caller").unwrap();
        // SAFETY: a function of this type, whose rows let panics through.
        let caller = unsafe { std::mem::transmute::<*const u8, extern "C-unwind" fn()>(caller) };
        let panic = std::panic::catch_unwind(|| caller()).unwrap_err();
        assert_eq!(panic.downcast_ref(), Some(&7_i32));
    }
    let silent = bind(walks, false);
    for loaded in [&first, &silent] {
        // SAFETY: as above; nothing unwinds.
        let caller = unsafe {
            std::mem::transmute::<*const u8, extern "C-unwind" fn()>(loaded.address("caller").unwrap())
        };
        caller();
    }
    assert_eq!(*SEEN.lock().unwrap(), [true, true, false, false]);
}
