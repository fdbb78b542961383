//! The kinds of failures, each with its explanation and its remedy.

use std::fmt;

/// Makes the enum, the list of its members and their two texts from one table.
macro_rules! classes {
    ($($name:ident: $explain:literal, $remedy:literal;)*) => {
        /// The kind of a failure.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Class {
            $(#[doc = $explain] $name,)*
        }

        impl Class {
            /// Every class.
            pub const ALL: &'static [Class] = &[$(Class::$name),*];

            /// What happened, in plain words; a main clause without a full stop.
            pub fn explain(self) -> &'static str {
                match self { $(Class::$name => $explain,)* }
            }

            /// What can be done about it, in the imperative.
            pub fn remedy(self) -> &'static str {
                match self { $(Class::$name => $remedy,)* }
            }
        }
    };
}

classes! {
    Unknown: "CRIU's log names no cause that is known here",
        "read the end of the log";
    // Namespaces and processes.
    NestedNamespace: "a process in the container has a namespace of its own of a kind that CRIU \
                      cannot nest (only mount and network may be)",
        "for a systemd unit, switch off ProtectHostname=, PrivateUsers=, PrivateIPC= or \
         ProtectControlGroups= in a drop-in; else end the process";
    SessionOutside: "a process belongs to a session whose leader is outside the container",
        "end the processes that were started from outside (lxc-attach), or start them with setsid";
    ForeignProcess: "a process was put into the container from outside, without its cgroup or its \
                     time namespace",
        "end it, and enter the container with lxc-attach instead of nsenter";
    FreezeTimeout: "the processes could not be stopped in time; one of them waits in the kernel",
        "find the process in state D (ps), and try again when it has gone on";
    SelfDump: "CRIU itself runs among the processes to be dumped",
        "run the checkpoint from the host, outside the container";
    Unseizable: "a process cannot be seized, because it is traced or waits in the kernel",
        "detach debuggers and strace from the container's processes, and try again";
    Traced: "a process is traced already",
        "detach debuggers and strace from the container's processes";
    ProcessGone: "a process ended while it was to be dumped",
        "try again; if it was init, the container has stopped";
    NoSysResource: "the limits of another user's process cannot be read without CAP_SYS_RESOURCE",
        "give the host's root CAP_SYS_RESOURCE, or give the container an id map (lxc.idmap)";
    Seccomp: "seccomp filters cannot be suspended or dumped on this kernel",
        "use a kernel with CONFIG_CHECKPOINT_RESTORE and CONFIG_SECCOMP_FILTER, and run as root of \
         the host";
    Uprobes: "a process is probed by the host (uprobes)",
        "stop the tracing tool, and restart the process if the probes stay";
    PidInUse: "a pid that the checkpoint needs is taken",
        "stop what still runs of the container; it needs a pid namespace of its own";
    ExeLink: "the program file of a process cannot be set, as with (sd-pam) of systemd's \
              user@.service",
        "mask user@.service in the container, or end the login sessions before the dump";
    Crashed: "CRIU or a process under its control crashed",
        "read the end of the log; report it to CRIU with the log";
    // Terminals.
    TtyMasterMissing: "a process holds a terminal whose other end is outside the container",
        "set lxc.console.path = none and lxc.tty.max = 0, or close the session";
    ControllingTty: "a session has a controlling terminal from outside the container",
        "log out of the container's consoles before the dump";
    // Sockets.
    TcpEstablished: "there are open TCP connections, and they were not allowed",
        "allow established TCP connections, at the dump and at the restore";
    TcpClose: "the dump closed the TCP connections, so the restore must close them, too",
        "restore with TCP connections closed (--tcp-close)";
    TcpInFlight: "a TCP connection is just being opened",
        "try again; if it stays so, the process that listens hangs (lxc-cr check names it): \
         restart it";
    UnixRequest: "a request waits at a unix socket until a process accepts it, and CRIU cannot \
                  save it",
        "try again; if it stays so, the process that listens is busy or hangs (lxc-cr check names \
         it): give it more workers";
    NetlinkData: "a netlink socket holds unread data",
        "try again";
    QueuedCredentials: "a message with the credentials of its sender waits in a unix socket, and \
                        CRIU cannot save those",
        "try again; if it stays so, see why the process that should read the message does not";
    WatchRace: "a watched file vanished during the dump",
        "try again";
    PassCred: "this CRIU cannot dump inet and packet sockets on Linux 6.16 and newer",
        "install CRIU 4.2 or newer";
    UnsupportedSocket: "a process has a socket of a kind that CRIU does not know (ICMP, SCTP, \
                        MPTCP, …)",
        "end that process; for Go programs set GODEBUG=multipathtcp=0";
    DiagModule: "the kernel cannot list its sockets",
        "load the modules inet_diag tcp_diag udp_diag unix_diag netlink_diag af_packet_diag on the \
         host";
    ExternalUnixSocket: "a unix socket is connected to a process outside the container",
        "close the connection (a bind-mounted socket of the host?) before the dump";
    // Files.
    FileLocks: "processes hold file locks, and these were not allowed",
        "end the processes that hold them (lslocks), or let them give them up";
    GhostTooBig: "an unlinked file that is still open is larger than the limit",
        "raise the limit for unlinked files: ghost_limit in /etc/lxc/lxc-cr.toml";
    LinkRemap: "an unlinked file that is still open has another name somewhere",
        "end the process that has it open, or give the file a name again";
    StaleRemap: "the root filesystem holds files that an earlier CRIU run left",
        "remove link_remap.* and *.cr.*.ghost from the root filesystem";
    WatchedFile: "the path of a file that is watched (inotify, fanotify) cannot be found",
        "at a dump, restart the process that watches it; at a restore, make the file or cgroup \
         first";
    ForeignFile: "a process holds a file of a mount that the container does not have",
        "end processes started by lxc-attach; set lxc.autodev = 1, so that init has the \
         container's own /dev/null";
    BpfProgram: "a process (mostly systemd) holds an eBPF program, which CRIU cannot dump",
        "forbid bpf in the container's seccomp profile (bpf errno 1), or use an id map (lxc.idmap)";
    UnsupportedFile: "a process holds a file of a kind that CRIU cannot dump (io_uring, a device, \
                      …)",
        "end that process, or have it not use it";
    FileChanged: "a file was changed since the dump",
        "put the root filesystem back to what it was at the dump";
    FileMissing: "a file that was open at the dump is missing",
        "put the root filesystem back to what it was at the dump";
    InheritFd: "a file that the restore was to hand over was not open",
        "report this: it is a fault of lxc-cr";
    // Mounts.
    ExternalMount: "a mount comes from outside the container and was not named as external",
        "name it as an external mount, or unmount it before the dump";
    MountUnmapped: "a mount that came from outside has no source now",
        "restore with the configuration that the container had at the dump";
    UnsupportedFilesystem: "a filesystem of a kind that CRIU cannot dump is mounted",
        "unmount it before the dump";
    RootNotMount: "the container's root filesystem is not a mount of its own",
        "bind-mount the root filesystem, and let the container use it as its root (pivot_root)";
    MountpointMissing: "the place for a mount is missing in the root filesystem",
        "restore on the root filesystem that was dumped, or make the directory or file";
    MountEngine: "CRIU's mount engine cannot rebuild the container's mounts",
        "let lxc.mount.entry name no symbolic links";
    Autofs: "an automount has no daemon inside the container",
        "mask the automount units (proc-sys-fs-binfmt_misc.automount) in the container";
    // Network.
    BridgeMissing: "an interface could not be put into its bridge",
        "make the bridge, or name another one in the configuration";
    InterfaceUnmapped: "the restore has no instruction for a network interface",
        "restore with a configuration that has all the interfaces of the dump";
    InterfaceExists: "an interface of that name or hardware address exists already",
        "delete the interface that is left from an earlier run, or wait a second and try again";
    InterfaceName: "the name of an interface is empty or longer than 15 bytes",
        "give a shorter name in the configuration";
    InterfaceMissing: "an interface that was to be moved into the container is not there",
        "try again; the interface may just have been deleted";
    InterfaceUserns: "CRIU cannot make this interface inside a user namespace",
        "make the interface beforehand and hand it over (netdev)";
    InterfaceOther: "the kernel refused a network interface",
        "compare the interfaces of the host with the configuration";
    NetworkUntold: "the kernel did not list the container's interfaces or tracked connections",
        "load nf_conntrack_netlink on the host (modprobe nf_conntrack_netlink), then try again";
    IpTool: "the addresses, routes or rules of the network could not be restored",
        "read the lines before it in the log: they are those of ip(8)";
    NetworkLock: "CRIU's own lock of the network failed",
        "install iptables or nftables";
    NetworkTool: "a network tool that CRIU needs is not installed",
        "install iproute2 and iptables (or nftables)";
    LoopbackDown: "the loopback interface is down, which CRIU needs for its own tests",
        "run: ip link set lo up";
    // Security modules.
    LsmMissing: "the security module that the container used is not live on this kernel",
        "boot a kernel with that security module";
    LsmDenies: "a security profile inside the container forbids CRIU's helper",
        "set the process's AppArmor profile to complain (aa-complain)";
    LsmProfile: "the container's security profile could not be applied",
        "load the profile on the host (apparmor_parser)";
    // Cgroups.
    CgroupBusy: "processes cannot be moved into a cgroup that hands on controllers",
        "set subtree_control after the processes have moved; restore with --manage-cgroups=soft";
    CgroupPermission: "a cgroup file belongs to the wrong user",
        "make the container's cgroups beforehand, with the owners and modes of the dump";
    CgroupProperty: "a cgroup or one of its limits could not be restored",
        "remove what is left of the container's cgroups, and try again";
    FreezerMissing: "the cgroup to be frozen has no freezer",
        "dump without freezing a cgroup";
    // The kernel and the machine.
    KernelTooNew: "this CRIU is too old for the running kernel",
        "install CRIU 4.2 or newer";
    OtherMachine: "the checkpoint is of another kind of machine or processor",
        "restore on a machine with the same or a newer processor";
    MemoryTracking: "this kernel cannot track memory changes",
        "dump without a pre-dump, or use a kernel with CONFIG_MEM_SOFT_DIRTY";
    NotRoot: "CRIU did not run as root",
        "run as root of the host";
    DiskFull: "the disk is full",
        "make room, or put the checkpoint on another filesystem";
    OutOfMemory: "there is not enough memory",
        "free memory, or raise the memory limit of the caller's cgroup";
    TarMissing: "tar is not installed, which CRIU needs for tmpfs",
        "install GNU tar";
    ToolMissing: "a program that CRIU runs is missing",
        "install it";
    // Images.
    ImagesVersion: "the images are of a format that this CRIU does not know",
        "restore with the CRIU version of the dump, or a newer one";
    ImagesMissing: "an image file is missing",
        "check that the directory holds a complete checkpoint";
    ImagesDamaged: "an image file is damaged or cut off",
        "restore another checkpoint";
    PluginMissing: "a CRIU plugin that the dump used is missing",
        "install the plugin (its directory: criu -L)";
    // Our own side.
    ActionScript: "a hook that CRIU ran failed",
        "read the lines of the hook in the log";
}

impl fmt::Display for Class {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.explain())
    }
}
