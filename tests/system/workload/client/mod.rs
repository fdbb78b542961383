//! What a client on the host does with a program: the first half before the checkpoint, the second
//! half after the restart, on the same connection.

pub mod http;
pub mod lines;
pub mod memcached;
pub mod network;
pub mod postgres;
pub mod redis;
pub mod ssh;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::time::Duration;

use crate::harness::run::wait_for;

/// For a program to listen: some start with their whole system.
const START_LIMIT: Duration = Duration::from_secs(90);
/// An answer of a running one, after an interruption, of 4 GiB on a busy machine.
const ANSWER_LIMIT: Duration = Duration::from_secs(60);

/// An open connection.
pub struct Connection {
    stream: BufReader<TcpStream>,
}

impl Connection {
    /// As soon as somebody listens.
    pub fn open(address: Ipv4Addr, port: u16) -> Connection {
        Connection::open_at((address, port).into())
    }

    pub fn open_at(address: SocketAddr) -> Connection {
        let connected = wait_for(&format!("somebody to listen at {address}"), START_LIMIT, || {
            TcpStream::connect_timeout(&address, Duration::from_millis(500)).ok()
        });
        let stream = connected.unwrap_or_else(|e| panic!("{e}"));
        stream.set_nodelay(true).unwrap();
        stream.set_read_timeout(Some(ANSWER_LIMIT)).unwrap();
        Connection { stream: BufReader::new(stream) }
    }

    pub fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.stream.get_mut().write_all(bytes.as_ref()).unwrap_or_else(|e| panic!("send: {e}"));
    }

    /// The next line, without its end.
    pub fn line(&mut self) -> String {
        let mut line = String::new();
        match self.stream.read_line(&mut line) {
            Ok(0) => panic!("the connection was closed"),
            Ok(_) => line.trim_end().to_owned(),
            Err(error) => panic!("no answer: {error}"),
        }
    }

    /// So many bytes.
    pub fn bytes(&mut self, number: usize) -> Vec<u8> {
        let mut bytes = vec![0; number];
        self.stream.read_exact(&mut bytes).unwrap_or_else(|e| panic!("no {number} bytes: {e}"));
        bytes
    }

    /// Sends something, and asserts what comes back.
    pub fn expect(&mut self, sent: &str, lines: &[&str]) {
        self.send(sent);
        for expected in lines {
            assert_eq!(self.line(), *expected, "the answer to {sent:?}");
        }
    }
}
