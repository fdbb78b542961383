//! A container that does what it is told from inside, and the host as it must stay meanwhile.

use std::collections::BTreeMap;
use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::container::Container;
use super::enter::{HOSTILE, LOGS};
use super::run::{Run, wait_for};
use super::world::World;

/// For it to do what it is told.
const LIMIT: Duration = Duration::from_secs(20);
/// Its root's user on the host, with an id map.
const GUEST: &str = "100000";

/// A container with `tests/system/hostile` as its init.
#[derive(Debug)]
pub struct Hostile<'w> {
    pub container: Container<'w>,
    /// A directory of the host's that it shares, as /shared.
    pub shared: PathBuf,
    /// A directory of the host's that it wants to change.
    pub victim: PathBuf,
}

impl<'w> Hostile<'w> {
    /// Makes one that will do this at its start.
    pub fn make(world: &'w World, name: &str, id_mapped: bool, plan: &[String]) -> Hostile<'w> {
        let container = world.container_named(name);
        let (shared, victim) =
            (world.images(&format!("{name}-shared")), world.images(&format!("{name}-victim")));
        for dir in ["etc", "sub", "d"] {
            fs::create_dir_all(shared.join(dir)).unwrap();
            fs::create_dir_all(victim.join(dir)).unwrap();
            fs::write(victim.join(dir).join("file"), "of the host\n").unwrap();
        }
        let rootfs = container.rootfs();
        fs::copy(HOSTILE, rootfs.join("hostile")).unwrap();
        fs::set_permissions(rootfs.join("hostile"), fs::Permissions::from_mode(0o755)).unwrap();
        Run::new("mkfifo").arg(rootfs.join("more")).ok();
        let hostile = Hostile { container, shared, victim };
        let lines: Vec<String> = plan.iter().map(|line| hostile.fill_in(line)).collect();
        fs::write(rootfs.join("plan"), lines.join("\n")).unwrap();
        hostile.configure(id_mapped);
        hostile
    }

    /// A step with the host's paths in place of `@VICTIM`, `@SHARED`, `@ROOT`.
    pub fn fill_in(&self, line: &str) -> String {
        let path = |path: &Path| path.to_string_lossy().into_owned();
        line.replace("@VICTIM", &path(&self.victim))
            .replace("@SHARED", &path(&self.shared))
            .replace("@ROOT", &path(&self.container.rootfs()))
    }

    fn configure(&self, id_mapped: bool) {
        let dir = self.container.dir();
        let mut config = format!(
            "lxc.uts.name = {}\nlxc.rootfs.path = {}/rootfs\nlxc.net.0.type = \
             empty\nlxc.console.path = none\nlxc.tty.max = 0\nlxc.init.cmd = \
             /hostile\nlxc.mount.auto = proc:mixed sys:mixed\nlxc.apparmor.profile = \
             unconfined\nlxc.mount.entry = {} shared none bind,create=dir 0 0\n",
            self.container.name(),
            dir.display(),
            self.shared.display(),
        );
        if id_mapped {
            config += &format!("lxc.idmap = u 0 {GUEST} 65536\nlxc.idmap = g 0 {GUEST} 65536\n");
            let owner = format!("{GUEST}:{GUEST}");
            Run::new("chown")
                .args(["-R", &owner])
                .arg(self.container.rootfs())
                .arg(&self.shared)
                .ok();
            Run::new("chown").arg(format!("{GUEST}:0")).arg(&dir).ok();
        }
        fs::write(dir.join("config"), config).unwrap();
    }

    /// Starts it; gives the steps that it could not do.
    pub fn start(&self) -> Vec<String> {
        self.container.start();
        self.wait_ready(1)
    }

    /// Lets it do one more thing.
    pub fn go_on(&self, step: &str) -> Vec<String> {
        let before = self.answer().iter().filter(|line| *line == "ready").count();
        fs::write(self.container.rootfs().join("more"), format!("{}\n", self.fill_in(step)))
            .unwrap();
        self.wait_ready(before + 1)
    }

    fn answer(&self) -> Vec<String> {
        let text = fs::read(self.container.rootfs().join("answer")).unwrap_or_default();
        String::from_utf8_lossy(&text).lines().map(str::to_owned).collect()
    }

    fn wait_ready(&self, times: usize) -> Vec<String> {
        let done = || {
            let lines = self.answer();
            (lines.iter().filter(|line| *line == "ready").count() >= times).then_some(lines)
        };
        let lines = wait_for("the hostile init to do it", LIMIT, done)
            .unwrap_or_else(|e| panic!("{e}: {:?}", self.answer()));
        lines.into_iter().filter(|line| line != "ready").collect()
    }
}

/// How each file of the host is: all that a change of it, or of what is in it, would change.
#[derive(Debug, PartialEq, Eq)]
pub struct HostTree(BTreeMap<PathBuf, String>);

/// What is of the kernel or in memory, and changes by itself.
const ALIVE: &[&str] = &[
    // The register of checkpoints.
    "/var/lib/lxc-cr",
    "/proc",
    "/sys",
    "/run",
    "/tmp",
    "/dev/pts",
    "/dev/ptmx",
    "/dev/shm",
    "/dev/char",
    LOGS,
    "/var/log",
    "/var/cache",
];
/// Large, and not what is aimed at.
const LARGE: &[&str] = &["/usr/lib", "/usr/share", "/usr/include"];

impl HostTree {
    /// All of it, but what is below these.
    pub fn take(without: &[&Path]) -> HostTree {
        let mut found = BTreeMap::new();
        let skipped: Vec<&Path> =
            ALIVE.iter().chain(LARGE).map(Path::new).chain(without.iter().copied()).collect();
        look(Path::new("/"), &skipped, &mut found);
        HostTree(found)
    }

    /// Only what is below this.
    pub fn of(dir: &Path) -> HostTree {
        let mut found = BTreeMap::new();
        look(dir, &[], &mut found);
        HostTree(found)
    }

    /// What has changed since, in words.
    pub fn changes(&self, since: &HostTree) -> Vec<String> {
        let mut told = Vec::new();
        for (path, now) in &self.0 {
            match since.0.get(path) {
                None => told.push(format!("{} is new: {now}", path.display())),
                Some(then) if then != now => {
                    told.push(format!("{} was {then} and is {now}", path.display()))
                }
                Some(_) => {}
            }
        }
        told.extend(
            since
                .0
                .keys()
                .filter(|path| !self.0.contains_key(*path))
                .map(|path| format!("{} is gone", path.display())),
        );
        told
    }
}

fn look(path: &Path, skipped: &[&Path], found: &mut BTreeMap<PathBuf, String>) {
    if skipped.contains(&path) {
        return;
    }
    let meta = match path.symlink_metadata() {
        Ok(meta) => meta,
        Err(e) if e.kind() == ErrorKind::NotFound => return,
        Err(e) => panic!("inspect {}: {e}", path.display()),
    };
    let m = &meta;
    found.insert(
        path.to_owned(),
        format!(
            "{}:{} {:o} {}:{} {} {}.{} {}.{}",
            m.dev(),
            m.ino(),
            m.mode(),
            m.uid(),
            m.gid(),
            m.size(),
            m.mtime(),
            m.mtime_nsec(),
            m.ctime(),
            m.ctime_nsec()
        ),
    );
    if meta.is_dir() {
        for entry in fs::read_dir(path).into_iter().flatten().flatten() {
            look(&entry.path(), skipped, found);
        }
    }
}
