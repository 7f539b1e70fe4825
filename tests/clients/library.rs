//! Links object files to a shared object and loads it, with the tools that users of object files
//! have: `cc` and `dlopen`.

use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::language::Failure;

const RTLD_NOW: c_int = 2;

unsafe extern "C" {
    fn dlopen(path: *const c_char, flags: c_int) -> *mut c_void;
    fn dlsym(handle: *mut c_void, name: *const c_char) -> *mut c_void;
    fn dlclose(handle: *mut c_void) -> c_int;
    fn dlerror() -> *const c_char;
}

/// The tool that is needed and not installed, if there is one.
pub(crate) fn missing() -> Option<&'static str> {
    let mut cc = Command::new("cc");
    let status = cc.arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status();
    if status.is_ok_and(|status| status.success()) { None } else { Some("cc") }
}

/// Links `object` and the host's functions in C to a shared object in `folder`, and loads it.
pub(crate) fn link(object: &[u8], folder: &Path) -> Result<Library, Failure> {
    let (from, to) = (folder.join("program.o"), folder.join("program.so"));
    std::fs::write(&from, object)?;
    let host = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clients/host.c");
    let mut command = Command::new("cc");
    command.args(["-shared", "-fPIC", "-Wl,-Bsymbolic", "-o"]).arg(&to).args([&from, &host]).arg("-lm");
    let output = command.output().map_err(|error| format!("cc: {error}"))?;
    if !output.status.success() {
        return Err(format!("cc: {}", String::from_utf8_lossy(&output.stderr)).into());
    }
    Library::open(&to)
}

/// A library that the dynamic linker has loaded; dropping it unloads it.
pub(crate) struct Library(*mut c_void);

impl Library {
    fn open(path: &Path) -> Result<Self, Failure> {
        let path = CString::new(path.as_os_str().as_bytes())?;
        // SAFETY: the path is a C string, and the library that `link` linked runs no code when it
        // is loaded.
        let handle = unsafe { dlopen(path.as_ptr(), RTLD_NOW) };
        if !handle.is_null() {
            return Ok(Self(handle));
        }
        // SAFETY: `dlerror` gives the reason for the failure above as a C string that lives until
        // the next call.
        let reason = unsafe { CStr::from_ptr(dlerror()) };
        Err(reason.to_string_lossy().into_owned().into())
    }

    /// The address of `name`, or null.
    pub(crate) fn symbol(&self, name: &CStr) -> *mut u8 {
        // SAFETY: the handle is open, and the name is a C string.
        unsafe { dlsym(self.0, name.as_ptr()) }.cast()
    }
}

impl Drop for Library {
    fn drop(&mut self) {
        // SAFETY: the handle came from `dlopen` and is closed once; the tests keep no address of
        // the library.
        unsafe { dlclose(self.0) };
    }
}
