//! Namespaces.

use super::super::Expected::Refused;
use super::super::{ROW, Row};

/// Something to share a namespace with: a process with all of its own, which ends by itself.
macro_rules! share {
    ($kind:literal) => {
        concat!(
            "unshare -fimnpuCU sleep 40 >/dev/null 2>&1 & sleep 0.2; \
             other=$(cat /proc/$!/task/$!/children); other=${other% }; \
             echo '0 0 65536' > /proc/$other/uid_map; echo '0 0 65536' > /proc/$other/gid_map; \
             echo \"lxc.namespace.share.",
            $kind,
            " = $other\" > $DIR/share"
        )
    };
}

pub const ROWS: &[Row] = &[
    Row {
        keys: &["lxc.uts.name"],
        lines: "lxc.uts.name = another\n",
        probe: "inside /bin/hostname",
        ..ROW
    },
    Row {
        keys: &["lxc.idmap"],
        lines: "lxc.idmap = u 0 0 65536\nlxc.idmap = g 0 0 65536\n",
        sample: true,
        ..ROW
    },
    Row {
        keys: &["lxc.namespace.clone"],
        lines: "lxc.namespace.clone = ipc mnt net pid uts\n",
        ..ROW
    },
    Row {
        keys: &["lxc.namespace.keep"],
        lines: "lxc.namespace.keep = ipc uts user cgroup\n",
        ..ROW
    },
    Row {
        keys: &["lxc.namespace.keep"],
        lines: "lxc.namespace.keep = net user\nlxc.net =\n",
        witness: false,
        ..ROW
    },
    Row {
        keys: &["lxc.namespace.share.cgroup"],
        lines: "lxc.include = $DIR/share\n",
        make: share!("cgroup"),
        expected: Refused("lxc.namespace.share.cgroup"),
        ..ROW
    },
    Row {
        keys: &["lxc.namespace.share.ipc"],
        lines: "lxc.include = $DIR/share\n",
        make: share!("ipc"),
        expected: Refused("lxc.namespace.share.ipc"),
        ..ROW
    },
    Row {
        keys: &["lxc.namespace.share.mnt"],
        lines: "lxc.include = $DIR/share\n",
        make: share!("mnt"),
        expected: Refused("lxc.namespace.share.mnt"),
        ..ROW
    },
    Row {
        keys: &["lxc.namespace.share.net"],
        lines: "lxc.net =\nlxc.include = $DIR/share\n",
        make: share!("net"),
        witness: false,
        expected: Refused("lxc.namespace.share.net"),
        sample: true,
        ..ROW
    },
    Row {
        keys: &["lxc.namespace.share.pid"],
        // Busybox's init ends where it is not process 1.
        lines: "lxc.include = $DIR/share\nlxc.init.cmd = /bin/sleep 40\n",
        make: share!("pid"),
        witness: false,
        expected: Refused("lxc.namespace.share.pid"),
        ..ROW
    },
    Row {
        keys: &["lxc.namespace.share.user"],
        lines: "lxc.include = $DIR/share\n",
        make: share!("user"),
        expected: Refused("lxc.namespace.share.user"),
        ..ROW
    },
    Row {
        keys: &["lxc.namespace.share.uts"],
        lines: "lxc.include = $DIR/share\n",
        make: share!("uts"),
        expected: Refused("lxc.namespace.share.uts"),
        ..ROW
    },
    Row { keys: &["lxc.time.offset.boot"], lines: "lxc.time.offset.boot = 5000s\n", ..ROW },
    Row {
        keys: &["lxc.time.offset.monotonic"],
        lines: "lxc.time.offset.monotonic = 3000s\n",
        ..ROW
    },
];
