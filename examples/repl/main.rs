//! A REPL that stays in one session: each line is a module of its own, functions can be defined
//! again and removed while others call them, and the program goes on from an image in a new
//! process.
//!
//! ```text
//! cargo run --release --example repl
//! > fn square(x) = x * x
//! > fn norm(x, y) = square(x) + square(y)
//! > norm(3, 4)
//! 25
//! > fn square(x) = x                  define it again, for `norm` too
//! > :list                             functions, with the sizes of their code
//! > :remove square                    refused: `norm` uses it
//! > :remove! square                   removes `norm` too
//! > :save program.so                  writes an image
//! cargo run --release --example repl -- --image program.so
//! ```
//!
//! `language` parses lines, `lower` makes modules of them, and this file has everything about
//! sessions.
//!
//! A session that goes on from an image saves a layer: what was defined since. The next process
//! names the layer alone, and finds the image in its folder. Code of an image is never changed and
//! cannot be removed; if a function of an image is defined again, its slot leads to the new code,
//! in this session and in whoever loads its layer.

mod language;
mod lower;

use std::error::Error;
use std::io::{BufRead, IsTerminal, Write as _};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use kiln::Session;
use kiln::globals::{Bindings, Signature};
use kiln::image::{Loaded, OpenOptions};
use kiln::ir::Target;

use self::language::{Expr, Function, Line};
use self::lower::{DEPTH_KEY, Export, lower};

/// The number of calls that may be made inside each other, and the stack that they need: a line has
/// 500 operands at most, so a call takes less than 10 kB.
const MAX_DEPTH: i64 = 10_000;
const STACK: usize = 128 << 20;

/// The name of an expression's function, which no line can refer to.
const EXPRESSION: &str = "(expression)";

type Result<T> = std::result::Result<T, Box<dyn Error>>;

pub(crate) fn main() -> std::process::ExitCode {
    let thread = std::thread::Builder::new()
        .stack_size(STACK)
        .spawn(|| run().map_err(|error| eprintln!("error: {}", chain(&*error))).is_ok());
    match thread.map(std::thread::JoinHandle::join) {
        Ok(Ok(true)) => std::process::ExitCode::SUCCESS,
        _ => std::process::ExitCode::FAILURE,
    }
}

fn run() -> Result<()> {
    let mut images = Vec::new();
    let mut args = std::env::args().skip(1);
    while let Some(flag) = args.next() {
        match (&*flag, args.next()) {
            ("--image", Some(path)) => images.push(path),
            _ => return Err("usage: repl [--image FILE]...".into()),
        }
    }
    let mut repl = Repl::new(&images)?;
    let is_terminal = std::io::stdin().is_terminal();
    let (mut input, mut output) = (std::io::stdin().lock(), std::io::stdout().lock());
    let mut line = Vec::new();
    loop {
        if is_terminal {
            write!(output, "> ")?;
            output.flush()?;
        }
        line.clear();
        if input.read_until(b'\n', &mut line)? == 0 {
            return Ok(());
        }
        match repl.execute(String::from_utf8_lossy(&line).trim()) {
            Ok(text) => write!(output, "{text}")?,
            Err(error) => writeln!(output, "error: {}", chain(&*error))?,
        }
    }
}

/// Returns an error's message with those of its sources.
fn chain(error: &dyn Error) -> String {
    let (mut text, mut source) = (error.to_string(), error.source());
    while let Some(error) = source {
        text += &format!(": {error}");
        source = error.source();
    }
    text
}

struct Repl {
    session: Session,
    /// The object with the key [`DEPTH_KEY`], which code writes.
    depth: Box<AtomicI64>,
}

impl Repl {
    fn new(paths: &[String]) -> Result<Self> {
        let depth = Box::new(AtomicI64::new(MAX_DEPTH));
        let mut bindings = Bindings::new();
        bindings.bind(DEPTH_KEY, depth.as_ptr() as usize);
        let mut images: Vec<Arc<Loaded>> = Vec::new();
        for path in paths {
            let options = OpenOptions { loaded: images.clone(), ..OpenOptions::default() };
            images.push(Loaded::open(path, &options, &bindings)?);
        }
        let session = Session::on(&images, Target::host())?;
        session.bind_global(DEPTH_KEY, depth.as_ptr() as usize)?;
        // Names mean functions of the language, and nothing of this process.
        session.set_resolver(Arc::new(bindings));
        Ok(Self { session, depth })
    }

    /// Executes a line, and returns what there is to print.
    fn execute(&mut self, line: &str) -> Result<String> {
        let Some(command) = line.strip_prefix(':') else {
            return match line {
                "" => Ok(String::new()),
                line => match language::parse(line)? {
                    Line::Define(function) => self.define(&function).map(|()| String::new()),
                    Line::Evaluate(expr) => self.evaluate(expr).map(|value| format!("{value}\n")),
                },
            };
        };
        let (command, argument) = command.split_once(' ').unwrap_or((command, ""));
        match (command, argument.trim()) {
            ("list", "") => self.list(),
            ("remove", name) if !name.is_empty() => self.remove(name, false),
            ("remove!", name) if !name.is_empty() => self.remove(name, true),
            ("save", path) if !path.is_empty() => {
                self.session.save_image(Path::new(path))?;
                Ok(String::new())
            }
            _ => Err("commands are `:list`, `:remove NAME`, `:remove! NAME` and `:save FILE`".into()),
        }
    }

    /// Returns the number of parameters of a function. All are 64-bit integers.
    fn arity(&self, name: &str) -> Option<usize> {
        let signature: Signature = self.session.function(name)?.signature().parse().ok()?;
        Some(signature.params.len())
    }

    /// Defines a function, or defines it again for all callers, those in images too.
    fn define(&mut self, function: &Function) -> Result<()> {
        let name = &*function.name;
        if let Some(arity) = self.arity(name).filter(|&arity| arity != function.params.len()) {
            return Err(format!("`{name}` takes {arity} arguments: remove it first").into());
        }
        let export = Export { symbol: name, replaceable: true };
        let module = lower(function, &export, self.session.target(), &|name| self.arity(name))?;
        // This also adds what is new. Code that is replaced is freed.
        self.session.replace(&[module])?;
        Ok(())
    }

    /// Compiles an expression as a function, calls it and removes it.
    fn evaluate(&self, body: Expr) -> Result<i64> {
        let function = Function { name: EXPRESSION.to_owned(), params: Vec::new(), body };
        let export = Export { symbol: EXPRESSION, replaceable: false };
        let module = lower(&function, &export, self.session.target(), &|name| self.arity(name))?;
        let unit = self.session.add(&[module])?;
        self.depth.store(MAX_DEPTH, Ordering::Relaxed);
        // One thread alone needs no guard. With more, it keeps what others remove or replace.
        let guard = self.session.guard();
        let function = self.session.function(EXPRESSION).ok_or("the expression is not there")?;
        // SAFETY: the type is compared, code of the language accesses only `depth`, and the guard
        // keeps everything that it calls.
        let value = unsafe { function.typed::<extern "C" fn() -> i64>() }?();
        drop(guard);
        self.session.remove(&[unit])?;
        match self.depth.load(Ordering::Relaxed) {
            MAX_DEPTH => Ok(value),
            _ => Err(format!("more than {MAX_DEPTH} calls inside each other").into()),
        }
    }

    /// Removes a function, with those that use it if `users` is set. If it is in an image, too,
    /// that one is in force again.
    fn remove(&mut self, name: &str, users: bool) -> Result<String> {
        let unit = match self.session.jit().unit_of(name) {
            Some(unit) => unit,
            None if self.arity(name).is_some() => return Err(format!("`{name}` is in an image").into()),
            None => return Err(format!("no function `{name}`").into()),
        };
        let removed = if users {
            self.session.remove_with_users(&[unit])
        } else {
            self.session.remove(&[unit]).map_err(|error| {
                let users = error.uses.iter().map(|user| format!("`{}` uses it", user.user));
                users.collect::<Vec<_>>().join(", ")
            })?;
            1
        };
        Ok(format!("{removed} removed\n"))
    }

    /// Lists the functions of images and of the session, those of the session with their sizes.
    fn list(&self) -> Result<String> {
        let mut lines = Vec::new();
        for export in self.session.exports() {
            let Some(arity) = self.arity(&export.name) else { continue };
            lines.push(match self.session.jit().unit_of(&export.name) {
                Some(_) => format!("{}/{arity} {} bytes\n", export.name, export.size),
                None => format!("{}/{arity} of an image\n", export.name),
            });
        }
        Ok(lines.concat())
    }
}
