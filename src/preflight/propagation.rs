//! Where mounts propagate: what the host mounts later may reach the container.
//!
//! CRIU makes a mount a slave of the mount that it finds at an external's source, or at the root's.
//! A master that lies outside of the container in any other way it refuses (mount.c,
//! `resolve_shared_mounts`: `… has unreachable sharing`).

use std::path::Path;

use super::finding::Finding;
use super::mounts::{Tables, place};
use crate::resources::mounts::external::{External, source_of};
use crate::resources::mounts::{Mount, seen_at};
use crate::resources::terminals;

/// Judges propagation from the host, whose table is given, and to it; pure.
pub(crate) fn judge(tables: &Tables, externals: &[External], host: &[Mount]) -> Vec<Finding> {
    let main = tables.main();
    let Some(root) = main.iter().rfind(|m| m.point == Path::new("/")) else { return Vec::new() };
    let mut found = Vec::new();
    for mount in
        main.iter().filter(|m| m.id != root.id && externals.iter().any(|e| e.point == m.point))
    {
        found.extend(of_source(mount, host));
    }
    let all: Vec<&Mount> = tables.all().collect();
    for mount in &all {
        if mount.shared.is_some_and(|group| host.iter().any(|h| h.shared == Some(group))) {
            found.push(in_both_directions(mount));
        } else if !all.iter().any(|m| mount.master.is_none() || m.shared == mount.master) {
            let gives = |m: &Mount| {
                m.device == mount.device
                    && m.master == mount.master
                    && mount.root.starts_with(&m.root)
            };
            let external = |m: &&Mount| {
                m.id == root.id
                    || terminals::is_lent(m)
                    || externals.iter().any(|e| e.point == m.point)
            };
            if !main.iter().filter(external).any(gives) {
                found.push(without_a_source(mount));
            }
        }
    }
    found
}

/// What the host's mount is like that an external shows.
fn of_source(mount: &Mount, host: &[Mount]) -> Option<Finding> {
    let source = source_of(mount, host)?;
    let (path, point) = (source.path(mount), mount.point.display());
    if !source.in_sight {
        let cover = seen_at(host, &path).map(|m| m.point.display().to_string()).unwrap_or_default();
        let what = format!(
            "{point} is a bind mount of {}, which the host has hidden under a mount on {cover}",
            path.display()
        );
        let finding = Finding::blocker(what, "a restore would mount what is there now");
        return Some(
            finding
                .at(place(mount))
                .remedy(format!("unmount {cover} on the host, or {point} in the container")),
        );
    }
    if source.propagates {
        return None;
    }
    let what = format!(
        "{point} receives mounts from a mount that the host does not have any more, or had in \
         another mount namespace"
    );
    let why = format!(
        "after a restore it no longer does; what the host mounts below {} may reach it instead",
        path.display()
    );
    Some(
        Finding::warning(what, why)
            .at(place(mount))
            .remedy("to avoid this warning, restart the container"),
    )
}

fn in_both_directions(mount: &Mount) -> Finding {
    Finding::blocker(
        format!("{} shares its mounts with the host in both directions", mount.point.display()),
        "CRIU can restore it only so that the host's mounts reach the container, not the other way \
         round",
    )
    .at(place(mount))
    .remedy(format!(
        "make it a slave in the container: mount --make-slave {}",
        mount.point.display()
    ))
}

fn without_a_source(mount: &Mount) -> Finding {
    Finding::blocker(
        format!(
            "{} receives mounts from outside of the container, and nothing says from where",
            mount.point.display()
        ),
        "CRIU refuses to dump it (has unreachable sharing)",
    )
    .at(place(mount))
    .remedy(format!(
        "make it private in the container: mount --make-private {}",
        mount.point.display()
    ))
}

#[cfg(test)]
mod tests {
    use super::super::finding::Severity;
    use super::super::mounts::tests::{mount, tables};
    use super::*;

    fn judged(container: Vec<Mount>, externals: &[&str], host: &[Mount]) -> Vec<Severity> {
        let external = |point: &&str| External {
            key: "k".into(),
            point: point.into(),
            source: "/s".into(),
            read_only: false,
            identity: None,
        };
        let externals: Vec<External> = externals.iter().map(external).collect();
        judge(&tables(container), &externals, host).into_iter().map(|f| f.severity).collect()
    }

    #[test]
    fn a_slave_of_the_hosts_mount_is_as_good_as_its_source() {
        let source = Mount { shared: Some(7), ..mount(2, 1, "/", "/sys/debug") };
        let host = [mount(1, 0, "/", "/"), source.clone()];
        let slave = Mount {
            master: Some(7),
            shared: Some(40),
            device: source.device.clone(),
            ..mount(51, 50, "/", "/x")
        };
        let with = |slave: &Mount| vec![mount(50, 0, "/", "/"), slave.clone()];
        assert_eq!(judged(with(&slave), &["/x"], &host), []);
        assert_eq!(judged(with(&slave), &[], &host), [Severity::Blocker]);
        let elsewhere = Mount { master: Some(9), ..slave.clone() };
        assert_eq!(judged(with(&elsewhere), &["/x"], &host), [Severity::Warning]);
        let peer = Mount { master: None, shared: Some(7), ..slave.clone() };
        assert_eq!(judged(with(&peer), &["/x"], &host), [Severity::Blocker]);
        let covered = [host.as_slice(), &[mount(3, 1, "/", "/sys")]].concat();
        assert_eq!(judged(with(&slave), &["/x"], &covered), [Severity::Blocker]);
    }

    #[test]
    fn a_slave_of_the_containers_own_is_its_own_affair() {
        let group = Mount { shared: Some(40), ..mount(51, 50, "/", "/x") };
        let slave = Mount { master: Some(40), ..mount(52, 50, "/", "/y") };
        let root = Mount { master: Some(1), ..mount(50, 0, "/r", "/") };
        let piece =
            Mount { device: root.device.clone(), master: Some(1), ..mount(53, 50, "/r/etc", "/z") };
        assert_eq!(judged(vec![root, group, slave, piece], &[], &[]), []);
    }
}
