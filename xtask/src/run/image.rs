//! `run-image`: the other process of `run --via image`, which loads an image and executes a file's
//! run lines in it.

use std::path::PathBuf;

use cranelift_codegen::data_value::DataValue;
use cranelift_codegen::ir::Signature;
use kiln::image::{Image, LoadError, Loaded};
use kiln::ir::{Function, Module, Target};

use super::invocation::{self, Stop};
use super::objects::Objects;
use super::report::{Event, Verdict};
use super::supervise::end_with_parent;
use super::thunks::Thunks;
use super::variants::variant_settings;
use crate::input::{self, InputFile, Profiler};
use crate::output::{Outcome, chain};

/// Execute the run lines of FILE in IMAGE.
#[derive(clap::Args)]
pub(crate) struct RunImageArgs {
    image: PathBuf,
    /// Name of the file
    file: PathBuf,
    /// The path of its contents
    contents: PathBuf,
    /// The number of the `target` line that the image was compiled for, for each module of the file
    #[arg(long, value_delimiter = ',')]
    variants: Vec<usize>,
    #[arg(long, value_enum)]
    profiler: Option<Profiler>,
}

pub(crate) fn main(args: &RunImageArgs) -> Outcome {
    let target = Target::host();
    end_with_parent();
    let files = [InputFile::at(args.file.clone(), args.contents.clone())];
    let parsed = input::modules(&files, &target, false, |module| module)?;
    let mut modules = input::all(parsed.into_iter().flatten())?;
    for (module, &number) in modules.iter_mut().zip(&args.variants) {
        module.settings = variant_settings(&module.settings, number);
    }
    let objects = Objects::default();
    let opened = match args.profiler {
        None => Image::open(&args.image),
        Some(profiler) => profiler.open(&args.image),
    };
    let loaded = opened.and_then(|image| {
        image.verify()?;
        image.bind(&objects)
    });
    let loaded = loaded.map_err(|error| match error {
        LoadError::At { source, .. } => chain(&source),
        error => chain(&error),
    });
    let verdict = match loaded.and_then(caught) {
        Ok(loaded) => execute(&loaded, &modules, &target, &mut Event::send),
        Err(reason) => Verdict::Failed { reason: format!("its image: {reason}") },
    };
    Event::Done(verdict).send();
    Ok(())
}

/// Loads an image from memory, and fills its slots with `objects` and the symbols of this process.
pub(super) fn load_bytes(
    bytes: &[u8],
    objects: &Objects,
    profiler: Option<Profiler>,
) -> Result<Loaded, String> {
    let image = Image::from_bytes(bytes).map(|image| image.profiler(profiler.map(Into::into)));
    let loaded = image.and_then(|image| image.bind(objects));
    loaded.map_err(|error| chain(&error)).and_then(caught)
}

/// Registers the code of an image, so that traps are caught, and exceptions find its handlers.
fn caught(loaded: Loaded) -> Result<Loaded, String> {
    match loaded.catch_traps() {
        Ok(()) => Ok(loaded),
        Err(error) => Err(chain(&error)),
    }
}

/// Executes the run lines of `modules` in an image that contains them.
pub(super) fn execute(
    loaded: &Loaded,
    modules: &[Module],
    target: &Target,
    event: &mut dyn FnMut(&Event),
) -> Verdict {
    let mut thunks = Thunks::of_each(target, modules);
    let mut execute = |number: usize, function: &Function, signature: &Signature, arguments: &[DataValue]| {
        let name = &modules[number].symbol(function.symbol).name;
        let callee = loaded
            .function(name)
            .ok_or_else(|| Stop::Failed("the image does not export the function".into()))?;
        let exported = callee.signature();
        if exported != signature.to_string() {
            return Err(Stop::Failed(format!("the image exports {exported}, the file defines {signature}")));
        }
        thunks[number].call(callee.address(), signature, arguments)
    };
    invocation::all(modules, &mut execute, event)
}
