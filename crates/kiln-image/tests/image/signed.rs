//! Digital signatures: what they are about, whose are accepted, and what happens to a file that
//! changes.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

use kiln_image::keys::{PublicKey, Signer};
use kiln_image::{
    Image, ImageInfo, ImageOptions, ImageSignature, LoadError, SignError, SignatureFault, Trust,
    UntrustedError, content_hash, image_signatures, read_image, save, sign_image, sign_image_detached,
    verify_bytes, verify_signed_bytes, write_image,
};

use crate::note_sum::note_sum;
use crate::support::{program, table};
use crate::tools::each_changed;

/// A way to open an image.
type Open = fn(&Path, &Trust) -> Result<Image, LoadError>;

fn signer(number: u8) -> Signer {
    Signer::from_seed(&[number; 32])
}

fn key(number: u8) -> PublicKey {
    signer(number).public()
}

fn with_room(signers: u8) -> Vec<u8> {
    write_image(&program(), &table(), &ImageOptions { signers, ..ImageOptions::default() }).unwrap()
}

fn signed(numbers: &[u8]) -> Vec<u8> {
    let mut image = with_room(numbers.len() as u8);
    numbers.iter().for_each(|&number| sign_image(&mut image, &signer(number)).unwrap());
    image
}

/// The reason why an image is not trusted, which every way to open it gives.
fn untrusted(image: &[u8], trust: &Trust) -> UntrustedError {
    let reason = |error: LoadError| match error {
        LoadError::Untrusted(error) => error,
        other => panic!("{other:?}"),
    };
    let opened = reason(Image::from_bytes_verified(image, trust).unwrap_err());
    assert_eq!(reason(verify_signed_bytes(image, trust).unwrap_err()), opened);
    opened
}

fn faults(image: &[u8], trust: &Trust) -> Vec<SignatureFault> {
    untrusted(image, trust).faults
}

/// Calls a function, so that the code is known to be executable.
fn runs(image: Image) {
    let loaded = image.bind_array(&[0x1000, 0x1000, 0x1000]).unwrap();
    // SAFETY: the code is that of this test, and calls nothing.
    let add8 = unsafe { loaded.function("add8").unwrap().typed::<extern "C" fn(i64) -> i64>() }.unwrap();
    assert_eq!(add8(1), 9);
}

#[test]
fn accepted_keys_are_those_that_are_said() {
    let image = signed(&[1, 2]);
    verify_bytes(&image).unwrap();
    let info = ImageInfo::parse(&image).unwrap();
    assert!(!info.exports.is_empty());
    for trust in
        [Trust::new([key(1)]), Trust::new([key(2), key(1)]).at_least(2), Trust::new([key(9), key(2)])]
    {
        let opened = Image::from_bytes_verified(&image, &trust).unwrap();
        assert!(!opened.signed_by().is_empty());
        runs(opened);
    }
    let both = Image::from_bytes_verified(&image, &Trust::new([key(2), key(1)])).unwrap();
    assert_eq!(both.signed_by(), [key(1), key(2)]);

    assert_eq!(
        faults(&image, &Trust::new([key(3)])),
        [SignatureFault::NotAccepted { key: key(1) }, SignatureFault::NotAccepted { key: key(2) }]
    );
    assert_eq!(
        faults(&signed(&[1]), &Trust::new([key(1)]).revoked([key(1)])),
        [SignatureFault::Revoked { key: key(1) }]
    );
    // That one key was revoked says nothing about the other.
    let rest = Trust::new([key(1), key(2)]).revoked([key(1)]);
    assert_eq!(verify_signed_bytes(&image, &rest).unwrap(), [key(2)]);
    assert_eq!(untrusted(&image, &rest.at_least(2)).to_string().lines().count(), 1);
    // The same key twice is one key.
    let twice = sign_image_detached(&image, &signer(1)).unwrap();
    let error = untrusted(&signed(&[1]), &Trust::new([key(1)]).at_least(2).with([twice]));
    assert_eq!((error.needed, error.found), (2, 1));
    // Without a key, nothing is accepted, whatever is asked.
    assert!(verify_signed_bytes(&image, &Trust::new([]).at_least(0)).is_err());
    let error = untrusted(&with_room(0), &Trust::new([key(1)]));
    assert_eq!(error.to_string(), "the image is not signed");
    assert!(matches!(sign_image(&mut with_room(0), &signer(1)), Err(SignError::NoRoom { room: 0 })));
    assert!(matches!(sign_image(&mut image.clone(), &signer(3)), Err(SignError::NoRoom { room: 2 })));
    // The place of an own signature is used again.
    sign_image(&mut image.clone(), &signer(2)).unwrap();
}

#[test]
fn signing_changes_neither_content_nor_checksums() {
    let (bare, image) = (with_room(2), signed(&[1]));
    assert_eq!(content_hash(&with_room(1)).unwrap(), content_hash(&image).unwrap());
    let mut both = bare.clone();
    sign_image(&mut both, &signer(1)).unwrap();
    let first = both.clone();
    sign_image(&mut both, &signer(2)).unwrap();
    assert!(both != first && first != bare);
    assert_eq!(content_hash(&bare).unwrap(), content_hash(&both).unwrap());
    assert_eq!(
        image_signatures(&both).unwrap().iter().map(|one| one.key).collect::<Vec<_>>(),
        [key(1), key(2)]
    );
    // Room is content: another image.
    assert_ne!(content_hash(&bare).unwrap(), content_hash(&image).unwrap());
}

/// Every byte that is loaded is altered, and no signature is accepted then, even if the checksum of
/// the note is made right again. Bytes that change nothing in memory are those of the file header.
#[test]
fn every_byte_that_is_loaded_is_signed() {
    let image = signed(&[1]);
    let trust = Trust::new([key(1)]);
    let info = ImageInfo::parse(&image).unwrap();
    let number = |bytes: &[u8], at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap()) as usize;
    let note = info.sections.iter().find(|section| &*section.name == ".note.kiln").unwrap();
    let body = note.offset as usize + 20..(note.offset + note.size) as usize;
    let room = body.end - 104..body.end;
    // The bytes of all segments, which are at the start of the header table.
    let headers = (0..usize::from(image[56])).map(|index| 64 + 56 * index).filter(|at| image[*at] == 1);
    let loaded = headers.map(|at| number(&image, at + 8)..number(&image, at + 8) + number(&image, at + 32));
    let (mut passed, mut refused, mut untrusted) = (Vec::new(), 0, 0);
    for at in loaded.flatten() {
        let mut altered = image.clone();
        altered[at] ^= 0x40;
        let exports = number(&altered[body.clone()], 136 + 8 * 16);
        if body.contains(&at) && (8..body.len()).contains(&exports) {
            let sum = note_sum(&altered[body.start + 8..body.start + exports]);
            altered[body.start..body.start + 8].copy_from_slice(&sum.to_le_bytes());
        }
        if altered == image {
            // The checksum of the note, which is right again.
            continue;
        }
        match verify_signed_bytes(&altered, &trust) {
            Ok(_) => passed.push(at),
            Err(LoadError::Untrusted(error)) => {
                untrusted += 1;
                let expected = if room.contains(&at) { 1 } else { error.faults.len() };
                assert_eq!(error.faults.len(), expected);
            }
            Err(_) => refused += 1,
        }
    }
    // Nobody who loads reads the rest of the file header, and offsets and lengths in the file count
    // only by what they lead to. The end of a segment is that of its last page.
    let count = usize::from(image[56]);
    let is_idle = |at: usize| match at.checked_sub(64) {
        None => true,
        Some(at) if at < 56 * count => [1, 3, 4, 5].contains(&(at % 56 / 8)),
        Some(_) => room.contains(&at) && (4..8).contains(&(at - room.start)),
    };
    let wrong: Vec<_> = passed.iter().filter(|at| !is_idle(**at)).collect();
    assert!(wrong.is_empty(), "unsigned bytes: {wrong:x?}");
    assert!(untrusted > 3000 && refused > 100, "{untrusted} untrusted, {refused} refused");
}

#[test]
fn unknown_algorithms_are_named_and_do_not_count() {
    let mut image = signed(&[1]);
    let note = ImageInfo::parse(&image).unwrap();
    let note = note.sections.iter().find(|section| &*section.name == ".note.kiln").unwrap();
    let room = (note.offset + note.size) as usize - 104;
    image[room] = 7;
    let error = untrusted(&image, &Trust::new([key(1)]));
    assert_eq!(error.to_string(), "no accepted signature: one is of the unknown kind 7");
    // A truncated one: the rest is zero.
    let mut image = signed(&[1]);
    image[room + 72..room + 104].fill(0);
    assert_eq!(faults(&image, &Trust::new([key(1)])), [SignatureFault::Wrong { key: key(1) }]);
    // That of another key, under this key's name.
    let mut image = signed(&[2]);
    image[room + 8..room + 40].copy_from_slice(key(1).as_bytes());
    assert_eq!(faults(&image, &Trust::new([key(1)])), [SignatureFault::Wrong { key: key(1) }]);
    // More than anyone makes.
    let many = Trust::new([key(1)]).with(vec![sign_image_detached(&image, &signer(3)).unwrap(); 65]);
    assert_eq!(faults(&image, &many), [SignatureFault::TooMany { limit: 64 }]);
}

#[test]
fn signatures_beside_an_image() {
    let folder = tempfile::tempdir().unwrap();
    let (path, beside) = (folder.path().join("p.so"), folder.path().join("p.so.sig"));
    let image = with_room(0);
    save(&path, &image).unwrap();
    let trust = Trust::new([key(1)]);
    let ways: [Open; 2] = [
        |path, trust| Image::open_verified(path, trust),
        |path, trust| Image::open_verified_shared(path, trust),
    ];
    let refused = |expected: &str| {
        for way in ways {
            let error = way(&path, &trust).unwrap_err();
            let mut text = error.to_string();
            let mut source = std::error::Error::source(&error);
            while let Some(error) = source {
                text = format!("{text}: {error}");
                source = error.source();
            }
            assert!(text.contains(expected), "{text}");
        }
    };
    refused("the image is not signed");
    let line = sign_image_detached(&image, &signer(1)).unwrap().to_string();
    let other = sign_image_detached(&image, &signer(2)).unwrap();
    std::fs::write(&beside, format!("# made by CI\n\n{other}\n{line} ci\n")).unwrap();
    for way in ways {
        let image = way(&path, &trust).unwrap();
        assert_eq!(image.signed_by(), [key(1)]);
        runs(image);
    }
    assert_eq!(ImageSignature::parse_list(&line).unwrap()[0].to_string(), line);
    std::fs::write(&beside, &line[..line.len() - 1]).unwrap();
    refused("line 1: expected `kiln-image-signature ed25519`");
    std::fs::write(&beside, line.replace("ed25519", "dilithium")).unwrap();
    refused("the unknown kind dilithium");
    std::fs::write(&beside, line.replacen("kiln-image-signature", "kiln-other", 1)).unwrap();
    refused("line 1:");
    std::fs::write(&beside, [0xff, 0xfe]).unwrap();
    refused("utf-8");
    std::fs::write(&beside, vec![b'#'; 1 << 17]).unwrap();
    refused("longer than 65536 bytes");
}

/// A copy that was verified runs, whatever happens to the file afterwards.
#[test]
fn a_verified_copy_does_not_change_with_its_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("p.so");
    save(&path, &signed(&[1])).unwrap();
    let trust = Trust::new([key(1)]);
    let image = Image::open_verified(&path, &trust).unwrap();
    let info = ImageInfo::parse(&std::fs::read(&path).unwrap()).unwrap();
    let text = info.sections.iter().find(|section| &*section.name == ".text").unwrap();
    let file = File::options().write(true).open(&path).unwrap();
    file.write_all_at(&vec![0xcc; text.size as usize], text.offset).unwrap();
    runs(image);
    for open in [Image::open_verified, Image::open_verified_shared] {
        let error = open(&path, &trust).unwrap_err();
        let LoadError::At { source, .. } = error else { panic!("{error}") };
        let LoadError::Untrusted(error) = *source else { panic!("{source}") };
        assert_eq!(error.faults, [SignatureFault::Wrong { key: key(1) }]);
    }
}

/// Bytes behind the code, in its last page, belong to no segment. They would be executable, so they
/// must be zero.
#[test]
fn nothing_hides_beside_the_code() {
    let mut image = signed(&[1]);
    let info = ImageInfo::parse(&image).unwrap();
    let text = info.sections.iter().find(|section| &*section.name == ".text").unwrap();
    image[(text.offset + text.size) as usize + 16] = 0xc3;
    let trust = Trust::new([key(1)]);
    verify_signed_bytes(&image, &trust).unwrap();
    let error = Image::from_bytes_verified(&image, &trust).unwrap_err();
    assert!(error.to_string().contains("bytes beside a segment that no signature is about"), "{error}");
}

/// `strip` and `objcopy` keep what is signed. `patchelf` changes what is loaded.
#[test]
fn tools_that_keep_what_is_loaded_keep_the_signature() {
    let image = signed(&[1]);
    let (content, trust) = (content_hash(&image).unwrap(), Trust::new([key(1)]));
    let mut list = String::new();
    each_changed(&image, |name, path| {
        let bytes = read_image(path).unwrap();
        let kept = verify_signed_bytes(&bytes, &trust).is_ok();
        assert_eq!(kept, content_hash(&bytes).unwrap() == content, "{name}");
        assert_eq!(kept, Image::open_verified(path, &trust).is_ok(), "{name}");
        let names = ["rpath", "soname", "needed", "no rpath", "needed, replaced", "stripped, rpath"];
        let changes_loaded = names.contains(&name) || ["rpath, stripped", "everything"].contains(&name);
        list.push_str(&format!("{name}: {kept}\n"));
        assert_eq!(kept, !changes_loaded, "so far:\n{list}");
    });
}
