//! A checkpoint under another name: what is another's, and what goes on.

use std::fs;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::Path;
use std::time::Duration;

use crate::harness::World;
use crate::harness::container::Container;
use crate::harness::culprit::Culprits;
use crate::harness::run::{Output, Run, wait_for};

/// For something in a container to move, and for an answer of it.
const LIMIT: Duration = Duration::from_secs(10);
/// Where [`Culprits`] listens at the container's own address.
const AT_ONE_ADDRESS: u16 = 7007;

/// A definition with the root of `original` as it is now, an address of its own, and its own of
/// what lay in the original's directory: as `lxc-copy` makes it.
pub(super) fn copy_of<'w>(world: &'w World, original: &Container<'_>, name: &str) -> Container<'w> {
    let copy = world.container_named(name);
    fs::remove_dir_all(copy.rootfs()).unwrap();
    Run::new("cp").arg("-a").args([original.rootfs(), copy.rootfs()]).ok();
    let (old, new) = (original.dir(), copy.dir());
    for entry in fs::read_dir(&old).unwrap().flatten() {
        if !["rootfs", "config", "config.legacy", "dump"]
            .contains(&&*entry.file_name().to_string_lossy())
        {
            Run::new("cp").arg("-a").args([&entry.path(), &new]).ok();
        }
    }
    let text = fs::read_to_string(old.join("config")).unwrap();
    let text = text
        .replace(&format!("lxc.uts.name = {}", original.name()), &format!("lxc.uts.name = {name}"));
    let text = text.replace(&*old.to_string_lossy(), &new.to_string_lossy());
    let text = text.replace(&original.address().to_string(), &copy.address().to_string());
    fs::write(new.join("config"), text).unwrap();
    copy
}

fn restart(container: &Container<'_>, images: &Path) -> Run {
    container.ours("lxc-restart").arg("-D").arg(images)
}

fn refused(told: &Output, code: i32, words: &[&str]) {
    told.assert_code(code);
    for word in words {
        assert!(told.stderr.contains(word), "'{word}' is missing: {told}");
    }
}

/// The hardware address of its eth0.
fn mac(container: &Container<'_>) -> String {
    let path = format!("/proc/{}/root/sys/class/net/eth0/address", container.init_pid());
    fs::read_to_string(path).unwrap().trim().to_owned()
}

/// What `ip` says in its network.
fn ip(container: &Container<'_>, arguments: &str) -> String {
    let netns = format!("--net=/proc/{}/ns/net", container.init_pid());
    Run::new("nsenter").args([netns.as_str(), "ip"]).args(arguments.split(' ')).ok().stdout
}

/// Waits until the connection within the container has made more round trips than `before`; how
/// many.
fn trips_within(container: &Container<'_>, before: u64) -> u64 {
    let file = container.rootfs().join("tmp/within");
    let trips = || fs::read_to_string(&file).ok()?.parse().ok().filter(|trips| *trips > before);
    wait_for(&format!("a round trip within {}", container.name()), LIMIT, trips)
        .unwrap_or_else(|e| panic!("{e}"))
}

/// Whether somebody answers at one address of the container.
fn answers_at(address: Ipv4Addr) {
    let at = SocketAddr::new(address.into(), AT_ONE_ADDRESS);
    let mut stream = TcpStream::connect_timeout(&at, LIMIT).unwrap_or_else(|e| panic!("{at}: {e}"));
    stream.set_read_timeout(Some(LIMIT)).unwrap();
    stream.write_all(b"echo").unwrap();
    let mut back = [0; 4];
    stream.read_exact(&mut back).unwrap();
    assert_eq!(&back, b"echo");
}

/// Two copies of a container that goes on: each is another container in all that can be seen, with
/// the same processes.
pub fn run_beside_their_original(world: &World) {
    let original = world.container();
    fs::create_dir(original.dir().join("data")).unwrap();
    original.append_config(&format!(
        "lxc.mount.entry = {}/data mnt none bind 0 0\nlxc.net.0.ipv4.gateway = 10.99.0.1\n",
        original.dir().display()
    ));
    let within = Culprits::put_into(&original);
    original.start();
    within.make(&format!("tcp-within {}", original.address())).unwrap();
    let mut witness = original.witness();
    let before = witness.status();
    trips_within(&original, 0);
    original.ours("lxc-checkpoint").ok();
    let trips = fs::read_to_string(original.rootfs().join("tmp/within")).unwrap().parse().unwrap();
    let [first, second] = ["first", "second"].map(|name| copy_of(world, &original, name));
    fs::write(first.dir().join("data/whose"), "the first's").unwrap();
    let images = original.dir().join("dump");
    original.ours("lxc-restart").ok();
    let before = witness.assert_goes_on_from(&before);

    refused(
        &restart(&first, &images).output(),
        4,
        &["TCP connection", "10.99.0.1:", "--tcp-close"],
    );
    assert_eq!(first.state(), "STOPPED");
    for copy in [&first, &second] {
        restart(copy, &images).arg("--tcp-close").ok();
        assert_eq!(copy.state(), "RUNNING");
        let mut theirs = copy.witness();
        let status = theirs.status();
        status.assert_sound();
        for same in ["pid", "memory", "deleted"] {
            assert_eq!(status.get(same), before.get(same));
        }
        theirs.assert_goes_on_from(&status);
        trips_within(copy, trips);
        answers_at(copy.address());
    }
    let before = witness.assert_goes_on_from(&before);
    answers_at(original.address());

    let all = [&original, &first, &second];
    for container in all {
        assert_eq!(container.exec(["/bin/hostname"]).stdout.trim(), container.name());
        assert_eq!(container.exec(["/bin/pwd"]).stdout.trim(), "/");
        let own = container.address().to_string();
        assert!(
            ip(container, "-o -4 addr show eth0").contains(&format!("inet {own}/24 ")),
            "{own}"
        );
        let routes = ip(container, "-4 route");
        assert!(
            routes.contains(&format!("src {own}")) && routes.contains("default via 10.99.0.1 "),
            "{routes}"
        );
        assert_eq!(ip(container, "-o -6 addr show eth0 scope link").lines().count(), 1);
        assert!(Path::new(&format!("/sys/fs/cgroup/lxc.payload.{}", container.name())).is_dir());
    }
    let macs = all.map(mac);
    assert!(
        macs[1..].iter().all(|mac| mac.starts_with("00:16:3e:")) && macs[1] != macs[2],
        "{macs:?}"
    );
    let veths = all.map(Container::veth);
    assert!(veths[0] != veths[1] && veths[1] != veths[2] && veths[2] != veths[0], "{veths:?}");
    let theirs = |copy: &Container<'_>| copy.exec(["/bin/cat", "/mnt/whose"]).stdout;
    assert_eq!([theirs(&original), theirs(&first), theirs(&second)], ["", "the first's", ""]);

    // A copy is a container like any other: its own checkpoints are its own.
    let mut theirs = first.witness();
    let mut status = theirs.status();
    for _ in 0..2 {
        first.ours("lxc-checkpoint").ok();
        first.ours("lxc-restart").ok();
        status = theirs.assert_goes_on_from(&status);
        assert_eq!(mac(&first), macs[1]);
    }
    let listed = Run::ours("lxc-cr").args(["list", "-P"]).arg(world.lxcpath()).ok().stdout;
    for name in [original.name(), "first"] {
        assert!(listed.lines().any(|line| line.starts_with(name)), "{listed}");
    }
    let shown = Run::ours("lxc-cr").arg("show").arg(first.dir().join("dump")).ok().stdout;
    assert!(shown.contains("first") && shown.contains(&macs[1]), "{shown}");

    // From the same moment again.
    second.kill();
    // It has written to its log since the first time, maybe in the second in which the checkpoint
    // was made.
    Run::new("touch").args(["-d", "+1 minute"]).arg(second.rootfs().join("var/log/messages")).ok();
    refused(
        &restart(&second, &images).arg("--tcp-close").output(),
        9,
        &["/var/log/messages was written to since"],
    );
    restart(&second, &images).args(["--tcp-close", "--force"]).ok();
    second.witness().echo("once more");
    witness.assert_goes_on_from(&before);
    all.iter().for_each(|container| container.kill());
}

/// With an id map; the original is gone.
pub fn of_an_unprivileged_container_run(world: &World) {
    let original = world
        .container()
        .configure("lxc.id_map = u 0 100000 65536\nlxc.id_map = g 0 100000 65536\n");
    Run::new("chown").args(["-R", "100000:100000"]).arg(original.rootfs()).ok();
    original.start();
    let witness = original.witness();
    let images = world.images("d").join("c");
    original.ours("lxc-checkpoint").args(["-s", "-D"]).arg(&images).ok();
    drop(witness);
    let copy = copy_of(world, &original, "copy");
    Run::new("lxc-destroy").arg("-P").arg(world.lxcpath()).args(["-n", original.name()]).ok();

    restart(&copy, &images).arg("--tcp-close").ok();
    let mut witness = copy.witness();
    let mut status = witness.status();
    status.assert_sound();
    for _ in 0..2 {
        copy.ours("lxc-checkpoint").ok();
        copy.ours("lxc-restart").ok();
        status = witness.assert_goes_on_from(&status);
    }
    copy.kill();
}

/// What is missing, or cannot be there twice, is named before anything is touched.
pub fn that_cannot_be_are_refused(world: &World) {
    let original = world.container();
    original.start();
    original.witness().echo("nobody stays connected");
    original.ours("lxc-checkpoint").ok();
    let copy = copy_of(world, &original, "copy");
    let images = original.dir().join("dump");
    let config = copy.dir().join("config");
    let text = fs::read_to_string(&config).unwrap();
    let with = |from: &str, to: &str| {
        assert!(text.contains(from), "{from}: {text}");
        fs::write(&config, text.replace(from, to)).unwrap();
    };
    let [own, theirs] = [&copy, &original].map(|c| c.address().to_string());

    let told = Run::ours("lxc-restart")
        .arg("-P")
        .arg(world.lxcpath())
        .args(["-n", "nobody", "-D"])
        .arg(&images)
        .output();
    refused(
        &told,
        3,
        &["no container of this name", "lxc-copy -n test-lxc-1 -N nobody", "lxc-restart -n nobody"],
    );

    original.ours("lxc-restart").ok();
    with(&own, &theirs);
    let told = restart(&copy, &images).output();
    refused(&told, 9, &[&theirs, "is that of test-lxc-1 on br0", "lxc.net.0.ipv4.address"]);
    with(
        "lxc.net.0.name = eth0",
        &format!("lxc.net.0.name = eth0\nlxc.net.0.hwaddr = {}", mac(&original)),
    );
    refused(
        &restart(&copy, &images).output(),
        9,
        &[&mac(&original), "is that of test-lxc-1 on br0"],
    );
    with(&copy.rootfs().to_string_lossy(), &original.rootfs().to_string_lossy());
    refused(
        &restart(&copy, &images).arg("--force").output(),
        4,
        &["its root is that of test-lxc-1, which is running"],
    );
    with("lxc.net.0.flags", "lxc.mount.entry = /nowhere tmp none bind\nlxc.net.0.flags");
    refused(
        &restart(&copy, &images).output(),
        9,
        &["the configuration has changed", "lxc.mount.entry"],
    );
    assert_eq!([original.state(), copy.state()], ["RUNNING", "STOPPED"]);
    original.witness().echo("undisturbed");

    // In the place of the original, with its address: nothing stands in the way, and it is told.
    original.kill();
    with(&own, &theirs);
    let told = restart(&copy, &images).ok();
    assert!(told.stderr.contains(&format!("the address of test-lxc-1, {theirs}")), "{told}");
    crate::harness::witness::Witness::connect(original.address()).echo("instead");
    copy.kill();
}

/// `--tcp-close` of both commands, under the own name.
pub fn connections_are_closed_if_told_to(world: &World) {
    let container = world.container();
    let within = Culprits::put_into(&container);
    container.start();
    within.make(&format!("tcp-within {}", container.address())).unwrap();
    let trips = trips_within(&container, 0);

    let mut before = container.witness();
    before.echo("before");
    container.ours("lxc-checkpoint").ok();
    let told = container.ours("lxc-restart").args(["--tcp-close", "--dry-run"]).ok();
    assert!(told.stdout.contains("--tcp-established"), "{told}");
    container.ours("lxc-restart").arg("--tcp-close").ok();
    before.assert_closed();
    container.witness().echo("a new one");
    trips_within(&container, trips);
    answers_at(container.address());

    let mut before = container.witness();
    before.echo("before");
    container.ours("lxc-checkpoint").arg("--tcp-close").ok();
    let told = container.ours("lxc-restart").arg("--dry-run").ok();
    assert!(told.stdout.contains("--tcp-close"), "{told}");
    container.ours("lxc-restart").ok();
    before.assert_closed();
    container.witness().echo("a new one");
    container.kill();
}
