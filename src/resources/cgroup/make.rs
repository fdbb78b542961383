//! Cgroup directories are made, in all hierarchies under one name, and removed.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use super::{Cgroup, Hierarchy, directory, write_control};

/// liblxc tries this many suffixes when a name is taken.
const MAX_SUFFIX: u32 = 999;
/// How long the tasks of a cgroup may take to be gone after they were killed.
const EMPTY_LIMIT: Duration = Duration::from_secs(10);

/// Who hears of directories that are made.
pub(crate) type Note<'n> = &'n mut dyn FnMut(&Path, Option<i64>) -> Result<()>;

/// By what a cgroup is told from another one that has its path later: its inode, of which the
/// kernel gives none twice before the next boot.
pub(crate) fn identity(dir: &Path) -> Result<i64> {
    let meta = fs::metadata(dir).with_context(|| format!("inspect cgroup {}", dir.display()))?;
    Ok(meta.ino().cast_signed())
}

/// Whether a path leads to the cgroup of that identity.
pub(crate) fn is_the(dir: &Path, known: i64) -> bool {
    fs::metadata(dir).is_ok_and(|meta| meta.ino().cast_signed() == known)
}

/// Removes a cgroup that may be somebody else's, if nothing is in it. Says whether it did.
pub(crate) fn remove_if_bare(dir: &Path) -> Result<bool> {
    match fs::remove_dir(dir) {
        Ok(()) => Ok(true),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(e) if [Some(libc::EBUSY), Some(libc::ENOTEMPTY)].contains(&e.raw_os_error()) => {
            Ok(false)
        }
        Err(e) => Err(e).with_context(|| format!("remove cgroup {}", dir.display())),
    }
}

/// Makes a cgroup in each hierarchy at the path that is given for it; where a name is taken in one
/// of them, the name with -1, -2, … is used in all, as liblxc does; where it has to be `exact`,
/// that is an error. What is above them is made, too, and stays. `note` hears of each directory
/// before it is made, and at once afterwards, then with its identity.
pub(crate) fn make_new(
    wanted: &[(&Hierarchy, &Path)],
    exact: bool,
    note: Note<'_>,
) -> Result<Vec<Cgroup>> {
    let mut places = Vec::new();
    for (hierarchy, path) in wanted {
        let dir = directory(&hierarchy.mount, path)?;
        if let Some(above) = dir.parent() {
            make_if_missing(&Cgroup::plain((*hierarchy).clone(), above.to_owned()))?;
        }
        places.push((*hierarchy, dir));
    }
    for suffix in 0..=if exact { 0 } else { MAX_SUFFIX } {
        let named = |dir: &Path| match suffix {
            0 => dir.to_owned(),
            n => crate::sys::files::with_suffix(dir, &format!("-{n}")),
        };
        let cgroups: Vec<Cgroup> = places
            .iter()
            .map(|(hierarchy, dir)| Cgroup::plain((*hierarchy).clone(), named(dir)))
            .collect();
        if !cgroups.iter().any(|c| c.dir.exists()) && make_all(&cgroups, note)? {
            return Ok(cgroups);
        }
    }
    if let Some((_, dir)) = places.iter().find(|(_, dir)| dir.exists()).filter(|_| exact) {
        bail!(
            "the cgroup {} that its configuration names is there already (rmdir removes it if \
             nothing runs there)",
            dir.display()
        );
    }
    bail!(
        "no name is left for the cgroup {}",
        places.first().map(|(_, dir)| dir.display().to_string()).unwrap_or_default()
    )
}

/// Makes all of them, or says that somebody else was quicker with one.
fn make_all(cgroups: &[Cgroup], note: Note<'_>) -> Result<bool> {
    for (number, cgroup) in cgroups.iter().enumerate() {
        note(&cgroup.dir, None)?;
        if !make(cgroup)? {
            cgroups[..number].iter().try_for_each(|made| remove(&made.dir))?;
            return Ok(false);
        }
        note(&cgroup.dir, Some(identity(&cgroup.dir)?))?;
    }
    Ok(true)
}

/// Makes a cgroup, and those above it, where they are not there.
pub(crate) fn make_if_missing(cgroup: &Cgroup) -> Result<()> {
    if cgroup.dir.exists() {
        return Ok(());
    }
    if let Some(above) = cgroup.dir.parent() {
        make_if_missing(&Cgroup::plain(cgroup.hierarchy.clone(), above.to_owned()))?;
    }
    make(cgroup).map(drop)
}

/// Makes a cgroup, or says that it is there.
fn make(cgroup: &Cgroup) -> Result<bool> {
    let what = || format!("make cgroup {}", cgroup.dir.display());
    match fs::create_dir(&cgroup.dir) {
        Ok(()) => {}
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => return Ok(false),
        Err(e) => return Err(e).with_context(what),
    }
    if cgroup.hierarchy.has("cpuset") {
        fill_cpuset(&cgroup.dir).with_context(what)?;
    }
    Ok(true)
}

/// A new cpuset of v1 is empty and takes no task: it gets what the one above has, and hands it on,
/// as liblxc does (cgfsng.c, `cpuset1_initialize`).
fn fill_cpuset(dir: &Path) -> Result<()> {
    let Some(above) = dir.parent() else { return Ok(()) };
    for file in ["cpuset.cpus", "cpuset.mems"] {
        let read = |dir: &Path| {
            let path = dir.join(file);
            fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))
        };
        if read(dir)?.trim().is_empty() {
            write_control(dir, file, read(above)?.trim())?;
        }
    }
    write_control(dir, "cgroup.clone_children", "1")
}

/// Hands on all controllers from the hierarchy's root down to a directory that is made or about to
/// be, as liblxc does at every start (cgfsng.c, `__cgfsng_delegate_controllers`). Like there,
/// nobody takes them back.
///
/// A controller that cannot be handed on is left out: whether a limit needs it is seen later.
pub(crate) fn hand_on_controllers(mount: &Path, dir: &Path) {
    let above: Vec<&Path> = dir.ancestors().skip(1).take_while(|a| a.starts_with(mount)).collect();
    for above in above.into_iter().rev() {
        let words = |file| -> Vec<String> {
            let text = fs::read_to_string(above.join(file)).unwrap_or_default();
            text.split_ascii_whitespace().map(str::to_owned).collect()
        };
        let handed_on = words("cgroup.subtree_control");
        for controller in words("cgroup.controllers").iter().filter(|c| !handed_on.contains(c)) {
            if let Err(e) =
                write_control(above, "cgroup.subtree_control", &format!("+{controller}"))
            {
                log::debug!("{e:#}");
            }
        }
    }
}

/// Removes a cgroup and those below it. Tasks that are still ending are waited for; one that lives
/// on is an error, it is not killed. A cgroup that is not there is no error.
pub(crate) fn remove(dir: &Path) -> Result<()> {
    let end = Instant::now() + EMPTY_LIMIT;
    loop {
        match remove_tree(dir) {
            Ok(()) => return Ok(()),
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(e) if e.raw_os_error() == Some(libc::EBUSY) && Instant::now() < end => {
                // The kernel tells nobody when the last dying task has left: its `populated` goes
                // to 0 earlier.
                std::thread::sleep(Duration::from_millis(2));
            }
            Err(e) => return Err(e).with_context(|| format!("remove cgroup {}", dir.display())),
        }
    }
}

fn remove_tree(dir: &Path) -> io::Result<()> {
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            remove_tree(&entry.path())?;
        }
    }
    fs::remove_dir(dir)
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;

    #[test]
    fn a_name_that_is_taken_somewhere_gets_a_number_everywhere() {
        let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let at = |dir: &tempfile::TempDir, controller: Option<&str>| Hierarchy {
            controllers: controller.map(str::to_owned).into_iter().collect(),
            mount: dir.path().to_owned(),
        };
        let (unified, memory) = (at(&one, None), at(&two, Some("memory")));
        fs::create_dir_all(two.path().join("base/lxc.payload.t")).unwrap();
        let mut noted = Vec::new();
        let wanted =
            [(&unified, Path::new("/lxc.payload.t")), (&memory, Path::new("/base/lxc.payload.t"))];
        let made = make_new(&wanted, false, &mut |d, known| {
            noted.extend(known.map(|known| (d.to_owned(), known)));
            Ok(())
        })
        .unwrap();
        let dirs: Vec<PathBuf> = made.iter().map(|c| c.dir.clone()).collect();
        assert_eq!(
            dirs,
            [one.path().join("lxc.payload.t-1"), two.path().join("base/lxc.payload.t-1")]
        );
        assert_eq!(noted.iter().map(|(dir, _)| dir.clone()).collect::<Vec<_>>(), dirs);
        assert!(noted.iter().all(|(dir, known)| is_the(dir, *known) && !is_the(dir, known + 1)));
        let refused = make_new(&wanted, true, &mut |_, _| Ok(())).unwrap_err().to_string();
        assert!(
            refused.contains("base/lxc.payload.t that its configuration names is there already"),
            "{refused}"
        );
        dirs.iter().for_each(|dir| remove(dir).unwrap());
        remove(&dirs[0]).unwrap();
    }

    #[test]
    fn a_new_cpuset_gets_what_the_one_above_has() {
        let above = tempfile::tempdir().unwrap();
        let dir = above.path().join("lxc.payload.t");
        fs::create_dir(&dir).unwrap();
        for (file, value, new) in [("cpuset.cpus", "0-3\n", "\n"), ("cpuset.mems", "0\n", "1\n")] {
            fs::write(above.path().join(file), value).unwrap();
            fs::write(dir.join(file), new).unwrap();
        }
        fs::write(dir.join("cgroup.clone_children"), "0\n").unwrap();
        fill_cpuset(&dir).unwrap();
        let read = |file| fs::read_to_string(dir.join(file)).unwrap();
        assert_eq!((read("cpuset.cpus").trim(), read("cpuset.mems").trim()), ("0-3", "1"));
        assert!(read("cgroup.clone_children").starts_with('1'));
    }
}
