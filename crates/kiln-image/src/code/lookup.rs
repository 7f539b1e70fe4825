//! Answers of the code tables in the terms of `kiln-trap` (feature `trap`).
//!
//! `Loaded` and the JIT implement `kiln_trap::CodeLookup` with these functions, which take what
//! `locate` or `locate_call` found.

use std::ops::{ControlFlow, Range};

use kiln_artifact::record::HandlerKind;
use kiln_trap::{CallInfo, FunctionInfo, HandlerInfo, RootInfo, SourceInfo};

use super::location::Location;

/// Passes the function at `pc` to `visit`, which is where `location` was found.
pub fn function(location: &Location<'_>, pc: usize, visit: &mut dyn FnMut(FunctionInfo<'_>)) {
    let function = location.function();
    let (name, module) = (function.name(), function.module_name().unwrap_or_default());
    let (start, len) = if location.is_stub() {
        // A stub has no frame, as a function at its first instruction.
        (pc, 1)
    } else {
        (location.start() as usize, function.len() as usize)
    };
    visit(FunctionInfo { name, module, start, len });
}

/// Returns the trap code of the instruction.
pub fn trap(location: &Location<'_>) -> Option<u8> {
    location.trap().map(|code| code.as_raw())
}

/// Passes the source of the instruction to `visit`, if it is known.
pub fn source(location: &Location<'_>, visit: &mut dyn FnMut(SourceInfo<'_>)) {
    let Some(number) = location.source() else { return };
    let info = SourceInfo { location: number, ..SourceInfo::default() };
    visit(match location.function().line_of(number).filter(|line| line.line != 0) {
        Some(place) => SourceInfo { file: place.file, line: place.line, column: place.column, ..info },
        None => info,
    });
}

/// Returns the call that returns to the place.
pub fn call(location: &Location<'_>) -> Option<CallInfo> {
    location.call().map(|call| CallInfo { frame_offset: call.frame_offset() })
}

/// Passes the handlers of the call that returns to the place to `visit`, until it breaks. Handlers
/// outside of `text`, the addresses of the program's code, are left out.
pub fn handlers(
    location: &Location<'_>,
    text: &Range<u64>,
    visit: &mut dyn FnMut(HandlerInfo) -> ControlFlow<()>,
) {
    let Some(call) = location.call() else { return };
    for handler in call.handlers() {
        let target = location.target(&handler);
        let inside = text.contains(&target);
        let target = target as usize;
        let info = match handler.kind {
            HandlerKind::Tag if inside => HandlerInfo::Tag { tag: handler.value, target },
            HandlerKind::Default if inside => HandlerInfo::Default { target },
            HandlerKind::Tag | HandlerKind::Default => continue,
            HandlerKind::ContextStack => HandlerInfo::ContextOnStack(handler.value),
            HandlerKind::ContextRegister => match u8::try_from(handler.value) {
                Ok(register) => HandlerInfo::ContextInRegister(register),
                Err(_) => continue,
            },
        };
        if visit(info).is_break() {
            return;
        }
    }
}

/// Passes the live references of the call that returns to the place to `visit`. Returns the span of
/// its stack map, or `None` if it has none.
pub fn stack_map(location: &Location<'_>, visit: &mut dyn FnMut(RootInfo)) -> Option<u32> {
    let map = location.stack_map()?;
    map.roots().for_each(|root| visit(RootInfo { offset: root.offset, size: root.size }));
    Some(map.span())
}
