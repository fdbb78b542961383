//! States of processes and sockets that CRIU does not bring back as they were: a program sets them
//! to something unusual (`tests/system/object/`) and says of each whether it is still that.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::thread;
use std::time::{Duration, Instant};

use crate::harness::World;
use crate::harness::container::Container;
use crate::harness::enter::OBJECT;
use crate::harness::run::{patient, wait_for};

/// Where it listens.
const PORT: u16 = 7100;
/// For it to start, and to answer.
const LIMIT: Duration = Duration::from_secs(20);

/// A program in a container that has a state of one kind.
struct Object {
    stream: BufReader<TcpStream>,
    pid: Option<String>,
}

impl Object {
    /// Puts it into a container, which is started then.
    fn start_in(container: &Container, kind: &str, argument: &str) -> Object {
        let rootfs = container.rootfs();
        fs::copy(OBJECT, rootfs.join("bin/object")).unwrap();
        fs::set_permissions(rootfs.join("bin/object"), fs::Permissions::from_mode(0o755)).unwrap();
        let inittab = rootfs.join("etc/inittab");
        let text = fs::read_to_string(&inittab).unwrap();
        fs::write(inittab, format!("{text}::once:/bin/object {kind} {PORT} {argument}\n")).unwrap();
        container.start();
        Object::connect(container)
    }

    /// As soon as it listens.
    fn connect(container: &Container) -> Object {
        let connected = wait_for("the object to listen", LIMIT, || {
            TcpStream::connect_timeout(
                &(container.address(), PORT).into(),
                Duration::from_millis(500),
            )
            .ok()
        });
        let stream = connected.unwrap_or_else(|e| panic!("{e}"));
        stream.set_read_timeout(Some(patient(LIMIT))).unwrap();
        Object { stream: BufReader::new(stream), pid: None }
    }

    /// Asserts that all is as it has made it, and that it is the same process.
    fn assert_right(&mut self) {
        self.stream.get_mut().write_all(b"check\n").unwrap();
        let mut answer = String::new();
        self.stream.read_line(&mut answer).unwrap();
        let pid = answer.strip_prefix("ok ").and_then(|rest| rest.split_whitespace().next());
        let pid = pid.unwrap_or_else(|| panic!("{answer}")).to_owned();
        assert_eq!(self.pid.get_or_insert_with(|| pid.clone()), &pid);
    }
}

/// Right before, right after, and right once more: what was restored can be checkpointed, too.
fn assert_comes_back(world: &World, configuration: &str, kind: &str, argument: &str) {
    let container = world.container();
    container.append_config(configuration);
    let mut object = Object::start_in(&container, kind, argument);
    object.assert_right();
    for _ in 0..2 {
        container.ours("lxc-checkpoint").ok();
        container.ours("lxc-restart").ok();
        object.assert_right();
    }
    container.kill();
}

/// Timers that are set to a time of day come at that time, however long the container was stopped;
/// at once if it passed meanwhile.
pub fn alarms_come_at_their_time_of_day(world: &World) {
    const STOP: Duration = Duration::from_secs(4);
    let container = world.container();
    let mut object = Object::start_in(&container, "alarms", &STOP.as_secs().to_string());
    for _ in 0..3 {
        object.assert_right();
        let due = Instant::now() + STOP;
        container.ours("lxc-checkpoint").ok();
        // The stop itself is what is tried.
        thread::sleep(due.saturating_duration_since(Instant::now()));
        container.ours("lxc-restart").ok();
    }
    object.assert_right();
    container.kill();
}

/// Timers that repeat go on at their pace, read or not.
pub fn timers_that_repeat_go_on(world: &World) {
    assert_comes_back(world, "", "timerfd", "");
}

/// Options of sockets, of each family and protocol.
pub fn options_of_sockets_come_back(world: &World) {
    assert_comes_back(world, "", "options", "");
}

/// What only a process itself sets: MemoryDenyWriteExecute=, KSM, machine checks, speculation.
pub fn guards_of_processes_come_back(world: &World) {
    assert_comes_back(world, "", "guarded", "");
}

/// Of a container that its owner has frozen, too, which stays so.
pub fn guards_of_a_frozen_container_come_back(world: &World) {
    let container = world.container();
    let mut object = Object::start_in(&container, "guarded", "");
    object.assert_right();
    container.lxc("lxc-freeze").ok();
    container.ours("lxc-checkpoint").arg("--leave-running").arg("-D").arg(world.images("c")).ok();
    assert_eq!(container.state(), "FROZEN");
    container.ours("lxc-checkpoint").ok();
    container.ours("lxc-restart").ok();
    assert_eq!(container.state(), "FROZEN");
    container.lxc("lxc-unfreeze").ok();
    object.assert_right();
    container.kill();
}

/// A container whose processes would be less safe than before does not run.
pub fn guards_that_cannot_be_restored_fail_the_restore(world: &World) {
    let container = world.container();
    let mut object = Object::start_in(&container, "guarded", "");
    object.assert_right();
    // It serves one connection after the other, and the failure closes what is open.
    let pid = object.pid.take();
    drop(object);
    let images = world.images("guarded").join("c");
    container.ours("lxc-checkpoint").args(["-s", "-D"]).arg(&images).ok();
    let record = images.join("lxc-cr.toml");
    let text = fs::read_to_string(&record).unwrap();
    fs::write(&record, text.replace("PR_SET_MDWE", "PR_SET_SOMETHING")).unwrap();
    let failed = container.ours("lxc-restart").arg("-D").arg(&images).output();
    failed.assert_code(5);
    assert!(
        failed.stderr.contains("PR_SET_SOMETHING is not known")
            && failed.stderr.contains("as before"),
        "{failed}"
    );
    assert_eq!(container.state(), "STOPPED");
    fs::write(&record, text).unwrap();
    container.ours("lxc-restart").arg("-D").arg(&images).ok();
    let mut again = Object::connect(&container);
    again.pid = pid;
    again.assert_right();
    container.kill();
}
