//! `servers --bench`: a program that another machine has built, beside building it.
//!
//! Each round starts an empty server, and runs three processes with an empty local cache each: one
//! that compiles everything and knows no server, one that also sends everything, and one, the
//! second machine, that finds everything. The images must be equal, and the second machine must
//! compile nothing. The ratios are those of one round, and their medians are shown.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::Command;

use serde_json::Value;

use super::start::{Server, caches, start};
use crate::output::{Failure, Outcome, bytes};

/// The part that the second machine may take of the time of compiling.
const FOUND: f64 = 0.1;
/// The part that the first machine may take with sending, of its time without.
const SENT: f64 = 1.03;

/// The numbers of a build.
struct Build {
    image: Vec<u8>,
    stats: Value,
}

impl Build {
    fn number(&self, path: &str) -> f64 {
        self.stats.pointer(path).and_then(Value::as_f64).unwrap_or(f64::NAN)
    }
}

/// Builds in a process of its own, with an empty local cache.
fn build(program: &Path, folder: &Path, server: &[(&str, &str)], args: &[&str]) -> Result<Build, Failure> {
    let work = tempfile::tempdir_in(folder).map_err(Failure::of)?;
    let path = |name: &str| work.path().join(name);
    let mut command = Command::new(std::env::current_exe().map_err(Failure::of)?);
    command.arg("build").arg(program).arg("-o").arg(path("image")).arg("--cache").arg(path("cache"));
    command.arg("--stats").arg(path("stats.json")).args(["--program", "bench"]);
    command.env_remove("KILN_REMOTE").envs(server.iter().copied()).args(args);
    let done = command.output().map_err(Failure::of)?;
    if !done.status.success() || !done.stderr.is_empty() {
        let errors = String::from_utf8_lossy(&done.stderr);
        return Err(Failure::new(format!("a build with {args:?} failed, or warned:\n{errors}")));
    }
    let stats = std::fs::read_to_string(path("stats.json")).map_err(Failure::of)?;
    let stats = serde_json::from_str(&stats).map_err(Failure::of)?;
    Ok(Build { image: std::fs::read(path("image")).map_err(Failure::of)?, stats })
}

/// Environment variables, with their values.
type Variables = Vec<(&'static str, String)>;

/// Returns the address of a store on a server, and the variables that it needs.
fn store(server: &Server, url: &str) -> Result<(String, Variables), Failure> {
    let Some(address) = url.strip_prefix("http://") else { return Ok((url.into(), Vec::new())) };
    // The S3 server makes a bucket for anyone who asks.
    let cannot = |error| Failure::while_doing(format!("cannot make a bucket on {}", server.name), error);
    let request =
        format!("PUT /kiln HTTP/1.1\r\nHost: {address}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
    let mut stream = TcpStream::connect(address).map_err(cannot)?;
    stream.write_all(request.as_bytes()).map_err(cannot)?;
    stream.read_to_end(&mut Vec::new()).map_err(cannot)?;
    let variables = vec![
        ("AWS_ENDPOINT_URL", url.to_owned()),
        ("AWS_ACCESS_KEY_ID", "bench".into()),
        ("AWS_SECRET_ACCESS_KEY", "bench-secret".into()),
    ];
    Ok(("s3://kiln/bench".into(), variables))
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

/// Measures one server.
fn measure(server: &Server, program: &Path, rounds: u32) -> Result<String, Failure> {
    let (mut found, mut sent, mut last) = (Vec::new(), Vec::new(), None);
    for _ in 0..rounds {
        let folder = tempfile::tempdir().map_err(Failure::of)?;
        let (running, url) = start(server, folder.path())?;
        let (url, variables) = store(server, &url)?;
        let variables: Vec<(&str, &str)> = variables.iter().map(|(name, value)| (*name, &**value)).collect();
        let alone = build(program, folder.path(), &[], &[])?;
        let args = ["--remote", &url, "--remote-wait", "60"];
        let first = build(program, folder.path(), &variables, &args)?;
        let second = build(program, folder.path(), &variables, &["--remote", &url, "--remote-read-only"])?;
        drop(running);
        let modules = second.number("/modules");
        let complete = first.image == alone.image
            && second.image == alone.image
            && second.number("/compiled_functions") == 0.0
            && second.number("/cache/places/remote/modules") == modules
            && first.number("/cache/remote/sent") == modules;
        if !complete {
            return Err(Failure::new(format!(
                "{}: the second machine did not find all: {}",
                server.name, second.stats
            )));
        }
        let seconds = |build: &Build| build.number("/seconds/total");
        found.push(seconds(&second) / seconds(&alone));
        sent.push(seconds(&first) / seconds(&alone));
        last = Some((alone, first, second));
    }
    let Some((alone, first, second)) = last else { return Ok(String::new()) };
    let (found, sent) = (median(found), median(sent));
    let word = |met: bool| if met { "met" } else { "NOT met" };
    Ok(format!(
        "{}: second machine / compiling {found:.3} (at most {FOUND}: {}), sending / not sending {sent:.3} (at \
         most {SENT}: {}); last round: {:.2} s alone, {:.2} s and {:.2} s of waiting at the end with sending, \
         {:.3} s for {} modules with {} that were found, and 0 compiled",
        server.name,
        word(found <= FOUND),
        word(sent <= SENT),
        alone.number("/seconds/total"),
        first.number("/seconds/total"),
        first.number("/cache/remote/waited_seconds"),
        second.number("/seconds/total"),
        second.number("/modules"),
        bytes(second.number("/cache/remote/received_bytes") as u64),
    ))
}

/// Measures every cache that is installed.
pub(super) fn main(program: &Path, rounds: u32) -> Outcome {
    for server in caches() {
        match measure(server, program, rounds) {
            Ok(line) => println!("{line}"),
            Err(Failure::Message(text)) => eprintln!("warning: {} is not measured: {text}", server.name),
            Err(failure) => return Err(failure),
        }
    }
    Ok(())
}
