//! Programs in memory, where only the system's unwinder has their rows.

use std::any::Any;
use std::ops::Range;

use kiln::globals::GlobalTable;
use kiln::image::{Image, ImageOptions};
use kiln::ir::{Linkage, Target};
use kiln::jit::{CountedEntries, Jit, JitOptions, LinkOptions, Memory, MemoryOptions, Unit};
use kiln::{Compiler, Session, jit};

use crate::programs::Program;
use crate::truth::Functions;

/// A program that was added to a session.
pub(crate) struct InSession {
    /// The range of its code.
    pub(crate) code: Range<u64>,
    pub(crate) functions: Functions,
    calls: Vec<CallAt>,
    _owner: Box<dyn Any>,
}

/// The calls of a function after which the host is told.
const LIMIT: u64 = 2;

extern "C-unwind" fn is_told(_counter: u64) {}

impl InSession {
    pub(crate) fn new(program: &Program) -> Result<Self, String> {
        let session = Session::new(Target::host()).map_err(|error| error.to_string())?;
        let unit = session.add(&program.modules).map_err(|error| error.to_string())?;
        let functions = functions(&unit);
        let first = functions.first_key_value().ok_or("a program without functions")?;
        let last = functions.last_key_value().ok_or("a program without functions")?;
        let code = *first.0..last.1.0;
        let calls = calls(program, &|name| session.address(name))?;
        Ok(Self { code, functions, calls, _owner: Box::new(session) })
    }

    /// As [`new`](Self::new), but every exported function is replaceable, so it is called through a
    /// stub, and through an entry that counts if its convention permits. All of its memory is code
    /// that is looked at.
    pub(crate) fn replaceable(program: &Program) -> Result<Self, String> {
        let memory =
            Memory::reserve(MemoryOptions::with_size(16 << 20)).map_err(|error| error.to_string())?;
        let code = memory.code_addresses();
        let options = JitOptions { memory: Some(memory), ..JitOptions::default() };
        let jit = Jit::new(options).map_err(|error| error.to_string())?;
        let mut modules = program.modules.clone();
        for symbol in modules.iter_mut().flat_map(|module| &mut module.symbols) {
            let is_function = symbol.signature.is_some() && !symbol.name.starts_with("entry_thunk");
            if is_function && symbol.linkage == Linkage::Export {
                symbol.linkage = Linkage::Replaceable;
            }
        }
        let compiled =
            Compiler::new(Target::host()).compile(&modules).map_err(|error| format!("{error:#?}"))?;
        let options =
            LinkOptions { counted_entries: CountedEntries::new(LIMIT, is_told), ..LinkOptions::default() };
        let routines = |key: &kiln::globals::SlotKey| {
            (key.text() == "memcpy").then_some(libc::memcpy as *const () as usize)
        };
        let unit = jit.link_with(options, &compiled.artifacts, &routines);
        let functions = functions(&unit.map_err(|error| error.to_string())?);
        let calls = calls(program, &|name| jit.address(name))?;
        Ok(Self { code: code.start as u64..code.end as u64, functions, calls, _owner: Box::new(jit) })
    }

    /// Makes all calls.
    pub(crate) fn call(&mut self) {
        for (thunk, function, cells) in &mut self.calls {
            // SAFETY: an entry thunk is called with its callee, and with the cells that it needs.
            // The session lives.
            unsafe { jit::invoke(*thunk, *function, cells) };
        }
    }
}

/// A thunk, its function, and the cells of a call.
type CallAt = (*const u8, *const u8, Vec<jit::Cell>);

/// Finds the functions of the calls.
fn calls(program: &Program, address: &dyn Fn(&str) -> Option<*const u8>) -> Result<Vec<CallAt>, String> {
    let address = |name: &str| address(name).ok_or_else(|| format!("there is no {name}"));
    let calls = program.calls.iter().map(|call| {
        let cells = call.cells.iter().map(|cell| jit::Cell(*cell)).collect();
        Ok((address(&call.thunk)?, address(&call.function)?, cells))
    });
    calls.collect()
}

/// Returns the functions of a unit.
fn functions(unit: &Unit) -> Functions {
    let functions = unit.functions().map(|function| {
        let start = function.address as u64;
        (start, (start + function.size as u64, function.name.to_owned()))
    });
    functions.collect()
}

unsafe extern "C" {
    fn _Unwind_Find_FDE(pc: *const u8, bases: *mut [*const u8; 3]) -> *const u8;
}

/// Whether the unwinder finds rows for an address.
fn is_known(pc: u64) -> bool {
    let mut bases = [std::ptr::null(); 3];
    // SAFETY: any address may be asked for.
    !unsafe { _Unwind_Find_FDE(pc as *const u8, &mut bases) }.is_null()
}

/// Adds and removes a program, and binds and drops it as an image. The unwinder must know the rows
/// of each function as long as a thread may be in it, and none when the memory is free: then other
/// code may come there.
pub(crate) fn rows_come_and_go(program: &Program) -> Result<(), String> {
    let text = |error: &dyn std::fmt::Display| error.to_string();
    let session = Session::new(Target::host()).map_err(|error| text(&error))?;
    let routines =
        |key: &kiln::globals::SlotKey| (key.text() == "memcpy").then_some(libc::memcpy as *const () as usize);
    for round in 0..3 {
        let unit = session.add(&program.modules).map_err(|error| text(&error))?;
        let functions: Vec<(u64, u64)> =
            functions(&unit).into_iter().map(|(start, (end, _))| (start, end - 1)).collect();
        // A function that was given as machine code has no rows.
        let known = |when: &str, all: bool| {
            let count = functions.iter().filter(|(first, last)| is_known(*first) && is_known(*last)).count();
            let right = if all { count + 4 >= functions.len() } else { count == 0 };
            let of = functions.len();
            if right { Ok(()) } else { Err(format!("round {round}, {when}: {count} of {of} are known")) }
        };
        known("published", true)?;
        let guard = session.guard();
        session.remove(&[unit]).map_err(|error| text(&error))?;
        known("removed, but a thread may be inside", true)?;
        drop(guard);
        session.jit().collect();
        known("free", false)?;

        let compiled = Compiler::new(Target::host()).compile(&program.modules);
        let artifacts = compiled.map_err(|error| format!("{error:#?}"))?.artifacts;
        let bytes = kiln::image::write_image(&artifacts, &GlobalTable::new(), &ImageOptions::default());
        let bytes = bytes.map_err(|errors| text(&errors[0]))?;
        let image = Image::from_bytes(&bytes).map_err(|error| text(&error))?;
        let loaded = image.bind(&routines).map_err(|error| text(&error))?;
        let start = loaded.text().start as u64;
        let functions = loaded.code_tables().into_iter().flat_map(|tables| tables.functions());
        let last: Vec<u64> =
            functions.map(|found| start + u64::from(found.start() + found.len() - 1)).collect();
        let count = || last.iter().filter(|&&pc| is_known(pc)).count();
        if count() + 4 < last.len() || last.is_empty() {
            return Err(format!("of an image, {} of {} are known", count(), last.len()));
        }
        drop(loaded);
        if count() != 0 {
            return Err(format!("of an image that is gone, {} are known", count()));
        }
    }
    Ok(())
}
