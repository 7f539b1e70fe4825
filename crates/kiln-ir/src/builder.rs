//! Builds a module through an API instead of reading it from text.
//!
//! [`ModuleBuilder`] implements [`cranelift_module::Module`], the trait that clients of Cranelift
//! are generic over. So a compiler written for `JITModule` or `ObjectModule` builds modules for
//! Kiln unchanged. "Defining" a function here generates no code: the IR is brought to canonical
//! form and kept. It is verified when it is compiled, by the thread that compiles it, unless
//! [`ModuleBuilder::verify_at_once`] asks for more: building is often the serial part of a
//! parallel build, and code from a cache was verified before it got there.
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
//! - Nothing is lost when a module is finished: declarations, and what finished modules refer to
//!   and how, stay. So the modules of a builder are one module to its client.

mod data;
mod declarations;
mod earlier;
mod error;
mod function;
mod machine;
mod numbering;
mod pending;

use std::collections::{HashMap, HashSet};

use cranelift_codegen::Context;
use cranelift_codegen::control::ControlPlane;
use cranelift_codegen::ir::{self, ExternalName, GlobalValueData, SourceLoc};
use cranelift_codegen::isa::{OwnedTargetIsa, TargetIsa};
use cranelift_module::{
    DataDescription, DataId, FuncId, FuncOrDataId, Linkage as DeclaredLinkage, ModuleDeclarations,
    ModuleError, ModuleReloc, ModuleResult,
};
use indexmap::IndexMap;

use self::data::data_object;
use self::declarations::Declarations;
use self::earlier::{Earlier, PRIVATE};
pub use self::error::{BuildError, CodeError, DataError};
use self::function::{BuildEncoder, Definition};
use self::machine::machine_code;
use self::numbering::Numbering;
use self::pending::{PendingCode, PendingData, declared, of_key};
use crate::comments::Comments;
use crate::data::{DataAddress, DataObject};
use crate::function::{Code, Function, InlineHint};
use crate::ids::ClientIds;
use crate::lines::{FileId, LineError, LineTable, SourceFile};
use crate::module::Module;
use crate::settings::ModuleSettings;
use crate::target::Target;
use crate::variables::{Variable, are_variables};

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
    declarations: Declarations,
    /// The contents of the modules that were finished before.
    earlier: Earlier,
    /// The keys of data objects that are globals.
    keys: HashMap<DataId, Box<str>>,
    by_key: HashMap<Box<str>, DataId>,
    /// The functions defined so far, in order of definition.
    functions: IndexMap<FuncId, PendingCode>,
    data: IndexMap<DataId, PendingData>,
    replaceable: HashSet<FuncId>,
    hints: HashMap<FuncId, InlineHint>,
    lines: LineTable,
    variables: HashMap<FuncId, Box<[Variable]>>,
    encoder: BuildEncoder,
    verify_at_once: bool,
}

impl std::fmt::Debug for ModuleBuilder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ModuleBuilder").field("name", &self.name).finish_non_exhaustive()
    }
}

impl ModuleBuilder {
    /// Creates an empty module; `name` is for messages. It is also a part of private names, if the
    /// builder makes several modules: see [`finish_part`](Self::finish_part).
    ///
    /// # Errors
    ///
    /// [`BuildError::Target`] if there is no code generator for the target.
    pub fn new(name: impl Into<Box<str>>, target: &Target) -> Result<Self, BuildError> {
        Ok(Self {
            name: name.into(),
            isa: target.isa(&ModuleSettings::default())?,
            declarations: Declarations::default(),
            earlier: Earlier::default(),
            keys: HashMap::new(),
            by_key: HashMap::new(),
            functions: IndexMap::new(),
            data: IndexMap::new(),
            replaceable: HashSet::new(),
            hints: HashMap::new(),
            lines: LineTable::default(),
            variables: HashMap::new(),
            encoder: BuildEncoder::default(),
            verify_at_once: false,
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
        let id = self.declarations.declare_anonymous_data(true, false).expect("it has no name");
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
    /// [`BuildError::Replaceable`] if it is declared otherwise, and [`BuildError::Undeclared`] if
    /// it is not declared.
    pub fn set_replaceable(&mut self, function: FuncId) -> Result<(), BuildError> {
        if declared(self.declarations.all(), 0, function.as_u32()).is_none() {
            return Err(BuildError::Undeclared { referrer: function.to_string().into() });
        }
        let declaration = self.declarations.all().get_function_decl(function);
        if declaration.linkage != DeclaredLinkage::Export || declaration.name.is_none() {
            return Err(BuildError::Replaceable(declaration.linkage_name(function).into()));
        }
        self.replaceable.insert(function);
        Ok(())
    }

    /// Says whether calls of a function that this module defines may be inlined, if the program is
    /// compiled with inlining. Order does not matter: the function may be defined before or after.
    ///
    /// # Errors
    ///
    /// [`BuildError::Undeclared`] if the function is not declared.
    pub fn set_inline(&mut self, function: FuncId, hint: InlineHint) -> Result<(), BuildError> {
        if declared(self.declarations.all(), 0, function.as_u32()).is_none() {
            return Err(BuildError::Undeclared { referrer: function.to_string().into() });
        }
        self.hints.insert(function, hint);
        Ok(())
    }

    /// Sets whether `define_function` verifies a function at once, so that a function that is not
    /// valid IR is its error and may be defined again. By default, it is an error of the
    /// compilation, which names the function, too. Such an error numbers values and instructions
    /// as in the canonical form ([`Body`](crate::Body)).
    pub fn verify_at_once(&mut self, at_once: bool) {
        self.verify_at_once = at_once;
    }

    /// Returns the line table of the module that is being built: what source locations stand for.
    /// A client with locations of its own adds their entries; others use
    /// [`location`](Self::location).
    ///
    /// The table belongs to the module that is finished next. The one after it starts with an empty
    /// table.
    pub fn lines(&mut self) -> &mut LineTable {
        &mut self.lines
    }

    /// Adds a source file to the line table, and returns its number.
    ///
    /// # Errors
    ///
    /// [`LineError::Name`].
    pub fn file(&mut self, file: SourceFile) -> Result<FileId, LineError> {
        self.lines.file(file)
    }

    /// Returns a source location that stands for a place in a file, for `set_srcloc`. Lines and
    /// columns count from 1; 0 means none. If locations are made in the order of a function's code,
    /// the function can be used again when only what is before it has changed.
    ///
    /// # Errors
    ///
    /// [`LineError::File`], and [`LineError::Order`] if no location is left.
    ///
    /// ```
    /// use kiln_ir::{ModuleBuilder, SourceFile, Target};
    ///
    /// let mut builder = ModuleBuilder::new("example", &Target::host()).unwrap();
    /// let file = builder.file(SourceFile::new("example.lang").directory("/src"))?;
    /// let location = builder.location(file, 12, 5)?;
    /// // Then, for the function that is being made: `function.set_srcloc(location)`.
    /// let module = builder.finish().unwrap();
    /// assert_eq!(module.lines.find(location).map(|entry| entry.line), Some(12));
    /// # Ok::<(), kiln_ir::LineError>(())
    /// ```
    pub fn location(&mut self, file: FileId, line: u32, column: u32) -> Result<SourceLoc, LineError> {
        self.lines.location(file, line, column)
    }

    /// Names the labels of a function's values, for debuggers. Labels are given to values with
    /// Cranelift's `set_val_label`, and `collect_debug_info` of the function must have been called.
    ///
    /// # Errors
    ///
    /// [`BuildError::Variables`] if a name or a size is not allowed or a label has two names, and
    /// [`BuildError::Undeclared`] if the function is not declared.
    pub fn set_variables(
        &mut self,
        function: FuncId,
        variables: impl Into<Vec<Variable>>,
    ) -> Result<(), BuildError> {
        if declared(self.declarations.all(), 0, function.as_u32()).is_none() {
            return Err(BuildError::Undeclared { referrer: function.to_string().into() });
        }
        let mut variables = variables.into();
        variables.sort_by_key(|variable| variable.label);
        if !are_variables(&variables) {
            let declaration = self.declarations.all().get_function_decl(function);
            return Err(BuildError::Variables(declaration.linkage_name(function).into()));
        }
        self.variables.insert(function, variables.into());
        Ok(())
    }

    /// Finishes a module that consists of the definitions so far, and goes on. `name` is the name
    /// of the finished module, for messages and for finding its last build in a cache.
    ///
    /// All declarations stay, with their ids: later definitions may refer to earlier ones, local
    /// and anonymous ones too, and earlier definitions may refer to what is defined later. For
    /// that, local and anonymous definitions become hidden ones, whose names begin with
    /// `kiln.private.` and contain the name of the builder. So builders that finish several modules
    /// for one program need different names; otherwise linking fails, with an error about such a
    /// name.
    ///
    /// Modules that refer to each other have to be linked at once, or after what they refer to.
    pub fn finish_part(&mut self, name: impl Into<Box<str>>) -> Module {
        let (functions, data) = (std::mem::take(&mut self.functions), std::mem::take(&mut self.data));
        self.module(name.into(), functions, data, false).expect("only the last module can be incomplete")
    }

    /// Finishes the module, or the last of the modules.
    ///
    /// # Errors
    ///
    /// [`BuildError::Undefined`] if a named function or data object is declared as exported or
    /// hidden and not defined, or if a local one is used and not defined.
    pub fn finish(mut self) -> Result<Module, BuildError> {
        let (functions, data) = (std::mem::take(&mut self.functions), std::mem::take(&mut self.data));
        self.module(self.name.clone(), functions, data, true)
    }

    fn module(
        &mut self,
        name: Box<str>,
        functions: IndexMap<FuncId, PendingCode>,
        data: IndexMap<DataId, PendingData>,
        last: bool,
    ) -> Result<Module, BuildError> {
        let mut numbering = Numbering {
            scope: &self.name,
            declarations: &self.declarations,
            earlier: &self.earlier,
            last,
            keys: &self.keys,
            functions: &functions,
            replaceable: &self.replaceable,
            data: &data,
            numbers: HashMap::new(),
            symbols: Vec::new(),
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
        if last {
            numbering.check()?;
        }
        let Numbering { numbers, symbols: table, .. } = numbering;
        let declarations = self.declarations.all();
        if !last {
            for id in numbers.keys() {
                let (linkage, defined) = match id {
                    FuncOrDataId::Func(id) => {
                        (declarations.get_function_decl(*id).linkage, functions.contains_key(id))
                    }
                    FuncOrDataId::Data(id) if self.keys.contains_key(id) => continue,
                    FuncOrDataId::Data(id) => {
                        (declarations.get_data_decl(*id).linkage, data.contains_key(id))
                    }
                };
                self.earlier.mention(*id, linkage, defined);
            }
        }
        let mut module = Module {
            name,
            source: None,
            settings: ModuleSettings::default(),
            symbols: table,
            functions: Vec::with_capacity(functions.len()),
            data: Vec::with_capacity(data.len()),
            lines: std::mem::take(&mut self.lines),
            comments: Vec::new(),
            ids: ClientIds::default(),
        };
        for ((id, pending), symbol) in functions.into_iter().zip(symbols) {
            let code = pending.finish(&numbers);
            let variables = self.variables.remove(&id).unwrap_or_default();
            let hint = self.hints.remove(&id).filter(|_| matches!(code, Code::Ir(_)));
            let (inline, comments) = (hint.unwrap_or_default(), Comments::new());
            module.functions.push(Function { symbol, code, inline, line: 0, variables, comments });
        }
        for ((id, pending), symbol) in data.into_iter().zip(data_symbols) {
            let PendingData { align, init, section, addresses } = pending;
            let address = |(offset, target, addend)| DataAddress { offset, symbol: numbers[&target], addend };
            let addresses = addresses.into_iter().map(address).collect();
            let declaration = declarations.get_data_decl(id);
            let writable = declaration.writable || declaration.tls;
            module.data.push(DataObject { symbol, writable, align, init, section, addresses, line: 0 });
        }
        module.ids = ClientIds::new(numbers);
        Ok(module)
    }

    /// Checks that a function may be defined now, and returns its name.
    #[expect(clippy::result_large_err, reason = "the error type is that of the trait")]
    fn definable(&self, id: FuncId) -> ModuleResult<Box<str>> {
        declared(self.declarations.all(), 0, id.as_u32())
            .ok_or_else(|| BuildError::Undeclared { referrer: id.to_string().into() })?;
        let declaration = self.declarations.all().get_function_decl(id);
        let name: Box<str> = declaration.linkage_name(id).into();
        if !declaration.linkage.is_definable() {
            return Err(ModuleError::InvalidImportDefinition(name.into()));
        }
        if self.functions.contains_key(&id) || self.earlier.defines(FuncOrDataId::Func(id)) {
            return Err(ModuleError::DuplicateDefinition(name.into()));
        }
        Ok(name)
    }

    #[expect(clippy::result_large_err, reason = "the error type is that of the trait")]
    fn add_function(&mut self, id: FuncId, function: &ir::Function) -> ModuleResult<()> {
        let name = self.definable(id)?;
        self.declarations.check_type(id, &function.signature)?;
        let definition = Definition { declarations: &self.declarations, id, name: &name, function };
        let (encoded, odd) = definition.encode(&mut self.encoder, &*self.isa, self.verify_at_once)?;
        self.declarations.set_type(id, &function.signature);
        for target in encoded.references.iter().copied().map(of_key) {
            if let FuncOrDataId::Func(target) = target
                && odd.iter().all(|(id, _)| *id != target)
            {
                self.declarations.note_use(target, id);
            }
        }
        odd.into_iter().for_each(|(target, ty)| self.declarations.note_odd_use(target, id, ty));
        self.functions.insert(id, PendingCode::Ir { encoded, verified: self.verify_at_once });
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
        let code = machine_code(self.declarations.all(), id, &name, align, bytes, relocs)?;
        self.functions.insert(id, code);
        Ok(())
    }

    /// Checks that a name can be linked, and that it may be declared with this linkage.
    #[expect(clippy::result_large_err, reason = "the error type is that of the trait")]
    fn check_declaration(&self, name: &str, linkage: DeclaredLinkage) -> ModuleResult<()> {
        if name.is_empty() || name.contains('\0') {
            return Err(BuildError::Name(name.into()).into());
        }
        if name.starts_with(PRIVATE) {
            return Err(BuildError::PrivateName(name.into()).into());
        }
        let narrow = matches!(linkage, DeclaredLinkage::Local | DeclaredLinkage::Import);
        let known = self.declarations.all().get_name(name).filter(|_| !narrow);
        if known.is_some_and(|id| self.earlier.is_mentioned(id) && self.earlier.is_private(id, linkage)) {
            return Err(BuildError::Widened(name.into()).into());
        }
        Ok(())
    }

    #[expect(clippy::result_large_err, reason = "the error type is that of the trait")]
    fn add_data(&mut self, id: DataId, description: &DataDescription) -> ModuleResult<()> {
        declared(self.declarations.all(), 1, id.as_u32())
            .ok_or_else(|| BuildError::Undeclared { referrer: id.to_string().into() })?;
        if let Some(key) = self.keys.get(&id) {
            return Err(BuildError::Global(key.clone()).into());
        }
        let declaration = self.declarations.all().get_data_decl(id);
        let name: Box<str> = declaration.linkage_name(id).into();
        if !declaration.linkage.is_definable() {
            return Err(ModuleError::InvalidImportDefinition(name.into()));
        }
        if self.data.contains_key(&id) || self.earlier.defines(FuncOrDataId::Data(id)) {
            return Err(ModuleError::DuplicateDefinition(name.into()));
        }
        let data = data_object(self.declarations.all(), &name, description, declaration.tls)?;
        self.data.insert(id, data);
        Ok(())
    }
}

impl cranelift_module::Module for ModuleBuilder {
    fn isa(&self) -> &dyn TargetIsa {
        &*self.isa
    }

    fn declarations(&self) -> &ModuleDeclarations {
        self.declarations.current()
    }

    fn get_name(&self, name: &str) -> Option<FuncOrDataId> {
        self.declarations.all().get_name(name)
    }

    fn declare_function(
        &mut self,
        name: &str,
        linkage: DeclaredLinkage,
        signature: &ir::Signature,
    ) -> ModuleResult<FuncId> {
        self.check_declaration(name, linkage)?;
        self.declarations.declare_function(name, linkage, signature)
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
        self.check_declaration(name, linkage)?;
        self.declarations.declare_data(name, linkage, writable, tls)
    }

    fn declare_anonymous_data(&mut self, writable: bool, tls: bool) -> ModuleResult<DataId> {
        self.declarations.declare_anonymous_data(writable, tls)
    }

    /// Declares a function as the trait does, with the type of its definition if it has one.
    fn declare_func_in_func(&mut self, id: FuncId, function: &mut ir::Function) -> ir::FuncRef {
        let signature = function.import_signature(self.declarations.signature(id).clone());
        let name = ir::UserExternalName { namespace: 0, index: id.as_u32() };
        let name = ExternalName::user(function.declare_imported_user_function(name));
        let colocated = self.declarations.all().get_function_decl(id).linkage.is_final();
        function.import_function(ir::ExtFuncData { name, signature, colocated, patchable: false })
    }

    /// Declares a data object as the trait does, except that a reference to a global is never
    /// colocated, because a run-time object may be at any distance.
    fn declare_data_in_func(&self, data: DataId, function: &mut ir::Function) -> ir::GlobalValue {
        let declared = self.declarations.all().get_data_decl(data);
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
