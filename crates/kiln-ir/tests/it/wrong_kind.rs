//! Files that are not text.

use std::sync::Arc;

use kiln_ir::{Diagnostic, Source, parse};

use crate::{module, target};

/// The only error in a file.
fn fault(bytes: &[u8]) -> Diagnostic {
    let faults = match Source::from_bytes("f.clif", bytes.to_vec()) {
        Ok(source) => parse(Arc::new(source), &target()).unwrap_err(),
        Err(fault) => vec![fault],
    };
    assert_eq!(faults.len(), 1, "{faults:?}");
    faults.into_iter().next().unwrap()
}

const TEXT: &str = "function %f() {\nblock0:\n    return\n}\n";

#[test]
fn is_named_as_it_is() {
    let utf16 = |bytes: fn(u16) -> [u8; 2]| TEXT.encode_utf16().flat_map(bytes).collect::<Vec<u8>>();
    let mark = |mark: &[u8], text: Vec<u8>| [mark, &text].concat();
    let binary = module(TEXT).to_bytes();
    let files: [(&[u8], &str); 9] = [
        (b"\x7fELF\x02\x01\x01\0\0\0", "an ELF file: an image, an object file or a program"),
        (b"\x1f\x8b\x08\0\0\0\0\0", "compressed with gzip"),
        (b"\x28\xb5\x2f\xfd\x04", "compressed with zstd"),
        (&mark(b"\xff\xfe", utf16(u16::to_le_bytes)), "text in UTF-16"),
        (&mark(b"\xfe\xff", utf16(u16::to_be_bytes)), "text in UTF-16"),
        (&utf16(u16::to_le_bytes), "text in UTF-16"),
        (&utf16(u16::to_be_bytes), "text in UTF-16"),
        (&binary, "a module in binary form, which `Modules` reads"),
        (b"function %f() {\0\0\0\0\0\0}", "a file with zero bytes"),
    ];
    for (bytes, what) in files {
        let fault = fault(bytes);
        assert_eq!(*fault.message, *format!("this is not text in UTF-8, but {what}"));
        assert_eq!(fault.location.line, 0);
    }
}

#[test]
fn a_byte_that_is_not_utf8_is_shown_with_its_place() {
    let bytes = [TEXT.as_bytes(), "; größe: ".as_bytes(), b"\xe4\n", TEXT.as_bytes()].concat();
    let fault = fault(&bytes);
    assert_eq!(*fault.message, *"byte 0xe4 is not UTF-8");
    assert_eq!((fault.location.line, fault.location.column), (5, 10));
    assert!(fault.to_string().contains("; größe: "), "{fault}");
}
