//! From inside a container to the host, by way of a checkpoint and a restart: not possible.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

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

    let before = HostTree::take(&without);
    let goes_on = !attack.after.is_empty();
    let how = if goes_on { "--leave-running" } else { "-s" };
    let told = container.ours("lxc-checkpoint").arg(how).arg("-D").arg(&images).output();
    let mut answers = vec![told];
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
    let after = HostTree::take(&without);
    assert_eq!(after.changes(&before), Vec::<String>::new(), "{name}: {answers:#?}");
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
