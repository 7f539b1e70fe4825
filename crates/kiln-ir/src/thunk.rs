//! Entry thunks, for callers that know a signature only at run time.
//!
//! The thunk of a signature is an `extern "C"` function. Its parameters are the callee's address
//! and an array of 16-byte cells. It loads the arguments from the cells, calls the callee, and
//! stores the results into the same cells, from the first one on. A value takes the first bytes of
//! its cell in native byte order, vectors in little-endian lane order, as
//! `DataValue::write_to_slice_ne` writes it.

use cranelift_codegen::cursor::{Cursor, FuncCursor};
use cranelift_codegen::ir::{self, AbiParam, InstBuilder, MemFlagsData, UserFuncName};
use cranelift_codegen::isa::{CallConv, TargetIsa};

use crate::body::Body;
use crate::comments::Comments;
use crate::function::{Code, Function, InlineHint};
use crate::ids::ClientIds;
use crate::lines::LineTable;
use crate::module::Module;
use crate::settings::ModuleSettings;
use crate::symbol::{Linkage, Symbol, SymbolId, SymbolKind};

/// The size of a cell, in bytes.
pub const CELL_SIZE: usize = 16;

/// Returns a module that defines the entry thunk for `signature` under `name`.
pub fn entry_thunk(
    name: &str,
    signature: &ir::Signature,
    settings: &ModuleSettings,
    isa: &dyn TargetIsa,
) -> Module {
    let pointer = isa.pointer_type();
    let mut own = ir::Signature::new(CallConv::SystemV);
    own.params.extend([AbiParam::new(pointer), AbiParam::new(pointer)]);

    let mut func = ir::Function::with_name_signature(UserFuncName::user(0, 0), own.clone());
    let signature_ref = func.import_signature(signature.clone());
    let block = func.dfg.make_block();
    let callee = func.dfg.append_block_param(block, pointer);
    let cells = func.dfg.append_block_param(block, pointer);
    func.layout.append_block(block);

    let flags = |ty: ir::Type| {
        let flags = MemFlagsData::trusted();
        if ty.is_vector() { flags.with_endianness(ir::Endianness::Little) } else { flags }
    };
    let offset =
        |index: usize| i32::try_from(index * CELL_SIZE).expect("a signature has fewer than 2^27 values");
    let mut at = FuncCursor::new(&mut func).at_bottom(block);
    let mut arguments = Vec::with_capacity(signature.params.len());
    for (index, param) in signature.params.iter().enumerate() {
        arguments.push(at.ins().load(param.value_type, flags(param.value_type), cells, offset(index)));
    }
    let call = at.ins().call_indirect(signature_ref, callee, &arguments);
    let results = at.func.dfg.inst_results(call).to_vec();
    for (index, (result, param)) in results.into_iter().zip(&signature.returns).enumerate() {
        at.ins().store(flags(param.value_type), result, cells, offset(index));
    }
    at.ins().return_(&[]);

    let body = Body::new(&func).expect("a function that names nothing and defines what it uses");
    let symbol = Symbol {
        name: name.into(),
        kind: SymbolKind::Function,
        linkage: Linkage::Export,
        signature: Some(own),
        line: 0,
    };
    Module {
        name: "entry thunk".into(),
        source: None,
        settings: settings.clone(),
        symbols: vec![symbol],
        functions: vec![Function {
            symbol: SymbolId::from_u32(0),
            code: Code::Ir(body),
            inline: InlineHint::Never,
            line: 0,
            variables: Box::default(),
            comments: Comments::new(),
        }],
        data: Vec::new(),
        lines: LineTable::default(),
        comments: Vec::new(),
        ids: ClientIds::default(),
    }
}
