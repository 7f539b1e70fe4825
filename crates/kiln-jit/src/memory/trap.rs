//! Catching what code in a memory raises, with `kiln-trap` (feature `trap`).

use std::ops::{ControlFlow, Range};
use std::sync::Arc;

use kiln_image::code::lookup;
use kiln_trap::{CallInfo, CodeLookup, FunctionInfo, HandlerInfo, RegisterError, RootInfo, SourceInfo};

use super::handle::Memory;

impl Memory {
    /// Registers the code with `kiln-trap`, the first time: what is there now and what will be
    /// linked. So `kiln-trap` catches traps in it, throws exceptions to its handlers, and names its
    /// functions in backtraces.
    ///
    /// # Errors
    ///
    /// [`RegisterError`] if too many ranges are registered.
    pub fn catch_traps(self: &Arc<Self>) -> Result<(), RegisterError> {
        if self.traps.get().is_some() {
            return Ok(());
        }
        let (range, memory): (_, *const Self) = (self.addresses(), Arc::as_ptr(self));
        // SAFETY: an `Arc` does not move what it owns, and dropping the memory drops the
        // registration first. Code is in it only if it was linked, and whoever calls it promises
        // that it is sound.
        match unsafe { kiln_trap::register(range.clone(), memory) } {
            Ok(registration) => {
                // Nobody else can have registered the range.
                let _ = self.traps.set(registration);
                Ok(())
            }
            // Another thread does it.
            Err(RegisterError::Overlap { registered, .. }) if registered == range => Ok(()),
            Err(error) => Err(error),
        }
    }

    fn addresses(&self) -> Range<usize> {
        let addresses = self.code_addresses();
        addresses.start.addr()..addresses.end.addr()
    }
}

// SAFETY: the tables were made for the code by the linker, and code and tables stay while a place
// in them is looked at. Looking up locks and allocates nothing. The code is Cranelift's, and its
// unwind rows are registered unless the client of the JIT said no.
unsafe impl CodeLookup for Memory {
    fn function_at(&self, pc: usize, visit: &mut dyn FnMut(FunctionInfo<'_>)) {
        if let Some(found) = self.locate(pc as *const u8) {
            lookup::function(&found.location(), pc, visit);
        }
    }

    fn trap_at(&self, pc: usize) -> Option<u8> {
        lookup::trap(&self.locate(pc as *const u8)?.location())
    }

    fn source_at(&self, pc: usize, visit: &mut dyn FnMut(SourceInfo<'_>)) {
        if let Some(found) = self.locate(pc as *const u8) {
            lookup::source(&found.location(), visit);
        }
    }

    fn call_at(&self, return_pc: usize) -> Option<CallInfo> {
        lookup::call(&self.locate_call(return_pc as *const u8)?.location())
    }

    fn handlers_at(&self, return_pc: usize, visit: &mut dyn FnMut(HandlerInfo) -> ControlFlow<()>) {
        if let Some(found) = self.locate_call(return_pc as *const u8) {
            let addresses = self.addresses();
            let addresses = addresses.start as u64..addresses.end as u64;
            lookup::handlers(&found.location(), &addresses, visit);
        }
    }

    fn stack_map_at(&self, return_pc: usize, visit: &mut dyn FnMut(RootInfo)) -> Option<u32> {
        lookup::stack_map(&self.locate_call(return_pc as *const u8)?.location(), visit)
    }
}
