//! A place for one program that has, of all that is mounted, only what it is given.
//!
//! It is a mount namespace whose root is a file system in memory. What the program needs is put
//! there under the path that it has on the host, so that one path means the same on both sides. The
//! rest of the host is not there: no link, no `..` and no name that is put together from what
//! others have written leads to it.
//!
//! Everything is opened by us, before the program is started; in the new process there are only
//! system calls on descriptors. What is shown is thus what was looked at, whatever its name leads
//! to by then. When the program and all that it has started there are gone, so is the place.

use std::ffi::CString;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

use rustix::fs::{
    CWD, FileType, Gid, Mode, OFlags, ResolveFlags, fchmod, fchown, fstat, mkdirat, openat2,
    symlinkat,
};
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MoveMountFlags, OpenTreeFlags, UnmountFlags,
    fsconfig_create, fsconfig_set_string, fsmount, fsopen, mount_bind, move_mount, open_tree,
    unmount,
};

/// Where its root is mounted for a moment: any directory that is always there.
const FOR_A_MOMENT: &std::ffi::CStr = c"/proc";
/// More than is ever written there, for a program that fills all that it can.
const SIZE: &str = "64m";
const CLONE: OpenTreeFlags = OpenTreeFlags::OPEN_TREE_CLONE.union(OpenTreeFlags::OPEN_TREE_CLOEXEC);

/// What may be done with something that is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Access {
    /// Only read, with all that is mounted below it; programs in it get nobody else's rights,
    /// devices are none.
    Read,
    /// As on the host; only this mount.
    Use,
    /// As on the host, with all that is mounted below it.
    UseAll,
    /// As on the host, only this mount: somebody who is not trusted has filled it.
    Untrusted {
        /// Whether symbolic links in it are followed.
        follow_links: bool,
    },
}

impl Access {
    fn is_recursive(self) -> bool {
        matches!(self, Access::Read | Access::UseAll)
    }

    fn attributes(self) -> MountAttributes {
        let (set, propagation) = match self {
            Access::Read => (RDONLY | NOSUID | NODEV, libc::MS_PRIVATE),
            Access::Use | Access::UseAll => (0, libc::MS_PRIVATE),
            Access::Untrusted { follow_links } => {
                (if follow_links { 0 } else { NOSYMFOLLOW }, libc::MS_SLAVE)
            }
        };
        MountAttributes { set, clear: 0, propagation, user_namespace: 0 }
    }
}

/// The place while it is made ready.
#[derive(Debug)]
pub(crate) struct Sandbox {
    root: OwnedFd,
    steps: Vec<Step>,
    /// What lies below these is not in memory.
    shown: Vec<PathBuf>,
}

/// What is done in the new process.
#[derive(Debug)]
enum Step {
    /// A mount is put to a path.
    Move(OwnedFd, CString),
    /// What is in the place already is shown at a path, too.
    Bind(CString, CString),
}

/// A way into the place for as long as this is held, also when nobody is in it any more.
#[derive(Debug)]
pub(crate) struct Inside(OwnedFd);

impl Sandbox {
    /// An empty one.
    pub(crate) fn new() -> io::Result<Sandbox> {
        let context = fsopen("tmpfs", FsOpenFlags::FSOPEN_CLOEXEC)?;
        for (key, value) in [("size", SIZE), ("mode", "0755"), ("source", "lxc-cr")] {
            fsconfig_set_string(context.as_fd(), key, value)?;
        }
        fsconfig_create(context.as_fd())?;
        let forbidden = MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NODEV;
        let root = fsmount(context.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, forbidden)?;
        Ok(Sandbox { root, steps: Vec::new(), shown: Vec::new() })
    }

    /// Makes a directory, with those above it.
    pub(crate) fn directory(&mut self, path: &Path) -> io::Result<()> {
        self.make_directory(path).map(drop)
    }

    /// Makes a directory in which everybody can make something.
    pub(crate) fn open_directory(&mut self, path: &Path) -> io::Result<()> {
        self.make_directory(path)?;
        let directory = rustix::fs::openat(
            self.make_directory(path)?,
            ".",
            OFlags::DIRECTORY | OFlags::CLOEXEC,
            Mode::empty(),
        )?;
        Ok(fchmod(directory, Mode::from_raw_mode(0o1777))?)
    }

    /// Makes a symbolic link.
    pub(crate) fn link(&mut self, path: &Path, target: &Path) -> io::Result<()> {
        let (directory, name) = self.make_parent(path)?;
        Ok(symlinkat(target, directory, name)?)
    }

    /// Makes a file that root can read, and this group if there is one.
    pub(crate) fn file(
        &mut self,
        path: &Path,
        content: &[u8],
        group: Option<u32>,
    ) -> io::Result<()> {
        let (directory, name) = self.make_parent(path)?;
        let file = rustix::fs::openat(directory, name, NEW_FILE, Mode::RUSR | Mode::WUSR)?;
        if let Some(gid) = group {
            fchown(&file, None, Some(Gid::from_raw(gid)))?;
            fchmod(&file, Mode::RUSR | Mode::WUSR | Mode::RGRP)?;
        }
        File::from(file).write_all(content)
    }

    /// Shows what is at a path of the host at the same path.
    pub(crate) fn show(&mut self, path: &Path, access: Access) -> io::Result<()> {
        self.show_at(path, path, access)
    }

    /// Shows what is at a path of the host, if it is there; a link as the link that it is.
    pub(crate) fn show_if_there(&mut self, path: &Path, access: Access) -> io::Result<()> {
        match std::fs::symlink_metadata(path) {
            Ok(meta) if meta.is_symlink() => self.link(path, &std::fs::read_link(path)?),
            Ok(_) => self.show(path, access),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(e) => Err(e),
        }
    }

    /// Shows what is at a path of the host at another one.
    pub(crate) fn show_at(&mut self, path: &Path, target: &Path, access: Access) -> io::Result<()> {
        let recursive = if access.is_recursive() {
            OpenTreeFlags::AT_RECURSIVE
        } else {
            OpenTreeFlags::empty()
        };
        let tree = open_tree(CWD, path, CLONE | recursive)?;
        self.mount(tree, target, access)
    }

    /// The same for a path on which no symbolic link may be.
    pub(crate) fn show_without_links(
        &mut self,
        path: &Path,
        target: &Path,
        access: Access,
    ) -> io::Result<()> {
        let file = openat2(
            CWD,
            path,
            OFlags::PATH | OFlags::CLOEXEC,
            Mode::empty(),
            ResolveFlags::NO_SYMLINKS,
        )?;
        self.show_open(file.as_fd(), target, access)
    }

    /// Shows what is held open.
    pub(crate) fn show_open(
        &mut self,
        file: BorrowedFd<'_>,
        target: &Path,
        access: Access,
    ) -> io::Result<()> {
        let mut flags = CLONE | OpenTreeFlags::AT_EMPTY_PATH;
        if access.is_recursive() {
            flags |= OpenTreeFlags::AT_RECURSIVE;
        }
        let tree = open_tree(file, "", flags)?;
        self.mount(tree, target, access)
    }

    /// Puts a mount there that is in no mount namespace.
    pub(crate) fn mount(&mut self, tree: OwnedFd, target: &Path, access: Access) -> io::Result<()> {
        set_attributes(tree.as_fd(), access.is_recursive(), &access.attributes())?;
        let is_directory = FileType::from_raw_mode(fstat(&tree)?.st_mode) == FileType::Directory;
        self.make_target(target, is_directory)?;
        self.steps.push(Step::Move(tree, relative(target)?));
        self.shown.push(target.to_owned());
        Ok(())
    }

    /// Shows a file of the place itself at another path, on top of what is shown there.
    pub(crate) fn cover(&mut self, target: &Path, with: &Path) -> io::Result<()> {
        self.make_target(target, false)?;
        self.steps.push(Step::Bind(relative(with)?, relative(target)?));
        Ok(())
    }

    /// A way to what the program will write there.
    pub(crate) fn inside(&self) -> io::Result<Inside> {
        Ok(Inside(self.root.try_clone()?))
    }

    /// Goes there. Only system calls: it is called between fork and exec.
    pub(super) fn enter(&self) -> io::Result<()> {
        let none = std::ptr::null();
        // SAFETY: unshare(2) of a namespace in a process with one thread; no memory is touched.
        check(unsafe { libc::unshare(libc::CLONE_NEWNS) })?;
        // SAFETY: the target is a static C string, the other pointers may be null for a change of
        // propagation.
        check(unsafe {
            libc::mount(none, c"/".as_ptr(), none, libc::MS_REC | libc::MS_PRIVATE, none.cast())
        })?;
        move_mount(&self.root, c"", CWD, FOR_A_MOMENT, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)?;
        rustix::process::fchdir(&self.root)?;
        for step in &self.steps {
            match step {
                Step::Move(tree, target) => {
                    move_mount(
                        tree,
                        c"",
                        CWD,
                        target.as_c_str(),
                        MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH,
                    )?;
                }
                Step::Bind(source, target) => mount_bind(source.as_c_str(), target.as_c_str())?,
            }
        }
        rustix::process::pivot_root(c".", c".")?;
        unmount(c".", UnmountFlags::DETACH)?;
        Ok(rustix::process::chdir(c"/")?)
    }

    /// Something to mount upon, unless what is shown there has it.
    fn make_target(&self, target: &Path, is_directory: bool) -> io::Result<()> {
        if self.shown.iter().any(|shown| target.starts_with(shown)) {
            return Ok(());
        }
        if is_directory {
            return self.make_directory(target).map(drop);
        }
        let (directory, name) = self.make_parent(target)?;
        match rustix::fs::openat(directory, name, NEW_FILE, Mode::RUSR | Mode::WUSR) {
            Ok(_) | Err(Errno::EXIST) => Ok(()),
            Err(e) => Err(e.into()),
        }
    }

    fn make_parent<'p>(&self, path: &'p Path) -> io::Result<(OwnedFd, &'p std::ffi::OsStr)> {
        let name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?;
        Ok((self.make_directory(path.parent().unwrap_or(Path::new("/")))?, name))
    }

    fn make_directory(&self, path: &Path) -> io::Result<OwnedFd> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let mut here = self.root.try_clone()?;
        for part in path.components() {
            let name = match part {
                Component::RootDir | Component::CurDir => continue,
                Component::Normal(name) => name,
                Component::ParentDir | Component::Prefix(_) => {
                    return Err(io::ErrorKind::InvalidInput.into());
                }
            };
            match mkdirat(&here, name, Mode::from_raw_mode(0o755)) {
                Ok(()) | Err(Errno::EXIST) => {}
                Err(e) => return Err(e.into()),
            }
            here = rustix::fs::openat(&here, name, flags, Mode::empty())?;
        }
        Ok(here)
    }
}

const NEW_FILE: OFlags =
    OFlags::WRONLY.union(OFlags::CREATE).union(OFlags::EXCL).union(OFlags::CLOEXEC);

impl Inside {
    /// What the program has written to a file in memory.
    pub(crate) fn read(&self, path: &Path) -> io::Result<String> {
        let how = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_XDEV;
        let path = path.strip_prefix("/").unwrap_or(path);
        let file = openat2(
            &self.0,
            path,
            OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC,
            Mode::empty(),
            how,
        )?;
        let mut text = String::new();
        File::from(file).take(MOST_READ).read_to_string(&mut text)?;
        Ok(text)
    }
}

/// No file that is read from there is longer, in bytes.
const MOST_READ: u64 = 4096;

/// As it is seen from the place's root.
fn relative(path: &Path) -> io::Result<CString> {
    let inside = path.strip_prefix("/").unwrap_or(path);
    CString::new(inside.as_os_str().as_bytes())
        .map_err(|_| io::Error::other("a path holds a NUL byte"))
}

/// `MOUNT_ATTR_RDONLY` and others, include/uapi/linux/mount.h.
const RDONLY: u64 = 1;
const NOSUID: u64 = 2;
const NODEV: u64 = 4;
const NOSYMFOLLOW: u64 = 0x20_0000;

/// `struct mount_attr`.
#[repr(C)]
struct MountAttributes {
    set: u64,
    clear: u64,
    propagation: u64,
    user_namespace: u64,
}

/// Lets symbolic links be followed again on all mounts of the mount namespace that the caller is
/// in.
pub(super) fn follow_links_everywhere() -> io::Result<()> {
    let root = open_tree(CWD, "/", OpenTreeFlags::OPEN_TREE_CLOEXEC)?;
    set_attributes(
        root.as_fd(),
        true,
        &MountAttributes { set: 0, clear: NOSYMFOLLOW, propagation: 0, user_namespace: 0 },
    )
}

/// Makes a mount that is in no mount namespace read-only.
pub(super) fn make_read_only(mount: BorrowedFd<'_>) -> io::Result<()> {
    set_attributes(
        mount,
        false,
        &MountAttributes { set: RDONLY, clear: 0, propagation: 0, user_namespace: 0 },
    )
}

fn set_attributes(
    mount: BorrowedFd<'_>,
    recursive: bool,
    attributes: &MountAttributes,
) -> io::Result<()> {
    let flags = libc::AT_EMPTY_PATH | if recursive { libc::AT_RECURSIVE } else { 0 };
    // SAFETY: the path is a static C string, and the structure lives through the call, which is
    // told its size.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.as_raw_fd(),
            c"".as_ptr(),
            flags,
            std::ptr::from_ref(attributes),
            size_of::<MountAttributes>(),
        )
    };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
/// The error of a system call that says -1.
pub(super) fn check(result: libc::c_int) -> io::Result<()> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
