//! What each line does to the configuration: the `set_config_*` functions of liblxc's `confile.c`,
//! as one match.

use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt;

use super::Config;
use super::error::ParseError;
use super::keys::{self, Form};
use super::legacy::{self, Meaning};
use super::net::{self, Nic};
use super::parse::{Item, printable};
use super::value::{self, TimeOffset};

/// The names of the namespaces in the order in which liblxc prints them.
pub(super) const NAMESPACES: [&str; 8] =
    ["user", "mnt", "pid", "uts", "ipc", "net", "cgroup", "time"];

/// The longest path, with its NUL.
const PATH_MAX: usize = 4096;

/// What liblxc takes for the size of `/dev` if the value is empty or no number.
const AUTODEV_TMPFS_SIZE: i32 = 500_000;

impl Config {
    /// Takes in one item; it is kept in any case where it is no error.
    pub(super) fn set(&mut self, mut item: Item) -> Result<(), ParseError> {
        item.key = self.modern_key(&item)?;
        self.apply(&item)?;
        self.items.push(item);
        Ok(())
    }

    /// The key of LXC >= 2.1 for an item. `lxc.network.type` opens an interface on the way.
    fn modern_key(&mut self, item: &Item) -> Result<String, ParseError> {
        Ok(match legacy::meaning(&item.written) {
            Meaning::Key(key) => key,
            // As in liblxc 2.0, an empty type forgets all interfaces.
            Meaning::NewNic if item.value.is_empty() => "lxc.net".to_owned(),
            Meaning::NewNic => {
                let index = self.nics.last().map_or(0, |nic| nic.index.saturating_add(1));
                self.nic_mut(index);
                format!("lxc.net.{index}.type")
            }
            Meaning::OfLastNic(sub) if !net::is_key(&sub) => item.written.clone(),
            Meaning::OfLastNic(sub) => match self.nics.last() {
                Some(nic) => format!("lxc.net.{}.{sub}", nic.index),
                None => return Err(item.wrong("there is no 'lxc.network.type' before it")),
            },
        })
    }

    fn apply(&mut self, item: &Item) -> Result<(), ParseError> {
        let wrong = |message: String| item.wrong(message);
        // Values that may be any bytes first; all others are text.
        match item.key.as_str() {
            "lxc.rootfs.path" => return self.set_rootfs(item),
            "lxc.mount.fstab" if item.value.is_empty() => {
                return Err(item.wrong("a path is needed"));
            }
            "lxc.mount.entry" if item.value.is_empty() => {
                self.mounts.clear();
                return Ok(());
            }
            "lxc.mount.entry" => {
                self.mounts.push(self.items.len());
                return Ok(());
            }
            _ => {}
        }
        if item.key == "lxc.rootfs.options" {
            root_options(item)?;
        }
        if let Some((key, form, sub)) = keys::lookup(&item.key) {
            return self.set_simple(item, key, form, sub);
        }
        match item.key.as_str() {
            "lxc.arch" => self.arch = personality(text(item)?),
            "lxc.autodev.tmpfs.size" => {
                self.autodev_tmpfs_size =
                    value::signed32(text(item)?).unwrap_or(AUTODEV_TMPFS_SIZE);
            }
            "lxc.cap.drop" => self.set_caps(item, false)?,
            "lxc.cap.keep" => self.set_caps(item, true)?,
            "lxc.hook" if item.value.is_empty() => {
                self.lists.retain(|key, _| !key.starts_with("lxc.hook."))
            }
            "lxc.hook" => {
                return Err(
                    item.wrong("only an empty value is taken here, which forgets all hooks")
                );
            }
            "lxc.idmap" if item.value.is_empty() => self.idmap.clear(),
            "lxc.idmap" => {
                let map = value::id_map(text(item)?);
                self.idmap.push(
                    map.ok_or_else(|| item.wrong("'u' or 'g' and three numbers are needed"))?,
                );
            }
            "lxc.init.groups" => self.set_groups(item)?,
            "lxc.log.level" if item.value.is_empty() => self.log_level = "NOTSET",
            "lxc.log.level" => {
                self.log_level =
                    log_level(text(item)?).ok_or_else(|| not(item, "a level of the log"))?;
            }
            "lxc.mount.auto" => self.auto.set(text(item)?).map_err(wrong)?,
            "lxc.namespace.clone" => self.set_namespaces(item, false)?,
            "lxc.namespace.keep" => self.set_namespaces(item, true)?,
            "lxc.net" if item.value.is_empty() => self.nics.clear(),
            "lxc.net" => {
                return Err(
                    item.wrong("only an empty value is taken here, which forgets all interfaces")
                );
            }
            "lxc.rootfs.backend" => self.rootfs_type = some_text(text(item)?),
            "lxc.seccomp.notify.proxy" => self.set_proxy(item)?,
            "lxc.time.offset.boot" => self.time_boot.set(item)?,
            "lxc.time.offset.monotonic" => self.time_monotonic.set(item)?,
            key => {
                if let Some(rest) = key.strip_prefix("lxc.net.") {
                    self.set_nic(item, rest)?;
                } else if let Some(ns) = key.strip_prefix("lxc.namespace.share.") {
                    self.set_share(item, ns)?;
                }
                // Anything else belongs to a newer LXC, or to nobody.
            }
        }
        Ok(())
    }

    fn set_simple(
        &mut self,
        item: &Item,
        key: &'static str,
        form: Form,
        sub: Option<&str>,
    ) -> Result<(), ParseError> {
        let empty = item.value.is_empty();
        match form {
            Form::Table | Form::Map => return self.set_table(item, key, form, sub),
            Form::List | Form::Words if empty => {
                self.lists.remove(key);
                return Ok(());
            }
            Form::List => {
                let value = text(item)?.to_owned();
                self.lists.entry(key).or_default().push(value);
                return Ok(());
            }
            Form::Words => {
                let words =
                    text(item)?.split([' ', '\t']).filter(|w| !w.is_empty()).map(str::to_owned);
                self.lists.entry(key).or_default().extend(words);
                return Ok(());
            }
            _ => {}
        }
        let printed: Option<OsString> = match form {
            Form::Flag(_, on_empty) if empty => Some(u8::from(on_empty).to_string().into()),
            // Not absent but 0: for the signal that init gets when its monitor dies the two differ.
            Form::Signal(_) if empty => Some("0".into()),
            _ if empty => None,
            Form::Path => Some(path(item)?),
            Form::CgroupPath | Form::CgroupName => Some(cgroup_path(item, form)?),
            Form::Short(limit) if item.value.len() >= limit => {
                return Err(item.wrong(format!("longer than {} bytes", limit - 1)));
            }
            Form::Flag(..) => Some(match value::unsigned32(text(item)?) {
                Some(n @ (0 | 1)) => n.to_string().into(),
                _ => return Err(not(item, "0 or 1")),
            }),
            Form::Number => Some(number(item, value::unsigned32(text(item)?), "a number")?),
            Form::Signed => Some(number(item, value::signed32(text(item)?), "a number")?),
            Form::Signal(_) => Some(number(item, value::signal(text(item)?), "a signal")?),
            Form::Size => Some(number(item, value::console_size(text(item)?), "a size")?),
            Form::Text | Form::Short(_) | Form::List | Form::Words | Form::Table | Form::Map => {
                Some(text(item)?.into())
            }
        };
        match printed {
            Some(printed) => self.scalars.insert(key, printed),
            None => self.scalars.remove(key),
        };
        Ok(())
    }

    fn set_table(
        &mut self,
        item: &Item,
        key: &'static str,
        form: Form,
        sub: Option<&str>,
    ) -> Result<(), ParseError> {
        let table = self.tables.entry(key).or_default();
        match sub {
            None if item.value.is_empty() => table.clear(),
            None | Some("") => {
                return Err(item.wrong("a '.' and a name are missing behind the key"));
            }
            Some(sub) if item.value.is_empty() => table.retain(|(name, _)| name != sub),
            Some(sub) => {
                let mut value = text(item)?.to_owned();
                if key == "lxc.prlimit" {
                    value = value::limit(&value).ok_or_else(|| not(item, "a limit 'SOFT:HARD'"))?;
                }
                match table.iter_mut().find(|(name, _)| form == Form::Map && name == sub) {
                    Some((_, old)) => *old = value,
                    None => table.push((sub.to_owned(), value)),
                }
            }
        }
        Ok(())
    }

    /// `[TYPE:]PATH`. In the old spelling a path may hold a `:`; in the new one the first `:` ends
    /// the type.
    fn set_rootfs(&mut self, item: &Item) -> Result<(), ParseError> {
        let value = item.value.as_bytes();
        let legacy_path = item.written == "lxc.rootfs" && value.starts_with(b"/");
        let colon = value.iter().position(|b| *b == b':').filter(|_| !legacy_path);
        let bare = match colon {
            Some(at) => {
                self.rootfs_type =
                    Some(String::from_utf8_lossy(value.get(..at).unwrap_or_default()).into_owned());
                value.get(at + 1..).unwrap_or_default()
            }
            None => value,
        };
        let path = value::simplified_path(bare);
        if path.len() >= PATH_MAX {
            return Err(item.wrong("the path is too long"));
        }
        if path.is_empty() {
            self.scalars.remove("lxc.rootfs.path");
        } else {
            self.scalars.insert("lxc.rootfs.path", path);
        }
        Ok(())
    }

    /// The names are not checked: which capabilities there are is the kernel's business.
    fn set_caps(&mut self, item: &Item, keep: bool) -> Result<(), ParseError> {
        if item.value.is_empty() {
            self.caps.clear();
            self.caps_keep = false;
            return Ok(());
        }
        if self.caps_keep != keep && (self.caps_keep || !self.caps.is_empty()) {
            return Err(item.wrong("'lxc.cap.drop' and 'lxc.cap.keep' exclude each other"));
        }
        for name in text(item)?.split([' ', '\t']).filter(|w| !w.is_empty()) {
            match (name, keep) {
                ("none", true) => self.caps.clear(),
                ("none", false) => return Err(item.wrong("'none' can only be kept")),
                _ => self.caps.push(name.to_owned()),
            }
        }
        self.caps_keep = keep;
        Ok(())
    }

    fn set_groups(&mut self, item: &Item) -> Result<(), ParseError> {
        let value = text(item)?;
        if value.is_empty() {
            self.init_groups.clear();
        } else if value.bytes().all(|b| b == b',') {
            return Err(not(item, "a list of group ids"));
        }
        for word in value.split(',').filter(|w| !w.is_empty()) {
            self.init_groups
                .push(value::unsigned32(word).ok_or_else(|| not(item, "a list of group ids"))?);
        }
        Ok(())
    }

    fn set_namespaces(&mut self, item: &Item, keep: bool) -> Result<(), ParseError> {
        if item.value.is_empty() {
            *if keep { &mut self.ns_keep } else { &mut self.ns_clone } = [false; NAMESPACES.len()];
            return Ok(());
        }
        let (mine, other) = if keep {
            (&mut self.ns_keep, &self.ns_clone)
        } else {
            (&mut self.ns_clone, &self.ns_keep)
        };
        if other.contains(&true) {
            return Err(
                item.wrong("'lxc.namespace.clone' and 'lxc.namespace.keep' exclude each other")
            );
        }
        for word in text(item)?.split([' ', '\t']).filter(|w| !w.is_empty()) {
            let at = NAMESPACES.iter().position(|ns| ns.eq_ignore_ascii_case(word));
            match at.and_then(|at| mine.get_mut(at)) {
                Some(flag) => *flag = true,
                None => return Err(not(item, "a list of namespaces")),
            }
        }
        Ok(())
    }

    fn set_share(&mut self, item: &Item, ns: &str) -> Result<(), ParseError> {
        let Some(name) = NAMESPACES.iter().find(|name| **name == ns) else {
            return Ok(());
        };
        match some_text(text(item)?) {
            Some(value) => self.ns_share.insert(name, value),
            None => self.ns_share.remove(name),
        };
        Ok(())
    }

    fn set_proxy(&mut self, item: &Item) -> Result<(), ParseError> {
        let value = text(item)?;
        self.seccomp_proxy = match value.strip_prefix("unix:") {
            Some(path) => Some(path.to_owned()),
            None if value.is_empty() => None,
            None => return Err(not(item, "an address 'unix:PATH'")),
        };
        Ok(())
    }

    /// `rest` is what follows `lxc.net.`: `N` or `N.KEY`.
    fn set_nic(&mut self, item: &Item, rest: &str) -> Result<(), ParseError> {
        let (index, sub) =
            rest.split_once('.').map_or((rest, None), |(index, sub)| (index, Some(sub)));
        let Some(index) = nic_index(index) else {
            return Ok(());
        };
        match sub {
            None if item.value.is_empty() => self.nics.retain(|nic| nic.index != index),
            None => {
                return Err(
                    item.wrong("only an empty value is taken here, which forgets the interface")
                );
            }
            Some(sub) if !net::is_key(sub) => {}
            Some(sub) if item.value.is_empty() => {
                if let Some(nic) = self.nics.iter_mut().find(|nic| nic.index == index) {
                    nic.set(sub, "").map_err(|e| item.wrong(e))?;
                }
            }
            Some(sub) => {
                let value = text(item)?;
                self.nic_mut(index).set(sub, value).map_err(|e| item.wrong(e))?;
            }
        }
        Ok(())
    }

    /// The interface with this index, made in its place among the others if it isn't there.
    fn nic_mut(&mut self, index: u32) -> &mut Nic {
        let at = self.nics.partition_point(|nic| nic.index < index);
        if self.nics.get(at).is_none_or(|nic| nic.index != index) {
            self.nics.insert(at, Nic::new(index));
        }
        &mut self.nics[at]
    }
}

/// The N of `lxc.net.N`.
pub(super) fn nic_index(text: &str) -> Option<u32> {
    text.bytes()
        .all(|b| b.is_ascii_digit())
        .then(|| text.parse().ok())?
        .filter(|n| *n < i32::MAX as u32)
}

/// A time offset as liblxc keeps it: seconds and nanoseconds apart, the last of each.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Offset {
    seconds: i64,
    nanoseconds: i64,
}

impl Offset {
    fn set(&mut self, item: &Item) -> Result<(), ParseError> {
        let value = text(item)?;
        if value.is_empty() {
            *self = Offset::default();
            return Ok(());
        }
        match value::time_offset(value) {
            Some(TimeOffset::Seconds(n)) => self.seconds = n,
            Some(TimeOffset::Nanoseconds(n)) => self.nanoseconds = n,
            None => return Err(not(item, "a time with a unit")),
        }
        Ok(())
    }

    pub(super) fn print(self) -> String {
        match self {
            Offset { seconds: 0, nanoseconds } => format!("{nanoseconds}ns"),
            Offset { seconds, .. } => format!("{seconds}s"),
        }
    }
}

fn text(item: &Item) -> Result<&str, ParseError> {
    item.value.to_str().ok_or_else(|| item.wrong("the value is not UTF-8"))
}

fn some_text(text: &str) -> Option<String> {
    (!text.is_empty()).then(|| text.to_owned())
}

fn not(item: &Item, what: &str) -> ParseError {
    item.wrong(format!("'{}' is not {what}", printable(&item.value)))
}

fn number(item: &Item, number: Option<impl ToString>, what: &str) -> Result<OsString, ParseError> {
    number.map(|n| n.to_string().into()).ok_or_else(|| not(item, what))
}

fn path(item: &Item) -> Result<OsString, ParseError> {
    let path = value::simplified_path(item.value.as_bytes());
    if path.len() >= PATH_MAX {
        return Err(item.wrong("the path is too long"));
    }
    Ok(path)
}

/// The options that LXC has for the mounts inside mean nothing for the root.
fn root_options(item: &Item) -> Result<(), ParseError> {
    let option = text(item)?
        .split(',')
        .find(|o| matches!(*o, "create=dir" | "create=file" | "optional" | "relative"));
    option.map_or(Ok(()), |option| {
        Err(item.wrong(format!("'{option}' is not an option for the root file system")))
    })
}

fn cgroup_path(item: &Item, form: Form) -> Result<OsString, ParseError> {
    let value = text(item)?;
    if value.starts_with('/') {
        return Err(item.wrong("the path must not be absolute"));
    }
    if form == Form::CgroupName {
        return match value {
            "." | ".." => Err(not(item, "the name of a cgroup")),
            _ if value.contains('/') => Err(not(item, "the name of a single cgroup")),
            _ => Ok(value.into()),
        };
    }
    if value.contains("..") {
        return Err(item.wrong("the path must not contain '..'"));
    }
    path(item)
}

/// What liblxc prints for an architecture. It refuses names that it doesn't know; we have no use
/// for the value.
fn personality(arch: &str) -> Option<&'static str> {
    match arch {
        "arm" | "armel" | "armhf" | "armv7l" | "athlon" | "i386" | "i486" | "i586" | "i686"
        | "linux32" | "mips" | "mipsel" | "ppc" | "powerpc" | "x32" | "x86" => Some("i686"),
        "aarch64" | "amd64" | "arm64" | "linux64" | "loongarch64" | "loong64" | "mips64"
        | "mips64el" | "ppc64" | "ppc64el" | "ppc64le" | "powerpc64" | "riscv64" | "s390x"
        | "x86_64" => Some("x86_64"),
        _ => None,
    }
}

fn log_level(value: &str) -> Option<&'static str> {
    const LEVELS: [&str; 9] =
        ["TRACE", "DEBUG", "INFO", "NOTICE", "WARN", "ERROR", "CRIT", "ALERT", "FATAL"];
    let by_number = value::unsigned32(value).and_then(|n| LEVELS.get(usize::try_from(n).ok()?));
    let by_name = || LEVELS.iter().find(|level| level.eq_ignore_ascii_case(value));
    by_number.or_else(by_name).copied()
}
