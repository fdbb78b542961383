//! Two programs with several names each: the commands, and the hooks. `make install` links the
//! names.
//!
//! A program goes by the name under which it was called, or, where the caller made up another one,
//! by the name of its file.

use std::path::Path;
use std::process::ExitCode;

use super::common::print_error_line;
use super::{action, checkpoint, hook, lxc_cr, restart};
use crate::restore::sandbox::USER_SCRIPT;

/// The names of one program, each with its `main`.
type Names = &'static [(&'static str, fn() -> ExitCode)];

/// The program that `lxc-cr` is.
const COMMANDS: Names = &[
    ("lxc-checkpoint", checkpoint::main),
    ("lxc-restart", restart::main),
    ("lxc-cr", lxc_cr::main),
];

/// The program that `lxc-cr-hook` is.
const HOOKS: Names = &[
    ("lxc-cr-action", action::main),
    ("lxc-cr-pre-start", hook::pre_start),
    ("lxc-cr-start-host", hook::start_host),
    ("lxc-cr-post-stop", hook::post_stop),
    ("lxc-cr-net-up", hook::net_up),
    ("lxc-cr-net-down", hook::net_down),
];

/// The commands' `main`. The monitor, which has a title for a name, is any of them.
pub fn commands() -> ExitCode {
    called(COMMANDS).unwrap_or(lxc_cr::main)()
}

/// The hooks' `main`.
pub fn hooks() -> ExitCode {
    if std::env::args_os().next().is_some_and(|name| name == USER_SCRIPT) {
        return action::main();
    }
    match called(HOOKS) {
        Some(main) => main(),
        None => {
            let names: Vec<&str> = HOOKS.iter().map(|(name, _)| *name).collect();
            print_error_line(&format!(
                "lxc-cr-hook: call it by a hook's name: {}",
                names.join(", ")
            ));
            ExitCode::FAILURE
        }
    }
}

fn called(names: Names) -> Option<fn() -> ExitCode> {
    let title = std::env::args_os().next().map(std::path::PathBuf::from);
    let file = std::env::current_exe().ok();
    [title, file].into_iter().flatten().find_map(|path| main_of(names, &path))
}

fn main_of(names: Names, path: &Path) -> Option<fn() -> ExitCode> {
    let name = path.file_name()?.to_str()?;
    names.iter().find(|(known, _)| *known == name).map(|(_, main)| *main)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_leads_to_the_name_at_its_end() {
        let is = |path: &str, name: &str| {
            let wanted =
                HOOKS.iter().find(|(known, _)| *known == name).map(|(_, main)| *main as usize);
            main_of(HOOKS, Path::new(path)).map(|main| main as usize) == wanted
        };
        assert!(is("/usr/libexec/lxc-cr/lxc-cr-net-up", "lxc-cr-net-up"));
        assert!(is("lxc-cr-action", "lxc-cr-action"));
        assert!(main_of(HOOKS, Path::new("/usr/libexec/lxc-cr/lxc-cr-hook")).is_none());
    }
}
