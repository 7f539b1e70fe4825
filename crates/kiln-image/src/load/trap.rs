//! Catching what the code of a loaded image raises, with `kiln-trap` (feature `trap`).

use std::ops::ControlFlow;

use kiln_trap::{
    CallInfo, CodeLookup, FunctionInfo, HandlerInfo, RegisterError, Registration, RootInfo, SourceInfo,
};

use super::places::Places;
use crate::code::lookup;

/// The registration of an image's code. Fields are dropped in order: the registration first.
#[derive(Debug)]
pub(super) struct Traps {
    _registration: Registration,
    _code: Box<ImageCode>,
}

/// Finds places in the code of an image.
#[derive(Debug)]
struct ImageCode(Places<'static>);

impl Traps {
    /// Registers the code of an image.
    ///
    /// # Safety
    ///
    /// Everything that `places` refers to must stay mapped until this is dropped.
    pub(super) unsafe fn register(places: Places<'_>) -> Result<Self, RegisterError> {
        // SAFETY: it is used only until this is dropped, as the caller promises.
        let places: Places<'static> = unsafe { std::mem::transmute(places) };
        let range = places.text.start as usize..places.text.end as usize;
        let code = Box::new(ImageCode(places));
        let pointer: *const ImageCode = &raw const *code;
        // SAFETY: the caller promises that code and tables live until this is dropped, which drops
        // the registration first. Whoever calls code of an image promises that it is sound.
        let registration = unsafe { kiln_trap::register(range, pointer) }?;
        Ok(Self { _registration: registration, _code: code })
    }
}

// SAFETY: the tables were made for this code by the linker; binding an image trusts it, and calling
// its code is `unsafe` for that reason. Reading tables locks and allocates nothing, and no bytes
// make it panic. The code is Cranelift's, and its rows are registered if it is to be unwound.
unsafe impl CodeLookup for ImageCode {
    fn function_at(&self, pc: usize, visit: &mut dyn FnMut(FunctionInfo<'_>)) {
        if let Some(location) = self.0.find(pc as u64) {
            lookup::function(&location, pc, visit);
        }
    }

    fn trap_at(&self, pc: usize) -> Option<u8> {
        lookup::trap(&self.0.find(pc as u64)?)
    }

    fn source_at(&self, pc: usize, visit: &mut dyn FnMut(SourceInfo<'_>)) {
        if let Some(location) = self.0.find(pc as u64) {
            lookup::source(&location, visit);
        }
    }

    fn call_at(&self, return_pc: usize) -> Option<CallInfo> {
        lookup::call(&self.0.find_call(return_pc as u64)?)
    }

    fn handlers_at(&self, return_pc: usize, visit: &mut dyn FnMut(HandlerInfo) -> ControlFlow<()>) {
        if let Some(location) = self.0.find_call(return_pc as u64) {
            lookup::handlers(&location, &self.0.text, visit);
        }
    }

    fn stack_map_at(&self, return_pc: usize, visit: &mut dyn FnMut(RootInfo)) -> Option<u32> {
        lookup::stack_map(&self.0.find_call(return_pc as u64)?, visit)
    }
}
