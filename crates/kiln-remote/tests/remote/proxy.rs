//! A proxy that cuts connections, or lets them stall, after a number of bytes.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

/// A fault of a connection.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Cut {
    /// Every connection ends when this many bytes have passed through the proxy, in all.
    After(usize),
    /// Nothing passes from then on, and connections stay open.
    StallAfter(usize),
}

pub(crate) struct Proxy {
    listener: TcpListener,
}

impl Proxy {
    /// Starts a proxy in front of a server. It lives as long as the process.
    pub(crate) fn start(server: &str, cut: Cut) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let (own, server) = (listener.try_clone().unwrap(), server.to_owned());
        let passed = Arc::new(AtomicUsize::new(0));
        std::thread::spawn(move || {
            for client in own.incoming() {
                let (Ok(client), Ok(server)) = (client, TcpStream::connect(&server)) else { continue };
                let ends = [(&client, &server), (&server, &client)];
                for (from, to) in ends {
                    let (from, to) = (from.try_clone().unwrap(), to.try_clone().unwrap());
                    let passed = Arc::clone(&passed);
                    std::thread::spawn(move || pump(from, to, cut, &passed));
                }
            }
        });
        Self { listener }
    }

    pub(crate) fn address(&self) -> String {
        self.listener.local_addr().unwrap().to_string()
    }
}

fn pump(mut from: TcpStream, mut to: TcpStream, cut: Cut, passed: &AtomicUsize) {
    let mut bytes = [0; 4096];
    let (Cut::After(limit) | Cut::StallAfter(limit)) = cut;
    while let Ok(len @ 1..) = from.read(&mut bytes) {
        let before = passed.fetch_add(len, Relaxed);
        let len = len.min(limit.saturating_sub(before));
        if to.write_all(&bytes[..len]).is_err() {
            break;
        }
        if before + len >= limit && matches!(cut, Cut::After(_)) {
            break;
        }
    }
    let _ = from.shutdown(Shutdown::Both);
    let _ = to.shutdown(Shutdown::Both);
}
