//! CRIU's action script. No arguments: CRIU speaks by the environment. What it prints goes into
//! CRIU's log.

use std::fs::File;
use std::os::fd::AsFd;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, ExitCode};

use anyhow::{Context, Result};

use super::common::print_error_line;
use crate::criu::action_env::{ActionEnv, IMAGE_DIR};
use crate::criu::control::CONTROL_VARIABLE;
use crate::restore::sandbox::{HOST_VARIABLE, USER_SCRIPT, USER_SCRIPT_VARIABLE};
use crate::sys::mount::enter_mount_namespace;

/// The program's `main`.
pub(crate) fn main() -> ExitCode {
    crate::sys::clean_start::begin();
    let lookup = |name: &str| std::env::var_os(name);
    let env = match ActionEnv::from_env(lookup) {
        Ok(env) => env,
        Err(e) => {
            print_error_line(&format!(
                "lxc-cr: {e}: this program is CRIU's action script, see lxc-cr-hooks(7)"
            ));
            return ExitCode::FAILURE;
        }
    };
    if std::env::args_os().next().is_some_and(|name| name == USER_SCRIPT) {
        let Err(e) = run_users_script(&env);
        print_error_line(&format!("lxc-cr[{}]: {e:#}", env.action.name()));
        return ExitCode::FAILURE;
    }
    let command = lookup(CONTROL_VARIABLE).map(PathBuf::from);
    match crate::hooks::criu_action::run(&env, command.as_deref()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            print_error_line(&format!("lxc-cr[{}]: {e:#}", env.action.name()));
            ExitCode::FAILURE
        }
    }
}

/// Becomes the user's script: where CRIU restores there is nothing of the host, and the script is
/// to find all of it.
fn run_users_script(env: &ActionEnv) -> Result<std::convert::Infallible> {
    let variable =
        |name: &str| std::env::var_os(name).with_context(|| format!("{name} is not set"));
    let (script, host) = (variable(USER_SCRIPT_VARIABLE)?, variable(HOST_VARIABLE)?);
    let namespace = File::open(&host).context("open the mount namespace of the command")?;
    enter_mount_namespace(namespace.as_fd()).context("go to the mount namespace of the command")?;
    let mut command = Command::new(&script);
    command.env_remove(USER_SCRIPT_VARIABLE).env_remove(HOST_VARIABLE);
    // CRIU's own descriptor leads to images that cannot be written.
    if let Some(dir) = &env.image_dir {
        command.env(IMAGE_DIR, dir).current_dir(dir);
    }
    Err(command.exec()).with_context(|| format!("run {}", script.display()))
}
