//! What speaks against a restore from this checkpoint, here and now.
//!
//! One assessment for each way into a restore: of a container that is stopped, of one that runs and
//! is to be [replaced](super::replace), of a copy, of a dry run. It changes nothing. What it asks
//! is in [`preflight`]; what is to be made of the answer, in [`plan`].

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Context;

use super::copy::{self, Copy};
use super::failure::no_plan;
use super::plan::{self, Plan};
use super::preflight::{self, Reason, Subject};
use super::{Found, Request, connections};
use crate::error::{Exit, Failure, OrExit, Result};
use crate::lxc::definition::Defined;
use crate::report::Report;
use crate::resources::mounts;
use crate::resources::rootfs::{Held, Root};
use crate::resources::terminals;
use crate::settings::Settings;
use crate::store::record::Record;
use crate::sys::netlink::Netlink;

/// A checkpoint beside the container that it is to become.
#[derive(Debug)]
pub(super) struct Assessed<'a> {
    request: &'a Request,
    found: &'a Found,
    /// What makes it another container, and its record then.
    copy: Option<(Copy, Record)>,
    /// Where CRIU is to find the root.
    place: PathBuf,
}

impl<'a> Assessed<'a> {
    /// Brings the two together; a checkpoint of another container becomes a copy.
    ///
    /// # Errors
    /// The failure of a restore: there is nowhere to mount the root, or no copy can be made of it.
    pub(super) fn of(
        request: &'a Request,
        found: &'a Found,
        netlink: &mut Netlink,
    ) -> Result<Assessed<'a>> {
        let copy = match &found.record {
            Some(record) => {
                Copy::of(record, &found.defined, &request.images, netlink).map_err(no_plan)?
            }
            None => None,
        };
        let mut assessed = Assessed { request, found, copy, place: PathBuf::new() };
        assessed.place = place_of(&found.root, &assessed.subject())?;
        Ok(assessed)
    }

    /// What the preflight is about.
    pub(super) fn subject(&self) -> Subject<'_> {
        Subject {
            images: &self.request.images,
            record: self.record(),
            copy: self.copy(),
            defined: &self.found.defined,
            criu: &self.found.criu,
            beside: false,
        }
    }

    /// The record, as that of the container that it is to become.
    pub(super) fn record(&self) -> Option<&Record> {
        self.copy.as_ref().map(|(_, own)| own).or(self.found.record.as_ref())
    }

    /// What makes it another container.
    pub(super) fn copy(&self) -> Option<&Copy> {
        self.copy.as_ref().map(|(copy, _)| copy)
    }

    /// Refuses a copy that would need the connections of its original.
    pub(super) fn refuse_connections(&self) -> Result<()> {
        self.copy().map_or(Ok(()), |copy| refuse_connections(self.request, copy))
    }

    /// Refuses all that speaks against it while the container is stopped, and gives the root that
    /// was found good. None where a hook of the user's may be what puts the root into its place:
    /// then it has to be looked at after that.
    pub(super) fn judge(
        &self,
        netlink: &mut Netlink,
        report: &mut dyn Report,
    ) -> Result<Option<Held>> {
        let subject = self.subject();
        let mut reasons = subject.of_host(netlink).map_err(no_plan)?;
        let held = match subject.defined.config.monitor_unshare() {
            true => None,
            false => match look_at_root(&subject, &self.found.root) {
                Ok((held, of_root)) if of_root.is_empty() => Some(held),
                _ if subject.root_may_come_from_hooks() => None,
                looked => {
                    let (held, of_root) = looked?;
                    reasons.extend(of_root);
                    Some(held)
                }
            },
        };
        preflight::judge(&subject.called(), reasons, self.request.force)?
            .iter()
            .for_each(|note| report.note(note));
        Ok(held)
    }

    /// Refuses what speaks against it while the container still runs, and has its addresses and its
    /// root: `in_use`, where that can be had.
    pub(super) fn judge_replaced(&self, in_use: anyhow::Result<Held>) -> Result<()> {
        let subject = self.subject();
        let root = &self.found.root;
        let mut reasons = subject.of_definition().map_err(no_plan)?;
        match in_use {
            Ok(held) => reasons.extend(subject.of_root(root, held.path()).map_err(no_plan)?),
            Err(_) if root.directory().is_some() && !subject.root_may_come_from_hooks() => {
                reasons.extend(look_at_root(&subject, root)?.1);
            }
            // It is judged when the container has stopped.
            Err(e) => log::debug!("the root that it has: {e:#}"),
        }
        preflight::judge(&subject.called(), reasons, self.request.force).map(drop)
    }

    /// Decides what to make, with new terminals.
    pub(super) fn plan(&self, settings: &Settings, netlink: &mut Netlink) -> Result<Plan> {
        let ttys = self.record().map(|record| record.ttys.as_slice()).unwrap_or_default();
        let terminals = terminals::make(ttys).context("make the container's terminals")?;
        let place = self.place.clone();
        plan::plan(self.request, settings, &self.subject(), terminals, place, netlink)
            .map_err(no_plan)
    }

    /// Refuses names and bridges that no plan can be made with. That a name is taken, or a device
    /// of the host's is not here, says nothing while the container runs, which has them.
    pub(super) fn check_names(&self, settings: &Settings, netlink: &mut Netlink) -> Result<()> {
        use crate::resources::network::plan::Error;
        let place = self.place.clone();
        let Err(e) =
            plan::plan(self.request, settings, &self.subject(), Vec::new(), place, netlink)
        else {
            return Ok(());
        };
        match e.downcast_ref::<Error>() {
            None | Some(Error::NameTaken { .. }) => {
                log::debug!("a plan while it runs: {e:#}");
                Ok(())
            }
            Some(_) => Err(no_plan(e)),
        }
    }
}

/// The container's root, if it is of a kind that can be mounted again.
pub(super) fn root_of(defined: &Defined) -> Result<Root> {
    Root::of(defined).map_err(|e| {
        let hint = e.hint();
        Failure::new(Exit::Refused, e).hint(hint)
    })
}

/// Where CRIU is to find the root: a directory where it is, anything else where LXC mounts it, too;
/// and so a directory in which hooks mount what the container is to have, for that would be hidden.
pub(super) fn place_of(root: &Root, subject: &Subject<'_>) -> Result<PathBuf> {
    let defined = subject.defined;
    // CRIU looks for it in the mount table, which knows no links.
    let plain =
        |directory: &Path| fs::canonicalize(directory).unwrap_or_else(|_| directory.to_owned());
    match (root.directory(), defined.rootfs_mount()) {
        (Some(directory), None) => return Ok(plain(directory)),
        (Some(directory), Some(_))
            if !subject.root_may_come_from_hooks() && !has_mounts_below(directory)? =>
        {
            return Ok(plain(directory));
        }
        _ => {}
    }
    defined.rootfs_mount().ok_or_else(|| {
        Failure::msg(Exit::Refused, "LXC's directory for mounting roots is not there")
            .hint("name one in the configuration: lxc.rootfs.mount")
    })
}

fn has_mounts_below(directory: &Path) -> Result<bool> {
    let directory = directory.canonicalize().unwrap_or_else(|_| directory.to_owned());
    let table = mounts::table(std::process::id().cast_signed())?;
    Ok(table.iter().any(|m| m.point != directory && m.point.starts_with(&directory)))
}

/// Mounts the root, and says what in it speaks against the checkpoint.
pub(super) fn look_at_root(subject: &Subject<'_>, root: &Root) -> Result<(Held, Vec<Reason>)> {
    let held = root.open().or_exit(Exit::BadCheckpoint)?;
    let reasons = subject.of_root(root, held.path()).map_err(no_plan)?;
    Ok((held, reasons))
}

/// A copy cannot have the connections that its original has with others.
fn refuse_connections(request: &Request, copy: &Copy) -> Result<()> {
    if request.tcp_close
        || connections::were_closed(&request.images).or_exit(Exit::BadCheckpoint)?
    {
        return Ok(());
    }
    let open = connections::outside(&request.images).or_exit(Exit::BadCheckpoint)?;
    match open.is_empty() {
        true => Ok(()),
        false => Err(copy::refuse_connections(&copy.original.name, &open)),
    }
}
