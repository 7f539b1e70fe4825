//! The ways to execute a program, each with memory of its own for run-time objects.

use cranelift_codegen::data_value::DataValue;
use cranelift_codegen::settings::Configurable;
use cranelift_jit::{JITBuilder, JITModule};
use cranelift_module::{FuncOrDataId, Linkage, Module as _};
use kiln::globals::{Bindings, Resolve as _, SlotKey};
use kiln::image::Image;
use kiln::ir::{Module, ModuleSettings, Target};
use kiln::jit::{invoke, libcalls};
use kiln::{Session, Thunk};
use kiln_oracle::generate::{Draft, Entry, RandomProgram};
use kiln_oracle::interpret;

/// The outcome of a program.
#[derive(PartialEq)]
pub(crate) struct Outcome {
    /// Results of each entry.
    pub(crate) results: Vec<Vec<DataValue>>,
    /// The bytes of the run-time objects at the end.
    pub(crate) globals: Vec<Vec<u8>>,
}

/// Run-time objects in this process.
struct Objects {
    /// Key, bytes, length.
    objects: Vec<(Box<str>, Vec<u128>, usize)>,
}

impl Objects {
    fn new(globals: &[(Box<str>, Vec<u8>)]) -> Self {
        let object = |(key, bytes): &(Box<str>, Vec<u8>)| {
            let words = bytes.chunks(16).map(|chunk| {
                let mut word = [0; 16];
                word[..chunk.len()].copy_from_slice(chunk);
                u128::from_ne_bytes(word)
            });
            (key.clone(), words.collect::<Vec<_>>(), bytes.len())
        };
        Self { objects: globals.iter().map(object).collect() }
    }

    fn address(&mut self, key: &str) -> usize {
        let object = self.objects.iter_mut().find(|(other, ..)| **other == *key);
        object.expect("a global of the program").1.as_mut_ptr() as usize
    }

    fn bytes(self) -> Vec<Vec<u8>> {
        let bytes = |(_, words, len): (_, Vec<u128>, usize)| {
            // Compiled code wrote to it, which the compiler of this test does not see.
            let words = std::hint::black_box(words);
            words.into_iter().flat_map(u128::to_ne_bytes).take(len).collect()
        };
        self.objects.into_iter().map(bytes).collect()
    }
}

/// Entry thunks, made when a signature is first called. All engines use them.
pub(crate) struct Thunks {
    target: Target,
    thunks: Vec<Thunk>,
}

impl Thunks {
    pub(crate) fn new(target: Target) -> Self {
        Self { target, thunks: Vec::new() }
    }

    fn call(&mut self, callee: *const u8, entry: &Entry) -> Vec<DataValue> {
        let known = self.thunks.iter().position(|thunk| *thunk.signature() == entry.signature);
        let index = known.unwrap_or_else(|| {
            let thunk = Thunk::new(&self.target, &ModuleSettings::default(), &entry.signature);
            self.thunks.push(thunk.expect("a thunk"));
            self.thunks.len() - 1
        });
        let thunk = &self.thunks[index];
        let mut cells = thunk.encode(&entry.arguments).expect("arguments of the signature");
        // SAFETY: the program is valid and stays inside its memory by construction; `callee` has
        // the entry's signature, which the engines check or know.
        unsafe { invoke(thunk.address(), callee, &mut cells) };
        thunk.decode(&cells).expect("results of the signature")
    }
}

/// Executes `program` with the interpreter.
pub(crate) fn interpreted(program: &RandomProgram) -> Result<Outcome, String> {
    let linked = interpret::LinkedProgram::new(&program.modules.iter().collect::<Vec<_>>());
    let bytes = |key: &str| program.global(key).expect("a global of the program").to_vec();
    let mut process = interpret::Process::new(&linked, &mut |key| bytes(key));
    let mut results = Vec::new();
    for entry in &program.entries {
        let values = process.call(&entry.name, &entry.arguments);
        results.push(values.map_err(|error| format!("{}: {error}", entry.name))?);
    }
    let globals = program.globals.iter().map(|(key, bytes)| match process.global(key) {
        Some(bytes) => bytes.to_vec(),
        None => bytes.clone(),
    });
    Ok(Outcome { results, globals: globals.collect() })
}

/// Compiles `modules` and executes them in a session. The image is written before or after that.
pub(crate) fn session(
    program: &RandomProgram,
    modules: &[Module],
    thunks: &mut Thunks,
    save_first: bool,
) -> Result<(Outcome, Vec<u8>), String> {
    let compiler = kiln::Compiler::new(thunks.target.clone());
    session_with(compiler, program, modules, thunks, save_first)
}

/// Does the same with this compiler.
pub(crate) fn session_with(
    compiler: kiln::Compiler,
    program: &RandomProgram,
    modules: &[Module],
    thunks: &mut Thunks,
    save_first: bool,
) -> Result<(Outcome, Vec<u8>), String> {
    let text = |error: kiln::SessionError| error.to_string();
    let mut objects = Objects::new(&program.globals);
    let options = kiln::jit::JitOptions::default();
    let session = Session::with_compiler(compiler, options).map_err(text)?;
    for (key, _) in &program.globals {
        session.bind_global(key, objects.address(key)).unwrap();
    }
    session.add(modules).map_err(text)?;
    let before = if save_first { Some(session.image().map_err(text)?) } else { None };
    let mut results = Vec::new();
    for entry in &program.entries {
        let function = session.function(&entry.name).ok_or("an entry is missing")?;
        if function.signature() != entry.signature.to_string() {
            return Err(format!("{} is {}", entry.name, function.signature()));
        }
        results.push(thunks.call(function.address(), entry));
    }
    let image = match before {
        Some(image) => image,
        None => session.image().map_err(text)?,
    };
    Ok((Outcome { results, globals: objects.bytes() }, image))
}

/// Loads an image of `program` and executes it.
pub(crate) fn image(program: &RandomProgram, bytes: &[u8], thunks: &mut Thunks) -> Result<Outcome, String> {
    image_at(program, bytes, None, thunks)
}

/// Loads an image of `program` and executes its code for a level of the processor.
pub(crate) fn image_at(
    program: &RandomProgram,
    bytes: &[u8],
    level: Option<&str>,
    thunks: &mut Thunks,
) -> Result<Outcome, String> {
    let mut objects = Objects::new(&program.globals);
    let mut bindings = Bindings::new();
    for (key, _) in &program.globals {
        bindings.bind(key, objects.address(key));
    }
    let resolve = bindings.or(&libcalls::process);
    let image = Image::from_bytes(bytes).map_err(|error| error.to_string())?;
    let image = match level {
        Some(level) => image.with_cpu_level(level).map_err(|error| error.to_string())?,
        None => image,
    };
    image.verify().map_err(|error| error.to_string())?;
    let loaded = image.bind(&resolve).map_err(|error| error.to_string())?;
    let mut results = Vec::new();
    for entry in &program.entries {
        let function = loaded.function(&entry.name).ok_or_else(|| format!("{:?} is missing", entry.name))?;
        if function.signature() != entry.signature.to_string() {
            return Err(format!("{} is {}", entry.name, function.signature()));
        }
        results.push(thunks.call(function.address(), entry));
    }
    Ok(Outcome { results, globals: objects.bytes() })
}

/// Builds the program into one `JITModule` and executes it.
pub(crate) fn peer(draft: &Draft, thunks: &mut Thunks) -> Result<Outcome, String> {
    let globals = draft.globals();
    let mut objects = Objects::new(&globals);
    let mut flags = cranelift_codegen::settings::builder();
    for (name, value) in [("opt_level", "speed"), ("preserve_frame_pointers", "true"), ("is_pic", "false")] {
        flags.set(name, value).map_err(|error| error.to_string())?;
    }
    let target = &thunks.target;
    let mut isa =
        cranelift_codegen::isa::lookup(target.triple().clone()).map_err(|error| error.to_string())?;
    for flag in target.isa(&ModuleSettings::default()).map_err(|error| error.to_string())?.isa_flags() {
        if flag.as_bool() == Some(true) {
            isa.enable(flag.name).map_err(|error| error.to_string())?;
        }
    }
    let isa =
        isa.finish(cranelift_codegen::settings::Flags::new(flags)).map_err(|error| error.to_string())?;
    let mut builder = JITBuilder::with_isa(isa, cranelift_module::default_libcall_names());
    for (key, _) in &globals {
        builder.symbol(format!("global {key}"), objects.address(key) as *const u8);
    }
    // `JITModule` looks for routines of libm in the process only.
    for name in ["fma", "fmaf"] {
        let address = libcalls::process(&SlotKey::Symbol(name.into())).ok_or("a libcall is missing")?;
        builder.symbol(name, address as *const u8);
    }
    let mut module = JITModule::new(builder);
    let mut global = |module: &mut JITModule, key: &str| {
        module.declare_data(&format!("global {key}"), Linkage::Import, true, false).expect("an import")
    };
    draft.define_all(&mut module, &mut global).map_err(|error| format!("{error:#?}"))?;
    module.finalize_definitions().map_err(|error| error.to_string())?;
    let mut results = Vec::new();
    for entry in draft.entries() {
        let Some(FuncOrDataId::Func(id)) = module.get_name(&entry.name) else {
            return Err("an entry is missing".into());
        };
        results.push(thunks.call(module.get_finalized_function(id), entry));
    }
    // SAFETY: no code of the module runs any more.
    unsafe { module.free_memory() };
    Ok(Outcome { results, globals: objects.bytes() })
}
