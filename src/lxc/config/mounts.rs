//! The mounts: `lxc.mount.entry` and the fstab of `lxc.mount.fstab`, in the form of fstab(5), and
//! `lxc.mount.auto`.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::error::{ConfigError, ParseError, Position};
use super::load;
use super::parse::{Item, printable};
use crate::sys::path_trust::Guest;

/// A mount that LXC makes when the container starts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MountEntry {
    /// What is mounted: a path on the host, or a name for a file system without a device.
    pub source: PathBuf,
    /// Where, as written: relative to the container's root, or absolute and perhaps below its mount
    /// point.
    pub target: PathBuf,
    /// The type of the file system; `none` with a bind mount.
    pub fstype: String,
    /// The options in order, LXC's own (`create=dir`, `optional`, `relative`) among them.
    pub options: Vec<String>,
    /// The fifth field, for dump(8).
    pub freq: i32,
    /// The sixth field, for fsck(8).
    pub pass: i32,
    /// Where the line stands.
    pub at: Position,
}

impl MountEntry {
    /// Whether an option is among them, alone or as `NAME=…`.
    pub fn has_option(&self, name: &str) -> bool {
        self.options.iter().any(|o| {
            o.strip_prefix(name).is_some_and(|rest| rest.is_empty() || rest.starts_with('='))
        })
    }

    /// Whether this is a bind mount.
    pub fn is_bind(&self) -> bool {
        self.has_option("bind") || self.has_option("rbind")
    }
}

/// How one of the automatic mounts is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AutoMode {
    /// Read-only.
    Ro,
    /// Read-write.
    Rw,
    /// Read-only but for what a container needs.
    Mixed,
    /// As the container's capabilities suggest.
    Unspecified,
}

/// The automatic mount of the cgroup tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AutoCgroup {
    /// `cgroup2:…`: the unified tree only.
    pub unified: bool,
    /// `cgroup-full:…`: the whole tree, not only the container's part.
    pub full: bool,
    /// How.
    pub mode: AutoMode,
    /// Also where a cgroup namespace would make it needless.
    pub force: bool,
}

/// `lxc.mount.auto`, all lines together.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MountAuto {
    /// `/proc`.
    pub proc: Option<AutoMode>,
    /// `/sys`.
    pub sys: Option<AutoMode>,
    /// `/sys/fs/cgroup`.
    pub cgroup: Option<AutoCgroup>,
    /// The directory on the host for mounts into the running container, and its place inside.
    pub shmounts: Option<(PathBuf, PathBuf)>,
}

impl MountAuto {
    /// Adds the words of one line; an empty line clears, though not the directories of `shmounts:`.
    pub(super) fn set(&mut self, value: &str) -> Result<(), String> {
        if value.is_empty() {
            *self = MountAuto::default();
        }
        for word in value.split([' ', '\t']).filter(|w| !w.is_empty()) {
            self.add(word)
                .ok_or_else(|| format!("'{}' is not an automatic mount", printable(word)))?;
        }
        Ok(())
    }

    fn add(&mut self, word: &str) -> Option<()> {
        if let Some(paths) = word.strip_prefix("shmounts:") {
            if paths.is_empty() {
                // Taken by liblxc, and then there is nothing that it could mount.
                return Some(());
            }
            let (host, inside) = match paths.split_once(':') {
                Some((host, inside)) if !inside.is_empty() => (host, inside),
                // liblxc leaves the lone colon in the path of the host.
                _ => (paths, "/dev/.lxc-mounts"),
            };
            if host.is_empty() {
                return None;
            }
            self.shmounts = Some((host.into(), inside.into()));
            return Some(());
        }
        if word.ends_with(':') {
            return None;
        }
        let (what, how) = word.split_once(':').unwrap_or((word, ""));
        match (what, how) {
            ("proc", "" | "mixed") => self.proc = Some(AutoMode::Mixed),
            ("proc", "rw") => self.proc = Some(AutoMode::Rw),
            ("sys", "" | "mixed") => self.sys = Some(AutoMode::Mixed),
            ("sys", "ro") => self.sys = Some(AutoMode::Ro),
            ("sys", "rw") => self.sys = Some(AutoMode::Rw),
            ("cgroup2", "" | "force") => self.cgroup = Some(cgroup2(AutoMode::Rw)),
            ("cgroup2", "ro" | "ro:force") => self.cgroup = Some(cgroup2(AutoMode::Ro)),
            ("cgroup" | "cgroup-full", _) => {
                let (mode, force) = match how {
                    "force" => ("", true),
                    _ => how.strip_suffix(":force").map_or((how, false), |mode| (mode, true)),
                };
                let mode = match mode {
                    "" if !how.starts_with(':') => AutoMode::Unspecified,
                    "ro" => AutoMode::Ro,
                    "rw" => AutoMode::Rw,
                    "mixed" => AutoMode::Mixed,
                    _ => return None,
                };
                let full = what == "cgroup-full";
                self.cgroup = Some(AutoCgroup { unified: false, full, mode, force });
            }
            _ => return None,
        }
        Some(())
    }

    /// The value as liblxc prints it. A forced cgroup mount, `cgroup2` and `shmounts` are left out,
    /// as there.
    pub(super) fn print(&self) -> String {
        let named = |name: &str, mode: AutoMode| match mode {
            AutoMode::Ro => format!("{name}:ro"),
            AutoMode::Rw => format!("{name}:rw"),
            AutoMode::Mixed => format!("{name}:mixed"),
            AutoMode::Unspecified => name.to_owned(),
        };
        let cgroup = self.cgroup.filter(|c| !c.force && !c.unified);
        [
            self.proc.map(|mode| named("proc", mode)),
            self.sys.map(|mode| named("sys", mode)),
            cgroup.map(|c| named(if c.full { "cgroup-full" } else { "cgroup" }, c.mode)),
        ]
        .into_iter()
        .flatten()
        .collect::<Vec<_>>()
        .join(" ")
    }
}

fn cgroup2(mode: AutoMode) -> AutoCgroup {
    AutoCgroup { unified: true, full: false, mode, force: true }
}

/// The mount of a `lxc.mount.entry`; `None` if it is a comment.
pub(super) fn of_item(item: &Item) -> Result<Option<MountEntry>, ParseError> {
    let at = Position { column: item.value_column, ..item.at.clone() };
    entry(at, &item.value, &item.text)
}

/// The mounts of a file in the form of fstab(5).
pub(super) fn read_fstab(
    path: &Path,
    from: Position,
    guest: Option<Guest>,
) -> Result<Vec<MountEntry>, ConfigError> {
    let text = load::read_file(path, Some(&from), guest)?;
    let file: Arc<Path> = Arc::from(path);
    let mut entries = Vec::new();
    for (index, line) in text.split(|b| *b == b'\n').enumerate() {
        let indent = line.iter().take_while(|b| matches!(b, b' ' | b'\t')).count();
        let at = Position { file: Arc::clone(&file), line: index + 1, column: indent + 1 };
        entries.extend(entry(at, OsStr::from_bytes(line), &String::from_utf8_lossy(line))?);
    }
    Ok(entries)
}

/// The mount points that fstab(5) names; a line that cannot be read names none.
///
/// # Errors
/// Where the file is there and cannot be read.
pub(crate) fn mount_points_of_fstab(path: &Path) -> std::io::Result<Vec<PathBuf>> {
    let text = match std::fs::read(path) {
        Ok(text) => text,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(e) => return Err(e),
    };
    let point = |line: &[u8]| {
        let mut fields = line.split(|b| b.is_ascii_whitespace()).filter(|f| !f.is_empty());
        let source = fields.next().filter(|first| !first.starts_with(b"#"));
        let target =
            source.and_then(|_| fields.next()).map(|target| PathBuf::from(unescape(target)));
        target.filter(|target| target.is_absolute())
    };
    Ok(text.split(|b| *b == b'\n').filter_map(point).collect())
}

/// One line as getmntent(3) reads it.
fn entry(at: Position, line: &OsStr, text: &str) -> Result<Option<MountEntry>, ParseError> {
    let wrong = |message: String| ParseError::new(&at, text, message);
    let mut fields =
        line.as_bytes().split(|b| matches!(b, b' ' | b'\t' | b'\r')).filter(|f| !f.is_empty());
    let source = match fields.next() {
        None => return Ok(None),
        Some(first) if first.starts_with(b"#") => return Ok(None),
        Some(first) => first,
    };
    let (Some(target), Some(fstype)) = (fields.next(), fields.next()) else {
        return Err(wrong("a mount needs a source, a target and a type".to_owned()));
    };
    let utf8 = |field: &[u8]| {
        String::from_utf8(unescape(field).into_vec())
            .map_err(|_| wrong("a mount's type or options are not UTF-8".to_owned()))
    };
    let options = utf8(fields.next().unwrap_or_default())?;
    let number = |field: Option<&[u8]>| match field {
        None => Ok(0),
        Some(field) => {
            std::str::from_utf8(field).ok().and_then(|f| f.parse::<i32>().ok()).ok_or_else(|| {
                wrong(format!("'{}' is not a number", printable(OsStr::from_bytes(field))))
            })
        }
    };
    Ok(Some(MountEntry {
        source: unescape(source).into(),
        target: unescape(target).into(),
        fstype: utf8(fstype)?,
        options: options.split(',').filter(|o| !o.is_empty()).map(str::to_owned).collect(),
        freq: number(fields.next())?,
        pass: number(fields.next())?,
        at: at.clone(),
    }))
}

/// The escapes of fstab(5), and of the kernel's tables of mounts: `\040` a blank, `\011` a tab,
/// `\012` a newline, `\043` a `#`, `\134` or `\\` a backslash.
pub(in crate::lxc) fn unescape(field: &[u8]) -> OsString {
    const ESCAPES: [(&[u8], u8); 6] = [
        (b"040", b' '),
        (b"011", b'\t'),
        (b"012", b'\n'),
        (b"043", b'#'),
        (b"134", b'\\'),
        (b"\\", b'\\'),
    ];
    let mut out = Vec::with_capacity(field.len());
    let mut rest = field;
    while let [first, tail @ ..] = rest {
        let escape = ESCAPES.iter().find(|(code, _)| *first == b'\\' && tail.starts_with(code));
        match escape {
            Some((code, byte)) => {
                out.push(*byte);
                rest = tail.get(code.len()..).unwrap_or_default();
            }
            None => {
                out.push(*first);
                rest = tail;
            }
        }
    }
    OsString::from_vec(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Option<MountEntry>, ParseError> {
        let at = Position { file: Arc::from(Path::new("/c")), line: 1, column: 1 };
        entry(at, OsStr::new(line), line)
    }

    #[test]
    fn reads_mount_lines() {
        let e = parse("/srv/a\\040b mnt/data none bind,create=dir,optional 0 2").unwrap().unwrap();
        assert_eq!((e.source.to_str(), e.target.to_str()), (Some("/srv/a b"), Some("mnt/data")));
        assert_eq!((e.fstype.as_str(), e.freq, e.pass), ("none", 0, 2));
        assert!(
            e.is_bind()
                && e.has_option("create")
                && e.has_option("optional")
                && !e.has_option("creat")
        );
        let e = parse("proc proc proc").unwrap().unwrap();
        assert!(e.options.is_empty() && !e.is_bind());
        assert_eq!(parse("# x y z").unwrap(), None);
        assert_eq!(parse("  ").unwrap(), None);
        assert!(parse("/a b").is_err());
        assert!(parse("/a b none bind x").is_err());
    }

    #[test]
    fn fstab_names_mount_points() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("fstab");
        assert_eq!(mount_points_of_fstab(&path).unwrap(), Vec::<PathBuf>::new());
        std::fs::write(
            &path,
            "# /dev/x /no ext4\n/dev/a / ext4\n\nLABEL=b\t/mnt/my\\040disk xfs noauto\nc none \
             swap\n",
        )
        .unwrap();
        assert_eq!(
            mount_points_of_fstab(&path).unwrap(),
            [Path::new("/"), Path::new("/mnt/my disk")]
        );
    }

    #[test]
    fn collects_automatic_mounts() {
        for (lines, want) in [
            (&["proc sys cgroup"][..], "proc:mixed sys:mixed cgroup"),
            (&["proc:rw", "sys:ro", "cgroup-full:rw"], "proc:rw sys:ro cgroup-full:rw"),
            (&["proc cgroup:mixed:force sys:ro"], "proc:mixed sys:ro"),
            (&["cgroup2:ro:force"], ""),
            (&["proc sys", "", "sys:rw"], "sys:rw"),
            (&["shmounts:/srv/x proc"], "proc:mixed"),
        ] {
            let mut auto = MountAuto::default();
            for line in lines {
                auto.set(line).unwrap();
            }
            assert_eq!(auto.print(), want, "{lines:?}");
        }
        for wrong in ["dev", "proc:ro", "cgroup:x", "cgroup::force", "cgroup2:rw", "sys:"] {
            assert!(MountAuto::default().set(wrong).is_err(), "{wrong}");
        }
    }
}
