//! Interfaces that are no veth pairs of LXC's, and containers without any.

use std::fs;
use std::net::Ipv4Addr;
use std::path::Path;

use crate::harness::World;
use crate::harness::container::Container;
use crate::harness::enter::BRIDGE;
use crate::harness::run::Run;
use crate::harness::witness::Witness;

/// Ends of a pair of the host's: the first is a port of the bridge, the second is for the
/// container.
const PORT: &str = "hostport";
const WIRE: &str = "wire";

/// A connection over the bridge goes on through a macvlan, which is on no bridge that could be the
/// lock.
pub fn a_macvlan_comes_back(world: &World) {
    let container = wired(world, "macvlan", "lxc.net.0.macvlan.mode = bridge\n");
    goes_on(&container, |_| assert!(Path::new("/sys/class/net").join(WIRE).exists()));
    unwire();
}

/// An interface that was moved into the container is the host's while it is stopped, and at the
/// end.
pub fn what_the_host_lends_comes_back_and_is_given_back(world: &World) {
    let container = wired(world, "phys", "lxc.net.0.mtu = 1400\n");
    let on_host = || Path::new("/sys/class/net").join(WIRE).exists();
    goes_on(&container, |running| assert_eq!(on_host(), !running));
    assert!(on_host());
    assert_eq!(fs::read_to_string(format!("/sys/class/net/{WIRE}/mtu")).unwrap().trim(), "1500");

    // It comes back from a restart that fails, too.
    container.start();
    container.witness();
    container.ours("lxc-checkpoint").ok();
    let script = world.images("fails").join("fails.sh");
    fs::write(&script, "#!/bin/sh\n[ $CRTOOLS_SCRIPT_ACTION != post-restore ]\n").unwrap();
    fs::set_permissions(&script, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let told = container.ours("lxc-restart").arg("-A").arg(&script).output();
    told.assert_code(5);
    assert!(on_host(), "{told}");

    // And it has to be there.
    Run::new("ip").args(["link", "set", WIRE, "name", "elsewhere"]).ok();
    let told = container.ours("lxc-restart").output();
    told.assert_code(4);
    assert!(
        told.stderr.contains("eth0 needs the interface 'wire' of the host, which is not there"),
        "{told}"
    );
    Run::new("ip").args(["link", "set", "elsewhere", "name", WIRE]).ok();
    container.ours("lxc-restart").ok();
    container.witness();
    container.kill();
    assert!(on_host());
    unwire();
}

/// Only a loopback, and the host's own network.
pub fn none_at_all_and_the_hosts_own(world: &World) {
    for kind in ["empty", "none"] {
        let container = world.container();
        let config = container.dir().join("config");
        let text = fs::read_to_string(&config).unwrap();
        let other: Vec<&str> = text.lines().filter(|l| !l.starts_with("lxc.net.")).collect();
        fs::write(&config, format!("{}\nlxc.net.0.type = {kind}\n", other.join("\n"))).unwrap();
        container.start();
        // Of the host's network nothing can be taken off: CRIU has to keep each connection's
        // packets away.
        let mut connection = (kind == "none").then(|| Witness::connect(Ipv4Addr::LOCALHOST));
        let mut is_answered = |word: &str, meanwhile: &dyn Fn()| {
            if let Some(connection) = &mut connection {
                connection.send(word);
                meanwhile();
                assert_eq!(connection.receive(), word);
            } else {
                meanwhile();
            }
        };
        let links = || container.exec(["/bin/ls", "/sys/class/net"]).stdout;
        let before = links();
        assert_eq!(before.contains(BRIDGE), kind == "none", "{before}");
        for word in ["once", "twice"] {
            container.ours("lxc-checkpoint").ok();
            is_answered(word, &|| drop(container.ours("lxc-restart").ok()));
            assert_eq!(links(), before);
        }
        // CRIU has no network to give back, and all the same it goes on.
        container
            .ours("lxc-checkpoint")
            .arg("--leave-running")
            .arg("-D")
            .arg(world.images(kind))
            .ok();
        is_answered("as before", &|| {});
        assert_eq!(links(), before);
        container.kill();
    }
}

/// A container whose eth0 is of this kind, upon or instead of one end of a pair whose other end is
/// on the bridge.
pub(super) fn wired<'w>(world: &'w World, kind: &str, more: &str) -> Container<'w> {
    for line in [
        format!("link add {PORT} type veth peer name {WIRE}"),
        format!("link set {PORT} up master {BRIDGE}"),
        format!("link set {WIRE} up"),
    ] {
        Run::new("ip").args(line.split(' ')).ok();
    }
    let container = world.container();
    let config = container.dir().join("config");
    let text = fs::read_to_string(&config).unwrap();
    let text = text.replace("lxc.net.0.type = veth", &format!("lxc.net.0.type = {kind}"));
    let text =
        text.replace(&format!("lxc.net.0.link = {BRIDGE}"), &format!("lxc.net.0.link = {WIRE}"));
    fs::write(&config, format!("{text}\n{more}")).unwrap();
    container
}

pub(super) fn unwire() {
    Run::new("ip").args(["link", "del", PORT]).ok();
}

/// Suspended twice while a client says something, then left running.
fn goes_on(container: &Container<'_>, look: impl Fn(bool)) {
    container.start();
    let mut witness = container.witness();
    let mut before = witness.status();
    let addresses = || {
        let netns = format!("--net=/proc/{}/ns/net", container.init_pid());
        let text = Run::new("nsenter").args([&netns, "ip", "-o", "addr"]).ok().stdout;
        let link =
            Run::new("nsenter").args([&netns, "ip", "-o", "link", "show", "eth0"]).ok().stdout;
        let rules = Run::new("nsenter").args([&netns, "nft", "list", "ruleset"]).ok().stdout;
        assert_eq!(rules, "", "CRIU's rules are gone");
        format!("{text}{link}").replace(" tentative", "")
    };
    let network = addresses();
    for _ in 0..2 {
        look(true);
        container.ours("lxc-checkpoint").ok();
        look(false);
        witness.send("said to a stopped container");
        container.ours("lxc-restart").ok();
        assert_eq!(witness.receive(), "said to a stopped container");
        before = witness.assert_goes_on_from(&before);
        assert_eq!(addresses(), network);
    }
    let images = container.dir().join("kept");
    container.ours("lxc-checkpoint").arg("-D").arg(images).ok();
    witness.assert_goes_on_from(&before);
    container.kill();
}
