//! Values as people write them: `3`, `-0.0`, `2.5`, `1e3`, `inf`, `0xff`, `0x1.8p1`, `[1 2 3 4]`.
//!
//! [`parse`] reads the output of [`shown`] as the same value, bit for bit.

use cranelift_codegen::data_value::DataValue;
use cranelift_codegen::ir::immediates::{Ieee16, Ieee64, Ieee128};
use cranelift_codegen::ir::{Type, types};

/// Reads a value of type `ty`.
pub(super) fn parse(text: &str, ty: Type) -> Result<DataValue, String> {
    let text = text.trim();
    if ty.is_vector() {
        return vector(text, ty);
    }
    match ty {
        types::I8 | types::I16 | types::I32 | types::I64 | types::I128 => integer(text, ty),
        types::F16 | types::F32 | types::F64 | types::F128 => float(text, ty),
        _ => Err(format!("a value of type {ty} cannot be written")),
    }
}

/// Reads an integer, with or without a sign, in the range of the signed or the unsigned type.
fn integer(text: &str, ty: Type) -> Result<DataValue, String> {
    let expected = || format!("expected an {ty}");
    let (negative, digits) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    let (radix, digits) = match digits.get(..2) {
        Some("0x" | "0X") => (16, &digits[2..]),
        Some("0o" | "0O") => (8, &digits[2..]),
        Some("0b" | "0B") => (2, &digits[2..]),
        _ => (10, digits),
    };
    let digits = digits.replace('_', "");
    if digits.is_empty() || !digits.chars().all(|c| c.is_digit(radix)) {
        return Err(expected());
    }
    let bits = ty.bits();
    let (smallest, largest) = (1u128 << (bits - 1), u128::MAX >> (128 - bits));
    let out_of_range = || match bits {
        128 => "out of range for an i128".to_owned(),
        _ => format!("out of range for an {ty}: -{smallest} to {largest}"),
    };
    let size = u128::from_str_radix(&digits, radix).map_err(|_| out_of_range())?;
    if size > if negative { smallest } else { largest } {
        return Err(out_of_range());
    }
    let bytes = if negative { size.wrapping_neg() } else { size }.to_le_bytes();
    Ok(DataValue::read_from_slice_le(&bytes, ty))
}

fn float(text: &str, ty: Type) -> Result<DataValue, String> {
    let expected = || format!("expected an {ty}");
    let lower = text.to_ascii_lowercase();
    let sign = if lower.starts_with('-') { '-' } else { '+' };
    let word = lower.trim_start_matches(['+', '-']);
    match word {
        "inf" | "infinity" => return cranelift(&format!("{sign}Inf"), ty).ok_or_else(expected),
        "nan" => return cranelift(&format!("{sign}NaN"), ty).ok_or_else(expected),
        _ if word.starts_with("0x") || word.contains("nan:") => {
            // Cranelift also reads a mantissa without an exponent, and a number without a point,
            // like `0x1p3`.
            let text = if text.starts_with('+') && word.starts_with("0x") { &text[1..] } else { text };
            return cranelift(text, ty).ok_or_else(expected);
        }
        _ => {}
    }
    // Rust's parser reads numbers, but also words, which are refused here.
    if !word.starts_with(|c: char| c.is_ascii_digit() || c == '.') {
        return Err(expected());
    }
    let digits = lower.replace('_', "");
    let out_of_range = || format!("out of range for an {ty}");
    if ty == types::F32 {
        let value: f32 = digits.parse().map_err(|_| expected())?;
        return if value.is_finite() { Ok(DataValue::F32(value.into())) } else { Err(out_of_range()) };
    }
    let value: f64 = digits.parse().map_err(|_| expected())?;
    if !value.is_finite() {
        return Err(out_of_range());
    }
    match ty {
        types::F16 => half(value).map(DataValue::F16).ok_or_else(out_of_range),
        types::F128 if is_exact(&digits, value) => {
            let text = Ieee64::with_float(value).to_string();
            cranelift(&text, ty).ok_or_else(expected)
        }
        types::F128 => Err("this number is read in hexadecimal only, like 0x1.8p1".into()),
        _ => Ok(DataValue::F64(value.into())),
    }
}

/// Reads a float in Cranelift's notation.
fn cranelift(text: &str, ty: Type) -> Option<DataValue> {
    match ty {
        types::F16 => text.parse().ok().map(DataValue::F16),
        types::F32 => text.parse().ok().map(DataValue::F32),
        types::F64 => text.parse().ok().map(DataValue::F64),
        _ => text.parse().ok().map(DataValue::F128),
    }
}

/// Rounds to the nearest 16-bit float, ties to even. Returns `None` if the result is infinite.
fn half(value: f64) -> Option<Ieee16> {
    let sign = if value.is_sign_negative() { 0x8000 } else { 0 };
    let size = value.abs();
    // The distance between neighbouring floats (one ulp): 2^-10 of the power of two at or below
    // `size`, but at least 2^-24.
    let exponent = i32::try_from((size.to_bits() >> 52) & 0x7ff).expect("11 bits") - 1023;
    let step = f64::powi(2.0, exponent.max(-14) - 10);
    let steps = (size / step).round_ties_even();
    let rounded = steps * step;
    if rounded > 65504.0 {
        return None;
    }
    // `steps` includes the leading bit of a normal float, which is not stored. Added to the bits of
    // the exponent, which are 1 too low, it makes them right, and so does a carry from rounding.
    let exponent_bits = u16::try_from(exponent.max(-14) + 14).ok()? << 10;
    let bits = exponent_bits + steps as u16;
    Some(Ieee16::with_bits(sign | bits))
}

/// Whether `digits`, a decimal number without an exponent, is exactly `value`.
fn is_exact(digits: &str, value: f64) -> bool {
    fn plain(text: &str) -> Option<(&str, &str)> {
        let text = text.trim_start_matches(['+', '-']);
        let (whole, part) = text.split_once('.').unwrap_or((text, ""));
        (!text.contains('e')).then(|| (whole.trim_start_matches('0'), part.trim_end_matches('0')))
    }
    plain(digits).is_some() && plain(digits) == plain(&format!("{value:.1074}"))
}

/// Reads the lanes of a vector, or all its bytes as one hexadecimal number.
fn vector(text: &str, ty: Type) -> Result<DataValue, String> {
    let size = ty.bytes() as usize;
    let mut bytes = [0; 16];
    if size > bytes.len() {
        return Err("vectors larger than 128 bits are not supported".into());
    }
    let Some(inside) = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) else {
        return hexadecimal(text, ty);
    };
    let lane = ty.lane_type();
    let lanes: Vec<&str> =
        inside.split(|c: char| c == ',' || c.is_whitespace()).filter(|lane| !lane.is_empty()).collect();
    if lanes.len() != ty.lane_count() as usize {
        return Err(format!("an {ty} has {} lanes, {} given", ty.lane_count(), lanes.len()));
    }
    for (number, text) in lanes.iter().enumerate() {
        let value = parse(text, lane).map_err(|reason| format!("lane {number}: `{text}`: {reason}"))?;
        let size = lane.bytes() as usize;
        value.write_to_slice_le(&mut bytes[number * size..][..size]);
    }
    Ok(DataValue::read_from_slice_le(&bytes[..size], ty))
}

/// Reads a vector as Cranelift writes it: the last lane first, each byte as two digits.
fn hexadecimal(text: &str, ty: Type) -> Result<DataValue, String> {
    let size = ty.bytes() as usize;
    let expected = || {
        format!("expected an {ty}, as {} lanes in [ ] or {} hexadecimal digits", ty.lane_count(), 2 * size)
    };
    let digits = text.strip_prefix("0x").ok_or_else(expected)?.replace('_', "");
    if digits.len() > 2 * size || !digits.chars().all(|c| c.is_ascii_hexdigit()) || digits.is_empty() {
        return Err(expected());
    }
    let number = u128::from_str_radix(&digits, 16).map_err(|_| expected())?;
    Ok(DataValue::read_from_slice_le(&number.to_le_bytes()[..size], ty))
}

/// Writes a value of type `ty`.
pub(super) fn shown(value: &DataValue, ty: Type) -> String {
    match value {
        DataValue::F16(float) => float16(*float),
        DataValue::F32(float) => {
            special(&float.to_string()).unwrap_or_else(|| format!("{:?}", float.as_f32()))
        }
        DataValue::F64(float) => {
            special(&float.to_string()).unwrap_or_else(|| format!("{:?}", float.as_f64()))
        }
        DataValue::F128(float) => float128(*float),
        DataValue::V128(bytes) => lanes(bytes, ty),
        DataValue::V64(bytes) => lanes(bytes, ty),
        DataValue::V32(bytes) => lanes(bytes, ty),
        DataValue::V16(bytes) => lanes(bytes, ty),
        integer => integer.to_string(),
    }
}

fn lanes(bytes: &[u8], ty: Type) -> String {
    let lane = ty.lane_type();
    let lanes = bytes.chunks_exact(lane.bytes() as usize);
    let lanes: Vec<_> = lanes.map(|bytes| shown(&DataValue::read_from_slice_le(bytes, lane), lane)).collect();
    format!("[{}]", lanes.join(" "))
}

/// Returns the text for a float that is infinite or a NaN, given the text that Cranelift writes. A
/// NaN with a payload is written as Cranelift writes it.
fn special(written: &str) -> Option<String> {
    match written {
        "+Inf" => Some("inf".into()),
        "-Inf" => Some("-inf".into()),
        "+NaN" => Some("nan".into()),
        "-NaN" => Some("-nan".into()),
        nan if nan.contains("NaN") => Some(nan.into()),
        _ => None,
    }
}

fn float16(float: Ieee16) -> String {
    special(&float.to_string()).unwrap_or_else(|| {
        let bits = float.bits();
        let (exponent, part) = (i32::from(bits >> 10 & 31), f64::from(bits & 0x3ff));
        let size = match exponent {
            0 => part * f64::powi(2.0, -24),
            _ => (1024.0 + part) * f64::powi(2.0, exponent - 25),
        };
        format!("{:?}", if bits & 0x8000 == 0 { size } else { -size })
    })
}

/// Writes the decimal number if it is short and exact, and Cranelift's hexadecimal number
/// otherwise.
fn float128(float: Ieee128) -> String {
    let written = float.to_string();
    special(&written).unwrap_or_else(|| {
        // Of the 28 hexadecimal digits after the point, an f64 has the first 13.
        let short = written.split_once('p').map(|(digits, exponent)| {
            let (digits, rest) = digits.split_at(digits.len().saturating_sub(15));
            (format!("{digits}p{exponent}"), rest.chars().all(|c| c == '0'))
        });
        let value = match &short {
            Some((short, true)) => short.parse::<Ieee64>().ok().map(|float| float.as_f64()),
            _ => None,
        };
        match value.map(|value| (format!("{value:?}"), value)) {
            Some((decimal, value)) if is_exact(&decimal, value) => decimal,
            _ => written,
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn reads(text: &str, value: DataValue) {
        let ty = value.ty();
        let read = parse(text, ty).unwrap();
        assert!(read.bitwise_eq(&value), "{text}: {read}, not {value}");
        let again = parse(&shown(&value, ty), ty).unwrap();
        assert!(again.bitwise_eq(&value), "{text}: {}", shown(&value, ty));
    }

    #[test]
    fn integers_of_every_width_with_and_without_sign() {
        reads("255", DataValue::I8(-1));
        reads("-128", DataValue::I8(-128));
        reads("+0x7f", DataValue::I8(127));
        reads("0xffff", DataValue::I16(-1));
        reads("1_000_000", DataValue::I32(1_000_000));
        reads("0b1010", DataValue::I64(10));
        reads("-0o17", DataValue::I64(-15));
        reads("-0x8000_0000_0000_0000", DataValue::I64(i64::MIN));
        reads("18446744073709551615", DataValue::I64(-1));
        reads("340282366920938463463374607431768211455", DataValue::I128(-1));
        reads("-170141183460469231731687303715884105728", DataValue::I128(i128::MIN));
        let refused = |text: &str, ty, message: &str| assert_eq!(parse(text, ty), Err(message.to_owned()));
        refused("256", types::I8, "out of range for an i8: -128 to 255");
        refused("-129", types::I8, "out of range for an i8: -128 to 255");
        refused("0x1_0000_0000", types::I32, "out of range for an i32: -2147483648 to 4294967295");
        refused("-170141183460469231731687303715884105729", types::I128, "out of range for an i128");
        refused(
            &"9".repeat(60),
            types::I64,
            "out of range for an i64: -9223372036854775808 to 18446744073709551615",
        );
        for text in ["", "one", "1.5", "1e3", "0x", "--1", "1 2", "1,2", "[1]", "0xg", "é"] {
            refused(text, types::I64, "expected an i64");
        }
    }

    #[test]
    fn floats_as_people_write_them() {
        for (text, value) in [
            ("3", 3.0),
            ("2.5", 2.5),
            ("-0.0", -0.0),
            ("-0", -0.0),
            ("1e3", 1000.0),
            ("1E-3", 0.001),
            (".5", 0.5),
            ("5.", 5.0),
            ("+7", 7.0),
            ("inf", f64::INFINITY),
            ("-Infinity", f64::NEG_INFINITY),
            ("0x1.8p1", 3.0),
            ("-0x1.8p1", -3.0),
            ("0x10", 16.0),
            ("1_000.25", 1000.25),
            ("5e-324", 5e-324),
            ("0.1", 0.1),
        ] {
            reads(text, DataValue::F64(value.into()));
        }
        reads("0.1", DataValue::F32(0.1f32.into()));
        reads("nan", DataValue::F64(f64::NAN.copysign(1.0).into()));
        reads("-nan", DataValue::F32(f32::NAN.copysign(-1.0).into()));
        reads("+NaN:0x1", DataValue::F64(f64::from_bits(0x7ff8_0000_0000_0001).into()));
        reads("-sNaN:0x1", DataValue::F32(f32::from_bits(0xff80_0001).into()));
        assert_eq!(shown(&DataValue::F64(20.25.into()), types::F64), "20.25");
        assert_eq!(shown(&DataValue::F32(0.1f32.into()), types::F32), "0.1");
        assert_eq!(parse("1e999", types::F64), Err("out of range for an f64".into()));
        assert_eq!(parse("1e39", types::F32), Err("out of range for an f32".into()));
        for text in ["", "x", "1.2.3", "nano", "e5", "0x", "1f", "--1", "1 2"] {
            assert_eq!(parse(text, types::F64), Err("expected an f64".into()), "{text}");
        }
    }

    #[test]
    fn every_16_bit_float_is_read_as_it_is_written() {
        for bits in 0..=u16::MAX {
            let value = DataValue::F16(Ieee16::with_bits(bits));
            let read = parse(&shown(&value, types::F16), types::F16).unwrap();
            assert!(read.bitwise_eq(&value), "{bits:#x}: {}", shown(&value, types::F16));
        }
        let bits = |text| match parse(text, types::F16) {
            Ok(DataValue::F16(float)) => float.bits(),
            other => panic!("{other:?}"),
        };
        assert_eq!([bits("0.1"), bits("65504"), bits("65519.9"), bits("1e-9")], [0x2e66, 0x7bff, 0x7bff, 0]);
        // Ties round to even.
        assert_eq!([bits("2049"), bits("2051"), bits("0.000000029802322387695313")], [0x6800, 0x6802, 0]);
        assert_eq!(parse("65520", types::F16), Err("out of range for an f16".into()));
    }

    #[test]
    fn long_floats_are_exact_or_hexadecimal() {
        let read = |text| parse(text, types::F128).map(|value| shown(&value, types::F128));
        assert_eq!(read("2.5"), Ok("2.5".into()));
        assert_eq!(read("-0.0"), Ok("-0.0".into()));
        assert_eq!(read("inf"), Ok("inf".into()));
        assert_eq!(read("0x1.8p1"), Ok("3.0".into()));
        let long = "0x1.999999999999999999999999999ap-4";
        assert_eq!(read(long), Ok(long.into()));
        assert!(read("0.1").unwrap_err().contains("hexadecimal"));
    }

    #[test]
    fn vectors_by_lanes() {
        let read = |text, ty| parse(text, ty).map(|value| shown(&value, ty));
        assert_eq!(read("[1 2 -3 4]", types::I32X4), Ok("[1 2 -3 4]".into()));
        assert_eq!(read("[1.5,-0.0]", types::F64X2), Ok("[1.5 -0.0]".into()));
        assert_eq!(read("0x00000004_00000003_00000002_00000001", types::I32X4), Ok("[1 2 3 4]".into()));
        assert_eq!(read("[1 2 3]", types::I32X4), Err("an i32x4 has 4 lanes, 3 given".into()));
        assert_eq!(read("[1 2 3 x]", types::I32X4), Err("lane 3: `x`: expected an i32".into()));
        assert!(read("7", types::I32X4).unwrap_err().starts_with("expected an i32x4"));
    }
}
