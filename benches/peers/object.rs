//! cranelift-object as a peer: object files from functions that are already compiled.

use std::path::{Path, PathBuf};

use cranelift_codegen::Context;
use cranelift_codegen::control::ControlPlane;
use cranelift_codegen::isa::OwnedTargetIsa;
use cranelift_module::{DataDescription, DataId, FuncId, Module as _, ModuleReloc, default_libcall_names};
use cranelift_object::{ObjectBuilder, ObjectModule};
use rayon::ThreadPool;
use rayon::prelude::*;

use crate::numbering::Numbering;
use crate::setup::Failure;
use crate::workload::Workload;

/// The contents of one object file, before it is emitted.
pub(crate) struct Unit {
    isa: OwnedTargetIsa,
    numbering: Numbering,
    functions: Vec<CompiledFunction>,
    data: Vec<(DataId, DataDescription)>,
}

/// A compiled function.
struct CompiledFunction {
    id: FuncId,
    align: u64,
    bytes: Vec<u8>,
    relocs: Vec<ModuleReloc>,
}

/// The way in which the program is cut into object files.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cut {
    /// An object for each module, emitted in parallel.
    Modules,
    /// One object, emitted by one thread.
    Whole,
}

impl Cut {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Modules => "an object a module",
            Self::Whole => "one object",
        }
    }
}

/// Compiles the program for object files; this is not measured.
pub(crate) fn units(workload: &Workload, cut: Cut) -> Result<Vec<Unit>, Failure> {
    let numbers: Vec<usize> = (0..workload.modules.len()).collect();
    let groups: Vec<&[usize]> = match cut {
        Cut::Modules => numbers.chunks(1).collect(),
        Cut::Whole => vec![&numbers],
    };
    groups.into_par_iter().filter(|group| !group.is_empty()).map(|group| unit(workload, group)).collect()
}

fn unit(workload: &Workload, group: &[usize]) -> Result<Unit, Failure> {
    let modules: Vec<_> = group.iter().map(|&number| &workload.modules[number]).collect();
    let isa = workload.isas[group[0]].clone();
    let numbering = Numbering::new(&modules, &*isa);
    let mut context = Context::new();
    let mut functions = Vec::new();
    let mut data = Vec::new();
    for (at, module) in modules.iter().enumerate() {
        for function in &module.functions {
            let id = numbering.function(at, function.symbol);
            context.clear();
            context.func = numbering.rename(at, &function.ir().ok_or("machine code in a module")?);
            // As in Kiln, each function is compiled with the settings of its own module.
            let isa = &*workload.isas[group[at]];
            context
                .compile(isa, &mut ControlPlane::default())
                .map_err(|error| format!("{:?}", error.inner))?;
            let buffer = &context.compiled_code().expect("it was just compiled").buffer;
            let relocs =
                buffer.relocs().iter().map(|reloc| ModuleReloc::from_mach_reloc(reloc, &context.func, id));
            let (align, bytes) = (u64::from(buffer.alignment), buffer.data().to_vec());
            functions.push(CompiledFunction { id, align, bytes, relocs: relocs.collect() });
        }
        data.extend(module.data.iter().map(|datum| numbering.datum(at, datum)));
    }
    Ok(Unit { isa, numbering, functions, data })
}

impl Unit {
    pub(crate) fn function_count(&self) -> usize {
        self.functions.len()
    }

    /// Returns the bytes of the object file.
    fn emit(&self) -> Result<Vec<u8>, Failure> {
        let builder = ObjectBuilder::new(self.isa.clone(), "unit", default_libcall_names())?;
        let mut module = ObjectModule::new(builder);
        self.numbering.declare(&mut module)?;
        for CompiledFunction { id, align, bytes, relocs } in &self.functions {
            module.define_function_bytes(*id, *align, bytes, relocs)?;
        }
        for (id, datum) in &self.data {
            module.define_data(*id, datum)?;
        }
        Ok(module.finish().emit()?)
    }
}

/// Removes the object files of an earlier turn, because overwriting a file takes longer than
/// writing a new one.
pub(crate) fn clean(units: &[Unit], folder: &Path) {
    for number in 0..units.len() {
        // The first turn finds no object files, so an error is ignored.
        let _ = std::fs::remove_file(file(folder, number));
    }
}

fn file(folder: &Path, number: usize) -> PathBuf {
    folder.join(format!("{number}.o"))
}

/// Emits and writes the object files.
pub(crate) fn write(units: &[Unit], folder: &Path, pool: &ThreadPool) -> Result<Vec<PathBuf>, Failure> {
    pool.install(|| {
        let files = units.par_iter().enumerate().map(|(number, unit)| {
            let path = file(folder, number);
            std::fs::write(&path, unit.emit()?)?;
            Ok(path)
        });
        files.collect()
    })
}
