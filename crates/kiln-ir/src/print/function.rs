//! Prints functions in the form that Cranelift's reader accepts.
//!
//! Cranelift's own printer leaves out dynamic types, the memory flags of atomic instructions and
//! the names of symbols in global values, adds comments about constants, and writes some offsets in
//! a way that its reader refuses. So everything except the operands of instructions is written
//! here.
//!
//! Invariant: entities keep their numbers, so that reading the text gives the canonical form that
//! was printed.

use std::collections::HashMap;
use std::fmt::{Display, Write as _};

use cranelift_codegen::ir::{
    self, Block, DynamicType, ExternalName, GlobalValueData, Inst, InstructionData, SourceLoc, Type,
    ValueDef, ValueLabelAssignments,
};
use cranelift_codegen::write::write_operands;

use super::names::Names;
use super::quote::quoted;
use crate::comments::{Anchor, Comments};
use crate::symbol::SymbolId;
use crate::variables::Variable;

/// The largest number of blocks that Cranelift's reader accepts in a function.
const MAX_BLOCKS: usize = 100_000;

type Written = Result<(), String>;

struct FunctionPrinter<'f> {
    ir: &'f ir::Function,
    names: &'f Names,
    dynamic: HashMap<Type, DynamicType>,
    /// The source location that was written first.
    first: Option<SourceLoc>,
    out: &'f mut String,
}

/// Writes the function from its keyword to its closing brace, with the comments inside.
pub(super) fn write(
    ir: &ir::Function,
    names: &Names,
    symbol: SymbolId,
    comments: &Comments,
    out: &mut String,
) -> Written {
    let mut dynamic = HashMap::new();
    for number in ir.dfg.dynamic_types.keys() {
        if let Some(ty) = ir.get_concrete_dynamic_ty(number) {
            dynamic.entry(ty).or_insert(number);
        }
    }
    if ir.layout.blocks().count() > MAX_BLOCKS {
        return Err(format!("it has more than {MAX_BLOCKS} blocks"));
    }
    let mut comments = comments.iter().peekable();
    let mut here = |anchor: Anchor, out: &mut String| {
        if let Some(comment) = comments.next_if(|comment| comment.anchor == anchor && comment.trailing) {
            let _ = write!(out, " {}", comment.text);
        }
        out.push('\n');
        while let Some(comment) = comments.next_if(|comment| comment.anchor == anchor) {
            let _ = writeln!(out, "    {}", comment.text);
        }
    };
    let mut printer = FunctionPrinter { ir, names, dynamic, first: None, out };
    printer.signature("function ", names.text(symbol), &ir.signature)?;
    printer.out.push_str(" {");
    let before = printer.out.len();
    here(Anchor::Declarations, printer.out);
    printer.declarations()?;
    let mut empty_line = printer.out.len() > before + 1;
    let mut insts = 0;
    for (number, block) in (0..).zip(ir.layout.blocks()) {
        if empty_line {
            printer.out.push('\n');
        }
        empty_line = true;
        printer.block(block)?;
        here(Anchor::Block(number), printer.out);
        for inst in ir.layout.block_insts(block) {
            printer.inst(inst)?;
            here(Anchor::Inst(insts), printer.out);
            insts += 1;
        }
    }
    printer.out.push('}');
    Ok(())
}

/// Writes the item `debug %f { .. }` if the function has properties that its own text cannot
/// express.
pub(super) fn debug(ir: &ir::Function, name: &str, variables: &[Variable], out: &mut String) -> Written {
    let mut entries = Vec::new();
    let base = ir.params.base_srcloc();
    let mut first = SourceLoc::default();
    for inst in ir.layout.blocks().flat_map(|block| ir.layout.block_insts(block)) {
        let relative = ir.stencil.srclocs[inst];
        if !relative.is_default() {
            let location = ir.srcloc(inst);
            if location.is_default() {
                return Err(format!("the source location of {inst} wraps around"));
            }
            first = location;
            break;
        }
    }
    // Without a `debug` item, the base is the first location.
    if base != first {
        entries.push(format!("base {base}"));
    }
    if let Some(labels) = &ir.dfg.values_labels {
        entries.push("labels".to_owned());
        for (value, assignment) in labels {
            match assignment {
                ValueLabelAssignments::Starts(starts) if starts.is_empty() => entries.push(value.to_string()),
                ValueLabelAssignments::Starts(starts) => {
                    for start in starts {
                        let from = start.from.expand(SourceLoc::new(0));
                        entries.push(format!("{value} label {} {from}", start.label.as_u32()));
                    }
                }
                ValueLabelAssignments::Alias { from, value: of } => {
                    let from = from.expand(SourceLoc::new(0));
                    entries.push(format!("{value} alias {of} {from}"));
                }
            }
        }
    }
    for Variable { label, name, ty } in variables {
        let name = quoted(name.as_bytes());
        entries.push(format!("variable {label} {name} {} {}", ty.encoding.word(), ty.size));
    }
    if !entries.is_empty() {
        let _ = writeln!(out, "debug {name} {{ {} }}", entries.join(", "));
    }
    Ok(())
}

/// Writes a signature after `name`. A dynamic type in it is an error, because Cranelift's reader
/// cannot read it back.
fn signature(name: impl Display, signature: &ir::Signature, out: &mut String) -> Written {
    let values = signature.params.iter().chain(&signature.returns);
    match values.map(|param| param.value_type).find(|ty| ty.is_dynamic_vector()) {
        Some(ty) => Err(format!("a parameter or result of the type {ty}")),
        None => {
            let _ = write!(out, "{name}{signature}");
            Ok(())
        }
    }
}

impl FunctionPrinter<'_> {
    fn signature(&mut self, before: &str, name: &str, of: &ir::Signature) -> Written {
        signature(format_args!("{before}{name}"), of, self.out)
    }

    fn name(&self, name: &ExternalName) -> Result<String, String> {
        match name {
            ExternalName::User(number) => {
                let symbol = SymbolId::from_u32(self.ir.params.user_named_funcs()[*number].index);
                Ok(self.names.text(symbol).to_owned())
            }
            ExternalName::LibCall(call) => Ok(format!("%{call}")),
            ExternalName::TestCase(_) | ExternalName::KnownSymbol(_) => {
                Err("a name without number".to_owned())
            }
        }
    }

    fn line(&mut self, name: impl Display, value: impl Display) {
        let _ = writeln!(self.out, "    {name} = {value}");
    }

    fn declarations(&mut self) -> Written {
        let ir = self.ir;
        for (number, data) in &ir.sized_stack_slots {
            self.line(number, data);
        }
        for (number, data) in &ir.dfg.dynamic_types {
            self.line(number, format_args!("{}*{}", data.base_vector_ty, data.dynamic_scale));
        }
        for (number, data) in &ir.dynamic_stack_slots {
            self.line(number, data);
        }
        for (number, data) in ir.dfg.alias_regions.iter() {
            self.line(number, format_args!("{} {}", data.user_id, description(&data.description)));
        }
        for (number, data) in &ir.global_values {
            match data {
                GlobalValueData::Symbol { name, offset, colocated, tls } => {
                    let colocated = if *colocated { "colocated " } else { "" };
                    let tls = if *tls { "tls " } else { "" };
                    let name = self.name(name)?;
                    let offset = match offset.bits() {
                        0 => String::new(),
                        offset => format!("{offset:+}"),
                    };
                    self.line(number, format_args!("symbol {colocated}{tls}{name}{offset}"));
                }
                GlobalValueData::Load { flags, global_type, .. } => {
                    let flags = ir.dfg.mem_flags[*flags];
                    if !(flags.notrap() && flags.aligned()) || global_type.is_dynamic_vector() {
                        return Err(format!("{number} is a load that is not `notrap` and `aligned`"));
                    }
                    self.line(number, data.display(&ir.dfg.mem_flags));
                }
                GlobalValueData::IAddImm { global_type: ty, .. }
                | GlobalValueData::DynScaleTargetConst { vector_type: ty } => {
                    if ty.is_dynamic_vector() {
                        return Err(format!("{number} has the type {ty}"));
                    }
                    self.line(number, data.display(&ir.dfg.mem_flags));
                }
                GlobalValueData::VMContext => self.line(number, "vmctx"),
            }
        }
        for (number, data) in &ir.dfg.signatures {
            self.out.push_str("    ");
            signature(format_args!("{number} = "), data, self.out)?;
            self.out.push('\n');
        }
        for (number, data) in &ir.dfg.ext_funcs {
            let colocated = if data.colocated { "colocated " } else { "" };
            let patchable = if data.patchable { "patchable " } else { "" };
            let name = self.name(&data.name)?;
            self.line(number, format_args!("{colocated}{patchable}{name} {}", data.signature));
        }
        for (number, data) in ir.dfg.constants.iter() {
            if data.is_empty() {
                return Err(format!("{number} has no bytes"));
            }
            self.line(number, data);
        }
        if let Some(limit) = ir.stack_limit {
            self.line("stack_limit", limit);
        }
        Ok(())
    }

    fn block(&mut self, block: Block) -> Written {
        let _ = write!(self.out, "{block}");
        for (position, value) in self.ir.dfg.block_params(block).iter().enumerate() {
            let ty = self.ir.dfg.value_type(*value);
            if ty.is_dynamic_vector() {
                return Err(format!("{value} is a parameter of the type {ty}"));
            }
            let before = if position == 0 { "(" } else { ", " };
            let _ = write!(self.out, "{before}{value}: {ty}");
        }
        if !self.ir.dfg.block_params(block).is_empty() {
            self.out.push(')');
        }
        self.out.push_str(if self.ir.layout.is_cold(block) { " cold:" } else { ":" });
        Ok(())
    }

    fn inst(&mut self, inst: Inst) -> Written {
        let dfg = &self.ir.dfg;
        self.out.push_str("    ");
        let tags = self.ir.debug_tags.get(inst);
        if !tags.is_empty() {
            let tags: Vec<_> = tags.iter().map(ToString::to_string).collect();
            let _ = write!(self.out, "<{}> ", tags.join(", "));
        }
        if !self.ir.stencil.srclocs[inst].is_default() {
            let location = self.ir.srcloc(inst);
            if location.is_default() {
                return Err(format!("the source location of {inst} wraps around"));
            }
            // A reader stores locations relative to the first one. A location that is one less than
            // the first would be read as no location.
            let first = *self.first.get_or_insert(location);
            if location.bits() == first.bits().wrapping_sub(1) {
                return Err(format!("the source location of {inst} is the one before the first"));
            }
            let _ = write!(self.out, "{location} ");
        }
        for (position, value) in dfg.inst_results(inst).iter().enumerate() {
            let before = if position == 0 { "" } else { ", " };
            let _ = write!(self.out, "{before}{value}");
        }
        if !dfg.inst_results(inst).is_empty() {
            self.out.push_str(" = ");
        }
        let data = &dfg.insts[inst];
        let _ = write!(self.out, "{}", data.opcode());
        if let Some(ty) = self.suffix(inst) {
            let _ = match self.dynamic.get(&ty) {
                Some(number) => write!(self.out, ".{number}"),
                None if ty.is_dynamic_vector() => return Err(format!("{inst} has the undeclared type {ty}")),
                None => write!(self.out, ".{ty}"),
            };
        }
        // Cranelift's printer leaves these flags out.
        if let InstructionData::AtomicRmw { flags, .. } | InstructionData::AtomicCas { flags, .. } = data {
            let _ = write!(self.out, "{}", dfg.mem_flags[*flags]);
        }
        if let InstructionData::Shuffle { imm, .. } = data
            && dfg.immediates.get(*imm).is_none_or(|mask| mask.len() != 16)
        {
            return Err(format!("the mask of {inst} has not 16 bytes"));
        }
        if let Some(entries) = dfg.user_stack_map_entries(inst)
            && entries.iter().any(|entry| entry.ty.is_dynamic_vector())
        {
            return Err(format!("the stack map of {inst} holds a dynamic type"));
        }
        let start = self.out.len();
        let _ = write_operands(self.out, dfg, inst);
        // Cranelift appends facts about the operands as a comment, which is cut off. Operands
        // contain no `;`.
        let written = &self.out[start..];
        let length = written[..written.find(';').unwrap_or(written.len())].trim_end().len();
        self.out.truncate(start + length);
        Ok(())
    }

    /// Returns the type to write after the opcode. As in Cranelift's printer, there is none if an
    /// operand that is defined in the same block determines it.
    fn suffix(&self, inst: Inst) -> Option<Type> {
        let (dfg, layout) = (&self.ir.dfg, &self.ir.layout);
        let constraints = dfg.insts[inst].opcode().constraints();
        if !constraints.is_polymorphic() {
            return None;
        }
        let ty = dfg.ctrl_typevar(inst);
        if constraints.use_typevar_operand() && !ty.is_dynamic_vector() {
            let operand = dfg.insts[inst].typevar_operand(&dfg.value_lists)?;
            let block = match dfg.value_def(operand) {
                ValueDef::Result(definition, _) => {
                    // In unreachable code an operand may be defined after its use.
                    let before = definition.as_u32() < inst.as_u32();
                    layout.inst_block(definition).filter(|_| before)
                }
                ValueDef::Param(block, _) => Some(block),
                ValueDef::Union(..) => None,
            };
            if block.is_some() && block == layout.inst_block(inst) {
                return None;
            }
        }
        Some(ty)
    }
}

/// Returns the description of an alias region as a string literal. Cranelift's reader does not
/// resolve escapes, so quotes are written as `\x22`. Our reader resolves the escapes afterwards.
fn description(text: &str) -> String {
    let piece = |piece: &str| {
        let quoted = quoted(piece.as_bytes());
        quoted[1..quoted.len() - 1].to_owned()
    };
    format!("\"{}\"", text.split('"').map(piece).collect::<Vec<_>>().join("\\x22"))
}
