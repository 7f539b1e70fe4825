//! Errors of code generator and linker, which know modules by numbers, with the names of files and
//! functions.

use kiln::CompilerError;
use kiln::artifact::Artifact;
use kiln::image::link::LinkError;

use super::escape::name;
use super::failure::chain;

/// The errors of a compiler, one a line.
pub(crate) fn compiler_lines(error: &CompilerError, title: &dyn Fn(&str) -> String) -> Vec<String> {
    let CompilerError::Functions(functions) = error else { return vec![format!("error: {}", chain(error))] };
    let line = |error: &kiln::backend::CompileError| {
        let line = if error.line == 0 { String::new() } else { format!(":{}", error.line) };
        let title = title(&error.module_name);
        let function = error.function_index.map(|_| format!("function `{}`: ", name(&error.function)));
        format!("error: {title}{line}: {}{}", function.unwrap_or_default(), chain(&error.kind))
    };
    functions.iter().map(line).collect()
}

/// An error of the linker: the file of the module, the function, and what is wrong.
pub(crate) fn link_line(
    error: &LinkError,
    title: &dyn Fn(usize) -> String,
    artifacts: &[Artifact],
) -> String {
    let Some(number) = error.module() else { return format!("error: {}", chain(error)) };
    let user = place(error).and_then(|offset| function_at(artifacts.get(number)?, offset));
    let user = user.map(|function| format!("function `{function}`: ")).unwrap_or_default();
    let line = format!("error: {}: {user}{}", title(number), chain(error));
    let other = match *error {
        LinkError::DuplicateDefinition { first, .. } | LinkError::SectionConflict { first, .. } => first,
        LinkError::SignatureConflict { definer, .. }
        | LinkError::KindConflict { definer, .. }
        | LinkError::DataConflict { definer, .. } => definer,
        LinkError::TargetMismatch { .. } => 0,
        _ => return line,
    };
    format!("{line}; module {other} is {}", title(other))
}

/// The position of the fault in the code of its module.
fn place(error: &LinkError) -> Option<u64> {
    match *error {
        LinkError::TextRelocation { offset, .. }
        | LinkError::ForeignRelocation { offset, .. }
        | LinkError::Instruction { offset, .. }
        | LinkError::DirectReference { offset, .. }
        | LinkError::OutOfRange { offset, .. }
        | LinkError::Misaligned { offset, .. } => Some(offset),
        _ => None,
    }
}

fn function_at(artifact: &Artifact, offset: u64) -> Option<String> {
    let contains = |start: u64, len: u64| (start..start + len).contains(&offset);
    let function = artifact
        .functions()
        .iter()
        .find(|function| contains(function.start.get().into(), function.len.get().into()))?;
    let symbol = artifact.symbols().get(function.symbol.get() as usize)?;
    Some(name(artifact.name(symbol)).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fault_in_code_names_file_and_function() {
        let function = |name| format!("function %{name}() {{\nblock0:\n    return\n}}\n");
        let text = ["first", "last"].map(function).concat();
        let target = kiln::ir::Target::host();
        let module = kiln::ir::parse(kiln::ir::Source::new("a.clif", text).into(), &target).unwrap();
        let artifacts = kiln::Compiler::new(target).compile(&[module]).unwrap().artifacts;
        let line = |module: usize, offset: u64| {
            let error = LinkError::DirectReference { module, offset, symbol: "there".into() };
            link_line(&error, &|number| format!("{number}.clif"), &artifacts)
        };
        let start = artifacts[0].functions()[1].start.get();
        let what = format!("refers at {start:#x} directly to `there`");
        assert!(line(0, start.into()).starts_with("error: 0.clif: function `last`: module 0"), "{what}");
        assert!(line(0, start.into()).contains(&what));
        assert!(line(0, 0).starts_with("error: 0.clif: function `first`: "));
        // Neither a place outside of functions nor a module that is not there is a fault here.
        assert!(line(0, 1 << 40).starts_with("error: 0.clif: module 0"));
        assert!(line(7, 0).starts_with("error: 7.clif: module 7"));
    }
}
