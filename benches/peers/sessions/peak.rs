//! The largest amount of memory while a program is compiled, each compiler in a process of its own.

use std::ffi::OsString;
use std::process::Command;

use cranelift_codegen::Context;
use cranelift_codegen::control::ControlPlane;
use cranelift_codegen::ir;
use kiln::Compiler;
use kiln::ir::Function;
use rayon::prelude::*;
use serde_json::{Value, json};

use super::growth::resident;
use crate::report::{Comparison, Goal};
use crate::setup::{Failure, Setup};
use crate::workload::Workload;

/// The compiler of a child process.
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
pub(crate) enum PeakChild {
    Kiln,
    Raw,
}

/// Compiles a workload, and prints the figures for the parent.
pub(crate) fn peak_child(compiler: PeakChild, workload: &Workload, setup: &Setup) -> Result<(), Failure> {
    let before = resident()?;
    // The peak is counted from here.
    std::fs::write("/proc/self/clear_refs", "5")?;
    let kept = match compiler {
        PeakChild::Kiln => {
            let compiler = Compiler::new(workload.target.clone()).pool(setup.pool.clone());
            let artifacts = compiler.compile(&workload.modules)?.artifacts;
            artifacts.iter().map(|artifact| artifact.as_bytes().len()).sum::<usize>()
        }
        PeakChild::Raw => {
            let queue: Vec<_> = workload.functions().collect();
            let compile = |context: &mut Context, (module, _, ir): &(usize, &Function, &ir::Function)| {
                context.clear();
                context.func = (*ir).clone();
                let code = context
                    .compile(&*workload.isas[*module], &mut ControlPlane::default())
                    .map_err(|error| Failure::from(format!("{:?}", error.inner)))?;
                Ok(Box::from(code.buffer.data()))
            };
            let code = || {
                queue.par_iter().map_init(Context::new, compile).collect::<Result<Vec<Box<[u8]>>, Failure>>()
            };
            let code = setup.pool.install(code)?;
            code.iter().map(|code| code.len()).sum()
        }
    };
    println!("{}", json!({ "before": before, "peak": peak()?, "kept": kept }));
    Ok(())
}

/// Returns the largest amount of resident memory of this process, in bytes.
pub(crate) fn peak() -> Result<usize, Failure> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).ok_or("no VmHWM")?;
    Ok(line.trim().trim_end_matches(" kB").parse::<usize>()? * 1024)
}

/// Compares the peaks.
pub(super) fn compare(
    setup: &Setup,
    workload: &[OsString],
    comparison: &mut Comparison,
) -> Result<(), Failure> {
    let run = |compiler: &str| -> Result<[f64; 3], Failure> {
        let mut command = Command::new(std::env::current_exe()?);
        let output = command.args(["--peak-child", compiler]).args(workload).output()?;
        if !output.status.success() {
            return Err(format!("{compiler}: {}", String::from_utf8_lossy(&output.stderr)).into());
        }
        let value: Value = serde_json::from_slice(&output.stdout)?;
        let number = |name: &str| value[name].as_f64().ok_or("no number");
        Ok([number("before")?, number("peak")?, number("kept")?])
    };
    let (mut whole, mut added) = (Vec::new(), Vec::new());
    for _ in 0..setup.rounds.min(5) {
        let ([our_before, our_peak, ours], [their_before, their_peak, theirs]) = (run("kiln")?, run("raw")?);
        whole.push(our_peak / their_peak);
        added.push((our_peak - our_before) / (their_peak - their_before));
        if whole.len() == 1 {
            comparison.note(format!(
                "peak of a cold compile: {:.1} MB in kiln, which keeps {:.1} MB of artifacts, {:.1} MB in the raw loop, which keeps {:.1} MB of code; {:.1} MB of each are the IR",
                our_peak / 1e6, ours / 1e6, their_peak / 1e6, theirs / 1e6, our_before / 1e6,
            ));
        }
    }
    comparison.values(
        "peak memory of a cold compile, kiln / raw loop that keeps its code",
        &whole,
        Goal::AtMost(1.15),
    );
    comparison.values("the same without the memory before it", &added, Goal::None);
    Ok(())
}
