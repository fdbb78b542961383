//! Seccomp profiles of LXC, as far as it matters which system calls they deny. Pure.

/// A profile as liblxc reads it (`seccomp.c`): a version, a policy, and rules.
#[derive(Debug)]
struct Profile<'a> {
    /// What is not named is allowed.
    denylist: bool,
    /// A section and a rule in it, without comments and spare blanks.
    rules: Vec<(&'a str, String)>,
}

impl Profile<'_> {
    fn parse(text: &str) -> Option<Profile<'_>> {
        let mut lines = text.lines().map(|line| line.split('#').next().unwrap_or_default().trim());
        if lines.next()? != "2" {
            return None;
        }
        let policy = lines.next()?;
        // A policy with another action than these words stand for is not compared.
        let denylist = match policy {
            "denylist" | "blacklist" => true,
            _ if policy.starts_with("allowlist") || policy.starts_with("whitelist") => false,
            _ => return None,
        };
        let mut section = "";
        let mut rules = Vec::new();
        for line in lines.filter(|line| !line.is_empty()) {
            if line.starts_with('[') {
                section = line;
            } else {
                rules.push((section, line.split_whitespace().collect::<Vec<_>>().join(" ")));
            }
        }
        Some(Profile { denylist, rules })
    }
}

/// Makes an io_uring, and nothing else does. Where it fails, programs use other calls.
pub(crate) const IO_URING: &str = "io_uring_setup";
/// Loads eBPF programs.
pub(crate) const BPF: &str = "bpf";

/// Whether a profile denies a system call, whatever its arguments.
pub(crate) fn denies(profile: &str, call: &str) -> bool {
    let Some(profile) = Profile::parse(profile) else { return false };
    let named = profile.rules.iter().any(|(_, rule)| {
        let mut words = rule.split(' ');
        words.next() == Some(call) && words.next() != Some("allow")
    });
    if profile.denylist {
        named
    } else {
        !profile.rules.iter().any(|(_, rule)| rule.split(' ').next() == Some(call))
    }
}

/// Whether all that a profile denies is denied by another one, too.
pub(crate) fn covers(other: &str, profile: &str) -> bool {
    let (Some(other), Some(profile)) = (Profile::parse(other), Profile::parse(profile)) else {
        return false;
    };
    other.denylist
        && profile.denylist
        && profile.rules.iter().all(|rule| other.rules.contains(rule))
}

#[cfg(test)]
mod tests {
    use super::*;

    const OURS: &str = include_str!("../../lxc-config/systemd/no-bpf.seccomp");
    /// LXC's own, as of 5.0 to 7.0.
    const COMMON: &str = "2\ndenylist\nreject_force_umount  # comment this to allow umount -f;  \
                          not recommended\n[all]\nkexec_load errno 1\nopen_by_handle_at errno \
                          1\ninit_module errno 1\nfinit_module errno 1\ndelete_module errno 1\n";

    #[test]
    fn lxcs_own_profile_can_be_replaced_by_ours() {
        assert!(covers(OURS, COMMON) && denies(OURS, BPF) && denies(OURS, IO_URING));
        assert!(!covers(COMMON, OURS) && !denies(COMMON, BPF));
        assert!(covers(OURS, &COMMON.replace("denylist", "blacklist")));
        assert!(!covers(OURS, &format!("{COMMON}mount errno 1\n")));
        assert!(!covers(OURS, &COMMON.replace("denylist", "denylist errno 38")));
    }

    #[test]
    fn a_users_profile_is_understood() {
        assert!(denies("2\ndenylist\n[all]\nbpf errno 1\n", BPF));
        assert!(!denies("2\ndenylist\n[all]\nbpf allow\n", BPF));
        assert!(denies("2\nallowlist errno 1\n[all]\nread\n", BPF));
        assert!(!denies("2\nallowlist errno 1\n[all]\nbpf\n", BPF));
        assert!(!covers(OURS, "2\nallowlist\n[all]\nread\n"));
        for none in ["", "1\nallowlist\n103", "2", "2\nwhat\n"] {
            assert!(!denies(none, BPF) && !covers(OURS, none), "{none:?}");
        }
    }
}
