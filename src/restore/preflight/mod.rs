//! Whether a checkpoint can be restarted here and now: all that can be known before anything is
//! touched.
//!
//! CRIU would find most of this, too, but late, one at a time, and in its own words; some of it
//! nobody would find: a configuration or root that is not the one of the checkpoint any more. All
//! reasons are told at once. Those that are no certain failure can be passed over with `--force`,
//! and are then told as notes.

mod config;
mod files;
mod links;
mod mounts;
mod network;

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use anyhow::{Context, anyhow};

use crate::criu::images::{self, Inventory, Lsm};
use crate::criu::version::{Criu, Version};
use crate::error::{Exit, Failure, Result};
use crate::lxc::config::HookKind;
use crate::lxc::definition::Defined;
use crate::report::shown;
use crate::resources::apparmor::{self, Label};
use crate::resources::network::neighbours;
use crate::resources::rootfs::Root;
use crate::restore::copy::{self, Copy};
use crate::store::record::Record;
use crate::sys::netlink::Netlink;

/// Our own pre-start hook, which changes nothing of what is in the root.
const OWN_HOOK: &str = "lxc-cr-pre-start";
/// How many reasons are told; the rest is counted.
const MOST_TOLD: usize = 5;

/// What a restart is about.
#[derive(Clone, Copy, Debug)]
pub(super) struct Subject<'a> {
    /// The checkpoint.
    pub images: &'a Path,
    /// Its record, if it has one.
    pub record: Option<&'a Record>,
    /// What makes it another container, if the checkpoint is that of another.
    pub copy: Option<&'a Copy>,
    /// The container as it is defined now.
    pub defined: &'a Defined,
    /// The CRIU that is here.
    pub criu: &'a Criu,
    /// It is only rehearsed, beside the container that still is there.
    pub beside: bool,
}

/// Why a checkpoint should not be restarted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Reason {
    /// In words.
    pub text: String,
    /// How much it weighs.
    pub weight: Weight,
}

/// How much speaks against a restart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Weight {
    /// It fails for certain, and going ahead is not offered.
    Certain,
    /// Only who asks for it goes ahead.
    Doubtful,
    /// It is told.
    Note,
}

impl Reason {
    fn certain(text: impl Into<String>) -> Reason {
        Reason { text: shown(&text.into()), weight: Weight::Certain }
    }

    fn doubtful(text: impl Into<String>) -> Reason {
        Reason { text: shown(&text.into()), weight: Weight::Doubtful }
    }

    fn note(text: impl Into<String>) -> Reason {
        Reason { text: shown(&text.into()), weight: Weight::Note }
    }
}

impl Subject<'_> {
    /// What speaks against it whatever is in the root and on the network: machine, kernel, CRIU,
    /// configuration.
    pub(super) fn of_definition(&self) -> anyhow::Result<Vec<Reason>> {
        let mut reasons = self.of_machine()?;
        if let Some(record) = self.record {
            reasons.extend(newer_criu(&record.host.criu, &self.criu.version));
            reasons.extend(config::changes(&record.container.config, &self.defined.config_text()));
        }
        Ok(reasons)
    }

    /// The same, and who else has its addresses.
    pub(super) fn of_host(&self, netlink: &mut Netlink) -> anyhow::Result<Vec<Reason>> {
        let mut reasons = self.of_definition()?;
        if let Some(record) = self.record {
            reasons.extend(network::taken(&record.ports, netlink)?);
            if let Some(copy) = self.copy {
                let neighbours =
                    neighbours::all(netlink).context("check the addresses on the bridges")?;
                reasons.extend(network::claimed(&copy.claims(), &neighbours));
            }
        }
        Ok(reasons)
    }

    fn of_machine(&self) -> anyhow::Result<Vec<Reason>> {
        let here = nix::sys::utsname::uname()?.machine().to_string_lossy().into_owned();
        let machine = match self.record {
            Some(record) => Some(record.host.machine.clone()),
            None => images::machine_of(self.images)?.map(str::to_owned),
        };
        let mut reasons = Vec::new();
        if let Some(machine) = machine.filter(|m| *m != here) {
            reasons.push(Reason::certain(format!("it was made on {machine}; this host is {here}")));
        }
        for namespace in self.record.iter().flat_map(|r| &r.init.namespaces) {
            // Of a record made by hand, nothing but a name is looked for.
            if namespace.contains('/') || !Path::new("/proc/self/ns").join(namespace).exists() {
                reasons.push(Reason::certain(format!("this kernel has no {namespace} namespaces")));
            }
        }
        let lsm = Inventory::read(self.images)?.lsm;
        reasons.extend(missing_lsm(lsm));
        if lsm == Lsm::Apparmor {
            reasons.extend(self.missing_profiles()?);
        }
        Ok(reasons)
    }

    /// A profile that the kernel does not know is missed by CRIU when the tasks are about to run;
    /// then it hangs.
    fn missing_profiles(&self) -> anyhow::Result<Vec<Reason>> {
        let Some(loaded) = apparmor::loaded() else { return Ok(Vec::new()) };
        // That one is loaded with the container. Of a copy the images still name the original's.
        let made_up = self.record.and_then(|record| record.profile.as_ref()).is_some();
        let of_init = self.record.and_then(|record| Label::parse(record.init.label.as_deref()?));
        let labels = images::labels(self.images)?;
        let mut missing: Vec<&str> =
            labels.iter().filter_map(|l| Label::parse(l)).map(|l| l.profile).collect();
        missing.retain(|name| !loaded.iter().any(|l| l == name));
        missing.retain(|name| !(made_up && of_init.is_some_and(|label| label.profile == *name)));
        missing.dedup();
        let made_up_by_lxc = format!("lxc-{}_<", self.defined.name);
        let reason = |name: &str| {
            let why = match name.starts_with(&made_up_by_lxc) {
                true => {
                    "LXC makes it up at a start, and a checkpoint without a record does not have it"
                }
                false => "apparmor_parser -r does it",
            };
            Reason::certain(format!(
                "the AppArmor profile '{name}' of its processes is not loaded here ({why})"
            ))
        };
        Ok(missing.into_iter().map(reason).collect())
    }

    /// What in the root speaks against it: another one, or mount points and files that CRIU would
    /// find missing or changed. `mounted` leads into it.
    pub(super) fn of_root(&self, root: &Root, mounted: &Path) -> anyhow::Result<Vec<Reason>> {
        let mut reasons = Vec::new();
        if let Some(copy) = self.copy
            && copy::shares_the_root(&copy.original, self.defined)
        {
            reasons
                .push(Reason::doubtful(format!("its root is that of {}, too", copy.original.name)));
        }
        // Of a directory another mount namespace may be meant.
        let inode = match root.directory() {
            Some(_) => fs::metadata(mounted).ok().map(|found| found.ino()),
            None => root.inode().ok(),
        };
        if let Some(record) = self.record
            && inode.is_some_and(|inode| inode != record.container.rootfs_inode)
        {
            let path = self.defined.rootfs.display();
            reasons.push(Reason::doubtful(format!(
                "its root {path} is not the one of the checkpoint"
            )));
        }
        reasons.extend(links::in_the_way(self.images, mounted, self.record)?);
        reasons.extend(mounts::missing(self.images, mounted, self.record)?);
        reasons.extend(files::changed(self.images, mounted, self.record)?);
        Ok(reasons)
    }

    /// The checkpoint in a message: whose it is, where that is another container's, and where.
    pub(super) fn called(&self) -> String {
        let whose = self.copy.map(|copy| format!(" of {}", copy.original.name)).unwrap_or_default();
        format!("the checkpoint{whose} in {}", self.images.display())
    }

    /// Whether hooks of the user's run before the start, which may be what mounts the root.
    pub(super) fn root_may_come_from_hooks(&self) -> bool {
        let own = |hook: &String| {
            let program = hook.split_ascii_whitespace().next().unwrap_or_default();
            Path::new(program).file_name().is_some_and(|n| n == OWN_HOOK)
        };
        let config = &self.defined.config;
        config.monitor_unshare() || !config.hooks(HookKind::PreStart).iter().all(own)
    }
}

/// Refuses for these reasons what is [`called`](Subject::called) so. What is passed over, with
/// `force` all that may be, is given back, to be told as notes.
pub(super) fn judge(called: &str, reasons: Vec<Reason>, force: bool) -> Result<Vec<String>> {
    let counts =
        |r: &Reason| r.weight == Weight::Certain || (r.weight == Weight::Doubtful && !force);
    let (against, passed): (Vec<Reason>, Vec<Reason>) = reasons.into_iter().partition(counts);
    if against.is_empty() {
        return Ok(passed
            .into_iter()
            .map(|r| format!("going ahead although {}", r.text))
            .collect());
    }
    let mut told: Vec<&str> = against.iter().take(MOST_TOLD).map(|r| r.text.as_str()).collect();
    let more = format!("and {} more reasons", against.len().saturating_sub(MOST_TOLD));
    if against.len() > MOST_TOLD {
        told.push(&more);
    }
    let text = format!("{called} cannot be used here: {}", told.join("; "));
    let failure = Failure::new(Exit::BadCheckpoint, anyhow!(text));
    Err(match against.iter().any(|r| r.weight == Weight::Certain) {
        true => failure,
        false => failure.hint("fix this, or override with lxc-restart --force"),
    })
}

/// An older CRIU does not know what a newer one writes.
fn newer_criu(recorded: &str, here: &Version) -> Option<Reason> {
    let theirs = Version::parse(&format!("Version: {recorded}"))?;
    let newer = (theirs.major, theirs.minor) > (here.major, here.minor);
    newer.then(|| {
        Reason::doubtful(format!(
            "CRIU {theirs} wrote it, which is newer than the {here} that is here"
        ))
    })
}

/// Tasks get their labels back from the security module that they had.
fn missing_lsm(lsm: Lsm) -> Option<Reason> {
    let (name, sign) = match lsm {
        Lsm::Apparmor => ("AppArmor", "/sys/kernel/security/apparmor"),
        Lsm::Selinux => ("SELinux", "/sys/fs/selinux/enforce"),
        Lsm::None | Lsm::Other(_) => return None,
    };
    // Where securityfs is not mounted the module's own parameters tell.
    let enabled = fs::read_to_string("/sys/module/apparmor/parameters/enabled")
        .is_ok_and(|t| t.trim() == "Y");
    let there = Path::new(sign).exists() || (lsm == Lsm::Apparmor && enabled);
    (!there).then(|| {
        Reason::doubtful(format!(
            "its processes were confined by {name}, which this kernel does not have"
        ))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_newer_criu_is_in_the_way() {
        let here = Version::new(4, 1, 0);
        for (recorded, newer) in [
            ("3.19", false),
            ("4.1.2", false),
            ("4.2", true),
            ("5.0.0 (git v5)", true),
            ("?", false),
        ] {
            assert_eq!(newer_criu(recorded, &here).is_some(), newer, "{recorded}");
        }
    }

    #[test]
    fn all_reasons_are_told_and_only_doubts_are_passed_over() {
        let dir = "the checkpoint in /c";
        let doubt = Reason::doubtful("the bridge is another");
        let certain = Reason::certain("its file is gone");
        assert_eq!(judge(dir, vec![], false).unwrap(), Vec::<String>::new());
        let told = judge(dir, vec![doubt.clone(), certain.clone()], false).unwrap_err();
        assert_eq!(
            told.to_string(),
            "the checkpoint in /c cannot be used here: the bridge is another; its file is gone"
        );
        assert!(told.hint.is_none() && told.exit == Exit::BadCheckpoint);
        assert!(
            judge(dir, vec![doubt.clone()], false)
                .unwrap_err()
                .hint
                .is_some_and(|h| h.contains("--force"))
        );
        assert_eq!(
            judge(dir, vec![doubt.clone()], true).unwrap(),
            ["going ahead although the bridge is another"]
        );
        assert!(
            !judge(dir, vec![doubt, certain], true).unwrap_err().to_string().contains("bridge")
        );
        let many = judge(dir, vec![Reason::certain("x"); 9], false).unwrap_err().to_string();
        assert!(many.ends_with("x; x; and 4 more reasons"), "{many}");
    }
}
