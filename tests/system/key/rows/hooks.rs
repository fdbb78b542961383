//! Hooks. Those that LXC runs inside the start (pre-mount to start) have their effect in the
//! images; those of the host are run again.

use super::super::{ROW, Row};

/// Ends a container and tries what only a stopped one is for; it is there again afterwards.
const DESTROY: &str = "cp -a $DIR $LXCPATH/kept; lx lxc-stop -k; cp $DIR/notes $LXCPATH/kept/ \
                       2>/dev/null; lx lxc-destroy | tail -1; mv $LXCPATH/kept/config \
                       $LXCPATH/kept.config; cat $DIR/notes 2>/dev/null; rm -rf $DIR; mv \
                       $LXCPATH/kept $DIR; mv $LXCPATH/kept.config $DIR/config";

pub const ROWS: &[Row] = &[
    Row {
        keys: &["lxc.hook.pre-start"],
        lines: "lxc.hook.pre-start = $DIR/hook own\n",
        hooks_again: true,
        sample: true,
        ..ROW
    },
    Row { keys: &["lxc.hook.pre-mount"], lines: "lxc.hook.pre-mount = $DIR/hook own\n", ..ROW },
    Row { keys: &["lxc.hook.mount"], lines: "lxc.hook.mount = $DIR/hook own\n", ..ROW },
    Row {
        keys: &["lxc.hook.mount"],
        lines: "lxc.hook.mount = $DIR/mounts\n",
        make: "printf '#!/bin/sh\\nmkdir -p $LXC_ROOTFS_MOUNT/scratch\\nmount -t tmpfs -o size=1m \
               scratch $LXC_ROOTFS_MOUNT/scratch\\n' > $DIR/mounts; chmod 755 $DIR/mounts",
        ..ROW
    },
    Row {
        keys: &["lxc.hook.autodev"],
        lines: "lxc.hook.autodev = $DIR/nodes\n",
        make: "printf '#!/bin/sh\\nmknod -m 666 $LXC_ROOTFS_MOUNT/dev/fuse c 10 229\\n' > \
               $DIR/nodes; chmod 755 $DIR/nodes",
        ..ROW
    },
    Row {
        keys: &["lxc.hook.start-host"],
        lines: "lxc.hook.start-host = $DIR/hook own\n",
        hooks_again: true,
        ..ROW
    },
    Row {
        keys: &["lxc.hook.start"],
        lines: "lxc.hook.start = /bin/started\n",
        make: "printf '#!/bin/sh\\necho started >> /tmp/started\\n' > $ROOTFS/bin/started; chmod \
               755 $ROOTFS/bin/started",
        probe: "tail -n 1 $ROOTFS/tmp/started",
        ..ROW
    },
    Row { keys: &["lxc.hook.stop"], lines: "lxc.hook.stop = $DIR/hook own\n", ..ROW },
    Row { keys: &["lxc.hook.post-stop"], lines: "lxc.hook.post-stop = $DIR/hook own\n", ..ROW },
    Row {
        keys: &["lxc.hook.version"],
        lines: "lxc.hook.version = 1\nlxc.hook.pre-start = $DIR/hook own\nlxc.hook.stop = \
                $DIR/hook own\nlxc.hook.post-stop = $DIR/hook own\n",
        hooks_again: true,
        ..ROW
    },
    Row {
        keys: &["lxc.hook.clone"],
        lines: "lxc.hook.clone = $DIR/hook own\n",
        end: "lx lxc-stop -k; lx lxc-copy -s -B overlay -N key-copy 2>/dev/null; echo $?; \
              lxc-destroy -n key-copy -P $LXCPATH | tail -1",
        ..ROW
    },
    Row {
        keys: &["lxc.hook.destroy"],
        lines: "lxc.hook.destroy = $DIR/hook own\n",
        end: DESTROY,
        ..ROW
    },
    Row { keys: &["lxc.hook"], lines: "lxc.hook.stop = $DIR/hook own\nlxc.hook =\n", ..ROW },
];
