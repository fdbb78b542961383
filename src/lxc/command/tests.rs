//! Monitors that answer badly or not at all. Good answers are tested with the server.

use std::io::Write;
use std::os::fd::BorrowedFd;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener};
use std::thread;

use tempfile::TempDir;

use super::*;

/// A monitor that sends these bytes and descriptors to its one client, whatever it asks, and then
/// lingers.
fn with_monitor<T>(bytes: &[u8], fds: usize, linger: Duration, ask: impl FnOnce(Client) -> T) -> T {
    let dir = TempDir::new().unwrap();
    let lxcpath = dir.path().to_str().unwrap();
    let name = protocol::socket_name(lxcpath, "bad");
    let listener = UnixListener::bind_addr(&SocketAddr::from_abstract_name(name).unwrap()).unwrap();
    let client = Client::new(lxcpath, "bad").with_limit(Duration::from_millis(200));
    thread::scope(|scope| {
        scope.spawn(|| {
            let (stream, _) = listener.accept().unwrap();
            // The request is read, or the end would be a reset.
            assert!((&stream).read(&mut [0; 9000]).unwrap() >= 16);
            let many: Vec<BorrowedFd<'_>> = (0..fds).map(|_| stream.as_fd()).collect();
            if !bytes.is_empty() {
                send_with_fds(stream.as_fd(), &[IoSlice::new(bytes)], &many, None).unwrap();
            }
            thread::sleep(linger);
        });
        ask(client)
    })
}

fn header(code: i32, datalen: i32, value: i32) -> Vec<u8> {
    Header { code, datalen, value }.encode().to_vec()
}

const NOW: Duration = Duration::ZERO;

#[test]
fn nobody_listening_is_a_stopped_container() {
    let client = Client::new("/no/such/lxcpath", "c1");
    assert_eq!(client.state().unwrap(), State::Stopped);
    assert!(matches!(client.init_pid(), Err(Error::NotRunning)));
    assert!(matches!(client.init_pidfd(), Err(Error::NotRunning)));
    assert!(matches!(client.stop(), Err(Error::NotRunning)));
}

#[test]
fn a_reset_connection_is_a_stopped_container() {
    let dir = TempDir::new().unwrap();
    let lxcpath = dir.path().to_str().unwrap();
    let name = SocketAddr::from_abstract_name(protocol::socket_name(lxcpath, "c1")).unwrap();
    let listener = UnixListener::bind_addr(&name).unwrap();
    let client = Client::new(lxcpath, "c1");
    let asking = thread::spawn(move || client.state());
    // It sits in the backlog until the listener goes.
    thread::sleep(Duration::from_millis(100));
    drop(listener);
    assert_eq!(asking.join().unwrap().unwrap(), State::Stopped);
}

#[test]
fn a_monitor_that_keeps_silent_is_not_waited_for() {
    let limit = Duration::from_millis(500);
    let started = Instant::now();
    let e = with_monitor(&[], 0, limit, |c| c.state()).unwrap_err();
    assert!(matches!(e, Error::Timeout(_)), "{e}");
    assert!(started.elapsed() < Duration::from_secs(3));
    // So is one that never accepts, even with a full backlog.
    let dir = TempDir::new().unwrap();
    let lxcpath = dir.path().to_str().unwrap();
    let address = protocol::address(lxcpath, "c1").unwrap();
    let fd = socket(AddressFamily::Unix, SockType::Stream, SockFlag::SOCK_CLOEXEC, None).unwrap();
    nix::sys::socket::bind(fd.as_raw_fd(), &address).unwrap();
    nix::sys::socket::listen(&fd, nix::sys::socket::Backlog::new(0).unwrap()).unwrap();
    let client = Client::new(lxcpath, "c1").with_limit(Duration::from_millis(100));
    let first = client.send(Command::GetState, 0, &[]).unwrap();
    for _ in 0..2 {
        assert!(matches!(client.state(), Err(Error::Timeout(_))));
    }
    drop(first);
}

#[test]
fn refusals_are_told_apart() {
    let e = |code| with_monitor(&header(code, 0, 0), 0, NOW, |c| c.init_pid()).unwrap_err();
    assert!(matches!(e(-1), Error::Denied));
    assert!(matches!(e(-22), Error::Refused(Errno::EINVAL)));
    assert!(matches!(e(i32::MIN), Error::Refused(_)));
    assert!(with_monitor(&header(-9, 0, 0), 0, NOW, |c| c.init_pidfd()).unwrap().is_none());
    assert!(with_monitor(&header(-38, 0, 0), 0, NOW, |c| c.init_pidfd()).unwrap().is_none());
    assert!(with_monitor(&header(-22, 0, 0), 0, NOW, |c| c.limit_cgroup2_fd()).unwrap().is_none());
    assert_eq!(
        with_monitor(&header(-1, 0, 0), 0, NOW, |c| c.config_item("lxc.arch")).unwrap(),
        None
    );
}

#[test]
fn nonsense_is_an_error_and_nothing_worse() {
    let bad = |bytes: Vec<u8>| {
        let e = with_monitor(&bytes, 0, NOW, |c| c.config_item("lxc.arch")).unwrap_err();
        assert!(matches!(e, Error::Protocol(_)), "{bytes:?}: {e:?}");
    };
    bad(header(0, 5, 0)[..15].to_vec());
    bad(header(0, 5, 0));
    bad([header(0, 5, 0), b"abc".to_vec()].concat());
    bad([header(0, 3, 0), b"abc".to_vec()].concat());
    bad([header(0, 3, 0), b"\xff\xfe\0".to_vec()].concat());
    bad(header(0, i32::MAX, 0));
    bad(header(0, -5, 0));
    bad(Vec::new());
    assert!(matches!(
        with_monitor(&header(0, 0, 0), 0, NOW, |c| c.init_pid()),
        Err(Error::Protocol(_))
    ));
    assert!(matches!(
        with_monitor(&header(0, 0, 9), 0, NOW, |c| c.state()),
        Err(Error::Protocol(_))
    ));
    assert!(matches!(
        with_monitor(&header(0, 0, 0), 5, NOW, |c| c.init_pidfd()),
        Err(Error::Protocol(_))
    ));
    assert!(matches!(with_monitor(&[], 0, NOW, |c| c.state()), Err(Error::Protocol(_))));
    assert_eq!(
        with_monitor(&header(0, 0, 0x1234), 0, NOW, |c| c.config_item("lxc.arch")).unwrap(),
        None
    );
}

#[test]
fn a_request_is_as_long_as_it_says() {
    let long = "x".repeat(PAYLOAD_MAX);
    assert!(matches!(Client::new("/x", "c").config_item(&long), Err(Error::Io(_))));
    let dir = TempDir::new().unwrap();
    let lxcpath = dir.path().to_str().unwrap();
    let name = protocol::socket_name(lxcpath, "c1");
    let listener = UnixListener::bind_addr(&SocketAddr::from_abstract_name(name).unwrap()).unwrap();
    let client = Client::new(lxcpath, "c1");
    thread::scope(|scope| {
        let asking = scope.spawn(|| client.config_item(&long[1..]));
        let (mut stream, _) = listener.accept().unwrap();
        let mut request = vec![0; 16 + PAYLOAD_MAX];
        stream.read_exact(&mut request).unwrap();
        assert_eq!(request[..16], header(7, PAYLOAD_MAX as i32, 0));
        assert_eq!((request[16], request[16 + PAYLOAD_MAX - 1]), (b'x', 0));
        stream.write_all(&[header(0, 2, 0), b"v\0".to_vec()].concat()).unwrap();
        assert_eq!(asking.join().unwrap().unwrap().as_deref(), Some("v"));
    });
}
