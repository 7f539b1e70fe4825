//! Builds a module through an API instead of reading it from text.
//!
//! [`ModuleBuilder`] implements [`cranelift_module::Module`], the trait that clients of Cranelift
//! are generic over. So a compiler written for `JITModule` or `ObjectModule` builds modules for
//! Kiln unchanged. "Defining" a function here generates no code: the IR is verified, brought to
//! canonical form, and kept.
//!
//! A run-time object that a client would refer to by its address (an `iconst` of a pointer) gets a
//! stable key with [`ModuleBuilder::global`] instead.
//!
//! Invariants:
//! - Definitions are kept in the order in which they are made, and refer to declarations. Symbols
//!   are numbered only in [`ModuleBuilder::finish`], when all declarations and definitions are
//!   known. So the module does not depend on the order of declarations, and a definition that fails
//!   changes nothing.
//! - Every number in a client's definition is checked. A number that was never declared is an
//!   error, not a panic.

mod data;
mod error;
mod machine;
mod numbering;
mod pending;

use std::collections::{HashMap, HashSet};

use cranelift_codegen::control::ControlPlane;
use cranelift_codegen::ir::{self, ExternalName, GlobalValueData};
use cranelift_codegen::isa::{OwnedTargetIsa, TargetIsa};
use cranelift_codegen::{CodegenError, Context, verify_function};
use cranelift_module::{
    DataDescription, DataId, FuncId, FuncOrDataId, Linkage as DeclaredLinkage, ModuleDeclarations,
    ModuleError, ModuleReloc, ModuleResult,
};
use indexmap::IndexMap;

use self::data::data_object;
pub use self::error::{BuildError, CodeError, DataError};
use self::machine::machine_code;
use self::numbering::Numbering;
use self::pending::{PendingCode, PendingData, declared, key};
use crate::body::{Encoder, ExternalRef};
use crate::comments::Comments;
use crate::data::{DataAddress, DataObject};
use crate::function::Function;
use crate::module::Module;
use crate::references;
use crate::settings::ModuleSettings;
use crate::signature::same_type;
use crate::target::Target;

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
/// let signature = &context.func.signature;
/// let answer = module.declare_function("answer", Linkage::Export, signature).unwrap();
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
    /// The keys of data objects that are globals.
    keys: HashMap<DataId, Box<str>>,
    by_key: HashMap<Box<str>, DataId>,
    /// The functions defined so far, in order of definition.
    functions: IndexMap<FuncId, PendingCode>,
    data: IndexMap<DataId, PendingData>,
    replaceable: HashSet<FuncId>,
    encoder: Encoder,
}

impl std::fmt::Debug for ModuleBuilder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ModuleBuilder").field("name", &self.name).finish_non_exhaustive()
    }
}

impl ModuleBuilder {
    /// Creates an empty module; `name` is for messages.
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
            functions: IndexMap::new(),
            data: IndexMap::new(),
            replaceable: HashSet::new(),
            encoder: Encoder::default(),
        })
    }

    /// Returns the run-time object with this stable key, for use with `declare_data_in_func` and
    /// the `symbol_value` instruction, or with `declare_data_in_data`. Its address is given when
    /// the module is linked or loaded. Equal keys are the same object.
    pub fn global(&mut self, key: &str) -> DataId {
        if let Some(id) = self.by_key.get(key) {
            return *id;
        }
        // Anonymous, because a key may be any text and must not clash with a name.
        let id = self.declarations.declare_anonymous_data(true, false).expect("the name is new");
        self.by_key.insert(key.into(), id);
        self.keys.insert(id, key.into());
        id
    }

    /// Gives a function the linkage [`Linkage::Replaceable`](crate::Linkage::Replaceable), which
    /// Cranelift does not have: its code can be exchanged while the program runs. The function must
    /// be declared with a name and Cranelift's linkage `Export`, and be defined in this module.
    /// Order does not matter: it may be defined before or after.
    ///
    /// # Errors
    ///
    /// [`BuildError::Replaceable`] if it is declared otherwise, and [`BuildError::Undeclared`] if it
    /// is not declared.
    pub fn set_replaceable(&mut self, function: FuncId) -> Result<(), BuildError> {
        if declared(&self.declarations, 0, function.as_u32()).is_none() {
            return Err(BuildError::Undeclared { referrer: function.to_string().into() });
        }
        let declaration = self.declarations.get_function_decl(function);
        if declaration.linkage != DeclaredLinkage::Export || declaration.name.is_none() {
            return Err(BuildError::Replaceable(declaration.linkage_name(function).into()));
        }
        self.replaceable.insert(function);
        Ok(())
    }

    /// Finishes the module.
    ///
    /// # Errors
    ///
    /// [`BuildError::Undefined`] if a named function or data object is declared as exported or
    /// hidden and not defined, or if a local one is used and not defined.
    pub fn finish(self) -> Result<Module, BuildError> {
        let Self { name, declarations, keys, functions, data, replaceable, .. } = self;
        let mut numbering = Numbering {
            declarations: &declarations,
            keys: &keys,
            functions: &functions,
            replaceable: &replaceable,
            data: &data,
            numbers: HashMap::new(),
            symbols: Vec::new(),
        };
        let mut module = Module {
            name,
            source: None,
            settings: ModuleSettings::default(),
            symbols: Vec::new(),
            functions: Vec::with_capacity(functions.len()),
            data: Vec::with_capacity(data.len()),
            comments: Vec::new(),
        };
        // Number all symbols before any definition is moved, because numbering looks up the
        // definitions.
        let mut symbols = Vec::new();
        for (id, pending) in &functions {
            symbols.push(numbering.symbol(FuncOrDataId::Func(*id)));
            for target in pending.targets() {
                numbering.symbol(target);
            }
        }
        let mut data_symbols = Vec::new();
        for (id, pending) in &data {
            data_symbols.push(numbering.symbol(FuncOrDataId::Data(*id)));
            for (_, target, _) in &pending.addresses {
                numbering.symbol(*target);
            }
        }
        numbering.check()?;
        let Numbering { numbers, symbols: table, .. } = numbering;
        module.symbols = table;
        for (pending, symbol) in functions.into_values().zip(symbols) {
            let code = pending.finish(&numbers);
            module.functions.push(Function { symbol, code, line: 0, comments: Comments::new() });
        }
        for ((id, pending), symbol) in data.into_iter().zip(data_symbols) {
            let PendingData { align, init, section, addresses } = pending;
            let address = |(offset, target, addend)| DataAddress { offset, symbol: numbers[&target], addend };
            let addresses = addresses.into_iter().map(address).collect();
            let writable = declarations.get_data_decl(id).writable;
            module.data.push(DataObject { symbol, writable, align, init, section, addresses, line: 0 });
        }
        Ok(module)
    }

    /// Returns the declaration that a name in a function refers to.
    fn resolve(&self, function: &ir::Function, name: &ExternalName) -> Result<FuncOrDataId, BuildError> {
        let declaration = match name {
            ExternalName::User(number) => {
                let name = &function.params.user_named_funcs()[*number];
                declared(&self.declarations, name.namespace, name.index)
            }
            ExternalName::TestCase(_) | ExternalName::LibCall(_) | ExternalName::KnownSymbol(_) => None,
        };
        let referrer = || name.display(Some(&function.params)).to_string().into();
        declaration.ok_or_else(|| BuildError::Undeclared { referrer: referrer() })
    }

    /// Checks that a function may be defined now, and returns its name.
    #[expect(clippy::result_large_err, reason = "the error type is that of the trait")]
    fn definable(&self, id: FuncId) -> ModuleResult<Box<str>> {
        declared(&self.declarations, 0, id.as_u32())
            .ok_or_else(|| BuildError::Undeclared { referrer: id.to_string().into() })?;
        let declaration = self.declarations.get_function_decl(id);
        let name: Box<str> = declaration.linkage_name(id).into();
        if !declaration.linkage.is_definable() {
            return Err(ModuleError::InvalidImportDefinition(name.into()));
        }
        if self.functions.contains_key(&id) {
            return Err(ModuleError::DuplicateDefinition(name.into()));
        }
        Ok(name)
    }

    #[expect(clippy::result_large_err, reason = "the error type is that of the trait")]
    fn add_function(&mut self, id: FuncId, function: &ir::Function) -> ModuleResult<()> {
        let name = self.definable(id)?;
        let declaration = self.declarations.get_function_decl(id);
        if declaration.signature != function.signature {
            let declared = Box::new(declaration.signature.clone());
            let defined = Box::new(function.signature.clone());
            return Err(BuildError::Signature { name, declared, defined }.into());
        }
        if let Some(fault) = references::check(function).first() {
            return Err(BuildError::Unusable { name, reason: fault.to_string().into() }.into());
        }
        verify_function(function, &*self.isa)
            .map_err(|errors| ModuleError::Compilation(CodegenError::Verifier(errors)))?;

        let mut encoder = std::mem::take(&mut self.encoder);
        let encoded = encoder.encode(function, |external| {
            let (target, callee) = match external {
                ExternalRef::Function(func_ref) => (&function.dfg.ext_funcs[func_ref].name, Some(func_ref)),
                ExternalRef::Global(global) => (function.global_values[global].symbol_name(), None),
            };
            let declared = self.resolve(function, target)?;
            match (declared, callee) {
                (FuncOrDataId::Data(_), Some(callee)) => {
                    let reason = format!("{callee} is a function, and is declared as data").into();
                    Err(BuildError::Unusable { name: name.clone(), reason })
                }
                (FuncOrDataId::Func(id), Some(callee)) => {
                    // A function of another module may be called with several types, as C's
                    // variadic functions are.
                    let declaration = self.declarations.get_function_decl(id);
                    let used = &function.dfg.signatures[function.dfg.ext_funcs[callee].signature];
                    if declaration.linkage.is_definable() && !same_type(&declaration.signature, used) {
                        let reason = format!(
                            "{callee} has the type {used}, but is declared as {}",
                            declaration.signature
                        );
                        return Err(BuildError::Unusable { name: name.clone(), reason: reason.into() });
                    }
                    Ok(key(declared))
                }
                _ => Ok(key(declared)),
            }
        });
        self.encoder = encoder;
        self.functions.insert(id, PendingCode::Ir(encoded.map_err(|error| error.named(&name))?));
        Ok(())
    }

    #[expect(clippy::result_large_err, reason = "the error type is that of the trait")]
    fn add_machine_code(
        &mut self,
        id: FuncId,
        align: u64,
        bytes: &[u8],
        relocs: &[ModuleReloc],
    ) -> ModuleResult<()> {
        let name = self.definable(id)?;
        let code = machine_code(&self.declarations, id, &name, align, bytes, relocs)?;
        self.functions.insert(id, code);
        Ok(())
    }

    #[expect(clippy::result_large_err, reason = "the error type is that of the trait")]
    fn add_data(&mut self, id: DataId, description: &DataDescription) -> ModuleResult<()> {
        declared(&self.declarations, 1, id.as_u32())
            .ok_or_else(|| BuildError::Undeclared { referrer: id.to_string().into() })?;
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
        if declaration.tls {
            return Err(BuildError::Data { name, reason: DataError::ThreadLocal }.into());
        }
        let data = data_object(&self.declarations, &name, description)?;
        self.data.insert(id, data);
        Ok(())
    }
}

/// Checks that a name can be linked.
#[expect(clippy::result_large_err, reason = "the error type is that of the trait")]
fn check_name(name: &str) -> ModuleResult<()> {
    if name.is_empty() || name.contains('\0') {
        return Err(BuildError::Name(name.into()).into());
    }
    Ok(())
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
        check_name(name)?;
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
        check_name(name)?;
        if tls {
            let reason = DataError::ThreadLocal;
            return Err(BuildError::Data { name: name.into(), reason }.into());
        }
        self.declarations.declare_data(name, linkage, writable, tls).map(|(id, _)| id)
    }

    fn declare_anonymous_data(&mut self, writable: bool, tls: bool) -> ModuleResult<DataId> {
        if tls {
            let reason = DataError::ThreadLocal;
            return Err(BuildError::Data { name: "anonymous data".into(), reason }.into());
        }
        self.declarations.declare_anonymous_data(writable, tls)
    }

    /// Declares a data object as the trait does, except that a reference to a global is never
    /// colocated, because a run-time object may be at any distance.
    fn declare_data_in_func(&self, data: DataId, function: &mut ir::Function) -> ir::GlobalValue {
        let declared = self.declarations.get_data_decl(data);
        let colocated = declared.linkage.is_final() && !self.keys.contains_key(&data);
        let name = ir::UserExternalName { namespace: 1, index: data.as_u32() };
        let name = ExternalName::user(function.declare_imported_user_function(name));
        let offset = ir::immediates::Imm64::new(0);
        function.create_global_value(GlobalValueData::Symbol { name, offset, colocated, tls: declared.tls })
    }

    /// Keeps the IR in `context.func`. It is not compiled: the context stays as it was, without
    /// `compiled_code`.
    fn define_function_with_control_plane(
        &mut self,
        id: FuncId,
        context: &mut Context,
        _: &mut ControlPlane,
    ) -> ModuleResult<()> {
        self.add_function(id, &context.func)
    }

    /// Keeps the code as it is. The linker applies its relocations, and refuses those that would
    /// have to be applied to code at load time: the code must refer to symbols outside of the
    /// linked output through GOT slots, as Cranelift's code does with `is_pic`. The code has no
    /// unwind information, so exceptions cannot pass through it.
    fn define_function_bytes(
        &mut self,
        id: FuncId,
        align: u64,
        bytes: &[u8],
        relocs: &[ModuleReloc],
    ) -> ModuleResult<()> {
        self.add_machine_code(id, align, bytes, relocs)
    }

    fn define_data(&mut self, id: DataId, data: &DataDescription) -> ModuleResult<()> {
        self.add_data(id, data)
    }
}
