//! File systems that are mounted nowhere: in no mount namespace, and gone with the last descriptor.
//!
//! Nobody else sees such a mount, and there is nothing to undo, however we end. It can be looked at
//! by its descriptor, and be put into a mount namespace that is made for one program (see
//! [`super::sandbox`]).

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, setns, unshare};
use rustix::fs::CWD;
use rustix::mount::{OpenTreeFlags, open_tree};

use super::thread;

/// Where the file system is mounted for the moment in which it is made: any directory that is
/// always there, in a mount namespace that nobody else is in.
const FOR_A_MOMENT: &str = "/proc";

/// How often another loop device is tried when somebody takes the free one first.
const LOOP_TRIES: u32 = 16;

/// A mount that is in no mount namespace.
#[derive(Debug)]
pub struct Detached {
    tree: OwnedFd,
    /// The loop device that it is on: its own hold on it is the mount's from now on.
    _device: Option<File>,
}

impl Detached {
    /// Mounts a file system.
    ///
    /// By mount(2) in a mount namespace of a moment: the newer calls take no option of more than
    /// 255 bytes, and the layers of an overlay are one option.
    pub fn mount(source: &Path, kind: &str, flags: MsFlags, options: &str) -> io::Result<Detached> {
        let tree = on_a_thread(|| {
            unshare(CloneFlags::CLONE_NEWNS)?;
            let none = None::<&str>;
            mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none)?;
            mount(Some(source), FOR_A_MOMENT, Some(kind), flags, Some(options))?;
            Ok(open_tree(
                CWD,
                FOR_A_MOMENT,
                OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC,
            )?)
        })?;
        Ok(Detached { tree, _device: None })
    }

    /// A directory once more, without what is mounted in it.
    pub fn of(directory: &Path) -> io::Result<Detached> {
        let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
        Ok(Detached { tree: open_tree(CWD, directory, flags)?, _device: None })
    }

    /// The root of a mount namespace once more, without what is mounted in it.
    ///
    /// # Errors
    /// `EINVAL` where that would uncover what a mount from outside of its user namespace hides
    /// (namespace.c, `has_locked_children`).
    pub fn root_of(namespace: BorrowedFd<'_>) -> io::Result<Detached> {
        let clone = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
        let tree = in_mount_namespace(namespace, || Ok(open_tree(CWD, "/", clone)?))?;
        Ok(Detached { tree, _device: None })
    }

    /// Keeps the device that it is on for as long as it is held.
    pub fn on(self, device: File) -> Detached {
        Detached { _device: Some(device), ..self }
    }

    /// A path that leads to its root, for us and as long as it is held.
    pub fn path(&self) -> PathBuf {
        format!("/proc/self/fd/{}", self.tree.as_raw_fd()).into()
    }
}

impl From<OwnedFd> for Detached {
    /// What open_tree(2) and fsmount(2) give.
    fn from(tree: OwnedFd) -> Detached {
        Detached { tree, _device: None }
    }
}

impl From<Detached> for OwnedFd {
    fn from(mount: Detached) -> OwnedFd {
        mount.tree
    }
}

impl AsFd for Detached {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.tree.as_fd()
    }
}

/// Goes into a mount namespace of our own, which hears of the host's mounts but tells it none: as
/// liblxc's monitor does with `lxc.monitor.unshare` (lxccontainer.c). Threads that run by then stay
/// where they are.
pub(crate) fn leave_hosts_namespace() -> io::Result<()> {
    let none = None::<&str>;
    unshare(CloneFlags::CLONE_NEWNS)?;
    Ok(mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_SLAVE, none)?)
}

/// Runs `f` in another mount namespace, with the root of that; the caller stays where it is.
pub(crate) fn in_mount_namespace<T: Send>(
    namespace: BorrowedFd<'_>,
    f: impl FnOnce() -> io::Result<T> + Send,
) -> io::Result<T> {
    on_a_thread(move || {
        // A mount namespace takes a thread only that shares its root and directory with no other.
        unshare(CloneFlags::CLONE_FS)?;
        setns(namespace, CloneFlags::CLONE_NEWNS)?;
        f()
    })
}

/// Lets symbolic links be followed on all mounts of a mount namespace.
pub(crate) fn follow_links(namespace: BorrowedFd<'_>) -> io::Result<()> {
    in_mount_namespace(namespace, super::sandbox::follow_links_everywhere)
}

/// Goes into another mount namespace for good, with the root of that. Only for a process with one
/// thread.
pub(crate) fn enter_mount_namespace(namespace: BorrowedFd<'_>) -> io::Result<()> {
    Ok(setns(namespace, CloneFlags::CLONE_NEWNS)?)
}

pub(super) fn on_a_thread<T: Send>(f: impl FnOnce() -> io::Result<T> + Send) -> io::Result<T> {
    thread::on_a_thread("mount", f)?
}

/// A block device with the content of a file; it goes when nobody has it open or mounted any more.
///
/// A file that is on a loop device already gets no second one: two mounts of one file system that
/// do not know of each other would destroy it.
pub(crate) fn loop_device(path: &Path, read_only: bool) -> io::Result<(PathBuf, File)> {
    let file = OpenOptions::new().read(true).write(!read_only).open(path)?;
    if let Some(found) = present_loop_device(&file, read_only)? {
        return Ok(found);
    }
    let control = OpenOptions::new().read(true).write(true).open("/dev/loop-control")?;
    let mut outcome = Err(io::ErrorKind::ResourceBusy.into());
    for _ in 0..LOOP_TRIES {
        // SAFETY: the descriptor is open, and this request has no argument.
        let number = unsafe { libc::ioctl(control.as_raw_fd(), LOOP_CTL_GET_FREE) };
        if number < 0 {
            return Err(io::Error::last_os_error());
        }
        let name = PathBuf::from(format!("/dev/loop{number}"));
        let device = OpenOptions::new().read(true).write(!read_only).open(&name)?;
        match configure(&device, &file, read_only) {
            Err(e) if e.raw_os_error() == Some(libc::EBUSY) => outcome = Err(e),
            done => return done.map(|()| (name, device)),
        }
    }
    outcome
}

/// The loop device that a file is on.
fn present_loop_device(file: &File, read_only: bool) -> io::Result<Option<(PathBuf, File)>> {
    let meta = file.metadata()?;
    for entry in std::fs::read_dir("/sys/block")? {
        let name = entry?.file_name();
        if !name.to_string_lossy().starts_with("loop") {
            continue;
        }
        let path = Path::new("/dev").join(&name);
        let Ok(device) = OpenOptions::new().read(true).write(!read_only).open(&path) else {
            continue;
        };
        if !device.metadata()?.file_type().is_block_device() {
            continue;
        }
        // Only while it is held is it certain that it stays what it is.
        if let Some(info) = status(&device)
            && (info.device, info.inode) == (meta.dev(), meta.ino())
            && (info.offset, info.size_limit) == (0, 0)
        {
            return Ok(Some((path, device)));
        }
    }
    Ok(None)
}

/// `LOOP_CTL_GET_FREE`, include/uapi/linux/loop.h.
const LOOP_CTL_GET_FREE: libc::Ioctl = 0x4C82;
/// `LOOP_CONFIGURE`.
const LOOP_CONFIGURE: libc::Ioctl = 0x4C0A;
/// `LOOP_GET_STATUS64`.
const LOOP_GET_STATUS64: libc::Ioctl = 0x4C05;
/// `LO_FLAGS_READ_ONLY`.
const LO_FLAGS_READ_ONLY: u32 = 1;
/// `LO_FLAGS_AUTOCLEAR`.
const LO_FLAGS_AUTOCLEAR: u32 = 4;

/// `struct loop_info64`.
#[repr(C)]
#[derive(Clone, Copy)]
struct LoopInfo {
    device: u64,
    inode: u64,
    rdevice: u64,
    offset: u64,
    size_limit: u64,
    number: u32,
    encrypt_type: u32,
    encrypt_key_size: u32,
    flags: u32,
    file_name: [u8; 64],
    crypt_name: [u8; 64],
    encrypt_key: [u8; 32],
    init: [u64; 2],
}

/// `struct loop_config`.
#[repr(C)]
struct LoopConfig {
    fd: u32,
    block_size: u32,
    info: LoopInfo,
    reserved: [u64; 8],
}

fn no_info() -> LoopInfo {
    // SAFETY: all of its fields are numbers, for which zero is a value.
    unsafe { std::mem::zeroed() }
}

fn configure(device: &File, file: &File, read_only: bool) -> io::Result<()> {
    let flags = LO_FLAGS_AUTOCLEAR | if read_only { LO_FLAGS_READ_ONLY } else { 0 };
    let info = LoopInfo { flags, ..no_info() };
    let config =
        LoopConfig { fd: file.as_raw_fd().unsigned_abs(), block_size: 0, info, reserved: [0; 8] };
    // SAFETY: the argument is a structure of this request's layout that lives through the call; the
    // kernel reads it.
    match unsafe { libc::ioctl(device.as_raw_fd(), LOOP_CONFIGURE, &config) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// The device and inode of the file that a loop device shows; none for a free one, and for what is
/// no loop device.
pub(crate) fn behind_loop_device(device: &Path) -> Option<(u64, u64)> {
    let device = File::open(device)
        .ok()
        .filter(|d| d.metadata().is_ok_and(|m| m.file_type().is_block_device()))?;
    status(&device).map(|info| (info.device, info.inode))
}

/// What a loop device is set to; none for a free one.
fn status(device: &File) -> Option<LoopInfo> {
    let mut info = no_info();
    // SAFETY: the argument is a structure of this request's layout that lives through the call; the
    // kernel fills it.
    let done = unsafe { libc::ioctl(device.as_raw_fd(), LOOP_GET_STATUS64, &mut info) };
    (done == 0).then_some(info)
}
