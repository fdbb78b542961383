//! Clients that are stuck, broken or up to no good.

use std::net::Shutdown;
use std::os::unix::process::CommandExt;

use super::*;

/// Names the socket for the process that plays another user.
const STRANGER: &str = "LXC_CR_TEST_STRANGER";

/// A small generator of numbers that are the same in each run (xorshift64*).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn below(&mut self, n: u64) -> u64 {
        (self.next() >> 16) % n
    }
}

#[test]
fn silence_after_a_part_of_a_request_is_borne_for_a_while() {
    let monitor = Monitor::start();
    let header = Header { code: 7, datalen: 9, value: 0 }.encode();
    let mut partly: Vec<UnixStream> = Vec::new();
    for sent in
        [&[][..], &header[..1], &header[..15], &header[..], &[&header[..], b"lxc.ar"].concat()]
    {
        let mut stream = monitor.connect();
        stream.write_all(sent).unwrap();
        partly.push(stream);
    }
    assert_eq!(monitor.client().state().unwrap(), State::Running, "the others are served");
    monitor.until(|s| s.connections.len() == 5);
    let deadline = monitor.with(|s, _| s.next_deadline()).unwrap();
    assert!(deadline > Instant::now() && deadline <= Instant::now() + REQUEST_LIMIT);
    monitor.with(move |s, _| s.expire(deadline));
    assert!(monitor.with(|s, _| s.connections.len()) < 5);
    monitor.with(|s, _| s.expire(Instant::now() + REQUEST_LIMIT));
    assert_eq!(monitor.with(|s, _| (s.connections.len(), s.next_deadline())), (0, None));
    for mut stream in partly {
        // Bytes that nobody read make it a reset instead of an end.
        assert!(matches!(stream.read(&mut [0; 1]), Ok(0) | Err(_)));
    }
}

#[test]
fn a_request_may_come_byte_by_byte() {
    let monitor = Monitor::start();
    let mut stream = monitor.connect();
    let request =
        [&Header { code: 7, datalen: 13, value: 0 }.encode()[..], b"lxc.uts.name\0"].concat();
    for byte in request {
        stream.write_all(&[byte]).unwrap();
        monitor.with(|_, _| ());
    }
    let mut answer = [0; 24];
    stream.read_exact(&mut answer).unwrap();
    assert_eq!(&answer[16..], b"made-up\0");
}

#[test]
fn lengths_beyond_reason_end_the_connection() {
    let monitor = Monitor::start();
    for datalen in [PAYLOAD_MAX as i32 + 1, i32::MAX, -1, i32::MIN] {
        for code in [3, 7, 11, 27] {
            let mut stream = monitor.connect();
            stream.write_all(&Header { code, datalen, value: 0 }.encode()).unwrap();
            assert_eq!(stream.read(&mut [0; 1]).unwrap(), 0, "no answer");
        }
    }
}

#[test]
fn ten_thousand_random_requests_leave_it_serving() {
    let monitor = Monitor::start();
    let mut random = Random(0x5eed);
    for i in 0..10_000u32 {
        let mut stream = monitor.connect();
        let code =
            if random.below(8) == 0 { random.next() as i32 } else { random.below(29) as i32 };
        let announced = match random.below(6) {
            0 => random.next() as i32,
            1 => [96, 80, 40, 32, 24][random.below(5) as usize],
            2 => 0,
            _ => random.below(300) as i32,
        };
        let mut bytes =
            Header { code, datalen: announced, value: random.next() as i32 }.encode().to_vec();
        let sent =
            if random.below(4) == 0 { random.below(300) } else { announced.clamp(0, 9000) as u64 };
        bytes.extend((0..sent).map(|_| random.next() as u8));
        if random.below(10) == 0 {
            bytes.truncate(random.below(17) as usize);
        }
        // The server may have closed already: that is its good right.
        let _ = stream.write_all(&bytes);
        if random.below(3) == 0 {
            let _ = stream.shutdown(Shutdown::Write);
            stream.set_read_timeout(Some(Duration::from_millis(1))).unwrap();
            let _ = stream.read(&mut [0; 64]);
        }
        if i % 1000 == 0 {
            monitor.client().state().unwrap();
        }
    }
    monitor.with(|s, _| s.set_state(State::Running));
    assert_eq!(monitor.client().state().unwrap(), State::Running);
    assert_eq!(monitor.client().config_item("lxc.uts.name").unwrap().as_deref(), Some("made-up"));
    monitor.until(|s| s.connections.is_empty());
}

#[test]
fn a_flood_has_its_limits() {
    let monitor = Monitor::start();
    let flood: Vec<UnixStream> = (0..300).map(|_| monitor.connect()).collect();
    assert_eq!(monitor.client().state().unwrap(), State::Running);
    assert!(monitor.with(|s, _| s.connections.len()) <= MAX_READING);
    drop(flood);
    let wait = encode_wanted(&[1, 0, 0, 0, 0, 0, 0, 0]);
    let waiting: Vec<_> = (0..MAX_HELD + 20).map(|_| monitor.raw(10, 0, &wait)).collect();
    assert_eq!(monitor.with(|s, _| s.held_count()), MAX_HELD);
    assert_eq!(waiting.last().unwrap().1.unwrap().code, -(Errno::EMFILE as i32));
    assert_eq!(monitor.raw(0, -1, &[]).1.unwrap().code, -(Errno::EMFILE as i32), "no tty either");
    assert_eq!(monitor.client().init_pid().unwrap(), Pid::this());
    drop(waiting);
    monitor.until(|s| s.connections.is_empty());
}

#[test]
fn a_waiting_client_that_talks_on_does_not_keep_it_busy() {
    let monitor = Monitor::start();
    let (mut stream, ..) = monitor.raw(10, 0, &encode_wanted(&[1, 0, 0, 0, 0, 0, 0, 0]));
    stream.write_all(&[7; 4096]).unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    assert!(silent(&stream), "kept, though half closed");
    assert!(!monitor.with(|s, made_up| {
        s.on_ready(made_up).unwrap();
        poll(&mut [PollFd::new(s.as_fd(), PollFlags::POLLIN)], PollTimeout::ZERO).unwrap() > 0
    }));
}

#[test]
fn a_rest_from_accepting_ends() {
    let monitor = Monitor::start();
    monitor.with(|s, _| {
        s.epoll.delete(s.listener.as_ref().unwrap()).unwrap();
        s.resting = Instant::now().checked_add(ACCEPT_PAUSE);
        assert!(s.next_deadline().is_some());
    });
    assert_eq!(monitor.client().state().unwrap(), State::Running);
}

#[test]
fn only_root_and_the_monitor_s_user_are_admitted() {
    let credentials = |uid, gid| libc::ucred { pid: 1, uid, gid }.into();
    let owner = Owner::current();
    assert!(owner.admits(credentials(0, 12345)));
    let (uid, gid) = (nix::unistd::getuid().as_raw(), nix::unistd::getgid().as_raw());
    assert!(owner.admits(credentials(uid, gid)));
    assert!(!owner.admits(credentials(4711, gid)));
    assert!(!owner.admits(credentials(4711, 4711)));
}

#[test]
fn another_user_is_denied_and_can_t_crowd_out_root() {
    if !nix::unistd::getuid().is_root() {
        // Only root can become somebody else.
        return;
    }
    let monitor = Monitor::start();
    let status = process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "lxc::server::tests::hostile::stranger", "--ignored", "--nocapture"])
        .env(STRANGER, monitor.lxcpath())
        .uid(65534)
        .gid(65534)
        .status()
        .unwrap();
    assert!(status.success());
    assert_eq!(monitor.client().state().unwrap(), State::Running);
    assert!(monitor.done.try_recv().is_err(), "it did not stop anything");
}

/// What the process of the test above does.
#[test]
#[ignore = "played by another_user_is_denied_and_can_t_crowd_out_root"]
fn stranger() {
    let Ok(lxcpath) = std::env::var(STRANGER) else { return };
    let name = SocketAddr::from_abstract_name(socket_name(&lxcpath, "made-up")).unwrap();
    let flood: Vec<UnixStream> =
        (0..40).map(|_| UnixStream::connect_addr(&name).unwrap()).collect();
    for code in 0..30 {
        let mut stream = UnixStream::connect_addr(&name).unwrap();
        let payload = if code % 2 == 0 { &[][..] } else { &b"lxc.uts.name\0"[..] };
        let header = Header { code, datalen: payload.len() as i32, value: 0 }.encode();
        stream.write_all(&[&header[..], payload].concat()).unwrap();
        let mut answer = [0; 16];
        stream.read_exact(&mut answer).unwrap();
        assert_eq!(Header::decode(&answer), Header { code: -1, datalen: 0, value: 0 });
    }
    let open = flood.iter().filter(|s| silent(s)).count();
    assert!(open <= MAX_STRANGERS, "{open} connections of strangers are kept");
    // The client does not trust a socket of another user, should the tests run as one who is not
    // root.
    let mine = Client::new(&lxcpath, "made-up").state();
    assert!(matches!(mine, Err(ClientError::Denied | ClientError::Protocol(_))), "{mine:?}");
}
