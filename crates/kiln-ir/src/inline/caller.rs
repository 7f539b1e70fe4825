//! Inlines calls into one function.
//!
//! Cranelift's inliner does the work; here is which calls, and what it leaves to do. The body of a
//! callee is the one of its module, not one into which something was inlined. So the result depends
//! on the code of caller and callees and on nothing else, and no function waits for another. Calls
//! in an inlined body are considered again, as calls of the caller.
//!
//! Inlined instructions get the source location of the call: locations are numbers whose meaning
//! belongs to a module. So a trap in an inlined body is one at the call.
//!
//! Only plain calls are replaced. A tail call gives up the frame of the caller. A call with
//! handlers of exceptions also catches what a signal handler throws at an instruction of the
//! callee, which would no longer be in a call.

use std::borrow::Cow;

use cranelift_codegen::Context;
use cranelift_codegen::inline::{Inline, InlineCommand};
use cranelift_codegen::ir::{
    self, ExternalName, FuncRef, GlobalValue, GlobalValueData, Inst, Opcode, RelSourceLoc, Value,
};
use cranelift_codegen::isa::TargetIsa;
use indexmap::IndexSet;

use super::callee::{Callee, named, set_namespace};
use super::options::{DEPTH, FRAME, GROWTH};
use super::program::{Named, Place, Program};
use crate::body::{CheckScratch, EncodeError, Encoded, Encoder, ExternalRef};
use crate::guard::guard;
use crate::symbol::SymbolId;
use crate::unverified::verify;

/// A function into which calls were inlined.
pub(super) struct Inlined {
    pub(super) encoded: Encoded,
    /// The symbols that its module has to refer to from now on: the reference with the number
    /// `symbols of the module + n` is to the n-th of these symbols of other modules.
    pub(super) others: Vec<(usize, SymbolId)>,
    /// The number of calls that were inlined.
    pub(super) calls: usize,
}

/// Inlines calls into a function; `None` if none is inlined, and also if the function is not valid,
/// which its compilation reports, or if the result could not be used.
///
/// `callee` returns the function at a place, if it may be inlined.
pub(super) fn inline<'c>(
    program: &Program<'_>,
    user: Place,
    isa: &dyn TargetIsa,
    callee: &dyn Fn(Place) -> Option<&'c Callee>,
) -> Option<Inlined> {
    let module = &program.modules()[user.module];
    let function = &module.functions[user.function];
    let body = function.body()?;
    let may_be = |symbol: &SymbolId| {
        let place = program.reached(user.module, *symbol).filter(|place| *place != user);
        place.is_some_and(|place| callee(place).is_some())
    };
    if !body.references().iter().any(may_be) {
        return None;
    }
    let mut ir = body.decode(function.symbol);
    // What its alias regions promise says nothing about the accesses of another function.
    if ir.dfg.alias_regions.len() > 0 || !body.is_verified() && verify(&ir, isa).is_err() {
        return None;
    }
    set_namespace(&mut ir, user.module);
    let mut context = Context::for_function(ir);
    let mut chooser = Chooser { program, user, callee, copies: Vec::new(), size: 0, stack: 0 };
    if !guard(|| context.inline(&mut chooser)).ok()?.ok()? {
        return None;
    }
    let copies = chooser.copies;
    let ir = &mut context.func;
    set_locations(ir, &copies);
    name_globals(ir, &copies);
    reach_by_slots(ir, user.module);
    // The code generator relies on it that what it gets is valid.
    verify(ir, isa).ok()?;
    let (encoded, others) = encode(program, user.module, ir)?;
    Some(Inlined { encoded, others, calls: copies.len() })
}

/// A body that was inlined.
struct Copy<'c> {
    /// The number of its first instruction. Its instructions, and no others, have the numbers up to
    /// that of the next copy.
    first: u32,
    /// The number of its first global value. The others follow.
    first_global: u32,
    callee: &'c Callee,
    place: Place,
    /// The copy that had the call, unless that is the function's own.
    parent: Option<usize>,
    depth: u32,
    /// The location of the call that it stands for in the function itself.
    location: RelSourceLoc,
}

/// Chooses the calls that are inlined.
struct Chooser<'a, 'c, 'm> {
    program: &'a Program<'m>,
    user: Place,
    callee: &'a dyn Fn(Place) -> Option<&'c Callee>,
    copies: Vec<Copy<'c>>,
    /// The number of instructions that were inlined, and the bytes of their stack slots.
    size: u32,
    stack: u64,
}

impl<'c> Chooser<'_, 'c, '_> {
    /// Returns the body to inline at a call, if it is to be inlined.
    fn choose(&mut self, caller: &ir::Function, call: Inst, callee: FuncRef) -> Option<&'c Callee> {
        let data = &caller.dfg.ext_funcs[callee];
        let (module, symbol) = named(caller, &data.name)?;
        let place = self.program.reached(module, symbol).filter(|place| *place != self.user)?;
        let parent = self.copy_of(call);
        let depth = parent.map_or(1, |parent| self.copies[parent].depth + 1);
        let mut around = std::iter::successors(parent, |copy| self.copies[*copy].parent);
        if depth > DEPTH || around.any(|copy| self.copies[copy].place == place) {
            return None;
        }
        let found = (self.callee)(place)?;
        let is_cold = caller.layout.inst_block(call).is_some_and(|block| caller.layout.is_cold(block));
        if self.size + found.size > GROWTH
            || self.stack + found.stack > FRAME
            || is_cold && !found.is_hinted
            || caller.dfg.signatures[data.signature] != found.ir.signature
            || place.module != self.user.module && !self.can_move(place.module, found)
        {
            return None;
        }
        let location = match parent {
            Some(parent) => self.copies[parent].location,
            None => caller.srclocs[call],
        };
        let first = caller.dfg.num_insts() as u32;
        self.size += found.size;
        self.stack += found.stack;
        let first_global = caller.global_values.len() as u32;
        self.copies.push(Copy { first, first_global, callee: found, place, parent, depth, location });
        Some(found)
    }

    /// Whether a function of another module means the same in the module of the caller.
    fn can_move(&self, module: usize, callee: &Callee) -> bool {
        let user = self.user.module;
        let modules = self.program.modules();
        let named = |symbol: &SymbolId| self.program.name(user, module, *symbol).is_some();
        !callee.is_thread_local
            && modules[user].settings.same_code(&modules[module].settings)
            && callee.references.iter().all(named)
    }

    /// Returns the copy that has an instruction.
    fn copy_of(&self, inst: Inst) -> Option<usize> {
        self.copies.partition_point(|copy| copy.first <= inst.as_u32()).checked_sub(1)
    }
}

impl Inline for Chooser<'_, '_, '_> {
    fn inline(
        &mut self,
        caller: &ir::Function,
        call: Inst,
        opcode: Opcode,
        callee: FuncRef,
        _: &[Value],
    ) -> InlineCommand<'_> {
        match (opcode == Opcode::Call).then(|| self.choose(caller, call, callee)).flatten() {
            Some(found) => InlineCommand::Inline { callee: Cow::Borrowed(&found.ir), visit_callee: true },
            None => InlineCommand::KeepCall,
        }
    }
}

/// Gives inlined instructions the locations of their calls.
fn set_locations(ir: &mut ir::Function, copies: &[Copy<'_>]) {
    let end = ir.dfg.num_insts() as u32;
    let ends = copies.iter().skip(1).map(|copy| copy.first).chain([end]);
    for (copy, end) in copies.iter().zip(ends) {
        // Most functions have no locations, and then the table stays empty.
        if copy.location != RelSourceLoc::default() {
            (copy.first..end).for_each(|inst| ir.srclocs[Inst::from_u32(inst)] = copy.location);
        }
    }
}

/// Gives the global values of inlined bodies their names. The inliner copies them with the numbers
/// that the names have in the callee, which are others in the caller.
fn name_globals(ir: &mut ir::Function, copies: &[Copy<'_>]) {
    for Copy { first_global, callee, .. } in copies {
        for (at, data) in (*first_global..).zip(callee.ir.global_values.values()) {
            let GlobalValueData::Symbol { name: ExternalName::User(name), .. } = data else { continue };
            let name = callee.ir.params.user_named_funcs()[*name].clone();
            let name = ir.declare_imported_user_function(name);
            if let GlobalValueData::Symbol { name: own, .. } =
                &mut ir.global_values[GlobalValue::from_u32(at)]
            {
                *own = ExternalName::User(name);
            }
        }
    }
}

/// Marks what an inlined body names as reached through slots, because only its own module knew that
/// it is near. What the caller's module defines is marked as near when it is compiled.
fn reach_by_slots(ir: &mut ir::Function, user: usize) {
    let is_other = |ir: &ir::Function, name| named(ir, name).is_some_and(|(module, _)| module != user);
    let funcs: Vec<FuncRef> =
        ir.dfg.ext_funcs.iter().filter(|(_, data)| is_other(ir, &data.name)).map(|(at, _)| at).collect();
    let globals = ir
        .global_values
        .iter()
        .filter(|(_, data)| matches!(data, GlobalValueData::Symbol { name, .. } if is_other(ir, name)));
    let globals: Vec<GlobalValue> = globals.map(|(at, _)| at).collect();
    for func in funcs {
        ir.dfg.ext_funcs[func].colocated = false;
    }
    for global in globals {
        if let GlobalValueData::Symbol { colocated, .. } = &mut ir.global_values[global] {
            *colocated = false;
        }
    }
}

/// Returns the canonical form, and the symbols that the module does not have.
fn encode(
    program: &Program<'_>,
    user: usize,
    ir: &ir::Function,
) -> Option<(Encoded, Vec<(usize, SymbolId)>)> {
    let own = program.modules()[user].symbols.len() as u32;
    let mut names = IndexSet::new();
    let mut others = Vec::new();
    let encoded = Encoder::default().encode(ir, |external| {
        let name = match external {
            ExternalRef::Function(func) => &ir.dfg.ext_funcs[func].name,
            ExternalRef::Global(global) => ir.global_values[global].symbol_name(),
        };
        let symbol = named(ir, name);
        let name = symbol.and_then(|(module, symbol)| program.name(user, module, symbol));
        match (symbol, name) {
            (_, Some(Named::Own(symbol))) => Ok(symbol.as_u32()),
            (Some(symbol), Some(Named::New(name))) => {
                let (number, is_new) = names.insert_full(name);
                others.extend(is_new.then_some(symbol));
                Ok(own + number as u32)
            }
            _ => Err(EncodeError::Form("a name that the module cannot have")),
        }
    });
    let encoded = encoded.and_then(|encoded| encoded.checked(&mut CheckScratch::default())).ok()?;
    Some((encoded, others))
}
