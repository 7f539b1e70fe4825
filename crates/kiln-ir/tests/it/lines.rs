//! Tests of line tables and variables, and of texts that are debugged as they are.

use std::sync::Arc;

use cranelift_codegen::ir::SourceLoc;
use expect_test::{Expect, expect};
use kiln_ir::{
    Encoding, LineEntry, LineError, LineTable, Module, ModuleBuilder, Modules, Source, SourceFile, Variable,
    VariableType, parse, print,
};

use crate::{module, read, show, target};

/// Returns the module of a text that is debugged as it is.
#[track_caller]
fn debugged(text: &str) -> Module {
    let source = Source::new("test.clif", text).debugged("/src");
    parse(Arc::new(source), &target()).unwrap_or_else(|faults| panic!("{}", show(&faults)))
}

/// Returns `location file:line:column` of each entry.
fn entries(lines: &LineTable) -> Vec<String> {
    let files: Vec<_> = lines.files().map(|file| &*file.name).collect();
    let shown = |entry: LineEntry| {
        let file = files[entry.file.as_u32() as usize];
        format!("{} {file}:{}:{}", entry.location, entry.line, entry.column)
    };
    lines.iter().map(shown).collect()
}

const TWO: &str = "function %f(i32) -> i32 {
block0(v7: i32):
    v3 = iadd v7, v7
    return v3
}
function %g(i32) -> i32 {
    fn0 = %f(i32) -> i32
block0(v0: i32):
  v1 = call fn0(v0)  v2 = iconst.i32 5

  return v2
}
";

#[test]
fn a_text_has_its_own_lines() {
    let module = debugged(TWO);
    let lines = entries(&module.lines);
    assert_eq!(
        lines,
        [
            "@0000 test.clif:1:0",
            "@0001 test.clif:3:5",
            "@0002 test.clif:4:5",
            "@0003 test.clif:6:0",
            "@0004 test.clif:9:3",
            "@0005 test.clif:9:0",
            "@0006 test.clif:11:3",
        ]
    );
    let file = module.lines.files().next().unwrap();
    assert_eq!((&*file.directory, file.language), ("/src", 0x0c));
    let names = |number: usize| -> Vec<_> {
        module.functions[number].variables.iter().map(|variable| (variable.label, &*variable.name)).collect()
    };
    assert_eq!(names(0), [(0, "v7"), (1, "v3")]);
    assert_eq!(names(1), [(0, "v0"), (1, "v1"), (2, "v2")]);
    assert_eq!(module.functions[1].ir().unwrap().params.base_srcloc(), SourceLoc::new(3));
    assert!(self::module(TWO).lines.is_empty());
}

#[test]
fn comments_and_moves_change_no_function() {
    let edited = TWO
        .replace("    return v3", "    ; a comment\n\n\n    return v3")
        .replace("function %g", "; another\n\nfunction %g")
        .replace("v7", "v70");
    let (before, after) = (debugged(TWO), debugged(&edited));
    for (old, new) in before.functions.iter().zip(&after.functions) {
        assert_eq!(old.body().unwrap().as_bytes(), new.body().unwrap().as_bytes());
        assert_eq!(before.function_fingerprint(old), after.function_fingerprint(new));
    }
    assert_ne!(before.fingerprint(), after.fingerprint());
    // The name of a value is not in the line table, but debuggers show it.
    let renamed = debugged(&TWO.replace("v7", "v70"));
    assert_eq!(before.lines, renamed.lines);
    assert_ne!(before.fingerprint(), renamed.fingerprint());
    // With one instruction more, locations of later functions move, and these functions stay.
    let longer = debugged(&TWO.replace("    return v3", "    v4 = iadd v3, v3\n    return v3"));
    let form = |module: &Module, number: usize| module.functions[number].body().unwrap().as_bytes().to_vec();
    assert_ne!(form(&before, 0), form(&longer, 0));
    assert_eq!(form(&before, 1), form(&longer, 1));
}

#[test]
fn large_files_are_the_same_on_every_number_of_threads() {
    let pool = |threads| rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
    let text: String = (0..500)
        .map(|n| format!("function %f{n}() -> i64 {{\nblock0:\n  v{n} = iconst.i64 1\n  return v{n}\n}}\n"))
        .collect();
    let [one, four] = [1, 4].map(|threads| pool(threads).install(|| debugged(&text).to_bytes()));
    assert_eq!(one, four);
    assert_eq!(debugged(&text).lines.len(), 1500);
}

#[test]
fn line_items_win_and_come_back() {
    let text = "debug %f { labels, v0 label 2 @0000, variable 2 \"x\" signed 4 }
function %f(i32) -> i32 system_v {
block0(v0: i32):
    @0014 return v0
}

; The lines of another language.
lines \"a.lang\" directory=\"/src\" language=0x0002 {
    @0010 1:2,
    @0014 7
}

lines \"b.lang\" {
    @0012 3
}

lines \"none.lang\" {}
";
    let read = debugged(text);
    assert_eq!(entries(&read.lines), ["@0010 a.lang:1:2", "@0012 b.lang:3:0", "@0014 a.lang:7:0"]);
    assert_eq!(read.lines, module(text).lines);
    assert_eq!(print(&read).unwrap(), text);
    let bytes = read.to_bytes();
    let again = Modules::new(&bytes[..]).next().unwrap().unwrap().verify(&target()).unwrap();
    assert_eq!((again.lines.clone(), again.to_bytes()), (read.lines, bytes));
    assert_eq!(again.functions[0].variables, read.functions[0].variables);
    // A comment after the items goes in front of them.
    let moved = format!("{text}; the end\n");
    let once = print(&module(&moved)).unwrap();
    assert_eq!(print(&module(&once)).unwrap(), once);
    assert!(once.contains("; the end\nlines \"a.lang\""), "{once}");
}

#[track_caller]
fn refused(text: &str, expected: Expect) {
    expected.assert_eq(&show(&read(text).unwrap_err()));
}

#[test]
fn wrong_items() {
    refused(
        "lines \"a\" { @1 2, @1 3 }\nlines \"a\" {}",
        expect![[r#"
        Duplicate: error: this source location has two lines
         --> test.clif:1:19
          |
        1 | lines "a" { @1 2, @1 3 }
          |                   ^

        Duplicate: error: this source file has two `lines` items
         --> test.clif:2:7
          |
        2 | lines "a" {}
          |       ^

    "#]],
    );
    refused(
        "lines \"\" {}",
        expect![[r#"
        Syntax: error: the name of a source file must not be empty
         --> test.clif:1:7
          |
        1 | lines "" {}
          |       ^^

    "#]],
    );
    refused(
        "lines \"a\" language=70000 {}",
        expect![[r#"
        Syntax: error: 70000 is out of range: a language has 16 bits
         --> test.clif:1:20
          |
        1 | lines "a" language=70000 {}
          |                    ^^^^^

    "#]],
    );
    refused(
        "lines \"a\" { @- 2 }",
        expect![[r#"
            Syntax: error: `@-` is no location
             --> test.clif:1:13
              |
            1 | lines "a" { @- 2 }
              |             ^^

        "#]],
    );
    refused(
        "function %f() {\nblock0:\n  return\n}\ndebug %f { variable 1 \"x\" signed 17 }",
        expect![[r#"
            Syntax: error: 17 is out of range: a variable has 1 to 16 bytes
             --> test.clif:5:34
              |
            5 | debug %f { variable 1 "x" signed 17 }
              |                                  ^^

        "#]],
    );
    refused(
        "function %f() {\nblock0:\n  return\n}\ndebug %f { variable 1 \"x\" signed 4, variable 1 \"y\" float 4 }",
        expect![[r#"
            Duplicate: error: a label of `%f` has two names
             --> test.clif:5:46
              |
            5 | debug %f { variable 1 "x" signed 4, variable 1 "y" float 4 }
              |                                              ^

        "#]],
    );
    refused(
        "function %f() {\nblock0:\n  return\n}\ndebug %f { variable 1 \"x\" bool 4 }",
        expect![[r#"
        Syntax: error: expected `signed`, `unsigned`, `float` or `address`, found `bool`
         --> test.clif:5:27
          |
        5 | debug %f { variable 1 "x" bool 4 }
          |                           ^^^^

    "#]],
    );
}

#[test]
fn locations_of_a_builder() {
    let mut builder = ModuleBuilder::new("test", &target()).unwrap();
    let a = builder.file(SourceFile::new("a.lang")).unwrap();
    let b = builder.file(SourceFile::new("b.lang")).unwrap();
    assert_eq!(builder.file(SourceFile::new("a.lang")), Ok(a));
    assert_eq!(builder.file(SourceFile::new("")), Err(LineError::Name));
    assert_eq!(builder.file(SourceFile::new("x").directory("a\0")), Err(LineError::Name));
    let places = [(a, 5, 1), (a, 5, 1), (b, 5, 1), (a, 1, 70_000)];
    let got = places.map(|(file, line, column)| builder.location(file, line, column).unwrap().bits());
    assert_eq!(got, [0, 0, 1, 2]);
    let entry = |location| LineEntry { location: SourceLoc::new(location), file: a, line: 1, column: 0 };
    assert_eq!(builder.lines().push(entry(2)), Err(LineError::Order(SourceLoc::new(2))));
    assert_eq!(builder.lines().push(entry(u32::MAX)), Err(LineError::Order(SourceLoc::default())));
    builder.lines().push(entry(1000)).unwrap();
    let first = builder.finish_part("first");
    assert_eq!(
        entries(&first.lines),
        ["@0000 a.lang:5:1", "@0001 b.lang:5:1", "@0002 a.lang:1:70000", "@03e8 a.lang:1:0"]
    );
    assert_eq!(first.lines.find(SourceLoc::new(999)).unwrap().column, 70_000);
    // The next module has a table of its own.
    assert_eq!(builder.location(a, 1, 1), Err(LineError::File(0)));
    assert!(builder.finish().unwrap().lines.is_empty());
}

#[test]
fn variables_of_a_builder() {
    use cranelift_module::{Linkage, Module as _};
    let mut builder = ModuleBuilder::new("test", &target()).unwrap();
    let signature = builder.make_signature();
    let f = builder.declare_function("f", Linkage::Export, &signature).unwrap();
    let variable = |label, name: &str, size| Variable {
        label,
        name: name.into(),
        ty: VariableType { encoding: Encoding::Unsigned, size },
    };
    for wrong in [
        vec![variable(1, "", 4)],
        vec![variable(1, "a\0", 4)],
        vec![variable(1, "a", 0)],
        vec![variable(1, "a", 17)],
        vec![variable(u32::MAX, "a", 4)],
        vec![variable(1, "a", 4), variable(1, "b", 4)],
    ] {
        let error = builder.set_variables(f, wrong).unwrap_err();
        assert!(error.to_string().contains("its variables need names"), "{error}");
    }
    assert!(builder.set_variables(cranelift_module::FuncId::from_u32(9), []).is_err());
    builder.set_variables(f, [variable(9, "b", 16), variable(1, "a", 1)]).unwrap();
    let mut context = builder.make_context();
    let block = context.func.dfg.make_block();
    context.func.layout.append_block(block);
    use cranelift_codegen::cursor::{Cursor as _, FuncCursor};
    use cranelift_codegen::ir::InstBuilder as _;
    FuncCursor::new(&mut context.func).at_bottom(block).ins().return_(&[]);
    builder.define_function(f, &mut context).unwrap();
    let module = builder.finish().unwrap();
    assert_eq!(*module.functions[0].variables, [variable(1, "a", 1), variable(9, "b", 16)]);
}

#[test]
fn pieces_of_a_module_have_their_own_lines() {
    let pieces = debugged(TWO).split(0).unwrap();
    assert_eq!(entries(&pieces[0].lines)[0], "@0000 test.clif:1:0");
    assert_eq!(entries(&pieces[1].lines).last().unwrap(), "@0006 test.clif:11:3");
    assert_eq!((pieces[0].lines.len(), pieces[1].lines.find(SourceLoc::new(4)).unwrap().line), (3, 9));
    assert_eq!(pieces[1].functions[0].variables.len(), 3);
}
