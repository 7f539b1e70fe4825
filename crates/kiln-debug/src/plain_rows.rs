//! Rows of code that leaves the stack as its caller left it.

use std::ops::Range;

use crate::describe::Section;
use crate::unwind::{Registration, Rows, section};

/// Rows of code that changes neither the stack pointer nor a register which its caller expects to
/// be preserved, at any instruction: stubs, and other code that only jumps on. One row says that
/// for any number of them, so stubs that are next to each other cost one registration.
///
/// Dropping it takes the registration back.
#[derive(Debug)]
pub struct PlainRows {
    registration: Option<Registration>,
    code: Range<usize>,
    section: Box<[u64]>,
}

/// The column of the return address, and the instructions that say where it is at the first
/// instruction of a function, as the ABI of each architecture has it: x86-64 on the stack, the
/// others in a register. The frame of a caller begins 160 bytes above its stack pointer on s390x.
const AT_ENTRY: (u8, &[u8]) = if cfg!(target_arch = "x86_64") {
    (16, &[0x0c, 7, 8, 0x90, 1])
} else if cfg!(target_arch = "aarch64") {
    (30, &[0x0c, 31, 0])
} else if cfg!(target_arch = "s390x") {
    (14, &[0x0c, 15, 0xa0, 1])
} else {
    (1, &[0x0c, 2, 0])
};

impl PlainRows {
    /// Makes rows for code, and tells nobody.
    pub fn new(code: Range<usize>) -> Self {
        let section = section(code.start, code.len(), AT_ENTRY);
        Self { registration: None, code, section }
    }

    /// Tells the unwinder. `region` is as [`Rows::region`](crate::unwind::Rows::region) says.
    ///
    /// # Safety
    ///
    /// The code is as this type says. Nobody else may have registered rows for it, or have code in
    /// `region`.
    pub unsafe fn register(&mut self, region: Range<usize>) {
        let rows = Rows { section: self.section.as_ptr().cast(), code: self.code.clone(), region };
        // SAFETY: `section` makes what is required, and it lives as long as the registration. The
        // caller promises the rest.
        self.registration.get_or_insert_with(|| unsafe { Registration::new(rows) });
    }

    /// Returns the rows, for [`Code::rows`](crate::Code::rows).
    pub fn section(&self) -> Section<'_> {
        let start: *const u8 = self.section.as_ptr().cast();
        // SAFETY: the bytes of the section.
        let bytes = unsafe { std::slice::from_raw_parts(start, size_of_val(&*self.section)) };
        Section { address: start.addr(), bytes }
    }
}
