//! Interfaces. eth0 is the recipe's, on which the witness is reached.

use super::super::Expected::NotHere;
use super::super::{ROW, Row};

/// A second interface of this kind.
macro_rules! second {
    ($kind:literal, $lines:literal) => {
        concat!(
            "lxc.net.1.type = ",
            $kind,
            "\nlxc.net.1.name = eth1\nlxc.net.1.flags = up\n",
            $lines
        )
    };
}
const LENT: &str = "ip link add keylent type veth peer name keypeer; ip link set keypeer up";
const IS_BACK: &str = "lx lxc-stop -k; ip -br link show keylent | cut -d@ -f1";

pub const ROWS: &[Row] = &[
    Row { keys: &["lxc.net"], lines: "lxc.net =\nlxc.net.0.type = empty\n", witness: false, ..ROW },
    Row {
        keys: &["lxc.net.N.type"],
        lines: "lxc.net =\nlxc.net.0.type = none\n",
        witness: false,
        ..ROW
    },
    Row { keys: &["lxc.net.N.type"], lines: second!("veth", "lxc.net.1.link = br0\n"), ..ROW },
    Row {
        keys: &["lxc.net.N.flags"],
        lines: "lxc.net.1.type = veth\nlxc.net.1.link = br0\n",
        ..ROW
    },
    Row { keys: &["lxc.net.N.link"], lines: second!("veth", ""), ..ROW },
    Row {
        keys: &["lxc.net.N.name"],
        lines: "lxc.net.1.type = veth\nlxc.net.1.link = br0\nlxc.net.1.name = lan\n",
        ..ROW
    },
    Row { keys: &["lxc.net.N.hwaddr"], lines: "lxc.net.0.hwaddr = 02:00:00:12:34:56\n", ..ROW },
    Row { keys: &["lxc.net.N.mtu"], lines: "lxc.net.0.mtu = 1400\n", ..ROW },
    Row {
        keys: &["lxc.net.N.ipv4.address", "lxc.net.N.ipv4.gateway"],
        lines: "lxc.net.0.ipv4.address = 10.99.0.77/24 10.99.0.255\nlxc.net.0.ipv4.gateway = \
                10.99.0.1\n",
        sample: true,
        ..ROW
    },
    Row { keys: &["lxc.net.N.ipv4.gateway"], lines: "lxc.net.0.ipv4.gateway = auto\n", ..ROW },
    Row { keys: &["lxc.net.N.ipv4.gateway"], lines: "lxc.net.0.ipv4.gateway = dev\n", ..ROW },
    Row {
        keys: &["lxc.net.N.ipv6.address", "lxc.net.N.ipv6.gateway"],
        lines: "lxc.net.0.ipv6.address = fd00:99::77/64\nlxc.net.0.ipv6.gateway = fd00:99::1\n",
        ..ROW
    },
    Row {
        keys: &["lxc.net.N.script.up", "lxc.net.N.script.down"],
        lines: "lxc.net.0.script.up = $DIR/hook own\nlxc.net.0.script.down = $DIR/hook \
                own\nlxc.net.0.veth.pair = keyveth\n",
        hooks_again: true,
        ..ROW
    },
    Row { keys: &["lxc.net.N.veth.pair"], lines: "lxc.net.0.veth.pair = keyveth\n", ..ROW },
    Row {
        keys: &["lxc.net.N.veth.mode", "lxc.net.N.l2proxy"],
        lines: second!(
            "veth",
            "lxc.net.1.veth.mode = router\nlxc.net.1.link = br0\nlxc.net.1.l2proxy = \
             1\nlxc.net.1.ipv4.address = 10.98.0.5/32\nlxc.net.1.ipv4.gateway = auto\n"
        ),
        make: "sysctl -qw net.ipv4.conf.br0.forwarding=1",
        ..ROW
    },
    Row {
        keys: &["lxc.net.N.veth.ipv4.route", "lxc.net.N.veth.ipv6.route"],
        lines: second!(
            "veth",
            "lxc.net.1.veth.mode = router\nlxc.net.1.veth.ipv4.route = \
             10.97.0.0/24\nlxc.net.1.veth.ipv6.route = fd00:97::/64\n"
        ),
        ..ROW
    },
    Row {
        keys: &["lxc.net.N.veth.n_rxqueues", "lxc.net.N.veth.n_txqueues"],
        lines: second!(
            "veth",
            "lxc.net.1.link = br0\nlxc.net.1.veth.n_rxqueues = 2\nlxc.net.1.veth.n_txqueues = 3\n"
        ),
        ..ROW
    },
    Row {
        keys: &["lxc.net.N.veth.vlan.id", "lxc.net.N.veth.vlan.tagged.id"],
        lines: second!(
            "veth",
            "lxc.net.1.link = keybr\nlxc.net.1.veth.vlan.id = 5\nlxc.net.1.veth.vlan.tagged.id = \
             7\n"
        ),
        make: "ip link add keybr type bridge vlan_filtering 1 2>/dev/null; ip link set keybr up",
        end: "lx lxc-stop -k; ip link del keybr",
        expected: NotHere("the test host's kernel has no VLAN-aware bridges"),
        ..ROW
    },
    Row {
        keys: &["lxc.net.N.macvlan.mode"],
        lines: second!("macvlan", "lxc.net.1.link = br0\nlxc.net.1.macvlan.mode = bridge\n"),
        ..ROW
    },
    Row {
        keys: &["lxc.net.N.ipvlan.mode", "lxc.net.N.ipvlan.isolation"],
        lines: second!(
            "ipvlan",
            "lxc.net.1.link = br0\nlxc.net.1.ipvlan.mode = l3\nlxc.net.1.ipvlan.isolation = \
             private\n"
        ),
        expected: NotHere("the test host's kernel has no ipvlan interfaces"),
        ..ROW
    },
    Row {
        keys: &["lxc.net.N.vlan.id"],
        lines: second!("vlan", "lxc.net.1.link = br0\nlxc.net.1.vlan.id = 5\n"),
        expected: NotHere("the test host's kernel has no VLAN interfaces"),
        ..ROW
    },
    Row {
        keys: &["lxc.net.N.type"],
        lines: second!("phys", "lxc.net.1.link = keylent\n"),
        make: LENT,
        end: IS_BACK,
        ..ROW
    },
];
