//! What CRIU is at, told by the lines that it writes when it begins something.

use std::fmt;

use super::{Level, level, strip_prefixes};

/// What CRIU is at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Phase {
    /// Dump and restore: looks at the kernel, the options and the images.
    Preparing,
    /// Dump: stops the processes and finds all of them.
    Freezing,
    /// Dump: the network lock.
    LockingNetwork,
    /// Dump and restore: which mounts there are.
    CollectingMounts,
    /// Dump: the network namespaces and their sockets.
    CollectingNetwork,
    /// Dump: maps, signals, ids of a process.
    DumpingProcesses,
    /// Dump: the open files of a process.
    DumpingFiles,
    /// Dump: the memory of a process.
    DumpingMemory,
    /// Dump: mounts, network, IPC and the like.
    DumpingNamespaces,
    /// Dump: the cgroups.
    DumpingCgroups,
    /// Dump: the images are complete.
    FinishingDump,
    /// Dump: the processes run again or are ended.
    ReleasingProcesses,
    /// Restore: the cgroups.
    RestoringCgroups,
    /// Restore: makes the processes.
    ForkingTasks,
    /// Restore: makes and fills the namespaces.
    RestoringNamespaces,
    /// Restore: interfaces, addresses, routes.
    RestoringNetwork,
    /// Restore: the mounts.
    RestoringMounts,
    /// Restore: the open files and sockets.
    RestoringFiles,
    /// Restore: the memory.
    RestoringMemory,
    /// Restore: all is there, the processes are still stopped.
    FinishingRestore,
    /// Dump (after a failure, or when the processes go on) and restore: the network lock.
    UnlockingNetwork,
    /// Restore: the processes run.
    Resuming,
}

impl Phase {
    /// What CRIU is at, to be read after "CRIU failed while …".
    pub fn in_words(self) -> &'static str {
        match self {
            Phase::Preparing => "preparing",
            Phase::Freezing => "freezing the processes",
            Phase::LockingNetwork => "locking the network",
            Phase::CollectingMounts => "looking at the mounts",
            Phase::CollectingNetwork => "looking at the network and its sockets",
            Phase::DumpingProcesses => "dumping the processes",
            Phase::DumpingFiles => "dumping the open files",
            Phase::DumpingMemory => "dumping the memory",
            Phase::DumpingNamespaces => "dumping the namespaces",
            Phase::DumpingCgroups => "dumping the cgroups",
            Phase::FinishingDump => "finishing the dump",
            Phase::ReleasingProcesses => "letting go of the processes",
            Phase::RestoringCgroups => "restoring the cgroups",
            Phase::ForkingTasks => "making the processes",
            Phase::RestoringNamespaces => "restoring the namespaces",
            Phase::RestoringNetwork => "restoring the network",
            Phase::RestoringMounts => "restoring the mounts",
            Phase::RestoringFiles => "restoring the open files",
            Phase::RestoringMemory => "restoring the memory",
            Phase::FinishingRestore => "finishing the restore",
            Phase::UnlockingNetwork => "unlocking the network",
            Phase::Resuming => "resuming the processes",
        }
    }
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.in_words())
    }
}

/// How a line begins that opens a phase. The texts are those of CRIU 3.17 to 4.2.
const OPENINGS: &[(&str, Phase)] = &[
    // Dump.
    ("Dumping processes (pid:", Phase::Preparing),
    ("Pre-dumping processes (pid:", Phase::Preparing),
    ("Running pre-dump scripts", Phase::Preparing),
    ("Preparing image inventory", Phase::Preparing),
    ("Detected cgroup V", Phase::Freezing),
    ("freezing processes:", Phase::Freezing),
    ("Seized task", Phase::Freezing),
    ("Running network-lock scripts", Phase::LockingNetwork),
    ("net: Lock network", Phase::LockingNetwork),
    ("mnt: Building mountpoints tree", Phase::CollectingMounts),
    ("net: Collecting netns", Phase::CollectingNetwork),
    ("Dumping task (pid:", Phase::DumpingProcesses),
    ("Pre-dumping task (pid:", Phase::DumpingProcesses),
    ("Dumping core (pid:", Phase::DumpingProcesses),
    ("Dumping opened files (pid:", Phase::DumpingFiles),
    ("Dumping pages (type:", Phase::DumpingMemory),
    ("Pre-dumping tasks' memory", Phase::DumpingMemory),
    ("Dumping pstree (pid:", Phase::DumpingProcesses),
    ("Running post-dump scripts", Phase::FinishingDump),
    ("Unfreezing tasks into", Phase::ReleasingProcesses),
    // Restore.
    ("Reading image tree", Phase::Preparing),
    ("Running pre-restore scripts", Phase::Preparing),
    ("cg: Preparing cgroups yard", Phase::RestoringCgroups),
    ("Forking task with", Phase::ForkingTasks),
    ("Restoring children in", Phase::ForkingTasks),
    ("Wait until namespaces are created", Phase::RestoringNamespaces),
    ("Running setup-namespaces scripts", Phase::RestoringNamespaces),
    ("Restoring namespaces", Phase::RestoringNamespaces),
    ("net: Try to restore a link", Phase::RestoringNetwork),
    ("net: Restoring link", Phase::RestoringNetwork),
    ("net: \tRunning ip ", Phase::RestoringNetwork),
    ("mnt: Restoring mount namespace", Phase::RestoringMounts),
    ("Opening fdinfo-s", Phase::RestoringFiles),
    ("Restoring resources", Phase::RestoringFiles),
    ("Restore via sigreturn", Phase::RestoringMemory),
    ("Running post-restore scripts", Phase::FinishingRestore),
    ("Running pre-resume scripts", Phase::Resuming),
    ("Running post-resume scripts", Phase::Resuming),
    // Both.
    ("Running network-unlock scripts", Phase::UnlockingNetwork),
    ("net: Unlock network", Phase::UnlockingNetwork),
];

/// The phase that this line opens; `None` when CRIU goes on with what it is at.
///
/// Several processes write the log of a restore, so phases may alternate near their borders.
pub fn phase_of_line(line: &str) -> Option<Phase> {
    let stripped = strip_prefixes(line);
    if level(stripped) != Level::Other {
        return None;
    }
    if stripped.starts_with("Dumping ") && stripped.ends_with("'s namespaces") {
        return Some(Phase::DumpingNamespaces);
    }
    // Other lines with `cg: Dumping` come while the processes are frozen.
    if stripped.starts_with("cg: Dumping ") && stripped.ends_with(" sets") {
        return Some(Phase::DumpingCgroups);
    }
    // Both operations call ip(8): `ip route save`, `ip route restore`.
    if stripped.starts_with("net: \tRunning ip ") && stripped.contains(" save") {
        return Some(Phase::CollectingNetwork);
    }
    OPENINGS.iter().find(|(text, _)| stripped.starts_with(text)).map(|(_, phase)| *phase)
}
