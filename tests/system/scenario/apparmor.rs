//! Profiles of AppArmor. They can be tried only on a kernel that has it in force: `make test-vm`.
//! On another one a container whose configuration names a profile has none, and comes back all the
//! same.

use std::fs;
use std::path::Path;

use super::copies::copy_of;
use crate::harness::World;
use crate::harness::container::Container;
use crate::harness::enter::APPARMOR;
use crate::harness::run::Run;

/// LXC lets a container have no profile of another name than `lxc-…`
/// (abstractions/lxc/start-container).
const OWN: &str = "lxc-of-a-trial";

fn is_in_force() -> bool {
    Path::new(APPARMOR).exists()
}

/// The label of a container's init.
fn label(container: &Container<'_>) -> String {
    let label = fs::read_to_string(format!("/proc/{}/attr/current", container.init_pid()))
        .unwrap_or_default();
    label.trim_end_matches(['\n', '\0']).to_owned()
}

/// The profiles and policy namespaces that are the container's own.
fn loaded(container: &Container<'_>) -> Vec<String> {
    let own = format!("lxc-{}_<", container.name());
    let profiles = fs::read_to_string(format!("{APPARMOR}/profiles")).unwrap_or_default();
    let namespaces =
        fs::read_dir(format!("{APPARMOR}/policy/namespaces")).into_iter().flatten().flatten();
    let namespaces = namespaces.map(|entry| entry.file_name().to_string_lossy().into_owned());
    profiles
        .lines()
        .map(str::to_owned)
        .chain(namespaces)
        .filter(|name| name.starts_with(&own))
        .collect()
}

/// What Debian and Ubuntu have in /etc/lxc/default.conf: LXC makes up a profile for each container.
pub fn a_profile_that_lxc_has_made_up_comes_back(world: &World) {
    let container = world.container();
    container.append_config("lxc.apparmor.profile = generated\nlxc.apparmor.allow_nesting = 1\n");
    container.start();
    let before = label(&container);
    let own = loaded(&container);
    assert_eq!(
        before.starts_with(&format!("lxc-{}_<", container.name())),
        is_in_force(),
        "{before}"
    );
    assert_eq!(own.len(), if is_in_force() { 2 } else { 0 }, "{own:?}");
    let mut witness = container.witness();
    let mut status = witness.status();
    for _ in 0..2 {
        container.ours("lxc-checkpoint").ok();
        assert_eq!(loaded(&container), Vec::<String>::new());
        container.ours("lxc-restart").ok();
        status = witness.assert_goes_on_from(&status);
        assert_eq!(label(&container), before);
        assert_eq!(loaded(&container), own);
    }

    // A copy has one of its own.
    container.ours("lxc-checkpoint").ok();
    let copy = copy_of(world, &container, "copy");
    copy.ours("lxc-restart").arg("-D").arg(container.dir().join("dump")).arg("--tcp-close").ok();
    let of_the_copy =
        |text: &str| text.replace(&format!("lxc-{}_<", container.name()), "lxc-copy_<");
    assert_eq!(label(&copy), of_the_copy(&before));
    assert_eq!(loaded(&copy), own.iter().map(|name| of_the_copy(name)).collect::<Vec<_>>());
    copy.witness().status().assert_sound();

    copy.stop();
    copy.wait_state("STOPPED");
    assert_eq!(loaded(&copy), Vec::<String>::new());
    assert!(!copy.dir().join("apparmor").exists());
}

/// A profile of the administrator's that is not there any more: refused beforehand, and told if it
/// goes meanwhile.
pub fn a_profile_that_is_missing_is_named(world: &World) {
    let container = world.container();
    container.append_config(&format!("lxc.apparmor.profile = {OWN}\n"));
    if !is_in_force() {
        // LXC does not look at the name, nor do we.
        container.start();
        container.ours("lxc-checkpoint").ok();
        container.ours("lxc-restart").ok();
        container.kill();
        return;
    }
    let rules =
        "file,\nnetwork,\ncapability,\nmount,\numount,\npivot_root,\nptrace,\nsignal,\nunix,\n";
    let text = format!("profile {OWN} flags=(attach_disconnected,mediate_deleted) {{\n{rules}}}\n");
    let file = world.lxcpath().join(OWN);
    fs::write(&file, text).unwrap();
    let load = || drop(Run::new("apparmor_parser").arg("-rK").arg(&file).ok());
    let unload = format!("printf {OWN} > {APPARMOR}/.remove");
    load();
    container.start();
    let before = label(&container);
    assert_eq!(before, format!("{OWN} (enforce)"));
    let mut witness = container.witness();
    let status = witness.status();
    container.ours("lxc-checkpoint").ok();
    Run::new("sh").args(["-c", &unload]).ok();

    let refused = container.ours("lxc-restart").arg("--force").output();
    refused.assert_code(9);
    assert!(refused.stderr.contains(&format!("the AppArmor profile '{OWN}'")), "{refused}");

    // CRIU finds out when all is back and about to run, and hangs.
    load();
    let config = fs::read_to_string(container.dir().join("config")).unwrap();
    container.append_config(&format!("lxc.hook.pre-start = /bin/sh -c \"{unload}\"\n"));
    let failed = container.ours("lxc-restart").arg("--force").output();
    failed.assert_code(5);
    assert!(failed.stderr.contains("security profile could not be applied"), "{failed}");
    assert!(failed.stderr.contains("is stopped, its checkpoint is as before"), "{failed}");

    fs::write(container.dir().join("config"), config).unwrap();
    load();
    container.ours("lxc-restart").ok();
    // Its peers had heard of it before it was ended.
    drop(witness);
    container.witness().assert_goes_on_from(&status);
    assert_eq!(label(&container), before);
    container.kill();
    Run::new("sh").args(["-c", &unload]).ok();
}
