//! The `script.down` of an interface, as the undo of its `script.up`.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use crate::lxc::config::NicKind;
use crate::lxc::definition::Defined;
use crate::lxc::hook::{self, Direction};
use crate::lxc::name::{ContainerName, LxcPath};

/// A script that undoes what another one did for an interface.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct DownScript {
    /// The container.
    pub name: String,
    /// The directory that holds its directory.
    pub lxcpath: PathBuf,
    /// Another configuration file than its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config: Option<PathBuf>,
    /// The N of `lxc.net.N`.
    pub nic: u32,
    /// The host's end of the pair.
    pub host: String,
}

impl DownScript {
    /// That of an interface of a container.
    pub(crate) fn of(defined: &Defined, config: Option<&Path>, nic: u32, host: &str) -> DownScript {
        DownScript {
            name: defined.name.as_str().to_owned(),
            lxcpath: defined.lxcpath.as_path().to_owned(),
            config: config.map(Path::to_owned),
            nic,
            host: host.to_owned(),
        }
    }

    /// Runs it, if the configuration still names one.
    pub(super) fn run(&self) -> Result<bool> {
        let name = ContainerName::new(&self.name).context("read the name of the container")?;
        let lxcpath = LxcPath::new(&self.lxcpath).context("read the path of the container")?;
        let defined = Defined::load(&name, &lxcpath, self.config.as_deref())?;
        let Some(nic) =
            defined.config.nics().iter().find(|n| n.index == self.nic && n.script_down.is_some())
        else {
            return Ok(false);
        };
        let host = (nic.kind == NicKind::Veth).then_some(self.host.as_str());
        hook::run_net_script(nic, Direction::Down, host, &hook::Context::new(&defined))?;
        Ok(true)
    }
}
