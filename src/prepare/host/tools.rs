//! The host's kernel and programs.

use std::path::Path;

use anyhow::Result;

use crate::criu::version::Criu;
use crate::criu::{check, version as criu_version};
use crate::lxc::version as lxc_version;
use crate::preflight::Finding;
use crate::preflight::host::{self, Host};
use crate::rollback::lock::{criu_version_cache, lxc_version_cache};
use crate::settings::Settings;

/// The oldest kernel that all was tried with.
const OLDEST_KERNEL: (u32, u32) = (5, 15);
/// The oldest CRIU, likewise.
const OLDEST_CRIU: (u32, u32) = (4, 0);
/// Linux 6.16 refuses to CRIU before 4.2 what it asks of network sockets.
const NEW_KERNEL: (u32, u32) = (6, 16);
/// The oldest LXC.
const OLDEST_LXC: u32 = 5;
/// There only if the kernel was built for checkpoints.
const CHILDREN: &str = "/proc/thread-self/children";

/// What there is.
#[derive(Debug)]
pub(super) struct Tools {
    /// The kernel and the programs that CRIU runs.
    pub host: Host,
    /// CRIU, or why there is none.
    pub criu: Result<Criu, String>,
    /// What CRIU says of the kernel.
    pub complaint: Option<String>,
    /// LXC's version, if it is installed.
    pub lxc: Option<String>,
}

impl Tools {
    /// Looks at this host.
    pub(super) fn read(settings: &Settings, loopback_up: bool) -> Tools {
        let criu = criu_version::find_cached(settings.criu.as_deref(), &criu_version_cache())
            .map_err(|e| e.to_string());
        let complaint = match &criu {
            Ok(criu) => {
                check::complaint(criu).unwrap_or_else(|e| Some(format!("it cannot be run: {e}")))
            }
            Err(_) => None,
        };
        Tools {
            host: Host::read(loopback_up, !Path::new(CHILDREN).exists(), false),
            criu,
            complaint,
            lxc: lxc_version::find_cached(&lxc_version_cache()),
        }
    }

    /// Judges them; pure.
    pub(super) fn judge(&self) -> Vec<Finding> {
        let mut found = host::judge_kernel(&self.host);
        let kernel = self.host.kernel;
        let (major, minor) = kernel;
        if kernel < OLDEST_KERNEL {
            let why =
                format!("it was never tried before Linux {}.{}", OLDEST_KERNEL.0, OLDEST_KERNEL.1);
            found.push(
                Finding::warning(format!("the kernel is Linux {major}.{minor}"), why)
                    .remedy("use a newer kernel"),
            );
        }
        match &self.criu {
            Err(why) => found.push(
                Finding::blocker("there is no CRIU that can be used", why.clone())
                    .remedy("install CRIU 4.2 or newer (Debian: apt install criu)"),
            ),
            Ok(criu) if kernel >= NEW_KERNEL && !criu.version.at_least(4, 2) => found.push(
                Finding::blocker(
                    format!("CRIU {} is too old for Linux {major}.{minor}", criu.version),
                    "it cannot dump network sockets there",
                )
                .remedy("install CRIU 4.2 or newer"),
            ),
            Ok(criu) if !criu.version.at_least(OLDEST_CRIU.0, OLDEST_CRIU.1) => found.push(
                Finding::warning(
                    format!("CRIU is {}", criu.version),
                    "only 4.0 and newer were tried",
                )
                .remedy("install a newer CRIU"),
            ),
            Ok(_) => {}
        }
        if let Some(complaint) = &self.complaint {
            found.push(
                Finding::warning("criu check is not content", complaint.clone())
                    .remedy("see: criu check --all"),
            );
        }
        match self
            .lxc
            .as_deref()
            .map(|v| (v, v.split('.').next().and_then(|n| n.parse::<u32>().ok())))
        {
            None => found.push(
                Finding::blocker("LXC is not installed", "there are no containers without it")
                    .remedy("install it (Debian: apt install lxc)"),
            ),
            Some((version, Some(major))) if major < OLDEST_LXC => found.push(
                Finding::warning(format!("LXC is {version}"), "only 5.0 and newer were tried")
                    .remedy("install a newer LXC"),
            ),
            Some(_) => {}
        }
        for (program, what) in
            [("ip", "addresses and routes"), ("tar", "what is in a container's tmpfs")]
        {
            if self.host.missing.contains(&program) {
                found.push(host::tool(
                    program,
                    what,
                    if program == "ip" { "iproute2" } else { program },
                ));
            }
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::criu::version::Version;
    use crate::preflight::Severity;

    fn tools(kernel: (u32, u32), criu: Result<Version, String>, lxc: Option<&str>) -> Tools {
        Tools {
            host: Host {
                kernel,
                loopback_up: true,
                criu_knows_kernel: true,
                no_children: false,
                missing: vec![],
                frozen: false,
            },
            criu: criu.map(|version| Criu { path: "/usr/sbin/criu".into(), version }),
            complaint: None,
            lxc: lxc.map(str::to_owned),
        }
    }

    #[test]
    fn what_does_not_go_together_is_named() {
        let judged = |tools: &Tools| {
            tools.judge().into_iter().map(|f| (f.severity, f.what)).collect::<Vec<_>>()
        };
        assert_eq!(judged(&tools((6, 18), Ok(Version::new(4, 2, 1)), Some("7.0.0"))), []);
        assert_eq!(judged(&tools((6, 1), Ok(Version::new(4, 0, 0)), Some("5.0.2"))), []);
        let old = judged(&tools((6, 18), Ok(Version::new(4, 1, 1)), Some("6.0.4")));
        assert_eq!(old, [(Severity::Blocker, "CRIU 4.1.1 is too old for Linux 6.18".to_owned())]);
        let none = judged(&tools((5, 10), Err("criu is not installed".into()), None));
        assert_eq!(
            none.iter().map(|f| f.0).collect::<Vec<_>>(),
            [Severity::Warning, Severity::Blocker, Severity::Blocker]
        );
        let mut bad = tools((6, 12), Ok(Version::new(3, 19, 0)), Some("4.0.6"));
        bad.complaint = Some("x".into());
        bad.host = Host {
            missing: vec!["ip"],
            no_children: true,
            loopback_up: false,
            criu_knows_kernel: false,
            ..bad.host
        };
        assert_eq!(judged(&bad).len(), 6, "{:?}", judged(&bad));
    }
}
