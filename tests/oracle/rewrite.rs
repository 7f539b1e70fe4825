//! Another text of the same module, rewritten token by token, without a parser.
//!
//! It alters what a fingerprint leaves out: numbers of values, blocks and declarations, the order
//! of declarations and of items, unused declarations, aliases, comments, header lines without
//! effect, the names of symbols inside a text.

use std::collections::HashMap;

use kiln::ir::{Linkage, Module};
use kiln_oracle::random::Random;

/// Entities whose numbers have no meaning. Stack slots and regions keep theirs: the reader counts
/// them.
const ENTITIES: [&str; 6] = ["v", "block", "gv", "const", "fn", "sig"];

/// Returns `text` with every token but strings and comments replaced by the result of `new`.
fn tokens(text: &str, new: &mut dyn FnMut(&str) -> Option<String>) -> String {
    let mut out = String::with_capacity(text.len() * 2);
    let bytes = text.as_bytes();
    let word = |from: usize| {
        from + bytes[from..].iter().take_while(|b| b.is_ascii_alphanumeric() || **b == b'_').count()
    };
    let mut at = 0;
    while at < bytes.len() {
        let end = match bytes[at] {
            b'"' => {
                let mut end = at + 1;
                while bytes[end] != b'"' {
                    end += 1 + usize::from(bytes[end] == b'\\');
                }
                end + 1
            }
            b';' => at + text[at..].find('\n').unwrap_or(text.len() - at),
            b'%' | b'@' | b'#' => word(at + 1),
            byte if byte.is_ascii_alphanumeric() || byte == b'_' => word(at),
            _ => at + text[at..].chars().next().map_or(1, char::len_utf8),
        };
        let token = &text[at..end];
        match new(token) {
            Some(new) => out.push_str(&new),
            None => out.push_str(token),
        }
        at = end;
    }
    out
}

/// Splits an entity into prefix and number.
fn entity(token: &str) -> Option<(&'static str, u32)> {
    let digits = token.trim_start_matches(|c: char| c.is_ascii_lowercase());
    let prefix = &token[..token.len() - digits.len()];
    let prefix = ENTITIES.into_iter().find(|entity| *entity == prefix)?;
    Some((prefix, digits.parse().ok()?))
}

/// The items of a text: an item ends at the end of a line and has as many closing as opening
/// braces.
fn items(text: &str) -> Vec<String> {
    let (mut items, mut item, mut depth) = (Vec::new(), String::new(), 0_i32);
    for line in text.lines().filter(|line| !line.is_empty()) {
        item.push_str(line);
        item.push('\n');
        tokens(line, &mut |token| {
            depth += i32::from(token == "{") - i32::from(token == "}");
            None
        });
        if depth == 0 {
            items.push(std::mem::take(&mut item));
        }
    }
    assert!(item.is_empty(), "braces of {text}");
    items
}

fn is(item: &str, words: &[&str]) -> bool {
    words.iter().any(|word| item.starts_with(&format!("{word} ")))
}

/// The words before the keyword of an item: its linkage, and a hint for inlining.
const PREFIXES: [&str; 7] = ["export", "hidden", "local", "preemptible", "replaceable", "inline", "noinline"];

/// Whether an item is a function or machine code.
fn is_code(item: &str) -> bool {
    let keyword = item.split(' ').find(|word| !PREFIXES.contains(word));
    keyword.is_some_and(|word| word == "function" || word == "code")
}

/// Returns another text for the module whose printed form is `text`, which has no comments. With
/// `locals`, symbols that no other module sees get other names too.
pub(crate) fn rewrite(text: &str, module: &Module, locals: bool, random: &mut Random) -> String {
    let text = rename(text, module, locals, random);
    let (mut header, mut free, mut code, mut data) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    let mut debug = String::new();
    for item in items(&text) {
        if is(&item, &["set", "target", "test"]) {
            header.push(item);
        } else if is(&item, &["global", "symbol", "anonymous", "import"]) {
            free.push(item);
        } else if is(&item, &["debug"]) {
            debug = item;
        } else if is_code(&item) {
            code.push(function(&std::mem::take(&mut debug), &item, random));
        } else {
            data.push(item);
        }
    }
    for line in ["test optimize\n", "set enable_verifier=true\n", "set is_pic=false\n", "; header\n"] {
        if random.once_in(2) {
            header.insert(random.below(header.len() as u32 + 1) as usize, line.into());
        }
    }
    // Functions stay in order, and so do data objects.
    let mut rest = Vec::new();
    let (mut code, mut data) = (code.into_iter().peekable(), data.into_iter().peekable());
    while code.peek().is_some() || data.peek().is_some() {
        let next = if random.once_in(2) { code.next() } else { data.next() };
        rest.extend(next);
    }
    for (number, item) in
        ["import function %unused", "import data %unused", "global %unused"].iter().enumerate()
    {
        if random.once_in(3) {
            let value = if number == 2 { " = \"an unused key\"" } else { "" };
            free.push(format!("{item}{number}{value}\n"));
        }
    }
    random.shuffle(&mut free);
    for mut item in free {
        if random.once_in(4) {
            item = format!("\n; about what follows\n{item}");
        }
        rest.insert(random.below(rest.len() as u32 + 1) as usize, item);
    }
    header.concat() + "\n" + &rest.concat()
}

/// Other names for symbols. A name that other modules see is kept: an alias refers to it.
fn rename(text: &str, module: &Module, locals: bool, random: &mut Random) -> String {
    let mut names: HashMap<String, String> = HashMap::new();
    let mut aliases = String::new();
    let fresh = |random: &mut Random| format!("%n{}_{}", random.below(1000), random.next() as u32);
    for line in text.lines().filter(|line| is(line, &["global", "symbol", "anonymous"])) {
        let name = line.split(' ').nth(1).expect("a name").to_owned();
        let new = if random.once_in(2) { fresh(random) } else { name.clone() };
        names.insert(name, new);
    }
    for symbol in &module.symbols {
        let name = format!("%{}", symbol.name);
        let word = symbol.name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
        if symbol.name.is_empty() || !word || names.contains_key(&name) || random.once_in(2) {
            continue;
        }
        if symbol.linkage == Linkage::Local {
            if locals {
                names.insert(name, fresh(random));
            }
        } else {
            let new = fresh(random);
            aliases.push_str(&format!("symbol {new} = \"{}\"\n", symbol.name));
            names.insert(name, new);
        }
    }
    let renamed = tokens(text, &mut |token| names.get(token).cloned());
    // After the header.
    let at = renamed
        .lines()
        .take_while(|line| line.is_empty() || is(line, &["set", "target", "test"]))
        .map(|line| line.len() + 1)
        .sum::<usize>()
        .min(renamed.len());
    format!("{}\n{aliases}{}", &renamed[..at], &renamed[at..])
}

/// Renumbers and reorders a function, and what `debug` says about it.
fn function(debug: &str, item: &str, random: &mut Random) -> String {
    if !item.contains("\nblock") {
        return format!("{debug}{item}");
    }
    // New numbers, with gaps.
    let mut used: HashMap<&str, Vec<u32>> = HashMap::new();
    tokens(&format!("{debug}{item}"), &mut |token| {
        if let Some((prefix, number)) = entity(token) {
            let numbers = used.entry(prefix).or_default();
            if !numbers.contains(&number) {
                numbers.push(number);
            }
        }
        None
    });
    let mut numbers: HashMap<(&str, u32), u32> = HashMap::new();
    let mut spare: HashMap<&str, Vec<u32>> = HashMap::new();
    for prefix in ENTITIES {
        let old = used.remove(prefix).unwrap_or_default();
        let mut new: Vec<u32> = (0..old.len() as u32 * 3 / 2 + 8).collect();
        random.shuffle(&mut new);
        for old in old {
            numbers.extend(new.pop().map(|new| ((prefix, old), new)));
        }
        spare.insert(prefix, new);
    }
    let mut renumber = |token: &str| {
        let (prefix, number) = entity(token)?;
        Some(format!("{prefix}{}", numbers[&(prefix, number)]))
    };
    let (debug, item) = (tokens(debug, &mut renumber), tokens(item, &mut renumber));
    let (head, rest) = item.split_once('\n').expect("a function has lines");
    let (declarations, body): (Vec<_>, Vec<_>) = {
        let at = rest.lines().position(|line| line.starts_with("block")).expect("a function has a block");
        (rest.lines().take(at).collect(), rest.lines().skip(at).collect())
    };
    let declarations = declare(&declarations, &mut spare, random);
    let body = aliases(&body, spare.remove("v").unwrap_or_default(), random);
    format!("{debug}{head}\n{declarations}{body}")
}

/// Reorders declarations, and adds some that nothing uses.
fn declare(lines: &[&str], spare: &mut HashMap<&str, Vec<u32>>, random: &mut Random) -> String {
    let starts = |line: &&str, words: &[&str]| words.iter().any(|word| line.trim_start().starts_with(word));
    // The reader needs signatures before their uses, and counts the other declarations.
    let mut first: Vec<String> = Vec::new();
    let (mut signatures, mut middle, mut last) = (Vec::new(), Vec::new(), Vec::new());
    for line in lines {
        let group = if starts(line, &["ss", "region"]) {
            &mut first
        } else if starts(line, &["sig"]) {
            &mut signatures
        } else if starts(line, &["dt", "dss"]) {
            &mut last
        } else {
            &mut middle
        };
        group.push((*line).to_owned());
    }
    let mut number = |prefix| spare.get_mut(prefix).and_then(Vec::pop);
    if random.once_in(2) {
        middle.extend(number("gv").map(|gv| format!("    gv{gv} = symbol colocated %nowhere+7")));
        middle.extend(number("gv").map(|gv| format!("    gv{gv} = symbol u3:4")));
    }
    if let (true, Some(sig)) = (random.once_in(2), number("sig")) {
        signatures.push(format!("    sig{sig} = (i64 sret, f32) -> i8 fast ; unused"));
        middle.extend(number("fn").map(|function| format!("    fn{function} = %no_function sig{sig}")));
        middle.extend(number("fn").map(|function| format!("    fn{function} = u7:9(i32) -> i128 tail")));
    }
    if random.once_in(4) {
        middle.extend(number("const").map(|constant| format!("    const{constant} = 0x0123")));
    }
    random.shuffle(&mut signatures);
    random.shuffle(&mut middle);
    [first, signatures, middle, last].concat().iter().map(|line| format!("{line}\n")).collect()
}

/// Adds aliases that are used, and comments, to the code.
fn aliases(lines: &[&str], mut spare: Vec<u32>, random: &mut Random) -> String {
    let mut out = String::new();
    let mut names: HashMap<String, String> = HashMap::new();
    for line in lines {
        let defined = match line.split_once(" = ") {
            _ if line.starts_with("block") => *line,
            Some((defined, _)) => defined,
            None => "",
        };
        let used = tokens(line, &mut |token| names.get(token).filter(|_| random.once_in(2)).cloned());
        out.push_str(&used);
        out.push_str(if random.once_in(16) { " ; \" } noise\n" } else { "\n" });
        let mut values = Vec::new();
        tokens(defined, &mut |token| {
            values.extend(entity(token).filter(|(prefix, _)| *prefix == "v").map(|_| token.to_owned()));
            None
        });
        for value in values {
            if random.once_in(6)
                && let Some(alias) = spare.pop()
            {
                out.push_str(&format!("    v{alias} -> {value}\n"));
                names.insert(value, format!("v{alias}"));
            }
        }
    }
    out
}
