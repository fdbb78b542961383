//! What LXC tells a hook program: in hook version 0 by arguments, in version 1 by variables.
//!
//! Traps of LXC 7.0: the user's own arguments come first in both versions; a network script gets
//! its arguments in both; a veth without a link has its host's end as the *second* argument, for
//! the shell swallows the empty link; and the variables of an earlier hook are still there in a
//! later one, so those of another kind of hook are not looked at.

use std::ffi::OsString;
use std::path::PathBuf;

use thiserror::Error;

use super::{Direction, SECTION_LXC, SECTION_NET, Target};
use crate::lxc::name::{ContainerName, LxcPath, NameError};

/// The file in a container's directory that its LXC path is told by.
const CONFIG: &str = "config";

/// Why this is no call of LXC's.
#[derive(Debug, PartialEq, Eq, Error)]
pub(crate) enum CallError {
    /// Neither the arguments nor the environment are those of a hook.
    #[error("this program is run by LXC as a hook, not by hand: there is no {0}")]
    NotAHook(&'static str),
    /// The container's name cannot be one.
    #[error(transparent)]
    Name(#[from] NameError),
    /// The pid is none.
    #[error("'{0}' in LXC_PID is not a pid")]
    Pid(String),
}

/// What a network script is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct NetCall {
    /// The kind of interface: `veth`, …
    pub kind: String,
    /// The bridge or the interface on the host.
    pub link: Option<String>,
    /// The host's end of a veth pair.
    pub host: Option<String>,
}

/// What LXC tells a hook program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct HookCall {
    /// The hook version, 0 or 1.
    pub version: u32,
    /// The container.
    pub name: ContainerName,
    /// `lxc` or `net`.
    pub section: String,
    /// `pre-start`, …, or `up` and `down`.
    pub kind: String,
    /// The arguments that the configuration gives in the hook's line.
    pub own: Vec<String>,
    /// The container's configuration file.
    pub config_file: Option<PathBuf>,
    /// The LXC path, if the configuration file is where LXC expects it.
    pub lxcpath: Option<LxcPath>,
    /// The root on the host.
    pub rootfs: Option<PathBuf>,
    /// Where the root is mounted while the container starts.
    pub rootfs_mount: Option<PathBuf>,
    /// Init's pid, from `start-host` on.
    pub pid: Option<i32>,
    /// What becomes of the container, in `stop` and `post-stop`.
    pub target: Option<Target>,
    /// The interface, for a network script.
    pub net: Option<NetCall>,
}

impl HookCall {
    /// Reads a call: the program's arguments without its name, and its environment.
    pub(crate) fn from_env(
        args: &[String],
        lookup: impl Fn(&str) -> Option<OsString>,
    ) -> Result<HookCall, CallError> {
        let text = |name: &str| {
            lookup(name).map(|v| v.to_string_lossy().into_owned()).filter(|v| !v.is_empty())
        };
        let path = |name: &str| lookup(name).filter(|v| !v.is_empty()).map(PathBuf::from);
        // LXC <= 2.0 knows no versions: it is as version 0.
        let version = u32::from(text("LXC_HOOK_VERSION").is_some_and(|v| v != "0"));
        let (name, section, kind, own, net) = if version == 0 {
            of_arguments(args, text("LXC_NAME").as_deref())
                .ok_or(CallError::NotAHook("NAME SECTION HOOK"))?
        } else {
            let name = text("LXC_NAME").ok_or(CallError::NotAHook("LXC_NAME"))?;
            let kind = text("LXC_HOOK_TYPE").ok_or(CallError::NotAHook("LXC_HOOK_TYPE"))?;
            let section =
                text("LXC_HOOK_SECTION").ok_or(CallError::NotAHook("LXC_HOOK_SECTION"))?;
            let (own, net) = if section == SECTION_NET {
                of_variables(args, &text)
            } else {
                (args.to_vec(), None)
            };
            (name, section, kind, own, net)
        };
        let name = ContainerName::new(&name)?;
        let config_file = path("LXC_CONFIG_FILE");
        let lxcpath = config_file.as_ref().and_then(|file| {
            let dir = file.parent().filter(|_| file.ends_with(CONFIG))?;
            LxcPath::new(dir.parent().filter(|_| dir.ends_with(name.as_str()))?).ok()
        });
        let pid = match text("LXC_PID") {
            Some(pid) => Some(pid.parse().ok().filter(|p| *p > 0).ok_or(CallError::Pid(pid))?),
            None => None,
        };
        Ok(HookCall {
            version,
            name,
            section,
            kind,
            own,
            lxcpath,
            config_file,
            rootfs: path("LXC_ROOTFS_PATH"),
            rootfs_mount: path("LXC_ROOTFS_MOUNT"),
            pid,
            target: match text("LXC_TARGET").as_deref() {
                Some("reboot") => Some(Target::Reboot),
                Some(_) => Some(Target::Stop),
                None => None,
            },
            net,
        })
    }
}

type Told = (String, String, String, Vec<String>, Option<NetCall>);

/// `OWN… NAME SECTION HOOK MORE…`.
fn of_arguments(args: &[String], name: Option<&str>) -> Option<Told> {
    // From the end: what the user writes in the hook's line may look like it, too.
    let at = args.windows(3).rposition(|w| {
        let known = match w[1].as_str() {
            SECTION_LXC => true,
            SECTION_NET => [Direction::Up, Direction::Down].iter().any(|d| d.as_str() == w[2]),
            _ => false,
        };
        known && name.is_none_or(|n| n == w[0])
    })?;
    let (own, told) = args.split_at(at);
    let [name, section, kind, more @ ..] = told else { return None };
    let net = match (section.as_str(), more) {
        (SECTION_NET, [kind, more @ ..]) => Some(net_of(kind, more)),
        _ => None,
    };
    Some((name.clone(), section.clone(), kind.clone(), own.to_vec(), net))
}

/// `OWN… TYPE [LINK [HOST]]` and the variables.
fn of_variables(
    args: &[String],
    text: &dyn Fn(&str) -> Option<String>,
) -> (Vec<String>, Option<NetCall>) {
    let Some(kind) = text("LXC_NET_TYPE") else { return (args.to_vec(), None) };
    let (link, host) = match kind.as_str() {
        "veth" => (text("LXC_NET_PARENT"), text("LXC_NET_PEER")),
        "macvlan" | "phys" => (text("LXC_NET_PARENT"), None),
        // These have no variable of their own: what is there is another interface's.
        _ => (args.iter().rposition(|a| *a == kind).and_then(|at| args.get(at + 1)).cloned(), None),
    };
    let words = 1 + usize::from(link.is_some()) + usize::from(host.is_some());
    let at = args
        .len()
        .checked_sub(words)
        .filter(|at| args.get(*at) == Some(&kind))
        .unwrap_or(args.len());
    (args[..at].to_vec(), Some(NetCall { kind, link, host }))
}

fn net_of(kind: &str, more: &[String]) -> NetCall {
    let (link, host) = match (kind, more) {
        ("veth", [host]) => (None, Some(host)),
        ("veth", [link, host, ..]) => (Some(link), Some(host)),
        (_, [link, ..]) => (Some(link), None),
        (_, []) => (None, None),
    };
    NetCall { kind: kind.to_owned(), link: link.cloned(), host: host.cloned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(args: &str, variables: &[(&str, &str)]) -> Result<HookCall, CallError> {
        let args: Vec<String> = args.split_ascii_whitespace().map(str::to_owned).collect();
        HookCall::from_env(&args, |name| variables.iter().find(|v| v.0 == name).map(|v| v.1.into()))
    }

    fn net(kind: &str, link: &str, host: &str) -> Option<NetCall> {
        let some = |t: &str| (!t.is_empty()).then(|| t.to_owned());
        Some(NetCall { kind: kind.into(), link: some(link), host: some(host) })
    }

    #[test]
    fn version_0_tells_by_arguments() {
        let all = [
            ("LXC_NAME", "web"),
            ("LXC_HOOK_VERSION", "0"),
            ("LXC_CONFIG_FILE", "/srv/lxc/web/config"),
            ("LXC_ROOTFS_PATH", "/srv/lxc/web/rootfs"),
            ("LXC_ROOTFS_MOUNT", "/usr/lib/lxc/rootfs"),
            ("LXC_PID", "812"),
            ("LXC_TARGET", "reboot"),
        ];
        let told = call("--bind-root web lxc post-stop", &all).unwrap();
        assert_eq!(
            (told.version, told.section.as_str(), told.kind.as_str()),
            (0, "lxc", "post-stop")
        );
        assert_eq!(
            (told.name.as_str(), told.own.as_slice()),
            ("web", &["--bind-root".to_owned()][..])
        );
        assert_eq!(told.lxcpath, Some(LxcPath::new("/srv/lxc").unwrap()));
        assert_eq!((told.pid, told.target), (Some(812), Some(Target::Reboot)));
        assert_eq!(told.rootfs.as_deref(), Some("/srv/lxc/web/rootfs".as_ref()));
        assert_eq!(told.rootfs_mount.as_deref(), Some("/usr/lib/lxc/rootfs".as_ref()));
        // LXC 1.0 set no variable but these few.
        assert_eq!(call("web lxc pre-start", &[]).unwrap().name.as_str(), "web");
    }

    #[test]
    fn version_0_tells_a_network_script_more_or_less() {
        let of = |args: &str| call(args, &[("LXC_NAME", "web")]).unwrap().net;
        assert_eq!(of("web net up veth br0 vethX"), net("veth", "br0", "vethX"));
        assert_eq!(of("--bridge br0 web net up veth vethX"), net("veth", "", "vethX"));
        assert_eq!(of("web net down macvlan eth1"), net("macvlan", "eth1", ""));
        assert_eq!(of("web net up empty"), net("empty", "", ""));
        assert_eq!(of("web lxc pre-start"), None);
    }

    #[test]
    fn version_1_tells_by_variables_and_old_ones_are_not_believed() {
        let mut all = vec![
            ("LXC_NAME", "web"),
            ("LXC_HOOK_VERSION", "1"),
            ("LXC_HOOK_TYPE", "up"),
            ("LXC_HOOK_SECTION", "net"),
            ("LXC_NET_TYPE", "veth"),
            ("LXC_NET_PARENT", ""),
            ("LXC_NET_PEER", "vethX"),
        ];
        let told = call("--bridge br0 veth vethX", &all).unwrap();
        assert_eq!(told.own, ["--bridge", "br0"]);
        assert_eq!(told.net, net("veth", "", "vethX"));
        // The next interface is a vlan.
        all[4].1 = "vlan";
        let told = call("own vlan eth1", &all).unwrap();
        assert_eq!((told.own, told.net), (vec!["own".to_owned()], net("vlan", "eth1", "")));
        // A hook after it.
        (all[2].1, all[3].1) = ("start-host", "lxc");
        let told = call("own", &all).unwrap();
        assert_eq!(
            (told.own, told.net, told.kind.as_str()),
            (vec!["own".to_owned()], None, "start-host")
        );
    }

    #[test]
    fn a_configuration_elsewhere_tells_no_lxc_path() {
        for (file, told) in [
            ("/srv/lxc/web/config", true),
            ("/srv/lxc/other/config", false),
            ("/root/web.conf", false),
            ("", false),
        ] {
            let call = call("web lxc pre-start", &[("LXC_CONFIG_FILE", file)]).unwrap();
            assert_eq!(call.lxcpath.is_some(), told, "{file}");
        }
    }

    #[test]
    fn what_is_no_call_is_refused() {
        assert_eq!(call("", &[]), Err(CallError::NotAHook("NAME SECTION HOOK")));
        assert_eq!(
            call("--help", &[("LXC_NAME", "web")]),
            Err(CallError::NotAHook("NAME SECTION HOOK"))
        );
        assert_eq!(call("", &[("LXC_HOOK_VERSION", "1")]), Err(CallError::NotAHook("LXC_NAME")));
        assert!(matches!(call(".. lxc pre-start", &[]), Err(CallError::Name(_))));
        assert!(matches!(call("web lxc start-host", &[("LXC_PID", "-1")]), Err(CallError::Pid(_))));
    }
}
