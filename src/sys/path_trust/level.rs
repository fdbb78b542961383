//! One directory, link or file on a way, and who could change what has its name, or what is in it.

use std::fs;
use std::io;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use rustix::fs::{FileType, fstat};

use crate::sys::acl::{self, Named};

/// In a directory with this bit, as `/tmp` has it, only the owner of a name can change it.
const STICKY: u32 = 0o1000;
/// Users' own ranges of ids: `USER:FIRST:COUNT` on each line.
const SUBORDINATE: &str = "/etc/subuid";
/// The users of this host.
const USERS: &str = "/etc/passwd";

/// Why a path is not trusted.
#[derive(Debug, thiserror::Error)]
pub enum Untrusted {
    /// A directory on the way belongs to another user.
    #[error("{} could be replaced: {} belongs to user {uid}", path.display(), at.display())]
    Owner {
        /// The path.
        path: PathBuf,
        /// The directory or link.
        at: PathBuf,
        /// Its owner.
        uid: u32,
    },
    /// A directory on the way belongs to the container's root, as whom a user of this host may act,
    /// too.
    #[error(
        "{} could be replaced: {} belongs to the container's root, user {uid}, as whom {user} may \
         act, too",
        path.display(),
        at.display()
    )]
    Shared {
        /// The path.
        path: PathBuf,
        /// The directory.
        at: PathBuf,
        /// Its owner.
        uid: u32,
        /// Its group.
        gid: u32,
        /// The user.
        user: String,
    },
    /// Others may write to a directory on the way.
    #[error("{} could be replaced: others can write to {} (mode {mode:o}{})", path.display(), at.display(), by_acl(*acl))]
    Writable {
        /// The path.
        path: PathBuf,
        /// The directory.
        at: PathBuf,
        /// Its permission bits.
        mode: u32,
        /// Whether an ACL lets them.
        acl: bool,
    },
    /// Somebody else owns the file itself.
    #[error("{} belongs to user {uid}, not to root: it is not trusted", path.display())]
    OwnedFile {
        /// The file.
        path: PathBuf,
        /// Its owner.
        uid: u32,
    },
    /// Others may write to the file itself.
    #[error("{} can be written by others (mode {mode:o}{}): it is not trusted", path.display(), by_acl(*acl))]
    WritableFile {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
        /// Whether an ACL lets them.
        acl: bool,
    },
    /// The way cannot be walked.
    #[error("stat {}", at.display())]
    Io {
        /// Where it ends.
        at: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

impl Untrusted {
    /// As the error of who only wants to open the path.
    pub(super) fn into_io(self) -> io::Error {
        match self {
            Untrusted::Io { source, .. } => source,
            other => io::Error::other(other),
        }
    }
}

fn by_acl(acl: bool) -> &'static str {
    if acl { ", by its ACL" } else { "" }
}

/// The root of a user namespace, as the host sees it.
///
/// `lxc-create` gives it the directory of a container with `lxc.idmap` (lxccontainer.c,
/// `do_create_container_dir`): it could change names there, but inside the container there is no
/// way to that directory. A user of the host whose own range of ids it is in has one, unless a
/// directory above is closed to all but root.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Guest {
    /// User id on the host.
    pub uid: u32,
    /// Group id on the host.
    pub gid: u32,
}

/// What stands on a way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// A directory in which a name is looked up.
    Directory,
    /// A symbolic link that is followed.
    Link,
    /// What is read at its end.
    File,
}

/// What a descriptor says of something on a way.
#[derive(Clone, Debug)]
pub(super) struct Level {
    at: PathBuf,
    kind: Kind,
    uid: u32,
    gid: u32,
    mode: u32,
    /// Those whom its ACL lets write.
    named: Vec<Named>,
    /// Whether nobody but root gets here.
    shut: bool,
}

impl Level {
    pub(super) fn of(fd: impl AsFd, at: PathBuf, kind: Kind, shut: bool) -> io::Result<Level> {
        let stat = fstat(&fd)?;
        // Nobody whom an ACL names may write where its mask does not let them, and the mask is seen
        // as the group's bits.
        let named = if kind != Kind::Link && stat.st_mode & 0o020 != 0 {
            acl::writers(&fd)?
        } else {
            Vec::new()
        };
        Ok(Level { at, kind, uid: stat.st_uid, gid: stat.st_gid, mode: stat.st_mode, named, shut })
    }

    /// Whether nobody but root gets below.
    pub(super) fn is_shut(&self) -> bool {
        is_ours(self.uid) && self.mode & 0o001 == 0 && (self.mode & 0o010 == 0 || self.gid == 0)
    }

    /// Whether it is as root left it, on the way to `path`.
    pub(super) fn judge(&self, path: &Path, guest: Option<Guest>) -> Result<(), Untrusted> {
        match self.kind {
            Kind::Directory => self.judge_directory(path, guest),
            Kind::Link if is_ours(self.uid) => Ok(()),
            Kind::Link => Err(self.is_owned(path)),
            Kind::File => self.judge_file(),
        }
    }

    /// Whether a directory that we have just made is that one.
    pub(super) fn judge_own(&self, path: &Path) -> Result<(), Untrusted> {
        if self.uid != nix::unistd::geteuid().as_raw() {
            return Err(self.is_owned(path));
        }
        match self.mode & 0o022 {
            0 => Ok(()),
            _ => Err(self.is_writable(path, false)),
        }
    }

    fn judge_directory(&self, path: &Path, guest: Option<Guest>) -> Result<(), Untrusted> {
        let at = || self.at.clone();
        if !is_ours(self.uid) {
            if guest.is_none_or(|guest| guest.uid != self.uid) {
                return Err(self.is_owned(path));
            }
            if !self.shut
                && let Some(user) = user_who_may_be(self.uid)
            {
                return Err(Untrusted::Shared {
                    path: path.to_owned(),
                    at: at(),
                    uid: self.uid,
                    gid: self.gid,
                    user,
                });
            }
        }
        let is_sticky = self.mode & STICKY != 0;
        let group = |gid: u32| gid == 0 || guest.is_some_and(|guest| guest.gid == gid);
        let user = |uid: u32| is_ours(uid) || guest.is_some_and(|guest| guest.uid == uid);
        let by_mode = (self.mode & 0o020 != 0 && !group(self.gid)) || self.mode & 0o002 != 0;
        let by_acl = !self.named.iter().all(|named| self.is_one_of_ours(*named, &user, &group));
        if (by_mode || by_acl) && !is_sticky {
            return Err(self.is_writable(path, !by_mode));
        }
        Ok(())
    }

    fn judge_file(&self) -> Result<(), Untrusted> {
        let path = self.at.clone();
        if !is_ours(self.uid) {
            return Err(Untrusted::OwnedFile { path, uid: self.uid });
        }
        let by_mode = (self.mode & 0o020 != 0 && self.gid != 0) || self.mode & 0o002 != 0;
        let by_acl =
            !self.named.iter().all(|named| self.is_one_of_ours(*named, &is_ours, &|gid| gid == 0));
        // Of a device, as of /dev/null, nothing is read that anybody has written.
        if (by_mode || by_acl) && FileType::from_raw_mode(self.mode) == FileType::RegularFile {
            return Err(Untrusted::WritableFile { path, mode: self.mode & 0o7777, acl: !by_mode });
        }
        Ok(())
    }

    fn is_one_of_ours(
        &self,
        named: Named,
        user: &dyn Fn(u32) -> bool,
        group: &dyn Fn(u32) -> bool,
    ) -> bool {
        match named {
            Named::User(uid) => user(uid),
            Named::Group(gid) => group(gid),
        }
    }

    fn is_owned(&self, path: &Path) -> Untrusted {
        Untrusted::Owner { path: path.to_owned(), at: self.at.clone(), uid: self.uid }
    }

    fn is_writable(&self, path: &Path, acl: bool) -> Untrusted {
        Untrusted::Writable {
            path: path.to_owned(),
            at: self.at.clone(),
            mode: self.mode & 0o7777,
            acl,
        }
    }
}

/// Root, or in tests whoever runs them.
pub(crate) fn is_ours(uid: u32) -> bool {
    uid == 0 || uid == nix::unistd::geteuid().as_raw()
}

/// A user of this host, other than root, who has this id or may use it in a user namespace.
fn user_who_may_be(uid: u32) -> Option<String> {
    // Of what cannot be read, all is to be feared.
    let read = |path| match fs::read_to_string(path) {
        Ok(text) => Some(text),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Some(String::new()),
        Err(_) => None,
    };
    match (read(SUBORDINATE), read(USERS)) {
        (Some(ranges), Some(users)) => {
            owner_of_range(&ranges, uid).or_else(|| user_of_id(&users, uid))
        }
        _ => Some("another user".to_owned()),
    }
}

fn owner_of_range(ranges: &str, uid: u32) -> Option<String> {
    ranges.lines().find_map(|line| {
        let mut fields = line.split(':');
        let (user, first, count) = (fields.next()?, fields.next()?, fields.next()?);
        let (first, count): (u64, u64) = (first.trim().parse().ok()?, count.trim().parse().ok()?);
        let is_in = (first..first.saturating_add(count)).contains(&u64::from(uid));
        (is_in && user != "root" && user != "0").then(|| user.to_owned())
    })
}

fn user_of_id(users: &str, uid: u32) -> Option<String> {
    users.lines().find_map(|line| {
        let mut fields = line.split(':');
        let (user, id) = (fields.next()?, fields.nth(1)?);
        (id.parse() == Ok(uid)).then(|| user.to_owned())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn directory(uid: u32, gid: u32, mode: u32, named: &[Named]) -> Level {
        Level {
            at: "/d".into(),
            kind: Kind::Directory,
            uid,
            gid,
            mode,
            named: named.to_vec(),
            shut: false,
        }
    }

    #[test]
    fn an_acl_counts_as_a_mode_does() {
        let path = Path::new("/d/x");
        let guest = Some(Guest { uid: 4_000_000_000, gid: 4_000_000_001 });
        let judge = |level: Level| level.judge(path, guest);
        judge(directory(0, 0, 0o770, &[])).unwrap();
        judge(directory(
            0,
            0,
            0o770,
            &[Named::User(0), Named::Group(0), Named::User(4_000_000_000)],
        ))
        .unwrap();
        for named in [Named::User(1234), Named::Group(1234), Named::User(4_000_000_001)] {
            let error = judge(directory(0, 0, 0o770, &[named])).unwrap_err().to_string();
            assert!(error.contains("others can write to /d (mode 770, by its ACL)"), "{error}");
            judge(directory(0, 0, 0o1770, &[named])).unwrap();
            let file = Level { kind: Kind::File, mode: 0o100660, ..directory(0, 0, 0, &[named]) };
            let error = judge(file).unwrap_err().to_string();
            assert!(error.contains("can be written by others (mode 660, by its ACL)"), "{error}");
        }
    }

    #[test]
    fn whose_range_of_ids_it_is_counts() {
        let ranges = "root:100000:65536\nalice:165536:65536\n\n# x\nbob:1\n1001:300000:1\n";
        assert_eq!(owner_of_range(ranges, 100_000), None);
        assert_eq!(owner_of_range(ranges, 165_536).as_deref(), Some("alice"));
        assert_eq!(owner_of_range(ranges, 165_536 + 65_536), None);
        assert_eq!(owner_of_range(ranges, 300_000).as_deref(), Some("1001"));
        assert_eq!(
            user_of_id("root:x:0:0::/root:/bin/sh\nalice:x:1000:1000::/:/bin/sh\n", 1000)
                .as_deref(),
            Some("alice")
        );
        assert_eq!(user_of_id("alice:x:1000:1000::/:/bin/sh\n", 1001), None);
    }

    #[test]
    fn a_closed_directory_above_keeps_all_others_out() {
        for (mode, gid, shut) in [
            (0o700, 5, true),
            (0o710, 0, true),
            (0o710, 5, false),
            (0o711, 0, false),
            (0o755, 0, false),
        ] {
            assert_eq!(directory(0, gid, mode, &[]).is_shut(), shut, "{mode:o}");
        }
        assert!(!directory(4_000_000_000, 0, 0o700, &[]).is_shut());
    }
}
