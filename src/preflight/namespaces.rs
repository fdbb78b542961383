//! Namespaces inside the container. CRIU takes init's namespaces of every kind, and can nest mount
//! and network namespaces only (`CLONE_SUBNS`; namespaces.c: `Can't dump nested … namespace`).

use std::collections::BTreeSet;

use super::Names;
use super::finding::Finding;
use super::task::{NAMESPACES, Task, Tasks, end, is_plain_service};
use crate::lxc::config::Config;

/// Judges the namespaces; pure.
pub(crate) fn judge(tasks: &Tasks, names: &Names) -> Vec<Finding> {
    let Some(init) = tasks.tree.first() else { return Vec::new() };
    let mut found = Vec::new();
    let mut told = BTreeSet::new();
    for (at, kind) in
        NAMESPACES.iter().enumerate().filter(|(_, kind)| !["mnt", "net"].contains(kind))
    {
        for task in tasks.tree.iter().filter(|t| !t.is_zombie()) {
            let other = task.namespaces[at].is_some() && task.namespaces[at] != init.namespaces[at];
            // time and time_for_children of one process are one namespace; so are those of a group
            // of processes.
            if other && told.insert(task.namespaces[at]) {
                found.push(nested(task, kind, names));
            }
        }
    }
    // Where init's children would get another time than init has.
    if init.namespace("time") != init.namespace("time_for_children") {
        found.push(nested(init, "time", names));
    }
    found
}

/// What it shares with another container by its configuration. CRIU would dump that as its own, and
/// the other one's interfaces with it.
pub(crate) fn shared(config: &Config) -> Vec<Finding> {
    let kinds = NAMESPACES.iter().filter_map(|kind| Some((*kind, config.shared_namespace(kind)?)));
    let found = kinds.map(|(kind, with)| {
        Finding::blocker(
            format!("it has the {kind} namespace of {with} (lxc.namespace.share.{kind})"),
            match kind {
                "net" => {
                    "CRIU would dump it as the container's own, and take the other one off its \
                     network"
                }
                _ => {
                    "CRIU would dump it as the container's own, and restore it apart from the \
                     other one"
                }
            },
        )
        .on_restore()
        .remedy(format!(
            "remove lxc.namespace.share.{kind} from its configuration, and restart the container"
        ))
    });
    found.collect()
}

fn nested(task: &Task, kind: &str, names: &Names) -> Finding {
    let kind = kind.trim_end_matches("_for_children");
    let container = match kind {
        "pid" => " (a container in the container?)",
        _ => "",
    };
    Finding::blocker(
        format!("{} has a {kind} namespace of its own{container}", task.name()),
        "CRIU can nest mount and network namespaces, but none of another kind",
    )
    .at(task.place())
    .remedy(remedy(task, kind, names))
}

fn remedy(task: &Task, kind: &str, names: &Names) -> String {
    if task.command.raw() == "vsftpd" {
        // No setting of its unit: it makes them for each session.
        return format!("serve its sessions without (isolate=NO): {}", names.prepare());
    }
    match (task.unit(), directive(kind)) {
        // The container's root names its cgroups as it likes.
        (Some(unit), Some(directive)) if is_plain_service(&unit) => {
            let dir = format!("/etc/systemd/system/{unit}.d");
            names.attach(&format!(
                "sh -c 'mkdir -p {dir} && printf \"[Service]\\n{directive}\\n\" > \
                 {dir}/lxc-cr.conf && systemctl daemon-reload && systemctl restart {unit}'"
            ))
        }
        _ => end(task),
    }
}

/// The setting of a systemd unit that makes such a namespace (systemd.exec(5)).
fn directive(kind: &str) -> Option<&'static str> {
    Some(match kind {
        "uts" => "ProtectHostname=no",
        "user" => "PrivateUsers=no",
        "ipc" => "PrivateIPC=no",
        "cgroup" => "ProtectControlGroups=no",
        "pid" => "PrivatePIDs=no",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::super::task::tests::task;
    use super::*;

    fn with(kind: &str, inode: u64, mut task: Task) -> Task {
        let at = NAMESPACES.iter().position(|k| *k == kind).unwrap();
        task.namespaces[at] = Some(inode);
        task
    }

    fn judged(tree: Vec<Task>) -> Vec<Finding> {
        judge(&Tasks { tree, ..Tasks::default() }, &Names::test())
    }

    #[test]
    fn mount_and_network_namespaces_may_be_nested() {
        assert_eq!(
            judged(vec![
                task(101, "init"),
                with("mnt", 90, task(102, "a")),
                with("net", 91, task(103, "b"))
            ]),
            []
        );
    }

    #[test]
    fn one_of_another_container_is_not_taken_along() {
        let config =
            |text: &str| Config::parse(std::path::Path::new("/c"), text.as_bytes()).unwrap();
        assert_eq!(shared(&config("lxc.uts.name = web\n")), []);
        let found = shared(&config("lxc.namespace.share.net = db\n"));
        let told: Vec<_> = found.iter().map(|f| f.what.as_str()).collect();
        assert_eq!(told, ["it has the net namespace of db (lxc.namespace.share.net)"]);
    }

    #[test]
    fn each_other_namespace_is_told_once() {
        let found = judged(vec![
            task(101, "init"),
            with("uts", 90, task(102, "logind")),
            with("uts", 90, task(103, "its-child")),
            with("time_for_children", 91, task(104, "c")),
        ]);
        let told: Vec<_> = found.iter().map(|f| (f.place.pid, f.what.contains("uts"))).collect();
        assert_eq!(told, [(Some(104), false), (Some(102), true)]);
        assert_eq!(found[1].remedy, "end the process: kill 102");
    }

    #[test]
    fn a_unit_gets_the_setting_to_paste() {
        let logind = Task {
            cgroup: "/x/system.slice/systemd-logind.service".into(),
            ..task(102, "systemd-logind")
        };
        let found = judged(vec![task(101, "init"), with("uts", 90, logind)]);
        insta::assert_snapshot!(found[0].remedy, @r#"lxc-attach -n web -- sh -c 'mkdir -p /etc/systemd/system/systemd-logind.service.d && printf "[Service]\nProtectHostname=no\n" > /etc/systemd/system/systemd-logind.service.d/lxc-cr.conf && systemctl daemon-reload && systemctl restart systemd-logind.service'"#);
        assert_eq!(found[0].place.unit, Some("systemd-logind.service".into()));
    }

    #[test]
    fn a_unit_that_a_shell_would_run_goes_into_no_command() {
        for unit in ["x'$(id)'.service", "a b.service", "-f.service", "x;y.service"] {
            let evil = Task { cgroup: format!("/x/system.slice/{unit}"), ..task(102, "x") };
            let found = judged(vec![task(101, "init"), with("uts", 90, evil)]);
            assert_eq!(found[0].remedy, "end the process: kill 102", "{unit}");
        }
    }
}
