//! Any bytes as LXC's structures, and as a request to our server.

#![no_main]

use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::os::fd::BorrowedFd;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixStream};
use std::time::Duration;

use libfuzzer_sys::fuzz_target;
use lxc_cr::api::lxc::protocol::{CgroupCtx, CgroupFd, DeviceItem, Header, HierarchyKind, Layout, Message, State, c_string, decode_wanted, socket_name};
use lxc_cr::api::lxc::server::{Hierarchy, Served, Server};
use nix::unistd::Pid;

struct MadeUp;

impl Served for MadeUp {
    fn init_pid(&self) -> Pid {
        Pid::this()
    }
    fn init_pidfd(&self) -> Option<BorrowedFd<'_>> {
        None
    }
    fn clone_flags(&self) -> u32 {
        u32::MAX
    }
    fn config_item(&self, key: &str) -> Option<String> {
        Some(key.repeat(3))
    }
    fn layout(&self) -> Layout {
        Layout::Unified
    }
    fn hierarchies(&self) -> Vec<Hierarchy<'_>> {
        vec![Hierarchy {
            kind: HierarchyKind::V2,
            controllers: vec!["memory".to_owned()],
            path: "lxc.payload.fuzz".to_owned(),
            limit_path: "lxc.payload.fuzz".to_owned(),
            fd: None,
            limit_fd: None,
        }]
    }
    fn on_stop(&mut self) -> io::Result<()> {
        Ok(())
    }
    fn freeze(&mut self, _: Option<Duration>) -> io::Result<()> {
        Ok(())
    }
    fn unfreeze(&mut self, _: Option<Duration>) -> io::Result<()> {
        Err(io::ErrorKind::Other.into())
    }
}

/// What was read must be written so that it reads the same.
fn structures(data: &[u8]) {
    if let Some(bytes) = data.first_chunk() {
        let header = Header::decode(bytes);
        assert_eq!(Header::decode(&header.encode()), header);
    }
    if let Some(ctx) = CgroupCtx::decode(data) {
        assert_eq!(CgroupCtx::decode(&ctx.encode()), Some(ctx));
    }
    let fd = CgroupFd::decode(data);
    assert_eq!(CgroupFd::decode(&fd.encode()), fd);
    if let Some(item) = DeviceItem::decode(data) {
        let _ = DeviceItem::decode(&item.encode());
    }
    if let Some(message) = Message::decode(data) {
        assert_eq!(Message::decode(&message.encode()), Some(message));
    }
    let _ = (c_string(data), decode_wanted(data));
}

fuzz_target!(|data: &[u8]| {
    structures(data);
    let name = format!("fuzz-{}", std::process::id());
    let Ok(mut server) = Server::bind("/lxc-cr", &name) else { return };
    server.set_state(State::Running);
    let Ok(address) = SocketAddr::from_abstract_name(socket_name("/lxc-cr", &name)) else { return };
    let Ok(mut stream) = UnixStream::connect_addr(&address) else { return };
    // In two halves, so that every cut of a request is tried. Below the socket's buffer, or this
    // thread would wait for itself.
    let data = &data[..data.len().min(16384)];
    let (first, second) = data.split_at(data.len() / 2);
    for part in [first, second] {
        let _ = stream.write_all(part);
        let _ = server.on_ready(&mut MadeUp);
    }
    let _ = stream.shutdown(Shutdown::Write);
    let _ = server.on_ready(&mut MadeUp);
    drop(server);
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    // A header alone, or with exactly the payload that it announces (a waiting client may have got
    // a message).
    if let Some(bytes) = answer.first_chunk() {
        let announced = usize::try_from(Header::decode(bytes).datalen).expect("no negative length");
        assert_eq!(answer.len(), 16 + announced);
    } else {
        assert!(answer.is_empty());
    }
});
