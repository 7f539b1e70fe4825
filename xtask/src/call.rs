//! `call`: calls a function of an image.

mod time;
mod value;

use std::path::{Path, PathBuf};
use std::time::Duration;

use cranelift_codegen::data_value::DataValue;
use cranelift_codegen::ir::Signature;
use cranelift_reader::parse_functions;
use kiln::globals::{Bindings, Resolve as _};
use kiln::image::{Image, ImageInfo, SymbolType, read_image};
use kiln::ir::{ModuleSettings, Setting, Target};
use kiln::jit::libcalls;

use self::time::measure;
use crate::input::{self, InputFile, Profiler};
use crate::nearest::did_you_mean;
use crate::no_image::no_image;
use crate::output::{Failure, Format, Outcome, count, name, print_json_line};
use crate::run::{call, thunk};
use crate::sign::TrustArgs;

/// Load an image, call one of its functions and print the results.
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
  cargo xtask call counter.so get --global counter:main=0x7f0000001000")]
pub(crate) struct CallArgs {
    /// The image; `-` is standard input
    image: PathBuf,
    /// Name of an exported function, as `inspect` lists it
    function: String,
    /// Arguments, one for each parameter
    #[arg(value_name = "ARG")]
    args: Vec<String>,
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
    let image = open(&input, args)?;
    let level = image.cpu_level().map(str::to_owned);
    let loaded = image.bind(&resolve).map_err(Failure::of)?;
    loaded.catch_traps().map_err(Failure::of)?;
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

/// Opens an image and checks everything that it loads, and who signed it if that is asked.
fn open(input: &InputFile, args: &CallArgs) -> Result<Image, Failure> {
    let opened = args.trust.open(&input.path)?.map(|image| match args.profiler {
        None => image,
        Some(profiler) => image.profiler(Some(profiler.into())),
    });
    let chosen = opened.and_then(|image| match &args.cpu {
        Some(level) => image.with_cpu_level(level),
        None => Ok(image),
    });
    let checked = chosen.and_then(|image| image.verify().map(|()| image));
    checked.map_err(|error| no_image(input, error))
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
