//! Which line of a log means what. By hand, from CRIU's sources and from logs of real failures.

use super::{Class, Level, Operation};
use Class as C;

/// How much a line tells. A greater one later in the log beats a lesser one earlier.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Weight {
    /// The echo of something that happened elsewhere.
    Echo,
    /// A warning or a note, which by itself stops nothing.
    Hint,
    /// The reason.
    Reason,
}

/// Errors that CRIU logs and goes on.
///
/// The first comes with each run as root without CAP_SYS_RESOURCE, the second when a task of a
/// chain of pre-dumps is new, the others when a dump finds no tools of iptables (see
/// [`crate::criu::tools`]).
const HARMLESS: &[&str] = &[
    "rlimit: Can't setup RLIMIT_NOFILE for self",
    "No parent image found",
    "execvp(\"iptables-save\"",
    "execvp(\"ip6tables-save\"",
    "execvp(\"iptables-legacy-save\"",
    "execvp(\"ip6tables-legacy-save\"",
    "tables-save -V failed",
    "tables-legacy-save -V failed",
];

pub(super) fn is_harmless(line: &str) -> bool {
    HARMLESS.iter().any(|text| line.contains(text))
}

/// All of these stand in the line.
type Pattern = &'static [&'static str];

/// What an error says, the special before the general. One that both operations write is listed
/// once.
#[rustfmt::skip]
const REASONS: &[(Pattern, Class)] = &[
    // Namespaces and processes.
    (&["Can't dump nested", "namespace"], C::NestedNamespace),
    (&["Nested mount namespaces are not supported"], C::NestedNamespace),
    (&["is outside of its pid namespace"], C::SessionOutside),
    (&["Can't find a session leader for"], C::SessionOutside),
    (&["is not a session leader"], C::SessionOutside),
    (&["shorter than path prefix"], C::ForeignProcess),
    (&["Can't restore sub-task in NS"], C::ForeignProcess),
    (&["Timeout reached. Try to interrupt"], C::FreezeTimeout),
    (&["Unable to freeze cgroup"], C::FreezeTimeout),
    (&["The criu itself is within dumped tree"], C::SelfDump),
    (&["Unseizable non-zombie"], C::Unseizable),
    (&["Can't get rlimit", "Operation not permitted"], C::NoSysResource),
    (&["suspending seccomp failed"], C::Seccomp),
    (&["failed to suspend seccomp"], C::Seccomp),
    (&["Dumping seccomp filters not supported"], C::Seccomp),
    (&["Can't fetch filter on tid_real"], C::Seccomp),
    (&["PID", "has uprobes vma"], C::Uprobes),
    (&["Dumped with --allow-uprobes"], C::Uprobes),
    (&["Can't fork for", "File exists"], C::PidInUse),
    (&["do not match expected"], C::PidInUse),
    (&["intersects with"], C::PidInUse),
    (&["Setting PID failed"], C::PidInUse),
    // Terminals.
    (&["Unable to find a master for"], C::TtyMasterMissing),
    (&["Found slave peer index"], C::TtyMasterMissing),
    (&["Found dangling tty"], C::TtyMasterMissing),
    (&["The master for", "isn't from the root mntns"], C::TtyMasterMissing),
    (&["ctty inheritance detected"], C::ControllingTty),
    (&["Don't have tty to inherit session from"], C::ControllingTty),
    (&["Failed to set group", "Inappropriate ioctl"], C::ControllingTty),
    // Sockets.
    (&["Connected TCP socket"], C::TcpEstablished),
    (&["Need to set the --tcp-close"], C::TcpClose),
    (&["In-flight connection (l)"], C::TcpInFlight),
    (&["Non-empty write queue on an in-flight socket"], C::UnixRequest),
    (&["The socket has data to read"], C::NetlinkData),
    (&["Control messages in queue"], C::QueuedCredentials),
    (&["error parsing [inotify"], C::WatchRace),
    (&["Can't get 1:16 opt"], C::PassCred),
    (&["Unsupported proto"], C::UnsupportedSocket),
    (&["Unsupported socket family"], C::UnsupportedSocket),
    (&["Unsupported socket type"], C::UnsupportedSocket),
    (&["Unsupported type (", "on socket"], C::UnsupportedSocket),
    (&["Diag module missing"], C::DiagModule),
    (&["External socket is used"], C::ExternalUnixSocket),
    (&["Can't dump half of stream unix connection"], C::ExternalUnixSocket),
    (&["Can't dump name-less external socket"], C::ExternalUnixSocket),
    (&["with unreachable peer"], C::ExternalUnixSocket),
    (&["Unix socket", "not found"], C::ExternalUnixSocket),
    // Files.
    (&["Some file locks are hold"], C::FileLocks),
    (&["increase limit"], C::GhostTooBig),
    (&["Can't create link remap"], C::LinkRemap),
    (&["Can't link", ".ghost", "File exists"], C::StaleRemap),
    (&["Can't link", "link_remap", "File exists"], C::StaleRemap),
    (&["Can't dump that handle"], C::WatchedFile),
    (&["Can't find suitable path for handle"], C::WatchedFile),
    (&["fsnotify: Unable to open"], C::WatchedFile),
    (&["Can't lookup mount="], C::ForeignFile),
    (&["Open files on overmounted mounts"], C::ForeignFile),
    (&["Can't dump file", "bpf-prog"], C::BpfProgram),
    (&["Can't dump file", "of that type"], C::UnsupportedFile),
    (&["has bad size"], C::FileChanged),
    (&["has bad mode"], C::FileChanged),
    (&["has bad build-ID"], C::FileChanged),
    (&["Can't open file sys/fs/cgroup", "Permission denied"], C::CgroupPermission),
    (&["Can't open file", "No such file or directory"], C::FileMissing),
    (&["Can't fstat inherit fd"], C::InheritFd),
    // Mounts.
    (&["doesn't have a proper root mount"], C::ExternalMount),
    (&["is autodetected external mount"], C::ExternalMount),
    (&["A few mount points can't be mounted"], C::ExternalMount),
    (&["No mapping for", "mountpoint"], C::MountUnmapped),
    (&["FS mnt", "unsupported id"], C::UnsupportedFilesystem),
    (&["Unable to dump a file system for"], C::UnsupportedFilesystem),
    (&["The --root option is required"], C::RootNotMount),
    (&["New root and old root are the same"], C::RootNotMount),
    (&["No parent found for mountpoint"], C::RootNotMount),
    (&["The root task has another root than mntns"], C::RootNotMount),
    (&["Can't stat mountpoint", "No such file"], C::MountpointMissing),
    (&["Can't mount at", "No such file"], C::MountpointMissing),
    (&["Failed to move_mount"], C::MountEngine),
    (&["opy sharing from"], C::MountEngine),
    (&["Failed to make mount"], C::MountEngine),
    (&["Failed to find pipe_ino option"], C::Autofs),
    (&["Failed to mount autofs"], C::Autofs),
    (&["doesn't have a read end of the pipe"], C::Autofs),
    // Network.
    (&["Can't add interface", "to bridge"], C::BridgeMissing),
    (&["Unknown peer net namespace"], C::InterfaceUnmapped),
    (&["a macvlan parent for", "is required"], C::InterfaceUnmapped),
    (&["-17 reported by netlink"], C::InterfaceExists),
    // A macvlan with the hardware address of one that is still being taken down.
    (&["-98 reported by netlink"], C::InterfaceExists),
    (&["Can't restore link: -17"], C::InterfaceExists),
    (&["-34 reported by netlink"], C::InterfaceName),
    (&["ERROR -34 reported"], C::InterfaceName),
    (&["Can't open sysctl net/ipv", "No such file"], C::InterfaceMissing),
    (&["interface", "via usernsd"], C::InterfaceUserns),
    (&["IP tool failed on"], C::IpTool),
    (&["Locking network failed"], C::NetworkLock),
    (&["Iptables configuration failed"], C::NetworkLock),
    (&["execvp(\"ip"], C::NetworkTool),
    (&["execvp(\"nft"], C::NetworkTool),
    (&["execvp(\"tar\""], C::TarMissing),
    (&["Network is unreachable"], C::LoopbackDown),
    // Security modules.
    (&["LSM specified but", "not supported by kernel"], C::LsmMissing),
    (&["mismatched lsm types"], C::LsmMissing),
    (&["Unable to connect a transport socket", "Permission denied"], C::LsmDenies),
    (&["can't write lsm profile"], C::LsmProfile),
    (&["write AA policy failed"], C::LsmProfile),
    // Cgroups.
    (&["Device or resource busy", "Can't move"], C::CgroupBusy),
    (&["write to cgroup.subtree_control"], C::CgroupBusy),
    (&["cg: ", "Permission denied"], C::CgroupPermission),
    (&["cg: Failed writing"], C::CgroupProperty),
    (&["Abort restore of existing cgroups"], C::CgroupProperty),
    (&["freezer.state", "cgroup.freeze"], C::FreezerMissing),
    // The kernel and the machine.
    (&["vDSO area bounds"], C::KernelTooNew),
    (&["Can't find rt vDSO"], C::KernelTooNew),
    (&["Task had vdso, restorer doesn't"], C::KernelTooNew),
    (&["Kernel reports more capabilities than this CRIU"], C::KernelTooNew),
    (&["march mismatch"], C::OtherMachine),
    (&["CPU", "not match run time"], C::OtherMachine),
    (&["CPU xfeatures has unsupported bits"], C::OtherMachine),
    (&["Tracking memory is not available"], C::MemoryTracking),
    (&["You need to be root"], C::NotRoot),
    (&["No space left on device"], C::DiskFull),
    (&["Disk quota exceeded"], C::DiskFull),
    (&["Cannot allocate memory"], C::OutOfMemory),
    // Images.
    (&["Not supported images version"], C::ImagesVersion),
    (&["Too old image, no longer supported"], C::ImagesVersion),
    (&["Unexpected EOF on (empty-image)"], C::ImagesMissing),
    (&["agic doesn't match for"], C::ImagesDamaged),
    (&["Unexpected EOF"], C::ImagesDamaged),
    (&["Read ", " bytes while ", " expected "], C::ImagesDamaged),
    (&["Failed unpacking object"], C::ImagesDamaged),
    (&["Can't read pages data"], C::ImagesDamaged),
    (&["Reached EOF unexpectedly while reading page"], C::ImagesDamaged),
    (&["Img trimmed"], C::ImagesDamaged),
    (&["Image corrupted"], C::ImagesDamaged),
    (&["Missing required plugin"], C::PluginMissing),
    // Our own side.
    (&["action-scripts.c", "exited with"], C::ActionScript),
    (&["Pre dump script failed"], C::ActionScript),
    (&["Aborting restore due to", "script"], C::ActionScript),
    (&["action scripts failed"], C::ActionScript),
];

/// Warnings and notes that explain an error which says nothing itself.
#[rustfmt::skip]
const HINTS: &[(Pattern, Class)] = &[
    (&["Unable to interrupt task", "No such process"], C::ProcessGone),
    (&["Unable to interrupt task", "Operation not permitted"], C::Traced),
    (&["PR_SET_MM_MAP failed with -9"], C::ExeLink),
];

/// Errors that only say that something else went wrong.
#[rustfmt::skip]
const ECHOES: &[(Pattern, Class)] = &[
    (&["send_fds failed"], C::UnsupportedFile),
    (&["reported by netlink"], C::InterfaceOther),
    (&["Unable to detach from", "No such process"], C::ProcessGone),
    (&["execvp("], C::ToolMissing),
    (&["BUG at"], C::Crashed),
    (&["Segmentation fault"], C::Crashed),
    (&["exited with", "unexpectedly"], C::Crashed),
    (&["killed by", "unexpectedly"], C::Crashed),
];

/// What a stripped line means, and how much that counts.
pub(super) fn classify(line: &str, level: Level, operation: Operation) -> Option<(Weight, Class)> {
    let find = |rules: &[(Pattern, Class)]| {
        rules
            .iter()
            .find(|(pattern, _)| pattern.iter().all(|text| line.contains(text)))
            .map(|(_, class)| *class)
    };
    match level {
        Level::Error => match find(REASONS) {
            // A file that is missing at a dump is an image or a file in /proc.
            Some(C::FileMissing) if operation == Operation::Dump => None,
            Some(class) => Some((Weight::Reason, class)),
            // At a dump, CRIU asks netlink, and makes no interface.
            None if operation == Operation::Dump && line.contains("reported by netlink") => {
                Some((Weight::Echo, C::NetworkUntold))
            }
            None => find(ECHOES).map(|class| (Weight::Echo, class)),
        },
        Level::Warning | Level::Other => find(HINTS).map(|class| (Weight::Hint, class)),
    }
}
