//! The keys that are just a value or a list: which form each takes, and what it is when nothing is
//! set.
//!
//! Mirrors `config_jump_table` of liblxc 7.0's `confile.c`. Keys with a structure of their own
//! (`lxc.net.*`, `lxc.mount.auto`, `lxc.idmap`, …) are handled in [`super::set`].

/// The form of a key's value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// A text; an empty one unsets it.
    Text,
    /// A text of fewer bytes than this.
    Short(usize),
    /// A path, kept simplified.
    Path,
    /// A relative cgroup path that does not climb.
    CgroupPath,
    /// The name of a single cgroup.
    CgroupName,
    /// 0 or 1: what it is at first, and what an empty value makes it.
    Flag(bool, bool),
    /// An unsigned number, 0 at first.
    Number,
    /// A signed number, 0 at first.
    Signed,
    /// A signal; the number that it is at first.
    Signal(i32),
    /// A size in bytes for the console, 0 at first.
    Size,
    /// Each line adds one value; an empty one clears them.
    List,
    /// Each line adds its words.
    Words,
    /// A prefix: `KEY.sub = value`, and lines with the same sub-key accumulate.
    Table,
    /// A prefix, and a line replaces an earlier one with the same sub-key.
    Map,
}

const FLAG: Form = Form::Flag(false, false);

/// Exact keys and their forms; [`Form::Table`] and [`Form::Map`] stand for every key below theirs.
const KEYS: &[(&str, Form)] = &[
    ("lxc.apparmor.allow_incomplete", FLAG),
    ("lxc.apparmor.allow_nesting", FLAG),
    ("lxc.apparmor.profile", Form::Text),
    ("lxc.apparmor.raw", Form::List),
    ("lxc.autodev", Form::Flag(true, false)),
    // Before the prefix `lxc.cgroup`, as these are below it.
    ("lxc.cgroup.dir", Form::CgroupPath),
    ("lxc.cgroup.dir.container", Form::CgroupPath),
    ("lxc.cgroup.dir.container.inner", Form::CgroupName),
    ("lxc.cgroup.dir.monitor", Form::CgroupPath),
    ("lxc.cgroup.dir.monitor.pivot", Form::CgroupPath),
    ("lxc.cgroup.relative", FLAG),
    // Gone in LXC 7, which knows cgroup2 only; LXC 5 and 6 treat it as they do `lxc.cgroup2`.
    ("lxc.cgroup", Form::Table),
    ("lxc.cgroup2", Form::Table),
    ("lxc.console.buffer.size", Form::Size),
    ("lxc.console.logfile", Form::Path),
    ("lxc.console.path", Form::Path),
    ("lxc.console.rotate", FLAG),
    ("lxc.console.size", Form::Size),
    ("lxc.environment", Form::List),
    ("lxc.environment.hooks", Form::List),
    ("lxc.environment.runtime", Form::List),
    ("lxc.ephemeral", FLAG),
    ("lxc.execute.cmd", Form::Text),
    ("lxc.group", Form::Words),
    ("lxc.hook.autodev", Form::List),
    ("lxc.hook.clone", Form::List),
    ("lxc.hook.destroy", Form::List),
    ("lxc.hook.mount", Form::List),
    ("lxc.hook.post-stop", Form::List),
    ("lxc.hook.pre-mount", Form::List),
    ("lxc.hook.pre-start", Form::List),
    ("lxc.hook.start", Form::List),
    ("lxc.hook.start-host", Form::List),
    ("lxc.hook.stop", Form::List),
    ("lxc.hook.version", FLAG),
    ("lxc.init.cmd", Form::Text),
    ("lxc.init.cwd", Form::Path),
    ("lxc.init.gid", Form::Number),
    ("lxc.init.uid", Form::Number),
    ("lxc.keyring.session", FLAG),
    ("lxc.log.file", Form::Path),
    ("lxc.log.syslog", Form::Text),
    ("lxc.monitor.signal.pdeath", Form::Signal(9)),
    ("lxc.monitor.unshare", Form::Number),
    ("lxc.mount.fstab", Form::Path),
    ("lxc.no_new_privs", FLAG),
    ("lxc.prlimit", Form::Map),
    ("lxc.proc", Form::Table),
    ("lxc.pty.max", Form::Number),
    ("lxc.rootfs.managed", Form::Flag(true, true)),
    ("lxc.rootfs.mount", Form::Path),
    ("lxc.rootfs.options", Form::Text),
    ("lxc.sched.core", FLAG),
    ("lxc.seccomp.allow_nesting", FLAG),
    ("lxc.seccomp.notify.cookie", Form::Text),
    ("lxc.seccomp.profile", Form::Path),
    ("lxc.selinux.context", Form::Text),
    ("lxc.selinux.context.keyring", Form::Text),
    ("lxc.signal.halt", Form::Signal(0)),
    ("lxc.signal.reboot", Form::Signal(0)),
    ("lxc.signal.stop", Form::Signal(0)),
    ("lxc.start.auto", FLAG),
    ("lxc.start.delay", Form::Number),
    ("lxc.start.order", Form::Signed),
    ("lxc.sysctl", Form::Map),
    ("lxc.tty.dir", Form::Short(256)),
    ("lxc.tty.max", Form::Number),
    // The kernel's limit, and the `nodename` of `struct utsname`.
    ("lxc.uts.name", Form::Short(65)),
];

/// The key of the table that a key falls under, its form, and the sub-key below a [`Form::Table`]
/// or [`Form::Map`].
pub(super) fn lookup(key: &str) -> Option<(&'static str, Form, Option<&str>)> {
    if let Some((name, form)) = KEYS.iter().find(|(name, _)| *name == key) {
        return Some((name, *form, None));
    }
    KEYS.iter().filter(|(_, form)| matches!(form, Form::Table | Form::Map)).find_map(
        |(name, form)| {
            let sub = key.strip_prefix(name)?.strip_prefix('.')?;
            Some((*name, *form, Some(sub)))
        },
    )
}

/// The hooks of a container, in the order of its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HookKind {
    /// On the host, before anything is made.
    PreStart,
    /// In the container's mount namespace, before the root file system is mounted.
    PreMount,
    /// After the mounts, before `pivot_root`.
    Mount,
    /// After `/dev` was populated.
    Autodev,
    /// On the host, when everything is set up and init is about to start.
    StartHost,
    /// In the container, just before init.
    Start,
    /// On the host, with the namespaces at hand, after init ended.
    Stop,
    /// On the host, after everything is gone.
    PostStop,
    /// When the container is cloned.
    Clone,
    /// When the container is destroyed.
    Destroy,
}

impl HookKind {
    /// The key that names these hooks.
    pub fn key(self) -> &'static str {
        match self {
            HookKind::PreStart => "lxc.hook.pre-start",
            HookKind::PreMount => "lxc.hook.pre-mount",
            HookKind::Mount => "lxc.hook.mount",
            HookKind::Autodev => "lxc.hook.autodev",
            HookKind::StartHost => "lxc.hook.start-host",
            HookKind::Start => "lxc.hook.start",
            HookKind::Stop => "lxc.hook.stop",
            HookKind::PostStop => "lxc.hook.post-stop",
            HookKind::Clone => "lxc.hook.clone",
            HookKind::Destroy => "lxc.hook.destroy",
        }
    }
}

/// The signals that a container's init is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SignalKind {
    /// To end at once (`lxc.signal.stop`).
    Stop,
    /// To shut down (`lxc.signal.halt`).
    Halt,
    /// To reboot (`lxc.signal.reboot`).
    Reboot,
}

impl SignalKind {
    /// The key that names this signal.
    pub fn key(self) -> &'static str {
        match self {
            SignalKind::Stop => "lxc.signal.stop",
            SignalKind::Halt => "lxc.signal.halt",
            SignalKind::Reboot => "lxc.signal.reboot",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_exact_keys_before_prefixes() {
        assert_eq!(lookup("lxc.cgroup.dir"), Some(("lxc.cgroup.dir", Form::CgroupPath, None)));
        assert_eq!(
            lookup("lxc.cgroup.devices.allow"),
            Some(("lxc.cgroup", Form::Table, Some("devices.allow")))
        );
        assert_eq!(
            lookup("lxc.cgroup2.memory.max"),
            Some(("lxc.cgroup2", Form::Table, Some("memory.max")))
        );
        assert_eq!(lookup("lxc.sysctl"), Some(("lxc.sysctl", Form::Map, None)));
        assert_eq!(lookup("lxc.sysctlx"), None);
        assert_eq!(lookup("lxc.nope"), None);
    }
}
