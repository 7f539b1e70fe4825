//! Comparison D: from text to IR.

use cranelift_codegen::ir::Function;
use cranelift_codegen::verify_function;
use rayon::prelude::*;

use crate::measure::{Contender, interleave};
use crate::report::{Section, Target};
use crate::workload::Workload;
use crate::{Failure, Setup};

pub(crate) fn compare(workload: &Workload, setup: &Setup) -> Result<Section, Failure> {
    let mut section = Section::new(&workload.name, "D. from text to IR");
    let files: Vec<usize> = (0..workload.sources.len()).collect();
    let kiln = |&file: &usize| -> Result<usize, Failure> {
        let module = kiln::ir::parse(workload.sources[file].clone(), &workload.target);
        let module = module.map_err(|faults| faults.first().map_or_else(String::new, ToString::to_string))?;
        Ok(std::hint::black_box(&module).functions.len())
    };
    let read =
        |&file: &usize| Ok::<_, Failure>(std::hint::black_box(reader(&workload.sources[file].text)?).len());
    let verify = |&file: &usize| -> Result<usize, Failure> {
        let functions = reader(&workload.sources[file].text)?;
        let isa = &*workload.isas[file];
        functions.iter().try_for_each(|function| verify_function(function, isa))?;
        Ok(functions.len())
    };
    let everything = workload.functions().count();
    let counts = [
        ("kiln", files.iter().map(kiln).sum::<Result<usize, _>>()),
        ("cranelift-reader", files.iter().map(read).sum()),
        ("cranelift-reader and verifier", files.iter().map(verify).sum()),
    ];
    for (name, count) in counts {
        match count {
            Ok(count) if count == everything => {}
            Ok(count) => return Err(format!("{name} read {count} functions instead of {everything}").into()),
            Err(error) => {
                section.note(format!("left out, since {name} cannot read the files: {error}"));
                return Ok(section);
            }
        }
    }
    section.check(format!("each of them reads {everything} functions"));

    let threads = setup.threads;
    let serial =
        |work: &dyn Fn(&usize) -> Result<usize, Failure>| files.iter().map(work).sum::<Result<usize, _>>();
    let many = format!("kiln, {threads} threads");
    let (one, peer, verified) = (
        "kiln (verifies), 1 thread",
        "cranelift-reader, 1 thread",
        "cranelift-reader and verifier, 1 thread",
    );
    let verified_many = format!("cranelift-reader and verifier, {threads} threads");
    let contenders = vec![
        Contender::new(one, || serial(&kiln)),
        Contender::new(peer, || serial(&read)),
        Contender::new(verified, || serial(&verify)),
        Contender::new(&many, || setup.pool.install(|| files.par_iter().map(kiln).sum::<Result<usize, _>>())),
        Contender::new(&verified_many, || {
            setup.pool.install(|| files.par_iter().map(verify).sum::<Result<usize, _>>())
        }),
    ];
    section.add(interleave(setup.rounds, contenders)?);
    section.ratio(one, peer, Target::None);
    section.ratio(one, verified, Target::AtMost(1.10));
    section.ratio(&many, &verified_many, Target::AtMost(1.10));
    let bytes: usize = workload.sources.iter().map(|source| source.text.len()).sum();
    section.note(format!("{} KB of text; kiln verifies what it reads, and numbers it densely", bytes / 1024));
    Ok(section)
}

fn reader(text: &str) -> Result<Vec<Function>, Failure> {
    Ok(cranelift_reader::parse_functions(text)?)
}
