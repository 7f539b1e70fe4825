//! `call`: calls a function of an image.

mod time;
mod value;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use cranelift_codegen::data_value::DataValue;
use cranelift_codegen::ir::Signature;
use cranelift_reader::parse_functions;
use kiln::globals::{Bindings, Resolve};
use kiln::image::{Image, ImageInfo, LoadError, Loaded, OpenOptions, SymbolType, read_image};
use kiln::ir::{ModuleSettings, Setting, Target};
use kiln::jit::libcalls;

use self::time::measure;
use crate::input::{self, InputFile, Profiler};
use crate::nearest::did_you_mean;
use crate::no_image::no_image;
use crate::output::{Failure, Format, Outcome, count, name, print_json_line};
use crate::run::{call, thunk};
use crate::sign::TrustArgs;

/// Load an image, call one of its functions and print the results. Images that it is a layer on are
/// loaded first.
///
/// Arguments are written as people write numbers, and results are printed so: integers with or
/// without sign (-1, 255, 0xff), floats (3, 2.5, -0.0, 1e3, inf, nan, 0x1.8p1), vectors by their
/// lanes ("[1 2 3 4]"). Slots are filled from `--global`, then from the C library and this process.
/// A trap is an error that says where it is, and who called that function.
#[derive(clap::Args)]
#[command(after_help = "Examples:
  cargo xtask call program.so square_area 2.5
  cargo xtask call program.so u0:17 -1 0xff
  cargo xtask call program.so gcd 12 18 --time 1000000
  cargo xtask call program.so main --verify release.pub
  cargo xtask call app.so main --base elsewhere/lib.so
  cargo xtask call counter.so get --global counter:main=0x7f0000001000")]
pub(crate) struct CallArgs {
    /// The image; `-` is standard input
    image: PathBuf,
    /// Name of an exported function, as `inspect` lists it
    function: String,
    /// Arguments, one for each parameter
    #[arg(value_name = "ARG")]
    args: Vec<String>,
    /// A file of an image that it is a layer on; one that is not given is looked for in the folder
    /// of the image. Can be given several times
    #[arg(long, value_name = "IMAGE")]
    base: Vec<PathBuf>,
    /// Take other images of the same names, too, if they have all that the layer uses, with the
    /// same types and sizes
    #[arg(long)]
    allow_other_bases: bool,
    /// Address of a run-time object, by its stable key
    #[arg(long, value_name = "KEY=ADDRESS", value_parser = binding)]
    global: Vec<(String, usize)>,
    /// Call the function this often, and print the time of a call too. What the function does
    /// outside of its results is done each time
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    time: Option<u64>,
    /// The longest time of all calls together; 0 is no limit
    #[arg(long, value_name = "SECONDS", default_value_t = 60)]
    timeout: u32,
    /// Write the names of functions for a profiler
    #[arg(long, value_enum, value_name = "FILE")]
    profiler: Option<Profiler>,
    /// Call the code for this level of the processor, of an image that was built for several
    /// [default: the highest that this machine has]
    #[arg(long, value_name = "LEVEL")]
    cpu: Option<String>,
    #[command(flatten)]
    trust: TrustArgs,
    /// How to print the results
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
}

fn binding(text: &str) -> Result<(String, usize), String> {
    // A key may contain `=`, but an address cannot.
    let (key, address) = text.rsplit_once('=').ok_or("expected KEY=ADDRESS")?;
    let parsed = match address.strip_prefix("0x") {
        Some(digits) => usize::from_str_radix(&digits.replace('_', ""), 16),
        None => address.parse(),
    };
    Ok((key.to_owned(), parsed.map_err(|error| format!("address `{address}`: {error}"))?))
}

pub(crate) fn main(args: &CallArgs) -> Outcome {
    let mut bindings = Bindings::new();
    for (key, address) in &args.global {
        bindings.bind(key, *address);
    }
    let resolve = bindings.or(&libcalls::process);
    let input = input::image(&args.image)?;
    let (loaded, level) = load(&input, args, &resolve)?;
    let function = &*args.function;
    let Some(callee) = loaded.function(function) else {
        let (file, near) = (input.name.display(), suggestion(&input.path, function));
        return Err(Failure::new(format!("{file} exports no function `{}`{near}", name(function))));
    };

    let text = callee.signature();
    // Cranelift parses the signature, so it is written as in `.clif` files.
    let declaration = format!("function %f{text} {{\nblock0:\n trap user1\n}}");
    let parsed = parse_functions(&declaration)
        .map_err(|error| Failure::while_doing(format!("signature {text}"), error))?;
    let signature: &Signature = &parsed[0].signature;
    let values = values(args, signature, text)?;

    let target = Target::host();
    // A signature that needs these settings was compiled with them; any other signature is called
    // in the same way with them and without.
    let shared = ["enable_multi_ret_implicit_sret", "enable_llvm_abi_extensions"];
    let shared = shared.map(|name| Setting::new(name, "true")).to_vec();
    let settings = ModuleSettings { shared, ..ModuleSettings::default() };
    let thunk = thunk(&target, &settings, signature).map_err(Failure::new)?;
    let mut cells = thunk
        .encode(&values)
        .ok_or_else(|| Failure::new(format!("the arguments do not fit `{function}`, which is {text}")))?;
    limit(args, text);
    let arguments = cells.clone();
    call(&thunk, callee.address(), &mut cells)
        .map_err(|trapped| Failure::new(format!("{trapped}{}", trapped.callers())))?;
    let results = thunk.decode(&cells).unwrap_or_default();
    let times = args.time.map(|calls| measure(&thunk, callee.address(), &arguments, calls));

    let results = results.iter().zip(&signature.returns);
    let results: Vec<_> =
        results.map(|(result, returned)| value::shown(result, returned.value_type)).collect();
    match args.format {
        Format::Text => {
            println!("{}", results.join(", "));
            times.iter().for_each(|times| println!("{}", times.text()));
        }
        Format::Json => {
            let mut document =
                serde_json::json!({ "function": function, "signature": text, "results": results });
            if let Some(level) = level {
                document["cpu_level"] = level.into();
            }
            if let Some(times) = times {
                document["time"] = times.json();
            }
            print_json_line(&document);
        }
    }
    Ok(())
}

/// Loads an image and those that it is a layer on, and checks everything that they load, and who
/// signed it if that is asked. Returns the level of the processor, too, that is chosen.
fn load(
    input: &InputFile,
    args: &CallArgs,
    resolve: &dyn Resolve,
) -> Result<(Arc<Loaded>, Option<String>), Failure> {
    let (bases, allow_other_bases) = (args.base.clone(), args.allow_other_bases);
    let options =
        OpenOptions { bases, allow_other_bases, trust: args.trust.trust()?, ..OpenOptions::default() };
    let mut images = Image::open_with_bases(&input.path, &options).map_err(|error| unopened(input, error))?;
    let image = images.pop().ok_or_else(|| Failure::new("no image"))?;
    image.verify().map_err(|error| no_image(input, error))?;
    let profiled = |image: Image| image.profiler(args.profiler.map(Into::into));
    // A level is asked of the image alone: its bases may have others.
    let chosen = |image: Image| match &args.cpu {
        Some(level) => image.with_cpu_level(level),
        None => Ok(image),
    };
    let mut loaded: Vec<Arc<Loaded>> = Vec::new();
    for base in images {
        base.verify().map_err(Failure::of)?;
        let base = profiled(base).bind_on(&loaded, resolve).map_err(Failure::of)?;
        base.catch_traps().map_err(Failure::of)?;
        loaded.push(Arc::new(base));
    }
    let image = chosen(image).map_err(|error| no_image(input, error))?;
    let level = image.cpu_level().map(str::to_owned);
    let image = profiled(image).bind_on(&loaded, resolve).map_err(Failure::of)?;
    image.catch_traps().map_err(Failure::of)?;
    Ok((Arc::new(image), level))
}

/// Returns the failure for an image that cannot be opened, or whose bases cannot.
fn unopened(input: &InputFile, error: LoadError) -> Failure {
    match &error {
        LoadError::At { path, source } if **path != *input.path || is_about_base(source) => {
            Failure::of(error)
        }
        _ => no_image(input, error),
    }
}

fn is_about_base(error: &LoadError) -> bool {
    use LoadError::{BaseCycle, BaseDepth, MissingBase, OtherBase};
    matches!(error, MissingBase { .. } | OtherBase { .. } | BaseCycle | BaseDepth { .. })
}

/// Returns a suggestion of exported functions whose names are similar to `function`.
fn suggestion(image: &Path, function: &str) -> String {
    let Ok(bytes) = read_image(image) else { return String::new() };
    let Ok(info) = ImageInfo::parse(&bytes) else { return String::new() };
    let functions = info.exports.iter().filter(|export| export.kind == SymbolType::Function);
    did_you_mean(function, functions.map(|export| &*export.name))
}

/// Parses the arguments as values of the types that the signature has.
fn values(args: &CallArgs, signature: &Signature, text: &str) -> Result<Vec<DataValue>, Failure> {
    let function = name(&args.function);
    if args.args.len() != signature.params.len() {
        let (given, wanted) = (args.args.len(), signature.params.len());
        return Err(Failure::new(format!(
            "`{function}` is {text}: {} expected, {given} given",
            count(wanted, "argument")
        )));
    }
    let arguments = args.args.iter().zip(&signature.params).enumerate();
    arguments
        .map(|(index, (argument, param))| {
            value::parse(argument, param.value_type).map_err(|reason| {
                let (number, argument) = (index + 1, name(argument.trim()));
                Failure::new(format!(
                    "argument {number} of `{function}`, which is {text}: `{argument}`: {reason}"
                ))
            })
        })
        .collect()
}

/// Ends this process when `--timeout` has passed, because nothing else stops code that does not
/// return.
fn limit(args: &CallArgs, text: &str) {
    if args.timeout == 0 {
        return;
    }
    let seconds = args.timeout;
    let message =
        format!("error: `{}`, which is {text}: no result after {seconds} s (`--timeout`)", args.function);
    std::thread::spawn(move || {
        std::thread::sleep(Duration::from_secs(seconds.into()));
        eprintln!("{}", name(&message));
        std::process::exit(1);
    });
}
