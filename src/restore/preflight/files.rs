//! Files that were open at the checkpoint, and have gone or changed since.
//!
//! CRIU opens each of them again by its path and gives up where type, permissions or size differ
//! (files-reg.c, `open_path`), in the middle of a restore. The same comparison costs nothing
//! beforehand.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::Reason;
#[cfg(test)]
use super::Weight;
use crate::criu::images::{self, FileKind, Mount, NamespaceIds, PathFile};
use crate::store::record::Record;
use crate::sys::in_root::{Below, Found};

/// How many files are named; the rest is counted.
const MOST_NAMED: usize = 3;

/// Compares the files of a checkpoint with those below `root` and the sources of its bind mounts.
///
/// A file of the same size with another content is none that CRIU would find: databases write in
/// place. Memory of the past on top of it destroys it. It is known by the time of its last write,
/// to the nanosecond; what a container that went on has mapped shared and writable is not, and is
/// doubted.
pub(super) fn changed(dir: &Path, root: &Path, record: Option<&Record>) -> Result<Vec<Reason>> {
    let Some(mntns) = NamespaceIds::of_task(dir, images::root_of_tree(dir)?)?.mnt else {
        return Ok(Vec::new());
    };
    let mounts = match images::mounts(dir, mntns) {
        Ok(mounts) => mounts,
        // It was in the host's mount namespace.
        Err(e) if e.is_not_found() => return Ok(Vec::new()),
        Err(e) => return Err(e.into()),
    };
    let remade = images::without_name(dir)?;
    let inside = Below::open(root).with_context(|| format!("open the root {}", root.display()))?;
    let (mut wrong, mut written, mut mapped) = (Vec::new(), Vec::new(), Vec::new());
    let through_memory = written_through_memory(dir, record)?;
    for file in images::open_files(dir)?.into_iter().filter(|f| !remade.contains(&f.id)) {
        let FileKind::Path(path) = file.kind else { continue };
        if path.external {
            continue;
        }
        let Some(place) = place_of(&path, &mounts, record) else { continue };
        match compare(&path, &place, &inside)? {
            Compared::Changed(how) => wrong.push(how),
            Compared::Same(found) if path.is_regular() && matches!(place, Place::Root(_)) => {
                let name = path.path.display().to_string();
                // A log that its writer only appends to, of which CRIU leaves the size out, goes
                // with any memory.
                let is_log =
                    path.size.is_none() && record.is_some_and(|record| record.left_running);
                if !is_log && record.is_some_and(|record| found.written > record.last_write()) {
                    written.push(name);
                } else if through_memory.contains(&file.id) {
                    mapped.push(name);
                }
            }
            Compared::Same(_) => {}
        }
    }
    let mut reasons = Vec::new();
    if !wrong.is_empty() {
        reasons.push(Reason::certain(named(wrong, "are not as they were")));
    }
    if !written.is_empty() {
        let files = named(written, "were, too");
        reasons.push(Reason::doubtful(format!(
            "{files} was written to since, and what is in memory may not go with it"
        )));
    }
    if !mapped.is_empty() {
        let files = named(mapped, "are, too");
        reasons.push(Reason::doubtful(format!(
            "the container went on, and {files} is mapped writable: what it wrote there since \
             changes no time"
        )));
    }
    Ok(reasons)
}

/// The files that a container which went on could write to without a trace: a page that is mapped
/// and already dirty takes what is written to it, and the file's time stays until the page is
/// written out.
fn written_through_memory(dir: &Path, record: Option<&Record>) -> Result<BTreeSet<u32>> {
    if !record.is_some_and(|record| record.left_running) {
        return Ok(BTreeSet::new());
    }
    let mut ids = BTreeSet::new();
    for process in images::process_tree(dir)? {
        ids.extend(images::files_written_through_memory(dir, process.pid)?);
    }
    Ok(ids)
}

/// The first of them; `more` is said of the rest.
fn named(mut files: Vec<String>, more: &str) -> String {
    files.sort();
    files.dedup();
    let rest = files.len().saturating_sub(MOST_NAMED);
    files.truncate(MOST_NAMED);
    if rest > 0 {
        files.push(format!("and {rest} more files {more}"));
    }
    files.join(", ")
}

/// How a file is by now.
enum Compared {
    /// CRIU would not take it: why, in words.
    Changed(String),
    /// CRIU would take it.
    Same(Found),
}

/// Where a file is, as far as the host can see it before the restore.
enum Place {
    /// Below the root.
    Root(PathBuf),
    /// Below this path of the host.
    Host(PathBuf),
}

/// What lies in a file system that CRIU makes afresh (a tmpfs, proc) cannot be looked at, and need
/// not be.
fn place_of(file: &PathFile, mounts: &[Mount], record: Option<&Record>) -> Option<Place> {
    let mount = mounts.iter().find(|m| Some(m.id) == file.mount)?;
    if let Some(key) = &mount.external {
        let external = record?.externals.iter().find(|e| e.key == *key)?;
        let below = file.path.strip_prefix(&mount.point).ok()?;
        // Its own cgroups are made anew.
        if mount.kind.starts_with("cgroup") {
            return None;
        }
        // A file that is mounted by itself has nothing below it.
        let empty = below.as_os_str().is_empty();
        return Some(Place::Host(if empty {
            external.source.clone()
        } else {
            external.source.join(below)
        }));
    }
    // Below another mount there is nothing of it in the root: it was opened before that was
    // mounted.
    let covered =
        mounts.iter().any(|m| m.point != Path::new("/") && file.path.starts_with(&m.point));
    (mount.point == Path::new("/") && !covered).then(|| Place::Root(file.path.clone()))
}

fn compare(file: &PathFile, place: &Place, root: &Below) -> Result<Compared> {
    let found = match place {
        Place::Root(path) => root.look(path),
        Place::Host(path) => Below::host().and_then(|host| host.look(path)),
    };
    let path = file.path.display();
    let link = match place {
        Place::Root(path) => root.link_on(path),
        Place::Host(path) => Below::host().and_then(|host| host.link_on(path)),
    };
    if let Some(link) = link.with_context(|| format!("inspect {path} in the container"))? {
        return Ok(Compared::Changed(format!(
            "{path} was open, and on its way {} is a symbolic link by now",
            link.display()
        )));
    }
    let found = match found {
        Ok(found) => found,
        Err(e)
            if matches!(
                e.kind(),
                std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory
            ) =>
        {
            return Ok(Compared::Changed(format!("{path}, which was open, is gone")));
        }
        Err(e) => return Err(e).with_context(|| format!("inspect {path} in the container")),
    };
    if let Some(mode) = file.mode.filter(|mode| *mode != found.mode) {
        return Ok(Compared::Changed(format!(
            "{path}, which was open, had mode {mode:o} and has {:o}",
            found.mode
        )));
    }
    if let Some(size) = file.size.filter(|size| file.is_regular() && *size != found.size) {
        return Ok(Compared::Changed(format!(
            "{path}, which was open, had {size} bytes and has {}",
            found.size
        )));
    }
    Ok(Compared::Same(found))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::{PermissionsExt, symlink};

    /// Images of the recipe's container: its root has `/bin/busybox` and `/bin/witness` and more.
    fn images() -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/criu-4.2.1/suspended")
    }

    /// A root in which all is as the images have it.
    fn root() -> tempfile::TempDir {
        let top = tempfile::tempdir().unwrap();
        let remade = images::without_name(&images()).unwrap();
        for file in images::open_files(&images()).unwrap() {
            let FileKind::Path(path) = file.kind else { continue };
            if remade.contains(&file.id) || !matches!(path.mount, Some(m) if root_mount() == m) {
                continue;
            }
            let at = top.path().join(path.path.strip_prefix("/").unwrap());
            if !path.is_regular() {
                fs::create_dir_all(&at).unwrap();
            } else {
                fs::create_dir_all(at.parent().unwrap()).unwrap();
                fs::File::create(&at).unwrap().set_len(path.size.unwrap_or(0)).unwrap();
            }
            fs::set_permissions(&at, fs::Permissions::from_mode(path.mode.unwrap() & 0o7777))
                .unwrap();
        }
        top
    }

    fn root_mount() -> u32 {
        let mounts = images::mounts(&images(), 13).unwrap();
        mounts.iter().find(|m| m.point == Path::new("/")).unwrap().id
    }

    fn told(root: &Path) -> String {
        changed(&images(), root, None).unwrap().into_iter().map(|r| r.text).collect()
    }

    #[test]
    fn what_was_written_to_since_is_doubtful() {
        let root = root();
        let weigh = |created: u64, left_running: bool| {
            let still_ns = Some(i64::try_from(created).unwrap() * 1_000_000_000);
            let record =
                Record { created, still_ns, left_running, ..crate::store::record::tests::sample() };
            let reasons = changed(&images(), root.path(), Some(&record)).unwrap();
            reasons.into_iter().map(|r| (r.text, r.weight)).collect::<Vec<_>>()
        };
        let now =
            std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
        assert_eq!(weigh(now + 1, false), []);
        for left_running in [false, true] {
            let told = weigh(now - 60, left_running);
            assert_eq!(told.len(), 1, "{told:?}");
            assert!(
                told[0].0.contains("/bin/witness") && told[0].0.contains(" was written to since"),
                "{told:?}"
            );
            assert_eq!(told[0].1, Weight::Doubtful);
        }
    }

    #[test]
    fn a_write_within_the_second_of_the_checkpoint_is_seen() {
        let root = root();
        let witness = root.path().join("bin/witness");
        let (second, nanoseconds) = (1_790_000_000, 500_000_000);
        let at = std::time::UNIX_EPOCH + std::time::Duration::new(second, nanoseconds);
        for path in images::open_files(&images()).unwrap() {
            if let FileKind::Path(path) = path.kind {
                let at_file = root.path().join(path.path.strip_prefix("/").unwrap());
                if at_file.is_file() {
                    fs::File::options()
                        .write(true)
                        .open(&at_file)
                        .unwrap()
                        .set_modified(at)
                        .unwrap();
                }
            }
        }
        let still = i64::try_from(second).unwrap() * 1_000_000_000 + i64::from(nanoseconds);
        let told = |still_ns| {
            let record =
                Record { created: second, still_ns, ..crate::store::record::tests::sample() };
            changed(&images(), root.path(), Some(&record)).unwrap().len()
        };
        assert_eq!(
            [told(Some(still)), told(Some(still - 1)), told(None)],
            [0, 1, 0],
            "{}",
            witness.display()
        );
    }

    #[test]
    fn each_difference_is_named() {
        let root = root();
        assert_eq!(told(root.path()), "");
        let witness = root.path().join("bin/witness");
        let mode = fs::metadata(&witness).unwrap().permissions();
        fs::write(&witness, "another").unwrap();
        assert!(
            told(root.path()).starts_with("/bin/witness, which was open, had "),
            "{}",
            told(root.path())
        );
        assert!(told(root.path()).ends_with(" bytes and has 7"));
        fs::remove_file(&witness).unwrap();
        assert_eq!(told(root.path()), "/bin/witness, which was open, is gone");
        // Wherever a link leads to.
        for target in ["/bin/sh", "busybox"] {
            symlink(target, &witness).unwrap();
            assert_eq!(
                told(root.path()),
                "/bin/witness was open, and on its way /bin/witness is a symbolic link by now"
            );
            fs::remove_file(&witness).unwrap();
        }
        fs::create_dir(&witness).unwrap();
        fs::set_permissions(&witness, mode).unwrap();
        assert!(
            told(root.path()).contains("had mode 100755 and has 40755"),
            "{}",
            told(root.path())
        );
        fs::remove_dir_all(root.path().join("bin")).unwrap();
        assert!(
            told(root.path()).contains("/bin/busybox, which was open, is gone"),
            "{}",
            told(root.path())
        );
    }
}
