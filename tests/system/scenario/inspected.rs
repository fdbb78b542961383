//! The inspector on real containers: it finds no difference where there is none, and what CRIU
//! loses of a network or of files in memory is there again.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::time::Duration;

use crate::harness::World;
use crate::harness::container::Container;
use crate::harness::inspected::{differences, snapshot};
use crate::harness::run::{Run, patient};

/// For an answer through NAT.
const LIMIT: Duration = Duration::from_secs(10);
/// What a restore of a frozen container changes, which comes back frozen.
fn changed_by_a_restore(container: &Container<'_>) -> Vec<String> {
    container.wait_settled();
    container.lxc("lxc-freeze").ok();
    let before = snapshot(container);
    assert_eq!(differences(&before, &snapshot(container)), Vec::<String>::new());
    container.ours("lxc-checkpoint").ok();
    let told = container.ours("lxc-restart").ok();
    assert!(!told.stderr.contains("could not be restored"), "{told}");
    container.wait_settled();
    let changed = differences(&before, &snapshot(container));
    container.lxc("lxc-unfreeze").ok();
    changed
}

fn assert_nothing_changes(container: &Container<'_>) {
    for _ in 0..2 {
        assert_eq!(changed_by_a_restore(container), Vec::<String>::new());
    }
}

/// Mounts, files in memory, network, namespaces and cgroups are the same after a restore.
pub fn a_healthy_container_shows_no_difference(world: &World) {
    for configuration in ["", "lxc.id_map = u 0 0 65536\nlxc.id_map = g 0 0 65536\n"] {
        let container = world.container().configure(configuration);
        container.start();
        container.wait_settled();
        assert_nothing_changes(&container);
        container.kill();
    }
}

/// Files in a tmpfs keep what tar does not save: nanoseconds, extended attributes, ACLs,
/// capabilities.
pub fn files_in_memory_are_as_they_were(world: &World) {
    /// A program may bind to ports below 1024; a user of number 1000 may read and write.
    const CAPABILITY: [u8; 20] = [0, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    const ACL: [u8; 44] = [
        2, 0, 0, 0, 1, 0, 7, 0, 255, 255, 255, 255, 2, 0, 6, 0, 232, 3, 0, 0, 4, 0, 5, 0, 255, 255,
        255, 255, 16, 0, 7, 0, 255, 255, 255, 255, 32, 0, 5, 0, 255, 255, 255, 255,
    ];
    let container = world.container();
    container.start();
    container.wait_settled();
    let dir = std::path::PathBuf::from(format!("/proc/{}/root/dev/shm/dir", container.init_pid()));
    std::fs::create_dir(&dir).unwrap();
    std::fs::write(dir.join("file"), "content").unwrap();
    std::fs::hard_link(dir.join("file"), dir.join("other")).unwrap();
    std::os::unix::fs::symlink("nowhere", dir.join("link")).unwrap();
    let set = |name: &str, key: &str, value: &[u8]| {
        rustix::fs::setxattr(dir.join(name), key, value, rustix::fs::XattrFlags::empty()).unwrap();
    };
    set("file", "user.x", b"u");
    set("file", "trusted.x", b"t");
    set("file", "security.capability", &CAPABILITY);
    set("", "system.posix_acl_access", &ACL);
    assert_nothing_changes(&container);
    container.kill();
}

/// Runs the host's programs in the container's network namespace.
fn in_network(container: &Container<'_>, commands: &[&str]) {
    let netns = format!("--net=/proc/{}/ns/net", container.init_pid());
    for command in commands {
        Run::new("nsenter").args([netns.as_str(), "sh", "-c", command]).ok();
    }
}

fn assert_network_comes_back(world: &World, commands: &[&str]) {
    let container = world.container();
    container.start();
    container.wait_settled();
    in_network(&container, commands);
    container.wait_settled();
    assert_nothing_changes(&container);
    container.kill();
}

/// Routes by nexthop objects, of a routing daemon such as FRR's.
pub fn routes_by_nexthop_objects_come_back(world: &World) {
    assert_network_comes_back(
        world,
        &[
            "ip nexthop add id 54 via 10.99.0.1 dev eth0",
            "ip nexthop add id 55 via 10.99.0.7 dev eth0 proto zebra",
            "ip nexthop add id 56 blackhole",
            "ip nexthop add id 60 group 54,2/55,3",
            "ip route add 198.51.100.0/24 nhid 54",
            "ip route add 203.0.113.0/24 nhid 60 proto zebra metric 20",
            "ip route add 203.0.113.0/24 nhid 54 table 77",
            "ip route add 192.0.2.0/24 nhid 56",
            "ip -6 nexthop add id 66 via fe80::1 dev eth0",
            "ip -6 route add 2001:db8:66::/48 nhid 66",
        ],
    );
}

/// A bridge without ports, as Docker's, has no carrier.
pub fn routes_without_a_carrier_come_back(world: &World) {
    assert_network_comes_back(
        world,
        &[
            "ip link add docker0 type bridge",
            "ip addr add 172.17.0.1/16 dev docker0",
            "ip link set docker0 up",
            "ip route add 172.30.0.0/16 dev docker0",
            "ip -6 addr add fd00:17::1/64 dev docker0 nodad",
            "ip -6 route add fd00:30::/64 dev docker0",
        ],
    );
}

/// Addresses and routes that a router has announced, or a DHCP server lent, end when they would
/// have.
pub fn lifetimes_go_on(world: &World) {
    assert_network_comes_back(
        world,
        &[
            "ip addr add fd00:99::7/64 dev eth0 nodad valid_lft 600 preferred_lft 300",
            "ip addr add 192.0.2.77/24 dev eth0 valid_lft 600 preferred_lft 300",
            "ip -6 route add 2001:db8:5::/48 via fd00:99::1 dev eth0 expires 600",
            "ip -6 route add default via fe80::1 dev eth0 proto ra metric 1024 expires 40 pref \
             high",
        ],
    );
}

/// What CRIU does not save of interfaces, neighbours, rules and queueing.
pub fn what_criu_does_not_save_of_a_network_comes_back(world: &World) {
    assert_network_comes_back(
        world,
        &[
            "ip link set eth0 alias uplink",
            "ip link set eth0 group 7",
            "ip link property add dev eth0 altname lanport",
            "ip link set eth0 gso_max_size 30000",
            "ip neigh add 10.99.0.200 lladdr 02:00:00:00:00:01 dev eth0 nud permanent",
            "ip neigh add proxy 10.99.0.201 dev eth0",
            "ip -6 addr add fd00:99::7/64 dev eth0 nodad",
            "ip -6 rule add from fd00:99::/64 lookup 77 pref 200",
            "ip -6 route add 2001:db8:7::/48 dev eth0 table 77",
            "tc qdisc add dev eth0 root handle 1: tbf rate 100mbit burst 100k latency 5ms",
        ],
    );
}

/// What ufw, Docker and fail2ban use: extensions that nft lists in words it cannot read.
pub fn rules_with_extensions_of_iptables_come_back(world: &World) {
    let commands = [
        "nft add table ip mine",
        "nft add table inet other",
        "iptables -A INPUT -p tcp --dport 7001 -m comment --comment 'a { b }' -j ACCEPT",
        "iptables -A INPUT -p tcp --dport 7002 -m recent --name r --set --mask 255.255.255.255 -j \
         ACCEPT",
        "iptables -A INPUT -p tcp -m multiport --dports 1,2 -m hashlimit --hashlimit-name h \
         --hashlimit-above 5/sec -j DROP",
        "iptables -t nat -A PREROUTING -p tcp --dport 7003 -m comment --comment y -j REDIRECT \
         --to-ports 7000",
        "ip6tables -A INPUT -p tcp --dport 7001 -m comment --comment x -j DROP",
    ];
    assert_network_comes_back(world, &commands);
}

/// A table that no tool can save is told before the container stops.
pub fn rules_that_no_tool_can_save_stand_in_the_way(world: &World) {
    let container = world.container();
    container.start();
    in_network(
        &container,
        &[
            "iptables -A INPUT -m comment --comment x -j DROP",
            "nft rename chain ip filter INPUT input",
        ],
    );
    // What iptables does not know makes its tool leave the table out.
    in_network(
        &container,
        &["nft add rule ip filter input tcp dport 7001 meta mark set 5 fib daddr type local \
           accept"],
    );
    let told = container.ours("lxc-checkpoint").output();
    told.assert_code(4);
    assert!(
        told.stderr.contains("the table filter (ip) of nftables has rules with extensions"),
        "{told}"
    );
    assert_eq!(container.state(), "RUNNING");
    container.kill();
}

/// A connection that came in by another port is still led to where it was.
pub fn a_connection_through_nat_goes_on(world: &World) {
    let container = world.container();
    container.start();
    container.wait_settled();
    drop(container.witness());
    in_network(
        &container,
        &[
            "nft add table ip nat",
            "nft add chain ip nat in '{ type nat hook prerouting priority -100; }'",
            "nft add rule ip nat in tcp dport 7001 redirect to :7000",
        ],
    );
    let stream =
        TcpStream::connect_timeout(&(container.address(), 7001).into(), patient(LIMIT)).unwrap();
    stream.set_read_timeout(Some(patient(LIMIT))).unwrap();
    let mut stream = BufReader::new(stream);
    let mut echo = |word: &str| {
        stream.get_mut().write_all(format!("{word}\n").as_bytes()).unwrap();
        let mut line = String::new();
        stream.read_line(&mut line).unwrap();
        assert!(line.contains(word), "{line}");
    };
    echo("before");
    for _ in 0..2 {
        container.ours("lxc-checkpoint").ok();
        let told = container.ours("lxc-restart").ok();
        assert!(!told.stderr.contains("could not be restored"), "{told}");
        echo("after");
    }
    assert_nothing_changes(&container);
    echo("at last");
    container.kill();
}
