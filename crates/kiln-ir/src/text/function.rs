//! Reads and verifies one function.
//!
//! Cranelift's reader is made for trusted test files. Some wrong texts make it panic, and it takes
//! the number of an entity for the size of a table, so `block4000000000:` would use up all memory.
//! So numbers are bounded before the reader sees them ([`large_numbers`]), and references that the
//! verifier assumes to be valid are checked before it runs ([`references::check`]). Any other panic
//! of the reader or the verifier becomes a diagnostic of the function (`guard`).
//!
//! That reader is slow. So it reads only the declarations of a usual function, and [`blocks`] reads
//! the rest. Every function that has an error is read by Cranelift's reader alone.

use std::cell::Cell;

use cranelift_codegen::ir::entities::AnyEntity;
use cranelift_codegen::isa::{CallConv, TargetIsa};
use cranelift_codegen::{ir, verify_function};
use cranelift_reader::{Details, ParseError, ParseOptions, parse_test};

use super::blocks::{self, BlocksText};
use super::comments;
use super::large_numbers::{LargestNumber, free_numbers, large_numbers};
use super::locate::{EntityLocator, Locator};
use super::own_lines::{self, OwnLines};
use super::shorten::{ShortText, shorten};
use super::tokens::unescaped;
use crate::comments::Comments;
use crate::diagnostic::{Diagnostic, DiagnosticKind, one_line};
use crate::guard::guard;
use crate::location::Location;

use crate::reader_limits::{TooMany, too_many};
use crate::references::{self, Unusable};
use crate::variables::Variable;

/// A function that was read and verified. Its names are still those of the text.
pub(super) struct ReadFunction {
    pub(super) ir: ir::Function,
    pub(super) comments: Comments,
    pub(super) variables: Box<[Variable]>,
    /// The lines of the function's locations, if the text itself is debugged.
    pub(super) own_lines: OwnLines,
}

/// The reason why a function was not read.
pub(super) enum Refused {
    /// Its errors.
    Faults(Vec<Diagnostic>),
    /// The function's entity numbers are so large that they need part of the file's budget.
    Large(LargestNumber),
}

/// Reads a function, and verifies it if `isa` is given. With `large`, large entity numbers are
/// allowed; with `own`, its source locations are its lines in the text.
pub(super) fn read(
    locator: Locator<'_>,
    call_conv: CallConv,
    isa: Option<&dyn TargetIsa>,
    large: bool,
    own: bool,
) -> Result<ReadFunction, Refused> {
    thread_local! {
        static SHORT_TEXT: Cell<ShortText> = Cell::default();
    }
    let mut short = SHORT_TEXT.take();
    if !large
        && !own
        && let Some(read) = read_usual(&mut short, locator, call_conv, isa)
    {
        SHORT_TEXT.set(short);
        return Ok(read);
    }
    let item = locator.item;
    shorten(item.text, item.start, &item.comments, &mut short);
    // The parts that the short text leaves out contain no entities.
    let numbers = if large { None } else { large_numbers(locator.item.text, &short.text) };
    let read = match numbers {
        Some(numbers) => Err(Refused::Large(numbers)),
        None => read_short(&short, locator, call_conv, isa, own).map_err(Refused::Faults),
    };
    SHORT_TEXT.set(short);
    read
}

/// Reads a function whose blocks [`blocks`] can read, and that has no errors.
pub(super) fn read_usual(
    short: &mut ShortText,
    locator: Locator<'_>,
    call_conv: CallConv,
    isa: Option<&dyn TargetIsa>,
) -> Option<ReadFunction> {
    let item = locator.item;
    let start = blocks::start(item.text)?;
    let (head, text) = item.text.split_at(start);
    let in_head = item.comments.partition_point(|(at, _)| at - item.start < start);
    shorten(head, item.start, &item.comments[..in_head], short);
    short.text.push('}');
    if too_many(&short.text).is_some() || large_numbers(item.text, &short.text).is_some() {
        return None;
    }
    let options = ParseOptions { default_calling_convention: call_conv, ..ParseOptions::default() };
    let read = guard(|| parse_test(&short.text, options)).ok()?.ok()?.functions.into_iter().next();
    let (declared, Details { map, comments, .. }) =
        read.filter(|(ir, _)| ir.layout.entry_block().is_none())?;
    let line = 1 + memchr::memchr_iter(b'\n', head.as_bytes()).count();
    let text = BlocksText { text, line, largest: free_numbers(item.text) };
    let (mut ir, noted) = guard(|| blocks::read(text, declared, &map)).ok()??;
    if !references::check(&ir).is_empty() {
        return None;
    }
    if let Some(isa) = isa {
        guard(|| verify_function(&ir, isa)).ok()?.ok()?;
    }
    let comments = match item.comments.is_empty() {
        true => Comments::new(),
        false => {
            let declared = short.comments.iter().zip(comments.iter().map(|comment| comment.entity));
            comments::inside(locator, &ir, declared.chain(noted.iter().map(|(note, entity)| (note, *entity))))
        }
    };
    described(&mut ir);
    Some(ReadFunction { comments, ir, variables: Box::default(), own_lines: OwnLines::new() })
}

pub(super) fn read_short(
    short: &ShortText,
    locator: Locator<'_>,
    call_conv: CallConv,
    isa: Option<&dyn TargetIsa>,
    own: bool,
) -> Result<ReadFunction, Vec<Diagnostic>> {
    if let Some(TooMany { word, line, message }) = too_many(&short.text) {
        let location = Location::word_from(locator.source, locator.line(line), word, locator.item.start);
        return Err(vec![Diagnostic::new(DiagnosticKind::Unsupported, message, location)]);
    }
    let options = ParseOptions { default_calling_convention: call_conv, ..ParseOptions::default() };
    let read = match guard(|| parse_test(&short.text, options)) {
        Ok(Ok(file)) => file.functions.into_iter().next(),
        Ok(Err(ParseError { location, message, .. })) => {
            let (location, better) = locator.syntax(location.line_number, &message);
            let message = better.unwrap_or_else(|| one_line(&message));
            return Err(vec![Diagnostic::new(DiagnosticKind::Syntax, message, location)]);
        }
        Err(panic) => {
            let message = format!("Cranelift's reader fails on this function: {}", one_line(&panic));
            return Err(vec![Diagnostic::new(DiagnosticKind::Syntax, message, locator.function())]);
        }
    };
    // The item starts with `function`, so the reader has read a function or failed.
    let (mut ir, Details { map, comments, .. }) = read.ok_or_else(Vec::new)?;
    let entities = EntityLocator::new(locator, &map);
    let unusable = references::check(&ir).into_iter().map(|fault| {
        let kind = match fault {
            Unusable::NoGlobal(..) | Unusable::NoName(_) | Unusable::Empty => DiagnosticKind::Verifier,
            Unusable::KnownSymbol(_)
            | Unusable::ThreadLocal(_)
            | Unusable::NoAddress(..)
            | Unusable::Chain(_)
            | Unusable::Offset(_) => DiagnosticKind::Unsupported,
        };
        Diagnostic::new(kind, fault.to_string(), entities.location(fault.entity()))
    });
    let mut faults: Vec<_> = unusable.collect();
    if let (Some(isa), true) = (isa, faults.is_empty()) {
        verify(&ir, isa, &entities, &mut faults);
    }
    if !faults.is_empty() {
        return Err(faults);
    }
    let comments = match locator.item.comments.is_empty() {
        true => Comments::new(),
        false => {
            let entities = comments.iter().map(|comment| comment.entity);
            comments::inside(locator, &ir, short.comments.iter().zip(entities))
        }
    };
    described(&mut ir);
    let (own_lines, variables) = match own {
        true => own_lines::number(&mut ir, &map, locator),
        false => Default::default(),
    };
    Ok(ReadFunction { comments, ir, variables, own_lines })
}

fn verify(
    ir: &ir::Function,
    isa: &dyn TargetIsa,
    entities: &EntityLocator<'_, '_>,
    faults: &mut Vec<Diagnostic>,
) {
    match guard(|| verify_function(ir, isa)) {
        Ok(Ok(())) => {}
        Ok(Err(errors)) => faults.extend(errors.0.into_iter().map(|error| {
            let entity = match error.location {
                AnyEntity::Inst(inst) if !entities.has_line(error.location) => {
                    ir.layout.inst_block(inst).map_or(AnyEntity::Function, Into::into)
                }
                entity => entity,
            };
            let location = entities.location(entity);
            Diagnostic::new(DiagnosticKind::Verifier, one_line(&error.message), location)
        })),
        Err(panic) => {
            let message = format!("Cranelift's verifier fails on this function: {}", one_line(&panic));
            faults.push(Diagnostic::new(DiagnosticKind::Verifier, message, entities.locator.function()));
        }
    }
}

/// Resolves the escapes in the descriptions of alias regions, which the reader takes literally. A
/// description with an invalid escape is left as it is.
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
