//! Settings: `/etc/lxc/lxc-cr.toml` and the drop-ins `/etc/lxc/lxc-cr.toml.d/*.toml`, every key of
//! which has a default.
//!
//! A table `[container.NAME]` sets keys for the containers of that name only. A later file wins
//! over an earlier one (drop-ins come after the main file, in the order of their names), a
//! container's table over all else, and the command line over that.

mod check;

use std::collections::BTreeMap;
use std::io::{ErrorKind, Read};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use crate::sys::{files, path_trust};

/// When the restore of a container is rehearsed before the container is ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Rehearse {
    /// Where it costs little.
    #[default]
    Auto,
    /// Whenever it is possible; where it is not, the container is not ended.
    Always,
    /// Not at all.
    Never,
}

/// The administrator's file; its drop-ins are in the directory `FILE.d`.
pub(crate) const FILE: &str = "/etc/lxc/lxc-cr.toml";
/// More than this is no settings file, in bytes.
const MAX_SIZE: u64 = 1 << 20;
/// The table that holds the containers' own tables.
const CONTAINER: &str = "container";

/// Makes the settings, and what one table of a file can set, of one list of keys.
macro_rules! keys {
    ($($(#[$doc:meta])* $key:ident: $type:ty = $default:expr;)*) => {
        /// What an administrator can choose.
        #[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
        pub(crate) struct Settings { $($(#[$doc])* pub $key: $type,)* }

        impl Default for Settings {
            fn default() -> Settings {
                Settings { $($key: $default,)* }
            }
        }

        /// The names of all keys.
        pub const KEYS: &[&str] = &[$(stringify!($key),)*];

        /// What one table of a file sets.
        #[derive(Clone, Debug, Default, Deserialize)]
        struct Layer {
            $($key: Option<$type>,)*
            /// The containers' tables; only a whole file has them.
            #[serde(default)]
            container: BTreeMap<String, Layer>,
        }

        impl Layer {
            fn put_over(&self, settings: &mut Settings) {
                $(if let Some(value) = &self.$key {
                    settings.$key = value.clone();
                })*
            }
        }
    };
}

/// When the memory of a restored container may come after it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Lazy {
    /// Never: all of it is there before the container runs.
    #[default]
    Never,
    /// Where that saves much and costs no memory.
    Auto,
    /// Wherever that is possible.
    Always,
}

keys! {
    /// The criu program; looked for in the system's directories when not set.
    criu: Option<PathBuf> = None;
    /// The bridge for interfaces of which neither the checkpoint nor the configuration names one.
    bridge: String = "br0".to_owned();
    /// Deleted files that are still open are copied into the checkpoint up to this size, in MiB.
    ghost_limit: u64 = 256;
    /// Seconds after which a checkpoint or restart is given up; 0 for never.
    timeout: u64 = 0;
    /// Wait until the checkpoint is on the disk before the container is stopped.
    sync: bool = true;
    /// What a start of a suspended container comes to, which loses what was in its memory.
    on_start: OnStart = OnStart::Warn;
    /// Where a container's list of checkpoints lies, in a directory of its name; not set:
    /// `checkpoints` in its own directory.
    checkpoint_dir: Option<PathBuf> = None;
    /// Whether a checkpoint of a container that goes on joins its list where no directory is named.
    keep: bool = false;
    /// How many of the list's last checkpoints `lxc-cr prune` keeps.
    keep_last: u64 = 0;
    /// Of how many hours it keeps the last one.
    keep_hourly: u64 = 0;
    /// Of how many days.
    keep_daily: u64 = 0;
    /// Of how many weeks.
    keep_weekly: u64 = 0;
    /// Of how many months.
    keep_monthly: u64 = 0;
    /// Of how many years.
    keep_yearly: u64 = 0;
    /// Compare the checksums of memory images, too, before a restarted container may run. Those
    /// that are in memory as they were written need no comparison.
    verify: bool = true;
    /// Restore a container once beside itself before it is ended.
    rehearse: Rehearse = Rehearse::Auto;
    /// States that may come back different.
    accept: Vec<String> = Vec::new();
    /// Whether a restored container runs before all of its memory is there.
    lazy: Lazy = Lazy::Never;
    /// In how many rounds at most memory is copied before the container stands still; 0 for none.
    precopy: u32 = 0;
    /// Milliseconds within which what is left may be written while it stands still: then there are
    /// no more rounds.
    max_downtime: u64 = 300;
    /// Suspend the container at shutdown; `lxc-cr resume` brings it back at boot.
    suspend: bool = false;
    /// How many containers are suspended or resumed side by side; 0 for four times as many as there
    /// are processors.
    suspend_jobs: usize = 0;
    /// Seconds that `lxc-cr suspend` and `lxc-cr resume` may take for all their containers
    /// together.
    suspend_timeout: u64 = 180;
}

/// Keys that speak of all containers together: in the table of one they would have no meaning.
const OF_HOST: &[&str] = &["suspend_jobs", "suspend_timeout"];

/// What the start of a suspended container comes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum OnStart {
    /// It starts afresh, with a warning; its checkpoint is stale from then on.
    Warn,
    /// It does not start.
    Refuse,
}

/// What the files say, each checked, in the order in which they count.
#[derive(Clone, Debug, Default)]
pub(crate) struct Files(Vec<Layer>);

impl Files {
    /// Reads a settings file and its drop-ins; none of them need be there.
    ///
    /// # Errors
    /// When one cannot be read, holds an unknown key (the nearest one is named) or a wrong value,
    /// or could have been written by another user than root.
    pub(crate) fn read(path: &Path) -> Result<Files> {
        let mut layers: Vec<Layer> = read_layer(path)?.into_iter().collect();
        for path in drop_ins(path)? {
            layers.extend(read_layer(&path)?);
        }
        Ok(Files(layers))
    }

    /// The settings that speak of the host as a whole.
    pub(crate) fn host(&self) -> Settings {
        let mut settings = Settings::default();
        self.0.iter().for_each(|layer| layer.put_over(&mut settings));
        settings
    }

    /// The settings for the containers of a name.
    pub(crate) fn of(&self, name: &str) -> Settings {
        let mut settings = self.host();
        self.0
            .iter()
            .filter_map(|layer| layer.container.get(name))
            .for_each(|layer| layer.put_over(&mut settings));
        settings
    }
}

/// The drop-ins of a settings file, in the order of their names.
fn drop_ins(path: &Path) -> Result<Vec<PathBuf>> {
    let dir = files::with_suffix(path, ".d");
    let names = match dir.symlink_metadata() {
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        _ => files::names(&dir)?,
    };
    // Hidden names are what editors and package managers leave.
    let is_ours = |name: &PathBuf| {
        name.extension().is_some_and(|e| e == "toml")
            && !name.as_os_str().as_encoded_bytes().starts_with(b".")
    };
    Ok(names.into_iter().filter(is_ours).map(|name| dir.join(name)).collect())
}

fn read_layer(path: &Path) -> Result<Option<Layer>> {
    // It names a program that root runs.
    let Some(mut file) = path_trust::open_own(None, path)? else { return Ok(None) };
    let mut text = String::new();
    file.by_ref()
        .take(MAX_SIZE)
        .read_to_string(&mut text)
        .with_context(|| format!("read {}", path.display()))?;
    parse(&text).map(Some).map_err(|e| anyhow::anyhow!("{}:{e}", path.display()))
}

/// Reads one file's text; an error begins with its line and column.
fn parse(text: &str) -> Result<Layer, check::Wrong> {
    check::keys(text)?;
    toml::from_str(text).map_err(|e| check::Wrong::of_toml(text, &e))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    fn write(path: &Path, text: &str) {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
        fs::set_permissions(path, fs::Permissions::from_mode(0o644)).unwrap();
    }

    #[test]
    fn later_files_win_and_a_containers_table_wins_over_all() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lxc-cr.toml");
        assert_eq!(Files::read(&path).unwrap().of("web"), Settings::default());
        write(
            &path,
            "bridge = \"lxcbr0\"\ntimeout = 5\n[container.web]\nsync = false\nbridge = \"br7\"\n",
        );
        let drop_ins = dir.path().join("lxc-cr.toml.d");
        write(
            &drop_ins.join("20-b.toml"),
            "timeout = 7\n[container.\"web.example\"]\nverify = false\n",
        );
        write(
            &drop_ins.join("10-a.toml"),
            "timeout = 6\nbridge = \"br1\"\n[container.web]\nverify = false\n",
        );
        write(&drop_ins.join("30-c.toml.dpkg-old"), "nonsense");
        write(&drop_ins.join(".40-d.toml"), "nonsense");
        let files = Files::read(&path).unwrap();
        let expected = Settings { bridge: "br1".to_owned(), timeout: 7, ..Settings::default() };
        assert_eq!(files.host(), expected);
        assert_eq!(files.of("db"), expected);
        assert_eq!(
            files.of("web"),
            Settings { bridge: "br7".to_owned(), sync: false, verify: false, ..expected.clone() }
        );
        assert_eq!(files.of("web.example"), Settings { verify: false, ..expected });
    }

    #[test]
    fn what_is_wrong_is_named_with_its_place_and_the_nearest_key() {
        let cases = [
            ("brigde = \"lxcbr0\"", "1:1: unknown key 'brigde'; did you mean 'bridge'?"),
            ("\n  ghost-limit = 3", "2:3: unknown key 'ghost-limit'; did you mean 'ghost_limit'?"),
            ("xyzzy = 3", "1:1: unknown key 'xyzzy'; the keys are criu, bridge, "),
            (
                "[containers.web]\nsync = true",
                "1:2: unknown key 'containers'; did you mean 'container'?",
            ),
            ("[container.web]\nsinc = true", "2:1: unknown key 'sinc'; did you mean 'sync'?"),
            ("container = 7", "1:1: 'container' is a table of containers: [container.NAME]"),
            (
                "[container.web]\nsuspend_jobs = 3",
                "2:1: 'suspend_jobs' is for all containers together",
            ),
            ("container.web = 7", "1:11: 'container.web' is a table: [container.web]"),
            ("[container.web.container.db]", "1:16: unknown key 'container'"),
            ("sync = 1", "1:8: invalid type: integer `1`, expected a boolean"),
            ("timeout = -1", "1:11: invalid value"),
            ("sync = ", "1:8: "),
            ("sync = true\nsync = true", "2:1: duplicate key"),
        ];
        for (text, expected) in cases {
            let told = parse(text).unwrap_err().to_string();
            assert!(told.starts_with(expected) && !told.contains('\n'), "{text:?}: {told}");
        }
    }

    #[test]
    fn a_file_that_others_can_write_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lxc-cr.toml");
        write(&path, "");
        assert!(Files::read(&path).is_ok());
        fs::set_permissions(&path, fs::Permissions::from_mode(0o666)).unwrap();
        assert!(
            Files::read(&path)
                .unwrap_err()
                .to_string()
                .contains("can be written by others (mode 666)")
        );
        // A link of root's leads to what counts.
        let real = dir.path().join("real.toml");
        fs::rename(&path, &real).unwrap();
        std::os::unix::fs::symlink(&real, &path).unwrap();
        assert!(Files::read(&path).is_err());
        fs::set_permissions(&real, fs::Permissions::from_mode(0o644)).unwrap();
        assert!(Files::read(&path).is_ok());
    }

    const SAMPLE: &str = include_str!("../lxc-config/lxc-cr.toml");

    #[test]
    fn the_sample_has_every_key_with_its_default() {
        let mut settings = Settings::default();
        let layer = parse(SAMPLE).unwrap();
        layer.put_over(&mut settings);
        assert_eq!(settings, Settings::default());
        assert!(layer.container.is_empty());
        let (own, _) = SAMPLE.split_once("# [container.web]").unwrap();
        for key in KEYS {
            let lines = own
                .lines()
                .filter(|l| l.trim_start_matches("# ").starts_with(&format!("{key} = ")));
            assert_eq!(lines.count(), 1, "{key}");
        }
        // What is commented out can be put in.
        let all = SAMPLE
            .replace("\n# criu = ", "\ncriu = ")
            .replace("\n# [", "\n[")
            .replace("\n# sync = ", "\nsync = ");
        assert!(parse(&all).unwrap().container["web"].sync.is_some());
    }
}
