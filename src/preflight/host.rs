//! The host: its kernel, its tools, and who we are on it.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use anyhow::{Context, Result};

use super::descriptor::{Kind, Opened};
use super::finding::{Finding, Place};
use super::mounts::Tables;
use crate::criu::version::Criu;
use crate::sys::spawn::SAFE_PATH;

/// The number of CAP_SYS_RESOURCE (linux/capability.h).
const CAP_SYS_RESOURCE: u32 = 24;

/// Linux 6.16 refuses SO_PASSCRED for all sockets but unix and netlink, which CRIU before 4.2 asks
/// for.
const NO_PASSCRED: (u32, u32) = (6, 16);

/// Where CRIU keeps what it found out about the kernel (kerndat.c).
const CRIU_CACHE: &str = "/run/criu.kdat";

/// Who asks: CRIU will run as the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Caller {
    /// Our user.
    pub uid: u32,
    /// Our group.
    pub gid: u32,
    /// Whether we have CAP_SYS_RESOURCE.
    pub sys_resource: bool,
    /// The inode of our user namespace.
    pub user_namespace: Option<u64>,
}

impl Caller {
    /// Looks at this process.
    pub(crate) fn read() -> Result<Caller> {
        let status = fs::read_to_string("/proc/self/status").context("read /proc/self/status")?;
        let field = |name: &str| status.lines().find_map(|l| l.strip_prefix(name)).map(str::trim);
        let effective =
            field("CapEff:").and_then(|c| u64::from_str_radix(c, 16).ok()).unwrap_or_default();
        Ok(Caller {
            uid: nix::unistd::geteuid().as_raw(),
            gid: nix::unistd::getegid().as_raw(),
            sys_resource: effective & (1 << CAP_SYS_RESOURCE) != 0,
            user_namespace: fs::metadata("/proc/self/ns/user").ok().map(|m| m.ino()),
        })
    }
}

/// What CRIU will find here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Host {
    /// The kernel's version: 6 and 18.
    pub kernel: (u32, u32),
    /// Whether the loopback interface of our network namespace is up.
    pub loopback_up: bool,
    /// CRIU has kept what it found out about this kernel.
    pub criu_knows_kernel: bool,
    /// The kernel does not tell the children of a process.
    pub no_children: bool,
    /// Programs that CRIU runs, and that are missing.
    pub missing: Vec<&'static str>,
    /// The container's cgroup is frozen.
    pub frozen: bool,
}

impl Host {
    /// Looks at the kernel and the programs; what needs more than that is for the caller to say.
    pub(crate) fn read(loopback_up: bool, no_children: bool, frozen: bool) -> Host {
        let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
        let missing = ["ip", "tar"].into_iter().filter(|name| !is_installed(name));
        Host {
            kernel: version(&release),
            loopback_up,
            criu_knows_kernel: Path::new(CRIU_CACHE).exists(),
            no_children,
            missing: missing.collect(),
            frozen,
        }
    }
}

fn version(release: &str) -> (u32, u32) {
    let mut numbers =
        release.split(|c: char| !c.is_ascii_digit()).map(|n| n.parse().unwrap_or_default());
    (numbers.next().unwrap_or_default(), numbers.next().unwrap_or_default())
}

fn is_installed(program: &str) -> bool {
    SAFE_PATH.split(':').any(|dir| Path::new(dir).join(program).is_file())
}

/// Whether this CRIU was built to dump maps of eBPF (CONFIG_HAS_LIBBPF): then it needs the library.
pub(crate) fn dumps_bpf_maps(criu: &Path) -> bool {
    const LIBRARY: &[u8] = b"libbpf.so";
    fs::read(criu).is_ok_and(|bytes| bytes.windows(LIBRARY.len()).any(|w| w == LIBRARY))
}

/// What the kernel lacks for whatever container; pure.
pub(crate) fn judge_kernel(host: &Host) -> Vec<Finding> {
    let mut found = Vec::new();
    if host.no_children {
        found.push(
            Finding::blocker(
                "this kernel is built without checkpoint and restore",
                "CRIU cannot even find the container's processes",
            )
            .remedy("use a kernel with CONFIG_CHECKPOINT_RESTORE=y"),
        );
    }
    if !host.loopback_up && !host.criu_knows_kernel {
        // kerndat.c tries TCP's repair mode on it before anything else, unless it did so since the
        // host was started.
        found.push(
            Finding::blocker(
                "the host's loopback interface is down",
                "CRIU needs it for its own tests",
            )
            .at(Place { interface: Some("lo".into()), ..Place::default() })
            .remedy("run: ip link set lo up"),
        );
    }
    found
}

/// Judges the host; pure.
pub(crate) fn judge(
    host: &Host,
    criu: &Criu,
    opened: &[Opened<'_>],
    tables: &Tables,
    own_network: bool,
) -> Vec<Finding> {
    let mut found = judge_kernel(host);
    let missing = |name: &str| host.missing.contains(&name);
    if own_network && missing("ip") {
        found.push(tool("ip", "addresses and routes of the container", "iproute2"));
    }
    if missing("tar") && tables.main().iter().any(|m| m.kind == "tmpfs") {
        found.push(tool("tar", "what is in the container's tmpfs", "tar"));
    }
    if host.kernel >= NO_PASSCRED
        && !criu.version.at_least(4, 2)
        && let Some(task) = opened.iter().find(|o| has_inet_socket(o)).map(|o| o.task)
    {
        let (major, minor) = host.kernel;
        found.push(
            Finding::blocker(
                format!("{} has network sockets", task.name()),
                format!("CRIU {} cannot dump them on Linux {major}.{minor}", criu.version),
            )
            .at(task.place())
            .remedy("install CRIU 4.2 or newer"),
        );
    }
    if host.frozen {
        found.push(Finding::note(
            "the container is frozen",
            "it is dumped as it is, and will be frozen again after the restore",
        ));
    }
    found
}

/// A program that CRIU runs, and that is missing.
pub(crate) fn tool(name: &str, what: &str, package: &str) -> Finding {
    Finding::blocker(
        format!("the program '{name}' is not installed on this host"),
        format!("CRIU saves {what} with it"),
    )
    .remedy(format!("install it (Debian: apt install {package})"))
}

fn has_inet_socket(opened: &Opened<'_>) -> bool {
    opened.descriptors.iter().any(|d| match &d.kind {
        Kind::Socket { protocol, .. } => {
            !protocol.is_empty() && !protocol.starts_with("UNIX") && protocol != "NETLINK"
        }
        _ => false,
    })
}

#[cfg(test)]
mod tests {
    use super::super::descriptor::Descriptor;
    use super::super::finding::Severity;
    use super::super::mounts::tests::{mount, tables};
    use super::super::task::tests::task;
    use super::*;
    use crate::criu::version::Version;

    fn healthy() -> Host {
        Host {
            kernel: (6, 18),
            loopback_up: true,
            criu_knows_kernel: false,
            no_children: false,
            missing: Vec::new(),
            frozen: false,
        }
    }

    fn judged(host: &Host, version: Version, protocol: &str) -> Vec<(Severity, String)> {
        let task = task(105, "nginx");
        let kind = Kind::Socket { inode: 1, protocol: protocol.to_owned() };
        let descriptors = vec![Descriptor { number: 3, target: "socket:[1]".into(), kind }];
        let opened = [Opened {
            task: &task,
            descriptors,
            mapped: Vec::new(),
            shared_code: None,
            program: None,
        }];
        let criu = Criu { path: "/usr/sbin/criu".into(), version };
        let found = judge(host, &criu, &opened, &tables(vec![mount(1, 0, "/", "/")]), true);
        found.into_iter().map(|f| (f.severity, f.what)).collect()
    }

    #[test]
    fn an_old_criu_on_a_new_kernel_cannot_dump_network_sockets() {
        let old = Version::new(4, 1, 1);
        assert_eq!(judged(&healthy(), Version::new(4, 2, 1), "TCP"), []);
        assert_eq!(judged(&healthy(), old.clone(), "UNIX"), []);
        assert_eq!(judged(&Host { kernel: (6, 12), ..healthy() }, old.clone(), "TCP"), []);
        assert_eq!(judged(&healthy(), old, "TCP")[0].0, Severity::Blocker);
    }

    #[test]
    fn what_is_missing_is_named() {
        let host =
            Host { missing: vec!["ip", "tar"], loopback_up: false, frozen: true, ..healthy() };
        let found = judged(&host, Version::new(4, 2, 1), "TCP");
        let words: Vec<bool> = found
            .iter()
            .zip(["loopback", "'ip'", "'tar'", "frozen"])
            .map(|(f, w)| f.1.contains(w))
            .collect();
        assert_eq!(words, [true; 4], "{found:?}");
        assert_eq!(found[3].0, Severity::Note);
    }

    #[test]
    fn this_host_is_read() {
        let host = Host::read(true, false, false);
        assert!(host.kernel.0 >= 3, "{host:?}");
        assert_eq!(version("6.18.5-amd64"), (6, 18));
        assert_eq!(version("?"), (0, 0));
        assert_eq!(Caller::read().unwrap().uid, nix::unistd::geteuid().as_raw());
        assert!(!dumps_bpf_maps(Path::new("/bin/true")));
    }
}
