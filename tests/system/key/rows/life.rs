//! How it is started, watched over and ended.

use super::super::Expected::Refused;
use super::super::{ROW, Row};

/// Kills the monitor, and says what becomes of init.
const WITHOUT_MONITOR: &str = "kill -9 $(sed -n 's/^PPid:[[:space:]]*//p' /proc/$INIT/status); \
                               i=0; while [ -d /proc/$INIT ] && [ $i -lt 60 ]; do sleep 0.1; \
                               i=$((i+1)); done; [ -d /proc/$INIT ] && echo lives || echo ended; \
                               /opt/lxc-cr/lxc-cr recover -n $NAME -P $LXCPATH >/dev/null 2>&1; \
                               rmdir /sys/fs/cgroup/lxc.payload.$NAME \
                               /sys/fs/cgroup/lxc.monitor.$NAME 2>/dev/null";
/// An ephemeral container is gone when it has ended.
const GONE: &str = "cp -a $DIR $LXCPATH/kept; lx lxc-stop -k; i=0; while [ -d $DIR ] && [ $i -lt \
                    50 ]; do sleep 0.1; i=$((i+1)); done; [ -d $DIR ] && echo there || echo gone; \
                    rm -rf $DIR; mv $LXCPATH/kept $DIR";

pub const ROWS: &[Row] = &[
    Row {
        keys: &["lxc.signal.halt"],
        lines: "lxc.signal.halt = SIGUSR2\n",
        end: "lx lxc-stop -t 20 --nokill; echo $?; lx lxc-info -s -H",
        ..ROW
    },
    Row {
        keys: &["lxc.signal.reboot"],
        lines: "lxc.signal.reboot = SIGTERM\n",
        end: "lx lxc-stop -r -t 20; echo $?; lx lxc-info -s -H",
        ..ROW
    },
    Row {
        keys: &["lxc.signal.stop"],
        lines: "lxc.signal.stop = SIGUSR1\n",
        end: "lx lxc-stop -k; echo $?",
        ..ROW
    },
    Row {
        keys: &["lxc.monitor.signal.pdeath"],
        lines: "lxc.monitor.signal.pdeath = SIGUSR1\n",
        end: WITHOUT_MONITOR,
        ..ROW
    },
    Row { keys: &["lxc.monitor.unshare"], lines: "lxc.monitor.unshare = 1\n", ..ROW },
    Row {
        keys: &["lxc.ephemeral"],
        lines: "lxc.ephemeral = 1\n",
        end: GONE,
        expected: Refused("ephemeral"),
        sample: true,
        ..ROW
    },
    Row {
        keys: &["lxc.start.auto"],
        lines: "lxc.start.auto = 1\n",
        probe: "lxc-autostart -P $LXCPATH -L",
        ..ROW
    },
    Row {
        keys: &["lxc.start.delay", "lxc.start.order"],
        lines: "lxc.start.auto = 1\nlxc.start.delay = 7\nlxc.start.order = 5\n",
        probe: "lxc-autostart -P $LXCPATH -L",
        ..ROW
    },
    Row {
        keys: &["lxc.group"],
        lines: "lxc.group = web\nlxc.start.auto = 1\n",
        probe: "lxc-autostart -P $LXCPATH -L -g web",
        ..ROW
    },
    Row {
        keys: &["lxc.include"],
        lines: "lxc.include = $DIR/included\n",
        make: "printf 'lxc.environment = COLOUR=blue\\nlxc.cap.drop = sys_time\\n' > $DIR/included",
        ..ROW
    },
];
