//! CRIU's action script. No arguments: CRIU speaks by the environment. What it prints goes into CRIU's log.

use std::path::PathBuf;
use std::process::ExitCode;

use super::common::print_error;
use crate::criu::action_env::ActionEnv;
use crate::criu::control::CONTROL_VARIABLE;

/// The program's `main`.
pub fn main() -> ExitCode {
    let lookup = |name: &str| std::env::var_os(name);
    let env = match ActionEnv::from_env(lookup) {
        Ok(env) => env,
        Err(e) => {
            print_error(&format!("lxc-cr: {e}: this program is CRIU's action script, see lxc-cr-hooks(7)\n"));
            return ExitCode::FAILURE;
        }
    };
    let command = lookup(CONTROL_VARIABLE).map(PathBuf::from);
    match crate::action::run(&env, command.as_deref()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            print_error(&format!("lxc-cr[{}]: {e:#}\n", env.action.name()));
            ExitCode::FAILURE
        }
    }
}
