//! The truth about frames, which is recorded at each function's first instruction, and compared
//! with what unwind rows say at every later one.

use std::collections::{BTreeMap, BTreeSet};

use crate::rows::{Abi, Registers, Rows, S390X};

/// The machine at one instruction.
pub(crate) trait State {
    /// Reads eight bytes of memory.
    fn read(&mut self, address: u64) -> Result<u64, String>;
    /// Reads floating-point registers, by DWARF number.
    fn float(&mut self, register: u16) -> Result<u64, String>;
}

/// An activation of a function.
#[derive(Clone, Debug)]
pub(crate) struct Frame {
    /// The stack pointer at the first instruction.
    stack: u64,
    /// `None` if it is not known yet.
    pub(crate) cfa: Option<u64>,
    pub(crate) return_address: u64,
    /// The registers that the function preserves, by DWARF number.
    pub(crate) preserved: Vec<(u16, u64)>,
    /// Other registers that its rows speak of: a function may preserve more than it has to.
    others: Vec<(u16, u64)>,
}

/// The machine at one instruction, and the frame that its rows must describe.
pub(crate) struct Sample {
    pub(crate) pc: u64,
    registers: Registers,
    frame: Frame,
    /// Words of the stack, by address.
    stack: BTreeMap<u64, u64>,
}

impl Sample {
    /// Compares what other rows than the program's say with the truth.
    pub(crate) fn compare(&self, abi: &Abi, rows: &Rows) -> Result<(), String> {
        let free = self.registers[usize::from(abi.stack)].unwrap_or_default();
        let mut frame = self.frame.clone();
        let mut read = |address: u64| self.stack.get(&address).copied().ok_or("not on the stack".to_owned());
        frame.unwind(abi, rows, (self.pc, &self.registers, free), &|_| true, &mut read).map(drop)
    }
}

impl Sample {
    /// Whether other rows lead to the same caller, as far as registers are known.
    pub(crate) fn is_same(&self, abi: &Abi, right: &Rows, wrong: &Rows) -> bool {
        let unwind = |rows: &Rows| {
            let mut read =
                |address: u64| self.stack.get(&address).copied().ok_or("not on the stack".to_owned());
            let row = rows.at(self.pc)?;
            let caller = row.unwind(&self.registers, rows.return_address, abi.stack, 0, &mut read).ok()?;
            // As far as they are compared: those that are known, and that the function preserves.
            let known = (0..).zip(caller.registers).filter(|(register, _)| {
                self.registers[usize::from(*register)].is_some() && !abi.scratch.contains(register)
            });
            let known = known.collect::<Vec<(u16, _)>>();
            Some((caller.cfa, caller.return_address, known))
        };
        unwind(right) == unwind(wrong)
    }
}

impl Frame {
    /// Unwinds the frame, and compares. `place` has the place of its rows, its registers, and the
    /// address below which memory is free; `known` tells which registers' values are known.
    fn unwind(
        &mut self,
        abi: &Abi,
        rows: &Rows,
        place: (u64, &Registers, u64),
        known: &dyn Fn(u16) -> bool,
        read: &mut dyn FnMut(u64) -> Result<u64, String>,
    ) -> Result<Registers, String> {
        let (pc, registers, free) = place;
        let row = rows.at(pc).ok_or("no row")?;
        let column = rows.return_address;
        let caller = row.unwind(registers, column, abi.stack, free, read)?;
        let cfa = *self.cfa.get_or_insert(caller.cfa);
        if caller.cfa != cfa {
            return Err(format!("the CFA is {:#x}, not {cfa:#x}", caller.cfa));
        }
        // By the ABI of s390x, the CFA is above the caller's stack pointer.
        let above = if abi.bias == S390X.bias { abi.bias } else { 0 };
        let stack = caller.registers[usize::from(abi.stack)];
        if stack != Some(cfa - above) {
            return Err(format!("the caller's stack pointer is {stack:x?}, not {:#x}", cfa - above));
        }
        if caller.return_address != self.return_address {
            let (is, want) = (caller.return_address, self.return_address);
            return Err(format!("the return address is {is:#x}, not {want:#x}"));
        }
        for &(register, value) in self.preserved.iter().chain(&self.others) {
            let found = caller.registers[usize::from(register)];
            if known(register) && found != Some(value) {
                return Err(format!("register {register} is {found:x?}, not {value:#x}"));
            }
        }
        let mut registers = caller.registers;
        registers[usize::from(column)] = Some(caller.return_address);
        Ok(registers)
    }
}

/// The end and the name of each function, by its first address.
pub(crate) type Functions = BTreeMap<u64, (u64, String)>;

/// How often an instruction is looked at: later visits are like the first ones.
const VISITS: u32 = 4;

/// How much of the stack is kept in a sample, on each side of the CFA, in bytes.
const AROUND: u64 = 512;

/// Compares what rows say with the truth.
pub(crate) struct Checker {
    pub(crate) abi: &'static Abi,
    /// How far the program's addresses are from those in its file.
    pub(crate) bias: u64,
    /// The rows; `None` if only the truth is wanted.
    rows: Option<Rows>,
    /// The code of the program.
    text: std::ops::Range<u64>,
    /// The end and the name of each function, by its first address. The program's other code is
    /// stubs, which are entered at their first instruction.
    functions: Functions,
    /// The first addresses of functions of convention `tail`.
    tails: BTreeSet<u64>,
    /// Whether floating-point registers are compared.
    floats: bool,
    pub(crate) frames: Vec<Frame>,
    last: u64,
    /// The instructions at which rows were compared, and how often.
    pub(crate) seen: BTreeMap<u64, u32>,
    pub(crate) faults: Vec<String>,
    /// The machine at each instruction, when it was first there.
    pub(crate) samples: Vec<Sample>,
}

/// The kind of code that the machine is about to execute.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Where {
    Compiled,
    /// Code of the host, which returns to this address.
    Host(u64),
    /// The outermost function has returned.
    Outside,
}

impl Checker {
    pub(crate) fn new(
        abi: &'static Abi,
        bias: u64,
        rows: Option<Rows>,
        text: std::ops::Range<u64>,
        functions: Functions,
        tails: &[String],
    ) -> Self {
        let floats = rows.as_ref().is_some_and(|rows| {
            let mut all = rows.all();
            all.any(|row| abi.floats.iter().any(|&register| row.mentions(register)))
        });
        let tails = functions.iter().filter(|(_, (_, name))| tails.contains(name)).map(|(&start, _)| start);
        let tails = tails.collect();
        Self {
            abi,
            bias,
            rows,
            text,
            functions,
            tails,
            floats,
            frames: Vec::new(),
            last: 0,
            seen: BTreeMap::new(),
            faults: Vec::new(),
            samples: Vec::new(),
        }
    }

    /// Whether `pc` is in the program's code.
    pub(crate) fn contains(&self, pc: u64) -> bool {
        self.text.contains(&pc)
    }

    /// Whether anything is to be done at `pc`.
    pub(crate) fn is_of_interest(&self, pc: u64) -> bool {
        self.contains(pc)
            || self.contains(self.last)
            || self.frames.last().is_some_and(|frame| frame.return_address == pc)
    }

    /// Follows the machine to the instruction at `pc`, and compares.
    pub(crate) fn step(&mut self, pc: u64, registers: &Registers, state: &mut dyn State) -> Where {
        let sp = registers[usize::from(self.abi.stack)].unwrap_or_default();
        self.returned(pc, sp);
        if !self.contains(pc) {
            let link = match self.abi.link {
                Some(link) => registers[usize::from(link)].unwrap_or_default(),
                None => state.read(sp).unwrap_or_default(),
            };
            self.last = pc;
            return match self.frames.last() {
                // Hosts are called by `call`, or by a tail call of a stub, which is gone then.
                Some(_) => {
                    if self.frames.last().is_some_and(|frame| frame.return_address == link) {
                        self.frames.pop();
                    }
                    Where::Host(link)
                }
                None => Where::Outside,
            };
        }
        let (here, before) = (self.function(pc), self.function(self.last));
        if here == Some(pc) || here.is_none() && (before.is_some() || !self.contains(self.last)) {
            self.entered(pc, sp, registers, state);
        }
        self.last = pc;
        let visits = self.seen.entry(pc).or_default();
        *visits += 1;
        let visits = *visits;
        if visits > VISITS {
            return Where::Compiled;
        }
        if let Err(fault) = self.compare(pc, registers, state) {
            self.fault(pc, &fault);
        } else if visits == 1 {
            self.sample(pc, registers, state);
        }
        Where::Compiled
    }

    /// Keeps the machine as it is.
    fn sample(&mut self, pc: u64, registers: &Registers, state: &mut dyn State) {
        let Some(frame) = self.frames.last() else { return };
        let (frame, mut registers, mut stack) = (frame.clone(), *registers, BTreeMap::new());
        if self.floats {
            for &register in self.abi.floats {
                registers[usize::from(register)] = state.float(register).ok();
            }
        }
        let sp = registers[usize::from(self.abi.stack)].unwrap_or_default();
        let cfa = frame.cfa.unwrap_or(sp);
        for from in [sp, cfa.saturating_sub(AROUND).max(sp)] {
            for address in (from..from + 2 * AROUND).step_by(8) {
                if let Ok(word) = state.read(address) {
                    stack.insert(address, word);
                }
            }
        }
        self.samples.push(Sample { pc, registers, frame, stack });
    }

    /// Returns the first address of the function that `pc` is in.
    fn function(&self, pc: u64) -> Option<u64> {
        let (start, (end, _)) = self.functions.range(..=pc).next_back()?;
        (pc < *end).then_some(*start)
    }

    pub(crate) fn fault(&mut self, pc: u64, fault: &str) {
        if self.faults.len() < 200 {
            self.faults.push(format!("{}: {fault}", self.place(pc)));
        }
    }

    /// Returns the function and the offset of an instruction.
    pub(crate) fn place(&self, pc: u64) -> String {
        match self.function(pc) {
            Some(start) => format!("{}+{:#x}", self.functions[&start].1, pc - start),
            None => format!("a stub at {pc:#x}"),
        }
    }

    fn returned(&mut self, pc: u64, sp: u64) {
        let Some(frame) = self.frames.last() else { return };
        let above = frame.stack + if self.abi.link.is_none() { 8 } else { 0 };
        if pc != frame.return_address || sp < above || self.functions.contains_key(&pc) {
            return;
        }
        // Where functions pop arguments and callers have no frame pointer, the CFA is relative to
        // the stack pointer after the return.
        if self.abi.bias == S390X.bias && frame.cfa.is_some_and(|cfa| cfa != sp + self.abi.bias) {
            let fault =
                format!("returned with the stack pointer {sp:#x}, not the CFA {:x?} - 160", frame.cfa);
            self.fault(self.last, &fault);
        }
        self.frames.pop();
    }

    fn entered(&mut self, pc: u64, sp: u64, registers: &Registers, state: &mut dyn State) {
        let abi = self.abi;
        let return_address = match abi.link {
            Some(link) => registers[usize::from(link)].unwrap_or_default(),
            None => state.read(sp).unwrap_or_default(),
        };
        let mut preserved = Vec::new();
        let mut cfa = (abi.bias != S390X.bias).then_some(sp + abi.bias);
        let is_call =
            self.contains(self.last) && return_address.wrapping_sub(self.last).wrapping_sub(1) < abi.call;
        let is_jump =
            !is_call && self.frames.last().is_some_and(|frame| frame.return_address == return_address);
        if is_jump {
            // A tail call: the callee returns, and preserves registers, for the caller's caller.
            let caller = self.frames.pop().expect("the frame of the caller");
            preserved = caller.preserved;
            cfa = cfa.or(caller.cfa);
        } else {
            preserved.extend(
                abi.preserved
                    .iter()
                    .map(|&register| (register, registers[usize::from(register)].unwrap_or_default())),
            );
            if self.floats {
                preserved.extend(
                    abi.floats.iter().map(|&register| (register, state.float(register).unwrap_or_default())),
                );
            }
        }
        let others = self.others(pc, registers, &preserved);
        if self.tails.contains(&pc) {
            preserved.retain(|(register, _)| !abi.except_tail.contains(register));
        }
        self.frames.push(Frame { stack: sp, cfa, return_address, preserved, others });
    }

    /// Returns the registers, besides `preserved`, that the rows of the function at `start` speak
    /// of.
    fn others(&self, start: u64, registers: &Registers, preserved: &[(u16, u64)]) -> Vec<(u16, u64)> {
        let (Some(rows), Some((end, _))) = (&self.rows, self.functions.get(&start)) else {
            return Vec::new();
        };
        let others = rows.mentioned(start, *end).into_iter().filter(|register| {
            let is_address = *register == rows.return_address || *register == self.abi.stack;
            !is_address
                && !self.abi.scratch.contains(register)
                && preserved.iter().all(|(other, _)| other != register)
        });
        others.filter_map(|register| Some((register, registers[usize::from(register)]?))).collect()
    }

    /// Unwinds all frames of the program, from that at `pc` on, and compares each.
    fn compare(&mut self, pc: u64, registers: &Registers, state: &mut dyn State) -> Result<(), String> {
        let abi = self.abi;
        let mut registers = *registers;
        if self.floats {
            for &register in abi.floats {
                registers[usize::from(register)] = Some(state.float(register)?);
            }
        }
        // Memory below the stack pointer is free. The ABI of x86-64 keeps 128 bytes below it, which
        // rows do without.
        let free = registers[usize::from(abi.stack)].unwrap_or_default();
        let (mut lookup, mut known) =
            (pc, abi.preserved.iter().chain(abi.floats).copied().collect::<Vec<_>>());
        if self.frames.is_empty() {
            return Err("code runs that was not entered at its start".into());
        }
        let Some(rows) = &self.rows else { return Ok(()) };
        for depth in (0..self.frames.len()).rev() {
            let level = self.frames.len() - 1 - depth;
            let place = |what: String| match level {
                0 => what,
                _ => format!("{what}, in the caller {level} levels above, at {lookup:#x}"),
            };
            let frame = &mut self.frames[depth];
            known.retain(|register| frame.preserved.iter().any(|(other, _)| other == register));
            let is_known = |register| level == 0 || known.contains(&register);
            let mut read = |address| state.read(address);
            registers =
                frame.unwind(abi, rows, (lookup, &registers, free), &is_known, &mut read).map_err(place)?;
            // A return address may be that of the next function, if the call does not return.
            lookup = frame.return_address - 1;
        }
        Ok(())
    }
}
