//! Formats errors of the code generator and the linker with the names of files and functions. The
//! linker itself knows modules only by their numbers.

use kiln::CompilerError;
use kiln::image::link::LinkError;

use super::escape::name;
use super::failure::chain;

/// Formats the errors of a compiler, one error per line.
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

/// Formats an error of the linker: the file of the module, the function, and what is wrong.
pub(crate) fn link_line(error: &LinkError, title: &dyn Fn(usize) -> String) -> String {
    let Some(number) = error.module() else { return format!("error: {}", chain(error)) };
    let line = format!("error: {}: {}", title(number), chain(error));
    let Some(other) = error.other_module() else { return line };
    format!("{line}; module {other} is {}", title(other))
}
