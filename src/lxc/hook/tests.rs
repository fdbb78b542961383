use std::fs;

use super::*;
use crate::lxc::config::Config;
use crate::lxc::name::{ContainerName, LxcPath};

/// A container whose configuration is this text.
fn defined(top: &Path, name: &str, text: &str) -> Defined {
    let dir = top.join(name);
    fs::create_dir_all(dir.join("rootfs")).unwrap();
    fs::write(dir.join("config"), text).unwrap();
    Defined {
        name: ContainerName::new(name).unwrap(),
        lxcpath: LxcPath::new(top).unwrap(),
        config: Config::load(&dir.join("config")).unwrap(),
        rootfs: dir.join("rootfs"),
    }
}

/// A hook that writes down its arguments and LXC's variables.
fn noting(top: &Path) -> (String, PathBuf) {
    let (script, notes) = (top.join("hook"), top.join("notes"));
    let text = format!(
        "#!/bin/sh\n{{ echo \"$PWD $#: $*\"; env | grep ^LXC_ | grep -v ROOTFS_MOUNT | sort; }} >> \
         {}\n",
        notes.display()
    );
    fs::write(&script, text).unwrap();
    fs::set_permissions(&script, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    (script.display().to_string(), notes)
}

#[test]
fn the_shells_line_is_that_of_lxc() {
    let none: &[String] = &[];
    assert_eq!(
        command_line(0, "/h -a", "web", "lxc", "stop", none),
        "exec /h -a 'web' 'lxc' 'stop'"
    );
    assert_eq!(command_line(1, "/h -a", "web", "lxc", "stop", none), "exec /h -a");
    let words = ["veth", "br0", "vethX"].map(str::to_owned);
    assert_eq!(
        command_line(0, "/h", "web", "net", "up", &words),
        "exec /h 'web' 'net' 'up' veth br0 vethX"
    );
    assert_eq!(command_line(1, "/h", "web", "net", "up", &words), "exec /h veth br0 vethX");
    // A name may hold anything but a slash.
    assert_eq!(
        command_line(0, "/h", "a'; b", "lxc", "stop", none),
        r"exec /h 'a'\''; b' 'lxc' 'stop'"
    );
    assert_eq!(command_line(1, "/h", "a", "net", "up", &["$x".to_owned()]), "exec /h '$x'");
}

#[test]
fn a_hook_of_version_0_gets_arguments() {
    let top = tempfile::tempdir().unwrap();
    let (script, notes) = noting(top.path());
    let text =
        format!("lxc.log.level = DEBUG\nlxc.console.path = none\nlxc.hook.stop = {script} own\n");
    let defined = defined(top.path(), "web", &text);
    let context = Context::new(&defined)
        .with_pid(812)
        .with_target(Target::Reboot)
        .with_namespaces(vec![("mnt", "/proc/7/fd/5".into()), ("net", "/proc/7/fd/6".into())]);
    run_all(HookKind::Stop, &context).unwrap();
    let at = top.path().display();
    assert_eq!(
        fs::read_to_string(notes).unwrap(),
        format!(
            "/ 6: own web lxc stop mnt:/proc/7/fd/5 \
             net:/proc/7/fd/6\nLXC_CGNS_AWARE=1\nLXC_CONFIG_FILE={at}/web/config\nLXC_CONSOLE=none\nLXC_HOOK_VERSION=0\nLXC_LOG_LEVEL=DEBUG\nLXC_MNT_NS=/proc/7/fd/5\nLXC_NAME=web\nLXC_NET_NS=/proc/7/fd/6\nLXC_PID=812\nLXC_ROOTFS_PATH={at}/web/rootfs\nLXC_TARGET=reboot\n"
        )
    );
}

#[test]
fn a_hook_of_version_1_gets_variables() {
    let top = tempfile::tempdir().unwrap();
    let (script, notes) = noting(top.path());
    let text = format!(
        "lxc.hook.version = 1\nlxc.net.0.type = veth\nlxc.net.0.link = br0\nlxc.net.0.script.down \
         = {script} own\n"
    );
    let defined = defined(top.path(), "web", &text);
    let nic = &defined.config.nics()[0];
    run_net_script(nic, Direction::Up, Some("vethX"), &Context::new(&defined)).unwrap();
    assert!(!notes.exists());
    run_net_script(nic, Direction::Down, Some("vethX"), &Context::new(&defined)).unwrap();
    let told = fs::read_to_string(notes).unwrap();
    assert!(told.starts_with("/ 4: own veth br0 vethX\n"), "{told}");
    for line in [
        "LXC_HOOK_TYPE=down",
        "LXC_HOOK_SECTION=net",
        "LXC_NET_TYPE=veth",
        "LXC_NET_PARENT=br0",
        "LXC_NET_PEER=vethX",
        "LXC_HOOK_VERSION=1",
    ] {
        assert!(told.lines().any(|l| l == line), "{line} in {told}");
    }
}

#[test]
fn a_failing_hook_is_the_last_and_says_why() {
    let top = tempfile::tempdir().unwrap();
    let (script, notes) = noting(top.path());
    let bad = "/bin/sh -c 'echo no disk >&2; exit 3' #";
    let text = format!("lxc.hook.version = 1\nlxc.hook.stop = {bad}\nlxc.hook.stop = {script}\n");
    let defined = defined(top.path(), "web", &text);
    let error = format!("{:#}", run_all(HookKind::Stop, &Context::new(&defined)).unwrap_err());
    assert!(error.ends_with("it ended with status 3: no disk"), "{error}");
    assert!(error.starts_with("run the stop hook '/bin/sh"), "{error}");
    assert!(!notes.exists());
}

#[test]
fn a_hook_that_hangs_is_ended_with_its_children() {
    let top = tempfile::tempdir().unwrap();
    let pids = top.path().join("pid");
    let text = format!("lxc.hook.stop = sleep 300 & echo $! > {}; wait; :\n", pids.display());
    // The script begins with `exec`, as LXC has it: so a shell of its own.
    let text = text.replace("= sleep", "= /bin/sh -c 'sleep").replace("; :\n", "' #\n");
    let defined = defined(top.path(), "web", &text);
    let begin = Instant::now();
    let context = Context::new(&defined).with_limit(Duration::from_millis(300));
    let error = format!("{:#}", run_all(HookKind::Stop, &context).unwrap_err());
    assert!(error.contains("did not end within 0.3 s"), "{error}");
    assert!(begin.elapsed() < Duration::from_secs(20));
    let pid: i32 = fs::read_to_string(pids).unwrap().trim().parse().unwrap();
    // Killed; it may take a moment until nobody sees it any more.
    let gone =
        || fs::read_to_string(format!("/proc/{pid}/stat")).map_or(true, |s| s.contains(") Z "));
    while !gone() && begin.elapsed() < Duration::from_secs(20) {
        std::thread::sleep(Duration::from_millis(5));
    }
    assert!(gone());
}

#[test]
fn a_program_left_behind_does_not_hold_us_up() {
    let top = tempfile::tempdir().unwrap();
    let defined =
        defined(top.path(), "web", "lxc.hook.stop = /bin/sh -c 'sleep 3 & echo done' #\n");
    let begin = Instant::now();
    run_all(HookKind::Stop, &Context::new(&defined)).unwrap();
    assert!(begin.elapsed() < Duration::from_secs(2));
}

#[test]
fn more_output_than_a_pipe_holds_does_not_stop_a_hook() {
    let top = tempfile::tempdir().unwrap();
    let text = "lxc.hook.stop = /bin/sh -c 'head -c 300000 /dev/zero | tr \"\\\\0\" x; echo; echo \
                last; exit 1' #\n";
    let defined = defined(top.path(), "web", text);
    let error = format!("{:#}", run_all(HookKind::Stop, &Context::new(&defined)).unwrap_err());
    assert!(error.ends_with("x; last"), "{error}");
    assert!(error.len() < 1000);
}
