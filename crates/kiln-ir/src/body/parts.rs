//! Encodes types, signatures, opcodes and trap codes as bytes, for the canonical form of functions
//! and the binary form of modules.
//!
//! Invariants:
//! - Structures are destructured with every field named before they are written. If a new version
//!   of Cranelift adds a field, this does not compile until the field is written too.
//! - Enumerations that Cranelift lists (`all()`) are written as a position in that list, which for
//!   opcodes and conditions is their discriminant. Others are written as a number given here.

use std::sync::LazyLock;

use cranelift_codegen::ir::condcodes::{FloatCC, IntCC};
use cranelift_codegen::ir::{
    AbiParam, ArgumentExtension, ArgumentPurpose, AtomicRmwOp, LibCall, Opcode, Signature, TrapCode, Type,
    types,
};
use cranelift_codegen::isa::CallConv;

use super::wire::{ByteReader, ByteWriter, DecodeResult};

/// Types by their number in Cranelift; [`types::INVALID`] for numbers without a type.
static TYPES: LazyLock<[Type; 0x200]> = LazyLock::new(|| {
    let lanes = [
        types::I8,
        types::I16,
        types::I32,
        types::I64,
        types::I128,
        types::F16,
        types::F32,
        types::F64,
        types::F128,
    ];
    let mut table = [types::INVALID; 0x200];
    for lane in lanes {
        for count in (0..=8).map(|log2| 1 << log2) {
            let Some(fixed) = lane.by(count) else { continue };
            for ty in [Some(fixed), fixed.is_vector().then(|| fixed.vector_to_dynamic()).flatten()] {
                let Some(ty) = ty else { continue };
                if let Some(entry) = table.get_mut(ty.index()) {
                    *entry = ty;
                }
            }
        }
    }
    table
});

/// For each opcode, the set of types that may be its controlling type: one bit for each number.
static CONTROLLING: LazyLock<Box<[[u64; 8]; 0x100]>> = LazyLock::new(|| {
    let mut table = Box::new([[0; 8]; 0x100]);
    for opcode in Opcode::all() {
        let Some(set) = opcode.constraints().ctrl_typeset() else { continue };
        let allowed = |ty: &Type| !ty.is_invalid() && set.contains(*ty) && gives_results(*opcode, *ty);
        for ty in TYPES.iter().copied().filter(allowed) {
            table[*opcode as usize][ty.index() / 64] |= 1 << (ty.index() % 64);
        }
    }
    table
});

/// Tells whether Cranelift can derive the types of results from a controlling type. Its type sets
/// contain some types for which it panics instead; no function has an instruction with such a type.
fn gives_results(opcode: Opcode, ty: Type) -> bool {
    match opcode {
        Opcode::ExtractVector => ty.is_dynamic_vector(),
        // Lanes are merged in pairs, and a dynamic vector has two at least.
        Opcode::SwidenLow | Opcode::SwidenHigh | Opcode::UwidenLow | Opcode::UwidenHigh => {
            !ty.is_dynamic_vector() || ty.min_lane_count() > 2
        }
        _ => true,
    }
}

impl ByteWriter {
    /// Writes a type: its number, or 1 and the low byte of the number if it is dynamic. No type has
    /// number 1.
    pub(crate) fn ty(&mut self, ty: Type) {
        let number = ty.index();
        if number > 0xff {
            self.byte(1);
        }
        self.byte(number as u8);
    }

    /// Writes a byte and a type.
    #[inline]
    pub(crate) fn byte_and_type(&mut self, byte: u8, ty: Type) {
        match u8::try_from(ty.index()) {
            Ok(number) => self.raw(&[byte, number]),
            Err(_) => {
                self.byte(byte);
                self.ty(ty);
            }
        }
    }

    pub(crate) fn signature(&mut self, signature: &Signature) {
        let Signature { params, returns, call_conv } = signature;
        self.byte(match call_conv {
            CallConv::Fast => 0,
            CallConv::Tail => 1,
            CallConv::SystemV => 2,
            CallConv::WindowsFastcall => 3,
            CallConv::AppleAarch64 => 4,
            CallConv::Probestack => 5,
            CallConv::Winch => 6,
            CallConv::PreserveAll => 7,
        });
        for list in [params, returns] {
            self.count(list.len());
            for AbiParam { value_type, purpose, extension } in list {
                let extension = match extension {
                    ArgumentExtension::None => 0,
                    ArgumentExtension::Uext => 1,
                    ArgumentExtension::Sext => 2,
                };
                let (purpose, size) = match purpose {
                    ArgumentPurpose::Normal => (0, None),
                    ArgumentPurpose::StructReturn => (1, None),
                    ArgumentPurpose::VMContext => (2, None),
                    ArgumentPurpose::StructArgument(size) => (3, Some(*size)),
                };
                self.ty(*value_type);
                self.byte(purpose << 2 | extension);
                if let Some(size) = size {
                    self.uint(u64::from(size));
                }
            }
        }
    }

    pub(crate) fn trap(&mut self, code: Option<TrapCode>) {
        self.byte(code.map_or(0, |code| code.as_raw().get()));
    }

    /// Writes the position of `item` in `list`, which contains it.
    pub(crate) fn listed<T: PartialEq>(&mut self, list: &[T], item: &T) {
        let position = list.iter().position(|other| other == item);
        self.count(position.expect("Cranelift lists all of them"));
    }
}

impl ByteReader<'_> {
    /// Reads a type, which must be valid.
    #[inline]
    pub(crate) fn ty(&mut self) -> DecodeResult<Type> {
        let first = usize::from(self.byte()?);
        let number = if first == 1 { 0x100 | usize::from(self.byte()?) } else { first };
        match TYPES[number] {
            types::INVALID => Err(self.error("not a type")),
            ty => Ok(ty),
        }
    }

    /// Reads a type that may be the controlling type of `opcode`.
    #[inline]
    pub(crate) fn controlling(&mut self, opcode: Opcode) -> DecodeResult<Type> {
        let ty = self.ty()?;
        let number = ty.index();
        match CONTROLLING[opcode as usize & 0xff][number / 64] >> (number % 64) & 1 {
            0 => Err(self.error("not a type for this instruction")),
            _ => Ok(ty),
        }
    }

    pub(crate) fn signature(&mut self) -> DecodeResult<Signature> {
        let mut lists = [Vec::new(), Vec::new()];
        let (call_conv, _) = self.params(|list, count, param| {
            let list = &mut lists[list];
            if list.is_empty() {
                list.reserve_exact(count);
            }
            list.push(param);
        })?;
        let [params, returns] = lists;
        Ok(Signature { params, returns, call_conv })
    }

    /// Skips a signature. Returns its number of results.
    pub(crate) fn skip_signature(&mut self) -> DecodeResult<usize> {
        self.params(|_, _, _| ()).map(|(_, results)| results)
    }

    /// Reads a signature. Calls `each` for each parameter (list 0) and result (list 1), with the
    /// number of the list and its length. Returns the calling convention and the number of results.
    #[inline]
    fn params(&mut self, mut each: impl FnMut(usize, usize, AbiParam)) -> DecodeResult<(CallConv, usize)> {
        let call_conv = match self.byte()? {
            0 => CallConv::Fast,
            1 => CallConv::Tail,
            2 => CallConv::SystemV,
            3 => CallConv::WindowsFastcall,
            4 => CallConv::AppleAarch64,
            5 => CallConv::Probestack,
            6 => CallConv::Winch,
            7 => CallConv::PreserveAll,
            _ => return Err(self.error("not a calling convention")),
        };
        let mut count = 0;
        for list in 0..2 {
            count = self.count()?;
            if count > usize::from(u16::MAX) {
                return Err(self.error("more than 65,535 parameters or results"));
            }
            for _ in 0..count {
                let value_type = self.ty()?;
                let code = self.byte()?;
                let extension = match code & 3 {
                    0 => ArgumentExtension::None,
                    1 => ArgumentExtension::Uext,
                    2 => ArgumentExtension::Sext,
                    _ => return Err(self.error("not an extension of a parameter")),
                };
                let purpose = match code >> 2 {
                    0 => ArgumentPurpose::Normal,
                    1 => ArgumentPurpose::StructReturn,
                    2 => ArgumentPurpose::VMContext,
                    3 => ArgumentPurpose::StructArgument(self.u32()?),
                    _ => return Err(self.error("not a purpose of a parameter")),
                };
                each(list, count, AbiParam { value_type, purpose, extension });
            }
        }
        Ok((call_conv, count))
    }

    /// Reads an optional trap code.
    pub(crate) fn trap(&mut self) -> DecodeResult<Option<TrapCode>> {
        Ok(std::num::NonZeroU8::new(self.byte()?).map(TrapCode::from_raw))
    }

    /// Reads a trap code that must be present.
    pub(crate) fn some_trap(&mut self) -> DecodeResult<TrapCode> {
        self.trap()?.ok_or_else(|| self.error("not a trap code"))
    }

    fn listed<T: Copy>(&mut self, list: &[T], what: &'static str) -> DecodeResult<T> {
        self.index(list.len(), what).map(|index| list[index])
    }

    pub(crate) fn opcode(&mut self) -> DecodeResult<Opcode> {
        // Cranelift numbers opcodes from 1, in the order of this list.
        let number = self.byte()?;
        let found = usize::from(number).checked_sub(1).and_then(|index| Opcode::all().get(index));
        found.copied().ok_or_else(|| self.error("not an instruction"))
    }

    pub(crate) fn int_cc(&mut self) -> DecodeResult<IntCC> {
        self.listed(IntCC::all(), "not a condition")
    }

    pub(crate) fn float_cc(&mut self) -> DecodeResult<FloatCC> {
        self.listed(FloatCC::all(), "not a condition")
    }

    pub(crate) fn rmw(&mut self) -> DecodeResult<AtomicRmwOp> {
        self.listed(AtomicRmwOp::all(), "not an atomic operation")
    }

    pub(crate) fn libcall(&mut self) -> DecodeResult<LibCall> {
        self.listed(LibCall::all_libcalls(), "not a library call")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn opcodes_are_numbered_as_listed() {
        for (index, opcode) in Opcode::all().iter().enumerate() {
            assert_eq!(usize::from(*opcode as u8), index + 1);
        }
    }

    #[test]
    fn conditions_are_numbered_as_listed() {
        assert!(IntCC::all().iter().enumerate().all(|(index, cond)| usize::from(*cond as u8) == index));
        assert!(FloatCC::all().iter().enumerate().all(|(index, cond)| usize::from(*cond as u8) == index));
    }

    #[test]
    fn controlling_types_give_results() {
        let mut wrong = Vec::new();
        for opcode in Opcode::all() {
            let constraints = opcode.constraints();
            for ty in TYPES.iter().filter(|ty| !ty.is_invalid()) {
                let allowed = CONTROLLING[*opcode as usize][ty.index() / 64] >> (ty.index() % 64) & 1 != 0;
                let types = || (0..constraints.num_fixed_results()).map(|n| constraints.result_type(n, *ty));
                if allowed && crate::guard::guard(|| types().count()).is_err() {
                    wrong.push(format!("{opcode} {ty}"));
                }
            }
        }
        assert_eq!(wrong, [""; 0]);
    }

    #[test]
    fn types_come_back() {
        let all: Vec<Type> = TYPES.iter().copied().filter(|ty| !ty.is_invalid()).collect();
        assert!(all.len() > 100 && all.contains(&types::I8X16) && all.contains(&types::F64X2XN));
        for ty in all {
            let mut writer = ByteWriter::default();
            writer.ty(ty);
            assert_eq!(ByteReader::new(&writer.0).ty(), Ok(ty));
        }
        assert!(ByteReader::new(&[0]).ty().is_err());
        assert!(ByteReader::new(&[1, 0]).ty().is_err());
    }

    #[test]
    fn signatures_come_back() {
        let mut signature = Signature::new(CallConv::Tail);
        let mut param = AbiParam::new(types::I8).uext();
        param.purpose = ArgumentPurpose::StructArgument(48);
        signature.params.extend([param, AbiParam::special(types::I64, ArgumentPurpose::VMContext)]);
        signature.returns.push(AbiParam::new(types::I16).sext());
        let mut writer = ByteWriter::default();
        writer.signature(&signature);
        assert_eq!(ByteReader::new(&writer.0).signature(), Ok(signature));
    }
}
