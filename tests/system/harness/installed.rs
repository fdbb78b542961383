//! What `make install` puts below a prefix, as far as containers name it; and `lxc-cr`, which finds
//! it by its own place.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use super::enter::PROGRAMS;

const CONFIG: &[(&str, &str)] = &[
    ("lxc-cr.conf", include_str!("../../../lxc-config/lxc-cr.conf.in")),
    ("lxc-cr-systemd.conf", include_str!("../../../lxc-config/lxc-cr-systemd.conf.in")),
];
const DATA: &[(&str, &str)] = &[
    ("service.conf", include_str!("../../../lxc-config/systemd/service.conf")),
    ("manager.conf", include_str!("../../../lxc-config/systemd/manager.conf")),
    ("no-bpf.seccomp", include_str!("../../../lxc-config/systemd/no-bpf.seccomp")),
];

/// What is mounted for programs in a container.
const PROGRAMS_DATA: &[(&str, &str)] = &[
    ("php.ini", include_str!("../../../lxc-config/programs/php.ini")),
    ("haproxy.conf", include_str!("../../../lxc-config/programs/haproxy.conf")),
    ("vsftpd.conf", include_str!("../../../lxc-config/programs/vsftpd.conf")),
];

/// An installation.
#[derive(Debug)]
pub struct Installed(PathBuf);

impl Installed {
    /// Makes one.
    pub fn make(prefix: &Path) -> Installed {
        let installed = Installed(prefix.to_owned());
        let data = prefix.join("share/lxc-cr");
        let hooks = prefix.join("libexec/lxc-cr");
        for dir in [
            &installed.0.join("bin"),
            &data.join("systemd"),
            &prefix.join("libexec"),
            &installed.config(""),
        ] {
            fs::create_dir_all(dir).unwrap();
        }
        symlink(PROGRAMS, &hooks).unwrap();
        // A link would lead it to where it was built.
        fs::copy(Path::new(PROGRAMS).join("lxc-cr"), installed.lxc_cr()).unwrap();
        for (name, text) in CONFIG {
            let text = text
                .replace("@DATADIR@", &data.to_string_lossy())
                .replace("@LIBEXECDIR@", PROGRAMS);
            fs::write(installed.config(name), text).unwrap();
        }
        fs::create_dir_all(data.join("programs")).unwrap();
        for (name, text) in PROGRAMS_DATA {
            fs::write(data.join("programs").join(name), text).unwrap();
        }
        for (name, text) in DATA {
            fs::write(data.join("systemd").join(name), text).unwrap();
        }
        installed
    }

    /// The program that was installed.
    pub fn lxc_cr(&self) -> PathBuf {
        self.0.join("bin/lxc-cr")
    }

    /// A configuration to include.
    pub fn config(&self, name: &str) -> PathBuf {
        self.0.join("share/lxc/config").join(name)
    }

    /// The seccomp profile for systemd without an id map.
    pub fn profile(&self) -> PathBuf {
        self.0.join("share/lxc-cr/systemd/no-bpf.seccomp")
    }
}
