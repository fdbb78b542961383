//! From inside a container to the host, by way of a checkpoint and a restart: not possible.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use crate::harness::World;
use crate::harness::hostile::{HostTree, Hostile};
use crate::harness::run::Output;

/// How a container tries it.
struct Attack {
    /// Its name.
    name: &'static str,
    /// What it does before the checkpoint.
    before: &'static [&'static str],
    /// And, where it goes on, after that.
    after: &'static [&'static str],
    /// What its host's others do to the shared directory, while it is stopped: they put a link to
    /// `@VICTIM` there.
    meanwhile: Option<&'static str>,
    /// What the refusal says, if nothing but refusing is right.
    told: &'static str,
}

const NONE: Attack = Attack { name: "", before: &[], after: &[], meanwhile: None, told: "" };

/// The numbers are those of the ways in which it was done once.
const ATTACKS: &[Attack] = &[
    Attack {
        name: "a-directory",
        before: &["mkdir /a/etc", "open /a/etc", "rmdir /a/etc", "rmdir /a", "symlink / /a"],
        told: "/a",
        ..NONE
    },
    Attack {
        name: "a-directory-of-the-victim",
        before: &[
            "mkdir /a/sub",
            "chmod /a/sub",
            "open /a/sub",
            "rmdir /a/sub",
            "rmdir /a",
            "symlink @VICTIM /a",
        ],
        told: "/a",
        ..NONE
    },
    Attack {
        name: "a-directory-by-magic",
        before: &[
            "mkdir /a/new",
            "open /a/new",
            "rmdir /a/new",
            "rmdir /a",
            "symlink /proc/1/root@VICTIM /a",
        ],
        told: "/a",
        ..NONE
    },
    Attack {
        name: "a-directory-in-a-tmpfs",
        before: &[
            "mkdir /m",
            "tmpfs /m",
            "mkdir /m/a/new",
            "open /m/a/new",
            "rmdir /m/a/new",
            "rmdir /m/a",
            "symlink /proc/1/root@VICTIM /m/a",
        ],
        told: "/m/a",
        ..NONE
    },
    Attack {
        name: "b-file",
        before: &[
            "mkdir /b/d",
            "create /b/d/f",
            "unlink /b/d/f",
            "rmdir /b/d",
            "rmdir /b",
            "symlink @VICTIM /b",
        ],
        told: "/b",
        ..NONE
    },
    Attack {
        name: "b-fifo-and-device-in-the-middle",
        before: &[
            "mkdir /b/c/d",
            "fifo /b/c/d/f",
            "unlink /b/c/d/f",
            "rmdir /b/c/d",
            "rmdir /b/c",
            "symlink ../../../../../../../../proc/1/root@VICTIM /b/c",
        ],
        told: "/b/c",
        ..NONE
    },
    Attack {
        name: "b-map-through-a-chain",
        before: &[
            "mkdir /b/d",
            "map /b/d/f",
            "unlink /b/d/f",
            "rmdir /b/d",
            "rmdir /b",
            "symlink /c /b",
            "symlink /e /c",
            "symlink /proc/self/root/@VICTIM /e",
        ],
        told: "/b",
        ..NONE
    },
    Attack {
        name: "b-hard-link",
        before: &[
            "mkdir /b/d",
            "create /b/d/f",
            "link /b/d/f /other",
            "unlink /b/d/f",
            "rmdir /b/d",
            "rmdir /b",
            "symlink @VICTIM /b",
        ],
        ..NONE
    },
    Attack {
        name: "b-socket",
        before: &[
            "mkdir /b/d",
            "stream /b/d/s",
            "unlink /b/d/s",
            "rmdir /b/d",
            "rmdir /b",
            "symlink @VICTIM /b",
        ],
        ..NONE
    },
    Attack {
        name: "b-forged-lines",
        before: &[
            "mkdir /b/d",
            "create /b/d/f%0Ahint:%20forged%0Anow:%20forged%E2%80%AE",
            "unlink /b/d/f%0Ahint:%20forged%0Anow:%20forged%E2%80%AE",
            "rmdir /b/d",
            "rmdir /b",
            "symlink @VICTIM /b",
        ],
        told: "forged",
        ..NONE
    },
    Attack {
        name: "c-bind",
        before: &["mkdir /x/sub", "mkdir /mnt", "bind /x/sub /mnt"],
        after: &["rename /x /y", "symlink @VICTIM /x"],
        told: "/x",
        ..NONE
    },
    Attack {
        name: "c-mount-point",
        before: &["mkdir /x/sub", "tmpfs /x/sub"],
        after: &["umount /x/sub", "rename /x /y", "symlink @VICTIM /x"],
        told: "/x",
        ..NONE
    },
    Attack {
        name: "c-open-file",
        before: &["mkdir /x/d", "create /x/d/file"],
        after: &["rename /x /y", "symlink @VICTIM /x"],
        told: "/x",
        ..NONE
    },
    // What CRIU does by path at the dump, with the host's tree around it: names for deleted files
    // that have others, directories for mounts that are covered, watched files looked for.
    Attack {
        name: "e-hard-link-by-magic",
        before: &[
            "mkdir /b/d",
            "create /b/d/f",
            "link /b/d/f /other",
            "unlink /b/d/f",
            "rmdir /b/d",
            "rmdir /b",
            "symlink /proc/1/root@VICTIM /b",
        ],
        ..NONE
    },
    Attack {
        name: "e-hard-link-upwards",
        before: &[
            "mkdir /b/d",
            "create /b/d/f",
            "link /b/d/f /other",
            "unlink /b/d/f",
            "rmdir /b/d",
            "rmdir /b",
            "symlink ../../../../../../../..@VICTIM /b",
        ],
        ..NONE
    },
    Attack {
        name: "e-content-of-the-victim",
        before: &[
            "mkdir /b/d",
            "create /b/d/file",
            "unlink /b/d/file",
            "rmdir /b/d",
            "rmdir /b",
            "symlink @VICTIM /b",
        ],
        told: "/b",
        ..NONE
    },
    Attack {
        name: "e-covered-mount",
        before: &[
            "mkdir /m",
            "tmpfs /m",
            "create /m/f",
            "tmpfs /m",
            "rename /tmp /old",
            "symlink @VICTIM /tmp",
        ],
        ..NONE
    },
    Attack {
        name: "e-covered-mount-by-magic",
        before: &[
            "mkdir /m",
            "tmpfs /m",
            "create /m/f",
            "tmpfs /m",
            "rename /tmp /old",
            "symlink /proc/1/root@VICTIM /tmp",
        ],
        ..NONE
    },
    Attack {
        name: "e-watched-and-gone",
        before: &[
            "mkdir /w/d",
            "create /w/d/file",
            "watch /w/d/file",
            "watch /w/d",
            "unlink /w/d/file",
            "rmdir /w/d",
            "rmdir /w",
            "symlink @VICTIM /w",
            "rename /etc /old-etc",
            "rename /var /old-var",
            "symlink @VICTIM /etc",
            "symlink / /var",
        ],
        ..NONE
    },
    Attack {
        name: "d-shared",
        before: &["mkdir /mnt", "bind /shared/sub /mnt"],
        meanwhile: Some("sub"),
        told: "sub",
        ..NONE
    },
    Attack {
        name: "d-shared-open",
        before: &["create /shared/d/file"],
        meanwhile: Some("d"),
        told: "/shared/d",
        ..NONE
    },
];

/// Each of them, with all of the host's power in the container.
pub fn is_not_possible(world: &World) {
    ATTACKS.iter().for_each(|attack| attempt(world, attack, false));
}

/// And with an id map.
pub fn is_not_possible_with_an_id_map(world: &World) {
    ATTACKS.iter().for_each(|attack| attempt(world, attack, true));
}

fn attempt(world: &World, attack: &Attack, id_mapped: bool) {
    let name = attack.name;
    let plan: Vec<String> = attack.before.iter().map(|step| step.to_string()).collect();
    let hostile = Hostile::make(world, name, id_mapped, &plan);
    let failed = hostile.start();
    assert!(failed.is_empty(), "{name}: {failed:?}");
    let container = &hostile.container;
    let images = world.images("checkpoints").join(name);
    let own = [container.dir(), images.clone(), hostile.shared.clone()];
    let own: Vec<&Path> = own.iter().map(AsRef::as_ref).collect();
    let parents = [world.lxcpath().join("images/checkpoints")];
    let without: Vec<&Path> =
        own.iter().copied().chain(parents.iter().map(AsRef::as_ref)).collect();

    let before = (HostTree::take(&without), names_in_tmp());
    let goes_on = !attack.after.is_empty();
    let how = if goes_on { "--leave-running" } else { "-s" };
    let told = container.ours("lxc-checkpoint").arg(how).arg("-D").arg(&images).output();
    let mut answers = vec![told];
    assert_eq!(holding(&images, "of the host"), Vec::<PathBuf>::new(), "{name}: {answers:#?}");
    if answers[0].success() {
        for step in attack.after {
            let failed = hostile.go_on(step);
            assert!(failed.is_empty(), "{name}: {failed:?}");
        }
        if let Some(part) = attack.meanwhile {
            fs::rename(hostile.shared.join(part), hostile.shared.join("moved")).unwrap();
            symlink(hostile.victim.join(part), hostile.shared.join(part)).unwrap();
        }
        let restart = container.ours("lxc-restart").arg("-D").arg(&images);
        let restart = if goes_on { restart.arg("--replace") } else { restart };
        answers.push(restart.output());
    }
    let after = (HostTree::take(&without), names_in_tmp());
    assert_eq!(after.0.changes(&before.0), Vec::<String>::new(), "{name}: {answers:#?}");
    assert_eq!(after.1, before.1, "{name}: {answers:#?}");
    let last: &Output = answers.last().unwrap();
    let forged = |line: &str| line.starts_with("hint: forged") || line.starts_with("now: forged");
    assert!(
        !last.stderr.lines().any(forged) && !last.stderr.contains('\u{202e}'),
        "{name}: {last}"
    );
    if !attack.told.is_empty() {
        assert!(!last.success() && last.stderr.contains(attack.told), "{name}: {answers:#?}");
    }
    container.lxc("lxc-stop").arg("-k").output();
    // Later ones have their own.
    fs::remove_dir_all(container.dir()).unwrap();
}

/// Where CRIU makes directories for mounts, on the host and in a container.
fn names_in_tmp() -> BTreeSet<PathBuf> {
    fs::read_dir("/tmp").unwrap().map(|entry| entry.unwrap().path()).collect()
}

/// The files in a directory, if it is there, that have this text in them.
fn holding(dir: &Path, text: &str) -> Vec<PathBuf> {
    let files = fs::read_dir(dir).into_iter().flatten().map(|entry| entry.unwrap().path());
    let holds = |file: &PathBuf| {
        let bytes = fs::read(file).unwrap();
        bytes.windows(text.len()).any(|part| part == text.as_bytes())
    };
    files.filter(|file| file.is_file()).filter(holds).collect()
}
