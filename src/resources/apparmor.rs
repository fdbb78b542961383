//! AppArmor: the profile that LXC makes up for each container, `lxc.apparmor.profile = generated`,
//! as Debian and Ubuntu have it in /etc/lxc/default.conf.
//!
//! LXC writes the profile below the container's directory when it starts, has `apparmor_parser`
//! load it, makes a policy namespace beneath it for profiles of the container's own, and takes all
//! of that away when the container has ended (lxc/lsm/apparmor.c). CRIU saves only the label that
//! names it; and where the kernel does not know that name, it notices when the tasks are about to
//! run, and hangs. So the record keeps the profile, and it is loaded again for the restored
//! container.

use std::fs;
use std::io::{self, Read, Write};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};

use crate::sys::path_trust::{self, Guest};
use crate::sys::{child, files};

/// The kernel's own files of AppArmor (security/apparmor/apparmorfs.c).
const SECURITYFS: &str = "/sys/kernel/security/apparmor";
/// Where policy namespaces are made, and go, as directories.
const NAMESPACES: &str = "policy/namespaces";
/// Takes the name of a profile that is to go.
const REMOVE: &str = ".remove";
/// Lists the profiles that are loaded: `NAME (MODE)`.
const PROFILES: &str = "profiles";
/// LXC's directory for the profile, in that of the container.
const DIRECTORY: &str = "apparmor";
/// LXC's is 60 KiB; more than this is none of its.
const MAX_SIZE: u64 = 1 << 20;
/// Where `apparmor_parser` may be; nobody's PATH is trusted.
const PARSERS: [&str; 3] =
    ["/usr/sbin/apparmor_parser", "/sbin/apparmor_parser", "/usr/bin/apparmor_parser"];
/// How long it may compile a profile. It takes a second or two.
const LIMIT: Duration = Duration::from_secs(60);
/// What stands between profiles that confine a task together (a stack), and before a namespace.
const STACKED: &str = "//&";

/// A label, as `/proc/PID/attr/current` and CRIU's images have it: `PROFILE`, or a stack,
/// `PROFILE//&:NAMESPACE:PROFILE`; the mode may follow in parentheses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Label<'a> {
    /// The profile on the host.
    pub profile: &'a str,
    /// The policy namespace in which others confine the task, too.
    pub namespace: Option<&'a str>,
}

impl<'a> Label<'a> {
    /// Takes a label apart. None is what is not confined, or not by AppArmor.
    pub fn parse(text: &'a str) -> Option<Label<'a>> {
        let text = text.trim_end_matches(['\n', '\0']);
        let text = text.rsplit_once(" (").map_or(text, |(label, _mode)| label);
        let (profile, rest) = text.split_once(STACKED).unwrap_or((text, ""));
        let namespace =
            rest.strip_prefix(':').and_then(|rest| rest.split_once(':')).map(|(name, _)| name);
        // A colon at the beginning would be a namespace without a profile beside it; SELinux has
        // them within.
        let confined = !profile.is_empty() && profile != "unconfined" && !profile.starts_with(':');
        confined.then_some(Label { profile, namespace })
    }
}

/// A profile that LXC has made up for one container.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Profile {
    /// Its name: `lxc-NAME_<LXCPATH>`.
    pub name: String,
    /// The policy namespace beneath it, where the kernel has such.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// What `apparmor_parser` reads.
    pub text: String,
}

impl Profile {
    /// The profile of a running container, by its init's label and the container's directory, which
    /// may be `guest`'s. None where it is confined by one that the host has anyway.
    pub fn of_running(
        label: Label<'_>,
        dir: &Path,
        guest: Option<Guest>,
    ) -> Result<Option<Profile>> {
        let path = file(dir, label.profile);
        let Some(file) = path_trust::open_own(guest, &path)? else { return Ok(None) };
        let mut text = String::new();
        file.take(MAX_SIZE)
            .read_to_string(&mut text)
            .with_context(|| format!("read {}", path.display()))?;
        Ok(Some(Profile {
            name: label.profile.to_owned(),
            namespace: label.namespace.map(str::to_owned),
            // LXC ends it with the NUL of its string.
            text: text.trim_end_matches('\0').to_owned(),
        }))
    }

    /// The same for a container of another name or place.
    pub fn renamed(&self, container: &str, lxcpath: &Path) -> Profile {
        let name = format!("lxc-{container}_<{}>", lxcpath.display());
        let namespace = self.namespace.as_ref().map(|_| with_hyphens(&name));
        let mut text = self.text.replace(&self.name, &name);
        if let (Some(old), Some(new)) = (&self.namespace, &namespace) {
            text = text.replace(old, new);
        }
        Profile { name, namespace, text }
    }

    /// A label of the old profile's, as it is with this one.
    pub fn relabelled(&self, old: &Profile, label: &str) -> String {
        let label = label.replace(&old.name, &self.name);
        match (&old.namespace, &self.namespace) {
            (Some(old), Some(new)) => label.replace(old, new),
            _ => label,
        }
    }

    /// What in a record that was made by hand would have another profile replaced, or a directory
    /// elsewhere removed.
    pub fn out_of_place(&self) -> Option<String> {
        let is_plain = |name: &str| !name.contains(['/', '\0']) && name != "." && name != "..";
        if !is_a_name_of_lxcs(&self.name)
            || !self.text.contains(&format!("profile \"{}\"", self.name))
        {
            return Some(format!("'{}' is not a profile that LXC makes", self.name));
        }
        let strange =
            self.namespace.as_deref().filter(|name| !is_a_name_of_lxcs(name) || !is_plain(name));
        strange.map(|name| format!("'{name}' is not a policy namespace that LXC makes"))
    }

    /// Puts it where LXC has it, and has it loaded. To be undone by [`unload`].
    pub fn load(&self, dir: &Path) -> Result<()> {
        if let Some(namespace) = &self.namespace {
            let path = namespace_path(namespace);
            match fs::create_dir(&path) {
                Err(e) if e.kind() != io::ErrorKind::AlreadyExists => {
                    return Err(e)
                        .with_context(|| format!("make the policy namespace {}", path.display()));
                }
                _ => {}
            }
        }
        let path = file(dir, &self.name);
        let above = dir.join(DIRECTORY);
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o755)
            .create(&above)
            .context("make LXC's directory for it")?;
        // The container's directory may be its own root's, who could have put a link there.
        files::open_private_dir(&above)?;
        files::write_atomically(&path, self.text.as_bytes())?;
        run_parser(&path)
    }
}

/// A name that would be too long for a file is a number of 64 bits instead
/// (`shorten_apparmor_name`).
fn is_a_name_of_lxcs(name: &str) -> bool {
    name.starts_with("lxc-") || (name.len() == 16 && name.bytes().all(|b| b.is_ascii_hexdigit()))
}

/// Has a profile compiled and given to the kernel; one of that name is replaced.
fn run_parser(path: &Path) -> Result<()> {
    let Some(parser) = PARSERS.into_iter().find(|path| Path::new(path).exists()) else {
        bail!("apparmor_parser is not installed (Debian: apt install apparmor)");
    };
    let mut command = Command::new(parser);
    command.env_clear().args(["--replace", "--skip-cache"]).arg(path);
    command.stdin(Stdio::null());
    let told = child::run(&mut command, LIMIT).with_context(|| format!("run {parser}"))?;
    match told.status.success() {
        true => Ok(()),
        false => bail!("apparmor_parser: {}: {}", told.status, told.stderr.trim()),
    }
}

/// Takes a profile away again, with its namespace and its file; no task has it any more. Says
/// whether it was there.
pub(crate) fn unload(dir: &Path, name: &str, namespace: Option<&str>) -> Result<bool> {
    if let Some(namespace) = namespace {
        gone(fs::remove_dir(namespace_path(namespace)), "remove the container's policy namespace")?;
    }
    let remove = Path::new(SECURITYFS).join(REMOVE);
    let asked = fs::OpenOptions::new()
        .write(true)
        .open(remove)
        .and_then(|mut file| file.write_all(name.as_bytes()));
    let was_there = gone(asked, "remove the container's profile")?;
    let above = dir.join(DIRECTORY);
    if fs::symlink_metadata(&above).is_ok() {
        files::open_private_dir(&above)?;
        files::remove_if_there(&file(dir, name))?;
        gone(fs::remove_dir(&above), "remove LXC's directory for it")?;
    }
    Ok(was_there)
}

/// Whether something was removed; that it is not there is no failure.
fn gone(removed: io::Result<()>, what: &'static str) -> Result<bool> {
    match removed {
        Ok(()) => Ok(true),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(e) => Err(e).context(what),
    }
}

/// The profiles that the kernel has; none where it is not AppArmor's, or does not tell.
pub(crate) fn loaded() -> Option<Vec<String>> {
    let text = fs::read_to_string(Path::new(SECURITYFS).join(PROFILES)).ok()?;
    Some(
        text.lines()
            .map(|line| line.rsplit_once(" (").map_or(line, |(name, _mode)| name).to_owned())
            .collect(),
    )
}

/// Where LXC writes a container's profile: slashes in its name are hyphens in the file's.
/// Whether a process is confined by a profile of this name.
pub(crate) fn is_in_use(name: &str) -> bool {
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    let labels = processes
        .filter_map(|process| fs::read_to_string(process.path().join("attr/current")).ok());
    labels.into_iter().any(|label| Label::parse(&label).is_some_and(|label| label.profile == name))
}

fn file(dir: &Path, name: &str) -> PathBuf {
    dir.join(DIRECTORY).join(with_hyphens(name))
}

fn with_hyphens(name: &str) -> String {
    name.replace('/', "-")
}

fn namespace_path(namespace: &str) -> PathBuf {
    Path::new(SECURITYFS).join(NAMESPACES).join(namespace)
}

#[cfg(test)]
mod tests {
    use super::*;

    const STACK: &str = "lxc-web_</var/lib/lxc>//&:lxc-web_<-var-lib-lxc>:unconfined";

    fn profile() -> Profile {
        Profile {
            name: "lxc-web_</var/lib/lxc>".into(),
            namespace: Some("lxc-web_<-var-lib-lxc>".into()),
            text: "profile \"lxc-web_</var/lib/lxc>\" \
                   {\n  change_profile -> \":lxc-web_<-var-lib-lxc>:*\",\n}\n"
                .into(),
        }
    }

    #[test]
    fn labels_are_taken_apart() {
        let label = |text| Label::parse(text).map(|l| (l.profile, l.namespace));
        assert_eq!(label("unconfined\n"), None);
        assert_eq!(label(""), None);
        assert_eq!(
            label("lxc-container-default-cgns (enforce)\n"),
            Some(("lxc-container-default-cgns", None))
        );
        let stacked = Some(("lxc-web_</var/lib/lxc>", Some("lxc-web_<-var-lib-lxc>")));
        assert_eq!(label(STACK), stacked);
        assert_eq!(label(&format!("{STACK} (enforce)\n")), stacked);
    }

    #[test]
    fn the_profile_of_a_running_container_is_found_where_lxc_has_written_it() {
        let dir = tempfile::tempdir().unwrap();
        let label = Label::parse(STACK).unwrap();
        assert_eq!(Profile::of_running(label, dir.path(), None).unwrap(), None);
        fs::create_dir(dir.path().join("apparmor")).unwrap();
        let written = format!("{}\0", profile().text);
        fs::write(dir.path().join("apparmor/lxc-web_<-var-lib-lxc>"), written).unwrap();
        assert_eq!(Profile::of_running(label, dir.path(), None).unwrap(), Some(profile()));
    }

    #[test]
    fn a_link_in_the_place_of_its_directory_is_not_followed() {
        let (dir, elsewhere) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        std::os::unix::fs::symlink(elsewhere.path(), dir.path().join(DIRECTORY)).unwrap();
        let of_somebody = elsewhere.path().join("lxc-web_<-var-lib-lxc>");
        fs::write(&of_somebody, "kept").unwrap();
        assert!(Profile { namespace: None, ..profile() }.load(dir.path()).is_err());
        assert!(unload(dir.path(), &profile().name, None).is_err());
        assert_eq!(fs::read_to_string(&of_somebody).unwrap(), "kept");
    }

    #[test]
    fn a_copy_has_one_of_its_own() {
        let copy = profile().renamed("web2", Path::new("/srv/lxc"));
        assert_eq!(copy.name, "lxc-web2_</srv/lxc>");
        assert_eq!(
            copy.text,
            "profile \"lxc-web2_</srv/lxc>\" \
             {\n  change_profile -> \":lxc-web2_<-srv-lxc>:*\",\n}\n"
        );
        let label = copy.relabelled(&profile(), STACK);
        assert_eq!(label, "lxc-web2_</srv/lxc>//&:lxc-web2_<-srv-lxc>:unconfined");
    }

    #[test]
    fn a_profile_made_by_hand_is_seen() {
        assert_eq!(profile().out_of_place(), None);
        let long =
            Profile { name: "00ab".repeat(4), namespace: Some("00ab".repeat(4)), ..profile() };
        let long = Profile { text: format!("profile \"{}\" {{}}\n", long.name), ..long };
        assert_eq!(long.out_of_place(), None);
        let other = |change: fn(&mut Profile)| {
            let mut changed = profile();
            change(&mut changed);
            changed.out_of_place().is_some()
        };
        assert!(other(|p| p.name = "/usr/sbin/sshd".into()));
        assert!(other(|p| p.name = "lxc-other".into()));
        assert!(other(|p| p.namespace = Some("../../x".into())));
        assert!(other(|p| p.namespace = Some("snap".into())));
    }
}
