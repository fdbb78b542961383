//! Programs that CRIU can dump once their configuration says one thing more: what a root has of
//! them, and the file of ours that LXC mounts into it at each start. Nothing in the root is
//! changed.

use std::io;
use std::path::{Path, PathBuf};

use crate::sys::in_root::Below;

/// A file of ours, and where it is mounted in the root.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct DropIn {
    /// Below the `programs` directory of our data.
    pub file: &'static str,
    /// Without the leading slash.
    pub target: PathBuf,
    /// What is to be said of it.
    pub note: Note,
}

/// A family of programs, as distributions lay them out.
struct Family {
    drop_in: &'static str,
    /// Directories; a `*` stands for one of any name.
    directories: &'static [&'static str],
    /// What is in such a directory where the program is one that needs it: how a name ends.
    sign: &'static str,
    goes: Goes,
    note: Note,
}

/// Where the drop-in goes.
enum Goes {
    /// Into the same directory.
    Beside(&'static str),
    /// To a place of its own.
    To(&'static str),
}

/// What the user is told of it: what is so then, and why.
pub(crate) type Note = (&'static str, &'static str);

const UNITS: &[&str] = &["usr/lib/systemd/system", "lib/systemd/system"];

const FAMILIES: &[Family] = &[
    Family {
        drop_in: "php.ini",
        // Debian; Alpine; Fedora and openSUSE.
        directories: &["etc/php/*/*/conf.d", "etc/*/conf.d", "etc/php.d"],
        sign: "opcache.ini",
        goes: Goes::Beside("99-lxc-cr.ini"),
        note: (
            "PHP will have no buffer for compiled code (opcache.jit_buffer_size=0)",
            "CRIU cannot dump a process with such a buffer; opcache itself works as before",
        ),
    },
    Family {
        drop_in: "haproxy.conf",
        directories: UNITS,
        sign: "haproxy.service",
        goes: Goes::To("etc/systemd/system/haproxy.service.d/lxc-cr.conf"),
        note: (
            "HAProxy will not have /dev/log mounted in its chroot",
            "CRIU cannot mount a socket again; rsyslog makes one there by itself, and 'log stdout \
             format raw local0' needs none",
        ),
    },
    Family {
        drop_in: "vsftpd.conf",
        directories: UNITS,
        sign: "vsftpd.service",
        goes: Goes::To("etc/systemd/system/vsftpd.service.d/lxc-cr.conf"),
        note: (
            "vsftpd will serve its sessions without namespaces of their own (isolate=NO)",
            "CRIU can nest mount and network namespaces, but none of another kind",
        ),
    },
];

/// What the programs of a root need.
pub(crate) fn find(root: &Below) -> io::Result<Vec<DropIn>> {
    let mut found = Vec::new();
    for family in FAMILIES {
        for pattern in family.directories {
            for directory in expand(root, pattern)? {
                if names(root, &directory)?.iter().any(|name| is_sign(name, family.sign)) {
                    let target = match family.goes {
                        Goes::Beside(name) => directory.join(name),
                        Goes::To(target) => PathBuf::from(target),
                    };
                    found.push(DropIn { file: family.drop_in, target, note: family.note });
                }
            }
        }
    }
    found.sort_by(|a, b| a.target.cmp(&b.target));
    Ok(found)
}

/// `10-opcache.ini` is one of `opcache.ini`; `my-haproxy.service` is none of `haproxy.service`.
fn is_sign(name: &Path, sign: &str) -> bool {
    let name = name.to_string_lossy();
    let number = name.strip_suffix(sign);
    number.is_some_and(|before| before.chars().all(|c| c.is_ascii_digit() || "-_".contains(c)))
}

/// The directories that a pattern stands for. LXC mounts nothing through a link, so that one with a
/// link on its way is left out.
fn expand(root: &Below, pattern: &str) -> io::Result<Vec<PathBuf>> {
    let mut found = vec![PathBuf::new()];
    for part in pattern.split('/') {
        let mut next = Vec::new();
        for directory in found {
            match part {
                "*" => next
                    .extend(names(root, &directory)?.into_iter().map(|name| directory.join(name))),
                _ => next.push(directory.join(part)),
            }
        }
        found = next;
        found.retain(|path| is_directory(root, path));
    }
    Ok(found)
}

fn is_directory(root: &Below, path: &Path) -> bool {
    let is_one = root.look(path).is_ok_and(|found| found.mode & libc::S_IFMT == libc::S_IFDIR);
    is_one && !root.has_link(path).unwrap_or(true)
}

fn names(root: &Below, directory: &Path) -> io::Result<Vec<PathBuf>> {
    let mut names: Vec<PathBuf> = root.names(directory)?;
    names.sort();
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::symlink;

    #[test]
    fn each_program_is_found_by_its_sign() {
        let top = tempfile::tempdir().unwrap();
        for dir in [
            "etc/php/8.4/fpm/conf.d",
            "etc/php/8.4/cli/conf.d",
            "etc/php/8.2/fpm/conf.d",
            "etc/php83/conf.d",
        ] {
            fs::create_dir_all(top.path().join(dir)).unwrap();
        }
        for dir in ["etc/php/8.4/fpm/conf.d", "etc/php/8.4/cli/conf.d"] {
            symlink(
                "/etc/php/8.4/mods-available/opcache.ini",
                top.path().join(dir).join("10-opcache.ini"),
            )
            .unwrap();
        }
        fs::write(top.path().join("etc/php83/conf.d/00_opcache.ini"), "").unwrap();
        symlink("php", top.path().join("etc/linked")).unwrap();
        fs::write(top.path().join("etc/passwd"), "").unwrap();
        fs::create_dir_all(top.path().join("usr/lib/systemd/system")).unwrap();
        for unit in ["haproxy.service", "my-vsftpd.service"] {
            fs::write(top.path().join("usr/lib/systemd/system").join(unit), "").unwrap();
        }
        symlink("usr/lib", top.path().join("lib")).unwrap();
        let found = find(&Below::open(top.path()).unwrap()).unwrap();
        let targets: Vec<_> = found.iter().map(|d| d.target.to_str().unwrap()).collect();
        assert_eq!(
            targets,
            [
                "etc/php/8.4/cli/conf.d/99-lxc-cr.ini",
                "etc/php/8.4/fpm/conf.d/99-lxc-cr.ini",
                "etc/php83/conf.d/99-lxc-cr.ini",
                "etc/systemd/system/haproxy.service.d/lxc-cr.conf"
            ]
        );
    }

    #[test]
    fn a_root_without_any_needs_nothing() {
        let top = tempfile::tempdir().unwrap();
        assert_eq!(find(&Below::open(top.path()).unwrap()).unwrap(), []);
    }
}
