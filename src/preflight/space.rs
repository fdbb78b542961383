//! Whether the checkpoint will find room.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use nix::sys::statfs::{EXT4_SUPER_MAGIC, FsType, TMPFS_MAGIC, XFS_SUPER_MAGIC, statfs};

use super::finding::{Finding, Place};
use super::task::Tasks;
use crate::report::bytes;

/// The kernel counts a process's memory in batches; what may be missing or too much, for each
/// process.
const COUNT_ERROR: u64 = 1 << 20;

/// Where the checkpoint is to go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Target {
    /// The directory, or the one above it that exists.
    pub dir: PathBuf,
    /// The bytes that root can still write there.
    pub free: u64,
    /// Whether a byte of memory takes a byte there for sure: the file system does not compress.
    pub plain: bool,
    /// Less may be written than there is: the checkpoint builds on another one.
    pub incremental: bool,
}

impl Target {
    /// Looks at the place for a checkpoint, which need not exist yet.
    pub(crate) fn read(images: &Path, incremental: bool) -> Result<Target> {
        let dir = images.ancestors().find(|dir| dir.is_dir()).unwrap_or(Path::new("/"));
        let stat =
            statfs(dir).with_context(|| format!("ask for the space on {}", dir.display()))?;
        let plain: [FsType; 3] = [EXT4_SUPER_MAGIC, XFS_SUPER_MAGIC, TMPFS_MAGIC];
        let block = u64::try_from(stat.block_size()).unwrap_or_default();
        Ok(Target {
            dir: dir.to_owned(),
            free: stat.blocks_free().saturating_mul(block),
            plain: plain.contains(&stat.filesystem_type()),
            incremental,
        })
    }
}

/// Judges the room; pure.
pub(crate) fn judge(tasks: &Tasks, target: &Target) -> Option<Finding> {
    let private: u64 = tasks.tree.iter().map(|t| t.private).sum();
    // Each process counts what it shares; it is written once.
    let shared = tasks.tree.iter().map(|t| t.shared).max().unwrap_or_default();
    let error = COUNT_ERROR * tasks.tree.len() as u64 + private / 20;
    if private + shared <= target.free {
        return None;
    }
    let certain =
        target.plain && !target.incremental && private.saturating_sub(error) > target.free;
    let what = format!("the container's memory takes {}", bytes(private + shared));
    let why = format!("there is room for {} in {}", bytes(target.free), target.dir.display());
    let finding = if certain { Finding::blocker(what, why) } else { Finding::warning(what, why) };
    Some(
        finding
            .at(Place { file: Some(target.dir.as_path().into()), ..Place::default() })
            .remedy("make room there, or put the checkpoint somewhere else: -D DIR"),
    )
}

#[cfg(test)]
mod tests {
    use super::super::finding::Severity;
    use super::super::task::{Task, tests::task};
    use super::*;

    fn judged(private: u64, shared: u64, target: Target) -> Option<Severity> {
        let one = |pid| Task { private: private << 20, shared: shared << 20, ..task(pid, "x") };
        judge(&Tasks { tree: vec![one(101), one(102)], ..Tasks::default() }, &target)
            .map(|f| f.severity)
    }

    fn target(free: u64) -> Target {
        Target { dir: "/".into(), free: free << 20, plain: true, incremental: false }
    }

    #[test]
    fn only_what_cannot_fit_blocks() {
        assert_eq!(judged(100, 0, target(200)), None);
        assert_eq!(judged(100, 0, target(100)), Some(Severity::Blocker));
        assert_eq!(
            judged(100, 0, target(195)),
            Some(Severity::Warning),
            "within the error of the count"
        );
        assert_eq!(
            judged(10, 100, target(100)),
            Some(Severity::Warning),
            "shared memory is only an upper bound"
        );
        assert_eq!(judged(10, 100, target(130)), None, "it is written once");
        assert_eq!(judged(100, 0, Target { plain: false, ..target(100) }), Some(Severity::Warning));
        assert_eq!(
            judged(100, 0, Target { incremental: true, ..target(100) }),
            Some(Severity::Warning)
        );
    }

    #[test]
    fn a_place_that_is_not_there_yet_is_measured_above_it() {
        let dir = tempfile::tempdir().unwrap();
        let target = Target::read(&dir.path().join("a/b"), false).unwrap();
        assert_eq!(target.dir, dir.path());
        assert!(target.free > 0);
    }
}
