//! Which init a root has. The root is not trusted: nothing here follows a link out of it, and
//! nothing of it is run.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use crate::sys::in_root::Below;

/// What LXC starts when nothing else is said.
pub(crate) const DEFAULT: &str = "/sbin/init";

/// An init.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Init {
    /// systemd.
    Systemd,
    /// That of the sysvinit package, with its inittab.
    Sysvinit,
    /// OpenRC, under its own init or another one.
    OpenRc,
    /// runit.
    Runit,
    /// busybox.
    Busybox,
    /// Something else: a program of the user's, for instance.
    Other(PathBuf),
}

impl Init {
    /// The init of a root; `program` is what the configuration starts. None where there is no such
    /// program.
    pub fn find(root: &Below, program: &Path) -> io::Result<Option<Init>> {
        let real = match root.resolve(program) {
            Ok(real) => real,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(e),
        };
        let there = |path: &str| root.look(Path::new(path)).is_ok();
        let name = real.file_name().and_then(|n| n.to_str()).unwrap_or_default();
        Ok(Some(match name {
            "systemd" => Init::Systemd,
            "openrc-init" => Init::OpenRc,
            "runit" | "runit-init" => Init::Runit,
            "busybox" | "init" if there("/sbin/openrc") => Init::OpenRc,
            "busybox" => Init::Busybox,
            "init" if there("/etc/inittab") => Init::Sysvinit,
            _ => Init::Other(real),
        }))
    }

    /// The init that a user names, where the root cannot be looked into.
    pub fn named(name: &str) -> Option<Init> {
        let all = [Init::Systemd, Init::Sysvinit, Init::OpenRc, Init::Runit, Init::Busybox];
        all.into_iter().find(|init| init.to_string() == name)
    }
}

impl fmt::Display for Init {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Init::Systemd => "systemd",
            Init::Sysvinit => "sysvinit",
            Init::OpenRc => "openrc",
            Init::Runit => "runit",
            Init::Busybox => "busybox",
            Init::Other(program) => return program.display().fmt(f),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::symlink;

    /// The init of a root with these links and files.
    fn found(links: &[(&str, &str)], files: &[&str]) -> Option<Init> {
        let top = tempfile::tempdir().unwrap();
        let put = |name: &str| {
            let path = top.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            path
        };
        files.iter().for_each(|name| fs::write(put(name), "").unwrap());
        links.iter().for_each(|(name, target)| symlink(target, put(name)).unwrap());
        Init::find(&Below::open(top.path()).unwrap(), Path::new(DEFAULT)).unwrap()
    }

    #[test]
    fn each_is_known_by_what_sbin_init_leads_to() {
        let systemd = [("sbin", "usr/sbin"), ("usr/sbin/init", "../lib/systemd/systemd")];
        assert_eq!(found(&systemd, &["usr/lib/systemd/systemd"]), Some(Init::Systemd));
        let absolute = [("sbin/init", "/lib/systemd/systemd")];
        assert_eq!(found(&absolute, &["lib/systemd/systemd"]), Some(Init::Systemd));
        assert_eq!(found(&[], &["sbin/init", "etc/inittab"]), Some(Init::Sysvinit));
        assert_eq!(found(&[], &["sbin/init", "etc/inittab", "sbin/openrc"]), Some(Init::OpenRc));
        let busybox = [("sbin/init", "/bin/busybox")];
        assert_eq!(found(&busybox, &["bin/busybox"]), Some(Init::Busybox));
        assert_eq!(found(&busybox, &["bin/busybox", "sbin/openrc"]), Some(Init::OpenRc), "Alpine");
        assert_eq!(found(&[("sbin/init", "runit-init")], &["sbin/runit-init"]), Some(Init::Runit));
        assert_eq!(found(&[], &["sbin/init"]), Some(Init::Other("/sbin/init".into())));
        assert_eq!(found(&[], &[]), None);
        // A link to what only the host has leads nowhere.
        assert_eq!(found(&[("sbin/init", "/proc/self/exe")], &[]), None);
    }
}
