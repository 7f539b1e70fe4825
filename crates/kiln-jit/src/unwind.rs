//! Registration of unwind rows with the process's unwinder, one section per link.
//!
//! Registering whole sections keeps the number of registrations small: unwinders search them one after the other.

unsafe extern "C" {
    // The system's unwinder (libgcc_s or libunwind), which the Rust run-time links.
    fn __register_frame(section: *const u8);
    fn __deregister_frame(section: *const u8);
}

/// A registered `.eh_frame` section; dropping it takes the registration back.
pub(crate) struct Registration {
    section: *const u8,
}

impl Registration {
    /// Registers the section that starts at `section`.
    ///
    /// # Safety
    ///
    /// `section` must be a well-formed `.eh_frame` section that ends with a zero length, relocated to where it lies, and it must
    /// stay readable until the registration is dropped.
    pub(crate) unsafe fn new(section: *const u8) -> Self {
        // SAFETY: as the caller says.
        unsafe { __register_frame(section) };
        Self { section }
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        // SAFETY: the section was registered by `new`, once, and is still readable.
        unsafe { __deregister_frame(self.section) };
    }
}
