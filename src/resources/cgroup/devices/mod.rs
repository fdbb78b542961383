//! Which devices a container may open and make, as liblxc has it.
//!
//! cgroup2 has no file for it. liblxc makes an eBPF program of the `lxc.cgroup2.devices.*` lines
//! and puts it on the payload cgroup, where neither CRIU nor LXC's own restore looks for it. We
//! read it off there, keep it as rules, and put it on the new cgroup before the container runs
//! again.
//!
//! | file | its story |
//! |---|---|
//! | this one | rules, and what a line of the configuration or a request changes in them; pure |
//! | `program` | rules → instructions → rules, pure |
//! | `live` | what is in force on a cgroup, and how it is put there |
//! | `legacy` | the same on v1, which has files for it |

pub(crate) mod legacy;
mod live;
mod program;

use std::fmt;
use std::fs;
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::lxc::protocol::DeviceItem;

pub(crate) use live::{Attached, Program, attach, read};

/// The kind of device that a rule is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Both.
    All,
    /// Block devices.
    Block,
    /// Character devices.
    Char,
}

/// What is done with a device.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Access {
    /// `r`: opened for reading.
    pub read: bool,
    /// `w`: opened for writing.
    pub write: bool,
    /// `m`: made by mknod(2).
    pub make: bool,
}

/// Some devices and some ways to use them; written as in the configuration, `c 1:3 rwm`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Rule {
    /// Their kind.
    pub kind: Kind,
    /// Their major number, or any.
    pub major: Option<u32>,
    /// Their minor number, or any.
    pub minor: Option<u32>,
    /// How they are used.
    pub access: Access,
}

/// What a container may do.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Policy {
    /// Whether all is allowed but for the rules, or nothing is but for the rules.
    pub allow_by_default: bool,
    /// The exceptions.
    #[serde(default)]
    pub rules: Vec<Rule>,
}

/// A line of the configuration that is no rule; LXC does not start a container with it.
#[derive(Debug, thiserror::Error)]
#[error("'{0}' is not a rule for devices")]
pub struct NoRule(String);

impl Policy {
    /// What the configuration's `lxc.cgroup2.devices.*` lines make, in their order; none if LXC
    /// puts no program on the cgroup for them (cgfsng.c, `cgfsng_devices_activate`: when they name
    /// no device).
    pub fn configured(items: &[(String, String)]) -> Result<Option<Policy>, NoRule> {
        let (policy, named) = Policy::of_items(items, Policy::default())?;
        Ok(named.then_some(policy))
    }

    /// What LXC's monitor has in mind before the first request, whether it is in force or not.
    pub fn at_start(items: &[(String, String)]) -> Result<Policy, NoRule> {
        Policy::of_items(items, Policy::default()).map(|(policy, _)| policy)
    }

    /// What the `lxc.cgroup.devices.*` lines make of a new cgroup of v1, where all is allowed; none
    /// if there are none.
    pub fn configured_of_v1(items: &[(String, String)]) -> Result<Option<Policy>, NoRule> {
        let all = Policy { allow_by_default: true, rules: Vec::new() };
        let (policy, _) = Policy::of_items(items, all.clone())?;
        Ok(Some(policy).filter(|policy| *policy != all))
    }

    fn of_items(items: &[(String, String)], start: Policy) -> Result<(Policy, bool), NoRule> {
        let mut policy = start;
        let mut named = false;
        for (key, value) in items.iter().filter(|(key, _)| key.starts_with("devices")) {
            // As liblxc has it: every other word denies.
            let allow = key == "devices.allow";
            let rule = match value.strip_prefix('/') {
                Some(_) if allow => Some(of_path(value)?),
                _ if value == "a" => None,
                _ => Some(value.parse()?),
            };
            match rule {
                None => {
                    policy = Policy { allow_by_default: allow, rules: Vec::new() };
                    named = false;
                }
                Some(rule) => {
                    policy.change(rule, allow);
                    named = true;
                }
            }
        }
        Ok((policy, named))
    }

    /// What a rule changes. One that says what holds anyway counts for nothing, but for taking back
    /// its opposite (cgroup2_devices.c, `bpf_list_add_device`). Says whether anything was changed.
    fn change(&mut self, rule: Rule, allow: bool) -> bool {
        let known = self.rules.iter().position(|r| *r == rule);
        match (allow == self.allow_by_default, known) {
            (true, Some(index)) => {
                self.rules.remove(index);
                true
            }
            (false, None) => {
                self.rules.push(rule);
                true
            }
            _ => false,
        }
    }

    /// What a request of `lxc-device` or `lxc-cgroup` changes; says whether anything was changed.
    pub fn request(&mut self, item: &DeviceItem) -> bool {
        if item.kind == 'a' && item.major < 0 && item.minor < 0 && item.access.is_empty() {
            let new = Policy { allow_by_default: item.allow, rules: Vec::new() };
            return std::mem::replace(self, new.clone()) != new;
        }
        let kind = match item.kind {
            'b' => Kind::Block,
            'c' => Kind::Char,
            _ => Kind::All,
        };
        let number = |n: i32| u32::try_from(n).ok();
        let access = Access::of_letters(&item.access).unwrap_or_default();
        self.change(
            Rule { kind, major: number(item.major), minor: number(item.minor), access },
            item.allow,
        )
    }
}

impl Access {
    const ALL: Access = Access { read: true, write: true, make: true };

    fn of_letters(letters: &str) -> Option<Access> {
        let mut access = Access::default();
        for letter in letters.chars() {
            match letter {
                'r' => access.read = true,
                'w' => access.write = true,
                'm' => access.make = true,
                _ => return None,
            }
        }
        Some(access)
    }
}

impl FromStr for Rule {
    type Err = NoRule;

    /// `TYPE MAJOR:MINOR ACCESS`, as liblxc reads it (cgfsng.c, `device_cgroup_rule_parse`).
    fn from_str(text: &str) -> Result<Rule, NoRule> {
        let wrong = || NoRule(text.to_owned());
        let (kind, rest) = text.split_once(|c: char| c.is_ascii_whitespace()).ok_or_else(wrong)?;
        let (numbers, access) =
            rest.split_once(|c: char| c.is_ascii_whitespace()).ok_or_else(wrong)?;
        let (major, minor) = numbers.split_once(':').ok_or_else(wrong)?;
        let number = |text: &str| match text {
            "*" => Ok(None),
            _ if text.bytes().all(|b| b.is_ascii_digit()) => text
                .parse::<i32>()
                .ok()
                .and_then(|n| u32::try_from(n).ok())
                .map(Some)
                .ok_or_else(wrong),
            _ => Err(wrong()),
        };
        let kind = match kind {
            "a" => Kind::All,
            "b" => Kind::Block,
            "c" => Kind::Char,
            _ => return Err(wrong()),
        };
        // Three letters count, whatever follows.
        let letters: String = access.chars().take(3).collect();
        let access = Access::of_letters(&letters).ok_or_else(wrong)?;
        Ok(Rule { kind, major: number(major)?, minor: number(minor)?, access })
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self.kind {
            Kind::All => 'a',
            Kind::Block => 'b',
            Kind::Char => 'c',
        };
        let number = |n: Option<u32>| n.map_or_else(|| "*".to_owned(), |n| n.to_string());
        write!(f, "{kind} {}:{} ", number(self.major), number(self.minor))?;
        let Access { read, write, make } = self.access;
        [(read, "r"), (write, "w"), (make, "m")]
            .iter()
            .filter(|(on, _)| *on)
            .try_for_each(|(_, l)| f.write_str(l))
    }
}

impl TryFrom<String> for Rule {
    type Error = NoRule;

    fn try_from(text: String) -> Result<Rule, NoRule> {
        text.parse()
    }
}

impl From<Rule> for String {
    fn from(rule: Rule) -> String {
        rule.to_string()
    }
}

/// `/dev/NAME ACCESS`: the device that has this name on the host.
fn of_path(text: &str) -> Result<Rule, NoRule> {
    let wrong = || NoRule(text.to_owned());
    let (path, rest) = text.split_once(' ').ok_or_else(wrong)?;
    let letters = rest
        .trim_start_matches(' ')
        .split(' ')
        .next()
        .filter(|l| !l.is_empty())
        .ok_or_else(wrong)?;
    let access = Access::of_letters(letters.get(..3).unwrap_or(letters)).ok_or_else(wrong)?;
    let (kind, number) = device_at(Path::new(path)).map_err(|e| NoRule(format!("{text}: {e}")))?;
    Ok(Rule { kind, major: Some(libc::major(number)), minor: Some(libc::minor(number)), access })
}

fn device_at(path: &Path) -> io::Result<(Kind, u64)> {
    let meta = fs::metadata(path)?;
    match meta.file_type() {
        kind if kind.is_block_device() => Ok((Kind::Block, meta.rdev())),
        kind if kind.is_char_device() => Ok((Kind::Char, meta.rdev())),
        _ => Err(io::Error::other("it is not a device")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn items(lines: &[&str]) -> Vec<(String, String)> {
        lines
            .iter()
            .map(|line| line.split_once(" = ").unwrap())
            .map(|(k, v)| (format!("devices.{k}"), v.to_owned()))
            .collect()
    }

    fn rules(policy: &Policy) -> Vec<String> {
        policy.rules.iter().map(Rule::to_string).collect()
    }

    #[test]
    fn lines_count_in_their_order() {
        let made = |lines: &[&str]| Policy::configured(&items(lines)).unwrap();
        let policy =
            made(&["deny = a", "allow = c 1:3 rwm", "allow = c *:* m", "allow = b 8:* r"]).unwrap();
        assert!(!policy.allow_by_default);
        assert_eq!(rules(&policy), ["c 1:3 rwm", "c *:* m", "b 8:* r"]);

        // A denial where all is denied takes back what it names, letter by letter, and nothing
        // else.
        let policy =
            made(&["allow = c 1:3 rwm", "deny = c 1:3 rw", "allow = c 1:5 r", "deny = c 1:5 r"])
                .unwrap();
        assert_eq!(rules(&policy), ["c 1:3 rwm"]);

        let policy = made(&["allow = c 1:3 rwm", "allow = a", "deny = c 10:229 rwm"]).unwrap();
        assert!(policy.allow_by_default);
        assert_eq!(rules(&policy), ["c 10:229 rwm"]);

        // LXC puts no program on a cgroup when no device is named; nothing is denied then.
        assert_eq!(made(&["deny = a"]), None);
        assert_eq!(made(&["allow = c 1:3 rwm", "deny = a"]), None);
        assert_eq!(made(&[]), None);
        // With one that does not count, it does.
        assert_eq!(made(&["deny = c 1:3 rwm"]), Some(Policy::default()));
    }

    #[test]
    fn on_v1_lines_change_what_was_allowed() {
        let made = |lines: &[&str]| Policy::configured_of_v1(&items(lines)).unwrap();
        assert_eq!(made(&[]), None);
        assert_eq!(made(&["allow = c 1:3 rwm"]), None);
        assert_eq!(made(&["deny = a"]), Some(Policy::default()));
        let policy = made(&["deny = c 1:7 rwm"]).unwrap();
        assert!(policy.allow_by_default && rules(&policy) == ["c 1:7 rwm"]);
        let policy = made(&["deny = a", "allow = c 1:3 rwm"]).unwrap();
        assert!(!policy.allow_by_default && rules(&policy) == ["c 1:3 rwm"]);
    }

    #[test]
    fn a_path_is_the_device_that_it_names() {
        let policy = Policy::configured(&items(&["allow = /dev/null rw"])).unwrap().unwrap();
        assert_eq!(rules(&policy), ["c 1:3 rw"]);
        assert!(Policy::configured(&items(&["allow = /etc/passwd rw"])).is_err());
        assert!(Policy::configured(&items(&["deny = /dev/null rw"])).is_err());
    }

    #[test]
    fn what_liblxc_does_not_read_is_no_rule() {
        for text in [
            "",
            "x 1:3 r",
            "c 1:3",
            "c 1 r",
            "c 1:-3 r",
            "c :3 r",
            "c 1:3 x",
            "c  1:3 r",
            "c 9999999999:1 r",
        ] {
            assert!(text.parse::<Rule>().is_err(), "{text}");
        }
        let all: Rule = "a *:* rwm".parse().unwrap();
        assert_eq!(all, Rule { kind: Kind::All, major: None, minor: None, access: Access::ALL });
    }

    #[test]
    fn requests_change_what_is_allowed() {
        let mut policy = Policy::default();
        let item = |kind, major, minor, access: &str, allow| DeviceItem {
            kind,
            major,
            minor,
            access: access.to_owned(),
            allow,
        };
        assert!(policy.request(&item('c', 1, 7, "rwm", true)));
        assert!(!policy.request(&item('c', 1, 7, "rwm", true)));
        assert!(policy.request(&item('b', 8, -1, "r", true)));
        assert_eq!(rules(&policy), ["c 1:7 rwm", "b 8:* r"]);
        assert!(policy.request(&item('c', 1, 7, "rwm", false)));
        assert_eq!(rules(&policy), ["b 8:* r"]);
        assert!(policy.request(&item('a', -1, -1, "", true)));
        assert_eq!(policy, Policy { allow_by_default: true, rules: vec![] });
    }
}
