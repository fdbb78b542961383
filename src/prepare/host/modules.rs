//! The kernel's modules that CRIU asks sockets with, and those of the network. Pure but for
//! reading.
//!
//! The kernel loads most of them when they are asked for, but a container's namespaces cannot ask,
//! and some hosts forbid it later (`kernel.modules_disabled`).

use super::root::{PUBLIC, Root};
use crate::preflight::Finding;
use crate::prepare::change::Change;

/// Each with what it is needed for.
const MODULES: &[(&str, &str)] = &[
    ("af_packet_diag", "packet sockets"),
    ("bridge", "bridges"),
    ("inet_diag", "network sockets"),
    ("netlink_diag", "netlink sockets"),
    ("raw_diag", "raw sockets"),
    ("tcp_diag", "TCP sockets"),
    ("udp_diag", "UDP sockets"),
    ("unix_diag", "unix sockets"),
    ("veth", "the interfaces of containers"),
];
/// The file that has them loaded at each boot.
const FILE: &str = "etc/modules-load.d/lxc-cr.conf";

/// What the kernel has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    BuiltIn,
    /// Loaded or to be had.
    Module {
        loaded: bool,
    },
    Missing,
}

fn state(root: &Root, lists: &Lists, name: &str) -> State {
    let loaded = root.has(&format!("sys/module/{name}"));
    if names(&lists.built_in, name) {
        State::BuiltIn
    } else if names(&lists.modules, name) {
        State::Module { loaded }
    } else if loaded {
        State::BuiltIn
    } else {
        State::Missing
    }
}

/// The kernel's lists of its modules.
struct Lists {
    built_in: String,
    modules: String,
}

/// Whether a list names a module: `kernel/net/unix/unix_diag.ko.xz: …`.
fn names(list: &str, module: &str) -> bool {
    list.lines().any(|line| {
        let path = line.split(':').next().unwrap_or_default();
        let file = path.rsplit('/').next().unwrap_or_default();
        file.split(".ko").next().is_some_and(|name| name.replace('-', "_") == module)
    })
}

/// What is missing, the file that has the others loaded, and those that are to be loaded now.
pub(super) fn plan(root: &Root) -> anyhow::Result<(Vec<Finding>, Vec<Change>, Vec<&'static str>)> {
    let release = root.text("proc/sys/kernel/osrelease").unwrap_or_default();
    let list = |name: &str| root.text(&format!("lib/modules/{}/{name}", release.trim()));
    let (Some(built_in), Some(modules)) = (list("modules.builtin"), list("modules.dep")) else {
        // Nothing can be said of a kernel whose lists are elsewhere; CRIU's own check looks at what
        // it can.
        return Ok(Default::default());
    };
    let lists = Lists { built_in, modules };
    let (mut findings, mut at_boot, mut now) = (Vec::new(), Vec::new(), Vec::new());
    for (name, what) in MODULES {
        match state(root, &lists, name) {
            State::BuiltIn => {}
            State::Module { loaded } => {
                at_boot.push(*name);
                if !loaded {
                    now.push(*name);
                }
            }
            State::Missing => findings.push(Finding::warning(
                format!("the kernel has no module {name}"),
                format!("it is needed for {what}"),
            )),
        }
    }
    let already =
        root.files("etc/modules-load.d", ".conf").into_iter().filter_map(|file| root.text(&file));
    let already: Vec<String> = already
        .flat_map(|text| text.lines().map(|l| l.trim().to_owned()).collect::<Vec<_>>())
        .collect();
    let mut changes = Vec::new();
    if at_boot.iter().any(|name| !already.iter().any(|a| a == name)) {
        let text =
            format!("# By lxc-cr prepare: CRIU asks sockets with them.\n{}\n", at_boot.join("\n"));
        changes.extend(root.change(FILE, text, PUBLIC)?);
    }
    if !now.is_empty() {
        findings.push(
            Finding::note(
                format!("modules are not loaded: {}", now.join(", ")),
                "CRIU asks sockets with them, and not every kernel loads them when they are asked \
                 for",
            )
            .remedy(format!("modprobe -a {}", now.join(" "))),
        );
    }
    Ok((findings, changes, now))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_names_modules_by_their_files() {
        let list = "kernel/net/unix/unix_diag.ko.xz: kernel/x/y.ko\nkernel/net/ipv4/inet-diag.ko\n";
        assert!(names(list, "unix_diag") && names(list, "inet_diag"));
        assert!(!names(list, "y") && !names(list, "diag") && !names("", "unix_diag"));
    }
}
