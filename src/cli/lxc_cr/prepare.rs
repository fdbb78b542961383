//! `lxc-cr prepare`: a container, or the host, gets what checkpoints need.

use std::net::IpAddr;
use std::path::Path;
use std::process::ExitCode;

use clap::Args;

use crate::cli::common::{LxcOptions, print, print_diff, print_json, start_log};
use crate::error::{Exit, Failure, Result};
use crate::lxc::definition::Defined;
use crate::preflight::entry;
use crate::prepare::change::Change;
use crate::prepare::container;
use crate::prepare::host::spec::{self, Address, BridgeSpec};
use crate::prepare::host::{self};
use crate::prepare::init::Init;
use crate::prepare::installed::Installed;
use crate::prepare::undo::Undone;
use crate::settings::{self, Settings};

/// Configure a container, or the host, for checkpoints
///
/// The container's configuration gets the lines that its init needs (systemd, sysvinit, openrc,
/// runit or busybox, found in its root). Each change is shown as a diff; nothing is asked. A
/// running container goes on as it is: the change takes effect at its next start. A second run has
/// nothing to do, and --undo takes all back from a stopped container.
///
/// A container of Proxmox VE gets them in /etc/pve/lxc/ID.conf, before the first snapshot. It has
/// to run, for its root is mounted only then.
///
/// With --host the host is checked: cgroups, a bridge that is there after each boot (by
/// systemd-networkd, NetworkManager or ifupdown, whichever is in use), the kernel and its modules,
/// CRIU and LXC, ranges of ids. It is changed only with --apply.
#[derive(Args, Debug)]
#[command(disable_help_flag = true, disable_version_flag = true)]
pub(super) struct Prepare {
    #[command(flatten)]
    pub lxc: LxcOptions,

    /// Show the changes and make none
    #[arg(long)]
    dry_run: bool,

    /// Undo the changes of a previous run
    #[arg(long, conflicts_with_all = ["dry_run", "init", "apply"])]
    undo: bool,

    /// The container's init, where its root cannot be looked into
    #[arg(long, value_name = "INIT", value_parser = ["systemd", "sysvinit", "openrc", "runit", "busybox"])]
    init: Option<String>,

    /// Check the host instead of a container
    #[arg(long, conflicts_with_all = ["name", "positional", "init", "rcfile"])]
    host: bool,

    /// With --host: change it
    #[arg(long, conflicts_with = "dry_run")]
    apply: bool,

    /// With --host: name of the bridge [default: that in the settings, or that of LXC's
    /// default.conf where there is no such link]
    #[arg(long, value_name = "NAME", value_parser = spec::interface)]
    bridge: Option<String>,

    /// With --host: the bridge's address with its prefix, as 10.0.3.1/24, or 'dhcp'
    #[arg(long, value_name = "ADDRESS")]
    address: Option<Address>,

    /// With --host: the gateway of the default route over the bridge
    #[arg(long, value_name = "ADDRESS", requires = "address")]
    gateway: Option<IpAddr>,

    /// With --host: make this interface of the host a port of the bridge
    #[arg(long, value_name = "IFACE", value_parser = spec::interface)]
    port: Option<String>,

    /// Print the result as JSON
    #[arg(long)]
    json: bool,
}

impl Prepare {
    /// Does it, and prints what.
    pub(super) fn run(&self) -> Result<ExitCode> {
        start_log(self.lxc.level()?, self.lxc.logfile.as_deref())?;
        if self.host {
            return self.of_host();
        }
        // clap does not ask for --host where a name forbids it.
        let of_host =
            [self.apply, self.bridge.is_some(), self.address.is_some(), self.port.is_some()];
        if of_host.contains(&true) {
            return Err(Failure::msg(Exit::Usage, "these options are for the host")
                .hint("add --host, without a name"));
        }
        self.of_container()
    }

    fn of_container(&self) -> Result<ExitCode> {
        let (name, lxcpath) = self.lxc.container()?;
        let defined = Defined::load(&name, &lxcpath, self.lxc.rcfile.as_deref())
            .map_err(entry::not_defined)?;
        if self.undo {
            return self.tell_undone(
                name.as_str(),
                &container::undo(&defined, &container::hold_stopped(&defined)?)?,
            );
        }
        let init = self.init.as_deref().and_then(Init::named);
        let plan = container::plan(&defined, &Installed::find()?, init)?;
        let map = if plan.id_map { "with an id map" } else { "without an id map" };
        let what = format!("{}, {map}", plan.init);
        if self.json {
            return self.apply_for_programs(&defined, &plan);
        }
        let Some(change) = &plan.change else {
            self.say(&format!("{}{name}: nothing to do: it is prepared ({what})\n", plan.notes));
            return Ok(ExitCode::SUCCESS);
        };
        let held = (!self.dry_run).then(|| container::hold(&defined)).transpose()?;
        self.show_diff(&change.diff());
        let done = match &held {
            None => format!("{name}: nothing was changed ({what})\n"),
            Some(held) => {
                container::apply(&defined, &plan, held)?;
                format!("{name}: prepared ({what}); takes effect at its next start\n")
            }
        };
        self.say(&format!("{}{done}", plan.notes));
        Ok(ExitCode::SUCCESS)
    }

    /// The same, told as JSON.
    fn apply_for_programs(&self, defined: &Defined, plan: &container::Plan) -> Result<ExitCode> {
        let changed = plan.change.is_some() && !self.dry_run;
        if changed {
            container::apply(defined, plan, &container::hold(defined)?)?;
        }
        print_json(&serde_json::json!({
            "version": 1,
            "changed": changed,
            "container": defined.name.as_str(),
            "init": plan.init.to_string(),
            "has_id_map": plan.id_map,
            "changes": as_json(plan.change.as_slice()),
            "findings": plan.notes,
        }))?;
        Ok(ExitCode::SUCCESS)
    }

    fn of_host(&self) -> Result<ExitCode> {
        if self.undo {
            return self.tell_undone("host", &host::undo()?);
        }
        let settings = settings::Files::read(Path::new(settings::FILE))?.host();
        let spec = BridgeSpec {
            bridge: match &self.bridge {
                Some(named) => named.clone(),
                None => host::default_bridge(&settings)?,
            },
            address: self.address.clone(),
            gateway: self.gateway,
            port: self.port.clone(),
        };
        let plan = host::look(&spec, &settings)?;
        if self.json {
            return self.host_for_programs(&spec, &settings, &plan);
        }
        if self.apply || self.dry_run {
            let diffs: String = plan.changes.iter().map(Change::diff).collect();
            self.show_diff(&diffs);
        }
        if !self.apply {
            self.say(&host_in_words(&plan, self.dry_run));
            return Ok(exit_of(&plan));
        }
        let told = host::apply(&plan)?;
        let files = plan.changes.iter().map(|c| format!("{} is written", c.path.display()));
        let lines: String = files
            .chain(told)
            .chain(plan.advice.iter().cloned())
            .map(|line| format!("host: {line}\n"))
            .collect();
        self.say(&lines);
        // What was found before may be gone now; what only the user can mend is not.
        let left = host::look(&spec, &settings)?;
        self.say(&host_in_words(&left, false));
        Ok(exit_of(&left))
    }

    /// The same, told as JSON: after --apply the findings are those that are left.
    fn host_for_programs(
        &self,
        spec: &BridgeSpec,
        settings: &Settings,
        plan: &host::Plan,
    ) -> Result<ExitCode> {
        let left = match self.apply {
            true => {
                host::apply(plan)?;
                Some(host::look(spec, settings)?)
            }
            false => None,
        };
        let now = left.as_ref().unwrap_or(plan);
        print_json(&serde_json::json!({
            "version": 1,
            "changed": self.apply && !plan.is_nothing(),
            "ready": !now.findings.blocked(),
            "findings": now.findings,
            "changes": as_json(&plan.changes),
            "actions": plan.deeds(),
            "advice": plan.advice,
        }))?;
        Ok(exit_of(now))
    }

    fn show_diff(&self, diff: &str) {
        if !self.lxc.quiet {
            print_diff(diff);
        }
    }

    fn say(&self, text: &str) {
        if !self.lxc.quiet {
            print(text);
        }
    }

    /// What was not undone is a failure, after all that was.
    fn tell_undone(&self, subject: &str, undone: &Undone) -> Result<ExitCode> {
        let text: String = undone.told.iter().map(|line| format!("{subject}: {line}\n")).collect();
        if self.json {
            print_json(&serde_json::json!({
                "version": 1,
                "changed": !undone.told.is_empty(),
                "undone": undone.told,
                "left": undone.left,
            }))?;
        } else {
            self.say(&text);
        }
        if !undone.left.is_empty() {
            return Err(Failure::msg(Exit::RollbackIncomplete, undone.left.join("; "))
                .hint("take it out by hand; all else is undone"));
        }
        if undone.told.is_empty() && !self.json {
            self.say(&format!("{subject}: nothing to undo\n"));
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// Each file that is written, with the difference that this makes.
fn as_json(changes: &[Change]) -> Vec<serde_json::Value> {
    let row = |change: &Change| serde_json::json!({ "path": change.path, "diff": change.diff() });
    changes.iter().map(row).collect()
}

/// Refused where something stands in the way of every checkpoint on this host.
fn exit_of(plan: &host::Plan) -> ExitCode {
    ExitCode::from(if plan.findings.blocked() { Exit::Refused } else { Exit::Done }.code())
}

/// What was found, and what would be done about it.
fn host_in_words(plan: &host::Plan, with_diffs: bool) -> String {
    let mut text = plan.findings.to_string();
    let files = plan.changes.iter().map(|change| format!("write {}", change.path.display()));
    let would: Vec<String> = files.chain(plan.deeds()).collect();
    if !would.is_empty() {
        text += "lxc-cr prepare --host --apply would\n";
        text += &would.iter().map(|action| format!("  {action}\n")).collect::<String>();
        if !with_diffs && !plan.changes.is_empty() {
            text += "(--dry-run shows what it would write)\n";
        }
    }
    text + match (plan.findings.blocked(), would.is_empty()) {
        (true, _) => "containers cannot be checkpointed on this host\n",
        (false, true) => "this host has what checkpoints need\n",
        (false, false) => "containers can be checkpointed on this host\n",
    }
}
