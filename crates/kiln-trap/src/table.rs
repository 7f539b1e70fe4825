//! Tables in vectors, for code whose compiler hands them out piece by piece (plain cranelift-jit).

use std::ops::{ControlFlow, Range};

use crate::code::{CallInfo, CodeLookup, FunctionInfo, HandlerInfo, RootInfo, SourceInfo};

/// A function of a [`CodeTable`]. Offsets are in bytes from its start.
#[derive(Clone, Debug, Default)]
pub struct TableFunction {
    /// Its name.
    pub name: String,
    /// The name of its module.
    pub module: String,
    /// Address of its first instruction.
    pub start: usize,
    /// Its length in bytes.
    pub len: usize,
    /// Offset and trap code of each instruction that may trap.
    pub traps: Vec<(u32, u8)>,
    /// Ranges of code, each with the compiler's number for its source.
    pub sources: Vec<(Range<u32>, u32)>,
    /// The calls.
    pub calls: Vec<TableCall>,
}

/// A call of a [`TableFunction`].
#[derive(Clone, Debug, Default)]
pub struct TableCall {
    /// Offset of the return address.
    pub return_offset: u32,
    /// Bytes from the frame pointer down to the stack pointer at the call, if it has handlers.
    pub frame_offset: Option<u32>,
    /// Its exception table. Targets are offsets.
    pub handlers: Vec<HandlerInfo>,
    /// Its live references, if it has a stack map.
    pub stack_map: Option<TableStackMap>,
}

/// The stack map of a [`TableCall`].
#[derive(Clone, Debug, Default)]
pub struct TableStackMap {
    /// Bytes from the frame pointer down to the stack pointer at the call.
    pub span: u32,
    /// The live references.
    pub roots: Vec<RootInfo>,
}

/// The tables of functions, in order.
#[derive(Clone, Debug, Default)]
pub struct CodeTable {
    functions: Vec<TableFunction>,
}

impl CodeTable {
    /// Sorts functions and their tables.
    pub fn new(mut functions: Vec<TableFunction>) -> Self {
        functions.sort_by_key(|function| function.start);
        for function in &mut functions {
            function.traps.sort_unstable();
            function.sources.sort_by_key(|(range, _)| range.start);
            function.calls.sort_by_key(|call| call.return_offset);
        }
        Self { functions }
    }

    /// Returns the function that contains `pc`.
    fn find(&self, pc: usize) -> Option<&TableFunction> {
        let place = self.functions.partition_point(|function| function.start <= pc);
        let function = &self.functions[place.checked_sub(1)?];
        (pc - function.start < function.len).then_some(function)
    }

    /// Returns the function and the call that return to `return_pc`.
    fn call(&self, return_pc: usize) -> Option<(&TableFunction, &TableCall)> {
        let function = self.find(return_pc.checked_sub(1)?)?;
        let offset = u32::try_from(return_pc - function.start).ok()?;
        let found = function.calls.binary_search_by_key(&offset, |call| call.return_offset).ok()?;
        Some((function, &function.calls[found]))
    }
}

// SAFETY: the answers are what the client has put in, who promises in `register` that it describes
// the code. Nothing is locked or allocated, and indices come from searches of the same vectors.
unsafe impl CodeLookup for CodeTable {
    fn function_at(&self, pc: usize, visit: &mut dyn FnMut(FunctionInfo<'_>)) {
        if let Some(TableFunction { name, module, start, len, .. }) = self.find(pc) {
            visit(FunctionInfo { name, module, start: *start, len: *len });
        }
    }

    fn trap_at(&self, pc: usize) -> Option<u8> {
        let function = self.find(pc)?;
        let offset = u32::try_from(pc - function.start).ok()?;
        let found = function.traps.binary_search_by_key(&offset, |(offset, _)| *offset).ok()?;
        Some(function.traps[found].1)
    }

    fn source_at(&self, pc: usize, visit: &mut dyn FnMut(SourceInfo<'_>)) {
        let Some(function) = self.find(pc) else { return };
        let covers = |range: &Range<u32>| range.contains(&((pc - function.start) as u32));
        let place =
            function.sources.partition_point(|(range, _)| function.start + range.start as usize <= pc);
        if let Some((range, location)) = place.checked_sub(1).map(|place| &function.sources[place])
            && covers(range)
        {
            visit(SourceInfo { location: *location, ..SourceInfo::default() });
        }
    }

    fn call_at(&self, return_pc: usize) -> Option<CallInfo> {
        self.call(return_pc).map(|(_, call)| CallInfo { frame_offset: call.frame_offset })
    }

    fn handlers_at(&self, return_pc: usize, visit: &mut dyn FnMut(HandlerInfo) -> ControlFlow<()>) {
        let Some((function, call)) = self.call(return_pc) else { return };
        for &handler in &call.handlers {
            let absolute = match handler {
                HandlerInfo::Tag { tag, target } => HandlerInfo::Tag { tag, target: function.start + target },
                HandlerInfo::Default { target } => HandlerInfo::Default { target: function.start + target },
                context => context,
            };
            if visit(absolute).is_break() {
                return;
            }
        }
    }

    fn stack_map_at(&self, return_pc: usize, visit: &mut dyn FnMut(RootInfo)) -> Option<u32> {
        let map = self.call(return_pc)?.1.stack_map.as_ref()?;
        map.roots.iter().for_each(|&root| visit(root));
        Some(map.span)
    }
}
