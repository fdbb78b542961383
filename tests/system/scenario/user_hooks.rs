//! A user's own hooks see the same whether LXC runs them or we do.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use lxc_cr::api::lxc::config::HookKind;
use lxc_cr::api::lxc::definition::Defined;
use lxc_cr::api::lxc::hook;
use lxc_cr::api::lxc::name::{ContainerName, LxcPath};

use crate::harness::World;

/// Writes down its directory, arguments and variables. Numbers of processes and descriptors differ
/// from run to run.
const PROBE: &str = "#!/bin/sh
{ echo \"in $PWD: $*\"; env | grep ^LXC_ | sort; } |
    sed -e 's|/proc/[0-9]*/fd/[0-9]*|NAMESPACE|g' -e 's|^LXC_PID=[0-9][0-9]*$|LXC_PID=PID|' >> NOTES
";

/// The hook in a trial's directory, and where it notes what it sees.
fn probe(world: &World) -> (String, PathBuf) {
    let (probe, notes) = (world.lxcpath().join("probe"), world.lxcpath().join("notes"));
    fs::write(&probe, PROBE.replace("NOTES", &notes.to_string_lossy())).unwrap();
    fs::set_permissions(&probe, fs::Permissions::from_mode(0o755)).unwrap();
    (probe.to_string_lossy().into_owned(), notes)
}

/// What was noted, without the variables of network scripts and of namespaces that LXC lets leak
/// into later hooks, and without the time namespace, which CRIU gives a container that had none:
/// LXC would tell of it, too.
fn take(notes: &PathBuf) -> String {
    let text = fs::read_to_string(notes).unwrap();
    fs::remove_file(notes).unwrap();
    let mut kept = String::new();
    for call in text.split_inclusive("in /").filter(|c| *c != "in /") {
        let of_net = call.contains("LXC_HOOK_SECTION=net");
        let post_stop =
            call.contains("lxc post-stop\n") || call.contains("LXC_HOOK_TYPE=post-stop");
        for line in call.split_inclusive('\n') {
            let name = line.split('=').next().unwrap_or_default();
            let leaked_net =
                !of_net && ["LXC_NET_TYPE", "LXC_NET_PARENT", "LXC_NET_PEER"].contains(&name);
            let leaked_namespace = (post_stop && name.ends_with("_NS")) || name == "LXC_TIME_NS";
            if !leaked_net && !leaked_namespace {
                kept.push_str(&line.replace(" time:NAMESPACE", ""));
            }
        }
    }
    kept
}

/// What a hook sees when we run it is what it sees when LXC does: directory, arguments, variables.
pub fn see_the_same(world: &World) {
    for version in [0, 1] {
        let (probe, notes) = probe(world);
        let container = world.container().configure(&format!(
            "lxc.hook.version = {version}
lxc.hook.pre-start = {probe} own
lxc.hook.stop = {probe} own
lxc.network.veth.pair = vethProbe
lxc.network.script.down = {probe} own
"
        ));
        // No log level is asked for, as it is on an ordinary start.
        container.lxc("lxc-start").arg("-d").ok();
        container.wait_state("RUNNING");
        let init = container.init_pid().cast_signed();
        let present = |name: &&str| {
            let link = |pid: &str| fs::read_link(format!("/proc/{pid}/ns/{name}")).ok();
            link(&init.to_string()) != link("self")
        };
        let namespaces = hook::NAMESPACES.into_iter().filter(present);
        let namespaces: Vec<_> = namespaces.map(|n| (n, PathBuf::from("/proc/1/fd/1"))).collect();
        container.kill();
        let of_lxc = take(&notes);

        let name = ContainerName::new(container.name()).unwrap();
        let defined = Defined::load(&name, &LxcPath::new(world.lxcpath()).unwrap(), None).unwrap();
        hook::run_all(HookKind::PreStart, &hook::Context::new(&defined)).unwrap();
        let at_end =
            || hook::Context::new(&defined).with_pid(init).with_namespaces(namespaces.clone());
        let nic = &defined.config.nics()[0];
        hook::run_net_script(nic, hook::Direction::Down, Some("vethProbe"), &at_end()).unwrap();
        hook::run_all(HookKind::Stop, &at_end().with_target(hook::Target::Stop)).unwrap();
        assert_eq!(take(&notes), of_lxc, "version {version}");
    }
}

/// At the end of a restored container, too: script.down, stop and post-stop, from our monitor.
pub fn end_the_same(world: &World) {
    for version in [0, 1] {
        let (probe, notes) = probe(world);
        let container = world.container().configure(&format!(
            "lxc.hook.version = {version}
lxc.hook.stop = {probe} one
lxc.hook.stop = {probe} two
lxc.hook.post-stop = {probe} own
lxc.network.veth.pair = vethProbe
lxc.network.script.down = {probe} own
"
        ));
        let of_lxc = {
            container.lxc("lxc-start").arg("-d").ok();
            container.wait_state("RUNNING");
            container.kill();
            take(&notes)
        };
        container.lxc("lxc-start").arg("-d").ok();
        container.wait_state("RUNNING");
        container.ours("lxc-checkpoint").ok();
        assert_eq!(take(&notes), of_lxc, "LXC, version {version}");
        container.ours("lxc-restart").ok();
        assert!(!notes.exists());
        container.kill();
        assert_eq!(take(&notes), of_lxc, "version {version}");
        assert_eq!(of_lxc.matches(": ").count(), 4, "{of_lxc}");
    }
}
