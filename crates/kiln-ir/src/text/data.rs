//! Reads `data` and `global` items.
//!
//! Each function reads one item, with the cursor after its keyword, and returns it. Names are
//! resolved later, when all definitions of the file are known.

use cranelift_codegen::ir::immediates::{Ieee32, Ieee64};
use kiln_globals::{THREAD_LOCAL_SECTION, is_reserved_section};

use super::cursor::{Cursor, Token};
use super::item::{AddressItem, DataItem, GlobalItem};
use crate::data::Init;
use crate::limits::MAX_ZEROS;
use crate::symbol::Linkage;

/// Reads a global.
pub(super) fn global<'t>(cursor: &mut Cursor<'t>) -> Token<GlobalItem<'t>> {
    let (at, name) = cursor.name()?;
    let line = cursor.line_of(at);
    cursor.expect(b'=', "`=` and the global's key")?;
    let key = cursor.text("a global's key")?;
    Ok(GlobalItem { name, at, line, key })
}

/// Reads a data object.
pub(super) fn data_object<'t>(
    cursor: &mut Cursor<'t>,
    linkage: Linkage,
    big_endian: bool,
) -> Token<DataItem<'t>> {
    let (at, name) = cursor.name()?;
    let line = cursor.line_of(at);
    let mut writable = false;
    let mut align = 8;
    let mut section = None;
    let mut tls = None;
    loop {
        if cursor.word("writable") {
            writable = true;
        } else if cursor.word("tls") {
            tls = Some(cursor.at - 3);
        } else if cursor.word("align") {
            cursor.expect(b'=', "`=`")?;
            let (number_at, number) = cursor.integer()?;
            align = cursor.align(number_at, number)?;
        } else if cursor.word("section") {
            cursor.expect(b'=', "`=`")?;
            let (text_at, text) = cursor.string()?;
            let name = String::from_utf8(text).ok().filter(|name| !name.is_empty() && !name.contains('\0'));
            let name = name.ok_or_else(|| {
                let message = "a section's name is UTF-8, not empty, and holds no zero byte".to_owned();
                cursor.fault_at(text_at, cursor.at - text_at, message)
            })?;
            if is_reserved_section(&name) {
                let message =
                    format!("no data can be placed in section `{name}`, which means something to loaders");
                return Err(cursor.fault_at(text_at, cursor.at - text_at, message));
            }
            section = Some(name);
        } else {
            break;
        }
    }
    if let Some(tls_at) = tls {
        if section.is_some() {
            let message = "thread-local data is in a section of its own".to_owned();
            return Err(cursor.fault_at(tls_at, 3, message));
        }
        writable = true;
        section = Some(THREAD_LOCAL_SECTION.to_owned());
    }
    cursor.expect(b'{', "`writable`, `tls`, `align`, `section` or `{`")?;
    let mut content = DataContent { big_endian, bytes: Vec::new(), len: 0, addresses: Vec::new() };
    if !cursor.eat(b'}') {
        loop {
            content.init(cursor)?;
            if cursor.eat(b'}') {
                break;
            }
            cursor.expect(b',', "`,` or `}`")?;
        }
    }
    let DataContent { bytes, len, addresses, .. } = content;
    let init = if addresses.is_empty() && bytes.iter().all(|byte| *byte == 0) {
        Init::Zeros(len)
    } else {
        let mut bytes = bytes;
        // In range: `DataContent::grow` bounds the size as soon as there is content.
        bytes.resize(usize::try_from(len).unwrap_or(usize::MAX), 0);
        cursor.data_left -= len;
        Init::Bytes(bytes)
    };
    Ok(DataItem { linkage, name, at, line, writable, align, section, init, addresses })
}

/// The content of a data object so far: `bytes`, then zeros up to `len`.
struct DataContent<'t> {
    big_endian: bool,
    bytes: Vec<u8>,
    len: u64,
    addresses: Vec<AddressItem<'t>>,
}

impl<'t> DataContent<'t> {
    fn init(&mut self, cursor: &mut Cursor<'t>) -> Token<()> {
        cursor.trivia();
        let at = cursor.at;
        let word = cursor.peek_word();
        match word {
            "bytes" => {
                cursor.at += word.len();
                let bytes = if cursor.eat(b'#') { cursor.hex()? } else { cursor.string()?.1 };
                self.push(cursor, at, &bytes)
            }
            "zeros" => {
                cursor.at += word.len();
                let count = cursor.integer_in(0, i128::from(MAX_ZEROS), "zeros takes 0 to 2^40")?;
                self.grow(cursor, at, u64::try_from(count).unwrap_or(0))
            }
            "i8" | "i16" | "i32" | "i64" => {
                cursor.at += word.len();
                let bits: u32 = word[1..].parse().unwrap_or(64);
                let high = (1_i128 << bits) - 1;
                let range = format!("an {word} takes -2^{} to 2^{bits}-1", bits - 1);
                let value = cursor.integer_in(-(1_i128 << (bits - 1)), high, &range)?;
                self.scalar(cursor, at, &value.to_le_bytes()[..usize::try_from(bits / 8).unwrap_or(8)])
            }
            "f32" | "f64" => {
                cursor.at += word.len();
                let (number_at, text) = cursor.float()?;
                let special =
                    text.trim_start_matches(['+', '-']).starts_with(['I', 'N', 's']) || text.contains("0x");
                let wide = word == "f64";
                let bits = match (special, wide) {
                    (false, false) => text.parse::<f32>().ok().map(|n| u64::from(n.to_bits())),
                    (false, true) => text.parse::<f64>().ok().map(f64::to_bits),
                    (true, false) => text.parse::<Ieee32>().ok().map(|n| u64::from(n.bits())),
                    (true, true) => text.parse::<Ieee64>().ok().map(Ieee64::bits),
                };
                let bits = bits.ok_or_else(|| {
                    cursor.fault_at(
                        number_at,
                        text.len(),
                        format!("`{text}` is not a number that {word} can hold"),
                    )
                })?;
                self.scalar(cursor, at, &bits.to_le_bytes()[..if wide { 8 } else { 4 }])
            }
            "addr" => {
                cursor.at += word.len();
                let (name_at, name) = cursor.name()?;
                let addend = cursor.addend()?;
                let (offset, line) = (self.len, cursor.line_of(name_at));
                self.push(cursor, at, &[0; 8])?;
                self.addresses.push(AddressItem { offset, name, line, addend });
                Ok(())
            }
            _ => Err(cursor.unexpected("`bytes`, `zeros`, `addr` or a type from i8 to f64")),
        }
    }

    /// Appends a number, which is given little endian.
    fn scalar(&mut self, cursor: &Cursor<'t>, at: usize, bytes: &[u8]) -> Token<()> {
        let mut bytes = bytes.to_vec();
        if self.big_endian {
            bytes.reverse();
        }
        self.push(cursor, at, &bytes)
    }

    fn push(&mut self, cursor: &Cursor<'t>, at: usize, bytes: &[u8]) -> Token<()> {
        let start = self.len;
        self.grow(cursor, at, bytes.len() as u64)?;
        if self.len > cursor.data_left {
            let message =
                "the data that are not all zeros have too many bytes for a file of this length".to_owned();
            return Err(cursor.fault_at(at, cursor.at - at, message));
        }
        self.bytes.resize(usize::try_from(start).unwrap_or(usize::MAX), 0);
        self.bytes.extend_from_slice(bytes);
        Ok(())
    }

    fn grow(&mut self, cursor: &Cursor<'t>, at: usize, by: u64) -> Token<()> {
        let limit = if self.bytes.is_empty() { MAX_ZEROS } else { cursor.data_left };
        self.len = self.len.saturating_add(by);
        if self.len > limit {
            let message = match self.bytes.is_empty() {
                true => "this data object has more than 2^40 bytes".to_owned(),
                false => format!(
                    "this data object has more than the {limit} bytes that a file of this length may still have"
                ),
            };
            return Err(cursor.fault_at(at, cursor.at - at, message));
        }
        Ok(())
    }
}
