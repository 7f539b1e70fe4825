//! Scripted sessions of gdb with a C program that loads an image.

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};

use kiln::image::{DebugInfo, ImageFiles, ImageOptions, save};
use kiln::ir::{Source, Target, parse};
use libtest_mimic::Failed;

use crate::image;
use crate::memory;
use crate::program::{PROGRAM, compiled, linked, program, with_debug};
use crate::tools::run;

/// The commands of a session, from a breakpoint in a file to the end of the program.
const SESSION: &[&str] = &[
    "set breakpoint pending on",
    "break program.clif:14",
    "run ./program.so",
    "echo AT-LINE\\n",
    "backtrace",
    "info locals",
    "echo STEPPED\\n",
    "step",
    "info locals",
    "break square",
    "break host",
    "continue",
    "echo IN-HOST\\n",
    "backtrace",
    "up",
    "info locals",
    "delete",
    "continue",
];

/// Makes the C program in `folder`.
pub(crate) fn host(folder: &Path) -> Result<(), Failed> {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/debug/host.c");
    run("cc", &["-g", "-O0", "-rdynamic", "-o", "host", &source.to_string_lossy(), "-ldl"], folder)?;
    Ok(())
}

/// Runs gdb with `commands`, and returns what it prints.
fn session(folder: &Path, commands: &[&str]) -> Result<String, Failed> {
    session_of("./host", folder, commands)
}

fn session_of(program: &str, folder: &Path, commands: &[&str]) -> Result<String, Failed> {
    let mut arguments = vec!["-nx", "-batch", "-ex", "set pagination off"];
    commands.iter().for_each(|command| arguments.extend(["-ex", command]));
    arguments.push(program);
    run("gdb", &arguments, folder)
}

/// Fails unless `text` has all `parts`, in order.
#[track_caller]
pub(crate) fn contains_in_order(text: &str, parts: &[&str]) {
    let mut rest = text;
    for part in parts {
        let Some(at) = rest.find(part) else { panic!("no `{part}` in\n{rest}\nof\n{text}") };
        rest = &rest[at + part.len()..];
    }
}

const EXPECTED: &[&str] = &[
    "Breakpoint 1, work (v0=3, v1=2.5) at program.clif:14",
    "14\t    v3 = iadd v2, v0",
    "AT-LINE",
    "#0  work (v0=3, v1=2.5) at program.clif:14",
    "#1 ",
    "in main (",
    "host.c:16",
    "v2 = 9",
    "v4 = <optimized out>",
    "STEPPED",
    "16\t    v4 = call fn1(v3)",
    "v3 = 12",
    "program.clif, line 4.",
    "Breakpoint 3, host (number=12)",
    "IN-HOST",
    "#0  host (number=12)",
    "in work (v0=<optimized out>, v1=2.5) at program.clif:16",
    "in main (",
    "16\t    v4 = call fn1(v3)",
    "v2 = 9",
    // Its register is not preserved by the callee.
    "v3 = <optimized out>",
    "result 24",
    "exited normally",
];

pub(crate) fn dlopened() -> Result<(), Failed> {
    let folder = tempfile::tempdir()?;
    host(folder.path())?;
    std::fs::write(folder.path().join("program.clif"), PROGRAM)?;
    let image = linked(&program(folder.path())?, &with_debug(DebugInfo::InImage))?.image;
    save(folder.path().join("program.so"), &image)?;
    contains_in_order(&session(folder.path(), SESSION)?, EXPECTED);
    Ok(())
}

/// Saves the file with the debug information where gdb looks for its build id. Returns the command
/// that says where that is.
fn by_build_id(folder: &Path, files: &ImageFiles) -> Result<String, Failed> {
    let file = object::File::parse(&*files.image)?;
    let id = object::Object::build_id(&file)?.ok_or("no build id")?;
    let hex: String = id.iter().map(|byte| format!("{byte:02x}")).collect();
    let by_id = folder.join("debug/.build-id").join(&hex[..2]);
    std::fs::create_dir_all(&by_id)?;
    save(by_id.join(format!("{}.debug", &hex[2..])), files.debug.as_ref().ok_or("no file")?)?;
    Ok(format!("set debug-file-directory {}", folder.join("debug").display()))
}

/// gdb finds the file beside the image by its name, and elsewhere by the build id.
pub(crate) fn separate() -> Result<(), Failed> {
    let folder = tempfile::tempdir()?;
    let folder = folder.path();
    host(folder)?;
    std::fs::write(folder.join("program.clif"), PROGRAM)?;
    let files = linked(&program(folder)?, &with_debug(DebugInfo::Separate("program.debug".into())))?;
    let debug = files.debug.as_ref().ok_or("no file")?;
    save(folder.join("program.so"), &files.image)?;
    let unseen = |text: String| assert!(text.contains("result 24") && !text.contains("work (v0"), "{text}");
    unseen(session(folder, &SESSION[..3])?);

    save(folder.join("program.debug"), debug)?;
    contains_in_order(&session(folder, SESSION)?, EXPECTED);
    std::fs::remove_file(folder.join("program.debug"))?;

    let search = by_build_id(folder, &files)?;
    let commands: Vec<_> = std::iter::once(&*search).chain(SESSION.iter().copied()).collect();
    contains_in_order(&session(folder, &commands)?, EXPECTED);

    // A file that belongs to another image is not used.
    let other =
        linked(&program(Path::new("/other"))?, &with_debug(DebugInfo::Separate("program.debug".into())))?;
    std::fs::remove_dir_all(folder.join("debug"))?;
    save(folder.join("program.debug"), &other.debug.ok_or("no file")?)?;
    unseen(session(folder, &SESSION[..3])?);
    Ok(())
}

/// The lines that gdb shows of a session in memory.
const IN_MEMORY: &[&str] = &[
    "work (v0=3, v1=2.5) at program.clif:14",
    "14\t    v3 = iadd v2, v0",
    "#0  work (v0=3, v1=2.5) at program.clif:14",
    "in debug::memory::call (",
    "in debug::memory::run (",
    "v2 = 9",
    "16\t    v4 = call fn1(v3)",
    "v3 = 12",
    "IN-HOST",
    "#0  debug::memory::host (number=12)",
    "in work (v0=<optimized out>, v1=2.5) at program.clif:16",
    "in debug::memory::call (",
    "v2 = 9",
    "v3 = <optimized out>",
    "result 24",
    "exited normally",
];

/// Runs one of the programs of this test in gdb, from a breakpoint to its end.
fn in_own_program(program: &str, folder: &Path, before: &[&str], break_at: &str) -> Result<String, Failed> {
    let start = format!("run {program} {}", folder.display());
    let own = std::env::current_exe()?;
    let commands = [
        "set breakpoint pending on",
        break_at,
        &start,
        "backtrace",
        "info locals",
        "step",
        "info locals",
        "break debug::memory::host",
        "continue",
        "echo IN-HOST\\n",
        "backtrace",
        "up",
        "info locals",
        "delete",
        "continue",
    ];
    let commands: Vec<_> = before.iter().copied().chain(commands).collect();
    session_of(&own.to_string_lossy(), folder, &commands)
}

fn in_memory(session: &str, break_at: &str) -> Result<String, Failed> {
    let folder = tempfile::tempdir()?;
    std::fs::write(folder.path().join("program.clif"), PROGRAM)?;
    in_own_program(session, folder.path(), &[], break_at)
}

/// Code in memory is shown like that of an image.
pub(crate) fn memory() -> Result<(), Failed> {
    contains_in_order(&in_memory(memory::SESSIONS[0], "break program.clif:14")?, IN_MEMORY);
    Ok(())
}

/// In memory that is mapped twice, breakpoints are those of the processor.
pub(crate) fn memory_that_is_mapped_twice() -> Result<(), Failed> {
    contains_in_order(&in_memory(memory::SESSIONS[1], "hbreak program.clif:14")?, IN_MEMORY);
    Ok(())
}

/// An image that our own loader maps is shown like code in memory, however it was opened.
pub(crate) fn loaded_image() -> Result<(), Failed> {
    let folder = tempfile::tempdir()?;
    let folder = folder.path();
    std::fs::write(folder.join("program.clif"), PROGRAM)?;
    let artifacts = program(folder)?;
    for strip in [false, true] {
        let options = ImageOptions { strip, ..with_debug(DebugInfo::InImage) };
        save(folder.join("program.so"), &linked(&artifacts, &options)?.image)?;
        for opened in &image::IMAGES[..3] {
            let text = in_own_program(opened, folder, &[], "break program.clif:14")?;
            contains_in_order(&text, &in_image());
        }
    }
    Ok(())
}

/// The lines that gdb shows of a loaded image.
fn in_image() -> Vec<&'static str> {
    let other = |part: &&'static str| match *part {
        "in debug::memory::run (" => "in debug::image::run (",
        part => part,
    };
    IN_MEMORY.iter().map(other).collect()
}

/// Without debug information, gdb knows the functions by name, and unwinds.
pub(crate) fn loaded_image_without_lines() -> Result<(), Failed> {
    let folder = tempfile::tempdir()?;
    let folder = folder.path();
    let options = ImageOptions { strip: true, ..ImageOptions::default() };
    save(folder.join("program.so"), &linked(&program(folder)?, &options)?.image)?;
    let text = in_own_program(image::IMAGES[0], folder, &[], "break square")?;
    let shown = [
        "in square (",
        "in work (",
        "in debug::memory::call (",
        "IN-HOST",
        "#0  debug::memory::host (number=12)",
        "in work (",
        "in debug::memory::call (",
        "in debug::image::run (",
        "result 24",
    ];
    contains_in_order(&text, &shown);
    Ok(())
}

/// gdb finds the file with the debug information by the build id, and moves it to the image.
pub(crate) fn separate_file_of_a_loaded_image() -> Result<(), Failed> {
    let folder = tempfile::tempdir()?;
    let folder = folder.path();
    std::fs::write(folder.join("program.clif"), PROGRAM)?;
    let files = linked(&program(folder)?, &with_debug(DebugInfo::Separate("program.debug".into())))?;
    save(folder.join("program.so"), &files.image)?;
    let search = by_build_id(folder, &files)?;
    let text = in_own_program(image::IMAGES[0], folder, &[&search], "break program.clif:14")?;
    contains_in_order(&text, &in_image());
    Ok(())
}

/// A debugger that attaches later is told when the program asks for it, and takes the lines from
/// the image's file.
pub(crate) fn one_that_attaches_to_a_loaded_image() -> Result<(), Failed> {
    let folder = tempfile::tempdir()?;
    let folder = folder.path();
    std::fs::write(folder.join("program.clif"), PROGRAM)?;
    let image = linked(&program(folder)?, &with_debug(DebugInfo::InImage))?.image;
    save(folder.join("program.so"), &image)?;
    let mut running = Command::new(std::env::current_exe()?)
        .arg(image::IMAGES[3])
        .arg(folder)
        .stdout(Stdio::piped())
        .spawn()?;
    let output = running.stdout.take().ok_or("no output")?;
    let mut lines = BufReader::new(output).lines();
    let process = lines.next().ok_or("the program said nothing")??;
    // Nobody reads the rest, and the program must not wait for that.
    let reader = std::thread::spawn(move || lines.map_while(Result::ok).count());
    let commands = ["break program.clif:14", "continue", "backtrace", "info locals", "kill"];
    let mut arguments = vec!["-nx", "-batch", "-ex", "set breakpoint pending on"];
    commands.iter().for_each(|command| arguments.extend(["-ex", command]));
    arguments.extend(["-p", &process]);
    let text = run("gdb", &arguments, folder);
    running.kill()?;
    running.wait()?;
    reader.join().map_err(|_| "the reader failed")?;
    let shown = ["work (v0=3, v1=2.5) at program.clif:14", "in debug::memory::call (", "v2 = 9"];
    contains_in_order(&text?, &shown);
    Ok(())
}

/// A client's own language: its file, its lines, its variables.
pub(crate) fn lines_of_a_client() -> Result<(), Failed> {
    let folder = tempfile::tempdir()?;
    let folder = folder.path();
    host(folder)?;
    let directory = folder.display();
    let text = format!(
        "debug %work {{ base @1, labels, v0 label 1 @0, v2 label 2 @0, v4 label 2 @0,
            variable 1 \"number\" signed 8, variable 2 \"total\" signed 8 }}
        function %work(i64, f64) -> i64 system_v {{
            fn0 = %host(i64) -> i64 system_v
        block0(v0: i64, v1: f64):
            @2 v2 = imul v0, v0
            @3 v3 = call fn0(v2)
            @4 v4 = iadd v3, v0
            @5 return v4
        }}
        lines \"work.lang\" directory=\"{directory}\" language=2 {{ @1 1, @2 2:4, @3 3:4, @4 4:4, @5 5:4 }}"
    );
    std::fs::write(
        folder.join("work.lang"),
        "def work(number)\n   total = number * number\n   total = host(total)\n   total += number\nend\n",
    )?;
    let target = Target::host();
    let module = parse(Source::new("work", text).into(), &target).map_err(|faults| faults[0].to_string())?;
    let image = linked(&compiled(&[module], &target)?, &with_debug(DebugInfo::InImage))?.image;
    save(folder.join("program.so"), &image)?;
    let commands = [
        "set breakpoint pending on",
        "break work.lang:4",
        "run ./program.so",
        "backtrace",
        "print number + 1",
        "step",
        "print total",
        "info source",
        "continue",
    ];
    contains_in_order(
        &session(folder, &commands)?,
        &[
            "work (number=3) at work.lang:4",
            "4\t   total += number",
            "#1 ",
            "in main (",
            "$1 = 4",
            "5\tend",
            "$2 = 13",
            "Source language is c",
            "result 13",
        ],
    );
    Ok(())
}
