//! A small language with objects on a heap. A program runs its prelude, is saved with the objects
//! that it has made, and a new process is at the same point at once.
//!
//! ```text
//! cargo run --release --example lists -- --save primes.so < examples/lists/prelude.txt
//! cargo run --release --example lists -- --image primes.so
//! > (count primes)
//! > (define more (cons 1 primes))
//! ```
//!
//! With `--save` as well, the process that goes on saves a layer: what was defined since, which is
//! loaded on the image that it began with. Lists of the layer may end in lists of that image.
//!
//! Values are numbers, `nil` and pairs. `syntax` reads lines, `lower` makes a module of each line,
//! `heap` has the pairs, and this file has everything about sessions and images.
//!
//! Every variable is a global whose object is one word, and the roots of what is saved are all
//! variables. Pairs never change, so they are in read-only pages, which processes share; variables
//! do, so they have pages of their own. `--time` says when a process is ready.

mod heap;
mod lower;
mod syntax;

use std::collections::{BTreeMap, BTreeSet};
use std::error::Error;
use std::io::{BufRead as _, IsTerminal as _, Write as _};
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Instant;

use kiln::globals::{Bindings, Signature};
use kiln::image::{Loaded, OpenOptions};
use kiln::ir::Target;
use kiln::{SavedHeap, Saving, Session};

use self::heap::{Heap, Value};
use self::lower::{CONS, lower, variable_key};
use self::syntax::{Line, parse};

type Result<T> = std::result::Result<T, Box<dyn Error>>;
type Thunk = extern "C" fn() -> i64;

const USAGE: &str = "usage: lists [--image FILE] [--save FILE] [--time] < LINES";

pub(crate) fn main() -> ExitCode {
    let start = Instant::now();
    match run(start) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let sources = std::iter::successors(error.source(), |&error| error.source());
            eprintln!("error: {error}{}", sources.map(|source| format!(": {source}")).collect::<String>());
            ExitCode::FAILURE
        }
    }
}

fn run(start: Instant) -> Result<()> {
    let (mut image, mut save, mut is_timed) = (None, None, false);
    let mut args = std::env::args().skip(1);
    while let Some(flag) = args.next() {
        match &*flag {
            "--image" => image = Some(args.next().ok_or(USAGE)?),
            "--save" => save = Some(args.next().ok_or(USAGE)?),
            "--time" => is_timed = true,
            _ => return Err(USAGE.into()),
        }
    }
    let mut program = Program::new(image.as_deref().map(Path::new))?;
    if is_timed {
        eprintln!("ready after {:.2?}", start.elapsed());
    }
    let is_terminal = std::io::stdin().is_terminal();
    let (mut input, mut output) = (std::io::stdin().lock(), std::io::stdout().lock());
    let mut line = String::new();
    loop {
        if is_terminal {
            write!(output, "> ")?;
            output.flush()?;
        }
        line.clear();
        if input.read_line(&mut line)? == 0 {
            break;
        }
        match program.execute(line.trim()) {
            Ok(text) => write!(output, "{text}")?,
            Err(error) => writeln!(output, "error: {error}")?,
        }
    }
    if let Some(path) = save {
        program.save(Path::new(&path))?;
    }
    if is_timed {
        eprintln!("ended after {:.2?}", start.elapsed());
    }
    Ok(())
}

/// A program: what was loaded, and what was defined since.
struct Program {
    heap: Heap,
    image: Option<Arc<Loaded>>,
    /// Made by the first line, which takes longer than to load an image.
    session: Option<Session>,
    /// The cells of the variables that were defined in this process. They do not move.
    variables: BTreeMap<String, Box<Value>>,
    /// The variables of the image that have another value than there.
    changed: BTreeSet<String>,
    lines: usize,
}

impl Program {
    fn new(image: Option<&Path>) -> Result<Self> {
        let mut bindings = Bindings::new();
        bindings.bind_symbol(CONS, heap::cons as *const () as usize);
        let open = |path| Loaded::open(path, &OpenOptions::default(), &bindings);
        let image = image.map(open).transpose()?;
        let (variables, changed) = (BTreeMap::new(), BTreeSet::new());
        Ok(Self { heap: Heap::new(), image, session: None, variables, changed, lines: 0 })
    }

    fn session(&mut self) -> Result<&Session> {
        if self.session.is_none() {
            let session = match &self.image {
                Some(image) => Session::on(std::slice::from_ref(image), Target::host())?,
                None => Session::new(Target::host())?,
            };
            session.bind_symbol(CONS, heap::cons as *const () as usize)?;
            self.session = Some(session);
        }
        Ok(self.session.as_ref().expect("it was just made"))
    }

    /// Returns the address of a variable's cell.
    fn cell(&self, name: &str) -> Option<usize> {
        let own = self.variables.get(name).map(|cell| (&raw const **cell).expose_provenance());
        own.or_else(|| self.loaded_cell(name))
    }

    /// Returns the address of the cell of a variable of the image, or of an image that it is on.
    fn loaded_cell(&self, name: &str) -> Option<usize> {
        let image = self.image.as_deref()?;
        let key = variable_key(name);
        let mut all = std::iter::once(image).chain(image.bases().iter().map(|base| &**base));
        all.find_map(|image| image.global(&key))
    }

    /// Returns the number of parameters of a function.
    fn arity(&self, name: &str) -> Option<usize> {
        let function = self.session.as_ref()?.function(name)?;
        function.signature().parse().ok().map(|signature: Signature| signature.params.len())
    }

    /// Executes a line and returns what it prints.
    fn execute(&mut self, text: &str) -> Result<String> {
        if text.is_empty() || text.starts_with(';') {
            return Ok(String::new());
        }
        self.lines += 1;
        let line = parse(text)?;
        let symbol = match &line {
            Line::Function { name, .. } => name.clone(),
            // No name of the language has a space.
            _ => format!("line {}", self.lines),
        };
        self.session()?;
        let session = self.session.as_ref().expect("it was just made");
        let context = lower::Context { arity: &|name| self.arity(name), cell: &|name| self.cell(name) };
        let (module, variables) = lower(&line, &symbol, session.target(), &context)?;
        // The session knows those of the image.
        for name in variables.into_iter().filter(|name| self.variables.contains_key(name)) {
            session.bind_global(&variable_key(&name), self.cell(&name).ok_or("no variable")?)?;
        }
        let (expr_name, is_function) = match &line {
            Line::Function { .. } => (None, true),
            Line::Variable { name, .. } => (Some(name.clone()), false),
            Line::Expr(_) => (None, false),
        };
        if is_function {
            session.add(&[module])?;
            return Ok(String::new());
        }
        let unit = session.add(&[module])?;
        let function = session.function(&symbol).ok_or("no code")?;
        // SAFETY: the type is compared; code of the language reads pairs and cells, which live on.
        let value = Value(unsafe { function.typed::<Thunk>() }?());
        session.remove(&[unit])?;
        Ok(match expr_name {
            None => format!("{}\n", self.heap.show(value)),
            Some(name) => {
                match self.cell(&name) {
                    // SAFETY: a cell of this program, which nobody else uses now.
                    Some(cell) => unsafe {
                        std::ptr::with_exposed_provenance_mut::<Value>(cell).write(value);
                        if !self.variables.contains_key(&name) {
                            self.changed.insert(name);
                        }
                    },
                    None => {
                        self.variables.insert(name, Box::new(value));
                    }
                }
                String::new()
            }
        })
    }

    /// Saves the functions, the variables, and all pairs that can be reached from them. If the
    /// program goes on from an image, that is what came to it.
    fn save(&mut self, path: &Path) -> Result<()> {
        if let Some(name) = self.changed.first() {
            // A layer adds to an image, and changes nothing there.
            return Err(format!("`{name}` is a variable of the image, and has changed").into());
        }
        self.session()?;
        let session = self.session.as_ref().expect("it was just made");
        let mut keys = Vec::new();
        for (name, cell) in &self.variables {
            session.bind_global(&variable_key(name), (&raw const **cell).expose_provenance())?;
            keys.push(variable_key(name));
        }
        let roots: Vec<&str> = keys.iter().map(|key| &**key).collect();
        let mut visitor = self.heap.visitor(self.variables.values().map(|cell| &raw const **cell));
        let heap = SavedHeap { roots: &roots, visitor: &mut visitor };
        session.save_image_with(path, Saving { heap: Some(heap), ..Saving::default() })?;
        Ok(())
    }
}
