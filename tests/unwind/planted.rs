//! Every wrong row is found: each instruction of the rows is dropped, shifted or altered, one after
//! the other, and what the rows then say is compared with the truth at every instruction that was
//! executed. A fault that leads to another caller at any of these must be found. (Some lead to the
//! same: where a register was saved and not yet changed, it is no matter where it is read.)

use crate::programs::Program;
use crate::rows::{Rows, eh_frame};
use crate::truth::Checker;

/// The size of a frame description entry up to its instructions.
const HEADER: usize = 17;

/// Plants all faults in the rows of `program`, which were found to be right.
pub(crate) fn all_are_found(program: &Program, checker: &Checker) -> Result<(), String> {
    let (address, section) = eh_frame(&program.image)?;
    let (mut planted, mut without_effect, mut idle, mut missed) = (0, 0, 0, Vec::new());
    for entry in entries(section, checker.abi.endian == gimli::RunTimeEndian::Big) {
        let right = entry.rows(checker, address, &entry.bytes)?;
        let samples = checker.samples.iter().filter(|sample| right.at(sample.pc).is_some());
        let samples = samples.collect::<Vec<_>>();
        if samples.is_empty() {
            idle += 1;
        }
        for (at, bytes) in entry.faults() {
            planted += 1;
            // What cannot be read is found.
            let Ok(wrong) = entry.rows(checker, address, &bytes) else { continue };
            if samples.iter().any(|sample| sample.compare(checker.abi, &wrong).is_err()) {
                continue;
            }
            match samples.iter().find(|sample| !sample.is_same(checker.abi, &right, &wrong)) {
                None => without_effect += 1,
                Some(sample) => missed.push(format!(
                    "{}: byte {at} of the rows, {:x?} instead of {:x?}",
                    checker.place(sample.pc),
                    &bytes[at..],
                    &entry.bytes[at..]
                )),
            }
        }
    }
    if idle > 0 {
        return Err(format!("{idle} functions were not executed"));
    }
    println!("{}: {planted} faults planted, {without_effect} of them without effect", program.name);
    match missed.is_empty() && planted > 1000 && without_effect < planted / 2 {
        true => Ok(()),
        false => {
            Err(format!("{} of {planted} planted faults were missed:\n{}", missed.len(), missed.join("\n")))
        }
    }
}

/// A frame description entry.
struct Entry {
    /// Its offset in the section.
    offset: usize,
    bytes: Vec<u8>,
    /// The common information entry that it refers to.
    cie: Vec<u8>,
    big_endian: bool,
}

fn word(bytes: &[u8], big_endian: bool) -> u32 {
    let bytes = bytes[..4].try_into().expect("four bytes");
    if big_endian { u32::from_be_bytes(bytes) } else { u32::from_le_bytes(bytes) }
}

fn entries(section: &[u8], big_endian: bool) -> Vec<Entry> {
    let (mut entries, mut at) = (Vec::new(), 0);
    loop {
        let len = 4 + word(&section[at..], big_endian) as usize;
        if len == 4 {
            return entries;
        }
        let back = word(&section[at + 4..], big_endian) as usize;
        if back != 0 {
            let start = at + 4 - back;
            let cie = section[start..start + 4 + word(&section[start..], big_endian) as usize].to_vec();
            entries.push(Entry { offset: at, bytes: section[at..at + len].to_vec(), cie, big_endian });
        }
        at += len;
    }
}

impl Entry {
    /// Reads the entry with other bytes.
    fn rows(&self, checker: &Checker, address: u64, bytes: &[u8]) -> Result<Rows, String> {
        let mut bytes = bytes.to_vec();
        let back = self.cie.len() as u32 + 4;
        let back = if self.big_endian { back.to_be_bytes() } else { back.to_le_bytes() };
        bytes[4..8].copy_from_slice(&back);
        let section = [&self.cie[..], &bytes, &[0; 4]].concat();
        let address = address + self.offset as u64 - self.cie.len() as u64;
        Rows::new(&section, address, checker.bias, checker.abi.endian)
    }

    /// Returns the entry with each fault, and the place of the fault.
    fn faults(&self) -> Vec<(usize, Vec<u8>)> {
        let mut faults = Vec::new();
        let mut at = HEADER;
        while at < self.bytes.len() {
            let len = len(&self.bytes[at..]);
            let (opcode, last) = (self.bytes[at], at + len - 1);
            let mut fault = |change: &dyn Fn(&mut [u8])| {
                let mut bytes = self.bytes.clone();
                change(&mut bytes);
                if bytes != self.bytes {
                    faults.push((at, bytes));
                }
            };
            fault(&|bytes| bytes[at..at + len].fill(0));
            match (opcode >> 6, opcode) {
                // An instruction takes effect one unit too early or too late.
                (1, _) => {
                    fault(&|bytes| bytes[at] = 0x40 | (opcode & 0x3f).saturating_sub(1));
                    fault(&|bytes| bytes[at] = 0x40 | (opcode & 0x3f).saturating_add(1).min(0x3f));
                }
                (0, 0x02..=0x04) => {
                    let low = if self.big_endian { last } else { at + 1 };
                    fault(&|bytes| bytes[low] = bytes[low].wrapping_sub(1));
                    fault(&|bytes| bytes[low] = bytes[low].wrapping_add(1));
                }
                // A wrong register, and a wrong offset.
                (2, _) => {
                    fault(&|bytes| bytes[at] ^= 1);
                    fault(&|bytes| bytes[last] ^= 1);
                }
                (0, 0x0c | 0x0d | 0x05 | 0x11..=0x13 | 0x0e) => {
                    fault(&|bytes| bytes[at + 1] ^= 8);
                    fault(&|bytes| bytes[last] ^= 1);
                }
                _ => {}
            }
            at += len;
        }
        faults
    }
}

/// Returns the length of the instruction at the start of `bytes`. Numbers in LEB128 end at a byte
/// whose highest bit is clear.
fn len(bytes: &[u8]) -> usize {
    let numbers = |count: usize| {
        let ends = bytes[1..].iter().enumerate().filter(|(_, byte)| **byte < 0x80);
        ends.map(|(index, _)| index + 2).nth(count - 1).expect("a number ends")
    };
    match (bytes[0] >> 6, bytes[0]) {
        (1 | 3, _) | (_, 0x00 | 0x0a | 0x0b) => 1,
        (2, _) | (_, 0x06..=0x08 | 0x0d..=0x0e | 0x13) => numbers(1),
        (_, 0x02) => 2,
        (_, 0x03) => 3,
        (_, 0x04) => 5,
        (_, 0x05 | 0x0c | 0x11 | 0x12 | 0x14) => numbers(2),
        // val_expression of one byte
        (_, 0x16) => 4,
        (_, other) => panic!("instruction {other:#x}"),
    }
}
