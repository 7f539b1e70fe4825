//! A module that passes every call on to another module and records it, to see whether the clients
//! of these tests use the whole trait.

use std::cell::RefCell;
use std::collections::BTreeSet;

use cranelift_codegen::Context;
use cranelift_codegen::control::ControlPlane;
use cranelift_codegen::ir::{FuncRef, Function, GlobalValue, Signature};
use cranelift_codegen::isa::{TargetFrontendConfig, TargetIsa};
use cranelift_module::{
    DataDescription, DataId, FuncId, FuncOrDataId, Linkage, Module, ModuleDeclarations, ModuleReloc,
    ModuleResult,
};

use crate::bytes::Machine;
use crate::engines::{Client as _, kiln_module, object_module};
use crate::language::{Failure, parse};
use crate::program;

struct Recorder<'m> {
    module: &'m mut dyn Module,
    seen: RefCell<BTreeSet<String>>,
}

/// Every call that a client can make.
const METHODS: [&str; 20] = [
    "clear_context",
    "clear_signature",
    "declarations",
    "declare_anonymous_data",
    "declare_anonymous_function",
    "declare_data",
    "declare_data_in_data",
    "declare_data_in_func",
    "declare_func_in_data",
    "declare_func_in_func",
    "declare_function",
    "define_data",
    "define_function",
    "define_function_bytes",
    "define_function_with_control_plane",
    "get_name",
    "isa",
    "make_context",
    "make_signature",
    "target_config",
];

/// All programs together call every method of the trait, with every linkage, and widen linkages.
pub(crate) fn uses_the_whole_trait() -> Result<(), Failure> {
    let mut seen = BTreeSet::new();
    let clients =
        program::files().iter().map(|path| parse(&std::fs::read_to_string(path)?)).collect::<Vec<_>>();
    for program in clients {
        let (program, mut module) = (program?, kiln_module()?);
        let mut recorder = Recorder { module: &mut module, seen: RefCell::default() };
        program.build(&mut recorder)?;
        seen.append(recorder.seen.get_mut());
    }
    let mut module = object_module()?;
    let mut recorder = Recorder { module: &mut module, seen: RefCell::default() };
    Machine.build(&mut recorder)?;
    seen.append(recorder.seen.get_mut());

    let linkages = ["Import", "Local", "Preemptible", "Hidden", "Export"];
    let linkages =
        linkages.iter().flat_map(|linkage| [format!("a function: {linkage}"), format!("data: {linkage}")]);
    let kinds = [
        "zeros",
        "bytes",
        "align",
        "section",
        "used",
        "function address",
        "data address",
        "data address + addend",
    ];
    let wanted = METHODS.iter().chain(&kinds).map(ToString::to_string).chain(linkages);
    let wanted =
        wanted.chain(["a function: Import, then Local".into(), "a function: Import, then Export".into()]);
    let missing: Vec<String> = wanted.filter(|what| !seen.contains(what)).collect();
    if missing.is_empty() { Ok(()) } else { Err(format!("never used: {missing:?}").into()) }
}

impl Recorder<'_> {
    fn note(&self, what: impl Into<String>) {
        self.seen.borrow_mut().insert(what.into());
    }
}

impl Module for Recorder<'_> {
    fn isa(&self) -> &dyn TargetIsa {
        self.note("isa");
        self.module.isa()
    }

    fn declarations(&self) -> &ModuleDeclarations {
        self.note("declarations");
        self.module.declarations()
    }

    fn get_name(&self, name: &str) -> Option<FuncOrDataId> {
        self.note("get_name");
        self.module.get_name(name)
    }

    fn target_config(&self) -> TargetFrontendConfig {
        self.note("target_config");
        self.module.target_config()
    }

    fn make_context(&self) -> Context {
        self.note("make_context");
        self.module.make_context()
    }

    fn clear_context(&self, context: &mut Context) {
        self.note("clear_context");
        self.module.clear_context(context);
    }

    fn make_signature(&self) -> Signature {
        self.note("make_signature");
        self.module.make_signature()
    }

    fn clear_signature(&self, signature: &mut Signature) {
        self.note("clear_signature");
        self.module.clear_signature(signature);
    }

    fn declare_function(
        &mut self,
        name: &str,
        linkage: Linkage,
        signature: &Signature,
    ) -> ModuleResult<FuncId> {
        self.note("declare_function");
        self.note(format!("a function: {linkage:?}"));
        if let Some(FuncOrDataId::Func(id)) = self.module.get_name(name) {
            let before = self.module.declarations().get_function_decl(id).linkage;
            self.note(format!("a function: {before:?}, then {linkage:?}"));
        }
        self.module.declare_function(name, linkage, signature)
    }

    fn declare_anonymous_function(&mut self, signature: &Signature) -> ModuleResult<FuncId> {
        self.note("declare_anonymous_function");
        self.module.declare_anonymous_function(signature)
    }

    fn declare_data(
        &mut self,
        name: &str,
        linkage: Linkage,
        writable: bool,
        tls: bool,
    ) -> ModuleResult<DataId> {
        self.note("declare_data");
        self.note(format!("data: {linkage:?}"));
        self.module.declare_data(name, linkage, writable, tls)
    }

    fn declare_anonymous_data(&mut self, writable: bool, tls: bool) -> ModuleResult<DataId> {
        self.note("declare_anonymous_data");
        self.module.declare_anonymous_data(writable, tls)
    }

    fn declare_func_in_func(&mut self, id: FuncId, function: &mut Function) -> FuncRef {
        self.note("declare_func_in_func");
        self.module.declare_func_in_func(id, function)
    }

    fn declare_data_in_func(&self, id: DataId, function: &mut Function) -> GlobalValue {
        self.note("declare_data_in_func");
        self.module.declare_data_in_func(id, function)
    }

    fn declare_func_in_data(&self, id: FuncId, data: &mut DataDescription) -> FuncRef {
        self.note("declare_func_in_data");
        self.module.declare_func_in_data(id, data)
    }

    fn declare_data_in_data(&self, id: DataId, data: &mut DataDescription) -> GlobalValue {
        self.note("declare_data_in_data");
        self.module.declare_data_in_data(id, data)
    }

    fn define_function(&mut self, id: FuncId, context: &mut Context) -> ModuleResult<()> {
        self.note("define_function");
        self.module.define_function(id, context)
    }

    fn define_function_with_control_plane(
        &mut self,
        id: FuncId,
        context: &mut Context,
        control_plane: &mut ControlPlane,
    ) -> ModuleResult<()> {
        self.note("define_function_with_control_plane");
        self.module.define_function_with_control_plane(id, context, control_plane)
    }

    fn define_function_bytes(
        &mut self,
        id: FuncId,
        alignment: u64,
        bytes: &[u8],
        relocs: &[ModuleReloc],
    ) -> ModuleResult<()> {
        self.note("define_function_bytes");
        self.module.define_function_bytes(id, alignment, bytes, relocs)
    }

    fn define_data(&mut self, id: DataId, data: &DataDescription) -> ModuleResult<()> {
        self.note("define_data");
        self.note(match data.init {
            cranelift_module::Init::Zeros { .. } => "zeros",
            _ => "bytes",
        });
        for (present, what) in [
            (data.align.is_some(), "align"),
            (data.custom_section.is_some(), "section"),
            (data.used, "used"),
            (!data.function_relocs.is_empty(), "function address"),
            (!data.data_relocs.is_empty(), "data address"),
            (data.data_relocs.iter().any(|(_, _, addend)| *addend != 0), "data address + addend"),
        ] {
            if present {
                self.note(what);
            }
        }
        self.module.define_data(id, data)
    }
}
