//! The configuration as a whole: lines in, answers out.

use std::path::{Path, PathBuf};

use proptest::prelude::*;

use super::error::ParseError;
use super::*;

fn parse(text: &str) -> Config {
    Config::parse(Path::new("/c"), text.as_bytes()).unwrap()
}

fn error(text: &str) -> ParseError {
    match Config::parse(Path::new("/c"), text.as_bytes()) {
        Err(ConfigError::Parse(e)) => *e,
        other => panic!("{text:?}: {other:?}"),
    }
}

fn answer(text: &str, key: &str) -> Option<String> {
    parse(text).item(key)
}

#[test]
fn reads_the_old_language() {
    let c = parse(
        "lxc.utsname = old\nlxc.rootfs = /srv/a:b/rootfs\nlxc.mount = /srv/fstab\nlxc.console = \
         none\nlxc.tty = 4\nlxc.network.type = veth\nlxc.network.link = br0\nlxc.network.ipv4 = \
         10.0.0.2/24\nlxc.network.type = empty\nlxc.network.0.name = eth7\nlxc.limit.nofile = \
         10:20\nlxc.haltsignal = SIGPWR\nlxc.cgroup.devices.deny = a\nlxc.cgroup.devices.allow = c \
         1:3 rwm\nlxc.kmsg = 0\nlxc.id_map = u 0 100000 10\n",
    );
    assert_eq!(c.uts_name(), Some("old"));
    let rootfs =
        Rootfs { kind: RootfsKind::Unspecified, path: "/srv/a:b/rootfs".into(), options: None };
    assert_eq!(c.rootfs(), Some(rootfs));
    assert_eq!(c.console_path(), Console::None);
    assert_eq!(c.tty_max(), 4);
    let nics: Vec<_> =
        c.nics().iter().map(|n| (n.index, n.kind, n.name.as_deref(), n.link.as_deref())).collect();
    assert_eq!(
        nics,
        [(0, NicKind::Veth, Some("eth7"), Some("br0")), (1, NicKind::Empty, Some("lo"), None)]
    );
    assert_eq!(c.item("lxc.network.0.ipv4").as_deref(), Some("10.0.0.2/24"));
    assert_eq!(c.item("lxc.network.type").as_deref(), Some("empty"));
    assert_eq!(c.item("lxc.limit.nofile").as_deref(), Some("10:20"));
    assert_eq!(c.signal(SignalKind::Halt), Some(30));
    assert_eq!(c.cgroup_items().len(), 2);
    assert_eq!(c.idmap().len(), 1);
    let link = c.last_item("lxc.net.0.link").unwrap();
    assert_eq!((link.written.as_str(), link.at.line), ("lxc.network.link", 7));
}

#[test]
fn an_emptied_network_starts_again_at_zero() {
    for clear in ["lxc.network =", "lxc.network.type =", "lxc.net ="] {
        let c = parse(&format!(
            "lxc.network.type = veth\nlxc.network.type = phys\n{clear}\nlxc.network.type = empty\n"
        ));
        assert_eq!(
            c.nics().iter().map(|n| (n.index, n.kind)).collect::<Vec<_>>(),
            [(0, NicKind::Empty)],
            "{clear}"
        );
    }
    assert_eq!(
        answer("lxc.net.0.type = veth\nlxc.net.1.type = none\nlxc.net.0 =\n", "lxc.net").as_deref(),
        Some("none\n")
    );
}

#[test]
fn splits_the_root_file_system() {
    for (line, kind, path) in [
        ("lxc.rootfs.path = dir:/a//b/", RootfsKind::Dir, "/a/b"),
        ("lxc.rootfs.path = /a", RootfsKind::Unspecified, "/a"),
        ("lxc.rootfs.path = overlayfs:/a:/b", RootfsKind::Overlay, "/a:/b"),
        ("lxc.rootfs = overlay:/a:/b", RootfsKind::Overlay, "/a:/b"),
        ("lxc.rootfs = /a:/b", RootfsKind::Unspecified, "/a:/b"),
        ("lxc.rootfs.backend = lvm\nlxc.rootfs = /dev/vg/lv", RootfsKind::Lvm, "/dev/vg/lv"),
        ("lxc.rootfs.path = zfs:pool/c", RootfsKind::Zfs, "pool/c"),
        ("lxc.rootfs.path = rbd:x", RootfsKind::Other("rbd".into()), "x"),
    ] {
        assert_eq!(
            parse(line).rootfs(),
            Some(Rootfs { kind, path: path.into(), options: None }),
            "{line}"
        );
    }
    assert_eq!(parse("lxc.rootfs.path = dir:/a\nlxc.rootfs.path =").rootfs(), None);
}

#[test]
fn lists_grow_and_empty_values_clear_them() {
    assert_eq!(
        answer("lxc.cap.drop = a b\nlxc.cap.drop = c\n", "lxc.cap.drop").as_deref(),
        Some("a\nb\nc\n")
    );
    assert_eq!(
        answer("lxc.cap.drop = a\nlxc.cap.drop =\nlxc.cap.keep = b", "lxc.cap.keep").as_deref(),
        Some("b\n")
    );
    assert_eq!(answer("lxc.mount.entry = a b c\nlxc.mount.entry =\n", "lxc.mount.entry"), None);
    assert_eq!(answer("lxc.hook.stop = /a\nlxc.hook =\n", "lxc.hook.stop"), None);
    assert_eq!(
        answer("lxc.cgroup2.a = 1\nlxc.cgroup2.b = 2\nlxc.cgroup2.a = 3\n", "lxc.cgroup2")
            .as_deref(),
        Some("lxc.cgroup2.a = 1\nlxc.cgroup2.b = 2\nlxc.cgroup2.a = 3\n")
    );
    assert_eq!(
        answer("lxc.sysctl.a = 1\nlxc.sysctl.a = 2\n", "lxc.sysctl.a").as_deref(),
        Some("2")
    );
}

#[test]
fn wrong_values_are_errors_with_their_place() {
    for (text, line, column, message) in [
        ("lxc.a\n", 1, 1, "a line needs a key, '=' and a value"),
        ("\n  lxc.tty.max = 'many'\n", 2, 18, "lxc.tty.max: 'many' is not a number"),
        ("lxc.signal.stop = SIGFOO", 1, 19, "lxc.signal.stop: 'SIGFOO' is not a signal"),
        (
            "lxc.network.name = x",
            1,
            20,
            "lxc.network.name: there is no 'lxc.network.type' before it",
        ),
        (
            "lxc.net.0.type = token",
            1,
            18,
            "lxc.net.0.type: 'token' is not a kind of network interface",
        ),
        (
            "lxc.net.0.veth.pair = v",
            1,
            23,
            "lxc.net.0.veth.pair: this needs 'type = veth' before it",
        ),
        (
            "lxc.net = x",
            1,
            11,
            "lxc.net: only an empty value is taken here, which forgets all interfaces",
        ),
        ("lxc.cgroup.dir = /a", 1, 18, "lxc.cgroup.dir: the path must not be absolute"),
        ("lxc.mount.auto = proc foo", 1, 18, "lxc.mount.auto: 'foo' is not an automatic mount"),
        ("lxc.autodev = 2", 1, 15, "lxc.autodev: '2' is not 0 or 1"),
        ("lxc.idmap = u 0 1", 1, 13, "lxc.idmap: 'u' or 'g' and three numbers are needed"),
    ] {
        let e = error(text);
        assert_eq!((e.line, e.column, e.message.as_str()), (line, column, message), "{text:?}");
    }
    let text = format!("lxc.uts.name = {}", "x".repeat(65));
    assert!(error(&text).message.contains("longer than 64 bytes"));
    let bad = Config::parse(Path::new("/c"), b"lxc.uts.name = \xff").unwrap_err();
    assert_eq!(bad.to_string(), "/c:1:16: lxc.uts.name: the value is not UTF-8");
}

#[test]
fn unknown_keys_are_kept_and_ignored() {
    let c = parse(
        "lxc.future = 1\nlxc.net.0.future = 2\nlxc.network.future = 3\nother = 4\nlxc.procs.x = \
         5\nnonsense\n",
    );
    assert_eq!(c.items().len(), 5);
    assert!(c.nics().is_empty());
    assert_eq!(c.item("lxc.future"), None);
}

#[test]
fn paths_keep_their_bytes() {
    use std::os::unix::ffi::OsStrExt;
    let c = Config::parse(
        Path::new("/c"),
        b"lxc.rootfs.path = dir:/a\xff\nlxc.mount.entry = /\xfe x none bind\n",
    )
    .unwrap();
    assert_eq!(c.rootfs().unwrap().path.as_os_str().as_bytes(), b"/a\xff");
    assert_eq!(c.item_os("lxc.mount.entry").unwrap().as_bytes(), b"/\xfe x none bind\n");
    assert_eq!(c.mount_entries().unwrap()[0].source.as_os_str().as_bytes(), b"/\xfe");
}

#[test]
fn mounts_come_from_the_fstab_first() {
    let dir = tempfile::tempdir().unwrap();
    let fstab = dir.path().join("fstab");
    std::fs::write(&fstab, "# a comment\n\n/a a none bind 0 0\n  /b\n").unwrap();
    let c = parse(&format!(
        "lxc.mount.entry = proc proc proc\nlxc.mount.fstab = {}\n",
        fstab.display()
    ));
    let e = c.mount_entries().unwrap_err();
    let place = e.parse_error().unwrap();
    assert_eq!((place.file.as_path(), place.line, place.column), (fstab.as_path(), 4, 3));
    std::fs::write(&fstab, "/a a none bind 0 0\n").unwrap();
    let entries = c.mount_entries().unwrap();
    assert_eq!(
        entries.iter().map(|m| m.target.to_str().unwrap()).collect::<Vec<_>>(),
        ["a", "proc"]
    );
    std::fs::remove_file(&fstab).unwrap();
    assert!(c.mount_entries().unwrap_err().to_string().contains("included from /c:2:1"));
    let e = parse("\nlxc.mount.entry = /a b\n").mount_entries().unwrap_err();
    assert_eq!(e.to_string(), "/c:2:19: a mount needs a source, a target and a type");
}

#[test]
fn the_real_names_replace_the_configured_ones() {
    let mut c = parse(
        "lxc.net.0.type = veth\nlxc.net.0.hwaddr = 00:16:3e:xx:xx:xx\nlxc.net.1.type = phys\n",
    );
    assert_eq!(c.item("lxc.net.0.veth.pair"), None);
    assert!(c.set_veth_pair(0, "vethAB12"));
    assert!(!c.set_veth_pair(1, "vethAB12") && !c.set_veth_pair(2, "vethAB12"));
    assert_eq!(c.item("lxc.net.0.veth.pair").as_deref(), Some("vethAB12"));
    assert!(c.set_hwaddr(0, HwAddr::parse("00:16:3e:00:00:01").unwrap()));
    assert_eq!(c.item("lxc.net.0.hwaddr").as_deref(), Some("00:16:3e:00:00:01"));
}

/// The answers of LXC 7.0 itself, recorded in `tests/system/config_cases`; see the README there.
#[test]
fn answers_as_lxc_7_does() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/system/config_cases");
    let mut wrong = Vec::new();
    let mut asked = 0;
    let mut cases: Vec<PathBuf> =
        std::fs::read_dir(&dir).unwrap().map(|e| e.unwrap().path()).collect();
    cases.sort();
    for case in cases.iter().filter(|c| c.extension().is_some_and(|e| e == "conf")) {
        let name = case.file_stem().unwrap().to_string_lossy().into_owned();
        let loaded = Config::load(case);
        for line in std::fs::read_to_string(case.with_extension("lxc7")).unwrap().lines() {
            asked += 1;
            let (key, want) = line.split_once('\t').unwrap();
            let got = match &loaded {
                Err(e) => e.to_string(),
                Ok(config) => config.item(key).unwrap_or_default().replace('\n', "\\n"),
            };
            if got != want {
                wrong.push(format!("{name}: {key}: got '{got}', want '{want}'"));
            }
        }
    }
    assert!(asked > 0 && wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn refuses_and_accepts_what_lxc_7_does() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/system/config_cases/lines.txt");
    let mut wrong = Vec::new();
    for line in std::fs::read_to_string(file).unwrap().lines() {
        let (want, text) = line.split_once('\t').unwrap();
        let got = Config::parse(Path::new("/c"), text.replace("\\n", "\n").as_bytes());
        if got.is_ok() != (want == "accepted") {
            wrong.push(format!(
                "{text}: LXC: {want}, here: {:?}",
                got.map(|_| "accepted").map_err(|e| e.to_string())
            ));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

proptest! {
    #[test]
    fn loading_never_panics(text in proptest::collection::vec(any::<u8>(), 0..300)) {
        if let Err(ConfigError::Parse(e)) = Config::parse(Path::new("/c"), &text) {
            e.render();
        }
    }

    #[test]
    fn no_value_of_a_known_key_panics(
        key in proptest::sample::select(vec![
            "lxc.net.0.type", "lxc.net.0.hwaddr", "lxc.net.0.ipv4.address", "lxc.net.0.ipv6.address", "lxc.network.link",
            "lxc.net.0.veth.ipv4.route", "lxc.idmap", "lxc.mount.entry", "lxc.mount.auto", "lxc.rootfs", "lxc.rootfs.path",
            "lxc.signal.halt", "lxc.console.size", "lxc.prlimit.nofile", "lxc.time.offset.boot", "lxc.cap.keep", "lxc.net.",
            "lxc.net.99999999999", "lxc.namespace.keep", "lxc.cgroup.dir", "lxc.log.level", "lxc.init.groups", "lxc.start.order",
        ]),
        value in "\\PC{0,30}|[-+:./0-9a-zA-Z ]{0,30}",
    ) {
        let text = format!("lxc.network.type = veth\n{key} = {value}\n");
        match Config::parse(Path::new("/c"), text.as_bytes()) {
            Ok(config) => {
                config.item(key);
                let _ = (config.mount_entries().is_ok(), config.rootfs(), config.environment());
            }
            Err(e) => { prop_assert!(e.parse_error().is_some()); }
        }
    }
}
