//! A proxy that cuts connections, lets them stall, alters bytes, or lets few of them pass.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};

/// A fault of the connections through a proxy, in both directions and in all of them together.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Cut {
    Never,
    /// Every connection ends when this many bytes have passed.
    AfterBytes(usize),
    /// Every connection ends when this many pieces have passed: a call and its answer are two or
    /// more.
    AfterPieces(usize),
    /// Nothing passes after this many bytes, and connections stay open.
    StallAfterBytes(usize),
    /// Nothing passes after this many pieces, and connections stay open.
    StallAfterPieces(usize),
    /// One bit of the byte at this place differs.
    Alter(usize),
    /// A kilobyte passes in a second, byte by byte.
    Drip,
    /// Everything passes after this time, as on a long line.
    Late(Duration),
}

/// The numbers of what passed so far.
#[derive(Default)]
struct Passed {
    bytes: AtomicUsize,
    pieces: AtomicUsize,
    is_over: AtomicBool,
}

/// A proxy, which takes no further connections when this is dropped.
pub(crate) struct Proxy {
    listener: TcpListener,
    passed: Arc<Passed>,
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.passed.is_over.store(true, Relaxed);
        let _ = TcpStream::connect(self.listener.local_addr().unwrap());
    }
}

impl Proxy {
    /// Starts a proxy in front of a server.
    pub(crate) fn start(server: &str, cut: Cut) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let (own, server) = (listener.try_clone().unwrap(), server.to_owned());
        let passed = Arc::new(Passed::default());
        let inside = Arc::clone(&passed);
        std::thread::spawn(move || {
            for client in own.incoming() {
                if inside.is_over.load(Relaxed) {
                    return;
                }
                let (Ok(client), Ok(server)) = (client, TcpStream::connect(&server)) else { continue };
                let ends = [(&client, &server), (&server, &client)];
                for (from, to) in ends {
                    let (from, to) = (from.try_clone().unwrap(), to.try_clone().unwrap());
                    let passed = Arc::clone(&inside);
                    std::thread::spawn(move || pump(from, to, cut, &passed));
                }
            }
        });
        Self { listener, passed }
    }

    pub(crate) fn address(&self) -> String {
        self.listener.local_addr().unwrap().to_string()
    }

    /// Returns the number of bytes that passed.
    pub(crate) fn bytes(&self) -> usize {
        self.passed.bytes.load(Relaxed)
    }

    /// Returns the number of pieces that passed.
    pub(crate) fn pieces(&self) -> usize {
        self.passed.pieces.load(Relaxed)
    }
}

/// Passes everything on after a time, however much is on its way.
fn pump_late(mut from: TcpStream, mut to: TcpStream, time: Duration) {
    let (send, receive) = std::sync::mpsc::channel::<(Instant, Vec<u8>)>();
    std::thread::spawn(move || {
        for (due, bytes) in receive {
            std::thread::sleep(due.saturating_duration_since(Instant::now()));
            if to.write_all(&bytes).is_err() {
                break;
            }
        }
        let _ = to.shutdown(Shutdown::Both);
    });
    let mut bytes = [0; 4096];
    while let Ok(len @ 1..) = from.read(&mut bytes) {
        if send.send((Instant::now() + time, bytes[..len].to_vec())).is_err() {
            break;
        }
    }
}

fn pump(mut from: TcpStream, mut to: TcpStream, cut: Cut, passed: &Passed) {
    let mut bytes = [0; 4096];
    let _ = to.set_nodelay(true);
    if let Cut::Late(time) = cut {
        return pump_late(from, to, time);
    }
    while let Ok(len @ 1..) = from.read(&mut bytes) {
        let before = passed.bytes.fetch_add(len, Relaxed);
        let piece = passed.pieces.fetch_add(1, Relaxed);
        let (pass, ends) = match cut {
            Cut::Never | Cut::Drip | Cut::Late(_) => (len, false),
            Cut::Alter(place) => {
                if let Some(byte) = place.checked_sub(before).and_then(|at| bytes[..len].get_mut(at)) {
                    *byte ^= 0x10;
                }
                (len, false)
            }
            Cut::AfterBytes(limit) => (len.min(limit.saturating_sub(before)), before + len >= limit),
            Cut::StallAfterBytes(limit) => (len.min(limit.saturating_sub(before)), false),
            Cut::AfterPieces(limit) => (if piece < limit { len } else { 0 }, piece >= limit),
            Cut::StallAfterPieces(limit) => (if piece < limit { len } else { 0 }, false),
        };
        let passes = if matches!(cut, Cut::Drip) {
            bytes[..pass].iter().all(|byte| {
                std::thread::sleep(Duration::from_millis(1));
                !passed.is_over.load(Relaxed) && to.write_all(&[*byte]).is_ok()
            })
        } else {
            to.write_all(&bytes[..pass]).is_ok()
        };
        if !passes || ends {
            break;
        }
    }
    let _ = from.shutdown(Shutdown::Both);
    let _ = to.shutdown(Shutdown::Both);
}
