//! cranelift-jit as a peer, and Kiln's JIT for the same programs.

use std::sync::OnceLock;

use cranelift_codegen::isa::OwnedTargetIsa;
use cranelift_codegen::settings::{self, Configurable, Flags};
use cranelift_codegen::{Context, ir};
use cranelift_jit::{JITBuilder, JITModule};
use cranelift_module::{DataDescription, DataId, FuncId, Module as _, default_libcall_names};
use kiln::Compiler;
use kiln::artifact::Artifact;
use kiln::globals::SlotKey;
use kiln::ir::SymbolKind;
use kiln::jit::{Jit, JitOptions, libcalls};

use crate::generate;
use crate::numbering::Numbering;
use crate::setup::Failure;
use crate::workload::Workload;

/// A program, ready to be given to `JITModule`.
pub(crate) struct CraneliftJit<'a> {
    workload: &'a Workload,
    isa: OwnedTargetIsa,
    numbering: Numbering,
    functions: Vec<(FuncId, ir::Function)>,
    data: Vec<(DataId, DataDescription)>,
}

/// A module whose memory is freed when this is dropped.
pub(crate) struct BuiltModule(Option<JITModule>);

impl Drop for BuiltModule {
    fn drop(&mut self) {
        if let Some(module) = self.0.take() {
            // SAFETY: no code of the module is running, and addresses from it are used only while
            // this value lives.
            unsafe { module.free_memory() };
        }
    }
}

/// Returns the address of a run-time object or of a routine of the C library in this process.
pub(crate) fn resolve(key: &SlotKey) -> Option<usize> {
    match key {
        SlotKey::Global(key) => {
            let number = key.rsplit(':').next()?.parse::<usize>().ok()?;
            Some(objects().get(number)? as *const u64 as usize)
        }
        SlotKey::Symbol(_) | SlotKey::Routine(_) => libcalls::process(key),
    }
}

/// Returns the run-time objects of the generated program.
fn objects() -> &'static [u64] {
    static OBJECTS: OnceLock<Vec<u64>> = OnceLock::new();
    OBJECTS.get_or_init(|| (0..u64::from(generate::GLOBALS)).map(|number| number * number * 31 + 7).collect())
}

/// Returns a code generator with the settings of `isa`, but for code that is not position
/// independent. `verify` says whether it verifies functions.
pub(crate) fn without_pic(isa: &OwnedTargetIsa, verify: bool) -> Result<OwnedTargetIsa, Failure> {
    let mut flags = settings::builder();
    for setting in isa.flags().iter() {
        flags.set(setting.name, &setting.value_string())?;
    }
    flags.set("is_pic", "false")?;
    flags.set("enable_verifier", if verify { "true" } else { "false" })?;
    // cranelift-jit's own constructor sets this too.
    flags.set("use_colocated_libcalls", "false")?;
    let mut builder = cranelift_codegen::isa::lookup(isa.triple().clone())?;
    for setting in isa.isa_flags() {
        if setting.kind() != settings::SettingKind::Preset {
            builder.set(setting.name, &setting.value_string())?;
        }
    }
    Ok(builder.finish(Flags::new(flags))?)
}

impl<'a> CraneliftJit<'a> {
    /// Prepares the program with the numbers that `JITModule` will assign.
    pub(crate) fn new(workload: &'a Workload) -> Result<Self, Failure> {
        let settings = &workload.modules.first().ok_or("there is no module")?.settings;
        if workload.modules.iter().any(|module| module.settings != *settings) {
            return Err("the modules have different settings, and JITModule takes one set".into());
        }
        let isa = without_pic(&workload.isas[0], false)?;
        let modules: Vec<_> = workload.modules.iter().collect();
        let numbering = Numbering::new(&modules, &*isa);
        let functions = workload
            .functions()
            .map(|(number, function, ir)| {
                (numbering.function(number, function.symbol), numbering.rename(number, ir))
            })
            .collect();
        let data = modules
            .iter()
            .enumerate()
            .flat_map(|(number, module)| module.data.iter().map(move |datum| (number, datum)))
            .map(|(number, datum)| numbering.datum(number, datum))
            .collect();
        Ok(Self { workload, isa, numbering, functions, data })
    }

    /// Declares, compiles and links everything.
    pub(crate) fn build(&self) -> Result<BuiltModule, Failure> {
        let mut builder = JITBuilder::with_isa(self.isa.clone(), default_libcall_names());
        builder.symbol_lookup_fn(Box::new(|name| {
            let keys = [SlotKey::Global(name.into()), SlotKey::Symbol(name.into())];
            keys.iter().find_map(resolve).map(|address| address as *const u8)
        }));
        let mut module = JITModule::new(builder);
        self.numbering.declare(&mut module)?;
        let mut context = Context::new();
        for (id, function) in &self.functions {
            context.clear();
            context.func = function.clone();
            module.define_function(*id, &mut context)?;
        }
        for (id, datum) in &self.data {
            module.define_data(*id, datum)?;
        }
        module.finalize_definitions()?;
        Ok(BuiltModule(Some(module)))
    }

    /// Checks that every function has a distinct address.
    pub(crate) fn check(&self) -> Result<String, Failure> {
        let built = self.build()?;
        let module = built.0.as_ref().expect("it was just built");
        let mut addresses: Vec<_> =
            self.functions.iter().map(|(id, _)| module.get_finalized_function(*id)).collect();
        addresses.sort_unstable();
        addresses.dedup();
        if addresses.len() != self.workload.functions().count() || addresses.contains(&std::ptr::null()) {
            return Err("cranelift-jit did not place every function".into());
        }
        Ok(format!("cranelift-jit placed all {} functions", addresses.len()))
    }
}

/// Compiles and links everything into memory with Kiln.
pub(crate) fn kiln(workload: &Workload, compiler: &Compiler) -> Result<Jit, Failure> {
    let compiled = compiler.compile(&workload.modules)?;
    link(&compiled.artifacts)
}

fn link(artifacts: &[Artifact]) -> Result<Jit, Failure> {
    let jit = Jit::new(JitOptions::default())?;
    jit.link(artifacts, &resolve)?;
    Ok(jit)
}

/// Checks that the program computes the same in cranelift-jit and in Kiln.
pub(crate) fn same_results(
    workload: &Workload,
    artifacts: &[Artifact],
    peer: &CraneliftJit<'_>,
) -> Result<String, Failure> {
    let built = peer.build()?;
    let module = built.0.as_ref().expect("it was just built");
    let jit = link(artifacts)?;
    let (theirs, count) = run(workload, |name| match module.get_name(name) {
        Some(cranelift_module::FuncOrDataId::Func(id)) => Some(module.get_finalized_function(id)),
        _ => None,
    })?;
    let (ours, _) = run(workload, |name| jit.address(name))?;
    if ours != theirs {
        return Err(
            format!("{count} functions computed {ours:#x} in kiln, {theirs:#x} in cranelift-jit").into()
        );
    }
    Ok(format!("{count} functions were run, with equal results in kiln's memory and cranelift-jit"))
}

/// Calls every exported entry function of the generated program, in order, and returns a digest of
/// all results and their number.
pub(crate) fn run(
    workload: &Workload,
    find: impl Fn(&str) -> Option<*const u8>,
) -> Result<(u64, usize), Failure> {
    let mut memory = [1u64; generate::MEMORY / 8];
    let (mut digest, mut count) = (0u64, 0);
    let symbols = workload.modules.iter().flat_map(|module| &module.symbols);
    for symbol in
        symbols.filter(|symbol| symbol.kind == SymbolKind::Function && generate::is_entry(&symbol.name))
    {
        if symbol.linkage != kiln::ir::Linkage::Export {
            continue;
        }
        let address = find(&symbol.name).ok_or_else(|| format!("{} is not found", symbol.name))?;
        // SAFETY: `is_entry` means that the function has this type. It terminates, reads and writes
        // only its argument's memory and its own module's, and calls only such functions.
        let result = unsafe {
            let entry: extern "C" fn(*mut u64, i32, i64) -> i64 = std::mem::transmute(address);
            entry(memory.as_mut_ptr(), 2, count as i64 * 17)
        };
        digest = digest.rotate_left(5) ^ result as u64;
        count += 1;
    }
    for word in memory {
        digest = digest.rotate_left(5) ^ word;
    }
    Ok((digest, count))
}
