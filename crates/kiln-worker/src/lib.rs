//! Compiles a shard of modules: what the command `kiln-worker` does, without files.
//!
#![doc = include_str!("../README.md")]
//!
//! The command runs in a sandbox that has nothing but the command and the shard.
//! [`compile_shard`] is a pure function: equal shards make equal results, which a farm keeps.
//!
//! # Architecture invariants
//!
//! A module is compiled only if this program would make exactly the code that the module's key
//! stands for: same IR, target, settings and versions. So a worker of another version answers with
//! errors, not with other code. Bytes are not trusted: every function is verified.

#![forbid(unsafe_code)]

use cranelift_codegen::isa::OwnedTargetIsa;
use kiln_backend::{Job, PRODUCER, REVISION, TargetNames, compile, settings_text};
use kiln_cache::{Entry, KeyParts, Recipe};
use kiln_farm::{FormatError, ShardItem, WorkerError, WorkerErrorKind, read_shard, write_results};
use kiln_globals::GlobalAccess;
use kiln_ir::{Module, ModuleSettings, Modules, Target};

/// Compiles the modules of a shard, one after the other, and returns the bytes of the results. A
/// module that cannot be compiled has an error as its result.
///
/// # Errors
///
/// If the bytes are not a shard.
pub fn compile_shard(bytes: &[u8]) -> Result<Vec<u8>, FormatError> {
    let items = read_shard(bytes)?;
    let mut last: Option<Generator> = None;
    let results = items.iter().map(|item| compile_item(item, &mut last)).collect::<Vec<_>>();
    Ok(write_results(&results))
}

/// The code generator of a module. Making one takes as long as compiling a small function, and most
/// modules have that of the module before.
struct Generator {
    environment: Recipe,
    target: Target,
    header: ModuleSettings,
    isa: OwnedTargetIsa,
    settings: String,
    names: TargetNames,
}

impl Generator {
    fn new(environment: &Recipe, header: &ModuleSettings) -> Result<Self, WorkerError> {
        let target = target(environment)?;
        let isa = target.isa(header).map_err(|source| error(WorkerErrorKind::OtherEnvironment, &source))?;
        let (settings, names) = (settings_text(&*isa), TargetNames::new(&*isa));
        Ok(Self { environment: environment.clone(), target, header: header.clone(), isa, settings, names })
    }

    fn fits(&self, environment: &Recipe, header: &ModuleSettings) -> bool {
        self.environment.same_environment(environment) && self.header == *header
    }
}

fn error(kind: WorkerErrorKind, reason: &dyn std::error::Error) -> WorkerError {
    WorkerError { kind, message: reason.to_string().into() }
}

/// Returns the target of a recipe, which has every setting of the code generator.
fn target(recipe: &Recipe) -> Result<Target, WorkerError> {
    let target =
        Target::parse(recipe.target()).map_err(|reason| error(WorkerErrorKind::OtherEnvironment, &reason))?;
    let settings = recipe.settings().split_ascii_whitespace().filter_map(|text| text.split_once('='));
    Ok(settings.fold(target, |target, (name, value)| match (name, value) {
        // Kiln chooses it by the way in which code reaches globals.
        ("is_pic", "0") => target.globals(GlobalAccess::Direct),
        ("is_pic", _) => target.globals(GlobalAccess::Slots),
        // `Target` finds out which settings are those of the architecture.
        _ => target.setting(name, value),
    }))
}

fn compile_item(item: &ShardItem<'_>, last: &mut Option<Generator>) -> Result<Entry, WorkerError> {
    let ShardItem { key, environment, module } = item;
    let unreadable = |reason: &dyn std::error::Error| error(WorkerErrorKind::Unreadable, reason);
    let mut modules = Modules::new(*module);
    let read = match modules.next() {
        Some(Ok(read)) => read,
        Some(Err(reason)) => return Err(unreadable(&reason)),
        None => return Err(WorkerError { kind: WorkerErrorKind::Unreadable, message: "no module".into() }),
    };
    if modules.next().is_some() {
        let message = "more than one module".into();
        return Err(WorkerError { kind: WorkerErrorKind::Unreadable, message });
    }
    let header = &read.module().settings;
    let generator = match last.take().filter(|generator| generator.fits(environment, header)) {
        Some(generator) => generator,
        None => Generator::new(environment, header)?,
    };
    let generator = last.insert(generator);
    let recipe = recipe(read.module(), generator)?;
    if recipe.key() != *key {
        let message = "the module is not the one that its key names".into();
        return Err(WorkerError { kind: WorkerErrorKind::OtherModule, message });
    }
    let module = read.verify(&generator.target).map_err(|reason| error(WorkerErrorKind::Invalid, &reason))?;
    let job = Job { names: Some(&generator.names), ..Job::new(&module, &*generator.isa) };
    let built = compile(&job).map_err(|errors| {
        let message = errors.first().map(ToString::to_string).unwrap_or_default().into();
        WorkerError { kind: WorkerErrorKind::NotCompiled, message }
    })?;
    // The build makes the keys of the functions by itself.
    Ok(Entry { recipe, functions: [].into(), artifact: built.artifact })
}

/// Returns the recipe of the code that this program makes of a module, if it has the environment
/// that is asked for.
fn recipe(module: &Module, generator: &Generator) -> Result<Recipe, WorkerError> {
    let (fingerprint, names) = (module.fingerprint(), module.local_names_fingerprint());
    let parts = KeyParts {
        fingerprint: fingerprint.as_bytes(),
        names: names.as_bytes(),
        target: &generator.isa.triple().to_string(),
        settings: &generator.settings,
        producer: PRODUCER,
        revision: REVISION,
        abi: b"",
    };
    generator.environment.for_module(&parts).ok_or_else(|| {
        let wanted = &generator.environment;
        let message = format!(
            "this worker makes other code: it has {PRODUCER}, revision {REVISION}, asked for {}, revision {}",
            wanted.producer(),
            wanted.revision()
        );
        WorkerError { kind: WorkerErrorKind::OtherEnvironment, message: message.into() }
    })
}
