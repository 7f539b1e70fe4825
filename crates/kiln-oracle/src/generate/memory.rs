//! Statements that load and store, and that compare addresses.

use cranelift_codegen::ir::condcodes::IntCC;
use cranelift_codegen::ir::{AtomicRmwOp, Endianness, InstBuilder, MemFlagsData, Type, Value, types};
use cranelift_module::Module;

use super::body::Body;
use super::constants::cast;
use super::objects::{AccessSite, ObjectBase};
use super::plan::{PointerTarget, visible};

impl<M: Module> Body<'_, '_, M> {
    /// Adds a load, a store or a comparison of addresses.
    pub(super) fn memory(&mut self) {
        let kind = self.random.below(14);
        match kind {
            12 => self.alignment(),
            13 => self.identity(),
            0..4 => {
                let ty = *self.random.choose(&self.types.clone());
                let Some(AccessSite { address, offset, flags }) = self.access_site(ty.bytes(), true, false)
                else {
                    return;
                };
                let value = self.pick(ty);
                self.builder.ins().store(flags, value, address, offset);
            }
            4..8 => {
                let ty = *self.random.choose(&self.types.clone());
                let Some(AccessSite { address, offset, flags }) = self.access_site(ty.bytes(), false, false)
                else {
                    return;
                };
                // Without AVX, Cranelift 0.135 lets `cmpps` and `cmppd` load from unaligned
                // addresses, where they fault. It never merges loads of integers into them.
                let value = if ty.is_vector() && ty.lane_type().is_float() {
                    let bits = self.builder.ins().load(ty.as_int(), flags, address, offset);
                    self.builder.ins().bitcast(ty, cast(), bits)
                } else {
                    self.builder.ins().load(ty, flags, address, offset)
                };
                self.keep(ty, value);
            }
            8 => self.narrow_store(),
            9 => self.extending_load(),
            10 if self.options.vectors => self.widening_load(),
            _ if self.options.atomics => self.atomic(),
            _ => {}
        }
    }

    /// Adds code that mixes a number into 8 bytes of memory that outlives the function, if there
    /// are any.
    pub(super) fn keep_in_memory(&mut self, value: Value) {
        let slots = std::mem::take(&mut self.slots);
        let site = self.access_site(8, true, false);
        self.slots = slots;
        let Some(AccessSite { address, offset, flags }) = site else { return };
        let before = self.builder.ins().load(types::I64, flags, address, offset);
        let after = self.builder.ins().bxor(before, value);
        self.builder.ins().store(flags, after, address, offset);
    }

    fn keep(&mut self, ty: Type, value: Value) {
        if self.random.once_in(2) {
            self.set(ty, value);
        } else {
            self.scope.push((ty, value));
        }
    }

    /// Adds code that gives an address modulo its alignment, which is 0 in every engine.
    fn alignment(&mut self) {
        let Some(object) = self.object(1, false) else { return };
        let base = match object.base {
            ObjectBase::Data(number) => {
                self.symbol(self.ids.data[number].expect("what is visible is declared"), 0)
            }
            ObjectBase::Global(number) => self.symbol(self.ids.globals[number], 0),
            ObjectBase::Slot(slot) => self.builder.ins().stack_addr(types::I64, slot, 0),
            ObjectBase::Pointer(data, offset, addend) => {
                let pointer = self.load_pointer(data, offset);
                self.add(pointer, -addend)
            }
        };
        let mask = self.builder.ins().iconst(types::I64, i64::from(object.align) - 1);
        let rest = self.builder.ins().band(base, mask);
        self.scope.push((types::I64, rest));
    }

    /// Adds a comparison of a pointer in data with the address that code computes: they are equal.
    fn identity(&mut self) {
        let seen = |target| match target {
            PointerTarget::Function(number) => self.ids.functions[number].is_some() && self.sees(number),
            PointerTarget::Data(number, _) => {
                visible(self.plan.data[number].linkage, self.plan.data[number].module, self.module)
            }
            PointerTarget::Global(..) => true,
        };
        let pointers = self.pointers(seen);
        if pointers.is_empty() {
            return;
        }
        let (data, offset, target) = *self.random.choose(&pointers);
        let loaded = self.load_pointer(data, offset);
        let computed = match target {
            PointerTarget::Function(number) => self.function_address(number),
            PointerTarget::Data(number, addend) => {
                self.symbol(self.ids.data[number].expect("what is visible is declared"), addend)
            }
            PointerTarget::Global(number, addend) => self.symbol(self.ids.globals[number], addend),
        };
        let equal = self.builder.ins().icmp(IntCC::Equal, loaded, computed);
        self.scope.push((types::I8, equal));
    }

    fn narrow_store(&mut self) {
        let width = *self.random.choose(&[1, 2, 4]);
        let Some(AccessSite { address, offset, flags }) = self.access_site(width, true, false) else {
            return;
        };
        match width {
            1 => {
                let ty = *self.random.choose(&[types::I16, types::I32, types::I64]);
                let value = self.pick(ty);
                self.builder.ins().istore8(flags, value, address, offset);
            }
            2 => {
                let ty = *self.random.choose(&[types::I32, types::I64]);
                let value = self.pick(ty);
                self.builder.ins().istore16(flags, value, address, offset);
            }
            _ => {
                let value = self.pick(types::I64);
                self.builder.ins().istore32(flags, value, address, offset);
            }
        }
    }

    fn extending_load(&mut self) {
        let width = *self.random.choose(&[1, 2, 4]);
        let Some(AccessSite { address, offset, flags }) = self.access_site(width, false, false) else {
            return;
        };
        let signed = self.random.once_in(2);
        let ty = match width {
            1 => *self.random.choose(&[types::I16, types::I32, types::I64]),
            2 => *self.random.choose(&[types::I32, types::I64]),
            _ => types::I64,
        };
        let ins = self.builder.ins();
        let value = match (width, signed) {
            (1, true) => ins.sload8(ty, flags, address, offset),
            (1, false) => ins.uload8(ty, flags, address, offset),
            (2, true) => ins.sload16(ty, flags, address, offset),
            (2, false) => ins.uload16(ty, flags, address, offset),
            (_, true) => ins.sload32(flags, address, offset),
            (_, false) => ins.uload32(flags, address, offset),
        };
        self.keep(ty, value);
    }

    fn widening_load(&mut self) {
        let Some(AccessSite { address, offset, flags }) = self.access_site(8, false, false) else { return };
        let kind = self.random.below(6);
        let ins = self.builder.ins();
        let (ty, value) = match kind {
            0 => (types::I16X8, ins.uload8x8(flags, address, offset)),
            1 => (types::I16X8, ins.sload8x8(flags, address, offset)),
            2 => (types::I32X4, ins.uload16x4(flags, address, offset)),
            3 => (types::I32X4, ins.sload16x4(flags, address, offset)),
            4 => (types::I64X2, ins.uload32x2(flags, address, offset)),
            _ => (types::I64X2, ins.sload32x2(flags, address, offset)),
        };
        self.keep(ty, value);
    }

    fn atomic(&mut self) {
        let ty = *self.random.choose(&[types::I8, types::I16, types::I32, types::I64]);
        let Some(AccessSite { address, offset, .. }) = self.access_site(ty.bytes(), true, true) else {
            return;
        };
        let address = self.add(address, offset.into());
        let flags = MemFlagsData::new().with_endianness(Endianness::Little);

        let value = self.pick(ty);
        match self.random.below(4) {
            0 => {
                let loaded = self.builder.ins().atomic_load(ty, flags, address);
                self.keep(ty, loaded);
            }
            1 => {
                self.builder.ins().atomic_store(flags, value, address);
            }
            2 => {
                let expected = self.pick(ty);
                let loaded = self.builder.ins().atomic_cas(flags, address, expected, value);
                self.keep(ty, loaded);
            }
            _ => {
                let operation = *self.random.choose(AtomicRmwOp::all());
                let loaded = self.builder.ins().atomic_rmw(ty, flags, operation, address, value);
                self.keep(ty, loaded);
            }
        }
    }
}
