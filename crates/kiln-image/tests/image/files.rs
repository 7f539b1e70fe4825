//! Paths and files that are not those of images, and images whose files change.

use std::fs::{File, OpenOptions};
use std::path::Path;
use std::time::{Duration, Instant};

use kiln_image::{Image, LoadError, read_image, save, verify_bytes};
use rustix::fs::{CWD, FileType, Mode, mknodat};

use crate::support::image;

/// The reason why every way to open the file at `path` refuses it, at once.
fn refused(path: &Path) -> LoadError {
    let start = Instant::now();
    let reason = |result: Result<(), LoadError>| match result.unwrap_err() {
        LoadError::At { path: named, source } => {
            assert_eq!(&*named, path);
            *source
        }
        error => panic!("no path in: {error}"),
    };
    let opened = reason(Image::open(path).map(drop));
    let private = reason(Image::open_private(path).map(drop));
    let read = reason(read_image(path).map(drop));
    assert_eq!(opened.to_string(), private.to_string());
    assert_eq!(opened.to_string(), read.to_string());
    assert!(start.elapsed() < Duration::from_secs(2), "{path:?}: {:?}", start.elapsed());
    opened
}

#[test]
fn what_is_not_a_regular_file_is_refused_without_waiting() {
    let folder = tempfile::tempdir().unwrap();
    let pipe = folder.path().join("pipe");
    // Nobody will write to it.
    mknodat(CWD, &pipe, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
    for path in [&pipe, folder.path(), Path::new("/dev/zero"), Path::new("/dev/null")] {
        assert!(matches!(refused(path), LoadError::NotAFile), "{path:?}");
    }
    let socket = folder.path().join("socket");
    let _listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    assert!(matches!(refused(&socket), LoadError::Io { action: "open", .. }));
    assert!(matches!(refused(&folder.path().join("nothing")), LoadError::Io { action: "open", .. }));
}

#[test]
fn a_long_file_that_is_no_image_is_refused_before_it_is_read() {
    const LEN: u64 = 3 << 30;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("sparse");
    File::create(&path).unwrap().set_len(LEN).unwrap();
    assert!(refused(&path).to_string().contains("no 64-bit ELF header"));
    // An image followed by 3 GiB of zeros, and one whose note claims to be among them.
    let mut bytes = image();
    std::fs::write(&path, &bytes).unwrap();
    OpenOptions::new().write(true).open(&path).unwrap().set_len(LEN).unwrap();
    // What follows an image is not read.
    Image::open(&path).unwrap();
    assert_eq!(read_image(&path).unwrap(), bytes);
    let headers = usize::from(bytes[56]);
    let note =
        (0..headers).map(|index| 64 + 56 * index).find(|&at| bytes[at..at + 4] == [4, 0, 0, 0]).unwrap();
    bytes[note + 8..note + 16].copy_from_slice(&(LEN - 4096).to_le_bytes());
    bytes[note + 16..note + 24].copy_from_slice(&(LEN - 4096).to_le_bytes());
    std::fs::write(&path, &bytes).unwrap();
    OpenOptions::new().write(true).open(&path).unwrap().set_len(LEN).unwrap();
    assert!(refused(&path).to_string().contains("note of kiln"));
}

#[test]
fn a_file_is_read_as_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("image.so");
    save(&path, &image()).unwrap();
    let bytes = read_image(&path).unwrap();
    assert_eq!(bytes, image());
    verify_bytes(&bytes).unwrap();
}

/// Every change of the file that would end the process or alter the image, had it been mapped.
#[test]
fn a_private_image_does_not_see_changes_of_its_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("image.so");
    let bytes = image();
    let damages: [fn(&File, u64); 3] = [
        |file, _| file.set_len(0).unwrap(),
        |file, len| file.set_len(len / 2).unwrap(),
        |file, len| std::os::unix::fs::FileExt::write_all_at(file, &vec![0xcc; len as usize], 0).unwrap(),
    ];
    for damage in damages {
        std::fs::write(&path, &bytes).unwrap();
        let image = Image::open_private(&path).unwrap();
        damage(&OpenOptions::new().write(true).open(&path).unwrap(), bytes.len() as u64);
        image.verify().expect("nothing of the copy was changed");
        let count = image.slots().len();
        let loaded = image.bind_array(&vec![0x1000; count]).unwrap();
        let add3 = loaded.function("add3").unwrap();
        // SAFETY: the code is that of this test, and the image outlives the call.
        let add3 = unsafe { add3.typed::<extern "C" fn(i64) -> i64>().unwrap() };
        assert_eq!(add3(4), 7);
        assert!(loaded.address("names").is_some());
    }
}
