//! The data of a module in memory, as the program has left it.

use std::sync::atomic::{AtomicU8, Ordering};

use kiln_artifact::record::SectionKind;

use crate::jit::Jit;
use crate::unit::Unit;

/// The bytes of a module's writable data as they are now, in the layout of its artifact.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ModuleData {
    /// The data that the artifact has bytes of.
    pub writable: Vec<u8>,
    /// The data that was zero at first.
    pub zeroed: Vec<u8>,
}

impl Jit {
    /// Reads the writable data of a module of a unit. `None` if the unit was removed, or has no
    /// such module. Other threads may write meanwhile; then some bytes are of before, and some of
    /// after.
    pub fn data(&self, unit: &Unit, module: usize) -> Option<ModuleData> {
        // What is there now stays in memory until the guard is dropped.
        let _guard = self.guard();
        let artifact = unit.artifacts().get(module)?;
        if !self.contains(unit) {
            return None;
        }
        let byte = |section, offset| {
            let address = unit.0.section_address(module, section, offset);
            // SAFETY: `contains` has found the unit after the guard was made, so the byte of its
            // data is mapped until the guard is dropped. Compiled code alone writes it.
            unsafe { AtomicU8::from_ptr(address as *mut u8) }.load(Ordering::Relaxed)
        };
        // Gaps between runs of named data have no place in memory.
        let mut writable = artifact.writable().to_vec();
        let runs = artifact.named_data().iter().filter(|run| run.section() == SectionKind::Writable);
        let runs = runs.map(|run| (run.start.get(), run.len.get()));
        for (start, len) in [(0, artifact.unnamed_len(SectionKind::Writable))].into_iter().chain(runs) {
            for offset in start..start + len {
                writable[offset as usize] = byte(SectionKind::Writable, offset);
            }
        }
        let zeroed = 0..artifact.summary().zeroed_size.get();
        let zeroed = zeroed.map(|offset| byte(SectionKind::Zeroed, offset)).collect();
        Some(ModuleData { writable, zeroed })
    }
}
