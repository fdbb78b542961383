//! Cgroups: where they are, and what they allow.

use super::super::{ROW, Row};

pub const ROWS: &[Row] = &[
    Row {
        keys: &["lxc.cgroup2"],
        lines: "lxc.cgroup2.devices.deny = a\nlxc.cgroup2.devices.allow = c 1:3 \
                rwm\nlxc.cgroup2.devices.allow = c 1:9 r\nlxc.cgroup2.cgroup.max.descendants = \
                12\n",
        probe: "lx lxc-cgroup cgroup.max.descendants; inside /bin/cat /dev/zero 2>&1 | head -c 100",
        sample: true,
        ..ROW
    },
    Row { keys: &["lxc.cgroup.relative"], lines: "lxc.cgroup.relative = 1\n", ..ROW },
    Row { keys: &["lxc.cgroup.dir"], lines: "lxc.cgroup.dir = keys/key\n", ..ROW },
    Row {
        keys: &["lxc.cgroup.dir.monitor", "lxc.cgroup.dir.container"],
        lines: "lxc.cgroup.dir.monitor = keys/monitor/key\nlxc.cgroup.dir.container = \
                keys/payload/key\n",
        ..ROW
    },
    Row {
        keys: &["lxc.cgroup.dir.monitor.pivot"],
        lines: "lxc.cgroup.dir.monitor = keys/monitor/key\nlxc.cgroup.dir.container = \
                keys/payload/key\nlxc.cgroup.dir.monitor.pivot = keys/pivot-key\n",
        ..ROW
    },
    Row {
        keys: &["lxc.cgroup.dir.container.inner"],
        lines: "lxc.cgroup.dir.monitor = keys/monitor/key\nlxc.cgroup.dir.container = \
                keys/payload/key\nlxc.cgroup.dir.container.inner = \
                ns\nlxc.cgroup2.cgroup.max.descendants = 12\n",
        probe: "lx lxc-cgroup cgroup.max.descendants",
        ..ROW
    },
];
