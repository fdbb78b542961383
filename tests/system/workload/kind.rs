//! Sorts of containers.

use super::root::{Debian, PRIVILEGED, UNPRIVILEGED, WITH_OPENRC};

/// By what the programs are run, and with what privileges.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// One program as init (`lxc.init.cmd`), in a Debian root with an id map.
    Program,
    /// The same without an id map.
    ProgramPrivileged,
    /// The first of these by `lxc-execute`.
    Execute,
    /// The busybox of the recipe, without an id map.
    Recipe,
    /// Debian with systemd, an id map, and what `lxc-cr prepare` adds.
    Systemd,
    /// The same without an id map.
    SystemdPrivileged,
    /// sysvinit with rsyslog and cron, and an id map.
    Sysvinit,
    /// The same with OpenRC.
    Openrc,
    /// runit, and an id map.
    Runit,
}

/// In the order of the table.
pub const KINDS: &[Kind] = &[
    Kind::Program,
    Kind::ProgramPrivileged,
    Kind::Execute,
    Kind::Recipe,
    Kind::Systemd,
    Kind::SystemdPrivileged,
    Kind::Sysvinit,
    Kind::Openrc,
    Kind::Runit,
];

impl Kind {
    /// What the table calls it.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Program => "one program",
            Kind::ProgramPrivileged => "one program, privileged",
            Kind::Execute => "lxc-execute",
            Kind::Recipe => "busybox, privileged",
            Kind::Systemd => "systemd",
            Kind::SystemdPrivileged => "systemd, privileged",
            Kind::Sysvinit => "sysvinit",
            Kind::Openrc => "OpenRC",
            Kind::Runit => "runit",
        }
    }

    /// What it is, for a reader of the table.
    pub fn explained(self) -> &'static str {
        match self {
            Kind::Program => "a program of Debian 13 as init (`lxc.init.cmd`), with an id map",
            Kind::ProgramPrivileged => "the same without an id map",
            Kind::Execute => "the first of these, run by `lxc-execute`",
            Kind::Recipe => {
                "the recipe's container: busybox, its init and its syslogd, without an id map"
            }
            Kind::Systemd => {
                "Debian 13 with systemd, its servers started by its units, with an id map"
            }
            Kind::SystemdPrivileged => {
                "the same without an id map; rows whose programs are root's alone in a container \
                 of their own"
            }
            Kind::Sysvinit => "Debian 13 with sysvinit, rsyslog and cron, with an id map",
            Kind::Openrc => "the same with OpenRC",
            Kind::Runit => "the same with runit, which runs the servers itself",
        }
    }

    /// Whether it has an id map.
    pub fn is_unprivileged(self) -> bool {
        !matches!(self, Kind::ProgramPrivileged | Kind::Recipe | Kind::SystemdPrivileged)
    }

    /// The root of a kind of Debian.
    pub fn debian(self) -> &'static Debian {
        match self {
            Kind::Openrc => &WITH_OPENRC,
            _ if self.is_unprivileged() => &UNPRIVILEGED,
            _ => &PRIVILEGED,
        }
    }

    /// Its init in Debian's root, where it boots.
    pub fn init(self) -> Option<&'static str> {
        match self {
            Kind::Program | Kind::ProgramPrivileged | Kind::Execute | Kind::Recipe => None,
            Kind::Systemd | Kind::SystemdPrivileged => Some("/usr/lib/systemd/systemd"),
            Kind::Sysvinit | Kind::Openrc => Some("/sbin/init"),
            Kind::Runit => Some("/usr/sbin/runit"),
        }
    }

    /// Whether Debian has made its servers ready for that init. Of runit's own services it has few.
    pub fn starts_servers(self) -> bool {
        self.init().is_some() && self != Kind::Runit
    }

    pub fn is_systemd(self) -> bool {
        matches!(self, Kind::Systemd | Kind::SystemdPrivileged)
    }
}
