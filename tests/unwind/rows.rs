//! Evaluates unwind rows, with gimli: independent of what wrote them, and of the system's unwinder.

use std::collections::{BTreeMap, BTreeSet};

use gimli::{
    BaseAddresses, CfaRule, CieOrFde, EhFrame, Reader as _, RegisterRule, RunTimeEndian, UnwindContext,
    UnwindSection as _,
};

/// The rules for a range of addresses.
#[derive(Clone, Debug)]
pub(crate) struct Row {
    start: u64,
    end: u64,
    cfa: (u16, i64),
    rules: Vec<(u16, Rule)>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Rule {
    Undefined,
    /// In memory, at this distance from the CFA.
    Offset(i64),
    /// The CFA plus this.
    ValOffset(i64),
}

/// The rows of a program.
pub(crate) struct Rows {
    /// The rows, by the address at which they end.
    rows: BTreeMap<u64, Row>,
    /// The DWARF number of the column of return addresses.
    pub(crate) return_address: u16,
}

impl Rows {
    /// Reads a section `.eh_frame` that is at `address`, of code that is moved by `bias`.
    pub(crate) fn new(
        section: &[u8],
        address: u64,
        bias: u64,
        endian: RunTimeEndian,
    ) -> Result<Self, String> {
        let text = |error: gimli::Error| error.to_string();
        let mut frame = EhFrame::new(section, endian);
        frame.set_address_size(8);
        let bases = BaseAddresses::default().set_eh_frame(address);
        let (mut rows, mut return_address) = (BTreeMap::new(), 0);
        let mut entries = frame.entries(&bases);
        while let Some(entry) = entries.next().map_err(text)? {
            let CieOrFde::Fde(partial) = entry else { continue };
            let fde = partial.parse(EhFrame::cie_from_offset).map_err(text)?;
            return_address = fde.cie().return_address_register().0;
            let mut context = UnwindContext::new();
            let mut table = fde.rows(&frame, &bases, &mut context).map_err(text)?;
            while let Some(row) = table.next_row().map_err(text)? {
                let CfaRule::RegisterAndOffset { register, offset } = *row.cfa() else {
                    return Err("an expression for the CFA".into());
                };
                let mut rules = Vec::new();
                for (register, rule) in row.registers() {
                    rules.push(match rule {
                        RegisterRule::Undefined => (register.0, Rule::Undefined),
                        RegisterRule::SameValue => continue,
                        RegisterRule::Offset(offset) => (register.0, Rule::Offset(*offset)),
                        RegisterRule::ValOffset(offset) => (register.0, Rule::ValOffset(*offset)),
                        // Whether return addresses are signed, on aarch64.
                        RegisterRule::ValExpression(expression) if register.0 == 34 => {
                            let bytes = expression.get(&frame).map_err(text)?;
                            let signed = bytes.0.to_slice().map_err(text)?[0] == 0x31;
                            (34, Rule::ValOffset(signed.into()))
                        }
                        other => return Err(format!("the rule {other:?} of register {}", register.0)),
                    });
                }
                let (start, end) = (row.start_address() + bias, row.end_address() + bias);
                if start < end {
                    rows.insert(end, Row { start, end, cfa: (register.0, offset), rules });
                }
            }
        }
        Ok(Self { rows, return_address })
    }

    /// The row for the instruction at `pc`.
    pub(crate) fn at(&self, pc: u64) -> Option<&Row> {
        self.rows.range(pc + 1..).next().map(|(_, row)| row).filter(|row| row.start <= pc && pc < row.end)
    }

    /// The registers that the rows of the code from `start` to `end` speak of.
    pub(crate) fn mentioned(&self, start: u64, end: u64) -> BTreeSet<u16> {
        let rows = self.rows.range(start + 1..=end);
        rows.flat_map(|(_, row)| row.rules.iter().map(|(register, _)| *register)).collect()
    }

    pub(crate) fn all(&self) -> impl Iterator<Item = &Row> {
        self.rows.values()
    }
}

/// The fault of rows that give no return address.
pub(crate) const UNKNOWN: &str = "the return address is unknown";

/// The registers of a frame, by DWARF number.
pub(crate) type Registers = [Option<u64>; 128];

/// The caller of a frame.
pub(crate) struct Caller {
    pub(crate) cfa: u64,
    pub(crate) return_address: u64,
    pub(crate) registers: Registers,
}

impl Row {
    /// Whether the row speaks of a register.
    pub(crate) fn mentions(&self, register: u16) -> bool {
        self.rules.iter().any(|(other, _)| *other == register)
    }

    /// Unwinds one frame. `free` is an address below which memory is free: a signal handler may
    /// overwrite it at any time, so no rule may read from there.
    pub(crate) fn unwind(
        &self,
        registers: &Registers,
        column: u16,
        stack: u16,
        free: u64,
        read: &mut dyn FnMut(u64) -> Result<u64, String>,
    ) -> Result<Caller, String> {
        let base = registers[usize::from(self.cfa.0)];
        let base =
            base.ok_or_else(|| format!("the CFA is relative to register {}, which is unknown", self.cfa.0))?;
        let cfa = base.wrapping_add(self.cfa.1 as u64);
        let mut caller = *registers;
        // By default, the caller's stack pointer is the CFA.
        caller[usize::from(stack)] = Some(cfa);
        for &(register, rule) in &self.rules {
            let place = |offset: i64| cfa.wrapping_add(offset as u64);
            caller[usize::from(register)] = match rule {
                Rule::Undefined => None,
                Rule::ValOffset(signed) if register == 34 => Some(signed as u64),
                Rule::ValOffset(offset) => Some(place(offset)),
                Rule::Offset(offset) if place(offset) < free => {
                    return Err(format!("register {register} is said to be in memory that is free"));
                }
                Rule::Offset(offset) => Some(read(place(offset))?),
            };
        }
        let mut return_address = caller[usize::from(column)].ok_or(UNKNOWN)?;
        if self.rules.contains(&(34, Rule::ValOffset(1))) {
            // A signed address. Addresses of programs have 48 bits.
            return_address &= 0xffff_ffff_ffff;
        }
        caller[34] = None;
        Ok(Caller { cfa, return_address, registers: caller })
    }
}

/// The rules of an architecture's ABI for calls.
pub(crate) struct Abi {
    pub(crate) endian: RunTimeEndian,
    /// The DWARF number of the stack pointer.
    pub(crate) stack: u16,
    /// The register with the return address at a function's first instruction; `None` if it is on
    /// top of the stack.
    pub(crate) link: Option<u16>,
    /// The distance from the stack pointer to the CFA at a function's first instruction.
    pub(crate) bias: u64,
    /// General registers that a function preserves, besides the stack pointer.
    pub(crate) preserved: &'static [u16],
    /// Floating-point registers that it preserves.
    pub(crate) floats: &'static [u16],
    /// Registers that functions of convention `tail` do not preserve.
    pub(crate) except_tail: &'static [u16],
    /// Registers that prologues use before they save them, so that not even `preserve_all`
    /// preserves them, and the register that is always zero.
    pub(crate) scratch: &'static [u16],
    /// The largest number of bytes of a call instruction.
    pub(crate) call: u64,
}

pub(crate) const X86_64: Abi = Abi {
    endian: RunTimeEndian::Little,
    stack: 7,
    link: None,
    bias: 8,
    preserved: &[3, 6, 12, 13, 14, 15],
    floats: &[],
    except_tail: &[],
    scratch: &[],
    call: 15,
};

pub(crate) const AARCH64: Abi = Abi {
    endian: RunTimeEndian::Little,
    stack: 31,
    link: Some(30),
    bias: 0,
    preserved: &[19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29],
    floats: &[72, 73, 74, 75, 76, 77, 78, 79],
    except_tail: &[],
    scratch: &[16, 17],
    call: 4,
};

pub(crate) const RISCV64: Abi = Abi {
    endian: RunTimeEndian::Little,
    stack: 2,
    link: Some(1),
    bias: 0,
    preserved: &[8, 9, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27],
    floats: &[40, 50, 51, 52, 53, 54, 55, 56, 57, 58, 59],
    except_tail: &[],
    scratch: &[0, 28, 30, 31],
    call: 4,
};

pub(crate) const S390X: Abi = Abi {
    endian: RunTimeEndian::Big,
    stack: 15,
    link: Some(14),
    bias: 160,
    preserved: &[6, 7, 8, 9, 10, 11, 12, 13],
    floats: &[24, 25, 26, 27, 28, 29, 30, 31],
    except_tail: &[6, 7],
    scratch: &[1],
    call: 6,
};

/// The address of a section in an ELF file, and its bytes.
pub(crate) fn eh_frame(image: &[u8]) -> Result<(u64, &[u8]), String> {
    use object::{Object as _, ObjectSection as _};
    let file = object::File::parse(image).map_err(|error| error.to_string())?;
    let section = file.section_by_name(".eh_frame").ok_or("no section `.eh_frame`")?;
    Ok((section.address(), section.data().map_err(|error| error.to_string())?))
}
