//! Reads and verifies one function.
//!
//! Cranelift's reader is made for trusted test files: some wrong texts make it panic, and an entity number is taken as a
//! table size, so that `block4000000000:` asks for all memory. Numbers are therefore bounded before the reader sees them
//! ([`check_numbers`]), references that the verifier takes for granted are checked between the two
//! ([`names::check`]), and what is left is caught as a last resort: a panic of the reader or of the verifier
//! becomes a diagnostic of that function. (The process's panic hook still prints; with `panic = "abort"` nothing can be
//! caught.)

use std::panic::{AssertUnwindSafe, catch_unwind};

use cranelift_codegen::ir::entities::AnyEntity;
use cranelift_codegen::isa::{CallConv, TargetIsa};
use cranelift_codegen::{ir, verify_function};
use cranelift_reader::{Details, ParseError, ParseOptions, SourceMap, parse_test};

use super::comments;
use super::cursor::unescaped;
use super::locate::Locator;
use crate::comments::Comments;
use crate::diagnostic::{Diagnostic, DiagnosticKind, Place};
use crate::names::{self, Unusable};

/// A function may hold entity numbers up to so many for each byte of its text.
const FREE_NUMBERS: usize = 4;

/// Entries of tables that a file may ask for beyond what its functions may hold. So memory and time are in proportion to the
/// length of a file, and numbers may still be sparse.
#[derive(Clone, Copy)]
pub(super) struct Budget(usize);

impl Budget {
    pub(super) fn new(file: &str) -> Self {
        Self(file.len().saturating_mul(FREE_NUMBERS).saturating_add(1 << 16))
    }
}

/// What stands before the numbers that are table indices.
const ENTITIES: [&str; 13] =
    ["v", "block", "ss", "dss", "dt", "gv", "mt", "const", "fn", "sig", "userextname", "region", "ex"];

/// A function, read and verified; names still as written.
pub(super) struct Read {
    pub(super) ir: ir::Function,
    pub(super) comments: Comments,
}

/// Reads a function, and verifies it if `isa` is given. `None` if anything was wrong, which is then in `faults`.
pub(super) fn read(
    locator: Locator<'_>,
    call_conv: CallConv,
    isa: Option<&dyn TargetIsa>,
    budget: &mut Budget,
    faults: &mut Vec<Diagnostic>,
) -> Option<Read> {
    if let Err((at, length, limit)) = check_numbers(locator.item.text, budget) {
        let place = Place::at(locator.source, locator.item.at + at, length);
        let message = format!("entity numbers go up to {limit} in a function of this size");
        faults.push(Diagnostic::new(DiagnosticKind::Unsupported, message, place));
        return None;
    }
    let options = ParseOptions { default_calling_convention: call_conv, ..ParseOptions::default() };
    let read = match guard(|| parse_test(locator.item.text, options)) {
        Ok(Ok(file)) => file.functions.into_iter().next(),
        Ok(Err(ParseError { location, message, .. })) => {
            let (place, better) = locator.syntax(location.line_number, &message);
            let message = better.unwrap_or_else(|| one_line(&message));
            faults.push(Diagnostic::new(DiagnosticKind::Syntax, message, place));
            return None;
        }
        Err(panic) => {
            let message = format!("Cranelift's reader fails on this function: {panic}");
            faults.push(Diagnostic::new(DiagnosticKind::Syntax, message, locator.function()));
            return None;
        }
    };
    // The item starts with `function`, so that the reader has read one or failed.
    let (mut ir, Details { map, .. }) = read?;
    let before = faults.len();
    faults.extend(names::check(&ir).iter().map(|fault| {
        let kind = match fault {
            Unusable::NoGlobal(..) | Unusable::NoName(_) | Unusable::Empty => DiagnosticKind::Verifier,
            Unusable::KnownSymbol(_)
            | Unusable::ThreadLocal(_)
            | Unusable::NoAddress(..)
            | Unusable::Offset(_) => DiagnosticKind::Unsupported,
        };
        Diagnostic::new(kind, fault.to_string(), locator.entity(fault.entity(), &map))
    }));
    if let (Some(isa), true) = (isa, faults.len() == before) {
        verify(&ir, isa, &map, locator, faults);
    }
    if faults.len() != before {
        return None;
    }
    let comments =
        if locator.item.comments.is_empty() { Comments::new() } else { comments::inside(locator, &ir, &map) };
    described(&mut ir);
    Some(Read { comments, ir })
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
            let message = format!("Cranelift's verifier fails on this function: {panic}");
            faults.push(Diagnostic::new(DiagnosticKind::Verifier, message, locator.function()));
        }
    }
}

/// Turns a panic into its message.
pub(super) fn guard<T>(work: impl FnOnce() -> T) -> Result<T, String> {
    // Whatever the work has half done is dropped with it.
    catch_unwind(AssertUnwindSafe(work)).map_err(|panic| {
        let text = panic.downcast_ref::<&str>().copied();
        let text = text.or_else(|| panic.downcast_ref::<String>().map(String::as_str));
        one_line(text.unwrap_or("panic"))
    })
}

/// A foreign message in our form: one line, lower case unless it starts with a name, no full stop.
pub(super) fn one_line(message: &str) -> String {
    let mut text = message.split_whitespace().collect::<Vec<_>>().join(" ");
    let mut chars = text.chars();
    if let (Some(first), Some(second)) = (chars.next(), chars.next())
        && first.is_ascii_uppercase()
        && second.is_ascii_lowercase()
    {
        text.replace_range(..1, &first.to_ascii_lowercase().to_string());
    }
    text.truncate(text.trim_end_matches('.').len());
    text
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

/// Takes from `budget` what the entity numbers of a function ask for, or gives position and length of the largest number, and up
/// to which number there may be any.
fn check_numbers(text: &str, budget: &mut Budget) -> Result<(), (usize, usize, usize)> {
    let bytes = text.as_bytes();
    // Below a hundred nothing is looked at.
    let free = text.len().saturating_mul(FREE_NUMBERS).max(100);
    if !suspicious(bytes, free.ilog10() as usize + 1) {
        return Ok(());
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
    if number <= free {
        return Ok(());
    }
    match budget.0.checked_sub(number) {
        Some(rest) => {
            budget.0 = rest;
            Ok(())
        }
        None => Err((at, length, free.max(budget.0))),
    }
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
    // Digits are 0 to 9 after the exclusive or; only they leave every top bit clear.
    let all = |group: &[u8]| {
        let value = u32::from_ne_bytes([group[0], group[1], group[2], group[3]]) ^ 0x3030_3030;
        (value | value.wrapping_add(0x7676_7676)) & 0x8080_8080 == 0
    };
    if digits >= 5 {
        // Four of the five start at an even place.
        bytes.windows(4).enumerate().step_by(2).any(|(at, group)| all(group) && long(at))
    } else {
        // Of three in a row, two are an aligned pair.
        let mut pairs = bytes.as_chunks::<2>().0.iter().enumerate();
        pairs.any(|(n, [a, b])| a.is_ascii_digit() && b.is_ascii_digit() && long(n * 2))
    }
}

fn word_length(bytes: &[u8]) -> usize {
    bytes.iter().take_while(|b| b.is_ascii_alphanumeric() || **b == b'_').count()
}
