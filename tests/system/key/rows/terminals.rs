//! Consoles, ttys and logs.

use super::super::{ROW, Row};

pub const ROWS: &[Row] = &[
    Row {
        keys: &["lxc.console.path"],
        lines: "lxc.console.path = none\n",
        probe: "inside /bin/ls /dev/console",
        ..ROW
    },
    Row {
        keys: &["lxc.console.logfile"],
        lines: "lxc.console.path =\nlxc.console.logfile = $DIR/console\n",
        make: "rm -f $DIR/console",
        probe: "inside /bin/sh -c 'echo hello > /dev/console'; sleep 0.3; grep -c hello \
                $DIR/console; stat -c %a:%u $DIR/console",
        end: "lx lxc-stop -k; rm -f $DIR/console",
        ..ROW
    },
    Row {
        keys: &["lxc.console.buffer.size"],
        lines: "lxc.console.path =\nlxc.console.buffer.size = 4096\n",
        probe: "inside /bin/sh -c 'echo hello > /dev/console'; sleep 0.3; \
                python3 -c 0 2>/dev/null; lx lxc-info -c lxc.console.buffer.size",
        ..ROW
    },
    Row {
        keys: &["lxc.console.size", "lxc.console.rotate"],
        lines: "lxc.console.path =\nlxc.console.logfile = $DIR/console\nlxc.console.size = \
                4096\nlxc.console.rotate = 1\n",
        probe: "inside /bin/sh -c 'i=0; while [ $i -lt 600 ]; do echo 0123456789abcdef; \
                i=$((i+1)); done > /dev/console'; sleep 0.5; ls $DIR | grep ^console",
        end: "lx lxc-stop -k; rm -f $DIR/console*",
        ..ROW
    },
    Row {
        keys: &["lxc.tty.max"],
        lines: "lxc.console.path =\nlxc.tty.max = 2\n",
        probe: "inside /bin/ls /dev/tty1 /dev/tty2 /dev/tty3 2>&1",
        ..ROW
    },
    Row {
        keys: &["lxc.tty.dir"],
        lines: "lxc.console.path =\nlxc.tty.max = 2\nlxc.tty.dir = lxc\n",
        probe: "inside /bin/ls /dev/lxc; inside /bin/readlink /dev/tty1 /dev/console",
        ..ROW
    },
    Row {
        keys: &["lxc.pty.max"],
        lines: "lxc.pty.max = 7\n",
        probe: "inside /bin/cat /proc/mounts | grep devpts",
        ..ROW
    },
    Row {
        keys: &["lxc.log.file", "lxc.log.level"],
        lines: "lxc.log.file = $DIR/own.log\nlxc.log.level = DEBUG\n",
        ..ROW
    },
    Row { keys: &["lxc.log.syslog"], lines: "lxc.log.syslog = daemon\n", ..ROW },
];
