//! Rows of epilogues, for architectures whose frames have a frame pointer.
//!
//! In the body of a function, the CFA is relative to the frame pointer, whatever happens to the
//! stack pointer. From the instruction that loads the caller's frame pointer, it is relative to the
//! stack pointer, which is followed from there to the end.

use super::writer::Writer;

/// The size of the saved frame pointer and return address, in bytes.
pub(super) const LINKAGE: i64 = 16;

/// The effect of an instruction of an epilogue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Changes neither the stack pointer nor a register that a function must preserve.
    Other,
    /// Loads registers (DWARF numbers) from the frame, and then frees `pop` bytes of stack.
    Load { registers: [Option<u16>; 2], pop: i64 },
    /// Adds to the stack pointer.
    Adjust(i64),
    /// Sets the stack pointer to the frame pointer.
    Reset,
    /// Jumps over an island of veneers and constants to the rest of the epilogue.
    Jump(u32),
    /// Checks the return address, which is not signed from here on.
    Authenticate,
    /// Leaves the function.
    Exit,
}

/// Decodes the instructions that an epilogue of an architecture can have.
pub(super) trait Decoder: Default {
    /// Returns the instruction at `at` and its length in bytes; `None` if it does not belong in an
    /// epilogue.
    fn step(&mut self, code: &[u8], at: usize) -> Option<(usize, Step)>;
}

/// The state of a function after its prologue.
#[derive(Clone, Copy)]
pub(super) struct Body {
    /// The DWARF numbers of the architecture's stack pointer and frame pointer.
    pub(super) stack: u16,
    pub(super) frame: u16,
    /// The distance from the frame pointer to the CFA; `None` if the function has no frame.
    pub(super) cfa: Option<i64>,
    /// The distance from the stack pointer to the frame pointer.
    pub(super) size: i64,
    /// The registers with a row, by DWARF number, besides those of `linkage`.
    pub(super) saved: u128,
    /// The registers that have their old values when the frame pointer has.
    pub(super) linkage: u128,
    /// The DWARF number of the return address, if it lies on top of the stack, as on x86-64.
    pub(super) return_address: Option<u16>,
}

/// Writes the rows of the epilogue that begins at `start`, and those after it.
pub(super) fn write<D: Decoder>(writer: &mut Writer, body: &Body, code: &[u8], start: u32) {
    let mut walk = Walk::new(writer, body);
    let end = walk.run::<D>(code, start, None);
    debug_assert!(end.is_some(), "an epilogue at {start} has an instruction that is not known");
}

/// Writes the rows of the trap of `len` bytes at `at`, to which the prologue jumps before it saves
/// registers and moves the frame.
pub(super) fn write_overflow(writer: &mut Writer, body: &Body, code: &[u8], at: u32, len: u32) {
    let moved = body.cfa.is_some_and(|cfa| cfa != LINKAGE);
    if body.saved == 0 && !moved || !writer.reaches(at) {
        return;
    }
    writer.remember();
    writer.at(at);
    if moved {
        writer.cfa_offset(LINKAGE);
        writer.offset(body.frame, -LINKAGE);
        match body.return_address {
            Some(register) => writer.offset(register, 8 - LINKAGE),
            None => {
                let link = body.linkage & !(1 << body.frame);
                writer.offset(link.trailing_zeros() as u16, 8 - LINKAGE);
            }
        }
    }
    let mut saved = body.saved;
    while saved != 0 {
        writer.restore(saved.trailing_zeros() as u16);
        saved &= saved - 1;
    }
    if ((at + len) as usize) < code.len() {
        writer.at(at + len);
        writer.restore_state();
    }
}

struct Walk<'a> {
    writer: &'a mut Writer,
    body: &'a Body,
    /// Whether the rows differ from those of the body.
    changed: bool,
    /// The registers that were loaded, but have the row of the body still.
    pending: u128,
    /// The distance from the stack pointer to the CFA, if the CFA is relative to it.
    cfa: Option<i64>,
    /// Whether the stack pointer was set to the frame pointer.
    adjusted: bool,
    /// Whether the rows of an epilogue are written for the second time.
    again: bool,
}

impl<'a> Walk<'a> {
    fn new(writer: &'a mut Writer, body: &'a Body) -> Self {
        Self { writer, body, changed: false, pending: 0, cfa: None, adjusted: false, again: false }
    }

    /// Follows an epilogue to its end, or to the offset `until` if that is given. Returns the end;
    /// `None` if an instruction is not known, in which case the rows are those of the body again.
    fn run<D: Decoder>(&mut self, code: &[u8], start: u32, until: Option<u32>) -> Option<u32> {
        let mut decoder = D::default();
        let mut at = start;
        if self.body.cfa.is_none() {
            self.cfa = Some(0);
        }
        while until != Some(at) {
            let Some((len, step)) = decoder.step(code, at as usize) else {
                self.end(at, code);
                return None;
            };
            let end = at + len as u32;
            match step {
                Step::Other => {}
                Step::Load { registers, pop } => self.load(registers, pop, at, end),
                Step::Adjust(amount) => self.adjust(amount, at, end),
                Step::Reset => {
                    self.restore_pending(at);
                    self.adjusted = true;
                }
                Step::Jump(target) => {
                    self.skip::<D>(code, start, at, end, target);
                    at = target;
                    continue;
                }
                Step::Authenticate => {
                    self.change(end);
                    self.writer.signed_addresses(false);
                }
                Step::Exit => {
                    self.end(end, code);
                    return Some(end);
                }
            }
            at = end;
        }
        Some(at)
    }

    /// Announces that rows change at `offset`.
    fn change(&mut self, offset: u32) {
        if !self.changed {
            self.writer.remember();
            self.changed = true;
        }
        self.writer.at(offset);
    }

    /// Ends the epilogue: other code follows at `offset`.
    fn end(&mut self, offset: u32, code: &[u8]) {
        if self.changed && (offset as usize) < code.len() {
            self.writer.at(offset);
            self.writer.restore_state();
        }
        self.changed = false;
    }

    /// Describes the registers as restored, from `offset` on.
    fn restore_pending(&mut self, offset: u32) {
        let mut pending = self.pending & self.body.saved;
        self.pending = 0;
        if pending != 0 {
            self.change(offset);
        }
        while pending != 0 {
            self.writer.restore(pending.trailing_zeros() as u16);
            pending &= pending - 1;
        }
    }

    fn load(&mut self, registers: [Option<u16>; 2], pop: i64, at: u32, end: u32) {
        let body = self.body;
        if pop != 0 {
            self.restore_pending(at);
        }
        for register in registers.into_iter().flatten() {
            self.pending |= 1 << register;
        }
        match (self.cfa, body.cfa) {
            (None, Some(cfa)) if registers.contains(&Some(body.frame)) => {
                let below = if self.adjusted || pop != 0 { 0 } else { body.size };
                let cfa = cfa + below - pop;
                self.cfa = Some(cfa);
                self.change(end);
                self.writer.cfa(body.stack, cfa);
                let mut linkage = body.linkage;
                while linkage != 0 {
                    self.writer.restore(linkage.trailing_zeros() as u16);
                    linkage &= linkage - 1;
                }
            }
            (Some(cfa), _) if pop != 0 => {
                self.cfa = Some(cfa - pop);
                self.change(end);
                self.writer.cfa_offset(cfa - pop);
            }
            _ => {}
        }
        if pop != 0 {
            self.restore_pending(end);
        }
    }

    fn adjust(&mut self, amount: i64, at: u32, end: u32) {
        self.restore_pending(at);
        self.adjusted = true;
        let Some(cfa) = self.cfa else { return };
        let cfa = cfa - amount;
        self.cfa = Some(cfa);
        if let Some(return_address) = self.body.return_address {
            // It was copied to where the top of the stack is going to be.
            self.change(at);
            self.writer.offset(return_address, -cfa);
        }
        self.change(end);
        self.writer.cfa_offset(cfa);
    }

    /// Writes the rows for an island in `island..target`, which is reached from the function's body
    /// only, and then returns to those of the epilogue, which jumps over the island at `jump`.
    fn skip<D: Decoder>(&mut self, code: &[u8], start: u32, jump: u32, island: u32, target: u32) {
        if !self.changed || self.again {
            return;
        }
        self.writer.at(island);
        self.writer.restore_state();
        self.writer.remember();
        self.writer.at(target);
        // Say again what was said since the start, at once.
        self.writer.freeze(true);
        let mut walk = Walk::new(self.writer, self.body);
        (walk.changed, walk.again) = (true, true);
        walk.run::<D>(code, start, Some(jump));
        self.writer.freeze(false);
    }
}
