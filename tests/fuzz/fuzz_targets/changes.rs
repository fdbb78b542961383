//! Any bytes as an image that is changed before CRIU sees it: what comes out can be read again, and
//! is what was asked for.
#![no_main]

use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use libfuzzer_sys::fuzz_target;
use lxc_cr::api::criu::images::{Becomes, Family, FileKind, InetSocket, Net, Readdress, Shown, interfaces, open_files, readdressed, settle, with_macs, with_openable_executables, with_ready_made, with_groups_apart, with_sockets};

/// The namespace of the images' names.
const NS: u32 = 1;
/// How `mm-PID.img` begins.
const MM: [u32; 2] = [0x5456_4319, 0x5749_2820];

fuzz_target!(|data: &[u8]| {
    let dir = directory();
    sockets(&dir, data);
    executables(&dir, data);
    addresses(&dir, data);
    hardware(&dir, data);
    mounts(&dir, data);
});

/// One for all runs of a process.
fn directory() -> PathBuf {
    let dir = std::env::temp_dir().join(format!("lxc-cr-fuzz-{}", std::process::id()));
    let _ = fs::create_dir(&dir);
    dir
}

fn sockets(dir: &Path, data: &[u8]) {
    let path = dir.join("files.img");
    let of = |bytes: &[u8]| {
        fs::write(&path, bytes).unwrap();
        open_files(dir)
    };
    let Ok(before) = of(data) else { return };
    let changed = |becomes| with_sockets(&path, data, |_: &InetSocket| becomes);
    if let Ok(same) = changed(Becomes::Same) {
        assert_eq!(same, data);
    }
    let inet = |kind: &FileKind| match kind {
        FileKind::Inet(socket) => Some(socket.clone()),
        _ => None,
    };
    let [local, remote]: [IpAddr; 2] = [[10, 1, 2, 3].into(), [10, 4, 5, 6].into()];
    for becomes in [Becomes::Closed, Becomes::At { local, remote }] {
        let Ok(bytes) = changed(becomes) else { continue };
        let after = of(&bytes).unwrap();
        assert_eq!(after.len(), before.len());
        for (after, before) in after.iter().zip(&before) {
            let (Some(socket), Some(was)) = (inet(&after.kind), inet(&before.kind)) else {
                assert_eq!(after, before);
                continue;
            };
            match becomes {
                Becomes::Closed => assert!(socket.remote.is_none() && socket.connected_to().is_none()),
                _ => assert_eq!(socket.state, was.state),
            }
        }
    }
}

/// With a process for each of the first files.
fn executables(dir: &Path, data: &[u8]) {
    fs::write(dir.join("files.img"), data).unwrap();
    let Ok(files) = open_files(dir) else { return };
    let names: Vec<PathBuf> = (1..=files.len().min(3)).map(|pid| dir.join(format!("mm-{pid}.img"))).collect();
    for (file, name) in files.iter().zip(&names) {
        fs::write(name, mm_image(file.id)).unwrap();
    }
    if let Ok(changed) = with_openable_executables(dir) {
        for (name, bytes) in changed {
            fs::write(dir.join(name), bytes).unwrap();
        }
        assert_eq!(with_openable_executables(dir).unwrap(), []);
        assert_eq!(open_files(dir).unwrap()[..files.len()], files);
    }
    names.iter().for_each(|name| fs::remove_file(name).unwrap());
}

/// A process whose executable is this file.
fn mm_image(file: u32) -> Vec<u8> {
    let mut message = vec![12 << 3];
    let mut rest = file;
    while rest > 0x7f {
        message.push(rest as u8 | 0x80);
        rest >>= 7;
    }
    message.push(rest as u8);
    let head = [MM[0], MM[1], message.len() as u32];
    [head.map(u32::to_le_bytes).concat(), message].concat()
}

/// As addresses, and as routes of both families, behind the magic number that chance hardly ever
/// hits.
fn addresses(dir: &Path, data: &[u8]) {
    let mut shown = Shown::of(dir);
    for (name, magic) in [("ifaddr", 0x4736_1222_u32), ("route", 0x4531_1224), ("route6", 0x4531_1224)] {
        let bytes = [&magic.to_le_bytes()[..], data].concat();
        shown.put([(format!("{name}-{NS}.img"), bytes)]);
    }
    let [old, new] = [[0, 0x16, 0x3e, 0, 0, 1], [0, 0x16, 0x3e, 0xa, 0xb, 0xc]];
    let net = |ip: IpAddr, prefix| Net { ip, prefix };
    let wish = |interface| Readdress {
        interface,
        mac: Some((old, new)),
        nets: vec![net([10, 99, 0, 21].into(), 25), net([0xfd00, 0, 0, 0, 0, 0, 0, 7].into(), 64)],
        gateways: vec![(Family::V4, Some([10, 99, 0, 2].into())), (Family::V6, None)],
    };
    let moved_only = Readdress { nets: Vec::new(), gateways: Vec::new(), ..wish(2) };
    for wishes in [vec![], vec![wish(2)], vec![moved_only, wish(3)]] {
        let Ok(done) = readdressed(&shown, NS, &wishes) else { continue };
        let mut after = shown.clone();
        after.put(done.images);
        assert_eq!(readdressed(&after, NS, &[]).unwrap().before, done.after);
    }
    if settle(&mut shown, NS).is_ok() {
        let once = shown.clone().into_changed();
        settle(&mut shown, NS).unwrap();
        assert_eq!(shown.into_changed(), once);
    }
}

fn hardware(dir: &Path, data: &[u8]) {
    let path = dir.join(format!("netdev-{NS}.img"));
    let of = |bytes: &[u8]| {
        fs::write(&path, bytes).unwrap();
        interfaces(dir, NS)
    };
    let Ok(before) = of(data) else { return };
    let mac = [2, 0, 0, 0, 0, 9];
    let after = of(&with_macs(&path, data, |_| Some(mac)).unwrap()).unwrap();
    assert!(after.len() == before.len() && after.iter().all(|i| i.mac == Some(mac)));
    fs::write(&path, data).unwrap();
    if let Ok(bytes) = with_ready_made(dir, NS, |_| true) {
        let after = of(&bytes).unwrap();
        assert!(after.len() == before.len() && after.iter().all(|i| i.loopback));
    }
}

fn mounts(dir: &Path, data: &[u8]) {
    fs::write(dir.join(format!("mountpoints-{NS}.img")), data).unwrap();
    let Ok(changed) = with_groups_apart(dir, &|_| false) else { return };
    for (name, bytes) in changed {
        fs::write(dir.join(name), bytes).unwrap();
    }
    assert_eq!(with_groups_apart(dir, &|_| false).unwrap(), []);
}
