//! Differences that come from the rehearsal itself, and not from a restore: a reviewed list. What
//! is on it is compared by the trials after a real restore.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use crate::inspect::{Difference, Subject};

/// Where a state differs in every twin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Where {
    /// On mounts that show something of the host's, over which there is a cover.
    Covered,
    /// Anywhere, where the container has what keeps packets from it while it stands still.
    Locked,
    /// On connections, which are in repair mode while CRIU dumps them.
    Repaired,
    /// On timers, which run on until the moment at which each side is read.
    Running,
    /// On files of a tmpfs, which cannot be sealed: over one, an overlay has no seals at all.
    Unsealable,
    /// On files without a name, to which CRIU has given one that the twin has taken away above its
    /// cover.
    Renamed,
}

/// How the names of CRIU's tables of nftables begin (criu/net.c), with which it keeps packets away.
const LOCK: &str = "CRIU-";

/// The seals of a file that can have none (`F_SEAL_SEAL`, mm/shmem.c).
const UNSEALABLE: &str = "0x1";

/// What SO_REUSEADDR says of a socket in repair mode (`SK_FORCE_REUSE`, include/net/sock.h).
const FORCED: &str = "2";

/// The states, each with the reason.
const EXPECTED: &[(&str, Where, &str)] = &[
    ("mount.root", Where::Covered, "an overlay begins at its own root"),
    ("mount.type", Where::Covered, "it is an overlay, or another terminal"),
    ("mount.source", Where::Covered, "it is an overlay, or another terminal"),
    ("mount.options", Where::Covered, "an overlay has its layers"),
    ("mount.file-system", Where::Covered, "each overlay is a file system of its own"),
    ("mount.master", Where::Covered, "the host mounts nothing below a cover"),
    ("mount.shared", Where::Covered, "peers are covered each for itself"),
    (
        "socket.so-reuseaddr",
        Where::Repaired,
        "the kernel sets it for a socket in repair mode (tcp.c)",
    ),
    (
        "descriptor.file",
        Where::Renamed,
        "CRIU's second name of a deleted file stays until the dump ends",
    ),
    ("file.seals", Where::Unsealable, "the twin's file is on an overlay"),
    (
        "timerfd.remaining",
        Where::Running,
        "it is due in between; a restore sets it to its time after CRIU",
    ),
    ("timerfd.armed", Where::Running, "one that expires once may have expired on one side"),
    ("link.xdp", Where::Locked, "the container's gates are closed while it stands still"),
    (
        "nftables.table",
        Where::Locked,
        "CRIU's own rules keep packets from it while it stands still",
    ),
    (
        "nftables.chain",
        Where::Locked,
        "CRIU's own rules keep packets from it while it stands still",
    ),
    ("nftables.rule", Where::Locked, "CRIU's own rules keep packets from it while it stands still"),
];

/// Without those. `points` are where something of the host's is mounted.
pub(crate) fn without(
    mut differences: Vec<Difference>,
    points: &BTreeSet<PathBuf>,
) -> Vec<Difference> {
    differences.retain(|difference| !is_expected(difference, points));
    differences
}

fn is_expected(difference: &Difference, points: &BTreeSet<PathBuf>) -> bool {
    let rows = EXPECTED.iter().filter(|(name, ..)| *name == difference.state.name);
    rows.into_iter().any(|(name, place, _)| match (place, &difference.subject) {
        (Where::Covered, Subject::Mount { path, .. }) => points.contains(Path::new(path)),
        // The twin is reached by nothing, and so open.
        (Where::Locked, _) if *name == "link.xdp" => difference.after.as_deref() == Some("00"),
        (Where::Locked, Subject::Network { part, .. }) => {
            part.contains(LOCK) && difference.after.is_none()
        }
        (Where::Renamed, _) => {
            difference.before.as_ref().map(|before| format!("{before} deleted")) == difference.after
        }
        (Where::Unsealable, _) => {
            difference.before.as_deref() == Some(UNSEALABLE) && difference.after.is_none()
        }
        (Where::Running, _) => true,
        (Where::Repaired, _) => difference.before.as_deref() == Some(FORCED),
        _ => false,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::inspect::state;

    #[test]
    fn each_is_a_state_and_has_a_reason() {
        for (name, _, reason) in EXPECTED {
            assert!(state::by_name(name).is_some() && !reason.is_empty(), "{name}");
        }
    }

    #[test]
    fn only_a_file_that_cannot_be_sealed_may_have_no_seals() {
        let of = |before: &str, after: Option<&str>| Difference {
            subject: Subject::Descriptor { pid: 1, fd: 3 },
            state: state::by_name("file.seals").unwrap(),
            before: Some(before.to_owned()),
            after: after.map(str::to_owned),
        };
        let all = vec![of("0x1", None), of("0xf", None), of("0x1", Some("0x0"))];
        assert_eq!(without(all, &BTreeSet::new()).len(), 2);
    }

    #[test]
    fn only_what_is_covered_may_be_another_mount() {
        let points = BTreeSet::from([PathBuf::from("/mnt")]);
        let of = |path: &str, name: &str| Difference {
            subject: Subject::Mount { pid: 1, path: path.to_owned(), layer: 0 },
            state: state::by_name(name).unwrap(),
            before: Some("ext4".to_owned()),
            after: Some("overlay".to_owned()),
        };
        let all =
            vec![of("/mnt", "mount.type"), of("/run", "mount.type"), of("/mnt", "mount.nosuid")];
        assert_eq!(without(all, &points).len(), 2);
    }
}
