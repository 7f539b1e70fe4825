//! Encodes the tables before the code. They hold the entities that instructions refer to, and stack
//! slots and dynamic types, which are kept even if they are unused.

use cranelift_codegen::entity::EntityRef;
use cranelift_codegen::ir::function::FunctionStencil;
use cranelift_codegen::ir::{
    self, AliasRegion, AliasRegionData, DynamicStackSlotData, DynamicTypeData, Endianness, ExtFuncData,
    ExternalName, FuncRef, GlobalValue, GlobalValueData, LibCall, MemFlags, MemFlagsData, SigRef,
    StackSlotData, StackSlotKind,
};

use super::encoder::{EncodeError, Encoder, ExternalRef, defined, undefined};
use super::renumbering::Renumbering;
use crate::body::wire::ByteWriter;

impl Encoder {
    /// Writes the tables that are kept as declared. The global values that they refer to count as
    /// used.
    pub(super) fn kept_tables(&mut self, function: &ir::Function) -> Result<(), EncodeError> {
        // Other fields are written elsewhere.
        let FunctionStencil {
            version_marker: _,
            signature: _,
            sized_stack_slots,
            dynamic_stack_slots,
            global_values: _,
            dfg,
            layout: _,
            srclocs: _,
            debug_tags: _,
            stack_limit,
        } = &function.stencil;
        let mut tables = std::mem::take(&mut self.tables);
        tables.count(sized_stack_slots.len());
        for StackSlotData { kind, size, align_shift, key } in sized_stack_slots.values() {
            tables.byte(stack_slot_kind(*kind));
            tables.uint(u64::from(*size));
            tables.byte(*align_shift);
            tables.bool(key.is_some());
            if let Some(key) = key {
                tables.uint(key.bits());
            }
        }
        tables.count(dfg.dynamic_types.len());
        for DynamicTypeData { base_vector_ty, dynamic_scale } in dfg.dynamic_types.values() {
            tables.ty(*base_vector_ty);
            tables.uint(self.global_value(function, *dynamic_scale)?);
        }
        tables.count(dynamic_stack_slots.len());
        for DynamicStackSlotData { kind, dyn_ty } in dynamic_stack_slots.values() {
            defined(dfg.dynamic_types.is_valid(*dyn_ty), *dyn_ty)?;
            tables.byte(stack_slot_kind(*kind));
            tables.uint(u64::from(dyn_ty.as_u32()));
        }
        tables.bool(stack_limit.is_some());
        if let Some(limit) = stack_limit {
            tables.uint(self.global_value(function, *limit)?);
        }
        self.tables = tables;
        Ok(())
    }

    /// Writes the tables of global values, functions and signatures that have a number.
    pub(super) fn used_tables<E: From<EncodeError>>(
        &mut self,
        function: &ir::Function,
        name: &mut impl FnMut(ExternalRef) -> Result<u32, E>,
    ) -> Result<(), E> {
        let (global_values, dfg) = (&function.global_values, &function.dfg);
        let mut tables = std::mem::take(&mut self.tables);

        // Global values that are only bases of others get numbers after those that the code uses.
        let mut count = 0;
        while let Some(&old) = self.globals.order.get(count) {
            if let GlobalValueData::Load { base, .. } | GlobalValueData::IAddImm { base, .. } =
                &global_values[GlobalValue::from_u32(old)]
            {
                self.global_value(function, *base)?;
            }
            count += 1;
        }
        tables.count(count);
        for number in 0..count {
            let global = GlobalValue::from_u32(self.globals.order[number]);
            self.global(&mut tables, function, global, name)?;
        }
        tables.count(self.functions.order.len());
        for number in 0..self.functions.order.len() {
            let func_ref = FuncRef::from_u32(self.functions.order[number]);
            let ExtFuncData { name: external, signature, colocated, patchable } = &dfg.ext_funcs[func_ref];
            tables.byte(u8::from(*colocated) | u8::from(*patchable) << 1);
            tables.uint(self.signature(dfg, *signature)?);
            self.external_name(&mut tables, external, ExternalRef::Function(func_ref), name)?;
        }
        tables.count(self.signatures.order.len());
        for &old in &self.signatures.order {
            tables.signature(&dfg.signatures[SigRef::from_u32(old)]);
        }
        self.tables = tables;
        Ok(())
    }

    /// Writes everything that precedes the blocks.
    pub(super) fn head(&mut self, function: &ir::Function) -> Result<(), EncodeError> {
        let dfg = &function.dfg;
        let Self { head, memory, tables, flags, regions, next_value, block_order, .. } = self;
        head.signature(&function.signature);
        // Memory flags refer to alias regions, whose table comes first in the form.
        memory.count(flags.order.len());
        for &old in &flags.order {
            mem_flags(memory, regions, dfg, dfg.mem_flags[MemFlags::from_u32(old)])?;
        }
        head.count(regions.order.len());
        for &old in &regions.order {
            let AliasRegionData { user_id, description } = &dfg.alias_regions[AliasRegion::from_u32(old)];
            head.uint(u64::from(*user_id));
            head.str(description);
        }
        head.raw(&memory.0);
        head.raw(&tables.0);
        head.count(*next_value as usize);
        head.count(block_order.len());
        Ok(())
    }

    fn global<E: From<EncodeError>>(
        &mut self,
        tables: &mut ByteWriter,
        function: &ir::Function,
        global: GlobalValue,
        name: &mut impl FnMut(ExternalRef) -> Result<u32, E>,
    ) -> Result<(), E> {
        match &function.global_values[global] {
            GlobalValueData::VMContext => tables.byte(0),
            GlobalValueData::Load { base, offset, global_type, flags } => {
                tables.byte(1);
                tables.uint(self.global_value(function, *base)?);
                tables.int(i64::from(i32::from(*offset)));
                tables.ty(*global_type);
                tables.uint(self.mem_flags(&function.dfg, global, *flags)?);
            }
            GlobalValueData::IAddImm { base, offset, global_type } => {
                tables.byte(2);
                tables.uint(self.global_value(function, *base)?);
                tables.int(offset.bits());
                tables.ty(*global_type);
            }
            GlobalValueData::Symbol { name: external, offset, colocated, tls } => {
                tables.byte(3);
                tables.byte(u8::from(*colocated) | u8::from(*tls) << 1);
                tables.int(offset.bits());
                self.external_name(tables, external, ExternalRef::Global(global), name)?;
            }
            GlobalValueData::DynScaleTargetConst { vector_type } => {
                tables.byte(4);
                tables.ty(*vector_type);
            }
        }
        Ok(())
    }

    /// Writes the name of a declaration: 0 and a library call, or 1 more than the position of a
    /// reference.
    fn external_name<E>(
        &mut self,
        tables: &mut ByteWriter,
        external: &ExternalName,
        reference: ExternalRef,
        name: &mut impl FnMut(ExternalRef) -> Result<u32, E>,
    ) -> Result<(), E> {
        if let ExternalName::LibCall(call) = external {
            tables.byte(0);
            tables.listed(LibCall::all_libcalls(), call);
        } else {
            tables.uint(1 + self.references.given(name(reference)? as usize));
        }
        Ok(())
    }
}

fn stack_slot_kind(kind: StackSlotKind) -> u8 {
    match kind {
        StackSlotKind::ExplicitSlot => 0,
        StackSlotKind::ExplicitDynamicSlot => 1,
    }
}

fn mem_flags(
    out: &mut ByteWriter,
    regions: &mut Renumbering,
    dfg: &ir::DataFlowGraph,
    flags: MemFlagsData,
) -> Result<(), EncodeError> {
    let order = match flags.explicit_endianness() {
        None => 0,
        Some(Endianness::Little) => 1,
        Some(Endianness::Big) => 2,
    };
    let bits = u8::from(flags.aligned()) | u8::from(flags.readonly()) << 1 | u8::from(flags.can_move()) << 2;
    out.byte(bits | order << 3);
    out.trap(flags.trap_code());
    let region = match flags.alias_region() {
        None => 0,
        Some(region) => {
            let exists = || dfg.alias_regions.is_valid(region);
            1 + regions.number(region.index(), exists).ok_or_else(undefined(region))?
        }
    };
    out.uint(region);
    Ok(())
}
