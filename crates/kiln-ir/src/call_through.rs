//! Stand-ins for functions that are compiled when they are first called.
//!
//! A stand-in has the name and the type of the function. It asks the host for the function's
//! address, and calls it with its own arguments. The host compiles the function meanwhile, and
//! replaces the stand-in, so it is called seldom.

use cranelift_codegen::cursor::{Cursor, FuncCursor};
use cranelift_codegen::ir::{self, AbiParam, InstBuilder, UserExternalName, UserFuncName, types};
use cranelift_codegen::isa::{CallConv, TargetIsa};

use crate::body::Body;
use crate::{
    ClientIds, Code, Comments, Function, InlineHint, LineTable, Linkage, Module, ModuleSettings, Symbol,
    SymbolId, SymbolKind,
};

/// A function that a stand-in is made for.
#[derive(Clone, Debug)]
pub struct StandIn<'a> {
    /// The function's name.
    pub name: &'a str,
    /// The function's type.
    pub signature: &'a ir::Signature,
    /// The number that the host is given.
    pub number: u64,
}

/// Returns a module with a replaceable function for each stand-in. It calls `hook`, a function of
/// the host with the type `(i64) -> pointer system_v`, with its number, and then calls the function
/// at the address that the hook returns, with its own arguments.
pub fn call_through(
    stand_ins: &[StandIn<'_>],
    hook: &str,
    settings: &ModuleSettings,
    isa: &dyn TargetIsa,
) -> Module {
    let pointer = isa.pointer_type();
    let mut hook_type = ir::Signature::new(CallConv::SystemV);
    hook_type.params.push(AbiParam::new(types::I64));
    hook_type.returns.push(AbiParam::new(pointer));
    // Symbols are in order of functions, each followed by what it is the first to refer to.
    let hook_symbol = SymbolId::from_u32(1);
    let (mut symbols, mut functions) = (Vec::new(), Vec::new());
    for stand_in in stand_ins {
        let symbol = SymbolId::from_u32(symbols.len() as u32);
        symbols.push(Symbol {
            name: stand_in.name.into(),
            kind: SymbolKind::Function,
            linkage: Linkage::Replaceable,
            signature: Some(stand_in.signature.clone()),
            line: 0,
        });
        if symbols.len() == 1 {
            symbols.push(Symbol {
                name: hook.into(),
                kind: SymbolKind::Function,
                linkage: Linkage::Import,
                signature: Some(hook_type.clone()),
                line: 0,
            });
        }
        let function = function(stand_in, hook_symbol, &hook_type, pointer);
        let body = Body::new(&function).expect("the function defines what it uses");
        functions.push(Function {
            symbol,
            code: Code::Ir(body),
            inline: InlineHint::Never,
            line: 0,
            variables: Box::default(),
            comments: Comments::new(),
        });
    }
    Module {
        name: "stand-ins".into(),
        source: None,
        settings: settings.clone(),
        symbols,
        functions,
        data: Vec::new(),
        lines: LineTable::default(),
        comments: Vec::new(),
        ids: ClientIds::default(),
    }
}

fn function(
    stand_in: &StandIn<'_>,
    hook: SymbolId,
    hook_type: &ir::Signature,
    pointer: ir::Type,
) -> ir::Function {
    let StandIn { name: _, signature, number } = *stand_in;
    let mut func = ir::Function::with_name_signature(UserFuncName::user(0, 0), signature.clone());
    let hook_type = func.import_signature(hook_type.clone());
    let own_type = func.import_signature(signature.clone());
    let name = UserExternalName { namespace: 0, index: hook.as_u32() };
    let name = ir::ExternalName::User(func.declare_imported_user_function(name));
    let hook = func.import_function(ir::ExtFuncData {
        name,
        signature: hook_type,
        colocated: false,
        patchable: false,
    });
    let block = func.dfg.make_block();
    let arguments: Vec<ir::Value> =
        signature.params.iter().map(|param| func.dfg.append_block_param(block, param.value_type)).collect();
    func.layout.append_block(block);
    let mut at = FuncCursor::new(&mut func).at_bottom(block);
    let number = at.ins().iconst(types::I64, number.cast_signed());
    let call = at.ins().call(hook, &[number]);
    let callee = at.func.dfg.first_result(call);
    debug_assert_eq!(at.func.dfg.value_type(callee), pointer);
    let call = at.ins().call_indirect(own_type, callee, &arguments);
    let results = at.func.dfg.inst_results(call).to_vec();
    at.ins().return_(&results);
    func
}
