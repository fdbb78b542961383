//! The Debian root of the workloads: what is set up in it once, before any container runs.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::os::unix::fs::{PermissionsExt, lchown, symlink};
use std::path::Path;
use std::time::Duration;

use crate::harness::enter::{OBJECT, OPENRC_ROOT, WORKLOADS_ROOT};
use crate::harness::run::Run;

/// One of the roots, and what a container with it is called.
#[derive(Debug)]
pub struct Debian {
    pub name: &'static str,
    made_of: &'static str,
    /// Whether its files belong to the ids of an id map.
    is_shifted: bool,
}

pub const UNPRIVILEGED: Debian =
    Debian { name: "workload", made_of: WORKLOADS_ROOT, is_shifted: true };
pub const PRIVILEGED: Debian =
    Debian { name: "workload-p", made_of: WORKLOADS_ROOT, is_shifted: false };
pub const WITH_OPENRC: Debian =
    Debian { name: "workload-o", made_of: OPENRC_ROOT, is_shifted: true };

/// Where the programs of rows are in the container.
pub const ROWS: &str = "usr/local/lib/rows";
/// Where they complain.
pub const LOGS: &str = "var/log";
/// Where the ids of an unprivileged container begin on the host.
pub const SHIFT: u32 = 100_000;
/// For a gigabyte to be copied on a busy machine.
const COPY_LIMIT: Duration = Duration::from_secs(120);

/// What is added to configuration files: servers listen on the bridge.
const ADDED: &[(&str, &str)] = &[
    ("etc/redis/redis.conf", "bind 0.0.0.0\nprotected-mode no\n"),
    ("etc/postgresql/17/main/postgresql.conf", "listen_addresses = '*'\n"),
    ("etc/postgresql/17/main/pg_hba.conf", "host all all 10.99.0.0/24 trust\n"),
    ("etc/ssh/sshd_config", "PermitRootLogin yes\n"),
];
/// What takes the place of others.
const WRITTEN: &[(&str, &str)] = &[
    // Debian's listens on addresses of the loopback, and on no other one beside them.
    (
        "etc/memcached.conf",
        "-d\n-u memcache\n-p 11211\n-l 0.0.0.0\n-P /var/run/memcached/memcached.pid\n",
    ),
    ("etc/hosts", "127.0.0.1 localhost workload workload-p workload-o\n"),
    ("etc/machine-id", ""),
];
const PROGRAMS: &[(&str, &str)] = &[
    ("server.py", include_str!("programs/server.py")),
    ("server.js", include_str!("programs/server.js")),
];
/// What a client downloads: its numbers say where it is.
pub const BIG_FILE: &str = "var/www/html/big";
pub const BIG_WORDS: u64 = 8 << 20;

/// Makes the root of a container.
pub fn make(debian: &Debian, root: &Path) {
    let has_root = Path::new(debian.made_of).join("usr").exists();
    assert!(has_root, "no root: run packaging/test-host.sh --workloads and --openrc");
    Run::new("cp").args(["-a", debian.made_of]).arg(root).limit(COPY_LIMIT).ok();
    for (path, text) in ADDED {
        let path = root.join(path);
        // Of what sshd is told twice, the first counts; the others take the last.
        let old = fs::read_to_string(&path).unwrap_or_default();
        fs::write(
            &path,
            if path.ends_with("sshd_config") { format!("{text}{old}") } else { old + text },
        )
        .unwrap();
    }
    for (path, text) in WRITTEN {
        fs::write(root.join(path), text).unwrap();
    }
    fs::write(root.join("etc/hostname"), format!("{}\n", debian.name)).unwrap();
    let rows = root.join(ROWS);
    fs::create_dir_all(&rows).unwrap();
    fs::copy(OBJECT, rows.join("object")).unwrap();
    fs::set_permissions(rows.join("object"), fs::Permissions::from_mode(0o755)).unwrap();
    for (name, text) in PROGRAMS {
        fs::write(rows.join(name), text).unwrap();
    }
    let words: Vec<u8> = (0..BIG_WORDS).flat_map(u64::to_le_bytes).collect();
    fs::write(root.join(BIG_FILE), words).unwrap();
    let key = "/root/.ssh/id_ed25519";
    Run::new("chroot")
        .arg(root)
        .args(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key])
        .ok();
    let ssh = root.join("root/.ssh");
    fs::copy(ssh.join("id_ed25519.pub"), ssh.join("authorized_keys")).unwrap();
    // Nothing of the network is to be waited for.
    for unit in
        ["systemd-networkd-wait-online.service", "apt-daily.timer", "apt-daily-upgrade.timer"]
    {
        let _ = symlink("/dev/null", root.join("etc/systemd/system").join(unit));
    }
    // No terminal is there.
    let inittab = root.join("etc/inittab");
    let old = fs::read_to_string(&inittab).unwrap();
    let kept: String =
        old.lines().filter(|l| !l.contains("getty")).map(|l| format!("{l}\n")).collect();
    fs::write(inittab, kept).unwrap();
    if debian.is_shifted {
        shift_owners(root);
    }
}

/// Gives a tree to the ids of the id map.
pub fn shift_owners(path: &Path) {
    let meta = fs::symlink_metadata(path).unwrap();
    lchown(path, Some(meta.uid() + SHIFT), Some(meta.gid() + SHIFT)).unwrap();
    if !meta.is_symlink() {
        // The change of the owner has taken the set-user-id bit.
        fs::set_permissions(path, meta.permissions()).unwrap();
    }
    if meta.is_dir() {
        for entry in fs::read_dir(path).unwrap() {
            shift_owners(&entry.unwrap().path());
        }
    }
}
