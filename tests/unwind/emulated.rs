//! Runs a program instruction by instruction in an emulator, qemu-user, through its interface for
//! debuggers (gdb's remote serial protocol, on a socket that is a file).

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use kiln::ir::{ModuleSettings, Target};

use crate::native;
use crate::programs::Program;
use crate::rows::{AARCH64, Abi, RISCV64, Registers, Rows, S390X, X86_64, eh_frame};
use crate::truth::{Checker, State, Where};

/// An architecture and its tools.
pub(crate) struct Machine {
    /// The architecture as triples and qemu name it.
    pub(crate) name: &'static str,
    pub(crate) abi: &'static Abi,
    /// The DWARF numbers of the first registers that the emulator reports, in its order; `PC` is
    /// the program counter, `NONE` is of no interest.
    registers: &'static [u16],
    /// The emulator's number of a floating-point register, by DWARF number.
    float: fn(u16) -> u16,
    /// Settings that change prologues and epilogues.
    pub(crate) newer: &'static [&'static str],
}

const PC: u16 = 127;
const NONE: u16 = 126;

/// Counts up from 0.
const fn count<const LEN: usize>() -> [u16; LEN] {
    let mut numbers = [0; LEN];
    let mut at = 0;
    while at < LEN {
        numbers[at] = at as u16;
        at += 1;
    }
    numbers
}

/// Registers 0 to 31, where the last one of aarch64 is its stack pointer, and the program counter.
const THIRTY_TWO: [u16; 33] = {
    let mut numbers = count::<33>();
    numbers[32] = PC;
    numbers
};
const OF_S390X: [u16; 18] = [NONE, PC, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15];
const OF_X86_64: [u16; 17] = [0, 3, 2, 1, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, PC];

pub(crate) const MACHINES: [Machine; 4] = [
    Machine {
        name: "x86_64",
        abi: &X86_64,
        registers: &OF_X86_64,
        float: |register| register,
        newer: &["has_avx"],
    },
    Machine {
        name: "aarch64",
        abi: &AARCH64,
        registers: &THIRTY_TWO,
        float: |register| register - 64 + 34,
        newer: &["has_pauth", "sign_return_address", "sign_return_address_all", "use_bti"],
    },
    Machine {
        name: "riscv64",
        abi: &RISCV64,
        registers: &THIRTY_TWO,
        float: |register| register - 32 + 33,
        newer: &["has_zca", "has_zcd"],
    },
    Machine {
        name: "s390x",
        abi: &S390X,
        registers: &OF_S390X,
        // DWARF has the even ones of f8 to f15 first.
        float: |register| 35 + 8 + if register < 28 { 2 * (register - 24) } else { 2 * (register - 28) + 1 },
        newer: &["has_mie3"],
    },
];

impl Machine {
    pub(crate) fn target(&self) -> Target {
        Target::parse(self.name).expect("a known architecture")
    }

    fn is_host(&self) -> bool {
        self.name == std::env::consts::ARCH
    }

    fn compiler(&self) -> String {
        if self.is_host() { "cc".into() } else { format!("{}-linux-gnu-gcc", self.name) }
    }

    /// The tool that is needed and not installed, if there is one.
    pub(crate) fn missing(&self) -> Option<String> {
        let mut missing = Vec::new();
        if self.target().isa(&ModuleSettings::default()).is_err() {
            missing.push("the feature `all-arch`".to_owned());
        }
        let programs = [self.compiler(), format!("qemu-{}", self.name)];
        missing.extend(programs.into_iter().filter(|program| {
            let mut command = Command::new(program);
            command.arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status().is_err()
        }));
        (!missing.is_empty()).then(|| missing.join(", "))
    }

    /// Compiles `host.c` into `folder`.
    pub(crate) fn host(&self, folder: &Path) -> Result<PathBuf, String> {
        let program = folder.join(format!("host-{}", self.name));
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/unwind/host.c");
        let mut command = Command::new(self.compiler());
        command.args(["-std=gnu11", "-Wall", "-O1", "-rdynamic", "-o"]);
        let output =
            command.arg(&program).arg(source).arg("-ldl").output().map_err(|error| error.to_string())?;
        match output.status.success() {
            true => Ok(program),
            false => Err(String::from_utf8_lossy(&output.stderr).into_owned()),
        }
    }

    /// Runs all calls of `program`, and compares at every instruction. `limit` is the number of
    /// instructions after which it ends early.
    pub(crate) fn check(&self, host: &Path, program: &Program, limit: usize) -> Result<Checker, String> {
        let text = |error: std::io::Error| error.to_string();
        let folder = tempfile::tempdir().map_err(text)?;
        let (image, script) = (folder.path().join("program.so"), folder.path().join("script"));
        kiln::image::save(&image, &program.image).map_err(|error| error.to_string())?;
        std::fs::write(&script, self::script(program)).map_err(text)?;
        let socket = folder.path().join("socket");
        let mut command = Command::new(format!("qemu-{}", self.name));
        // On riscv64, Cranelift saves vector registers in functions of `preserve_all`, always.
        command.args(["-cpu", if self.name == "riscv64" { "rv64,v=true" } else { "max" }]);
        command.arg("-g").arg(&socket);
        if !self.is_host() {
            command.arg("-L").arg(format!("/usr/{}-linux-gnu", self.name));
        }
        let child = command.arg(host).args([&image, &script]).stdout(Stdio::piped()).spawn().map_err(text)?;
        let mut child = Process(child);
        let stream = connect(&socket)?;
        let mut debugger = Debugger { machine: self, stream: BufReader::new(stream), memory: Vec::new() };
        // The emulator tells floating-point registers only to those who know their description.
        debugger.command("qXfer:features:read:target.xml:0,ffb")?;
        debugger.resume()?;
        let mut line = String::new();
        BufReader::new(child.0.stdout.take().expect("a pipe")).read_line(&mut line).map_err(text)?;
        let bias = u64::from_str_radix(line.trim(), 16).map_err(|_| format!("the host says: {line}"))?;

        let (address, section) = eh_frame(&program.image)?;
        let rows = Rows::new(section, address, bias, self.abi.endian)?;
        let (range, functions) = native::functions(&program.image, bias)?;
        let thunks = program.calls.iter().map(|call| native::address(&functions, &call.thunk));
        let thunks = thunks.collect::<Result<std::collections::BTreeSet<_>, _>>()?;
        let mut checker = Checker::new(self.abi, bias, Some(rows), range, functions, &program.tails);
        for thunk in &thunks {
            debugger.command(&format!("Z0,{thunk:x},1"))?;
        }
        let mut left = limit;
        while left > 0 && debugger.resume()? {
            // A thunk begins here.
            while left > 0 {
                left -= 1;
                let (pc, registers) = debugger.registers()?;
                match checker.step(pc, &registers, &mut debugger) {
                    Where::Compiled => {
                        debugger.step().map_err(|error| checker.place(pc) + ": " + &error)?;
                    }
                    Where::Host(back) => {
                        debugger.command(&format!("Z0,{back:x},1"))?;
                        debugger.resume()?;
                        debugger.command(&format!("z0,{back:x},1"))?;
                    }
                    Where::Outside => break,
                }
            }
        }
        Ok(checker)
    }
}

/// The calls of a program as `host.c` reads them.
fn script(program: &Program) -> String {
    use std::fmt::Write as _;
    let mut text = format!("{}\n", program.globals.len());
    for object in &program.globals {
        let _ = write!(text, "{} ", object.len());
        object.iter().for_each(|byte| text += &format!("{byte:02x}"));
        text.push('\n');
    }
    for call in &program.calls {
        let _ = write!(text, "{} ", call.thunk);
        call.function.bytes().for_each(|byte| text += &format!("{byte:02x}"));
        text.push(' ');
        call.cells.as_flattened().iter().for_each(|byte| text += &format!("{byte:02x}"));
        text.push('\n');
    }
    text
}

/// A process that ends when this is dropped.
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn connect(socket: &Path) -> Result<UnixStream, String> {
    for _ in 0..1000 {
        if let Ok(stream) = UnixStream::connect(socket) {
            stream.set_read_timeout(Some(Duration::from_secs(60))).map_err(|error| error.to_string())?;
            return Ok(stream);
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    Err("the emulator does not listen".into())
}

struct Debugger<'a> {
    machine: &'a Machine,
    stream: BufReader<UnixStream>,
    /// Memory that was read since the last instruction: address and text.
    memory: Vec<(u64, String)>,
}

/// Memory is read in pieces of this size, in bytes.
const PIECE: u64 = 256;

impl Debugger<'_> {
    fn send(&mut self, packet: &str) -> Result<(), String> {
        let sum = packet.bytes().fold(0u8, u8::wrapping_add);
        // The plus acknowledges the last answer.
        let packet = format!("+${packet}#{sum:02x}");
        self.stream.get_mut().write_all(packet.as_bytes()).map_err(|error| error.to_string())
    }

    fn receive(&mut self) -> Result<String, String> {
        let text = |error: std::io::Error| format!("no answer: {error}");
        let mut packet = Vec::new();
        self.stream.read_until(b'$', &mut packet).map_err(text)?;
        packet.clear();
        self.stream.read_until(b'#', &mut packet).map_err(text)?;
        packet.pop();
        self.stream.read_exact(&mut [0; 2]).map_err(text)?;
        String::from_utf8(packet).map_err(|error| error.to_string())
    }

    fn command(&mut self, packet: &str) -> Result<String, String> {
        self.send(packet)?;
        self.receive()
    }

    /// Runs to the next breakpoint. Returns whether the process still exists.
    fn resume(&mut self) -> Result<bool, String> {
        self.memory.clear();
        match self.command("c").unwrap_or_default() {
            stop if stop.starts_with("T05") || stop.starts_with("S05") => Ok(true),
            // The emulator may be gone before its last answer is read. It is not waited for: some
            // of its threads outlive it while the socket is open.
            stop if stop == "W00" || stop.is_empty() => Ok(false),
            stop => Err(format!("the host stopped: {stop}")),
        }
    }

    fn step(&mut self) -> Result<(), String> {
        self.memory.clear();
        match self.command("s")? {
            stop if stop.starts_with("T05") || stop.starts_with("S05") => Ok(()),
            stop => Err(format!("compiled code stopped: {stop}")),
        }
    }

    fn number(&self, hex: &str) -> Result<u64, String> {
        let number = u64::from_str_radix(hex, 16).map_err(|_| format!("not a number: {hex}"))?;
        Ok(if self.machine.abi.endian == gimli::RunTimeEndian::Little { number.swap_bytes() } else { number })
    }

    fn registers(&mut self) -> Result<(u64, Registers), String> {
        let answer = self.command("g")?;
        let (mut registers, mut pc) = ([None; 128], 0);
        for (index, &register) in self.machine.registers.iter().enumerate() {
            let hex = answer
                .get(16 * index..16 * index + 16)
                .ok_or_else(|| format!("too few registers: {answer}"))?;
            let value = self.number(hex)?;
            match register {
                PC => pc = value,
                NONE => {}
                register => registers[usize::from(register)] = Some(value),
            }
        }
        Ok((pc, registers))
    }
}

impl State for Debugger<'_> {
    fn read(&mut self, address: u64) -> Result<u64, String> {
        let piece = address & !(PIECE - 1);
        let offset = 2 * (address - piece) as usize;
        if !self.memory.iter().any(|(start, _)| *start == piece) {
            let text = self.command(&format!("m{piece:x},{PIECE:x}"))?;
            self.memory.push((piece, text));
        }
        let known = self.memory.iter().find(|(start, _)| *start == piece);
        match known.and_then(|(_, text)| text.get(offset..offset + 16)) {
            Some(hex) => self.number(hex),
            None => {
                let hex = self.command(&format!("m{address:x},8"))?;
                self.number(&hex)
            }
        }
    }

    fn float(&mut self, register: u16) -> Result<u64, String> {
        let answer = self.command(&format!("p{:x}", (self.machine.float)(register)))?;
        self.number(answer.get(..16).ok_or("no such register")?)
    }
}
