//! Every name in and beside a checkpoint's directory, and what may be removed there.
//!
//! ```text
//! DIR/*.img, *.tar.gz, stats-*, *.log, irmap-cache   CRIU's
//! DIR/parent                   the link to the images that these build on
//! DIR/lxc-cr.toml              the record
//! DIR/lxc-cr.resume            the mark of a container that is to be resumed
//! DIR/lxc-cr.history          what happened to it since
//! DIR/lxc-cr.restarted         the mark of a checkpoint that was restored
//! DIR/lxc-cr-blocks-*         checksums of the blocks of memory images
//! DIR/lxc-cr-ports.toml        bridge ports of a dump that another program made with our action script
//! DIR/.lxc-cr-*                a file of ours that is being written
//! DIR.partial                  a checkpoint while it is written
//! DIR.failed.log               CRIU's log of a dump that failed
//! ```

use std::path::{Path, PathBuf};
use std::{fs, io};

use anyhow::{Context, Result, bail};

use crate::criu::options::{DUMP_LOG, PRE_DUMP_LOG};
use crate::sys::files;

/// The record ([`Record`](crate::store::record::Record)).
pub const RECORD: &str = "lxc-cr.toml";
/// The mark of a container that is to be resumed.
pub const RESUME_MARK: &str = "lxc-cr.resume";
/// The mark of a checkpoint that was restored.
pub const RESTARTED: &str = "lxc-cr.restarted";
/// Bridge ports of a dump that another program made with our action script.
pub const PORTS: &str = "lxc-cr-ports.toml";
/// What happened to the checkpoint since ([`History`](crate::store::history::History)).
pub const HISTORY: &str = "lxc-cr.history";
/// How the names of files with checksums of blocks begin ([`Blocks`](crate::store::blocks::Blocks)).
const BLOCKS: &str = "lxc-cr-blocks-";
/// The link by which CRIU finds the images that others build on.
pub const PARENT: &str = "parent";
/// The image that every checkpoint has.
pub const INVENTORY: &str = "inventory.img";
/// How the name of a file of ours begins while it is written.
pub const SCRAP: &str = ".lxc-cr-";
/// The suffix of a directory in which images are written until they are complete.
pub const PARTIAL: &str = ".partial";
/// The suffix under which the log of a failed dump is kept.
pub const FAILED_LOG: &str = ".failed.log";

/// Whether a file of this name is one of CRIU's images.
pub fn is_image(name: &Path) -> bool {
    name.to_str().is_some_and(|n| n.ends_with(".img") || n.ends_with(".tar.gz"))
}

/// The file beside a memory image with the checksums of its blocks: `lxc-cr-blocks-1` for `pages-1.img`.
pub fn blocks_of(image: &str) -> Option<String> {
    let id = image.strip_prefix("pages-")?.strip_suffix(".img")?;
    Some(format!("{BLOCKS}{id}"))
}

/// Whether CRIU or lxc-cr writes a file of this name into a checkpoint's directory.
pub fn belongs(name: &Path) -> bool {
    let text = name.to_string_lossy();
    is_image(name)
        || text.ends_with(".log")
        || text.starts_with("stats-")
        || text == "irmap-cache"
        || [RECORD, RESUME_MARK, RESTARTED, PORTS, HISTORY, PARENT].contains(&text.as_ref())
        || text.starts_with(SCRAP)
        || text.starts_with(BLOCKS)
}

/// Whether a directory holds images or a record. A half-written one may hold nothing yet but its name.
pub fn is_checkpoint(dir: &Path) -> bool {
    let has = |name: &str| fs::symlink_metadata(dir.join(name)).is_ok();
    has(INVENTORY) || has("pstree.img") || has(RECORD) || is_partial(dir)
}

/// Whether a checkpoint is still being written there, or was when a command died.
pub fn is_partial(dir: &Path) -> bool {
    let named = dir.file_name().and_then(|n| n.to_str()).is_some_and(|n| n.ends_with(PARTIAL));
    named && files::names(dir).is_ok_and(|names| names.iter().all(|n| belongs(n)))
}

/// Puts CRIU's log of a half-written checkpoint beside it, where the next one finds it in nobody's way.
pub fn keep_log(dir: &Path) -> Result<Option<PathBuf>> {
    // A complete checkpoint that was replaced is no failure.
    let Some(name) = dir.as_os_str().to_str().and_then(|n| n.strip_suffix(PARTIAL)) else { return Ok(None) };
    if dir.join(RECORD).exists() {
        return Ok(None);
    }
    let kept = PathBuf::from(format!("{name}{FAILED_LOG}"));
    for log in [DUMP_LOG, PRE_DUMP_LOG] {
        match fs::rename(dir.join(log), &kept) {
            Ok(()) => return Ok(Some(kept)),
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            Err(e) => return Err(e).with_context(|| format!("keep {} as {}", dir.join(log).display(), kept.display())),
        }
    }
    Ok(None)
}

/// Removes a half-written image directory. Only files that CRIU and we write there are deleted; a directory that
/// holds anything else stays, and is named.
pub fn remove_images(dir: &Path) -> Result<()> {
    let names = match fs::symlink_metadata(dir) {
        Ok(_) => {
            files::open_private_dir(dir)?;
            files::names(dir)?
        }
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(e) => return Err(e).with_context(|| format!("look at {}", dir.display())),
    };
    if let Some(other) = names.iter().find(|n| !belongs(n)) {
        bail!(
            "{} holds '{}', which does not belong to a checkpoint: nothing was removed",
            dir.display(),
            other.display()
        );
    }
    for name in names {
        let path = dir.join(&name);
        fs::remove_file(&path).with_context(|| format!("remove {}", path.display()))?;
    }
    fs::remove_dir(dir).with_context(|| format!("remove {}", dir.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_lxcs_tool_writes_with_our_action_script_belongs() {
        for name in ["inventory.img", "pages-1.img", "tmpfs-dev-63.tar.gz.img", "dump.log", PORTS, RECORD, "parent"] {
            assert!(belongs(Path::new(name)), "{name}");
        }
        for name in ["disk.qcow2", "lxc-cr-ports.toml.old", "vzdump-lxc-101.tar.zst"] {
            assert!(!belongs(Path::new(name)), "{name}");
        }
    }
}
