//! The root, and what is mounted in it.

use super::super::{ROW, Row};

pub const ROWS: &[Row] = &[
    Row {
        keys: &["lxc.autodev"],
        lines: "lxc.autodev = 0\n",
        make: "mkdir -p $ROOTFS/dev/shm",
        ..ROW
    },
    Row { keys: &["lxc.autodev.tmpfs.size"], lines: "lxc.autodev.tmpfs.size = 1048576\n", ..ROW },
    Row {
        keys: &["lxc.mount.auto"],
        lines: "lxc.mount.fstab = $DIR/fstab2\nlxc.mount.auto = proc:mixed sys:ro \
                cgroup:rw:force\n",
        make: "echo 'tmpfs dev/shm tmpfs defaults,create=dir 0 0' > $DIR/fstab2",
        sample: true,
        ..ROW
    },
    Row {
        keys: &["lxc.mount.entry"],
        lines: "lxc.mount.entry = $DIR/share mnt none bind,create=dir 0 0\n\
                lxc.mount.entry = $DIR/share ro none bind,ro,nosuid,create=dir 0 0\n\
                lxc.mount.entry = $DIR/share/file etc/file none bind,create=file 0 0\n\
                lxc.mount.entry = $DIR/share rec none rbind,rslave,create=dir 0 0\n\
                lxc.mount.entry = none scratch tmpfs size=1m,nodev,noexec,create=dir 0 0\n",
        make: "mkdir -p $DIR/share; echo content > $DIR/share/file",
        probe: "inside /bin/cat /mnt/file /etc/file; inside /bin/touch /ro/x 2>&1; inside /bin/df \
                /scratch",
        ..ROW
    },
    Row {
        keys: &["lxc.mount.fstab"],
        lines: "lxc.mount.fstab = $DIR/fstab2\n",
        make: "cp $DIR/fstab $DIR/fstab2; echo 'none scratch tmpfs size=1m,create=dir 0 0' >> \
               $DIR/fstab2",
        ..ROW
    },
    Row { keys: &["lxc.rootfs.path"], lines: "lxc.rootfs.path = dir:$ROOTFS\n", ..ROW },
    Row {
        keys: &["lxc.rootfs.mount"],
        lines: "lxc.rootfs.mount = $DIR/mounted\n",
        make: "mkdir -p $DIR/mounted",
        ..ROW
    },
    Row { keys: &["lxc.rootfs.options"], lines: "lxc.rootfs.options = nosuid,nodev\n", ..ROW },
    Row {
        keys: &["lxc.rootfs.managed"],
        lines: "lxc.rootfs.managed = 0\n",
        end: "cp $DIR/config $DIR/fstab $LXCPATH/; cp $DIR/hook $LXCPATH/; lx lxc-destroy -f | \
              tail -1; ls $ROOTFS/bin | wc -l; mkdir -p $DIR; cp $LXCPATH/config $LXCPATH/fstab \
              $LXCPATH/hook $DIR/",
        ..ROW
    },
];
