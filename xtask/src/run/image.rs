//! `run-image`: the other process of `run --via image`. Loads an image and executes a file's run lines in it.

use std::path::PathBuf;

use cranelift_codegen::data_value::DataValue;
use cranelift_codegen::ir::Signature;
use kiln::Thunk;
use kiln::image::{Image, Loaded};
use kiln::ir::{Function, Module, ModuleSettings, Target};
use kiln::jit::invoke;

use super::invocation::{self, Stop};
use super::objects::Objects;
use super::worker::variant_settings;
use super::{Event, Verdict};
use crate::input;
use crate::output::{Outcome, chain};

/// Execute the run lines of FILE in IMAGE.
#[derive(clap::Args)]
pub(crate) struct Args {
    image: PathBuf,
    file: PathBuf,
    /// For each module of the file, number of the `target` line that the image was compiled for
    #[arg(long, value_delimiter = ',')]
    variants: Vec<usize>,
}

pub(crate) fn main(args: &Args) -> Outcome {
    let target = Target::host();
    let files = std::slice::from_ref(&args.file);
    let parsed = input::modules(files, &target, false, |module| module)?;
    let mut modules = input::all(parsed.into_iter().flatten())?;
    for (module, &number) in modules.iter_mut().zip(&args.variants) {
        module.settings = variant_settings(&module.settings, number);
    }
    let objects = Objects::default();
    let loaded = Image::open(&args.image).and_then(|image| {
        image.verify()?;
        image.bind(&objects)
    });
    let verdict = match loaded {
        Ok(loaded) => execute(&loaded, &modules, &target, &mut Event::send),
        Err(error) => Verdict::Failed { reason: chain(&error) },
    };
    Event::Done(verdict).send();
    Ok(())
}

/// Loads an image from memory, filled with what this process provides.
pub(super) fn load_bytes(bytes: &[u8], objects: &Objects) -> Result<Loaded, String> {
    Image::from_bytes(bytes).and_then(|image| image.bind(objects)).map_err(|error| chain(&error))
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

/// Entry thunks, made when a signature is first called.
pub(super) struct Thunks<'a> {
    target: &'a Target,
    settings: &'a ModuleSettings,
    thunks: Vec<Thunk>,
}

impl<'a> Thunks<'a> {
    /// For calls of the functions of each module.
    pub(super) fn of_each(target: &'a Target, modules: &'a [Module]) -> Vec<Self> {
        let of = |module: &'a Module| Self { target, settings: &module.settings, thunks: Vec::new() };
        modules.iter().map(of).collect()
    }

    /// Calls `callee`, which has this signature.
    pub(super) fn call(
        &mut self,
        callee: *const u8,
        signature: &Signature,
        arguments: &[DataValue],
    ) -> Result<Vec<DataValue>, Stop> {
        let failed = |reason: &dyn std::fmt::Display| Stop::Failed(reason.to_string());
        let known = self.thunks.iter().position(|thunk| thunk.signature() == signature);
        let index = match known {
            Some(index) => index,
            None => {
                let thunk = Thunk::new(self.target, self.settings, signature)
                    .map_err(|error| failed(&chain(&error)))?;
                self.thunks.push(thunk);
                self.thunks.len() - 1
            }
        };
        let thunk = &self.thunks[index];
        let mut cells =
            thunk.encode(arguments).ok_or_else(|| failed(&"arguments do not fit the signature"))?;
        call(thunk, callee, &mut cells);
        thunk.decode(&cells).ok_or_else(|| failed(&"results do not fit the signature"))
    }
}

/// Runs machine code that the user asked to run.
#[expect(
    unsafe_code,
    reason = "a command whose purpose is to execute compiled code must execute it somewhere"
)]
pub(crate) fn call(thunk: &Thunk, callee: *const u8, cells: &mut [kiln::jit::Cell]) {
    // SAFETY: `callee` is code of the thunk's signature, which was compared, and `cells` were encoded by the thunk. That the code does
    // nothing undefined is up to the IR that the user gave; the process is there for nothing else and may crash.
    unsafe { invoke(thunk.address(), callee, cells) };
}
