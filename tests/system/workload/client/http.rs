//! HTTP: a connection that is kept, and a large download with the checkpoint in its middle.

use super::super::root::{BIG_FILE, BIG_WORDS};
use super::super::{Finish, Place};
use super::Connection;
use crate::harness::run::wait_for;

const MEBIBYTE: usize = 1 << 20;

/// nginx, with a download.
pub fn nginx(place: &Place) -> Finish {
    // While systemd has its configuration tested it listens already, and drops who has come.
    let served =
        || std::panic::catch_unwind(|| get(&mut Connection::open(place.address, 80), "/")).ok();
    wait_for("nginx to serve", super::START_LIMIT, served).unwrap_or_else(|e| panic!("{e}"));
    let mut kept = Connection::open(place.address, 80);
    get(&mut kept, "/");
    let mut download = Connection::open(place.address, 80);
    let name = BIG_FILE.rsplit('/').next().unwrap_or_default();
    let length = head(&mut download, &format!("/{name}"));
    assert_eq!(length as u64, BIG_WORDS * 8);
    // The rest waits in its socket and in ours; nobody reads it until the restart.
    let mut counter = 0;
    assert_words(&download.bytes(MEBIBYTE), &mut counter);
    Box::new(move || {
        for _ in 1..length / MEBIBYTE {
            assert_words(&download.bytes(MEBIBYTE), &mut counter);
        }
        get(&mut kept, "/");
        get(&mut download, "/");
        get(&mut Connection::open(kept_address(&kept), 80), "/");
    })
}

/// Java's own web server.
pub fn jwebserver(place: &Place) -> Finish {
    let mut kept = Connection::open(place.address, place.port);
    get(&mut kept, "/passwd");
    let place = place.clone();
    Box::new(move || {
        for _ in 0..3 {
            get(&mut kept, "/passwd");
        }
        get(&mut Connection::open(place.address, place.port), "/passwd");
    })
}

fn kept_address(connection: &Connection) -> std::net::Ipv4Addr {
    match connection.stream.get_ref().peer_addr().unwrap().ip() {
        std::net::IpAddr::V4(address) => address,
        std::net::IpAddr::V6(address) => panic!("{address}"),
    }
}

/// Asks for a path; the length of what will come.
fn head(connection: &mut Connection, path: &str) -> usize {
    connection.send(format!("GET {path} HTTP/1.1\r\nHost: workload\r\n\r\n"));
    let first = connection.line();
    assert!(first.starts_with("HTTP/1.1 200"), "{path}: {first}");
    let mut length = None;
    loop {
        let line = connection.line().to_ascii_lowercase();
        if line.is_empty() {
            return length.unwrap_or_else(|| panic!("{path}: no length"));
        }
        if let Some(value) = line.strip_prefix("content-length:") {
            length = value.trim().parse().ok();
        }
    }
}

fn get(connection: &mut Connection, path: &str) {
    let length = head(connection, path);
    assert!(connection.bytes(length).len() > 10);
}

/// Asserts that these are the next words of the large file.
fn assert_words(bytes: &[u8], counter: &mut u64) {
    for word in bytes.chunks_exact(8) {
        assert_eq!(word, counter.to_le_bytes(), "the download at word {counter}");
        *counter += 1;
    }
}
