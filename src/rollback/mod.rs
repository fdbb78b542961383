//! The journal: how each change to the host is undone, written down before the change is made.
//!
//! It lies under `/run`, so it lives about as long as what it speaks of. Each step knows what it
//! undoes by more than a path or a number, which others may have by then: a cgroup by its inode, a
//! process by its start, a link by its index and address; and the journal says of which boot it is.
//! One of an earlier boot undoes nothing but what lies on the disk. A failure plays it back, newest
//! entry first; so does the next command after a crash. What a restored container needs of the host
//! is nothing but a change that is to be undone at its end: so a restore that succeeds hands its
//! journal over to the monitor, which plays it back when the container has ended.
//!
//! Every step can be played twice, finds for itself whether there is still something to do, and
//! tells what it did. Playing goes on after an error; entries that failed stay in the journal.

pub(crate) mod criu_cgroup;
mod down_script;
pub(crate) mod filling;
pub(crate) mod holder;
pub(crate) mod killed_dump;
mod killed_restore;
pub(crate) mod lock;
pub(crate) mod recover;
pub(crate) mod uncommit;

pub(crate) use down_script::DownScript;

use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use crate::error::ErrorList;
use crate::resources::network::drop_filter::DropFilter;
use crate::resources::network::interfaces::{self, PhysInterface};
use crate::resources::network::{Elsewhere, Port, apply, ports, state};
use crate::resources::rootfs::Root;
use crate::resources::{apparmor, cgroup};
use crate::rollback::killed_dump::Seized;
use crate::store::layout::{keep_log, remove_images};
use crate::store::resume_mark;
use crate::sys::netlink::{Error, Mac, Netlink};
use crate::sys::{self, files};

/// How one change is undone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Undo {
    /// A port was taken off its bridge: it goes back, if it is still there.
    PutPortBack(Box<Port>),
    /// A veth pair was made: its host's end goes, and the other with it.
    RemoveVeth {
        /// The host's end.
        host: String,
        /// Its hardware address, by which a link of somebody else with that name is spared.
        mac: Mac,
    },
    /// The `script.up` of an interface was run: its `script.down` is.
    RunDownScript(DownScript),
    /// A link of the host was told something for the sake of the container's addresses: that goes.
    TakeFromLink(Elsewhere),
    /// Interfaces in a running container hear nothing: they do again.
    OpenGates(DropFilter),
    /// An interface of the host was moved into the container: it comes back.
    BringBack(PhysInterface),
    /// A cgroup was made for the container.
    RemoveCgroup {
        /// Its directory.
        path: PathBuf,
        /// By what it is told from another one at that path; none while it was not made.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        inode: Option<i64>,
    },
    /// An image directory was begun.
    RemoveImages {
        /// The directory; only what CRIU and we write there is deleted, and its log is kept beside
        /// it.
        path: PathBuf,
    },
    /// A complete checkpoint got its name, for its container to be ended. Should the container go
    /// on after all, the name goes.
    Unseal {
        /// The directory under that name.
        images: PathBuf,
        /// Its inode: another directory that has the name is spared.
        inode: i64,
        /// The container.
        container: Box<Seized>,
    },
    /// CRIU was let at the tasks of a running container: they are let go.
    Release(Box<Seized>),
    /// What its owner had frozen was thawed for a moment: it is frozen again.
    FreezeAgain {
        /// The directory of the cgroup.
        cgroup: PathBuf,
        /// By what it is told from another one at that path.
        inode: i64,
    },
    /// CRIU was told to restore tasks in a cgroup: they are ended.
    EndTasks {
        /// Its directory.
        cgroup: PathBuf,
        /// By what it is told from another one at that path.
        inode: i64,
    },
    /// The mark of a suspended container was struck out, for it was about to run: it gets it back.
    Mark {
        /// The container's directory.
        container: PathBuf,
        /// It may have run since. Then its memory is of the past, and that is only told.
        has_run: bool,
    },
    /// A profile of AppArmor was loaded for the container: it is taken away.
    UnloadProfile {
        /// The container's directory, in which its text lies.
        dir: PathBuf,
        /// Its name.
        name: String,
        /// The policy namespace beneath it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        namespace: Option<String>,
    },
    /// The images were lent to the group of the container's root: they are root's alone again.
    TakeBackImages {
        /// Their directory.
        dir: PathBuf,
    },
    /// CRIU was told to restore a container: what it makes for a moment, in the root and in /tmp,
    /// is removed.
    CleanRoot {
        /// The root, whose inside is not trusted.
        root: Root,
        /// CRIU's log, which names all that it made.
        log: PathBuf,
    },
}

impl Undo {
    /// Whether it undoes something that lies on the disk: all else is gone with the boot in which
    /// it was done.
    fn outlives_a_boot(&self) -> bool {
        matches!(
            self,
            Undo::RemoveImages { .. }
                | Undo::CleanRoot { .. }
                | Undo::Mark { .. }
                | Undo::TakeBackImages { .. }
        )
    }
}

/// What stands before the entries of the file.
#[derive(Debug, Serialize, Deserialize)]
struct Header {
    /// The boot in which it was begun.
    boot: String,
}

/// One entry of the file.
#[derive(Debug, Serialize, Deserialize)]
struct Entry {
    step: Vec<Undo>,
}

/// A journal that is being written or played back. An empty journal is no file.
#[derive(Debug)]
pub(crate) struct Journal {
    path: PathBuf,
    steps: Vec<Undo>,
}

impl Journal {
    /// Opens the journal at this path, with what an earlier command left in it.
    pub(crate) fn open(path: &Path) -> Result<Journal> {
        let steps = match fs::read_to_string(path) {
            Ok(text) if is_of_an_earlier_boot(&text) => {
                read(&text).into_iter().filter(Undo::outlives_a_boot).collect()
            }
            Ok(text) => read(&text),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Vec::new(),
            Err(e) => {
                return Err(e).with_context(|| format!("read the journal {}", path.display()));
            }
        };
        Ok(Journal { path: path.to_owned(), steps })
    }

    /// Whether there is nothing to undo.
    pub(crate) fn is_empty(&self) -> bool {
        self.steps.is_empty()
    }

    /// What is to be undone, in the order in which it was done.
    pub(crate) fn steps(&self) -> &[Undo] {
        &self.steps
    }

    /// Notes how a change is undone. To be called before the change.
    pub(crate) fn note(&mut self, undo: Undo) -> Result<()> {
        let what = || format!("write the journal {}", self.path.display());
        let text = toml::to_string(&Entry { step: vec![undo.clone()] }).with_context(what)?;
        self.steps.push(undo);
        let written = match self.steps.len() {
            // In place of what a crash may have torn.
            1 => self.rewrite(),
            // One write: a reader sees the entry whole or not at all.
            _ => files::open_append(&self.path)
                .and_then(|mut f| f.write_all(text.as_bytes()))
                .with_context(what),
        };
        if written.is_err() {
            self.steps.pop();
        }
        written
    }

    /// Puts one step in another one's place: what is known of a change by now.
    pub(crate) fn exchange(&mut self, old: &Undo, new: Undo) -> Result<()> {
        match self.steps.iter_mut().rfind(|step| *step == old) {
            Some(step) => *step = new,
            None => self.steps.push(new),
        }
        self.rewrite()
    }

    /// Strikes out the steps that need no undoing any more.
    pub(crate) fn forget(&mut self, done: impl Fn(&Undo) -> bool) -> Result<()> {
        self.steps.retain(|s| !done(s));
        self.rewrite()
    }

    /// Gives the journal to somebody else, who keeps it at another path. It is at one of the two at
    /// any time, and no space is needed: that the disk is full must not cost a container that runs
    /// already.
    pub(crate) fn hand_over(mut self, path: &Path) -> Result<Journal> {
        let steps = std::mem::take(&mut self.steps);
        if !steps.is_empty() {
            fs::rename(&self.path, path).with_context(|| {
                format!("rename the journal {} to {}", self.path.display(), path.display())
            })?;
        }
        Ok(Journal { path: path.to_owned(), steps })
    }

    /// Undoes everything, the newest change first. What could not be undone stays in the journal
    /// and is the error.
    pub(crate) fn play_back(&mut self) -> Result<()> {
        self.play_back_telling(&mut |done| log::info!("undone: {done}"))
    }

    /// As [`Journal::play_back`]; `tell` hears of each thing that was not as it should be, and is
    /// now.
    pub(crate) fn play_back_telling(&mut self, tell: &mut dyn FnMut(&str)) -> Result<()> {
        self.play(&|_| true, tell)
    }

    /// Undoes some of the steps, the newest first, before others that are not to be undone yet.
    pub(crate) fn play_back_these(&mut self, these: &dyn Fn(&Undo) -> bool) -> Result<()> {
        self.play(these, &mut |done| log::info!("undone: {done}"))
    }

    fn play(&mut self, these: &dyn Fn(&Undo) -> bool, tell: &mut dyn FnMut(&str)) -> Result<()> {
        let mut errors = ErrorList::default();
        let mut left = Vec::new();
        let mut netlink = None;
        for step in self.steps.drain(..).rev() {
            if !these(&step) {
                left.insert(0, step);
                continue;
            }
            match undo(&step, &mut netlink) {
                Ok(done) => done.iter().for_each(|text| tell(text)),
                Err(e) => {
                    errors.note::<()>(Err(e));
                    left.insert(0, step);
                }
            }
        }
        self.steps = left;
        errors.note(self.rewrite());
        errors.into_result()
    }

    /// Writes what is left.
    fn rewrite(&mut self) -> Result<()> {
        if self.steps.is_empty() {
            return match fs::remove_file(&self.path) {
                Err(e) if e.kind() != io::ErrorKind::NotFound => {
                    Err(e).with_context(|| format!("remove the journal {}", self.path.display()))
                }
                _ => Ok(()),
            };
        }
        let entry = toml::to_string(&Entry { step: self.steps.clone() })
            .context("put the journal into words")?;
        files::write_atomically(&self.path, format!("{}{entry}", header()?).as_bytes())
    }
}

fn header() -> Result<String> {
    let boot = sys::boot_id().context("read which boot this is")?;
    toml::to_string(&Header { boot }).context("put the boot into words")
}

/// Whether a journal says of itself that it was begun before this boot.
fn is_of_an_earlier_boot(text: &str) -> bool {
    let header = text.split(HEAD).next().and_then(|head| toml::from_str::<Header>(head).ok());
    header.zip(sys::boot_id().ok()).is_some_and(|(header, now)| header.boot != now)
}

/// How each entry begins.
const HEAD: &str = "[[step]]";

/// The entries of a journal's text. One that was torn by a crash is the last and was not acted
/// upon: it is dropped.
fn read(text: &str) -> Vec<Undo> {
    // A head that was torn itself would spoil the entry before it.
    let line = text.rfind('\n').map_or(0, |at| at + 1);
    let text = if HEAD.starts_with(&text[line..]) { &text[..line] } else { text };
    let entries =
        text.split(HEAD).skip(1).map(|body| toml::from_str::<Entry>(&format!("{HEAD}{body}")));
    entries.map_while(|entry| entry.ok()).flat_map(|entry| entry.step).collect()
}

/// Undoes one step, and says what there was to do.
fn undo(step: &Undo, netlink: &mut Option<Netlink>) -> Result<Vec<String>> {
    let told = |was_there: bool, text: String| if was_there { vec![text] } else { Vec::new() };
    Ok(match step {
        Undo::PutPortBack(port) => {
            let netlink = opened(netlink)?;
            let away = ports::is_detached(netlink, port);
            ports::unlock(netlink, std::slice::from_ref(port.as_ref()))?;
            let bridge = port.bridge.as_deref().unwrap_or("no bridge");
            told(away, format!("{} ({}) is on {bridge} again", port.host, port.inside))
        }
        Undo::RemoveVeth { host, mac } => {
            told(apply::remove(opened(netlink)?, host, *mac)?, format!("veth pair {host} removed"))
        }
        Undo::RunDownScript(script) => {
            told(script.run()?, format!("the down script of {} was run", script.host))
        }
        Undo::TakeFromLink(Elsewhere { link, message }) => match opened(netlink)?.link(link) {
            Ok(found) => {
                let gone = state::remove_elsewhere(found.index, message)
                    .with_context(|| format!("clear {link}"))?;
                told(gone, format!("{link} answers for the container no longer"))
            }
            Err(Error::NotFound) => Vec::new(),
            Err(e) => return Err(e).with_context(|| format!("find {link}")),
        },
        Undo::OpenGates(gates) => {
            gates.open()?;
            Vec::new()
        }
        Undo::BringBack(phys_interface) => {
            let back = interfaces::bring_back(opened(netlink)?, phys_interface)?;
            told(
                back,
                format!(
                    "{} (the container's {}) is the host's again",
                    phys_interface.host, phys_interface.inside
                ),
            )
        }
        Undo::RemoveCgroup { path, inode } => {
            let removed = match inode {
                None => cgroup::remove_if_bare(path)?,
                Some(inode) if cgroup::is_the(path, *inode) => {
                    cgroup::remove(path).map(|()| true)?
                }
                Some(_) => false,
            };
            told(removed, format!("cgroup {} removed", path.display()))
        }
        Undo::RemoveImages { path } => {
            let found = fs::symlink_metadata(path);
            // What another user has put there, in a directory like /tmp, was not begun by us.
            if found.as_ref().is_ok_and(|meta| !sys::path_trust::is_ours(meta.uid())) {
                return Ok(Vec::new());
            }
            let there = found.is_ok();
            let log = keep_log(path)?;
            remove_images(path)?;
            let kept = log
                .map(|log| format!(", its log is kept as {}", log.display()))
                .unwrap_or_default();
            told(there, format!("half-written checkpoint {} removed{kept}", path.display()))
        }
        Undo::Unseal { images, inode, container } => {
            let lost = uncommit::unseal(images, *inode, container)?;
            told(
                lost,
                format!(
                    "{} is no longer a checkpoint: its container is still running",
                    images.display()
                ),
            )
        }
        Undo::Release(seized) => seized.release()?,
        Undo::FreezeAgain { cgroup, inode } => {
            let thawed = cgroup::is_the(cgroup, *inode) && !cgroup::is_frozen(cgroup)?;
            if thawed {
                cgroup::set_frozen(cgroup, true)?;
            }
            told(thawed, format!("cgroup {} frozen again", cgroup.display()))
        }
        Undo::EndTasks { cgroup, inode } => {
            let is_ours = cgroup::is_the(cgroup, *inode);
            let tasks = if is_ours { cgroup::tasks(cgroup)? } else { Vec::new() };
            if !tasks.is_empty() {
                cgroup::kill(cgroup)?;
            }
            told(!tasks.is_empty(), format!("{} half-restored tasks ended", tasks.len()))
        }
        Undo::UnloadProfile { dir, name, namespace } => {
            // One that was started since by LXC has a profile of the same name.
            let unloaded =
                !apparmor::is_in_use(name) && apparmor::unload(dir, name, namespace.as_deref())?;
            told(unloaded, format!("profile {name} unloaded"))
        }
        Undo::TakeBackImages { dir } => match dir.exists() {
            true => {
                files::make_private(dir)?;
                vec![format!("the images in {} are root's alone again", dir.display())]
            }
            false => Vec::new(),
        },
        Undo::CleanRoot { root, log } => killed_restore::clean(root, log)?,
        Undo::Mark { container, has_run } => {
            resume_mark::take_back(container, *has_run)?.into_iter().collect()
        }
    })
}

fn opened(netlink: &mut Option<Netlink>) -> Result<&mut Netlink> {
    if netlink.is_none() {
        *netlink = Some(Netlink::open().context("open a netlink socket")?);
    }
    netlink.as_mut().context("open a netlink socket")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn images(path: &Path) -> Undo {
        Undo::RemoveImages { path: path.to_owned() }
    }

    #[test]
    fn what_another_user_has_put_there_stands_in_no_ones_way() {
        if !nix::unistd::geteuid().is_root() {
            return;
        }
        let top = tempfile::tempdir().unwrap();
        let dir = top.path().join("dump.partial");
        fs::create_dir(&dir).unwrap();
        std::os::unix::fs::chown(&dir, Some(4_000_000_000), None).unwrap();
        let mut journal = Journal::open(&top.path().join("journal")).unwrap();
        journal.note(images(&dir)).unwrap();
        journal.play_back().unwrap();
        assert!(journal.is_empty() && dir.is_dir());
    }

    #[test]
    fn a_journal_is_found_again_and_played_once() {
        let top = tempfile::tempdir().unwrap();
        let path = top.path().join("journal");
        let dir = top.path().join("dump.partial");
        let mut journal = Journal::open(&path).unwrap();
        journal.note(images(&dir)).unwrap();
        files::make_private_dir(&dir).unwrap();
        fs::write(dir.join("core-1.img"), b"x").unwrap();
        // The command is killed here.
        drop(journal);

        let mut found = Journal::open(&path).unwrap();
        assert_eq!(found.steps(), [images(&dir)]);
        found.play_back().unwrap();
        assert!(!dir.exists());
        assert!(!path.exists());
    }

    #[test]
    fn a_journal_that_was_handed_over_is_found_at_its_new_place_only() {
        let top = tempfile::tempdir().unwrap();
        let (path, other) = (top.path().join("journal"), top.path().join("held"));
        let mut journal = Journal::open(&path).unwrap();
        journal.note(images(Path::new("/nowhere/x"))).unwrap();
        let theirs = journal.hand_over(&other).unwrap();
        assert_eq!(theirs.steps().len(), 1);
        assert!(!path.exists());
        assert_eq!(Journal::open(&other).unwrap().steps(), theirs.steps());
    }

    #[test]
    fn what_cannot_be_undone_stays_and_the_rest_is_undone() {
        let top = tempfile::tempdir().unwrap();
        let path = top.path().join("journal");
        let (good, bad) = (top.path().join("good"), top.path().join("bad"));
        let mut journal = Journal::open(&path).unwrap();
        for dir in [&good, &bad] {
            journal.note(images(dir)).unwrap();
            files::make_private_dir(dir).unwrap();
        }
        fs::write(bad.join("letter.txt"), b"dear").unwrap();
        let error = journal.play_back().unwrap_err().to_string();
        assert!(error.contains("letter.txt"), "{error}");
        assert!(!good.exists());
        assert_eq!(Journal::open(&path).unwrap().steps(), [images(&bad)]);
    }

    #[test]
    fn a_journal_of_an_earlier_boot_undoes_nothing_of_this_one() {
        let top = tempfile::tempdir().unwrap();
        let (path, dir) = (top.path().join("journal"), top.path().join("lxc.payload.t"));
        fs::create_dir(&dir).unwrap();
        let inode = cgroup::identity(&dir).unwrap();
        let mut journal = Journal::open(&path).unwrap();
        let partial = images(&top.path().join("dump.partial"));
        journal.note(partial.clone()).unwrap();
        journal.note(Undo::RemoveCgroup { path: dir.clone(), inode: None }).unwrap();
        let made = Undo::RemoveCgroup { path: dir.clone(), inode: Some(inode) };
        journal
            .exchange(&Undo::RemoveCgroup { path: dir.clone(), inode: None }, made.clone())
            .unwrap();
        assert_eq!(Journal::open(&path).unwrap().steps(), [partial.clone(), made]);
        let text = fs::read_to_string(&path).unwrap();
        fs::write(&path, text.replace(&sys::boot_id().unwrap(), "another")).unwrap();
        assert_eq!(Journal::open(&path).unwrap().steps(), [partial]);
        Journal::open(&path).unwrap().play_back().unwrap();
        assert!(dir.exists());
    }

    #[test]
    fn another_cgroup_of_that_path_is_spared() {
        let top = tempfile::tempdir().unwrap();
        let dir = top.path().join("lxc.payload.t");
        fs::create_dir(&dir).unwrap();
        let other = cgroup::identity(&dir).unwrap() + 1;
        let mut journal = Journal::open(&top.path().join("journal")).unwrap();
        journal.note(Undo::RemoveCgroup { path: dir.clone(), inode: Some(other) }).unwrap();
        journal.note(Undo::EndTasks { cgroup: dir.clone(), inode: other }).unwrap();
        journal.play_back().unwrap();
        assert!(dir.exists());
        // One that was about to be made is removed if there is nothing in it.
        for bare in [false, true] {
            let inside = dir.join("inside");
            if bare {
                fs::remove_dir(&inside).unwrap()
            } else {
                fs::create_dir(&inside).unwrap()
            }
            journal.note(Undo::RemoveCgroup { path: dir.clone(), inode: None }).unwrap();
            journal.play_back().unwrap();
            assert_eq!(dir.exists(), !bare);
        }
    }

    #[test]
    fn a_torn_last_entry_is_dropped() {
        let one = toml::to_string(&Entry { step: vec![images(Path::new("/a"))] }).unwrap();
        let two = toml::to_string(&Entry { step: vec![images(Path::new("/b"))] }).unwrap();
        let text = format!("{one}{two}");
        assert_eq!(read(&text), [images(Path::new("/a")), images(Path::new("/b"))]);
        for cut in one.len()..text.len() {
            let found = read(&text[..cut]);
            assert_eq!(found[0], images(Path::new("/a")), "cut at {cut}");
        }
        assert_eq!(read("rubbish"), []);
    }
}
