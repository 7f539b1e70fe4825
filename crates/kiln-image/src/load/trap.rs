//! Catching what the code of a loaded image raises, with `kiln-trap` (feature `trap`).

use std::ops::{ControlFlow, Range};

use kiln_trap::{
    CallInfo, CodeLookup, FunctionInfo, HandlerInfo, RegisterError, Registration, RootInfo, SourceInfo,
};

use crate::code::{CodeTables, Location, lookup};

/// The registration of an image's code. Fields are dropped in order: the registration first.
#[derive(Debug)]
pub(super) struct Traps {
    _registration: Registration,
    _code: Box<ImageCode>,
}

/// Finds places in the code of an image.
#[derive(Debug)]
struct ImageCode {
    text: Range<u64>,
    tables: *const u8,
    tables_len: usize,
}

impl Traps {
    /// Registers the code at `text`, which `tables` describe.
    ///
    /// # Safety
    ///
    /// Both must stay mapped until this is dropped.
    pub(super) unsafe fn register(
        text: Range<*const u8>,
        tables: CodeTables<'_>,
    ) -> Result<Self, RegisterError> {
        let (range, bytes) = (text.start.addr()..text.end.addr(), tables.bytes());
        let code = Box::new(ImageCode {
            text: range.start as u64..range.end as u64,
            tables: bytes.as_ptr(),
            tables_len: bytes.len(),
        });
        let pointer: *const ImageCode = &raw const *code;
        // SAFETY: the caller promises that code and tables live until this is dropped, which drops
        // the registration first. Whoever calls code of an image promises that it is sound.
        let registration = unsafe { kiln_trap::register(range, pointer) }?;
        Ok(Self { _registration: registration, _code: code })
    }
}

impl ImageCode {
    fn at<'a>(&'a self, address: usize, find: Find<'a>) -> Option<Location<'a>> {
        // SAFETY: these are the tables in the mapped image, which outlives the registration.
        let bytes = unsafe { std::slice::from_raw_parts(self.tables, self.tables_len) };
        find(CodeTables::read(bytes)?, self.text.start, address as u64)
    }
}

type Find<'a> = fn(CodeTables<'a>, u64, u64) -> Option<Location<'a>>;

// SAFETY: the tables are never written.
unsafe impl Sync for ImageCode {}
// SAFETY: as above.
unsafe impl Send for ImageCode {}

// SAFETY: the tables were made for this code by the linker; binding an image trusts it, and calling
// its code is `unsafe` for that reason. Reading tables locks and allocates nothing, and no bytes
// make it panic. The code is Cranelift's, and its rows are registered if it is to be unwound.
unsafe impl CodeLookup for ImageCode {
    fn function_at(&self, pc: usize, visit: &mut dyn FnMut(FunctionInfo<'_>)) {
        if let Some(location) = self.at(pc, Location::find) {
            lookup::function(&location, visit);
        }
    }

    fn trap_at(&self, pc: usize) -> Option<u8> {
        lookup::trap(&self.at(pc, Location::find)?)
    }

    fn source_at(&self, pc: usize, visit: &mut dyn FnMut(SourceInfo<'_>)) {
        if let Some(location) = self.at(pc, Location::find) {
            lookup::source(&location, visit);
        }
    }

    fn call_at(&self, return_pc: usize) -> Option<CallInfo> {
        lookup::call(&self.at(return_pc, Location::find_call)?)
    }

    fn handlers_at(&self, return_pc: usize, visit: &mut dyn FnMut(HandlerInfo) -> ControlFlow<()>) {
        if let Some(location) = self.at(return_pc, Location::find_call) {
            lookup::handlers(&location, &self.text, visit);
        }
    }

    fn stack_map_at(&self, return_pc: usize, visit: &mut dyn FnMut(RootInfo)) -> Option<u32> {
        lookup::stack_map(&self.at(return_pc, Location::find_call)?, visit)
    }
}
