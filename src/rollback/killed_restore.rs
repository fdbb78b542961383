//! What a CRIU that was ended in a restore has left outside of its namespaces: ghosts in the
//! container's root, which are deleted files with a name for a moment, and the directory in /tmp on
//! which it builds the mounts.
//!
//! Its log names them. The names of files come from the container, so nothing is taken from them
//! but a place in its root.

use std::fs::{self, File};
use std::io::{self, BufRead, BufReader};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::resources::rootfs::Root;
use crate::sys::in_root::Below;

/// How CRIU (4.2, files-reg.c, `open_remap_ghost`) tells of a ghost: its number, then the file's
/// name.
const GHOST: &str = "Opening ghost file ";
/// The directories that it makes in /tmp (mount.c, cgroup.c), before six letters of mkdtemp(3).
const TEMPORARY: [&str; 3] = ["/tmp/.criu.mntns.", "/tmp/.criu.cgyard.", "/tmp/.criu.cgmounts."];
/// What mkdtemp(3) puts in place of the six X.
const LETTERS: usize = 6;

/// Something that a log tells of.
#[derive(Debug, PartialEq, Eq)]
enum Made {
    /// A name in the root.
    Ghost(PathBuf),
    /// A directory.
    Temporary(PathBuf),
}

/// Removes what is still there, and tells what that was.
pub(super) fn clean(root: &Root, log: &Path) -> Result<Vec<String>> {
    let file = match File::open(log) {
        Ok(file) => file,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(e) => return Err(e).with_context(|| format!("open {}", log.display())),
    };
    let mut found = Vec::new();
    for line in BufReader::new(file).split(b'\n') {
        let line = line.with_context(|| format!("read {}", log.display()))?;
        if let Some(made) = made(&String::from_utf8_lossy(&line)).filter(|m| !found.contains(m)) {
            found.push(made);
        }
    }
    if found.is_empty() {
        return Ok(Vec::new());
    }
    let held = root.open()?;
    let root = Below::open(held.path()).context("open the root")?;
    let mut removed = Vec::new();
    for made in found {
        match made {
            Made::Ghost(name) => {
                if root
                    .unlink(&name)
                    .with_context(|| format!("remove {} from the root", name.display()))?
                {
                    removed.push(format!("{} removed from the root", name.display()));
                }
            }
            // Not with what is in it: CRIU's mounts are gone, so it is empty.
            Made::Temporary(dir) => match fs::remove_dir(&dir) {
                Ok(()) => removed.push(format!("{} removed", dir.display())),
                Err(e) if e.kind() == io::ErrorKind::NotFound => {}
                Err(e) => log::warn!("remove {}: {e}", dir.display()),
            },
        }
    }
    Ok(removed)
}

fn made(line: &str) -> Option<Made> {
    if let Some((_, rest)) = line.split_once(GHOST) {
        let (number, name) = rest.split_once(" for ")?;
        let number = number
            .strip_prefix("0x")
            .filter(|n| !n.is_empty() && n.bytes().all(|b| b.is_ascii_hexdigit()))?;
        return Some(Made::Ghost(PathBuf::from(format!("{name}.cr.{number}.ghost"))));
    }
    TEMPORARY.iter().find_map(|prefix| {
        let at = line.find(prefix)?;
        let letters = line.get(at + prefix.len()..at + prefix.len() + LETTERS)?;
        let path = || PathBuf::from(format!("{prefix}{letters}"));
        letters.bytes().all(|b| b.is_ascii_alphanumeric()).then(|| Made::Temporary(path()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_a_real_log_are_understood() {
        let ghost = "(00.002815) Opening ghost file 0x1a for var/deleted";
        assert_eq!(made(ghost), Some(Made::Ghost("var/deleted.cr.1a.ghost".into())));
        let mount =
            "(00.012058) mnt: \t\tWill mount 50 @ /tmp/.criu.mntns.RaK0nf/mnt-0000000050 /proc";
        assert_eq!(made(mount), Some(Made::Temporary("/tmp/.criu.mntns.RaK0nf".into())));
        assert_eq!(made("(00.1) mnt: /tmp/.criu.mntns.../etc"), None);
        assert_eq!(made("(00.1) Opening ghost file x for y"), None);
    }

    #[test]
    fn only_what_the_log_names_goes() {
        let top = tempfile::tempdir().unwrap();
        let (root, log) = (top.path().join("root"), top.path().join("restore.log"));
        fs::create_dir_all(root.join("var")).unwrap();
        let its = Root::Directory { path: root.clone() };
        for name in ["deleted", "deleted.cr.1.ghost", "other.cr.1.ghost"] {
            fs::write(root.join("var").join(name), "").unwrap();
        }
        assert_eq!(clean(&its, &log).unwrap(), [""; 0], "no log");
        let line = "(00.002815) Opening ghost file 0x1 for var/deleted\n";
        fs::write(&log, format!("{line}{line}")).unwrap();
        assert_eq!(clean(&its, &log).unwrap(), ["var/deleted.cr.1.ghost removed from the root"]);
        assert!(root.join("var/deleted").exists() && root.join("var/other.cr.1.ghost").exists());
        assert_eq!(clean(&its, &log).unwrap(), [""; 0]);
    }
}
