//! What CRIU finds around itself while it restores: what it works with, and nothing else of the
//! host.
//!
//! What is in the images and in the container's root was made by the container. CRIU puts paths
//! together from it and makes files, directories and mounts there, with a root directory that is
//! not the container's: a symbolic link in the root would lead to whatever CRIU has at that path.
//! So it has little ([`Sandbox`]): the container's root, the images, what the container has mounted
//! from the host, /proc, /sys, some devices, and the programs that it runs. And it follows no link
//! in the root nor in what others can change: all the paths in the images are the kernel's own, in
//! which no link is left. (Names of sockets are as their programs gave them: see
//! [`links::are_needed`].)
//!
//! It can write to the container's root, to what the container has mounted from the host, to the
//! kernel's own file systems, to its log, and to memory that goes with it.

use std::collections::BTreeMap;
use std::fs;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::criu::images::Shown;
use crate::criu::options::{External, RESTORE_LOG, Restore};
use crate::resources::rootfs::Held;
use crate::rollback::filling;
use crate::store::parents::Parents;
use crate::sys::files;
use crate::sys::mount::Detached;
use crate::sys::sandbox::{Access, Sandbox};

use super::plan::Plan;
use super::{Request, links};

/// Where the programs are that CRIU runs, with their libraries.
const PROGRAMS: &[&str] =
    &["/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32", "/nix/store", "/gnu/store"];
/// What these programs and the C library read of /etc.
const SETTINGS: &[&str] = &[
    "/etc/alternatives",
    "/etc/ethertypes",
    "/etc/iproute2",
    "/etc/ld.so.cache",
    "/etc/ld.so.conf",
    "/etc/ld.so.conf.d",
    "/etc/protocols",
    "/etc/services",
];
/// Devices that read and write nothing of the host's.
const DEVICES: &[&str] = &[
    "/dev/autofs",
    "/dev/full",
    "/dev/net/tun",
    "/dev/null",
    "/dev/random",
    "/dev/tty",
    "/dev/urandom",
    "/dev/zero",
];
/// What CRIU has found out about this kernel (kerndat.c).
const KERNEL_CACHE: &str = "/run/criu.kdat";
/// Where it makes directories for the time of its work.
const TEMPORARY: &str = "/tmp";
/// What else is there: the statistics that CRIU writes beside the images.
const STATISTICS: &str = "stats-restore";
/// Where it is at home: its log and other files lie there.
const WORK: &str = "/.lxc-cr/work";
/// Where what the container has of the host is shown.
const EXTERNALS: &str = "/.lxc-cr/external";
/// Images in place of the checkpoint's own.
const SHOWN: &str = "/.lxc-cr/shown";
/// The name under which CRIU runs the user's script; it is our program, which goes back to where
/// the host's tree is.
pub(crate) const USER_SCRIPT: &str = "/.lxc-cr/user-script";
/// The variable with the real path of that.
pub(crate) const USER_SCRIPT_VARIABLE: &str = "LXC_CR_USER_SCRIPT";
/// The variable with our mount namespace.
pub(crate) const HOST_VARIABLE: &str = "LXC_CR_HOST";

/// What CRIU is asked, with the paths that it finds there.
pub(super) fn seen(mut asked: Restore, plan: &Plan, request: &Request) -> Restore {
    for external in &mut asked.common.externals {
        if plan.mounts.contains(external)
            && let External::Mount { key, path } = external
        {
            *path = place_of(key);
        }
    }
    for script in &mut asked.common.action_scripts {
        if request.user_script.as_ref() == Some(script) {
            *script = USER_SCRIPT.into();
        }
    }
    asked.common.extra.extend(["--work-dir".into(), WORK.into()]);
    asked
}

fn place_of(key: &str) -> PathBuf {
    Path::new(EXTERNALS).join(key)
}

/// What it is made with.
#[derive(Clone, Copy, Debug)]
pub(super) struct Needs<'a> {
    /// What is asked.
    pub request: &'a Request,
    /// What was decided.
    pub plan: &'a Plan,
    /// The socket at which our action script asks.
    pub control: &'a Path,
    /// Where CRIU writes init's pid.
    pub pidfile: &'a Path,
    /// The CRIU that restores.
    pub program: &'a Path,
    /// The container's root.
    pub root: &'a Held,
    /// The group on the host of the container's root user, if that is another one.
    pub guest: Option<u32>,
    /// The socket on which somebody waits to give memory later.
    pub lazy_socket: Option<&'a Path>,
    /// Images that are shown for that in place of the checkpoint's, by their names.
    pub lazy_images: &'a [(String, Vec<u8>)],
    /// Whether all that CRIU fills was looked through at the checkpoint.
    pub looked_through: bool,
    /// Mounts that are shown in place of what is mounted from the host, by their keys.
    pub covers: &'a BTreeMap<String, Detached>,
}

/// Makes it.
pub(super) fn make(needs: &Needs<'_>) -> Result<Sandbox> {
    let Needs {
        request,
        plan,
        control,
        pidfile,
        program,
        root,
        guest,
        lazy_socket,
        lazy_images,
        looked_through,
        covers,
    } = *needs;
    let follow_links = links::are_needed(&request.images, root.path())?;
    let mut shown = Shown::of(&request.images);
    shown.put(plan.images.iter().map(|image| (image.name.clone(), image.content.clone())));
    shown.put(lazy_images.iter().cloned());
    let kernels_own = links::forbid(&mut shown, !follow_links, !looked_through)
        .context("read the container's mounts")?;
    let mut sandbox = Sandbox::new().context("make an empty root")?;
    show_host(&mut sandbox, program).context("show what CRIU runs")?;
    let container = Access::Untrusted { follow_links };
    sandbox
        .mount(root.mount().as_fd().try_clone_to_owned()?, &plan.root, container)
        .context("show the root")?;
    for external in &plan.mounts {
        if let External::Mount { key, path } = external {
            let access = Access::Untrusted { follow_links: kernels_own.contains(key) };
            let shown = match covers.get(key) {
                Some(cover) => cover
                    .as_fd()
                    .try_clone_to_owned()
                    .and_then(|cover| sandbox.mount(cover, &place_of(key), access)),
                None => sandbox.show_without_links(path, &place_of(key), access),
            };
            shown.with_context(|| {
                format!("show {}, which was mounted in the container", path.display())
            })?;
        }
    }
    show_images(&mut sandbox, shown, guest).context("show the images")?;
    show_ours(&mut sandbox, request, control, pidfile).context("show what CRIU's actions need")?;
    if let Some(socket) = lazy_socket {
        sandbox
            .show_at(socket, &Path::new(WORK).join(filling::SOCKET), Access::Use)
            .context("show the pager's socket")?;
    }
    Ok(sandbox)
}

/// What of the host is the same for all containers.
fn show_host(sandbox: &mut Sandbox, program: &Path) -> Result<()> {
    for path in PROGRAMS.iter().chain(SETTINGS).map(Path::new) {
        sandbox.show_if_there(path, Access::Read).with_context(|| path.display().to_string())?;
    }
    let program =
        fs::canonicalize(program).with_context(|| format!("find {}", program.display()))?;
    if !PROGRAMS.iter().any(|shown| program.starts_with(shown)) {
        let prefix = prefix_of(&program);
        sandbox.show(prefix, Access::Read).with_context(|| prefix.display().to_string())?;
    }
    for path in DEVICES.iter().map(Path::new) {
        sandbox.show_if_there(path, Access::Use).with_context(|| path.display().to_string())?;
    }
    sandbox.show(Path::new("/proc"), Access::Use).context("/proc")?;
    sandbox.show(Path::new("/sys"), Access::UseAll).context("/sys")?;
    sandbox.show_if_there(Path::new(KERNEL_CACHE), Access::Read).context(KERNEL_CACHE)?;
    sandbox.directory(Path::new("/run"))?;
    // Some of it works as the container's root user.
    for path in [TEMPORARY, WORK] {
        sandbox.open_directory(Path::new(path))?;
    }
    Ok(())
}

/// The directory below which a program and its libraries were installed: `/opt/criu` for
/// `/opt/criu/sbin/criu`.
fn prefix_of(program: &Path) -> &Path {
    let dir = program.parent().unwrap_or(program);
    let is_of_prefix = dir.ends_with("bin") || dir.ends_with("sbin");
    match dir.parent() {
        Some(prefix) if is_of_prefix && prefix != Path::new("/") => prefix,
        _ => dir,
    }
}

/// The checkpoint and what it builds on can only be read; some images are others. CRIU's log and
/// statistics are the files beside the images.
fn show_images(sandbox: &mut Sandbox, shown: Shown, guest: Option<u32>) -> Result<()> {
    let images = shown.dir().to_owned();
    for name in [RESTORE_LOG, STATISTICS] {
        let file = files::make_anew(&images.join(name))?;
        sandbox.show_open(file.as_fd(), &Path::new(WORK).join(name), Access::Use)?;
    }
    sandbox.show(&images, Access::Read)?;
    // Copies of memory that were made for this one are in it.
    for directory in Parents::of(&images)?.directories().filter(|dir| !dir.starts_with(&images)) {
        sandbox.show(directory, Access::Read)?;
    }
    for (name, content) in shown.into_changed() {
        let shown = Path::new(SHOWN).join(&name);
        // CRIU reads it as the container's root, too.
        sandbox.file(&shown, &content, guest)?;
        sandbox.cover(&images.join(&name), &shown)?;
    }
    Ok(())
}

/// Our action script with its way to us, and the directory for the file with init's pid.
fn show_ours(
    sandbox: &mut Sandbox,
    request: &Request,
    control: &Path,
    pidfile: &Path,
) -> Result<()> {
    sandbox.show(&request.action_script, Access::Read)?;
    if request.user_script.is_some() {
        sandbox.link(Path::new(USER_SCRIPT), &request.action_script)?;
    }
    sandbox.show(control, Access::Use)?;
    if let Some(directory) = pidfile.parent() {
        sandbox.directory(directory)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_is_shown_with_what_was_installed_with_it() {
        for (program, prefix) in [
            ("/opt/criu/sbin/criu", "/opt/criu"),
            ("/home/me/criu/criu/criu", "/home/me/criu/criu"),
            ("/criu/criu", "/criu"),
            ("/srv/criu/bin/criu", "/srv/criu"),
        ] {
            assert_eq!(prefix_of(Path::new(program)), Path::new(prefix), "{program}");
        }
    }
}
