//! Every name in and beside a checkpoint's directory, and what may be removed there.
//!
//! ```text
//! DIR/*.img, *.tar.gz, stats-*, *.log, irmap-cache   CRIU's
//! DIR/parent                   the link to the images that these build on
//! DIR/precopy-1, …             copies of its memory that were made before it stood still
//! DIR/lxc-cr.toml              the record
//! DIR/lxc-cr.resume            the mark of a container that is to be resumed
//! DIR/lxc-cr.history          what happened to it since
//! DIR/lxc-cr.restarted         the mark of a checkpoint that was restored
//! DIR/lxc-cr-blocks-*         checksums of the blocks of memory images
//! DIR/lxc-cr-ports.toml        bridge ports of a dump by another program with our script
//! DIR/.lxc-cr-*                a file of ours that is being written
//! DIR.partial                  a checkpoint while it is written
//! DIR.failed.log               CRIU's log of a dump that failed
//! ```

use std::path::{Path, PathBuf};
use std::{fs, io};

use anyhow::{Context, Result};

use crate::criu::options::{DUMP_LOG, PRE_DUMP_LOG};
use crate::sys::files;

/// The record ([`Record`](crate::store::record::Record)).
pub(crate) const RECORD: &str = "lxc-cr.toml";
/// The mark of a container that is to be resumed.
pub(crate) const RESUME_MARK: &str = "lxc-cr.resume";
/// The mark of a checkpoint that was restored.
pub(crate) const RESTARTED: &str = "lxc-cr.restarted";
/// Bridge ports of a dump that another program made with our action script.
pub(crate) const PORTS: &str = "lxc-cr-ports.toml";
/// What happened to the checkpoint since ([`History`](crate::store::history::History)).
pub(crate) const HISTORY: &str = "lxc-cr.history";
/// How the names of files with checksums of blocks begin
/// ([`Blocks`](crate::store::blocks::Blocks)).
const BLOCKS: &str = "lxc-cr-blocks-";
/// The link by which CRIU finds the images that others build on.
pub(crate) const PARENT: &str = "parent";
/// How the names of directories begin that hold copies of a checkpoint's memory.
const ROUND: &str = "precopy-";
/// The image that every checkpoint has.
pub(crate) const INVENTORY: &str = "inventory.img";
/// How the name of a file of ours begins while it is written.
pub(crate) const SCRAP: &str = ".lxc-cr-";
/// The suffix of a directory in which images are written until they are complete.
pub(crate) const PARTIAL: &str = ".partial";
/// The suffix under which the log of a failed dump is kept.
pub(crate) const FAILED_LOG: &str = ".failed.log";

/// Whether a file of this name is one of CRIU's images.
pub(crate) fn is_image(name: &Path) -> bool {
    name.to_str().is_some_and(|n| n.ends_with(".img") || n.ends_with(".tar.gz"))
}

/// The file beside a memory image with the checksums of its blocks: `lxc-cr-blocks-1` for
/// `pages-1.img`.
pub(crate) fn blocks_of(image: &str) -> Option<String> {
    let id = image.strip_prefix("pages-")?.strip_suffix(".img")?;
    Some(format!("{BLOCKS}{id}"))
}

/// The directory, in a checkpoint's, of a copy of its memory: the first has number 1.
pub(crate) fn round(number: u32) -> String {
    format!("{ROUND}{number}")
}

/// Whether a directory of this name in a checkpoint's holds a copy of its memory.
pub(crate) fn is_round(name: &str) -> bool {
    let number = name.strip_prefix(ROUND).and_then(|digits| digits.parse::<u32>().ok());
    number.is_some_and(|number| number > 0 && round(number) == name)
}

/// Whether CRIU or lxc-cr writes a file of this name into a checkpoint's directory.
pub(crate) fn belongs(name: &Path) -> bool {
    let text = name.to_string_lossy();
    is_image(name)
        || text.ends_with(".log")
        || text.starts_with("stats-")
        || text == "irmap-cache"
        || [RECORD, RESUME_MARK, RESTARTED, PORTS, HISTORY, PARENT].contains(&text.as_ref())
        || is_round(&text)
        || text.starts_with(SCRAP)
        || text.starts_with(BLOCKS)
}

/// Whether a directory holds images or a record. A half-written one may hold nothing yet but its
/// name.
pub(crate) fn is_checkpoint(dir: &Path) -> bool {
    let has = |name: &str| fs::symlink_metadata(dir.join(name)).is_ok();
    has(INVENTORY) || has("pstree.img") || has(RECORD) || is_partial(dir)
}

/// Whether a checkpoint is still being written there, or was when a command died.
pub(crate) fn is_partial(dir: &Path) -> bool {
    let named = dir.file_name().and_then(|n| n.to_str()).is_some_and(|n| n.ends_with(PARTIAL));
    named && files::names(dir).is_ok_and(|names| names.iter().all(|n| belongs(n)))
}

/// Puts CRIU's log of a half-written checkpoint beside it, where the next one finds it in nobody's
/// way.
pub(crate) fn keep_log(dir: &Path) -> Result<Option<PathBuf>> {
    // A complete checkpoint that was replaced is no failure.
    let Some(name) = dir.as_os_str().to_str().and_then(|n| n.strip_suffix(PARTIAL)) else {
        return Ok(None);
    };
    if dir.join(RECORD).exists() {
        return Ok(None);
    }
    let kept = PathBuf::from(format!("{name}{FAILED_LOG}"));
    for log in [DUMP_LOG, PRE_DUMP_LOG] {
        match fs::rename(dir.join(log), &kept) {
            Ok(()) => return Ok(Some(kept)),
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            Err(e) => {
                return Err(e).with_context(|| {
                    format!("keep {} as {}", dir.join(log).display(), kept.display())
                });
            }
        }
    }
    Ok(None)
}

/// Removes a half-written image directory. Only files that CRIU and we write there are deleted; a
/// directory that holds anything else stays, and is named.
pub(crate) fn remove_images(dir: &Path) -> Result<()> {
    match fs::symlink_metadata(dir) {
        Ok(_) => {}
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(e) => return Err(e).with_context(|| format!("stat {}", dir.display())),
    }
    let (own, rounds) = content(dir)?;
    let mut all = Vec::new();
    for round in rounds {
        let (files, deeper) = content(&round)?;
        if let Some(other) = deeper.first() {
            return Err(does_not_belong(&round, other));
        }
        all.push((round, files));
    }
    all.push((dir.to_owned(), own));
    for (dir, files) in all {
        for path in files {
            fs::remove_file(&path).with_context(|| format!("remove {}", path.display()))?;
        }
        fs::remove_dir(&dir).with_context(|| format!("remove {}", dir.display()))?;
    }
    Ok(())
}

/// The files in a directory of images, and the directories with copies of memory.
fn content(dir: &Path) -> Result<(Vec<PathBuf>, Vec<PathBuf>)> {
    files::open_private_dir(dir)?;
    let (mut own, mut rounds) = (Vec::new(), Vec::new());
    for name in files::names(dir)? {
        let path = dir.join(&name);
        let meta =
            fs::symlink_metadata(&path).with_context(|| format!("stat {}", path.display()))?;
        match meta.is_dir() {
            _ if !belongs(&name) => return Err(does_not_belong(dir, &path)),
            true => rounds.push(path),
            false => own.push(path),
        }
    }
    Ok((own, rounds))
}

fn does_not_belong(dir: &Path, other: &Path) -> anyhow::Error {
    let name = other.file_name().unwrap_or_default().to_string_lossy();
    anyhow::anyhow!(
        "{} holds '{name}', which does not belong to a checkpoint: nothing was removed",
        dir.display()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_lxcs_tool_writes_with_our_action_script_belongs() {
        for name in [
            "inventory.img",
            "pages-1.img",
            "tmpfs-dev-63.tar.gz.img",
            "dump.log",
            PORTS,
            RECORD,
            "parent",
        ] {
            assert!(belongs(Path::new(name)), "{name}");
        }
        for name in ["disk.qcow2", "lxc-cr-ports.toml.old", "vzdump-lxc-101.tar.zst"] {
            assert!(!belongs(Path::new(name)), "{name}");
        }
    }

    #[test]
    fn copies_of_memory_go_with_their_checkpoint() {
        use std::os::unix::fs::DirBuilderExt;
        let top = tempfile::tempdir().unwrap();
        let dir = top.path().join("c");
        let make = |path: &Path| fs::DirBuilder::new().mode(0o700).create(path).unwrap();
        make(&dir);
        fs::write(dir.join(INVENTORY), "x").unwrap();
        for number in [1, 2] {
            make(&dir.join(round(number)));
            fs::write(dir.join(round(number)).join("pages-1.img"), "x").unwrap();
        }
        fs::write(dir.join(round(2)).join("letter"), "x").unwrap();
        let refused = remove_images(&dir).unwrap_err().to_string();
        assert!(refused.contains("precopy-2 holds 'letter'"), "{refused}");
        assert!(dir.join(round(1)).join("pages-1.img").exists());
        fs::remove_file(dir.join(round(2)).join("letter")).unwrap();
        remove_images(&dir).unwrap();
        assert!(!dir.exists());
        for name in ["precopy-", "precopy-0", "precopy-01", "precopy-1.img", "precopy-1/.."] {
            assert!(!is_round(name), "{name}");
        }
    }
}
