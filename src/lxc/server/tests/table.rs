//! Each command's answer, and what becomes of its connection.

use std::os::fd::AsRawFd;

use super::*;

#[test]
fn the_client_s_verbs_are_answered() {
    let monitor = Monitor::start();
    let client = monitor.client();
    assert_eq!(client.state().unwrap(), State::Running);
    assert_eq!(client.init_pid().unwrap(), Pid::this());
    assert_eq!(client.clone_flags().unwrap(), 0x6e02_0000);
    assert_eq!(client.name().unwrap().as_deref(), Some("made-up"));
    assert_eq!(client.lxcpath().unwrap().as_deref(), Some(monitor.lxcpath()));
    let pidfd = client.init_pidfd().unwrap().unwrap();
    let info = std::fs::read_to_string(format!("/proc/self/fdinfo/{}", pidfd.as_raw_fd())).unwrap();
    assert!(info.contains(&format!("Pid:\t{}\n", process::id())), "{info}");
    let dir = client.limit_cgroup2_fd().unwrap().unwrap();
    let link = std::fs::read_link(format!("/proc/self/fd/{}", dir.as_raw_fd())).unwrap();
    assert_eq!(link.to_str(), Some(monitor.lxcpath()));
}

#[test]
fn cgroup_paths_depend_on_the_controller() {
    let monitor = Monitor::start();
    let client = monitor.client();
    assert_eq!(
        client.cgroup(Some("memory")).unwrap().as_deref(),
        Some("lxc.payload.made-up/inner")
    );
    assert_eq!(
        client.limit_cgroup(Some("freezer")).unwrap().as_deref(),
        Some("lxc.payload.made-up")
    );
    assert_eq!(client.cgroup(Some("nonsense")).unwrap(), None);
    assert_eq!(client.cgroup(None).unwrap(), None, "the hierarchy has controllers");
    monitor.with(|_, made_up| made_up.controllers.clear());
    assert_eq!(client.cgroup(None).unwrap().as_deref(), Some("lxc.payload.made-up/inner"));
    assert_eq!(monitor.raw(6, 0, b"memory").1.unwrap().code, -(Errno::EINVAL as i32));
}

#[test]
fn config_items_are_values_or_nothing() {
    let monitor = Monitor::start();
    let client = monitor.client();
    assert_eq!(client.config_item("lxc.group").unwrap().as_deref(), Some("a\nb\n"));
    assert_eq!(client.config_item("lxc.longest").unwrap().map(|v| v.len()), Some(PAYLOAD_MAX - 1));
    for key in ["lxc.nonsense", "lxc.empty", "lxc.long", ""] {
        assert_eq!(client.config_item(key).unwrap(), None, "{key}");
    }
    // A value without payload would be taken for a pointer: lxc-ls died of it.
    let without_payload = Header { code: -1, datalen: 0, value: 0 };
    assert_eq!(monitor.raw(7, 0x1234, &[]).1, Some(without_payload));
    assert_eq!(monitor.raw(7, 0, b"lxc.uts.name").1, Some(without_payload), "no NUL");
}

#[test]
fn what_the_container_has_not_is_refused() {
    let monitor = Monitor::start();
    let e = |errno: Errno| -(errno as i32);
    let table: &[(i32, &[u8], Option<i32>)] = &[
        (0, &[], Some(e(Errno::EBADF))), // the console; 0 is its number
        (1, &[], None),
        (10, &[0; 31], Some(e(Errno::EINVAL))),
        (11, &[], Some(e(Errno::EINVAL))),
        (13, &[], None), // its descriptor never comes
        (14, &[], Some(e(Errno::EINVAL))),
        (14, &[0; 24], Some(e(Errno::EINVAL))),
        (21, &[], Some(e(Errno::EBADF))),
        (22, &[], Some(e(Errno::EBADF))),
        (23, &[], Some(e(Errno::EINVAL))),
        (24, &[0; 80], Some(e(Errno::EINVAL))),
        (25, &[], Some(e(Errno::EINVAL))),
        (26, &[], Some(e(Errno::EINVAL))),
        (27, &[], Some(e(Errno::ENOSYS))),
        (1000, &[1, 2, 3], Some(e(Errno::ENOSYS))),
        (-1, &[], Some(e(Errno::ENOSYS))),
    ];
    for (number, payload, code) in table {
        if *number == 13 {
            continue;
        }
        let (mut stream, header, fds) = monitor.raw(*number, 0, payload);
        assert_eq!(header.map(|h| h.code), *code, "command {number}");
        assert!(header.is_none_or(|h| h.value == 0 && h.datalen == 0) && fds.is_empty());
        assert_eq!(stream.read(&mut [0; 1]).unwrap(), 0, "command {number}: closed");
    }
    // The seccomp listener's own byte is taken in before the answer.
    let mut stream = monitor.connect();
    stream.write_all(&Header { code: 13, datalen: 0, value: 0 }.encode()).unwrap();
    assert!(silent(&stream));
    stream.write_all(&[0]).unwrap();
    let mut bytes = [0; 16];
    stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    stream.read_exact(&mut bytes).unwrap();
    assert_eq!(Header::decode(&bytes).code, e(Errno::EINVAL));
}

#[test]
fn a_hybrid_host_has_no_cgroup2_answers() {
    let monitor = Monitor::start();
    monitor.with(|_, made_up| made_up.layout = Layout::Hybrid);
    assert!(monitor.client().limit_cgroup2_fd().unwrap().is_none());
    for (number, errno) in
        [(15, Errno::ENOENT), (16, Errno::ENOENT), (17, Errno::EINVAL), (20, Errno::EINVAL)]
    {
        assert_eq!(
            monitor.raw(number, -1, &[]).1.unwrap().code,
            -(errno as i32),
            "command {number}"
        );
    }
}

#[test]
fn a_hybrid_host_tells_of_each_hierarchy() {
    let monitor = Monitor::start();
    monitor.with(|_, made_up| {
        made_up.layout = Layout::Hybrid;
        made_up.controllers.clear();
    });
    let client = monitor.client();
    for controller in [Some("cpuacct"), Some("name=systemd"), None] {
        assert_eq!(
            client.limit_cgroup(controller).unwrap().as_deref(),
            Some("/lxc.payload.made-up")
        );
    }
    let (mut stream, header, fds) = monitor.raw(23, 0, &[0; 96]);
    assert_eq!((header.unwrap().code, fds.len()), (0, 3));
    let mut payload = [0; 96];
    stream.read_exact(&mut payload).unwrap();
    let ctx = CgroupCtx::decode(&payload).unwrap();
    assert_eq!((ctx.layout, ctx.utilities, ctx.fds.len()), (1, 0, 3));
    // A client that knows which kind it wants.
    let wanted = |kind: HierarchyKind, controller: &str| {
        let request = CgroupFd {
            layout: 0,
            utilities: 0,
            kind: kind as i32,
            fd: -1,
            controller: controller.to_owned(),
        };
        monitor.raw(25, 0, &request.encode()).1.unwrap().code
    };
    assert_eq!(wanted(HierarchyKind::V1, "cpu"), 0);
    assert_eq!(wanted(HierarchyKind::V2, "cpu"), -(Errno::EINVAL as i32));
    assert_eq!(wanted(HierarchyKind::V1, "freezer"), -(Errno::ENOENT as i32));
}

#[test]
fn the_cgroup_context_fits_the_client_s_structure() {
    let monitor = Monitor::start();
    for (asked, came) in [(96, 96), (40, 40), (120, 96)] {
        let (mut stream, header, fds) = monitor.raw(23, 0, &vec![0; asked]);
        assert_eq!((header.unwrap().code, header.unwrap().datalen, fds.len()), (0, came, 1));
        let mut payload = vec![0; 200];
        let n = stream.read(&mut payload).unwrap();
        assert_eq!(n, came as usize, "in one piece");
        payload.resize(96, 0);
        if n == 96 {
            let ctx = CgroupCtx::decode(&payload).unwrap();
            assert_eq!((ctx.layout, ctx.utilities, ctx.fds.len()), (2, 3, 1));
        }
    }
}

#[test]
fn a_controller_s_cgroup_comes_as_descriptor() {
    let monitor = Monitor::start();
    let ask = |kind: i32, controller: &str| CgroupFd {
        layout: 0,
        utilities: 0,
        kind,
        fd: 0,
        controller: controller.to_owned(),
    };
    for number in [24, 25] {
        let (mut stream, header, fds) = monitor.raw(number, 0, &ask(0, "memory").encode());
        assert_eq!((header.unwrap().code, fds.len()), (0, 1));
        let mut payload = [0; 80];
        stream.read_exact(&mut payload).unwrap();
        let answer = CgroupFd::decode(&payload);
        assert_eq!(
            (answer.layout, answer.kind, answer.controller.as_str()),
            (2, HierarchyKind::V2 as i32, "memory")
        );
        let table = [
            (ask(0, "nonsense"), Errno::ENOENT),
            (ask(HierarchyKind::V1 as i32, "memory"), Errno::EINVAL),
        ];
        for (request, errno) in table {
            assert_eq!(monitor.raw(number, 0, &request.encode()).1.unwrap().code, -(errno as i32));
        }
    }
}

#[test]
fn device_rules_reach_the_container() {
    let monitor = Monitor::start();
    let rule = DeviceItem { kind: 'c', major: 1, minor: 7, access: "rwm".to_owned(), allow: false };
    assert_eq!(monitor.raw(14, 0, &rule.encode()).1.unwrap().code, 0);
    assert_eq!(monitor.done.recv().unwrap(), format!("{rule:?}"));
}

#[test]
fn a_stop_is_answered_by_the_monitor_s_end() {
    let monitor = Monitor::start();
    let client = monitor.client();
    let short = client.stop_within(Duration::from_millis(50)).unwrap_err();
    assert!(matches!(short, ClientError::Timeout(_)), "{short}");
    let waiting = thread::spawn(move || client.stop());
    assert_eq!([monitor.done.recv().unwrap(), monitor.done.recv().unwrap()], ["stop", "stop"]);
    monitor.until(|s| s.held_count() == 1);
    assert!(!waiting.is_finished());
    let client = monitor.client();
    drop(monitor);
    waiting.join().unwrap().unwrap();
    assert_eq!(client.state().unwrap(), State::Stopped);
    assert!(matches!(client.init_pid(), Err(ClientError::NotRunning)));
}

#[test]
fn freezing_changes_the_state() {
    let monitor = Monitor::start();
    assert_eq!(monitor.raw(15, -1, &[]).1.unwrap().code, 0);
    assert_eq!(monitor.done.recv().unwrap(), "freeze None");
    assert_eq!(monitor.client().state().unwrap(), State::Frozen);
    assert_eq!(monitor.raw(16, 1500, &[]).1.unwrap().code, 0);
    assert_eq!(monitor.done.recv().unwrap(), "unfreeze Some(1.5s)");
    assert_eq!(monitor.client().state().unwrap(), State::Running);
}

#[test]
fn ttys_are_lent_until_the_client_closes() {
    let monitor = Monitor::start();
    let lend = |number| {
        let (stream, header, fds) = monitor.raw(0, number, &[]);
        (stream, header.unwrap().code, header.unwrap().value, fds.len())
    };
    let (first, second, none) = (lend(-1), lend(2), lend(-1));
    assert_eq!((first.1, first.2, first.3), (0, 1, 1));
    assert_eq!((second.1, second.2, second.3), (0, 2, 1));
    let refused = -(Errno::EBADF as i32);
    assert_eq!(
        (none.1, none.3, lend(2).1, lend(9).1, lend(-2).1),
        (refused, 0, refused, refused, refused)
    );
    assert_eq!(monitor.with(|_, made_up| made_up.lent.clone()), [1, 2]);
    drop(first);
    monitor.until(|s| s.held_count() == 1);
    assert_eq!(monitor.with(|_, made_up| made_up.lent.clone()), [2]);
    assert_eq!(lend(-1).2, 1);
}

#[test]
fn a_new_window_size_is_passed_on_without_a_word() {
    let monitor = Monitor::start();
    assert!(monitor.raw(1, 0, &[]).1.is_none());
    assert_eq!(monitor.done.recv().unwrap(), "window");
}

#[test]
fn the_ring_buffer_is_sent_however_long_it_is() {
    let monitor = Monitor::start();
    let ask = |most| monitor.raw(11, 0, &ConsoleLog { clear: false, read: true, most }.encode());
    let (mut stream, header, _) = ask(0);
    assert_eq!((header.unwrap().code, header.unwrap().datalen), (0, 1 << 20));
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).unwrap();
    assert!(bytes.len() == 1 << 20 && bytes.iter().all(|b| *b == 7));
    assert_eq!(ask(1).1.unwrap().code, -(Errno::ENODATA as i32));
    assert_eq!(ask(2).1.unwrap().code, -(Errno::EFAULT as i32));
    assert_eq!(monitor.raw(11, 0, &[0; 23]).1.unwrap().code, -(Errno::EINVAL as i32));
}

#[test]
fn state_clients_are_told_what_they_wait_for() {
    let monitor = Monitor::start();
    let client = monitor.client();
    let limit = Duration::from_secs(5);
    let mut wanted = [0; State::COUNT];
    wanted[State::Running.index()] = 1;
    assert_eq!(
        client.add_state_client(&wanted).unwrap().wait(limit).unwrap(),
        State::Running,
        "it is so already"
    );
    wanted[State::Running.index()] = 2;
    let mut reboot = client.add_state_client(&wanted).unwrap();
    assert_eq!(reboot.now(), None, "2 waits for the next time");
    let mut stopping = client.add_state_client(&[1, 0, 0, 1, 0, 0, 0, 0]).unwrap();
    let mut thawed = client.add_state_client(&[0, 0, 0, 0, 0, 0, 0, 1]).unwrap();
    let mut stopped = client.add_state_client(&[1, 0, 0, 0, 0, 0, 0, 0]).unwrap();
    client.serve_state(State::Frozen).unwrap();
    assert_eq!(client.state().unwrap(), State::Frozen);
    client.serve_state(State::Thawed).unwrap();
    assert_eq!(client.state().unwrap(), State::Running, "thawed is kept as running");
    assert_eq!(thawed.wait(limit).unwrap(), State::Thawed);
    assert!(matches!(reboot.wait(Duration::from_millis(30)), Err(ClientError::Timeout(_))));
    monitor.with(|s, _| s.set_state(State::Stopping));
    assert_eq!(stopping.wait(limit).unwrap(), State::Stopping);
    monitor.with(|s, _| s.drop_state_clients_for_reboot());
    assert_eq!(stopped.wait(limit).unwrap(), State::Stopped, "the end of the connection");
    monitor.with(|s, _| s.set_state(State::Running));
    assert_eq!(reboot.wait(limit).unwrap(), State::Running);
    assert_eq!(monitor.raw(12, 8, &[]).1.unwrap().code, -(Errno::EINVAL as i32));
}

#[test]
fn a_final_stop_is_the_end_of_the_connection() {
    let monitor = Monitor::start();
    let client = monitor.client();
    let mut stopped = client.add_state_client(&[1, 0, 0, 0, 0, 0, 0, 0]).unwrap();
    monitor.with(|s, _| s.end());
    assert_eq!(client.state().unwrap(), State::Stopped, "refused");
    assert!(
        matches!(stopped.wait(Duration::from_millis(30)), Err(ClientError::Timeout(_))),
        "post-stop may run"
    );
    drop(monitor);
    assert_eq!(stopped.wait(Duration::from_secs(5)).unwrap(), State::Stopped);
}

#[test]
fn lxc_monitor_is_told_by_its_fifo() {
    let monitor = Monitor::start();
    let path = fifo_path(monitor.dir.path(), monitor.lxcpath());
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(&path, "no fifo").unwrap();
    monitor.with(|s, _| s.set_state(State::Freezing));
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "no fifo");
    std::fs::remove_file(&path).unwrap();
    nix::unistd::mkfifo(&path, nix::sys::stat::Mode::from_bits_truncate(0o600)).unwrap();
    monitor.with(|s, _| s.set_state(State::Frozen)); // nobody listens
    let mut fifo = OpenOptions::new().read(true).write(true).open(&path).unwrap();
    monitor.client().serve_state(State::Thawed).unwrap(); // lxc-unfreeze tells it itself
    monitor.with(|s, _| {
        s.send_exit_code(0x100);
        s.end();
    });
    let mut bytes = [0; MESSAGE_LEN];
    for news in [News::ExitCode(0x100), News::State(State::Stopped)] {
        fifo.read_exact(&mut bytes).unwrap();
        assert_eq!(Message::decode(&bytes), Some(Message { name: "made-up".to_owned(), news }));
    }
    // A fifo that nobody empties does not stop the monitor.
    monitor.with(|s, _| (0..1000).for_each(|_| s.set_state(State::Running)));
}

#[test]
fn a_name_is_served_once() {
    let monitor = Monitor::start();
    assert!(matches!(
        Server::bind(&format!("{}/", monitor.lxcpath()), "made-up"),
        Err(Error::AlreadyRunning)
    ));
    let long = "n".repeat(200);
    let server = Server::bind(monitor.lxcpath(), &long).unwrap();
    assert!(matches!(Server::bind(monitor.lxcpath(), &long), Err(Error::AlreadyRunning)), "hashed");
    let socket = server.listener().unwrap().try_clone_to_owned().unwrap();
    drop(server);
    let server = Server::adopt(socket, monitor.lxcpath(), &long).unwrap();
    assert!(
        matches!(Server::bind(monitor.lxcpath(), &long), Err(Error::AlreadyRunning)),
        "taken over"
    );
    drop(server);
    Server::bind(monitor.lxcpath(), &long).unwrap();
}
