//! Runs a program instruction by instruction on this machine, if it is x86-64: the trap flag raises
//! a signal after each instruction. In the signal's handler, rows are compared with the truth, and
//! so is what the system's own unwinder finds.

use std::ops::Range;

use object::{Object as _, ObjectSection as _, ObjectSymbol as _, SymbolKind};

use crate::truth::Functions;

/// Returns the range of the code of an image that is loaded at `bias`, and its functions.
pub(crate) fn functions(image: &[u8], bias: u64) -> Result<(Range<u64>, Functions), String> {
    let file = object::File::parse(image).map_err(|error| error.to_string())?;
    let text = file.section_by_name(".text").ok_or("no section `.text`")?;
    let range = text.address() + bias..text.address() + text.size() + bias;
    let functions = file.symbols().filter(|symbol| symbol.kind() == SymbolKind::Text && symbol.size() > 0);
    let functions = functions.map(|symbol| {
        let start = symbol.address() + bias;
        (start, (start + symbol.size(), symbol.name().unwrap_or("?").to_owned()))
    });
    Ok((range, functions.collect()))
}

/// Returns the first address of a function.
pub(crate) fn address(functions: &Functions, name: &str) -> Result<u64, String> {
    let function = functions.iter().find(|(_, (_, other))| other == name);
    function.map(|(&start, _)| start).ok_or_else(|| format!("the image has no {name}"))
}

/// Runs all calls of programs, and compares at every instruction.
#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
pub(crate) use host::{check, check_call};

#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
mod host {
    use std::ffi::{CStr, CString, c_int, c_void};
    use std::sync::Mutex;
    use std::sync::atomic::{AtomicBool, AtomicPtr, Ordering};

    use super::{address, functions};
    use crate::programs::Program;
    use crate::rows::{Registers, Rows, X86_64, eh_frame};
    use crate::truth::{Checker, Functions, State, Where};

    /// The most frames that are compared.
    const FRAMES: usize = 64;
    /// The registers that a function preserves, by DWARF number, as in [`X86_64`].
    const PRESERVED: [u16; 6] = [3, 6, 12, 13, 14, 15];
    /// The places of the registers of DWARF numbers 0 to 15 in the kernel's `gregs`.
    const GREGS: [i32; 16] = [
        libc::REG_RAX,
        libc::REG_RDX,
        libc::REG_RCX,
        libc::REG_RBX,
        libc::REG_RSI,
        libc::REG_RDI,
        libc::REG_RBP,
        libc::REG_RSP,
        libc::REG_R8,
        libc::REG_R9,
        libc::REG_R10,
        libc::REG_R11,
        libc::REG_R12,
        libc::REG_R13,
        libc::REG_R14,
        libc::REG_R15,
    ];
    /// The DWARF number of the first vector register.
    const XMM0: usize = 17;
    /// The flag that makes the processor raise a signal after the next instruction.
    const TRAP_FLAG: i64 = 0x100;

    unsafe extern "C" {
        // The system's unwinder, which the Rust runtime links.
        fn _Unwind_Backtrace(
            trace: extern "C" fn(*mut c_void, *mut c_void) -> c_int,
            argument: *mut c_void,
        ) -> c_int;
        fn _Unwind_GetIP(context: *mut c_void) -> usize;
        fn _Unwind_GetCFA(context: *mut c_void) -> usize;
        fn _Unwind_GetGR(context: *mut c_void, register: c_int) -> usize;
    }

    /// A frame as the system's unwinder finds it.
    #[derive(Clone, Copy, Default)]
    struct Found {
        ip: u64,
        /// The CFA of the frame that this one called.
        cfa: u64,
        preserved: [u64; 6],
    }

    /// The frames of the system's unwinder, from the innermost of compiled code on.
    struct Trace {
        pc: u64,
        frames: [Found; FRAMES],
        count: usize,
    }

    extern "C" fn collect(context: *mut c_void, trace: *mut c_void) -> c_int {
        // SAFETY: the unwinder passes on the pointer to the trace that `trap` made, and a context
        // that is valid during this call.
        unsafe {
            let trace = &mut *trace.cast::<Trace>();
            let ip = _Unwind_GetIP(context) as u64;
            if trace.count == 0 && ip != trace.pc || trace.count == FRAMES {
                return 0;
            }
            let preserved = PRESERVED.map(|register| _Unwind_GetGR(context, register.into()) as u64);
            trace.frames[trace.count] = Found { ip, cfa: _Unwind_GetCFA(context) as u64, preserved };
            trace.count += 1;
        }
        0
    }

    struct Memory;

    impl State for Memory {
        fn read(&mut self, address: u64) -> Result<u64, String> {
            let mut word = 0u64;
            let here = libc::iovec { iov_base: (&raw mut word).cast(), iov_len: 8 };
            let there = libc::iovec { iov_base: address as *mut c_void, iov_len: 8 };
            // SAFETY: the kernel checks `there`, and `here` is the word. Rows that are wrong may
            // lead anywhere.
            let read = unsafe { libc::process_vm_readv(libc::getpid(), &here, 1, &there, 1, 0) };
            if read == 8 { Ok(word) } else { Err(format!("no memory at {address:#x}")) }
        }

        fn float(&mut self, register: u16) -> Result<u64, String> {
            Err(format!("no rows for register {register} are expected"))
        }
    }

    /// The checker that the signal's handler uses.
    static CHECKER: AtomicPtr<Checker> = AtomicPtr::new(std::ptr::null_mut());
    /// Whether instructions are to be followed.
    static STEPPING: AtomicBool = AtomicBool::new(false);

    extern "C" fn trap(_: c_int, _: *mut libc::siginfo_t, context: *mut c_void) {
        // SAFETY: the kernel passes the interrupted context to a handler with `SA_SIGINFO`.
        let context = unsafe { &mut (*context.cast::<libc::ucontext_t>()).uc_mcontext };
        let registers = &mut context.gregs;
        if !STEPPING.load(Ordering::Relaxed) {
            registers[libc::REG_EFL as usize] &= !TRAP_FLAG;
            return;
        }
        registers[libc::REG_EFL as usize] |= TRAP_FLAG;
        let pc = registers[libc::REG_RIP as usize] as u64;
        // SAFETY: `follow` keeps the checker alive while it is here, and touches it only while
        // nothing is followed. The handler does not interrupt itself.
        let Some(checker) = (unsafe { CHECKER.load(Ordering::Relaxed).as_mut() }) else { return };
        if !checker.is_of_interest(pc) {
            return;
        }
        let mut values: Registers = [None; 128];
        for (value, register) in values.iter_mut().zip(GREGS) {
            *value = Some(registers[register as usize] as u64);
        }
        // SAFETY: the kernel saves the floating-point state where this points.
        if let Some(state) = unsafe { context.fpregs.as_ref() } {
            for (value, vector) in values[XMM0..].iter_mut().zip(&state._xmm) {
                *value = Some(u64::from(vector.element[0]) | u64::from(vector.element[1]) << 32);
            }
        }
        if checker.step(pc, &values, &mut Memory) == Where::Compiled {
            compare(checker, pc);
        }
    }

    /// Compares what the system's unwinder finds with the truth.
    fn compare(checker: &mut Checker, pc: u64) {
        let mut trace = Trace { pc, frames: [Found::default(); FRAMES], count: 0 };
        // SAFETY: `collect` is given the trace, which outlives the call.
        unsafe { _Unwind_Backtrace(collect, (&raw mut trace).cast()) };
        let found = &trace.frames[..trace.count];
        let mut fault = None;
        for (level, frame) in checker.frames.iter().rev().enumerate() {
            let Some(caller) = found.get(level + 1) else {
                fault = Some(format!("the system's unwinder finds {} frames", found.len()));
                break;
            };
            let want = (frame.return_address, frame.cfa.unwrap_or_default());
            if (caller.ip, caller.cfa) != want {
                fault = Some(format!(
                    "the system's unwinder finds {:x?}, not {want:x?}",
                    (caller.ip, caller.cfa)
                ));
                break;
            }
            let preserved = PRESERVED.iter().zip(caller.preserved);
            let wrong = frame.preserved.iter().find(|(register, value)| {
                let mut found = preserved.clone();
                !found.any(|(other, found)| other == register && found == *value)
            });
            if let Some((register, value)) = wrong {
                fault =
                    Some(format!("the system's unwinder does not find {value:#x} in register {register}"));
                break;
            }
        }
        if let Some(fault) = fault {
            checker.fault(pc, &fault);
        }
    }

    /// Calls `call` instruction by instruction.
    fn follow(checker: &mut Checker, call: impl FnOnce()) {
        CHECKER.store(checker, Ordering::Relaxed);
        STEPPING.store(true, Ordering::Relaxed);
        // SAFETY: the signal has a handler, which sets the trap flag.
        unsafe { libc::raise(libc::SIGTRAP) };
        call();
        STEPPING.store(false, Ordering::Relaxed);
        // At the latest, this instruction's signal clears the trap flag.
        std::hint::black_box(&STEPPING);
        CHECKER.store(std::ptr::null_mut(), Ordering::Relaxed);
    }

    /// One program is followed at a time.
    static ONE: Mutex<()> = Mutex::new(());

    /// Runs all calls of `program`, as an image that the C library loads.
    pub(crate) fn check(program: &Program) -> Result<Checker, String> {
        let _one = ONE.lock();
        install();
        let folder = tempfile::tempdir().map_err(|error| error.to_string())?;
        let path = folder.path().join("program.so");
        kiln::image::save(&path, &program.image).map_err(|error| error.to_string())?;
        let path = CString::new(path.to_string_lossy().as_bytes()).map_err(|error| error.to_string())?;
        // SAFETY: the image is a library that nothing else loads.
        let library = unsafe { libc::dlopen(path.as_ptr(), libc::RTLD_NOW) };
        if library.is_null() {
            // SAFETY: `dlerror` returns the text of the error that just happened.
            return Err(unsafe { CStr::from_ptr(libc::dlerror()) }.to_string_lossy().into_owned());
        }
        let symbol = |name: &str| {
            let name = CString::new(name).map_err(|error| error.to_string())?;
            // SAFETY: the library is open.
            let address = unsafe { libc::dlsym(library, name.as_ptr()) };
            if address.is_null() { Err(format!("the image has no {name:?}")) } else { Ok(address) }
        };
        let mut objects: Vec<Vec<u128>> =
            program.globals.iter().map(|bytes| vec![0; bytes.len() / 16 + 1]).collect();
        if !objects.is_empty() {
            let slots = symbol("kiln_slots")?.cast::<*mut u128>();
            for (index, object) in objects.iter_mut().enumerate() {
                // SAFETY: the image has a slot for each object.
                unsafe { slots.add(index).write(object.as_mut_ptr()) };
            }
        }
        let first = program.calls.first().ok_or("a program without calls")?;
        let address_of_first = symbol(&first.thunk)? as u64;
        let (_, at_zero) = functions(&program.image, 0)?;
        let bias = address_of_first - address(&at_zero, &first.thunk)?;
        let (section_address, section) = eh_frame(&program.image)?;
        let rows = Rows::new(section, section_address, bias, X86_64.endian)?;
        let (range, functions) = functions(&program.image, bias)?;
        let mut checker = Checker::new(&X86_64, bias, Some(rows), range, functions, &program.tails);
        for call in &program.calls {
            let (thunk, function) = (symbol(&call.thunk)?, symbol(&call.function)?);
            let mut cells = call.cells.clone();
            // SAFETY: an entry thunk has this type, and the cells that its callee's type needs.
            follow(&mut checker, || unsafe {
                let thunk: extern "C" fn(*mut c_void, *mut [u8; 16]) = std::mem::transmute(thunk);
                thunk(function, cells.as_mut_ptr());
            });
        }
        // SAFETY: none of its code runs any more.
        unsafe { libc::dlclose(library) };
        Ok(checker)
    }

    /// Calls `call` while the code in `range` is followed, of which only the system's unwinder has
    /// rows.
    pub(crate) fn check_call(
        range: std::ops::Range<u64>,
        functions: Functions,
        call: impl FnOnce(),
    ) -> Checker {
        let _one = ONE.lock();
        install();
        let mut checker = Checker::new(&X86_64, 0, None, range, functions, &[]);
        follow(&mut checker, call);
        checker
    }

    fn install() {
        // SAFETY: the handler has the type that `SA_SIGINFO` requires.
        unsafe {
            let mut action: libc::sigaction = std::mem::zeroed();
            action.sa_sigaction = trap as *const () as usize;
            action.sa_flags = libc::SA_SIGINFO;
            libc::sigaction(libc::SIGTRAP, &action, std::ptr::null_mut());
        }
    }
}
