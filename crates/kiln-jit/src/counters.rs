//! Counts the calls of replaceable functions, without a change of their code.
//!
//! The slot of such a function holds the address of a *counting entry*, which counts down and goes
//! on in the function. When the count is used up, it goes through a common part that saves every
//! register that may hold an argument, in any calling convention, and tells the host. So the code
//! of a first tier is the same as without counting, and costs no compilation of its own.
//!
//! A counting entry, and the record that it refers to (8 bytes each):
//!
//! ```text
//! entry:  sub qword ptr [rip + record], 1       record:  the calls that are left
//!         jle reached                                    the address of the function
//!         jmp function                                   the address of the common part
//! reached:                                               the number of calls that it begins with
//!         lea r11, [rip + record]                        the host's function
//!         jmp [r11 + 16]
//! ```
//!
//! No calling convention passes anything in `r11`. Only `preserve_all` expects it to be preserved,
//! so functions of that convention are not counted. Counting is not atomic: when threads count at
//! once, some calls are lost, and one that comes in between sees less than nothing left, which
//! counts as reached. An entry changes neither the stack nor a register that is preserved, so one
//! unwind row says all of the entries of a unit. Their block has a header, so the function is found
//! by an address in its entry.

use std::ops::Range;

use kiln_artifact::Artifact;
use kiln_artifact::record::SectionKind;
use kiln_image::link::Plan;

use crate::blocks::Blocks;
use crate::error::JitError;
use crate::jump::Jump;
use crate::memory::{Block, BlockHeader, HEADER, JumpShape, Memory, Region};

/// The number of calls after which the host is told.
#[derive(Clone, Copy, Debug)]
pub struct CountedEntries {
    limit: u64,
    hook: Hook,
}

/// A function of the host. It gets the address of the record of the function that was called.
pub type Hook = extern "C-unwind" fn(counter: u64);

impl CountedEntries {
    /// Tells `hook` at every call of a function that is a multiple of `limit`, which is at least 1:
    /// before the call goes on. `None` if there is no such code for this machine; it is for x86-64.
    pub fn new(limit: u64, hook: Hook) -> Option<Self> {
        // The count is signed.
        let limit = limit.clamp(1, i64::MAX as u64);
        cfg!(target_arch = "x86_64").then_some(Self { limit, hook })
    }
}

/// The size of an entry, in bytes.
const ENTRY: usize = 32;
/// The size of a record, in bytes.
const RECORD: usize = 40;
/// The place of the function's address in a record.
const FUNCTION: u8 = 8;

/// The header is as long as an entry, so all entries are aligned.
const _: () = assert!(HEADER == ENTRY as u64);

/// The entries of a unit.
#[derive(Debug)]
pub(crate) struct Counters {
    entries: Block,
    records: Block,
    /// The module and the number of each function that has an entry, in order.
    functions: Box<[(usize, usize)]>,
}

impl Counters {
    /// Makes entries of `functions`, which are in `blocks`.
    pub(crate) fn allocate(
        memory: &Memory,
        count: CountedEntries,
        functions: Box<[(usize, usize)]>,
        plan: &Plan<'_>,
        blocks: &Blocks,
    ) -> Result<Self, JitError> {
        let size = HEADER + (ENTRY * functions.len()) as u64;
        let entries = memory.allocate(Region::Code, size, ENTRY as u64)?;
        let records = memory.allocate(Region::Data, (RECORD * functions.len()) as u64, 8);
        // SAFETY: nobody knows the block.
        let records = records.inspect_err(|_| unsafe { memory.free(entries) })?;
        let counters = Self { entries, records, functions };
        // SAFETY: the blocks are fresh, and the references end before they are published.
        let (code, data) = unsafe { (entries.bytes(), records.bytes()) };
        let jumps = JumpShape { code: ENTRY as u8, data: RECORD as u8, target: FUNCTION, reserved: 0 };
        let (header, code) = code.split_at_mut(HEADER as usize);
        BlockHeader::of_jumps(records.address(), counters.functions.len() as u32, jumps).write(header);
        let parts = code.as_chunks_mut::<ENTRY>().0.iter_mut().zip(data.as_chunks_mut::<RECORD>().0);
        for (number, (entry, record)) in parts.enumerate() {
            let (module, symbol) = counters.functions[number];
            let symbol = &plan.artifacts()[module].symbols()[symbol];
            let located = plan.locate(module, SectionKind::Text, symbol.offset.get());
            let function = located.map_or(0, |(area, offset)| blocks.addresses[area] + offset);
            *entry = entry_code(counters.entry(number), counters.record(number), function);
            let fields =
                [count.limit, function, REACHED as *const () as u64, count.limit, count.hook as usize as u64];
            let words = record.as_chunks_mut::<8>().0.iter_mut();
            words.zip(fields).for_each(|(word, field)| *word = field.to_ne_bytes());
        }
        match memory.publish(&[entries, records]) {
            Ok(()) => Ok(counters),
            Err(error) => {
                // SAFETY: nobody knows the blocks.
                unsafe { counters.free(memory) };
                Err(error)
            }
        }
    }

    fn entry(&self, number: usize) -> u64 {
        self.entries.address() + HEADER + (ENTRY * number) as u64
    }

    fn record(&self, number: usize) -> u64 {
        self.records.address() + (RECORD * number) as u64
    }

    /// Returns the address of the entry of a function, if it has one.
    pub(crate) fn entry_of(&self, module: usize, symbol: usize) -> Option<u64> {
        self.functions.binary_search(&(module, symbol)).ok().map(|number| self.entry(number))
    }

    /// Returns the module of each function that has an entry, its number there, and the address of
    /// its record, in order.
    pub(crate) fn records(&self) -> impl Iterator<Item = (usize, usize, u64)> {
        let functions = self.functions.iter().enumerate();
        functions.map(|(number, &(module, symbol))| (module, symbol, self.record(number)))
    }

    /// Returns the entries, with the names of their functions in the modules of the unit, in order.
    pub(crate) fn named<'a>(&'a self, artifacts: &'a [Artifact]) -> impl Iterator<Item = Jump<'a>> {
        self.functions.iter().enumerate().map(|(number, &(module, symbol))| {
            let artifact = &artifacts[module];
            let start = self.entry(number) as usize;
            Jump { name: artifact.name(&artifact.symbols()[symbol]), code: start..start + ENTRY }
        })
    }

    /// Returns the addresses of all entries.
    pub(crate) fn code(&self) -> Range<usize> {
        self.entry(0) as usize..self.entry(self.functions.len()) as usize
    }

    /// Makes the functions findable by addresses in their entries.
    ///
    /// # Safety
    ///
    /// The entries are [hidden](Self::hide) before they are freed.
    pub(crate) unsafe fn show(&self, memory: &Memory) {
        // SAFETY: they were published with a header, and never change. The caller promises the
        // rest.
        unsafe { memory.show(self.entries) };
    }

    /// Makes the entries impossible to find.
    pub(crate) fn hide(&self, memory: &Memory) {
        memory.hide(self.entries);
    }

    /// Returns the memory of the entries.
    pub(crate) fn code_block(&self) -> Block {
        self.entries
    }

    /// Returns the memory of the records, which lookups read.
    pub(crate) fn data_block(&self) -> Block {
        self.records
    }

    /// Frees the memory.
    ///
    /// # Safety
    ///
    /// Nobody uses it but lookups, and the entries are hidden.
    pub(crate) unsafe fn free(&self, memory: &Memory) {
        // SAFETY: the caller promises it.
        unsafe {
            memory.free(self.entries);
            memory.free_looked_at(self.records);
        }
    }
}

/// Whether a function that a module defines may have an entry.
pub(crate) fn can_count(artifact: &Artifact, symbol: usize) -> bool {
    let signature = artifact.symbols()[symbol].signature().and_then(|index| artifact.signature(index));
    signature.is_some_and(|signature| !signature.ends_with(" preserve_all"))
}

/// Returns the code of the entry at an address.
fn entry_code(address: u64, record: u64, function: u64) -> [u8; ENTRY] {
    // A memory is smaller than 2 GiB, so everything is within reach.
    let from = |end: u64, target: u64| (target.wrapping_sub(address + end) as u32).to_le_bytes();
    let mut code = [0xcc; ENTRY];
    code[..3].copy_from_slice(&[0x48, 0x83, 0x2d]); // sub qword ptr [rip + record], 1
    code[3..7].copy_from_slice(&from(8, record));
    code[7..11].copy_from_slice(&[1, 0x7e, 5, 0xe9]); // jle reached; jmp function
    code[11..15].copy_from_slice(&from(15, function));
    code[15..18].copy_from_slice(&[0x4c, 0x8d, 0x1d]); // reached: lea r11, [rip + record]
    code[18..22].copy_from_slice(&from(22, record));
    code[22..26].copy_from_slice(&[0x41, 0xff, 0x63, 16]); // jmp [r11 + 16]
    code
}

/// The common part of all entries: see the module's documentation.
#[cfg(target_arch = "x86_64")]
const REACHED: unsafe extern "C" fn() = reached;

#[cfg(not(target_arch = "x86_64"))]
const REACHED: unsafe extern "C" fn() = {
    unsafe extern "C" fn none() {}
    none
};

/// Begins to count anew, tells the host, and goes on in the function. `r11` has the address of the
/// record.
#[cfg(target_arch = "x86_64")]
#[unsafe(naked)]
unsafe extern "C" fn reached() {
    std::arch::naked_asm!(
        ".cfi_startproc",
        "push rbp",
        ".cfi_def_cfa_offset 16",
        ".cfi_offset rbp, -16",
        "mov rbp, rsp",
        ".cfi_def_cfa_register rbp",
        "push rdi",
        "push rsi",
        "push rdx",
        "push rcx",
        "push r8",
        "push r9",
        "push rax",
        "push r10",
        "push r11",
        "sub rsp, 264",
        "movups [rsp], xmm0",
        "movups [rsp + 16], xmm1",
        "movups [rsp + 32], xmm2",
        "movups [rsp + 48], xmm3",
        "movups [rsp + 64], xmm4",
        "movups [rsp + 80], xmm5",
        "movups [rsp + 96], xmm6",
        "movups [rsp + 112], xmm7",
        "movups [rsp + 128], xmm8",
        "movups [rsp + 144], xmm9",
        "movups [rsp + 160], xmm10",
        "movups [rsp + 176], xmm11",
        "movups [rsp + 192], xmm12",
        "movups [rsp + 208], xmm13",
        "movups [rsp + 224], xmm14",
        "movups [rsp + 240], xmm15",
        "mov rax, [r11 + 24]",
        "mov [r11], rax",
        "mov rdi, r11",
        "call [r11 + 32]",
        "movups xmm0, [rsp]",
        "movups xmm1, [rsp + 16]",
        "movups xmm2, [rsp + 32]",
        "movups xmm3, [rsp + 48]",
        "movups xmm4, [rsp + 64]",
        "movups xmm5, [rsp + 80]",
        "movups xmm6, [rsp + 96]",
        "movups xmm7, [rsp + 112]",
        "movups xmm8, [rsp + 128]",
        "movups xmm9, [rsp + 144]",
        "movups xmm10, [rsp + 160]",
        "movups xmm11, [rsp + 176]",
        "movups xmm12, [rsp + 192]",
        "movups xmm13, [rsp + 208]",
        "movups xmm14, [rsp + 224]",
        "movups xmm15, [rsp + 240]",
        "add rsp, 264",
        "pop r11",
        "pop r10",
        "pop rax",
        "pop r9",
        "pop r8",
        "pop rcx",
        "pop rdx",
        "pop rsi",
        "pop rdi",
        "pop rbp",
        ".cfi_def_cfa rsp, 8",
        "jmp [r11 + 8]",
        ".cfi_endproc",
    )
}
