//! Encodes call frame instructions, each as short as possible.

use cranelift_codegen::ir::Endianness;

/// The data alignment factor of all our entries: offsets are stored in units of -8 bytes.
const DATA_ALIGN: i64 = -8;

const ADVANCE: u8 = 0x40;
const OFFSET: u8 = 0x80;
const RESTORE: u8 = 0xc0;
const ADVANCE1: u8 = 0x02;
const ADVANCE2: u8 = 0x03;
const ADVANCE4: u8 = 0x04;
const OFFSET_EXTENDED: u8 = 0x05;
const RESTORE_EXTENDED: u8 = 0x06;
const UNDEFINED: u8 = 0x07;
const REMEMBER_STATE: u8 = 0x0a;
const RESTORE_STATE: u8 = 0x0b;
const DEF_CFA: u8 = 0x0c;
const DEF_CFA_REGISTER: u8 = 0x0d;
const DEF_CFA_OFFSET: u8 = 0x0e;
const OFFSET_EXTENDED_SF: u8 = 0x11;
const DEF_CFA_SF: u8 = 0x12;
const DEF_CFA_OFFSET_SF: u8 = 0x13;
const VAL_EXPRESSION: u8 = 0x16;

/// The pseudo register of aarch64 that says whether return addresses are signed (1) or not (0).
const RA_SIGN_STATE: u8 = 34;
/// The expression for zero; the next one is that for one.
const LIT0: u8 = 0x30;

/// Writes the rows of one function, in order of offset.
pub(super) struct Writer {
    pub(super) bytes: Vec<u8>,
    /// The code alignment factor: every offset is a multiple of it.
    factor: u32,
    endianness: Endianness,
    /// The offset at which the last instruction takes effect.
    written: u32,
    /// The offset at which the next instruction takes effect.
    next: u32,
    /// Whether instructions are written as if at the last offset; see [`Writer::freeze`].
    frozen: bool,
}

impl Writer {
    pub(super) fn new(factor: u32, endianness: Endianness) -> Self {
        // Enough for most functions, so that the bytes are not moved.
        let bytes = Vec::with_capacity(64);
        Self { bytes, factor, endianness, written: 0, next: 0, frozen: false }
    }

    /// Makes the following instructions take effect at `offset`, which is not smaller than the last
    /// one.
    pub(super) fn at(&mut self, offset: u32) {
        if !self.frozen {
            debug_assert!(offset >= self.next, "rows are in order");
            self.next = offset;
        }
    }

    /// Whether rows for `offset` can still be written.
    pub(super) fn reaches(&self, offset: u32) -> bool {
        offset >= self.next
    }

    /// While frozen, all instructions take effect at the offset that was given last.
    pub(super) fn freeze(&mut self, frozen: bool) {
        self.frozen = frozen;
    }

    /// Begins an instruction.
    fn instruction(&mut self, opcode: u8) {
        let delta = (self.next - self.written) / self.factor;
        self.written = self.next;
        match delta {
            0 => {}
            1..=0x3f => self.bytes.push(ADVANCE | delta as u8),
            0x40..=0xff => self.bytes.extend([ADVANCE1, delta as u8]),
            0x100..=0xffff => {
                let delta = delta as u16;
                self.bytes.push(ADVANCE2);
                self.bytes.extend(match self.endianness {
                    Endianness::Little => delta.to_le_bytes(),
                    Endianness::Big => delta.to_be_bytes(),
                });
            }
            _ => {
                self.bytes.push(ADVANCE4);
                self.bytes.extend(match self.endianness {
                    Endianness::Little => delta.to_le_bytes(),
                    Endianness::Big => delta.to_be_bytes(),
                });
            }
        }
        self.bytes.push(opcode);
    }

    fn unsigned(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.bytes.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.bytes.push(value as u8);
    }

    fn signed(&mut self, mut value: i64) {
        while !(-0x40..0x40).contains(&value) {
            self.bytes.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.bytes.push(value as u8 & 0x7f);
    }

    /// The canonical frame address (CFA) is `register` plus `offset` bytes.
    pub(super) fn cfa(&mut self, register: u16, offset: i64) {
        match u64::try_from(offset) {
            Ok(offset) => {
                self.instruction(DEF_CFA);
                self.unsigned(register.into());
                self.unsigned(offset);
            }
            Err(_) => {
                self.instruction(DEF_CFA_SF);
                self.unsigned(register.into());
                self.signed(offset / DATA_ALIGN);
            }
        }
    }

    /// The CFA is relative to another register, with the same offset.
    pub(super) fn cfa_register(&mut self, register: u16) {
        self.instruction(DEF_CFA_REGISTER);
        self.unsigned(register.into());
    }

    /// The CFA has another offset from the same register.
    pub(super) fn cfa_offset(&mut self, offset: i64) {
        match u64::try_from(offset) {
            Ok(offset) => {
                self.instruction(DEF_CFA_OFFSET);
                self.unsigned(offset);
            }
            Err(_) => {
                self.instruction(DEF_CFA_OFFSET_SF);
                self.signed(offset / DATA_ALIGN);
            }
        }
    }

    /// The caller's value of `register` is in memory, `offset` bytes from the CFA.
    pub(super) fn offset(&mut self, register: u16, offset: i64) {
        let factored = offset / DATA_ALIGN;
        match (u64::try_from(factored), register) {
            (Ok(factored), 0..0x40) => {
                self.instruction(OFFSET | register as u8);
                self.unsigned(factored);
            }
            (Ok(factored), _) => {
                self.instruction(OFFSET_EXTENDED);
                self.unsigned(register.into());
                self.unsigned(factored);
            }
            (Err(_), _) => {
                self.instruction(OFFSET_EXTENDED_SF);
                self.unsigned(register.into());
                self.signed(factored);
            }
        }
    }

    /// `register` has the rule of the CIE again.
    pub(super) fn restore(&mut self, register: u16) {
        if register < 0x40 {
            self.instruction(RESTORE | register as u8);
        } else {
            self.instruction(RESTORE_EXTENDED);
            self.unsigned(register.into());
        }
    }

    /// Nothing is known of the caller's value of `register`.
    pub(super) fn undefined(&mut self, register: u16) {
        self.instruction(UNDEFINED);
        self.unsigned(register.into());
    }

    /// Whether return addresses are signed, on aarch64.
    pub(super) fn signed_addresses(&mut self, signed: bool) {
        self.instruction(VAL_EXPRESSION);
        self.bytes.extend([RA_SIGN_STATE, 1, LIT0 + u8::from(signed)]);
    }

    /// Saves all rules, as of the last instruction.
    pub(super) fn remember(&mut self) {
        self.bytes.push(REMEMBER_STATE);
    }

    /// Returns to the rules that were saved last.
    pub(super) fn restore_state(&mut self) {
        self.instruction(RESTORE_STATE);
    }
}
