//! Completions for bash, zsh and fish, made of the commands' definitions.
//!
//! The name of a value in the help says what it is: `NAME` is a container, the `DIR` of `-D` a
//! checkpoint, `PATH` and any other `DIR` a directory, `FILE` a file. So new options and
//! subcommands need nothing here, but for commands that work on running containers only. (The
//! static generators of clap_complete cannot ask a program for names, and its dynamic one would
//! have to be in our commands.)

use clap::{Arg, ArgAction, Command};

use crate::pages::visible;

/// The shell functions that know containers and checkpoints; each uses what stands on the line so
/// far.
const BASH: &str = include_str!("functions.bash");
const ZSH: &str = include_str!("functions.zsh");
const FISH: &str = include_str!("functions.fish");

/// What can stand as a value.
enum Value {
    /// The option takes none.
    Nothing,
    Container,
    /// One that runs.
    Running,
    /// A container, or a checkpoint's directory once there is a slash.
    ContainerOrDirectory,
    Checkpoint,
    /// One of a container's list, by its time.
    Kept,
    Bridge,
    Interface,
    Directory,
    File,
    OneOf(Vec<String>),
    /// Something that only the user knows.
    Free,
}

/// Those that work on a container that runs.
const OF_RUNNING: [&str; 4] = ["lxc-checkpoint", "check", "inspect", "suspend"];

fn value(command: &Command, arg: &Arg) -> Value {
    if !matches!(arg.get_action(), ArgAction::Set | ArgAction::Append) {
        return Value::Nothing;
    }
    let possible: Vec<String> =
        arg.get_possible_values().iter().map(|v| v.get_name().to_owned()).collect();
    if !possible.is_empty() {
        return Value::OneOf(possible);
    }
    match arg.get_value_names().and_then(|names| names.first()).map_or("", |n| n.as_str()) {
        "NAME" if arg.get_long() == Some("bridge") => Value::Bridge,
        "NAME" if OF_RUNNING.contains(&command.get_name()) => Value::Running,
        "NAME" => Value::Container,
        "NAME|DIR" | "DIR|NAME" => Value::ContainerOrDirectory,
        "IFACE" => Value::Interface,
        "latest|TIME|LABEL" => Value::Kept,
        "DIR" if arg.get_long() == Some("checkpoint-dir") => Value::Checkpoint,
        "DIR" | "PATH" => Value::Directory,
        "FILE" => Value::File,
        "LEVEL" => {
            Value::OneOf(["TRACE", "DEBUG", "INFO", "WARN", "ERROR"].map(str::to_owned).into())
        }
        _ => Value::Free,
    }
}

fn shown(command: &Command) -> impl Iterator<Item = &Arg> {
    command.get_arguments().filter(|arg| !arg.is_hide_set())
}

fn options(command: &Command) -> impl Iterator<Item = &Arg> {
    shown(command).filter(|arg| !arg.is_positional())
}

/// All ways in which an option can be written.
fn forms(arg: &Arg) -> Vec<String> {
    let short = arg.get_short().map(|s| format!("-{s}"));
    short.into_iter().chain(arg.get_long().map(|l| format!("--{l}"))).collect()
}

/// The first line of an option's help.
fn help(arg: &Arg) -> String {
    arg.get_help().map(ToString::to_string).unwrap_or_default().replace('\n', " ")
}

fn about(command: &Command) -> String {
    command.get_about().map(ToString::to_string).unwrap_or_default()
}

fn subcommands(command: &Command) -> Vec<&Command> {
    visible(command).collect()
}

fn names(commands: &[&Command]) -> String {
    commands.iter().map(|c| c.get_name()).collect::<Vec<_>>().join(" ")
}

/// For bash-completion, which loads the file that is named as the command.
pub fn bash(command: &Command) -> String {
    let name = command.get_name();
    let subs = subcommands(command);
    let mut text =
        format!("# bash completion for {name}\n\n{BASH}\n_{}() {{\n", name.replace('-', "_"));
    text.push_str("    local cur prev lxcpath container\n    _lxc_cr_line\n");
    if subs.is_empty() {
        text.push_str(&bash_words(command, "    "));
    } else {
        let mut top: Vec<String> = options(command).flat_map(forms).collect();
        top.sort();
        text.push_str("    case ${COMP_WORDS[1]} in\n");
        for sub in &subs {
            text.push_str(&format!(
                "        {})\n{}            ;;\n",
                sub.get_name(),
                bash_words(sub, "            ")
            ));
        }
        let words = format!("{} {}", names(&subs), top.join(" "));
        text.push_str(&format!(
            "        *) [ \"$COMP_CWORD\" -gt 1 ] || _lxc_cr_words \"{words}\" ;;\n    esac\n"
        ));
    }
    text.push_str(&format!("}}\ncomplete -F _{} {name}\n", name.replace('-', "_")));
    text
}

fn bash_words(command: &Command, indent: &str) -> String {
    let mut text = format!("{indent}case $prev in\n");
    for arg in options(command) {
        let action = match value(command, arg) {
            Value::Nothing => continue,
            Value::Container => "_lxc_cr_containers".to_owned(),
            Value::Running => "_lxc_cr_running".to_owned(),
            Value::ContainerOrDirectory => "_lxc_cr_containers_or_paths".to_owned(),
            Value::Checkpoint => "_lxc_cr_checkpoints".to_owned(),
            Value::Kept => "_lxc_cr_kept".to_owned(),
            Value::Bridge => "_lxc_cr_bridges".to_owned(),
            Value::Interface => "_lxc_cr_interfaces".to_owned(),
            Value::Directory => "_lxc_cr_paths -d".to_owned(),
            Value::File => "_lxc_cr_paths -f".to_owned(),
            Value::OneOf(words) => format!("_lxc_cr_words \"{}\"", words.join(" ")),
            Value::Free => ":".to_owned(),
        };
        text.push_str(&format!("{indent}    {}) {action}; return ;;\n", forms(arg).join("|")));
    }
    let all: Vec<String> = options(command).flat_map(forms).collect();
    text.push_str(&format!("{indent}esac\n{indent}case $cur in\n"));
    // A question mark is a pattern for nobody here: the words are quoted.
    text.push_str(&format!("{indent}    -*) _lxc_cr_words \"{}\" ;;\n", all.join(" ")));
    if let Some(names) = container_of(command) {
        text.push_str(&format!("{indent}    *) _lxc_cr_{names} ;;\n"));
    }
    text.push_str(&format!("{indent}esac\n"));
    text
}

/// The function that gives the names for a command without an option, where it takes some.
fn container_of(command: &Command) -> Option<&'static str> {
    let mut positional = shown(command).filter(|arg| arg.is_positional());
    positional.find_map(|arg| match value(command, arg) {
        Value::Container => Some("containers"),
        Value::Running => Some("running"),
        Value::ContainerOrDirectory => Some("containers_or_paths"),
        _ => None,
    })
}

/// A file for zsh's `fpath`.
pub fn zsh(command: &Command) -> String {
    let name = command.get_name();
    let subs = subcommands(command);
    let mut text = format!("#compdef {name}\n\n{ZSH}\n");
    if subs.is_empty() {
        text.push_str(&zsh_arguments(command, ""));
        return text;
    }
    let list: Vec<String> = subs
        .iter()
        .map(|s| format!("    {}", zsh_quote(&format!("{}:{}", s.get_name(), about(s)))))
        .collect();
    text.push_str(&format!("local -a commands=(\n{}\n)\n", list.join("\n")));
    text.push_str("if (( CURRENT == 2 )); then\n    _describe command commands\n    return\nfi\n");
    text.push_str("local command=$words[2]\nshift words\n(( CURRENT-- ))\ncase $command in\n");
    for sub in subs {
        text.push_str(&format!(
            "    {})\n{}        ;;\n",
            sub.get_name(),
            zsh_arguments(sub, "        ")
        ));
    }
    text.push_str("esac\n");
    text
}

fn zsh_arguments(command: &Command, indent: &str) -> String {
    let mut lines = vec![format!("{indent}_arguments -s -S")];
    for arg in shown(command) {
        let action = match value(command, arg) {
            Value::Nothing => String::new(),
            Value::Container => ":container:_lxc_cr_containers".to_owned(),
            Value::Running => ":container:_lxc_cr_running".to_owned(),
            Value::ContainerOrDirectory => ":container:_lxc_cr_containers_or_paths".to_owned(),
            Value::Checkpoint => ":checkpoint:_lxc_cr_checkpoints".to_owned(),
            Value::Kept => ":checkpoint:_lxc_cr_kept".to_owned(),
            Value::Bridge => ":bridge:_lxc_cr_bridges".to_owned(),
            Value::Interface => ":interface:_lxc_cr_interfaces".to_owned(),
            Value::Directory => ":directory:_files -/".to_owned(),
            Value::File => ":file:_files".to_owned(),
            Value::OneOf(words) => format!(":value:({})", words.join(" ")),
            Value::Free => ":value: ".to_owned(),
        };
        if arg.is_positional() {
            lines.push(zsh_quote(&format!(
                "{}{action}",
                if arg.is_required_set() { "" } else { ":" }
            )));
            continue;
        }
        let help = help(arg)
            .replace('\\', "\\\\")
            .replace('[', "\\[")
            .replace(']', "\\]")
            .replace(':', "\\:");
        let forms = forms(arg);
        let many = if matches!(arg.get_action(), ArgAction::Append) {
            "*".to_owned()
        } else {
            format!("({})", forms.join(" "))
        };
        for form in &forms {
            let equals = match (action.is_empty(), form.starts_with("--")) {
                (true, _) => "",
                (false, true) => "=",
                (false, false) => "+",
            };
            lines.push(zsh_quote(&format!("{many}{form}{equals}[{help}]{action}")));
        }
    }
    format!("{}\n", lines.join(&format!(" \\\n{indent}    ")))
}

fn zsh_quote(text: &str) -> String {
    format!("'{}'", text.replace('\'', "'\\''"))
}

/// A file for fish's `vendor_completions.d`.
pub fn fish(command: &Command) -> String {
    let name = command.get_name();
    let subs = subcommands(command);
    let mut text = format!("# fish completion for {name}\n\n{FISH}\n");
    if subs.is_empty() {
        text.push_str(&fish_lines(name, command, ""));
        return text;
    }
    let none_yet = format!(" -n 'not __fish_seen_subcommand_from {}'", names(&subs));
    for sub in &subs {
        text.push_str(&format!(
            "complete -c {name} -f{none_yet} -a {} -d {}\n",
            sub.get_name(),
            fish_quote(&about(sub))
        ));
    }
    text.push_str(&fish_lines(name, command, &none_yet));
    for sub in subs {
        let seen = format!(" -n '__fish_seen_subcommand_from {}'", sub.get_name());
        text.push_str(&fish_lines(name, sub, &seen));
    }
    text
}

fn fish_lines(name: &str, command: &Command, condition: &str) -> String {
    let mut text = String::new();
    for arg in options(command) {
        let value = match value(command, arg) {
            Value::Nothing => " -f".to_owned(),
            Value::Container => " -x -a '(__lxc_cr_containers)'".to_owned(),
            Value::Running => " -x -a '(__lxc_cr_running)'".to_owned(),
            Value::ContainerOrDirectory => " -x -a '(__lxc_cr_containers_or_paths)'".to_owned(),
            Value::Kept => " -x -a '(__lxc_cr_kept)'".to_owned(),
            Value::Bridge => " -x -a '(__lxc_cr_bridges)'".to_owned(),
            Value::Interface => " -x -a '(__lxc_cr_interfaces)'".to_owned(),
            Value::Checkpoint => {
                " -x -a '(__lxc_cr_checkpoints; __fish_complete_directories)'".to_owned()
            }
            Value::Directory => " -x -a '(__fish_complete_directories)'".to_owned(),
            Value::File => " -r -F".to_owned(),
            Value::OneOf(words) => format!(" -x -a '{}'", words.join(" ")),
            Value::Free => " -x".to_owned(),
        };
        let short = arg.get_short().map(|s| format!(" -s '{s}'")).unwrap_or_default();
        let long = arg.get_long().map(|l| format!(" -l {l}")).unwrap_or_default();
        text.push_str(&format!(
            "complete -c {name}{condition}{short}{long}{value} -d {}\n",
            fish_quote(&help(arg))
        ));
    }
    if let Some(names) = container_of(command) {
        text.push_str(&format!("complete -c {name} -f{condition} -a '(__lxc_cr_{names})'\n"));
    }
    text
}

fn fish_quote(text: &str) -> String {
    format!("'{}'", text.replace('\\', "\\\\").replace('\'', "\\'"))
}
