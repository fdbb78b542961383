//! The cgroups of a run: directories of its own in the machine's hierarchies, and what the test
//! host shows of them.
//!
//! The default test host has cgroup2 alone. With `LXC_CR_TEST_CGROUP=hybrid` it has what the
//! machine has: the v1 hierarchies beside it, as hosts with LXC 5 and 6 can have. LXC 7 does not
//! start containers there.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::unistd::getpid;

use super::run::wait_for;

/// Names the layout in the environment: `unified`, or `hybrid`.
const LAYOUT: &str = "LXC_CR_TEST_CGROUP";
/// Where everything is mounted in the test host.
const MOUNT: &str = "/sys/fs/cgroup";
/// How long processes in the host may take to be gone once they were killed.
const GONE_LIMIT: Duration = Duration::from_secs(10);
/// What each run's directories are called, before its pid.
const PREFIX: &str = "lxc-cr-";

/// Whether the test host, in which we are, has v1 hierarchies.
pub fn is_hybrid() -> bool {
    Path::new(MOUNT).join("unified/cgroup.procs").exists()
}

/// Whether the test host that is to be entered shall have them.
pub fn is_asked_to_be_hybrid() -> bool {
    std::env::var(LAYOUT).is_ok_and(|layout| layout == "hybrid")
}

/// Where the test host has cgroup2.
pub fn unified() -> PathBuf {
    if is_hybrid() { Path::new(MOUNT).join("unified") } else { MOUNT.into() }
}

/// Where the test host has a v1 controller.
pub fn legacy(controller: &str) -> PathBuf {
    Path::new(MOUNT).join(controller)
}

/// Where the test host has its hierarchies.
pub fn roots() -> Vec<PathBuf> {
    if !is_hybrid() {
        return vec![MOUNT.into()];
    }
    fs::read_dir(MOUNT).into_iter().flatten().flatten().map(|entry| entry.path()).collect()
}

/// Removes a cgroup that a monitor which was killed has left, in all hierarchies.
pub fn remove_all(name: &str) {
    for root in roots() {
        let _ = fs::remove_dir(root.join(name));
    }
}

/// A directory in one of the machine's hierarchies.
struct Place {
    /// The controllers as /proc/PID/cgroup spells them; empty for cgroup2.
    controllers: String,
    /// In what it is made.
    above: PathBuf,
    dir: PathBuf,
}

/// The directories of one run.
pub struct Cgroups {
    unified: Place,
    legacy: Vec<Place>,
    /// Undoes [`hand_on_controllers`].
    take_back: Option<(PathBuf, String)>,
}

impl Cgroups {
    /// Finds the places, and removes what runs that were killed have left there.
    pub fn prepare() -> Result<Cgroups, String> {
        let name = format!("{PREFIX}{}", std::process::id());
        let own = fs::read_to_string("/proc/self/cgroup")
            .map_err(|e| format!("read /proc/self/cgroup: {e}"))?;
        let mut places = Vec::new();
        for (kind, mount, options) in mounts() {
            for line in own.lines() {
                let mut fields = line.splitn(3, ':').skip(1);
                let (Some(controllers), Some(path)) = (fields.next(), fields.next()) else {
                    continue;
                };
                let here = match kind.as_str() {
                    "cgroup2" => controllers.is_empty(),
                    _ => {
                        !controllers.is_empty()
                            && controllers.split(',').all(|c| options.split(',').any(|o| o == c))
                    }
                };
                if here {
                    // Below our own on v1, whose limits stay in force. Below the root on cgroup2,
                    // for only there are the controllers that can be handed on.
                    let own =
                        if controllers.is_empty() { "" } else { path.trim_start_matches('/') };
                    let above = mount.join(own);
                    places.push(Place {
                        controllers: controllers.to_owned(),
                        dir: above.join(&name),
                        above,
                    });
                }
            }
        }
        places.iter().for_each(|place| remove_stale(&place.above));
        let unified = places.iter().position(|p| p.controllers.is_empty());
        let unified = places.swap_remove(unified.ok_or("no cgroup2 mount on this machine")?);
        let hybrid = is_asked_to_be_hybrid();
        if hybrid && places.is_empty() {
            return Err("no cgroup v1 hierarchies on this machine".to_owned());
        }
        let legacy = if hybrid { places } else { Vec::new() };
        let take_back = hand_on_controllers(&unified.above);
        Ok(Cgroups { unified, legacy, take_back })
    }

    /// Makes the directories and goes there. A cgroup namespace of its own keeps runs apart. The
    /// processes sit in `init.scope` below its cgroup2 root: LXC, which takes pid 1's cgroup for
    /// its base, cuts that name off, and the root is free to hand on its controllers.
    pub fn enter(&self) -> Result<(), String> {
        let scope = self.unified.dir.join("init.scope");
        fs::create_dir_all(&scope).map_err(|e| format!("make {}: {e}", scope.display()))?;
        let enter = |dir: &Path| {
            fs::write(dir.join("cgroup.procs"), getpid().to_string())
                .map_err(|e| format!("enter {}: {e}", dir.display()))
        };
        enter(&self.unified.dir)?;
        for Place { dir, above, .. } in &self.legacy {
            fs::create_dir_all(dir).map_err(|e| format!("make {}: {e}", dir.display()))?;
            // A new cpuset is empty.
            for file in ["cpuset.cpus", "cpuset.mems"] {
                if let Ok(value) = fs::read_to_string(above.join(file)) {
                    fs::write(dir.join(file), value)
                        .map_err(|e| format!("set {file} of {}: {e}", dir.display()))?;
                }
            }
            enter(dir)?;
        }
        unshare(CloneFlags::CLONE_NEWCGROUP).map_err(|e| format!("unshare cgroup: {e}"))?;
        enter(&scope)
    }

    /// Mounts them below the root of the test host.
    pub fn mount(&self, root: &Path) -> Result<(), String> {
        let top = root.join(MOUNT.trim_start_matches('/'));
        let put = |kind: &str, target: &Path, data: &str| {
            let told = mount(Some(kind), target, Some(kind), MsFlags::empty(), Some(data));
            told.map_err(|e| format!("mount {kind} ({data}) on {}: {e}", target.display()))
        };
        if self.legacy.is_empty() {
            return put("cgroup2", &top, "");
        }
        put("tmpfs", &top, "mode=755")?;
        let make = |name: &str| {
            let dir = top.join(name);
            fs::create_dir(&dir).map_err(|e| format!("make {}: {e}", dir.display())).map(|()| dir)
        };
        put("cgroup2", &make("unified")?, "")?;
        for Place { controllers, .. } in &self.legacy {
            let (name, data) = match controllers.strip_prefix("name=") {
                Some(name) => (name, format!("none,{controllers}")),
                None => (controllers.as_str(), controllers.clone()),
            };
            put("cgroup", &make(name)?, &data)?;
        }
        Ok(())
    }

    /// Ends what is in them and removes them.
    pub fn remove(&self) {
        let all = || self.legacy.iter().chain([&self.unified]);
        if self.unified.dir.exists() {
            let _ = fs::write(self.unified.dir.join("cgroup.kill"), "1");
            let gone = wait_for("the test host's cgroups to be empty", GONE_LIMIT, || {
                all().for_each(|place| remove_tree(&place.dir));
                all().all(|place| !place.dir.exists()).then_some(())
            });
            if let Err(error) = gone {
                eprintln!("test host: {error}: {}", self.unified.dir.display());
            }
        }
        if let Some((control, back)) = &self.take_back {
            // Refused while another run uses them.
            let _ = fs::write(control, back);
        }
    }
}

/// The machine's mounts of cgroups: kind, place and options.
fn mounts() -> Vec<(String, PathBuf, String)> {
    let text = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let mount = |line: &str| {
        let (mount, kind) = line.split_once(" - ")?;
        let kind: Vec<&str> = kind.split(' ').collect();
        let is_cgroup = ["cgroup", "cgroup2"].contains(kind.first()?);
        is_cgroup.then_some((
            kind[0].to_owned(),
            mount.split(' ').nth(4)?.into(),
            (*kind.last()?).to_owned(),
        ))
    };
    text.lines().filter_map(mount).collect()
}

/// On a hybrid machine nobody manages the cgroup2 tree, and what its root does not hand on is
/// missing below: without any controller LXC's own checkpoint fails.
fn hand_on_controllers(tree: &Path) -> Option<(PathBuf, String)> {
    let control = tree.join("cgroup.subtree_control");
    let offered = fs::read_to_string(tree.join("cgroup.controllers")).ok()?;
    let signed =
        |sign| offered.split_whitespace().map(|c| format!("{sign}{c} ")).collect::<String>();
    let unmanaged = fs::read_to_string(&control).ok()?.trim().is_empty();
    (unmanaged && fs::write(&control, signed('+')).is_ok()).then(|| (control.clone(), signed('-')))
}

/// What a run that was killed could not remove.
fn remove_stale(above: &Path) {
    for entry in fs::read_dir(above).into_iter().flatten().flatten() {
        if of_a_dead_run(&entry.file_name().to_string_lossy()) {
            remove_tree(&entry.path());
        }
    }
}

/// Whether something is named after a run that is no more.
pub fn of_a_dead_run(name: &str) -> bool {
    let pid = name.strip_prefix(PREFIX).and_then(|n| n.parse::<u32>().ok());
    pid.is_some_and(|pid| !Path::new(&format!("/proc/{pid}")).exists())
}

/// Removes a cgroup with all below it. Errors are left to the caller's next look: a populated one
/// stays.
fn remove_tree(dir: &Path) {
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove_tree(&entry.path());
        }
    }
    let _ = fs::remove_dir(dir);
}
