//! Real netlink, in user, network and mount namespaces of our own: needs no root, harms no host.
//!
//! Each trial runs on a thread of its own in a fresh network namespace that plays the host; a
//! container is another namespace that a file descriptor keeps alive.

// Clippy knows a test by its `#[test]`; these have none.
#![allow(clippy::unwrap_used, clippy::print_stdout)]

use std::fs::{self, File};
use std::os::fd::AsFd;
use std::process::ExitCode;

use libtest_mimic::{Arguments, Completion, Failed, Trial};
use lxc_cr::api::resources::network::Port;
use lxc_cr::api::sys::netlink::{Link, Netlink, NewVeth, in_netns};
use nix::sched::{CloneFlags, unshare};

#[path = "kernel/links.rs"]
mod links;
#[path = "kernel/ports.rs"]
mod ports;

fn main() -> ExitCode {
    let mut arguments = Arguments::from_args();
    // One at a time: they measure, too.
    arguments.test_threads = Some(1);
    // Now, while this is the only thread: a user namespace cannot be entered later.
    let unable = enter_namespaces().err().map(|e| format!("no namespaces here: {e:#}"));
    let mut trials = Vec::new();
    for (name, run) in links::TRIALS.iter().chain(ports::TRIALS) {
        trials.push(trial(name, *run, || None, unable.clone()));
    }
    for (name, run) in ports::VLAN_TRIALS {
        trials.push(trial(name, *run, ports::no_vlans, unable.clone()));
    }
    libtest_mimic::run(&arguments, trials).exit_code()
}

fn enter_namespaces() -> anyhow::Result<()> {
    let (uid, gid) = (nix::unistd::getuid(), nix::unistd::getgid());
    let mut flags = CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS;
    if !uid.is_root() {
        flags |= CloneFlags::CLONE_NEWUSER;
    }
    unshare(flags)?;
    if !uid.is_root() {
        fs::write("/proc/self/setgroups", "deny")?;
        fs::write("/proc/self/uid_map", format!("0 {uid} 1"))?;
        fs::write("/proc/self/gid_map", format!("0 {gid} 1"))?;
    }
    Ok(())
}

/// `lacking` says, in the namespace of the trial, why this kernel cannot do it.
fn trial(name: &str, run: fn(), lacking: fn() -> Option<String>, unable: Option<String>) -> Trial {
    Trial::ignorable_test(name, move || {
        if let Some(reason) = unable {
            // A green run on a build server must not be an empty one.
            let server = std::env::var("CI").is_ok_and(|v| v == "true");
            return if server {
                Err(Failed::from(reason))
            } else {
                Ok(Completion::ignored_with(reason))
            };
        }
        if let Some(reason) = in_own_namespace(lacking)? {
            return Ok(Completion::ignored_with(reason));
        }
        in_own_namespace(run)?;
        Ok(Completion::Completed)
    })
}

fn in_own_namespace<T: Send + 'static>(f: fn() -> T) -> Result<T, Failed> {
    let thread = std::thread::spawn(move || {
        unshare(CloneFlags::CLONE_NEWNET).unwrap();
        f()
    });
    thread.join().map_err(|panic| {
        Failed::from(
            panic
                .downcast_ref::<String>()
                .cloned()
                .unwrap_or_else(|| "it panicked, see above".to_owned()),
        )
    })
}

fn open() -> Netlink {
    Netlink::open().unwrap()
}

/// A network namespace that lives as long as the file is open.
fn container() -> File {
    std::thread::spawn(|| {
        unshare(CloneFlags::CLONE_NEWNET).unwrap();
        File::open("/proc/thread-self/ns/net").unwrap()
    })
    .join()
    .unwrap()
}

/// A pair as LXC makes it: host's end up and on the bridge, inner end in the container and up.
fn connect(nl: &mut Netlink, host: &str, container: &File, inner: &str, bridge: u32) -> u32 {
    let new = NewVeth {
        host_name: host.to_owned(),
        inner_name: inner.to_owned(),
        inner_netns: Some(container.as_fd()),
        host_up: true,
        controller: Some(bridge),
        ..NewVeth::default()
    };
    let index = nl.create_veth(&new).unwrap();
    in_netns(container.as_fd(), || {
        let mut nl = open();
        let inner = nl.link(inner).unwrap().index;
        nl.set_up(inner, true).unwrap();
    })
    .unwrap();
    index
}

fn inside(container: &File) -> Vec<Link> {
    in_netns(container.as_fd(), || Netlink::open()?.links()).unwrap().unwrap()
}

fn nothing_to_note(_: &Port) -> anyhow::Result<()> {
    Ok(())
}

fn controller(nl: &mut Netlink, name: &str) -> Option<u32> {
    nl.link(name).unwrap().controller
}
