//! What a checkpoint holds beside CRIU's images: what CRIU does not save of the container's
//! cgroups, network and tasks, read when all tasks are dumped and stand still.
//!
//! What cannot be read is named, and missing in the record; but without its cgroups or its rules of
//! iptables the container would be less confined, so there is no checkpoint then.

use std::fs::File;
use std::os::fd::AsFd;
use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, Result};

use super::plan;
use crate::lxc::config::Config;
use crate::report::Report;
use crate::resources::cgroup::Cgroup;
use crate::resources::network::state::Within;
use crate::resources::network::{iptables, multicast, sysctl};
use crate::resources::states::{self, core_filters, own_calls, tmpfs};
use crate::rollback::killed_dump::Seized;
use crate::store::record::Record;

/// The container, and what was read of it before it stood still.
#[derive(Debug)]
pub(super) struct Surroundings<'a> {
    /// Who reads the settings of the container's network.
    pub net_settings: Option<JoinHandle<Result<sysctl::Settings>>>,
    /// The container's network namespace, if it has one for itself.
    pub netns: Option<Arc<File>>,
    /// States that its processes were asked for.
    pub own_calls: own_calls::Read,
    /// When the dump began, since 1970.
    pub began: Duration,
    /// Its configuration.
    pub config: &'a Config,
    /// Its payload cgroups.
    pub payload: &'a [Cgroup],
    /// Its tasks.
    pub seized: &'a Seized,
}

impl Surroundings<'_> {
    /// Reads all of it into the record. `images` are complete.
    ///
    /// # Errors
    /// What a checkpoint is not made without.
    pub(super) fn read(
        &mut self,
        record: &mut Record,
        images: &Path,
        report: &mut dyn Report,
    ) -> Result<()> {
        self.add_cgroups(record).context("read the container's cgroups again")?;
        self.add_net_settings(record, report);
        self.add_network(record, report);
        self.add_iptables(record)?;
        self.add_groups(record, report);
        self.add_core_filters(record, report);
        self.add_tmpfs(record, report);
        self.add_states(record, images, report);
        Ok(())
    }

    /// Services came and went until the tasks stood still; CRIU has seen what there was then.
    fn add_cgroups(&self, record: &mut Record) -> Result<()> {
        let known: Vec<_> = record.cgroups().cloned().collect();
        let of = |cgroup: &Cgroup| known.iter().find(|tree| tree.is_in(&cgroup.hierarchy));
        let changed =
            |cgroup: &Cgroup| of(cgroup).map_or(Ok(true), |tree| tree.has_changed(cgroup));
        if !self.payload.iter().map(changed).collect::<Result<Vec<_>>>()?.contains(&true) {
            return Ok(());
        }
        let (mut trees, _) = plan::read_cgroups(self.payload, self.config)?;
        for (tree, cgroup) in trees.iter_mut().zip(self.payload) {
            // By now it is we who have frozen it.
            tree.frozen = of(cgroup).is_some_and(|before| before.frozen);
        }
        record.set_cgroups(trees);
        Ok(())
    }

    #[expect(clippy::disallowed_methods, reason = "the thread only reads sysctls")]
    fn add_net_settings(&mut self, record: &mut Record, report: &mut dyn Report) {
        match self.net_settings.take().map(JoinHandle::join) {
            None => {}
            Some(Ok(Ok(settings))) => {
                record.net_settings = settings.general;
                record.interface_settings = Some(settings.interfaces);
            }
            Some(Ok(Err(e))) => {
                report.note(&format!("settings of its network are not in the record: {e:#}"))
            }
            Some(Err(_)) => {
                report.note("settings of its network are not in the record: a thread has crashed")
            }
        }
    }

    /// What of its network CRIU does not save is read when nothing in the container changes it any
    /// more.
    fn add_network(&self, record: &mut Record, report: &mut dyn Report) {
        match self.netns.as_ref().map_or(Ok(None), |netns| Within::read(netns.as_fd())) {
            Ok(within) => record.within = within,
            Err(e) => report.note(&format!("a part of its network is not in the record: {e:#}")),
        }
    }

    /// Rules with extensions have to be saved: without them packets would pass that were dropped.
    fn add_iptables(&self, record: &mut Record) -> Result<()> {
        if let Some(netns) = &self.netns {
            record.iptables =
                iptables::save(netns.as_fd()).context("save its rules of iptables")?;
        }
        Ok(())
    }

    /// A socket that has joined a group is asked while nobody can join or leave one.
    fn add_groups(&self, record: &mut Record, report: &mut dyn Report) {
        let Some(payload) = &self.seized.cgroup else { return };
        match multicast::of_tasks(payload, self.seized.init) {
            Ok(groups) => record.groups = groups,
            Err(e) => report.note(&format!("its multicast groups are not in the record: {e:#}")),
        }
    }

    fn add_core_filters(&self, record: &mut Record, report: &mut dyn Report) {
        let Some(payload) = &self.seized.cgroup else { return };
        match core_filters::of_tasks(payload) {
            Ok(filters) => record.core_filters = filters,
            Err(e) => {
                report.note(&format!("its filters for core dumps are not in the record: {e:#}"))
            }
        }
    }

    fn add_tmpfs(&self, record: &mut Record, report: &mut dyn Report) {
        match tmpfs::read(self.seized.init) {
            Ok(files) => record.tmpfs = files,
            Err(e) => report.note(&format!(
                "times and extended attributes of its files in memory are not in the record: {e:#}"
            )),
        }
    }

    fn add_states(&self, record: &mut Record, images: &Path, report: &mut dyn Report) {
        let Some(payload) = &self.seized.cgroup else { return };
        let (own_calls, init, since) = (&self.own_calls, self.seized.init, self.began);
        match states::States::of_tasks(&states::Dumped { payload, init, own_calls, images, since })
        {
            Ok(states) => record.states = Some(states),
            Err(e) => report.note(&format!("states of its tasks are not in the record: {e:#}")),
        }
    }
}

/// Reads the settings of the container's network while CRIU works.
pub(super) fn read_net_settings(netns: Arc<File>) -> Result<JoinHandle<Result<sysctl::Settings>>> {
    let read = move || sysctl::read(netns.as_fd());
    std::thread::Builder::new().name("sysctl".to_owned()).spawn(read).context("start a thread")
}
