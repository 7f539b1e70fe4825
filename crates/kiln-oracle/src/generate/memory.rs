//! Statements that load and store: data, run-time objects, stack slots, directly and through pointers in data.
//!
//! Invariant: every access is inside the plain bytes of one object, and promises (`aligned`, `readonly`, `notrap`) are kept.

use cranelift_codegen::ir::condcodes::IntCC;
use cranelift_codegen::ir::{
    AtomicRmwOp, Endianness, GlobalValueData, InstBuilder, MemFlagsData, StackSlot, Type, Value, types,
};
use cranelift_module::Module;

use super::body::Body;
use super::plan::{Target, visible};
use super::scalar::cast;

/// Something to load from.
#[derive(Clone, Copy)]
struct Object {
    base: Base,
    /// Where the plain bytes are, and how many.
    start: u32,
    len: u32,
    /// What the base is a multiple of, for certain.
    align: u32,
    writable: bool,
}

#[derive(Clone, Copy)]
enum Base {
    Data(usize),
    Global(usize),
    Slot(StackSlot),
    /// The pointer at this place of a datum, less the number.
    Pointer(usize, u32, i64),
}

/// A place in an object.
struct Place {
    address: Value,
    offset: i32,
    flags: MemFlagsData,
}

impl<M: Module> Body<'_, '_, M> {
    /// Stores zeros to a new slot.
    pub(super) fn clear(&mut self, slot: StackSlot, size: u32) {
        let (wide, narrow) =
            (self.builder.ins().iconst(types::I64, 0), self.builder.ins().iconst(types::I8, 0));
        let base = self.builder.ins().stack_addr(types::I64, slot, 0);
        let flags = MemFlagsData::new();
        for at in 0..size / 8 {
            self.builder.ins().store(flags, wide, base, 8 * at as i32);
        }
        for at in size / 8 * 8..size {
            self.builder.ins().store(flags, narrow, base, at as i32);
        }
    }

    /// Pointers in visible data that fulfil a condition: datum, offset, target.
    pub(super) fn pointers(&self, wanted: impl Fn(Target) -> bool) -> Vec<(usize, u32, Target)> {
        let data = self.plan.data.iter().enumerate();
        let data = data.filter(|(_, data)| visible(data.linkage, data.module, self.module));
        data.flat_map(|(at, data)| data.pointers.iter().map(move |&(offset, target)| (at, offset, target)))
            .filter(|&(.., target)| wanted(target))
            .collect()
    }

    /// Loads a pointer from a datum.
    pub(super) fn load_pointer(&mut self, data: usize, offset: u32) -> Value {
        let id = self.ids.data[data].expect("what is visible is declared");
        let global = self.host.declare_data_in_func(id, self.builder.func);
        let offset = offset as i32;
        let base = self.builder.ins().symbol_value(types::I64, global);
        self.builder.ins().load(types::I64, MemFlagsData::new(), base, offset)
    }

    /// The address of a datum or run-time object, `by` further.
    fn symbol(&mut self, id: cranelift_module::DataId, by: i64) -> Value {
        let global = self.host.declare_data_in_func(id, self.builder.func);
        // An offset may belong to the symbol. Values computed from other global values are not for `symbol_value`.
        if by != 0 && self.random.once_in(3) {
            let mut data = self.builder.func.global_values[global].clone();
            if let GlobalValueData::Symbol { offset, .. } = &mut data {
                *offset = by.into();
            }
            let global = self.builder.create_global_value(data);
            return self.builder.ins().symbol_value(types::I64, global);
        }
        let base = self.builder.ins().symbol_value(types::I64, global);
        self.add(base, by)
    }

    fn add(&mut self, base: Value, by: i64) -> Value {
        if by == 0 {
            return base;
        }
        let by = self.builder.ins().iconst(types::I64, by);
        self.builder.ins().iadd(base, by)
    }

    /// An object with room for `width` bytes.
    fn object(&mut self, width: u32, write: bool) -> Option<Object> {
        let mut objects = Vec::new();
        let plain = |at: usize, base: Base| {
            let data = &self.plan.data[at];
            let (start, len) = data.plain;
            Object { base, start, len, align: data.align.unwrap_or(1), writable: data.writable }
        };
        let global = |at: usize, base: Base| {
            let len = self.plan.globals[at].bytes.len() as u32;
            Object { base, start: 0, len, align: 16, writable: true }
        };
        for (at, data) in self.plan.data.iter().enumerate() {
            if visible(data.linkage, data.module, self.module) {
                objects.push(plain(at, Base::Data(at)));
            }
        }
        objects.extend((0..self.plan.globals.len()).map(|at| global(at, Base::Global(at))));
        for &(slot, len, align) in &self.slots {
            objects.push(Object { base: Base::Slot(slot), start: 0, len, align, writable: true });
        }
        for (data, offset, target) in self.pointers(|_| true) {
            match target {
                Target::Data(at, addend) => objects.push(plain(at, Base::Pointer(data, offset, addend))),
                Target::Global(at, addend) => objects.push(global(at, Base::Pointer(data, offset, addend))),
                Target::Function(_) => {}
            }
        }
        objects.retain(|object| object.len >= width && (object.writable || !write));
        (!objects.is_empty()).then(|| *self.random.choose(&objects))
    }

    /// A place for `width` bytes.
    fn place(&mut self, width: u32, write: bool, aligned: bool) -> Option<Place> {
        let object = self.object(width, write)?;
        if aligned && object.align < width {
            return None;
        }
        let mut at = i64::from(object.start + self.random.below(object.len - width + 1));
        if aligned {
            at = at / i64::from(width) * i64::from(width);
            if at < i64::from(object.start) {
                return None;
            }
        }
        let mut flags = MemFlagsData::new().with_endianness(Endianness::Little);
        if self.random.once_in(3) {
            flags = flags.with_notrap();
        }
        if !object.writable && self.random.once_in(3) {
            flags = flags.with_readonly();
        }
        let dynamic = !aligned && self.random.once_in(3);
        if !dynamic && object.align >= width && at % i64::from(width) == 0 && self.random.once_in(2) {
            flags = flags.with_aligned();
        }
        // A part of the offset stands in the instruction, and may be negative.
        let offset = match self.random.below(4) {
            0 => at as i32,
            1 => 0,
            2 => -8,
            _ => self.random.below(64) as i32 - 32,
        };
        let by = at - i64::from(offset);
        let base = |body: &mut Self, by: i64| match object.base {
            Base::Data(at) => body.symbol(body.ids.data[at].expect("what is visible is declared"), by),
            Base::Global(at) => body.symbol(body.ids.globals[at], by),
            Base::Slot(slot) => {
                let base = body.builder.ins().stack_addr(types::I64, slot, 0);
                body.add(base, by)
            }
            Base::Pointer(data, offset, addend) => {
                let pointer = body.load_pointer(data, offset);
                body.add(pointer, by - addend)
            }
        };
        if !dynamic {
            return Some(Place { address: base(self, by), offset, flags });
        }
        // At an index that is masked, from the start of the plain bytes on.
        let room = object.len - width;
        let mask = (room + 1).next_power_of_two() - 1;
        let mask = if mask > room { mask >> 1 } else { mask };
        let index = self.pick(types::I64);
        let mask = self.builder.ins().iconst(types::I64, i64::from(mask));
        let index = self.builder.ins().band(index, mask);
        let base = base(self, i64::from(object.start) - i64::from(offset));
        let address = self.builder.ins().iadd(base, index);
        Some(Place { address, offset, flags })
    }

    /// A load or a store.
    pub(super) fn memory(&mut self) {
        let kind = self.random.below(14);
        match kind {
            12 => self.alignment(),
            13 => self.identity(),
            0..4 => {
                let ty = *self.random.choose(&self.types.clone());
                let Some(Place { address, offset, flags }) = self.place(ty.bytes(), true, false) else {
                    return;
                };
                let value = self.pick(ty);
                self.builder.ins().store(flags, value, address, offset);
            }
            4..8 => {
                let ty = *self.random.choose(&self.types.clone());
                let Some(Place { address, offset, flags }) = self.place(ty.bytes(), false, false) else {
                    return;
                };
                // Without AVX, Cranelift 0.135 lets `cmpps` and `cmppd` load from where they must not: addresses that are no multiple of 16.
                // Loads of integers are not put into them.
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

    /// Adds a number to 8 bytes of memory that outlives the function, if there are any.
    pub(super) fn keep_in_memory(&mut self, value: Value) {
        let slots = std::mem::take(&mut self.slots);
        let place = self.place(8, true, false);
        self.slots = slots;
        let Some(Place { address, offset, flags }) = place else { return };
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

    /// The little that is known about every address: what it is a multiple of.
    fn alignment(&mut self) {
        let Some(object) = self.object(1, false) else { return };
        let base = match object.base {
            Base::Data(at) => self.symbol(self.ids.data[at].expect("what is visible is declared"), 0),
            Base::Global(at) => self.symbol(self.ids.globals[at], 0),
            Base::Slot(slot) => self.builder.ins().stack_addr(types::I64, slot, 0),
            Base::Pointer(data, offset, addend) => {
                let pointer = self.load_pointer(data, offset);
                self.add(pointer, -addend)
            }
        };
        let mask = self.builder.ins().iconst(types::I64, i64::from(object.align) - 1);
        let rest = self.builder.ins().band(base, mask);
        self.scope.push((types::I64, rest));
    }

    /// Whether a pointer in data is the address that code computes: always.
    fn identity(&mut self) {
        let seen = |target| match target {
            Target::Function(at) => self.ids.functions[at].is_some() && self.sees(at),
            Target::Data(at, _) => {
                visible(self.plan.data[at].linkage, self.plan.data[at].module, self.module)
            }
            Target::Global(..) => true,
        };
        let pointers = self.pointers(seen);
        if pointers.is_empty() {
            return;
        }
        let (data, offset, target) = *self.random.choose(&pointers);
        let loaded = self.load_pointer(data, offset);
        let computed = match target {
            Target::Function(at) => self.function_address(at),
            Target::Data(at, addend) => {
                self.symbol(self.ids.data[at].expect("what is visible is declared"), addend)
            }
            Target::Global(at, addend) => self.symbol(self.ids.globals[at], addend),
        };
        let equal = self.builder.ins().icmp(IntCC::Equal, loaded, computed);
        self.scope.push((types::I8, equal));
    }

    fn narrow_store(&mut self) {
        let width = *self.random.choose(&[1, 2, 4]);
        let Some(Place { address, offset, flags }) = self.place(width, true, false) else { return };
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
        let Some(Place { address, offset, flags }) = self.place(width, false, false) else { return };
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
        let Some(Place { address, offset, flags }) = self.place(8, false, false) else { return };
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
        let Some(Place { address, offset, .. }) = self.place(ty.bytes(), true, true) else { return };
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
