//! `pstree.img` and `core-PID.img`: which processes a checkpoint holds.

use std::path::Path;

use prost::Message;

use super::{Error, Head, decode, read, read_one};

const PSTREE_MAGIC: u32 = 0x5027_3030;
pub(super) const CORE_MAGIC: u32 = 0x5505_3847;

/// `TASK_DEAD` of CRIU's `task_state`.
const TASK_DEAD: u32 = 2;

#[derive(Clone, PartialEq, Message)]
struct PstreeEntry {
    #[prost(uint32, required, tag = "1")]
    pid: u32,
    #[prost(uint32, required, tag = "2")]
    ppid: u32,
    #[prost(uint32, required, tag = "3")]
    pgid: u32,
    #[prost(uint32, required, tag = "4")]
    sid: u32,
    #[prost(uint32, repeated, packed = "false", tag = "5")]
    threads: Vec<u32>,
}

#[derive(Clone, PartialEq, Message)]
struct CoreEntry {
    #[prost(uint32, required, tag = "1")]
    mtype: u32,
    #[prost(message, optional, tag = "3")]
    tc: Option<TaskCoreEntry>,
    #[prost(message, optional, tag = "5")]
    thread_core: Option<ThreadCoreEntry>,
}

#[derive(Clone, PartialEq, Message)]
struct TaskCoreEntry {
    #[prost(uint32, required, tag = "1")]
    task_state: u32,
    // Any bytes that somebody gave to prctl(2).
    #[prost(bytes = "vec", required, tag = "6")]
    comm: Vec<u8>,
}

#[derive(Clone, PartialEq, Message)]
struct ThreadCoreEntry {
    #[prost(uint32, optional, tag = "8")]
    pdeath_sig: Option<u32>,
}

/// A process of a checkpoint. All ids are those inside the container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Process {
    /// Its pid.
    pub pid: u32,
    /// Its parent's pid; 0 for the root.
    pub ppid: u32,
    /// Its process group.
    pub pgid: u32,
    /// Its session.
    pub sid: u32,
    /// The ids of its threads; the first is its pid.
    pub threads: Vec<u32>,
    /// Its name, as in `ps`; empty for a helper that CRIU made up.
    pub comm: String,
    /// The signal that it gets when its parent ends, if any.
    pub pdeath_sig: Option<u32>,
    /// Whether it was a zombie.
    pub zombie: bool,
}

/// The processes of an image directory, the root first.
///
/// # Errors
/// When `pstree.img` or the core image of a process is missing or is no image.
pub(crate) fn process_tree(dir: &Path) -> Result<Vec<Process>, Error> {
    let entries: Vec<PstreeEntry> = read(&dir.join("pstree.img"), Head::Common(PSTREE_MAGIC))?;
    entries.into_iter().map(|entry| process(dir, entry)).collect()
}

/// The pid of the root of the tree, inside the container.
pub(crate) fn root_of_tree(dir: &Path) -> Result<u32, Error> {
    let root: PstreeEntry = read_one(&dir.join("pstree.img"), Head::Common(PSTREE_MAGIC))?;
    Ok(root.pid)
}

/// The machine that the root of the tree ran on, as `uname -m` calls it; none for one that this
/// program does not know.
pub(crate) fn machine_of(dir: &Path) -> Result<Option<&'static str>, Error> {
    let root = root_of_tree(dir)?;
    let core: CoreEntry =
        read_one(&dir.join(format!("core-{root}.img")), Head::Common(CORE_MAGIC))?;
    // `march` of CRIU's core_entry.
    Ok(match core.mtype {
        1 => Some("x86_64"),
        2 => Some("armv7l"),
        3 => Some("aarch64"),
        4 => Some("ppc64le"),
        5 => Some("s390x"),
        6 => Some("mips64"),
        7 => Some("loongarch64"),
        8 => Some("riscv64"),
        _ => None,
    })
}

fn process(dir: &Path, entry: PstreeEntry) -> Result<Process, Error> {
    let path = dir.join(format!("core-{}.img", entry.pid));
    // A session or group leader that had gone already is in the tree without threads and without a
    // core.
    let core: Option<CoreEntry> = match read_one(&path, Head::Common(CORE_MAGIC)) {
        Ok(core) => Some(core),
        Err(e) if e.is_not_found() && entry.threads.is_empty() => None,
        Err(e) => return Err(e),
    };
    let (task, thread) = core.map_or((None, None), |core| (core.tc, core.thread_core));
    Ok(Process {
        pid: entry.pid,
        ppid: entry.ppid,
        pgid: entry.pgid,
        sid: entry.sid,
        threads: entry.threads,
        zombie: task.as_ref().is_some_and(|t| t.task_state == TASK_DEAD),
        comm: task.map(|t| String::from_utf8_lossy(&t.comm).into_owned()).unwrap_or_default(),
        pdeath_sig: thread.and_then(|t| t.pdeath_sig).filter(|signal| *signal != 0),
    })
}

pub(super) fn decode_anything(path: &Path, bytes: &[u8]) {
    let _ = decode::<PstreeEntry>(path, bytes, Head::Common(PSTREE_MAGIC));
    let _ = decode::<CoreEntry>(path, bytes, Head::Common(CORE_MAGIC));
}

#[cfg(test)]
mod tests {
    use super::super::tests::real;
    use super::*;

    #[test]
    fn reads_a_real_tree() {
        let tree = process_tree(&real()).unwrap();
        let shape: Vec<(u32, u32, u32, &str)> =
            tree.iter().map(|p| (p.pid, p.ppid, p.sid, p.comm.as_str())).collect();
        assert_eq!(shape, [(37, 0, 37, "sh"), (39, 37, 37, "sleep"), (40, 37, 37, "sleep")]);
        assert!(tree.iter().all(|p| p.threads == [p.pid] && p.pdeath_sig.is_none() && !p.zombie));
    }

    #[test]
    fn a_missing_core_is_told() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::copy(real().join("pstree.img"), dir.path().join("pstree.img")).unwrap();
        let error = process_tree(dir.path()).unwrap_err();
        assert!(error.is_not_found() && error.to_string().ends_with("core-37.img"), "{error}");
        std::fs::copy(real().join("pstree.img"), dir.path().join("core-37.img")).unwrap();
        assert!(matches!(
            process_tree(dir.path()),
            Err(Error::NotAnImage { magic: PSTREE_MAGIC, .. })
        ));
    }
}
