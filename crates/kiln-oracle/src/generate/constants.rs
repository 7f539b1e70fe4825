//! Chooses numbers that are likely to find bugs, and adds constants and the bits of values to a
//! body.

use cranelift_codegen::ir::immediates::{Ieee32, Ieee64};
use cranelift_codegen::ir::{ConstantData, Endianness, InstBuilder, MemFlagsData, Type, Value, types};
use cranelift_module::Module;

use super::body::Body;
use crate::random::Random;

/// Returns a number that is likely to find bugs, such as a limit of a type.
pub(super) fn bits(random: &mut Random) -> u64 {
    match random.below(10) {
        0 => 0,
        1 => 1,
        2 => u64::MAX,
        3 => 1 << random.below(64),
        4 => (1 << random.below(64)) - 1,
        5 => !0 << random.below(64),
        6 | 7 => u64::from(random.below(256)),
        _ => random.next(),
    }
}

/// Returns a 64-bit float that is likely to find bugs. A NaN is always the canonical NaN.
pub(super) fn float(random: &mut Random) -> f64 {
    let special = [
        0.0,
        -0.0,
        1.0,
        -1.0,
        0.5,
        1.5,
        2.5,
        f64::INFINITY,
        f64::NEG_INFINITY,
        f64::MIN_POSITIVE,
        5e-324,
        f64::MAX,
        2_147_483_648.0,
        -9_223_372_036_854_775_808.0,
        1e-40,
        16_777_217.0,
    ];
    match random.below(8) {
        0 => f64::from_bits(0x7ff8_0000_0000_0000),
        1..5 => *random.choose(&special),
        5 => f64::from(random.next() as i32) / 8.0,
        _ => {
            let value = f64::from_bits(random.next());
            if value.is_nan() { 3.25 } else { value }
        }
    }
}

/// Returns the bits of a 32-bit float, chosen as in [`float`].
pub(super) fn float32(random: &mut Random) -> u32 {
    let value = float(random);
    if value.is_nan() { 0x7fc0_0000 } else { (value as f32).to_bits() }
}

/// Returns the flags of a `bitcast`, by which lanes are numbered from the lowest byte on.
pub(super) fn cast() -> MemFlagsData {
    MemFlagsData::new().with_endianness(Endianness::Little)
}

impl<M: Module> Body<'_, '_, M> {
    /// Adds a constant of any type.
    pub(super) fn constant(&mut self, ty: Type) -> Value {
        match ty {
            types::F32 => {
                let bits = float32(&mut self.random);
                self.builder.ins().f32const(Ieee32::with_bits(bits))
            }
            types::F64 => {
                let bits = float(&mut self.random).to_bits();
                self.builder.ins().f64const(Ieee64::with_bits(bits))
            }
            types::I128 => {
                let (low, high) = (self.constant(types::I64), self.constant(types::I64));
                match self.random.below(3) {
                    0 => self.builder.ins().uextend(types::I128, low),
                    1 => self.builder.ins().sextend(types::I128, low),
                    _ => self.builder.ins().iconcat(low, high),
                }
            }
            ty if ty.is_vector() => {
                let bytes = match ty.lane_type() {
                    types::F32 => (0..4).flat_map(|_| float32(&mut self.random).to_le_bytes()).collect(),
                    types::F64 => (0..2).flat_map(|_| float(&mut self.random).to_le_bytes()).collect(),
                    _ => self.random.bytes(16),
                };
                let constant = self.builder.func.dfg.constants.insert(ConstantData::from(bytes));
                self.builder.ins().vconst(ty, constant)
            }
            ty => {
                let number = self.number(ty, bits);
                self.builder.ins().iconst(ty, number)
            }
        }
    }

    /// Returns an immediate of an integer type: no bit is set beyond the type's width.
    pub(super) fn number(&mut self, ty: Type, bits: impl FnOnce(&mut Random) -> u64) -> i64 {
        let bits = bits(&mut self.random);
        if ty.bits() < 64 { (bits & ((1 << ty.bits()) - 1)) as i64 } else { bits as i64 }
    }

    /// Adds code that reduces or extends any value to 64 bits, which depend on all bits of the
    /// value.
    pub(super) fn bits(&mut self, ty: Type, value: Value) -> Value {
        match ty {
            types::I64 => value,
            types::I128 => {
                let (low, high) = self.builder.ins().isplit(value);
                self.builder.ins().bxor(low, high)
            }
            types::F32 => {
                let value = self.builder.ins().bitcast(types::I32, MemFlagsData::new(), value);
                self.builder.ins().uextend(types::I64, value)
            }
            types::F64 => self.builder.ins().bitcast(types::I64, MemFlagsData::new(), value),
            ty if ty.is_vector() => {
                let value = match ty {
                    types::I64X2 => value,
                    _ => self.builder.ins().bitcast(types::I64X2, cast(), value),
                };
                let (low, high) =
                    (self.builder.ins().extractlane(value, 0), self.builder.ins().extractlane(value, 1));
                let factor = self.builder.ins().iconst(types::I64, 31);
                let high = self.builder.ins().imul(high, factor);
                self.builder.ins().bxor(low, high)
            }
            _ => self.builder.ins().uextend(types::I64, value),
        }
    }
}
