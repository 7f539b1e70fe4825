//! Registers the unwind rows of an image with the unwinder of the process.

unsafe extern "C" {
    // These belong to the system's unwinder (libgcc_s or libunwind), which the Rust runtime links.
    fn __register_frame(section: *const u8);
    fn __deregister_frame(section: *const u8);
}

/// A registered `.eh_frame` section; dropping it removes the registration.
#[derive(Debug)]
pub(super) struct Registration {
    section: *const u8,
}

impl Registration {
    /// Registers the section that starts at `section`.
    ///
    /// # Safety
    ///
    /// `section` must be a well-formed `.eh_frame` section that ends with a zero length and is
    /// relocated to its address. It must stay readable until the registration is dropped.
    pub(super) unsafe fn new(section: *const u8) -> Self {
        // SAFETY: the caller promises that it is a section as the unwinder requires it.
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

// SAFETY: the unwinder's registry belongs to the process, not to a thread.
unsafe impl Send for Registration {}
// SAFETY: as above, and a shared registration does nothing.
unsafe impl Sync for Registration {}
