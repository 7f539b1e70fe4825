//! Operations on integers and floats.
//!
//! Invariants:
//! - What may be a NaN that an operation made becomes the one canonical NaN at once, since machines differ in its bits.
//! - No division traps: a divisor is made odd, and for signed division positive too.

use cranelift_codegen::ir::condcodes::{FloatCC, IntCC};
use cranelift_codegen::ir::immediates::{Ieee32, Ieee64};
use cranelift_codegen::ir::{ConstantData, Endianness, InstBuilder, MemFlagsData, Type, Value, types};
use cranelift_module::Module;

use super::body::Body;
use super::plan::{bits, float, float32};

const INTS: [Type; 5] = [types::I8, types::I16, types::I32, types::I64, types::I128];

pub(super) const INT_CONDITIONS: [IntCC; 10] = [
    IntCC::Equal,
    IntCC::NotEqual,
    IntCC::SignedLessThan,
    IntCC::SignedGreaterThanOrEqual,
    IntCC::SignedGreaterThan,
    IntCC::SignedLessThanOrEqual,
    IntCC::UnsignedLessThan,
    IntCC::UnsignedGreaterThanOrEqual,
    IntCC::UnsignedGreaterThan,
    IntCC::UnsignedLessThanOrEqual,
];

const FLOAT_CONDITIONS: [FloatCC; 14] = [
    FloatCC::Ordered,
    FloatCC::Unordered,
    FloatCC::Equal,
    FloatCC::NotEqual,
    FloatCC::OrderedNotEqual,
    FloatCC::UnorderedOrEqual,
    FloatCC::LessThan,
    FloatCC::LessThanOrEqual,
    FloatCC::GreaterThan,
    FloatCC::GreaterThanOrEqual,
    FloatCC::UnorderedOrLessThan,
    FloatCC::UnorderedOrLessThanOrEqual,
    FloatCC::UnorderedOrGreaterThan,
    FloatCC::UnorderedOrGreaterThanOrEqual,
];

/// Flags of a `bitcast`: lanes are numbered from the lowest byte on.
pub(super) fn cast() -> MemFlagsData {
    MemFlagsData::new().with_endianness(Endianness::Little)
}

impl<M: Module> Body<'_, '_, M> {
    /// A constant of any type.
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

    /// An immediate of an integer type: no bit is set that the type has not.
    fn number(&mut self, ty: Type, bits: impl FnOnce(&mut crate::random::Random) -> u64) -> i64 {
        let bits = bits(&mut self.random);
        if ty.bits() < 64 { (bits & ((1 << ty.bits()) - 1)) as i64 } else { bits as i64 }
    }

    /// The bits of any value as 64 bits, all of which count.
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

    /// A comparison of integers; 1 or 0 as `i8`.
    pub(super) fn compare(&mut self, ty: Type) -> Value {
        let (a, b) = (self.pick(ty), self.pick(ty));
        let condition = *self.random.choose(&INT_CONDITIONS);
        self.builder.ins().icmp(condition, a, b)
    }

    /// A comparison of floats; 1 or 0 as `i8`.
    pub(super) fn compare_floats(&mut self, ty: Type) -> Value {
        let (a, b) = (self.pick(ty), self.pick(ty));
        let condition = *self.random.choose(&FLOAT_CONDITIONS);
        self.builder.ins().fcmp(condition, a, b)
    }

    /// A new integer.
    pub(super) fn int(&mut self, ty: Type) -> Value {
        let wide = ty == types::I128;
        match self.random.below(32) {
            0..10 => {
                let (a, b) = (self.pick(ty), self.pick(ty));
                // No back end has minima of 128 bits.
                let kind = self.random.below(if wide { 7 } else { 11 });
                let ins = self.builder.ins();
                match kind {
                    0 | 1 => ins.iadd(a, b),
                    2 => ins.isub(a, b),
                    3 => ins.imul(a, b),
                    4 => ins.band(a, b),
                    5 => ins.bor(a, b),
                    6 => ins.bxor(a, b),
                    7 => ins.smin(a, b),
                    8 => ins.umin(a, b),
                    9 => ins.smax(a, b),
                    _ => ins.umax(a, b),
                }
            }
            10..14 => {
                let by = *self.random.choose(&INTS);
                let (a, b) = (self.pick(ty), self.pick(by));
                let kind = self.random.below(5);
                let ins = self.builder.ins();
                match kind {
                    0 => ins.ishl(a, b),
                    1 => ins.ushr(a, b),
                    2 => ins.sshr(a, b),
                    3 => ins.rotl(a, b),
                    _ => ins.rotr(a, b),
                }
            }
            14..17 => {
                let a = self.pick(ty);
                let kind = self.random.below(9);
                let ins = self.builder.ins();
                match kind {
                    0 => ins.ineg(a),
                    1 => ins.bnot(a),
                    2 => ins.clz(a),
                    3 => ins.ctz(a),
                    4 => ins.popcnt(a),
                    5 => ins.bitrev(a),
                    6 if ty != types::I8 => ins.bswap(a),
                    7 if !wide => ins.cls(a),
                    _ if wide => ins.ineg(a),
                    _ => ins.iabs(a),
                }
            }
            17 | 18 if !wide => self.divide(ty),
            19 if ty.bits() >= 16 && !wide => {
                let (a, b) = (self.pick(ty), self.pick(ty));
                match self.random.below(2) {
                    0 => self.builder.ins().umulhi(a, b),
                    _ => self.builder.ins().smulhi(a, b),
                }
            }
            20 if !wide && self.options.overflow => self.overflow(ty),
            21 | 22 => {
                // A choice of the larger of two is made a `umax` by the optimizer, which no back end has for 128 bits.
                let condition = if wide { self.compare(types::I64) } else { self.condition() };
                let (a, b) = (self.pick(ty), self.pick(ty));
                match self.random.below(4) {
                    0 => self.builder.ins().select_spectre_guard(condition, a, b),
                    _ => self.builder.ins().select(condition, a, b),
                }
            }
            23 => {
                let from = *self.random.choose(&INTS);
                let a = self.pick(from);
                self.builder.ins().bmask(ty, a)
            }
            24 if !wide => {
                let (c, a, b) = (self.pick(ty), self.pick(ty), self.pick(ty));
                self.builder.ins().bitselect(c, a, b)
            }
            25 if self.options.floats => match self.int_of_float(ty) {
                Some(value) => value,
                None => self.resize(ty),
            },
            26 if ty == types::I8 && self.random.once_in(3) => self.compare(types::I64),
            26 | 27 if self.options.vectors && !wide => self.lane(ty),
            _ => self.resize(ty),
        }
    }

    fn divide(&mut self, ty: Type) -> Value {
        let (a, b) = (self.pick(ty), self.pick(ty));
        let one = self.builder.ins().iconst(ty, 1);
        let b = self.builder.ins().bor(b, one);
        let positive = self.number(ty, |_| (1 << (ty.bits() - 1)) - 1);
        match self.random.below(4) {
            0 => self.builder.ins().udiv(a, b),
            1 => self.builder.ins().urem(a, b),
            kind => {
                let positive = self.builder.ins().iconst(ty, positive);
                let b = self.builder.ins().band(b, positive);
                match kind {
                    2 => self.builder.ins().sdiv(a, b),
                    _ => self.builder.ins().srem(a, b),
                }
            }
        }
    }

    fn overflow(&mut self, ty: Type) -> Value {
        let (a, b) = (self.pick(ty), self.pick(ty));
        let kind = self.random.below(6);
        let ins = self.builder.ins();
        let (value, over) = match kind {
            0 => ins.uadd_overflow(a, b),
            1 => ins.sadd_overflow(a, b),
            2 => ins.usub_overflow(a, b),
            3 => ins.ssub_overflow(a, b),
            4 => ins.umul_overflow(a, b),
            _ => ins.smul_overflow(a, b),
        };
        self.scope.push((types::I8, over));
        value
    }

    /// An integer of another width, made wider or narrower.
    fn resize(&mut self, ty: Type) -> Value {
        let from = *self.random.choose(&INTS);
        if from == ty {
            if ty == types::I128 {
                let (a, b) = (self.pick(types::I64), self.pick(types::I64));
                return self.builder.ins().iconcat(a, b);
            }
            if ty == types::I64 {
                let a = self.pick(types::I128);
                let (low, high) = self.builder.ins().isplit(a);
                return if self.random.once_in(2) { low } else { high };
            }
        }
        let a = self.pick(from);
        if from.bits() > ty.bits() {
            self.builder.ins().ireduce(ty, a)
        } else if from == ty {
            let number = self.number(ty, bits);
            let number = self.builder.ins().iconst(ty, number);
            self.builder.ins().iadd(a, number)
        } else if self.random.once_in(2) {
            self.builder.ins().uextend(ty, a)
        } else {
            self.builder.ins().sextend(ty, a)
        }
    }

    /// An integer from a float, if there is such a conversion.
    fn int_of_float(&mut self, ty: Type) -> Option<Value> {
        let from = *self.random.choose(&[types::F32, types::F64]);
        let a = self.pick(from);
        Some(match (ty, self.random.below(3)) {
            (types::I8, _) => self.compare_floats(from),
            (types::I32 | types::I64, 0) => self.builder.ins().fcvt_to_sint_sat(ty, a),
            (types::I32 | types::I64, 1) => self.builder.ins().fcvt_to_uint_sat(ty, a),
            (types::I32, _) => {
                let a = self.pick(types::F32);
                self.builder.ins().bitcast(ty, MemFlagsData::new(), a)
            }
            (types::I64, _) => {
                let a = self.pick(types::F64);
                self.builder.ins().bitcast(ty, MemFlagsData::new(), a)
            }
            _ => return None,
        })
    }

    /// A new float.
    pub(super) fn float(&mut self, ty: Type) -> Value {
        let value = match self.random.below(20) {
            0..8 => {
                let (a, b) = (self.pick(ty), self.pick(ty));
                let kind = self.random.below(6);
                let ins = self.builder.ins();
                match kind {
                    0 => ins.fadd(a, b),
                    1 => ins.fsub(a, b),
                    2 => ins.fmul(a, b),
                    3 => ins.fdiv(a, b),
                    4 => ins.fmin(a, b),
                    _ => ins.fmax(a, b),
                }
            }
            8..11 => {
                let a = self.pick(ty);
                let kind = self.random.below(5);
                let ins = self.builder.ins();
                match kind {
                    0 => ins.sqrt(a),
                    1 => ins.ceil(a),
                    2 => ins.floor(a),
                    3 => ins.trunc(a),
                    _ => ins.nearest(a),
                }
            }
            11 => {
                let (a, b, c) = (self.pick(ty), self.pick(ty), self.pick(ty));
                self.builder.ins().fma(a, b, c)
            }
            12 => match ty {
                types::F32 => {
                    let a = self.pick(types::F64);
                    self.builder.ins().fdemote(ty, a)
                }
                _ => {
                    let a = self.pick(types::F32);
                    self.builder.ins().fpromote(ty, a)
                }
            },
            // What follows moves bits or cannot give a NaN.
            kind => return self.exact(ty, kind),
        };
        self.canonical(ty, value)
    }

    fn exact(&mut self, ty: Type, kind: u32) -> Value {
        match kind {
            13 => {
                let a = self.pick(ty);
                match self.random.below(2) {
                    0 => self.builder.ins().fneg(a),
                    _ => self.builder.ins().fabs(a),
                }
            }
            14 => {
                let (a, b) = (self.pick(ty), self.pick(ty));
                self.builder.ins().fcopysign(a, b)
            }
            15 | 16 => {
                let from = *self.random.choose(&[types::I32, types::I64]);
                let a = self.pick(from);
                match self.random.below(2) {
                    0 => self.builder.ins().fcvt_from_sint(ty, a),
                    _ => self.builder.ins().fcvt_from_uint(ty, a),
                }
            }
            17 => {
                let from = if ty == types::F32 { types::I32 } else { types::I64 };
                let a = self.pick(from);
                self.builder.ins().bitcast(ty, MemFlagsData::new(), a)
            }
            18 if self.options.vectors => self.lane(ty),
            _ => {
                let condition = self.condition();
                let (a, b) = (self.pick(ty), self.pick(ty));
                self.builder.ins().select(condition, a, b)
            }
        }
    }

    /// `value`, or the canonical NaN if it is a NaN.
    fn canonical(&mut self, ty: Type, value: Value) -> Value {
        let nan = match ty {
            types::F32 => self.builder.ins().f32const(Ieee32::with_bits(0x7fc0_0000)),
            _ => self.builder.ins().f64const(Ieee64::with_bits(0x7ff8_0000_0000_0000)),
        };
        let is_nan = self.builder.ins().fcmp(FloatCC::Unordered, value, value);
        self.builder.ins().select(is_nan, nan, value)
    }
}
