//! Saving a session: its code, and on request the objects that it has made.

use std::path::Path;

use kiln_artifact::Artifact;
use kiln_globals::{Resolve, SlotKey};
use kiln_heap::{Input, Root, Visit, snapshot};
use kiln_image::{Base, ImageOptions, save, write_layer};
use kiln_jit::{Role, Unit};

use super::data::with_data_of_now;
use super::engine::{Engine, EngineResolver};
use super::error::SessionError;
use super::names::Names;

/// The name of the module of a saved heap, in errors and in images.
const HEAP_MODULE: &str = "(heap)";

/// The things that an image of a session has besides code.
#[derive(Debug, Default)]
pub struct Saving<'a> {
    /// Objects of the run-time system.
    pub heap: Option<SavedHeap<'a>>,
    /// The state in which writable data of modules is saved.
    pub data: WritableData,
    /// How the image is written. Names of modules are added to it.
    pub options: ImageOptions,
}

/// The state in which writable data of modules is saved.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum WritableData {
    /// As the modules define it.
    #[default]
    AtFirst,
    /// As the program has left it. Words that are addresses of functions and data of the session,
    /// or of what is bound, are pointers, which the image has, too. Pointers at objects of a heap
    /// are refused: what leads to objects is a global, and a root. Thread-local data is as it was
    /// at first.
    Now,
}

/// The objects of a heap that are saved: what is reachable from globals.
///
/// They must not change while they are saved. What is seen of a change is an error; see
/// [`kiln_heap`] for what is seen. Objects may point at functions and data of modules that are
/// visible to other modules, and at what is bound: globals that are not roots, and symbols.
pub struct SavedHeap<'a> {
    /// The keys of globals that are bound to objects. In a process that loads the image, they need
    /// no binding: they are those objects.
    pub roots: &'a [&'a str],
    /// Knows the objects.
    pub visitor: &'a mut dyn Visit,
}

impl std::fmt::Debug for SavedHeap<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SavedHeap").field("roots", &self.roots).finish_non_exhaustive()
    }
}

/// Links the program of a session into the bytes of an image.
pub(super) fn image(engine: &Engine, saving: Saving<'_>) -> Result<Vec<u8>, SessionError> {
    engine.finish_deferred()?;
    let mut units = engine.jit.units();
    units.retain(|unit| unit.role() == Role::Program);
    let Saving { heap, data, mut options } = saving;
    let modules = units.iter().flat_map(|unit| (0..unit.len()).map(move |module| (unit, module)));
    let mut artifacts: Vec<Artifact> = match data {
        WritableData::AtFirst => modules.map(|(unit, module)| unit.artifacts()[module].clone()).collect(),
        WritableData::Now => {
            let names = Names::of(engine, &units);
            let of_now = |(unit, module)| with_data_of_now(&engine.jit, unit, module, &names);
            modules.map(of_now).collect::<Result<_, _>>()?
        }
    };
    let names = units.iter().flat_map(|unit| (0..unit.len()).map(|module| unit.module_name(module)));
    options.module_names = names.map(Into::into).collect();
    if let Some(heap) = heap {
        artifacts.push(save_heap(engine, &units, heap)?);
        options.module_names.push(HEAP_MODULE.into());
    }
    let globals = engine.globals_of(&artifacts);
    let bases: Vec<&dyn Base> = engine.jit.bases().iter().map(|image| &**image as &dyn Base).collect();
    let write = || write_layer(&artifacts, &globals, &bases, &options).map(|files| files.image);
    let image = engine.compiler.install(write);
    image.map_err(|errors| SessionError::Image { errors, names: options.module_names.into() })
}

/// Makes the module of a heap.
fn save_heap(engine: &Engine, units: &[Unit], heap: SavedHeap<'_>) -> Result<Artifact, SessionError> {
    let SavedHeap { roots, visitor } = heap;
    let root = |&key: &&'_ str| {
        let address = EngineResolver(engine).resolve(&SlotKey::Global(key.into()), None);
        address.map_err(|_| SessionError::UnboundRoot { key: key.into() })
    };
    let addresses = roots.iter().map(root).collect::<Result<Vec<_>, _>>()?;
    let roots: Vec<Root<'_>> =
        roots.iter().zip(addresses).map(|(key, address)| Root { key, address }).collect();
    let names = Names::of(engine, units);
    let mut find = |address| names.find(address);
    let triple = engine.compiler.target().triple().to_string();
    let mut input = Input { triple: &triple, roots: &roots, names: &mut find };
    Ok(snapshot(&mut input, visitor)?.artifact)
}

/// Writes the bytes of an image to a file.
pub(super) fn write_file(path: &Path, image: &[u8]) -> Result<(), SessionError> {
    save(path, image)
        .map_err(|source| SessionError::Write { path: path.display().to_string().into(), source })
}
