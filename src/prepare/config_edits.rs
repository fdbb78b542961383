//! The lines that a container's configuration lacks, and where they go. Pure.
//!
//! What counts is what the configuration says as a whole, includes and all: who has put a hook of
//! ours or a mount in by hand does not get it twice. A configuration in the spelling of LXC <= 2.0
//! gets the same in that spelling, without our includes, which are in the new one:
//! `lxc-update-config` then turns the whole of it.

use std::path::Path;

use super::init::Init;
use super::installed::Installed;
use super::programs::DropIn;
use crate::lxc::config::{Config, ConfigError, Console};

/// What systemd is told in the container, as `lxc-cr-systemd.conf` mounts it: a file of ours, and
/// where it goes.
pub(crate) const DROP_INS: &[(&str, &str)] = &[
    ("service.conf", "etc/systemd/system/service.d/lxc-cr.conf"),
    ("manager.conf", "etc/systemd/system.conf.d/lxc-cr.conf"),
    ("manager.conf", "etc/systemd/user.conf.d/lxc-cr.conf"),
];
/// Keeps systemd from watching its own memory.
const NO_WATCH: &str = "MEMORY_PRESSURE_WATCH=/dev/null";
/// How the programs of our hooks begin.
const OUR_HOOK: &str = "lxc-cr-";

/// What a configuration lacks.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Lacking {
    /// Our hooks.
    pub hooks: bool,
    /// systemd's drop-ins and its environment.
    pub drop_ins: bool,
    /// That there is no console and no tty.
    pub terminals: bool,
    /// The seccomp profile under which there is no io_uring and no eBPF.
    pub profile: bool,
    /// What programs in the root need.
    pub programs: Vec<DropIn>,
}

impl Lacking {
    /// What a container with this init lacks. `profile`: whether it lacks that profile; `programs`:
    /// what those in its root need.
    pub(crate) fn of(
        config: &Config,
        init: &Init,
        profile: bool,
        programs: &[DropIn],
    ) -> Result<Lacking, ConfigError> {
        let hooks = !["pre-start", "post-stop"].iter().all(|kind| has_our_hook(config, kind));
        let targets: Vec<_> =
            config.mount_entries()?.into_iter().map(|entry| entry.target).collect();
        let mounted =
            |target: &Path| targets.iter().any(|t| t.strip_prefix("/").unwrap_or(t) == target);
        let programs =
            programs.iter().filter(|drop_in| !mounted(&drop_in.target)).cloned().collect();
        let mut lacking = Lacking { hooks, profile, programs, ..Lacking::default() };
        if *init == Init::Systemd {
            let watch = NO_WATCH
                .split_once('=')
                .map(|(name, value)| (name.to_owned(), Some(value.to_owned())));
            let told = watch.is_some_and(|watch| config.environment().contains(&watch));
            lacking.drop_ins =
                !told || !DROP_INS.iter().all(|(_, target)| mounted(Path::new(target)));
            lacking.terminals = has_terminals(config);
        }
        Ok(lacking)
    }

    /// Whether it lacks nothing.
    pub(crate) fn is_nothing(&self) -> bool {
        *self == Lacking::default()
    }

    /// The configuration file's text with what is lacking put in.
    pub(crate) fn put_into(&self, text: &[u8], config: &Config, installed: &Installed) -> Vec<u8> {
        let legacy = is_legacy(config);
        let (first, last) =
            (self.first_lines(legacy, installed), self.last_lines(legacy, installed));
        // Our pre-start hook refuses a start before a hook of the user's has done its work.
        let before =
            own_hook_line(config).filter(|_| !first.is_empty()).map(|line| offset(text, line));
        let mut new = Vec::new();
        match before {
            Some(at) => {
                new.extend_from_slice(&text[..at]);
                new.extend(block(&first, Some(b'\n')).bytes());
                new.extend_from_slice(b"\n");
                new.extend_from_slice(&text[at..]);
                if !last.is_empty() {
                    let end = line_end(&new);
                    new.extend(block(&last, end).bytes());
                }
            }
            None => {
                new.extend_from_slice(text);
                new.extend(block(&[first, last].concat(), line_end(text)).bytes());
            }
        }
        new
    }

    /// All that is lacking, where it does not matter what stands before it.
    pub(crate) fn lines(&self, config: &Config, installed: &Installed) -> Vec<String> {
        let legacy = is_legacy(config);
        [self.first_lines(legacy, installed), self.last_lines(legacy, installed)].concat()
    }

    fn first_lines(&self, legacy: bool, installed: &Installed) -> Vec<String> {
        let mut lines = Vec::new();
        if self.hooks && legacy {
            for kind in ["pre-start", "post-stop"] {
                lines.push(format!(
                    "lxc.hook.{kind} = {}/{OUR_HOOK}{kind}",
                    installed.hooks.display()
                ));
            }
        } else if self.hooks {
            lines.push(format!("lxc.include = {}", installed.hooks_include().display()));
        }
        lines
    }

    fn last_lines(&self, legacy: bool, installed: &Installed) -> Vec<String> {
        let mut lines = Vec::new();
        let (console, ttys, profile) = match legacy {
            true => ("lxc.console", "lxc.tty", "lxc.seccomp"),
            false => ("lxc.console.path", "lxc.tty.max", "lxc.seccomp.profile"),
        };
        if self.drop_ins && !legacy {
            lines.push(format!("lxc.include = {}", installed.systemd_include().display()));
        } else if self.drop_ins {
            for (file, target) in DROP_INS {
                lines.push(mount_entry(
                    &installed.data.join("systemd").join(file),
                    Path::new(target),
                ));
            }
            lines.push(format!("lxc.environment = {NO_WATCH}"));
        }
        lines.extend(
            self.programs.iter().map(|d| mount_entry(&installed.program(d.file), &d.target)),
        );
        // The include says this, too.
        if self.terminals && (legacy || !self.drop_ins) {
            lines.extend([format!("{console} = none"), format!("{ttys} = 0")]);
        }
        if self.profile {
            lines.push(format!("{profile} = {}", installed.profile().display()));
        }
        lines
    }
}

fn mount_entry(source: &Path, target: &Path) -> String {
    format!(
        "lxc.mount.entry = {} {} none bind,ro,create=file 0 0",
        source.display(),
        target.display()
    )
}

/// Lines with the comment above them, set apart from a text that ends with `end`.
fn block(lines: &[String], end: Option<u8>) -> String {
    let apart = match end {
        None => "",
        Some(b'\n') => "\n",
        Some(_) => "\n\n",
    };
    format!(
        "{apart}# By lxc-cr prepare; lxc-cr prepare --undo takes it away.\n{}\n",
        lines.join("\n")
    )
}

fn line_end(text: &[u8]) -> Option<u8> {
    text.last().copied()
}

/// Where a line, counted from 1, begins.
fn offset(text: &[u8], line: usize) -> usize {
    let ends = text.iter().enumerate().filter(|(_, byte)| **byte == b'\n').map(|(at, _)| at + 1);
    std::iter::once(0).chain(ends).nth(line.saturating_sub(1)).unwrap_or(text.len())
}

/// Whether the container has terminals of LXC.
pub(crate) fn has_terminals(config: &Config) -> bool {
    config.console_path() != Console::None || config.tty_max() > 0
}

/// Whether the file itself is in the spelling of LXC <= 2.0.
pub(crate) fn is_legacy(config: &Config) -> bool {
    config.items().iter().any(|item| *item.at.file == *config.file() && item.written != item.key)
}

fn program(hook: &str) -> &Path {
    Path::new(hook.split_ascii_whitespace().next().unwrap_or_default())
}

fn is_ours(hook: &str) -> bool {
    program(hook).file_name().is_some_and(|name| name.to_string_lossy().starts_with(OUR_HOOK))
}

fn has_our_hook(config: &Config, kind: &str) -> bool {
    let key = format!("lxc.hook.{kind}");
    let name = format!("{OUR_HOOK}{kind}");
    let mut hooks = config.items().iter().filter(|item| item.key == key);
    hooks
        .any(|item| program(&item.value.to_string_lossy()).file_name().is_some_and(|n| *n == *name))
}

/// The hooks of the configuration that are neither ours nor LXC's, each with its item.
fn own_hooks(config: &Config) -> impl Iterator<Item = &crate::lxc::config::Item> {
    let is_hook = |key: &str| key.starts_with("lxc.hook.") && key != "lxc.hook.version";
    config.items().iter().filter(move |item| {
        let hook = item.value.to_string_lossy();
        is_hook(&item.key) && !hook.is_empty() && !is_ours(&hook)
    })
}

/// The first line of the file itself on which a hook of the user's stands.
fn own_hook_line(config: &Config) -> Option<usize> {
    own_hooks(config).find(|item| *item.at.file == *config.file()).map(|item| item.at.line)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SYSTEMD_INCLUDE: &str = include_str!("../../lxc-config/lxc-cr-systemd.conf.in");

    fn config(text: &str) -> Config {
        Config::parse(Path::new("/c/config"), text.as_bytes()).unwrap()
    }

    /// The text of a configuration with all that it lacks.
    fn prepared(text: &str, init: &Init, profile: bool) -> String {
        let config = config(text);
        let lacking = Lacking::of(&config, init, profile, &[]).unwrap();
        let new = lacking.put_into(text.as_bytes(), &config, &Installed::below(Path::new("/usr")));
        String::from_utf8(new).unwrap()
    }

    #[test]
    fn the_include_mounts_what_we_look_for() {
        let config = config(&SYSTEMD_INCLUDE.replace("@DATADIR@", "/usr/share/lxc-cr"));
        let lacking = Lacking::of(&config, &Init::Systemd, false, &[]).unwrap();
        assert_eq!(lacking, Lacking { hooks: true, ..Lacking::default() });
        let told: Vec<_> =
            config.mount_entries().unwrap().into_iter().map(|e| (e.source, e.target)).collect();
        let expected: Vec<_> = DROP_INS
            .iter()
            .map(|(file, target)| {
                (Path::new("/usr/share/lxc-cr/systemd").join(file), Path::new(target).to_owned())
            })
            .collect();
        assert_eq!(told, expected);
    }

    #[test]
    fn an_init_that_needs_nothing_gets_the_hooks() {
        for init in [Init::Busybox, Init::Sysvinit, Init::OpenRc, Init::Other("/bin/x".into())] {
            insta::allow_duplicates! {
                insta::assert_snapshot!(prepared("lxc.rootfs.path = /r\nlxc.tty.max = 4\n", &init, false), @r"
                lxc.rootfs.path = /r
                lxc.tty.max = 4

                # By lxc-cr prepare; lxc-cr prepare --undo takes it away.
                lxc.include = /usr/share/lxc/config/lxc-cr.conf
                ");
            }
        }
    }

    #[test]
    fn systemd_without_an_id_map_gets_the_profile() {
        insta::assert_snapshot!(prepared("lxc.rootfs.path = /r", &Init::Systemd, true), @r"
        lxc.rootfs.path = /r

        # By lxc-cr prepare; lxc-cr prepare --undo takes it away.
        lxc.include = /usr/share/lxc/config/lxc-cr.conf
        lxc.include = /usr/share/lxc/config/lxc-cr-systemd.conf
        lxc.seccomp.profile = /usr/share/lxc-cr/systemd/no-bpf.seccomp
        ");
    }

    #[test]
    fn the_old_spelling_stays_the_old_one() {
        let text = "lxc.rootfs = /r\nlxc.tty = 4\nlxc.hook.start = /x a\n";
        insta::assert_snapshot!(prepared(text, &Init::Systemd, true), @r"
        lxc.rootfs = /r
        lxc.tty = 4

        # By lxc-cr prepare; lxc-cr prepare --undo takes it away.
        lxc.hook.pre-start = /usr/libexec/lxc-cr/lxc-cr-pre-start
        lxc.hook.post-stop = /usr/libexec/lxc-cr/lxc-cr-post-stop

        lxc.hook.start = /x a

        # By lxc-cr prepare; lxc-cr prepare --undo takes it away.
        lxc.mount.entry = /usr/share/lxc-cr/systemd/service.conf etc/systemd/system/service.d/lxc-cr.conf none bind,ro,create=file 0 0
        lxc.mount.entry = /usr/share/lxc-cr/systemd/manager.conf etc/systemd/system.conf.d/lxc-cr.conf none bind,ro,create=file 0 0
        lxc.mount.entry = /usr/share/lxc-cr/systemd/manager.conf etc/systemd/user.conf.d/lxc-cr.conf none bind,ro,create=file 0 0
        lxc.environment = MEMORY_PRESSURE_WATCH=/dev/null
        lxc.console = none
        lxc.tty = 0
        lxc.seccomp = /usr/share/lxc-cr/systemd/no-bpf.seccomp
        ");
    }

    #[test]
    fn a_users_hooks_run_after_ours_with_the_arguments_that_they_had() {
        let text =
            "lxc.rootfs.path = /r\n# mine\nlxc.hook.pre-start = /mine x\nlxc.hook.stop = /too\n";
        insta::assert_snapshot!(prepared(text, &Init::Busybox, false), @r"
        lxc.rootfs.path = /r
        # mine

        # By lxc-cr prepare; lxc-cr prepare --undo takes it away.
        lxc.include = /usr/share/lxc/config/lxc-cr.conf

        lxc.hook.pre-start = /mine x
        lxc.hook.stop = /too
        ");
        assert!(
            !include_str!("../../lxc-config/lxc-cr.conf.in").contains("\nlxc.hook.version"),
            "it is the user's"
        );
    }

    #[test]
    fn what_is_there_is_not_put_in_again() {
        for text in ["lxc.rootfs = /r\n", "lxc.rootfs = /r\nlxc.hook.start = /x\n"] {
            let once = prepared(text, &Init::Systemd, false);
            assert!(
                Lacking::of(&config(&once), &Init::Systemd, false, &[]).unwrap().is_nothing(),
                "{once}"
            );
        }
        // By hand, and then ttys all the same.
        let by_hand = SYSTEMD_INCLUDE.replace("@DATADIR@", "/usr/share/lxc-cr")
            + "lxc.hook.pre-start = /opt/lxc-cr-pre-start --bind-root\nlxc.hook.post-stop = \
               /opt/lxc-cr-post-stop\n";
        assert!(Lacking::of(&config(&by_hand), &Init::Systemd, false, &[]).unwrap().is_nothing());
        let lacking =
            Lacking::of(&config(&(by_hand + "lxc.tty.max = 2\n")), &Init::Systemd, false, &[])
                .unwrap();
        assert_eq!(lacking, Lacking { terminals: true, ..Lacking::default() });
    }
}
