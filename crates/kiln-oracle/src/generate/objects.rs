//! The objects that a function can load from and store to: data, run-time objects, stack slots,
//! directly and through pointers in data.
//!
//! Invariant: every access site is inside the plain bytes of one object, and its promises
//! (`aligned`, `readonly`, `notrap`) are kept.

use cranelift_codegen::ir::{
    Endianness, GlobalValueData, InstBuilder, MemFlagsData, StackSlot, Value, types,
};
use cranelift_module::Module;

use super::body::Body;
use super::plan::{PointerTarget, visible};

/// An object that a statement can load from or store to.
#[derive(Clone, Copy)]
pub(super) struct AccessibleObject {
    pub(super) base: ObjectBase,
    /// The offset of the first plain byte, and the number of plain bytes.
    pub(super) start: u32,
    pub(super) len: u32,
    /// The alignment of the base address, in bytes.
    pub(super) align: u32,
    pub(super) writable: bool,
}

#[derive(Clone, Copy)]
pub(super) enum ObjectBase {
    Data(usize),
    Global(usize),
    Slot(StackSlot),
    /// The pointer at this offset in a data object, minus the number.
    Pointer(usize, u32, i64),
}

/// An address in an object, for an access with these flags.
pub(super) struct AccessSite {
    pub(super) address: Value,
    pub(super) offset: i32,
    pub(super) flags: MemFlagsData,
}

impl<M: Module> Body<'_, '_, M> {
    /// Adds stores that clear a new slot.
    pub(super) fn clear(&mut self, slot: StackSlot, size: u32) {
        let (wide, narrow) =
            (self.builder.ins().iconst(types::I64, 0), self.builder.ins().iconst(types::I8, 0));
        let base = self.builder.ins().stack_addr(types::I64, slot, 0);
        let flags = MemFlagsData::new();
        for index in 0..size / 8 {
            self.builder.ins().store(flags, wide, base, 8 * index as i32);
        }
        for index in size / 8 * 8..size {
            self.builder.ins().store(flags, narrow, base, index as i32);
        }
    }

    /// Returns the pointers in visible data that fulfil a condition, each as data object, offset
    /// and target.
    pub(super) fn pointers(
        &self,
        wanted: impl Fn(PointerTarget) -> bool,
    ) -> Vec<(usize, u32, PointerTarget)> {
        let data = self.plan.data.iter().enumerate();
        let data = data.filter(|(_, data)| visible(data.linkage, data.module, self.module));
        data.flat_map(|(number, data)| {
            data.pointers.iter().map(move |&(offset, target)| (number, offset, target))
        })
        .filter(|&(.., target)| wanted(target))
        .collect()
    }

    /// Adds a load of a pointer from a data object.
    pub(super) fn load_pointer(&mut self, data: usize, offset: u32) -> Value {
        let id = self.ids.data[data].expect("what is visible is declared");
        let global = self.host.declare_data_in_func(id, self.builder.func);
        let offset = offset as i32;
        let base = self.builder.ins().symbol_value(types::I64, global);
        self.builder.ins().load(types::I64, MemFlagsData::new(), base, offset)
    }

    /// Adds code that gives the address of a data object or run-time object, plus `by`.
    pub(super) fn symbol(&mut self, id: cranelift_module::DataId, by: i64) -> Value {
        let global = self.host.declare_data_in_func(id, self.builder.func);
        // The offset may be part of the symbol. `symbol_value` does not take global values that are
        // computed from others.
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

    pub(super) fn add(&mut self, base: Value, by: i64) -> Value {
        if by == 0 {
            return base;
        }
        let by = self.builder.ins().iconst(types::I64, by);
        self.builder.ins().iadd(base, by)
    }

    /// Returns an object with at least `width` plain bytes.
    pub(super) fn object(&mut self, width: u32, write: bool) -> Option<AccessibleObject> {
        let mut objects = Vec::new();
        let plain = |number: usize, base: ObjectBase| {
            let data = &self.plan.data[number];
            let (start, len) = data.plain;
            AccessibleObject { base, start, len, align: data.align.unwrap_or(1), writable: data.writable }
        };
        let global = |number: usize, base: ObjectBase| {
            let len = self.plan.globals[number].bytes.len() as u32;
            AccessibleObject { base, start: 0, len, align: 16, writable: true }
        };
        for (number, data) in self.plan.data.iter().enumerate() {
            if visible(data.linkage, data.module, self.module) {
                objects.push(plain(number, ObjectBase::Data(number)));
            }
        }
        objects.extend((0..self.plan.globals.len()).map(|number| global(number, ObjectBase::Global(number))));
        for &(slot, len, align) in &self.slots {
            objects.push(AccessibleObject {
                base: ObjectBase::Slot(slot),
                start: 0,
                len,
                align,
                writable: true,
            });
        }
        for (data, offset, target) in self.pointers(|_| true) {
            match target {
                PointerTarget::Data(number, addend) => {
                    objects.push(plain(number, ObjectBase::Pointer(data, offset, addend)))
                }
                PointerTarget::Global(number, addend) => {
                    objects.push(global(number, ObjectBase::Pointer(data, offset, addend)))
                }
                PointerTarget::Function(_) => {}
            }
        }
        objects.retain(|object| object.len >= width && (object.writable || !write));
        (!objects.is_empty()).then(|| *self.random.choose(&objects))
    }

    /// Returns an address of `width` plain bytes.
    pub(super) fn access_site(&mut self, width: u32, write: bool, aligned: bool) -> Option<AccessSite> {
        let object = self.object(width, write)?;
        if aligned && object.align < width {
            return None;
        }
        let mut position = i64::from(object.start + self.random.below(object.len - width + 1));
        if aligned {
            position = position / i64::from(width) * i64::from(width);
            if position < i64::from(object.start) {
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
        if !dynamic && object.align >= width && position % i64::from(width) == 0 && self.random.once_in(2) {
            flags = flags.with_aligned();
        }
        // A part of the offset is in the instruction, and may be negative.
        let offset = match self.random.below(4) {
            0 => position as i32,
            1 => 0,
            2 => -8,
            _ => self.random.below(64) as i32 - 32,
        };
        let by = position - i64::from(offset);
        let base = |body: &mut Self, by: i64| match object.base {
            ObjectBase::Data(number) => {
                body.symbol(body.ids.data[number].expect("what is visible is declared"), by)
            }
            ObjectBase::Global(number) => body.symbol(body.ids.globals[number], by),
            ObjectBase::Slot(slot) => {
                let base = body.builder.ins().stack_addr(types::I64, slot, 0);
                body.add(base, by)
            }
            ObjectBase::Pointer(data, offset, addend) => {
                let pointer = body.load_pointer(data, offset);
                body.add(pointer, by - addend)
            }
        };
        if !dynamic {
            return Some(AccessSite { address: base(self, by), offset, flags });
        }
        // The access is at a masked index, counted from the first plain byte.
        let room = object.len - width;
        let mask = (room + 1).next_power_of_two() - 1;
        let mask = if mask > room { mask >> 1 } else { mask };
        let index = self.pick(types::I64);
        let mask = self.builder.ins().iconst(types::I64, i64::from(mask));
        let index = self.builder.ins().band(index, mask);
        let base = base(self, i64::from(object.start) - i64::from(offset));
        let address = self.builder.ins().iadd(base, index);
        Some(AccessSite { address, offset, flags })
    }
}
