//! Processes in a container that CRIU cannot dump (`tests/system/culprit/`).

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::time::Duration;

use super::container::Container;
use super::enter::CULPRIT;
use super::run::{Run, wait_for};

/// For it to be made, or to be gone.
const LIMIT: Duration = Duration::from_secs(10);

/// Who makes them; it runs in the container from its start on.
#[derive(Debug)]
pub struct Culprits {
    tmp: PathBuf,
}

impl Culprits {
    /// Puts the program into a container that does not run yet.
    pub fn put_into(container: &Container) -> Culprits {
        let rootfs = container.rootfs();
        fs::copy(CULPRIT, rootfs.join("bin/culprit")).unwrap();
        fs::set_permissions(rootfs.join("bin/culprit"), fs::Permissions::from_mode(0o755)).unwrap();
        let inittab = rootfs.join("etc/inittab");
        let text = fs::read_to_string(&inittab).unwrap();
        fs::write(inittab, format!("{text}::once:/bin/culprit serve\n")).unwrap();
        let tmp = rootfs.join("tmp");
        Run::new("mkfifo").arg(tmp.join("culprit.in")).ok();
        Culprits { tmp }
    }

    /// Starts a process that has something of this kind; its number in the container. None where
    /// the kernel does not offer it here.
    pub fn make(&self, kind: &str) -> Option<i32> {
        let told = self.ask(&format!("make {kind}"));
        match told.rsplit_once(' ').and_then(|(_, pid)| pid.parse().ok()) {
            Some(pid) => Some(pid),
            None => {
                eprintln!("not tried here: {told}");
                None
            }
        }
    }

    /// Ends all of these processes and removes what they made.
    pub fn end(&self) {
        assert_eq!(self.ask("end"), "ended");
    }

    fn ask(&self, line: &str) -> String {
        let answer = self.tmp.join("culprit");
        let _ = fs::remove_file(&answer);
        fs::write(self.tmp.join("culprit.in"), format!("{line}\n")).unwrap();
        wait_for(&format!("the culprit to answer '{line}'"), LIMIT, || {
            fs::read_to_string(&answer).ok()
        })
        .unwrap_or_else(|e| panic!("{e}"))
    }
}
