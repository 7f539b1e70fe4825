//! Operations on integers.
//!
//! Invariant: no division traps. A divisor is made odd, and for signed division positive too.

use cranelift_codegen::ir::condcodes::IntCC;
use cranelift_codegen::ir::{InstBuilder, MemFlagsData, Type, Value, types};
use cranelift_module::Module;

use super::body::Body;
use super::constants::bits;

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

impl<M: Module> Body<'_, '_, M> {
    /// Adds a comparison of integers, which gives 1 or 0 as `i8`.
    pub(super) fn compare(&mut self, ty: Type) -> Value {
        let (a, b) = (self.pick(ty), self.pick(ty));
        let condition = *self.random.choose(&INT_CONDITIONS);
        self.builder.ins().icmp(condition, a, b)
    }

    /// Adds an operation that gives an integer.
    pub(super) fn int(&mut self, ty: Type) -> Value {
        let wide = ty == types::I128;
        match self.random.below(32) {
            0..10 => {
                let (a, b) = (self.pick(ty), self.pick(ty));
                // No back end has the minimum of 128-bit integers.
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
                // The optimizer turns a `select` of the larger of two integers into `umax`, which
                // no back end has for 128 bits.
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

    /// Adds a conversion from an integer of another width.
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

    /// Adds a conversion from a float, if there is one to this type.
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
}
