//! What of a container's configuration has changed since the checkpoint, as far as it matters.
//!
//! The processes come back with the root, ids, addresses and mounts that they had. A configuration
//! that says something else by now would be believed by every other tool, wrongly. What only LXC's
//! monitor or the host's side of the network reads (hooks, bridge, the host's ends of veth pairs)
//! may change: what it says now is done. Limits, capabilities and the like come back as they were
//! in force, which is told.

use std::collections::{BTreeMap, BTreeSet};

use super::Reason;

/// Keys that matter, all that begin like this.
const MATTERS: &[&str] =
    &["lxc.rootfs.path", "lxc.idmap", "lxc.mount.", "lxc.namespace.", "lxc.net."];
/// Keys of what comes back as it was in force at the checkpoint, all that begin like this.
const COMES_BACK: &[&str] = &[
    "lxc.apparmor.",
    "lxc.cap.",
    "lxc.cgroup.",
    "lxc.cgroup2.",
    "lxc.environment",
    "lxc.no_new_privs",
    "lxc.prlimit.",
    "lxc.proc.",
    "lxc.seccomp.",
    "lxc.selinux.",
    "lxc.sysctl.",
    "lxc.uts.name",
];
/// Of an interface, what is in the container.
const OF_NIC: &[&str] = &[
    "type",
    "name",
    "hwaddr",
    "mtu",
    "flags",
    "ipv4.address",
    "ipv4.gateway",
    "ipv6.address",
    "ipv6.gateway",
];

/// Compares two configurations, each with a `key = value` on a line.
pub(super) fn changes(then: &str, now: &str) -> Vec<Reason> {
    let (then, now) = (values(then), values(now));
    let none = Vec::new();
    let keys: BTreeSet<&str> = then.keys().chain(now.keys()).copied().collect();
    let of_both = |key: &str| (then.get(key).unwrap_or(&none), now.get(key).unwrap_or(&none));
    let changed: Vec<&str> =
        keys.into_iter().filter(|key| of_both(key).0 != of_both(key).1).collect();
    let mut reasons = Vec::new();

    let in_force: Vec<&str> = changed.iter().copied().filter(|key| comes_back(key)).collect();
    if !in_force.is_empty() {
        let which = in_force.join(", ");
        let text = format!(
            "{which} changed in the configuration since: it comes back as it was; this counts at \
             its next start"
        );
        reasons.push(Reason::note(text));
    }
    let told = |key: &&str| {
        let (old, new) = of_both(key);
        format!("{key} was {}, is {}", in_words(old), in_words(new))
    };
    let wrong: Vec<String> = changed.iter().filter(|key| matters(key)).map(told).collect();
    if !wrong.is_empty() {
        reasons.push(Reason::doubtful(format!(
            "the configuration has changed since: {}",
            wrong.join(", ")
        )));
    }
    reasons
}

/// The values of each key. An empty value takes back those before it, as in LXC.
fn values(text: &str) -> BTreeMap<&str, Vec<&str>> {
    let mut found: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for line in text.lines() {
        let Some((key, value)) = line.split_once('=').map(|(k, v)| (k.trim(), v.trim())) else {
            continue;
        };
        // Both name a directory.
        let value = if key == "lxc.rootfs.path" {
            value.strip_prefix("dir:").unwrap_or(value)
        } else {
            value
        };
        let values = found.entry(key).or_default();
        match value.is_empty() {
            true => values.clear(),
            false => values.push(value),
        }
    }
    found
}

fn matters(key: &str) -> bool {
    if let Some((_, sub)) = key.strip_prefix("lxc.net.").and_then(|k| k.split_once('.')) {
        return OF_NIC.contains(&sub);
    }
    begins_like_one(key, MATTERS)
}

/// Where the cgroups are is the monitor's to say.
fn comes_back(key: &str) -> bool {
    begins_like_one(key, COMES_BACK)
        && !key.starts_with("lxc.cgroup.dir")
        && key != "lxc.cgroup.relative"
}

/// Whether it is one of these keys, or below one that ends with a dot.
fn begins_like_one(key: &str, these: &[&str]) -> bool {
    these.iter().any(|one| key == *one || (one.ends_with('.') && key.starts_with(one)))
}

fn in_words(values: &[&str]) -> String {
    match values {
        [] => "not set".to_owned(),
        _ => format!("'{}'", values.join("', '")),
    }
}

#[cfg(test)]
mod tests {
    use super::super::Weight;
    use super::*;

    const THEN: &str = "lxc.rootfs.path = dir:/r\nlxc.net.0.type = veth\nlxc.net.0.link = \
                        br0\nlxc.idmap = u 0 100000 9\nlxc.idmap = g 0 100000 9\nlxc.mount.entry = \
                        /a b none bind\n";

    #[test]
    fn what_does_not_matter_may_change() {
        for now in [
            THEN.to_owned(),
            THEN.replace("dir:/r", "/r"),
            THEN.replace("br0", "br1"),
            format!("{THEN}lxc.net.0.veth.pair = x\nlxc.hook.start = /h\n"),
            format!("lxc.idmap = u 1 1 1\nlxc.idmap =\n{THEN}"),
        ] {
            assert_eq!(changes(THEN, &now), [], "{now}");
        }
    }

    #[test]
    fn what_comes_back_as_it_was_is_a_note() {
        let then = format!("{THEN}lxc.cap.drop = sys_time\n");
        let now = format!(
            "{THEN}lxc.cgroup2.memory.max = 1\nlxc.cap.drop = sys_time\nlxc.cap.drop = sys_nice\n"
        );
        let [reason] = &changes(&then, &now)[..] else { panic!("{:?}", changes(&then, &now)) };
        assert_eq!(reason.weight, Weight::Note);
        assert_eq!(
            reason.text,
            "lxc.cap.drop, lxc.cgroup2.memory.max changed in the configuration since: it comes \
             back as it was; this counts at its next start"
        );
    }

    #[test]
    fn what_matters_is_told_with_both_values() {
        let told = |now: &str| changes(THEN, now).remove(0).text;
        let begin = "the configuration has changed since: ";
        assert_eq!(
            told(&THEN.replace("dir:/r", "/s")),
            format!("{begin}lxc.rootfs.path was '/r', is '/s'")
        );
        assert_eq!(
            told(&THEN.replace("lxc.idmap = g 0 100000 9\n", "")),
            format!("{begin}lxc.idmap was 'u 0 100000 9', 'g 0 100000 9', is 'u 0 100000 9'")
        );
        assert_eq!(
            told(&format!("{THEN}lxc.net.0.ipv4.address = 10.0.0.2/24\nlxc.mount.entry =\n")),
            format!(
                "{begin}lxc.mount.entry was '/a b none bind', is not set, lxc.net.0.ipv4.address \
                 was not set, is '10.0.0.2/24'"
            )
        );
    }
}
