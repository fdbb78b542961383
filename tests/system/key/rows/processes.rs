//! What a process is allowed, and what it begins with.

use super::super::Expected::NotHere;
use super::super::{ROW, Row};

/// Without CAP_SYS_RESOURCE, the test host's root may read the limits of other users' processes in
/// a user namespace only.
macro_rules! in_a_user_namespace {
    ($lines:literal) => {
        concat!("lxc.idmap = u 0 0 65536\nlxc.idmap = g 0 0 65536\n", $lines)
    };
}

/// An init that needs nothing.
const WAITS: &str = "printf '#!/bin/sh\\nwhile :; do sleep 3; done\\n' > $ROOTFS/bin/waits; chmod \
                     755 $ROOTFS/bin/waits";

pub const ROWS: &[Row] = &[
    Row {
        keys: &["lxc.arch"],
        lines: "lxc.arch = i686\n",
        probe: "uname -m; cat /proc/$INIT/personality; inside /bin/uname -m",
        sample: true,
        ..ROW
    },
    Row { keys: &["lxc.cap.drop"], lines: "lxc.cap.drop = sys_time mknod net_raw\n", ..ROW },
    Row {
        keys: &["lxc.cap.keep"],
        lines: "lxc.cap.keep = chown dac_override fowner kill setgid setuid net_bind_service \
                sys_chroot\n",
        ..ROW
    },
    Row { keys: &["lxc.no_new_privs"], lines: "lxc.no_new_privs = 1\n", ..ROW },
    Row {
        keys: &["lxc.prlimit"],
        lines: "lxc.prlimit.nofile = 500:1000\nlxc.prlimit.core = 0\nlxc.prlimit.stack = 4194304\n",
        ..ROW
    },
    Row {
        keys: &["lxc.proc"],
        lines: "lxc.proc.oom_score_adj = 500\nlxc.proc.coredump_filter = 0x7f\n",
        ..ROW
    },
    Row {
        keys: &["lxc.sysctl"],
        lines: "lxc.sysctl.net.core.somaxconn = 321\nlxc.sysctl.kernel.msgmax = \
                16384\nlxc.sysctl.net.ipv4.ip_forward = 1\n",
        ..ROW
    },
    Row {
        keys: &["lxc.environment"],
        lines: "lxc.environment = COLOUR=blue\n",
        probe: "inside /bin/env | grep COLOUR",
        ..ROW
    },
    Row {
        keys: &["lxc.environment.runtime"],
        lines: "lxc.environment.runtime = COLOUR=blue\n",
        ..ROW
    },
    Row {
        keys: &["lxc.environment.hooks"],
        lines: "lxc.environment.hooks = LXC_COLOUR=blue\nlxc.hook.pre-start = \
                $DIR/hook\nlxc.hook.stop = $DIR/hook\nlxc.hook.post-stop = $DIR/hook\n",
        hooks_again: true,
        ..ROW
    },
    Row {
        keys: &["lxc.init.cmd"],
        lines: "lxc.init.cmd = /bin/busybox init\n",
        make: "ln -sf busybox $ROOTFS/bin/init",
        end: "lx lxc-stop -r -t 5; sleep 1; cat /proc/$(lx lxc-info -p -H)/cmdline | tr '\\0' ' '",
        ..ROW
    },
    Row { keys: &["lxc.init.cwd"], lines: "lxc.init.cwd = /tmp\n", ..ROW },
    Row {
        keys: &["lxc.init.uid", "lxc.init.gid"],
        lines: in_a_user_namespace!(
            "lxc.init.cmd = /bin/waits\nlxc.init.uid = 1000\nlxc.init.gid = 1001\n"
        ),
        make: WAITS,
        witness: false,
        ..ROW
    },
    Row {
        keys: &["lxc.init.groups"],
        lines: in_a_user_namespace!("lxc.init.groups = 20,21\n"),
        probe: "inside /bin/id",
        ..ROW
    },
    Row { keys: &["lxc.execute.cmd"], lines: "lxc.execute.cmd = /bin/waits\n", make: WAITS, ..ROW },
    Row {
        keys: &["lxc.sched.core"],
        lines: "lxc.sched.core = 1\n",
        expected: NotHere("the kernel's processors have no siblings"),
        ..ROW
    },
    Row { keys: &["lxc.keyring.session"], lines: "lxc.keyring.session = 1\n", ..ROW },
    Row {
        keys: &["lxc.seccomp.profile"],
        lines: "lxc.seccomp.profile = $DIR/seccomp\n",
        make: "printf '2\\ndenylist\\n[all]\\nsyslog errno 77\\n' > $DIR/seccomp",
        probe: "grep Seccomp /proc/$INIT/status",
        sample: true,
        ..ROW
    },
    Row {
        keys: &["lxc.seccomp.allow_nesting"],
        lines: "lxc.seccomp.profile = $DIR/seccomp\nlxc.seccomp.allow_nesting = 1\n",
        make: "printf '2\\ndenylist\\n[all]\\nsyslog errno 77\\n' > $DIR/seccomp",
        ..ROW
    },
    Row {
        keys: &["lxc.seccomp.notify.proxy", "lxc.seccomp.notify.cookie"],
        lines: "lxc.seccomp.profile = $DIR/seccomp\nlxc.seccomp.notify.proxy = \
                unix:$DIR/proxy\nlxc.seccomp.notify.cookie = crumb\n",
        make: "printf '2\\ndenylist\\n[all]\\nmknod notify\\n' > $DIR/seccomp; perl -MSocket -e \
               'socket(S, AF_UNIX, SOCK_SEQPACKET, 0); bind(S, sockaddr_un($ARGV[0])); listen(S, \
               5); sleep 40' $DIR/proxy >/dev/null 2>&1 & sleep 0.3",
        expected: super::super::Expected::Refused("decide on system calls (notify)"),
        sample: true,
        ..ROW
    },
    Row { keys: &["lxc.apparmor.profile"], lines: "lxc.apparmor.profile = unconfined\n", ..ROW },
    Row {
        keys: &["lxc.apparmor.allow_incomplete"],
        lines: "lxc.apparmor.allow_incomplete = 1\n",
        ..ROW
    },
    Row { keys: &["lxc.apparmor.allow_nesting"], lines: "lxc.apparmor.allow_nesting = 1\n", ..ROW },
    Row { keys: &["lxc.apparmor.raw"], lines: "lxc.apparmor.raw = deny /nowhere r,\n", ..ROW },
    Row {
        keys: &["lxc.selinux.context"],
        lines: "lxc.selinux.context = system_u:system_r:lxc_t:s0\n",
        ..ROW
    },
    Row {
        keys: &["lxc.selinux.context.keyring"],
        lines: "lxc.selinux.context.keyring = system_u:system_r:lxc_t:s0\n",
        ..ROW
    },
];
