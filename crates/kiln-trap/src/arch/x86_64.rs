//! x86-64 with the System V calling convention, on Linux.
//!
//! Frames are those of Cranelift (`isa/x64/abi.rs`): every function begins with `push rbp` and
//! `mov rbp, rsp`, and no function uses `rbp` for anything else. So at each instruction behind
//! these two, `[rbp]` is the caller's frame pointer and `[rbp + 8]` the return address.

use std::arch::{asm, global_asm};

use crate::entry::{Entry, FLOAT_RESULT, FLOATS, INTS};

/// Whether code can be registered and called.
pub(crate) const SUPPORTED: bool = true;

/// DWARF's number of the frame pointer.
pub(crate) const DWARF_FP: i32 = 6;
/// Cranelift's exception edges restore these in the convention `system_v`: `rbx`, `r12` to `r15`,
/// by DWARF's numbers.
pub(crate) const DWARF_SAVED: [i32; 5] = [3, 12, 13, 14, 15];

/// Returns DWARF's number of the general purpose register with this hardware number, if a callee
/// saves it.
pub(crate) fn dwarf_of_saved(hardware: u8) -> Option<i32> {
    match hardware {
        3 | 12..=15 => Some(i32::from(hardware)),
        5 => Some(DWARF_FP),
        _ => None,
    }
}

// The thunk saves the registers that a callee would save, keeps the pointer to its `Entry`, loads
// the arguments and calls. Behind the return address it stores a floating-point result, keeps an
// integer result in `rax`, and sets `rdx` to 0. At the handler `rdx` has the outcome.
macro_rules! define_entry {
    ($enter:expr, $return:expr, $handler:expr) => {
        global_asm!(
            ".pushsection .text.kiln_trap_enter,\"ax\",@progbits",
            ".p2align 4",
            concat!(".hidden \"", $enter, "\""),
            concat!(".globl \"", $enter, "\""),
            concat!(".type \"", $enter, "\",@function"),
            concat!("\"", $enter, "\":"),
            ".cfi_startproc",
            "push rbp",
            ".cfi_def_cfa_offset 16",
            ".cfi_offset rbp, -16",
            "mov rbp, rsp",
            ".cfi_def_cfa_register rbp",
            "push rbx",
            ".cfi_offset rbx, -24",
            "push r12",
            ".cfi_offset r12, -32",
            "push r13",
            ".cfi_offset r13, -40",
            "push r14",
            ".cfi_offset r14, -48",
            "push r15",
            ".cfi_offset r15, -56",
            "push rsi",
            "mov r11, rdi",
            "mov r10, rsi",
            "test edx, edx",
            "jz 2f",
            "movsd xmm0, [r10 + {floats}]",
            "movsd xmm1, [r10 + {floats} + 8]",
            "movsd xmm2, [r10 + {floats} + 16]",
            "movsd xmm3, [r10 + {floats} + 24]",
            "movsd xmm4, [r10 + {floats} + 32]",
            "movsd xmm5, [r10 + {floats} + 40]",
            "movsd xmm6, [r10 + {floats} + 48]",
            "movsd xmm7, [r10 + {floats} + 56]",
            "2:",
            "mov rdi, [r10 + {ints}]",
            "mov rsi, [r10 + {ints} + 8]",
            "mov rdx, [r10 + {ints} + 16]",
            "mov rcx, [r10 + {ints} + 24]",
            "mov r8, [r10 + {ints} + 32]",
            "mov r9, [r10 + {ints} + 40]",
            "call r11",
            concat!(".hidden \"", $return, "\""),
            concat!(".globl \"", $return, "\""),
            concat!("\"", $return, "\":"),
            "mov rcx, [rbp - {entry}]",
            "movsd [rcx + {result}], xmm0",
            "xor edx, edx",
            concat!(".hidden \"", $handler, "\""),
            concat!(".globl \"", $handler, "\""),
            concat!("\"", $handler, "\":"),
            "lea rsp, [rbp - 40]",
            "pop r15",
            "pop r14",
            "pop r13",
            "pop r12",
            "pop rbx",
            "pop rbp",
            ".cfi_def_cfa rsp, 8",
            "ret",
            ".cfi_endproc",
            concat!(".size \"", $enter, "\", . - \"", $enter, "\""),
            ".popsection",
            floats = const FLOATS,
            ints = const INTS,
            result = const FLOAT_RESULT,
            entry = const ENTRY_OFFSET,
        );

        unsafe extern "C-unwind" {
            /// Calls `callee` with the arguments in `entry`. `floats` says whether there are
            /// floating-point arguments.
            #[link_name = $enter]
            pub(crate) fn enter(callee: *const u8, entry: *mut Entry, floats: u32) -> Returned;
            #[link_name = $return]
            static RETURN: u8;
            #[link_name = $handler]
            static HANDLER: u8;
        }
    };
}

// The names contain the version, so that two versions can be in one program.
define_entry!(
    concat!("kiln_trap_enter_", env!("CARGO_PKG_VERSION")),
    concat!("kiln_trap_return_", env!("CARGO_PKG_VERSION")),
    concat!("kiln_trap_handler_", env!("CARGO_PKG_VERSION"))
);

/// The integer result, in `rax`, and how the call ended, in `rdx`.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub(crate) struct Returned {
    pub(crate) result: u64,
    /// The outcome, see [`Outcome`](crate::entry::Outcome).
    pub(crate) outcome: u64,
}

/// Returns the payload with which the entry thunk's handler returns `outcome`.
pub(crate) fn entry_payload(outcome: u64) -> [usize; 2] {
    [0, outcome as usize]
}

/// Bytes from the thunk's frame pointer down to its stack pointer at the call, where the pointer to
/// its [`Entry`] is.
pub(crate) const ENTRY_OFFSET: usize = 48;

/// Returns the address to which the callee of the entry thunk returns.
pub(crate) fn entry_return() -> usize {
    (&raw const RETURN).addr()
}

/// Returns the address of the entry thunk's handler.
pub(crate) fn entry_handler() -> usize {
    (&raw const HANDLER).addr()
}

/// The place where execution continues.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Resume {
    pub(crate) pc: usize,
    pub(crate) sp: usize,
    pub(crate) fp: usize,
    /// In the registers that Cranelift defines: `rax` and `rdx`.
    pub(crate) payload: [usize; 2],
    /// The values of [`DWARF_SAVED`].
    pub(crate) saved: [usize; 5],
}

/// Continues at `target`.
///
/// # Safety
///
/// `target` must be a handler for a frame that is on this thread's stack, above the caller's frame.
/// The frames in between are gone then, so nothing in them may wait for being dropped.
pub(crate) unsafe fn resume(target: &Resume) -> ! {
    let Resume { pc, sp, fp, payload, saved } = target;
    // SAFETY: the caller promises that the registers fit the code at `pc`, which expects these.
    unsafe {
        asm!(
            "mov rbx, [rcx]",
            "mov r12, [rcx + 8]",
            "mov r13, [rcx + 16]",
            "mov r14, [rcx + 24]",
            "mov r15, [rcx + 32]",
            "mov rsp, rsi",
            "mov rbp, r8",
            "jmp rdi",
            in("rcx") saved.as_ptr(),
            in("rdi") *pc,
            in("rsi") *sp,
            in("r8") *fp,
            in("rax") payload[0],
            in("rdx") payload[1],
            options(noreturn),
        );
    }
}

/// The registers of code that a signal has interrupted.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Interrupted {
    pub(crate) pc: usize,
    pub(crate) sp: usize,
    pub(crate) fp: usize,
}

/// Reads the registers that a signal's context has.
///
/// # Safety
///
/// `context` must be the third argument of a signal handler.
pub(crate) unsafe fn interrupted(signal: libc::c_int, context: *const libc::c_void) -> Interrupted {
    // SAFETY: the kernel passes a context of this type.
    let registers = unsafe { &(*context.cast::<libc::ucontext_t>()).uc_mcontext.gregs };
    let register = |number: libc::c_int| registers[number as usize] as usize;
    let mut pc = register(libc::REG_RIP);
    if signal == libc::SIGTRAP {
        // The processor goes on behind `int3` before it traps; a record is for the instruction.
        pc = pc.wrapping_sub(1);
    }
    Interrupted { pc, sp: register(libc::REG_RSP), fp: register(libc::REG_RBP) }
}

/// Makes the return from the signal handler continue at `pc`, the entry thunk's handler, which
/// returns `outcome`.
///
/// # Safety
///
/// `context` must be the third argument of a signal handler, and the registers must fit the code at
/// `pc`.
pub(crate) unsafe fn continue_at(context: *mut libc::c_void, pc: usize, sp: usize, fp: usize, outcome: u64) {
    // SAFETY: the kernel passes a context of this type, and nothing else uses it.
    let registers = unsafe { &mut (*context.cast::<libc::ucontext_t>()).uc_mcontext.gregs };
    registers[libc::REG_RIP as usize] = pc as i64;
    registers[libc::REG_RSP as usize] = sp as i64;
    registers[libc::REG_RBP as usize] = fp as i64;
    registers[libc::REG_RDX as usize] = outcome as i64;
    // The thunk is called with this flag clear, and must return with it clear (psABI 3.2.1).
    const DIRECTION: i64 = 1 << 10;
    registers[libc::REG_EFL as usize] &= !DIRECTION;
}

/// Returns where the return address is, and the caller's frame pointer, at the instruction `pc` of
/// a function that starts at `start`.
///
/// # Safety
///
/// The registers must be those of code as this file describes it, on a stack that can be read.
pub(crate) unsafe fn caller(at: &Interrupted, start: usize) -> (*const usize, usize) {
    let (sp, fp) = (at.sp as *const usize, at.fp as *const usize);
    // SAFETY: before `push` the return address is at the stack pointer, after it the caller's frame
    // pointer is there. After `mov` both are at the frame pointer.
    unsafe {
        match at.pc.wrapping_sub(start) {
            0 => (sp, at.fp),
            1 => (sp.add(1), *sp),
            _ => (fp.add(1), *fp),
        }
    }
}

/// Returns the return address and the caller's frame pointer of a frame with this frame pointer.
///
/// # Safety
///
/// `fp` must be the frame pointer of compiled code that has a frame.
pub(crate) unsafe fn parent(fp: usize) -> (usize, usize) {
    let fp = fp as *const usize;
    // SAFETY: the caller promises that it is a frame, which begins with these two words.
    unsafe { (*fp.add(1), *fp) }
}
