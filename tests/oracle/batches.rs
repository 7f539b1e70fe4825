//! A session and an image accept the same programs: random modules are added to a session batch by
//! batch, and whatever it says is compared with what `write_image` and `Image` say of all of them.
//!
//! What a session accepts, its image accepts, and code gives the same results there. What a session
//! refuses, an image of the same modules refuses, except where code that runs already decided
//! otherwise than an image would: see [`is_too_late`].

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use kiln::artifact::record::Linkage;
use kiln::artifact::{Artifact, Contents};
use kiln::globals::{Bindings, GlobalAccess, GlobalTable};
use kiln::image::{FunctionRef, Image, ImageOptions, write_image};
use kiln::ir::{Source, Target, parse};
use kiln::jit::JitError;
use kiln::{Compiler, Session, SessionError};
use kiln_oracle::random::Random;

use crate::cases::run;

/// The names that modules define and import. The host has all of them.
const NAMES: [&str; 6] = ["a", "b", "c", "__start_s", "__stop_s", "kiln_slots"];

/// How often session and image agreed to accept, agreed to refuse, the session was too late, and
/// functions were replaced by what both accepted.
static OUTCOMES: [AtomicU64; 4] = [const { AtomicU64::new(0) }; 4];

#[test]
fn a_session_accepts_what_its_image_accepts() {
    let cases = run("a_session_accepts_what_its_image_accepts", 400, case);
    let outcomes = OUTCOMES.each_ref().map(|count| count.load(Ordering::Relaxed));
    println!("accepted by both, refused by both, too late for a session, replaced: {outcomes:?}");
    assert!(cases < 400 || outcomes[..3].iter().all(|&count| count > cases / 20), "{outcomes:?}");
    assert!(cases < 400 || outcomes[3] > cases / 100, "{outcomes:?}");
}

fn case(seed: u64) -> Result<(), String> {
    let mut random = Random::new(seed);
    let session = Session::new(Target::host()).map_err(|error| error.to_string())?;
    let mut bindings = Bindings::new();
    for name in NAMES {
        session.bind_symbol(name, host as *const () as usize).unwrap();
        bindings.bind_symbol(name, host as *const () as usize);
    }
    // Whether functions are replaceable, which does not mix with other definitions of a name.
    let replaceable = random.once_in(3);
    let mut program: Vec<Artifact> = Vec::new();
    let mut users = Vec::new();
    for batch in 0..random.within(2, 4) {
        let musl = random.once_in(16);
        let mut added = Vec::new();
        for module in 0..random.within(1, 2) {
            let number = batch * 2 + module;
            let text = text(&mut random, number, replaceable);
            // Modules of both kinds are linked together.
            let access = *random.choose(&GlobalAccess::ALL);
            added.push(artifact(&text, access, musl || random.once_in(40))?);
            users.push(format!("use{number}"));
        }
        if random.once_in(20) {
            added.push(with_unknown_feature());
        }
        let whole = [program.clone(), added.clone()].concat();
        let result = match random.once_in(if replaceable { 4 } else { 2 }) {
            true => session.add_artifacts(&added),
            false => session.replace_artifacts(&added),
        };
        match (result, image(&whole)) {
            (Ok(_), Ok(image)) => {
                OUTCOMES[0].fetch_add(1, Ordering::Relaxed);
                let replaced = replaceable_names(&program).any(|name| {
                    let mut new = replaceable_names(&added);
                    new.any(|new| new == name)
                });
                OUTCOMES[3].fetch_add(replaced.into(), Ordering::Relaxed);
                compare(&session, image, &bindings, &users)?;
                program = whole;
                continue;
            }
            (Ok(_), Err(error)) => return Err(format!("accepted, but refused by an image: {error}")),
            (Err(_), Err(_)) => OUTCOMES[1].fetch_add(1, Ordering::Relaxed),
            (Err(error), Ok(_)) if is_too_late(&error, &program) => {
                OUTCOMES[2].fetch_add(1, Ordering::Relaxed)
            }
            (Err(error), Ok(_)) => return Err(format!("accepted by an image, but refused: {error}")),
        };
    }
    Ok(())
}

/// The host's function of every name, unless a module defines the name.
extern "C" fn host() -> i64 {
    1_000_000
}

/// The text of a module that defines and uses some of the names. It exports `use{number}`, which
/// depends on all that the module uses. Functions are mostly replaceable if that is asked for.
fn text(random: &mut Random, number: u32, replaceable: bool) -> String {
    let (mut definitions, mut imports, mut body) = (String::new(), String::new(), String::new());
    let mut used = 0;
    for name in NAMES {
        if !random.once_in(if name == "kiln_slots" { 30 } else { 2 }) {
            continue;
        }
        let linkage = *random.choose(&["", "", "hidden", "preemptible", "preemptible", "preemptible"]);
        let ty = if random.once_in(if replaceable { 32 } else { 8 }) { "i32" } else { "i64" };
        // Bounds of sections are mostly used as data.
        let kinds = if name.starts_with("__") { 40 } else { 7 };
        // Programs with replaceable functions are mostly correct, so that some are replaced.
        let least = if replaceable && !random.once_in(16) { 3 } else { 0 };
        let defines = replaceable && !name.starts_with("__") && random.once_in(2);
        let line = match if defines { 0 } else { least + random.below(kinds - least) } {
            0 if replaceable => format!(
                "replaceable function %{name}() -> {ty} system_v {{ block0: v0 = iconst.{ty} {number} return v0 }}"
            ),
            0 => format!(
                "{linkage} function %{name}() -> {ty} system_v {{ block0: v0 = iconst.{ty} {number} return v0 }}"
            ),
            1 => format!("{linkage} data %{name} {{ i64 {number} }}"),
            2 => {
                let writable = *random.choose(&["", "", "writable"]);
                format!("{linkage} data %{name} {writable} section = \"s\" {{ i64 {number} }}")
            }
            kind @ 3..=5 => {
                used += 1;
                imports += &format!("fn{used} = %{name}() -> {ty} system_v\n");
                body += &format!("v{used}1 = call fn{used}()\n");
                let extend = if ty == "i32" { "uextend.i64" } else { "bnot" };
                body += &format!("v{used} = {extend} v{used}1\n");
                format!("; {kind}")
            }
            // Whether there is an address: what is there may not be data.
            kind => {
                used += 1;
                imports += &format!("gv{used} = symbol %{name}\n");
                body += &format!("v{used}1 = symbol_value.i64 gv{used}\nv{used}2 = iconst.i64 0\n");
                body += &format!("v{used}3 = icmp ne v{used}1, v{used}2\nv{used} = uextend.i64 v{used}3\n");
                format!("; {kind}")
            }
        };
        definitions += &line;
        definitions.push('\n');
    }
    if random.once_in(4) {
        definitions += &format!("data %in_section{number} section = \"s\" {{ i64 9 }}\n");
    }
    let sum: String = (1..=used).map(|part| format!("v10{part} = iadd v10{}, v{part}\n", part - 1)).collect();
    format!(
        "{definitions}function %use{number}() -> i64 system_v {{\n{imports}block0:\nv100 = iconst.i64 0\n{body}{sum}return v10{used}\n}}\n"
    )
}

/// Returns the names of the replaceable functions that modules define.
fn replaceable_names(artifacts: &[Artifact]) -> impl Iterator<Item = &str> {
    artifacts.iter().flat_map(|artifact| {
        let symbols = artifact.symbols().iter();
        symbols.filter(|it| it.linkage() == Linkage::Replaceable).map(|it| artifact.name(it))
    })
}

/// Compiles a module for this machine, with the C library that it has or with musl.
pub(crate) fn artifact(text: &str, access: GlobalAccess, musl: bool) -> Result<Artifact, String> {
    let target = match musl {
        true => Target::parse(&format!("{}-unknown-linux-musl", std::env::consts::ARCH)),
        false => Ok(Target::host()),
    };
    let target = target.map_err(|error| error.to_string())?.globals(access);
    let module = parse(Arc::new(Source::new("module", text)), &target)
        .map_err(|faults| faults.iter().map(|fault| format!("{fault}")).collect::<String>())?;
    let compiled = Compiler::new(target).compile(&[module]).map_err(|error| error.to_string())?;
    compiled.artifacts.into_iter().next().ok_or_else(|| "no artifact".into())
}

/// An empty module for this machine, and for a CPU that nobody knows.
fn with_unknown_feature() -> Artifact {
    let mut contents = Contents::default();
    contents.summary.triple = contents.string(&Target::host().triple().to_string());
    contents.features = vec![contents.string("has_telepathy")];
    contents.finish()
}

pub(crate) fn image(artifacts: &[Artifact]) -> Result<Image, String> {
    let bytes = write_image(artifacts, &GlobalTable::new(), &ImageOptions::default())
        .map_err(|errors| errors.iter().map(|error| format!("{error}; ")).collect::<String>())?;
    Image::from_bytes(&bytes).map_err(|error| error.to_string())
}

/// Whether a session that has the modules `before` refuses what an image accepts only because code
/// that uses another definition is there already.
pub(crate) fn is_too_late(error: &SessionError, before: &[Artifact]) -> bool {
    let SessionError::Jit(error) = error else { return false };
    match error {
        // Another definition or the host's is used; or a part of the section has an address.
        JitError::DefinedLate { .. } | JitError::SectionGrows { .. } | JitError::SectionInPieces { .. } => {
            true
        }
        // In an image, a strong definition overrides a weak one that comes before it, and any
        // definition overrides the bound of a section.
        JitError::Redefinition { name, .. } => {
            let overridable = before.iter().any(|artifact| {
                let mut symbols = artifact.symbols().iter().filter(|symbol| symbol.is_defined());
                symbols.any(|symbol| {
                    artifact.name(symbol) == &**name && symbol.linkage() == Linkage::Preemptible
                })
            });
            overridable || name.starts_with("__st")
        }
        // Replaceable functions are defined again with `replace_artifacts` only.
        JitError::NotReplaced { .. } => true,
        _ => false,
    }
}

/// Compares what functions give in the session and in the image.
pub(crate) fn compare(
    session: &Session,
    image: Image,
    bindings: &Bindings,
    users: &[String],
) -> Result<(), String> {
    let loaded = image.bind(bindings).map_err(|error| error.to_string())?;
    let call = |function: FunctionRef<'_>| {
        // SAFETY: the type is checked. The functions call what has the type by which they use it,
        // which is tested here, and functions of the host, which ignores the type.
        unsafe { function.typed::<extern "C" fn() -> i64>() }.map(|function| function())
    };
    for name in users {
        let Some(in_memory) = session.function(name) else { continue };
        let in_image = loaded.function(name).ok_or_else(|| format!("no `{name}` in the image"))?;
        let results = [call(in_memory), call(in_image)].map(|result| result.ok());
        if results[0].is_none() || results[0] != results[1] {
            return Err(format!("`{name}` in memory and in the image: {results:?}"));
        }
    }
    Ok(())
}
