//! What one trial has: a container path of its own, a place for images, names and addresses.

use std::fs;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU8, Ordering};

use nix::mount::{MntFlags, umount2};

use super::container::Container;
use super::enter::{DEFAULT_LXCPATH, DISK, LOGS, SHM};
use super::installed::Installed;
use super::run::Run;

/// The state of one trial; what it made is stopped and removed when it is dropped.
#[derive(Debug)]
pub struct World {
    name: String,
    lxcpath: PathBuf,
    made: AtomicU8,
}

impl World {
    /// The world of a trial. Dropping any `World` of the same name removes all that it made.
    pub fn new(name: &str) -> World {
        World::at(name, Path::new(DISK))
    }

    /// The same with containers and images on the tmpfs.
    pub fn on_tmpfs(name: &str) -> World {
        World::at(name, Path::new(SHM))
    }

    /// The same in LXC's own container path: its commands need no `-P`.
    pub fn in_default_lxcpath(name: &str) -> World {
        World::with_lxcpath(name, DEFAULT_LXCPATH.into())
    }

    fn at(name: &str, place: &Path) -> World {
        World::with_lxcpath(name, place.join(name))
    }

    fn with_lxcpath(name: &str, lxcpath: PathBuf) -> World {
        fs::create_dir_all(&lxcpath).unwrap();
        World { name: name.to_owned(), lxcpath, made: AtomicU8::new(0) }
    }

    /// The container path (`-P`).
    pub fn lxcpath(&self) -> &Path {
        &self.lxcpath
    }

    /// A directory for images, made if it is missing.
    pub fn images(&self, name: &str) -> PathBuf {
        let dir = self.lxcpath.join("images").join(name);
        fs::create_dir_all(&dir).unwrap();
        dir
    }

    /// An installation of ours for its containers.
    pub fn installed(&self) -> Installed {
        Installed::make(&self.images("prefix"))
    }

    /// A directory for logs that stay when the trial fails.
    pub fn logs(&self) -> PathBuf {
        let dir = Path::new(LOGS).join(&self.name);
        fs::create_dir_all(&dir).unwrap();
        dir
    }

    /// The container of the recipe, with the witness in it.
    pub fn container(&self) -> Container<'_> {
        let number = self.made.load(Ordering::Relaxed) + 1;
        self.container_named(&format!("test-lxc-{number}"))
    }

    /// The same with a name.
    pub fn container_named(&self, name: &str) -> Container<'_> {
        let number = self.made.fetch_add(1, Ordering::Relaxed) + 1;
        Container::make(self, name, Ipv4Addr::new(10, 99, 0, 10 + number))
    }

    /// A command of LXC on a container of this world.
    pub fn lxc(&self, program: &str, container: &str) -> Run {
        self.on(Run::new(program), container)
    }

    /// One of our commands on a container of this world.
    pub fn ours(&self, program: &str, container: &str) -> Run {
        self.on(Run::ours(program), container)
    }

    /// A command of LXC on all containers of this world.
    pub fn of_all(&self, program: &str) -> Run {
        self.in_lxcpath(Run::new(program))
    }

    /// A subcommand of `lxc-cr` on a container of this world.
    pub fn lxc_cr(&self, subcommand: &str, container: &str) -> Run {
        self.on(Run::ours("lxc-cr").arg(subcommand), container)
    }

    fn on(&self, run: Run, container: &str) -> Run {
        self.in_lxcpath(run).args(["-n", container])
    }

    fn in_lxcpath(&self, run: Run) -> Run {
        if self.lxcpath == Path::new(DEFAULT_LXCPATH) { run } else { run.arg("-P").arg(&self.lxcpath) }
    }
}

impl Drop for World {
    fn drop(&mut self) {
        for entry in fs::read_dir(&self.lxcpath).into_iter().flatten().flatten() {
            let Ok(name) = entry.file_name().into_string() else { continue };
            if entry.path().join("config").exists() {
                self.lxc("lxc-unfreeze", &name).output();
                self.lxc("lxc-stop", &name).arg("-k").output();
                keep_logs(&entry.path(), &self.logs().join(&name));
            }
        }
        keep_logs(&self.lxcpath.join("images"), &self.logs().join("images"));
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        for point in mounts.lines().rev().filter_map(|line| line.split(' ').nth(4)) {
            if Path::new(point) != self.lxcpath && Path::new(point).starts_with(&self.lxcpath) {
                // The trial fails for it: the snapshot before had one mount less.
                eprintln!("left mounted: {point}");
                let _ = umount2(point, MntFlags::MNT_DETACH);
            }
        }
        for entry in fs::read_dir(&self.lxcpath).into_iter().flatten().flatten() {
            let is_dir = entry.file_type().is_ok_and(|t| t.is_dir());
            let removed = if is_dir { fs::remove_dir_all(entry.path()) } else { fs::remove_file(entry.path()) };
            if let Err(error) = removed {
                eprintln!("remove {}: {error}", entry.path().display());
            }
        }
        // The default one is a mount point and stays.
        let _ = fs::remove_dir(&self.lxcpath);
    }
}

/// Copies every log file below `from`.
fn keep_logs(from: &Path, to: &Path) {
    for entry in fs::read_dir(from).into_iter().flatten().flatten() {
        let path = entry.path();
        if entry.file_name() == "rootfs" {
            continue;
        }
        if path.is_dir() {
            keep_logs(&path, &to.join(entry.file_name()));
        } else if path.extension().is_some_and(|e| e == "log") {
            let _ = fs::create_dir_all(to).and_then(|()| fs::copy(&path, to.join(entry.file_name())));
        }
    }
}
