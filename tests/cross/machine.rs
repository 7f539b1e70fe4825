//! The machines, and how a C program is compiled and run for each.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use kiln::ir::{ModuleSettings, Target};
use libtest_mimic::Failed;

/// An architecture and its tools.
pub(crate) struct Machine {
    /// The architecture as triples and qemu name it.
    pub(crate) name: &'static str,
    /// Debian's name of the package of its C library.
    libc: &'static str,
    /// Whether the most significant byte comes first.
    pub(crate) big_endian: bool,
    /// Settings of CPU features beyond what Kiln assumes, all known to `newer_cpu`.
    pub(crate) newer: &'static [&'static str],
    /// A CPU of qemu that has them.
    newer_cpu: &'static str,
}

pub(crate) const MACHINES: [Machine; 4] = [
    Machine {
        name: "x86_64",
        libc: "libc6-dev-amd64-cross",
        big_endian: false,
        newer: &[], // the machine that runs the test need not be new
        newer_cpu: "max",
    },
    Machine {
        name: "aarch64",
        libc: "libc6-dev-arm64-cross",
        big_endian: false,
        newer: &["has_lse", "has_fp16", "has_pauth", "has_dotprod", "has_i8mm"],
        newer_cpu: "max",
    },
    Machine {
        name: "riscv64",
        libc: "libc6-dev-riscv64-cross",
        big_endian: false,
        newer: &["has_zca", "has_zcd", "has_zba", "has_zbb", "has_zbc", "has_zbs"],
        newer_cpu: "rv64",
    },
    Machine {
        name: "s390x",
        libc: "libc6-dev-s390x-cross",
        big_endian: true,
        newer: &["has_mie3", "has_vxrs_ext2"],
        newer_cpu: "max",
    },
];

impl Machine {
    pub(crate) fn target(&self) -> Target {
        Target::parse(self.name).expect("a known architecture")
    }

    /// The target with CPU features that not every machine has.
    pub(crate) fn newer_target(&self) -> Target {
        self.newer.iter().fold(self.target(), |target, feature| target.isa_setting(feature, "true"))
    }

    fn is_host(&self) -> bool {
        self.name == std::env::consts::ARCH
    }

    pub(crate) fn compiler(&self) -> String {
        if self.is_host() { "cc".into() } else { format!("{}-linux-gnu-gcc", self.name) }
    }

    fn emulator(&self) -> String {
        format!("qemu-{}", self.name)
    }

    /// The folder of the C library of another machine.
    fn root(&self) -> PathBuf {
        format!("/usr/{}-linux-gnu", self.name).into()
    }

    /// The tool that is needed and not installed, if there is one.
    pub(crate) fn missing(&self) -> Option<String> {
        let mut missing = Vec::new();
        if self.target().isa(&ModuleSettings::default()).is_err() {
            missing.push("the feature `all-arch`".to_owned());
        }
        let mut programs = vec![self.compiler()];
        if !self.is_host() {
            programs.push(self.emulator());
            if !self.root().join("include/stdio.h").exists() {
                missing.push(self.libc.to_owned());
            }
        }
        missing.extend(programs.into_iter().filter(|program| {
            let mut command = Command::new(program);
            command.arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status().is_err()
        }));
        (!missing.is_empty()).then(|| missing.join(", "))
    }

    /// Compiles the C program in the file `source` into `folder`, with more arguments. It is kept
    /// for the next call, unless there are some.
    pub(crate) fn compile(&self, source: &Path, folder: &Path, more: &[OsString]) -> Result<PathBuf, Failed> {
        let program = folder.join("host");
        if more.is_empty() && program.exists() {
            return Ok(program);
        }
        // The image imports from the program itself, and unwinding goes through it.
        let options = ["-std=gnu11", "-Wall", "-O1", "-rdynamic", "-funwind-tables", "-o"];
        let mut command = Command::new(self.compiler());
        command.args(options).arg(&program).arg(source).args(more).args(["-ldl", "-lm"]);
        run(&mut command).map(|()| program)
    }

    /// A command that runs `program` on this machine, or on a newer one.
    pub(crate) fn command(&self, program: &Path, newer: bool) -> Command {
        if self.is_host() {
            return Command::new(program);
        }
        let mut command = Command::new(self.emulator());
        if newer {
            command.args(["-cpu", self.newer_cpu]);
        }
        command.arg("-L").arg(self.root()).arg(program);
        command
    }
}

/// Runs a command, which fails with what it prints.
pub(crate) fn run(command: &mut Command) -> Result<(), Failed> {
    let output = command.output()?;
    match output.status.success() {
        true => Ok(()),
        false => Err(String::from_utf8_lossy(&output.stderr).into_owned().into()),
    }
}
