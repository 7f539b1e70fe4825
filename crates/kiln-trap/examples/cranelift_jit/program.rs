//! A plain cranelift-jit program made from `.clif` text, with its tables in a [`CodeTable`].
//!
//! This is what a client of `JITModule` writes: define a function, keep the tables of its
//! `CompiledCode`, and register them when the addresses are known.

use std::collections::HashMap;

use cranelift_codegen::ir::{ExternalName, UserExternalName};
use cranelift_codegen::isa::OwnedTargetIsa;
use cranelift_codegen::isa::unwind::UnwindInfo;
use cranelift_codegen::settings::{self, Configurable as _};
use cranelift_codegen::{CompiledCode, ExceptionContextLoc, FinalizedMachExceptionHandler};
use cranelift_jit::{JITBuilder, JITModule};
use cranelift_module::{FuncId, Linkage, Module as _};
use gimli::RunTimeEndian;
use gimli::write::{Address, EhFrame, EndianVec, FrameTable};
use kiln_trap::{CodeTable, HandlerInfo, Registration, RootInfo, TableCall, TableFunction, TableStackMap};

/// Compiled functions whose tables are registered.
pub(crate) struct Program {
    functions: HashMap<String, *const u8>,
    /// Taken back before the code and the tables are freed.
    pub(crate) registrations: Vec<Registration>,
    rows: Option<Vec<u8>>,
    module: Option<JITModule>,
    _table: Box<CodeTable>,
}

/// How a program is made.
pub(crate) struct Options<'a> {
    /// Functions of the host that the program calls by name.
    pub(crate) host: &'a [(&'a str, *const u8)],
    /// Further settings of Cranelift.
    pub(crate) settings: &'a [(&'a str, &'a str)],
    /// Whether the unwinder is told about the code.
    pub(crate) rows: bool,
    /// Changes the tables before they are registered: a test damages them.
    pub(crate) change: &'a dyn Fn(&mut Vec<TableFunction>),
}

impl Default for Options<'_> {
    fn default() -> Self {
        Self { host: &[], settings: &[], rows: true, change: &|_| {} }
    }
}

unsafe extern "C" {
    fn __register_frame(section: *const u8);
    fn __deregister_frame(section: *const u8);
}

impl Program {
    /// Compiles the functions in `text`.
    pub(crate) fn new(text: &str, options: &Options<'_>) -> Self {
        let mut flags = settings::builder();
        for (name, value) in options.settings {
            flags.set(name, value).unwrap();
        }
        let isa = cranelift_native::builder().unwrap().finish(settings::Flags::new(flags)).unwrap();
        let mut builder = JITBuilder::with_isa(isa.clone(), cranelift_module::default_libcall_names());
        for (name, address) in options.host {
            builder.symbol(*name, *address);
        }
        let mut module = JITModule::new(builder);
        let functions = cranelift_reader::parse_functions(text).expect("the text is right");
        let name = |name: &ExternalName| match name {
            ExternalName::TestCase(name) => String::from_utf8_lossy(name.raw()).into_owned(),
            other => panic!("{other:?} is no name of this text"),
        };

        // Names in the text become ids of the module.
        let mut ids: HashMap<String, FuncId> = HashMap::new();
        for function in &functions {
            let own = function.name.to_string().trim_start_matches('%').to_owned();
            let id = module.declare_function(&own, Linkage::Export, &function.signature).unwrap();
            ids.insert(own, id);
        }
        let mut tables = Vec::new();
        let mut compiled = Vec::new();
        for mut function in functions {
            let own = function.name.to_string().trim_start_matches('%').to_owned();
            for reference in function.dfg.ext_funcs.keys().collect::<Vec<_>>() {
                let callee = &function.dfg.ext_funcs[reference];
                let (callee_name, signature) = (name(&callee.name), callee.signature);
                let id = *ids.entry(callee_name.clone()).or_insert_with(|| {
                    let signature = &function.dfg.signatures[signature];
                    module.declare_function(&callee_name, Linkage::Import, signature).unwrap()
                });
                let user = UserExternalName { namespace: 0, index: id.as_u32() };
                let user = function.declare_imported_user_function(user);
                function.dfg.ext_funcs[reference].name = ExternalName::user(user);
                function.dfg.ext_funcs[reference].colocated = false;
            }
            let mut context = module.make_context();
            context.func = function;
            module.define_function(ids[&own], &mut context).unwrap_or_else(|error| panic!("{error:?}"));
            let code = context.compiled_code().unwrap();
            tables.push(table(&own, code));
            compiled.push(code.create_unwind_info(&*isa).unwrap());
        }
        module.finalize_definitions().unwrap();
        for table in &mut tables {
            table.start = module.get_finalized_function(ids[&table.name]).addr();
        }
        let rows = options.rows.then(|| rows(&isa, &tables, compiled));
        let functions: HashMap<_, _> = tables
            .iter()
            .map(|table| (table.name.clone(), module.get_finalized_function(ids[&table.name])))
            .collect();
        (options.change)(&mut tables);
        let ranges: Vec<_> = tables.iter().map(|table| table.start..table.start + table.len).collect();
        let table = Box::new(CodeTable::new(tables));
        let lookup: *const CodeTable = &raw const *table;
        // SAFETY: the tables describe the code, and both live as long as the registrations.
        let register = |range| unsafe { kiln_trap::register(range, lookup) }.unwrap();
        let registrations = ranges.into_iter().map(register).collect();
        if let Some(rows) = &rows {
            // SAFETY: it is an `.eh_frame` section with an end, which lives until `drop`.
            unsafe { __register_frame(rows.as_ptr()) };
        }
        Self { functions, registrations, rows, module: Some(module), _table: table }
    }

    /// Returns a function as `F`, a function pointer.
    ///
    /// # Safety
    ///
    /// It must have that signature.
    pub(crate) unsafe fn function<F: Copy>(&self, name: &str) -> F {
        assert_eq!(size_of::<F>(), size_of::<*const u8>());
        // SAFETY: the caller promises the type.
        unsafe { std::mem::transmute_copy(&self.functions[name]) }
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        self.registrations.clear();
        if let Some(rows) = &self.rows {
            // SAFETY: it was registered once.
            unsafe { __deregister_frame(rows.as_ptr()) };
        }
        if let Some(module) = self.module.take() {
            // SAFETY: no code runs any more.
            unsafe { module.free_memory() };
        }
    }
}

/// Keeps the tables of a function. Its address is not known yet.
fn table(name: &str, code: &CompiledCode) -> TableFunction {
    let buffer = &code.buffer;
    let handler = |handler: &FinalizedMachExceptionHandler| match *handler {
        FinalizedMachExceptionHandler::Tag(tag, target) => {
            HandlerInfo::Tag { tag: tag.as_u32(), target: target as usize }
        }
        FinalizedMachExceptionHandler::Default(target) => HandlerInfo::Default { target: target as usize },
        FinalizedMachExceptionHandler::Context(ExceptionContextLoc::SPOffset(offset)) => {
            HandlerInfo::ContextOnStack(offset)
        }
        FinalizedMachExceptionHandler::Context(ExceptionContextLoc::GPR(register)) => {
            HandlerInfo::ContextInRegister(register)
        }
    };
    let stack_map = |return_offset: u32| {
        let (_, span, map) = buffer.user_stack_maps().iter().find(|(offset, ..)| *offset == return_offset)?;
        let roots = map.entries().map(|(ty, offset)| RootInfo { offset, size: ty.bytes() });
        Some(TableStackMap { span: *span, roots: roots.collect() })
    };
    TableFunction {
        name: name.to_owned(),
        module: "example".to_owned(),
        start: 0,
        len: code.code_buffer().len(),
        traps: buffer.traps().iter().map(|trap| (trap.offset, trap.code.as_raw().get())).collect(),
        sources: buffer
            .get_srclocs_sorted()
            .iter()
            .filter(|range| !range.loc.is_default())
            .map(|range| (range.start..range.end, range.loc.bits()))
            .collect(),
        calls: buffer
            .call_sites()
            .map(|site| TableCall {
                return_offset: site.ret_addr,
                frame_offset: site.frame_offset,
                handlers: site.exception_handlers.iter().map(handler).collect(),
                stack_map: stack_map(site.ret_addr),
            })
            .collect(),
    }
}

/// Makes an `.eh_frame` section, for Rust panics and exceptions that pass through the code.
fn rows(isa: &OwnedTargetIsa, tables: &[TableFunction], infos: Vec<Option<UnwindInfo>>) -> Vec<u8> {
    let mut frames = FrameTable::default();
    let mut cie = isa.create_systemv_cie().unwrap();
    cie.fde_address_encoding = gimli::DW_EH_PE_absptr;
    let cie = frames.add_cie(cie);
    for (table, info) in tables.iter().zip(infos) {
        if let Some(UnwindInfo::SystemV(info)) = info {
            frames.add_fde(cie, info.to_fde(Address::Constant(table.start as u64)));
        }
    }
    let mut section = EhFrame(EndianVec::new(RunTimeEndian::default()));
    frames.write_eh_frame(&mut section).unwrap();
    let mut bytes = section.0.into_vec();
    bytes.extend(0u32.to_ne_bytes());
    bytes
}
