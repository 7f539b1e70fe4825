//! Reads and verifies one function.
//!
//! Cranelift's reader is made for trusted test files: some wrong texts make it panic, and an entity number is taken as a
//! table size, so that `block4000000000:` asks for all memory. Numbers are therefore bounded before the reader sees them
//! ([`large_numbers`]), references that the verifier takes for granted are checked between the two
//! ([`references::check`]), and what is left is caught as a last resort: a panic of the reader or of the verifier
//! becomes a diagnostic of that function. (The process's panic hook still prints; with `panic = "abort"` nothing can be
//! caught.)

use std::cell::Cell;

use cranelift_codegen::ir::entities::AnyEntity;
use cranelift_codegen::isa::{CallConv, TargetIsa};
use cranelift_codegen::{ir, verify_function};
use cranelift_reader::{Details, ParseError, ParseOptions, SourceMap, parse_test};

use super::bounds::TooMany;
use super::cursor::unescaped;
use super::locate::Locator;
use super::scan::FunctionItem;
use super::{bounds, comments};
use crate::comments::Comments;
use crate::diagnostic::{Diagnostic, DiagnosticKind, one_line};
use crate::guard::guard;
use crate::location::Location;

use crate::references::{self, Unusable};

/// A function may hold entity numbers up to so many for each byte of its text.
const FREE_NUMBERS: usize = 4;

/// Entries of tables that a file may ask for beyond what its functions may hold. So memory and time are in proportion to the
/// length of a file, and numbers may still be sparse.
pub(super) struct Budget(usize);

impl Budget {
    pub(super) fn new(file: &str) -> Self {
        Self(file.len().saturating_mul(FREE_NUMBERS).saturating_add(1 << 16))
    }

    /// Takes what a function asks for, if it is there.
    pub(super) fn take(&mut self, numbers: &Numbers) -> bool {
        let rest = self.0.checked_sub(numbers.number);
        self.0 = rest.unwrap_or(self.0);
        rest.is_some()
    }

    /// What to say of a function that asks for more.
    pub(super) fn fault(&self, numbers: &Numbers, locator: Locator<'_>) -> Diagnostic {
        let place = Location::at(locator.source, locator.item.at + numbers.at, numbers.length);
        let limit = numbers.free.max(self.0);
        let message = format!("entity numbers go up to {limit} in a function of this size");
        Diagnostic::new(DiagnosticKind::Unsupported, message, place)
    }
}

/// The largest entity number of a function.
pub(super) struct Numbers {
    /// Where it stands in the function's text.
    at: usize,
    length: usize,
    number: usize,
    /// Up to which number a function of this length may have any.
    free: usize,
}

/// What stands before the numbers that are table indices.
const ENTITIES: [&str; 13] =
    ["v", "block", "ss", "dss", "dt", "gv", "mt", "const", "fn", "sig", "userextname", "region", "ex"];

/// A function, read and verified; names still as written.
pub(super) struct Read {
    pub(super) ir: ir::Function,
    pub(super) comments: Comments,
}

/// Why a function was not read.
pub(super) enum Refused {
    /// For everything that is wrong with it.
    Faults(Vec<Diagnostic>),
    /// For its entity numbers, unless there is leave to have them.
    Large(Numbers),
}

/// Working memory.
#[derive(Default)]
struct Scratch {
    /// The text that Cranelift's reader is given.
    text: String,
    comments: Vec<Noted>,
}

/// What is noted of a comment on the way.
pub(super) struct Noted {
    /// Line in the function's text.
    pub(super) line: usize,
    /// Whether anything but spaces and tabs stands before it.
    pub(super) behind: bool,
}

/// Reads a function, and verifies it if `isa` is given. `large` is leave to have large entity numbers.
pub(super) fn read(
    locator: Locator<'_>,
    call_conv: CallConv,
    isa: Option<&dyn TargetIsa>,
    large: bool,
) -> Result<Read, Refused> {
    thread_local! {
        static SCRATCH: Cell<Scratch> = Cell::default();
    }
    let mut scratch = SCRATCH.take();
    shorten(locator.item, &mut scratch);
    // What is left out holds no entity, so that the short text tells whether a closer look is needed.
    let numbers = if large { None } else { large_numbers(locator.item.text, &scratch.text) };
    let read = match numbers {
        Some(numbers) => Err(Refused::Large(numbers)),
        None => read_short(&scratch, locator, call_conv, isa).map_err(Refused::Faults),
    };
    SCRATCH.set(scratch);
    read
}

/// Writes the text of a function without what its reader, which goes from character to character, would take its time to skip:
/// blanks at the start of lines and behind source locations, and of comments all but that there is one. Lines stay what they
/// are.
fn shorten(item: &FunctionItem<'_>, scratch: &mut Scratch) {
    let Scratch { text, comments } = scratch;
    text.clear();
    comments.clear();
    text.reserve(item.text.len());
    let (mut from, mut line) = (0, 1);
    for &(start, end) in &item.comments {
        line += lines(&item.text[from..start - item.at], text);
        comments.push(Noted { line, behind: !matches!(text.as_bytes().last(), None | Some(b'\n')) });
        text.push(';');
        from = end - item.at;
    }
    lines(&item.text[from..], text);
}

/// Adds a piece of a function's text without comments, and tells how many lines end in it. A string does not go over the end of
/// a line.
fn lines(text: &str, out: &mut String) -> usize {
    let (mut rest, mut count) = (text, 0);
    loop {
        let Some(end) = memchr::memchr(b'\n', rest.as_bytes()) else {
            out.push_str(rest);
            return count;
        };
        out.push_str(&rest[..=end]);
        count += 1;
        rest = blanks(&rest[end + 1..]);
        if rest.starts_with('@') {
            let word = rest.bytes().take_while(|b| !matches!(b, b' ' | b'\t' | b'\n')).count();
            let behind = blanks(&rest[word..]);
            if rest.len() - behind.len() > word {
                out.push_str(&rest[..word]);
                out.push(' ');
                rest = behind;
            }
        }
    }
}

/// The text behind the blanks that it starts with.
#[inline]
fn blanks(text: &str) -> &str {
    // Listings are indented by dozens of spaces.
    let (groups, _) = text.as_bytes().as_chunks::<8>();
    let at = groups.iter().take_while(|group| **group == [b' '; 8]).count() * 8;
    let rest = &text[at..];
    &rest[rest.bytes().take_while(|b| matches!(b, b' ' | b'\t')).count()..]
}

fn read_short(
    scratch: &Scratch,
    locator: Locator<'_>,
    call_conv: CallConv,
    isa: Option<&dyn TargetIsa>,
) -> Result<Read, Vec<Diagnostic>> {
    if let Some(TooMany { word, line, message }) = bounds::too_many(&scratch.text) {
        let place = Location::word(locator.source, locator.line(line), word);
        return Err(vec![Diagnostic::new(DiagnosticKind::Unsupported, message, place)]);
    }
    let options = ParseOptions { default_calling_convention: call_conv, ..ParseOptions::default() };
    let read = match guard(|| parse_test(&scratch.text, options)) {
        Ok(Ok(file)) => file.functions.into_iter().next(),
        Ok(Err(ParseError { location, message, .. })) => {
            let (place, better) = locator.syntax(location.line_number, &message);
            let message = better.unwrap_or_else(|| one_line(&message));
            return Err(vec![Diagnostic::new(DiagnosticKind::Syntax, message, place)]);
        }
        Err(panic) => {
            let message = format!("Cranelift's reader fails on this function: {}", one_line(&panic));
            return Err(vec![Diagnostic::new(DiagnosticKind::Syntax, message, locator.function())]);
        }
    };
    // The item starts with `function`, so that the reader has read one or failed.
    let (mut ir, Details { map, comments, .. }) = read.ok_or_else(Vec::new)?;
    let unusable = references::check(&ir).into_iter().map(|fault| {
        let kind = match fault {
            Unusable::NoGlobal(..) | Unusable::NoName(_) | Unusable::Empty => DiagnosticKind::Verifier,
            Unusable::KnownSymbol(_)
            | Unusable::ThreadLocal(_)
            | Unusable::NoAddress(..)
            | Unusable::Chain(_)
            | Unusable::Offset(_) => DiagnosticKind::Unsupported,
        };
        Diagnostic::new(kind, fault.to_string(), locator.entity(fault.entity(), &map))
    });
    let mut faults: Vec<_> = unusable.collect();
    if let (Some(isa), true) = (isa, faults.is_empty()) {
        verify(&ir, isa, &map, locator, &mut faults);
    }
    if !faults.is_empty() {
        return Err(faults);
    }
    let comments = match locator.item.comments.is_empty() {
        true => Comments::new(),
        false => {
            let entities = comments.iter().map(|comment| comment.entity);
            comments::inside(locator, &ir, scratch.comments.iter().zip(entities))
        }
    };
    described(&mut ir);
    Ok(Read { comments, ir })
}

fn verify(
    ir: &ir::Function,
    isa: &dyn TargetIsa,
    map: &SourceMap,
    locator: Locator<'_>,
    faults: &mut Vec<Diagnostic>,
) {
    match guard(|| verify_function(ir, isa)) {
        Ok(Ok(())) => {}
        Ok(Err(errors)) => faults.extend(errors.0.into_iter().map(|error| {
            let place = match error.location {
                AnyEntity::Inst(inst) if map.location(error.location).is_none() => {
                    locator.entity(ir.layout.inst_block(inst).map_or(AnyEntity::Function, Into::into), map)
                }
                location => locator.entity(location, map),
            };
            Diagnostic::new(DiagnosticKind::Verifier, one_line(&error.message), place)
        })),
        Err(panic) => {
            let message = format!("Cranelift's verifier fails on this function: {}", one_line(&panic));
            faults.push(Diagnostic::new(DiagnosticKind::Verifier, message, locator.function()));
        }
    }
}

/// Resolves the escapes in the descriptions of alias regions, which the reader takes as they stand. What is no escape stays
/// as it is.
fn described(ir: &mut ir::Function) {
    let regions = &mut ir.dfg.alias_regions;
    if regions.iter().all(|(_, region)| !region.description.contains('\\')) {
        return;
    }
    let all: Vec<_> = regions.iter().map(|(_, region)| region.clone()).collect();
    regions.clear();
    for mut region in all {
        let text = unescaped(&region.description).and_then(|bytes| String::from_utf8(bytes).ok());
        if let Some(text) = text {
            region.description = text.into();
        }
        regions.push(region);
    }
}

/// The largest entity number of a function, if it may not have it without being asked about.
/// `short` is its text without what needs no look.
fn large_numbers(text: &str, short: &str) -> Option<Numbers> {
    let bytes = text.as_bytes();
    // Below a hundred nothing is looked at.
    let free = text.len().saturating_mul(FREE_NUMBERS).max(100);
    if !suspicious(short.as_bytes(), free.ilog10() as usize + 1) {
        return None;
    }
    // Now exactly: words outside comments and strings.
    let mut largest = (0, 0, 0);
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        let rest = &bytes[at..];
        let length = match byte {
            b';' => memchr::memchr(b'\n', rest).unwrap_or(rest.len()),
            b'"' => memchr::memchr(b'"', &rest[1..]).map_or(rest.len(), |end| end + 2),
            b'%' | b'@' | b'#' => 1 + word_length(&rest[1..]),
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'_' => {
                let length = word_length(rest);
                let word = &text[at..at + length];
                let number = word.trim_start_matches(|c: char| !c.is_ascii_digit());
                let entity = &word[..length - number.len()];
                // A number of more than 64 bits is refused by the reader.
                if let (true, Ok(number)) = (ENTITIES.contains(&entity), number.parse::<u64>()) {
                    let number = usize::try_from(number).unwrap_or(usize::MAX);
                    if number > largest.2 {
                        largest = (at, length, number);
                    }
                }
                length
            }
            _ => 1,
        };
        at += length;
    }
    let (at, length, number) = largest;
    (number > free).then_some(Numbers { at, length, number, free })
}

/// Whether there may be an entity number of so many digits, at least 3; a quick look, for nearly all functions have none.
fn suspicious(bytes: &[u8], digits: usize) -> bool {
    let long = |at: usize| {
        let before = bytes[..at].iter().rev().take_while(|b| b.is_ascii_digit()).count();
        let behind = bytes[at..].iter().take_while(|b| b.is_ascii_digit()).count();
        let word = bytes[..at - before].iter().rev().take_while(|b| b.is_ascii_alphabetic()).count();
        let word = &bytes[at - before - word..at - before];
        before + behind >= digits && ENTITIES.iter().any(|entity| entity.as_bytes() == word)
    };
    if digits >= 5 {
        // Four of the five are two pairs in a row, each of which starts at an even place.
        let (chunks, rest) = bytes.as_chunks::<8>();
        let mut before = (0, 0);
        let groups = chunks.iter().enumerate().any(|(n, chunk)| {
            // Digits are 0 to 9 after the exclusive or. The top bit of each byte then tells whether it is none.
            let value = u64::from_le_bytes(*chunk) ^ 0x3030_3030_3030_3030;
            let other = value | (value & 0x7f7f_7f7f_7f7f_7f7f).wrapping_add(0x7676_7676_7676_7676);
            let digits = !other & 0x8080_8080_8080_8080;
            // A bit for each of the four pairs, at 15, 31, 47 and 63.
            let pairs = digits & digits << 8 & 0x8000_8000_8000_8000;
            let found = pairs & (pairs << 16 | before.0 >> 48);
            // A long row of digits is looked at once.
            let first = found & !(found << 16 | before.1 >> 48);
            before = (pairs, found);
            let mut left = first;
            while left != 0 {
                if long(n * 8 + left.trailing_zeros() as usize / 16 * 2) {
                    return true;
                }
                left &= left - 1;
            }
            false
        });
        // What is left has less than two pairs in a row, but for what stands before it.
        let tail = bytes.len() - rest.len();
        groups || (tail.saturating_sub(2)..bytes.len()).any(|at| bytes[at].is_ascii_digit() && long(at))
    } else {
        // Of three in a row, two are an aligned pair.
        let mut pairs = bytes.as_chunks::<2>().0.iter().enumerate();
        pairs.any(|(n, [a, b])| a.is_ascii_digit() && b.is_ascii_digit() && long(n * 2))
    }
}

fn word_length(bytes: &[u8]) -> usize {
    bytes.iter().take_while(|b| b.is_ascii_alphanumeric() || **b == b'_').count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_numbers_are_found_wherever_they_stand() {
        for digits in 5..9 {
            for at in 0..40 {
                for behind in 0..20 {
                    let blanks = |count| " ".repeat(count);
                    let text = |number: &str| format!("{}v{number}{}", blanks(at), blanks(behind));
                    assert!(
                        suspicious(text(&"7".repeat(digits)).as_bytes(), digits),
                        "{digits} {at} {behind}"
                    );
                    assert!(!suspicious(text(&"7".repeat(digits - 1)).as_bytes(), digits));
                    assert!(!suspicious(text(&format!("x{}", "7".repeat(digits))).as_bytes(), digits));
                }
            }
        }
    }

    #[test]
    fn what_the_reader_need_not_skip() {
        let text = "function %f() {\n\tss0 = explicit_slot 8  ; a \"\n\n           block0: ; b\n@12  \t   return ;\n   ; c\n @3\n}";
        let at = text.match_indices(';').map(|(at, _)| at);
        let comments = at.map(|at| (at, at + text[at..].find('\n').unwrap())).collect();
        let linkage = crate::Linkage::Export;
        let item = FunctionItem { linkage, at: 0, line: 1, text, comments };
        let mut scratch = Scratch::default();
        shorten(&item, &mut scratch);
        let short = "function %f() {\nss0 = explicit_slot 8  ;\n\nblock0: ;\n@12 return ;\n;\n@3\n}";
        assert_eq!(scratch.text, short);
        let noted: Vec<_> = scratch.comments.iter().map(|noted| (noted.line, noted.behind)).collect();
        assert_eq!(noted, [(2, true), (4, true), (5, true), (6, false)]);
    }
}
