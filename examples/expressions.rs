//! A tiny expression language: compiled in parallel, run in this process, saved as an image, and
//! run by another process that compiles nothing.
//!
//! Each definition becomes a module of its own, built through `cranelift_module::Module` and linked
//! with the others. The word `ans` reads a run-time object of the host. Its address differs from
//! process to process, so the code refers to it as the global `calculator:memory`.
//!
//! ```text
//! cargo run --release --example expressions
//! ```

use std::error::Error;
use std::path::Path;
use std::process::Command;

use cranelift_codegen::ir::{AbiParam, Block, InstBuilder, MemFlagsData, Signature, Value, types::I64};
use cranelift_codegen::isa::CallConv;
use cranelift_frontend::{FunctionBuilder, FunctionBuilderContext};
use cranelift_module::{Linkage, Module as _};
use kiln::Session;
use kiln::globals::Bindings;
use kiln::image::Image;
use kiln::ir::{Module, ModuleBuilder, Target};

const PROGRAM: &str = "
square(x)  = x * x
norm(x, y) = square(x) + square(y)
fact(n)    = n ? n * fact(n - 1) : 1
next(step) = ans + step * norm(3, 4)
";

/// The run-time object that `ans` reads.
#[repr(C)]
struct Memory {
    last: i64,
}

const MEMORY_KEY: &str = "calculator:memory";

fn main() -> Result<(), Box<dyn Error>> {
    if let [_, flag, path] = std::env::args().collect::<Vec<_>>().as_slice()
        && flag == "--load"
    {
        return load(Path::new(path));
    }

    // Compile and run here.
    let session = Session::new(Target::host())?;
    let mut memory = Box::new(Memory { last: 7 });
    session.bind_global(MEMORY_KEY, &raw mut *memory as usize).unwrap();
    let modules =
        PROGRAM.trim().lines().map(|line| compile(line, session.target())).collect::<Result<Vec<_>, _>>()?;
    session.add(&modules)?;
    println!(
        "this process: {} modules, {} functions compiled",
        modules.len(),
        session.stats().compiled_functions
    );
    type Unary = extern "C" fn(i64) -> i64;
    let (fact, next) = (session.function("fact"), session.function("next"));
    let (fact, next) = (fact.ok_or("no `fact`")?, next.ok_or("no `next`")?);
    // SAFETY: the signatures are checked; the code reads nothing but `memory`, and session and
    // memory live on.
    let (fact, next) = unsafe { (fact.typed::<Unary>()?, next.typed::<Unary>()?) };
    println!("  fact(10) = {}", fact(10));
    println!("  next(2)  = {}   (ans is 7)", next(2));
    memory.last = 1000;
    println!("  next(2)  = {} (ans is 1000)", next(2));

    // Save: a link, no compilation.
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("expressions.so");
    session.save_image(&path)?;
    let size = std::fs::metadata(&path)?.len();
    println!(
        "saved: {size} bytes, {} functions compiled for it",
        session.stats().compiled_functions - modules.len()
    );

    // Load in another process.
    let status = Command::new(std::env::current_exe()?).arg("--load").arg(&path).status()?;
    if status.success() { Ok(()) } else { Err("the other process failed".into()) }
}

/// The work of a run-time without a code generator: map, fill the slots, call.
fn load(path: &Path) -> Result<(), Box<dyn Error>> {
    let memory = Memory { last: 500_000 };
    let mut bindings = Bindings::new();
    bindings.bind(MEMORY_KEY, &raw const memory as usize);
    let image = Image::open(path)?;
    println!("another process: slots to fill: {:?}", image.slots());
    let loaded = image.bind(&bindings)?;
    let next = loaded.function("next").ok_or("no `next`")?;
    // SAFETY: the signature is checked; the code reads nothing but `memory`, and image and memory
    // live on.
    let next = unsafe { next.typed::<extern "C" fn(i64) -> i64>()? };
    println!("  next(2)  = {} (ans is 500000)", next(2));
    Ok(())
}

/// Compiles `name(params) = expression` to a module that exports one function.
fn compile(line: &str, target: &Target) -> Result<Module, Box<dyn Error>> {
    let (head, body) = line.split_once('=').ok_or("a definition has an `=`")?;
    let (name, params) =
        head.trim().trim_end_matches(')').split_once('(').ok_or("a definition has parameters")?;
    let params: Vec<&str> = params.split(',').map(str::trim).filter(|param| !param.is_empty()).collect();

    let mut module = ModuleBuilder::new(name, target)?;
    let function = module.declare_function(name, Linkage::Export, &signature(params.len()))?;
    let mut context = module.make_context();
    context.func.signature = signature(params.len());
    let mut scratch = FunctionBuilderContext::new();
    let mut builder = FunctionBuilder::new(&mut context.func, &mut scratch);
    let entry = builder.create_block();
    builder.append_block_params_for_function_params(entry);
    builder.switch_to_block(entry);
    let mut compiler = Compiler { module: &mut module, builder, params, entry, rest: body.trim() };
    let value = compiler.choice()?;
    if !compiler.rest.is_empty() {
        return Err(format!("`{}` is left over in `{line}`", compiler.rest).into());
    }
    let mut builder = compiler.builder;
    builder.ins().return_(&[value]);
    builder.seal_all_blocks();
    builder.finalize(module.isa().frontend_config());
    module.define_function(function, &mut context)?;
    Ok(module.finish()?)
}

/// All functions take and return 64-bit integers, by the calling convention of C.
fn signature(params: usize) -> Signature {
    let mut signature = Signature::new(CallConv::SystemV);
    signature.params = vec![AbiParam::new(I64); params];
    signature.returns = vec![AbiParam::new(I64)];
    signature
}

/// Recursive descent straight to IR.
struct Compiler<'m, 'a> {
    module: &'m mut ModuleBuilder,
    builder: FunctionBuilder<'a>,
    params: Vec<&'a str>,
    entry: Block,
    rest: &'a str,
}

impl<'a> Compiler<'_, 'a> {
    /// `sum`, or `sum ? choice : choice`.
    fn choice(&mut self) -> Result<Value, Box<dyn Error>> {
        let condition = self.sum()?;
        if !self.take("?") {
            return Ok(condition);
        }
        let [yes, no, end] = [(); 3].map(|()| self.builder.create_block());
        self.builder.append_block_param(end, I64);
        self.builder.ins().brif(condition, yes, &[], no, &[]);
        for (block, after) in [(yes, ":"), (no, "")] {
            self.builder.switch_to_block(block);
            let value = self.choice()?;
            self.builder.ins().jump(end, &[value.into()]);
            self.expect(after)?;
        }
        self.builder.switch_to_block(end);
        Ok(self.builder.block_params(end)[0])
    }

    fn sum(&mut self) -> Result<Value, Box<dyn Error>> {
        let mut left = self.product()?;
        loop {
            if self.take("+") {
                let right = self.product()?;
                left = self.builder.ins().iadd(left, right);
            } else if self.take("-") {
                let right = self.product()?;
                left = self.builder.ins().isub(left, right);
            } else {
                return Ok(left);
            }
        }
    }

    fn product(&mut self) -> Result<Value, Box<dyn Error>> {
        let mut left = self.atom()?;
        while self.take("*") {
            let right = self.atom()?;
            left = self.builder.ins().imul(left, right);
        }
        Ok(left)
    }

    /// A number, `ans`, a parameter, a call, or an expression in parentheses.
    fn atom(&mut self) -> Result<Value, Box<dyn Error>> {
        if self.take("(") {
            let value = self.choice()?;
            self.expect(")")?;
            return Ok(value);
        }
        let word = self.word();
        if let Ok(number) = word.parse::<i64>() {
            return Ok(self.builder.ins().iconst(I64, number));
        }
        if word == "ans" {
            let memory = self.module.global(MEMORY_KEY);
            let memory = self.module.declare_data_in_func(memory, self.builder.func);
            let address = self.builder.ins().symbol_value(I64, memory);
            return Ok(self.builder.ins().load(I64, MemFlagsData::trusted(), address, 0));
        }
        if let Some(index) = self.params.iter().position(|&param| param == word) {
            return Ok(self.builder.block_params(self.entry)[index]);
        }
        self.call(word)
    }

    /// A call of a function that this module or another one defines.
    fn call(&mut self, name: &str) -> Result<Value, Box<dyn Error>> {
        self.expect("(").map_err(|_| format!("`{name}` is neither a number nor a parameter"))?;
        let mut arguments = Vec::new();
        while !self.take(")") {
            arguments.push(self.choice()?);
            self.take(",");
        }
        let callee = self.module.declare_function(name, Linkage::Import, &signature(arguments.len()))?;
        let callee = self.module.declare_func_in_func(callee, self.builder.func);
        let call = self.builder.ins().call(callee, &arguments);
        Ok(self.builder.inst_results(call)[0])
    }

    fn word(&mut self) -> &'a str {
        let end = self.rest.find(|c: char| !c.is_alphanumeric()).unwrap_or(self.rest.len());
        let (word, rest) = self.rest.split_at(end);
        self.rest = rest.trim_start();
        word
    }

    fn take(&mut self, token: &str) -> bool {
        let after = self.rest.strip_prefix(token);
        self.rest = after.map_or(self.rest, str::trim_start);
        after.is_some()
    }

    fn expect(&mut self, token: &str) -> Result<(), Box<dyn Error>> {
        if self.take(token) { Ok(()) } else { Err(format!("`{token}` expected at `{}`", self.rest).into()) }
    }
}
