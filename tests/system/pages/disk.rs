//! A disk that stalls or fails: a memory image is put behind a FUSE file system of one file, served
//! from here.
//!
//! Numbers and structures: include/uapi/linux/fuse.h.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use nix::mount::{MntFlags, MsFlags, mount, umount2};

const GETATTR: u32 = 3;
const OPEN: u32 = 14;
const READ: u32 = 15;
const RELEASE: u32 = 18;
const FLUSH: u32 = 25;
const INIT: u32 = 26;
/// These have no answer.
const FORGET: u32 = 2;
const INTERRUPT: u32 = 36;
const BATCH_FORGET: u32 = 42;
const HEADER: usize = 40;
/// Larger than any request.
const BUFFER: usize = 1 << 20;
/// One of so many reads takes long.
const LONG_OF: u64 = 40;

/// How it is from now on.
#[derive(Clone, Copy, Debug)]
pub enum Mood {
    Fine,
    /// Each read takes this long, some of them a hundred times that.
    Stalls(Duration),
    /// So many reads succeed, and then none.
    FailsAfter(u64),
}

/// The image while it is behind it.
#[derive(Debug)]
pub struct Disk {
    image: PathBuf,
    pause_us: Arc<AtomicU64>,
    left: Arc<AtomicU64>,
    server: Option<JoinHandle<io::Result<()>>>,
}

impl Disk {
    /// Puts an image behind it; none on a machine without FUSE.
    pub fn cover(image: &Path) -> Option<Disk> {
        let file = File::open(image).unwrap();
        let device = match OpenOptions::new().read(true).write(true).open("/dev/fuse") {
            Ok(device) => device,
            Err(e) => {
                println!("a disk neither stalls nor fails: open /dev/fuse: {e}");
                return None;
            }
        };
        let options = format!("fd={},rootmode=100600,user_id=0,group_id=0", device.as_raw_fd());
        mount(Some("disk"), image, Some("fuse"), MsFlags::empty(), Some(options.as_str())).unwrap();
        let (pause_us, left) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(u64::MAX)));
        let (pause, reads) = (Arc::clone(&pause_us), Arc::clone(&left));
        let server = std::thread::spawn(move || serve(device, &file, &pause, &reads));
        Some(Disk { image: image.to_owned(), pause_us, left, server: Some(server) })
    }

    /// Changes its mood.
    pub fn set(&self, mood: Mood) {
        let (pause, left) = match mood {
            Mood::Fine => (0, u64::MAX),
            Mood::Stalls(pause) => (pause.as_micros() as u64, u64::MAX),
            Mood::FailsAfter(reads) => (0, reads),
        };
        self.pause_us.store(pause, Ordering::SeqCst);
        self.left.store(left, Ordering::SeqCst);
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        self.set(Mood::Fine);
        if let Err(e) = umount2(&self.image, MntFlags::MNT_DETACH) {
            println!("unmount {}: {e}", self.image.display());
        }
        if let Some(Err(e)) = self.server.take().and_then(|server| server.join().ok()) {
            println!("the disk: {e}");
        }
    }
}

fn serve(mut device: File, file: &File, pause_us: &AtomicU64, left: &AtomicU64) -> io::Result<()> {
    let mut buffer = vec![0; BUFFER];
    let mut random = 1u64;
    loop {
        let length = match device.read(&mut buffer) {
            Ok(length) => length,
            // It is unmounted, and no file of it is open any more.
            Err(e) if e.raw_os_error() == Some(libc::ENODEV) => return Ok(()),
            Err(e) if e.raw_os_error() == Some(libc::ENOENT) => continue,
            Err(e) => return Err(e),
        };
        let request = &buffer[..length];
        let (kind, unique) = (number::<4>(request, 4) as u32, number::<8>(request, 8));
        let answer = match kind {
            FORGET | BATCH_FORGET | INTERRUPT => continue,
            INIT => Ok(init()),
            GETATTR => Ok(attributes(&file.metadata()?)),
            OPEN => Ok(vec![0; 16]),
            RELEASE | FLUSH => Ok(Vec::new()),
            READ => {
                random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                let times = if (random >> 33).is_multiple_of(LONG_OF) { 100 } else { 1 };
                let pause = Duration::from_micros(pause_us.load(Ordering::SeqCst));
                std::thread::sleep(pause * times);
                read(file, request, left)
            }
            _ => Err(libc::ENOSYS),
        };
        let (error, body) = match answer {
            Ok(body) => (0, body),
            Err(number) => (-number, Vec::new()),
        };
        let mut reply = ((16 + body.len()) as u32).to_ne_bytes().to_vec();
        reply.extend(error.to_ne_bytes());
        reply.extend(unique.to_ne_bytes());
        reply.extend(body);
        match device.write_all(&reply) {
            // Nobody waits for it any more.
            Err(e) if e.raw_os_error() == Some(libc::ENOENT) => {}
            done => done?,
        }
    }
}

fn number<const SIZE: usize>(bytes: &[u8], at: usize) -> u64 {
    let mut wide = [0; 8];
    wide[..SIZE].copy_from_slice(&bytes[at..at + SIZE]);
    u64::from_ne_bytes(wide)
}

fn read(file: &File, request: &[u8], left: &AtomicU64) -> Result<Vec<u8>, i32> {
    let can = left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1));
    can.map_err(|_| libc::EIO)?;
    let (offset, size) =
        (number::<8>(request, HEADER + 8), number::<4>(request, HEADER + 16) as usize);
    let mut bytes = vec![0; size];
    let length = file.read_at(&mut bytes, offset).map_err(|_| libc::EIO)?;
    bytes.truncate(length);
    Ok(bytes)
}

/// `fuse_init_out`.
fn init() -> Vec<u8> {
    let mut out = Vec::new();
    for word in [7u32, 31, 128 << 10, 0] {
        out.extend(word.to_ne_bytes());
    }
    out.extend(16u16.to_ne_bytes());
    out.extend(12u16.to_ne_bytes());
    out.extend((128u32 << 10).to_ne_bytes());
    out.resize(64, 0);
    out
}

/// `fuse_attr_out`, which the kernel is not to ask for again.
fn attributes(meta: &fs::Metadata) -> Vec<u8> {
    let mut out = Vec::new();
    for word in [3600, 0, 1, meta.size(), meta.blocks(), 0, meta.mtime() as u64, 0] {
        out.extend(word.to_ne_bytes());
    }
    for word in [0, 0, 0, 0o100_600, 1, 0, 0, 0, 4096, 0u32] {
        out.extend(word.to_ne_bytes());
    }
    out
}
