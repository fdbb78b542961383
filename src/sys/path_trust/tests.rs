use std::fs;

use super::*;
use std::os::unix::fs::{PermissionsExt, symlink};

/// A user whom no host has.
const THEIRS: u32 = 4_000_000_000;

fn chmod(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

#[test]
fn a_way_on_which_only_root_can_change_names_is_good() {
    let top = tempfile::tempdir().unwrap();
    let dir = top.path().join("dir");
    fs::create_dir(&dir).unwrap();
    symlink(&dir, top.path().join("link")).unwrap();
    symlink("../dir/../link", dir.join("round")).unwrap();
    let real = top.path().canonicalize().unwrap().join("dir");
    for good in ["dir", "dir/new/newer", "link/x", "dir/round/x", "link/../dir"] {
        let walked = walk(None, &top.path().join(good)).unwrap();
        assert!(walked.starts_with(real.parent().unwrap()), "{good} is {}", walked.display());
    }
    assert_eq!(walk(None, &top.path().join("link/new/newer")).unwrap(), real.join("new/newer"));
    // /tmp is everybody's, but a name in it belongs to its owner.
    chmod(&dir, 0o1777);
    check(&dir.join("x")).unwrap();
}

#[test]
fn a_directory_that_others_can_write_to_spoils_all_below_it() {
    let top = tempfile::tempdir().unwrap();
    let open = top.path().join("open");
    fs::create_dir_all(open.join("a/b")).unwrap();
    for mode in [0o777, 0o702] {
        chmod(&open, mode);
        let error = check(&open.join("a/b/c")).unwrap_err();
        assert!(error.to_string().contains("others can write to"), "{error}");
    }
    symlink(&open, top.path().join("link")).unwrap();
    assert!(matches!(check(&top.path().join("link/a")), Err(Untrusted::Writable { .. })));
    // Itself it is at the end of its way, and whoever opens it looks at it.
    check(&open).unwrap();
}

#[test]
fn what_another_user_owns_is_not_trusted() {
    if !nix::unistd::geteuid().is_root() {
        return;
    }
    let top = tempfile::tempdir().unwrap();
    let theirs = top.path().join("theirs");
    fs::create_dir(&theirs).unwrap();
    std::os::unix::fs::chown(&theirs, Some(THEIRS), None).unwrap();
    assert!(matches!(check(&theirs.join("x")), Err(Untrusted::Owner { uid: THEIRS, .. })));
    let guest = |uid| Some(Guest { uid, gid: THEIRS });
    check_of(guest(THEIRS), &theirs.join("x")).unwrap();
    assert!(matches!(
        check_of(guest(THEIRS + 1), &theirs.join("x")),
        Err(Untrusted::Owner { uid: THEIRS, .. })
    ));
    let link = top.path().join("link");
    symlink("/", &link).unwrap();
    std::os::unix::fs::lchown(&link, Some(THEIRS), None).unwrap();
    assert!(matches!(check(&link), Err(Untrusted::Owner { uid: THEIRS, .. })));
}

#[test]
fn links_in_a_ring_end() {
    let top = tempfile::tempdir().unwrap();
    symlink("b", top.path().join("a")).unwrap();
    symlink("a", top.path().join("b")).unwrap();
    assert!(matches!(check(&top.path().join("a/x")), Err(Untrusted::Io { .. })));
}

#[test]
fn what_is_missing_is_made_level_by_level() {
    let top = tempfile::tempdir().unwrap();
    let path = top.path().join("a/b/c");
    let way = reach(None, &path).unwrap();
    assert_eq!(way.missing().len(), 3);
    let way = way.make_missing().unwrap();
    assert_eq!(way.path(), top.path().canonicalize().unwrap().join("a/b/c"));
    for made in ["a", "a/b", "a/b/c"] {
        assert_eq!(
            fs::metadata(top.path().join(made)).unwrap().permissions().mode() & 0o777,
            0o700,
            "{made}"
        );
    }
    // Where the path leads by now does not matter to who holds the directory.
    fs::rename(top.path().join("a"), top.path().join("away")).unwrap();
    fs::create_dir_all(&path).unwrap();
    rustix::fs::mkdirat(way.directory(), "made", Mode::from_raw_mode(0o700)).unwrap();
    assert!(top.path().join("away/b/c/made").is_dir());
}

#[test]
fn who_was_faster_is_found_out() {
    let top = tempfile::tempdir().unwrap();
    let way = |name: &str| reach(None, &top.path().join(name).join("x")).unwrap();
    let (linked, open) = (way("linked"), way("open"));
    fs::create_dir(top.path().join("elsewhere")).unwrap();
    symlink("elsewhere", top.path().join("linked")).unwrap();
    assert!(matches!(linked.make_missing(), Err(Untrusted::Io { .. })));
    fs::create_dir(top.path().join("open")).unwrap();
    chmod(&top.path().join("open"), 0o777);
    assert!(matches!(open.make_missing(), Err(Untrusted::Writable { .. })));
    if nix::unistd::geteuid().is_root() {
        let theirs = way("theirs");
        fs::create_dir(top.path().join("theirs")).unwrap();
        std::os::unix::fs::chown(top.path().join("theirs"), Some(THEIRS), None).unwrap();
        assert!(matches!(theirs.make_missing(), Err(Untrusted::Owner { uid: THEIRS, .. })));
    }
    assert_eq!(fs::read_dir(top.path().join("elsewhere")).unwrap().count(), 0);
}

#[test]
fn what_is_read_is_what_is_judged() {
    let top = tempfile::tempdir().unwrap();
    let (path, other) = (top.path().join("config"), top.path().join("other"));
    fs::write(&path, "first").unwrap();
    fs::write(&other, "second").unwrap();
    chmod(&other, 0o666);
    let (file, source) = open(&path).unwrap();
    fs::rename(&other, &path).unwrap();
    assert_eq!(std::io::read_to_string(file).unwrap(), "first");
    source.judge(None).unwrap();
    let (file, source) = open(&path).unwrap();
    assert_eq!(std::io::read_to_string(file).unwrap(), "second");
    assert!(matches!(source.judge(None), Err(Untrusted::WritableFile { .. })));
    assert!(open_own(None, &path).is_err());
    assert!(open_own(None, &top.path().join("none")).unwrap().is_none());
    assert_eq!(open(&top.path().join("none")).unwrap_err().kind(), io::ErrorKind::NotFound);
}

#[test]
fn a_log_is_opened_where_nobody_else_can_have_put_it() {
    let top = tempfile::tempdir().unwrap();
    let path = |name: &str| top.path().join(name);
    let open = |name: &str| open_or_make(None, &path(name), OFlags::RDWR | OFlags::APPEND, 0o640);
    open("log").unwrap();
    open("log").unwrap();
    symlink("log", path("link")).unwrap();
    open("link").unwrap();
    assert!(matches!(open("none/log"), Err(Untrusted::Io { .. })));
    open_or_make(None, Path::new("/dev/null"), OFlags::RDWR, 0).unwrap();
    if nix::unistd::geteuid().is_root() {
        std::os::unix::fs::lchown(path("link"), Some(THEIRS), None).unwrap();
        assert!(matches!(open("link"), Err(Untrusted::Owner { .. })));
        std::os::unix::fs::chown(path("log"), Some(THEIRS), None).unwrap();
        assert!(matches!(open("log"), Err(Untrusted::OwnedFile { .. })));
        open_or_make(Some(Guest { uid: THEIRS, gid: THEIRS }), &path("log"), OFlags::RDWR, 0)
            .unwrap();
    }
    check_new(&path("new")).unwrap();
    assert!(check_new(&path("missing/new")).is_err());
}
