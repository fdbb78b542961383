use std::path::Path;

use super::address::fnv1a64;
use super::*;

/// Expected bytes, field after field.
fn joined(parts: &[&[u8]]) -> Vec<u8> {
    parts.concat()
}

#[test]
fn numbers_are_those_of_lxc() {
    for (i, command) in Command::ALL.into_iter().enumerate() {
        assert_eq!(command.number(), i as i32);
        assert_eq!(Command::from_number(i as i32), Some(command));
    }
    assert_eq!(Command::GetSystemdScope.number(), 26);
    assert_eq!([-1, 27, i32::MAX, i32::MIN].map(Command::from_number), [None; 4]);
    for (i, state) in State::ALL.into_iter().enumerate() {
        assert_eq!((state.number(), state.index()), (i as i32, i));
        assert_eq!(State::from_number(i as i32), Some(state));
    }
    assert_eq!([-1, 8].map(State::from_number), [None; 2]);
    assert_eq!(format!("[{:>8}] {}", State::Frozen, State::Stopped), "[  FROZEN] STOPPED");
}

#[test]
fn headers_have_their_layout() {
    let table: &[(Header, &[&[u8]])] = &[
        (Header { code: 3, datalen: 0, value: 0 }, &[&3i32.to_ne_bytes(), &[0; 12]]),
        (Header { code: 0, datalen: 0, value: -1 }, &[&[0; 8], &[0xff; 8]]),
        (Header { code: -38, datalen: 0, value: 0 }, &[&(-38i32).to_ne_bytes(), &[0; 12]]),
        (
            Header { code: 7, datalen: 9, value: 0 },
            &[&7i32.to_ne_bytes(), &9i32.to_ne_bytes(), &[0; 8]],
        ),
        (
            Header { code: 0, datalen: 0, value: 0x6e02_0000 },
            &[&[0; 8], &0x6e02_0000i64.to_ne_bytes()],
        ),
    ];
    for (header, bytes) in table {
        assert_eq!(header.encode().to_vec(), joined(bytes));
        assert_eq!(Header::decode(&header.encode()), *header);
    }
    // With a payload the value is a pointer; reading it does no harm.
    let pointer = joined(&[
        &6i32.to_ne_bytes(),
        &5i32.to_ne_bytes(),
        &0x7fff_1234_5678_9abci64.to_ne_bytes(),
    ]);
    assert_eq!(Header::decode(&pointer.try_into().unwrap()).datalen, 5);
}

#[test]
fn cgroup_ctx_has_its_layout() {
    let ctx = CgroupCtx { layout: Layout::Unified as i32, utilities: 3, fds: vec![17, 18] };
    let expected = joined(&[
        &2i32.to_ne_bytes(),
        &3u32.to_ne_bytes(),
        &2u32.to_ne_bytes(),
        &17i32.to_ne_bytes(),
        &18i32.to_ne_bytes(),
        &[0; 76],
    ]);
    assert_eq!(ctx.encode().to_vec(), expected);
    assert_eq!(CgroupCtx::decode(&expected), Some(ctx));
    assert_eq!(CgroupCtx::decode(&expected[..95]), None);
    let many = CgroupCtx { layout: 1, utilities: 0, fds: (0..40).collect() };
    assert_eq!(CgroupCtx::decode(&many.encode()).unwrap().fds, (0..20).collect::<Vec<i32>>());
    let claims = joined(&[&[0; 8], &21u32.to_ne_bytes(), &[0; 84]]);
    assert_eq!(CgroupCtx::decode(&claims), None);
}

#[test]
fn cgroup_fd_has_its_layout() {
    let fd = CgroupFd {
        layout: 2,
        utilities: 3,
        kind: HierarchyKind::V2 as i32,
        fd: 9,
        controller: "memory".to_owned(),
    };
    let expected = joined(&[
        &2i32.to_ne_bytes(),
        &3u32.to_ne_bytes(),
        &0x6367_7270i32.to_ne_bytes(),
        &9i32.to_ne_bytes(),
        b"memory",
        &[0; 58],
    ]);
    assert_eq!(fd.encode().to_vec(), expected);
    assert_eq!(CgroupFd::decode(&expected), fd);
    assert_eq!(
        CgroupFd::decode(&expected[..23]).controller,
        "memory",
        "shorter: filled with zeros"
    );
    assert_eq!(
        CgroupFd::decode(&[expected.as_slice(), &[0]].concat()).controller,
        "",
        "longer: all zeros"
    );
    assert_eq!(CgroupFd::decode(&[b'x'; 80]).controller, "", "no NUL");
    let long = CgroupFd { controller: "c".repeat(70), ..fd };
    assert_eq!(CgroupFd::decode(&long.encode()).controller, "c".repeat(63));
}

#[test]
fn device_item_has_its_layout() {
    let item = DeviceItem { kind: 'c', major: 1, minor: -1, access: "rw".to_owned(), allow: true };
    let expected = joined(&[
        b"c\0\0\0",
        &1i32.to_ne_bytes(),
        &(-1i32).to_ne_bytes(),
        b"rw\0\0",
        &1i32.to_ne_bytes(),
        &[0; 20],
    ]);
    assert_eq!(item.encode().to_vec(), expected);
    assert_eq!(DeviceItem::decode(&expected), Some(item));
    for (at, byte) in [(0, b'x'), (12, b'q'), (14, 0xff), (16, 7)] {
        let mut bad = expected.clone();
        bad[at] = byte;
        assert_eq!(DeviceItem::decode(&bad), None, "byte {at}");
    }
    assert_eq!(DeviceItem::decode(&expected[..24]), None, "the size of LXC 4.0.0");
}

#[test]
fn messages_have_their_layout() {
    let message = Message { name: "test-lxc".to_owned(), news: News::State(State::Frozen) };
    let expected = joined(&[&[0; 4], b"test-lxc", &[0; 248], &6i32.to_ne_bytes()]);
    assert_eq!(message.encode().to_vec(), expected);
    assert_eq!(Message::decode(&expected), Some(message));
    let exit = Message { name: "n".repeat(300), news: News::ExitCode(0x8b) };
    let bytes = exit.encode();
    assert_eq!((&bytes[..4], bytes[258], bytes[259]), (&2i32.to_ne_bytes()[..], b'n', 0));
    assert_eq!(
        Message::decode(&bytes),
        Some(Message { name: "n".repeat(255), news: News::ExitCode(0x8b) })
    );
    assert_eq!(Message::decode(&expected[..263]), None);
    assert_eq!(Message::decode(&joined(&[&1i32.to_ne_bytes(), &[0; 260]])), None);
    assert_eq!(Message::decode(&joined(&[&[0; 260], &8i32.to_ne_bytes()])), None);
}

#[test]
fn wanted_states_have_their_layout() {
    let wanted = [1, 0, 2, 0, 0, 0, -1, 0];
    let bytes = encode_wanted(&wanted);
    assert_eq!(bytes[8..12], 2i32.to_ne_bytes());
    assert_eq!(decode_wanted(&bytes), Some(wanted));
    assert_eq!([&bytes[..31], &[0; 33]].map(decode_wanted), [None; 2]);
}

#[test]
fn strings_are_clean_or_none() {
    assert_eq!(to_c_string("lxc.arch"), b"lxc.arch\0");
    let table: &[(&[u8], Option<&str>)] = &[
        (b"memory\0", Some("memory")),
        (b"\0", Some("")),
        (b"", None),
        (b"memory", None),
        (b"a\0b\0", None),
        (b"\xff\0", None),
    ];
    for (bytes, text) in table {
        assert_eq!(c_string(bytes), *text, "{bytes:?}");
    }
}

#[test]
fn hashes_are_those_that_lxc_shows() {
    // The names of lxc-monitord's sockets: @lxc/44a589d8f4a4b926//tmp/lx was seen.
    assert_eq!(fnv1a64(b"lxc//tmp/lx/monitor-sock"), 0x44a5_89d8_f4a4_b926);
    assert_eq!(fnv1a64(b"lxc//var/lib/lxc/monitor-sock"), 0xad05_5575_fe28_ddd5);
    assert_eq!(fnv1a64(b""), 0xcbf2_9ce4_8422_2325);
}

#[test]
fn an_address_of_106_bytes_is_hashed() {
    let literal = socket_name("/var/lib/lxc", &"n".repeat(84));
    assert_eq!((literal.len(), literal.ends_with("n/command")), (105, true));
    let name = "n".repeat(85);
    let hashed = socket_name("/var/lib/lxc", &name);
    assert_eq!(
        hashed,
        format!("lxc/{:016x}/command", fnv1a64(format!("/var/lib/lxc/{name}").as_bytes()))
    );
    assert_eq!(socket_name("/var/lib/lxc//", "c1"), "/var/lib/lxc/c1/command");
    assert_eq!(socket_name("/var/./lib/lxc", "c1"), "/var/./lib/lxc/c1/command", "not resolved");
    for (name, text) in [("n".repeat(84), literal), (name, hashed)] {
        let address = address("/var/lib/lxc", &name).unwrap();
        assert_eq!(address.as_abstract(), Some(text.as_bytes()), "neither NUL nor padding");
    }
}

#[test]
fn the_fifo_lies_where_lxc_monitord_makes_it() {
    assert_eq!(
        fifo_path(Path::new("/run"), "/var/lib/lxc/").as_os_str(),
        "/run/lxc//var/lib/lxc/monitor-fifo"
    );
}

proptest::proptest! {
    #[test]
    fn any_bytes_can_be_read(bytes: Vec<u8>, exact: [u8; 16]) {
        let header = Header::decode(&exact);
        if header.datalen == 0 {
            proptest::prop_assert_eq!(Header::decode(&header.encode()), header);
        }
        let _ = (CgroupCtx::decode(&bytes), DeviceItem::decode(&bytes), Message::decode(&bytes));
        let fd = CgroupFd::decode(&bytes);
        proptest::prop_assert_eq!(CgroupFd::decode(&fd.encode()), fd);
        let _ = (decode_wanted(&bytes), c_string(&bytes));
    }

    #[test]
    fn what_is_written_is_read(
        kind in "[abc]", major in -1..i32::MAX, minor in -1..i32::MAX, access in "[rwm]{0,3}", allow: bool, name in "[^\0]{1,60}"
    ) {
        let item = DeviceItem { kind: kind.chars().next().unwrap(), major, minor, access, allow };
        proptest::prop_assert_eq!(DeviceItem::decode(&item.encode()), Some(item));
        let message = Message { name, news: News::ExitCode(major) };
        proptest::prop_assert_eq!(Message::decode(&message.encode()), Some(message));
    }
}
