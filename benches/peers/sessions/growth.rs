//! Very many adds to one session, each engine in a process of its own, so that memory can be
//! compared.

use std::process::Command;
use std::time::{Duration, Instant};

use cranelift_codegen::Context;
use kiln::Session;
use serde_json::{Value, json};

use super::function::{Peer, Small};
use super::one::session;
use super::scale::Scale;
use crate::report::{Comparison, Goal};
use crate::setup::{Failure, Setup};

/// The engine of a child process.
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
pub(crate) enum Child {
    Kiln,
    CraneliftJit,
}

/// Adds functions one by one, and prints the figures for the parent.
pub(crate) fn child(engine: Child, scale: Scale) -> Result<(), Failure> {
    let peer = Peer::new()?;
    let mut context = Context::new();
    let figures = match engine {
        Child::Kiln => {
            let mut session: Option<Session> = None;
            grow(&peer, scale, |functions| {
                let session = match &mut session {
                    Some(session) => session,
                    none => none.insert(self::session(&peer.compiler)?),
                };
                let modules = peer.modules(functions)?;
                let start = Instant::now();
                for module in &modules {
                    session.add(std::slice::from_ref(module))?;
                }
                let time = start.elapsed();
                functions
                    .iter()
                    .try_for_each(|function| function.check(session.jit().address(&function.name)))?;
                Ok(time)
            })?
        }
        Child::CraneliftJit => {
            let mut module = peer.module();
            grow(&peer, scale, |functions| {
                let mut ids = Vec::with_capacity(functions.len());
                let start = Instant::now();
                for function in functions {
                    ids.push(function.define(&mut module, &mut context)?);
                    module.finalize_definitions()?;
                }
                let time = start.elapsed();
                for (function, id) in functions.iter().zip(ids) {
                    function.check(Some(module.get_finalized_function(id)))?;
                }
                Ok(time)
            })?
        }
    };
    println!("{figures}");
    Ok(())
}

/// Adds groups of functions with `add`, which returns the time of a group.
fn grow(
    peer: &Peer,
    scale: Scale,
    mut add: impl FnMut(&[Small]) -> Result<Duration, Failure>,
) -> Result<Value, Failure> {
    // The process warms up with functions that are not counted.
    let group = scale.group();
    drop(peer.functions(0, group));
    let (resident_before, mappings_before) = (resident()?, mappings()?);
    let mut times = Vec::new();
    for first in (0..scale.adds).step_by(group) {
        times.push(add(&peer.functions(first, group.min(scale.adds - first)))?.as_secs_f64() / group as f64);
    }
    Ok(json!({
        "seconds": times,
        "resident": resident()?.saturating_sub(resident_before),
        "mappings": mappings()?.saturating_sub(mappings_before),
    }))
}

/// Returns the resident memory of this process, in bytes.
pub(crate) fn resident() -> Result<usize, Failure> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).ok_or("no VmRSS")?;
    Ok(line.trim().trim_end_matches(" kB").parse::<usize>()? * 1024)
}

/// Returns the number of mappings of this process.
fn mappings() -> Result<usize, Failure> {
    Ok(std::fs::read_to_string("/proc/self/maps")?.lines().count())
}

/// The figures of a child.
struct Figures {
    /// Seconds of an add, for each group.
    seconds: Vec<f64>,
    resident: f64,
    mappings: f64,
}

fn run(engine: &str, scale: Scale) -> Result<Figures, Failure> {
    let mut command = Command::new(std::env::current_exe()?);
    let output = command.args(["--child", engine, "--adds", &scale.adds.to_string()]).output()?;
    if !output.status.success() {
        let text = String::from_utf8_lossy(&output.stderr);
        let end = text.lines().rev().take(4).collect::<Vec<_>>();
        return Err(format!("{engine}, {} adds: {}: {}", scale.adds, output.status, end.join(" / ")).into());
    }
    let value: Value = serde_json::from_slice(&output.stdout)?;
    let number = |value: &Value| value.as_f64().ok_or("no number");
    let seconds = value["seconds"].as_array().ok_or("no times")?;
    Ok(Figures {
        seconds: seconds.iter().map(number).collect::<Result<_, _>>()?,
        resident: number(&value["resident"])?,
        mappings: number(&value["mappings"])?,
    })
}

/// Compares the end of the growth with its beginning, and both engines.
pub(super) fn compare(setup: &Setup, scale: Scale, comparison: &mut Comparison) -> Result<(), Failure> {
    let rounds = setup.rounds.min(3);
    let (mut growth, mut time, mut memory, mut mappings) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    let mut theirs_growth = Vec::new();
    for _ in 0..rounds {
        let ours = match run("kiln", scale) {
            Ok(figures) => figures,
            // Not an error of the run: every other row is still worth having.
            Err(error) => {
                comparison.note(format!("many adds: not measured: {error}"));
                return Ok(());
            }
        };
        let theirs = run("cranelift-jit", scale)?;
        let ends = |figures: &Figures| match (&*figures.seconds, figures.seconds.last()) {
            // The first group warms the process up.
            ([_, first, ..], Some(last)) => last / first,
            _ => f64::NAN,
        };
        let total = |figures: &Figures| figures.seconds.iter().sum::<f64>();
        growth.push(ends(&ours));
        theirs_growth.push(ends(&theirs));
        time.push(total(&ours) / total(&theirs));
        memory.push(ours.resident / theirs.resident);
        mappings.push(ours.mappings);
        comparison.note(format!(
            "{} adds: {:.1} us an add and {:.0} MB in kiln, {:.1} us and {:.0} MB in cranelift-jit",
            scale.adds,
            total(&ours) / ours.seconds.len() as f64 * 1e6,
            ours.resident / 1e6,
            total(&theirs) / theirs.seconds.len() as f64 * 1e6,
            theirs.resident / 1e6,
        ));
    }
    let adds = scale.adds;
    comparison.values(format!("{adds} adds: last / first group, kiln"), &growth, Goal::AtMost(1.1));
    comparison.values(format!("{adds} adds: last / first group, cranelift-jit"), &theirs_growth, Goal::None);
    comparison.values(format!("{adds} adds: time of all, kiln / cranelift-jit"), &time, Goal::None);
    comparison.values(
        format!("{adds} adds: resident memory, kiln / cranelift-jit"),
        &memory,
        Goal::AtMost(0.5),
    );
    comparison.values(format!("{adds} adds: new mappings, kiln"), &mappings, Goal::AtMost(16.0));
    Ok(())
}
