//! Whether somebody else than root could put another thing in place of a path.
//!
//! What root opens, writes, renames and hands to CRIU by its path is only as good as every directory on the way
//! there. So the way is walked once, link by link, before anything is done; a way on which nobody but root can change
//! a name needs no second look.

use std::collections::VecDeque;
use std::ffi::OsString;
use std::fs::{self, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Component, Path, PathBuf};

/// As many links as the kernel follows (MAXSYMLINKS).
const MAX_LINKS: usize = 40;
/// In a directory with this bit, as `/tmp` has it, only the owner of a name can change it.
const STICKY: u32 = 0o1000;

/// Why a path is not trusted.
#[derive(Debug, thiserror::Error)]
pub enum Untrusted {
    /// A directory on the way belongs to another user.
    #[error("{} could be replaced: {} belongs to user {uid}", path.display(), at.display())]
    Owner {
        /// The path.
        path: PathBuf,
        /// The directory or link.
        at: PathBuf,
        /// Its owner.
        uid: u32,
    },
    /// Others may write to a directory on the way.
    #[error("{} could be replaced: others can write to {} (mode {mode:o})", path.display(), at.display())]
    Writable {
        /// The path.
        path: PathBuf,
        /// The directory.
        at: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// The way cannot be walked.
    #[error("look at {}", at.display())]
    Io {
        /// Where it ends.
        at: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// The root of a user namespace, as the host sees it.
///
/// `lxc-create` gives it the directory of a container with `lxc.idmap` (lxccontainer.c, `do_create_container_dir`): it
/// could change names there, but inside the container there is no way to that directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Guest {
    /// User id on the host.
    pub uid: u32,
    /// Group id on the host.
    pub gid: u32,
}

/// Walks an absolute path. What is at its end may be anything, or nothing yet; a symbolic link there is followed, if
/// root made it.
///
/// Directories of the group root may be writable by it: `lxc-create` makes a container's directory so (mode 0770).
///
/// # Errors
/// The first place at which somebody else could turn the path elsewhere.
pub fn check(path: &Path) -> Result<(), Untrusted> {
    check_of(None, path)
}

/// As [`check`] for a container's own path: its directories may be its root's.
pub fn check_of(guest: Option<Guest>, path: &Path) -> Result<(), Untrusted> {
    walk(guest, path).map(drop)
}

/// As [`check_of`], and gives the path free of links.
pub fn walk(guest: Option<Guest>, path: &Path) -> Result<PathBuf, Untrusted> {
    let io_error = |at: &Path, source| Untrusted::Io { at: at.to_owned(), source };
    let mut here = PathBuf::from("/");
    let mut ahead: VecDeque<OsString> = path.components().filter_map(name_of).collect();
    let mut links = 0;
    while let Some(name) = ahead.pop_front() {
        if name == ".." {
            here.pop();
            continue;
        }
        let directory = fs::metadata(&here).map_err(|e| io_error(&here, e))?;
        check_directory(guest, path, &here, &directory)?;
        let next = here.join(&name);
        let meta = match fs::symlink_metadata(&next) {
            Ok(meta) => meta,
            // From here on everything is made by us.
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                here.push(name);
                here.extend(ahead);
                return Ok(here);
            }
            Err(e) => return Err(io_error(&next, e)),
        };
        if !meta.is_symlink() {
            here = next;
            continue;
        }
        if !is_ours(meta.uid()) {
            return Err(Untrusted::Owner { path: path.to_owned(), at: next, uid: meta.uid() });
        }
        links += 1;
        if links > MAX_LINKS {
            return Err(io_error(&next, io::Error::from_raw_os_error(libc::ELOOP)));
        }
        let target = fs::read_link(&next).map_err(|e| io_error(&next, e))?;
        if target.is_absolute() {
            here = PathBuf::from("/");
        }
        for part in target.components().filter_map(name_of).collect::<Vec<_>>().into_iter().rev() {
            ahead.push_front(part);
        }
    }
    Ok(here)
}

fn name_of(part: Component<'_>) -> Option<OsString> {
    match part {
        Component::Normal(name) => Some(name.to_owned()),
        Component::ParentDir => Some("..".into()),
        Component::RootDir | Component::CurDir | Component::Prefix(_) => None,
    }
}

fn check_directory(guest: Option<Guest>, path: &Path, at: &Path, meta: &Metadata) -> Result<(), Untrusted> {
    if !is_ours(meta.uid()) && guest.is_none_or(|g| g.uid != meta.uid()) {
        return Err(Untrusted::Owner { path: path.to_owned(), at: at.to_owned(), uid: meta.uid() });
    }
    let by_group = meta.mode() & 0o020 != 0 && meta.gid() != 0 && guest.is_none_or(|g| g.gid != meta.gid());
    if (by_group || meta.mode() & 0o002 != 0) && meta.mode() & STICKY == 0 {
        return Err(Untrusted::Writable { path: path.to_owned(), at: at.to_owned(), mode: meta.mode() & 0o7777 });
    }
    Ok(())
}

/// Root, or in tests whoever runs them.
pub(super) fn is_ours(uid: u32) -> bool {
    uid == 0 || uid == nix::unistd::geteuid().as_raw()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{PermissionsExt, symlink};

    fn chmod(path: &Path, mode: u32) {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }

    #[test]
    fn a_way_on_which_only_root_can_change_names_is_good() {
        let top = tempfile::tempdir().unwrap();
        let dir = top.path().join("dir");
        fs::create_dir(&dir).unwrap();
        symlink(&dir, top.path().join("link")).unwrap();
        symlink("../dir/../link", dir.join("round")).unwrap();
        let real = top.path().canonicalize().unwrap().join("dir");
        for good in ["dir", "dir/new/newer", "link/x", "dir/round/x", "link/../dir"] {
            let walked = walk(None, &top.path().join(good)).unwrap();
            assert!(walked.starts_with(real.parent().unwrap()), "{good} is {}", walked.display());
        }
        assert_eq!(walk(None, &top.path().join("link/new/newer")).unwrap(), real.join("new/newer"));
        // /tmp is everybody's, but a name in it belongs to its owner.
        chmod(&dir, 0o1777);
        check(&dir.join("x")).unwrap();
    }

    #[test]
    fn a_directory_that_others_can_write_to_spoils_all_below_it() {
        let top = tempfile::tempdir().unwrap();
        let open = top.path().join("open");
        fs::create_dir_all(open.join("a/b")).unwrap();
        for mode in [0o777, 0o702] {
            chmod(&open, mode);
            let error = check(&open.join("a/b/c")).unwrap_err();
            assert!(error.to_string().contains("others can write to"), "{error}");
        }
        symlink(&open, top.path().join("link")).unwrap();
        assert!(matches!(check(&top.path().join("link/a")), Err(Untrusted::Writable { .. })));
        // Itself it is at the end of its way, and whoever opens it looks at it.
        check(&open).unwrap();
    }

    #[test]
    fn what_another_user_owns_is_not_trusted() {
        if !nix::unistd::geteuid().is_root() {
            return;
        }
        let top = tempfile::tempdir().unwrap();
        let theirs = top.path().join("theirs");
        fs::create_dir(&theirs).unwrap();
        std::os::unix::fs::chown(&theirs, Some(1000), None).unwrap();
        assert!(matches!(check(&theirs.join("x")), Err(Untrusted::Owner { uid: 1000, .. })));
        let guest = |uid| Some(Guest { uid, gid: 1000 });
        check_of(guest(1000), &theirs.join("x")).unwrap();
        assert!(matches!(check_of(guest(1001), &theirs.join("x")), Err(Untrusted::Owner { uid: 1000, .. })));
        let link = top.path().join("link");
        symlink("/", &link).unwrap();
        std::os::unix::fs::lchown(&link, Some(1000), None).unwrap();
        assert!(matches!(check(&link), Err(Untrusted::Owner { uid: 1000, .. })));
    }

    #[test]
    fn links_in_a_ring_end() {
        let top = tempfile::tempdir().unwrap();
        symlink("b", top.path().join("a")).unwrap();
        symlink("a", top.path().join("b")).unwrap();
        assert!(matches!(check(&top.path().join("a/x")), Err(Untrusted::Io { .. })));
    }
}
