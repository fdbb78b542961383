//! The manuals: hand-written pages with what is generated put in.
//!
//! A line of a page that is one of these words stands for what is put in its place:
//!
//! * `@OPTIONS@`: the options and arguments of the page's command;
//! * `@SUBCOMMANDS@`: the subcommands, each with its options, and the options that all of them
//!   have;
//! * `@EXIT_STATUS@`: the exit codes;
//! * `@SETTINGS@`: the keys of the sample settings file, each with its comment.

use std::io;

use clap::{Arg, Command};
use clap_mangen::Man;
use lxc_cr::api::cli::common::EXIT_CODES;

/// A manual.
pub struct Page {
    /// Its file name.
    pub name: &'static str,
    /// Its source, in the language of man(7).
    pub text: String,
}

const PAGES: &[(&str, &str)] = &[
    ("lxc-checkpoint.1", include_str!("../man/lxc-checkpoint.1.in")),
    ("lxc-restart.1", include_str!("../man/lxc-restart.1.in")),
    ("lxc-cr.1", include_str!("../man/lxc-cr.1.in")),
    ("lxc-cr.toml.5", include_str!("../man/lxc-cr.toml.5.in")),
    ("lxc-cr-hooks.7", include_str!("../man/lxc-cr-hooks.7.in")),
];
const SETTINGS: &str = include_str!("../../lxc-config/lxc-cr.toml");

/// All manuals of these commands.
pub fn all(commands: &[Command]) -> io::Result<Vec<Page>> {
    PAGES.iter().map(|(name, hand)| Ok(Page { name, text: fill(name, hand, commands)? })).collect()
}

fn fill(name: &str, hand: &str, commands: &[Command]) -> io::Result<String> {
    let of_page = || {
        let command = commands.iter().find(|c| name == format!("{}.1", c.get_name()));
        command.ok_or_else(|| io::Error::other(format!("{name}: there is no such command")))
    };
    let mut text = String::new();
    for line in hand.lines() {
        match line {
            "@OPTIONS@" => text.push_str(&options(of_page()?)?),
            "@SUBCOMMANDS@" => text.push_str(&subcommands(of_page()?)?),
            "@EXIT_STATUS@" => text.push_str(&exit_status()),
            "@SETTINGS@" => text.push_str(&settings()),
            _ => text.push_str(&format!("{line}\n")),
        }
    }
    Ok(text.replace("@VERSION@", env!("CARGO_PKG_VERSION")))
}

/// The options of a command, without a heading.
fn options(command: &Command) -> io::Result<String> {
    let mut source = Vec::new();
    // The groups of the help would be sections of the manual.
    let flat = command.clone().mut_args(|arg| arg.help_heading(None::<&'static str>));
    Man::new(flat).render_options_section(&mut source)?;
    let text = String::from_utf8_lossy(&source);
    // Without its preamble, which says how an apostrophe is made, and without its heading.
    Ok(text
        .split_once(".SH OPTIONS\n")
        .map_or_else(String::new, |(_, list)| list.replace("\\*(Aq", "\\(aq")))
}

/// The subcommands that a person calls.
pub fn visible(command: &Command) -> impl Iterator<Item = &Command> {
    command.get_subcommands().filter(|c| !c.is_hide_set() && c.get_name() != "help")
}

fn subcommands(command: &Command) -> io::Result<String> {
    let common = common_options(command);
    let is_common = |arg: &Arg| common.iter().any(|c| c.get_id() == arg.get_id());
    let mut text = String::new();
    for sub in visible(command) {
        let own = sub.clone().mut_args(|arg| if is_common(&arg) { arg.hide(true) } else { arg });
        let usage = sub.clone().render_usage().to_string();
        let usage =
            usage.trim_start_matches("Usage: ").trim_start_matches(command.get_name()).trim_start();
        text.push_str(&format!(".SS {}\n", escape(usage)));
        let about =
            sub.get_long_about().or(sub.get_about()).map(ToString::to_string).unwrap_or_default();
        for paragraph in about.split("\n\n") {
            let stop = if paragraph.ends_with(['.', ':', '?']) { "" } else { "." };
            text.push_str(&format!("{}{stop}\n.PP\n", escape(paragraph)));
        }
        text.push_str(&options(&own)?);
    }
    if let (Some(first), false) = (visible(command).next(), common.is_empty()) {
        let all =
            Command::new("all").version("").disable_help_flag(true).disable_version_flag(true);
        // Not left out: a common option may name another one, with which it cannot go together.
        let all = all.args(
            first
                .get_arguments()
                .cloned()
                .map(|arg| if is_common(&arg) { arg } else { arg.hide(true) }),
        );
        text.push_str(".SS Options of every subcommand\n");
        text.push_str(&options(&all)?);
    }
    Ok(text)
}

/// The options that all subcommands have, in the same words; none when there is only one
/// subcommand.
fn common_options(command: &Command) -> Vec<&Arg> {
    let subs: Vec<&Command> = visible(command).collect();
    let Some((first, others)) = subs.split_first().filter(|(_, others)| !others.is_empty()) else {
        return Vec::new();
    };
    let words = |arg: &Arg| (arg.to_string(), arg.get_help().map(ToString::to_string));
    let same =
        |arg: &&Arg| others.iter().all(|sub| sub.get_arguments().any(|a| words(a) == words(arg)));
    first.get_arguments().filter(same).collect()
}

fn exit_status() -> String {
    let codes = EXIT_CODES.lines().skip(1);
    codes
        .filter_map(|code| code.trim().split_once("  "))
        .map(|(number, meaning)| format!(".TP\n.B {number}\n{}\n", escape(meaning)))
        .collect()
}

/// Each key with its default, and what stands above it in the sample.
fn settings() -> String {
    let mut text = String::new();
    for block in SETTINGS.split("\n\n").skip(1) {
        let lines: Vec<&str> = block.lines().collect();
        let Some((key, comment)) = lines.split_last() else { continue };
        let key = key.trim_start_matches("# ");
        // The last block is an example of a container's table.
        if lines.iter().any(|line| line.starts_with("# [")) {
            continue;
        }
        let comment: Vec<&str> = comment.iter().map(|line| line.trim_start_matches("# ")).collect();
        text.push_str(&format!(".TP\n.B {}\n{}\n", escape(key), escape(&comment.join("\n"))));
    }
    text
}

/// Text as roff takes it: a minus that can be copied, no accidental request.
fn escape(text: &str) -> String {
    let text = text.replace('\\', "\\e").replace('-', "\\-");
    text.lines()
        .map(|l| if l.starts_with(['.', '\'']) { format!("\\&{l}") } else { l.to_owned() })
        .collect::<Vec<_>>()
        .join("\n")
}
