//! Comparison E: canonical form, fingerprint and binary form, compared with compilation and text.

use std::time::{Duration, Instant};

use cranelift_codegen::{Context, verify_function};
use kiln::ir::{Body, Modules};

use crate::measure::{Contender, interleave};
use crate::report::{Comparison, Goal};
use crate::setup::{Failure, Setup};
use crate::workload::Workload;

pub(crate) fn compare(workload: &Workload, setup: &Setup) -> Result<Comparison, Failure> {
    let mut comparison = Comparison::new(&workload.name, "E. canonical and binary form");
    let files: Vec<Vec<u8>> = workload.modules.iter().map(kiln::ir::Module::to_bytes).collect();
    check(workload, &files)?;
    comparison.check(
        "each function's form decodes to a function of the same form, and each module comes back from bytes",
    );

    let compile = "raw Cranelift, 1 thread";
    let forms = "canonical form and fingerprint, 1 thread";
    let binary = "kiln reads the binary form, 1 thread";
    let verified = "kiln reads and verifies the binary form, 1 thread";
    let text = "cranelift-reader reads the text, 1 thread";
    let mut contenders = vec![
        Contender::new(compile, || {
            let mut context = Context::new();
            let mut bytes = 0;
            for (number, _, ir) in workload.functions() {
                context.clear();
                context.func = ir.clone();
                let code = context.compile(&*workload.isas[number], &mut Default::default());
                bytes += code.map_err(|error| format!("{:?}", error.inner))?.buffer.data().len();
            }
            Ok(bytes)
        }),
        // A front end verifies a function just before it makes the canonical form, so the function
        // is in the processor's caches.
        Contender::in_parts(forms, &["canonical form", "fingerprints"], || {
            let mut form = Duration::ZERO;
            for (number, _, ir) in workload.functions() {
                verify_function(ir, &*workload.isas[number])?;
                let start = Instant::now();
                let body = Body::new(ir)?;
                form += start.elapsed();
                std::hint::black_box(body);
            }
            let start = Instant::now();
            for module in &workload.modules {
                std::hint::black_box(module.fingerprint());
            }
            Ok(vec![form, start.elapsed()])
        }),
        Contender::new(binary, || {
            let mut functions = 0;
            for file in &files {
                for module in Modules::new(&file[..]) {
                    functions += std::hint::black_box(module?).module().functions.len();
                }
            }
            Ok(functions)
        }),
        Contender::new(verified, || {
            let mut functions = 0;
            for file in &files {
                for module in Modules::new(&file[..]) {
                    functions += std::hint::black_box(module?.verify(&workload.target)?).functions.len();
                }
            }
            Ok(functions)
        }),
    ];
    // cranelift-reader does not read files with data or names of run-time objects.
    let readable =
        workload.sources.iter().all(|source| cranelift_reader::parse_functions(source.text()).is_ok());
    if readable {
        contenders.push(Contender::new(text, || {
            let mut functions = 0;
            for source in &workload.sources {
                functions += std::hint::black_box(cranelift_reader::parse_functions(source.text())?).len();
            }
            Ok(functions)
        }));
    }
    comparison.add(interleave(setup.rounds, contenders)?);
    comparison.ratio(forms, compile, Goal::AtMost(0.02));
    if readable {
        comparison.ratio(text, binary, Goal::AtLeast(10.0));
        comparison.ratio(text, verified, Goal::None);
    }
    let size: usize = files.iter().map(Vec::len).sum();
    let text: usize = workload.sources.iter().map(|source| source.text().len()).sum();
    comparison.note(format!("{} KB in binary form, {} KB of text", size / 1024, text / 1024));
    comparison.note("canonical form: right after verifying the function, as a builder or reader does; the verifier's time is not included");
    comparison.note("reading the binary form: checksum, every index checked, comments taken over; nothing is decoded to IR");
    Ok(comparison)
}

/// Checks that forms and modules survive a round trip.
fn check(workload: &Workload, files: &[Vec<u8>]) -> Result<(), Failure> {
    for (number, function, ir) in workload.functions() {
        if Some(&Body::new(ir)?) != function.body() {
            return Err(format!("a function of {} has two forms", workload.modules[number].name).into());
        }
    }
    for (module, file) in workload.modules.iter().zip(files) {
        let read = Modules::new(&file[..]).next().ok_or("no module in a file")??;
        if read.fingerprint() != module.fingerprint() || read.verify(&workload.target)?.to_bytes() != *file {
            return Err(format!("module {} does not come back from its bytes", module.name).into());
        }
    }
    Ok(())
}
