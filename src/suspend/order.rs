//! Several containers in their order: who is before whom, and who may go side by side.
//!
//! The order is that of `lxc-autostart`: the groups as they are asked for, in them
//! `lxc.start.order` from low to high, and then the names. `lxc-autostart` does one after the
//! other; here those of the same order are a [`Batch`] and go side by side. After one with an
//! `lxc.start.delay` nobody else begins until that is over, so it ends its batch.

use std::time::Duration;

use crate::lxc::config::Config;
use crate::lxc::name::ContainerName;

/// A container, and what its configuration says of its start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Member {
    /// Its name.
    pub name: ContainerName,
    order: i32,
    delay: u32,
    groups: Vec<String>,
}

impl Member {
    /// A container with its configuration.
    pub(crate) fn new(name: &ContainerName, config: &Config) -> Member {
        Member {
            name: name.clone(),
            order: config.start_order(),
            delay: config.start_delay(),
            groups: config.groups().to_vec(),
        }
    }

    /// Whether it is in a group; the one with the empty name holds those that are in none.
    fn is_in(&self, group: &str) -> bool {
        if group.is_empty() {
            self.groups.is_empty()
        } else {
            self.groups.iter().any(|g| g == group)
        }
    }
}

/// Containers that go side by side.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Batch {
    /// Their names.
    pub names: Vec<ContainerName>,
    /// How long to wait after them before the next ones.
    pub pause: Duration,
}

/// Puts containers into order. `groups` chooses those that are in one of these; all are taken where
/// it is `None`.
pub(crate) fn batches(mut members: Vec<Member>, groups: Option<&[String]>) -> Vec<Batch> {
    members.sort_by(|a, b| (a.order, a.name.as_str()).cmp(&(b.order, b.name.as_str())));
    let Some(groups) = groups else { return in_batches(&members) };
    let mut found = Vec::new();
    for group in groups {
        let (chosen, others): (Vec<Member>, Vec<Member>) =
            members.into_iter().partition(|m| m.is_in(group));
        found.extend(in_batches(&chosen));
        members = others;
    }
    found
}

fn in_batches(members: &[Member]) -> Vec<Batch> {
    members
        .chunk_by(|a, b| a.order == b.order && a.delay == 0)
        .map(|batch| Batch {
            names: batch.iter().map(|m| m.name.clone()).collect(),
            pause: Duration::from_secs(batch.last().map_or(0, |last| last.delay).into()),
        })
        .collect()
}

/// The same the other way round: who came last goes first, and nobody waits.
pub(crate) fn reversed(batches: Vec<Batch>) -> Vec<Batch> {
    batches.into_iter().rev().map(|batch| Batch { pause: Duration::ZERO, ..batch }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member(name: &str, order: i32, delay: u32, groups: &[&str]) -> Member {
        let groups = groups.iter().map(ToString::to_string).collect();
        Member { name: ContainerName::new(name).unwrap(), order, delay, groups }
    }

    fn shown(batches: &[Batch]) -> String {
        let one = |b: &Batch| {
            let names: Vec<&str> = b.names.iter().map(ContainerName::as_str).collect();
            format!("{} +{}", names.join(" "), b.pause.as_secs())
        };
        batches.iter().map(one).collect::<Vec<_>>().join(" | ")
    }

    #[test]
    fn equals_go_side_by_side_and_a_delay_ends_a_batch() {
        let members = vec![
            member("web", 5, 0, &[]),
            member("mail", 5, 0, &[]),
            member("db", -1, 3, &[]),
            member("cache", -1, 0, &[]),
            member("dns", -1, 0, &[]),
        ];
        let batches = batches(members, None);
        assert_eq!(shown(&batches), "cache db +3 | dns +0 | mail web +0");
        assert_eq!(shown(&reversed(batches)), "mail web +0 | dns +0 | cache db +0");
    }

    #[test]
    fn groups_come_in_the_order_that_is_asked_for_and_nobody_twice() {
        let members = || {
            vec![
                member("plain", 0, 0, &[]),
                member("both", 9, 0, &["onboot", "late"]),
                member("late", 0, 0, &["late"]),
                member("onboot2", 0, 0, &["onboot2"]),
            ]
        };
        let of = |groups: &[&str]| {
            let groups: Vec<String> = groups.iter().map(ToString::to_string).collect();
            shown(&batches(members(), Some(&groups)))
        };
        assert_eq!(of(&["onboot", ""]), "both +0 | plain +0");
        assert_eq!(of(&["late", "onboot"]), "late +0 | both +0");
        assert_eq!(of(&["nobody"]), "");
        assert_eq!(shown(&batches(members(), None)), "late onboot2 plain +0 | both +0");
    }
}
