//! Files and directories that only root may have made.
//!
//! Everything here runs as root on paths that others may be able to write to. So directories are
//! opened step by step without following a last symbolic link, owners and modes are checked on the
//! open descriptor, and files are replaced by a rename.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use rustix::fs::{AtFlags, Mode, OFlags, openat, renameat, unlinkat};

use crate::sys::path_trust;

/// Mode of directories that hold images, records and state.
const PRIVATE_DIR: u32 = 0o700;
/// Mode of the files in them.
const PRIVATE_FILE: u32 = 0o600;

/// Makes a directory that only root can enter, or checks that it is one. Its parent must exist.
pub(crate) fn make_private_dir(path: &Path) -> Result<()> {
    match fs::DirBuilder::new().mode(PRIVATE_DIR).create(path) {
        Ok(()) => Ok(()),
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {
            open_private_dir(path)?;
            Ok(())
        }
        Err(e) => Err(e).with_context(|| format!("make directory {}", path.display())),
    }
}

/// Opens a directory that nobody but its owner, root, can have changed.
pub(crate) fn open_private_dir(path: &Path) -> Result<File> {
    let dir = open_dir(path)?;
    let meta = dir.metadata().with_context(|| format!("stat {}", path.display()))?;
    if meta.uid() != nix::unistd::geteuid().as_raw() {
        bail!("{} belongs to user {}, not to root: it is not trusted", path.display(), meta.uid());
    }
    if meta.mode() & 0o022 != 0 {
        bail!(
            "{} can be written by others (mode {:o}): it is not trusted",
            path.display(),
            meta.mode() & 0o7777
        );
    }
    Ok(dir)
}

/// Checks that all in a directory is what root made there: files and directories of root's that
/// nobody else can write to. Anything else, and a link above all, would be opened by whoever works
/// in it (CRIU) without a look at what it is. A link with one of the names in `links` is allowed.
pub(crate) fn check_content(dir: &Path, links: &[&str]) -> Result<()> {
    for name in names(dir)? {
        let path = dir.join(&name);
        let meta =
            fs::symlink_metadata(&path).with_context(|| format!("stat {}", path.display()))?;
        if !path_trust::is_ours(meta.uid()) {
            bail!(
                "{} belongs to user {}, not to root: it is not trusted",
                path.display(),
                meta.uid()
            );
        }
        if meta.is_symlink() && links.iter().any(|l| name == Path::new(l)) {
            continue;
        }
        if !meta.is_file() && !meta.is_dir() {
            let what = if meta.is_symlink() { "a symbolic link" } else { "a special file" };
            bail!("{} is {what}: it is not trusted", path.display());
        }
        if meta.mode() & 0o022 != 0 {
            bail!(
                "{} can be written by others (mode {:o}): it is not trusted",
                path.display(),
                meta.mode() & 0o7777
            );
        }
    }
    Ok(())
}

/// Opens a directory; a symbolic link as the last component is refused.
pub(crate) fn open_dir(path: &Path) -> Result<File> {
    OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_DIRECTORY | libc::O_NOFOLLOW | libc::O_CLOEXEC)
        .open(path)
        .with_context(|| format!("open directory {}", path.display()))
}

/// Opens a file for reading; a symbolic link as the last component is refused.
pub(crate) fn open_file(path: &Path) -> io::Result<File> {
    OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NOFOLLOW | libc::O_CLOEXEC | libc::O_NONBLOCK)
        .open(path)
}

/// Opens a file for writing, empty, made private to root if it is new; a symbolic link as the last
/// component is refused.
pub(crate) fn make_anew(path: &Path) -> Result<File> {
    let mut options = OpenOptions::new();
    options
        .write(true)
        .create(true)
        .truncate(true)
        .mode(PRIVATE_FILE)
        .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK);
    options.open(path).with_context(|| format!("open {}", path.display()))
}

/// Opens a file for adding to it, made private to root if it is new.
pub(crate) fn open_append(path: &Path) -> io::Result<File> {
    OpenOptions::new()
        .append(true)
        .create(true)
        .mode(PRIVATE_FILE)
        .custom_flags(libc::O_NOFOLLOW | libc::O_CLOEXEC)
        .open(path)
}

/// Makes a directory and the files in it root's alone. CRIU writes its images with mode 0644.
pub(crate) fn make_private(dir: &Path) -> Result<()> {
    set_readers(dir, None)
}

/// Lets a group read the files in a directory, until [`make_private`] takes it back.
pub(crate) fn lend_to_group(dir: &Path, gid: u32) -> Result<()> {
    set_readers(dir, Some(gid))
}

fn set_readers(dir: &Path, group: Option<u32>) -> Result<()> {
    let (enter, read) = if group.is_some() { (0o010, 0o040) } else { (0, 0) };
    for name in names(dir)? {
        let path = dir.join(&name);
        let is_file = fs::symlink_metadata(&path).map(|m| m.is_file());
        if is_file.with_context(|| format!("stat {}", path.display()))? {
            set_group(&path, group, PRIVATE_FILE | read)?;
        }
    }
    set_group(dir, group, PRIVATE_DIR | enter)
}

/// Sets the group, root's where there is none, and the mode of what nobody else can have put there.
pub(crate) fn set_group(path: &Path, group: Option<u32>, mode: u32) -> Result<()> {
    let what = || format!("set the group and mode of {}", path.display());
    let gid = group.unwrap_or_else(|| nix::unistd::getegid().as_raw());
    // By a descriptor: a link that somebody puts there is not followed.
    let file = open_file(path).with_context(what)?;
    let meta = file.metadata().with_context(what)?;
    if meta.gid() != gid {
        std::os::unix::fs::fchown(&file, None, Some(gid)).with_context(what)?;
    }
    if meta.mode() & 0o7777 != mode {
        file.set_permissions(std::os::unix::fs::PermissionsExt::from_mode(mode))
            .with_context(what)?;
    }
    Ok(())
}

/// A file without a name, in memory: no directory that others can fill is needed for it.
pub(crate) fn scratch(name: &str) -> io::Result<File> {
    Ok(rustix::fs::memfd_create(name, rustix::fs::MemfdFlags::CLOEXEC)?.into())
}

/// Opens a log for adding to it, as [`open_append`]. A file that another user has put there is
/// refused, and so is a pipe, which would hold us up; a terminal or `/dev/null` is as good as a
/// file.
pub(crate) fn open_log(path: &Path) -> Result<File> {
    let what = || format!("open the log file {}", path.display());
    let at = std::path::absolute(path).with_context(what)?;
    let way = path_trust::reach_name(None, &at).with_context(what)?;
    let name = at.file_name().context("it has no name").with_context(what)?;
    let flags = OFlags::WRONLY
        | OFlags::APPEND
        | OFlags::CREATE
        | OFlags::NOFOLLOW
        | OFlags::NONBLOCK
        | OFlags::NOCTTY;
    let file = way.open_in(name, flags, PRIVATE_FILE).with_context(what)?;
    let meta = file.metadata().with_context(what)?;
    let kind = meta.file_type();
    if std::os::unix::fs::FileTypeExt::is_char_device(&kind) {
        return Ok(file);
    }
    if !kind.is_file() {
        bail!("{} is not a file", path.display());
    }
    if !path_trust::is_ours(meta.uid()) {
        bail!("{} belongs to user {}, not to root", path.display(), meta.uid());
    }
    // Where others can make names, one may be a second name of a file that is none of a log.
    if meta.nlink() > 1 && way.is_open_to_others().with_context(what)? {
        bail!("{} has another name, too, in a directory that others can write to", path.display());
    }
    Ok(file)
}

/// Writes a file as a whole: it is there with all of this content, on the disk, or as it was.
pub(crate) fn write_atomically(path: &Path, content: &[u8]) -> Result<()> {
    put(path, content, PRIVATE_FILE, None)
}

/// As [`write_atomically`]: a file that is there keeps its owner and mode, a new one gets this
/// mode.
pub(crate) fn replace(path: &Path, content: &[u8], mode: u32) -> Result<()> {
    match fs::symlink_metadata(path) {
        Ok(meta) => put(path, content, meta.mode() & 0o7777, Some((meta.uid(), meta.gid()))),
        Err(e) if e.kind() == io::ErrorKind::NotFound => put(path, content, mode, None),
        Err(e) => Err(e).with_context(|| format!("stat {}", path.display())),
    }
}

/// Gives a file that is there this content and leaves all else of it as it is, for file systems
/// that allow no more. It is written before it is cut, so that less of it can be missing if the
/// machine stops in between.
pub(crate) fn rewrite(path: &Path, content: &[u8]) -> Result<()> {
    let written = (|| -> io::Result<()> {
        let flags = libc::O_NOFOLLOW | libc::O_CLOEXEC;
        let mut file = OpenOptions::new().write(true).custom_flags(flags).open(path)?;
        file.write_all(content)?;
        file.set_len(content.len().try_into().map_err(io::Error::other)?)?;
        file.sync_all()
    })();
    written.with_context(|| format!("write {}", path.display()))
}

fn put(path: &Path, content: &[u8], mode: u32, owner: Option<(u32, u32)>) -> Result<()> {
    let what = || format!("write {}", path.display());
    let parent = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let name = path.file_name().context("it has no name").with_context(what)?;
    // All of it in the directory that has the path now, whatever has it a moment later.
    let dir = open_dir_of(parent).with_context(what)?;
    let (temp, mut file) = new_in(&dir).with_context(what)?;
    let written = (|| -> Result<()> {
        file.write_all(content)?;
        if let Some((uid, gid)) = owner {
            std::os::unix::fs::fchown(&file, Some(uid), Some(gid))?;
        }
        if mode != PRIVATE_FILE {
            file.set_permissions(std::os::unix::fs::PermissionsExt::from_mode(mode))?;
        }
        file.sync_all()?;
        Ok(renameat(&dir, &temp, &dir, name)?)
    })();
    if written.is_err() {
        // What could not become the file stands in nobody's way; that it cannot be removed is not
        // what has failed.
        if let Err(e) = unlinkat(&dir, &temp, AtFlags::empty()) {
            log::debug!("remove {temp} beside {}: {e}", path.display());
        }
    }
    written.with_context(what)?;
    dir.sync_all().with_context(|| format!("sync directory {}", parent.display()))
}

/// A directory, by whatever links its path leads there.
fn open_dir_of(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).custom_flags(libc::O_DIRECTORY | libc::O_CLOEXEC).open(path)
}

/// A new file in a directory, with a name that nobody else has.
fn new_in(dir: &File) -> io::Result<(String, File)> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    loop {
        let mut random = [0; 8];
        rustix::rand::getrandom(&mut random, rustix::rand::GetRandomFlags::empty())?;
        let name = format!(".lxc-cr-{:016x}", u64::from_ne_bytes(random));
        match openat(dir, &name, flags, Mode::from_raw_mode(PRIVATE_FILE)) {
            Ok(file) => return Ok((name, file.into())),
            Err(rustix::io::Errno::EXIST) => {}
            Err(e) => return Err(e.into()),
        }
    }
}

/// Makes the names in a directory durable.
pub(crate) fn sync_dir(path: &Path) -> Result<()> {
    open_dir(path)?.sync_all().with_context(|| format!("sync directory {}", path.display()))
}

/// Writes out everything of the file system that holds this path.
pub(crate) fn sync_file_system(path: &Path) -> Result<()> {
    let dir = open_dir(path)?;
    rustix::fs::syncfs(dir.as_fd())
        .with_context(|| format!("write {} out to the disk", path.display()))
}

/// Asks the kernel to begin writing a piece of a file out to the disk. Only a wish: what counts is
/// the sync at the end, which reports errors.
pub(crate) fn begin_writing_out(file: &File, offset: u64, length: u64) {
    let (Ok(offset), Ok(length)) = (i64::try_from(offset), i64::try_from(length)) else { return };
    // SAFETY: the descriptor is open for as long as `file` is borrowed; no memory is passed.
    unsafe { libc::sync_file_range(file.as_raw_fd(), offset, length, libc::SYNC_FILE_RANGE_WRITE) };
}

/// Asks the kernel to drop what it has cached of a file, so that the next read is one of the disk.
/// What is not yet written out stays, and so does what a file system without a disk has.
pub(crate) fn forget_cached(file: &File) {
    if let Err(e) = rustix::fs::fadvise(file, 0, None, rustix::fs::Advice::DontNeed) {
        log::debug!("drop the cached pages of a file: {e}");
    }
}

/// Puts a directory in place of another one in one step; the other one is then found under the
/// first's name.
pub(crate) fn exchange(one: &Path, other: &Path) -> io::Result<()> {
    use nix::fcntl::{AT_FDCWD, RenameFlags, renameat2};
    Ok(renameat2(AT_FDCWD, one, AT_FDCWD, other, RenameFlags::RENAME_EXCHANGE)?)
}

/// The names in a directory, sorted.
pub(crate) fn names(path: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(path).with_context(|| format!("list {}", path.display()))? {
        found.push(PathBuf::from(
            entry.with_context(|| format!("list {}", path.display()))?.file_name(),
        ));
    }
    found.sort();
    Ok(found)
}

/// The path with a suffix put to its last component: `DIR` → `DIR.partial`.
pub(crate) fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

/// Removes a file that need not be there.
pub(crate) fn remove_if_there(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => {
            Err(e).with_context(|| format!("remove {}", path.display()))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn a_link_in_place_of_a_directory_is_refused() {
        let top = tempfile::tempdir().unwrap();
        let (real, link) = (top.path().join("real"), top.path().join("link"));
        make_private_dir(&real).unwrap();
        symlink(&real, &link).unwrap();
        assert!(make_private_dir(&real).is_ok());
        assert!(make_private_dir(&link).is_err());
        assert!(open_private_dir(&link).is_err());
    }

    #[test]
    fn a_directory_that_others_can_write_is_refused() {
        let top = tempfile::tempdir().unwrap();
        let dir = top.path().join("open");
        fs::create_dir(&dir).unwrap();
        fs::set_permissions(&dir, std::os::unix::fs::PermissionsExt::from_mode(0o777)).unwrap();
        assert!(
            open_private_dir(&dir).unwrap_err().to_string().contains("can be written by others")
        );
    }

    #[test]
    fn only_what_root_made_may_be_in_a_directory() {
        let top = tempfile::tempdir().unwrap();
        let path = |name: &str| top.path().join(name);
        fs::write(path("core-1.img"), "x").unwrap();
        symlink("/somewhere", path("parent")).unwrap();
        check_content(top.path(), &["parent"]).unwrap();
        assert!(
            check_content(top.path(), &[])
                .unwrap_err()
                .to_string()
                .contains("parent is a symbolic link")
        );
        symlink("/etc/shadow", path("restore.log")).unwrap();
        assert!(
            check_content(top.path(), &["parent"])
                .unwrap_err()
                .to_string()
                .contains("restore.log is a symbolic")
        );
        fs::remove_file(path("restore.log")).unwrap();
        nix::unistd::mkfifo(&path("pages-1.img"), nix::sys::stat::Mode::S_IRUSR).unwrap();
        assert!(
            check_content(top.path(), &["parent"])
                .unwrap_err()
                .to_string()
                .contains("is a special file")
        );
        fs::remove_file(path("pages-1.img")).unwrap();
        fs::set_permissions(
            path("core-1.img"),
            std::os::unix::fs::PermissionsExt::from_mode(0o666),
        )
        .unwrap();
        assert!(
            check_content(top.path(), &["parent"])
                .unwrap_err()
                .to_string()
                .contains("written by others")
        );
    }

    #[test]
    fn a_log_is_no_link_and_no_pipe() {
        let top = tempfile::tempdir().unwrap();
        let path = |name: &str| top.path().join(name);
        open_log(&path("log")).unwrap();
        assert_eq!(fs::metadata(path("log")).unwrap().mode() & 0o777, 0o600);
        symlink("log", path("link")).unwrap();
        assert!(open_log(&path("link")).is_err());
        nix::unistd::mkfifo(&path("pipe"), nix::sys::stat::Mode::S_IRUSR).unwrap();
        assert!(open_log(&path("pipe")).is_err());
        open_log(Path::new("/dev/null")).unwrap();
        fs::set_permissions(top.path(), std::os::unix::fs::PermissionsExt::from_mode(0o777))
            .unwrap();
        assert!(
            format!("{:#}", open_log(&path("log")).unwrap_err()).contains("others can write to")
        );
    }

    #[test]
    fn a_file_is_replaced_as_a_whole_and_is_private() {
        let top = tempfile::tempdir().unwrap();
        let file = top.path().join("record");
        write_atomically(&file, b"one").unwrap();
        write_atomically(&file, b"two").unwrap();
        assert_eq!(fs::read(&file).unwrap(), b"two");
        assert_eq!(fs::metadata(&file).unwrap().mode() & 0o777, 0o600);
        assert_eq!(fs::read_dir(top.path()).unwrap().count(), 1);
    }
}
