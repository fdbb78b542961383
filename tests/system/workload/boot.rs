//! How each init is made to start the programs of rows, and nothing that they do not need.

use std::fmt::Write as _;
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

use super::Kind;
use super::root::{LOGS, ROWS, shift_owners};

const UNITS: &str = "etc/systemd/system";
const WANTED: &str = "etc/systemd/system/multi-user.target.wants";
const INITTAB: &str = "etc/inittab";
const RUNIT: &str = "etc/runit/runsvdir/default";
/// Keeps runit from running the scripts of sysvinit, one of which it waits for in vain.
const RUNIT_ALONE: &str = "etc/runit/no.emulate.sysv";
const OPENRC: &str = "etc/init.d";
const OPENRC_DEFAULT: &str = "etc/runlevels/default";
/// What systemd starts as other users than root.
const OF_OTHERS: &[&str] = &[
    "dbus.service",
    "dbus.socket",
    "memcached.service",
    "nginx.service",
    "postgresql.service",
    "postgresql@17-main.service",
    "redis-server.service",
];

/// Makes the init start the script of each row.
pub fn put(root: &Path, kind: Kind, ids: &[u16]) {
    let mut inittab = String::new();
    for id in ids {
        let (name, script) = (format!("row-{id}"), format!("/{ROWS}/row-{id}"));
        match kind {
            Kind::Systemd | Kind::SystemdPrivileged => {
                let unit = format!("{name}.service");
                fs::write(root.join(UNITS).join(&unit), format!("[Service]\nExecStart={script}\n"))
                    .unwrap();
                symlink(format!("../{unit}"), root.join(WANTED).join(unit)).unwrap();
            }
            Kind::Sysvinit => writeln!(inittab, "r{id}:2345:once:{script}").unwrap(),
            Kind::Openrc => {
                let service = format!(
                    "#!/sbin/openrc-run\ncommand={script}\ncommand_background=yes\npidfile=/run/{name}.pid\n"
                );
                put_executable(&root.join(OPENRC).join(&name), &service);
                symlink(format!("/{OPENRC}/{name}"), root.join(OPENRC_DEFAULT).join(name)).unwrap();
            }
            Kind::Runit => {
                let dir = root.join(RUNIT).join(name);
                fs::create_dir_all(&dir).unwrap();
                put_executable(&dir.join("run"), &format!("#!/bin/sh\nexec {script}\n"));
                // Its supervisor keeps its state in there.
                shift_owners(&dir);
            }
            Kind::Program | Kind::ProgramPrivileged | Kind::Execute | Kind::Recipe => {}
        }
    }
    fs::write(root.join(RUNIT_ALONE), "").unwrap();
    let path = root.join(INITTAB);
    let old = fs::read_to_string(&path).unwrap();
    fs::write(path, old + &inittab).unwrap();
}

/// Lets systemd start nothing as another user than root.
pub fn mask_others(root: &Path) {
    for unit in OF_OTHERS {
        symlink("/dev/null", root.join(UNITS).join(unit)).unwrap();
    }
}

/// Takes away what rows before have left in a root that several kinds use.
pub fn clear(root: &Path) {
    for place in [ROWS, LOGS, UNITS, WANTED, RUNIT, OPENRC, OPENRC_DEFAULT] {
        for entry in fs::read_dir(root.join(place)).into_iter().flatten().flatten() {
            let (name, path) = (entry.file_name(), entry.path());
            let name = name.to_string_lossy();
            let is_masked = OF_OTHERS.contains(&&*name)
                && fs::read_link(&path).is_ok_and(|to| to == Path::new("/dev/null"));
            if is_masked || name.starts_with("row-") {
                let is_dir = entry.file_type().is_ok_and(|t| t.is_dir());
                if is_dir { fs::remove_dir_all(path) } else { fs::remove_file(path) }.unwrap();
            }
        }
    }
    let inittab = root.join(INITTAB);
    let old = fs::read_to_string(&inittab).unwrap();
    let kept: String =
        old.lines().filter(|l| !l.contains("/row-")).map(|l| format!("{l}\n")).collect();
    fs::write(inittab, kept).unwrap();
}

pub fn put_executable(path: &Path, text: &str) {
    fs::write(path, text).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
}
