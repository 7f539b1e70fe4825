//! `call`: calls a function of an image.

use std::path::PathBuf;

use cranelift_codegen::data_value::{DataValue, DisplayDataValues};
use cranelift_codegen::ir::{AbiParam, Signature};
use cranelift_codegen::isa::CallConv;
use cranelift_reader::{RunCommand, parse_functions, parse_run_command};
use kiln::Thunk;
use kiln::globals::{Bindings, Resolve, SlotKey};
use kiln::image::Image;
use kiln::ir::{ModuleSettings, Setting, Target};
use kiln::jit::libcalls;

use crate::output::{Failure, Format, Outcome, count};
use crate::run::call;

/// Load an image, call one of its functions and print the results.
///
/// Arguments are written as in `; run:` lines: integers, floats (0x1.8p1, 2.5), vectors
/// (0x01020304..., [1 2 3 4]). Slots are filled from `--global`, then from the C library and this
/// process.
#[derive(clap::Args)]
#[command(after_help = "Examples:
  cargo xtask call hello.so gcd 12 18
  cargo xtask call program.so u0:17 -- -1 0x1.8p1
  cargo xtask call counter.so get --global counter:main=0x7f0000001000")]
pub(crate) struct CallArgs {
    /// The image
    image: PathBuf,
    /// Name of an exported function, as `inspect` lists it
    function: String,
    /// Arguments, one for each parameter
    #[arg(value_name = "ARG", allow_negative_numbers = true)]
    args: Vec<String>,
    /// Address of a run-time object, by its stable key
    #[arg(long, value_name = "KEY=ADDRESS", value_parser = binding)]
    global: Vec<(String, usize)>,
    /// How to print the results
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
}

fn binding(text: &str) -> Result<(String, usize), String> {
    // A key may contain `=`, an address cannot.
    let (key, address) = text.rsplit_once('=').ok_or("expected KEY=ADDRESS")?;
    let parsed = match address.strip_prefix("0x") {
        Some(digits) => usize::from_str_radix(&digits.replace('_', ""), 16),
        None => address.parse(),
    };
    Ok((key.to_owned(), parsed.map_err(|error| format!("address `{address}`: {error}"))?))
}

/// Parses the value of an argument, as the only argument of an invocation.
fn value(text: &str, param: AbiParam, call_conv: CallConv) -> Result<DataValue, String> {
    let mut signature = Signature::new(call_conv);
    signature.params.push(param);
    // The parser below ignores text after the invocation.
    if text.contains(['(', ')']) {
        return Err("not a value".into());
    }
    match parse_run_command(&format!("print: %f({text})"), &signature) {
        Ok(Some(RunCommand::Print(mut invocation))) if invocation.args.len() == 1 => {
            Ok(invocation.args.remove(0))
        }
        Ok(_) => Err("not a value".into()),
        Err(error) => Err(error.message),
    }
}

pub(crate) fn main(args: &CallArgs) -> Outcome {
    let mut bindings = Bindings::new();
    for (key, address) in &args.global {
        bindings.bind(key, *address);
    }
    let resolve = |key: &SlotKey| bindings.resolve(key).or_else(|| libcalls::process(key));
    let image = Image::open(&args.image).map_err(Failure::of)?;
    let altered = |error| Failure::while_doing(format!("image {}", args.image.display()), error);
    image.verify().map_err(altered)?;
    let loaded = image.bind(&resolve).map_err(Failure::of)?;
    let function = &*args.function;
    let Some(callee) = loaded.function(function) else {
        return Err(Failure::new(format!("{} exports no function `{function}`", args.image.display())));
    };

    let text = callee.signature();
    // Cranelift parses the signature and the arguments, so both are written as in `.clif` files.
    let declaration = format!("function %f{text} {{\nblock0:\n trap user1\n}}");
    let parsed = parse_functions(&declaration)
        .map_err(|error| Failure::while_doing(format!("signature {text}"), error))?;
    let signature: &Signature = &parsed[0].signature;
    if args.args.len() != signature.params.len() {
        let (given, wanted) = (args.args.len(), signature.params.len());
        return Err(Failure::new(format!(
            "`{function}` is {text}: {} expected, {given} given",
            count(wanted, "argument")
        )));
    }
    let mut values = Vec::with_capacity(args.args.len());
    for (index, (argument, param)) in args.args.iter().zip(&signature.params).enumerate() {
        values.push(value(argument, *param, signature.call_conv).map_err(|reason| {
            Failure::new(format!(
                "argument {} of `{function}`, which is {text}: `{argument}`: {reason}",
                index + 1
            ))
        })?);
    }

    let target = Target::host();
    // A signature that needs these settings was compiled with them; any other signature is called
    // in the same way with them and without.
    let shared = ["enable_multi_ret_implicit_sret", "enable_llvm_abi_extensions"];
    let shared = shared.map(|name| Setting::new(name, "true")).to_vec();
    let settings = ModuleSettings { shared, ..ModuleSettings::default() };
    let thunk = Thunk::new(&target, &settings, signature).map_err(Failure::of)?;
    let mut cells = thunk
        .encode(&values)
        .ok_or_else(|| Failure::new(format!("the arguments do not fit `{function}`, which is {text}")))?;
    call(&thunk, callee.address(), &mut cells);
    let results = thunk.decode(&cells).unwrap_or_default();
    match args.format {
        Format::Text => println!("{}", DisplayDataValues(&results)),
        Format::Json => {
            let results: Vec<_> = results.iter().map(ToString::to_string).collect();
            println!(
                "{}",
                serde_json::json!({ "function": function, "signature": text, "results": results })
            );
        }
    }
    Ok(())
}
