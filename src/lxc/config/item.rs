//! What liblxc answers when it is asked for a key: the `get_config_*` functions of its `confile.c`.
//!
//! `lxc-info -c KEY` asks these functions for a stopped container, the monitor's GET_CONFIG_ITEM
//! for a running one.

use std::ffi::{OsStr, OsString};

use super::Config;
use super::keys::{self, Form, SignalKind};
use super::legacy::{self, Meaning};
use super::set::{NAMESPACES, nic_index};
use super::value::IdKind;

/// What the C library prints for a string that is not there. liblxc hands it out for these keys.
const NULL: &str = "(null)";

impl Config {
    /// The value of a key as liblxc's `get_config_item` gives it; `None` where that is an error or
    /// nothing.
    ///
    /// A key in the spelling of LXC <= 2.0 is answered for the modern key. Bytes that are not UTF-8
    /// (only paths can have them) come out as U+FFFD; [`Config::item_os`] keeps them.
    pub fn item(&self, key: &str) -> Option<String> {
        self.item_os(key).map(|value| value.to_string_lossy().into_owned())
    }

    /// As [`Config::item`], byte for byte.
    pub fn item_os(&self, key: &str) -> Option<OsString> {
        let key = match legacy::meaning(key) {
            Meaning::Key(key) => key,
            Meaning::NewNic => format!("lxc.net.{}.type", self.nics.last()?.index),
            Meaning::OfLastNic(sub) => format!("lxc.net.{}.{sub}", self.nics.last()?.index),
        };
        let value = match keys::lookup(&key) {
            Some((key, form, sub)) => self.simple(key, form, sub)?,
            None => self.special(&key)?,
        };
        (!value.is_empty()).then_some(value)
    }

    fn simple(&self, key: &'static str, form: Form, sub: Option<&str>) -> Option<OsString> {
        let unset = match form {
            Form::List | Form::Words => return Some(each_line(self.list(key)).into()),
            Form::Table | Form::Map => return Some(self.table_text(key, sub).into()),
            Form::Text | Form::Short(_) | Form::Path => String::new(),
            Form::CgroupPath | Form::CgroupName => NULL.to_owned(),
            Form::Flag(at_first, _) => u8::from(at_first).to_string(),
            Form::Number | Form::Signed | Form::Size => "0".to_owned(),
            Form::Signal(at_first) => at_first.to_string(),
        };
        Some(self.scalars.get(key).cloned().unwrap_or_else(|| unset.into()))
    }

    /// All of a table as lines `KEY.sub = value`, or the values of one sub-key.
    fn table_text(&self, key: &str, sub: Option<&str>) -> String {
        let table = self.table(key);
        let Some(sub) = sub else {
            return table.iter().map(|(name, value)| format!("{key}.{name} = {value}\n")).collect();
        };
        // Only the cgroup keys end their lines; liblxc prints two values of a proc file as one
        // word.
        let end = if key.starts_with("lxc.cgroup") { "\n" } else { "" };
        table
            .iter()
            .filter(|(name, _)| name == sub)
            .map(|(_, value)| format!("{value}{end}"))
            .collect()
    }

    fn special(&self, key: &str) -> Option<OsString> {
        let text = match key {
            "lxc.rootfs.path" => return self.scalars.get("lxc.rootfs.path").cloned(),
            "lxc.mount.entry" => {
                let mut all = OsString::new();
                for item in self.mount_items() {
                    all.push(&item.value);
                    all.push("\n");
                }
                return Some(all);
            }
            "lxc.arch" => self.arch.unwrap_or_default().to_owned(),
            "lxc.autodev.tmpfs.size" => self.autodev_tmpfs_size.to_string(),
            "lxc.cap.drop" if !self.caps_keep => each_line(&self.caps),
            "lxc.cap.keep" if self.caps_keep => each_line(&self.caps),
            "lxc.idmap" => self
                .idmap
                .iter()
                .map(|m| {
                    let kind = match m.kind {
                        IdKind::Uid => 'u',
                        IdKind::Gid => 'g',
                    };
                    format!("{kind} {} {} {}", m.inside, m.host, m.count)
                })
                .collect::<Vec<_>>()
                .join("\n"),
            "lxc.init.groups" => {
                // Printed with %d, so the highest ids come out negative.
                self.init_groups
                    .iter()
                    .map(|gid| gid.cast_signed().to_string())
                    .collect::<Vec<_>>()
                    .join(",")
            }
            "lxc.log.level" => self.log_level.to_owned(),
            "lxc.mount.auto" => self.auto.print(),
            "lxc.namespace.clone" => namespaces(&self.ns_clone),
            "lxc.namespace.keep" => namespaces(&self.ns_keep),
            "lxc.net" => self.nics.iter().map(|nic| format!("{}\n", nic.listed_kind())).collect(),
            "lxc.seccomp.notify.proxy" => self.seccomp_proxy.clone().unwrap_or_default(),
            "lxc.time.offset.boot" => self.time_boot.print(),
            "lxc.time.offset.monotonic" => self.time_monotonic.print(),
            _ => {
                if let Some(ns) = key.strip_prefix("lxc.namespace.share.") {
                    let known = NAMESPACES.contains(&ns);
                    return known
                        .then(|| self.ns_share.get(ns).map_or(NULL, String::as_str).into());
                }
                let (index, sub) = key.strip_prefix("lxc.net.")?.split_once('.')?;
                let index = nic_index(index)?;
                self.nics.iter().find(|nic| nic.index == index)?.get(sub)?
            }
        };
        Some(text.into())
    }

    /// The number of a signal; `None` where LXC's own default holds.
    pub fn signal(&self, kind: SignalKind) -> Option<i32> {
        self.text(kind.key())?.parse().ok().filter(|n| *n != 0)
    }

    pub(super) fn text(&self, key: &str) -> Option<&str> {
        self.scalars.get(key).map(OsString::as_os_str).and_then(OsStr::to_str)
    }
}

fn each_line(values: &[String]) -> String {
    values.iter().map(|value| format!("{value}\n")).collect()
}

fn namespaces(flags: &[bool]) -> String {
    NAMESPACES
        .iter()
        .zip(flags)
        .filter(|(_, on)| **on)
        .map(|(name, _)| format!("{name}\n"))
        .collect()
}
