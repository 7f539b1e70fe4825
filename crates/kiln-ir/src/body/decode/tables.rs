//! Decodes the tables before the code, which hold the entities that instructions refer to.

use cranelift_codegen::entity::EntityRef;
use cranelift_codegen::ir::immediates::{Imm64, Offset32};
use cranelift_codegen::ir::{
    DynamicStackSlotData, DynamicType, DynamicTypeData, Endianness, ExtFuncData, ExternalName, GlobalValue,
    GlobalValueData, MemFlagsData, SigRef, StackSlotData, StackSlotKey, StackSlotKind,
};

use super::decoder::Decoder;
use super::sink::Sink;
use crate::body::wire::DecodeResult;

const NO_GLOBAL: &str = "no such global value";

impl<S: Sink> Decoder<'_, S> {
    /// Reads the tables in their order. Some refer to entities of later tables; these numbers are
    /// checked as soon as the length of the later table is known.
    pub(super) fn tables(&mut self) -> DecodeResult<()> {
        self.sink.own_signature(&mut self.reader)?;
        self.alias_regions()?;
        self.mem_flags_table()?;
        self.stack_slots()?;
        let largest_global = self.dynamic_types()?.max(self.stack_limit()?);
        self.global_values(largest_global)?;
        let largest_signature = self.external_functions()?;
        self.signatures(largest_signature)
    }

    fn alias_regions(&mut self) -> DecodeResult<()> {
        self.lengths.alias_regions = self.reader.count()?;
        for _ in 0..self.lengths.alias_regions {
            let user_id = self.reader.u32()?;
            let description = self.reader.str()?;
            self.sink.alias_region(user_id, description);
        }
        Ok(())
    }

    fn mem_flags_table(&mut self) -> DecodeResult<()> {
        self.lengths.mem_flags = self.reader.count()?;
        if self.lengths.mem_flags >= u32::MAX as usize {
            return Err(self.reader.error("too many memory flags"));
        }
        for _ in 0..self.lengths.mem_flags {
            let bits = self.bits(5)?;
            let mut flags = MemFlagsData::new().with_trap_code(self.reader.trap()?);
            if bits & 1 != 0 {
                flags.set_aligned();
            }
            if bits & 2 != 0 {
                flags.set_readonly();
            }
            if bits & 4 != 0 {
                flags.set_can_move();
            }
            match bits >> 3 {
                0 => {}
                1 => flags.set_endianness(Endianness::Little),
                2 => flags.set_endianness(Endianness::Big),
                _ => return Err(self.reader.error("two byte orders")),
            }
            // 0 means no region.
            let region = self.reader.index(self.lengths.alias_regions + 1, "no such alias region")?;
            self.sink.mem_flags(flags, region.checked_sub(1));
        }
        Ok(())
    }

    fn stack_slot_kind(&mut self) -> DecodeResult<StackSlotKind> {
        match self.reader.byte()? {
            0 => Ok(StackSlotKind::ExplicitSlot),
            1 => Ok(StackSlotKind::ExplicitDynamicSlot),
            _ => Err(self.reader.error("not a kind of stack slot")),
        }
    }

    fn stack_slots(&mut self) -> DecodeResult<()> {
        self.lengths.stack_slots = self.reader.count()?;
        for _ in 0..self.lengths.stack_slots {
            let kind = self.stack_slot_kind()?;
            let size = self.reader.u32()?;
            let align_shift = self.reader.byte()?;
            if align_shift >= 32 {
                return Err(self.reader.error("not an alignment"));
            }
            let key = if self.reader.bool()? { Some(StackSlotKey::new(self.reader.uint()?)) } else { None };
            self.sink.stack_slot(StackSlotData { kind, size, align_shift, key });
        }
        Ok(())
    }

    /// Reads dynamic types and the stack slots of such types. Returns the largest number of a
    /// global value that they refer to.
    fn dynamic_types(&mut self) -> DecodeResult<Option<GlobalValue>> {
        let mut largest = None;
        let types = self.reader.count()?;
        for _ in 0..types {
            let base_vector_ty = self.reader.ty()?;
            if !base_vector_ty.is_vector() || base_vector_ty.vector_to_dynamic().is_none() {
                return Err(self.reader.error("a dynamic type of no vector"));
            }
            let dynamic_scale = GlobalValue::from_u32(self.entity_number()?);
            largest = largest.max(Some(dynamic_scale));
            self.sink.dynamic_type(DynamicTypeData { base_vector_ty, dynamic_scale });
        }
        self.lengths.dynamic_stack_slots = self.reader.count()?;
        for _ in 0..self.lengths.dynamic_stack_slots {
            let kind = self.stack_slot_kind()?;
            if kind != StackSlotKind::ExplicitDynamicSlot {
                return Err(self.reader.error("a dynamic stack slot of a fixed kind"));
            }
            let dyn_ty = DynamicType::new(self.reader.index(types, "no such dynamic type")?);
            self.sink.dynamic_stack_slot(DynamicStackSlotData { kind, dyn_ty });
        }
        Ok(largest)
    }

    fn stack_limit(&mut self) -> DecodeResult<Option<GlobalValue>> {
        if !self.reader.bool()? {
            return Ok(None);
        }
        let limit = GlobalValue::from_u32(self.entity_number()?);
        self.sink.stack_limit(limit);
        Ok(Some(limit))
    }

    /// Reads global values. `largest` is the largest global value that earlier tables refer to.
    fn global_values(&mut self, largest: Option<GlobalValue>) -> DecodeResult<()> {
        let count = self.reader.count()?;
        for _ in 0..count {
            let data = self.global_value(count)?;
            self.sink.global_value(data);
        }
        self.lengths.global_values = count;
        if largest.is_some_and(|global| global.index() >= count) {
            return Err(self.reader.error(NO_GLOBAL));
        }
        Ok(())
    }

    fn global_value(&mut self, count: usize) -> DecodeResult<S::Made<GlobalValueData>> {
        Ok(match self.reader.byte()? {
            0 => S::made(GlobalValueData::VMContext),
            1 => {
                let base = GlobalValue::new(self.reader.index(count, NO_GLOBAL)?);
                let offset = Offset32::new(self.reader.i32()?);
                let global_type = self.reader.ty()?;
                S::map(self.mem_flags()?, |flags| GlobalValueData::Load { base, offset, global_type, flags })
            }
            2 => S::made(GlobalValueData::IAddImm {
                base: GlobalValue::new(self.reader.index(count, NO_GLOBAL)?),
                offset: Imm64::new(self.reader.int()?),
                global_type: self.reader.ty()?,
            }),
            3 => {
                let bits = self.bits(2)?;
                let (colocated, tls) = (bits & 1 != 0, bits & 2 != 0);
                let offset = Imm64::new(self.reader.int()?);
                S::map(self.external_name()?, |name| GlobalValueData::Symbol { name, offset, colocated, tls })
            }
            4 => S::made(GlobalValueData::DynScaleTargetConst { vector_type: self.reader.ty()? }),
            _ => return Err(self.reader.error("not a global value")),
        })
    }

    /// Reads a name: 0 and a library call, or 1 more than the position of a reference.
    fn external_name(&mut self) -> DecodeResult<S::Made<ExternalName>> {
        match self.reader.index(self.lengths.references + 1, "no such reference")?.checked_sub(1) {
            Some(position) => Ok(self.sink.reference(position)),
            None => self.reader.libcall().map(|call| S::made(ExternalName::LibCall(call))),
        }
    }

    /// Reads external functions. Returns the largest number of a signature that they name.
    fn external_functions(&mut self) -> DecodeResult<Option<u32>> {
        let mut largest = None;
        self.lengths.functions = self.reader.count()?;
        for _ in 0..self.lengths.functions {
            let bits = self.bits(2)?;
            let (colocated, patchable) = (bits & 1 != 0, bits & 2 != 0);
            let number = self.entity_number()?;
            largest = largest.max(Some(number));
            let signature = SigRef::from_u32(number);
            let name = self.external_name()?;
            let data = S::map(name, |name| ExtFuncData { name, signature, colocated, patchable });
            self.sink.external_function(signature, data);
        }
        Ok(largest)
    }

    /// Reads the signatures of callees. `largest` is the largest number that earlier tables refer
    /// to.
    fn signatures(&mut self, largest: Option<u32>) -> DecodeResult<()> {
        self.lengths.signatures = self.reader.count()?;
        for _ in 0..self.lengths.signatures {
            self.sink.signature(&mut self.reader)?;
        }
        if largest.is_some_and(|number| number as usize >= self.lengths.signatures) {
            return Err(self.reader.error("no such signature"));
        }
        Ok(())
    }
}
