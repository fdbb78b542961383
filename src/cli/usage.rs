//! Command lines: what is wrong with one is said as every other failure is.

use std::process::ExitCode;

use clap::Parser;
use clap::error::ErrorKind;

use super::common::fail;
use crate::error::{Exit, Failure};

/// Reads a command line. `Err` is the exit status: help was shown, or the usage was wrong.
pub(crate) fn parse<T: Parser>() -> std::result::Result<T, ExitCode> {
    T::try_parse().map_err(|e| {
        if is_asked_for(&e) {
            if let Err(e) = e.print() {
                log::debug!("print the help: {e}");
            }
            return ExitCode::from(if e.use_stderr() { Exit::Usage } else { Exit::Done }.code());
        }
        fail(T::command().get_name(), None, &failure(&e))
    })
}

/// Help and version are no failures; without any argument the help says more than a failure does.
fn is_asked_for(error: &clap::Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::DisplayHelp
            | ErrorKind::DisplayVersion
            | ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand
    )
}

/// The first paragraph of clap's text is what is wrong; its tips and the command of its usage are
/// what helps.
fn failure(error: &clap::Error) -> Failure {
    let text = error.render().to_string();
    let what: Vec<&str> = text.lines().take_while(|line| !line.is_empty()).map(str::trim).collect();
    let what = what.join(" ");
    let tips = text.lines().filter_map(|line| line.trim_start().strip_prefix("tip: "));
    let command = text.lines().find_map(|line| line.strip_prefix("Usage: ")).map(command_of);
    let help = command.map(|command| format!("{command} --help describes the options"));
    let hint: Vec<String> = tips.map(str::to_owned).chain(help).collect();
    let failure =
        Failure::msg(Exit::Usage, what.strip_prefix("error: ").unwrap_or(&what).to_owned());
    if hint.is_empty() { failure } else { failure.hint(hint.join("; ")) }
}

/// The program and its subcommand, before options and arguments.
fn command_of(usage: &str) -> String {
    let is_word = |word: &&str| word.starts_with(|c: char| c.is_ascii_lowercase());
    usage.split(' ').take_while(is_word).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use clap::{Args, Subcommand};

    use super::*;

    #[derive(Parser, Debug)]
    #[command(name = "lxc-cr")]
    struct Arguments {
        #[command(subcommand)]
        command: Command,
    }

    #[derive(Subcommand, Debug)]
    enum Command {
        List(List),
    }

    #[derive(Args, Debug)]
    struct List {
        #[arg(long)]
        json: bool,
        #[arg(long, conflicts_with = "json")]
        plain: bool,
        #[arg(long)]
        width: Option<u16>,
    }

    fn said(arguments: &[&str]) -> (String, Option<String>) {
        let all = ["lxc-cr"].iter().chain(arguments);
        let failure = failure(&Arguments::try_parse_from(all).unwrap_err());
        (failure.cause.to_string(), failure.hint)
    }

    #[test]
    fn a_wrong_word_is_named_with_what_was_meant() {
        let help = "lxc-cr list --help describes the options";
        let (what, hint) = said(&["list", "--jsn"]);
        assert_eq!(what, "unexpected argument '--jsn' found");
        assert_eq!(hint, Some(format!("a similar argument exists: '--json'; {help}")));
        let (what, hint) = said(&["list", "--json", "--plain"]);
        assert_eq!(what, "the argument '--json' cannot be used with '--plain'");
        assert_eq!(hint.as_deref(), Some(help));
        let (what, _) = said(&["list", "--width", "wide"]);
        assert!(what.starts_with("invalid value 'wide' for '--width <WIDTH>'"), "{what}");
        let (what, hint) = said(&["lst"]);
        assert_eq!(what, "unrecognized subcommand 'lst'");
        assert!(hint.is_some_and(|hint| hint.contains("'list'")));
    }
}
