//! Operations on floats.
//!
//! Invariant: a result that may be a NaN is replaced by the one canonical NaN at once, since
//! machines differ in the bits of a NaN that an operation makes.

use cranelift_codegen::ir::condcodes::FloatCC;
use cranelift_codegen::ir::immediates::{Ieee32, Ieee64};
use cranelift_codegen::ir::{InstBuilder, MemFlagsData, Type, Value, types};
use cranelift_module::Module;

use super::body::Body;

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

impl<M: Module> Body<'_, '_, M> {
    /// Adds a comparison of floats, which gives 1 or 0 as `i8`.
    pub(super) fn compare_floats(&mut self, ty: Type) -> Value {
        let (a, b) = (self.pick(ty), self.pick(ty));
        let condition = *self.random.choose(&FLOAT_CONDITIONS);
        self.builder.ins().fcmp(condition, a, b)
    }

    /// Adds an operation that gives a float.
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
            // The other operations move bits or cannot give a NaN.
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

    /// Adds code that replaces a NaN by the canonical NaN.
    fn canonical(&mut self, ty: Type, value: Value) -> Value {
        let nan = match ty {
            types::F32 => self.builder.ins().f32const(Ieee32::with_bits(0x7fc0_0000)),
            _ => self.builder.ins().f64const(Ieee64::with_bits(0x7ff8_0000_0000_0000)),
        };
        let is_nan = self.builder.ins().fcmp(FloatCC::Unordered, value, value);
        self.builder.ins().select(is_nan, nan, value)
    }
}
