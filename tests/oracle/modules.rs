//! Modules to test properties with: random modules, to which is added what the generator leaves
//! out, and the files of `tests/clif`.

use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock};

use kiln::Compiler;
use kiln::artifact::{Artifact, Table};
use kiln::ir::{
    Anchor, Code, Comment, Function, InlineHint, Linkage, MachineCode, Module, ModuleAnchor, ModuleComment,
    Setting, Source, Symbol, SymbolId, SymbolKind, Target, TargetLine, parse,
};
use kiln_oracle::forms::only_printable_locations;
use kiln_oracle::generate::{ProgramOptions, program};
use kiln_oracle::random::Random;

/// The text of every file in `tests/clif`, by path, and of a file that uses every part of the
/// notation.
pub(crate) static FILES: LazyLock<Vec<(PathBuf, String)>> = LazyLock::new(|| {
    fn collect(folder: &Path, found: &mut Vec<(PathBuf, String)>) {
        for entry in std::fs::read_dir(folder).expect("a folder of the repository") {
            let path = entry.expect("an entry of it").path();
            if path.is_dir() {
                collect(&path, found);
            } else if path.extension().is_some_and(|extension| extension == "clif") {
                let text = std::fs::read_to_string(&path).expect("a text");
                found.push((path, text));
            }
        }
    }
    let mut found = Vec::new();
    collect(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clif"), &mut found);
    found.sort();
    found.push(("everything.clif".into(), include_str!("everything.clif").to_owned()));
    assert!(found.len() > 10);
    found
});

/// The files that are for this machine, as modules.
static READ: LazyLock<Vec<Module>> = LazyLock::new(|| {
    let read = |(path, text): &(PathBuf, String)| {
        let source = Arc::new(Source::new(path.display().to_string(), text.as_str()));
        let mut module = parse(source, &Target::host()).ok()?;
        only_printable_locations(&mut module);
        Some(module)
    };
    let modules: Vec<_> = FILES.iter().filter_map(read).collect();
    assert!(modules.len() > 10);
    assert_eq!(modules.last().map(|module| &*module.name), Some("everything.clif"));
    modules
});

/// Small modules, so that many can be tried.
pub(crate) fn of(seed: u64) -> Vec<Module> {
    if seed % 8 == 7 {
        let number = if seed % 16 == 7 { READ.len() - 1 } else { (seed / 16) as usize % READ.len() };
        return vec![READ[number].clone()];
    }
    let statements = [4, 12, 12, 40][(seed % 4) as usize];
    let size = ProgramOptions { modules: 2, functions: 3, data: 3, statements, ..ProgramOptions::default() };
    let mut random = Random::new(!seed);
    let mut modules = program(seed, &size).modules;
    for (number, module) in modules.iter_mut().enumerate() {
        decorate(module, number, &mut random);
        only_printable_locations(module);
    }
    modules
}

/// Adds header lines, sections, machine code and comments.
fn decorate(module: &mut Module, number: usize, random: &mut Random) {
    if random.once_in(2) {
        module.settings.shared.push(Setting::new("opt_level", "none"));
    }
    if random.once_in(4) {
        module.settings.shared.push(Setting::new("is_pic", "false"));
    }
    if random.once_in(4) {
        let popcnt = Setting { name: "has_popcnt".into(), value: None, line: 0 };
        let v2 = ["has_sse3", "has_ssse3", "has_sse41", "has_sse42", "has_cmpxchg16b"];
        let v2 = v2.map(|name| Setting { name: name.into(), value: None, line: 0 });
        let settings = v2.into_iter().chain([popcnt]).collect();
        module.settings.targets.push(TargetLine { triple: "x86_64".into(), settings, line: 0 });
    }
    if random.once_in(4) {
        module.settings.directives.push("test run".into());
    }
    for data in &mut module.data {
        if random.once_in(4) {
            data.section = Some([".kept.a", ".kept.b"][random.below(2) as usize].into());
        }
    }
    if random.once_in(3) && module.data.is_empty() {
        // Symbols of functions precede those of data.
        let symbol = SymbolId::from_u32(module.symbols.len() as u32);
        module.symbols.push(Symbol {
            name: format!("code {number}").into(),
            kind: SymbolKind::Function,
            linkage: *random.choose(&[Linkage::Local, Linkage::Hidden, Linkage::Export]),
            signature: module.symbols[module.functions[0].symbol.index()].signature.clone(),
            line: 0,
        });
        let code = Code::Machine(MachineCode { bytes: [0x90, 0xc3].into(), align: 16, relocs: Vec::new() });
        module.functions.push(Function {
            symbol,
            code,
            inline: InlineHint::BySize,
            line: 0,
            variables: Box::default(),
            comments: Default::default(),
        });
    }
    for function in &mut module.functions {
        let Some(ir) = function.ir() else { continue };
        let hints = [InlineHint::BySize, InlineHint::Inline, InlineHint::Never];
        function.inline = *random.choose(&hints);
        let trailing = seed_bit(&ir, 3);
        let mut comment = |anchor| {
            let text = *random.choose(&["; here", ";", "; \"} \u{e9}", ";; v1 -> v2"]);
            function.comments.push(Comment { anchor, trailing, line: 0, text });
        };
        if seed_bit(&ir, 0) {
            comment(Anchor::Declarations);
        }
        if seed_bit(&ir, 1) {
            comment(Anchor::Block(0));
            comment(Anchor::Inst(0));
        }
        if seed_bit(&ir, 2) {
            comment(Anchor::End);
        }
    }
    if random.once_in(3) {
        let above = ModuleAnchor::Above(module.functions[0].symbol);
        module.comments.push(ModuleComment { anchor: above, line: 0, text: "; above".into() });
    }
    if random.once_in(3) {
        module.comments.push(ModuleComment { anchor: ModuleAnchor::End, line: 0, text: "; the end".into() });
    }
}

/// A flag that depends on the function.
fn seed_bit(ir: &cranelift_codegen::ir::Function, bit: u32) -> bool {
    ir.dfg.num_values() >> bit & 1 == 1
}

/// The module's artifact.
pub(crate) fn compile(module: &Module) -> Result<Artifact, String> {
    compile_for(module, Target::host())
}

/// Compiles a module for a target.
pub(crate) fn compile_for(module: &Module, target: Target) -> Result<Artifact, String> {
    let compiled = Compiler::new(target).compile(std::slice::from_ref(module));
    Ok(compiled.map_err(|error| error.to_string())?.artifacts.remove(0))
}

/// Whether two modules compile to the same artifact, byte for byte.
pub(crate) fn same_artifact(one: &Module, other: &Module) -> Result<(), String> {
    let (one, other) = (compile(one)?, compile(other)?);
    if one == other {
        return Ok(());
    }
    let differ = Table::ALL.iter().filter(|s| one.table_bytes(**s) != other.table_bytes(**s));
    Err(format!("artifacts differ in {:?}", differ.map(|section| section.name()).collect::<Vec<_>>()))
}
