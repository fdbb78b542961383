//! The host's side of a container's network after a restart: what LXC, the administrator and
//! scripts made there.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use crate::harness::World;
use crate::harness::container::Container;
use crate::harness::enter::BRIDGE;
use crate::harness::run::{Run, wait_for};
use crate::harness::witness::Witness;

/// The host's end of the pair; the same before and after.
const END: &str = "webhost";

/// Everything that an administrator may give the host's end of a pair on a bridge.
pub fn what_an_administrator_gave_a_port_comes_back(world: &World) {
    let container = world.container();
    container.append_config(&format!(
        "lxc.net.0.veth.pair = {END}\nlxc.net.0.veth.ipv4.route = \
         192.0.2.0/24\nlxc.net.0.veth.n_rxqueues = 4\nlxc.net.0.veth.n_txqueues = 3\nlxc.net.0.mtu \
         = 1400\n"
    ));
    container.start();
    let mut witness = container.witness();
    let status = witness.status();
    host(&[
        "ip link set webhost alias uplink-of-web group 7 txqueuelen 321 promisc on gso_max_size \
         40000",
        "ip link property add dev webhost altname web-on-the-host",
        "ip addr add 198.51.100.1/32 dev webhost",
        "ip route add 203.0.113.0/24 via 192.0.2.9 dev webhost table 77 metric 12",
        "ip route add 203.0.113.0/24 dev webhost src 198.51.100.1",
        "ip neigh add 192.0.2.9 lladdr 02:00:00:00:00:09 nud permanent dev webhost",
        "ip neigh add proxy 192.0.2.77 dev webhost",
        "ip nexthop add id 4711 via 192.0.2.9 dev webhost",
        "ip route add 203.0.113.128/25 nhid 4711",
        "bridge link set dev webhost learning off flood off isolated on hairpin on",
        "bridge fdb add 02:00:00:00:00:77 dev webhost master static",
        "bridge mdb add dev br0 port webhost grp 239.1.2.3 permanent",
        "tc qdisc add dev webhost root handle 1: htb default 10",
        "tc class add dev webhost parent 1: classid 1:1 htb rate 80mbit burst 20k",
        "tc class add dev webhost parent 1:1 classid 1:10 htb rate 8mbit ceil 70mbit prio 3",
        "tc class add dev webhost parent 1:1 classid 1:20 htb rate 4mbit",
        "tc qdisc add dev webhost parent 1:20 handle 20: tbf rate 4mbit burst 10k latency 50ms",
        "tc filter add dev webhost parent 1: protocol ip prio 5 u32 match ip dport 7000 0xffff \
         flowid 1:20",
        "tc filter add dev webhost parent 1: protocol ip prio 5 u32 match ip src 10.99.0.1 flowid \
         1:10",
        "tc qdisc add dev webhost handle ffff: ingress",
        "tc filter add dev webhost parent ffff: protocol all prio 50 u32 match u32 0 0 action \
         mirred egress mirror dev lo",
    ]);
    // The bridge learns nothing there: it has to be told.
    let mac = container.exec(["cat", "/sys/class/net/eth0/address"]).stdout;
    host(&[&format!("bridge fdb replace {} dev {END} master static", mac.trim())]);
    fs::write(format!("/proc/sys/net/ipv4/conf/{END}/rp_filter"), "2").unwrap();
    fs::write(format!("/proc/sys/net/ipv4/conf/{END}/proxy_arp"), "1").unwrap();
    fs::write(format!("/proc/sys/net/ipv4/neigh/{END}/gc_stale_time"), "71").unwrap();
    let before = of_host(END);
    assert!(before.contains("203.0.113.128/25") && before.contains("disable_ipv6=1"), "{before}");
    let mut goes_on = status;
    for _ in 0..2 {
        container.ours("lxc-checkpoint").ok();
        let told = container.ours("lxc-restart").ok();
        assert!(!told.stderr.contains("is not as it was"), "{told}");
        assert_same(&before, &of_host(END));
        goes_on = witness.assert_goes_on_from(&goes_on);
    }
    // A container that stays is off its bridge for a moment, too.
    container.ours("lxc-checkpoint").arg("-D").arg(world.images("kept")).ok();
    assert_same(&before, &of_host(END));
    witness.assert_goes_on_from(&goes_on);
    container.kill();
    let left = Run::new("ip").args(["route", "show", "table", "all"]).ok().stdout;
    assert!(!left.contains("203.0.113"), "{left}");
}

/// `veth.mode = router`: no bridge, the host routes to the container and answers for it on its
/// link.
pub fn a_routed_container_comes_back(world: &World) {
    // An uplink with a carrier: when it loses that, the kernel forgets for whom it answers.
    host(&[
        "ip link add uplink type veth peer name cable",
        "ip link set uplink master br0 up",
        "ip link set cable up",
    ]);
    let state = || fs::read_to_string(format!("/sys/class/net/{BRIDGE}/operstate")).unwrap();
    wait_for("the uplink's carrier", Duration::from_secs(10), || {
        (state().trim() == "up").then_some(())
    })
    .unwrap();
    for (link, more) in [
        (true, "lxc.net.0.l2proxy = 1\nlxc.net.0.ipv4.gateway = auto\n"),
        (false, "lxc.net.0.ipv4.gateway = dev\n"),
    ] {
        let container = routed(world, link, more);
        container.start();
        let mut witness = Witness::connect([10, 97, 0, 5].into());
        let mut status = witness.status();
        let before = of_host(END);
        assert!(before.contains("10.97.0.5 ") && before.contains("fd00:97::5 "), "{before}");
        assert_eq!(
            link,
            before.contains("proxy 10.97.0.5 dev br0")
                || before.contains("10.97.0.5 dev br0 proxy"),
            "{before}"
        );
        for _ in 0..2 {
            container.ours("lxc-checkpoint").ok();
            witness.send("said to a stopped container");
            let told = container.ours("lxc-restart").ok();
            assert!(!told.stderr.contains("is not as it was"), "{told}");
            assert_eq!(witness.receive(), "said to a stopped container");
            status = witness.assert_goes_on_from(&status);
            assert_same(&before, &of_host(END));
        }
        container
            .ours("lxc-checkpoint")
            .arg("-D")
            .arg(world.images(if link { "with" } else { "without" }))
            .ok();
        witness.assert_goes_on_from(&status);
        assert_same(&before, &of_host(END));
        container.kill();
        let left = Run::new("ip").args(["neigh", "show", "proxy"]).ok().stdout;
        assert!(!left.contains("10.97.0.5"), "{left}");
    }
    host(&["ip link del uplink"]);
}

/// A bridge that `script.up` makes and `script.down` removes is there after a restart, and gone
/// after the end.
pub fn what_a_script_makes_is_made_again(world: &World) {
    let container = world.container();
    let dir = world.images("scripts");
    let log = dir.join("log");
    let script = |name: &str, body: &str| {
        let path = dir.join(name);
        fs::write(
            &path,
            format!(
                "#!/bin/sh\nset -e\necho \"$* type=$LXC_NET_TYPE\" >> {}\n{body}\n",
                log.display()
            ),
        )
        .unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        path
    };
    let up = script(
        "up",
        &format!(
            "for end; do :; done\nip link add fwbr7 type bridge\nip link set fwbr7 up\nip addr add \
             10.99.0.251/32 dev fwbr7\nip link set $end master fwbr7\nip route add {}/32 dev \
             fwbr7\nip neigh add proxy 192.0.2.1 dev $end",
            container.address()
        ),
    );
    let down = script("down", "ip link del fwbr7");
    let config = container.dir().join("config");
    let text =
        fs::read_to_string(&config).unwrap().replace(&format!("lxc.net.0.link = {BRIDGE}\n"), "");
    let lines = format!(
        "lxc.net.0.veth.pair = {END}\nlxc.net.0.script.up = {}\nlxc.net.0.script.down = {}\n",
        up.display(),
        down.display()
    );
    fs::write(&config, format!("{text}\n{lines}")).unwrap();
    container.start();
    let mut witness = container.witness();
    let mut status = witness.status();
    let before = of_host(END);
    for _ in 0..2 {
        container.ours("lxc-checkpoint").ok();
        assert!(!std::path::Path::new("/sys/class/net/fwbr7").exists());
        witness.send("said to a stopped container");
        container.ours("lxc-restart").ok();
        assert_eq!(witness.receive(), "said to a stopped container");
        status = witness.assert_goes_on_from(&status);
        assert_same(&before, &of_host(END));
    }
    // A restart that fails takes it back.
    container.ours("lxc-checkpoint").ok();
    let fails = script("fails", "[ $CRTOOLS_SCRIPT_ACTION != post-restore ]");
    container.ours("lxc-restart").arg("-A").arg(&fails).output().assert_code(5);
    assert!(!std::path::Path::new("/sys/class/net/fwbr7").exists());
    container.ours("lxc-restart").ok();
    container.witness();
    container.kill();
    assert!(!std::path::Path::new("/sys/class/net/fwbr7").exists());
    let told = fs::read_to_string(&log).unwrap();
    let ups: Vec<&str> = told.lines().filter(|l| l.contains(" up ")).collect();
    assert_eq!(ups.len(), 5, "{told}");
    assert!(ups.iter().all(|line| *line == ups[0]), "{told}");
    assert_eq!(told.lines().filter(|l| l.contains(" down ")).count(), 5, "{told}");
}

/// A container whose pair is routed, with or without a link.
fn routed<'w>(world: &'w World, link: bool, more: &str) -> Container<'w> {
    for setting in [
        "ipv4/conf/br0/forwarding",
        "ipv6/conf/all/forwarding",
        "ipv6/conf/br0/proxy_ndp",
        "ipv6/conf/br0/forwarding",
    ] {
        fs::write(format!("/proc/sys/net/{setting}"), "1").unwrap();
    }
    let container = world.container();
    let config = container.dir().join("config");
    let text = fs::read_to_string(&config).unwrap();
    let kept = text.lines().filter(|line| !line.contains(".link") && !line.contains(".ipv4"));
    let kept: Vec<&str> = kept.collect();
    let link = if link { format!("lxc.net.0.link = {BRIDGE}\n") } else { String::new() };
    let lines = "lxc.net.0.veth.mode = router\nlxc.net.0.veth.ipv6.route = \
                 2001:db8:7::/64\nlxc.net.0.ipv6.gateway = fe80::97\nlxc.net.0.ipv4.address = \
                 10.97.0.5/32\nlxc.net.0.ipv6.address = fd00:97::5/128\n";
    let text = format!("{}\n{link}lxc.net.0.veth.pair = {END}\n{lines}{more}", kept.join("\n"));
    fs::write(&config, text).unwrap();
    container
}

fn host(commands: &[&str]) {
    for command in commands {
        let mut words = command.split(' ');
        Run::new(words.next().unwrap()).args(words).ok();
    }
}

/// All that can be seen of a link on the host, a line each, and what others have for the sake of
/// its container.
fn of_host(end: &str) -> String {
    let settled =
        || (!Run::new("ip").args(["-o", "addr"]).ok().stdout.contains("tentative")).then_some(());
    wait_for("the host's addresses to be settled", Duration::from_secs(10), settled).unwrap();
    let mut lines = Vec::new();
    for command in [
        format!("ip -d -o link show {end}"),
        format!("ip -o addr show dev {end}"),
        "ip route show table all".to_owned(),
        "ip -6 route show table all".to_owned(),
        "ip nexthop".to_owned(),
        "ip neigh show nud permanent".to_owned(),
        "ip neigh show proxy".to_owned(),
        "ip -6 neigh show proxy".to_owned(),
        format!("bridge fdb show brport {end}"),
        "bridge mdb show".to_owned(),
        format!("tc qdisc show dev {end}"),
        format!("tc class show dev {end}"),
        format!("tc filter show dev {end}"),
        format!("tc filter show dev {end} ingress"),
    ] {
        let mut words = command.split(' ');
        let told = Run::new(words.next().unwrap()).args(words).ok().stdout;
        // A counter.
        let told = told.replace("direct_packets_stat 1 ", "direct_packets_stat 0 ");
        // What the kernel makes for other links comes and goes by itself.
        let ours = |line: &&str| {
            !line.contains("temp")
                && !line.starts_with("33:33:")
                && !is_learned(line)
                && (line.contains(end) || !line.contains("proto kernel"))
        };
        lines.extend(told.lines().filter(ours).map(|line| format!("{command}: {}", steady(line))));
    }
    for dir in ["ipv4/conf", "ipv6/conf", "ipv4/neigh", "ipv6/neigh"] {
        for entry in fs::read_dir(format!("/proc/sys/net/{dir}/{end}")).unwrap() {
            let path = entry.unwrap().path();
            if let Ok(value) = fs::read_to_string(&path) {
                lines.push(format!(
                    "{dir} {}={}",
                    path.file_name().unwrap().display(),
                    value.trim()
                ));
            }
        }
    }
    lines.sort();
    lines.dedup();
    lines.join("\n")
}

/// A host that a bridge has heard.
fn is_learned(line: &str) -> bool {
    line.ends_with(&format!(" master {BRIDGE} "))
}

/// Without the indices of links, the numbers of ports and of actions, and timers.
fn steady(line: &str) -> String {
    let mut words: Vec<&str> = line.split_whitespace().collect();
    words.retain(|word| {
        !word.ends_with(':') || !word[..word.len() - 1].bytes().all(|b| b.is_ascii_digit())
    });
    let mut kept = Vec::new();
    let mut skip = 0;
    for word in words {
        if skip > 0 {
            skip -= 1;
            continue;
        }
        match word {
            "port_id"
            | "port_no"
            | "designated_port"
            | "hold_timer"
            | "message_age_timer"
            | "forward_delay_timer"
            | "link-netnsid"
            | "index"
            | "ref"
            | "bind"
            | "designated_bridge"
            | "designated_root" => skip = 1,
            _ => kept.push(word.split("@if").next().unwrap_or(word).to_owned()),
        }
    }
    kept.join(" ")
}

fn assert_same(before: &str, after: &str) {
    let gone: Vec<&str> =
        before.lines().filter(|line| !after.lines().any(|l| l == *line)).collect();
    let new: Vec<&str> = after.lines().filter(|line| !before.lines().any(|l| l == *line)).collect();
    assert!(
        gone.is_empty() && new.is_empty(),
        "gone:\n{}\nnew:\n{}",
        gone.join("\n"),
        new.join("\n")
    );
}
