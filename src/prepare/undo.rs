//! What is kept to take changes back: a file beside what was changed, root's alone, written before
//! each change.
//!
//! Unlike the journal of an operation ([`crate::rollback`]), which is gone after a reboot like all
//! that it speaks of, this lives as long as the changes do. A file that nobody touched since gets
//! back exactly what it held. Of one that was edited since, only the lines that were added go;
//! where they do not stand there any more, it is left alone and named.

use std::fs;
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use nix::errno::Errno;
use nix::mount::umount;
use serde::{Deserialize, Serialize};

use super::change::{Change, Content, without_added_lines};
use crate::lxc::container;
use crate::sys::files;
use crate::sys::in_root::Below;
use crate::sys::netlink::{self, Netlink};
use crate::sys::path_trust::{self, Guest};

/// The version of the file's form.
const VERSION: u32 = 1;
/// Proxmox VE's file system for its definitions: modes and owners are its own there.
const IN_PLACE: &str = "/etc/pve";
/// The mode of directories that are made.
const DIRECTORY: u32 = 0o755;

/// One change, and what its undoing needs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "what")]
pub(crate) enum Step {
    /// A file was written.
    File {
        /// Where; relative to the directory of the kept file if it is in there.
        path: PathBuf,
        /// What it held; nothing if it was not there.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        before: Option<Content>,
        /// What was written.
        after: Content,
    },
    /// A directory was made for a file.
    Directory {
        /// Where.
        path: PathBuf,
    },
    /// LXC will make these in a root, for mounts that are now configured: none of them was there.
    MountPoints {
        /// The root, whose inside is not trusted.
        root: PathBuf,
        /// Files and directories, parents before children.
        paths: Vec<PathBuf>,
    },
    /// A bridge was made.
    Bridge {
        /// Its name.
        name: String,
    },
    /// An interface was made a port of a bridge.
    Port {
        /// The interface.
        name: String,
        /// The bridge.
        bridge: String,
    },
    /// Something was mounted.
    Mount {
        /// Where.
        path: PathBuf,
    },
    /// An address was given to an interface that was there.
    Address {
        /// The interface.
        name: String,
        /// The address.
        address: IpAddr,
        /// The length of its prefix.
        prefix: u8,
    },
    /// Controllers were handed on to the cgroups below a directory.
    Controllers {
        /// Its `cgroup.subtree_control`.
        file: PathBuf,
        /// Their names.
        names: Vec<String>,
    },
}

#[derive(Debug, Serialize, Deserialize)]
struct Text {
    version: u32,
    #[serde(default)]
    step: Vec<Step>,
}

/// The kept file.
#[derive(Debug)]
pub(crate) struct Kept {
    path: PathBuf,
    steps: Vec<Step>,
}

/// How an undoing went.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Undone {
    /// What was done.
    pub told: Vec<String>,
    /// What was not, and why.
    pub left: Vec<String>,
}

impl Kept {
    /// Reads the file; one that is not there holds nothing.
    ///
    /// # Errors
    /// When somebody else could have written it, or another version did.
    pub(crate) fn open(guest: Option<Guest>, path: &Path) -> Result<Kept> {
        let mut kept = Kept { path: path.to_owned(), steps: Vec::new() };
        let Some(file) = path_trust::open_own(guest, path)? else { return Ok(kept) };
        let text = io::read_to_string(file).with_context(|| format!("read {}", path.display()))?;
        let text: Text =
            toml::from_str(&text).with_context(|| format!("read {}", path.display()))?;
        if text.version != VERSION {
            bail!(
                "{} is of version {}: another lxc-cr has written it",
                path.display(),
                text.version
            );
        }
        kept.steps = text.step;
        Ok(kept)
    }

    /// How many changes there are.
    pub(crate) fn len(&self) -> usize {
        self.steps.len()
    }

    /// Writes down a change that is about to be made.
    pub(crate) fn note(&mut self, step: Step) -> Result<()> {
        self.steps.push(step);
        self.rewrite()
    }

    /// Changes a file.
    pub(crate) fn change(&mut self, change: &Change) -> Result<()> {
        let path = &change.path;
        for dir in missing_directories(path) {
            self.note(Step::Directory { path: dir.clone() })?;
            let mode = std::os::unix::fs::PermissionsExt::from_mode(DIRECTORY);
            fs::create_dir(&dir)
                .and_then(|()| fs::set_permissions(&dir, mode))
                .with_context(|| format!("make {}", dir.display()))?;
        }
        if Content::read(path).with_context(|| format!("read {}", path.display()))? != change.before
        {
            bail!("{} has changed meanwhile", path.display());
        }
        let step = Step::File {
            path: self.short(path),
            before: change.before.clone(),
            after: change.after.clone(),
        };
        self.note(step)?;
        put(path, &change.after, change.mode)
    }

    /// Takes all back, the newest change first.
    pub(crate) fn undo(&mut self) -> Result<Undone> {
        self.undo_from(0)
    }

    /// Takes the changes back that were made since there were `first`. What cannot be taken back is
    /// kept.
    pub(crate) fn undo_from(&mut self, first: usize) -> Result<Undone> {
        let mut undone = Undone::default();
        let mut kept = Vec::new();
        for step in self.steps.split_off(first.min(self.steps.len())).into_iter().rev() {
            let left = undone.left.len();
            if let Err(e) = self.undo_step(&step, &mut undone) {
                undone.left.push(format!("{e:#}"));
            }
            if undone.left.len() > left {
                kept.insert(0, step);
            }
        }
        self.steps.extend(kept);
        self.rewrite()?;
        Ok(undone)
    }

    fn undo_step(&self, step: &Step, undone: &mut Undone) -> Result<()> {
        match step {
            Step::File { path, before, after } => {
                self.undo_file(&self.long(path), before.as_ref(), after, undone)
            }
            Step::Directory { path } => {
                match fs::remove_dir(path) {
                    Ok(()) => undone.told.push(format!("{} removed", path.display())),
                    // Somebody uses it by now, or has removed it.
                    Err(e) => log::debug!("remove {}: {e}", path.display()),
                }
                Ok(())
            }
            Step::MountPoints { root, paths } => {
                let Ok(below) = Below::open(root) else { return Ok(()) };
                for path in paths.iter().rev() {
                    let removed = below.remove_empty(path);
                    if removed.with_context(|| {
                        format!("remove {} from {}", path.display(), root.display())
                    })? {
                        log::info!("removed {} from {}", path.display(), root.display());
                    }
                }
                Ok(())
            }
            Step::Bridge { name } => remove_bridge(name, undone),
            Step::Port { name, bridge } => release_port(name, bridge, undone),
            Step::Mount { path } => {
                if let Some(user) = running_below(path) {
                    undone.left.push(format!(
                        "{} stays mounted until a reboot: {user} runs",
                        path.display()
                    ));
                    return Ok(());
                }
                match umount(path) {
                    Ok(()) => undone.told.push(format!("{} is unmounted", path.display())),
                    Err(Errno::EINVAL | Errno::ENOENT) => {}
                    Err(e) => return Err(e).with_context(|| format!("unmount {}", path.display())),
                }
                Ok(())
            }
            Step::Address { name, address, prefix } => {
                let mut netlink = Netlink::open()?;
                let Ok(link) = netlink.link(name) else { return Ok(()) };
                let removed = netlink.remove_address(link.index, *address, *prefix);
                if removed.with_context(|| format!("take {address} from {name}"))? {
                    undone
                        .told
                        .push(format!("{name} has no longer the address {address}/{prefix}"));
                }
                Ok(())
            }
            Step::Controllers { file, names } => {
                if let Some(user) = file.parent().and_then(running_below) {
                    undone.left.push(format!(
                        "controllers {} are handed on until a reboot: {user} runs, and its limits \
                         are theirs",
                        names.join(", ")
                    ));
                    return Ok(());
                }
                let words: Vec<String> = names.iter().map(|n| format!("-{n}")).collect();
                fs::write(file, words.join(" ")).with_context(|| {
                    format!("take {} back in {}", names.join(", "), file.display())
                })?;
                undone
                    .told
                    .push(format!("controllers {} are no longer handed on", names.join(", ")));
                Ok(())
            }
        }
    }

    fn undo_file(
        &self,
        path: &Path,
        before: Option<&Content>,
        after: &Content,
        undone: &mut Undone,
    ) -> Result<()> {
        path_trust::check_of(None, path.parent().unwrap_or(path))
            .or_else(|_| self.is_beside(path))?;
        let what = || format!("read {}", path.display());
        let now = Content::read(path).with_context(what)?;
        if now.as_ref() == before {
            return Ok(());
        }
        match (before, now) {
            (None, Some(now)) if now == *after => {
                fs::remove_file(path).with_context(|| format!("remove {}", path.display()))?;
                undone.told.push(format!("{} removed", path.display()));
            }
            (Some(before), Some(now)) if now == *after => {
                put(path, before, 0)?;
                undone.told.push(format!("{} is as it was", path.display()));
            }
            (Some(before), Some(now)) => match without_added_lines(before, after, &now) {
                Some(rest) => {
                    put(path, &rest, 0)?;
                    undone.told.push(format!(
                        "{} was edited since: the lines that were added are gone, all others stay",
                        path.display()
                    ));
                }
                None => undone
                    .left
                    .push(format!("{} was edited since, and is left as it is", path.display())),
            },
            (None, Some(_)) => undone
                .left
                .push(format!("{} was edited since, and is left as it is", path.display())),
            (Some(_), None) => undone
                .left
                .push(format!("{} was removed since, and is not made again", path.display())),
            (None, None) => {}
        }
        Ok(())
    }

    /// A container's directory may be its root's; it was looked at when the kept file was opened.
    fn is_beside(&self, path: &Path) -> Result<()> {
        if path.parent() == self.path.parent() {
            return Ok(());
        }
        bail!("{} could be replaced by a user other than root", path.display())
    }

    fn directory(&self) -> &Path {
        self.path.parent().unwrap_or(Path::new("/"))
    }

    fn short(&self, path: &Path) -> PathBuf {
        path.strip_prefix(self.directory()).unwrap_or(path).to_owned()
    }

    fn long(&self, path: &Path) -> PathBuf {
        self.directory().join(path)
    }

    fn rewrite(&self) -> Result<()> {
        if self.steps.is_empty() {
            return files::remove_if_there(&self.path);
        }
        let text = Text { version: VERSION, step: self.steps.clone() };
        let text = toml::to_string(&text).context("put what is to be taken back into words")?;
        files::write_atomically(&self.path, text.as_bytes())
    }
}

/// Writes a file; one that has to stay the file that it is, in place.
fn put(path: &Path, content: &Content, mode: u32) -> Result<()> {
    match path.starts_with(IN_PLACE) {
        true => files::rewrite(path, &content.0),
        false => files::replace(path, &content.0, mode),
    }
}

/// The directories above a file that are not there, the topmost first.
fn missing_directories(path: &Path) -> Vec<PathBuf> {
    let mut missing: Vec<PathBuf> =
        path.ancestors().skip(1).take_while(|dir| !dir.exists()).map(Path::to_owned).collect();
    missing.reverse();
    missing
}

/// A container whose payload cgroup is in this directory of a hierarchy, and holds processes.
fn running_below(dir: &Path) -> Option<String> {
    let cgroups = fs::read_dir(dir).into_iter().flatten().flatten();
    let mut payloads = cgroups.filter_map(|entry| {
        let name = entry.file_name().into_string().ok()?;
        container::is_payload(Path::new(&name)).then(|| (name, entry.path().join("cgroup.events")))
    });
    payloads.find_map(|(name, events)| {
        let text = fs::read_to_string(events).unwrap_or_default();
        text.lines().any(|line| line == "populated 1").then_some(name)
    })
}

fn remove_bridge(name: &str, undone: &mut Undone) -> Result<()> {
    let mut netlink = Netlink::open()?;
    let bridge = match netlink.link(name) {
        Ok(link) if link.kind.as_deref() == Some("bridge") => link,
        Ok(_) | Err(netlink::Error::NotFound) => return Ok(()),
        Err(e) => return Err(e).with_context(|| format!("stat {name}")),
    };
    let ports: Vec<String> = netlink
        .links()?
        .into_iter()
        .filter(|l| l.controller == Some(bridge.index))
        .map(|l| l.name)
        .collect();
    if !ports.is_empty() {
        undone
            .left
            .push(format!("{name} stays up until a reboot: it has ports ({})", ports.join(", ")));
        return Ok(());
    }
    netlink.delete_link(bridge.index).with_context(|| format!("remove {name}"))?;
    undone.told.push(format!("bridge {name} removed"));
    Ok(())
}

fn release_port(name: &str, bridge: &str, undone: &mut Undone) -> Result<()> {
    let mut netlink = Netlink::open()?;
    let (Ok(link), Ok(bridge_link)) = (netlink.link(name), netlink.link(bridge)) else {
        return Ok(());
    };
    if link.controller == Some(bridge_link.index) {
        netlink
            .set_controller(link.index, None)
            .with_context(|| format!("take {name} off {bridge}"))?;
        undone.told.push(format!("{name} is no longer a port of {bridge}"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Case {
        top: tempfile::TempDir,
    }

    impl Case {
        fn new() -> Case {
            Case { top: tempfile::tempdir().unwrap() }
        }

        fn path(&self, name: &str) -> PathBuf {
            self.top.path().join(name)
        }

        fn kept(&self) -> Kept {
            Kept::open(None, &self.path("kept")).unwrap()
        }

        fn change(&self, name: &str, after: &str) {
            let path = self.path(name);
            let before = Content::read(&path).unwrap();
            self.kept().change(&Change { path, before, after: after.into(), mode: 0o644 }).unwrap();
        }

        fn read(&self, name: &str) -> Option<String> {
            fs::read_to_string(self.path(name)).ok()
        }
    }

    #[test]
    fn all_is_as_it_was() {
        let case = Case::new();
        fs::write(case.path("config"), "a\n").unwrap();
        fs::set_permissions(
            case.path("config"),
            std::os::unix::fs::PermissionsExt::from_mode(0o640),
        )
        .unwrap();
        case.change("config", "a\nb\n");
        case.change("config", "a\nb\nc\n");
        case.change("new/dir/file", "x\n");
        assert_eq!(case.read("config").unwrap(), "a\nb\nc\n");
        let mode = |name: &str| {
            std::os::unix::fs::MetadataExt::mode(&case.path(name).metadata().unwrap()) & 0o7777
        };
        assert_eq!((mode("config"), mode("new/dir/file"), mode("kept")), (0o640, 0o644, 0o600));
        let undone = case.kept().undo().unwrap();
        assert_eq!(undone.left, [""; 0]);
        assert_eq!((case.read("config").as_deref(), mode("config")), (Some("a\n"), 0o640));
        assert!(!case.path("new").exists() && !case.path("kept").exists());
        assert_eq!(case.kept().undo().unwrap(), Undone::default());
    }

    #[test]
    fn controllers_that_a_container_is_limited_by_stay() {
        let case = Case::new();
        let events = case.path("lxc.payload.web/cgroup.events");
        fs::create_dir(case.path("lxc.payload.web")).unwrap();
        fs::write(&events, "populated 1\nfrozen 0\n").unwrap();
        let file = case.path("cgroup.subtree_control");
        case.kept()
            .note(Step::Controllers { file: file.clone(), names: vec!["memory".to_owned()] })
            .unwrap();
        let undone = case.kept().undo().unwrap();
        assert!(undone.left[0].contains("lxc.payload.web runs") && !file.exists(), "{undone:?}");
        fs::write(&events, "populated 0\nfrozen 0\n").unwrap();
        assert_eq!(case.kept().undo().unwrap().left, [""; 0]);
        assert_eq!(case.read("cgroup.subtree_control").as_deref(), Some("-memory"));
    }

    #[test]
    fn what_was_edited_since_is_spared_and_the_rest_is_undone() {
        let case = Case::new();
        for name in ["one", "two", "three"] {
            fs::write(case.path(name), "a\n").unwrap();
            case.change(name, "a\nours\n");
        }
        case.change("four", "ours\n");
        fs::write(case.path("one"), "A\nours\nmine\n").unwrap();
        fs::write(case.path("two"), "a\nOURS\n").unwrap();
        fs::write(case.path("four"), "ours, and mine\n").unwrap();
        let undone = case.kept().undo().unwrap();
        assert_eq!(case.read("one").unwrap(), "A\nmine\n");
        assert_eq!(case.read("two").unwrap(), "a\nOURS\n");
        assert_eq!(case.read("three").unwrap(), "a\n");
        assert_eq!(case.read("four").unwrap(), "ours, and mine\n");
        assert_eq!((undone.told.len(), undone.left.len()), (2, 2), "{undone:?}");
        assert_eq!(case.kept().len(), 2, "it is still known what could not be undone");
    }

    #[test]
    fn a_change_that_was_noted_but_not_made_is_no_change() {
        let case = Case::new();
        let step =
            Step::File { path: "config".into(), before: Some("a\n".into()), after: "b\n".into() };
        fs::write(case.path("config"), "a\n").unwrap();
        case.kept().note(step).unwrap();
        assert_eq!(case.kept().undo().unwrap(), Undone::default());
        assert_eq!(case.read("config").unwrap(), "a\n");
    }

    #[test]
    fn nothing_is_written_over_what_somebody_else_wrote_meanwhile() {
        let case = Case::new();
        fs::write(case.path("config"), "mine\n").unwrap();
        let change = Change {
            path: case.path("config"),
            before: Some("a\n".into()),
            after: "b\n".into(),
            mode: 0o644,
        };
        assert!(
            case.kept().change(&change).unwrap_err().to_string().contains("has changed meanwhile")
        );
        assert_eq!(case.read("config").unwrap(), "mine\n");
    }

    #[test]
    fn mount_points_go_if_nothing_is_in_them() {
        let case = Case::new();
        let root = case.path("root");
        fs::create_dir_all(root.join("etc/a")).unwrap();
        fs::create_dir_all(root.join("etc/b")).unwrap();
        fs::write(root.join("etc/a/x"), "").unwrap();
        fs::write(root.join("etc/b/x"), "").unwrap();
        fs::write(root.join("etc/b/mine"), "").unwrap();
        let paths = ["etc/a", "etc/a/x", "etc/b", "etc/b/x"].map(PathBuf::from).to_vec();
        case.kept().note(Step::MountPoints { root: root.clone(), paths }).unwrap();
        assert_eq!(case.kept().undo().unwrap().left, [""; 0]);
        assert!(
            !root.join("etc/a").exists()
                && !root.join("etc/b/x").exists()
                && root.join("etc/b/mine").exists()
        );
    }
}
