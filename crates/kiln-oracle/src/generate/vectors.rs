//! Operations on vectors of 128 bits.
//!
//! Operations that some back end lacks are left out (multiplication of bytes, the minimum of 64-bit
//! lanes, rotation), and so are the operations that Cranelift's interpreter lacks (see
//! [`crate::interpret`]).

use cranelift_codegen::ir::condcodes::FloatCC;
use cranelift_codegen::ir::{ConstantData, InstBuilder, Type, Value, types};
use cranelift_module::Module;

use super::body::Body;
use super::constants::cast;
use super::integers::INT_CONDITIONS;
use super::plan::VECTORS;

impl<M: Module> Body<'_, '_, M> {
    /// Adds an operation that gives a vector.
    pub(super) fn vector(&mut self, ty: Type) -> Value {
        match self.random.below(10) {
            0 => {
                let a = self.pick(ty.lane_type());
                self.builder.ins().splat(ty, a)
            }
            1 => {
                let (a, lane) = (self.pick(ty), self.pick(ty.lane_type()));
                let index = self.random.below(ty.lane_count()) as u8;
                self.builder.ins().insertlane(a, lane, index)
            }
            2 => {
                let others: Vec<Type> =
                    VECTORS.into_iter().filter(|other| *other != ty && self.types.contains(other)).collect();
                let from = *self.random.choose(&others);
                let a = self.pick(from);
                self.builder.ins().bitcast(ty, cast(), a)
            }
            3 => {
                let condition = self.condition();
                let (a, b) = (self.pick(ty), self.pick(ty));
                self.builder.ins().select(condition, a, b)
            }
            4 => {
                let (c, a, b) = (self.pick(ty), self.pick(ty), self.pick(ty));
                self.builder.ins().bitselect(c, a, b)
            }
            5 => {
                let (a, b) = (self.pick(ty), self.pick(ty));
                let kind = self.random.below(4);
                let ins = self.builder.ins();
                match kind {
                    0 => ins.band(a, b),
                    1 => ins.bor(a, b),
                    2 => ins.bxor(a, b),
                    _ => ins.bnot(a),
                }
            }
            6.. if ty.lane_type().is_float() => self.float_vector(ty),
            _ => self.int_vector(ty),
        }
    }

    /// Adds an operation that gives a scalar: a lane of a vector, or a test of all lanes.
    pub(super) fn lane(&mut self, ty: Type) -> Value {
        let vector = ty.by(128 / ty.bits()).expect("a vector of 128 bits");
        let a = self.pick(vector);
        match (ty, self.random.below(4)) {
            (types::I8, 0) => self.builder.ins().vany_true(a),
            (types::I8, 1) => self.builder.ins().vall_true(a),
            (types::I32 | types::I64, 0) => {
                let from = *self.random.choose(&[types::I8X16, types::I16X8, types::I32X4, types::I64X2]);
                let a = self.pick(from);
                self.builder.ins().vhigh_bits(ty, a)
            }
            _ => {
                let index = self.random.below(vector.lane_count()) as u8;
                self.builder.ins().extractlane(a, index)
            }
        }
    }

    fn int_vector(&mut self, ty: Type) -> Value {
        let (a, b) = (self.pick(ty), self.pick(ty));
        let small = ty == types::I8X16 || ty == types::I16X8;
        match self.random.below(20) {
            0..3 => self.builder.ins().iadd(a, b),
            3 => self.builder.ins().isub(a, b),
            4 if ty != types::I8X16 => self.builder.ins().imul(a, b),
            5 => self.builder.ins().ineg(a),
            6 => self.builder.ins().iabs(a),
            7..9 => {
                let by = self.pick(types::I32);
                match self.random.below(3) {
                    0 => self.builder.ins().ishl(a, by),
                    1 => self.builder.ins().ushr(a, by),
                    _ => self.builder.ins().sshr(a, by),
                }
            }
            9..11 => {
                let condition = *self.random.choose(&INT_CONDITIONS);
                self.builder.ins().icmp(condition, a, b)
            }
            11 if ty != types::I64X2 => {
                let kind = self.random.below(4);
                let ins = self.builder.ins();
                match kind {
                    0 => ins.smin(a, b),
                    1 => ins.umin(a, b),
                    2 => ins.smax(a, b),
                    _ => ins.umax(a, b),
                }
            }
            12 if small => {
                let kind = self.random.below(4);
                let ins = self.builder.ins();
                match kind {
                    0 => ins.uadd_sat(a, b),
                    1 => ins.sadd_sat(a, b),
                    2 => ins.usub_sat(a, b),
                    _ => ins.ssub_sat(a, b),
                }
            }
            13 if ty == types::I16X8 || ty == types::I32X4 => self.builder.ins().iadd_pairwise(a, b),
            14 if ty == types::I16X8 => self.builder.ins().sqmul_round_sat(a, b),
            14 if ty == types::I8X16 => self.builder.ins().popcnt(a),
            15 | 16 if ty == types::I8X16 => self.shuffled(a, b),
            15..18 => self.rearranged(ty),
            _ if self.options.floats => self.ints_of_floats(ty),
            _ => self.builder.ins().bxor(a, b),
        }
    }

    fn shuffled(&mut self, a: Value, b: Value) -> Value {
        if self.random.once_in(2) {
            return self.builder.ins().swizzle(a, b);
        }
        // The indices select from both vectors or from one, and sometimes select whole lanes.
        let width = *self.random.choose(&[1, 1, 2, 4, 8]);
        let limit = *self.random.choose(&[16, 32, 32]) / width;
        let lanes: Vec<u32> = (0..16 / width).map(|_| self.random.below(limit)).collect();
        let mask: Vec<u8> =
            lanes.iter().flat_map(|lane| (0..width).map(move |byte| (lane * width + byte) as u8)).collect();
        let mask = self.builder.func.dfg.immediates.push(ConstantData::from(mask));
        self.builder.ins().shuffle(a, b, mask)
    }

    /// Adds a conversion to narrower or wider lanes.
    fn rearranged(&mut self, ty: Type) -> Value {
        let wider = match ty {
            types::I8X16 => Some(types::I16X8),
            types::I16X8 => Some(types::I32X4),
            _ => None,
        };
        let narrower = match ty {
            types::I16X8 => Some(types::I8X16),
            types::I32X4 => Some(types::I16X8),
            types::I64X2 => Some(types::I32X4),
            _ => None,
        };
        match (wider, narrower, self.random.below(2)) {
            (Some(wider), _, 0) | (Some(wider), None, _) => {
                let (a, b) = (self.pick(wider), self.pick(wider));
                match self.random.below(2) {
                    0 => self.builder.ins().snarrow(a, b),
                    _ => self.builder.ins().unarrow(a, b),
                }
            }
            (_, Some(narrower), _) => {
                let a = self.pick(narrower);
                let kind = self.random.below(4);
                let ins = self.builder.ins();
                match kind {
                    0 => ins.swiden_low(a),
                    1 => ins.swiden_high(a),
                    2 => ins.uwiden_low(a),
                    _ => ins.uwiden_high(a),
                }
            }
            (None, None, _) => self.constant(ty),
        }
    }

    /// Adds a conversion or a comparison of floats, which gives integers.
    fn ints_of_floats(&mut self, ty: Type) -> Value {
        let from = match ty {
            types::I32X4 => types::F32X4,
            types::I64X2 => types::F64X2,
            _ => return self.constant(ty),
        };
        let (a, b) = (self.pick(from), self.pick(from));
        match (ty, self.random.below(4)) {
            (types::I32X4, 0) => self.builder.ins().fcvt_to_sint_sat(ty, a),
            (types::I32X4, 1) => self.builder.ins().fcvt_to_uint_sat(ty, a),
            _ => {
                // Some back ends lack the other conditions for vectors.
                let conditions = [
                    FloatCC::Equal,
                    FloatCC::NotEqual,
                    FloatCC::LessThan,
                    FloatCC::LessThanOrEqual,
                    FloatCC::GreaterThan,
                    FloatCC::GreaterThanOrEqual,
                ];
                let condition = *self.random.choose(&conditions);
                self.builder.ins().fcmp(condition, a, b)
            }
        }
    }

    fn float_vector(&mut self, ty: Type) -> Value {
        let (a, b) = (self.pick(ty), self.pick(ty));
        let kind = self.random.below(17);
        let ins = self.builder.ins();
        let value = match kind {
            0 | 1 => ins.fadd(a, b),
            2 => ins.fsub(a, b),
            3 | 4 => ins.fmul(a, b),
            5 => ins.fdiv(a, b),
            6 => ins.fmin(a, b),
            7 => ins.fmax(a, b),
            8 => ins.sqrt(a),
            9 => ins.ceil(a),
            10 => ins.nearest(a),
            11 => {
                let c = self.pick(ty);
                self.builder.ins().fma(a, b, c)
            }
            12 if ty == types::F32X4 => {
                let a = self.pick(types::F64X2);
                self.builder.ins().fvdemote(a)
            }
            12 => {
                let a = self.pick(types::F32X4);
                self.builder.ins().fvpromote_low(a)
            }
            // The other operations move bits or cannot give a NaN.
            13 => return ins.fneg(a),
            14 => return ins.fabs(a),
            _ => {
                let from = if ty == types::F32X4 { types::I32X4 } else { types::I64X2 };
                let a = self.pick(from);
                return match self.random.below(2) {
                    0 => self.builder.ins().fcvt_from_sint(ty, a),
                    _ => self.builder.ins().fcvt_from_uint(ty, a),
                };
            }
        };
        // Every lane that is a NaN becomes the canonical NaN.
        let nan: Vec<u8> = match ty {
            types::F32X4 => [0x7fc0_0000u32.to_le_bytes(); 4].concat(),
            _ => [0x7ff8_0000_0000_0000u64.to_le_bytes(); 2].concat(),
        };
        let nan = self.builder.func.dfg.constants.insert(ConstantData::from(nan));
        let nan = self.builder.ins().vconst(ty, nan);
        let is_nan = self.builder.ins().fcmp(FloatCC::NotEqual, value, value);
        let is_nan = self.builder.ins().bitcast(ty, cast(), is_nan);
        self.builder.ins().bitselect(is_nan, nan, value)
    }
}
