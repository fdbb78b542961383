//! The key names of LXC <= 2.0, turned into those of LXC >= 2.1.
//!
//! The pairs are those of `lxc-update-config`. Where its text substitution loses something that
//! liblxc 2.0 did (a second interface after `lxc.network =`, a `:` inside of a path), liblxc 2.0 is
//! followed.

/// Exact names.
const NAMES: &[(&str, &str)] = &[
    ("lxc.aa_allow_incomplete", "lxc.apparmor.allow_incomplete"),
    ("lxc.aa_profile", "lxc.apparmor.profile"),
    ("lxc.console", "lxc.console.path"),
    ("lxc.devttydir", "lxc.tty.dir"),
    ("lxc.haltsignal", "lxc.signal.halt"),
    ("lxc.id_map", "lxc.idmap"),
    ("lxc.init_cmd", "lxc.init.cmd"),
    ("lxc.init_gid", "lxc.init.gid"),
    ("lxc.init_uid", "lxc.init.uid"),
    ("lxc.limit", "lxc.prlimit"),
    ("lxc.logfile", "lxc.log.file"),
    ("lxc.loglevel", "lxc.log.level"),
    ("lxc.mount", "lxc.mount.fstab"),
    ("lxc.network", "lxc.net"),
    ("lxc.pts", "lxc.pty.max"),
    ("lxc.rebootsignal", "lxc.signal.reboot"),
    ("lxc.rootfs", "lxc.rootfs.path"),
    ("lxc.se_context", "lxc.selinux.context"),
    ("lxc.seccomp", "lxc.seccomp.profile"),
    ("lxc.stopsignal", "lxc.signal.stop"),
    ("lxc.syslog", "lxc.log.syslog"),
    ("lxc.tty", "lxc.tty.max"),
    ("lxc.utsname", "lxc.uts.name"),
];

/// What the key of a line means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Meaning {
    /// This key of LXC >= 2.1 (also any unknown key, as it is).
    Key(String),
    /// `lxc.network.type`: opens a new interface.
    NewNic,
    /// `lxc.network.KEY`: this key of the interface opened last.
    OfLastNic(String),
}

/// What a key means, in either spelling.
pub(super) fn meaning(key: &str) -> Meaning {
    if let Some((_, new)) = NAMES.iter().find(|(old, _)| *old == key) {
        return Meaning::Key((*new).to_owned());
    }
    if let Some(resource) = key.strip_prefix("lxc.limit.") {
        return Meaning::Key(format!("lxc.prlimit.{resource}"));
    }
    let Some(rest) = key.strip_prefix("lxc.network.") else {
        return Meaning::Key(key.to_owned());
    };
    if !rest.starts_with(|c: char| c.is_ascii_digit()) {
        return match rest {
            "type" => Meaning::NewNic,
            _ => Meaning::OfLastNic(nic_key(rest).to_owned()),
        };
    }
    Meaning::Key(match rest.split_once('.') {
        Some((index, sub)) => format!("lxc.net.{index}.{}", nic_key(sub)),
        None => format!("lxc.net.{rest}"),
    })
}

fn nic_key(old: &str) -> &str {
    match old {
        "ipv4" => "ipv4.address",
        "ipv6" => "ipv6.address",
        same => same,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn knows_the_old_names() {
        for (old, new) in [
            ("lxc.rootfs", "lxc.rootfs.path"),
            ("lxc.mount", "lxc.mount.fstab"),
            ("lxc.mount.entry", "lxc.mount.entry"),
            ("lxc.limit.nofile", "lxc.prlimit.nofile"),
            ("lxc.network", "lxc.net"),
            ("lxc.network.1", "lxc.net.1"),
            ("lxc.network.0.ipv4", "lxc.net.0.ipv4.address"),
            ("lxc.network.0.ipv4.gateway", "lxc.net.0.ipv4.gateway"),
            ("lxc.network.12.veth.pair", "lxc.net.12.veth.pair"),
            ("lxc.cgroup.devices.allow", "lxc.cgroup.devices.allow"),
            ("lxc.whatever", "lxc.whatever"),
        ] {
            assert_eq!(meaning(old), Meaning::Key(new.to_owned()), "{old}");
        }
        assert_eq!(meaning("lxc.network.type"), Meaning::NewNic);
        assert_eq!(meaning("lxc.network.ipv6"), Meaning::OfLastNic("ipv6.address".to_owned()));
    }
}
