//! Prints data objects: text as strings, pointers by name, other bytes in hexadecimal.

use std::cell::Cell;
use std::fmt::Write as _;

use super::names::Names;
use super::quote::quoted;
use crate::data::{DataObject, Init};

/// The length from which a run of zeros is written as a count.
const ZEROS: usize = 8;
/// The length from which a run of printable characters is written as a string.
const TEXT: usize = 4;
/// The largest number of bytes in one piece of hexadecimal.
const PIECE: usize = 32;
/// The largest number of characters in one string.
const LINE: usize = 72;
/// A data object that fits this width is written on one line.
const WIDTH: usize = 100;

/// Writes a data object, starting with its name. `zeros` is the number of zeros that may still be
/// written as a count.
pub(super) fn write(data: &DataObject, names: &Names, zeros: &Cell<u64>, out: &mut String) {
    let start = out.rfind('\n').map_or(0, |at| at + 1);
    out.push_str(names.text(data.symbol));
    if data.is_thread_local() {
        out.push_str(" tls");
    } else if data.writable {
        out.push_str(" writable");
    }
    if data.align != 8 {
        let _ = write!(out, " align={}", data.align);
    }
    if let Some(section) = data.section.as_ref().filter(|_| !data.is_thread_local()) {
        let _ = write!(out, " section={}", quoted(section.as_bytes()));
    }
    let pieces = pieces(data, names, zeros);
    let length: usize = pieces.iter().map(|piece| piece.len() + 2).sum();
    if pieces.is_empty() {
        out.push_str(" {}\n");
    } else if out.len() - start + length < WIDTH {
        let _ = writeln!(out, " {{ {} }}", pieces.join(", "));
    } else {
        let _ = writeln!(out, " {{\n    {}\n}}", pieces.join(",\n    "));
    }
}

fn pieces(data: &DataObject, names: &Names, zeros: &Cell<u64>) -> Vec<String> {
    let mut pieces = Vec::new();
    let bytes = match &data.init {
        Init::Zeros(0) => return pieces,
        Init::Zeros(len) => {
            pieces.push(format!("zeros {len}"));
            return pieces;
        }
        Init::Bytes(bytes) => bytes,
    };
    let mut at = 0;
    for address in &data.addresses {
        // Pointers are inside the content and in ascending order.
        let start = usize::try_from(address.offset).unwrap_or(usize::MAX).min(bytes.len());
        plain(&bytes[at.min(start)..start], zeros, &mut pieces);
        let mut piece = format!("addr {}", names.text(address.symbol));
        if address.addend != 0 {
            let sign = if address.addend < 0 { '-' } else { '+' };
            let _ = write!(piece, " {sign} {}", address.addend.unsigned_abs());
        }
        pieces.push(piece);
        at = (start + 8).min(bytes.len());
    }
    plain(&bytes[at..], zeros, &mut pieces);
    pieces
}

/// Writes bytes without pointers.
fn plain(bytes: &[u8], left: &Cell<u64>, pieces: &mut Vec<String>) {
    let mut at = 0;
    let mut hex = 0;
    while at < bytes.len() {
        let rest = &bytes[at..];
        let zeros = rest.iter().take_while(|b| **b == 0).count();
        let text = rest.iter().take_while(|b| printable(**b)).count();
        let rest_of_zeros = left.get().checked_sub(zeros as u64).filter(|_| zeros >= ZEROS);
        if rest_of_zeros.is_some() || text >= TEXT {
            hexadecimal(&bytes[hex..at], pieces);
            if let Some(rest) = rest_of_zeros {
                left.set(rest);
                pieces.push(format!("zeros {zeros}"));
                at += zeros;
            } else {
                // A zero after the text ends the string, unless it starts a run that is long enough
                // for a count.
                let ends = rest[text..].first() == Some(&0)
                    && rest[text..].iter().take(ZEROS).take_while(|b| **b == 0).count() < ZEROS;
                string(&rest[..text + usize::from(ends)], pieces);
                at += text + usize::from(ends);
            }
            hex = at;
        } else {
            // Neither a count nor a string starts in these bytes.
            at += zeros.max(text).max(1);
        }
    }
    hexadecimal(&bytes[hex..], pieces);
}

fn printable(byte: u8) -> bool {
    matches!(byte, b' '..=b'~' | b'\n' | b'\t')
}

fn hexadecimal(bytes: &[u8], pieces: &mut Vec<String>) {
    for chunk in bytes.chunks(PIECE) {
        let mut piece = "bytes #".to_owned();
        for byte in chunk {
            let _ = write!(piece, "{byte:02x}");
        }
        pieces.push(piece);
    }
}

/// Writes text as strings. It is split after line ends and where it is too long for one string.
fn string(bytes: &[u8], pieces: &mut Vec<String>) {
    let mut rest = bytes;
    while !rest.is_empty() {
        let line = rest.iter().position(|b| *b == b'\n').map_or(rest.len(), |at| at + 1);
        let mut length = line.min(LINE);
        // A final zero joins the last string instead of getting its own.
        if rest.len() - length == 1 && rest[length] == 0 {
            length += 1;
        }
        pieces.push(format!("bytes {}", quoted(&rest[..length])));
        rest = &rest[length..];
    }
}
