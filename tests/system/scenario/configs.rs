//! Configurations, read by us and by the real LXC.

use std::fs;
use std::path::Path;

use lxc_cr::api::lxc::command::Client;
use lxc_cr::api::lxc::config::Config;

use crate::harness::World;
use crate::harness::container::Container;
use crate::harness::run::Run;

/// The test host does not see the source, so the cases are built in.
macro_rules! cases {
    ($($name:literal),* $(,)?) => {
        &[$(Case {
            name: $name,
            text: include_str!(concat!("../config_cases/", $name, ".conf")),
            keys: include_str!(concat!("../config_cases/", $name, ".keys")),
        }),*]
    };
}

/// See `tests/system/config_cases/README.md`.
const CASES: &[Case] = cases![
    "include",
    "legacy-full",
    "legacy-numbered",
    "modern-basic",
    "modern-lists",
    "modern-net",
    "odd-lines",
    "unset",
];

/// Where the cases find what they include: relative to the root of the source, where the unit tests
/// run.
const SOURCE: &str = "tests/system/config_cases/";

macro_rules! included {
    ($($name:literal),* $(,)?) => { &[$(($name, include_str!(concat!("../config_cases/", $name)))),*] };
}

/// What the case `include` includes: files, and a directory with one that is none of its own.
const INCLUDED: &[(&str, &str)] = included![
    "include/file",
    "include/nested",
    "include/dir/10-one.conf",
    "include/dir/20-two.conf",
    "include/dir/ignored.txt",
];

/// What a monitor is asked. A container without a value for some is the rule.
const SERVED: &[&str] = &[
    "lxc.uts.name",
    "lxc.net.0.type",
    "lxc.net.0.link",
    "lxc.net.0.name",
    "lxc.net.0.flags",
    "lxc.net.0.veth.pair",
    "lxc.tty.max",
    "lxc.rootfs.path",
    "lxc.mount.fstab",
    "lxc.no_new_privs",
    "lxc.start.auto",
    "lxc.group",
    "lxc.arch",
    "lxc.seccomp.profile",
];

/// Lines and keys of the cases that LXC understands as we do from this version on; an older one is
/// not asked.
const NEWER: &[(&str, u32)] = &[
    ("lxc.environment.runtime", 7),
    ("lxc.environment.hooks", 7),
    // Answered with the list of lxc.cap.keep.
    ("lxc.cap.drop", 7),
    // 5.0 reads no sign, and writes the units in another way.
    ("lxc.time.offset", 6),
];

struct Case {
    name: &'static str,
    text: &'static str,
    keys: &'static str,
}

/// A stopped container of each configuration: `lxc-info -c` says what `Config::item` says.
pub fn read_as_lxc_reads_them(world: &World) {
    let mut wrong = Vec::new();
    let mut with_a_value = 0;
    let version: u32 = Run::new("lxc-info")
        .arg("--version")
        .ok()
        .stdout
        .split('.')
        .next()
        .unwrap()
        .parse()
        .unwrap();
    let known =
        |line: &&str| !NEWER.iter().any(|(key, since)| version < *since && line.starts_with(key));
    let sources = world.images("cases");
    let here = |text: &str| text.replace(SOURCE, &format!("{}/", sources.display()));
    for (name, text) in INCLUDED {
        let file = sources.join(name);
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(file, here(text)).unwrap();
    }
    for case in CASES {
        let text: String =
            case.text.lines().filter(known).map(|line| format!("{line}\n")).collect();
        let text = here(&text);
        let dir = world.lxcpath().join(case.name);
        fs::create_dir(&dir).unwrap();
        let (file, legacy) = (dir.join("config"), dir.join("config.legacy"));
        fs::write(&file, &text).unwrap();
        let mut ours = &file;
        if case.name.starts_with("legacy-") {
            fs::write(&legacy, &text).unwrap();
            ours = &legacy;
            Run::new("lxc-update-config").arg("-c").arg(&file).ok();
        }
        let config = Config::load(ours).unwrap_or_else(|e| panic!("{}: {e}", case.name));
        for key in case.keys.lines().filter(known) {
            let (lxcs, ours) = (asked(world, case.name, key), config.item(key).unwrap_or_default());
            with_a_value += usize::from(!lxcs.is_empty());
            if lxcs != ours {
                wrong.push(format!("{}: {key}: LXC says {lxcs:?}, we say {ours:?}", case.name));
            }
        }
        // No container that anybody could stop.
        fs::remove_dir_all(&dir).unwrap();
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(with_a_value > 100, "only {with_a_value} keys had a value: was LXC asked at all?");
}

/// `lxc-info` adds a newline to a value and says on standard error that a key is none.
fn asked(world: &World, name: &str, key: &str) -> String {
    let told = world.lxc("lxc-info", name).args(["-H", "-c", key]).ok();
    told.stdout.strip_suffix('\n').unwrap_or(&told.stdout).to_owned()
}

/// A running container: LXC's monitor and ours, for the same container restored, give the same
/// answers.
pub fn served_as_lxcs_monitor_serves_them(world: &World) {
    let seccomp = world.images("served").join("seccomp");
    fs::write(&seccomp, "2\ndenylist\nkexec_load errno 1\n").unwrap();
    for more in [
        String::new(),
        format!(
            "lxc.group = one\nlxc.group = two\nlxc.start.auto = 1\nlxc.no_new_privs = 1\nlxc.arch \
             = {}\nlxc.network.veth.pair = vethserved\nlxc.seccomp = {}\n",
            std::env::consts::ARCH,
            seccomp.display()
        ),
    ] {
        let container = world.container().configure(&more);
        container.start();
        let lxcs = served(world, &container);
        let pair = lxcs.iter().find(|(key, _)| *key == "lxc.net.0.veth.pair").unwrap();
        assert_eq!(pair.1.as_deref(), Ok(container.veth().as_str()));
        container.ours("lxc-checkpoint").ok();
        container.ours("lxc-restart").ok();
        assert_eq!(served(world, &container), lxcs);
        container.kill();
    }
}

/// The answers over the command socket, or the error in words.
fn served(world: &World, container: &Container) -> Vec<(&'static str, Result<String, String>)> {
    let client = Client::new(&utf8(world.lxcpath()), container.name());
    let ask = |key| match client.config_item(key) {
        Ok(value) => Ok(value.unwrap_or_else(|| "(nothing)".to_owned())),
        Err(e) => Err(e.to_string()),
    };
    SERVED.iter().map(|key| (*key, ask(key))).collect()
}

fn utf8(path: &Path) -> String {
    path.to_str().unwrap().to_owned()
}
