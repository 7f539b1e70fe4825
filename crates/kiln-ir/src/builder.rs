//! A module built by calls instead of read from text.
//!
//! [`ModuleBuilder`] implements [`cranelift_module::Module`], the trait that clients of Cranelift are generic over, so
//! that a compiler written for `JITModule` or `ObjectModule` builds modules for Kiln unchanged. "Defining" a function
//! here generates no code: the IR is verified, made to refer to symbols by number, and kept.
//!
//! What clients name by address today (`iconst` of a pointer) they name by a stable key with [`ModuleBuilder::global`].
//!
//! Invariants:
//! - Symbols are numbered in the order in which definitions arrive, each followed by what it uses first; what is declared
//!   and not used is no symbol. So the module does not depend on the order of declarations.
//! - Every number that a client hands in is checked: one that was never declared is an error, not a panic.

mod error;

use std::collections::{BTreeMap, HashMap};

use cranelift_codegen::control::ControlPlane;
use cranelift_codegen::ir::{self, ExternalName, GlobalValueData};
use cranelift_codegen::isa::{OwnedTargetIsa, TargetIsa};
use cranelift_codegen::{CodegenError, Context, verify_function};
use cranelift_module::{
    DataDescription, DataId, FuncId, FuncOrDataId, Init as DataInit, Linkage as DeclaredLinkage,
    ModuleDeclarations, ModuleError, ModuleReloc, ModuleRelocTarget, ModuleResult,
};

pub use self::error::{BuildError, DataFault};
use crate::module::{
    Data, DataAddress, Function, Init, Linkage, MAX_ALIGN, Module, Symbol, SymbolId, SymbolKind,
};
use crate::names;
use crate::settings::{ModuleSettings, Target};

/// Builds a [`Module`] through the interface of [`cranelift_module::Module`].
///
/// ```
/// use cranelift_codegen::ir::{InstBuilder, UserFuncName, types, AbiParam};
/// use cranelift_frontend::{FunctionBuilder, FunctionBuilderContext};
/// use cranelift_module::{Linkage, Module as _};
/// use kiln_ir::{ModuleBuilder, Target};
///
/// let mut module = ModuleBuilder::new("example", &Target::host()).unwrap();
/// let mut context = module.make_context();
/// context.func.signature.returns.push(AbiParam::new(types::I64));
/// let answer = module.declare_function("answer", Linkage::Export, &context.func.signature).unwrap();
/// let object = module.global("example::object");
///
/// let mut scratch = FunctionBuilderContext::new();
/// let mut builder = FunctionBuilder::new(&mut context.func, &mut scratch);
/// let block = builder.create_block();
/// builder.switch_to_block(block);
/// builder.seal_block(block);
/// let object = module.declare_data_in_func(object, builder.func);
/// let address = builder.ins().symbol_value(types::I64, object);
/// builder.ins().return_(&[address]);
/// builder.finalize(module.target_config());
///
/// module.define_function(answer, &mut context).unwrap();
/// let module = module.finish().unwrap();
/// assert_eq!(module.globals().collect::<Vec<_>>(), ["example::object"]);
/// ```
pub struct ModuleBuilder {
    name: Box<str>,
    isa: OwnedTargetIsa,
    declarations: ModuleDeclarations,
    /// Keys of the data objects that stand for globals.
    keys: HashMap<DataId, Box<str>>,
    by_key: HashMap<Box<str>, DataId>,
    symbols: Vec<Symbol>,
    function_symbols: BTreeMap<FuncId, SymbolId>,
    data_symbols: BTreeMap<DataId, SymbolId>,
    functions: BTreeMap<FuncId, Function>,
    data: BTreeMap<DataId, Data>,
    /// Definitions in order of arrival.
    order: Vec<FuncOrDataId>,
}

impl std::fmt::Debug for ModuleBuilder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ModuleBuilder").field("name", &self.name).finish_non_exhaustive()
    }
}

impl ModuleBuilder {
    /// An empty module; `name` is for messages.
    ///
    /// # Errors
    ///
    /// [`BuildError::Target`] if there is no code generator for the target.
    pub fn new(name: impl Into<Box<str>>, target: &Target) -> Result<Self, BuildError> {
        Ok(Self {
            name: name.into(),
            isa: target.isa(&ModuleSettings::default())?,
            declarations: ModuleDeclarations::default(),
            keys: HashMap::new(),
            by_key: HashMap::new(),
            symbols: Vec::new(),
            function_symbols: BTreeMap::new(),
            data_symbols: BTreeMap::new(),
            functions: BTreeMap::new(),
            data: BTreeMap::new(),
            order: Vec::new(),
        })
    }

    /// The run-time object with this stable key, to be used with `declare_data_in_func` and the `symbol_value`
    /// instruction, or with `declare_data_in_data`. Its address is given when the module is linked or loaded. The same key gives
    /// the same object.
    pub fn global(&mut self, key: &str) -> DataId {
        if let Some(id) = self.by_key.get(key) {
            return *id;
        }
        // Anonymous, for a key may be anything and must not meet a name.
        let id = self.declarations.declare_anonymous_data(true, false).expect("it only counts up");
        self.by_key.insert(key.into(), id);
        self.keys.insert(id, key.into());
        id
    }

    /// The module.
    ///
    /// # Errors
    ///
    /// [`BuildError::Undefined`] if something that is declared as exported, hidden or local, and is named or used, has no
    /// definition.
    pub fn finish(self) -> Result<Module, BuildError> {
        let Self { name, declarations, mut symbols, mut functions, mut data, order, .. } = self;
        for (id, declared) in declarations.get_functions() {
            let needed = declared.linkage.requires_definition()
                && (declared.name.is_some() || self.function_symbols.contains_key(&id));
            if needed && !functions.contains_key(&id) {
                return Err(BuildError::Undefined(declared.linkage_name(id).into()));
            }
        }
        for (id, declared) in declarations.get_data_objects() {
            let needed = declared.linkage.requires_definition()
                && !self.keys.contains_key(&id)
                && (declared.name.is_some() || self.data_symbols.contains_key(&id));
            if needed && !data.contains_key(&id) {
                return Err(BuildError::Undefined(declared.linkage_name(id).into()));
            }
        }
        // A later declaration may have widened the linkage. What is preemptible and not defined here is an import.
        for (id, symbol) in &self.function_symbols {
            let declared = declarations.get_function_decl(*id).linkage;
            symbols[symbol.index()].linkage = linkage(declared, functions.contains_key(id));
        }
        for (id, symbol) in &self.data_symbols {
            let declared = declarations.get_data_decl(*id);
            symbols[symbol.index()].linkage = linkage(declared.linkage, data.contains_key(id));
            if let Some(datum) = data.get_mut(id) {
                datum.writable = declared.writable;
            }
        }
        let mut module = Module {
            name,
            source: None,
            settings: ModuleSettings::default(),
            symbols,
            functions: Vec::with_capacity(functions.len()),
            data: Vec::with_capacity(data.len()),
        };
        for id in order {
            match id {
                FuncOrDataId::Func(id) => module.functions.extend(functions.remove(&id)),
                FuncOrDataId::Data(id) => module.data.extend(data.remove(&id)),
            }
        }
        Ok(module)
    }

    fn symbol(&mut self, name: &str, kind: SymbolKind, signature: Option<ir::Signature>) -> SymbolId {
        let id = SymbolId::from_u32(u32::try_from(self.symbols.len()).expect("fewer than 2^32 symbols"));
        // The linkage is filled in by `finish`, except that of globals.
        self.symbols.push(Symbol { name: name.into(), kind, linkage: Linkage::Import, signature, line: 0 });
        id
    }

    fn function_symbol(&mut self, id: FuncId) -> SymbolId {
        if let Some(symbol) = self.function_symbols.get(&id) {
            return *symbol;
        }
        let declared = self.declarations.get_function_decl(id);
        let (name, signature) = (declared.name.clone().unwrap_or_default(), declared.signature.clone());
        let symbol = self.symbol(&name, SymbolKind::Function, Some(signature));
        self.function_symbols.insert(id, symbol);
        symbol
    }

    fn data_symbol(&mut self, id: DataId) -> SymbolId {
        if let Some(symbol) = self.data_symbols.get(&id) {
            return *symbol;
        }
        let symbol = match self.keys.get(&id).cloned() {
            Some(key) => self.symbol(&key, SymbolKind::Global, None),
            None => {
                let name = self.declarations.get_data_decl(id).name.clone().unwrap_or_default();
                self.symbol(&name, SymbolKind::Data, None)
            }
        };
        self.data_symbols.insert(id, symbol);
        symbol
    }

    /// The function or datum that a number of `cranelift-module` stands for.
    fn declared(&self, namespace: u32, index: u32) -> Option<FuncOrDataId> {
        let position = usize::try_from(index).ok()?;
        match namespace {
            0 if position < self.declarations.get_functions().size_hint().0 => {
                Some(FuncOrDataId::Func(FuncId::from_u32(index)))
            }
            1 if position < self.declarations.get_data_objects().size_hint().0 => {
                Some(FuncOrDataId::Data(DataId::from_u32(index)))
            }
            _ => None,
        }
    }

    /// What a name in a function stands for, or `None` if Cranelift itself knows the name.
    fn resolve(
        &self,
        function: &ir::Function,
        name: &ExternalName,
    ) -> Result<Option<FuncOrDataId>, BuildError> {
        let undeclared =
            || BuildError::Undeclared { place: name.display(Some(&function.params)).to_string().into() };
        match name {
            ExternalName::User(number) => {
                let name = &function.params.user_named_funcs()[*number];
                self.declared(name.namespace, name.index).ok_or_else(undeclared).map(Some)
            }
            ExternalName::TestCase(_) => Err(undeclared()),
            ExternalName::LibCall(_) | ExternalName::KnownSymbol(_) => Ok(None),
        }
    }

    fn symbol_of(&mut self, id: FuncOrDataId) -> SymbolId {
        match id {
            FuncOrDataId::Func(id) => self.function_symbol(id),
            FuncOrDataId::Data(id) => self.data_symbol(id),
        }
    }

    #[expect(clippy::result_large_err, reason = "the error type is that of the trait")]
    fn add_function(&mut self, id: FuncId, function: &ir::Function) -> ModuleResult<()> {
        let declared = self
            .declared(0, id.as_u32())
            .ok_or_else(|| BuildError::Undeclared { place: id.to_string().into() })?;
        let declaration = self.declarations.get_function_decl(id);
        let name: Box<str> = declaration.linkage_name(id).into();
        if !declaration.linkage.is_definable() {
            return Err(ModuleError::InvalidImportDefinition(name.into()));
        }
        if self.functions.contains_key(&id) {
            return Err(ModuleError::DuplicateDefinition(name.into()));
        }
        if declaration.signature != function.signature {
            let declared = Box::new(declaration.signature.clone());
            let defined = Box::new(function.signature.clone());
            return Err(BuildError::Signature { name, declared, defined }.into());
        }
        if let Some(fault) = names::check(function).first() {
            return Err(BuildError::Unusable { name, reason: fault.to_string().into() }.into());
        }
        verify_function(function, &*self.isa)
            .map_err(|errors| ModuleError::Compilation(CodegenError::Verifier(errors)))?;

        // Everything is looked up before the first symbol is made, so that an error leaves nothing behind.
        let used = names::used(function);
        let mut globals = Vec::with_capacity(used.globals.len());
        for &global in &used.globals {
            globals.push(match &function.global_values[global] {
                GlobalValueData::Symbol { name, .. } => self.resolve(function, name)?,
                _ => None,
            });
        }
        let mut functions = Vec::with_capacity(used.functions.len());
        for &callee in &used.functions {
            let target = self.resolve(function, &function.dfg.ext_funcs[callee].name)?;
            if matches!(target, Some(FuncOrDataId::Data(_))) {
                let reason = format!("{callee} is a function, and is declared as data").into();
                return Err(BuildError::Unusable { name, reason }.into());
            }
            functions.push(target);
        }
        let symbol = self.function_symbol(id);
        let mut number = |target: Option<FuncOrDataId>| target.map(|target| self.symbol_of(target));
        let globals: Vec<_> = globals.into_iter().map(&mut number).collect();
        let functions: Vec<_> = functions.into_iter().map(&mut number).collect();
        let mut ir = function.clone();
        names::rename(&mut ir, symbol, &used, &functions, &globals);
        self.functions.insert(id, Function { symbol, ir, line: 0, run_lines: Vec::new() });
        self.order.push(declared);
        Ok(())
    }

    #[expect(clippy::result_large_err, reason = "the error type is that of the trait")]
    fn add_data(&mut self, id: DataId, description: &DataDescription) -> ModuleResult<()> {
        let declared = self
            .declared(1, id.as_u32())
            .ok_or_else(|| BuildError::Undeclared { place: id.to_string().into() })?;
        if let Some(key) = self.keys.get(&id) {
            return Err(BuildError::Global(key.clone()).into());
        }
        let declaration = self.declarations.get_data_decl(id);
        let name: Box<str> = declaration.linkage_name(id).into();
        if !declaration.linkage.is_definable() {
            return Err(ModuleError::InvalidImportDefinition(name.into()));
        }
        if self.data.contains_key(&id) {
            return Err(ModuleError::DuplicateDefinition(name.into()));
        }
        let fault = |reason| ModuleError::from(BuildError::Data { name: name.clone(), reason });
        if declaration.tls {
            return Err(fault(DataFault::ThreadLocal));
        }
        let DataDescription {
            init,
            function_decls,
            data_decls,
            function_relocs,
            data_relocs,
            custom_section,
            align,
            // What is defined stays: Kiln drops nothing.
            used: _,
        } = description;
        if custom_section.is_some() {
            return Err(fault(DataFault::Section));
        }
        let align = align.map_or(Some(8), |align| u32::try_from(align).ok());
        let align = align
            .filter(|align| align.is_power_of_two() && *align <= MAX_ALIGN)
            .ok_or_else(|| fault(DataFault::Align))?;
        let size = match init {
            DataInit::Uninitialized => return Err(fault(DataFault::Uninitialized)),
            DataInit::Zeros { .. } | DataInit::Bytes { .. } => init.size(),
        };

        let mut places: Vec<(u32, &ModuleRelocTarget, i64)> = Vec::new();
        let missing = || ModuleError::from(BuildError::Undeclared { place: name.clone() });
        for &(offset, function) in function_relocs {
            places.push((offset, function_decls.get(function).ok_or_else(missing)?, 0));
        }
        for &(offset, datum, addend) in data_relocs {
            places.push((offset, data_decls.get(datum).ok_or_else(missing)?, addend));
        }
        places.sort_by_key(|(offset, ..)| *offset);
        let mut end = 0;
        for &(offset, ..) in &places {
            let start = u64::from(offset);
            if start < end {
                return Err(fault(DataFault::AddressOverlap(offset)));
            }
            end = start + 8;
            if end > size as u64 {
                return Err(fault(DataFault::AddressOutside(offset)));
            }
        }

        let mut targets = Vec::with_capacity(places.len());
        for (offset, target, addend) in places {
            let declared = match target {
                ModuleRelocTarget::User { namespace, index } => self.declared(*namespace, *index),
                _ => None,
            };
            targets.push((offset, declared.ok_or_else(missing)?, addend));
        }
        let symbol = self.data_symbol(id);
        let addresses: Vec<DataAddress> = targets
            .into_iter()
            .map(|(offset, target, addend)| DataAddress {
                offset: u64::from(offset),
                symbol: self.symbol_of(target),
                addend,
            })
            .collect();
        let init = match init {
            DataInit::Bytes { contents } => {
                let mut bytes = contents.to_vec();
                for address in &addresses {
                    // Inside, as checked above.
                    let start = usize::try_from(address.offset).unwrap_or(usize::MAX);
                    bytes[start..start + 8].fill(0);
                }
                Init::Bytes(bytes)
            }
            _ if addresses.is_empty() => Init::Zeros(size as u64),
            _ => Init::Bytes(vec![0; size]),
        };
        // Whether it is writable is known for certain only when all is declared.
        self.data.insert(id, Data { symbol, writable: false, align, init, addresses, line: 0 });
        self.order.push(declared);
        Ok(())
    }
}

/// Our word for a linkage.
fn linkage(declared: DeclaredLinkage, defined: bool) -> Linkage {
    match declared {
        DeclaredLinkage::Import => Linkage::Import,
        _ if !defined => Linkage::Import,
        DeclaredLinkage::Local => Linkage::Local,
        DeclaredLinkage::Preemptible => Linkage::Preemptible,
        DeclaredLinkage::Hidden => Linkage::Hidden,
        DeclaredLinkage::Export => Linkage::Export,
    }
}

impl cranelift_module::Module for ModuleBuilder {
    fn isa(&self) -> &dyn TargetIsa {
        &*self.isa
    }

    fn declarations(&self) -> &ModuleDeclarations {
        &self.declarations
    }

    fn declare_function(
        &mut self,
        name: &str,
        linkage: DeclaredLinkage,
        signature: &ir::Signature,
    ) -> ModuleResult<FuncId> {
        self.declarations.declare_function(name, linkage, signature).map(|(id, _)| id)
    }

    fn declare_anonymous_function(&mut self, signature: &ir::Signature) -> ModuleResult<FuncId> {
        self.declarations.declare_anonymous_function(signature)
    }

    fn declare_data(
        &mut self,
        name: &str,
        linkage: DeclaredLinkage,
        writable: bool,
        tls: bool,
    ) -> ModuleResult<DataId> {
        if tls {
            let reason = DataFault::ThreadLocal;
            return Err(BuildError::Data { name: name.into(), reason }.into());
        }
        self.declarations.declare_data(name, linkage, writable, tls).map(|(id, _)| id)
    }

    fn declare_anonymous_data(&mut self, writable: bool, tls: bool) -> ModuleResult<DataId> {
        if tls {
            let reason = DataFault::ThreadLocal;
            return Err(BuildError::Data { name: "anonymous data".into(), reason }.into());
        }
        self.declarations.declare_anonymous_data(writable, tls)
    }

    /// As the trait does it, except that a reference to a global is never marked as colocated: no distance to a run-time
    /// object is known.
    fn declare_data_in_func(&self, data: DataId, function: &mut ir::Function) -> ir::GlobalValue {
        let declared = self.declarations.get_data_decl(data);
        let colocated = declared.linkage.is_final() && !self.keys.contains_key(&data);
        let name = ir::UserExternalName { namespace: 1, index: data.as_u32() };
        let name = ExternalName::user(function.declare_imported_user_function(name));
        let offset = ir::immediates::Imm64::new(0);
        function.create_global_value(GlobalValueData::Symbol { name, offset, colocated, tls: declared.tls })
    }

    /// Keeps a copy of `context.func` as it is. The context is not compiled, and stays as it was.
    fn define_function_with_control_plane(
        &mut self,
        id: FuncId,
        context: &mut Context,
        _: &mut ControlPlane,
    ) -> ModuleResult<()> {
        self.add_function(id, &context.func)
    }

    /// Always an error: see [`BuildError::Bytes`].
    fn define_function_bytes(&mut self, _: FuncId, _: u64, _: &[u8], _: &[ModuleReloc]) -> ModuleResult<()> {
        Err(BuildError::Bytes.into())
    }

    fn define_data(&mut self, id: DataId, data: &DataDescription) -> ModuleResult<()> {
        self.add_data(id, data)
    }
}
